/* SPDX-License-Identifier: MPL-2.0 */
/*
 * accept4() of the broker: libzmq's listeners call this one, as the program's symbols go before the
 * C library's. A connection that would take one of the last descriptors is closed at once.
 *
 * Without it libzmq 4.3.4 ends the process when a peer comes to an ipc endpoint and no descriptor
 * is left: its ipc listener takes every error of accept4() for a mistake of its own but a few, and
 * EMFILE is not among them, nor is a kernel without memory. Its TCP listener goes on, but asks
 * again and again without a pause. Who is not admitted could bring that about, with TCP connections
 * that say nothing.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/base/log.h"

#define DESCRIPTORS_KEPT 16U /* for files that are read again, and looks at /proc */
#define LOG_SPAN_MS      60000U

/* <sys/socket.h> is not included: it gives the address a type that is libc's own business. */
struct sockaddr;
int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict size, int flags);

/* An errno that every listener bears, for one that is no mistake of the caller. */
static int bearable(int error_number)
{
    switch (error_number) {
    case EMFILE:
    case ENOBUFS:
    case ENOMEM:
    case EPERM: /* of a firewall, or another guard of the kernel */
    case EACCES:
        return ENFILE;
    default:
        return error_number;
    }
}

/* Once a minute at most, whichever thread it is. */
static void tell(rlim_t most)
{
    static _Atomic uint64_t told_at_ms;
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    const uint64_t now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    uint64_t before_ms = atomic_load(&told_at_ms);
    if ((before_ms == 0 || now_ms >= before_ms + LOG_SPAN_MS) &&
        atomic_compare_exchange_strong(&told_at_ms, &before_ms, now_ms)) {
        log_warn("limits.descriptors",
                 "most=%" PRIuMAX
                 " reason=\"all are in use, and peers are turned away; raise the limit of open "
                 "files\"",
                 (uintmax_t)most);
    }
}

__attribute__((visibility("default"))) int accept4(int fd, struct sockaddr *restrict address,
                                                   socklen_t *restrict size, int flags)
{
    struct rlimit limit;
    const int peer = (int)syscall(SYS_accept4, fd, address, size, flags);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return peer;
    }
    if (peer == -1) {
        const int error_number = errno;
        if (error_number == EMFILE) {
            tell(limit.rlim_cur);
        }
        errno = bearable(error_number);
        return -1;
    }
    if ((rlim_t)peer + DESCRIPTORS_KEPT < limit.rlim_cur) {
        return peer;
    }
    (void)close(peer);
    tell(limit.rlim_cur);
    errno = ECONNABORTED;
    return -1;
}
