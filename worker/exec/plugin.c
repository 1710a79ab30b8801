/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/task.h"
#include "common/base/log.h"

#define COUNT_MAX  1000    /* of attempts, as record policy of the wire has it */
#define FACTOR_MAX 1000000 /* the same */

/* What is being opened: its words begin with it. */
struct reading {
    const char *origin; /* the plugin's file; NULL: the program */
    char *text;         /* FUNCTION_TEXT_SIZE bytes */
};

__attribute__((format(printf, 2, 3))) static bool refuse(const struct reading *reading,
                                                         const char *format, ...)
{
    va_list arguments;
    int size = 0;
    if (reading->origin != NULL) {
        size = snprintf(reading->text, FUNCTION_TEXT_SIZE, "plugin %.500s: ", reading->origin);
    }
    if (size >= 0 && size < FUNCTION_TEXT_SIZE) {
        va_start(arguments, format);
        /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
        (void)vsnprintf(reading->text + size, FUNCTION_TEXT_SIZE - (size_t)size, format, arguments);
        va_end(arguments);
    }
    return false;
}

/* ---- handlers ---- */

static bool is_pattern(const char *text)
{
    const char *dot = text == NULL ? NULL : strrchr(text, '.');
    if (dot == NULL) {
        return false;
    }
    const struct bytes service = {(const uint8_t *)text, (size_t)(dot - text)};
    return wire_is_name(service, 1) &&
           (strcmp(dot + 1, "*") == 0 || wire_is_name(bytes_from_text(dot + 1), 1));
}

/* A text of somebody else's memory, short and printable. */
static const char *shown(char out[160], const char *text)
{
    if (text == NULL) {
        return "(no name)";
    }
    return log_quote(out, 160, text, strnlen(text, 160));
}

static bool read_policy(const struct reading *reading, struct function *function)
{
    struct treadle_policy policy = {0};
    const struct treadle_policy *given = function->handler.policy;
    const char *name = function->handler.name;
    if (given == NULL) {
        return true;
    }
    if (!client_options_copy(&policy, sizeof(policy), given, given->size)) {
        return refuse(reading,
                      "handler %s: the size of its policy is not set, or it has fields this "
                      "version does not know; set it to sizeof(struct treadle_policy)",
                      name);
    }
    const uint64_t spans_ms[] = {
        policy.timeout_ms,       policy.progress_timeout_ms, policy.grace_ms,
        policy.queue_timeout_ms, policy.deadline_ms,         policy.result_ttl_ms,
        policy.backoff_base_ms,  policy.backoff_max_ms,
    };
    bool is_valid = policy.attempts_max <= COUNT_MAX && policy.crash_limit <= COUNT_MAX &&
                    policy.lost_limit <= COUNT_MAX && policy.backoff_factor_milli <= FACTOR_MAX;
    for (size_t i = 0; i < sizeof(spans_ms) / sizeof(spans_ms[0]); i++) {
        is_valid = is_valid && spans_ms[i] <= SPAN_MAX_MS;
    }
    if (!is_valid) {
        return refuse(reading,
                      "handler %s: its policy is out of range; counts are at most 1,000, a factor "
                      "at most 1,000,000, spans at most ten years",
                      name);
    }
    function->policy = (struct wire_policy){
        .attempts_max = policy.attempts_max,
        .timeout_ms = policy.timeout_ms,
        .progress_timeout_ms = policy.progress_timeout_ms,
        .grace_ms = policy.grace_ms,
        .queue_timeout_ms = policy.queue_timeout_ms,
        .deadline_ms = policy.deadline_ms,
        .result_ttl_ms = policy.result_ttl_ms,
        .backoff_base_ms = policy.backoff_base_ms,
        .backoff_factor_milli = policy.backoff_factor_milli,
        .backoff_max_ms = policy.backoff_max_ms,
        .crash_limit = policy.crash_limit,
        .lost_limit = policy.lost_limit,
    };
    return true;
}

static bool read_filters(const struct reading *reading, const struct treadle_handler *handler)
{
    bool is_valid = handler->dont_retry_on_count == 0 || handler->dont_retry_on != NULL;
    for (size_t i = 0; is_valid && i < handler->dont_retry_on_count; i++) {
        is_valid = handler->dont_retry_on[i] != NULL;
    }
    return is_valid ||
           refuse(reading, "handler %s: dont_retry_on has no text at some place", handler->name);
}

