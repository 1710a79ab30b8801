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

#include "broker/core/core.h"
#include "broker/shell/config.h"
#include "common/base/prng.h"

static char folder[] = "/tmp/treadle-config-XXXXXX";
static char path[64];
static struct config config;
static struct config_source source;
static struct conf_mistakes mistakes;

static int make_folder(void **unused)
{
    (void)unused;
    (void)umask(022); /* a file that a group may write is refused */
    if (mkdtemp(folder) == NULL || chmod(folder, 0755) != 0) {
        return -1;
    }
    (void)snprintf(path, sizeof path, "%s/treadled.conf", folder);
    return 0;
}

static int remove_folder(void **unused)
{
    (void)unused;
    (void)unlink(path);
    return rmdir(folder);
}

static int set_up(void **unused)
{
    (void)unused;
    source = (struct config_source){.path = path};
    config_init(&source.given);
    return 0;
}

static void given_bytes(const void *bytes, size_t size)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void given_a_file(const char *text)
{
    given_bytes(text, strlen(text));
}

static bool when_it_is_loaded(void)
{
    return config_load(&config, &source, &mistakes);
}

static void print_mistakes(void)
{
    for (uint32_t i = 0; i < mistakes.count && i < CONF_MISTAKES_MAX; i++) {
        print_error("%u: %s\n", mistakes.at[i].line, mistakes.at[i].text);
    }
}

#define then_it_is_good()                                                                          \
    do {                                                                                           \
        const bool is_good = when_it_is_loaded();                                                  \
        print_mistakes();                                                                          \
        assert_true(is_good);                                                                      \
    } while (0)

/* Exactly one mistake, in this line, whose text has both parts. */
static bool is_the_mistake(uint32_t line, const char *what, const char *expected)
{
    const bool is_good = when_it_is_loaded();
    if (!is_good && mistakes.count == 1 && mistakes.at[0].line == line &&
        strstr(mistakes.at[0].text, what) != NULL &&
        strstr(mistakes.at[0].text, expected) != NULL) {
        return true;
    }
    print_mistakes();
    print_error("not the one mistake %u: %s ... %s\n", line, what, expected);
    return false;
}

#define then_the_mistake_is(line, what, expected) assert_true(is_the_mistake(line, what, expected))

/* ---- good files ---- */

static void test_no_file_gives_the_defaults(void **unused)
{
    (void)unused;
    source.path = NULL;
    then_it_is_good();
    struct core_config core;
    struct core_config defaults;
    config_to_core(&config, &core);
    core_config_init(&defaults);
    assert_int_equal(core.task_count_max, defaults.task_count_max);
    assert_int_equal(core.attempt_count_max, defaults.attempt_count_max);
    assert_int_equal(core.connection_count_max, defaults.connection_count_max);
    assert_int_equal(core.queue_count_max, defaults.queue_count_max);
    assert_int_equal(core.byte_max, defaults.byte_max);
    assert_int_equal(core.settled_byte_max, defaults.settled_byte_max);
    assert_int_equal(core.settled_count_max, defaults.settled_count_max);
    assert_int_equal(core.remembered_count_max, defaults.remembered_count_max);
    assert_int_equal(core.session_count_max, defaults.session_count_max);
    assert_int_equal(core.service_count_max, defaults.service_count_max);
    assert_int_equal(core.body_size_max, defaults.body_size_max);
    assert_int_equal(core.entry_count_max, defaults.entry_count_max);
    assert_int_equal(core.heartbeat_ms, defaults.heartbeat_ms);
    assert_int_equal(core.liveness, defaults.liveness);
    assert_int_equal(core.resume_grace_ms, defaults.resume_grace_ms);
    assert_int_equal(core.dedup_window_ms, defaults.dedup_window_ms);
    assert_int_equal(core.dead_letter_ttl_ms, defaults.dead_letter_ttl_ms);
    for (int field = 0; field < POLICY_FIELD_COUNT; field++) {
        assert_int_equal(core.broker_policy.value[field], 0); /* their origin stays "default" */
    }
}

static void test_empty_file_and_comments_are_good(void **unused)
{
    (void)unused;
    given_a_file("");
    then_it_is_good();
    given_a_file("\n\n   \t\n");
    then_it_is_good();
    given_a_file(
        "# max_tasks = no\n// liveness = \"\n/* heartbeat =\n { */\nliveness = 5 # five\n");
    then_it_is_good();
    assert_int_equal(config.value[CONFIG_LIVENESS], 5);
    assert_int_equal(config.line[CONFIG_LIVENESS], 5);
    given_a_file("liveness = 5"); /* no newline at its end */
    then_it_is_good();
}

