/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Peers whose key is admitted and that then say nothing, or not what comes first: libzmq holds a
 * descriptor for each for ever. docs/libzmq.md says what the broker does.
 *
 * usage: e2e.libzmq_silence TREADLED
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

#include "tests/support/honest_mesh.h"

#define HEARTBEAT_SPAN_MS 12000 /* the broker's own: 1 s, and 3 s for the answer */
#define SILENCE_SPAN_MS   20000 /* the broker's own is 10 s */

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

static void test_peer_that_does_not_answer_libzmqs_heartbeat_is_closed(void **unused)
{
    (void)unused;
    struct raw_curve peer;
    const struct raw_curve_keys keys = honest_mesh_keys(&mesh, &mesh.mallory);
    assert_true(raw_curve_open(&peer, mesh.broker.endpoint, &keys, SERVED_WITHIN_MS));
    const uint64_t began_at_ms = clock_now_ms();
    assert_true(raw_is_ended_within(peer.fd, HEARTBEAT_SPAN_MS));
    print_message("closed after %u ms\n", (unsigned)(clock_now_ms() - began_at_ms));
    (void)close(peer.fd);
    honest_mesh_check(&mesh);
}

/* Both answer libzmq's heartbeats. */
static void test_admitted_peers_without_a_session_do_not_keep_their_place(void **unused)
{
    (void)unused;
    struct message query = {.kind = MESSAGE_BROKER_QUERY};
    struct keyed_peer *silent = honest_mesh_connect(&mesh, &mesh.mallory);
    struct keyed_peer *without_hello = honest_mesh_connect(&mesh, &mesh.mallory);
    struct keyed_peer *honest = honest_peer_open(&mesh);
    const uint64_t began_at_ms = clock_now_ms();
    keyed_peer_send(without_hello, &query);
    while (clock_now_ms() - began_at_ms < SILENCE_SPAN_MS &&
           (keyed_broker_counter(&mesh.broker, "connections_silent") == 0 ||
            keyed_broker_counter(&mesh.broker, "cut_idle") == 0)) {
        sleep_ms(500);
        (void)honest_peer_ask(honest);
    }
    print_message("cut after %u ms\n", (unsigned)(clock_now_ms() - began_at_ms));
    assert_int_equal(keyed_broker_counter(&mesh.broker, "connections_silent"), 1);
    assert_int_equal(keyed_broker_counter(&mesh.broker, "cut_idle"), 1);
    assert_int_equal(keyed_broker_counter(&mesh.broker, "connections_cut"), 2); /* and no more */
    (void)honest_peer_ask(honest);
    keyed_peer_close(&silent);
    keyed_peer_close(&without_hello);
    keyed_peer_close(&honest);
    honest_mesh_check(&mesh);
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
        STORY(test_peer_that_does_not_answer_libzmqs_heartbeat_is_closed),
        STORY(test_admitted_peers_without_a_session_do_not_keep_their_place),
    };
    const int failed_count = cmocka_run_group_tests(tests, NULL, NULL);
    keyed_brokers_kill();
    return failed_count;
}
