/* SPDX-License-Identifier: MPL-2.0 */
/* What the end of a command means. */
#ifndef TREADLE_WORKER_EXEC_OUTCOME_H
#define TREADLE_WORKER_EXEC_OUTCOME_H

#include <stdbool.h>
#include <stddef.h>

#include "common/wire/message.h"

/* The end of what a command wrote to stderr. */
struct trace_tail {
    uint8_t data[2 * ERROR_TRACE_SIZE_MAX];
    size_t size;
    bool is_cut; /* there was more before */
};

/* Appends, and forgets what is older than the last ERROR_TRACE_SIZE_MAX bytes at the latest when
 * room is needed. */
void trace_tail_add(struct trace_tail *tail, const uint8_t *data, size_t size);

/* At most ERROR_TRACE_SIZE_MAX bytes, not starting within a character of UTF-8. */
struct bytes trace_tail_text(const struct trace_tail *tail);

/* The last line that is not blank, without white space around it, at most ERROR_MESSAGE_SIZE_MAX
 * bytes of it; empty if there is none. */
struct bytes trace_tail_last_line(const struct trace_tail *tail);

/* Room for the texts of a failure that come from no one's stderr. */
struct outcome_texts {
    char name[NAME_SIZE_MAX];
    char message[128];
};

/* The kind of a failure to start a process: what passes by itself is worth another attempt; a
 * program that is not there is not. */
enum failure_kind outcome_kind_of_errno(int error);

/* "spawn.EAGAIN" */
void outcome_name_errno(char name[NAME_SIZE_MAX], int error);

/* Whether waitpid()'s state is a success; if not, fills kind, name, message, trace and signal. */
bool outcome_judge(int wait_state, const bool *is_permanent_exit, const struct trace_tail *tail,
                   struct outcome_texts *texts, struct wire_failure_entry *failure);

#endif
