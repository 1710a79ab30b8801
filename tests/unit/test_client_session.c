/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/session.h"

#define HEARTBEAT_MS 1000
#define EPOCH        7

/* The client under test, what it sent last, and the little of a broker that answers it. */
static struct client_session *session;
static uint64_t now_ms;
static struct message sent;
static struct client_event *event;
static uint64_t broker_number; /* of the broker's last message */
static struct writer entries;
static uint64_t broker_body_size_max;
static uint64_t byte_max;

static struct treadle_task_id id_of(unsigned number)
{
    struct treadle_task_id id = {{0}};
    id.bytes[14] = (uint8_t)(number >> 8);
    id.bytes[15] = (uint8_t)number;
    return id;
}

static void given_a_session_with(uint64_t window_size, uint32_t window_count)
{
    const struct client_session_config config = {
        .name = bytes_from_text("client"),
        .host = bytes_from_text("here"),
        .incarnation = {1, 2, 3},
        .seed = 42,
        .in_flight_max = 20000,
        .byte_max = byte_max,
        .window_size = window_size,
        .window_count = window_count,
    };
    now_ms = 1000000;
    broker_number = 0;
    broker_body_size_max = BODY_SIZE_DEFAULT;
    event = NULL;
    writer_init(&entries);
    session = client_session_create(&config);
    assert_non_null(session);
}

static int end(void **unused)
{
    (void)unused;
    byte_max = 0;
    client_event_destroy(&event);
    writer_free(&entries);
    client_session_destroy(&session);
    assert_null(session);
    return 0;
}

/* ---- what it does ---- */

/* Takes the next message into `sent`; false if it has nothing to say. */
static bool it_sends(void)
{
    const struct wire_frames *frames = client_session_take_message(session, now_ms);
    if (frames == NULL) {
        return false;
    }
    assert_int_equal(message_decode(&sent, frames, &wire_limits_protocol), WIRE_OK);
    return true;
}

#define then_it_sends(expected)                                                                    \
    do {                                                                                           \
        assert_true(it_sends());                                                                   \
        assert_string_equal(message_kind_text((uint64_t)sent.kind),                                \
                            message_kind_text((uint64_t)(expected)));                              \
    } while (0)

#define then_it_is_silent() assert_false(it_sends())

static bool an_event_comes(void)
{
    client_event_destroy(&event);
    event = client_session_take_event(session, NULL, NULL);
    return event != NULL;
}

#define then_an_event_comes(expected)                                                              \
    do {                                                                                           \
        assert_true(an_event_comes());                                                             \
        assert_int_equal(event->kind, (expected));                                                 \
    } while (0)

#define then_no_event_comes() assert_false(an_event_comes())

static void when_time_passes_ms(uint64_t span_ms)
{
    now_ms += span_ms;
    client_session_on_time(session, now_ms);
}

/* ---- what the broker does ---- */

static void when_it_hears(struct message *message)
{
    message->number = ++broker_number;
    assert_int_equal(client_session_on_message(session, now_ms, message), TREADLE_OK);
}

static void when_it_is_welcomed_in(uint64_t epoch, bool is_resumed)
{
    static const uint8_t broker_id[16] = {9};
    struct message message = {.kind = MESSAGE_WELCOME};
    message.as.welcome = (struct wire_welcome){
        .hello_number = sent.number,
        .broker_id = {broker_id, sizeof(broker_id)},
        .epoch = epoch,
        .is_resumed = is_resumed ? 1 : 0,
        .heartbeat_ms = HEARTBEAT_MS,
        .liveness = 3,
        .body_size_max = broker_body_size_max,
        .entry_count_max = ENTRY_COUNT_MAX,
        .version = bytes_from_text("0.1.0"),
    };
    when_it_hears(&message);
}

#define when_it_is_welcomed(is_resumed) when_it_is_welcomed_in(EPOCH, (is_resumed))

static void when_the_broker_answers_because(unsigned task, enum accept_status status,
                                            enum busy_reason reason, uint64_t after_ms)
{
    struct message message = {.kind = MESSAGE_ACCEPTED};
    const struct wire_accepted_entry entry = {
        .id = id_of(task),
        .status = status,
        .reason = reason,
        .retry_after_ms = after_ms,
    };
    writer_reset(&entries);
    assert_true(wire_accepted_entry_encode(&entries, &entry));
    message.as.accepted.entries = wire_list_from_writer(&entries, 1);
    when_it_hears(&message);
}

static void when_the_broker_answers(unsigned task, enum accept_status status, uint64_t after_ms)
{
    when_the_broker_answers_because(task, status, status == ACCEPT_BUSY ? BUSY_TASKS : BUSY_NONE,
                                    after_ms);
}

static void settled_message(struct message *message, uint64_t first, unsigned task, unsigned count,
                            struct bytes body)
{
    *message = (struct message){.kind = MESSAGE_SETTLED};
    writer_reset(&entries);
    for (unsigned i = 0; i < count; i++) {
        const struct wire_settled_entry entry = {
            .id = id_of(task + i),
            .outcome = TASK_SUCCEEDED,
            .attempts = 1,
            .attempts_max = 4,
            .dispatch = 1,
            .body = body,
        };
        assert_true(wire_settled_entry_encode(&entries, &entry));
    }
    message->as.settled.first = first;
    message->as.settled.entries = wire_list_from_writer(&entries, entries.record_count);
}

/* Entries number first.. for the tasks task.. */
static void when_the_broker_settles(uint64_t first, unsigned task, unsigned count)
{
    struct message message;
    settled_message(&message, first, task, count, bytes_from_text("result"));
    when_it_hears(&message);
}

static void when_the_broker_says_of_an_await(unsigned task, enum await_status status)
{
    struct message message = {.kind = MESSAGE_AWAITED};
    const struct wire_awaited_entry entry = {.id = id_of(task), .status = status};
    writer_reset(&entries);
    assert_true(wire_awaited_entry_encode(&entries, &entry));
    message.as.awaited.entries = wire_list_from_writer(&entries, 1);
    when_it_hears(&message);
}

static void when_the_broker_answers_a_cancel(unsigned task, enum cancel_status status)
{
    struct message message = {.kind = MESSAGE_CANCELLED};
    const struct wire_cancelled_entry entry = {.id = id_of(task), .status = status};
    writer_reset(&entries);
    assert_true(wire_cancelled_entry_encode(&entries, &entry));
    message.as.cancelled.entries = wire_list_from_writer(&entries, 1);
    when_it_hears(&message);
}

static void when_the_broker_refuses(enum refused_code code, uint64_t retry_after_ms)
{
    struct message message = {.kind = MESSAGE_REFUSED};
    message.as.refused = (struct wire_refused){
        .code = code, .retry_after_ms = retry_after_ms, .text = bytes_from_text("no")};
    assert_int_equal(client_session_on_message(session, now_ms, &message), TREADLE_OK);
}

static void when_the_broker_says(enum message_kind kind)
{
    struct message message = {.kind = kind};
    when_it_hears(&message);
}

/* ---- stories begin ---- */

static void given_a_welcome_session(void)
{
    given_a_session_with(0, 0);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(false);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
}

struct submit_options {
    uint64_t deadline_ms;
    uint32_t tell;
    bool is_detached;
    bool is_id_given;
    uint8_t digest;
    struct bytes body;
    const char *service;
};

static enum treadle_status submit_with(unsigned task, const struct submit_options *options)
{
    const struct wire_submit_template fields = {
        .service = bytes_from_text(options->service != NULL ? options->service : "wc"),
        .task = bytes_from_text("count"),
        .flags = options->is_detached ? 0 : SUBMIT_WATCH,
        .policy.deadline_ms = options->deadline_ms,
    };
    const struct client_submission submission = {
        .id = id_of(task),
        .digest = {options->digest},
        .body = options->body,
        .fields = &fields,
        .tell = options->tell,
        .is_id_given = options->is_id_given,
    };
    return client_session_submit(session, now_ms, &submission);
}

