/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_CLIENT_H
#define TREADLE_CLIENT_H

/**
 * The client: submits tasks to a broker and receives their outcomes.
 *
 *     treadle_client *client = NULL;
 *     if (treadle_client_open(&client, NULL) != TREADLE_OK) {
 *         fprintf(stderr, "%s\n", treadle_client_error(NULL));
 *         return 1;
 *     }
 *     struct treadle_task task = {.size = sizeof(task), .name = "wc.count"};
 *     struct treadle_outcome *outcome = NULL;
 *     task.body = "a b";
 *     task.body_size = 3;
 *     if (treadle_client_run(client, &task, TREADLE_FOREVER, &outcome) == TREADLE_OK) {
 *         fwrite(outcome->body, 1, outcome->body_size, stdout);
 *     }
 *     treadle_outcome_free(&outcome);
 *     treadle_client_close(&client);
 *
 * Many tasks from one thread: submit them, then take the outcomes as they come. Submissions leave
 * in batches by themselves; there is no call for several. A program with an event loop polls
 * treadle_client_fd() and calls treadle_client_recv() with a timeout of 0 until that has nothing
 * more; it needs no timer for the client.
 *
 * A client has no thread of its own: it sends, receives and says that it is alive only inside these
 * calls. One that is not called for longer than the broker waits (3 s by default) is taken up again
 * at the next call; what it submitted goes on meanwhile. The connection may come and go, and so may
 * the broker: nothing that was submitted is forgotten, and what had no answer, or was lost with a
 * broker, is submitted again under its id.
 *
 * Limits: a broker that is full says "busy", and the tasks are submitted again later, without the
 * application's help and not all at once. What waits here is bounded by in_flight_max and byte_max:
 * past them treadle_client_submit() answers TREADLE_E_AGAIN, and taking outcomes makes room.
 *
 * Threads: a client belongs to one thread at a time; several clients may live in one process.
 * Structs with `size`: set it to sizeof the struct and zero the rest; a zero field means its
 * default, so that programs built with an older header go on working.
 *
 * Manual: treadle_client_open(3), treadle_client_submit(3), treadle_client_recv(3),
 * treadle_client_fd(3), treadle_client_cancel(3), treadle_id_new(3). Examples: docs/examples.
 */

#include <stddef.h>
#include <stdint.h>

#include <treadle/export.h>
#include <treadle/id.h>
#include <treadle/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A timeout that never passes. */
#define TREADLE_FOREVER INT64_C(-1)

/** At most this many bytes in a service's name, a task's name, a tenant, a tag, a client's name. */
#define TREADLE_NAME_SIZE_MAX 64

/** At most this many bytes in a body; brokers admit 4 MiB unless configured otherwise. */
#define TREADLE_BODY_SIZE_MAX 67108864U /* 64 MiB */

typedef struct treadle_client treadle_client;

struct treadle_client_options {
    size_t size;        /* sizeof(struct treadle_client_options) */
    const char *broker; /* endpoint; NULL: TREADLE_BROKER, else tcp://127.0.0.1:7330 */
    const char
        *name; /* 1..64 bytes, one for each running client; NULL: host, process and a random part */
    uint32_t connect_timeout_ms; /* how long treadle_client_open() looks for the broker; 0: 5,000 */
    uint32_t in_flight_max; /* tasks submitted and not settled at once; 0: 65,536; at most 2^24 */
    uint64_t byte_max;    /* bytes of tasks in flight and of outcomes not taken; 0: 256 MiB. A task
                             counts its body and about 140 bytes */
    const char *identity; /* file with this program's keys, as `treadle key gen` makes it; NULL:
                             TREADLE_IDENTITY, else ~/.config/treadle/identity.key */
    const char *server_key; /* the key that a broker at tcp:// must have: file, 64 hexadecimal
                               digits, or "none": plain; NULL: TREADLE_SERVER_KEY, else
                               ~/.config/treadle/server.pub if it is there, else plain, which is
                               refused (TREADLE_E_KEY) unless the endpoint is on the loopback */
};

/** result=keep: the result stays at the broker until the result TTL; else it is dropped once
 * received. */
#define TREADLE_TASK_KEEP 1U
/** The task need not survive the broker: accepted without waiting for the disk. */
#define TREADLE_TASK_VOLATILE 2U
/** Submit and forget: this client does not receive the outcome, only a refusal. */
#define TREADLE_TASK_DETACHED 4U

struct treadle_meta {
    const char *name; /* 1..64 bytes */
    const void *value;
    size_t value_size; /* bytes; names and values of a task together at most 16 KiB */
};

/** A task to submit. Only size and name are needed; 0 and NULL leave a field to the broker's
 * policies. */
