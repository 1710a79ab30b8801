/* SPDX-License-Identifier: MPL-2.0 */
/* What a worker's session sends: one message at a time, made of what is due when it is taken. */
#include "common/base/assert.h"
#include "worker/session_state.h"

/* Whether the broker may be waiting for a grant that no other message brings. */
static bool is_grant_due(const struct worker_session *session)
{
    return session->granted > session->sent_upto &&
           session->sent_upto <= session->base + session->received;
}

/* The kind of the next message, or 0. */
static unsigned next_kind(const struct worker_session *session)
{
    if (session->now_ms < session->retry_at_ms) {
        return 0;
    }
    if (session->phase == SESSION_GREETING) {
        return session->now_ms >= session->hello_at_ms ? MESSAGE_HELLO : 0;
    }
    if (session->phase != SESSION_LIVE) {
        return 0;
    }
    if (session->place_counts[HELD_IN_RETURNING] > 0) {
        return MESSAGE_RETURNED;
    }
    if (session->place_counts[HELD_IN_FINISHED] > 0) {
        return MESSAGE_RESULT;
    }
    if (!list_is_empty(&session->progressing)) {
        return MESSAGE_PROGRESS;
    }
    if (session_is_leaving(session)) {
        return MESSAGE_GOODBYE;
    }
    if (is_grant_due(session) || session->now_ms - session->sent_at_ms >= session->heartbeat_ms) {
        return MESSAGE_HEARTBEAT;
    }
    return 0;
}

bool worker_session_has_message(const struct worker_session *session)
{
    return next_kind(session) != 0;
}

static enum held_state held_state(enum held_place place)
{
    switch (place) {
    case HELD_IN_QUEUED:
    case HELD_IN_RETURNING:
    case HELD_IN_WAITING:
        return HELD_QUEUED;
    case HELD_IN_RUNNING:
        return HELD_RUNNING;
    case HELD_IN_FINISHED:
    case HELD_IN_OFFERED:
    case HELD_PLACE_COUNT:
        break;
    }
    return HELD_FINISHED;
}

static bool add_held(struct worker_session *session)
{
    for (int place = 0; place < HELD_PLACE_COUNT; place++) {
        const struct list *head = &session->places[place];
        for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
            const struct held *held = container_of(link, struct held, link);
            const struct wire_held_lease lease = {
                .lease = held->attempt.lease,
                .state = held_state(held->place),
            };
            if (!wire_held_lease_encode(&session->entries, &lease)) {
                return false;
            }
        }
    }
    return true;
}

static bool make_hello(struct worker_session *session, struct message *message)
{
    if (!add_held(session)) {
        return false;
    }
    message->as.hello = (struct wire_hello){
        .minor_from = WIRE_MINOR,
        .minor_to = WIRE_MINOR,
        .role = ROLE_WORKER,
        .name = {(const uint8_t *)session->name, session->name_size},
        .host = {(const uint8_t *)session->host, session->host_size},
        .incarnation = {session->incarnation, sizeof(session->incarnation)},
        .slots = session->slots,
        .serves = wire_list_from_writer(&session->serves, session->serves.record_count),
        .leases = wire_list_from_writer(&session->entries, session->entries.record_count),
    };
    return true;
}

static bool make_returned(struct worker_session *session, struct message *message)
{
    struct list *head = &session->places[HELD_IN_RETURNING];
    for (struct list *link = list_first(head);
         link != NULL && session->entries.record_count < session->entry_count_max;
         link = list_next(head, link)) {
        const struct held *held = container_of(link, struct held, link);
        const struct wire_lease_entry entry = {.lease = held->attempt.lease};
        if (!wire_lease_entry_encode(&session->entries, &entry)) {
            break;
        }
    }
    message->as.returned.entries =
        wire_list_from_writer(&session->entries, session->entries.record_count);
    return session->entries.record_count > 0;
}

/* Whether the end of one more attempt fits into the RESULT being made. */
static bool result_fits(const struct worker_session *session, const struct held *held)
{
    const uint32_t count = session->entries.record_count + session->failures.record_count;
    if (count == 0) {
        return true;
    }
    if (count >= session->entry_count_max || session->entries.bodies_size > BODY_FRAMES_SIZE_MAX) {
        return false;
    }
    if (!held->is_success) {
        return wire_fits(&session->failures, 0);
    }
    const size_t size = held->success.body.size;
    return size <= BODY_FRAMES_SIZE_MAX && wire_fits(&session->entries, size);
}