#define when_it_submits_with(number, ...)                                                          \
    assert_int_equal(submit_with((number), &(const struct submit_options){__VA_ARGS__}), TREADLE_OK)
#define when_it_submits(number) when_it_submits_with((number), .tell = 0)

static struct wire_submit_entry sent_entry(unsigned place)
{
    struct wire_submit_entry entry = {0};
    struct wire_list list = sent.as.submit.entries;
    for (unsigned i = 0; i <= place; i++) {
        assert_true(wire_submit_entry_next(&list, &entry));
    }
    return entry;
}

static struct wire_submit_template sent_template(uint64_t place)
{
    struct wire_submit_template fields = {0};
    struct wire_list list = sent.as.submit.templates;
    for (uint64_t i = 0; i <= place; i++) {
        assert_true(wire_submit_template_next(&list, &fields));
    }
    return fields;
}

#define then_it_submits(expected_count)                                                            \
    do {                                                                                           \
        then_it_sends(MESSAGE_SUBMIT);                                                             \
        assert_int_equal(sent.as.submit.entries.count, (expected_count));                          \
    } while (0)

static void given_an_accepted_task(unsigned task)
{
    given_a_welcome_session();
    when_it_submits(task);
    then_it_submits(1);
    when_the_broker_answers(task, ACCEPT_OK, 0);
    then_no_event_comes();
}

static struct client_session_figures figures(void)
{
    return client_session_figures(session);
}

/* ---- HELLO and WELCOME ---- */

static void test_hello_goes_first_on_every_connection_and_counts_as_message_one(void **unused)
{
    (void)unused;
    given_a_session_with(0, 0);
    when_it_submits(1);
    then_it_is_silent();
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    assert_int_equal(sent.number, 1);
    assert_int_equal(sent.as.hello.role, ROLE_CLIENT);
    assert_true(bytes_is_equal(sent.as.hello.name, bytes_from_text("client")));
    then_it_is_silent();
    client_session_on_disconnected(session, now_ms);
    then_it_is_silent();
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    assert_int_equal(sent.number, 2);
    when_it_is_welcomed(false);
    then_it_submits(1);
    assert_int_equal(sent.number, 3);
}

static void test_hello_is_said_again_until_its_own_welcome_comes(void **unused)
{
    (void)unused;
    given_a_session_with(0, 0);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    const struct message first = sent;
    assert_int_equal(client_session_next_at_ms(session), now_ms + HEARTBEAT_MS);
    when_time_passes_ms(HEARTBEAT_MS - 1);
    then_it_is_silent();
    when_time_passes_ms(1);
    then_it_sends(MESSAGE_HELLO);
    const struct message second = sent;
    sent = first;
    when_it_is_welcomed(false);
    assert_false(client_session_is_welcome(session));
    sent = second;
    when_it_is_welcomed(false);
    assert_true(client_session_is_welcome(session));
}

static void test_doubled_welcome_changes_nothing(void **unused)
{
    (void)unused;
    given_an_accepted_task(1);
    sent.number = 1; /* the HELLO's */
    broker_number = 0;
    when_it_is_welcomed(false);
    broker_number = 2;
    then_no_event_comes();
    then_it_is_silent();
    assert_int_equal(figures().double_count, 1);
}

/* One glob; the text is gone when the session is asked. */
static void when_it_is_welcomed_with_rights_to(const char *text)
{
    char copy[16];
    (void)snprintf(copy, sizeof(copy), "%s", text);
    struct writer services;
    const struct wire_glob glob = {bytes_from_text(copy)};
    struct message message = {.kind = MESSAGE_WELCOME};
    writer_init(&services);
    assert_true(wire_glob_encode(&services, &glob));
    message.as.welcome = (struct wire_welcome){
        .hello_number = sent.number,
        .broker_id = {(const uint8_t *)copy, 0},
        .epoch = EPOCH,
        .principal = glob.text,
        .rights = RIGHT_SUBMIT,
        .services = wire_list_from_writer(&services, 1),
    };
    when_it_hears(&message);
    writer_free(&services);
    memset(copy, 0, sizeof(copy));
}

static void then_its_rights_are_to(const char *text)
{
    const struct wire_welcome *welcome = client_session_welcome(session);
    struct wire_list services = welcome->services;
    struct wire_glob glob;
    assert_true(bytes_is_equal(welcome->principal, bytes_from_text(text)));
    assert_int_equal(welcome->rights, RIGHT_SUBMIT);
    assert_true(wire_glob_next(&services, &glob));
    assert_true(bytes_is_equal(glob.text, bytes_from_text(text)));
    assert_false(wire_glob_next(&services, &glob));
}

static void test_rights_of_a_welcome_are_kept_until_the_next_one(void **unused)
{
    (void)unused;
    given_a_session_with(0, 0);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed_with_rights_to("in.*");
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    then_its_rights_are_to("in.*");
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed_with_rights_to("out.work");
    then_its_rights_are_to("out.work");
}

static void test_version_too_old_ends_the_session_for_good(void **unused)
{
    (void)unused;
    given_a_session_with(0, 0);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_the_broker_refuses(REFUSED_VERSION, 0);
    then_an_event_comes(CLIENT_EVENT_REFUSED);
    assert_int_equal(event->status, REFUSED_VERSION);
    assert_string_equal((const char *)event->text.data, "no");
    assert_true(client_session_is_over(session));
    when_time_passes_ms(60000);
    then_it_is_silent();
    assert_int_equal(client_session_next_at_ms(session), UINT64_MAX);
}

static void test_refusal_for_a_limit_is_tried_again_after_the_span_it_names(void **unused)
{
    (void)unused;
    given_a_session_with(0, 0);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_the_broker_refuses(REFUSED_LIMIT, 20000);
    then_an_event_comes(CLIENT_EVENT_REFUSED);
    assert_int_equal(client_session_next_at_ms(session), now_ms + 20000);
    when_time_passes_ms(19999);
    then_it_is_silent();
    assert_false(client_session_wants_reconnect(session));
    when_time_passes_ms(1);
    then_it_sends(MESSAGE_HELLO);
    when_time_passes_ms(1); /* the broker is silent only from now on */
    assert_false(client_session_wants_reconnect(session));
    assert_true(client_session_next_at_ms(session) > now_ms);
}

/* ---- numbers ---- */

static void test_doubled_message_is_dropped(void **unused)
{
    (void)unused;
    given_an_accepted_task(1);
    when_the_broker_settles(1, 1, 1);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    broker_number--;
    when_the_broker_settles(1, 1, 1);
    then_no_event_comes();
    assert_int_equal(figures().double_count, 1);
    when_the_broker_says(MESSAGE_HEARTBEAT); /* and the count goes on where it was */
    assert_true(client_session_is_welcome(session));
    broker_number--;
    struct message refused = {.kind = MESSAGE_REFUSED, .number = broker_number};
    refused.as.refused.code = REFUSED_LIMIT;
    assert_int_equal(client_session_on_message(session, now_ms, &refused), TREADLE_OK);
    then_no_event_comes();
    assert_true(client_session_is_welcome(session));
    broker_number += 2; /* one is lost, and the doubles did not hide it */
    when_the_broker_says(MESSAGE_HEARTBEAT);
    assert_false(client_session_is_welcome(session));
}

