/* SPDX-License-Identifier: MPL-2.0 */
#include "client/session_state.h"

#include <stdlib.h>
#include <string.h>

#define IN_FLIGHT_LIMIT      (UINT32_C(1) << 24)
#define WINDOW_SIZE_DEFAULT  262144
#define WINDOW_COUNT_DEFAULT 1024
#define HELLO_SPACE_MS       20 /* between HELLOs: a peer that always finds gaps makes no storm */
#define REQUEST_COUNT_MAX    64
#define BUSY_MIN_MS          10
#define AWAIT_RETRY_MS       500

/* ---- life ---- */

static bool allocate(struct client_session *session)
{
    const uint32_t count = session->in_flight_max;
    session->tasks = calloc(count, sizeof(struct session_task *));
    session->free_indexes = calloc(count, sizeof(uint32_t));
    session->heap = calloc(count, sizeof(struct session_task *));
    session->map_memory = calloc(1, map_memory_size(count));
    if (session->tasks == NULL || session->free_indexes == NULL || session->heap == NULL ||
        session->map_memory == NULL) {
        return false;
    }
    map_init(&session->map, session->map_memory, count);
    return client_templates_init(session);
}

struct client_session *client_session_create(const struct client_session_config *config)
{
    TREADLE_ASSERT(config->name.size >= 1 && config->name.size <= NAME_SIZE_MAX);
    TREADLE_ASSERT(config->host.size <= NAME_SIZE_MAX);
    TREADLE_ASSERT(config->in_flight_max >= 1 && config->in_flight_max <= IN_FLIGHT_LIMIT);
    struct client_session *session = calloc(1, sizeof(*session));
    if (session == NULL) {
        return NULL;
    }
    memcpy(session->name, config->name.data, config->name.size);
    session->name_size = config->name.size;
    if (config->host.size > 0) {
        memcpy(session->host, config->host.data, config->host.size);
    }
    session->host_size = config->host.size;
    memcpy(session->incarnation, config->incarnation, sizeof(session->incarnation));
    prng_seed(&session->prng, config->seed);
    session->hash_key.a = prng_next(&session->prng);
    session->hash_key.b = prng_next(&session->prng);
    session->window_size = config->window_size != 0 ? config->window_size : WINDOW_SIZE_DEFAULT;
    session->window_count = config->window_count != 0 ? config->window_count : WINDOW_COUNT_DEFAULT;
    session->in_flight_max = config->in_flight_max;
    session->byte_max = config->byte_max;
    if (config->byte_max != 0) { /* no index for tasks that never find room */
        const uint64_t count_max = config->byte_max / client_task_cost(0);
        session->in_flight_max =
            count_max < 1 ? 1 : (uint32_t)smaller(config->in_flight_max, count_max);
    }
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        list_init(&session->stages[stage]);
    }
    list_init(&session->cancels_pending);
    list_init(&session->cancels_sent);
    list_init(&session->requests);
    list_init(&session->events);
    list_init(&session->settled);
    writer_init(&session->scratch);
    writer_init(&session->template_writer);
    writer_init(&session->entry_writer);
    writer_init(&session->out);
    if (!allocate(session)) {
        client_session_destroy(&session);
    }
    return session;
}

static void request_destroy(struct client_session *session, struct query_request *request)
{
    list_remove(&request->link);
    session->request_count--;
    writer_free(&request->bytes);
    free(request);
}

void client_session_destroy(struct client_session **session_pointer)
{
    struct client_session *session = *session_pointer;
    if (session == NULL) {
        return;
    }
    for (uint32_t i = 0; i < session->index_count; i++) {
        if (session->tasks[i] != NULL) {
            client_task_destroy(session, session->tasks[i]);
        }
    }
    client_cancels_destroy(session);
    struct list *link = session->requests.next;
    while (link != &session->requests) {
        struct query_request *request = container_of(link, struct query_request, link);
        link = link->next;
        request_destroy(session, request);
    }
    struct client_event *event = NULL;
    while ((event = client_session_take_event(session, NULL, NULL)) != NULL) {
        client_event_destroy(&event);
    }
    writer_free(&session->scratch);
    writer_free(&session->template_writer);
    writer_free(&session->entry_writer);
    writer_free(&session->out);
    free(session->welcome_services);
    free(session->tasks);
    free(session->free_indexes);
    free(session->heap);
    free(session->map_memory);
    free(session->templates);
    free(session);
    *session_pointer = NULL;
}

