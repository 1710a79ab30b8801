/* SPDX-License-Identifier: MPL-2.0 */
/* The encoder with a real core and store: what the core decides becomes messages that decode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "broker/core/core.h"
#include "broker/shell/encode.h"

#define MESSAGE_MAX 64
#define COPY_SIZE   ((size_t)256 * 1024)
#define CLIENT      1
#define WORKER      2

/* One message as it was handed on, in memory of its own. */
struct sent {
    uint32_t connection;
    uint8_t *copy;
    struct bytes views[FRAME_COUNT_MAX];
    struct wire_frames frames;
    struct message message;
};

struct fixture {
    void *memory;
    struct core *core;
    struct store *store;
    struct encoder *encoder;
    struct effects *effects;
    struct sent sent[MESSAGE_MAX];
    uint32_t sent_count;
    uint64_t client_number;
    uint64_t worker_number;
    uint64_t now_ms;
    uint64_t extra_counter;
    struct encoder_counter counters[1];
    const uint8_t *last_body; /* where the last body frame handed on was */
};

static void keep(void *context, uint32_t connection, const struct wire_frames *frames)
{
    struct fixture *fixture = context;
    assert_true(fixture->sent_count < MESSAGE_MAX);
    struct sent *sent = &fixture->sent[fixture->sent_count];
    fixture->sent_count++;
    sent->connection = connection;
    sent->copy = malloc(COPY_SIZE);
    assert_non_null(sent->copy);
    uint8_t *to = sent->copy;
    for (size_t i = 0; i < frames->count; i++) {
        assert_true(frames->frames[i].size <= (size_t)(sent->copy + COPY_SIZE - to));
        memcpy(to, frames->frames[i].data, frames->frames[i].size);
        sent->views[i] = (struct bytes){to, frames->frames[i].size};
        to += frames->frames[i].size;
        fixture->last_body = frames->frames[i].data;
    }
    sent->frames = (struct wire_frames){sent->views, frames->count};
    assert_int_equal(message_decode(&sent->message, &sent->frames, &wire_limits_protocol), WIRE_OK);
}

static void forget_sent(struct fixture *fixture)
{
    for (uint32_t i = 0; i < fixture->sent_count; i++) {
        free(fixture->sent[i].copy);
    }
    fixture->sent_count = 0;
}

static struct core_config small_config(void)
{
    struct core_config config;
    core_config_init(&config);
    config.task_count_max = 4096;
    config.settled_count_max = 1024;
    config.remembered_count_max = 1024;
    config.session_count_max = 16;
    config.connection_count_max = 16;
    config.service_count_max = 16;
    config.queue_count_max = 32;
    config.tenant_queue_count_max = 64;
    config.serve_count_max = 64;
    config.attempt_count_max = 4096;
    config.watch_count_max = 8192;
    config.owner_count_max = 16;
    config.policy_count_max = 64;
    config.outbox_count_max = 8192;
    config.epoch = 7;
    config.seed = 1;
    return config;
}

static struct fixture *given_a_broker(void)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    const struct core_config config = small_config();
    const size_t size = (core_memory_size(&config) + 63) / 64 * 64;
    fixture->memory = aligned_alloc(64, size);
    fixture->effects = calloc(1, sizeof *fixture->effects);
    assert_non_null(fixture->memory);
    assert_non_null(fixture->effects);
    memset(fixture->memory, 0, size);
    fixture->now_ms = 1000;
    fixture->core = core_create(fixture->memory, &config, fixture->now_ms);
    fixture->store = store_create_memory(fixture->core->task_slab.count_max);
    assert_non_null(fixture->store);
    fixture->extra_counter = 42;
    fixture->counters[0] = (struct encoder_counter){"of_the_shell", &fixture->extra_counter};
    const struct encoder_config encoder = {.core = fixture->core,
                                           .store = fixture->store,
                                           .version = "1.2.3",
                                           .counters = fixture->counters,
                                           .counter_count = 1,
                                           .send = keep,
                                           .context = fixture};
    fixture->encoder = encoder_create(&encoder);
    assert_non_null(fixture->encoder);
    encoder_open(fixture->encoder, CLIENT);
    encoder_open(fixture->encoder, WORKER);
    return fixture;
}

static void then_all_was_encoded(struct fixture *fixture)
{
    assert_int_equal(encoder_dropped_count(fixture->encoder), 0);
    core_check(fixture->core);
    forget_sent(fixture);
    encoder_destroy(&fixture->encoder);
    store_destroy(&fixture->store);
    free(fixture->memory);
    free(fixture->effects);
    free(fixture);
}

