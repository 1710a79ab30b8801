/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/internal.h"
#include "common/base/assert.h"

#define BALANCE_LEASES_MAX 32U

uint32_t service_number(const struct core *core, const struct service *service)
{
    return (uint32_t)(service - core->services);
}

static void log_service(struct core *core, const struct service *service, enum log_event event,
                        struct effects *out)
{
    if (effects_room(out) > core->log_room) { /* else the message being stepped needs it */
        effects_add(out, EFFECT_LOG, (int)event)->service = service_number(core, service);
    }
}

/* Starts the cursor that takes back what has not started. */
static void start_recall(struct core *core, struct service *service)
{
    const bool is_any_queued = !list_is_empty(&core->busy_sessions);
    service->recall_left = is_any_queued ? service->attempt_count : 0;
    if (service->recall_left > 0 && list_is_empty(&service->recall_link)) {
        list_push_back(&core->recalling_services, &service->recall_link);
    }
}

static void arm_breaker(struct core *core, struct service *service)
{
    wheel_cancel(&core->wheel, &service->breaker_timer);
    if (service->breaker.cooled_at_ms != UINT64_MAX) {
        wheel_add(&core->wheel, &service->breaker_timer, service->breaker.cooled_at_ms);
    }
}

static void on_opened(struct core *core, struct service *service, struct effects *out)
{
    core->counters.breaker_opened++;
    arm_breaker(core, service);
    log_service(core, service, LOG_BREAKER_OPENED, out);
    start_recall(core, service);
}

static void on_breaker_changed(struct core *core, struct service *service,
                               const struct breaker *before, struct effects *out)
{
    const struct breaker *breaker = &service->breaker;
    service_note_use(core, service);
    const bool is_same =
        breaker->state == before->state && breaker->generation == before->generation;
    if (is_same) {
        if (breaker->cooled_at_ms != before->cooled_at_ms) {
            arm_breaker(core, service); /* held open by a person: its cooldown is called off */
        }
        return;
    }
    switch ((enum breaker_state)breaker->state) {
    case BREAKER_OPEN:
        on_opened(core, service, out);
        break;
    case BREAKER_HALF_OPEN:
        wheel_cancel(&core->wheel, &service->breaker_timer);
        log_service(core, service, LOG_BREAKER_PROBING, out);
        break;
    case BREAKER_CLOSED:
        wheel_cancel(&core->wheel, &service->breaker_timer);
        log_service(core, service, LOG_BREAKER_CLOSED, out);
        break;
    case BREAKER_STATE_COUNT:
        TREADLE_ASSERT(false);
        break;
    }
    service_wake(core, service);
}

void service_on_attempt_end(struct core *core, struct service *service,
                            const struct attempt *attempt, enum breaker_verdict verdict,
                            struct effects *out)
{
    const struct breaker before = service->breaker;
    breaker_on_end(&service->breaker, attempt->generation, (attempt->flags & ATTEMPT_PROBE) != 0,
                   verdict, core->now_ms);
    on_breaker_changed(core, service, &before, out);
    if (service->breaker.state == BREAKER_HALF_OPEN) {
        service_wake(core, service);
    }
}

void service_on_breaker_timer(struct core *core, struct service *service, struct effects *out)
{
    const struct breaker before = service->breaker;
    breaker_on_cooled(&service->breaker, core->now_ms);
    on_breaker_changed(core, service, &before, out);
}

void service_force_breaker(struct core *core, struct service *service, enum breaker_mode mode,
                           struct effects *out)
{
    const struct breaker before = service->breaker;
    breaker_force(&service->breaker, mode, core->now_ms);
    on_breaker_changed(core, service, &before, out);
}

void service_set_paused(struct core *core, struct service *service, bool is_paused,
                        struct effects *out)
{
    if (service->is_paused == is_paused) {
        return;
    }
    service->is_paused = is_paused;
    service_note_use(core, service);
    log_service(core, service, is_paused ? LOG_SERVICE_PAUSED : LOG_SERVICE_RESUMED, out);
    if (is_paused) {
        start_recall(core, service);
    } else {
        service_wake(core, service);
    }
}

