/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/internal.h"
#include "common/base/assert.h"
#include "common/base/hash.h"

#include <string.h>

#define BUSY_BACKLOG_MAX (2U << 20) /* more than a client that waits as it is told ever has */

uint32_t task_number(const struct core *core, const struct task *task)
{
    return (uint32_t)(task - core->tasks);
}

struct service *task_service(struct core *core, const struct task *task)
{
    return &core->services[core->queues[task->queue].service];
}

bool task_is_settled(const struct task *task)
{
    return task->state >= TASK_SUCCEEDED;
}

struct effect *persist(struct core *core, struct effects *out, enum record_kind kind,
                       const struct task *task)
{
    struct effect *effect = effects_add(out, EFFECT_PERSIST, (int)kind);
    core->record_number++;
    effect->number = core->record_number;
    effect->task = task_number(core, task);
    effect->sequence = task->sequence;
    return effect;
}

struct effect *task_log(struct core *core, struct effects *out, enum log_event event,
                        const struct task *task)
{
    if (!core->config.is_logging_tasks || effects_room(out) <= core->log_room) {
        return NULL;
    }
    struct effect *effect = effects_add(out, EFFECT_LOG, (int)event);
    effect->task = task_number(core, task);
    effect->sequence = task->sequence;
    effect->attempt = task->attempt;
    effect->service = core->queues[task->queue].service;
    return effect;
}

/* ---- ids ---- */

static uint64_t hash_id(const struct core *core, const struct treadle_task_id *id)
{
    return hash_id16(&core->config.hash_key, id->bytes);
}

static bool id_is(const void *context, uint32_t value, const void *key)
{
    const struct core *core = context;
    const uint32_t places = core->task_slab.count_max;
    const struct treadle_task_id *id =
        value < places ? &core->tasks[value].id : &core->remembered[value - places].id;
    return memcmp(id->bytes, ((const struct treadle_task_id *)key)->bytes, sizeof id->bytes) == 0;
}

uint32_t id_find(const struct core *core, const struct treadle_task_id *id)
{
    return map_find(&core->id_map, hash_id(core, id), id_is, core, id);
}

void task_prefetch_id(const struct core *core, const struct task *task)
{
    map_prefetch(&core->id_map, hash_id(core, &task->id));
}

/* Remembers the id of a task that goes, over the oldest one remembered. */
static void remember(struct core *core, const struct task *task)
{
    struct remembered *place = &core->remembered[core->remembered_at];
    const uint32_t number = core->task_slab.count_max + core->remembered_at;
    map_replace(&core->id_map, hash_id(core, &task->id), task_number(core, task), number);
    if (place->is_used) {
        map_remove(&core->id_map, hash_id(core, &place->id), number);
        if (place->settled_at_ms > core->fate_horizon_ms) {
            core->fate_horizon_ms = place->settled_at_ms;
        }
    }
    *place = (struct remembered){.id = task->id,
                                 .settled_at_ms = core->now_ms,
                                 .owner = task->owner,
                                 .state = task->state,
                                 .is_used = true};
    memcpy(place->digest, task->digest, sizeof place->digest);
    core->remembered_at = (core->remembered_at + 1) % core->config.remembered_count_max;
}

/* Whether a task first submitted that long ago may have settled and been forgotten. */
static bool is_beyond_memory(const struct core *core, uint64_t again_age_ms)
{
    const uint64_t age_ms = again_age_ms - 1;
    if (age_ms > core->config.dedup_window_ms || age_ms > core->now_ms) {
        return true;
    }
    return core->now_ms - age_ms < core->fate_horizon_ms;
}

/* ---- where a task waits ---- */

static struct tenant_queue *tenant_queue_of(struct core *core, const struct task *task)
{
    TREADLE_ASSERT(task->tenant_queue != NONE);
    return &core->tenant_queues[task->tenant_queue];
}

static struct list *fifo_of(struct tenant_queue *tenant_queue, const struct task *task)
{
    struct fifo *fifo = &tenant_queue->fifos[task->priority];
    return (task->flags & TASK_IS_RETRY) != 0 ? &fifo->retry : &fifo->first;
}

