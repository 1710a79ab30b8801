/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The core's objects. They live in slabs and are named by u32 numbers across objects; a list link
 * is in one list at a time. The core writes them; the shell reads them to carry out effects.
 */
#ifndef TREADLE_CORE_STATE_H
#define TREADLE_CORE_STATE_H

#include "broker/core/breaker.h"
#include "broker/core/config.h"
#include "broker/core/effect.h"
#include "broker/core/rights.h"
#include "broker/core/wheel.h"
#include "common/base/list.h"
#include "common/base/map.h"
#include "common/base/prng.h"
#include "common/wire/terms.h"

#include <treadle/id.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VISITS_MAX       1024U /* the default of visits_max */
#define LISTING_COUNT    4U
#define FIFO_COUNT       (PRIORITY_MAX + 1)
#define BUDGET_PARTS     10U    /* of 1 s */
#define SERVICE_QUANTUM  64U    /* tasks a service hands out before the next has its turn */
#define TASK_ERROR_BYTES 256U   /* what an error of a task counts in the limits beside its texts */
#define AGEING_MS        10000U /* waiting this long is worth one step of priority */

enum timer_kind {
    TIMER_TASK,    /* delay, backoff, queue timeout, deadline or retention, whichever is next */
    TIMER_ATTEMPT, /* the backstop */
    TIMER_SESSION, /* heartbeats both ways, or the resume grace */
    TIMER_BREAKER, /* the end of an open breaker's cooldown */
    TIMER_BUDGET,  /* retries that wait for a service's budget */
    TIMER_BALANCE, /* queued leases and idle workers */
};

/* A name of at most NAME_SIZE_MAX bytes. */
struct name {
    uint8_t size;
    char text[NAME_SIZE_MAX + 1];
};

/* ---- policies: interned, counted ---- */

struct policy {
    struct list link; /* free */
    uint32_t references;
    uint32_t owner;  /* who brought it first: it counts in that share */
    uint64_t serial; /* of this use of the place: caches see that it has changed */
    uint64_t hash;
    struct policy_fields fields;
};

/* ---- owners: principals ---- */

/* What of each limit it uses: while others use some of it, at most half. */
struct owner {
    struct name name;
    uint32_t task_count;        /* unsettled */
    uint32_t undelivered_count; /* settled, but not acknowledged by those who await them */
    uint64_t byte_count;        /* bodies, tags, meta and errors of the unsettled */
    uint64_t undelivered_bytes; /* results and errors of the undelivered */
    uint32_t watch_count;
    uint32_t service_count; /* names that it was the first to say */
    uint32_t queue_count;
    uint32_t tenant_queue_count;
    uint32_t policy_count;
};

/* ---- tasks ---- */

#define TASK_KEEP             1U /* result=keep */
#define TASK_VOLATILE         2U
#define TASK_CANCEL_REQUESTED 4U
#define TASK_STARTED          8U /* an attempt ended other than by a return: the queue timeout is over */
#define TASK_IS_RETRY         16U /* this wait is a retry: it needs the retry budget */
#define TASK_RESULT_GONE      32U
#define TASK_WATCHED          64U /* submitted with SUBMIT_WATCH */

