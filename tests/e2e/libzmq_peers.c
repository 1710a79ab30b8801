/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What is known to bring libzmq down from inside: by peers whose key is admitted. docs/libzmq.md
 * says for each way what libzmq does and what the broker does.
 *
 * usage: e2e.libzmq_peers TREADLED
 *              the tests
 *        e2e.libzmq_peers --id seeded|unseeded
 *              prints the routing id that a ROUTER gives first, in a process where a broker's
 *              sockets were opened, or not
 *        e2e.libzmq_peers --router ENDPOINT
 *              a ROUTER to be attacked, never seeded
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>
#include <zmq.h>

#include "broker/shell/transport.h"
#include "tests/support/honest_mesh.h"
#include "tests/support/raw_peer.h"

#define ROUTING_ID_SIZE 5U
#define ENDLESS_SIZE    (UINT64_C(1) << 30) /* far more than is taken before the broker acts */
#define RSS_MAX         (UINT64_C(1) << 30)
#define FRAME_SIZE_BIG  (UINT64_C(64) << 20) /* the broker takes less than 16 MiB by default */

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

static void then_counter_becomes(const char *name, uint64_t expected)
{
    for (int i = 0; i < 250 && keyed_broker_counter(&mesh.broker, name) < expected; i++) {
        sleep_ms(20);
    }
    assert_int_equal(keyed_broker_counter(&mesh.broker, name), expected);
}

static void given_an_admitted_attacker(struct raw_curve *peer)
{
    const struct raw_curve_keys keys = honest_mesh_keys(&mesh, &mesh.mallory);
    assert_true(raw_curve_open(peer, mesh.broker.endpoint, &keys, SERVED_WITHIN_MS));
}

/* ---- routing ids of libzmq's own (libzmq issue 4633) ---- */

/* The id of the first anonymous peer of a new ROUTER; 0: it failed. */
static uint32_t first_id(void)
{
    uint8_t frame[256];
    uint32_t id = 0;
    void *context = zmq_ctx_new();
    void *router = zmq_socket(context, ZMQ_ROUTER);
    void *dealer = zmq_socket(context, ZMQ_DEALER);
    if (zmq_bind(router, "inproc://first") == 0 && zmq_connect(dealer, "inproc://first") == 0 &&
        zmq_send(dealer, "", 0, 0) == 0 &&
        zmq_recv(router, frame, sizeof frame, 0) == ROUTING_ID_SIZE) {
        id = (uint32_t)frame[1] << 24 | (uint32_t)frame[2] << 16 | (uint32_t)frame[3] << 8 |
             frame[4];
    }
    (void)zmq_close(dealer);
    (void)zmq_close(router);
    (void)zmq_ctx_term(context);
    return id;
}

static int print_first_id(bool is_seeded)
{
    const struct transport_config config = {.endpoints = {"tcp://127.0.0.1:*"},
                                            .endpoint_count = 1,
                                            .plain_tcp = &principal_insecure,
                                            .connection_count_max = 16,
                                            .frame_size_max = 1024};
    struct transport_error error;
    struct transport *transport = is_seeded ? transport_open(&config, &error) : NULL;
    if (is_seeded && transport == NULL) {
        return EX_OSERR;
    }
    const uint32_t id = first_id();
    transport_close(&transport, 0);
    (void)printf("%" PRIu32 "\n", id);
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

/* Ends by SIGABRT, in libzmq; or is killed. */
static int be_attacked(const char *endpoint)
{
    uint8_t frame[256];
    const struct rlimit no_core = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    void *context = zmq_ctx_new();
    void *router = zmq_socket(context, ZMQ_ROUTER);
    if (zmq_bind(router, endpoint) == 0) {
        (void)printf("listening\n");
        (void)fflush(stdout);
        while (zmq_recv(router, frame, sizeof frame, 0) >= 0) {
        }
    }
    return EX_OSERR;
}

/* Starts this program in another part, its stdout in *out. */
static pid_t given_a_process(const char *part, const char *argument, FILE **out)
{
    pid_t pid = 0;
    int ends[2];
    posix_spawn_file_actions_t actions;
    char program[] = "/proc/self/exe";
    char words[2][128]; /* posix_spawn() takes no const */
    (void)snprintf(words[0], sizeof words[0], "%s", part);
    (void)snprintf(words[1], sizeof words[1], "%s", argument);
    char *arguments[] = {program, words[0], words[1], NULL};
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO), 0);
    assert_int_equal(
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0), 0);
    assert_int_equal(posix_spawn(&pid, arguments[0], &actions, NULL, arguments, environ), 0);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    *out = fdopen(ends[0], "r");
    assert_non_null(*out);
    return pid;
}

