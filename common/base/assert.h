/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_BASE_ASSERT_H
#define TREADLE_BASE_ASSERT_H

/* A programmer's mistake ends the process, in release builds too. Never for what a peer sent, what
 * an operator wrote, or an allocation that failed. */
#define TREADLE_ASSERT(expression)                                                                 \
    ((expression) ? (void)0 : treadle_assert_failed(#expression, __FILE__, __LINE__))

/* Prints one line to stderr and aborts. */
_Noreturn void treadle_assert_failed(const char *expression, const char *file, int line);

#endif
