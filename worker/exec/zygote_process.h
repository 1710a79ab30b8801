/* SPDX-License-Identifier: MPL-2.0 */
/* Between zygote.c, the supervisor's side, and zygote_process.c, the forked one. */
#ifndef TREADLE_WORKER_EXEC_ZYGOTE_PROCESS_H
#define TREADLE_WORKER_EXEC_ZYGOTE_PROCESS_H

#include "worker/exec/zygote.h"

#define ZYGOTE_ENVIRONMENT_SIZE_MAX 131072

/* The zygote's own end takes at most so long; zygote_close() waits a little longer. */
#define ZYGOTE_ENDING_MS 1500
#define ZYGOTE_CLOSE_MS  2000

enum zygote_request_kind {
    ZYGOTE_REQUEST_START,
    ZYGOTE_REQUEST_SIGNAL,
};

/* One message to the zygote: this, then the environment's texts with a NUL after each; descriptors
 * beside it. The answers are struct zygote_event as they are: both sides are one program. */
struct zygote_request {
    enum zygote_request_kind kind;
    enum zygote_run_kind run_kind; /* START */
    uint64_t run;
    uint64_t memory_max;       /* START */
    uint32_t index;            /* START */
    uint32_t fd_count;         /* START */
    uint32_t environment_size; /* START; bytes */
    int signal_number;         /* SIGNAL */
};

#define ZYGOTE_MESSAGE_SIZE_MAX (sizeof(struct zygote_request) + ZYGOTE_ENVIRONMENT_SIZE_MAX)

/* What the zygote does all its life: called in the forked process with every signal blocked, it
 * closes what it does not need, and does not return. `supervisor` is its parent. */
_Noreturn void zygote_process_run(const struct zygote_config *config, int socket_fd,
                                  pid_t supervisor);

#endif
