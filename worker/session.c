/* SPDX-License-Identifier: MPL-2.0 */
#include "worker/session.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/span.h"
#include "worker/session_state.h"

/* Prefetch is this much of handler time a slot, and none for slower handlers. */
#define PREFETCH_SPAN_US    2000
#define PREFETCH_HANDLER_US 10000
#define HANDLER_MEAN_WEIGHT 8

/* ---- making ---- */

static bool copy_config(struct worker_session *session, const struct worker_session_config *config)
{
    TREADLE_ASSERT(config->name.size >= 1 && config->name.size <= NAME_SIZE_MAX);
    TREADLE_ASSERT(config->host.size <= NAME_SIZE_MAX);
    TREADLE_ASSERT(config->slots >= 1 && config->slots <= SLOT_COUNT_MAX);
    TREADLE_ASSERT(config->serve_count >= 1 && config->serve_count <= SERVE_COUNT_MAX);
    memcpy(session->name, config->name.data, config->name.size);
    session->name_size = config->name.size;
    if (config->host.size > 0) {
        memcpy(session->host, config->host.data, config->host.size);
    }
    session->host_size = config->host.size;
    memcpy(session->incarnation, config->incarnation, sizeof(session->incarnation));
    session->slots = config->slots;
    session->prefetch_max = config->prefetch_max;
    session->drain_ms = config->drain_ms;
    for (uint32_t i = 0; i < config->serve_count; i++) {
        if (!wire_serve_encode(&session->serves, &config->serves[i])) {
            TREADLE_ASSERT(session->serves.error_field == NULL); /* else a field out of range */
            return false;
        }
    }
    return true;
}

struct worker_session *worker_session_create(const struct worker_session_config *config,
                                             uint64_t now_ms)
{
    struct worker_session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        return NULL;
    }
    writer_init(&session->serves);
    writer_init(&session->out);
    writer_init(&session->entries);
    writer_init(&session->failures);
    for (int place = 0; place < HELD_PLACE_COUNT; place++) {
        list_init(&session->places[place]);
    }
    list_init(&session->signals);
    list_init(&session->progressing);
    session->now_ms = now_ms;
    session->timers_at_ms = HELD_NEVER;
    session->heartbeat_ms = HEARTBEAT_DEFAULT_MS;
    session->liveness = LIVENESS_DEFAULT;
    session->body_size_max = BODY_SIZE_LIMIT;
    session->entry_count_max = ENTRY_COUNT_MAX;
    if (!copy_config(session, config)) {
        worker_session_destroy(&session);
    }
    return session;
}

void worker_session_destroy(struct worker_session **session)
{
    struct worker_session *old = *session;
    *session = NULL;
    if (old == NULL) {
        return;
    }
    for (int place = 0; place < HELD_PLACE_COUNT; place++) {
        struct list *link;
        while ((link = list_first(&old->places[place])) != NULL) {
            session_forget(old, container_of(link, struct held, link));
        }
    }
    writer_free(&old->serves);
    writer_free(&old->out);
    writer_free(&old->entries);
    writer_free(&old->failures);
    free(old);
}

/* ---- leases held ---- */

static struct held **bucket_of(struct worker_session *session, uint64_t lease)
{
    const uint64_t spread = lease * UINT64_C(0x9e3779b97f4a7c15);
    return &session->buckets[spread >> 52 & (BUCKET_COUNT - 1)];
}

static struct held *find(struct worker_session *session, uint64_t lease)
{
    struct held *held = *bucket_of(session, lease);
    while (held != NULL && held->attempt.lease != lease) {
        held = held->bucket_next;
    }
    return held;
}

static struct held *find_running(struct worker_session *session, uint64_t lease)
{
    struct held *held = find(session, lease);
    return held != NULL && held->place == HELD_IN_RUNNING ? held : NULL;
}

uint32_t session_held_count(const struct worker_session *session)
{
    uint32_t count = 0;
    for (int place = 0; place < HELD_PLACE_COUNT; place++) {
        count += session->place_counts[place];
    }
    return count;
}

static void add(struct worker_session *session, struct held *held, enum held_place place)
{
    struct held **bucket = bucket_of(session, held->attempt.lease);
    held->bucket_next = *bucket;
    *bucket = held;
    held->place = place;
    list_push_back(&session->places[place], &held->link);
    session->place_counts[place]++;
}

void session_move(struct worker_session *session, struct held *held, enum held_place place)
{
    list_remove(&held->link);
    session->place_counts[held->place]--;
    held->place = place;
    list_push_back(&session->places[place], &held->link);
    session->place_counts[place]++;
}