static void test_every_type_is_read(void **unused)
{
    (void)unused;
    given_a_file("listen = {\"ipc:///tmp/a.sock\",\n  'tcp://127.0.0.1:*', # loopback\n"
                 "  \"tcp://[::1]:7330\"}\r\n"
                 "insecure = true\n"
                 "log_level=debug\n"
                 "log_format = \"json\"\n"
                 "\tmax_tasks\t=\t'5000'\r\n"
                 "max_body = 64MiB\n"
                 "memory_max = 8GiB\n"
                 "heartbeat = 500ms\n"
                 "backoff_factor = 1.5\n"
                 "timeout = 1h\n");
    then_it_is_good();
    assert_int_equal(config.listen_count, 3);
    assert_string_equal(config.listen[0].text, "ipc:///tmp/a.sock");
    assert_string_equal(config.listen[1].text, "tcp://127.0.0.1:*");
    assert_string_equal(config.listen[2].text, "tcp://[::1]:7330");
    assert_int_equal(config.value[CONFIG_INSECURE], 1);
    assert_int_equal(config.value[CONFIG_LOG_LEVEL], LOG_LEVEL_DEBUG);
    assert_int_equal(config.value[CONFIG_LOG_FORMAT], CONFIG_FORMAT_JSON);
    assert_int_equal(config.value[CONFIG_MAX_TASKS], 5000);
    assert_int_equal(config.value[CONFIG_MAX_BODY], UINT64_C(64) << 20);
    assert_int_equal(config.value[CONFIG_MEMORY_MAX], UINT64_C(8) << 30);
    assert_int_equal(config.value[CONFIG_HEARTBEAT], 500);
    assert_int_equal(config.value[CONFIG_BACKOFF_FACTOR], 1500);
    assert_int_equal(config.value[CONFIG_TIMEOUT], 3600000);
    assert_int_equal(config.line[CONFIG_INSECURE], 4);
    assert_int_equal(config.line[CONFIG_TIMEOUT], 12);
    struct policy_fields policy;
    config_to_policy(&config, &policy);
    assert_int_equal(policy.value[POLICY_BACKOFF_FACTOR], 1500);
    assert_int_equal(policy.value[POLICY_TIMEOUT], 3600000);
    assert_int_equal(policy.value[POLICY_GRACE], 0);
}

static void test_one_endpoint_needs_no_braces(void **unused)
{
    (void)unused;
    given_a_file("listen = \"ipc:///tmp/a.sock\"\n");
    then_it_is_good();
    assert_int_equal(config.listen_count, 1);
    assert_string_equal(config.listen[0].text, "ipc:///tmp/a.sock");
}

static void then_endpoint_is(uint32_t index, const char *text, uint32_t rights)
{
    assert_true(index < config.listen_count);
    assert_string_equal(config.listen[index].text, text);
    assert_int_equal(config_rights(&config, index), rights);
}

static void test_one_endpoint_is_for_all_roles(void **unused)
{
    (void)unused;
    given_a_file("listen = {\"ipc:///a\", \"ipc:///b\"}\n");
    then_it_is_good();
    assert_int_equal(config.listen_count, 2);
    then_endpoint_is(0, "ipc:///a", RIGHT_ALL);
    then_endpoint_is(1, "ipc:///b", RIGHT_ALL);
}

static void test_what_has_endpoints_of_its_own_is_done_over_these_only(void **unused)
{
    (void)unused;
    given_a_file("listen_admin = \"ipc:///admin\"\nlisten_workers = {\"ipc:///w1\", "
                 "\"ipc:///w2\"}\nlisten = \"ipc:///all\"\n");
    then_it_is_good();
    assert_int_equal(config.listen_count, 4); /* those of listen first */
    then_endpoint_is(0, "ipc:///all", RIGHT_SUBMIT);
    then_endpoint_is(1, "ipc:///w1", RIGHT_WORK);
    then_endpoint_is(2, "ipc:///w2", RIGHT_WORK);
    then_endpoint_is(3, "ipc:///admin", RIGHT_ADMIN);
    given_a_file("listen_admin = \"ipc:///admin\"\n");
    then_it_is_good();
    assert_int_equal(config.listen_count, 2); /* and the default, for the others */
    then_endpoint_is(0, "ipc:///run/treadle/treadled.sock", RIGHT_SUBMIT | RIGHT_WORK);
    then_endpoint_is(1, "ipc:///admin", RIGHT_ADMIN);
    given_a_file("listen_workers = \"ipc:///w\"\n");
    then_it_is_good();
    then_endpoint_is(0, "ipc:///run/treadle/treadled.sock", RIGHT_SUBMIT | RIGHT_ADMIN);
    then_endpoint_is(1, "ipc:///w", RIGHT_WORK);
}

