/* SPDX-License-Identifier: MPL-2.0 */
/*
 * No step is over its bound, however much there is to do, and others are served meanwhile. With the
 * argument `full` at full size; the numbers it prints are for people.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/core_driver.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool is_full;

/* Much work for the core, and a bystander who submits a task in every round. */
struct scene {
    struct core_driver *driver;
    struct peer *bystander;
    struct peer *runner; /* runs the bystander's tasks */
    uint32_t task_count;
    uint32_t lease_count;
    uint32_t watch_count;
    uint32_t round_count;
    uint32_t rounds_most; /* until a task of the bystander was running */
};

static int start(void **state)
{
    static struct scene scene;
    scene = (struct scene){.task_count = is_full ? 1000000 : 20000,
                           .lease_count = 10000,
                           .watch_count = is_full ? 100000 : 10000};
    struct core_config config;
    core_driver_config(&config);
    config.task_count_max = 3 * scene.task_count;
    config.settled_count_max = 2 * scene.task_count;
    config.attempt_count_max = 50000;
    config.watch_count_max = 2 * scene.watch_count;
    config.window_count_max = 4096;
    scene.driver = core_driver_create(&config);
    scene.driver->is_unchecked = true; /* each check looks at everything */
    scene.driver->is_forgetful = true;
    scene.bystander = given_a_client(scene.driver, "bystander");
    scene.runner = given_a_worker(scene.driver, "w", "runner", .serves = "by.stand", .slots = 100);
    *state = &scene;
    return 0;
}

static int end(void **state)
{
    struct scene *scene = *state;
    core_driver_destroy(&scene->driver);
    return 0;
}

static void step(struct core_driver *driver, enum input_kind kind)
{
    const struct input input = {.kind = kind, .durable_number = driver->core->record_number};
    core_driver_step(driver, &input);
}

/* From here on what is measured is what the steps take. */
static void when_it_is_measured(struct scene *scene)
{
    struct core_driver *driver = scene->driver;
    core_check(driver->core);
    driver->is_by_hand = true;
    driver->is_forgetful = false;
    driver->step_count = 0;
    driver->effects_most = 0;
    driver->visits_most = 0;
    driver->step_longest_ns = 0;
    scene->round_count = 0;
    scene->rounds_most = 0;
}

/* One round as the shell makes it: what has arrived, dispatch once, time and cursors, durable. */
static void make_round(struct scene *scene)
{
    struct core_driver *driver = scene->driver;
    step(driver, INPUT_DISPATCH);
    if (core_next_at_ms(driver->core) <= driver->now_ms) {
        step(driver, INPUT_TIME);
    }
    if (driver->core->durable_number < driver->core->record_number) {
        step(driver, INPUT_DURABLE);
    }
    scene->round_count++;
}

/* The bystander submits; the answer comes within this round or the next, the dispatch too. */
static void check_bystander(struct scene *scene)
{
    struct core_driver *driver = scene->driver;
    forget_all(driver);
    const uint32_t task = when_it_submits(scene->bystander, "by.stand");
    uint32_t rounds = 0;
    uint32_t answered = 0;
    do {
        make_round(scene);
        rounds++;
        answered = count_sends(driver, scene->bystander, MESSAGE_ACCEPTED);
    } while (rounds < 2 && (answered == 0 || task_of(driver, task)->state == TASK_READY));
    assert_int_equal(answered, 1);
    then_task_is(driver, task, TASK_RUNNING);
    scene->rounds_most = rounds > scene->rounds_most ? rounds : scene->rounds_most;
    assert_int_equal(scene->runner->lease_count, 1);
    when_it_succeeds(scene->runner, scene->runner->leases[0]);
}

static void report(const struct scene *scene, const char *what)
{
    const struct core_driver *driver = scene->driver;
    assert_in_range(driver->effects_most, 0, EFFECT_COUNT_MAX);
    assert_in_range(driver->visits_most, 0, VISITS_MAX);
    print_message("%s: %u rounds, %u steps, at most %u effects and %u visits a step, the longest "
                  "step %" PRIu64 " us, a bystander's task dispatched after at most %u rounds\n",
                  what, scene->round_count, driver->step_count, driver->effects_most,
                  driver->visits_most, driver->step_longest_ns / 1000, scene->rounds_most);
    core_check(driver->core);
}

