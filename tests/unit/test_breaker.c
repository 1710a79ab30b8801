/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/core/breaker.h"

static struct breaker breaker;
static uint64_t now_ms;

static void given_a_breaker(void)
{
    breaker_init(&breaker);
    now_ms = 7000;
}

static void when_time_passes_ms(uint64_t span_ms)
{
    now_ms += span_ms;
    if (breaker.state == BREAKER_OPEN && breaker.cooled_at_ms <= now_ms) {
        breaker_on_cooled(&breaker, now_ms); /* what the service's timer does */
    }
}

static void when_attempts_end(uint32_t count, enum breaker_verdict verdict)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_true(breaker_admits(&breaker));
        const uint32_t generation = breaker.generation;
        const bool is_probe = breaker_on_dispatch(&breaker);
        breaker_on_end(&breaker, generation, is_probe, verdict, now_ms);
    }
}

#define when_attempts_fail(count)    when_attempts_end(count, BREAKER_FAILURE)
#define when_attempts_succeed(count) when_attempts_end(count, BREAKER_SUCCESS)

#define then_it_is(expected)                                                                       \
    assert_string_equal(breaker_state_text(breaker.state), breaker_state_text(expected))

static void then_window_is(uint32_t results, uint32_t failures)
{
    uint32_t results_seen = 0;
    uint32_t failures_seen = 0;
    breaker_window(&breaker, now_ms, &results_seen, &failures_seen);
    assert_int_equal(results_seen, results);
    assert_int_equal(failures_seen, failures);
}

/* ---- the table, cell by cell ---- */

static void given_it_is_open(void)
{
    given_a_breaker();
    when_attempts_fail(5);
    then_it_is(BREAKER_OPEN);
}

static void given_it_is_half_open(void)
{
    given_it_is_open();
    when_time_passes_ms(10000);
    then_it_is(BREAKER_HALF_OPEN);
}

static void given_it_is(enum breaker_state state)
{
    if (state == BREAKER_CLOSED) {
        given_a_breaker();
    } else if (state == BREAKER_OPEN) {
        given_it_is_open();
    } else {
        given_it_is_half_open();
    }
}

static void test_closed_breaker_counts_a_success(void **unused)
{
    (void)unused;
    given_a_breaker();
    when_attempts_fail(4);
    when_attempts_succeed(1);
    then_it_is(BREAKER_CLOSED);
    then_window_is(5, 4);
    assert_int_equal(breaker.failures_run, 0);
    assert_int_equal(breaker.generation, 1);
}

static void test_closed_breaker_counts_a_failure(void **unused)
{
    (void)unused;
    given_a_breaker();
    when_attempts_fail(1);
    then_it_is(BREAKER_CLOSED);
    then_window_is(1, 1);
    assert_int_equal(breaker.generation, 1);
}

static void test_closed_breaker_opens_when_the_window_says_so(void **unused)
{
    (void)unused;
    given_a_breaker();
    when_attempts_fail(5);
    then_it_is(BREAKER_OPEN);
    assert_int_equal(breaker.generation, 2);
    assert_int_equal(breaker.cooled_at_ms, now_ms + 10000);
    assert_false(breaker_admits(&breaker));
    then_window_is(0, 0);
}

static void test_closed_breaker_ignores_the_end_of_a_cooldown(void **unused)
{
    (void)unused;
    given_a_breaker();
    when_attempts_fail(3);
    breaker_on_cooled(&breaker, now_ms);
    then_it_is(BREAKER_CLOSED);
    then_window_is(3, 3);
    assert_int_equal(breaker.generation, 1);
}

static void test_open_breaker_ignores_results(void **unused)
{
    (void)unused;
    const enum breaker_verdict verdicts[] = {BREAKER_SUCCESS, BREAKER_FAILURE, BREAKER_NO_VERDICT};
    for (uint32_t i = 0; i < 3; i++) {
        given_it_is_open();
        const uint64_t cooled_at_ms = breaker.cooled_at_ms;
        for (int j = 0; j < 30; j++) { /* a trip, if they counted */
            breaker_on_end(&breaker, breaker.generation, false, verdicts[i], now_ms);
        }
        then_it_is(BREAKER_OPEN);
        then_window_is(0, 0);
        assert_int_equal(breaker.generation, 2);
        assert_int_equal(breaker.cooled_at_ms, cooled_at_ms);
    }
}