static void test_gap_says_hello_at_once_and_ignores_all_until_welcome(void **unused)
{
    (void)unused;
    given_an_accepted_task(1);
    when_time_passes_ms(100);
    broker_number++; /* one is lost */
    when_the_broker_says(MESSAGE_HEARTBEAT);
    assert_int_equal(figures().gap_count, 1);
    when_the_broker_settles(1, 1, 1);
    then_no_event_comes();
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(true);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    assert_true(event->is_resumed);
    then_it_is_silent();
    when_the_broker_settles(1, 1, 1);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
}

static void test_hello_first_says_hello_again_though_it_has_no_number(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_time_passes_ms(100);
    when_the_broker_refuses(REFUSED_HELLO_FIRST, 0);
    then_no_event_comes();
    then_it_sends(MESSAGE_HELLO);
    when_the_broker_refuses(REFUSED_HELLO_FIRST, 0); /* meant what was sent before this HELLO */
    then_it_is_silent();
}

static void test_peer_that_always_finds_gaps_is_not_stormed_with_hellos(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    unsigned hello_count = 0;
    for (int i = 0; i < 100; i++) {
        when_the_broker_refuses(REFUSED_HELLO_FIRST, 0);
        if (it_sends() && sent.kind == MESSAGE_HELLO) {
            hello_count++;
            when_it_is_welcomed(true);
        }
        when_time_passes_ms(1);
    }
    assert_in_range(hello_count, 4, 6);
}

static void test_kind_that_is_not_for_clients_is_a_protocol_error(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    const struct message message = {.kind = MESSAGE_RECALL, .number = broker_number + 1};
    assert_int_equal(client_session_on_message(session, now_ms, &message), TREADLE_E_PROTOCOL);
}

/* ---- being alive ---- */

static void test_heartbeat_goes_out_when_nothing_else_was_sent(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    assert_int_equal(client_session_next_at_ms(session), now_ms + HEARTBEAT_MS);
    when_time_passes_ms(HEARTBEAT_MS - 1);
    when_it_submits(1);
    then_it_submits(1);
    when_the_broker_says(MESSAGE_HEARTBEAT);
    when_time_passes_ms(HEARTBEAT_MS - 1);
    then_it_is_silent();
    when_time_passes_ms(1);
    then_it_sends(MESSAGE_HEARTBEAT);
    then_it_is_silent();
}

static void test_silence_asks_for_a_reconnect_and_says_hello(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_time_passes_ms(3 * HEARTBEAT_MS - 1);
    assert_false(client_session_wants_reconnect(session));
    when_time_passes_ms(1);
    assert_true(client_session_wants_reconnect(session));
    assert_false(client_session_wants_reconnect(session));
    assert_false(client_session_is_welcome(session));
    then_it_sends(MESSAGE_HELLO);
}

static void test_goodbye_is_the_last_word(void **unused)
{
    (void)unused;
    given_an_accepted_task(1);
    when_the_broker_settles(1, 1, 1);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    client_session_goodbye(session);
    then_it_sends(MESSAGE_GOODBYE);
    assert_int_equal(sent.upto, 1);
    when_time_passes_ms(60000);
    then_it_is_silent();
}

static void test_broker_that_says_goodbye_is_greeted_again_later(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_the_broker_says(MESSAGE_GOODBYE);
    assert_false(client_session_is_welcome(session));
    then_it_is_silent();
    when_time_passes_ms(HEARTBEAT_MS);
    then_it_sends(MESSAGE_HELLO);
}

/* ---- submitting ---- */

static void test_submissions_leave_together_and_share_templates(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_it_submits_with(1, .body = bytes_from_text("one"));
    when_it_submits_with(2, .service = "other");
    when_it_submits_with(3, .body = bytes_from_text("three"));
    then_it_submits(3);
    assert_int_equal(sent.as.submit.templates.count, 2);
    assert_int_equal(sent_entry(0).again_age_ms, 0);
    assert_int_equal(sent_entry(0).template_index, 0);
    assert_int_equal(sent_entry(1).template_index, 1);
    assert_int_equal(sent_entry(2).template_index, 0);
    assert_true(bytes_is_equal(sent_entry(2).body, bytes_from_text("three")));
    assert_true(bytes_is_equal(sent_template(1).service, bytes_from_text("other")));
    then_it_is_silent();
}

static void test_messages_keep_the_rules_for_entries_and_frames(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    static uint8_t large[100000];
    for (unsigned i = 0; i < ENTRY_COUNT_MAX + 1; i++) {
        when_it_submits(i);
    }
    then_it_submits(ENTRY_COUNT_MAX);
    then_it_submits(1);
    for (unsigned i = 0; i < 5; i++) {
        when_it_submits_with(2000 + i, .body = {large, sizeof(large)});
    }
    then_it_submits(2); /* 256 KiB of frames */
    then_it_submits(2);
    then_it_submits(1);
    then_it_is_silent();
}

static void test_what_was_not_accepted_is_submitted_again_with_its_age(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_it_submits(1);
    when_it_submits(2);
    then_it_submits(2);
    when_the_broker_answers(2, ACCEPT_OK, 0);
    when_it_submits(3); /* never sent */
    client_session_on_disconnected(session, now_ms);
    when_time_passes_ms(700);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(true);
    then_it_submits(2);
    assert_memory_equal(sent_entry(0).id.bytes, id_of(1).bytes, 16);
    assert_int_equal(sent_entry(0).again_age_ms, 701);
    assert_memory_equal(sent_entry(1).id.bytes, id_of(3).bytes, 16);
    assert_int_equal(sent_entry(1).again_age_ms, 0);
    assert_int_equal(figures().again_count, 1);
}

static void test_deadline_counts_from_the_submission_and_not_from_the_sending(void **unused)
{
    (void)unused;
    static const uint64_t left_ms[] = {3000, 1, 4000};
    given_a_session_with(0, 0);
    when_it_submits_with(1, .deadline_ms = 5000);
    when_it_submits_with(2, .deadline_ms = 1000);
    when_time_passes_ms(1000);
    when_it_submits_with(3, .deadline_ms = 5000);
    when_time_passes_ms(1050);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(false);
    then_it_submits(3);
    for (unsigned i = 0; i < 3; i++) {
        const struct wire_submit_template fields = sent_template(sent_entry(i).template_index);
        assert_int_equal(fields.policy.deadline_ms, left_ms[i]);
    }
}

static void test_accepted_is_told_only_when_asked_for(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_it_submits_with(1, .tell = CLIENT_TELL_ACCEPTED);
    when_it_submits_with(2, .is_detached = true);
    then_it_submits(2);
    assert_int_equal(figures().unaccepted_count, 2);
    when_the_broker_answers(1, ACCEPT_OK, 0);
    then_an_event_comes(CLIENT_EVENT_ACCEPTED);
    assert_int_equal(event->status, ACCEPT_OK);
    when_the_broker_answers(2, ACCEPT_EXISTING, 0);
    then_no_event_comes();
    assert_int_equal(figures().unaccepted_count, 0);
    assert_int_equal(figures().in_flight_count, 1); /* the detached one is the broker's alone */
}

static void test_what_the_broker_does_not_take_is_told_and_forgotten(void **unused)
{
    (void)unused;
    static const enum accept_status statuses[] = {ACCEPT_CONFLICT, ACCEPT_REFUSED,
                                                  ACCEPT_FATE_UNKNOWN};
    given_a_welcome_session();
    for (unsigned i = 0; i < 3; i++) {
        when_it_submits(i);
        then_it_submits(1);
        when_the_broker_answers(i, statuses[i], 0);
        then_an_event_comes(CLIENT_EVENT_ACCEPTED);
        assert_int_equal(event->status, statuses[i]);
        assert_int_equal(figures().in_flight_count, 0);
    }
}

