/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/body_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_SIZE_MIN 65536U

void body_file_reset(struct body_file *file)
{
    free(file->data);
    *file = (struct body_file){0};
}

static bool make_room(struct body_file *file, size_t capacity)
{
    if (file->capacity >= capacity) {
        return true;
    }
    uint8_t *larger = realloc(file->data, capacity);

    if (larger == NULL) {
        return false;
    }
    file->data = larger;
    file->capacity = capacity;
    return true;
}

/* Reads to the end. The file may grow meanwhile: one byte over the limit is enough to know. */
static int read_all(struct body_file *file, int fd, size_t size_max)
{
    for (;;) {
        if (file->size == file->capacity && !make_room(file, 2 * file->capacity)) {
            return ENOMEM;
        }
        ssize_t got = read(fd, file->data + file->size, file->capacity - file->size);

        if (got == -1 && errno != EINTR) {
            return errno;
        }
        if (got == 0) {
            return 0;
        }
        file->size += got > 0 ? (size_t)got : 0;
        if (file->size > size_max) {
            return EFBIG;
        }
    }
}

static int open_regular(struct bytes path, int *fd, size_t *size)
{
    char name[PATH_MAX];
    struct stat status;

    if (path.size >= sizeof(name)) {
        return ENAMETOOLONG;
    }
    if (path.size > 0) {
        memcpy(name, path.data, path.size);
    }
    name[path.size] = '\0';
    if (strlen(name) != path.size) {
        return ENOENT; /* no file's name has a NUL in it */
    }
    *fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd == -1) {
        return errno;
    }
    int error = fstat(*fd, &status) == -1  ? errno
                : S_ISDIR(status.st_mode)  ? EISDIR
                : !S_ISREG(status.st_mode) ? EINVAL
                                           : 0;
    if (error != 0) {
        close(*fd);
        return error;
    }
    *size = (size_t)status.st_size;
    return 0;
}

int body_file_read(struct body_file *file, struct bytes path, size_t size_max)
{
    int fd = -1;
    size_t size = 0;
    int error = open_regular(path, &fd, &size);

    if (error != 0) {
        return error;
    }
    file->size = 0;
    if (size > size_max) {
        error = EFBIG;
    } else if (!make_room(file, size < READ_SIZE_MIN ? READ_SIZE_MIN : size + 1)) {
        error = ENOMEM;
    } else {
        error = read_all(file, fd, size_max);
    }
    close(fd);
    return error;
}
