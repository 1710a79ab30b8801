/* SPDX-License-Identifier: MPL-2.0 */
#include "client/session_state.h"

#define HELLO_BACKOFF_MAX    3 /* doublings of the heartbeat span */
#define UNACCEPTED_COUNT_MAX 16384
#define UNACCEPTED_SIZE_MAX  4194304
#define DEADLINE_STEP_MS     100
#define TURN_COUNT_MIN       16
#define TURN_PART            8 /* of retry_after passes between two turns */
#define TURN_MIN_MS          10
#define TURN_MAX_MS          1000

static const struct wire_frames *send_message(struct client_session *session, uint64_t now_ms,
                                              struct message *message)
{
    message->number = session->message_number + 1;
    message->upto = client_upto(session);
    if (!message_encode(message, &session->out)) {
        TREADLE_ASSERT(session->out.error_field ==
                       NULL); /* all that is sent was checked when it came in */
        return NULL;          /* without memory: later */
    }
    session->message_number = message->number;
    session->sent_at_ms = now_ms;
    session->acked_number = message->upto;
    session->taken_size = 0;
    session->is_ack_due = false;
    return &session->out.frames;
}

static const struct wire_frames *send_hello(struct client_session *session, uint64_t now_ms)
{
    struct message message = {.kind = MESSAGE_HELLO};
    message.as.hello = (struct wire_hello){
        .minor_from = WIRE_MINOR,
        .minor_to = WIRE_MINOR,
        .role = ROLE_CLIENT,
        .name = {session->name, session->name_size},
        .host = {session->host, session->host_size},
        .incarnation = {session->incarnation, sizeof(session->incarnation)},
    };
    const struct wire_frames *frames = send_message(session, now_ms, &message);
    if (frames != NULL) {
        if (session->hello_tries == 0) {
            session->heard_at_ms = now_ms; /* the broker's time to answer begins */
        }
        session->hello_number = message.number;
        session->hello_sent_at_ms = now_ms;
        session->has_said_hello = true;
        session->hello_at_ms = add_clamped(now_ms, heartbeat_ms(session) << session->hello_tries);
        if (session->hello_tries < HELLO_BACKOFF_MAX) {
            session->hello_tries++;
        }
    }
    return frames;
}

/* The deadline counts from when the task was submitted here; the broker, which may see it for the
 * first time with any SUBMIT, counts from that. */
static uint64_t deadline_left_ms(const struct session_task *task, uint64_t now_ms)
{
    const uint64_t deadline_ms = task->template->deadline_ms;
    uint64_t age_ms = now_ms - task->submitted_at_ms;
    if (deadline_ms == 0) {
        return 0;
    }
    age_ms -= age_ms % DEADLINE_STEP_MS; /* so that tasks can share a template */
    return age_ms < deadline_ms ? deadline_ms - age_ms : 1;
}

/* Finds or makes the task's place among the templates of the message under way; false when it is
 * full. */
static bool template_place(struct client_session *session, uint64_t now_ms,
                           const struct session_task *task, uint64_t *place)
{
    struct template *template = task->template;
    struct writer *writer = &session->template_writer;
    const uint64_t deadline_ms = deadline_left_ms(task, now_ms);
    if (template->submit_number == session->submit_number &&
        template->slot_deadline_ms == deadline_ms) {
        *place = template->slot;
        return true;
    }
    if (writer->record_count >= TEMPLATE_COUNT_MAX ||
        (writer->record_count > 0 &&
         writer->size + template->size + ENTRY_OVERHEAD > FIRST_FRAME_SIZE_MAX / 2)) {
        return false;
    }
    struct wire_list list = {.at = template->data, .size = template->size, .count = 1};
    struct wire_submit_template fields;
    TREADLE_ASSERT(wire_submit_template_next(&list, &fields));
    fields.policy.deadline_ms = deadline_ms;
    if (!wire_submit_template_encode(writer, &fields)) {
        return false;
    }
    template->submit_number = session->submit_number;
    template->slot = writer->record_count - 1;
    template->slot_deadline_ms = deadline_ms;
    *place = template->slot;
    return true;
}

