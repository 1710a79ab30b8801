/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The broker's sockets with real processes: peers that send rubbish, vanish, or choose their own
 * routing id.
 *
 * usage: e2e.broker_transport TREADLED            the tests
 *        e2e.broker_transport --worker ENDPOINT   a peer to be killed: HELLO as a worker, then
 * sleep
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "common/wire/message.h"
#include "tests/support/raw_peer.h"

static const char *treadled_path;

static uint64_t now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void sleep_ms(unsigned span_ms)
{
    const struct timespec span = {span_ms / 1000, (long)(span_ms % 1000) * 1000000};
    (void)nanosleep(&span, NULL);
}

/* ---- the broker ---- */

struct broker {
    pid_t pid;
    char endpoint[256];
};

/* Brokers that a failed test left behind are ended at the end. */
static pid_t running[16];

static void note_running(pid_t from, pid_t to)
{
    for (size_t i = 0; i < sizeof running / sizeof running[0]; i++) {
        if (running[i] == from) {
            running[i] = to;
            return;
        }
    }
}

static struct broker given_a_broker_on(const char *listen)
{
    struct broker broker = {0};
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO), 0);
    char *arguments[] = {strdup(treadled_path), strdup("--insecure"), strdup("--listen"),
                         strdup(listen), NULL};
    assert_int_equal(posix_spawn(&broker.pid, treadled_path, &actions, NULL, arguments, environ),
                     0);
    note_running(0, broker.pid);
    for (int i = 0; arguments[i] != NULL; i++) {
        free(arguments[i]);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    FILE *out = fdopen(ends[0], "r");
    assert_non_null(out);
    char line[300] = "";
    assert_non_null(fgets(line, sizeof line, out));
    (void)fclose(out);
    assert_int_equal(sscanf(line, "listening %255s", broker.endpoint), 1);
    return broker;
}

static struct broker given_a_broker(void)
{
    return given_a_broker_on("tcp://127.0.0.1:*");
}

