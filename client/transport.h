/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The client's connection: one ZeroMQ context, one DEALER that reconnects by itself, and its
 * monitor, which tells whether there is a connection and why there is none. Nothing here blocks but
 * client_transport_wait(). One thread.
 */
#ifndef TREADLE_CLIENT_TRANSPORT_H
#define TREADLE_CLIENT_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <treadle/status.h>

#include "common/wire/message.h"

struct transport;

#define TRANSPORT_TEXT_SIZE 400

/* What client_transport_update() saw since the last time; several may be set. */
#define TRANSPORT_CONNECTED    1U /* a connection is there; the one before it, if any, is not */
#define TRANSPORT_DISCONNECTED 2U /* none is there */
#define TRANSPORT_NOT_ADMITTED                                                                     \
    4U /* refused by key: this socket does not try again, client_transport_reopen() */

/* Opens the sockets and begins to connect. On TREADLE_OK end it with client_transport_close(). On
 * TREADLE_E_INVALID (not an endpoint) and TREADLE_E_IO, TREADLE_E_NOMEM `text` says why. */
enum treadle_status client_transport_open(struct transport **out, const char *endpoint,
                                          char text[TRANSPORT_TEXT_SIZE]);

/* Closes the sockets; what was sent has 1.5 s to leave. NULL inside is fine. */
void client_transport_close(struct transport **transport_pointer);

/* Begins again with new sockets; messages under way either way are lost. */
enum treadle_status client_transport_reopen(struct transport *transport);

/* Reads the monitor; call it before client_transport_receive(). */
unsigned client_transport_update(struct transport *transport);

/* The next message that has arrived, or NULL. Valid until the next call or the end of the
 * transport. */
const struct wire_frames *client_transport_receive(struct transport *transport);

/* Whether a message can be sent now. */
bool client_transport_is_writable(struct transport *transport);

/* Sends a message, copying it; false if there was no connection after all. */
bool client_transport_send(struct transport *transport, const struct wire_frames *frames);

#define TRANSPORT_READY       1U /* something came, or happened */
#define TRANSPORT_FD          2U /* the caller's descriptor is readable */
#define TRANSPORT_INTERRUPTED 4U

/* Waits for input, the caller's descriptor (-1: none), or, if asked, room to send; -1: without an
 * end. 0: time is up. */
unsigned client_transport_wait(struct transport *transport, int64_t timeout_ms, int fd,
                               bool for_room);

/* Why there is no connection, in words; "" if there is one or nothing is known yet. */
const char *client_transport_reason(const struct transport *transport);

#endif