void session_forget(struct worker_session *session, struct held *held)
{
    struct held **bucket = bucket_of(session, held->attempt.lease);
    while (*bucket != held) {
        bucket = &(*bucket)->bucket_next;
    }
    *bucket = held->bucket_next;
    list_remove(&held->link);
    list_remove(&held->signal_link);
    list_remove(&held->progress_link);
    session->place_counts[held->place]--;
    session->output_size -= held->output_size;
    held_destroy(held);
}

static void return_queued(struct worker_session *session)
{
    struct list *link;
    while ((link = list_first(&session->places[HELD_IN_QUEUED])) != NULL) {
        session_move(session, container_of(link, struct held, link), HELD_IN_RETURNING);
    }
}

/* ---- credit ---- */

static uint64_t prefetch(const struct worker_session *session)
{
    if (session->handler_us == 0 || session->handler_us > PREFETCH_HANDLER_US) {
        return 0;
    }
    const uint64_t wanted = (uint64_t)session->slots * PREFETCH_SPAN_US / session->handler_us;
    return wanted < session->prefetch_max ? wanted : session->prefetch_max;
}

static void measure(struct worker_session *session, uint64_t duration_us)
{
    const uint64_t span_us = duration_us == 0 ? 1 : duration_us;
    const uint64_t mean_us = session->handler_us == 0 ? span_us : session->handler_us;
    session->handler_us =
        (mean_us * (HANDLER_MEAN_WEIGHT - 1) + span_us + HANDLER_MEAN_WEIGHT - 1) /
        HANDLER_MEAN_WEIGHT;
}

void session_grant(struct worker_session *session)
{
    const uint64_t dispatched = session->base + session->received;
    if (session->is_draining) {
        session->granted = dispatched;
        return;
    }
    const uint64_t active =
        session->place_counts[HELD_IN_QUEUED] + session->place_counts[HELD_IN_RUNNING];
    const uint64_t window = dispatched + session->slots + prefetch(session);
    uint64_t total = window > active ? window - active : 0;
    /* HELLO must be able to name all that is held, and what is held must have an end. */
    const uint64_t room = HELD_COUNT_MAX - session_held_count(session);
    const uint64_t total_max = dispatched + (session->output_size > OUTPUT_SIZE_MAX ? 0 : room);
    total = total < total_max ? total : total_max;
    session->granted = total > session->granted ? total : session->granted;
}

/* ---- time ---- */

static uint64_t earlier(uint64_t a_ms, uint64_t b_ms)
{
    return a_ms < b_ms ? a_ms : b_ms;
}

/* When this running attempt's next clock is due. */
static uint64_t attempt_next_at_ms(const struct held *held)
{
    if (held->cause == STOP_NONE) {
        return earlier(held->timeout_at_ms, held->progress_at_ms);
    }
    return held->is_killed ? HELD_NEVER : held->kill_at_ms;
}

static void watch(struct worker_session *session, const struct held *held)
{
    session->timers_at_ms = earlier(session->timers_at_ms, attempt_next_at_ms(held));
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

static void signal_held(struct worker_session *session, struct held *held)
{
    if (list_is_empty(&held->signal_link)) {
        list_push_back(&session->signals, &held->signal_link);
    }
}

/* Asks for the end of a running attempt; the first cause stays. */
static void stop(struct worker_session *session, struct held *held, enum stop_cause cause,
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
        stop(session, held, STOP_TIMEOUT, held->timeout_at_ms);
    } else if (held->cause == STOP_NONE && now_ms >= held->progress_at_ms) {
        stop(session, held, STOP_PROGRESS_TIMEOUT, held->progress_at_ms);
    }
    if (held->cause != STOP_NONE && !held->is_killed && now_ms >= held->kill_at_ms) {
        held->is_killed = true;
        held->is_kill_due = true;
        signal_held(session, held);
    }
}

/* Looks at every running attempt, but only when the first of their clocks may be due. */
static void run_attempt_clocks(struct worker_session *session)
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

/* The time of an input: what was due before it comes first. */
static void advance(struct worker_session *session, uint64_t now_ms)
{
    TREADLE_ASSERT(now_ms >= session->now_ms);
    session->now_ms = now_ms;
    run_attempt_clocks(session);
}

static uint64_t silence_at_ms(const struct worker_session *session)
{
    return session->received_at_ms + session->heartbeat_ms * session->liveness;
}

