/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What the core's files offer each other, a section a file. None of these is for the shell. Numbers
 * are places in the slabs of state.h; NONE is no place. "Effects" are appended to `out`, which
 * every caller keeps within its bound.
 */
#ifndef TREADLE_CORE_INTERNAL_H
#define TREADLE_CORE_INTERNAL_H

#include "broker/core/core.h"
#include "broker/core/state.h"

/* ---- memory.c ---- */

/* A free place, or NONE when all are taken. Its list link (the object's first member) is in no
 * list. */
uint32_t slab_take(struct slab *slab);

/* Gives an object's place back; its link must be in no list. */
void slab_give(struct slab *slab, void *object);

/* The number of an object's place. */
uint32_t slab_place(const struct slab *slab, const void *object);

/* ---- names.c: owners, services, queues, tenants' queues; NONE when the limit is reached ---- */

uint32_t owner_intern(struct core *core, struct bytes name);
uint32_t service_find(const struct core *core, struct bytes name);
uint32_t service_intern(struct core *core, uint32_t owner, struct bytes name);
uint32_t queue_intern(struct core *core, uint32_t owner, struct bytes service, struct bytes task);
uint32_t tenant_queue_intern(struct core *core, uint32_t owner, uint32_t queue,
                             struct bytes tenant);

/* Whether an owner may have one more of something of which there are count_max: while others have
 * some, each has at most half. */
bool share_admits(uint32_t own_count, uint32_t all_count, uint32_t count_max);

/* The owner has its first task, or has none left, if either is so now. */
void owner_note_tasks(struct core *core, uint32_t owner, bool had_tasks);
bool owner_has_tasks(const struct owner *owner);

/* To be called after anything of what keeps a queue, or a service beside its queues, has changed:
 * names that nothing needs any more give way to new ones, the longest unused first, when their
 * table is full. */
void queue_note_use(struct core *core, struct queue *queue);
void service_note_use(struct core *core, struct service *service);

/* Gives up a tenant's queue that no unsettled task names. */
void tenant_queue_release(struct core *core, uint32_t number);
void name_set(struct name *name, struct bytes text); /* cuts at NAME_SIZE_MAX */
bool name_is(const struct name *name, struct bytes text);

static inline struct bytes name_view(const struct name *name)
{
    return (struct bytes){(const uint8_t *)name->text, name->size};
}

/* ---- policy.c ---- */

/* Interns the wire's policy and counts a reference. False: no room, or not for this owner. A policy
 * that gives nothing is NONE. */
bool policy_intern(struct core *core, uint32_t owner, const struct wire_policy *wire,
                   uint32_t *policy);
void policy_retain(struct core *core, uint32_t policy);
void policy_release(struct core *core, uint32_t number);

/* The first of worker, submission, task, service (places of `sides`: worker, task, service),
 * broker, default. */
struct policy_choice policy_choose(const struct core *core, const uint32_t sides[3],
                                   uint32_t submission, enum policy_field field);

/* ---- task.c ---- */

struct effect *persist(struct core *core, struct effects *out, enum record_kind kind,
                       const struct task *task);
struct effect *task_log(struct core *core, struct effects *out, enum log_event event,
                        const struct task *task);
uint32_t task_number(const struct core *core, const struct task *task);
struct service *task_service(struct core *core, const struct task *task);

/* The task with this id or, from task_slab.count_max on, the remembered id; MAP_NONE. */
uint32_t id_find(const struct core *core, const struct treadle_task_id *id);

void task_on_submit(struct core *core, struct session *session, const struct input *input,
                    struct effects *out);
void task_on_cancel(struct core *core, struct session *session, const struct message *message,
                    struct effects *out);
void task_on_await(struct core *core, struct session *session, const struct message *message);
void task_on_timer(struct core *core, struct task *task, struct effects *out);

/* Puts a task that waits for nothing more in its queue; in_front: it was there before. */
void task_make_ready(struct core *core, struct task *task, bool in_front);

/* Waits for wake_at_ms, then is ready as a retry (or for the first time). */
void task_schedule(struct core *core, struct task *task, uint64_t wake_at_ms);

/* Arms the task's timer for whatever comes next in its state. */
void task_arm(struct core *core, struct task *task);

/* Takes a waiting task out of where it waits, before a dispatch or a settlement. */
void task_leave_wait(struct core *core, struct task *task);

