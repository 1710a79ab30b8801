/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "common/base/log.h"
#include "common/transport/transport.h"
#include "worker/session.h"

#define EXIT_INTERRUPTED 130

#define MESSAGES_PER_ROUND 256
#define REOPEN_DELAY_MS    3000

/* File descriptors for each slot (three pipes, the process), and for all else. */
#define FDS_PER_SLOT 8
#define FDS_AROUND   128

struct runner {
    const struct runner_options *options;
    struct worker_session *session;
    struct executor *executor;
    struct peer_transport *transport;
    int signal_fd;
    int epoll_fd; /* signal_fd and the executor's */
    uint32_t slots;
    char name[NAME_SIZE_MAX + 1];
    char host[NAME_SIZE_MAX + 1];
    uint64_t reopen_at_ms; /* when the transport is to be opened anew; UINT64_MAX: not */
    bool has_served;
    bool is_apart_told; /* a person knows that there is no broker */
    bool is_stopping;   /* told to end once */
    bool is_done;
    int exit_code;
};

static uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

__attribute__((format(printf, 2, 3))) static void tell(const struct runner *runner,
                                                       const char *format, ...)
{
    if (runner->options->is_quiet) {
        return;
    }
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    (void)fprintf(stderr, "treadle work: %s\n", text);
}

static const char *error_text(int error)
{
    const char *text = strerrordesc_np(error);
    return text != NULL ? text : "unknown error";
}

static void stop(struct runner *runner, int exit_code)
{
    runner->is_done = true;
    runner->exit_code = exit_code;
}

/* ---- what the executor tells ---- */

static void on_started(void *context, uint64_t lease)
{
    const struct runner *runner = context;
    worker_session_on_started(runner->session, clock_ms(), lease);
}

static void on_succeeded(void *context, const struct wire_success_entry *success)
{
    const struct runner *runner = context;
    worker_session_succeed(runner->session, clock_ms(), success);
}

static void on_failed(void *context, const struct wire_failure_entry *failure)
{
    const struct runner *runner = context;
    worker_session_fail(runner->session, clock_ms(), failure);
}

/* ---- what the session tells ---- */

static void tell_serving(const struct runner *runner)
{
    const struct runner_options *options = runner->options;
    char more[32] = "";
    if (options->pattern_count > 1) {
        (void)snprintf(more, sizeof(more), " and %zu more", options->pattern_count - 1);
    }
    tell(runner, "serving %s%s with %u slot%s as %s at %s", options->patterns[0], more,
         runner->slots, runner->slots == 1 ? "" : "s", runner->name, options->broker);
}

static void on_welcome(struct runner *runner, const struct worker_event *event)
{
    if (!runner->has_served) {
        tell_serving(runner);
    } else if (runner->is_apart_told) {
        tell(runner, "back at %s%s", runner->options->broker,
             event->is_resumed ? "" : ", in a new session");
    }
    runner->has_served = true;
    runner->is_apart_told = false;
}

static void tell_apart(struct runner *runner)
{
    if (runner->is_apart_told || runner->is_stopping) {
        return;
    }
    const char *reason = peer_transport_reason(runner->transport);
    if (runner->has_served) {
        tell(runner, "lost the broker at %s%s%s; trying again", runner->options->broker,
             reason[0] == '\0' ? "" : ": ", reason);
    } else {
        tell(runner, "no broker yet: %s; trying on (for one to try things: treadle dev)", reason);
    }
    runner->is_apart_told = true;
}

static void on_refused(struct runner *runner, const struct worker_event *event)
{
    char text[512];
    log_quote(text, sizeof(text), event->text.data, event->text.size);
    (void)fprintf(stderr, "treadle: work: %s: refused (%s): %s%s\n", runner->options->broker,
                  refused_code_text((uint64_t)event->code), text,
                  event->is_final ? "" : "; trying again");
    runner->is_apart_told = true;
    if (event->is_final) {
        stop(runner, EX_NOPERM);
    }
}

static void reopen(struct runner *runner)
{
    const uint64_t now_ms = clock_ms();
    worker_session_on_disconnected(runner->session, now_ms);
    runner->reopen_at_ms = UINT64_MAX;
    if (peer_transport_reopen(runner->transport) != TREADLE_OK) {
        runner->reopen_at_ms = now_ms + REOPEN_DELAY_MS;
    }
}

static void on_event(struct runner *runner, const struct worker_event *event)
{
    switch (event->kind) {
    case WORKER_EVENT_WELCOME:
        on_welcome(runner, event);
        return;
    case WORKER_EVENT_LOST:
        tell_apart(runner);
        return;
    case WORKER_EVENT_RECONNECT:
        reopen(runner);
        return;
    case WORKER_EVENT_REFUSED:
        on_refused(runner, event);
        return;
    case WORKER_EVENT_START:
        executor_start(runner->executor, event->attempt);
        return;
    case WORKER_EVENT_CANCEL:
        executor_cancel(runner->executor, event->lease);
        return;
    case WORKER_EVENT_KILL:
        executor_kill(runner->executor, event->lease);
        return;
    case WORKER_EVENT_DRAINED:
        tell(runner, "drained");
        stop(runner, EX_OK);
        return;
    }
}

