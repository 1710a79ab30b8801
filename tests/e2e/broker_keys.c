/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Who gets in, over real sockets: no key, wrong keys, other mechanisms, keys that were revoked, a
 * broker whose ZAP thread has ended; two server keys; and what is known to bring libzmq down.
 *
 * usage: e2e.broker_keys TREADLED
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>
#include <zmq.h>

#include "broker/shell/sockets.h"
#include "broker/shell/transport.h"
#include "tests/support/keyed_mesh.h"

#define ATTEMPT_COUNT 200
#define TOGETHER      50

static const char *treadled_path;
static struct keyed_broker broker;
static struct test_key alice;
static struct test_key bob;

/* The principals alice and bob, who may do everything, if there. */
static const char *principals_of(const struct test_key *first, const struct test_key *second)
{
    static char text[1024];
    text[0] = '\0';
    for (int i = 0; i < 2; i++) {
        const struct test_key *key = i == 0 ? first : second;
        const size_t size = strlen(text);
        if (key != NULL) {
            (void)snprintf(
                text + size, sizeof text - size,
                "principal \"%s\" {\n    keys = {%s}\n    roles = {submit, work, admin}\n"
                "    services = {\"*\"}\n}\n",
                i == 0 ? "alice" : "bob", key->hex);
        }
    }
    return text;
}

static struct keyed_peer *given_a_peer(const struct test_key *key)
{
    return keyed_peer_open(&(struct given_keyed_peer){.endpoint = broker.endpoint,
                                                      .mechanism = PEER_CURVE,
                                                      .key = key,
                                                      .server_key = broker.server_key});
}

static int set_up(void **unused)
{
    (void)unused;
    test_key_create(&alice);
    test_key_create(&bob);
    keyed_broker_start(&broker, treadled_path, principals_of(&alice, &bob));
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    keyed_broker_stop(&broker);
    return 0;
}

/* ---- who does not get in ---- */

/* Tries so often to say HELLO; returns how many were welcome. */
static int count_welcome(const struct given_keyed_peer *given, int span_ms)
{
    int count = 0;
    for (int done = 0; done < ATTEMPT_COUNT; done += TOGETHER) {
        struct keyed_peer *peers[TOGETHER];
        for (int i = 0; i < TOGETHER; i++) {
            peers[i] = keyed_peer_open(given);
            keyed_peer_hello(peers[i], ROLE_CLIENT, "visitor", NULL);
        }
        const uint64_t until_ms = clock_now_ms() + (uint64_t)span_ms;
        for (int i = 0; i < TOGETHER; i++) {
            const uint64_t now_ms = clock_now_ms();
            const int left_ms = now_ms < until_ms ? (int)(until_ms - now_ms) : 0;
            count += keyed_peer_receive_kind(peers[i], MESSAGE_WELCOME, left_ms) ? 1 : 0;
        }
        for (int i = 0; i < TOGETHER; i++) {
            keyed_peer_close(&peers[i]);
        }
    }
    return count;
}

/* None of their messages reached the broker's loop, not to speak of its core. */
static void then_nobody_gets_in(const struct given_keyed_peer *given)
{
    const uint64_t asked_before = keyed_broker_asked();
    const uint64_t before = keyed_broker_counter(&broker, "messages_in");
    assert_int_equal(count_welcome(given, 500), 0);
    const uint64_t after = keyed_broker_counter(&broker, "messages_in");
    assert_int_equal(after - before, keyed_broker_asked() - asked_before - 2);
    struct keyed_peer *peer = given_a_peer(&alice); /* who may gets in all the same */
    keyed_peer_hello(peer, ROLE_CLIENT, "alice", NULL);
    assert_true(keyed_peer_receive_kind(peer, MESSAGE_WELCOME, 5000));
    keyed_peer_close(&peer);
}

static void test_admitted_key_gets_in_each_time(void **unused)
{
    (void)unused;
    const struct given_keyed_peer given = {.endpoint = broker.endpoint,
                                           .mechanism = PEER_CURVE,
                                           .key = &alice,
                                           .server_key = broker.server_key};
    assert_int_equal(count_welcome(&given, 5000), ATTEMPT_COUNT);
}

static void test_unknown_key_does_not_get_in(void **unused)
{
    (void)unused;
    struct test_key stranger;
    test_key_create(&stranger);
    const struct given_keyed_peer given = {.endpoint = broker.endpoint,
                                           .mechanism = PEER_CURVE,
                                           .key = &stranger,
                                           .server_key = broker.server_key};
    then_nobody_gets_in(&given);
    assert_true(keyed_broker_counter(&broker, "handshakes_denied") >= ATTEMPT_COUNT);
}