static int exit_code_of(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    note_running(pid, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void then_it_ends_cleanly(const struct broker *broker)
{
    assert_int_equal(kill(broker->pid, SIGTERM), 0);
    assert_int_equal(exit_code_of(broker->pid), 0);
}

/* ---- peers ---- */

struct peer {
    void *context;
    void *socket;
    uint64_t number;
    uint8_t buffer[65536];
    struct bytes view;
    struct wire_frames frames;
    struct message message;
};

static void peer_open(struct peer *peer, const char *endpoint, const char *routing_id)
{
    const int zero = 0;
    *peer = (struct peer){0};
    peer->context = zmq_ctx_new();
    peer->socket = zmq_socket(peer->context, ZMQ_DEALER);
    assert_non_null(peer->socket);
    assert_int_equal(zmq_setsockopt(peer->socket, ZMQ_LINGER, &zero, sizeof zero), 0);
    if (routing_id != NULL) {
        assert_int_equal(
            zmq_setsockopt(peer->socket, ZMQ_ROUTING_ID, routing_id, strlen(routing_id)), 0);
    }
    assert_int_equal(zmq_connect(peer->socket, endpoint), 0);
}

static void peer_close(struct peer *peer)
{
    (void)zmq_close(peer->socket);
    (void)zmq_ctx_term(peer->context);
}

/* False: there was no room within ZMQ_SNDTIMEO. */
static bool peer_try_send(struct peer *peer, struct message *message)
{
    struct writer writer;
    writer_init(&writer);
    peer->number++;
    message->number = peer->number;
    assert_true(message_encode(message, &writer));
    assert_int_equal(writer.frames.count, 1);
    const int sent = zmq_send(peer->socket, writer.data, writer.size, 0);
    const bool is_sent = sent == (int)writer.size;
    writer_free(&writer);
    return is_sent;
}

static void peer_send(struct peer *peer, struct message *message)
{
    assert_true(peer_try_send(peer, message));
}

/* The next message of this kind within the span; the others are skipped. */
static bool peer_receive(struct peer *peer, enum message_kind kind, int span_ms)
{
    const uint64_t until_us = now_us() + (uint64_t)span_ms * 1000;
    while (now_us() < until_us) {
        zmq_pollitem_t item = {.socket = peer->socket, .events = ZMQ_POLLIN};
        const long left_ms = (long)((until_us - now_us()) / 1000) + 1;
        if (zmq_poll(&item, 1, left_ms) <= 0) {
            continue;
        }
        const int size = zmq_recv(peer->socket, peer->buffer, sizeof peer->buffer, ZMQ_DONTWAIT);
        if (size < 0) {
            continue;
        }
        peer->view = (struct bytes){peer->buffer, (size_t)size};
        peer->frames = (struct wire_frames){&peer->view, 1};
        assert_int_equal(message_decode(&peer->message, &peer->frames, &wire_limits_protocol),
                         WIRE_OK);
        if (peer->message.kind == kind) {
            return true;
        }
    }
    return false;
}

static void peer_hello(struct peer *peer, enum peer_role role)
{
    uint8_t incarnation[16];
    assert_int_equal(getrandom(incarnation, sizeof incarnation, 0), sizeof incarnation);
    struct writer serves;
    writer_init(&serves);
    const struct wire_serve serve = {.pattern = bytes_from_text("wc.count")};
    assert_true(wire_serve_encode(&serves, &serve));
    struct message message = {.kind = MESSAGE_HELLO};
    message.as.hello = (struct wire_hello){
        .role = role,
        .name = bytes_from_text(role == ROLE_WORKER ? "victim" : "observer"),
        .incarnation = {incarnation, sizeof incarnation},
    };
    if (role == ROLE_WORKER) {
        message.as.hello.slots = 1;
        message.as.hello.serves = wire_list_from_writer(&serves, 1);
    }
    peer_send(peer, &message);
    assert_true(peer_receive(peer, MESSAGE_WELCOME, 5000));
    writer_free(&serves);
}

/* One of the broker's counters, asked for by a connection of its own. */
static uint64_t counter_of(const struct broker *broker, const char *name)
{
    struct peer *peer = malloc(sizeof *peer);
    assert_non_null(peer);
    peer_open(peer, broker->endpoint, NULL);
    peer_hello(peer, ROLE_CLIENT);
    struct message query = {.kind = MESSAGE_BROKER_QUERY};
    peer_send(peer, &query);
    assert_true(peer_receive(peer, MESSAGE_BROKER_INFO, 5000));
    struct wire_list counters = peer->message.as.broker_info.counters;
    struct wire_counter counter;
    uint64_t value = UINT64_MAX;
    while (wire_counter_next(&counters, &counter)) {
        if (bytes_is_equal(counter.name, bytes_from_text(name))) {
            value = counter.value;
        }
    }
    assert_int_not_equal(value, UINT64_MAX);
    peer_close(peer);
    free(peer);
    return value;
}

static void then_counter_becomes(const struct broker *broker, const char *name, uint64_t expected)
{
    for (int i = 0; i < 100 && counter_of(broker, name) != expected; i++) {
        sleep_ms(20);
    }
    assert_int_equal(counter_of(broker, name), expected);
}

/* ---- tests ---- */

static void test_tenth_malformed_message_cuts_the_peer_off(void **unused)
{
    (void)unused;
    const struct broker broker = given_a_broker();
    struct peer *peer = malloc(sizeof *peer);
    assert_non_null(peer);
    peer_open(peer, broker.endpoint, NULL);
    for (int i = 0; i < 9; i++) {
        assert_int_equal(zmq_send(peer->socket, "rubbish", 7, 0), 7);
    }
    peer_hello(peer, ROLE_CLIENT); /* still listened to */
    assert_int_equal(counter_of(&broker, "malformed"), 9);
    assert_int_equal(counter_of(&broker, "cut_off"), 0);
    assert_int_equal(zmq_send(peer->socket, "", 0, 0), 0);
    then_counter_becomes(&broker, "cut_off", 1);
    assert_int_equal(counter_of(&broker, "malformed"), 10);
    peer_close(peer);
    free(peer);
    then_it_ends_cleanly(&broker);
}

static void send_frames(struct peer *peer, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const int more = i + 1 < count ? ZMQ_SNDMORE : 0;
        assert_int_equal(zmq_send(peer->socket, "frame", 5, more), 5);
    }
}

static void test_message_over_a_limit_is_refused_and_the_third_cuts_off(void **unused)
{
    (void)unused;
    const struct broker broker = given_a_broker();
    struct peer *peer = malloc(sizeof *peer);
    assert_non_null(peer);
    peer_open(peer, broker.endpoint, NULL);
    peer_hello(peer, ROLE_CLIENT);
    for (int i = 0; i < 3; i++) {
        send_frames(peer, FRAME_COUNT_MAX + 1);
        assert_true(peer_receive(peer, MESSAGE_REFUSED, 5000));
        assert_int_equal(peer->message.as.refused.code, REFUSED_LIMIT);
        assert_int_equal(peer->message.number, 0);
    }
    then_counter_becomes(&broker, "cut_off", 1);
    assert_int_equal(counter_of(&broker, "over_limit"), 3);
    assert_int_equal(counter_of(&broker, "malformed"), 0);
    peer_close(peer);
    free(peer);
    then_it_ends_cleanly(&broker);
}

static void test_message_of_very_many_frames_does_no_harm(void **unused)
{
    (void)unused;
    const struct broker broker = given_a_broker();
    struct peer *peer = malloc(sizeof *peer);
    assert_non_null(peer);
    peer_open(peer, broker.endpoint, NULL);
    send_frames(peer, 200000);
    assert_true(peer_receive(peer, MESSAGE_REFUSED, 20000));
    peer_hello(peer, ROLE_CLIENT);
    assert_int_equal(counter_of(&broker, "over_limit"), 1);
    peer_close(peer);
    free(peer);
    then_it_ends_cleanly(&broker);
}

static void test_peer_that_chose_its_routing_id_is_not_admitted(void **unused)
{
    (void)unused;
    const struct broker broker = given_a_broker();
    struct peer *peer = malloc(sizeof *peer);
    assert_non_null(peer);
    peer_open(peer, broker.endpoint, "worker-7");
    assert_int_equal(zmq_send(peer->socket, "rubbish", 7, 0), 7);
    for (int i = 0; i < 100 && counter_of(&broker, "connections_refused") == 0; i++) {
        sleep_ms(20);
    }
    assert_true(counter_of(&broker, "connections_refused") >= 1);
    peer_close(peer);
    free(peer);
    then_it_ends_cleanly(&broker);
}

/* Submits the same tasks again and again, and never reads an answer. */
static void submit_without_reading(struct peer *peer, uint32_t message_count)
{
    static const uint8_t digest[16];
    struct writer templates;
    struct writer entries;
    writer_init(&templates);
    writer_init(&entries);
    const struct wire_submit_template template = {.service = bytes_from_text("wc"),
                                                  .task = bytes_from_text("count")};
    assert_true(wire_submit_template_encode(&templates, &template));
    for (uint32_t i = 0; i < ENTRY_COUNT_MAX; i++) {
        struct wire_submit_entry entry = {.digest = {digest, sizeof digest}};
        memcpy(entry.id.bytes, &i, sizeof i);
        assert_true(wire_submit_entry_encode(&entries, &entry));
    }
    bool is_sent = true; /* once cut off it hangs: libzmq sees that only when it is read from */
    for (uint32_t i = 0; i < message_count && is_sent; i++) {
        struct message message = {.kind = MESSAGE_SUBMIT};
        message.as.submit.templates = wire_list_from_writer(&templates, 1);
        message.as.submit.entries = wire_list_from_writer(&entries, ENTRY_COUNT_MAX);
        is_sent = peer_try_send(peer, &message);
    }
    writer_free(&templates);
    writer_free(&entries);
}

static void test_peer_that_does_not_read_is_cut_off_and_nobody_else_waits(void **unused)
{
    (void)unused;
    const struct broker broker = given_a_broker();
    struct peer *peer = malloc(sizeof *peer);
    assert_non_null(peer);
    const uint64_t started_at_us = now_us();
    peer_open(peer, broker.endpoint, NULL);
    const int one = 1;
    const int span_ms = 500;
    assert_int_equal(zmq_setsockopt(peer->socket, ZMQ_SNDTIMEO, &span_ms, sizeof span_ms), 0);
    assert_int_equal(zmq_setsockopt(peer->socket, ZMQ_RCVHWM, &one, sizeof one), 0);
    peer_hello(peer, ROLE_CLIENT);
    uint64_t longest_us = 0;
    while (now_us() - started_at_us < 20000000 && counter_of(&broker, "connections_cut") == 0) {
        submit_without_reading(peer, 20);
        const uint64_t begun_at_us = now_us();
        (void)counter_of(&broker, "sends_waited");
        const uint64_t span_us = now_us() - begun_at_us;
        longest_us = span_us > longest_us ? span_us : longest_us;
    }
    print_message("the others waited at most %.1f ms\n", (double)longest_us / 1000);
    assert_true(counter_of(&broker, "sends_dropped") > 0);
    assert_true(counter_of(&broker, "sends_waited") > 0);
    assert_true(counter_of(&broker, "connections_cut") >= 1);
    if (now_us() - started_at_us < 2500000) { /* ZeroMQ's heartbeat did not end it first */
        assert_int_equal(counter_of(&broker, "connections_cut"), 1);
    }
    assert_true(longest_us < 1000000);
    peer_close(peer);
    free(peer);
    assert_int_equal(kill(broker.pid, SIGINT), 0); /* its tasks are never served */
    sleep_ms(100);
    assert_int_equal(kill(broker.pid, SIGINT), 0);
    assert_int_equal(exit_code_of(broker.pid), 0);
}

/* ---- peers that take more than their part ---- */

#define ENDLESS_SIZE_MAX (UINT64_C(16) << 30) /* far more than is taken before the broker acts */
#define RSS_MAX          (UINT64_C(2) << 30)

/* Sends parts of one message that never ends until the connection does; bytes. */
static uint64_t send_without_end(int fd)
{
    static uint8_t part[65536];
    const struct timeval patience = {.tv_sec =
                                         2}; /* the kernel may keep a window at zero for long */
    uint64_t size = 0;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience), 0);
    while (size < ENDLESS_SIZE_MAX && raw_peer_send(fd, (struct bytes){part, sizeof part}, true)) {
        size += sizeof part;
    }
    return size;
}

