/* SPDX-License-Identifier: MPL-2.0 */
/* The bounded decoder: messages.def expanded to straight-line reads. Pure: no allocation, nothing
 * but its arguments. */
#include "common/base/assert.h"
#include "common/wire/fields.h"
#include "common/wire/message.h"
#include "common/wire/reader.h"

const struct wire_limits wire_limits_protocol = {
    .body_size_max = BODY_SIZE_LIMIT,
    .entry_count_max = ENTRY_COUNT_MAX,
    .message_size_max = BODY_SIZE_LIMIT + FIRST_FRAME_SIZE_MAX,
};

static size_t meta_item_size(const struct wire_meta_item *item)
{
    return item->name.size + item->value.size;
}

static void bound_size(struct reader *reader, const char *field, size_t size, size_t size_max)
{
    if (size > size_max) {
        reader_fail(reader, WIRE_MALFORMED, field);
    }
}

/* clang-format off */
/* NOLINTBEGIN */

/* static void read_NAME(reader, out), for each record and message. */
#define RECORD(name)                                                                                                   \
    static void read_##name(struct reader *reader, struct wire_##name *out)                                            \
    {                                                                                                                  \
        const uint32_t unknown_count = reader_array(reader, #name, FIELD_COUNT_##name);
#define MESSAGE(name, upper, kind, direction)                                                                          \
    static void read_##name(struct reader *reader, struct wire_##name *out)                                            \
    {                                                                                                                  \
        const uint32_t unknown_count = reader_array(reader, #name, FIELD_COUNT_##name);                                \
        out->unused = 0;
#define END(name)                                                                                                      \
        if (unknown_count > 0) {                                                                                       \
            reader_skip(reader, #name, unknown_count);                                                                 \
        }                                                                                                              \
    }
#define UINT(name, max)           out->name = reader_uint(reader, #name, max);
#define TEMPLATE_INDEX(name)                                                                                           \
        out->name = reader_uint(reader, #name, TEMPLATE_COUNT_MAX - 1);                                                \
        if (out->name >= reader->template_count) {                                                                     \
            reader_fail(reader, WIRE_MALFORMED, #name);                                                                \
        }
#define BIN(name, min, max)       out->name = reader_bin(reader, #name, min, max);
#define STR(name, min, max)       out->name = reader_str(reader, #name, min, max);
#define NAME(name, min)           out->name = reader_name(reader, #name, min);
#define TASK_ID(name)             out->name = reader_task_id(reader, #name);
#define BODY(name)                out->name = reader_body(reader, #name);
#define NEST(name, record)        read_##record(reader, &out->name);
#define READ_RECORDS(name, record)                                                                                     \
        for (uint32_t i = 0; i < out->name.count && reader->status == WIRE_OK; i++) {                                  \
            struct wire_##record entry;                                                                                \
            read_##record(reader, &entry);                                                                             \
        }                                                                                                              \
        out->name.size = (size_t)(reader->next - out->name.at);
#define LIST(name, record, max)                                                                                        \
        out->name = reader_list(reader, #name, max);                                                                   \
        READ_RECORDS(name, record)
#define ENTRIES(name, record)                                                                                          \
        out->name = reader_entries(reader, #name);                                                                     \
        READ_RECORDS(name, record)
#define TEMPLATES(name, record)                                                                                        \
        LIST(name, record, TEMPLATE_COUNT_MAX)                                                                         \
        reader->template_count = out->name.count;
#define TAGS(name)                                                                                                     \
        LIST(name, tag, TAG_COUNT_MAX)                                                                                 \
        bound_size(reader, #name, out->name.size, TAGS_ENCODED_SIZE_MAX);
#define META(name)                                                                                                     \
        out->name = reader_list(reader, #name, META_COUNT_MAX);                                                        \
        size_t name##_size = 0;                                                                                        \
        for (uint32_t i = 0; i < out->name.count && reader->status == WIRE_OK; i++) {                                  \
            struct wire_meta_item item;                                                                                \
            read_meta_item(reader, &item);                                                                             \
            name##_size += meta_item_size(&item);                                                                      \
        }                                                                                                              \
        out->name.size = (size_t)(reader->next - out->name.at);                                                        \
        bound_size(reader, #name, name##_size, META_SIZE_MAX);                                                         \
        bound_size(reader, #name, out->name.size, META_ENCODED_SIZE_MAX);
#include "common/wire/messages.def"
#undef READ_RECORDS

#define RECORD(name)                                                                                                   \
    bool wire_##name##_next(struct wire_list *list, struct wire_##name *out)                                           \
    {                                                                                                                  \
        if (list->count == 0) {                                                                                        \
            TREADLE_ASSERT(list->size == 0);                                                                           \
            return false;                                                                                              \
        }                                                                                                              \
        struct reader reader;                                                                                          \
        reader_walk(&reader, list);                                                                                    \
        read_##name(&reader, out);                                                                                     \
        TREADLE_ASSERT(reader.status == WIRE_OK);                                                                      \
        list->size -= (size_t)(reader.next - list->at);                                                                \
        list->at = reader.next;                                                                                        \
        list->count--;                                                                                                 \
        return true;                                                                                                   \
    }
#include "common/wire/messages.def"

/* Reads the array of the message's kind; false if there is no such kind. */
static bool read_array_of(struct reader *reader, uint8_t kind_byte, struct message *out)
{
    switch (kind_byte) {
#define MESSAGE(name, upper, kind_number, direction)                                                                   \
    case kind_number:                                                                                                  \
        out->kind = MESSAGE_##upper;                                                                                   \
        read_##name(reader, &out->as.name);                                                                            \
        return true;
#include "common/wire/messages.def"
    default:
        return false;
    }
}
/* NOLINTEND */
/* clang-format on */

static enum wire_status refuse(struct message *out, enum wire_status status, const char *field)
{
    out->error_field = field;
    return status;
}

/* Number and size of the frames, before any byte of them is read. */
static enum wire_status check_frames(struct message *out, const struct wire_frames *frames,
                                     const struct wire_limits *limits)
{
    if (frames->count == 0) {
        return refuse(out, WIRE_MALFORMED, "frames");
    }
    if (frames->count > FRAME_COUNT_MAX) {
        return refuse(out, WIRE_LIMIT, "frames");
    }
    uint64_t size = 0;
    for (size_t i = 0; i < frames->count; i++) {
        size += frames->frames[i].size;
    }
    if (size > limits->message_size_max) {
        return refuse(out, WIRE_LIMIT, "message size");
    }
    if (frames->frames[0].size > FIRST_FRAME_SIZE_MAX) {
        return refuse(out, WIRE_LIMIT, "first frame");
    }
    return WIRE_OK;
}

enum wire_status message_decode(struct message *out, const struct wire_frames *frames,
                                const struct wire_limits *limits)
{
    out->kind = (enum message_kind)0;
    out->number = 0;
    out->upto = 0;
    out->error_field = NULL;
    enum wire_status status = check_frames(out, frames, limits);
    if (status != WIRE_OK) {
        return status;
    }
    const struct bytes first = frames->frames[0];
    if (first.size < MESSAGE_HEADER_SIZE) {
        return refuse(out, WIRE_MALFORMED, "header");
    }
    if (first.data[0] != 'T' || first.data[1] != 'R') {
        return refuse(out, WIRE_MALFORMED, "magic");
    }
    out->number = bytes_load_u64(first.data + 4);
    out->upto = bytes_load_u64(first.data + 12);
    if (first.data[2] != WIRE_MAJOR) {
        return refuse(out, WIRE_VERSION, "major");
    }
    struct reader reader;
    reader_init(&reader, frames, limits);
    if (!read_array_of(&reader, first.data[3], out)) {
        return refuse(out, WIRE_UNKNOWN_KIND, "kind");
    }
    reader_finish(&reader);
    out->error_field = reader.error_field;
    return reader.status;
}
