/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/core_driver.h"

#include <string.h>

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

/* Makes the test's driver anew, with a configuration of its own. */
static struct core_driver *given_a_core(void **state, const struct core_config *config)
{
    (void)end(state);
    *state = core_driver_create(config);
    return *state;
}

static void when_it_runs(struct peer *worker, uint32_t task)
{
    when_it_succeeds(worker, then_it_is_handed(worker, task));
}

/* ---- identity ---- */

static void test_the_same_submission_again_is_existing_and_runs_once(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 4);
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
    (void)when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH, .task = task);
    then_it_is_answered(client, task, ACCEPT_EXISTING, BUSY_NONE);
    when_it_runs(worker, task);
    then_it_gets_no(worker, DISPATCH);
    then_it_is_told(client, task, TASK_SUCCEEDED);
    (void)when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH, .task = task);
    then_it_is_answered(client, task, ACCEPT_EXISTING, BUSY_NONE);
    then_it_gets_no(worker, DISPATCH);
    assert_int_equal(driver->core->counters.existing, 2);
    assert_int_equal(driver->core->counters.accepted, 1);
}

static void test_the_same_id_twice_in_one_message_is_one_task(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const struct wire_submit_template template = {.service = bytes_from_text("wc"),
                                                  .task = bytes_from_text("count")};
    const uint8_t digest[16] = {0};
    const struct wire_submit_entry entry = {.id = task_id_of(77), .digest = {digest, 16}};
    writer_reset(&driver->templates);
    writer_reset(&driver->list);
    assert_true(wire_submit_template_encode(&driver->templates, &template));
    assert_true(wire_submit_entry_encode(&driver->list, &entry));
    assert_true(wire_submit_entry_encode(&driver->list, &entry));
    struct message message = {.kind = MESSAGE_SUBMIT};
    message.as.submit.templates = wire_list_from_writer(&driver->templates, 1);
    message.as.submit.entries = wire_list_from_writer(&driver->list, 2);
    core_driver_send(client, &message);
    then_it_is_answered(client, 77, ACCEPT_OK, BUSY_NONE);
    then_it_is_answered(client, 77, ACCEPT_EXISTING, BUSY_NONE);
    assert_int_equal(core_unsettled_count(driver->core), 1);
}

static void test_the_same_id_with_another_content_is_a_conflict(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t task = when_it_submits(client, "wc.count");
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
    (void)when_it_submits(client, "wc.count", .task = task, .content = 9);
    then_it_is_answered(client, task, ACCEPT_CONFLICT, BUSY_NONE);
    assert_int_equal(core_unsettled_count(driver->core), 1);
}

static void test_an_id_of_another_principal_is_taken_and_unknown(void **state)
{
    struct core_driver *driver = *state;
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *eve = given_a_client(driver, "eve", .rights = RIGHT_SUBMIT);
    const uint32_t task = when_it_submits(alice, "wc.count");
    (void)when_it_submits(eve, "wc.count", .task = task, .flags = SUBMIT_WATCH);
    then_it_is_answered(eve, task, ACCEPT_REFUSED, REFUSED_ID_TAKEN);
    when_it_awaits(eve, task);
    assert_int_equal(then_it_gets(eve, AWAITED).effect.status, AWAIT_UNKNOWN);
    when_it_cancels(eve, task);
    assert_int_equal(then_it_gets(eve, CANCELLED).effect.status, CANCEL_UNKNOWN);
    when_it_asks_for(eve, task, 5);
    const struct seen info = then_it_gets(eve, TASK_INFO);
    assert_int_equal(info.effect.status, AWAIT_UNKNOWN);
    assert_int_equal(info.effect.task, NONE);
    then_task_is(driver, task, TASK_READY);
    when_it_cancels(alice, task);
    then_it_gets_no(eve, SETTLED);
}

static void test_an_administrator_sees_tasks_of_others(void **state)
{
    struct core_driver *driver = *state;
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *root = given_a_client(driver, "root", .rights = RIGHT_ADMIN);
    const uint32_t task = when_it_submits(alice, "wc.count");
    when_it_asks_for(root, task, 5);
    assert_int_equal(then_it_gets(root, TASK_INFO).effect.status, AWAIT_PENDING);
}

static void test_an_unknown_id_older_than_the_window_has_an_unknown_fate(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    when_time_passes_ms(driver, 700000);
    const uint32_t task = when_it_submits(client, "wc.count", .again_age_ms = 1 + 600001);
    then_it_is_answered(client, task, ACCEPT_FATE_UNKNOWN, BUSY_NONE);
    assert_int_equal(core_unsettled_count(driver->core), 0);
    (void)when_it_submits(client, "wc.count", .again_age_ms = 1 + 600000, .task = task);
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE); /* never arrived: it may run */
}

static void test_a_known_id_has_no_unknown_fate_however_old(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t task = when_it_submits(client, "wc.count");
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
    when_time_passes_ms(driver, 700000);
    (void)when_it_submits(client, "wc.count", .again_age_ms = 700001, .task = task);
    then_it_is_answered(client, task, ACCEPT_EXISTING, BUSY_NONE);
}

static void test_what_was_submitted_before_the_brokers_life_has_an_unknown_fate(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    when_time_passes_ms(driver, 1000);
    const uint32_t task = when_it_submits(client, "wc.count", .again_age_ms = 1 + 1001);
    then_it_is_answered(client, task, ACCEPT_FATE_UNKNOWN, BUSY_NONE);
    (void)when_it_submits(client, "wc.count", .again_age_ms = 1 + 999, .task = task);
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
}

static void test_ids_are_remembered_after_their_tasks_are_gone(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.settled_count_max = 2;
    config.remembered_count_max = 4;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    struct peer *eve = given_a_client(driver, "eve", .rights = RIGHT_SUBMIT);
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    when_time_passes_ms(driver, 1000);
    const uint32_t task = when_it_submits(client, "wc.count", .count = 6);
    for (uint32_t i = 0; i < 6; i++) {
        when_it_runs(worker, task + i);
    }
    assert_null(task_of(driver, task)); /* 4 are gone and remembered, 2 are kept */
    forget_all(driver);
    (void)when_it_submits(client, "wc.count", .task = task, .again_age_ms = 1);
    assert_int_equal(then_it_gets(client, AWAITED).effect.status, AWAIT_GONE);
    then_it_gets_no(client, ACCEPTED); /* which would promise an outcome */
    (void)when_it_submits(client, "wc.count", .task = task, .content = 3);
    then_it_is_answered(client, task, ACCEPT_CONFLICT, BUSY_NONE);
    (void)when_it_submits(eve, "wc.count", .task = task);
    then_it_is_answered(eve, task, ACCEPT_REFUSED, REFUSED_ID_TAKEN);
    when_it_awaits(client, task);
    assert_int_equal(then_it_gets(client, AWAITED).effect.status, AWAIT_GONE);
    when_it_awaits(eve, task);
    assert_int_equal(then_it_gets(eve, AWAITED).effect.status, AWAIT_UNKNOWN);
    when_it_cancels(client, task);
    assert_int_equal(then_it_gets(client, CANCELLED).effect.status, CANCEL_SETTLED_ALREADY);
    when_it_asks_for(client, task, 1);
    assert_int_equal(then_it_gets(client, TASK_INFO).effect.status, AWAIT_GONE);
    then_it_gets_no(worker, DISPATCH);
}