static uint32_t first_id_of_a_process(const char *kind)
{
    FILE *out = NULL;
    uint32_t id = 0;
    int status = 0;
    const pid_t pid = given_a_process("--id", kind, &out);
    assert_int_equal(fscanf(out, "%" SCNu32, &id), 1); /* NOLINT(cert-err34-c): of our own */
    (void)fclose(out);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_not_equal(id, 0);
    return id;
}

static void put_id(uint8_t out[ROUTING_ID_SIZE], uint32_t id)
{
    out[0] = 0;
    bytes_store_u32(out + 1, id);
}

static void test_each_broker_draws_routing_ids_of_its_own(void **unused)
{
    (void)unused;
    const uint32_t unseeded = first_id_of_a_process("unseeded");
    assert_int_equal(first_id_of_a_process("unseeded"), unseeded); /* that is libzmq's weakness */
    const uint32_t first = first_id_of_a_process("seeded");
    const uint32_t second = first_id_of_a_process("seeded");
    assert_int_not_equal(first, second); /* but once in 4 thousand million runs */
    assert_int_not_equal(first, unseeded);
    assert_int_not_equal(second, unseeded);
}

/* Takes the id that comes next, then an anonymous peer comes. */
static void when_the_next_id_is_taken(const struct given_keyed_peer *given, uint32_t id)
{
    uint8_t routing_id[ROUTING_ID_SIZE];
    struct given_keyed_peer with_id = *given;
    put_id(routing_id, id);
    with_id.routing_id = routing_id;
    with_id.routing_id_size = sizeof routing_id;
    struct keyed_peer *attacker = keyed_peer_open(&with_id);
    assert_int_equal(zmq_send(attacker->socket, "", 0, 0), 0);
    sleep_ms(300); /* it has to be first */
    struct keyed_peer *anonymous = keyed_peer_open(given);
    assert_int_equal(zmq_send(anonymous->socket, "", 0, 0), 0);
    sleep_ms(300);
    keyed_peer_close(&anonymous);
    keyed_peer_close(&attacker);
}

