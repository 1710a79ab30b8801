/* SPDX-License-Identifier: MPL-2.0 */
/* A lease that the worker holds, from its DISPATCH until its RESULT_ACK or RETURNED. */
#ifndef TREADLE_WORKER_HELD_H
#define TREADLE_WORKER_HELD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/list.h"
#include "common/wire/message.h"
#include "worker/session.h"

#define HELD_NEVER UINT64_MAX

/* Which of the session's lists it is in. */
enum held_place {
    HELD_IN_QUEUED,    /* not started */
    HELD_IN_RETURNING, /* not started, to be handed back */
    HELD_IN_WAITING,   /* taken in by the execution, not started */
    HELD_IN_RUNNING,
    HELD_IN_FINISHED, /* its result is to be offered */
    HELD_IN_OFFERED,  /* its result was offered, not acknowledged */
    HELD_PLACE_COUNT
};

/* Why the session asked for the end of an attempt. */
enum stop_cause {
    STOP_NONE,
    STOP_TIMEOUT,
    STOP_PROGRESS_TIMEOUT,
    STOP_CANCEL,
    STOP_DRAIN,
};

struct held {
    struct list link;          /* the list named by `place` */
    struct list signal_link;   /* session.signals: a RECALL, CANCEL or KILL to tell */
    struct list progress_link; /* session.progressing: a PROGRESS to send */
    struct held *bucket_next;
    enum held_place place;
    struct worker_attempt attempt; /* views into `input` */
    uint8_t *input;
    uint64_t order; /* of dispatch */
    uint64_t arrived_at_ms;
    uint64_t started_at_ms;
    uint64_t timeout_at_ms;
    uint64_t progress_at_ms; /* when it must have shown progress */
    uint64_t kill_at_ms;     /* the end of its grace, once it was cancelled */
    enum stop_cause cause;
    bool is_recall_due;
    bool is_return_wanted; /* once recalled: to the broker, else it stays queued */
    bool is_cancel_wanted; /* if it cannot be recalled */
    bool is_cancel_due;
    bool is_kill_due;
    bool is_killed;
    struct wire_list meta; /* of the last progress; a view into meta_block */
    uint8_t *meta_block;

    bool is_success;
    uint8_t *output;                   /* what the end's views point to */
    uint64_t output_size;              /* bytes in it */
    struct wire_success_entry success; /* if is_success */
    struct wire_failure_entry failure; /* if not */
};

/* A copy of what came; NULL when memory is out. */
struct held *held_create(const struct wire_dispatch_entry *entry,
                         const struct wire_dispatch_template *template, uint64_t now_ms);

/* It must be in no list. NULL is fine. */
void held_destroy(struct held *held);

/* Replaces the meta of its progress; without memory the old one stays. */
void held_set_meta(struct held *held, const struct wire_list *meta);

/* Keeps a copy of the end and lets go of the input; a meta not given is the one of the last
 * progress. Without memory a success becomes a failure of kind finalize, and a failure has its kind
 * alone. */
void held_set_success(struct held *held, const struct wire_success_entry *success);
void held_set_failure(struct held *held, const struct wire_failure_entry *failure);

#endif
