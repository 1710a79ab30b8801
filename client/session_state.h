/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What a client's session is made of, for its four sources: session.c (what happens, and what the
 * application wants), session_task.c (tasks, their stages, events), session_cancel.c and
 * session_out.c (what goes out).
 */
#ifndef TREADLE_CLIENT_SESSION_STATE_H
#define TREADLE_CLIENT_SESSION_STATE_H

#include "client/session.h"

#include "common/base/assert.h"
#include "common/base/hash.h"
#include "common/base/map.h"
#include "common/base/prng.h"

#define TEMPLATE_BUCKETS_MIN 256  /* a power of two */
#define ENTRY_OVERHEAD       256  /* what an entry counts beside its body, for acknowledging */
#define HEARTBEAT_DEFAULT_MS 1000 /* until a WELCOME says otherwise */
#define LIVENESS_DEFAULT     3

/* Where a task stands; each stage is a list, but the two that wait for a time are in the heap as
 * well. */
enum stage {
    STAGE_PENDING,       /* to be submitted */
    STAGE_SENT,          /* submitted, not answered */
    STAGE_BUSY,          /* refused for now, to be submitted again at retry_at_ms */
    STAGE_AWAIT_PENDING, /* accepted; AWAIT is to be sent */
    STAGE_AWAIT_SENT,
    STAGE_AWAIT_BUSY,
    STAGE_FOLLOWED, /* accepted; SETTLED will come */
    STAGE_COUNT,
};

/* The fields that tasks have in common, encoded; shared by all tasks with the same ones. */
struct template
{
    struct template *next; /* in its bucket */
    uint64_t hash;
    uint32_t reference_count;
    uint32_t slot; /* in the SUBMIT `submit_number`, with this deadline */
    uint64_t submit_number;
    uint64_t slot_deadline_ms;
    uint64_t deadline_ms;
    size_t size;
    uint8_t data[];
};

/* There may be a million of these: client_task_cost() says what one takes. */
struct session_task {
    struct list link; /* in the list of its stage */
    struct treadle_task_id id;
    uint8_t digest[16];
    struct template *template; /* NULL: awaited only */
    uint64_t submitted_at_ms;
    union {                        /* one of them at a time */
        uint64_t first_sent_at_ms; /* while it is submitted */
        uint64_t retry_at_ms;      /* of the BUSY stages */
    };
    uint32_t index;      /* in session.tasks */
    uint32_t heap_index; /* in session.heap, of the BUSY stages */
    uint32_t body_size;
    uint8_t stage; /* enum stage */
    uint8_t tell;
    bool is_watched : 1;
    bool needs_await : 1; /* once accepted */
    bool tells_awaited : 1;
    bool is_cancel_requested : 1;
    bool is_id_given : 1;
    bool was_sent : 1; /* and the broker may have it */
    uint8_t body[];
};

struct cancel_request {
    struct list link;
    struct treadle_task_id id;
    bool is_forgotten; /* nobody waits for the answer any more */
};

struct query_request {
    struct list link;
    uint64_t number;
    bool is_sent;
    struct message message;
    struct writer bytes;
};

struct answer_storage {
    struct message message;
    struct writer bytes;
};

struct client_session {
    /* who */
    uint8_t name[NAME_SIZE_MAX];
    size_t name_size;
    uint8_t host[NAME_SIZE_MAX];
    size_t host_size;
    uint8_t incarnation[16];
    struct prng prng;
    struct hash_key hash_key;
    uint64_t window_size;
    uint64_t window_count;

    /* the connection and the session on it */
    bool is_connected;
    bool is_welcome;
    bool is_over;
    bool is_leaving;
    bool wants_reconnect;
    uint64_t hello_number; /* of the HELLO that waits for its WELCOME; 0: none does */
    uint64_t hello_at_ms;  /* when the next HELLO is due, while not welcome */
    uint64_t hello_sent_at_ms;
    bool has_said_hello;
    uint32_t hello_tries;
    uint64_t expected_number; /* of the broker's next message */
    uint64_t message_number;  /* of the last one sent */
    uint64_t heard_at_ms;
    uint64_t sent_at_ms;
    bool has_welcome;
    struct wire_welcome welcome;
    uint8_t welcome_id[16];
    uint8_t welcome_version[NAME_SIZE_MAX];
    uint8_t welcome_principal[NAME_SIZE_MAX];
    uint8_t *welcome_services; /* the list as it came; NULL: empty */

    /* acknowledging */
    uint64_t received_number;
    uint64_t acked_number;
    uint64_t taken_size; /* taken by the application since the last acknowledgement */
    bool is_ack_due;

    /* tasks */
    uint32_t in_flight_max;
    uint64_t byte_max;    /* 0: none */
    uint64_t held_size;   /* bytes of tasks, templates and events */
    uint32_t index_count; /* of session.tasks ever used */
    uint32_t free_count;
    uint32_t *free_indexes;
    struct session_task **tasks;
    void *map_memory;
    struct map map;
    struct list stages[STAGE_COUNT];
    uint32_t stage_counts[STAGE_COUNT];
    uint32_t watched_count;
    uint64_t sent_size;     /* of the bodies in STAGE_SENT */
    uint64_t submit_number; /* of the SUBMIT under way, tries without memory included */
    struct session_task **heap;
    uint32_t heap_count;
    struct template **templates;
    uint32_t template_bucket_count; /* a power of two */
    uint32_t template_count;

