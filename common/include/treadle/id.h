/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_ID_H
#define TREADLE_ID_H

#include <stdint.h>

#include <treadle/export.h>
#include <treadle/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Bytes of an id as text: 36 characters and a NUL. */
#define TREADLE_ID_TEXT_SIZE 37

/** A task's id for life: 128 bits, usually a UUIDv7, chosen by the client. */
struct treadle_task_id {
    uint8_t bytes[16];
};

/**
 * Makes a new id: a UUIDv7, the time in ms and 74 random bits.
 *
 * A client that chooses the id itself, and keeps it, may submit the same task again after anything
 * that happened: it stays one task.
 *
 * @param[out] id  written only on TREADLE_OK
 *
 * @return TREADLE_OK
 *         TREADLE_E_IO  the system gives no random bytes
 *
 * Threads: any. Since: 0.1. See also: treadle_client_submit().
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status treadle_id_new(struct treadle_task_id *id);

/**
 * Writes an id as people and the command line know it: 36 characters in lower case, and a NUL.
 *
 * @param id         the id
 * @param[out] text  TREADLE_ID_TEXT_SIZE (37) bytes
 *
 * @return text, so that a call can stand where a string is wanted
 *
 * Threads: any. Since: 0.1.
 */
TREADLE_API char *treadle_id_format(const struct treadle_task_id *id,
                                    char text[TREADLE_ID_TEXT_SIZE]);

/**
 * Reads an id of 36 characters, in either case.
 *
 * @param text     NUL-terminated
 * @param[out] id  written only on TREADLE_OK
 *
 * @return TREADLE_OK
 *         TREADLE_E_INVALID  the text is no id; *id is as it was
 *
 * Threads: any. Since: 0.1.
 */
TREADLE_API TREADLE_MUST_USE enum treadle_status treadle_id_parse(const char *text,
                                                                  struct treadle_task_id *id);

#ifdef __cplusplus
}
#endif

#endif