static void test_endpoints_of_flags_replace_those_of_listen_only(void **unused)
{
    (void)unused;
    given_a_file("listen = {\"ipc:///a\", \"ipc:///b\"}\nlisten_admin = \"ipc:///admin\"\n");
    assert_true(config_take_endpoint(&source.given, "ipc:///c"));
    then_it_is_good();
    assert_int_equal(config.listen_count, 2);
    then_endpoint_is(0, "ipc:///c", RIGHT_SUBMIT | RIGHT_WORK);
    then_endpoint_is(1, "ipc:///admin", RIGHT_ADMIN);
    for (int i = 1; i < (int)ENDPOINT_COUNT_MAX; i++) {
        assert_true(config_take_endpoint(&source.given, "ipc:///d"));
    }
    assert_false(when_it_is_loaded()); /* one too many in all */
    assert_int_equal(mistakes.count, 1);
    assert_non_null(strstr(mistakes.at[0].text, "one endpoint too many"));
    assert_int_equal(mistakes.at[0].line, 2);
}

static void test_what_was_given_goes_before_the_file(void **unused)
{
    (void)unused;
    char why[CONF_TEXT_SIZE];
    given_a_file("log_level = error\nlisten = \"ipc:///tmp/a.sock\"\nliveness = 4\n");
    assert_true(config_set(&source.given, CONFIG_LOG_LEVEL, "debug", CONF_LINE_GIVEN, why));
    assert_true(
        config_set(&source.given, CONFIG_LISTEN, "ipc:///tmp/b.sock", CONF_LINE_GIVEN, why));
    then_it_is_good();
    assert_int_equal(config.value[CONFIG_LOG_LEVEL], LOG_LEVEL_DEBUG);
    assert_int_equal(config.value[CONFIG_LIVENESS], 4);
    assert_int_equal(config.listen_count, 1);
    assert_string_equal(config.listen[0].text, "ipc:///tmp/b.sock");
}

static void test_broker_for_trying_out_warns_only_unless_told(void **unused)
{
    (void)unused;
    source.is_dev = true;
    given_a_file("listen = \"tcp://127.0.0.1:7330\"\n");
    then_it_is_good();
    assert_int_equal(config.value[CONFIG_LOG_LEVEL], LOG_LEVEL_WARN);
    given_a_file("log_level = info\n");
    then_it_is_good();
    assert_int_equal(config.value[CONFIG_LOG_LEVEL], LOG_LEVEL_INFO);
}

static void test_every_key_takes_its_least_and_its_greatest_and_nothing_beyond(void **unused)
{
    (void)unused;
    static const struct {
        enum config_key key;
        const char *good[2];
        const char *bad[2];
    } cases[] = {
        {CONFIG_MAX_TASKS, {"16", "10000000"}, {"15", "10000001"}},
        {CONFIG_MAX_BODY, {"1KiB", "64MiB"}, {"1023B", "67108865B"}},
        {CONFIG_HEARTBEAT, {"100ms", "1m"}, {"99ms", "60001ms"}},
        {CONFIG_BACKOFF_FACTOR, {"1", "1000"}, {"0.999", "1000.001"}},
        {CONFIG_ATTEMPTS, {"1", "1000"}, {"0", "1001"}},
        {CONFIG_DRAIN_TIMEOUT, {"0", "1d"}, {"-1s", "2d"}},
        {CONFIG_LOG_LEVEL, {"debug", "error"}, {"0", "Debug"}},
        {CONFIG_LOG_FORMAT, {"auto", "journal"}, {"xml", ""}},
        {CONFIG_INSECURE, {"true", "false"}, {"yes", "1"}},
    };
    char why[CONF_TEXT_SIZE];
    config_init(&config);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int j = 0; j < 2; j++) {
            assert_true(config_set(&config, cases[i].key, cases[i].good[j], 1, why));
            assert_false(config_set(&config, cases[i].key, cases[i].bad[j], 1, why));
            assert_non_null(strstr(why, "; expected "));
        }
    }
}

/* ---- mistakes ---- */

