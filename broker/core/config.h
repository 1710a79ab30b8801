/* SPDX-License-Identifier: MPL-2.0 */
/* What the core is made for: its limits, its times, its default policy. Fixed for the core's whole
 * life. */
#ifndef TREADLE_CORE_CONFIG_H
#define TREADLE_CORE_CONFIG_H

#include "common/base/hash.h"
#include "common/wire/terms.h"

#include <stdbool.h>
#include <stdint.h>

/* A policy's fields in the order of POLICY_FIELDS; 0 = not given. Spans in ms, the backoff factor
 * in thousandths. */
struct policy_fields {
    uint64_t value[POLICY_FIELD_COUNT];
};

struct core_config {
    /* Limits: how many objects the core's memory holds. */
    uint32_t task_count_max;       /* unsettled tasks */
    uint32_t settled_count_max;    /* settled tasks kept for people to look at */
    uint32_t remembered_count_max; /* ids remembered after their task is gone */
    uint32_t session_count_max;
    uint32_t connection_count_max; /* connection numbers are below it */
    uint32_t service_count_max;
    uint32_t queue_count_max;        /* pairs of service and task */
    uint32_t tenant_queue_count_max; /* pairs of queue and tenant with unsettled tasks */
    uint32_t serve_count_max;        /* pairs of session and queue */
    uint32_t attempt_count_max;      /* leases at a time */
    uint32_t watch_count_max;        /* pairs of task and awaiting session */
    uint32_t owner_count_max;        /* principals ever seen */
    uint32_t policy_count_max;       /* different policies at a time */
    uint32_t outbox_count_max;       /* answers that wait for their record to be durable */
    uint64_t byte_max;               /* bodies of unsettled tasks */
    uint64_t settled_byte_max;       /* results and errors of settled ones */
    uint64_t body_size_max;
    uint32_t entry_count_max;
    uint32_t visits_max;       /* objects a step visits beyond those its input names, 8 at least */
    uint64_t window_byte_max;  /* SETTLED in flight to one client, unacknowledged */
    uint32_t window_count_max; /* the same in entries */

    /* Times, ms. */
    uint64_t heartbeat_ms;
    uint32_t liveness;
    uint64_t resume_grace_ms;
    uint64_t dedup_window_ms;
    uint64_t dead_letter_ttl_ms;
    uint64_t balance_ms; /* how often queued leases are looked at for idle workers */

    struct policy_fields broker_policy; /* the broker's configuration; 0 = not given */

    bool is_logging_tasks; /* LOG effects for single tasks too */

    /* Who and which life this is. */
    uint32_t epoch; /* 24 bits */
    uint64_t seed;  /* of the core's random numbers */
    struct hash_key hash_key;
};

/* The defaults of docs/architecture.md, Limits; epoch, seed and hash_key stay 0 for the caller to
 * fill. */
void core_config_init(struct core_config *config);

#endif
