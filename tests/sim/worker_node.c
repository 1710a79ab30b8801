/* SPDX-License-Identifier: MPL-2.0 */
/* A worker's process: its session, and handlers that succeed, fail, hang, crash and show progress
 * as the seed has it. */
#include <stdio.h>

#include "tests/sim/sim.h"
#include "tests/support/canary.h"

#define HANG_MS 4000u

/* ---- life ---- */

/* Worker 0 serves everything, so that no task waits for ever. */
static uint32_t make_serves(struct sim *sim, const struct peer *peer, char patterns[][32],
                            struct wire_serve *serves)
{
    uint32_t count = 0;
    for (uint32_t service = 0; service < sim->options.services; service++) {
        for (uint32_t kind = 0; kind < KIND_COUNT; kind++) {
            const bool is_whole = peer->number == 0 || (peer->life + service) % 3 == 0;
            if (!is_whole && (peer->life + service + kind) % 2 == 0) {
                continue;
            }
            if (is_whole) {
                (void)snprintf(patterns[count], 32, "svc%u.*", service);
            } else {
                (void)snprintf(patterns[count], 32, "svc%u.t%u", service, kind);
            }
            serves[count] = (struct wire_serve){.pattern = bytes_from_text(patterns[count])};
            serves[count].worker_policy.grace_ms = sim->options.worker_grace_ms;
            count++;
            if (is_whole) {
                break;
            }
        }
    }
    if (count == 0) {
        (void)snprintf(patterns[0], 32, "svc0.t0");
        serves[0] = (struct wire_serve){.pattern = bytes_from_text(patterns[0])};
        count = 1;
    }
    return count;
}

void worker_start(struct sim *sim, struct peer *peer)
{
    char patterns[SERVICE_COUNT_MAX * KIND_COUNT][32];
    struct wire_serve serves[SERVICE_COUNT_MAX * KIND_COUNT];
    peer->life = ++sim->next_life;
    peer->slots = 1 + sim_below(sim, sim->options.slots + 1);
    struct worker_session_config config = {
        .name = bytes_from_text(peer->name),
        .host = bytes_from_text("host"),
        .slots = peer->slots,
        .prefetch_max = sim->options.prefetch,
        .drain_ms = 2000,
        .serves = serves,
        .serve_count = make_serves(sim, peer, patterns, serves),
    };
    memcpy(config.incarnation, &peer->life, sizeof peer->life);
    peer->worker = worker_session_create(&config, sim->now_ms);
    if (peer->worker == NULL) {
        sim_violation(sim, "no memory for a worker");
    }
    worker_session_set_room(peer->worker, peer->slots * (1 + sim->options.handoff));
    peer->is_up = true;
    peer->connection = NONE;
    peer->wake_at_ms = UINT64_MAX;
    peer->stopped_until_ms = 0;
    sim_tell(sim, "%s starts as life %u with %u slots", peer->name, (unsigned)peer->life,
             peer->slots);
    network_connect_later(sim, peer, sim_below(sim, 50));
}

void worker_stop(struct sim *sim, struct peer *peer)
{
    sim_tell(sim, "%s ends", peer->name);
    worker_session_destroy(&peer->worker);
    peer->is_up = false;
    peer->running_count = 0;
    peer->waiting_count = 0;
    peer->life = 0; /* what its handlers still had to do is over */
}

/* ---- handlers ---- */

static void end_badly(struct sim *sim, struct run *run)
{
    static const enum failure_kind kinds[] = {FAILURE_PREPARE, FAILURE_PERMANENT,
                                              FAILURE_CRASH,   FAILURE_FINALIZE,
                                              FAILURE_TIMEOUT, FAILURE_CANCELLED};
    run->is_success = false;
    run->kind = FAILURE_TRANSIENT;
    run->choice = RETRY_BY_POLICY;
    if (sim_percent(sim, sim->options.all_kinds_percent)) {
        run->kind = kinds[sim_below(sim, sizeof kinds / sizeof kinds[0])];
    } else if (sim_percent(sim, 10)) {
        run->choice = sim_percent(sim, 50) ? RETRY_AFTER : RETRY_STOP;
    }
}

static uint64_t earlier(uint64_t a_ms, uint64_t b_ms)
{
    return a_ms < b_ms ? a_ms : b_ms;
}

