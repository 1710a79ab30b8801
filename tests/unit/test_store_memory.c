/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "broker/shell/store/store.h"

#define TASK_COUNT 64U

/* As much of a core as the store looks at. */
struct fixture {
    struct core core;
    struct task tasks[TASK_COUNT];
    struct attempt attempts[1];
    struct session sessions[1];
    struct store *store;
    uint64_t record_number;
};

static struct fixture *given_a_store(void)
{
    static struct fixture fixture;
    fixture = (struct fixture){0};
    fixture.core.tasks = fixture.tasks;
    fixture.core.attempts = fixture.attempts;
    fixture.core.sessions = fixture.sessions;
    fixture.core.now_ms = 5000;
    fixture.attempts[0].dispatched_at_ms = 4200;
    fixture.sessions[0].name = (struct name){2, "w1"};
    fixture.sessions[0].host = (struct name){2, "h1"};
    fixture.store = store_create_memory(TASK_COUNT);
    assert_non_null(fixture.store);
    return &fixture;
}

static struct effect record(struct fixture *fixture, enum record_kind kind, uint32_t task)
{
    fixture->record_number++;
    return (struct effect){.kind = EFFECT_PERSIST,
                           .code = (uint8_t)kind,
                           .task = task,
                           .attempt = NONE,
                           .sequence = task + 100,
                           .number = fixture->record_number};
}

static void append(struct fixture *fixture, const struct effect *effect)
{
    assert_true(store_append(fixture->store, &fixture->core, effect, 1700000000000));
}

static void accept(struct fixture *fixture, uint32_t task, const char *body,
                   const struct wire_submit_template *template)
{
    struct effect effect = record(fixture, RECORD_ACCEPTED, task);
    effect.body = bytes_from_text(body);
    effect.template = template;
    append(fixture, &effect);
}

static void settle(struct fixture *fixture, uint32_t task, const char *result)
{
    struct effect effect = record(fixture, RECORD_SETTLED, task);
    effect.body = bytes_from_text(result);
    append(fixture, &effect);
}

static void fail_attempt(struct fixture *fixture, uint32_t task, const char *message)
{
    const struct wire_failure_entry failure = {.kind = FAILURE_TRANSIENT,
                                               .name = bytes_from_text("exit.3"),
                                               .message = bytes_from_text(message),
                                               .duration_ms = 77};
    struct effect effect = record(fixture, RECORD_ATTEMPT_FAILED, task);
    effect.failure = &failure;
    effect.reason = FAILURE_TRANSIENT;
    effect.attempt = 0;
    append(fixture, &effect);
}

static void drop(struct fixture *fixture, uint32_t task)
{
    const struct effect effect = record(fixture, RECORD_DROPPED, task);
    append(fixture, &effect);
}

static struct store_view view_of(const struct fixture *fixture, uint32_t task)
{
    struct store_view view;
    assert_true(store_find(fixture->store, task, task + 100, &view));
    return view;
}

static void then_text_is(struct bytes bytes, const char *expected)
{
    assert_true(bytes_is_equal(bytes, bytes_from_text(expected)));
}

static const struct wire_submit_template no_extras = {.priority = 0};

static void test_task_is_kept_until_it_is_dropped(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_store();
    accept(fixture, 3, "body", &no_extras);
    struct store_view view = view_of(fixture, 3);
    then_text_is(view.body, "body");
    assert_int_equal(view.submitted_at_unix_ms, 1700000000000);
    assert_int_equal(view.settled_at_unix_ms, 0);
    assert_int_equal(view.error_count, 0);
    settle(fixture, 3, "result");
    view = view_of(fixture, 3);
    then_text_is(view.result, "result");
    assert_int_equal(view.settled_at_unix_ms, 1700000000000);
    const struct effect dropped = record(fixture, RECORD_RESULT_DROPPED, 3);
    append(fixture, &dropped);
    assert_int_equal(view_of(fixture, 3).result.size, 0);
    drop(fixture, 3);
    assert_false(store_find(fixture->store, 3, 103, &view));
    assert_int_equal(view.body.size, 0);
    accept(fixture, 3, "another", &no_extras); /* the place is used again */
    then_text_is(view_of(fixture, 3).body, "another");
    store_destroy(&fixture->store);
    assert_null(fixture->store);
}

