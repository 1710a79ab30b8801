/* SPDX-License-Identifier: MPL-2.0 */
/* libtreadle's client in an application that waits in poll(): real treadled, a worker that answers
 * at once. */
#define _GNU_SOURCE /* mkdtemp, usleep */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* peers.h has a function of that name */

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sodium.h>
#include <treadle/client.h>

#include "bench/peers.h"
#include "common/base/bytes.h"
#include "tests/support/canary.h"

#define then_it_fails(...)                                                                         \
    do {                                                                                           \
        print_error(__VA_ARGS__);                                                                  \
        assert_true(false);                                                                        \
    } while (0)

#define TASK_COUNT_MAX 20000U
#define PATIENCE_MS    30000U
#define WORKER_SLOTS   256U

static char folder[64];
static char endpoint[128];
static struct child broker;
static struct child worker;
static treadle_client *client;

/* What came of the tasks of one test. */
static uint8_t outcome_counts[TASK_COUNT_MAX];
static uint32_t settled_count;
static uint32_t state_counts[TREADLE_TASK_EXPIRED + 1];
static uint32_t missing_count; /* of them, TREADLE_E_NOT_FOUND */

/* ---- processes ---- */

static void given_a_broker(void)
{
    static char program[4200];
    const char *self = self_path();
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): before any thread */
    const char *level = getenv("TREADLE_LOG_LEVEL");
    (void)snprintf(program, sizeof program, "%.*s/../bin/treadled",
                   (int)(strrchr(self, '/') - self), self);
    const char *const arguments[] = {program,    "--log-level", level == NULL ? "error" : level,
                                     "--listen", endpoint,      NULL};
    broker = start(arguments, true);
}

static void given_a_worker(void)
{
    char slots[16];
    (void)snprintf(slots, sizeof slots, "%u", WORKER_SLOTS);
    const char *const arguments[] = {self_path(), "worker", endpoint, slots, NULL};
    worker = start(arguments, false);
}

static void end(struct child *child)
{
    if (child->pid > 0) {
        (void)stop(child);
        child->pid = 0;
    }
}

/* Ids of this test's own, with the task's number at the end. */
static struct treadle_task_id id_of(uint32_t number)
{
    static const uint8_t start[12] = {1, 2, 3};
    struct treadle_task_id id;
    memcpy(id.bytes, start, sizeof start);
    bytes_store_u32(id.bytes + 12, number);
    return id;
}

static void given_a_client(const struct treadle_client_options *options)
{
    struct treadle_client_options known = *options;
    known.size = sizeof known;
    known.broker = endpoint;
    memset(outcome_counts, 0, sizeof outcome_counts);
    memset(state_counts, 0, sizeof state_counts);
    settled_count = 0;
    missing_count = 0;
    if (treadle_client_open(&client, &known) != TREADLE_OK) {
        then_it_fails("%s\n", treadle_client_error(NULL));
    }
}

#define given_a_client_with(...)                                                                   \
    given_a_client(&(const struct treadle_client_options){.size = 0, __VA_ARGS__})

static int begin(void **unused)
{
    (void)unused;
    (void)snprintf(folder, sizeof folder, "/tmp/treadle-client-XXXXXX");
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    (void)snprintf(endpoint, sizeof endpoint, "ipc://%s/broker.sock", folder);
    given_a_broker();
    return 0;
}

static int tidy_up(void **unused)
{
    char path[128];
    (void)unused;
    treadle_client_close(&client);
    end(&worker);
    end(&broker);
    (void)snprintf(path, sizeof path, "%s/broker.sock", folder);
    (void)unlink(path);
    return rmdir(folder);
}

/* ---- the application ---- */

static enum treadle_status submit(uint32_t number, const void *body, size_t body_size)
{
    const struct treadle_task_id id = id_of(number);
    const struct treadle_task task = {
        .size = sizeof task,
        .name = "test.noop",
        .body = body,
        .body_size = body_size,
        .id = &id,
    };
    return treadle_client_submit(client, &task, NULL);
}

static void when_it_submits(uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(submit(first + i, CANARY_BODY, CANARY_SIZE), TREADLE_OK);
    }
}

