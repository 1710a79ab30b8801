/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/internal.h"
#include "common/base/assert.h"

#define SERIAL_BITS        40
#define BACKSTOP_MARGIN_MS 1000U

/*
 * Leases count up and end in about the order they began: 64 of one row share 512 bytes of the map.
 * The rows are scattered, so that old leases that live on never make one long cluster.
 */
static uint64_t hash_lease(uint64_t lease)
{
    const uint64_t row = (lease >> 6) * UINT64_C(0x9E3779B97F4A7C15) >> 32;
    return row << 6 | (lease & 63);
}

static bool lease_is(const void *context, uint32_t value, const void *key)
{
    const struct core *core = context;
    return core->attempts[value].lease == *(const uint64_t *)key;
}

struct attempt *attempt_find(struct core *core, const struct session *session, uint64_t lease)
{
    const uint32_t found = map_find(&core->lease_map, hash_lease(lease), lease_is, core, &lease);
    if (found == MAP_NONE || core->attempts[found].session != session_number(core, session)) {
        return NULL;
    }
    return &core->attempts[found];
}

static uint64_t allowed_ms(const struct attempt *attempt)
{
    return attempt->timeout_ms + attempt->grace_ms;
}

/* What the broker allows before it decides that the worker is silent: what is queued ahead,
 * whatever that may take, the attempt, its grace. */
static uint64_t backstop_ms(const struct session *session, const struct attempt *attempt)
{
    const bool starts_at_once = session->in_use < session->slots;
    const uint64_t ahead_ms = starts_at_once ? 0 : session->allowed_ms / session->slots;
    return ahead_ms + allowed_ms(attempt) + BACKSTOP_MARGIN_MS;
}

uint32_t attempt_open(struct core *core, struct task *task, struct serve *serve)
{
    const uint32_t number = slab_take(&core->attempt_slab);
    if (number == NONE) {
        return NONE;
    }
    struct session *session = &core->sessions[serve->session];
    struct attempt *attempt = &core->attempts[number];
    *attempt =
        (struct attempt){.lease = ((uint64_t)core->config.epoch << SERIAL_BITS) | core->next_serial,
                         .dispatched_at_ms = core->now_ms,
                         .task = task_number(core, task),
                         .session = serve->session,
                         .service = core->queues[task->queue].service,
                         .timeout_ms = serve->resolved_timeout_ms,
                         .progress_timeout_ms = serve->resolved_progress_timeout_ms,
                         .grace_ms = serve->resolved_grace_ms,
                         .attempts_max = serve->resolved_attempts_max};
    list_init(&attempt->link);
    list_init(&attempt->service_link);
    core->next_serial++;
    for (int side = 0; side < 3; side++) {
        attempt->serve_policy[side] = serve->policies[side];
        policy_retain(core, serve->policies[side]);
    }
    timer_init(&attempt->timer, TIMER_ATTEMPT, number);
    wheel_add(&core->wheel, &attempt->timer, core->now_ms + backstop_ms(session, attempt));
    list_push_back(&session->attempts, &attempt->link);
    list_push_back(&core->services[attempt->service].attempts, &attempt->service_link);
    core->services[attempt->service].attempt_count++;
    service_note_use(core, &core->services[attempt->service]);
    map_add(&core->lease_map, hash_lease(attempt->lease), number);
    session->in_use++;
    session->allowed_ms += allowed_ms(attempt);
    session->dispatched++;
    session_update_busy(core, session);
    task->attempt = number;
    return number;
}

void attempt_close(struct core *core, struct attempt *attempt, enum breaker_verdict verdict,
                   struct effects *out)
{
    const uint32_t number = (uint32_t)(attempt - core->attempts);
    struct session *session = &core->sessions[attempt->session];
    struct service *service = &core->services[attempt->service];
    wheel_cancel(&core->wheel, &attempt->timer);
    list_remove(&attempt->link);
    list_remove(&attempt->service_link);
    service->attempt_count--;
    service_note_use(core, service);
    map_remove(&core->lease_map, hash_lease(attempt->lease), number);
    TREADLE_ASSERT(session->in_use > 0);
    session->in_use--;
    session->allowed_ms -= allowed_ms(attempt);
    session->is_capacity_changed = true;
    session_update_busy(core, session);
    for (int side = 0; side < 3; side++) {
        policy_release(core, attempt->serve_policy[side]);
    }
    if (attempt->task != NONE) {
        core->tasks[attempt->task].attempt = NONE;
    }
    service_on_attempt_end(core, service, attempt, verdict, out);
    slab_give(&core->attempt_slab, attempt);
}

