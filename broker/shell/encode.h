/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Carries out SEND effects: appends their entries straight into one open message for each
 * connection and kind, with what the core and the store know of the tasks they name, and hands
 * finished messages on. No sockets, no clock.
 *
 *     encoder_open(encoder, connection)     it begins: its messages count from 1, REFUSED is 0
 *     encoder_send(encoder, effect)         each EFFECT_SEND, in order, right after its step
 *     encoder_flush(encoder)                end of a round: hands on all open messages
 *     encoder_close(encoder, connection)    it has ended: what was open for it is dropped
 *
 * Open messages of a connection go out in a fixed order of kinds (ACCEPTED before SETTLED, DISPATCH
 * before RECALL), so that entries of one task never overtake each other; kinds that hold no entries
 * go out at once, after what is open. Bodies over BODY_INLINE_SIZE_MAX are not copied: they stay in
 * the store until the message is handed on. One thread.
 */
#ifndef TREADLE_SHELL_ENCODE_H
#define TREADLE_SHELL_ENCODE_H

#include "broker/core/core.h"
#include "broker/shell/store/store.h"
#include "common/wire/message.h"

#include <stdint.h>

struct encoder;

/* A number of the shell's own, shown with the core's counters. */
struct encoder_counter {
    const char *name;
    const uint64_t *value;
};

struct encoder_config {
    const struct core *core;
    const struct store *store;
    uint8_t broker_id[16];
    const char *version;                    /* at most NAME_SIZE_MAX bytes; outlives the encoder */
    const struct encoder_counter *counters; /* outlive the encoder */
    uint32_t counter_count;

    /* Takes a finished message; the frames are borrowed for the call. It must not call the encoder.
     */
    void (*send)(void *context, uint32_t connection, const struct wire_frames *frames);
    void *context;
};

/* NULL without memory. */
struct encoder *encoder_create(const struct encoder_config *config);

/* Frees everything and nulls the pointer; NULL inside is fine. */
void encoder_destroy(struct encoder **encoder);

void encoder_open(struct encoder *encoder, uint32_t number);
void encoder_close(struct encoder *encoder, uint32_t number);

/* One EFFECT_SEND. An entry that cannot be encoded (no memory) is dropped and counted: the peer
 * asks again. */
void encoder_send(struct encoder *encoder, const struct effect *effect);

/* The shell's own refusal, without the core: a message of the connection could not be read. */
void encoder_refuse(struct encoder *encoder, uint32_t connection, enum refused_code code,
                    const char *text);

void encoder_flush(struct encoder *encoder);
void encoder_flush_connection(struct encoder *encoder, uint32_t number);

/* Entries and messages that could not be encoded. */
uint64_t encoder_dropped_count(const struct encoder *encoder);

#endif