static void step(struct fixture *fixture, const struct input *input)
{
    core_step(fixture->core, fixture->now_ms, input, fixture->effects);
    for (uint32_t i = 0; i < fixture->effects->count; i++) {
        const struct effect *effect = &fixture->effects->at[i];
        if (effect->kind == EFFECT_SEND) {
            encoder_send(fixture->encoder, effect);
        } else if (effect->kind == EFFECT_PERSIST) {
            assert_true(store_append(fixture->store, fixture->core, effect, 1700000000000));
        }
    }
}

/* What the shell does at the end of a round. */
static void when_the_round_ends(struct fixture *fixture)
{
    const struct input dispatch = {.kind = INPUT_DISPATCH};
    step(fixture, &dispatch);
    const struct input durable = {.kind = INPUT_DURABLE,
                                  .durable_number = store_flush(fixture->store)};
    step(fixture, &durable);
    const struct input time = {.kind = INPUT_TIME};
    while (core_next_at_ms(fixture->core) <= fixture->now_ms) {
        step(fixture, &time);
    }
    encoder_flush(fixture->encoder);
    store_release(fixture->store);
}

static void take(struct fixture *fixture, uint32_t connection, struct message *message)
{
    uint64_t *number = connection == CLIENT ? &fixture->client_number : &fixture->worker_number;
    ++*number;
    message->number = *number;
    const struct input input = {.kind = INPUT_MESSAGE,
                                .connection = connection,
                                .rights = RIGHT_ALL,
                                .services = &globs_all,
                                .principal = bytes_from_text("local"),
                                .message = message};
    step(fixture, &input);
}

static void when_it_says_hello(struct fixture *fixture, uint32_t connection)
{
    uint8_t incarnation[16] = {(uint8_t)connection};
    struct writer serves;
    writer_init(&serves);
    const struct wire_serve serve = {.pattern = bytes_from_text("wc.*")};
    assert_true(wire_serve_encode(&serves, &serve));
    struct message message = {.kind = MESSAGE_HELLO};
    message.as.hello = (struct wire_hello){
        .role = connection == CLIENT ? ROLE_CLIENT : ROLE_WORKER,
        .name = bytes_from_text(connection == CLIENT ? "client" : "worker"),
        .host = bytes_from_text("host"),
        .incarnation = {incarnation, sizeof incarnation},
    };
    if (connection == WORKER) {
        message.as.hello.slots = 2000;
        message.as.hello.serves = wire_list_from_writer(&serves, 1);
    }
    take(fixture, connection, &message);
    when_the_round_ends(fixture);
    if (connection == WORKER) {
        struct message grant = {.kind = MESSAGE_HEARTBEAT, .upto = 100000};
        take(fixture, connection, &grant);
    }
    writer_free(&serves);
}

/* One message of `count` tasks, of the services' tasks wc.count and wc.lines in turn. */
static void when_tasks_are_submitted(struct fixture *fixture, uint32_t count, size_t body_size)
{
    static uint32_t next_id;
    struct writer templates;
    struct writer entries;
    writer_init(&templates);
    writer_init(&entries);
    const char *const names[] = {"count", "lines"};
    for (int i = 0; i < 2; i++) {
        const struct wire_submit_template template = {.service = bytes_from_text("wc"),
                                                      .task = bytes_from_text(names[i]),
                                                      .flags = SUBMIT_WATCH};
        assert_true(wire_submit_template_encode(&templates, &template));
    }
    uint8_t digest[16] = {0};
    uint8_t *body = malloc(body_size + 1);
    assert_non_null(body);
    memset(body, 'b', body_size);
    for (uint32_t i = 0; i < count; i++) {
        struct wire_submit_entry entry = {
            .template_index = i % 2, .digest = {digest, 16}, .body = {body, body_size}};
        next_id++;
        memcpy(entry.id.bytes, &next_id, sizeof next_id);
        assert_true(wire_submit_entry_encode(&entries, &entry));
    }
    struct message message = {.kind = MESSAGE_SUBMIT};
    message.as.submit.templates = wire_list_from_writer(&templates, 2);
    message.as.submit.entries = wire_list_from_writer(&entries, count);
    take(fixture, CLIENT, &message);
    writer_free(&templates);
    writer_free(&entries);
    free(body);
}