static void test_a_forgotten_id_has_an_unknown_fate_inside_the_window_too(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.settled_count_max = 1;
    config.remembered_count_max = 2;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    when_time_passes_ms(driver, 100);
    const uint32_t task = when_it_submits(client, "wc.count", .count = 10);
    for (uint32_t i = 0; i < 10; i++) {
        when_time_passes_ms(driver, 10);
        when_it_runs(worker, task + i);
    }
    forget_all(driver);
    when_time_passes_ms(driver, 10);
    (void)when_it_submits(client, "wc.count", .task = task, .again_age_ms = 1 + 110);
    then_it_is_answered(client, task, ACCEPT_FATE_UNKNOWN, BUSY_NONE);
    (void)when_it_submits(client, "wc.count", .task = 999, .again_age_ms = 1 + 5);
    then_it_is_answered(client, 999, ACCEPT_OK, BUSY_NONE); /* later than all that is forgotten */
}

/* ---- limits ---- */

static void test_too_many_tasks_are_busy(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.task_count_max = 3;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .count = 4, .flags = SUBMIT_WATCH);
    for (uint32_t i = 0; i < 3; i++) {
        then_it_is_answered(client, task + i, ACCEPT_OK, BUSY_NONE);
    }
    const struct seen answer = then_it_gets(client, ACCEPTED);
    assert_int_equal(answer.effect.status, ACCEPT_BUSY);
    assert_int_equal(answer.effect.reason, BUSY_TASKS);
    assert_true(answer.effect.value > 0); /* retry after */
    when_it_runs(worker, task);
    when_it_acknowledges(client, 1); /* the outcome, which counts until it is taken */
    (void)when_it_submits(client, "wc.count", .task = task + 3);
    then_it_is_answered(client, task + 3, ACCEPT_OK, BUSY_NONE);
}

static void test_outcomes_that_nobody_takes_count_as_tasks(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.task_count_max = 3;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    client->is_taking = false;
    const uint32_t task = when_it_submits(client, "wc.count", .count = 3, .flags = SUBMIT_WATCH);
    for (uint32_t i = 0; i < 3; i++) {
        when_it_runs(worker, task + i);
    }
    forget_all(driver);
    const uint32_t next = when_it_submits(client, "wc.count");
    then_it_is_answered(client, next, ACCEPT_BUSY, BUSY_TASKS);
    when_it_acknowledges(client, 1);
    (void)when_it_submits(client, "wc.count", .task = next);
    then_it_is_answered(client, next, ACCEPT_OK, BUSY_NONE);
}

static void test_too_many_bytes_are_busy(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.byte_max = 10000;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t task = when_it_submits(client, "wc.count", .body_size = 6000);
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
    const uint32_t next = when_it_submits(client, "wc.count", .body_size = 4001);
    then_it_is_answered(client, next, ACCEPT_BUSY, BUSY_BYTES);
    (void)when_it_submits(client, "wc.count", .body_size = 4000, .task = next);
    then_it_is_answered(client, next, ACCEPT_OK, BUSY_NONE);
    when_it_cancels(client, task);
    const uint32_t last = when_it_submits(client, "wc.count", .body_size = 6000);
    then_it_is_answered(client, last, ACCEPT_OK, BUSY_NONE);
}

static void test_a_body_over_the_limit_is_refused(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.body_size_max = 1000;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t task = when_it_submits(client, "wc.count", .body_size = 1001);
    then_it_is_answered(client, task, ACCEPT_REFUSED, REFUSED_BODY_SIZE);
    (void)when_it_submits(client, "wc.count", .body_size = 1000, .task = task);
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
}

static void test_one_principal_holds_at_most_half_while_others_are_there(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.task_count_max = 10;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *bob = given_a_client(driver, "bob");
    (void)when_it_submits(alice, "wc.count", .count = 6); /* alone: more than half */
    assert_int_equal(core_unsettled_count(driver->core), 6);
    const uint32_t of_bob = when_it_submits(bob, "wc.count");
    then_it_is_answered(bob, of_bob, ACCEPT_OK, BUSY_NONE);
    forget_all(driver);
    const uint32_t over = when_it_submits(alice, "wc.count");
    then_it_is_answered(alice, over, ACCEPT_BUSY, BUSY_SHARE);
    when_it_cancels(bob, of_bob);
    (void)when_it_submits(alice, "wc.count", .task = over);
    then_it_is_answered(alice, over, ACCEPT_OK, BUSY_NONE);
}

static void test_one_principal_holds_at_most_half_of_the_bytes_too(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.byte_max = 10000;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *bob = given_a_client(driver, "bob");
    (void)when_it_submits(bob, "wc.count");
    const uint32_t task = when_it_submits(alice, "wc.count", .body_size = 5000);
    then_it_is_answered(alice, task, ACCEPT_OK, BUSY_NONE);
    const uint32_t over = when_it_submits(alice, "wc.count", .body_size = 1);
    then_it_is_answered(alice, over, ACCEPT_BUSY, BUSY_SHARE);
}

