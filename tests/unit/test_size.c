/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "common/base/prng.h"
#include "common/base/size.h"

static void then_size_is(const char *text, uint64_t expected)
{
    uint64_t size = 77;
    assert_true(size_parse(text, &size));
    assert_int_equal(size, expected);
}

static void then_it_is_no_size(const char *text)
{
    uint64_t size = 77;
    assert_false(size_parse(text, &size));
    assert_int_equal(size, 77);
}

static void then_text_is(uint64_t size, const char *expected)
{
    char text[SIZE_TEXT_SIZE];
    assert_int_equal(size_print(text, sizeof text, size), strlen(expected));
    assert_string_equal(text, expected);
}

static void test_size_is_digits_and_a_unit(void **unused)
{
    (void)unused;
    then_size_is("0", 0);
    then_size_is("0KiB", 0);
    then_size_is("512B", 512);
    then_size_is("64KiB", 65536);
    then_size_is("4MiB", UINT64_C(4) << 20);
    then_size_is("1GiB", UINT64_C(1) << 30);
    then_size_is("2TiB", UINT64_C(2) << 40);
    then_size_is("18446744073709551615B", UINT64_MAX);
    then_size_is("16777215TiB", UINT64_C(16777215) << 40);
}

static void test_all_else_is_refused(void **unused)
{
    (void)unused;
    static const char *const texts[] = {
        "",      "1",      "MiB",    "1 MiB",       " 1MiB",
        "1MiB ", "1.5GiB", "1MB",    "1mib",        "1M",
        "-1MiB", "+1MiB",  "1_000B", "16777216TiB", "18446744073709551616B",
        "0x10B"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        then_it_is_no_size(texts[i]);
    }
}

static void test_text_is_the_shortest_that_is_exact(void **unused)
{
    (void)unused;
    then_text_is(0, "0");
    then_text_is(1536, "1536B");
    then_text_is(65536, "64KiB");
    then_text_is(UINT64_C(1) << 30, "1GiB");
    then_text_is(UINT64_MAX, "18446744073709551615B");
    char small[4];
    assert_int_equal(size_print(small, sizeof small, 65536), 5);
    assert_string_equal(small, "64K");
}

static void test_whatever_the_size_its_text_reads_back(void **unused)
{
    (void)unused;
    struct prng prng;
    prng_seed(&prng, 1);
    for (int i = 0; i < 20000; i++) {
        const uint64_t size = prng_next(&prng) >> prng_below(&prng, 64) << prng_below(&prng, 48);
        char text[SIZE_TEXT_SIZE];
        (void)size_print(text, sizeof text, size);
        then_size_is(text, size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size_is_digits_and_a_unit),
        cmocka_unit_test(test_all_else_is_refused),
        cmocka_unit_test(test_text_is_the_shortest_that_is_exact),
        cmocka_unit_test(test_whatever_the_size_its_text_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
