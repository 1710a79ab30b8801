/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/canary.h"
#include "tests/support/keyed_mesh.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define BROKER_COUNT_MAX 16

static pid_t running[BROKER_COUNT_MAX];
static uint64_t asked_count;
static void *context;

void sleep_ms(unsigned span_ms)
{
    const struct timespec span = {span_ms / 1000, (long)(span_ms % 1000) * 1000000};
    (void)nanosleep(&span, NULL);
}

uint64_t clock_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void *peers_context(void)
{
    if (context == NULL) {
        context = zmq_ctx_new();
        assert_non_null(context);
    }
    return context;
}

void test_key_create(struct test_key *key)
{
    assert_int_equal(crypto_box_keypair(key->public_key, key->secret_key), 0);
    key_print(key->hex, key->public_key);
}

/* ---- the broker ---- */

static void note_running(pid_t from, pid_t to)
{
    for (int i = 0; i < BROKER_COUNT_MAX; i++) {
        if (running[i] == from) {
            running[i] = to;
            return;
        }
    }
}

void keyed_brokers_kill(void)
{
    for (int i = 0; i < BROKER_COUNT_MAX; i++) {
        if (running[i] != 0) {
            (void)kill(running[i], SIGKILL);
        }
    }
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fchmod(fileno(file), 0644), 0); /* a group's is refused */
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void write_server_key(const char *folder, const char *name, uint8_t public_key[KEY_SIZE])
{
    char why[KEY_WHY_SIZE];
    struct key_pair *pair = NULL;
    assert_int_equal(key_pair_create(&pair), TREADLE_OK);
    assert_int_equal(key_pair_write(pair, name, folder, why), TREADLE_OK);
    memcpy(public_key, key_pair_public(pair), KEY_SIZE);
    key_pair_close(&pair);
}

static void write_configuration(const struct keyed_broker *broker)
{
    char path[256];
    char text[1024];
    (void)snprintf(path, sizeof path, "%s/treadled.conf", broker->folder);
    (void)snprintf(text, sizeof text,
                   "listen = {\"tcp://127.0.0.1:*\", \"tcp://127.0.0.1:* second.key\", "
                   "\"ipc://%s/broker.sock\"}\n"
                   "server_key = \"server.key\"\n"
                   "principals = \"principals\"\n",
                   broker->folder);
    write_file(path, text);
}

static void spawn_broker(struct keyed_broker *broker, const char *treadled)
{
    char path[256];
    char log[256];
    int ends[2];
    posix_spawn_file_actions_t actions;
    (void)snprintf(path, sizeof path, "%s/treadled.conf", broker->folder);
    (void)snprintf(log, sizeof log, "%s/broker.log", broker->folder);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log,
                                                      O_WRONLY | O_CREAT | O_APPEND, 0600),
                     0);
    char *arguments[] = {strdup(treadled), strdup("-c"), path, NULL};
    assert_int_equal(posix_spawn(&broker->pid, treadled, &actions, NULL, arguments, environ), 0);
    note_running(0, broker->pid);
    free(arguments[0]);
    free(arguments[1]);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    FILE *out = fdopen(ends[0], "r");
    assert_non_null(out);
    assert_int_equal(fscanf(out, "listening %255s listening %255s listening %255s",
                            broker->endpoint, broker->second, broker->plain),
                     3);
    (void)fclose(out);
}

void keyed_broker_start(struct keyed_broker *broker, const char *treadled, const char *principals)
{
    *broker = (struct keyed_broker){.pid = 0};
    const char *parent = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): before any thread */
    (void)snprintf(broker->folder, sizeof broker->folder, "%s/treadle-keys.XXXXXX",
                   parent == NULL ? "/tmp" : parent);
    assert_non_null(mkdtemp(broker->folder));
    (void)snprintf(broker->principals, sizeof broker->principals, "%s/principals", broker->folder);
    write_file(broker->principals, principals);
    write_server_key(broker->folder, "server", broker->server_key);
    write_server_key(broker->folder, "second", broker->second_key);
    write_configuration(broker);
    spawn_broker(broker, treadled);
}

