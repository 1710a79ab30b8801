/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "bench/peers.h"

#include "common/base/bytes.h"
#include "worker/session.h"

#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

_Noreturn void fail(const char *what)
{
    fprintf(stderr, "bench_mesh: %s: %s\n", what, zmq_strerror(zmq_errno()));
    _exit(EXIT_FAILURE);
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

uint64_t now_ms(void)
{
    return now_ns() / 1000000U;
}

double cpu_us(const struct rusage *usage)
{
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1e6 +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec);
}

/* ---- keys ---- */

#define CURVE_VARIABLE "TREADLE_BENCH_CURVE"

static struct curve {
    uint8_t server_public[32], server_secret[32];
    uint8_t peer_public[32], peer_secret[32];
} curve;
static bool has_curve;

void make_curve(void)
{
    char hex[2 * sizeof curve + 1];
    (void)crypto_box_keypair(curve.server_public, curve.server_secret);
    (void)crypto_box_keypair(curve.peer_public, curve.peer_secret);
    (void)sodium_bin2hex(hex, sizeof hex, (const uint8_t *)&curve, sizeof curve);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): before any thread */
    if (setenv(CURVE_VARIABLE, hex, 1) != 0) {
        fail("keys");
    }
    has_curve = true;
}

bool take_curve(void)
{
    const char *hex = getenv(CURVE_VARIABLE); /* NOLINT(concurrency-mt-unsafe): before any thread */
    has_curve = hex != NULL && sodium_hex2bin((uint8_t *)&curve, sizeof curve, hex, strlen(hex),
                                              NULL, NULL, NULL) == 0;
    return has_curve;
}

void serve_curve(void *socket)
{
    const int one = 1;
    if (has_curve && (zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof one) != 0 ||
                      zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, curve.server_secret, 32) != 0)) {
        fail("keys");
    }
}

static void connect_curve(void *socket)
{
    if (has_curve && (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, curve.server_public, 32) != 0 ||
                      zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, curve.peer_public, 32) != 0 ||
                      zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, curve.peer_secret, 32) != 0)) {
        fail("keys");
    }
}

/* ---- sockets ---- */

void *open_dealer(void *context, const char *endpoint)
{
    void *socket = zmq_socket(context, ZMQ_DEALER);
    const int watermark = 0;
    const int linger = 0;
    if (socket != NULL) {
        connect_curve(socket);
    }
    if (socket == NULL || zmq_setsockopt(socket, ZMQ_SNDHWM, &watermark, sizeof watermark) != 0 ||
        zmq_setsockopt(socket, ZMQ_RCVHWM, &watermark, sizeof watermark) != 0 ||
        zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger) != 0 ||
        zmq_connect(socket, endpoint) != 0) {
        fail("connect");
    }
    return socket;
}

void send_frames(void *socket, const struct wire_frames *frames)
{
    for (size_t i = 0; i < frames->count; i++) {
        const int flags = i + 1 < frames->count ? ZMQ_SNDMORE : 0;
        if (zmq_send(socket, frames->frames[i].data, frames->frames[i].size, flags) < 0) {
            fail("send");
        }
    }
}