static void say_hello(struct worker_session *session, uint64_t at_ms)
{
    session->phase = SESSION_GREETING;
    session->hello_at_ms = at_ms;
    if (session->received_at_ms < at_ms) {
        session->received_at_ms = at_ms; /* silence counts from here */
    }
}

static void lose(struct worker_session *session)
{
    if (session->phase == SESSION_LIVE) {
        session->is_lost_due = true;
        session->is_welcome_due = false;
    }
}

static bool is_connected(const struct worker_session *session)
{
    return session->phase == SESSION_GREETING || session->phase == SESSION_LIVE;
}

static void on_silence(struct worker_session *session)
{
    lose(session);
    say_hello(session, session->now_ms);
    session->is_reconnect_due = true;
}

/* ---- drain ---- */

bool session_is_leaving(const struct worker_session *session)
{
    if (!session->is_draining || session->is_drained ||
        session->place_counts[HELD_IN_RUNNING] > 0) {
        return false;
    }
    const bool is_waiting =
        session->place_counts[HELD_IN_FINISHED] > 0 || session->place_counts[HELD_IN_OFFERED] > 0;
    return !is_waiting || session->now_ms >= session->leave_at_ms;
}

void session_check_drain(struct worker_session *session)
{
    const bool is_apart =
        session->phase == SESSION_DISCONNECTED || session->phase == SESSION_GREETING;
    if (is_apart && session_is_leaving(session)) {
        session_leave(session);
    }
}

void session_leave(struct worker_session *session)
{
    session->phase = SESSION_ENDED;
    session->is_drained = true;
    session->is_drained_due = true;
}

/* The drain's time is over: what runs is stopped. */
static void run_drain_clock(struct worker_session *session)
{
    if (!session->is_draining || session->now_ms < session->drain_until_ms) {
        return;
    }
    const struct list *head = &session->places[HELD_IN_RUNNING];
    for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
        stop(session, container_of(link, struct held, link), STOP_DRAIN, session->now_ms);
    }
}

static void drain(struct worker_session *session)
{
    if (session->is_draining) {
        return;
    }
    session->is_draining = true;
    session->drain_until_ms = session->now_ms + session->drain_ms;
    session->leave_at_ms = session->drain_until_ms;
    return_queued(session);
    session_grant(session);
}

void worker_session_drain(struct worker_session *session, uint64_t now_ms)
{
    advance(session, now_ms);
    drain(session);
    session_check_drain(session);
}

void worker_session_on_time(struct worker_session *session, uint64_t now_ms)
{
    advance(session, now_ms);
    if (is_connected(session) && now_ms >= silence_at_ms(session)) {
        on_silence(session);
    }
    run_drain_clock(session);
    session_check_drain(session);
}

uint64_t worker_session_next_at_ms(const struct worker_session *session)
{
    uint64_t at_ms = session->timers_at_ms;
    if (session->phase == SESSION_GREETING) {
        at_ms = earlier(at_ms, session->hello_at_ms);
    }
    if (session->phase == SESSION_LIVE) {
        at_ms = earlier(at_ms, session->sent_at_ms + session->heartbeat_ms);
    }
    if (session->retry_at_ms > session->now_ms && is_connected(session)) {
        at_ms = session->retry_at_ms;
    }
    if (is_connected(session)) {
        at_ms = earlier(at_ms, silence_at_ms(session));
    }
    if (session->is_draining && !session->is_drained) {
        const bool is_over = session->now_ms >= session->drain_until_ms;
        const uint64_t next_ms = is_over ? session->leave_at_ms : session->drain_until_ms;
        at_ms = next_ms > session->now_ms ? earlier(at_ms, next_ms) : at_ms;
    }
    return at_ms;
}

/* ---- the transport ---- */

void worker_session_on_connected(struct worker_session *session, uint64_t now_ms)
{
    advance(session, now_ms);
    if (session->phase == SESSION_ENDED) {
        return;
    }
    lose(session);
    session->received_at_ms = now_ms;
    say_hello(session, now_ms);
}

void worker_session_on_disconnected(struct worker_session *session, uint64_t now_ms)
{
    advance(session, now_ms);
    if (session->phase == SESSION_ENDED) {
        return;
    }
    lose(session);
    session->phase = SESSION_DISCONNECTED;
    session_check_drain(session);
}

void worker_session_on_unsent(struct worker_session *session, uint64_t now_ms)
{
    advance(session, now_ms);
    if (is_connected(session)) {
        say_hello(session, now_ms + session->heartbeat_ms);
    }
}

