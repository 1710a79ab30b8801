/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Runs functions in child processes: a pool of processes, each running one attempt after the other,
 * or one process with threads. Children are started when there is work for them, and again when
 * they die; a crash is charged to the attempt that was running, the others are run elsewhere.
 *
 * - Each child that is free gets one attempt; more are handed to it, to be run one after the other,
 *   only while the handlers measured take less than 1 ms, and about 1 ms of work. What waits behind
 *   an attempt that turns out to run for more than 10 ms is taken back and run elsewhere.
 * - on_started is told about 10 ms after the start, or right before the end of what is shorter.
 * - With threads a crash, exit() or executor_kill() ends the attempts in the other threads too. If
 *   it is known whose thread it was, the others are given to on_returned: they had started and will
 *   run again, as at-least-once allows, and nobody is charged for them. If not, all are charged.
 * - Three children in a row that end without the end of an attempt (a plugin that does not load, or
 *   crashes at its start): what waits fails with kind prepare. Starts are 100 ms to 5 s apart then.
 *   If no process can be made three times (memory, descriptors, processes): with kind transient.
 *   A child that is not ready, or has not begun with what it was handed, after 30 s, is ended.
 * - When the zygote is gone, what was running fails, all else is given to on_returned, and the room
 *   is 0 from then on.
 * - The trace of a crash is the end of the child's stderr since it last had nothing to do. What
 *   children write to stderr also goes to that of the supervisor, in whole lines, as far as there
 *   is room at once.
 */
#ifndef TREADLE_WORKER_EXEC_POOL_H
#define TREADLE_WORKER_EXEC_POOL_H

#include <stdbool.h>

#include "worker/exec/executor.h"
#include "worker/exec/runs.h"

#define HANDOFF_COUNT_MAX 64 /* attempts in one child at a time, for each of its threads */

struct pool_config {
    struct runs *runs;   /* of a zygote whose child_main is pool_child_main(); must stay */
    bool is_threaded;    /* one child with `slots` threads; else up to `slots` children */
    uint32_t slots;      /* at least 1; those over 4,096 stay empty */
    uint64_t memory_max; /* bytes of data of each child; 0: no limit */
    struct executor_listener listener;
};

/* NULL when memory or file descriptors are out (errno). Destroying gives idle children 100 ms in
 * all to stop their plugins. */
struct executor *pool_executor_create(const struct pool_config *config);

#endif