static void test_open_breaker_half_opens_when_cooled(void **unused)
{
    (void)unused;
    given_it_is_open();
    when_time_passes_ms(9999);
    then_it_is(BREAKER_OPEN);
    when_time_passes_ms(1);
    then_it_is(BREAKER_HALF_OPEN);
    assert_int_equal(breaker.generation, 2); /* it rises at openings and closings only */
    assert_true(breaker_admits(&breaker));
}

static void test_half_open_breaker_counts_a_success_as_a_probe(void **unused)
{
    (void)unused;
    given_it_is_half_open();
    when_attempts_succeed(1);
    then_it_is(BREAKER_HALF_OPEN);
    assert_int_equal(breaker.probe_successes, 1);
}

static void test_half_open_breaker_reopens_on_the_first_failure(void **unused)
{
    (void)unused;
    given_it_is_half_open();
    when_attempts_succeed(4);
    when_attempts_fail(1);
    then_it_is(BREAKER_OPEN);
    assert_int_equal(breaker.generation, 3);
}

static void test_half_open_breaker_ignores_the_end_of_a_cooldown(void **unused)
{
    (void)unused;
    given_it_is_half_open();
    when_attempts_succeed(2);
    breaker_on_cooled(&breaker, now_ms);
    then_it_is(BREAKER_HALF_OPEN);
    assert_int_equal(breaker.probe_successes, 2);
}

static void test_forced_open_holds_from_every_state(void **unused)
{
    (void)unused;
    for (int state = BREAKER_CLOSED; state < BREAKER_STATE_COUNT; state++) {
        given_it_is((enum breaker_state)state);
        const uint32_t before = breaker.generation;
        breaker_force(&breaker, BREAKER_FORCED_OPEN, now_ms);
        then_it_is(BREAKER_OPEN);
        assert_int_equal(breaker.generation, state == BREAKER_OPEN ? before : before + 1);
        assert_true(breaker.cooled_at_ms == UINT64_MAX);
        assert_false(breaker_admits(&breaker));
        now_ms += 3600000;
        breaker_on_cooled(&breaker, now_ms);
        then_it_is(BREAKER_OPEN);
    }
}

static void test_forced_closed_holds_from_every_state(void **unused)
{
    (void)unused;
    for (int state = BREAKER_CLOSED; state < BREAKER_STATE_COUNT; state++) {
        given_it_is((enum breaker_state)state);
        const uint32_t before = breaker.generation;
        breaker_force(&breaker, BREAKER_FORCED_CLOSED, now_ms);
        then_it_is(BREAKER_CLOSED);
        assert_int_equal(breaker.generation, state == BREAKER_CLOSED ? before : before + 1);
        then_window_is(0, 0);
        when_attempts_fail(100);
        then_it_is(BREAKER_CLOSED);
        then_window_is(100, 100);
    }
}

static void test_automatic_after_forced_open_half_opens(void **unused)
{
    (void)unused;
    for (int state = BREAKER_CLOSED; state < BREAKER_STATE_COUNT; state++) {
        given_it_is((enum breaker_state)state);
        breaker_force(&breaker, BREAKER_FORCED_OPEN, now_ms);
        breaker_force(&breaker, BREAKER_AUTO, now_ms);
        then_it_is(BREAKER_HALF_OPEN);
        when_attempts_succeed(5);
        then_it_is(BREAKER_CLOSED);
    }
}

static void test_automatic_after_forced_closed_starts_with_an_empty_window(void **unused)
{
    (void)unused;
    given_a_breaker();
    breaker_force(&breaker, BREAKER_FORCED_CLOSED, now_ms);
    when_attempts_fail(100);
    breaker_force(&breaker, BREAKER_AUTO, now_ms);
    then_it_is(BREAKER_CLOSED);
    then_window_is(0, 0);
    when_attempts_fail(4);
    then_it_is(BREAKER_CLOSED);
    when_attempts_fail(1);
    then_it_is(BREAKER_OPEN);
}

static void test_automatic_changes_nothing_that_is_automatic(void **unused)
{
    (void)unused;
    for (int state = BREAKER_CLOSED; state < BREAKER_STATE_COUNT; state++) {
        given_it_is((enum breaker_state)state);
        const struct breaker before = breaker;
        breaker_force(&breaker, BREAKER_AUTO, now_ms);
        then_it_is((enum breaker_state)state);
        assert_int_equal(breaker.generation, before.generation);
        assert_int_equal(breaker.cooled_at_ms, before.cooled_at_ms);
    }
}

