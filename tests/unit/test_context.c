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
#include <time.h>

#include "worker/context.h"

static treadle_context *context;
static struct worker_attempt attempt;
static struct context_end end;
static struct writer meta_writer;
static struct writer tags_writer;
static struct writer last_writer;
static bool is_cancelled_now;
static unsigned progress_count;
static const char *const filters[] = {"db.*", "no.luck"};

static bool is_cancelled(void *owner)
{
    assert_ptr_equal(owner, &attempt);
    return is_cancelled_now;
}

static void on_progress(void *owner)
{
    assert_ptr_equal(owner, &attempt);
    progress_count++;
}

static int set_up(void **state)
{
    (void)state;
    const struct context_config config = {
        .worker = "w1",
        .owner = &attempt,
        .is_cancelled = is_cancelled,
        .on_progress = on_progress,
    };
    writer_init(&meta_writer);
    writer_init(&tags_writer);
    writer_init(&last_writer);
    context = context_create(&config);
    assert_non_null(context);
    attempt = (struct worker_attempt){
        .lease = 77,
        .service = bytes_from_text("wc"),
        .task = bytes_from_text("count"),
        .body = bytes_from_text("a b"),
        .dispatch = 3,
        .retry_index = 2,
        .retry_sequence = 1,
        .attempts_max = 4,
        .timeout_ms = 60000,
        .result_size_max = 100,
    };
    is_cancelled_now = false;
    progress_count = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    context_destroy(&context);
    assert_null(context);
    writer_free(&meta_writer);
    writer_free(&tags_writer);
    writer_free(&last_writer);
    return 0;
}

static void given_meta(const char *name, const char *value)
{
    const struct wire_meta_item item = {
        .name = bytes_from_text(name),
        .value = bytes_from_text(value),
    };
    assert_true(wire_meta_item_encode(&meta_writer, &item));
    attempt.meta = wire_list_from_writer(&meta_writer, meta_writer.record_count);
}

static void given_a_tag(const char *text)
{
    const struct wire_tag tag = {.text = bytes_from_text(text)};
    assert_true(wire_tag_encode(&tags_writer, &tag));
    attempt.tags = wire_list_from_writer(&tags_writer, tags_writer.record_count);
}

static void given_a_last_error(const char *name, const char *message)
{
    const struct wire_last_error last = {
        .kind = FAILURE_CRASH,
        .name = bytes_from_text(name),
        .message = bytes_from_text(message),
    };
    assert_true(wire_last_error_encode(&last_writer, &last));
    attempt.last_error = wire_list_from_writer(&last_writer, 1);
}

static void when_it_runs(treadle_handler_run *run)
{
    const struct treadle_handler handler = {
        .size = sizeof(handler),
        .name = "wc.count",
        .run = run,
        .dont_retry_on = filters,
        .dont_retry_on_count = 2,
    };
    context_run(context, &handler, &attempt, context_now_us(), &end);
}

#define then_text_is(bytes, text)                                                                  \
    do {                                                                                           \
        assert_int_equal((bytes).size, strlen(text));                                              \
        assert_memory_equal((bytes).data, (text), (bytes).size);                                   \
    } while (0)

static void then_it_failed(enum failure_kind kind, const char *name, const char *message)
{
    assert_false(end.is_success);
    assert_int_equal(end.kind, kind);
    then_text_is(end.name, name);
    then_text_is(end.message, message);
}

/* ---- what a handler is given ---- */