struct task {
    struct list link; /* free; or a FIFO of its tenant queue (ready); or core.settled, when nobody
                         awaits it */
    struct timer timer;
    struct treadle_task_id id;
    uint8_t digest[16];
    uint64_t sequence; /* the handle of its body; grows with every task */
    uint64_t submitted_at_ms;
    uint64_t deadline_at_ms; /* UINT64_MAX: none */
    uint64_t wake_at_ms;   /* scheduled: when it is ready; ready and not started: its queue timeout;
                              else none */
    uint64_t ready_at_ms;  /* since when it is ready: its place in the queue */
    uint64_t record;       /* number of its newest record that an answer may wait for */
    uint32_t tenant_queue; /* NONE once settled */
    uint32_t queue;
    uint32_t owner;
    uint32_t policy;      /* the submission's, NONE: none given */
    uint32_t attempt;     /* its live lease; NONE */
    uint32_t first_watch; /* who awaits it; NONE */
    uint32_t dispatches;
    uint32_t retry_index;
    uint32_t retry_sequence;
    uint32_t body_size;
    uint32_t kept_size;   /* unsettled: body, tags, meta and errors: what counts in the limits */
    uint32_t error_size;  /* the errors' share of it */
    uint32_t meta_size;   /* the meta's share of it */
    uint32_t result_size; /* settled: the result and the errors it keeps */
    uint16_t crashes;
    uint16_t losses;
    uint8_t state; /* enum task_state */
    uint8_t kind;  /* enum failure_kind of the last failure; settled: of the outcome */
    uint8_t priority;
    uint8_t flags;
};

/* An id whose task is gone: answers a resubmission for the rest of the window. */
struct remembered {
    struct treadle_task_id id;
    uint8_t digest[16];
    uint64_t settled_at_ms;
    uint32_t owner;
    uint8_t state; /* how it settled */
    bool is_used;
};

/* ---- attempts: leases ---- */

#define ATTEMPT_ZOMBIE   1U /* its task has settled */
#define ATTEMPT_PROBE    2U /* a half-open breaker's probe */
#define ATTEMPT_RECALLED 4U
#define ATTEMPT_RUNNING  8U /* its worker said so at HELLO */

struct attempt {
    struct list link; /* free; or its session's `attempts` or `doubtful`, in dispatch order */
    struct list service_link; /* its service's */
    struct timer timer;       /* the backstop */
    uint64_t lease;
    uint64_t dispatched_at_ms;
    uint32_t task; /* NONE: settled, a zombie */
    uint32_t session;
    uint32_t
        serve_policy[3]; /* the worker's, its code's for the task and for the service; referenced */
    uint32_t service;
    uint32_t generation; /* of the breaker when it was dispatched */
    uint64_t timeout_ms;
    uint64_t progress_timeout_ms;
    uint64_t grace_ms;
    uint32_t attempts_max;
    uint8_t flags;
};

/* ---- queues ---- */

struct fifo {
    struct list first; /* first attempts, returned and lost tasks */
    struct list retry; /* these need the retry budget */
};

/* The waiting tasks of one tenant in one queue. */
struct tenant_queue {
    struct list link; /* free; or queue.tenants while something is ready, in turn */
    struct name tenant;
    uint32_t queue;
    uint32_t owner;       /* whose share it counts in */
    uint32_t task_count;  /* unsettled tasks that name it */
    uint32_t ready_first; /* ready tasks by need of budget */
    uint32_t ready_retry;
    uint16_t first_bits; /* bit p: fifos[p].first is not empty */
    uint16_t retry_bits;
    struct fifo fifos[FIFO_COUNT];
};

/* One kind of task of a service. */
struct queue {
    struct list link;          /* free; else service.queues */
    struct list active_link;   /* service.active_queues: may have something to hand out */
    struct list tenants;       /* tenant queues with ready tasks, in turn */
    struct list slot_serves;   /* of sessions believed to have a free slot, in turn */
    struct list credit_serves; /* of sessions believed to have credit, but no free slot */
    struct list unused_link;   /* core.unused_queues while nothing names it */
    struct name task;
    uint32_t service; /* NONE: a free place */
    uint32_t owner;   /* whose share it counts in */
    uint32_t serve_count;
    uint32_t task_count; /* tasks that name it, settled ones too */
    uint32_t tenant_queue_count;
    uint64_t unused_at_ms;
    uint32_t ready_first;
    uint32_t ready_retry;
    uint32_t policies[3]; /* as the newest HELLO brought them: worker, task, service; NONE */
};