static void test_busy_is_tried_again_later_with_jitter(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    uint64_t earliest_ms = UINT64_MAX;
    uint64_t latest_ms = 0;
    for (unsigned i = 0; i < 50; i++) {
        when_it_submits(i);
        then_it_submits(1);
        when_the_broker_answers(i, ACCEPT_BUSY, 400);
        then_no_event_comes();
        const uint64_t span_ms = client_session_next_at_ms(session) - now_ms;
        assert_in_range(span_ms, 400, 800);
        earliest_ms = span_ms < earliest_ms ? span_ms : earliest_ms;
        latest_ms = span_ms > latest_ms ? span_ms : latest_ms;
        then_it_is_silent();
        when_time_passes_ms(span_ms - 1);
        then_it_is_silent();
        when_time_passes_ms(1);
        then_it_submits(1);
        assert_int_equal(sent_entry(0).again_age_ms,
                         0); /* the broker said that it has not got it */
        when_the_broker_answers(i, ACCEPT_OK, 0);
    }
    assert_true(latest_ms - earliest_ms > 200);
}

/* Spread, without an order. */
static uint64_t busy_span_ms(unsigned task)
{
    return 10 + (task * 7919U) % 300;
}

static uint32_t then_none_of_these_is_late(uint64_t busy_since_ms)
{
    struct wire_list list = sent.as.submit.entries;
    struct wire_submit_entry entry;
    while (wire_submit_entry_next(&list, &entry)) {
        const unsigned task = entry.id.bytes[14] * 256U + entry.id.bytes[15];
        assert_int_not_equal(task % 3, 0);
        assert_in_range(now_ms - busy_since_ms, busy_span_ms(task), 2 * busy_span_ms(task));
    }
    return sent.as.submit.entries.count;
}

static void test_many_busy_tasks_come_back_each_in_its_time(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    for (unsigned i = 0; i < 500; i++) {
        when_it_submits(i);
    }
    then_it_submits(500);
    for (unsigned i = 0; i < 500; i++) {
        when_the_broker_answers_because(i, ACCEPT_BUSY, BUSY_NAMES, busy_span_ms(i));
    }
    for (unsigned i = 0; i < 500; i += 3) {
        assert_int_equal(client_session_cancel(session, id_of(i)), TREADLE_OK);
    }
    const uint64_t busy_since_ms = now_ms;
    uint32_t back_count = 0;
    while (back_count < 333) {
        assert_in_range(client_session_next_at_ms(session), now_ms + 1, now_ms + 1000);
        when_time_passes_ms(client_session_next_at_ms(session) - now_ms);
        then_it_sends(MESSAGE_SUBMIT);
        back_count += then_none_of_these_is_late(busy_since_ms);
    }
    assert_int_equal(back_count, 333);
}

/* Answers for all that `sent`, a SUBMIT, brought: the first `room` are taken. */
static uint32_t when_the_broker_has_room_for(uint32_t room)
{
    struct wire_list list = sent.as.submit.entries;
    struct wire_submit_entry submitted;
    struct message message = {.kind = MESSAGE_ACCEPTED};
    uint32_t taken_count = 0;
    writer_reset(&entries);
    while (wire_submit_entry_next(&list, &submitted)) {
        const bool is_taken = taken_count < room;
        const struct wire_accepted_entry entry = {
            .id = submitted.id,
            .status = is_taken ? ACCEPT_OK : ACCEPT_BUSY,
            .reason = is_taken ? BUSY_NONE : BUSY_TASKS,
            .retry_after_ms = is_taken ? 0 : 500,
        };
        taken_count += is_taken ? 1 : 0;
        assert_true(wire_accepted_entry_encode(&entries, &entry));
    }
    message.as.accepted.entries = wire_list_from_writer(&entries, entries.record_count);
    when_it_hears(&message);
    return taken_count;
}

/* Lets time pass with a broker that answers at once and takes as many tasks in all as there is
 * room; how many it was sent. */
static uint32_t sent_while_room_is(uint32_t room, uint64_t span_ms)
{
    uint32_t sent_count = 0;
    for (const uint64_t until_ms = now_ms + span_ms; now_ms < until_ms;) {
        const uint64_t next_at_ms = client_session_next_at_ms(session);
        now_ms = next_at_ms > now_ms ? next_at_ms : now_ms + 1;
        now_ms = now_ms < until_ms ? now_ms : until_ms;
        client_session_on_time(session, now_ms);
        while (it_sends()) {
            if (sent.kind == MESSAGE_SUBMIT) {
                sent_count += sent.as.submit.entries.count;
                room -= when_the_broker_has_room_for(room);
            } else {
                when_the_broker_says(MESSAGE_HEARTBEAT);
            }
        }
    }
    return sent_count;
}

static void test_broker_that_stays_busy_is_asked_a_little_and_not_stormed(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    for (unsigned i = 0; i < 20000; i++) {
        when_it_submits(i);
    }
    /* What was on its way when the first BUSY came, at most a window; then 16 in a turn, and a turn
     * in 62 to 124 ms. */
    const uint32_t first_count = sent_while_room_is(0, 1);
    assert_in_range(first_count, 1, 16384);
    const uint32_t later_count = sent_while_room_is(0, 20000);
    assert_in_range(later_count, 16 * 20000 / 130, 16 * 20000 / 62);
    assert_int_equal(figures().in_flight_count, 20000);
    /* As soon as there is room it goes fast again. */
    (void)sent_while_room_is(20000, 2000);
    assert_int_equal(figures().unaccepted_count, 0);
}

static void test_broker_with_a_little_room_has_it_filled_without_delay(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    for (unsigned i = 0; i < 5000; i++) {
        when_it_submits(i);
    }
    (void)sent_while_room_is(0, 1000);
    for (uint32_t i = 0; i < 5; i++) { /* ten in each turn is all that a small broker takes */
        (void)sent_while_room_is(500, 700);
        assert_int_equal(figures().unaccepted_count, 5000 - 500 * (i + 1));
    }
}

static void test_turns_end_with_the_broker_that_was_busy(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    for (unsigned i = 0; i < 2000; i++) {
        when_it_submits(i);
    }
    (void)sent_while_room_is(0, 100);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed_in(EPOCH + 1, false);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    when_time_passes_ms(1001); /* those that were told BUSY have waited long enough, too */
    uint32_t sent_count = 0;
    while (it_sends()) {
        sent_count += sent.as.submit.entries.count;
    }
    assert_int_equal(sent_count, 2000);
}

static void test_cancelling_one_that_waits_long_delays_none_that_waits_less(void **unused)
{
    (void)unused;
    /* Wherever they wait, the last one takes the place of the one that leaves: among the long. */
    static const uint64_t spans_ms[] = {10, 1000,  20,    5000,  5000,  30,
                                        40, 20000, 20000, 20000, 20000, 100};
    given_a_welcome_session();
    for (unsigned i = 0; i < 12; i++) {
        when_it_submits(i);
    }
    then_it_submits(12);
    for (unsigned i = 0; i < 12; i++) {
        when_the_broker_answers(i, ACCEPT_BUSY, spans_ms[i]);
    }
    assert_int_equal(client_session_cancel(session, id_of(3)), TREADLE_OK);
    when_time_passes_ms(200);
    then_it_submits(5); /* those of 10 to 100 ms */
}

static void test_busy_is_told_to_who_asked_and_then_forgotten(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_it_submits_with(1, .tell = CLIENT_TELL_BUSY);
    then_it_submits(1);
    when_the_broker_answers(1, ACCEPT_BUSY, 400);
    then_an_event_comes(CLIENT_EVENT_ACCEPTED);
    assert_int_equal(event->status, ACCEPT_BUSY);
    assert_int_equal(event->reason, BUSY_TASKS);
    assert_int_equal(figures().in_flight_count, 0);
}

