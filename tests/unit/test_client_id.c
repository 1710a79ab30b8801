/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include <treadle/id.h>

static void test_new_ids_differ_and_are_read_as_they_are_written(void **unused)
{
    (void)unused;
    struct treadle_task_id last = {{0}};
    for (int i = 0; i < 1000; i++) {
        struct treadle_task_id id;
        struct treadle_task_id again;
        char text[TREADLE_ID_TEXT_SIZE];
        assert_int_equal(treadle_id_new(&id), TREADLE_OK);
        assert_memory_not_equal(id.bytes, last.bytes, sizeof(id.bytes));
        assert_int_equal(id.bytes[6] >> 4, 7); /* the version of a UUID */
        assert_ptr_equal(treadle_id_format(&id, text), text);
        assert_int_equal(strlen(text), TREADLE_ID_TEXT_SIZE - 1);
        assert_int_equal(treadle_id_parse(text, &again), TREADLE_OK);
        assert_memory_equal(id.bytes, again.bytes, sizeof(id.bytes));
        last = id;
    }
}

static void test_text_that_is_no_id_changes_nothing(void **unused)
{
    (void)unused;
    static const char *const texts[] = {NULL, "", "0190b0c4-1234-7abc-8def-0123456789a",
                                        "0190b0c4-1234-7abc-8def-0123456789abc",
                                        "0190b0c4x1234-7abc-8def-0123456789ab"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct treadle_task_id id = {{42}};
        assert_int_equal(treadle_id_parse(texts[i], &id), TREADLE_E_INVALID);
        assert_int_equal(id.bytes[0], 42);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_ids_differ_and_are_read_as_they_are_written),
        cmocka_unit_test(test_text_that_is_no_id_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
