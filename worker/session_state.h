/* SPDX-License-Identifier: MPL-2.0 */
/* The inside of a worker's session, shared by its files only. */
#ifndef TREADLE_WORKER_SESSION_STATE_H
#define TREADLE_WORKER_SESSION_STATE_H

#include "common/base/list.h"
#include "worker/held.h"
#include "worker/session.h"

#define HEARTBEAT_DEFAULT_MS 1000
#define LIVENESS_DEFAULT     3

/* Results kept for a broker that does not acknowledge them; beyond it no more work is taken. */
#define OUTPUT_SIZE_MAX UINT64_C(67108864) /* 64 MiB */

#define BUCKET_COUNT 4096u /* a power of two */

enum session_phase {
    SESSION_DISCONNECTED,
    SESSION_GREETING, /* connected; HELLO is due or waits for its WELCOME */
    SESSION_LIVE,
    SESSION_ENDED, /* refused for good, or goodbye was said */
};

struct worker_session {
    /* As configured. */
    char name[NAME_SIZE_MAX];
    char host[NAME_SIZE_MAX];
    size_t name_size;
    size_t host_size;
    uint8_t incarnation[16];
    uint32_t slots;
    uint32_t room; /* attempts that the execution takes in */
    uint32_t prefetch_max;
    uint64_t drain_ms;
    struct writer serves;

    enum session_phase phase;
    uint64_t now_ms;

    /* Messages in and out. */
    uint64_t number;          /* of the last message sent; HELLOs count too, over the whole life */
    uint64_t hello_number;    /* of the latest HELLO */
    uint64_t expected_number; /* the broker's next */
    bool is_synced;           /* since a WELCOME: nothing missed, no new HELLO */
    uint64_t hello_at_ms;     /* when the next HELLO is due */
    uint64_t received_at_ms;  /* when the broker was heard last */
    uint64_t sent_at_ms;
    uint64_t retry_at_ms;   /* memory was out: send nothing before */
    struct writer out;      /* the message taken last */
    struct writer entries;  /* its entries */
    struct writer failures; /* its second list of entries */

    /* From WELCOME. */
    uint64_t heartbeat_ms;
    uint32_t liveness;
    uint64_t body_size_max;
    uint32_t entry_count_max;

    /* Credit, in dispatches over the session's life. */
    uint64_t base;     /* WELCOME.dispatched */
    uint64_t received; /* since then */
    uint64_t granted;
    uint64_t sent_upto;  /* the last total that went out */
    uint64_t order;      /* of the last dispatch taken */
    uint64_t handler_us; /* moving mean of a handler's time; 0: not measured */

    /* Leases held. */
    struct list places[HELD_PLACE_COUNT];
    uint32_t place_counts[HELD_PLACE_COUNT];
    uint64_t output_size;    /* bytes of results kept */
    struct list signals;     /* CANCEL and KILL to tell */
    struct list progressing; /* PROGRESS to send */
    uint64_t timers_at_ms;   /* no clock of a running attempt is due before */
    struct held *buckets[BUCKET_COUNT];

    bool is_draining;
    bool is_drained;
    uint64_t drain_until_ms; /* what runs is stopped then */
    uint64_t leave_at_ms;    /* results not acknowledged are waited for until then */

    /* Events that are no attempt's. */
    bool is_welcome_due;
    bool is_resumed;
    bool is_lost_due;
    bool is_reconnect_due;
    bool is_refused_due;
    bool is_draining_due;
    bool is_drained_due;
    uint64_t epoch;
    enum refused_code refused_code;
    char refused_text[ERROR_MESSAGE_SIZE_MAX];
    size_t refused_text_size;

    struct worker_session_counts counts; /* the fields that only grow */
};

struct held *session_find(struct worker_session *session, uint64_t lease);

/* The time of an input: what was due before it comes first. */
void session_advance(struct worker_session *session, uint64_t now_ms);

uint64_t session_earlier(uint64_t a_ms, uint64_t b_ms);

/* Leases held in all. */
uint32_t session_held_count(const struct worker_session *session);

/* Moves a lease to the end of another of the session's lists. */
void session_move(struct worker_session *session, struct held *held, enum held_place place);

/* Lets go of a lease. */
void session_forget(struct worker_session *session, struct held *held);

/* Works the window out anew: a total that never shrinks but at a WELCOME and in a drain. */
void session_grant(struct worker_session *session);

/* Whether a drain has come to its end: goodbye is due. */
bool session_is_leaving(const struct worker_session *session);

/* The end: the worker may go. */
void session_leave(struct worker_session *session);

/* Leaves without goodbye if there is nobody to say it to. */
void session_check_drain(struct worker_session *session);

/* ---- session_run.c ---- */

/* Looks at every running attempt, but only when the first of their clocks may be due. */
void session_run_clocks(struct worker_session *session);

/* Asks for the end of a running attempt; the first cause stays. The grace counts from from_ms. */
void session_stop(struct worker_session *session, struct held *held, enum stop_cause cause,
                  uint64_t from_ms);

/* Hands an attempt back if it has not started; stops it if it has, where that is asked for. */
void session_take_back(struct worker_session *session, struct held *held, bool is_stopping);

/* Recalls all that the execution has taken in and not started: to hand it back, or to keep it
 * queued here. */
void session_recall_waiting(struct worker_session *session, bool is_return);

bool session_next_signal(struct worker_session *session, struct worker_event *event);
bool session_next_start(struct worker_session *session, struct worker_event *event);

/* Slow checker of one lease. */
void session_check_taken(const struct worker_session *session, const struct held *held);

#endif
