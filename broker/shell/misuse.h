/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What becomes of a peer whose messages cannot be read. Malformed ones are counted, logged once a
 * minute a peer, and the tenth within 60 s cuts it off; what is only over a size, frame or entry
 * limit is refused, and the third time cut off. Pure: the time is an argument.
 */
#ifndef TREADLE_SHELL_MISUSE_H
#define TREADLE_SHELL_MISUSE_H

#include <stdbool.h>
#include <stdint.h>

#define MALFORMED_COUNT_MAX  10U
#define MALFORMED_SPAN_MS    60000U
#define OVER_LIMIT_COUNT_MAX 3U
#define MISUSE_LOG_SPAN_MS   60000U

/* Of one connection; zeros at its start. */
struct misuse {
    uint64_t malformed_at_ms[MALFORMED_COUNT_MAX]; /* 1 + the instant of each of the last ones, in a
                                                      ring */
    uint64_t logged_at_ms;                         /* 1 + the instant of the last line; 0: never */
    uint32_t malformed_next;
    uint32_t over_limit_count;
};

struct misuse_verdict {
    bool is_logged;
    bool is_cut;
};

/* Whether a line about this connection may be written now; it is taken for written. */
bool misuse_may_log(struct misuse *misuse, uint64_t now_ms);

struct misuse_verdict misuse_on_malformed(struct misuse *misuse, uint64_t now_ms);
struct misuse_verdict misuse_on_over_limit(struct misuse *misuse, uint64_t now_ms);

#endif
