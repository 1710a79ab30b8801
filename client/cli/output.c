/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/output.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libsmartcols.h>

#include "common/base/uuid.h"

/* ---- lines ---- */

static void print_line(const char *format, va_list arguments) __attribute__((format(printf, 1, 0)));

static void print_line(const char *format, va_list arguments)
{
    char *line = NULL;
    int size = vasprintf(&line, format, arguments);
    char *clean =
        size < 0 ? NULL : text_for_people((struct bytes){(uint8_t *)line, (size_t)size}, false);

    fflush(stdout); /* keep the order when both go to one place */
    fprintf(stderr, "treadle: %s\n", clean == NULL ? "out of memory" : clean);
    free(clean);
    free(size < 0 ? NULL : line);
}

enum cli_exit cli_fail(enum cli_exit code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
    return code;
}

void cli_note(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    print_line(format, arguments);
    va_end(arguments);
}

enum cli_exit cli_say_mistakes(const char *verb, const char *path,
                               const struct conf_mistakes *mistakes)
{
    for (uint32_t i = 0; i < mistakes->count && i < CONF_MISTAKES_MAX; i++) {
        char text[2 * CONF_TEXT_SIZE];

        conf_print_mistake(text, sizeof(text), path, &mistakes->at[i]);
        cli_note("%s: %s", verb, text);
    }
    if (mistakes->count > CONF_MISTAKES_MAX) {
        cli_note("%s: %s: and %u more", verb, path, mistakes->count - CONF_MISTAKES_MAX);
    }
    return mistakes->count == 0 ? CLI_DONE : CLI_CONFIG;
}

enum cli_exit cli_fail_memory(void)
{
    return cli_fail(CLI_SYSTEM, "out of memory");
}

enum cli_exit cli_put(struct bytes data)
{
    if (data.size > 0 && fwrite(data.data, 1, data.size, stdout) != data.size) {
        return cli_fail(CLI_OUTPUT, "stdout: %s", strerrordesc_np(errno));
    }
    return CLI_DONE;
}

enum cli_exit cli_flush(enum cli_exit code)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0) {
        return code;
    }
    if (code != CLI_DONE) {
        return code;
    }
    return cli_fail(CLI_OUTPUT, "stdout: %s", strerrordesc_np(errno));
}

/* ---- texts ---- */

#define REPLACEMENT      "\xef\xbf\xbd" /* U+FFFD */
#define REPLACEMENT_SIZE 3

