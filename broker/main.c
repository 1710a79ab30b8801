/* SPDX-License-Identifier: MPL-2.0 */
/* treadled: the broker. */
#define _GNU_SOURCE

#include <argp.h>
#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "broker/shell/config.h"
#include "broker/shell/loop.h"
#include "broker/shell/principals.h"
#include "common/base/log.h"
#include "common/base/streams.h"

#define DEFAULT_PATH    "/etc/treadle/treadled.conf"
#define DESCRIPTORS_OWN 64U    /* that are no peer's */
#define CHECK_SPAN_MS   10000U /* a connection without a session for so long is cut */

enum option_key {
    OPTION_DEV = 0x100,
    OPTION_INSECURE,
    OPTION_PRINCIPALS,
    OPTION_SERVER_KEY,
    OPTION_LOG_LEVEL,
    OPTION_LOG_FORMAT,
    OPTION_CHECK
};

/* clang-format off */
static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0,
     "Read FILE (else TREADLE_CONFIG, else " DEFAULT_PATH " if it is there); see treadled.conf(5)", 0},
    {"check-config", OPTION_CHECK, NULL, 0,
     "Say what is wrong with the configuration and end; binds nothing, writes nothing", 0},
    {"listen", 'l', "ENDPOINT", 0,
     "Listen on ENDPOINT: ipc://PATH or tcp://HOST:PORT (port * picks a free one), then a space and FILE "
     "for a server key of its own; may be repeated", 0},
    {"dev", OPTION_DEV, NULL, 0,
     "For the first five minutes: plain TCP on the loopback, each task told as it lives", 0},
    {"server-key", OPTION_SERVER_KEY, "FILE", 0, "The broker's key, for TCP; see treadle-key(1)", 0},
    {"principals", OPTION_PRINCIPALS, "FILE", 0,
     "Who may come in over TCP, and do what; see treadle-principals(5)", 0},
    {"insecure", OPTION_INSECURE, NULL, 0, "Admit plain TCP on the loopback", 0},
    {"log-level", OPTION_LOG_LEVEL, "LEVEL", 0, "debug, info, warn or error (info; with --dev: warn)", 0},
    {"log-format", OPTION_LOG_FORMAT, "FORMAT", 0, "auto, text, json or journal (auto)", 0},
    {0},
};
/* clang-format on */

struct settings {
    struct config_source source;
    const char *path; /* -c */
    bool is_check;
};

/* What a broker with keys is started with. */
struct access {
    struct key_pair *server_keys[ENDPOINT_COUNT_MAX]; /* NULL: the endpoint is plain */
    struct principals *principals;
};

/* ---- what is given ---- */

/* NOLINTBEGIN(concurrency-mt-unsafe): argp and getenv, before any thread */
static void give(struct argp_state *state, enum config_key key, const char *text)
{
    struct settings *settings = state->input;
    char why[CONF_TEXT_SIZE];
    if (!config_set(&settings->source.given, key, text, CONF_LINE_GIVEN, why)) {
        argp_error(state, "%s", why);
    }
}

/* Endpoints of the command line are looked at more closely when they are bound. */
static void add_endpoint(struct argp_state *state, const char *endpoint)
{
    struct config *given = &((struct settings *)state->input)->source.given;
    if (given->listen_count == ENDPOINT_COUNT_MAX) {
        argp_error(state, "--listen: at most %u endpoints", ENDPOINT_COUNT_MAX);
        return;
    }
    if (!config_take_endpoint(given, endpoint)) {
        argp_error(state, "--listen: the endpoint is too long");
    }
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct settings *settings = state->input;
    switch (key) {
    case 'c':
        settings->path = argument;
        return 0;
    case 'l':
        add_endpoint(state, argument);
        return 0;
    case OPTION_CHECK:
        settings->is_check = true;
        return 0;
    case OPTION_DEV:
        settings->source.is_dev = true;
        return 0;
    case OPTION_INSECURE:
        give(state, CONFIG_INSECURE, "true");
        return 0;
    case OPTION_SERVER_KEY:
        give(state, CONFIG_SERVER_KEY, argument);
        return 0;
    case OPTION_PRINCIPALS:
        give(state, CONFIG_PRINCIPALS, argument);
        return 0;
    case OPTION_LOG_LEVEL:
        give(state, CONFIG_LOG_LEVEL, argument);
        return 0;
    case OPTION_LOG_FORMAT:
        give(state, CONFIG_LOG_FORMAT, argument);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "%s: no arguments are expected", argument);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* What flags can say, the environment can say where they do not. */
static bool take_environment(struct config *given)
{
    static const struct {
        enum config_key key;
        const char *name;
    } variables[] = {
        {CONFIG_LISTEN, "TREADLE_LISTEN"},
        {CONFIG_INSECURE, "TREADLE_INSECURE"},
        {CONFIG_LOG_LEVEL, "TREADLE_LOG_LEVEL"},
        {CONFIG_LOG_FORMAT, "TREADLE_LOG_FORMAT"},
    };
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        char why[CONF_TEXT_SIZE];
        const char *text = getenv(variables[i].name);
        if (text == NULL || text[0] == '\0' ||
            given->line[variables[i].key] != CONFIG_LINE_DEFAULT) {
            continue;
        }
        if (!config_set(given, variables[i].key, text, CONF_LINE_GIVEN, why)) {
            (void)fprintf(stderr, "treadled: %s: %s\n", variables[i].name, why);
            return false;
        }
    }
    return true;
}

