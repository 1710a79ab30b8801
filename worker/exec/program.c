/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/program.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_DEFAULT "/bin:/usr/bin" /* what the C library takes without PATH */

static int check_file(const char *path)
{
    struct stat state;
    if (stat(path, &state) == -1) {
        return errno;
    }
    if (!S_ISREG(state.st_mode)) {
        return EACCES;
    }
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0 ? 0 : errno;
}

int program_check(const char *program)
{
    char path[PATH_MAX];
    int error = ENOENT;
    if (strchr(program, '/') != NULL) {
        return check_file(program);
    }
    const char *folder = getenv("PATH"); /* NOLINT(concurrency-mt-unsafe): see the header */
    folder = folder != NULL ? folder : PATH_DEFAULT;
    while (folder != NULL && program[0] != '\0') {
        const size_t size = strcspn(folder, ":");
        const int written = snprintf(path, sizeof(path), "%.*s%s%s", (int)size, folder,
                                     size > 0 ? "/" : "", program); /* an empty one is this one */
        const int found = (size_t)written < sizeof(path) ? check_file(path) : ENOENT;
        if (found == 0) {
            return 0;
        }
        error = found == EACCES ? EACCES : error;
        folder = folder[size] == ':' ? folder + size + 1 : NULL;
    }
    return error;
}
