/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/follow.h"
#include "client/cli/submission.h"

static enum cli_exit run(const struct arguments *arguments)
{
    struct submission submission;
    struct contact contact;
    struct follow follow = {0};
    struct treadle_task_id id;
    enum cli_exit code = submission_read(&submission, arguments, 0);

    if (code == CLI_DONE) {
        code = contact_open(&contact, arguments);
    }
    if (code == CLI_DONE) {
        code = submission_send(&submission, &contact, &id);
        if (code == CLI_DONE) {
            follow_init(&follow, &contact, submission.name, &id, true);
            code = follow_until_settled(&follow);
        }
        contact_close(&contact);
        if (code == CLI_DONE) {
            code = outcome_print(arguments, submission.name, follow.outcome);
        }
    }
    follow_reset(&follow);
    submission_reset(&submission);
    return code;
}

const struct verb verb_run = {
    .name = "run",
    .words = "SERVICE.TASK [BODY]",
    .summary = "Submit a task and wait: its result on stdout, its failure on stderr",
    .details = "BODY is the text itself, `-' for stdin or @FILE for a file's content; without it "
               "the body is empty. Interrupted, it cancels the task. Exits 0 with the result, 1 "
               "when the task did not succeed, 69 when no broker or no worker is there.",
    .options = OPTIONS_CONTACT | OPTIONS_TASK | OPTION_BIT(OPTION_WAIT) |
               OPTION_BIT(OPTION_WORKER_WAIT) | OPTION_BIT(OPTION_DETACH),
    .words_min = 1,
    .words_max = 2,
    .run = run,
};