/* ---- the session on the connection ---- */

/* From now on only a WELCOME to a HELLO that is still to be sent counts. */
static void say_hello_at(struct client_session *session, uint64_t at_ms)
{
    session->is_welcome = false;
    session->hello_number = 0;
    session->hello_tries = 0;
    session->hello_at_ms = at_ms;
    if (session->has_said_hello && at_ms < add_clamped(session->hello_sent_at_ms, HELLO_SPACE_MS)) {
        session->hello_at_ms = add_clamped(session->hello_sent_at_ms, HELLO_SPACE_MS);
    }
}

void client_session_on_connected(struct client_session *session, uint64_t now_ms)
{
    session->is_connected = true;
    session->wants_reconnect = false;
    session->heard_at_ms = now_ms;
    say_hello_at(session, now_ms);
    session->hello_at_ms = now_ms; /* a connection of its own: no need to keep a distance */
}

void client_session_on_disconnected(struct client_session *session, uint64_t now_ms)
{
    session->is_connected = false;
    session->wants_reconnect = false;
    say_hello_at(session, now_ms);
}

/* Puts what was sent and not answered back to where it is sent from, in its order and before the
 * rest. */
static void move_all_to_front(struct client_session *session, enum stage from, enum stage to)
{
    while (!list_is_empty(&session->stages[from])) {
        struct session_task *task =
            container_of(session->stages[from].prev, struct session_task, link);
        client_task_unlink(session, task);
        client_task_link(session, task, to, true);
    }
}

/* The broker has none of the tasks it had: each that is still wanted is submitted as if for the
 * first time. */
static bool submit_lost_again(struct client_session *session, enum stage stage)
{
    struct list *link = session->stages[stage].prev;
    while (link != &session->stages[stage]) {
        struct session_task *task = container_of(link, struct session_task, link);
        link = link->prev;
        const enum stage target = task->template != NULL ? STAGE_PENDING : STAGE_AWAIT_PENDING;
        task->was_sent = false;
        task->needs_await = task->tells_awaited;
        if (task->is_cancel_requested && task->template != NULL) {
            if (!client_task_cancel_here(session, task)) {
                return false;
            }
        } else if (stage != target) {
            client_task_unlink(session, task);
            client_task_link(session, task, target, true);
        }
    }
    return true;
}

static bool on_new_epoch(struct client_session *session)
{
    static const enum stage stages[] = {STAGE_PENDING,    STAGE_SENT,       STAGE_AWAIT_PENDING,
                                        STAGE_AWAIT_SENT, STAGE_AWAIT_BUSY, STAGE_FOLLOWED};
    for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++) {
        if (!submit_lost_again(session, stages[i])) {
            return false;
        }
    }
    session->turn_count_max = 0; /* what was said of the old broker's limits */
    return true;
}

static void restart_settled_numbers(struct client_session *session)
{
    while (list_pop_front(&session->settled) != NULL) {
        /* those events stay, but there is nobody any more to acknowledge them to */
    }
    session->received_number = 0;
    session->acked_number = 0;
    session->taken_size = 0;
    session->is_ack_due = false;
}

/* Takes the copy of its services. */
static void keep_welcome(struct client_session *session, const struct wire_welcome *welcome,
                         uint8_t *services)
{
    session->welcome = *welcome;
    session->has_welcome = true;
    memcpy(session->welcome_id, welcome->broker_id.data, welcome->broker_id.size);
    session->welcome.broker_id.data = session->welcome_id;
    if (welcome->version.size > 0) {
        memcpy(session->welcome_version, welcome->version.data, welcome->version.size);
    }
    session->welcome.version.data = session->welcome_version;
    if (welcome->principal.size > 0) {
        memcpy(session->welcome_principal, welcome->principal.data, welcome->principal.size);
    }
    session->welcome.principal.data = session->welcome_principal;
    free(session->welcome_services);
    session->welcome_services = services;
    session->welcome.services.at = services;
    session->welcome.services.frames = NULL;
}

