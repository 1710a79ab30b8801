/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "worker/exec/command.h"
#include "worker/exec/outcome.h"

/* How the one attempt of a test ended. */
static struct {
    bool is_started;
    bool is_ended;
    bool is_success;
    uint64_t returned_lease;           /* 0: none */
    struct wire_failure_entry failure; /* its texts are copied below */
    char name[NAME_SIZE_MAX + 1];
    char message[ERROR_MESSAGE_SIZE_MAX + 1];
    char trace[ERROR_TRACE_SIZE_MAX + 1];
    uint8_t *result;
    size_t result_size;
} end;

static struct zygote *zygote;
static struct runs *runs;
static struct executor *executor;
static struct worker_attempt attempt;
static bool is_permanent_exit[EXIT_STATUS_COUNT];
static const struct handler handler = {
    .kind = HANDLER_COMMAND,
    .index = 0,
    .is_permanent_exit = is_permanent_exit,
};
static uint64_t memory_max;

/* The one command: a script for the shell, or a program. */
static char shell[] = "sh";
static char option[] = "-c";
static char command_text[1024];
static char *script_command[] = {shell, option, command_text, NULL};
static char *program_command[] = {command_text, NULL};
static char *const *commands[1];

static void copy_text(char *to, size_t to_size, struct bytes text)
{
    assert_true(text.size < to_size);
    if (text.size > 0) {
        memcpy(to, text.data, text.size);
    }
    to[text.size] = '\0';
}

static void on_started(void *context, uint64_t lease)
{
    (void)context;
    assert_int_equal(lease, attempt.lease);
    end.is_started = true;
}

static void on_succeeded(void *context, const struct wire_success_entry *success)
{
    (void)context;
    assert_false(end.is_ended);
    assert_int_equal(success->lease, attempt.lease);
    end.is_ended = true;
    end.is_success = true;
    end.result = malloc(success->body.size + 1);
    assert_non_null(end.result);
    copy_text((char *)end.result, success->body.size + 1, success->body);
    end.result_size = success->body.size;
}

static void on_failed(void *context, const struct wire_failure_entry *failure)
{
    (void)context;
    assert_false(end.is_ended);
    assert_int_equal(failure->lease, attempt.lease);
    end.is_ended = true;
    end.failure = *failure;
    copy_text(end.name, sizeof(end.name), failure->name);
    copy_text(end.message, sizeof(end.message), failure->message);
    copy_text(end.trace, sizeof(end.trace), failure->trace);
}

static void on_returned(void *context, uint64_t lease)
{
    (void)context;
    end.returned_lease = lease;
}

static int set_up(void **unused)
{
    (void)unused;
    memset(&end, 0, sizeof(end));
    memset(is_permanent_exit, 0, sizeof(is_permanent_exit));
    memory_max = 0;
    attempt = (struct worker_attempt){
        .lease = 42,
        .id = {{0x01, 0x8f}},
        .service = bytes_from_text("wc"),
        .task = bytes_from_text("count"),
        .dispatch = 2,
        .retry_index = 1,
        .timeout_ms = 300000,
        .deadline_left_ms = 7000,
        .result_size_max = BODY_SIZE_DEFAULT,
    };
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    executor_destroy(&executor);
    runs_destroy(&runs);
    zygote_close(&zygote);
    free(end.result);
    return 0;
}

static void given_an_executor(uint32_t slots, char *const *command)
{
    commands[0] = command;
    const struct zygote_config zygote_config = {.commands = commands, .command_count = 1};
    assert_int_equal(zygote_open(&zygote, &zygote_config), TREADLE_OK);
    runs = runs_create(zygote);
    assert_non_null(runs);
    const struct command_config config = {
        .runs = runs,
        .commands = commands,
        .worker = "host1:42",
        .slots = slots,
        .memory_max = memory_max,
        .listener = {NULL, on_started, NULL, on_succeeded, on_failed, on_returned},
    };
    executor = command_executor_create(&config);
    assert_non_null(executor);
    assert_int_equal(executor_room(executor), slots);
}

