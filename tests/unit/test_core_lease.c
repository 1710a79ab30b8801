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

/* A client that watches, a worker that runs its one task. */
struct scene {
    struct core_driver *driver;
    struct peer *client;
    struct peer *worker;
    uint32_t task;
    uint64_t lease;
};

static struct scene given_a_running_task(void **state)
{
    struct scene scene = {.driver = *state};
    scene.client = given_a_client(scene.driver, "alice");
    scene.worker = given_a_worker(scene.driver, "bob", "w1", .serves = "wc.count");
    scene.task = when_it_submits(scene.client, "wc.count", .flags = SUBMIT_WATCH,
                                 .policy = {.timeout_ms = 10000, .grace_ms = 1000});
    scene.lease = then_it_is_handed(scene.worker, scene.task);
    return scene;
}

/* ---- fencing ---- */

static void test_a_result_after_the_backstop_changes_nothing(void **state)
{
    struct scene scene = given_a_running_task(state);
    when_time_passes_ms(scene.driver, 12000);
    then_it_waits_for(scene.driver, scene.task, WAIT_BACKOFF);
    when_it_succeeds(scene.worker, scene.lease);
    then_the_result_is_late(scene.worker, scene.lease);
    then_it_waits_for(scene.driver, scene.task, WAIT_BACKOFF);
    then_it_gets_no(scene.client, SETTLED);
    assert_int_equal(scene.driver->core->counters.late, 1);
    assert_int_equal(peer_session(scene.worker)->late_count, 1);
    when_time_passes_ms(scene.driver, 1001);
    when_it_succeeds(scene.worker, then_it_is_handed(scene.worker, scene.task));
    then_it_is_told(scene.client, scene.task, TASK_SUCCEEDED);
}

static void test_a_result_after_the_sessions_end_changes_nothing(void **state)
{
    struct scene scene = given_a_running_task(state);
    struct peer *other = given_a_worker(scene.driver, "bob", "w2", .serves = "wc.count");
    when_it_restarts(scene.worker);
    const uint64_t lease = then_it_is_handed(other, scene.task);
    assert_true(lease > scene.lease); /* leases grow */
    when_it_succeeds(scene.worker, scene.lease);
    then_the_result_is_late(scene.worker, scene.lease);
    then_task_is(scene.driver, scene.task, TASK_RUNNING);
    when_it_succeeds(other, lease);
    then_the_result_counts(other, lease);
    then_it_is_told(scene.client, scene.task, TASK_SUCCEEDED);
}

static void test_a_result_from_another_session_changes_nothing(void **state)
{
    struct scene scene = given_a_running_task(state);
    struct peer *other = given_a_worker(scene.driver, "bob", "w2", .serves = "wc.count");
    when_it_succeeds(other, scene.lease);
    then_the_result_is_late(other, scene.lease);
    when_it_fails(other, scene.lease, FAILURE_PERMANENT);
    then_the_result_is_late(other, scene.lease);
    when_it_returns(other, scene.lease);
    when_it_reports_progress(other, scene.lease);
    then_task_is(scene.driver, scene.task, TASK_RUNNING);
    assert_int_equal(scene.driver->core->counters.late, 4);
    when_it_succeeds(scene.worker, scene.lease);
    then_it_is_told(scene.client, scene.task, TASK_SUCCEEDED);
}

static void test_a_result_said_twice_counts_once(void **state)
{
    struct scene scene = given_a_running_task(state);
    when_it_fails(scene.worker, scene.lease, FAILURE_TRANSIENT);
    then_the_result_counts(scene.worker, scene.lease);
    when_it_succeeds(scene.worker, scene.lease);
    then_the_result_is_late(scene.worker, scene.lease);
    when_it_fails(scene.worker, scene.lease, FAILURE_TRANSIENT);
    then_the_result_is_late(scene.worker, scene.lease);
    assert_int_equal(task_of(scene.driver, scene.task)->retry_index, 1);
    then_it_gets_no(scene.client, SETTLED);
}

static void test_leases_of_nobody_are_late(void **state)
{
    struct scene scene = given_a_running_task(state);
    const uint64_t leases[] = {0, 1, UINT64_MAX, scene.lease + 1,
                               scene.lease - (UINT64_C(1) << 40) /* an older epoch */};
    for (uint32_t i = 0; i < sizeof leases / sizeof leases[0]; i++) {
        when_it_succeeds(scene.worker, leases[i]);
        then_the_result_is_late(scene.worker, leases[i]);
    }
    then_task_is(scene.driver, scene.task, TASK_RUNNING);
}

/* ---- zombies ---- */

