/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/record_reader.h"

#define LIMIT 100000U

/* A reader of a pipe, and the pipe's other end. */
static struct record_reader reader;
static int pipe_fds[2];

static void given_a_reader(uint8_t end_byte, size_t size_max)
{
    assert_int_equal(pipe(pipe_fds), 0);
    record_reader_init(&reader, pipe_fds[0], end_byte, size_max);
}

static void when_comes(const char *text, size_t size)
{
    assert_int_equal(write(pipe_fds[1], text, size), (ssize_t)size);
    assert_int_equal(record_reader_fill(&reader), 0);
}

static void when_it_ends(void)
{
    close(pipe_fds[1]);
    assert_int_equal(record_reader_fill(&reader), 0);
}

static void then_next_is(const char *expected, size_t size)
{
    struct record record;

    assert_int_equal(record_reader_next(&reader, &record), RECORD_READY);
    assert_int_equal(record.text.size, size);
    assert_memory_equal(record.text.data, expected, size);
    assert_int_equal(record.size, size);
    assert_false(record.is_too_large);
}

static void then_status_is(enum record_status expected)
{
    struct record record;

    assert_int_equal(record_reader_next(&reader, &record), expected);
}

static int reset(void **unused)
{
    (void)unused;
    record_reader_reset(&reader);
    close(pipe_fds[0]);
    return 0;
}

static void test_lines_are_records_and_empty_ones_too(void **unused)
{
    (void)unused;
    given_a_reader('\n', LIMIT);
    then_status_is(RECORD_NEEDS_INPUT);
    when_comes("one\n\nthree\n", 11);
    then_next_is("one", 3);
    then_next_is("", 0);
    then_next_is("three", 5);
    then_status_is(RECORD_NEEDS_INPUT);
    when_it_ends();
    then_status_is(RECORD_END);
    then_status_is(RECORD_END);
}

static void test_a_last_line_without_newline_counts(void **unused)
{
    (void)unused;
    given_a_reader('\n', LIMIT);
    when_comes("one\nla", 6);
    then_next_is("one", 3);
    then_status_is(RECORD_NEEDS_INPUT);
    when_comes("st", 2);
    then_status_is(RECORD_NEEDS_INPUT);
    when_it_ends();
    then_next_is("last", 4);
    then_status_is(RECORD_END);
}

static void test_an_empty_input_has_no_record(void **unused)
{
    (void)unused;
    given_a_reader('\n', LIMIT);
    when_it_ends();
    then_status_is(RECORD_END);
}

static void test_records_that_end_with_a_nul_hold_newlines(void **unused)
{
    (void)unused;
    given_a_reader('\0', LIMIT);
    when_comes("a\nb\0\0c\n", 7);
    then_next_is("a\nb", 3);
    then_next_is("", 0);
    when_it_ends();
    then_next_is("c\n", 2);
}

static void test_a_record_of_the_limit_passes_and_one_byte_more_does_not(void **unused)
{
    (void)unused;
    struct record record;

    given_a_reader('\n', 4);
    when_comes("1234\n12345\nok\n", 14);
    then_next_is("1234", 4);
    assert_int_equal(record_reader_next(&reader, &record), RECORD_READY);
    assert_true(record.is_too_large);
    assert_int_equal(record.size, 5);
    then_next_is("ok", 2);
}

static void test_an_endless_record_is_dropped_in_bounded_memory(void **unused)
{
    (void)unused;
    static char piece[50000];
    struct record record;

    memset(piece, 'x', sizeof(piece));
    given_a_reader('\n', LIMIT);
    for (int i = 0; i < 200; i++) {
        when_comes(piece, sizeof(piece));
        then_status_is(RECORD_NEEDS_INPUT);
    }
    assert_true(reader.capacity <= 4 * ((size_t)LIMIT + 65536U));
    when_comes("\nnext\n", 6);
    assert_int_equal(record_reader_next(&reader, &record), RECORD_READY);
    assert_true(record.is_too_large);
    assert_int_equal(record.size, 200 * sizeof(piece));
    assert_int_equal(record.text.size, RECORD_KEPT_SIZE);
    then_next_is("next", 4);
}

static void test_an_endless_record_may_end_with_the_input(void **unused)
{
    (void)unused;
    static char piece[50000];
    struct record record;

    memset(piece, 'x', sizeof(piece));
    given_a_reader('\n', 10);
    when_comes(piece, sizeof(piece));
    then_status_is(RECORD_NEEDS_INPUT);
    when_it_ends();
    assert_int_equal(record_reader_next(&reader, &record), RECORD_READY);
    assert_true(record.is_too_large);
    assert_int_equal(record.size, sizeof(piece));
    then_status_is(RECORD_END);
}

static void test_what_cannot_be_read_is_told(void **unused)
{
    (void)unused;
    given_a_reader('\n', LIMIT);
    close(pipe_fds[1]);
    reader.fd = -1;
    assert_int_not_equal(record_reader_fill(&reader), 0);
    then_status_is(RECORD_NEEDS_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_lines_are_records_and_empty_ones_too, reset),
        cmocka_unit_test_teardown(test_a_last_line_without_newline_counts, reset),
        cmocka_unit_test_teardown(test_an_empty_input_has_no_record, reset),
        cmocka_unit_test_teardown(test_records_that_end_with_a_nul_hold_newlines, reset),
        cmocka_unit_test_teardown(test_a_record_of_the_limit_passes_and_one_byte_more_does_not,
                                  reset),
        cmocka_unit_test_teardown(test_an_endless_record_is_dropped_in_bounded_memory, reset),
        cmocka_unit_test_teardown(test_an_endless_record_may_end_with_the_input, reset),
        cmocka_unit_test_teardown(test_what_cannot_be_read_is_told, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
