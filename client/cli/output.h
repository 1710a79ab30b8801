/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What the command line prints: data to stdout as tables or one JSON document, everything else to
 * stderr in lines that begin with "treadle: ". Texts that a peer or a person wrote are made safe
 * for a terminal on the way. One thread.
 */
#ifndef TREADLE_CLI_OUTPUT_H
#define TREADLE_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <treadle/export.h>
#include <treadle/id.h>

#include "common/base/bytes.h"
#include "common/conf/conf.h"

/* The exit codes: sysexits, 0, 1, and 128 + SIGINT. */
enum cli_exit {
    CLI_DONE = 0,
    CLI_TASK_FAILED = 1,  /* the task did not succeed */
    CLI_USAGE = 64,       /* found before connecting */
    CLI_BAD_DATA = 65,    /* a body over the limit, an id that is taken by another content */
    CLI_NOT_FOUND = 66,   /* no such task, service, worker or file */
    CLI_UNAVAILABLE = 69, /* no broker, no worker, no program to run */
    CLI_SYSTEM = 71,      /* out of memory or the like */
    CLI_OUTPUT = 74,      /* stdout did not take the data */
    CLI_PATIENCE = 75,    /* the verb's own patience ran out; the task goes on */
    CLI_REFUSED = 77,
    CLI_CONFIG = 78, /* configuration, the environment included */
    CLI_INTERRUPTED = 130,
    CLI_PIPE = 141, /* nobody reads stdout any more: as a filter that SIGPIPE ends */
};

/* Room for "2026-01-31T23:59:59.999Z" and a NUL. */
#define INSTANT_TEXT_SIZE 32

/* Prints "treadle: WHAT: WHERE: why; do THIS" to stderr and returns `code`. */
enum cli_exit cli_fail(enum cli_exit code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* One line of chatter to stderr, "treadle: " before it. */
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Says what is wrong in a file, a line each: CLI_CONFIG, or CLI_DONE if nothing is. */
enum cli_exit cli_say_mistakes(const char *verb, const char *path,
                               const struct conf_mistakes *mistakes);

/* cli_fail() for memory that is out. */
enum cli_exit cli_fail_memory(void);

/* Writes bytes to stdout as they are; says so on stderr if that fails. */
TREADLE_MUST_USE enum cli_exit cli_put(struct bytes data);

/* Flushes stdout at the end of a verb: `code`, or CLI_OUTPUT (said on stderr) if `code` is CLI_DONE
 * and not everything went out. */
TREADLE_MUST_USE enum cli_exit cli_flush(enum cli_exit code);

/* A text for people: what is not UTF-8 becomes U+FFFD, control and text direction characters '?'.
 * With is_block newlines and tabs stay, else they become a space. Free it; NULL: memory is out. */
TREADLE_MUST_USE char *text_for_people(struct bytes text, bool is_block);

/* RFC 3339, UTC, milliseconds. Returns out. */
const char *instant_print(char out[INSTANT_TEXT_SIZE], uint64_t unix_ms);

/* ---- JSON; NULL when memory is out, which json_pack() hands on ---- */

/* The text with U+FFFD for what is not UTF-8. */
json_t *json_from_text(struct bytes text);

/* A number; one above 2^63 - 1 as a real, which is what JSON readers make of it anyway. */
json_t *json_from_number(uint64_t number);

/* RFC 3339 in UTC; null for 0. */
json_t *json_from_instant(uint64_t unix_ms);

/* The 36-character form. */
json_t *json_from_id(const struct treadle_task_id *id);

/* Appends `value` to `array`; releases it and gives false when one of them is NULL or memory is
 * out. */
TREADLE_MUST_USE bool json_append(json_t *array, json_t *value);

/* Prints the document to stdout and releases it; NULL: says that memory is out. */
TREADLE_MUST_USE enum cli_exit json_print(json_t *document);

/* ---- tables ---- */

struct table;

/* A table with these headings; one that begins with '>' is of numbers, to the right. NULL: memory
 * is out. The headings are borrowed until table_print(). */
struct table *table_open(const char *const *headings, size_t count);

/* A sheet of facts: two columns without headings. */
struct table *table_open_facts(void);

/* Adds a row; the cells are copied, NULL is empty. */
void table_add(struct table *table, const char *const *cells, size_t cell_count);

/* Adds a row to a sheet of facts. */
void table_add_fact(struct table *table, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Destroys the table and nulls the pointer; NULL inside is fine. */
void table_close(struct table **table);

/* Prints the table to stdout and closes it; table may be NULL. Says so when memory was out. */
TREADLE_MUST_USE enum cli_exit table_print(struct table **table);

#endif
