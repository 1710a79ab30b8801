/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The worker's side of the protocol as a state machine: no clock, no socket, no thread, no
 * randomness. `treadle work` drives it with a socket and a clock, the simulator with neither.
 *
 * After each input (a call that takes now_ms) the driver takes what it led to:
 *
 *     while (worker_session_next_event(session, &event)) ...      // start, cancel, kill, tell
 *     while ((frames = worker_session_take_message(session)) != NULL) ...    // send
 *     sleep until worker_session_next_at_ms(session), then worker_session_on_time(session, now)
 *
 * now_ms is a monotonic clock; it is asserted not to go back. One thread at a time. What is
 * allocated: the session, and one block for each lease held.
 */
#ifndef TREADLE_WORKER_SESSION_H
#define TREADLE_WORKER_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/message.h"

struct worker_session;

#define WORKER_DRAIN_MS     30000
#define WORKER_PREFETCH_MAX 4096

struct worker_session_config {
    struct bytes name;               /* 1..NAME_SIZE_MAX */
    struct bytes host;               /* 0..NAME_SIZE_MAX */
    uint8_t incarnation[16];         /* random, drawn once for each life of the worker */
    uint32_t slots;                  /* 1..SLOT_COUNT_MAX */
    uint32_t prefetch_max;           /* dispatches asked for beyond the slots, at most */
    uint64_t drain_ms;               /* what runs longer into a drain is stopped */
    const struct wire_serve *serves; /* copied */
    uint32_t serve_count;            /* 1..SERVE_COUNT_MAX */
};

/* What a handler may know of its attempt. Views, valid until the attempt ends. */
struct worker_attempt {
    uint64_t lease;
    struct treadle_task_id id;
    struct bytes service;
    struct bytes task;
    struct bytes body;
    uint32_t dispatch;
    uint32_t retry_index;
    uint32_t retry_sequence;
    uint32_t attempts_max;
    uint64_t timeout_ms;          /* 0: none */
    uint64_t progress_timeout_ms; /* 0: none */
    uint64_t grace_ms;
    uint64_t result_size_max;    /* bytes the broker admits in a result */
    uint64_t deadline_left_ms;   /* at the start; 0: no deadline */
    struct wire_list tags;       /* of wire_tag */
    struct wire_list meta;       /* of wire_meta_item */
    struct wire_list last_error; /* of wire_last_error, at most one */
};

enum worker_event_kind {
    WORKER_EVENT_WELCOME,   /* a session stands: is_resumed, epoch */
    WORKER_EVENT_LOST,      /* it stands no longer; the session goes on trying */
    WORKER_EVENT_RECONNECT, /* nothing came for too long: rebuild the socket */
    WORKER_EVENT_REFUSED,  /* a person must see code and text; is_final: there is no use in going on
                            */
    WORKER_EVENT_START,    /* take attempt in; report its start, then its end */
    WORKER_EVENT_RECALL,   /* take lease back if it has not started: worker_session_on_recall() */
    WORKER_EVENT_CANCEL,   /* set the cancel flag of lease: it should end within its grace */
    WORKER_EVENT_KILL,     /* the grace is over: end lease by force, then report its end */
    WORKER_EVENT_DRAINING, /* a drain has begun by the broker's word */
    WORKER_EVENT_DRAINED,  /* nothing is left and goodbye was said: the worker may end */
};

struct worker_event {
    enum worker_event_kind kind;
    uint64_t lease;                       /* START, RECALL, CANCEL, KILL */
    const struct worker_attempt *attempt; /* START */
    uint64_t epoch;                       /* WELCOME */
    bool is_resumed;                      /* WELCOME */
    bool is_final;                        /* REFUSED */
    enum refused_code code;               /* REFUSED */
    struct bytes text;                    /* REFUSED; any bytes; valid until the next input */
};

/* NULL when memory is out. The configuration is asserted to be within its ranges. */
struct worker_session *worker_session_create(const struct worker_session_config *config,
                                             uint64_t now_ms);

/* Ends *session and sets it to NULL; NULL is fine. Views given out end with it. */
void worker_session_destroy(struct worker_session **session);

/* The transport. A connection that stands carries messages both ways, in order; what is lost on it
 * is found by the numbers of the messages. */