static enum treadle_end look(treadle_context *self, const struct treadle_attempt *given)
{
    assert_int_equal(given->size, sizeof(*given));
    assert_int_equal(given->lease, 77);
    assert_string_equal(given->service, "wc");
    assert_string_equal(given->task, "count");
    assert_string_equal(given->worker, "w1");
    assert_int_equal(given->body_size, 3);
    assert_memory_equal(given->body, "a b", 3);
    assert_int_equal(given->dispatch, 3);
    assert_int_equal(given->retry_index, 2);
    assert_int_equal(given->retry_sequence, 1);
    assert_int_equal(given->attempts_max, 4);
    assert_int_equal(given->timeout_ms, 60000);
    assert_int_equal(given->tag_count, 2);
    assert_string_equal(given->tags[0], "red");
    assert_string_equal(given->tags[1], "green");
    assert_int_equal(given->meta_count, 1);
    assert_string_equal(given->meta[0].name, "cursor");
    assert_int_equal(given->meta[0].value_size, 2);
    assert_memory_equal(given->meta[0].value, "17", 2);
    assert_int_equal(given->last_kind, TREADLE_FAILURE_CRASH);
    assert_string_equal(given->last_name, "signal.SEGV");
    assert_string_equal(given->last_message, "died");
    return treadle_context_result(self, "ok", 2);
}

static void test_a_handler_sees_all_of_its_attempt(void **state)
{
    (void)state;
    given_a_tag("red");
    given_a_tag("green");
    given_meta("cursor", "17");
    given_a_last_error("signal.SEGV", "died");
    when_it_runs(look);
    assert_true(end.is_success);
    then_text_is(end.body, "ok");
}

static enum treadle_end look_at_nothing(treadle_context *self, const struct treadle_attempt *given)
{
    (void)self;
    assert_null(given->body);
    assert_int_equal(given->tag_count, 0);
    assert_int_equal(given->meta_count, 0);
    assert_int_equal(given->last_kind, TREADLE_FAILURE_NONE);
    assert_string_equal(given->last_name, "");
    assert_string_equal(given->last_message, "");
    return TREADLE_END_SUCCESS;
}

static void test_an_empty_body_is_null_and_no_result_is_an_empty_one(void **state)
{
    (void)state;
    attempt.body = (struct bytes){0};
    when_it_runs(look_at_nothing);
    assert_true(end.is_success);
    assert_int_equal(end.body.size, 0);
}

static enum treadle_end look_at_everything(treadle_context *self,
                                           const struct treadle_attempt *given)
{
    (void)self;
    assert_int_equal(given->meta_count, META_COUNT_MAX);
    assert_int_equal(strlen(given->meta[META_COUNT_MAX - 1].name), NAME_SIZE_MAX);
    assert_int_equal(given->tag_count, TAG_COUNT_MAX);
    assert_int_equal(strlen(given->tags[TAG_COUNT_MAX - 1]), NAME_SIZE_MAX);
    assert_int_equal(strlen(given->task), NAME_SIZE_MAX);
    assert_int_equal(strlen(given->last_name), NAME_SIZE_MAX);
    assert_int_equal(strlen(given->last_message), ERROR_MESSAGE_SIZE_MAX);
    return TREADLE_END_SUCCESS;
}

static void test_the_largest_attempt_fits(void **state)
{
    (void)state;
    char name[NAME_SIZE_MAX + 1];
    char message[ERROR_MESSAGE_SIZE_MAX + 1];
    memset(message, 'm', sizeof(message) - 1);
    message[sizeof(message) - 1] = '\0';
    for (int i = 0; i < META_COUNT_MAX; i++) {
        (void)snprintf(name, sizeof(name), "%064d", i);
        given_meta(name, "v");
    }
    for (int i = 0; i < TAG_COUNT_MAX; i++) {
        given_a_tag(name);
    }
    given_a_last_error(name, message);
    attempt.service = bytes_from_text(name);
    attempt.task = bytes_from_text(name);
    when_it_runs(look_at_everything);
    assert_true(end.is_success);
}

/* ---- ends ---- */

static enum treadle_end end_transient(treadle_context *self, const struct treadle_attempt *given)
{
    return treadle_context_fail(self, TREADLE_END_TRANSIENT, (const char *)given->body, "no %d", 7);
}

static void given_a_name_as_body(const char *name)
{
    attempt.body = (struct bytes){(const uint8_t *)name, strlen(name) + 1};
}