/* The worker answers every entry of a DISPATCH with a result of this size. */
static void when_it_succeeds(struct fixture *fixture, const struct message *dispatch,
                             size_t result_size)
{
    struct writer writer;
    writer_init(&writer);
    uint8_t *result = malloc(result_size + 1);
    assert_non_null(result);
    memset(result, 'r', result_size);
    struct wire_list entries = dispatch->as.dispatch.entries;
    struct wire_dispatch_entry entry;
    while (wire_dispatch_entry_next(&entries, &entry)) {
        const struct wire_success_entry success = {.lease = entry.lease,
                                                   .body = {result, result_size}};
        assert_true(wire_success_entry_encode(&writer, &success));
    }
    struct message message = {.kind = MESSAGE_RESULT, .upto = 100000};
    message.as.result.successes = wire_list_from_writer(&writer, writer.record_count);
    take(fixture, WORKER, &message);
    writer_free(&writer);
    free(result);
}

static uint32_t count_of_kind(const struct fixture *fixture, enum message_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < fixture->sent_count; i++) {
        count += fixture->sent[i].message.kind == kind ? 1 : 0;
    }
    return count;
}

/* The message of this kind with this index. */
static const struct sent *then_sent(const struct fixture *fixture, enum message_kind kind,
                                    uint32_t index)
{
    uint32_t place = 0;
    assert_true(count_of_kind(fixture, kind) > index);
    while (fixture->sent[place].message.kind != kind || index > 0) {
        index -= fixture->sent[place].message.kind == kind ? 1 : 0;
        place++;
    }
    return &fixture->sent[place];
}

static const struct message *then_there_is(const struct fixture *fixture, enum message_kind kind)
{
    assert_int_equal(count_of_kind(fixture, kind), 1);
    return &then_sent(fixture, kind, 0)->message;
}

/* ---- tests ---- */

static void test_hello_is_answered_with_what_the_broker_is(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, CLIENT);
    const struct message *welcome = then_there_is(fixture, MESSAGE_WELCOME);
    assert_int_equal(welcome->number, 1);
    assert_int_equal(welcome->as.welcome.hello_number, 1);
    assert_int_equal(welcome->as.welcome.epoch, 7);
    assert_int_equal(welcome->as.welcome.body_size_max, BODY_SIZE_DEFAULT);
    assert_true(bytes_is_equal(welcome->as.welcome.version, bytes_from_text("1.2.3")));
    assert_true(bytes_is_equal(welcome->as.welcome.principal, bytes_from_text("local")));
    assert_int_equal(welcome->as.welcome.rights, RIGHT_ALL);
    struct wire_list services = welcome->as.welcome.services;
    struct wire_glob glob;
    assert_true(wire_glob_next(&services, &glob));
    assert_true(bytes_is_equal(glob.text, bytes_from_text("*")));
    assert_false(wire_glob_next(&services, &glob));
    then_all_was_encoded(fixture);
}

static void test_refusal_has_number_0_and_does_not_count(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    struct message heartbeat = {.kind = MESSAGE_HEARTBEAT};
    take(fixture, CLIENT, &heartbeat);
    const struct message *refused = then_there_is(fixture, MESSAGE_REFUSED);
    assert_int_equal(refused->number, 0);
    assert_int_equal(refused->as.refused.code, REFUSED_HELLO_FIRST);
    when_it_says_hello(fixture, CLIENT);
    assert_int_equal(then_there_is(fixture, MESSAGE_WELCOME)->number, 1);
    then_all_was_encoded(fixture);
}

static void test_answers_of_a_round_share_one_message(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, CLIENT);
    when_tasks_are_submitted(fixture, 60, 10);
    when_tasks_are_submitted(fixture, 40, 10);
    when_the_round_ends(fixture);
    const struct message *accepted = then_there_is(fixture, MESSAGE_ACCEPTED);
    assert_int_equal(accepted->as.accepted.entries.count, 100);
    assert_int_equal(accepted->number, 2);
    then_all_was_encoded(fixture);
}

static void test_message_that_is_full_goes_out_and_the_next_one_begins(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, CLIENT);
    when_tasks_are_submitted(fixture, 1000, 10);
    when_tasks_are_submitted(fixture, 500, 10);
    when_the_round_ends(fixture);
    const struct sent *first = then_sent(fixture, MESSAGE_ACCEPTED, 0);
    const struct sent *second = then_sent(fixture, MESSAGE_ACCEPTED, 1);
    assert_int_equal(first->message.as.accepted.entries.count, ENTRY_COUNT_MAX);
    assert_int_equal(second->message.as.accepted.entries.count, 1500 - ENTRY_COUNT_MAX);
    assert_int_equal(second->message.number, first->message.number + 1);
    then_all_was_encoded(fixture);
}