static const struct {
    uint32_t line;
    const char *text;
    const char *what;
    const char *expected;
} mistake_cases[] = {
    /* keys */
    {2, "\nmax_task = 5\n", "max_task: no such key", "did you mean max_tasks?"},
    {1, "colour = blue\n", "colour: no such key", "expected one of treadled.conf(5)"},
    {3, "liveness = 3\n\nliveness = 4\n", "liveness stands in line 1 already", "expected it once"},
    {2, "listen = {\"ipc:///a\"}\nlisten = {\"ipc:///b\"}\n", "listen stands in line 1 already",
     "expected it once"},
    {1, "liveness = 3 heartbeat = 1s\n", "two settings in one line", "expected one a line"},
    {1, "liveness = 3 heartbeat\n", "liveness: more behind its value",
     "expected one setting a line"},
    /* form */
    {2, "# one\nheartbeat 1s\nliveness = 3\n", "heartbeat: no '='", "expected heartbeat = VALUE"},
    {1, "heartbeat\nliveness = 3\n", "heartbeat: no '='", "expected heartbeat = VALUE"},
    {1, "heartbeat =\nliveness = 3\n", "heartbeat: no value",
     "expected a span from 100ms to 1m, such as"},
    {1, "heartbeat = # none\n", "heartbeat: no value", "expected a span"},
    {1, "= 5\n", "unexpected =", "expected NAME = VALUE"},
    {1, "heartbeat = {1s}\n", "heartbeat: a list", "expected a span"},
    {1, "heartbeat { }\n", "heartbeat: no '='", "expected heartbeat = VALUE"},
    {2, "liveness = 3\n}\nheartbeat = 2s\n", "unexpected }", "expected NAME = VALUE"},
    {1, "heartbeat = = 1s\n", "heartbeat: no value", "expected a span"},
    {1, "heartbeat += 1s\n", "unexpected character +", "expected NAME = VALUE"},
    {1, "include(\"/etc/passwd\")\n", "unexpected character (", "expected NAME = VALUE"},
    /* lists and strings that are not closed */
    {2, "\nlisten = {\"ipc:///a\"\nliveness = 3\n", "a list is not closed", "expected }"},
    {1, "listen = {\"ipc:///a\",\n  \"ipc:///b\"\n", "a list is not closed", "expected }"},
    {2, "\nlog_level = \"info\nliveness = 3\n", "a string is not closed", "second quote"},
    {1, "log_level = 'info", "a string is not closed", "second quote"},
    {2, "liveness = 3\n/* heartbeat = 1s\n", "a comment is not closed", "expected */"},
    {1, "listen = {}\n", "listen: an empty list", "expected {\"ENDPOINT\", ...}"},
    {1, "listen =\n", "listen: no value", "expected {\"ENDPOINT\", ...}"},
    /* values */
    {1, "heartbeat = 5\n", "heartbeat: \"5\" is not understood", "a span from 100ms to 1m"},
    {1, "heartbeat = 1.5s\n", "heartbeat: 1.5s is not understood", "a span"},
    {1, "heartbeat = \"1 s\"\n", "heartbeat: \"1 s\" is not understood", "a span"},
    {1, "heartbeat = 1ms\n", "heartbeat: 1ms is too small", "from 100ms to 1m"},
    {1, "heartbeat = 1d\n", "heartbeat: 1d is too large", "from 100ms to 1m"},
    {1, "max_body = 4MB\n", "max_body: 4MB is not understood", "a size from 1KiB to 64MiB"},
    {1, "max_body = 4096\n", "max_body: \"4096\" is not understood", "a size from"},
    {1, "max_body = 1GiB\n", "max_body: 1GiB is too large", "from 1KiB to 64MiB"},
    {1, "max_tasks = 1_000_000\n", "max_tasks: 1_000_000 is not understood",
     "a whole number from 16 to 10000000"},
    {1, "max_tasks = many\n", "max_tasks: many is not understood", "a whole number"},
    {1, "max_tasks = 0\n", "max_tasks: \"0\" is too small", "from 16 to"},
    {1, "max_tasks = 99999999999999999999\n", "max_tasks", "from 16 to 10000000"},
    {1, "max_tasks = \"\"\n", "max_tasks: \"\" is not understood", "a whole number"},
    {1, "insecure = yes\n", "insecure: yes is not understood", "true or false"},
    {1, "log_level = verbose\n", "log_level: verbose is not understood",
     "debug, info, warn or error"},
    {1, "log_format = xml\n", "log_format: xml is not understood", "auto, text, json or journal"},
    {1, "backoff_factor = 2,5\n", "backoff_factor: more behind its value", "one setting"},
    {1, "backoff_factor = '2,5'\n", "backoff_factor: 2,5 is not", "a factor from 1 to 1000"},
    {1, "backoff_factor = .5\n", "backoff_factor: .5 is not understood", "a factor"},
    {1, "log_level = \"${HOME}\"\n", "${...} is not expanded", "single quotes"},
    {1, "log_level = \"in\\x66o\"\n", "a backslash in a string", "expected"},
    {1, "log_level = ${HOME}\n", "unexpected character $", "expected NAME = VALUE"},
    /* endpoints */
    {1, "listen = \"udp://127.0.0.1:1\"\n", "udp://127.0.0.1:1 is not an endpoint",
     "ipc:///PATH or tcp://HOST:PORT"},
    {1, "listen = \"ipc://run/a.sock\"\n", "is not an endpoint", "a path from the root"},
    {1, "listen = \"tcp://127.0.0.1\"\n", "is not an endpoint", "tcp://HOST:PORT"},
    {1, "listen = \"tcp://127.0.0.1:http\"\n", "is not an endpoint", "a port from 1 to 65535"},
    {1, "listen = \"tcp://127.0.0.1:0\"\n", "is not an endpoint", "a port from 1 to 65535"},
    {1, "listen = \"tcp://127.0.0.1:65536\"\n", "is not an endpoint", "a port from 1"},
    {3, "listen = {\"ipc:///a\",\n\"ipc:///b\",\n\"here\"}\n", "here is not an endpoint",
     "ipc:///PATH"},
    {1, "listen = {\"ipc:///a\", \"ipc:///a\"}\n", "ipc:///a stands there twice",
     "expected it once"},
    {1, "listen = \"tcp://127.0.0.1:7330\"\n", "TCP without keys lets in every user",
     "insecure = true"},
    {2, "insecure = true\nlisten = \"tcp://10.0.0.1:7330\"\n", "refused off the loopback",
     "expected server_key and principals beside it, tcp://127.0.0.1:PORT"},
    {1, "listen = \"tcp://10.0.0.1:7330\"\nprincipals = who\n", "refused off the loopback",
     "expected server_key"},
    {2, "server_key = a.key\nlisten = \"tcp://10.0.0.1:7330\"\n", "nobody may come in",
     "expected principals = FILE"},
    {1, "listen = \"tcp://127.0.0.1:7330 a.key\"\n", "nobody may come in",
     "expected principals = FILE"},
    {1, "listen = \"ipc:///a a.key\"\n", "ipc takes no key", "expected ipc:///a alone"},
    {2, "server_key = a.key\ninsecure = true\n", "contradict each other", "one of them"},
    {2, "listen_workers = \"ipc:///a\"\nlisten_admin = \"ipc:///a\"\n",
     "listen_admin: ipc:///a stands there twice", "expected it once"},
    {2, "listen_workers = \"ipc:///a\"\nlisten = \"ipc:///a\"\n", "stands there twice",
     "expected it once"},
    {2, "insecure = true\nlisten_admin = \"tcp://127.0.0.1:7330\"\n",
     "listen_admin: tcp://127.0.0.1:7330: nobody administers over TCP without keys",
     "expected server_key and principals"},
    {1, "listen_workers = \"tcp://127.0.0.1:7330\"\n",
     "listen_workers: tcp://127.0.0.1:7330: TCP without keys lets in every user",
     "insecure = true"},
    {1, "listen_workers = \"here\"\n", "listen_workers: here is not an endpoint", "ipc:///PATH"},
    {1, "server_key = ''\n", "server_key: no name", "the name of a file"},
    /* what does not go together */
    {2, "backoff_max = 1s\nbackoff_base = 2s\n", "backoff_base = 2s is over backoff_max = 1s",
     "at most 1s"},
    {1, "backoff_base = 10m\n", "backoff_base = 10m is over backoff_max = 5m", "at most 5m"},
    {2, "heartbeat = 1m\nliveness = 11\n", "heartbeat times liveness is 11m", "at most 10m"},
    {3, "heartbeat = 100ms\nliveness = 2\nresume_grace = 1s\n", "resume_grace is over",
     "at most 200ms"},
    {2, "max_body = 8MiB\nmax_task_bytes = 4MiB\n", "max_body = 8MiB is over max_task_bytes = 4MiB",
     "at most 4MiB"},
    {1, "memory_max = 1GiB\n", "max_task_bytes = 4GiB is over memory_max = 1GiB", "at most 1GiB"},
    {2, "deadline = 1m\nqueue_timeout = 2m\n", "queue_timeout = 2m is over deadline = 1m",
     "at most 1m"},
    {1, "progress_timeout = 6m\n", "progress_timeout = 6m is over timeout = 5m", "at most 5m"},
};

