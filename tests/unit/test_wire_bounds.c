/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Each field of each message, at its bounds and beyond, by messages.def. The messages are packed
 * here with msgpack-c, apart from our encoder, with one place of one message changed at a time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <msgpack.h>

#include "common/wire/fields.h"
#include "tests/support/wire_sample.h"

#define LINE_SIZE 16384

enum change {
    CHANGE_NOTHING,
    CHANGE_AT_MOST,  /* the greatest value or size that is admitted */
    CHANGE_AT_LEAST, /* the least */
    CHANGE_OVER,     /* one more */
    CHANGE_UNDER,    /* one less */
    CHANGE_TYPE,     /* nil */
    CHANGE_BYTES,    /* bytes that the field does not admit, a frame that is not there */
    CHANGE_FEWER,    /* an array with one field less */
    CHANGE_MORE,     /* an array with UNKNOWN_FIELD_COUNT_MAX unknown fields */
    CHANGE_TOO_MANY, /* and one more */
    CHANGE_COUNT
};

/* Packs one message with one change. */
struct packing {
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    enum change change;
    uint32_t target; /* the place to change */
    uint32_t place;  /* places seen so far */
    bool is_applied;
    enum wire_status wanted_status;
    const char *wanted_field;
    uint64_t template_count;
};

static const uint8_t filler[META_SIZE_MAX + 2];

static bool is_here(struct packing *packing)
{
    const bool is_here = packing->place == packing->target && packing->change != CHANGE_NOTHING;
    packing->place++;
    return is_here;
}

static void applied(struct packing *packing, enum wire_status status, const char *field)
{
    packing->is_applied = true;
    packing->wanted_status = status;
    packing->wanted_field = status == WIRE_OK ? NULL : field;
}

static void pack_bin(struct packing *packing, struct bytes bytes)
{
    msgpack_pack_bin(&packing->packer, bytes.size);
    msgpack_pack_bin_body(&packing->packer, bytes.data, bytes.size);
}

static void pack_str(struct packing *packing, struct bytes bytes)
{
    msgpack_pack_str(&packing->packer, bytes.size);
    msgpack_pack_str_body(&packing->packer, bytes.data, bytes.size);
}

static void pack_nil(struct packing *packing, const char *field)
{
    msgpack_pack_nil(&packing->packer);
    applied(packing, WIRE_MALFORMED, field);
}

static void pack_uint(struct packing *packing, const char *field, uint64_t number, uint64_t max)
{
    if (is_here(packing)) {
        if (packing->change == CHANGE_TYPE) {
            pack_nil(packing, field);
            return;
        }
        if (packing->change == CHANGE_UNDER) {
            msgpack_pack_int64(&packing->packer, -1);
            applied(packing, WIRE_MALFORMED, field);
            return;
        }
        if (packing->change == CHANGE_AT_MOST || packing->change == CHANGE_AT_LEAST) {
            number = packing->change == CHANGE_AT_MOST ? max : 0;
            applied(packing, WIRE_OK, field);
        } else if (packing->change == CHANGE_OVER && max < UINT64_MAX) {
            number = max + 1;
            applied(packing, WIRE_MALFORMED, field);
        }
    }
    msgpack_pack_uint64(&packing->packer, number);
}

/* The size that the change asks for; false if it asks for something else. */
static bool change_size(struct packing *packing, const char *field, size_t size_min,
                        size_t size_max, struct bytes *out)
{
    if (packing->change == CHANGE_AT_MOST || packing->change == CHANGE_AT_LEAST) {
        if (packing->change == CHANGE_AT_MOST && size_max == META_SIZE_MAX) {
            return false; /* of a meta item: its name has to fit too, see pack_full_meta() */
        }
        *out = (struct bytes){filler, packing->change == CHANGE_AT_MOST ? size_max : size_min};
        applied(packing, WIRE_OK, field);
        return true;
    }
    if (packing->change == CHANGE_OVER || (packing->change == CHANGE_UNDER && size_min > 0)) {
        *out = (struct bytes){filler, packing->change == CHANGE_OVER ? size_max + 1 : size_min - 1};
        applied(packing, WIRE_MALFORMED, field);
        return true;
    }
    return false;
}

