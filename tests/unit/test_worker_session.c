/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/session.h"

/* A worker, its clock, and a broker made of what the tests say. Every message goes through the
 * codec, both ways. */
static struct worker_session *session;
static uint64_t now_ms;
static uint64_t broker_number; /* of the broker's last message */
static struct writer broker_out, broker_list, broker_templates;
static struct message sent;      /* what the worker sent last */
static struct worker_event told; /* what the worker told last */

struct given_worker {
    uint32_t slots;
    uint32_t prefetch_max;
    uint64_t drain_ms;
};

static int start(void **unused)
{
    (void)unused;
    now_ms = 1000;
    broker_number = 0;
    writer_init(&broker_out);
    writer_init(&broker_list);
    writer_init(&broker_templates);
    return 0;
}

static int end(void **unused)
{
    (void)unused;
    worker_session_destroy(&session);
    writer_free(&broker_out);
    writer_free(&broker_list);
    writer_free(&broker_templates);
    return 0;
}

static void make_worker(struct given_worker given)
{
    const struct wire_serve serve = {.pattern = bytes_from_text("wc.count")};
    struct worker_session_config config = {
        .name = bytes_from_text("host1:42"),
        .host = bytes_from_text("host1"),
        .slots = given.slots > 0 ? given.slots : 2,
        .prefetch_max = given.prefetch_max,
        .drain_ms = given.drain_ms > 0 ? given.drain_ms : WORKER_DRAIN_MS,
        .serves = &serve,
        .serve_count = 1,
    };
    memset(config.incarnation, 7, sizeof(config.incarnation));
    session = worker_session_create(&config, now_ms);
    assert_non_null(session);
}

#define given_a_worker(...) make_worker((struct given_worker){__VA_ARGS__})

/* ---- what the worker says ---- */

static bool take(void)
{
    worker_session_check(session);
    const bool has_message = worker_session_has_message(session);
    const struct wire_frames *frames = worker_session_take_message(session);
    assert_int_equal(has_message, frames != NULL);
    if (frames == NULL) {
        return false;
    }
    assert_int_equal(message_decode(&sent, frames, &wire_limits_protocol), WIRE_OK);
    worker_session_check(session);
    return true;
}