static void test_endpoint_has_the_server_key_or_one_of_its_own(void **unused)
{
    (void)unused;
    char expected[128];
    given_a_file("server_key = 'old.key'\nprincipals = /etc/treadle/principals\n"
                 "listen = {\"tcp://10.0.0.1:7330\", \"tcp://10.0.0.1:7331  new.key\", "
                 "\"tcp://10.0.0.1:7332 /etc/other.key\", \"ipc:///a\"}\n");
    then_it_is_good();
    (void)snprintf(expected, sizeof expected, "%s/old.key", folder); /* beside the file */
    assert_string_equal(config_server_key(&config, 0), expected);
    assert_string_equal(config.listen[1].text, "tcp://10.0.0.1:7331");
    (void)snprintf(expected, sizeof expected, "%s/new.key", folder);
    assert_string_equal(config_server_key(&config, 1), expected);
    assert_string_equal(config_server_key(&config, 2), "/etc/other.key");
    assert_string_equal(config_server_key(&config, 3), "");
    assert_string_equal(config.principals, "/etc/treadle/principals");
}

static void test_each_mistake_is_told_with_its_line(void **unused)
{
    (void)unused;
    const size_t count = sizeof mistake_cases / sizeof mistake_cases[0];
    for (size_t i = 0; i < count; i++) {
        given_a_file(mistake_cases[i].text);
        then_the_mistake_is(mistake_cases[i].line, mistake_cases[i].what,
                            mistake_cases[i].expected);
    }
    assert_true(count >= 20);
}