static void then_a_message_without_end_is_cut_off(const char *listen)
{
    const struct broker broker = given_a_broker_on(listen);
    struct peer *bystander = malloc(sizeof *bystander);
    assert_non_null(bystander);
    peer_open(bystander, broker.endpoint, NULL);
    peer_hello(bystander, ROLE_CLIENT);
    const int fd = raw_peer_open(broker.endpoint, 5000);
    assert_int_not_equal(fd, -1);
    const uint64_t size = send_without_end(fd);
    (void)close(fd);
    print_message("cut off after %u MiB, at most %u MiB resident\n", (unsigned)(size >> 20),
                  (unsigned)(counter_of(&broker, "rss_bytes_most") >> 20));
    assert_true(size < ENDLESS_SIZE_MAX);
    assert_int_equal(counter_of(&broker, "connections_greedy"), 1);
    assert_true(counter_of(&broker, "rss_bytes_most") < RSS_MAX);
    peer_hello(bystander, ROLE_CLIENT); /* its session may have ended: it sent no heartbeats */
    /* but for the attacker nobody was, unless for having no session for long */
    assert_int_equal(counter_of(&broker, "connections_cut"), 1 + counter_of(&broker, "cut_idle"));
    peer_close(bystander);
    free(bystander);
    then_it_ends_cleanly(&broker);
}

