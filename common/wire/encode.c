/* SPDX-License-Identifier: MPL-2.0 */
/* The encoder: messages.def expanded to straight-line calls of msgpack-c's packer. */
#include <msgpack/pack.h>

#include "common/base/assert.h"
#include "common/wire/fields.h"
#include "common/wire/message.h"
#include "common/wire/writer.h"

/* One record or message being encoded. */
struct put {
    struct writer *writer;
    bool is_failed;
};

/* msgpack-c's callback: the only place that writes into the buffer. */
static inline int append(void *data, const char *bytes, size_t size)
{
    struct put *put = data;
    struct writer *writer = put->writer;
    if (size > writer->capacity - writer->size && !writer_grow(writer, size)) {
        put->is_failed = true;
        return -1;
    }
    if (size > 0) {
        memcpy(writer->data + writer->size, bytes, size);
        writer->size += size;
    }
    return 0;
}

static void fail(struct put *put, const char *field)
{
    put->is_failed = true;
    if (put->writer->error_field == NULL) {
        put->writer->error_field = field;
    }
}

static inline void put_array(struct put *put, size_t count)
{
    msgpack_packer packer = {put, append};
    msgpack_pack_array(&packer, count);
}

static inline void put_uint(struct put *put, const char *field, uint64_t number, uint64_t max)
{
    if (number > max) {
        fail(put, field);
        return;
    }
    msgpack_packer packer = {put, append};
    msgpack_pack_uint64(&packer, number);
}

static inline void put_bin(struct put *put, const char *field, struct bytes bytes, size_t size_min,
                           size_t size_max)
{
    if (bytes.size < size_min || bytes.size > size_max) {
        fail(put, field);
        return;
    }
    msgpack_packer packer = {put, append};
    msgpack_pack_bin(&packer, bytes.size);
    append(put, (const char *)bytes.data, bytes.size);
}

static inline void put_str(struct put *put, const char *field, struct bytes bytes, size_t size_min,
                           size_t size_max)
{
    if (bytes.size < size_min || bytes.size > size_max) {
        fail(put, field);
        return;
    }
    msgpack_packer packer = {put, append};
    msgpack_pack_str(&packer, bytes.size);
    append(put, (const char *)bytes.data, bytes.size);
}

static void put_name(struct put *put, const char *field, struct bytes name, size_t size_min)
{
    if (!wire_is_name(name, size_min)) {
        fail(put, field);
        return;
    }
    put_str(put, field, name, 0, NAME_SIZE_MAX);
}

static inline void put_body(struct put *put, const char *field, struct bytes body)
{
    if (body.size <= BODY_INLINE_SIZE_MAX) {
        put_bin(put, field, body, 0, BODY_INLINE_SIZE_MAX);
        return;
    }
    struct writer *writer = put->writer;
    if (body.size > BODY_SIZE_LIMIT) {
        fail(put, field);
        return;
    }
    if (writer->frames.count == FRAME_COUNT_MAX) {
        put->is_failed = true;
        return;
    }
    put_uint(put, field, writer->frames.count, FRAME_COUNT_MAX - 1);
    writer->views[writer->frames.count] = body;
    writer->frames.count++;
    writer->bodies_size += body.size;
}

static inline void put_list(struct put *put, const char *field, const struct wire_list *list,
                            uint32_t count_max)
{
    if (list->count > count_max) {
        fail(put, field);
        return;
    }
    put_array(put, list->count);
    append(put, (const char *)list->at, list->size);
}

/* Takes over the body frames that the list's entries name. A decoded message has several lists on
 * the same frames. */
static void adopt_frames(struct writer *writer, const struct wire_frames *frames)
{
    if (frames == NULL || frames->count <= 1) {
        return;
    }
    TREADLE_ASSERT(frames->count <= FRAME_COUNT_MAX);
    const bool is_first = writer->frames.count == 1;
    TREADLE_ASSERT(is_first || frames->count == writer->frames.count);
    for (size_t i = 1; i < frames->count; i++) {
        TREADLE_ASSERT(is_first || frames->frames[i].data == writer->views[i].data);
        if (is_first) {
            writer->views[i] = frames->frames[i];
            writer->bodies_size += frames->frames[i].size;
        }
    }
    writer->frames.count = frames->count;
}

