/* SPDX-License-Identifier: MPL-2.0 */
/* Answers to questions of people: tasks, services, workers, the broker itself. */
#include <string.h>

#include "broker/shell/encode_internal.h"
#include "common/base/assert.h"

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- rows ---- */

/* The writer of the connection's rows, emptied of what an answer that never ended left in it. */
static struct writer *rows_of(struct rows *rows, uint32_t connection)
{
    if (rows->connection != connection) {
        writer_reset(&rows->writer);
        rows->connection = connection;
    }
    return &rows->writer;
}

static void rows_end(struct rows *rows)
{
    writer_reset(&rows->writer);
    rows->connection = NONE;
}

void encoder_drop_rows(struct encoder *encoder, uint32_t connection)
{
    for (uint32_t i = 0; i <= LISTING_COUNT; i++) {
        if (encoder->listings[i].connection == connection) {
            rows_end(&encoder->listings[i]);
        }
    }
}

static void note(struct encoder *encoder, bool is_encoded)
{
    if (!is_encoded) {
        encoder->dropped_count++;
    }
}

static struct wire_list all_of(const struct writer *writer)
{
    return writer->record_count == 0 ? (struct wire_list){0}
                                     : wire_list_from_writer(writer, writer->record_count);
}

/* ---- tasks ---- */

static struct wire_task_row task_row(const struct encoder *encoder, const struct task *task,
                                     const struct store_view *view, enum wait_reason reason)
{
    const struct core *core = encoder->core;
    const struct queue *queue = &core->queues[task->queue];
    return (struct wire_task_row){
        .id = task->id,
        .service = encoder_name(&core->services[queue->service].name),
        .task = encoder_name(&queue->task),
        .state = task->state,
        .reason = reason,
        .kind = task->kind,
        .priority = task->priority,
        .dispatches = task->dispatches,
        .retry_index = task->retry_index,
        .retry_sequence = task->retry_sequence,
        .attempts_max = encoder_attempts_max(encoder, task),
        .submitted_at_unix_ms = view->submitted_at_unix_ms,
        .settled_at_unix_ms = view->settled_at_unix_ms,
    };
}

static struct wire_list policy_of(struct encoder *encoder, const struct task *task)
{
    struct writer *writer = &encoder->scratch[1];
    writer_reset(writer);
    for (int field = 0; field < POLICY_FIELD_COUNT; field++) {
        const struct policy_choice choice =
            core_policy(encoder->core, task, (enum policy_field)field);
        const struct wire_policy_value value = {
            .field = (uint64_t)field, .value = choice.value, .origin = choice.origin};
        note(encoder, wire_policy_value_encode(writer, &value));
    }
    return all_of(writer);
}

static struct wire_list history_of(struct encoder *encoder, uint32_t task,
                                   const struct store_view *view)
{
    struct writer *writer = &encoder->scratch[2];
    writer_reset(writer);
    for (uint32_t i = 0; i < view->error_count; i++) {
        struct wire_list list = store_error(encoder->config.store, task, i);
        struct wire_attempt_error error;
        if (wire_attempt_error_next(&list, &error)) {
            note(encoder, wire_attempt_error_encode(writer, &error));
        }
    }
    return all_of(writer);
}

static void put_task(struct encoder *encoder, const struct effect *effect,
                     struct wire_task_info *info)
{
    const struct core *core = encoder->core;
    const struct task *task = &core->tasks[effect->task];
    struct store_view view;
    (void)store_find(encoder->config.store, effect->task, effect->sequence, &view);
    struct writer *rows = &encoder->scratch[3];
    writer_reset(rows);
    const struct wire_task_row row =
        task_row(encoder, task, &view, (enum wait_reason)effect->reason);
    note(encoder, wire_task_row_encode(rows, &row));
    info->rows = all_of(rows);
    if (task->attempt != NONE && core->attempts[task->attempt].session != NONE) {
        info->worker = encoder_name(&core->sessions[core->attempts[task->attempt].session].name);
    }
    info->is_cancel_requested = (task->flags & TASK_CANCEL_REQUESTED) != 0;
    info->tags = view.tags;
    info->meta = view.meta;
    info->policy = policy_of(encoder, task);
    info->attempts = history_of(encoder, effect->task, &view);
    info->body_size = task->body_size;
    info->result_size = view.result.size;
}

