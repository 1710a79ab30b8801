/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The process that everything a worker runs comes from. It is forked before the worker has a thread
 * or a socket, has neither itself, and does three things: it starts what it is told to, tells how
 * that ended, and leaves nothing behind.
 *
 *     supervisor  --- start, signal ------------->  zygote  --- fork --->  a run: command or child,
 *     (the worker)  <-- started, ended, usage ---             a process group of its own
 *
 * - A run dies with the zygote (PR_SET_PDEATHSIG), the zygote's runs with the supervisor: at the
 * end of file of their socketpair the zygote kills every group, and what escaped from it, and ends.
 * - The zygote and each run are subreapers, so that a process that a run leaves behind, in whatever
 *   session or group, becomes a child that the zygote did not start: it is killed.
 * - It ignores the signals of a terminal: the supervisor decides.
 *
 * One thread at the supervisor's side. Nothing blocks but zygote_open() and zygote_close().
 */
#ifndef TREADLE_WORKER_EXEC_ZYGOTE_H
#define TREADLE_WORKER_EXEC_ZYGOTE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <treadle/status.h>

#define ZYGOTE_FD_COUNT_MAX 4

struct zygote;

/* In the forked child: what it was started with. */
struct zygote_child {
    uint32_t index;
    int fds[ZYGOTE_FD_COUNT_MAX]; /* as given at the start, in its order */
    uint32_t fd_count;
};

/* Everything that must be there before the fork. */
struct zygote_config {
    char *const *const *commands; /* arrays of program and arguments, each with NULL at its end */
    uint32_t command_count;
    /* Runs in a forked child, which ends with its value as exit status. stdin is /dev/null. */
    int (*child_main)(void *context, const struct zygote_child *child);
    void *child_context;
};

enum zygote_run_kind {
    ZYGOTE_COMMAND, /* index: of a command. fds: its stdin, stdout, stderr */
    ZYGOTE_CHILD,   /* index and fds: for child_main */
};

struct zygote_start {
    uint64_t run; /* the supervisor's number for it, above 0, never used twice */
    enum zygote_run_kind kind;
    uint32_t index;
    int fds[ZYGOTE_FD_COUNT_MAX]; /* borrowed */
    uint32_t fd_count;
    char *const
        *environment;    /* COMMAND: NAME=VALUE that are added to, or put in the place of, those
                            of the supervisor less its secrets; NULL at the end; NULL: none */
    uint64_t memory_max; /* bytes of data (RLIMIT_DATA); 0: no limit */
};

enum zygote_event_kind {
    ZYGOTE_EVENT_STARTED,     /* pid: also the number of its process group */
    ZYGOTE_EVENT_NOT_STARTED, /* error: an errno. That is the end of this run */
    ZYGOTE_EVENT_ENDED,       /* wait_state, usage. All of its group was killed */
    ZYGOTE_EVENT_GONE,        /* the zygote itself has died: nothing can be started any more */
};

struct zygote_event {
    enum zygote_event_kind kind;
    uint64_t run;
    pid_t pid;
    int error;
    int wait_state; /* as waitpid(2) gives it */
    uint64_t user_ms;
    uint64_t system_ms;
    uint64_t max_rss_kib;
};

/* Forks the zygote. TREADLE_E_THREADS: the process has more than one thread; TREADLE_E_IO: no fork,
 * no descriptors (errno); TREADLE_E_NOMEM. SIGPIPE and SIGCHLD of the caller are left as they are;
 * the supervisor does not become a subreaper. Of the caller's descriptors 0, 1 and 2 those that
 * are closed become /dev/null. */
enum treadle_status zygote_open(struct zygote **zygote, const struct zygote_config *config);

/* Ends all that runs and the zygote, waiting for it at most 2 s; nulls the pointer; NULL is fine.
 * In a process that its supervisor forked: closes the copies of its descriptors, no more. */
void zygote_close(struct zygote **zygote);

/* Asks for a run; STARTED or NOT_STARTED follows. TREADLE_E_LIMIT: the environment is over 128 KiB;
 * TREADLE_E_IO: the zygote is gone; TREADLE_E_NOMEM. */
enum treadle_status zygote_start(struct zygote *zygote, const struct zygote_start *start);

/* Sends a signal to the run's process group; SIGKILL also to everything that comes from the run.
 * Runs that have ended are ignored. */
void zygote_signal(struct zygote *zygote, uint64_t run, int signal_number);

/* Readable when zygote_next_event() may have something. */
int zygote_fd(const struct zygote *zygote);

/* The next event; false: none now. */
bool zygote_next_event(struct zygote *zygote, struct zygote_event *event);

/* Of the zygote process, for messages and tests. */
pid_t zygote_pid(const struct zygote *zygote);

#endif