/* ---- the loop ---- */

static void on_signals(struct runner *runner)
{
    struct signalfd_siginfo info;
    while (read(runner->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (runner->is_stopping) {
            stop(runner, EXIT_INTERRUPTED);
            return;
        }
        runner->is_stopping = true;
        const struct worker_session_counts counts = worker_session_counts(runner->session);
        if (counts.running > 0) {
            tell(runner, "finishing %u task%s, taking nothing new (a second signal ends at once)",
                 counts.running, counts.running == 1 ? "" : "s");
        }
        worker_session_drain(runner->session, clock_ms());
    }
}

static void on_transport(struct runner *runner)
{
    const unsigned flags = peer_transport_update(runner->transport);
    if ((flags & TRANSPORT_DISCONNECTED) != 0) {
        worker_session_on_disconnected(runner->session, clock_ms());
    }
    if ((flags & TRANSPORT_CONNECTED) != 0) {
        worker_session_on_connected(runner->session, clock_ms());
    }
    if ((flags & TRANSPORT_NOT_ADMITTED) != 0) {
        runner->reopen_at_ms = clock_ms() + REOPEN_DELAY_MS;
    }
    if (!runner->has_served && peer_transport_reason(runner->transport)[0] != '\0') {
        tell_apart(runner);
    }
}

static void receive_all(struct runner *runner)
{
    const struct wire_frames *frames;
    for (int i = 0; i < MESSAGES_PER_ROUND; i++) {
        frames = peer_transport_receive(runner->transport);
        if (frames == NULL) {
            return;
        }
        struct message message; /* one that cannot be read is a gap for the session */
        if (message_decode(&message, frames, &wire_limits_protocol) == WIRE_OK) {
            worker_session_on_message(runner->session, clock_ms(), &message);
        }
    }
}

/* Sends what is due, as far as there is room. */
static void send_all(struct runner *runner)
{
    while (worker_session_has_message(runner->session) &&
           peer_transport_is_writable(runner->transport)) {
        const struct wire_frames *frames = worker_session_take_message(runner->session);
        if (frames == NULL) {
            return;
        }
        if (!peer_transport_send(runner->transport, frames)) {
            worker_session_on_unsent(runner->session, clock_ms());
            return;
        }
    }
}

static void tell_and_send(struct runner *runner)
{
    struct worker_event event;
    while (!runner->is_done && worker_session_next_event(runner->session, &event)) {
        on_event(runner, &event);
    }
    send_all(runner);
    while (!runner->is_done && worker_session_next_event(runner->session, &event)) {
        on_event(runner, &event); /* what the sending led to */
    }
}

static int64_t sleep_ms(const struct runner *runner)
{
    const uint64_t session_at_ms = worker_session_next_at_ms(runner->session);
    const uint64_t next_at_ms =
        session_at_ms < runner->reopen_at_ms ? session_at_ms : runner->reopen_at_ms;
    if (next_at_ms == UINT64_MAX) {
        return -1;
    }
    const uint64_t now_ms = clock_ms();
    if (next_at_ms <= now_ms) {
        return 0;
    }
    return next_at_ms - now_ms < INT32_MAX ? (int64_t)(next_at_ms - now_ms) : INT32_MAX;
}

static void run(struct runner *runner)
{
    while (!runner->is_done) {
        const bool for_room = worker_session_has_message(runner->session);
        (void)peer_transport_wait(runner->transport, sleep_ms(runner), runner->epoll_fd, for_room);
        if (clock_ms() >= runner->reopen_at_ms) {
            reopen(runner);
        }
        on_signals(runner);
        on_transport(runner);
        receive_all(runner);
        executor_on_ready(runner->executor);
        worker_session_on_time(runner->session, clock_ms()); /* last: silence is what is not read */
        tell_and_send(runner);
    }
}

/* ---- making ---- */

static uint32_t cpu_count(void)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == -1) {
        return 1;
    }
    const int count = CPU_COUNT(&cpus);
    return count > 0 ? (uint32_t)count : 1;
}

static void set_names(struct runner *runner)
{
    char host[256] = "";
    if (gethostname(host, sizeof(host) - 1) == -1 || host[0] == '\0') {
        (void)snprintf(host, sizeof(host), "localhost");
    }
    (void)snprintf(runner->host, sizeof(runner->host), "%.*s", NAME_SIZE_MAX, host);
    if (runner->options->name != NULL) {
        (void)snprintf(runner->name, sizeof(runner->name), "%.*s", NAME_SIZE_MAX,
                       runner->options->name);
    } else {
        (void)snprintf(runner->name, sizeof(runner->name), "%.48s:%d", host, (int)getpid());
    }
}

/* Commands get 0, 1 and 2 put in the place of ours, so ours must be there; and each slot needs its
 * pipes. */
