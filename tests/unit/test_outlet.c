/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/outlet.h"

static struct outlet outlet;
static int pipe_fds[2];

static int setup(void **unused)
{
    (void)unused;
    signal(SIGPIPE, SIG_IGN);
    if (pipe(pipe_fds) != 0) {
        return -1;
    }
    outlet_init(&outlet, pipe_fds[1]);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    outlet_reset(&outlet);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    return 0;
}

static void when_appended(char letter, size_t size)
{
    static uint8_t data[OUTLET_FULL_SIZE];

    memset(data, letter, size);
    assert_true(outlet_append(&outlet, (struct bytes){data, size}));
}

/* Were a write ever to wait for the reader, who is this thread, the test would not end. */
static void test_a_slow_reader_gets_every_byte_and_nobody_waits(void **unused)
{
    (void)unused;
    static char seen[4096];
    uint64_t seen_size = 0;

    for (int i = 0; i < 26; i++) {
        when_appended((char)('a' + i), 100003);
        outlet_write(&outlet);
    }
    assert_true(outlet_is_full(&outlet));
    while (seen_size < outlet.appended_size) {
        ssize_t got = read(pipe_fds[0], seen, sizeof(seen));

        assert_true(got > 0);
        for (ssize_t i = 0; i < got; i++) {
            assert_int_equal(seen[i], 'a' + (int)((seen_size + (uint64_t)i) / 100003));
        }
        seen_size += (uint64_t)got;
        outlet_write(&outlet);
    }
    assert_true(outlet_is_empty(&outlet));
    assert_int_equal(seen_size, 26 * 100003);
    assert_int_equal(outlet.error, 0);
}

static void test_a_reader_that_left_is_an_error_and_no_signal(void **unused)
{
    (void)unused;
    close(pipe_fds[0]);
    when_appended('x', 10);
    outlet_write(&outlet);
    assert_int_equal(outlet.error, EPIPE);
    assert_int_equal(outlet.written_size, 0);
    outlet_write(&outlet);
    assert_int_equal(outlet.error, EPIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_slow_reader_gets_every_byte_and_nobody_waits, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_reader_that_left_is_an_error_and_no_signal, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
