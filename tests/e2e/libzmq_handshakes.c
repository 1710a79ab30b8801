/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What is known to bring libzmq down before anybody is let in: connections that say nothing, half a
 * handshake, or rubbish. docs/libzmq.md says for each way what libzmq does and what
 * the broker does. Whoever does these things has no key.
 *
 * usage: e2e.libzmq_handshakes TREADLED
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "tests/support/honest_mesh.h"
#include "tests/support/raw_peer.h"

#define GREETING_SIZE 64U

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

/* ---- handshakes that do not end ---- */

/* What libzmq would hold a descriptor for, for 30 s by default. */
static void test_connections_that_stop_before_they_are_let_in_are_closed(void **unused)
{
    (void)unused;
    enum { EACH = 25, KINDS = 5 };
    static const uint8_t half[10] = {[0] = 0xff, [8] = 1, [9] = 0x7f};
    static const uint8_t greeting[GREETING_SIZE] = {
        [0] = 0xff, [8] = 1,    [9] = 0x7f, [10] = 3,  [12] = 'C',
        [13] = 'U', [14] = 'R', [15] = 'V', [16] = 'E'};
    const struct raw_curve_keys keys = honest_mesh_keys(&mesh, &mesh.alice);
    int fds[EACH * KINDS];
    for (int i = 0; i < EACH; i++) {
        int *fd = &fds[(size_t)i * KINDS];
        struct raw_curve begun;
        fd[0] = honest_mesh_given_a_socket(mesh.broker.endpoint); /* says nothing */
        fd[1] = honest_mesh_given_a_socket(mesh.broker.plain);    /* nor over ipc */
        fd[2] = honest_mesh_given_a_socket(mesh.broker.endpoint);
        assert_true(raw_send(fd[2], (struct bytes){half, sizeof half}));
        fd[3] = honest_mesh_given_a_socket(mesh.broker.endpoint);
        assert_true(raw_send(fd[3], (struct bytes){greeting, sizeof greeting}));
        assert_true(raw_curve_begin(&begun, mesh.broker.endpoint, &keys, SERVED_WITHIN_MS));
        fd[4] = begun.fd; /* has its WELCOME and does not go on */
    }
    honest_mesh_then_all_are_closed(fds, sizeof fds / sizeof fds[0]);
    honest_mesh_check(&mesh);
}

static void test_handshake_that_goes_on_byte_by_byte_is_closed_all_the_same(void **unused)
{
    (void)unused;
    static const uint8_t greeting[GREETING_SIZE] = {
        [0] = 0xff, [8] = 1,    [9] = 0x7f, [10] = 3,  [12] = 'C',
        [13] = 'U', [14] = 'R', [15] = 'V', [16] = 'E'};
    const int fd = honest_mesh_given_a_socket(mesh.broker.endpoint);
    const uint64_t began_at_ms = clock_now_ms();
    bool is_ended = false;
    for (size_t i = 0; i < GREETING_SIZE && !is_ended; i++) {
        (void)raw_send(fd, (struct bytes){greeting + i, 1});
        is_ended = raw_is_ended_within(fd, HANDSHAKE_SPAN_MS / (int)GREETING_SIZE);
    }
    print_message("closed after %u ms\n", (unsigned)(clock_now_ms() - began_at_ms));
    assert_true(is_ended);
    (void)close(fd);
    honest_mesh_check(&mesh);
}

/* libzmq takes a command of ZMQ_MAXMSGSIZE before it knows who sends it: what comes in within the
 * time of a handshake is held, and no longer. */
