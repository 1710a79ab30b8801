/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/shell/encode.h"

#include <stdlib.h>

#include "broker/shell/encode_internal.h"
#include "common/base/assert.h"

#define FREE_OPEN_MAX     256U
#define FREE_CAPACITY_MAX 65536U /* a free message keeps no more memory than this */

struct encoder *encoder_create(const struct encoder_config *config)
{
    struct encoder *encoder = calloc(1, sizeof *encoder);
    if (encoder == NULL) {
        return NULL;
    }
    const struct core_config *limits = &config->core->config;
    encoder->config = *config;
    encoder->core = config->core;
    list_init(&encoder->active);
    writer_init(&encoder->out);
    for (size_t i = 0; i < sizeof encoder->scratch / sizeof encoder->scratch[0]; i++) {
        writer_init(&encoder->scratch[i]);
    }
    for (uint32_t i = 0; i <= LISTING_COUNT; i++) {
        encoder->listings[i].connection = NONE;
        writer_init(&encoder->listings[i].writer);
    }
    encoder->connections = calloc(limits->connection_count_max, sizeof *encoder->connections);
    encoder->shares = calloc(limits->service_count_max, sizeof *encoder->shares);
    if (encoder->connections == NULL || encoder->shares == NULL) {
        encoder_destroy(&encoder);
    }
    return encoder;
}

static void open_destroy(struct open_message *open)
{
    writer_free(&open->entries);
    writer_free(&open->templates);
    free(open->keys);
    free(open);
}

void encoder_destroy(struct encoder **encoder_pointer)
{
    struct encoder *encoder = *encoder_pointer;
    if (encoder == NULL) {
        return;
    }
    for (struct list *link = list_first(&encoder->active); link != NULL;
         link = list_first(&encoder->active)) {
        struct encoder_connection *connection = container_of(link, struct encoder_connection, link);
        encoder_close(encoder, (uint32_t)(connection - encoder->connections));
    }
    while (encoder->free_open != NULL) {
        struct open_message *open = encoder->free_open;
        encoder->free_open = open->next_free;
        open_destroy(open);
    }
    writer_free(&encoder->out);
    for (size_t i = 0; i < sizeof encoder->scratch / sizeof encoder->scratch[0]; i++) {
        writer_free(&encoder->scratch[i]);
    }
    for (uint32_t i = 0; i <= LISTING_COUNT; i++) {
        writer_free(&encoder->listings[i].writer);
    }
    free(encoder->connections);
    free(encoder->shares);
    free(encoder);
    *encoder_pointer = NULL;
}

/* ---- open messages ---- */

/* NULL without memory. */
static struct open_message *open_take(struct encoder *encoder)
{
    struct open_message *open = encoder->free_open;
    if (open != NULL) {
        encoder->free_open = open->next_free;
        encoder->free_open_count--;
        return open;
    }
    open = malloc(sizeof *open);
    if (open == NULL) {
        return NULL;
    }
    open->next_free = NULL;
    open->first = 0;
    open->keys = NULL;
    writer_init(&open->entries);
    writer_init(&open->templates);
    return open;
}

static void open_give(struct encoder *encoder, struct open_message *open)
{
    if (encoder->free_open_count == FREE_OPEN_MAX) {
        open_destroy(open);
        return;
    }
    if (open->entries.capacity > FREE_CAPACITY_MAX) {
        writer_free(&open->entries);
    }
    writer_reset(&open->entries);
    writer_reset(&open->templates);
    open->next_free = encoder->free_open;
    encoder->free_open = open;
    encoder->free_open_count++;
}

/* The open message of this kind, made if there is none; NULL without memory. */
static struct open_message *open_of(struct encoder *encoder, uint32_t number, enum open_kind kind)
{
    struct encoder_connection *connection = &encoder->connections[number];
    if (connection->open[kind] == NULL) {
        connection->open[kind] = open_take(encoder);
        if (list_is_empty(&connection->link)) {
            list_push_back(&encoder->active, &connection->link);
        }
    }
    if (connection->open[kind] == NULL) {
        encoder->dropped_count++;
    }
    return connection->open[kind];
}

