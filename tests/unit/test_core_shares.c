/* SPDX-License-Identifier: MPL-2.0 */
/* What one principal may take of each limit, and names that give way when nothing needs them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/core_driver.h"

#include <stdio.h>

static int end(void **state)
{
    struct core_driver *driver = *state;
    core_driver_destroy(&driver);
    return 0;
}

static int start(void **state)
{
    *state = core_driver_create(NULL);
    return 0;
}

static struct core_driver *given_a_core(void **state, const struct core_config *config)
{
    (void)end(state);
    *state = core_driver_create(config);
    return *state;
}

static const struct owner *owner_of(const struct peer *peer)
{
    return &peer->driver->core->owners[peer_session(peer)->owner];
}

/* ---- outcomes that nobody takes ---- */

/* Alice's tasks settle, and she acknowledges none of them. */
static struct peer *given_untaken_outcomes(struct core_driver *driver, uint32_t count)
{
    struct peer *alice = given_a_client(driver, "alice");
    alice->is_taking = false;
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "wc.count", .slots = count);
    (void)when_it_submits(alice, "wc.count", .count = count, .flags = SUBMIT_WATCH);
    while (worker->lease_count > 0) {
        when_it_succeeds(worker, worker->leases[0]);
    }
    assert_int_equal(core_unsettled_count(driver->core), 0);
    forget_all(driver);
    return alice;
}

static void test_outcomes_that_nobody_takes_count_for_their_owner(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.task_count_max = 20;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *alice = given_untaken_outcomes(driver, 12);
    struct peer *bob = given_a_client(driver, "bob");
    assert_int_equal(owner_of(alice)->undelivered_count, 12);
    const uint32_t of_bob = when_it_submits(bob, "wc.lines");
    then_it_is_answered(bob, of_bob, ACCEPT_OK, BUSY_NONE);
    const uint32_t over = when_it_submits(alice, "wc.lines");
    then_it_is_answered(alice, over, ACCEPT_BUSY, BUSY_SHARE);
    when_it_acknowledges(alice, 12);
    assert_int_equal(owner_of(alice)->undelivered_count, 0);
    (void)when_it_submits(alice, "wc.lines", .task = over);
    then_it_is_answered(alice, over, ACCEPT_OK, BUSY_NONE);
}

static void test_their_bytes_count_for_their_owner_too(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.byte_max = 20000;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *alice = given_a_client(driver, "alice");
    alice->is_taking = false;
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "wc.count");
    const uint32_t task = when_it_submits(alice, "wc.count", .flags = SUBMIT_WATCH,
                                          .body_size = 9000, .policy = {.attempts_max = 1});
    when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_PERMANENT);
    then_task_is(driver, task, TASK_FAILED); /* a dead letter keeps its body */
    assert_in_range(owner_of(alice)->undelivered_bytes, 9000, 10000);
    struct peer *bob = given_a_client(driver, "bob");
    const uint32_t of_bob = when_it_submits(bob, "wc.lines", .body_size = 5000);
    then_it_is_answered(bob, of_bob, ACCEPT_OK, BUSY_NONE);
    forget_all(driver);
    const uint32_t over = when_it_submits(alice, "wc.lines", .body_size = 1200);
    then_it_is_answered(alice, over, ACCEPT_BUSY, BUSY_SHARE);
}

static void test_session_that_takes_nothing_for_a_minute_begins_anew(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.window_count_max = 4;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *alice = given_untaken_outcomes(driver, 8);
    when_time_passes_ms(driver, 59000);
    assert_non_null(peer_session(alice));
    when_it_acknowledges(alice, 1); /* slow, but not stuck */
    when_time_passes_ms(driver, 59000);
    assert_non_null(peer_session(alice));
    assert_int_equal(driver->core->undelivered_count, 7);
    when_time_passes_ms(driver, 2000);
    assert_int_equal(driver->core->counters.sessions_stalled, 1);
    assert_int_equal(driver->core->undelivered_count, 0);
    assert_int_equal(then_it_gets(alice, REFUSED).effect.status, REFUSED_HELLO_FIRST);
}

static void test_session_whose_window_has_room_may_take_its_time(void **state)
{
    struct core_driver *driver = *state;
    struct peer *alice = given_untaken_outcomes(driver, 8);
    when_time_passes_ms(driver, 180000);
    assert_non_null(peer_session(alice));
    assert_int_equal(driver->core->undelivered_count, 8);
}

/* ---- what is refused ---- */

/* Submits so many tasks that no worker and no room is there for. */
static void when_it_is_refused(struct peer *client, uint32_t count)
{
    (void)when_it_submits(client, "wc.count", .count = count);
}

