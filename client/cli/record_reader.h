/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Splits a stream into records that end with a newline or a NUL. Memory is bounded: a record over
 * size_max is read to its end and dropped, but for its beginning. One thread.
 */
#ifndef TREADLE_CLI_RECORD_READER_H
#define TREADLE_CLI_RECORD_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <treadle/export.h>

#include "common/base/bytes.h"

/* Bytes that are kept of a record over size_max. */
#define RECORD_KEPT_SIZE 8192U

struct record {
    struct bytes text; /* without what ends it; only the beginning if is_too_large */
    uint64_t size;     /* bytes of the whole record */
    bool is_too_large;
};

enum record_status {
    RECORD_READY,       /* there is one */
    RECORD_NEEDS_INPUT, /* record_reader_fill() first */
    RECORD_END,         /* there will be no more */
};

/* The rest belongs to record_reader.c. */
struct record_reader {
    int fd;
    uint8_t end_byte;
    size_t size_max;
    uint8_t *buffer;
    size_t capacity;
    size_t start;          /* of the record that comes next */
    size_t searched;       /* no end_byte from start to here */
    size_t end;            /* of what was read */
    uint64_t dropped_size; /* of the record that comes next */
    bool is_ended;         /* the stream */
};

/* Reads from fd, which stays the caller's. End it with record_reader_reset(). */
void record_reader_init(struct record_reader *reader, int fd, uint8_t end_byte, size_t size_max);

void record_reader_reset(struct record_reader *reader);

/* The next record out of what was read; on RECORD_READY *record is valid until the next call for
 * this reader. What follows the last end_byte is a record too, unless it is empty. */
enum record_status record_reader_next(struct record_reader *reader, struct record *record);

/* Reads once, as much as there is and fits. 0, or the errno of what failed (EAGAIN and EINTR
 * among them). */
TREADLE_MUST_USE int record_reader_fill(struct record_reader *reader);

#endif