#define then_it_sends(expected)                                                                    \
    do {                                                                                           \
        assert_true(take());                                                                       \
        assert_string_equal(message_kind_text(sent.kind), message_kind_text(MESSAGE_##expected));  \
    } while (0)

#define then_it_sends_nothing() assert_false(take())

static const char *event_text(enum worker_event_kind kind)
{
    static const char *const texts[] = {"WELCOME", "LOST",   "RECONNECT", "REFUSED",  "START",
                                        "RECALL",  "CANCEL", "KILL",      "DRAINING", "DRAINED"};
    return texts[kind];
}

#define then_it_tells(expected)                                                                    \
    do {                                                                                           \
        assert_true(worker_session_next_event(session, &told));                                    \
        assert_string_equal(event_text(told.kind), #expected);                                     \
        worker_session_check(session);                                                             \
    } while (0)

#define then_it_hands_in(expected_lease)                                                           \
    do {                                                                                           \
        then_it_tells(START);                                                                      \
        assert_int_equal(told.lease, expected_lease);                                              \
    } while (0)

#define then_it_recalls(expected_lease)                                                            \
    do {                                                                                           \
        then_it_tells(RECALL);                                                                     \
        assert_int_equal(told.lease, expected_lease);                                              \
    } while (0)

#define then_it_returns(expected_lease)                                                            \
    do {                                                                                           \
        then_it_sends(RETURNED);                                                                   \
        assert_int_equal(lease_of_next(&sent.as.returned.entries), expected_lease);                \
    } while (0)

#define then_it_starts(expected_lease)                                                             \
    do {                                                                                           \
        then_it_tells(START);                                                                      \
        assert_int_equal(told.lease, expected_lease);                                              \
        worker_session_on_started(session, now_ms, told.lease);                                    \
    } while (0)

#define then_it_tells_nothing() assert_false(worker_session_next_event(session, &told))

static uint64_t lease_of_next(struct wire_list *list)
{
    struct wire_lease_entry entry;
    assert_true(wire_lease_entry_next(list, &entry));
    return entry.lease;
}

/* The sent HELLO names exactly these leases: pairs of lease and state. */
static void check_held(const uint64_t *pairs, size_t count)
{
    struct wire_list list = sent.as.hello.leases;
    struct wire_held_lease held;
    assert_int_equal(list.count, count);
    while (wire_held_lease_next(&list, &held)) {
        bool is_found = false;
        for (size_t i = 0; i < count; i++) {
            is_found = is_found || (pairs[2 * i] == held.lease && pairs[2 * i + 1] == held.state);
        }
        assert_true(is_found);
    }
}

#define then_hello_names(...)                                                                      \
    check_held((const uint64_t[]){__VA_ARGS__},                                                    \
               sizeof((const uint64_t[]){__VA_ARGS__}) / (2 * sizeof(uint64_t)))

static struct wire_failure_entry failure_of(uint64_t lease)
{
    struct wire_list list = sent.as.result.failures;
    struct wire_failure_entry entry;
    while (wire_failure_entry_next(&list, &entry)) {
        if (entry.lease == lease) {
            return entry;
        }
    }
    fail_msg("no failure of lease %d", (int)lease);
    return (struct wire_failure_entry){0};
}

static bool has_success(uint64_t lease)
{
    struct wire_list list = sent.as.result.successes;
    struct wire_success_entry entry;
    while (wire_success_entry_next(&list, &entry)) {
        if (entry.lease == lease) {
            return true;
        }
    }
    return false;
}

static void assert_text(struct bytes text, const char *expected)
{
    assert_int_equal(text.size, strlen(expected));
    assert_memory_equal(text.data, expected, text.size);
}

/* ---- what the broker says ---- */

static void say_with_number(struct message *message, uint64_t number)
{
    struct message decoded;
    message->number = number;
    assert_true(message_encode(message, &broker_out));
    assert_int_equal(message_decode(&decoded, &broker_out.frames, &wire_limits_protocol), WIRE_OK);
    worker_session_on_message(session, now_ms, &decoded);
    worker_session_check(session);
}

static void say(struct message *message)
{
    broker_number++;
    say_with_number(message, broker_number);
}

static struct wire_welcome usual_welcome(void)
{
    static const uint8_t broker_id[16] = {1};
    return (struct wire_welcome){
        .hello_number = sent.number,
        .broker_id = {broker_id, sizeof(broker_id)},
        .epoch = 5,
        .heartbeat_ms = 1000,
        .liveness = 3,
        .body_size_max = BODY_SIZE_DEFAULT,
        .entry_count_max = ENTRY_COUNT_MAX,
    };
}

static void when_the_broker_welcomes(struct wire_welcome welcome)
{
    struct message message = {.kind = MESSAGE_WELCOME, .as.welcome = welcome};
    say(&message);
}

/* After a HELLO was taken. */
static void when_the_session_resumes(uint64_t dispatched)
{
    struct wire_welcome welcome = usual_welcome();
    welcome.is_resumed = 1;
    welcome.dispatched = dispatched;
    when_the_broker_welcomes(welcome);
    then_it_tells(WELCOME);
}

static void given_a_session_of_liveness(uint64_t liveness)
{
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    struct wire_welcome welcome = usual_welcome();
    welcome.liveness = liveness;
    when_the_broker_welcomes(welcome);
    then_it_tells(WELCOME);
    then_it_sends(HEARTBEAT); /* the first grant */
    then_it_sends_nothing();
}

static void given_a_session(void)
{
    given_a_session_of_liveness(3);
}

struct task_given {
    uint64_t timeout_ms;
    uint64_t progress_timeout_ms;
    uint64_t grace_ms;
    uint64_t deadline_left_ms;
};
static struct task_given task_given;

static struct message dispatch_message(uint64_t first_lease, uint32_t count)
{
    const struct wire_dispatch_template template = {
        .service = bytes_from_text("wc"),
        .task = bytes_from_text("count"),
        .timeout_ms = task_given.timeout_ms > 0 ? task_given.timeout_ms : 300000,
        .progress_timeout_ms = task_given.progress_timeout_ms,
        .grace_ms = task_given.grace_ms > 0 ? task_given.grace_ms : 5000,
        .attempts_max = 4,
    };
    writer_reset(&broker_templates);
    writer_reset(&broker_list);
    assert_true(wire_dispatch_template_encode(&broker_templates, &template));
    for (uint32_t i = 0; i < count; i++) {
        const struct wire_dispatch_entry entry = {
            .lease = first_lease + i,
            .dispatch = 1,
            .deadline_left_ms = task_given.deadline_left_ms,
            .body = bytes_from_text("one two"),
        };
        assert_true(wire_dispatch_entry_encode(&broker_list, &entry));
    }
    return (struct message){
        .kind = MESSAGE_DISPATCH,
        .as.dispatch = {.templates = wire_list_from_writer(&broker_templates, 1),
                        .entries = wire_list_from_writer(&broker_list, count)},
    };
}

static void when_leases_are_dispatched(uint64_t first_lease, uint32_t count)
{
    struct message message = dispatch_message(first_lease, count);
    say(&message);
}

static void when_results_are_acknowledged(uint64_t first_lease, uint32_t count, bool is_stale)
{
    writer_reset(&broker_list);
    for (uint32_t i = 0; i < count; i++) {
        const struct wire_result_ack_entry entry = {.lease = first_lease + i, .is_stale = is_stale};
        assert_true(wire_result_ack_entry_encode(&broker_list, &entry));
    }
    struct message message = {
        .kind = MESSAGE_RESULT_ACK,
        .as.result_ack.entries = wire_list_from_writer(&broker_list, count),
    };
    say(&message);
}

/* RECALL or CANCEL_ATTEMPT of one lease. */
static void when_told_of_lease(enum message_kind kind, uint64_t lease)
{
    const struct wire_lease_entry entry = {.lease = lease};
    writer_reset(&broker_list);
    assert_true(wire_lease_entry_encode(&broker_list, &entry));
    struct message message = {.kind = kind};
    if (kind == MESSAGE_RECALL) {
        message.as.recall.entries = wire_list_from_writer(&broker_list, 1);
    } else {
        message.as.cancel_attempt.entries = wire_list_from_writer(&broker_list, 1);
    }
    say(&message);
}

static void when_told(enum message_kind kind)
{
    struct message message = {.kind = kind};
    say(&message);
}

static void when_refused(enum refused_code code)
{
    struct message message = {
        .kind = MESSAGE_REFUSED,
        .as.refused = {.code = code, .text = bytes_from_text("because")},
    };
    say_with_number(&message, 0);
}

/* ---- what happens at the worker ---- */

static void when_it_succeeds_after_us(uint64_t lease, uint64_t duration_us)
{
    const struct wire_success_entry success = {
        .lease = lease,
        .duration_us = duration_us,
        .body = bytes_from_text("2"),
    };
    worker_session_succeed(session, now_ms, &success);
}

static void when_it_succeeds(uint64_t lease)
{
    when_it_succeeds_after_us(lease, 50000);
}

static void when_it_fails(uint64_t lease, enum failure_kind kind)
{
    const struct wire_failure_entry failure = {
        .lease = lease,
        .kind = kind,
        .name = bytes_from_text("exit.1"),
        .message = bytes_from_text("no such file"),
        .trace = bytes_from_text("a trace"),
    };
    worker_session_fail(session, now_ms, &failure);
}

static void when_time_passes_ms(uint64_t span_ms)
{
    now_ms += span_ms;
    worker_session_on_time(session, now_ms);
    worker_session_check(session);
}

/* ---- greeting ---- */

static void test_the_first_message_of_a_connection_is_hello_with_number_one(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 3);
    then_it_sends_nothing();
    assert_true(worker_session_next_at_ms(session) == UINT64_MAX);

    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    assert_int_equal(sent.number, 1);
    assert_int_equal(sent.as.hello.role, ROLE_WORKER);
    assert_int_equal(sent.as.hello.slots, 3);
    assert_text(sent.as.hello.name, "host1:42");
    assert_text(sent.as.hello.host, "host1");
    struct wire_list serves = sent.as.hello.serves;
    struct wire_serve serve;
    assert_true(wire_serve_next(&serves, &serve));
    assert_text(serve.pattern, "wc.count");
    then_it_sends_nothing();
}

static void test_hello_is_said_again_each_heartbeat_until_its_welcome(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2);
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    struct wire_welcome late = usual_welcome();
    assert_int_equal(worker_session_next_at_ms(session), now_ms + 1000);
    when_time_passes_ms(999);
    then_it_sends_nothing();
    when_time_passes_ms(1);
    then_it_sends(HELLO);
    assert_int_equal(sent.number, 2);

    when_the_broker_welcomes(late); /* the first HELLO's */
    then_it_tells_nothing();
    then_it_sends_nothing();
    when_the_broker_welcomes(usual_welcome());
    then_it_tells(WELCOME);
    assert_int_equal(told.epoch, 5);
    then_it_sends(HEARTBEAT);
    assert_int_equal(sent.number, 3);
    assert_int_equal(sent.upto, 2);
}

static void test_a_doubled_welcome_changes_nothing(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2);
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    const struct wire_welcome welcome = usual_welcome();
    when_the_broker_welcomes(welcome);
    then_it_tells(WELCOME);
    then_it_sends(HEARTBEAT);
    when_leases_are_dispatched(1, 1);
    struct message message = {.kind = MESSAGE_WELCOME, .as.welcome = welcome};
    say_with_number(&message, 1);
    then_it_starts(1);
    then_it_tells_nothing();
    assert_int_equal(worker_session_counts(session).dispatched, 1);
}