/* Rounds with a bystander until the core has come to rest. */
static void rounds_until(struct scene *scene, bool (*is_done)(const struct scene *scene),
                         uint32_t rounds_max)
{
    while (!is_done(scene)) {
        check_bystander(scene);
        assert_in_range(scene->round_count, 0, rounds_max);
    }
}

/* ---- a lost session ---- */

static uint32_t given_many_leases(struct scene *scene, struct peer **client, struct peer **worker)
{
    *client = given_a_client(scene->driver, "alice");
    *worker =
        given_a_worker(scene->driver, "w", "w1", .serves = "wc.count", .slots = scene->lease_count);
    const uint32_t task =
        when_it_submits(*client, "wc.count", .count = scene->lease_count, .flags = SUBMIT_KEEP);
    assert_int_equal((*worker)->lease_count, scene->lease_count);
    return task;
}

static bool are_leases_moved(const struct scene *scene)
{
    const struct core *core = scene->driver->core;
    return core->counters.attempts_lost == scene->lease_count &&
           core->services[1].ready_count == 0 && !core_has_more_to_dispatch(core);
}

static void test_a_lost_session_with_10000_leases(void **state)
{
    struct scene *scene = *state;
    struct peer *client = NULL;
    struct peer *worker = NULL;
    (void)given_many_leases(scene, &client, &worker);
    struct peer *other =
        given_a_worker(scene->driver, "w", "w2", .serves = "wc.count", .slots = scene->lease_count);
    when_it_is_measured(scene);
    when_it_says(worker, MESSAGE_GOODBYE);
    rounds_until(scene, are_leases_moved, 300);
    assert_int_equal(other->lease_count, scene->lease_count);
    report(scene, "a lost session with 10,000 leases");
}

static bool are_leases_recalled(const struct scene *scene)
{
    return scene->driver->core->counters.recalled == scene->lease_count - 1 && /* one runs */
           core_next_at_ms(scene->driver->core) > scene->driver->now_ms;
}

static void test_a_pause_that_recalls_10000_leases(void **state)
{
    struct scene *scene = *state;
    struct peer *client = NULL;
    struct peer *worker = NULL;
    (void)given_many_leases(scene, &client, &worker);
    worker->slots = 1; /* all but one wait there */
    when_it_says_hello(worker);
    when_it_is_measured(scene);
    when_it_sets(client, "wc", SERVICE_PAUSE);
    rounds_until(scene, are_leases_recalled, 300);
    report(scene, "a pause that recalls 10,000 leases");
}

static void test_a_hello_that_names_none_of_10000_leases(void **state)
{
    struct scene *scene = *state;
    struct peer *client = NULL;
    struct peer *worker = NULL;
    (void)given_many_leases(scene, &client, &worker);
    when_it_is_measured(scene);
    worker->lease_count = 0;
    worker->grants_by_hand = true;
    worker->upto = scene->lease_count;
    when_it_says_hello(worker);
    while (core_next_at_ms(scene->driver->core) <= scene->driver->now_ms) {
        check_bystander(scene);
        assert_in_range(scene->round_count, 0, 300);
    }
    assert_int_equal(scene->driver->core->counters.attempts_returned, scene->lease_count);
    report(scene, "a HELLO that names none of 10,000 leases");
}

/* ---- timers ---- */

static bool is_at_rest(const struct scene *scene)
{
    const struct core *core = scene->driver->core;
    return core_next_at_ms(core) > scene->driver->now_ms && core->wheel.now_ms == core->now_ms;
}

