/* SPDX-License-Identifier: MPL-2.0 */
/* A worker's session towards the execution: what it is told to start, recall, cancel and kill, the
 * clocks of what runs, and what it says of all that. */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/span.h"
#include "worker/session_state.h"

#define HANDLER_MEAN_WEIGHT 8

/* Taken in by the execution, whether it has started or not. */
static struct held *find_taken(struct worker_session *session, uint64_t lease)
{
    struct held *held = session_find(session, lease);
    const bool is_taken =
        held != NULL && (held->place == HELD_IN_WAITING || held->place == HELD_IN_RUNNING);
    return is_taken ? held : NULL;
}

/* ---- clocks ---- */

/* When this running attempt's next clock is due. */
static uint64_t attempt_next_at_ms(const struct held *held)
{
    if (held->cause == STOP_NONE) {
        return session_earlier(held->timeout_at_ms, held->progress_at_ms);
    }
    return held->is_killed ? HELD_NEVER : held->kill_at_ms;
}

static void watch(struct worker_session *session, const struct held *held)
{
    session->timers_at_ms = session_earlier(session->timers_at_ms, attempt_next_at_ms(held));
}

static void signal_held(struct worker_session *session, struct held *held)
{
    if (list_is_empty(&held->signal_link)) {
        list_push_back(&session->signals, &held->signal_link);
    }
}

static void start_clocks(struct worker_session *session, struct held *held)
{
    const struct worker_attempt *attempt = &held->attempt;
    held->started_at_ms = session->now_ms;
    held->timeout_at_ms =
        attempt->timeout_ms > 0 ? session->now_ms + attempt->timeout_ms : HELD_NEVER;
    held->progress_at_ms = attempt->progress_timeout_ms > 0
                               ? session->now_ms + attempt->progress_timeout_ms
                               : HELD_NEVER;
    watch(session, held);
}

void session_stop(struct worker_session *session, struct held *held, enum stop_cause cause,
                  uint64_t from_ms)
{
    if (held->cause != STOP_NONE) {
        return;
    }
    held->cause = cause;
    held->kill_at_ms = from_ms + held->attempt.grace_ms;
    held->is_cancel_due = true;
    signal_held(session, held);
    watch(session, held);
}

static void run_clocks(struct worker_session *session, struct held *held)
{
    const uint64_t now_ms = session->now_ms;
    if (held->cause == STOP_NONE && now_ms >= held->timeout_at_ms &&
        held->timeout_at_ms <= held->progress_at_ms) {
        session_stop(session, held, STOP_TIMEOUT, held->timeout_at_ms);
    } else if (held->cause == STOP_NONE && now_ms >= held->progress_at_ms) {
        session_stop(session, held, STOP_PROGRESS_TIMEOUT, held->progress_at_ms);
    }
    if (held->cause != STOP_NONE && !held->is_killed && now_ms >= held->kill_at_ms) {
        held->is_killed = true;
        held->is_kill_due = true;
        signal_held(session, held);
    }
}

void session_run_clocks(struct worker_session *session)
{
    if (session->now_ms < session->timers_at_ms) {
        return;
    }
    session->timers_at_ms = HELD_NEVER;
    const struct list *head = &session->places[HELD_IN_RUNNING];
    for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
        struct held *held = container_of(link, struct held, link);
        run_clocks(session, held);
        watch(session, held);
    }
}

/* ---- recall ---- */

static void recall(struct worker_session *session, struct held *held, bool is_return)
{
    held->is_return_wanted |= is_return;
    held->is_recall_due = true;
    signal_held(session, held);
}

void session_recall_waiting(struct worker_session *session, bool is_return)
{
    const struct list *head = &session->places[HELD_IN_WAITING];
    for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
        recall(session, container_of(link, struct held, link), is_return);
    }
}

