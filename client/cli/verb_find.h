/* SPDX-License-Identifier: MPL-2.0 */
/* The table of all verbs: finding one, naming them. */
#ifndef TREADLE_CLI_VERB_FIND_H
#define TREADLE_CLI_VERB_FIND_H

#include <stdio.h>

#include "client/cli/options.h"

/* Finds the verb that the words begin with; *used tells how many words its name has. Otherwise
 * CLI_USAGE, said on stderr with the nearest verb. */
TREADLE_MUST_USE enum cli_exit verb_find(char *const *words, size_t word_count,
                                         const struct verb **verb, size_t *used);

/* The verbs in the order of the table; NULL after the last. */
const struct verb *verb_at(size_t index);

/* Lists all verbs. */
void verbs_print(FILE *to);

/* Lists the verbs that begin with this word; false, and nothing printed, when there are not several
 * words to their names. */
TREADLE_MUST_USE bool family_print(FILE *to, const char *family);

#endif