static void count_ready(struct core *core, struct task *task, bool is_added)
{
    struct tenant_queue *tenant_queue = tenant_queue_of(core, task);
    struct queue *queue = &core->queues[task->queue];
    const bool is_retry = (task->flags & TASK_IS_RETRY) != 0;
    uint32_t *in_tenant = is_retry ? &tenant_queue->ready_retry : &tenant_queue->ready_first;
    uint32_t *in_queue = is_retry ? &queue->ready_retry : &queue->ready_first;
    uint32_t *in_service = &core->services[queue->service].ready_count;
    if (is_added) {
        ++*in_tenant;
        ++*in_queue;
        ++*in_service;
    } else {
        TREADLE_ASSERT(*in_tenant > 0 && *in_queue > 0 && *in_service > 0);
        --*in_tenant;
        --*in_queue;
        --*in_service;
    }
}

void task_arm(struct core *core, struct task *task)
{
    wheel_cancel(&core->wheel, &task->timer);
    uint64_t at_ms = task->deadline_at_ms;
    if ((task->state == TASK_SCHEDULED || task->state == TASK_READY) && task->wake_at_ms < at_ms) {
        at_ms = task->wake_at_ms;
    }
    if (at_ms != UINT64_MAX) {
        wheel_add(&core->wheel, &task->timer, at_ms);
    }
}

/* The queue timeout runs from when it was first ready until the first attempt that was not handed
 * back. */
static uint64_t queue_timeout_at_ms(const struct core *core, const struct task *task)
{
    if ((task->flags & TASK_STARTED) != 0) {
        return UINT64_MAX;
    }
    const uint64_t span_ms =
        policy_choose(core, core->queues[task->queue].policies, task->policy, POLICY_QUEUE_TIMEOUT)
            .value;
    return span_ms == 0 ? UINT64_MAX : task->ready_at_ms + span_ms;
}

void task_make_ready(struct core *core, struct task *task, bool in_front)
{
    struct tenant_queue *tenant_queue = tenant_queue_of(core, task);
    task->state = TASK_READY;
    if (!in_front) {
        task->ready_at_ms = core->now_ms;
    }
    struct list *fifo = fifo_of(tenant_queue, task);
    if (in_front) {
        list_push_front(fifo, &task->link);
    } else {
        list_push_back(fifo, &task->link);
    }
    const uint16_t bit = (uint16_t)(1U << task->priority);
    if ((task->flags & TASK_IS_RETRY) != 0) {
        tenant_queue->retry_bits |= bit;
    } else {
        tenant_queue->first_bits |= bit;
    }
    count_ready(core, task, true);
    struct queue *queue = &core->queues[task->queue];
    if (list_is_empty(&tenant_queue->link)) {
        list_push_back(&queue->tenants, &tenant_queue->link);
    }
    task->wake_at_ms = queue_timeout_at_ms(core, task);
    task_arm(core, task);
    queue_activate(core, queue);
}

void task_schedule(struct core *core, struct task *task, uint64_t wake_at_ms)
{
    task->state = TASK_SCHEDULED;
    task->wake_at_ms = wake_at_ms;
    task_service(core, task)->scheduled_count++;
    task_arm(core, task);
}

static void leave_queue(struct core *core, struct task *task)
{
    struct tenant_queue *tenant_queue = tenant_queue_of(core, task);
    list_remove(&task->link);
    count_ready(core, task, false);
    if (list_is_empty(fifo_of(tenant_queue, task))) {
        const uint16_t others = (uint16_t) ~(1U << task->priority);
        if ((task->flags & TASK_IS_RETRY) != 0) {
            tenant_queue->retry_bits &= others;
        } else {
            tenant_queue->first_bits &= others;
        }
    }
    if (tenant_queue->first_bits == 0 && tenant_queue->retry_bits == 0) {
        list_remove(&tenant_queue->link);
    }
}

void task_leave_wait(struct core *core, struct task *task)
{
    if (task->state == TASK_READY) {
        leave_queue(core, task);
    } else {
        TREADLE_ASSERT(task->state == TASK_SCHEDULED);
        TREADLE_ASSERT(task_service(core, task)->scheduled_count > 0);
        task_service(core, task)->scheduled_count--;
    }
    task->wake_at_ms = UINT64_MAX;
}

/* ---- settlement ---- */

