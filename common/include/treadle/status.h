/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_STATUS_H
#define TREADLE_STATUS_H

#include <treadle/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Every status once: name, number, text. Numbers are never reused. */
#define TREADLE_STATUS_MAP(X)                                                                      \
    X(TREADLE_OK, 0, "ok")                                                                         \
    X(TREADLE_E_INVALID, 1, "an argument is out of range")                                         \
    X(TREADLE_E_AGAIN, 2, "not now; try again")                                                    \
    X(TREADLE_E_BUSY, 3, "a limit is reached")                                                     \
    X(TREADLE_E_NOMEM, 4, "out of memory")                                                         \
    X(TREADLE_E_IO, 5, "input or output failed")                                                   \
    X(TREADLE_E_PROTOCOL, 6, "the peer broke the protocol")                                        \
    X(TREADLE_E_TIMEOUT, 7, "timed out")                                                           \
    X(TREADLE_E_REFUSED, 8, "refused")                                                             \
    X(TREADLE_E_NOT_FOUND, 9, "not found")                                                         \
    X(TREADLE_E_CONFLICT, 10, "the id is taken by another content")                                \
    X(TREADLE_E_NO_BROKER, 11, "no broker answers")                                                \
    X(TREADLE_E_THREADS, 12, "called after a thread or a context was started")                     \
    X(TREADLE_E_LIMIT, 13, "too large or too many")                                                \
    X(TREADLE_E_KEY, 14, "a key is missing, or its file is refused")

enum treadle_status {
/* NOLINTBEGIN(bugprone-macro-parentheses): a name cannot stand in parentheses here */
#define TREADLE_STATUS_ENUM(name, number, text) name = number,
    TREADLE_STATUS_MAP(TREADLE_STATUS_ENUM)
#undef TREADLE_STATUS_ENUM
    /* NOLINTEND(bugprone-macro-parentheses) */
};

/**
 * The text of a status, for people.
 *
 * @return a constant string, never NULL; "unknown status" for a number that is none
 *
 * Threads: any. Since: 0.1.
 */
TREADLE_API const char *treadle_status_text(enum treadle_status status);

#ifdef __cplusplus
}
#endif

#endif
