/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/shell/misuse.h"

static void test_tenth_malformed_message_within_a_minute_cuts_off(void **unused)
{
    (void)unused;
    struct misuse misuse = {0};
    for (uint64_t i = 0; i < 9; i++) {
        assert_false(misuse_on_malformed(&misuse, i * 6000).is_cut);
    }
    assert_true(misuse_on_malformed(&misuse, 60000).is_cut);
}

static void test_ten_malformed_messages_over_more_than_a_minute_do_not_cut_off(void **unused)
{
    (void)unused;
    struct misuse misuse = {0};
    for (uint64_t i = 0; i < 100; i++) {
        assert_false(misuse_on_malformed(&misuse, i * 6700).is_cut);
    }
}

static void test_a_burst_after_a_long_quiet_time_cuts_off_at_its_tenth(void **unused)
{
    (void)unused;
    struct misuse misuse = {0};
    assert_false(misuse_on_malformed(&misuse, 0).is_cut);
    for (int i = 0; i < 9; i++) {
        assert_false(misuse_on_malformed(&misuse, 900000).is_cut);
    }
    assert_true(misuse_on_malformed(&misuse, 900000).is_cut);
}

static void test_one_line_a_minute_is_logged(void **unused)
{
    (void)unused;
    struct misuse misuse = {0};
    assert_true(misuse_on_malformed(&misuse, 0).is_logged);
    assert_false(misuse_on_malformed(&misuse, 59999).is_logged);
    assert_false(misuse_on_over_limit(&misuse, 59999).is_logged);
    assert_true(misuse_on_over_limit(&misuse, 60000).is_logged);
    assert_false(misuse_on_malformed(&misuse, 60001).is_logged);
}

static void test_third_message_over_a_limit_cuts_off_however_late(void **unused)
{
    (void)unused;
    struct misuse misuse = {0};
    assert_false(misuse_on_over_limit(&misuse, 0).is_cut);
    assert_false(misuse_on_over_limit(&misuse, 10000000).is_cut);
    assert_true(misuse_on_over_limit(&misuse, 20000000).is_cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenth_malformed_message_within_a_minute_cuts_off),
        cmocka_unit_test(test_ten_malformed_messages_over_more_than_a_minute_do_not_cut_off),
        cmocka_unit_test(test_a_burst_after_a_long_quiet_time_cuts_off_at_its_tenth),
        cmocka_unit_test(test_one_line_a_minute_is_logged),
        cmocka_unit_test(test_third_message_over_a_limit_cuts_off_however_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
