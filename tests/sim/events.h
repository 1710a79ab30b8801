/* SPDX-License-Identifier: MPL-2.0 */
/* What is to happen, by time and then by the order in which it was decided: a heap, and packets
 * that travel in its events. */
#ifndef TREADLE_SIM_EVENTS_H
#define TREADLE_SIM_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/wire/message.h"

enum event_kind {
    EVENT_TO_BROKER,        /* a packet arrives: connection, serial */
    EVENT_TO_PEER,          /* the same */
    EVENT_BROKER_CUT,       /* the broker learns that a connection has ended */
    EVENT_PEER_CUT,         /* the peer does */
    EVENT_CONNECT,          /* a peer connects: peer, its life */
    EVENT_WAKE_PEER,        /* a session's clock: peer */
    EVENT_WAKE_BROKER,      /* the core's clock */
    EVENT_DURABLE,          /* number */
    EVENT_ROUND_END,        /* of the broker, after all that arrived at this instant */
    EVENT_HANDLER_START,    /* number: lease */
    EVENT_HANDLER_PROGRESS, /* number: lease */
    EVENT_HANDLER_END,      /* number: lease */
    EVENT_APPLICATION,      /* a client's application does something: peer */
    EVENT_RESTART,          /* a peer's process begins: peer */
    EVENT_FAULT,            /* number: enum fault */
    EVENT_CALM,             /* no more faults */
};

/* One message on its way: a copy of its frames. */
struct packet {
    struct packet *next; /* free ones */
    size_t capacity;
    struct wire_frames frames;
    struct bytes views[FRAME_COUNT_MAX];
    uint8_t data[];
};

struct event {
    uint64_t at_ms;
    uint64_t order;
    enum event_kind kind;
    uint32_t place;  /* a connection or a peer */
    uint64_t number; /* a serial, a life, a lease ... */
    struct packet *packet;
};

struct event_queue {
    struct event *heap;
    uint32_t count;
    uint32_t capacity;
    uint64_t next_order;
    struct packet *free_packets;
};

/* Adds an event; what was added first happens first at the same instant, but the ends of rounds. */
void event_queue_add(struct event_queue *queue, struct event event);

/* Takes the next event; false: there is none. */
bool event_queue_take(struct event_queue *queue, struct event *event);

/* Copies a message. */
struct packet *packet_take(struct event_queue *queue, const struct wire_frames *frames);
void packet_give(struct event_queue *queue, struct packet *packet);

/* Forgets all events; keeps memory for the next history. */
void event_queue_reset(struct event_queue *queue);
void event_queue_free(struct event_queue *queue);

#endif
