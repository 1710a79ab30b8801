/* SPDX-License-Identifier: MPL-2.0 */
/* The worker runner as a process, against a broker that does what the test says. */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <zmq.h>

#include "tests/support/canary.h"
#include "worker/runner/runner.h"

#define WAIT_MS      10000
#define HEARTBEAT_MS 200

static char folder[32];
static char endpoint[64];
static pid_t worker = -1;
static void *context;
static void *router;
static uint64_t number; /* of the broker's last message */

/* What came last: from whom, and what. */
static zmq_msg_t parts[FRAME_COUNT_MAX + 1];
static int part_count;
static struct bytes views[FRAME_COUNT_MAX];
static struct wire_frames frames;
static struct message message;

static struct writer out, entries, templates;

static void close_parts(void)
{
    while (part_count > 0) {
        part_count--;
        zmq_msg_close(&parts[part_count]);
    }
}

static int set_up(void **unused)
{
    (void)unused;
    (void)snprintf(folder, sizeof(folder), "/tmp/treadle-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/broker", folder);
    number = 0;
    writer_init(&out);
    writer_init(&entries);
    writer_init(&templates);
    return 0;
}

static void stop_broker(void)
{
    close_parts();
    if (router != NULL) {
        zmq_close(router);
        router = NULL;
    }
    if (context != NULL) {
        zmq_ctx_term(context);
        context = NULL;
    }
}

static int tear_down(void **unused)
{
    (void)unused;
    char path[64];
    if (worker != -1) {
        (void)kill(worker, SIGKILL);
        (void)waitpid(worker, NULL, 0);
        worker = -1;
    }
    stop_broker();
    (void)snprintf(path, sizeof(path), "%s/broker", folder);
    (void)unlink(path);
    (void)rmdir(folder);
    writer_free(&out);
    writer_free(&entries);
    writer_free(&templates);
    return 0;
}

/* A process of its own, forked while this one has no context. */
static void given_a_worker(const char *script)
{
    assert_null(context);
    worker = fork();
    assert_true(worker != -1);
    if (worker > 0) {
        return;
    }
    static const char *const patterns[] = {"wc.count"};
    static const bool is_permanent_exit[EXIT_STATUS_COUNT];
    char shell[] = "sh";
    char option[] = "-c";
    char *words[] = {shell, option, strdup(script), NULL};
    const struct worker_command command = {
        .patterns = patterns,
        .pattern_count = 1,
        .command = words,
        .is_permanent_exit = is_permanent_exit,
    };
    const struct runner_options options = {
        .worker = {.broker = endpoint,
                   .name = "the-worker",
                   .slots = 2,
                   .drain_ms = 5000,
                   .commands = &command,
                   .command_count = 1},
        .is_quiet = true,
    };
    const int exit_code = runner_main(&options);
    free(words[2]);
    _exit(exit_code);
}

static void given_a_broker(void)
{
    const int timeout_ms = WAIT_MS;
    context = zmq_ctx_new();
    assert_non_null(context);
    router = zmq_socket(context, ZMQ_ROUTER);
    assert_non_null(router);
    const int linger_ms = 0;
    assert_int_equal(zmq_setsockopt(router, ZMQ_RCVTIMEO, &timeout_ms, sizeof(timeout_ms)), 0);
    assert_int_equal(zmq_setsockopt(router, ZMQ_LINGER, &linger_ms, sizeof(linger_ms)), 0);
    assert_int_equal(zmq_bind(router, endpoint), 0);
}

/* The next message of the worker, heartbeats included. */
static void receive(void)
{
    int more = 1;
    close_parts();
    while (more) {
        zmq_msg_init(&parts[part_count]);
        if (zmq_msg_recv(&parts[part_count], router, 0) == -1) {
            fail_msg("nothing came: %s", zmq_strerror(errno));
        }
        more = zmq_msg_more(&parts[part_count]);
        if (part_count > 0) {
            views[part_count - 1] =
                (struct bytes){zmq_msg_data(&parts[part_count]), zmq_msg_size(&parts[part_count])};
        }
        part_count++;
    }
    frames = (struct wire_frames){views, (size_t)part_count - 1};
    assert_int_equal(message_decode(&message, &frames, &wire_limits_protocol), WIRE_OK);
}