static void test_a_failure_has_its_name_and_message(void **state)
{
    (void)state;
    given_a_name_as_body("net.reset");
    when_it_runs(end_transient);
    then_it_failed(FAILURE_TRANSIENT, "net.reset", "no 7");
    assert_int_equal(end.choice, RETRY_BY_POLICY);
}

static void test_a_filtered_name_makes_a_failure_permanent(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum failure_kind kind;
    } cases[] = {
        {"db.timeout", FAILURE_PERMANENT}, {"db.", FAILURE_PERMANENT},
        {"db", FAILURE_TRANSIENT},         {"dbx.timeout", FAILURE_TRANSIENT},
        {"no.luck", FAILURE_PERMANENT},    {"no.luck.today", FAILURE_TRANSIENT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        given_a_name_as_body(cases[i].name);
        when_it_runs(end_transient);
        then_it_failed(cases[i].kind, cases[i].name, "no 7");
    }
}

static enum treadle_end end_silent(treadle_context *self, const struct treadle_attempt *given)
{
    (void)self;
    (void)given;
    return TREADLE_END_PERMANENT;
}

static void test_a_failure_without_words_gets_some(void **state)
{
    (void)state;
    when_it_runs(end_silent);
    then_it_failed(FAILURE_PERMANENT, "failed", "the handler failed and did not say why");
}

static enum treadle_end end_wrong(treadle_context *self, const struct treadle_attempt *given)
{
    (void)self;
    (void)given;
    int number = 9;
    enum treadle_end returned = TREADLE_END_SUCCESS;
    memcpy(&returned, &number, sizeof(returned));
    return returned;
}

static void test_an_end_that_is_none_is_permanent(void **state)
{
    (void)state;
    when_it_runs(end_wrong);
    then_it_failed(FAILURE_PERMANENT, "handler.return",
                   "the handler returned 9, which is no enum treadle_end");
}

static enum treadle_end end_long(treadle_context *self, const struct treadle_attempt *given)
{
    char text[3000];
    (void)given;
    for (size_t i = 0; i + 3 < sizeof(text); i += 2) { /* at odd places, so that the cut hits one */
        memcpy(text + i + 1, "\xc3\xa4", 2);
    }
    text[0] = 'x';
    text[sizeof(text) - 1] = '\0';
    treadle_context_trace(self, "first\n");
    for (int i = 0; i < 100; i++) {
        treadle_context_trace(self, text);
    }
    treadle_context_trace(self, "last\n");
    (void)treadle_context_fail(self, TREADLE_END_TRANSIENT, text, "%s", text);
    return TREADLE_END_TRANSIENT;
}

static void test_long_texts_are_cut_at_characters_and_traces_keep_their_end(void **state)
{
    (void)state;
    when_it_runs(end_long);
    assert_int_equal(end.name.size, NAME_SIZE_MAX);
    assert_int_equal(end.message.size, ERROR_MESSAGE_SIZE_MAX - 1);
    assert_int_equal(end.message.data[end.message.size - 1], 0xa4);
    assert_in_range(end.trace.size, ERROR_TRACE_SIZE_MAX - 3, ERROR_TRACE_SIZE_MAX);
    assert_memory_equal(end.trace.data + end.trace.size - 5, "last\n", 5);
}

static enum treadle_end choose(treadle_context *self, const struct treadle_attempt *given)
{
    if (given->body_size == 0) {
        treadle_context_retry_stop(self);
    } else {
        treadle_context_retry_after(self, 1500);
    }
    return TREADLE_END_TRANSIENT;
}

static void test_a_handler_chooses_when_to_retry_or_not_at_all(void **state)
{
    (void)state;
    when_it_runs(choose);
    assert_int_equal(end.choice, RETRY_AFTER);
    assert_int_equal(end.retry_delay_ms, 1500);
    attempt.body = (struct bytes){0};
    when_it_runs(choose);
    assert_int_equal(end.choice, RETRY_STOP);
    when_it_runs(end_silent);
    assert_int_equal(end.choice, RETRY_BY_POLICY);
    assert_int_equal(end.retry_delay_ms, 0);
}

