/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What a verb that waits for tasks watches beside them: whether a worker serves them, whether their
 * service lets them go, and whether the broker is away. Says each on stderr, once each time. One
 * thread.
 */
#ifndef TREADLE_CLI_WATCH_H
#define TREADLE_CLI_WATCH_H

#include "client/cli/contact.h"

struct watch {
    struct contact *contact;
    const char *name; /* SERVICE.TASK */
    bool is_ours;     /* the verb submitted them: it waits no longer than --worker-wait */

    bool is_worker_wait_over; /* no worker for --worker-wait: the verb should cancel and end */

    /* The rest belongs to watch.c. */
    bool is_noted;            /* that no worker serves it */
    bool is_lost_noted;       /* that the broker is away */
    uint64_t lost_since_ms;   /* 0: the broker is there */
    uint64_t next_look_at_ms; /* UINT64_MAX: an answer is under way, or no more looks */
    uint64_t looked_at_ms;
    uint64_t no_worker_since_ms; /* 0: one serves it, or not known */
    uint64_t gate;               /* enum wait_reason: why its service hands nothing out; or none */
    uint64_t gate_since_ms;
    bool is_gate_noted;
    uint64_t look_request;
    uint64_t workers_request;
};

/* Begins at now. Everything is borrowed; there is nothing to end. */
void watch_init(struct watch *watch, struct contact *contact, const char *name, bool is_ours);

/* What the clock says. `id`: the task to look at, one that waits longest; NULL: none waits. */
void watch_on_time(struct watch *watch, const struct treadle_task_id *id, uint64_t now_ms);

/* Takes an ANSWER event in; not its owner. May set is_worker_wait_over. */
void watch_on_answer(struct watch *watch, const struct client_event *event);

/* When watch_on_time() is needed next. */
uint64_t watch_next_at_ms(const struct watch *watch);

/* Asks at once and says if no worker serves the task; errors are nothing to fail for. */
void watch_note_missing_worker(struct watch *watch, const struct treadle_task_id *id);

#endif
