/* SPDX-License-Identifier: MPL-2.0 */
/* One history: faults for a while, then a calm in which everything must settle. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

#define LOOK_MS 100u /* how often the calm is looked at */

/* X(NAME, the option that spaces it) */
#define FAULTS(X)                                                                                  \
    X(FAULT_CUT, cut_gap_ms)                                                                       \
    X(FAULT_PARTITION, partition_gap_ms)                                                           \
    X(FAULT_WORKER_DEATH, worker_death_gap_ms)                                                     \
    X(FAULT_CLIENT_DEATH, client_death_gap_ms)                                                     \
    X(FAULT_STOP, stop_gap_ms)                                                                     \
    X(FAULT_BROKER_STALL, broker_stall_gap_ms)                                                     \
    X(FAULT_OUTAGE, outage_gap_ms)                                                                 \
    X(FAULT_BROKER_DEATH, broker_death_gap_ms)

#define FAULT_VALUE(name, gap) name,
enum fault { FAULTS(FAULT_VALUE) FAULT_COUNT };
#undef FAULT_VALUE

/* ---- faults ---- */

static void fault_later(struct sim *sim, enum fault fault)
{
    const uint32_t gaps[FAULT_COUNT] = {
#define FAULT_GAP(name, gap) [name] = sim->options.gap,
        FAULTS(FAULT_GAP)
#undef FAULT_GAP
    };
    TREADLE_ASSERT((unsigned)fault < FAULT_COUNT);
    if (gaps[fault] > 0) {
        sim_at(sim, sim->now_ms + 1 + sim_below(sim, 2 * gaps[fault]), EVENT_FAULT, 0, fault);
    }
}

static struct peer *random_worker(struct sim *sim)
{
    return &sim->peers[sim_below(sim, sim->options.workers)];
}

static struct peer *random_client(struct sim *sim)
{
    return &sim->peers[WORKER_COUNT_MAX + sim_below(sim, sim->options.clients)];
}

static struct peer *random_peer(struct sim *sim)
{
    return sim_percent(sim, 50) ? random_worker(sim) : random_client(sim);
}

static bool is_silent(struct sim *sim)
{
    return sim_percent(sim, sim->options.silent_cut_percent);
}

static void cut_some(struct sim *sim)
{
    const struct peer *peer = random_peer(sim);
    if (peer->is_up && peer->connection != NONE &&
        sim->connections[peer->connection].serial == peer->connection_serial) {
        sim_tell(sim, "the connection of %s is cut", peer->name);
        network_cut(sim, peer->connection, is_silent(sim));
    }
}

static void kill_peer(struct sim *sim, struct peer *peer)
{
    if (!peer->is_up) {
        return;
    }
    network_leave(sim, peer, is_silent(sim));
    if (peer->worker != NULL) {
        worker_stop(sim, peer);
    } else {
        client_stop(sim, peer);
    }
    sim_at(sim, sim->now_ms + 20 + sim_below(sim, 4000), EVENT_RESTART, peer->number, 0);
}

static void on_fault(struct sim *sim, enum fault fault)
{
    if (sim->is_calm) {
        return;
    }
    struct peer *peer = random_peer(sim);
    switch (fault) {
    case FAULT_CUT:
        cut_some(sim);
        break;
    case FAULT_PARTITION:
        peer->apart_until_ms = sim->now_ms + 1 + sim_below(sim, sim->options.partition_ms);
        peer->holds_when_apart = sim_percent(sim, 50);
        break;
    case FAULT_WORKER_DEATH:
        kill_peer(sim, random_worker(sim));
        break;
    case FAULT_CLIENT_DEATH:
        kill_peer(sim, random_client(sim));
        break;
    case FAULT_STOP:
        peer->stopped_until_ms = sim->now_ms + 1 + sim_below(sim, sim->options.stop_ms);
        sim_tell(sim, "%s is stopped for %u ms", peer->name,
                 (unsigned)(peer->stopped_until_ms - sim->now_ms));
        break;
    case FAULT_BROKER_STALL:
        sim->broker.stalled_until_ms =
            sim->now_ms + 1 + sim_below(sim, sim->options.broker_stall_ms);
        break;
    case FAULT_OUTAGE:
        sim->outage_until_ms[sim_below(sim, sim->options.services)] =
            sim->now_ms + sim_below(sim, sim->options.outage_ms);
        break;
    case FAULT_BROKER_DEATH:
        broker_restart(sim, sim_below(sim, sim->options.broker_down_ms + 1));
        break;
    case FAULT_COUNT:
        break;
    }
    fault_later(sim, fault);
}

