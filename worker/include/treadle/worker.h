/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_WORKER_H
#define TREADLE_WORKER_H

/**
 * The worker: handlers, what they may know and say of their attempt, and the process that serves
 * them.
 *
 * docs/examples/hello_worker.c is a whole program, docs/examples/demo_plugin.c a plugin.
 *
 * Handlers run in child processes, forked from one that never had a thread or a socket: a handler
 * that hangs is really stopped at its timeout, one that crashes leaves a record and hurts no other
 * task, and the process that holds the connection never runs one. What a program does before
 * treadle_worker_create() is there in every child; what it does after is not.
 *
 * Such a child runs one attempt after the other, or several in threads (is_threaded, and only
 * handlers that say is_thread_safe). Its stdin is /dev/null; its stdout and stderr go to the
 * worker, which keeps their end for the record of a crash. SIGPIPE, SIGINT, SIGTERM, SIGHUP and
 * SIGQUIT are ignored in it: a write to a closed pipe fails with EPIPE, and who stops a worker does
 * not stop its handlers. What a handler starts is in the child's process group and ends with it; a
 * copy of the child that a handler forks is to exec or to _exit(): if it returns from the handler
 * it ends there. A handler that calls exit() has failed, with its status.
 *
 * Structs with `size`: set it to sizeof the struct and zero the rest; a zero field means its
 * default, so that programs built with an older header go on working.
 */

#include <stddef.h>
#include <stdint.h>

#include <treadle/client.h>
#include <treadle/export.h>
#include <treadle/id.h>
#include <treadle/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One run of a handler, as the handler's functions see it. It ends when the handler returns.
 * Threads: one at a time, but for treadle_context_is_cancelled() and
 * treadle_context_time_left_ms(), which any thread that the handler started may call. */
typedef struct treadle_context treadle_context;

/** How a handler ended. */
enum treadle_end {
    TREADLE_END_SUCCESS,
    TREADLE_END_TRANSIENT, /* failed; worth another attempt, as the policy has it */
    TREADLE_END_PERMANENT  /* failed; another attempt would fail as well */
};

/** What a handler is given. Everything it points to is valid until the handler returns. */
struct treadle_attempt {
    size_t size; /* set by the library */
    struct treadle_task_id id;
    uint64_t lease; /* grows with every attempt of a task: a fencing token */
    const char *service;
    const char *task;
    const char *worker;      /* the name of this worker */
    const void *body;        /* NULL only if body_size is 0 */
    size_t body_size;        /* bytes */
    uint32_t dispatch;       /* the how-manieth handing-out over the task's whole life, from 1 */
    uint32_t retry_index;    /* attempts spent since submission or replay, from 0 */
    uint32_t retry_sequence; /* replays, from 0 */
    uint32_t attempts_max;
    uint64_t timeout_ms;       /* of this attempt */
    uint64_t deadline_left_ms; /* of the task, when the attempt started; 0: it has none */
    const char *const *tags;
    size_t tag_count;
    const struct treadle_meta *meta; /* kept across retries: treadle_context_set_meta() */
    size_t meta_count;
    enum treadle_failure_kind last_kind; /* of the attempt before; NONE if there was none */
    const char *last_name;               /* "" if there was none */
    const char *last_message;
};

/** Fields of a policy; 0: not given, the next origin decides (treadle(7), Policies). */
struct treadle_policy {
    size_t size;           /* sizeof(struct treadle_policy) */
    uint32_t attempts_max; /* attempts in all */
    uint32_t backoff_factor_milli;
    uint64_t backoff_base_ms;
    uint64_t backoff_max_ms;
    uint64_t timeout_ms; /* of one attempt */
    uint64_t progress_timeout_ms;
    uint64_t grace_ms; /* between the cancel flag and the kill */
    uint64_t queue_timeout_ms;
    uint64_t deadline_ms;
    uint64_t result_ttl_ms;
    uint32_t crash_limit; /* attempts that may end in a crash */
    uint32_t lost_limit;
};

typedef enum treadle_end treadle_handler_run(treadle_context *context,
                                             const struct treadle_attempt *attempt);

/** A handler: what serves one task, or every task of a service. At most 1,024 in a worker. */
struct treadle_handler {
    size_t size;      /* sizeof(struct treadle_handler); in an array, of each */
    const char *name; /* SERVICE.TASK or SERVICE.*, as treadle_task.name; no two alike */
    treadle_handler_run *run;
    int is_thread_safe;                  /* may run in several threads of one process at once */
    const struct treadle_policy *policy; /* what the code registers for the task; NULL: nothing */
    const char *const *dont_retry_on;    /* names of errors that make a failure permanent; "db.*" is
                                            for all    that begin with "db.", "*" for all */
    size_t dont_retry_on_count;
};

/** The version of struct treadle_plugin and what it points to. */
#define TREADLE_PLUGIN_ABI 1U

