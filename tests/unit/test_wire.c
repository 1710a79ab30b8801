/* SPDX-License-Identifier: MPL-2.0 */
/* The codec: what is encoded is what msgpack-c reads and what is decoded; all else is refused. */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <msgpack.h>

#include "common/wire/fields.h"
#include "tests/support/wire_sample.h"
#include "tests/unit/dies.h"

#define SEED_COUNT 200
#define LINE_SIZE  65536

/* ---- the oracle: msgpack-c's reading of a message against a struct, by messages.def ---- */

struct oracle {
    const struct wire_frames *frames;
};

static void same_uint(const msgpack_object *object, uint64_t number)
{
    assert_int_equal(object->type, MSGPACK_OBJECT_POSITIVE_INTEGER);
    assert_true(object->via.u64 == number);
}

static void same_bytes(const void *data, size_t size, struct bytes bytes)
{
    assert_int_equal(size, bytes.size);
    if (size > 0) {
        assert_memory_equal(data, bytes.data, size);
    }
}

static void same_bin(const msgpack_object *object, struct bytes bytes)
{
    assert_int_equal(object->type, MSGPACK_OBJECT_BIN);
    same_bytes(object->via.bin.ptr, object->via.bin.size, bytes);
}

static void same_str(const msgpack_object *object, struct bytes bytes)
{
    assert_int_equal(object->type, MSGPACK_OBJECT_STR);
    same_bytes(object->via.str.ptr, object->via.str.size, bytes);
}

static void same_body(const struct oracle *oracle, const msgpack_object *object, struct bytes body)
{
    if (body.size <= BODY_INLINE_SIZE_MAX) {
        same_bin(object, body);
        return;
    }
    assert_int_equal(object->type, MSGPACK_OBJECT_POSITIVE_INTEGER);
    assert_in_range(object->via.u64, 1, oracle->frames->count - 1);
    const struct bytes frame = oracle->frames->frames[object->via.u64];
    same_bytes(frame.data, frame.size, body);
}

