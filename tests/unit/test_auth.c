/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/shell/auth.h"

#define KEY_A "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

static struct principals *principals;
static struct auth_bucket buckets[1];
static struct auth_rules rules;
static uint8_t key[KEY_SIZE];
static const char *reason;

static int make_principals(void **unused)
{
    (void)unused;
    char path[] = "/tmp/treadle-auth-XXXXXX";
    struct conf_mistakes mistakes = {.count = 0};
    const int fd = mkstemp(path);
    FILE *file = fd == -1 ? NULL : fdopen(fd, "w");
    if (file == NULL) {
        return -1;
    }
    (void)fputs("principal a {\nkeys={" KEY_A "}\nroles={submit}\nservices={\"*\"}\n}\n", file);
    (void)fclose(file);
    principals = principals_read(path, &mistakes);
    (void)unlink(path);
    return principals != NULL && principals_read_hex(key, KEY_A) ? 0 : -1;
}

static int drop_principals(void **unused)
{
    (void)unused;
    principals_destroy(&principals);
    return 0;
}

static int set_up(void **unused)
{
    (void)unused;
    memset(buckets, 0, sizeof buckets);
    rules = (struct auth_rules){.principals = principals, .buckets = buckets};
    return 0;
}

static struct auth_request good_request(void)
{
    return (struct auth_request){.version = bytes_from_text("1.0"),
                                 .domain = bytes_from_text(AUTH_DOMAIN),
                                 .mechanism = bytes_from_text("CURVE"),
                                 .key = {key, sizeof key},
                                 .is_whole = true};
}

static enum auth_status decide(const struct auth_request *request, uint64_t now_ms)
{
    return auth_decide(&rules, request, now_ms, &reason);
}

static void test_admitted_key_gets_in(void **unused)
{
    (void)unused;
    const struct auth_request request = good_request();
    assert_int_equal(decide(&request, 1000), AUTH_ADMITTED);
}

static void test_all_else_is_denied(void **unused)
{
    (void)unused;
    uint8_t stranger[KEY_SIZE] = {1};
    struct auth_request requests[8];
    for (size_t i = 0; i < 8; i++) {
        requests[i] = good_request();
    }
    requests[0].is_whole = false;
    requests[1].version = bytes_from_text("1.1");
    requests[2].domain = (struct bytes){NULL, 0};
    requests[3].domain = bytes_from_text("admin");
    requests[4].mechanism = bytes_from_text("NULL");
    requests[5].mechanism = bytes_from_text("PLAIN");
    requests[6].key.size = KEY_SIZE - 1;
    requests[7].key = (struct bytes){stranger, sizeof stranger};
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(decide(&requests[i], 1000), AUTH_DENIED);
        assert_true(reason[0] != '\0');
    }
}

static void test_without_a_table_or_a_place_it_is_not_now(void **unused)
{
    (void)unused;
    const struct auth_request request = good_request();
    rules.principals = NULL;
    assert_int_equal(decide(&request, 1000), AUTH_NOT_NOW);
    rules.principals = principals;
    rules.is_full = true;
    assert_int_equal(decide(&request, 1000), AUTH_NOT_NOW);
    struct auth_request stranger = request;
    uint8_t other[KEY_SIZE] = {1};
    stranger.key.data = other;
    assert_int_equal(decide(&stranger, 1000), AUTH_DENIED); /* full or not */
    rules.is_full = false;
    assert_int_equal(decide(&request, 1000), AUTH_ADMITTED);
}

static void test_key_that_shakes_hands_too_often_is_told_to_come_later(void **unused)
{
    (void)unused;
    const struct auth_request request = good_request();
    for (uint32_t i = 0; i < AUTH_BURST; i++) {
        assert_int_equal(decide(&request, 1000), AUTH_ADMITTED);
    }
    assert_int_equal(decide(&request, 1000), AUTH_NOT_NOW);
    assert_string_equal(reason, "too_often");
    uint32_t admitted = 0;
    for (uint64_t now_ms = 1001; now_ms <= 3000; now_ms++) { /* asked each millisecond */
        admitted += decide(&request, now_ms) == AUTH_ADMITTED ? 1 : 0;
    }
    assert_in_range(admitted, 2 * AUTH_PER_SECOND - 8, 2 * AUTH_PER_SECOND);
    admitted = 0;
    for (uint32_t i = 0; i < 2 * AUTH_BURST; i++) { /* a long rest is worth one burst */
        admitted += decide(&request, 1000000) == AUTH_ADMITTED ? 1 : 0;
    }
    assert_int_equal(admitted, AUTH_BURST);
}

