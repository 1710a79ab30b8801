/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/children.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIST_PATH "/proc/thread-self/children"

/* Of /proc/PID/stat: the parent comes early. */
#define STAT_SIZE 512

bool children_list(const struct children_visitor *visitor)
{
    FILE *file = fopen(LIST_PATH, "re");
    if (file == NULL) {
        return false;
    }
    int child;
    while (fscanf(file, "%d", &child) == 1) { /* NOLINT(cert-err34-c): the kernel wrote it */
        visitor->visit(visitor->context, child);
    }
    fclose(file);
    return true;
}

/* 0: it is gone. */
static pid_t parent_of(int proc_fd, const char *process)
{
    char path[32];
    char text[STAT_SIZE];
    if (snprintf(path, sizeof(path), "%s/stat", process) >= (int)sizeof(path)) {
        return 0;
    }
    const int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd == -1) {
        return 0;
    }
    const ssize_t size = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[size > 0 ? size : 0] = '\0';
    /* PID (NAME) STATE PARENT ...; the name may hold anything */
    const char *name_end = strrchr(text, ')');
    return name_end != NULL && strlen(name_end) > 4 ? (pid_t)strtol(name_end + 4, NULL, 10) : 0;
}

bool children_scan(const struct children_visitor *visitor)
{
    const pid_t self = getpid();
    DIR *proc = opendir("/proc");
    if (proc == NULL) {
        return false;
    }
    const struct dirent *entry;
    while ((entry = readdir(proc)) != NULL) { /* NOLINT(concurrency-mt-unsafe): its own DIR */
        const char *name = entry->d_name;
        if (name[0] >= '1' && name[0] <= '9' && parent_of(dirfd(proc), name) == self) {
            visitor->visit(visitor->context, (pid_t)strtol(name, NULL, 10));
        }
    }
    closedir(proc);
    return true;
}
