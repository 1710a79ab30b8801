/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/honest_mesh.h"
#include "tests/support/raw_peer.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

void honest_mesh_start(struct honest_mesh *mesh, const char *treadled)
{
    char text[1024];
    test_key_create(&mesh->alice);
    test_key_create(&mesh->mallory);
    test_key_create(&mesh->stranger);
    (void)snprintf(text, sizeof text,
                   "principal \"alice\" {\n    keys = {%s}\n    roles = {submit, work, admin}\n"
                   "    services = {\"*\"}\n}\n"
                   "principal \"mallory\" {\n    keys = {%s}\n    roles = {submit, work, admin}\n"
                   "    services = {\"*\"}\n}\n",
                   mesh->alice.hex, mesh->mallory.hex);
    keyed_broker_start(&mesh->broker, treadled, text);
}

struct keyed_peer *honest_mesh_connect(const struct honest_mesh *mesh, const struct test_key *key)
{
    return keyed_peer_open(&(struct given_keyed_peer){.endpoint = mesh->broker.endpoint,
                                                      .mechanism = PEER_CURVE,
                                                      .key = key,
                                                      .server_key = mesh->broker.server_key});
}

struct keyed_peer *honest_peer_open(const struct honest_mesh *mesh)
{
    struct keyed_peer *peer = honest_mesh_connect(mesh, &mesh->alice);
    keyed_peer_hello(peer, ROLE_CLIENT, "alice", NULL);
    assert_true(keyed_peer_receive_kind(peer, MESSAGE_WELCOME, SERVED_WITHIN_MS));
    return peer;
}

uint64_t honest_peer_ask(struct keyed_peer *peer)
{
    struct message query = {.kind = MESSAGE_BROKER_QUERY};
    const uint64_t asked_at_ms = clock_now_ms();
    keyed_peer_hello(peer, ROLE_CLIENT, "alice", NULL);
    keyed_peer_send(peer, &query);
    assert_true(keyed_peer_receive_kind(peer, MESSAGE_BROKER_INFO, SERVED_WITHIN_MS));
    return clock_now_ms() - asked_at_ms;
}

void honest_mesh_check(const struct honest_mesh *mesh)
{
    int status = 0;
    assert_int_equal(waitpid(mesh->broker.pid, &status, WNOHANG), 0);
    struct keyed_peer *peer = honest_peer_open(mesh);
    (void)honest_peer_ask(peer);
    keyed_peer_close(&peer);
    (void)keyed_broker_counter(&mesh->broker, "messages_in"); /* over ipc */
}

struct raw_curve_keys honest_mesh_keys(const struct honest_mesh *mesh, const struct test_key *key)
{
    return (struct raw_curve_keys){mesh->broker.server_key, key->public_key, key->secret_key};
}

int honest_mesh_given_a_socket(const char *endpoint)
{
    const int fd = raw_connect(endpoint);
    assert_int_not_equal(fd, -1);
    return fd;
}

void honest_mesh_then_all_are_closed(const int *fds, size_t count)
{
    const uint64_t until_ms = clock_now_ms() + HANDSHAKE_SPAN_MS;
    for (size_t i = 0; i < count; i++) {
        const uint64_t now_ms = clock_now_ms();
        assert_true(raw_is_ended_within(fds[i], now_ms < until_ms ? (int)(until_ms - now_ms) : 0));
        (void)close(fds[i]);
    }
}