/* The open message of this kind with room for one more entry; NULL without memory. */
static struct open_message *open_with_room(struct encoder *encoder, uint32_t number,
                                           enum open_kind kind, size_t body_size)
{
    const struct open_message *open = encoder->connections[number].open[kind];
    if (open != NULL && !wire_fits(&open->entries, body_size)) {
        encoder_flush_connection(encoder, number);
    }
    return open_of(encoder, number, kind);
}

static void note(struct encoder *encoder, bool is_encoded)
{
    if (!is_encoded) {
        encoder->dropped_count++;
    }
}

/* ---- finished messages ---- */

/* Numbers and hands on. REFUSED is outside of a session, or makes the peer say HELLO again: number
 * 0. */
static void hand_on(struct encoder *encoder, uint32_t number, struct message *message)
{
    struct encoder_connection *connection = &encoder->connections[number];
    const bool is_outside = message->kind == MESSAGE_REFUSED;
    message->number = is_outside ? 0 : connection->number + 1;
    if (!message_encode(message, &encoder->out)) {
        encoder->dropped_count++;
        return;
    }
    if (!is_outside) {
        connection->number++;
    }
    encoder->config.send(encoder->config.context, number, &encoder->out.frames);
}

static void put_open(struct message *message, enum open_kind kind, const struct open_message *open)
{
    const struct wire_list entries =
        wire_list_from_writer(&open->entries, open->entries.record_count);
    switch (kind) {
    case OPEN_ACCEPTED:
        message->kind = MESSAGE_ACCEPTED;
        message->as.accepted.entries = entries;
        return;
    case OPEN_AWAITED:
        message->kind = MESSAGE_AWAITED;
        message->as.awaited.entries = entries;
        return;
    case OPEN_CANCELLED:
        message->kind = MESSAGE_CANCELLED;
        message->as.cancelled.entries = entries;
        return;
    case OPEN_SETTLED:
        message->kind = MESSAGE_SETTLED;
        message->as.settled.first = open->first;
        message->as.settled.entries = entries;
        return;
    case OPEN_RESULT_ACK:
        message->kind = MESSAGE_RESULT_ACK;
        message->as.result_ack.entries = entries;
        return;
    case OPEN_DISPATCH:
        message->kind = MESSAGE_DISPATCH;
        message->as.dispatch.templates =
            wire_list_from_writer(&open->templates, open->templates.record_count);
        message->as.dispatch.entries = entries;
        return;
    case OPEN_RECALL:
        message->kind = MESSAGE_RECALL;
        message->as.recall.entries = entries;
        return;
    case OPEN_CANCEL_ATTEMPT:
        message->kind = MESSAGE_CANCEL_ATTEMPT;
        message->as.cancel_attempt.entries = entries;
        return;
    case OPEN_KIND_COUNT:
        break;
    }
    TREADLE_ASSERT(false);
}

void encoder_flush_connection(struct encoder *encoder, uint32_t number)
{
    struct encoder_connection *connection = &encoder->connections[number];
    if (!connection->is_open || list_is_empty(&connection->link)) {
        return;
    }
    list_remove(&connection->link);
    for (int kind = 0; kind < OPEN_KIND_COUNT; kind++) {
        struct open_message *open = connection->open[kind];
        if (open == NULL) {
            continue;
        }
        connection->open[kind] = NULL;
        if (open->entries.record_count > 0) {
            struct message message = {.kind = MESSAGE_HEARTBEAT};
            put_open(&message, (enum open_kind)kind, open);
            hand_on(encoder, number, &message);
        }
        open_give(encoder, open);
    }
}

