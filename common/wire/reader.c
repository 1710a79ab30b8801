/* SPDX-License-Identifier: MPL-2.0 */
#include "common/wire/reader.h"

#include "common/base/assert.h"

/* The bytes of names. */
static bool is_name_byte(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '.' || byte == '_' || byte == '-';
}

bool wire_is_name(struct bytes text, size_t size_min)
{
    if (text.size < size_min || text.size > NAME_SIZE_MAX) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (!is_name_byte(text.data[i])) {
            return false;
        }
    }
    return true;
}

void reader_init(struct reader *reader, const struct wire_frames *frames,
                 const struct wire_limits *limits)
{
    TREADLE_ASSERT(frames->count >= 1 && frames->frames[0].size >= MESSAGE_HEADER_SIZE);
    const struct bytes first = frames->frames[0];
    *reader = (struct reader){
        .next = first.data + MESSAGE_HEADER_SIZE,
        .end = first.data + first.size,
        .frames = frames,
        .body_size_max = limits->body_size_max,
        .entry_count_max = limits->entry_count_max,
        .body_frame = 1,
    };
}

void reader_walk(struct reader *reader, const struct wire_list *list)
{
    *reader = (struct reader){
        .next = list->at,
        .end = list->at + list->size,
        .frames = list->frames,
        .body_size_max = UINT64_MAX,
        .template_count = TEMPLATE_COUNT_MAX,
        .is_walking = true,
    };
}

void reader_fail(struct reader *reader, enum wire_status status, const char *field)
{
    if (reader->status == WIRE_OK) {
        reader->status = status;
        reader->error_field = field;
    }
}

/* The only place that moves the cursor, so the only one that could overrun. NULL: nothing was
 * taken. */
static inline const uint8_t *take(struct reader *reader, const char *field, uint64_t size)
{
    if (reader->status != WIRE_OK || size > (uint64_t)(reader->end - reader->next)) {
        reader_fail(reader, WIRE_MALFORMED, field);
        return NULL;
    }
    const uint8_t *at = reader->next;
    reader->next += size;
    return at;
}

/* A big-endian number of 1, 2, 4 or 8 bytes. */
static inline uint64_t take_number(struct reader *reader, const char *field, size_t size)
{
    const uint8_t *at = take(reader, field, size);
    if (at == NULL) {
        return 0;
    }
    switch (size) {
    case 1:
        return at[0];
    case 2:
        return (uint64_t)at[0] << 8 | at[1];
    case 4:
        return bytes_load_u32(at);
    default:
        return bytes_load_u64(at);
    }
}

/* The type byte of the next value; 0xc1, which msgpack never uses, when there is none. */
static inline uint8_t take_type(struct reader *reader, const char *field)
{
    const uint8_t *at = take(reader, field, 1);
    return at == NULL ? 0xc1 : *at;
}

static uint32_t take_array(struct reader *reader, const char *field)
{
    const uint8_t type = take_type(reader, field);
    if ((type & 0xf0) == 0x90) {
        return type & 0x0f;
    }
    if (type == 0xdc || type == 0xdd) {
        return (uint32_t)take_number(reader, field, type == 0xdc ? 2 : 4);
    }
    reader_fail(reader, WIRE_MALFORMED, field);
    return 0;
}

uint32_t reader_array(struct reader *reader, const char *field, uint32_t field_count)
{
    const uint32_t count = take_array(reader, field);
    if (count < field_count || count - field_count > UNKNOWN_FIELD_COUNT_MAX) {
        reader_fail(reader, WIRE_MALFORMED, field);
    }
    return reader->status == WIRE_OK ? count - field_count : 0;
}

/* A uint of any width, or an int of any width that is not negative, whose type byte is taken. */
static uint64_t take_uint(struct reader *reader, const char *field, uint8_t type)
{
    if (type <= 0x7f) {
        return type;
    }
    if (type >= 0xcc && type <= 0xcf) {
        return take_number(reader, field, (size_t)1 << (type - 0xcc));
    }
    if (type >= 0xd0 && type <= 0xd3) {
        const size_t size = (size_t)1 << (type - 0xd0);
        const uint64_t number = take_number(reader, field, size);
        if (number >> (size * 8 - 1) != 0) {
            reader_fail(reader, WIRE_MALFORMED, field);
        }
        return number;
    }
    reader_fail(reader, WIRE_MALFORMED, field);
    return 0;
}