static void say(struct message *said)
{
    number++;
    said->number = number;
    assert_true(message_encode(said, &out));
    assert_true(zmq_send(router, zmq_msg_data(&parts[0]), zmq_msg_size(&parts[0]), ZMQ_SNDMORE) >=
                0);
    for (size_t i = 0; i < out.frames.count; i++) {
        const struct bytes frame = out.frames.frames[i];
        const int flags = i + 1 < out.frames.count ? ZMQ_SNDMORE : 0;
        assert_true(zmq_send(router, frame.data, frame.size, flags) >= 0);
    }
}

/* Waits for a message of this kind; answers heartbeats meanwhile, so that the session lives on. */
static void then_it_sends(enum message_kind kind)
{
    receive();
    while (message.kind == MESSAGE_HEARTBEAT && kind != MESSAGE_HEARTBEAT) {
        struct message heartbeat = {.kind = MESSAGE_HEARTBEAT};
        say(&heartbeat);
        receive();
    }
    assert_string_equal(message_kind_text(message.kind), message_kind_text(kind));
}

static void when_welcomed(bool is_resumed, uint64_t dispatched)
{
    static const uint8_t broker_id[16] = {1};
    struct message welcome = {
        .kind = MESSAGE_WELCOME,
        .as.welcome = {.hello_number = message.number,
                       .broker_id = {broker_id, sizeof(broker_id)},
                       .epoch = 1,
                       .is_resumed = is_resumed,
                       .heartbeat_ms = HEARTBEAT_MS,
                       .liveness = 5,
                       .body_size_max = BODY_SIZE_DEFAULT,
                       .entry_count_max = ENTRY_COUNT_MAX,
                       .dispatched = dispatched},
    };
    say(&welcome);
}

static void when_dispatched(uint64_t lease, struct bytes body, uint64_t timeout_ms)
{
    const struct wire_dispatch_template template = {
        .service = bytes_from_text("wc"),
        .task = bytes_from_text("count"),
        .timeout_ms = timeout_ms,
        .grace_ms = 200,
        .attempts_max = 4,
    };
    const struct wire_dispatch_entry entry = {.lease = lease, .dispatch = 1, .body = body};
    writer_reset(&templates);
    writer_reset(&entries);
    assert_true(wire_dispatch_template_encode(&templates, &template));
    assert_true(wire_dispatch_entry_encode(&entries, &entry));
    struct message dispatch = {
        .kind = MESSAGE_DISPATCH,
        .as.dispatch = {.templates = wire_list_from_writer(&templates, 1),
                        .entries = wire_list_from_writer(&entries, 1)},
    };
    say(&dispatch);
}

static void when_acknowledged(uint64_t lease)
{
    const struct wire_result_ack_entry entry = {.lease = lease};
    writer_reset(&entries);
    assert_true(wire_result_ack_entry_encode(&entries, &entry));
    struct message ack = {
        .kind = MESSAGE_RESULT_ACK,
        .as.result_ack.entries = wire_list_from_writer(&entries, 1),
    };
    say(&ack);
}

static struct wire_success_entry the_success(void)
{
    struct wire_list list = message.as.result.successes;
    struct wire_success_entry success;
    assert_true(wire_success_entry_next(&list, &success));
    return success;
}

static struct wire_failure_entry the_failure(void)
{
    struct wire_list list = message.as.result.failures;
    struct wire_failure_entry failure;
    assert_true(wire_failure_entry_next(&list, &failure));
    return failure;
}

static void assert_text(struct bytes text, const char *expected)
{
    assert_int_equal(text.size, strlen(expected));
    assert_memory_equal(text.data, expected, text.size);
}

