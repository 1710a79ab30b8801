/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/support/wire_sample.h"

#include <stdlib.h>

#include "common/base/assert.h"

#define RANDOM_BODY_SIZE_MAX  20000
#define RANDOM_VALUE_SIZE_MAX 200

static void *keep(struct sample *sample, size_t size)
{
    struct sample_memory *memory = malloc(sizeof *memory + size);
    TREADLE_ASSERT(memory != NULL);
    memory->next = sample->memory;
    sample->memory = memory;
    return memory->bytes;
}

static uint64_t fill_uint(struct sample *sample, uint64_t max)
{
    if (sample->is_fixed) {
        sample->counter++;
        return sample->counter <= max ? sample->counter : max;
    }
    switch (prng_below(&sample->prng, 4)) {
    case 0:
        return max;
    case 1:
        return prng_below(&sample->prng, max < 100 ? max + 1 : 100);
    case 2:
        return prng_between(&sample->prng, 0, max);
    default:
        return prng_between(&sample->prng, 0, max) >> prng_below(&sample->prng, 64);
    }
}

/* Bytes that repeat the field's name, or random ones of a random size. */
static struct bytes fill_bytes(struct sample *sample, const char *field, size_t size_min,
                               size_t size_max)
{
    const size_t field_size = strlen(field);
    size_t size = field_size;
    if (!sample->is_fixed) {
        size = prng_below(&sample->prng, 8) == 0 ? size_max
                                                 : prng_below(&sample->prng, RANDOM_VALUE_SIZE_MAX);
    }
    size = size < size_min ? size_min : size;
    size = size > size_max ? size_max : size;
    uint8_t *data = keep(sample, size);
    for (size_t i = 0; i < size; i++) {
        data[i] =
            sample->is_fixed ? (uint8_t)field[i % field_size] : (uint8_t)prng_next(&sample->prng);
    }
    return (struct bytes){data, size};
}

