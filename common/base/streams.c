/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "common/base/streams.h"

#include <fcntl.h>
#include <unistd.h>

void streams_hold(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) == -1) { /* the lowest free number is this one */
            (void)open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
        }
    }
}
