/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/environment.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/uuid.h"

#define TAGS_SIZE (TAG_COUNT_MAX * (NAME_SIZE_MAX + 1) + 1)

/* The worker's keys are none of its handlers' business; the others are set anew. */
static const char *const dropped[] = {
    "TREADLE_IDENTITY",       "TREADLE_SERVER_KEY", "TREADLE_TASK_ID",     "TREADLE_LEASE",
    "TREADLE_SERVICE",        "TREADLE_TASK",       "TREADLE_DISPATCH",    "TREADLE_RETRY_INDEX",
    "TREADLE_RETRY_SEQUENCE", "TREADLE_TIMEOUT_MS", "TREADLE_DEADLINE_MS", "TREADLE_TAGS",
    "TREADLE_WORKER",
};
#define DROPPED_COUNT (sizeof(dropped) / sizeof(dropped[0]))

struct build {
    char **variables;
    size_t count;
    bool is_failed;
};

static bool is_dropped(const char *variable)
{
    for (size_t i = 0; i < DROPPED_COUNT; i++) {
        const size_t size = strlen(dropped[i]);
        if (strncmp(variable, dropped[i], size) == 0 && variable[size] == '=') {
            return true;
        }
    }
    return false;
}

static void add(struct build *build, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct build *build, const char *format, ...)
{
    char *variable;
    va_list arguments;
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

char **environment_create(char *const *inherited, const struct worker_attempt *attempt,
                          const char *worker)
{
    size_t count = 0;
    while (inherited[count] != NULL) {
        count++;
    }
    struct build build = {.variables = calloc(count + DROPPED_COUNT + 1, sizeof(char *))};
    if (build.variables == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (!is_dropped(inherited[i])) {
            add(&build, "%s", inherited[i]);
        }
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
