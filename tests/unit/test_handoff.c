/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/base/prng.h"
#include "worker/exec/handoff.h"

#define MUTATION_COUNT 100000
#define FRAME_SIZE     4096

/* The parts as the other side has them: a header, and what follows it. */
struct frame {
    struct frame_header header;
    uint8_t bytes[FRAME_SIZE];
    size_t size;
    struct bytes data;
};

static void join(struct frame *frame, const struct bytes *parts, size_t part_count)
{
    frame->size = 0;
    for (size_t i = 0; i < part_count; i++) {
        assert_true(parts[i].size <= sizeof(frame->bytes) - frame->size);
        memcpy(frame->bytes + frame->size, parts[i].data, parts[i].size);
        frame->size += parts[i].size;
    }
    memcpy(&frame->header, frame->bytes, sizeof(frame->header));
    frame->data =
        (struct bytes){frame->bytes + sizeof(frame->header), frame->size - sizeof(frame->header)};
    assert_int_equal(frame->header.size, frame->data.size);
}

static void then_bytes_are(struct bytes bytes, const char *text)
{
    assert_int_equal(bytes.size, strlen(text));
    assert_memory_equal(bytes.data, text, bytes.size);
}

static void test_an_attempt_arrives_as_it_was(void **unused)
{
    (void)unused;
    static struct frame frame;
    struct handoff handoff;
    struct writer meta;
    writer_init(&meta);
    const struct wire_meta_item item = {bytes_from_text("page"), bytes_from_text("7")};
    assert_true(wire_meta_item_encode(&meta, &item));
    const struct worker_attempt sent = {
        .lease = UINT64_C(0x123456789abcdef0),
        .id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
        .service = bytes_from_text("demo"),
        .task = bytes_from_text("upper"),
        .body = bytes_from_text("the body"),
        .dispatch = 1,
        .retry_index = 2,
        .retry_sequence = 3,
        .attempts_max = 4,
        .timeout_ms = 5,
        .progress_timeout_ms = 6,
        .grace_ms = 7,
        .result_size_max = 8,
        .deadline_left_ms = 9,
        .meta = wire_list_from_writer(&meta, 1),
    };
    handoff_from_attempt(&handoff, &sent, 21, 22, 23);
    join(&frame, handoff.parts, handoff.part_count);
    assert_int_equal(handoff.size, frame.size);
    assert_int_equal(frame.header.kind, FRAME_ATTEMPT);
    assert_int_equal(frame.header.handler, 21);
    assert_int_equal(frame.header.cell, 22);
    assert_int_equal(frame.header.generation, 23);
    struct worker_attempt read;
    assert_true(handoff_read(&read, frame.data));
    assert_true(read.lease == sent.lease);
    assert_memory_equal(read.id.bytes, sent.id.bytes, 16);
    then_bytes_are(read.service, "demo");
    then_bytes_are(read.task, "upper");
    then_bytes_are(read.body, "the body");
    assert_int_equal(read.dispatch, 1);
    assert_int_equal(read.retry_index, 2);
    assert_int_equal(read.retry_sequence, 3);
    assert_int_equal(read.attempts_max, 4);
    assert_int_equal(read.timeout_ms, 5);
    assert_int_equal(read.progress_timeout_ms, 6);
    assert_int_equal(read.grace_ms, 7);
    assert_int_equal(read.result_size_max, 8);
    assert_int_equal(read.deadline_left_ms, 9);
    assert_int_equal(read.tags.count, 0);
    assert_int_equal(read.last_error.count, 0);
    struct wire_meta_item got;
    assert_true(wire_meta_item_next(&read.meta, &got));
    then_bytes_are(got.name, "page");
    then_bytes_are(got.value, "7");
    assert_false(wire_meta_item_next(&read.meta, &got));
    for (size_t size = 0; size < frame.data.size; size++) {
        assert_false(handoff_read(&read, (struct bytes){frame.data.data, size}));
    }
    writer_free(&meta);
}