/* False: no memory. */
static bool copy_services(const struct wire_welcome *welcome, uint8_t **copy)
{
    const struct wire_list *services = &welcome->services;
    *copy = NULL;
    if (services->size == 0) {
        return true;
    }
    *copy = malloc(services->size);
    if (*copy != NULL) {
        memcpy(*copy, services->at, services->size);
    }
    return *copy != NULL;
}

static void offer_again(struct client_session *session)
{
    struct list *link = NULL;
    move_all_to_front(session, STAGE_SENT, STAGE_PENDING);
    move_all_to_front(session, STAGE_AWAIT_SENT, STAGE_AWAIT_PENDING);
    while (!list_is_empty(&session->cancels_sent)) {
        link = session->cancels_sent.prev;
        list_remove(link);
        list_push_front(&session->cancels_pending, link);
    }
    for (link = list_first(&session->requests); link != NULL;
         link = list_next(&session->requests, link)) {
        container_of(link, struct query_request, link)->is_sent = false;
    }
}

static enum treadle_status on_welcome(struct client_session *session, uint64_t now_ms,
                                      const struct message *message)
{
    const struct wire_welcome *welcome = &message->as.welcome;
    if (session->is_welcome || session->hello_number == 0 ||
        welcome->hello_number != session->hello_number) {
        session->double_count++;
        return TREADLE_OK;
    }
    struct client_event *event = client_event_create(CLIENT_EVENT_WELCOME, 0);
    if (event == NULL) {
        return TREADLE_E_NOMEM; /* the next HELLO brings another */
    }
    const bool is_new_epoch = session->has_welcome && session->welcome.epoch != welcome->epoch;
    const bool is_resumed = welcome->is_resumed != 0 && session->has_welcome && !is_new_epoch;
    uint8_t *services = NULL;
    if (!copy_services(welcome, &services) || (is_new_epoch && !on_new_epoch(session))) {
        free(services);
        client_event_destroy(&event);
        return TREADLE_E_NOMEM;
    }
    offer_again(session);
    if (!is_resumed) {
        restart_settled_numbers(session);
        move_all_to_front(session, STAGE_FOLLOWED, STAGE_AWAIT_PENDING);
    }
    keep_welcome(session, welcome, services);
    session->is_welcome = true;
    session->hello_number = 0;
    session->hello_tries = 0;
    session->expected_number = message->number + 1;
    session->heard_at_ms = now_ms;
    event->is_resumed = is_resumed;
    event->is_new_epoch = is_new_epoch;
    event->epoch = welcome->epoch;
    client_event_push(session, event);
    return TREADLE_OK;
}

static enum treadle_status on_refused(struct client_session *session, uint64_t now_ms,
                                      const struct message *message)
{
    const struct wire_refused *refused = &message->as.refused;
    if (message->number != 0 && session->is_welcome && message->number < session->expected_number) {
        session->double_count++;
        return TREADLE_OK;
    }
    if (refused->code == REFUSED_HELLO_FIRST) {
        if (session->is_welcome) { /* else a HELLO is under way */
            session->gap_count++;
            say_hello_at(session, now_ms);
        }
        return TREADLE_OK;
    }
    struct client_event *event = client_event_create(CLIENT_EVENT_REFUSED, refused->text.size + 1);
    if (event == NULL) {
        return TREADLE_E_NOMEM;
    }
    uint8_t *to = (uint8_t *)(event + 1);
    event->status = refused->code;
    event->retry_after_ms = refused->retry_after_ms;
    event->text = client_event_keep(&to, refused->text);
    client_event_push(session, event);
    if (refused->code == REFUSED_REPLACED || refused->code == REFUSED_VERSION ||
        (refused->code == REFUSED_RIGHTS && refused->retry_after_ms == 0)) {
        end_for_good(session);
        return TREADLE_OK;
    }
    const uint64_t span_ms = refused->retry_after_ms > heartbeat_ms(session)
                                 ? refused->retry_after_ms
                                 : heartbeat_ms(session);
    say_hello_at(session, add_clamped(now_ms, span_ms));
    return TREADLE_OK;
}

/* ---- the broker's answers ---- */

/* Submitted, and no answer has come. */
static bool is_unanswered(const struct session_task *task)
{
    return task->stage == STAGE_SENT || (task->stage == STAGE_PENDING && task->was_sent);
}

