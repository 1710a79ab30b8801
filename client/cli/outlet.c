/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/outlet.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_WRITE_SIZE 1048576U

void outlet_init(struct outlet *outlet, int fd)
{
    struct stat status;

    *outlet = (struct outlet){.fd = fd, .is_pollable = true};
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        outlet->is_pollable = false;
    }
}

void outlet_reset(struct outlet *outlet)
{
    free(outlet->buffer);
    outlet->buffer = NULL;
}

bool outlet_append(struct outlet *outlet, struct bytes data)
{
    if (outlet->capacity - outlet->end < data.size && outlet->start > 0) {
        memmove(outlet->buffer, outlet->buffer + outlet->start, outlet->end - outlet->start);
        outlet->end -= outlet->start;
        outlet->start = 0;
    }
    if (outlet->capacity - outlet->end < data.size) {
        size_t capacity = 2 * (outlet->end + data.size);
        uint8_t *larger = realloc(outlet->buffer, capacity);

        if (larger == NULL) {
            return false;
        }
        outlet->buffer = larger;
        outlet->capacity = capacity;
    }
    if (data.size > 0) {
        memcpy(outlet->buffer + outlet->end, data.data, data.size);
    }
    outlet->end += data.size;
    outlet->appended_size += data.size;
    return true;
}

/* Whether a write of PIPE_BUF bytes returns at once: what poll() promises for pipes, and what
 * sockets and terminals keep too. */
static bool has_room(const struct outlet *outlet)
{
    struct pollfd waiting = {.fd = outlet->fd, .events = POLLOUT};

    return !outlet->is_pollable || poll(&waiting, 1, 0) == 1;
}

void outlet_write(struct outlet *outlet)
{
    size_t size_max = outlet->is_pollable ? PIPE_BUF : FILE_WRITE_SIZE;

    while (outlet->error == 0 && outlet->start < outlet->end && has_room(outlet)) {
        size_t size = outlet->end - outlet->start;
        ssize_t written =
            write(outlet->fd, outlet->buffer + outlet->start, size < size_max ? size : size_max);

        if (written == -1 && errno != EINTR && errno != EAGAIN) {
            outlet->error = errno;
            return;
        }
        if (written == -1) {
            return;
        }
        outlet->start += (size_t)written;
        outlet->written_size += (uint64_t)written;
    }
    if (outlet->start == outlet->end) {
        outlet->start = 0;
        outlet->end = 0;
    }
}
