/* SPDX-License-Identifier: MPL-2.0 */
/* treadle: the command line. Finds the verb, reads its words and options, runs it. */
#define _GNU_SOURCE
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/options.h"
#include "client/cli/verb_find.h"
#include "common/base/streams.h"

static bool is_help_option(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "-?") == 0;
}

/* What stands before any verb, or without one; -1: there is a verb. */
static int run_without_verb(int argc, char **argv)
{
    if (argc < 2) {
        verbs_print(stderr);
        return CLI_USAGE;
    }
    if (is_help_option(argv[1])) {
        verbs_print(stdout);
        return (int)cli_flush(CLI_DONE);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("treadle " TREADLE_VERSION "\n");
        return (int)cli_flush(CLI_DONE);
    }
    if (argv[1][0] == '-') {
        return (int)cli_fail(CLI_USAGE, "'%s': options come after the verb; see: treadle help",
                             argv[1]);
    }
    if (argc >= 3 && is_help_option(argv[2]) && family_print(stdout, argv[1])) {
        return (int)cli_flush(CLI_DONE);
    }
    return -1;
}

int main(int argc, char **argv)
{
    /* The environment is read here and nowhere else. Nothing is ever coloured, so NO_COLOR holds
     * without being looked at. */
    const struct cli_environment environment = {
        /* NOLINTBEGIN(concurrency-mt-unsafe): no thread yet */
        .broker = getenv("TREADLE_BROKER"),
        .identity = getenv("TREADLE_IDENTITY"),
        .server_key = getenv("TREADLE_SERVER_KEY"),
        .home = getenv("HOME"),
        /* NOLINTEND(concurrency-mt-unsafe) */
    };
    struct arguments arguments;
    const struct verb *verb = NULL;
    size_t used = 0;
    char name[64];

    streams_hold();
    setlocale(LC_CTYPE, ""); /* NOLINT(concurrency-mt-unsafe): so that tables show UTF-8 */
    int done = run_without_verb(argc, argv);

    if (done != -1) {
        return done;
    }
    enum cli_exit code = verb_find(argv + 1, (size_t)argc - 1, &verb, &used);

    if (code != CLI_DONE) {
        return (int)code;
    }
    snprintf(name, sizeof(name), "treadle %s", verb->name);
    argv += used;
    argc -= (int)used;
    argv[0] = name;
    code = arguments_parse(&arguments, verb, &environment, argc, argv);
    if (code == CLI_DONE && !arguments.is_help) {
        code = verb->run(&arguments);
    }
    arguments_reset(&arguments);
    return (int)cli_flush(code);
}