static void test_who_is_refused_much_is_asked_to_come_later(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    when_the_broker_drains(driver);
    driver->is_unchecked = true;
    when_it_is_refused(client, 1);
    assert_int_equal(then_it_gets(client, ACCEPTED).effect.value, 500);
    driver->is_forgetful = true;
    when_it_is_refused(client, 80000);
    driver->is_forgetful = false;
    when_it_is_refused(client, 1);
    assert_in_range(then_it_gets(client, ACCEPTED).effect.value, 800, 810);
    when_time_passes_ms(driver, 3000);
    forget_all(driver);
    when_it_is_refused(client, 1);
    assert_int_equal(then_it_gets(client, ACCEPTED).effect.value, 500);
}

static void test_who_waits_as_it_was_told_is_never_cut_off(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    when_the_broker_drains(driver);
    driver->is_unchecked = true;
    driver->is_forgetful = true;
    when_it_is_refused(client, 1U << 20);
    for (uint32_t second = 0; second < 20; second++) {
        when_time_passes_ms(driver, 1000);
        when_it_is_refused(client, 100000);
    }
    assert_non_null(peer_session(client));
}

static void test_who_does_not_wait_as_it_was_told_is_cut_off(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    when_the_broker_drains(driver);
    driver->is_unchecked = true;
    driver->is_forgetful = true;
    when_it_is_refused(client, 2U << 20);
    assert_non_null(peer_session(client));
    driver->is_forgetful = false;
    when_it_is_refused(client, 1);
    assert_int_equal(driver->core->counters.sessions_pressing, 1);
    assert_int_equal(then_it_gets(client, REFUSED).effect.status, REFUSED_LIMIT);
    assert_int_equal(count_effects(driver, EFFECT_CLOSE, 0), 1);
}

/* ---- shares ---- */

static void test_one_principal_has_at_most_half_of_the_tenants_while_others_have_some(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.tenant_queue_count_max = 8;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *bob = given_a_client(driver, "bob");
    (void)when_it_submits(bob, "wc.count");
    for (uint32_t i = 0; i < 5; i++) {
        char tenant[16];
        (void)snprintf(tenant, sizeof tenant, "t%u", i);
        const uint32_t task = when_it_submits(alice, "wc.count", .tenant = tenant);
        then_it_is_answered(alice, task, i < 4 ? ACCEPT_OK : ACCEPT_BUSY,
                            i < 4 ? BUSY_NONE : BUSY_NAMES);
    }
    forget_all(driver);
    const uint32_t task = when_it_submits(bob, "wc.count", .tenant = "other");
    then_it_is_answered(bob, task, ACCEPT_OK, BUSY_NONE);
}

static void test_one_principal_has_at_most_half_of_the_policies_while_others_have_some(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.policy_count_max = 8;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *bob = given_a_client(driver, "bob");
    (void)when_it_submits(bob, "wc.count", .policy = {.timeout_ms = 99});
    for (uint32_t i = 0; i < 5; i++) {
        const uint32_t task = when_it_submits(alice, "wc.count", .policy = {.timeout_ms = 100 + i});
        then_it_is_answered(alice, task, i < 4 ? ACCEPT_OK : ACCEPT_BUSY,
                            i < 4 ? BUSY_NONE : BUSY_NAMES);
    }
    assert_int_equal(owner_of(alice)->policy_count, 4);
}

static void test_one_principal_has_at_most_half_of_the_watches_while_others_have_some(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.watch_count_max = 8;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *bob = given_a_client(driver, "bob");
    (void)when_it_submits(bob, "wc.count", .flags = SUBMIT_WATCH);
    for (uint32_t i = 0; i < 5; i++) {
        const uint32_t task = when_it_submits(alice, "wc.count", .flags = SUBMIT_WATCH);
        then_it_is_answered(alice, task, i < 4 ? ACCEPT_OK : ACCEPT_BUSY,
                            i < 4 ? BUSY_NONE : BUSY_TASKS);
    }
    forget_all(driver);
    const uint32_t task = when_it_submits(bob, "wc.count", .flags = SUBMIT_WATCH);
    then_it_is_answered(bob, task, ACCEPT_OK, BUSY_NONE);
}

static void when_it_reports_meta(struct peer *worker, uint64_t lease, size_t size)
{
    static uint8_t value[META_SIZE_MAX];
    struct writer meta;
    writer_init(&meta);
    const struct wire_meta_item item = {.name = bytes_from_text("n"), .value = {value, size}};
    assert_true(wire_meta_item_encode(&meta, &item));
    const struct wire_progress_entry entry = {.lease = lease,
                                              .meta = wire_list_from_writer(&meta, 1)};
    writer_reset(&worker->driver->list);
    assert_true(wire_progress_entry_encode(&worker->driver->list, &entry));
    struct message message = {.kind = MESSAGE_PROGRESS};
    message.as.progress.entries = wire_list_from_writer(&worker->driver->list, 1);
    core_driver_send(worker, &message);
    writer_free(&meta);
}

