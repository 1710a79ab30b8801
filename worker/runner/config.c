/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/runner/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/span.h"
#include "worker/exec/program.h"
#include "worker/routes.h"

#define FILE_PLUGIN_COUNT_MAX 64
#define MEMORY_MAX_MIN        1048576 /* bytes: with less no program starts */
#define QUOTED_SIZE           100
#define ENDPOINT_SIZE         256  /* with its NUL */
#define COUNT_MAX             1000 /* of attempts and the like */
#define FACTOR_MIN            1000 /* thousandths */
#define FACTOR_MAX            1000000

/* Where a key may stand. */
enum place {
    PLACE_TOP = CONF_PLACE_TOP,
    PLACE_HANDLER = 2,
    PLACE_PLUGIN = 4, /* it has no keys */
    PLACE_EITHER = PLACE_TOP | PLACE_HANDLER,
};

enum key {
    KEY_BROKER,
    KEY_IDENTITY,
    KEY_SERVER_KEY,
    KEY_NAME,
    KEY_SLOTS,
    KEY_POOL,
    KEY_MEMORY_MAX,
    KEY_DRAIN_TIMEOUT,
    KEY_COMMAND,
    KEY_PERMANENT_EXIT,
    KEY_POLICY, /* this one and those after it: a field of the policy */
    KEY_COUNT = KEY_POLICY + POLICY_FIELD_COUNT,
};

#define POLICY(field) (KEY_POLICY + (field))
#define AT(where)     .places = PLACE_##where

/* Types, shapes and ranges. */
#define SPAN   .type = CONF_SPAN, .min = 1, .max = SPAN_MAX_MS
#define COUNT  .type = CONF_COUNT, .min = 1, .max = COUNT_MAX
#define FACTOR .type = CONF_FACTOR, .min = FACTOR_MIN, .max = FACTOR_MAX

static const char *const pools[] = {"processes", "threads"};

/* clang-format off */
static const struct conf_key keys[KEY_COUNT] = {
    [KEY_BROKER] = {"broker", CONF_TEXT, AT(TOP), .expected = "an endpoint like \"tcp://HOST:PORT\" or \"ipc://PATH\""},
    [KEY_IDENTITY] = {"identity", CONF_TEXT, AT(TOP), .expected = "the name of a .key file"},
    [KEY_SERVER_KEY] = {"server_key", CONF_TEXT, AT(TOP), .expected = "the name of a .pub file, 64 hexadecimal digits or none"},
    [KEY_NAME] = {"name", CONF_TEXT, AT(TOP), .expected = "a name of 1 to 64 bytes"},
    [KEY_SLOTS] = {"slots", CONF_COUNT, AT(TOP), .min = 1, .max = SLOT_COUNT_MAX},
    [KEY_POOL] = {"pool", CONF_WORD, AT(TOP), .words = pools, .max = 1},
    [KEY_MEMORY_MAX] = {"memory_max", CONF_SIZE, AT(TOP), .min = MEMORY_MAX_MIN, .max = UINT64_MAX},
    [KEY_DRAIN_TIMEOUT] = {"drain_timeout", AT(TOP), SPAN},
    [KEY_COMMAND] = {"command", CONF_TEXT, CONF_LIST, AT(HANDLER), .expected = "a list like {\"wc\", \"-w\"}"},
    [KEY_PERMANENT_EXIT] = {"permanent_exit", CONF_COUNT, CONF_LIST, AT(HANDLER), .min = 1, .max = EXIT_STATUS_COUNT - 1, .expected = "a list of exit codes from 1 to 255, like {2, 64}"},
    [POLICY(POLICY_ATTEMPTS_MAX)] = {"attempts", AT(EITHER), COUNT},
    [POLICY(POLICY_TIMEOUT)] = {"timeout", AT(EITHER), SPAN},
    [POLICY(POLICY_PROGRESS_TIMEOUT)] = {"progress_timeout", AT(EITHER), SPAN},
    [POLICY(POLICY_GRACE)] = {"grace", AT(EITHER), SPAN},
    [POLICY(POLICY_QUEUE_TIMEOUT)] = {"queue_timeout", AT(EITHER), SPAN},
    [POLICY(POLICY_DEADLINE)] = {"deadline", AT(EITHER), SPAN},
    [POLICY(POLICY_RESULT_TTL)] = {"result_ttl", AT(EITHER), SPAN},
    [POLICY(POLICY_BACKOFF_BASE)] = {"backoff", AT(EITHER), SPAN},
    [POLICY(POLICY_BACKOFF_FACTOR)] = {"backoff_factor", AT(EITHER), FACTOR},
    [POLICY(POLICY_BACKOFF_MAX)] = {"backoff_max", AT(EITHER), SPAN},
    [POLICY(POLICY_CRASH_LIMIT)] = {"crash_limit", AT(EITHER), COUNT},
    [POLICY(POLICY_LOST_LIMIT)] = {"lost_limit", AT(EITHER), COUNT},
};
/* clang-format on */

