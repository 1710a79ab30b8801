/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/zygote_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/list.h"
#include "worker/exec/children.h"
#include "worker/exec/environment.h"

#define BUCKET_COUNT       1024
#define REQUESTS_PER_ROUND 16

/* Looking for what escaped takes time that grows with the machine's processes: at most this often,
 * and at most this share of the time. */
#define SEARCH_INTERVAL_MS 50
#define SEARCH_SHARE       20

#define ENDING_ROUND_MS 5

/* While the supervisor does not listen: whether it is still there is looked at so often. */
#define SILENCE_ROUND_MS 100

/* The supervisor's death sends this, beside the end of file of the socket: another process may have
 * a copy of the socket's other end. */
#define PARENT_DEATH_SIGNAL SIGTERM

#define EXIT_NOT_EXECUTED 127

/* What was started and has not ended. */
struct process_run {
    struct list link; /* zygote_process.buckets */
    uint64_t number;
    pid_t pid; /* its process group's number too */
};

struct zygote_process {
    const struct zygote_config *config;
    pid_t pid;
    pid_t supervisor;
    int socket_fd;
    int signal_fd;
    struct list buckets[BUCKET_COUNT]; /* by pid */
    uint64_t search_at_ms;             /* UINT64_MAX: there is no reason to */
    uint64_t searched_until_ms;        /* not again before this */
    uint32_t stranger_count;           /* found in this search */
    char *message;                     /* ZYGOTE_MESSAGE_SIZE_MAX bytes and a NUL */
};

/* A request to start, as received. */
struct order {
    struct zygote_request request;
    char *environment;
    int fds[ZYGOTE_FD_COUNT_MAX];
    uint32_t fd_count;
};

/* What a new process needs before it becomes what it is for. */
struct command_plan {
    const struct zygote_process *process;
    const struct order *order;
    char *const *command;
    char **environment;
    int error_fd; /* where it says why it is not executed; closed when it is */
};

static uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- the runs ---- */

static struct list *bucket_of(struct zygote_process *process, pid_t pid)
{
    return &process->buckets[(uint32_t)pid % BUCKET_COUNT];
}

static struct process_run *run_of_pid(struct zygote_process *process, pid_t pid)
{
    const struct list *head = bucket_of(process, pid);
    for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
        struct process_run *run = container_of(link, struct process_run, link);
        if (run->pid == pid) {
            return run;
        }
    }
    return NULL;
}

/* Signals come seldom: one index, by pid, is enough. */
static struct process_run *run_of_number(const struct zygote_process *process, uint64_t number)
{
    for (size_t i = 0; i < BUCKET_COUNT; i++) {
        const struct list *head = &process->buckets[i];
        for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
            struct process_run *run = container_of(link, struct process_run, link);
            if (run->number == number) {
                return run;
            }
        }
    }
    return NULL;
}

/* The process itself too: it may have joined another group. */
static void kill_run(const struct process_run *run)
{
    (void)kill(-run->pid, SIGKILL); /* none left is fine */
    (void)kill(run->pid, SIGKILL);
}

/* ---- its end ---- */

static void kill_all_runs(const struct zygote_process *process)
{
    for (size_t i = 0; i < BUCKET_COUNT; i++) {
        const struct list *head = &process->buckets[i];
        for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
            kill_run(container_of(link, struct process_run, link));
        }
    }
}

static void kill_child(void *context, pid_t child)
{
    (void)context;
    (void)kill(child, SIGKILL);
}

/* What a killed process leaves behind becomes a child of this one: so until there is none. */
_Noreturn static void end(const struct zygote_process *process)
{
    static const struct children_visitor killer = {NULL, kill_child};
    const uint64_t until_ms = clock_ms() + ZYGOTE_ENDING_MS;
    kill_all_runs(process);
    do {
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
        if (waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD) {
            break;
        }
        if (!children_list(&killer)) {
            (void)children_scan(&killer);
        }
        (void)poll(NULL, 0, ENDING_ROUND_MS);
    } while (clock_ms() < until_ms);
    _exit(0);
}

/* ---- telling ---- */

