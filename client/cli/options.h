/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Verbs, their options and their words. Every option stands once in the table of options.c, with
 * the same word, meaning and range for all verbs that take it; a verb names those it takes as a set
 * of OPTION_BIT()s. Pure but for what is said on stderr. One thread.
 */
#ifndef TREADLE_CLI_OPTIONS_H
#define TREADLE_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <treadle/client.h>
#include <treadle/id.h>

#include "client/cli/output.h"
#include "client/cli/settings.h"
#include "common/base/bytes.h"
#include "common/wire/message.h"

enum cli_option {
    OPTION_BROKER,
    OPTION_IDENTITY,
    OPTION_SERVER_KEY,
    OPTION_CONNECT_TIMEOUT,
    OPTION_JSON,
    OPTION_RAW,
    OPTION_WAIT,
    OPTION_WORKER_WAIT,
    OPTION_DETACH,
    OPTION_JOBS,
    OPTION_NULL,
    OPTION_FROM_FILES,
    OPTION_UNORDERED,
    OPTION_JOBLOG,
    OPTION_RESUME,
    OPTION_RESUME_FAILED,
    OPTION_NO_PROGRESS,
    OPTION_SERVICE,
    OPTION_STATE,
    OPTION_LIMIT,
    OPTION_SLOTS,
    OPTION_NAME,
    OPTION_PERMANENT_EXIT,
    OPTION_PLUGIN,
    OPTION_POOL,
    OPTION_MEMORY_MAX,
    OPTION_DRAIN_TIMEOUT,
    OPTION_CONFIG,
    OPTION_CHECK_CONFIG,
    OPTION_ID,
    OPTION_DELAY,
    OPTION_QUEUE_TIMEOUT,
    OPTION_TIMEOUT,
    OPTION_PROGRESS_TIMEOUT,
    OPTION_GRACE,
    OPTION_DEADLINE,
    OPTION_ATTEMPTS,
    OPTION_BACKOFF,
    OPTION_PRIORITY,
    OPTION_TAG,
    OPTION_META,
    OPTION_RESULT_TTL,
    OPTION_TENANT,
    OPTION_VOLATILE,
    OPTION_DIR,
    OPTION_COUNT,
};

#define OPTION_BIT(option) (UINT64_C(1) << (option))

/* What every verb that connects to the broker takes, and what those take that give up if there is
 * none. */
#define OPTIONS_CONNECT                                                                            \
    (OPTION_BIT(OPTION_BROKER) | OPTION_BIT(OPTION_IDENTITY) | OPTION_BIT(OPTION_SERVER_KEY))
#define OPTIONS_CONTACT (OPTIONS_CONNECT | OPTION_BIT(OPTION_CONNECT_TIMEOUT))

/* Fields of a policy: given with a task, or as a worker's configuration. */
#define OPTIONS_POLICY                                                                             \
    (OPTION_BIT(OPTION_QUEUE_TIMEOUT) | OPTION_BIT(OPTION_TIMEOUT) |                               \
     OPTION_BIT(OPTION_PROGRESS_TIMEOUT) | OPTION_BIT(OPTION_DEADLINE) |                           \
     OPTION_BIT(OPTION_ATTEMPTS) | OPTION_BIT(OPTION_BACKOFF) | OPTION_BIT(OPTION_RESULT_TTL))

/* What a task can be submitted with. */
#define OPTIONS_TASK                                                                               \
    (OPTIONS_POLICY | OPTION_BIT(OPTION_ID) | OPTION_BIT(OPTION_DELAY) |                           \
     OPTION_BIT(OPTION_PRIORITY) | OPTION_BIT(OPTION_TAG) | OPTION_BIT(OPTION_META) |              \
     OPTION_BIT(OPTION_TENANT) | OPTION_BIT(OPTION_VOLATILE) | OPTION_BIT(OPTION_RAW))

/* Plugins of one worker. */
#define PLUGIN_COUNT_MAX 16

/* What main() reads of the environment; NULL: not set. */
struct cli_environment {
    const char *broker;     /* TREADLE_BROKER */
    const char *identity;   /* TREADLE_IDENTITY */
    const char *server_key; /* TREADLE_SERVER_KEY */
    const char *home;       /* HOME */
};

