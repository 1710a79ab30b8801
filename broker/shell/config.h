/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The daemon's configuration: config.def is its one table. A flag goes before the environment, that
 * before the file, the file before the default. No I/O but the reading of the file; one thread.
 */
#ifndef TREADLE_SHELL_CONFIG_H
#define TREADLE_SHELL_CONFIG_H

#include "broker/core/config.h"
#include "broker/shell/transport.h"
#include "common/base/log.h"
#include "common/conf/conf.h"

#include <stdbool.h>
#include <stdint.h>

#define CONFIG_ENDPOINT_SIZE 256
#define CONFIG_PATH_SIZE     1024

enum config_format {
    CONFIG_FORMAT_AUTO, /* journal where stderr is the journal's, else text */
    CONFIG_FORMAT_TEXT,
    CONFIG_FORMAT_JSON,
    CONFIG_FORMAT_JOURNAL,
    CONFIG_FORMAT_COUNT,
};

/* NOLINTNEXTLINE(bugprone-macro-parentheses): a list of names */
#define KEY(NAME, name, type, min, max, preset, reload, help) CONFIG_##NAME,
enum config_key {
#include "broker/shell/config.def"
    CONFIG_KEY_COUNT
};

/* In config.line: the key stands nowhere. Else it is a line of the file, or CONF_LINE_GIVEN for a
 * flag or the environment. */
#define CONFIG_LINE_DEFAULT 0U

struct config_endpoint {
    char text[CONFIG_ENDPOINT_SIZE];
    char server_key[CONFIG_PATH_SIZE]; /* one of its own; "": none */
    enum config_key key;               /* LISTEN, LISTEN_WORKERS or LISTEN_ADMIN */
    uint32_t line;                     /* as in config.line */
};

struct config {
    uint64_t value[CONFIG_KEY_COUNT]; /* in the unit of the key's type; of lists and paths unused */
    uint32_t line[CONFIG_KEY_COUNT];
    struct config_endpoint listen[ENDPOINT_COUNT_MAX]; /* once loaded: of LISTEN first */
    uint32_t listen_count;
    char server_key[CONFIG_PATH_SIZE]; /* "": none */
    char principals[CONFIG_PATH_SIZE];
};

/* What the configuration is made of, at the start and at every reload. */
struct config_source {
    const char *path; /* NULL: no file */
    struct config given;
    bool is_dev;            /* plain TCP on the loopback is fine, the log is for warnings */
    bool is_stderr_journal; /* what log_format auto means */
};

/* As it is written in the file. */
const char *config_key_name(enum config_key key);

/* All defaults, nothing given. */
void config_init(struct config *config);

/* Takes a value as a person wrote it. False: *config is untouched and `why` (CONF_TEXT_SIZE
 * bytes) says "what; expected ...". LISTEN and its like add an endpoint. */
bool config_set(struct config *config, enum config_key key, const char *text, uint32_t line,
                char *why);

/* Defaults, file, what was given; then what does not go together. False: *mistakes says why, and
 * *config is of no use. */
bool config_load(struct config *config, const struct config_source *source,
                 struct conf_mistakes *mistakes);

/* The file with the server key of this endpoint; "": it is plain. */
const char *config_server_key(const struct config *config, uint32_t index);

/* Takes an endpoint of a flag, with or without the file of a server key of its own behind it, as it
 * is; it is looked at when it is bound. False: too long, or too many. */
bool config_take_endpoint(struct config *config, const char *text);

/* What can be done over this endpoint at most: RIGHT_*. */
uint32_t config_rights(const struct config *config, uint32_t index);

/* The broker's policy: what was given, 0 for the rest. */
void config_to_policy(const struct config *config, struct policy_fields *policy);

/* Limits, times and policy of the core; the rest as core_config_init() leaves it. */
void config_to_core(const struct config *config, struct core_config *core);

/* How lines are logged. */
log_sink *config_to_sink(const struct config *config, const struct config_source *source);

/*
 * Copies from `fresh` what may change while the broker runs. Logs `config.fixed` for each key that
 * differs and may not. Returns how many keys changed.
 */
uint32_t config_take_reloaded(struct config *config, const struct config *fresh);

#endif
