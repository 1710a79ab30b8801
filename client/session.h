/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The client's side of the protocol as a pure state machine: no clock, no sockets, no threads, and
 * no randomness but from the seed. Who drives it (libtreadle, a simulator) tells it the time, what
 * happened to the connection and which messages came, and takes from it messages to send and events
 * to look at:
 *
 *     client_session_on_connected(session, now_ms);                   // or on_disconnected,
 * on_message, on_time while ((frames = client_session_take_message(session, now_ms)) != NULL) {
 * send(frames); } while ((event = client_session_take_event(session, NULL, NULL)) != NULL) { ...;
 * client_event_destroy(&event); } sleep_until(client_session_next_at_ms(session));
 *
 * Times are ms of any clock that never goes back. Memory: one allocation a task and an event; tasks
 * are bounded by in_flight_max and byte_max, what is unacknowledged by the broker's window.
 */
#ifndef TREADLE_CLIENT_SESSION_H
#define TREADLE_CLIENT_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include <treadle/status.h>

#include "common/base/list.h"
#include "common/wire/message.h"

struct client_session;

struct client_session_config {
    struct bytes name;       /* 1..NAME_SIZE_MAX */
    struct bytes host;       /* 0..NAME_SIZE_MAX */
    uint8_t incarnation[16]; /* random, new with each process or client */
    uint64_t seed;           /* of jitter and of the id map */
    uint32_t in_flight_max;  /* tasks not settled (or, unwatched, not accepted), 1..2^24 */
    uint64_t byte_max;       /* of tasks and events held here; 0: no limit but in_flight_max */
    uint64_t window_size;    /* bytes of unacknowledged SETTLED; 0: 256 KiB */
    uint32_t window_count;   /* entries of the same; 0: 1,024 */
};

enum client_event_kind {
    CLIENT_EVENT_WELCOME,  /* is_resumed, is_new_epoch, epoch */
    CLIENT_EVENT_REFUSED,  /* the session: status (enum refused_code), retry_after_ms, text */
    CLIENT_EVENT_ACCEPTED, /* id, status (enum accept_status), reason (enum busy_reason),
                              retry_after_ms. What the broker does not take is always told and then
                              forgotten; OK and EXISTING only with CLIENT_TELL_ACCEPTED, BUSY only
                              with CLIENT_TELL_BUSY */
    CLIENT_EVENT_SETTLED, /* id, settled, error if has_error. Implies ACCEPTED, which may never come
                           */
    CLIENT_EVENT_AWAITED, /* id, status (enum await_status). GONE and UNKNOWN: the session waits no
                             longer. Also comes unasked when a new session finds that the broker
                             lost a task it had accepted */
    CLIENT_EVENT_CANCELLED, /* id, status (enum cancel_status) */
    CLIENT_EVENT_ANSWER,    /* request, answer */
};

/* Owned by who took it. All views point into the event itself; texts are followed by a NUL. */
struct client_event {
    struct list link;         /* the session's: in its queue */
    struct list settled_link; /* the session's: SETTLED not taken yet, by number */
    uint64_t number;          /* the session's */
    enum client_event_kind kind;
    size_t size; /* bytes it takes, with what its views point to */
    struct treadle_task_id id;
    uint64_t status;
    uint64_t reason;
    uint64_t retry_after_ms;
    struct bytes text;
    bool is_resumed;
    bool is_new_epoch; /* not at the first WELCOME */
    uint64_t epoch;
    struct wire_settled_entry settled; /* but its list `error`, which is empty: see below */
    bool has_error;
    struct wire_attempt_error error;
    uint64_t request;
    const struct message
        *answer;   /* TASK_INFO, TASK_PAGE, SERVICE_INFO, WORKER_INFO, BROKER_INFO or DONE */
    void *storage; /* the event's: what `answer` is part of */
};

/* NULL without memory. The config's views are copied. End it with client_session_destroy(). */
struct client_session *client_session_create(const struct client_session_config *config);

/* Frees the session with all it holds and nulls the pointer; NULL inside is fine. */
void client_session_destroy(struct client_session **session);

/* ---- what happens ---- */

/* A connection is there: HELLO goes out first. Also after a silent reconnect. */
void client_session_on_connected(struct client_session *session, uint64_t now_ms);

/* No connection: nothing is sent until the next on_connected(). */
void client_session_on_disconnected(struct client_session *session, uint64_t now_ms);

/* A message came. Borrowed for the call. TREADLE_E_NOMEM: as if it had been lost (the gap heals
 * it); TREADLE_E_PROTOCOL: a kind that brokers do not send to clients, ignored. */
enum treadle_status client_session_on_message(struct client_session *session, uint64_t now_ms,
                                              const struct message *message);

/* Time has passed: retries, heartbeats, the broker's silence. Give it what has arrived first. */
void client_session_on_time(struct client_session *session, uint64_t now_ms);

/* When client_session_on_time() is needed next; UINT64_MAX: never. */
uint64_t client_session_next_at_ms(const struct client_session *session);

/* ---- what the application wants ---- */

#define CLIENT_TELL_ACCEPTED 1U /* an event for ACCEPTED too */
#define CLIENT_TELL_BUSY                                                                           \
    2U /* an event for BUSY, and the task is forgotten; else it is submitted again later */

