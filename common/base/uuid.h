/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_BASE_UUID_H
#define TREADLE_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>

#include <treadle/export.h>
#include <treadle/id.h>

/* 36 characters and the NUL. */
#define UUID_TEXT_SIZE 37

/* A UUIDv7 (RFC 9562): wall time in ms (its low 48 bits), then 74 of the 80 random bits. */
void uuid_v7(struct treadle_task_id *out, uint64_t unix_ms, const uint8_t random[10]);

/* Writes the 36-character form in lower case and a NUL. */
void uuid_print(const struct treadle_task_id *id, char out[UUID_TEXT_SIZE]);

/* Reads the 36-character form, in either case, of any version. False, and *out untouched, for all
 * else. */
TREADLE_MUST_USE bool uuid_parse(const char *text, struct treadle_task_id *out);

#endif