#define BROKER_LOOPBACK "tcp://127.0.0.1:7330" /* where `treadle dev' listens */

/* One call of the program. Texts are borrowed from the command line. */
struct arguments {
    const struct verb *verb;
    bool is_help;       /* --help: it was printed, and that is all */
    bool is_wrong_said; /* while parsing: stderr knows already */
    uint64_t given;     /* OPTION_BIT()s */
    char *const *words; /* what is no option, up to `--` */
    size_t word_count;
    char *const *command; /* after `--`, where the verb takes a command; ends with NULL */
    size_t command_count;

    const char *broker;     /* never NULL */
    bool is_broker_given;   /* by the option or the environment */
    const char *identity;   /* file; NULL: the client's default */
    const char *server_key; /* file, digits or `none`; NULL: the client's default */
    const char *home;       /* the user's; NULL: not known */
    const char *dir;
    struct settings settings; /* what the texts above may be of */
    uint64_t connect_timeout_ms;
    bool is_json;
    bool is_raw;
    bool is_detached;
    bool is_volatile;
    uint64_t jobs; /* 0: not given */
    bool is_null_separated;
    bool is_from_files;
    bool is_unordered;
    const char *joblog; /* NULL: none */
    bool is_resume;
    bool is_resume_failed;
    bool is_without_progress;
    uint64_t wait_ms;
    uint64_t worker_wait_ms;
    const char *service;
    uint64_t state; /* enum task_state */
    uint64_t limit;
    uint64_t slots; /* 0: not given */
    const char *name;
    bool is_permanent_exit[256];
    const char *plugins[PLUGIN_COUNT_MAX];
    size_t plugin_count;
    bool is_threaded;
    uint64_t memory_max; /* bytes; 0: not given */
    uint64_t drain_ms;   /* 0: not given */
    const char *config;  /* NULL: not given */
    bool is_check;

    struct wire_policy policy; /* 0: not given */
    struct treadle_task_id id;
    uint64_t delay_ms;
    uint64_t priority;
    const char *tenant;
    const char *tags[TAG_COUNT_MAX];
    size_t tag_count;
    struct treadle_meta meta[META_COUNT_MAX]; /* names are copies, ended by arguments_reset() */
    size_t meta_count;
    size_t meta_size;
};

struct verb {
    const char *name;    /* "run", "task show" */
    const char *words;   /* "SERVICE.TASK [BODY]" */
    const char *summary; /* for the list of all verbs */
    const char *details; /* for its own help; NULL */
    uint64_t options;
    size_t words_min;
    size_t words_max;
    bool takes_command; /* after `--` */
    enum cli_exit (*run)(const struct arguments *arguments);
};

/* Reads the verb's options and words. argv[0] is the verb's own name with the program's ("treadle
 * run"). Not CLI_DONE: it was said on stderr; no broker was looked for. End the arguments with
 * arguments_reset() in any case. */
enum cli_exit arguments_parse(struct arguments *arguments, const struct verb *verb,
                              const struct cli_environment *environment, int argc, char **argv);

void arguments_reset(struct arguments *arguments);

/* Prints the verb's help to stdout. */
void verb_print_help(const struct verb *verb);

/* An option as people type it, for completion. */
struct option_view {
    const char *name;     /* "timeout", without the dashes */
    char letter;          /* 0: none */
    const char *argument; /* NULL: takes none */
    const char *help;
};
struct option_view option_view(enum cli_option option);

/* Whether the option was given. */
static inline bool is_given(const struct arguments *arguments, enum cli_option option)
{
    return (arguments->given & OPTION_BIT(option)) != 0;
}

/* A name split at its last dot; views on the text. */
struct task_name {
    struct bytes service;
    struct bytes task;
};

/* Splits SERVICE.TASK; with `is_pattern` the task may be `*`. What is wrong is said on stderr. */
enum cli_exit task_name_parse(const struct arguments *arguments, const char *text, bool is_pattern,
                              struct task_name *out);

/* Reads a task's id from words[index]; what is wrong is said on stderr. */
enum cli_exit task_id_parse(const struct arguments *arguments, size_t index,
                            struct treadle_task_id *out);

/* Checks words[index] as a service's name; what is wrong is said on stderr. */
enum cli_exit service_name_parse(const struct arguments *arguments, size_t index,
                                 struct bytes *out);

#endif