/* -c, else TREADLE_CONFIG, else the file that is there; a broker for trying things out takes none
 * that nobody named. */
static void choose_path(struct settings *settings)
{
    const char *named = settings->path != NULL ? settings->path : getenv("TREADLE_CONFIG");
    if (settings->path == NULL && (named == NULL || named[0] == '\0' || settings->source.is_dev)) {
        named = !settings->source.is_dev && access(DEFAULT_PATH, F_OK) == 0 ? DEFAULT_PATH : NULL;
    }
    settings->source.path = named;
}

/* systemd says which file the journal reads for us; stderr may have been sent elsewhere since. */
static bool is_stderr_journal(void)
{
    char text[64];
    struct stat state;
    const char *stream = getenv("JOURNAL_STREAM");
    if (stream == NULL || fstat(STDERR_FILENO, &state) != 0) {
        return false;
    }
    (void)snprintf(text, sizeof text, "%" PRIuMAX ":%" PRIuMAX, (uintmax_t)state.st_dev,
                   (uintmax_t)state.st_ino);
    return strcmp(text, stream) == 0;
}
/* NOLINTEND(concurrency-mt-unsafe) */

/* ---- starting ---- */

static void tell_mistakes(const char *path, const struct conf_mistakes *mistakes)
{
    uint32_t i = 0;
    for (; i < mistakes->count && i < CONF_MISTAKES_MAX; i++) {
        char text[2 * CONF_TEXT_SIZE];
        conf_print_mistake(text, sizeof text, path, &mistakes->at[i]);
        (void)fprintf(stderr, "treadled: %s\n", text);
    }
    if (i < mistakes->count) {
        (void)fprintf(stderr, "treadled: %s: and %" PRIu32 " more\n", path, mistakes->count - i);
    }
}

/* Which setting named the server key of an endpoint, and where; of a file that several use once. */
static void tell_server_key(const char *path, const struct config *config, uint32_t index,
                            const char *why)
{
    const struct config_endpoint *endpoint = &config->listen[index];
    const bool is_its_own = endpoint->server_key[0] != '\0';
    const enum config_key key = is_its_own ? endpoint->key : CONFIG_SERVER_KEY;
    struct conf_mistake mistake = {.line = is_its_own ? endpoint->line : config->line[key]};
    char text[CONFIG_PATH_SIZE + CONF_TEXT_SIZE];
    for (uint32_t i = 0; i < index; i++) {
        if (strcmp(config_server_key(config, i), config_server_key(config, index)) == 0) {
            return;
        }
    }
    (void)snprintf(mistake.text, sizeof mistake.text, "%s: %.480s", config_key_name(key), why);
    conf_print_mistake(text, sizeof text, path, &mistake);
    (void)fprintf(stderr, "treadled: %s\n", text);
}

/* False: it was told which could not be read. */
static bool open_server_keys(struct access *access, const struct config *config, const char *file)
{
    bool is_whole = true;
    char why[KEY_WHY_SIZE];
    for (uint32_t i = 0; i < config->listen_count; i++) {
        const char *path = config_server_key(config, i);
        if (path[0] == '\0') {
            continue;
        }
        key_protect_process();
        if (key_pair_open(&access->server_keys[i], path, why) != TREADLE_OK) {
            tell_server_key(file, config, i, why);
            is_whole = false;
        }
    }
    return is_whole;
}

/* Reads the keys of the endpoints and the principals that they let in. False: it was told what is
 * wrong. */