static enum treadle_status on_accepted_entry(struct client_session *session, uint64_t now_ms,
                                             const struct wire_accepted_entry *entry)
{
    struct session_task *task = client_task_find(session, &entry->id);
    if (task == NULL || !is_unanswered(task)) {
        return TREADLE_OK; /* answered before, settled or cancelled meanwhile */
    }
    const bool is_taken = entry->status == ACCEPT_OK || entry->status == ACCEPT_EXISTING;
    const bool is_told = is_taken
                             ? (task->tell & CLIENT_TELL_ACCEPTED) != 0
                             : entry->status != ACCEPT_BUSY || (task->tell & CLIENT_TELL_BUSY) != 0;
    if (is_told) {
        struct client_event *event = client_event_create(CLIENT_EVENT_ACCEPTED, 0);
        if (event == NULL) {
            return TREADLE_E_NOMEM;
        }
        event->id = entry->id;
        event->status = entry->status;
        event->reason = entry->reason;
        event->retry_after_ms = entry->retry_after_ms;
        client_event_push(session, event);
    }
    if (entry->status == ACCEPT_BUSY && entry->reason != BUSY_NAMES) { /* not of this name alone */
        client_turn_on_busy(session, now_ms, entry->retry_after_ms);
    }
    if (is_taken) {
        client_turn_on_taken(session);
        client_task_accepted(session, task);
    } else if (is_told) {
        client_task_destroy(session, task);
    } else if (task->is_cancel_requested) {
        return client_task_cancel_here(session, task) ? TREADLE_OK : TREADLE_E_NOMEM;
    } else {
        const uint64_t after_ms =
            entry->retry_after_ms < BUSY_MIN_MS ? BUSY_MIN_MS : entry->retry_after_ms;
        task->was_sent = false; /* the broker said that it has not got it */
        client_task_wait(session, task, STAGE_BUSY,
                         add_clamped(now_ms, after_ms + prng_below(&session->prng, after_ms + 1)));
    }
    return TREADLE_OK;
}

static enum treadle_status on_accepted(struct client_session *session, uint64_t now_ms,
                                       const struct message *message)
{
    struct wire_list entries = message->as.accepted.entries;
    struct wire_accepted_entry entry;
    while (wire_accepted_entry_next(&entries, &entry)) {
        const enum treadle_status status = on_accepted_entry(session, now_ms, &entry);
        if (status != TREADLE_OK) {
            return status;
        }
    }
    return TREADLE_OK;
}

static enum treadle_status on_settled_entry(struct client_session *session,
                                            const struct wire_settled_entry *entry)
{
    struct session_task *task = client_task_find(session, &entry->id);
    if (task != NULL && is_unanswered(task)) {
        client_turn_on_taken(session);
    }
    if (task == NULL || !task->is_watched) {
        if (task != NULL) {
            client_task_destroy(session, task);
        }
        session->received_number++;
        client_note_taken(session, entry->body.size); /* nobody waits for it: taken at once */
        return TREADLE_OK;
    }
    struct client_event *event = client_event_from_settled(entry);
    if (event == NULL) {
        return TREADLE_E_NOMEM;
    }
    event->number = ++session->received_number;
    list_push_back(&session->settled, &event->settled_link);
    client_event_push(session, event);
    client_task_destroy(session, task);
    return TREADLE_OK;
}

static enum treadle_status on_settled(struct client_session *session, uint64_t now_ms,
                                      const struct message *message)
{
    struct wire_list entries = message->as.settled.entries;
    struct wire_settled_entry entry;
    uint64_t number = message->as.settled.first;
    for (; wire_settled_entry_next(&entries, &entry); number++) {
        if (number <= session->received_number) {
            session->double_count++;
            continue;
        }
        if (number != session->received_number + 1) {
            session->gap_count++;
            say_hello_at(session, now_ms);
            return TREADLE_OK;
        }
        const enum treadle_status status = on_settled_entry(session, &entry);
        if (status != TREADLE_OK) {
            return status;
        }
    }
    return TREADLE_OK;
}