struct client_submission {
    struct treadle_task_id id;
    uint8_t digest[16];
    struct bytes body;
    const struct wire_submit_template
        *fields;      /* service, task, tenant, priority, delay, flags, policy, tags, meta; with
                         SUBMIT_WATCH the session follows the task until it has settled */
    uint32_t tell;    /* CLIENT_TELL_... */
    bool is_id_given; /* it may be the id of a task that the broker has already */
};

/* Takes a task to submit; everything is copied. TREADLE_E_INVALID: a field out of its range;
 * TREADLE_E_LIMIT: the body is over what the broker admits, or over byte_max; TREADLE_E_AGAIN:
 * in_flight_max or byte_max is reached; TREADLE_E_CONFLICT: the id is in flight with another digest
 * (with the same one: OK, and one outcome); TREADLE_E_NOMEM. */
enum treadle_status client_session_submit(struct client_session *session, uint64_t now_ms,
                                          const struct client_submission *submission);

/* Follows a task by its id until it has settled: AWAITED, then SETTLED. TREADLE_E_AGAIN,
 * TREADLE_E_NOMEM as above. */
enum treadle_status client_session_await(struct client_session *session, struct treadle_task_id id);

/* Asks to cancel a task; CANCELLED tells the answer. A task that never reached the broker is
 * cancelled here, with a SETTLED as well if it is watched; but one whose id was given may be there
 * from before, so that only the broker can tell. TREADLE_E_AGAIN: 16,384 wait for answers;
 * TREADLE_E_NOMEM. */
enum treadle_status client_session_cancel(struct client_session *session,
                                          struct treadle_task_id id);

/* The answer is not wanted any more, the cancellation still is; an unknown id is fine. */
void client_session_forget_cancel(struct client_session *session, struct treadle_task_id id);

/* Sends a query or an administration message and repeats it until it is answered; its field
 * `request` is set here and given to *request. TREADLE_E_INVALID: not such a kind, or a field out
 * of its range; TREADLE_E_AGAIN: 64 requests wait for answers; TREADLE_E_NOMEM. */
enum treadle_status client_session_request(struct client_session *session,
                                           const struct message *query, uint64_t *request);

/* The answer is not wanted any more; an unknown number is fine. */
void client_session_forget_request(struct client_session *session, uint64_t number);

/* Stops following a task (its outcome is dropped when it comes); an unknown id is fine. */
void client_session_forget(struct client_session *session, struct treadle_task_id id);

/* The session ends: GOODBYE goes out if the broker knows it, and nothing after it. */
void client_session_goodbye(struct client_session *session);

/* ---- what comes out ---- */

/* The next message to send, or NULL. Valid until the next call for this session; call it only when
 * the frames can be sent now. One that could not be sent after all is as one that was lost: the
 * broker notices the gap. */
const struct wire_frames *client_session_take_message(struct client_session *session,
                                                      uint64_t now_ms);

/* Takes the oldest event that is_wanted() (NULL: any) out of the queue, or NULL. Taking a SETTLED
 * acknowledges it with the next message. The caller ends it with client_event_destroy(). */
struct client_event *client_session_take_event(struct client_session *session,
                                               bool (*is_wanted)(const struct client_event *event,
                                                                 const void *context),
                                               const void *context);

void client_event_destroy(struct client_event **event);

/* ---- what it is like ---- */

/* The broker knows this session: its WELCOME came, and nothing since says otherwise. */
bool client_session_is_welcome(const struct client_session *session);

/* REFUSED for good (replaced, no rights, version): it will not say HELLO again on its own. */
bool client_session_is_over(const struct client_session *session);

/* Whether this task is in flight: submitted and not accepted yet, or followed until it has settled.
 */
bool client_session_is_followed(const struct client_session *session, struct treadle_task_id id);

/* The broker was silent for too long: the connection should be made anew. Asking resets it. */
bool client_session_wants_reconnect(struct client_session *session);

struct client_session_figures {
    uint32_t in_flight_count;  /* tasks the session follows or has to submit */
    uint32_t unaccepted_count; /* of these, the ones the broker has not answered for */
    uint32_t awaited_count;    /* of these, the ones that a SETTLED or a refusal will end */
    uint32_t event_count;      /* not taken yet */
    uint64_t held_size;        /* bytes of tasks, templates and events */
    uint64_t upto;             /* the last SETTLED entry that may be acknowledged */
    uint64_t received_number;  /* the last SETTLED entry received in this session */
    uint64_t message_number;   /* of the last message sent */
    uint64_t epoch;            /* 0 before the first WELCOME */
    uint64_t body_size_max; /* what the broker admits; BODY_SIZE_LIMIT before the first WELCOME */
    uint64_t double_count, gap_count,
        again_count; /* messages dropped, gaps seen, tasks submitted again */
};

struct client_session_figures client_session_figures(const struct client_session *session);

/* The WELCOME that is in force, or the last one; views (version, services ...) are valid until the
 * next one. NULL before the first. */
const struct wire_welcome *client_session_welcome(const struct client_session *session);

#endif