static void count_settled(struct core *core, const struct task *task)
{
    struct service *service = task_service(core, task);
    switch ((enum task_state)task->state) {
    case TASK_SUCCEEDED:
        core->counters.succeeded++;
        service->succeeded_count++;
        break;
    case TASK_CANCELLED:
        core->counters.cancelled++;
        break;
    case TASK_EXPIRED:
        core->counters.expired++;
        service->failed_count++;
        break;
    case TASK_FAILED:
        core->counters.failed++;
        service->failed_count++;
        break;
    case TASK_SCHEDULED:
    case TASK_BLOCKED:
    case TASK_READY:
    case TASK_RUNNING:
    case TASK_STATE_COUNT:
        TREADLE_ASSERT(false);
        break;
    }
}

/* The task no longer counts for its owner, its tenant and the broker's limits. */
static void release_unsettled(struct core *core, struct task *task)
{
    struct owner *owner = &core->owners[task->owner];
    TREADLE_ASSERT(owner->task_count > 0 && owner->byte_count >= task->kept_size);
    owner->task_count--;
    owner->byte_count -= task->kept_size;
    owner_note_tasks(core, task->owner, true);
    core->unsettled_count--;
    core->unsettled_bytes -= task->kept_size;
    struct tenant_queue *tenant_queue = tenant_queue_of(core, task);
    tenant_queue->task_count--;
    if (tenant_queue->task_count == 0) {
        tenant_queue_release(core, task->tenant_queue);
    }
    task->tenant_queue = NONE;
}

/* Keeps the slot, the lease and the probe until the worker reports the end of what it runs. */
static void make_zombie(struct core *core, struct task *task, struct effects *out)
{
    struct attempt *attempt = &core->attempts[task->attempt];
    attempt->task = NONE;
    attempt->flags |= ATTEMPT_ZOMBIE;
    task->attempt = NONE;
    struct effect *effect =
        session_send(core, &core->sessions[attempt->session], MESSAGE_CANCEL_ATTEMPT, out);
    if (effect != NULL) {
        effect->number = attempt->lease;
    }
}

static void log_settled(struct core *core, const struct task *task, struct effects *out)
{
    static const enum log_event events[TASK_STATE_COUNT] = {
        [TASK_SUCCEEDED] = LOG_TASK_SUCCEEDED,
        [TASK_FAILED] = LOG_TASK_FAILED,
        [TASK_CANCELLED] = LOG_TASK_CANCELLED,
        [TASK_EXPIRED] = LOG_TASK_EXPIRED,
    };
    struct effect *effect = task_log(core, out, events[task->state], task);
    if (effect != NULL) {
        effect->reason = task->kind;
        effect->value = core->now_ms - task->submitted_at_ms;
    }
}

static uint64_t retention_ms(const struct core *core, const struct task *task)
{
    const uint64_t ttl_ms =
        policy_choose(core, core->queues[task->queue].policies, task->policy, POLICY_RESULT_TTL)
            .value;
    const bool is_dead_letter = task->state == TASK_FAILED || task->state == TASK_EXPIRED;
    if (is_dead_letter && ttl_ms < core->config.dead_letter_ttl_ms) {
        return core->config.dead_letter_ttl_ms;
    }
    return ttl_ms;
}

/* A dead letter keeps body and options; the others only what went wrong. */
uint32_t task_lasting_size(const struct task *task)
{
    const bool is_dead_letter = task->state == TASK_FAILED || task->state == TASK_EXPIRED;
    return is_dead_letter ? task->kept_size : task->error_size;
}

void task_settle(struct core *core, struct task *task, enum task_state state,
                 enum failure_kind kind, struct bytes result, struct effects *out)
{
    TREADLE_ASSERT(!task_is_settled(task));
    if (task->state == TASK_RUNNING) {
        task_service(core, task)->running_count--;
    } else {
        task_leave_wait(core, task);
    }
    task->state = (uint8_t)state;
    task->kind = (uint8_t)kind;
    task->result_size = (uint32_t)result.size + task_lasting_size(task);
    struct effect *record = persist(core, out, RECORD_SETTLED, task);
    record->status = (uint8_t)state;
    record->reason = (uint8_t)kind;
    record->body = result;
    task->record = record->number;
    log_settled(core, task, out);
    count_settled(core, task);
    if (task->attempt != NONE) {
        make_zombie(core, task, out);
    }
    release_unsettled(core, task);
    const uint64_t kept_ms = retention_ms(core, task);
    task->deadline_at_ms = core->now_ms + kept_ms;
    task->wake_at_ms = UINT64_MAX;
    task_arm(core, task);
    core->settled_bytes += task->result_size;
    if (task->first_watch == NONE) {
        task_retain_settled(core, task);
    } else {
        task_count_undelivered(core, task);
        deliver_settled(core, task);
    }
}