/* clang-format off */
/* NOLINTBEGIN */
#define RECORD(name)                                                                                                   \
    static void same_record_##name(const struct oracle *oracle, const msgpack_object *object,                          \
                                   const struct wire_##name *in)                                                       \
    {                                                                                                                  \
        (void)oracle;                                                                                                  \
        assert_int_equal(object->type, MSGPACK_OBJECT_ARRAY);                                                          \
        assert_int_equal(object->via.array.size, FIELD_COUNT_##name);                                                  \
        const msgpack_object *next = object->via.array.ptr;
#define MESSAGE(name, upper, kind, direction)                                                                          \
    static void same_message_##name(const struct oracle *oracle, const msgpack_object *object,                         \
                                    const struct wire_##name *in)                                                      \
    {                                                                                                                  \
        (void)oracle;                                                                                                  \
        (void)in;                                                                                                      \
        assert_int_equal(object->type, MSGPACK_OBJECT_ARRAY);                                                          \
        assert_int_equal(object->via.array.size, FIELD_COUNT_##name);                                                  \
        const msgpack_object *next = object->via.array.ptr;
#define END(name)                                                                                                      \
        (void)next;                                                                                                    \
    }
#define UINT(name, max)           same_uint(next++, in->name);
#define BIN(name, min, max)       same_bin(next++, in->name);
#define STR(name, min, max)       same_str(next++, in->name);
#define NAME(name, min)           same_str(next++, in->name);
#define TASK_ID(name)             same_bin(next++, (struct bytes){in->name.bytes, 16});
#define BODY(name)                same_body(oracle, next++, in->name);
#define NEST(name, record)        same_record_##record(oracle, next++, &in->name);
#define LIST(name, record, max)                                                                                        \
        assert_int_equal(next->type, MSGPACK_OBJECT_ARRAY);                                                            \
        assert_int_equal(next->via.array.size, in->name.count);                                                        \
        struct wire_list name##_rest = in->name;                                                                       \
        for (uint32_t i = 0; i < in->name.count; i++) {                                                                \
            struct wire_##record entry;                                                                                \
            assert_true(wire_##record##_next(&name##_rest, &entry));                                                   \
            same_record_##record(oracle, &next->via.array.ptr[i], &entry);                                             \
        }                                                                                                              \
        assert_int_equal(name##_rest.size, 0);                                                                         \
        next++;
#include "common/wire/messages.def"

static void same_array(const struct oracle *oracle, const msgpack_object *object, const struct message *message)
{
    switch (message->kind) {
#define MESSAGE(name, upper, kind_number, direction)                                                                   \
    case MESSAGE_##upper:                                                                                              \
        same_message_##name(oracle, object, &message->as.name);                                                        \
        break;
#include "common/wire/messages.def"
    }
}
/* NOLINTEND */
/* clang-format on */

static void oracle_agrees(const struct wire_frames *frames, const struct message *message)
{
    const struct bytes first = frames->frames[0];
    const struct oracle oracle = {frames};
    msgpack_unpacked unpacked;
    size_t at = MESSAGE_HEADER_SIZE;
    msgpack_unpacked_init(&unpacked);
    assert_int_equal(msgpack_unpack_next(&unpacked, (const char *)first.data, first.size, &at),
                     MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(at, first.size);
    same_array(&oracle, &unpacked.data, message);
    msgpack_unpacked_destroy(&unpacked);
}

static void is_round(const struct message *message)
{
    struct writer out;
    struct writer again;
    struct message decoded;
    writer_init(&out);
    writer_init(&again);
    assert_true(message_encode(message, &out));
    oracle_agrees(&out.frames, message);
    assert_int_equal(message_decode(&decoded, &out.frames, &wire_limits_protocol), WIRE_OK);
    assert_null(decoded.error_field);
    assert_int_equal(decoded.kind, message->kind);
    assert_true(decoded.number == message->number);
    assert_true(decoded.upto == message->upto);
    oracle_agrees(&out.frames, &decoded);
    assert_true(message_encode(&decoded, &again));
    assert_int_equal(again.frames.count, out.frames.count);
    for (size_t i = 0; i < out.frames.count; i++) {
        same_bytes(out.views[i].data, out.views[i].size, again.views[i]);
    }
    writer_free(&out);
    writer_free(&again);
}

static void test_every_message_survives_the_round_trip(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sample_kind_count; i++) {
        for (uint64_t seed = 0; seed < SEED_COUNT; seed++) {
            struct sample sample;
            sample_random(&sample, sample_kinds[i], seed);
            is_round(&sample.message);
            sample_free(&sample);
        }
    }
}

/* ---- frames by hand ---- */

/* Decodes from memory of exactly the size, so that ASan sees a read beyond. */
static enum wire_status decode_exact(struct message *out, const uint8_t *data, size_t size)
{
    uint8_t *copy = test_malloc(size > 0 ? size : 1);
    memcpy(copy, data, size);
    const struct bytes frame = {copy, size};
    const struct wire_frames frames = {&frame, 1};
    const enum wire_status status = message_decode(out, &frames, &wire_limits_protocol);
    test_free(copy);
    return status;
}

/* A header of this kind and number 1, then the array given. */
static enum wire_status decode_array(struct message *out, enum message_kind kind,
                                     const uint8_t *array, size_t array_size)
{
    uint8_t frame[16384] = {'T', 'R', WIRE_MAJOR, (uint8_t)kind, [11] = 1};
    assert_true(array_size <= sizeof frame - MESSAGE_HEADER_SIZE);
    memcpy(frame + MESSAGE_HEADER_SIZE, array, array_size);
    return decode_exact(out, frame, MESSAGE_HEADER_SIZE + array_size);
}

#define DECODE_BYTES(out, kind, ...)                                                               \
    decode_array(out, kind, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void test_every_truncation_is_refused(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sample_kind_count; i++) {
        struct sample sample;
        struct writer out;
        struct message message;
        sample_fixed(&sample, sample_kinds[i]);
        writer_init(&out);
        assert_true(message_encode(&sample.message, &out));
        assert_int_equal(decode_exact(&message, out.data, out.size), WIRE_OK);
        for (size_t size = 0; size < out.size; size++) {
            assert_int_equal(decode_exact(&message, out.data, size), WIRE_MALFORMED);
            assert_non_null(message.error_field);
        }
        writer_free(&out);
        sample_free(&sample);
    }
}

static void test_header_names_version_and_kind(void **unused)
{
    (void)unused;
    struct message message;
    uint8_t frame[21] = {'T', 'R', WIRE_MAJOR, MESSAGE_HEARTBEAT, [11] = 7, [19] = 9, [20] = 0x90};
    assert_int_equal(decode_exact(&message, frame, sizeof frame), WIRE_OK);
    assert_int_equal(message.number, 7);
    assert_int_equal(message.upto, 9);
    frame[3] = 0xff;
    assert_int_equal(decode_exact(&message, frame, sizeof frame), WIRE_UNKNOWN_KIND);
    assert_int_equal(message.number, 7);
    frame[2] = WIRE_MAJOR + 1;
    assert_int_equal(decode_exact(&message, frame, sizeof frame), WIRE_VERSION);
    assert_string_equal(message.error_field, "major");
    frame[1] = 'S';
    assert_int_equal(decode_exact(&message, frame, sizeof frame), WIRE_MALFORMED);
    assert_string_equal(message.error_field, "magic");
    assert_int_equal(message.number, 0);
    const struct wire_frames none = {NULL, 0};
    assert_int_equal(message_decode(&message, &none, &wire_limits_protocol), WIRE_MALFORMED);
}

static void test_numbers_may_come_in_any_width(void **unused)
{
    (void)unused;
    struct message message;
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_TASK_PAGE, 0x94, 0xcc, 5, 0xcd, 0, 2, 0xce, 0,
                                  0, 0, 9, 0xdc, 0, 0),
                     WIRE_OK);
    assert_int_equal(message.as.task_page.request, 5);
    assert_int_equal(message.as.task_page.status, 2);
    assert_int_equal(message.as.task_page.token, 9);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_TASK_PAGE, 0xdc, 0, 4, 0xcf, 0, 0, 0, 0, 0, 0,
                                  0, 6, 0xd0, 1, 0xd1, 0x7f, 0xff, 0xdd, 0, 0, 0, 0),
                     WIRE_OK);
    assert_int_equal(message.as.task_page.token, 0x7fff);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_TASK_PAGE, 0xdd, 0, 0, 0, 4, 0xd2, 0, 0, 0, 8,
                                  0xd3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x90),
                     WIRE_OK);
    assert_int_equal(message.as.task_page.request, 8);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_BROKER_QUERY, 0x91, 0xd0, 0x80),
                     WIRE_MALFORMED);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_BROKER_QUERY, 0x91, 0xff), WIRE_MALFORMED);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_BROKER_QUERY, 0x91, 0xc2), WIRE_MALFORMED);
    assert_string_equal(message.error_field, "request");
}

