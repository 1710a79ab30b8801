/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/mapping.h"

static enum cli_exit map(const struct arguments *arguments)
{
    if ((arguments->is_resume || arguments->is_resume_failed) && arguments->joblog == NULL) {
        return cli_fail(CLI_USAGE, "map: %s needs the job log to resume from: --joblog FILE",
                        arguments->is_resume ? "--resume" : "--resume-failed");
    }
    if (arguments->is_detached && arguments->joblog != NULL) {
        return cli_fail(CLI_USAGE,
                        "map: --detach and --joblog exclude each other: --detach does not wait "
                        "for what the job log tells; keep the ids it prints");
    }
    return mapping_run(arguments);
}

const struct verb verb_map = {
    .name = "map",
    .words = "SERVICE.TASK",
    .summary = "A task for each line of stdin, their results in the same order on stdout",
    .details =
        "The body is the line without its newline; each result is printed with one newline at its "
        "end, added if it is missing. A task that does not succeed prints nothing on stdout and "
        "one line on stderr, and the others go on. --joblog has GNU parallel's columns, then Id, "
        "Attempts and Kind; without --resume an existing one is overwritten. Interrupted, it "
        "cancels what is in flight; --resume then does what is left. Exits 0 when all succeeded, 1 "
        "when some did not, 65 when the job log is none, 69 when no broker or no worker is there, "
        "75 when --wait ended, 130 when interrupted, 141 when nobody reads stdout any more.",
    .options =
        OPTIONS_CONTACT | (OPTIONS_TASK & ~(OPTION_BIT(OPTION_ID) | OPTION_BIT(OPTION_RAW))) |
        OPTION_BIT(OPTION_WAIT) | OPTION_BIT(OPTION_WORKER_WAIT) | OPTION_BIT(OPTION_DETACH) |
        OPTION_BIT(OPTION_JOBS) | OPTION_BIT(OPTION_NULL) | OPTION_BIT(OPTION_FROM_FILES) |
        OPTION_BIT(OPTION_UNORDERED) | OPTION_BIT(OPTION_JOBLOG) | OPTION_BIT(OPTION_RESUME) |
        OPTION_BIT(OPTION_RESUME_FAILED) | OPTION_BIT(OPTION_NO_PROGRESS),
    .words_min = 1,
    .words_max = 1,
    .run = map,
};
