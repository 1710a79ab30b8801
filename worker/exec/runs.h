/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Shares one zygote among executors: each run belongs to who started it, and its events go there.
 * The worker's loop calls runs_on_ready() when runs_fd() is readable, before the executors'
 * on_ready(). One thread.
 */
#ifndef TREADLE_WORKER_EXEC_RUNS_H
#define TREADLE_WORKER_EXEC_RUNS_H

#include "worker/exec/zygote.h"

struct runs;

/* One run, inside of whatever its owner keeps of it. Zeroed before the first use. */
struct run_link {
    uint64_t number; /* 0: does not run */
    void (*on_event)(struct run_link *link, const struct zygote_event *event);
};

/* NULL when memory is out. The zygote must stay. */
struct runs *runs_create(struct zygote *zygote);

/* Nulls the pointer; NULL is fine. The zygote is left alone. */
void runs_destroy(struct runs **runs);

int runs_fd(const struct runs *runs);

/* Gives all events that are there to the owners of their runs. After ENDED or NOT_STARTED the
 * link's number is 0. At GONE every link is told GONE, once. */
void runs_on_ready(struct runs *runs);

/* Starts a run for `link`, whose on_event is set; start->run is filled here. Errors as
 * zygote_start(), and TREADLE_E_NOMEM. */
enum treadle_status runs_start(struct runs *runs, struct run_link *link,
                               struct zygote_start *start);

/* As zygote_signal(). */
void runs_signal(struct runs *runs, const struct run_link *link, int signal_number);

/* Kills the run, if it runs, and forgets the link: no event comes to it any more. */
void runs_abandon(struct runs *runs, struct run_link *link);

#endif
