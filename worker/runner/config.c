/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/runner/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/size.h"
#include "common/base/span.h"
#include "worker/routes.h"

#define FILE_PLUGIN_COUNT_MAX 64
#define MEMORY_MAX_MIN        1048576 /* bytes: with less no program starts */
#define QUOTED_SIZE           100
#define FACTOR_UNIT           1000U /* a factor is kept in thousandths */

/* Where a key may stand. */
enum place {
    PLACE_TOP = 1,
    PLACE_HANDLER = 2,
    PLACE_ANYWHERE = 3, /* but in a plugin */
    PLACE_PLUGIN = 4,
};

enum key {
    KEY_BROKER,
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

enum value_type {
    TYPE_TEXT,
    TYPE_COUNT,
    TYPE_SPAN,
    TYPE_SIZE,
    TYPE_FACTOR,
    TYPE_POOL,
    TYPE_WORDS,
    TYPE_EXITS,
};

struct key_rule {
    const char *name;
    enum value_type type;
    enum place place;
    uint64_t min;
    uint64_t max;
    const char *expected;
};

#define SPAN_EXPECTED  "a span like 500ms, 30s or 5m"
#define COUNT_EXPECTED "a number from 1 to 1000"
#define POLICY(field)  (KEY_POLICY + (field))

/* clang-format off */
static const struct key_rule rules[KEY_COUNT] = {
    [KEY_BROKER] = {"broker", TYPE_TEXT, PLACE_TOP, 1, 255, "an endpoint like \"tcp://HOST:PORT\" or \"ipc://PATH\""},
    [KEY_NAME] = {"name", TYPE_TEXT, PLACE_TOP, 1, NAME_SIZE_MAX, "a name of 1 to 64 bytes"},
    [KEY_SLOTS] = {"slots", TYPE_COUNT, PLACE_TOP, 1, SLOT_COUNT_MAX, "a number from 1 to 65536"},
    [KEY_POOL] = {"pool", TYPE_POOL, PLACE_TOP, 0, 0, "processes or threads"},
    [KEY_MEMORY_MAX] = {"memory_max", TYPE_SIZE, PLACE_TOP, MEMORY_MAX_MIN, UINT64_MAX, "a size from 1MiB, like 256MiB or 1GiB"},
    [KEY_DRAIN_TIMEOUT] = {"drain_timeout", TYPE_SPAN, PLACE_TOP, 1, SPAN_MAX_MS, SPAN_EXPECTED},
    [KEY_COMMAND] = {"command", TYPE_WORDS, PLACE_HANDLER, 1, CONF_VALUES_MAX, "a list like {\"wc\", \"-w\"}"},
    [KEY_PERMANENT_EXIT] = {"permanent_exit", TYPE_EXITS, PLACE_HANDLER, 1, 255, "a list of exit codes from 1 to 255, like {2, 64}"},
    [POLICY(POLICY_ATTEMPTS_MAX)] = {"attempts", TYPE_COUNT, PLACE_ANYWHERE, 1, 1000, COUNT_EXPECTED},
    [POLICY(POLICY_TIMEOUT)] = {"timeout", TYPE_SPAN, PLACE_ANYWHERE, 1, SPAN_MAX_MS, SPAN_EXPECTED},
    [POLICY(POLICY_PROGRESS_TIMEOUT)] = {"progress_timeout", TYPE_SPAN, PLACE_ANYWHERE, 1, SPAN_MAX_MS, SPAN_EXPECTED},
    [POLICY(POLICY_GRACE)] = {"grace", TYPE_SPAN, PLACE_ANYWHERE, 1, SPAN_MAX_MS, SPAN_EXPECTED},
    [POLICY(POLICY_QUEUE_TIMEOUT)] = {"queue_timeout", TYPE_SPAN, PLACE_ANYWHERE, 1, SPAN_MAX_MS, SPAN_EXPECTED},
    [POLICY(POLICY_DEADLINE)] = {"deadline", TYPE_SPAN, PLACE_ANYWHERE, 1, SPAN_MAX_MS, SPAN_EXPECTED},
    [POLICY(POLICY_RESULT_TTL)] = {"result_ttl", TYPE_SPAN, PLACE_ANYWHERE, 1, SPAN_MAX_MS, SPAN_EXPECTED},
    [POLICY(POLICY_BACKOFF_BASE)] = {"backoff", TYPE_SPAN, PLACE_ANYWHERE, 1, SPAN_MAX_MS, SPAN_EXPECTED},
    [POLICY(POLICY_BACKOFF_FACTOR)] = {"backoff_factor", TYPE_FACTOR, PLACE_ANYWHERE, 1000, 1000000, "a factor from 1 to 1000, like 2 or 1.5"},
    [POLICY(POLICY_BACKOFF_MAX)] = {"backoff_max", TYPE_SPAN, PLACE_ANYWHERE, 1, SPAN_MAX_MS, SPAN_EXPECTED},
    [POLICY(POLICY_CRASH_LIMIT)] = {"crash_limit", TYPE_COUNT, PLACE_ANYWHERE, 1, 1000, COUNT_EXPECTED},
    [POLICY(POLICY_LOST_LIMIT)] = {"lost_limit", TYPE_COUNT, PLACE_ANYWHERE, 1, 1000, COUNT_EXPECTED},
};
/* clang-format on */

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
    struct conf_mistakes *mistakes;
    enum place place;
    struct file_handler *handler; /* in PLACE_HANDLER; NULL: a section that does not count */
    uint32_t lines[KEY_COUNT];    /* where the keys of this section stand; 0: not yet */
    uint32_t top_lines[KEY_COUNT];
};

