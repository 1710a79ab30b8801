/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The descriptor that an application polls instead of waiting in a call of the client: an epoll
 * descriptor over the transport's sockets, a timer, and a switch that says "now". Level-triggered:
 * it stays readable until wakeup_at() says that there is nothing to do. One thread.
 */
#ifndef TREADLE_CLIENT_WAKEUP_H
#define TREADLE_CLIENT_WAKEUP_H

#include <stdbool.h>
#include <stdint.h>

#include <treadle/status.h>

struct wakeup {
    int epoll_fd; /* what is polled; -1: not open. Others may add descriptors to it */
    int timer_fd;
    int now_fd;
    bool is_now;          /* the switch is on */
    uint64_t timer_at_ms; /* UINT64_MAX: off */
};

/* Not open yet. */
void wakeup_init(struct wakeup *wakeup);

/* TREADLE_E_IO (errno says why): it is as before. End it with wakeup_close(). */
enum treadle_status wakeup_open(struct wakeup *wakeup);

/* Also for one that is not open. */
void wakeup_close(struct wakeup *wakeup);

static inline bool wakeup_is_open(const struct wakeup *wakeup)
{
    return wakeup->epoll_fd >= 0;
}

/* Readable from now on. */
void wakeup_now(struct wakeup *wakeup);

/* Not readable before at_ms (CLOCK_MONOTONIC; UINT64_MAX: never), but for the descriptors that
 * others added; now and then it is, once, at an earlier time that was asked for before. */
void wakeup_at(struct wakeup *wakeup, uint64_t now_ms, uint64_t at_ms);

#endif
