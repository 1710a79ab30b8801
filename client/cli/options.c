/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/options.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/size.h"
#include "common/base/span.h"
#include "common/base/uuid.h"

#define BROKER_SOCKET "/run/treadle/treadled.sock"

#define CONNECT_TIMEOUT_MS 5000
#define WORKER_WAIT_MS     10000
#define LIST_LIMIT         1000
#define VALUE_SHOWN_MAX    100     /* bytes of a value that is refused */
#define MEMORY_MAX_MIN     1048576 /* bytes: with less no program starts */

enum option_kind {
    KIND_FLAG,   /* a bool */
    KIND_SPAN,   /* a uint64_t in ms, min..max */
    KIND_NUMBER, /* a uint64_t, min..max */
    KIND_PARSED, /* by `parse` */
};

typedef bool option_parse(struct arguments *arguments, const char *text);

struct option_rule {
    const char *name;
    char letter;          /* 0: none */
    const char *argument; /* NULL: a flag */
    const char *help;
    const char *expected; /* "'x' is not ..." */
    enum option_kind kind;
    size_t offset; /* in struct arguments */
    uint64_t min;
    uint64_t max;
    option_parse *parse;
};

/* ---- values ---- */

/* Reads a whole number of at most `max`, digits only; *end is where it stopped. */
static bool read_number(const char *text, uint64_t max, uint64_t *number, const char **end)
{
    uint64_t value = 0;

    if (*text < '0' || *text > '9') {
        return false;
    }
    for (; *text >= '0' && *text <= '9'; text++) {
        uint64_t digit = (uint64_t)(*text - '0');

        if (value > (max - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *number = value;
    *end = text;
    return true;
}

static bool number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
    const char *end = NULL;
    uint64_t value = 0;

    if (!read_number(text, max, &value, &end) || *end != '\0' || value < min) {
        return false;
    }
    *number = value;
    return true;
}

static bool span_in_range(const char *text, uint64_t min, uint64_t max, uint64_t *span_ms)
{
    uint64_t value = 0;

    if (!span_parse(text, &value) || value < min || value > max) {
        return false;
    }
    *span_ms = value;
    return true;
}

static bool parse_broker(struct arguments *arguments, const char *text)
{
    arguments->broker = text;
    arguments->is_broker_given = true;
    return settings_is_endpoint(text);
}

static bool parse_identity(struct arguments *arguments, const char *text)
{
    arguments->identity = text;
    return text[0] != '\0';
}

static bool parse_server_key(struct arguments *arguments, const char *text)
{
    arguments->server_key = text;
    return text[0] != '\0';
}

static bool parse_dir(struct arguments *arguments, const char *text)
{
    arguments->dir = text;
    return text[0] != '\0';
}

static bool parse_service(struct arguments *arguments, const char *text)
{
    arguments->service = text;
    return wire_is_name(bytes_from_text(text), 1);
}

static bool parse_state(struct arguments *arguments, const char *text)
{
    for (uint64_t state = 0; state < TASK_STATE_COUNT; state++) {
        if (strcmp(text, task_state_text(state)) == 0) {
            arguments->state = state;
            return true;
        }
    }
    return false;
}

/* A label that people read in lists: not empty, UTF-8, and nothing in it that moves a cursor. */
static bool is_label(const char *text)
{
    const size_t size = strlen(text);
    char *shown = NULL;

    if (size == 0 || size > NAME_SIZE_MAX) {
        return false;
    }
    shown = text_for_people((struct bytes){(const uint8_t *)text, size}, false);
    const bool is_same = shown != NULL && strcmp(shown, text) == 0;

    free(shown);
    return is_same;
}

static bool parse_name(struct arguments *arguments, const char *text)
{
    arguments->name = text;
    return is_label(text);
}

/* "2", "3,64,65" */
static bool parse_permanent_exit(struct arguments *arguments, const char *text)
{
    for (;;) {
        uint64_t code = 0;

        if (!read_number(text, 255, &code, &text) || code == 0) {
            return false;
        }
        arguments->is_permanent_exit[code] = true;
        if (*text == '\0') {
            return true;
        }
        if (*text++ != ',') {
            return false;
        }
    }
}

static bool parse_id(struct arguments *arguments, const char *text)
{
    return uuid_parse(text, &arguments->id);
}

/* "2", "1.5": thousandths, three decimals at most. */
static bool factor_parse(const char *text, uint64_t *factor_milli)
{
    uint64_t factor = 0;
    uint64_t weight = 100;

    if (!read_number(text, 1000, &factor, &text)) {
        return false;
    }
    factor *= 1000;
    if (*text == '.') {
        text++;
        if (*text == '\0') {
            return false;
        }
        for (; *text >= '0' && *text <= '9' && weight > 0; text++, weight /= 10) {
            factor += (uint64_t)(*text - '0') * weight;
        }
    }
    if (*text != '\0' || factor < 1000 || factor > 1000000) {
        return false;
    }
    *factor_milli = factor;
    return true;
}

/* BASE[,FACTOR[,MAX]] */
static bool parse_backoff(struct arguments *arguments, const char *text)
{
    char part[3][SPAN_TEXT_SIZE] = {"", "", ""};
    struct wire_policy *policy = &arguments->policy;
    size_t count = 0;

    for (;; text++) {
        size_t size = strcspn(text, ",");

        if (count == 3 || size == 0 || size >= sizeof(part[0])) {
            return false;
        }
        memcpy(part[count++], text, size);
        text += size;
        if (*text == '\0') {
            break;
        }
    }
    return span_in_range(part[0], 1, SPAN_MAX_MS, &policy->backoff_base_ms) &&
           (count < 2 || factor_parse(part[1], &policy->backoff_factor_milli)) &&
           (count < 3 || span_in_range(part[2], 1, SPAN_MAX_MS, &policy->backoff_max_ms));
}

static bool parse_tag(struct arguments *arguments, const char *text)
{
    if (arguments->tag_count == TAG_COUNT_MAX || !is_label(text)) {
        return false;
    }
    arguments->tags[arguments->tag_count++] = text;
    return true;
}

/* NAME=VALUE */
static bool parse_meta(struct arguments *arguments, const char *text)
{
    const char *equals = strchr(text, '=');
    size_t size = strlen(text) - 1;

    if (equals == NULL || arguments->meta_count == META_COUNT_MAX ||
        arguments->meta_size + size > META_SIZE_MAX) {
        return false;
    }
    char *name = strndup(text, (size_t)(equals - text));

    if (name == NULL || !is_label(name)) {
        free(name);
        return false;
    }
    arguments->meta_size += size;
    arguments->meta[arguments->meta_count++] =
        (struct treadle_meta){.name = name, .value = equals + 1, .value_size = strlen(equals + 1)};
    return true;
}

static bool parse_plugin(struct arguments *arguments, const char *text)
{
    if (arguments->plugin_count == PLUGIN_COUNT_MAX || text[0] == '\0') {
        return false;
    }
    arguments->plugins[arguments->plugin_count++] = text;
    return true;
}

static bool parse_pool(struct arguments *arguments, const char *text)
{
    arguments->is_threaded = strcmp(text, "threads") == 0;
    return arguments->is_threaded || strcmp(text, "processes") == 0;
}

static bool parse_memory_max(struct arguments *arguments, const char *text)
{
    return size_parse(text, &arguments->memory_max) && arguments->memory_max >= MEMORY_MAX_MIN;
}

static bool parse_config(struct arguments *arguments, const char *text)
{
    arguments->config = text;
    return text[0] != '\0';
}

static bool parse_joblog(struct arguments *arguments, const char *text)
{
    arguments->joblog = text;
    return text[0] != '\0';
}

static bool parse_tenant(struct arguments *arguments, const char *text)
{
    arguments->tenant = text;
    return wire_is_name(bytes_from_text(text), 1);
}

/* ---- the table ---- */

#define SPAN_EXPECTED  "a span like 500ms, 30s or 5m"
#define SPAN1_EXPECTED "a span of at least 1ms, like 500ms, 30s or 5m"
#define NAME_EXPECTED  "a name of 1 to 64 characters of A-Z a-z 0-9 . _ -"

#define FLAG(word, field, text)                                                                    \
    {                                                                                              \
        .name = (word), .help = (text), .kind = KIND_FLAG,                                         \
        .offset = offsetof(struct arguments, field)                                                \
    }
#define SPAN(word, field, smallest, text)                                                          \
    {                                                                                              \
        .name = (word), .argument = "SPAN", .help = (text),                                        \
        .expected = (smallest) == 0 ? SPAN_EXPECTED : SPAN1_EXPECTED, .kind = KIND_SPAN,           \
        .offset = offsetof(struct arguments, field), .min = (smallest), .max = SPAN_MAX_MS         \
    }
#define NUMBER(word, field, smallest, largest, say, text)                                          \
    {                                                                                              \
        .name = (word), .argument = "N", .help = (text), .expected = (say), .kind = KIND_NUMBER,   \
        .offset = offsetof(struct arguments, field), .min = (smallest), .max = (largest)           \
    }
#define PARSED(word, value, function, say, text)                                                   \
    {                                                                                              \
        .name = (word), .argument = (value), .help = (text), .expected = (say),                    \
        .kind = KIND_PARSED, .parse = (function)                                                   \
    }

/* clang-format off */
static const struct option_rule rules[OPTION_COUNT] = {
    [OPTION_BROKER] = PARSED("broker", "ENDPOINT", parse_broker,
        "an endpoint like tcp://HOST:PORT or ipc://PATH",
        "The broker; default: TREADLE_BROKER, else what treadle.conf says, else ipc://" BROKER_SOCKET
        " if it is there, else " BROKER_LOOPBACK),
    [OPTION_IDENTITY] = PARSED("identity", "FILE", parse_identity, "the name of a .key file",
        "The key to show to the broker; default: TREADLE_IDENTITY, else what treadle.conf says, else "
        "~/.config/treadle/identity.key"),
    [OPTION_SERVER_KEY] = PARSED("server-key", "FILE|HEX|none", parse_server_key,
        "a .pub file, 64 hexadecimal digits, or none",
        "The key that a broker at tcp:// must have, or `none' for a plain connection; default: TREADLE_SERVER_KEY, "
        "else what treadle.conf says, else ~/.config/treadle/server.pub if it is there"),
    [OPTION_CONNECT_TIMEOUT] = SPAN("connect-timeout", connect_timeout_ms, 1,
        "How long to look for the broker; default: 5s"),
    [OPTION_JSON] = FLAG("json", is_json, "Print one JSON document"),
    [OPTION_RAW] = FLAG("raw", is_raw, "Take BODY as it is, even `-' and `@...'"),
    [OPTION_WAIT] = SPAN("wait", wait_ms, 0,
        "Wait at most this long, then exit 75 while the task goes on; default: for ever"),
    [OPTION_WORKER_WAIT] = SPAN("worker-wait", worker_wait_ms, 0,
        "When no worker serves the task for this long, cancel it and exit 69; default: 10s"),
    [OPTION_DETACH] = FLAG("detach", is_detached,
        "Leave the task to go on when interrupted; `map' does not wait at all and prints the ids"),
    [OPTION_JOBS] = { .name = "jobs", .letter = 'j', .argument = "N", .kind = KIND_NUMBER,
        .help = "At most so many tasks in flight at once; default: 1000",
        .expected = "a number from 1 to 1000000", .offset = offsetof(struct arguments, jobs),
        .min = 1, .max = 1000000 },
    [OPTION_NULL] = { .name = "null", .letter = '0', .kind = KIND_FLAG,
        .help = "Records and results end with a NUL instead of a newline",
        .offset = offsetof(struct arguments, is_null_separated) },
    [OPTION_FROM_FILES] = FLAG("from-files", is_from_files,
        "Each record names a file, whose content is the body"),
    [OPTION_UNORDERED] = FLAG("unordered", is_unordered, "Print results as they come, not in the input's order"),
    [OPTION_JOBLOG] = PARSED("joblog", "FILE", parse_joblog, "a file's name",
        "Write a line about each task that has settled; what the file held is overwritten unless resumed"),
    [OPTION_RESUME] = FLAG("resume", is_resume, "Skip the records that the job log has, and go on with it"),
    [OPTION_RESUME_FAILED] = FLAG("resume-failed", is_resume_failed,
        "As --resume, but run those again that failed"),
    [OPTION_NO_PROGRESS] = FLAG("no-progress", is_without_progress, "Say nothing on stderr but what went wrong"),
    [OPTION_SERVICE] = PARSED("service", "SERVICE", parse_service, NAME_EXPECTED, "Only tasks of this service"),
    [OPTION_STATE] = PARSED("state", "STATE", parse_state,
        "a state: scheduled, blocked, ready, running, succeeded, failed, cancelled or expired",
        "Only tasks in this state: scheduled, blocked, ready, running, succeeded, failed, cancelled or expired"),
    [OPTION_LIMIT] = NUMBER("limit", limit, 1, UINT32_MAX, "a number of at least 1",
        "At most so many; default: 1000"),
    [OPTION_SLOTS] = NUMBER("slots", slots, 1, SLOT_COUNT_MAX, "a number from 1 to 65536",
        "How many tasks to run at once; default: the number of CPUs"),
    [OPTION_NAME] = PARSED("name", "NAME", parse_name, "a name of 1 to 64 bytes, without control characters",
        "The worker's name; default: host:pid"),
    [OPTION_PERMANENT_EXIT] = PARSED("permanent-exit", "N,...", parse_permanent_exit,
        "a list of exit codes from 1 to 255, like 2,64",
        "Exit codes of the command that are not worth another attempt"),
    [OPTION_PLUGIN] = PARSED("plugin", "FILE.so", parse_plugin, "a file's name, one of at most 16",
        "A shared object with handlers; may be given several times"),
    [OPTION_POOL] = PARSED("pool", "processes|threads", parse_pool, "`processes' or `threads'",
        "Run a plugin's handlers in processes (the default), or those that say they are safe as threads of one"),
    [OPTION_MEMORY_MAX] = PARSED("memory-max", "SIZE", parse_memory_max, "a size from 1MiB, like 256MiB or 1GiB",
        "At most so much memory for the data of each process that runs a task; default: no limit"),
    [OPTION_DRAIN_TIMEOUT] = SPAN("drain-timeout", drain_ms, 1,
        "What still runs so long after the worker was told to end is stopped; default: 30s"),
    [OPTION_CONFIG] = { .name = "config", .letter = 'c', .argument = "FILE", .kind = KIND_PARSED,
        .help = "Read handlers and settings from a file; what is given here goes before it",
        .expected = "a file's name", .parse = parse_config },
    [OPTION_CHECK_CONFIG] = FLAG("check-config", is_check,
        "Read the file, load its plugins, say what is wrong, and start nothing"),
    [OPTION_ID] = PARSED("id", "ID", parse_id, "an id of 36 characters, like 0191d5a0-7c1e-7b6a-9e5d-2f1c3b4a5d6e",
        "The task's id; submitting the same task twice under one id runs it once"),
    [OPTION_DELAY] = SPAN("delay", delay_ms, 0, "Do not start before this span has passed"),
    [OPTION_QUEUE_TIMEOUT] = SPAN("queue-timeout", policy.queue_timeout_ms, 1,
        "Expire a task that was not handed out after this span"),
    [OPTION_TIMEOUT] = SPAN("timeout", policy.timeout_ms, 1, "How long one attempt may run"),
    [OPTION_PROGRESS_TIMEOUT] = SPAN("progress-timeout", policy.progress_timeout_ms, 1,
        "How long a running handler may be silent"),
    [OPTION_GRACE] = SPAN("grace", policy.grace_ms, 1,
        "How long a command may go on after it was told to stop, before it is killed"),
    [OPTION_DEADLINE] = SPAN("deadline", policy.deadline_ms, 1,
        "Expire the task after this span, retries included"),
    [OPTION_ATTEMPTS] = NUMBER("attempts", policy.attempts_max, 1, 1000, "a number from 1 to 1000",
        "At most so many attempts in all"),
    [OPTION_BACKOFF] = PARSED("backoff", "BASE[,FACTOR[,MAX]]", parse_backoff,
        "a backoff like 1s, 1s,2 or 1s,1.5,5m (a span, a factor from 1 to 1000, a span)",
        "The span before the first retry, what it is multiplied with, and its maximum"),
    [OPTION_PRIORITY] = NUMBER("priority", priority, 0, PRIORITY_MAX, "a number from 0 to 9",
        "0 to 9, 9 the most urgent; default: 4"),
    [OPTION_TAG] = PARSED("tag", "TAG", parse_tag, "a tag of 1 to 64 bytes without control characters, one of at most 16",
        "A label; may be given up to 16 times"),
    [OPTION_META] = PARSED("meta", "NAME=VALUE", parse_meta,
        "NAME=VALUE with a name of 1 to 64 bytes without control characters, one of at most 64 of 16 KiB in all",
        "A value that goes with the task and that its handler sees; may be given several times"),
    [OPTION_RESULT_TTL] = SPAN("result-ttl", policy.result_ttl_ms, 1, "How long the outcome is kept"),
    [OPTION_TENANT] = PARSED("tenant", "TENANT", parse_tenant, NAME_EXPECTED,
        "Whose turn in the queue the task takes; default: the principal"),
    [OPTION_VOLATILE] = FLAG("volatile", is_volatile, "The task need not survive the broker"),
    [OPTION_DIR] = PARSED("dir", "DIRECTORY", parse_dir, "a directory",
        "Where to write the files; default: where you are"),
};
/* clang-format on */

#define KEY_BASE 0x100 /* above every character */
#define KEY_HELP '?'

/* ---- argp ---- */

/* Sets what the option gives. False: it is not what was expected. */
static bool option_set(struct arguments *arguments, const struct option_rule *rule,
                       const char *text)
{
    void *field = (char *)arguments + rule->offset;

    switch (rule->kind) {
    case KIND_FLAG:
        *(bool *)field = true;
        return true;
    case KIND_SPAN:
        return span_in_range(text, rule->min, rule->max, field);
    case KIND_NUMBER:
        return number_parse(text, rule->min, rule->max, field);
    case KIND_PARSED:
        return rule->parse(arguments, text);
    }
    return false;
}

/* What argp calls an option: its letter, or a number above every character. */
static int option_key(int option)
{
    return rules[option].letter != 0 ? rules[option].letter : KEY_BASE + option;
}

/* The option of a key; OPTION_COUNT: none has it. */
static int option_of(int key)
{
    int option = 0;

    while (option < OPTION_COUNT && option_key(option) != key) {
        option++;
    }
    return option;
}

/* Whether the word is the option, without a value. */
static bool is_option(const char *word, int option)
{
    const char letter[] = {'-', rules[option].letter, '\0'};

    return (letter[1] != '\0' && strcmp(word, letter) == 0) ||
           (strncmp(word, "--", 2) == 0 && strcmp(word + 2, rules[option].name) == 0);
}

/* Says what argp did not understand. argp itself would say it in two lines of another form. */
static void not_understood(const struct arguments *arguments, const struct argp_state *state)
{
    const char *word = state->argv[state->next - 1];

    if ((word[0] != '-' || state->next == 1) && state->next < state->argc) {
        word = state->argv[state->next]; /* several short ones in one word: not taken yet */
    }
    for (int option = 0; option < OPTION_COUNT; option++) {
        if ((arguments->verb->options & OPTION_BIT(option)) != 0 &&
            rules[option].argument != NULL && is_option(word, option)) {
            cli_note("%s: %s: its value is missing; write: %s %s", arguments->verb->name, word,
                     word, rules[option].argument);
            return;
        }
    }
    cli_note("%s: '%s' is not one of its options; see: treadle help %s", arguments->verb->name,
             word, arguments->verb->name);
}

/* The option whose whole name stands where `option`, which the verb takes, was read as abbreviated:
 * --id is never short for --identity. OPTION_COUNT: none. */
static int mistaken_option(const struct argp_state *state, int option)
{
    const bool is_apart = state->next >= 2 && strncmp(state->argv[state->next - 1], "--", 2) != 0;
    const char *word = state->argv[state->next - (is_apart ? 2 : 1)];
    const size_t size = strcspn(word, "=");
    int other = 0;

    while (other < OPTION_COUNT &&
           (other == option || strlen(rules[other].name) + 2 != size ||
            strncmp(word, "--", 2) != 0 || strncmp(word + 2, rules[other].name, size - 2) != 0)) {
        other++;
    }
    return other;
}

static error_t on_argp(int key, char *text, struct argp_state *state)
{
    struct arguments *arguments = state->input;

    if (key == KEY_HELP) {
        arguments->is_help = true;
        return ECANCELED; /* what else is on the line does not matter */
    }
    if (key == ARGP_KEY_ERROR && !arguments->is_help && !arguments->is_wrong_said) {
        not_understood(arguments, state);
        return 0;
    }

    if (key == ARGP_KEY_ARG) { /* all words come after all options */
        arguments->words = &state->argv[state->next - 1];
        arguments->word_count = (size_t)(state->argc - state->next) + 1;
        state->next = state->argc;
        return 0;
    }
    int option = option_of(key);

    if (option == OPTION_COUNT) {
        return ARGP_ERR_UNKNOWN;
    }
    const struct option_rule *rule = &rules[option];
    const int mistaken = rule->argument == NULL ? OPTION_COUNT : mistaken_option(state, option);

    if (mistaken != OPTION_COUNT) {
        cli_note("%s: '--%s' is not one of its options; see: treadle help %s",
                 arguments->verb->name, rules[mistaken].name, arguments->verb->name);
        arguments->is_wrong_said = true;
        return EINVAL;
    }
    arguments->given |= OPTION_BIT(option);
    if (!option_set(arguments, rule, text)) {
        size_t shown = strnlen(text, VALUE_SHOWN_MAX + 1);

        while (shown > VALUE_SHOWN_MAX || (shown > 0 && (text[shown] & 0xc0) == 0x80)) {
            shown--; /* to where a character begins */
        }
        cli_note("%s: --%s: '%.*s%s' is not %s", arguments->verb->name, rule->name, (int)shown,
                 text, text[shown] == '\0' ? "" : "...", rule->expected);
        arguments->is_wrong_said = true;
        return EINVAL;
    }
    return 0;
}

struct verb_argp {
    struct argp_option options[OPTION_COUNT + 2];
    char *text;
    struct argp argp;
};

/* False: memory is out. */
static bool verb_argp_init(struct verb_argp *out, const struct verb *verb)
{
    size_t count = 0;

    memset(out, 0, sizeof(*out));
    for (int option = 0; option < OPTION_COUNT; option++) {
        if ((verb->options & OPTION_BIT(option)) != 0) {
            out->options[count++] = (struct argp_option){.name = rules[option].name,
                                                         .key = option_key(option),
                                                         .arg = rules[option].argument,
                                                         .doc = rules[option].help};
        }
    }
    out->options[count] =
        (struct argp_option){.name = "help", .key = KEY_HELP, .doc = "Print this", .group = -1};
    if (asprintf(&out->text, "%s%s%s", verb->summary, verb->details == NULL ? "" : "\v",
                 verb->details == NULL ? "" : verb->details) == -1) {
        out->text = NULL;
        return false;
    }
    out->argp = (struct argp){
        .options = out->options, .parser = on_argp, .args_doc = verb->words, .doc = out->text};
    return true;
}

void verb_print_help(const struct verb *verb)
{
    struct verb_argp argp;
    char *name = NULL;

    if (verb_argp_init(&argp, verb) && asprintf(&name, "treadle %s", verb->name) != -1) {
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
        argp_help(&argp.argp, stdout, ARGP_HELP_STD_HELP & ~(unsigned)ARGP_HELP_EXIT_OK, name);
        fputc('\n', stdout);
        free(name);
    }
    free(argp.text);
}

/* The words up to `--`, the command after it. */
static void split_command(struct arguments *arguments, int *argc, char **argv)
{
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            arguments->command = &argv[i + 1];
            arguments->command_count = (size_t)(*argc - i - 1);
            argv[i] = NULL;
            *argc = i;
            return;
        }
    }
}

