/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What a principal may do: roles as bits, services as globs. A glob is matched with SERVICE.TASK; a
 * `*` in it stands for any characters, dots too. No globs: no service. Pure.
 */
#ifndef TREADLE_CORE_RIGHTS_H
#define TREADLE_CORE_RIGHTS_H

#include "common/base/bytes.h"
#include "common/wire/terms.h"

#include <stdbool.h>
#include <stdint.h>

struct globs {
    const struct bytes *at; /* each of 1 to PATTERN_SIZE_MAX bytes */
    uint32_t count;         /* at most GLOB_COUNT_MAX */
};

/* A copy. It points into itself: never copy or move it. */
struct kept_globs {
    struct globs globs;
    struct bytes at[GLOB_COUNT_MAX];
    uint8_t texts[GLOB_COUNT_MAX][PATTERN_SIZE_MAX];
};

/* Every service. */
extern const struct globs globs_all;

/* Whether one of the globs covers all that `pattern` names: SERVICE.TASK, SERVICE.*, or a glob. */
bool globs_cover(const struct globs *globs, struct bytes pattern);

/* The same of every task of a service. */
bool globs_cover_service(const struct globs *globs, struct bytes service);

/* Of one task. What has a dot in its name only the whole service covers: patterns are split at the
 * last dot, so that with the name alone it could be a task of another service. */
bool globs_cover_task(const struct globs *globs, struct bytes service, struct bytes task);

/* Whether one of the globs covers some task of the service. */
bool globs_touch_service(const struct globs *globs, struct bytes service);

/* Copies them; NULL is none. */
void globs_keep(struct kept_globs *kept, const struct globs *globs);

#endif
