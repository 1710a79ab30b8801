/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_BASE_LOG_H
#define TREADLE_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include <treadle/export.h>

/* The log: one line `time level event key=value ...` to stderr, by one write(2) a line, from any
 * thread. Time is UTC with milliseconds (RFC 3339). A line over LOG_LINE_SIZE is cut. The core
 * never logs: it emits effects. */
#define LOG_LINE_SIZE 4096

enum log_level {
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_INFO,
    LOG_LEVEL_WARN,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_COUNT,
};

struct log_line {
    enum log_level level;
    const char *time;
    const char *event;
    const char *fields; /* "key=value key="value" ...", as in a line of text */
};

/* Writes a line in another form. Called from any thread. False: it was lost. */
typedef bool log_sink(const struct log_line *line);

/* Sets what is logged from now on: this level and above; and how: by the sink, or, with NULL, as
 * lines of text. Before the first call: info, as text. */
void log_open(enum log_level level, log_sink *sink);

/* From now on nobody waits for a reader of stderr: a line that finds no room is left out and
 * counted; `log.dropped lines=N` tells of it later. Call it once, before other threads log. */
void log_never_wait(void);

/* What text lines are: time, level, event, fields, to stderr. False: it was lost. */
bool log_text(const struct log_line *line);

/* Writes bytes that end in a newline to stderr, whole or not at all. False: they were lost. */
bool log_put(const char *line, size_t size);

/* One key=value of a line. The value is UTF-8 (what was none is U+FFFD) and may hold NULs. */
struct log_field {
    const char *name;
    size_t name_size;
    const char *value;
    size_t value_size;
    bool is_number; /* digits that nobody put in quotes */
};

/* Room for the value of any field of a line. */
#define LOG_VALUE_SIZE 12288

/* Takes the next field from *next and moves it on; the value stands in `room`. False: no more. */
TREADLE_MUST_USE bool log_field_next(const char **next, char room[LOG_VALUE_SIZE],
                                     struct log_field *field);

/* "debug", "info", "warn", "error". */
const char *log_level_text(enum log_level level);

/* "debug", "info", "warn" or "error"; false, and *level untouched, for all else. */
TREADLE_MUST_USE bool log_level_parse(const char *text, enum log_level *level);

/* True if lines of this level are written. */
bool log_is_on(enum log_level level);

/* Writes one line; use the macros. errno is kept. */
void log_write(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* log_info("session.opened", "name=%s credit=%u", name, credit): event is a stable dotted name, the
 * format a literal ("" for no fields). What a peer or a person wrote goes through log_quote(). */
#define log_at(level, event, ...)                                                                  \
    (log_is_on(level) ? log_write((level), (event), " " __VA_ARGS__) : (void)0)
#define log_debug(event, ...) log_at(LOG_LEVEL_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...)  log_at(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_warn(event, ...)  log_at(LOG_LEVEL_WARN, event, __VA_ARGS__)
#define log_error(event, ...) log_at(LOG_LEVEL_ERROR, event, __VA_ARGS__)

/* Makes any bytes safe as a value: a plain word stays as it is (but digits alone are quoted: they
 * are no number), all else is put in double quotes with \n \t \" \\ and \xNN for quotes, control
 * characters (C1 and text direction too) and what is not UTF-8. What does not fit in out_size (at
 * least 8) is cut at a whole character and ends in
 * `..."`. Returns out, NUL-terminated. text may be NULL if size is 0. */
const char *log_quote(char *out, size_t out_size, const void *text, size_t size);

#endif
