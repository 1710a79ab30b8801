/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A command as the handler: the body on its stdin, the result from its stdout, the end of its
 * stderr as the trace, its exit status as the outcome, the attempt in TREADLE_* variables. Each
 * runs in a process group of its own, and nothing of that group outlives it.
 */
#ifndef TREADLE_WORKER_EXEC_COMMAND_H
#define TREADLE_WORKER_EXEC_COMMAND_H

#include <stdbool.h>

#include "worker/exec/executor.h"

#define EXIT_STATUS_COUNT 256

struct command_config {
    char *const *command; /* program and arguments, NULL at the end; must stay */
    const char *worker;   /* the worker's name; must stay */
    bool is_permanent_exit[EXIT_STATUS_COUNT];
    struct executor_listener listener;
};

/* NULL when memory or file descriptors are out (errno). SIGPIPE must be ignored in the process. */
struct executor *command_executor_create(const struct command_config *config);

#endif
