/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <stdio.h>

#include "client/cli/follow.h"
#include "client/cli/submission.h"
#include "common/base/uuid.h"

/* Waits for ACCEPTED, prints the id, says if nobody is there to run it. */
static enum cli_exit submit_and_print(const struct submission *submission, struct contact *contact)
{
    struct follow follow;
    struct treadle_task_id id;
    char text[UUID_TEXT_SIZE];
    enum cli_exit code = submission_send(submission, contact, &id);

    if (code != CLI_DONE) {
        return code;
    }
    follow_init(&follow, contact, submission->name, &id, false);
    code = follow_until_accepted(&follow);
    if (code == CLI_DONE && follow.outcome != NULL && follow.outcome->status != TREADLE_OK) {
        code = outcome_print(contact->arguments, submission->name, follow.outcome);
    } else if (code == CLI_DONE) {
        uuid_print(&id, text);
        printf("%s\n", text);
        code = cli_flush(CLI_DONE);
        if (code == CLI_DONE && follow.outcome == NULL) {
            watch_note_missing_worker(&follow.watch, &id);
        }
    }
    follow_reset(&follow);
    return code;
}

static enum cli_exit submit(const struct arguments *arguments)
{
    struct submission submission;
    struct contact contact;
    enum cli_exit code =
        submission_read(&submission, arguments, TREADLE_TASK_KEEP | TREADLE_TASK_DETACHED);

    if (code == CLI_DONE) {
        code = contact_open(&contact, arguments);
    }
    if (code == CLI_DONE) {
        code = submit_and_print(&submission, &contact);
        contact_close(&contact);
    }
    submission_reset(&submission);
    return code;
}

const struct verb verb_submit = {
    .name = "submit",
    .words = "SERVICE.TASK [BODY]",
    .summary = "Submit a task and print its id once the broker has it",
    .details = "BODY is the text itself, `-' for stdin or @FILE for a file's content; without it "
               "the body is empty. The result is kept for --result-ttl: treadle task wait ID.",
    .options = OPTIONS_CONTACT | OPTIONS_TASK,
    .words_min = 1,
    .words_max = 2,
    .run = submit,
};