static const struct conf_section sections[] = {
    {"handler", PLACE_HANDLER},
    {"plugin", PLACE_PLUGIN},
};

struct file_handler {
    uint32_t line;
    char *pattern;
    const char *patterns[1]; /* it again, as a command wants it */
    char **command;          /* NULL: the handler is in a plugin */
    bool has_permanent_exit;
    bool is_permanent_exit[EXIT_STATUS_COUNT];
    uint64_t policy[POLICY_FIELD_COUNT]; /* struct wire_policy */
};

struct runner_config {
    char *broker;
    char *identity;
    char *server_key;
    char *name;
    uint64_t slots;
    bool is_threaded;
    uint64_t memory_max;
    uint64_t drain_ms;
    uint64_t policy[POLICY_FIELD_COUNT];
    struct file_handler handlers[SERVE_COUNT_MAX];
    size_t handler_count;
    char *plugins[FILE_PLUGIN_COUNT_MAX];
    size_t plugin_count;

    /* What worker_config points to. */
    struct worker_command commands[SERVE_COUNT_MAX];
    struct worker_override overrides[SERVE_COUNT_MAX];

    /* While it is read. */
    const char *home;
    struct conf_mistakes *mistakes;
    struct file_handler *handler; /* the section's */
    struct file_handler rejected; /* of sections that do not count */
};

_Static_assert(sizeof(struct wire_policy) == POLICY_FIELD_COUNT * sizeof(uint64_t),
               "a policy is its fields, one after the other");

static const char *quote(char out[QUOTED_SIZE], const char *text)
{
    return log_quote(out, QUOTED_SIZE, text, strlen(text));
}

static void out_of_memory(struct runner_config *config, uint32_t line)
{
    conf_add_mistake(config->mistakes, line, "memory is out; expected some");
}

/* ---- settings ---- */

static bool is_endpoint(const char *text)
{
    return (strncmp(text, "ipc://", 6) == 0 || strncmp(text, "tcp://", 6) == 0) &&
           text[6] != '\0' && strlen(text) < ENDPOINT_SIZE;
}

static bool is_name(const char *text)
{
    return text[0] != '\0' && strlen(text) <= NAME_SIZE_MAX;
}

/* A key stands once, so there is nothing to free. */
static void set_text(struct runner_config *config, enum key key, const struct conf_setting *setting)
{
    const char *text = setting->values[0];
    const bool is_file = key == KEY_IDENTITY || key == KEY_SERVER_KEY;
    bool is_good = text[0] != '\0';
    char **field = &config->name;
    char why[CONF_TEXT_SIZE];
    if (key == KEY_BROKER) {
        field = &config->broker;
        is_good = is_endpoint(text);
    } else if (key == KEY_NAME) {
        is_good = is_name(text);
    } else {
        field = key == KEY_IDENTITY ? &config->identity : &config->server_key;
    }
    if (!is_good) {
        conf_print_refused(&keys[key], text, why);
        conf_add_mistake(config->mistakes, setting->line, "%s", why);
        return;
    }
    *field = is_file ? conf_file_name(text, config->home) : strdup(text);
    if (*field == NULL) {
        out_of_memory(config, setting->line);
    }
}

static void free_command(struct file_handler *handler)
{
    char **command = handler->command;
    for (size_t i = 0; command != NULL && command[i] != NULL; i++) {
        free(command[i]);
    }
    free(command);
    handler->command = NULL;
}

static void set_command(struct runner_config *config, const struct conf_setting *setting)
{
    struct file_handler *handler = config->handler;
    char why[CONF_TEXT_SIZE];
    if (setting->values[0][0] == '\0') {
        conf_print_refused(&keys[KEY_COMMAND], "", why);
        conf_add_mistake(config->mistakes, setting->line, "%s", why);
        return;
    }
    free_command(handler); /* of the rejected one before */
    handler->command = calloc(setting->value_count + 1, sizeof(*handler->command));
    bool is_whole = handler->command != NULL;
    for (size_t i = 0; i < setting->value_count && is_whole; i++) {
        handler->command[i] = strdup(setting->values[i]);
        is_whole = handler->command[i] != NULL;
    }
    if (!is_whole) {
        out_of_memory(config, setting->line);
    }
}

static void set_exit(struct runner_config *config, uint64_t status)
{
    config->handler->has_permanent_exit = true;
    config->handler->is_permanent_exit[status] = true;
}