/** What a plugin gives. */
struct treadle_plugin {
    size_t size;          /* sizeof(struct treadle_plugin) */
    uint32_t abi_version; /* TREADLE_PLUGIN_ABI */
    const struct treadle_handler *handlers;
    size_t handler_count;
    /* Called once in each process that will run its handlers, before the first; 0: ready, else the
     * text in `error` says why not, and nothing runs there. NULL: nothing to do. */
    int (*start)(char *error, size_t error_size);
    void (*stop)(void); /* before such a process ends in order; NULL: nothing to do */
};

/**
 * The one function that a plugin defines and exports: gives what the plugin has, which must stay
 * valid. The library looks it up when it opens the plugin; no program calls it.
 *
 * A plugin is a shared library, built against these headers alone: the treadle_ functions that it
 * calls are those of the process that opens it. The library never closes it.
 *
 * Since: 0.1.
 */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const struct treadle_plugin *
treadle_plugin(void);
typedef const struct treadle_plugin *treadle_plugin_function(void);
#define TREADLE_PLUGIN_SYMBOL "treadle_plugin"

/* ---- inside a handler ---- */

/**
 * Sets the result: the body that comes back. The last one counts; without one the result is empty.
 *
 * @param body       opaque bytes; NULL only if body_size is 0
 * @param body_size  bytes; more than the broker admits fails the attempt with kind finalize
 *
 * @return TREADLE_END_SUCCESS; TREADLE_END_TRANSIENT when memory is out, TREADLE_END_PERMANENT when
 *         body is NULL and must not be. So a handler may end with
 *         `return treadle_context_result(...)`
 *
 * Ownership: copies the body. Since: 0.1.
 */
TREADLE_API enum treadle_end treadle_context_result(treadle_context *context, const void *body,
                                                    size_t body_size);

/**
 * Says how the handler failed, for people and for policies. It fails by what it returns: this only
 * gives the words, and the last ones count.
 *
 * @param end     TREADLE_END_TRANSIENT or TREADLE_END_PERMANENT
 * @param name    the error's name, 1..64 bytes, cut to that, for filters and figures: "db.timeout"
 * @param format  as printf(3): the message; cut to 1,024 bytes
 *
 * @return end, so that a handler may end with `return treadle_context_fail(...)`
 *
 * Since: 0.1.
 */
TREADLE_API enum treadle_end treadle_context_fail(treadle_context *context, enum treadle_end end,
                                                  const char *name, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 4, 5)))
#endif
    ;

/** Adds text to the trace that a failure is kept with: a stack, a log. The last 16 KiB of it are
 * kept. Since: 0.1. */
TREADLE_API void treadle_context_trace(treadle_context *context, const char *text);

/** If this attempt fails and may be retried: after this span, instead of the policy's backoff. Of
 * this and treadle_context_retry_stop() the last call counts. Since: 0.1. */
TREADLE_API void treadle_context_retry_after(treadle_context *context, uint64_t delay_ms);

/** If this attempt fails: no further one, whatever the policy says. Since: 0.1. */
TREADLE_API void treadle_context_retry_stop(treadle_context *context);

/**
 * Whether the attempt should end soon: it was cancelled, ran past its timeout, or its worker
 * drains. After the grace the process is killed.
 *
 * Since: 0.1.
 */
TREADLE_API int treadle_context_is_cancelled(const treadle_context *context);

/** How long this attempt has left before its timeout or the task's deadline, ms; UINT64_MAX: for
 * ever. A handler that looks at it can stop softly. Since: 0.1. */
TREADLE_API uint64_t treadle_context_time_left_ms(const treadle_context *context);

/** Reports that the handler is alive and gets on, which its progress timeout waits for. What
 * treadle_context_set_meta() changed goes with it. Costs little: call it as often as there is
 * something to say. Since: 0.1. */
TREADLE_API void treadle_context_progress(treadle_context *context);

/**
 * Changes the task's meta, which later attempts see; what this one was given stays as it is. It is
 * sent with the next progress or the attempt's end; a crash keeps what was sent last.
 *
 * @param name        1..64 bytes; at most 64 names
 * @param value       opaque bytes; NULL, with a value_size of 0, removes the name. A task whose
 * meta has been kept keeps one name: when all are removed, the last one removed stays, with an
 * empty value
 * @param value_size  bytes; names and values together at most 16 KiB
 *
 * @return TREADLE_OK
 *         TREADLE_E_INVALID  the name is empty or too long, or the value is NULL and has a size
 *         TREADLE_E_LIMIT    there would be too many names or bytes; nothing was changed
 *         TREADLE_E_NOMEM    nothing was changed
 *
 * Ownership: copies. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status treadle_context_set_meta(treadle_context *context,
                                                                          const char *name,
                                                                          const void *value,
                                                                          size_t value_size);

/**
 * Registers what must be done when the handler has returned, however it did; the last registered
 * runs first. A process that is killed or crashes runs none.
 *
 * @param cleanup  called with data, in the handler's thread, before the attempt's end is told
 *
 * @return TREADLE_OK
 *         TREADLE_E_INVALID  cleanup is NULL
 *         TREADLE_E_NOMEM    nothing was registered: the caller cleans up itself
 *
 * Ownership: data stays the caller's. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_context_on_end(treadle_context *context, void (*cleanup)(void *data), void *data);

/**
 * A client for submitting more tasks, of the same broker; opened when it is first asked for, kept
 * for later attempts in the same thread, closed by the library. What an earlier attempt submitted
 * and did not wait for may come from its treadle_client_recv(): use treadle_client_recv_id() or
 * TREADLE_TASK_DETACHED.
 *
 * The process that runs handlers has no secret key of the worker's in its memory: the client reads
 * the worker's identity from its file when it is first asked for. If that file is not readable
 * there, or no longer, there is no client. From then on that process leaves no core dump.
 *
 * @return NULL if no broker answers: treadle_client_error(NULL) says why; in test mode always NULL
 *
 * Since: 0.1. See also: treadle_client_run().
 */