static void acknowledge(struct core *core, struct session *session, uint64_t lease, bool is_stale,
                        uint64_t after)
{
    const struct outbox_item answer = {.code = MESSAGE_RESULT_ACK,
                                       .after = after,
                                       .number = lease,
                                       .task = NONE,
                                       .status = is_stale ? 1 : 0};
    outbox_push(core, session, &answer);
}

/* A result that counts for nothing: counted, answered STALE. A zombie's slot is free now. */
static void on_late(struct core *core, struct session *session, struct attempt *zombie,
                    uint64_t lease, struct effects *out)
{
    core->counters.late++;
    session->late_count++;
    if (zombie != NULL) {
        attempt_close(core, zombie, BREAKER_NO_VERDICT, out);
    }
    if (core->config.is_logging_tasks) {
        struct effect *effect = effects_add(out, EFFECT_LOG, LOG_ATTEMPT_LATE);
        effect->session = session_number(core, session);
        effect->value = lease;
    }
    acknowledge(core, session, lease, true, 0);
}

/* What a worker sends cannot be answered BUSY. So it may pass the limit of bytes by an eighth, and
 * beyond that the task's former meta stays. */
static bool has_room_for_meta(const struct core *core, const struct task *task, size_t size)
{
    const uint64_t bytes = core->unsettled_bytes + core->settled_bytes;
    return size <= task->meta_size ||
           bytes + (size - task->meta_size) <= core->config.byte_max + core->config.byte_max / 8;
}

static void count_meta(struct core *core, struct task *task, size_t size)
{
    struct owner *owner = &core->owners[task->owner];
    core->unsettled_bytes = core->unsettled_bytes - task->meta_size + size;
    owner->byte_count = owner->byte_count - task->meta_size + size;
    task->kept_size = task->kept_size - task->meta_size + (uint32_t)size;
    task->meta_size = (uint32_t)size;
}

static void keep_meta(struct core *core, struct task *task, const struct wire_list *meta,
                      struct effects *out)
{
    if (meta->count == 0 || out->meta_count == ENTRY_COUNT_MAX) {
        return;
    }
    if (!has_room_for_meta(core, task, meta->size)) {
        core->counters.meta_dropped++;
        return;
    }
    count_meta(core, task, meta->size);
    struct wire_list *kept = &out->metas[out->meta_count];
    out->meta_count++;
    *kept = *meta;
    persist(core, out, RECORD_META, task)->meta = kept;
}

static void on_success(struct core *core, struct session *session,
                       const struct wire_success_entry *entry, struct effects *out)
{
    struct attempt *attempt = attempt_find(core, session, entry->lease);
    if (attempt == NULL || attempt->task == NONE) {
        on_late(core, session, attempt, entry->lease, out);
        return;
    }
    struct task *task = &core->tasks[attempt->task];
    keep_meta(core, task, &entry->meta, out);
    attempt_close(core, attempt, BREAKER_SUCCESS, out);
    task_settle(core, task, TASK_SUCCEEDED, FAILURE_NONE, entry->body, out);
    acknowledge(core, session, entry->lease, false, task->record);
}

/* What a worker may report; the broker's own verdicts it may not. */
static enum failure_kind reported_kind(uint64_t kind)
{
    switch ((enum failure_kind)kind) {
    case FAILURE_PREPARE:
    case FAILURE_PERMANENT:
    case FAILURE_TRANSIENT:
    case FAILURE_TIMEOUT:
    case FAILURE_CRASH:
    case FAILURE_FINALIZE:
    case FAILURE_CANCELLED:
        return (enum failure_kind)kind;
    case FAILURE_NONE:
    case FAILURE_LOST:
    case FAILURE_RETURNED:
    case FAILURE_DAMAGED:
    case FAILURE_EXPIRED:
    case FAILURE_UPSTREAM:
    case FAILURE_KIND_COUNT:
        break;
    }
    return FAILURE_TRANSIENT;
}

