/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Standard output that never makes the program wait: bytes are appended to a buffer and written
 * when the reader has room, so that a slow reader costs neither heartbeats nor an interrupt. Does
 * not touch the descriptor's flags, which other programs share. One thread.
 */
#ifndef TREADLE_CLI_OUTLET_H
#define TREADLE_CLI_OUTLET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <treadle/export.h>

#include "common/base/bytes.h"

#define OUTLET_FULL_SIZE 262144U /* bytes that wait before the outlet counts as full */

struct outlet {
    int fd;
    uint64_t appended_size; /* in all */
    uint64_t written_size;  /* in all */
    bool is_pollable;       /* not a file, which always has room */
    int error;              /* errno of the write that failed; 0: none did. EPIPE: nobody reads */

    uint8_t *buffer; /* the rest belongs to outlet.c */
    size_t capacity;
    size_t start;
    size_t end;
};

/* The descriptor stays the caller's. End it with outlet_reset(). SIGPIPE must be ignored. */
void outlet_init(struct outlet *outlet, int fd);

void outlet_reset(struct outlet *outlet);

/* False: memory is out. */
TREADLE_MUST_USE bool outlet_append(struct outlet *outlet, struct bytes data);

/* Writes what the reader has room for. Look at `error` afterwards. */
void outlet_write(struct outlet *outlet);

static inline bool outlet_is_empty(const struct outlet *outlet)
{
    return outlet->appended_size == outlet->written_size;
}

static inline bool outlet_is_full(const struct outlet *outlet)
{
    return outlet->appended_size - outlet->written_size >= OUTLET_FULL_SIZE;
}

#endif