static bool submit_entry_add(struct client_session *session, uint64_t now_ms,
                             struct session_task *task)
{
    if (!wire_fits(&session->entry_writer, task->body_size)) {
        return false;
    }
    if (!task->was_sent) {
        task->first_sent_at_ms = now_ms;
    }
    struct wire_submit_entry entry = {
        .id = task->id,
        .digest = {task->digest, sizeof(task->digest)},
        .body = {task->body, task->body_size},
    };
    if (task->was_sent) {
        entry.again_age_ms = smaller(1 + now_ms - task->first_sent_at_ms, SPAN_MAX_MS);
    }
    return template_place(session, now_ms, task, &entry.template_index) &&
           wire_submit_entry_encode(&session->entry_writer, &entry);
}

/* Whether the broker should first answer for what it was sent. */
static bool is_unaccepted_full(const struct client_session *session, uint64_t count, uint64_t size)
{
    const uint64_t sent_count = session->stage_counts[STAGE_SENT] + count;
    return sent_count >= UNACCEPTED_COUNT_MAX ||
           (sent_count > 0 && session->sent_size + size > UNACCEPTED_SIZE_MAX);
}

/* Refuses here what the broker that was found in the end does not admit; false without memory. */
static bool refuse_too_large(struct client_session *session, struct session_task *task)
{
    if (!client_event_tell(session, CLIENT_EVENT_ACCEPTED, task->id, ACCEPT_REFUSED,
                           REFUSED_BODY_SIZE)) {
        return false;
    }
    client_task_destroy(session, task);
    return true;
}

/* ---- turns ---- */

/* A broker at a limit says BUSY to whatever comes. A task that was told so waits for the time it
 * was told; so that a client with a million more does not learn it of each, it submits in turns
 * while it hears BUSY: a few, and no more until these are answered and a part of that time has
 * passed. A turn that is taken whole is followed at once by one of twice as many. */

void client_turn_on_busy(struct client_session *session, uint64_t now_ms, uint64_t retry_after_ms)
{
    session->turn_left_count = 0;
    if (session->turn_count_max == 0) {
        session->turn_count_max = TURN_COUNT_MIN;
        session->turn_taken_count = 0;
    } else if (session->is_turn_busy) {
        return;
    }
    const uint64_t part_ms = retry_after_ms / TURN_PART;
    const uint64_t span_ms = part_ms < TURN_MIN_MS ? TURN_MIN_MS : smaller(part_ms, TURN_MAX_MS);
    session->is_turn_busy = true;
    session->turn_at_ms = add_clamped(now_ms, span_ms + prng_below(&session->prng, span_ms + 1));
}

void client_turn_on_taken(struct client_session *session)
{
    session->turn_taken_count++;
}

/* Whether a turn is over and the next one has not begun. */
static bool is_between_turns(const struct client_session *session)
{
    return session->turn_count_max != 0 && session->turn_left_count == 0 &&
           session->stage_counts[STAGE_SENT] == 0;
}

uint64_t client_turn_next_at_ms(const struct client_session *session)
{
    return session->stage_counts[STAGE_PENDING] > 0 && is_between_turns(session)
               ? session->turn_at_ms
               : UINT64_MAX;
}

static void turn_begin(struct client_session *session)
{
    if (!session->is_turn_busy) {
        session->turn_count_max *= 2;
    } else if (session->turn_taken_count > TURN_COUNT_MIN) {
        session->turn_count_max = session->turn_taken_count;
    } else {
        session->turn_count_max = TURN_COUNT_MIN;
    }
    if (session->turn_count_max >= UNACCEPTED_COUNT_MAX) {
        session->turn_count_max = 0;
    }
    session->turn_left_count = session->turn_count_max;
    session->turn_taken_count = 0;
    session->is_turn_busy = false;
}