static void on_failure(struct core *core, struct session *session,
                       const struct wire_failure_entry *entry, struct effects *out)
{
    struct attempt *attempt = attempt_find(core, session, entry->lease);
    if (attempt == NULL || attempt->task == NONE) {
        on_late(core, session, attempt, entry->lease, out);
        return;
    }
    struct task *task = &core->tasks[attempt->task];
    TREADLE_ASSERT(out->failure_count < ENTRY_COUNT_MAX);
    struct wire_failure_entry *failure = &out->failures[out->failure_count];
    out->failure_count++;
    *failure = *entry;
    keep_meta(core, task, &failure->meta, out);
    const struct attempt_end end = {.kind = reported_kind(entry->kind),
                                    .choice = (enum retry_choice)entry->retry_choice,
                                    .retry_delay_ms = entry->retry_delay_ms,
                                    .failure = failure,
                                    .attempt = task->attempt};
    retry_after_failure(core, task, &end, out);
    acknowledge(core, session, entry->lease, false, task->record);
}

void attempt_on_result(struct core *core, struct session *session, const struct message *message,
                       struct effects *out)
{
    struct wire_list successes = message->as.result.successes;
    struct wire_success_entry success;
    while (wire_success_entry_next(&successes, &success)) {
        on_success(core, session, &success, out);
    }
    struct wire_list failures = message->as.result.failures;
    struct wire_failure_entry failure;
    while (wire_failure_entry_next(&failures, &failure)) {
        on_failure(core, session, &failure, out);
    }
}

void attempt_on_progress(struct core *core, struct session *session, const struct message *message,
                         struct effects *out)
{
    struct wire_list entries = message->as.progress.entries;
    struct wire_progress_entry entry;
    while (wire_progress_entry_next(&entries, &entry)) {
        struct attempt *attempt = attempt_find(core, session, entry.lease);
        if (attempt == NULL || attempt->task == NONE) {
            core->counters.late++;
            session->late_count++;
            continue;
        }
        attempt->flags |= ATTEMPT_RUNNING;
        keep_meta(core, &core->tasks[attempt->task], &entry.meta, out);
    }
}

void attempt_give_back(struct core *core, struct attempt *attempt, enum failure_kind kind,
                       bool is_counted, struct effects *out)
{
    struct session *session = &core->sessions[attempt->session];
    if (attempt->task == NONE) {
        attempt_close(core, attempt, BREAKER_NO_VERDICT, out);
    } else {
        struct task *task = &core->tasks[attempt->task];
        const struct attempt_end end = {
            .kind = kind, .is_counted = is_counted, .attempt = task->attempt};
        retry_after_failure(core, task, &end, out);
    }
    session_refresh_capacity(core, session);
}

void attempt_on_returned(struct core *core, struct session *session, const struct message *message,
                         struct effects *out)
{
    struct wire_list entries = message->as.returned.entries;
    struct wire_lease_entry entry;
    while (wire_lease_entry_next(&entries, &entry)) {
        struct attempt *attempt = attempt_find(core, session, entry.lease);
        if (attempt == NULL) {
            core->counters.late++;
            session->late_count++;
            continue;
        }
        attempt_give_back(core, attempt, FAILURE_RETURNED, false, out);
    }
}

/* The backstop: the worker has said nothing about it for longer than it may take. */
void attempt_on_timer(struct core *core, struct attempt *attempt, struct effects *out)
{
    struct effect *effect =
        session_send(core, &core->sessions[attempt->session], MESSAGE_CANCEL_ATTEMPT, out);
    if (effect != NULL) {
        effect->number = attempt->lease;
    }
    attempt_give_back(core, attempt, FAILURE_TIMEOUT, false, out);
}

void attempt_recall(struct core *core, struct attempt *attempt, struct effects *out)
{
    if ((attempt->flags & (ATTEMPT_RECALLED | ATTEMPT_RUNNING)) != 0) {
        return;
    }
    struct effect *effect =
        session_send(core, &core->sessions[attempt->session], MESSAGE_RECALL, out);
    if (effect == NULL) {
        return;
    }
    attempt->flags |= ATTEMPT_RECALLED;
    effect->number = attempt->lease;
    core->counters.recalled++;
}
