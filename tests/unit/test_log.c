/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/prng.h"

/* What was written to stderr between capture_start() and capture_end(). */
static char captured[256 * 1024];
static FILE *capture_file;
static int stderr_before;

static void capture_start(void)
{
    capture_file = tmpfile();
    assert_non_null(capture_file);
    stderr_before = dup(STDERR_FILENO);
    assert_int_equal(dup2(fileno(capture_file), STDERR_FILENO), STDERR_FILENO);
}

static void capture_end(void)
{
    assert_int_equal(dup2(stderr_before, STDERR_FILENO), STDERR_FILENO);
    (void)close(stderr_before);
    rewind(capture_file);
    captured[fread(captured, 1, sizeof(captured) - 1, capture_file)] = '\0';
    (void)fclose(capture_file);
}

static void then_quoted_is(const void *text, size_t size, const char *expected)
{
    char out[256];
    assert_string_equal(log_quote(out, sizeof(out), text, size), expected);
}

static void test_line_is_time_level_event_and_fields(void **unused)
{
    (void)unused;
    log_open(LOG_LEVEL_INFO, NULL);
    capture_start();
    errno = EAGAIN;
    log_warn("attempt.failed", "task=%s dispatch=%u", "abc", 7U);
    const int errno_after = errno;
    capture_end();
    assert_int_equal(errno_after, EAGAIN);

    const char *const shape = "dddd-dd-ddTdd:dd:dd.dddZ";
    for (size_t i = 0; i < strlen(shape); i++) {
        if (shape[i] == 'd') {
            assert_in_range(captured[i], '0', '9');
        } else {
            assert_int_equal(captured[i], shape[i]);
        }
    }
    assert_string_equal(captured + strlen(shape), " warn attempt.failed task=abc dispatch=7\n");
}

static void test_line_without_fields_ends_with_its_event(void **unused)
{
    (void)unused;
    capture_start();
    log_info("broker.stopped", "");
    capture_end();
    assert_string_equal(captured + 24, " info broker.stopped\n");
}

static void test_levels_below_the_one_opened_are_not_written(void **unused)
{
    (void)unused;
    capture_start();
    log_open(LOG_LEVEL_WARN, NULL);
    log_debug("a.debug", "");
    log_info("an.info", "");
    log_warn("a.warn", "");
    log_error("an.error", "");
    log_open(LOG_LEVEL_DEBUG, NULL);
    log_debug("now.debug", "");
    log_open(LOG_LEVEL_INFO, NULL);
    capture_end();
    assert_null(strstr(captured, "a.debug"));
    assert_null(strstr(captured, "an.info"));
    assert_non_null(strstr(captured, " warn a.warn\n"));
    assert_non_null(strstr(captured, " error an.error\n"));
    assert_non_null(strstr(captured, " debug now.debug\n"));
}

