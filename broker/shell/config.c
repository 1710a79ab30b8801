/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/config.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/core.h"
#include "broker/shell/endpoint.h"
#include "broker/shell/log_sinks.h"
#include "common/base/assert.h"
#include "common/base/size.h"
#include "common/base/span.h"

#define KIB         (UINT64_C(1) << 10)
#define MIB         (UINT64_C(1) << 20)
#define GIB         (UINT64_C(1) << 30)
#define TIB         (UINT64_C(1) << 40)
#define SECOND      UINT64_C(1000)
#define MINUTE      (60 * SECOND)
#define HOUR        (60 * MINUTE)
#define DAY         (24 * HOUR)
#define YEARS_10    SPAN_MAX_MS
#define NOT_GIVEN   0
#define FACTOR_UNIT 1000U /* a factor is kept in thousandths */
#define SILENCE_MAX (10 * MINUTE)
#define GUESS_MAX   3U /* letters that may differ from the name that was meant */
#define NAME_SIZE   32U
#define QUOTED_SIZE 80

enum value_type {
    TYPE_COUNT,
    TYPE_SPAN,
    TYPE_SIZE,
    TYPE_FACTOR,
    TYPE_FLAG,
    TYPE_LEVEL,
    TYPE_FORMAT,
    TYPE_ENDPOINTS,
    TYPE_PATH,
};

enum reload { FIXED, RELOADED };

struct key_rule {
    const char *name;
    enum value_type type;
    enum reload reload;
    uint64_t min;
    uint64_t max;
    uint64_t preset;
};

static const struct key_rule rules[CONFIG_KEY_COUNT] = {
/* NOLINTNEXTLINE(bugprone-macro-parentheses): an initializer */
#define KEY(NAME, name, type, min, max, preset, reload, help)                                      \
    [CONFIG_##NAME] = {#name, TYPE_##type, reload, min, max, preset},
#include "broker/shell/config.def"
};

static const char *const format_names[CONFIG_FORMAT_COUNT] = {"auto", "text", "json", "journal"};

static const struct {
    enum config_key key;
    enum policy_field field;
} policy_keys[] = {
    {CONFIG_ATTEMPTS, POLICY_ATTEMPTS_MAX},
    {CONFIG_BACKOFF_BASE, POLICY_BACKOFF_BASE},
    {CONFIG_BACKOFF_FACTOR, POLICY_BACKOFF_FACTOR},
    {CONFIG_BACKOFF_MAX, POLICY_BACKOFF_MAX},
    {CONFIG_TIMEOUT, POLICY_TIMEOUT},
    {CONFIG_PROGRESS_TIMEOUT, POLICY_PROGRESS_TIMEOUT},
    {CONFIG_GRACE, POLICY_GRACE},
    {CONFIG_QUEUE_TIMEOUT, POLICY_QUEUE_TIMEOUT},
    {CONFIG_DEADLINE, POLICY_DEADLINE},
    {CONFIG_RESULT_TTL, POLICY_RESULT_TTL},
    {CONFIG_CRASH_LIMIT, POLICY_CRASH_LIMIT},
    {CONFIG_LOST_LIMIT, POLICY_LOST_LIMIT},
};

void config_init(struct config *config)
{
    *config = (struct config){.listen_count = 0};
    for (int key = 0; key < CONFIG_KEY_COUNT; key++) {
        config->value[key] = rules[key].preset;
    }
}

/* ---- names ---- */

const char *config_key_name(enum config_key key)
{
    TREADLE_ASSERT(key < CONFIG_KEY_COUNT);
    return rules[key].name;
}

bool config_key_is_list(enum config_key key)
{
    TREADLE_ASSERT(key < CONFIG_KEY_COUNT);
    return rules[key].type == TYPE_ENDPOINTS;
}

enum config_key config_key_find(const char *name, size_t size)
{
    for (int key = 0; key < CONFIG_KEY_COUNT; key++) {
        if (strlen(rules[key].name) == size && memcmp(rules[key].name, name, size) == 0) {
            return (enum config_key)key;
        }
    }
    return CONFIG_KEY_COUNT;
}

/* How many letters must be put in, left out or changed to make one name of the other. */
static size_t distance(const char *left, size_t left_size, const char *right, size_t right_size)
{
    size_t row[NAME_SIZE + 1];
    TREADLE_ASSERT(left_size <= NAME_SIZE && right_size <= NAME_SIZE);
    for (size_t i = 0; i <= right_size; i++) {
        row[i] = i;
    }
    for (size_t i = 1; i <= left_size; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= right_size; j++) {
            const size_t changed = diagonal + (left[i - 1] == right[j - 1] ? 0 : 1);
            const size_t added = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = changed < added ? changed : added;
        }
    }
    return row[right_size];
}