void worker_session_on_connected(struct worker_session *session, uint64_t now_ms);
void worker_session_on_disconnected(struct worker_session *session, uint64_t now_ms);

/* A message from the broker, decoded; nothing of it is kept. */
void worker_session_on_message(struct worker_session *session, uint64_t now_ms,
                               const struct message *message);

/* A message taken could not be sent: the session greets the broker anew. */
void worker_session_on_unsent(struct worker_session *session, uint64_t now_ms);

void worker_session_on_time(struct worker_session *session, uint64_t now_ms);

/* When worker_session_on_time() is due without any other input; UINT64_MAX: never. */
uint64_t worker_session_next_at_ms(const struct worker_session *session);

/* The execution. Reports about leases that it does not have (any more) are ignored. */

/* How many attempts the execution takes in at all, running or waiting there for their turn: START
 * comes for no more than these. At first as many as there are slots; more is for executions that
 * hand several short tasks to a process at once. May change at any time; what was taken in stays.
 */
void worker_session_set_room(struct worker_session *session, uint32_t room);

/* The handler has started: its clocks run from here; until then it can be recalled. */
void worker_session_on_started(struct worker_session *session, uint64_t now_ms, uint64_t lease);

/* The answer to RECALL: whether the attempt was taken back before it started. If not, it runs (or
 * has ended, which was told or will be), and CANCEL follows if its end was asked for. */
void worker_session_on_recall(struct worker_session *session, uint64_t now_ms, uint64_t lease,
                              bool is_taken);

/* An attempt that was taken in could not be started, through no fault of its own (the process that
 * it waited in died of another): it is to be started anew, before those that came later. */
void worker_session_requeue(struct worker_session *session, uint64_t now_ms, uint64_t lease);

/* The attempt has ended well. Body and meta are copied; a body over what the broker admits becomes
 * a failure of kind finalize, and one after the kill a timeout (or cancelled). */
void worker_session_succeed(struct worker_session *session, uint64_t now_ms,
                            const struct wire_success_entry *success);

/* The attempt has failed. Texts and meta are copied, texts cut to what the wire takes. The kind is
 * replaced when the session itself had asked for the end (timeout, cancelled, drain). */
void worker_session_fail(struct worker_session *session, uint64_t now_ms,
                         const struct wire_failure_entry *failure);

/* The handler is alive and has this meta now (copied; {0}: as it was). */
void worker_session_progress(struct worker_session *session, uint64_t now_ms, uint64_t lease,
                             const struct wire_list *meta);

/* The attempt under a lease that has not ended and whose end was not asked for; NULL: there is
 * none. */
const struct worker_attempt *worker_session_attempt(struct worker_session *session, uint64_t lease);

/* Take nothing new, finish what runs, then leave: DRAINED. Once is enough. */
void worker_session_drain(struct worker_session *session, uint64_t now_ms);

/* The next thing to do; false: nothing. */
bool worker_session_next_event(struct worker_session *session, struct worker_event *event);

/* Whether worker_session_take_message() would give one. */
bool worker_session_has_message(const struct worker_session *session);

/* The next message to send now; NULL: none. The frames, and what they point to, are valid until the
 * next call of any function here that changes the session. */
const struct wire_frames *worker_session_take_message(struct worker_session *session);

/* What there is and what has been, for tests, logs and the simulator. */
struct worker_session_counts {
    uint32_t queued;
    uint32_t waiting; /* taken in by the execution, not started */
    uint32_t running;
    uint32_t finished;      /* results not yet acknowledged */
    uint64_t granted;       /* the window as last worked out, a total */
    uint64_t dispatched;    /* dispatches of the session, as the broker counts them */
    uint64_t doubles;       /* messages that had come before */
    uint64_t gaps;          /* times that a message was missing */
    uint64_t ignored;       /* messages outside a session */
    uint64_t stale;         /* results that came too late */
    uint64_t granted_twice; /* leases dispatched while held: a mistake of the broker */
    uint64_t over_credit;   /* dispatches beyond the window: a mistake of the broker */
    uint64_t dropped;       /* dispatches for which memory was out */
    bool is_live;           /* a session stands */
};
struct worker_session_counts worker_session_counts(const struct worker_session *session);

/* Slow checker of what must always hold: asserts. */
void worker_session_check(const struct worker_session *session);

#endif