void task_count_undelivered(struct core *core, const struct task *task)
{
    struct owner *owner = &core->owners[task->owner];
    const bool had_tasks = owner_has_tasks(owner);
    core->undelivered_count++;
    owner->undelivered_count++;
    owner->undelivered_bytes += task->result_size;
    owner_note_tasks(core, task->owner, had_tasks);
}

void task_discount_undelivered(struct core *core, const struct task *task)
{
    struct owner *owner = &core->owners[task->owner];
    TREADLE_ASSERT(owner->undelivered_count > 0 && owner->undelivered_bytes >= task->result_size);
    core->undelivered_count--;
    owner->undelivered_count--;
    owner->undelivered_bytes -= task->result_size;
    owner_note_tasks(core, task->owner, true);
}

void task_retain_settled(struct core *core, struct task *task)
{
    TREADLE_ASSERT(task_is_settled(task) && task->first_watch == NONE);
    list_push_back(&core->settled, &task->link);
    core->settled_count++;
}

void task_evict(struct core *core, struct task *task, struct effects *out)
{
    TREADLE_ASSERT(task_is_settled(task) && task->first_watch == NONE);
    wheel_cancel(&core->wheel, &task->timer);
    list_remove(&task->link);
    core->settled_count--;
    core->settled_bytes -= task->result_size;
    (void)persist(core, out, RECORD_DROPPED, task);
    remember(core, task);
    policy_release(core, task->policy);
    core->queues[task->queue].task_count--;
    queue_note_use(core, &core->queues[task->queue]);
    task->sequence = 0;
    slab_give(&core->task_slab, task);
}

/* ---- submission ---- */

static struct bytes tenant_of(const struct core *core, const struct session *session,
                              const struct wire_submit_template *template)
{
    if (template->tenant.size > 0) {
        return template->tenant;
    }
    const struct name *name = &core->owners[session->owner].name;
    return (struct bytes){(const uint8_t *)name->text, name->size};
}

static uint8_t resolve_places(struct core *core, const struct session *session,
                              const struct wire_submit_template *template,
                              struct submit_target *target)
{
    target->tenant_queue = NONE;
    target->policy = NONE;
    target->queue = queue_intern(core, session->owner, template->service, template->task);
    if (target->queue == NONE) {
        return BUSY_NAMES;
    }
    target->tenant_queue = tenant_queue_intern(core, session->owner, target->queue,
                                               tenant_of(core, session, template));
    if (target->tenant_queue == NONE) {
        return BUSY_NAMES;
    }
    core->tenant_queues[target->tenant_queue].task_count++; /* held during the step */
    if (!policy_intern(core, session->owner, &template->policy, &target->policy)) {
        return BUSY_NAMES;
    }
    return BUSY_NONE;
}

/* Meta is bounded as a whole, which the codec cannot see. */
static bool meta_fits(struct wire_list meta)
{
    size_t size = 0;
    struct wire_meta_item item;
    while (wire_meta_item_next(&meta, &item)) {
        size += item.name.size + item.value.size;
    }
    return size <= META_SIZE_MAX;
}

static void resolve_target(struct core *core, const struct session *session, uint32_t index)
{
    const struct wire_submit_template *template = &core->templates[index];
    struct submit_target *target = &core->targets[index];
    target->is_resolved = true;
    if (!meta_fits(template->meta)) {
        target->status = ACCEPT_REFUSED;
        target->reason = REFUSED_TEMPLATE;
        target->tenant_queue = NONE;
        target->policy = NONE;
        return;
    }
    target->reason = resolve_places(core, session, template, target);
    target->status = target->reason == BUSY_NONE ? ACCEPT_OK : ACCEPT_BUSY;
    if (target->status == ACCEPT_OK) {
        target->deadline_ms = policy_choose(core, core->queues[target->queue].policies,
                                            target->policy, POLICY_DEADLINE)
                                  .value;
    }
}

