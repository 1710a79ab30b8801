/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Drives a real core without sockets: peers whose messages go through the real codec, a clock that
 * the test moves, a store that is durable at once unless it is held back. What the core sends,
 * stores and logs is collected. core_check() runs after every step.
 *
 *     struct core_driver *driver = core_driver_create(NULL);
 *     struct peer *client = given_a_client(driver, "alice");
 *     struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 2);
 *     const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
 *     when_it_succeeds(worker, then_it_is_handed(worker, task));
 *     then_it_is_told(client, task, TASK_SUCCEEDED);
 *     core_driver_destroy(&driver);
 *
 * After each message the driver makes rounds (dispatch, due cursors, durable) until nothing is left
 * to do. Workers grant credit as the protocol says; peers send heartbeats while time passes.
 */
#ifndef TREADLE_SUPPORT_CORE_DRIVER_H
#define TREADLE_SUPPORT_CORE_DRIVER_H

#include "broker/core/core.h"
#include "broker/core/state.h"

#include <stdbool.h>
#include <stdint.h>

#define PEER_COUNT_MAX 64U

struct core_driver;

/* One client or worker. The test may change what stands under "the test's". */
struct peer {
    struct core_driver *driver;
    char principal[NAME_SIZE_MAX + 1];
    char name[NAME_SIZE_MAX + 1];
    enum peer_role role;
    uint8_t incarnation[16];
    uint32_t connection; /* NONE: not connected */
    uint64_t number;     /* of its last message */
    uint64_t dispatched; /* WELCOME's, and DISPATCH entries since */
    uint64_t settled;    /* the last SETTLED number it was sent */
    uint64_t *leases;    /* what it holds, in order of dispatch */
    uint32_t lease_count, lease_count_max;
    uint64_t beats_at_ms; /* its next heartbeat */

    /* The test's. */
    uint32_t rights;
    struct globs services;
    uint64_t rights_serial; /* another one: the core looks at them anew */
    bool is_silent;         /* sends no heartbeat by itself */
    uint64_t upto;          /* a client: SETTLED taken; a worker: its grant if grants_by_hand */
    bool grants_by_hand;    /* else the grant is dispatched + slots + prefetch - held */
    bool is_taking;         /* a client: acknowledges SETTLED as it comes, with its next message */
    const char *serves;     /* patterns, by spaces */
    uint32_t slots;
    uint32_t prefetch;
    struct wire_policy worker_policy, task_policy, service_policy;
};

/* A SEND, PERSIST or LOG effect as it was; `state`, `value` and `id` are filled in for the kinds
 * below, as the effect's objects may change later. */
struct seen {
    struct effect effect; /* without its views, but for the text of REFUSED */
    struct peer *peer;    /* of SEND: whose connection it was */
    uint64_t lease;       /* of DISPATCH, RECALL, CANCEL_ATTEMPT, RESULT_ACK */
    uint8_t state;        /* of SETTLED: the task's */
    uint8_t kind;         /* of SETTLED: the failure's */
    uint8_t flags;        /* of SETTLED: the task's */
    bool has_failure;     /* of RECORD_ATTEMPT_FAILED: as the worker told it */
    bool is_taken;        /* a then_ has looked at it */
    uint32_t step;        /* the step it came from */
};

struct core_driver {
    struct core *core;
    struct core_config config;
    uint64_t now_ms;
    struct effects *effects; /* of the last step */

    /* The test's. */
    bool is_store_held; /* nothing becomes durable by itself */
    bool is_by_hand;    /* no rounds by itself: the test steps */
    bool is_unchecked;  /* no core_check(), for big ones */
    bool is_forgetful;  /* collects nothing */

    /* What has been seen. */
    struct seen *seen;
    uint32_t seen_count, seen_count_max;
    uint32_t step_count;
    uint32_t effects_most; /* in one step */
    uint32_t visits_most;
    uint64_t step_longest_ns;

    /* Inside. */
    struct peer peers[PEER_COUNT_MAX];
    uint32_t peer_count;
    struct peer **peer_on; /* by connection */
    uint32_t next_connection;
    uint32_t next_task;
    struct writer list, templates, out;
    void *memory;
};

/* A small configuration: room for a few hundred tasks. */
void core_driver_config(struct core_config *config);

/* config NULL: the small one. Ends the test if memory is out. */
struct core_driver *core_driver_create(const struct core_config *config);
void core_driver_destroy(struct core_driver **reference);

/* ---- steps ---- */

/* One step, nothing else: collects its effects and checks the core. */
void core_driver_step(struct core_driver *driver, const struct input *input);

/* Steps until nothing is left to do now: durable, dispatch, cursors and due timers. */
void core_driver_rounds(struct core_driver *driver);

/* Encodes, decodes and steps the peer's message, under its next number; then rounds. */
void core_driver_send(struct peer *peer, struct message *message);

/* Time passes as it does for a broker that wakes when it must; peers send their heartbeats. */
void when_time_passes_ms(struct core_driver *driver, uint64_t span_ms);

/* Time jumps: the clock stands still in between, nobody says anything. */
void when_time_jumps_ms(struct core_driver *driver, uint64_t span_ms);

/* A held store has everything now (and goes on being held). */
void when_the_store_has_all(struct core_driver *driver);
void when_the_broker_drains(struct core_driver *driver);

/* ---- peers ---- */

struct given_peer {
    struct core_driver *driver;
    const char *principal;
    const char *name;
    const char *serves;
    uint32_t slots;
    uint32_t prefetch;
    uint32_t rights;       /* 0: all */
    struct globs services; /* none: all */
    struct wire_policy worker_policy, task_policy, service_policy;
    bool is_given;
};

