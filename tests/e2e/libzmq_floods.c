/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What is known to bring libzmq down before anybody is let in, by their number: connections that
 * come and go, keys that are denied again and again, all descriptors taken. docs/libzmq.md says for
 * each way what libzmq does and what the broker does. Whoever does these things has no key.
 *
 * usage: e2e.libzmq_floods TREADLED
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include "tests/support/honest_mesh.h"
#include "tests/support/raw_peer.h"

#define DESCRIPTORS_NARROW 128U

static const char *treadled_path;
static struct honest_mesh mesh;

static int set_up(void **unused)
{
    (void)unused;
    honest_mesh_start(&mesh, treadled_path);
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    keyed_broker_stop(&mesh.broker);
    return 0;
}

/* Undrained, libzmq's monitor stops the I/O threads after some hundred of these. */
static void test_thousand_connections_that_come_and_go_stop_nobody(void **unused)
{
    (void)unused;
    enum { COUNT = 1000 };
    struct keyed_peer *peer = honest_peer_open(&mesh);
    const char *const endpoints[] = {mesh.broker.endpoint, mesh.broker.second, mesh.broker.plain};
    for (int i = 0; i < COUNT; i++) {
        const int fd = honest_mesh_given_a_socket(endpoints[i % 3]);
        (void)close(fd);
        if (i % 100 == 0) {
            (void)honest_peer_ask(peer); /* over the connection that it always had */
        }
    }
    honest_mesh_check(&mesh);
    assert_int_equal(keyed_broker_counter(&mesh.broker, "connections_cut"), 0);
    (void)honest_peer_ask(peer);
    keyed_peer_close(&peer);
}

/* They come again as often as libzmq lets them, and each time cost the broker a handshake. */
static void
test_peers_with_wrong_keys_that_come_again_and_again_leave_the_others_served(void **unused)
{
    (void)unused;
    enum { PEER_COUNT = 200 };
    struct keyed_peer *peers[PEER_COUNT];
    struct keyed_peer *honest = honest_peer_open(&mesh);
    for (int i = 0; i < PEER_COUNT; i++) {
        peers[i] =
            keyed_peer_open(&(struct given_keyed_peer){.endpoint = mesh.broker.endpoint,
                                                       .mechanism = PEER_CURVE,
                                                       .key = &mesh.stranger,
                                                       .server_key = mesh.broker.second_key});
    }
    const uint64_t until_ms = clock_now_ms() + 2000;
    uint64_t longest_ms = 0;
    while (clock_now_ms() < until_ms) {
        const uint64_t span_ms = honest_peer_ask(honest);
        longest_ms = span_ms > longest_ms ? span_ms : longest_ms;
        sleep_ms(5);
    }
    print_message("the longest answer took %u ms\n", (unsigned)longest_ms);
    honest_mesh_check(&mesh); /* who comes only now gets in, too */
    for (int i = 0; i < PEER_COUNT; i++) {
        keyed_peer_close(&peers[i]);
    }
    keyed_peer_close(&honest);
}

static void test_denied_keys_reach_nothing_behind_the_handshake(void **unused)
{
    (void)unused;
    enum { COUNT = 200 };
    const struct raw_curve_keys keys = honest_mesh_keys(&mesh, &mesh.stranger);
    const uint64_t asked_before = keyed_broker_asked();
    const uint64_t before = keyed_broker_counter(&mesh.broker, "messages_in");
    for (int i = 0; i < COUNT; i++) {
        struct raw_curve peer;
        assert_true(raw_curve_begin(&peer, mesh.broker.endpoint, &keys, SERVED_WITHIN_MS));
        assert_true(raw_curve_initiate(&peer, &keys));
        /* does not wait for READY, which never comes */
        (void)raw_curve_send(&peer, bytes_from_text("rubbish"), false);
        assert_true(raw_is_ended_within(peer.fd, HANDSHAKE_SPAN_MS));
        (void)close(peer.fd);
    }
    assert_int_equal(keyed_broker_counter(&mesh.broker, "handshakes_denied"), COUNT);
    const uint64_t after = keyed_broker_counter(&mesh.broker, "messages_in");
    assert_int_equal(after - before, keyed_broker_asked() - asked_before - 2);
    honest_mesh_check(&mesh);
}

