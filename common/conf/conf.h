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
 * The form is checked here, so that a mistake is named by its line and what follows is read all the
 * same; the values are read by libconfuse, which alone would take several mistakes silently (a
 * section that is never closed, a key that is repeated, a value that is missing) and expand
 * ${NAME}. What the names mean is the reader's business. One thread.
 */
#ifndef TREADLE_CONF_H
#define TREADLE_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONF_TEXT_SIZE     512
#define CONF_MISTAKES_MAX  32U
#define CONF_FILE_SIZE_MAX 1048576 /* bytes */
#define CONF_VALUES_MAX    256     /* of one list */

/* What is wrong: "what; expected ..." */
struct conf_mistake {
    uint32_t line; /* 0: the file as a whole */
    char text[CONF_TEXT_SIZE];
};

struct conf_mistakes {
    uint32_t count; /* all of them; the first CONF_MISTAKES_MAX are kept */
    struct conf_mistake at[CONF_MISTAKES_MAX];
};

void conf_add_mistake(struct conf_mistakes *mistakes, uint32_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* NAME = VALUE or NAME = {VALUE, ...}; valid during the call. */
struct conf_setting {
    uint32_t line;
    const char *name;
    bool is_list;
    const char *const *values;
    size_t value_count; /* 1 unless is_list */
};

/* What the reader does with what is found. */
struct conf_reader {
    void *context;
    void (*on_setting)(void *context, const struct conf_setting *setting);
    /* NAME "TITLE" { ... }: the settings up to its end belong to it. title: "" if there is none. */
    void (*on_section)(void *context, uint32_t line, const char *name, const char *title);
    void (*on_section_end)(void *context);
};

/* Reads the whole file, mistakes or not; what is wrong with its form is added to *mistakes. */
void conf_read(const char *path, const struct conf_reader *reader, struct conf_mistakes *mistakes);

/* The one of `names` that was probably meant; NULL: none is near. */
const char *conf_guess(const char *name, const char *const *names, size_t name_count);

#endif
