/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/bytes.h"

static void test_views_are_equal_by_size_and_content(void **unused)
{
    (void)unused;
    const uint8_t data[] = {'a', 'b', 'c'};
    assert_true(bytes_is_equal(bytes_from_text("abc"), (struct bytes){data, 3}));
    assert_false(bytes_is_equal(bytes_from_text("abc"), (struct bytes){data, 2}));
    assert_false(bytes_is_equal(bytes_from_text("abd"), (struct bytes){data, 3}));
    assert_true(bytes_is_equal(bytes_from_text(""), (struct bytes){NULL, 0}));
}

static void test_numbers_are_stored_big_endian_at_any_alignment(void **unused)
{
    (void)unused;
    uint8_t data[13] = {0};
    const uint8_t expected[13] = {0,    0xfe, 0xdc, 0xba, 0x98, 0x81, 0x23,
                                  0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    bytes_store_u32(data + 1, 0xfedcba98);
    bytes_store_u64(data + 5, 0x8123456789abcdef);
    assert_memory_equal(data, expected, sizeof(data));
    assert_int_equal(bytes_load_u32(data + 1), 0xfedcba98);
    assert_int_equal(bytes_load_u64(data + 5), 0x8123456789abcdef);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views_are_equal_by_size_and_content),
        cmocka_unit_test(test_numbers_are_stored_big_endian_at_any_alignment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
