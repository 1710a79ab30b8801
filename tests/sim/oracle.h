/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The independent judge: keeps its own account of tasks, leases, sessions and breakers, from what
 * goes over the wire and from the effects alone, and ends the history when a rule is broken. It
 * looks into the core for the ids of tasks and, to compare, for the slots in use.
 */
#ifndef TREADLE_SIM_ORACLE_H
#define TREADLE_SIM_ORACLE_H

#include "broker/core/core.h"
#include "common/wire/message.h"

struct sim;

/* Where a lease stands. */
struct oracle_lease {
    uint64_t lease;
    uint32_t task; /* a job's number */
    uint32_t session;
    uint64_t session_serial;
    uint32_t service;
    uint32_t generation; /* of the oracle's breaker */
    bool is_probe;
    bool is_live;            /* may settle its task */
    bool is_doubtful;        /* handed back, or not named by a HELLO: the task may go out again */
    bool is_held;            /* takes a slot */
    bool is_started;         /* a handler ran it */
    bool is_returned;        /* its worker handed it back */
    uint64_t backstop_at_ms; /* not before it the broker gives it up by itself */
    uint64_t ended_record;   /* the record that its acknowledgement waits for */
};

struct oracle_task {
    uint64_t sequence; /* 0: not accepted */
    uint64_t accepted_record;
    uint64_t accepted_at_ms;
    uint64_t settled_record; /* 0: not settled */
    uint64_t intent_record;
    uint64_t deadline_at_ms;      /* UINT64_MAX: none */
    uint64_t queue_timeout_at_ms; /* the same */
    uint64_t not_before_ms;       /* delay or backoff: not handed out earlier */
    uint64_t lease;               /* the live one; 0 */
    uint64_t winner;              /* the lease that succeeded */
    uint32_t service;
    uint32_t attempts_max;
    uint32_t spent;
    uint32_t crashes;
    uint32_t losses;
    uint32_t dispatches;
    uint8_t outcome;
    uint8_t kind;
    uint8_t last_kind;
    bool is_keep;
    bool is_acknowledged; /* some client has taken its outcome */
    bool is_result_dropped;
    bool is_dropped;
    bool is_stopped; /* the handler said: no retry */
};

struct oracle_session {
    bool is_live;
    bool is_confirmed; /* the peer has spoken in it */
    uint8_t role;
    uint32_t connection;
    uint64_t serial;
    uint64_t expected_number;
    uint8_t incarnation[16];
    uint64_t granted;
    uint64_t dispatched;
    uint32_t held_count;
    uint64_t acknowledged;
    uint64_t last_settled; /* since its last HELLO */
    uint64_t top_settled;
    uint32_t settled_capacity;
    uint32_t *settled; /* by number: the job */
};

struct oracle_part {
    uint64_t number;
    uint32_t successes;
    uint32_t failures;
};

struct oracle_breaker {
    uint8_t state;
    uint8_t mode;
    bool is_paused;
    uint32_t generation;
    struct oracle_part parts[10];
    uint32_t failures_run;
    uint32_t probes_in_flight;
    uint32_t probe_successes;
    uint64_t opened_at_ms;
    uint64_t cooldown_ms;
    bool must_open; /* the rules say so: it has to, in this step */
    bool must_close;
    bool is_ordered; /* by a person, in this step */
};

#define ORACLE_TASK_COUNT    512U
#define ORACLE_SESSION_COUNT 64U
#define ORACLE_SERVICE_COUNT 8U
#define ORACLE_EPOCH_COUNT   32U
#define EPOCH_FIRST          7U

struct oracle {
    struct oracle_task tasks[ORACLE_TASK_COUNT];
    uint32_t job_of_sequence[ORACLE_TASK_COUNT];
    struct oracle_session sessions[ORACLE_SESSION_COUNT];
    uint32_t session_of_connection[64];
    struct oracle_breaker breakers[ORACLE_SERVICE_COUNT];
    struct oracle_lease *leases; /* by serial */
    uint32_t lease_capacity;
    uint64_t last_lease;
    uint32_t lease_base[ORACLE_EPOCH_COUNT]; /* where the leases of each epoch begin */
    uint64_t last_record;
    uint64_t durable_number;
    uint64_t step_at_ms;
    uint64_t previous_step_at_ms; /* the last one at an earlier instant */
    uint64_t next_session_serial;
    /* The step under way. */
    const struct input *input;
    bool is_in_turn;
    uint32_t session; /* of its message; NONE */
};

void oracle_reset(struct oracle *oracle);
void oracle_free(struct oracle *oracle);

/* The broker begins its life of this number and knows nothing of what was; what workers run goes
 * on. */
void oracle_on_broker_restart(struct oracle *oracle, uint32_t life);

/* Around a step: before it, at each of its effects in order, after it. */
void oracle_before_step(struct sim *sim, const struct input *input);
void oracle_on_effect(struct sim *sim, const struct effect *effect);
void oracle_after_step(struct sim *sim);

/* The broker sends this message. */
void oracle_on_sent(struct sim *sim, uint32_t connection, const struct message *message);

/* A worker's process starts the handler of the lease with this number, or hands leases back. */
void oracle_on_handler_start(struct sim *sim, uint64_t number);
void oracle_on_returned(struct sim *sim, const struct message *message);

/* What is still open at the end; NULL: nothing. */
const char *oracle_unrest(struct sim *sim);

#endif
