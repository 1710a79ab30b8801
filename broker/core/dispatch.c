/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Who gets what, once a round: services with work take turns by quantum, their queues in turn, in a
 * queue the tenants in turn, of a tenant the task with the greatest priority + waiting time; free
 * slots of all workers first, credit beyond them after. What cannot go on now leaves the rings and
 * comes back by an event: a ready task, a free slot, more credit, an opened gate.
 */
#include "broker/core/internal.h"
#include "common/base/assert.h"

#include <limits.h>

#define EFFECTS_PER_DISPATCH 3U
#define TENANT_TURNS_MAX     64U

/* ---- rings ---- */

static void activate_service(struct core *core, struct service *service)
{
    if (list_is_empty(&service->active_link) && !list_is_empty(&service->active_queues)) {
        list_push_back(&core->active_services, &service->active_link);
    }
}

void queue_activate(struct core *core, struct queue *queue)
{
    struct service *service = &core->services[queue->service];
    if (list_is_empty(&queue->active_link) && queue->ready_first + queue->ready_retry > 0) {
        list_push_back(&service->active_queues, &queue->active_link);
    }
    activate_service(core, service);
}

void service_wake(struct core *core, struct service *service)
{
    activate_service(core, service);
}

bool core_has_more_to_dispatch(const struct core *core)
{
    return !list_is_empty(&core->active_services);
}

/* ---- workers ---- */

bool session_has_credit(const struct session *session)
{
    return session->state == SESSION_LIVE && session->connection != NONE && !session->is_draining &&
           session->dispatched < session->granted;
}

static bool session_has_slot(const struct session *session)
{
    return session_has_credit(session) && session->in_use < session->slots;
}

void serve_set_place(struct core *core, struct serve *serve, enum serve_place place)
{
    struct queue *queue = &core->queues[serve->queue];
    list_remove(&serve->link);
    serve->place = (uint8_t)place;
    switch (place) {
    case SERVE_SLOT:
        list_push_back(&queue->slot_serves, &serve->link);
        queue_activate(core, queue);
        break;
    case SERVE_CREDIT:
        list_push_back(&queue->credit_serves, &serve->link);
        queue_activate(core, queue);
        break;
    case SERVE_PARKED:
        list_push_back(&core->sessions[serve->session].parked_serves, &serve->link);
        break;
    }
}

void session_refresh_capacity(struct core *core, struct session *session)
{
    session->is_capacity_changed = false;
    session->refreshed_at_ms = core->now_ms;
    if (!session_has_credit(session)) {
        return; /* its serves are parked when their turn comes */
    }
    const bool has_slot = session_has_slot(session);
    struct list *link = list_first(&session->serves);
    while (link != NULL) {
        struct serve *serve = container_of(link, struct serve, session_link);
        link = list_next(&session->serves, link);
        if (has_slot && serve->place != SERVE_SLOT) {
            serve_set_place(core, serve, SERVE_SLOT);
        } else if (serve->place == SERVE_PARKED) {
            serve_set_place(core, serve, SERVE_CREDIT);
        }
    }
}

/* The next worker in turn for this queue, free slots before credit; NULL when none can take a task.
 */
static struct serve *pick_serve(struct core *core, struct queue *queue)
{
    struct list *link = NULL;
    while ((link = list_first(&queue->slot_serves)) != NULL) {
        struct serve *serve = container_of(link, struct serve, link);
        const struct session *session = &core->sessions[serve->session];
        if (session_has_slot(session)) {
            return serve;
        }
        serve_set_place(core, serve, session_has_credit(session) ? SERVE_CREDIT : SERVE_PARKED);
    }
    while ((link = list_first(&queue->credit_serves)) != NULL) {
        struct serve *serve = container_of(link, struct serve, link);
        if (session_has_credit(&core->sessions[serve->session])) {
            return serve;
        }
        serve_set_place(core, serve, SERVE_PARKED);
    }
    return NULL;
}

/* ---- tasks ---- */

/* Of two heads the one with the greater priority + waited / 10 s: the one that is earlier by this
 * reckoning. */
static void consider(const struct list *fifo, struct task **best, int64_t *best_key)
{
    struct list *link = list_first(fifo);
    if (link == NULL) {
        return;
    }
    struct task *task = container_of(link, struct task, link);
    const int64_t key = (int64_t)task->ready_at_ms - (int64_t)task->priority * AGEING_MS;
    if (key < *best_key) {
        *best = task;
        *best_key = key;
    }
}