static void test_wrong_server_key_does_not_get_in(void **unused)
{
    (void)unused;
    const struct given_keyed_peer given = {.endpoint = broker.endpoint,
                                           .mechanism = PEER_CURVE,
                                           .key = &alice,
                                           .server_key = broker.second_key};
    then_nobody_gets_in(&given);
}

static void test_peer_without_a_key_does_not_get_in(void **unused)
{
    (void)unused;
    then_nobody_gets_in(&(struct given_keyed_peer){.endpoint = broker.endpoint});
}

static void test_password_does_not_get_in(void **unused)
{
    (void)unused;
    then_nobody_gets_in(
        &(struct given_keyed_peer){.endpoint = broker.endpoint, .mechanism = PEER_PASSWORD});
}

static void test_revoked_key_does_not_get_in(void **unused)
{
    (void)unused;
    keyed_broker_reload(&broker, principals_of(&alice, NULL));
    const struct given_keyed_peer given = {.endpoint = broker.endpoint,
                                           .mechanism = PEER_CURVE,
                                           .key = &bob,
                                           .server_key = broker.server_key};
    then_nobody_gets_in(&given);
}

/* ---- sockets of a broker in this process ---- */

static struct key_pair *server_pair;
static struct principals *table;
static struct transport *transport;
static struct given_keyed_peer given_here; /* how alice comes to it */

static void given_a_transport(uint64_t check_span_ms)
{
    struct conf_mistakes mistakes = {.count = 0};
    struct transport_error error;
    char path[256];
    char why[KEY_WHY_SIZE];
    (void)snprintf(path, sizeof path, "%s/server.key", broker.folder);
    assert_int_equal(key_pair_open(&server_pair, path, why), TREADLE_OK);
    table = principals_read(broker.principals, &mistakes);
    assert_non_null(table);
    const struct transport_config config = {.endpoints = {"tcp://127.0.0.1:*"},
                                            .endpoint_count = 1,
                                            .server_keys = {server_pair},
                                            .rights = {RIGHT_SUBMIT | RIGHT_WORK},
                                            .principals = table,
                                            .connection_count_max = 1024,
                                            .frame_size_max = 1048576,
                                            .check_span_ms = check_span_ms};
    transport = transport_open(&config, &error);
    assert_non_null(transport);
    given_here = (struct given_keyed_peer){.endpoint = transport_endpoint(transport, 0),
                                           .mechanism = PEER_CURVE,
                                           .key = &alice,
                                           .server_key = broker.server_key};
}

static int tear_down_transport(void **unused)
{
    transport_close(&transport, 0);
    principals_destroy(&table);
    key_pair_close(&server_pair);
    return tear_down(unused);
}

/* The connection of the next message that is there within 5 s. */
static uint32_t receive_here(struct transport_message *message)
{
    *message = (struct transport_message){.connection = CONNECTION_NONE};
    for (int i = 0; i < 500 && message->connection == CONNECTION_NONE; i++) {
        transport_collect(transport, clock_now_ms());
        if (!transport_receive(transport, message)) {
            sleep_ms(10);
        }
    }
    assert_int_not_equal(message->connection, CONNECTION_NONE);
    return message->connection;
}

/* In this process, whose thread can be ended. */
static void test_without_the_zap_thread_nobody_gets_in(void **unused)
{
    (void)unused;
    given_a_transport(0);
    struct keyed_peer *first = keyed_peer_open(&given_here);
    struct transport_message message;
    keyed_peer_hello(first, ROLE_CLIENT, "alice", NULL);
    const uint32_t connection = receive_here(&message);
    assert_string_equal(transport_principal(transport, connection)->name, "alice");
    assert_int_equal(transport_rights(transport, connection), RIGHT_SUBMIT | RIGHT_WORK);
    keyed_peer_close(&first);
    transport_stop_auth(transport);
    assert_int_equal(count_welcome(&given_here, 500), 0);
    transport_collect(transport, clock_now_ms());
    assert_false(transport_receive(transport, &message));
    assert_int_equal(transport_counts(transport)->messages_in, 1);
}

static int fd_of_peer; /* of the one connection there is */

static void note_peer(void *unused, int fd)
{
    struct transport_use use;
    (void)unused;
    if (transport_find_use(transport, fd, &use) && use.connection != CONNECTION_NONE) {
        fd_of_peer = fd;
    }
}