/* One round, when something happens within the span. */
static bool round_within(int span_ms)
{
    struct pollfd ready[] = {
        {.fd = runs_fd(runs), .events = POLLIN},
        {.fd = executor_fd(executor), .events = POLLIN},
    };
    assert_int_equal(executor_next_at_ms(executor), UINT64_MAX);
    if (poll(ready, 2, executor_may_wait(executor) ? span_ms : 0) < 1 &&
        executor_may_wait(executor)) {
        return false;
    }
    runs_on_ready(runs);
    executor_on_ready(executor);
    return true;
}

static void when_it_ends(void)
{
    while (!end.is_ended) {
        assert_true(round_within(10000));
    }
}

static void run_script(const char *script)
{
    assert_true(strlen(script) < sizeof(command_text));
    snprintf(command_text, sizeof(command_text), "%s", script);
    given_an_executor(1, script_command);
    executor_start(executor, &attempt, &handler);
}

static void when_a_script_runs(const char *script)
{
    run_script(script);
    when_it_ends();
}

static void when_a_program_runs(const char *path)
{
    snprintf(command_text, sizeof(command_text), "%s", path);
    given_an_executor(1, program_command);
    executor_start(executor, &attempt, &handler);
    when_it_ends();
}

#define then_it_succeeds_with(expected)                                                            \
    do {                                                                                           \
        assert_true(end.is_started);                                                               \
        assert_string_equal(end.message, "");                                                      \
        assert_true(end.is_success);                                                               \
        assert_string_equal((const char *)end.result, expected);                                   \
    } while (0)

#define then_it_fails_as(expected_kind, expected_name)                                             \
    do {                                                                                           \
        assert_false(end.is_success);                                                              \
        assert_string_equal(failure_kind_text(end.failure.kind),                                   \
                            failure_kind_text(expected_kind));                                     \
        assert_string_equal(end.name, expected_name);                                              \
    } while (0)

static void test_the_body_is_stdin_and_the_result_stdout(void **unused)
{
    (void)unused;
    attempt.body = bytes_from_text("one two three");
    when_a_script_runs("wc -w");
    then_it_succeeds_with("3\n");
}

static void test_a_large_body_goes_through(void **unused)
{
    (void)unused;
    const size_t size = BODY_SIZE_DEFAULT;
    uint8_t *body = malloc(size);
    assert_non_null(body);
    memset(body, 'x', size);
    attempt.body = (struct bytes){body, size};
    when_a_script_runs("cat");
    assert_true(end.is_success);
    assert_int_equal(end.result_size, size);
    assert_memory_equal(end.result, body, size);
    free(body);
}

static void test_a_body_left_unread_is_no_error(void **unused)
{
    (void)unused;
    static uint8_t body[1024 * 1024];
    attempt.body = (struct bytes){body, sizeof(body)};
    when_a_script_runs("exec <&-; echo done");
    then_it_succeeds_with("done\n");
}

static void test_the_attempt_is_in_the_environment_and_the_secrets_are_not(void **unused)
{
    (void)unused;
    char path[] = "PATH=/usr/bin:/bin";
    char identity[] = "TREADLE_IDENTITY=/secret";
    char server_key[] = "TREADLE_SERVER_KEY=secret";
    char lease[] = "TREADLE_LEASE=of another";
    char broker[] = "TREADLE_BROKER=ipc:///x";
    struct writer tags;
    writer_init(&tags);
    const struct wire_tag first = {bytes_from_text("nightly")};
    const struct wire_tag second = {bytes_from_text("eu")};
    assert_true(wire_tag_encode(&tags, &first) && wire_tag_encode(&tags, &second));
    attempt.tags = wire_list_from_writer(&tags, 2);
    char *inherited[] = {path, identity, server_key, lease, broker, NULL};
    char **usual = environ;
    environ = inherited;
    when_a_script_runs("env | grep ^TREADLE_ | LC_ALL=C sort");
    environ = usual;
    writer_free(&tags);
    then_it_succeeds_with("TREADLE_BROKER=ipc:///x\n"
                          "TREADLE_DEADLINE_MS=7000\n"
                          "TREADLE_DISPATCH=2\n"
                          "TREADLE_LEASE=42\n"
                          "TREADLE_RETRY_INDEX=1\n"
                          "TREADLE_RETRY_SEQUENCE=0\n"
                          "TREADLE_SERVICE=wc\n"
                          "TREADLE_TAGS=nightly,eu\n"
                          "TREADLE_TASK=count\n"
                          "TREADLE_TASK_ID=018f0000-0000-0000-0000-000000000000\n"
                          "TREADLE_TIMEOUT_MS=300000\n"
                          "TREADLE_WORKER=host1:42\n");
}