static struct task *pick_of_tenant(const struct tenant_queue *tenant_queue, bool admits_retries)
{
    struct task *best = NULL;
    int64_t best_key = INT64_MAX;
    for (int priority = PRIORITY_MAX; priority >= 0; priority--) {
        const uint16_t bit = (uint16_t)(1U << priority);
        if ((tenant_queue->first_bits & bit) != 0) {
            consider(&tenant_queue->fifos[priority].first, &best, &best_key);
        }
        if (admits_retries && (tenant_queue->retry_bits & bit) != 0) {
            consider(&tenant_queue->fifos[priority].retry, &best, &best_key);
        }
    }
    return best;
}

/* The next task by turn; NULL when only retries without a budget wait, or when the search has gone
 * far enough. */
static struct task *pick_task(struct core *core, struct queue *queue, bool admits_retries)
{
    for (uint32_t turn = 0; turn < TENANT_TURNS_MAX && core->visits > 0; turn++) {
        struct list *link = list_pop_front(&queue->tenants);
        if (link == NULL) {
            return NULL;
        }
        list_push_back(&queue->tenants, link);
        core->visits--;
        struct task *task =
            pick_of_tenant(container_of(link, struct tenant_queue, link), admits_retries);
        if (task != NULL) {
            return task;
        }
    }
    return NULL;
}

/* ---- handing out ---- */

/* What the attempt's fields come to for this worker and this submission; the same for a whole
 * batch. */
static void resolve_serve(struct core *core, struct serve *serve, uint32_t policy)
{
    const uint64_t serial = policy == NONE ? 0 : core->policies[policy].serial;
    if (serve->is_resolved && serve->resolved_serial == serial) {
        return;
    }
    serve->is_resolved = true;
    serve->resolved_serial = serial;
    serve->resolved_timeout_ms = policy_choose(core, serve->policies, policy, POLICY_TIMEOUT).value;
    serve->resolved_progress_timeout_ms =
        policy_choose(core, serve->policies, policy, POLICY_PROGRESS_TIMEOUT).value;
    serve->resolved_grace_ms = policy_choose(core, serve->policies, policy, POLICY_GRACE).value;
    serve->resolved_attempts_max =
        (uint32_t)policy_choose(core, serve->policies, policy, POLICY_ATTEMPTS_MAX).value;
}

static void count_dispatch(struct core *core, struct service *service, struct task *task)
{
    const bool is_retry = (task->flags & TASK_IS_RETRY) != 0;
    if (is_retry || task->dispatches == 0) {
        budget_count(core, service, is_retry);
    }
    core->counters.dispatched++;
    service->running_count++;
    task->dispatches++;
    task->flags &= (uint8_t)~TASK_IS_RETRY;
}

/* False: no place for another lease. */
static bool hand_out(struct core *core, struct serve *serve, struct task *task, struct effects *out)
{
    struct service *service = task_service(core, task);
    resolve_serve(core, serve, task->policy);
    const uint32_t number = attempt_open(core, task, serve);
    if (number == NONE) {
        return false;
    }
    struct attempt *attempt = &core->attempts[number];
    task_leave_wait(core, task);
    task->state = TASK_RUNNING;
    task_arm(core, task);
    attempt->generation = service->breaker.generation;
    if (breaker_on_dispatch(&service->breaker)) {
        attempt->flags |= ATTEMPT_PROBE;
    }
    count_dispatch(core, service, task);
    struct effect *record = persist(core, out, RECORD_DISPATCHED, task);
    record->attempt = number;
    record->value = attempt->lease;
    struct effect *effect =
        session_send(core, &core->sessions[attempt->session], MESSAGE_DISPATCH, out);
    TREADLE_ASSERT(effect != NULL); /* credit needs a connection */
    effect->task = task_number(core, task);
    effect->attempt = number;
    effect->sequence = task->sequence;
    (void)task_log(core, out, LOG_TASK_DISPATCHED, task);
    return true;
}

enum turn_result { TURN_DISPATCHED, TURN_QUEUE_DONE, TURN_STOP };

