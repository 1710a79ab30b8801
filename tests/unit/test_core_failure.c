/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/core_driver.h"

#include <stdio.h>
#include <string.h>

#define BACKOFF_MAX_MS 8001U /* past any backoff of the first four failures */

static int start(void **state)
{
    *state = core_driver_create(NULL);
    return 0;
}

static int end(void **state)
{
    struct core_driver *driver = *state;
    core_driver_destroy(&driver);
    return 0;
}

static uint32_t history_count(const struct core_driver *driver)
{
    return count_effects(driver, EFFECT_PERSIST, RECORD_ATTEMPT_FAILED);
}

/* The breaker is held closed, so that it does not disturb. */
static void given_no_breaker(struct peer *client, const char *service)
{
    when_it_sets(client, service, SERVICE_BREAKER_CLOSE);
    assert_int_equal(then_it_gets(client, DONE).effect.status, DONE_OK);
}

/* ---- the table of failure kinds ---- */

struct kind_row {
    enum failure_kind kind;
    bool is_retried;
    bool spends;
    uint32_t breaker_results;
    uint32_t breaker_failures;
    uint32_t records;
};

static void check_window(const struct core_driver *driver, uint32_t results, uint32_t failures)
{
    uint32_t results_seen = 0;
    uint32_t failures_seen = 0;
    breaker_window(&driver->core->services[0].breaker, driver->now_ms, &results_seen,
                   &failures_seen);
    assert_int_equal(results_seen, results);
    assert_int_equal(failures_seen, failures);
}

static void test_each_reported_kind_does_what_the_table_says(void **unused)
{
    (void)unused;
    const struct kind_row rows[] = {
        {FAILURE_PREPARE, false, true, 0, 0, 1},   {FAILURE_PERMANENT, false, true, 1, 0, 1},
        {FAILURE_TRANSIENT, true, true, 1, 1, 1},  {FAILURE_TIMEOUT, true, true, 1, 1, 1},
        {FAILURE_CRASH, true, true, 1, 1, 1},      {FAILURE_FINALIZE, false, true, 0, 0, 1},
        {FAILURE_CANCELLED, false, false, 0, 0, 1}};
    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct core_driver *driver = core_driver_create(NULL);
        struct peer *client = given_a_client(driver, "alice");
        struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
        const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);

        const uint64_t lease = then_it_is_handed(worker, task);
        when_it_fails(worker, lease, rows[i].kind);
        then_the_result_counts(worker, lease);
        assert_int_equal(task_of(driver, task)->retry_index, rows[i].spends ? 1 : 0);
        assert_int_equal(task_of(driver, task)->kind, rows[i].kind);
        assert_int_equal(history_count(driver), rows[i].records);
        check_window(driver, rows[i].breaker_results, rows[i].breaker_failures);
        if (rows[i].is_retried) {
            then_it_waits_for(driver, task, WAIT_BACKOFF);
            then_it_gets_no(client, SETTLED);
            when_time_passes_ms(driver, BACKOFF_MAX_MS);
            (void)then_it_is_handed(worker, task);
        } else {
            then_it_is_told(client, task,
                            rows[i].kind == FAILURE_CANCELLED ? TASK_CANCELLED : TASK_FAILED);
        }
        core_driver_destroy(&driver);
    }
}

static void test_kinds_that_only_the_broker_gives_count_as_transient(void **unused)
{
    (void)unused;
    const enum failure_kind kinds[] = {FAILURE_NONE,    FAILURE_LOST,    FAILURE_RETURNED,
                                       FAILURE_DAMAGED, FAILURE_EXPIRED, FAILURE_UPSTREAM};
    for (uint32_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct core_driver *driver = core_driver_create(NULL);
        struct peer *client = given_a_client(driver, "alice");
        struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
        const uint32_t task = when_it_submits(client, "wc.count");
        when_it_fails(worker, then_it_is_handed(worker, task), kinds[i]);
        then_it_waits_for(driver, task, WAIT_BACKOFF);
        assert_int_equal(task_of(driver, task)->kind, FAILURE_TRANSIENT);
        check_window(driver, 1, 1);
        core_driver_destroy(&driver);
    }
}

