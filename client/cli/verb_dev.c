/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/options.h"

#define BROKER_PROGRAM "treadled"

/* The folder of this program, in `out`, with a slash at its end; "" when it cannot be told. */
static void own_folder(char out[PATH_MAX])
{
    ssize_t size = readlink("/proc/self/exe", out, PATH_MAX - 1);

    out[size < 0 ? 0 : size] = '\0';
    char *slash = strrchr(out, '/');

    if (slash != NULL) {
        slash[1] = '\0';
    }
}

static enum cli_exit dev(const struct arguments *arguments)
{
    char folder[PATH_MAX];
    char path[PATH_MAX + 32];
    char program[] = BROKER_PROGRAM;
    char dev_option[] = "--dev";
    char listen_option[] = "--listen";
    char endpoint[PATH_MAX];
    char *words[] = {program, dev_option, listen_option, endpoint, NULL};

    int size = snprintf(endpoint, sizeof(endpoint), "%s",
                        arguments->is_broker_given ? arguments->broker : BROKER_LOOPBACK);

    if (size < 0 || (size_t)size >= sizeof(endpoint)) {
        return cli_fail(CLI_USAGE, "dev: --broker: the endpoint is too long");
    }
    own_folder(folder);
    if (folder[0] != '\0') {
        snprintf(path, sizeof(path), "%s" BROKER_PROGRAM, folder);
        execv(path, words);
        snprintf(path, sizeof(path), "%s../sbin/" BROKER_PROGRAM, folder);
        execv(path, words);
    }
    execvp(program, words);
    return cli_fail(CLI_UNAVAILABLE,
                    "dev: " BROKER_PROGRAM ": %s; it belongs beside this program in %s",
                    strerrordesc_np(errno), folder);
}

const struct verb verb_dev = {
    .name = "dev",
    .words = "",
    .summary = "A broker for trying things out: on the loopback, forgets all when it ends",
    .details = "Listens at --broker, else TREADLE_BROKER, else " BROKER_LOOPBACK
               ", and prints each task as it lives. Ends with ^C. Then, elsewhere:\n\n"
               "  treadle work wc.count -- wc -w\n"
               "  treadle run wc.count @README.md",
    .options = OPTION_BIT(OPTION_BROKER),
    .run = dev,
};