/* That the attack is one: it ends a ROUTER of libzmq's as it comes. */
static void then_it_ends_a_plain_router(uint32_t id)
{
    FILE *out = NULL;
    int status = 0;
    char endpoint[256];
    char line[32];
    (void)snprintf(endpoint, sizeof endpoint, "ipc://%s/router.sock", mesh.broker.folder);
    const pid_t pid = given_a_process("--router", endpoint, &out);
    assert_non_null(fgets(line, sizeof line, out));
    when_the_next_id_is_taken(&(struct given_keyed_peer){.endpoint = endpoint}, id);
    if (waitpid(pid, &status, WNOHANG) == 0) {
        (void)kill(pid, SIGKILL); /* so it was not: the test fails below */
        (void)waitpid(pid, &status, 0);
    }
    (void)fclose(out);
    (void)unlink(endpoint + strlen("ipc://"));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void test_routing_id_that_ends_a_plain_router_does_not_end_the_broker(void **unused)
{
    (void)unused;
    const uint32_t id = first_id_of_a_process("unseeded");
    then_it_ends_a_plain_router(id);
    const struct given_keyed_peer given = {.endpoint = mesh.broker.endpoint,
                                           .mechanism = PEER_CURVE,
                                           .key = &mesh.mallory,
                                           .server_key = mesh.broker.server_key};
    when_the_next_id_is_taken(&given, id);
    honest_mesh_check(&mesh);
}

/* A second peer of the same id is in limbo in libzmq, connected and never heard: with no id of its
 * choice nobody can put another there, or take its place. */
static void test_peer_cannot_take_anothers_routing_id_or_keep_it_from_one(void **unused)
{
    (void)unused;
    struct keyed_peer *squatters[2];
    struct keyed_peer *worker = honest_mesh_connect(&mesh, &mesh.alice);
    keyed_peer_hello(worker, ROLE_WORKER, "worker-7", "wc.count");
    assert_true(keyed_peer_receive_kind(worker, MESSAGE_WELCOME, SERVED_WITHIN_MS));
    for (int i = 0; i < 2; i++) {
        squatters[i] =
            keyed_peer_open(&(struct given_keyed_peer){.endpoint = mesh.broker.endpoint,
                                                       .mechanism = PEER_CURVE,
                                                       .key = &mesh.mallory,
                                                       .server_key = mesh.broker.server_key,
                                                       .routing_id = "worker-7",
                                                       .routing_id_size = 8});
        keyed_peer_hello(squatters[i], ROLE_WORKER, "worker-7", "wc.count");
    }
    for (int i = 0; i < 2; i++) {
        assert_false(keyed_peer_receive_kind(squatters[i], MESSAGE_WELCOME, 300));
        keyed_peer_close(&squatters[i]);
    }
    assert_true(keyed_broker_counter(&mesh.broker, "connections_refused") >= 1);
    keyed_peer_hello(worker, ROLE_WORKER, "worker-7", "wc.count"); /* over the same connection */
    assert_true(keyed_peer_receive_kind(worker, MESSAGE_WELCOME, SERVED_WITHIN_MS));
    keyed_peer_close(&worker);
    honest_mesh_check(&mesh);
}

/* ---- memory ---- */

static void test_encrypted_message_without_end_is_cut_off_on_an_idle_broker(void **unused)
{
    (void)unused;
    static uint8_t part[65536];
    struct raw_curve peer;
    uint64_t size = 0;
    given_an_admitted_attacker(&peer);
    /* what was sent last may get no answer from a socket that is gone */
    const struct timeval timeout = {.tv_sec = 2};
    assert_int_equal(setsockopt(peer.fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout), 0);
    while (size < ENDLESS_SIZE && raw_curve_send(&peer, (struct bytes){part, sizeof part}, true)) {
        size += sizeof part;
    }
    (void)close(peer.fd);
    const uint64_t rss = keyed_broker_counter(&mesh.broker, "rss_bytes_most");
    print_message("cut off after %u MiB, at most %u MiB resident\n", (unsigned)(size >> 20),
                  (unsigned)(rss >> 20));
    assert_true(size < ENDLESS_SIZE);
    assert_true(rss < RSS_MAX);
    then_counter_becomes("connections_greedy", 1);
    honest_mesh_check(&mesh);
}

/* libzmq makes room for a frame as soon as its size was said, but not over ZMQ_MAXMSGSIZE. */
static void test_frames_that_say_they_are_huge_end_their_connection(void **unused)
{
    (void)unused;
    static const uint64_t sizes[] = {FRAME_SIZE_BIG, UINT64_C(1) << 32, UINT64_C(1) << 62,
                                     UINT64_MAX};
    const uint64_t rss_before = keyed_broker_counter(&mesh.broker, "rss_bytes");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (uint8_t flags = 2; flags < 8; flags++) { /* long: with more, as a command */
            struct raw_curve peer;
            uint8_t header[9] = {flags | 2};
            bytes_store_u64(header + 1, sizes[i]);
            given_an_admitted_attacker(&peer);
            assert_true(raw_send(peer.fd, (struct bytes){header, sizeof header}));
            assert_true(raw_is_ended_within(peer.fd, SERVED_WITHIN_MS));
            (void)close(peer.fd);
        }
    }
    sleep_ms(300); /* memory is looked at four times a second */
    assert_true(keyed_broker_counter(&mesh.broker, "rss_bytes") < rss_before + (64U << 20));
    honest_mesh_check(&mesh);
}

/* Headers that say how much will come, of which msgpack-c would make room at once; the broker's own
 * reader does not believe them. */
static void test_messages_that_say_they_hold_very_much_take_no_memory(void **unused)
{
    (void)unused;
    static const char bombs[][24] = {
        "\xdd\x10\x00\x00\x00",
        "\xdd\xff\xff\xff\xff",
        "\xdf\x10\x00\x00\x00",
        "\xdc\xff\xff",
        "\x95\x01\x01\x00\x00\xdd\x10\x00\x00\x00",
        "\xc6\xff\xff\xff\xff",
        "\xdb\xff\xff\xff\xff",
        "\xc9\xff\xff\xff\xff\x01",
    };
    static const uint8_t level[] = {0xdd, 0x10, 0, 0, 0};
    uint8_t nested[sizeof level * 31];
    uint64_t sent_count = 0;
    const uint64_t rss_before = keyed_broker_counter(&mesh.broker, "rss_bytes");
    for (size_t i = 0; i < sizeof nested; i += sizeof level) {
        memcpy(nested + i, level, sizeof level);
    }
    for (int peers = 0; peers < 20; peers++) {
        struct raw_curve peer;
        given_an_admitted_attacker(&peer);
        for (size_t i = 0; i < sizeof bombs / sizeof bombs[0]; i++) {
            const struct bytes bomb = {(const uint8_t *)bombs[i], sizeof bombs[i]};
            assert_true(raw_curve_send(&peer, bomb, false));
        }
        assert_true(raw_curve_send(&peer, (struct bytes){nested, sizeof nested}, false));
        sent_count += sizeof bombs / sizeof bombs[0] + 1;
        (void)raw_is_ended_within(peer.fd, 5);
        (void)close(peer.fd);
    }
    then_counter_becomes("malformed", sent_count);
    sleep_ms(300);
    assert_true(keyed_broker_counter(&mesh.broker, "rss_bytes") < rss_before + (64U << 20));
    honest_mesh_check(&mesh);
}

