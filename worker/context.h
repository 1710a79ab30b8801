/* SPDX-License-Identifier: MPL-2.0 */
/*
 * One run of a function after the other, as its handler sees it: the treadle_context of
 * <treadle/worker.h>. A context belongs to one thread and is used again and again; a run that sets
 * nothing allocates nothing. Knows no process, page or socket: its owner gives it what it needs.
 */
#ifndef TREADLE_WORKER_CONTEXT_H
#define TREADLE_WORKER_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <treadle/worker.h>

#include "common/base/bytes.h"
#include "common/wire/message.h"
#include "worker/session.h"

struct context_config {
    const char *worker;     /* the worker's name; must stay */
    const char *broker;     /* for treadle_context_client(), NULL: its default; must stay */
    const char *identity;   /* for the same; must stay */
    const char *server_key; /* for the same; must stay */
    bool has_client;        /* else treadle_context_client() gives NULL */
    void *owner;            /* given back to the functions below; NULL functions are not called */
    bool (*is_cancelled)(void *owner);
    void (*on_progress)(void *owner); /* context_take_meta() gives what goes with it */
    void (*on_returned)(void *owner); /* right after the handler, before its cleanups */
};

/* How a run ended. Views, valid until the next run. */
struct context_end {
    bool is_success;
    struct bytes body; /* of a success; the rest is of a failure */
    enum failure_kind kind;
    enum retry_choice choice;
    uint64_t retry_delay_ms;
    struct bytes name;
    struct bytes message;
    struct bytes trace;
};

/* NULL when memory is out. */
treadle_context *context_create(const struct context_config *config);

/* Closes its client, if there is one, and nulls the pointer; NULL is fine. */
void context_destroy(treadle_context **context);

/* Runs a handler and then its cleanups. started_at_us: context_now_us(). */
void context_run(treadle_context *context, const struct treadle_handler *handler,
                 const struct worker_attempt *attempt, uint64_t started_at_us,
                 struct context_end *end);

/* True if the meta was changed since this was last asked for: all of it. On the wire none at all
 * means that nothing has changed: if all was removed, the last name that was is given, with an
 * empty value. 1 to META_COUNT_MAX; valid until the meta is changed again, or the next run. */
bool context_take_meta(treadle_context *context, const struct treadle_meta **meta, size_t *count);

/* CLOCK_MONOTONIC, us. */
uint64_t context_now_us(void);

#endif
