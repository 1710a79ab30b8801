/* SPDX-License-Identifier: MPL-2.0 */
/* Slow checkers: what must hold between any two steps, counted anew from the objects themselves. */
#include "broker/core/core.h"
#include "broker/core/internal.h"
#include "common/base/assert.h"

static uint32_t length_of(const struct list *head)
{
    uint32_t length = 0;
    for (const struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
        TREADLE_ASSERT(link->next->prev == link && link->prev->next == link);
        length++;
    }
    return length;
}

static void check_slab(const struct slab *slab)
{
    TREADLE_ASSERT(slab->live <= slab->used && slab->used <= slab->count_max);
    TREADLE_ASSERT(length_of(&slab->free) == slab->used - slab->live);
}

static void check_slabs(const struct core *core)
{
    check_slab(&core->task_slab);
    check_slab(&core->attempt_slab);
    check_slab(&core->session_slab);
    check_slab(&core->queue_slab);
    check_slab(&core->tenant_queue_slab);
    check_slab(&core->serve_slab);
    check_slab(&core->wildcard_slab);
    check_slab(&core->watch_slab);
    check_slab(&core->policy_slab);
    TREADLE_ASSERT(map_count(&core->lease_map) == core->attempt_slab.live);
    TREADLE_ASSERT(map_count(&core->queue_map) == core->queue_slab.live);
    TREADLE_ASSERT(map_count(&core->tenant_map) == core->tenant_queue_slab.live);
    TREADLE_ASSERT(map_count(&core->policy_map) == core->policy_slab.live);
}

/* ---- tasks ---- */

struct task_counts {
    uint32_t unsettled;
    uint32_t retained;
    uint32_t undelivered;
    uint32_t running;
    uint32_t ready;
    uint32_t scheduled;
    uint32_t watches;
    uint64_t bytes;
    uint64_t settled_bytes;
    uint64_t undelivered_bytes;
};

static void check_unsettled(const struct core *core, const struct task *task,
                            struct task_counts *counts)
{
    counts->unsettled++;
    counts->bytes += task->kept_size;
    TREADLE_ASSERT(task->tenant_queue != NONE);
    TREADLE_ASSERT(task->deadline_at_ms == UINT64_MAX || timer_is_armed(&task->timer));
    if (task->state == TASK_RUNNING) {
        counts->running++;
        TREADLE_ASSERT(task->attempt != NONE && list_is_empty(&task->link));
        TREADLE_ASSERT(&core->tasks[core->attempts[task->attempt].task] == task);
        return;
    }
    TREADLE_ASSERT(task->attempt == NONE);
    if (task->state == TASK_READY) {
        counts->ready++;
        TREADLE_ASSERT(!list_is_empty(&task->link));
    } else {
        counts->scheduled++;
        TREADLE_ASSERT(task->state == TASK_SCHEDULED && list_is_empty(&task->link));
        TREADLE_ASSERT(timer_is_armed(&task->timer) &&
                       task->timer.deadline_at_ms <=
                           (task->wake_at_ms > core->now_ms ? task->wake_at_ms : core->now_ms));
    }
}

static void check_settled(const struct task *task, struct task_counts *counts)
{
    TREADLE_ASSERT(task->attempt == NONE && task->tenant_queue == NONE);
    TREADLE_ASSERT(task->kept_size >= task->error_size + task->meta_size);
    TREADLE_ASSERT(timer_is_armed(&task->timer));
    counts->settled_bytes += task->result_size;
    if (task->first_watch == NONE) {
        counts->retained++;
        TREADLE_ASSERT(!list_is_empty(&task->link));
    } else {
        counts->undelivered++;
        counts->undelivered_bytes += task->result_size;
        TREADLE_ASSERT(list_is_empty(&task->link));
    }
}

static void check_task(const struct core *core, uint32_t number, struct task_counts *counts)
{
    const struct task *task = &core->tasks[number];
    TREADLE_ASSERT(id_find(core, &task->id) == number);
    TREADLE_ASSERT(task->record <= core->record_number);
    if (task_is_settled(task)) {
        check_settled(task, counts);
    } else {
        check_unsettled(core, task, counts);
    }
    for (uint32_t watch = task->first_watch; watch != NONE; watch = core->watches[watch].next) {
        counts->watches++;
        TREADLE_ASSERT(core->watches[watch].task == number);
        TREADLE_ASSERT(core->sessions[core->watches[watch].session].state != SESSION_FREE);
    }
}

