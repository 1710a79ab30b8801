/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/core_driver.h"

#include <string.h>

#define MANY 100000U

static int start(void **state)
{
    *state = core_driver_create(NULL);
    return 0;
}

static int start_large(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.task_count_max = 3 * MANY; /* so that half of it is more than MANY */
    *state = core_driver_create(&config);
    return 0;
}

static int end(void **state)
{
    struct core_driver *driver = *state;
    core_driver_destroy(&driver);
    return 0;
}

/* Principal `alice` has very many tasks waiting for the one slot of a worker. */
static struct peer *given_many_tasks_of(struct core_driver *driver, const char *principal)
{
    struct peer *client = given_a_client(driver, principal);
    driver->is_unchecked = true; /* each check looks at all of them */
    driver->is_forgetful = true;
    (void)when_it_submits(client, "wc.count", .count = MANY);
    driver->is_forgetful = false;
    assert_int_equal(core_unsettled_count(driver->core), MANY);
    return client;
}

/* ---- tenants ---- */

static void test_single_tasks_of_another_principal_wait_no_longer_than_one_round(void **state)
{
    struct core_driver *driver = *state;
    (void)given_many_tasks_of(driver, "alice");
    struct peer *bob = given_a_client(driver, "bob");
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "wc.count");
    for (int i = 0; i < 100; i++) {
        const uint32_t task = when_it_submits(bob, "wc.count");
        forget_all(driver);
        when_it_succeeds(worker, worker->leases[0]); /* one of alice's may be before it in turn */
        if (task_of(driver, task)->state == TASK_READY) {
            when_it_succeeds(worker, worker->leases[0]);
        }
        then_task_is(driver, task, TASK_RUNNING);
        when_it_succeeds(worker, worker->leases[0]);
        then_task_is(driver, task, TASK_SUCCEEDED);
    }
    core_check(driver->core);
}

static void test_a_round_with_many_slots_takes_tenants_in_turn(void **state)
{
    struct core_driver *driver = *state;
    (void)given_many_tasks_of(driver, "alice");
    struct peer *bob = given_a_client(driver, "bob");
    const uint32_t task = when_it_submits(bob, "wc.count", .count = 10);
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "wc.count", .slots = 30);
    assert_int_equal(worker->lease_count, 30);
    for (uint32_t i = 0; i < 10; i++) {
        then_task_is(driver, task + i, TASK_RUNNING); /* one for one */
    }
}

static void test_tenants_of_one_principal_take_turns_too(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    (void)when_it_submits(client, "wc.count", .count = 200, .tenant = "bulk");
    const uint32_t task = when_it_submits(client, "wc.count", .tenant = "web");
    (void)given_a_worker(driver, "w", "w1", .serves = "wc.count", .slots = 2);
    then_task_is(driver, task, TASK_RUNNING);
}

/* ---- services and queues ---- */

static void test_services_take_turns_by_quantum(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    (void)when_it_submits(client, "one.work", .count = 300);
    const uint32_t other = when_it_submits(client, "two.work", .count = 3);
    struct peer *worker =
        given_a_worker(driver, "w", "w1", .serves = "one.work two.work", .slots = 80);
    assert_int_equal(worker->lease_count, 80);
    for (uint32_t i = 0; i < 3; i++) {
        then_task_is(driver, other + i, TASK_RUNNING); /* after at most 64 of the other */
    }
}

/* Completes attempts one by one; returns how many until the task has run. */
static uint32_t turns_until_running(struct peer *worker, uint32_t task)
{
    uint32_t turns = 0;
    while (task_of(worker->driver, task)->state == TASK_READY && turns < 100) {
        when_it_succeeds(worker, worker->leases[0]);
        turns++;
    }
    return turns;
}

static void test_services_share_a_single_slot(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    (void)when_it_submits(client, "one.work", .count = 300);
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "one.work two.work");
    const uint32_t other = when_it_submits(client, "two.work", .count = 10);
    for (uint32_t i = 0; i < 10; i++) {
        assert_in_range(turns_until_running(worker, other + i), 0, 2);
    }
}

static void test_queues_of_a_service_share_a_single_slot(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    (void)when_it_submits(client, "wc.lines", .count = 300);
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "wc.*");
    const uint32_t other = when_it_submits(client, "wc.count", .count = 10);
    for (uint32_t i = 0; i < 10; i++) {
        assert_in_range(turns_until_running(worker, other + i), 0, 2);
    }
}