static const char *origin_text(const char *origin)
{
    return origin == NULL ? "the program" : origin;
}

static bool is_new(const struct reading *reading, const struct function_table *table,
                   const char *name)
{
    for (size_t i = 0; i < table->function_count; i++) {
        const struct function *other = &table->functions[i];
        if (strcmp(other->handler.name, name) == 0) {
            return refuse(reading,
                          "handler %s is there already, of %.500s; give each task one handler",
                          name, origin_text(other->origin));
        }
    }
    return true;
}

/* Reads the handler at `given` to the table's end. */
static bool read_handler(const struct reading *reading, struct function_table *table,
                         const struct treadle_handler *given)
{
    char name[160];
    struct function function = {.origin = reading->origin};
    struct treadle_handler *handler = &function.handler;
    if (!client_options_copy(handler, sizeof(*handler), given, given->size)) {
        return refuse(reading, "a handler has fields that this version does not know; rebuild it "
                               "with the headers of this version");
    }
    if (!is_pattern(handler->name)) {
        return refuse(reading,
                      "handler %s: a name is SERVICE.TASK or SERVICE.*, each part of 1 to 64 of "
                      "A-Z a-z 0-9 . _ -",
                      shown(name, handler->name));
    }
    if (handler->run == NULL) {
        return refuse(reading, "handler %s has no function; set its field run", handler->name);
    }
    if (!read_filters(reading, handler) || !read_policy(reading, &function) ||
        !is_new(reading, table, handler->name)) {
        return false;
    }
    if (table->function_count == FUNCTION_COUNT_MAX) {
        return refuse(reading, "there are more than %d handlers", FUNCTION_COUNT_MAX);
    }
    struct function *functions =
        realloc(table->functions, (table->function_count + 1) * sizeof(*functions));
    if (functions == NULL) {
        return refuse(reading, "no memory for its handlers");
    }
    table->functions = functions;
    functions[table->function_count++] = function;
    return true;
}

/* The structs stand as far apart as the code that made them has them large. */
static bool read_handlers(const struct reading *reading, struct function_table *table,
                          const struct treadle_handler *handlers, size_t count)
{
    const size_t stride = count > 0 && handlers != NULL ? handlers->size : 0;
    if (count > 0 && (stride < offsetof(struct treadle_handler, is_thread_safe) ||
                      stride % _Alignof(struct treadle_handler) != 0)) {
        return refuse(reading, "its first handler does not say its size; set it to "
                               "sizeof(struct treadle_handler)");
    }
    for (size_t i = 0; i < count; i++) {
        const struct treadle_handler *given = (const void *)((const char *)handlers + i * stride);
        if (given->size != stride) {
            return refuse(reading,
                          "handler number %zu does not say its size; set it to "
                          "sizeof(struct treadle_handler)",
                          i + 1);
        }
        if (!read_handler(reading, table, given)) {
            return false;
        }
    }
    return true;
}

/* ---- plugins ---- */

/* What dlopen() said, less the path that it begins with. */
static const char *why_not_opened(const char *path)
{
    const char *why = dlerror(); /* NOLINT(concurrency-mt-unsafe): each thread has its own */
    const size_t size = strlen(path);
    if (why == NULL) {
        return "unknown";
    }
    return strncmp(why, path, size) == 0 && strncmp(why + size, ": ", 2) == 0 ? why + size + 2
                                                                              : why;
}

static void *open_library(const struct reading *reading)
{
    char *path = NULL;
    struct stat state;
    /* Without a slash the search path of libraries would be looked through. */
    const char *folder = strchr(reading->origin, '/') == NULL ? "./" : "";
    if (asprintf(&path, "%s%s", folder, reading->origin) == -1) {
        (void)refuse(reading, "no memory for its name");
        return NULL;
    }
    void *library = NULL;
    if (stat(path, &state) != 0) {
        (void)refuse(reading, "%s; give the path of a shared library", strerrordesc_np(errno));
    } else if (!S_ISREG(state.st_mode)) {
        (void)refuse(reading, "is not a file; give the path of a shared library");
    } else {
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            (void)refuse(reading,
                         "does not load: %s; build it with cc -shared -fPIC and link what "
                         "it needs",
                         why_not_opened(path));
        }
    }
    free(path);
    return library;
}

