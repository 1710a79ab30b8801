/* SPDX-License-Identifier: MPL-2.0 */
/* The environment of a command: the worker's, less its secrets, and the attempt it is for. */
#ifndef TREADLE_WORKER_EXEC_ENVIRONMENT_H
#define TREADLE_WORKER_EXEC_ENVIRONMENT_H

#include "worker/session.h"

/* A new NULL-terminated array for exec; NULL when memory is out. End it with environment_free().
 * `inherited` is as environ(7) has it. */
char **environment_create(char *const *inherited, const struct worker_attempt *attempt,
                          const char *worker);

/* NULL is fine. */
void environment_free(char **environment);

#endif