static void given_a_folder(char *folder, size_t size)
{
    const char *parent = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): before any thread */
    (void)snprintf(folder, size, "%s/treadle-e2e.XXXXXX", parent == NULL ? "/tmp" : parent);
    assert_non_null(mkdtemp(folder));
}

static void then_the_folder_is_given_back(const char *folder, const char *listen)
{
    (void)unlink(listen + strlen("ipc://"));
    assert_int_equal(rmdir(folder), 0);
}

static void test_message_without_end_is_cut_off(void **unused)
{
    (void)unused;
    then_a_message_without_end_is_cut_off("tcp://127.0.0.1:*");
}

static void test_message_without_end_over_ipc_is_cut_off_too(void **unused)
{
    (void)unused;
    char folder[128];
    char listen[192];
    given_a_folder(folder, sizeof folder);
    (void)snprintf(listen, sizeof listen, "ipc://%s/broker.sock", folder);
    then_a_message_without_end_is_cut_off(listen);
    then_the_folder_is_given_back(folder, listen);
}

/* Asks and asks, and never reads: a message of this peer, ready to be sent. */
static void given_a_query(struct writer *writer, uint64_t number)
{
    struct message query = {.kind = MESSAGE_BROKER_QUERY, .number = number};
    writer_init(writer);
    assert_true(message_encode(&query, writer));
}

static void send_hello(int fd)
{
    uint8_t incarnation[16];
    assert_int_equal(getrandom(incarnation, sizeof incarnation, 0), sizeof incarnation);
    struct message hello = {.kind = MESSAGE_HELLO, .number = 1};
    hello.as.hello = (struct wire_hello){.role = ROLE_CLIENT,
                                         .name = bytes_from_text("greedy"),
                                         .incarnation = {incarnation, sizeof incarnation}};
    struct writer writer;
    writer_init(&writer);
    assert_true(message_encode(&hello, &writer));
    assert_true(raw_peer_send(fd, (struct bytes){writer.data, writer.size}, false));
    writer_free(&writer);
}