static void test_dispatches_share_templates_and_carry_their_bodies(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, CLIENT);
    when_it_says_hello(fixture, WORKER);
    when_tasks_are_submitted(fixture, 10, 100);
    when_the_round_ends(fixture);
    const struct message *dispatch = then_there_is(fixture, MESSAGE_DISPATCH);
    assert_int_equal(dispatch->as.dispatch.templates.count, 2);
    assert_int_equal(dispatch->as.dispatch.entries.count, 10);
    struct wire_list templates = dispatch->as.dispatch.templates;
    struct wire_dispatch_template template;
    assert_true(wire_dispatch_template_next(&templates, &template));
    assert_true(bytes_is_equal(template.service, bytes_from_text("wc")));
    assert_int_equal(template.timeout_ms, 300000);
    assert_int_equal(template.attempts_max, 4);
    struct wire_list entries = dispatch->as.dispatch.entries;
    struct wire_dispatch_entry entry;
    while (wire_dispatch_entry_next(&entries, &entry)) {
        assert_int_equal(entry.body.size, 100);
        assert_int_equal(entry.body.data[99], 'b');
        assert_int_equal(entry.dispatch, 1);
        assert_int_equal(entry.last_error.count, 0);
    }
    then_all_was_encoded(fixture);
}

static void test_outcomes_are_numbered_from_1_and_acknowledged_results_leave(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, CLIENT);
    when_it_says_hello(fixture, WORKER);
    when_tasks_are_submitted(fixture, 10, 10);
    when_the_round_ends(fixture);
    when_it_succeeds(fixture, then_there_is(fixture, MESSAGE_DISPATCH), 20);
    when_the_round_ends(fixture);
    const struct message *settled = then_there_is(fixture, MESSAGE_SETTLED);
    assert_int_equal(settled->as.settled.first, 1);
    assert_int_equal(settled->as.settled.entries.count, 10);
    assert_int_equal(then_there_is(fixture, MESSAGE_RESULT_ACK)->as.result_ack.entries.count, 10);
    struct wire_list entries = settled->as.settled.entries;
    struct wire_settled_entry entry;
    while (wire_settled_entry_next(&entries, &entry)) {
        assert_int_equal(entry.outcome, TASK_SUCCEEDED);
        assert_int_equal(entry.attempts, 1);
        assert_int_equal(entry.body.size, 20);
    }
    const uint64_t before = store_counts(fixture->store).byte_count;
    struct message acknowledged = {.kind = MESSAGE_HEARTBEAT, .upto = 10};
    take(fixture, CLIENT, &acknowledged);
    when_the_round_ends(fixture);
    assert_true(store_counts(fixture->store).byte_count < before);
    then_all_was_encoded(fixture);
}

static void test_large_results_are_frames_that_were_not_copied(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, CLIENT);
    when_it_says_hello(fixture, WORKER);
    when_tasks_are_submitted(fixture, 1, 10);
    when_the_round_ends(fixture);
    when_it_succeeds(fixture, then_there_is(fixture, MESSAGE_DISPATCH), 100000);
    when_the_round_ends(fixture);
    const struct sent *settled = then_sent(fixture, MESSAGE_SETTLED, 0);
    assert_int_equal(settled->frames.count, 2);
    struct store_view view;
    const struct core *core = fixture->core;
    assert_true(store_find(fixture->store, 0, core->tasks[0].sequence, &view));
    assert_ptr_equal(view.result.data, fixture->last_body);
    then_all_was_encoded(fixture);
}

static void test_recall_never_overtakes_the_dispatch_of_its_lease(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, WORKER);
    when_it_says_hello(fixture, CLIENT);
    struct effect recall = {
        .kind = EFFECT_SEND, .code = MESSAGE_RECALL, .connection = WORKER, .number = 5};
    encoder_send(fixture->encoder, &recall); /* of an older lease */
    when_tasks_are_submitted(fixture, 1, 10);
    const struct input dispatch = {.kind = INPUT_DISPATCH};
    step(fixture, &dispatch);
    recall.number = fixture->core->attempts[0].lease;
    encoder_send(fixture->encoder, &recall);
    forget_sent(fixture);
    encoder_flush(fixture->encoder);
    assert_int_equal(fixture->sent[0].message.kind, MESSAGE_DISPATCH);
    assert_int_equal(fixture->sent[1].message.kind, MESSAGE_RECALL);
    assert_int_equal(fixture->sent[1].message.as.recall.entries.count, 2);
    then_all_was_encoded(fixture);
}

