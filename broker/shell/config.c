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

#define DEV_ENDPOINT     "tcp://127.0.0.1:7330"
#define DEFAULT_ENDPOINT "ipc:///run/treadle/treadled.sock"

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

static bool put_endpoint(struct config *config, enum config_key key, const char *text,
                         uint32_t line)
{
    struct config_endpoint *endpoint = &config->listen[config->listen_count];
    const size_t size = strcspn(text, " ");
    const char *server_key = text + size + strspn(text + size, " ");
    if (config->listen_count == ENDPOINT_COUNT_MAX || size >= CONFIG_ENDPOINT_SIZE ||
        strlen(server_key) >= CONFIG_PATH_SIZE) {
        return false;
    }
    *endpoint = (struct config_endpoint){.key = key, .line = line};
    memcpy(endpoint->text, text, size);
    memcpy(endpoint->server_key, server_key, strlen(server_key));
    config->listen_count++;
    config->line[key] = line;
    return true;
}

bool config_take_endpoint(struct config *config, const char *text)
{
    return put_endpoint(config, CONFIG_LISTEN, text, CONF_LINE_GIVEN);
}

const char *config_server_key(const struct config *config, uint32_t index)
{
    TREADLE_ASSERT(index < config->listen_count);
    const struct config_endpoint *endpoint = &config->listen[index];
    if (endpoint_kind(endpoint->text) == ENDPOINT_IPC) {
        return "";
    }
    return endpoint->server_key[0] != '\0' ? endpoint->server_key : config->server_key;
}

static bool has_endpoint_of(const struct config *config, enum config_key key)
{
    for (uint32_t i = 0; i < config->listen_count; i++) {
        if (config->listen[i].key == key) {
            return true;
        }
    }
    return false;
}

/* What has endpoints of its own is done over these only. */
uint32_t config_rights(const struct config *config, uint32_t index)
{
    TREADLE_ASSERT(index < config->listen_count);
    if (config->listen[index].key == CONFIG_LISTEN_WORKERS) {
        return RIGHT_WORK;
    }
    if (config->listen[index].key == CONFIG_LISTEN_ADMIN) {
        return RIGHT_ADMIN;
    }
    const uint32_t work = has_endpoint_of(config, CONFIG_LISTEN_WORKERS) ? 0 : RIGHT_WORK;
    const uint32_t admin = has_endpoint_of(config, CONFIG_LISTEN_ADMIN) ? 0 : RIGHT_ADMIN;
    return RIGHT_SUBMIT | work | admin;
}

static bool add_endpoint(struct config *config, enum config_key key, const char *text,
                         uint32_t line, char *why)
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
        (void)snprintf(why, CONF_TEXT_SIZE, "%s: %s is not an endpoint; expected %s",
                       keys[key].name, log_quote(quoted, sizeof quoted, text, strlen(text)),
                       expected == NULL ? "less than 256 bytes" : expected);
        return false;
    }
    if (endpoint_kind(endpoint) == ENDPOINT_IPC && text[size] != '\0') {
        (void)snprintf(why, CONF_TEXT_SIZE, "%s: ipc takes no key; expected %s alone",
                       keys[key].name, endpoint);
        return false;
    }
    if (!put_endpoint(config, key, text, line)) {
        (void)snprintf(why, CONF_TEXT_SIZE,
                       "%s: one endpoint too many; expected at most %u of them in all",
                       keys[key].name, ENDPOINT_COUNT_MAX);
        return false;
    }
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

static bool is_of_endpoints(enum config_key key)
{
    return key == CONFIG_LISTEN || key == CONFIG_LISTEN_WORKERS || key == CONFIG_LISTEN_ADMIN;
}