static void pack_sized(struct packing *packing, const char *field, struct bytes bytes,
                       size_t size_min, size_t size_max,
                       void (*pack)(struct packing *packing, struct bytes bytes))
{
    if (is_here(packing)) {
        if (packing->change == CHANGE_TYPE) {
            pack_nil(packing, field);
            return;
        }
        if (packing->change == CHANGE_BYTES) { /* a str for a bin, a bin for a str */
            (pack == pack_bin ? pack_str : pack_bin)(packing, bytes);
            applied(packing, WIRE_MALFORMED, field);
            return;
        }
        (void)change_size(packing, field, size_min, size_max, &bytes);
    }
    pack(packing, bytes);
}

static void pack_name(struct packing *packing, const char *field, struct bytes name,
                      size_t size_min)
{
    static const uint8_t admitted[] =
        "0123456789abcdefghijklmnopqrstuvwxyz.-_ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    if (is_here(packing)) {
        if (packing->change == CHANGE_TYPE) {
            pack_nil(packing, field);
            return;
        }
        if (packing->change == CHANGE_BYTES) {
            name = bytes_from_text("a b");
            applied(packing, WIRE_MALFORMED, field);
        } else if (change_size(packing, field, size_min, NAME_SIZE_MAX, &name)) {
            name.data = admitted;
        }
    }
    pack_str(packing, name);
}

static void pack_body(struct packing *packing, const char *field, struct bytes body)
{
    if (is_here(packing)) {
        if (packing->change == CHANGE_TYPE) {
            pack_nil(packing, field);
            return;
        }
        if (packing->change == CHANGE_BYTES || packing->change == CHANGE_UNDER) {
            msgpack_pack_uint64(&packing->packer, packing->change == CHANGE_BYTES ? 1 : 0);
            applied(packing, WIRE_MALFORMED, field); /* no such frame */
            return;
        }
        (void)change_size(packing, field, 0, BODY_INLINE_SIZE_MAX, &body);
    }
    pack_bin(packing, body);
}

/* The head of an array of `count` fields; returns how many unknown ones follow them. */
static uint32_t pack_fields(struct packing *packing, const char *name, uint32_t count)
{
    uint32_t unknown_count = 0;
    if (is_here(packing)) {
        if (packing->change == CHANGE_FEWER && count > 0) {
            count--;
            applied(packing, WIRE_MALFORMED, name);
        } else if (packing->change == CHANGE_TYPE) {
            pack_nil(packing, name);
            return 0;
        } else if (packing->change == CHANGE_MORE) {
            unknown_count = UNKNOWN_FIELD_COUNT_MAX;
            applied(packing, WIRE_OK, name);
        } else if (packing->change == CHANGE_TOO_MANY) {
            unknown_count = UNKNOWN_FIELD_COUNT_MAX + 1;
            applied(packing, WIRE_MALFORMED, name);
        }
    }
    msgpack_pack_array(&packing->packer, count + unknown_count);
    return unknown_count;
}

/* Unknown fields of every type in turn, of this size if the type has one. */
static void pack_unknown(struct packing *packing, uint32_t count, size_t size)
{
    msgpack_packer *packer = &packing->packer;
    for (uint32_t i = 0; i < count; i++) {
        switch (i % 8) {
        case 0:
            msgpack_pack_nil(packer);
            break;
        case 1:
            msgpack_pack_double(packer, 1.5);
            break;
        case 2:
            msgpack_pack_map(packer, 1);
            msgpack_pack_true(packer);
            msgpack_pack_float(packer, 0.5F);
            break;
        case 3:
            pack_bin(packing, (struct bytes){filler, size});
            break;
        case 4:
            pack_str(packing, (struct bytes){filler, size});
            break;
        case 5:
            msgpack_pack_array(packer, 2);
            msgpack_pack_int64(packer, -5000000000);
            msgpack_pack_array(packer, 0);
            break;
        case 6:
            msgpack_pack_ext(packer, 16, 1);
            msgpack_pack_ext_body(packer, filler, 16);
            break;
        default:
            msgpack_pack_ext(packer, size, 1);
            msgpack_pack_ext_body(packer, filler, size);
            break;
        }
    }
}

static void pack_count(struct packing *packing, const char *field, uint32_t count,
                       uint32_t count_max)
{
    if (is_here(packing)) {
        if (packing->change == CHANGE_OVER) {
            count = count_max + 1;
            applied(packing, WIRE_LIMIT, field);
        } else if (packing->change == CHANGE_TYPE) {
            pack_nil(packing, field);
            return;
        }
    }
    msgpack_pack_array(&packing->packer, count);
}

