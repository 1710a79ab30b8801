/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/core.h"

#include "broker/core/internal.h"
#include "common/base/assert.h"

#define BUDGET_QUEUES_MAX 64U
#define EFFECTS_PER_TIMER 16U
#define TIMER_EFFECTS_MAX 512U /* beside a message, which may need the rest */
/* What the entries of one message may need, logs of single tasks aside: records of meta, of a
 * failure, of an outcome, and now and then a breaker. */
#define MESSAGE_EFFECTS_MAX (3U * ENTRY_COUNT_MAX + 256U)
#define EVICTED_TOGETHER    16U

/* ---- time ---- */

/* Retries of a service that waited for its budget are looked at again, some queues at a time. */
static void on_budget_timer(struct core *core, struct service *service)
{
    if (service->budget_left == 0) {
        service->budget_left = service->queue_count;
    }
    for (uint32_t i = 0; i < BUDGET_QUEUES_MAX && service->budget_left > 0; i++) {
        struct list *link = list_pop_front(&service->queues);
        TREADLE_ASSERT(link != NULL);
        list_push_back(&service->queues, link);
        queue_activate(core, container_of(link, struct queue, link));
        service->budget_left--;
    }
    if (service->budget_left > 0) {
        wheel_add(&core->wheel, &service->budget_timer, core->now_ms + 1);
    }
}

static void on_timer(struct core *core, const struct timer *timer, struct effects *out)
{
    switch ((enum timer_kind)timer->kind) {
    case TIMER_TASK:
        task_on_timer(core, &core->tasks[timer->owner], out);
        break;
    case TIMER_ATTEMPT:
        attempt_on_timer(core, &core->attempts[timer->owner], out);
        break;
    case TIMER_SESSION:
        session_on_timer(core, &core->sessions[timer->owner], out);
        break;
    case TIMER_BREAKER:
        service_on_breaker_timer(core, &core->services[timer->owner], out);
        break;
    case TIMER_BUDGET:
        on_budget_timer(core, &core->services[timer->owner]);
        break;
    case TIMER_BALANCE:
        core->is_balance_due = true;
        break;
    }
}

static void expire_timers(struct core *core, uint32_t effects_max, struct effects *out)
{
    while (core->visits > 0 && out->count + EFFECTS_PER_TIMER <= effects_max) {
        const struct timer *timer = wheel_take_due(&core->wheel, core->now_ms, &core->visits);
        if (timer == NULL) {
            return;
        }
        on_timer(core, timer, out);
    }
}

/* ---- cursors ---- */

static bool is_over_retention(const struct core *core)
{
    return core->settled_count > core->config.settled_count_max ||
           (core->settled_bytes > core->config.settled_byte_max && core->settled_count > 0);
}

/* Evicts as many as were asked for, or as few as are left; the oldest are cold, so their places are
 * asked for first. */
static void evict_oldest(struct core *core, uint32_t count, struct effects *out)
{
    const struct list *next = &core->settled;
    for (uint32_t i = 0; i < count && next->next != &core->settled; i++) {
        next = next->next;
        task_prefetch_id(core, container_of_const(next, struct task, link));
    }
    for (uint32_t i = 0; i < count && !list_is_empty(&core->settled); i++) {
        core->visits--;
        core->counters.settled_evicted++;
        task_evict(core, container_of(core->settled.next, struct task, link), out);
    }
}

static void run_evictions(struct core *core, struct effects *out)
{
    while (is_over_retention(core) && core->visits > 0 && effects_room(out) >= EVICTED_TOGETHER) {
        const uint32_t over = core->settled_count > core->config.settled_count_max
                                  ? core->settled_count - core->config.settled_count_max
                                  : 1;
        uint32_t count = over < EVICTED_TOGETHER ? over : EVICTED_TOGETHER;
        count = count < core->visits ? count : core->visits;
        evict_oldest(core, count, out);
    }
}

