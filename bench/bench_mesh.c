/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Tasks a second through a real broker, beside a bare ROUTER/DEALER relay that carries as many
 * tasks a message.
 *
 *     bench_mesh [--quick] [--curve] [--tasks N] [--in-flight N] [--body BYTES] [--batch N]
 *                [--rounds N]
 *
 * The mesh: treadled, a worker process that answers at once, and a client in this process. The
 * relay: a ROUTER process that passes messages between one client and one worker and looks at
 * nothing; its messages carry as many tasks as those of the mesh's client. Both over TCP on the
 * loopback, in turn; the figure to quote is the median of the rounds' ratios. --curve encrypts
 * both. bench/README.md has figures.
 * A benchmark is never a test: it passes unless it cannot run.
 */
#define _GNU_SOURCE
#include "bench/peers.h"
#include "client/session.h"
#include "common/base/bytes.h"
#include "common/base/prng.h"
#include "common/wire/message.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zmq.h>

#define ROUNDS_MAX  99
#define PATIENCE_MS 10000 /* without a word from the other side: something is broken */

struct settings {
    uint32_t task_count;
    uint32_t in_flight;
    uint32_t body_size;
    uint32_t batch; /* tasks a message, at most */
    uint32_t round_count;
    bool is_encrypted;
};

struct figures {
    double tasks_per_second;
    double client_us, broker_us, worker_us; /* CPU a task; the relay stands in for the broker */
    double batch;                           /* tasks a message from the client */
};

/* ---- the mesh: client ---- */

struct load {
    struct client_session *session;
    void *socket;
    struct prng prng;
    const struct settings *settings;
    uint32_t submitted;
    uint32_t settled;
    uint64_t submit_messages;
    uint64_t heard_at_ms;
};

static void submit_one(struct load *load)
{
    static const uint8_t body[BODY_MAX];
    static const struct wire_submit_template fields = {.service = {(const uint8_t *)"bench", 5},
                                                       .task = {(const uint8_t *)"noop", 4},
                                                       .flags = SUBMIT_WATCH | SUBMIT_VOLATILE};
    struct client_submission submission = {.body = {body, load->settings->body_size},
                                           .fields = &fields};
    bytes_store_u64(submission.id.bytes, prng_next(&load->prng));
    bytes_store_u64(submission.id.bytes + 8, prng_next(&load->prng));
    crypto_generichash(submission.digest, sizeof submission.digest, body, load->settings->body_size,
                       NULL, 0);
    if (client_session_submit(load->session, now_ms(), &submission) != TREADLE_OK) {
        fail("submit");
    }
    load->submitted++;
}

static void take_events(struct load *load)
{
    struct client_event *event = NULL;
    while ((event = client_session_take_event(load->session, NULL, NULL)) != NULL) {
        if (event->kind == CLIENT_EVENT_SETTLED) {
            if (event->settled.outcome != TASK_SUCCEEDED) {
                fail("a task did not succeed");
            }
            load->settled++;
        }
        client_event_destroy(&event);
    }
}

static void send_messages(struct load *load)
{
    const struct wire_frames *frames = NULL;
    while ((frames = client_session_take_message(load->session, now_ms())) != NULL) {
        if (frames->frames[0].size > 3 && frames->frames[0].data[3] == MESSAGE_SUBMIT) {
            load->submit_messages++;
        }
        send_frames(load->socket, frames);
    }
}

/* One message of at most a batch: with all that is in flight in one message, the parts of the mesh
 * would wait for each other in turn. */
static void submit_batch(struct load *load)
{
    const struct settings *settings = load->settings;
    for (uint32_t i = 0; i < settings->batch && load->submitted < settings->task_count &&
                         load->submitted - load->settled < settings->in_flight;
         i++) {
        submit_one(load);
    }
    send_messages(load);
}

