/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/internal.h"
#include "common/base/assert.h"

#include <string.h>

#define BUDGET_SHARE_PERCENT 20U
#define BUDGET_PER_SECOND    UINT64_C(10)

/* What a kind of failure does (DESIGN: Failure kinds). */
enum retry_rule { RETRY_NEVER, RETRY_POLICY, RETRY_AT_ONCE };
struct kind_rule {
    enum retry_rule retry;
    bool spends;
    enum breaker_verdict verdict;
};

static const struct kind_rule kind_rules[FAILURE_KIND_COUNT] = {
    [FAILURE_NONE] = {RETRY_NEVER, false, BREAKER_NO_VERDICT},
    [FAILURE_PREPARE] = {RETRY_NEVER, true, BREAKER_NO_VERDICT},
    [FAILURE_PERMANENT] = {RETRY_NEVER, true, BREAKER_SUCCESS},
    [FAILURE_TRANSIENT] = {RETRY_POLICY, true, BREAKER_FAILURE},
    [FAILURE_TIMEOUT] = {RETRY_POLICY, true, BREAKER_FAILURE},
    [FAILURE_CRASH] = {RETRY_POLICY, true, BREAKER_FAILURE},
    [FAILURE_LOST] = {RETRY_AT_ONCE, false, BREAKER_NO_VERDICT},
    [FAILURE_RETURNED] = {RETRY_AT_ONCE, false, BREAKER_NO_VERDICT},
    [FAILURE_FINALIZE] = {RETRY_NEVER, true, BREAKER_NO_VERDICT},
    [FAILURE_DAMAGED] = {RETRY_NEVER, false, BREAKER_NO_VERDICT},
    [FAILURE_CANCELLED] = {RETRY_NEVER, false, BREAKER_NO_VERDICT},
    [FAILURE_EXPIRED] = {RETRY_NEVER, false, BREAKER_NO_VERDICT},
    [FAILURE_UPSTREAM] = {RETRY_NEVER, false, BREAKER_NO_VERDICT},
};

/* One step of the backoff, in thousandths of a ms: exact enough for small spans, and it cannot
 * overflow. */
static uint64_t grow_milli(uint64_t cap_milli, uint64_t factor_milli, uint64_t max_milli)
{
    const uint64_t whole = cap_milli / 1000 * factor_milli; /* below 2^39 * 10^6 */
    if (whole >= max_milli) {
        return max_milli;
    }
    const uint64_t grown_milli = whole + cap_milli % 1000 * factor_milli / 1000;
    return grown_milli < max_milli ? grown_milli : max_milli;
}

uint64_t retry_delay(struct prng *prng, uint64_t base_ms, uint64_t factor_milli, uint64_t max_ms,
                     uint32_t retry_index)
{
    const uint64_t max_milli = max_ms * 1000;
    uint64_t cap_milli = (base_ms < max_ms ? base_ms : max_ms) * 1000;
    for (uint32_t i = 0; i < retry_index; i++) {
        const uint64_t grown_milli = grow_milli(cap_milli, factor_milli, max_milli);
        if (grown_milli == cap_milli) {
            break; /* at the maximum, or at rest */
        }
        cap_milli = grown_milli;
    }
    const uint64_t drawn_ms = prng_between(prng, 0, cap_milli / 1000);
    return drawn_ms < RETRY_DELAY_MIN_MS ? RETRY_DELAY_MIN_MS : drawn_ms;
}

/* A task that was handed out keeps its place: before what came after it. */
static void put_back(struct core *core, struct task *task)
{
    task_service(core, task)->running_count--;
    task_make_ready(core, task, true);
}

static void settle_failed(struct core *core, struct task *task, enum failure_kind kind,
                          struct effects *out)
{
    const bool is_cancelled =
        (task->flags & TASK_CANCEL_REQUESTED) != 0 || kind == FAILURE_CANCELLED;
    task_settle(core, task, is_cancelled ? TASK_CANCELLED : TASK_FAILED,
                is_cancelled ? FAILURE_CANCELLED : kind, (struct bytes){0}, out);
}

/* What the history takes counts for the task's owner; beyond its bound the store drops as much as
 * it adds. */
static void count_error(struct core *core, struct task *task,
                        const struct wire_failure_entry *failure)
{
    const uint32_t size_max =
        ATTEMPT_HISTORY_MAX * (TASK_ERROR_BYTES + ERROR_MESSAGE_SIZE_MAX + ERROR_TRACE_SIZE_MAX);
    uint64_t size = TASK_ERROR_BYTES;
    if (failure != NULL) {
        size += failure->name.size + failure->message.size + failure->trace.size;
    }
    if (size > size_max - task->error_size) {
        size = size_max - task->error_size;
    }
    task->error_size += (uint32_t)size;
    task->kept_size += (uint32_t)size;
    core->unsettled_bytes += size;
    core->owners[task->owner].byte_count += size;
}

static void keep_error(struct core *core, struct task *task, const struct attempt_end *end,
                       struct effects *out)
{
    count_error(core, task, end->failure);
    struct effect *record = persist(core, out, RECORD_ATTEMPT_FAILED, task);
    record->reason = (uint8_t)end->kind;
    record->attempt = end->attempt;
    record->failure = end->failure;
    record->value = task->retry_index;
    task->record = record->number;
    struct effect *line = task_log(core, out, LOG_ATTEMPT_FAILED, task);
    if (line != NULL) {
        line->reason = (uint8_t)end->kind;
    }
}