static struct scene given_a_zombie(void **state)
{
    struct scene scene = {.driver = *state};
    scene.client = given_a_client(scene.driver, "alice");
    scene.worker = given_a_worker(scene.driver, "bob", "w1", .serves = "wc.count");
    scene.task =
        when_it_submits(scene.client, "wc.count", .flags = SUBMIT_WATCH,
                        .policy = {.timeout_ms = 10000, .grace_ms = 1000, .deadline_ms = 2000});
    scene.lease = then_it_is_handed(scene.worker, scene.task);
    when_time_passes_ms(scene.driver, 2000);
    then_it_is_told(scene.client, scene.task, TASK_EXPIRED);
    assert_int_equal(then_it_gets(scene.worker, CANCEL_ATTEMPT).lease, scene.lease);
    return scene;
}

static void test_a_zombie_holds_its_slot_until_the_worker_reports_its_end(void **state)
{
    struct scene scene = given_a_zombie(state);
    scene.worker->upto = 100; /* only the slot holds the next one back */
    scene.worker->grants_by_hand = true;
    when_it_says(scene.worker, MESSAGE_HEARTBEAT);
    const uint32_t next = when_it_submits(scene.client, "wc.count");
    (void)then_it_is_handed(scene.worker, next); /* as prefetch, behind the zombie */
    assert_int_equal(peer_session(scene.worker)->in_use, 2);
    when_it_fails(scene.worker, scene.lease, FAILURE_CANCELLED);
    then_the_result_is_late(scene.worker, scene.lease);
    assert_int_equal(peer_session(scene.worker)->in_use, 1);
    then_it_gets_no(scene.client, SETTLED);
}

static void test_a_zombie_holds_its_credit_until_the_worker_reports_its_end(void **state)
{
    struct scene scene = given_a_zombie(state);
    const uint32_t next = when_it_submits(scene.client, "wc.count");
    when_time_passes_ms(scene.driver, 5000);
    then_it_waits_for(scene.driver, next, WAIT_NO_SLOT);
    when_it_succeeds(scene.worker, scene.lease);
    then_the_result_is_late(scene.worker, scene.lease);
    (void)then_it_is_handed(scene.worker, next);
}

static void test_a_free_slot_elsewhere_goes_before_one_that_a_zombie_holds(void **state)
{
    struct scene scene = given_a_zombie(state);
    scene.worker->upto = 100;
    scene.worker->grants_by_hand = true;
    when_it_says(scene.worker, MESSAGE_HEARTBEAT);
    struct peer *other = given_a_worker(scene.driver, "bob", "w2", .serves = "wc.count");
    const uint32_t next = when_it_submits(scene.client, "wc.count");
    (void)then_it_is_handed(other, next);
}

static void test_a_zombies_slot_is_free_at_the_end_of_its_session(void **state)
{
    struct scene scene = given_a_zombie(state);
    when_it_says(scene.worker, MESSAGE_GOODBYE);
    assert_int_equal(scene.driver->core->attempt_slab.live, 0);
    then_task_is(scene.driver, scene.task, TASK_EXPIRED);
}

static void test_a_zombies_slot_is_free_when_its_backstop_passes(void **state)
{
    struct scene scene = given_a_zombie(state);
    when_time_passes_ms(scene.driver, 9999); /* 10 s + 1 s + 1 s since its dispatch */
    assert_int_equal(scene.driver->core->attempt_slab.live, 1);
    when_time_passes_ms(scene.driver, 1);
    assert_int_equal(scene.driver->core->attempt_slab.live, 0);
    assert_int_equal(peer_session(scene.worker)->in_use, 0);
}

static void test_a_zombie_holds_its_probe(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 8);
    when_it_sets(client, "wc", SERVICE_BREAKER_OPEN);
    when_it_sets(client, "wc", SERVICE_BREAKER_AUTO);
    const struct breaker *breaker = &driver->core->services[0].breaker;
    assert_int_equal(breaker->state, BREAKER_HALF_OPEN);
    const uint32_t task = when_it_submits(client, "wc.count", .policy = {.deadline_ms = 1000});
    const uint64_t lease = then_it_is_handed(worker, task);
    when_time_passes_ms(driver, 1000);
    then_task_is(driver, task, TASK_EXPIRED);
    const uint32_t next = when_it_submits(client, "wc.count");
    then_it_waits_for(driver, next, WAIT_PROBES);
    when_it_succeeds(worker, lease); /* late: frees the probe, and is no verdict */
    (void)then_it_is_handed(worker, next);
    assert_int_equal(breaker->probe_successes, 0);
    assert_int_equal(breaker->probes_in_flight, 1);
}

/* ---- the end of a session ---- */

static void test_a_silent_worker_is_lost_after_three_heartbeats(void **state)
{
    struct scene scene = given_a_running_task(state);
    struct peer *other = given_a_worker(scene.driver, "bob", "w2", .serves = "wc.count");
    scene.worker->is_silent = true;
    when_time_passes_ms(scene.driver, 2999);
    then_it_gets_no(other, DISPATCH);
    when_time_passes_ms(scene.driver, 1);
    (void)then_it_is_handed(other, scene.task); /* in the same ms */
    assert_int_equal(scene.driver->core->counters.sessions_lost, 1);
}