const char *config_key_guess(const char *name, size_t size)
{
    const char *guess = NULL;
    size_t least = GUESS_MAX + 1;
    if (size == 0 || size > NAME_SIZE) {
        return NULL;
    }
    for (int key = 0; key < CONFIG_KEY_COUNT; key++) {
        const size_t differing = distance(name, size, rules[key].name, strlen(rules[key].name));
        if (differing < least && differing < size) {
            least = differing;
            guess = rules[key].name;
        }
    }
    return guess;
}

/* ---- values ---- */

static void print_value(const struct key_rule *rule, uint64_t value, char *out, size_t out_size)
{
    switch (rule->type) {
    case TYPE_SPAN:
        (void)span_print(out, out_size, value);
        return;
    case TYPE_SIZE:
        (void)size_print(out, out_size, value);
        return;
    case TYPE_FACTOR:
        (void)snprintf(out, out_size, "%g", (double)value / FACTOR_UNIT);
        return;
    case TYPE_FLAG:
        (void)snprintf(out, out_size, "%s", value != 0 ? "true" : "false");
        return;
    case TYPE_LEVEL:
        (void)snprintf(out, out_size, "%s", log_level_text((enum log_level)value));
        return;
    case TYPE_FORMAT:
        (void)snprintf(out, out_size, "%s", format_names[value]);
        return;
    case TYPE_COUNT:
    case TYPE_ENDPOINTS:
    case TYPE_PATH:
        break;
    }
    (void)snprintf(out, out_size, "%" PRIu64, value);
}

void config_print_expected(enum config_key key, char *out, size_t out_size)
{
    const struct key_rule *rule = &rules[key];
    char min[SPAN_TEXT_SIZE];
    char max[SPAN_TEXT_SIZE];
    const char *what = "a whole number";
    const char *example = "";
    if (rule->type == TYPE_FLAG) {
        (void)snprintf(out, out_size, "true or false");
        return;
    }
    if (rule->type == TYPE_LEVEL) {
        (void)snprintf(out, out_size, "debug, info, warn or error");
        return;
    }
    if (rule->type == TYPE_FORMAT) {
        (void)snprintf(out, out_size, "auto, text, json or journal");
        return;
    }
    if (rule->type == TYPE_ENDPOINTS) {
        (void)snprintf(out, out_size, "{\"ENDPOINT\", ...} of ipc:///PATH or tcp://HOST:PORT");
        return;
    }
    if (rule->type == TYPE_PATH) {
        (void)snprintf(out, out_size, "the name of a file");
        return;
    }
    if (rule->type == TYPE_SPAN) {
        what = "a span";
        example = ", such as 500ms, 30s or 5m";
    } else if (rule->type == TYPE_SIZE) {
        what = "a size";
        example = ", such as 64KiB, 4MiB or 1GiB";
    } else if (rule->type == TYPE_FACTOR) {
        what = "a factor";
        example = ", such as 2 or 1.5";
    }
    print_value(rule, rule->min, min, sizeof min);
    print_value(rule, rule->max, max, sizeof max);
    (void)snprintf(out, out_size, "%s from %s to %s%s", what, min, max, example);
}

/* A whole number; digits only. */
static bool parse_count(const char *text, uint64_t *count)
{
    uint64_t number = 0;
    for (const char *next = text; *next != '\0'; next++) {
        if (*next < '0' || *next > '9' || number > (UINT64_MAX - 9) / 10) {
            return false;
        }
        number = number * 10 + (uint64_t)(*next - '0');
    }
    *count = number;
    return text[0] != '\0';
}

