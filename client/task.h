/* SPDX-License-Identifier: MPL-2.0 */
/* A task as the application gives it, made into what the session submits. One thread. */
#ifndef TREADLE_CLIENT_TASK_H
#define TREADLE_CLIENT_TASK_H

#include <treadle/client.h>

#include "client/session.h"

/* Reused from task to task. The submission points into it, and into the application's task. */
struct task_reader {
    struct writer tags;
    struct writer meta;
    struct wire_submit_template fields;
    struct client_submission submission;
    uint8_t random[1000]; /* for ids, ten bytes each */
    size_t random_left;
};

void client_task_reader_init(struct task_reader *reader);

/* Gives the memory back. */
void client_task_reader_reset(struct task_reader *reader);

/* Copies a struct whose first member is its size, as the application knows it, over `to`, which was
 * zeroed: fields that only one side knows are left 0. False: the size is none, or a field we do not
 * know is not 0. */
bool client_options_copy(void *to, size_t to_size, const void *from, size_t from_size);

/* Fills reader->submission. False: *why says in words what is out of its range. */
bool client_task_read(struct task_reader *reader, const struct treadle_task *task,
                      const char **why);

#endif