struct treadle_task {
    size_t size;      /* sizeof(struct treadle_task) */
    const char *name; /* SERVICE.TASK of [A-Za-z0-9._-]; splits at the last dot; 64 bytes each */
    const void *body; /* opaque bytes; NULL only if body_size is 0 */
    size_t body_size; /* bytes */
    const struct treadle_task_id *id; /* NULL: a new one */
    const char *tenant;               /* NULL: the principal */
    const char *const *tags;          /* at most 16 of 1..64 bytes */
    size_t tag_count;
    const struct treadle_meta *meta; /* at most 64 */
    size_t meta_count;
    uint32_t flags;                /* TREADLE_TASK_... */
    uint32_t priority_plus_one;    /* 1..10: priority 0..9, 9 the most urgent; 0: the default, 4 */
    uint32_t attempts_max;         /* attempts in all, 1..1,000 */
    uint32_t backoff_factor_milli; /* 2000: doubling */
    uint64_t backoff_base_ms;
    uint64_t backoff_max_ms;
    uint64_t delay_ms;            /* not before this span has passed */
    uint64_t queue_timeout_ms;    /* until handed out for the first time */
    uint64_t timeout_ms;          /* of one attempt */
    uint64_t progress_timeout_ms; /* between two reports of the handler */
    uint64_t deadline_ms;         /* the whole task, retries and transport included */
    uint64_t result_ttl_ms;       /* how long the settled result is kept */
};

enum treadle_task_state {
    TREADLE_TASK_SCHEDULED,
    TREADLE_TASK_BLOCKED,
    TREADLE_TASK_READY,
    TREADLE_TASK_RUNNING,
    TREADLE_TASK_SUCCEEDED, /* the settled states begin here */
    TREADLE_TASK_FAILED,
    TREADLE_TASK_CANCELLED,
    TREADLE_TASK_EXPIRED
};

enum treadle_failure_kind {
    TREADLE_FAILURE_NONE,
    TREADLE_FAILURE_PREPARE,
    TREADLE_FAILURE_PERMANENT,
    TREADLE_FAILURE_TRANSIENT,
    TREADLE_FAILURE_TIMEOUT,
    TREADLE_FAILURE_CRASH,
    TREADLE_FAILURE_LOST,
    TREADLE_FAILURE_RETURNED,
    TREADLE_FAILURE_FINALIZE,
    TREADLE_FAILURE_DAMAGED,
    TREADLE_FAILURE_CANCELLED,
    TREADLE_FAILURE_EXPIRED,
    TREADLE_FAILURE_UPSTREAM
};

/** What became of a task. Made by the library, ended with treadle_outcome_free(); grows at its end
 * only. */
struct treadle_outcome {
    struct treadle_task_id id;
    enum treadle_status
        status;         /* TREADLE_OK: settled, see state. Else the broker has not this task:
                           TREADLE_E_REFUSED, TREADLE_E_CONFLICT (the id stands for another content),
                           TREADLE_E_BUSY (only when asked for), TREADLE_E_NOT_FOUND (unknown, gone, or
                           too long ago to tell); reason says why */
    const char *reason; /* a word, as on the wire ("id_taken"); "" when settled */
    enum treadle_task_state state;  /* succeeded, failed, cancelled or expired */
    enum treadle_failure_kind kind; /* NONE when it succeeded */
    const char *kind_text;          /* "transient" ... */
    const char
        *error_name; /* of the last failed attempt; "" if there is none. Any bytes: peer text */
    const char *error_message;
    const char *error_trace;
    const char *worker; /* where the last failed attempt ran */
    const char *host;
    uint32_t dispatch; /* how often it was handed out */
    uint32_t attempts; /* attempts spent */
    uint32_t attempts_max;
    int is_cancel_requested; /* somebody asked to cancel it, and it ended before that worked */
    int is_result_gone;      /* it succeeded, but the result is kept no longer */
    const void *body;        /* the result; NULL only if body_size is 0 */
    size_t body_size;        /* bytes */
    const char *state_text;  /* "succeeded" ...; "" unless settled */
};

