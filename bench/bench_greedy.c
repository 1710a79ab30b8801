/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A quiet client's round trips on an idle broker and beside peers that take more than their part:
 * one that never reads, one whose message never ends, one that submits what is not admitted, one
 * that says HELLO without end, one that sends rubbish. Prints the ratio, the broker's memory, and
 * whether the peer was cut off.
 *
 * The greedy peers run at the lowest priority: on machines of their own they would not take this
 * one's processors, only what they make the broker do.
 *
 *     bench_greedy [--trips N] [--only NAME]
 */
#define _GNU_SOURCE
#include "bench/peers.h"
#include "client/session.h"
#include "common/base/bytes.h"
#include "common/base/prng.h"
#include "tests/support/raw_peer.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TRIP_MAX        200000U
#define NICE_MAX        19
#define JUNK_SERVICES   1024U
#define GREEDY_START_MS 300U
#define BODY_LARGE      (1U << 20)

/* ---- greedy peers: raw, in processes of their own ---- */

static uint64_t sent_number;

/* False: cut off. */
static bool send_message(int fd, struct message *message)
{
    struct writer writer;
    writer_init(&writer);
    sent_number++;
    message->number = sent_number;
    bool is_sent = message_encode(message, &writer);
    for (size_t i = 0; is_sent && i < writer.frames.count; i++) {
        is_sent = raw_peer_send(fd, writer.frames.frames[i], i + 1 < writer.frames.count);
    }
    writer_free(&writer);
    return is_sent;
}

static bool say_hello(int fd)
{
    uint8_t incarnation[16];
    randombytes_buf(incarnation, sizeof incarnation);
    struct message hello = {.kind = MESSAGE_HELLO};
    hello.as.hello = (struct wire_hello){.role = ROLE_CLIENT,
                                         .name = bytes_from_text("greedy"),
                                         .incarnation = {incarnation, sizeof incarnation}};
    return send_message(fd, &hello);
}

/* Reads what has come, and throws it away. */
static void read_all(int fd)
{
    static uint8_t buffer[1 << 20];
    while (recv(fd, buffer, sizeof buffer, MSG_DONTWAIT) > 0) {
    }
}

static int open_greedy(const char *endpoint)
{
    const int fd = raw_peer_open(endpoint, 60000);
    if (fd == -1) {
        fail("connect");
    }
    return fd;
}

static bool submit_entries(int fd, const char *service, uint32_t count)
{
    static uint8_t digest[16];
    struct writer templates;
    struct writer entries;
    writer_init(&templates);
    writer_init(&entries);
    const struct wire_submit_template template = {.service = bytes_from_text(service),
                                                  .task = bytes_from_text("task")};
    (void)wire_submit_template_encode(&templates, &template);
    for (uint32_t i = 0; i < count; i++) {
        struct wire_submit_entry entry = {.digest = {digest, sizeof digest}};
        randombytes_buf(entry.id.bytes, sizeof entry.id.bytes);
        (void)wire_submit_entry_encode(&entries, &entry);
    }
    struct message message = {.kind = MESSAGE_SUBMIT};
    message.as.submit.templates = wire_list_from_writer(&templates, 1);
    message.as.submit.entries = wire_list_from_writer(&entries, count);
    const bool is_sent = send_message(fd, &message);
    writer_free(&templates);
    writer_free(&entries);
    return is_sent;
}

/* All names are taken by tasks that wait; what it submits beyond them is answered BUSY. */
static void be_busy(int fd)
{
    char service[32];
    (void)say_hello(fd);
    for (uint32_t i = 0; i < JUNK_SERVICES; i++) {
        (void)snprintf(service, sizeof service, "junk%" PRIu32, i);
        (void)submit_entries(fd, service, 1);
        read_all(fd);
    }
    while (submit_entries(fd, "over", ENTRY_COUNT_MAX)) {
        read_all(fd);
    }
}

static void be_endless(int fd)
{
    static uint8_t part[65536];
    while (raw_peer_send(fd, (struct bytes){part, sizeof part}, true)) {
    }
}