static void test_texts_may_come_in_any_form(void **unused)
{
    (void)unused;
    struct message message;
    const struct bytes name = bytes_from_text("a");
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_WORKER_DRAIN, 0x92, 1, 0xa1, 'a'), WIRE_OK);
    assert_true(message.as.worker_drain.name.size == name.size);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_WORKER_DRAIN, 0x92, 1, 0xd9, 1, 'a'), WIRE_OK);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_WORKER_DRAIN, 0x92, 1, 0xda, 0, 1, 'a'),
                     WIRE_OK);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_WORKER_DRAIN, 0x92, 1, 0xdb, 0, 0, 0, 1, 'a'),
                     WIRE_OK);
    assert_int_equal(
        DECODE_BYTES(&message, MESSAGE_WORKER_DRAIN, 0x92, 1, 0xdb, 0xff, 0xff, 0xff, 0xff, 'a'),
        WIRE_MALFORMED);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_WORKER_DRAIN, 0x92, 1, 0xc4, 1, 'a'),
                     WIRE_MALFORMED);
}

static void test_bytes_after_the_array_are_refused(void **unused)
{
    (void)unused;
    struct message message;
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_HEARTBEAT, 0x90, 0x90), WIRE_MALFORMED);
    assert_string_equal(message.error_field, "bytes after the array");
}

static void test_unknown_fields_are_skipped_up_to_their_bounds(void **unused)
{
    (void)unused;
    struct message message;
    /* depth: 8 arrays in each other as one unknown field */
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_HEARTBEAT, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91,
                                  0x91, 0x91, 0x91, 0xc0),
                     WIRE_OK);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_HEARTBEAT, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91,
                                  0x91, 0x91, 0x91, 0x91, 0xc0),
                     WIRE_MALFORMED);
    /* values: one array of 4,095 is 4,096 values */
    uint8_t array[1 + 3 + UNKNOWN_VALUE_COUNT_MAX] = {0x91, 0xdc, 0x0f, 0xff};
    assert_int_equal(decode_array(&message, MESSAGE_HEARTBEAT, array, 4 + 4095), WIRE_OK);
    array[2] = 0x10;
    array[3] = 0x00;
    assert_int_equal(decode_array(&message, MESSAGE_HEARTBEAT, array, 4 + 4096), WIRE_MALFORMED);
    /* declared counts allocate nothing and end at the frame's end */
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_HEARTBEAT, 0x91, 0xdd, 0xff, 0xff, 0xff, 0xff),
                     WIRE_MALFORMED);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_HEARTBEAT, 0x91, 0xdf, 0xff, 0xff, 0xff, 0xff),
                     WIRE_MALFORMED);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_HEARTBEAT, 0x91, 0xc1), WIRE_MALFORMED);
    assert_int_equal(DECODE_BYTES(&message, MESSAGE_HEARTBEAT, 0xdd, 0xff, 0xff, 0xff, 0xff),
                     WIRE_MALFORMED);
}