static void exchange(struct load *load)
{
    static struct received received;
    while (receive(load->socket, &received)) {
        struct message message;
        load->heard_at_ms = now_ms();
        if (decode(&received, &message)) {
            (void)client_session_on_message(load->session, now_ms(), &message);
        }
        release(&received);
        take_events(load);
    }
    client_session_on_time(load->session, now_ms());
    if (now_ms() > load->heard_at_ms + PATIENCE_MS) {
        fail("the broker is silent");
    }
    while (load->submitted < load->settings->task_count &&
           load->submitted - load->settled < load->settings->in_flight) {
        submit_batch(load);
    }
    send_messages(load);
    if (load->settled < load->settings->task_count) {
        wait_readable(load->socket, client_session_next_at_ms(load->session));
    }
}

static struct figures run_client(const char *endpoint, const struct settings *settings)
{
    void *context = zmq_ctx_new();
    struct load load = {
        .socket = open_dealer(context, endpoint), .settings = settings, .heard_at_ms = now_ms()};
    struct client_session_config config = {
        .name = bytes_from_text("bench"), .seed = 1, .in_flight_max = settings->in_flight + 1};
    randombytes_buf(config.incarnation, sizeof config.incarnation);
    prng_seed(&load.prng, bytes_load_u64(config.incarnation));
    load.session = client_session_create(&config);
    client_session_on_connected(load.session, now_ms());
    while (!client_session_is_welcome(load.session)) {
        exchange(&load);
    }
    const uint64_t started_ns = now_ns();
    const uint32_t before = load.settled;
    while (load.settled < settings->task_count) {
        exchange(&load);
    }
    const double seconds = (double)(now_ns() - started_ns) / 1e9;
    struct figures figures = {.tasks_per_second = (settings->task_count - before) / seconds,
                              .batch = (double)load.submitted / (double)load.submit_messages};
    client_session_destroy(&load.session);
    zmq_close(load.socket);
    zmq_ctx_term(context);
    return figures;
}

static double self_cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return cpu_us(&usage);
}

static void settings_arguments(const struct settings *settings, char in_flight[16], char body[16])
{
    snprintf(in_flight, 16, "%" PRIu32, settings->in_flight);
    snprintf(body, 16, "%" PRIu32, settings->body_size);
}

static struct figures run_mesh(const char *self, const struct settings *settings)
{
    char in_flight[16];
    char body[16];
    settings_arguments(settings, in_flight, body);
    struct child treadled = start_broker();
    const char *const worker_arguments[] = {self,      "worker", treadled.endpoint,
                                            in_flight, body,     NULL};
    const struct child worker = start(worker_arguments, false);
    const double before_us = self_cpu_us();
    struct figures figures = run_client(treadled.endpoint, settings);
    figures.client_us = (self_cpu_us() - before_us) / settings->task_count;
    figures.worker_us = stop(&worker) / settings->task_count;
    figures.broker_us = stop(&treadled) / settings->task_count;
    return figures;
}

/* ---- the relay ---- */

#define PEER_ID_SIZE 5 /* what a ROUTER gives a peer that chose none */

static void *bind_relay(void *context)
{
    void *router = zmq_socket(context, ZMQ_ROUTER);
    const int watermark = 0;
    const int one = 1;
    char endpoint[ENDPOINT_MAX];
    size_t size = sizeof endpoint;
    serve_curve(router);
    if (zmq_setsockopt(router, ZMQ_SNDHWM, &watermark, sizeof watermark) != 0 ||
        zmq_setsockopt(router, ZMQ_RCVHWM, &watermark, sizeof watermark) != 0 ||
        zmq_setsockopt(router, ZMQ_ROUTER_MANDATORY, &one, sizeof one) != 0 ||
        zmq_bind(router, "tcp://127.0.0.1:*") != 0 ||
        zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &size) != 0) {
        fail("relay");
    }
    printf("listening %s\n", endpoint);
    fflush(stdout);
    return router;
}

static void relay_receive(void *router, uint8_t peer[PEER_ID_SIZE], zmq_msg_t *body)
{
    zmq_msg_init(body);
    if (zmq_recv(router, peer, PEER_ID_SIZE, 0) != PEER_ID_SIZE ||
        zmq_msg_recv(body, router, 0) < 0) {
        fail("relay");
    }
}

