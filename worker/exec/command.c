/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/list.h"
#include "worker/exec/environment.h"
#include "worker/exec/outcome.h"

#define EVENT_COUNT     64
#define READ_SIZE       65536
#define RESULT_SIZE_MIN 4096

/* How long destroying waits for what was killed, so that none is left as a zombie. */
#define REAP_WAIT_MS 1000

enum watched {
    WATCHED_INPUT,
    WATCHED_RESULT,
    WATCHED_TRACE,
    WATCHED_PROCESS,
    WATCHED_COUNT,
};

/* What epoll hands back: which file descriptor of which run. */
struct watch {
    struct run *run;
    enum watched watched;
    int fd; /* -1: closed */
};

/* One command that runs. */
struct run {
    struct list link; /* commands.running, or commands.ended */
    const struct worker_attempt *attempt;
    uint64_t lease;
    pid_t pid; /* its process group's number too */
    int epoll_fd;
    struct watch watches[WATCHED_COUNT];
    size_t written; /* bytes of the body */
    uint8_t *result;
    size_t result_size;
    size_t result_capacity;
    size_t result_size_max;
    bool is_result_too_large;
    bool is_memory_out;
    uint64_t started_at_us;
    struct trace_tail tail;
};

struct commands {
    struct executor executor;
    char *const *command;
    const char *worker;
    bool is_permanent_exit[EXIT_STATUS_COUNT];
    int epoll_fd;
    struct list running;
    struct list ended; /* events of this round may still name them */
};

static struct commands *commands_of(struct executor *executor)
{
    return container_of(executor, struct commands, executor);
}

static uint64_t clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void close_fd(int *fd)
{
    if (*fd != -1) {
        close(*fd);
        *fd = -1;
    }
}

/* Taken out by hand: epoll keeps a file that a command just started has not closed yet. */
static void unwatch(struct watch *watch)
{
    if (watch->fd != -1) {
        (void)epoll_ctl(watch->run->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
        close_fd(&watch->fd);
    }
}

static void run_destroy(struct run *run)
{
    for (int i = 0; i < WATCHED_COUNT; i++) {
        unwatch(&run->watches[i]);
    }
    free(run->result);
    free(run);
}

static void kill_group(const struct run *run, int signal_number)
{
    (void)kill(-run->pid, signal_number); /* none left is fine */
}

/* ---- starting ---- */

/* A pipe whose end at this side does not block. */
static bool open_pipe(int *ours, int *theirs, bool is_ours_written)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) == -1) {
        return false;
    }
    *ours = fds[is_ours_written ? 1 : 0];
    *theirs = fds[is_ours_written ? 0 : 1];
    return fcntl(*ours, F_SETFL, O_NONBLOCK) != -1;
}

static int set_attributes(posix_spawnattr_t *attributes)
{
    static const int handled[] = {SIGPIPE, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGCHLD};
    sigset_t none;
    sigset_t defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    for (size_t i = 0; i < sizeof(handled) / sizeof(handled[0]); i++) {
        sigaddset(&defaults, handled[i]);
    }
    int error = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
                                                         POSIX_SPAWN_SETSIGMASK);
    error = error != 0 ? error : posix_spawnattr_setpgroup(attributes, 0);
    error = error != 0 ? error : posix_spawnattr_setsigdefault(attributes, &defaults);
    return error != 0 ? error : posix_spawnattr_setsigmask(attributes, &none);
}

/* 0, or the errno that says why there is no process. `ends` are the command's stdin, stdout and
 * stderr. */