/* The bytes of docs/protocol.md, "Example, byte by byte". */
static void test_examples_of_the_protocol_page_are_true(void **unused)
{
    (void)unused;
    static char line[LINE_SIZE];
    static const uint8_t hello[] = {
        0x54, 0x52, 0x01, 0x01, 0,    0,    0,    0,    0,    0,    0,    1,    0,    0,    0,
        0,    0,    0,    0,    0,    0x9a, 0,    0,    1,    0xa6, 'p',  'y',  ':',  '4',  '2',
        '1',  0xa2, 'h',  '1',  0xc4, 0x10, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
        0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0,    4,    0x91, 0x94, 0xa6, 'd',  'e',  'm',
        'o',  '.',  '*',  0x9c, 0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
        0,    0x9c, 0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0x9c,
        0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0x90};
    static const uint8_t result[] = {
        0x54, 0x52, 0x01, 0x21, 0,    0,    0,    0,    0,    0,    0,    5,    0,   0,   0,    0,
        0,    0,    0,    9,    0x92, 0x91, 0x94, 0xcf, 0,    0,    1,    0,    0,   0,   0,    7,
        0xcd, 5,    0xdc, 0x90, 0xc4, 3,    '4',  '2',  0x0a, 0x91, 0x9d, 0xcf, 0,   0,   1,    0,
        0,    0,    0,    8,    3,    0,    0,    0xa6, 'e',  'x',  'i',  't',  '.', '1', 0xa7, 'n',
        'o',  ' ',  's',  'u',  'c',  'h',  0xa0, 0x0c, 0,    0,    0,    0,    0x90};
    struct bytes frame = {hello, sizeof hello};
    const struct wire_frames frames = {&frame, 1};
    struct message message;
    assert_int_equal(message_decode(&message, &frames, &wire_limits_protocol), WIRE_OK);
    assert_int_equal(message.as.hello.slots, 4);
    assert_int_equal(message.as.hello.serves.count, 1);
    frame = (struct bytes){result, sizeof result};
    assert_int_equal(message_decode(&message, &frames, &wire_limits_protocol), WIRE_OK);
    (void)message_print(&message, line, sizeof line);
    assert_string_equal(line,
                        "result number=5 upto=9 successes=[{ lease=1099511627783 duration_us=1500 "
                        "meta=[] body=3B }] failures=[{ lease=1099511627784 kind=transient "
                        "retry_choice=policy retry_delay_ms=0 name=\"exit.1\" message=\"no such\" "
                        "trace=\"\" duration_ms=12 user_ms=0 system_ms=0 max_rss_kib=0 signal=0 "
                        "meta=[] }]");
}

/* ---- limits of a message ---- */

static uint8_t big[BODY_FRAMES_SIZE_MAX + 1];

/* A RESULT of `count` successes with bodies of this size; false if the encoder refuses. */
static bool encode_results(struct writer *out, struct writer *successes, size_t count,
                           size_t body_size)
{
    writer_reset(successes);
    for (size_t i = 0; i < count; i++) {
        const struct wire_success_entry entry = {.lease = i, .body = {big, body_size}};
        if (!wire_success_entry_encode(successes, &entry)) {
            return false;
        }
    }
    struct message message = {.kind = MESSAGE_RESULT};
    message.as.result.successes = wire_list_from_writer(successes, successes->record_count);
    return message_encode(&message, out);
}