static void test_one_forced_mode_follows_another(void **unused)
{
    (void)unused;
    given_a_breaker();
    breaker_force(&breaker, BREAKER_FORCED_OPEN, now_ms);
    breaker_force(&breaker, BREAKER_FORCED_CLOSED, now_ms);
    then_it_is(BREAKER_CLOSED);
    assert_int_equal(breaker.generation, 3);
    breaker_force(&breaker, BREAKER_FORCED_OPEN, now_ms);
    then_it_is(BREAKER_OPEN);
    assert_int_equal(breaker.generation, 4);
}

/* ---- what trips it ---- */

static void test_half_of_ten_results_trip_it(void **unused)
{
    (void)unused;
    given_a_breaker();
    for (int i = 0; i < 4; i++) { /* never 5 in a row */
        when_attempts_succeed(1);
        when_attempts_fail(1);
    }
    when_attempts_succeed(1);
    then_window_is(9, 4);
    then_it_is(BREAKER_CLOSED);
    when_attempts_fail(1);
    then_it_is(BREAKER_OPEN);
}

static void test_less_than_half_does_not_trip_it(void **unused)
{
    (void)unused;
    given_a_breaker();
    for (int i = 0; i < 100; i++) {
        when_attempts_succeed(2);
        when_attempts_fail(1);
    }
    then_it_is(BREAKER_CLOSED);
    then_window_is(300, 100);
}

static void test_half_of_nine_results_do_not_trip_it(void **unused)
{
    (void)unused;
    given_a_breaker();
    when_attempts_fail(4);
    when_attempts_succeed(1);
    when_attempts_fail(4);
    then_window_is(9, 8);
    then_it_is(BREAKER_CLOSED);
}

static void test_five_failures_in_a_row_trip_it_while_it_has_seen_little(void **unused)
{
    (void)unused;
    given_a_breaker();
    when_attempts_succeed(14);
    when_attempts_fail(4);
    then_it_is(BREAKER_CLOSED);
    when_attempts_fail(1); /* the 19th */
    then_it_is(BREAKER_OPEN);
}

static void test_five_failures_in_a_row_do_not_trip_it_once_it_has_seen_enough(void **unused)
{
    (void)unused;
    given_a_breaker();
    when_attempts_succeed(15);
    when_attempts_fail(5); /* the 20th */
    then_window_is(20, 5);
    then_it_is(BREAKER_CLOSED);
}

static void test_a_success_ends_the_run_of_failures(void **unused)
{
    (void)unused;
    given_a_breaker();
    when_attempts_succeed(9);
    when_attempts_fail(4);
    when_attempts_succeed(1);
    when_attempts_fail(4);
    then_it_is(BREAKER_CLOSED);
    when_attempts_fail(1);
    then_it_is(BREAKER_OPEN);
}

static void test_results_without_a_verdict_do_not_count(void **unused)
{
    (void)unused;
    given_a_breaker();
    when_attempts_end(100, BREAKER_NO_VERDICT);
    then_window_is(0, 0);
    when_attempts_fail(4);
    when_attempts_end(1, BREAKER_NO_VERDICT);
    assert_int_equal(breaker.failures_run, 4); /* nor do they end a run */
}

/* ---- the window rolls ---- */

static void test_what_leaves_the_window_no_longer_counts(void **unused)
{
    (void)unused;
    given_a_breaker();
    now_ms = 30000; /* the start of a part */
    when_attempts_fail(4);
    now_ms = 59999; /* the end of the tenth part */
    then_window_is(4, 4);
    now_ms = 60000;
    then_window_is(0, 0);
}

static void test_the_window_rolls_part_by_part(void **unused)
{
    (void)unused;
    given_a_breaker();
    now_ms = 30000;
    for (uint32_t part = 0; part < 10; part++) { /* one success in each, two in the last */
        when_attempts_succeed(1);
        now_ms += 3000;
    }
    now_ms -= 3000;
    when_attempts_succeed(1);
    then_window_is(11, 0);
    for (uint32_t part = 0; part < 9; part++) {
        now_ms += 3000;
        then_window_is(10 - part, 0);
    }
    now_ms += 3000;
    then_window_is(0, 0);
}

static void test_old_successes_do_not_hide_new_failures(void **unused)
{
    (void)unused;
    given_a_breaker();
    when_attempts_succeed(1000);
    now_ms += 30000;
    when_attempts_succeed(1);
    when_attempts_fail(4);
    when_attempts_succeed(1);
    when_attempts_fail(3);
    then_it_is(BREAKER_CLOSED);
    when_attempts_fail(1);
    then_it_is(BREAKER_OPEN);
}