/* A report with everything in it. */
static void given_a_report(struct frame *frame, enum frame_kind kind)
{
    static const char trace[] = "frame 1\nframe 2";
    const struct handoff_meta items[] = {
        {bytes_from_text("a"), bytes_from_text("value of a")},
        {bytes_from_text("empty"), {NULL, 0}},
    };
    const struct report report = {
        .duration_us = 1500,
        .body = bytes_from_text("result"),
        .kind = FAILURE_PERMANENT,
        .choice = RETRY_AFTER,
        .retry_delay_ms = 250,
        .name = bytes_from_text("db.timeout"),
        .message = bytes_from_text("no answer"),
        .trace = bytes_from_text(trace),
        .user_ms = 1,
        .system_ms = 2,
        .max_rss_kib = 3,
        .meta = items,
        .meta_count = 2,
        .has_meta = true,
    };
    struct report_parts parts;
    report_write(&parts, kind, &report, 6, 7);
    join(frame, parts.parts, parts.part_count);
}

static void test_a_report_arrives_as_it_was(void **unused)
{
    (void)unused;
    static struct frame frame;
    struct handoff_meta items[META_COUNT_MAX];
    struct report report;
    given_a_report(&frame, FRAME_FAILURE);
    assert_int_equal(frame.header.kind, FRAME_FAILURE);
    assert_int_equal(frame.header.cell, 6);
    assert_int_equal(frame.header.generation, 7);
    assert_true(report_read(&report, FRAME_FAILURE, frame.data, items));
    assert_int_equal(report.duration_us, 1500);
    then_bytes_are(report.body, "result");
    assert_int_equal(report.kind, FAILURE_PERMANENT);
    assert_int_equal(report.choice, RETRY_AFTER);
    assert_int_equal(report.retry_delay_ms, 250);
    then_bytes_are(report.name, "db.timeout");
    then_bytes_are(report.message, "no answer");
    then_bytes_are(report.trace, "frame 1\nframe 2");
    assert_int_equal(report.user_ms, 1);
    assert_int_equal(report.system_ms, 2);
    assert_int_equal(report.max_rss_kib, 3);
    assert_true(report.has_meta);
    assert_int_equal(report.meta_count, 2);
    then_bytes_are(report.meta[0].name, "a");
    then_bytes_are(report.meta[0].value, "value of a");
    then_bytes_are(report.meta[1].name, "empty");
    then_bytes_are(report.meta[1].value, "");
}

static void test_a_report_of_nothing_is_fine(void **unused)
{
    (void)unused;
    static struct frame frame;
    struct handoff_meta items[META_COUNT_MAX];
    struct report_parts parts;
    struct report report = {0};
    report_write(&parts, FRAME_SUCCESS, &report, 0, 1);
    join(&frame, parts.parts, parts.part_count);
    assert_true(report_read(&report, FRAME_SUCCESS, frame.data, items));
    assert_int_equal(report.body.size, 0);
    assert_false(report.has_meta);
    assert_false(report_read(&report, FRAME_FAILURE, frame.data, items)); /* of no kind */
    assert_false(report_read(&report, FRAME_READY, frame.data, items));
}

static void test_a_report_that_is_cut_or_too_long_is_damaged(void **unused)
{
    (void)unused;
    static struct frame frame;
    struct handoff_meta items[META_COUNT_MAX];
    struct report report;
    given_a_report(&frame, FRAME_SUCCESS);
    for (size_t size = 0; size < frame.data.size; size++) {
        assert_false(
            report_read(&report, FRAME_SUCCESS, (struct bytes){frame.data.data, size}, items));
    }
    assert_false(report_read(&report, FRAME_SUCCESS,
                             (struct bytes){frame.data.data, frame.data.size + 1}, items));
}