static void test_a_lost_attempt_is_retried_at_once_and_spends_nothing(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *first = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count");
    (void)then_it_is_handed(first, task);
    struct peer *second = given_a_worker(driver, "bob", "w2", .serves = "wc.count");
    when_it_says(first, MESSAGE_GOODBYE);
    (void)then_it_is_handed(second, task);
    assert_int_equal(task_of(driver, task)->retry_index, 0);
    assert_int_equal(task_of(driver, task)->dispatches, 2);
    assert_int_equal(history_count(driver), 1);
    assert_false(seen_effect(driver, EFFECT_PERSIST, RECORD_ATTEMPT_FAILED)->has_failure);
    check_window(driver, 0, 0);
}

static void test_a_returned_attempt_is_retried_at_once_and_leaves_no_history(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count");
    for (int i = 0; i < 20; i++) {
        when_it_returns(worker, then_it_is_handed(worker, task));
    }
    (void)then_it_is_handed(worker, task);
    assert_int_equal(task_of(driver, task)->retry_index, 0);
    assert_int_equal(task_of(driver, task)->dispatches, 21);
    assert_int_equal(history_count(driver), 0);
    check_window(driver, 0, 0);
}

static void test_the_brokers_own_timeout_counts_like_a_reported_one(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(
        client, "wc.count", .policy = {.timeout_ms = 2000, .grace_ms = 500, .attempts_max = 2});
    const uint64_t lease = then_it_is_handed(worker, task);
    when_time_passes_ms(driver, 3499); /* timeout + grace + 1 s, less a ms */
    then_task_is(driver, task, TASK_RUNNING);
    when_time_passes_ms(driver, 1);
    then_it_waits_for(driver, task, WAIT_BACKOFF);
    assert_int_equal(then_it_gets(worker, CANCEL_ATTEMPT).lease, lease);
    assert_int_equal(task_of(driver, task)->retry_index, 1);
    assert_int_equal(task_of(driver, task)->kind, FAILURE_TIMEOUT);
    check_window(driver, 1, 1);
    assert_int_equal(history_count(driver), 1);
}

/* ---- how often ---- */

static void test_a_handler_that_always_fails_fails_after_exactly_attempts_max(void **unused)
{
    (void)unused;
    const uint32_t maxima[] = {1, 2, 4, 9};
    for (uint32_t i = 0; i < sizeof maxima / sizeof maxima[0]; i++) {
        struct core_driver *driver = core_driver_create(NULL);
        struct peer *client = given_a_client(driver, "alice");
        struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
        given_no_breaker(client, "wc");
        const uint32_t task =
            when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH,
                            .policy = {.attempts_max = maxima[i], .backoff_max_ms = 200});
        for (uint32_t attempt = 1; attempt <= maxima[i]; attempt++) {
            then_it_gets_no(client, SETTLED);
            when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_TRANSIENT);
            when_time_passes_ms(driver, 200);
        }
        then_it_is_told(client, task, TASK_FAILED);
        then_it_gets_no(worker, DISPATCH);
        assert_int_equal(task_of(driver, task)->dispatches, maxima[i]);
        assert_int_equal(task_of(driver, task)->retry_index, maxima[i]);
        assert_int_equal(history_count(driver), maxima[i]);
        core_driver_destroy(&driver);
    }
}

static void test_three_failures_of_four_attempts_settle_as_succeeded_with_history(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    for (int i = 0; i < 3; i++) {
        when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_TRANSIENT);
        when_time_passes_ms(driver, BACKOFF_MAX_MS);
    }
    when_it_succeeds(worker, then_it_is_handed(worker, task));
    then_it_is_told(client, task, TASK_SUCCEEDED);
    assert_int_equal(history_count(driver), 3);
    assert_true(task_of(driver, task)->error_size > 0);
    assert_int_equal(task_of(driver, task)->dispatches, 4);
}

