/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Watches ROUTERs for connections that begin and end. A thread of its own always drains libzmq's
 * events: one that is not drained would stop the I/O threads. It allocates nothing and logs
 * nothing; it fills a queue.
 */
#ifndef TREADLE_SHELL_MONITOR_H
#define TREADLE_SHELL_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

struct monitor;

/* A connection has begun, or has ended. */
struct monitor_event {
    int fd; /* of its socket; the number may be in use again by now */
    bool has_ended;
};

/* Begins to watch `router_count` (at most ENDPOINT_COUNT_MAX) sockets, before they are bound. NULL
 * on failure. */
struct monitor *monitor_open(void *context, void *const *routers, uint32_t router_count);

/* Ends the thread and nulls the pointer; before the routers are closed. NULL inside is fine. */
void monitor_close(struct monitor **monitor);

/* Readable while monitor_next() has something. */
int monitor_fd(const struct monitor *monitor);

/* False: no more. */
bool monitor_next(struct monitor *monitor, struct monitor_event *event);

/* How many peers are connected, those that have said nothing yet too. */
uint32_t monitor_peer_count(const struct monitor *monitor);

/* Whether events were lost since the last call, because nobody took them in time. */
bool monitor_has_lost(struct monitor *monitor);

#endif
