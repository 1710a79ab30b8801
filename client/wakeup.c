/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE /* close, read, write */
#include "client/wakeup.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/base/assert.h"

void wakeup_init(struct wakeup *wakeup)
{
    *wakeup =
        (struct wakeup){.epoll_fd = -1, .timer_fd = -1, .now_fd = -1, .timer_at_ms = UINT64_MAX};
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

void wakeup_close(struct wakeup *wakeup)
{
    close_fd(&wakeup->epoll_fd);
    close_fd(&wakeup->timer_fd);
    close_fd(&wakeup->now_fd);
    wakeup_init(wakeup);
}

static bool add(const struct wakeup *wakeup, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    return fd >= 0 && epoll_ctl(wakeup->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

enum treadle_status wakeup_open(struct wakeup *wakeup)
{
    TREADLE_ASSERT(!wakeup_is_open(wakeup));
    wakeup->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    wakeup->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    wakeup->now_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wakeup->epoll_fd < 0 || !add(wakeup, wakeup->timer_fd) || !add(wakeup, wakeup->now_fd)) {
        const int error = errno;
        wakeup_close(wakeup);
        errno = error;
        return TREADLE_E_IO;
    }
    return TREADLE_OK;
}

void wakeup_now(struct wakeup *wakeup)
{
    const uint64_t one = 1;
    if (!wakeup->is_now) {
        wakeup->is_now = write(wakeup->now_fd, &one, sizeof(one)) == (ssize_t)sizeof(one);
    }
}

static void switch_off(struct wakeup *wakeup)
{
    uint64_t count = 0;
    if (wakeup->is_now) {
        wakeup->is_now = read(wakeup->now_fd, &count, sizeof(count)) != (ssize_t)sizeof(count);
    }
}

void wakeup_at(struct wakeup *wakeup, uint64_t now_ms, uint64_t at_ms)
{
    switch_off(wakeup);
    /* One that is still to come, and not too late, is left as it is: the time to wait until moves
     * with every message, and this is a system call. */
    if (wakeup->timer_at_ms > now_ms && wakeup->timer_at_ms <= at_ms) {
        return;
    }
    const struct itimerspec when = {
        .it_value =
            {
                .tv_sec = at_ms == UINT64_MAX ? 0 : (time_t)(at_ms / 1000),
                .tv_nsec = at_ms == UINT64_MAX ? 0 : (long)(at_ms % 1000) * 1000000,
            },
    };
    (void)timerfd_settime(wakeup->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    wakeup->timer_at_ms = at_ms;
}