/* Decides what the handler will do. */
static uint64_t plan(struct sim *sim, struct run *run, const struct worker_attempt *attempt,
                     uint32_t service)
{
    const struct options *options = &sim->options;
    uint64_t span_ms = sim_below(sim, options->handler_ms + 1);
    run->is_success = true;
    run->body_size = 8 + sim_below(sim, 40);
    if (sim_percent(sim, options->large_body_percent)) {
        run->body_size = 4000 + sim_below(sim, 200);
    }
    const bool fails =
        sim->now_ms < sim->outage_until_ms[service] || sim_percent(sim, options->fail_percent);
    const bool hangs = sim_percent(sim, options->hang_percent);
    run->is_stubborn = sim_percent(sim, options->stubborn_percent);
    if (fails && !sim->is_calm) {
        end_badly(sim, run);
    }
    if (hangs && !sim->is_calm) {
        span_ms = attempt->timeout_ms < HANG_MS ? 3 * attempt->timeout_ms : HANG_MS;
    }
    if (sim->is_calm) { /* in time, too */
        span_ms = earlier(span_ms, attempt->timeout_ms / 2);
        span_ms = attempt->progress_timeout_ms > 0
                      ? earlier(span_ms, attempt->progress_timeout_ms / 2)
                      : span_ms;
    }
    return span_ms;
}

/* A slot takes the attempt. */
static void begin(struct sim *sim, struct peer *peer, const struct worker_attempt *attempt)
{
    const uint32_t place = lease_place(&sim->oracle, attempt->lease);
    oracle_on_handler_start(sim, attempt->lease);
    struct run *run = &sim->runs[place];
    *run = (struct run){.lease = attempt->lease,
                        .life = peer->life,
                        .grace_ms = attempt->grace_ms,
                        .peer = peer->number,
                        .task = job_of_id(&attempt->id),
                        .is_running = true};
    peer->running_count++;
    const uint32_t service = sim->jobs[run->task].service;
    const uint64_t span_ms = plan(sim, run, attempt, service);
    const uint64_t start_ms = sim->now_ms + sim_below(sim, 2);
    run->end_at_ms = start_ms + span_ms;
    if (span_ms > 2 || sim_percent(sim, 50)) { /* the start of a short one need not be told */
        sim_at(sim, start_ms, EVENT_HANDLER_START, peer->number, attempt->lease);
    }
    sim_at(sim, run->end_at_ms, EVENT_HANDLER_END, peer->number, attempt->lease);
    if (span_ms > 1 && sim_percent(sim, sim->options.progress_percent)) {
        sim_at(sim, start_ms + span_ms / 2, EVENT_HANDLER_PROGRESS, peer->number, attempt->lease);
    }
    sim_tell(sim, "%s starts lease %u of task %u, for %u ms", peer->name, place, run->task,
             (unsigned)span_ms);
}

/* Takes a lease out of those that wait; false: it is not among them. */
static bool leave_waiting(struct peer *peer, uint64_t lease)
{
    uint32_t i = 0;
    while (i < peer->waiting_count && peer->waiting[i] != lease) {
        i++;
    }
    if (i == peer->waiting_count) {
        return false;
    }
    peer->waiting_count--;
    memmove(&peer->waiting[i], &peer->waiting[i + 1],
            (peer->waiting_count - i) * sizeof peer->waiting[0]);
    return true;
}

static void begin_waiting(struct sim *sim, struct peer *peer, uint64_t lease)
{
    if (leave_waiting(peer, lease)) {
        begin(sim, peer, sim->runs[lease_place(&sim->oracle, lease)].attempt);
    }
}

static void on_start(struct sim *sim, struct peer *peer, const struct worker_attempt *attempt)
{
    if (peer->running_count < peer->slots) {
        begin(sim, peer, attempt);
        return;
    }
    if (peer->waiting_count == WAITING_COUNT_MAX) {
        sim_violation(sim, "%s is told to start more than it has room for", peer->name);
    }
    sim->runs[lease_place(&sim->oracle, attempt->lease)].attempt = attempt;
    peer->waiting[peer->waiting_count++] = attempt->lease;
    sim_tell(sim, "%s has lease %u wait", peer->name, lease_place(&sim->oracle, attempt->lease));
}

