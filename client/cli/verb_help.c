/* SPDX-License-Identifier: MPL-2.0 */
/* help, version */
#define _GNU_SOURCE
#include <stdio.h>

#include "client/cli/options.h"
#include "client/cli/verb_find.h"

static enum cli_exit help(const struct arguments *arguments)
{
    if (arguments->word_count == 0) {
        verbs_print(stdout);
        return CLI_DONE;
    }
    const struct verb *verb = NULL;
    size_t used = 0;

    if (arguments->word_count == 1 && family_print(stdout, arguments->words[0])) {
        return CLI_DONE;
    }
    enum cli_exit code = verb_find(arguments->words, arguments->word_count, &verb, &used);

    if (code == CLI_DONE && used < arguments->word_count) {
        return cli_fail(CLI_USAGE, "help: '%s' is one word too many; usage: treadle help [VERB]",
                        arguments->words[used]);
    }
    if (code == CLI_DONE) {
        verb_print_help(verb);
    }
    return code;
}

const struct verb verb_help = {
    .name = "help",
    .words = "[VERB]",
    .summary = "List all verbs, or tell all about one",
    .words_max = 2,
    .run = help,
};

static enum cli_exit version(const struct arguments *arguments)
{
    (void)arguments;
    printf("treadle " TREADLE_VERSION "\n");
    return CLI_DONE;
}

const struct verb verb_version = {
    .name = "version",
    .words = "",
    .summary = "Print the version",
    .run = version,
};