/* The outcome is final. A live attempt becomes a zombie and, if it may still run, is told to stop.
 */
void task_settle(struct core *core, struct task *task, enum task_state state,
                 enum failure_kind kind, struct bytes result, struct effects *out);

/* Nobody awaits this settled task any more: it is kept for people, as long as the limits allow. */
void task_retain_settled(struct core *core, struct task *task);

/* It has settled and somebody awaits it, or nobody does any more: counts in the owner's share. */
void task_count_undelivered(struct core *core, const struct task *task);
void task_discount_undelivered(struct core *core, const struct task *task);

/* Forgets a settled task that nobody awaits; its id is remembered for the window. */
void task_evict(struct core *core, struct task *task, struct effects *out);
bool task_is_settled(const struct task *task);

/* Bytes of a settled task that last when its result is dropped. */
uint32_t task_lasting_size(const struct task *task);

/* Asks for the memory of the task's place in the id map before it is needed. */
void task_prefetch_id(const struct core *core, const struct task *task);

/* ---- attempt.c ---- */

/* A new lease for the session of `serve`; NONE when there is no place. Counts for the session, not
 * for the task. */
uint32_t attempt_open(struct core *core, struct task *task, struct serve *serve);

/* Ends it: slot, lease and probe are free. */
void attempt_close(struct core *core, struct attempt *attempt, enum breaker_verdict verdict,
                   struct effects *out);
void attempt_on_result(struct core *core, struct session *session, const struct message *message,
                       struct effects *out);
void attempt_on_progress(struct core *core, struct session *session, const struct message *message,
                         struct effects *out);
void attempt_on_returned(struct core *core, struct session *session, const struct message *message,
                         struct effects *out);
void attempt_on_timer(struct core *core, struct attempt *attempt, struct effects *out);

/* The session is gone or never had it: closes the lease and puts the task back (lost, returned) or
 * settles it. */
void attempt_give_back(struct core *core, struct attempt *attempt, enum failure_kind kind,
                       bool is_counted, struct effects *out);

/* The lease of this session, whoever else may hold one of that number; NULL. */
struct attempt *attempt_find(struct core *core, const struct session *session, uint64_t lease);
void attempt_recall(struct core *core, struct attempt *attempt, struct effects *out);

/* ---- retry.c ---- */

/* How an attempt ended, with what is needed after its place was given back. */
struct attempt_end {
    enum failure_kind kind;
    enum retry_choice choice;
    uint64_t retry_delay_ms;
    bool is_counted; /* lost: towards lost_limit */
    const struct wire_failure_entry
        *failure; /* as the worker told it; NULL: the broker's verdict */
    uint32_t attempt;
};

/* The span before the attempt that follows a failed one of this retry index: full jitter between 0
 * and the cap. */
uint64_t retry_delay(struct prng *prng, uint64_t base_ms, uint64_t factor_milli, uint64_t max_ms,
                     uint32_t retry_index);
#define RETRY_DELAY_MIN_MS 100U

/* Decides what becomes of a task whose attempt failed: retried, put back, or settled. The attempt
 * is still open. */
void retry_after_failure(struct core *core, struct task *task, const struct attempt_end *end,
                         struct effects *out);

/* The retry budget: retries at most 20 % of first dispatches over 10 s, plus 10 a second. */
bool budget_admits(struct core *core, struct service *service);
void budget_count(struct core *core, struct service *service, bool is_retry);
void budget_arm(struct core *core, struct service *service);

/* ---- dispatch.c ---- */

void dispatch_round(struct core *core, struct effects *out);
void queue_activate(struct core *core, struct queue *queue);

/* Something of the service's gates has changed: its queues are looked at again. */
void service_wake(struct core *core, struct service *service);
bool session_has_credit(const struct session *session);

/* Looks again at what the session serves, once after its slots or credit have changed. */
void session_refresh_capacity(struct core *core, struct session *session);
void serve_set_place(struct core *core, struct serve *serve, enum serve_place place);

/* ---- session.c ---- */

void session_on_hello(struct core *core, const struct input *input, struct effects *out);
void session_on_timer(struct core *core, struct session *session, struct effects *out);
void session_on_disconnected(struct core *core, uint32_t connection);

/* Whether its key, as of this message, may go on with the session: it is of the same principal, and
 * has the right to its role and to all that it serves. */
bool session_is_rightful(const struct core *core, struct session *session,
                         const struct input *input);