/* ---- the beginning ---- */

static void open_peers(struct sim *sim)
{
    for (uint32_t i = 0; i < PEER_COUNT_MAX; i++) {
        struct peer *peer = &sim->peers[i];
        const bool is_worker = i < WORKER_COUNT_MAX;
        const uint32_t number = is_worker ? i : i - WORKER_COUNT_MAX;
        *peer = (struct peer){.number = i, .connection = NONE};
        (void)snprintf(peer->name, sizeof peer->name, "%s%u", is_worker ? "worker" : "client",
                       number);
        (void)snprintf(peer->principal, sizeof peer->principal, "p%u",
                       is_worker ? 0 : number % sim->options.principals);
        if (number < (is_worker ? sim->options.workers : sim->options.clients)) {
            sim_at(sim, sim->now_ms + sim_below(sim, 200), EVENT_RESTART, i, 0);
        }
    }
    for (uint32_t i = 0; i < sim->options.clients; i++) {
        sim_at(sim, sim->now_ms + sim_below(sim, 400), EVENT_APPLICATION, WORKER_COUNT_MAX + i, 0);
    }
}

static void open_history(struct sim *sim, uint64_t seed)
{
    sim->seed = seed;
    options_draw(&sim->options, seed);
    prng_seed(&sim->prng, seed);
    sim->now_ms = STARTED_AT_MS;
    sim->is_calm = false;
    sim->job_count = 0;
    sim->job_count_max = sim->options.tasks;
    sim->concluded_count = 0;
    sim->next_serial = 0;
    sim->next_life = 0;
    memset(sim->connections, 0, sizeof sim->connections);
    memset(sim->outage_until_ms, 0, sizeof sim->outage_until_ms);
    if (sim->runs == NULL) {
        sim->runs = calloc(LEASE_COUNT_MAX, sizeof *sim->runs);
        TREADLE_ASSERT(sim->runs != NULL);
    }
    event_queue_reset(&sim->queue);
    oracle_reset(&sim->oracle);
    broker_open(sim);
    sim->peer_count = PEER_COUNT_MAX;
    open_peers(sim);
    for (int fault = 0; fault < FAULT_COUNT; fault++) {
        fault_later(sim, (enum fault)fault);
    }
    sim->calm_at_ms = sim->now_ms + sim->options.fault_ms;
    sim_at(sim, sim->calm_at_ms, EVENT_CALM, 0, 0);
}

static void tell_counters(const struct sim *sim)
{
    const struct counters *counters = &sim->broker.core->counters;
#define TELL_COUNTER(name) sim_tell(sim, "counter %s %" PRIu64, #name, counters->name);
    COUNTERS(TELL_COUNTER)
#undef TELL_COUNTER
}

static void close_history(struct sim *sim)
{
    tell_counters(sim);
    for (uint32_t i = 0; i < PEER_COUNT_MAX; i++) {
        worker_session_destroy(&sim->peers[i].worker);
        client_session_destroy(&sim->peers[i].client);
    }
    broker_close(sim);
}

void history_free(struct sim *sim)
{
    event_queue_free(&sim->queue);
    oracle_free(&sim->oracle);
    free(sim->runs);
    sim->runs = NULL;
}

/* ---- the calm ---- */

static void begin_calm(struct sim *sim)
{
    sim_tell(sim, "calm");
    sim->is_calm = true;
    sim->options.latency_ms = sim->options.latency_ms < 3 ? sim->options.latency_ms : 3;
    sim->broker.stalled_until_ms = 0;
    sim->broker.down_until_ms = 0;
    for (uint32_t i = 0; i < PEER_COUNT_MAX; i++) {
        sim->peers[i].apart_until_ms = 0;
        sim->peers[i].stopped_until_ms = 0;
    }
}