/* Sets all but a share of the step's visits aside; add what it returns again afterwards. */
static uint32_t set_aside(struct core *core, uint32_t share)
{
    const uint32_t lent = share > 0 ? share : 1;
    const uint32_t kept = core->visits > lent ? core->visits - lent : 0;
    core->visits -= kept;
    return kept;
}

/* A million timers due at once must not keep the rest from its turn. */
static void expire_share_of_timers(struct core *core, enum input_kind kind, struct effects *out)
{
    const bool is_all_there_is = kind == INPUT_TIME;
    const uint32_t kept = set_aside(core, core->config.visits_max / (is_all_there_is ? 4 : 32));
    expire_timers(core, is_all_there_is ? EFFECT_COUNT_MAX : TIMER_EFFECTS_MAX, out);
    core->visits += kept;
}

/*
 * What answers a message goes on in every step, as far as it allows. What is merely large (a lost
 * session, a listing) has an eighth of those steps that bring nothing but the time, so that one
 * client's round trip is not made of other peers' cursors.
 */
static void run_cursors(struct core *core, enum input_kind kind, struct effects *out)
{
    outbox_run(core, out);
    deliver_run(core, out);
    run_evictions(core, out);
    if (kind != INPUT_TIME) {
        return;
    }
    const uint32_t kept = set_aside(core, core->config.visits_max / 8);
    session_run_cursors(core, out);
    service_run_recalls(core, out);
    admin_run_listings(core, out);
    service_balance(core, out);
    core->visits += kept;
}

static bool has_open_cursor(const struct core *core)
{
    return outbox_is_due(core) || !list_is_empty(&core->delivering) ||
           !list_is_empty(&core->reconciling_sessions) || !list_is_empty(&core->ending_sessions) ||
           !list_is_empty(&core->recalling_services) || is_over_retention(core) ||
           admin_has_listing(core) || core->is_balance_due;
}

uint64_t core_next_at_ms(const struct core *core)
{
    if (has_open_cursor(core) || core_has_more_to_dispatch(core)) {
        return core->now_ms;
    }
    return wheel_next_at_ms(&core->wheel);
}

/* ---- messages ---- */

/* The peer must say HELLO (again); told at most once a heartbeat, for what it has sent on
 * meanwhile. */
static void ask_for_hello(struct core *core, struct session *session, struct effects *out)
{
    if (session->refused_at_ms == 0 ||
        core->now_ms - session->refused_at_ms >= core->config.heartbeat_ms) {
        session->refused_at_ms = core->now_ms;
        refuse(session->connection, REFUSED_HELLO_FIRST, "a message was lost; say HELLO again",
               out);
    }
}

/* True: the message is the next one. A double is dropped, after a gap the peer has to say HELLO
 * again. */
static bool is_in_turn(struct core *core, struct session *session, const struct message *message,
                       struct effects *out)
{
    if (message->number < session->expected_number) {
        core->counters.doubles++;
        return false;
    }
    if (message->number > session->expected_number) {
        core->counters.gaps++;
        ask_for_hello(core, session, out);
        return false;
    }
    session->expected_number++;
    return true;
}

static void on_worker_message(struct core *core, struct session *session,
                              const struct message *message, struct effects *out)
{
    session->granted = message->upto;
    if (message->kind == MESSAGE_RESULT) {
        attempt_on_result(core, session, message, out);
    } else if (message->kind == MESSAGE_PROGRESS) {
        attempt_on_progress(core, session, message, out);
    } else if (message->kind == MESSAGE_RETURNED) {
        attempt_on_returned(core, session, message, out);
    }
    session_refresh_capacity(core, session); /* with any word what was parked gets another look */
}

static void on_client_message(struct core *core, struct session *session, const struct input *input,
                              struct effects *out)
{
    const struct message *message = input->message;
    deliver_on_acknowledged(core, session, message->upto);
    const bool is_of_submitters = message->kind == MESSAGE_SUBMIT ||
                                  message->kind == MESSAGE_AWAIT || message->kind == MESSAGE_CANCEL;
    if (is_of_submitters && (input->rights & RIGHT_SUBMIT) == 0) {
        core->counters.beyond_rights++;
        refuse(input->connection, REFUSED_RIGHTS, "this key may not submit", out);
    } else if (message->kind == MESSAGE_SUBMIT) {
        task_on_submit(core, session, input, out);
    } else if (message->kind == MESSAGE_AWAIT) {
        task_on_await(core, session, message);
    } else if (message->kind == MESSAGE_CANCEL) {
        task_on_cancel(core, session, message, out);
    } else if (message->kind != MESSAGE_HEARTBEAT) {
        admin_on_message(core, session, input, out);
    }
}