/* The size of the UTF-8 character that the text begins with and its number; 0 if it is none. */
static size_t utf8_read(struct bytes text, uint32_t *character)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t first = text.data[0];
    size_t size = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint32_t value = size <= 1 ? first : first & (0x7fU >> size);

    if (size == 0 || first > 0xf4 || size > text.size) {
        return 0;
    }
    for (size_t i = 1; i < size; i++) {
        if ((text.data[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (text.data[i] & 0x3fU);
    }
    if ((size > 1 && value < smallest[size]) || value > 0x10ffff ||
        (value >= 0xd800 && value <= 0xdfff)) {
        return 0;
    }
    *character = value;
    return size;
}

/* Copies the text with U+FFFD for each byte that is not UTF-8; *size without the NUL. */
static char *repair(struct bytes text, size_t *size)
{
    char *out = malloc(text.size * REPLACEMENT_SIZE + 1);
    size_t out_size = 0;

    if (out == NULL) {
        return NULL;
    }
    while (text.size > 0) {
        uint32_t character = 0;
        size_t taken = utf8_read(text, &character);
        const void *from = taken == 0 ? (const void *)REPLACEMENT : text.data;
        size_t copied = taken == 0 ? REPLACEMENT_SIZE : taken;

        memcpy(out + out_size, from, copied);
        out_size += copied;
        taken = taken == 0 ? 1 : taken;
        text = (struct bytes){text.data + taken, text.size - taken};
    }
    out[out_size] = '\0';
    *size = out_size;
    return out;
}

/* Characters that move the cursor, colour the text or turn its direction. */
static bool is_unsafe(uint32_t character)
{
    return character < 0x20 || (character >= 0x7f && character <= 0x9f) ||
           (character >= 0x200e && character <= 0x200f) ||
           (character >= 0x2028 && character <= 0x202e) ||
           (character >= 0x2066 && character <= 0x2069);
}

char *text_for_people(struct bytes text, bool is_block)
{
    size_t size = 0;
    char *out = repair(text, &size);
    size_t to = 0;

    if (out == NULL) {
        return NULL;
    }
    for (size_t from = 0; from < size;) {
        uint32_t character = 0;
        size_t taken =
            utf8_read((struct bytes){(const uint8_t *)out + from, size - from}, &character);

        if (character == '\n' || character == '\t') {
            char kept = out[from];

            if (!is_block) {
                kept = ' ';
            }
            out[to++] = kept;
        } else if (is_unsafe(character)) {
            out[to++] = '?';
        } else {
            memmove(out + to, out + from, taken);
            to += taken;
        }
        from += taken;
    }
    out[to] = '\0';
    return out;
}

const char *instant_print(char out[INSTANT_TEXT_SIZE], uint64_t unix_ms)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm parts;
    char date[INSTANT_TEXT_SIZE];

    if (gmtime_r(&seconds, &parts) == NULL ||
        strftime(date, sizeof(date) - 5, "%Y-%m-%dT%H:%M:%S", &parts) == 0) {
        snprintf(out, INSTANT_TEXT_SIZE, "?");
        return out;
    }
    snprintf(out, INSTANT_TEXT_SIZE, "%.26s.%03uZ", date, (unsigned)(unix_ms % 1000));
    return out;
}

/* ---- JSON ---- */

json_t *json_from_text(struct bytes text)
{
    size_t size = 0;
    char *repaired = repair(text, &size);
    json_t *value = repaired == NULL ? NULL : json_stringn(repaired, size);

    free(repaired);
    return value;
}

json_t *json_from_number(uint64_t number)
{
    if (number > INT64_MAX) {
        return json_real((double)number);
    }
    return json_integer((json_int_t)number);
}

json_t *json_from_instant(uint64_t unix_ms)
{
    char text[INSTANT_TEXT_SIZE];

    return unix_ms == 0 ? json_null() : json_string(instant_print(text, unix_ms));
}

json_t *json_from_id(const struct treadle_task_id *id)
{
    char text[UUID_TEXT_SIZE];

    uuid_print(id, text);
    return json_string(text);
}

bool json_append(json_t *array, json_t *value)
{
    if (array == NULL) {
        json_decref(value);
        return false;
    }
    return json_array_append_new(array, value) == 0;
}

enum cli_exit json_print(json_t *document)
{
    if (document == NULL) {
        return cli_fail_memory();
    }
    int failed = json_dumpf(document, stdout, JSON_INDENT(2));

    json_decref(document);
    if (failed != 0 || fputc('\n', stdout) == EOF) {
        return cli_fail(CLI_OUTPUT, "stdout: %s", strerrordesc_np(errno));
    }
    return CLI_DONE;
}

/* ---- tables ---- */

struct table {
    struct libscols_table *columns;
    size_t column_count;
    bool is_out_of_memory;
};

void table_close(struct table **table)
{
    if (*table != NULL) {
        scols_unref_table((*table)->columns);
        free(*table);
        *table = NULL;
    }
}

struct table *table_open(const char *const *headings, size_t count)
{
    struct table *table = calloc(1, sizeof(*table));

    if (table == NULL) {
        return NULL;
    }
    table->columns = scols_new_table();
    table->column_count = count;
    for (size_t i = 0; i < count && table->columns != NULL; i++) {
        bool is_number = headings[i][0] == '>';

        if (scols_table_new_column(table->columns, headings[i] + is_number, 0,
                                   is_number ? SCOLS_FL_RIGHT : 0) == NULL) {
            table->is_out_of_memory = true;
        }
    }
    if (table->columns == NULL) {
        table_close(&table);
    }
    return table;
}

struct table *table_open_facts(void)
{
    static const char *const headings[] = {"NAME", "VALUE"};
    struct table *table = table_open(headings, 2);

    if (table != NULL) {
        scols_table_enable_noheadings(table->columns, 1);
    }
    return table;
}

void table_add(struct table *table, const char *const *cells, size_t cell_count)
{
    if (table == NULL) {
        return;
    }
    struct libscols_line *line = scols_table_new_line(table->columns, NULL);

    if (line == NULL) {
        table->is_out_of_memory = true;
        return;
    }
    for (size_t i = 0; i < table->column_count && i < cell_count; i++) {
        if (cells[i] != NULL && scols_line_set_data(line, i, cells[i]) != 0) {
            table->is_out_of_memory = true;
        }
    }
}

void table_add_fact(struct table *table, const char *name, const char *format, ...)
{
    char *value = NULL;
    va_list arguments;

    va_start(arguments, format);
    int size = vasprintf(&value, format, arguments);
    va_end(arguments);
    if (table == NULL || size == -1) {
        if (table != NULL) {
            table->is_out_of_memory = true;
        } else if (size != -1) {
            free(value);
        }
        return;
    }
    const char *cells[] = {name, value};

    table_add(table, cells, 2);
    free(value);
}

enum cli_exit table_print(struct table **table)
{
    enum cli_exit code = CLI_DONE;

    if (*table == NULL || (*table)->is_out_of_memory) {
        code = cli_fail_memory();
    } else if (scols_print_table((*table)->columns) != 0) {
        code = cli_fail(CLI_OUTPUT, "stdout: the table could not be written");
    }
    table_close(table);
    return code;
}