/* ---- messages ---- */

static void on_welcome(struct worker_session *session, const struct message *message)
{
    const struct wire_welcome *welcome = &message->as.welcome;
    if (session->phase != SESSION_GREETING || session->is_synced ||
        welcome->hello_number != session->hello_number) {
        session->counts.doubles++;
        return;
    }
    session->phase = SESSION_LIVE;
    session->is_synced = true;
    session->expected_number = message->number + 1;
    session->heartbeat_ms =
        welcome->heartbeat_ms > 0 ? welcome->heartbeat_ms : HEARTBEAT_DEFAULT_MS;
    session->liveness = welcome->liveness > 0 ? (uint32_t)welcome->liveness : LIVENESS_DEFAULT;
    session->body_size_max = welcome->body_size_max;
    session->entry_count_max =
        welcome->entry_count_max > 0 ? (uint32_t)welcome->entry_count_max : ENTRY_COUNT_MAX;
    session->base = welcome->dispatched;
    session->received = 0;
    session->granted = 0;
    session->sent_upto = 0;
    session->epoch = welcome->epoch;
    session->is_resumed = welcome->is_resumed != 0;
    session->is_welcome_due = true;
    if (!session->is_resumed) {
        return_queued(session); /* of a session that has ended: others may have them by now */
    }
    /* What was offered before goes first, in its order. */
    struct list *offered = &session->places[HELD_IN_OFFERED];
    struct list *link;
    while ((link = list_first(&session->places[HELD_IN_FINISHED])) != NULL) {
        session_move(session, container_of(link, struct held, link), HELD_IN_OFFERED);
    }
    while ((link = list_first(offered)) != NULL) {
        session_move(session, container_of(link, struct held, link), HELD_IN_FINISHED);
    }
    session_grant(session);
}

static void on_refused(struct worker_session *session, const struct wire_refused *refused)
{
    const enum refused_code code = (enum refused_code)refused->code;
    if (code == REFUSED_HELLO_FIRST) {
        /* One that is out answers those that came of messages before it. */
        const bool is_hello_out = session->phase == SESSION_GREETING && !session->is_synced;
        session->is_synced = false;
        if (is_connected(session) && !is_hello_out) {
            say_hello(session, session->now_ms);
        }
        return;
    }
    session->is_refused_due = true;
    session->refused_code = code;
    session->refused_text_size = refused->text.size < sizeof(session->refused_text)
                                     ? refused->text.size
                                     : sizeof(session->refused_text);
    if (refused->text.size > 0) {
        memcpy(session->refused_text, refused->text.data, session->refused_text_size);
    }
    lose(session);
    session->is_synced = false;
    if (code == REFUSED_VERSION || code == REFUSED_RIGHTS || code == REFUSED_REPLACED) {
        session->phase = SESSION_ENDED;
        return;
    }
    if (!is_connected(session)) {
        return;
    }
    const uint64_t wait_ms = refused->retry_after_ms > session->heartbeat_ms
                                 ? refused->retry_after_ms
                                 : session->heartbeat_ms;
    say_hello(session, session->now_ms + wait_ms);
}

static void accept_dispatch(struct worker_session *session, const struct wire_dispatch_entry *entry,
                            const struct wire_dispatch_template *template)
{
    session->received++;
    if (!session->is_draining && session->base + session->received > session->sent_upto) {
        session->counts.over_credit++;
    }
    if (find(session, entry->lease) != NULL) {
        session->counts.granted_twice++;
        return;
    }
    struct held *held = NULL;
    if (session_held_count(session) < HELD_COUNT_MAX) {
        held = held_create(entry, template, session->now_ms);
    }
    if (held == NULL) {
        session->counts.dropped++; /* the next HELLO, or the backstop, tells the broker */
        return;
    }
    add(session, held, session->is_draining ? HELD_IN_RETURNING : HELD_IN_QUEUED);
}

static void on_dispatch(struct worker_session *session, const struct wire_dispatch *dispatch)
{
    struct wire_dispatch_template templates[TEMPLATE_COUNT_MAX];
    struct wire_list list = dispatch->templates;
    uint32_t count = 0;
    while (count < TEMPLATE_COUNT_MAX && wire_dispatch_template_next(&list, &templates[count])) {
        count++;
    }
    list = dispatch->entries;
    struct wire_dispatch_entry entry;
    while (wire_dispatch_entry_next(&list, &entry)) {
        if (entry.template_index < count) { /* the decoder has checked it */
            accept_dispatch(session, &entry, &templates[entry.template_index]);
        }
    }
}