void encoder_flush(struct encoder *encoder)
{
    for (struct list *link = list_first(&encoder->active); link != NULL;
         link = list_first(&encoder->active)) {
        const struct encoder_connection *connection =
            container_of(link, struct encoder_connection, link);
        encoder_flush_connection(encoder, (uint32_t)(connection - encoder->connections));
    }
}

void encoder_send_message(struct encoder *encoder, uint32_t connection, struct message *message)
{
    encoder_flush_connection(encoder, connection);
    hand_on(encoder, connection, message);
}

void encoder_open(struct encoder *encoder, uint32_t number)
{
    TREADLE_ASSERT(number < encoder->core->config.connection_count_max);
    struct encoder_connection *connection = &encoder->connections[number];
    TREADLE_ASSERT(!connection->is_open);
    *connection = (struct encoder_connection){.is_open = true};
    list_init(&connection->link);
}

void encoder_close(struct encoder *encoder, uint32_t number)
{
    TREADLE_ASSERT(number < encoder->core->config.connection_count_max);
    struct encoder_connection *connection = &encoder->connections[number];
    if (!connection->is_open) {
        return;
    }
    list_remove(&connection->link);
    for (int kind = 0; kind < OPEN_KIND_COUNT; kind++) {
        if (connection->open[kind] != NULL) {
            open_give(encoder, connection->open[kind]);
            connection->open[kind] = NULL;
        }
    }
    encoder_drop_rows(encoder, number);
    connection->is_open = false;
}

uint64_t encoder_dropped_count(const struct encoder *encoder)
{
    return encoder->dropped_count;
}

/* ---- what entries say ---- */

struct bytes encoder_name(const struct name *name)
{
    return (struct bytes){(const uint8_t *)name->text, name->size};
}

uint64_t encoder_attempts_max(const struct encoder *encoder, const struct task *task)
{
    const uint64_t value = core_policy(encoder->core, task, POLICY_ATTEMPTS_MAX).value;
    return value < UINT32_MAX ? value : UINT32_MAX;
}

static void send_accepted(struct encoder *encoder, const struct effect *effect)
{
    struct open_message *open = open_with_room(encoder, effect->connection, OPEN_ACCEPTED, 0);
    if (open != NULL) {
        const struct wire_accepted_entry entry = {
            .id = effect->id,
            .status = effect->status,
            .reason = effect->reason,
            .retry_after_ms = encoder_span(effect->value),
        };
        note(encoder, wire_accepted_entry_encode(&open->entries, &entry));
    }
}

static void send_awaited(struct encoder *encoder, const struct effect *effect)
{
    struct open_message *open = open_with_room(encoder, effect->connection, OPEN_AWAITED, 0);
    if (open != NULL) {
        const struct wire_awaited_entry entry = {.id = effect->id, .status = effect->status};
        note(encoder, wire_awaited_entry_encode(&open->entries, &entry));
    }
}

static void send_cancelled(struct encoder *encoder, const struct effect *effect)
{
    struct open_message *open = open_with_room(encoder, effect->connection, OPEN_CANCELLED, 0);
    if (open != NULL) {
        const struct wire_cancelled_entry entry = {.id = effect->id, .status = effect->status};
        note(encoder, wire_cancelled_entry_encode(&open->entries, &entry));
    }
}

static void send_result_ack(struct encoder *encoder, const struct effect *effect)
{
    struct open_message *open = open_with_room(encoder, effect->connection, OPEN_RESULT_ACK, 0);
    if (open != NULL) {
        const struct wire_result_ack_entry entry = {.lease = effect->number,
                                                    .is_stale = effect->status};
        note(encoder, wire_result_ack_entry_encode(&open->entries, &entry));
    }
}

static void send_lease(struct encoder *encoder, const struct effect *effect, enum open_kind kind)
{
    struct open_message *open = open_with_room(encoder, effect->connection, kind, 0);
    if (open != NULL) {
        const struct wire_lease_entry entry = {.lease = effect->number};
        note(encoder, wire_lease_entry_encode(&open->entries, &entry));
    }
}

