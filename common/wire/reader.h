/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A cursor over the first frame of a message that cannot leave it. The first error sticks: after it
 * every read gives zeros, so that a decoder is a straight line with one check at its end. Allocates
 * nothing, never recurses.
 */
#ifndef TREADLE_WIRE_READER_H
#define TREADLE_WIRE_READER_H

#include "common/wire/message.h"

struct reader {
    const uint8_t *next;
    const uint8_t *end;
    const struct wire_frames *frames;
    uint64_t body_size_max;
    uint64_t entry_count_max;
    uint64_t entry_count;    /* so far, of all lists of entries */
    uint64_t template_count; /* of this message, once its templates were read */
    size_t body_frame;       /* the next frame that a body may name */
    size_t bodies_size;      /* bytes in body frames so far */
    bool is_walking;         /* over records that were checked before: body frames in any order */
    enum wire_status status;
    const char *error_field;
};

/* Over the array of frames[0], which is at least MESSAGE_HEADER_SIZE long. */
void reader_init(struct reader *reader, const struct wire_frames *frames,
                 const struct wire_limits *limits);

/* Over the records of a list that was checked before. */
void reader_walk(struct reader *reader, const struct wire_list *list);

/* Notes the first error. */
void reader_fail(struct reader *reader, enum wire_status status, const char *field);

/* An array of at least field_count fields; returns how many it has beyond those, for reader_skip().
 */
uint32_t reader_array(struct reader *reader, const char *field, uint32_t field_count);

/* Skips what a newer minor version added. */
void reader_skip(struct reader *reader, const char *field, uint32_t count);

uint64_t reader_uint(struct reader *reader, const char *field, uint64_t max);
struct bytes reader_bin(struct reader *reader, const char *field, size_t size_min, size_t size_max);
struct bytes reader_str(struct reader *reader, const char *field, size_t size_min, size_t size_max);
struct bytes reader_name(struct reader *reader, const char *field, size_t size_min);
struct treadle_task_id reader_task_id(struct reader *reader, const char *field);
struct bytes reader_body(struct reader *reader, const char *field);

/* The head of a list: at, count and frames are set; the caller reads the records and then sets
 * size. */
struct wire_list reader_list(struct reader *reader, const char *field, uint32_t count_max);
struct wire_list reader_entries(struct reader *reader, const char *field);

/* Bytes after the array, frames that no body named, and the rule for bodies of several entries. */
void reader_finish(struct reader *reader);

#endif