void session_take_back(struct worker_session *session, struct held *held, bool is_stopping)
{
    if (held->place == HELD_IN_QUEUED) {
        session_move(session, held, HELD_IN_RETURNING);
    } else if (held->place == HELD_IN_WAITING) {
        held->is_cancel_wanted |= is_stopping;
        recall(session, held, true);
    } else if (held->place == HELD_IN_RUNNING && is_stopping) {
        session_stop(session, held, STOP_CANCEL, session->now_ms);
    }
}

/* Nothing of it is to be told to the execution any more. */
static void forget_signals(struct held *held)
{
    held->is_recall_due = false;
    held->is_return_wanted = false;
    held->is_cancel_wanted = false;
    held->is_cancel_due = false;
    held->is_kill_due = false;
    list_remove(&held->signal_link);
}

/* Puts what the execution does not have any more among what is queued, before what came later. */
static void queue_again(struct worker_session *session, struct held *held)
{
    forget_signals(held);
    list_remove(&held->progress_link);
    held->cause = STOP_NONE;
    session_move(session, held, session->is_draining ? HELD_IN_RETURNING : HELD_IN_QUEUED);
    if (session->is_draining) {
        return;
    }
    struct list *head = &session->places[HELD_IN_QUEUED];
    struct list *next = head->next;
    while (container_of(next, struct held, link)->order < held->order) {
        next = next->next;
    }
    if (next != &held->link) {
        list_remove(&held->link);
        list_push_back(next, &held->link); /* before it */
    }
}

static void start_running(struct worker_session *session, struct held *held)
{
    const bool is_cancel_wanted = held->is_cancel_wanted;
    forget_signals(held);
    session_move(session, held, HELD_IN_RUNNING);
    start_clocks(session, held);
    if (is_cancel_wanted) {
        session_stop(session, held, STOP_CANCEL, session->now_ms);
    }
}

void worker_session_on_recall(struct worker_session *session, uint64_t now_ms, uint64_t lease,
                              bool is_taken)
{
    session_advance(session, now_ms);
    struct held *held = session_find(session, lease);
    if (held == NULL || held->place != HELD_IN_WAITING) {
        return; /* it has started, or ended, meanwhile */
    }
    if (!is_taken) {
        start_running(session, held);
    } else if (held->is_return_wanted) {
        forget_signals(held);
        session_move(session, held, HELD_IN_RETURNING);
    } else {
        queue_again(session, held);
    }
    session_check_drain(session);
}

/* ---- starts ---- */

void worker_session_set_room(struct worker_session *session, uint32_t room)
{
    session->room = room > session->slots ? room : session->slots;
}

void worker_session_on_started(struct worker_session *session, uint64_t now_ms, uint64_t lease)
{
    session_advance(session, now_ms);
    struct held *held = session_find(session, lease);
    if (held != NULL && held->place == HELD_IN_WAITING) {
        start_running(session, held);
    }
}

/* ---- ends ---- */

static void measure(struct worker_session *session, uint64_t duration_us)
{
    const uint64_t span_us = duration_us == 0 ? 1 : duration_us;
    const uint64_t mean_us = session->handler_us == 0 ? span_us : session->handler_us;
    session->handler_us =
        (mean_us * (HANDLER_MEAN_WEIGHT - 1) + span_us + HANDLER_MEAN_WEIGHT - 1) /
        HANDLER_MEAN_WEIGHT;
}

/* The end of an attempt is kept; the slot is free. */
static void finish(struct worker_session *session, struct held *held, uint64_t duration_us)
{
    forget_signals(held);
    list_remove(&held->progress_link);
    session->output_size += held->output_size;
    session_move(session, held, HELD_IN_FINISHED);
    if (session->place_counts[HELD_IN_RUNNING] == 0) {
        session->timers_at_ms = HELD_NEVER;
    }
    if (held->cause == STOP_NONE) {
        measure(session, duration_us);
    }
    const uint64_t told_at_ms = session->now_ms + session->heartbeat_ms * session->liveness;
    if (session->leave_at_ms < told_at_ms) {
        session->leave_at_ms = told_at_ms; /* its result has a while to be told */
    }
    session_grant(session);
    session_check_drain(session);
}

