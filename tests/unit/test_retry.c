/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/core/internal.h"

#include <string.h>

#define DRAW_COUNT   100000U
#define BUCKET_COUNT 50U

static struct prng prng;

static int start(void **unused)
{
    (void)unused;
    prng_seed(&prng, 20240229);
    return 0;
}

/* Draws often; every draw lies in [100 ms, cap], and what lies above the floor is spread evenly:
 * chi-square over buckets of equal size (49 degrees of freedom; 100 has a chance of 2 in 100,000).
 * Draws below the floor are at the floor, as many as there should be. */
static void check_full_jitter(uint64_t base_ms, uint64_t factor_milli, uint64_t max_ms,
                              uint32_t retry_index, uint64_t cap_ms)
{
    uint32_t buckets[BUCKET_COUNT] = {0};
    uint32_t at_floor = 0;
    uint64_t greatest_ms = 0;
    for (uint32_t i = 0; i < DRAW_COUNT; i++) {
        const uint64_t delay_ms = retry_delay(&prng, base_ms, factor_milli, max_ms, retry_index);
        assert_in_range(delay_ms, RETRY_DELAY_MIN_MS, cap_ms);
        greatest_ms = delay_ms > greatest_ms ? delay_ms : greatest_ms;
        if (delay_ms == RETRY_DELAY_MIN_MS) {
            at_floor++;
        } else {
            const uint64_t above_ms = delay_ms - RETRY_DELAY_MIN_MS - 1;
            buckets[above_ms * BUCKET_COUNT / (cap_ms - RETRY_DELAY_MIN_MS)]++;
        }
    }
    const double expected_floor =
        DRAW_COUNT * (double)(RETRY_DELAY_MIN_MS + 1) / (double)(cap_ms + 1);
    assert_true(at_floor > expected_floor * 0.85 - 20 && at_floor < expected_floor * 1.15 + 20);
    assert_true((double)greatest_ms > (double)cap_ms * 0.999);
    const double expected = (double)(DRAW_COUNT - at_floor) / BUCKET_COUNT;
    double chi_square = 0;
    for (uint32_t i = 0; i < BUCKET_COUNT; i++) {
        const double difference = buckets[i] - expected;
        chi_square += difference * difference / expected;
    }
    assert_true(chi_square < 100);
}

static void test_the_first_delay_is_uniform_up_to_the_base(void **unused)
{
    (void)unused;
    check_full_jitter(10100, 2000, 300000, 0, 10100);
}

static void test_the_cap_grows_by_the_factor(void **unused)
{
    (void)unused;
    check_full_jitter(1000, 2000, 300000, 1, 2000);
    check_full_jitter(1000, 2000, 300000, 5, 32000);
    check_full_jitter(1000, 3000, 300000, 2, 9000);
    check_full_jitter(1600, 1500, 300000, 3, 5400);
}

static void test_the_cap_ends_at_the_maximum(void **unused)
{
    (void)unused;
    check_full_jitter(1000, 2000, 300000, 9, 300000);
    check_full_jitter(1000, 2000, 300000, 1000, 300000);
    check_full_jitter(500000, 2000, 300000, 0, 300000);
}

static uint64_t greatest_of(uint64_t base_ms, uint64_t factor_milli, uint64_t max_ms,
                            uint32_t retry_index)
{
    uint64_t greatest_ms = 0;
    for (uint32_t i = 0; i < 2000; i++) {
        const uint64_t delay_ms = retry_delay(&prng, base_ms, factor_milli, max_ms, retry_index);
        greatest_ms = delay_ms > greatest_ms ? delay_ms : greatest_ms;
    }
    return greatest_ms;
}

static void test_draws_below_the_floor_become_the_floor(void **unused)
{
    (void)unused;
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(retry_delay(&prng, 1, 2000, 300000, 0), RETRY_DELAY_MIN_MS);
        assert_int_equal(retry_delay(&prng, 100, 2000, 50, 7), RETRY_DELAY_MIN_MS);
        assert_int_equal(retry_delay(&prng, 0, 0, 0, 0), RETRY_DELAY_MIN_MS);
    }
}

