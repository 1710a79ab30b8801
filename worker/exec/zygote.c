/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/zygote.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "worker/exec/zygote_process.h"

/* Above the largest message, and below what every kernel grants by default. */
#define SEND_BUFFER_SIZE 196608

/* TSan's runtime has a thread of its own, which it stops around fork(). */
#if defined(__SANITIZE_THREAD__)
#define THREAD_COUNT_MAX 2
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_COUNT_MAX 2
#endif
#endif
#ifndef THREAD_COUNT_MAX
#define THREAD_COUNT_MAX 1
#endif

/* A message to the zygote, and what has to wait until its socket has room. */
struct pending {
    struct pending *next;
    int fds[ZYGOTE_FD_COUNT_MAX];
    uint32_t fd_count;
    size_t size;
    struct zygote_request request; /* here the message begins */
    char environment[];
};
_Static_assert(offsetof(struct pending, environment) ==
                   offsetof(struct pending, request) + sizeof(struct zygote_request),
               "a message is in one piece");

struct zygote {
    pid_t supervisor; /* who opened it: a copy that a fork made is not to end it */
    pid_t pid;
    int pid_fd;
    int socket_fd;
    int epoll_fd;                  /* socket_fd, for writing too while something is pending */
    struct pending *first_pending; /* NULL: none */
    struct pending *last_pending;
    bool is_gone;      /* the socket is of no use any more */
    bool is_gone_told; /* as an event */
};

/* ---- making ---- */

/* 0: nobody can tell. */
static uint32_t thread_count(void)
{
    uint32_t count = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) {
        return 0;
    }
    const struct dirent *entry;
    while ((entry = readdir(tasks)) != NULL) { /* NOLINT(concurrency-mt-unsafe): its own DIR */
        if (entry->d_name[0] != '.') {
            count++;
        }
    }
    closedir(tasks);
    return count;
}

static void close_fd(int *fd)
{
    if (*fd != -1) {
        close(*fd);
        *fd = -1;
    }
}

static bool watch_socket(const struct zygote *zygote)
{
    struct epoll_event event = {.events =
                                    zygote->first_pending == NULL ? EPOLLIN : EPOLLIN | EPOLLOUT};
    return epoll_ctl(zygote->epoll_fd, EPOLL_CTL_MOD, zygote->socket_fd, &event) == 0;
}

/* The zygote has all signals blocked from its first moment: one that comes to the whole process
 * group just now must not end it. */
static pid_t fork_zygote(const struct zygote_config *config, int socket_fd)
{
    const pid_t supervisor = getpid();
    sigset_t all;
    sigset_t usual;
    sigfillset(&all);
    (void)fflush(stdout); /* what is buffered must not be written again by a child */
    if (pthread_sigmask(SIG_SETMASK, &all, &usual) != 0) {
        return -1;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        zygote_process_run(config, socket_fd, supervisor);
    }
    const int error = errno;
    if (pid > 0) {
        (void)setpgid(pid, pid); /* whoever of the two comes first */
    }
    (void)pthread_sigmask(SIG_SETMASK, &usual, NULL);
    errno = error;
    return pid;
}

/* What is opened here, or later for a run, must not take the place of an output that is closed:
 * words written there would reach it. */
static bool provide_standard_fds(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd != -1 && fd <= STDERR_FILENO) {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    }
    if (fd != -1) {
        close(fd);
    }
    return fd != -1;
}

/* Nothing is left of it on a failure (errno). */
static bool open_zygote(struct zygote *zygote, const struct zygote_config *config)
{
    int pair[2];
    if (!provide_standard_fds() ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == -1) {
        return false;
    }
    const int size = SEND_BUFFER_SIZE;
    struct epoll_event event = {.events = EPOLLIN};
    zygote->socket_fd = pair[0];
    zygote->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    bool is_fine = zygote->epoll_fd != -1 && fcntl(pair[0], F_SETFL, O_NONBLOCK) != -1 &&
                   setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) != -1 &&
                   epoll_ctl(zygote->epoll_fd, EPOLL_CTL_ADD, pair[0], &event) != -1;
    if (is_fine) {
        zygote->pid = fork_zygote(config, pair[1]);
        is_fine = zygote->pid != -1;
    }
    const int error = errno;
    close(pair[1]);
    errno = error;
    if (is_fine) {
        zygote->pid_fd = pidfd_open(zygote->pid, 0);
        is_fine = zygote->pid_fd != -1;
    }
    return is_fine;
}