struct passed {
    struct transport_use use;
    struct socket_bytes bytes;
};

static struct passed look(void)
{
    struct passed passed;
    assert_true(transport_find_use(transport, fd_of_peer, &passed.use));
    assert_true(socket_read_bytes(fd_of_peer, &passed.bytes));
    assert_true(passed.bytes.is_counted);
    return passed;
}

/* There and back again; whether what was counted is what the kernel saw. It is not when a heartbeat
 * of libzmq came between. */
static bool is_counted_right(struct keyed_peer *peer, uint32_t connection, size_t size)
{
    static uint8_t body[70000];
    struct transport_message message;
    const struct passed before = look();
    assert_int_equal(zmq_send(peer->socket, body, 3, ZMQ_SNDMORE), 3);
    assert_int_equal(zmq_send(peer->socket, body, size, 0), size);
    assert_int_equal(receive_here(&message), connection);
    transport_send(transport, connection, &message.frames);
    assert_int_equal(zmq_recv(peer->socket, body, sizeof body, 0), 3);
    assert_int_equal(zmq_recv(peer->socket, body, sizeof body, 0), size);
    const struct passed after = look();
    const uint64_t received = after.use.received - before.use.received;
    const uint64_t given = after.use.given - before.use.given;
    return received == after.bytes.received - before.bytes.received &&
           given == after.bytes.written - before.bytes.written;
}

/* Or the guard would take a peer that sends small frames for one whose messages never end. */
static void test_what_encryption_adds_is_counted(void **unused)
{
    (void)unused;
    static const size_t sizes[] = {0, 1, 222, 223, 255, 256, 8192, 70000};
    const int span_ms = 5000;
    struct transport_message message;
    given_a_transport(0);
    struct keyed_peer *peer = keyed_peer_open(&given_here);
    assert_int_equal(zmq_setsockopt(peer->socket, ZMQ_RCVTIMEO, &span_ms, sizeof span_ms), 0);
    assert_int_equal(zmq_send(peer->socket, "x", 1, 0), 1);
    const uint32_t connection = receive_here(&message);
    sockets_visit(note_peer, NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        bool is_right = false;
        for (int j = 0; j < 10 && !is_right; j++) {
            is_right = is_counted_right(peer, connection, sizes[i]);
        }
        assert_true(is_right);
    }
    keyed_peer_close(&peer);
}

static void test_peer_that_says_nothing_is_cut_and_one_that_did_is_told_of(void **unused)
{
    (void)unused;
    enum { SPAN_MS = 300 };
    struct transport_message message;
    uint32_t told = CONNECTION_NONE;
    uint32_t told_count = 0;
    given_a_transport(SPAN_MS);
    const uint64_t start_ms = clock_now_ms();
    struct keyed_peer *silent = keyed_peer_open(&given_here);
    struct keyed_peer *speaks = keyed_peer_open(&given_here);
    assert_int_equal(zmq_send(speaks->socket, "x", 1, 0), 1);
    const uint32_t connection = receive_here(&message);
    assert_false(transport_to_check(transport, &told));
    assert_int_not_equal(transport_next_at_ms(transport), UINT64_MAX);
    const struct transport_counts *counts = transport_counts(transport);
    while (clock_now_ms() < start_ms + 5000 && (told_count < 2 || counts->connections_silent < 1)) {
        sleep_ms(10);
        transport_collect(transport, clock_now_ms());
        assert_false(transport_receive(transport, &message));
        while (transport_to_check(transport, &told)) {
            assert_int_equal(told, connection);
            told_count++;
            assert_true(clock_now_ms() >= start_ms + (uint64_t)told_count * SPAN_MS);
        }
    }
    assert_int_equal(told_count, 2); /* after each span */
    assert_true(counts->connections_silent >= 1);
    assert_int_equal(counts->connections_cut, counts->connections_silent); /* not the other one */
    keyed_peer_close(&silent);
    keyed_peer_close(&speaks);
}