static void test_meta_of_a_worker_counts_for_the_owner_of_the_task(void **state)
{
    struct core_config config;
    core_driver_config(&config);
    config.byte_max = 8000;
    struct core_driver *driver = given_a_core(state, &config);
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "wc.count", .slots = 2);
    const uint32_t task = when_it_submits(alice, "wc.count");
    const uint64_t lease = then_it_is_handed(worker, task);
    when_it_reports_meta(worker, lease, 4000);
    assert_in_range(owner_of(alice)->byte_count, 4000, 4020);
    when_it_reports_meta(worker, lease, 7000); /* in place of the former */
    assert_in_range(owner_of(alice)->byte_count, 7000, 7020);
    forget_all(driver);
    const uint32_t next = when_it_submits(alice, "wc.count", .body_size = 2000);
    then_it_is_answered(alice, next, ACCEPT_BUSY, BUSY_BYTES);
    when_it_reports_meta(worker, lease, 15000); /* more than there is room for */
    assert_in_range(owner_of(alice)->byte_count, 7000, 7020);
    assert_int_equal(driver->core->counters.meta_dropped, 1);
    when_it_succeeds(worker, lease);
    assert_int_equal(owner_of(alice)->byte_count, 0);
}

/* ---- names ---- */

/* Submits a task under a name of its own, and it leaves no trace but the name. */
static uint32_t when_a_name_is_used(struct peer *client, const char *name)
{
    const uint32_t task = when_it_submits(client, name, .policy = {.result_ttl_ms = 10});
    when_it_cancels(client, task);
    return task;
}

static void test_names_that_nothing_needs_give_way_to_new_ones(void **state)
{
    struct core_driver *driver = *state; /* of 8 services, 16 queues */
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "kept.work");
    when_it_sets(client, "kept", SERVICE_BREAKER_CLOSE);
    const uint32_t waiting = when_it_submits(client, "held.back");
    (void)when_a_name_is_used(client, "paused.work");
    when_it_sets(client, "paused", SERVICE_PAUSE);
    for (uint32_t i = 0; i < 100; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "junk%u.work", i);
        (void)when_a_name_is_used(client, name);
        when_time_passes_ms(driver, 20); /* its retention is over */
    }
    assert_true(driver->core->counters.names_dropped >= 190);
    const uint32_t task = when_it_submits(client, "fresh.work");
    then_it_waits_for(driver, task, WAIT_NO_WORKER);
    then_it_waits_for(driver, waiting, WAIT_NO_WORKER);
    const uint32_t paused = when_it_submits(client, "paused.work");
    then_it_waits_for(driver, paused, WAIT_PAUSED); /* a person's word is not forgotten */
    const uint32_t kept = when_it_submits(client, "kept.work");
    (void)then_it_is_handed(worker, kept);
}

static void test_names_of_what_is_kept_for_people_stay(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t first = when_it_submits(client, "s0.work");
    when_it_cancels(client, first); /* kept for an hour */
    for (uint32_t i = 1; i < 8; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "s%u.work", i);
        (void)when_it_submits(client, name);
    }
    when_time_passes_ms(driver, 10);
    forget_all(driver);
    const uint32_t task = when_it_submits(client, "s8.work");
    then_it_is_answered(client, task, ACCEPT_BUSY, BUSY_NAMES);
    when_time_passes_ms(driver, 3600000);
    forget_all(driver);
    (void)when_it_submits(client, "s8.work", .task = task);
    then_it_is_answered(client, task, ACCEPT_OK, BUSY_NONE);
}

static void test_queues_that_nothing_needs_give_way_within_a_service(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t waiting = when_it_submits(client, "wc.waiting");
    for (uint32_t i = 0; i < 50; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "wc.junk%u", i);
        (void)when_a_name_is_used(client, name);
        when_time_passes_ms(driver, 20);
    }
    assert_int_equal(driver->core->queue_slab.live, 16);
    then_it_waits_for(driver, waiting, WAIT_NO_WORKER);
    struct peer *worker = given_a_worker(driver, "w", "w1", .serves = "wc.*");
    assert_true(then_it_is_handed(worker, waiting) != 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)
    const struct CMUnitTest tests[] = {
        TEST(test_outcomes_that_nobody_takes_count_for_their_owner),
        TEST(test_their_bytes_count_for_their_owner_too),
        TEST(test_session_that_takes_nothing_for_a_minute_begins_anew),
        TEST(test_session_whose_window_has_room_may_take_its_time),
        TEST(test_who_is_refused_much_is_asked_to_come_later),
        TEST(test_who_waits_as_it_was_told_is_never_cut_off),
        TEST(test_who_does_not_wait_as_it_was_told_is_cut_off),
        TEST(test_one_principal_has_at_most_half_of_the_tenants_while_others_have_some),
        TEST(test_one_principal_has_at_most_half_of_the_policies_while_others_have_some),
        TEST(test_one_principal_has_at_most_half_of_the_watches_while_others_have_some),
        TEST(test_meta_of_a_worker_counts_for_the_owner_of_the_task),
        TEST(test_names_that_nothing_needs_give_way_to_new_ones),
        TEST(test_names_of_what_is_kept_for_people_stay),
        TEST(test_queues_that_nothing_needs_give_way_within_a_service),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
