/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/config.h"

#include <stdio.h>
#include <string.h>

#include "broker/core/core.h"
#include "broker/shell/endpoint.h"
#include "broker/shell/log_sinks.h"
#include "common/base/assert.h"
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
#define SILENCE_MAX (10 * MINUTE)
#define QUOTED_SIZE 80

/* What the types of config.def are in the file. */
#define AS_COUNT  .type = CONF_COUNT
#define AS_SPAN   .type = CONF_SPAN
#define AS_SIZE   .type = CONF_SIZE
#define AS_FACTOR .type = CONF_FACTOR
#define AS_FLAG   .type = CONF_WORD, .words = flag_names, .expected = "true or false"
#define AS_LEVEL  .type = CONF_WORD, .words = level_names
#define AS_FORMAT .type = CONF_WORD, .words = format_names
#define AS_ENDPOINTS                                                                               \
    .type = CONF_TEXT, .shape = CONF_ONE_OR_LIST,                                                  \
    .expected = "{\"ENDPOINT\", ...} of ipc:///PATH or tcp://HOST:PORT"
#define AS_PATH .type = CONF_TEXT, .expected = "the name of a file"

static const char *const flag_names[] = {"false", "true"};
static const char *const level_names[LOG_LEVEL_COUNT] = {"debug", "info", "warn", "error"};
static const char *const format_names[CONFIG_FORMAT_COUNT] = {"auto", "text", "json", "journal"};

static const struct conf_key keys[CONFIG_KEY_COUNT] = {
/* NOLINTNEXTLINE(bugprone-macro-parentheses): an initializer */
#define KEY(NAME, key, as, least, most, preset, reload, help)                                      \
    [CONFIG_##                                                                                     \
        NAME] = {.name = #key, .places = CONF_PLACE_TOP, .min = (least), .max = (most), AS_##as},
#include "broker/shell/config.def"
};

enum reload { FIXED, RELOADED };

static const struct {
    enum reload reload;
    uint64_t preset;
} rules[CONFIG_KEY_COUNT] = {
/* NOLINTNEXTLINE(bugprone-macro-parentheses): an initializer */
#define KEY(NAME, key, as, least, most, preset, reload, help) [CONFIG_##NAME] = {reload, preset},
#include "broker/shell/config.def"
};

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

/* ---- values ---- */

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
        (void)snprintf(why, CONF_TEXT_SIZE, "listen: %s is not an endpoint; expected %s",
                       log_quote(quoted, sizeof quoted, text, strlen(text)),
                       expected == NULL ? "less than 256 bytes" : expected);
        return false;
    }
    if (config->listen_count == ENDPOINT_COUNT_MAX) {
        (void)snprintf(why, CONF_TEXT_SIZE,
                       "listen: one endpoint too many; expected at most %u of them",
                       ENDPOINT_COUNT_MAX);
        return false;
    }
    if (endpoint_kind(endpoint) == ENDPOINT_IPC && text[size] != '\0') {
        (void)snprintf(why, CONF_TEXT_SIZE, "listen: ipc takes no key; expected %s alone",
                       endpoint);
        return false;
    }
    config->listen_lines[config->listen_count] = line;
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
        (void)snprintf(why, CONF_TEXT_SIZE, "%s: %s; expected the name of a file", keys[key].name,
                       size == 0 ? "no name" : "the name is too long");
        return false;
    }
    memcpy(path_of(config, key), text, size + 1);
    config->line[key] = line;
    return true;
}

bool config_set(struct config *config, enum config_key key, const char *text, uint32_t line,
                char *why)
{
    TREADLE_ASSERT(key < CONFIG_KEY_COUNT);
    if (key == CONFIG_LISTEN) {
        return add_endpoint(config, text, line, why);
    }
    if (keys[key].type == CONF_TEXT) {
        return set_path(config, key, text, line, why);
    }
    if (!conf_parse_value(&keys[key], text, &config->value[key], why)) {
        return false;
    }
    config->line[key] = line;
    return true;
}

/* ---- the file ---- */

struct reading {
    struct config *config;
    struct conf_mistakes *mistakes;
};

static void on_setting(void *context, const struct conf_setting *setting)
{
    const struct reading *reading = context;
    const enum config_key key = (enum config_key)setting->key;
    char why[CONF_TEXT_SIZE];
    for (size_t i = 0; i < setting->value_count; i++) {
        const uint32_t line = setting->value_lines[i];
        if (!config_set(reading->config, key, setting->values[i], line, why)) {
            conf_add_mistake(reading->mistakes, line, "%s", why);
        }
    }
    reading->config->line[key] = setting->line; /* it was given, be it good or not */
}

static void read_file(struct config *config, const char *path, struct conf_mistakes *mistakes)
{
    struct reading reading = {.config = config, .mistakes = mistakes};
    const struct conf_reader reader = {
        .keys = keys,
        .key_count = CONFIG_KEY_COUNT,
        .manual = "treadled.conf(5)",
        .context = &reading,
        .on_setting = on_setting,
    };
    conf_read(path, &reader, mistakes);
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

static void check_pairs(const struct config *config, struct conf_mistakes *mistakes)
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
        conf_print_value(&keys[pair->smaller], smaller, left, sizeof left);
        conf_print_value(&keys[pair->greater], greater, right, sizeof right);
        conf_add_mistake(mistakes, line, "%s = %s is over %s = %s: %s; expected at most %s",
                         keys[pair->smaller].name, left, keys[pair->greater].name, right, pair->why,
                         right);
    }
}

