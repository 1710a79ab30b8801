/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Outcomes to those who await them, at least once: numbered per session, sent when durable and
 * within a window, kept until acknowledged, offered again after a HELLO under the same numbers.
 */
#include "broker/core/internal.h"
#include "common/base/assert.h"

#define WATCHES_PER_TASK_MAX 256U
#define ENTRY_BYTES          256U /* what an entry counts in the window beside its result */
#define STALLED_MS           60000U

void deliver_wake(struct core *core, struct session *session)
{
    if (session->state == SESSION_LIVE && list_is_empty(&session->deliver_link)) {
        list_push_back(&core->delivering, &session->deliver_link);
    }
}

void deliver_on_durable(struct core *core)
{
    list_splice_front(&core->delivering, &core->undurable);
}

static void queue_watch(struct core *core, struct watch *watch)
{
    struct session *session = &core->sessions[watch->session];
    watch->bytes = core->tasks[watch->task].result_size + ENTRY_BYTES;
    list_remove(&watch->link);
    list_push_back(&session->to_deliver, &watch->link);
    deliver_wake(core, session);
}

/* Whether the outcome will yet be sent for this watch: one that went out before may have been taken
 * already. */
static bool is_still_to_send(const struct session *session, const struct watch *watch)
{
    if (watch->number == 0) {
        return true;
    }
    return watch->flight != session->flight && watch->number > session->taken_number;
}

bool watch_has_room(const struct core *core, const struct session *session)
{
    return core->watch_slab.live < core->watch_slab.count_max &&
           share_admits(core->owners[session->owner].watch_count, core->watch_slab.live,
                        core->watch_slab.count_max);
}

bool watch_add(struct core *core, struct session *session, struct task *task, bool confirms)
{
    const uint32_t session_place = session_number(core, session);
    uint32_t count = 0;
    for (uint32_t number = task->first_watch; number != NONE;) {
        struct watch *watch = &core->watches[number];
        if (watch->session == session_place && is_still_to_send(session, watch)) {
            watch->confirms = watch->confirms || confirms;
            return true;
        }
        count++;
        number = watch->next;
    }
    if (count >= WATCHES_PER_TASK_MAX || !watch_has_room(core, session)) {
        return false;
    }
    const uint32_t number = slab_take(&core->watch_slab);
    TREADLE_ASSERT(number != NONE);
    core->owners[session->owner].watch_count++;
    struct watch *watch = &core->watches[number];
    *watch = (struct watch){.link = watch->link,
                            .task = task_number(core, task),
                            .session = session_place,
                            .next = task->first_watch,
                            .confirms = confirms};
    list_init(&watch->link);
    if (task_is_settled(task)) {
        if (task->first_watch == NONE) { /* nobody awaited it until now */
            list_remove(&task->link);
            core->settled_count--;
            task_count_undelivered(core, task);
        }
        queue_watch(core, watch);
    } else {
        list_push_back(&session->waiting, &watch->link);
    }
    task->first_watch = number;
    return true;
}

void deliver_settled(struct core *core, struct task *task)
{
    for (uint32_t number = task->first_watch; number != NONE;) {
        struct watch *watch = &core->watches[number];
        queue_watch(core, watch);
        number = watch->next;
    }
}

static void unlink_from_task(struct core *core, struct task *task, uint32_t number)
{
    uint32_t *at = &task->first_watch;
    while (*at != number) {
        TREADLE_ASSERT(*at != NONE);
        at = &core->watches[*at].next;
    }
    *at = core->watches[number].next;
}

void watch_drop(struct core *core, struct watch *watch)
{
    struct task *task = &core->tasks[watch->task];
    struct session *session = &core->sessions[watch->session];
    if (watch->flight != 0 && watch->flight == session->flight) {
        TREADLE_ASSERT(session->flight_count > 0 && session->flight_bytes >= watch->bytes);
        session->flight_count--;
        session->flight_bytes -= watch->bytes;
    }
    list_remove(&watch->link);
    unlink_from_task(core, task, (uint32_t)(watch - core->watches));
    core->owners[session->owner].watch_count--;
    slab_give(&core->watch_slab, watch);
    if (task_is_settled(task) && task->first_watch == NONE) {
        task_discount_undelivered(core, task);
        task_retain_settled(core, task);
    }
}

void deliver_on_acknowledged(struct core *core, struct session *session, uint64_t number)
{
    if (number > session->taken_number && number <= session->settled_number) {
        session->taken_number = number;
        session->moved_at_ms = core->now_ms;
        deliver_wake(core, session);
    }
}