static void test_a_worker_whose_connection_ends_is_lost_after_the_resume_grace(void **state)
{
    struct scene scene = given_a_running_task(state);
    struct peer *other = given_a_worker(scene.driver, "bob", "w2", .serves = "wc.count");
    when_its_connection_ends(scene.worker);
    when_time_passes_ms(scene.driver, 499);
    then_it_gets_no(other, DISPATCH);
    when_time_passes_ms(scene.driver, 1);
    (void)then_it_is_handed(other, scene.task);
}

static void test_a_worker_that_says_goodbye_is_gone_at_once(void **state)
{
    struct scene scene = given_a_running_task(state);
    struct peer *other = given_a_worker(scene.driver, "bob", "w2", .serves = "wc.count");
    when_it_says(scene.worker, MESSAGE_GOODBYE);
    (void)then_it_is_handed(other, scene.task);
    assert_int_equal(scene.driver->core->counters.sessions_ended, 1);
}

static void test_a_worker_stopped_past_its_session_and_continued_changes_nothing(void **state)
{
    struct scene scene = given_a_running_task(state);
    struct peer *other = given_a_worker(scene.driver, "bob", "w2", .serves = "wc.count");
    scene.worker->is_silent = true; /* SIGSTOP */
    when_time_passes_ms(scene.driver, 4000);
    const uint64_t lease = then_it_is_handed(other, scene.task);
    scene.worker->is_silent = false;             /* SIGCONT: it sends what it has */
    when_it_succeeds(scene.worker, scene.lease); /* on a connection that has no session */
    assert_int_equal(then_it_gets(scene.worker, REFUSED).effect.status, REFUSED_HELLO_FIRST);
    peer_forgets(scene.worker, scene.lease);
    forget_all(scene.driver);
    when_it_says_hello(scene.worker); /* the same incarnation, a new session */
    assert_int_equal(then_it_gets(scene.worker, WELCOME).effect.status, 0);
    when_it_succeeds(scene.worker, scene.lease);
    then_the_result_is_late(scene.worker, scene.lease);
    then_task_is(scene.driver, scene.task, TASK_RUNNING);
    then_it_gets_no(scene.client, SETTLED);
    when_it_succeeds(other, lease);
    then_it_is_told(scene.client, scene.task, TASK_SUCCEEDED);
    assert_int_equal(count_sends(scene.driver, scene.client, MESSAGE_SETTLED), 1);
}

static void test_a_connection_restored_in_time_loses_no_lease_and_runs_nothing_twice(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 2, .prefetch = 3);
    (void)given_a_worker(driver, "bob", "w2", .serves = "wc.other");
    const uint32_t task = when_it_submits(client, "wc.count", .count = 5, .flags = SUBMIT_WATCH);
    assert_int_equal(worker->lease_count, 5);
    when_its_connection_ends(worker);
    when_time_passes_ms(driver, 499);
    forget_all(driver);
    when_it_connects(worker);
    const struct seen welcome = then_it_gets(worker, WELCOME);
    assert_int_equal(welcome.effect.status, 1);
    assert_int_equal(welcome.effect.number, 5);
    when_time_passes_ms(driver, 5000);
    assert_int_equal(count_sends(driver, NULL, MESSAGE_DISPATCH), 0);
    for (uint32_t i = 0; i < 5; i++) {
        when_it_succeeds(worker, worker->leases[0]);
        then_it_is_told(client, task + i, TASK_SUCCEEDED);
        assert_int_equal(task_of(driver, task + i)->dispatches, 1);
    }
    assert_int_equal(driver->core->counters.sessions_lost, 0);
}

static void test_leases_that_a_resumed_worker_does_not_name_are_dispatched_again(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 2, .prefetch = 2);
    const uint32_t task = when_it_submits(client, "wc.count", .count = 4);
    const uint64_t lost[2] = {worker->leases[1], worker->leases[3]};
    when_its_connection_ends(worker);
    peer_forgets(worker, lost[0]); /* these dispatches never arrived */
    peer_forgets(worker, lost[1]);
    forget_all(driver);
    when_it_connects(worker);
    (void)then_it_is_handed(worker, task + 1); /* in their order, under new leases */
    (void)then_it_is_handed(worker, task + 3);
    then_it_gets_no(worker, DISPATCH);
    assert_int_equal(task_of(driver, task)->dispatches, 1);
    assert_int_equal(task_of(driver, task + 1)->dispatches, 2);
    assert_int_equal(task_of(driver, task + 1)->losses, 0);
    assert_int_equal(peer_session(worker)->in_use, 4);
    when_it_succeeds(worker, lost[0]);
    then_the_result_is_late(worker, lost[0]);
}

