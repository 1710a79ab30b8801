/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What a child leaves behind when it dies of a signal: a record in the memory that it shares with
 * its supervisor, then a line and a backtrace on stderr, in that order, since each further step may
 * be the one that fails. It then dies of the same signal, so that its wait status tells it too.
 */
#ifndef TREADLE_WORKER_EXEC_CRASH_H
#define TREADLE_WORKER_EXEC_CRASH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "worker/exec/page.h"

/* What a thread is doing, for its crash. */
struct crash_place {
    uint32_t cell; /* UINT32_MAX: it runs no attempt */
    struct bytes service;
    struct bytes task;
};

/* Catches crashes of this process from now on. Once in a process, before its threads. `record` may
 * be NULL: text only. False: errno. */
bool crash_open(struct crash_record *record);

/* From now on crashes of this process leave nothing: it is a copy that a handler forked. */
void crash_forget(void);

/* Gives the calling thread a stack to crash on; without one a stack overflow leaves no record.
 * False: errno. */
bool crash_thread_open(void);

/* Takes it back; to be called before the thread ends, if crash_thread_open() was. */
void crash_thread_close(void);

/* Where the calling thread keeps what it does, from now on; NULL: nowhere. */
void crash_set_place(const struct crash_place *place);

#endif
