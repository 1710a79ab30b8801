/* SPDX-License-Identifier: MPL-2.0 */
/* What the encoder's two files share: encode.c has the open messages, encode_info.c what people
 * look at. */
#ifndef TREADLE_SHELL_ENCODE_INTERNAL_H
#define TREADLE_SHELL_ENCODE_INTERNAL_H

#include "broker/core/state.h"
#include "broker/shell/encode.h"

/* Kinds whose entries share a message, in the order in which a connection's open messages go out.
 */
enum open_kind {
    OPEN_ACCEPTED,
    OPEN_AWAITED,
    OPEN_CANCELLED,
    OPEN_SETTLED,
    OPEN_RESULT_ACK,
    OPEN_DISPATCH,
    OPEN_RECALL,
    OPEN_CANCEL_ATTEMPT,
    OPEN_KIND_COUNT
};

/* What makes two dispatches share a template. */
struct dispatch_key {
    uint32_t queue;
    uint32_t attempts_max;
    uint64_t timeout_ms;
    uint64_t progress_timeout_ms;
    uint64_t grace_ms;
};

/* A message that still takes entries. */
struct open_message {
    struct open_message *next_free;
    uint64_t first; /* of SETTLED: its first entry's number */
    struct writer entries;
    struct writer templates; /* of DISPATCH */
    struct dispatch_key
        *keys; /* of DISPATCH: those of its templates; room for TEMPLATE_COUNT_MAX */
};

struct encoder_connection {
    struct list link; /* in encoder.active while it has open messages */
    uint64_t number;  /* of its last message */
    bool is_open;
    struct open_message *open[OPEN_KIND_COUNT];
};

/* Rows of an answer that takes many effects. */
struct rows {
    uint32_t connection; /* whose they are; NONE */
    struct writer writer;
};

/* Who serves a service, counted once for all rows of an answer. */
struct service_share {
    uint32_t worker_count;
    uint32_t slot_count;
    uint32_t
        last_session; /* 1 + the session counted last: it may serve many queues of the service */
};

struct encoder {
    struct encoder_config config;
    const struct core *core;
    struct encoder_connection *connections;
    struct list active;
    struct open_message *free_open; /* a stack: the warmest is used next */
    uint32_t free_open_count;
    struct writer out;
    struct writer scratch[4];                /* small lists of one entry or one message */
    struct rows listings[LISTING_COUNT + 1]; /* the last: answers that are not of a listing */
    struct service_share *shares;
    uint64_t dropped_count;
};

/* ---- encode.c ---- */

/* Sends what is open for the connection, then this message; numbers it. */
void encoder_send_message(struct encoder *encoder, uint32_t connection, struct message *message);

struct bytes encoder_name(const struct name *name);
uint64_t encoder_attempts_max(const struct encoder *encoder, const struct task *task);

/* Spans for the wire: SPAN_MAX_MS at most. */
static inline uint64_t encoder_span(uint64_t span_ms)
{
    return span_ms < SPAN_MAX_MS ? span_ms : SPAN_MAX_MS;
}

/* From now until at_ms, at least 0; UINT64_MAX is never: 0. */
static inline uint64_t encoder_left(const struct encoder *encoder, uint64_t at_ms)
{
    const uint64_t now_ms = encoder->core->now_ms;
    return at_ms == UINT64_MAX || at_ms <= now_ms ? 0 : encoder_span(at_ms - now_ms);
}

/* ---- encode_info.c ---- */

void encoder_task_info(struct encoder *encoder, const struct effect *effect);
void encoder_task_page(struct encoder *encoder, const struct effect *effect);
void encoder_worker_info(struct encoder *encoder, const struct effect *effect);
void encoder_service_info(struct encoder *encoder, const struct effect *effect);
void encoder_broker_info(struct encoder *encoder, const struct effect *effect);

/* Forgets the rows of a connection. */
void encoder_drop_rows(struct encoder *encoder, uint32_t connection);

#endif
