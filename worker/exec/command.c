/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "common/base/list.h"
#include "worker/exec/environment.h"
#include "worker/exec/outcome.h"

#define EVENT_COUNT     64
#define READ_SIZE       65536
#define RESULT_SIZE_MIN 4096

enum watched {
    WATCHED_INPUT,
    WATCHED_RESULT,
    WATCHED_TRACE,
    WATCHED_COUNT,
};

/* What epoll hands back: which file descriptor of which run. */
struct watch {
    struct run *run;
    enum watched watched;
    int fd; /* -1: closed */
};

/* One attempt that was taken in. */
struct run {
    struct list link; /* commands.waiting, .running or .ended */
    struct list news; /* commands.news, when the zygote has told something */
    struct commands *commands;
    struct run_link run_link;
    const struct worker_attempt *attempt;
    const struct handler *handler;
    uint64_t lease;
    struct watch watches[WATCHED_COUNT];
    size_t written; /* bytes of the body */
    uint8_t *result;
    size_t result_size;
    size_t result_capacity;
    size_t result_size_max;
    bool is_result_too_large;
    bool is_memory_out;
    bool is_started;         /* STARTED came */
    bool is_start_told;      /* to the listener */
    bool is_over;            /* the event of its end came */
    struct zygote_event end; /* this one */
    uint64_t started_at_us;
    struct trace_tail tail;
};

struct commands {
    struct executor executor;
    struct command_config config;
    int epoll_fd;
    uint32_t running_count;
    bool is_gone;        /* there is no zygote any more */
    struct list waiting; /* for one of the slots */
    struct list running;
    struct list news;
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
        (void)epoll_ctl(watch->run->commands->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
        close_fd(&watch->fd);
    }
}

/* What of it still runs is killed. */
static void run_destroy(struct run *run)
{
    runs_abandon(run->commands->config.runs, &run->run_link);
    list_remove(&run->news);
    for (int i = 0; i < WATCHED_COUNT; i++) {
        unwatch(&run->watches[i]);
    }
    free(run->result);
    free(run);
}

static void destroy_runs(struct list *head)
{
    struct list *next;
    for (struct list *link = list_first(head); link != NULL; link = next) {
        next = list_next(head, link);
        list_remove(link);
        run_destroy(container_of(link, struct run, link));
    }
}

