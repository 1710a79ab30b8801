/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The broker as a pure state machine: no clock, no I/O, no allocation, no hidden randomness, no
 * threads. The shell reads its state (state.h) only through const pointers, to carry out the
 * effects of the step just made.
 *
 *     core = core_create(memory, config, now_ms)      memory: core_memory_size() zero bytes,
 * 64-byte aligned core_step(core, now_ms, input, out)         carry the effects out, in order,
 * then step again core_next_at_ms(core)                           when the next INPUT_TIME is due;
 * now: a cursor has more to do
 *
 * One thread at a time. Nothing is freed: give the memory back when done.
 */
#ifndef TREADLE_CORE_CORE_H
#define TREADLE_CORE_CORE_H

#include "broker/core/config.h"
#include "broker/core/effect.h"
#include "broker/core/input.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct core;
struct task;
struct service;

/* Bytes core_create() needs; memory is touched as it fills, so zero pages of an anonymous mapping
 * cost little. */
size_t core_memory_size(const struct core_config *config);

/* Bytes of it that are in use, or were. */
uint64_t core_memory_touched(const struct core *core);

/* Makes a core in the caller's zeroed memory; now_ms is the monotonic clock, which steps must not
 * turn back. */
struct core *core_create(void *memory, const struct core_config *config, uint64_t now_ms);

/*
 * One step: due timers first (as many as the bound allows; none when the input is DISPATCH), then
 * the input, then a share of each open cursor. Emits at most EFFECT_COUNT_MAX effects. now_ms is
 * asserted not to go back.
 */
void core_step(struct core *core, uint64_t now_ms, const struct input *input, struct effects *out);

/* When core_step() is due without any other input; UINT64_MAX: never. At most the present: at once.
 */
uint64_t core_next_at_ms(const struct core *core);

/* Whether another INPUT_DISPATCH in this round could hand out more. */
bool core_has_more_to_dispatch(const struct core *core);

/* Whether a message may be stepped now; false: first give INPUT_DURABLE (and INPUT_TIME while it is
 * due). */
bool core_admits_input(const struct core *core);

/* Unsettled tasks; 0 and draining: the broker may stop. */
uint32_t core_unsettled_count(const struct core *core);

/* Why this waiting task waits, and for how long yet (0: not known). WAIT_NONE if it does not wait.
 */
enum wait_reason core_wait_reason(const struct core *core, const struct task *task,
                                  uint64_t *left_ms);

/* The policy of a task as it stands, field by field, each with its origin. */
struct policy_choice {
    uint64_t value;
    enum policy_origin origin;
};
struct policy_choice core_policy(const struct core *core, const struct task *task,
                                 enum policy_field field);

/* What a field of a policy is where nobody gives it. */
uint64_t core_policy_default(enum policy_field field);

/* What may change in a core's life, between two steps. */
struct core_changes {
    struct policy_fields broker_policy;
    uint64_t dead_letter_ttl_ms; /* of tasks that settle from now on */
    bool is_logging_tasks;
};
void core_reconfigure(struct core *core, const struct core_changes *changes);

/* Slow checker of every invariant, for tests: asserts. */
void core_check(const struct core *core);

#endif