/**
 * Opens a client and finds its broker: the one in the options, else the one that TREADLE_BROKER
 * names in the environment, else tcp://127.0.0.1:7330.
 *
 * Where a server key is known, a connection over tcp:// is encrypted, the broker has to prove that
 * it has that key, and this client shows its identity. Where none is known, a connection over
 * tcp:// is made on the loopback only. This library keeps the secret key in locked memory until the
 * client is closed, but libzmq has copies of its own elsewhere: a program that holds one may want
 * no core dumps of itself (setrlimit(2), RLIMIT_CORE). Endpoints ipc:// are plain.
 *
 * @param[out] client  the client, written only on TREADLE_OK
 * @param options      NULL takes the defaults
 *
 * @return TREADLE_OK            the broker answered
 *         TREADLE_E_NO_BROKER   none did within connect_timeout_ms
 *         TREADLE_E_REFUSED     the broker will not talk with this client, or not with its key
 *         TREADLE_E_KEY         a key is missing, or its file is refused: that of a secret key must
 *                               be of this user and closed to all others
 *         TREADLE_E_INVALID     an option is out of range
 *         TREADLE_E_IO          there are no sockets to be had
 *         TREADLE_E_NOMEM
 *         treadle_client_error(NULL) says more about each, until the next call of this function in
 *         this thread.
 *
 * Ownership: borrows the options for the call; end the client with treadle_client_close().
 * Wire: HELLO, WELCOME. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_open(treadle_client **client, const struct treadle_client_options *options);

/**
 * Says goodbye, closes the connection and nulls the pointer; a pointer to NULL is fine. What was
 * accepted goes on at the broker; what was not yet sent is lost (treadle_client_flush() first).
 * Takes at most 1.5 s.
 *
 * @param client  the client
 *
 * Wire: GOODBYE. Since: 0.1.
 */
TREADLE_API void treadle_client_close(treadle_client **client);

/**
 * Submits one task and returns at once; the outcome comes from treadle_client_recv().
 *
 * Tasks leave in batches: what is submitted within the same millisecond goes in one message, the
 * last ones with the next call of any function. The same id with the same content is one task with
 * one outcome, however often it is submitted.
 *
 * @param client   open client
 * @param task     the task
 * @param[out] id  its id, written only on TREADLE_OK; NULL if the caller does not care
 *
 * @return TREADLE_OK          in the client's hands; NOT yet accepted by a broker
 *         TREADLE_E_INVALID   a name, a number or a size is out of range
 *         TREADLE_E_LIMIT     the body is larger than the broker admits, or than byte_max
 *         TREADLE_E_AGAIN     in_flight_max or byte_max is reached; call treadle_client_recv(),
 * then try again TREADLE_E_CONFLICT  this client has a task with this id and another content in
 * flight TREADLE_E_NOMEM
 *
 * Ownership: copies the task and its body.
 * Wire: SUBMIT. Since: 0.1. See also: treadle_client_recv(), treadle_client_run().
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_submit(treadle_client *client, const struct treadle_task *task,
                      struct treadle_task_id *id);

/**
 * Does what is due, then waits until the broker has answered for every task submitted: accepted,
 * refused or settled. What was refused is told by treadle_client_recv(). With a timeout of 0 it
 * only does what is due, for an application that wants no outcomes now.
 *
 * @param client      open client
 * @param timeout_ms  0 (do not wait) or more, or TREADLE_FOREVER
 *
 * @return TREADLE_OK         every task has its answer
 *         TREADLE_E_TIMEOUT  not yet
 *         TREADLE_E_AGAIN    interrupted by a signal
 *         TREADLE_E_REFUSED  the broker ended this client's session for good
 *         TREADLE_E_IO       there are no sockets to be had; tried again every second
 *
 * Wire: SUBMIT, ACCEPTED. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status treadle_client_flush(treadle_client *client,
                                                                      int64_t timeout_ms);

/**
 * Waits for the next outcome of what this client submitted or awaits, in the order they come; does
 * what is due, whether there is one or not. With a timeout of 0 it never blocks.
 *
 * @param client        open client
 * @param timeout_ms    0 (only look), more, or TREADLE_FOREVER
 * @param[out] outcome  written only on TREADLE_OK
 *
 * @return TREADLE_OK         there is an outcome
 *         TREADLE_E_TIMEOUT  none came; at once when there is nothing to wait for
 *         TREADLE_E_AGAIN    interrupted by a signal
 *         TREADLE_E_REFUSED  the broker ended this client's session for good
 *         TREADLE_E_IO       there are no sockets to be had; tried again every second
 *         TREADLE_E_NOMEM    the outcome is lost
 *
 * Ownership: the caller ends the outcome with treadle_outcome_free().
 * Wire: SETTLED; taking an outcome acknowledges it. Since: 0.1. See also: treadle_client_fd().
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_recv(treadle_client *client, int64_t timeout_ms, struct treadle_outcome **outcome);

/**
 * A descriptor for poll(), epoll or an event loop: readable while the client has an outcome to give
 * or something to do, heartbeats and reconnection included. Level-triggered.
 *
 * When it is readable, call treadle_client_recv() with a timeout of 0 until that gives no outcome;
 * it does what is due as well. To leave the outcomes where they are, call treadle_client_flush()
 * with 0 at least once a second instead: the descriptor stays readable while outcomes wait. An
 * idle client wakes its application for heartbeats only, about twice a second. Once the session has
 * ended for good (TREADLE_E_REFUSED) it stays readable.
 *
 * @param client  open client
 *
 * @return the descriptor, the same at each call, or -1 if the system gives none:
 *         treadle_client_error() says why
 *
 * Ownership: the client's; do not read, write or close it. Valid until treadle_client_close().
 * Since: 0.1. See also: treadle_client_recv().
 */