static void note(const struct treadle_outcome *outcome)
{
    const uint32_t number = bytes_load_u32(outcome->id.bytes + 12);
    assert_in_range(number, 0, TASK_COUNT_MAX - 1);
    outcome_counts[number]++;
    settled_count++;
    if (outcome->status == TREADLE_OK) {
        state_counts[outcome->state]++;
    } else {
        assert_int_equal(outcome->status, TREADLE_E_NOT_FOUND);
        missing_count++;
    }
}

/* What an application does when the descriptor is readable; none of it may block. */
static void take_all(void)
{
    for (;;) {
        struct treadle_outcome *outcome = NULL;
        const uint64_t before_ms = now_ms();
        const enum treadle_status status = treadle_client_recv(client, 0, &outcome);
        assert_in_range(now_ms() - before_ms, 0, 1400);
        if (status != TREADLE_OK) {
            assert_int_equal(status, TREADLE_E_TIMEOUT);
            return;
        }
        note(outcome);
        treadle_outcome_free(&outcome);
    }
}

/* Waits in poll() alone, so long; how often the client had something to say. */
static uint32_t when_it_polls_for_ms(uint64_t span_ms)
{
    struct pollfd item = {.fd = treadle_client_fd(client), .events = POLLIN};
    const uint64_t until_ms = now_ms() + span_ms;
    uint32_t wakeup_count = 0;
    assert_true(item.fd >= 0);
    for (uint64_t now = now_ms(); now < until_ms; now = now_ms()) {
        if (poll(&item, 1, (int)(until_ms - now)) > 0) {
            wakeup_count++;
            take_all();
        }
    }
    return wakeup_count;
}

static void when_it_polls_until_settled(uint32_t count)
{
    struct pollfd item = {.fd = treadle_client_fd(client), .events = POLLIN};
    const uint64_t until_ms = now_ms() + PATIENCE_MS;
    while (settled_count < count) {
        if (poll(&item, 1, 4000) == 0) {
            then_it_fails("the descriptor was silent for 4 s: %u of %u settled\n", settled_count,
                          count);
        }
        take_all();
        if (now_ms() >= until_ms) {
            then_it_fails("%u of %u settled\n", settled_count, count);
        }
    }
}

static void then_each_has_one_outcome(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(outcome_counts[i], 1);
    }
    assert_int_equal(settled_count, count);
}

/* ---- stories ---- */

static void test_idle_descriptor_wakes_for_heartbeats_only(void **unused)
{
    (void)unused;
    given_a_worker();
    given_a_client_with(.in_flight_max = 10);
    assert_int_equal(treadle_client_fd(client), treadle_client_fd(client));
    (void)when_it_polls_for_ms(200); /* the last of the welcome */
    const uint32_t wakeup_count = when_it_polls_for_ms(5000);
    assert_in_range(wakeup_count, 4, 16); /* a heartbeat each way, each second, and few others */
    /* It is alive: the broker, which waits for 3 s, has heard it all the while. */
    const uint64_t before_ms = now_ms();
    when_it_submits(0, 1);
    when_it_polls_until_settled(1);
    assert_in_range(now_ms() - before_ms, 0, 900);
}

static void test_descriptor_is_readable_while_outcomes_wait(void **unused)
{
    (void)unused;
    struct pollfd item = {.events = POLLIN};
    struct treadle_outcome *outcome = NULL;
    given_a_worker();
    given_a_client_with(.in_flight_max = 10);
    item.fd = treadle_client_fd(client);
    when_it_submits(0, 3);
    while (treadle_client_recv(client, 5000, &outcome) != TREADLE_OK) {
        then_it_fails("%s\n", treadle_client_error(client));
    }
    note(outcome);
    treadle_outcome_free(&outcome);
    usleep(300000);
    /* The others have come; nobody took them. */
    assert_int_equal(treadle_client_flush(client, 0), TREADLE_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(poll(&item, 1, 0), 1);
    }
    take_all();
    then_each_has_one_outcome(3);
    assert_int_equal(poll(&item, 1, 0), 0);
}

/* Messages come at every point of what the client does; one that is not told is found with the next
 * heartbeat only. Of 6,000, some 10 come where it is easily missed. */