bool receive(void *socket, struct received *received)
{
    received->count = 0;
    for (bool has_more = true; has_more;) {
        if (received->count == FRAME_COUNT_MAX) {
            fail("too many frames");
        }
        zmq_msg_t *part = &received->parts[received->count];
        zmq_msg_init(part);
        if (zmq_msg_recv(part, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(part);
            return false; /* whole messages only, so this is the first part */
        }
        received->views[received->count] = (struct bytes){zmq_msg_data(part), zmq_msg_size(part)};
        received->count++;
        has_more = zmq_msg_more(part) != 0;
    }
    return true;
}

void release(struct received *received)
{
    for (size_t i = 0; i < received->count; i++) {
        zmq_msg_close(&received->parts[i]);
    }
}

bool decode(struct received *received, struct message *message)
{
    static struct wire_frames frames;
    frames = (struct wire_frames){received->views, received->count};
    return message_decode(message, &frames, &wire_limits_protocol) == WIRE_OK;
}

void wait_readable(void *socket, uint64_t at_ms)
{
    const uint64_t now = now_ms();
    const long timeout = at_ms <= now ? 0 : (at_ms - now > 1000 ? 1000 : (long)(at_ms - now));
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
    (void)zmq_poll(&item, 1, timeout);
}

/* ---- processes ---- */

struct child start(const char *const arguments[], bool says_endpoint)
{
    struct child child = {0};
    int pipe_fds[2];
    if (pipe(pipe_fds) != 0) {
        fail("pipe");
    }
    child.pid = fork();
    if (child.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pipe_fds[1], STDOUT_FILENO);
        execv(arguments[0], (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    close(pipe_fds[1]);
    FILE *out = fdopen(pipe_fds[0], "r");
    char line[ENDPOINT_MAX + 16];
    if (says_endpoint && out != NULL &&
        (fgets(line, sizeof line, out) == NULL ||
         sscanf(line, "listening %255s", child.endpoint) != 1)) {
        fprintf(stderr, "bench_mesh: %s did not start\n", arguments[0]);
        _exit(EXIT_FAILURE);
    }
    /* the pipe stays open, so that the child can go on writing */
    return child;
}

double stop(const struct child *child)
{
    struct rusage usage = {0};
    kill(child->pid, SIGKILL);
    (void)wait4(child->pid, NULL, 0, &usage);
    return cpu_us(&usage);
}

const char *self_path(void)
{
    static char self[4096];
    const ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    if (size < 0) {
        fail("readlink");
    }
    return self;
}

/* The broker's files for these keys, in a folder of their own. */
static void write_access(char *server_key, char *principals, size_t size)
{
    char folder[] = "/tmp/treadle-bench-XXXXXX";
    char z85[2][41];
    char hex[65];
    if (mkdtemp(folder) == NULL || zmq_z85_encode(z85[0], curve.server_public, 32) == NULL ||
        zmq_z85_encode(z85[1], curve.server_secret, 32) == NULL) {
        fail("keys");
    }
    (void)snprintf(server_key, size, "%s/server.key", folder);
    (void)snprintf(principals, size, "%s/principals", folder);
    (void)sodium_bin2hex(hex, sizeof hex, curve.peer_public, 32);
    (void)umask(0077);
    FILE *file = fopen(server_key, "we");
    if (file == NULL ||
        fprintf(file, "curve\n    public-key = \"%s\"\n    secret-key = \"%s\"\n", z85[0], z85[1]) <
            0 ||
        fclose(file) != 0) {
        fail("keys");
    }
    file = fopen(principals, "we");
    if (file == NULL ||
        fprintf(file,
                "principal bench {\nkeys = {%s}\nroles = {submit, work}\n"
                "services = {\"*\"}\n}\n",
                hex) < 0 ||
        fclose(file) != 0) {
        fail("keys");
    }
}

/* With keys: read before the child says where it listens, so they are removed at once. */
static struct child start_keyed_broker(const char *broker)
{
    char server_key[64];
    char principals[64];
    write_access(server_key, principals, sizeof server_key);
    const char *const arguments[] = {
        broker,        "--server-key", server_key, "--principals",      principals,
        "--log-level", "warn",         "--listen", "tcp://127.0.0.1:*", NULL};
    const struct child child = start(arguments, true);
    (void)unlink(server_key);
    (void)unlink(principals);
    *strrchr(server_key, '/') = '\0';
    (void)rmdir(server_key);
    return child;
}

struct child start_broker(void)
{
    static char broker[4200];
    const char *self = self_path();
    (void)snprintf(broker, sizeof broker, "%.*s/../bin/treadled", (int)(strrchr(self, '/') - self),
                   self);
    if (has_curve) {
        return start_keyed_broker(broker);
    }
    const char *const arguments[] = {broker,     "--insecure",        "--log-level", "warn",
                                     "--listen", "tcp://127.0.0.1:*", NULL};
    return start(arguments, true);
}

/* ---- a worker ---- */

/* What a worker does with its events. */
typedef void event_handler(struct worker_session *session, uint32_t body_size);

static void answer_events(struct worker_session *session, uint32_t body_size)
{
    static const uint8_t body[BODY_MAX];
    const uint64_t now = now_ms();
    struct worker_event event;
    while (worker_session_next_event(session, &event)) {
        if (event.kind == WORKER_EVENT_START) {
            const struct wire_success_entry success = {.lease = event.lease,
                                                       .body = {body, body_size}};
            worker_session_on_started(session, now, event.lease);
            worker_session_succeed(session, now, &success);
        }
    }
}

static void ignore_events(struct worker_session *session, uint32_t body_size)
{
    struct worker_event event;
    while (worker_session_next_event(session, &event)) {
        (void)body_size; /* what has started never ends */
    }
}

static void run_session(const char *endpoint, const char *pattern, uint32_t slots,
                        uint32_t body_size, event_handler *handle)
{
    void *context = zmq_ctx_new();
    void *socket = open_dealer(context, endpoint);
    const struct wire_serve serve = {.pattern = bytes_from_text(pattern)};
    struct worker_session_config config = {.name = bytes_from_text(pattern),
                                           .slots = slots,
                                           .prefetch_max = slots,
                                           .drain_ms = WORKER_DRAIN_MS,
                                           .serves = &serve,
                                           .serve_count = 1};
    randombytes_buf(config.incarnation, sizeof config.incarnation);
    struct worker_session *session = worker_session_create(&config, now_ms());
    worker_session_on_connected(session, now_ms());
    static struct received received;
    for (;;) {
        while (receive(socket, &received)) {
            struct message message;
            if (decode(&received, &message)) {
                worker_session_on_message(session, now_ms(), &message);
            }
            release(&received);
            handle(session, body_size);
        }
        worker_session_on_time(session, now_ms());
        handle(session, body_size);
        const struct wire_frames *frames = NULL;
        while ((frames = worker_session_take_message(session)) != NULL) {
            send_frames(socket, frames);
        }
        wait_readable(socket, worker_session_next_at_ms(session));
    }
}

void run_worker(const char *endpoint, const char *pattern, uint32_t slots, uint32_t body_size)
{
    run_session(endpoint, pattern, slots, body_size, answer_events);
}

void hold_leases(const char *endpoint, const char *pattern, uint32_t slots)
{
    run_session(endpoint, pattern, slots, 0, ignore_events);
}