/* "2", "1.5", "1.125": in thousandths. */
static bool parse_factor(const char *text, uint64_t *factor)
{
    char whole[16];
    const char *point = strchr(text, '.');
    const size_t whole_size = point == NULL ? strlen(text) : (size_t)(point - text);
    uint64_t thousandths = 0;
    uint64_t units = 0;
    if (whole_size >= sizeof whole) {
        return false;
    }
    memcpy(whole, text, whole_size);
    whole[whole_size] = '\0';
    if (point != NULL) {
        const size_t size = strlen(point + 1);
        if (size > 3 || !parse_count(point + 1, &thousandths)) {
            return false;
        }
        for (size_t i = size; i < 3; i++) {
            thousandths *= 10;
        }
    }
    if (!parse_count(whole, &units) || units > UINT32_MAX) {
        return false;
    }
    *factor = units * FACTOR_UNIT + thousandths;
    return true;
}

static bool parse_flag(const char *text, uint64_t *flag)
{
    *flag = strcmp(text, "true") == 0 ? 1 : 0;
    return *flag == 1 || strcmp(text, "false") == 0;
}

static bool parse_format(const char *text, uint64_t *format)
{
    for (uint64_t i = 0; i < CONFIG_FORMAT_COUNT; i++) {
        if (strcmp(text, format_names[i]) == 0) {
            *format = i;
            return true;
        }
    }
    return false;
}

static bool parse_level(const char *text, uint64_t *value)
{
    enum log_level level = LOG_LEVEL_INFO;
    if (!log_level_parse(text, &level)) {
        return false;
    }
    *value = level;
    return true;
}

static bool parse_value(enum value_type type, const char *text, uint64_t *value)
{
    switch (type) {
    case TYPE_COUNT:
        return parse_count(text, value);
    case TYPE_SPAN:
        return span_parse(text, value);
    case TYPE_SIZE:
        return size_parse(text, value);
    case TYPE_FACTOR:
        return parse_factor(text, value);
    case TYPE_FLAG:
        return parse_flag(text, value);
    case TYPE_LEVEL:
        return parse_level(text, value);
    case TYPE_FORMAT:
        return parse_format(text, value);
    case TYPE_ENDPOINTS:
    case TYPE_PATH:
        break;
    }
    return false;
}

bool config_take_endpoint(struct config *config, const char *text)
{
    const uint32_t index = config->listen_count;
    const size_t size = strcspn(text, " ");
    const char *key = text + size + strspn(text + size, " ");
    if (index == ENDPOINT_COUNT_MAX || size >= CONFIG_ENDPOINT_SIZE ||
        strlen(key) >= CONFIG_PATH_SIZE) {
        return false;
    }
    memcpy(config->listen[index], text, size);
    config->listen[index][size] = '\0';
    memcpy(config->listen_key[index], key, strlen(key) + 1);
    config->listen_count++;
    return true;
}

const char *config_server_key(const struct config *config, uint32_t index)
{
    TREADLE_ASSERT(index < config->listen_count);
    if (endpoint_kind(config->listen[index]) == ENDPOINT_IPC) {
        return "";
    }
    return config->listen_key[index][0] != '\0' ? config->listen_key[index] : config->server_key;
}

static bool add_endpoint(struct config *config, const char *text, uint32_t line, char *why)
{
    char quoted[QUOTED_SIZE];
    char endpoint[CONFIG_ENDPOINT_SIZE] = "";
    const size_t size = strcspn(text, " ");
    const bool is_short = size < sizeof endpoint && strlen(text) - size < CONFIG_PATH_SIZE;
    if (is_short) {
        memcpy(endpoint, text, size);
    }
    const char *expected = is_short ? endpoint_mistake(endpoint) : NULL;
    if (expected != NULL || !is_short) {
        (void)snprintf(why, CONFIG_TEXT_SIZE, "listen: %s is not an endpoint; expected %s",
                       log_quote(quoted, sizeof quoted, text, strlen(text)),
                       expected == NULL ? "less than 256 bytes" : expected);
        return false;
    }
    if (config->listen_count == ENDPOINT_COUNT_MAX) {
        (void)snprintf(why, CONFIG_TEXT_SIZE,
                       "listen: one endpoint too many; expected at most %u of them",
                       ENDPOINT_COUNT_MAX);
        return false;
    }
    if (endpoint_kind(endpoint) == ENDPOINT_IPC && text[size] != '\0') {
        (void)snprintf(why, CONFIG_TEXT_SIZE, "listen: ipc takes no key; expected %s alone",
                       endpoint);
        return false;
    }
    (void)config_take_endpoint(config, text); /* it fits */
    config->line[CONFIG_LISTEN] = line;
    return true;
}