/* How many tasks may be submitted now. */
static uint32_t turn_room(struct client_session *session, uint64_t now_ms)
{
    if (is_between_turns(session) && now_ms >= session->turn_at_ms) {
        turn_begin(session);
    }
    return session->turn_count_max == 0 ? UINT32_MAX : session->turn_left_count;
}

static void turn_spend(struct client_session *session, uint32_t count)
{
    if (session->turn_count_max != 0) {
        session->turn_left_count -= count;
    }
}

/* ---- what goes out ---- */

static uint32_t entry_count_max(const struct client_session *session)
{
    const uint64_t count = smaller(session->welcome.entry_count_max, ENTRY_COUNT_MAX);
    return count == 0 ? 1 : (uint32_t)count;
}

static const struct wire_frames *send_submit(struct client_session *session, uint64_t now_ms)
{
    struct list *pending = &session->stages[STAGE_PENDING];
    const uint32_t count_max =
        (uint32_t)smaller(entry_count_max(session), turn_room(session, now_ms));
    uint64_t size = 0;
    uint32_t count = 0;
    session->submit_number++;
    writer_reset(&session->template_writer);
    writer_reset(&session->entry_writer);
    struct list *link = list_first(pending);
    while (link != NULL && count < count_max) {
        struct session_task *task = container_of(link, struct session_task, link);
        link = list_next(pending, link);
        if (task->body_size > session->welcome.body_size_max) {
            if (!refuse_too_large(session, task)) {
                break;
            }
            continue;
        }
        if (is_unaccepted_full(session, count, size + task->body_size) ||
            !submit_entry_add(session, now_ms, task)) {
            break;
        }
        size += task->body_size;
        count++;
    }
    if (count == 0) {
        return NULL;
    }
    struct message message = {.kind = MESSAGE_SUBMIT};
    message.as.submit.templates =
        wire_list_from_writer(&session->template_writer, session->template_writer.record_count);
    message.as.submit.entries = wire_list_from_writer(&session->entry_writer, count);
    const struct wire_frames *frames = send_message(session, now_ms, &message);
    if (frames == NULL) {
        return NULL;
    }
    turn_spend(session, count);
    for (; count > 0; count--) {
        struct session_task *task = container_of(pending->next, struct session_task, link);
        session->again_count += task->was_sent ? 1 : 0;
        task->was_sent = true;
        client_task_move(session, task, STAGE_SENT);
    }
    return frames;
}

static const struct wire_frames *send_await(struct client_session *session, uint64_t now_ms)
{
    struct list *pending = &session->stages[STAGE_AWAIT_PENDING];
    const uint32_t sent_count = session->stage_counts[STAGE_AWAIT_SENT];
    const uint32_t room = sent_count < UNACCEPTED_COUNT_MAX ? UNACCEPTED_COUNT_MAX - sent_count : 0;
    const uint64_t count_max = smaller(entry_count_max(session), room);
    writer_reset(&session->entry_writer);
    for (struct list *link = list_first(pending);
         link != NULL && session->entry_writer.record_count < count_max;
         link = list_next(pending, link)) {
        const struct session_task *task = container_of(link, struct session_task, link);
        const struct wire_id_entry entry = {.id = task->id};
        if (!wire_id_entry_encode(&session->entry_writer, &entry)) {
            break;
        }
    }
    uint32_t count = session->entry_writer.record_count;
    if (count == 0) {
        return NULL;
    }
    struct message message = {.kind = MESSAGE_AWAIT};
    message.as.await.entries = wire_list_from_writer(&session->entry_writer, count);
    const struct wire_frames *frames = send_message(session, now_ms, &message);
    for (; frames != NULL && count > 0; count--) {
        client_task_move(session, container_of(pending->next, struct session_task, link),
                         STAGE_AWAIT_SENT);
    }
    return frames;
}

