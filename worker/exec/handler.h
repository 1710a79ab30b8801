/* SPDX-License-Identifier: MPL-2.0 */
/* What serves a task: a command, or a function of the program or of a plugin. */
#ifndef TREADLE_WORKER_EXEC_HANDLER_H
#define TREADLE_WORKER_EXEC_HANDLER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/wire/message.h"

#define EXIT_STATUS_COUNT 256

enum handler_kind {
    HANDLER_COMMAND,
    HANDLER_FUNCTION,
};

struct handler {
    const char *pattern; /* SERVICE.TASK or SERVICE.* */
    enum handler_kind kind;
    uint32_t index; /* COMMAND: in the zygote's table of commands; FUNCTION: in that of functions */
    bool is_thread_safe;              /* FUNCTION */
    const bool *is_permanent_exit;    /* COMMAND: EXIT_STATUS_COUNT of them; must stay */
    struct wire_policy worker_policy; /* the worker's configuration */
    struct wire_policy task_policy;   /* what the handler's code registers */
};

#endif
