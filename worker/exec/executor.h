/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What runs attempts: commands, and later whatever else a handler may be. The runner starts,
 * cancels and kills; the executor tells each start and each end, once, to its listener. One thread
 * drives it: when the file descriptor is readable, it calls executor_on_ready().
 */
#ifndef TREADLE_WORKER_EXEC_EXECUTOR_H
#define TREADLE_WORKER_EXEC_EXECUTOR_H

#include <stdint.h>

#include "worker/session.h"

/* Called from executor_start() and executor_on_ready() only. What they are given is theirs during
 * the call. After an end nothing of the attempt is looked at any more. */
struct executor_listener {
    void *context;
    void (*on_started)(void *context, uint64_t lease);
    void (*on_succeeded)(void *context, const struct wire_success_entry *success);
    void (*on_failed)(void *context, const struct wire_failure_entry *failure);
};

struct executor;

struct executor_methods {
    int (*fd)(struct executor *executor);
    void (*on_ready)(struct executor *executor);
    void (*start)(struct executor *executor, const struct worker_attempt *attempt);
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

/* Runs an attempt, whose views must stay until its end was told. */
static inline void executor_start(struct executor *executor, const struct worker_attempt *attempt)
{
    executor->methods->start(executor, attempt);
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