/* The entries of a SETTLED are numbered without a gap from its first. */
static struct open_message *open_settled(struct encoder *encoder, const struct effect *effect,
                                         size_t body_size)
{
    const struct open_message *open = encoder->connections[effect->connection].open[OPEN_SETTLED];
    if (open != NULL && effect->number != open->first + open->entries.record_count) {
        encoder_flush_connection(encoder, effect->connection);
    }
    struct open_message *found =
        open_with_room(encoder, effect->connection, OPEN_SETTLED, body_size);
    if (found != NULL && found->entries.record_count == 0) {
        found->first = effect->number;
    }
    return found;
}

static uint64_t settled_flags(const struct task *task)
{
    return ((task->flags & TASK_CANCEL_REQUESTED) != 0 ? SETTLED_CANCEL_REQUESTED : 0) |
           ((task->flags & TASK_RESULT_GONE) != 0 ? SETTLED_RESULT_GONE : 0);
}

static void send_settled(struct encoder *encoder, const struct effect *effect)
{
    TREADLE_ASSERT(effect->task != NONE);
    const struct task *task = &encoder->core->tasks[effect->task];
    struct store_view view;
    (void)store_find(encoder->config.store, effect->task, effect->sequence, &view);
    struct open_message *open = open_settled(encoder, effect, view.result.size);
    if (open == NULL) {
        return;
    }
    const uint64_t attempts = (uint64_t)task->retry_index + (task->state == TASK_SUCCEEDED ? 1 : 0);
    const struct wire_settled_entry entry = {
        .id = task->id,
        .outcome = task->state,
        .kind = task->kind,
        .flags = settled_flags(task),
        .dispatch = task->dispatches,
        .attempts = attempts,
        .attempts_max = encoder_attempts_max(encoder, task),
        .error = view.last_error,
        .body = view.result,
    };
    note(encoder, wire_settled_entry_encode(&open->entries, &entry));
}

/* ---- DISPATCH ---- */

static bool key_is_equal(const struct dispatch_key *a, const struct dispatch_key *b)
{
    return a->queue == b->queue && a->attempts_max == b->attempts_max &&
           a->timeout_ms == b->timeout_ms && a->progress_timeout_ms == b->progress_timeout_ms &&
           a->grace_ms == b->grace_ms;
}

/* The newest first: dispatches of one kind come in runs. NONE: it is not there. */
static uint32_t template_find(const struct open_message *open, const struct dispatch_key *key)
{
    for (uint32_t i = open->templates.record_count; i > 0; i--) {
        if (key_is_equal(&open->keys[i - 1], key)) {
            return i - 1;
        }
    }
    return NONE;
}

/* The index of the template; NONE without memory. The message has room for one more. */
static uint32_t template_of(const struct encoder *encoder, struct open_message *open,
                            const struct dispatch_key *key)
{
    const uint32_t found = template_find(open, key);
    if (found != NONE) {
        return found;
    }
    if (open->keys == NULL) {
        open->keys = calloc(TEMPLATE_COUNT_MAX, sizeof *open->keys);
        if (open->keys == NULL) {
            return NONE;
        }
    }
    const struct queue *queue = &encoder->core->queues[key->queue];
    const struct wire_dispatch_template template = {
        .service = encoder_name(&encoder->core->services[queue->service].name),
        .task = encoder_name(&queue->task),
        .timeout_ms = encoder_span(key->timeout_ms),
        .progress_timeout_ms = encoder_span(key->progress_timeout_ms),
        .grace_ms = encoder_span(key->grace_ms),
        .attempts_max = key->attempts_max,
    };
    const uint32_t index = open->templates.record_count;
    if (!wire_dispatch_template_encode(&open->templates, &template)) {
        return NONE;
    }
    open->keys[index] = *key;
    return index;
}