static void check_silence(const struct config *config, struct conf_mistakes *mistakes)
{
    const uint64_t silence_ms = config->value[CONFIG_HEARTBEAT] * config->value[CONFIG_LIVENESS];
    char silence[SPAN_TEXT_SIZE];
    (void)span_print(silence, sizeof silence, silence_ms);
    if (silence_ms > SILENCE_MAX) {
        conf_add_mistake(mistakes, line_of(config, CONFIG_HEARTBEAT, CONFIG_LIVENESS),
                         "heartbeat times liveness is %s: a dead peer would keep its tasks as "
                         "long; expected at most 10m",
                         silence);
    }
    if (config->value[CONFIG_RESUME_GRACE] > silence_ms) {
        const uint32_t beat = line_of(config, CONFIG_HEARTBEAT, CONFIG_LIVENESS);
        const uint32_t grace = config->line[CONFIG_RESUME_GRACE];
        conf_add_mistake(mistakes, beat > grace ? beat : grace,
                         "resume_grace is over heartbeat times liveness, when the session ends "
                         "anyway; expected at most %s",
                         silence);
    }
}

/* Those of flags stand in no line. */
static uint32_t line_of_endpoint(const struct config *config, uint32_t index)
{
    const bool is_given = config->line[CONFIG_LISTEN] == CONF_LINE_GIVEN;
    return is_given ? CONF_LINE_GIVEN : config->listen_lines[index];
}

/* Keys let in whom the principals name, and nobody else. */
static void check_keys(const struct config *config, struct conf_mistakes *mistakes)
{
    if (config->server_key[0] != '\0' && config->value[CONFIG_INSECURE] != 0) {
        conf_add_mistake(mistakes, line_of(config, CONFIG_SERVER_KEY, CONFIG_INSECURE),
                         "insecure and server_key contradict each other; expected one of them");
    }
    for (uint32_t i = 0; i < config->listen_count; i++) {
        if (config_server_key(config, i)[0] != '\0' && config->principals[0] == '\0') {
            conf_add_mistake(mistakes, line_of_endpoint(config, i),
                             "listen: %s has a server key, but nobody may come in; expected "
                             "principals = FILE beside it",
                             config->listen[i]);
        }
    }
}

/* Endpoints of flags are looked at when they are bound, with the words of flags. */
static void check_endpoints(const struct config *config, const struct config_source *source,
                            struct conf_mistakes *mistakes)
{
    const bool is_given = config->line[CONFIG_LISTEN] == CONF_LINE_GIVEN;
    for (uint32_t i = 0; i < config->listen_count && !is_given; i++) {
        const char *endpoint = config->listen[i];
        const uint32_t line = config->listen_lines[i];
        const enum endpoint_kind kind = endpoint_kind(endpoint);
        const bool is_plain = config_server_key(config, i)[0] == '\0';
        if (kind == ENDPOINT_TCP && is_plain) {
            conf_add_mistake(mistakes, line,
                             "listen: %s: TCP without keys is refused off the loopback; expected "
                             "server_key and principals beside it, tcp://127.0.0.1:PORT or "
                             "ipc:///PATH",
                             endpoint);
        } else if (kind == ENDPOINT_LOOPBACK && is_plain && config->value[CONFIG_INSECURE] == 0 &&
                   !source->is_dev) {
            conf_add_mistake(mistakes, line,
                             "listen: %s: TCP without keys lets in every user of this machine; "
                             "expected server_key and principals beside it, ipc:///PATH, or "
                             "insecure = true",
                             endpoint);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(endpoint, config->listen[j]) == 0 && strchr(endpoint, '*') == NULL) {
                conf_add_mistake(mistakes, line, "listen: %s stands there twice; expected it once",
                                 endpoint);
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
                         struct conf_mistakes *mistakes)
{
    char whole[CONFIG_PATH_SIZE];
    const char *slash = strrchr(file, '/');
    if (name[0] == '\0' || name[0] == '/' || slash == NULL) {
        return;
    }
    const int size = snprintf(whole, sizeof whole, "%.*s/%s", (int)(slash - file), file, name);
    if (size < 0 || (size_t)size >= sizeof whole) {
        conf_add_mistake(mistakes, line, "a name too long; expected less than %d bytes",
                         CONFIG_PATH_SIZE);
        return;
    }
    memcpy(name, whole, (size_t)size + 1);
}

static void resolve_paths(struct config *config, const char *file, struct conf_mistakes *mistakes)
{
    resolve_path(config->server_key, file, config->line[CONFIG_SERVER_KEY], mistakes);
    resolve_path(config->principals, file, config->line[CONFIG_PRINCIPALS], mistakes);
    for (uint32_t i = 0; i < config->listen_count; i++) {
        resolve_path(config->listen_key[i], file, config->listen_lines[i], mistakes);
    }
}

bool config_load(struct config *config, const struct config_source *source,
                 struct conf_mistakes *mistakes)
{
    *mistakes = (struct conf_mistakes){.count = 0};
    config_init(config);
    if (source->is_dev) {
        config->value[CONFIG_LOG_LEVEL] = LOG_LEVEL_WARN; /* what happens is told as sentences */
    }
    if (source->path != NULL) {
        read_file(config, source->path, mistakes);
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
    if (key != CONFIG_LISTEN) {
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
                     keys[key].name);
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