enum treadle_status zygote_open(struct zygote **zygote, const struct zygote_config *config)
{
    const uint32_t threads = thread_count();
    if (threads == 0) {
        return TREADLE_E_IO;
    }
    if (threads > THREAD_COUNT_MAX) {
        return TREADLE_E_THREADS;
    }
    struct zygote *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return TREADLE_E_NOMEM;
    }
    made->supervisor = getpid();
    made->pid = -1;
    made->pid_fd = -1;
    made->socket_fd = -1;
    made->epoll_fd = -1;
    if (!open_zygote(made, config)) {
        const int error = errno;
        zygote_close(&made);
        errno = error;
        return TREADLE_E_IO;
    }
    *zygote = made;
    return TREADLE_OK;
}

/* ---- sending ---- */

static void pending_free(struct pending *pending, bool has_own_fds)
{
    for (uint32_t i = 0; has_own_fds && i < pending->fd_count; i++) {
        close_fd(&pending->fds[i]);
    }
    free(pending);
}

/* NULL: memory is out. */
static struct pending *pending_create(const struct zygote_request *request)
{
    struct pending *pending = calloc(1, sizeof(*pending) + request->environment_size);
    if (pending != NULL) {
        pending->request = *request;
        pending->size = sizeof(*request) + request->environment_size;
    }
    return pending;
}

/* True: it was sent. False: errno, EAGAIN if there is no room for it now. */
static bool send_pending(const struct zygote *zygote, struct pending *pending)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(pending->fds))];
    } control = {.bytes = {0}};
    struct iovec part = {&pending->request, pending->size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (pending->fd_count > 0) {
        const size_t fds_size = pending->fd_count * sizeof(int);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(fds_size);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(fds_size);
        memcpy(CMSG_DATA(&control.header), pending->fds, fds_size);
    }
    ssize_t size;
    do {
        size = sendmsg(zygote->socket_fd, &message, MSG_NOSIGNAL);
    } while (size == -1 && errno == EINTR);
    if (size == -1 && (errno == ETOOMANYREFS || errno == ENOBUFS || errno == ENOMEM)) {
        errno = EAGAIN; /* too many descriptors under way, or no memory: both pass */
    }
    return size != -1;
}

/* The first of those that wait is done with. */
static void drop_pending(struct zygote *zygote)
{
    struct pending *pending = zygote->first_pending;
    zygote->first_pending = pending->next;
    pending_free(pending, true);
}

static void drop_all_pending(struct zygote *zygote)
{
    while (zygote->first_pending != NULL) {
        drop_pending(zygote);
    }
}

/* What cannot be asked for any more must not go on: at the end of file the zygote ends all. The
 * event comes when it has. */
static void give_up(struct zygote *zygote)
{
    drop_all_pending(zygote);
    zygote->is_gone = true;
    (void)shutdown(zygote->socket_fd, SHUT_WR);
    (void)watch_socket(zygote);
}

static void send_all_pending(struct zygote *zygote)
{
    if (zygote->first_pending == NULL) {
        return;
    }
    while (zygote->first_pending != NULL) {
        if (!send_pending(zygote, zygote->first_pending)) {
            if (errno != EAGAIN) {
                give_up(zygote);
            }
            return;
        }
        drop_pending(zygote);
    }
    (void)watch_socket(zygote);
}

/* Keeps it until there is room, with descriptors of its own. */
static enum treadle_status queue_pending(struct zygote *zygote, struct pending *pending)
{
    const uint32_t fd_count = pending->fd_count;
    for (uint32_t i = 0; i < fd_count; i++) {
        pending->fd_count = i; /* those that are its own */
        pending->fds[i] = fcntl(pending->fds[i], F_DUPFD_CLOEXEC, 0);
        if (pending->fds[i] == -1) {
            pending_free(pending, true);
            return TREADLE_E_NOMEM;
        }
    }
    pending->fd_count = fd_count;
    if (zygote->first_pending == NULL) {
        zygote->first_pending = pending;
    } else {
        zygote->last_pending->next = pending;
    }
    zygote->last_pending = pending;
    (void)watch_socket(zygote);
    return TREADLE_OK;
}

