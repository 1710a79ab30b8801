/* SPDX-License-Identifier: MPL-2.0 */
/* A task as the command line gives it, for `run` and `submit`. */
#ifndef TREADLE_CLI_SUBMISSION_H
#define TREADLE_CLI_SUBMISSION_H

#include "client/cli/contact.h"

struct submission {
    const char *name; /* SERVICE.TASK */
    uint8_t *body;    /* ours */
    size_t body_size;
    struct treadle_task task; /* points into the arguments and here */
};

/* Reads name, body and options; everything that can be wrong before a broker is looked for is said
 * on stderr. End it with submission_reset() in any case. flags: TREADLE_TASK_ ones beside those
 * that options ask for. */
TREADLE_MUST_USE enum cli_exit submission_read(struct submission *submission,
                                               const struct arguments *arguments, uint32_t flags);

void submission_reset(struct submission *submission);

/* Hands the task to the client; ACCEPTED and BUSY are told as events. */
TREADLE_MUST_USE enum cli_exit submission_send(const struct submission *submission,
                                               struct contact *contact, struct treadle_task_id *id);

#endif
