/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cli/joblog.h"

#define FILE_SIZE_MAX 65536

static char path[64];
static struct joblog joblog;
static char why[JOBLOG_WHY_SIZE];

static const struct treadle_task_id some_id = {
    {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static struct joblog_entry entry_of(uint64_t sequence, unsigned exit_value, const char *command)
{
    return (struct joblog_entry){.sequence = sequence,
                                 .started_at_unix_ms = 1700000000042,
                                 .runtime_ms = 1500,
                                 .send_size = 3,
                                 .receive_size = 7,
                                 .exit_value = exit_value,
                                 .command = bytes_from_text(command),
                                 .id = &some_id,
                                 .attempts = 2,
                                 .kind = exit_value == 0 ? "succeeded" : "transient"};
}

static void given_the_file(const char *text, size_t size)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void then_the_file_is(const char *expected)
{
    static char text[FILE_SIZE_MAX];
    FILE *file = fopen(path, "r");

    assert_non_null(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    assert_string_equal(text, expected);
}

static void when_opened(enum joblog_mode mode)
{
    if (!joblog_open(&joblog, path, mode, why)) {
        fail_msg("not opened: %s", why);
    }
    joblog_begin(&joblog);
    assert_int_equal(joblog.error, 0);
}

static void then_it_is_refused(const char *reason)
{
    assert_false(joblog_open(&joblog, path, JOBLOG_RESUME, why));
    assert_non_null(strstr(why, reason));
}

static int setup(void **unused)
{
    (void)unused;
    snprintf(path, sizeof(path), "%s", "/tmp/treadle-joblog-XXXXXX");
    int fd = mkstemp(path);

    joblog_init(&joblog);
    return fd == -1 ? -1 : close(fd);
}

static int teardown(void **unused)
{
    (void)unused;
    joblog_close(&joblog);
    return unlink(path);
}

#define LINE1                                                                                      \
    "1\t-\t1700000000.042\t     1.500\t3\t7\t0\t0\tone\t01020304-0506-0708-090a-0b0c0d0e0f10\t2\t" \
    "succeeded\n"
#define LINE2                                                                                      \
    "2\t-\t1700000000.042\t     1.500\t3\t7\t3\t0\ttwo\t01020304-0506-0708-090a-0b0c0d0e0f10\t2\t" \
    "transient\n"
#define LINE4                                                                                      \
    "4\t-\t1700000000.042\t     1.500\t3\t7\t0\t0\tfour\t01020304-0506-0708-090a-"                 \
    "0b0c0d0e0f10\t2\tsucceeded\n"

static void test_a_line_has_the_columns_of_gnu_parallel_and_three_more(void **unused)
{
    (void)unused;
    char line[JOBLOG_LINE_SIZE];
    struct joblog_entry entry = entry_of(1, 0, "one");
    struct joblog_line parsed;
    size_t size = joblog_print(line, &entry);

    assert_string_equal(line, LINE1);
    assert_int_equal(size, strlen(LINE1));
    assert_true(joblog_parse((struct bytes){(const uint8_t *)line, size - 1}, &parsed));
    assert_int_equal(parsed.sequence, 1);
    assert_int_equal(parsed.exit_value, 0);
}

static void test_a_record_stays_in_its_column(void **unused)
{
    (void)unused;
    char line[JOBLOG_LINE_SIZE];
    struct joblog_entry entry = entry_of(9, 139, "");
    struct joblog_line parsed;

    entry.command = (struct bytes){(const uint8_t *)"a\tb\nc\\d\re\0f", 11};
    entry.host = bytes_from_text("h\to\nst");
    entry.signal = 11;
    size_t size = joblog_print(line, &entry);

    assert_non_null(strstr(line, "\ta\\tb\\nc\\\\d\\re\\0f\t"));
    assert_non_null(strstr(line, "9\th\\to\\nst\t"));
    assert_true(joblog_parse((struct bytes){(const uint8_t *)line, size - 1}, &parsed));
    assert_int_equal(parsed.exit_value, 139);
    assert_int_equal(parsed.signal, 11);
}

static void test_the_longest_line_fits_and_says_that_it_was_cut(void **unused)
{
    (void)unused;
    static uint8_t tabs[JOBLOG_COMMAND_SIZE_MAX + 1];
    char line[JOBLOG_LINE_SIZE];
    char host[65];
    struct joblog_entry entry = entry_of(INT64_MAX / 10 - 1, UINT32_MAX, "");

    memset(tabs, '\t', sizeof(tabs));
    memset(host, '\t', sizeof(host) - 1);
    host[sizeof(host) - 1] = '\0';
    entry = (struct joblog_entry){.sequence = UINT64_MAX,
                                  .host = bytes_from_text(host),
                                  .started_at_unix_ms = UINT64_MAX,
                                  .runtime_ms = UINT64_MAX,
                                  .send_size = UINT64_MAX,
                                  .receive_size = UINT64_MAX,
                                  .exit_value = UINT32_MAX,
                                  .signal = UINT32_MAX,
                                  .command = {tabs, sizeof(tabs)},
                                  .id = &some_id,
                                  .attempts = UINT32_MAX,
                                  .kind = "upstream_failed"};
    size_t size = joblog_print(line, &entry);

    assert_true(size < sizeof(line));
    assert_int_equal(line[size - 1], '\n');
    assert_non_null(strstr(line, "\\t...\t"));
}

static void then_not_parsed(const char *text)
{
    struct joblog_line line;

    if (joblog_parse(bytes_from_text(text), &line)) {
        fail_msg("'%s' was taken for a line of a job log", text);
    }
}

static void test_what_is_no_line_is_not_parsed(void **unused)
{
    (void)unused;
    then_not_parsed("");
    then_not_parsed("1");
    then_not_parsed("0\t-\t1\t1\t1\t1\t0\t0\tx\t-\t1\tsucceeded"); /* they count from 1 */
    then_not_parsed("x\t-\t1\t1\t1\t1\t0\t0\tx\t-\t1\tsucceeded");
    then_not_parsed("1\t-\t1\t1\t1\t1\t-1\t0\tx\t-\t1\tsucceeded");
    then_not_parsed("1\t-\t1\t1\t1\t1\t0\t\tx\t-\t1\tsucceeded");
    then_not_parsed("1\t-\t1\t1\t1\t1\t0\t0\tx\t-\t1");
    then_not_parsed("1\t-\t1\t1\t1\t1\t0\t0\tx\t-\t1\t");
    then_not_parsed("1\t-\t1\t1\t1\t1\t0\t0\tx\t-\t1\tsucceeded\tmore");
    then_not_parsed("99999999999999999999\t-\t1\t1\t1\t1\t0\t0\tx\t-\t1\tsucceeded");
}

static void test_anew_overwrites_only_when_it_begins(void **unused)
{
    (void)unused;
    given_the_file("precious\n", 9);
    assert_true(joblog_open(&joblog, path, JOBLOG_ANEW, why));
    then_the_file_is("precious\n");
    joblog_begin(&joblog);
    then_the_file_is(JOBLOG_HEADER);
}

static void test_a_line_waits_until_its_result_has_left(void **unused)
{
    (void)unused;
    struct joblog_entry first = entry_of(1, 0, "one");
    struct joblog_entry second = entry_of(2, 3, "two");
    struct joblog_entry third = entry_of(4, 0, "four");

    when_opened(JOBLOG_ANEW);
    assert_true(joblog_add(&joblog, &first, 10));
    assert_true(joblog_add(&joblog, &second, 20));
    joblog_write(&joblog, 9);
    then_the_file_is(JOBLOG_HEADER);
    joblog_write(&joblog, 10);
    then_the_file_is(JOBLOG_HEADER LINE1);
    assert_true(joblog_add(&joblog, &third, 30));
    joblog_write(&joblog, 25);
    then_the_file_is(JOBLOG_HEADER LINE1 LINE2);
    joblog_write(&joblog, 30);
    then_the_file_is(JOBLOG_HEADER LINE1 LINE2 LINE4);
    assert_int_equal(joblog.error, 0);
}

static void test_resume_skips_what_the_log_has(void **unused)
{
    (void)unused;
    given_the_file(JOBLOG_HEADER LINE4 LINE2 LINE1, strlen(JOBLOG_HEADER LINE4 LINE2 LINE1));
    when_opened(JOBLOG_RESUME);
    assert_true(joblog_is_done(&joblog, 1));
    assert_true(joblog_is_done(&joblog, 2));
    assert_false(joblog_is_done(&joblog, 3));
    assert_true(joblog_is_done(&joblog, 4));
    assert_false(joblog_is_done(&joblog, 5));
    then_the_file_is(JOBLOG_HEADER LINE4 LINE2 LINE1);
}

static void test_resume_failed_skips_only_what_succeeded(void **unused)
{
    (void)unused;
    given_the_file(JOBLOG_HEADER LINE1 LINE2 LINE4, strlen(JOBLOG_HEADER LINE1 LINE2 LINE4));
    when_opened(JOBLOG_RESUME_FAILED);
    assert_true(joblog_is_done(&joblog, 1));
    assert_false(joblog_is_done(&joblog, 2));
    assert_true(joblog_is_done(&joblog, 4));
}

static void test_another_record_than_the_log_tells_of_is_not_the_same(void **unused)
{
    (void)unused;
    static uint8_t large[JOBLOG_COMMAND_SIZE_MAX + 1];
    struct joblog_entry entries[] = {entry_of(1, 0, "a\tb"), entry_of(2, 1, "bad"),
                                     entry_of(2, 0, "good"), entry_of(3, 0, "")};

    memset(large, 'x', sizeof(large));
    entries[3].command = (struct bytes){large, sizeof(large)};
    when_opened(JOBLOG_ANEW);
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        assert_true(joblog_add(&joblog, &entries[i], 0));
    }
    joblog_write(&joblog, 0);
    joblog_close(&joblog);

    when_opened(JOBLOG_RESUME);
    assert_true(joblog_is_done(&joblog, 1));
    assert_true(joblog_is_same(&joblog, bytes_from_text("a\tb")));
    assert_false(joblog_is_same(&joblog, bytes_from_text("a b")));
    assert_false(joblog_is_same(&joblog, bytes_from_text("")));
    assert_true(joblog_is_done(&joblog, 2)); /* it was mended, and run again */
    assert_true(joblog_is_same(&joblog, bytes_from_text("bad")));
    assert_true(joblog_is_same(&joblog, bytes_from_text("good")));
    assert_true(joblog_is_done(&joblog, 3));
    assert_true(joblog_is_same(&joblog, (struct bytes){large, sizeof(large)}));
    assert_false(joblog_is_same(&joblog, (struct bytes){large, sizeof(large) - 1}));
}

/* Wherever the file is cut off, the whole lines count and the rest is taken off. */
static void test_a_log_cut_off_anywhere_is_resumed(void **unused)
{
    (void)unused;
    static const char text[] = JOBLOG_HEADER LINE1 LINE2;
    size_t header_size = strlen(JOBLOG_HEADER);
    size_t first_size = header_size + strlen(LINE1);

    for (size_t size = 0; size < sizeof(text); size++) {
        given_the_file(text, size);
        when_opened(JOBLOG_RESUME);
        assert_int_equal(joblog_is_done(&joblog, 1), size >= first_size);
        assert_int_equal(joblog_is_done(&joblog, 2), size == sizeof(text) - 1);
        joblog_close(&joblog);
        then_the_file_is(size < first_size         ? JOBLOG_HEADER
                         : size < sizeof(text) - 1 ? JOBLOG_HEADER LINE1
                                                   : text);
    }
}

static void test_zeros_that_a_power_cut_left_are_taken_off(void **unused)
{
    (void)unused;
    static const char text[] = JOBLOG_HEADER LINE1 "\0\0\0\0\0\0\0";

    given_the_file(text, sizeof(text) - 1);
    when_opened(JOBLOG_RESUME);
    assert_true(joblog_is_done(&joblog, 1));
    then_the_file_is(JOBLOG_HEADER LINE1);
}

static void test_what_is_no_job_log_is_refused_and_kept(void **unused)
{
    (void)unused;
    static const char other[] = "name,value\nprecious,1\n";

    given_the_file(other, strlen(other));
    then_it_is_refused("not a job log");
    joblog_close(&joblog);
    then_the_file_is(other);
    given_the_file(JOBLOG_HEADER LINE1 "garbage\n" LINE2,
                   strlen(JOBLOG_HEADER LINE1 "garbage\n" LINE2));
    then_it_is_refused("line 3");
}

static void test_two_do_not_write_one_log(void **unused)
{
    (void)unused;
    struct joblog other;

    when_opened(JOBLOG_ANEW);
    assert_false(joblog_open(&other, path, JOBLOG_ANEW, why));
    assert_non_null(strstr(why, "another"));
    joblog_close(&other);
}

static void test_without_a_log_nothing_is_done_or_written(void **unused)
{
    (void)unused;
    struct joblog_entry entry = entry_of(1, 0, "one");

    joblog_begin(&joblog);
    assert_true(joblog_add(&joblog, &entry, 0));
    joblog_write(&joblog, 0);
    assert_false(joblog_is_done(&joblog, 1));
    then_the_file_is("");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_has_the_columns_of_gnu_parallel_and_three_more),
        cmocka_unit_test(test_a_record_stays_in_its_column),
        cmocka_unit_test(test_the_longest_line_fits_and_says_that_it_was_cut),
        cmocka_unit_test(test_what_is_no_line_is_not_parsed),
        cmocka_unit_test_setup_teardown(test_anew_overwrites_only_when_it_begins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_line_waits_until_its_result_has_left, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_resume_skips_what_the_log_has, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resume_failed_skips_only_what_succeeded, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_log_cut_off_anywhere_is_resumed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zeros_that_a_power_cut_left_are_taken_off, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_another_record_than_the_log_tells_of_is_not_the_same,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_no_job_log_is_refused_and_kept, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_two_do_not_write_one_log, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_a_log_nothing_is_done_or_written, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