static void put_entries(struct put *put, const char *field, const struct wire_list *list)
{
    struct writer *writer = put->writer;
    if (list->count > ENTRY_COUNT_MAX - writer->record_count) {
        fail(put, field);
        return;
    }
    writer->record_count += list->count;
    adopt_frames(writer, list->frames);
    put_list(put, field, list, ENTRY_COUNT_MAX);
}

static void put_meta(struct put *put, const char *field, const struct wire_list *list)
{
    struct wire_list rest = *list;
    struct wire_meta_item item;
    size_t size = 0;
    while (wire_meta_item_next(&rest, &item)) {
        size += item.name.size + item.value.size;
    }
    if (size > META_SIZE_MAX) {
        fail(put, field);
        return;
    }
    put_list(put, field, list, META_COUNT_MAX);
}

/* clang-format off */
/* NOLINTBEGIN */

/* static void put_NAME(put, in), for each record and message. */
#define RECORD(name)                                                                                                   \
    static void put_record_##name(struct put *put, const struct wire_##name *in)                                       \
    {                                                                                                                  \
        put_array(put, FIELD_COUNT_##name);
#define MESSAGE(name, upper, kind, direction)                                                                          \
    static void put_message_##name(struct put *put, const struct wire_##name *in)                                      \
    {                                                                                                                  \
        (void)in;                                                                                                      \
        put_array(put, FIELD_COUNT_##name);
#define END(name)                 }
#define UINT(name, max)           put_uint(put, #name, in->name, max);
#define BIN(name, min, max)       put_bin(put, #name, in->name, min, max);
#define STR(name, min, max)       put_str(put, #name, in->name, min, max);
#define NAME(name, min)           put_name(put, #name, in->name, min);
#define TASK_ID(name)                                                                                                  \
        put_bin(put, #name, (struct bytes){in->name.bytes, sizeof in->name.bytes}, 16, 16);
#define BODY(name)                put_body(put, #name, in->name);
#define NEST(name, record)        put_record_##record(put, &in->name);
#define LIST(name, record, max)   put_list(put, #name, &in->name, max);
#define ENTRIES(name, record)     put_entries(put, #name, &in->name);
#define META(name)                put_meta(put, #name, &in->name);
#include "common/wire/messages.def"

#define RECORD(name)                                                                                                   \
    bool wire_##name##_encode(struct writer *writer, const struct wire_##name *record)                                 \
    {                                                                                                                  \
        const size_t size = writer->size;                                                                              \
        const size_t frame_count = writer->frames.count;                                                               \
        const size_t bodies_size = writer->bodies_size;                                                                \
        struct put put = {writer, false};                                                                              \
        writer->error_field = NULL;                                                                                    \
        put_record_##name(&put, record);                                                                               \
        if (put.is_failed) {                                                                                           \
            writer->size = size;                                                                                       \
            writer->frames.count = frame_count;                                                                        \
            writer->bodies_size = bodies_size;                                                                         \
            return false;                                                                                              \
        }                                                                                                              \
        writer->record_count++;                                                                                        \
        return true;                                                                                                   \
    }
#include "common/wire/messages.def"

static void put_array_of(struct put *put, const struct message *message)
{
    switch (message->kind) {
#define MESSAGE(name, upper, kind_number, direction)                                                                   \
    case MESSAGE_##upper:                                                                                              \
        put_message_##name(put, &message->as.name);                                                                    \
        return;
#include "common/wire/messages.def"
    }
    fail(put, "kind");
}
/* NOLINTEND */
/* clang-format on */

static void put_header(struct put *put, const struct message *message)
{
    uint8_t header[MESSAGE_HEADER_SIZE] = {'T', 'R', WIRE_MAJOR, (uint8_t)message->kind};
    bytes_store_u64(header + 4, message->number);
    bytes_store_u64(header + 12, message->upto);
    append(put, (const char *)header, sizeof header);
}

bool message_encode(const struct message *message, struct writer *out)
{
    writer_reset(out);
    struct put put = {out, false};
    put_header(&put, message);
    put_array_of(&put, message);
    if (out->size > FIRST_FRAME_SIZE_MAX) {
        fail(&put, "first frame");
    }
    if (out->record_count > 1 && out->bodies_size > BODY_FRAMES_SIZE_MAX) {
        fail(&put, "frames");
    }
    if (put.is_failed) {
        const char *error_field = out->error_field;
        writer_reset(out);
        out->error_field = error_field;
        return false;
    }
    out->views[0] = (struct bytes){out->data, out->size};
    return true;
}
