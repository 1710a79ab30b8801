/* SPDX-License-Identifier: MPL-2.0 */
/* Which handler serves a task: one with its very name, else one of its whole service. */
#ifndef TREADLE_WORKER_ROUTES_H
#define TREADLE_WORKER_ROUTES_H

#include <stdbool.h>
#include <stddef.h>

#include <treadle/status.h>

#include "common/base/bytes.h"
#include "worker/exec/handler.h"

/* Where an attempt is run. */
enum route_place {
    ROUTE_COMMANDS,
    ROUTE_PROCESSES,
    ROUTE_THREADS,
    ROUTE_PLACE_COUNT,
};

struct route {
    struct handler handler; /* its pattern is borrowed and must stay */
    enum route_place place;
};

/* At most SERVE_COUNT_MAX, in the order they were added. */
struct routes;

/* NULL when memory is out. */
struct routes *routes_create(void);

/* Nulls the pointer; NULL is fine. */
void routes_destroy(struct routes **routes);

/* TREADLE_E_CONFLICT: there is a handler of this pattern; TREADLE_E_LIMIT: too many. */
enum treadle_status routes_add(struct routes *routes, const struct route *route);

size_t routes_count(const struct routes *routes);
const struct route *routes_at(const struct routes *routes, size_t index);

/* NULL: there is none. */
const struct route *routes_find(const struct routes *routes, struct bytes service,
                                struct bytes task);

/* Whether a text is SERVICE.TASK or SERVICE.*. */
bool route_is_pattern(const char *text);

/* Whether a handler of `pattern` would be given the task, or all the tasks, of `name`. */
bool route_covers(const char *pattern, const char *name);

#endif