static void test_all_mistakes_of_a_file_are_told_in_order_of_their_lines(void **unused)
{
    (void)unused;
    given_a_file("max_body = 4MiB\n"
                 "max_task = 5\n"
                 "heartbeat\n"
                 "log_level = \"info\n"
                 "listen = {\"ipc:///a\"\n"
                 "liveness = 1\n"
                 "backoff_base = 6m\n"
                 "max_body = 5MiB\n"
                 "dead_letter_ttl = soon\n");
    assert_false(when_it_is_loaded());
    static const uint32_t lines[] = {2, 3, 4, 5, 6, 7, 8, 9};
    print_mistakes();
    assert_int_equal(mistakes.count, sizeof lines / sizeof lines[0]);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        assert_int_equal(mistakes.at[i].line, lines[i]);
    }
}

static void test_more_mistakes_than_are_kept_are_counted(void **unused)
{
    (void)unused;
    char text[2048] = "";
    for (uint32_t i = 0; i < 2 * CONF_MISTAKES_MAX; i++) {
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "colour%u = blue\n", i);
    }
    given_a_file(text);
    assert_false(when_it_is_loaded());
    assert_int_equal(mistakes.count, 2 * CONF_MISTAKES_MAX);
    assert_int_equal(mistakes.at[CONF_MISTAKES_MAX - 1].line, CONF_MISTAKES_MAX);
}

static void test_too_many_endpoints_are_a_mistake(void **unused)
{
    (void)unused;
    char text[1024] = "listen = {\n";
    for (uint32_t i = 0; i < ENDPOINT_COUNT_MAX + 1; i++) {
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "\"ipc:///a%u\",\n", i);
    }
    (void)snprintf(text + strlen(text), sizeof text - strlen(text), "}\n");
    given_a_file(text);
    then_the_mistake_is(ENDPOINT_COUNT_MAX + 2, "one endpoint too many", "at most 8");
}

static void test_mistake_is_printed_with_file_and_line(void **unused)
{
    (void)unused;
    char text[CONF_TEXT_SIZE];
    struct conf_mistake mistake = {.line = 7, .text = "what; expected that"};
    conf_print_mistake(text, sizeof text, "a.conf", &mistake);
    assert_string_equal(text, "a.conf:7: what; expected that");
    mistake.line = 0;
    conf_print_mistake(text, sizeof text, "a.conf", &mistake);
    assert_string_equal(text, "a.conf: what; expected that");
}

static void test_what_a_person_wrote_is_quoted_where_it_could_deceive(void **unused)
{
    (void)unused;
    given_a_file("log_level = \"\xe2\x80\xaeinfo\"\n");
    then_the_mistake_is(1, "log_level: \"\\xe2\\x80\\xaeinfo\" is not understood", "expected");
    given_bytes("log_level = \"a\x1b[2J\"\n", 19);
    then_the_mistake_is(1, "a control character in a string", "expected text");
}

/* ---- files that are none ---- */

static void test_missing_file_is_a_mistake(void **unused)
{
    (void)unused;
    (void)unlink(path);
    then_the_mistake_is(0, "cannot be read: No such file", "expected a file");
}

static void test_folder_is_a_mistake(void **unused)
{
    (void)unused;
    source.path = folder;
    then_the_mistake_is(0, "is a directory", "expected a file");
}

static void test_pipe_is_a_mistake_and_nobody_waits_for_its_writer(void **unused)
{
    (void)unused;
    (void)unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    then_the_mistake_is(0, "is not a regular file", "expected a file");
    (void)unlink(path);
}