static void test_no_message_is_left_lying_until_the_next_heartbeat(void **unused)
{
    (void)unused;
    given_a_worker();
    given_a_client_with(.in_flight_max = 10);
    uint32_t slow_count = 0;
    for (uint32_t i = 0; i < 6000; i++) {
        const uint64_t before_ms = now_ms();
        when_it_submits(i, 1);
        when_it_polls_until_settled(i + 1);
        slow_count += now_ms() - before_ms > 200 ? 1 : 0;
    }
    assert_in_range(slow_count, 0, 2); /* a machine with other things to do, now and then */
    then_each_has_one_outcome(6000);
}

static void test_application_in_poll_settles_many_tasks_from_one_thread(void **unused)
{
    (void)unused;
    given_a_worker();
    given_a_client_with(.in_flight_max = 1000);
    struct pollfd item = {.fd = treadle_client_fd(client), .events = POLLIN};
    for (uint32_t next = 0; next < TASK_COUNT_MAX;) {
        const enum treadle_status status = submit(next, CANARY_BODY, CANARY_SIZE);
        if (status == TREADLE_OK) {
            next++;
            continue;
        }
        assert_int_equal(status, TREADLE_E_AGAIN);
        assert_non_null(strstr(treadle_client_error(client), "in_flight_max"));
        assert_int_equal(poll(&item, 1, 4000), 1);
        take_all();
    }
    when_it_polls_until_settled(TASK_COUNT_MAX);
    then_each_has_one_outcome(TASK_COUNT_MAX);
    assert_int_equal(state_counts[TREADLE_TASK_SUCCEEDED], TASK_COUNT_MAX);
    assert_int_equal(poll(&item, 1, 0), 0);
}

static void test_broker_that_restarts_gets_ten_thousand_tasks_again(void **unused)
{
    (void)unused;
    enum { COUNT = 10000, AWAITED = 10 };
    given_a_client_with(.in_flight_max = 0);
    when_it_submits(COUNT, AWAITED); /* of another client, which is no more */
    assert_int_equal(treadle_client_flush(client, 5000), TREADLE_OK);
    treadle_client_close(&client);

    given_a_client_with(.in_flight_max = 0);
    for (uint32_t i = 0; i < AWAITED; i++) {
        const struct treadle_task_id id = id_of(COUNT + i);
        assert_int_equal(treadle_client_await(client, &id), TREADLE_OK);
    }
    when_it_submits(0, COUNT);
    assert_int_equal(treadle_client_flush(client, 10000), TREADLE_OK);
    end(&broker);
    (void)when_it_polls_for_ms(500);
    assert_int_equal(settled_count, 0);
    given_a_broker();
    given_a_worker();
    when_it_polls_until_settled(COUNT + AWAITED);
    then_each_has_one_outcome(COUNT + AWAITED);
    assert_int_equal(state_counts[TREADLE_TASK_SUCCEEDED], COUNT);
    assert_int_equal(missing_count, AWAITED); /* nobody brought those back */
}

static void test_broker_that_falls_silent_is_found_again_with_new_sockets(void **unused)
{
    (void)unused;
    given_a_client_with(.in_flight_max = 0);
    const int fd = treadle_client_fd(client);
    when_it_submits(0, 100);
    assert_int_equal(treadle_client_flush(client, 5000), TREADLE_OK);
    assert_int_equal(kill(broker.pid, SIGSTOP), 0);
    /* Nothing comes; the client's own timer wakes it for its heartbeats. */
    (void)when_it_polls_for_ms(100);
    const uint32_t wakeup_count = when_it_polls_for_ms(2400);
    assert_in_range(wakeup_count, 2, 10);
    (void)when_it_polls_for_ms(2000); /* 3 s are over: it begins anew */
    assert_int_equal(kill(broker.pid, SIGCONT), 0);
    given_a_worker();
    assert_int_equal(treadle_client_fd(client), fd);
    when_it_polls_until_settled(100);
    then_each_has_one_outcome(100);
}

