/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The table of functions that a worker can run: those of the program, then those of its plugins, in
 * the order given. The supervisor never opens a plugin: it asks a child what is in them, and each
 * child of the pool builds the same table anew.
 */
#ifndef TREADLE_WORKER_EXEC_FUNCTIONS_H
#define TREADLE_WORKER_EXEC_FUNCTIONS_H

#include <stddef.h>
#include <stdint.h>

#include <treadle/worker.h>

#include "worker/exec/handler.h"
#include "worker/exec/runs.h"

#define FUNCTION_COUNT_MAX 1024

/* What is known before the fork. */
struct function_sources {
    const struct treadle_handler *handlers; /* the program's own; must stay */
    size_t handler_count;
    const char *const *plugins; /* files; must stay */
    size_t plugin_count;
    const char *broker;     /* for treadle_context_client(); must stay */
    const char *identity;   /* the same; NULL: not given */
    const char *server_key; /* the same; NULL: not given */
    const char *worker;     /* the worker's name; must stay */
};

/* What the supervisor knows of them. Ends with function_list_reset(). */
struct function_list {
    struct handler *handlers; /* HANDLER_FUNCTION; index is the place in the table */
    size_t handler_count;
    char *names; /* what the patterns point into */
};

#define FUNCTION_TEXT_SIZE 1024

/* Starts a child that opens everything and tells, and waits for it, at most 30 s.
 * TREADLE_E_INVALID: a plugin does not load, is no plugin, crashed or has a wrong handler;
 * TREADLE_E_IO, TREADLE_E_NOMEM. `text` says what, where and why. */
enum treadle_status function_list_open(struct function_list *list, struct runs *runs,
                                       char text[FUNCTION_TEXT_SIZE]);

void function_list_reset(struct function_list *list);

/* The child's side of it: opens everything and tells it to `fd`. Returns the exit status. */
int function_list_write(int fd, const struct function_sources *sources);

/* The zygote's child_main, with a struct function_sources as its context. child->index is one of
 * these. */
enum pool_child_kind {
    POOL_CHILD_LIST,    /* fds: where to write the list */
    POOL_CHILD_PROCESS, /* fds: hand-offs, page, eventfd, stderr */
    POOL_CHILD_THREADS, /* the same, and index >> 8 threads */
};
#define POOL_CHILD_KIND_MASK 0xffU

int pool_child_main(void *sources, const struct zygote_child *child);

#endif