static char *path_of(struct config *config, enum config_key key)
{
    return key == CONFIG_SERVER_KEY ? config->server_key : config->principals;
}

static bool set_path(struct config *config, enum config_key key, const char *text, uint32_t line,
                     char *why)
{
    const size_t size = strlen(text);
    if (size == 0 || size >= CONFIG_PATH_SIZE) {
        (void)snprintf(why, CONFIG_TEXT_SIZE, "%s: %s; expected the name of a file",
                       rules[key].name, size == 0 ? "no name" : "the name is too long");
        return false;
    }
    memcpy(path_of(config, key), text, size + 1);
    config->line[key] = line;
    return true;
}

bool config_set(struct config *config, enum config_key key, const char *text, uint32_t line,
                char *why)
{
    const struct key_rule *rule = &rules[key];
    char quoted[QUOTED_SIZE];
    char expected[CONFIG_TEXT_SIZE / 2];
    uint64_t value = 0;
    if (rule->type == TYPE_ENDPOINTS) {
        return add_endpoint(config, text, line, why);
    }
    if (rule->type == TYPE_PATH) {
        return set_path(config, key, text, line, why);
    }
    const char *mistake = NULL;
    if (!parse_value(rule->type, text, &value)) {
        mistake = "is not understood";
    } else if (value < rule->min) {
        mistake = "is too small";
    } else if (value > rule->max) {
        mistake = "is too large";
    }
    if (mistake != NULL) {
        config_print_expected(key, expected, sizeof expected);
        (void)snprintf(why, CONFIG_TEXT_SIZE, "%s: %s %s; expected %s", rule->name,
                       log_quote(quoted, sizeof quoted, text, strlen(text)), mistake, expected);
        return false;
    }
    config->value[key] = value;
    config->line[key] = line;
    return true;
}

/* ---- mistakes ---- */