static void test_a_new_incarnation_of_a_name_ends_the_older_session_at_once(void **state)
{
    struct scene scene = given_a_running_task(state);
    struct peer *newer = given_a_worker(scene.driver, "bob", "w1", .serves = "wc.count");
    assert_int_equal(then_it_gets(scene.worker, REFUSED).effect.status, REFUSED_REPLACED);
    (void)then_it_is_handed(newer, scene.task);
}

static void test_the_same_name_of_another_principal_is_another_worker(void **state)
{
    struct scene scene = given_a_running_task(state);
    (void)given_a_worker(scene.driver, "carol", "w1", .serves = "wc.count");
    then_it_gets_no(scene.worker, REFUSED);
    then_task_is(scene.driver, scene.task, TASK_RUNNING);
}

static void test_the_same_incarnation_of_another_principal_is_another_session(void **state)
{
    struct scene scene = given_a_running_task(state);
    struct peer *thief = given_a_worker(scene.driver, "carol", "w9", .serves = "wc.count");
    memcpy(thief->incarnation, scene.worker->incarnation, sizeof thief->incarnation);
    when_it_connects(thief);
    assert_int_equal(then_it_gets(thief, WELCOME).effect.status, 0);
    when_it_succeeds(thief, scene.lease);
    then_the_result_is_late(thief, scene.lease);
    then_task_is(scene.driver, scene.task, TASK_RUNNING);
}

static void test_a_session_that_moves_to_another_connection_leaves_the_first_one(void **state)
{
    struct scene scene = given_a_running_task(state);
    const uint32_t first = scene.worker->connection;
    when_it_connects(scene.worker); /* without an end of the first connection */
    assert_int_equal(seen_effect(scene.driver, EFFECT_CLOSE, 0)->effect.connection, first);
    const struct input late_news = {.kind = INPUT_DISCONNECTED, .connection = first};
    core_driver_step(scene.driver, &late_news);
    when_time_passes_ms(scene.driver, 5000);
    when_it_succeeds(scene.worker, scene.lease);
    then_the_result_counts(scene.worker, scene.lease);
}

/* ---- numbers of messages ---- */

static void test_doubled_messages_are_dropped(void **state)
{
    struct scene scene = given_a_running_task(state);
    const uint64_t number = scene.worker->number;
    for (uint64_t double_of = 1; double_of <= number; double_of++) {
        struct message message = {.kind = MESSAGE_GOODBYE, .number = double_of};
        core_driver_send(scene.worker, &message);
    }
    assert_int_equal(scene.driver->core->counters.doubles, number);
    then_task_is(scene.driver, scene.task, TASK_RUNNING);
    when_it_succeeds(scene.worker, scene.lease);
    then_the_result_counts(scene.worker, scene.lease);
}

static void test_a_doubled_hello_is_dropped(void **state)
{
    struct scene scene = given_a_running_task(state);
    scene.worker->number = 0;
    forget_all(scene.driver);
    peer_forgets(scene.worker, scene.lease);
    when_it_says_hello(scene.worker); /* number 1 again; and the heartbeat after it, 2 */
    then_it_gets_no(scene.worker, WELCOME);
    then_task_is(scene.driver, scene.task, TASK_RUNNING);
    assert_int_equal(scene.driver->core->counters.doubles, 2);
}

static void test_after_a_gap_the_peer_has_to_say_hello_again(void **state)
{
    struct scene scene = given_a_running_task(state);
    scene.worker->number++; /* a message was lost */
    when_it_succeeds(scene.worker, scene.lease);
    assert_int_equal(then_it_gets(scene.worker, REFUSED).effect.status, REFUSED_HELLO_FIRST);
    then_task_is(scene.driver, scene.task, TASK_RUNNING);
    when_it_says(scene.worker, MESSAGE_HEARTBEAT);
    then_it_gets_no(scene.worker, REFUSED); /* once a heartbeat is enough */
    when_time_passes_ms(scene.driver, 1000);
    assert_int_equal(then_it_gets(scene.worker, REFUSED).effect.status, REFUSED_HELLO_FIRST);
    scene.worker->leases[0] = scene.lease;
    scene.worker->lease_count = 1;
    when_it_says_hello(scene.worker);
    when_it_succeeds(scene.worker, scene.lease);
    then_the_result_counts(scene.worker, scene.lease);
    then_it_is_told(scene.client, scene.task, TASK_SUCCEEDED);
}

static void test_a_message_without_a_session_is_answered_with_hello_first(void **state)
{
    struct scene scene = given_a_running_task(state);
    when_it_says(scene.worker, MESSAGE_GOODBYE);
    forget_all(scene.driver);
    when_it_says(scene.worker, MESSAGE_HEARTBEAT);
    assert_int_equal(then_it_gets(scene.worker, REFUSED).effect.status, REFUSED_HELLO_FIRST);
    when_it_says(scene.worker, MESSAGE_GOODBYE);
    then_it_gets_no(scene.worker, REFUSED);
}