/* The plugin's word about itself, as far as this library knows it. */
static bool read_plugin(const struct reading *reading, void *library, struct treadle_plugin *plugin)
{
    treadle_plugin_function *ask = NULL;
    void *symbol = dlsym(library, TREADLE_PLUGIN_SYMBOL);
    if (symbol == NULL) {
        return refuse(reading, "is no plugin: it does not export %s(); see treadle_plugin(7)",
                      TREADLE_PLUGIN_SYMBOL);
    }
    memcpy(&ask, &symbol, sizeof(ask)); /* C has no conversion from object to function pointers */
    const struct treadle_plugin *given = ask();
    if (given == NULL) {
        return refuse(reading, "%s() gives NULL", TREADLE_PLUGIN_SYMBOL);
    }
    if (given->size < offsetof(struct treadle_plugin, handlers)) {
        return refuse(reading, "does not say its size; set it to sizeof(struct treadle_plugin)");
    }
    if (given->abi_version != TREADLE_PLUGIN_ABI) {
        return refuse(reading,
                      "is built for version %u of the plugin interface, this is version "
                      "%u; rebuild it with the headers of this version",
                      (unsigned)given->abi_version, TREADLE_PLUGIN_ABI);
    }
    if (!client_options_copy(plugin, sizeof(*plugin), given, given->size)) {
        return refuse(reading, "has fields that this version does not know; rebuild it with the "
                               "headers of this version");
    }
    if (plugin->handler_count == 0 || plugin->handlers == NULL) {
        return refuse(reading, "has no handlers");
    }
    return true;
}

static bool open_plugin(const struct reading *reading, struct function_table *table)
{
    struct treadle_plugin *plugin = &table->plugins[table->plugin_count];
    void *library = open_library(reading);
    if (library == NULL || !read_plugin(reading, library, plugin) ||
        !read_handlers(reading, table, plugin->handlers, plugin->handler_count)) {
        return false; /* what was opened stays: the process ends soon */
    }
    table->plugin_count++;
    return true;
}

/* ---- the table ---- */

bool function_table_open(struct function_table *table, const struct function_sources *sources,
                         void (*on_open)(void *context, size_t plugin_index), void *context,
                         char text[FUNCTION_TEXT_SIZE])
{
    struct reading reading = {.origin = NULL, .text = text};
    *table = (struct function_table){.files = sources->plugins};
    text[0] = '\0';
    if (!read_handlers(&reading, table, sources->handlers, sources->handler_count)) {
        function_table_reset(table);
        return false;
    }
    table->plugins = calloc(sources->plugin_count + 1, sizeof(*table->plugins));
    if (table->plugins == NULL) {
        function_table_reset(table);
        return refuse(&reading, "no memory for the plugins");
    }
    for (size_t i = 0; i < sources->plugin_count; i++) {
        reading.origin = sources->plugins[i];
        if (on_open != NULL) {
            on_open(context, i);
        }
        if (!open_plugin(&reading, table)) {
            function_table_reset(table);
            return false;
        }
    }
    return true;
}

bool function_table_start(struct function_table *table, char text[FUNCTION_TEXT_SIZE])
{
    char error[256];
    text[0] = '\0';
    while (table->started_count < table->plugin_count) {
        const size_t i = table->started_count;
        const struct reading reading = {.origin = table->files[i], .text = text};
        error[0] = '\0';
        if (table->plugins[i].start != NULL && table->plugins[i].start(error, sizeof(error)) != 0) {
            error[sizeof(error) - 1] = '\0';
            return refuse(&reading, "does not start: %s",
                          error[0] != '\0' ? error : "it does not say why");
        }
        table->started_count++;
    }
    return true;
}

void function_table_stop(struct function_table *table)
{
    while (table->started_count > 0) {
        const struct treadle_plugin *plugin = &table->plugins[--table->started_count];
        if (plugin->stop != NULL) {
            plugin->stop();
        }
    }
}

void function_table_reset(struct function_table *table)
{
    free(table->functions);
    free(table->plugins);
    *table = (struct function_table){0};
}
