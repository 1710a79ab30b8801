/* SPDX-License-Identifier: MPL-2.0 */
/* What a key can do and learn, and what becomes of a session whose key may do less than before. */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/core_driver.h"

#include <stdio.h>
#include <stdlib.h>
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

static const struct bytes in_all[] = {{(const uint8_t *)"in.*", 4}};
static const struct bytes in_work[] = {{(const uint8_t *)"in.work", 7}};
static const struct bytes in_and_out[] = {{(const uint8_t *)"in.*", 4},
                                          {(const uint8_t *)"out.*", 5}};
#define SERVICES(list) ((struct globs){(list), sizeof(list) / sizeof((list)[0])})

/* Its key's rights are read anew. */
static void when_its_services_are(struct peer *peer, struct globs services)
{
    peer->services = services;
    peer->rights_serial++;
}

/* ---- globs ---- */

static bool covers(const char *glob, const char *service, const char *task)
{
    const struct bytes text = bytes_from_text(glob);
    return globs_cover_task(&(struct globs){&text, 1}, bytes_from_text(service),
                            bytes_from_text(task));
}

static bool touches(const char *glob, const char *service)
{
    const struct bytes text = bytes_from_text(glob);
    return globs_touch_service(&(struct globs){&text, 1}, bytes_from_text(service));
}

static void test_task_with_a_dot_does_not_pass_for_one_of_another_service(void **state)
{
    (void)state;
    assert_true(covers("in.eu.*", "in.eu", "x"));
    assert_false(covers("in.eu.*", "in", "eu.x"));
    assert_false(covers("in.eu.x", "in", "eu.x"));
    assert_true(covers("in.*", "in", "eu.x"));
    assert_true(covers("*", "in", "eu.x"));
    assert_true(touches("in.eu.*", "in.eu"));
    assert_false(touches("in.eu.*", "in"));
    assert_true(touches("in.*", "in.eu"));
    assert_false(touches("in.", "in")); /* no task has an empty name */
    assert_true(touches("*.x", "in"));
    assert_true(touches("i*x", "in"));
}

/* ---- sessions whose key may do less ---- */

static void test_key_that_has_become_another_principals_is_out_at_its_next_message(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t task = when_it_submits(client, "in.work");
    (void)snprintf(client->principal, sizeof client->principal, "eve");
    when_it_cancels(client, task);
    assert_int_equal(then_it_gets(client, REFUSED).effect.status, REFUSED_RIGHTS);
    then_it_gets_no(client, CANCELLED);
    then_task_is(driver, task, TASK_READY);
    assert_null(peer_session(client));
}

static void test_worker_whose_key_no_longer_covers_what_it_serves_is_out(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "in.work out.work", .slots = 4);
    const uint32_t task = when_it_submits(client, "out.work");
    const uint64_t lease = then_it_is_handed(worker, task);
    when_its_services_are(worker, SERVICES(in_all));
    when_it_succeeds(worker, lease);
    assert_int_equal(then_it_gets(worker, REFUSED).effect.status, REFUSED_RIGHTS);
    then_it_gets_no(worker, RESULT_ACK);
    then_task_is(driver, task, TASK_READY);
    assert_null(peer_session(worker));
    (void)when_it_submits(client, "in.work");
    then_it_gets_no(worker, DISPATCH);
}

static void test_so_is_one_that_serves_a_whole_service_of_which_its_key_covers_a_part(void **state)
{
    struct core_driver *driver = *state;
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "in.*", .slots = 4);
    when_its_services_are(worker, SERVICES(in_work));
    when_it_says(worker, MESSAGE_HEARTBEAT);
    assert_int_equal(then_it_gets(worker, REFUSED).effect.status, REFUSED_RIGHTS);
}