static void be_deaf(int fd)
{
    struct message query = {.kind = MESSAGE_BROKER_QUERY};
    bool is_open = say_hello(fd);
    while (is_open) {
        is_open = send_message(fd, &query);
    }
}

static void be_hello(int fd)
{
    while (say_hello(fd)) {
        read_all(fd);
    }
}

static void be_rubbish(int fd)
{
    while (raw_peer_send(fd, bytes_from_text("rubbish"), false)) {
    }
}

static void be_large(int fd)
{
    static uint8_t body[BODY_LARGE];
    while (raw_peer_send(fd, (struct bytes){body, sizeof body}, false)) {
    }
}

static const struct {
    const char *name;
    const char *what;
    void (*be)(int fd);
} kinds[] = {
    {"deaf", "asks and never reads", be_deaf},
    {"endless", "a message without end", be_endless},
    {"busy", "submits what is not admitted", be_busy},
    {"hello", "says HELLO without end", be_hello},
    {"rubbish", "sends rubbish", be_rubbish},
    {"large", "sends large rubbish", be_large},
};
#define KIND_COUNT (sizeof kinds / sizeof kinds[0])

/* Ends when it is cut off. */
static void be_greedy(const char *endpoint, const char *name)
{
    errno = 0;
    if (nice(NICE_MAX) == -1 && errno != 0) {
        fail("nice");
    }
    for (size_t i = 0; i < KIND_COUNT; i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            kinds[i].be(open_greedy(endpoint));
        }
    }
}

/* ---- the quiet client ---- */

struct quiet {
    struct client_session *session;
    void *socket;
    struct prng prng;
    uint32_t settled;
    uint64_t trips_ns[TRIP_MAX];
    uint32_t trip_count;
};

static void open_quiet(struct quiet *quiet, const char *endpoint)
{
    quiet->socket = open_dealer(zmq_ctx_new(), endpoint);
    struct client_session_config config = {
        .name = bytes_from_text("quiet"), .seed = 1, .in_flight_max = 16};
    randombytes_buf(config.incarnation, sizeof config.incarnation);
    prng_seed(&quiet->prng, bytes_load_u64(config.incarnation));
    quiet->session = client_session_create(&config);
    client_session_on_connected(quiet->session, now_ms());
}

static void pump(struct quiet *quiet)
{
    static struct received received;
    struct client_event *event = NULL;
    const struct wire_frames *frames = NULL;
    client_session_on_time(quiet->session, now_ms());
    while ((frames = client_session_take_message(quiet->session, now_ms())) != NULL) {
        send_frames(quiet->socket, frames);
    }
    wait_readable(quiet->socket, client_session_next_at_ms(quiet->session));
    while (receive(quiet->socket, &received)) {
        struct message message;
        if (decode(&received, &message)) {
            (void)client_session_on_message(quiet->session, now_ms(), &message);
        }
        release(&received);
    }
    while ((event = client_session_take_event(quiet->session, NULL, NULL)) != NULL) {
        quiet->settled += event->kind == CLIENT_EVENT_SETTLED ? 1 : 0;
        client_event_destroy(&event);
    }
}

static void make_trip(struct quiet *quiet)
{
    static const struct wire_submit_template fields = {.service = {(const uint8_t *)"ping", 4},
                                                       .task = {(const uint8_t *)"pong", 4},
                                                       .flags = SUBMIT_WATCH};
    struct client_submission submission = {.fields = &fields};
    const uint64_t started_ns = now_ns();
    const uint32_t before = quiet->settled;
    bytes_store_u64(submission.id.bytes, prng_next(&quiet->prng));
    bytes_store_u64(submission.id.bytes + 8, prng_next(&quiet->prng));
    if (client_session_submit(quiet->session, now_ms(), &submission) != TREADLE_OK) {
        fail("submit");
    }
    while (quiet->settled == before) {
        pump(quiet);
    }
    if (quiet->trip_count < TRIP_MAX) {
        quiet->trips_ns[quiet->trip_count] = now_ns() - started_ns;
        quiet->trip_count++;
    }
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

struct figures {
    double median_us;
    double p99_us;
    double most_us;
};

static struct figures measure(struct quiet *quiet, uint32_t trip_count)
{
    quiet->trip_count = 0;
    for (uint32_t i = 0; i < trip_count; i++) {
        make_trip(quiet);
        usleep(200); /* quiet */
    }
    qsort(quiet->trips_ns, quiet->trip_count, sizeof quiet->trips_ns[0], by_value);
    const uint32_t last = quiet->trip_count - 1;
    const uint32_t middle = last / 2;
    return (struct figures){(double)quiet->trips_ns[middle] / 1000,
                            (double)quiet->trips_ns[(uint32_t)(0.99 * last)] / 1000,
                            (double)quiet->trips_ns[last] / 1000};
}

/* The most memory that a process has had, MiB. */
static unsigned peak_mib(pid_t pid)
{
    char path[64];
    char line[256];
    unsigned long kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *status = fopen(path, "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, "VmHWM:", 6) == 0) {
            kib = strtoul(line + 6, NULL, 10);
        }
    }
    if (status != NULL) {
        (void)fclose(status);
    }
    return (unsigned)(kib / 1024);
}