static void test_heartbeats_fill_the_silence_only(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1);
    given_a_session();
    when_leases_are_dispatched(1, 1);
    then_it_starts(1);
    when_time_passes_ms(900);
    when_it_succeeds(1);
    then_it_sends(RESULT);
    when_time_passes_ms(999);
    then_it_sends_nothing();
    when_time_passes_ms(1);
    then_it_sends(HEARTBEAT);
    then_it_sends_nothing();
}

static void test_a_silent_broker_is_greeted_again_on_a_new_connection(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1);
    given_a_session();
    when_time_passes_ms(2999);
    then_it_sends(HEARTBEAT);
    then_it_tells_nothing();
    when_time_passes_ms(1);
    then_it_tells(LOST);
    then_it_tells(RECONNECT);
    then_it_sends(HELLO);

    worker_session_on_disconnected(session, now_ms);
    then_it_tells_nothing();
    then_it_sends_nothing();
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    when_time_passes_ms(3000);
    then_it_tells(RECONNECT);
}

static void test_hello_first_is_answered_once(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1);
    given_a_session();
    when_refused(REFUSED_HELLO_FIRST);
    then_it_sends(HELLO);
    when_refused(REFUSED_HELLO_FIRST); /* of a message sent before that */
    then_it_sends_nothing();
    when_the_session_resumes(0);
    then_it_sends(HEARTBEAT);
}

static void test_a_replaced_worker_ends(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1);
    given_a_session();
    when_refused(REFUSED_REPLACED);
    then_it_tells(REFUSED);
    assert_true(told.is_final);
    assert_int_equal(told.code, REFUSED_REPLACED);
    assert_text(told.text, "because");
    when_time_passes_ms(60000);
    worker_session_on_connected(session, now_ms);
    then_it_sends_nothing();
    assert_true(worker_session_next_at_ms(session) == UINT64_MAX);
}

static void test_a_limit_refused_is_tried_again_after_the_span_it_names(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1);
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    struct message message = {
        .kind = MESSAGE_REFUSED,
        .as.refused = {.code = REFUSED_LIMIT, .retry_after_ms = 10000},
    };
    say_with_number(&message, 0);
    then_it_tells(REFUSED);
    assert_false(told.is_final);
    when_time_passes_ms(9999);
    then_it_tells_nothing(); /* no new socket meanwhile */
    then_it_sends_nothing();
    when_time_passes_ms(1);
    then_it_sends(HELLO);
}

static void test_goodbye_of_the_broker_is_followed_by_hello(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1);
    given_a_session();
    when_told(MESSAGE_GOODBYE);
    then_it_tells(LOST);
    then_it_sends_nothing();
    when_time_passes_ms(1000);
    then_it_sends(HELLO);
}

/* ---- numbers ---- */

static void test_a_doubled_message_is_dropped(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2);
    given_a_session();
    when_leases_are_dispatched(1, 1);
    struct message message = dispatch_message(9, 1);
    say_with_number(&message, broker_number);
    then_it_starts(1);
    then_it_tells_nothing();
    assert_int_equal(worker_session_counts(session).doubles, 1);
}

static void test_a_gap_is_answered_with_hello_and_all_is_ignored_until_the_welcome(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 4);
    given_a_session();
    when_leases_are_dispatched(1, 1);
    then_it_starts(1);
    broker_number++; /* a message is lost */
    when_leases_are_dispatched(3, 1);
    then_it_tells_nothing();
    then_it_sends(HELLO);
    then_hello_names(1, HELD_RUNNING);
    when_leases_are_dispatched(4, 1);
    then_it_tells_nothing();
    assert_int_equal(worker_session_counts(session).gaps, 1);
    assert_int_equal(worker_session_counts(session).ignored, 1);

    when_the_session_resumes(1); /* 2 and 3 were in doubt: given up */
    then_it_sends(HEARTBEAT);
    assert_int_equal(sent.upto, 4);
    when_leases_are_dispatched(5, 1);
    then_it_starts(5);
}

static void test_what_a_lost_connection_had_delivered_still_counts(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2);
    given_a_session();
    worker_session_on_disconnected(session, now_ms);
    then_it_tells(LOST);
    when_leases_are_dispatched(1, 1); /* was in the pipe */
    then_it_tells_nothing();          /* nothing starts without a session */
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    then_hello_names(1, HELD_QUEUED);
    when_the_session_resumes(1);
    then_it_starts(1);
}

static void test_a_message_that_could_not_be_sent_leads_to_hello(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1);
    given_a_session();
    when_leases_are_dispatched(1, 1);
    then_it_starts(1);
    when_it_succeeds(1);
    then_it_sends(RESULT);
    worker_session_on_unsent(session, now_ms);
    then_it_sends_nothing();
    when_time_passes_ms(1000);
    then_it_sends(HELLO);
    then_hello_names(1, HELD_FINISHED);
    when_the_session_resumes(1);
    then_it_sends(RESULT);
    assert_true(has_success(1));
}

/* ---- resuming ---- */

static void test_hello_names_every_lease_held_in_its_state(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2, .prefetch_max = 8);
    given_a_session();
    when_leases_are_dispatched(1, 4);
    then_it_starts(1);
    then_it_starts(2);
    when_it_succeeds(1);
    then_it_starts(3);
    worker_session_on_disconnected(session, now_ms);
    then_it_tells(LOST);
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    then_hello_names(1, HELD_FINISHED, 2, HELD_RUNNING, 3, HELD_RUNNING, 4, HELD_QUEUED);
}

