/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include <treadle/status.h>

static void test_every_status_has_a_text_of_its_own(void **unused)
{
    (void)unused;
    for (int a = TREADLE_OK; a <= TREADLE_E_KEY; a++) {
        const char *text = treadle_status_text((enum treadle_status)a);
        assert_string_not_equal(text, "unknown status");
        for (int b = TREADLE_OK; b < a; b++) {
            assert_string_not_equal(text, treadle_status_text((enum treadle_status)b));
        }
    }
    assert_string_equal(treadle_status_text(TREADLE_OK), "ok");
}

static void test_number_that_is_no_status_has_a_text_too(void **unused)
{
    (void)unused;
    assert_string_equal(treadle_status_text((enum treadle_status)(TREADLE_E_KEY + 1)),
                        "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_status_has_a_text_of_its_own),
        cmocka_unit_test(test_number_that_is_no_status_has_a_text_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
