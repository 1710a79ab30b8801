/* SPDX-License-Identifier: MPL-2.0 */
/* A worker, as worker.c makes it and serve.c runs it. */
#ifndef TREADLE_WORKER_STATE_H
#define TREADLE_WORKER_STATE_H

#include "common/transport/credentials.h"
#include "common/transport/transport.h"
#include "worker/exec/executor.h"
#include "worker/exec/functions.h"
#include "worker/exec/runs.h"
#include "worker/exec/zygote.h"
#include "worker/routes.h"
#include "worker/session.h"
#include "worker/worker_internal.h"

#define WORKER_WATCH_COUNT_MAX 4
#define WORKER_ERROR_SIZE      FUNCTION_TEXT_SIZE

/* What the worker's epoll says is ready. */
enum worker_source {
    SOURCE_DRAIN,
    SOURCE_ZYGOTE,
    SOURCE_RUNS,
    SOURCE_EXECUTOR,
    SOURCE_WATCH, /* this one and those after it: a place in `watches` */
};

struct worker_watch {
    void (*on_ready)(void *context);
    void *context;
};

struct treadle_worker {
    /* From the configuration; texts are copies of ours. */
    char *broker;
    char *identity;   /* NULL: not given */
    char *server_key; /* NULL: not given */
    char name[NAME_SIZE_MAX + 1];
    char host[NAME_SIZE_MAX + 1];
    uint32_t slots;
    bool is_threaded;
    uint64_t memory_max;
    uint64_t drain_ms;
    void *note_context;
    void (*on_note)(void *context, const struct worker_note *note);

    /* There from the creation to the end. */
    struct zygote *zygote;
    struct runs *runs;
    char *const **commands; /* as the zygote has them */
    struct function_list functions;
    struct credentials credentials;
    struct routes *routes;
    struct wire_serve *serves; /* for each route */
    struct worker_watch watches[WORKER_WATCH_COUNT_MAX];
    uint32_t watch_count;
    int drain_fd;  /* eventfd: treadle_worker_drain() */
    int zygote_fd; /* pidfd: readable when the zygote has died */
    int epoll_fd;  /* joins all descriptors that are not the transport's */
    char error[WORKER_ERROR_SIZE];

    /* While it serves. */
    struct worker_session *session;
    struct peer_transport *transport;
    struct executor *executors[ROUTE_PLACE_COUNT]; /* NULL: nothing is served there */
    uint64_t reopen_at_ms; /* when the transport is to be opened anew; UINT64_MAX: not */
    bool has_served;
    bool is_apart_told;              /* a person knows that there is no broker */
    enum transport_fault told_fault; /* and why; NONE: not told */
    bool is_draining;                /* told to */
    bool is_done;
    enum treadle_status status; /* what treadle_worker_run() returns */
};

/* Keeps what went wrong, in words. */
__attribute__((format(printf, 2, 3))) void worker_set_error(treadle_worker *worker,
                                                            const char *format, ...);

/* Adds a descriptor to the worker's epoll. */
bool worker_add_source(const treadle_worker *worker, int fd, uint32_t source);

#endif