static struct auth_told told;

static bool is_told(const uint8_t refused[KEY_SIZE], uint64_t now_ms)
{
    told = (struct auth_told){0};
    return auth_note_refused(&rules, refused, now_ms, &told);
}

static void test_refused_key_is_logged_once_a_minute(void **unused)
{
    (void)unused;
    uint8_t other[KEY_SIZE] = {1};
    assert_true(is_told(key, 0));
    assert_false(is_told(key, 1));
    assert_true(is_told(other, 1));
    assert_false(is_told(key, AUTH_LOG_SPAN_MS - 1));
    assert_true(is_told(key, AUTH_LOG_SPAN_MS));
    assert_false(is_told(key, AUTH_LOG_SPAN_MS + 1));
}

static void test_line_tells_how_often_its_key_was_refused_since_the_one_before(void **unused)
{
    (void)unused;
    uint8_t other[KEY_SIZE] = {1};
    assert_true(is_told(key, 0));
    assert_int_equal(told.count, 1);
    for (uint64_t i = 0; i < 7; i++) {
        assert_false(is_told(key, i));
    }
    assert_true(is_told(other, 10));
    assert_int_equal(told.count, 1);
    assert_true(is_told(key, AUTH_LOG_SPAN_MS));
    assert_int_equal(told.count, 8);
    assert_int_equal(told.others, 0);
    assert_true(is_told(key, UINT64_C(3) * AUTH_LOG_SPAN_MS));
    assert_int_equal(told.count, 1);
}

static void test_flood_of_different_keys_does_not_fill_the_log(void **unused)
{
    (void)unused;
    uint32_t logged = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        uint8_t made_up[KEY_SIZE] = {0};
        bytes_store_u32(made_up, i);
        logged += is_told(made_up, 10 + i / 10) ? 1 : 0;
    }
    assert_int_equal(logged, AUTH_REFUSED_KEYS);
}

static void test_no_refusal_is_left_out_of_what_is_told(void **unused)
{
    (void)unused;
    uint64_t total = 0;
    const uint32_t count = 4 * AUTH_REFUSED_KEYS;
    for (uint32_t i = 0; i < 5 * count; i++) { /* each key five times, at times far apart */
        uint8_t made_up[KEY_SIZE] = {0};
        bytes_store_u32(made_up, i % count);
        total += is_told(made_up, UINT64_C(10000) * (i / count)) ? told.count + told.others : 0;
    }
    assert_true(is_told(key, UINT64_C(10) * AUTH_LOG_SPAN_MS)); /* takes the place of one of them */
    total += told.count + told.others;
    for (uint32_t i = 0; i < AUTH_REFUSED_KEYS; i++) {
        total += rules.refused[i].refused_count; /* not told yet */
    }
    assert_int_equal(total, 5 * count + 1);
}

static void test_fingerprint_is_the_first_16_digits(void **unused)
{
    (void)unused;
    char out[AUTH_FINGERPRINT_SIZE];
    auth_print_fingerprint(out, key);
    assert_string_equal(out, "0011223344556677");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_admitted_key_gets_in, set_up),
        cmocka_unit_test_setup(test_all_else_is_denied, set_up),
        cmocka_unit_test_setup(test_without_a_table_or_a_place_it_is_not_now, set_up),
        cmocka_unit_test_setup(test_key_that_shakes_hands_too_often_is_told_to_come_later, set_up),
        cmocka_unit_test_setup(test_refused_key_is_logged_once_a_minute, set_up),
        cmocka_unit_test_setup(test_line_tells_how_often_its_key_was_refused_since_the_one_before,
                               set_up),
        cmocka_unit_test_setup(test_no_refusal_is_left_out_of_what_is_told, set_up),
        cmocka_unit_test_setup(test_flood_of_different_keys_does_not_fill_the_log, set_up),
        cmocka_unit_test_setup(test_fingerprint_is_the_first_16_digits, set_up),
    };
    return cmocka_run_group_tests(tests, make_principals, drop_principals);
}