static void test_a_long_silence_empties_the_window(void **unused)
{
    (void)unused;
    given_a_breaker();
    when_attempts_succeed(1);
    when_attempts_fail(3);
    now_ms += UINT64_C(86400000) * 365;
    then_window_is(0, 0);
    when_attempts_succeed(1);
    then_window_is(1, 0);
}

/* ---- generations ---- */

static void test_results_from_before_the_opening_change_nothing(void **unused)
{
    (void)unused;
    given_a_breaker();
    const uint32_t old = breaker.generation;
    when_attempts_fail(5);
    breaker_on_end(&breaker, old, false, BREAKER_FAILURE, now_ms);
    breaker_on_end(&breaker, old, false, BREAKER_SUCCESS, now_ms);
    then_it_is(BREAKER_OPEN);
    when_time_passes_ms(10000);
    for (int i = 0; i < 10; i++) {
        breaker_on_end(&breaker, old, false, BREAKER_SUCCESS, now_ms);
    }
    then_it_is(BREAKER_HALF_OPEN);
    assert_int_equal(breaker.probe_successes, 0);
    breaker_on_end(&breaker, old, false, BREAKER_FAILURE, now_ms);
    then_it_is(BREAKER_HALF_OPEN);
    when_attempts_succeed(5);
    for (int i = 0; i < 20; i++) {
        breaker_on_end(&breaker, old, false, BREAKER_FAILURE, now_ms);
    }
    then_it_is(BREAKER_CLOSED);
    then_window_is(0, 0);
}

static void test_a_probe_of_an_older_opening_changes_nothing(void **unused)
{
    (void)unused;
    given_it_is_half_open();
    when_attempts_succeed(1);
    const uint32_t old = breaker.generation;
    assert_true(breaker_on_dispatch(&breaker));
    assert_true(breaker_on_dispatch(&breaker));
    breaker_on_end(&breaker, old, true, BREAKER_FAILURE, now_ms);
    then_it_is(BREAKER_OPEN);
    when_time_passes_ms(20000);
    then_it_is(BREAKER_HALF_OPEN);
    breaker_on_end(&breaker, old, true, BREAKER_SUCCESS, now_ms);
    assert_int_equal(breaker.probe_successes, 0);
    assert_int_equal(breaker.probes_in_flight, 0);
    assert_true(breaker_on_dispatch(&breaker));
    assert_false(breaker_admits(&breaker));
}

static void test_the_generation_rises_at_each_opening_and_closing(void **unused)
{
    (void)unused;
    given_a_breaker();
    assert_int_equal(breaker.generation, 1);
    when_attempts_fail(5);
    assert_int_equal(breaker.generation, 2);
    when_time_passes_ms(10000);
    when_attempts_fail(1);
    assert_int_equal(breaker.generation, 3);
    when_time_passes_ms(20000);
    when_attempts_succeed(5);
    assert_int_equal(breaker.generation, 4);
    when_attempts_fail(5);
    assert_int_equal(breaker.generation, 5);
}

/* ---- probes ---- */

/* Takes as many probes as it admits. */
static uint32_t take_probes(void)
{
    uint32_t count = 0;
    while (breaker_admits(&breaker)) {
        assert_true(breaker_on_dispatch(&breaker));
        count++;
    }
    return count;
}

static void when_a_probe_ends(enum breaker_verdict verdict)
{
    breaker_on_end(&breaker, breaker.generation, true, verdict, now_ms);
}

static void test_probes_ramp_up_from_one_to_two_to_four(void **unused)
{
    (void)unused;
    given_it_is_half_open();
    assert_int_equal(take_probes(), 1);
    when_a_probe_ends(BREAKER_SUCCESS);
    assert_int_equal(take_probes(), 2);
    when_a_probe_ends(BREAKER_SUCCESS);
    assert_int_equal(take_probes(), 1); /* still 2 in flight */
    when_a_probe_ends(BREAKER_SUCCESS); /* those two succeeded: the third success in all */
    assert_int_equal(take_probes(), 3); /* 4 in flight */
    assert_int_equal(breaker.probes_in_flight, 4);
}

static void test_five_successes_close_it(void **unused)
{
    (void)unused;
    given_it_is_half_open();
    when_attempts_succeed(4);
    then_it_is(BREAKER_HALF_OPEN);
    when_attempts_succeed(1);
    then_it_is(BREAKER_CLOSED);
    then_window_is(0, 0);
    assert_true(breaker_admits(&breaker));
}