/* Puts the session's own reason in the place of what the handler says about being stopped. */
static void name_cause(const struct held *held, struct wire_failure_entry *failure, char *text,
                       size_t text_size)
{
    char span[SPAN_TEXT_SIZE];
    const char *name = "cancelled";
    switch (held->cause) {
    case STOP_NONE:
        return;
    case STOP_TIMEOUT:
        name = "timeout";
        failure->kind = FAILURE_TIMEOUT;
        span_print(span, sizeof(span), held->attempt.timeout_ms);
        snprintf(text, text_size, "ran past its timeout of %s", span);
        break;
    case STOP_PROGRESS_TIMEOUT:
        name = "progress_timeout";
        failure->kind = FAILURE_TIMEOUT;
        span_print(span, sizeof(span), held->attempt.progress_timeout_ms);
        snprintf(text, text_size, "showed no progress for %s", span);
        break;
    case STOP_CANCEL:
        failure->kind = FAILURE_CANCELLED;
        snprintf(text, text_size, "cancelled while it ran");
        break;
    case STOP_DRAIN:
        name = "drain";
        failure->kind = FAILURE_TRANSIENT;
        snprintf(text, text_size, "stopped: its worker was told to end");
        break;
    }
    failure->retry_choice = RETRY_BY_POLICY;
    failure->name = bytes_from_text(name);
    failure->message = bytes_from_text(text);
}

static bool is_meta_too_large(const struct wire_list *meta)
{
    struct wire_list list = *meta;
    struct wire_meta_item item;
    size_t size = 0;
    while (wire_meta_item_next(&list, &item)) {
        size += item.name.size + item.value.size;
    }
    return meta->count > META_COUNT_MAX || size > META_SIZE_MAX;
}

static void fail(struct worker_session *session, struct held *held,
                 const struct wire_failure_entry *failure)
{
    char text[128];
    struct wire_failure_entry told = *failure;
    name_cause(held, &told, text, sizeof(text));
    if (is_meta_too_large(&told.meta)) {
        told.meta = (struct wire_list){0};
    }
    held_set_failure(held, &told);
    finish(session, held, told.duration_ms * 1000);
}

void worker_session_fail(struct worker_session *session, uint64_t now_ms,
                         const struct wire_failure_entry *failure)
{
    session_advance(session, now_ms);
    struct held *held = find_taken(session, failure->lease);
    if (held != NULL) {
        fail(session, held, failure);
    }
}

void worker_session_succeed(struct worker_session *session, uint64_t now_ms,
                            const struct wire_success_entry *success)
{
    session_advance(session, now_ms);
    struct held *held = find_taken(session, success->lease);
    if (held == NULL) {
        return;
    }
    const bool is_body_too_large = success->body.size > session->body_size_max;
    if (!held->is_killed && !is_body_too_large && !is_meta_too_large(&success->meta)) {
        held_set_success(held, success);
        finish(session, held, success->duration_us);
        return;
    }
    char text[128];
    snprintf(text, sizeof(text), "the result's %s over the limit of %llu bytes",
             is_body_too_large ? "body is" : "meta is",
             is_body_too_large ? (unsigned long long)session->body_size_max : META_SIZE_MAX);
    const struct wire_failure_entry failure = {
        .kind = FAILURE_FINALIZE,
        .name = bytes_from_text("result.size"),
        .message = bytes_from_text(text),
        .duration_ms = success->duration_us / 1000,
    };
    fail(session, held, &failure);
}

