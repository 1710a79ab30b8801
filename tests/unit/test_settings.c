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
#include <sys/stat.h>
#include <unistd.h>

#include "client/cli/settings.h"

#define DIGITS "bb88471d65e2659b30c55a5321cebb5aab2b70a398645c26dca2b2fcb43fc518"

static struct settings settings;
static struct conf_mistakes mistakes;
static char path[] = "/tmp/treadle-settings-XXXXXX";

static void when_a_file_is_read(const char *text)
{
    (void)snprintf(path, sizeof(path), "/tmp/treadle-settings-XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd != -1);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    settings_read(&settings, path, "/home/me", &mistakes);
    (void)unlink(path);
}

static int begin(void **unused)
{
    (void)unused;
    memset(&mistakes, 0, sizeof(mistakes));
    return 0;
}

static int end(void **unused)
{
    (void)unused;
    settings_reset(&settings);
    return 0;
}

static void then_a_mistake_is(uint32_t line, const char *text)
{
    for (uint32_t i = 0; i < mistakes.count; i++) {
        if (mistakes.at[i].line == line && strstr(mistakes.at[i].text, text) != NULL) {
            return;
        }
    }
    fail_msg("line %u has no mistake '%s'; there are %u, the first: %s", line, text, mistakes.count,
             mistakes.at[0].text);
}

static void test_file_that_is_not_there_says_nothing(void **unused)
{
    (void)unused;
    settings_read(&settings, "/tmp/treadle-settings-none", NULL, &mistakes);
    settings_read(&settings, "/dev/null/treadle.conf", NULL, &mistakes);
    assert_int_equal(mistakes.count, 0);
    assert_null(settings.broker);
    assert_null(settings.identity);
    assert_null(settings.server_key);
}

static void test_all_keys_are_read(void **unused)
{
    (void)unused;
    when_a_file_is_read("# mine\n"
                        "broker = \"tcp://a:7330\"\n"
                        "identity = '~/keys/me.key'\n"
                        "server_key = none\n");
    assert_int_equal(mistakes.count, 0);
    assert_string_equal(settings.broker, "tcp://a:7330");
    assert_string_equal(settings.identity, "/home/me/keys/me.key");
    assert_string_equal(settings.server_key, "none");
}

static void test_key_file_of_no_path_is_beside_the_file_that_names_it(void **unused)
{
    (void)unused;
    when_a_file_is_read("identity = me.key\nserver_key = keys/server.pub\n");
    assert_int_equal(mistakes.count, 0);
    assert_string_equal(settings.identity, "/tmp/me.key");
    assert_string_equal(settings.server_key, "/tmp/keys/server.pub");
    settings_reset(&settings);
    when_a_file_is_read("identity = none\nserver_key = " DIGITS "\n");
    assert_string_equal(settings.identity, "/tmp/none"); /* a file, here */
    assert_string_equal(settings.server_key, DIGITS);
}

static void test_endpoint_has_a_host_and_a_port(void **unused)
{
    (void)unused;
    static const char *const none[] = {
        "",         "a:1",          "tcp://",        "tcp://a",       "tcp://:1",
        "tcp://a:", "tcp://a:0",    "tcp://a:65536", "tcp://a:99999", "tcp://a:1x",
        "ipc://",   "tipc://{1,2}", "inproc://a",
    };
    static const char *const some[] = {"tcp://a:1",        "tcp://127.0.0.1:65535",
                                       "tcp://[::1]:7330", "tcp://127.0.0.1:*",
                                       "ipc:///run/x",     "ipc://@abstract"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        assert_false(settings_is_endpoint(none[i]));
    }
    for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++) {
        assert_true(settings_is_endpoint(some[i]));
    }
}

static void test_first_file_that_gives_a_key_counts(void **unused)
{
    (void)unused;
    when_a_file_is_read("broker = \"ipc:///own\"\n");
    when_a_file_is_read("broker = \"ipc:///system\"\nidentity = \"/etc/me.key\"\n");
    assert_int_equal(mistakes.count, 0);
    assert_string_equal(settings.broker, "ipc:///own");
    assert_string_equal(settings.identity, "/etc/me.key");
}

static void test_every_mistake_is_told_with_its_line(void **unused)
{
    (void)unused;
    when_a_file_is_read("brokr = \"tcp://a:1\"\n"
                        "broker = \"a:1\"\n"
                        "broker = \"tcp://a:1\"\n"
                        "identity = \"\"\n"
                        "server_key = {a, b}\n"
                        "colour = red\n"
                        "worker {\n"
                        "    slots = 4\n"
                        "}\n");
    assert_int_equal(mistakes.count, 7);
    then_a_mistake_is(1, "did you mean broker?");
    then_a_mistake_is(2, "expected an endpoint");
    then_a_mistake_is(3, "broker stands in line 2 already");
    then_a_mistake_is(4, "expected the name of a .key file");
    then_a_mistake_is(5, "a list; expected");
    then_a_mistake_is(6, "colour: no such key; expected one of treadle.conf(5)");
    then_a_mistake_is(7, "worker: a section, and there are none here");
    assert_null(settings.broker);
}

static void test_folder_in_its_place_is_a_mistake(void **unused)
{
    (void)unused;
    settings_read(&settings, "/tmp", NULL, &mistakes);
    then_a_mistake_is(0, "is a directory");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_file_that_is_not_there_says_nothing),
        TEST(test_all_keys_are_read),
        TEST(test_key_file_of_no_path_is_beside_the_file_that_names_it),
        TEST(test_endpoint_has_a_host_and_a_port),
        TEST(test_first_file_that_gives_a_key_counts),
        TEST(test_every_mistake_is_told_with_its_line),
        TEST(test_folder_in_its_place_is_a_mistake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