static void then_it_exits_with(int exit_code)
{
    int state;
    const struct timespec pause = {.tv_nsec = 10000000};
    pid_t pid = 0;
    for (int i = 0; i < WAIT_MS / 10 && pid == 0; i++) {
        pid = waitpid(worker, &state, WNOHANG);
        nanosleep(&pause, NULL);
    }
    assert_int_equal(pid, worker);
    worker = -1;
    assert_true(WIFEXITED(state));
    assert_int_equal(WEXITSTATUS(state), exit_code);
}

/* The process whose number the result or the message is. */
static void then_it_is_gone(struct bytes text)
{
    char digits[16] = {0};
    assert_true(text.size > 0 && text.size < sizeof(digits));
    memcpy(digits, text.data, text.size);
    const pid_t pid = (pid_t)strtol(digits, NULL, 10);
    const struct timespec pause = {.tv_nsec = 10000000};
    for (int i = 0; i < 500 && kill(pid, 0) == 0; i++) {
        nanosleep(&pause, NULL);
    }
    assert_int_equal(kill(pid, 0), -1);
}

static void given_a_session(const char *script)
{
    given_a_worker(script);
    given_a_broker();
    then_it_sends(MESSAGE_HELLO);
    when_welcomed(false, 0);
    then_it_sends(MESSAGE_HEARTBEAT);
    assert_int_equal(message.upto, 2);
}

static void test_a_task_runs_and_a_signal_drains_the_worker(void **unused)
{
    (void)unused;
    given_a_session("wc -w");
    when_dispatched(1, bytes_from_text("one two three"), 10000);
    then_it_sends(MESSAGE_RESULT);
    assert_true(message.upto >= 3); /* and what a handler so fast is given beforehand */
    assert_int_equal(the_success().lease, 1);
    assert_text(the_success().body, "3\n");
    assert_true(the_success().duration_us > 0);
    when_acknowledged(1);
    assert_int_equal(kill(worker, SIGTERM), 0);
    then_it_sends(MESSAGE_GOODBYE);
    then_it_exits_with(0);
}

static void test_large_bodies_go_both_ways(void **unused)
{
    (void)unused;
    given_a_session("cat");
    const size_t size = BODY_SIZE_DEFAULT;
    uint8_t *body = malloc(size);
    assert_non_null(body);
    for (size_t i = 0; i < size; i++) {
        body[i] = (uint8_t)(i < CANARY_SIZE ? CANARY_BODY[i] : 'x');
    }
    when_dispatched(1, (struct bytes){body, size}, 10000);
    then_it_sends(MESSAGE_RESULT);
    assert_int_equal(the_success().body.size, size);
    assert_memory_equal(the_success().body.data, body, size);
    free(body);
}

static void test_a_timeout_ends_the_command_and_its_children(void **unused)
{
    (void)unused;
    given_a_session("trap '' TERM; sleep 600 & echo $! >&2; sleep 600");
    when_dispatched(1, (struct bytes){0}, 300);
    then_it_sends(MESSAGE_RESULT);
    const struct wire_failure_entry failure = the_failure();
    assert_string_equal(failure_kind_text(failure.kind), "timeout");
    assert_text(failure.message, "ran past its timeout of 300ms");
    assert_true(failure.duration_ms >= 500);
    then_it_is_gone((struct bytes){failure.trace.data, failure.trace.size - 1});
}

