/* SPDX-License-Identifier: MPL-2.0 */
/* The children of this process as the kernel tells them, also those that it did not start. */
#ifndef TREADLE_WORKER_EXEC_CHILDREN_H
#define TREADLE_WORKER_EXEC_CHILDREN_H

#include <stdbool.h>
#include <sys/types.h>

/* Told of each child, those that are dead and not waited for among them. */
struct children_visitor {
    void *context;
    void (*visit)(void *context, pid_t child);
};

/* From the kernel's list of the calling thread's children: all of them, if the process has no other
 * thread. False: the kernel was built without it. */
bool children_list(const struct children_visitor *visitor);

/* From what each process of the machine says of its parent. False: there is no /proc. */
bool children_scan(const struct children_visitor *visitor);

#endif