static bool says_reloaded(const struct keyed_broker *broker, uint64_t *count)
{
    char path[256];
    char line[4096];
    (void)snprintf(path, sizeof path, "%s/broker.log", broker->folder);
    FILE *log = fopen(path, "re");
    assert_non_null(log);
    *count = 0;
    while (fgets(line, sizeof line, log) != NULL) {
        *count += strstr(line, " config.reloaded ") != NULL ? 1 : 0;
    }
    (void)fclose(log);
    return *count > 0;
}

void keyed_broker_reload(struct keyed_broker *broker, const char *principals)
{
    uint64_t before = 0;
    uint64_t now = 0;
    (void)says_reloaded(broker, &before);
    write_file(broker->principals, principals);
    assert_int_equal(kill(broker->pid, SIGHUP), 0);
    for (int i = 0; i < 500 && now <= before; i++) {
        sleep_ms(10);
        (void)says_reloaded(broker, &now);
    }
    assert_int_equal(now, before + 1);
}

static void remove_folder(const struct keyed_broker *broker)
{
    static const char *const names[] = {"principals", "server.key",    "server.pub", "second.key",
                                        "second.pub", "treadled.conf", "broker.log", "broker.sock"};
    char path[256];
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): nobody changes it */
    if (getenv(CANARY_VARIABLE) != NULL) {
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", broker->folder, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(broker->folder);
}

void keyed_broker_stop(struct keyed_broker *broker)
{
    int status = 0;
    assert_int_equal(kill(broker->pid, SIGTERM), 0);
    sleep_ms(50);
    (void)kill(broker->pid, SIGTERM); /* it does not wait for tasks that nobody serves */
    assert_int_equal(waitpid(broker->pid, &status, 0), broker->pid);
    note_running(broker->pid, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    remove_folder(broker);
}

uint64_t keyed_broker_asked(void)
{
    return asked_count;
}

uint64_t keyed_broker_counter(const struct keyed_broker *broker, const char *name)
{
    struct keyed_peer *peer =
        keyed_peer_open(&(struct given_keyed_peer){.endpoint = broker->plain});
    struct message query = {.kind = MESSAGE_BROKER_QUERY};
    uint64_t value = UINT64_MAX;
    keyed_peer_hello(peer, ROLE_CLIENT, "observer", NULL);
    keyed_peer_send(peer, &query);
    asked_count += 2;
    assert_true(keyed_peer_receive_kind(peer, MESSAGE_BROKER_INFO, 5000));
    struct wire_list counters = peer->message.as.broker_info.counters;
    struct wire_counter counter;
    while (wire_counter_next(&counters, &counter)) {
        if (bytes_is_equal(counter.name, bytes_from_text(name))) {
            value = counter.value;
        }
    }
    assert_int_not_equal(value, UINT64_MAX);
    keyed_peer_close(&peer);
    return value;
}

/* ---- peers ---- */

static void set_mechanism(void *socket, const struct given_keyed_peer *given)
{
    if (given->mechanism == PEER_PASSWORD) {
        assert_int_equal(zmq_setsockopt(socket, ZMQ_PLAIN_USERNAME, "admin", 5), 0);
        assert_int_equal(zmq_setsockopt(socket, ZMQ_PLAIN_PASSWORD, "admin", 5), 0);
    } else if (given->mechanism == PEER_CURVE) {
        assert_int_equal(zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, given->server_key, KEY_SIZE),
                         0);
        assert_int_equal(
            zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, given->key->public_key, KEY_SIZE), 0);
        assert_int_equal(
            zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, given->key->secret_key, KEY_SIZE), 0);
    }
}