static void set_number(struct runner_config *config, const struct conf_setting *setting,
                       uint64_t number)
{
    const enum key key = (enum key)setting->key;
    if (key >= KEY_POLICY) {
        uint64_t *policy = setting->place == PLACE_TOP ? config->policy : config->handler->policy;
        policy[key - KEY_POLICY] = number;
    } else if (key == KEY_SLOTS) {
        config->slots = number;
    } else if (key == KEY_POOL) {
        config->is_threaded = number != 0;
    } else if (key == KEY_MEMORY_MAX) {
        config->memory_max = number;
    } else if (key == KEY_DRAIN_TIMEOUT) {
        config->drain_ms = number;
    } else {
        set_exit(config, number);
    }
}

static void on_setting(void *context, const struct conf_setting *setting)
{
    struct runner_config *config = context;
    const enum key key = (enum key)setting->key;
    char why[CONF_TEXT_SIZE];
    if (key == KEY_COMMAND) {
        set_command(config, setting);
        return;
    }
    if (keys[key].type == CONF_TEXT) {
        set_text(config, key, setting);
        return;
    }
    for (size_t i = 0; i < setting->value_count; i++) {
        uint64_t number = 0;
        if (conf_parse_value(&keys[key], setting->values[i], &number, why)) {
            set_number(config, setting, number);
        } else {
            conf_add_mistake(config->mistakes, setting->value_lines[i], "%s", why);
        }
    }
}

/* ---- sections ---- */

static void begin_handler(struct runner_config *config, uint32_t line, const char *pattern)
{
    char quoted[QUOTED_SIZE];
    if (!route_is_pattern(pattern)) {
        conf_add_mistake(config->mistakes, line,
                         "handler %s; expected handler \"SERVICE.TASK\" or \"SERVICE.*\"",
                         quote(quoted, pattern));
        return;
    }
    for (size_t i = 0; i < config->handler_count; i++) {
        if (strcmp(config->handlers[i].pattern, pattern) == 0) {
            conf_add_mistake(config->mistakes, line,
                             "handler \"%s\" stands in line %u already; expected it once", pattern,
                             config->handlers[i].line);
            return;
        }
    }
    if (config->handler_count == SERVE_COUNT_MAX) {
        conf_add_mistake(config->mistakes, line, "too many handlers; expected at most %d",
                         SERVE_COUNT_MAX);
        return;
    }
    struct file_handler *handler = &config->handlers[config->handler_count];
    handler->line = line;
    handler->pattern = strdup(pattern);
    handler->patterns[0] = handler->pattern;
    if (handler->pattern == NULL) {
        out_of_memory(config, line);
        return;
    }
    config->handler_count++;
    config->handler = handler;
}

static void begin_plugin(struct runner_config *config, uint32_t line, const char *path)
{
    if (path[0] == '\0') {
        conf_add_mistake(config->mistakes, line,
                         "a plugin without a file; expected plugin \"FILE.so\" { }");
        return;
    }
    for (size_t i = 0; i < config->plugin_count; i++) {
        if (strcmp(config->plugins[i], path) == 0) {
            conf_add_mistake(config->mistakes, line,
                             "plugin \"%.200s\" stands above already; expected it once", path);
            return;
        }
    }
    if (config->plugin_count == FILE_PLUGIN_COUNT_MAX) {
        conf_add_mistake(config->mistakes, line, "too many plugins; expected at most %d",
                         FILE_PLUGIN_COUNT_MAX);
        return;
    }
    config->plugins[config->plugin_count] = strdup(path);
    if (config->plugins[config->plugin_count] == NULL) {
        out_of_memory(config, line);
        return;
    }
    config->plugin_count++;
}

static void on_section(void *context, uint32_t line, const struct conf_section *section,
                       const char *title)
{
    struct runner_config *config = context;
    config->handler = &config->rejected;
    if (section->place == PLACE_HANDLER) {
        begin_handler(config, line, title);
    } else {
        begin_plugin(config, line, title);
    }
}

static void on_section_end(void *context)
{
    struct runner_config *config = context;
    config->handler = NULL;
}

/* ---- the whole ---- */

/* Each task would fail for good, and be a dead letter. */
static void check_program(struct runner_config *config, const struct file_handler *handler)
{
    const int error = program_check(handler->command[0]);
    const char *text = error != 0 ? strerrordesc_np(error) : "";
    if (error != 0) {
        conf_add_mistake(config->mistakes, handler->line,
                         "handler \"%s\": cannot run %s: %s; expected a program in PATH, or its "
                         "whole path",
                         handler->pattern, handler->command[0], text != NULL ? text : "");
    }
}