/* An item whose name and value fill the meta, or are a byte too much. */
static bool pack_full_meta(struct packing *packing, const char *field)
{
    if (!is_here(packing) ||
        (packing->change != CHANGE_AT_MOST && packing->change != CHANGE_OVER)) {
        return false;
    }
    const size_t over_size = packing->change == CHANGE_OVER ? 1 : 0;
    msgpack_pack_array(&packing->packer, 2);
    for (size_t i = 0; i < 2; i++) {
        msgpack_pack_array(&packing->packer, FIELD_COUNT_meta_item);
        pack_str(packing, (struct bytes){filler, 1});
        pack_bin(packing, (struct bytes){filler, META_SIZE_MAX / 2 - 1 + i * over_size});
    }
    applied(packing, over_size > 0 ? WIRE_MALFORMED : WIRE_OK, field);
    return true;
}

/* clang-format off */
/* NOLINTBEGIN */
#define RECORD(name)                                                                                                   \
    static void pack_record_##name(struct packing *packing, const struct wire_##name *in)                              \
    {                                                                                                                  \
        const size_t unknown_size = 20;                                                                                \
        const uint32_t unknown_count = pack_fields(packing, #name, FIELD_COUNT_##name);
#define MESSAGE(name, upper, kind, direction)                                                                          \
    static void pack_message_##name(struct packing *packing, const struct wire_##name *in)                             \
    {                                                                                                                  \
        (void)in;                                                                                                      \
        const size_t unknown_size = 300;                                                                               \
        const uint32_t unknown_count = pack_fields(packing, #name, FIELD_COUNT_##name);
#define END(name)                                                                                                      \
        pack_unknown(packing, unknown_count, unknown_size);                                                            \
    }
#define UINT(name, max)           pack_uint(packing, #name, in->name, max);
#define TEMPLATE_INDEX(name)      pack_uint(packing, #name, in->name, packing->template_count - 1);
#define BIN(name, min, max)       pack_sized(packing, #name, in->name, min, max, pack_bin);
#define STR(name, min, max)       pack_sized(packing, #name, in->name, min, max, pack_str);
#define NAME(name, min)           pack_name(packing, #name, in->name, min);
#define TASK_ID(name)                                                                                                  \
        pack_sized(packing, #name, (struct bytes){in->name.bytes, 16}, 16, 16, pack_bin);
#define BODY(name)                pack_body(packing, #name, in->name);
#define NEST(name, record)        pack_record_##record(packing, &in->name);
#define LIST(name, record, max)                                                                                        \
        pack_count(packing, #name, in->name.count, max);                                                               \
        struct wire_list name##_rest = in->name;                                                                       \
        struct wire_##record name##_entry;                                                                             \
        while (wire_##record##_next(&name##_rest, &name##_entry)) {                                                    \
            pack_record_##record(packing, &name##_entry);                                                              \
        }
#define TEMPLATES(name, record)                                                                                        \
        packing->template_count = in->name.count;                                                                      \
        LIST(name, record, TEMPLATE_COUNT_MAX)
#define META(name)                                                                                                     \
        if (!pack_full_meta(packing, #name)) {                                                                         \
            LIST(name, meta_item, META_COUNT_MAX)                                                                      \
        }
#include "common/wire/messages.def"

static void pack_array_of(struct packing *packing, const struct message *message)
{
    switch (message->kind) {
#define MESSAGE(name, upper, kind_number, direction)                                                                   \
    case MESSAGE_##upper:                                                                                              \
        pack_message_##name(packing, &message->as.name);                                                               \
        break;
#include "common/wire/messages.def"
    }
}
/* NOLINTEND */
/* clang-format on */

static void pack(struct packing *packing, const struct message *message, enum change change,
                 uint32_t target)
{
    packing->change = change;
    packing->target = target;
    packing->place = 0;
    packing->is_applied = false;
    packing->template_count = 0;
    msgpack_sbuffer_clear(&packing->buffer);
    uint8_t header[MESSAGE_HEADER_SIZE] = {'T', 'R', WIRE_MAJOR, (uint8_t)message->kind};
    bytes_store_u64(header + 4, message->number);
    bytes_store_u64(header + 12, message->upto);
    msgpack_sbuffer_write(&packing->buffer, (const char *)header, sizeof header);
    pack_array_of(packing, message);
}

/* What a receiver makes of it, read from memory of exactly its size. */
static enum wire_status receive(const struct packing *packing, struct message *out, char *line)
{
    uint8_t *copy = test_malloc(packing->buffer.size);
    memcpy(copy, packing->buffer.data, packing->buffer.size);
    const struct bytes frame = {copy, packing->buffer.size};
    const struct wire_frames frames = {&frame, 1};
    const enum wire_status status = message_decode(out, &frames, &wire_limits_protocol);
    line[0] = '\0';
    if (status == WIRE_OK) {
        (void)message_print(out, line, LINE_SIZE);
    }
    test_free(copy);
    return status;
}

/* Makes one change in the message; returns whether it applies at this place. */
static bool change_is_treated_right(struct packing *packing, const struct sample *sample,
                                    enum change change, uint32_t target)
{
    static char line[LINE_SIZE];
    static char plain_line[LINE_SIZE];
    struct message message;
    pack(packing, &sample->message, change, target);
    if (!packing->is_applied) {
        return false;
    }
    const enum wire_status status = receive(packing, &message, line);
    if (status != packing->wanted_status ||
        (status != WIRE_OK && strcmp(message.error_field, packing->wanted_field) != 0)) {
        fail_msg("%s: change %d at place %u gave %s at %s, wanted %s at %s",
                 message_kind_text(sample->message.kind), (int)change, target,
                 wire_status_text(status), status == WIRE_OK ? "-" : message.error_field,
                 wire_status_text(packing->wanted_status),
                 packing->wanted_field == NULL ? "-" : packing->wanted_field);
    }
    if (change == CHANGE_MORE) { /* what is unknown changes nothing of what is known */
        (void)message_print(&sample->message, plain_line, sizeof plain_line);
        assert_string_equal(line, plain_line);
    }
    return true;
}

static void test_each_field_is_admitted_at_its_bounds_and_refused_beyond(void **unused)
{
    (void)unused;
    uint32_t applied_counts[CHANGE_COUNT] = {0};
    struct packing packing = {.change = CHANGE_NOTHING};
    msgpack_sbuffer_init(&packing.buffer);
    msgpack_packer_init(&packing.packer, &packing.buffer, msgpack_sbuffer_write);
    for (size_t i = 0; i < sample_kind_count; i++) {
        struct sample sample;
        sample_fixed(&sample, sample_kinds[i]);
        pack(&packing, &sample.message, CHANGE_NOTHING, 0);
        const uint32_t place_count = packing.place;
        for (uint32_t target = 0; target < place_count; target++) {
            for (enum change change = CHANGE_AT_MOST; change < CHANGE_COUNT; change++) {
                applied_counts[change] +=
                    change_is_treated_right(&packing, &sample, change, target) ? 1 : 0;
            }
        }
        sample_free(&sample);
    }
    for (enum change change = CHANGE_AT_MOST; change < CHANGE_COUNT; change++) {
        assert_true(applied_counts[change] > 30);
    }
    msgpack_sbuffer_destroy(&packing.buffer);
}

/* Packed here and packed by our encoder: the same bytes. */
static void test_encoder_writes_what_msgpack_c_writes(void **unused)
{
    (void)unused;
    struct packing packing = {.change = CHANGE_NOTHING};
    msgpack_sbuffer_init(&packing.buffer);
    msgpack_packer_init(&packing.packer, &packing.buffer, msgpack_sbuffer_write);
    for (size_t i = 0; i < sample_kind_count; i++) {
        struct sample sample;
        struct writer out;
        sample_fixed(&sample, sample_kinds[i]);
        writer_init(&out);
        pack(&packing, &sample.message, CHANGE_NOTHING, 0);
        assert_true(message_encode(&sample.message, &out));
        assert_int_equal(out.size, packing.buffer.size);
        assert_memory_equal(out.data, packing.buffer.data, out.size);
        writer_free(&out);
        sample_free(&sample);
    }
    msgpack_sbuffer_destroy(&packing.buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_field_is_admitted_at_its_bounds_and_refused_beyond),
        cmocka_unit_test(test_encoder_writes_what_msgpack_c_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
