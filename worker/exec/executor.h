/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What runs attempts: commands, a pool of processes, a process with threads. The worker hands
 * attempts in, recalls, cancels and kills; the executor tells each start and each end, once, to its
 * listener. One thread drives it:
 *
 *     for ever:
 *         timeout = until executor_next_at_ms(), or 0 if !executor_may_wait()
 *         wait until executor_fd() is readable, or the timeout
 *         executor_on_ready()
 */
#ifndef TREADLE_WORKER_EXEC_EXECUTOR_H
#define TREADLE_WORKER_EXEC_EXECUTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/exec/handler.h"
#include "worker/session.h"

/* Called from executor_start() and executor_on_ready() only. What they are given is theirs during
 * the call. After an end, or a return, nothing of the attempt is looked at any more. */
struct executor_listener {
    void *context;
    void (*on_started)(void *context, uint64_t lease);
    void (*on_progress)(void *context, uint64_t lease, const struct wire_list *meta);
    void (*on_succeeded)(void *context, const struct wire_success_entry *success);
    void (*on_failed)(void *context, const struct wire_failure_entry *failure);
    /* It was not started, or ended through no fault of its own with the process it shared with
     * others; it will not run here any more: worker_session_requeue(). */
    void (*on_returned)(void *context, uint64_t lease);
};

struct executor;

struct executor_methods {
    int (*fd)(struct executor *executor);
    void (*on_ready)(struct executor *executor);
    uint64_t (*next_at_ms)(const struct executor *executor);
    bool (*may_wait)(struct executor *executor);
    uint32_t (*room)(const struct executor *executor);
    void (*start)(struct executor *executor, const struct worker_attempt *attempt,
                  const struct handler *handler);
    bool (*recall)(struct executor *executor, uint64_t lease);
    void (*cancel)(struct executor *executor, uint64_t lease);
    void (*kill)(struct executor *executor, uint64_t lease);
    void (*destroy)(struct executor *executor);
};

/* First member of every kind of executor. */
struct executor {
    const struct executor_methods *methods;
    struct executor_listener listener;
};

/* Readable when executor_on_ready() has something to do. */
static inline int executor_fd(struct executor *executor)
{
    return executor->methods->fd(executor);
}

static inline void executor_on_ready(struct executor *executor)
{
    executor->methods->on_ready(executor);
}

/* When executor_on_ready() is due without the descriptor; ms of CLOCK_MONOTONIC; UINT64_MAX: never.
 */
static inline uint64_t executor_next_at_ms(const struct executor *executor)
{
    return executor->methods->next_at_ms(executor);
}

/* To be asked right before waiting, as its last look: false, if there is something to do at once.
 */
static inline bool executor_may_wait(struct executor *executor)
{
    return executor->methods->may_wait(executor);
}

/* How many attempts it takes in at all now, running or waiting for their turn: its slots, or more
 * where several short ones are handed to a process at once. */
static inline uint32_t executor_room(const struct executor *executor)
{
    return executor->methods->room(executor);
}

/* Takes an attempt in, whose views must stay until its end or return was told. */
static inline void executor_start(struct executor *executor, const struct worker_attempt *attempt,
                                  const struct handler *handler)
{
    executor->methods->start(executor, attempt, handler);
}

/* Takes an attempt back that has not started: true, and nothing of it is told or looked at any
 * more. False: it runs, or has ended, or is not here. */
static inline bool executor_recall(struct executor *executor, uint64_t lease)
{
    return executor->methods->recall(executor, lease);
}

/* Asks a running attempt to end; a lease that does not run is ignored. */
static inline void executor_cancel(struct executor *executor, uint64_t lease)
{
    executor->methods->cancel(executor, lease);
}

/* Ends a running attempt by force; its end is told when it is there. */
static inline void executor_kill(struct executor *executor, uint64_t lease)
{
    executor->methods->kill(executor, lease);
}

/* Ends everything that runs by force, tells nobody, and sets *executor to NULL; NULL is fine. */
static inline void executor_destroy(struct executor **executor)
{
    if (*executor != NULL) {
        (*executor)->methods->destroy(*executor);
        *executor = NULL;
    }
}

#endif