static enum cli_exit check_words(const struct arguments *arguments)
{
    const struct verb *verb = arguments->verb;

    if (arguments->word_count < verb->words_min) {
        return cli_fail(CLI_USAGE, "%s: a word is missing; usage: treadle %s %s", verb->name,
                        verb->name, verb->words);
    }
    if (arguments->word_count > verb->words_max) {
        return cli_fail(CLI_USAGE, "%s: '%s' is one word too many; usage: treadle %s %s",
                        verb->name, arguments->words[verb->words_max], verb->name, verb->words);
    }
    return CLI_DONE;
}

/* The user's file, then the system's. */
static enum cli_exit read_settings(struct arguments *arguments, const char *home)
{
    struct conf_mistakes *mistakes = calloc(1, sizeof(*mistakes));
    enum cli_exit code = CLI_DONE;
    char *own_file = NULL;

    if (mistakes == NULL || (home != NULL && home[0] != '\0' &&
                             asprintf(&own_file, "%s/" SETTINGS_OWN_FILE, home) == -1)) {
        free(mistakes);
        return cli_fail_memory();
    }
    const char *const files[] = {own_file, SETTINGS_SYSTEM_FILE};

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]) && code == CLI_DONE; i++) {
        if (files[i] != NULL) {
            settings_read(&arguments->settings, files[i], home, mistakes);
            code = cli_say_mistakes(arguments->verb->name, files[i], mistakes);
        }
    }
    free(own_file);
    free(mistakes);
    return code;
}