uint64_t reader_uint(struct reader *reader, const char *field, uint64_t max)
{
    const uint64_t number = take_uint(reader, field, take_type(reader, field));
    if (number > max) {
        reader_fail(reader, WIRE_MALFORMED, field);
    }
    return reader->status == WIRE_OK ? number : 0;
}

static struct bytes take_bytes(struct reader *reader, const char *field, uint64_t size)
{
    const uint8_t *at = take(reader, field, size);
    return at == NULL ? (struct bytes){NULL, 0} : (struct bytes){at, (size_t)size};
}

static struct bytes take_bin(struct reader *reader, const char *field, uint8_t type)
{
    if (type < 0xc4 || type > 0xc6) {
        reader_fail(reader, WIRE_MALFORMED, field);
        return (struct bytes){NULL, 0};
    }
    return take_bytes(reader, field, take_number(reader, field, (size_t)1 << (type - 0xc4)));
}

static struct bytes within(struct reader *reader, const char *field, struct bytes bytes,
                           size_t size_min, size_t size_max)
{
    if (bytes.size < size_min || bytes.size > size_max) {
        reader_fail(reader, WIRE_MALFORMED, field);
        return (struct bytes){NULL, 0};
    }
    return bytes;
}

struct bytes reader_bin(struct reader *reader, const char *field, size_t size_min, size_t size_max)
{
    const struct bytes bytes = take_bin(reader, field, take_type(reader, field));
    return within(reader, field, bytes, size_min, size_max);
}

struct bytes reader_str(struct reader *reader, const char *field, size_t size_min, size_t size_max)
{
    const uint8_t type = take_type(reader, field);
    uint64_t size = 0;
    if ((type & 0xe0) == 0xa0) {
        size = type & 0x1f;
    } else if (type >= 0xd9 && type <= 0xdb) {
        size = take_number(reader, field, (size_t)1 << (type - 0xd9));
    } else {
        reader_fail(reader, WIRE_MALFORMED, field);
    }
    return within(reader, field, take_bytes(reader, field, size), size_min, size_max);
}

struct bytes reader_name(struct reader *reader, const char *field, size_t size_min)
{
    const struct bytes name = reader_str(reader, field, size_min, NAME_SIZE_MAX);
    if (!wire_is_name(name, 0)) {
        reader_fail(reader, WIRE_MALFORMED, field);
    }
    return name;
}

struct treadle_task_id reader_task_id(struct reader *reader, const char *field)
{
    struct treadle_task_id id = {{0}};
    const struct bytes bytes = reader_bin(reader, field, sizeof id.bytes, sizeof id.bytes);
    if (bytes.data != NULL) {
        memcpy(id.bytes, bytes.data, sizeof id.bytes);
    }
    return id;
}

/* The frame a body names: each exactly once, in order. */
static struct bytes body_of_frame(struct reader *reader, const char *field, uint64_t number)
{
    if (reader->is_walking) {
        TREADLE_ASSERT(reader->frames != NULL && number >= 1 && number < reader->frames->count);
        return reader->frames->frames[number];
    }
    if (number != reader->body_frame || number >= reader->frames->count) {
        reader_fail(reader, WIRE_MALFORMED, field);
        return (struct bytes){NULL, 0};
    }
    const struct bytes body = reader->frames->frames[number];
    reader->body_frame++;
    reader->bodies_size += body.size;
    return body;
}

struct bytes reader_body(struct reader *reader, const char *field)
{
    const uint8_t type = take_type(reader, field);
    struct bytes body;
    if (type >= 0xc4 && type <= 0xc6) {
        body = take_bin(reader, field, type);
        if (body.size > BODY_INLINE_SIZE_MAX) {
            reader_fail(reader, WIRE_MALFORMED, field);
        }
    } else {
        const uint64_t number = take_uint(reader, field, type);
        body = reader->status == WIRE_OK ? body_of_frame(reader, field, number)
                                         : (struct bytes){NULL, 0};
    }
    if (body.size > reader->body_size_max) {
        reader_fail(reader, WIRE_LIMIT, field);
    }
    return reader->status == WIRE_OK ? body : (struct bytes){NULL, 0};
}

