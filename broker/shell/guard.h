/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Watches the memory that nobody accounts for. libzmq holds whole messages that were not received
 * yet, and parts of messages without a bound (its watermark counts whole ones), and tells of
 * neither. So the process's memory is compared with what the broker knows of; when too much is
 * unexplained, the peer that libzmq holds the most for is cut off.
 *
 * TCP sockets count their bytes: what came in less what was received, what was given less what went
 * out, is what libzmq holds. Those of ipc count nothing: there it is the peer that goes on sending
 * and from which nothing whole arrives. One thread.
 */
#ifndef TREADLE_SHELL_GUARD_H
#define TREADLE_SHELL_GUARD_H

#include "broker/shell/transport.h"

#include <stdbool.h>
#include <stdint.h>

struct guard;

struct guard_counts {
    uint64_t rss;         /* bytes, as last seen */
    uint64_t rss_most;    /* since the start */
    uint64_t unexplained; /* of rss, as last seen */
};

/* rss_max: of the whole process, bytes; 0: none. NULL without memory. */
struct guard *guard_create(uint64_t rss_max);

/* Frees everything and nulls the pointer; NULL inside is fine. */
void guard_destroy(struct guard **guard);

/* Whether guard_run() is due: to be asked once a round. */
bool guard_is_due(const struct guard *guard, uint64_t now_ms);

/* Looks. `explained`: bytes that the broker knows of, beside what it had at the start. */
void guard_run(struct guard *guard, struct transport *transport, uint64_t explained,
               uint64_t now_ms);

/* When guard_run() is due without any event; UINT64_MAX: never. */
uint64_t guard_next_at_ms(const struct guard *guard, const struct transport *transport);

/* Read-only, for the counters people see. */
const struct guard_counts *guard_counts(const struct guard *guard);

#endif
