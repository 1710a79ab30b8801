/* SPDX-License-Identifier: MPL-2.0 */
/* Bodies that are files' contents. One thread. */
#ifndef TREADLE_CLI_BODY_FILE_H
#define TREADLE_CLI_BODY_FILE_H

#include <stddef.h>
#include <stdint.h>

#include <treadle/export.h>

#include "common/base/bytes.h"

/* Used for one file after the other; begin with {0}, end with body_file_reset(). */
struct body_file {
    uint8_t *data;
    size_t size;
    size_t capacity;
};

/* Reads a regular file whole: data and size. 0, or an errno; EFBIG: it has more than size_max
 * bytes. Never waits for a writer, as a named pipe would have it. */
TREADLE_MUST_USE int body_file_read(struct body_file *file, struct bytes path, size_t size_max);

void body_file_reset(struct body_file *file);

#endif
