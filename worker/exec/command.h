/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A command as the handler: the body on its stdin, the result from its stdout, the end of its
 * stderr as the trace, its exit status as the outcome, the attempt in TREADLE_* variables. Each
 * runs in a process group of its own, started by the zygote, and nothing of it outlives it.
 */
#ifndef TREADLE_WORKER_EXEC_COMMAND_H
#define TREADLE_WORKER_EXEC_COMMAND_H

#include "worker/exec/executor.h"
#include "worker/exec/runs.h"

struct command_config {
    struct runs *runs;            /* must stay */
    char *const *const *commands; /* as the zygote has them, for messages; must stay */
    const char *worker;           /* the worker's name; must stay */
    uint32_t slots;
    uint64_t memory_max; /* bytes; 0: no limit */
    struct executor_listener listener;
};

/* NULL when memory or file descriptors are out (errno). SIGPIPE must be ignored in the process. */
struct executor *command_executor_create(const struct command_config *config);

#endif
