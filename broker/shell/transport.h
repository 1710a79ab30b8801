/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Sockets: one ROUTER for each endpoint, the table of connections, the monitor that tells of their
 * end.
 *
 * A connection is one life of a peer's transport: a routing id on one endpoint, until its socket is
 * gone. Numbers of connections are below connection_count_max and are used again after
 * transport_forget(). Nothing here blocks but transport_wait(). One thread, beside the monitor's
 * own, which only fills a queue.
 *
 *     transport_wait()       until something arrives, a signal comes, or the time is over
 *     transport_collect()    what the monitor saw, cuts that are due, messages that had no room
 *     transport_receive()    the next message, until it says that there is none
 *     transport_to_check()   connections of which it is time to see whether they have a session
 *     transport_ended()      connections that are gone and have nothing left to receive
 */
#ifndef TREADLE_SHELL_TRANSPORT_H
#define TREADLE_SHELL_TRANSPORT_H

#include "broker/shell/principals.h"
#include "common/base/bytes.h"
#include "common/wire/message.h"

#include <stdbool.h>
#include <stdint.h>

#define ENDPOINT_COUNT_MAX 8U
#define PEER_TEXT_SIZE     64
#define CONNECTION_NONE    UINT32_MAX

struct transport;

struct transport_config {
    const char *endpoints[ENDPOINT_COUNT_MAX]; /* tcp://HOST:PORT or ipc://PATH */
    uint32_t endpoint_count;
    const struct key_pair *server_keys[ENDPOINT_COUNT_MAX]; /* of each; NULL: it is plain */
    uint32_t rights[ENDPOINT_COUNT_MAX]; /* RIGHT_*: what can be done over each at most */
    const struct principals *principals; /* NULL without server keys */
    const struct principal *plain_tcp;   /* who comes over plain TCP, on the loopback; NULL: nobody
                                            may, as off the loopback */
    uint32_t connection_count_max;
    uint64_t frame_size_max; /* a peer that sends a larger frame is cut off by libzmq */
    uint64_t check_span_ms;  /* of transport_to_check(); 0: never */
};

/* Why transport_open() failed: a sysexits code, and "WHERE: why; do THIS". */
struct transport_error {
    int exit_code;
    char text[512];
};

struct transport_counts {
    uint64_t connections_opened;
    uint64_t connections_refused; /* no place, or a routing id of the peer's choice */
    uint64_t connections_cut;
    uint64_t connections_greedy;  /* of those cut: for what libzmq held for them */
    uint64_t connections_silent;  /* of those cut: nothing whole has come from them */
    uint64_t bytes_waiting;       /* now: of messages that wait for their peers to read */
    uint64_t handshakes_admitted; /* of peers with keys */
    uint64_t handshakes_denied;
    uint64_t handshakes_later; /* told to try again */
    uint64_t sends_waited;     /* messages that had to wait for a peer to read */
    uint64_t sends_dropped; /* to peers that were gone, or did not read until they were cut off */
    uint64_t messages_in;
    uint64_t messages_out;
};

/* One message as it came, borrowed until the next transport_receive(). */
struct transport_message {
    uint32_t
        connection; /* CONNECTION_NONE: of a peer that is not listened to; nothing else is set */
    bool is_new;    /* the first of its connection */
    bool is_over_limit; /* more frames than FRAME_COUNT_MAX; those beyond were skipped */
    size_t size;        /* bytes in all frames */
    struct wire_frames frames;
};

/* Binds all endpoints. NULL with *error set; nothing is left behind. The caller blocks the signals
 * it waits for before: libzmq's threads inherit that. */
struct transport *transport_open(const struct transport_config *config,
                                 struct transport_error *error);

/* Ends everything; messages handed to libzmq get linger_ms to leave. Nulls the pointer; NULL inside
 * is fine. */
void transport_close(struct transport **transport, int linger_ms);

/* The endpoint as bound, with the port that was picked. */
const char *transport_endpoint(const struct transport *transport, uint32_t index);

/* Sleeps until there is something to do, signal_fd is readable, or timeout_ms (-1: never) are over.
 */
void transport_wait(struct transport *transport, int signal_fd, int64_t timeout_ms);

void transport_collect(struct transport *transport, uint64_t now_ms);

/* When transport_collect() is due without any event; UINT64_MAX: never. */
uint64_t transport_next_at_ms(const struct transport *transport);

/* False: nothing more is there now. */
bool transport_receive(struct transport *transport, struct transport_message *message);

/* The number of a connection that has ended; false: no more. Call it when transport_receive() had
 * nothing left after transport_collect(), so that what the peer sent last is seen first. The number
 * is taken until transport_forget(). */
bool transport_ended(struct transport *transport, uint32_t *number);
void transport_forget(struct transport *transport, uint32_t number);

/* The number of a connection that is check_span_ms old, or was told as long ago: whoever has no
 * session by now may be cut. False: no more. Peers from which nothing whole has come in that time
 * are cut here. Call it when transport_receive() had nothing left. */
bool transport_to_check(struct transport *transport, uint32_t *number);

/* Copies the frames. What finds no room waits, up to a bound, beyond which the peer is cut off. */
void transport_send(struct transport *transport, uint32_t number, const struct wire_frames *frames);

/* Cuts a connection off, a moment later, so that what was sent may still arrive. From now on
 * nothing is received from it or sent to it; that it has ended is told as always. */
void transport_cut(struct transport *transport, uint32_t number, uint64_t now_ms);

/* The peer's address as text, of any bytes. */
const char *transport_peer(const struct transport *transport, uint32_t connection);

/* Who the peer is, and what it may do as of now: the transport's word, never the peer's. */
const struct principal *transport_principal(const struct transport *transport, uint32_t connection);

/* What of that it may do over its endpoint: RIGHT_*. */
uint32_t transport_rights(const struct transport *transport, uint32_t connection);

/* Another table of who may come in, lent until the next call or transport_close(); the one before
 * is of no use any more. Connections of keys that are gone, or may do less, or are somebody else's
 * now, are cut at once; so are those that have said nothing yet, whose keys nobody knows, when
 * there may be such among them. False: no memory, and nothing has changed. */
bool transport_set_principals(struct transport *transport, const struct principals *principals,
                              uint32_t *cut_count);

/* Ends the thread that lets peers in, for tests: nobody gets in any more. */
void transport_stop_auth(struct transport *transport);

/* Whether any peer is connected, one that has said nothing yet too. */
bool transport_has_peers(const struct transport *transport);

/* What has passed between the broker and one peer's socket. */
struct transport_use {
    uint32_t connection; /* CONNECTION_NONE: nothing whole has come from it */
    uint64_t received;   /* bytes of whole messages, as they are on the wire */
    uint64_t given;      /* the same of what libzmq was given to send */
};

/* False: the descriptor is no peer's of this broker. */
bool transport_find_use(const struct transport *transport, int fd, struct transport_use *use);

/* Shuts the peer's socket down at once, whether it has a connection or not. */
void transport_shut_down(struct transport *transport, int fd);

/* Read-only, for the counters people see. */
const struct transport_counts *transport_counts(const struct transport *transport);

#endif