static int spawn(const struct commands *commands, struct run *run, const int ends[3],
                 char **environment)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error != 0) {
        return error;
    }
    error = posix_spawnattr_init(&attributes);
    if (error == 0) {
        error = set_attributes(&attributes);
        for (int i = 0; error == 0 && i < 3; i++) {
            error = posix_spawn_file_actions_adddup2(&actions, ends[i], i);
        }
        if (error == 0) {
            error = posix_spawnp(&run->pid, commands->command[0], &actions, &attributes,
                                 commands->command, environment);
        }
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

static int watch_all(const struct commands *commands, struct run *run)
{
    for (int i = 0; i < WATCHED_COUNT; i++) {
        struct watch *watch = &run->watches[i];
        struct epoll_event event = {
            .events = i == WATCHED_INPUT ? EPOLLOUT : EPOLLIN,
            .data.ptr = watch,
        };
        if (epoll_ctl(commands->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) == -1) {
            return errno;
        }
    }
    return 0;
}

/* Makes the process and all that watches it. 0, or the errno that says why not; then nothing of it
 * is left. */
static int launch(const struct commands *commands, struct run *run)
{
    int ends[3] = {-1, -1, -1};
    int error = 0;
    char **environment = environment_create(environ, run->attempt, commands->worker);
    if (environment == NULL) {
        return ENOMEM;
    }
    for (int i = 0; i < 3 && error == 0; i++) {
        if (!open_pipe(&run->watches[i].fd, &ends[i], i == WATCHED_INPUT)) {
            error = errno;
        }
    }
    if (error == 0) {
        error = spawn(commands, run, ends, environment);
    }
    environment_free(environment);
    for (int i = 0; i < 3; i++) {
        close_fd(&ends[i]);
    }
    if (error != 0) {
        return error;
    }
    run->watches[WATCHED_PROCESS].fd = pidfd_open(run->pid, 0);
    error = run->watches[WATCHED_PROCESS].fd == -1 ? errno : watch_all(commands, run);
    if (error != 0) {
        kill_group(run, SIGKILL);
        (void)waitpid(run->pid, NULL, 0);
    }
    return error;
}

/* What passes by itself is worth another attempt; a program that is not there is not. */
static enum failure_kind kind_of_errno(int error)
{
    const bool is_passing =
        error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE || error == ENOSPC;
    return is_passing ? FAILURE_TRANSIENT : FAILURE_PREPARE;
}

static void tell_no_start(struct commands *commands, uint64_t lease, int error)
{
    char name[NAME_SIZE_MAX];
    char message[ERROR_MESSAGE_SIZE_MAX];
    const char *error_name = strerrorname_np(error);
    const char *description = strerrordesc_np(error);
    snprintf(name, sizeof(name), "spawn.%s", error_name != NULL ? error_name : "error");
    snprintf(message, sizeof(message), "cannot run %s: %s", commands->command[0],
             description != NULL ? description : name);
    const struct wire_failure_entry failure = {
        .lease = lease,
        .kind = kind_of_errno(error),
        .name = bytes_from_text(name),
        .message = bytes_from_text(message),
    };
    commands->executor.listener.on_failed(commands->executor.listener.context, &failure);
}

static void start(struct executor *executor, const struct worker_attempt *attempt)
{
    struct commands *commands = commands_of(executor);
    struct run *run = calloc(1, sizeof(*run));
    if (run == NULL) {
        tell_no_start(commands, attempt->lease, ENOMEM);
        return;
    }
    list_init(&run->link);
    for (int i = 0; i < WATCHED_COUNT; i++) {
        run->watches[i] = (struct watch){run, (enum watched)i, -1};
    }
    run->epoll_fd = commands->epoll_fd;
    run->attempt = attempt;
    run->lease = attempt->lease;
    run->result_size_max =
        attempt->result_size_max < BODY_SIZE_LIMIT ? attempt->result_size_max : BODY_SIZE_LIMIT;
    run->started_at_us = clock_us();
    const int error = launch(commands, run);
    if (error != 0) {
        run_destroy(run);
        tell_no_start(commands, attempt->lease, error);
        return;
    }
    list_push_back(&commands->running, &run->link);
    executor->listener.on_started(executor->listener.context, run->lease);
}

/* ---- while it runs ---- */

/* A body left unread is no error: the command had enough of it. */
static void write_body(struct run *run)
{
    struct watch *watch = &run->watches[WATCHED_INPUT];
    const struct bytes body = run->attempt->body;
    while (run->written < body.size) {
        const ssize_t size = write(watch->fd, body.data + run->written, body.size - run->written);
        if (size == -1 && errno == EINTR) {
            continue;
        }
        if (size == -1 && errno == EAGAIN) {
            return;
        }
        if (size == -1) {
            break;
        }
        run->written += (size_t)size;
    }
    unwatch(watch);
}

/* The command writes more than is admitted, or than can be kept: it need not go on. */
static void give_up_result(struct run *run)
{
    unwatch(&run->watches[WATCHED_RESULT]);
    kill_group(run, SIGKILL);
}

static void keep_result(struct run *run, const uint8_t *data, size_t size)
{
    if (size > run->result_size_max - run->result_size) {
        run->is_result_too_large = true;
        give_up_result(run);
        return;
    }
    if (size > run->result_capacity - run->result_size) {
        size_t capacity = run->result_capacity > 0 ? run->result_capacity : RESULT_SIZE_MIN;
        while (capacity < run->result_size + size) {
            capacity *= 2;
        }
        uint8_t *result = realloc(run->result, capacity);
        if (result == NULL) {
            run->is_memory_out = true;
            give_up_result(run);
            return;
        }
        run->result = result;
        run->result_capacity = capacity;
    }
    memcpy(run->result + run->result_size, data, size);
    run->result_size += size;
}

/* Reads at most so much of what is there. */
static void read_output(struct run *run, enum watched watched, size_t size_max)
{
    uint8_t data[READ_SIZE];
    struct watch *watch = &run->watches[watched];
    size_t size_read = 0;
    while (watch->fd != -1 && size_read < size_max) {
        const ssize_t size = read(watch->fd, data, sizeof(data));
        if (size == -1 && errno == EINTR) {
            continue;
        }
        if (size == -1 && errno == EAGAIN) {
            return;
        }
        if (size <= 0) {
            unwatch(watch);
            return;
        }
        size_read += (size_t)size;
        if (watched == WATCHED_TRACE) {
            trace_tail_add(&run->tail, data, (size_t)size);
        } else {
            keep_result(run, data, (size_t)size);
        }
    }
}

/* ---- its end ---- */

/* What was in the pipe when the command ended; what still holds it may write on for ever. */
static void read_rest(struct run *run, enum watched watched)
{
    const int fd = run->watches[watched].fd;
    const int capacity = fd == -1 ? 0 : fcntl(fd, F_GETPIPE_SZ);
    read_output(run, watched, capacity > 0 ? (size_t)capacity : 0);
}

static uint64_t span_ms(struct timeval span)
{
    return (uint64_t)span.tv_sec * 1000 + (uint64_t)span.tv_usec / 1000;
}

/* True: the result cannot be given, and the failure says why. */
static bool judge_result(const struct run *run, struct outcome_texts *texts,
                         struct wire_failure_entry *failure)
{
    if (!run->is_result_too_large && !run->is_memory_out) {
        return false;
    }
    if (run->is_result_too_large) {
        snprintf(texts->message, sizeof(texts->message),
                 "the result is over the limit of %zu bytes", run->result_size_max);
    } else {
        snprintf(texts->message, sizeof(texts->message), "no memory to keep the result");
    }
    failure->kind = FAILURE_FINALIZE;
    failure->name = bytes_from_text(run->is_result_too_large ? "result.size" : "memory");
    failure->message = bytes_from_text(texts->message);
    failure->trace = trace_tail_text(&run->tail);
    return true;
}

static void tell_end(const struct commands *commands, const struct run *run, int wait_state,
                     const struct rusage *usage)
{
    const struct executor_listener *listener = &commands->executor.listener;
    const uint64_t duration_us = clock_us() - run->started_at_us;
    struct outcome_texts texts;
    struct wire_failure_entry failure = {
        .lease = run->lease,
        .duration_ms = duration_us / 1000,
        .user_ms = span_ms(usage->ru_utime),
        .system_ms = span_ms(usage->ru_stime),
        .max_rss_kib = (uint64_t)usage->ru_maxrss,
    };
    if (judge_result(run, &texts, &failure) ||
        !outcome_judge(wait_state, commands->is_permanent_exit, &run->tail, &texts, &failure)) {
        listener->on_failed(listener->context, &failure);
        return;
    }
    const struct wire_success_entry success = {
        .lease = run->lease,
        .duration_us = duration_us,
        .body = {run->result, run->result_size},
    };
    listener->on_succeeded(listener->context, &success);
}

/* The command has ended: so does all of its group, while its number is still its own. */
static void on_process_ended(struct commands *commands, struct run *run)
{
    int wait_state;
    struct rusage usage;
    kill_group(run, SIGKILL);
    read_rest(run, WATCHED_RESULT);
    read_rest(run, WATCHED_TRACE);
    const pid_t pid = wait4(run->pid, &wait_state, WNOHANG, &usage);
    if (pid != run->pid) {
        return; /* not yet, the descriptor stays readable */
    }
    for (int i = 0; i < WATCHED_COUNT; i++) {
        unwatch(&run->watches[i]);
    }
    list_remove(&run->link);
    list_push_back(&commands->ended, &run->link);
    tell_end(commands, run, wait_state, &usage);
}

static void on_watch(struct commands *commands, const struct watch *watch)
{
    if (watch->fd == -1) {
        return; /* closed by an earlier event of this round */
    }
    switch (watch->watched) {
    case WATCHED_INPUT:
        write_body(watch->run);
        return;
    case WATCHED_RESULT:
    case WATCHED_TRACE:
        read_output(watch->run, watch->watched, READ_SIZE);
        return;
    case WATCHED_PROCESS:
        on_process_ended(commands, watch->run);
        return;
    case WATCHED_COUNT:
        return;
    }
}

static void on_ready(struct executor *executor)
{
    struct commands *commands = commands_of(executor);
    struct epoll_event events[EVENT_COUNT];
    const int count = epoll_wait(commands->epoll_fd, events, EVENT_COUNT, 0);
    for (int i = 0; i < count; i++) {
        on_watch(commands, events[i].data.ptr);
    }
    struct list *link;
    while ((link = list_pop_front(&commands->ended)) != NULL) {
        run_destroy(container_of(link, struct run, link));
    }
}

/* ---- the executor ---- */

static void signal_lease(const struct commands *commands, uint64_t lease, int signal_number)
{
    const struct list *head = &commands->running;
    for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
        const struct run *run = container_of(link, struct run, link);
        if (run->lease == lease) {
            kill_group(run, signal_number);
            return;
        }
    }
}