static void release_target(struct core *core, struct submit_target *target)
{
    if (target->tenant_queue != NONE) {
        struct tenant_queue *tenant_queue = &core->tenant_queues[target->tenant_queue];
        tenant_queue->task_count--;
        if (tenant_queue->task_count == 0) {
            tenant_queue_release(core, target->tenant_queue);
        }
    }
    policy_release(core, target->policy);
}

/* The limit that a new task would pass, or BUSY_NONE. What has settled and is not acknowledged
 * counts as well: who does not take outcomes is the first who may not submit. */
static enum busy_reason limit_passed(const struct core *core, const struct owner *owner,
                                     size_t kept_size)
{
    const uint64_t count = (uint64_t)owner->task_count + owner->undelivered_count;
    const uint64_t bytes = owner->byte_count + owner->undelivered_bytes + kept_size;
    if (core->is_draining) {
        return BUSY_DRAINING;
    }
    if (core->unsettled_count + core->undelivered_count >= core->config.task_count_max) {
        return BUSY_TASKS;
    }
    if (core->unsettled_bytes + core->settled_bytes + kept_size > core->config.byte_max) {
        return BUSY_BYTES;
    }
    const bool others_are_there = core->owners_with_tasks > (owner_has_tasks(owner) ? 1U : 0U);
    if (others_are_there &&
        (count >= core->config.task_count_max / 2 || bytes > core->config.byte_max / 2)) {
        return BUSY_SHARE;
    }
    return BUSY_NONE;
}

/* What the broker has to keep for it: its body, its tags and its meta. */
static size_t kept_size_of(const struct core *core, const struct wire_submit_entry *entry)
{
    const struct wire_submit_template *template = &core->templates[entry->template_index];
    return entry->body.size + template->tags.size + template->meta.size;
}

static void init_task(struct core *core, struct task *task, const struct session *session,
                      const struct wire_submit_entry *entry)
{
    const struct submit_target *target = &core->targets[entry->template_index];
    const struct wire_submit_template *template = &core->templates[entry->template_index];
    *task = (struct task){.link = task->link,
                          .id = entry->id,
                          .sequence = core->next_sequence,
                          .submitted_at_ms = core->now_ms,
                          .deadline_at_ms = target->deadline_ms == 0
                                                ? UINT64_MAX
                                                : core->now_ms + target->deadline_ms,
                          .wake_at_ms = UINT64_MAX,
                          .tenant_queue = target->tenant_queue,
                          .queue = target->queue,
                          .owner = session->owner,
                          .policy = target->policy,
                          .attempt = NONE,
                          .first_watch = NONE,
                          .body_size = (uint32_t)entry->body.size,
                          .kept_size = (uint32_t)kept_size_of(core, entry),
                          .meta_size = (uint32_t) template->meta.size,
                          .priority = (uint8_t) template->priority};
    list_init(&task->link);
    timer_init(&task->timer, TIMER_TASK, task_number(core, task));
    memcpy(task->digest, entry->digest.data, sizeof task->digest);
    if ((template->flags & SUBMIT_KEEP) != 0) {
        task->flags |= TASK_KEEP;
    }
    if ((template->flags & SUBMIT_VOLATILE) != 0) {
        task->flags |= TASK_VOLATILE;
    }
    core->next_sequence++;
}

static void count_unsettled(struct core *core, struct task *task)
{
    struct owner *owner = &core->owners[task->owner];
    const bool had_tasks = owner_has_tasks(owner);
    owner->task_count++;
    owner->byte_count += task->kept_size;
    owner_note_tasks(core, task->owner, had_tasks);
    core->unsettled_count++;
    core->unsettled_bytes += task->kept_size;
    core->tenant_queues[task->tenant_queue].task_count++;
    core->queues[task->queue].task_count++; /* in use by its tenant's queue */
    policy_retain(core, task->policy);
}