static void test_messages_of_the_other_role_are_refused(void **state)
{
    struct scene scene = given_a_running_task(state);
    when_it_succeeds(scene.client, scene.lease);
    assert_int_equal(then_it_gets(scene.client, REFUSED).effect.status, REFUSED_MALFORMED);
    (void)when_it_submits(scene.worker, "wc.count");
    assert_int_equal(then_it_gets(scene.worker, REFUSED).effect.status, REFUSED_MALFORMED);
    then_task_is(scene.driver, scene.task, TASK_RUNNING);
}

static void test_rights_are_checked(void **state)
{
    struct core_driver *driver = *state;
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "wc.count", .rights = RIGHT_SUBMIT);
    assert_int_equal(then_it_gets(worker, REFUSED).effect.status, REFUSED_RIGHTS);
    struct peer *client = given_a_client(driver, "alice", .rights = RIGHT_WORK);
    (void)then_it_gets(client, WELCOME);
    (void)when_it_submits(client, "wc.count");
    assert_int_equal(then_it_gets(client, REFUSED).effect.status, REFUSED_RIGHTS);
    struct peer *admin = given_a_client(driver, "root", .rights = RIGHT_ADMIN);
    (void)then_it_gets(admin, WELCOME);
    (void)when_it_submits(admin, "wc.count");
    assert_int_equal(then_it_gets(admin, REFUSED).effect.status, REFUSED_RIGHTS);
    struct peer *submitter = given_a_client(driver, "sue", .rights = RIGHT_SUBMIT);
    (void)when_it_submits(submitter, "wc.count");
    when_it_sets(submitter, "wc", SERVICE_PAUSE);
    assert_int_equal(then_it_gets(submitter, DONE).effect.status, DONE_REFUSED);
}

static void test_key_that_loses_its_right_is_out_at_its_next_message(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 1);
    struct peer *other = given_a_worker(driver, "carol", "w2", .serves = "wc.count", .slots = 1);
    const uint32_t task = when_it_submits(client, "wc.count");
    const uint64_t lease = worker->lease_count == 1 ? worker->leases[0] : 0;
    struct peer *loser = lease != 0 ? worker : other;
    struct peer *winner = lease != 0 ? other : worker;
    (void)then_it_is_handed(loser, task);
    loser->rights = RIGHT_SUBMIT | RIGHT_ADMIN;
    when_it_says(loser, MESSAGE_HEARTBEAT);
    assert_int_equal(then_it_gets(loser, REFUSED).effect.status, REFUSED_RIGHTS);
    (void)then_it_is_handed(winner, task); /* its lease is lost */
    client->rights = RIGHT_WORK;
    (void)when_it_submits(client, "wc.count");
    assert_int_equal(then_it_gets(client, REFUSED).effect.status, REFUSED_RIGHTS);
    assert_int_equal(driver->core->counters.accepted, 1);
}

static void test_heartbeats_go_both_ways(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    forget_all(driver);
    when_time_passes_ms(driver, 10000);
    assert_in_range(count_sends(driver, client, MESSAGE_HEARTBEAT), 9, 10);
    assert_non_null(peer_session(client));
}

static void test_a_worker_of_bad_patterns_is_refused(void **state)
{
    struct core_driver *driver = *state;
    const char *const patterns[] = {"wc.",    ".count", "count", "wc.c*",
                                    "wc.a*b", "*.*",    "*.x",   "wc.**"};
    for (uint32_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.fine");
        (void)then_it_gets(worker, WELCOME);
        forget_all(driver);
        worker->serves = patterns[i];
        when_it_says_hello(worker);
        assert_int_equal(then_it_gets(worker, REFUSED).effect.status, REFUSED_LIMIT);
        then_it_gets_no(worker, WELCOME);
        assert_null(peer_session(worker));
    }
}

static void test_a_pattern_serves_queues_that_come_later_too(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t before = when_it_submits(client, "wc.old");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.*", .slots = 9);
    (void)then_it_is_handed(worker, before);
    const uint32_t after = when_it_submits(client, "wc.new");
    (void)then_it_is_handed(worker, after);
    const uint32_t other = when_it_submits(client, "wcx.new");
    then_it_waits_for(driver, other, WAIT_NO_WORKER);
}

static void test_only_what_was_announced_is_dispatched(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 9);
    const uint32_t task = when_it_submits(client, "wc.lines");
    then_it_waits_for(driver, task, WAIT_NO_WORKER);
    worker->serves = "wc.lines";
    when_it_says_hello(worker);
    (void)then_it_is_handed(worker, task);
    const uint32_t next = when_it_submits(client, "wc.count");
    then_it_waits_for(driver, next, WAIT_NO_WORKER);
}

