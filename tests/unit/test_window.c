/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "client/cli/window.h"
#include "common/base/prng.h"

static struct window window;

static struct treadle_task_id id_of(uint64_t sequence)
{
    struct treadle_task_id id = {{0}};

    memcpy(id.bytes, &sequence, sizeof(sequence));
    return id;
}

static void given_a_window(bool is_ordered, uint32_t count_max)
{
    static const struct hash_key key = {1, 2};

    assert_true(window_init(&window, is_ordered, count_max, &key));
}

static void when_submitted(uint64_t sequence, uint64_t body_size)
{
    struct treadle_task_id id = id_of(sequence);

    window_add(&window, &id, body_size)->sequence = sequence;
}

static void when_settled(uint64_t sequence)
{
    struct treadle_task_id id = id_of(sequence);
    struct window_record *record = window_find(&window, &id);

    assert_non_null(record);
    assert_true(window_settle(&window, record, (struct bytes){(const uint8_t *)"result", 6}));
    assert_null(window_find(&window, &id));
}

static void when_failed(uint64_t sequence)
{
    struct treadle_task_id id = id_of(sequence);

    window_remove(&window, window_find(&window, &id));
}

static void then_given_out(uint64_t sequence)
{
    struct window_record *record = window_next(&window);

    assert_non_null(record);
    assert_int_equal(record->sequence, sequence);
    assert_int_equal(record->result.size, 6);
    assert_memory_equal(record->result.data, "result", 6);
    window_remove(&window, record);
}

static void then_nothing_is_due(void)
{
    assert_null(window_next(&window));
}

static int reset(void **unused)
{
    (void)unused;
    window_reset(&window);
    return 0;
}

static void test_results_leave_in_the_order_of_the_input(void **unused)
{
    (void)unused;
    given_a_window(true, 8);
    for (uint64_t i = 1; i <= 4; i++) {
        when_submitted(i, 10);
    }
    when_settled(3);
    when_settled(2);
    then_nothing_is_due();
    when_settled(1);
    then_given_out(1);
    then_given_out(2);
    then_given_out(3);
    then_nothing_is_due();
    when_settled(4);
    then_given_out(4);
    assert_null(window_first(&window));
}

static void test_a_failed_record_makes_way_for_those_behind_it(void **unused)
{
    (void)unused;
    given_a_window(true, 8);
    when_submitted(1, 10);
    when_submitted(2, 10);
    when_settled(2);
    then_nothing_is_due();
    when_failed(1);
    then_given_out(2);
}

static void test_unordered_results_leave_as_they_come(void **unused)
{
    (void)unused;
    given_a_window(false, 8);
    for (uint64_t i = 1; i <= 4; i++) {
        when_submitted(i, 10);
    }
    when_settled(3);
    when_settled(1);
    then_given_out(3);
    when_settled(4);
    then_given_out(1);
    then_given_out(4);
    then_nothing_is_due();
    assert_int_equal(window_oldest(&window)->sequence, 2);
}

static void test_sizes_and_counts_tell_when_to_stop(void **unused)
{
    (void)unused;
    given_a_window(true, 2);
    when_submitted(1, 100);
    assert_false(window_is_full(&window));
    when_submitted(2, 50);
    assert_true(window_is_full(&window));
    assert_int_equal(window.in_flight_count, 2);
    assert_int_equal(window.in_flight_size, 150);
    assert_int_equal(window.held_size, 0);

    when_settled(2);
    assert_true(window_is_full(&window)); /* it waits for the first */
    assert_int_equal(window.in_flight_size, 100);
    assert_int_equal(window.held_count, 1);
    assert_true(window.held_size >= 6);

    when_settled(1);
    then_given_out(1);
    then_given_out(2);
    assert_int_equal(window.held_size, 0);
    assert_int_equal(window.in_flight_count + window.held_count, 0);
}

static void test_those_in_flight_are_walked_over_in_order(void **unused)
{
    (void)unused;
    given_a_window(true, 8);
    assert_null(window_oldest(&window));
    for (uint64_t i = 1; i <= 4; i++) {
        when_submitted(i, 1);
    }
    when_settled(2);
    struct window_record *record = window_oldest(&window);

    assert_int_equal(record->sequence, 1);
    record = window_after(&window, record);
    assert_int_equal(record->sequence, 3);
    record = window_after(&window, record);
    assert_int_equal(record->sequence, 4);
    assert_null(window_after(&window, record));
}

/* Thousands of records through a small window, settling at random. */
static void test_every_record_leaves_once_and_in_order(void **unused)
{
    (void)unused;
    struct prng prng;
    uint64_t submitted = 0;
    uint64_t given_out = 0;

    prng_seed(&prng, 7);
    given_a_window(true, 64);
    while (given_out < 20000) {
        while (!window_is_full(&window)) {
            when_submitted(++submitted, 1);
        }
        struct treadle_task_id id = id_of(given_out + 1 + prng_below(&prng, 64));

        if (window_find(&window, &id) != NULL) {
            uint64_t sequence = 0;

            memcpy(&sequence, id.bytes, sizeof(sequence));
            when_settled(sequence);
        }
        while (window_next(&window) != NULL) {
            then_given_out(++given_out);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_results_leave_in_the_order_of_the_input, reset),
        cmocka_unit_test_teardown(test_a_failed_record_makes_way_for_those_behind_it, reset),
        cmocka_unit_test_teardown(test_unordered_results_leave_as_they_come, reset),
        cmocka_unit_test_teardown(test_sizes_and_counts_tell_when_to_stop, reset),
        cmocka_unit_test_teardown(test_those_in_flight_are_walked_over_in_order, reset),
        cmocka_unit_test_teardown(test_every_record_leaves_once_and_in_order, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
