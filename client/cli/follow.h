/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Following one task: until the broker has it, or until it has settled; saying meanwhile when no
 * worker serves it or the broker is away; printing what became of it. One thread.
 */
#ifndef TREADLE_CLI_FOLLOW_H
#define TREADLE_CLI_FOLLOW_H

#include "client/cli/watch.h"

struct follow {
    struct contact *contact;
    const char *name; /* SERVICE.TASK */
    struct treadle_task_id id;

    struct treadle_outcome *outcome; /* once there is one */

    /* The rest belongs to follow.c. */
    struct watch watch;
    bool is_accepted;
    bool is_given_up; /* cancelled, for want of a worker */
    uint64_t give_up_at_ms;
    uint64_t patience_ends_at_ms;
    uint64_t cancel_status; /* CANCEL_STATUS_COUNT: no answer yet */
};

/* Begins at now; end it with follow_reset(). is_ours: submitted by this verb, so cancelled by it
 * when it is interrupted and when no worker is there. */
void follow_init(struct follow *follow, struct contact *contact, const char *name,
                 const struct treadle_task_id *id, bool is_ours);

void follow_reset(struct follow *follow);

/* Waits until the broker has taken the task. CLI_DONE: it has (outcome NULL), or it says no
 * (outcome set). Else as contact_wait(), said on stderr. */
TREADLE_MUST_USE enum cli_exit follow_until_accepted(struct follow *follow);

/* Waits until there is an outcome: CLI_DONE. CLI_PATIENCE: --wait passed; CLI_UNAVAILABLE:
 * --worker-wait passed, the task is cancelled; CLI_INTERRUPTED: cancelled if ours, unless --detach.
 * All said on stderr. */
TREADLE_MUST_USE enum cli_exit follow_until_settled(struct follow *follow);

/* Words for the reasons of BUSY and REFUSED; the reason itself for those that need none. */
const char *reason_in_words(const char *reason);

/* The result to stdout byte for byte, or the failure to stderr; the verb's exit code. */
TREADLE_MUST_USE enum cli_exit outcome_print(const struct arguments *arguments, const char *name,
                                             const struct treadle_outcome *outcome);

#endif