/* ---- no descriptors ---- */

/* Lets the broker have so many; how many it might have before. */
static rlim_t set_descriptors(rlim_t most)
{
    struct rlimit limit;
    assert_int_equal(prlimit(mesh.broker.pid, RLIMIT_NOFILE, NULL, &limit), 0);
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = most;
    assert_int_equal(prlimit(mesh.broker.pid, RLIMIT_NOFILE, &limit, NULL), 0);
    return before;
}

/* More silent connections than the broker has descriptors, to one endpoint; meanwhile who is there
 * is served, and after that who comes, to each endpoint. */
static void then_the_broker_outlives(const char *endpoint)
{
    enum { COUNT = 2 * DESCRIPTORS_NARROW };
    int fds[COUNT];
    struct keyed_peer *peer = honest_peer_open(&mesh);
    (void)set_descriptors(DESCRIPTORS_NARROW);
    for (int i = 0; i < COUNT; i++) {
        fds[i] = honest_mesh_given_a_socket(endpoint);
    }
    uint64_t longest_ms = 0;
    for (int i = 0; i < 20; i++) {
        const uint64_t span_ms = honest_peer_ask(peer);
        longest_ms = span_ms > longest_ms ? span_ms : longest_ms;
    }
    (void)close(
        honest_mesh_given_a_socket(mesh.broker.plain)); /* one to an endpoint of each kind */
    (void)close(honest_mesh_given_a_socket(mesh.broker.endpoint));
    (void)honest_peer_ask(peer);
    print_message("who was there waited at most %u ms\n", (unsigned)longest_ms);
    honest_mesh_then_all_are_closed(fds,
                                    COUNT); /* at once, or at the end of the handshake's time */
    honest_mesh_check(&mesh);
    (void)honest_peer_ask(peer);
    keyed_peer_close(&peer);
}

static void test_no_descriptors_for_tcp_harms_nobody_who_is_there(void **unused)
{
    (void)unused;
    then_the_broker_outlives(mesh.broker.endpoint);
}

/* libzmq 4.3.4 itself would end the process: its ipc listener does not expect EMFILE. */
static void test_no_descriptors_for_ipc_does_not_end_the_broker(void **unused)
{
    (void)unused;
    then_the_broker_outlives(mesh.broker.plain);
}

/* As above, but the kernel itself says EMFILE: the broker has more than it may. */
static void test_fewer_descriptors_than_are_in_use_do_not_end_the_broker(void **unused)
{
    (void)unused;
    int fds[4];
    struct keyed_peer *peer = honest_peer_open(&mesh);
    const rlim_t before = set_descriptors(16); /* poll() wants as many as it waits for */
    for (int i = 0; i < 4; i++) {
        fds[i] = honest_mesh_given_a_socket(i % 2 == 0 ? mesh.broker.plain : mesh.broker.endpoint);
    }
    sleep_ms(200);
    (void)honest_peer_ask(peer);
    (void)set_descriptors(before);
    honest_mesh_then_all_are_closed(fds, 4);
    honest_mesh_check(&mesh);
    keyed_peer_close(&peer);
}

int main(int argc, char **argv)
{
    if (argc != 2 || sodium_init() == -1) {
        (void)fprintf(stderr, "usage: %s TREADLED\n", argv[0]);
        return EX_USAGE;
    }
    treadled_path = argv[1];
#define STORY(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        STORY(test_thousand_connections_that_come_and_go_stop_nobody),
        STORY(test_peers_with_wrong_keys_that_come_again_and_again_leave_the_others_served),
        STORY(test_denied_keys_reach_nothing_behind_the_handshake),
        STORY(test_no_descriptors_for_tcp_harms_nobody_who_is_there),
        STORY(test_no_descriptors_for_ipc_does_not_end_the_broker),
        STORY(test_fewer_descriptors_than_are_in_use_do_not_end_the_broker),
    };
    const int failed_count = cmocka_run_group_tests(tests, NULL, NULL);
    keyed_brokers_kill();
    return failed_count;
}