static void cancel(struct executor *executor, uint64_t lease)
{
    signal_lease(commands_of(executor), lease, SIGTERM);
}

static void kill_lease(struct executor *executor, uint64_t lease)
{
    signal_lease(commands_of(executor), lease, SIGKILL);
}

static int fd_of(struct executor *executor)
{
    return commands_of(executor)->epoll_fd;
}

/* The group is killed already; waits only until its leader is gone. */
static void reap(struct run *run)
{
    struct pollfd process = {.fd = run->watches[WATCHED_PROCESS].fd, .events = POLLIN};
    if (poll(&process, 1, REAP_WAIT_MS) == 1) {
        (void)waitpid(run->pid, NULL, WNOHANG);
    }
}

static void destroy(struct executor *executor)
{
    struct commands *commands = commands_of(executor);
    struct list *link;
    while ((link = list_pop_front(&commands->running)) != NULL) {
        kill_group(container_of(link, struct run, link), SIGKILL);
        list_push_back(&commands->ended, link);
    }
    while ((link = list_pop_front(&commands->ended)) != NULL) {
        struct run *run = container_of(link, struct run, link);
        reap(run);
        run_destroy(run);
    }
    close_fd(&commands->epoll_fd);
    free(commands);
}

struct executor *command_executor_create(const struct command_config *config)
{
    static const struct executor_methods methods = {
        .fd = fd_of,
        .on_ready = on_ready,
        .start = start,
        .cancel = cancel,
        .kill = kill_lease,
        .destroy = destroy,
    };
    struct commands *commands = calloc(1, sizeof(*commands));
    if (commands == NULL) {
        return NULL;
    }
    commands->executor = (struct executor){&methods, config->listener};
    commands->command = config->command;
    commands->worker = config->worker;
    memcpy(commands->is_permanent_exit, config->is_permanent_exit,
           sizeof(commands->is_permanent_exit));
    list_init(&commands->running);
    list_init(&commands->ended);
    commands->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (commands->epoll_fd == -1) {
        free(commands);
        return NULL;
    }
    return &commands->executor;
}
