/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/log_sinks.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#define NAME_PREFIX     "TREADLE_"
#define FIELD_NAME_SIZE 64
#define JSON_LINE_SIZE  (7 * LOG_LINE_SIZE) /* a byte may become \u0000 */

/* ---- JSON ---- */

static json_t *json_of(const struct log_field *field)
{
    if (field->is_number) { /* at most 18 digits */
        return json_integer(strtoll(field->value, NULL, 10));
    }
    return json_stringn(field->value, field->value_size);
}

bool log_json(const struct log_line *line)
{
    char room[LOG_VALUE_SIZE + 1];
    char text[JSON_LINE_SIZE];
    struct log_field field;
    const char *next = line->fields;
    json_t *object = json_pack("{s:s, s:s, s:s}", "time", line->time, "level",
                               log_level_text(line->level), "event", line->event);
    if (object == NULL) {
        return false;
    }
    while (log_field_next(&next, room, &field)) {
        char name[FIELD_NAME_SIZE];
        room[field.value_size] = '\0';
        (void)snprintf(name, sizeof name, "%.*s", (int)field.name_size, field.name);
        (void)json_object_set_new(object, name, json_of(&field));
    }
    size_t size = json_dumpb(object, text, sizeof text - 1, JSON_COMPACT);
    json_decref(object);
    if (size == 0 || size > sizeof text - 1) {
        return false; /* counted as lost: half an object would be worse */
    }
    text[size] = '\n';
    return log_put(text, size + 1);
}

/* ---- the journal ---- */

static int priority_of(enum log_level level)
{
    switch (level) {
    case LOG_LEVEL_DEBUG:
        return LOG_DEBUG;
    case LOG_LEVEL_INFO:
        return LOG_INFO;
    case LOG_LEVEL_WARN:
        return LOG_WARNING;
    case LOG_LEVEL_ERROR:
    case LOG_LEVEL_COUNT:
        break;
    }
    return LOG_ERR;
}

/* "TREADLE_KEY=value", allocated; names of journal fields are upper case. */
static bool add_field(struct iovec *out, const struct log_field *field)
{
    static const char prefix[] = NAME_PREFIX;
    const size_t prefix_size = sizeof prefix - 1;
    const size_t name_size = field->name_size < FIELD_NAME_SIZE - prefix_size
                                 ? field->name_size
                                 : FIELD_NAME_SIZE - prefix_size;
    char *data = malloc(sizeof prefix + name_size + 1 + field->value_size);
    if (data == NULL) {
        return false;
    }
    memcpy(data, prefix, sizeof prefix);
    for (size_t i = 0; i < name_size; i++) {
        const char letter = field->name[i];
        data[prefix_size + i] = letter;
        if (letter >= 'a' && letter <= 'z') {
            data[prefix_size + i] = (char)(letter - 'a' + 'A');
        }
    }
    data[prefix_size + name_size] = '=';
    memcpy(data + prefix_size + name_size + 1, field->value, field->value_size);
    *out = (struct iovec){data, prefix_size + name_size + 1 + field->value_size};
    return true;
}

static bool add_text(struct iovec *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool add_text(struct iovec *out, const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    const int size = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (size < 0) {
        return false;
    }
    *out = (struct iovec){text, (size_t)size};
    return true;
}

size_t journal_fields(const struct log_line *line, struct iovec fields[JOURNAL_FIELD_COUNT_MAX])
{
    char room[LOG_VALUE_SIZE];
    struct log_field field;
    const char *next = line->fields;
    size_t count = 0;
    count += add_text(&fields[count], "MESSAGE=%s%s%s", line->event,
                      line->fields[0] == '\0' ? "" : " ", line->fields)
                 ? 1
                 : 0;
    count += add_text(&fields[count], "PRIORITY=%d", priority_of(line->level)) ? 1 : 0;
    count += add_text(&fields[count], "SYSLOG_IDENTIFIER=treadled") ? 1 : 0;
    count += add_text(&fields[count], NAME_PREFIX "EVENT=%s", line->event) ? 1 : 0;
    while (count < JOURNAL_FIELD_COUNT_MAX && log_field_next(&next, room, &field)) {
        count += add_field(&fields[count], &field) ? 1 : 0;
    }
    return count;
}

bool log_journal(const struct log_line *line)
{
    struct iovec fields[JOURNAL_FIELD_COUNT_MAX];
    const size_t count = journal_fields(line, fields);
    const int result = sd_journal_sendv(fields, (int)count);
    for (size_t i = 0; i < count; i++) {
        free(fields[i].iov_base);
    }
    return result == 0 || log_text(line);
}