/* ---- what libzmq's own commands and empty frames do ---- */

/* Over ipc and so in plain ZMTP: its owner may do this, and nobody else. */
static void test_broken_commands_and_empty_messages_do_no_harm(void **unused)
{
    (void)unused;
    static const struct {
        uint8_t flags;
        const char *text;
        size_t size;
    } frames[] = {
        {0, "", 0},                                                    /* nothing at all */
        {1, "", 0},                                                    /* and more of it */
        {4, "", 0},                                                    /* a command, no name */
        {4, "\xff", 1},                                                /* a name of 255 bytes */
        {4, "\x04PING", 5},                                            /* no TTL */
        {4, "\x04PING\0", 6},                                          /* half of one */
        {4, "\x04PING\0\0abcdefghijklmnopqrstuvwxyzabcdefghijkl", 45}, /* too much context */
        {4, "\x04PONG", 5},                                            /* unasked */
        {4, "\005ERROR", 6},                                           /* no reason */
        {4, "\005ERROR\xff", 7},                                       /* half of one */
        {4, "\x09SUBSCRIBEall", 13},                                   /* to a ROUTER */
        {4, "\006CANCELall", 10},                                      /* to a ROUTER */
        {4, "\x05READY", 6},                                           /* once more */
        {5, "\x04PING\0\0", 7},                                        /* a command with more */
        {0xff, "x", 1},                                                /* flags that are none */
    };
    for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
        uint8_t frame[2 + 64] = {frames[i].flags, (uint8_t)frames[i].size};
        const int fd = raw_peer_open(mesh.broker.plain, SERVED_WITHIN_MS);
        assert_int_not_equal(fd, -1);
        memcpy(frame + 2, frames[i].text, frames[i].size);
        (void)raw_send(fd, (struct bytes){frame, 2 + frames[i].size});
        (void)raw_peer_send(fd, bytes_from_text("rubbish"), false);
        (void)raw_is_ended_within(fd, 20);
        (void)close(fd);
    }
    honest_mesh_check(&mesh);
}

static void test_peer_that_never_says_hello_gets_nothing_done(void **unused)
{
    (void)unused;
    struct message query = {.kind = MESSAGE_BROKER_QUERY};
    struct keyed_peer *peer = honest_mesh_connect(&mesh, &mesh.mallory);
    for (int i = 0; i < 20; i++) {
        keyed_peer_send(peer, &query);
    }
    assert_true(keyed_peer_receive(peer, SERVED_WITHIN_MS));
    assert_int_equal(peer->message.kind, MESSAGE_REFUSED);
    assert_int_equal(peer->message.as.refused.code, REFUSED_HELLO_FIRST);
    while (keyed_peer_receive(peer, 200)) {
        assert_int_equal(peer->message.kind, MESSAGE_REFUSED);
    }
    keyed_peer_close(&peer);
    honest_mesh_check(&mesh);
}

int main(int argc, char **argv)
{
    if (sodium_init() == -1) {
        return EX_OSERR;
    }
    if (argc == 3 && strcmp(argv[1], "--id") == 0) {
        return print_first_id(strcmp(argv[2], "seeded") == 0);
    }
    if (argc == 3 && strcmp(argv[1], "--router") == 0) {
        return be_attacked(argv[2]);
    }
    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s TREADLED\n", argv[0]);
        return EX_USAGE;
    }
    treadled_path = argv[1];
#define STORY(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        STORY(test_each_broker_draws_routing_ids_of_its_own),
        STORY(test_routing_id_that_ends_a_plain_router_does_not_end_the_broker),
        STORY(test_peer_cannot_take_anothers_routing_id_or_keep_it_from_one),
        STORY(test_encrypted_message_without_end_is_cut_off_on_an_idle_broker),
        STORY(test_frames_that_say_they_are_huge_end_their_connection),
        STORY(test_messages_that_say_they_hold_very_much_take_no_memory),
        STORY(test_broken_commands_and_empty_messages_do_no_harm),
        STORY(test_peer_that_never_says_hello_gets_nothing_done),
    };
    const int failed_count = cmocka_run_group_tests(tests, NULL, NULL);
    keyed_brokers_kill();
    return failed_count;
}