/* Waits for room: a supervisor that does not listen can wait for its runs' ends, too. */
static void tell(const struct zygote_process *process, const struct zygote_event *event)
{
    struct pollfd room = {.fd = process->socket_fd, .events = POLLOUT};
    while (send(process->socket_fd, event, sizeof(*event), MSG_NOSIGNAL | MSG_DONTWAIT) == -1) {
        const bool is_passing =
            errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM;
        if (!is_passing || getppid() != process->supervisor) {
            end(process); /* nobody is there */
        }
        (void)poll(&room, 1, SILENCE_ROUND_MS);
    }
}

/* ---- starting ---- */

static void limit_memory(uint64_t memory_max)
{
    struct rlimit limit;
    if (memory_max > 0 && getrlimit(RLIMIT_DATA, &limit) == 0) {
        const rlim_t wanted = memory_max < limit.rlim_max ? memory_max : limit.rlim_max;
        limit = (struct rlimit){wanted, wanted};
        (void)setrlimit(RLIMIT_DATA, &limit);
    }
}

/* In the new process. It leads a group of its own, dies with the zygote, and takes in what it
 * leaves behind, so that this falls to the zygote at its end. */
static void settle_in(const struct zygote_process *process, const struct order *order)
{
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    if (getppid() != process->pid) {
        _exit(EXIT_NOT_EXECUTED); /* the zygote has just died */
    }
    limit_memory(order->request.memory_max);
}

static void unblock_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* In a process that shares the zygote's memory until it is executed: system calls only. */
_Noreturn __attribute__((noinline)) static void become_command(const struct command_plan *plan)
{
    settle_in(plan->process, plan->order);
    bool is_fine = true;
    for (int i = 0; is_fine && i < 3; i++) {
        is_fine = dup2(plan->order->fds[i], i) != -1;
    }
    if (is_fine) {
        unblock_signals();
        (void)execvpe(plan->command[0], plan->command, plan->environment);
    }
    const int error = errno;
    (void)!write(plan->error_fd, &error, sizeof(error));
    _exit(EXIT_NOT_EXECUTED);
}

/* The zygote may hold the memory of a large program: a fork would copy its page tables each time.
 */
__attribute__((noinline)) static pid_t start_command(const struct command_plan *plan)
{
    const pid_t pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
    if (pid == 0) {
        become_command(plan); /* NOLINT(clang-analyzer-unix.Vfork): nothing of ours is changed */
    }
    return pid;
}

/* Waits until the command is executed: 0, or the errno that says why it is not. */
static int execution_error(int error_fd)
{
    int error = 0;
    ssize_t size;
    do {
        size = read(error_fd, &error, sizeof(error));
    } while (size == -1 && errno == EINTR);
    return size == (ssize_t)sizeof(error) ? error : 0;
}

/* The new process, or -1 and errno. */
static pid_t launch_command(const struct zygote_process *process, const struct order *order)
{
    int error_fds[2];
    struct command_plan plan = {
        .process = process,
        .order = order,
        .command = process->config->commands[order->request.index],
        .environment =
            environment_merge(environ, order->environment, order->request.environment_size),
    };
    if (plan.environment == NULL) {
        errno = ENOMEM;
        return -1;
    }
    if (pipe2(error_fds, O_CLOEXEC) == -1) {
        free(plan.environment);
        return -1;
    }
    plan.error_fd = error_fds[1];
    pid_t pid = start_command(&plan);
    int error = pid == -1 ? errno : 0;
    close(error_fds[1]);
    if (pid != -1) {
        error = execution_error(error_fds[0]);
    }
    close(error_fds[0]);
    free(plan.environment);
    if (pid != -1 && error != 0) {
        (void)waitpid(pid, NULL, 0);
        pid = -1;
    }
    errno = error;
    return pid;
}

_Noreturn static void become_child(const struct zygote_process *process, const struct order *order)
{
    struct zygote_child child = {.index = order->request.index, .fd_count = order->fd_count};
    memcpy(child.fds, order->fds, sizeof(child.fds));
    settle_in(process, order);
    (void)prctl(PR_SET_NAME, "treadle-child", 0, 0, 0);
    close(process->socket_fd);
    close(process->signal_fd);
    unblock_signals();
    _exit(process->config->child_main(process->config->child_context, &child));
}

/* The new process, or -1 and errno. */
static pid_t launch(const struct zygote_process *process, const struct order *order)
{
    if (order->fd_count != order->request.fd_count) {
        errno = EMFILE; /* what does not fit in is dropped by the kernel */
        return -1;
    }
    if (order->request.run_kind == ZYGOTE_COMMAND) {
        TREADLE_ASSERT(order->request.index < process->config->command_count);
        return launch_command(process, order);
    }
    const pid_t pid = fork();
    if (pid == 0) {
        become_child(process, order);
    }
    return pid;
}