static void test_bodies_over_the_inline_size_are_frames_within_the_rules(void **unused)
{
    (void)unused;
    struct writer out;
    struct writer list;
    struct message message;
    writer_init(&out);
    writer_init(&list);
    assert_true(encode_results(&out, &list, 2, BODY_INLINE_SIZE_MAX));
    assert_int_equal(out.frames.count, 1);
    assert_true(encode_results(&out, &list, 16, BODY_INLINE_SIZE_MAX + 1));
    assert_int_equal(out.frames.count, FRAME_COUNT_MAX);
    assert_int_equal(message_decode(&message, &out.frames, &wire_limits_protocol), WIRE_OK);
    assert_false(encode_results(&out, &list, 17, BODY_INLINE_SIZE_MAX + 1));
    assert_null(list.error_field);
    assert_int_equal(list.record_count, 16);
    assert_true(encode_results(&out, &list, 2, BODY_FRAMES_SIZE_MAX / 2));
    assert_int_equal(message_decode(&message, &out.frames, &wire_limits_protocol), WIRE_OK);
    out.views[2].size++; /* one byte over the rule for several entries */
    assert_int_equal(message_decode(&message, &out.frames, &wire_limits_protocol), WIRE_LIMIT);
    assert_string_equal(message.error_field, "frames");
    assert_false(encode_results(&out, &list, 2, BODY_FRAMES_SIZE_MAX / 2 + 1));
    assert_string_equal(out.error_field, "frames");
    assert_true(encode_results(&out, &list, 1, BODY_FRAMES_SIZE_MAX + 1));
    assert_int_equal(message_decode(&message, &out.frames, &wire_limits_protocol), WIRE_OK);
    writer_free(&out);
    writer_free(&list);
}

static void test_each_body_frame_is_named_once_and_in_order(void **unused)
{
    (void)unused;
    struct writer out;
    struct writer list;
    struct message message;
    writer_init(&out);
    writer_init(&list);
    assert_true(encode_results(&out, &list, 2, BODY_INLINE_SIZE_MAX + 1));
    assert_int_equal(out.frames.count, 3);
    struct wire_frames frames = out.frames;
    frames.count = 2; /* one is missing */
    assert_int_equal(message_decode(&message, &frames, &wire_limits_protocol), WIRE_MALFORMED);
    assert_string_equal(message.error_field, "body");
    out.views[3] = out.views[2];
    frames.count = 4; /* one too many */
    assert_int_equal(message_decode(&message, &frames, &wire_limits_protocol), WIRE_MALFORMED);
    assert_string_equal(message.error_field, "frames that no body names");
    assert_int_equal(out.data[out.size - 2], 2); /* the second entry's body, before the failures */
    out.data[out.size - 2] = 1;
    assert_int_equal(message_decode(&message, &out.frames, &wire_limits_protocol), WIRE_MALFORMED);
    struct bytes many[FRAME_COUNT_MAX + 1];
    for (size_t i = 0; i <= FRAME_COUNT_MAX; i++) {
        many[i] = out.views[i == 0 ? 0 : 1];
    }
    frames = (struct wire_frames){many, FRAME_COUNT_MAX + 1};
    assert_int_equal(message_decode(&message, &frames, &wire_limits_protocol), WIRE_LIMIT);
    writer_free(&out);
    writer_free(&list);
}

static void test_receiver_limits_are_kept_at_and_refused_over(void **unused)
{
    (void)unused;
    struct writer out;
    struct writer list;
    struct message message;
    writer_init(&out);
    writer_init(&list);
    assert_true(encode_results(&out, &list, 3, 100));
    const struct wire_limits at = {100, 3, out.size};
    assert_int_equal(message_decode(&message, &out.frames, &at), WIRE_OK);
    const struct wire_limits body = {99, 3, out.size};
    assert_int_equal(message_decode(&message, &out.frames, &body), WIRE_LIMIT);
    assert_string_equal(message.error_field, "body");
    const struct wire_limits entries = {100, 2, out.size};
    assert_int_equal(message_decode(&message, &out.frames, &entries), WIRE_LIMIT);
    assert_string_equal(message.error_field, "successes");
    const struct wire_limits size = {100, 3, out.size - 1};
    assert_int_equal(message_decode(&message, &out.frames, &size), WIRE_LIMIT);
    assert_string_equal(message.error_field, "message size");
    assert_true(encode_results(&out, &list, 1, BODY_INLINE_SIZE_MAX + 1));
    const struct wire_limits frame = {BODY_INLINE_SIZE_MAX, 1, SIZE_MAX};
    assert_int_equal(message_decode(&message, &out.frames, &frame), WIRE_LIMIT);
    writer_free(&out);
    writer_free(&list);
}

static void test_entries_of_all_lists_count_together(void **unused)
{
    (void)unused;
    struct writer out;
    struct writer successes;
    struct writer failures;
    struct message message = {.kind = MESSAGE_RESULT};
    writer_init(&out);
    writer_init(&successes);
    writer_init(&failures);
    for (uint64_t i = 0; i < ENTRY_COUNT_MAX - 1; i++) {
        const struct wire_success_entry entry = {.lease = i};
        assert_true(wire_success_entry_encode(&successes, &entry));
    }
    const struct wire_failure_entry failure = {.kind = FAILURE_TRANSIENT};
    assert_true(wire_failure_entry_encode(&failures, &failure));
    message.as.result.successes = wire_list_from_writer(&successes, successes.record_count);
    message.as.result.failures = wire_list_from_writer(&failures, 1);
    is_round(&message);
    assert_true(wire_failure_entry_encode(&failures, &failure));
    message.as.result.failures = wire_list_from_writer(&failures, 2);
    assert_false(message_encode(&message, &out));
    assert_string_equal(out.error_field, "failures");
    writer_free(&out);
    writer_free(&successes);
    writer_free(&failures);
}