static void test_a_non_zero_exit_is_transient_with_the_last_line_of_stderr(void **unused)
{
    (void)unused;
    when_a_script_runs("echo first >&2; echo '  no such table ' >&2; echo >&2; exit 3");
    then_it_fails_as(FAILURE_TRANSIENT, "exit.3");
    assert_string_equal(end.message, "no such table");
    assert_string_equal(end.trace, "first\n  no such table \n\n");
    assert_int_equal(end.failure.signal, 0);
    assert_true(end.failure.max_rss_kib > 0);
}

static void test_a_silent_failure_says_its_exit_status(void **unused)
{
    (void)unused;
    when_a_program_runs("false");
    then_it_fails_as(FAILURE_TRANSIENT, "exit.1");
    assert_string_equal(end.message, "exited with status 1");
}

static void test_some_exits_are_permanent(void **unused)
{
    (void)unused;
    is_permanent_exit[65] = true;
    when_a_script_runs("exit 65");
    then_it_fails_as(FAILURE_PERMANENT, "exit.65");
}

static void test_a_command_the_shell_cannot_find_is_a_prepare_failure(void **unused)
{
    (void)unused;
    when_a_script_runs("no-such-program-of-treadle");
    then_it_fails_as(FAILURE_PREPARE, "exit.127");
    tear_down(NULL);
    set_up(NULL);
    when_a_script_runs("exit 126");
    then_it_fails_as(FAILURE_PREPARE, "exit.126");
}

static void test_a_program_that_is_not_there_is_a_prepare_failure(void **unused)
{
    (void)unused;
    when_a_program_runs("/no/such/program");
    assert_false(end.is_started);
    then_it_fails_as(FAILURE_PREPARE, "spawn.ENOENT");
    assert_string_equal(end.message, "cannot run /no/such/program: No such file or directory");
}

static void test_death_by_a_signal_is_a_crash(void **unused)
{
    (void)unused;
    when_a_script_runs("ulimit -c 0; echo so far so good >&2; kill -SEGV $$");
    then_it_fails_as(FAILURE_CRASH, "signal.SEGV");
    assert_int_equal(end.failure.signal, SIGSEGV);
    assert_string_equal(end.message, "so far so good");
}

static void test_a_result_over_the_limit_is_a_finalize_failure_at_once(void **unused)
{
    (void)unused;
    attempt.result_size_max = UINT64_C(1048576);
    when_a_script_runs("head -c 5242880 /dev/zero; sleep 60");
    then_it_fails_as(FAILURE_FINALIZE, "result.size");
    assert_string_equal(end.message, "the result is over the limit of 1048576 bytes");
}

static void test_a_result_of_the_limit_is_fine(void **unused)
{
    (void)unused;
    attempt.result_size_max = UINT64_C(1048576);
    when_a_script_runs("head -c 1048576 /dev/zero");
    assert_true(end.is_success);
    assert_int_equal(end.result_size, 1024 * 1024);
}

static void test_the_trace_is_the_last_16_kib_of_stderr(void **unused)
{
    (void)unused;
    when_a_script_runs("i=0; while [ $i -lt 3000 ]; do echo line of stderr $i >&2; i=$((i+1)); "
                       "done; exit 1");
    then_it_fails_as(FAILURE_TRANSIENT, "exit.1");
    assert_int_equal(strlen(end.trace), ERROR_TRACE_SIZE_MAX);
    assert_string_equal(end.message, "line of stderr 2999");
}