void config_add_mistake(struct config_mistakes *mistakes, uint32_t line, const char *format, ...)
{
    char text[CONFIG_TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (uint32_t i = 0; i < mistakes->count && i < CONFIG_MISTAKES_MAX; i++) {
        if (mistakes->at[i].line == line && strcmp(mistakes->at[i].text, text) == 0) {
            return; /* a line is read again after a list that was not closed */
        }
    }
    mistakes->count++;
    if (mistakes->count > CONFIG_MISTAKES_MAX) {
        return;
    }
    uint32_t place = mistakes->count - 1;
    for (; place > 0 && mistakes->at[place - 1].line > line; place--) {
        mistakes->at[place] = mistakes->at[place - 1];
    }
    mistakes->at[place].line = line;
    memcpy(mistakes->at[place].text, text, sizeof text);
}

void config_print_mistake(char *out, size_t out_size, const char *path,
                          const struct config_mistake *mistake)
{
    if (mistake->line == 0) {
        (void)snprintf(out, out_size, "%s: %s", path, mistake->text);
    } else if (mistake->line == CONFIG_LINE_GIVEN) {
        (void)snprintf(out, out_size, "%s", mistake->text);
    } else {
        (void)snprintf(out, out_size, "%s:%" PRIu32 ": %s", path, mistake->line, mistake->text);
    }
}

/* ---- what does not go together ---- */

struct pair {
    enum config_key smaller;
    enum config_key greater;
    const char *why;
};

/* 0 stands for "none" in a greater one. */
static const struct pair pairs[] = {
    {CONFIG_MAX_BODY, CONFIG_MAX_TASK_BYTES, "one body would not fit"},
    {CONFIG_MAX_BODY, CONFIG_MEMORY_MAX, "one body would not fit"},
    {CONFIG_MAX_TASK_BYTES, CONFIG_MEMORY_MAX, "the bodies would not fit"},
    {CONFIG_SETTLED_BYTES, CONFIG_MEMORY_MAX, "the results would not fit"},
    {CONFIG_BACKOFF_BASE, CONFIG_BACKOFF_MAX, "the first backoff would be over the greatest"},
    {CONFIG_PROGRESS_TIMEOUT, CONFIG_TIMEOUT, "it could never pass"},
    {CONFIG_QUEUE_TIMEOUT, CONFIG_DEADLINE, "it could never pass"},
};

/* Of two keys that do not go together, the line that stands further down. */
static uint32_t line_of(const struct config *config, enum config_key left, enum config_key right)
{
    const uint32_t left_line = config->line[left];
    const uint32_t right_line = config->line[right];
    return left_line > right_line ? left_line : right_line;
}

/* What holds if a policy's key is not given. */
static uint64_t effective(const struct config *config, enum config_key key)
{
    if (config->line[key] == CONFIG_LINE_DEFAULT && rules[key].preset == NOT_GIVEN) {
        for (size_t i = 0; i < sizeof policy_keys / sizeof policy_keys[0]; i++) {
            if (policy_keys[i].key == key) {
                return core_policy_default(policy_keys[i].field);
            }
        }
    }
    return config->value[key];
}

static void check_pairs(const struct config *config, struct config_mistakes *mistakes)
{
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        const struct pair *pair = &pairs[i];
        const uint64_t smaller = effective(config, pair->smaller);
        const uint64_t greater = effective(config, pair->greater);
        const uint32_t line = line_of(config, pair->smaller, pair->greater);
        if (greater == 0 || smaller <= greater || line == CONFIG_LINE_DEFAULT) {
            continue;
        }
        char left[SPAN_TEXT_SIZE];
        char right[SPAN_TEXT_SIZE];
        print_value(&rules[pair->smaller], smaller, left, sizeof left);
        print_value(&rules[pair->greater], greater, right, sizeof right);
        config_add_mistake(mistakes, line, "%s = %s is over %s = %s: %s; expected at most %s",
                           rules[pair->smaller].name, left, rules[pair->greater].name, right,
                           pair->why, right);
    }
}

static void check_silence(const struct config *config, struct config_mistakes *mistakes)
{
    const uint64_t silence_ms = config->value[CONFIG_HEARTBEAT] * config->value[CONFIG_LIVENESS];
    char silence[SPAN_TEXT_SIZE];
    (void)span_print(silence, sizeof silence, silence_ms);
    if (silence_ms > SILENCE_MAX) {
        config_add_mistake(mistakes, line_of(config, CONFIG_HEARTBEAT, CONFIG_LIVENESS),
                           "heartbeat times liveness is %s: a dead peer would keep its tasks as "
                           "long; expected at most 10m",
                           silence);
    }
    if (config->value[CONFIG_RESUME_GRACE] > silence_ms) {
        const uint32_t beat = line_of(config, CONFIG_HEARTBEAT, CONFIG_LIVENESS);
        const uint32_t grace = config->line[CONFIG_RESUME_GRACE];
        config_add_mistake(mistakes, beat > grace ? beat : grace,
                           "resume_grace is over heartbeat times liveness, when the session ends "
                           "anyway; expected at most %s",
                           silence);
    }
}

/* Keys let in whom the principals name, and nobody else. */
static void check_keys(const struct config *config, struct config_mistakes *mistakes)
{
    if (config->server_key[0] != '\0' && config->value[CONFIG_INSECURE] != 0) {
        config_add_mistake(mistakes, line_of(config, CONFIG_SERVER_KEY, CONFIG_INSECURE),
                           "insecure and server_key contradict each other; expected one of them");
    }
    for (uint32_t i = 0; i < config->listen_count; i++) {
        if (config_server_key(config, i)[0] != '\0' && config->principals[0] == '\0') {
            config_add_mistake(mistakes, config->line[CONFIG_LISTEN],
                               "listen: %s has a server key, but nobody may come in; expected "
                               "principals = FILE beside it",
                               config->listen[i]);
        }
    }
}