static void start(struct zygote_process *process, const struct order *order)
{
    struct zygote_event event = {
        .kind = ZYGOTE_EVENT_NOT_STARTED, .run = order->request.run, .error = ENOMEM};
    struct process_run *run = malloc(sizeof(*run));
    if (run != NULL) {
        *run = (struct process_run){.number = order->request.run, .pid = launch(process, order)};
        event.error = errno;
        if (run->pid == -1) {
            free(run);
        } else {
            event.kind = ZYGOTE_EVENT_STARTED;
            event.error = 0;
            event.pid = run->pid;
            (void)setpgid(run->pid, run->pid); /* whoever of the two comes first */
            list_init(&run->link);
            list_push_back(bucket_of(process, run->pid), &run->link);
        }
    }
    tell(process, &event);
}

/* ---- requests ---- */

static void signal_run(const struct zygote_process *process, const struct zygote_request *request)
{
    const struct process_run *run = run_of_number(process, request->run);
    if (run == NULL) {
        return;
    }
    if (request->signal_number == SIGKILL) {
        kill_run(run); /* what it leaves behind follows at its end */
    } else {
        (void)kill(-run->pid, request->signal_number);
    }
}

static void take_fds(struct order *order, struct msghdr *message)
{
    const struct cmsghdr *header = CMSG_FIRSTHDR(message);
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        const size_t size = header->cmsg_len - CMSG_LEN(0);
        memcpy(order->fds, CMSG_DATA(header), size);
        order->fd_count = (uint32_t)(size / sizeof(int));
    }
}

/* False: there is none now. */
static bool serve_request(struct zygote_process *process)
{
    struct order order = {.fd_count = 0};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(order.fds))];
    } control;
    struct iovec part = {process->message, ZYGOTE_MESSAGE_SIZE_MAX};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    const ssize_t size = recvmsg(process->socket_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size == -1 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (size < (ssize_t)sizeof(order.request)) {
        end(process); /* end of file */
    }
    memcpy(&order.request, process->message, sizeof(order.request));
    order.environment = process->message + sizeof(order.request);
    take_fds(&order, &message);
    if (order.request.kind == ZYGOTE_REQUEST_START) {
        start(process, &order);
    } else {
        signal_run(process, &order.request);
    }
    for (uint32_t i = 0; i < order.fd_count; i++) {
        close(order.fds[i]);
    }
    return true;
}

/* ---- ends ---- */

static uint64_t span_ms(struct timeval span)
{
    return (uint64_t)span.tv_sec * 1000 + (uint64_t)span.tv_usec / 1000;
}

/* Its group goes while the number is still its own: before it is waited for. */
static void on_run_ended(const struct zygote_process *process, struct process_run *run)
{
    struct rusage usage = {0};
    struct zygote_event event = {.kind = ZYGOTE_EVENT_ENDED, .run = run->number, .pid = run->pid};
    (void)kill(-run->pid, SIGKILL);
    (void)wait4(run->pid, &event.wait_state, 0, &usage);
    event.user_ms = span_ms(usage.ru_utime);
    event.system_ms = span_ms(usage.ru_stime);
    event.max_rss_kib = (uint64_t)usage.ru_maxrss;
    list_remove(&run->link);
    free(run);
    tell(process, &event);
}

/* Every end, of a stranger too, may have left something behind. */
static void reap(struct zygote_process *process)
{
    siginfo_t info = {0};
    bool has_reaped = false;
    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
        struct process_run *run = run_of_pid(process, info.si_pid);
        if (run != NULL) {
            on_run_ended(process, run);
        } else {
            (void)waitpid(info.si_pid, NULL, 0);
        }
        has_reaped = true;
        info.si_pid = 0;
    }
    if (has_reaped) {
        const uint64_t now_ms = clock_ms();
        process->search_at_ms =
            now_ms > process->searched_until_ms ? now_ms : process->searched_until_ms;
    }
}

/* A child that was not started is what a run left behind. */
static void kill_stranger(void *context, pid_t child)
{
    struct zygote_process *process = context;
    if (run_of_pid(process, child) == NULL) {
        (void)kill(child, SIGKILL);
        process->stranger_count++;
    }
}