struct wire_list reader_list(struct reader *reader, const char *field, uint32_t count_max)
{
    const uint32_t count = take_array(reader, field);
    if (count > count_max) {
        reader_fail(reader, WIRE_LIMIT, field);
    }
    return (struct wire_list){
        .at = reader->next,
        .count = reader->status == WIRE_OK ? count : 0,
        .frames = reader->frames,
    };
}

struct wire_list reader_entries(struct reader *reader, const char *field)
{
    struct wire_list list = reader_list(reader, field, ENTRY_COUNT_MAX);
    reader->entry_count += list.count;
    if (reader->entry_count > ENTRY_COUNT_MAX || reader->entry_count > reader->entry_count_max) {
        reader_fail(reader, WIRE_LIMIT, field);
        list.count = 0;
    }
    return list;
}

/* How many bytes follow the type byte of a str, bin, ext, float or number, its size field taken. */
static uint64_t take_size(struct reader *reader, const char *field, uint8_t type)
{
    if (type <= 0xbf) {
        return type & 0x1f; /* str of up to 31 */
    }
    if (type >= 0xc4 && type <= 0xc6) {
        return take_number(reader, field, (size_t)1 << (type - 0xc4)); /* bin */
    }
    if (type >= 0xc7 && type <= 0xc9) {
        return 1 + take_number(reader, field, (size_t)1 << (type - 0xc7)); /* ext */
    }
    if (type == 0xca || type == 0xcb) {
        return type == 0xca ? 4 : 8; /* float */
    }
    if (type >= 0xcc && type <= 0xd3) {
        return (uint64_t)1 << ((type - 0xcc) & 3); /* uint and int */
    }
    if (type >= 0xd4 && type <= 0xd8) {
        return 1 + ((uint64_t)1 << (type - 0xd4)); /* ext of fixed size */
    }
    if (type >= 0xd9 && type <= 0xdb) {
        return take_number(reader, field, (size_t)1 << (type - 0xd9)); /* str */
    }
    reader_fail(reader, WIRE_MALFORMED, field); /* 0xc1 */
    return 0;
}

/* Takes one value without what it holds; returns how many values that is. */
static uint64_t take_value(struct reader *reader, const char *field)
{
    const uint8_t type = take_type(reader, field);
    if (type <= 0x7f || type >= 0xe0 || type == 0xc0 || type == 0xc2 || type == 0xc3) {
        return 0; /* small numbers, nil, false, true */
    }
    if (type <= 0x8f) {
        return 2 * (uint64_t)(type & 0x0f); /* a map of up to 15 */
    }
    if (type <= 0x9f) {
        return type & 0x0f; /* an array of up to 15 */
    }
    if (type >= 0xdc) { /* a larger array or map */
        const uint64_t count = take_number(reader, field, (type & 1) == 0 ? 2 : 4);
        return type >= 0xde ? 2 * count : count;
    }
    take(reader, field, take_size(reader, field, type));
    return 0;
}

void reader_skip(struct reader *reader, const char *field, uint32_t count)
{
    uint64_t left[UNKNOWN_DEPTH_MAX + 1] = {count};
    uint32_t depth = 0;
    uint32_t value_count = 0;
    while (reader->status == WIRE_OK) {
        if (left[depth] == 0) {
            if (depth == 0) {
                return;
            }
            depth--;
            continue;
        }
        left[depth]--;
        const uint64_t inner_count = take_value(reader, field);
        value_count++;
        if (value_count > UNKNOWN_VALUE_COUNT_MAX) {
            reader_fail(reader, WIRE_MALFORMED, field);
        } else if (inner_count > 0) {
            if (depth == UNKNOWN_DEPTH_MAX) {
                reader_fail(reader, WIRE_MALFORMED, field);
                return;
            }
            depth++;
            left[depth] = inner_count;
        }
    }
}

void reader_finish(struct reader *reader)
{
    if (reader->next != reader->end) {
        reader_fail(reader, WIRE_MALFORMED, "bytes after the array");
    }
    if (reader->body_frame != reader->frames->count) {
        reader_fail(reader, WIRE_MALFORMED, "frames that no body names");
    }
    if (reader->entry_count > 1 && reader->bodies_size > BODY_FRAMES_SIZE_MAX) {
        reader_fail(reader, WIRE_LIMIT, "frames");
    }
}