static const char *peer_unrest(const struct sim *sim, const struct peer *peer)
{
    if (!peer->is_up) {
        return "a process that is not up";
    }
    return peer->worker != NULL ? worker_unrest(sim, peer) : client_unrest(sim, peer);
}

static bool is_in_play(const struct sim *sim, uint32_t number)
{
    return number < WORKER_COUNT_MAX ? number < sim->options.workers
                                     : number - WORKER_COUNT_MAX < sim->options.clients;
}

/* What is not at rest yet; NULL: nothing. */
static const char *unrest(struct sim *sim)
{
    for (uint32_t i = 0; i < PEER_COUNT_MAX; i++) {
        const char *why = is_in_play(sim, i) ? peer_unrest(sim, &sim->peers[i]) : NULL;
        if (why != NULL) {
            return why;
        }
    }
    const char *why = broker_unrest(sim);
    return why != NULL ? why : oracle_unrest(sim);
}

/* True: the history is over. */
static bool on_calm(struct sim *sim, uint64_t phase)
{
    if (!sim->is_calm) {
        begin_calm(sim);
    }
    const char *why = unrest(sim);
    if (why == NULL && phase == 1) {
        return true;
    }
    if (why == NULL) {
        sim_tell(sim, "all is settled; the last tasks");
        for (uint32_t i = 0; i < sim->options.clients; i++) {
            client_submit_last(sim, &sim->peers[WORKER_COUNT_MAX + i]);
        }
        phase = 1;
    }
    if (sim->now_ms > sim->calm_at_ms + CALM_MS) {
        sim_violation(sim, "not settled %u s into the calm%s: %s", CALM_MS / 1000,
                      phase == 1 ? " (the last tasks)" : "", why);
    }
    sim_at(sim, sim->now_ms + LOOK_MS, EVENT_CALM, 0, phase);
    return false;
}

/* ---- events ---- */

static void on_restart(struct sim *sim, struct peer *peer)
{
    if (peer->is_up) {
        return;
    }
    if (peer->number < WORKER_COUNT_MAX) {
        worker_start(sim, peer);
    } else {
        client_start(sim, peer);
    }
}

static void on_application(struct sim *sim, struct peer *peer)
{
    if (peer->is_up) {
        client_act(sim, peer);
    }
    const uint32_t gap_ms = sim->is_calm ? 200 : sim->options.app_gap_ms;
    sim_at(sim, sim->now_ms + 1 + sim_below(sim, 2 * gap_ms), EVENT_APPLICATION, peer->number, 0);
}

static void on_wake_peer(struct sim *sim, const struct event *event)
{
    struct peer *peer = &sim->peers[event->place];
    if (!peer->is_up || peer->life != event->number || sim->now_ms < peer->wake_at_ms) {
        return;
    }
    peer->wake_at_ms = UINT64_MAX;
    if (peer->worker != NULL) {
        worker_session_on_time(peer->worker, sim->now_ms);
        worker_run(sim, peer);
    } else {
        client_session_on_time(peer->client, sim->now_ms);
        client_run(sim, peer);
    }
}

static void on_packet(struct sim *sim, struct peer *peer, const struct event *event)
{
    const enum wire_status status =
        message_decode(&sim->decoded, &event->packet->frames, &wire_limits_protocol);
    TREADLE_ASSERT(status == WIRE_OK); /* the broker's node has looked */
    if (peer->worker != NULL) {
        worker_session_on_message(peer->worker, sim->now_ms, &sim->decoded);
        worker_run(sim, peer);
    } else {
        (void)client_session_on_message(peer->client, sim->now_ms, &sim->decoded);
        client_run(sim, peer);
    }
}