static void test_a_retry_starts_within_its_backoff(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    given_no_breaker(client, "wc");
    for (uint32_t i = 0; i < 50; i++) {
        const uint32_t task = when_it_submits(client, "wc.count");
        const uint64_t failed_at_ms = driver->now_ms;
        when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_TRANSIENT);
        assert_in_range(task_of(driver, task)->wake_at_ms, failed_at_ms + 100, failed_at_ms + 1000);
        when_time_passes_ms(driver, 1001);
        when_it_succeeds(worker, then_it_is_handed(worker, task));
    }
}

static void test_crashes_end_at_their_limit_before_the_attempts_are_used_up(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    given_no_breaker(client, "wc");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH,
                                          .policy = {.attempts_max = 20, .backoff_max_ms = 100});
    const enum failure_kind kinds[] = {FAILURE_CRASH, FAILURE_TRANSIENT, FAILURE_CRASH,
                                       FAILURE_TRANSIENT, FAILURE_CRASH};
    for (uint32_t i = 0; i < 5; i++) {
        then_it_gets_no(client, SETTLED);
        when_it_fails(worker, then_it_is_handed(worker, task), kinds[i]);
        when_time_passes_ms(driver, 100);
    }
    then_it_is_told(client, task, TASK_FAILED);
    assert_int_equal(task_of(driver, task)->kind, FAILURE_CRASH);
    assert_int_equal(task_of(driver, task)->crashes, 3);
}

static void test_losses_end_at_their_limit(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    for (int i = 1; i <= 10; i++) {
        then_it_gets_no(client, SETTLED);
        (void)then_it_is_handed(worker, task);
        when_it_restarts(worker);
    }
    then_it_is_told(client, task, TASK_FAILED);
    assert_int_equal(task_of(driver, task)->kind, FAILURE_LOST);
    assert_int_equal(task_of(driver, task)->retry_index, 0);
    assert_int_equal(task_of(driver, task)->dispatches, 10);
    assert_int_equal(history_count(driver), 10);
}

static void test_only_the_oldest_leases_up_to_the_slots_count_as_losses(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 2, .prefetch = 3);
    const uint32_t task = when_it_submits(client, "wc.count", .count = 5, .flags = SUBMIT_WATCH,
                                          .policy = {.lost_limit = 1});
    for (uint32_t i = 0; i < 5; i++) {
        (void)then_it_is_handed(worker, task + i);
    }
    when_its_connection_ends(worker);
    when_time_passes_ms(driver, 500);
    then_task_is(driver, task, TASK_FAILED); /* these two may have run */
    then_task_is(driver, task + 1, TASK_FAILED);
    for (uint32_t i = 2; i < 5; i++) {
        then_it_waits_for(driver, task + i, WAIT_NO_WORKER);
        assert_int_equal(task_of(driver, task + i)->losses, 0);
    }
    when_it_restarts(worker); /* and they keep their order */
    for (uint32_t i = 2; i < 5; i++) {
        (void)then_it_is_handed(worker, task + i);
    }
}

/* ---- the handler's choice ---- */

static void test_a_handler_may_choose_the_delay(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count");
    when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_TRANSIENT, .choice = RETRY_AFTER,
                  .delay_ms = 77777);
    when_time_passes_ms(driver, 77776);
    then_it_waits_for(driver, task, WAIT_BACKOFF);
    when_time_passes_ms(driver, 1);
    when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_TRANSIENT, .choice = RETRY_AFTER,
                  .delay_ms = 0);
    (void)then_it_is_handed(worker, task); /* at once: its own choice has no floor */
    assert_int_equal(task_of(driver, task)->retry_index, 2);
}

