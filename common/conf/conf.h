/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Reads a configuration file:
 *
 *     # a comment
 *     slots = 4
 *     handler "wc.count" {
 *         command = {"wc", "-w"}
 *         timeout = 30s
 *     }
 *
 * Each program has a table of its keys and, if it has some, of its sections. Form, names, repeats
 * and shapes are checked here, so that every mistake is named by its line and what follows is read
 * all the same; libconfuse reads the values. Alone it would stop at the first mistake, take several
 * silently (a section that is never closed, a key that is repeated, a value that is missing),
 * expand ${NAME}, and end the process when it cannot read. One thread.
 */
#ifndef TREADLE_CONF_H
#define TREADLE_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONF_TEXT_SIZE         512
#define CONF_MISTAKES_MAX      32U     /* kept */
#define CONF_MISTAKES_TOLD_MAX 256U    /* then the reading ends: nobody reads more */
#define CONF_FILE_SIZE_MAX     1048576 /* bytes */
#define CONF_VALUES_MAX        256     /* of one list */
#define CONF_KEY_COUNT_MAX     64

/* Instead of the line of a file: the file as a whole, and what was given without one. */
#define CONF_LINE_WHOLE 0U
#define CONF_LINE_GIVEN UINT32_MAX

/* ---- mistakes ---- */

/* What is wrong: "what; expected ..." */
struct conf_mistake {
    uint32_t line;
    char text[CONF_TEXT_SIZE];
};

/* In order of their lines; of too many the first are kept. */
struct conf_mistakes {
    uint32_t count; /* all of them */
    struct conf_mistake at[CONF_MISTAKES_MAX];
};

void conf_add_mistake(struct conf_mistakes *mistakes, uint32_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "FILE:LINE: what; expected ..." of a mistake, cut to out_size. */
void conf_print_mistake(char *out, size_t out_size, const char *path,
                        const struct conf_mistake *mistake);

/* ---- keys and their values ---- */

/* How a value is written, and the unit that it is kept in. */
enum conf_type {
    CONF_COUNT,
    CONF_SPAN,   /* ms */
    CONF_SIZE,   /* bytes */
    CONF_FACTOR, /* thousandths */
    CONF_WORD,   /* the index of one of the key's words */
    CONF_TEXT,   /* whatever the program makes of it */
};

enum conf_shape {
    CONF_ONE,          /* NAME = VALUE */
    CONF_LIST,         /* NAME = {VALUE, ...} */
    CONF_ONE_OR_LIST,  /* either */
    CONF_LIST_OR_NONE, /* as CONF_LIST, and it may be empty */
};

/* The place outside all sections; those of sections are further bits. */
#define CONF_PLACE_TOP 1U

struct conf_key {
    const char *name;
    enum conf_type type;
    enum conf_shape shape;
    uint32_t places;          /* bits: where it may stand */
    uint64_t min;             /* of a word 0 */
    uint64_t max;             /* UINT64_MAX: none; of a word the last index */
    const char *const *words; /* of CONF_WORD */
    const char *expected;     /* what a value looks like; NULL: type and range say it */
};

/* What a value of the key looks like: "a span from 100ms to 1m, such as 500ms, 30s or 5m". */
void conf_print_expected(const struct conf_key *key, char *out, size_t out_size);

/* A value as it is written; not of CONF_TEXT. */
void conf_print_value(const struct conf_key *key, uint64_t value, char *out, size_t out_size);

/* Takes a value as a person wrote it; not of CONF_TEXT. False: *value is untouched and `why`
 * (CONF_TEXT_SIZE bytes) says "NAME: what; expected ...". */
bool conf_parse_value(const struct conf_key *key, const char *text, uint64_t *value, char *why);

/* Writes such a text for a value that the program itself refuses. */
void conf_print_refused(const struct conf_key *key, const char *text, char *why);

/* A file's name as a person wrote it, with `home` for the ~ of a leading ~/ (NULL: it stays). Free
 * it; NULL: memory is out. */
char *conf_file_name(const char *text, const char *home);

/* ---- files ---- */

/* NAME "TITLE" { ... }: the settings up to its end belong to it. */
struct conf_section {
    const char *name;
    uint32_t place;
};

/* A setting whose name and shape are right; valid during the call. */
struct conf_setting {
    uint32_t line;
    size_t key; /* index in the reader's keys */
    uint32_t place;
    const char *const *values;
    const uint32_t *value_lines;
    size_t value_count; /* at least 1, but of CONF_LIST_OR_NONE */
};

/* What may stand in the file, and what becomes of it. */
struct conf_reader {
    const struct conf_key *keys;
    size_t key_count; /* 1..CONF_KEY_COUNT_MAX */
    const struct conf_section *sections;
    size_t section_count;
    const char *manual; /* where the keys are told, such as "treadled.conf(5)" */
    const char *form;   /* what the file consists of; NULL: "NAME = VALUE lines" */
    bool is_guarded;    /* refused if others than root and this process' user may write the file */
    void *context;
    void (*on_setting)(void *context, const struct conf_setting *setting);
    /* A known name stands there, whatever becomes of its value. May be NULL. */
    void (*on_name)(void *context, size_t key);
    /* With sections only. title: "" if there is none. */
    void (*on_section)(void *context, uint32_t line, const struct conf_section *section,
                       const char *title);
    void (*on_section_end)(void *context);
};

/* Reads the whole file, mistakes or not; what is wrong is added to *mistakes. */
void conf_read(const char *path, const struct conf_reader *reader, struct conf_mistakes *mistakes);

#endif