/* The same span for all, so all are due in one tick. */
static void test_very_many_timers_due_in_one_tick(void **state)
{
    struct scene *scene = *state;
    struct core_driver *driver = scene->driver;
    struct peer *client = given_a_client(driver, "alice");
    const uint32_t half = scene->task_count / 2;
    const uint32_t delayed = when_it_submits(client, "wc.count", .count = half, .delay_ms = 60000);
    const uint32_t dated = when_it_submits(client, "wc.count", .count = scene->task_count - half,
                                           .policy = {.deadline_ms = 60000});
    when_it_says(client, MESSAGE_GOODBYE);
    for (uint32_t i = 0; i < 59; i++) { /* the bystander and its worker stay */
        when_time_passes_ms(driver, 1000);
    }
    when_it_is_measured(scene);
    driver->now_ms += 1000;
    rounds_until(scene, is_at_rest, scene->task_count / 50);
    then_task_is(driver, delayed + half - 1, TASK_READY);
    then_task_is(driver, dated, TASK_EXPIRED);
    assert_int_equal(driver->core->counters.expired, scene->task_count - half);
    report(scene, is_full ? "1,000,000 timers due in one tick" : "20,000 timers due in one tick");
}

/* ---- a listing ---- */

struct page {
    uint32_t rows;
    uint64_t token;
    bool is_ended;
};

/* What has come since the last look. */
static void look_at_page(const struct core_driver *driver, struct page *page)
{
    for (uint32_t i = 0; i < driver->seen_count; i++) {
        const struct effect *effect = &driver->seen[i].effect;
        if (effect->kind != EFFECT_SEND || effect->code != MESSAGE_TASK_PAGE) {
            continue;
        }
        assert_false(page->is_ended);
        if (effect->is_last != 0) {
            page->is_ended = true;
            page->token = effect->value;
        } else {
            page->rows++;
        }
    }
}

static struct page when_a_page_is_listed(struct scene *scene, struct peer *client, uint64_t token)
{
    struct page page = {0};
    struct message message = {.kind = MESSAGE_TASK_LIST};
    message.as.task_list =
        (struct wire_task_list){.token = token, .service = bytes_from_text("wc")};
    forget_all(scene->driver);
    core_driver_send(client, &message);
    while (!page.is_ended) {
        look_at_page(scene->driver, &page);
        check_bystander(scene);
    }
    return page;
}

static void test_a_listing_of_very_many_tasks(void **state)
{
    struct scene *scene = *state;
    struct peer *client = given_a_client(scene->driver, "alice");
    (void)when_it_submits(client, "wc.count", .count = scene->task_count);
    when_it_is_measured(scene);
    uint32_t rows = 0;
    struct page page = {0};
    do {
        page = when_a_page_is_listed(scene, client, page.token);
        assert_in_range(page.rows, 0, ENTRY_COUNT_MAX);
        rows += page.rows;
    } while (page.token != 0);
    assert_int_equal(rows, scene->task_count);
    report(scene, is_full ? "a listing of 1,000,000 tasks" : "a listing of 20,000 tasks");
}

static bool is_no_listing_open(const struct scene *scene)
{
    for (uint32_t i = 0; i < LISTING_COUNT; i++) {
        if (scene->driver->core->listings[i].is_open) {
            return false;
        }
    }
    return true;
}

static void test_four_listings_that_find_nothing_among_very_many_tasks(void **state)
{
    struct scene *scene = *state;
    struct peer *client = given_a_client(scene->driver, "alice");
    (void)when_it_submits(client, "wc.count", .count = scene->task_count);
    when_it_is_measured(scene);
    for (uint32_t i = 0; i < LISTING_COUNT; i++) {
        struct message message = {.kind = MESSAGE_TASK_LIST};
        message.as.task_list = (struct wire_task_list){.state = 1 + TASK_FAILED};
        core_driver_send(client, &message);
    }
    rounds_until(scene, is_no_listing_open, scene->task_count / 20);
    report(scene, "four listings that find nothing");
}

/* ---- a client's end ---- */

static bool are_watches_dropped(const struct scene *scene)
{
    return scene->driver->core->watch_slab.live == 0;
}

static void test_the_end_of_a_client_with_very_many_watches(void **state)
{
    struct scene *scene = *state;
    struct peer *client = given_a_client(scene->driver, "alice");
    (void)when_it_submits(client, "wc.count", .count = scene->watch_count, .flags = SUBMIT_WATCH);
    assert_int_equal(scene->driver->core->watch_slab.live, scene->watch_count);
    when_it_is_measured(scene);
    when_it_says(client, MESSAGE_GOODBYE);
    rounds_until(scene, are_watches_dropped, scene->watch_count / 50);
    report(scene, is_full ? "the end of a client with 100,000 watches"
                          : "the end of a client with 10,000 watches");
}