static void test_a_cut_trace_does_not_start_within_a_character(void **unused)
{
    (void)unused;
    static struct trace_tail tail;
    memset(&tail, 0, sizeof(tail));
    static const uint8_t euro[] = {0xe2, 0x82, 0xac};
    uint8_t text[9000 * sizeof(euro)];
    for (size_t i = 0; i < sizeof(text); i += sizeof(euro)) {
        memcpy(text + i, euro, sizeof(euro));
    }
    trace_tail_add(&tail, text, sizeof(text));
    const struct bytes trace = trace_tail_text(&tail);
    assert_int_equal(trace.data[0], 0xe2);
    assert_int_equal(trace.size, ERROR_TRACE_SIZE_MAX - 1);
}

static bool is_group_alive(pid_t group)
{
    return kill(-group, 0) == 0;
}

static void then_nothing_of_group_is_left(pid_t group)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    for (int i = 0; i < 1000 && is_group_alive(group); i++) {
        nanosleep(&pause, NULL);
    }
    assert_false(is_group_alive(group));
}

static void
test_a_grandchild_that_holds_the_pipe_neither_delays_the_end_nor_outlives_it(void **unused)
{
    (void)unused;
    when_a_script_runs("sleep 600 & echo $$");
    assert_true(end.is_success);
    then_nothing_of_group_is_left((pid_t)strtol((const char *)end.result, NULL, 10));
}

/* A file that a script writes its process group's number to once it is ready. */
static char ready_path[32];

/* Runs a script up to the place where it is ready. Returns its process group. */
static pid_t given_a_running_script(const char *before_ready, const char *after_ready)
{
    char script[512];
    char group[32] = {0};
    (void)snprintf(ready_path, sizeof(ready_path), "/tmp/treadle-test-XXXXXX");
    const int fd = mkstemp(ready_path);
    assert_true(fd != -1);
    snprintf(script, sizeof(script), "%s; echo $$. > %s; %s", before_ready, ready_path,
             after_ready);
    run_script(script);
    for (int i = 0; i < 1000 && strchr(group, '.') == NULL; i++) {
        round_within(10);
        assert_true(pread(fd, group, sizeof(group) - 1, 0) >= 0);
    }
    close(fd);
    unlink(ready_path);
    assert_non_null(strchr(group, '.'));
    assert_false(end.is_ended);
    return (pid_t)strtol(group, NULL, 10);
}

static void test_kill_ends_what_ignores_the_cancel_grandchildren_too(void **unused)
{
    (void)unused;
    const pid_t group = given_a_running_script("trap '' TERM; sleep 600 & :", "sleep 600");
    executor_cancel(executor, attempt.lease);
    executor_kill(executor, 4711); /* another's lease */
    while (round_within(50)) {
        assert_false(end.is_ended);
    }
    assert_true(is_group_alive(group));
    executor_kill(executor, attempt.lease);
    when_it_ends();
    then_it_fails_as(FAILURE_CRASH, "signal.KILL");
    then_nothing_of_group_is_left(group);
}

static void test_cancel_is_sigterm_to_the_whole_group(void **unused)
{
    (void)unused;
    given_a_running_script("trap 'echo stopped; exit 0' TERM", "sleep 600 & wait");
    executor_cancel(executor, attempt.lease);
    when_it_ends();
    then_it_succeeds_with("stopped\n");
}

static void test_destroying_ends_what_runs(void **unused)
{
    (void)unused;
    const pid_t group = given_a_running_script(":", "sleep 600 & sleep 600");
    executor_destroy(&executor);
    assert_false(end.is_ended);
    then_nothing_of_group_is_left(group);
}

static void test_the_command_finds_its_signals_as_usual(void **unused)
{
    (void)unused;
    when_a_script_runs("kill -PIPE $$; echo ignored");
    then_it_fails_as(FAILURE_CRASH, "signal.PIPE");
    tear_down(NULL);
    set_up(NULL);
    when_a_script_runs("kill -TERM $$; echo blocked");
    then_it_fails_as(FAILURE_CRASH, "signal.TERM");
}