bool config_set(struct config *config, enum config_key key, const char *text, uint32_t line,
                char *why)
{
    TREADLE_ASSERT(key < CONFIG_KEY_COUNT);
    if (is_of_endpoints(key)) {
        return add_endpoint(config, key, text, line, why);
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
        .is_guarded = true,
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

/* Keys let in whom the principals name, and nobody else. */
static void check_keys(const struct config *config, struct conf_mistakes *mistakes)
{
    if (config->server_key[0] != '\0' && config->value[CONFIG_INSECURE] != 0) {
        conf_add_mistake(mistakes, line_of(config, CONFIG_SERVER_KEY, CONFIG_INSECURE),
                         "insecure and server_key contradict each other; expected one of them");
    }
    for (uint32_t i = 0; i < config->listen_count; i++) {
        if (config_server_key(config, i)[0] != '\0' && config->principals[0] == '\0') {
            const struct config_endpoint *endpoint = &config->listen[i];
            conf_add_mistake(mistakes, endpoint->line,
                             "%s: %s has a server key, but nobody may come in; expected "
                             "principals = FILE beside it",
                             keys[endpoint->key].name, endpoint->text);
        }
    }
}

static void check_plain(const struct config_endpoint *endpoint, bool is_admitted,
                        struct conf_mistakes *mistakes)
{
    const char *key = keys[endpoint->key].name;
    if (endpoint_kind(endpoint->text) == ENDPOINT_TCP) {
        conf_add_mistake(mistakes, endpoint->line,
                         "%s: %s: TCP without keys is refused off the loopback; expected "
                         "server_key and principals beside it, tcp://127.0.0.1:PORT or "
                         "ipc:///PATH",
                         key, endpoint->text);
    } else if (endpoint->key == CONFIG_LISTEN_ADMIN) {
        conf_add_mistake(mistakes, endpoint->line,
                         "%s: %s: nobody administers over TCP without keys; expected server_key "
                         "and principals beside it, or ipc:///PATH",
                         key, endpoint->text);
    } else if (!is_admitted) {
        conf_add_mistake(mistakes, endpoint->line,
                         "%s: %s: TCP without keys lets in every user of this machine; expected "
                         "server_key and principals beside it, ipc:///PATH, or insecure = true",
                         key, endpoint->text);
    }
}

/* Endpoints of flags are looked at when they are bound, with the words of flags. */
static void check_endpoints(const struct config *config, const struct config_source *source,
                            struct conf_mistakes *mistakes)
{
    const bool is_plain_admitted = source->is_dev || config->value[CONFIG_INSECURE] != 0;
    for (uint32_t i = 0; i < config->listen_count; i++) {
        const struct config_endpoint *endpoint = &config->listen[i];
        if (endpoint->line == CONF_LINE_GIVEN) {
            continue;
        }
        if (endpoint_kind(endpoint->text) != ENDPOINT_IPC &&
            config_server_key(config, i)[0] == '\0') {
            check_plain(endpoint, is_plain_admitted, mistakes);
        }
        for (uint32_t j = 0; j < i; j++) {
            const struct config_endpoint *other = &config->listen[j];
            if (strcmp(endpoint->text, other->text) == 0 && other->line != CONF_LINE_GIVEN &&
                strchr(endpoint->text, '*') == NULL) {
                conf_add_mistake(mistakes,
                                 endpoint->line > other->line ? endpoint->line : other->line,
                                 "%s: %s stands there twice; expected it once",
                                 keys[endpoint->key].name, endpoint->text);
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
}

/* Those that were given go before those of listen in the file; without either there is a default.
 * Then come those of workers, then those of administrators. */
static void order_endpoints(struct config *config, const struct config_source *source,
                            struct conf_mistakes *mistakes)
{
    static const enum config_key order[] = {CONFIG_LISTEN, CONFIG_LISTEN_WORKERS,
                                            CONFIG_LISTEN_ADMIN};
    const struct config *given = &source->given;
    struct config_endpoint ordered[2 * ENDPOINT_COUNT_MAX + 1];
    uint32_t count = given->listen_count;
    memcpy(ordered, given->listen, count * sizeof ordered[0]);
    if (count == 0 && !has_endpoint_of(config, CONFIG_LISTEN)) {
        ordered[0] = (struct config_endpoint){.key = CONFIG_LISTEN};
        (void)snprintf(ordered[0].text, sizeof ordered[0].text, "%s",
                       source->is_dev ? DEV_ENDPOINT : DEFAULT_ENDPOINT);
        count = 1;
    }
    for (size_t kind = 0; kind < sizeof order / sizeof order[0]; kind++) {
        const bool is_replaced = order[kind] == CONFIG_LISTEN && given->listen_count > 0;
        for (uint32_t i = 0; i < config->listen_count && !is_replaced; i++) {
            if (config->listen[i].key == order[kind]) {
                ordered[count] = config->listen[i];
                count++;
            }
        }
    }
    if (count > ENDPOINT_COUNT_MAX) {
        conf_add_mistake(mistakes, ordered[count - 1].line,
                         "listen: one endpoint too many; expected at most %u of them in all",
                         ENDPOINT_COUNT_MAX);
        count = ENDPOINT_COUNT_MAX;
    }
    memcpy(config->listen, ordered, count * sizeof ordered[0]);
    config->listen_count = count;
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
        resolve_path(config->listen[i].server_key, file, config->listen[i].line, mistakes);
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
    order_endpoints(config, source, mistakes);
    const bool is_read_whole = mistakes->count == 0;
    check_pairs(config, mistakes);
    check_silence(config, mistakes);
    if (is_read_whole) { /* else what is missing may be what was not understood */
        check_endpoints(config, source, mistakes);
        check_keys(config, mistakes);
    }
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

/* The one of `listen` at or behind the index that is of this key; NULL: none. */
static const struct config_endpoint *next_of(const struct config *config, enum config_key key,
                                             uint32_t *index)
{
    for (; *index < config->listen_count; ++*index) {
        if (config->listen[*index].key == key) {
            return &config->listen[(*index)++];
        }
    }
    return NULL;
}

static bool has_same_endpoints(const struct config *left, const struct config *right,
                               enum config_key key)
{
    uint32_t left_index = 0;
    uint32_t right_index = 0;
    for (;;) {
        const struct config_endpoint *one = next_of(left, key, &left_index);
        const struct config_endpoint *other = next_of(right, key, &right_index);
        if (one == NULL || other == NULL) {
            return one == other;
        }
        if (strcmp(one->text, other->text) != 0 ||
            strcmp(one->server_key, other->server_key) != 0) {
            return false;
        }
    }
}

static bool is_same(const struct config *left, const struct config *right, enum config_key key)
{
    if (key == CONFIG_SERVER_KEY) {
        return strcmp(left->server_key, right->server_key) == 0;
    }
    if (key == CONFIG_PRINCIPALS) {
        return strcmp(left->principals, right->principals) == 0;
    }
    return is_of_endpoints(key) ? has_same_endpoints(left, right, key)
                                : left->value[key] == right->value[key];
}

const char *config_key_name(enum config_key key)
{
    return keys[key].name;
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