static bool open_access(struct access *access, const struct config *config, const char *file)
{
    static struct conf_mistakes mistakes;
    const bool has_keys = open_server_keys(access, config, file);
    if (config->principals[0] != '\0') {
        access->principals = principals_read(config->principals, &mistakes);
    }
    for (uint32_t i = 0; access->principals != NULL && i < config->listen_count; i++) {
        if (access->server_keys[i] != NULL) {
            principals_refuse_key(access->principals, key_pair_public(access->server_keys[i]),
                                  &mistakes);
        }
    }
    for (uint32_t i = 0; i < mistakes.count && i < CONF_MISTAKES_MAX; i++) {
        char text[CONFIG_PATH_SIZE + CONF_TEXT_SIZE];
        conf_print_mistake(text, sizeof text, config->principals, &mistakes.at[i]);
        (void)fprintf(stderr, "treadled: %s\n", text);
    }
    return has_keys && mistakes.count == 0;
}

static void close_access(struct access *access)
{
    for (uint32_t i = 0; i < ENDPOINT_COUNT_MAX; i++) {
        key_pair_close(&access->server_keys[i]);
    }
    principals_destroy(&access->principals);
}

static void complete(struct loop_config *loop, const struct config_source *source,
                     const struct config *config, const struct access *access)
{
    config_to_core(config, &loop->core);
    for (uint32_t i = 0; i < config->listen_count; i++) {
        loop->transport.endpoints[i] = config->listen[i].text;
        loop->transport.rights[i] = config_rights(config, i);
        loop->transport.server_keys[i] = access->server_keys[i];
    }
    loop->transport.principals = access->principals;
    loop->transport.endpoint_count = config->listen_count;
    loop->transport.check_span_ms = CHECK_SPAN_MS;
    if (source->is_dev) {
        loop->transport.plain_tcp = &principal_local;
    } else if (config->value[CONFIG_INSECURE] != 0) {
        loop->transport.plain_tcp = &principal_insecure;
    }
    loop->transport.connection_count_max = loop->core.connection_count_max;
    loop->transport.frame_size_max = loop->core.body_size_max + FIRST_FRAME_SIZE_MAX;
    loop->version = TREADLE_VERSION;
    loop->is_dev = source->is_dev;
    loop->rss_max = config->value[CONFIG_MEMORY_MAX];
    loop->source = source;
    loop->settings = config;
}

/* Signals are read from a descriptor; a pipe that nobody reads is an error of write(). A terminal
 * that goes away ends a broker for trying things out. */
static void block_signals(bool is_dev)
{
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    if (!is_dev) {
        (void)sigaddset(&signals, SIGHUP);
    }
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

/* A peer takes a descriptor. Who finds none left is turned away: accept.c. */
static void raise_descriptor_limit(const struct loop_config *loop)
{
    struct rlimit limit;
    const rlim_t wanted = loop->core.connection_count_max + DESCRIPTORS_OWN;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < wanted && !loop->is_dev) {
        log_warn("limits.descriptors",
                 "most=%" PRIuMAX " wanted=%" PRIuMAX
                 " reason=\"lower max_sessions, or raise the limit of open files\"",
                 (uintmax_t)limit.rlim_max, (uintmax_t)wanted);
    }
}

static int start(const struct config_source *source, const struct config *config,
                 const struct access *access)
{
    struct loop_config loop = {.version = NULL};
    complete(&loop, source, config, access);
    log_never_wait();
    log_open((enum log_level)config->value[CONFIG_LOG_LEVEL], config_to_sink(config, source));
    raise_descriptor_limit(&loop);
    block_signals(source->is_dev);
    return loop_run(&loop);
}

static int tell_ok(const char *path)
{
    (void)printf("%s: ok\n", path);
    return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc = "The broker of a treadle mesh: takes tasks from clients and routes them to workers.",
    };
    static struct settings settings; /* too large for a modest stack, and lives as long as we do */
    static struct config config;
    struct access access = {.principals = NULL};
    struct conf_mistakes mistakes;
    streams_hold();
    argp_program_version = "treadled " TREADLE_VERSION;
    argp_err_exit_status = EX_USAGE;
    config_init(&settings.source.given);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): before any thread */
    if (argp_parse(&argp, argc, argv, 0, NULL, &settings) != 0) {
        return EX_USAGE;
    }
    if (!take_environment(&settings.source.given)) {
        return EX_CONFIG;
    }
    choose_path(&settings);
    settings.source.is_stderr_journal = is_stderr_journal();
    const char *path = settings.source.path == NULL ? "defaults" : settings.source.path;
    if (!config_load(&config, &settings.source, &mistakes)) {
        tell_mistakes(path, &mistakes);
        return EX_CONFIG;
    }
    if (sodium_init() == -1) {
        (void)fprintf(stderr, "treadled: start: no source of random numbers\n");
        return EX_OSERR;
    }
    int exit_code = EX_CONFIG;
    if (open_access(&access, &config, path)) {
        exit_code = settings.is_check ? tell_ok(path) : start(&settings.source, &config, &access);
    }
    close_access(&access);
    return exit_code;
}
