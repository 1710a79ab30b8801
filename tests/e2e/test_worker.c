/* SPDX-License-Identifier: MPL-2.0 */
/* What the worker's API refuses, and a worker that is drained before it has found a broker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <treadle/worker.h>

static enum treadle_end run(treadle_context *context, const struct treadle_attempt *attempt)
{
    (void)context;
    (void)attempt;
    return TREADLE_END_SUCCESS;
}

static struct treadle_handler handler;
static struct treadle_worker_options options;
static treadle_worker *worker;

static int set_up(void **unused)
{
    (void)unused;
    handler = (struct treadle_handler){.size = sizeof(handler), .name = "a.b", .run = run};
    options = (struct treadle_worker_options){.size = sizeof(options),
                                              .broker = "ipc:///nowhere/broker.sock"};
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    treadle_worker_destroy(&worker);
    return 0;
}

static void then_it_is_refused(enum treadle_status status, const char *text)
{
    assert_int_equal(treadle_worker_create(&worker, &options, &handler, 1), status);
    assert_null(worker);
    if (strstr(treadle_worker_error(NULL), text) == NULL) {
        fail_msg("'%s' does not say '%s'", treadle_worker_error(NULL), text);
    }
}

static void test_what_is_wrong_is_refused_with_words(void **unused)
{
    char name[80];
    static const struct treadle_policy policy = {.size = sizeof(policy), .attempts_max = 1001};
    (void)unused;
    handler.name = "nodot";
    then_it_is_refused(TREADLE_E_INVALID, "nodot");
    handler.name = "a.b";
    handler.run = NULL;
    then_it_is_refused(TREADLE_E_INVALID, "a.b");
    handler.run = run;
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    options.name = name;
    then_it_is_refused(TREADLE_E_INVALID, "a worker's name has 1 to 64 bytes");
    options.name = NULL;
    options.slots = 65537;
    then_it_is_refused(TREADLE_E_INVALID, "at most 65536 slots");
    options.slots = 1;
    options.policy = &policy;
    then_it_is_refused(TREADLE_E_INVALID, "the policy of a.b: attempts_max is out of range");
    options.policy = NULL;
    options.size = 0;
    then_it_is_refused(TREADLE_E_INVALID, "the size of struct treadle_worker_options is not set");
    assert_int_equal(treadle_worker_create(&worker, NULL, NULL, 0), TREADLE_E_INVALID);
}

static void test_two_handlers_of_one_name_are_refused(void **unused)
{
    (void)unused;
    const struct treadle_handler twice[] = {handler, handler};
    assert_int_equal(treadle_worker_create(&worker, &options, twice, 2), TREADLE_E_INVALID);
    assert_non_null(strstr(treadle_worker_error(NULL), "a.b"));
}

static void *wait_for_lock(void *lock)
{
    (void)pthread_mutex_lock(lock);
    (void)pthread_mutex_unlock(lock);
    return NULL;
}

static void test_a_worker_comes_before_any_thread(void **unused)
{
    (void)unused;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_t thread;
    assert_int_equal(pthread_mutex_lock(&lock), 0);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_lock, &lock), 0);
    then_it_is_refused(TREADLE_E_THREADS,
                       "treadle_worker_create() must come first: this process has ");
    assert_int_equal(pthread_mutex_unlock(&lock), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void *drain(void *drained)
{
    treadle_worker_drain(drained);
    return NULL;
}

static void test_a_worker_drained_by_another_thread_ends_well_and_may_run_again(void **unused)
{
    pthread_t thread;
    (void)unused;
    assert_int_equal(treadle_worker_create(&worker, &options, &handler, 1), TREADLE_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&thread, NULL, drain, worker), 0);
        assert_int_equal(treadle_worker_run(worker), TREADLE_OK);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
}

static void test_an_endpoint_that_is_none_is_told_when_it_runs(void **unused)
{
    (void)unused;
    /* The last two are libzmq's, and would be plain whatever keys there are. */
    static const char *const endpoints[] = {"nonsense", "inproc://a", "tipc://{18888,1}"};
    for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
        options.broker = endpoints[i];
        assert_int_equal(treadle_worker_create(&worker, &options, &handler, 1), TREADLE_OK);
        assert_int_equal(treadle_worker_run(worker), TREADLE_E_INVALID);
        assert_non_null(strstr(treadle_worker_error(worker), "is no endpoint"));
        assert_non_null(strstr(treadle_worker_error(worker), endpoints[i]));
        treadle_worker_destroy(&worker);
    }
}

int main(void)
{
#define SENTENCE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SENTENCE(test_what_is_wrong_is_refused_with_words),
        SENTENCE(test_two_handlers_of_one_name_are_refused),
        SENTENCE(test_a_worker_comes_before_any_thread),
        SENTENCE(test_a_worker_drained_by_another_thread_ends_well_and_may_run_again),
        SENTENCE(test_an_endpoint_that_is_none_is_told_when_it_runs),
    };
    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