static void test_a_handler_may_choose_to_stop(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_TRANSIENT, .choice = RETRY_STOP);
    then_it_is_told(client, task, TASK_FAILED);
    assert_int_equal(task_of(driver, task)->kind, FAILURE_TRANSIENT);
}

static void test_a_handlers_choice_does_not_exceed_the_attempts(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task =
        when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH, .policy = {.attempts_max = 1});
    when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_TRANSIENT, .choice = RETRY_AFTER,
                  .delay_ms = 5);
    then_it_is_told(client, task, TASK_FAILED);
}

/* ---- deadline ---- */

static void test_a_retry_that_would_start_after_the_deadline_fails_at_once(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH,
                                          .policy = {.deadline_ms = 10000});
    const uint64_t lease = then_it_is_handed(worker, task);
    when_time_passes_ms(driver, 1000);
    when_it_fails(worker, lease, FAILURE_CRASH, .choice = RETRY_AFTER, .delay_ms = 9000);
    then_it_is_told(client, task, TASK_FAILED); /* with its last error, and not as expired */
    assert_int_equal(task_of(driver, task)->kind, FAILURE_CRASH);
}

static void test_a_retry_that_starts_just_before_the_deadline_is_made(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH,
                                          .policy = {.deadline_ms = 10000});
    when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_TRANSIENT, .choice = RETRY_AFTER,
                  .delay_ms = 9999);
    when_time_passes_ms(driver, 9999);
    (void)then_it_is_handed(worker, task);
    when_time_passes_ms(driver, 1);
    then_it_is_told(client, task, TASK_EXPIRED);
}

/* ---- policies ---- */

static struct wire_policy policy_of(uint64_t first)
{
    uint64_t values[POLICY_FIELD_COUNT];
    struct wire_policy policy;
    _Static_assert(sizeof policy.attempts_max * POLICY_FIELD_COUNT <= sizeof policy,
                   "one number a field");
    for (uint64_t i = 0; i < POLICY_FIELD_COUNT; i++) {
        values[i] = first + i;
    }
    memset(&policy, 0, sizeof policy);
    memcpy(&policy.attempts_max, values, sizeof values);
    return policy;
}

static uint64_t first_of(enum policy_origin origin)
{
    return 100U * (1U + (uint64_t)origin);
}

static void check_origin(const struct core_driver *driver, uint32_t task, enum policy_origin origin)
{
    for (uint32_t field = 0; field < POLICY_FIELD_COUNT; field++) {
        const struct policy_choice choice =
            core_policy(driver->core, task_of(driver, task), (enum policy_field)field);
        assert_string_equal(policy_origin_text(choice.origin), policy_origin_text(origin));
        if (origin != ORIGIN_DEFAULT) {
            assert_int_equal(choice.value, first_of(origin) + field);
        }
    }
}

static enum policy_origin first_given(uint32_t given)
{
    for (int origin = ORIGIN_WORKER; origin < ORIGIN_DEFAULT; origin++) {
        if ((given & (1U << origin)) != 0) {
            return (enum policy_origin)origin;
        }
    }
    return ORIGIN_DEFAULT;
}

static struct wire_policy policy_if(uint32_t given, enum policy_origin origin)
{
    return (given & (1U << origin)) != 0 ? policy_of(first_of(origin)) : (struct wire_policy){0};
}

static void test_the_first_origin_that_gives_a_field_wins(void **unused)
{
    (void)unused;
    for (uint32_t given = 0; given < 1U << ORIGIN_DEFAULT; given++) { /* every set of origins */
        struct core_config config;
        core_driver_config(&config);
        const struct wire_policy broker = policy_if(given, ORIGIN_BROKER);
        memcpy(config.broker_policy.value, &broker.attempts_max, sizeof config.broker_policy.value);
        struct core_driver *driver = core_driver_create(&config);
        struct peer *client = given_a_client(driver, "alice");
        struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count",
                                             .worker_policy = policy_if(given, ORIGIN_WORKER),
                                             .task_policy = policy_if(given, ORIGIN_TASK),
                                             .service_policy = policy_if(given, ORIGIN_SERVICE));
        const uint32_t task = when_it_submits(client, "wc.count", .count = 2,
                                              .policy = policy_if(given, ORIGIN_SUBMISSION));
        (void)then_it_is_handed(worker, task);
        check_origin(driver, task, first_given(given));     /* with the worker that runs it */
        check_origin(driver, task + 1, first_given(given)); /* with the last that announced it */
        core_driver_destroy(&driver);
    }
}