/* The answer to a submission whose task has settled and been forgotten. */
static enum treadle_status on_submitted_gone(struct client_session *session,
                                             struct session_task *task)
{
    const bool is_told = task->is_watched || (task->tell & CLIENT_TELL_ACCEPTED) != 0;
    const enum client_event_kind kind =
        task->is_watched ? CLIENT_EVENT_AWAITED : CLIENT_EVENT_ACCEPTED;
    const uint64_t status = task->is_watched ? (uint64_t)AWAIT_GONE : (uint64_t)ACCEPT_EXISTING;
    if (is_told && !client_event_tell(session, kind, task->id, status, 0)) {
        return TREADLE_E_NOMEM;
    }
    client_task_destroy(session, task);
    return TREADLE_OK;
}

static enum treadle_status on_awaited_entry(struct client_session *session, uint64_t now_ms,
                                            const struct wire_awaited_entry *entry)
{
    struct session_task *task = client_task_find(session, &entry->id);
    const bool is_lost = entry->status == AWAIT_GONE || entry->status == AWAIT_UNKNOWN;
    if (task != NULL && entry->status == AWAIT_GONE && is_unanswered(task)) {
        return on_submitted_gone(session, task);
    }
    if (task == NULL ||
        (task->stage != STAGE_AWAIT_SENT && (task->stage != STAGE_FOLLOWED || !is_lost))) {
        return TREADLE_OK; /* answered before */
    }
    if ((is_lost && task->is_watched) || (task->tells_awaited && entry->status != AWAIT_BUSY)) {
        if (!client_event_tell(session, CLIENT_EVENT_AWAITED, entry->id, entry->status, 0)) {
            return TREADLE_E_NOMEM;
        }
        task->tells_awaited = false;
    }
    if (is_lost) {
        client_task_destroy(session, task);
    } else if (entry->status == AWAIT_BUSY) {
        client_task_wait(
            session, task, STAGE_AWAIT_BUSY,
            add_clamped(now_ms, AWAIT_RETRY_MS + prng_below(&session->prng, AWAIT_RETRY_MS)));
    } else {
        client_task_move(session, task, STAGE_FOLLOWED);
    }
    return TREADLE_OK;
}

static enum treadle_status on_awaited(struct client_session *session, uint64_t now_ms,
                                      const struct message *message)
{
    struct wire_list entries = message->as.awaited.entries;
    struct wire_awaited_entry entry;
    while (wire_awaited_entry_next(&entries, &entry)) {
        const enum treadle_status status = on_awaited_entry(session, now_ms, &entry);
        if (status != TREADLE_OK) {
            return status;
        }
    }
    return TREADLE_OK;
}

static enum treadle_status on_cancelled(struct client_session *session,
                                        const struct message *message)
{
    struct wire_list entries = message->as.cancelled.entries;
    struct wire_cancelled_entry entry;
    while (wire_cancelled_entry_next(&entries, &entry)) {
        if (!client_cancel_answered(session, &entry)) {
            return TREADLE_E_NOMEM;
        }
    }
    return TREADLE_OK;
}

/* The number of the request that a message asks or answers; NULL if it is neither. */
static uint64_t *request_of(struct message *message)
{
    switch ((unsigned)message->kind) { /* most kinds have none */
    case MESSAGE_TASK_QUERY:
        return &message->as.task_query.request;
    case MESSAGE_TASK_INFO:
        return &message->as.task_info.request;
    case MESSAGE_TASK_LIST:
        return &message->as.task_list.request;
    case MESSAGE_TASK_PAGE:
        return &message->as.task_page.request;
    case MESSAGE_SERVICE_QUERY:
        return &message->as.service_query.request;
    case MESSAGE_SERVICE_INFO:
        return &message->as.service_info.request;
    case MESSAGE_SERVICE_SET:
        return &message->as.service_set.request;
    case MESSAGE_WORKER_QUERY:
        return &message->as.worker_query.request;
    case MESSAGE_WORKER_INFO:
        return &message->as.worker_info.request;
    case MESSAGE_WORKER_DRAIN:
        return &message->as.worker_drain.request;
    case MESSAGE_BROKER_QUERY:
        return &message->as.broker_query.request;
    case MESSAGE_BROKER_INFO:
        return &message->as.broker_info.request;
    case MESSAGE_BROKER_DRAIN:
        return &message->as.broker_drain.request;
    case MESSAGE_DONE:
        return &message->as.done.request;
    case MESSAGE_BROKER_RELOAD:
        return &message->as.broker_reload.request;
    default:
        return NULL;
    }
}