static void test_too_many_names_are_busy_and_leave_nothing_behind(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.service_count_max = 1;
    config.queue_count_max = 2;
    config.tenant_queue_count_max = 3;
    config.policy_count_max = 2;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t first = when_it_submits(client, "wc.a", .policy = {.timeout_ms = 1});
    (void)when_it_submits(client, "wc.b", .policy = {.timeout_ms = 2});
    forget_all(driver);
    const uint32_t task = when_it_submits(client, "other.a");
    then_it_is_answered(client, task, ACCEPT_BUSY, BUSY_NAMES); /* a service */
    (void)when_it_submits(client, "wc.c", .task = task);
    then_it_is_answered(client, task, ACCEPT_BUSY, BUSY_NAMES); /* a queue */
    (void)when_it_submits(client, "wc.a", .task = task, .policy = {.timeout_ms = 3});
    then_it_is_answered(client, task, ACCEPT_BUSY, BUSY_NAMES); /* a policy */
    const uint32_t third = when_it_submits(client, "wc.a", .tenant = "t1");
    then_it_is_answered(client, third, ACCEPT_OK, BUSY_NONE);
    (void)when_it_submits(client, "wc.a", .task = task, .tenant = "t2");
    then_it_is_answered(client, task, ACCEPT_BUSY, BUSY_NAMES); /* a tenant */
    when_it_cancels(client, third);
    when_it_cancels(client, first);
    (void)when_it_submits(client, "wc.a", .task = task, .tenant = "t2");
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
}

static void test_a_draining_broker_takes_no_new_task(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
    when_the_broker_drains(driver);
    (void)when_it_submits(client, "wc.count", .task = task);
    then_it_is_answered(client, task, ACCEPT_EXISTING, BUSY_NONE);
    const uint32_t next = when_it_submits(client, "wc.count");
    then_it_is_answered(client, next, ACCEPT_BUSY, BUSY_DRAINING);
    when_it_runs(worker, task);
    then_it_is_told(client, task, TASK_SUCCEEDED);
    assert_int_equal(core_unsettled_count(driver->core), 0);
}

/* ---- delivery ---- */

static void test_outcomes_are_numbered_over_the_session(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 9);
    const uint32_t task = when_it_submits(client, "wc.count", .count = 3, .flags = SUBMIT_WATCH);
    uint64_t leases[3];
    for (uint32_t i = 0; i < 3; i++) {
        leases[i] = then_it_is_handed(worker, task + i);
    }
    when_it_succeeds(worker, leases[2]);
    when_it_fails(worker, leases[0], FAILURE_PERMANENT);
    when_it_succeeds(worker, leases[1]);
    const uint32_t order[] = {2, 0, 1};
    for (uint32_t i = 0; i < 3; i++) {
        const struct seen seen = then_it_gets(client, SETTLED);
        assert_int_equal(seen.effect.number, i + 1);
        assert_memory_equal(seen.effect.id.bytes, task_id_of(task + order[i]).bytes, 16);
    }
}

static void test_the_window_bounds_what_is_in_flight(void **state)
{
    for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
        struct core_config config;
        core_driver_config(&config);
        if (by_bytes != 0) {
            config.window_byte_max = 3 * (256 + 4) + 100; /* three results of 4 bytes */
        } else {
            config.window_count_max = 3;
        }
        struct core_driver *driver = given_a_core(state, &config);
        struct peer *client = given_a_client(driver, "alice");
        struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
        client->is_taking = false;
        const uint32_t task =
            when_it_submits(client, "wc.count", .count = 8, .flags = SUBMIT_WATCH);
        for (uint32_t i = 0; i < 8; i++) {
            when_it_runs(worker, task + i);
        }
        assert_int_equal(client->settled, 3);
        when_time_passes_ms(driver, 10000);
        assert_int_equal(client->settled, 3);
        when_it_acknowledges(client, 2);
        assert_int_equal(client->settled, 5);
        when_it_acknowledges(client, 1);  /* an old word changes nothing */
        when_it_acknowledges(client, 99); /* nor one about what was never sent */
        assert_int_equal(client->settled, 5);
        when_it_acknowledges(client, 5);
        assert_int_equal(client->settled, 8);
        when_it_acknowledges(client, 8);
        assert_int_equal(driver->core->watch_slab.live, 0);
        assert_int_equal(count_sends(driver, client, MESSAGE_SETTLED), 8);
    }
}

static void test_an_outcome_larger_than_the_window_goes_alone(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.window_byte_max = 10;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    client->is_taking = false;
    const uint32_t task = when_it_submits(client, "wc.count", .count = 2, .flags = SUBMIT_WATCH);
    when_it_runs(worker, task);
    when_it_runs(worker, task + 1);
    assert_int_equal(client->settled, 1);
    when_it_acknowledges(client, 1);
    assert_int_equal(client->settled, 2);
}

static uint32_t dropped_results(const struct core_driver *driver)
{
    return count_effects(driver, EFFECT_PERSIST, RECORD_RESULT_DROPPED);
}

static void test_an_acknowledged_result_is_dropped(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    client->is_taking = false;
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    when_it_runs(worker, task);
    assert_int_equal(dropped_results(driver), 0);
    assert_int_equal(driver->core->settled_bytes, 4);
    when_it_acknowledges(client, 1);
    assert_int_equal(dropped_results(driver), 1);
    assert_int_equal(driver->core->settled_bytes, 0);
    forget_all(driver);
    when_it_awaits(client, task);
    assert_true((then_it_gets(client, SETTLED).flags & TASK_RESULT_GONE) != 0);
}

static void test_a_result_to_keep_is_kept_when_acknowledged(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH | SUBMIT_KEEP);
    when_it_runs(worker, task);
    when_it_acknowledges(client, 1);
    assert_int_equal(driver->core->watch_slab.live, 0);
    assert_int_equal(dropped_results(driver), 0);
    assert_int_equal(driver->core->settled_bytes, 4);
}

static void test_awaiting_never_drops_a_result(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *other = given_a_client(driver, "alice", "other");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count");
    when_it_awaits(other, task);
    assert_int_equal(then_it_gets(other, AWAITED).effect.status, AWAIT_PENDING);
    when_it_runs(worker, task);
    then_it_is_told(other, task, TASK_SUCCEEDED);
    when_it_acknowledges(other, 1);
    when_it_awaits(other, task);
    assert_int_equal(then_it_gets(other, AWAITED).effect.status, AWAIT_SETTLED);
    then_it_is_told(other, task, TASK_SUCCEEDED);
    when_it_acknowledges(other, 2);
    assert_int_equal(dropped_results(driver), 0);
}

static void test_a_result_is_dropped_when_the_last_of_those_who_await_it_has_it(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *other = given_a_client(driver, "alice", "other");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    client->is_taking = false;
    other->is_taking = false;
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    when_it_awaits(other, task);
    when_it_runs(worker, task);
    when_it_acknowledges(client, 1);
    assert_int_equal(dropped_results(driver), 0);
    when_it_acknowledges(other, 1);
    assert_int_equal(dropped_results(driver), 1);
}