static void provide_fds(const struct runner *runner)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd != -1 && fd <= STDERR_FILENO) {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    }
    if (fd != -1) {
        close(fd);
    }
    struct rlimit limit;
    const rlim_t wanted = (rlim_t)runner->slots * FDS_PER_SLOT + FDS_AROUND;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < wanted) {
        limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool watch_fd(const struct runner *runner, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(runner->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static bool open_signals(struct runner *runner)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    if (pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR ||
        signal(SIGCHLD, SIG_DFL) == SIG_ERR) { /* a parent's SIG_IGN would eat the commands' ends */
        return false;
    }
    runner->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    return runner->signal_fd != -1;
}

static bool open_executor(struct runner *runner)
{
    struct command_config config = {
        .command = runner->options->command,
        .worker = runner->name,
        .listener = {runner, on_started, on_succeeded, on_failed},
    };
    memcpy(config.is_permanent_exit, runner->options->is_permanent_exit,
           sizeof(config.is_permanent_exit));
    runner->executor = command_executor_create(&config);
    runner->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return runner->executor != NULL && runner->epoll_fd != -1 &&
           watch_fd(runner, executor_fd(runner->executor)) && watch_fd(runner, runner->signal_fd);
}

static bool open_session(struct runner *runner)
{
    const struct runner_options *options = runner->options;
    struct wire_serve *serves = calloc(options->pattern_count, sizeof(*serves));
    if (serves == NULL) {
        return false;
    }
    for (size_t i = 0; i < options->pattern_count; i++) {
        serves[i].pattern = bytes_from_text(options->patterns[i]);
        serves[i].worker_policy = options->policy;
    }
    struct worker_session_config config = {
        .name = bytes_from_text(runner->name),
        .host = bytes_from_text(runner->host),
        .slots = runner->slots,
        .prefetch_max = WORKER_PREFETCH_MAX,
        .drain_ms = options->drain_ms > 0 ? options->drain_ms : WORKER_DRAIN_MS,
        .serves = serves,
        .serve_count = (uint32_t)options->pattern_count,
    };
    randombytes_buf(config.incarnation, sizeof(config.incarnation));
    runner->session = worker_session_create(&config, clock_ms());
    free(serves);
    return runner->session != NULL;
}

/* EX_OK, or the exit code after it said what is wrong. */
static int open_all(struct runner *runner)
{
    char text[TRANSPORT_TEXT_SIZE];
    errno = ENOMEM;
    if (sodium_init() == -1 || !open_signals(runner) || !open_executor(runner) ||
        !open_session(runner)) {
        (void)fprintf(stderr, "treadle: work: cannot start: %s\n", error_text(errno));
        return EX_OSERR;
    }
    const enum treadle_status status =
        peer_transport_open(&runner->transport, runner->options->broker, text);
    if (status != TREADLE_OK) {
        (void)fprintf(stderr, "treadle: work: %s\n",
                      text[0] != '\0' ? text : treadle_status_text(status));
        return status == TREADLE_E_INVALID ? EX_USAGE : EX_OSERR;
    }
    return EX_OK;
}

static const char *wrong_option(const struct runner_options *options)
{
    if (options->pattern_count < 1 || options->pattern_count > SERVE_COUNT_MAX) {
        return "the number of tasks to serve is out of range";
    }
    for (size_t i = 0; i < options->pattern_count; i++) {
        const size_t size = strlen(options->patterns[i]);
        if (size < 3 || size > PATTERN_SIZE_MAX) {
            return "SERVICE.TASK is too short or too long";
        }
    }
    if (options->slots > SLOT_COUNT_MAX) {
        return "--slots is out of range";
    }
    if (options->name != NULL &&
        (options->name[0] == '\0' || strlen(options->name) > NAME_SIZE_MAX)) {
        return "--name is empty or too long";
    }
    return options->command == NULL || options->command[0] == NULL ? "no COMMAND is given" : NULL;
}

int runner_main(const struct runner_options *options)
{
    struct runner runner = {
        .options = options,
        .signal_fd = -1,
        .epoll_fd = -1,
        .slots = options->slots > 0 ? options->slots : cpu_count(),
        .reopen_at_ms = UINT64_MAX,
    };
    const char *wrong = wrong_option(options);
    if (wrong != NULL) {
        (void)fprintf(stderr, "treadle: work: %s\n", wrong);
        return EX_USAGE;
    }
    set_names(&runner);
    provide_fds(&runner);
    runner.exit_code = open_all(&runner);
    if (runner.exit_code == EX_OK) {
        run(&runner);
    }
    executor_destroy(&runner.executor); /* nothing runs on */
    peer_transport_close(&runner.transport);
    worker_session_destroy(&runner.session);
    if (runner.epoll_fd != -1) {
        close(runner.epoll_fd);
    }
    if (runner.signal_fd != -1) {
        close(runner.signal_fd);
    }
    return runner.exit_code;
}