void encoder_task_info(struct encoder *encoder, const struct effect *effect)
{
    struct message message = {.kind = MESSAGE_TASK_INFO};
    struct wire_task_info *info = &message.as.task_info;
    *info = (struct wire_task_info){
        .request = effect->number,
        .status = effect->status,
        .reason_left_ms = encoder_span(effect->value),
    };
    if (effect->task != NONE) {
        put_task(encoder, effect, info);
    }
    encoder_send_message(encoder, effect->connection, &message);
}

void encoder_task_page(struct encoder *encoder, const struct effect *effect)
{
    TREADLE_ASSERT(effect->listing <= LISTING_COUNT);
    struct rows *rows = &encoder->listings[effect->listing];
    struct writer *writer = rows_of(rows, effect->connection);
    if (effect->is_last == 0) {
        const struct task *task = &encoder->core->tasks[effect->task];
        struct store_view view;
        (void)store_find(encoder->config.store, effect->task, effect->sequence, &view);
        const struct wire_task_row row =
            task_row(encoder, task, &view, (enum wait_reason)effect->status);
        note(encoder, wire_fits(writer, 0) && wire_task_row_encode(writer, &row));
        return;
    }
    struct message message = {.kind = MESSAGE_TASK_PAGE};
    message.as.task_page = (struct wire_task_page){
        .request = effect->number,
        .status = effect->status,
        .token = effect->value,
        .rows = all_of(writer),
    };
    encoder_send_message(encoder, effect->connection, &message);
    rows_end(rows);
}

/* ---- workers ---- */

/* SERVICE.TASK as one text of at most NAME_SIZE_MAX bytes. */
static struct bytes pattern_of(char out[PATTERN_SIZE_MAX], const struct name *service,
                               struct bytes task)
{
    memcpy(out, service->text, service->size);
    out[service->size] = '.';
    memcpy(out + service->size + 1, task.data, task.size);
    return (struct bytes){(const uint8_t *)out,
                          least((uint64_t)service->size + 1 + task.size, NAME_SIZE_MAX)};
}

static void add_pattern(struct encoder *encoder, struct writer *writer, uint32_t service,
                        struct bytes task)
{
    if (writer->record_count == SERVE_COUNT_MAX) {
        return;
    }
    char text[PATTERN_SIZE_MAX];
    const struct wire_tag tag = {pattern_of(text, &encoder->core->services[service].name, task)};
    note(encoder, wire_tag_encode(writer, &tag));
}

static bool has_wildcard(const struct session *session, uint32_t service)
{
    for (struct list *link = list_first(&session->wildcards); link != NULL;
         link = list_next(&session->wildcards, link)) {
        if (container_of(link, struct wildcard, session_link)->service == service) {
            return true;
        }
    }
    return false;
}

/* Of what the globs cover; NULL: all of it. */
static struct wire_list serves_of(struct encoder *encoder, const struct session *session,
                                  const struct globs *globs)
{
    const struct core *core = encoder->core;
    struct writer *writer = &encoder->scratch[1];
    writer_reset(writer);
    for (struct list *link = list_first(&session->wildcards); link != NULL;
         link = list_next(&session->wildcards, link)) {
        const struct wildcard *wildcard = container_of(link, struct wildcard, session_link);
        const struct name *service = &core->services[wildcard->service].name;
        if (globs == NULL || globs_touch_service(globs, encoder_name(service))) {
            add_pattern(encoder, writer, wildcard->service, bytes_from_text("*"));
        }
    }
    for (struct list *link = list_first(&session->serves); link != NULL;
         link = list_next(&session->serves, link)) {
        const struct serve *serve = container_of(link, struct serve, session_link);
        const struct queue *queue = &core->queues[serve->queue];
        const struct bytes service = encoder_name(&core->services[queue->service].name);
        const struct bytes task = encoder_name(&queue->task);
        if (!has_wildcard(session, queue->service) &&
            (globs == NULL || globs_cover_task(globs, service, task))) {
            add_pattern(encoder, writer, queue->service, task);
        }
    }
    return all_of(writer);
}