/* Now and then a slot has taken it in the same moment. */
static void on_recall(struct sim *sim, struct peer *peer, uint64_t lease)
{
    const bool is_late = sim_percent(sim, 15);
    if (is_late) {
        begin_waiting(sim, peer, lease);
    }
    worker_session_on_recall(peer->worker, sim->now_ms, lease, leave_waiting(peer, lease));
}

/* A slot is free. One that crashed takes those with it that waited behind it: they are queued
 * again, not charged. */
static void on_slot_free(struct sim *sim, struct peer *peer, const struct run *run)
{
    peer->running_count--;
    if (!run->is_success && run->kind == FAILURE_CRASH) {
        for (uint32_t left = peer->waiting_count / 2; left > 0; left--) {
            const uint64_t lease = peer->waiting[sim_below(sim, peer->waiting_count)];
            (void)leave_waiting(peer, lease);
            worker_session_requeue(peer->worker, sim->now_ms, lease);
        }
    }
    if (peer->waiting_count > 0 && peer->running_count < peer->slots) {
        begin_waiting(sim, peer, peer->waiting[0]);
    }
}

static void end_at(struct sim *sim, struct run *run, uint64_t at_ms)
{
    run->end_at_ms = at_ms;
    sim_at(sim, at_ms, EVENT_HANDLER_END, run->peer, run->lease);
}

static void on_cancel(struct sim *sim, struct run *run)
{
    if (!run->is_running || run->is_stubborn) {
        return;
    }
    const uint64_t at_ms = sim->now_ms + sim_below(sim, (uint32_t)run->grace_ms / 2 + 2);
    if (at_ms < run->end_at_ms) {
        run->is_success = sim_percent(sim, 20);
        run->kind = FAILURE_TRANSIENT;
        end_at(sim, run, at_ms);
    }
}

static void on_kill(struct sim *sim, struct run *run)
{
    if (run->is_running) {
        run->is_success = sim_percent(sim, 10); /* it had just ended */
        run->kind = FAILURE_CRASH;
        end_at(sim, run, sim->now_ms + sim_below(sim, 3));
    }
}

static void succeed(struct sim *sim, struct peer *peer, const struct run *run)
{
    memset(sim->body, 0x5a, run->body_size);
    memcpy(sim->body, &run->lease, sizeof run->lease);
    memcpy(sim->body + sizeof run->lease, CANARY_BODY, CANARY_SIZE);
    const struct wire_success_entry entry = {
        .lease = run->lease,
        .duration_us = sim->options.handler_ms < 3 ? 300 : 5000,
        .body = {sim->body, run->body_size},
    };
    worker_session_succeed(peer->worker, sim->now_ms, &entry);
}

static void fail(struct sim *sim, struct peer *peer, const struct run *run)
{
    const struct wire_failure_entry entry = {
        .lease = run->lease,
        .kind = run->kind,
        .retry_choice = run->choice,
        .retry_delay_ms = run->choice == RETRY_AFTER ? sim_below(sim, 500) : 0,
        .name = bytes_from_text("sim"),
        .message = bytes_from_text("as the seed has it"),
        .duration_ms = 1,
    };
    worker_session_fail(peer->worker, sim->now_ms, &entry);
}

void worker_on_handler(struct sim *sim, const struct event *event)
{
    struct peer *peer = &sim->peers[event->place];
    struct run *run = &sim->runs[lease_place(&sim->oracle, event->number)];
    if (!peer->is_up || run->lease != event->number || run->life != peer->life ||
        !run->is_running) {
        return;
    }
    if (event->kind == EVENT_HANDLER_START) {
        worker_session_on_started(peer->worker, sim->now_ms, run->lease);
    } else if (event->kind == EVENT_HANDLER_PROGRESS) {
        const struct wire_list none = {0};
        worker_session_progress(peer->worker, sim->now_ms, run->lease, &none);
    } else if (sim->now_ms < run->end_at_ms) {
        return; /* not yet: it was stopped meanwhile, or goes on */
    } else {
        run->is_running = false;
        sim_tell(sim, "%s ends lease %u of task %u: %s", peer->name,
                 lease_place(&sim->oracle, run->lease), run->task,
                 run->is_success ? "success" : failure_kind_text(run->kind));
        if (run->is_success) {
            succeed(sim, peer, run);
        } else {
            fail(sim, peer, run);
        }
        on_slot_free(sim, peer, run);
    }
    worker_run(sim, peer);
}