bool service_is_closed(const struct service *service)
{
    return service->is_paused || service->breaker.state == BREAKER_OPEN;
}

/* One share of one service's recall. False: it is done. */
static bool recall_share(struct core *core, struct service *service, struct effects *out)
{
    while (service->recall_left > 0 && service_is_closed(service) && core->visits > 0 &&
           effects_room(out) > 1) {
        struct list *link = list_pop_front(&service->attempts);
        if (link == NULL) {
            break;
        }
        list_push_back(&service->attempts, link);
        struct attempt *attempt = container_of(link, struct attempt, service_link);
        service->recall_left--;
        core->visits--;
        if ((attempt->flags & ATTEMPT_RECALLED) == 0) {
            attempt_recall(core, attempt, out);
        }
    }
    return service->recall_left > 0 && service_is_closed(service) &&
           !list_is_empty(&service->attempts);
}

void service_run_recalls(struct core *core, struct effects *out)
{
    while (core->visits > 0 && effects_room(out) > 1) {
        struct list *link = list_first(&core->recalling_services);
        if (link == NULL) {
            return;
        }
        struct service *service = container_of(link, struct service, recall_link);
        if (recall_share(core, service, out)) {
            return; /* its turn ended with the share */
        }
        service->recall_left = 0;
        list_remove(&service->recall_link);
    }
}

/* Whether a session with a free slot serves this queue, and nothing else waits for that slot. */
static bool has_idle_worker(const struct core *core, const struct queue *queue,
                            uint32_t other_session)
{
    if (queue->ready_first + queue->ready_retry > 0) {
        return false;
    }
    const struct list *link = list_first(&queue->slot_serves);
    if (link == NULL) {
        return false;
    }
    const struct serve *serve = container_of_const(link, struct serve, link);
    const struct session *session = &core->sessions[serve->session];
    return serve->session != other_session && session_has_credit(session) &&
           session->in_use < session->slots;
}

/* Recalls the newest leases that wait behind others on this session and could start elsewhere. */
static void balance_session(struct core *core, struct session *session, struct effects *out)
{
    uint32_t queued = session->in_use > session->slots ? session->in_use - session->slots : 0;
    uint32_t looked_at = 0;
    struct list *link = session->attempts.prev;
    while (link != &session->attempts && queued > 0 && looked_at < BALANCE_LEASES_MAX &&
           core->visits > 0) {
        core->visits--;
        struct attempt *attempt = container_of(link, struct attempt, link);
        link = link->prev;
        queued--;
        looked_at++;
        if (attempt->task == NONE ||
            core->now_ms - attempt->dispatched_at_ms < core->config.balance_ms) {
            continue;
        }
        const struct queue *queue = &core->queues[core->tasks[attempt->task].queue];
        if (has_idle_worker(core, queue, session_number(core, session))) {
            attempt_recall(core, attempt, out);
        }
    }
}

void service_balance(struct core *core, struct effects *out)
{
    if (!core->is_balance_due) {
        return;
    }
    core->is_balance_due = false;
    const struct session *first = NULL;
    while (core->visits > 0 && effects_room(out) >= BALANCE_LEASES_MAX) {
        struct list *link = list_first(&core->busy_sessions);
        if (link == NULL) {
            return;
        }
        struct session *session = container_of(link, struct session, busy_link);
        if (session == first) {
            break; /* all were looked at */
        }
        first = first == NULL ? session : first;
        list_remove(link);
        list_push_back(&core->busy_sessions, link);
        balance_session(core, session, out);
    }
    if (!timer_is_armed(&core->balance_timer)) {
        wheel_add(&core->wheel, &core->balance_timer, core->now_ms + core->config.balance_ms);
    }
}