static struct bytes fill_name(struct sample *sample, const char *field, size_t size_min)
{
    static const char name_bytes[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    const struct bytes name = fill_bytes(sample, field, size_min, NAME_SIZE_MAX);
    if (!sample->is_fixed) {
        uint8_t *data = keep(sample, name.size);
        for (size_t i = 0; i < name.size; i++) {
            data[i] = (uint8_t)name_bytes[name.data[i] % (sizeof name_bytes - 1)];
        }
        return (struct bytes){data, name.size};
    }
    return name;
}

static struct treadle_task_id fill_task_id(struct sample *sample)
{
    struct treadle_task_id id;
    sample->counter++;
    for (size_t i = 0; i < sizeof id.bytes; i++) {
        id.bytes[i] =
            (uint8_t)(sample->is_fixed ? sample->counter * 16 + i : prng_next(&sample->prng));
    }
    return id;
}

/* Now and then a body that is a frame of its own, as far as the rules for frames allow. */
static struct bytes fill_body(struct sample *sample, const char *field)
{
    if (sample->is_fixed) {
        return fill_bytes(sample, field, 0, BODY_INLINE_SIZE_MAX);
    }
    size_t size = prng_below(&sample->prng, RANDOM_VALUE_SIZE_MAX);
    if (prng_below(&sample->prng, 4) == 0) {
        size = prng_below(&sample->prng, RANDOM_BODY_SIZE_MAX);
    }
    if (size > BODY_INLINE_SIZE_MAX) {
        if (sample->body_frame_count == FRAME_COUNT_MAX - 1 ||
            sample->body_frames_size + size > BODY_FRAMES_SIZE_MAX) {
            size = BODY_INLINE_SIZE_MAX;
        } else {
            sample->body_frame_count++;
            sample->body_frames_size += size;
        }
    }
    return fill_bytes(sample, field, size, size);
}

static uint32_t fill_count(struct sample *sample, uint32_t count_max)
{
    const uint32_t count = sample->is_fixed ? 2 : (uint32_t)prng_below(&sample->prng, 6);
    return count > count_max ? count_max : count;
}

static struct writer *begin_list(struct sample *sample)
{
    TREADLE_ASSERT(sample->depth < SAMPLE_DEPTH_MAX);
    struct writer *writer = &sample->writers[sample->depth];
    writer_reset(writer);
    sample->depth++;
    return writer;
}

/* The writer's list with everything it points to copied, so that the writer can be used again. */
static struct wire_list end_list(struct sample *sample, const struct writer *writer)
{
    sample->depth--;
    struct wire_list list = wire_list_from_writer(writer, writer->record_count);
    uint8_t *at = keep(sample, list.size);
    if (list.size > 0) {
        memcpy(at, list.at, list.size);
    }
    struct wire_frames *frames = keep(sample, sizeof *frames);
    struct bytes *views = keep(sample, sizeof writer->views);
    memcpy(views, writer->views, sizeof writer->views);
    *frames = (struct wire_frames){views, writer->frames.count};
    list.at = at;
    list.frames = frames;
    return list;
}

/* clang-format off */
/* NOLINTBEGIN */
#define RECORD(name)                                                                                                   \
    static void fill_record_##name(struct sample *sample, struct wire_##name *out)                                     \
    {
#define MESSAGE(name, upper, kind, direction)                                                                          \
    static void fill_message_##name(struct sample *sample, struct wire_##name *out)                                    \
    {                                                                                                                  \
        (void)sample;                                                                                                  \
        out->unused = 0;
#define END(name)                }
#define UINT(name, max)          out->name = fill_uint(sample, max);
#define TEMPLATE_INDEX(name)     out->name = fill_uint(sample, sample->template_count - 1);
#define BIN(name, min, max)      out->name = fill_bytes(sample, #name, min, (max) < 1000 ? (max) : 1000);
#define STR(name, min, max)      out->name = fill_bytes(sample, #name, min, max);
#define NAME(name, min)          out->name = fill_name(sample, #name, min);
#define TASK_ID(name)            out->name = fill_task_id(sample);
#define BODY(name)               out->name = fill_body(sample, #name);
#define NEST(name, record)       fill_record_##record(sample, &out->name);
#define LIST(name, record, max)                                                                                        \
        struct writer *name##_writer = begin_list(sample);                                                             \
        const uint32_t name##_count = fill_count(sample, max);                                                         \
        for (uint32_t i = 0; i < name##_count; i++) {                                                                  \
            struct wire_##record entry;                                                                                \
            fill_record_##record(sample, &entry);                                                                      \
            TREADLE_ASSERT(wire_##record##_encode(name##_writer, &entry));                                             \
        }                                                                                                              \
        out->name = end_list(sample, name##_writer);
#define TEMPLATES(name, record)                                                                                        \
        struct writer *name##_writer = begin_list(sample);                                                             \
        sample->template_count = 1 + fill_count(sample, TEMPLATE_COUNT_MAX - 1);                                       \
        for (uint32_t i = 0; i < sample->template_count; i++) {                                                        \
            struct wire_##record entry;                                                                                \
            fill_record_##record(sample, &entry);                                                                      \
            TREADLE_ASSERT(wire_##record##_encode(name##_writer, &entry));                                             \
        }                                                                                                              \
        out->name = end_list(sample, name##_writer);
#include "common/wire/messages.def"

static void fill(struct sample *sample, enum message_kind kind)
{
    sample->message.kind = kind;
    sample->message.number = fill_uint(sample, UINT64_MAX);
    sample->message.upto = fill_uint(sample, UINT64_MAX);
    switch (kind) {
#define MESSAGE(name, upper, kind_number, direction)                                                                   \
    case MESSAGE_##upper:                                                                                              \
        fill_message_##name(sample, &sample->message.as.name);                                                         \
        break;
#include "common/wire/messages.def"
    }
}

const enum message_kind sample_kinds[] = {
#define MESSAGE(name, upper, kind, direction) MESSAGE_##upper,
#include "common/wire/messages.def"
};
/* NOLINTEND */
/* clang-format on */

const size_t sample_kind_count = sizeof sample_kinds / sizeof sample_kinds[0];

static void init(struct sample *sample)
{
    memset(sample, 0, sizeof *sample);
    for (size_t i = 0; i < SAMPLE_DEPTH_MAX; i++) {
        writer_init(&sample->writers[i]);
    }
}

void sample_random(struct sample *sample, enum message_kind kind, uint64_t seed)
{
    init(sample);
    prng_seed(&sample->prng, seed);
    fill(sample, kind);
}

void sample_fixed(struct sample *sample, enum message_kind kind)
{
    init(sample);
    sample->is_fixed = true;
    fill(sample, kind);
}

void sample_free(struct sample *sample)
{
    for (size_t i = 0; i < SAMPLE_DEPTH_MAX; i++) {
        writer_free(&sample->writers[i]);
    }
    while (sample->memory != NULL) {
        struct sample_memory *memory = sample->memory;
        sample->memory = memory->next;
        free(memory);
    }
}