static void
test_a_broker_that_comes_late_is_found_and_one_that_falls_silent_greeted_anew(void **unused)
{
    (void)unused;
    given_a_session("echo $$; sleep 1");
    when_dispatched(1, (struct bytes){0}, 10000);
    char routing_id[8];
    const size_t size = zmq_msg_size(&parts[0]);
    assert_true(size <= sizeof(routing_id));
    memcpy(routing_id, zmq_msg_data(&parts[0]), size);

    do { /* says nothing */
        receive();
    } while (zmq_msg_size(&parts[0]) == size &&
             memcmp(routing_id, zmq_msg_data(&parts[0]), size) == 0);
    assert_string_equal(message_kind_text(message.kind), "hello");
    struct wire_list list = message.as.hello.leases;
    struct wire_held_lease held;
    assert_true(wire_held_lease_next(&list, &held));
    assert_int_equal(held.lease, 1);
    when_welcomed(true, 1);
    then_it_sends(MESSAGE_RESULT);
    assert_int_equal(the_success().lease, 1);
}

static void test_a_second_signal_ends_the_worker_and_its_commands_at_once(void **unused)
{
    (void)unused;
    char script[128];
    (void)snprintf(script, sizeof(script), "sleep 600 & echo $! > %s/pid; sleep 600", folder);
    given_a_session(script);
    when_dispatched(1, (struct bytes){0}, 60000);
    char path[64];
    char digits[16] = {0};
    (void)snprintf(path, sizeof(path), "%s/pid", folder);
    while (strchr(digits, '\n') == NULL) { /* ctest has a limit */
        then_it_sends(MESSAGE_HEARTBEAT);
        struct message heartbeat = {.kind = MESSAGE_HEARTBEAT};
        say(&heartbeat);
        FILE *file = fopen(path, "r");
        if (file != NULL) {
            digits[fread(digits, 1, sizeof(digits) - 1, file)] = '\0';
            fclose(file);
        }
    }
    (void)unlink(path);
    assert_int_equal(kill(worker, SIGINT), 0);
    then_it_sends(MESSAGE_HEARTBEAT); /* it goes on with the one it has */
    assert_int_equal(kill(worker, SIGINT), 0);
    then_it_exits_with(130);
    then_it_is_gone((struct bytes){(const uint8_t *)digits, strlen(digits) - 1});
}

static void test_a_worker_that_is_replaced_ends_as_refused(void **unused)
{
    (void)unused;
    given_a_session("cat");
    struct message refused = {
        .kind = MESSAGE_REFUSED,
        .as.refused = {.code = REFUSED_REPLACED,
                       .text = bytes_from_text("the-worker has begun "
                                               "another life")},
    };
    say(&refused);
    then_it_exits_with(77);
}

/* Whether the worker reads its signals from a descriptor, so that it is told of SIGTERM instead of
 * dying of it. */
static bool is_worker_ready(void)
{
    for (int fd = 0; fd < 64; fd++) {
        char path[64];
        char target[64] = "";
        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)worker, fd);
        if (readlink(path, target, sizeof(target) - 1) > 0 &&
            strcmp(target, "anon_inode:[signalfd]") == 0) {
            return true;
        }
    }
    return false;
}

static void test_a_worker_without_a_broker_ends_when_it_is_told_to(void **unused)
{
    (void)unused;
    const struct timespec pause = {.tv_nsec = 10000000};
    given_a_worker("cat");
    for (int i = 0; i < WAIT_MS / 10 && !is_worker_ready(); i++) {
        nanosleep(&pause, NULL);
    }
    assert_int_equal(kill(worker, SIGTERM), 0);
    then_it_exits_with(0);
}

int main(void)
{
#define SENTENCE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SENTENCE(test_a_task_runs_and_a_signal_drains_the_worker),
        SENTENCE(test_large_bodies_go_both_ways),
        SENTENCE(test_a_timeout_ends_the_command_and_its_children),
        SENTENCE(test_a_broker_that_comes_late_is_found_and_one_that_falls_silent_greeted_anew),
        SENTENCE(test_a_second_signal_ends_the_worker_and_its_commands_at_once),
        SENTENCE(test_a_worker_that_is_replaced_ends_as_refused),
        SENTENCE(test_a_worker_without_a_broker_ends_when_it_is_told_to),
    };
    return cmocka_run_group_tests_name("runner", tests, NULL, NULL);
}