static void test_worker_whose_key_still_covers_what_it_serves_goes_on(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "in.work", .slots = 4);
    struct peer *whole = given_a_worker(driver, "carol", "w2", .serves = "in.*", .slots = 4);
    const uint32_t task = when_it_submits(client, "in.other"); /* a queue made for in.* */
    const uint64_t lease = then_it_is_handed(whole, task);
    when_its_services_are(worker, SERVICES(in_work));
    when_its_services_are(whole, SERVICES(in_and_out));
    when_it_says(worker, MESSAGE_HEARTBEAT);
    when_it_succeeds(whole, lease);
    then_the_result_counts(whole, lease);
    then_it_gets_no(worker, REFUSED);
    then_it_gets_no(whole, REFUSED);
}

static void test_worker_that_comes_back_with_less_has_lost_its_leases(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "in.work out.work", .slots = 4);
    const uint32_t task = when_it_submits(client, "out.work");
    const uint64_t lease = then_it_is_handed(worker, task);
    forget_all(driver);
    when_its_connection_ends(worker);
    when_its_services_are(worker, SERVICES(in_all));
    worker->serves = "in.work";
    when_it_connects(worker);
    assert_int_equal(then_it_gets(worker, WELCOME).effect.status, 0); /* not resumed */
    then_task_is(driver, task, TASK_READY);
    when_it_succeeds(worker, lease);
    then_the_result_is_late(worker, lease);
    then_task_is(driver, task, TASK_READY);
}

static void test_refused_hello_ends_what_its_key_may_no_longer_do(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "out.work", .slots = 4);
    const uint32_t task = when_it_submits(client, "out.work");
    (void)then_it_is_handed(worker, task);
    when_its_services_are(worker, SERVICES(in_all));
    when_it_says_hello(worker); /* the first that is heard of it since */
    assert_int_equal(then_it_gets(worker, REFUSED).effect.status, REFUSED_RIGHTS);
    assert_null(peer_session(worker));
    then_task_is(driver, task, TASK_READY);
}

static void test_hello_with_what_the_key_still_covers_begins_anew(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "in.work out.work", .slots = 4);
    const uint32_t task = when_it_submits(client, "out.work");
    (void)then_it_is_handed(worker, task);
    forget_all(driver);
    when_its_services_are(worker, SERVICES(in_all));
    worker->serves = "in.work";
    when_it_says_hello(worker);
    assert_int_equal(then_it_gets(worker, WELCOME).effect.status, 0);
    then_it_gets_no(worker, REFUSED);
    then_task_is(driver, task, TASK_READY);
}

static void test_session_on_another_connection_of_a_key_with_fewer_rights_is_cut(void **state)
{
    struct core_driver *driver = *state;
    struct peer *worker =
        given_a_worker(driver, "bob", "w1", .serves = "in.work out.work", .slots = 4);
    const uint32_t connection = worker->connection;
    when_its_services_are(worker, SERVICES(in_all));
    worker->serves = "in.work";
    when_it_connects(worker); /* the end of the other one is not known yet */
    assert_int_not_equal(worker->connection, connection);
    assert_int_equal(seen_effect(driver, EFFECT_CLOSE, 0)->effect.connection, connection);
    assert_int_equal(then_it_gets(worker, WELCOME).effect.status, 0);
}

static void test_worker_that_comes_back_with_as_much_resumes(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "in.work", .slots = 4);
    const uint32_t task = when_it_submits(client, "in.work");
    const uint64_t lease = then_it_is_handed(worker, task);
    forget_all(driver);
    when_its_connection_ends(worker);
    when_its_services_are(worker, SERVICES(in_all));
    when_it_connects(worker);
    assert_int_equal(then_it_gets(worker, WELCOME).effect.status, 1);
    when_it_succeeds(worker, lease);
    then_the_result_counts(worker, lease);
}