static struct query_request *request_find(const struct client_session *session, uint64_t number)
{
    for (struct list *link = list_first(&session->requests); link != NULL;
         link = list_next(&session->requests, link)) {
        struct query_request *request = container_of(link, struct query_request, link);
        if (request->number == number) {
            return request;
        }
    }
    return NULL;
}

/* Copies a message by encoding and decoding it: `copy` then points into `bytes`. */
static enum treadle_status message_copy(const struct message *message, struct message *copy,
                                        struct writer *bytes)
{
    if (!message_encode(message, bytes)) {
        return bytes->error_field != NULL ? TREADLE_E_INVALID : TREADLE_E_NOMEM;
    }
    const enum wire_status status = message_decode(copy, &bytes->frames, &wire_limits_protocol);
    return status == WIRE_OK ? TREADLE_OK : TREADLE_E_INVALID;
}

static enum treadle_status on_answer(struct client_session *session, const struct message *message)
{
    struct message answer = *message;
    const uint64_t number = *request_of(&answer);
    struct query_request *request = request_find(session, number);
    if (request == NULL) {
        session->double_count++;
        return TREADLE_OK;
    }
    struct client_event *event = client_event_create(CLIENT_EVENT_ANSWER, 0);
    struct answer_storage *storage = calloc(1, sizeof(*storage));
    if (event == NULL || storage == NULL) {
        free(event);
        free(storage);
        return TREADLE_E_NOMEM;
    }
    writer_init(&storage->bytes);
    event->storage = storage;
    const enum treadle_status status = message_copy(message, &storage->message, &storage->bytes);
    if (status != TREADLE_OK) {
        client_event_destroy(&event);
        return status == TREADLE_E_NOMEM ? status : TREADLE_E_PROTOCOL;
    }
    event->request = number;
    event->answer = &storage->message;
    client_event_push(session, event);
    request_destroy(session, request);
    return TREADLE_OK;
}

static enum treadle_status take_in(struct client_session *session, uint64_t now_ms,
                                   const struct message *message)
{
    switch ((unsigned)message->kind) { /* the other kinds are not for clients */
    case MESSAGE_HEARTBEAT:
        return TREADLE_OK;
    case MESSAGE_GOODBYE:
        say_hello_at(session, add_clamped(now_ms, heartbeat_ms(session)));
        return TREADLE_OK;
    case MESSAGE_ACCEPTED:
        return on_accepted(session, now_ms, message);
    case MESSAGE_SETTLED:
        return on_settled(session, now_ms, message);
    case MESSAGE_AWAITED:
        return on_awaited(session, now_ms, message);
    case MESSAGE_CANCELLED:
        return on_cancelled(session, message);
    case MESSAGE_TASK_INFO:
    case MESSAGE_TASK_PAGE:
    case MESSAGE_SERVICE_INFO:
    case MESSAGE_WORKER_INFO:
    case MESSAGE_BROKER_INFO:
    case MESSAGE_DONE:
        return on_answer(session, message);
    default:
        return TREADLE_E_PROTOCOL;
    }
}

enum treadle_status client_session_on_message(struct client_session *session, uint64_t now_ms,
                                              const struct message *message)
{
    if (session->is_over) {
        return TREADLE_OK;
    }
    session->heard_at_ms = now_ms;
    if (message->kind == MESSAGE_WELCOME) {
        return on_welcome(session, now_ms, message);
    }
    if (message->kind == MESSAGE_REFUSED) {
        const enum treadle_status status = on_refused(session, now_ms, message);
        if (session->is_welcome && message->number == session->expected_number) {
            session->expected_number++;
        }
        return status;
    }
    if (!session->is_welcome) {
        return TREADLE_OK; /* of a session that is no more; what counts in it is offered again */
    }
    if (message->number < session->expected_number) {
        session->double_count++;
        return TREADLE_OK;
    }
    if (message->number > session->expected_number) {
        session->gap_count++;
        say_hello_at(session, now_ms);
        return TREADLE_OK;
    }
    session->expected_number++;
    const enum treadle_status status = take_in(session, now_ms, message);
    if (status == TREADLE_E_NOMEM) {
        say_hello_at(session, now_ms); /* as if it had been lost: the broker offers it again */
    }
    return status;
}