static void test_a_handler_cannot_claim_kinds_that_are_not_its_own(void **unused)
{
    (void)unused;
    for (int kind = 0; kind < FAILURE_KIND_COUNT; kind++) {
        static struct frame frame;
        struct handoff_meta items[META_COUNT_MAX];
        struct report_parts parts;
        struct report report = {.kind = (enum failure_kind)kind};
        const bool is_own = kind == FAILURE_PREPARE || kind == FAILURE_PERMANENT ||
                            kind == FAILURE_TRANSIENT || kind == FAILURE_FINALIZE;
        report_write(&parts, FRAME_FAILURE, &report, 0, 1);
        join(&frame, parts.parts, parts.part_count);
        assert_int_equal(report_read(&report, FRAME_FAILURE, frame.data, items), is_own);
    }
}

/* Every byte that a report leads to. */
static uint32_t sum_of(const struct report *report)
{
    const struct bytes texts[] = {report->body, report->name, report->message, report->trace};
    uint32_t sum = 0;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        for (size_t k = 0; k < texts[i].size; k++) {
            sum += texts[i].data[k];
        }
    }
    for (uint32_t i = 0; i < report->meta_count; i++) {
        for (size_t k = 0; k < report->meta[i].name.size; k++) {
            sum += report->meta[i].name.data[k];
        }
        for (size_t k = 0; k < report->meta[i].value.size; k++) {
            sum += report->meta[i].value.data[k];
        }
    }
    return sum;
}

static void then_all_is_within_limits(const struct report *report)
{
    assert_true(report->name.size <= NAME_SIZE_MAX);
    assert_true(report->message.size <= ERROR_MESSAGE_SIZE_MAX);
    assert_true(report->trace.size <= ERROR_TRACE_SIZE_MAX);
    assert_true(report->meta_count <= META_COUNT_MAX);
    assert_true(report->duration_us <= SPAN_MAX_MS);
    assert_true(report->kind < FAILURE_KIND_COUNT);
    assert_true(report->choice < RETRY_CHOICE_COUNT);
}

/* Random bytes in a sound report, in a block of exactly its size, so that the sanitizer sees every
 * byte too far. */
static void test_random_damage_is_refused_or_harmless(void **unused)
{
    (void)unused;
    static const enum frame_kind kinds[] = {FRAME_SUCCESS, FRAME_FAILURE, FRAME_PROGRESS};
    static struct frame frame;
    struct prng prng;
    uint32_t refused_count = 0;
    uint32_t sum = 0;
    prng_seed(&prng, 1);
    given_a_report(&frame, FRAME_FAILURE);
    for (int i = 0; i < MUTATION_COUNT; i++) {
        const size_t size = prng_below(&prng, 4) == 0
                                ? (size_t)prng_below(&prng, frame.data.size + 1)
                                : frame.data.size;
        uint8_t *data = malloc(size + 1);
        struct handoff_meta items[META_COUNT_MAX];
        struct report report;
        assert_non_null(data);
        memcpy(data + 1, frame.data.data, size); /* at an odd address, as in a buffer */
        for (uint64_t k = prng_below(&prng, 4); k > 0 && size > 0; k--) {
            /* mostly in the numbers */
            const uint64_t bound = prng_below(&prng, 4) != 0 && size > 100 ? 100 : size;
            data[1 + prng_below(&prng, bound)] =
                (uint8_t)(prng_below(&prng, 2) == 0 ? prng_next(&prng) : prng_below(&prng, 3));
        }
        if (report_read(&report, kinds[prng_below(&prng, 3)], (struct bytes){data + 1, size},
                        items)) {
            then_all_is_within_limits(&report);
            sum += sum_of(&report);
        } else {
            refused_count++;
        }
        free(data);
    }
    assert_true(sum > 0);
    assert_true(refused_count > MUTATION_COUNT / 4);
    assert_true(refused_count < MUTATION_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_attempt_arrives_as_it_was),
        cmocka_unit_test(test_a_report_arrives_as_it_was),
        cmocka_unit_test(test_a_report_of_nothing_is_fine),
        cmocka_unit_test(test_a_report_that_is_cut_or_too_long_is_damaged),
        cmocka_unit_test(test_a_handler_cannot_claim_kinds_that_are_not_its_own),
        cmocka_unit_test(test_random_damage_is_refused_or_harmless),
    };
    return cmocka_run_group_tests_name("handoff", tests, NULL, NULL);
}