static bool make_result(struct worker_session *session, struct message *message)
{
    struct list *head = &session->places[HELD_IN_FINISHED];
    for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
        const struct held *held = container_of(link, struct held, link);
        if (!result_fits(session, held)) {
            break;
        }
        if (held->is_success ? !wire_success_entry_encode(&session->entries, &held->success)
                             : !wire_failure_entry_encode(&session->failures, &held->failure)) {
            TREADLE_ASSERT(session->entries.error_field == NULL); /* else a field out of range */
            TREADLE_ASSERT(session->failures.error_field == NULL);
            break;
        }
    }
    message->as.result.successes =
        wire_list_from_writer(&session->entries, session->entries.record_count);
    message->as.result.failures =
        wire_list_from_writer(&session->failures, session->failures.record_count);
    return session->entries.record_count + session->failures.record_count > 0;
}

static bool make_progress(struct worker_session *session, struct message *message)
{
    struct list *head = &session->progressing;
    for (struct list *link = list_first(head);
         link != NULL && session->entries.record_count < session->entry_count_max &&
         wire_fits(&session->entries, 0);
         link = list_next(head, link)) {
        const struct held *held = container_of(link, struct held, progress_link);
        const struct wire_progress_entry entry = {
            .lease = held->attempt.lease,
            .meta = held->meta,
        };
        if (!wire_progress_entry_encode(&session->entries, &entry)) {
            break;
        }
    }
    message->as.progress.entries =
        wire_list_from_writer(&session->entries, session->entries.record_count);
    return session->entries.record_count > 0;
}

static bool make(struct worker_session *session, struct message *message)
{
    writer_reset(&session->entries);
    writer_reset(&session->failures);
    bool is_made = true;
    if (message->kind == MESSAGE_HELLO) {
        is_made = make_hello(session, message);
    } else if (message->kind == MESSAGE_RETURNED) {
        is_made = make_returned(session, message);
    } else if (message->kind == MESSAGE_RESULT) {
        is_made = make_result(session, message);
    } else if (message->kind == MESSAGE_PROGRESS) {
        is_made = make_progress(session, message);
    }
    return is_made && message_encode(message, &session->out);
}

/* The message is made: what it carries is no longer due. */
static void on_taken(struct worker_session *session, enum message_kind kind)
{
    const uint32_t count = session->entries.record_count + session->failures.record_count;
    session->sent_at_ms = session->now_ms;
    if (kind == MESSAGE_HELLO) {
        session->hello_number = session->number;
        session->hello_at_ms = session->now_ms + session->heartbeat_ms;
        session->is_synced = false;
        return;
    }
    session->sent_upto = session->granted;
    for (uint32_t i = 0; i < count; i++) {
        if (kind == MESSAGE_RETURNED) {
            session_forget(session, container_of(list_first(&session->places[HELD_IN_RETURNING]),
                                                 struct held, link));
        } else if (kind == MESSAGE_RESULT) {
            session_move(
                session,
                container_of(list_first(&session->places[HELD_IN_FINISHED]), struct held, link),
                HELD_IN_OFFERED);
        } else if (kind == MESSAGE_PROGRESS) {
            (void)list_pop_front(&session->progressing);
        }
    }
    if (kind == MESSAGE_GOODBYE) {
        session_leave(session);
    }
}

const struct wire_frames *worker_session_take_message(struct worker_session *session)
{
    const unsigned kind = next_kind(session);
    if (kind == 0) {
        return NULL;
    }
    struct message message = {
        .kind = (enum message_kind)kind,
        .number = session->number + 1,
        .upto = kind == MESSAGE_HELLO ? 0 : session->granted,
    };
    if (!make(session, &message)) {
        session->retry_at_ms = session->now_ms + session->heartbeat_ms;
        return NULL;
    }
    session->number++;
    on_taken(session, message.kind);
    return &session->out.frames;
}
