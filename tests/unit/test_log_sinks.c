/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/shell/log_sinks.h"
#include "common/base/prng.h"

/* What was written to stderr between capture_start() and capture_end(). */
static char captured[64 * 1024];
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
    captured[fread(captured, 1, sizeof captured - 1, capture_file)] = '\0';
    (void)fclose(capture_file);
}

/* The one line captured, as JSON. */
static json_t *captured_object(void)
{
    json_error_t error;
    const char *end = strchr(captured, '\n');
    assert_non_null(end);
    assert_int_equal(end[1], '\0');
    json_t *object = json_loads(captured, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (object == NULL) {
        fail_msg("not JSON: %s: %s", error.text, captured);
    }
    return object;
}

#define then_text_is(object, name, expected)                                                       \
    assert_string_equal(json_string_value(json_object_get((object), (name))), (expected))

static void test_json_line_has_time_level_event_and_fields(void **unused)
{
    (void)unused;
    log_open(LOG_LEVEL_INFO, log_json);
    capture_start();
    log_warn("session.lost", "role=worker name=%s leases=%u empty= text=\"a \\\"b\\\"\\n\\\\c\"",
             "w1", 12U);
    capture_end();
    json_t *object = captured_object();
    assert_int_equal(strlen(json_string_value(json_object_get(object, "time"))), 24);
    then_text_is(object, "level", "warn");
    then_text_is(object, "event", "session.lost");
    then_text_is(object, "name", "w1");
    then_text_is(object, "empty", "");
    then_text_is(object, "text", "a \"b\"\n\\c");
    assert_int_equal(json_integer_value(json_object_get(object, "leases")), 12);
    assert_int_equal(json_object_size(object), 8);
    json_decref(object);
}

static void test_name_of_digits_is_no_number(void **unused)
{
    (void)unused;
    char quoted[32];
    log_open(LOG_LEVEL_INFO, log_json);
    capture_start();
    log_info("session.opened", "name=%s", log_quote(quoted, sizeof quoted, "123", 3));
    capture_end();
    json_t *object = captured_object();
    then_text_is(object, "name", "123");
    json_decref(object);
}

static void test_bytes_that_are_not_utf_8_become_replacement_characters(void **unused)
{
    (void)unused;
    char quoted[64];
    log_open(LOG_LEVEL_INFO, log_json);
    capture_start();
    log_info("session.opened", "name=%s raw=\xff",
             log_quote(quoted, sizeof quoted, "a\xff\xc3\xbc\xc2\x9b", 6));
    capture_end();
    json_t *object = captured_object();
    then_text_is(object, "name", "a\xef\xbf\xbd\xc3\xbc\xc2\x9b");
    then_text_is(object, "raw", "\xef\xbf\xbd");
    json_decref(object);
}

static void test_whatever_a_peer_wrote_the_line_is_one_json_object(void **unused)
{
    (void)unused;
    struct prng prng;
    prng_seed(&prng, 1);
    log_open(LOG_LEVEL_INFO, log_json);
    for (int i = 0; i < 500; i++) {
        uint8_t bytes[1024];
        char quoted[2048];
        const size_t size = prng_below(&prng, sizeof bytes + 1);
        for (size_t b = 0; b < size; b++) {
            bytes[b] = (uint8_t)prng_next(&prng);
        }
        capture_start();
        log_info("a.line", "first=%s second=%s", log_quote(quoted, sizeof quoted, bytes, size),
                 quoted);
        capture_end();
        json_t *object = captured_object();
        assert_true(json_is_string(json_object_get(object, "first")));
        json_decref(object);
    }
}

static void test_line_that_is_all_control_characters_still_fits(void **unused)
{
    (void)unused;
    char bytes[1000];
    char quoted[4090];
    memset(bytes, 1, sizeof bytes);
    log_open(LOG_LEVEL_INFO, log_json);
    capture_start();
    log_info("a.line", "v=%s", log_quote(quoted, sizeof quoted, bytes, sizeof bytes));
    capture_end();
    json_t *object = captured_object();
    assert_int_equal(json_string_length(json_object_get(object, "v")), 1000);
    json_decref(object);
}

static const struct iovec *field_at(const struct iovec *fields, size_t count, const char *start)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(fields[i].iov_base, start, strlen(start)) == 0) {
            return &fields[i];
        }
    }
    return NULL;
}

static void then_field_is(const struct iovec *fields, size_t count, const char *expected)
{
    const size_t name_size = (size_t)(strchr(expected, '=') - expected) + 1;
    char name[64];
    memcpy(name, expected, name_size);
    name[name_size] = '\0';
    const struct iovec *field = field_at(fields, count, name);
    if (field == NULL) {
        fail_msg("no field %s", name);
        return;
    }
    assert_int_equal(field->iov_len, strlen(expected));
    assert_memory_equal(field->iov_base, expected, strlen(expected));
}

static void test_journal_has_message_priority_event_and_fields(void **unused)
{
    (void)unused;
    struct iovec fields[JOURNAL_FIELD_COUNT_MAX];
    const struct log_line line = {LOG_LEVEL_WARN, "2026-01-01T00:00:00.000Z", "session.lost",
                                  "name=\"a b\" leases=3"};
    const size_t count = journal_fields(&line, fields);
    assert_int_equal(count, 6);
    then_field_is(fields, count, "MESSAGE=session.lost name=\"a b\" leases=3");
    then_field_is(fields, count, "PRIORITY=4");
    then_field_is(fields, count, "SYSLOG_IDENTIFIER=treadled");
    then_field_is(fields, count, "TREADLE_EVENT=session.lost");
    then_field_is(fields, count, "TREADLE_NAME=a b");
    then_field_is(fields, count, "TREADLE_LEASES=3");
    for (size_t i = 0; i < count; i++) {
        free(fields[i].iov_base);
    }
}

static void test_journal_fields_are_bounded(void **unused)
{
    (void)unused;
    struct iovec fields[JOURNAL_FIELD_COUNT_MAX];
    char text[LOG_LINE_SIZE] = "";
    for (int i = 0; i < 100; i++) {
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "a%d=%d ", i, i);
    }
    const struct log_line line = {LOG_LEVEL_INFO, "", "a.line", text};
    const size_t count = journal_fields(&line, fields);
    assert_int_equal(count, JOURNAL_FIELD_COUNT_MAX);
    for (size_t i = 0; i < count; i++) {
        free(fields[i].iov_base);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_line_has_time_level_event_and_fields),
        cmocka_unit_test(test_name_of_digits_is_no_number),
        cmocka_unit_test(test_bytes_that_are_not_utf_8_become_replacement_characters),
        cmocka_unit_test(test_whatever_a_peer_wrote_the_line_is_one_json_object),
        cmocka_unit_test(test_line_that_is_all_control_characters_still_fits),
        cmocka_unit_test(test_journal_has_message_priority_event_and_fields),
        cmocka_unit_test(test_journal_fields_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
