/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/record_reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"

#define READ_SIZE 65536U /* room for each read */

void record_reader_init(struct record_reader *reader, int fd, uint8_t end_byte, size_t size_max)
{
    *reader = (struct record_reader){.fd = fd, .end_byte = end_byte, .size_max = size_max};
}

void record_reader_reset(struct record_reader *reader)
{
    free(reader->buffer);
    reader->buffer = NULL;
}

/* Gives out what lies from `start` to `text_end` and goes on at `next`. */
static void give_out(struct record_reader *reader, size_t text_end, size_t next,
                     struct record *record)
{
    size_t size = text_end - reader->start;

    record->size = size + reader->dropped_size;
    record->is_too_large = record->size > reader->size_max;
    record->text = (struct bytes){reader->buffer + reader->start, size};
    if (record->is_too_large && size > RECORD_KEPT_SIZE) {
        record->text.size = RECORD_KEPT_SIZE;
    }
    reader->dropped_size = 0;
    reader->start = next;
    reader->searched = next;
}

/* Drops what is over the limit of a record whose end was not read yet. */
static void drop_excess(struct record_reader *reader)
{
    size_t size = reader->end - reader->start;

    if (size + reader->dropped_size > reader->size_max && size > RECORD_KEPT_SIZE) {
        reader->dropped_size += size - RECORD_KEPT_SIZE;
        reader->end = reader->start + RECORD_KEPT_SIZE;
    }
    reader->searched = reader->end;
}

enum record_status record_reader_next(struct record_reader *reader, struct record *record)
{
    size_t unsearched_size = reader->end - reader->searched;
    const uint8_t *found = NULL;

    if (unsearched_size > 0) {
        found = memchr(reader->buffer + reader->searched, reader->end_byte, unsearched_size);
    }
    if (found != NULL) {
        size_t at = (size_t)(found - reader->buffer);

        give_out(reader, at, at + 1, record);
        return RECORD_READY;
    }
    drop_excess(reader);
    if (!reader->is_ended) {
        return RECORD_NEEDS_INPUT;
    }
    if (reader->end == reader->start) {
        return RECORD_END;
    }
    give_out(reader, reader->end, reader->end, record);
    return RECORD_READY;
}

/* Makes room for a read. False: memory is out. */
static bool make_room(struct record_reader *reader)
{
    if (reader->start > 0) {
        memmove(reader->buffer, reader->buffer + reader->start, reader->end - reader->start);
        reader->searched -= reader->start;
        reader->end -= reader->start;
        reader->start = 0;
    }
    if (reader->capacity - reader->end >= READ_SIZE) {
        return true;
    }
    size_t capacity = reader->capacity == 0 ? 2 * (size_t)READ_SIZE : 2 * reader->capacity;
    uint8_t *larger = realloc(reader->buffer, capacity);

    if (larger == NULL) {
        return false;
    }
    reader->buffer = larger;
    reader->capacity = capacity;
    return true;
}

int record_reader_fill(struct record_reader *reader)
{
    TREADLE_ASSERT(!reader->is_ended);
    if (!make_room(reader)) {
        return ENOMEM;
    }
    ssize_t got = read(reader->fd, reader->buffer + reader->end, READ_SIZE);

    if (got == -1) {
        return errno;
    }
    reader->is_ended = got == 0;
    reader->end += (size_t)got;
    return 0;
}
