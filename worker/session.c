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
    session->room = config->slots;
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

struct held *session_find(struct worker_session *session, uint64_t lease)
{
    struct held *held = *bucket_of(session, lease);
    while (held != NULL && held->attempt.lease != lease) {
        held = held->bucket_next;
    }
    return held;
}

const struct worker_attempt *worker_session_attempt(struct worker_session *session, uint64_t lease)
{
    const struct held *held = session_find(session, lease);
    if (held == NULL || held->cause != STOP_NONE || held->place == HELD_IN_FINISHED ||
        held->place == HELD_IN_OFFERED) {
        return NULL;
    }
    return &held->attempt;
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

/* Hands back what has not started. */
static void return_queued(struct worker_session *session)
{
    struct list *link;
    while ((link = list_first(&session->places[HELD_IN_QUEUED])) != NULL) {
        session_move(session, container_of(link, struct held, link), HELD_IN_RETURNING);
    }
    session_recall_waiting(session, true);
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

void session_grant(struct worker_session *session)
{
    const uint64_t dispatched = session->base + session->received;
    if (session->is_draining) {
        session->granted = dispatched;
        return;
    }
    const uint64_t active = session->place_counts[HELD_IN_QUEUED] +
                            session->place_counts[HELD_IN_WAITING] +
                            session->place_counts[HELD_IN_RUNNING];
    const uint64_t window = dispatched + session->slots + prefetch(session);
    uint64_t total = window > active ? window - active : 0;
    /* HELLO must be able to name all that is held, and what is held must have an end. */
    const uint64_t room = HELD_COUNT_MAX - session_held_count(session);
    const uint64_t total_max = dispatched + (session->output_size > OUTPUT_SIZE_MAX ? 0 : room);
    total = total < total_max ? total : total_max;
    session->granted = total > session->granted ? total : session->granted;
}

/* ---- time ---- */

uint64_t session_earlier(uint64_t a_ms, uint64_t b_ms)
{
    return a_ms < b_ms ? a_ms : b_ms;
}

void session_advance(struct worker_session *session, uint64_t now_ms)
{
    TREADLE_ASSERT(now_ms >= session->now_ms);
    session->now_ms = now_ms;
    session_run_clocks(session);
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
        session_recall_waiting(session, false); /* nothing starts without a session */
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
        session->place_counts[HELD_IN_WAITING] + session->place_counts[HELD_IN_RUNNING] > 0) {
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
        session_stop(session, container_of(link, struct held, link), STOP_DRAIN, session->now_ms);
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
    session_advance(session, now_ms);
    drain(session);
    session_check_drain(session);
}

void worker_session_on_time(struct worker_session *session, uint64_t now_ms)
{
    session_advance(session, now_ms);
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
        at_ms = session_earlier(at_ms, session->hello_at_ms);
    }
    if (session->phase == SESSION_LIVE) {
        at_ms = session_earlier(at_ms, session->sent_at_ms + session->heartbeat_ms);
    }
    if (session->retry_at_ms > session->now_ms && is_connected(session)) {
        at_ms = session->retry_at_ms;
    }
    if (is_connected(session)) {
        at_ms = session_earlier(at_ms, silence_at_ms(session));
    }
    if (session->is_draining && !session->is_drained) {
        const bool is_over = session->now_ms >= session->drain_until_ms;
        const uint64_t next_ms = is_over ? session->leave_at_ms : session->drain_until_ms;
        at_ms = next_ms > session->now_ms ? session_earlier(at_ms, next_ms) : at_ms;
    }
    return at_ms;
}

/* ---- the transport ---- */

void worker_session_on_connected(struct worker_session *session, uint64_t now_ms)
{
    session_advance(session, now_ms);
    if (session->phase == SESSION_ENDED) {
        return;
    }
    lose(session);
    session->received_at_ms = now_ms;
    say_hello(session, now_ms);
}

void worker_session_on_disconnected(struct worker_session *session, uint64_t now_ms)
{
    session_advance(session, now_ms);
    if (session->phase == SESSION_ENDED) {
        return;
    }
    lose(session);
    session->phase = SESSION_DISCONNECTED;
    session_check_drain(session);
}

void worker_session_on_unsent(struct worker_session *session, uint64_t now_ms)
{
    session_advance(session, now_ms);
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
    if (session_find(session, entry->lease) != NULL) {
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
    held->order = ++session->order;
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
        struct held *held = session_find(session, entry.lease);
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
        struct held *held = session_find(session, entry.lease);
        if (held != NULL) {
            session_take_back(session, held, is_stopping);
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
        session->is_draining_due = session->is_draining_due || !session->is_draining;
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
    session_advance(session, now_ms);
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
    } else if (session->is_draining_due) {
        session->is_draining_due = false;
        *event = (struct worker_event){.kind = WORKER_EVENT_DRAINING};
    } else if (session->is_drained_due) {
        session->is_drained_due = false;
        *event = (struct worker_event){.kind = WORKER_EVENT_DRAINED};
    } else {
        return false;
    }
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
    return session_next_signal(session, event) || session_next_start(session, event);
}

/* ---- looking at it ---- */

struct worker_session_counts worker_session_counts(const struct worker_session *session)
{
    struct worker_session_counts counts = session->counts;
    counts.queued =
        session->place_counts[HELD_IN_QUEUED] + session->place_counts[HELD_IN_RETURNING];
    counts.waiting = session->place_counts[HELD_IN_WAITING];
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
            session_check_taken(session, held);
            output_size += held->output_size;
            count++;
        }
        TREADLE_ASSERT(count == session->place_counts[place]);
    }
    TREADLE_ASSERT(output_size == session->output_size);
    TREADLE_ASSERT(session->room >= session->slots);
    TREADLE_ASSERT(session_held_count(session) <= HELD_COUNT_MAX);
    TREADLE_ASSERT(!session->is_draining || session->place_counts[HELD_IN_QUEUED] == 0);
    TREADLE_ASSERT(session->is_draining || session->granted >= session->sent_upto);
}