static bool may_send(const struct session *session, enum message_kind kind)
{
    switch (message_direction(kind)) {
    case DIRECTION_BOTH_WAYS:
    case DIRECTION_FROM_PEER:
        return true;
    case DIRECTION_FROM_CLIENT:
        return session->role == ROLE_CLIENT;
    case DIRECTION_FROM_WORKER:
        return session->role == ROLE_WORKER;
    case DIRECTION_TO_PEER:
    case DIRECTION_TO_CLIENT:
    case DIRECTION_TO_WORKER:
        break;
    }
    return false;
}

static void on_message(struct core *core, const struct input *input, struct effects *out)
{
    const struct message *message = input->message;
    core->counters.messages++;
    TREADLE_ASSERT(input->connection < core->config.connection_count_max);
    if (message->kind == MESSAGE_HELLO) {
        session_on_hello(core, input, out);
        return;
    }
    const uint32_t stored = core->connection_sessions[input->connection];
    if (stored == 0) {
        if (message->kind != MESSAGE_GOODBYE) {
            refuse(input->connection, REFUSED_HELLO_FIRST, "no session here; say HELLO first", out);
        }
        return;
    }
    struct session *session = &core->sessions[stored - 1];
    if (!session_is_rightful(core, session, input)) { /* out at its next message */
        session_end(core, session, SESSION_REVOKED, out);
        return;
    }
    session->heard_at_ms = core->now_ms;
    if (!is_in_turn(core, session, message, out)) {
        return;
    }
    session->is_confirmed = true;
    if (!may_send(session, message->kind)) {
        refuse(input->connection, REFUSED_MALFORMED, "this message is not of this role", out);
    } else if (message->kind == MESSAGE_GOODBYE) {
        session_end(core, session, SESSION_GOODBYE, out);
    } else if (session->role == ROLE_WORKER) {
        on_worker_message(core, session, message, out);
    } else {
        on_client_message(core, session, input, out);
    }
}

/* ---- steps ---- */

void core_drain(struct core *core, struct effects *out)
{
    if (!core->is_draining) {
        core->is_draining = true;
        effects_add(out, EFFECT_LOG, LOG_BROKER_DRAINING)->value = core->unsettled_count;
    }
}

void core_step(struct core *core, uint64_t now_ms, const struct input *input, struct effects *out)
{
    TREADLE_ASSERT(now_ms >= core->now_ms);
    effects_reset(out);
    core->now_ms = now_ms;
    core->visits = core->config.visits_max;
    core->log_room = input->kind == INPUT_MESSAGE ? MESSAGE_EFFECTS_MAX : 0;
    if (input->kind != INPUT_DISPATCH) { /* it uses places again that a timer's effects may name */
        expire_share_of_timers(core, input->kind, out);
    }
    switch (input->kind) {
    case INPUT_TIME:
        break;
    case INPUT_MESSAGE:
        on_message(core, input, out);
        break;
    case INPUT_DISCONNECTED:
        session_on_disconnected(core, input->connection);
        break;
    case INPUT_DURABLE:
        TREADLE_ASSERT(input->durable_number >= core->durable_number &&
                       input->durable_number <= core->record_number);
        core->durable_number = input->durable_number;
        deliver_on_durable(core);
        break;
    case INPUT_DISPATCH:
        dispatch_round(core, out);
        break;
    case INPUT_DRAIN:
        core_drain(core, out);
        break;
    }
    run_cursors(core, input->kind, out);
}

uint32_t core_unsettled_count(const struct core *core)
{
    return core->unsettled_count;
}
