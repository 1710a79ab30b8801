/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/guard.h"

#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/shell/sockets.h"
#include "common/base/log.h"

#define LOOK_MS          250U
#define ALARM_LOOK_MS    10U
#define UNEXPLAINED_MAX  (UINT64_C(192) << 20) /* malloc's own share, and what libzmq may hold */
#define GREEDY_SIZE_MIN  (UINT64_C(16) << 20)  /* for less nobody is cut off */
#define SENDING_LOOKS    10U                   /* in a row: unread bytes, and nothing whole came */
#define SILENT_MS        5000U                 /* of an alarm: whoever said nothing whole in it */
#define ALARM_MS         12000U                /* longer it does not last: nobody is to blame */
#define TRIM_GROWTH_SIZE (UINT64_C(64) << 20)  /* free memory is given back when it grew by this */
#define DESCRIPTOR_MAX   65536U

/* What an ipc socket did during an alarm. */
struct suspect {
    ino_t inode;
    uint64_t received; /* when its count began */
    uint32_t look_count;
    uint64_t since_ms;
};

struct guard {
    int statm_fd;
    uint64_t page_size;
    uint64_t rss_max;
    uint64_t rss_at_start;
    uint64_t next_at_ms;
    uint64_t alarm_since_ms;  /* 0: no alarm */
    uint64_t trimmed_size;    /* what was unexplained when free memory was given back last */
    uint64_t tolerated_size;  /* what nobody was to blame for: malloc keeps it */
    ino_t cut_inode;          /* cut off last: libzmq may need a moment to let go of it */
    uint32_t socket_count;    /* looked at last */
    struct suspect *suspects; /* by descriptor */
    struct guard_counts counts;
};

/* 0 if it cannot be told. */
static uint64_t read_rss(const struct guard *guard)
{
    char text[128];
    uint64_t size = 0;
    uint64_t resident = 0;
    const ssize_t count = pread(guard->statm_fd, text, sizeof text - 1, 0);
    if (count <= 0) {
        return 0;
    }
    text[count] = '\0';
    char *end = NULL;
    size = strtoull(text, &end, 10);
    resident = strtoull(end, NULL, 10);
    return size == 0 ? 0 : resident * guard->page_size;
}

struct guard *guard_create(uint64_t rss_max)
{
    struct guard *guard = calloc(1, sizeof *guard);
    if (guard == NULL) {
        return NULL;
    }
    guard->suspects = calloc(DESCRIPTOR_MAX, sizeof *guard->suspects);
    if (guard->suspects == NULL) {
        free(guard);
        return NULL;
    }
    guard->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    guard->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
    guard->rss_max = rss_max;
    guard->rss_at_start = read_rss(guard);
    return guard;
}

void guard_destroy(struct guard **guard_pointer)
{
    struct guard *guard = *guard_pointer;
    if (guard == NULL) {
        return;
    }
    if (guard->statm_fd != -1) {
        (void)close(guard->statm_fd);
    }
    free(guard->suspects);
    free(guard);
    *guard_pointer = NULL;
}

const struct guard_counts *guard_counts(const struct guard *guard)
{
    return &guard->counts;
}

/* ---- who it is ---- */

struct search {
    struct guard *guard;
    struct transport *transport;
    uint64_t now_ms;
    int fd;             /* -1: nobody yet */
    uint64_t held_size; /* for it; 0: it cannot be counted */
    const char *reason;
};

/* What libzmq holds of a TCP peer, in both directions. */
static uint64_t held_size(const struct transport_use *use, const struct socket_bytes *bytes)
{
    const uint64_t taken = bytes->received - bytes->unread;
    const uint64_t in = taken > use->received ? taken - use->received : 0;
    const uint64_t out = use->given > bytes->written ? use->given - bytes->written : 0;
    return in + out;
}

/* Whether an ipc peer goes on sending and nothing whole of it arrives. */
static bool is_suspect(struct search *search, int fd, const struct transport_use *use,
                       const struct socket_bytes *bytes)
{
    if ((uint32_t)fd >= DESCRIPTOR_MAX) {
        return false;
    }
    struct suspect *suspect = &search->guard->suspects[fd];
    const ino_t inode = socket_inode(fd);
    if (suspect->inode != inode || suspect->received != use->received || suspect->since_ms == 0) {
        *suspect =
            (struct suspect){.inode = inode, .received = use->received, .since_ms = search->now_ms};
    }
    suspect->look_count = bytes->unread > 0 ? suspect->look_count + 1 : 0;
    return suspect->look_count >= SENDING_LOOKS || search->now_ms - suspect->since_ms >= SILENT_MS;
}