static void test_huge_commands_of_nobody_are_let_go_with_their_handshakes(void **unused)
{
    (void)unused;
    enum { COUNT = 30 };
    static const uint64_t command_size = UINT64_C(5) << 20; /* the most that is taken */
    static uint8_t part[65536];
    const struct raw_curve_keys keys = honest_mesh_keys(&mesh, &mesh.stranger);
    int fds[COUNT];
    for (int i = 0; i < COUNT; i++) {
        struct raw_curve begun;
        uint8_t header[9] = {6}; /* a long command */
        bytes_store_u64(header + 1, command_size);
        assert_true(raw_curve_begin(&begun, mesh.broker.endpoint, &keys, SERVED_WITHIN_MS));
        assert_true(raw_send(begun.fd, (struct bytes){header, sizeof header}));
        for (uint64_t sent = 0; sent + sizeof part < command_size; sent += sizeof part) {
            assert_true(raw_send(begun.fd, (struct bytes){part, sizeof part}));
        }
        fds[i] = begun.fd;
    }
    honest_mesh_then_all_are_closed(fds, COUNT);
    assert_int_equal(keyed_broker_counter(&mesh.broker, "handshakes_admitted"), 0);
    honest_mesh_check(&mesh);
}

/* ---- what is no handshake of ours ---- */

struct opening {
    const char *what;
    struct bytes bytes;
};

#define SIGNATURE "\xff\0\0\0\0\0\0\0\x01\x7f"
#define ZEROS_44                                                                                   \
    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define HELLO_OF_ZMTP_1 "\x01\0\x08\0rubbish" /* an identity of no bytes, then a frame */
#define OPENING(text)                                                                              \
    {                                                                                              \
        (const uint8_t *)(text), sizeof(text) - 1                                                  \
    }
#define MECHANISM(name) SIGNATURE "\x03\0" name ZEROS_44

/* Whether the connection ends without anything of it reaching the broker's loop. */
static void then_none_gets_in(const struct opening *openings, size_t count)
{
    const uint64_t asked_before = keyed_broker_asked();
    const uint64_t before = keyed_broker_counter(&mesh.broker, "messages_in");
    int fds[32];
    assert_true(count <= sizeof fds / sizeof fds[0]);
    for (size_t i = 0; i < count; i++) {
        fds[i] = honest_mesh_given_a_socket(mesh.broker.endpoint);
        (void)raw_send(fds[i], openings[i].bytes);
    }
    honest_mesh_then_all_are_closed(fds, count);
    const uint64_t after = keyed_broker_counter(&mesh.broker, "messages_in");
    assert_int_equal(after - before, keyed_broker_asked() - asked_before - 2);
    honest_mesh_check(&mesh);
}

static void test_greetings_of_other_mechanisms_do_not_get_in(void **unused)
{
    (void)unused;
    static const struct opening openings[] = {
        {"NULL and READY", OPENING(MECHANISM("NULL\0\0\0\0\0\0\0\0") "\x04\x06\x05READY")},
        {"NULL and a message", OPENING(MECHANISM("NULL\0\0\0\0\0\0\0\0") "\0\x07rubbish")},
        {"PLAIN", OPENING(MECHANISM("PLAIN\0\0\0\0\0\0\0") "\x04\x09\x05HELLO\x01"
                                                           "a\x01"
                                                           "a")},
        {"GSSAPI", OPENING(MECHANISM("GSSAPI\0\0\0\0\0\0") "\x04\x0a\x08INITIATE\0")},
        {"no name", OPENING(MECHANISM("\0\0\0\0\0\0\0\0\0\0\0\0") "\0\x07rubbish")},
        {"a name that is not text", OPENING(MECHANISM("CURVE\xff\xff\xff\xff\xff\xff\xff"))},
    };
    then_none_gets_in(openings, sizeof openings / sizeof openings[0]);
}

/* They have no mechanisms: a libzmq that admits them admits everybody. */
static void test_peers_of_zmtp_1_and_2_do_not_get_in(void **unused)
{
    (void)unused;
    static const struct opening openings[] = {
        {"1.0", OPENING(HELLO_OF_ZMTP_1)},
        {"1.0, with an identity", OPENING("\x06\0name-\x08\0rubbish")},
        {"2.0", OPENING(SIGNATURE "\x01\x05\0\0\0\x07rubbish")},
        {"2.1", OPENING(SIGNATURE "\x02\x05\0\0\0\x07rubbish")},
        {"2.0 with an identity of 255 bytes", OPENING(SIGNATURE "\x01\x05\0\xff" ZEROS_44)},
    };
    then_none_gets_in(openings, sizeof openings / sizeof openings[0]);
}

