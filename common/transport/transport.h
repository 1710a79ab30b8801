/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A client's or worker's connection: one ZeroMQ context, one DEALER that reconnects by itself, and
 * its monitor, which tells whether there is a connection and why there is none. Nothing here blocks
 * but peer_transport_wait(). One thread.
 */
#ifndef TREADLE_TRANSPORT_H
#define TREADLE_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <treadle/status.h>

#include "common/keys/keys.h"
#include "common/wire/message.h"

struct peer_transport;

#define TRANSPORT_TEXT_SIZE 400

/* What peer_transport_update() saw since the last time; several may be set. */
#define TRANSPORT_CONNECTED    1U /* a connection is there; the one before it, if any, is not */
#define TRANSPORT_DISCONNECTED 2U /* none is there */
#define TRANSPORT_GIVEN_UP                                                                         \
    4U /* this socket does not try again (refused by key, or the two sides do not fit):            \
          peer_transport_reopen() after a while */

/* Why there is no connection. */
enum transport_fault {
    TRANSPORT_FAULT_NONE, /* there is one, or nothing is known yet */
    TRANSPORT_FAULT_UNRESOLVED,
    TRANSPORT_FAULT_NOTHING_LISTENS,
    TRANSPORT_FAULT_UNREACHABLE, /* there is no way to the host; libzmq does not tell */
    TRANSPORT_FAULT_FORBIDDEN,   /* this user may not open the ipc path */
    TRANSPORT_FAULT_NOT_ZEROMQ,
    TRANSPORT_FAULT_SILENT,       /* it takes the connection and says nothing */
    TRANSPORT_FAULT_WANTS_KEYS,   /* and there are none on this side */
    TRANSPORT_FAULT_IS_PLAIN,     /* and there are keys on this side */
    TRANSPORT_FAULT_SERVER_KEY,   /* it has another server key; sometimes: none, or is no ZeroMQ */
    TRANSPORT_FAULT_NOT_ADMITTED, /* by the key of this side */
    TRANSPORT_FAULT_LOST,
    TRANSPORT_FAULT_COUNT,
};

/* What a CURVE connection is made with; all of it must stay until the transport's end. */
struct peer_keys {
    const uint8_t *server_public; /* KEY_SIZE bytes: the broker has to prove that it has it */
    const struct key_pair *identity;
};

/* Opens the sockets and begins to connect, plain if `keys` is NULL. On TREADLE_OK end it with
 * peer_transport_close(). On TREADLE_E_INVALID (not an endpoint) and TREADLE_E_IO, TREADLE_E_NOMEM
 * `text` says why. */
enum treadle_status peer_transport_open(struct peer_transport **out, const char *endpoint,
                                        const struct peer_keys *keys,
                                        char text[TRANSPORT_TEXT_SIZE]);

/* Closes the sockets; what was sent has 1.5 s to leave. NULL inside is fine. */
void peer_transport_close(struct peer_transport **transport_pointer);

/* Begins again with new sockets; messages under way either way are lost. */
enum treadle_status peer_transport_reopen(struct peer_transport *transport);

/* Reads the monitor; call it before peer_transport_receive(). */
unsigned peer_transport_update(struct peer_transport *transport);

/* The next message that has arrived, or NULL. Valid until the next call or the end of the
 * transport. */
const struct wire_frames *peer_transport_receive(struct peer_transport *transport);

/* Whether a message can be sent now. */
bool peer_transport_is_writable(struct peer_transport *transport);

/* Sends a message, copying it; false if there was no connection after all. */
bool peer_transport_send(struct peer_transport *transport, const struct wire_frames *frames);

#define TRANSPORT_READY       1U /* something came, or happened */
#define TRANSPORT_FD          2U /* the caller's descriptor is readable */
#define TRANSPORT_INTERRUPTED 4U

/* Waits for input, the caller's descriptor (-1: none), or, if asked, room to send; -1: without an
 * end. 0: time is up. */
unsigned peer_transport_wait(struct peer_transport *transport, int64_t timeout_ms, int fd,
                             bool for_room);

/* Has these sockets, and those that peer_transport_reopen() makes, wake an epoll descriptor of the
 * caller's: for input, for room and for what the monitor sees. libzmq's descriptors tell of a
 * change once, so after every other call ask peer_transport_has_input(). Until the transport's end.
 * TREADLE_E_IO: nothing is watched, errno says why. */
enum treadle_status peer_transport_watch(struct peer_transport *transport, int epoll_fd);

/* Whether a message or an event of the monitor waits to be taken. */
bool peer_transport_has_input(struct peer_transport *transport);

/* Why there is no connection, in words; "" if there is one or nothing is known yet. */
const char *peer_transport_reason(const struct peer_transport *transport);

/* The same, for programs. */
enum transport_fault peer_transport_fault(const struct peer_transport *transport);

#endif