void deliver_again(struct core *core, struct session *session)
{
    list_splice_front(&session->to_deliver, &session->in_flight);
    session->flight++;
    session->flight_count = 0;
    session->flight_bytes = 0;
    deliver_wake(core, session);
}

/* The client has it: a result that need not be kept can go, once nobody else awaits it. */
static void confirm(struct core *core, struct watch *watch, struct effects *out)
{
    struct task *task = &core->tasks[watch->task];
    const bool may_go = watch->confirms && (task->flags & (TASK_KEEP | TASK_RESULT_GONE)) == 0;
    watch_drop(core, watch);
    if (!may_go) {
        return;
    }
    if (task->first_watch != NONE) {
        core->watches[task->first_watch].confirms = true; /* whoever is left confirms for it */
        return;
    }
    const uint32_t kept_bytes = task_lasting_size(task);
    core->settled_bytes -= task->result_size - kept_bytes;
    task->result_size = kept_bytes;
    task->flags |= TASK_RESULT_GONE;
    (void)persist(core, out, RECORD_RESULT_DROPPED, task);
}

static void send_settled(struct core *core, struct session *session, struct watch *watch,
                         struct effects *out)
{
    const struct task *task = &core->tasks[watch->task];
    struct effect *effect = session_send(core, session, MESSAGE_SETTLED, out);
    if (session->taken_number == session->settled_number) {
        session->moved_at_ms = core->now_ms; /* until now it had nothing to acknowledge */
    }
    if (watch->number == 0) {
        session->settled_number++;
        watch->number = session->settled_number;
    }
    effect->task = watch->task;
    effect->number = watch->number;
    effect->sequence = task->sequence;
    effect->id = task->id;
    watch->flight = session->flight;
    session->flight_count++;
    session->flight_bytes += watch->bytes;
    list_remove(&watch->link);
    list_push_back(&session->in_flight, &watch->link);
}

enum share_result { SHARE_DONE, SHARE_UNDURABLE, SHARE_STEP_FULL };

static bool window_admits(const struct core *core, const struct session *session,
                          const struct watch *watch)
{
    if (session->flight_count >= core->config.window_count_max) {
        return false;
    }
    return session->flight_count == 0 ||
           session->flight_bytes + watch->bytes <= core->config.window_byte_max;
}

bool deliver_is_blocked(const struct core *core, const struct session *session)
{
    return session->flight_count >= core->config.window_count_max ||
           session->flight_bytes >= core->config.window_byte_max;
}

bool deliver_is_stalled(const struct core *core, const struct session *session)
{
    return deliver_is_blocked(core, session) && session->taken_number < session->settled_number &&
           core->now_ms - session->moved_at_ms >= STALLED_MS;
}

static enum share_result drop_taken(struct core *core, struct session *session, struct effects *out)
{
    struct list *link = NULL;
    while ((link = list_first(&session->in_flight)) != NULL) {
        struct watch *watch = container_of(link, struct watch, link);
        if (watch->number > session->taken_number) {
            break;
        }
        if (core->visits == 0 || effects_room(out) < 1) {
            return SHARE_STEP_FULL;
        }
        core->visits--;
        confirm(core, watch, out);
    }
    return SHARE_DONE;
}

static enum share_result deliver_share(struct core *core, struct session *session,
                                       struct effects *out)
{
    if (drop_taken(core, session, out) == SHARE_STEP_FULL) {
        return SHARE_STEP_FULL;
    }
    struct list *link = NULL;
    while ((link = list_first(&session->to_deliver)) != NULL) {
        struct watch *watch = container_of(link, struct watch, link);
        if (core->visits == 0 || effects_room(out) < 1) {
            return SHARE_STEP_FULL;
        }
        core->visits--;
        if (watch->number != 0 && watch->number <= session->taken_number) {
            confirm(core, watch, out);
            continue;
        }
        if (session->connection == NONE || !window_admits(core, session, watch)) {
            return SHARE_DONE; /* a HELLO or an acknowledgement wakes it */
        }
        if (core->tasks[watch->task].record > core->durable_number) {
            return SHARE_UNDURABLE;
        }
        send_settled(core, session, watch, out);
    }
    return SHARE_DONE;
}

void deliver_run(struct core *core, struct effects *out)
{
    struct list *link = NULL;
    while ((link = list_first(&core->delivering)) != NULL) {
        struct session *session = container_of(link, struct session, deliver_link);
        const enum share_result result = deliver_share(core, session, out);
        if (result == SHARE_STEP_FULL) {
            return;
        }
        list_remove(link);
        if (result == SHARE_UNDURABLE) {
            list_push_back(&core->undurable, link);
        }
    }
}