/* ---- results ---- */

static enum treadle_end give_body(treadle_context *self, const struct treadle_attempt *given)
{
    (void)treadle_context_result(self, "an earlier one", 14);
    return treadle_context_result(self, given->body, given->body_size);
}

static void test_a_result_over_what_is_admitted_is_a_failure_to_finalize(void **state)
{
    (void)state;
    char body[101];
    memset(body, 'x', sizeof(body));
    attempt.body = (struct bytes){(const uint8_t *)body, 100};
    when_it_runs(give_body);
    assert_true(end.is_success);
    assert_int_equal(end.body.size, 100);
    attempt.body.size = 101;
    when_it_runs(give_body);
    then_it_failed(FAILURE_FINALIZE, "result.size",
                   "the result has 101 bytes, over the limit of 100");
}

static void test_large_results_come_whole_one_after_the_other(void **state)
{
    (void)state;
    const size_t size = 3000000;
    uint8_t *body = malloc(size);
    assert_non_null(body);
    memset(body, 'y', size);
    attempt.result_size_max = 0; /* nobody said: the protocol's limit */
    for (size_t part = size; part > 100; part /= 7) {
        attempt.body = (struct bytes){body, part};
        when_it_runs(give_body);
        assert_true(end.is_success);
        assert_int_equal(end.body.size, part);
        assert_memory_equal(end.body.data, body, part);
    }
    free(body);
}

static enum treadle_end give_null(treadle_context *self, const struct treadle_attempt *given)
{
    (void)given;
    return treadle_context_result(self, NULL, 5);
}

static void test_a_result_that_is_null_is_a_mistake(void **state)
{
    (void)state;
    when_it_runs(give_null);
    then_it_failed(FAILURE_PERMANENT, "handler.result", "the result is NULL, but its size is 5");
}

/* ---- meta ---- */

static enum treadle_end change_meta(treadle_context *self, const struct treadle_attempt *given)
{
    char large[META_SIZE_MAX];
    char name[NAME_SIZE_MAX + 2];
    memset(large, 'v', sizeof(large));
    memset(name, 'n', sizeof(name));
    name[NAME_SIZE_MAX + 1] = '\0';
    assert_int_equal(treadle_context_set_meta(self, "cursor", "18", 2), TREADLE_OK);
    assert_int_equal(treadle_context_set_meta(self, "new", "", 0), TREADLE_OK);
    assert_int_equal(treadle_context_set_meta(self, "old", NULL, 0), TREADLE_OK);
    assert_int_equal(treadle_context_set_meta(self, "unknown", NULL, 0), TREADLE_OK);
    assert_int_equal(treadle_context_set_meta(self, "", "v", 1), TREADLE_E_INVALID);
    assert_int_equal(treadle_context_set_meta(self, NULL, "v", 1), TREADLE_E_INVALID);
    assert_int_equal(treadle_context_set_meta(self, name, "v", 1), TREADLE_E_INVALID);
    assert_int_equal(treadle_context_set_meta(self, "x", NULL, 1), TREADLE_E_INVALID);
    assert_int_equal(treadle_context_set_meta(self, "big", large, sizeof(large)), TREADLE_E_LIMIT);
    assert_int_equal(given->meta_count, 2); /* what it was given stays as it was */
    assert_memory_equal(given->meta[0].value, "17", 2);
    return TREADLE_END_SUCCESS;
}