static void test_each_field_is_resolved_by_itself(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count",
                                         .worker_policy = {.timeout_ms = 11},
                                         .task_policy = {.grace_ms = 33, .timeout_ms = 99},
                                         .service_policy = {.crash_limit = 44, .grace_ms = 99});
    const uint32_t number =
        when_it_submits(client, "wc.count", .policy = {.backoff_base_ms = 22, .timeout_ms = 99});
    (void)then_it_is_handed(worker, number);
    const struct {
        enum policy_field field;
        uint64_t value;
        enum policy_origin origin;
    } expected[] = {
        {POLICY_TIMEOUT, 11, ORIGIN_WORKER},      {POLICY_BACKOFF_BASE, 22, ORIGIN_SUBMISSION},
        {POLICY_GRACE, 33, ORIGIN_TASK},          {POLICY_CRASH_LIMIT, 44, ORIGIN_SERVICE},
        {POLICY_ATTEMPTS_MAX, 4, ORIGIN_DEFAULT}, {POLICY_RESULT_TTL, 3600000, ORIGIN_DEFAULT}};
    const struct task *task = task_of(driver, number);
    for (uint32_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const struct policy_choice choice = core_policy(driver->core, task, expected[i].field);
        assert_int_equal(choice.value, expected[i].value);
        assert_int_equal(choice.origin, expected[i].origin);
    }
    assert_int_equal(driver->core->attempts[task->attempt].timeout_ms, 11);
    assert_int_equal(driver->core->attempts[task->attempt].grace_ms, 33);
}

static void test_the_attempts_fields_resolve_with_the_worker_that_runs_it(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *first = given_a_worker(driver, "bob", "w1", .serves = "wc.count",
                                        .worker_policy = {.timeout_ms = 1111});
    struct peer *second = given_a_worker(driver, "bob", "w2", .serves = "wc.count",
                                         .worker_policy = {.timeout_ms = 2222});
    const uint32_t task = when_it_submits(client, "wc.count", .count = 2);
    (void)then_it_is_handed(first, task);
    (void)then_it_is_handed(second, task + 1);
    const struct attempt *attempts = driver->core->attempts;
    assert_int_equal(attempts[task_of(driver, task)->attempt].timeout_ms, 1111);
    assert_int_equal(attempts[task_of(driver, task + 1)->attempt].timeout_ms, 2222);
}

/* ---- the retry budget ---- */

#define BURST 150U

/* Spends the budget: 150 first dispatches fail, of their retries 20 % of 150 + 100 may go. */
static uint32_t given_the_budget_is_spent(struct peer *client, struct peer *worker)
{
    struct core_driver *driver = client->driver;
    given_no_breaker(client, "wc");
    const uint32_t task = when_it_submits(client, "wc.count", .count = BURST,
                                          .policy = {.backoff_max_ms = 100, .attempts_max = 2});
    for (uint32_t i = 0; i < BURST; i++) {
        when_it_fails(worker, then_it_is_handed(worker, task + i), FAILURE_TRANSIENT);
    }
    when_time_passes_ms(driver, 100);
    return task;
}

static uint32_t count_in_state(const struct core_driver *driver, uint32_t first, uint32_t count,
                               enum task_state state)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        found += task_of(driver, first + i)->state == (uint8_t)state ? 1 : 0;
    }
    return found;
}

