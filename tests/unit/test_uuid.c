/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "common/base/prng.h"
#include "common/base/uuid.h"

static void test_version_7_is_laid_out_as_rfc_9562_shows(void **unused)
{
    (void)unused;
    /* The example of RFC 9562, A.6. */
    const uint8_t random[10] = {0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f};
    struct treadle_task_id id;
    char text[UUID_TEXT_SIZE];
    uuid_v7(&id, 0x017f22e279b0, random);
    uuid_print(&id, text);
    assert_string_equal(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
}

static void test_random_bits_never_touch_version_and_variant(void **unused)
{
    (void)unused;
    for (int byte = 0; byte < 256; byte++) {
        uint8_t random[10];
        struct treadle_task_id id;
        memset(random, byte, sizeof(random));
        uuid_v7(&id, UINT64_MAX, random);
        assert_int_equal(id.bytes[6] >> 4, 7);
        assert_int_equal(id.bytes[8] >> 6, 2);
    }
}

static void test_later_ids_sort_later(void **unused)
{
    (void)unused;
    const uint8_t high[10] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const uint8_t low[10] = {0};
    struct treadle_task_id earlier;
    struct treadle_task_id later;
    uuid_v7(&earlier, 0x01ff, high);
    uuid_v7(&later, 0x0200, low);
    assert_true(memcmp(&earlier, &later, sizeof(earlier)) < 0);
}

static void test_printed_ids_read_back_in_either_case(void **unused)
{
    (void)unused;
    struct prng prng;
    prng_seed(&prng, 1);
    for (int i = 0; i < 1000; i++) {
        struct treadle_task_id id;
        struct treadle_task_id again;
        char text[UUID_TEXT_SIZE];
        for (int b = 0; b < 16; b++) {
            id.bytes[b] = (uint8_t)prng_next(&prng);
        }
        uuid_print(&id, text);
        assert_int_equal(strlen(text), 36);
        assert_true(uuid_parse(text, &again));
        assert_memory_equal(&again, &id, sizeof(id));
        for (char *c = text; *c != '\0'; c++) {
            *c = (char)(*c >= 'a' && *c <= 'f' ? *c - 'a' + 'A' : *c);
        }
        memset(&again, 0, sizeof(again));
        assert_true(uuid_parse(text, &again));
        assert_memory_equal(&again, &id, sizeof(id));
    }
}

static void test_what_is_no_id_is_refused(void **unused)
{
    (void)unused;
    const char *const texts[] = {"",
                                 "017f22e2",
                                 "017f22e279b07cc398c4dc0c0c07398f",
                                 "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
                                 "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
                                 "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
                                 "017f22e2-79b0-7cc3-98c4-dc0c0c07398f ",
                                 " 017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                                 "017f22e27-9b0-7cc3-98c4-dc0c0c07398f",
                                 "{17f22e2-79b0-7cc3-98c4-dc0c0c07398}",
                                 "017f22e2_79b0_7cc3_98c4_dc0c0c07398f"};
    const struct treadle_task_id before = {{1, 2, 3}};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct treadle_task_id id = before;
        if (uuid_parse(texts[i], &id)) {
            fail_msg("'%s' was accepted", texts[i]);
        }
        assert_memory_equal(&id, &before, sizeof(id));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_7_is_laid_out_as_rfc_9562_shows),
        cmocka_unit_test(test_random_bits_never_touch_version_and_variant),
        cmocka_unit_test(test_later_ids_sort_later),
        cmocka_unit_test(test_printed_ids_read_back_in_either_case),
        cmocka_unit_test(test_what_is_no_id_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