static void test_client_of_which_one_role_is_left_may_do_what_that_allows(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t task = when_it_submits(client, "in.work");
    client->rights = RIGHT_ADMIN;
    when_it_cancels(client, task);
    assert_int_equal(then_it_gets(client, REFUSED).effect.status, REFUSED_RIGHTS);
    then_task_is(driver, task, TASK_READY);
    when_it_sets(client, "in", SERVICE_PAUSE);
    assert_int_equal(then_it_gets(client, DONE).effect.status, DONE_OK);
    client->rights = RIGHT_SUBMIT;
    when_it_sets(client, "in", SERVICE_RESUME);
    assert_int_equal(then_it_gets(client, DONE).effect.status, DONE_REFUSED);
}

static void test_client_that_may_no_longer_submit_is_told_no_outcome(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w1", .serves = "in.work", .slots = 4);
    const uint32_t task = when_it_submits(client, "in.work", .flags = SUBMIT_WATCH);
    const uint64_t lease = then_it_is_handed(worker, task);
    forget_all(driver);
    when_its_connection_ends(client);
    client->rights = RIGHT_ADMIN;
    when_its_services_are(client, SERVICES(in_all));
    when_it_connects(client);
    assert_int_equal(then_it_gets(client, WELCOME).effect.status, 0); /* another session */
    when_it_succeeds(worker, lease);
    then_it_gets_no(client, SETTLED);
    then_task_is(driver, task, TASK_SUCCEEDED);
}

static void test_last_sessions_are_for_who_administers(void **state)
{
    struct core_driver *driver = *state;
    const uint32_t count = driver->core->config.session_count_max;
    for (uint32_t i = 0; i < count - count / 16; i++) {
        assert_non_null(peer_session(given_a_client(driver, "eve", .rights = RIGHT_SUBMIT)));
    }
    struct peer *refused = given_a_client(driver, "eve", .rights = RIGHT_SUBMIT);
    assert_int_equal(then_it_gets(refused, REFUSED).effect.status, REFUSED_LIMIT);
    assert_null(peer_session(refused));
    for (uint32_t i = 0; i < count / 16; i++) {
        assert_non_null(peer_session(given_a_client(driver, "root", .rights = RIGHT_ADMIN)));
    }
    assert_null(peer_session(given_a_client(driver, "root", .rights = RIGHT_ADMIN)));
}

static void test_welcome_tells_the_rights_of_the_hello(void **state)
{
    struct core_driver *driver = *state;
    struct peer *client = given_a_client(driver, "alice", .rights = RIGHT_SUBMIT | RIGHT_WORK,
                                         .services = SERVICES(in_and_out));
    const struct seen first = then_it_gets(client, WELCOME);
    assert_int_equal(first.effect.reason, RIGHT_SUBMIT | RIGHT_WORK);
    assert_int_equal(first.effect.services->count, 2);
    client->rights = RIGHT_SUBMIT;
    when_its_services_are(client, SERVICES(in_work));
    when_it_says(client, MESSAGE_HEARTBEAT);
    then_it_gets_no(client, WELCOME); /* a change is not told */
    when_it_says_hello(client);
    const struct seen second = then_it_gets(client, WELCOME);
    assert_int_equal(second.effect.reason, RIGHT_SUBMIT);
    assert_int_equal(second.effect.services->count, 1);
}

/* ---- tasks of others ---- */

static void test_without_the_right_an_id_of_another_is_as_one_of_nobody(void **state)
{
    struct core_driver *driver = *state;
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *eve =
        given_a_client(driver, "eve", .rights = RIGHT_SUBMIT, .services = SERVICES(in_all));
    const uint32_t task = when_it_submits(alice, "out.work");
    (void)when_it_submits(eve, "out.work", .task = task, .flags = SUBMIT_WATCH);
    then_it_is_answered(eve, task, ACCEPT_REFUSED, REFUSED_NO_RIGHT);
    (void)when_it_submits(eve, "out.work", .task = task + 1000);
    then_it_is_answered(eve, task + 1000, ACCEPT_REFUSED, REFUSED_NO_RIGHT);
    when_it_cancels(alice, task);
    then_it_gets_no(eve, SETTLED); /* it does not await it */
}

