/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What the files of the pool share. An attempt (entry) waits in pool.waiting; is handed to a child,
 * where it has a cell and is in child.unsent until all of its hand-off is written, then in
 * child.sent, in the order in which the child takes them; and ends, or goes back to pool.waiting.
 *
 *     pool.c        the executor: who gets what, clocks, rooms
 *     pool_child.c  one child: its start, the hand-offs to it, what it says
 *     pool_end.c    what the end of an attempt, and of a child, means
 */
#ifndef TREADLE_WORKER_EXEC_POOL_STATE_H
#define TREADLE_WORKER_EXEC_POOL_STATE_H

#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/map.h"
#include "worker/exec/handoff.h"
#include "worker/exec/outcome.h"
#include "worker/exec/page.h"
#include "worker/exec/pool.h"

#define POOL_SLOT_COUNT_MAX PAGE_CELL_COUNT_MAX
#define POOL_NEVER          UINT64_MAX

/* What runs longer is told as started, and nothing waits behind it. */
#define POOL_LONG_US 10000

#define POOL_SILENCE_MS         30000 /* until a child is ready, or has begun with an attempt */
#define POOL_START_FAILURES_MAX 3     /* in a row, then the attempts that wait fail */
#define POOL_TEXT_SIZE          1024

struct entry {
    struct list link; /* pool.free, pool.waiting, child.unsent or child.sent */
    const struct worker_attempt *attempt;
    uint64_t lease;
    struct child *child; /* NULL: waits */
    uint32_t function;   /* index in the table of functions */
    uint32_t cell;
    uint32_t generation;
    bool is_sent;
    bool is_told; /* that it has started */
    bool is_killed;
};

enum child_state {
    CHILD_STARTING,
    CHILD_READY,
    CHILD_DOOMED, /* its end was asked for, or it said that it ends: nothing is handed to it */
};

struct child {
    struct run_link run;
    struct pool *pool;
    enum child_state state;
    bool is_killed; /* by executor_kill() */
    bool is_damaged;
    bool is_flowing; /* attempts end one after the other: no need to tell of each at once */
    bool has_ended;  /* `end` says how; to be settled in on_ready() */
    struct zygote_event end;
    char text[POOL_TEXT_SIZE]; /* why it is unfit; "" if it is not, or did not say */
    uint64_t heard_at_ms;      /* of it; or when it began to have something to say */
    struct page *page;
    int socket_fd;
    int trace_fd; /* its stderr */
    bool wants_write;
    struct list unsent;
    struct list sent;
    size_t written_size; /* bytes of the first unsent hand-off */
    uint8_t *rest;       /* of one that was taken back when a part of it was written; else NULL */
    size_t rest_size;
    size_t rest_written_size;
    uint32_t handed_count;
    uint32_t told_count; /* of those handed: known to run for long */
    struct entry **cells;
    uint32_t *free_cells;
    uint32_t free_count;
    uint8_t *input; /* from its ring: whole frames, then a part of one */
    size_t input_size;
    size_t input_capacity;
    uint64_t dropped_size; /* bytes still to come of a frame that is too large */
    struct trace_tail tail;
    char line[LOG_LINE_SIZE]; /* of its stderr, not yet at its end */
    size_t line_size;
};

struct pool {
    struct executor executor;
    struct runs *runs;
    uint64_t memory_max;
    uint32_t slots;
    uint32_t child_count_max;
    uint32_t thread_count; /* of each child */
    uint32_t cell_count;   /* of each child */
    bool is_threaded;
    bool is_gone; /* the zygote */
    bool has_ended_child;
    int epoll_fd;
    int event_fd;
    struct child **children;
    uint32_t child_count;
    uint32_t next_child; /* who is first at the next hand-out */
    struct list waiting;
    struct list free;
    struct entry *entries;
    uint32_t entry_count_max;
    uint32_t entry_used_count; /* those above were never used */
    struct map by_lease;
    struct map_slot *map_memory;
    uint64_t mean_ns; /* of a handler; 0: not measured */
    uint64_t now_ms;  /* of the last on_ready() */
    uint64_t check_at_ms;
    uint64_t flow_at_ms;
    bool is_unfit;                /* what waits is to fail */
    uint32_t start_failure_count; /* in a row */
    uint64_t start_not_before_ms;
    char start_text[POOL_TEXT_SIZE]; /* what the last one was */
    int start_error;                 /* errno, if no process could be made; else 0 */
    struct writer meta;
    struct handoff handoffs[HANDOFF_COUNT_MAX]; /* for one write */
};

/* ---- pool.c ---- */

uint64_t pool_clock_us(void);

/* Of the attempt with this lease; NULL: it is not here. */
struct entry *pool_find(const struct pool *pool, uint64_t lease);

/* Forgets an attempt, which is in no list any more. */
void pool_forget(struct pool *pool, struct entry *entry);

/* ---- pool_child.c ---- */

/* Starts one more child; false, with pool->start_text and start_error: it did not work out. */
bool pool_child_start(struct pool *pool);

/* Ends it, if it has not ended yet, and takes it out of the pool. Its attempts must have left it.
 */
void pool_child_free(struct child *child);

/* Puts an attempt that is in no list into a free cell; it goes out with the next flush. */
void pool_child_hand(struct child *child, struct entry *entry);

/* Whether there is something to write to it. */
bool pool_child_is_unwritten(const struct child *child);

/* Writes that, as far as it goes at once. */
void pool_child_flush(struct child *child);

/* Takes an attempt away that the child has not begun, into no list. False: it has. (Or half of its
 * hand-off is written, and there is no memory to keep the other half.) */
bool pool_child_recall(struct entry *entry);

/* Takes an attempt out of its cell, into no list: it has ended, or its child has. */
void pool_child_release(struct entry *entry);

/* Reads the ring, but not for ever: at least what it held at the call. Returns the number of
 * frames.
 */
uint32_t pool_child_read(struct child *child);

/* Reads some of its stderr. False: there is no more. */
bool pool_child_read_trace(struct child *child);

/* Asks for its end. */
void pool_child_doom(struct child *child);

/* ---- pool_end.c ---- */

/* A whole frame about `entry`. False: it is damaged. */
bool pool_on_report(struct entry *entry, enum frame_kind kind, struct bytes data);

/* The result is not looked at: it is too large, or memory is out. */
void pool_on_dropped(struct entry *entry, bool is_too_large);

/* The child has ended: its attempts fail or go back, and it is freed. */
void pool_on_ended(struct child *child);

/* A child could not be started, or was of no use; why stands in pool->start_text. */
void pool_on_start_failure(struct pool *pool);

/* No child can be had: what waits fails. */
void pool_fail_waiting(struct pool *pool);

/* The zygote has died: what waits is returned. */
void pool_return_waiting(struct pool *pool);

/* The attempt runs for long. */
void pool_tell_started(struct entry *entry);

#endif
