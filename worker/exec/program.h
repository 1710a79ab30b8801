/* SPDX-License-Identifier: MPL-2.0 */
/* Whether a command's program is there, before tasks are taken that would need it. */
#ifndef TREADLE_EXEC_PROGRAM_H
#define TREADLE_EXEC_PROGRAM_H

/* 0, or the errno that execvpe() of this process would fail with now, as far as the name tells: a
 * name with a slash is a path, another one is looked for in PATH. Reads the environment: before any
 * thread that changes it. */
int program_check(const char *program);

#endif