static void on_result_ack(struct worker_session *session, const struct wire_result_ack *ack)
{
    struct wire_list list = ack->entries;
    struct wire_result_ack_entry entry;
    while (wire_result_ack_entry_next(&list, &entry)) {
        struct held *held = find(session, entry.lease);
        if (held == NULL || (held->place != HELD_IN_FINISHED && held->place != HELD_IN_OFFERED)) {
            continue;
        }
        session->counts.stale += entry.is_stale;
        session_forget(session, held);
    }
}

/* RECALL: hands back what has not started. CANCEL_ATTEMPT: stops what has, too. */
static void take_back(struct worker_session *session, struct wire_list list, bool is_stopping)
{
    struct wire_lease_entry entry;
    while (wire_lease_entry_next(&list, &entry)) {
        struct held *held = find(session, entry.lease);
        if (held == NULL) {
            continue;
        }
        if (held->place == HELD_IN_QUEUED) {
            session_move(session, held, HELD_IN_RETURNING);
        } else if (held->place == HELD_IN_RUNNING && is_stopping) {
            stop(session, held, STOP_CANCEL, session->now_ms);
        }
    }
}

/* One message of a session that stands, in its order. */
static void handle(struct worker_session *session, const struct message *message)
{
    /* What only the broker receives is of no meaning here. */
    if (message->kind == MESSAGE_DISPATCH) {
        on_dispatch(session, &message->as.dispatch);
    } else if (message->kind == MESSAGE_RESULT_ACK) {
        on_result_ack(session, &message->as.result_ack);
    } else if (message->kind == MESSAGE_RECALL) {
        take_back(session, message->as.recall.entries, false);
    } else if (message->kind == MESSAGE_CANCEL_ATTEMPT) {
        take_back(session, message->as.cancel_attempt.entries, true);
    } else if (message->kind == MESSAGE_DRAIN) {
        drain(session);
    } else if (message->kind == MESSAGE_GOODBYE && is_connected(session)) {
        lose(session);
        session->is_synced = false;
        say_hello(session, session->now_ms + session->heartbeat_ms);
    } else if (message->kind == MESSAGE_REFUSED) {
        on_refused(session, &message->as.refused);
    }
    session_grant(session);
}

static void on_numbered(struct worker_session *session, const struct message *message)
{
    if (!session->is_synced) {
        session->counts.ignored++;
        return;
    }
    if (message->number < session->expected_number) {
        session->counts.doubles++;
        return;
    }
    if (message->number > session->expected_number) {
        session->counts.gaps++;
        session->is_synced = false;
        if (is_connected(session)) {
            say_hello(session, session->now_ms);
        }
        return;
    }
    session->expected_number++;
    handle(session, message);
}

void worker_session_on_message(struct worker_session *session, uint64_t now_ms,
                               const struct message *message)
{
    advance(session, now_ms);
    if (session->phase == SESSION_ENDED) {
        return;
    }
    session->received_at_ms = now_ms;
    if (message->kind == MESSAGE_WELCOME) {
        on_welcome(session, message);
    } else if (message->kind == MESSAGE_REFUSED && message->number == 0) {
        on_refused(session, &message->as.refused);
    } else {
        on_numbered(session, message);
    }
    session_check_drain(session);
}

/* ---- the execution ---- */

void worker_session_on_started(struct worker_session *session, uint64_t now_ms, uint64_t lease)
{
    advance(session, now_ms);
    struct held *held = find_running(session, lease);
    if (held != NULL && held->cause == STOP_NONE) {
        start_clocks(session, held);
    }
}

/* The end of an attempt is kept; the slot is free. */
static void finish(struct worker_session *session, struct held *held, uint64_t duration_us)
{
    list_remove(&held->signal_link);
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
    advance(session, now_ms);
    struct held *held = find_running(session, failure->lease);
    if (held != NULL) {
        fail(session, held, failure);
    }
}