static void test_same_id_is_one_task_and_another_content_a_conflict(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_it_submits_with(1, .digest = 5);
    when_it_submits_with(1, .digest = 5);
    assert_int_equal(submit_with(1, &(const struct submit_options){.digest = 6}),
                     TREADLE_E_CONFLICT);
    then_it_submits(1);
}

static void test_following_what_was_submitted_detached_awaits_it(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_it_submits_with(1, .is_detached = true);
    when_it_submits(1);
    then_it_submits(1);
    when_the_broker_answers(1, ACCEPT_OK, 0);
    then_it_sends(MESSAGE_AWAIT);
    when_the_broker_says_of_an_await(1, AWAIT_PENDING);
    then_no_event_comes();
    when_the_broker_settles(1, 1, 1);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
}

static void test_limits_are_answered_and_nothing_is_kept(void **unused)
{
    (void)unused;
    static uint8_t large[1000];
    given_a_session_with(0, 0);
    broker_body_size_max = 100;
    when_it_submits_with(1,
                         .body = {large, sizeof(large)}); /* nobody knows yet that it is too much */
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(false);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    then_it_is_silent();
    then_an_event_comes(CLIENT_EVENT_ACCEPTED);
    assert_int_equal(event->status, ACCEPT_REFUSED);
    assert_int_equal(event->reason, REFUSED_BODY_SIZE);
    assert_int_equal(submit_with(2, &(const struct submit_options){.body = {large, sizeof(large)}}),
                     TREADLE_E_LIMIT);
    assert_int_equal(submit_with(3, &(const struct submit_options){.service = "no name"}),
                     TREADLE_E_INVALID);
    for (unsigned i = 0; i < 20000; i++) {
        when_it_submits(i);
    }
    assert_int_equal(submit_with(20000, &(const struct submit_options){0}), TREADLE_E_AGAIN);
    assert_int_equal(client_session_await(session, id_of(20000)), TREADLE_E_AGAIN);
}

static void test_bytes_are_bounded_and_outcomes_that_are_taken_make_room(void **unused)
{
    (void)unused;
    static const uint8_t body[1000];
    byte_max = 20000;
    given_a_welcome_session();
    unsigned count = 0;
    enum treadle_status status = TREADLE_OK;
    while ((status = submit_with(count, &(const struct submit_options){
                                            .body = {body, sizeof(body)}})) == TREADLE_OK) {
        count++;
    }
    assert_int_equal(status, TREADLE_E_AGAIN);
    assert_in_range(count, 15, 18); /* a task costs more than its body */
    assert_in_range(figures().held_size, 18000, 20000);
    then_it_submits(count);
    struct message message;
    settled_message(&message, 1, 0, 2, (struct bytes){body, sizeof(body)});
    when_it_hears(&message); /* two outcomes stand where two tasks stood */
    assert_int_equal(submit_with(50, &(const struct submit_options){.body = {body, sizeof(body)}}),
                     TREADLE_E_AGAIN);
    assert_int_equal(client_session_await(session, id_of(51)), TREADLE_E_AGAIN);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    when_it_submits_with(50, .body = {body, sizeof(body)});
    assert_int_equal(client_session_await(session, id_of(51)), TREADLE_OK);
    static const uint8_t large[20000];
    assert_int_equal(
        submit_with(52, &(const struct submit_options){.body = {large, sizeof(large)}}),
        TREADLE_E_LIMIT);
}

static void test_nothing_is_held_once_all_has_settled(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    assert_int_equal(figures().held_size, 0);
    for (unsigned i = 0; i < 1000; i++) { /* each with fields of its own */
        char service[16];
        (void)snprintf(service, sizeof(service), "svc%u", i);
        when_it_submits_with(i, .service = service);
        then_it_submits(1);
        assert_true(bytes_is_equal(sent_template(0).service, bytes_from_text(service)));
    }
    assert_true(figures().held_size > 150000);
    when_the_broker_settles(1, 0, 1000);
    while (an_event_comes()) {
        assert_int_equal(event->kind, CLIENT_EVENT_SETTLED);
    }
    assert_int_equal(figures().held_size, 0);
}

static void test_no_more_is_sent_than_the_broker_should_answer_first(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    for (unsigned i = 0; i < 17000; i++) {
        when_it_submits(i);
    }
    for (unsigned i = 0; i < 16; i++) {
        then_it_submits(ENTRY_COUNT_MAX);
    }
    then_it_is_silent();
    when_the_broker_answers(0, ACCEPT_OK, 0);
    then_it_submits(1);
}

/* ---- outcomes and their acknowledgement ---- */

static void test_settled_implies_accepted_and_brings_all_it_says(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_it_submits(1);
    then_it_submits(1);
    struct writer errors;
    writer_init(&errors);
    const struct wire_attempt_error error = {
        .kind = FAILURE_TRANSIENT,
        .name = bytes_from_text("exit.3"),
        .message = bytes_from_text("no such file"),
        .trace = bytes_from_text("line\n"),
        .worker = bytes_from_text("w1"),
        .host = bytes_from_text("h1"),
    };
    assert_true(wire_attempt_error_encode(&errors, &error));
    const struct wire_settled_entry entry = {
        .id = id_of(1),
        .outcome = TASK_FAILED,
        .kind = FAILURE_TRANSIENT,
        .dispatch = 5,
        .attempts = 4,
        .attempts_max = 4,
        .error = wire_list_from_writer(&errors, 1),
    };
    struct message message = {.kind = MESSAGE_SETTLED};
    writer_reset(&entries);
    assert_true(wire_settled_entry_encode(&entries, &entry));
    message.as.settled.first = 1;
    message.as.settled.entries = wire_list_from_writer(&entries, 1);
    when_it_hears(&message);
    writer_free(&errors);
    writer_free(&entries); /* the event has copies */
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_int_equal(event->settled.outcome, TASK_FAILED);
    assert_int_equal(event->settled.dispatch, 5);
    assert_true(event->has_error);
    assert_string_equal((const char *)event->error.name.data, "exit.3");
    assert_string_equal((const char *)event->error.message.data, "no such file");
    assert_string_equal((const char *)event->error.trace.data, "line\n");
    assert_string_equal((const char *)event->error.worker.data, "w1");
    assert_string_equal((const char *)event->error.host.data, "h1");
    assert_int_equal(figures().in_flight_count, 0);
}

static void test_only_what_the_application_took_is_acknowledged(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    for (unsigned i = 1; i <= 3; i++) {
        when_it_submits(i);
    }
    then_it_submits(3);
    when_the_broker_settles(1, 1, 3);
    assert_int_equal(figures().received_number, 3);
    assert_int_equal(figures().upto, 0);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    then_it_is_silent();
    when_time_passes_ms(HEARTBEAT_MS);
    then_it_sends(MESSAGE_HEARTBEAT);
    assert_int_equal(sent.upto, 2);
}

static bool is_task_two(const struct client_event *candidate, const void *context)
{
    (void)context;
    return candidate->id.bytes[15] == 2;
}

static void test_what_is_taken_out_of_turn_waits_for_those_before_it(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    for (unsigned i = 1; i <= 3; i++) {
        when_it_submits(i);
    }
    then_it_submits(3);
    when_the_broker_settles(1, 1, 3);
    client_event_destroy(&event);
    event = client_session_take_event(session, is_task_two, NULL);
    assert_non_null(event);
    assert_int_equal(figures().upto, 0);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_int_equal(figures().upto, 2);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_int_equal(figures().upto, 3);
}