static void test_peer_that_asks_and_never_reads_is_cut_off(void **unused)
{
    (void)unused;
    const struct broker broker = given_a_broker();
    const int fd = raw_peer_open(broker.endpoint, 5000);
    assert_int_not_equal(fd, -1);
    send_hello(fd);
    uint64_t number = 2;
    for (bool is_open = true; is_open && number < 2000000; number++) {
        struct writer writer;
        given_a_query(&writer, number);
        is_open = raw_peer_send(fd, (struct bytes){writer.data, writer.size}, false);
        writer_free(&writer);
    }
    (void)close(fd);
    print_message("cut off after %u questions, at most %u MiB resident\n", (unsigned)number,
                  (unsigned)(counter_of(&broker, "rss_bytes_most") >> 20));
    assert_true(number < 2000000);
    assert_true(counter_of(&broker, "connections_cut") >= 1);
    assert_true(counter_of(&broker, "rss_bytes_most") < RSS_MAX);
    then_counter_becomes(&broker, "bytes_waiting", 0);
    then_it_ends_cleanly(&broker);
}

/* is_connected of the worker named "victim"; -1: there is no such worker. */
static int victim_is_connected(struct peer *observer)
{
    struct message query = {.kind = MESSAGE_WORKER_QUERY};
    peer_send(observer, &query);
    assert_true(peer_receive(observer, MESSAGE_WORKER_INFO, 5000));
    struct wire_list rows = observer->message.as.worker_info.rows;
    struct wire_worker_row row;
    return wire_worker_row_next(&rows, &row) ? (int)row.is_connected : -1;
}

static pid_t given_a_worker_process(const struct broker *broker)
{
    pid_t pid = 0;
    char *arguments[] = {strdup("/proc/self/exe"), strdup("--worker"), strdup(broker->endpoint),
                         NULL};
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, arguments, environ), 0);
    for (int i = 0; arguments[i] != NULL; i++) {
        free(arguments[i]);
    }
    return pid;
}

static void then_a_killed_worker_is_noticed(const char *listen)
{
    const struct broker broker = given_a_broker_on(listen);
    const pid_t victim = given_a_worker_process(&broker);
    struct peer *observer = malloc(sizeof *observer);
    assert_non_null(observer);
    peer_open(observer, broker.endpoint, NULL);
    peer_hello(observer, ROLE_CLIENT);
    for (int i = 0; i < 500 && victim_is_connected(observer) != 1; i++) {
        sleep_ms(10);
    }
    assert_int_equal(victim_is_connected(observer), 1);
    const uint64_t killed_at_us = now_us();
    assert_int_equal(kill(victim, SIGKILL), 0);
    while (victim_is_connected(observer) == 1 && now_us() - killed_at_us < 1000000) {
        sleep_ms(1);
    }
    const uint64_t span_us = now_us() - killed_at_us;
    print_message("noticed after %.1f ms\n", (double)span_us / 1000);
    assert_int_equal(victim_is_connected(observer), 0); /* the session waits for it to come back */
    assert_true(span_us < 50000);
    (void)exit_code_of(victim);
    peer_close(observer);
    free(observer);
    then_it_ends_cleanly(&broker);
}

static void test_killed_peer_is_noticed_within_50_ms(void **unused)
{
    (void)unused;
    then_a_killed_worker_is_noticed("tcp://127.0.0.1:*");
}