static void check_tasks(const struct core *core, struct task_counts *counts)
{
    for (uint32_t i = 0; i < core->task_slab.used; i++) {
        if (core->tasks[i].sequence != 0) {
            check_task(core, i, counts);
        }
    }
    TREADLE_ASSERT(counts->unsettled == core->unsettled_count);
    TREADLE_ASSERT(counts->bytes == core->unsettled_bytes);
    TREADLE_ASSERT(counts->retained == core->settled_count);
    TREADLE_ASSERT(counts->retained == length_of(&core->settled));
    TREADLE_ASSERT(counts->undelivered == core->undelivered_count);
    TREADLE_ASSERT(counts->settled_bytes == core->settled_bytes);
    TREADLE_ASSERT(counts->watches == core->watch_slab.live);
    TREADLE_ASSERT(core->unsettled_count <= core->config.task_count_max);
}

/* ---- sessions and leases ---- */

static void check_lease(const struct core *core, const struct attempt *attempt,
                        const struct session *session)
{
    TREADLE_ASSERT(&core->sessions[attempt->session] == session);
    TREADLE_ASSERT(timer_is_armed(&attempt->timer));
    TREADLE_ASSERT((attempt->task == NONE) == ((attempt->flags & ATTEMPT_ZOMBIE) != 0));
    if (attempt->task != NONE) {
        TREADLE_ASSERT(&core->attempts[core->tasks[attempt->task].attempt] == attempt);
    }
}

static uint32_t check_leases(const struct core *core, const struct session *session,
                             const struct list *leases)
{
    uint32_t count = 0;
    for (const struct list *link = list_first(leases); link != NULL;
         link = list_next(leases, link)) {
        check_lease(core, container_of_const(link, struct attempt, link), session);
        count++;
    }
    return count;
}

static void check_flight(const struct session *session)
{
    uint32_t count = 0;
    uint64_t bytes = 0;
    uint64_t last = 0;
    for (const struct list *link = list_first(&session->in_flight); link != NULL;
         link = list_next(&session->in_flight, link)) {
        const struct watch *watch = container_of_const(link, struct watch, link);
        TREADLE_ASSERT(watch->flight == session->flight && watch->number > last);
        last = watch->number;
        bytes += watch->bytes;
        count++;
    }
    TREADLE_ASSERT(count == session->flight_count && bytes == session->flight_bytes);
    TREADLE_ASSERT(last <= session->settled_number);
    TREADLE_ASSERT(session->taken_number <= session->settled_number);
}

static void check_session(const struct core *core, const struct session *session, uint32_t number)
{
    const uint32_t leases = check_leases(core, session, &session->attempts) +
                            check_leases(core, session, &session->doubtful);
    TREADLE_ASSERT(leases == session->in_use);
    if (session->state == SESSION_LIVE) {
        TREADLE_ASSERT(timer_is_armed(&session->timer));
        TREADLE_ASSERT(session->connection == NONE ||
                       core->connection_sessions[session->connection] == number + 1);
        const bool is_busy = session->in_use > session->slots;
        TREADLE_ASSERT(session->role != ROLE_WORKER ||
                       is_busy == !list_is_empty(&session->busy_link));
    } else {
        TREADLE_ASSERT(list_is_empty(&session->serves) && session->connection == NONE);
    }
    check_flight(session);
}

static void check_sessions(const struct core *core, const struct task_counts *counts)
{
    uint32_t leases = 0;
    uint32_t zombies = 0;
    for (uint32_t i = 0; i < core->session_slab.used; i++) {
        const struct session *session = &core->sessions[i];
        if (session->state == SESSION_FREE) {
            continue;
        }
        check_session(core, session, i);
        leases += session->in_use;
        for (const struct list *link = list_first(&session->attempts); link != NULL;
             link = list_next(&session->attempts, link)) {
            zombies += container_of_const(link, struct attempt, link)->task == NONE ? 1 : 0;
        }
        for (const struct list *link = list_first(&session->doubtful); link != NULL;
             link = list_next(&session->doubtful, link)) {
            zombies += container_of_const(link, struct attempt, link)->task == NONE ? 1 : 0;
        }
    }
    TREADLE_ASSERT(leases == core->attempt_slab.live);
    TREADLE_ASSERT(leases == counts->running + zombies);
}

/* ---- services and queues ---- */

static uint32_t check_fifo(const struct core *core, const struct list *fifo, uint32_t tenant_queue,
                           uint32_t priority, bool is_retry)
{
    uint32_t count = 0;
    for (const struct list *link = list_first(fifo); link != NULL; link = list_next(fifo, link)) {
        const struct task *task = container_of_const(link, struct task, link);
        TREADLE_ASSERT(task->state == TASK_READY && task->tenant_queue == tenant_queue);
        TREADLE_ASSERT(task->priority == priority);
        TREADLE_ASSERT(((task->flags & TASK_IS_RETRY) != 0) == is_retry);
        count++;
    }
    (void)core;
    return count;
}