static void test_unacknowledged_outcomes_are_offered_again_under_their_numbers(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    client->is_taking = false;
    const uint32_t task = when_it_submits(client, "wc.count", .count = 5, .flags = SUBMIT_WATCH);
    for (uint32_t i = 0; i < 3; i++) {
        when_it_runs(worker, task + i);
    }
    when_it_acknowledges(client, 1);
    when_its_connection_ends(client);
    when_it_runs(worker, task + 3); /* while it is away */
    forget_all(driver);
    client->upto = 2; /* it had taken one more than the broker knows */
    when_it_connects(client);
    assert_int_equal(then_it_gets(client, WELCOME).effect.status, 1);
    when_it_succeeds(worker, worker->leases[0]);
    for (uint32_t number = 3; number <= 5; number++) {
        const struct seen seen = then_it_gets(client, SETTLED);
        assert_int_equal(seen.effect.number, number);
        assert_memory_equal(seen.effect.id.bytes, task_id_of(task + number - 1).bytes, 16);
    }
    then_it_gets_no(client, SETTLED);
    when_it_says_hello(client); /* and again, as often as it says HELLO */
    for (uint32_t number = 3; number <= 5; number++) {
        assert_int_equal(then_it_gets(client, SETTLED).effect.number, number);
    }
}

static void test_a_new_session_of_the_owner_awaits_what_the_old_one_submitted(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .count = 2, .flags = SUBMIT_WATCH);
    when_it_runs(worker, task);
    client->is_silent = true;
    when_time_passes_ms(driver, 3000);
    assert_null(peer_session(client));
    assert_int_equal(driver->core->watch_slab.live, 0);
    when_it_succeeds(worker, worker->leases[0]);
    struct peer *later = given_a_client(driver, "alice", "later");
    when_it_awaits(later, task);
    then_it_is_told(later, task, TASK_SUCCEEDED);
    when_it_awaits(later, task + 1);
    assert_int_equal(then_it_gets(later, SETTLED).effect.number, 2);
    when_it_awaits(later, 4711);
    assert_int_equal(then_it_gets(later, AWAITED).effect.status, AWAIT_SETTLED);
    assert_int_equal(then_it_gets(later, AWAITED).effect.status, AWAIT_SETTLED);
    assert_int_equal(then_it_gets(later, AWAITED).effect.status, AWAIT_UNKNOWN);
}

static void test_awaiting_twice_tells_once(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    when_it_awaits(client, task);
    when_it_awaits(client, task);
    when_it_runs(worker, task);
    assert_int_equal(count_sends(driver, client, MESSAGE_SETTLED), 1);
}

/* ---- the order of persist and send ---- */

static void when_durable_up_to(struct core_driver *driver, uint64_t number)
{
    const struct input input = {.kind = INPUT_DURABLE, .durable_number = number};
    core_driver_step(driver, &input);
    core_driver_rounds(driver);
}

static uint64_t record_of(struct core_driver *driver, enum record_kind kind)
{
    struct seen *seen = seen_effect(driver, EFFECT_PERSIST, (int)kind);
    assert_non_null(seen);
    seen->is_taken = true;
    return seen->effect.number;
}

static void test_accepted_waits_for_its_record_and_dispatch_for_nothing(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 3);
    driver->is_store_held = true;
    const uint32_t task = when_it_submits(client, "wc.count", .count = 2, .flags = SUBMIT_WATCH);
    (void)then_it_is_handed(worker, task);
    (void)then_it_is_handed(worker, task + 1);
    when_time_passes_ms(driver, 5000);
    then_it_gets_no(client, ACCEPTED);
    when_durable_up_to(driver, record_of(driver, RECORD_ACCEPTED));
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
    then_it_gets_no(client, ACCEPTED);
    when_the_store_has_all(driver);
    then_it_is_answered(client, task + 1, ACCEPT_OK, BUSY_NONE);
}

static void test_settled_and_result_ack_wait_for_the_settlement(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    driver->is_store_held = true;
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    const uint64_t lease = then_it_is_handed(worker, task);
    when_the_store_has_all(driver);
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
    when_it_succeeds(worker, lease);
    when_time_passes_ms(driver, 2000);
    then_it_gets_no(client, SETTLED);
    then_it_gets_no(worker, RESULT_ACK);
    when_durable_up_to(driver, record_of(driver, RECORD_SETTLED) - 1);
    then_it_gets_no(client, SETTLED);
    then_it_gets_no(worker, RESULT_ACK);
    when_the_store_has_all(driver);
    then_it_is_told(client, task, TASK_SUCCEEDED);
    then_the_result_counts(worker, lease);
}

static void test_no_accepted_goes_with_settled_in_the_same_flush(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    driver->is_store_held = true;
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    when_it_runs(worker, task);
    when_the_store_has_all(driver);
    then_it_is_told(client, task, TASK_SUCCEEDED);
    then_it_gets_no(client, ACCEPTED);
    (void)when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH, .task = task);
    when_the_store_has_all(driver); /* but a resubmission is answered */
    then_it_is_answered(client, task, ACCEPT_EXISTING, BUSY_NONE);
}

static void test_accepted_is_sent_when_the_settlement_is_not_durable_yet(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    driver->is_store_held = true;
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    when_it_runs(worker, task);
    when_durable_up_to(driver, record_of(driver, RECORD_ACCEPTED));
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
    then_it_gets_no(client, SETTLED);
    when_the_store_has_all(driver);
    then_it_is_told(client, task, TASK_SUCCEEDED);
}

static void test_accepted_is_sent_when_settled_cannot_go_with_it(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.window_count_max = 1;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    client->is_taking = false;
    when_it_runs(worker, when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH));
    forget_all(driver);
    driver->is_store_held = true;
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    when_it_runs(worker, task);
    when_the_store_has_all(driver);
    then_it_gets_no(client, SETTLED); /* the window is full */
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
    const uint32_t unwatched = when_it_submits(client, "wc.count");
    when_it_runs(worker, unwatched);
    when_the_store_has_all(driver);
    then_it_is_answered(client, unwatched, ACCEPT_OK, BUSY_NONE); /* nothing else tells it */
}