static void test_file_that_may_not_be_read_is_a_mistake(void **unused)
{
    (void)unused;
    const uid_t user = geteuid();
    given_a_file("liveness = 3\n");
    assert_int_equal(chmod(path, 0), 0);
    assert_true(user != 0 || seteuid(65534) == 0);
    const bool is_good = when_it_is_loaded();
    assert_int_equal(seteuid(user), 0);
    (void)unlink(path);
    assert_false(is_good);
    assert_int_equal(mistakes.at[0].line, 0);
    assert_non_null(strstr(mistakes.at[0].text, "cannot be read: Permission denied"));
}

static void test_file_that_others_may_write_is_a_mistake(void **unused)
{
    (void)unused;
    given_a_file("");
    assert_int_equal(chmod(path, 0664), 0);
    then_the_mistake_is(0, "may be written by others", "only its owner may write");
    assert_int_equal(chmod(path, 0644), 0);
    then_it_is_good();
}

static void test_binary_file_is_a_mistake_in_the_line_of_its_first_zero(void **unused)
{
    (void)unused;
    given_bytes("\x7f"
                "ELF\n\n\0\0\1",
                9);
    then_the_mistake_is(3, "a zero byte", "expected a text file");
    given_bytes("liveness = 3\n\x01\x02\x03\n", 17);
    then_the_mistake_is(2, "unexpected character \"\\x01\"", "expected NAME = VALUE");
}

static void test_file_over_its_limit_is_a_mistake(void **unused)
{
    (void)unused;
    given_a_file("");
    assert_int_equal(truncate(path, CONF_FILE_SIZE_MAX + 1), 0);
    then_the_mistake_is(0, "is too large", "at most 1MiB");
}

/* ---- reload ---- */

static void test_only_what_may_change_is_taken_at_a_reload(void **unused)
{
    (void)unused;
    struct config fresh;
    source.path = NULL;
    then_it_is_good();
    fresh = config;
    assert_int_equal(config_take_reloaded(&config, &fresh), 0);
    fresh.value[CONFIG_ATTEMPTS] = 7;
    fresh.value[CONFIG_DRAIN_TIMEOUT] = 1;
    fresh.value[CONFIG_MAX_TASKS] = 77;
    log_open(LOG_LEVEL_ERROR, NULL);
    assert_int_equal(config_take_reloaded(&config, &fresh), 2);
    log_open(LOG_LEVEL_INFO, NULL);
    assert_int_equal(config.value[CONFIG_ATTEMPTS], 7);
    assert_int_equal(config.value[CONFIG_DRAIN_TIMEOUT], 1);
    assert_int_equal(config.value[CONFIG_MAX_TASKS], 1000000);
}

static char fixed[1024]; /* what config.fixed was logged of */

static bool note_fixed(const struct log_line *line)
{
    const size_t size = strlen(fixed);
    (void)snprintf(fixed + size, sizeof fixed - size, "%s %s\n", line->event, line->fields);
    return true;
}

static void test_what_waits_for_the_next_start_is_told_at_each_reload(void **unused)
{
    (void)unused;
    struct config fresh;
    given_a_file("listen = \"ipc:///a\"\n");
    then_it_is_good();
    fresh = config;
    given_a_file("listen = \"ipc:///b\"\nlisten_workers = \"ipc:///w\"\nlisten_admin = "
                 "\"ipc:///c\"\nserver_key = a.key\nprincipals = who\n");
    then_it_is_good();
    for (int i = 0; i < 2; i++) {
        fixed[0] = '\0';
        log_open(LOG_LEVEL_INFO, note_fixed);
        assert_int_equal(config_take_reloaded(&fresh, &config), i == 0 ? 1 : 0); /* principals */
        log_open(LOG_LEVEL_INFO, NULL);
        assert_non_null(strstr(fixed, "config.fixed key=listen "));
        assert_non_null(strstr(fixed, "config.fixed key=listen_workers "));
        assert_non_null(strstr(fixed, "config.fixed key=listen_admin "));
        assert_non_null(strstr(fixed, "config.fixed key=server_key "));
        assert_null(strstr(fixed, "key=principals"));
    }
    assert_string_equal(fresh.listen[0].text, "ipc:///a");
    assert_string_equal(fresh.server_key, "");
}

/* ---- whatever the bytes ---- */

static const char sample[] = "# a comment\nlisten = {\"ipc:///tmp/a.sock\", 'ipc:///tmp/b.sock'}\n"
                             "/* two\n lines */ log_level = info\nmax_body = 4MiB // mebibytes\n"
                             "heartbeat = \"1s\"\nbackoff_factor = 1.5\ninsecure = false\n";