static struct task *open_task(struct core *core, const struct session *session,
                              const struct wire_submit_entry *entry)
{
    const uint32_t number = slab_take(&core->task_slab);
    if (number == NONE) {
        return NULL; /* settled tasks have not left yet */
    }
    struct task *task = &core->tasks[number];
    init_task(core, task, session, entry);
    count_unsettled(core, task);
    map_add(&core->id_map, hash_id(core, &task->id), number);
    return task;
}

/* Accepts a task that is new; the answer waits for its record. */
static void accept_new(struct core *core, struct session *session,
                       const struct wire_submit_entry *entry, struct outbox_item *answer,
                       struct effects *out)
{
    const struct wire_submit_template *template = &core->templates[entry->template_index];
    const bool is_watched = (template->flags & SUBMIT_WATCH) != 0;
    struct task *task = NULL;
    if (!is_watched || watch_has_room(core, session)) {
        task = open_task(core, session, entry);
    }
    if (task == NULL) {
        answer->status = ACCEPT_BUSY;
        answer->number = BUSY_TASKS;
        return;
    }
    core->counters.accepted++;
    struct effect *record = persist(core, out, RECORD_ACCEPTED, task);
    record->template = template;
    record->body = entry->body;
    task->record = record->number;
    (void)task_log(core, out, LOG_TASK_ACCEPTED, task);
    if (is_watched) {
        task->flags |= TASK_WATCHED;
        (void)watch_add(core, session, task, true); /* there was a place */
    }
    if (template->delay_ms > 0) {
        task_schedule(core, task, core->now_ms + template->delay_ms);
    } else {
        task_make_ready(core, task, false);
    }
    answer->status = ACCEPT_OK;
    answer->after = task->record;
    answer->task = task_number(core, task);
    answer->sequence = task->sequence;
}

/* Who asked to be told must be: without a place for that it is as if the task were not there yet.
 */
static void answer_existing(struct core *core, struct session *session, struct task *task,
                            const struct wire_submit_entry *entry, struct outbox_item *answer)
{
    answer->after = task->record;
    const bool is_watched = (core->templates[entry->template_index].flags & SUBMIT_WATCH) != 0;
    if (is_watched && !watch_add(core, session, task, true)) {
        answer->status = ACCEPT_BUSY;
        answer->number = BUSY_TASKS;
    }
}

/* The id is known: the same task again, another content, or another owner's. */
static void answer_known(struct core *core, struct session *session, uint32_t known,
                         const struct wire_submit_entry *entry, struct outbox_item *answer)
{
    const uint32_t places = core->task_slab.count_max;
    struct task *task = known < places ? &core->tasks[known] : NULL;
    const struct remembered *gone = task == NULL ? &core->remembered[known - places] : NULL;
    if ((task != NULL ? task->owner : gone->owner) != session->owner) {
        const bool is_forbidden = core->targets[entry->template_index].is_forbidden;
        answer->status = ACCEPT_REFUSED; /* without the right, as for an id that is nobody's */
        answer->number = is_forbidden ? REFUSED_NO_RIGHT : REFUSED_ID_TAKEN;
    } else if (memcmp(task != NULL ? task->digest : gone->digest, entry->digest.data, 16) != 0) {
        answer->status = ACCEPT_CONFLICT;
    } else {
        answer->status = ACCEPT_EXISTING;
        if (task != NULL) {
            answer_existing(core, session, task, entry, answer);
        }
    }
}

/* What the session is refused, less what it may try again at BUSY_PER_MS. */
static void count_busy(const struct core *core, struct session *session)
{
    const uint64_t drained = (core->now_ms - session->busy_drained_at_ms) * BUSY_PER_MS;
    session->busy_backlog =
        session->busy_backlog > drained ? session->busy_backlog - (uint32_t)drained : 0;
    session->busy_drained_at_ms = core->now_ms;
    session->busy_backlog++;
}

/* It goes on sending what was refused, and does not wait as it was told. */
static bool is_pressing(const struct session *session)
{
    return session->busy_backlog > BUSY_BACKLOG_MAX;
}