static void test_own_task_is_known_without_the_right_to_its_service(void **state)
{
    struct core_driver *driver = *state;
    struct peer *alice = given_a_client(driver, "alice");
    const uint32_t task = when_it_submits(alice, "out.work");
    then_it_is_answered(alice, task, ACCEPT_OK, BUSY_NONE);
    alice->services = SERVICES(in_all);
    (void)when_it_submits(alice, "out.work", .task = task);
    then_it_is_answered(alice, task, ACCEPT_EXISTING, BUSY_NONE);
    when_it_cancels(alice, task);
    assert_int_equal(then_it_gets(alice, CANCELLED).effect.status, CANCEL_DONE);
}

static void then_its_list_ends_with(struct peer *client, const char *service,
                                    enum done_status status)
{
    static uint64_t request;
    struct message message = {.kind = MESSAGE_TASK_LIST};
    request++;
    message.as.task_list =
        (struct wire_task_list){.request = request, .service = bytes_from_text(service)};
    core_driver_send(client, &message);
    const struct seen page = then_it_gets(client, TASK_PAGE);
    assert_int_equal(page.effect.is_last, 1);
    assert_int_equal(page.effect.number, request);
    assert_int_equal(page.effect.status, status);
    assert_int_equal(page.effect.value, 0);
}

static void test_lists_do_not_tell_which_services_there_are_beyond_the_rights(void **state)
{
    struct core_driver *driver = *state;
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *eve =
        given_a_client(driver, "eve", .rights = RIGHT_SUBMIT, .services = SERVICES(in_all));
    struct peer *half =
        given_a_client(driver, "half", .rights = RIGHT_ADMIN, .services = SERVICES(in_all));
    (void)when_it_submits(alice, "out.work");
    then_its_list_ends_with(eve, "out", DONE_OK);
    then_its_list_ends_with(eve, "nobody", DONE_OK);
    then_its_list_ends_with(eve, "in", DONE_NOT_FOUND);
    then_its_list_ends_with(half, "out", DONE_OK);
    then_its_list_ends_with(half, "nobody", DONE_OK);
}

static void test_tenant_of_the_same_name_of_another_principal_has_its_own_turn(void **state)
{
    struct core_driver *driver = *state;
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *eve = given_a_client(driver, "eve");
    (void)when_it_submits(eve, "in.work", .count = 100, .tenant = "alice", .priority = 9);
    const uint32_t task = when_it_submits(alice, "in.work");
    (void)given_a_worker(driver, "w", "w1", .serves = "in.work", .slots = 2);
    then_task_is(driver, task, TASK_RUNNING);
}

/* ---- workers of others ---- */

/* How many rows it is told of, and how many of these in full. */
struct workers {
    uint32_t rows;
    uint32_t whole_rows;
};

static struct workers workers_seen_by(struct peer *client, const char *name)
{
    struct workers workers = {0};
    struct message message = {.kind = MESSAGE_WORKER_QUERY};
    message.as.worker_query.name = bytes_from_text(name);
    core_driver_send(client, &message);
    for (struct seen seen = then_it_gets(client, WORKER_INFO); seen.effect.is_last == 0;
         seen = then_it_gets(client, WORKER_INFO)) {
        workers.rows++;
        workers.whole_rows += seen.effect.services == NULL ? 1 : 0;
    }
    return workers;
}

#define then_it_sees(client, name, row_count, whole_count)                                         \
    do {                                                                                           \
        const struct workers seen_ = workers_seen_by(client, name);                                \
        assert_int_equal(seen_.rows, row_count);                                                   \
        assert_int_equal(seen_.whole_rows, whole_count);                                           \
    } while (0)