/* The handler sees of the last error what it is, not where it was. */
static struct wire_list last_error_of(struct encoder *encoder, const struct store_view *view)
{
    struct wire_list errors = view->last_error;
    struct wire_attempt_error error;
    struct writer *writer = &encoder->scratch[0];
    if (!wire_attempt_error_next(&errors, &error)) {
        return (struct wire_list){0};
    }
    writer_reset(writer);
    const struct wire_last_error last = {
        .kind = error.kind, .name = error.name, .message = error.message};
    if (!wire_last_error_encode(writer, &last)) {
        return (struct wire_list){0};
    }
    return wire_list_from_writer(writer, 1);
}

static struct open_message *open_dispatch(struct encoder *encoder, uint32_t connection,
                                          const struct dispatch_key *key, size_t body_size)
{
    const struct open_message *open = encoder->connections[connection].open[OPEN_DISPATCH];
    if (open != NULL && open->templates.record_count == TEMPLATE_COUNT_MAX &&
        template_find(open, key) == NONE) {
        encoder_flush_connection(encoder, connection);
    }
    return open_with_room(encoder, connection, OPEN_DISPATCH, body_size);
}

static void send_dispatch(struct encoder *encoder, const struct effect *effect)
{
    const struct task *task = &encoder->core->tasks[effect->task];
    const struct attempt *attempt = &encoder->core->attempts[effect->attempt];
    const struct dispatch_key key = {
        .queue = task->queue,
        .attempts_max = attempt->attempts_max,
        .timeout_ms = attempt->timeout_ms,
        .progress_timeout_ms = attempt->progress_timeout_ms,
        .grace_ms = attempt->grace_ms,
    };
    struct store_view view;
    (void)store_find(encoder->config.store, effect->task, effect->sequence, &view);
    struct open_message *open = open_dispatch(encoder, effect->connection, &key, view.body.size);
    const uint32_t template_index = open == NULL ? NONE : template_of(encoder, open, &key);
    if (template_index == NONE) {
        note(encoder, open == NULL);
        return;
    }
    const uint64_t left_ms = encoder_left(encoder, task->deadline_at_ms);
    const struct wire_dispatch_entry entry = {
        .lease = attempt->lease,
        .template_index = template_index,
        .id = task->id,
        .dispatch = task->dispatches,
        .retry_index = task->retry_index,
        .retry_sequence = task->retry_sequence,
        .deadline_left_ms = task->deadline_at_ms == UINT64_MAX ? 0 : left_ms + (left_ms == 0),
        .tags = view.tags,
        .meta = view.meta,
        .last_error = last_error_of(encoder, &view),
        .body = view.body,
    };
    note(encoder, wire_dispatch_entry_encode(&open->entries, &entry));
}

/* ---- messages without entries ---- */

static struct wire_list globs_of(struct encoder *encoder, const struct globs *globs)
{
    struct writer *writer = &encoder->scratch[1];
    writer_reset(writer);
    for (uint32_t i = 0; globs != NULL && i < globs->count; i++) {
        const struct wire_glob glob = {globs->at[i]};
        note(encoder, wire_glob_encode(writer, &glob));
    }
    return wire_list_from_writer(writer, writer->record_count);
}

static void send_welcome(struct encoder *encoder, const struct effect *effect)
{
    const struct core *core = encoder->core;
    const struct core_config *config = &core->config;
    encoder_drop_rows(encoder, effect->connection); /* of a session that is gone */
    struct message message = {.kind = MESSAGE_WELCOME};
    message.as.welcome = (struct wire_welcome){
        .hello_number = effect->value,
        .minor = WIRE_MINOR,
        .broker_id = {encoder->config.broker_id, sizeof encoder->config.broker_id},
        .epoch = config->epoch,
        .is_resumed = effect->status,
        .heartbeat_ms = encoder_span(config->heartbeat_ms),
        .liveness = config->liveness,
        .body_size_max = config->body_size_max,
        .entry_count_max = config->entry_count_max,
        .dispatched = effect->number,
        .version = bytes_from_text(encoder->config.version),
        .principal = encoder_name(&core->owners[core->sessions[effect->session].owner].name),
        .rights = effect->reason,
        .services = globs_of(encoder, effect->services),
    };
    encoder_send_message(encoder, effect->connection, &message);
}

