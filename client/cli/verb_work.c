/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <string.h>

#include "client/cli/options.h"
#include "worker/runner/runner.h"

static enum cli_exit work(const struct arguments *arguments)
{
    const char *patterns[SERVE_COUNT_MAX];
    struct task_name name;

    for (size_t i = 0; i < arguments->word_count; i++) {
        enum cli_exit code = task_name_parse(arguments, arguments->words[i], true, &name);

        if (code != CLI_DONE) {
            return code;
        }
        patterns[i] = arguments->words[i];
    }
    if (arguments->command_count == 0) {
        return cli_fail(CLI_USAGE,
                        "work: no command; put it after `--', like: treadle work %s -- wc -w",
                        arguments->words[0]);
    }
    struct runner_options options = {
        .broker = arguments->broker,
        .patterns = patterns,
        .pattern_count = arguments->word_count,
        .policy = arguments->policy,
        .slots = (uint32_t)arguments->slots,
        .name = arguments->name,
        .command = arguments->command,
    };

    _Static_assert(sizeof(options.is_permanent_exit) == sizeof(arguments->is_permanent_exit),
                   "one for each exit code");
    memcpy(options.is_permanent_exit, arguments->is_permanent_exit,
           sizeof(options.is_permanent_exit));
    return (enum cli_exit)runner_main(&options);
}

const struct verb verb_work = {
    .name = "work",
    .words = "SERVICE.TASK... -- COMMAND [ARGUMENT...]",
    .summary = "A worker made of a command: body on its stdin, result from its stdout",
    .details = "SERVICE.* serves every task of a service. Each task runs COMMAND once; exit code 0 "
               "is success, any other a failure that may be tried again (--permanent-exit: not), "
               "the last line of stderr its message. TREADLE_TASK_ID and other TREADLE_ variables "
               "tell about the task. The policies given count before those of the submission. "
               "INT or TERM: finishes what runs, takes nothing new; a second one ends at once.",
    .options = OPTION_BIT(OPTION_BROKER) | OPTIONS_POLICY | OPTION_BIT(OPTION_GRACE) |
               OPTION_BIT(OPTION_SLOTS) | OPTION_BIT(OPTION_NAME) |
               OPTION_BIT(OPTION_PERMANENT_EXIT),
    .words_min = 1,
    .words_max = SERVE_COUNT_MAX,
    .takes_command = true,
    .run = work,
};