/* The flag, else the environment, else the files. */
static const char *choose(const char *flag, const char *variable, const char *setting)
{
    if (flag != NULL) {
        return flag;
    }
    return variable != NULL && variable[0] != '\0' ? variable : setting;
}

/* For a verb that connects to a broker. */
static enum cli_exit choose_keys(struct arguments *arguments,
                                 const struct cli_environment *environment)
{
    enum cli_exit code = read_settings(arguments, environment->home);

    arguments->identity =
        choose(arguments->identity, environment->identity, arguments->settings.identity);
    arguments->server_key =
        choose(arguments->server_key, environment->server_key, arguments->settings.server_key);
    return code;
}

static enum cli_exit choose_broker(struct arguments *arguments,
                                   const struct cli_environment *environment)
{
    if (arguments->broker != NULL) {
        return CLI_DONE;
    }
    if (environment->broker != NULL && environment->broker[0] != '\0') {
        if (!parse_broker(arguments, environment->broker)) {
            return cli_fail(CLI_CONFIG, "%s: TREADLE_BROKER: '%s' is not %s", arguments->verb->name,
                            environment->broker, rules[OPTION_BROKER].expected);
        }
        return CLI_DONE;
    }
    if (arguments->settings.broker != NULL) {
        arguments->broker = arguments->settings.broker;
        return CLI_DONE;
    }
    arguments->broker = access(BROKER_SOCKET, F_OK) == 0 ? "ipc://" BROKER_SOCKET : BROKER_LOOPBACK;
    return CLI_DONE;
}