static void test_workers_of_one_queue_take_turns(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *first = given_a_worker(driver, "w", "w1", .serves = "wc.count", .slots = 10);
    struct peer *second = given_a_worker(driver, "w", "w2", .serves = "wc.count", .slots = 10);
    (void)when_it_submits(client, "wc.count", .count = 10);
    assert_int_equal(first->lease_count, 5);
    assert_int_equal(second->lease_count, 5);
}

/* ---- priorities ---- */

static void test_the_most_urgent_goes_first(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    uint32_t tasks[10];
    for (uint64_t priority = 0; priority < 10; priority++) {
        tasks[priority] = when_it_submits(client, "wc.count", .priority = priority, .count = 2);
    }
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "wc.count");
    for (uint32_t priority = 10; priority-- > 0;) {
        for (uint32_t i = 0; i < 2; i++) { /* of the same priority: first in, first out */
            when_it_succeeds(worker, then_it_is_handed(worker, tasks[priority] + i));
        }
    }
}

static void test_priority_0_is_not_passed_by_what_comes_more_than_90_s_later(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "wc.count");
    (void)when_it_submits(client, "wc.count"); /* keeps the slot */
    const uint32_t low = when_it_submits(client, "wc.count");
    const uint64_t low_at_ms = driver->now_ms;
    uint64_t newest_before_ms = 0; /* the newest one that went before it */
    uint32_t seconds = 0;
    while (task_of(driver, low)->state == TASK_READY) {
        assert_true(seconds < 300);
        when_time_passes_ms(driver, 1000);
        seconds++;
        (void)when_it_submits(client, "wc.count", .priority = 9, .count = 2); /* never enough */
        when_it_succeeds(worker, worker->leases[0]);
        const struct attempt *attempt =
            container_of_const(peer_session(worker)->attempts.next, struct attempt, link);
        const struct task *task = &driver->core->tasks[attempt->task];
        if (task->priority == 9 && task->submitted_at_ms > newest_before_ms) {
            newest_before_ms = task->submitted_at_ms;
        }
    }
    assert_in_range(newest_before_ms, low_at_ms + 89000, low_at_ms + 90000);
    assert_in_range(seconds, 178, 182); /* two a second come, one goes */
}

static void test_each_step_of_priority_is_worth_10_s(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "wc.count");
    const uint32_t running = when_it_submits(client, "wc.count");
    const uint64_t lease = then_it_is_handed(worker, running);
    const uint32_t low = when_it_submits(client, "wc.count", .priority = 3);
    when_time_passes_ms(driver, 19999);
    const uint32_t soon = when_it_submits(client, "wc.count", .priority = 5);
    when_time_passes_ms(driver, 2);
    const uint32_t late = when_it_submits(client, "wc.count", .priority = 5);
    when_it_succeeds(worker, lease);
    when_it_succeeds(worker, then_it_is_handed(worker, soon));
    when_it_succeeds(worker, then_it_is_handed(worker, low));
    (void)then_it_is_handed(worker, late);
}

static void test_what_was_handed_back_keeps_its_place(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "w", "w1", .serves = "wc.count", .slots = 1, .prefetch = 2);
    const uint32_t task = when_it_submits(client, "wc.count", .count = 5);
    when_it_sets(client, "wc", SERVICE_PAUSE);
    for (uint32_t i = 0; i < 3; i++) {
        (void)then_it_is_handed(worker, task + i);
    }
    when_it_returns(worker, worker->leases[2]); /* newest first, as a worker hands back */
    when_it_returns(worker, worker->leases[1]);
    when_it_sets(client, "wc", SERVICE_RESUME);
    (void)then_it_is_handed(worker, task + 1);
    (void)then_it_is_handed(worker, task + 2);
}

int main(void)
{
#define TEST(name)       cmocka_unit_test_setup_teardown(name, start, end)
#define LARGE_TEST(name) cmocka_unit_test_setup_teardown(name, start_large, end)
    const struct CMUnitTest tests[] = {
        LARGE_TEST(test_single_tasks_of_another_principal_wait_no_longer_than_one_round),
        LARGE_TEST(test_a_round_with_many_slots_takes_tenants_in_turn),
        TEST(test_tenants_of_one_principal_take_turns_too),
        TEST(test_services_take_turns_by_quantum),
        TEST(test_services_share_a_single_slot),
        TEST(test_queues_of_a_service_share_a_single_slot),
        TEST(test_workers_of_one_queue_take_turns),
        TEST(test_the_most_urgent_goes_first),
        TEST(test_priority_0_is_not_passed_by_what_comes_more_than_90_s_later),
        TEST(test_each_step_of_priority_is_worth_10_s),
        TEST(test_what_was_handed_back_keeps_its_place),
    };
#undef TEST
#undef LARGE_TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