static void add_worker(struct encoder *encoder, struct writer *writer, const struct effect *effect)
{
    const struct core *core = encoder->core;
    const struct session *session = &core->sessions[effect->session];
    const struct wire_worker_row row = {
        .name = encoder_name(&session->name),
        .host = encoder_name(&session->host),
        .principal = encoder_name(&core->owners[session->owner].name),
        .slots = session->slots,
        .in_use = session->in_use,
        .credit =
            session->granted > session->dispatched ? session->granted - session->dispatched : 0,
        .dispatched = session->dispatched,
        .late = session->late_count,
        .is_draining = session->is_draining,
        .is_connected = session->connection != NONE,
        .age_ms = encoder_span(core->now_ms - session->opened_at_ms),
        .serves = serves_of(encoder, session, effect->services),
    };
    note(encoder, wire_fits(writer, 0) && wire_worker_row_encode(writer, &row));
}

void encoder_worker_info(struct encoder *encoder, const struct effect *effect)
{
    TREADLE_ASSERT(effect->listing <= LISTING_COUNT);
    struct rows *rows = &encoder->listings[effect->listing];
    struct writer *writer = rows_of(rows, effect->connection);
    if (effect->is_last == 0) {
        add_worker(encoder, writer, effect);
        return;
    }
    struct message message = {.kind = MESSAGE_WORKER_INFO};
    message.as.worker_info = (struct wire_worker_info){
        .request = effect->number, .status = effect->status, .rows = all_of(writer)};
    encoder_send_message(encoder, effect->connection, &message);
    rows_end(rows);
}

/* ---- services ---- */

static void count_share(struct encoder *encoder, uint32_t number, uint32_t service)
{
    struct service_share *share = &encoder->shares[service];
    if (share->last_session == number + 1) {
        return;
    }
    share->last_session = number + 1;
    share->worker_count++;
    share->slot_count += encoder->core->sessions[number].slots;
}

/* One pass over all live workers. */
static void count_shares(struct encoder *encoder)
{
    const struct core *core = encoder->core;
    memset(encoder->shares, 0, sizeof *encoder->shares * core->config.service_count_max);
    for (uint32_t number = 0; number < core->session_slab.used; number++) {
        const struct session *session = &core->sessions[number];
        if (session->state != SESSION_LIVE || session->role != ROLE_WORKER) {
            continue;
        }
        for (struct list *link = list_first(&session->wildcards); link != NULL;
             link = list_next(&session->wildcards, link)) {
            count_share(encoder, number,
                        container_of(link, struct wildcard, session_link)->service);
        }
        for (struct list *link = list_first(&session->serves); link != NULL;
             link = list_next(&session->serves, link)) {
            const struct serve *serve = container_of(link, struct serve, session_link);
            count_share(encoder, number, core->queues[serve->queue].service);
        }
    }
}

static void add_service(struct encoder *encoder, struct writer *writer, uint32_t number)
{
    if (writer->record_count == 0) {
        count_shares(encoder);
    }
    const struct service *service = &encoder->core->services[number];
    const struct breaker *breaker = &service->breaker;
    uint32_t results = 0;
    uint32_t failures = 0;
    breaker_window(breaker, encoder->core->now_ms, &results, &failures);
    const struct wire_service_row row = {
        .name = encoder_name(&service->name),
        .is_paused = service->is_paused,
        .breaker_state = breaker->state,
        .breaker_mode = breaker->mode,
        .breaker_generation = breaker->generation,
        .breaker_left_ms =
            breaker->state == BREAKER_OPEN ? encoder_left(encoder, breaker->cooled_at_ms) : 0,
        .window_results = results,
        .window_failures = failures,
        .scheduled = service->scheduled_count,
        .ready = service->ready_count,
        .running = service->running_count,
        .workers = encoder->shares[number].worker_count,
        .slots = encoder->shares[number].slot_count,
        .succeeded = service->succeeded_count,
        .failed = service->failed_count,
        .retried = service->retried_count,
        .is_budget_spent = timer_is_armed(&service->budget_timer),
    };
    note(encoder, wire_fits(writer, 0) && wire_service_row_encode(writer, &row));
}

