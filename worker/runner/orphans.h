/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What is left when the zygote was killed: its runs die with it, but not what they had started in
 * sessions of their own. This process is the next ancestor that takes such processes in, so that it
 * can end them before it ends. One thread.
 */
#ifndef TREADLE_WORKER_RUNNER_ORPHANS_H
#define TREADLE_WORKER_RUNNER_ORPHANS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define ORPHANS_OTHERS_MAX 64

struct orphans {
    bool is_adopting;
    size_t other_count;
    pid_t others[ORPHANS_OTHERS_MAX]; /* children from before, of whoever became this program */
};

/* From now on orphaned descendants become children of this process. Before the zygote is forked. */
void orphans_adopt(struct orphans *orphans);

/* Kills and reaps every child but those from before; after the zygote's end. Waits at most 2 s.
 * What was orphaned by those from before cannot be told from what a run left, so only when the
 * zygote did not end by itself. */
void orphans_end(const struct orphans *orphans);

#endif