static void test_each_failure_of_a_probe_doubles_the_cooldown_up_to_its_limit(void **unused)
{
    (void)unused;
    given_it_is_open();
    const uint64_t spans_ms[] = {10000, 20000, 40000, 80000, 160000, 300000, 300000};
    for (uint32_t i = 0; i < sizeof spans_ms / sizeof spans_ms[0]; i++) {
        then_it_is(BREAKER_OPEN);
        assert_int_equal(breaker.cooled_at_ms - now_ms, spans_ms[i]);
        when_time_passes_ms(spans_ms[i] - 1);
        then_it_is(BREAKER_OPEN);
        when_time_passes_ms(1);
        then_it_is(BREAKER_HALF_OPEN);
        when_attempts_fail(1);
    }
}

static void test_after_closing_the_cooldown_starts_small_again(void **unused)
{
    (void)unused;
    given_it_is_half_open();
    when_attempts_fail(1);
    when_time_passes_ms(20000);
    when_attempts_succeed(5);
    when_attempts_fail(5);
    then_it_is(BREAKER_OPEN);
    assert_int_equal(breaker.cooled_at_ms - now_ms, 10000);
}

static void test_a_probe_without_a_verdict_frees_its_place_and_decides_nothing(void **unused)
{
    (void)unused;
    given_it_is_half_open();
    for (int i = 0; i < 20; i++) {
        assert_int_equal(take_probes(), 1);
        when_a_probe_ends(BREAKER_NO_VERDICT);
        then_it_is(BREAKER_HALF_OPEN);
        assert_int_equal(breaker.probe_successes, 0);
    }
    assert_int_equal(take_probes(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed_breaker_counts_a_success),
        cmocka_unit_test(test_closed_breaker_counts_a_failure),
        cmocka_unit_test(test_closed_breaker_opens_when_the_window_says_so),
        cmocka_unit_test(test_closed_breaker_ignores_the_end_of_a_cooldown),
        cmocka_unit_test(test_open_breaker_ignores_results),
        cmocka_unit_test(test_open_breaker_half_opens_when_cooled),
        cmocka_unit_test(test_half_open_breaker_counts_a_success_as_a_probe),
        cmocka_unit_test(test_half_open_breaker_reopens_on_the_first_failure),
        cmocka_unit_test(test_half_open_breaker_ignores_the_end_of_a_cooldown),
        cmocka_unit_test(test_forced_open_holds_from_every_state),
        cmocka_unit_test(test_forced_closed_holds_from_every_state),
        cmocka_unit_test(test_automatic_after_forced_open_half_opens),
        cmocka_unit_test(test_automatic_after_forced_closed_starts_with_an_empty_window),
        cmocka_unit_test(test_automatic_changes_nothing_that_is_automatic),
        cmocka_unit_test(test_one_forced_mode_follows_another),
        cmocka_unit_test(test_half_of_ten_results_trip_it),
        cmocka_unit_test(test_less_than_half_does_not_trip_it),
        cmocka_unit_test(test_half_of_nine_results_do_not_trip_it),
        cmocka_unit_test(test_five_failures_in_a_row_trip_it_while_it_has_seen_little),
        cmocka_unit_test(test_five_failures_in_a_row_do_not_trip_it_once_it_has_seen_enough),
        cmocka_unit_test(test_a_success_ends_the_run_of_failures),
        cmocka_unit_test(test_results_without_a_verdict_do_not_count),
        cmocka_unit_test(test_what_leaves_the_window_no_longer_counts),
        cmocka_unit_test(test_the_window_rolls_part_by_part),
        cmocka_unit_test(test_old_successes_do_not_hide_new_failures),
        cmocka_unit_test(test_a_long_silence_empties_the_window),
        cmocka_unit_test(test_results_from_before_the_opening_change_nothing),
        cmocka_unit_test(test_a_probe_of_an_older_opening_changes_nothing),
        cmocka_unit_test(test_the_generation_rises_at_each_opening_and_closing),
        cmocka_unit_test(test_probes_ramp_up_from_one_to_two_to_four),
        cmocka_unit_test(test_five_successes_close_it),
        cmocka_unit_test(test_each_failure_of_a_probe_doubles_the_cooldown_up_to_its_limit),
        cmocka_unit_test(test_after_closing_the_cooldown_starts_small_again),
        cmocka_unit_test(test_a_probe_without_a_verdict_frees_its_place_and_decides_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