static void test_first_frame_has_a_limit(void **unused)
{
    (void)unused;
    static uint8_t frame[FIRST_FRAME_SIZE_MAX + 1];
    struct message message;
    struct writer out;
    struct writer list;
    writer_init(&out);
    writer_init(&list);
    assert_true(encode_results(&out, &list, 250, BODY_INLINE_SIZE_MAX));
    assert_false(encode_results(&out, &list, 256, BODY_INLINE_SIZE_MAX));
    assert_string_equal(out.error_field, "first frame");
    assert_int_equal(decode_exact(&message, frame, sizeof frame), WIRE_LIMIT);
    assert_int_equal(decode_exact(&message, frame, sizeof frame - 1), WIRE_MALFORMED);
    writer_free(&out);
    writer_free(&list);
}

static void test_hello_may_list_every_lease_a_worker_can_hold(void **unused)
{
    (void)unused;
    struct writer leases;
    struct writer serves;
    struct message message = {.kind = MESSAGE_HELLO};
    struct wire_policy policy = {.timeout_ms = SPAN_MAX_MS, .deadline_ms = SPAN_MAX_MS};
    writer_init(&leases);
    writer_init(&serves);
    for (uint64_t i = 0; i < HELD_COUNT_MAX; i++) {
        const struct wire_held_lease entry = {UINT64_MAX - i, HELD_RUNNING};
        assert_true(wire_held_lease_encode(&leases, &entry));
    }
    for (uint64_t i = 0; i < SERVE_COUNT_MAX; i++) {
        const struct wire_serve entry = {{big, PATTERN_SIZE_MAX}, policy, policy, policy};
        assert_true(wire_serve_encode(&serves, &entry));
    }
    message.as.hello.name = bytes_from_text("host:1");
    message.as.hello.incarnation = (struct bytes){big, 16};
    message.as.hello.leases = wire_list_from_writer(&leases, HELD_COUNT_MAX);
    message.as.hello.serves = wire_list_from_writer(&serves, SERVE_COUNT_MAX);
    is_round(&message);
    writer_free(&leases);
    writer_free(&serves);
}

/* ---- the writer ---- */

static void test_wire_fits_says_what_the_frame_rules_say(void **unused)
{
    (void)unused;
    struct writer list;
    writer_init(&list);
    struct wire_success_entry entry = {.body = {big, BODY_FRAMES_SIZE_MAX + 1}};
    assert_true(wire_fits(&list, BODY_SIZE_LIMIT)); /* alone it may be as large as it likes */
    assert_true(wire_success_entry_encode(&list, &entry));
    assert_false(wire_fits(&list, 0)); /* it had to stay alone */
    writer_reset(&list);
    entry.body.size = BODY_INLINE_SIZE_MAX + 1;
    for (size_t i = 0; i < FRAME_COUNT_MAX - 1; i++) {
        assert_true(wire_fits(&list, entry.body.size));
        assert_true(wire_success_entry_encode(&list, &entry));
    }
    assert_false(wire_fits(&list, entry.body.size));
    assert_true(wire_fits(&list, BODY_INLINE_SIZE_MAX));
    writer_reset(&list);
    entry.body.size = BODY_FRAMES_SIZE_MAX - 5000;
    assert_true(wire_success_entry_encode(&list, &entry));
    assert_true(wire_fits(&list, 5000));
    assert_false(wire_fits(&list, 5001));
    writer_reset(&list);
    entry.body.size = 0;
    while (wire_fits(&list, 0)) {
        assert_true(wire_success_entry_encode(&list, &entry));
    }
    assert_int_equal(list.record_count, ENTRY_COUNT_MAX);
    writer_reset(&list);
    entry.body.size = BODY_INLINE_SIZE_MAX;
    while (wire_fits(&list, BODY_INLINE_SIZE_MAX)) {
        assert_true(wire_success_entry_encode(&list, &entry));
    }
    assert_in_range(list.size, FIRST_FRAME_SIZE_MAX / 3, FIRST_FRAME_SIZE_MAX / 2);
    writer_free(&list);
}

