/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_UNIT_DIES_H
#define TREADLE_UNIT_DIES_H

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

/* True if the function ends its process by abort(), as a failed TREADLE_ASSERT does. It runs in a
 * child, whose last words are dropped. */
static inline bool dies(void (*function)(void *context), void *context)
{
    const pid_t child = fork();
    if (child == -1) {
        return false;
    }
    if (child == 0) {
        const int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        (void)dup2(fd, STDERR_FILENO);
        function(context);
        _exit(0);
    }
    int state = 0;
    return waitpid(child, &state, 0) == child && WIFSIGNALED(state) && WTERMSIG(state) == SIGABRT;
}

#endif