static void test_results_are_offered_again_until_they_are_acknowledged(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2);
    given_a_session();
    when_leases_are_dispatched(1, 2);
    then_it_starts(1);
    then_it_starts(2);
    when_it_succeeds(1);
    then_it_sends(RESULT);
    worker_session_on_disconnected(session, now_ms);
    then_it_tells(LOST);
    when_it_succeeds(2);
    then_it_sends_nothing();

    for (int i = 0; i < 2; i++) {
        worker_session_on_connected(session, now_ms);
        then_it_sends(HELLO);
        then_hello_names(1, HELD_FINISHED, 2, HELD_FINISHED);
        when_the_session_resumes(2);
        then_it_sends(RESULT);
        assert_true(has_success(1) && has_success(2));
        then_it_sends_nothing();
        worker_session_on_disconnected(session, now_ms);
        then_it_tells(LOST);
    }
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    when_the_session_resumes(2);
    when_results_are_acknowledged(1, 1, false);
    then_it_sends(RESULT);
    assert_true(!has_success(1) && has_success(2));
    when_results_are_acknowledged(2, 1, true);
    assert_int_equal(worker_session_counts(session).finished, 0);
    assert_int_equal(worker_session_counts(session).stale, 1);
}

static void test_leases_of_an_older_epoch_are_held_until_they_end(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2, .prefetch_max = 8);
    given_a_session();
    when_leases_are_dispatched(1, 3);
    then_it_starts(1);
    then_it_starts(2);
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    struct wire_welcome welcome = usual_welcome();
    welcome.epoch = 6;
    when_the_broker_welcomes(welcome);
    then_it_tells(LOST);
    then_it_tells(WELCOME);
    assert_false(told.is_resumed);

    then_it_sends(RETURNED); /* 3 had not started: somebody else's by now */
    assert_int_equal(lease_of_next(&sent.as.returned.entries), 3);
    assert_int_equal(sent.upto, 0); /* both slots are in use */
    when_it_succeeds(1);
    then_it_sends(RESULT);
    assert_int_equal(sent.upto, 1);
    when_leases_are_dispatched(100, 1);
    then_it_starts(100);
    when_it_fails(2, FAILURE_TRANSIENT);
    then_it_sends(RESULT);
    assert_int_equal(sent.upto, 2);
    when_results_are_acknowledged(1, 2, true);
    assert_int_equal(worker_session_counts(session).finished, 0);
}

/* ---- credit ---- */

static void test_credit_is_what_has_ended_and_the_slots(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 3);
    given_a_session();
    assert_int_equal(sent.upto, 3);
    when_leases_are_dispatched(1, 3);
    then_it_starts(1);
    then_it_starts(2);
    then_it_starts(3);
    then_it_sends_nothing();
    when_it_succeeds(2);
    then_it_sends(RESULT);
    assert_int_equal(sent.upto, 4);
    when_it_fails(1, FAILURE_TRANSIENT);
    when_it_succeeds(3);
    then_it_sends(RESULT); /* one message for what has ended so far */
    assert_int_equal(sent.as.result.successes.count, 1);
    assert_int_equal(sent.as.result.failures.count, 1);
    assert_int_equal(sent.upto, 6);
    assert_int_equal(worker_session_counts(session).over_credit, 0);
}

static void test_credit_counts_from_the_welcome(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2);
    given_a_session();
    when_leases_are_dispatched(1, 2);
    then_it_starts(1);
    then_it_starts(2);
    worker_session_on_disconnected(session, now_ms);
    then_it_tells(LOST);
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    assert_int_equal(sent.upto, 0);
    when_the_session_resumes(2);
    assert_int_equal(worker_session_counts(session).granted, 2);
    when_it_succeeds(1);
    then_it_sends(RESULT);
    assert_int_equal(sent.upto, 3);
}

/* Runs one task of this length. */
static void when_a_task_runs(uint64_t lease, uint64_t duration_us)
{
    when_leases_are_dispatched(lease, 1);
    then_it_starts(lease);
    when_it_succeeds_after_us(lease, duration_us);
    then_it_sends(RESULT);
    when_results_are_acknowledged(lease, 1, false);
}

static void test_prefetch_follows_measured_handler_time(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2, .prefetch_max = 1000);
    given_a_session();
    assert_int_equal(sent.upto, 2); /* nothing is measured yet */
    when_a_task_runs(1, 100);
    assert_int_equal(sent.upto, 1 + 2 + 40); /* 2 ms of work for each slot */
    when_a_task_runs(2, 100);
    assert_int_equal(sent.upto, 2 + 2 + 40);

    uint64_t lease = 3;
    while (lease < 60) { /* handlers of 50 ms: no prefetch, but no credit taken back either */
        when_a_task_runs(lease, 50000);
        assert_true(sent.upto >= 44);
        lease++;
    }
    assert_int_equal(sent.upto, lease - 1 + 2);
}

static void test_prefetch_has_a_maximum(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2, .prefetch_max = 16);
    given_a_session();
    when_a_task_runs(1, 0);
    assert_int_equal(sent.upto, 1 + 2 + 16);
}

static void test_a_lease_granted_twice_runs_once(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 4);
    given_a_session();
    when_leases_are_dispatched(1, 1);
    when_leases_are_dispatched(1, 1);
    then_it_starts(1);
    then_it_tells_nothing();
    assert_int_equal(worker_session_counts(session).granted_twice, 1);
    when_it_succeeds(1);
    then_it_sends(RESULT);
    assert_int_equal(sent.upto, 6);
}

static void test_a_broker_beyond_the_window_is_counted(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2);
    given_a_session();
    when_leases_are_dispatched(1, 3);
    assert_int_equal(worker_session_counts(session).over_credit, 1);
}

static void test_results_nobody_acknowledges_end_the_taking_of_work(void **unused)
{
    (void)unused;
    static uint8_t body[BODY_SIZE_DEFAULT];
    given_a_worker(.slots = 1);
    given_a_session();
    uint64_t lease = 1;
    uint64_t upto = sent.upto;
    while (upto == lease && lease < 100) {
        when_leases_are_dispatched(lease, 1);
        then_it_starts(lease);
        const struct wire_success_entry success = {
            .lease = lease,
            .duration_us = 20000,
            .body = {body, sizeof(body)},
        };
        worker_session_succeed(session, now_ms, &success);
        then_it_sends(RESULT);
        upto = sent.upto;
        lease++;
    }
    assert_int_equal(lease, 18); /* 64 MiB and one more */
    when_results_are_acknowledged(1, 1, false);
    then_it_sends(HEARTBEAT); /* the broker may wait for a grant */
    assert_int_equal(sent.upto, lease);
}

/* ---- running ---- */