static void send_refused(struct encoder *encoder, uint32_t connection,
                         const struct wire_refused *refused)
{
    struct message message = {.kind = MESSAGE_REFUSED, .as.refused = *refused};
    encoder_send_message(encoder, connection, &message);
}

void encoder_refuse(struct encoder *encoder, uint32_t connection, enum refused_code code,
                    const char *text)
{
    const struct wire_refused refused = {.code = code, .text = bytes_from_text(text)};
    send_refused(encoder, connection, &refused);
}

static void send_done(struct encoder *encoder, const struct effect *effect)
{
    struct message message = {.kind = MESSAGE_DONE};
    message.as.done = (struct wire_done){
        .request = effect->number, .status = effect->status, .count = effect->value};
    encoder_send_message(encoder, effect->connection, &message);
}

static void send_empty(struct encoder *encoder, const struct effect *effect)
{
    struct message message = {.kind = (enum message_kind)effect->code};
    encoder_send_message(encoder, effect->connection, &message);
}

/* ---- the switch ---- */

static void send_to_client(struct encoder *encoder, const struct effect *effect)
{
    switch (effect->code) {
    case MESSAGE_ACCEPTED:
        send_accepted(encoder, effect);
        return;
    case MESSAGE_SETTLED:
        send_settled(encoder, effect);
        return;
    case MESSAGE_AWAITED:
        send_awaited(encoder, effect);
        return;
    case MESSAGE_CANCELLED:
        send_cancelled(encoder, effect);
        return;
    case MESSAGE_TASK_INFO:
        encoder_task_info(encoder, effect);
        return;
    case MESSAGE_TASK_PAGE:
        encoder_task_page(encoder, effect);
        return;
    case MESSAGE_SERVICE_INFO:
        encoder_service_info(encoder, effect);
        return;
    case MESSAGE_WORKER_INFO:
        encoder_worker_info(encoder, effect);
        return;
    case MESSAGE_BROKER_INFO:
        encoder_broker_info(encoder, effect);
        return;
    case MESSAGE_DONE:
        send_done(encoder, effect);
        return;
    default:
        TREADLE_ASSERT(false);
    }
}

void encoder_send(struct encoder *encoder, const struct effect *effect)
{
    TREADLE_ASSERT(effect->kind == EFFECT_SEND &&
                   effect->connection < encoder->core->config.connection_count_max);
    if (!encoder->connections[effect->connection].is_open) {
        return; /* it has ended, and the core will be told */
    }
    switch (effect->code) {
    case MESSAGE_DISPATCH:
        send_dispatch(encoder, effect);
        return;
    case MESSAGE_RESULT_ACK:
        send_result_ack(encoder, effect);
        return;
    case MESSAGE_RECALL:
        send_lease(encoder, effect, OPEN_RECALL);
        return;
    case MESSAGE_CANCEL_ATTEMPT:
        send_lease(encoder, effect, OPEN_CANCEL_ATTEMPT);
        return;
    case MESSAGE_WELCOME:
        encoder_drop_rows(encoder, effect->connection); /* its questions are asked anew */
        send_welcome(encoder, effect);
        return;
    case MESSAGE_REFUSED: {
        const struct wire_refused refused = {.code = effect->status,
                                             .retry_after_ms = encoder_span(effect->value),
                                             .text = effect->body};
        send_refused(encoder, effect->connection, &refused);
        return;
    }
    case MESSAGE_HEARTBEAT:
    case MESSAGE_GOODBYE:
    case MESSAGE_DRAIN:
        send_empty(encoder, effect);
        return;
    default:
        send_to_client(encoder, effect);
    }
}