static void check(struct runner_config *config)
{
    for (size_t i = 0; i < config->handler_count; i++) {
        const struct file_handler *handler = &config->handlers[i];
        if (handler->command == NULL && config->plugin_count == 0) {
            conf_add_mistake(config->mistakes, handler->line,
                             "handler \"%s\" has no command, and there is no plugin; expected "
                             "command = {\"PROGRAM\", \"ARGUMENT\", ...}",
                             handler->pattern);
        } else if (handler->command == NULL && handler->has_permanent_exit) {
            conf_add_mistake(config->mistakes, handler->line,
                             "handler \"%s\" has permanent_exit and no command; expected both or "
                             "neither",
                             handler->pattern);
        } else if (handler->command != NULL) {
            check_program(config, handler);
        }
    }
    if (config->handler_count == 0 && config->plugin_count == 0) {
        conf_add_mistake(config->mistakes, 0,
                         "nothing to serve; expected handler \"SERVICE.TASK\" "
                         "{ ... } or plugin \"FILE.so\" { }");
    }
}

struct runner_config *runner_config_read(const char *path, const char *home,
                                         struct conf_mistakes *mistakes)
{
    struct runner_config *config = calloc(1, sizeof(*config));
    if (config == NULL) {
        return NULL;
    }
    const struct conf_reader reader = {
        .keys = keys,
        .key_count = KEY_COUNT,
        .sections = sections,
        .section_count = sizeof(sections) / sizeof(sections[0]),
        .manual = "treadle-work.conf(5)",
        .context = config,
        .on_setting = on_setting,
        .on_section = on_section,
        .on_section_end = on_section_end,
    };
    config->home = home;
    config->mistakes = mistakes;
    conf_read(path, &reader, mistakes);
    if (mistakes->count == 0) {
        check(config);
    }
    return config;
}

void runner_config_destroy(struct runner_config **config_pointer)
{
    struct runner_config *config = *config_pointer;
    if (config == NULL) {
        return;
    }
    for (size_t i = 0; i < config->handler_count; i++) {
        free_command(&config->handlers[i]);
        free(config->handlers[i].pattern);
    }
    for (size_t i = 0; i < config->plugin_count; i++) {
        free(config->plugins[i]);
    }
    free_command(&config->rejected);
    free(config->broker);
    free(config->identity);
    free(config->server_key);
    free(config->name);
    free(config);
    *config_pointer = NULL;
}

/* The fields of `over` that are given, else those of `under`. */
static void policy_merge(struct wire_policy *out, const struct wire_policy *over,
                         const uint64_t under[POLICY_FIELD_COUNT])
{
    uint64_t fields[POLICY_FIELD_COUNT];
    memcpy(fields, over, sizeof(fields));
    for (int i = 0; i < POLICY_FIELD_COUNT; i++) {
        fields[i] = fields[i] != 0 ? fields[i] : under[i];
    }
    memcpy(out, fields, sizeof(fields));
}

static void apply_handlers(struct runner_config *config, struct worker_config *worker)
{
    size_t command_count = 0;
    size_t override_count = 0;
    for (size_t i = 0; i < config->handler_count; i++) {
        struct file_handler *handler = &config->handlers[i];
        struct wire_policy policy;
        policy_merge(&policy, &worker->policy, handler->policy);
        if (handler->command != NULL) {
            config->commands[command_count++] = (struct worker_command){
                .patterns = handler->patterns,
                .pattern_count = 1,
                .command = handler->command,
                .is_permanent_exit = handler->is_permanent_exit,
                .policy = policy,
            };
        } else {
            config->overrides[override_count++] =
                (struct worker_override){.pattern = handler->pattern, .policy = policy};
        }
    }
    worker->commands = config->commands;
    worker->command_count = command_count;
    worker->overrides = config->overrides;
    worker->override_count = override_count;
}

void runner_config_apply(struct runner_config *config, struct worker_config *worker,
                         bool is_pool_given)
{
    worker->broker = worker->broker != NULL ? worker->broker : config->broker;
    worker->identity = worker->identity != NULL ? worker->identity : config->identity;
    worker->server_key = worker->server_key != NULL ? worker->server_key : config->server_key;
    worker->name = worker->name != NULL ? worker->name : config->name;
    worker->slots = worker->slots != 0 ? worker->slots : (uint32_t)config->slots;
    worker->memory_max = worker->memory_max != 0 ? worker->memory_max : config->memory_max;
    worker->drain_ms = worker->drain_ms != 0 ? worker->drain_ms : config->drain_ms;
    worker->is_threaded = is_pool_given ? worker->is_threaded : config->is_threaded;
    worker->plugins = (const char *const *)config->plugins;
    worker->plugin_count = config->plugin_count;
    apply_handlers(config, worker); /* before the flags' policy gets the file's own under it */
    policy_merge(&worker->policy, &worker->policy, config->policy);
}