static void test_connection_without_a_session_is_cut_and_one_with_stays(void **unused)
{
    (void)unused;
    struct message query = {.kind = MESSAGE_BROKER_QUERY};
    struct message beat = {.kind = MESSAGE_HEARTBEAT};
    struct message goodbye = {.kind = MESSAGE_GOODBYE};
    struct keyed_peer *silent = given_a_peer(&bob);
    struct keyed_peer *stays = given_a_peer(&alice);
    struct keyed_peer *leaves = given_a_peer(&bob);
    keyed_peer_hello(stays, ROLE_CLIENT, "stays", NULL);
    assert_true(keyed_peer_receive_kind(stays, MESSAGE_WELCOME, 5000));
    keyed_peer_hello(leaves, ROLE_CLIENT, "leaves", NULL);
    assert_true(keyed_peer_receive_kind(leaves, MESSAGE_WELCOME, 5000));
    keyed_peer_send(leaves, &goodbye); /* and holds its place */
    for (int i = 0; i < 24; i++) {
        keyed_peer_send(stays, &beat);
        sleep_ms(500);
    }
    assert_true(keyed_broker_counter(&broker, "connections_silent") >= 1);
    assert_int_equal(keyed_broker_counter(&broker, "cut_idle"), 1);
    keyed_peer_send(stays, &query);
    assert_true(keyed_peer_receive_kind(stays, MESSAGE_BROKER_INFO, 5000));
    keyed_peer_close(&silent);
    keyed_peer_close(&stays);
    keyed_peer_close(&leaves);
}

/* ---- keys that are revoked while their peers are there ---- */

static struct keyed_peer *given_a_welcome_peer(const struct test_key *key)
{
    struct keyed_peer *peer = given_a_peer(key);
    keyed_peer_hello(peer, ROLE_CLIENT, "peer", NULL);
    assert_true(keyed_peer_receive_kind(peer, MESSAGE_WELCOME, 5000));
    return peer;
}

static void test_revoked_key_is_out_at_its_next_message(void **unused)
{
    (void)unused;
    struct keyed_peer *peer = given_a_welcome_peer(&bob);
    struct message query = {.kind = MESSAGE_BROKER_QUERY};
    keyed_peer_send(peer, &query);
    assert_true(keyed_peer_receive_kind(peer, MESSAGE_BROKER_INFO, 5000));
    const uint64_t asked_before = keyed_broker_asked();
    keyed_broker_reload(&broker, principals_of(&alice, NULL));
    const uint64_t before = keyed_broker_counter(&broker, "messages");
    keyed_peer_send(peer, &query);
    assert_false(keyed_peer_receive_kind(peer, MESSAGE_BROKER_INFO, 500));
    const uint64_t after = keyed_broker_counter(&broker, "messages");
    assert_int_equal(after - before, keyed_broker_asked() - asked_before - 2);
    keyed_peer_close(&peer);
}

static void then_counter_becomes(const char *name, uint64_t expected)
{
    for (int i = 0; i < 100 && keyed_broker_counter(&broker, name) != expected; i++) {
        sleep_ms(20);
    }
    assert_int_equal(keyed_broker_counter(&broker, name), expected);
}

static void test_silent_peer_of_a_revoked_key_is_cut_off_and_the_others_stay(void **unused)
{
    (void)unused;
    struct keyed_peer *stays = given_a_welcome_peer(&alice);
    struct keyed_peer *leaves = given_a_welcome_peer(&bob);
    keyed_broker_reload(&broker, principals_of(&alice, NULL));
    then_counter_becomes("connections_cut", 1);
    struct message query = {.kind = MESSAGE_BROKER_QUERY};
    keyed_peer_send(stays, &query);
    assert_true(keyed_peer_receive_kind(stays, MESSAGE_BROKER_INFO, 5000));
    keyed_peer_close(&stays);
    keyed_peer_close(&leaves);
}

/* False: it did not happen within 5 s. */
static bool monitor_sees(void *events, uint16_t wanted)
{
    const int span_ms = 5000;
    uint8_t event[6];
    uint16_t number = 0;
    assert_int_equal(zmq_setsockopt(events, ZMQ_RCVTIMEO, &span_ms, sizeof span_ms), 0);
    while (number != wanted && zmq_recv(events, event, sizeof event, 0) == sizeof event) {
        char address[256];
        assert_true(zmq_recv(events, address, sizeof address, 0) >= 0);
        memcpy(&number, event, sizeof number);
    }
    return number == wanted;
}