/* ---- credit ---- */

static void test_credit_is_never_exceeded(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 100);
    worker->grants_by_hand = true;
    worker->upto = 0;
    when_it_says(worker, MESSAGE_HEARTBEAT);
    (void)when_it_submits(client, "wc.count", .count = 50);
    const uint64_t grants[] = {0, 1, 1, 7, 7, 3, 8, 20}; /* lost, doubled, late: totals */
    uint64_t highest = 0;
    for (uint32_t i = 0; i < sizeof grants / sizeof grants[0]; i++) {
        worker->upto = grants[i];
        when_it_says(worker, MESSAGE_HEARTBEAT);
        highest = grants[i] > highest ? grants[i] : highest;
        assert_int_equal(worker->dispatched, highest);
    }
}

static void test_ended_attempts_give_no_credit_by_themselves(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 2);
    worker->grants_by_hand = true;
    worker->upto = 2;
    const uint32_t task = when_it_submits(client, "wc.count", .count = 5);
    when_it_succeeds(worker, then_it_is_handed(worker, task));
    then_it_is_handed(worker, task + 1);
    then_it_gets_no(worker, DISPATCH);
    assert_int_equal(worker->dispatched, 2);
}

static void test_a_resumed_session_waits_for_a_new_grant(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 9);
    worker->grants_by_hand = true;
    worker->upto = 9;
    when_its_connection_ends(worker);
    (void)when_it_submits(client, "wc.count", .count = 3);
    worker->upto = 0;
    when_it_connects(worker);
    assert_int_equal(worker->dispatched, 0);
    worker->upto = 2;
    when_it_says(worker, MESSAGE_HEARTBEAT);
    assert_int_equal(worker->dispatched, 2);
}

static void test_the_slots_of_all_workers_are_filled_before_any_prefetch(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *workers[3];
    const char *const names[] = {"w1", "w2", "w3"};
    for (uint32_t i = 0; i < 3; i++) {
        workers[i] = given_a_worker(driver, "bob", names[i], .serves = "wc.count", .slots = 2,
                                    .prefetch = 4);
    }
    (void)when_it_submits(client, "wc.count", .count = 6);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(workers[i]->lease_count, 2);
    }
    (void)when_it_submits(client, "wc.count", .count = 12);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(workers[i]->lease_count, 6);
    }
    const uint32_t over = when_it_submits(client, "wc.count");
    then_it_waits_for(driver, over, WAIT_NO_SLOT);
    when_it_succeeds(workers[1], workers[1]->leases[0]);
    then_task_is(driver, over, TASK_RUNNING);
}

/* ---- recall ---- */

static uint32_t count_recalled(struct core_driver *driver, struct peer *worker)
{
    uint32_t count = 0;
    struct seen *seen = NULL;
    while ((seen = seen_send(driver, worker, MESSAGE_RECALL)) != NULL) {
        seen->is_taken = true;
        count++;
    }
    return count;
}

static void test_a_pause_recalls_what_has_not_started(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 2, .prefetch = 3);
    const uint32_t task = when_it_submits(client, "wc.count", .count = 5);
    when_it_reports_progress(worker, worker->leases[0]); /* has started, as the broker knows */
    when_it_sets(client, "wc", SERVICE_PAUSE);
    assert_int_equal(count_recalled(driver, worker), 4); /* the worker knows which have not */
    when_it_sets(client, "wc", SERVICE_PAUSE);
    assert_int_equal(count_recalled(driver, worker), 0);
    when_it_returns(worker, worker->leases[4]);
    then_it_waits_for(driver, task + 4, WAIT_PAUSED);
    when_it_sets(client, "wc", SERVICE_RESUME);
    then_task_is(driver, task + 4, TASK_RUNNING);
}

static void test_an_opening_breaker_recalls_what_has_not_started(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 1, .prefetch = 7);
    (void)when_it_submits(client, "wc.count", .count = 8);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(count_recalled(driver, worker), 0);
        when_it_fails(worker, worker->leases[0], FAILURE_TRANSIENT);
    }
    assert_int_equal(driver->core->services[0].breaker.state, BREAKER_OPEN);
    assert_int_equal(count_recalled(driver, worker), 3);
}

static void test_an_idle_worker_elsewhere_recalls_what_waits(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *busy =
        given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 1, .prefetch = 3);
    const uint32_t task = when_it_submits(client, "wc.count", .count = 4);
    when_time_passes_ms(driver, 5000);
    assert_int_equal(count_recalled(driver, busy), 0); /* there is no other worker */
    struct peer *idle = given_a_worker(driver, "bob", "w2", .serves = "wc.count", .slots = 1);
    when_time_passes_ms(driver, 200);
    assert_int_equal(count_recalled(driver, busy), 3); /* what waits behind its one slot */
    when_it_returns(busy, busy->leases[3]);
    assert_int_equal(idle->lease_count, 1);
    then_task_is(driver, task + 3, TASK_RUNNING);
    assert_int_equal(task_of(driver, task + 3)->dispatches, 2);
}