static void count_answer(struct core *core, struct session *session,
                         const struct outbox_item *answer)
{
    switch ((enum accept_status)answer->status) {
    case ACCEPT_EXISTING:
        core->counters.existing++;
        break;
    case ACCEPT_BUSY:
        core->counters.busy++;
        count_busy(core, session);
        break;
    case ACCEPT_CONFLICT:
        core->counters.conflict++;
        break;
    case ACCEPT_REFUSED:
        core->counters.refused++;
        core->counters.beyond_rights += answer->number == REFUSED_NO_RIGHT ? 1 : 0;
        break;
    case ACCEPT_FATE_UNKNOWN:
        core->counters.fate_unknown++;
        break;
    case ACCEPT_OK:
    case ACCEPT_STATUS_COUNT:
        break;
    }
}

/* Limits first: what is refused makes no names. */
static void answer_new(struct core *core, struct session *session,
                       const struct wire_submit_entry *entry, struct outbox_item *answer,
                       struct effects *out)
{
    struct submit_target *target = &core->targets[entry->template_index];
    const enum busy_reason limit =
        limit_passed(core, &core->owners[session->owner], kept_size_of(core, entry));
    if (target->is_forbidden) {
        answer->status = ACCEPT_REFUSED;
        answer->number = REFUSED_NO_RIGHT;
        return;
    }
    if (entry->again_age_ms > 0 && is_beyond_memory(core, entry->again_age_ms)) {
        answer->status = ACCEPT_FATE_UNKNOWN;
        return;
    }
    if (entry->body.size > core->config.body_size_max) {
        answer->status = ACCEPT_REFUSED;
        answer->number = REFUSED_BODY_SIZE;
        return;
    }
    if (limit != BUSY_NONE) {
        answer->status = ACCEPT_BUSY;
        answer->number = limit;
        return;
    }
    if (!target->is_resolved) {
        resolve_target(core, session, (uint32_t)entry->template_index);
    }
    if (target->status != ACCEPT_OK) {
        answer->status = target->status;
        answer->number = target->reason;
        return;
    }
    accept_new(core, session, entry, answer, out);
}

static void submit_one(struct core *core, struct session *session,
                       const struct wire_submit_entry *entry, struct effects *out)
{
    struct outbox_item answer = {.code = MESSAGE_ACCEPTED, .id = entry->id, .task = NONE};
    core->counters.submitted++;
    const uint32_t known = id_find(core, &entry->id);
    if (known != MAP_NONE) {
        answer_known(core, session, known, entry, &answer);
        count_answer(core, session, &answer);
        if (answer.status == ACCEPT_EXISTING && known >= core->task_slab.count_max) {
            answer.code = MESSAGE_AWAITED; /* its outcome was told, or is no longer here */
            answer.status = AWAIT_GONE;
        }
        outbox_push(core, session, &answer);
        return;
    }
    answer_new(core, session, entry, &answer, out);
    count_answer(core, session, &answer);
    outbox_push(core, session, &answer);
}

#define PREFETCH_COUNT 32U

/* Ids are random, so each look-up misses the cache: ask for the next ones together. */
static void prefetch_ids(const struct core *core, struct wire_list entries)
{
    struct wire_submit_entry entry;
    for (uint32_t i = 0; i < PREFETCH_COUNT && wire_submit_entry_next(&entries, &entry); i++) {
        map_prefetch(&core->id_map, hash_id(core, &entry.id));
    }
}

