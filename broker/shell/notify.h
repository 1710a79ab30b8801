/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What the service manager is told over NOTIFY_SOCKET: ready, reloading, stopping, a line of
 * status, and, where WATCHDOG_USEC asks for it, that the loop still turns. Without a manager all of
 * it does nothing. Instants are of the monotonic clock. One thread.
 */
#ifndef TREADLE_SHELL_NOTIFY_H
#define TREADLE_SHELL_NOTIFY_H

#include <stdint.h>

struct notify {
    uint64_t beat_ms;    /* half of what the watchdog allows; 0: there is none */
    uint64_t beat_at_ms; /* UINT64_MAX: never */
};

/* Reads the environment: before there are threads. */
void notify_init(struct notify *notify, uint64_t monotonic_ms);

/* Usable, or usable again after notify_reloading(). */
void notify_ready(const char *endpoint);

void notify_reloading(void);

/* Ends, once so many tasks have settled or drain_ms have passed. */
void notify_stopping(uint32_t task_count, uint64_t drain_ms);

/* To be called each time the loop comes round. */
void notify_beat(struct notify *notify, uint64_t monotonic_ms);

#endif