enum cli_exit arguments_parse(struct arguments *arguments, const struct verb *verb,
                              const struct cli_environment *environment, int argc, char **argv)
{
    struct verb_argp argp;
    error_t error = ENOMEM;

    *arguments = (struct arguments){.verb = verb,
                                    .home = environment->home,
                                    .connect_timeout_ms = CONNECT_TIMEOUT_MS,
                                    .worker_wait_ms = WORKER_WAIT_MS,
                                    .limit = LIST_LIMIT};
    if (verb->takes_command) {
        split_command(arguments, &argc, argv);
    }
    if (verb_argp_init(&argp, verb)) {
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
        error = argp_parse(&argp.argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_HELP, NULL, arguments);
    }
    free(argp.text);
    if (arguments->is_help) {
        verb_print_help(verb);
        return CLI_DONE;
    }
    if (error == ENOMEM) {
        return cli_fail_memory();
    }
    if (error != 0) {
        return CLI_USAGE;
    }
    enum cli_exit code = check_words(arguments);

    if (code == CLI_DONE && (verb->options & OPTION_BIT(OPTION_IDENTITY)) != 0) {
        code = choose_keys(arguments, environment);
    }
    return code == CLI_DONE ? choose_broker(arguments, environment) : code;
}

void arguments_reset(struct arguments *arguments)
{
    for (size_t i = 0; i < arguments->meta_count; i++) {
        free((void *)(uintptr_t)arguments->meta[i].name); /* a copy of ours */
    }
    arguments->meta_count = 0;
    settings_reset(&arguments->settings);
}