static void check_tenant_queue(const struct core *core, const struct tenant_queue *tenant_queue)
{
    const uint32_t number = slab_place(&core->tenant_queue_slab, tenant_queue);
    uint32_t first = 0;
    uint32_t retry = 0;
    for (uint32_t priority = 0; priority < FIFO_COUNT; priority++) {
        const struct fifo *fifo = &tenant_queue->fifos[priority];
        first += check_fifo(core, &fifo->first, number, priority, false);
        retry += check_fifo(core, &fifo->retry, number, priority, true);
        TREADLE_ASSERT(list_is_empty(&fifo->first) ==
                       ((tenant_queue->first_bits & (1U << priority)) == 0));
        TREADLE_ASSERT(list_is_empty(&fifo->retry) ==
                       ((tenant_queue->retry_bits & (1U << priority)) == 0));
    }
    TREADLE_ASSERT(first == tenant_queue->ready_first && retry == tenant_queue->ready_retry);
    TREADLE_ASSERT(first + retry > 0 && first + retry <= tenant_queue->task_count);
}

static void check_queue(const struct core *core, const struct queue *queue)
{
    uint32_t first = 0;
    uint32_t retry = 0;
    for (const struct list *link = list_first(&queue->tenants); link != NULL;
         link = list_next(&queue->tenants, link)) {
        const struct tenant_queue *tenant_queue =
            container_of_const(link, struct tenant_queue, link);
        check_tenant_queue(core, tenant_queue);
        first += tenant_queue->ready_first;
        retry += tenant_queue->ready_retry;
    }
    TREADLE_ASSERT(first == queue->ready_first && retry == queue->ready_retry);
}

/* A worker could take a task that is ready, so the queue must be in its ring: no wake-up is lost.
 */
static void check_no_lost_wakeup(const struct core *core, const struct serve *serve)
{
    const struct queue *queue = &core->queues[serve->queue];
    const struct service *service = &core->services[queue->service];
    const struct session *session = &core->sessions[serve->session];
    const bool could_go = queue->ready_first > 0 && !service->is_paused &&
                          breaker_admits(&service->breaker) && session_has_credit(session) &&
                          core->attempt_slab.live < core->attempt_slab.count_max;
    if (could_go && serve->place != SERVE_PARKED) {
        TREADLE_ASSERT(!list_is_empty(&queue->active_link));
        TREADLE_ASSERT(!list_is_empty(&service->active_link));
    }
    TREADLE_ASSERT(!could_go || serve->place != SERVE_PARKED ||
                   session->refreshed_at_ms <= core->lacked_at_ms);
}

static void check_breaker(const struct core *core, const struct service *service)
{
    const struct breaker *breaker = &service->breaker;
    uint32_t probes = 0;
    uint32_t current = 0;
    for (const struct list *link = list_first(&service->attempts); link != NULL;
         link = list_next(&service->attempts, link)) {
        const struct attempt *attempt = container_of_const(link, struct attempt, service_link);
        const bool is_current = attempt->generation == breaker->generation;
        current += is_current ? 1 : 0;
        probes += is_current && (attempt->flags & ATTEMPT_PROBE) != 0 ? 1 : 0;
    }
    if (breaker->state == BREAKER_OPEN) {
        TREADLE_ASSERT(current == 0);
        TREADLE_ASSERT(breaker->cooled_at_ms == UINT64_MAX ||
                       timer_is_armed(&service->breaker_timer));
    } else if (breaker->state == BREAKER_HALF_OPEN) {
        TREADLE_ASSERT(probes == current && probes == breaker->probes_in_flight);
        TREADLE_ASSERT(probes <= breaker->probes_max);
    }
    (void)core;
}

/* Whether names are where they can be given up, or are not, as what needs them says. */
static void check_names(const struct core *core, const struct service *service)
{
    uint32_t used = 0;
    uint32_t count = 0;
    for (const struct list *link = list_first(&service->queues); link != NULL;
         link = list_next(&service->queues, link)) {
        const struct queue *queue = container_of_const(link, struct queue, link);
        const bool is_used = queue->task_count + queue->tenant_queue_count + queue->serve_count > 0;
        TREADLE_ASSERT(&core->services[queue->service] == service);
        TREADLE_ASSERT(is_used == list_is_empty(&queue->unused_link));
        used += is_used ? 1 : 0;
        count++;
    }
    TREADLE_ASSERT(used == service->used_queue_count && count == service->queue_count);
    TREADLE_ASSERT(service->budget_left <= count);
    const bool is_at_rest = used == 0 && list_is_empty(&service->wildcards) &&
                            service->attempt_count == 0 && !service->is_paused &&
                            service->breaker.state == BREAKER_CLOSED &&
                            service->breaker.mode == BREAKER_AUTO;
    TREADLE_ASSERT(is_at_rest == !list_is_empty(&service->unused_link));
}