static void test_with_the_budget_spent_retries_wait_and_first_attempts_go_on(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 300);
    const uint32_t task = given_the_budget_is_spent(client, worker);
    assert_int_equal(count_in_state(driver, task, BURST, TASK_RUNNING), 130);
    assert_int_equal(count_in_state(driver, task, BURST, TASK_READY), 20);
    for (uint32_t i = 0; i < BURST; i++) {
        if (task_of(driver, task + i)->state == TASK_READY) {
            then_it_waits_for(driver, task + i, WAIT_BUDGET);
            assert_false(timer_is_armed(&task_of(driver, task + i)->timer)); /* no timer each */
        }
    }
    forget_all(driver);
    const uint32_t fresh = when_it_submits(client, "wc.count");
    (void)then_it_is_handed(worker, fresh);
    when_time_passes_ms(driver, 8000);
    assert_int_equal(count_in_state(driver, task, BURST, TASK_READY), 20);
    when_time_passes_ms(driver, 3000); /* the burst has left the window */
    assert_int_equal(count_in_state(driver, task, BURST, TASK_READY), 0);
}

static void test_lost_and_returned_tasks_go_past_backoff_and_budget(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 300);
    const uint32_t task = given_the_budget_is_spent(client, worker);
    const uint32_t waiting = count_in_state(driver, task, BURST, TASK_READY);
    struct peer *other = given_a_worker(driver, "bob", "w2", .serves = "wc.count", .slots = 300);
    forget_all(driver);
    when_it_returns(worker, worker->leases[0]);
    assert_int_equal(count_sends(driver, NULL, MESSAGE_DISPATCH), 1);
    const uint32_t held = worker->lease_count;
    forget_all(driver);
    when_it_says(worker, MESSAGE_GOODBYE);
    assert_int_equal(count_sends(driver, other, MESSAGE_DISPATCH), held);
    assert_int_equal(count_in_state(driver, task, BURST, TASK_READY), waiting);
}

static void test_first_attempts_earn_retries(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 300);
    const uint32_t task = given_the_budget_is_spent(client, worker);
    const uint32_t more = when_it_submits(client, "wc.count", .count = 50);
    when_time_passes_ms(driver, 1000);
    assert_int_equal(count_in_state(driver, more, 50, TASK_RUNNING), 50);
    assert_int_equal(count_in_state(driver, task, BURST, TASK_READY), 10); /* 20 % of 200 + 100 */
}

/* ---- an open breaker ---- */

static void test_tasks_that_wait_at_an_open_breaker_spend_no_attempt_and_no_timer(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 5);
    const uint32_t task =
        when_it_submits(client, "wc.count", .count = 5, .policy = {.backoff_max_ms = 100});
    for (uint32_t i = 0; i < 5; i++) {
        when_it_fails(worker, then_it_is_handed(worker, task + i), FAILURE_TRANSIENT);
    }
    assert_non_null(seen_effect(driver, EFFECT_LOG, LOG_BREAKER_OPENED));
    const uint32_t fresh = when_it_submits(client, "wc.count");
    when_time_passes_ms(driver, 9999);
    then_it_gets_no(worker, DISPATCH);
    for (uint32_t i = 0; i < 6; i++) { /* task..task+4, fresh */
        then_it_waits_for(driver, task + i, WAIT_BREAKER);
        assert_false(timer_is_armed(&task_of(driver, task + i)->timer));
        assert_int_equal(task_of(driver, task + i)->retry_index, task + i == fresh ? 0 : 1);
    }
    when_time_passes_ms(driver, 1); /* one probe, the others wait */
    assert_non_null(seen_effect(driver, EFFECT_LOG, LOG_BREAKER_PROBING));
    const struct seen probe = then_it_gets(worker, DISPATCH);
    then_it_gets_no(worker, DISPATCH);
    assert_int_equal(count_in_state(driver, task, 6, TASK_READY), 5);
    when_it_succeeds(worker, probe.lease);
    (void)then_it_gets(worker, DISPATCH);
    (void)then_it_gets(worker, DISPATCH);
    then_it_gets_no(worker, DISPATCH);
    for (uint32_t i = 0; i < 6; i++) {
        if (task_of(driver, task + i)->state == TASK_READY) {
            then_it_waits_for(driver, task + i, WAIT_PROBES);
        }
    }
    assert_int_equal(count_in_state(driver, task, 6, TASK_READY), 3);
}