/* Whether it has ended by itself. */
static bool has_ended(const struct child *child)
{
    char path[64];
    char state = '?';
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)child->pid);
    FILE *stat = fopen(path, "r");
    if (stat != NULL) {
        (void)!fscanf(stat, "%*d %*s %c", &state);
        (void)fclose(stat);
    }
    return state == 'Z';
}

static void print_figures(const char *what, const struct figures *figures)
{
    printf("%-30s median %7.0f us  p99 %7.0f us  max %7.0f us", what, figures->median_us,
           figures->p99_us, figures->most_us);
}

static void measure_beside(size_t kind, uint32_t trip_count)
{
    static struct quiet quiet;
    const struct child broker = start_broker();
    const char *const worker_arguments[] = {self_path(), "worker", broker.endpoint, NULL};
    const struct child worker = start(worker_arguments, false);
    open_quiet(&quiet, broker.endpoint);
    (void)measure(&quiet, trip_count); /* warms up */
    const struct figures before = measure(&quiet, trip_count);
    const char *const arguments[] = {self_path(), "be", broker.endpoint, kinds[kind].name, NULL};
    const struct child greedy = start(arguments, false);
    usleep(GREEDY_START_MS * 1000);
    const bool was_short = has_ended(&greedy);
    const struct figures beside = measure(&quiet, trip_count);
    for (uint32_t i = 0; i < 30 && !has_ended(&greedy); i++) {
        usleep(100000);
    }
    print_figures("nothing else", &before);
    printf("\n");
    print_figures(kinds[kind].what, &beside);
    printf("  median x %.1f  p99 x %.1f  broker at most %u MiB  %s\n",
           beside.median_us / before.median_us, beside.p99_us / before.p99_us, peak_mib(broker.pid),
           was_short            ? "cut off at once"
           : has_ended(&greedy) ? "cut off meanwhile"
                                : "not cut off");
    (void)fflush(stdout);
    (void)stop(&greedy);
    (void)stop(&worker);
    (void)stop(&broker);
    client_session_destroy(&quiet.session);
    (void)zmq_close(quiet.socket);
}

static const char *option(int count, char **arguments, const char *name, const char *value)
{
    for (int i = 1; i + 1 < count; i++) {
        if (strcmp(arguments[i], name) == 0) {
            return arguments[i + 1];
        }
    }
    return value;
}

int main(int count, char **arguments)
{
    if (sodium_init() < 0) {
        fail("start");
    }
    if (count == 3 && strcmp(arguments[1], "worker") == 0) {
        run_worker(arguments[2], "ping.pong", 4, 0);
    } else if (count == 4 && strcmp(arguments[1], "be") == 0) {
        be_greedy(arguments[2], arguments[3]);
        return EXIT_SUCCESS;
    }
    const char *only = option(count, arguments, "--only", NULL);
    const uint32_t trips = (uint32_t)strtoul(option(count, arguments, "--trips", "3000"), NULL, 10);
    for (size_t i = 0; i < KIND_COUNT; i++) {
        if (only == NULL || strcmp(only, kinds[i].name) == 0) {
            measure_beside(i, trips);
        }
    }
    return EXIT_SUCCESS;
}