void encoder_service_info(struct encoder *encoder, const struct effect *effect)
{
    TREADLE_ASSERT(effect->listing <= LISTING_COUNT);
    struct rows *rows = &encoder->listings[effect->listing];
    struct writer *writer = rows_of(rows, effect->connection);
    if (effect->is_last == 0) {
        add_service(encoder, writer, effect->service);
        return;
    }
    struct message message = {.kind = MESSAGE_SERVICE_INFO};
    message.as.service_info = (struct wire_service_info){
        .request = effect->number, .status = effect->status, .rows = all_of(writer)};
    encoder_send_message(encoder, effect->connection, &message);
    rows_end(rows);
}

/* ---- the broker ---- */

static void add_counter(struct encoder *encoder, const char *name, uint64_t value)
{
    const struct wire_counter counter = {bytes_from_text(name), value};
    note(encoder, wire_counter_encode(&encoder->scratch[1], &counter));
}

/* For how long back an id is surely remembered. */
static uint64_t dedup_window_ms(const struct core *core)
{
    const uint64_t remembered_ms = core->now_ms - core->fate_horizon_ms;
    const uint64_t window_ms = core->config.dedup_window_ms;
    return remembered_ms < window_ms ? remembered_ms : window_ms;
}

static void add_counters(struct encoder *encoder)
{
    const struct core *core = encoder->core;
    const struct store_counts store = store_counts(encoder->config.store);
#define ADD_COUNTER(name) add_counter(encoder, #name, core->counters.name);
    COUNTERS(ADD_COUNTER)
#undef ADD_COUNTER
    add_counter(encoder, "tasks_unsettled", core->unsettled_count);
    add_counter(encoder, "tasks_settled", core->settled_count);
    add_counter(encoder, "bytes_unsettled", core->unsettled_bytes);
    add_counter(encoder, "bytes_settled", core->settled_bytes);
    add_counter(encoder, "dedup_window_ms", dedup_window_ms(core));
    add_counter(encoder, "attempts_live", core->attempt_slab.live);
    add_counter(encoder, "sessions", core->session_slab.live);
    add_counter(encoder, "services", map_count(&core->service_map));
    add_counter(encoder, "store_tasks", store.task_count);
    add_counter(encoder, "store_bytes", store.byte_count);
    add_counter(encoder, "store_records", store.record_count);
    add_counter(encoder, "store_errors_dropped", store.error_dropped);
    add_counter(encoder, "entries_dropped", encoder->dropped_count);
    for (uint32_t i = 0; i < encoder->config.counter_count; i++) {
        add_counter(encoder, encoder->config.counters[i].name, *encoder->config.counters[i].value);
    }
}

void encoder_broker_info(struct encoder *encoder, const struct effect *effect)
{
    const struct core *core = encoder->core;
    writer_reset(&encoder->scratch[1]);
    add_counters(encoder);
    struct message message = {.kind = MESSAGE_BROKER_INFO};
    message.as.broker_info = (struct wire_broker_info){
        .request = effect->number,
        .version = bytes_from_text(encoder->config.version),
        .epoch = core->config.epoch,
        .uptime_ms = encoder_span(core->now_ms - core->started_at_ms),
        .is_draining = core->is_draining,
        .counters = all_of(&encoder->scratch[1]),
    };
    encoder_send_message(encoder, effect->connection, &message);
}