TREADLE_API treadle_client *treadle_context_client(treadle_context *context);

/* ---- the process that serves ---- */

typedef struct treadle_worker treadle_worker;

struct treadle_worker_options {
    size_t size;         /* sizeof(struct treadle_worker_options) */
    const char *broker;  /* endpoint; NULL: TREADLE_BROKER, else tcp://127.0.0.1:7330 */
    const char *name;    /* 1..64 bytes; NULL: host:process, with a number from the second on */
    uint32_t slots;      /* attempts at a time; 0: as many as CPUs */
    int is_threaded;     /* thread-safe handlers run as threads of one child process */
    uint64_t memory_max; /* bytes of data each child may have; 0: no limit */
    uint64_t drain_ms;   /* what runs longer into a drain is stopped; 0: 30 s */
    const struct treadle_policy *policy; /* the worker's configuration; NULL: nothing given */
    const char *const *plugins;          /* files; their handlers are served beside the others */
    size_t plugin_count;
    const char *identity;   /* as treadle_client_options.identity */
    const char *server_key; /* as treadle_client_options.server_key */
};

/**
 * Makes a worker: forks the process that its children come from. Nothing is connected yet.
 *
 * @param[out] worker     written only on TREADLE_OK
 * @param options         NULL takes the defaults
 * @param handlers        what to serve; NULL only if handler_count is 0 and there are plugins
 *
 * @return TREADLE_OK
 *         TREADLE_E_THREADS  this process has more than one thread: call it first thing in main(),
 *                            before any thread, ZeroMQ context or client
 *         TREADLE_E_INVALID  an option, a name or a plugin is wrong
 *         TREADLE_E_KEY      a key is missing, or its file is refused
 *         TREADLE_E_NOMEM, TREADLE_E_IO
 *         treadle_worker_error(NULL) says more.
 *
 * Ownership: handlers and what they point to must stay; options are borrowed for the call. End the
 * worker with treadle_worker_destroy(). Threads: one worker belongs to one thread, but for
 * treadle_worker_drain(). Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_worker_create(treadle_worker **worker, const struct treadle_worker_options *options,
                      const struct treadle_handler *handlers, size_t handler_count);

/**
 * Serves until the worker is drained (treadle_worker_drain(), or by the broker's word); looks for
 * the broker for as long as there is none.
 *
 * @return TREADLE_OK         drained
 *         TREADLE_E_REFUSED  the broker will not have this worker
 *         TREADLE_E_INVALID  the broker's endpoint is none
 *         TREADLE_E_IO       the process that the children come from has died, or no sockets
 *         TREADLE_E_NOMEM
 *         treadle_worker_error(worker) says more. It may be called again.
 *
 * Wire: HELLO, DISPATCH, RESULT. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status treadle_worker_run(treadle_worker *worker);

/** Takes nothing new, finishes what runs, then treadle_worker_run() returns. From any thread, and
 * from a signal handler. Since: 0.1. */
TREADLE_API void treadle_worker_drain(treadle_worker *worker);

/** Ends whatever still runs by force, and nulls the pointer; a pointer to NULL is fine. Since: 0.1.
 */
TREADLE_API void treadle_worker_destroy(treadle_worker **worker);

/** What went wrong last, in words; NULL: what made this thread's last treadle_worker_create() fail.
 * "" if nothing did. Since: 0.1. */
TREADLE_API const char *treadle_worker_error(const treadle_worker *worker);

/**
 * Test mode: runs a handler here and now, in the caller's process, with no broker and no retry. The
 * first attempt is the only one; nothing stops it at its timeout, and a crash is the caller's.
 *
 * @param handler       as for treadle_worker_create(); its name must be for the task
 * @param task          as for treadle_client_submit()
 * @param[out] outcome  written only on TREADLE_OK; end it with treadle_outcome_free()
 *
 * @return TREADLE_OK         it ran: state and kind say how it ended
 *         TREADLE_E_INVALID  the handler has no function or no size, the task is one that
 *                            treadle_client_submit() would refuse, or one is not for the other
 *         TREADLE_E_NOMEM
 *
 * Threads: any, each with a handler that is safe there. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_handler_try(const struct treadle_handler *handler, const struct treadle_task *task,
                    struct treadle_outcome **outcome);

#ifdef __cplusplus
}
#endif

#endif
