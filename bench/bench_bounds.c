/* SPDX-License-Identifier: MPL-2.0 */
/*
 * One client's round trips while the broker has something large to do: a million timers due in one
 * tick, a listing of a million tasks, the end of a session with 10,000 leases. Prints the round
 * trip before and meanwhile, and the ratio.
 *
 *     bench_bounds [--tasks N] [--leases N]
 */
#define _GNU_SOURCE
#include "bench/peers.h"
#include "client/session.h"
#include "common/base/bytes.h"
#include "common/base/prng.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PINGS_BEFORE 3000U
#define PING_MAX     200000U
#define BATCH        512U

struct peer {
    struct client_session *session;
    void *socket;
    struct prng prng;
    uint32_t accepted;
    uint32_t settled;
    struct client_event *answer;
};

static void open_peer(struct peer *peer, const char *endpoint, const char *name)
{
    *peer = (struct peer){.socket = open_dealer(zmq_ctx_new(), endpoint)};
    struct client_session_config config = {
        .name = bytes_from_text(name), .seed = 1, .in_flight_max = 1U << 21};
    randombytes_buf(config.incarnation, sizeof config.incarnation);
    prng_seed(&peer->prng, bytes_load_u64(config.incarnation));
    peer->session = client_session_create(&config);
    client_session_on_connected(peer->session, now_ms());
}

static void take_events(struct peer *peer)
{
    struct client_event *event = NULL;
    while ((event = client_session_take_event(peer->session, NULL, NULL)) != NULL) {
        peer->settled += event->kind == CLIENT_EVENT_SETTLED ? 1 : 0;
        peer->accepted += event->kind == CLIENT_EVENT_ACCEPTED ? 1 : 0;
        if (event->kind == CLIENT_EVENT_ANSWER && peer->answer == NULL) {
            peer->answer = event;
            continue;
        }
        client_event_destroy(&event);
    }
}

static void pump(struct peer *peer, bool waits)
{
    static struct received received;
    client_session_on_time(peer->session, now_ms());
    const struct wire_frames *frames = NULL;
    while ((frames = client_session_take_message(peer->session, now_ms())) != NULL) {
        send_frames(peer->socket, frames);
    }
    if (waits) {
        wait_readable(peer->socket, client_session_next_at_ms(peer->session));
    }
    while (receive(peer->socket, &received)) {
        struct message message;
        if (decode(&received, &message)) {
            (void)client_session_on_message(peer->session, now_ms(), &message);
        }
        release(&received);
    }
    take_events(peer);
}

static void submit(struct peer *peer, const struct wire_submit_template *fields, uint32_t tell)
{
    struct client_submission submission = {.fields = fields, .tell = tell};
    bytes_store_u64(submission.id.bytes, prng_next(&peer->prng));
    bytes_store_u64(submission.id.bytes + 8, prng_next(&peer->prng));
    if (client_session_submit(peer->session, now_ms(), &submission) != TREADLE_OK) {
        fail("submit");
    }
}

/* Submits and waits for the outcome; ns. */
static uint64_t ping(struct peer *peer)
{
    static const struct wire_submit_template fields = {.service = {(const uint8_t *)"ping", 4},
                                                       .task = {(const uint8_t *)"pong", 4},
                                                       .flags = SUBMIT_WATCH};
    const uint64_t started_ns = now_ns();
    const uint32_t before = peer->settled;
    submit(peer, &fields, 0);
    while (peer->settled == before) {
        pump(peer, true);
    }
    return now_ns() - started_ns;
}

/* The service's row, by a question. */
static struct wire_service_row ask_service(struct peer *peer, const char *name)
{
    struct message query = {.kind = MESSAGE_SERVICE_QUERY};
    query.as.service_query.name = bytes_from_text(name);
    uint64_t request = 0;
    if (client_session_request(peer->session, &query, &request) != TREADLE_OK) {
        fail("query");
    }
    while (peer->answer == NULL) {
        pump(peer, true);
    }
    struct wire_service_row row = {0};
    struct wire_list rows = peer->answer->answer->as.service_info.rows;
    (void)wire_service_row_next(&rows, &row);
    client_event_destroy(&peer->answer);
    return row;
}

static void submit_many(struct peer *peer, const struct wire_submit_template *fields,
                        uint32_t count)
{
    for (uint32_t done = 0; done < count; done += BATCH) {
        for (uint32_t i = 0; i < BATCH && done + i < count; i++) {
            submit(peer, fields, CLIENT_TELL_ACCEPTED);
        }
        pump(peer, false);
    }
    while (peer->accepted < count) {
        pump(peer, true);
    }
    peer->accepted = 0;
}

/* ---- round trips ---- */

struct trips {
    uint64_t ns[PING_MAX];
    uint32_t count;
};

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double quantile_us(struct trips *trips, double quantile)
{
    qsort(trips->ns, trips->count, sizeof trips->ns[0], by_value);
    return (double)trips->ns[(uint32_t)(quantile * (trips->count - 1))] / 1000.0;
}

static void print_trips(const char *what, struct trips *trips, const double before[2])
{
    if (trips->count == 0) {
        printf("%-32s no round trip fell into it\n", what);
        return;
    }
    const double median = quantile_us(trips, 0.5);
    const double p99 = quantile_us(trips, 0.99);
    printf("%-32s %6" PRIu32 " round trips  median %7.0f us  p99 %7.0f us  max %7.0f us", what,
           trips->count, median, p99, quantile_us(trips, 1.0));
    if (before != NULL) {
        printf("  median x %.1f  p99 x %.1f", median / before[0], p99 / before[1]);
    }
    printf("\n");
}

static void note_trip(struct trips *trips, struct peer *peer)
{
    if (trips->count < PING_MAX) {
        trips->ns[trips->count] = ping(peer);
        trips->count++;
    }
}

