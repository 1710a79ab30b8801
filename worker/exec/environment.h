/* SPDX-License-Identifier: MPL-2.0 */
/* The environment of a command: the worker's, less its secrets, and the attempt it is for. */
#ifndef TREADLE_WORKER_EXEC_ENVIRONMENT_H
#define TREADLE_WORKER_EXEC_ENVIRONMENT_H

#include <stddef.h>

#include "worker/session.h"

/* The variables of the attempt: a new NULL-terminated array; NULL when memory is out. End it with
 * environment_free(). */
char **environment_create(const struct worker_attempt *attempt, const char *worker);

/* NULL is fine. */
void environment_free(char **environment);

/* What exec is given: `inherited` (as environ(7) has it) less the worker's secrets and less what is
 * added, and the added ones: `size` bytes of texts with a NUL after each. One block that points
 * into both; end it with free(). NULL when memory is out. */
char **environment_merge(char *const *inherited, char *added, size_t size);

#endif