struct service {
    struct list active_link; /* core.active_services; or core.free_services */
    struct list unused_link; /* core.unused_services while no queue or pattern of it is in use */
    struct list queues;
    struct list active_queues;
    struct list attempts;    /* live ones and zombies */
    struct list wildcards;   /* patterns SERVICE.* of sessions */
    struct list recall_link; /* core.recalling_services */
    struct name name;
    struct breaker breaker;
    struct timer breaker_timer;
    struct timer budget_timer;
    uint32_t owner; /* whose share it counts in */
    uint32_t attempt_count;
    uint32_t queue_count;
    uint32_t used_queue_count; /* those that something names */
    uint64_t unused_at_ms;
    uint32_t budget_left; /* queues that its budget timer has still to look at */
    uint32_t recall_left; /* attempts a recall has still to look at */
    bool is_paused;
    bool is_used; /* else a free place */
    uint32_t
        first_parts[BUDGET_PARTS]; /* first dispatches, retries by second: the budget's window */
    uint32_t retry_parts[BUDGET_PARTS];
    uint64_t budget_second; /* the newest part's */
    uint32_t scheduled_count;
    uint32_t ready_count;
    uint32_t running_count;
    uint64_t succeeded_count;
    uint64_t failed_count;
    uint64_t retried_count;
};

/* ---- sessions ---- */

/* One session serves one queue. */
struct serve {
    struct list
        link; /* free; else queue.slot_serves, queue.credit_serves, or session.parked_serves */
    struct list session_link; /* session.serves */
    uint32_t session;
    uint32_t queue;
    uint32_t policies[3]; /* worker, task, service; referenced; NONE */
    uint8_t place;        /* enum serve_place */
    bool is_named;        /* its HELLO named this task; else a SERVICE.* of it */
    /* What was resolved for the last submission policy seen here, so that a batch resolves once. */
    bool is_resolved;
    uint64_t resolved_serial; /* of that policy; 0: none given */
    uint32_t resolved_attempts_max;
    uint64_t resolved_timeout_ms;
    uint64_t resolved_progress_timeout_ms;
    uint64_t resolved_grace_ms;
};

enum serve_place { SERVE_PARKED, SERVE_SLOT, SERVE_CREDIT };

/* SERVICE.* of a session: becomes a serve of every queue of the service, those made later too. */
struct wildcard {
    struct list link; /* free; else service.wildcards */
    struct list session_link;
    uint32_t session;
    uint32_t service;
    uint32_t policies[3];
};

enum session_state { SESSION_FREE, SESSION_LIVE, SESSION_ENDING };

struct session {
    struct list link; /* free; core.reconciling_sessions; or core.ending_sessions */
    struct timer timer;
    struct name name;
    struct name host;
    uint8_t incarnation[16];
    uint32_t owner;
    uint32_t connection; /* NONE: in the resume grace */
    uint8_t state;       /* enum session_state */
    uint8_t role;        /* enum peer_role */
    bool is_draining;
    bool is_confirmed;        /* the peer has spoken in it, so it knows of it: a HELLO resumes it */
    bool is_capacity_changed; /* its parked serves are looked at after the message */
    uint32_t serial;          /* of this use of the place and its last HELLO: after that the peer
                                 asks again for what was not answered */
    uint64_t rights_serial;   /* of the rights that what it serves was checked with */
    uint64_t opened_at_ms;
    uint64_t heard_at_ms;
    uint64_t sent_at_ms;
    uint64_t refreshed_at_ms; /* when its parked serves were last looked at */
    uint64_t expected_number; /* the next message from the peer */
    uint64_t refused_at_ms;   /* when it was last told to say HELLO again; 0: not since its HELLO */
    uint64_t grace_until_ms;  /* end of the resume grace while it has no connection */