static void test_another_sequence_in_the_same_place_is_not_found(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_store();
    accept(fixture, 3, "body", &no_extras);
    struct store_view view;
    assert_false(store_find(fixture->store, 3, 104, &view));
    assert_false(store_find(fixture->store, 4, 0, &view));
    store_destroy(&fixture->store);
}

static void test_what_was_dropped_stays_readable_until_release(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_store();
    accept(fixture, 1, "still here", &no_extras);
    const struct store_view view = view_of(fixture, 1);
    drop(fixture, 1);
    then_text_is(view.body, "still here"); /* a use after free shows under ASan */
    store_release(fixture->store);
    store_destroy(&fixture->store);
}

static void test_records_are_durable_when_they_are_flushed(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_store();
    assert_int_equal(store_flush(fixture->store), 0);
    accept(fixture, 1, "a", &no_extras);
    accept(fixture, 2, "b", &no_extras);
    assert_int_equal(store_flush(fixture->store), 2);
    settle(fixture, 1, "");
    assert_int_equal(store_flush(fixture->store), 3);
    store_destroy(&fixture->store);
}

static void test_tasks_of_one_template_share_its_tags_and_meta(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_store();
    struct writer tags;
    struct writer meta;
    writer_init(&tags);
    writer_init(&meta);
    const struct wire_tag tag = {bytes_from_text("nightly")};
    const struct wire_meta_item item = {bytes_from_text("name"), bytes_from_text("value")};
    assert_true(wire_tag_encode(&tags, &tag));
    assert_true(wire_meta_item_encode(&meta, &item));
    const struct wire_submit_template template = {.tenant = bytes_from_text("tenant"),
                                                  .tags = wire_list_from_writer(&tags, 1),
                                                  .meta = wire_list_from_writer(&meta, 1)};
    accept(fixture, 1, "a", &template);
    const uint64_t one = store_counts(fixture->store).byte_count;
    accept(fixture, 2, "a", &template);
    const uint64_t second = store_counts(fixture->store).byte_count - one;
    assert_true(second < one);
    drop(fixture, 1);
    struct store_view view = view_of(fixture, 2);
    struct wire_tag kept_tag;
    struct wire_meta_item kept_item;
    assert_true(wire_tag_next(&view.tags, &kept_tag));
    then_text_is(kept_tag.text, "nightly");
    assert_true(wire_meta_item_next(&view.meta, &kept_item));
    then_text_is(kept_item.value, "value");
    then_text_is(view.tenant, "tenant");
    store_destroy(&fixture->store);
    writer_free(&tags);
    writer_free(&meta);
}

static void test_meta_of_an_attempt_replaces_that_of_the_submission(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_store();
    struct writer writer;
    writer_init(&writer);
    const struct wire_meta_item item = {bytes_from_text("step"), bytes_from_text("2")};
    assert_true(wire_meta_item_encode(&writer, &item));
    const struct wire_list meta = wire_list_from_writer(&writer, 1);
    accept(fixture, 1, "a", &no_extras);
    struct effect effect = record(fixture, RECORD_META, 1);
    effect.meta = &meta;
    append(fixture, &effect);
    struct store_view view = view_of(fixture, 1);
    struct wire_meta_item kept;
    assert_int_equal(view.meta.count, 1);
    assert_true(wire_meta_item_next(&view.meta, &kept));
    then_text_is(kept.name, "step");
    store_destroy(&fixture->store);
    writer_free(&writer);
}

static struct wire_attempt_error error_at(const struct fixture *fixture, uint32_t task,
                                          uint32_t index)
{
    struct wire_list list = store_error(fixture->store, task, index);
    struct wire_attempt_error error;
    assert_true(wire_attempt_error_next(&list, &error));
    return error;
}