static void test_failed_attempt_is_told_with_the_outcome_and_the_next_dispatch(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, CLIENT);
    when_it_says_hello(fixture, WORKER);
    when_tasks_are_submitted(fixture, 1, 10);
    when_the_round_ends(fixture);
    struct wire_list entries = then_there_is(fixture, MESSAGE_DISPATCH)->as.dispatch.entries;
    struct wire_dispatch_entry entry;
    assert_true(wire_dispatch_entry_next(&entries, &entry));
    struct writer writer;
    writer_init(&writer);
    const struct wire_failure_entry failure = {.lease = entry.lease,
                                               .kind = FAILURE_PERMANENT,
                                               .name = bytes_from_text("exit.9"),
                                               .message = bytes_from_text("never")};
    assert_true(wire_failure_entry_encode(&writer, &failure));
    struct message message = {.kind = MESSAGE_RESULT, .upto = 100000};
    message.as.result.failures = wire_list_from_writer(&writer, 1);
    take(fixture, WORKER, &message);
    when_the_round_ends(fixture);
    entries = then_there_is(fixture, MESSAGE_SETTLED)->as.settled.entries;
    struct wire_settled_entry settled;
    assert_true(wire_settled_entry_next(&entries, &settled));
    assert_int_equal(settled.outcome, TASK_FAILED);
    assert_int_equal(settled.kind, FAILURE_PERMANENT);
    assert_int_equal(settled.attempts, 1);
    struct wire_attempt_error error;
    assert_true(wire_attempt_error_next(&settled.error, &error));
    assert_true(bytes_is_equal(error.message, bytes_from_text("never")));
    assert_true(bytes_is_equal(error.worker, bytes_from_text("worker")));
    assert_int_equal(error.retry_index, 0);
    assert_int_equal(error.dispatch, 1);
    writer_free(&writer);
    then_all_was_encoded(fixture);
}

static void test_connection_that_has_ended_is_sent_nothing(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, CLIENT);
    when_tasks_are_submitted(fixture, 10, 10);
    const struct input durable = {.kind = INPUT_DURABLE,
                                  .durable_number = store_flush(fixture->store)};
    step(fixture, &durable); /* ACCEPTED is open now */
    forget_sent(fixture);
    encoder_close(fixture->encoder, CLIENT);
    const struct effect late = {
        .kind = EFFECT_SEND, .code = MESSAGE_HEARTBEAT, .connection = CLIENT};
    encoder_send(fixture->encoder, &late);
    encoder_flush(fixture->encoder);
    assert_int_equal(fixture->sent_count, 0);
    encoder_open(fixture->encoder, CLIENT); /* another peer under the same number */
    encoder_send(fixture->encoder, &late);
    assert_int_equal(then_there_is(fixture, MESSAGE_HEARTBEAT)->number, 1);
    then_all_was_encoded(fixture);
}

/* What the worker, which serves wc.*, is shown to serve to who has rights to this. */
static bool is_shown_to_serve(struct fixture *fixture, const char *text)
{
    const struct bytes glob = bytes_from_text(text);
    const struct globs services = {&glob, 1};
    const struct effect row = {.kind = EFFECT_SEND,
                               .code = MESSAGE_WORKER_INFO,
                               .connection = CLIENT,
                               .session = fixture->core->connection_sessions[WORKER] - 1,
                               .services = &services};
    struct effect last = row;
    last.is_last = 1;
    encoder_send(fixture->encoder, &row);
    encoder_send(fixture->encoder, &last);
    struct wire_list rows = then_there_is(fixture, MESSAGE_WORKER_INFO)->as.worker_info.rows;
    struct wire_worker_row worker;
    assert_true(wire_worker_row_next(&rows, &worker));
    return worker.serves.count > 0;
}

static void test_worker_is_shown_to_serve_what_the_asking_key_has_rights_to(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, CLIENT);
    when_it_says_hello(fixture, WORKER);
    when_tasks_are_submitted(fixture, 2, 10);
    when_the_round_ends(fixture);
    forget_sent(fixture);
    assert_true(is_shown_to_serve(fixture, "wc.count"));
    forget_sent(fixture);
    assert_false(is_shown_to_serve(fixture, "mail.*"));
    then_all_was_encoded(fixture);
}