    /* A worker's. */
    struct list attempts; /* in dispatch order */
    struct list doubtful; /* leases that its last HELLO did not name: never arrived there */
    struct list serves;
    struct list parked_serves;
    struct list wildcards;
    struct list busy_link; /* core.busy_sessions: holds more leases than slots */
    uint32_t slots;
    uint32_t in_use;     /* leases it holds, zombies too */
    uint64_t allowed_ms; /* timeouts and graces of these leases together */
    uint64_t dispatched; /* over the session's life */
    uint64_t granted;    /* dispatches it accepts over the session's life */
    uint64_t late_count;

    /* A client's. */
    struct list waiting;      /* watches of unsettled tasks */
    struct list to_deliver;   /* watches of settled tasks, not sent yet */
    struct list in_flight;    /* sent, not acknowledged, in order of number */
    struct list deliver_link; /* core.delivering: to_deliver may go on; or core.undurable */
    uint64_t settled_number;  /* the last number given */
    uint64_t taken_number;    /* the last number the client has acknowledged */
    uint32_t flight;          /* which flight in_flight is: a HELLO begins another */
    uint64_t flight_bytes;
    uint32_t flight_count;
    uint32_t busy_backlog; /* entries answered BUSY, less what it may try again in the time since */
    uint64_t busy_drained_at_ms;
    uint64_t
        moved_at_ms; /* when the client last acknowledged something, or had nothing in flight */
};

/* A session awaits a task's outcome. */
struct watch {
    struct list link; /* free; or its session's waiting, to_deliver or in_flight */
    uint32_t task;
    uint32_t session;
    uint32_t next;   /* the next watch of the same task; NONE */
    uint32_t bytes;  /* what it counts in the window */
    uint64_t number; /* in its session's delivery; 0: not sent yet */
    uint32_t flight; /* sent in this flight of its session; 0: not sent */
    bool confirms;   /* made by SUBMIT: its acknowledgement drops a result that need not be kept */
};

/* ---- answers that wait for a record ---- */

struct outbox_item {
    uint64_t after;
    uint64_t sequence; /* of the task, to see that it is still there; 0: no task */
    uint64_t number;   /* RESULT_ACK: the lease */
    struct treadle_task_id id;
    uint32_t session;
    uint32_t session_serial;
    uint32_t task;
    uint8_t code; /* enum message_kind */
    uint8_t status;
};

/* A question that takes many steps to answer. */
struct listing {
    bool is_open;
    bool sees_all; /* tasks or workers of other owners, too */
    uint8_t code;  /* MESSAGE_TASK_PAGE, _SERVICE_INFO, _WORKER_INFO, or MESSAGE_DONE: a drain */
    uint32_t session;
    uint32_t session_serial;
    uint64_t request;
    uint32_t place;      /* the next slab place to look at */
    uint32_t count_left; /* rows the page may still hold */
    uint32_t service;    /* NONE: all */
    uint32_t state;      /* 0: all; else 1 + the state */
    struct name name;    /* of a worker; empty: all */
};

/* ---- counters: X(name) ---- */

/* clang-format off */
#define COUNTERS(X)                                                                                \
    X(submitted) X(accepted) X(existing) X(conflict) X(busy) X(refused) X(fate_unknown)            \
    X(dispatched) X(succeeded) X(failed) X(cancelled) X(expired) X(retried) X(attempts_failed)     \
    X(attempts_timeout) X(attempts_crash) X(attempts_lost) X(attempts_returned) X(late)            \
    X(recalled) X(sessions_opened) X(sessions_resumed) X(sessions_lost) X(sessions_ended)          \
    X(sessions_refused) X(beyond_rights) X(doubles) X(gaps) X(breaker_opened) X(settled_evicted)   \
    X(messages) X(names_dropped) X(meta_dropped) X(sessions_stalled) X(sessions_pressing)
/* clang-format on */
struct counters {
#define COUNTER_FIELD(name) uint64_t name;
    COUNTERS(COUNTER_FIELD)
#undef COUNTER_FIELD
};

/* ---- slabs ---- */