static void test_tasks_start_in_dispatch_order_when_a_slot_is_free(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2, .prefetch_max = 8);
    given_a_session();
    when_leases_are_dispatched(7, 2);
    when_leases_are_dispatched(3, 2);
    then_it_starts(7);
    then_it_starts(8);
    then_it_tells_nothing();
    when_it_succeeds(8);
    then_it_starts(3);
    then_it_tells_nothing();
    when_it_fails(7, FAILURE_CRASH);
    then_it_starts(4);
}

static void test_the_handler_learns_all_that_was_dispatched(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1, .prefetch_max = 8);
    given_a_session();
    task_given = (struct task_given){.timeout_ms = 700, .grace_ms = 90, .deadline_left_ms = 5000};
    when_leases_are_dispatched(1, 2);
    task_given = (struct task_given){0};
    memset(broker_out.data, 0xff, broker_out.capacity); /* nothing borrowed is kept */
    then_it_starts(1);
    assert_text(told.attempt->service, "wc");
    assert_text(told.attempt->task, "count");
    assert_text(told.attempt->body, "one two");
    assert_int_equal(told.attempt->dispatch, 1);
    assert_int_equal(told.attempt->attempts_max, 4);
    assert_int_equal(told.attempt->timeout_ms, 700);
    assert_int_equal(told.attempt->grace_ms, 90);
    assert_int_equal(told.attempt->deadline_left_ms, 5000);
    now_ms += 300;
    when_it_succeeds(1);
    then_it_starts(2);
    assert_int_equal(told.attempt->deadline_left_ms, 4700);
}

static void test_a_result_over_the_brokers_limit_is_a_finalize_failure(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1);
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    struct wire_welcome welcome = usual_welcome();
    welcome.body_size_max = 3;
    when_the_broker_welcomes(welcome);
    then_it_tells(WELCOME);
    when_leases_are_dispatched(1, 1);
    then_it_starts(1);
    const struct wire_success_entry success = {.lease = 1, .body = bytes_from_text("four")};
    worker_session_succeed(session, now_ms, &success);
    then_it_sends(RESULT);
    assert_int_equal(failure_of(1).kind, FAILURE_FINALIZE);
}

static void test_large_results_go_in_messages_of_their_own(void **unused)
{
    (void)unused;
    static uint8_t body[1024 * 1024];
    given_a_worker(.slots = 3);
    given_a_session();
    when_leases_are_dispatched(1, 3);
    then_it_starts(1);
    then_it_starts(2);
    then_it_starts(3);
    const struct wire_success_entry success = {.lease = 1, .body = {body, sizeof(body)}};
    worker_session_succeed(session, now_ms, &success);
    when_it_fails(2, FAILURE_TRANSIENT);
    when_it_succeeds(3);
    then_it_sends(RESULT);
    assert_int_equal(sent.as.result.successes.count, 1);
    assert_int_equal(sent.as.result.failures.count, 0);
    then_it_sends(RESULT);
    assert_int_equal(sent.as.result.successes.count, 1);
    assert_int_equal(sent.as.result.failures.count, 1);
    then_it_sends_nothing();
}

static void test_a_result_message_keeps_to_the_number_of_entries_admitted(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 5);
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    struct wire_welcome welcome = usual_welcome();
    welcome.entry_count_max = 2;
    when_the_broker_welcomes(welcome);
    then_it_tells(WELCOME);
    then_it_sends(HEARTBEAT);
    when_leases_are_dispatched(1, 5);
    for (uint64_t lease = 1; lease <= 5; lease++) {
        then_it_starts(lease);
        when_it_succeeds(lease);
    }
    const uint32_t expected[] = {2, 2, 1};
    for (int i = 0; i < 3; i++) {
        then_it_sends(RESULT);
        assert_int_equal(sent.as.result.successes.count, expected[i]);
    }
    then_it_sends_nothing();
}

/* ---- recall and cancel ---- */

static void test_recall_takes_back_only_what_has_not_started(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1, .prefetch_max = 8);
    given_a_session();
    when_leases_are_dispatched(1, 2);
    then_it_starts(1);
    when_told_of_lease(MESSAGE_RECALL, 1);
    then_it_sends_nothing();
    then_it_tells_nothing();
    when_told_of_lease(MESSAGE_RECALL, 2);
    then_it_sends(RETURNED);
    assert_int_equal(lease_of_next(&sent.as.returned.entries), 2);
    when_told_of_lease(MESSAGE_RECALL, 99);
    then_it_sends_nothing();
    when_it_succeeds(1);
    then_it_tells_nothing();
    then_it_sends(RESULT);
    assert_int_equal(sent.upto, 3); /* two have ended, one slot */
}

static void test_a_cancelled_attempt_that_is_queued_is_returned(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1, .prefetch_max = 8);
    given_a_session();
    when_leases_are_dispatched(1, 2);
    then_it_starts(1);
    when_told_of_lease(MESSAGE_CANCEL_ATTEMPT, 2);
    then_it_tells_nothing();
    then_it_sends(RETURNED);
    assert_int_equal(lease_of_next(&sent.as.returned.entries), 2);
}

static void test_a_cancelled_attempt_that_runs_has_its_grace(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2);
    given_a_session_of_liveness(1000);
    when_leases_are_dispatched(1, 2);
    then_it_starts(1);
    then_it_starts(2);
    when_told_of_lease(MESSAGE_CANCEL_ATTEMPT, 1);
    then_it_tells(CANCEL);
    assert_int_equal(told.lease, 1);
    when_told_of_lease(MESSAGE_CANCEL_ATTEMPT, 1);
    then_it_tells_nothing();
    when_told_of_lease(MESSAGE_CANCEL_ATTEMPT, 2);
    then_it_tells(CANCEL);
    when_it_succeeds(2); /* success wins */
    when_time_passes_ms(4999);
    then_it_tells_nothing();
    when_time_passes_ms(1);
    then_it_tells(KILL);
    assert_int_equal(told.lease, 1);
    then_it_tells_nothing();
    when_it_fails(1, FAILURE_CRASH);
    then_it_sends(RESULT);
    assert_true(has_success(2));
    assert_int_equal(failure_of(1).kind, FAILURE_CANCELLED);
}

/* ---- attempts that wait in the execution ---- */

/* Two slots, room for four: lease 1 runs, 2 and 3 wait. */
static void given_two_that_wait(void)
{
    given_a_worker(.slots = 2, .prefetch_max = 8);
    given_a_session_of_liveness(1000);
    worker_session_set_room(session, 3);
    when_leases_are_dispatched(1, 4);
    then_it_starts(1);
    then_it_hands_in(2);
    then_it_hands_in(3);
    then_it_tells_nothing();
    const struct worker_session_counts counts = worker_session_counts(session);
    assert_int_equal(counts.running, 1);
    assert_int_equal(counts.waiting, 2);
    assert_int_equal(counts.queued, 1);
}

