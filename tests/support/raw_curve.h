/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A peer that speaks ZMTP 3.0 with CURVE (RFC 26) itself, and can stop at any point of it. libzmq
 * as a peer is too polite: it finishes its handshake, sends only whole messages and answers
 * heartbeats.
 */
#ifndef TREADLE_SUPPORT_RAW_CURVE_H
#define TREADLE_SUPPORT_RAW_CURVE_H

#include "common/base/bytes.h"
#include "common/keys/keys.h"

#include <stdbool.h>
#include <stdint.h>

struct raw_curve_keys {
    const uint8_t *server_key;
    const uint8_t *public_key;
    const uint8_t *secret_key;
};

struct raw_curve {
    int fd;
    uint64_t nonce;
    uint8_t short_public[KEY_SIZE]; /* of this connection only */
    uint8_t short_secret[KEY_SIZE];
    uint8_t server_short[KEY_SIZE]; /* from WELCOME */
    uint8_t cookie[96];
};

/* Connects, shakes hands as a DEALER and waits for READY; it sends and receives for at most
 * timeout_ms. False: it was not let in, and nothing is left open. */
bool raw_curve_open(struct raw_curve *peer, const char *endpoint, const struct raw_curve_keys *keys,
                    uint32_t timeout_ms);

/* The steps of it: greeting and HELLO up to WELCOME; then INITIATE. False: the broker went away.
 * The descriptor is open in any case, or -1. */
bool raw_curve_begin(struct raw_curve *peer, const char *endpoint,
                     const struct raw_curve_keys *keys, uint32_t timeout_ms);
bool raw_curve_initiate(struct raw_curve *peer, const struct raw_curve_keys *keys);

/* Sends one frame; has_more: the message goes on. */
bool raw_curve_send(struct raw_curve *peer, struct bytes frame, bool has_more);

/* Whether the broker has closed or shut the connection down within the span; what it sends until
 * then is read and dropped. */
bool raw_is_ended_within(int fd, int span_ms);

#endif