/* The peer that the event is for; NULL: none, or the process is another by now. */
static struct peer *peer_of(struct sim *sim, const struct event *event)
{
    switch (event->kind) {
    case EVENT_TO_PEER: {
        const struct connection *connection = &sim->connections[event->place];
        struct peer *peer = &sim->peers[connection->peer];
        const bool is_theirs = network_is_current(sim, event) && peer->is_up &&
                               peer->life == connection->life && peer->connection == event->place;
        return is_theirs ? peer : NULL;
    }
    case EVENT_WAKE_PEER:
    case EVENT_HANDLER_START:
    case EVENT_HANDLER_PROGRESS:
    case EVENT_HANDLER_END:
    case EVENT_APPLICATION:
    case EVENT_CONNECT:
        return &sim->peers[event->place];
    case EVENT_TO_BROKER:
    case EVENT_BROKER_CUT:
    case EVENT_PEER_CUT:
    case EVENT_WAKE_BROKER:
    case EVENT_DURABLE:
    case EVENT_ROUND_END:
    case EVENT_RESTART:
    case EVENT_FAULT:
    case EVENT_CALM:
        break;
    }
    return NULL;
}

static bool is_for_broker(enum event_kind kind)
{
    return kind == EVENT_TO_BROKER || kind == EVENT_BROKER_CUT || kind == EVENT_WAKE_BROKER ||
           kind == EVENT_DURABLE || kind == EVENT_ROUND_END;
}

/* True: whom it is for gets no time now; it waits. */
static bool is_put_off(struct sim *sim, struct event *event, const struct peer *peer)
{
    uint64_t until_ms = 0;
    if (peer != NULL) {
        until_ms = peer->stopped_until_ms;
    } else if (is_for_broker(event->kind)) {
        until_ms = sim->broker.stalled_until_ms;
    }
    if (sim->now_ms >= until_ms) {
        return false;
    }
    event->at_ms = until_ms;
    event_queue_add(&sim->queue, *event);
    return true;
}

static void on_broker_event(struct sim *sim, const struct event *event)
{
    const bool is_of_connection = event->kind == EVENT_TO_BROKER || event->kind == EVENT_BROKER_CUT;
    if (!is_of_connection && event->place != sim->broker.life) {
        return; /* of a broker that has died */
    }
    if (event->kind == EVENT_TO_BROKER) {
        if (network_is_current(sim, event)) {
            broker_on_packet(sim, event);
        }
    } else if (event->kind == EVENT_BROKER_CUT) {
        broker_on_cut(sim, event);
    } else if (event->kind == EVENT_DURABLE) {
        broker_on_durable(sim, event->number);
    } else if (event->kind == EVENT_ROUND_END) {
        broker_on_round_end(sim);
    } else if (sim->now_ms >= sim->broker.wake_at_ms) {
        broker_on_time(sim);
    }
}

static void on_peer_event(struct sim *sim, struct peer *peer, const struct event *event)
{
    if (event->kind == EVENT_TO_PEER) {
        on_packet(sim, peer, event);
    } else if (event->kind == EVENT_WAKE_PEER) {
        on_wake_peer(sim, event);
    } else if (event->kind == EVENT_APPLICATION) {
        on_application(sim, peer);
    } else if (event->kind == EVENT_CONNECT) {
        network_on_connect(sim, event);
    } else {
        worker_on_handler(sim, event);
    }
}

/* True: the history is over. */
static bool on_event(struct sim *sim, struct event *event)
{
    struct peer *peer = peer_of(sim, event);
    if (is_put_off(sim, event, peer)) {
        return false;
    }
    bool is_over = false;
    sim->event_count++;
    if (is_for_broker(event->kind)) {
        on_broker_event(sim, event);
    } else if (peer != NULL) {
        on_peer_event(sim, peer, event);
    } else if (event->kind == EVENT_PEER_CUT) {
        network_on_peer_cut(sim, event);
    } else if (event->kind == EVENT_RESTART) {
        on_restart(sim, &sim->peers[event->place]);
    } else if (event->kind == EVENT_FAULT) {
        on_fault(sim, (enum fault)event->number);
    } else if (event->kind == EVENT_CALM) {
        is_over = on_calm(sim, event->number);
    }
    packet_give(&sim->queue, event->packet);
    return is_over;
}

void history_run(struct sim *sim, uint64_t seed)
{
    open_history(sim, seed);
    struct event event;
    bool is_over = false;
    while (!is_over && event_queue_take(&sim->queue, &event)) {
        TREADLE_ASSERT(event.at_ms >= sim->now_ms);
        sim->now_ms = event.at_ms;
        is_over = on_event(sim, &event);
    }
    TREADLE_ASSERT(is_over);
    close_history(sim);
}