static void search(struct zygote_process *process)
{
    const uint64_t started_at_ms = clock_ms();
    const struct children_visitor visitor = {process, kill_stranger};
    process->stranger_count = 0;
    if (!children_list(&visitor)) {
        (void)children_scan(&visitor);
    }
    const uint64_t now_ms = clock_ms();
    const uint64_t pause_ms = (now_ms - started_at_ms) * SEARCH_SHARE;
    process->searched_until_ms =
        now_ms + (pause_ms > SEARCH_INTERVAL_MS ? pause_ms : SEARCH_INTERVAL_MS);
    process->search_at_ms = process->stranger_count > 0 ? process->searched_until_ms : UINT64_MAX;
}

/* ---- its life ---- */

static void on_signals(struct zygote_process *process)
{
    struct signalfd_siginfo info;
    while (read(process->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
    }
    if (getppid() != process->supervisor) {
        end(process);
    }
    reap(process);
}

static int poll_timeout_ms(const struct zygote_process *process)
{
    if (process->search_at_ms == UINT64_MAX) {
        return -1;
    }
    const uint64_t now_ms = clock_ms();
    return process->search_at_ms > now_ms ? (int)(process->search_at_ms - now_ms) : 0;
}

static void on_socket(struct zygote_process *process, short events)
{
    if ((events & (POLLHUP | POLLERR)) != 0) {
        end(process); /* what it still asks for is not wanted any more */
    }
    for (int i = 0; i < REQUESTS_PER_ROUND && serve_request(process); i++) {
    }
}

_Noreturn static void serve(struct zygote_process *process)
{
    struct pollfd fds[] = {
        {.fd = process->socket_fd, .events = POLLIN},
        {.fd = process->signal_fd, .events = POLLIN},
    };
    for (;;) {
        const bool is_ready = poll(fds, 2, poll_timeout_ms(process)) > 0;
        if (is_ready && fds[0].revents != 0) {
            on_socket(process, fds[0].revents);
        }
        if (is_ready && fds[1].revents != 0) {
            on_signals(process);
        }
        if (process->search_at_ms <= clock_ms()) {
            search(process);
        }
    }
}

/* What the program did with its signals is its own business: none of its functions is run here, nor
 * in a child. */
static void reset_signals(void)
{
    for (int i = 1; i < NSIG; i++) {
        (void)signal(i, SIG_DFL);
    }
}

/* 0, 1 and 2 are there, 0 is /dev/null, and beside them only the socket. False: no descriptors. */
static bool settle_fds(struct zygote_process *process, int socket_fd)
{
    process->socket_fd = fcntl(socket_fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (process->socket_fd == -1) {
        return false;
    }
    close(socket_fd);
    int fd = open("/dev/null", O_RDWR);
    while (fd != -1 && fd <= STDERR_FILENO) {
        fd = open("/dev/null", O_RDWR);
    }
    if (fd == -1 || dup2(fd, STDIN_FILENO) == -1) {
        return false;
    }
    if (process->socket_fd > STDERR_FILENO + 1) {
        (void)close_range(STDERR_FILENO + 1, (unsigned int)process->socket_fd - 1, 0);
    }
    return close_range((unsigned int)process->socket_fd + 1, ~0U, 0) == 0;
}

_Noreturn void zygote_process_run(const struct zygote_config *config, int socket_fd,
                                  pid_t supervisor)
{
    static struct zygote_process process;
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, PARENT_DEATH_SIGNAL);
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_NAME, "treadle-zygote", 0, 0, 0);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    (void)prctl(PR_SET_PDEATHSIG, PARENT_DEATH_SIGNAL, 0, 0, 0);
    reset_signals();
    process.config = config;
    process.pid = getpid();
    process.supervisor = supervisor;
    process.search_at_ms = UINT64_MAX;
    for (size_t i = 0; i < BUCKET_COUNT; i++) {
        list_init(&process.buckets[i]);
    }
    process.message = malloc(ZYGOTE_MESSAGE_SIZE_MAX + 1);
    if (process.message == NULL || !settle_fds(&process, socket_fd)) {
        _exit(1);
    }
    process.signal_fd = signalfd(-1, &watched, SFD_NONBLOCK | SFD_CLOEXEC);
    if (process.signal_fd == -1 || getppid() != supervisor) {
        _exit(1);
    }
    serve(&process);
}