struct keyed_peer *keyed_peer_open(const struct given_keyed_peer *given)
{
    const int zero = 0;
    const int interval_ms = 20;
    struct keyed_peer *peer = calloc(1, sizeof *peer);
    assert_non_null(peer);
    peer->socket = zmq_socket(peers_context(), ZMQ_DEALER);
    assert_non_null(peer->socket);
    assert_int_equal(zmq_setsockopt(peer->socket, ZMQ_LINGER, &zero, sizeof zero), 0);
    assert_int_equal(
        zmq_setsockopt(peer->socket, ZMQ_RECONNECT_IVL, &interval_ms, sizeof interval_ms), 0);
    if (given->routing_id != NULL) {
        assert_int_equal(
            zmq_setsockopt(peer->socket, ZMQ_ROUTING_ID, given->routing_id, given->routing_id_size),
            0);
    }
    set_mechanism(peer->socket, given);
    assert_int_equal(zmq_connect(peer->socket, given->endpoint), 0);
    return peer;
}

void keyed_peer_close(struct keyed_peer **reference)
{
    if (*reference != NULL) {
        (void)zmq_close((*reference)->socket);
        free(*reference);
        *reference = NULL;
    }
}

void keyed_peer_send(struct keyed_peer *peer, struct message *message)
{
    struct writer writer;
    writer_init(&writer);
    peer->number++;
    message->number = peer->number;
    message->upto = peer->upto;
    assert_true(message_encode(message, &writer));
    assert_int_equal(writer.frames.count, 1);
    const int sent = zmq_send(peer->socket, writer.data, writer.size, ZMQ_DONTWAIT);
    assert_true(sent == (int)writer.size || (sent == -1 && errno == EAGAIN));
    writer_free(&writer);
}

void keyed_peer_hello(struct keyed_peer *peer, enum peer_role role, const char *name,
                      const char *serves)
{
    randombytes_buf(peer->incarnation, sizeof peer->incarnation);
    keyed_peer_hello_again(peer, role, name, serves);
}

void keyed_peer_hello_again(struct keyed_peer *peer, enum peer_role role, const char *name,
                            const char *serves)
{
    struct writer list;
    struct message message = {.kind = MESSAGE_HELLO};
    writer_init(&list);
    message.as.hello =
        (struct wire_hello){.role = role,
                            .name = bytes_from_text(name),
                            .incarnation = {peer->incarnation, sizeof peer->incarnation}};
    if (role == ROLE_WORKER) {
        const struct wire_serve serve = {.pattern = bytes_from_text(serves)};
        assert_true(wire_serve_encode(&list, &serve));
        message.as.hello.slots = 16;
        message.as.hello.serves = wire_list_from_writer(&list, 1);
    }
    keyed_peer_send(peer, &message);
    writer_free(&list);
}

bool keyed_peer_receive(struct keyed_peer *peer, int span_ms)
{
    const uint64_t until_ms = clock_now_ms() + (uint64_t)span_ms;
    for (uint64_t now_ms = clock_now_ms(); now_ms <= until_ms; now_ms = clock_now_ms()) {
        zmq_pollitem_t item = {.socket = peer->socket, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, (long)(until_ms - now_ms)) <= 0) {
            return false;
        }
        const int size = zmq_recv(peer->socket, peer->buffer, sizeof peer->buffer, ZMQ_DONTWAIT);
        assert_true(size >= 0 && (size_t)size <= sizeof peer->buffer);
        peer->view = (struct bytes){peer->buffer, (size_t)size};
        peer->frames = (struct wire_frames){&peer->view, 1};
        assert_int_equal(message_decode(&peer->message, &peer->frames, &wire_limits_protocol),
                         WIRE_OK);
        if (peer->message.kind != MESSAGE_HEARTBEAT) {
            return true;
        }
    }
    return false;
}

bool keyed_peer_receive_kind(struct keyed_peer *peer, enum message_kind kind, int span_ms)
{
    const uint64_t until_ms = clock_now_ms() + (uint64_t)span_ms;
    uint64_t now_ms = clock_now_ms();
    while (now_ms <= until_ms && keyed_peer_receive(peer, (int)(until_ms - now_ms))) {
        if (peer->message.kind == kind) {
            return true;
        }
        now_ms = clock_now_ms();
    }
    return false;
}