/* One task of one queue. */
static enum turn_result take_turn(struct core *core, struct service *service, struct queue *queue,
                                  struct effects *out)
{
    const bool admits_retries = queue->ready_retry > 0 && budget_admits(core, service);
    if (queue->ready_retry > 0 && !admits_retries) {
        budget_arm(core, service);
    }
    if (queue->ready_first == 0 && !admits_retries) {
        return TURN_QUEUE_DONE;
    }
    struct serve *serve = pick_serve(core, queue);
    if (serve == NULL) {
        return TURN_QUEUE_DONE;
    }
    struct task *task = pick_task(core, queue, admits_retries);
    if (task == NULL) {
        return TURN_STOP; /* many tenants with nothing but retries: the search goes on next time */
    }
    if (!hand_out(core, serve, task, out)) {
        core->lacked_at_ms = core->now_ms;
        serve_set_place(core, serve, SERVE_PARKED); /* its worker's next word brings it back */
        return TURN_DISPATCHED;
    }
    struct list *ring = serve->place == SERVE_SLOT ? &queue->slot_serves : &queue->credit_serves;
    list_remove(&serve->link);
    list_push_back(ring, &serve->link);
    /* Its session's next free slot is offered to what else it serves first. */
    list_remove(&serve->session_link);
    list_push_back(&core->sessions[serve->session].serves, &serve->session_link);
    return TURN_DISPATCHED;
}

static bool is_gate_open(const struct service *service)
{
    return !service->is_paused && breaker_admits(&service->breaker);
}

/* One quantum of one service. False: the step's bound is reached. */
static bool dispatch_service(struct core *core, struct service *service, struct effects *out)
{
    for (uint32_t taken = 0; taken < SERVICE_QUANTUM;) {
        if (core->visits == 0 || effects_room(out) < EFFECTS_PER_DISPATCH) {
            return false;
        }
        struct list *link = list_pop_front(&service->active_queues);
        if (link == NULL) {
            break;
        }
        struct queue *queue = container_of(link, struct queue, active_link);
        if (!is_gate_open(service)) {
            list_push_front(&service->active_queues, link); /* waits for service_wake() */
            break;
        }
        core->visits--;
        const enum turn_result result = take_turn(core, service, queue, out);
        if (result != TURN_QUEUE_DONE && list_is_empty(&queue->active_link)) {
            list_push_back(&service->active_queues, &queue->active_link);
        }
        if (result == TURN_STOP) {
            return false;
        }
        taken++;
    }
    return true;
}

void dispatch_round(struct core *core, struct effects *out)
{
    struct list *link = NULL;
    while ((link = list_pop_front(&core->active_services)) != NULL) {
        struct service *service = container_of(link, struct service, active_link);
        const bool goes_on = dispatch_service(core, service, out);
        if (!list_is_empty(&service->active_queues) && (is_gate_open(service) || !goes_on)) {
            activate_service(core, service);
        }
        if (!goes_on) {
            return;
        }
    }
}

/* ---- why a task waits ---- */

static enum wait_reason queue_reason(const struct core *core, const struct queue *queue)
{
    if (queue->serve_count == 0) {
        return WAIT_NO_WORKER;
    }
    const struct list *link = list_first(&queue->slot_serves);
    if (link == NULL) {
        link = list_first(&queue->credit_serves);
    }
    if (link == NULL) {
        return WAIT_NO_SLOT;
    }
    const struct serve *serve = container_of_const(link, struct serve, link);
    return session_has_credit(&core->sessions[serve->session]) ? WAIT_TURN : WAIT_NO_SLOT;
}

static enum wait_reason ready_reason(const struct core *core, const struct task *task,
                                     uint64_t *left_ms)
{
    const struct queue *queue = &core->queues[task->queue];
    const struct service *service = &core->services[queue->service];
    if (service->is_paused) {
        return WAIT_PAUSED;
    }
    if (service->breaker.state == BREAKER_OPEN) {
        if (service->breaker.cooled_at_ms != UINT64_MAX &&
            service->breaker.cooled_at_ms > core->now_ms) {
            *left_ms = service->breaker.cooled_at_ms - core->now_ms;
        }
        return WAIT_BREAKER;
    }
    if (queue->serve_count > 0 && !breaker_admits(&service->breaker)) {
        return WAIT_PROBES;
    }
    if ((task->flags & TASK_IS_RETRY) != 0 && timer_is_armed(&service->budget_timer)) {
        return WAIT_BUDGET;
    }
    return queue_reason(core, queue);
}

enum wait_reason core_wait_reason(const struct core *core, const struct task *task,
                                  uint64_t *left_ms)
{
    *left_ms = 0;
    if (task->state == TASK_READY) {
        return ready_reason(core, task, left_ms);
    }
    if (task->state == TASK_SCHEDULED) {
        *left_ms = task->wake_at_ms > core->now_ms ? task->wake_at_ms - core->now_ms : 0;
        return task->retry_index > 0 ? WAIT_BACKOFF : WAIT_DELAY;
    }
    return WAIT_NONE;
}