/* Whether the worker serves something that one of the globs covers. *looked_at grows by how much of
 * what it serves was looked at. */
bool session_serves_some(const struct core *core, const struct session *session,
                         const struct globs *globs, uint32_t *looked_at);

/* Why a session ends; the log says it. */
enum session_end_reason {
    SESSION_SILENT,
    SESSION_GONE,
    SESSION_REPLACED,
    SESSION_STALLED,
    SESSION_PRESSING,
    SESSION_REVOKED,
    SESSION_GOODBYE
};
void session_end(struct core *core, struct session *session, enum session_end_reason reason,
                 struct effects *out);

/* Cursors: leases of ended sessions, leases a HELLO did not name, watches of ended clients. */
void session_run_cursors(struct core *core, struct effects *out);

/* One entry to the session's connection; NULL if it has none. */
struct effect *session_send(struct core *core, struct session *session, enum message_kind kind,
                            struct effects *out);
struct effect *refuse(uint32_t connection, enum refused_code code, const char *text,
                      struct effects *out);
uint32_t session_number(const struct core *core, const struct session *session);
void session_drain(struct core *core, struct session *session, struct effects *out);
void session_update_busy(struct core *core, struct session *session);

/* A queue is new: sessions that serve all of its service serve it too. */
void session_serve_new_queue(struct core *core, uint32_t queue);

/* ---- deliver.c ---- */

/* Whether the session's owner may await one task more. */
bool watch_has_room(const struct core *core, const struct session *session);

/* The session awaits the task. False: no place, or too many await it. */
bool watch_add(struct core *core, struct session *session, struct task *task, bool confirms);

/* The task has settled: those who await it have something to be told. */
void deliver_settled(struct core *core, struct task *task);

/* The client has taken every SETTLED entry up to this number. */
void deliver_on_acknowledged(struct core *core, struct session *session, uint64_t number);

/* The session said HELLO again: what it has not acknowledged is offered again. */
void deliver_again(struct core *core, struct session *session);
void deliver_wake(struct core *core, struct session *session);

/* Whether the client's window is full: nothing goes before it acknowledges. */
bool deliver_is_blocked(const struct core *core, const struct session *session);

/* Whether it has been full for so long that the client does not take outcomes at all. */
bool deliver_is_stalled(const struct core *core, const struct session *session);

/* Cursor: drops what was acknowledged, sends what is durable and fits in the windows. */
void deliver_run(struct core *core, struct effects *out);

/* More is durable: outcomes that waited for it may go. */
void deliver_on_durable(struct core *core);

/* Gives up one watch, and the task's retention begins when it was the last. */
void watch_drop(struct core *core, struct watch *watch);

/* ---- outbox.c ---- */

#define BUSY_PER_MS 100U /* of a session: entries answered BUSY that it is asked to try again */

/* An answer that waits for record `after` (0: for none, but for its turn). */
void outbox_push(struct core *core, const struct session *session, const struct outbox_item *item);
void outbox_run(struct core *core, struct effects *out);
bool outbox_is_due(const struct core *core);

/* ---- core.c ---- */

/* Takes no new task from now on. */
void core_drain(struct core *core, struct effects *out);

/* ---- admin.c: questions and orders of people ---- */

void admin_on_message(struct core *core, struct session *session, const struct input *input,
                      struct effects *out);
void admin_run_listings(struct core *core, struct effects *out);
bool admin_has_listing(const struct core *core);

/* ---- service.c: breaker, pause, recall ---- */

/* An attempt of the service has ended: the breaker's count, and what follows when it changes. */
void service_on_attempt_end(struct core *core, struct service *service,
                            const struct attempt *attempt, enum breaker_verdict verdict,
                            struct effects *out);
void service_on_breaker_timer(struct core *core, struct service *service, struct effects *out);
void service_force_breaker(struct core *core, struct service *service, enum breaker_mode mode,
                           struct effects *out);
void service_set_paused(struct core *core, struct service *service, bool is_paused,
                        struct effects *out);
uint32_t service_number(const struct core *core, const struct service *service);

/* Nothing of it should start: it is paused, or its breaker is open. */
bool service_is_closed(const struct service *service);

/* Cursor: takes back, a share a step, what the workers of a closed gate have not started. */
void service_run_recalls(struct core *core, struct effects *out);

/* Idle workers get what waits in other workers' queues, when it is time to look for them. */
void service_balance(struct core *core, struct effects *out);

#endif