static void test_idle_workers_are_looked_for_also_when_a_message_comes_with_the_time(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *busy =
        given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 1, .prefetch = 3);
    (void)when_it_submits(client, "wc.count", .count = 4);
    struct peer *idle = given_a_worker(driver, "bob", "w2", .serves = "wc.count", .slots = 1);
    for (int i = 0; i < 3; i++) {
        driver->now_ms += 100;
        when_it_says(idle, MESSAGE_HEARTBEAT); /* the first that the core hears of this instant */
    }
    assert_int_equal(count_recalled(driver, busy), 3);
}

static void test_a_recall_that_may_be_lost_is_said_again(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *busy =
        given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 1, .prefetch = 3);
    (void)when_it_submits(client, "wc.count", .count = 4);
    (void)given_a_worker(driver, "bob", "w2", .serves = "wc.count", .slots = 1);
    when_time_passes_ms(driver, 200);
    assert_int_equal(count_recalled(driver, busy), 3);
    when_its_connection_ends(busy); /* before they arrived */
    when_it_connects(busy);
    when_time_passes_ms(driver, 200);
    assert_int_equal(count_recalled(driver, busy), 3);
    when_it_sets(client, "wc", SERVICE_PAUSE);
    when_its_connection_ends(busy);
    when_it_connects(busy);
    assert_int_equal(count_recalled(driver, busy), 3); /* at once, for the pause */
}

static void test_what_has_started_is_not_recalled_for_an_idle_worker(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *busy = given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 2);
    (void)when_it_submits(client, "wc.count", .count = 2);
    (void)given_a_worker(driver, "bob", "w2", .serves = "wc.count", .slots = 4);
    when_time_passes_ms(driver, 5000);
    assert_int_equal(count_recalled(driver, busy), 0);
}

/* ---- drain ---- */

static void when_it_drains(struct peer *client, const char *worker)
{
    struct message message = {.kind = MESSAGE_WORKER_DRAIN};
    message.as.worker_drain.name = bytes_from_text(worker);
    core_driver_send(client, &message);
}

static void test_a_draining_worker_gets_nothing_new(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "wc.count", .slots = 1, .prefetch = 1);
    const uint32_t task = when_it_submits(client, "wc.count", .count = 2, .flags = SUBMIT_WATCH);
    when_it_drains(client, "nobody");
    assert_int_equal(then_it_gets(client, DONE).effect.status, DONE_NOT_FOUND);
    when_it_drains(client, "w1");
    assert_int_equal(then_it_gets(client, DONE).effect.status, DONE_OK);
    (void)then_it_gets(worker, DRAIN);
    when_it_returns(worker, worker->leases[1]);
    then_it_waits_for(driver, task + 1, WAIT_NO_SLOT);
    when_it_succeeds(worker, worker->leases[0]);
    then_it_is_told(client, task, TASK_SUCCEEDED);
    then_it_waits_for(driver, task + 1, WAIT_NO_SLOT);
    when_it_says_hello(worker); /* it is told again */
    (void)then_it_gets(worker, DRAIN);
    then_task_is(driver, task + 1, TASK_READY);
    when_it_says(worker, MESSAGE_GOODBYE);
    then_it_waits_for(driver, task + 1, WAIT_NO_WORKER);
}

static void test_backstop_of_a_queued_lease_allows_for_what_runs_before_it(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "a.slow a.fast", .slots = 1, .prefetch = 1);
    const uint32_t slow = when_it_submits(client, "a.slow", .policy = {.timeout_ms = 3600000});
    (void)then_it_is_handed(worker, slow);
    const uint32_t fast = when_it_submits(client, "a.fast", .policy = {.timeout_ms = 1000});
    (void)then_it_is_handed(worker, fast);
    when_time_passes_ms(driver, 60000);
    then_task_is(driver, fast, TASK_RUNNING);
    assert_int_equal(task_of(driver, fast)->retry_index, 0);
}

static void test_a_reload_is_the_shells_and_needs_the_right_to_administer(void **state)
{
    struct core_driver *driver = *state;
    struct peer *sue = given_a_client(driver, "sue", .rights = RIGHT_SUBMIT);
    struct peer *root = given_a_client(driver, "root", .rights = RIGHT_ADMIN);
    struct message order = {.kind = MESSAGE_BROKER_RELOAD};
    order.as.broker_reload.request = 7;
    core_driver_send(sue, &order);
    assert_int_equal(then_it_gets(sue, DONE).effect.status, DONE_REFUSED);
    assert_null(seen_effect(driver, EFFECT_RELOAD, MESSAGE_DONE));
    core_driver_send(root, &order);
    then_it_gets_no(root, DONE); /* the shell answers, once it knows what came of it */
    const struct seen *seen = seen_effect(driver, EFFECT_RELOAD, MESSAGE_DONE);
    assert_non_null(seen);
    assert_int_equal(seen->effect.number, 7);
    assert_int_equal(seen->effect.connection, peer_session(root)->connection);
}

