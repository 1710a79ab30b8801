/* SPDX-License-Identifier: MPL-2.0 */
/*
 * One simulated history: a broker (core, encoder, store), workers, clients and the network between
 * them, in simulated milliseconds, all from one seed. What its files offer each other, a section a
 * file.
 */
#ifndef TREADLE_SIM_SIM_H
#define TREADLE_SIM_SIM_H

#include "broker/core/state.h"
#include "broker/shell/encode.h"
#include "broker/shell/store/store.h"
#include "client/session.h"
#include "common/base/prng.h"
#include "tests/sim/events.h"
#include "tests/sim/options.h"
#include "tests/sim/oracle.h"
#include "worker/session.h"

#include <stdarg.h>

#define WORKER_COUNT_MAX  4U
#define CLIENT_COUNT_MAX  4U
#define PEER_COUNT_MAX    (WORKER_COUNT_MAX + CLIENT_COUNT_MAX)
#define CONNECTION_COUNT  64U
#define SERVICE_COUNT_MAX 3U
#define KIND_COUNT        2U /* kinds of task in a service */
#define TASK_COUNT_MAX    512U
#define LEASE_COUNT_MAX   (1U << 20)
#define STARTED_AT_MS     1000000U
#define CALM_MS           250000U /* all must be settled by then after the calm has begun */

/* ---- what goes on ---- */

/* A connection as both sides see it. */
struct connection {
    uint64_t serial; /* of this use of the place */
    bool is_used;    /* the broker has not been told of its end */
    bool is_cut;     /* nothing arrives any more ... */
    bool is_closing; /* ... but at the broker, what was sent before */
    uint32_t peer;
    uint64_t life;         /* of the peer when it connected */
    uint64_t to_broker_ms; /* arrivals keep their order, mostly */
    uint64_t to_peer_ms;
};

#define WAITING_COUNT_MAX 64

/* A worker or a client: its process and its transport. */
struct peer {
    uint32_t number;     /* workers first */
    bool is_up;          /* the process runs */
    uint64_t life;       /* of its process */
    uint32_t connection; /* NONE */
    uint64_t connection_serial;
    uint64_t wake_at_ms;       /* the EVENT_WAKE_PEER that counts; UINT64_MAX */
    uint64_t stopped_until_ms; /* SIGSTOP: it gets no time */
    uint64_t apart_until_ms;   /* partition: nothing gets through */
    bool holds_when_apart;     /* what was sent arrives after the partition */
    struct worker_session *worker;
    struct client_session *client;
    char name[16];
    char principal[16];
    uint32_t slots;
    uint32_t running_count;              /* of its handlers */
    uint64_t waiting[WAITING_COUNT_MAX]; /* leases handed in and not started, in their order */
    uint32_t waiting_count;
    uint32_t request_count; /* of its application, not answered */
};

/* What a handler does in one attempt; a place for each lease ever given. */
struct run {
    uint64_t lease;
    uint64_t life; /* of the worker's process that runs it; 0: not started */
    uint64_t end_at_ms;
    uint64_t grace_ms;
    uint32_t peer;
    uint32_t task;
    const struct worker_attempt *attempt; /* while it waits */
    bool is_running;
    bool is_stubborn;
    bool is_success;
    enum failure_kind kind;
    enum retry_choice choice;
    uint32_t body_size;
};

/* What the application of a client wants of one task. */
enum wish {
    WISH_NONE,
    WISH_ACCEPTED, /* submitted without following it */
    WISH_OUTCOME,  /* waits for it */
};

/* A task as applications know it. */
struct job {
    struct treadle_task_id id;
    uint32_t owner; /* the client that made it */
    uint32_t service;
    uint32_t task_kind;
    bool is_made;
    bool is_concluded;      /* its owner has learned what became of it */
    bool is_cancelled_here; /* before the broker heard of it */
    bool is_orphaned;       /* a client that has not heard of it may submit what the broker has */
    bool is_last;           /* of the calm's end: must succeed */
    struct wire_submit_template fields;
    uint32_t body_size;
    uint8_t digest[16];
    enum wish wish[CLIENT_COUNT_MAX];
    uint64_t submitted_life[CLIENT_COUNT_MAX]; /* of the client that follows its own submission */
};

struct broker_node {
    struct core *core;
    size_t memory_size;
    struct encoder *encoder;
    struct store *store;
    uint32_t life; /* of its process, from 0: its epoch */
    uint64_t wake_at_ms;
    uint64_t stalled_until_ms;
    uint64_t down_until_ms;   /* nobody can connect */
    uint64_t durable_next_ms; /* records become durable in their order */
    uint64_t durable_told;
    bool is_round_open;
    uint64_t steps_at_ms; /* to see that it comes to rest */
    uint32_t steps_here;
};