/* ---- the session ---- */

/* False: the process has ended. */
static bool on_event(struct sim *sim, struct peer *peer, const struct worker_event *event)
{
    switch (event->kind) {
    case WORKER_EVENT_START:
        on_start(sim, peer, event->attempt);
        return true;
    case WORKER_EVENT_RECALL:
        on_recall(sim, peer, event->lease);
        return true;
    case WORKER_EVENT_CANCEL:
        on_cancel(sim, &sim->runs[lease_place(&sim->oracle, event->lease)]);
        return true;
    case WORKER_EVENT_KILL:
        on_kill(sim, &sim->runs[lease_place(&sim->oracle, event->lease)]);
        return true;
    case WORKER_EVENT_RECONNECT:
        network_leave(sim, peer, false);
        worker_session_on_disconnected(peer->worker, sim->now_ms);
        network_connect_later(sim, peer, sim_below(sim, 100));
        return true;
    case WORKER_EVENT_REFUSED:
        if (!event->is_final) {
            return true;
        }
        break;
    case WORKER_EVENT_DRAINED:
        break;
    case WORKER_EVENT_DRAINING:
    case WORKER_EVENT_WELCOME:
    case WORKER_EVENT_LOST:
        return true;
    }
    return false;
}

static void check_sent(struct sim *sim, const struct wire_frames *frames)
{
    struct message *message = &sim->sent;
    if (message_decode(message, frames, &wire_limits_protocol) == WIRE_OK &&
        message->kind == MESSAGE_RETURNED) {
        oracle_on_returned(sim, message);
    }
}

static void set_clock(struct sim *sim, struct peer *peer)
{
    const uint64_t at_ms = worker_session_next_at_ms(peer->worker);
    if (at_ms < peer->wake_at_ms) {
        peer->wake_at_ms = at_ms > sim->now_ms ? at_ms : sim->now_ms;
        sim_at(sim, peer->wake_at_ms, EVENT_WAKE_PEER, peer->number, peer->life);
    }
}

/* The process ends of its own accord and comes back after a while. */
static void leave(struct sim *sim, struct peer *peer)
{
    network_close(sim, peer);
    worker_stop(sim, peer);
    sim_at(sim, sim->now_ms + 100 + sim_below(sim, 1500), EVENT_RESTART, peer->number, 0);
}

static void send_all(struct sim *sim, struct peer *peer)
{
    const struct wire_frames *frames = NULL;
    while (peer->connection != NONE &&
           (frames = worker_session_take_message(peer->worker)) != NULL) {
        check_sent(sim, frames);
        network_to_broker(sim, peer, frames);
    }
}

void worker_run(struct sim *sim, struct peer *peer)
{
    struct worker_event event;
    while (worker_session_next_event(peer->worker, &event)) {
        if (!on_event(sim, peer, &event)) {
            leave(sim, peer);
            return;
        }
    }
    send_all(sim, peer);
    worker_session_check(peer->worker);
    const struct worker_session_counts counts = worker_session_counts(peer->worker);
    if (counts.over_credit > 0) {
        sim_violation(sim, "%s gets more than it granted", peer->name);
    }
    if (counts.granted_twice > 0) {
        sim_violation(sim, "%s gets a lease twice", peer->name);
    }
    if (worker_session_next_event(peer->worker, &event)) { /* GOODBYE went out */
        if (!on_event(sim, peer, &event)) {
            leave(sim, peer);
            return;
        }
    }
    set_clock(sim, peer);
}

const char *worker_unrest(const struct sim *sim, const struct peer *peer)
{
    const struct worker_session_counts counts = worker_session_counts(peer->worker);
    (void)sim;
    if (!counts.is_live) {
        return "a worker without a session";
    }
    if (counts.queued + counts.waiting + counts.running + counts.finished > 0) {
        return "a worker that holds leases";
    }
    if (counts.granted < counts.dispatched + peer->slots) {
        return "a worker that grants less than its slots";
    }
    return NULL;
}