/* ---- time ---- */

/* Whether the broker should be heard; not while a HELLO is held back on purpose. */
static bool expects_answer(const struct client_session *session)
{
    return session->is_connected && !session->is_over &&
           (session->is_welcome || session->hello_number != 0);
}

void client_session_on_time(struct client_session *session, uint64_t now_ms)
{
    while (session->heap_count > 0 && session->heap[0]->retry_at_ms <= now_ms) {
        struct session_task *task = session->heap[0];
        client_task_move(session, task,
                         task->stage == STAGE_BUSY ? STAGE_PENDING : STAGE_AWAIT_PENDING);
    }
    if (expects_answer(session) &&
        now_ms >= add_clamped(session->heard_at_ms, silence_ms(session))) {
        session->wants_reconnect = true;
        say_hello_at(session, now_ms);
    }
}

uint64_t client_session_next_at_ms(const struct client_session *session)
{
    uint64_t at_ms = session->heap_count > 0 ? session->heap[0]->retry_at_ms : UINT64_MAX;
    if (!session->is_connected || session->is_over) {
        return at_ms;
    }
    if (expects_answer(session)) {
        at_ms = smaller(at_ms, add_clamped(session->heard_at_ms, silence_ms(session)));
    }
    if (session->is_welcome) {
        at_ms = smaller(at_ms, client_turn_next_at_ms(session));
        return smaller(at_ms, add_clamped(session->sent_at_ms, heartbeat_ms(session)));
    }
    return smaller(at_ms, session->hello_at_ms);
}

/* ---- what the application wants ---- */

static bool has_room(const struct client_session *session, uint64_t cost)
{
    return map_count(&session->map) < session->in_flight_max &&
           (session->byte_max == 0 || session->held_size + cost <= session->byte_max);
}

enum treadle_status client_session_submit(struct client_session *session, uint64_t now_ms,
                                          const struct client_submission *submission)
{
    const bool is_watched = (submission->fields->flags & SUBMIT_WATCH) != 0;
    struct session_task *task = client_task_find(session, &submission->id);
    const uint64_t cost = client_task_cost(submission->body.size);
    if (submission->body.size > body_size_max(session) ||
        (session->byte_max != 0 && cost > session->byte_max)) {
        return TREADLE_E_LIMIT;
    }
    if (task != NULL) {
        if (task->template == NULL ||
            memcmp(task->digest, submission->digest, sizeof(task->digest)) != 0) {
            return TREADLE_E_CONFLICT;
        }
        if (is_watched && !task->is_watched) { /* it was submitted without following it */
            client_task_set_watched(session, task, true);
            task->needs_await = true;
        }
        return TREADLE_OK;
    }
    if (!has_room(session, cost)) {
        return TREADLE_E_AGAIN;
    }
    writer_reset(&session->scratch);
    if (!wire_submit_template_encode(&session->scratch, submission->fields)) {
        return session->scratch.error_field != NULL ? TREADLE_E_INVALID : TREADLE_E_NOMEM;
    }
    struct template *template = client_template_take(session, submission->fields);
    if (template == NULL) {
        return TREADLE_E_NOMEM;
    }
    task = client_task_create(session, submission->id, submission->body, STAGE_PENDING);
    if (task == NULL) {
        client_template_give(session, template);
        return TREADLE_E_NOMEM;
    }
    task->template = template;
    memcpy(task->digest, submission->digest, sizeof(task->digest));
    task->tell = (uint8_t)submission->tell;
    task->is_id_given = submission->is_id_given;
    task->submitted_at_ms = now_ms;
    client_task_set_watched(session, task, is_watched);
    return TREADLE_OK;
}

