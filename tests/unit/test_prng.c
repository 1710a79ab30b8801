/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/prng.h"

static void test_first_numbers_are_those_of_the_reference(void **unused)
{
    (void)unused;
    /* xoshiro256** from the state {1, 2, 3, 4}; splitmix64 from the seed 0. Both computed by hand
     * from the published definitions. */
    struct prng prng = {{1, 2, 3, 4}};
    assert_int_equal(prng_next(&prng), 11520);
    assert_int_equal(prng_next(&prng), 0);
    assert_int_equal(prng_next(&prng), 1509978240);
    assert_int_equal(prng_next(&prng), 1215971899390074240);
    prng_seed(&prng, 0);
    assert_int_equal(prng.state[0], 0xe220a8397b1dcdaf);
    assert_int_equal(prng.state[1], 0x6e789e6aa1b965f4);
}

static void test_same_seed_gives_the_same_numbers_and_another_seed_others(void **unused)
{
    (void)unused;
    struct prng a;
    struct prng b;
    struct prng other;
    prng_seed(&a, 42);
    prng_seed(&b, 42);
    prng_seed(&other, 43);
    int same_count = 0;
    for (int i = 0; i < 1000; i++) {
        const uint64_t number = prng_next(&a);
        assert_int_equal(prng_next(&b), number);
        same_count += prng_next(&other) == number ? 1 : 0;
    }
    assert_int_equal(same_count, 0);
}

static void test_numbers_below_a_bound_are_spread_evenly(void **unused)
{
    (void)unused;
    struct prng prng;
    uint32_t counts[7] = {0};
    prng_seed(&prng, 5);
    for (int i = 0; i < 70000; i++) {
        const uint64_t number = prng_below(&prng, 7);
        assert_true(number < 7);
        counts[number]++;
    }
    for (int i = 0; i < 7; i++) {
        assert_in_range(counts[i], 9600, 10400); /* four standard deviations */
    }
}

static void test_a_bound_near_the_whole_range_has_no_bias(void **unused)
{
    (void)unused;
    /* A plain remainder of 3 * 2^62 would put half of all numbers into the lowest third. */
    const uint64_t third = UINT64_C(1) << 62;
    struct prng prng;
    uint32_t counts[3] = {0};
    prng_seed(&prng, 6);
    for (int i = 0; i < 30000; i++) {
        counts[prng_below(&prng, third * 3) / third]++;
    }
    for (int i = 0; i < 3; i++) {
        assert_in_range(counts[i], 9600, 10400);
    }
}

static void test_bounds_of_zero_and_one_give_zero(void **unused)
{
    (void)unused;
    struct prng prng;
    prng_seed(&prng, 7);
    assert_int_equal(prng_below(&prng, 0), 0);
    assert_int_equal(prng_below(&prng, 1), 0);
}

static void test_both_ends_of_a_range_are_reached(void **unused)
{
    (void)unused;
    struct prng prng;
    uint32_t counts[3] = {0};
    prng_seed(&prng, 8);
    for (int i = 0; i < 300; i++) {
        const uint64_t number = prng_between(&prng, 10, 12);
        assert_in_range(number, 10, 12);
        counts[number - 10]++;
    }
    assert_true(counts[0] > 0 && counts[1] > 0 && counts[2] > 0);
    assert_int_equal(prng_between(&prng, 5, 5), 5);
    uint64_t seen = 0;
    for (int i = 0; i < 64; i++) {
        seen |= prng_between(&prng, 0, UINT64_MAX);
    }
    assert_int_equal(seen, UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_numbers_are_those_of_the_reference),
        cmocka_unit_test(test_same_seed_gives_the_same_numbers_and_another_seed_others),
        cmocka_unit_test(test_numbers_below_a_bound_are_spread_evenly),
        cmocka_unit_test(test_a_bound_near_the_whole_range_has_no_bias),
        cmocka_unit_test(test_bounds_of_zero_and_one_give_zero),
        cmocka_unit_test(test_both_ends_of_a_range_are_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