static void test_what_waits_for_a_slot_can_be_recalled_and_else_runs_after(void **unused)
{
    (void)unused;
    struct worker_attempt others[2];
    run_script("cat");
    for (int i = 0; i < 2; i++) {
        others[i] = attempt;
        others[i].lease = 43 + (uint64_t)i;
        executor_start(executor, &others[i], &handler);
    }
    assert_false(executor_recall(executor, attempt.lease)); /* it runs */
    assert_true(executor_recall(executor, 43));
    assert_false(executor_recall(executor, 43));
    when_it_ends();
    then_it_succeeds_with("");
    free(end.result);
    memset(&end, 0, sizeof(end));
    attempt.lease = 44;
    when_it_ends();
    then_it_succeeds_with("");
}

static void test_the_zygotes_death_is_a_crash_of_what_runs_and_returns_the_rest(void **unused)
{
    (void)unused;
    const pid_t group = given_a_running_script(":", "sleep 600 & sleep 600");
    struct worker_attempt waiting = attempt;
    waiting.lease = 43;
    executor_start(executor, &waiting, &handler);
    assert_int_equal(kill(zygote_pid(zygote), SIGKILL), 0);
    when_it_ends();
    then_it_fails_as(FAILURE_CRASH, "zygote.gone");
    assert_int_equal(end.returned_lease, 43);
    then_nothing_of_group_is_left(group);
    assert_int_equal(executor_room(executor), 0);
    executor_start(executor, &attempt, &handler);
    assert_false(executor_may_wait(executor));
    executor_on_ready(executor);
    assert_int_equal(end.returned_lease, attempt.lease);
    assert_true(executor_may_wait(executor));
}

static void test_a_command_over_its_memory_limit_fails(void **unused)
{
    (void)unused;
    memory_max = UINT64_C(64) * 1024 * 1024;
    when_a_script_runs("ulimit -d");
    then_it_succeeds_with("65536\n");
    tear_down(NULL);
    set_up(NULL);
    memory_max = UINT64_C(64) * 1024 * 1024;
    when_a_script_runs("head -c 209715200 /dev/zero | tail -c 209715200 >/dev/null");
    then_it_fails_as(FAILURE_TRANSIENT, "exit.1");
    assert_non_null(strstr(end.message, "memory"));
}

int main(void)
{
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR || pthread_sigmask(SIG_BLOCK, &blocked, NULL) != 0) {
        return 1;
    }
#define SENTENCE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SENTENCE(test_the_body_is_stdin_and_the_result_stdout),
        SENTENCE(test_a_large_body_goes_through),
        SENTENCE(test_a_body_left_unread_is_no_error),
        SENTENCE(test_the_attempt_is_in_the_environment_and_the_secrets_are_not),
        SENTENCE(test_a_non_zero_exit_is_transient_with_the_last_line_of_stderr),
        SENTENCE(test_a_silent_failure_says_its_exit_status),
        SENTENCE(test_some_exits_are_permanent),
        SENTENCE(test_a_command_the_shell_cannot_find_is_a_prepare_failure),
        SENTENCE(test_a_program_that_is_not_there_is_a_prepare_failure),
        SENTENCE(test_death_by_a_signal_is_a_crash),
        SENTENCE(test_a_result_over_the_limit_is_a_finalize_failure_at_once),
        SENTENCE(test_a_result_of_the_limit_is_fine),
        SENTENCE(test_the_trace_is_the_last_16_kib_of_stderr),
        SENTENCE(test_a_cut_trace_does_not_start_within_a_character),
        SENTENCE(test_a_grandchild_that_holds_the_pipe_neither_delays_the_end_nor_outlives_it),
        SENTENCE(test_kill_ends_what_ignores_the_cancel_grandchildren_too),
        SENTENCE(test_cancel_is_sigterm_to_the_whole_group),
        SENTENCE(test_destroying_ends_what_runs),
        SENTENCE(test_the_command_finds_its_signals_as_usual),
        SENTENCE(test_what_waits_for_a_slot_can_be_recalled_and_else_runs_after),
        SENTENCE(test_the_zygotes_death_is_a_crash_of_what_runs_and_returns_the_rest),
        SENTENCE(test_a_command_over_its_memory_limit_fails),
    };
    return cmocka_run_group_tests_name("exec_command", tests, NULL, NULL);
}