enum treadle_status client_session_await(struct client_session *session, struct treadle_task_id id)
{
    struct session_task *task = client_task_find(session, &id);
    if (task == NULL) {
        if (!has_room(session, client_task_cost(0))) {
            return TREADLE_E_AGAIN;
        }
        task = client_task_create(session, id, (struct bytes){0}, STAGE_AWAIT_PENDING);
        if (task == NULL) {
            return TREADLE_E_NOMEM;
        }
        task->was_sent = true;
    } else if (task->stage == STAGE_FOLLOWED) {
        client_task_move(session, task, STAGE_AWAIT_PENDING);
    } else if (task->stage == STAGE_PENDING || task->stage == STAGE_SENT ||
               task->stage == STAGE_BUSY) {
        task->needs_await = true;
    }
    client_task_set_watched(session, task, true);
    task->tells_awaited = true;
    return TREADLE_OK;
}

static bool is_query(enum message_kind kind)
{
    return kind == MESSAGE_TASK_QUERY || kind == MESSAGE_TASK_LIST ||
           kind == MESSAGE_SERVICE_QUERY || kind == MESSAGE_SERVICE_SET ||
           kind == MESSAGE_WORKER_QUERY || kind == MESSAGE_WORKER_DRAIN ||
           kind == MESSAGE_BROKER_QUERY || kind == MESSAGE_BROKER_DRAIN ||
           kind == MESSAGE_BROKER_RELOAD;
}

enum treadle_status client_session_request(struct client_session *session,
                                           const struct message *query, uint64_t *request_number)
{
    if (!is_query(query->kind)) {
        return TREADLE_E_INVALID;
    }
    if (session->request_count >= REQUEST_COUNT_MAX) {
        return TREADLE_E_AGAIN;
    }
    struct query_request *request = calloc(1, sizeof(*request));
    if (request == NULL) {
        return TREADLE_E_NOMEM;
    }
    writer_init(&request->bytes);
    const enum treadle_status status = message_copy(query, &request->message, &request->bytes);
    if (status != TREADLE_OK) {
        writer_free(&request->bytes);
        free(request);
        return status;
    }
    request->number = ++session->request_number;
    *request_of(&request->message) = request->number;
    list_init(&request->link);
    list_push_back(&session->requests, &request->link);
    session->request_count++;
    *request_number = request->number;
    return TREADLE_OK;
}

void client_session_forget_request(struct client_session *session, uint64_t number)
{
    struct query_request *request = request_find(session, number);
    if (request != NULL) {
        request_destroy(session, request);
    }
}

void client_session_forget(struct client_session *session, struct treadle_task_id id)
{
    struct session_task *task = client_task_find(session, &id);
    if (task == NULL) {
        return;
    }
    if (task->stage == STAGE_PENDING || task->stage == STAGE_SENT || task->stage == STAGE_BUSY) {
        client_task_set_watched(session, task, false); /* it is submitted all the same */
        task->needs_await = false;
        task->tells_awaited = false;
    } else {
        client_task_destroy(session, task);
    }
}

void client_session_goodbye(struct client_session *session)
{
    session->is_leaving = true;
}

/* ---- what it is like ---- */

bool client_session_is_welcome(const struct client_session *session)
{
    return session->is_welcome;
}

bool client_session_is_over(const struct client_session *session)
{
    return session->is_over;
}

bool client_session_is_followed(const struct client_session *session, struct treadle_task_id id)
{
    return client_task_find(session, &id) != NULL;
}

bool client_session_wants_reconnect(struct client_session *session)
{
    const bool wants = session->wants_reconnect;
    session->wants_reconnect = false;
    return wants;
}

struct client_session_figures client_session_figures(const struct client_session *session)
{
    return (struct client_session_figures){
        .in_flight_count = map_count(&session->map),
        .unaccepted_count = session->stage_counts[STAGE_PENDING] +
                            session->stage_counts[STAGE_SENT] + session->stage_counts[STAGE_BUSY],
        .awaited_count = session->watched_count,
        .event_count = session->event_count,
        .held_size = session->held_size,
        .upto = client_upto(session),
        .received_number = session->received_number,
        .message_number = session->message_number,
        .epoch = session->has_welcome ? session->welcome.epoch : 0,
        .body_size_max = body_size_max(session),
        .double_count = session->double_count,
        .gap_count = session->gap_count,
        .again_count = session->again_count,
    };
}

const struct wire_welcome *client_session_welcome(const struct client_session *session)
{
    return session->has_welcome ? &session->welcome : NULL;
}
