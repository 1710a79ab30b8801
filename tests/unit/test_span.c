/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "common/base/prng.h"
#include "common/base/span.h"

static void then_text_reads_as_ms(const char *text, uint64_t expected_ms)
{
    uint64_t span_ms = 12345;
    if (!span_parse(text, &span_ms)) {
        fail_msg("'%s' was refused", text);
    }
    assert_int_equal(span_ms, expected_ms);
}

static void then_text_is_refused(const char *text)
{
    uint64_t span_ms = 12345;
    if (span_parse(text, &span_ms)) {
        fail_msg("'%s' was accepted", text);
    }
    assert_int_equal(span_ms, 12345);
}

static void then_span_prints_as(uint64_t span_ms, const char *expected)
{
    char text[SPAN_TEXT_SIZE];
    assert_int_equal(span_print(text, sizeof(text), span_ms), strlen(expected));
    assert_string_equal(text, expected);
}

static void test_every_unit_is_read(void **unused)
{
    (void)unused;
    then_text_reads_as_ms("500ms", 500);
    then_text_reads_as_ms("30s", 30000);
    then_text_reads_as_ms("5m", 300000);
    then_text_reads_as_ms("2h", 7200000);
    then_text_reads_as_ms("1d", 86400000);
    then_text_reads_as_ms("007s", 7000);
}

static void test_zero_needs_no_unit(void **unused)
{
    (void)unused;
    then_text_reads_as_ms("0", 0);
    then_text_reads_as_ms("0s", 0);
}

static void test_what_is_no_span_is_refused(void **unused)
{
    (void)unused;
    const char *const texts[] = {"",     "s",     "30",   "1",    "1.5s", "-1s",   "+1s",
                                 " 1s",  "1s ",   "1 s",  "1S",   "1w",   "1h30m", "ms",
                                 "1mss", "0x10s", "1e3s", "1sec", "0.5s", "٣s"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        then_text_is_refused(texts[i]);
    }
}

static void test_spans_over_64_bits_are_refused(void **unused)
{
    (void)unused;
    then_text_reads_as_ms("18446744073709551615ms", UINT64_MAX);
    then_text_is_refused("18446744073709551616ms");
    then_text_is_refused("99999999999999999999ms");
    then_text_reads_as_ms("18446744073709551s", UINT64_C(18446744073709551000));
    then_text_is_refused("18446744073709552s");
    then_text_is_refused("213503982335d");
}

static void test_a_span_prints_in_its_shortest_exact_form(void **unused)
{
    (void)unused;
    then_span_prints_as(0, "0");
    then_span_prints_as(1500, "1500ms");
    then_span_prints_as(90000, "90s");
    then_span_prints_as(300000, "5m");
    then_span_prints_as(86400000, "1d");
    then_span_prints_as(UINT64_MAX, "18446744073709551615ms");
}

static void test_what_is_printed_reads_back_as_the_same_span(void **unused)
{
    (void)unused;
    struct prng prng;
    prng_seed(&prng, 1);
    const uint64_t units_ms[] = {1, 1000, 60000, 3600000, 86400000};
    for (int i = 0; i < 10000; i++) {
        const uint64_t span_ms =
            (prng_next(&prng) >> prng_between(&prng, 27, 63)) * units_ms[prng_below(&prng, 5)];
        char text[SPAN_TEXT_SIZE];
        assert_true(span_print(text, sizeof(text), span_ms) < sizeof(text));
        then_text_reads_as_ms(text, span_ms);
    }
}

static void test_a_small_buffer_gets_a_cut_text_with_its_end(void **unused)
{
    (void)unused;
    char text[5] = "xxxx";
    assert_int_equal(span_print(text, sizeof(text), 1500), 6);
    assert_string_equal(text, "1500");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_unit_is_read),
        cmocka_unit_test(test_zero_needs_no_unit),
        cmocka_unit_test(test_what_is_no_span_is_refused),
        cmocka_unit_test(test_spans_over_64_bits_are_refused),
        cmocka_unit_test(test_a_span_prints_in_its_shortest_exact_form),
        cmocka_unit_test(test_what_is_printed_reads_back_as_the_same_span),
        cmocka_unit_test(test_a_small_buffer_gets_a_cut_text_with_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