static bool is_all_delivered(const struct scene *scene)
{
    return scene->driver->core->undelivered_count == 0;
}

/* Very many outcomes at once to one client that takes them as they come. */
static void test_the_delivery_of_very_many_outcomes(void **state)
{
    struct scene *scene = *state;
    struct core_driver *driver = scene->driver;
    struct peer *client = given_a_client(driver, "alice");
    (void)when_it_submits(client, "wc.count", .count = scene->watch_count,
                          .flags = SUBMIT_WATCH | SUBMIT_KEEP, .policy = {.deadline_ms = 1000});
    when_it_is_measured(scene);
    driver->now_ms += 1000;
    while (!is_all_delivered(scene) || driver->core->unsettled_count > 0) {
        check_bystander(scene);
        when_it_says(client, MESSAGE_HEARTBEAT); /* acknowledges */
        assert_in_range(scene->round_count, 0, scene->watch_count / 20);
    }
    assert_int_equal(client->settled, scene->watch_count);
    report(scene, "the delivery of very many outcomes");
}

/* ---- one message ---- */

static void test_a_full_message_of_failures_with_meta_and_logs_fits_in_a_step(void **state)
{
    struct scene *scene = *state;
    core_driver_destroy(&scene->driver);
    struct core_config config;
    core_driver_config(&config);
    config.task_count_max = 4 * ENTRY_COUNT_MAX;
    config.attempt_count_max = 2 * ENTRY_COUNT_MAX;
    config.is_logging_tasks = true;
    struct core_driver *driver = core_driver_create(&config);
    scene->driver = driver;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker =
        given_a_worker(driver, "w", "w1", .serves = "wc.count", .slots = ENTRY_COUNT_MAX);
    driver->is_unchecked = true;
    (void)when_it_submits(client, "wc.count", .count = ENTRY_COUNT_MAX,
                          .policy = {.attempts_max = 1});
    (void)when_it_submits(client, "other.thing", .count = 2 * ENTRY_COUNT_MAX,
                          .policy = {.deadline_ms = 500}); /* due in the same step */
    assert_int_equal(worker->lease_count, ENTRY_COUNT_MAX);
    struct writer meta;
    writer_init(&meta);
    const struct wire_meta_item item = {.name = bytes_from_text("n"),
                                        .value = bytes_from_text("v")};
    assert_true(wire_meta_item_encode(&meta, &item));
    writer_reset(&driver->list);
    for (uint32_t i = 0; i < ENTRY_COUNT_MAX; i++) {
        const struct wire_failure_entry entry = {.lease = worker->leases[i],
                                                 .kind = FAILURE_TRANSIENT,
                                                 .meta = wire_list_from_writer(&meta, 1)};
        assert_true(wire_failure_entry_encode(&driver->list, &entry));
    }
    struct message message = {.kind = MESSAGE_RESULT};
    message.as.result.failures = wire_list_from_writer(&driver->list, ENTRY_COUNT_MAX);
    worker->lease_count = 0;
    driver->now_ms += 500;
    core_driver_send(worker, &message);
    writer_free(&meta);
    assert_int_equal(driver->core->counters.failed, ENTRY_COUNT_MAX);
    report(scene, "a message of 1,024 failures with meta and logs");
}

#define PROBE_COUNT    1024U
#define PROBES_A_HELLO 256U