/* ---- words ---- */

enum cli_exit task_name_parse(const struct arguments *arguments, const char *text, bool is_pattern,
                              struct task_name *out)
{
    const char *verb = arguments->verb->name;
    const char *dot = strrchr(text, '.');

    if (dot == NULL || dot == text || dot[1] == '\0') {
        return cli_fail(CLI_USAGE,
                        "%s: '%s' is not SERVICE.TASK: its %s part is missing; write it like "
                        "wc.count",
                        verb, text, dot == text ? "service" : "task");
    }
    *out =
        (struct task_name){{(const uint8_t *)text, (size_t)(dot - text)}, bytes_from_text(dot + 1)};
    if (!wire_is_name(out->service, 1) ||
        !((is_pattern && strcmp(dot + 1, "*") == 0) || wire_is_name(out->task, 1))) {
        return cli_fail(CLI_USAGE, "%s: '%s' is not SERVICE.TASK: each part is %s", verb, text,
                        NAME_EXPECTED);
    }
    return CLI_DONE;
}

enum cli_exit task_id_parse(const struct arguments *arguments, size_t index,
                            struct treadle_task_id *out)
{
    if (!uuid_parse(arguments->words[index], out)) {
        return cli_fail(CLI_USAGE, "%s: '%s' is not %s", arguments->verb->name,
                        arguments->words[index], rules[OPTION_ID].expected);
    }
    return CLI_DONE;
}

enum cli_exit service_name_parse(const struct arguments *arguments, size_t index, struct bytes *out)
{
    *out = bytes_from_text(arguments->words[index]);
    if (!wire_is_name(*out, 1)) {
        return cli_fail(CLI_USAGE, "%s: '%s' is not a service: that is %s", arguments->verb->name,
                        arguments->words[index], NAME_EXPECTED);
    }
    return CLI_DONE;
}

struct option_view option_view(enum cli_option option)
{
    const struct option_rule *rule = &rules[option];

    return (struct option_view){rule->name, rule->letter, rule->argument, rule->help};
}