void task_on_submit(struct core *core, struct session *session, const struct input *input,
                    struct effects *out)
{
    const struct message *message = input->message;
    struct wire_list templates = message->as.submit.templates;
    struct wire_list entries = message->as.submit.entries;
    struct wire_submit_entry entry;
    uint32_t count = 0;
    while (wire_submit_template_next(&templates, &core->templates[count])) {
        const struct wire_submit_template *template = &core->templates[count];
        core->targets[count] = (struct submit_target){
            .is_forbidden = !globs_cover_task(input->services, template->service, template->task)};
        count++;
        if (count == TEMPLATE_COUNT_MAX) {
            break;
        }
    }
    while (entries.count > 0) {
        prefetch_ids(core, entries);
        for (uint32_t i = 0; i < PREFETCH_COUNT && wire_submit_entry_next(&entries, &entry); i++) {
            submit_one(core, session, &entry, out);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (core->targets[i].is_resolved) {
            release_target(core, &core->targets[i]);
        }
    }
    if (is_pressing(session)) {
        session_end(core, session, SESSION_PRESSING, out);
    }
}

/* ---- cancel, await ---- */

/* The task if this session's owner may know of it. */
static struct task *find_own(struct core *core, const struct session *session,
                             const struct treadle_task_id *id, bool *is_gone)
{
    *is_gone = false;
    const uint32_t known = id_find(core, id);
    if (known == MAP_NONE) {
        return NULL;
    }
    if (known >= core->task_slab.count_max) {
        *is_gone = core->remembered[known - core->task_slab.count_max].owner == session->owner;
        return NULL;
    }
    struct task *task = &core->tasks[known];
    return task->owner == session->owner ? task : NULL;
}

/* The intent is durable before the answer; what the worker makes of it settles the task. */
static void request_cancel(struct core *core, struct task *task, struct effects *out)
{
    if ((task->flags & TASK_CANCEL_REQUESTED) == 0) {
        task->flags |= TASK_CANCEL_REQUESTED;
        task->record = persist(core, out, RECORD_CANCEL_INTENT, task)->number;
    }
    const struct attempt *attempt = &core->attempts[task->attempt];
    struct effect *effect =
        session_send(core, &core->sessions[attempt->session], MESSAGE_CANCEL_ATTEMPT, out);
    if (effect != NULL) {
        effect->number = attempt->lease;
    }
}

void task_on_cancel(struct core *core, struct session *session, const struct message *message,
                    struct effects *out)
{
    struct wire_list entries = message->as.cancel.entries;
    struct wire_id_entry entry;
    while (wire_id_entry_next(&entries, &entry)) {
        struct outbox_item answer = {.code = MESSAGE_CANCELLED, .id = entry.id, .task = NONE};
        bool is_gone = false;
        struct task *task = find_own(core, session, &entry.id, &is_gone);
        if (task == NULL) {
            answer.status = is_gone ? CANCEL_SETTLED_ALREADY : CANCEL_UNKNOWN;
        } else if (task_is_settled(task)) {
            answer.status = CANCEL_SETTLED_ALREADY;
            answer.after = task->record;
        } else if (task->state == TASK_RUNNING) {
            request_cancel(core, task, out);
            answer.status = CANCEL_REQUESTED;
            answer.after = task->record;
        } else {
            task_settle(core, task, TASK_CANCELLED, FAILURE_CANCELLED, (struct bytes){0}, out);
            answer.status = CANCEL_DONE;
            answer.after = task->record;
        }
        outbox_push(core, session, &answer);
    }
}

void task_on_await(struct core *core, struct session *session, const struct message *message)
{
    struct wire_list entries = message->as.await.entries;
    struct wire_id_entry entry;
    while (wire_id_entry_next(&entries, &entry)) {
        struct outbox_item answer = {.code = MESSAGE_AWAITED, .id = entry.id, .task = NONE};
        bool is_gone = false;
        struct task *task = find_own(core, session, &entry.id, &is_gone);
        if (task == NULL) {
            answer.status = is_gone ? AWAIT_GONE : AWAIT_UNKNOWN;
        } else if (!watch_add(core, session, task, false)) {
            answer.status = AWAIT_BUSY;
        } else {
            answer.status = task_is_settled(task) ? AWAIT_SETTLED : AWAIT_PENDING;
            answer.after = task->record;
        }
        outbox_push(core, session, &answer);
    }
}

/* ---- time ---- */

void task_on_timer(struct core *core, struct task *task, struct effects *out)
{
    const bool is_past_queue_timeout =
        task->state == TASK_READY && core->now_ms >= task->wake_at_ms;
    if (task_is_settled(task)) {
        if (task->first_watch == NONE) {
            task_evict(core, task, out);
        } else {
            task->deadline_at_ms = core->now_ms + core->config.dedup_window_ms;
            task_arm(core, task); /* somebody still awaits it */
        }
    } else if (core->now_ms >= task->deadline_at_ms || is_past_queue_timeout) {
        task_settle(core, task, TASK_EXPIRED, FAILURE_EXPIRED, (struct bytes){0}, out);
    } else if (task->state == TASK_SCHEDULED) {
        task_leave_wait(core, task);
        if (task->retry_index > 0) {
            task->flags |= TASK_IS_RETRY;
        }
        task_make_ready(core, task, false);
    } else {
        task_arm(core, task);
    }
}
