/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/internal.h"
#include "common/base/assert.h"
#include "common/base/hash.h"

#include <string.h>

static const struct policy_fields defaults = {.value = {[POLICY_ATTEMPTS_MAX] = 4,
                                                        [POLICY_TIMEOUT] = 300000,
                                                        [POLICY_GRACE] = 5000,
                                                        [POLICY_RESULT_TTL] = 3600000,
                                                        [POLICY_BACKOFF_BASE] = 1000,
                                                        [POLICY_BACKOFF_FACTOR] = 2000,
                                                        [POLICY_BACKOFF_MAX] = 300000,
                                                        [POLICY_CRASH_LIMIT] = 3,
                                                        [POLICY_LOST_LIMIT] = 10}};

static void fields_from_wire(const struct wire_policy *wire, struct policy_fields *fields)
{
    fields->value[POLICY_ATTEMPTS_MAX] = wire->attempts_max;
    fields->value[POLICY_TIMEOUT] = wire->timeout_ms;
    fields->value[POLICY_PROGRESS_TIMEOUT] = wire->progress_timeout_ms;
    fields->value[POLICY_GRACE] = wire->grace_ms;
    fields->value[POLICY_QUEUE_TIMEOUT] = wire->queue_timeout_ms;
    fields->value[POLICY_DEADLINE] = wire->deadline_ms;
    fields->value[POLICY_RESULT_TTL] = wire->result_ttl_ms;
    fields->value[POLICY_BACKOFF_BASE] = wire->backoff_base_ms;
    fields->value[POLICY_BACKOFF_FACTOR] = wire->backoff_factor_milli;
    fields->value[POLICY_BACKOFF_MAX] = wire->backoff_max_ms;
    fields->value[POLICY_CRASH_LIMIT] = wire->crash_limit;
    fields->value[POLICY_LOST_LIMIT] = wire->lost_limit;
}

static bool policy_is(const void *context, uint32_t value, const void *key)
{
    const struct core *core = context;
    return memcmp(&core->policies[value].fields, key, sizeof(struct policy_fields)) == 0;
}

static bool gives_nothing(const struct policy_fields *fields)
{
    for (uint32_t i = 0; i < POLICY_FIELD_COUNT; i++) {
        if (fields->value[i] != 0) {
            return false;
        }
    }
    return true;
}

bool policy_intern(struct core *core, uint32_t owner, const struct wire_policy *wire,
                   uint32_t *policy)
{
    struct policy_fields fields;
    fields_from_wire(wire, &fields);
    *policy = NONE;
    if (gives_nothing(&fields)) {
        return true;
    }
    const uint64_t hash = hash_bytes(&core->config.hash_key, &fields, sizeof fields);
    uint32_t found = map_find(&core->policy_map, hash, policy_is, core, &fields);
    if (found == MAP_NONE) {
        if (!share_admits(core->owners[owner].policy_count, core->policy_slab.live,
                          core->policy_slab.count_max)) {
            return false;
        }
        found = slab_take(&core->policy_slab);
        if (found == NONE) {
            return false;
        }
        core->owners[owner].policy_count++;
        struct policy *fresh = &core->policies[found];
        fresh->references = 0;
        fresh->owner = owner;
        fresh->serial = core->next_policy_serial;
        fresh->hash = hash;
        fresh->fields = fields;
        core->next_policy_serial++;
        map_add(&core->policy_map, hash, found);
    }
    core->policies[found].references++;
    *policy = found;
    return true;
}

void policy_retain(struct core *core, uint32_t policy)
{
    if (policy != NONE) {
        core->policies[policy].references++;
    }
}

void policy_release(struct core *core, uint32_t number)
{
    if (number == NONE) {
        return;
    }
    struct policy *policy = &core->policies[number];
    TREADLE_ASSERT(policy->references > 0);
    policy->references--;
    if (policy->references == 0) {
        core->owners[policy->owner].policy_count--;
        map_remove(&core->policy_map, policy->hash, number);
        slab_give(&core->policy_slab, policy);
    }
}

struct policy_choice policy_choose(const struct core *core, const uint32_t sides[3],
                                   uint32_t submission, enum policy_field field)
{
    const struct {
        uint32_t policy;
        enum policy_origin origin;
    } order[] = {{sides[0], ORIGIN_WORKER},
                 {submission, ORIGIN_SUBMISSION},
                 {sides[1], ORIGIN_TASK},
                 {sides[2], ORIGIN_SERVICE}};
    for (uint32_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        if (order[i].policy != NONE) {
            const uint64_t value = core->policies[order[i].policy].fields.value[field];
            if (value != 0) {
                return (struct policy_choice){value, order[i].origin};
            }
        }
    }
    if (core->config.broker_policy.value[field] != 0) {
        return (struct policy_choice){core->config.broker_policy.value[field], ORIGIN_BROKER};
    }
    return (struct policy_choice){defaults.value[field], ORIGIN_DEFAULT};
}

struct policy_choice core_policy(const struct core *core, const struct task *task,
                                 enum policy_field field)
{
    const uint32_t *sides = core->queues[task->queue].policies;
    if (task->attempt != NONE) {
        sides = core->attempts[task->attempt].serve_policy;
    }
    return policy_choose(core, sides, task->policy, field);
}

uint64_t core_policy_default(enum policy_field field)
{
    TREADLE_ASSERT(field < POLICY_FIELD_COUNT);
    return defaults.value[field];
}

void core_reconfigure(struct core *core, const struct core_changes *changes)
{
    core->config.broker_policy = changes->broker_policy;
    core->config.dead_letter_ttl_ms = changes->dead_letter_ttl_ms;
    core->config.is_logging_tasks = changes->is_logging_tasks;
}