static void kill_run(const struct run *run)
{
    runs_signal(run->commands->config.runs, &run->run_link, SIGKILL);
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

static int errno_of_status(enum treadle_status status)
{
    if (status == TREADLE_OK) {
        return 0;
    }
    if (status == TREADLE_E_IO) {
        return EPIPE;
    }
    return status == TREADLE_E_LIMIT ? E2BIG : ENOMEM;
}

/* 0, or the errno that says why it was not asked for: EPIPE if there is no zygote. `ends` are the
 * command's stdin, stdout and stderr. */
static int ask_for_run(const struct commands *commands, struct run *run, const int ends[3])
{
    char **environment = environment_create(run->attempt, commands->config.worker);
    if (environment == NULL) {
        return ENOMEM;
    }
    struct zygote_start start = {
        .kind = ZYGOTE_COMMAND,
        .index = run->handler->index,
        .fds = {ends[0], ends[1], ends[2]},
        .fd_count = 3,
        .environment = environment,
        .memory_max = commands->config.memory_max,
    };
    const int error = errno_of_status(runs_start(commands->config.runs, &run->run_link, &start));
    environment_free(environment);
    return error;
}

/* Makes the pipes and asks for the process. 0, or the errno that says why not. */
static int launch(const struct commands *commands, struct run *run)
{
    int ends[3] = {-1, -1, -1};
    int error = 0;
    run->started_at_us = clock_us();
    for (int i = 0; i < 3 && error == 0; i++) {
        if (!open_pipe(&run->watches[i].fd, &ends[i], i == WATCHED_INPUT)) {
            error = errno;
        }
    }
    if (error == 0) {
        error = watch_all(commands, run);
    }
    if (error == 0) {
        error = ask_for_run(commands, run, ends);
    }
    for (int i = 0; i < 3; i++) {
        close_fd(&ends[i]);
    }
    return error;
}

static void tell_no_start(const struct commands *commands, uint64_t lease,
                          const struct handler *handler, int error)
{
    char name[NAME_SIZE_MAX];
    char message[ERROR_MESSAGE_SIZE_MAX];
    const char *description = strerrordesc_np(error);
    outcome_name_errno(name, error);
    snprintf(message, sizeof(message), "cannot run %s: %s",
             commands->config.commands[handler->index][0],
             description != NULL ? description : name);
    const struct wire_failure_entry failure = {
        .lease = lease,
        .kind = outcome_kind_of_errno(error),
        .name = bytes_from_text(name),
        .message = bytes_from_text(message),
    };
    commands->executor.listener.on_failed(commands->executor.listener.context, &failure);
}

static void tell_returned(const struct commands *commands, uint64_t lease)
{
    commands->executor.listener.on_returned(commands->executor.listener.context, lease);
}

static void on_event(struct run_link *link, const struct zygote_event *event)
{
    struct run *run = container_of(link, struct run, run_link);
    if (event->kind == ZYGOTE_EVENT_STARTED) {
        run->is_started = true;
    } else {
        run->is_over = true;
        run->end = *event;
    }
    if (list_is_empty(&run->news)) {
        list_push_back(&run->commands->news, &run->news);
    }
}

/* NULL: memory is out. */
static struct run *run_create(struct commands *commands, const struct worker_attempt *attempt,
                              const struct handler *handler)
{
    struct run *run = calloc(1, sizeof(*run));
    if (run == NULL) {
        return NULL;
    }
    list_init(&run->link);
    list_init(&run->news);
    for (int i = 0; i < WATCHED_COUNT; i++) {
        run->watches[i] = (struct watch){run, (enum watched)i, -1};
    }
    run->commands = commands;
    run->run_link.on_event = on_event;
    run->attempt = attempt;
    run->handler = handler;
    run->lease = attempt->lease;
    run->result_size_max =
        attempt->result_size_max < BODY_SIZE_LIMIT ? attempt->result_size_max : BODY_SIZE_LIMIT;
    return run;
}

/* Done with: destroyed at the end of on_ready(), since events of this round may still name it. */
static void retire(struct commands *commands, struct run *run)
{
    for (int i = 0; i < WATCHED_COUNT; i++) {
        unwatch(&run->watches[i]);
    }
    list_remove(&run->link);
    list_push_back(&commands->ended, &run->link);
}

static void start_waiting(struct commands *commands)
{
    struct list *link;
    while (!commands->is_gone && commands->running_count < commands->config.slots &&
           (link = list_pop_front(&commands->waiting)) != NULL) {
        struct run *run = container_of(link, struct run, link);
        const int error = launch(commands, run);
        if (error == 0) {
            list_push_back(&commands->running, link);
            commands->running_count++;
        } else if (error == EPIPE) {
            commands->is_gone = true;
            list_push_front(&commands->waiting, link); /* on_ready() returns it */
        } else {
            retire(commands, run);
            tell_no_start(commands, run->lease, run->handler, error);
        }
    }
}

static void return_waiting(struct commands *commands)
{
    struct list returned;
    struct list *link;
    list_init(&returned);
    list_splice_front(&returned, &commands->waiting);
    while ((link = list_pop_front(&returned)) != NULL) {
        struct run *run = container_of(link, struct run, link);
        retire(commands, run);
        tell_returned(commands, run->lease);
    }
}

static void start(struct executor *executor, const struct worker_attempt *attempt,
                  const struct handler *handler)
{
    struct commands *commands = commands_of(executor);
    struct run *run = run_create(commands, attempt, handler);
    if (run == NULL) {
        tell_no_start(commands, attempt->lease, handler, ENOMEM);
        return;
    }
    list_push_back(&commands->waiting, &run->link);
    start_waiting(commands);
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
    kill_run(run);
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

/* How it ended, nobody will know any more. */
static void tell_gone(const struct run *run)
{
    const struct executor_listener *listener = &run->commands->executor.listener;
    const struct wire_failure_entry failure = {
        .lease = run->lease,
        .duration_ms = (clock_us() - run->started_at_us) / 1000,
        .kind = FAILURE_CRASH,
        .name = bytes_from_text("zygote.gone"),
        .message = bytes_from_text("the process that starts commands has died, and they with it"),
        .trace = trace_tail_text(&run->tail),
    };
    listener->on_failed(listener->context, &failure);
}

static void tell_end(const struct run *run)
{
    const struct executor_listener *listener = &run->commands->executor.listener;
    const uint64_t duration_us = clock_us() - run->started_at_us;
    struct outcome_texts texts;
    struct wire_failure_entry failure = {
        .lease = run->lease,
        .duration_ms = duration_us / 1000,
        .user_ms = run->end.user_ms,
        .system_ms = run->end.system_ms,
        .max_rss_kib = run->end.max_rss_kib,
    };
    if (judge_result(run, &texts, &failure) ||
        !outcome_judge(run->end.wait_state, run->handler->is_permanent_exit, &run->tail, &texts,
                       &failure)) {
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

/* All of its group is killed: nobody writes what is read now but what escaped from it. */
static void on_over(struct commands *commands, struct run *run)
{
    if (run->end.kind == ZYGOTE_EVENT_ENDED) {
        read_rest(run, WATCHED_RESULT);
        read_rest(run, WATCHED_TRACE);
    }
    retire(commands, run);
    commands->running_count--;
    commands->is_gone = commands->is_gone || run->end.kind == ZYGOTE_EVENT_GONE;
    if (run->end.kind == ZYGOTE_EVENT_NOT_STARTED) {
        tell_no_start(commands, run->lease, run->handler, run->end.error);
    } else if (run->end.kind == ZYGOTE_EVENT_ENDED) {
        tell_end(run);
    } else if (run->is_started) {
        tell_gone(run);
    } else {
        tell_returned(commands, run->lease);
    }
}

static void on_news(struct commands *commands, struct run *run)
{
    const struct executor_listener *listener = &commands->executor.listener;
    if (run->is_started && !run->is_start_told) {
        run->is_start_told = true;
        listener->on_started(listener->context, run->lease);
    }
    if (run->is_over) {
        on_over(commands, run);
    }
}

static void on_watch(const struct watch *watch)
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
        on_watch(events[i].data.ptr);
    }
    struct list *link;
    while ((link = list_pop_front(&commands->news)) != NULL) {
        on_news(commands, container_of(link, struct run, news));
    }
    start_waiting(commands);
    if (commands->is_gone) {
        return_waiting(commands);
    }
    destroy_runs(&commands->ended);
}

/* ---- the executor ---- */

static struct run *run_of_lease(const struct list *head, uint64_t lease)
{
    for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
        struct run *run = container_of(link, struct run, link);
        if (run->lease == lease) {
            return run;
        }
    }
    return NULL;
}

static void signal_lease(const struct commands *commands, uint64_t lease, int signal_number)
{
    const struct run *run = run_of_lease(&commands->running, lease);
    if (run != NULL) {
        runs_signal(commands->config.runs, &run->run_link, signal_number);
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

static bool recall(struct executor *executor, uint64_t lease)
{
    struct run *run = run_of_lease(&commands_of(executor)->waiting, lease);
    if (run == NULL) {
        return false;
    }
    list_remove(&run->link);
    run_destroy(run);
    return true;
}

static int fd_of(struct executor *executor)
{
    return commands_of(executor)->epoll_fd;
}

static uint64_t next_at_ms(const struct executor *executor)
{
    (void)executor;
    return UINT64_MAX;
}

static bool may_wait(struct executor *executor)
{
    const struct commands *commands = commands_of(executor);
    return list_is_empty(&commands->news) &&
           !(commands->is_gone && !list_is_empty(&commands->waiting));
}

static uint32_t room(const struct executor *executor)
{
    const struct commands *commands = container_of_const(executor, struct commands, executor);
    return commands->is_gone ? 0 : commands->config.slots;
}

static void destroy(struct executor *executor)
{
    struct commands *commands = commands_of(executor);
    destroy_runs(&commands->waiting);
    destroy_runs(&commands->running);
    destroy_runs(&commands->ended);
    close_fd(&commands->epoll_fd);
    free(commands);
}

struct executor *command_executor_create(const struct command_config *config)
{
    static const struct executor_methods methods = {
        .fd = fd_of,
        .on_ready = on_ready,
        .next_at_ms = next_at_ms,
        .may_wait = may_wait,
        .room = room,
        .start = start,
        .recall = recall,
        .cancel = cancel,
        .kill = kill_lease,
        .destroy = destroy,
    };
    struct commands *commands = calloc(1, sizeof(*commands));
    if (commands == NULL) {
        return NULL;
    }
    commands->executor = (struct executor){&methods, config->listener};
    commands->config = *config;
    list_init(&commands->waiting);
    list_init(&commands->running);
    list_init(&commands->news);
    list_init(&commands->ended);
    commands->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (commands->epoll_fd == -1) {
        free(commands);
        return NULL;
    }
    return &commands->executor;
}