static void test_permanent_failures_do_not_trip_the_breaker(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .count = 50);
    for (uint32_t i = 0; i < 50; i++) {
        when_it_fails(worker, then_it_is_handed(worker, task + i), FAILURE_PERMANENT);
    }
    assert_int_equal(driver->core->services[0].breaker.state, BREAKER_CLOSED);
    check_window(driver, 50, 0);
}

static void test_results_from_before_the_opening_do_not_close_or_reopen(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 12);
    const uint32_t task = when_it_submits(client, "wc.count", .count = 12);
    uint64_t leases[12];
    for (uint32_t i = 0; i < 12; i++) {
        leases[i] = then_it_is_handed(worker, task + i);
    }
    for (uint32_t i = 0; i < 5; i++) {
        when_it_fails(worker, leases[i], FAILURE_TRANSIENT);
    }
    const struct breaker *breaker = &driver->core->services[0].breaker;
    assert_int_equal(breaker->state, BREAKER_OPEN);
    when_it_succeeds(worker, leases[5]);
    when_it_fails(worker, leases[6], FAILURE_TRANSIENT);
    assert_int_equal(breaker->state, BREAKER_OPEN);
    when_time_passes_ms(driver, 10000);
    assert_int_equal(breaker->state, BREAKER_HALF_OPEN);
    when_it_fails(worker, leases[7], FAILURE_TRANSIENT);
    assert_int_equal(breaker->state, BREAKER_HALF_OPEN);
    when_it_succeeds(worker, leases[8]);
    assert_int_equal(breaker->probe_successes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_reported_kind_does_what_the_table_says),
        cmocka_unit_test(test_kinds_that_only_the_broker_gives_count_as_transient),
        cmocka_unit_test(test_a_handler_that_always_fails_fails_after_exactly_attempts_max),
        cmocka_unit_test(test_the_first_origin_that_gives_a_field_wins),
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)
        TEST(test_a_lost_attempt_is_retried_at_once_and_spends_nothing),
        TEST(test_a_returned_attempt_is_retried_at_once_and_leaves_no_history),
        TEST(test_the_brokers_own_timeout_counts_like_a_reported_one),
        TEST(test_three_failures_of_four_attempts_settle_as_succeeded_with_history),
        TEST(test_a_retry_starts_within_its_backoff),
        TEST(test_crashes_end_at_their_limit_before_the_attempts_are_used_up),
        TEST(test_losses_end_at_their_limit),
        TEST(test_only_the_oldest_leases_up_to_the_slots_count_as_losses),
        TEST(test_a_handler_may_choose_the_delay),
        TEST(test_a_handler_may_choose_to_stop),
        TEST(test_a_handlers_choice_does_not_exceed_the_attempts),
        TEST(test_a_retry_that_would_start_after_the_deadline_fails_at_once),
        TEST(test_a_retry_that_starts_just_before_the_deadline_is_made),
        TEST(test_each_field_is_resolved_by_itself),
        TEST(test_the_attempts_fields_resolve_with_the_worker_that_runs_it),
        TEST(test_with_the_budget_spent_retries_wait_and_first_attempts_go_on),
        TEST(test_lost_and_returned_tasks_go_past_backoff_and_budget),
        TEST(test_first_attempts_earn_retries),
        TEST(test_tasks_that_wait_at_an_open_breaker_spend_no_attempt_and_no_timer),
        TEST(test_permanent_failures_do_not_trip_the_breaker),
        TEST(test_results_from_before_the_opening_do_not_close_or_reopen),
#undef TEST
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