/* Endpoints of flags are looked at when they are bound, with the words of flags. */
static void check_endpoints(const struct config *config, const struct config_source *source,
                            struct config_mistakes *mistakes)
{
    const uint32_t line = config->line[CONFIG_LISTEN];
    for (uint32_t i = 0; i < config->listen_count && line != CONFIG_LINE_GIVEN; i++) {
        const char *endpoint = config->listen[i];
        const enum endpoint_kind kind = endpoint_kind(endpoint);
        const bool is_plain = config_server_key(config, i)[0] == '\0';
        if (kind == ENDPOINT_TCP && is_plain) {
            config_add_mistake(mistakes, line,
                               "listen: %s: TCP without keys is refused off the loopback; expected "
                               "server_key and principals beside it, tcp://127.0.0.1:PORT or "
                               "ipc:///PATH",
                               endpoint);
        } else if (kind == ENDPOINT_LOOPBACK && is_plain && config->value[CONFIG_INSECURE] == 0 &&
                   !source->is_dev) {
            config_add_mistake(mistakes, line,
                               "listen: %s: TCP without keys lets in every user of this machine; "
                               "expected server_key and principals beside it, ipc:///PATH, or "
                               "insecure = true",
                               endpoint);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(endpoint, config->listen[j]) == 0 && strchr(endpoint, '*') == NULL) {
                config_add_mistake(mistakes, line,
                                   "listen: %s stands there twice; expected it once", endpoint);
            }
        }
    }
}

/* ---- the whole ---- */

static void take_given(struct config *config, const struct config *given)
{
    for (int key = 0; key < CONFIG_KEY_COUNT; key++) {
        if (given->line[key] != CONFIG_LINE_DEFAULT) {
            config->value[key] = given->value[key];
            config->line[key] = given->line[key];
        }
    }
    if (given->line[CONFIG_SERVER_KEY] != CONFIG_LINE_DEFAULT) {
        memcpy(config->server_key, given->server_key, sizeof config->server_key);
    }
    if (given->line[CONFIG_PRINCIPALS] != CONFIG_LINE_DEFAULT) {
        memcpy(config->principals, given->principals, sizeof config->principals);
    }
    if (given->listen_count > 0) {
        memcpy(config->listen, given->listen, sizeof config->listen);
        memcpy(config->listen_key, given->listen_key, sizeof config->listen_key);
        config->listen_count = given->listen_count;
    }
}

/* A name in a file is meant from that file's folder. */
static void resolve_path(char name[CONFIG_PATH_SIZE], const char *file, uint32_t line,
                         struct config_mistakes *mistakes)
{
    char whole[CONFIG_PATH_SIZE];
    const char *slash = strrchr(file, '/');
    if (name[0] == '\0' || name[0] == '/' || slash == NULL) {
        return;
    }
    const int size = snprintf(whole, sizeof whole, "%.*s/%s", (int)(slash - file), file, name);
    if (size < 0 || (size_t)size >= sizeof whole) {
        config_add_mistake(mistakes, line, "a name too long; expected less than %d bytes",
                           CONFIG_PATH_SIZE);
        return;
    }
    memcpy(name, whole, (size_t)size + 1);
}

static void resolve_paths(struct config *config, const char *file, struct config_mistakes *mistakes)
{
    resolve_path(config->server_key, file, config->line[CONFIG_SERVER_KEY], mistakes);
    resolve_path(config->principals, file, config->line[CONFIG_PRINCIPALS], mistakes);
    for (uint32_t i = 0; i < config->listen_count; i++) {
        resolve_path(config->listen_key[i], file, config->line[CONFIG_LISTEN], mistakes);
    }
}

bool config_load(struct config *config, const struct config_source *source,
                 struct config_mistakes *mistakes)
{
    *mistakes = (struct config_mistakes){.count = 0};
    config_init(config);
    if (source->is_dev) {
        config->value[CONFIG_LOG_LEVEL] = LOG_LEVEL_WARN; /* what happens is told as sentences */
    }
    if (source->path != NULL) {
        config_read_file(config, source->path, mistakes);
        resolve_paths(config, source->path, mistakes);
    }
    take_given(config, &source->given);
    check_pairs(config, mistakes);
    check_silence(config, mistakes);
    check_endpoints(config, source, mistakes);
    check_keys(config, mistakes);
    return mistakes->count == 0;
}

