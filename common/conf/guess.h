/* SPDX-License-Identifier: MPL-2.0 */
/* Which name was probably meant by one that there is not. Of conf.c. */
#ifndef TREADLE_CONF_GUESS_H
#define TREADLE_CONF_GUESS_H

#include <stddef.h>

struct guess {
    const char *name; /* as it was written */
    size_t name_size;
    size_t least;
    const char *meant; /* the nearest of those offered; NULL: none is near */
};

void guess_init(struct guess *guess, const char *name);

/* `name` must stay. */
void guess_offer(struct guess *guess, const char *name);

#endif