static void test_more_than_half_of_the_window_is_acknowledged_at_once_by_count(void **unused)
{
    (void)unused;
    given_a_session_with(1 << 30, ENTRY_COUNT_MAX);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(false);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    for (unsigned i = 1; i <= 600; i++) {
        when_it_submits(i);
    }
    then_it_submits(600);
    when_the_broker_settles(1, 1, 600);
    for (unsigned i = 0; i < 512; i++) {
        then_an_event_comes(CLIENT_EVENT_SETTLED);
    }
    then_it_is_silent();
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    then_it_sends(MESSAGE_HEARTBEAT);
    assert_int_equal(sent.upto, 513);
    then_it_is_silent();
}

static void test_more_than_half_of_the_window_is_acknowledged_at_once_by_size(void **unused)
{
    (void)unused;
    static uint8_t large[40000];
    struct message message;
    given_a_welcome_session();
    for (unsigned i = 1; i <= 6; i++) {
        when_it_submits(i);
    }
    then_it_submits(6);
    settled_message(&message, 1, 1, 6, (struct bytes){large, sizeof(large)});
    when_it_hears(&message);
    for (unsigned i = 0; i < 3; i++) {
        then_an_event_comes(CLIENT_EVENT_SETTLED);
    }
    then_it_is_silent();
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    then_it_sends(MESSAGE_HEARTBEAT);
    assert_int_equal(sent.upto, 4);
}

static void test_outcome_nobody_waits_for_is_acknowledged_all_the_same(void **unused)
{
    (void)unused;
    given_an_accepted_task(1);
    client_session_forget(session, id_of(1));
    when_the_broker_settles(1, 1, 1);
    then_no_event_comes();
    when_time_passes_ms(HEARTBEAT_MS);
    then_it_sends(MESSAGE_HEARTBEAT);
    assert_int_equal(sent.upto, 1);
}

static void test_hole_in_the_settled_numbers_is_a_gap(void **unused)
{
    (void)unused;
    given_an_accepted_task(1);
    when_time_passes_ms(100);
    when_the_broker_settles(2, 1, 1);
    then_no_event_comes();
    then_it_sends(MESSAGE_HELLO);
}

/* ---- sessions that come back ---- */

static void given_one_task_settled_and_one_accepted(void)
{
    given_an_accepted_task(1);
    when_it_submits(2);
    then_it_submits(1);
    when_the_broker_answers(2, ACCEPT_OK, 0);
    when_the_broker_settles(1, 1, 1);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    client_session_on_disconnected(session, now_ms);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    assert_int_equal(sent.upto, 1);
}

static void test_resumed_session_drops_what_is_offered_twice(void **unused)
{
    (void)unused;
    given_one_task_settled_and_one_accepted();
    when_it_is_welcomed(true);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    then_it_is_silent(); /* nothing to submit, nothing to await */
    when_the_broker_settles(1, 1, 2);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_memory_equal(event->id.bytes, id_of(2).bytes, 16);
    then_no_event_comes();
}

static void test_new_session_awaits_what_was_accepted_and_counts_anew(void **unused)
{
    (void)unused;
    given_one_task_settled_and_one_accepted();
    when_it_is_welcomed(false);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    assert_false(event->is_resumed);
    assert_false(event->is_new_epoch);
    then_it_sends(MESSAGE_AWAIT);
    assert_int_equal(sent.as.await.entries.count, 1);
    assert_int_equal(sent.upto, 0);
    when_the_broker_says_of_an_await(2, AWAIT_SETTLED);
    then_no_event_comes();
    when_the_broker_settles(1, 2, 1);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_int_equal(figures().upto, 1);
}

static void test_outcome_not_taken_before_a_new_session_counts_in_no_other(void **unused)
{
    (void)unused;
    given_an_accepted_task(1);
    when_it_submits(2);
    then_it_submits(1);
    when_the_broker_settles(1, 1, 1);
    client_session_on_disconnected(session, now_ms);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(false);
    then_it_submits(1);
    when_the_broker_settles(1, 2, 1);
    assert_int_equal(figures().upto, 0);
    then_an_event_comes(CLIENT_EVENT_SETTLED); /* of task 1, from the session before */
    assert_int_equal(figures().upto, 0);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_int_equal(figures().upto, 1);
}

static void test_task_the_broker_lost_is_told(void **unused)
{
    (void)unused;
    given_one_task_settled_and_one_accepted();
    when_it_is_welcomed(false);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    then_it_sends(MESSAGE_AWAIT);
    when_the_broker_says_of_an_await(2, AWAIT_UNKNOWN);
    then_an_event_comes(CLIENT_EVENT_AWAITED);
    assert_int_equal(event->status, AWAIT_UNKNOWN);
    assert_int_equal(figures().in_flight_count, 0);
}

static void test_task_that_was_known_and_is_gone_is_told_unasked(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_it_submits(1);
    then_it_submits(1);
    when_the_broker_answers(1, ACCEPT_EXISTING, 0);
    when_the_broker_says_of_an_await(1, AWAIT_GONE);
    then_an_event_comes(CLIENT_EVENT_AWAITED);
    assert_int_equal(event->status, AWAIT_GONE);
    assert_int_equal(figures().in_flight_count, 0);
}

static void test_new_epoch_submits_all_unsettled_tasks_as_if_for_the_first_time(void **unused)
{
    (void)unused;
    given_one_task_settled_and_one_accepted();
    when_it_submits(3);
    assert_int_equal(client_session_await(session, id_of(9)), TREADLE_OK);
    when_time_passes_ms(500);
    when_it_is_welcomed_in(EPOCH + 1, false);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    assert_true(event->is_new_epoch);
    assert_int_equal(event->epoch, EPOCH + 1);
    then_it_submits(2);
    assert_memory_equal(sent_entry(0).id.bytes, id_of(2).bytes, 16);
    assert_int_equal(sent_entry(0).again_age_ms, 0);
    assert_int_equal(sent_entry(1).again_age_ms, 0);
    then_it_sends(MESSAGE_AWAIT);
    assert_int_equal(sent.as.await.entries.count, 1);
    when_the_broker_settles(1, 2, 2);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
}

static void test_new_epoch_gets_many_tasks_in_parts_each_answered_before_the_next(void **unused)
{
    (void)unused;
    static const uint8_t body[4096];
    given_a_welcome_session();
    for (unsigned i = 0; i < 10000; i++) {
        when_it_submits_with(i, .body = {body, sizeof(body)});
        then_it_submits(1);
        when_the_broker_answers(i, ACCEPT_OK, 0);
    }
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed_in(EPOCH + 1, false);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    uint32_t sent_count = 0;
    while (sent_count < 10000) {
        const uint32_t before_count = sent_count;
        while (it_sends()) {
            assert_int_equal(sent.kind, MESSAGE_SUBMIT);
            sent_count += sent.as.submit.entries.count;
        }
        assert_in_range(sent_count - before_count, 1, 1024); /* 4 MiB */
        for (uint32_t i = before_count; i < sent_count; i++) {
            when_the_broker_answers(i, ACCEPT_OK, 0);
        }
    }
    assert_int_equal(figures().unaccepted_count, 0);
    assert_int_equal(figures().in_flight_count, 10000);
}

static void test_new_epoch_does_not_bring_cancelled_tasks_back(void **unused)
{
    (void)unused;
    given_an_accepted_task(1);
    assert_int_equal(client_session_cancel(session, id_of(1)), TREADLE_OK);
    then_it_sends(MESSAGE_CANCEL);
    client_session_on_disconnected(session, now_ms);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed_in(EPOCH + 1, false);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_int_equal(event->settled.outcome, TASK_CANCELLED);
    then_it_sends(MESSAGE_CANCEL); /* still asked: the answer is told */
    then_it_is_silent();
}