/* Places 0..used-1 have been used; those that are free again are in `free`. */
struct slab {
    struct list free; /* by the member `link`, which is the first of its object */
    char *objects;
    size_t object_size;
    uint32_t used;
    uint32_t live;
    uint32_t count_max;
};

/* Where the entries of one template go. Holds a count of its tenant queue and of its policy during
 * the step. */
struct submit_target {
    bool is_forbidden; /* its principal has no right to this service */
    bool is_resolved;
    uint8_t status; /* enum accept_status; ACCEPT_OK: usable */
    uint8_t reason;
    uint32_t queue;
    uint32_t tenant_queue;
    uint32_t policy;
    uint64_t deadline_ms; /* 0: none */
    uint64_t queue_timeout_ms;
};

struct core {
    struct core_config config;
    uint64_t now_ms;
    uint64_t started_at_ms;
    struct prng prng;
    struct wheel wheel;
    struct counters counters;
    bool is_draining;

    struct slab task_slab, attempt_slab, session_slab, queue_slab, tenant_queue_slab, serve_slab,
        wildcard_slab, watch_slab, policy_slab;
    struct task *tasks;
    struct attempt *attempts;
    struct session *sessions;
    struct queue *queues;
    struct tenant_queue *tenant_queues;
    struct serve *serves;
    struct wildcard *wildcards;
    struct watch *watches;
    struct policy *policies;
    struct service *services;
    uint32_t service_count; /* places that have been used */
    struct list free_services;
    struct list unused_services; /* the longest unused first */
    struct list unused_queues;
    struct owner *owners;
    uint32_t owner_count;
    uint32_t *connection_sessions; /* connection -> session, NONE + 1 stored: 0 is none */

    struct map id_map; /* tasks; remembered ids from task_slab.count_max on */
    struct map lease_map;
    struct map service_map;
    struct map queue_map;
    struct map tenant_map; /* tenant queues */
    struct map policy_map;
    struct map session_map; /* by owner and incarnation */
    struct map worker_map;  /* live workers by owner and name */
    struct map owner_map;

    /* Remembered ids: a ring. */
    struct remembered *remembered;
    uint32_t remembered_at;   /* the next place to write */
    uint64_t fate_horizon_ms; /* what settled before it may have been forgotten */

    uint64_t next_sequence;
    uint64_t next_serial; /* of a lease */
    uint64_t next_policy_serial;
    uint32_t next_session_serial;
    uint64_t record_number; /* the last record emitted */
    uint64_t durable_number;

    struct outbox_item *outbox; /* ring */
    uint64_t outbox_head, outbox_tail;

    uint32_t unsettled_count;
    uint64_t unsettled_bytes;
    uint32_t settled_count;
    uint64_t settled_bytes;
    uint32_t owners_with_tasks; /* unsettled or undelivered */
    uint32_t undelivered_count; /* settled, but somebody still awaits them */
    struct list settled;        /* those nobody awaits, oldest first */

    struct list active_services;
    struct list ending_sessions;
    struct list reconciling_sessions;
    struct list delivering; /* sessions that may be sent more outcomes */
    struct list undurable;  /* sessions whose next outcome is not durable yet */
    struct list busy_sessions;
    struct list recalling_services;
    struct timer balance_timer;
    bool is_balance_due; /* in the next step of time */
    struct listing listings[LISTING_COUNT];
    struct kept_globs listing_services[LISTING_COUNT]; /* who asks has rights to */
    uint32_t visits;                                   /* left in this step */
    uint32_t log_room;     /* logs leave this many effects to the step's message */
    uint64_t lacked_at_ms; /* when there was no place for another lease */

    /* Templates of the SUBMIT being stepped, and what they were resolved to. */
    struct wire_submit_template templates[TEMPLATE_COUNT_MAX];
    struct submit_target targets[TEMPLATE_COUNT_MAX];
};

#endif