static void test_failed_attempt_leaves_what_the_worker_told_and_where_it_ran(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_store();
    accept(fixture, 1, "a", &no_extras);
    fixture->tasks[1].dispatches = 4;
    fail_attempt(fixture, 1, "no such");
    const struct wire_attempt_error error = error_at(fixture, 1, 0);
    assert_int_equal(error.error_id, 1);
    assert_int_equal(error.dispatch, 4);
    assert_int_equal(error.kind, FAILURE_TRANSIENT);
    assert_int_equal(error.duration_ms, 77);
    assert_int_equal(error.failed_at_unix_ms, 1700000000000);
    then_text_is(error.name, "exit.3");
    then_text_is(error.message, "no such");
    then_text_is(error.worker, "w1");
    then_text_is(error.host, "h1");
    store_destroy(&fixture->store);
}

static void test_brokers_own_verdict_has_a_name_and_a_message(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_store();
    accept(fixture, 1, "a", &no_extras);
    struct effect effect = record(fixture, RECORD_ATTEMPT_FAILED, 1);
    effect.reason = FAILURE_LOST;
    effect.attempt = 0;
    append(fixture, &effect);
    const struct wire_attempt_error error = error_at(fixture, 1, 0);
    assert_int_equal(error.kind, FAILURE_LOST);
    assert_int_equal(error.duration_ms, 800);
    then_text_is(error.name, "broker.lost");
    then_text_is(error.message, "the worker's session ended");
    store_destroy(&fixture->store);
}

static void test_long_history_keeps_the_first_and_the_newest_errors(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_store();
    accept(fixture, 1, "a", &no_extras);
    char message[32];
    for (int i = 1; i <= 40; i++) {
        (void)snprintf(message, sizeof message, "error %d", i);
        fail_attempt(fixture, 1, message);
    }
    const struct store_view view = view_of(fixture, 1);
    assert_int_equal(view.error_count, ATTEMPT_HISTORY_MAX);
    then_text_is(error_at(fixture, 1, 0).message, "error 1");
    then_text_is(error_at(fixture, 1, 1).message, "error 10");
    then_text_is(error_at(fixture, 1, 31).message, "error 40");
    assert_int_equal(store_counts(fixture->store).error_dropped, 8);
    store_destroy(&fixture->store);
}

static void test_every_byte_is_accounted_for(void **unused)
{
    (void)unused;
    struct fixture *fixture = given_a_store();
    for (uint32_t task = 0; task < TASK_COUNT; task++) {
        accept(fixture, task, "some body", &no_extras);
        fail_attempt(fixture, task, "some message");
        settle(fixture, task, "some result");
    }
    assert_int_equal(store_counts(fixture->store).task_count, TASK_COUNT);
    assert_true(store_counts(fixture->store).byte_count > TASK_COUNT * UINT64_C(100));
    for (uint32_t task = 0; task < TASK_COUNT; task++) {
        drop(fixture, task);
    }
    store_release(fixture->store);
    assert_int_equal(store_counts(fixture->store).task_count, 0);
    assert_int_equal(store_counts(fixture->store).byte_count, 0);
    store_destroy(&fixture->store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_task_is_kept_until_it_is_dropped),
        cmocka_unit_test(test_another_sequence_in_the_same_place_is_not_found),
        cmocka_unit_test(test_what_was_dropped_stays_readable_until_release),
        cmocka_unit_test(test_records_are_durable_when_they_are_flushed),
        cmocka_unit_test(test_tasks_of_one_template_share_its_tags_and_meta),
        cmocka_unit_test(test_meta_of_an_attempt_replaces_that_of_the_submission),
        cmocka_unit_test(test_failed_attempt_leaves_what_the_worker_told_and_where_it_ran),
        cmocka_unit_test(test_brokers_own_verdict_has_a_name_and_a_message),
        cmocka_unit_test(test_long_history_keeps_the_first_and_the_newest_errors),
        cmocka_unit_test(test_every_byte_is_accounted_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