static void test_meta_changes_and_is_told_once(void **state)
{
    (void)state;
    const struct treadle_meta *meta = NULL;
    size_t count = 0;
    given_meta("cursor", "17");
    given_meta("old", "gone");
    when_it_runs(change_meta);
    assert_true(end.is_success);
    assert_true(context_take_meta(context, &meta, &count));
    assert_int_equal(count, 2);
    assert_string_equal(meta[0].name, "cursor");
    assert_int_equal(meta[0].value_size, 2);
    assert_memory_equal(meta[0].value, "18", 2);
    assert_string_equal(meta[1].name, "new");
    assert_int_equal(meta[1].value_size, 0);
    assert_false(context_take_meta(context, &meta, &count));
    when_it_runs(end_silent);
    assert_false(context_take_meta(context, &meta, &count));
}

static enum treadle_end fill_meta(treadle_context *self, const struct treadle_attempt *given)
{
    char name[16];
    char value[300];
    size_t count = 0;
    (void)given;
    memset(value, 'v', sizeof(value));
    for (int i = 0; i < META_COUNT_MAX; i++) {
        (void)snprintf(name, sizeof(name), "n%02d", i);
        count += treadle_context_set_meta(self, name, value, 1) == TREADLE_OK;
    }
    assert_int_equal(count, META_COUNT_MAX);
    assert_int_equal(treadle_context_set_meta(self, "one-more", value, 1), TREADLE_E_LIMIT);
    count = 0;
    for (int i = 0; i < META_COUNT_MAX; i++) {
        (void)snprintf(name, sizeof(name), "n%02d", i);
        count += treadle_context_set_meta(self, name, value, sizeof(value)) == TREADLE_OK;
    }
    assert_in_range(count * 303 + (META_COUNT_MAX - count) * 4, META_SIZE_MAX - 300, META_SIZE_MAX);
    return TREADLE_END_SUCCESS;
}

static enum treadle_end remove_all_meta(treadle_context *self, const struct treadle_attempt *given)
{
    for (size_t i = 0; i < given->meta_count; i++) {
        assert_int_equal(treadle_context_set_meta(self, given->meta[i].name, NULL, 0), TREADLE_OK);
    }
    assert_int_equal(treadle_context_set_meta(self, "brief", "v", 1), TREADLE_OK);
    assert_int_equal(treadle_context_set_meta(self, "brief", NULL, 0), TREADLE_OK);
    return TREADLE_END_SUCCESS;
}

static void test_of_a_meta_that_was_kept_the_last_name_removed_stays_empty(void **state)
{
    (void)state;
    const struct treadle_meta *meta;
    size_t count;
    when_it_runs(remove_all_meta);
    assert_false(context_take_meta(context, &meta, &count)); /* nobody has heard of any */
    given_meta("cursor", "17");
    given_meta("old", "x");
    when_it_runs(remove_all_meta);
    assert_true(context_take_meta(context, &meta, &count));
    assert_int_equal(count, 1);
    assert_string_equal(meta[0].name, "brief");
    assert_int_equal(meta[0].value_size, 0);
    assert_false(context_take_meta(context, &meta, &count));
}

static void test_meta_is_limited_in_number_and_size(void **state)
{
    (void)state;
    when_it_runs(fill_meta);
    assert_true(end.is_success);
}

/* ---- time, progress, cleanups ---- */

static enum treadle_end look_at_time(treadle_context *self, const struct treadle_attempt *given)
{
    const uint64_t left_ms = treadle_context_time_left_ms(self);
    const uint64_t expected_ms = given->deadline_left_ms != 0 ? given->deadline_left_ms
                                 : given->timeout_ms != 0     ? given->timeout_ms
                                                              : UINT64_MAX;
    assert_in_range(left_ms, expected_ms - 2000, expected_ms);
    assert_int_equal(treadle_context_is_cancelled(self), 0);
    is_cancelled_now = true;
    assert_int_equal(treadle_context_is_cancelled(self), 1);
    is_cancelled_now = false;
    treadle_context_progress(self);
    assert_null(treadle_context_client(self)); /* this context has none */
    return TREADLE_END_SUCCESS;
}

