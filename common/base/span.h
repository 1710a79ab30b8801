/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_BASE_SPAN_H
#define TREADLE_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <treadle/export.h>

/* Room for any span in text, its NUL included. */
#define SPAN_TEXT_SIZE 24

/* Reads "500ms", "30s", "5m", "2h", "1d" or "0": digits and one unit, nothing around them. False,
 * and *span_ms untouched, for all else: a fraction, a missing unit, more than 2^64 - 1 ms. */
TREADLE_MUST_USE bool span_parse(const char *text, uint64_t *span_ms);

/* Writes the shortest form that says exactly this span ("1500ms", "90s", "5m", "0"), cut to
 * out_size, and always a NUL if out_size is not 0. Returns the size of the whole text without the
 * NUL; SPAN_TEXT_SIZE bytes always suffice. */
size_t span_print(char *out, size_t out_size, uint64_t span_ms);

#endif