static void count_kind(struct core *core, enum failure_kind kind)
{
    if (kind == FAILURE_RETURNED) {
        core->counters.attempts_returned++;
        return;
    }
    core->counters.attempts_failed++;
    if (kind == FAILURE_TIMEOUT) {
        core->counters.attempts_timeout++;
    } else if (kind == FAILURE_CRASH) {
        core->counters.attempts_crash++;
    } else if (kind == FAILURE_LOST) {
        core->counters.attempts_lost++;
    }
}

/* The fields of the task's policy, with what the worker that just ran it brought. */
struct retry_policy {
    uint64_t value[POLICY_FIELD_COUNT];
};

static void choose_retry_policy(const struct core *core, const struct task *task,
                                const struct attempt *attempt, struct retry_policy *policy)
{
    static const enum policy_field fields[] = {POLICY_ATTEMPTS_MAX,   POLICY_BACKOFF_BASE,
                                               POLICY_BACKOFF_FACTOR, POLICY_BACKOFF_MAX,
                                               POLICY_CRASH_LIMIT,    POLICY_LOST_LIMIT};
    for (uint32_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        policy->value[fields[i]] =
            policy_choose(core, attempt->serve_policy, task->policy, fields[i]).value;
    }
}

/* By policy: after a backoff, unless the attempts, the crashes or the time are used up. */
static void retry_later(struct core *core, struct task *task, const struct attempt_end *end,
                        const struct retry_policy *policy, struct effects *out)
{
    const uint32_t failed_index = task->retry_index - 1;
    uint64_t delay_ms = retry_delay(&core->prng, policy->value[POLICY_BACKOFF_BASE],
                                    policy->value[POLICY_BACKOFF_FACTOR],
                                    policy->value[POLICY_BACKOFF_MAX], failed_index);
    if (end->choice == RETRY_AFTER) {
        delay_ms = end->retry_delay_ms;
    }
    const bool is_used_up =
        task->retry_index >= policy->value[POLICY_ATTEMPTS_MAX] || end->choice == RETRY_STOP ||
        (end->kind == FAILURE_CRASH && task->crashes >= policy->value[POLICY_CRASH_LIMIT]) ||
        core->now_ms + delay_ms >= task->deadline_at_ms;
    if (is_used_up) {
        settle_failed(core, task, end->kind, out);
        return;
    }
    core->counters.retried++;
    struct service *service = task_service(core, task);
    service->retried_count++;
    service->running_count--;
    task_schedule(core, task, core->now_ms + delay_ms);
    struct effect *line = task_log(core, out, LOG_TASK_RETRYING, task);
    if (line != NULL) {
        line->value = delay_ms;
    }
}

static void retry_at_once(struct core *core, struct task *task, const struct attempt_end *end,
                          const struct retry_policy *policy, struct effects *out)
{
    if (end->kind == FAILURE_LOST && end->is_counted) {
        task->losses++;
        if (task->losses >= policy->value[POLICY_LOST_LIMIT]) {
            settle_failed(core, task, FAILURE_LOST, out);
            return;
        }
    }
    put_back(core, task);
}

void retry_after_failure(struct core *core, struct task *task, const struct attempt_end *end,
                         struct effects *out)
{
    const struct kind_rule *rule = &kind_rules[end->kind];
    struct attempt *attempt = &core->attempts[end->attempt];
    TREADLE_ASSERT(task->attempt == end->attempt && task->state == TASK_RUNNING);
    struct retry_policy policy;
    choose_retry_policy(core, task, attempt, &policy);
    count_kind(core, end->kind);
    task->kind = (uint8_t)end->kind;
    if (end->kind != FAILURE_RETURNED) {
        task->flags |= TASK_STARTED;
        keep_error(core, task, end, out);
    }
    if (rule->spends) {
        task->retry_index++;
    }
    if (end->kind == FAILURE_CRASH) {
        task->crashes++;
    }
    attempt_close(core, attempt, rule->verdict, out);
    if ((task->flags & TASK_CANCEL_REQUESTED) != 0 || rule->retry == RETRY_NEVER) {
        settle_failed(core, task, end->kind, out);
    } else if (rule->retry == RETRY_AT_ONCE) {
        retry_at_once(core, task, end, &policy, out);
    } else {
        retry_later(core, task, end, &policy, out);
    }
}

/* ---- the retry budget ---- */

static void roll_budget(struct core *core, struct service *service)
{
    const uint64_t second = core->now_ms / 1000;
    uint64_t steps = second - service->budget_second;
    if (steps > BUDGET_PARTS) {
        steps = BUDGET_PARTS;
    }
    for (uint64_t i = 0; i < steps; i++) {
        service->first_parts[(second - i) % BUDGET_PARTS] = 0;
        service->retry_parts[(second - i) % BUDGET_PARTS] = 0;
    }
    service->budget_second = second;
}

bool budget_admits(struct core *core, struct service *service)
{
    roll_budget(core, service);
    uint64_t firsts = 0;
    uint64_t retries = 0;
    for (uint32_t i = 0; i < BUDGET_PARTS; i++) {
        firsts += service->first_parts[i];
        retries += service->retry_parts[i];
    }
    return retries < firsts * BUDGET_SHARE_PERCENT / 100 + BUDGET_PER_SECOND * BUDGET_PARTS;
}

void budget_count(struct core *core, struct service *service, bool is_retry)
{
    roll_budget(core, service);
    uint32_t *parts = is_retry ? service->retry_parts : service->first_parts;
    parts[service->budget_second % BUDGET_PARTS]++;
}

void budget_arm(struct core *core, struct service *service)
{
    if (!timer_is_armed(&service->budget_timer)) {
        wheel_add(&core->wheel, &service->budget_timer, (core->now_ms / 1000 + 1) * 1000);
    }
}
