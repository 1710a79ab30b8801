/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_BASE_SIZE_H
#define TREADLE_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <treadle/export.h>

/* Room for any size in text, its NUL included. */
#define SIZE_TEXT_SIZE 24

/* Reads "512B", "64KiB", "4MiB", "1GiB", "2TiB" or "0": digits and one unit, nothing around them.
 * False, and *size untouched, for all else: a fraction, a missing unit, more than 2^64 - 1 bytes.
 */
TREADLE_MUST_USE bool size_parse(const char *text, uint64_t *size);

/* Writes the shortest form that says exactly this many bytes ("4MiB", "1536B", "0"), cut to
 * out_size, and always a NUL if out_size is not 0. Returns the size of the whole text without the
 * NUL; SIZE_TEXT_SIZE bytes always suffice. */
size_t size_print(char *out, size_t out_size, uint64_t size);

#endif