static void relay_send(void *router, const uint8_t peer[PEER_ID_SIZE], zmq_msg_t *body)
{
    if (zmq_send(router, peer, PEER_ID_SIZE, ZMQ_SNDMORE) < 0 ||
        zmq_msg_send(body, router, 0) < 0) {
        fail("relay");
    }
}

/* Passes messages between its first two peers, whichever they are. Each greets with an empty
 * message, and gets it back once the other one has greeted too. */
static void run_relay(void)
{
    void *router = bind_relay(zmq_ctx_new());
    uint8_t peers[2][PEER_ID_SIZE];
    zmq_msg_t greetings[2];
    for (int i = 0; i < 2; i++) {
        relay_receive(router, peers[i], &greetings[i]);
    }
    for (int i = 0; i < 2; i++) {
        relay_send(router, peers[i], &greetings[i]);
    }
    for (;;) {
        uint8_t peer[PEER_ID_SIZE];
        zmq_msg_t body;
        relay_receive(router, peer, &body);
        relay_send(router, memcmp(peers[0], peer, PEER_ID_SIZE) == 0 ? peers[1] : peers[0], &body);
    }
}

static void *join_relay(void *context, const char *endpoint)
{
    void *socket = open_dealer(context, endpoint);
    const int patience_ms = PATIENCE_MS;
    uint8_t greeting = 0;
    if (zmq_setsockopt(socket, ZMQ_RCVTIMEO, &patience_ms, sizeof patience_ms) != 0 ||
        zmq_send(socket, "", 0, 0) < 0 || zmq_recv(socket, &greeting, sizeof greeting, 0) != 0) {
        fail("the relay is silent");
    }
    return socket;
}

static void run_echo(const char *endpoint)
{
    void *socket = join_relay(zmq_ctx_new(), endpoint);
    for (;;) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket, 0) < 0 || zmq_msg_send(&part, socket, 0) < 0) {
            fail("echo");
        }
    }
}

static double relay_rate(const char *endpoint, const struct settings *settings, uint32_t batch)
{
    static uint8_t data[ENTRY_COUNT_MAX * BODY_MAX];
    void *context = zmq_ctx_new();
    void *socket = join_relay(context, endpoint);
    uint32_t sent = 0;
    uint32_t received = 0;
    const uint64_t started_ns = now_ns();
    while (received < settings->task_count) {
        while (sent < settings->task_count && sent - received + batch <= settings->in_flight) {
            if (zmq_send(socket, data, (size_t)batch * settings->body_size, 0) < 0) {
                fail("send");
            }
            sent += batch;
        }
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket, 0) < 0) {
            fail("the relay is silent");
        }
        received += (uint32_t)(zmq_msg_size(&part) / settings->body_size);
        zmq_msg_close(&part);
    }
    const double seconds = (double)(now_ns() - started_ns) / 1e9;
    zmq_close(socket);
    zmq_ctx_term(context);
    return received / seconds;
}

static struct figures run_bare(const char *self, const struct settings *settings, double batch)
{
    uint32_t whole_batch = (uint32_t)(batch + 0.5);
    if (whole_batch < 1) {
        whole_batch = 1;
    } else if (whole_batch > settings->in_flight) {
        whole_batch = settings->in_flight;
    }
    const char *const relay_arguments[] = {self, "relay", NULL};
    struct child relay = start(relay_arguments, true);
    const char *const echo_arguments[] = {self, "echo", relay.endpoint, NULL};
    const struct child echo = start(echo_arguments, false);
    const double before_us = self_cpu_us();
    struct figures figures = {.tasks_per_second = relay_rate(relay.endpoint, settings, whole_batch),
                              .batch = whole_batch};
    figures.client_us = (self_cpu_us() - before_us) / settings->task_count;
    figures.worker_us = stop(&echo) / settings->task_count;
    figures.broker_us = stop(&relay) / settings->task_count;
    return figures;
}

/* ---- rounds ---- */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_figures(const char *name, const struct figures *figures)
{
    printf("%-6s %9.0f tasks/s   %5.1f tasks a message   CPU us a task: client %.2f broker %.2f "
           "worker %.2f\n",
           name, figures->tasks_per_second, figures->batch, figures->client_us, figures->broker_us,
           figures->worker_us);
}