void worker_session_progress(struct worker_session *session, uint64_t now_ms, uint64_t lease,
                             const struct wire_list *meta)
{
    session_advance(session, now_ms);
    struct held *held = find_taken(session, lease);
    if (held == NULL) {
        return;
    }
    if (held->place == HELD_IN_WAITING) {
        start_running(session, held);
    }
    if (meta->count > 0 && !is_meta_too_large(meta)) {
        held_set_meta(held, meta);
    }
    if (list_is_empty(&held->progress_link)) {
        list_push_back(&session->progressing, &held->progress_link);
    }
    if (held->attempt.progress_timeout_ms > 0) {
        held->progress_at_ms = now_ms + held->attempt.progress_timeout_ms;
    }
}

void worker_session_requeue(struct worker_session *session, uint64_t now_ms, uint64_t lease)
{
    session_advance(session, now_ms);
    struct held *held = find_taken(session, lease);
    if (held == NULL) {
        return;
    }
    if (held->cause != STOP_NONE) { /* its end was asked for: this is it */
        const struct wire_failure_entry failure = {.lease = lease, .kind = FAILURE_CRASH};
        fail(session, held, &failure);
    } else if (held->is_return_wanted) {
        forget_signals(held);
        session_move(session, held, HELD_IN_RETURNING);
    } else {
        queue_again(session, held);
    }
    session_check_drain(session);
}

/* ---- events ---- */

bool session_next_signal(struct worker_session *session, struct worker_event *event)
{
    struct list *link = list_first(&session->signals);
    if (link == NULL) {
        return false;
    }
    struct held *held = container_of(link, struct held, signal_link);
    *event = (struct worker_event){.lease = held->attempt.lease};
    if (held->is_recall_due) {
        event->kind = WORKER_EVENT_RECALL;
        held->is_recall_due = false;
    } else if (held->is_cancel_due) {
        event->kind = WORKER_EVENT_CANCEL;
        held->is_cancel_due = false;
    } else {
        event->kind = WORKER_EVENT_KILL;
        held->is_kill_due = false;
    }
    if (!held->is_cancel_due && !held->is_kill_due) {
        list_remove(link);
    }
    return true;
}

/* Nothing starts without a session: what was dispatched may be somebody else's by now. */
bool session_next_start(struct worker_session *session, struct worker_event *event)
{
    struct list *link = list_first(&session->places[HELD_IN_QUEUED]);
    if (session->phase != SESSION_LIVE || link == NULL ||
        session->place_counts[HELD_IN_WAITING] + session->place_counts[HELD_IN_RUNNING] >=
            session->room) {
        return false;
    }
    struct held *held = container_of(link, struct held, link);
    session_move(session, held, HELD_IN_WAITING);
    held->attempt.result_size_max = session->body_size_max;
    if (held->attempt.deadline_left_ms > 0) {
        const uint64_t waited_ms = session->now_ms - held->arrived_at_ms;
        held->attempt.deadline_left_ms = held->attempt.deadline_left_ms > waited_ms
                                             ? held->attempt.deadline_left_ms - waited_ms
                                             : 1; /* 0 would say that it has none */
    }
    *event = (struct worker_event){
        .kind = WORKER_EVENT_START,
        .lease = held->attempt.lease,
        .attempt = &held->attempt,
    };
    return true;
}

void session_check_taken(const struct worker_session *session, const struct held *held)
{
    const bool is_running = held->place == HELD_IN_RUNNING;
    TREADLE_ASSERT(is_running || held->place == HELD_IN_WAITING ||
                   list_is_empty(&held->signal_link));
    TREADLE_ASSERT(is_running || list_is_empty(&held->progress_link));
    TREADLE_ASSERT(is_running || held->cause == STOP_NONE || held->place == HELD_IN_FINISHED ||
                   held->place == HELD_IN_OFFERED);
    TREADLE_ASSERT(!is_running || session->timers_at_ms <= attempt_next_at_ms(held));
    TREADLE_ASSERT(!held->is_recall_due || held->place == HELD_IN_WAITING);
}