static void check_services(const struct core *core, const struct task_counts *counts)
{
    uint32_t running = 0;
    uint32_t ready = 0;
    uint32_t scheduled = 0;
    uint32_t used = 0;
    for (uint32_t i = 0; i < core->service_count; i++) {
        const struct service *service = &core->services[i];
        if (!service->is_used) {
            continue;
        }
        used++;
        check_names(core, service);
        running += service->running_count;
        ready += service->ready_count;
        scheduled += service->scheduled_count;
        TREADLE_ASSERT(length_of(&service->attempts) == service->attempt_count);
        check_breaker(core, service);
        for (const struct list *link = list_first(&service->queues); link != NULL;
             link = list_next(&service->queues, link)) {
            check_queue(core, container_of_const(link, struct queue, link));
        }
    }
    TREADLE_ASSERT(running == counts->running && ready == counts->ready);
    TREADLE_ASSERT(scheduled == counts->scheduled);
    TREADLE_ASSERT(used == map_count(&core->service_map));
    TREADLE_ASSERT(used + length_of(&core->free_services) == core->service_count);
    for (uint32_t i = 0; i < core->session_slab.used; i++) {
        const struct session *session = &core->sessions[i];
        if (session->state != SESSION_LIVE) {
            continue;
        }
        for (const struct list *link = list_first(&session->serves); link != NULL;
             link = list_next(&session->serves, link)) {
            check_no_lost_wakeup(core, container_of_const(link, struct serve, session_link));
        }
    }
}

/* What all owners have together is what there is. */
static void check_owners(const struct core *core, const struct task_counts *counts)
{
    struct owner all = {0};
    uint32_t owners_with_tasks = 0;
    for (uint32_t i = 0; i < core->owner_count; i++) {
        const struct owner *owner = &core->owners[i];
        owners_with_tasks += owner->task_count + owner->undelivered_count > 0 ? 1 : 0;
        all.task_count += owner->task_count;
        all.undelivered_count += owner->undelivered_count;
        all.byte_count += owner->byte_count;
        all.undelivered_bytes += owner->undelivered_bytes;
        all.watch_count += owner->watch_count;
        all.service_count += owner->service_count;
        all.queue_count += owner->queue_count;
        all.tenant_queue_count += owner->tenant_queue_count;
        all.policy_count += owner->policy_count;
    }
    TREADLE_ASSERT(owners_with_tasks == core->owners_with_tasks);
    TREADLE_ASSERT(all.task_count == core->unsettled_count);
    TREADLE_ASSERT(all.undelivered_count == core->undelivered_count);
    TREADLE_ASSERT(all.byte_count == core->unsettled_bytes);
    TREADLE_ASSERT(all.undelivered_bytes == counts->undelivered_bytes);
    TREADLE_ASSERT(all.watch_count == core->watch_slab.live);
    TREADLE_ASSERT(all.service_count == map_count(&core->service_map));
    TREADLE_ASSERT(all.queue_count == core->queue_slab.live);
    TREADLE_ASSERT(all.tenant_queue_count == core->tenant_queue_slab.live);
    TREADLE_ASSERT(all.policy_count == core->policy_slab.live);
}

/* Tasks name their queues, settled ones too. */
static void check_queue_counts(const struct core *core)
{
    uint64_t tasks = 0;
    uint64_t serves = 0;
    uint64_t tenant_queues = 0;
    for (uint32_t i = 0; i < core->queue_slab.used; i++) {
        if (core->queues[i].service != NONE) {
            tasks += core->queues[i].task_count;
            serves += core->queues[i].serve_count;
            tenant_queues += core->queues[i].tenant_queue_count;
        }
    }
    TREADLE_ASSERT(tasks == core->task_slab.live);
    TREADLE_ASSERT(serves == core->serve_slab.live);
    TREADLE_ASSERT(tenant_queues == core->tenant_queue_slab.live);
}

void core_check(const struct core *core)
{
    struct task_counts counts = {0};
    wheel_check(&core->wheel);
    check_slabs(core);
    check_tasks(core, &counts);
    check_sessions(core, &counts);
    check_services(core, &counts);
    check_queue_counts(core);
    TREADLE_ASSERT(core->durable_number <= core->record_number);
    TREADLE_ASSERT(core->outbox_tail - core->outbox_head <= core->config.outbox_count_max);
    check_owners(core, &counts);
}
