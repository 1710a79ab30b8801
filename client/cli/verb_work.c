/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <string.h>

#include "client/cli/options.h"
#include "worker/exec/program.h"
#include "worker/runner/config.h"
#include "worker/runner/runner.h"

#define FOR_COMMANDS "treadle work SERVICE.TASK -- COMMAND"

/* What is to run: a command, plugins, or what a file says. */
static enum cli_exit check_handlers(const struct arguments *arguments)
{
    const bool has_command = arguments->command_count > 0;
    const bool has_plugins = arguments->plugin_count > 0;
    const bool has_file = arguments->config != NULL;

    if (has_file && (has_command || has_plugins || arguments->word_count > 0)) {
        return cli_fail(CLI_USAGE, "work: -c FILE says what is served; leave out %s",
                        has_command   ? "the command"
                        : has_plugins ? "--plugin"
                                      : arguments->words[0]);
    }
    if (has_plugins && has_command) {
        return cli_fail(CLI_USAGE, "work: --plugin and a command: give one of them, or -c FILE "
                                   "with both");
    }
    if (!has_file && !has_plugins && arguments->word_count == 0) {
        return cli_fail(CLI_USAGE, "work: nothing to serve; write: " FOR_COMMANDS
                                   ", --plugin FILE.so or -c FILE");
    }
    if (!has_file && !has_plugins && !has_command) {
        return cli_fail(CLI_USAGE,
                        "work: no command; put it after `--', like: treadle work %s -- wc -w",
                        arguments->words[0]);
    }
    if (!has_command && is_given(arguments, OPTION_PERMANENT_EXIT)) {
        return cli_fail(CLI_USAGE,
                        "work: --permanent-exit is about a command; write: " FOR_COMMANDS);
    }
    if (!has_file && arguments->is_check) {
        return cli_fail(CLI_USAGE, "work: --check-config without a file; write: treadle work -c "
                                   "FILE --check-config");
    }
    return CLI_DONE;
}

/* Each task would fail for good, and be a dead letter. */
static enum cli_exit check_program(const struct arguments *arguments)
{
    const char *program = arguments->command_count > 0 ? arguments->command[0] : NULL;
    const int error = program != NULL ? program_check(program) : 0;
    const char *text = error != 0 ? strerrordesc_np(error) : "";

    return error == 0 ? CLI_DONE
                      : cli_fail(CLI_USAGE,
                                 "work: cannot run %s: %s; give a program in PATH, or its whole "
                                 "path",
                                 program, text != NULL ? text : "");
}

static enum cli_exit check_names(const struct arguments *arguments)
{
    struct task_name name;

    for (size_t i = 0; i < arguments->word_count; i++) {
        enum cli_exit code = task_name_parse(arguments, arguments->words[i], true, &name);

        if (code != CLI_DONE) {
            return code;
        }
    }
    return CLI_DONE;
}

static enum cli_exit read_file(const struct arguments *arguments, struct runner_config **config)
{
    struct conf_mistakes mistakes = {.count = 0};

    *config = runner_config_read(arguments->config, arguments->home, &mistakes);
    return *config == NULL ? cli_fail_memory()
                           : cli_say_mistakes("work", arguments->config, &mistakes);
}

/* Flags and the environment go before the file of -c, and that before treadle.conf. */
static void set_contact(struct worker_config *worker, const struct arguments *arguments,
                        struct runner_config *config)
{
    const struct settings *settings = &arguments->settings;

    /* the arguments have treadle.conf's own text where nothing goes before it */
    worker->broker = arguments->is_broker_given ? arguments->broker : NULL;
    worker->identity = arguments->identity != settings->identity ? arguments->identity : NULL;
    worker->server_key =
        arguments->server_key != settings->server_key ? arguments->server_key : NULL;
    if (config != NULL) {
        runner_config_apply(config, worker, is_given(arguments, OPTION_POOL));
    }
    /* treadle.conf, or the default */
    worker->broker = worker->broker != NULL ? worker->broker : arguments->broker;
    worker->identity = worker->identity != NULL ? worker->identity : arguments->identity;
    worker->server_key = worker->server_key != NULL ? worker->server_key : arguments->server_key;
}

static enum cli_exit work(const struct arguments *arguments)
{
    const char *const *words = (const char *const *)arguments->words;
    const struct worker_command command = {
        .patterns = words,
        .pattern_count = arguments->word_count,
        .command = arguments->command,
        .is_permanent_exit = arguments->is_permanent_exit,
    };
    struct runner_options options = {
        .worker = {.name = arguments->name,
                   .slots = (uint32_t)arguments->slots,
                   .is_threaded = arguments->is_threaded,
                   .memory_max = arguments->memory_max,
                   .drain_ms = arguments->drain_ms,
                   .policy = arguments->policy,
                   .plugins = arguments->plugins,
                   .plugin_count = arguments->plugin_count},
        .file = arguments->config,
        .is_check = arguments->is_check,
    };
    struct runner_config *config = NULL;
    enum cli_exit code = check_handlers(arguments);

    code = code == CLI_DONE ? check_names(arguments) : code;
    code = code == CLI_DONE ? check_program(arguments) : code;
    if (arguments->command_count > 0) {
        options.worker.commands = &command;
        options.worker.command_count = 1;
    } else {
        options.worker.only = words;
        options.worker.only_count = arguments->word_count;
    }
    if (code == CLI_DONE && arguments->config != NULL) {
        code = read_file(arguments, &config);
    }
    if (code == CLI_DONE) {
        set_contact(&options.worker, arguments, config);
        code = (enum cli_exit)runner_main(&options);
    }
    runner_config_destroy(&config);
    return code;
}

const struct verb verb_work = {
    .name = "work",
    .words = "[SERVICE.TASK...] [-- COMMAND [ARGUMENT...]]",
    .summary = "A worker made of a command, of plugins, or of what a file says",
    .details =
        "With COMMAND: each task runs it once, its body on stdin, its result from stdout; exit "
        "code 0 is success, any other a failure that may be tried again (--permanent-exit: not), "
        "the last line of stderr its message; TREADLE_TASK_ID and other TREADLE_ variables tell "
        "about the task. SERVICE.* serves every task of a service. With --plugin: the handlers of "
        "shared objects, all of them or only those named. With -c FILE: as many commands and "
        "plugins as it says. The policies given count before those of the submission. "
        "INT or TERM: finishes what runs, takes nothing new; a second one ends at once.",
    .options =
        OPTIONS_CONNECT | OPTIONS_POLICY | OPTION_BIT(OPTION_GRACE) | OPTION_BIT(OPTION_SLOTS) |
        OPTION_BIT(OPTION_NAME) | OPTION_BIT(OPTION_PERMANENT_EXIT) | OPTION_BIT(OPTION_PLUGIN) |
        OPTION_BIT(OPTION_POOL) | OPTION_BIT(OPTION_MEMORY_MAX) | OPTION_BIT(OPTION_DRAIN_TIMEOUT) |
        OPTION_BIT(OPTION_CONFIG) | OPTION_BIT(OPTION_CHECK_CONFIG),
    .words_min = 0,
    .words_max = SERVE_COUNT_MAX,
    .takes_command = true,
    .run = work,
};
