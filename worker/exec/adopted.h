/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What a handler's processes leave behind becomes a child of the pool's child, which lives long:
 * its dead are to be waited for by somebody. Nobody can tell them from those that a handler started
 * itself and means to wait for, in a later attempt perhaps. So the oldest ones are left alone, and
 * of what came after those is taken what has been dead for a second.
 */
#ifndef TREADLE_WORKER_EXEC_ADOPTED_H
#define TREADLE_WORKER_EXEC_ADOPTED_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ADOPTED_KEPT_COUNT     64 /* dead children that stay */
#define ADOPTED_COUNT_MAX      1024
#define ADOPTED_LOOK_PERIOD_US 1000000

/* Zeroed before the first use. */
struct adopted {
    uint64_t look_at_us;
    pid_t dead[ADOPTED_COUNT_MAX]; /* as the last look found them */
    size_t dead_count;
};

/* Looks at the children of the calling thread, the first of its process, unless it has done so
 * within the last second; to be called between attempts. */
void adopted_reap(struct adopted *adopted, uint64_t now_us);

#endif