static void test_answer_from_before_the_hello_spares_the_second_submission(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_it_submits(1);
    then_it_submits(1);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(true);
    when_the_broker_answers(1, ACCEPT_OK, 0);
    then_it_is_silent();
}

/* ---- awaiting, cancelling, asking ---- */

static void test_awaited_task_is_followed_until_it_settles(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    assert_int_equal(client_session_await(session, id_of(1)), TREADLE_OK);
    assert_int_equal(client_session_await(session, id_of(2)), TREADLE_OK);
    then_it_sends(MESSAGE_AWAIT);
    assert_int_equal(sent.as.await.entries.count, 2);
    when_the_broker_says_of_an_await(1, AWAIT_PENDING);
    then_an_event_comes(CLIENT_EVENT_AWAITED);
    assert_int_equal(event->status, AWAIT_PENDING);
    when_the_broker_says_of_an_await(2, AWAIT_GONE);
    then_an_event_comes(CLIENT_EVENT_AWAITED);
    assert_int_equal(event->status, AWAIT_GONE);
    when_the_broker_settles(1, 1, 1);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_int_equal(figures().in_flight_count, 0);
}

static void test_await_that_the_broker_has_no_room_for_is_asked_again(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    assert_int_equal(client_session_await(session, id_of(1)), TREADLE_OK);
    then_it_sends(MESSAGE_AWAIT);
    when_the_broker_says_of_an_await(1, AWAIT_BUSY);
    then_no_event_comes();
    then_it_is_silent();
    when_time_passes_ms(client_session_next_at_ms(session) - now_ms);
    then_it_sends(MESSAGE_AWAIT);
    when_the_broker_says_of_an_await(1, AWAIT_PENDING);
    then_an_event_comes(CLIENT_EVENT_AWAITED);
}

static void test_unanswered_awaits_and_cancels_are_sent_again_after_a_welcome(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    assert_int_equal(client_session_await(session, id_of(1)), TREADLE_OK);
    assert_int_equal(client_session_cancel(session, id_of(2)), TREADLE_OK);
    assert_int_equal(client_session_cancel(session, id_of(3)), TREADLE_OK);
    then_it_sends(MESSAGE_AWAIT);
    then_it_sends(MESSAGE_CANCEL);
    assert_int_equal(sent.as.cancel.entries.count, 2);
    when_the_broker_refuses(REFUSED_HELLO_FIRST, 0);
    when_time_passes_ms(100);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(true);
    then_it_sends(MESSAGE_AWAIT);
    then_it_sends(MESSAGE_CANCEL);
    struct wire_list list = sent.as.cancel.entries;
    struct wire_id_entry entry;
    assert_true(wire_id_entry_next(&list, &entry));
    assert_memory_equal(entry.id.bytes, id_of(2).bytes, 16);
    then_it_is_silent();
}

static void test_cancel_is_answered_once(void **unused)
{
    (void)unused;
    given_an_accepted_task(1);
    assert_int_equal(client_session_cancel(session, id_of(1)), TREADLE_OK);
    assert_int_equal(client_session_cancel(session, id_of(1)), TREADLE_OK);
    then_it_sends(MESSAGE_CANCEL);
    assert_int_equal(sent.as.cancel.entries.count, 1);
    when_the_broker_answers_a_cancel(1, CANCEL_REQUESTED);
    when_the_broker_answers_a_cancel(1, CANCEL_REQUESTED); /* it may say it twice */
    then_an_event_comes(CLIENT_EVENT_CANCELLED);
    assert_int_equal(event->status, CANCEL_REQUESTED);
    then_no_event_comes();
}

static void test_cancel_of_what_never_reached_the_broker_happens_here(void **unused)
{
    (void)unused;
    given_a_session_with(0, 0);
    when_it_submits(1);
    assert_int_equal(client_session_cancel(session, id_of(1)), TREADLE_OK);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_int_equal(event->settled.outcome, TASK_CANCELLED);
    then_an_event_comes(CLIENT_EVENT_CANCELLED);
    assert_int_equal(event->status, CANCEL_DONE);
    assert_int_equal(figures().in_flight_count, 0);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(false);
    then_it_is_silent();
}

static void test_cancel_of_an_id_that_was_given_is_for_the_broker_to_answer(void **unused)
{
    (void)unused;
    given_a_session_with(0, 0);
    when_it_submits_with(1, .is_id_given = true);
    assert_int_equal(client_session_cancel(session, id_of(1)), TREADLE_OK);
    then_no_event_comes();
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(false);
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    then_it_submits(1);
    then_it_sends(MESSAGE_CANCEL);
    when_the_broker_answers(1, ACCEPT_EXISTING, 0);
    when_the_broker_settles(1, 1, 1); /* it had succeeded before */
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_int_equal(event->settled.outcome, TASK_SUCCEEDED);
}

static void test_cancel_of_what_the_broker_is_too_busy_for_happens_here(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_it_submits_with(1, .is_id_given = true);
    then_it_submits(1);
    when_the_broker_answers(1, ACCEPT_BUSY, 500);
    assert_int_equal(client_session_cancel(session, id_of(1)), TREADLE_OK);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_int_equal(event->settled.outcome, TASK_CANCELLED);
    then_an_event_comes(CLIENT_EVENT_CANCELLED);
    when_time_passes_ms(999);
    then_it_is_silent();
}

static void test_answer_to_a_cancel_nobody_waits_for_is_not_told(void **unused)
{
    (void)unused;
    given_an_accepted_task(1);
    assert_int_equal(client_session_cancel(session, id_of(1)), TREADLE_OK);
    then_it_sends(MESSAGE_CANCEL);
    client_session_forget_cancel(session, id_of(1));
    client_session_forget_cancel(session, id_of(2));
    when_the_broker_answers_a_cancel(1, CANCEL_REQUESTED);
    then_no_event_comes();
    /* Asked for again, it is sent again and told. */
    assert_int_equal(client_session_cancel(session, id_of(1)), TREADLE_OK);
    then_it_sends(MESSAGE_CANCEL);
    client_session_forget_cancel(session, id_of(1));
    assert_int_equal(client_session_cancel(session, id_of(1)), TREADLE_OK);
    then_it_is_silent();
    when_the_broker_answers_a_cancel(1, CANCEL_REQUESTED);
    then_an_event_comes(CLIENT_EVENT_CANCELLED);
}

static void test_cancels_are_bounded(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    for (unsigned i = 0; i < 16384; i++) {
        when_it_submits(i);
    }
    while (it_sends()) {
        assert_int_equal(sent.kind, MESSAGE_SUBMIT);
    }
    for (unsigned i = 0; i < 16384; i++) {
        assert_int_equal(client_session_cancel(session, id_of(i)), TREADLE_OK);
    }
    assert_int_equal(client_session_cancel(session, id_of(60000)), TREADLE_E_AGAIN);
    while (it_sends()) {
        assert_int_equal(sent.kind, MESSAGE_CANCEL);
    }
    when_the_broker_answers_a_cancel(0, CANCEL_REQUESTED);
    assert_int_equal(client_session_cancel(session, id_of(60000)), TREADLE_OK);
}

static void test_cancel_never_passes_the_submission_it_is_about(void **unused)
{
    (void)unused;
    given_a_welcome_session();
    when_it_submits(1);
    then_it_submits(1);
    client_session_on_connected(session, now_ms);
    assert_int_equal(client_session_cancel(session, id_of(1)), TREADLE_OK);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(true);
    then_it_submits(1);
    then_it_sends(MESSAGE_CANCEL);
    when_the_broker_answers(1, ACCEPT_BUSY, 100); /* now it is nowhere, so it is cancelled here */
    then_an_event_comes(CLIENT_EVENT_WELCOME);
    then_an_event_comes(CLIENT_EVENT_SETTLED);
    assert_int_equal(event->settled.outcome, TASK_CANCELLED);
}