static void test_questions_are_answered_with_rows(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, CLIENT);
    when_it_says_hello(fixture, WORKER);
    when_tasks_are_submitted(fixture, 5, 10);
    when_the_round_ends(fixture);
    struct message list = {.kind = MESSAGE_TASK_LIST};
    list.as.task_list.request = 11;
    take(fixture, CLIENT, &list);
    struct message workers = {.kind = MESSAGE_WORKER_QUERY};
    workers.as.worker_query.request = 12;
    take(fixture, CLIENT, &workers);
    struct message services = {.kind = MESSAGE_SERVICE_QUERY};
    services.as.service_query.request = 13;
    take(fixture, CLIENT, &services);
    struct message broker = {.kind = MESSAGE_BROKER_QUERY};
    broker.as.broker_query.request = 14;
    take(fixture, CLIENT, &broker);
    when_the_round_ends(fixture);

    const struct wire_task_page page = then_there_is(fixture, MESSAGE_TASK_PAGE)->as.task_page;
    assert_int_equal(page.request, 11);
    assert_int_equal(page.rows.count, 5);
    struct wire_list rows = then_there_is(fixture, MESSAGE_WORKER_INFO)->as.worker_info.rows;
    struct wire_worker_row worker;
    assert_true(wire_worker_row_next(&rows, &worker));
    assert_int_equal(worker.in_use, 5);
    assert_int_equal(worker.is_connected, 1);
    struct wire_tag served;
    assert_true(wire_tag_next(&worker.serves, &served));
    assert_true(bytes_is_equal(served.text, bytes_from_text("wc.*")));
    rows = then_there_is(fixture, MESSAGE_SERVICE_INFO)->as.service_info.rows;
    struct wire_service_row service;
    assert_true(wire_service_row_next(&rows, &service));
    assert_int_equal(service.running, 5);
    assert_int_equal(service.workers, 1);
    assert_int_equal(service.slots, 2000);
    struct wire_list counters =
        then_there_is(fixture, MESSAGE_BROKER_INFO)->as.broker_info.counters;
    struct wire_counter counter = {{0}, 0};
    while (wire_counter_next(&counters, &counter)) {
    }
    assert_true(bytes_is_equal(counter.name, bytes_from_text("of_the_shell")));
    assert_int_equal(counter.value, 42);
    then_all_was_encoded(fixture);
}

static void test_task_info_tells_state_policy_and_history(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_broker();
    when_it_says_hello(fixture, CLIENT);
    when_tasks_are_submitted(fixture, 1, 10);
    when_the_round_ends(fixture);
    struct message query = {.kind = MESSAGE_TASK_QUERY};
    query.as.task_query.request = 3;
    query.as.task_query.id = fixture->core->tasks[0].id;
    take(fixture, CLIENT, &query);
    when_the_round_ends(fixture);
    const struct wire_task_info info = then_there_is(fixture, MESSAGE_TASK_INFO)->as.task_info;
    assert_int_equal(info.request, 3);
    assert_int_equal(info.status, AWAIT_PENDING);
    assert_int_equal(info.body_size, 10);
    assert_int_equal(info.policy.count, POLICY_FIELD_COUNT);
    struct wire_list rows = info.rows;
    struct wire_task_row row;
    assert_true(wire_task_row_next(&rows, &row));
    assert_int_equal(row.state, TASK_READY);
    assert_int_equal(row.reason, WAIT_NO_WORKER);
    assert_int_equal(row.submitted_at_unix_ms, 1700000000000);
    then_all_was_encoded(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_is_answered_with_what_the_broker_is),
        cmocka_unit_test(test_refusal_has_number_0_and_does_not_count),
        cmocka_unit_test(test_answers_of_a_round_share_one_message),
        cmocka_unit_test(test_message_that_is_full_goes_out_and_the_next_one_begins),
        cmocka_unit_test(test_dispatches_share_templates_and_carry_their_bodies),
        cmocka_unit_test(test_outcomes_are_numbered_from_1_and_acknowledged_results_leave),
        cmocka_unit_test(test_large_results_are_frames_that_were_not_copied),
        cmocka_unit_test(test_recall_never_overtakes_the_dispatch_of_its_lease),
        cmocka_unit_test(test_failed_attempt_is_told_with_the_outcome_and_the_next_dispatch),
        cmocka_unit_test(test_connection_that_has_ended_is_sent_nothing),
        cmocka_unit_test(test_worker_is_shown_to_serve_what_the_asking_key_has_rights_to),
        cmocka_unit_test(test_questions_are_answered_with_rows),
        cmocka_unit_test(test_task_info_tells_state_policy_and_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