static void test_record_that_is_refused_leaves_the_writer_as_it_was(void **unused)
{
    (void)unused;
    struct writer list;
    writer_init(&list);
    struct wire_submit_template good = {.service = bytes_from_text("wc"),
                                        .task = bytes_from_text("count")};
    assert_true(wire_submit_template_encode(&list, &good));
    const size_t size = list.size;
    struct wire_submit_template bad = good;
    bad.policy.timeout_ms = SPAN_MAX_MS + 1;
    assert_false(wire_submit_template_encode(&list, &bad));
    assert_string_equal(list.error_field, "timeout_ms");
    bad = good;
    bad.task = bytes_from_text("no spaces");
    assert_false(wire_submit_template_encode(&list, &bad));
    assert_string_equal(list.error_field, "task");
    assert_int_equal(list.size, size);
    assert_int_equal(list.record_count, 1);
    const struct wire_success_entry large = {.duration_us = SPAN_MAX_MS + 1, .body = {big, 5000}};
    assert_false(wire_success_entry_encode(&list, &large));
    assert_int_equal(list.frames.count, 1);
    assert_int_equal(list.bodies_size, 0);
    assert_true(wire_submit_template_encode(&list, &good));
    assert_null(list.error_field);
    assert_int_equal(list.size, 2 * size);
    writer_free(&list);
}

static void test_meta_over_its_size_is_not_encoded(void **unused)
{
    (void)unused;
    struct writer meta;
    struct writer list;
    writer_init(&meta);
    writer_init(&list);
    struct wire_meta_item item = {bytes_from_text("a"), {big, META_SIZE_MAX - 2}};
    assert_true(wire_meta_item_encode(&meta, &item));
    item.value.size = 0;
    assert_true(wire_meta_item_encode(&meta, &item));
    struct wire_progress_entry entry = {1, wire_list_from_writer(&meta, 2)};
    assert_true(wire_progress_entry_encode(&list, &entry));
    item.value.size = 1;
    assert_true(wire_meta_item_encode(&meta, &item));
    entry.meta = wire_list_from_writer(&meta, 3);
    assert_false(wire_progress_entry_encode(&list, &entry));
    assert_string_equal(list.error_field, "meta");
    writer_free(&meta);
    writer_free(&list);
}

/* A PROGRESS whose meta has an item with an unknown field of this size. */
static enum wire_status decode_meta_with_unknown(size_t size)
{
    struct message message;
    static uint8_t array[32768];
    static const uint8_t head[] = {0x91, 0x91, 0x92, 1, 0x91, 0x93, 0xa1, 'a', 0xc4, 0, 0xc6, 0, 0};
    assert_true(size <= sizeof array - sizeof head - 2);
    memcpy(array, head, sizeof head);
    array[sizeof head] = (uint8_t)(size >> 8);
    array[sizeof head + 1] = (uint8_t)size;
    uint8_t *frame = test_calloc(1, MESSAGE_HEADER_SIZE + sizeof array);
    memcpy(frame, (const uint8_t[]){'T', 'R', WIRE_MAJOR, MESSAGE_PROGRESS}, 4);
    memcpy(frame + MESSAGE_HEADER_SIZE, array, sizeof head + 2 + size);
    const enum wire_status status =
        decode_exact(&message, frame, MESSAGE_HEADER_SIZE + sizeof head + 2 + size);
    test_free(frame);
    return status;
}

static void test_meta_over_its_encoded_size_is_refused(void **unused)
{
    (void)unused;
    const size_t around = 1 + 2 + 2 + 5; /* array, name, value, head of the unknown field */
    assert_int_equal(decode_meta_with_unknown(META_ENCODED_SIZE_MAX - around), WIRE_OK);
    assert_int_equal(decode_meta_with_unknown(META_ENCODED_SIZE_MAX - around + 1), WIRE_MALFORMED);
}

static void walk_garbage(void *context)
{
    static const uint8_t garbage[] = {0xc1};
    struct wire_lease_entry entry;
    struct wire_list list = {garbage, sizeof garbage, 1, NULL};
    (void)wire_lease_entry_next(&list, &entry);
    (void)context;
}

static void test_list_that_was_never_checked_is_a_mistake(void **unused)
{
    (void)unused;
    struct wire_lease_entry entry;
    struct wire_list list = {0};
    assert_false(wire_lease_entry_next(&list, &entry));
    assert_true(dies(walk_garbage, NULL));
}

/* ---- texts ---- */