static void test_the_answer_to_a_cancel_waits_for_the_record_it_made(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t running = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    const uint64_t lease = then_it_is_handed(worker, running);
    const uint32_t waiting = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    driver->is_store_held = true;
    when_it_cancels(client, running);
    assert_int_equal(then_it_gets(worker, CANCEL_ATTEMPT).lease, lease); /* at once */
    when_it_cancels(client, waiting);
    then_task_is(driver, waiting, TASK_CANCELLED);
    then_it_gets_no(client, CANCELLED);
    then_it_gets_no(client, SETTLED);
    when_durable_up_to(driver, record_of(driver, RECORD_CANCEL_INTENT));
    assert_int_equal(then_it_gets(client, CANCELLED).effect.status, CANCEL_REQUESTED);
    then_it_gets_no(client, CANCELLED);
    when_the_store_has_all(driver);
    assert_int_equal(then_it_gets(client, CANCELLED).effect.status, CANCEL_DONE);
    then_it_is_told(client, waiting, TASK_CANCELLED);
}

static void test_a_settlement_is_not_told_to_those_who_await_before_it_is_durable(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t task = when_it_submits(client, "wc.count", .policy = {.deadline_ms = 1000});
    driver->is_store_held = true;
    when_time_passes_ms(driver, 1000);
    then_task_is(driver, task, TASK_EXPIRED);
    when_it_awaits(client, task);
    then_it_gets_no(client, AWAITED);
    then_it_gets_no(client, SETTLED);
    when_the_store_has_all(driver);
    assert_int_equal(then_it_gets(client, AWAITED).effect.status, AWAIT_SETTLED);
    then_it_is_told(client, task, TASK_EXPIRED);
}

static void test_each_record_has_the_next_number(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .count = 3, .flags = SUBMIT_WATCH);
    when_it_runs(worker, task);
    when_it_fails(worker, then_it_is_handed(worker, task + 1), FAILURE_PERMANENT);
    when_it_cancels(client, task + 2);
    uint64_t last = 0;
    for (uint32_t i = 0; i < driver->seen_count; i++) {
        if (driver->seen[i].effect.kind == EFFECT_PERSIST) {
            last++;
            assert_int_equal(driver->seen[i].effect.number, last);
        }
    }
    assert_int_equal(last, driver->core->record_number);
}

/* ---- cancel ---- */

static void test_a_waiting_task_is_cancelled(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t ready = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    const uint32_t delayed =
        when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH, .delay_ms = 9000);
    const uint32_t tasks[] = {ready, delayed};
    for (uint32_t i = 0; i < 2; i++) {
        when_it_cancels(client, tasks[i]);
        assert_int_equal(then_it_gets(client, CANCELLED).effect.status, CANCEL_DONE);
        then_it_is_told(client, tasks[i], TASK_CANCELLED);
        when_it_cancels(client, tasks[i]);
        assert_int_equal(then_it_gets(client, CANCELLED).effect.status, CANCEL_SETTLED_ALREADY);
    }
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    when_time_passes_ms(driver, 20000);
    then_it_gets_no(worker, DISPATCH);
}

static void test_a_task_in_its_backoff_is_cancelled(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_TRANSIENT);
    when_it_cancels(client, task);
    then_it_is_told(client, task, TASK_CANCELLED);
    when_time_passes_ms(driver, 5000);
    then_it_gets_no(worker, DISPATCH);
}

static void test_success_wins_over_a_cancel(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
    const uint64_t lease = then_it_is_handed(worker, task);
    when_it_cancels(client, task);
    assert_int_equal(then_it_gets(client, CANCELLED).effect.status, CANCEL_REQUESTED);
    when_it_succeeds(worker, lease);
    const struct seen settled = then_it_gets(client, SETTLED);
    assert_int_equal(settled.state, TASK_SUCCEEDED);
    assert_true((settled.flags & TASK_CANCEL_REQUESTED) != 0);
}

static void test_any_failure_after_a_cancel_ends_as_cancelled(void **unused)
{
    (void)unused;
    const enum failure_kind kinds[] = {FAILURE_PREPARE,  FAILURE_PERMANENT, FAILURE_TRANSIENT,
                                       FAILURE_TIMEOUT,  FAILURE_CRASH,     FAILURE_FINALIZE,
                                       FAILURE_CANCELLED};
    for (uint32_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct core_driver *driver = core_driver_create(NULL);
        struct peer *client = given_a_client(driver, "alice");
        struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
        const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH);
        const uint64_t lease = then_it_is_handed(worker, task);
        when_it_cancels(client, task);
        when_it_fails(worker, lease, kinds[i], .choice = RETRY_AFTER, .delay_ms = 1);
        then_it_is_told(client, task, TASK_CANCELLED);
        assert_int_equal(task_of(driver, task)->kind, FAILURE_CANCELLED);
        core_driver_destroy(&driver);
    }
}

static void test_a_cancelled_task_that_is_lost_or_returned_ends_as_cancelled(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 2);
    const uint32_t task = when_it_submits(client, "wc.count", .count = 2, .flags = SUBMIT_WATCH);
    const uint64_t lease = then_it_is_handed(worker, task);
    when_it_cancels(client, task);
    when_it_cancels(client, task + 1);
    when_it_returns(worker, lease); /* it had not started */
    then_it_is_told(client, task, TASK_CANCELLED);
    when_it_says(worker, MESSAGE_GOODBYE);
    then_it_is_told(client, task + 1, TASK_CANCELLED);
}

static void test_a_cancel_is_said_again_to_a_worker_that_was_away(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count");
    const uint64_t lease = then_it_is_handed(worker, task);
    when_its_connection_ends(worker);
    when_it_cancels(client, task);
    then_it_gets_no(worker, CANCEL_ATTEMPT);
    when_it_connects(worker);
    assert_int_equal(then_it_gets(worker, CANCEL_ATTEMPT).lease, lease);
}

/* ---- clocks ---- */

static void test_a_delayed_task_waits_for_its_time(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .delay_ms = 60000);
    when_time_passes_ms(driver, 59999);
    then_it_waits_for(driver, task, WAIT_DELAY);
    when_time_passes_ms(driver, 1);
    (void)then_it_is_handed(worker, task);
}

static void test_a_waiting_task_expires_at_its_deadline(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t ready =
        when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH, .policy = {.deadline_ms = 5000});
    const uint32_t delayed = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH,
                                             .delay_ms = 60000, .policy = {.deadline_ms = 5000});
    when_time_passes_ms(driver, 4999);
    then_it_gets_no(client, SETTLED);
    when_time_passes_ms(driver, 1);
    then_it_is_told(client, ready, TASK_EXPIRED);
    then_it_is_told(client, delayed, TASK_EXPIRED);
    assert_int_equal(task_of(driver, ready)->kind, FAILURE_EXPIRED);
}

