/* SPDX-License-Identifier: MPL-2.0 */
/* The three standard streams of a program that was started without one of them. */
#ifndef TREADLE_BASE_STREAMS_H
#define TREADLE_BASE_STREAMS_H

/* Takes the numbers of those standard streams that are closed, before anything else is given them:
 * what a program prints must not end up in a socket. Using them still fails, with EBADF. At the
 * start of main(), before any thread and any descriptor of the program's own. */
void streams_hold(void);

#endif
