/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What a principal may do: roles as bits, services as globs. A glob is matched with SERVICE.TASK; a
 * `*` in it stands for any characters, dots too. No globs: no service. Pure.
 */
#ifndef TREADLE_CORE_RIGHTS_H
#define TREADLE_CORE_RIGHTS_H

#include "common/base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

#define RIGHT_SUBMIT 1U
#define RIGHT_WORK   2U
#define RIGHT_ADMIN  4U
#define RIGHT_ALL    7U

struct globs {
    const struct bytes *at;
    uint32_t count;
};

/* Every service. */
extern const struct globs globs_all;

/* Whether one of the globs covers all that `pattern` names: SERVICE.TASK, SERVICE.*, or a glob. */
bool globs_cover(const struct globs *globs, struct bytes pattern);

/* The same of every task of a service. */
bool globs_cover_service(const struct globs *globs, struct bytes service);

/* Whether one of the globs covers some task of the service. */
bool globs_touch_service(const struct globs *globs, struct bytes service);

#endif
