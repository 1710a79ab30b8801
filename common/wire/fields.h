/* SPDX-License-Identifier: MPL-2.0 */
/* FIELD_COUNT_NAME for each record and message: the length of its array in this version. */
#ifndef TREADLE_WIRE_FIELDS_H
#define TREADLE_WIRE_FIELDS_H

/* clang-format off */
/* NOLINTBEGIN */
#define RECORD(name)                          enum { FIELD_COUNT_##name = 0
#define MESSAGE(name, upper, kind, direction) enum { FIELD_COUNT_##name = 0
#define END(name)                             };
#define UINT(name, max)                       + 1
#define BIN(name, min, max)                   + 1
#define STR(name, min, max)                   + 1
#define NAME(name, min)                       + 1
#define TASK_ID(name)                         + 1
#define BODY(name)                            + 1
#define NEST(name, record)                    + 1
#define LIST(name, record, max)               + 1
#include "common/wire/messages.def"
/* NOLINTEND */
/* clang-format on */

#endif
