/* SPDX-License-Identifier: MPL-2.0 */
/* Tasks as JSON and as tables. */
#ifndef TREADLE_CLI_TASK_PRINT_H
#define TREADLE_CLI_TASK_PRINT_H

#include "client/cli/output.h"
#include "common/wire/message.h"

/* A row of a listing; NULL: memory is out. */
json_t *task_row_to_json(const struct wire_task_row *row);

/* One task with its policies and its history; NULL: memory is out. `info` holds one row. */
json_t *task_to_json(const struct wire_task_info *info);

/* The table of a listing, and a row of it. */
struct table *task_table_open(void);
void task_row_add(struct table *table, const struct wire_task_row *row);

/* One task for people, to stdout. */
TREADLE_MUST_USE enum cli_exit task_print(const struct wire_task_info *info);

/* The gate that an unsettled task waits at, without a subject: "waits: service demo is paused;
 * ...". Free it; NULL: memory is out. */
TREADLE_MUST_USE char *task_gate_in_words(const struct wire_task_info *info,
                                          const struct wire_task_row *row);

#endif