static void test_request_is_sent_again_until_its_answer_comes(void **unused)
{
    (void)unused;
    uint64_t first = 0;
    uint64_t second = 0;
    given_a_welcome_session();
    struct message query = {.kind = MESSAGE_SERVICE_QUERY};
    query.as.service_query.name = bytes_from_text("wc");
    assert_int_equal(client_session_request(session, &query, &first), TREADLE_OK);
    const struct message status = {.kind = MESSAGE_BROKER_QUERY};
    assert_int_equal(client_session_request(session, &status, &second), TREADLE_OK);
    assert_int_not_equal(first, second);
    then_it_sends(MESSAGE_SERVICE_QUERY);
    then_it_sends(MESSAGE_BROKER_QUERY);
    then_it_is_silent();

    struct message answer = {.kind = MESSAGE_BROKER_INFO};
    answer.as.broker_info =
        (struct wire_broker_info){.request = second, .version = bytes_from_text("0.1.0")};
    when_it_hears(&answer);
    when_it_hears(&answer);
    then_an_event_comes(CLIENT_EVENT_ANSWER);
    assert_int_equal(event->request, second);
    assert_int_equal(event->answer->kind, MESSAGE_BROKER_INFO);
    assert_true(bytes_is_equal(event->answer->as.broker_info.version, bytes_from_text("0.1.0")));
    then_no_event_comes();

    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(false);
    then_it_sends(MESSAGE_SERVICE_QUERY);
    assert_int_equal(sent.as.service_query.request, first);
    assert_true(bytes_is_equal(sent.as.service_query.name, bytes_from_text("wc")));
    client_session_forget_request(session, first);
    client_session_on_connected(session, now_ms);
    then_it_sends(MESSAGE_HELLO);
    when_it_is_welcomed(false);
    then_it_is_silent();
}

static void test_requests_are_checked_and_bounded(void **unused)
{
    (void)unused;
    uint64_t number = 0;
    given_a_welcome_session();
    const struct message no_query = {.kind = MESSAGE_HEARTBEAT};
    assert_int_equal(client_session_request(session, &no_query, &number), TREADLE_E_INVALID);
    struct message bad_name = {.kind = MESSAGE_SERVICE_QUERY};
    bad_name.as.service_query.name = bytes_from_text("no name");
    assert_int_equal(client_session_request(session, &bad_name, &number), TREADLE_E_INVALID);
    const struct message query = {.kind = MESSAGE_BROKER_QUERY};
    for (int i = 0; i < 64; i++) {
        assert_int_equal(client_session_request(session, &query, &number), TREADLE_OK);
    }
    assert_int_equal(client_session_request(session, &query, &number), TREADLE_E_AGAIN);
}

#define then_test(name) cmocka_unit_test_teardown(name, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        then_test(test_hello_goes_first_on_every_connection_and_counts_as_message_one),
        then_test(test_hello_is_said_again_until_its_own_welcome_comes),
        then_test(test_doubled_welcome_changes_nothing),
        then_test(test_rights_of_a_welcome_are_kept_until_the_next_one),
        then_test(test_version_too_old_ends_the_session_for_good),
        then_test(test_refusal_for_a_limit_is_tried_again_after_the_span_it_names),
        then_test(test_doubled_message_is_dropped),
        then_test(test_gap_says_hello_at_once_and_ignores_all_until_welcome),
        then_test(test_hello_first_says_hello_again_though_it_has_no_number),
        then_test(test_peer_that_always_finds_gaps_is_not_stormed_with_hellos),
        then_test(test_kind_that_is_not_for_clients_is_a_protocol_error),
        then_test(test_heartbeat_goes_out_when_nothing_else_was_sent),
        then_test(test_silence_asks_for_a_reconnect_and_says_hello),
        then_test(test_goodbye_is_the_last_word),
        then_test(test_broker_that_says_goodbye_is_greeted_again_later),
        then_test(test_submissions_leave_together_and_share_templates),
        then_test(test_messages_keep_the_rules_for_entries_and_frames),
        then_test(test_what_was_not_accepted_is_submitted_again_with_its_age),
        then_test(test_deadline_counts_from_the_submission_and_not_from_the_sending),
        then_test(test_accepted_is_told_only_when_asked_for),
        then_test(test_what_the_broker_does_not_take_is_told_and_forgotten),
        then_test(test_busy_is_tried_again_later_with_jitter),
        then_test(test_many_busy_tasks_come_back_each_in_its_time),
        then_test(test_broker_that_stays_busy_is_asked_a_little_and_not_stormed),
        then_test(test_broker_with_a_little_room_has_it_filled_without_delay),
        then_test(test_turns_end_with_the_broker_that_was_busy),
        then_test(test_cancelling_one_that_waits_long_delays_none_that_waits_less),
        then_test(test_busy_is_told_to_who_asked_and_then_forgotten),
        then_test(test_same_id_is_one_task_and_another_content_a_conflict),
        then_test(test_following_what_was_submitted_detached_awaits_it),
        then_test(test_limits_are_answered_and_nothing_is_kept),
        then_test(test_bytes_are_bounded_and_outcomes_that_are_taken_make_room),
        then_test(test_nothing_is_held_once_all_has_settled),
        then_test(test_no_more_is_sent_than_the_broker_should_answer_first),
        then_test(test_settled_implies_accepted_and_brings_all_it_says),
        then_test(test_only_what_the_application_took_is_acknowledged),
        then_test(test_what_is_taken_out_of_turn_waits_for_those_before_it),
        then_test(test_more_than_half_of_the_window_is_acknowledged_at_once_by_count),
        then_test(test_more_than_half_of_the_window_is_acknowledged_at_once_by_size),
        then_test(test_outcome_nobody_waits_for_is_acknowledged_all_the_same),
        then_test(test_hole_in_the_settled_numbers_is_a_gap),
        then_test(test_resumed_session_drops_what_is_offered_twice),
        then_test(test_new_session_awaits_what_was_accepted_and_counts_anew),
        then_test(test_outcome_not_taken_before_a_new_session_counts_in_no_other),
        then_test(test_task_the_broker_lost_is_told),
        then_test(test_task_that_was_known_and_is_gone_is_told_unasked),
        then_test(test_new_epoch_submits_all_unsettled_tasks_as_if_for_the_first_time),
        then_test(test_new_epoch_gets_many_tasks_in_parts_each_answered_before_the_next),
        then_test(test_new_epoch_does_not_bring_cancelled_tasks_back),
        then_test(test_answer_from_before_the_hello_spares_the_second_submission),
        then_test(test_awaited_task_is_followed_until_it_settles),
        then_test(test_await_that_the_broker_has_no_room_for_is_asked_again),
        then_test(test_unanswered_awaits_and_cancels_are_sent_again_after_a_welcome),
        then_test(test_cancel_is_answered_once),
        then_test(test_cancel_of_what_never_reached_the_broker_happens_here),
        then_test(test_cancel_of_an_id_that_was_given_is_for_the_broker_to_answer),
        then_test(test_cancel_of_what_the_broker_is_too_busy_for_happens_here),
        then_test(test_answer_to_a_cancel_nobody_waits_for_is_not_told),
        then_test(test_cancels_are_bounded),
        then_test(test_cancel_never_passes_the_submission_it_is_about),
        then_test(test_request_is_sent_again_until_its_answer_comes),
        then_test(test_requests_are_checked_and_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