static void test_a_running_task_expires_at_its_deadline_and_its_result_is_late(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task =
        when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH, .policy = {.deadline_ms = 5000});
    const uint64_t lease = then_it_is_handed(worker, task);
    when_time_passes_ms(driver, 5000);
    then_it_is_told(client, task, TASK_EXPIRED);
    assert_int_equal(then_it_gets(worker, CANCEL_ATTEMPT).lease, lease);
    when_it_succeeds(worker, lease);
    then_the_result_is_late(worker, lease);
    then_task_is(driver, task, TASK_EXPIRED);
    assert_int_equal(count_sends(driver, client, MESSAGE_SETTLED), 1);
}

static void test_a_result_that_comes_when_the_deadline_passes_is_late(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task =
        when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH, .policy = {.deadline_ms = 1000});
    const uint64_t lease = then_it_is_handed(worker, task);
    driver->now_ms += 1000; /* the message is the first thing the core hears of this instant */
    when_it_succeeds(worker, lease);
    then_the_result_is_late(worker, lease);
    then_it_is_told(client, task, TASK_EXPIRED);
}

static void test_a_task_expires_that_is_not_handed_out_in_time(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH,
                                          .policy = {.queue_timeout_ms = 3000});
    when_time_passes_ms(driver, 2999);
    then_it_gets_no(client, SETTLED);
    when_time_passes_ms(driver, 1);
    then_it_is_told(client, task, TASK_EXPIRED);
}

static void test_a_return_does_not_count_as_handed_out(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH,
                                          .policy = {.queue_timeout_ms = 3000});
    const uint64_t lease = then_it_is_handed(worker, task);
    when_time_passes_ms(driver, 2000);
    worker->grants_by_hand = true; /* it grants no more */
    when_it_returns(worker, lease);
    then_it_waits_for(driver, task, WAIT_NO_SLOT);
    when_time_passes_ms(driver, 1000);
    then_it_is_told(client, task, TASK_EXPIRED);
}

static void test_a_task_that_has_run_has_no_queue_timeout_any_more(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .flags = SUBMIT_WATCH,
                                          .policy = {.queue_timeout_ms = 3000});
    const uint64_t lease = then_it_is_handed(worker, task);
    when_time_passes_ms(driver, 5000); /* while it runs the clock stands */
    worker->grants_by_hand = true;
    when_it_fails(worker, lease, FAILURE_TRANSIENT);
    when_time_passes_ms(driver, 60000);
    then_it_waits_for(driver, task, WAIT_NO_SLOT);
}

/* ---- retention ---- */

static void test_settled_tasks_stay_for_their_time(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .policy = {.result_ttl_ms = 60000});
    const uint32_t dead = when_it_submits(client, "wc.count", .policy = {.result_ttl_ms = 60000});
    when_it_runs(worker, task);
    when_it_fails(worker, then_it_is_handed(worker, dead), FAILURE_PERMANENT);
    client->is_silent = true;
    worker->is_silent = true;
    when_time_passes_ms(driver, 59999);
    then_task_is(driver, task, TASK_SUCCEEDED);
    when_time_passes_ms(driver, 1);
    assert_null(task_of(driver, task));
    assert_int_equal(count_effects(driver, EFFECT_PERSIST, RECORD_DROPPED), 1);
    then_task_is(driver, dead, TASK_FAILED); /* a dead letter stays for 30 days */
    when_time_passes_ms(driver, driver->config.dead_letter_ttl_ms - 60001);
    then_task_is(driver, dead, TASK_FAILED);
    when_time_passes_ms(driver, 1);
    assert_null(task_of(driver, dead));
}

static void test_settled_tasks_are_kept_up_to_their_number_oldest_go_first(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.settled_count_max = 3;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .count = 5);
    for (uint32_t i = 0; i < 5; i++) {
        when_it_runs(worker, task + i);
    }
    assert_null(task_of(driver, task));
    assert_null(task_of(driver, task + 1));
    for (uint32_t i = 2; i < 5; i++) {
        then_task_is(driver, task + i, TASK_SUCCEEDED);
    }
    assert_int_equal(driver->core->counters.settled_evicted, 2);
}

static void test_settled_tasks_are_kept_up_to_their_bytes(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.settled_byte_max =
        2 * (TASK_ERROR_BYTES + 64) + 10; /* two with their bodies and texts */
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(client, "wc.count", .count = 3);
    for (uint32_t i = 0; i < 3; i++) {
        when_it_fails(worker, then_it_is_handed(worker, task + i), FAILURE_PERMANENT);
    }
    assert_null(task_of(driver, task));
    then_task_is(driver, task + 1, TASK_FAILED);
    then_task_is(driver, task + 2, TASK_FAILED);
}

static void test_what_somebody_awaits_is_not_evicted(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.settled_count_max = 1;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    client->is_taking = false;
    const uint32_t task = when_it_submits(client, "wc.count", .count = 4, .flags = SUBMIT_WATCH,
                                          .policy = {.result_ttl_ms = 1000});
    for (uint32_t i = 0; i < 4; i++) {
        when_it_runs(worker, task + i);
    }
    when_time_passes_ms(driver, 3600000);
    for (uint32_t i = 0; i < 4; i++) {
        then_it_is_told(client, task + i, TASK_SUCCEEDED);
        then_task_is(driver, task + i, TASK_SUCCEEDED);
    }
    when_it_acknowledges(client, 4);
    assert_int_equal(driver->core->settled_count, 1);
}

/* ---- why a task waits ---- */

static void then_it_is_explained(struct peer *client, uint32_t task, enum wait_reason reason,
                                 uint64_t left_ms)
{
    when_it_asks_for(client, task, 11);
    const struct seen info = then_it_gets(client, TASK_INFO);
    assert_int_equal(info.effect.number, 11);
    assert_int_equal(info.effect.status, AWAIT_PENDING);
    assert_string_equal(wait_reason_text(info.effect.reason), wait_reason_text(reason));
    assert_int_equal(info.effect.value, left_ms);
}