/* A cancellation must not pass the submission it is about. */
static bool may_cancel_now(const struct client_session *session,
                           const struct cancel_request *cancel)
{
    const struct session_task *task = client_task_find(session, &cancel->id);
    return task == NULL || task->stage != STAGE_PENDING;
}

static const struct wire_frames *send_cancel(struct client_session *session, uint64_t now_ms)
{
    struct list chosen;
    struct list *link = list_first(&session->cancels_pending);
    list_init(&chosen);
    writer_reset(&session->entry_writer);
    while (link != NULL && session->entry_writer.record_count < entry_count_max(session)) {
        struct cancel_request *cancel = container_of(link, struct cancel_request, link);
        link = list_next(&session->cancels_pending, link);
        const struct wire_id_entry entry = {.id = cancel->id};
        if (!may_cancel_now(session, cancel)) {
            continue;
        }
        if (!wire_id_entry_encode(&session->entry_writer, &entry)) {
            break;
        }
        list_remove(&cancel->link);
        list_push_back(&chosen, &cancel->link);
    }
    const uint32_t count = session->entry_writer.record_count;
    const struct wire_frames *frames = NULL;
    if (count > 0) {
        struct message message = {.kind = MESSAGE_CANCEL};
        message.as.cancel.entries = wire_list_from_writer(&session->entry_writer, count);
        frames = send_message(session, now_ms, &message);
    }
    while ((link = list_pop_front(&chosen)) != NULL) {
        list_push_back(frames != NULL ? &session->cancels_sent : &session->cancels_pending, link);
    }
    return frames;
}

static const struct wire_frames *send_request(struct client_session *session, uint64_t now_ms)
{
    for (struct list *link = list_first(&session->requests); link != NULL;
         link = list_next(&session->requests, link)) {
        struct query_request *request = container_of(link, struct query_request, link);
        if (!request->is_sent) {
            const struct wire_frames *frames = send_message(session, now_ms, &request->message);
            request->is_sent = frames != NULL;
            return frames;
        }
    }
    return NULL;
}

static const struct wire_frames *send_plain(struct client_session *session, uint64_t now_ms,
                                            enum message_kind kind)
{
    struct message message = {.kind = kind};
    return send_message(session, now_ms, &message);
}

/* What is not about being alive. */
static const struct wire_frames *send_work(struct client_session *session, uint64_t now_ms)
{
    const struct wire_frames *frames = NULL;
    if (session->stage_counts[STAGE_PENDING] > 0) {
        frames = send_submit(session, now_ms);
    }
    if (frames == NULL && session->stage_counts[STAGE_AWAIT_PENDING] > 0) {
        frames = send_await(session, now_ms);
    }
    if (frames == NULL && !list_is_empty(&session->cancels_pending)) {
        frames = send_cancel(session, now_ms);
    }
    if (frames == NULL && session->request_count > 0) {
        frames = send_request(session, now_ms);
    }
    return frames;
}

const struct wire_frames *client_session_take_message(struct client_session *session,
                                                      uint64_t now_ms)
{
    if (!session->is_connected || session->is_over) {
        return NULL;
    }
    if (session->is_leaving) {
        const struct wire_frames *frames =
            session->is_welcome ? send_plain(session, now_ms, MESSAGE_GOODBYE) : NULL;
        end_for_good(session);
        return frames;
    }
    if (!session->is_welcome) {
        return now_ms >= session->hello_at_ms ? send_hello(session, now_ms) : NULL;
    }
    const struct wire_frames *frames = send_work(session, now_ms);
    if (frames == NULL && (session->is_ack_due ||
                           now_ms >= add_clamped(session->sent_at_ms, heartbeat_ms(session)))) {
        frames = send_plain(session, now_ms, MESSAGE_HEARTBEAT);
    }
    return frames;
}