static void look_at_socket(void *context, int fd)
{
    struct search *search = context;
    struct transport_use use;
    struct socket_bytes bytes;
    search->guard->socket_count++;
    if (socket_inode(fd) == search->guard->cut_inode) {
        return;
    }
    if (!transport_find_use(search->transport, fd, &use) || !socket_read_bytes(fd, &bytes)) {
        return;
    }
    if (bytes.is_counted) {
        const uint64_t size = held_size(&use, &bytes);
        if (size >= GREEDY_SIZE_MIN && size > search->held_size) {
            search->fd = fd;
            search->held_size = size;
        }
    } else if (is_suspect(search, fd, &use, &bytes) && search->fd == -1) {
        search->fd = fd;
    }
}

static bool cut_greediest(struct guard *guard, struct transport *transport, uint64_t now_ms)
{
    struct search search = {.guard = guard, .transport = transport, .now_ms = now_ms, .fd = -1};
    struct transport_use use;
    guard->socket_count = 0;
    sockets_visit(look_at_socket, &search);
    if (search.fd == -1 || !transport_find_use(transport, search.fd, &use)) {
        return false;
    }
    char peer[128];
    const char *address =
        use.connection == CONNECTION_NONE ? "unknown" : transport_peer(transport, use.connection);
    log_warn("session.greedy", "peer=%s held_bytes=%" PRIu64 " rss_bytes=%" PRIu64 " cut=yes",
             log_quote(peer, sizeof peer, address, strlen(address)), search.held_size,
             guard->counts.rss);
    guard->cut_inode = socket_inode(search.fd);
    transport_shut_down(transport, search.fd);
    return true;
}

/* ---- looking ---- */

/* Nobody is to blame: it may be memory that was freed and is still the process's. What stays is
 * borne with, so that looking at all sockets does not become a habit. */
static void give_back(struct guard *guard, uint64_t now_ms)
{
    if (guard->counts.unexplained > guard->trimmed_size + TRIM_GROWTH_SIZE) {
        (void)malloc_trim(0);
        guard->trimmed_size = guard->counts.unexplained;
    }
    if (now_ms - guard->alarm_since_ms > ALARM_MS) {
        guard->tolerated_size = guard->counts.unexplained;
    }
}

static void run_alarm(struct guard *guard, struct transport *transport, uint64_t now_ms)
{
    if (guard->alarm_since_ms == 0) {
        guard->alarm_since_ms = now_ms;
        memset(guard->suspects, 0, DESCRIPTOR_MAX * sizeof *guard->suspects);
    }
    if (!cut_greediest(guard, transport, now_ms)) {
        give_back(guard, now_ms);
    }
}

static void measure(struct guard *guard, uint64_t explained)
{
    struct guard_counts *counts = &guard->counts;
    const uint64_t known = guard->rss_at_start + explained;
    counts->rss = read_rss(guard);
    counts->rss_most = counts->rss > counts->rss_most ? counts->rss : counts->rss_most;
    counts->unexplained = counts->rss > known ? counts->rss - known : 0;
}

bool guard_is_due(const struct guard *guard, uint64_t now_ms)
{
    return now_ms >= guard->next_at_ms;
}

void guard_run(struct guard *guard, struct transport *transport, uint64_t explained,
               uint64_t now_ms)
{
    measure(guard, explained);
    const uint64_t unexplained = guard->counts.unexplained;
    const bool is_over_budget = guard->rss_max != 0 && guard->counts.rss > guard->rss_max;
    const uint64_t limit = is_over_budget ? GREEDY_SIZE_MIN : UNEXPLAINED_MAX;
    guard->tolerated_size =
        unexplained < guard->tolerated_size ? unexplained : guard->tolerated_size;
    guard->trimmed_size = unexplained < guard->trimmed_size ? unexplained : guard->trimmed_size;
    if (unexplained > limit + guard->tolerated_size) {
        run_alarm(guard, transport, now_ms);
    } else {
        guard->alarm_since_ms = 0;
    }
    const bool is_near = unexplained > limit / 2 + guard->tolerated_size;
    guard->next_at_ms = now_ms + (is_near ? ALARM_LOOK_MS + guard->socket_count / 20 : LOOK_MS);
}

uint64_t guard_next_at_ms(const struct guard *guard, const struct transport *transport)
{
    return transport_has_peers(transport) ? guard->next_at_ms : UINT64_MAX;
}