static size_t mutate(struct prng *prng, char *text, size_t size, size_t size_max)
{
    static const char marks[] = "\"'{}=,#/*\\$\n\r\t ()+[]:;.-_a0\x01\xff";
    const uint64_t times = prng_between(prng, 1, 8);
    for (uint64_t i = 0; i < times && size > 0; i++) {
        const size_t at = prng_below(prng, size);
        const uint64_t what = prng_below(prng, 4);
        if (what == 0) {
            memmove(text + at, text + at + 1, size - at - 1);
            size--;
        } else if (what == 1 && size < size_max) {
            memmove(text + at + 1, text + at, size - at);
            text[at] = marks[prng_below(prng, sizeof marks - 1)];
            size++;
        } else if (what == 2) {
            text[at] = marks[prng_below(prng, sizeof marks - 1)];
        } else {
            size = prng_below(prng, 8) == 0 ? at : size;
        }
    }
    return size;
}

static void test_whatever_the_bytes_it_is_good_or_says_what_is_wrong(void **unused)
{
    (void)unused;
    struct prng prng;
    uint32_t good_count = 0;
    prng_seed(&prng, 1);
    for (int i = 0; i < 1000; i++) {
        char text[sizeof sample + 16];
        memcpy(text, sample, sizeof sample - 1);
        given_bytes(text, mutate(&prng, text, sizeof sample - 1, sizeof text));
        const bool is_good = when_it_is_loaded();
        assert_int_equal(is_good, mistakes.count == 0);
        good_count += is_good ? 1 : 0;
        for (uint32_t j = 0; j < mistakes.count && j < CONF_MISTAKES_MAX; j++) {
            assert_true(mistakes.at[j].line <= 16);
            assert_true(strstr(mistakes.at[j].text, "; expected ") != NULL ||
                        strstr(mistakes.at[j].text, "; did you mean ") != NULL);
        }
    }
    assert_true(good_count > 0 && good_count < 1000);
    given_a_file(sample); /* whatever came before, this is still good */
    then_it_is_good();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_no_file_gives_the_defaults, set_up),
        cmocka_unit_test_setup(test_empty_file_and_comments_are_good, set_up),
        cmocka_unit_test_setup(test_every_type_is_read, set_up),
        cmocka_unit_test_setup(test_one_endpoint_needs_no_braces, set_up),
        cmocka_unit_test_setup(test_one_endpoint_is_for_all_roles, set_up),
        cmocka_unit_test_setup(test_what_has_endpoints_of_its_own_is_done_over_these_only, set_up),
        cmocka_unit_test_setup(test_endpoints_of_flags_replace_those_of_listen_only, set_up),
        cmocka_unit_test_setup(test_what_was_given_goes_before_the_file, set_up),
        cmocka_unit_test_setup(test_broker_for_trying_out_warns_only_unless_told, set_up),
        cmocka_unit_test_setup(test_every_key_takes_its_least_and_its_greatest_and_nothing_beyond,
                               set_up),
        cmocka_unit_test_setup(test_endpoint_has_the_server_key_or_one_of_its_own, set_up),
        cmocka_unit_test_setup(test_each_mistake_is_told_with_its_line, set_up),
        cmocka_unit_test_setup(test_all_mistakes_of_a_file_are_told_in_order_of_their_lines,
                               set_up),
        cmocka_unit_test_setup(test_more_mistakes_than_are_kept_are_counted, set_up),
        cmocka_unit_test_setup(test_too_many_endpoints_are_a_mistake, set_up),
        cmocka_unit_test_setup(test_mistake_is_printed_with_file_and_line, set_up),
        cmocka_unit_test_setup(test_what_a_person_wrote_is_quoted_where_it_could_deceive, set_up),
        cmocka_unit_test_setup(test_missing_file_is_a_mistake, set_up),
        cmocka_unit_test_setup(test_folder_is_a_mistake, set_up),
        cmocka_unit_test_setup(test_pipe_is_a_mistake_and_nobody_waits_for_its_writer, set_up),
        cmocka_unit_test_setup(test_file_that_may_not_be_read_is_a_mistake, set_up),
        cmocka_unit_test_setup(test_binary_file_is_a_mistake_in_the_line_of_its_first_zero, set_up),
        cmocka_unit_test_setup(test_file_over_its_limit_is_a_mistake, set_up),
        cmocka_unit_test_setup(test_file_that_others_may_write_is_a_mistake, set_up),
        cmocka_unit_test_setup(test_what_waits_for_the_next_start_is_told_at_each_reload, set_up),
        cmocka_unit_test_setup(test_only_what_may_change_is_taken_at_a_reload, set_up),
        cmocka_unit_test_setup(test_whatever_the_bytes_it_is_good_or_says_what_is_wrong, set_up),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