_Static_assert(sizeof(struct wire_policy) == POLICY_FIELD_COUNT * sizeof(uint64_t),
               "a policy is its fields, one after the other");

static const char *quote(char out[QUOTED_SIZE], const char *text)
{
    return log_quote(out, QUOTED_SIZE, text, strlen(text));
}

/* ---- values ---- */

static bool count_parse(const char *text, uint64_t *count)
{
    uint64_t number = 0;
    if (text[0] == '\0') {
        return false;
    }
    for (; *text >= '0' && *text <= '9'; text++) {
        if (number > UINT32_MAX) {
            return false;
        }
        number = number * 10 + (uint64_t)(*text - '0');
    }
    *count = number;
    return *text == '\0';
}

/* "2", "1.5": thousandths, three decimals at most. */
static bool factor_parse(const char *text, uint64_t *factor_milli)
{
    char whole[8];
    uint64_t factor = 0;
    const size_t size = strcspn(text, ".");
    if (size >= sizeof(whole)) {
        return false;
    }
    memcpy(whole, text, size);
    whole[size] = '\0';
    if (!count_parse(whole, &factor)) {
        return false;
    }
    factor *= FACTOR_UNIT;
    if (text[size] == '.') {
        uint64_t weight = FACTOR_UNIT / 10;
        const char *digit = text + size + 1;
        if (*digit == '\0') {
            return false;
        }
        for (; *digit >= '0' && *digit <= '9' && weight > 0; digit++, weight /= 10) {
            factor += (uint64_t)(*digit - '0') * weight;
        }
        if (*digit != '\0') {
            return false;
        }
    }
    *factor_milli = factor;
    return true;
}

static bool number_parse(const struct key_rule *rule, const char *text, uint64_t *number)
{
    uint64_t value = 0;
    bool is_number = false;
    switch (rule->type) {
    case TYPE_COUNT:
    case TYPE_EXITS:
        is_number = count_parse(text, &value);
        break;
    case TYPE_SPAN:
        is_number = span_parse(text, &value);
        break;
    case TYPE_SIZE:
        is_number = size_parse(text, &value);
        break;
    case TYPE_FACTOR:
        is_number = factor_parse(text, &value);
        break;
    case TYPE_TEXT:
    case TYPE_POOL:
    case TYPE_WORDS:
        break;
    }
    if (!is_number || value < rule->min || value > rule->max) {
        return false;
    }
    *number = value;
    return true;
}