static void test_the_time_left_is_that_of_the_nearer_end(void **state)
{
    (void)state;
    when_it_runs(look_at_time);
    attempt.deadline_left_ms = 30000;
    when_it_runs(look_at_time);
    attempt.deadline_left_ms = 0;
    attempt.timeout_ms = 0;
    when_it_runs(look_at_time);
    assert_int_equal(progress_count, 3);
}

static enum treadle_end look_at_no_time(treadle_context *self, const struct treadle_attempt *given)
{
    (void)given;
    assert_int_equal(treadle_context_time_left_ms(self), 0);
    return TREADLE_END_SUCCESS;
}

static void test_no_time_is_left_after_the_timeout(void **state)
{
    (void)state;
    const struct treadle_handler handler = {.name = "wc.count", .run = look_at_no_time};
    context_run(context, &handler, &attempt, context_now_us() - 60001000, &end);
    assert_true(end.is_success);
}

static char order[64];

static void note(void *data)
{
    (void)strncat(order, data, sizeof(order) - strlen(order) - 1);
}

static enum treadle_end register_cleanups(treadle_context *self,
                                          const struct treadle_attempt *given)
{
    static char names[] = "a\0b\0c\0d\0e\0f\0g\0h\0i\0j";
    (void)given;
    for (size_t i = 0; i < 10; i++) {
        assert_int_equal(treadle_context_on_end(self, note, names + 2 * i), TREADLE_OK);
    }
    note((char[]){"|"});
    return TREADLE_END_TRANSIENT;
}

static void test_cleanups_run_after_the_handler_the_last_first(void **state)
{
    (void)state;
    order[0] = '\0';
    when_it_runs(register_cleanups);
    assert_string_equal(order, "|jihgfedcba");
    order[0] = '\0';
    when_it_runs(end_silent);
    assert_string_equal(order, "");
}

/* ---- test mode ---- */

static enum treadle_end echo(treadle_context *self, const struct treadle_attempt *given)
{
    assert_int_equal(given->retry_index, 0);
    assert_int_equal(given->dispatch, 1);
    assert_int_equal(treadle_context_is_cancelled(self), 0);
    assert_null(treadle_context_client(self));
    treadle_context_progress(self);
    if (given->body_size == 0) {
        treadle_context_trace(self, "at line 7\n");
        return treadle_context_fail(self, TREADLE_END_TRANSIENT, "echo.empty", "nothing to say");
    }
    assert_int_equal(given->meta_count, 1);
    assert_string_equal(given->meta[0].name, "m");
    assert_int_equal(given->tag_count, 1);
    assert_string_equal(given->tags[0], "t");
    assert_int_equal(given->timeout_ms, 1234);
    return treadle_context_result(self, given->body, given->body_size);
}

static const struct treadle_policy echo_policy = {
    .size = sizeof(struct treadle_policy),
    .timeout_ms = 1234,
    .attempts_max = 2,
};
static const struct treadle_handler echo_handler = {
    .size = sizeof(struct treadle_handler),
    .name = "say.*",
    .run = echo,
    .policy = &echo_policy,
};

static void test_a_handler_is_tried_in_the_callers_process(void **state)
{
    (void)state;
    const char *const tags[] = {"t"};
    const struct treadle_meta meta = {.name = "m", .value = "v", .value_size = 1};
    const struct treadle_task task = {
        .size = sizeof(task),
        .name = "say.echo",
        .body = "hello",
        .body_size = 5,
        .tags = tags,
        .tag_count = 1,
        .meta = &meta,
        .meta_count = 1,
    };
    struct treadle_outcome *outcome = NULL;
    assert_int_equal(treadle_handler_try(&echo_handler, &task, &outcome), TREADLE_OK);
    assert_int_equal(outcome->status, TREADLE_OK);
    assert_int_equal(outcome->state, TREADLE_TASK_SUCCEEDED);
    assert_int_equal(outcome->kind, TREADLE_FAILURE_NONE);
    assert_int_equal(outcome->body_size, 5);
    assert_memory_equal(outcome->body, "hello", 5);
    assert_int_equal(outcome->attempts, 1);
    assert_int_equal(outcome->attempts_max, 2);
    assert_string_equal(outcome->error_name, "");
    treadle_outcome_free(&outcome);
    assert_null(outcome);
}

