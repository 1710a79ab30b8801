/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The functions of a process that runs them: those of the program and of its plugins, opened,
 * checked and copied into one table. Only ever in a child, never in the supervisor.
 */
#ifndef TREADLE_WORKER_EXEC_PLUGIN_H
#define TREADLE_WORKER_EXEC_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <treadle/worker.h>

#include "common/wire/message.h"
#include "worker/exec/functions.h"

struct function {
    struct treadle_handler handler; /* the fields this library knows; the texts are the plugin's */
    struct wire_policy policy;      /* what the code registers */
    const char *origin;             /* the plugin's file; NULL: the program */
};

struct function_table {
    struct function *functions;
    size_t function_count;
    struct treadle_plugin *plugins;
    const char *const *files; /* of the plugins */
    size_t plugin_count;
    size_t started_count; /* of the plugins, from the first */
};

/* Opens and checks everything. Before each plugin on_open(context, its index) is called; NULL:
 * nobody listens. False: `text` says which and why, and what to do. Plugins stay open for as long
 * as the process lives. */
bool function_table_open(struct function_table *table, const struct function_sources *sources,
                         void (*on_open)(void *context, size_t plugin_index), void *context,
                         char text[FUNCTION_TEXT_SIZE]);

/* Calls the plugins' start functions, in order. False: `text` says which will not start, and why;
 * those before it are to be stopped. */
bool function_table_start(struct function_table *table, char text[FUNCTION_TEXT_SIZE]);

/* Calls the stop functions of those that were started, the last first. */
void function_table_stop(struct function_table *table);

/* Forgets the table. */
void function_table_reset(struct function_table *table);

#endif
