/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A peer that speaks ZMTP itself, because libzmq is too polite to be greedy: it sends only whole
 * messages, and always reads. Plain, without heartbeats.
 */
#ifndef TREADLE_SUPPORT_RAW_PEER_H
#define TREADLE_SUPPORT_RAW_PEER_H

#include "common/base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

/* A connection to tcp://ADDRESS:PORT or ipc://PATH on which nothing has been said; -1 on failure.
 */
int raw_connect(const char *endpoint);

/* Sends these bytes as they are. False: the connection has ended, or nobody took anything for the
 * timeout. */
bool raw_send(int fd, struct bytes bytes);

/* Connects a DEALER to tcp://ADDRESS:PORT or ipc://PATH and shakes hands. The descriptor, which
 * blocks for at most send_timeout_ms when it sends; -1 on failure. */
int raw_peer_open(const char *endpoint, uint32_t send_timeout_ms);

/* Sends one frame; has_more: the message goes on. False: the connection has ended, or nobody took
 * anything for the timeout. */
bool raw_peer_send(int fd, struct bytes frame, bool has_more);

#endif
