/* SPDX-License-Identifier: MPL-2.0 */
#include <stdlib.h>

#include "common/base/assert.h"
#include "common/wire/writer.h"

#define CAPACITY_MIN 4096

/* Room kept for what a record holds beside its body: the largest (a failure with its trace and
 * meta) takes less. */
#define RECORD_ROOM 65536

void writer_init(struct writer *writer)
{
    *writer = (struct writer){0};
    writer_reset(writer);
}

void writer_reset(struct writer *writer)
{
    writer->size = 0;
    writer->bodies_size = 0;
    writer->record_count = 0;
    writer->error_field = NULL;
    writer->frames = (struct wire_frames){writer->views, 1};
}

void writer_free(struct writer *writer)
{
    free(writer->data);
    writer_init(writer);
}

bool writer_grow(struct writer *writer, size_t more)
{
    if (more > SIZE_MAX / 2 - writer->size) {
        return false;
    }
    size_t capacity = writer->capacity < CAPACITY_MIN ? CAPACITY_MIN : writer->capacity;
    while (capacity < writer->size + more) {
        capacity *= 2;
    }
    uint8_t *data = realloc(writer->data, capacity);
    if (data == NULL) {
        return false;
    }
    writer->data = data;
    writer->capacity = capacity;
    return true;
}

bool wire_fits(const struct writer *writer, size_t body_size)
{
    if (writer->record_count == 0) {
        return true;
    }
    const bool is_inline = body_size <= BODY_INLINE_SIZE_MAX;
    const size_t frame_count = writer->frames.count + (is_inline ? 0 : 1);
    const size_t bodies_size = writer->bodies_size + (is_inline ? 0 : body_size);
    const size_t size = writer->size + RECORD_ROOM + (is_inline ? body_size : 0);
    return writer->record_count < ENTRY_COUNT_MAX && frame_count <= FRAME_COUNT_MAX &&
           bodies_size <= BODY_FRAMES_SIZE_MAX && size <= FIRST_FRAME_SIZE_MAX / 2;
}

struct wire_list wire_list_from_writer(const struct writer *writer, uint32_t count)
{
    TREADLE_ASSERT(count == writer->record_count);
    return (struct wire_list){
        .at = writer->data,
        .size = writer->size,
        .count = count,
        .frames = &writer->frames,
    };
}
