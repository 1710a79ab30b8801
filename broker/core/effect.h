/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What the core wants done: an ordered list of effects, to be carried out before the next step
 * (they may point into the input's message and into the core).
 */
#ifndef TREADLE_CORE_EFFECT_H
#define TREADLE_CORE_EFFECT_H

#include "broker/core/rights.h"
#include "common/base/assert.h"
#include "common/base/bytes.h"
#include "common/wire/message.h"

#include <stdint.h>

#define EFFECT_COUNT_MAX 4096U
#define NONE             UINT32_MAX

enum effect_kind {
    EFFECT_SEND, /* one entry of a message to a connection; entries of one kind may share a message
                  */
    EFFECT_PERSIST, /* one record for the store, number `number` */
    EFFECT_CLOSE,   /* cut the connection */
    EFFECT_RELOAD,  /* read the configuration again, then answer */
    EFFECT_LOG,     /* an event for people */
};

/* Records for the store. `sequence` names the task in all of them. */
enum record_kind {
    RECORD_ACCEPTED,       /* template, body, task */
    RECORD_DISPATCHED,     /* lease */
    RECORD_ATTEMPT_FAILED, /* failure (NULL: the broker's own verdict), reason = failure kind,
                              attempt, value = its retry index */
    RECORD_META,           /* meta: replaces the task's */
    RECORD_CANCEL_INTENT,
    RECORD_SETTLED,        /* status = outcome, reason = failure kind, body = result */
    RECORD_RESULT_DROPPED, /* the result was acknowledged and need not be kept */
    RECORD_DROPPED,        /* nothing of the task need be kept */
    RECORD_KIND_COUNT
};

/* X(NAME, "event") */
#define LOG_EVENTS(X)                                                                              \
    X(LOG_SESSION_OPENED, "session.opened")                                                        \
    X(LOG_SESSION_RESUMED, "session.resumed")                                                      \
    X(LOG_SESSION_LOST, "session.lost")                                                            \
    X(LOG_SESSION_ENDED, "session.ended")                                                          \
    X(LOG_TASK_ACCEPTED, "task.accepted")                                                          \
    X(LOG_TASK_DISPATCHED, "task.dispatched")                                                      \
    X(LOG_TASK_SUCCEEDED, "task.succeeded")                                                        \
    X(LOG_TASK_FAILED, "task.failed")                                                              \
    X(LOG_TASK_RETRYING, "task.retrying")                                                          \
    X(LOG_TASK_CANCELLED, "task.cancelled")                                                        \
    X(LOG_TASK_EXPIRED, "task.expired")                                                            \
    X(LOG_ATTEMPT_FAILED, "attempt.failed")                                                        \
    X(LOG_ATTEMPT_LATE, "attempt.late")                                                            \
    X(LOG_BREAKER_OPENED, "breaker.opened")                                                        \
    X(LOG_BREAKER_PROBING, "breaker.probing")                                                      \
    X(LOG_BREAKER_CLOSED, "breaker.closed")                                                        \
    X(LOG_SERVICE_PAUSED, "service.paused")                                                        \
    X(LOG_SERVICE_RESUMED, "service.resumed")                                                      \
    X(LOG_BROKER_DRAINING, "broker.draining")
#define LOG_EVENT_VALUE(name, text) name,
enum log_event { LOG_EVENTS(LOG_EVENT_VALUE) LOG_EVENT_COUNT };
#undef LOG_EVENT_VALUE

/* clang-format off */
/*
 * The fields an effect uses, by kind and code (others are zero or NONE):
 *
 *  SEND `code` is a message kind, `connection` where to:
 *   WELCOME         session, value = hello number, number = dispatches so far, status = is_resumed,
 *                   reason = RIGHT_* bits of its key, services = those it has them to (NULL: none)
 *   REFUSED         status = refused_code, value = retry_after_ms, body = text
 *   HEARTBEAT, GOODBYE, DRAIN
 *   ACCEPTED        id, status, reason, value = retry_after_ms
 *   SETTLED         task, number = the entry's number in its session's delivery (gaps are possible)
 *   AWAITED, CANCELLED          id, status
 *   DISPATCH        task, attempt
 *   RESULT_ACK      number = lease, status = is_stale
 *   RECALL, CANCEL_ATTEMPT      number = lease
 *   TASK_INFO       task (NONE: status says why), id, number = request, status, reason,
 *                   value = reason_left_ms
 *   TASK_PAGE       listing = which of the listings; is_last 0: a row (task, status = wait reason);
 *                   is_last 1: the end (number = request, value = token, status = done_status)
 *   WORKER_INFO     listing; is_last 0: a row (session, services = those of which it is shown what it
 *                   serves; NULL: all); is_last 1: the end (number, status)
 *   SERVICE_INFO    is_last 0: a row (service); is_last 1: the end (number = request, status)
 *   BROKER_INFO     number = request
 *   DONE            number = request, status, value = count
 *  PERSIST `code` is a record kind, number = the record's (from 1, without a gap), task, attempt, sequence;
 *          of RECORD_ATTEMPT_FAILED value = the retry index of the attempt that failed
 *  CLOSE   connection
 *  RELOAD  connection, number = request: the shell answers DONE, with the status of what came of it
 *          and how many settings changed
 *  LOG     `code` is a log event; session, task, attempt, service, status, value as the event needs
 */
/* clang-format on */
struct effect {
    uint8_t kind;
    uint8_t code;
    uint8_t status;
    uint8_t reason;
    uint8_t is_last;
    uint8_t listing;
    uint32_t connection;
    uint32_t session;
    uint32_t task;
    uint32_t attempt;
    uint32_t service;
    uint64_t number;
    uint64_t sequence;
    uint64_t value;
    struct treadle_task_id id;
    struct bytes body;
    const struct wire_submit_template *template; /* of RECORD_ACCEPTED */
    const struct wire_failure_entry
        *failure;                 /* of RECORD_ATTEMPT_FAILED; NULL: the broker's verdict */
    const struct wire_list *meta; /* of RECORD_META */
    const struct globs *services;
};

struct effects {
    uint32_t count;
    struct effect at[EFFECT_COUNT_MAX];
    /* What effects point to beside the input. */
    uint32_t failure_count;
    struct wire_failure_entry failures[ENTRY_COUNT_MAX];
    uint32_t meta_count;
    struct wire_list metas[ENTRY_COUNT_MAX];
};

static inline void effects_reset(struct effects *effects)
{
    effects->count = 0;
    effects->failure_count = 0;
    effects->meta_count = 0;
}

static inline uint32_t effects_room(const struct effects *effects)
{
    return EFFECT_COUNT_MAX - effects->count;
}

/* A new effect at the end of the list, with nothing set but its kind and code. The core keeps
 * within the bound. */
static inline struct effect *effects_add(struct effects *effects, enum effect_kind kind, int code)
{
    TREADLE_ASSERT(effects->count < EFFECT_COUNT_MAX);
    struct effect *effect = &effects->at[effects->count];
    effects->count++;
    *effect = (struct effect){.kind = (uint8_t)kind,
                              .code = (uint8_t)code,
                              .connection = NONE,
                              .session = NONE,
                              .task = NONE,
                              .attempt = NONE,
                              .service = NONE};
    return effect;
}

#endif