static void measure_idle(struct peer *peer, struct trips *trips, double before[2])
{
    trips->count = 0;
    for (uint32_t i = 0; i < PINGS_BEFORE; i++) {
        note_trip(trips, peer);
    }
    before[0] = quantile_us(trips, 0.5);
    before[1] = quantile_us(trips, 0.99);
}

/* ---- a million timers in one tick ---- */

static void measure_timers(struct peer *peer, const char *endpoint, uint32_t count,
                           struct trips *trips, const double before[2])
{
    struct peer load;
    open_peer(&load, endpoint, "load");
    const uint64_t due_at_ms = now_ms() + 5000 + count / 20;
    for (uint32_t done = 0; done < count;) {
        /* the delay of each message shrinks as time passes, so all end at about the same instant */
        const struct wire_submit_template fields = {.service = bytes_from_text("bulk"),
                                                    .task = bytes_from_text("delayed"),
                                                    .delay_ms = due_at_ms - now_ms()};
        const uint32_t chunk = count - done < BATCH ? count - done : BATCH;
        submit_many(&load, &fields, chunk);
        done += chunk;
    }
    if (now_ms() >= due_at_ms) {
        fail("submitting took longer than the delay");
    }
    while (now_ms() + 2 < due_at_ms) {
        pump(&load, false);
        pump(peer, false);
        usleep(1000);
    }
    trips->count = 0;
    do {
        for (int i = 0; i < 4; i++) {
            note_trip(trips, peer);
        }
    } while (ask_service(peer, "bulk").scheduled > 0);
    print_trips("timers due in one tick", trips, before);
    client_session_destroy(&load.session);
    zmq_close(load.socket);
}

/* ---- a listing of them all ---- */

static void list_without_end(const char *endpoint)
{
    struct peer peer;
    open_peer(&peer, endpoint, "lister");
    for (;;) {
        struct message query = {.kind = MESSAGE_TASK_LIST};
        query.as.task_list.state = 1 + TASK_CANCELLED; /* none is: each answer looks at them all */
        query.as.task_list.count_max = 1000;
        uint64_t request = 0;
        if (client_session_request(peer.session, &query, &request) != TREADLE_OK) {
            fail("query");
        }
        while (peer.answer == NULL) {
            pump(&peer, true);
        }
        client_event_destroy(&peer.answer);
    }
}

static struct child start_self(const char *mode, const char *endpoint)
{
    const char *const arguments[] = {self_path(), mode, endpoint, NULL};
    return start(arguments, false);
}

static void measure_listing(struct peer *peer, const char *endpoint, struct trips *trips,
                            const double before[2])
{
    const struct child lister = start_self("list", endpoint);
    usleep(300000);
    trips->count = 0;
    for (uint32_t i = 0; i < PINGS_BEFORE; i++) {
        note_trip(trips, peer);
    }
    print_trips("listings of all tasks", trips, before);
    (void)stop(&lister);
}

/* ---- a lost session ---- */

/* A worker that takes all it is given and answers nothing. */
static void measure_lost(struct peer *peer, const char *endpoint, uint32_t leases,
                         struct trips *trips, const double before[2])
{
    struct peer load;
    char slots[16];
    (void)snprintf(slots, sizeof slots, "%" PRIu32, leases);
    const char *const arguments[] = {self_path(), "hold", endpoint, slots, NULL};
    const struct child holder = start(arguments, false);
    open_peer(&load, endpoint, "load");
    const struct wire_submit_template fields = {.service = bytes_from_text("held"),
                                                .task = bytes_from_text("task")};
    submit_many(&load, &fields, leases);
    while (ask_service(peer, "held").running < leases) {
        usleep(1000);
    }
    (void)stop(&holder);
    trips->count = 0;
    while (ask_service(peer, "held").running == leases) {
        usleep(200);
    }
    do {
        note_trip(trips, peer);
    } while (ask_service(peer, "held").running > 0);
    print_trips("leases of a lost session", trips, before);
}

static uint32_t option(int count, char **arguments, const char *name, uint32_t value)
{
    for (int i = 1; i + 1 < count; i++) {
        if (strcmp(arguments[i], name) == 0) {
            return (uint32_t)strtoul(arguments[i + 1], NULL, 10);
        }
    }
    return value;
}

static void run_all(uint32_t tasks, uint32_t leases)
{
    static struct trips trips;
    double before[2];
    const struct child broker = start_broker();
    const struct child worker = start_self("worker", broker.endpoint);
    struct peer peer;
    open_peer(&peer, broker.endpoint, "pinger");
    measure_idle(&peer, &trips, before); /* the first warms up */
    measure_idle(&peer, &trips, before);
    print_trips("nothing else", &trips, NULL);
    measure_lost(&peer, broker.endpoint, leases, &trips, before);
    measure_timers(&peer, broker.endpoint, tasks, &trips, before);
    measure_listing(&peer, broker.endpoint, &trips, before);
    (void)stop(&worker);
    (void)stop(&broker);
}

int main(int count, char **arguments)
{
    if (sodium_init() < 0) {
        fail("start");
    }
    if (count == 3 && strcmp(arguments[1], "worker") == 0) {
        run_worker(arguments[2], "ping.pong", 4, 0);
    } else if (count == 3 && strcmp(arguments[1], "list") == 0) {
        list_without_end(arguments[2]);
    } else if (count == 4 && strcmp(arguments[1], "hold") == 0) {
        hold_leases(arguments[2], "held.task", (uint32_t)strtoul(arguments[3], NULL, 10));
    } else {
        run_all(option(count, arguments, "--tasks", 1000000 - 20000),
                option(count, arguments, "--leases", 10000));
    }
    return EXIT_SUCCESS;
}