static void test_a_try_that_fails_tells_how(void **state)
{
    (void)state;
    const struct treadle_task task = {.size = sizeof(task), .name = "say.nothing"};
    struct treadle_outcome *outcome = NULL;
    assert_int_equal(treadle_handler_try(&echo_handler, &task, &outcome), TREADLE_OK);
    assert_int_equal(outcome->state, TREADLE_TASK_FAILED);
    assert_int_equal(outcome->kind, TREADLE_FAILURE_TRANSIENT);
    assert_string_equal(outcome->kind_text, "transient");
    assert_string_equal(outcome->error_name, "echo.empty");
    assert_string_equal(outcome->error_message, "nothing to say");
    assert_string_equal(outcome->error_trace, "at line 7\n");
    treadle_outcome_free(&outcome);
}

static void test_a_try_refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct treadle_outcome *outcome = NULL;
    struct treadle_handler handler = echo_handler;
    struct treadle_task task = {.size = sizeof(task), .name = "sing.echo"};
    assert_int_equal(treadle_handler_try(&handler, &task, &outcome), TREADLE_E_INVALID);
    task.name = "say";
    assert_int_equal(treadle_handler_try(&handler, &task, &outcome), TREADLE_E_INVALID);
    task.name = "say.echo";
    handler.name = "say.other";
    assert_int_equal(treadle_handler_try(&handler, &task, &outcome), TREADLE_E_INVALID);
    handler.name = NULL;
    assert_int_equal(treadle_handler_try(&handler, &task, &outcome), TREADLE_E_INVALID);
    handler = echo_handler;
    handler.run = NULL;
    assert_int_equal(treadle_handler_try(&handler, &task, &outcome), TREADLE_E_INVALID);
    handler = echo_handler;
    handler.size = 0;
    assert_int_equal(treadle_handler_try(&handler, &task, &outcome), TREADLE_E_INVALID);
    assert_null(outcome);
}

#define SENTENCE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SENTENCE(test_a_handler_sees_all_of_its_attempt),
        SENTENCE(test_an_empty_body_is_null_and_no_result_is_an_empty_one),
        SENTENCE(test_the_largest_attempt_fits),
        SENTENCE(test_a_failure_has_its_name_and_message),
        SENTENCE(test_a_filtered_name_makes_a_failure_permanent),
        SENTENCE(test_a_failure_without_words_gets_some),
        SENTENCE(test_an_end_that_is_none_is_permanent),
        SENTENCE(test_long_texts_are_cut_at_characters_and_traces_keep_their_end),
        SENTENCE(test_a_handler_chooses_when_to_retry_or_not_at_all),
        SENTENCE(test_a_result_over_what_is_admitted_is_a_failure_to_finalize),
        SENTENCE(test_large_results_come_whole_one_after_the_other),
        SENTENCE(test_a_result_that_is_null_is_a_mistake),
        SENTENCE(test_meta_changes_and_is_told_once),
        SENTENCE(test_of_a_meta_that_was_kept_the_last_name_removed_stays_empty),
        SENTENCE(test_meta_is_limited_in_number_and_size),
        SENTENCE(test_the_time_left_is_that_of_the_nearer_end),
        SENTENCE(test_no_time_is_left_after_the_timeout),
        SENTENCE(test_cleanups_run_after_the_handler_the_last_first),
        SENTENCE(test_a_handler_is_tried_in_the_callers_process),
        SENTENCE(test_a_try_that_fails_tells_how),
        SENTENCE(test_a_try_refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