struct sim {
    uint64_t seed;
    struct options options;
    struct prng prng;
    uint64_t now_ms;
    bool is_calm;
    bool is_verbose;
    uint64_t calm_at_ms;
    uint64_t event_count;
    uint64_t step_count;
    uint64_t trace;
    struct event_queue queue;
    struct connection connections[CONNECTION_COUNT];
    uint64_t next_serial;
    struct peer peers[PEER_COUNT_MAX];
    uint32_t peer_count;
    struct broker_node broker;
    struct job jobs[TASK_COUNT_MAX];
    uint32_t job_count;
    uint32_t job_count_max;
    uint32_t concluded_count;
    struct run *runs; /* by the serial of the lease */
    uint64_t outage_until_ms[SERVICE_COUNT_MAX];
    struct oracle oracle;
    struct effects effects;
    struct message decoded;
    struct message sent;
    uint8_t body[8192];
    uint64_t next_life;
};

/* ---- main.c ---- */

/* The history breaks a rule: says the seed, the time and the text, and ends the program with 1. */
_Noreturn void sim_violation(const struct sim *sim, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void sim_tell(const struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- history.c ---- */

/* One history from its seed to its end, when all is settled; violations end the program. */
void history_run(struct sim *sim, uint64_t seed);
void history_free(struct sim *sim);

static inline uint32_t sim_below(struct sim *sim, uint32_t bound)
{
    return (uint32_t)prng_below(&sim->prng, bound);
}

static inline bool sim_percent(struct sim *sim, uint32_t percent)
{
    return percent > 0 && prng_below(&sim->prng, 100) < percent;
}

static inline bool sim_mille(struct sim *sim, uint32_t mille)
{
    return mille > 0 && prng_below(&sim->prng, 1000) < mille;
}

static inline void sim_hash(struct sim *sim, uint64_t word)
{
    sim->trace = (sim->trace ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    sim->trace ^= sim->trace >> 29;
}

static inline void sim_at(struct sim *sim, uint64_t at_ms, enum event_kind kind, uint32_t place,
                          uint64_t number)
{
    event_queue_add(&sim->queue,
                    (struct event){.at_ms = at_ms, .kind = kind, .place = place, .number = number});
}

/* The place of a lease among all of the history: the epochs stand one after the other. */
static inline uint32_t lease_place(const struct oracle *oracle, uint64_t lease)
{
    const uint64_t life = (lease >> 40) - EPOCH_FIRST;
    const uint32_t serial = (uint32_t)(lease & ((UINT64_C(1) << 40) - 1));
    return life < ORACLE_EPOCH_COUNT ? oracle->lease_base[life] + serial : 0;
}

/* The job that an id names; NONE. */
static inline uint32_t job_of_id(const struct treadle_task_id *id)
{
    uint32_t number;
    memcpy(&number, &id->bytes[12], sizeof number);
    return number;
}

/* ---- network.c ---- */

/* The peer connects after a while, if it is up then. */
void network_connect_later(struct sim *sim, struct peer *peer, uint64_t delay_ms);
void network_on_connect(struct sim *sim, const struct event *event);
void network_to_broker(struct sim *sim, struct peer *peer, const struct wire_frames *frames);
void network_to_peer(struct sim *sim, uint32_t number, const struct wire_frames *frames);

/* Cuts the connection of this number: both sides learn of it, later if it is silent. */
void network_cut(struct sim *sim, uint32_t number, bool is_silent);

/* The peer gives its connection up, if it has one: only the broker has still to learn of it. */
void network_leave(struct sim *sim, struct peer *peer, bool is_silent);

/* The peer closes its connection; what it has sent still arrives. */
void network_close(struct sim *sim, struct peer *peer);
void network_on_peer_cut(struct sim *sim, const struct event *event);

/* The broker's process is gone: it has no connections, and peers learn that they have none. */
void network_forget_all(struct sim *sim);

/* The connection that this event is about still stands; else its packet was lost. */
bool network_is_current(const struct sim *sim, const struct event *event);

/* ---- broker_node.c ---- */

void broker_open(struct sim *sim);
void broker_close(struct sim *sim);

/* The broker's process dies, with all that it knew; another begins, after a while, in a new epoch.
 */
void broker_restart(struct sim *sim, uint32_t down_ms);
void broker_on_packet(struct sim *sim, const struct event *event);
void broker_on_cut(struct sim *sim, const struct event *event);
void broker_on_time(struct sim *sim);
void broker_on_durable(struct sim *sim, uint64_t number);
void broker_on_round_end(struct sim *sim);

/* What keeps the broker from being at rest; NULL: nothing does. */
const char *broker_unrest(const struct sim *sim);

/* ---- worker_node.c ---- */

void worker_start(struct sim *sim, struct peer *peer);
void worker_stop(struct sim *sim, struct peer *peer);

/* Takes what the session has to say and to do, and sets its clock. */
void worker_run(struct sim *sim, struct peer *peer);
void worker_on_handler(struct sim *sim, const struct event *event);
const char *worker_unrest(const struct sim *sim, const struct peer *peer);

/* ---- client_node.c ---- */

void client_start(struct sim *sim, struct peer *peer);
void client_stop(struct sim *sim, struct peer *peer);
void client_run(struct sim *sim, struct peer *peer);

/* The application does one thing of its own accord. */
void client_act(struct sim *sim, struct peer *peer);

/* Submits one more task of each kind: the mesh must be able to run them. */
void client_submit_last(struct sim *sim, struct peer *peer);
const char *client_unrest(const struct sim *sim, const struct peer *peer);

#endif