static void out_of_memory(struct runner_config *config, uint32_t line)
{
    conf_add_mistake(config->mistakes, line, "memory is out");
}

/* ---- settings ---- */

static void set_text(struct runner_config *config, enum key key, const struct conf_setting *setting)
{
    char **field = key == KEY_BROKER ? &config->broker : &config->name;
    free(*field);
    *field = strdup(setting->values[0]);
    if (*field == NULL) {
        out_of_memory(config, setting->line);
    }
}

static void set_command(struct runner_config *config, const struct conf_setting *setting)
{
    char **command = calloc(setting->value_count + 1, sizeof(*command));
    bool is_whole = command != NULL;
    for (size_t i = 0; i < setting->value_count && is_whole; i++) {
        command[i] = strdup(setting->values[i]);
        is_whole = command[i] != NULL;
    }
    if (!is_whole) {
        out_of_memory(config, setting->line);
    }
    config->handler->command = command;
}

static bool set_exits(struct runner_config *config, const struct conf_setting *setting)
{
    config->handler->has_permanent_exit = true;
    for (size_t i = 0; i < setting->value_count; i++) {
        uint64_t status = 0;
        if (!number_parse(&rules[KEY_PERMANENT_EXIT], setting->values[i], &status)) {
            return false;
        }
        config->handler->is_permanent_exit[status] = true;
    }
    return setting->value_count > 0;
}

/* Where the number of a key goes. */
static uint64_t *number_of(struct runner_config *config, enum key key)
{
    if (key >= KEY_POLICY) {
        return config->place == PLACE_TOP ? &config->policy[key - KEY_POLICY]
                                          : &config->handler->policy[key - KEY_POLICY];
    }
    if (key == KEY_SLOTS) {
        return &config->slots;
    }
    return key == KEY_MEMORY_MAX ? &config->memory_max : &config->drain_ms;
}

static bool is_endpoint(const char *text)
{
    return (strncmp(text, "ipc://", 6) == 0 || strncmp(text, "tcp://", 6) == 0) && text[6] != '\0';
}

/* False: the value is not what was expected. */
static bool set(struct runner_config *config, enum key key, const struct conf_setting *setting)
{
    const struct key_rule *rule = &rules[key];
    const bool takes_list = rule->type == TYPE_WORDS || rule->type == TYPE_EXITS;
    if (setting->is_list != takes_list) {
        return false;
    }
    switch (rule->type) {
    case TYPE_TEXT:
        if (strlen(setting->values[0]) < rule->min || strlen(setting->values[0]) > rule->max ||
            (key == KEY_BROKER && !is_endpoint(setting->values[0]))) {
            return false;
        }
        set_text(config, key, setting);
        return true;
    case TYPE_POOL:
        config->is_threaded = strcmp(setting->values[0], "threads") == 0;
        return config->is_threaded || strcmp(setting->values[0], "processes") == 0;
    case TYPE_WORDS:
        if (setting->value_count == 0 || setting->values[0][0] == '\0') {
            return false;
        }
        set_command(config, setting);
        return true;
    case TYPE_EXITS:
        return set_exits(config, setting);
    case TYPE_COUNT:
    case TYPE_SPAN:
    case TYPE_SIZE:
    case TYPE_FACTOR:
        return number_parse(rule, setting->values[0], number_of(config, key));
    }
    return false;
}