static double median(double *values, uint32_t count)
{
    qsort(values, count, sizeof values[0], by_value);
    return values[count / 2];
}

static void run_rounds(const char *self, const struct settings *settings)
{
    const uint32_t count = settings->round_count;
    double ratios[ROUNDS_MAX];
    double mesh_rates[ROUNDS_MAX];
    double bare_rates[ROUNDS_MAX];
    printf("%" PRIu32 " tasks a round, %" PRIu32 " in flight, %" PRIu32 " B, %s\n",
           settings->task_count, settings->in_flight, settings->body_size,
           settings->is_encrypted ? "CURVE" : "plain");
    for (uint32_t round = 0; round < count; round++) {
        const struct figures mesh = run_mesh(self, settings);
        const struct figures bare = run_bare(self, settings, mesh.batch);
        print_figures("mesh", &mesh);
        print_figures("relay", &bare);
        mesh_rates[round] = mesh.tasks_per_second;
        bare_rates[round] = bare.tasks_per_second;
        ratios[round] = mesh.tasks_per_second / bare.tasks_per_second;
        printf("round %" PRIu32 ": mesh / relay %.2f\n", round + 1, ratios[round]);
        fflush(stdout);
    }
    const double ratio = median(ratios, count);
    printf("mesh / relay: median %.2f (%.2f to %.2f, %" PRIu32 " rounds); medians %.0f and %.0f "
           "tasks/s\n",
           ratio, ratios[0], ratios[count - 1], count, median(mesh_rates, count),
           median(bare_rates, count));
}

static uint32_t number(const char *text, uint32_t max)
{
    const unsigned long value = strtoul(text, NULL, 10);
    return value == 0 || value > max ? max : (uint32_t)value;
}

/* Where the value of an option goes, and its largest one; NULL: no such option. */
static uint32_t *setting_of(struct settings *settings, const char *option, uint32_t *max)
{
    const struct {
        const char *option;
        uint32_t *setting;
        uint32_t max;
    } known[] = {{"--tasks", &settings->task_count, 100000000},
                 {"--in-flight", &settings->in_flight, 65536},
                 {"--body", &settings->body_size, BODY_MAX},
                 {"--batch", &settings->batch, ENTRY_COUNT_MAX},
                 {"--rounds", &settings->round_count, ROUNDS_MAX}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(option, known[i].option) == 0) {
            *max = known[i].max;
            return known[i].setting;
        }
    }
    return NULL;
}

static void read_settings(int count, char **arguments, struct settings *settings)
{
    for (int i = 1; i < count; i++) {
        uint32_t max = 0;
        uint32_t *setting = setting_of(settings, arguments[i], &max);
        if (strcmp(arguments[i], "--quick") == 0) {
            settings->task_count = 100000;
            settings->round_count = 3;
        } else if (strcmp(arguments[i], "--curve") == 0) {
            make_curve();
            settings->is_encrypted = true;
        } else if (setting != NULL && i + 1 < count) {
            i++;
            *setting = number(arguments[i], max);
        } else {
            fprintf(stderr, "bench_mesh: %s: not understood\n", arguments[i]);
            _exit(64);
        }
    }
}

int main(int count, char **arguments)
{
    struct settings settings = {
        .task_count = 300000, .in_flight = 1000, .body_size = 128, .batch = 64, .round_count = 5};
    const char *self = self_path();
    if (sodium_init() < 0) {
        fail("start");
    }
    (void)take_curve();
    if (count == 5 && strcmp(arguments[1], "worker") == 0) {
        run_worker(arguments[2], "bench.noop", number(arguments[3], 65536),
                   number(arguments[4], BODY_MAX));
    } else if (count == 2 && strcmp(arguments[1], "relay") == 0) {
        run_relay();
    } else if (count == 3 && strcmp(arguments[1], "echo") == 0) {
        run_echo(arguments[2]);
    } else {
        read_settings(count, arguments, &settings);
        run_rounds(self, &settings);
    }
    return EXIT_SUCCESS;
}