static void test_workers_of_others_are_seen_by_who_has_rights_to_what_they_serve(void **state)
{
    struct core_driver *driver = *state;
    struct peer *eve =
        given_a_client(driver, "eve", .rights = RIGHT_SUBMIT, .services = SERVICES(in_work));
    struct peer *root =
        given_a_client(driver, "root", .rights = RIGHT_ADMIN, .services = SERVICES(in_work));
    (void)given_a_worker(driver, "bob", "w1", .serves = "out.work");
    (void)given_a_worker(driver, "bob", "w2", .serves = "in.other");
    then_it_sees(eve, "", 0, 0);
    (void)given_a_worker(driver, "bob", "w3", .serves = "out.work in.work");
    then_it_sees(eve, "", 1, 0);
    (void)given_a_worker(driver, "carol", "w4", .serves = "out.* in.*");
    then_it_sees(eve, "", 2, 0);
    (void)given_a_worker(driver, "eve", "w5", .serves = "out.work");
    then_it_sees(eve, "", 3, 1);
    then_it_sees(eve, "w1", 0, 0); /* as a name that nobody has */
    then_it_sees(eve, "w9", 0, 0);
    then_it_sees(eve, "w3", 1, 0);
    then_it_sees(root, "", 5, 5);
    then_it_sees(root, "w1", 1, 1);
}

static void test_queues_that_a_wildcard_brings_do_not_show_their_worker(void **state)
{
    struct core_driver *driver = *state;
    static const struct bytes none[] = {{(const uint8_t *)"in.eu.*", 7}};
    struct peer *alice = given_a_client(driver, "alice");
    struct peer *eve =
        given_a_client(driver, "eve", .rights = RIGHT_SUBMIT, .services = SERVICES(none));
    (void)given_a_worker(driver, "bob", "w1", .serves = "in.*", .slots = 4);
    (void)when_it_submits(alice, "in.work");
    then_it_sees(eve, "", 0, 0);
}

static void test_rights_of_a_question_hold_until_it_is_answered(void **state)
{
    struct core_driver *driver = *state;
    struct bytes glob = {(const uint8_t *)strdup("in.work"), 7};
    struct bytes *list = malloc(sizeof *list);
    assert_non_null(list);
    *list = glob;
    struct peer *eve =
        given_a_client(driver, "eve", .rights = RIGHT_SUBMIT, .services = (struct globs){list, 1});
    (void)given_a_worker(driver, "bob", "w1", .serves = "in.work");
    (void)given_a_worker(driver, "bob", "w2", .serves = "out.work");
    struct message message = {.kind = MESSAGE_WORKER_QUERY};
    driver->is_by_hand = true;
    core_driver_send(eve, &message);
    then_it_gets_no(eve, WORKER_INFO);
    eve->services = globs_all; /* the table that they were in is gone */
    free((void *)(uintptr_t)glob.data);
    free(list);
    core_driver_rounds(driver);
    assert_int_equal(then_it_gets(eve, WORKER_INFO).effect.is_last, 0);
    assert_int_equal(then_it_gets(eve, WORKER_INFO).effect.is_last, 1);
}

static void test_looking_at_what_workers_serve_keeps_to_the_steps_visits(void **state)
{
    struct core_driver *driver = *state;
    static const struct bytes none[] = {{(const uint8_t *)"none.*", 6}};
    static const char serves[] = "in.a in.b in.c in.d in.e in.f in.g in.h";
    for (uint32_t i = 0; i < 8; i++) {
        const char name[] = {'w', (char)('0' + i), '\0'};
        (void)given_a_worker(driver, "bob", name, .serves = serves);
    }
    struct peer *eve =
        given_a_client(driver, "eve", .rights = RIGHT_SUBMIT, .services = SERVICES(none));
    driver->is_by_hand = true;
    struct message message = {.kind = MESSAGE_WORKER_QUERY};
    core_driver_send(eve, &message);
    const uint32_t before = driver->step_count;
    core_driver_rounds(driver);
    assert_in_range(driver->step_count - before, 3, 6); /* 8 * 9 visits, 1024 / 8 / 4 a step */
    assert_int_equal(then_it_gets(eve, WORKER_INFO).effect.is_last, 1);
}