static void tell_of_unknown(struct runner_config *config, const struct conf_setting *setting)
{
    const char *names[KEY_COUNT];
    char quoted[QUOTED_SIZE];
    size_t count = 0;
    for (int key = 0; key < KEY_COUNT; key++) {
        if ((rules[key].place & config->place) != 0) {
            names[count++] = rules[key].name;
        }
    }
    const char *guess = conf_guess(setting->name, names, count);
    const char *where = config->place == PLACE_HANDLER ? " of a handler" : "";
    if (config->place == PLACE_PLUGIN) {
        conf_add_mistake(config->mistakes, setting->line, "%s: a plugin has no keys; expected }",
                         quote(quoted, setting->name));
    } else if (guess != NULL) {
        conf_add_mistake(config->mistakes, setting->line, "%s: no such key%s; did you mean %s?",
                         quote(quoted, setting->name), where, guess);
    } else {
        conf_add_mistake(config->mistakes, setting->line,
                         "%s: no such key%s; expected one of treadle-work(1)",
                         quote(quoted, setting->name), where);
    }
}

static enum key key_find(const struct runner_config *config, const char *name)
{
    int key = 0;
    while (key < KEY_COUNT &&
           !(strcmp(rules[key].name, name) == 0 && ((rules[key].place & config->place) != 0))) {
        key++;
    }
    return (enum key)key;
}

static void on_setting(void *context, const struct conf_setting *setting)
{
    struct runner_config *config = context;
    const enum key key = key_find(config, setting->name);
    uint32_t *lines = config->place == PLACE_TOP ? config->top_lines : config->lines;
    char quoted[QUOTED_SIZE];
    if (key == KEY_COUNT) {
        tell_of_unknown(config, setting);
        return;
    }
    if (lines[key] != 0) {
        conf_add_mistake(config->mistakes, setting->line,
                         "%s stands in line %u already; expected it once", setting->name,
                         lines[key]);
        return;
    }
    lines[key] = setting->line;
    if (config->place == PLACE_HANDLER && config->handler == NULL) {
        return;
    }
    if (!set(config, key, setting)) {
        const bool shows_value = !setting->is_list && setting->value_count == 1;
        conf_add_mistake(config->mistakes, setting->line, "%s: %s; expected %s", setting->name,
                         shows_value ? quote(quoted, setting->values[0])
                                     : "a list that does not fit",
                         rules[key].expected);
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

static void on_section(void *context, uint32_t line, const char *name, const char *title)
{
    struct runner_config *config = context;
    char quoted[QUOTED_SIZE];
    memset(config->lines, 0, sizeof(config->lines));
    config->handler = NULL;
    config->place = PLACE_HANDLER;
    if (strcmp(name, "handler") == 0) {
        begin_handler(config, line, title);
    } else if (strcmp(name, "plugin") == 0) {
        config->place = PLACE_PLUGIN;
        begin_plugin(config, line, title);
    } else {
        static const char *const names[] = {"handler", "plugin"};
        const char *guess = conf_guess(name, names, 2);
        conf_add_mistake(config->mistakes, line, "%s: no such section; %s %s", quote(quoted, name),
                         guess != NULL ? "did you mean" : "expected",
                         guess != NULL ? guess : "handler or plugin");
    }
}

static void on_section_end(void *context)
{
    struct runner_config *config = context;
    config->place = PLACE_TOP;
    config->handler = NULL;
}

/* ---- the whole ---- */

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
        }
    }
    if (config->handler_count == 0 && config->plugin_count == 0) {
        conf_add_mistake(config->mistakes, 0,
                         "nothing to serve; expected handler \"SERVICE.TASK\" "
                         "{ ... } or plugin \"FILE.so\" { }");
    }
}

struct runner_config *runner_config_read(const char *path, struct conf_mistakes *mistakes)
{
    struct runner_config *config = calloc(1, sizeof(*config));
    if (config == NULL) {
        return NULL;
    }
    const struct conf_reader reader = {config, on_setting, on_section, on_section_end};
    config->mistakes = mistakes;
    config->place = PLACE_TOP;
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
        char **command = config->handlers[i].command;
        for (size_t j = 0; command != NULL && command[j] != NULL; j++) {
            free(command[j]);
        }
        free(command);
        free(config->handlers[i].pattern);
    }
    for (size_t i = 0; i < config->plugin_count; i++) {
        free(config->plugins[i]);
    }
    free(config->broker);
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
