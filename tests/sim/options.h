/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What one simulated history is like, drawn from its seed. Swarm: each seed has its own set, with
 * some faults off altogether, so that histories differ in kind and not in luck alone.
 */
#ifndef TREADLE_SIM_OPTIONS_H
#define TREADLE_SIM_OPTIONS_H

#include <stdint.h>

/* X(name, percent of seeds that have it, low, high, value of the others). Spans in ms; "mille" in
 * thousandths of what may happen; 0 as a span between events: never. */
/* clang-format off */
#define OPTIONS(X)                                                                                 \
    X(fault_ms,              100,   1500,  25000,     0)                                           \
    X(workers,               100,      1,      4,     1)                                           \
    X(clients,               100,      1,      4,     1)                                           \
    X(principals,             30,      2,      2,     1)                                           \
    X(services,              100,      1,      3,     1)                                           \
    X(tasks,                  90,      5,    120,   300)                                           \
    X(batch,                  70,      1,     20,     1)                                           \
    X(app_gap_ms,            100,      5,    400,     0)                                           \
    /* the network */                                                                              \
    X(latency_ms,             85,      0,     20,     0)                                           \
    X(loss_mille,             50,      1,     60,     0)                                           \
    X(double_mille,           50,      1,     60,     0)                                           \
    X(reorder_mille,          40,      1,     60,     0)                                           \
    X(cut_gap_ms,             50,    100,   4000,     0)                                           \
    X(silent_cut_percent,     30,     10,     60,     0)                                           \
    X(partition_gap_ms,       35,    500,   6000,     0)                                           \
    X(partition_ms,          100,    100,   6000,     0)                                           \
    /* processes */                                                                                \
    X(worker_death_gap_ms,    45,    300,   6000,     0)                                           \
    X(client_death_gap_ms,    30,    500,   8000,     0)                                           \
    X(stop_gap_ms,            35,    500,   6000,     0)                                           \
    X(stop_ms,               100,     50,   6000,     0)                                           \
    X(broker_stall_gap_ms,    15,   1000,   8000,     0)                                           \
    X(broker_stall_ms,       100,      5,   2500,     0)                                           \
    X(durable_delay_ms,       60,      1,     40,     0)                                           \
    /* workers and handlers */                                                                     \
    X(slots,                 100,      1,      6,     0)                                           \
    X(prefetch,               60,      1,     40,     0)                                           \
    X(worker_grace_ms,        25,     10,    200,     0)                                           \
    X(handler_ms,             75,      1,    300,     1)                                           \
    X(fail_percent,           60,      5,     60,     0)                                           \
    X(all_kinds_percent,      60,      5,     40,     0)                                           \
    X(hang_percent,           35,      2,     20,     0)                                           \
    X(stubborn_percent,       40,      5,     60,     0)                                           \
    X(progress_percent,       40,     10,     60,     0)                                           \
    X(large_body_percent,     20,      2,     20,     0)                                           \
    X(outage_gap_ms,          50,    500,   5000,     0)                                           \
    X(outage_ms,             100,    200,   9000,     0)                                           \
    /* tasks */                                                                                    \
    X(timeout_percent,        75,     20,    100,     0)                                           \
    X(deadline_percent,       35,      5,     50,     0)                                           \
    X(queue_timeout_percent,  25,      5,     40,     0)                                           \
    X(delay_percent,          30,      5,     50,     0)                                           \
    X(backoff_percent,        80,     50,    100,     0)                                           \
    X(attempts_percent,       60,     20,    100,     0)                                           \
    X(keep_percent,           60,     10,     90,     0)                                           \
    X(unwatched_percent,      30,      5,     40,     0)                                           \
    X(ttl_percent,            20,      5,     40,     0)                                           \
    X(tenant_percent,         30,     10,     60,     0)                                           \
    /* what people do, in parts of all they do */                                                  \
    X(cancel_weight,          55,      1,     30,     0)                                           \
    X(await_weight,           50,      1,     20,     0)                                           \
    X(again_weight,           30,      1,     10,     0)                                           \
    X(query_weight,           40,      1,     15,     0)                                           \
    X(pause_weight,           30,      1,      6,     0)                                           \
    X(breaker_weight,         30,      1,      6,     0)                                           \
    X(drain_weight,           25,      1,      5,     0)                                           \
    /* limits of the broker and of libtreadle */                                                   \
    X(task_limit,             30,      8,     60,   600)                                           \
    X(settled_limit,          60,      1,     60,   600)                                           \
    X(attempt_limit,          15,      2,     12,   600)                                           \
    X(window_count,           40,      1,      8,   512)                                           \
    X(visits,                 60,     16,    128,  1024)                                           \
    X(in_flight,              25,      3,     40,   400)                                           \
    /* attempts that wait in the execution, for each slot */                                       \
    X(handoff,                40,      1,      5,     0)                                           \
    /* the broker's deaths */                                                                      \
    X(broker_death_gap_ms,    15,   1500,   9000,     0)                                           \
    X(broker_down_ms,        100,      0,   2500,     0)
/* clang-format on */

struct options {
#define OPTION_FIELD(name, percent, low, high, otherwise) uint32_t name;
    OPTIONS(OPTION_FIELD)
#undef OPTION_FIELD
};

/* The options of a seed. */
void options_draw(struct options *options, uint64_t seed);

/* One line each on stdout. */
void options_print(const struct options *options);

#endif