static void test_a_policy_that_changes_holds_for_tasks_that_are_there(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t task = when_it_submits(client, "wc.count");
    struct policy_choice choice = core_policy(driver->core, task_of(driver, task), POLICY_TIMEOUT);
    assert_int_equal(choice.value, core_policy_default(POLICY_TIMEOUT));
    assert_int_equal(choice.origin, ORIGIN_DEFAULT);
    struct core_changes changes = {.dead_letter_ttl_ms = 5000};
    changes.broker_policy.value[POLICY_TIMEOUT] = 1234;
    core_reconfigure(driver->core, &changes);
    choice = core_policy(driver->core, task_of(driver, task), POLICY_TIMEOUT);
    assert_int_equal(choice.value, 1234);
    assert_int_equal(choice.origin, ORIGIN_BROKER);
    assert_int_equal(driver->core->config.dead_letter_ttl_ms, 5000);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)
    const struct CMUnitTest tests[] = {
        TEST(test_a_result_after_the_backstop_changes_nothing),
        TEST(test_backstop_of_a_queued_lease_allows_for_what_runs_before_it),
        TEST(test_a_result_after_the_sessions_end_changes_nothing),
        TEST(test_a_result_from_another_session_changes_nothing),
        TEST(test_a_result_said_twice_counts_once),
        TEST(test_leases_of_nobody_are_late),
        TEST(test_a_zombie_holds_its_slot_until_the_worker_reports_its_end),
        TEST(test_a_zombie_holds_its_credit_until_the_worker_reports_its_end),
        TEST(test_a_free_slot_elsewhere_goes_before_one_that_a_zombie_holds),
        TEST(test_a_zombies_slot_is_free_at_the_end_of_its_session),
        TEST(test_a_zombies_slot_is_free_when_its_backstop_passes),
        TEST(test_a_zombie_holds_its_probe),
        TEST(test_a_silent_worker_is_lost_after_three_heartbeats),
        TEST(test_a_worker_whose_connection_ends_is_lost_after_the_resume_grace),
        TEST(test_a_worker_that_says_goodbye_is_gone_at_once),
        TEST(test_a_worker_stopped_past_its_session_and_continued_changes_nothing),
        TEST(test_a_connection_restored_in_time_loses_no_lease_and_runs_nothing_twice),
        TEST(test_leases_that_a_resumed_worker_does_not_name_are_dispatched_again),
        TEST(test_a_new_incarnation_of_a_name_ends_the_older_session_at_once),
        TEST(test_the_same_name_of_another_principal_is_another_worker),
        TEST(test_the_same_incarnation_of_another_principal_is_another_session),
        TEST(test_a_session_that_moves_to_another_connection_leaves_the_first_one),
        TEST(test_doubled_messages_are_dropped),
        TEST(test_a_doubled_hello_is_dropped),
        TEST(test_after_a_gap_the_peer_has_to_say_hello_again),
        TEST(test_a_message_without_a_session_is_answered_with_hello_first),
        TEST(test_messages_of_the_other_role_are_refused),
        TEST(test_rights_are_checked),
        TEST(test_a_reload_is_the_shells_and_needs_the_right_to_administer),
        TEST(test_a_policy_that_changes_holds_for_tasks_that_are_there),
        TEST(test_key_that_loses_its_right_is_out_at_its_next_message),
        TEST(test_heartbeats_go_both_ways),
        TEST(test_a_worker_of_bad_patterns_is_refused),
        TEST(test_a_pattern_serves_queues_that_come_later_too),
        TEST(test_only_what_was_announced_is_dispatched),
        TEST(test_credit_is_never_exceeded),
        TEST(test_ended_attempts_give_no_credit_by_themselves),
        TEST(test_a_resumed_session_waits_for_a_new_grant),
        TEST(test_the_slots_of_all_workers_are_filled_before_any_prefetch),
        TEST(test_a_pause_recalls_what_has_not_started),
        TEST(test_an_opening_breaker_recalls_what_has_not_started),
        TEST(test_an_idle_worker_elsewhere_recalls_what_waits),
        TEST(test_idle_workers_are_looked_for_also_when_a_message_comes_with_the_time),
        TEST(test_a_recall_that_may_be_lost_is_said_again),
        TEST(test_what_has_started_is_not_recalled_for_an_idle_worker),
        TEST(test_a_draining_worker_gets_nothing_new),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