static void test_every_gate_is_named(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t delayed = when_it_submits(client, "wc.count", .delay_ms = 5000);
    then_it_is_explained(client, delayed, WAIT_DELAY, 5000);
    when_it_cancels(client, delayed);
    const uint32_t task = when_it_submits(client, "wc.count");
    then_it_is_explained(client, task, WAIT_NO_WORKER, 0);
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    then_it_is_explained(client, task, WAIT_NONE, 0); /* it runs */
    const uint32_t next = when_it_submits(client, "wc.count");
    then_it_is_explained(client, next, WAIT_NO_SLOT, 0);
    when_it_sets(client, "wc", SERVICE_PAUSE);
    then_it_is_explained(client, next, WAIT_PAUSED, 0);
    when_it_sets(client, "wc", SERVICE_RESUME);
    when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_TRANSIENT, .choice = RETRY_AFTER,
                  .delay_ms = 700000);
    then_it_is_explained(client, task, WAIT_BACKOFF, 700000);
    when_it_fails(worker, then_it_is_handed(worker, next), FAILURE_PERMANENT);
    for (uint32_t i = 0; i < 5; i++) {
        const uint32_t bad = when_it_submits(client, "wc.count", .policy = {.attempts_max = 1});
        when_it_fails(worker, then_it_is_handed(worker, bad), FAILURE_TRANSIENT);
    }
    const uint32_t last = when_it_submits(client, "wc.count", .count = 2);
    then_it_is_explained(client, last, WAIT_BREAKER, 10000);
    when_time_passes_ms(driver, 4000);
    then_it_is_explained(client, last, WAIT_BREAKER, 6000);
    when_time_passes_ms(driver, 6000);
    (void)then_it_is_handed(worker, last);
    then_it_is_explained(client, last + 1, WAIT_PROBES, 0);
    when_it_sets(client, "wc", SERVICE_BREAKER_OPEN);
    then_it_is_explained(client, last + 1, WAIT_BREAKER, 0); /* until a person says so */
}

static void test_a_task_that_may_go_waits_for_its_turn(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    (void)given_a_worker(driver, "bob", "w1", .serves = "wc.count");
    driver->is_by_hand = true;
    const uint32_t task = when_it_submits(client, "wc.count");
    then_it_waits_for(driver, task, WAIT_TURN);
    core_driver_rounds(driver);
    then_task_is(driver, task, TASK_RUNNING);
}

/* ---- listings ---- */

struct page {
    uint32_t rows;
    uint64_t token;
    enum done_status status;
    bool is_ended;
};

static void when_it_lists(struct peer *client, struct wire_task_list list)
{
    struct message message = {.kind = MESSAGE_TASK_LIST};
    message.as.task_list = list;
    core_driver_send(client, &message);
}

/* Takes all that has come for this request. */
static struct page page_of(struct peer *client, uint64_t request)
{
    struct page page = {0};
    struct core_driver *driver = client->driver;
    for (uint32_t i = 0; i < driver->seen_count; i++) {
        struct seen *seen = &driver->seen[i];
        if (seen->is_taken || seen->effect.kind != EFFECT_SEND || seen->peer != client ||
            seen->effect.code != MESSAGE_TASK_PAGE || seen->effect.number != request) {
            continue;
        }
        assert_false(page.is_ended);
        seen->is_taken = true;
        if (seen->effect.is_last != 0) {
            page.is_ended = true;
            page.token = seen->effect.value;
            page.status = (enum done_status)seen->effect.status;
        } else {
            page.rows++;
        }
    }
    return page;
}

static void test_a_listing_filters_by_service_state_and_owner(void **state)
{
    struct core_driver *driver = *state;
    struct peer *alice = given_a_client(driver, "alice", .rights = RIGHT_SUBMIT);
    struct peer *eve = given_a_client(driver, "eve", .rights = RIGHT_SUBMIT);
    struct peer *root = given_a_client(driver, "root");
    (void)when_it_submits(alice, "wc.count", .count = 5);
    (void)when_it_submits(alice, "tr.upper", .count = 3, .delay_ms = 9000);
    (void)when_it_submits(eve, "wc.count", .count = 2);
    when_it_lists(alice, (struct wire_task_list){.request = 1});
    assert_int_equal(page_of(alice, 1).rows, 8);
    when_it_lists(root, (struct wire_task_list){.request = 2});
    assert_int_equal(page_of(root, 2).rows, 10);
    when_it_lists(alice, (struct wire_task_list){.request = 3, .service = bytes_from_text("tr")});
    assert_int_equal(page_of(alice, 3).rows, 3);
    when_it_lists(root, (struct wire_task_list){.request = 4, .state = 1 + TASK_READY});
    const struct page ready = page_of(root, 4);
    assert_int_equal(ready.rows, 7);
    assert_int_equal(ready.token, 0);
    assert_int_equal(ready.status, DONE_OK);
    when_it_lists(root, (struct wire_task_list){.request = 5, .state = 1 + TASK_RUNNING});
    assert_int_equal(page_of(root, 5).rows, 0);
    when_it_lists(root,
                  (struct wire_task_list){.request = 6, .service = bytes_from_text("nobody")});
    assert_int_equal(page_of(root, 6).status, DONE_NOT_FOUND);
}

static void test_a_token_goes_on_where_the_page_ended(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    (void)when_it_submits(client, "wc.count", .count = 25);
    uint64_t token = 0;
    uint32_t rows = 0;
    for (uint64_t request = 1; request <= 3; request++) {
        when_it_lists(client,
                      (struct wire_task_list){.request = request, .token = token, .count_max = 10});
        const struct page page = page_of(client, request);
        assert_true(page.is_ended);
        rows += page.rows;
        token = page.token;
        assert_int_equal(token != 0, request < 3);
    }
    assert_int_equal(rows, 25);
}

static void test_a_token_of_another_life_of_the_broker_is_refused(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    (void)when_it_submits(client, "wc.count", .count = 25);
    when_it_lists(client, (struct wire_task_list){.request = 1, .count_max = 10});
    const uint64_t token = page_of(client, 1).token;
    when_it_lists(client,
                  (struct wire_task_list){.request = 2, .token = token + (UINT64_C(1) << 40)});
    assert_int_equal(page_of(client, 2).status, DONE_TOKEN_OLD);
    when_it_lists(client, (struct wire_task_list){.request = 3, .token = 5});
    assert_int_equal(page_of(client, 3).status, DONE_TOKEN_OLD);
}

static void test_at_most_four_listings_are_open(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.task_count_max = 4000;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    (void)when_it_submits(client, "wc.count", .count = 4000);
    forget_all(driver);
    driver->is_by_hand = true;
    for (uint64_t request = 1; request <= 5; request++) {
        when_it_lists(client,
                      (struct wire_task_list){.request = request, .state = 1 + TASK_RUNNING});
    }
    assert_int_equal(page_of(client, 5).status, DONE_BUSY);
    core_driver_rounds(driver);
    for (uint64_t request = 1; request <= 4; request++) {
        const struct page page = page_of(client, request);
        assert_true(page.is_ended);
        assert_int_equal(page.status, DONE_OK);
    }
    when_it_lists(client, (struct wire_task_list){.request = 6, .state = 1 + TASK_RUNNING});
    core_driver_rounds(driver);
    assert_int_equal(page_of(client, 6).status, DONE_OK);
}