static void test_the_execution_takes_in_as_many_as_it_has_room_for(void **unused)
{
    (void)unused;
    given_two_that_wait();
    when_it_succeeds(1);
    then_it_hands_in(4);
    then_it_tells_nothing();
    when_it_succeeds(2); /* short ones need not tell that they started */
    then_it_sends(RESULT);
    assert_true(has_success(1));
    assert_true(has_success(2));
}

static void test_the_room_is_never_less_than_the_slots(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 2);
    given_a_session();
    worker_session_set_room(session, 1);
    when_leases_are_dispatched(1, 2);
    then_it_hands_in(1);
    then_it_hands_in(2);
}

static void test_what_waits_in_the_execution_is_recalled_and_handed_back(void **unused)
{
    (void)unused;
    given_two_that_wait();
    when_told_of_lease(MESSAGE_RECALL, 3);
    then_it_sends_nothing();
    then_it_recalls(3);
    then_it_tells_nothing();
    worker_session_on_recall(session, now_ms, 3, true);
    then_it_returns(3);
    then_it_hands_in(4); /* its room is free */
}

static void test_what_cannot_be_recalled_runs(void **unused)
{
    (void)unused;
    given_two_that_wait();
    when_told_of_lease(MESSAGE_RECALL, 2);
    then_it_recalls(2);
    worker_session_on_recall(session, now_ms, 2, false);
    then_it_tells_nothing();
    then_it_sends_nothing();
    assert_int_equal(worker_session_counts(session).running, 2);
    when_it_succeeds(2);
    then_it_sends(RESULT);
    assert_true(has_success(2));
}

static void test_a_cancelled_attempt_that_waits_is_returned_or_else_stopped(void **unused)
{
    (void)unused;
    given_two_that_wait();
    when_told_of_lease(MESSAGE_CANCEL_ATTEMPT, 2);
    when_told_of_lease(MESSAGE_CANCEL_ATTEMPT, 3);
    then_it_recalls(2);
    worker_session_on_recall(session, now_ms, 2, true);
    then_it_recalls(3);
    worker_session_on_recall(session, now_ms, 3, false);
    then_it_tells(CANCEL);
    assert_int_equal(told.lease, 3);
    then_it_returns(2);
    when_it_fails(3, FAILURE_TRANSIENT);
    then_it_sends(RESULT);
    assert_int_equal(failure_of(3).kind, FAILURE_CANCELLED);
}

static void test_an_attempt_that_starts_while_it_is_recalled_stays(void **unused)
{
    (void)unused;
    given_two_that_wait();
    when_told_of_lease(MESSAGE_RECALL, 2);
    worker_session_on_started(session, now_ms, 2);
    then_it_tells_nothing();
    when_told_of_lease(MESSAGE_RECALL, 3);
    then_it_recalls(3);
    worker_session_on_started(session, now_ms, 3);
    worker_session_on_recall(session, now_ms, 3, false);
    then_it_sends_nothing();
    assert_int_equal(worker_session_counts(session).running, 3);
}

static void test_what_died_with_its_neighbour_is_started_anew_in_its_order(void **unused)
{
    (void)unused;
    given_two_that_wait();
    when_it_fails(1, FAILURE_CRASH);
    worker_session_requeue(session, now_ms, 3);
    worker_session_requeue(session, now_ms, 2);
    worker_session_requeue(session, now_ms, 99);
    then_it_hands_in(2);
    then_it_hands_in(3);
    then_it_hands_in(4);
    then_it_sends(RESULT);
    assert_int_equal(failure_of(1).kind, FAILURE_CRASH);
    then_it_sends_nothing();
}

static void test_what_was_to_be_stopped_is_not_started_anew(void **unused)
{
    (void)unused;
    given_two_that_wait();
    worker_session_on_started(session, now_ms, 2);
    when_told_of_lease(MESSAGE_CANCEL_ATTEMPT, 2);
    then_it_tells(CANCEL);
    worker_session_requeue(session, now_ms, 2);
    then_it_sends(RESULT);
    assert_int_equal(failure_of(2).kind, FAILURE_CANCELLED);
}

static void test_nothing_that_waits_starts_without_a_session(void **unused)
{
    (void)unused;
    given_two_that_wait();
    worker_session_on_disconnected(session, now_ms);
    then_it_tells(LOST);
    then_it_recalls(2);
    worker_session_on_recall(session, now_ms, 2, true);
    then_it_recalls(3);
    worker_session_on_recall(session, now_ms, 3, true);
    then_it_tells_nothing();
    worker_session_on_connected(session, now_ms);
    then_it_sends(HELLO);
    then_hello_names(1, HELD_RUNNING, 2, HELD_QUEUED, 3, HELD_QUEUED, 4, HELD_QUEUED);
    when_the_session_resumes(4);
    then_it_hands_in(2);
    then_it_hands_in(3);
    then_it_tells_nothing();
}

static void test_drain_recalls_what_waits(void **unused)
{
    (void)unused;
    given_two_that_wait();
    worker_session_drain(session, now_ms);
    then_it_recalls(2);
    worker_session_on_recall(session, now_ms, 2, true);
    then_it_recalls(3);
    worker_session_requeue(session, now_ms, 3); /* its process died just then */
    then_it_sends(RETURNED);
    assert_int_equal(sent.as.returned.entries.count, 3);
    when_it_succeeds(1);
    then_it_sends(RESULT);
    when_results_are_acknowledged(1, 1, false);
    then_it_sends(GOODBYE);
    then_it_tells(DRAINED);
}

/* ---- timeouts ---- */

/* One task runs; the broker's silence is not what is looked at. */
static void given_a_running_task(struct task_given given)
{
    given_a_worker(.slots = 1);
    given_a_session_of_liveness(1000);
    task_given = given;
    when_leases_are_dispatched(1, 1);
    task_given = (struct task_given){0};
    then_it_starts(1);
}

static void test_an_attempt_is_cancelled_at_its_timeout_and_killed_after_the_grace(void **unused)
{
    (void)unused;
    given_a_running_task((struct task_given){.timeout_ms = 300, .grace_ms = 200});
    assert_int_equal(worker_session_next_at_ms(session), now_ms + 300);
    when_time_passes_ms(299);
    then_it_tells_nothing();
    when_time_passes_ms(1);
    then_it_tells(CANCEL);
    then_it_tells_nothing();
    assert_int_equal(worker_session_next_at_ms(session), now_ms + 200);
    when_time_passes_ms(199);
    then_it_tells_nothing();
    when_time_passes_ms(1);
    then_it_tells(KILL);
    then_it_tells_nothing();
    when_it_fails(1, FAILURE_CRASH);
    then_it_sends(RESULT);
    const struct wire_failure_entry failure = failure_of(1);
    assert_int_equal(failure.kind, FAILURE_TIMEOUT);
    assert_text(failure.name, "timeout");
    assert_text(failure.message, "ran past its timeout of 300ms");
    assert_text(failure.trace, "a trace");
}