static void test_peer_of_a_revoked_key_that_has_said_nothing_yet_is_cut_off_too(void **unused)
{
    (void)unused;
    const int zero = 0;
    struct keyed_peer *peer = given_a_peer(&bob);
    assert_int_equal(zmq_socket_monitor(peer->socket, "inproc://events", ZMQ_EVENT_ALL), 0);
    void *events = zmq_socket(peers_context(), ZMQ_PAIR);
    assert_non_null(events);
    assert_int_equal(zmq_setsockopt(events, ZMQ_LINGER, &zero, sizeof zero), 0);
    assert_int_equal(zmq_connect(events, "inproc://events"), 0);
    then_counter_becomes("handshakes_admitted", 1);
    keyed_broker_reload(&broker, principals_of(&alice, NULL));
    assert_true(monitor_sees(events, ZMQ_EVENT_DISCONNECTED));
    assert_true(monitor_sees(events, ZMQ_EVENT_HANDSHAKE_FAILED_AUTH));
    (void)zmq_socket_monitor(peer->socket, NULL, 0);
    (void)zmq_close(events);
    keyed_peer_close(&peer);
}

static void test_key_that_comes_back_gets_in_again(void **unused)
{
    (void)unused;
    keyed_broker_reload(&broker, principals_of(&alice, NULL));
    keyed_broker_reload(&broker, principals_of(&alice, &bob));
    struct keyed_peer *peer = given_a_welcome_peer(&bob);
    keyed_peer_close(&peer);
}

static void test_key_that_becomes_anothers_is_cut_off_and_comes_back_as_the_other(void **unused)
{
    (void)unused;
    struct keyed_peer *peer = given_a_welcome_peer(&bob);
    assert_true(bytes_is_equal(peer->message.as.welcome.principal, bytes_from_text("bob")));
    keyed_broker_reload(&broker, principals_of(&bob, NULL)); /* who is alice now */
    then_counter_becomes("connections_cut", 1);
    keyed_peer_close(&peer);
    peer = given_a_welcome_peer(&bob);
    assert_true(bytes_is_equal(peer->message.as.welcome.principal, bytes_from_text("alice")));
    keyed_peer_close(&peer);
}

static void test_key_that_is_revoked_while_its_peers_shake_hands_is_out(void **unused)
{
    (void)unused;
    struct keyed_peer *peers[TOGETHER];
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < TOGETHER; i++) {
            peers[i] = given_a_peer(&bob);
        }
        sleep_ms(10U * (unsigned)round); /* a little further each time */
        keyed_broker_reload(&broker, principals_of(&alice, NULL));
        const uint64_t asked_before = keyed_broker_asked();
        const uint64_t before = keyed_broker_counter(&broker, "messages");
        for (int i = 0; i < TOGETHER; i++) {
            keyed_peer_hello(peers[i], ROLE_CLIENT, "bob", NULL);
        }
        sleep_ms(300);
        const uint64_t after = keyed_broker_counter(&broker, "messages");
        assert_int_equal(after - before, keyed_broker_asked() - asked_before - 2);
        for (int i = 0; i < TOGETHER; i++) {
            keyed_peer_close(&peers[i]);
        }
        keyed_broker_reload(&broker, principals_of(&alice, &bob));
    }
}