static void test_last_listing_is_for_who_administers(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.task_count_max = 4000;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *greedy = given_a_client(driver, "eve", .rights = RIGHT_SUBMIT);
    struct peer *root = given_a_client(driver, "root");
    (void)when_it_submits(greedy, "wc.count", .count = 4000);
    forget_all(driver);
    driver->is_by_hand = true;
    for (uint64_t request = 1; request <= 4; request++) {
        when_it_lists(greedy,
                      (struct wire_task_list){.request = request, .state = 1 + TASK_RUNNING});
    }
    assert_int_equal(page_of(greedy, 4).status, DONE_BUSY);
    when_it_lists(root, (struct wire_task_list){.request = 1, .state = 1 + TASK_RUNNING});
    core_driver_rounds(driver);
    assert_int_equal(page_of(root, 1).status, DONE_OK);
}

static void test_a_listing_ends_with_its_session(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.task_count_max = 4000;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *client = given_a_client(driver, "alice");
    (void)when_it_submits(client, "wc.count", .count = 4000);
    driver->is_by_hand = true;
    when_it_lists(client, (struct wire_task_list){.request = 1});
    when_it_says(client, MESSAGE_GOODBYE);
    core_driver_rounds(driver);
    assert_false(page_of(client, 1).is_ended);
    for (uint32_t i = 0; i < LISTING_COUNT; i++) {
        assert_false(driver->core->listings[i].is_open);
    }
}

static void test_what_is_refused_makes_no_names(void **state)
{
    struct core_driver *driver = given_a_core(state, NULL);
    struct peer *client = given_a_client(driver, "alice");
    when_the_broker_drains(driver);
    (void)when_it_submits(client, "new.name");
    assert_int_equal(driver->core->service_count, 0);
    assert_int_equal(driver->core->queue_slab.live, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)
    const struct CMUnitTest tests[] = {
        TEST(test_the_same_submission_again_is_existing_and_runs_once),
        TEST(test_what_is_refused_makes_no_names),
        TEST(test_the_same_id_twice_in_one_message_is_one_task),
        TEST(test_the_same_id_with_another_content_is_a_conflict),
        TEST(test_an_id_of_another_principal_is_taken_and_unknown),
        TEST(test_an_administrator_sees_tasks_of_others),
        TEST(test_an_unknown_id_older_than_the_window_has_an_unknown_fate),
        TEST(test_a_known_id_has_no_unknown_fate_however_old),
        TEST(test_what_was_submitted_before_the_brokers_life_has_an_unknown_fate),
        TEST(test_ids_are_remembered_after_their_tasks_are_gone),
        TEST(test_a_forgotten_id_has_an_unknown_fate_inside_the_window_too),
        TEST(test_too_many_tasks_are_busy),
        TEST(test_outcomes_that_nobody_takes_count_as_tasks),
        TEST(test_too_many_bytes_are_busy),
        TEST(test_a_body_over_the_limit_is_refused),
        TEST(test_one_principal_holds_at_most_half_while_others_are_there),
        TEST(test_one_principal_holds_at_most_half_of_the_bytes_too),
        TEST(test_too_many_names_are_busy_and_leave_nothing_behind),
        TEST(test_a_draining_broker_takes_no_new_task),
        TEST(test_outcomes_are_numbered_over_the_session),
        TEST(test_the_window_bounds_what_is_in_flight),
        TEST(test_an_outcome_larger_than_the_window_goes_alone),
        TEST(test_an_acknowledged_result_is_dropped),
        TEST(test_a_result_to_keep_is_kept_when_acknowledged),
        TEST(test_awaiting_never_drops_a_result),
        TEST(test_a_result_is_dropped_when_the_last_of_those_who_await_it_has_it),
        TEST(test_unacknowledged_outcomes_are_offered_again_under_their_numbers),
        TEST(test_a_new_session_of_the_owner_awaits_what_the_old_one_submitted),
        TEST(test_awaiting_twice_tells_once),
        TEST(test_accepted_waits_for_its_record_and_dispatch_for_nothing),
        TEST(test_settled_and_result_ack_wait_for_the_settlement),
        TEST(test_no_accepted_goes_with_settled_in_the_same_flush),
        TEST(test_accepted_is_sent_when_the_settlement_is_not_durable_yet),
        TEST(test_accepted_is_sent_when_settled_cannot_go_with_it),
        TEST(test_the_answer_to_a_cancel_waits_for_the_record_it_made),
        TEST(test_a_settlement_is_not_told_to_those_who_await_before_it_is_durable),
        TEST(test_each_record_has_the_next_number),
        TEST(test_a_waiting_task_is_cancelled),
        TEST(test_a_task_in_its_backoff_is_cancelled),
        TEST(test_success_wins_over_a_cancel),
        cmocka_unit_test(test_any_failure_after_a_cancel_ends_as_cancelled),
        TEST(test_a_cancelled_task_that_is_lost_or_returned_ends_as_cancelled),
        TEST(test_a_cancel_is_said_again_to_a_worker_that_was_away),
        TEST(test_a_delayed_task_waits_for_its_time),
        TEST(test_a_waiting_task_expires_at_its_deadline),
        TEST(test_a_running_task_expires_at_its_deadline_and_its_result_is_late),
        TEST(test_a_result_that_comes_when_the_deadline_passes_is_late),
        TEST(test_a_task_expires_that_is_not_handed_out_in_time),
        TEST(test_a_return_does_not_count_as_handed_out),
        TEST(test_a_task_that_has_run_has_no_queue_timeout_any_more),
        TEST(test_settled_tasks_stay_for_their_time),
        TEST(test_settled_tasks_are_kept_up_to_their_number_oldest_go_first),
        TEST(test_settled_tasks_are_kept_up_to_their_bytes),
        TEST(test_what_somebody_awaits_is_not_evicted),
        TEST(test_every_gate_is_named),
        TEST(test_a_task_that_may_go_waits_for_its_turn),
        TEST(test_a_listing_filters_by_service_state_and_owner),
        TEST(test_a_token_goes_on_where_the_page_ended),
        TEST(test_a_token_of_another_life_of_the_broker_is_refused),
        TEST(test_at_most_four_listings_are_open),
        TEST(test_last_listing_is_for_who_administers),
        TEST(test_a_listing_ends_with_its_session),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