static void test_the_timeout_counts_from_the_start_of_the_handler(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1);
    given_a_session_of_liveness(1000);
    task_given = (struct task_given){.timeout_ms = 300, .grace_ms = 200};
    when_leases_are_dispatched(1, 1);
    task_given = (struct task_given){0};
    then_it_hands_in(1);
    when_time_passes_ms(5000);
    then_it_tells_nothing();
    worker_session_on_started(session, now_ms, 1);
    when_time_passes_ms(200);
    worker_session_on_started(session, now_ms, 1); /* told twice changes nothing */
    when_time_passes_ms(99);
    then_it_tells_nothing();
    when_time_passes_ms(1);
    then_it_tells(CANCEL);
}

static void test_success_within_the_grace_counts(void **unused)
{
    (void)unused;
    given_a_running_task((struct task_given){.timeout_ms = 300, .grace_ms = 200});
    when_time_passes_ms(300);
    then_it_tells(CANCEL);
    when_time_passes_ms(199);
    when_it_succeeds(1);
    then_it_sends(RESULT);
    assert_true(has_success(1));
    when_time_passes_ms(1);
    then_it_tells_nothing();
}

static void test_success_after_the_grace_is_a_timeout(void **unused)
{
    (void)unused;
    given_a_running_task((struct task_given){.timeout_ms = 300, .grace_ms = 200});
    now_ms += 500; /* the report comes before the clock was looked at */
    when_it_succeeds(1);
    then_it_tells_nothing();
    then_it_sends(RESULT);
    assert_int_equal(failure_of(1).kind, FAILURE_TIMEOUT);
}

static void test_cancel_and_kill_come_in_order_when_time_jumps(void **unused)
{
    (void)unused;
    given_a_running_task((struct task_given){.timeout_ms = 300, .grace_ms = 200});
    when_time_passes_ms(10000);
    then_it_tells(CANCEL);
    then_it_tells(KILL);
    then_it_tells_nothing();
}

static void test_progress_puts_the_progress_timeout_off(void **unused)
{
    (void)unused;
    const struct wire_list no_meta = {0};
    given_a_running_task((struct task_given){.progress_timeout_ms = 100, .grace_ms = 50});
    for (int i = 0; i < 5; i++) {
        when_time_passes_ms(99);
        worker_session_progress(session, now_ms, 1, &no_meta);
        then_it_tells_nothing();
        then_it_sends(PROGRESS);
        then_it_sends_nothing();
    }
    when_time_passes_ms(100);
    then_it_tells(CANCEL);
    when_time_passes_ms(50);
    then_it_tells(KILL);
    when_it_fails(1, FAILURE_CRASH);
    then_it_sends(RESULT);
    assert_int_equal(failure_of(1).kind, FAILURE_TIMEOUT);
    assert_text(failure_of(1).name, "progress_timeout");
}

static void test_meta_of_the_last_progress_goes_with_the_end(void **unused)
{
    (void)unused;
    given_a_running_task((struct task_given){0});
    const struct wire_meta_item item = {bytes_from_text("step"), bytes_from_text("7")};
    struct writer meta_writer;
    writer_init(&meta_writer);
    assert_true(wire_meta_item_encode(&meta_writer, &item));
    const struct wire_list meta = wire_list_from_writer(&meta_writer, 1);
    worker_session_progress(session, now_ms, 1, &meta);
    writer_free(&meta_writer);
    when_it_fails(1, FAILURE_CRASH);
    then_it_sends(RESULT);
    struct wire_list list = failure_of(1).meta;
    struct wire_meta_item last;
    assert_true(wire_meta_item_next(&list, &last));
    assert_text(last.name, "step");
    assert_text(last.value, "7");
    then_it_sends_nothing();
}

static void test_an_end_reported_twice_counts_once(void **unused)
{
    (void)unused;
    given_a_running_task((struct task_given){0});
    when_it_succeeds(1);
    when_it_fails(1, FAILURE_CRASH);
    then_it_sends(RESULT);
    assert_true(has_success(1));
    assert_int_equal(sent.as.result.failures.count, 0);
    then_it_sends_nothing();
}

/* ---- drain ---- */

static void test_drain_returns_the_queued_finishes_the_running_and_says_goodbye(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1, .prefetch_max = 8);
    given_a_session();
    when_leases_are_dispatched(1, 3);
    then_it_starts(1);
    when_told(MESSAGE_DRAIN);
    then_it_tells(DRAINING);
    assert_int_equal(worker_session_counts(session).running, 1);
    when_told(MESSAGE_DRAIN); /* once more is no news */
    then_it_tells_nothing();
    then_it_sends(RETURNED);
    assert_int_equal(sent.as.returned.entries.count, 2);
    assert_int_equal(sent.upto, 3); /* what has been dispatched, and no more */
    then_it_sends_nothing();
    when_leases_are_dispatched(9, 1); /* was on its way */
    then_it_tells_nothing();
    then_it_sends(RETURNED);
    assert_int_equal(sent.upto, 4);

    when_it_succeeds(1);
    then_it_sends(RESULT);
    assert_int_equal(sent.upto, 4);
    then_it_sends_nothing();
    then_it_tells_nothing();
    when_results_are_acknowledged(1, 1, false);
    then_it_tells_nothing();
    then_it_sends(GOODBYE);
    then_it_tells(DRAINED);
    then_it_tells_nothing();
    then_it_sends_nothing();
}

static void test_drain_stops_what_runs_too_long(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1, .drain_ms = 2000);
    given_a_session();
    when_leases_are_dispatched(1, 1);
    then_it_starts(1);
    worker_session_drain(session, now_ms);
    worker_session_drain(session, now_ms);
    when_time_passes_ms(1999);
    then_it_tells_nothing();
    when_time_passes_ms(1);
    then_it_tells(CANCEL);
    when_told(MESSAGE_HEARTBEAT);
    when_time_passes_ms(2000);
    when_told(MESSAGE_HEARTBEAT);
    when_time_passes_ms(2999);
    when_told(MESSAGE_HEARTBEAT);
    when_time_passes_ms(1);
    then_it_tells(KILL);
    when_it_fails(1, FAILURE_CRASH);
    then_it_sends(RESULT);
    assert_int_equal(failure_of(1).kind, FAILURE_TRANSIENT);
    assert_text(failure_of(1).name, "drain");
    then_it_tells_nothing();
    when_results_are_acknowledged(1, 1, false);
    then_it_sends(GOODBYE);
    then_it_tells(DRAINED);
}