/* A peer that has said HELLO on a connection of its own, and granted what it can take. */
struct peer *core_driver_client(struct given_peer given);
struct peer *core_driver_worker(struct given_peer given);
#define given_a_client(...) core_driver_client((struct given_peer){__VA_ARGS__, .is_given = true})
#define given_a_worker(...) core_driver_worker((struct given_peer){__VA_ARGS__, .is_given = true})

void when_it_says_hello(struct peer *peer);       /* again, on its connection */
void when_its_connection_ends(struct peer *peer); /* DISCONNECTED */
void when_it_connects(struct peer *peer);         /* on a new connection, and says HELLO */
void when_it_restarts(struct peer *peer);         /* as a new incarnation that holds nothing */
void when_it_says(struct peer *peer, enum message_kind kind); /* HEARTBEAT, GOODBYE */

/* It no longer believes that it holds the lease. */
void peer_forgets(struct peer *peer, uint64_t lease);

/* The peer's session; NULL if it has none on its connection. */
const struct session *peer_session(const struct peer *peer);

/* ---- clients ---- */

/* A task is named by the number of its submission: 1, 2 ... */
struct given_submit {
    struct peer *client;
    const char *name; /* SERVICE.TASK */
    const char *tenant;
    uint64_t priority;
    uint64_t delay_ms;
    uint64_t flags;
    struct wire_policy policy;
    uint32_t task;  /* submits this one (again); 0: the next */
    uint32_t count; /* how many, with numbers in a row; 0: one */
    uint64_t again_age_ms;
    size_t body_size;
    uint8_t content; /* part of the digest */
    bool is_given;
};

/* Returns the (first) task. */
uint32_t core_driver_submit(struct given_submit given);
#define when_it_submits(...)                                                                       \
    core_driver_submit((struct given_submit){__VA_ARGS__, .is_given = true})

struct treadle_task_id task_id_of(uint32_t task);
void when_it_cancels(struct peer *client, uint32_t task);
void when_it_awaits(struct peer *client, uint32_t task);
void when_it_acknowledges(struct peer *client, uint64_t number); /* SETTLED up to it */
void when_it_asks_for(struct peer *client, uint32_t task, uint64_t request);
void when_it_sets(struct peer *client, const char *service, enum service_action action);

/* The task in the core; NULL when it is gone. */
const struct task *task_of(const struct core_driver *driver, uint32_t task);

/* ---- workers ---- */

struct given_failure {
    struct peer *worker;
    uint64_t lease;
    enum failure_kind kind;
    enum retry_choice choice;
    uint64_t delay_ms;
    bool is_given;
};

void when_it_succeeds(struct peer *worker, uint64_t lease);
void core_driver_fail(struct given_failure given);
#define when_it_fails(...) core_driver_fail((struct given_failure){__VA_ARGS__, .is_given = true})
void when_it_returns(struct peer *worker, uint64_t lease);
void when_it_reports_progress(struct peer *worker, uint64_t lease);

/* ---- what came of it ---- */

/* The oldest one not taken yet; NULL. Valid until the next step. */
struct seen *seen_send(struct core_driver *driver, const struct peer *peer, enum message_kind kind);
struct seen *seen_effect(struct core_driver *driver, enum effect_kind kind, int code);

/* How many there are, taken or not; peer NULL: to anybody. */
uint32_t count_sends(const struct core_driver *driver, const struct peer *peer,
                     enum message_kind kind);
uint32_t count_effects(const struct core_driver *driver, enum effect_kind kind, int code);

/* Forgets what was seen. */
void forget_all(struct core_driver *driver);

struct at_line {
    const char *file;
    int line;
};
#define AT_LINE ((struct at_line){__FILE__, __LINE__})

struct seen expect_send(struct peer *peer, enum message_kind kind, struct at_line at);
void expect_no_send(struct peer *peer, enum message_kind kind, struct at_line at);
uint64_t expect_dispatch(struct peer *worker, uint32_t task, struct at_line at);
void expect_settled(struct peer *client, uint32_t task, enum task_state state, struct at_line at);
void expect_accepted(struct peer *client, uint32_t task, enum accept_status status, int reason,
                     struct at_line at);
void expect_state(struct core_driver *driver, uint32_t number, enum task_state state,
                  struct at_line at);
void expect_waits(struct core_driver *driver, uint32_t number, enum wait_reason reason,
                  struct at_line at);
void expect_stale(struct peer *worker, uint64_t lease, bool is_stale, struct at_line at);

/* The peer's next message of this kind, by name; returned for a closer look. */
#define then_it_gets(peer, kind)           expect_send(peer, MESSAGE_##kind, AT_LINE)
#define then_it_gets_no(peer, kind)        expect_no_send(peer, MESSAGE_##kind, AT_LINE)
#define then_it_is_handed(worker, task)    expect_dispatch(worker, task, AT_LINE) /* the lease */
#define then_it_is_told(peer, task, state) expect_settled(peer, task, state, AT_LINE)
#define then_it_is_answered(peer, task, status, reason)                                            \
    expect_accepted(peer, task, status, reason, AT_LINE)
#define then_task_is(driver, task, state)       expect_state(driver, task, state, AT_LINE)
#define then_it_waits_for(driver, task, reason) expect_waits(driver, task, reason, AT_LINE)
#define then_the_result_counts(worker, lease)   expect_stale(worker, lease, false, AT_LINE)
#define then_the_result_is_late(worker, lease)  expect_stale(worker, lease, true, AT_LINE)

#endif