static void test_cancel_without_waiting_stands_and_the_outcome_tells(void **unused)
{
    (void)unused;
    enum treadle_cancel answer = TREADLE_CANCEL_UNKNOWN;
    uint32_t standing_count = 0;
    given_a_client_with(.in_flight_max = 0);
    when_it_submits(0, 1000);
    assert_int_equal(treadle_client_flush(client, 5000), TREADLE_OK);
    for (uint32_t i = 0; i < 1000; i++) {
        const struct treadle_task_id id = id_of(i);
        const enum treadle_status status = treadle_client_cancel(client, &id, 0, NULL);
        assert_true(status == TREADLE_E_TIMEOUT || status == TREADLE_OK);
        standing_count += status == TREADLE_E_TIMEOUT ? 1 : 0;
    }
    assert_in_range(standing_count, 900, 1000); /* few answers are there as fast as that */
    when_it_polls_until_settled(1000);
    then_each_has_one_outcome(1000);
    assert_int_equal(state_counts[TREADLE_TASK_CANCELLED], 1000);
    const struct treadle_task_id id = id_of(0);
    assert_int_equal(treadle_client_cancel(client, &id, 5000, &answer), TREADLE_OK);
    assert_int_equal(answer, TREADLE_CANCEL_SETTLED_ALREADY);
}

static void test_cancel_of_an_id_the_broker_has_is_the_brokers_to_answer(void **unused)
{
    (void)unused;
    enum treadle_cancel answer = TREADLE_CANCEL_UNKNOWN;
    struct treadle_outcome *outcome = NULL;
    const struct treadle_task_id id = id_of(0);
    given_a_worker();
    given_a_client_with(.in_flight_max = 0);
    when_it_submits(0, 1);
    when_it_polls_until_settled(1);
    treadle_client_close(&client);

    given_a_client_with(.in_flight_max = 0);
    when_it_submits(0, 1); /* again, and not sent yet */
    assert_int_equal(treadle_client_cancel(client, &id, 5000, &answer), TREADLE_OK);
    assert_int_equal(answer, TREADLE_CANCEL_SETTLED_ALREADY);
    assert_int_equal(treadle_client_recv_id(client, &id, 5000, &outcome), TREADLE_OK);
    assert_int_not_equal(outcome->state, TREADLE_TASK_CANCELLED);
    treadle_outcome_free(&outcome);
}

static void test_past_its_bytes_a_client_says_so_and_outcomes_make_room(void **unused)
{
    (void)unused;
    static const uint8_t body[10000];
    struct treadle_outcome *outcome = NULL;
    given_a_client_with(.byte_max = 1000000);
    assert_int_equal(submit(0, body, sizeof body), TREADLE_OK);
    uint32_t count = 1;
    enum treadle_status status = TREADLE_OK;
    while ((status = submit(count, body, sizeof body)) == TREADLE_OK) {
        count++;
    }
    assert_int_equal(status, TREADLE_E_AGAIN);
    assert_non_null(strstr(treadle_client_error(client), "byte_max"));
    assert_in_range(count, 90, 100);
    given_a_worker();
    assert_int_equal(treadle_client_recv(client, 10000, &outcome), TREADLE_OK);
    note(outcome);
    treadle_outcome_free(&outcome);
    assert_int_equal(submit(count, body, sizeof body), TREADLE_OK);
    when_it_polls_until_settled(count + 1);
    then_each_has_one_outcome(count + 1);

    treadle_client_close(&client);
    given_a_client_with(.byte_max = 5000);
    assert_int_equal(submit(0, body, sizeof body), TREADLE_E_LIMIT);
    assert_non_null(strstr(treadle_client_error(client), "byte_max"));
}

int main(int count, char **arguments)
{
    if (sodium_init() < 0) {
        return EXIT_FAILURE;
    }
    if (count == 4 && strcmp(arguments[1], "worker") == 0) {
        run_worker(arguments[2], "test.noop", (uint32_t)strtoul(arguments[3], NULL, 10), 4);
    }
#define STORY(name) cmocka_unit_test_setup_teardown(name, begin, tidy_up)
    const struct CMUnitTest tests[] = {
        STORY(test_idle_descriptor_wakes_for_heartbeats_only),
        STORY(test_descriptor_is_readable_while_outcomes_wait),
        STORY(test_no_message_is_left_lying_until_the_next_heartbeat),
        STORY(test_application_in_poll_settles_many_tasks_from_one_thread),
        STORY(test_broker_that_restarts_gets_ten_thousand_tasks_again),
        STORY(test_broker_that_falls_silent_is_found_again_with_new_sockets),
        STORY(test_cancel_without_waiting_stands_and_the_outcome_tells),
        STORY(test_cancel_of_an_id_the_broker_has_is_the_brokers_to_answer),
        STORY(test_past_its_bytes_a_client_says_so_and_outcomes_make_room),
    };
#undef STORY
    return cmocka_run_group_tests(tests, NULL, NULL);
}