static void test_a_drained_worker_does_not_wait_for_acknowledgements_for_ever(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1, .drain_ms = 2000);
    given_a_session();
    when_leases_are_dispatched(1, 1);
    then_it_starts(1);
    worker_session_drain(session, now_ms);
    when_it_succeeds(1);
    then_it_sends(RESULT);
    for (int i = 0; i < 3; i++) {
        then_it_tells_nothing();
        when_told(MESSAGE_HEARTBEAT);
        when_time_passes_ms(1000);
        if (i < 2) {
            then_it_sends(HEARTBEAT);
        } else {
            then_it_sends(GOODBYE);
        }
    }
    then_it_tells(DRAINED);
}

static void test_drain_without_a_broker_ends_at_once_when_nothing_is_held(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1);
    worker_session_drain(session, now_ms);
    then_it_tells(DRAINED);
    then_it_tells_nothing();
}

static void
test_a_drained_worker_that_loses_its_broker_ends_when_its_results_had_their_time(void **unused)
{
    (void)unused;
    given_a_worker(.slots = 1, .drain_ms = 2000);
    given_a_session();
    when_leases_are_dispatched(1, 1);
    then_it_starts(1);
    worker_session_drain(session, now_ms);
    worker_session_on_disconnected(session, now_ms);
    then_it_tells(LOST);
    when_it_succeeds(1);
    when_time_passes_ms(2999);
    then_it_tells_nothing();
    assert_int_equal(worker_session_next_at_ms(session), now_ms + 1);
    when_time_passes_ms(1);
    then_it_tells(DRAINED);
}

int main(void)
{
#define SENTENCE(name) cmocka_unit_test_setup_teardown(name, start, end)
    const struct CMUnitTest tests[] = {
        SENTENCE(test_the_first_message_of_a_connection_is_hello_with_number_one),
        SENTENCE(test_hello_is_said_again_each_heartbeat_until_its_welcome),
        SENTENCE(test_a_doubled_welcome_changes_nothing),
        SENTENCE(test_heartbeats_fill_the_silence_only),
        SENTENCE(test_a_silent_broker_is_greeted_again_on_a_new_connection),
        SENTENCE(test_hello_first_is_answered_once),
        SENTENCE(test_a_replaced_worker_ends),
        SENTENCE(test_a_limit_refused_is_tried_again_after_the_span_it_names),
        SENTENCE(test_goodbye_of_the_broker_is_followed_by_hello),
        SENTENCE(test_a_doubled_message_is_dropped),
        SENTENCE(test_a_gap_is_answered_with_hello_and_all_is_ignored_until_the_welcome),
        SENTENCE(test_what_a_lost_connection_had_delivered_still_counts),
        SENTENCE(test_a_message_that_could_not_be_sent_leads_to_hello),
        SENTENCE(test_hello_names_every_lease_held_in_its_state),
        SENTENCE(test_results_are_offered_again_until_they_are_acknowledged),
        SENTENCE(test_leases_of_an_older_epoch_are_held_until_they_end),
        SENTENCE(test_credit_is_what_has_ended_and_the_slots),
        SENTENCE(test_credit_counts_from_the_welcome),
        SENTENCE(test_prefetch_follows_measured_handler_time),
        SENTENCE(test_prefetch_has_a_maximum),
        SENTENCE(test_a_lease_granted_twice_runs_once),
        SENTENCE(test_a_broker_beyond_the_window_is_counted),
        SENTENCE(test_results_nobody_acknowledges_end_the_taking_of_work),
        SENTENCE(test_tasks_start_in_dispatch_order_when_a_slot_is_free),
        SENTENCE(test_the_handler_learns_all_that_was_dispatched),
        SENTENCE(test_a_result_over_the_brokers_limit_is_a_finalize_failure),
        SENTENCE(test_large_results_go_in_messages_of_their_own),
        SENTENCE(test_a_result_message_keeps_to_the_number_of_entries_admitted),
        SENTENCE(test_recall_takes_back_only_what_has_not_started),
        SENTENCE(test_a_cancelled_attempt_that_is_queued_is_returned),
        SENTENCE(test_a_cancelled_attempt_that_runs_has_its_grace),
        SENTENCE(test_the_execution_takes_in_as_many_as_it_has_room_for),
        SENTENCE(test_the_room_is_never_less_than_the_slots),
        SENTENCE(test_what_waits_in_the_execution_is_recalled_and_handed_back),
        SENTENCE(test_what_cannot_be_recalled_runs),
        SENTENCE(test_a_cancelled_attempt_that_waits_is_returned_or_else_stopped),
        SENTENCE(test_an_attempt_that_starts_while_it_is_recalled_stays),
        SENTENCE(test_what_died_with_its_neighbour_is_started_anew_in_its_order),
        SENTENCE(test_what_was_to_be_stopped_is_not_started_anew),
        SENTENCE(test_nothing_that_waits_starts_without_a_session),
        SENTENCE(test_drain_recalls_what_waits),
        SENTENCE(test_an_attempt_is_cancelled_at_its_timeout_and_killed_after_the_grace),
        SENTENCE(test_the_timeout_counts_from_the_start_of_the_handler),
        SENTENCE(test_success_within_the_grace_counts),
        SENTENCE(test_success_after_the_grace_is_a_timeout),
        SENTENCE(test_cancel_and_kill_come_in_order_when_time_jumps),
        SENTENCE(test_progress_puts_the_progress_timeout_off),
        SENTENCE(test_meta_of_the_last_progress_goes_with_the_end),
        SENTENCE(test_an_end_reported_twice_counts_once),
        SENTENCE(test_drain_returns_the_queued_finishes_the_running_and_says_goodbye),
        SENTENCE(test_drain_stops_what_runs_too_long),
        SENTENCE(test_a_drained_worker_does_not_wait_for_acknowledgements_for_ever),
        SENTENCE(test_drain_without_a_broker_ends_at_once_when_nothing_is_held),
        SENTENCE(test_a_drained_worker_that_loses_its_broker_ends_when_its_results_had_their_time),
    };
    return cmocka_run_group_tests_name("worker_session", tests, NULL, NULL);
}