/* Takes what is given, sent or not; its descriptors are borrowed. */
static enum treadle_status send_or_queue(struct zygote *zygote, struct pending *pending)
{
    if (zygote->first_pending == NULL) {
        if (send_pending(zygote, pending)) {
            pending_free(pending, false);
            return TREADLE_OK;
        }
        if (errno != EAGAIN) {
            pending_free(pending, false);
            give_up(zygote);
            return TREADLE_E_IO;
        }
    }
    return queue_pending(zygote, pending);
}

static size_t environment_size(char *const *environment)
{
    size_t size = 0;
    for (char *const *variable = environment; variable != NULL && *variable != NULL; variable++) {
        size += strlen(*variable) + 1;
    }
    return size;
}

enum treadle_status zygote_start(struct zygote *zygote, const struct zygote_start *start)
{
    TREADLE_ASSERT(start->run > 0 && start->fd_count <= ZYGOTE_FD_COUNT_MAX);
    TREADLE_ASSERT(start->kind != ZYGOTE_COMMAND || start->fd_count == 3);
    const size_t size = environment_size(start->environment);
    if (size > ZYGOTE_ENVIRONMENT_SIZE_MAX) {
        return TREADLE_E_LIMIT;
    }
    if (zygote->is_gone) {
        return TREADLE_E_IO;
    }
    struct pending *pending = pending_create(&(struct zygote_request){
        .kind = ZYGOTE_REQUEST_START,
        .run_kind = start->kind,
        .run = start->run,
        .memory_max = start->memory_max,
        .index = start->index,
        .fd_count = start->fd_count,
        .environment_size = (uint32_t)size,
    });
    if (pending == NULL) {
        return TREADLE_E_NOMEM;
    }
    char *end = pending->environment;
    for (char *const *variable = start->environment; size > 0 && *variable != NULL; variable++) {
        const size_t variable_size = strlen(*variable) + 1;
        memcpy(end, *variable, variable_size);
        end += variable_size;
    }
    pending->fd_count = start->fd_count;
    memcpy(pending->fds, start->fds, sizeof(pending->fds));
    return send_or_queue(zygote, pending);
}

void zygote_signal(struct zygote *zygote, uint64_t run, int signal_number)
{
    if (zygote->is_gone) {
        return;
    }
    struct pending *pending = pending_create(&(struct zygote_request){
        .kind = ZYGOTE_REQUEST_SIGNAL,
        .run = run,
        .signal_number = signal_number,
    });
    if (pending == NULL) {
        give_up(zygote); /* a kill that is not heard would let it run for ever */
        return;
    }
    (void)send_or_queue(zygote, pending);
}

/* ---- what it tells ---- */

int zygote_fd(const struct zygote *zygote)
{
    return zygote->epoll_fd;
}

bool zygote_next_event(struct zygote *zygote, struct zygote_event *event)
{
    if (zygote->is_gone_told) {
        return false;
    }
    send_all_pending(zygote);
    ssize_t size;
    do {
        size = recv(zygote->socket_fd, event, sizeof(*event), 0);
    } while (size == -1 && errno == EINTR);
    if (size == (ssize_t)sizeof(*event)) {
        return true;
    }
    if (size == -1 && errno == EAGAIN) {
        return false;
    }
    give_up(zygote);
    zygote->is_gone_told = true;
    (void)epoll_ctl(zygote->epoll_fd, EPOLL_CTL_DEL, zygote->socket_fd, NULL);
    *event = (struct zygote_event){.kind = ZYGOTE_EVENT_GONE};
    return true;
}

pid_t zygote_pid(const struct zygote *zygote)
{
    return zygote->pid;
}

/* ---- its end ---- */

void zygote_close(struct zygote **zygote)
{
    struct zygote *closed = *zygote;
    if (closed == NULL) {
        return;
    }
    const bool is_ours = closed->supervisor == getpid();
    drop_all_pending(closed);
    close_fd(&closed->socket_fd); /* by which it ends */
    if (is_ours && closed->pid_fd != -1) {
        struct pollfd ended = {.fd = closed->pid_fd, .events = POLLIN};
        int count;
        do {
            count = poll(&ended, 1, ZYGOTE_CLOSE_MS);
        } while (count == -1 && errno == EINTR);
        if (count != 1) {
            (void)pidfd_send_signal(closed->pid_fd, SIGKILL, NULL, 0);
        }
    }
    if (is_ours && closed->pid > 0) {
        (void)waitpid(closed->pid, NULL, 0);
    }
    close_fd(&closed->pid_fd);
    close_fd(&closed->epoll_fd);
    free(closed);
    *zygote = NULL;
}