static void test_ipc_path_is_for_its_owner_and_ends_are_noticed_there_too(void **unused)
{
    (void)unused;
    char folder[128];
    char listen[192];
    given_a_folder(folder, sizeof folder);
    (void)snprintf(listen, sizeof listen, "ipc://%s/broker.sock", folder);
    const struct broker broker = given_a_broker_on(listen);
    struct stat status;
    assert_int_equal(stat(listen + strlen("ipc://"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    then_it_ends_cleanly(&broker);
    then_a_killed_worker_is_noticed(listen);
    then_the_folder_is_given_back(folder, listen);
}

static int exit_code_of_a_second_broker(const char *listen)
{
    pid_t pid = 0;
    char *arguments[] = {strdup(treadled_path), strdup("--insecure"), strdup("--listen"),
                         strdup(listen), NULL};
    assert_int_equal(posix_spawn(&pid, treadled_path, NULL, NULL, arguments, environ), 0);
    for (int i = 0; arguments[i] != NULL; i++) {
        free(arguments[i]);
    }
    return exit_code_of(pid);
}

static void test_endpoint_that_is_in_use_is_not_taken_over(void **unused)
{
    (void)unused;
    char folder[128];
    char listen[192];
    given_a_folder(folder, sizeof folder);
    (void)snprintf(listen, sizeof listen, "ipc://%s/broker.sock", folder);
    const struct broker tcp = given_a_broker();
    const struct broker ipc = given_a_broker_on(listen);
    assert_int_equal(exit_code_of_a_second_broker(tcp.endpoint), EX_UNAVAILABLE);
    assert_int_equal(exit_code_of_a_second_broker(ipc.endpoint), EX_UNAVAILABLE);
    assert_int_equal(counter_of(&ipc, "malformed"), 0); /* the first one still answers */
    then_it_ends_cleanly(&tcp);
    then_it_ends_cleanly(&ipc);
    then_the_folder_is_given_back(folder, listen);
}

static void test_plain_tcp_off_the_loopback_is_refused(void **unused)
{
    (void)unused;
    assert_int_equal(exit_code_of_a_second_broker("tcp://0.0.0.0:*"), EX_CONFIG);
    assert_int_equal(exit_code_of_a_second_broker("tcp://127.0.0.1.example.org:7330"), EX_CONFIG);
}

/* Voluntary context switches of all threads. */
static uint64_t switches_of(pid_t pid)
{
    char command[128];
    (void)snprintf(command, sizeof command,
                   "cat /proc/%d/task/*/status | awk '/^voluntary/ {s += $2} END {print s}'",
                   (int)pid);
    FILE *out = popen(command, "r"); /* NOLINT(cert-env33-c): a fixed command */
    assert_non_null(out);
    char line[32] = "";
    assert_non_null(fgets(line, sizeof line, out));
    (void)pclose(out);
    return strtoull(line, NULL, 10);
}

static void test_idle_broker_without_peers_sleeps(void **unused)
{
    (void)unused;
    const struct broker broker = given_a_broker();
    assert_int_equal(counter_of(&broker, "malformed"), 0); /* one peer came and went */
    sleep_ms(1500);
    const uint64_t before = switches_of(broker.pid);
    sleep_ms(3000);
    assert_int_equal(switches_of(broker.pid), before);
    then_it_ends_cleanly(&broker);
}

static int be_a_worker(const char *endpoint)
{
    struct peer *peer = malloc(sizeof *peer);
    if (peer == NULL) {
        return EX_OSERR;
    }
    peer_open(peer, endpoint, NULL);
    peer_hello(peer, ROLE_WORKER);
    sleep_ms(30000); /* killed long before */
    peer_close(peer);
    free(peer);
    return EX_OK;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--worker") == 0) {
        return be_a_worker(argv[2]);
    }
    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s TREADLED\n", argv[0]);
        return EX_USAGE;
    }
    treadled_path = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenth_malformed_message_cuts_the_peer_off),
        cmocka_unit_test(test_message_over_a_limit_is_refused_and_the_third_cuts_off),
        cmocka_unit_test(test_message_of_very_many_frames_does_no_harm),
        cmocka_unit_test(test_peer_that_does_not_read_is_cut_off_and_nobody_else_waits),
        cmocka_unit_test(test_message_without_end_is_cut_off),
        cmocka_unit_test(test_message_without_end_over_ipc_is_cut_off_too),
        cmocka_unit_test(test_peer_that_asks_and_never_reads_is_cut_off),
        cmocka_unit_test(test_peer_that_chose_its_routing_id_is_not_admitted),
        cmocka_unit_test(test_killed_peer_is_noticed_within_50_ms),
        cmocka_unit_test(test_ipc_path_is_for_its_owner_and_ends_are_noticed_there_too),
        cmocka_unit_test(test_endpoint_that_is_in_use_is_not_taken_over),
        cmocka_unit_test(test_plain_tcp_off_the_loopback_is_refused),
        cmocka_unit_test(test_idle_broker_without_peers_sleeps),
    };
    const int failed_count = cmocka_run_group_tests(tests, NULL, NULL);
    for (size_t i = 0; i < sizeof running / sizeof running[0]; i++) {
        if (running[i] != 0) {
            (void)kill(running[i], SIGKILL);
        }
    }
    return failed_count;
}