static void test_printed_line_is_escaped_and_cut_to_fit(void **unused)
{
    (void)unused;
    static char line[LINE_SIZE];
    static char cut[LINE_SIZE];
    struct message message = {.kind = MESSAGE_WORKER_DRAIN, .number = 3};
    message.as.worker_drain.name = bytes_from_text("a\"b\\c\n\x1b[0m\xff");
    size_t size = message_print(&message, line, sizeof line);
    assert_string_equal(line, "worker_drain number=3 upto=0 request=0 "
                              "name=\"a\\\"b\\\\c\\x0a\\x1b[0m\\xff\"");
    assert_int_equal(size, strlen(line));
    for (size_t i = 0; i < sample_kind_count; i++) {
        struct sample sample;
        sample_random(&sample, sample_kinds[i], i);
        size = message_print(&sample.message, line, sizeof line);
        assert_int_equal(size, strlen(line));
        assert_null(strchr(line, '\n'));
        for (size_t cut_size = 1; cut_size < 600; cut_size++) {
            const size_t wanted = size < cut_size - 1 ? size : cut_size - 1;
            assert_int_equal(message_print(&sample.message, cut, cut_size), wanted);
            assert_int_equal(strlen(cut), wanted);
            assert_memory_equal(cut, line, wanted);
        }
        sample_free(&sample);
    }
}

static void test_terms_kinds_and_names_have_texts(void **unused)
{
    (void)unused;
    assert_string_equal(task_state_text(TASK_EXPIRED), "expired");
    assert_string_equal(failure_kind_text(FAILURE_UPSTREAM), "upstream_failed");
    assert_string_equal(policy_origin_text(ORIGIN_DEFAULT), "default");
    assert_string_equal(policy_origin_text(POLICY_ORIGIN_COUNT), "?");
    assert_string_equal(task_state_text(UINT64_MAX), "?");
    assert_string_equal(message_kind_text(MESSAGE_RESULT_ACK), "result_ack");
    assert_string_equal(message_kind_text(0), "?");
    assert_int_equal(message_direction(MESSAGE_RESULT), DIRECTION_FROM_WORKER);
    assert_int_equal(message_direction(MESSAGE_HEARTBEAT), DIRECTION_BOTH_WAYS);
    assert_string_equal(wire_status_text(WIRE_LIMIT), "limit");
    assert_int_equal(POLICY_FIELD_COUNT, FIELD_COUNT_policy);
    assert_true(wire_is_name(bytes_from_text("Az09._-"), 1));
    assert_true(wire_is_name(bytes_from_text(""), 0));
    assert_false(wire_is_name(bytes_from_text(""), 1));
    assert_false(wire_is_name(bytes_from_text("a/b"), 1));
    assert_true(
        wire_is_name((struct bytes){(const uint8_t *)"0123456789012345678901234567890123456789"
                                                     "012345678901234567890123",
                                    NAME_SIZE_MAX},
                     1));
    assert_false(
        wire_is_name((struct bytes){(const uint8_t *)"0123456789012345678901234567890123456789"
                                                     "0123456789012345678901234",
                                    NAME_SIZE_MAX + 1},
                     1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_message_survives_the_round_trip),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_header_names_version_and_kind),
        cmocka_unit_test(test_numbers_may_come_in_any_width),
        cmocka_unit_test(test_texts_may_come_in_any_form),
        cmocka_unit_test(test_bytes_after_the_array_are_refused),
        cmocka_unit_test(test_unknown_fields_are_skipped_up_to_their_bounds),
        cmocka_unit_test(test_examples_of_the_protocol_page_are_true),
        cmocka_unit_test(test_bodies_over_the_inline_size_are_frames_within_the_rules),
        cmocka_unit_test(test_each_body_frame_is_named_once_and_in_order),
        cmocka_unit_test(test_receiver_limits_are_kept_at_and_refused_over),
        cmocka_unit_test(test_entries_of_all_lists_count_together),
        cmocka_unit_test(test_first_frame_has_a_limit),
        cmocka_unit_test(test_hello_may_list_every_lease_a_worker_can_hold),
        cmocka_unit_test(test_wire_fits_says_what_the_frame_rules_say),
        cmocka_unit_test(test_record_that_is_refused_leaves_the_writer_as_it_was),
        cmocka_unit_test(test_meta_over_its_size_is_not_encoded),
        cmocka_unit_test(test_meta_over_its_encoded_size_is_refused),
        cmocka_unit_test(test_list_that_was_never_checked_is_a_mistake),
        cmocka_unit_test(test_printed_line_is_escaped_and_cut_to_fit),
        cmocka_unit_test(test_terms_kinds_and_names_have_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