void config_to_policy(const struct config *config, struct policy_fields *policy)
{
    *policy = (struct policy_fields){.value = {0}};
    for (size_t i = 0; i < sizeof policy_keys / sizeof policy_keys[0]; i++) {
        policy->value[policy_keys[i].field] = config->value[policy_keys[i].key];
    }
}

static uint32_t count_of(const struct config *config, enum config_key key)
{
    TREADLE_ASSERT(config->value[key] <= UINT32_MAX);
    return (uint32_t)config->value[key];
}

/* What the core keeps beside tasks, sessions and services grows with them as the defaults do. */
void config_to_core(const struct config *config, struct core_config *core)
{
    const uint32_t task_count = count_of(config, CONFIG_MAX_TASKS);
    const uint32_t session_count = count_of(config, CONFIG_MAX_SESSIONS);
    core_config_init(core);
    core->task_count_max = task_count;
    core->attempt_count_max = task_count > 1024 ? task_count : 1024;
    core->watch_count_max = task_count + task_count / 5 + 1024;
    core->settled_count_max = count_of(config, CONFIG_SETTLED_MAX);
    core->remembered_count_max = count_of(config, CONFIG_DEDUP_MAX);
    core->session_count_max = session_count;
    core->connection_count_max = session_count + session_count / 2 + 1384;
    core->service_count_max = count_of(config, CONFIG_MAX_SERVICES);
    core->queue_count_max = 8 * core->service_count_max;
    core->byte_max = config->value[CONFIG_MAX_TASK_BYTES];
    core->settled_byte_max = config->value[CONFIG_SETTLED_BYTES];
    core->body_size_max = config->value[CONFIG_MAX_BODY];
    core->entry_count_max = count_of(config, CONFIG_MAX_ENTRIES);
    core->heartbeat_ms = config->value[CONFIG_HEARTBEAT];
    core->liveness = count_of(config, CONFIG_LIVENESS);
    core->resume_grace_ms = config->value[CONFIG_RESUME_GRACE];
    core->dedup_window_ms = config->value[CONFIG_DEDUP_WINDOW];
    core->dead_letter_ttl_ms = config->value[CONFIG_DEAD_LETTER_TTL];
    config_to_policy(config, &core->broker_policy);
}

log_sink *config_to_sink(const struct config *config, const struct config_source *source)
{
    switch ((enum config_format)config->value[CONFIG_LOG_FORMAT]) {
    case CONFIG_FORMAT_AUTO:
        return source->is_stderr_journal ? log_journal : log_text;
    case CONFIG_FORMAT_JSON:
        return log_json;
    case CONFIG_FORMAT_JOURNAL:
        return log_journal;
    case CONFIG_FORMAT_TEXT:
    case CONFIG_FORMAT_COUNT:
        break;
    }
    return log_text;
}

static bool is_same(const struct config *left, const struct config *right, enum config_key key)
{
    if (key == CONFIG_SERVER_KEY) {
        return strcmp(left->server_key, right->server_key) == 0;
    }
    if (key == CONFIG_PRINCIPALS) {
        return strcmp(left->principals, right->principals) == 0;
    }
    if (!config_key_is_list(key)) {
        return left->value[key] == right->value[key];
    }
    if (left->listen_count != right->listen_count) {
        return false;
    }
    for (uint32_t i = 0; i < left->listen_count; i++) {
        if (strcmp(left->listen[i], right->listen[i]) != 0 ||
            strcmp(left->listen_key[i], right->listen_key[i]) != 0) {
            return false;
        }
    }
    return true;
}

uint32_t config_take_reloaded(struct config *config, const struct config *fresh)
{
    uint32_t count = 0;
    for (int i = 0; i < CONFIG_KEY_COUNT; i++) {
        const enum config_key key = (enum config_key)i;
        if (is_same(config, fresh, key)) {
            continue;
        }
        if (rules[key].reload == FIXED) {
            log_warn("config.fixed", "key=%s reason=\"it changes at the next start only\"",
                     rules[key].name);
            continue;
        }
        config->value[key] = fresh->value[key];
        config->line[key] = fresh->line[key];
        if (key == CONFIG_PRINCIPALS) {
            memcpy(config->principals, fresh->principals, sizeof config->principals);
        }
        count++;
    }
    return count;
}