TREADLE_API int treadle_client_fd(treadle_client *client);

/**
 * Submits a task and waits for its outcome; those of other tasks stay for treadle_client_recv().
 *
 * @param client        open client
 * @param task          the task
 * @param timeout_ms    as for treadle_client_recv()
 * @param[out] outcome  written only on TREADLE_OK
 *
 * @return as treadle_client_submit() and treadle_client_recv(); after TREADLE_E_TIMEOUT and
 *         TREADLE_E_AGAIN of the waiting the task goes on, and its outcome comes from
 *         treadle_client_recv() or treadle_client_recv_id(). TREADLE_OK says only that there is an
 *         outcome: look at its status and state
 *
 * Ownership: the caller ends the outcome with treadle_outcome_free().
 * Wire: SUBMIT, SETTLED. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_run(treadle_client *client, const struct treadle_task *task, int64_t timeout_ms,
                   struct treadle_outcome **outcome);

/**
 * As treadle_client_recv(), but only for the outcome of one task. It looks through the outcomes not
 * taken: for many tasks at once use treadle_client_recv().
 *
 * @param client        open client
 * @param id            the task
 * @param timeout_ms    as for treadle_client_recv()
 * @param[out] outcome  written only on TREADLE_OK
 *
 * @return as treadle_client_recv(), and
 *         TREADLE_E_NOT_FOUND  this client neither submitted nor awaits that task, or its outcome
 *                              was taken
 *
 * Ownership: the caller ends the outcome with treadle_outcome_free().
 * Wire: SETTLED. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_recv_id(treadle_client *client, const struct treadle_task_id *id, int64_t timeout_ms,
                       struct treadle_outcome **outcome);

/**
 * Asks for the outcome of a task submitted elsewhere, or earlier, by the same principal; it comes
 * from treadle_client_recv(), with status TREADLE_E_NOT_FOUND if the broker knows no such task, or
 * lost it in a restart.
 *
 * @param client  open client
 * @param id      the task
 *
 * @return TREADLE_OK       asked
 *         TREADLE_E_AGAIN  as treadle_client_submit()
 *         TREADLE_E_NOMEM
 *
 * Wire: AWAIT. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_await(treadle_client *client, const struct treadle_task_id *id);

enum treadle_cancel {
    TREADLE_CANCEL_DONE,      /* it waited, and is cancelled now */
    TREADLE_CANCEL_REQUESTED, /* it runs; its worker is told */
    TREADLE_CANCEL_SETTLED_ALREADY,
    TREADLE_CANCEL_UNKNOWN
};

/**
 * Asks the broker to cancel a task and waits for the answer. The outcome, if this client waits for
 * it, comes as always: cancelled, or what the task came to before. A task that has not left this
 * client is cancelled at once, unless the application chose its id, which the broker may know.
 *
 * With a timeout of 0 it does not wait: TREADLE_E_TIMEOUT then says that the request is on its way,
 * and the outcome tells what came of it. So does every later TREADLE_E_TIMEOUT and TREADLE_E_AGAIN;
 * calling it again waits for the same answer.
 *
 * @param client       open client
 * @param id           the task, of this client or of another of the same principal
 * @param timeout_ms   0 (do not wait) or more, or TREADLE_FOREVER
 * @param[out] answer  written only on TREADLE_OK; NULL if the caller does not care
 *
 * @return TREADLE_OK         answered
 *         TREADLE_E_TIMEOUT  not answered yet; the request stands
 *         TREADLE_E_AGAIN    interrupted by a signal, the request stands; or 16,384 of them wait
 * for answers, and nothing was asked TREADLE_E_REFUSED, TREADLE_E_IO, TREADLE_E_NOMEM  as
 * treadle_client_recv()
 *
 * Wire: CANCEL. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_cancel(treadle_client *client, const struct treadle_task_id *id, int64_t timeout_ms,
                      enum treadle_cancel *answer);

/**
 * Ends an outcome and nulls the pointer; a pointer to NULL is fine. Outcomes may outlive their
 * client.
 *
 * @param outcome  what treadle_client_recv() and its like gave
 *
 * Threads: any, one at a time. Since: 0.1.
 */
TREADLE_API void treadle_outcome_free(struct treadle_outcome **outcome);

/**
 * What went wrong last, in words, for people.
 *
 * @param client  NULL: what made this thread's last treadle_client_open() fail
 *
 * @return "" if nothing did; valid until the next call for the same client (or of
 *         treadle_client_open())
 *
 * Ownership: the client's. Since: 0.1.
 */
TREADLE_API const char *treadle_client_error(const treadle_client *client);

#ifdef __cplusplus
}
#endif

#endif
