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
 *     struct treadle_task task = {.size = sizeof(task), .name = "wc.count", .body = "a b",
 * .body_size = 3}; struct treadle_outcome *outcome = NULL; if (treadle_client_run(client, &task,
 * TREADLE_FOREVER, &outcome) == TREADLE_OK) { fwrite(outcome->body, 1, outcome->body_size, stdout);
 *     }
 *     treadle_outcome_free(&outcome);
 *     treadle_client_close(&client);
 *
 * A client has no thread of its own: it sends, receives and says that it is alive only inside these
 * calls. One that is not called for longer than the broker waits (3 s by default) is taken up again
 * at the next call; what it submitted goes on meanwhile. The same connection may come and go:
 * nothing that was submitted is forgotten, and what had no answer is submitted again under its id.
 *
 * Threads: a client belongs to one thread at a time; several clients may live in one process.
 * Structs with `size`: set it to sizeof the struct and zero the rest; a zero field means its
 * default, so that programs built with an older header go on working.
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
};

/**
 * Opens a client and finds its broker.
 *
 * @param[out] client  the client, written only on TREADLE_OK
 * @param options      NULL takes the defaults
 *
 * @return TREADLE_OK            the broker answered
 *         TREADLE_E_NO_BROKER   none did within connect_timeout_ms
 *         TREADLE_E_REFUSED     the broker will not talk with this client
 *         TREADLE_E_INVALID     an option is out of range
 *         TREADLE_E_NOMEM, TREADLE_E_IO
 *         treadle_client_error(NULL) says more about each, until the next call of this function in
 * this thread.
 *
 * Ownership: borrows the options for the call; end the client with treadle_client_close().
 * Wire: HELLO, WELCOME. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_open(treadle_client **client, const struct treadle_client_options *options);

/**
 * Says goodbye, closes the connection and nulls the pointer. What was accepted goes on at the
 * broker; what was not yet sent is lost (treadle_client_flush() first). Takes at most 1.5 s. A
 * pointer to NULL is fine.
 *
 * Wire: GOODBYE. Since: 0.1.
 */
TREADLE_API void treadle_client_close(treadle_client **client);

/**
 * Submits one task and returns at once; the outcome comes from treadle_client_recv().
 *
 * @param client   open client
 * @param task     the task
 * @param[out] id  its id, written only on TREADLE_OK; NULL if the caller does not care
 *
 * @return TREADLE_OK          in the client's hands; NOT yet accepted by a broker
 *         TREADLE_E_INVALID   a name, a number or a size is out of range
 *         TREADLE_E_LIMIT     the body is larger than the broker admits
 *         TREADLE_E_AGAIN     in_flight_max tasks are not settled yet; call treadle_client_recv(),
 * then try again TREADLE_E_CONFLICT  this client has a task with this id and another content in
 * flight TREADLE_E_NOMEM
 *
 * The same id with the same content is one task with one outcome, however often it is submitted.
 * Ownership: copies the task and its body.
 * Wire: SUBMIT. Since: 0.1. See also: treadle_client_recv(), treadle_client_run().
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_submit(treadle_client *client, const struct treadle_task *task,
                      struct treadle_task_id *id);

/**
 * Waits until the broker has answered for every task submitted: accepted, refused or settled. What
 * was refused is told by treadle_client_recv().
 *
 * @param timeout_ms  0 or more, or TREADLE_FOREVER
 *
 * @return TREADLE_OK, TREADLE_E_TIMEOUT, TREADLE_E_AGAIN (interrupted by a signal),
 * TREADLE_E_REFUSED (the broker ended this client's session for good), TREADLE_E_IO,
 * TREADLE_E_NOMEM
 *
 * Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status treadle_client_flush(treadle_client *client,
                                                                      int64_t timeout_ms);

/**
 * Waits for the next outcome of what this client submitted or awaits, in the order they come.
 *
 * @param timeout_ms    0 (only look), more, or TREADLE_FOREVER
 * @param[out] outcome  written only on TREADLE_OK
 *
 * @return as treadle_client_flush(); TREADLE_E_TIMEOUT also at once, when there is nothing to wait
 * for
 *
 * Ownership: the caller ends the outcome with treadle_outcome_free().
 * Wire: SETTLED; taking an outcome acknowledges it. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_recv(treadle_client *client, int64_t timeout_ms, struct treadle_outcome **outcome);

/**
 * Submits a task and waits for its outcome; those of other tasks stay for treadle_client_recv().
 *
 * @return as treadle_client_submit() and treadle_client_recv(); on TREADLE_E_TIMEOUT and
 * TREADLE_E_AGAIN the task goes on, and its outcome comes from treadle_client_recv() or
 * treadle_client_recv_id(). TREADLE_OK says only that there is an outcome: look at its status and
 * state
 *
 * Ownership: the caller ends the outcome with treadle_outcome_free(). Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_run(treadle_client *client, const struct treadle_task *task, int64_t timeout_ms,
                   struct treadle_outcome **outcome);

/**
 * As treadle_client_recv(), but only for the outcome of one task.
 *
 * @return also TREADLE_E_NOT_FOUND: this client neither submitted nor awaits that task, or its
 *         outcome was taken
 *
 * Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_recv_id(treadle_client *client, const struct treadle_task_id *id, int64_t timeout_ms,
                       struct treadle_outcome **outcome);

/**
 * Asks for the outcome of a task submitted elsewhere, or earlier, by the same principal; it comes
 * from treadle_client_recv(), with status TREADLE_E_NOT_FOUND if the broker knows no such task.
 *
 * @return TREADLE_OK (asked), TREADLE_E_AGAIN as treadle_client_submit(), TREADLE_E_NOMEM
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
 * it, comes as always.
 *
 * @param timeout_ms   as treadle_client_flush()
 * @param[out] answer  written only on TREADLE_OK; NULL if the caller does not care
 *
 * @return as treadle_client_flush(); after TREADLE_E_TIMEOUT the request stands
 *
 * Wire: CANCEL. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status
treadle_client_cancel(treadle_client *client, const struct treadle_task_id *id, int64_t timeout_ms,
                      enum treadle_cancel *answer);

/** Ends an outcome and nulls the pointer; a pointer to NULL is fine. Since: 0.1. */
TREADLE_API void treadle_outcome_free(struct treadle_outcome **outcome);

/**
 * What went wrong last, in words, for people.
 *
 * @param client  NULL: what made this thread's last treadle_client_open() fail
 *
 * @return "" if nothing did; valid until the next call for the same client (or of
 * treadle_client_open())
 *
 * Since: 0.1.
 */
TREADLE_API const char *treadle_client_error(const treadle_client *client);

#ifdef __cplusplus
}
#endif

#endif