static void test_level_is_read_by_its_name(void **unused)
{
    (void)unused;
    enum log_level level = LOG_LEVEL_INFO;
    assert_true(log_level_parse("error", &level));
    assert_int_equal(level, LOG_LEVEL_ERROR);
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_false(log_level_parse("Error", &level));
    assert_false(log_level_parse("", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
}

static void test_value_that_nobody_quoted_cannot_start_a_line(void **unused)
{
    (void)unused;
    capture_start();
    log_info("session.opened", "name=%s", "x\n2026-01-01T00:00:00.000Z error forged\x1b[2J");
    capture_end();
    assert_string_equal(captured + 24, " info session.opened "
                                       "name=x?2026-01-01T00:00:00.000Z error forged?[2J\n");
}

static void test_long_line_is_cut_and_says_so(void **unused)
{
    (void)unused;
    char value[2 * LOG_LINE_SIZE];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    capture_start();
    log_info("long.line", "value=%s", value);
    capture_end();
    const size_t size = strlen(captured);
    assert_true(size <= LOG_LINE_SIZE && size > LOG_LINE_SIZE - 16);
    assert_string_equal(captured + size - 5, "v...\n");
}

static void *log_lines(void *letter)
{
    char value[200];
    memset(value, *(const char *)letter, sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    for (int i = 0; i < 200; i++) {
        log_info("thread.line", "value=%s", value);
    }
    return NULL;
}

static void test_lines_of_two_threads_stay_whole(void **unused)
{
    (void)unused;
    pthread_t threads[2];
    char letters[2] = {'a', 'b'};
    capture_start();
    (void)fcntl(STDERR_FILENO, F_SETFL, O_APPEND);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, log_lines, &letters[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    capture_end();
    const size_t line_size = strlen("2026-01-01T00:00:00.000Z info thread.line value=\n") + 199;
    assert_int_equal(strlen(captured), 400 * line_size);
    for (size_t i = 0; i < 400; i++) {
        const char *line = captured + i * line_size;
        const char *value = strstr(line, "value=") + strlen("value=");
        assert_int_equal(strspn(value, *value == 'a' ? "a" : "b"), 199);
        assert_int_equal(line[line_size - 1], '\n');
    }
}

static void test_digits_alone_are_quoted_since_they_are_no_number(void **unused)
{
    (void)unused;
    then_quoted_is("123", 3, "\"123\"");
    then_quoted_is("1.5", 3, "1.5");
}

static void test_fields_of_a_line_are_read_back(void **unused)
{
    (void)unused;
    static char room[LOG_VALUE_SIZE];
    struct log_field field;
    const char *next = "count=12 name=\"a \\\"b\\\" \\x41\\xff\\n\" word=x=y cut=\"no end";
    assert_true(log_field_next(&next, room, &field));
    assert_memory_equal(field.name, "count", 5);
    assert_true(field.is_number);
    assert_true(log_field_next(&next, room, &field));
    assert_memory_equal(field.value, "a \"b\" A\xef\xbf\xbd\n", 11);
    assert_int_equal(field.value_size, 11);
    assert_false(field.is_number);
    assert_true(log_field_next(&next, room, &field));
    assert_memory_equal(field.value, "x=y", 3);
    assert_true(log_field_next(&next, room, &field));
    assert_memory_equal(field.value, "no end", 6);
    assert_int_equal(field.value_size, 6);
    assert_false(log_field_next(&next, room, &field));
}

/* Last: from then on this process logs to the descriptor that stderr was here. */
static void test_nobody_waits_for_a_reader_and_lost_lines_are_told(void **unused)
{
    (void)unused;
    int ends[2];
    static char text[128 * 1024];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    stderr_before = dup(STDERR_FILENO);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    log_open(LOG_LEVEL_INFO, NULL);
    log_never_wait();
    for (int i = 0; i < 5000; i++) {
        log_info("a.line", "number=%d", i); /* over 200 KiB: more than a pipe holds */
    }
    assert_int_equal(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0);
    const ssize_t size = read(ends[0], text, sizeof text);
    assert_true(size > 0 && text[size - 1] == '\n');
    log_info("another.line", "");
    assert_int_equal(dup2(stderr_before, STDERR_FILENO), STDERR_FILENO);
    const ssize_t rest = read(ends[0], text, sizeof text - 1);
    assert_true(rest > 0);
    text[rest] = '\0';
    assert_non_null(strstr(text, " warn log.dropped lines="));
    assert_non_null(strstr(text, " info another.line\n"));
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static void test_plain_word_stays_as_it_is(void **unused)
{
    (void)unused;
    then_quoted_is("wc.count", 8, "wc.count");
    then_quoted_is("tcp://10.0.0.1:7330/a?b", 23, "tcp://10.0.0.1:7330/a?b");
}

static void test_text_that_is_no_plain_word_is_quoted_and_escaped(void **unused)
{
    (void)unused;
    then_quoted_is("", 0, "\"\"");
    then_quoted_is(NULL, 0, "\"\"");
    then_quoted_is("two words", 9, "\"two words\"");
    then_quoted_is("a=b", 3, "\"a=b\"");
    then_quoted_is("say \"hi\\\"", 9, "\"say \\\"hi\\\\\\\"\"");
    then_quoted_is("a\nb\tc\rd", 7, "\"a\\nb\\tc\\x0dd\"");
    then_quoted_is("\x1b[2J\x7f", 5, "\"\\x1b[2J\\x7f\"");
    then_quoted_is("nul\0in", 6, "\"nul\\x00in\"");
}

static void test_utf_8_stays_and_what_is_not_utf_8_is_escaped(void **unused)
{
    (void)unused;
    then_quoted_is("gr\xc3\xbc\xc3\x9f", 6, "\"gr\xc3\xbc\xc3\x9f\"");
    then_quoted_is("\xf0\x9f\x98\x80", 4, "\"\xf0\x9f\x98\x80\"");
    then_quoted_is("\xff", 1, "\"\\xff\"");
    then_quoted_is("\xc3", 1, "\"\\xc3\"");                            /* cut short */
    then_quoted_is("\xc0\x80", 2, "\"\\xc0\\x80\"");                   /* overlong */
    then_quoted_is("\xe0\x80\x8a", 3, "\"\\xe0\\x80\\x8a\"");          /* overlong newline */
    then_quoted_is("\xe0\x81\xa1", 3, "\"\\xe0\\x81\\xa1\"");          /* overlong "a" */
    then_quoted_is("\xf0\x80\x81\xa1", 4, "\"\\xf0\\x80\\x81\\xa1\""); /* overlong "a" */
    then_quoted_is("\xed\xa0\x80", 3, "\"\\xed\\xa0\\x80\"");          /* surrogate */
    then_quoted_is("\xf4\x90\x80\x80", 4, "\"\\xf4\\x90\\x80\\x80\""); /* above U+10FFFF */
    then_quoted_is("\xc2\x9b", 2, "\"\\xc2\\x9b\"");          /* C1: starts a control sequence */
    then_quoted_is("\xe2\x80\xae", 3, "\"\\xe2\\x80\\xae\""); /* right-to-left override */
}

static void test_text_that_does_not_fit_is_cut_at_a_whole_character(void **unused)
{
    (void)unused;
    char out[12];
    assert_string_equal(log_quote(out, sizeof(out), "elevenchars", 11), "elevenchars");
    assert_string_equal(log_quote(out, sizeof(out), "twelve-chars", 12), "\"twelve...\"");
    assert_string_equal(log_quote(out, sizeof(out), "nine byte", 9), "\"nine byte\"");
    assert_string_equal(log_quote(out, sizeof(out), "ten  bytes!", 11), "\"ten  b...\"");
    assert_string_equal(log_quote(out, sizeof(out), "abcd \xf0\x9f\x98\x80  ", 11), "\"abcd ...\"");
}

static void test_whatever_the_bytes_the_value_is_printable_bounded_and_closed(void **unused)
{
    (void)unused;
    struct prng prng;
    prng_seed(&prng, 1);
    for (int i = 0; i < 20000; i++) {
        uint8_t text[64];
        char out[96];
        const size_t size = prng_below(&prng, sizeof(text) + 1);
        const size_t out_size = prng_between(&prng, 8, sizeof(out));
        const uint64_t base = prng_below(&prng, 3) * 0x80 % 0x101;
        for (size_t b = 0; b < size; b++) {
            text[b] = (uint8_t)(base + prng_below(&prng, 128));
        }
        memset(out, 'Z', sizeof(out));
        (void)log_quote(out, out_size, text, size);
        const size_t used = strnlen(out, out_size);
        assert_true(used > 0 && used < out_size);
        for (size_t b = 0; b < used; b++) {
            assert_true((uint8_t)out[b] >= ' ' && out[b] != 0x7f);
        }
        for (size_t b = out_size; b < sizeof(out); b++) {
            assert_int_equal(out[b], 'Z');
        }
        assert_true((out[0] == '"') == (out[used - 1] == '"'));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line_is_time_level_event_and_fields),
        cmocka_unit_test(test_line_without_fields_ends_with_its_event),
        cmocka_unit_test(test_levels_below_the_one_opened_are_not_written),
        cmocka_unit_test(test_level_is_read_by_its_name),
        cmocka_unit_test(test_value_that_nobody_quoted_cannot_start_a_line),
        cmocka_unit_test(test_long_line_is_cut_and_says_so),
        cmocka_unit_test(test_lines_of_two_threads_stay_whole),
        cmocka_unit_test(test_plain_word_stays_as_it_is),
        cmocka_unit_test(test_digits_alone_are_quoted_since_they_are_no_number),
        cmocka_unit_test(test_fields_of_a_line_are_read_back),
        cmocka_unit_test(test_text_that_is_no_plain_word_is_quoted_and_escaped),
        cmocka_unit_test(test_utf_8_stays_and_what_is_not_utf_8_is_escaped),
        cmocka_unit_test(test_text_that_does_not_fit_is_cut_at_a_whole_character),
        cmocka_unit_test(test_whatever_the_bytes_the_value_is_printable_bounded_and_closed),
        cmocka_unit_test(test_nobody_waits_for_a_reader_and_lost_lines_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