static void test_what_is_not_zeromq_does_no_harm(void **unused)
{
    (void)unused;
    static const struct opening openings[] = {
        {"HTTP", OPENING("GET / HTTP/1.1\r\nHost: broker\r\n\r\n")},
        {"TLS", OPENING("\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" ZEROS_44)},
        {"zeros", OPENING(ZEROS_44 ZEROS_44)},
        {"a signature of another kind", OPENING("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x03")},
        {"a version of the future", OPENING(SIGNATURE "\xff\xff")},
        {"ones", OPENING("\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01")},
        {"a server", OPENING(SIGNATURE "\x03\0CURVE\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01" ZEROS_44)},
    };
    then_none_gets_in(openings, sizeof openings / sizeof openings[0]);
}

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* Commands of CURVE that are cut, grown, or of random bytes, from the same seed each time. */
static void test_broken_commands_of_a_curve_handshake_do_no_harm(void **unused)
{
    (void)unused;
    static const char *const commands[] = {"\x05HELLO", "\x08INITIATE", "\x05READY", "\x07MESSAGE",
                                           "\005ERROR", "\x04PING",     "\xffnoname"};
    enum { COUNT = 210 };
    const struct raw_curve_keys keys = honest_mesh_keys(&mesh, &mesh.stranger);
    uint32_t state = 20261122;
    for (uint32_t i = 0; i < COUNT; i++) {
        struct raw_curve peer;
        uint8_t frame[2 + 255];
        const struct bytes command =
            bytes_from_text(commands[i % (sizeof commands / sizeof commands[0])]);
        for (size_t at = 0; at < sizeof frame; at++) {
            frame[at] = (uint8_t)next_random(&state);
        }
        memcpy(frame + 2, command.data, command.size);
        frame[0] = (uint8_t)(next_random(&state) % 8); /* more, long, command, and no more bits */
        frame[1] = i % 3 == 0 ? 200 : (uint8_t)next_random(&state); /* 200: a HELLO's size */
        assert_true(raw_curve_begin(&peer, mesh.broker.endpoint, &keys, SERVED_WITHIN_MS));
        (void)raw_send(peer.fd, (struct bytes){frame, 2 + (size_t)frame[1]});
        (void)close(peer.fd);
    }
    honest_mesh_check(&mesh);
}

/* libzmq's context does not end before its sockets do. */
static void test_broker_ends_while_handshakes_go_on(void **unused)
{
    (void)unused;
    enum { COUNT = 50 };
    int fds[COUNT];
    (void)set_up(NULL);
    const struct raw_curve_keys keys = honest_mesh_keys(&mesh, &mesh.alice);
    for (int i = 0; i < COUNT; i++) {
        struct raw_curve begun;
        assert_true(raw_curve_begin(&begun, mesh.broker.endpoint, &keys, SERVED_WITHIN_MS));
        fds[i] = begun.fd;
    }
    struct keyed_peer *peer = honest_peer_open(&mesh);
    const uint64_t told_at_ms = clock_now_ms();
    (void)tear_down(NULL); /* it ends with 0 */
    assert_true(clock_now_ms() - told_at_ms < SERVED_WITHIN_MS);
    keyed_peer_close(&peer);
    for (int i = 0; i < COUNT; i++) {
        (void)close(fds[i]);
    }
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
        STORY(test_connections_that_stop_before_they_are_let_in_are_closed),
        STORY(test_handshake_that_goes_on_byte_by_byte_is_closed_all_the_same),
        STORY(test_huge_commands_of_nobody_are_let_go_with_their_handshakes),
        STORY(test_greetings_of_other_mechanisms_do_not_get_in),
        STORY(test_peers_of_zmtp_1_and_2_do_not_get_in),
        STORY(test_what_is_not_zeromq_does_no_harm),
        STORY(test_broken_commands_of_a_curve_handshake_do_no_harm),
        cmocka_unit_test(test_broker_ends_while_handshakes_go_on),
    };
    const int failed_count = cmocka_run_group_tests(tests, NULL, NULL);
    keyed_brokers_kill();
    return failed_count;
}