    /* turns: session_out.c */
    uint32_t turn_count_max;  /* tasks in a turn; 0: there are no turns */
    uint32_t turn_left_count; /* that may still go in this one */
    uint32_t turn_taken_count;
    bool is_turn_busy; /* BUSY was heard in it */
    uint64_t turn_at_ms;

    struct list cancels_pending;
    struct list cancels_sent;
    uint32_t cancel_count;
    struct list requests;
    uint32_t request_count;
    uint64_t request_number;

    struct list events;
    struct list settled; /* those of events that are SETTLED of this session, by number */
    uint32_t event_count;

    struct writer scratch;
    struct writer template_writer;
    struct writer entry_writer;
    struct writer out;

    uint64_t double_count, gap_count, again_count;
};

static inline uint64_t add_clamped(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static inline uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t heartbeat_ms(const struct client_session *session)
{
    const uint64_t span_ms = session->has_welcome ? session->welcome.heartbeat_ms : 0;
    return span_ms == 0 ? HEARTBEAT_DEFAULT_MS : span_ms;
}

static inline uint64_t silence_ms(const struct client_session *session)
{
    const uint64_t liveness = session->has_welcome ? session->welcome.liveness : 0;
    return heartbeat_ms(session) * (liveness == 0 ? LIVENESS_DEFAULT : liveness);
}

static inline uint64_t body_size_max(const struct client_session *session)
{
    return session->has_welcome ? smaller(session->welcome.body_size_max, BODY_SIZE_LIMIT)
                                : BODY_SIZE_LIMIT;
}

static inline void end_for_good(struct client_session *session)
{
    session->is_over = true;
    session->is_welcome = false;
    session->hello_number = 0;
}

/* ---- session_out.c ---- */

/* The broker is at a limit: what is to be submitted goes in turns. */
void client_turn_on_busy(struct client_session *session, uint64_t now_ms, uint64_t retry_after_ms);

/* The broker took a task. */
void client_turn_on_taken(struct client_session *session);

/* When the next turn may begin, if tasks wait for it; else UINT64_MAX. */
uint64_t client_turn_next_at_ms(const struct client_session *session);

/* ---- session_cancel.c ---- */

/* Ends the cancellation that an entry answers, and tells it if somebody waits for that; false
 * without memory. */
bool client_cancel_answered(struct client_session *session,
                            const struct wire_cancelled_entry *entry);

/* Frees them all. */
void client_cancels_destroy(struct client_session *session);

/* ---- session_task.c ---- */

/* Memory for the first templates; false without it. */
bool client_templates_init(struct client_session *session);

/* Bytes that a task with such a body takes, with its share of the indexes. */
uint64_t client_task_cost(uint64_t body_size);

/* The template with these fields, which session->scratch holds encoded; one more reference to it.
 * NULL without memory. */
struct template *client_template_take(struct client_session *session,
                                      const struct wire_submit_template *fields);

/* One reference less; the last one frees it. */
void client_template_give(struct client_session *session, struct template *template);

/* The task in flight with this id, or NULL. */
struct session_task *client_task_find(const struct client_session *session,
                                      const struct treadle_task_id *id);

/* Out of its stage, and into one: at its end, or first in it. Between the two retry_at_ms may
 * change. */
void client_task_unlink(struct client_session *session, struct session_task *task);

void client_task_link(struct client_session *session, struct session_task *task, enum stage stage,
                      bool is_first);

/* From its stage to the end of another that does not wait for a time. */
void client_task_move(struct client_session *session, struct session_task *task, enum stage stage);

/* Whether a SETTLED of it is told. */
void client_task_set_watched(struct client_session *session, struct session_task *task,
                             bool is_watched);

/* NULL without memory; the caller has checked in_flight_max. */
struct session_task *client_task_create(struct client_session *session, struct treadle_task_id id,
                                        struct bytes body, enum stage stage);

/* Out of its stage and of the map, and freed. */
void client_task_destroy(struct client_session *session, struct session_task *task);

/* From its stage to one that waits until retry_at_ms. */
void client_task_wait(struct client_session *session, struct session_task *task, enum stage stage,
                      uint64_t retry_at_ms);

/* The broker has this task; what is left to do about it? May destroy it. */
void client_task_accepted(struct client_session *session, struct session_task *task);

/* Settles a task that the broker has not, as cancelled; tells it if somebody waits for it. False
 * without memory. */
bool client_task_cancel_here(struct client_session *session, struct session_task *task);

/* An event with extra_size bytes behind it for what it points to; NULL without memory. */
struct client_event *client_event_create(enum client_event_kind kind, size_t extra_size);

/* To the end of the queue, which owns it until it is taken. */
void client_event_push(struct client_session *session, struct client_event *event);

/* An event about a task with nothing but words; false without memory. */
bool client_event_tell(struct client_session *session, enum client_event_kind kind,
                       struct treadle_task_id id, uint64_t status, uint64_t reason);

/* Copies bytes to *to, with a NUL after them, and moves *to behind both. */
struct bytes client_event_keep(uint8_t **to, struct bytes from);

/* A SETTLED with copies of all that the entry points to; NULL without memory. */
struct client_event *client_event_from_settled(const struct wire_settled_entry *entry);

/* The last SETTLED entry that may be acknowledged: all up to it were taken. */
uint64_t client_upto(const struct client_session *session);

/* Looks whether so much was taken that the broker's window needs to hear of it at once; sooner when
 * nothing is left to take, because a large entry may wait for little. */
void client_note_taken(struct client_session *session, uint64_t body_size);

#endif
