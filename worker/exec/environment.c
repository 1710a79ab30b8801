/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/environment.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/uuid.h"

#define TAGS_SIZE (TAG_COUNT_MAX * (NAME_SIZE_MAX + 1) + 1)

/* The worker's keys are none of its handlers' business; an attempt has its own of the others. */
static const char *const dropped[] = {
    "TREADLE_IDENTITY",       "TREADLE_SERVER_KEY", "TREADLE_TASK_ID",     "TREADLE_LEASE",
    "TREADLE_SERVICE",        "TREADLE_TASK",       "TREADLE_DISPATCH",    "TREADLE_RETRY_INDEX",
    "TREADLE_RETRY_SEQUENCE", "TREADLE_TIMEOUT_MS", "TREADLE_DEADLINE_MS", "TREADLE_TAGS",
    "TREADLE_WORKER",
};
#define DROPPED_COUNT  (sizeof(dropped) / sizeof(dropped[0]))
#define VARIABLE_COUNT 16

struct build {
    char **variables; /* VARIABLE_COUNT, and NULL */
    size_t count;
    bool is_failed;
};

static void add(struct build *build, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct build *build, const char *format, ...)
{
    char *variable;
    va_list arguments;
    TREADLE_ASSERT(build->count < VARIABLE_COUNT);
    va_start(arguments, format);
    const int size = vasprintf(&variable, format, arguments);
    va_end(arguments);
    if (size < 0) {
        build->is_failed = true;
        return;
    }
    build->variables[build->count] = variable;
    build->count++;
}

/* The tags with commas between them; a variable cannot hold a NUL. */
static void print_tags(const struct worker_attempt *attempt, char text[TAGS_SIZE])
{
    struct wire_list tags = attempt->tags;
    struct wire_tag tag;
    size_t size = 0;
    while (wire_tag_next(&tags, &tag) && size + tag.text.size + 1 < TAGS_SIZE) {
        if (size > 0) {
            text[size] = ',';
            size++;
        }
        for (size_t i = 0; i < tag.text.size; i++) {
            text[size + i] = (char)(tag.text.data[i] == '\0' ? '?' : tag.text.data[i]);
        }
        size += tag.text.size;
    }
    text[size] = '\0';
}

static void add_attempt(struct build *build, const struct worker_attempt *attempt,
                        const char *worker)
{
    char id[UUID_TEXT_SIZE];
    char tags[TAGS_SIZE];
    uuid_print(&attempt->id, id);
    print_tags(attempt, tags);
    add(build, "TREADLE_TASK_ID=%s", id);
    add(build, "TREADLE_LEASE=%" PRIu64, attempt->lease);
    add(build, "TREADLE_SERVICE=%.*s", (int)attempt->service.size,
        (const char *)attempt->service.data);
    add(build, "TREADLE_TASK=%.*s", (int)attempt->task.size, (const char *)attempt->task.data);
    add(build, "TREADLE_DISPATCH=%" PRIu32, attempt->dispatch);
    add(build, "TREADLE_RETRY_INDEX=%" PRIu32, attempt->retry_index);
    add(build, "TREADLE_RETRY_SEQUENCE=%" PRIu32, attempt->retry_sequence);
    add(build, "TREADLE_TIMEOUT_MS=%" PRIu64, attempt->timeout_ms);
    add(build, "TREADLE_DEADLINE_MS=%" PRIu64, attempt->deadline_left_ms);
    add(build, "TREADLE_TAGS=%s", tags);
    add(build, "TREADLE_WORKER=%s", worker);
}

char **environment_create(const struct worker_attempt *attempt, const char *worker)
{
    struct build build = {.variables = calloc(VARIABLE_COUNT + 1, sizeof(char *))};
    if (build.variables == NULL) {
        return NULL;
    }
    add_attempt(&build, attempt, worker);
    if (build.is_failed) {
        environment_free(build.variables);
        return NULL;
    }
    return build.variables;
}

void environment_free(char **environment)
{
    if (environment == NULL) {
        return;
    }
    for (char **variable = environment; *variable != NULL; variable++) {
        free(*variable);
    }
    free(environment);
}

/* Of NAME=VALUE, with the '='; the whole if there is none. */
static size_t name_size(const char *variable)
{
    const char *end = strchr(variable, '=');
    return end != NULL ? (size_t)(end - variable) + 1 : strlen(variable);
}

static bool is_dropped(const char *variable)
{
    const size_t size = name_size(variable);
    for (size_t i = 0; i < DROPPED_COUNT; i++) {
        const size_t dropped_size = strlen(dropped[i]);
        if (size == dropped_size + 1 && memcmp(variable, dropped[i], dropped_size) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_added(const char *variable, char *const *added, size_t count)
{
    const size_t size = name_size(variable);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(variable, added[i], size) == 0) {
            return true;
        }
    }
    return false;
}

static size_t count_texts(const char *texts, size_t size)
{
    size_t count = 0;
    for (size_t i = 0; i < size; i++) {
        count += texts[i] == '\0' ? 1 : 0;
    }
    return count;
}

char **environment_merge(char *const *inherited, char *added, size_t size)
{
    const size_t added_count = count_texts(added, size);
    size_t inherited_count = 0;
    while (inherited[inherited_count] != NULL) {
        inherited_count++;
    }
    char **merged = calloc(inherited_count + added_count + 1, sizeof(*merged));
    if (merged == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < added_count; i++) {
        merged[i] = added;
        added += strlen(added) + 1;
    }
    size_t count = added_count;
    for (size_t i = 0; i < inherited_count; i++) {
        if (!is_dropped(inherited[i]) && !is_added(inherited[i], merged, added_count)) {
            merged[count] = inherited[i];
            count++;
        }
    }
    return merged;
}