static void test_a_factor_of_one_keeps_the_base(void **unused)
{
    (void)unused;
    check_full_jitter(5000, 1000, 300000, 500, 5000);
}

static void test_a_factor_below_one_shrinks_the_cap(void **unused)
{
    (void)unused;
    check_full_jitter(80000, 500, 300000, 2, 20000);
    assert_int_equal(retry_delay(&prng, 80000, 1, 300000, 1000), RETRY_DELAY_MIN_MS);
}

static void test_a_small_base_grows_without_being_rounded_away(void **unused)
{
    (void)unused;
    const uint64_t greatest_ms = greatest_of(1, 1500, 300000, 20); /* 1.5^20 = 3325.26 */
    assert_in_range(greatest_ms, 3300, 3325);
    assert_in_range(greatest_of(1, 1100, 300000, 100), 13600, 13780); /* 1.1^100 = 13780.6 */
}

static void test_a_factor_close_to_one_grows(void **unused)
{
    (void)unused;
    assert_in_range(greatest_of(10000, 1001, 300000, 1000), 27000, 27169); /* 1.001^1000 = 2.717 */
}

static void test_extreme_values_of_the_protocol_do_not_overflow(void **unused)
{
    (void)unused;
    const uint64_t indexes[] = {0, 1, 2, 63, 64, 1000, UINT32_MAX};
    for (uint32_t i = 0; i < sizeof indexes / sizeof indexes[0]; i++) {
        for (uint32_t draw = 0; draw < 100; draw++) {
            const uint32_t index = (uint32_t)indexes[i];
            assert_in_range(retry_delay(&prng, SPAN_MAX_MS, 1000000, SPAN_MAX_MS, index),
                            RETRY_DELAY_MIN_MS, SPAN_MAX_MS);
            assert_in_range(retry_delay(&prng, 1, 1000000, SPAN_MAX_MS, index), RETRY_DELAY_MIN_MS,
                            SPAN_MAX_MS);
            assert_in_range(retry_delay(&prng, SPAN_MAX_MS - 1, 1001, SPAN_MAX_MS, index),
                            RETRY_DELAY_MIN_MS, SPAN_MAX_MS);
        }
    }
    assert_true(greatest_of(SPAN_MAX_MS, 1000000, SPAN_MAX_MS, 1) > SPAN_MAX_MS / 10 * 9);
    assert_true(greatest_of(1, 1000000, SPAN_MAX_MS, 1000) > SPAN_MAX_MS / 10 * 9);
}

static void test_the_same_seed_gives_the_same_delays(void **unused)
{
    (void)unused;
    struct prng twin = prng;
    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(retry_delay(&prng, 1000, 2000, 300000, i % 10),
                         retry_delay(&twin, 1000, 2000, 300000, i % 10));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_the_first_delay_is_uniform_up_to_the_base, start),
        cmocka_unit_test_setup(test_the_cap_grows_by_the_factor, start),
        cmocka_unit_test_setup(test_the_cap_ends_at_the_maximum, start),
        cmocka_unit_test_setup(test_draws_below_the_floor_become_the_floor, start),
        cmocka_unit_test_setup(test_a_factor_of_one_keeps_the_base, start),
        cmocka_unit_test_setup(test_a_factor_below_one_shrinks_the_cap, start),
        cmocka_unit_test_setup(test_a_small_base_grows_without_being_rounded_away, start),
        cmocka_unit_test_setup(test_a_factor_close_to_one_grows, start),
        cmocka_unit_test_setup(test_extreme_values_of_the_protocol_do_not_overflow, start),
        cmocka_unit_test_setup(test_the_same_seed_gives_the_same_delays, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