static uint32_t services_seen_by(struct peer *client)
{
    uint32_t count = 0;
    struct message message = {.kind = MESSAGE_SERVICE_QUERY};
    core_driver_send(client, &message);
    while (then_it_gets(client, SERVICE_INFO).effect.is_last == 0) {
        count++;
    }
    return count;
}

static void test_service_is_seen_whatever_comes_before_it_and_in_bounded_steps(void **unused)
{
    (void)unused;
    enum { SERVICE_COUNT = 1100 };
    static const struct bytes last[] = {{(const uint8_t *)"zz.*", 4}};
    struct core_config config;
    core_driver_config(&config);
    config.service_count_max = 2 * SERVICE_COUNT;
    config.queue_count_max = 2 * SERVICE_COUNT;
    config.tenant_queue_count_max = 2 * SERVICE_COUNT;
    config.task_count_max = 2 * SERVICE_COUNT;
    config.policy_count_max = 2 * SERVICE_COUNT;
    struct core_driver *driver = core_driver_create(&config);
    struct peer *alice = given_a_client(driver, "alice");
    for (uint32_t i = 0; i < SERVICE_COUNT; i++) {
        char task[16];
        (void)snprintf(task, sizeof task, "s%u.task", i);
        (void)when_it_submits(alice, task);
    }
    (void)when_it_submits(alice, "zz.task");
    struct peer *eve =
        given_a_client(driver, "eve", .rights = RIGHT_SUBMIT, .services = SERVICES(last));
    const uint32_t before = driver->step_count;
    assert_int_equal(services_seen_by(eve), 1);
    assert_in_range(driver->step_count - before, 2 * SERVICE_COUNT / 1024, 128);
    assert_int_equal(services_seen_by(alice), ENTRY_COUNT_MAX);
    core_driver_destroy(&driver);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_task_with_a_dot_does_not_pass_for_one_of_another_service),
        TEST(test_key_that_has_become_another_principals_is_out_at_its_next_message),
        TEST(test_worker_whose_key_no_longer_covers_what_it_serves_is_out),
        TEST(test_so_is_one_that_serves_a_whole_service_of_which_its_key_covers_a_part),
        TEST(test_worker_whose_key_still_covers_what_it_serves_goes_on),
        TEST(test_worker_that_comes_back_with_less_has_lost_its_leases),
        TEST(test_refused_hello_ends_what_its_key_may_no_longer_do),
        TEST(test_hello_with_what_the_key_still_covers_begins_anew),
        TEST(test_session_on_another_connection_of_a_key_with_fewer_rights_is_cut),
        TEST(test_worker_that_comes_back_with_as_much_resumes),
        TEST(test_client_of_which_one_role_is_left_may_do_what_that_allows),
        TEST(test_client_that_may_no_longer_submit_is_told_no_outcome),
        TEST(test_last_sessions_are_for_who_administers),
        TEST(test_welcome_tells_the_rights_of_the_hello),
        TEST(test_without_the_right_an_id_of_another_is_as_one_of_nobody),
        TEST(test_own_task_is_known_without_the_right_to_its_service),
        TEST(test_lists_do_not_tell_which_services_there_are_beyond_the_rights),
        TEST(test_tenant_of_the_same_name_of_another_principal_has_its_own_turn),
        TEST(test_workers_of_others_are_seen_by_who_has_rights_to_what_they_serve),
        TEST(test_queues_that_a_wildcard_brings_do_not_show_their_worker),
        TEST(test_rights_of_a_question_hold_until_it_is_answered),
        TEST(test_looking_at_what_workers_serve_keeps_to_the_steps_visits),
        cmocka_unit_test(test_service_is_seen_whatever_comes_before_it_and_in_bounded_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