static void test_principals_with_a_mistake_change_nothing(void **unused)
{
    (void)unused;
    FILE *file = fopen(broker.principals, "we");
    assert_non_null(file);
    assert_true(fputs("principal \"alice\" {\n    keys = {00}\n}\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(kill(broker.pid, SIGHUP), 0);
    sleep_ms(200);
    struct keyed_peer *peer = given_a_welcome_peer(&bob);
    keyed_peer_close(&peer);
}

/* ---- two server keys ---- */

static void test_each_endpoint_has_its_server_key(void **unused)
{
    (void)unused;
    const uint8_t *keys[2] = {broker.server_key, broker.second_key};
    const char *endpoints[2] = {broker.endpoint, broker.second};
    for (int i = 0; i < 4; i++) {
        struct keyed_peer *peer =
            keyed_peer_open(&(struct given_keyed_peer){.endpoint = endpoints[i / 2],
                                                       .mechanism = PEER_CURVE,
                                                       .key = &alice,
                                                       .server_key = keys[i % 2]});
        keyed_peer_hello(peer, ROLE_CLIENT, "alice", NULL);
        const bool is_right = i / 2 == i % 2;
        assert_int_equal(keyed_peer_receive_kind(peer, MESSAGE_WELCOME, is_right ? 5000 : 500),
                         is_right);
        keyed_peer_close(&peer);
    }
}

/* ---- what is known to bring libzmq down ---- */

/* libzmq numbers peers without a routing id on from a random start: a peer that took the next
 * number would end the process at the next anonymous connection. It cannot know the start, as the
 * broker seeds it; each of these numbers is one of 2^32. */
static void test_routing_ids_in_the_form_of_libzmqs_own_do_no_harm(void **unused)
{
    (void)unused;
    enum { GUESS_COUNT = 64 };
    struct keyed_peer *guesses[GUESS_COUNT];
    for (uint32_t i = 0; i < GUESS_COUNT; i++) {
        uint8_t id[5] = {0};
        /* what an unseeded generator gives first, and those that follow */
        bytes_store_u32(id + 1, 1804289383U + i);
        guesses[i] = keyed_peer_open(&(struct given_keyed_peer){.endpoint = broker.endpoint,
                                                                .mechanism = PEER_CURVE,
                                                                .key = &bob,
                                                                .server_key = broker.server_key,
                                                                .routing_id = id,
                                                                .routing_id_size = sizeof id});
    }
    sleep_ms(500); /* they have shaken hands */
    assert_true(keyed_broker_counter(&broker, "handshakes_admitted") >= GUESS_COUNT);
    for (uint32_t i = 0; i < GUESS_COUNT; i++) {
        struct keyed_peer *peer = given_a_welcome_peer(&alice);
        keyed_peer_close(&peer);
    }
    for (uint32_t i = 0; i < GUESS_COUNT; i++) {
        keyed_peer_close(&guesses[i]);
    }
    assert_int_equal(kill(broker.pid, 0), 0);
}

/* The same without a key: it never comes as far as libzmq's table of peers. */
static void test_routing_id_of_an_unknown_key_is_not_looked_at(void **unused)
{
    (void)unused;
    struct test_key stranger;
    test_key_create(&stranger);
    then_nobody_gets_in(&(struct given_keyed_peer){.endpoint = broker.endpoint,
                                                   .mechanism = PEER_CURVE,
                                                   .key = &stranger,
                                                   .server_key = broker.server_key,
                                                   .routing_id = "\0\x6b\x8b\x45\x67",
                                                   .routing_id_size = 5});
}

static void test_flood_of_handshakes_of_one_key_is_told_to_come_later(void **unused)
{
    (void)unused;
    struct keyed_peer *peers[TOGETHER];
    const uint64_t until_ms = clock_now_ms() + 15000;
    while (keyed_broker_counter(&broker, "handshakes_later") == 0 && clock_now_ms() < until_ms) {
        for (int i = 0; i < TOGETHER; i++) {
            peers[i] = given_a_peer(&bob);
        }
        sleep_ms(150);
        for (int i = 0; i < TOGETHER; i++) {
            keyed_peer_close(&peers[i]);
        }
    }
    assert_true(keyed_broker_counter(&broker, "handshakes_later") > 0);
    struct keyed_peer *peer = given_a_welcome_peer(&alice); /* another key's peers do not wait */
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
#define HERE(test)  cmocka_unit_test_setup_teardown(test, set_up, tear_down_transport)
    const struct CMUnitTest tests[] = {
        STORY(test_admitted_key_gets_in_each_time),
        STORY(test_unknown_key_does_not_get_in),
        STORY(test_wrong_server_key_does_not_get_in),
        STORY(test_peer_without_a_key_does_not_get_in),
        STORY(test_password_does_not_get_in),
        STORY(test_revoked_key_does_not_get_in),
        HERE(test_without_the_zap_thread_nobody_gets_in),
        HERE(test_what_encryption_adds_is_counted),
        HERE(test_peer_that_says_nothing_is_cut_and_one_that_did_is_told_of),
        STORY(test_connection_without_a_session_is_cut_and_one_with_stays),
        STORY(test_revoked_key_is_out_at_its_next_message),
        STORY(test_silent_peer_of_a_revoked_key_is_cut_off_and_the_others_stay),
        STORY(test_peer_of_a_revoked_key_that_has_said_nothing_yet_is_cut_off_too),
        STORY(test_key_that_comes_back_gets_in_again),
        STORY(test_key_that_becomes_anothers_is_cut_off_and_comes_back_as_the_other),
        STORY(test_key_that_is_revoked_while_its_peers_shake_hands_is_out),
        STORY(test_principals_with_a_mistake_change_nothing),
        STORY(test_each_endpoint_has_its_server_key),
        STORY(test_routing_ids_in_the_form_of_libzmqs_own_do_no_harm),
        STORY(test_routing_id_of_an_unknown_key_is_not_looked_at),
        STORY(test_flood_of_handshakes_of_one_key_is_told_to_come_later),
    };
    const int failed_count = cmocka_run_group_tests(tests, NULL, NULL);
    keyed_brokers_kill();
    return failed_count;
}