/* 256 services whose breakers have opened and half-opened, each with its probe at the worker. */
static void given_probes(struct core_driver *driver, struct peer *client, struct peer *worker,
                         uint32_t first, uint64_t leases[PROBES_A_HELLO])
{
    static char serves[PROBES_A_HELLO * 16];
    size_t size = 0;
    for (uint32_t i = 0; i < PROBES_A_HELLO; i++) {
        size += (size_t)snprintf(serves + size, sizeof serves - size, "%ss%u.t", i > 0 ? " " : "",
                                 first + i);
    }
    worker->serves = serves;
    when_it_says_hello(worker);
    uint32_t tasks[PROBES_A_HELLO];
    for (uint32_t i = 0; i < PROBES_A_HELLO; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "s%u.t", first + i);
        for (uint32_t k = 0; k < BREAKER_FAILURES_RUN; k++) {
            const uint32_t task = when_it_submits(client, name);
            when_it_fails(worker, then_it_is_handed(worker, task), FAILURE_TRANSIENT,
                          .choice = RETRY_STOP);
        }
        tasks[i] = when_it_submits(client, name);
    }
    forget_all(driver);
    when_time_passes_ms(driver, BREAKER_COOLDOWN_MIN_MS + 500);
    for (uint32_t i = 0; i < PROBES_A_HELLO; i++) {
        leases[i] = then_it_is_handed(worker, tasks[i]);
    }
}

static void when_all_fail_in_one_message(struct core_driver *driver, struct peer *worker,
                                         const uint64_t leases[PROBE_COUNT])
{
    struct writer meta;
    writer_init(&meta);
    const struct wire_meta_item item = {bytes_from_text("m"), bytes_from_text("v")};
    assert_true(wire_meta_item_encode(&meta, &item));
    writer_reset(&driver->list);
    for (uint32_t i = 0; i < PROBE_COUNT; i++) {
        const struct wire_failure_entry entry = {.lease = leases[i],
                                                 .kind = FAILURE_TRANSIENT,
                                                 .retry_choice = RETRY_STOP,
                                                 .meta = wire_list_from_writer(&meta, 1)};
        assert_true(wire_failure_entry_encode(&driver->list, &entry));
    }
    struct message message = {.kind = MESSAGE_RESULT};
    message.as.result.failures = wire_list_from_writer(&driver->list, PROBE_COUNT);
    core_driver_send(worker, &message);
    writer_free(&meta);
}

static void test_a_full_message_of_failed_probes_of_as_many_services_fits_in_a_step(void **unused)
{
    (void)unused;
    struct core_config config;
    core_driver_config(&config);
    config.service_count_max = 1100;
    config.queue_count_max = 2048;
    config.serve_count_max = 4096;
    config.tenant_queue_count_max = 4096;
    config.task_count_max = 20000;
    config.attempt_count_max = 20000;
    config.settled_count_max = 20000;
    struct core_driver *driver = core_driver_create(&config);
    driver->is_unchecked = true;
    struct peer *client = given_a_client(driver, "alice");
    struct peer *worker = given_a_worker(driver, "bob", "w", .serves = "x.y", .slots = 65536);
    static uint64_t leases[PROBE_COUNT];
    for (uint32_t first = 0; first < PROBE_COUNT; first += PROBES_A_HELLO) {
        given_probes(driver, client, worker, first, leases + first);
    }
    const uint64_t opened_before = driver->core->counters.breaker_opened;
    when_all_fail_in_one_message(driver, worker, leases);
    assert_int_equal(driver->core->counters.breaker_opened - opened_before, PROBE_COUNT);
    /* timers that are due in the same step may need the rest */
    assert_in_range(driver->effects_most, 1, EFFECT_COUNT_MAX - 512);
    core_check(driver->core);
    core_driver_destroy(&driver);
}

int main(int argument_count, char **arguments)
{
    is_full = argument_count > 1 && strcmp(arguments[1], "full") == 0;
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)
    const struct CMUnitTest tests[] = {
        TEST(test_a_lost_session_with_10000_leases),
        TEST(test_a_pause_that_recalls_10000_leases),
        TEST(test_a_hello_that_names_none_of_10000_leases),
        TEST(test_very_many_timers_due_in_one_tick),
        TEST(test_a_listing_of_very_many_tasks),
        TEST(test_four_listings_that_find_nothing_among_very_many_tasks),
        TEST(test_the_end_of_a_client_with_very_many_watches),
        TEST(test_the_delivery_of_very_many_outcomes),
        TEST(test_a_full_message_of_failures_with_meta_and_logs_fits_in_a_step),
        cmocka_unit_test(test_a_full_message_of_failed_probes_of_as_many_services_fits_in_a_step),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