void worker_session_succeed(struct worker_session *session, uint64_t now_ms,
                            const struct wire_success_entry *success)
{
    advance(session, now_ms);
    struct held *held = find_running(session, success->lease);
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
    advance(session, now_ms);
    struct held *held = find_running(session, lease);
    if (held == NULL) {
        return;
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

/* ---- events ---- */

static bool next_own_event(struct worker_session *session, struct worker_event *event)
{
    if (session->is_refused_due) {
        session->is_refused_due = false;
        *event = (struct worker_event){
            .kind = WORKER_EVENT_REFUSED,
            .code = session->refused_code,
            .is_final = session->phase == SESSION_ENDED,
            .text = {(const uint8_t *)session->refused_text, session->refused_text_size},
        };
    } else if (session->is_lost_due) {
        session->is_lost_due = false;
        *event = (struct worker_event){.kind = WORKER_EVENT_LOST};
    } else if (session->is_reconnect_due) {
        session->is_reconnect_due = false;
        *event = (struct worker_event){.kind = WORKER_EVENT_RECONNECT};
    } else if (session->is_welcome_due) {
        session->is_welcome_due = false;
        *event = (struct worker_event){
            .kind = WORKER_EVENT_WELCOME,
            .epoch = session->epoch,
            .is_resumed = session->is_resumed,
        };
    } else if (session->is_drained_due) {
        session->is_drained_due = false;
        *event = (struct worker_event){.kind = WORKER_EVENT_DRAINED};
    } else {
        return false;
    }
    return true;
}

static bool next_signal(struct worker_session *session, struct worker_event *event)
{
    struct list *link = list_first(&session->signals);
    if (link == NULL) {
        return false;
    }
    struct held *held = container_of(link, struct held, signal_link);
    *event = (struct worker_event){
        .kind = held->is_cancel_due ? WORKER_EVENT_CANCEL : WORKER_EVENT_KILL,
        .lease = held->attempt.lease,
    };
    if (held->is_cancel_due) {
        held->is_cancel_due = false;
    } else {
        held->is_kill_due = false;
    }
    if (!held->is_kill_due) {
        list_remove(link);
    }
    return true;
}

/* Nothing starts without a session: what was dispatched may be somebody else's by now. */
static bool next_start(struct worker_session *session, struct worker_event *event)
{
    struct list *link = list_first(&session->places[HELD_IN_QUEUED]);
    if (session->phase != SESSION_LIVE || link == NULL ||
        session->place_counts[HELD_IN_RUNNING] >= session->slots) {
        return false;
    }
    struct held *held = container_of(link, struct held, link);
    session_move(session, held, HELD_IN_RUNNING);
    start_clocks(session, held);
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

bool worker_session_next_event(struct worker_session *session, struct worker_event *event)
{
    if (next_own_event(session, event)) {
        return true;
    }
    if (session->phase == SESSION_ENDED) {
        return false;
    }
    return next_signal(session, event) || next_start(session, event);
}

/* ---- looking at it ---- */

struct worker_session_counts worker_session_counts(const struct worker_session *session)
{
    struct worker_session_counts counts = session->counts;
    counts.queued =
        session->place_counts[HELD_IN_QUEUED] + session->place_counts[HELD_IN_RETURNING];
    counts.running = session->place_counts[HELD_IN_RUNNING];
    counts.finished =
        session->place_counts[HELD_IN_FINISHED] + session->place_counts[HELD_IN_OFFERED];
    counts.granted = session->granted;
    counts.dispatched = session->base + session->received;
    counts.is_live = session->phase == SESSION_LIVE;
    return counts;
}

void worker_session_check(const struct worker_session *session)
{
    uint64_t output_size = 0;
    for (int place = 0; place < HELD_PLACE_COUNT; place++) {
        uint32_t count = 0;
        const struct list *head = &session->places[place];
        for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
            const struct held *held = container_of(link, struct held, link);
            TREADLE_ASSERT((int)held->place == place);
            TREADLE_ASSERT(place == HELD_IN_RUNNING || list_is_empty(&held->signal_link));
            TREADLE_ASSERT(place == HELD_IN_RUNNING || list_is_empty(&held->progress_link));
            TREADLE_ASSERT(place != HELD_IN_RUNNING ||
                           session->timers_at_ms <= attempt_next_at_ms(held));
            output_size += held->output_size;
            count++;
        }
        TREADLE_ASSERT(count == session->place_counts[place]);
    }
    TREADLE_ASSERT(output_size == session->output_size);
    TREADLE_ASSERT(session->place_counts[HELD_IN_RUNNING] <= session->slots);
    TREADLE_ASSERT(session_held_count(session) <= HELD_COUNT_MAX);
    TREADLE_ASSERT(!session->is_draining || session->place_counts[HELD_IN_QUEUED] == 0);
    TREADLE_ASSERT(session->is_draining || session->granted >= session->sent_upto);
}
