/* SPDX-License-Identifier: MPL-2.0 */
/* The log's forms beside text. Both may be called from any thread. */
#ifndef TREADLE_SHELL_LOG_SINKS_H
#define TREADLE_SHELL_LOG_SINKS_H

#include "common/base/log.h"

#include <sys/uio.h>

#define JOURNAL_FIELD_COUNT_MAX 48U

/* One JSON object a line: time, level, event and the line's fields. */
bool log_json(const struct log_line *line);

/* The journal's fields: MESSAGE, PRIORITY, TREADLE_EVENT and TREADLE_KEY for each field of the
 * line. Where no journal answers: as text. */
bool log_journal(const struct log_line *line);

/* Those fields, each allocated, for sd_journal_sendv(); returns how many. */
size_t journal_fields(const struct log_line *line, struct iovec fields[JOURNAL_FIELD_COUNT_MAX]);

#endif
