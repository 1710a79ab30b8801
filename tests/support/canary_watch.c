/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Runs a command and writes down what a process list shows meanwhile of it and of all that it
 * starts: command line, name and environment, each text once.
 *
 *     canary_watch FILE COMMAND [ARGUMENT...]
 *
 * Orphans come to it (it is their reaper), so nothing below COMMAND gets away, and nothing else is
 * looked at. Ends with COMMAND and with its exit code; 70 when there was no room for what it saw.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_NS   5000000L
#define PROCESS_MAX   8192U
#define SEEN_COUNT    (1U << 20) /* a power of two */
#define SEEN_MAX      (SEEN_COUNT / 4 * 3)
#define TEXT_SIZE_MAX (1U << 20)
#define KEPT_SIZE_MAX (UINT64_C(1) << 30) /* bytes in FILE */
#define HASH_START    UINT64_C(0xcbf29ce484222325)

static uint64_t seen[SEEN_COUNT]; /* hashes; 0: free */
static uint32_t seen_count;
static uint64_t kept_size;
static bool is_full;
static int processes[PROCESS_MAX];
static char text[TEXT_SIZE_MAX];
static FILE *list;

/* FNV-1a */
static uint64_t hash(uint64_t value, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        value = (value ^ (uint8_t)data[i]) * UINT64_C(0x100000001b3);
    }
    return value;
}

/* False: it was there. */
static bool is_new(uint64_t value)
{
    value += value == 0 ? 1 : 0;
    uint32_t at = (uint32_t)(value >> 32U) & (SEEN_COUNT - 1);
    while (seen[at] != 0 && seen[at] != value) {
        at = (at + 1) & (SEEN_COUNT - 1);
    }
    if (seen[at] == value) {
        return false;
    }
    if (seen_count == SEEN_MAX) {
        is_full = true;
        return false;
    }
    seen[at] = value;
    seen_count++;
    return true;
}

/* Into `text`; 0: nothing, or not for us. */
static size_t read_about(int pid, const char *what)
{
    char path[64];
    size_t size = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/%s", pid, what);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd != -1 && size < sizeof text) {
        const ssize_t got = read(fd, text + size, sizeof text - size);
        if (got <= 0) {
            break;
        }
        size += (size_t)got;
    }
    if (fd != -1) {
        (void)close(fd);
    }
    return size;
}

/* Each text once. */
static void write_down(int pid, const char *what)
{
    const size_t size = read_about(pid, what);
    if (size == 0 || !is_new(hash(hash(HASH_START, what, strlen(what)), text, size))) {
        return;
    }
    if (kept_size + size > KEPT_SIZE_MAX) {
        is_full = true;
        return;
    }
    kept_size += size;
    (void)fprintf(list, "%d %s: ", pid, what);
    (void)fwrite(text, 1, size, list);
    (void)fputc('\n', list);
}

/* True: it is one that was not there, or it has become another program or another name. */
static bool is_other(int pid)
{
    uint64_t value = hash(HASH_START, (const char *)&pid, sizeof pid);
    value = hash(value, text, read_about(pid, "cmdline"));
    return is_new(hash(value, text, read_about(pid, "comm")));
}

static uint32_t add_children_of_thread(int pid, const char *thread, uint32_t count)
{
    char what[64];
    (void)snprintf(what, sizeof what, "task/%.20s/children", thread);
    const size_t size = read_about(pid, what);
    const char *at = text;
    text[size < sizeof text ? size : sizeof text - 1] = '\0';
    while (*at != '\0' && count < PROCESS_MAX) {
        char *end = NULL;
        const long child = strtol(at, &end, 10);
        if (end == at) {
            break;
        }
        processes[count++] = (int)child;
        at = end + strspn(end, " \n");
    }
    return count;
}

static uint32_t add_children(int pid, uint32_t count)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *threads = opendir(path);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread */
    for (struct dirent *entry; threads != NULL && (entry = readdir(threads)) != NULL;) {
        if (entry->d_name[0] != '.') {
            count = add_children_of_thread(pid, entry->d_name, count);
        }
    }
    if (threads != NULL) {
        (void)closedir(threads);
    }
    return count;
}

static void look(void)
{
    uint32_t count = add_children((int)getpid(), 0);
    for (uint32_t i = 0; i < count; i++) {
        const int pid = processes[i];
        if (is_other(pid)) {
            write_down(pid, "cmdline");
            write_down(pid, "comm");
            write_down(pid, "environ");
        }
        count = add_children(pid, count);
    }
    is_full = is_full || count == PROCESS_MAX;
}

/* Waits for whatever has ended. True: the command has, with *status. */
static bool reap(pid_t command, int *status)
{
    bool is_over = false;
    int other = 0;
    pid_t ended = 0;
    while ((ended = waitpid(-1, &other, WNOHANG)) > 0) {
        if (ended == command) {
            is_over = true;
            *status = other;
        }
    }
    return is_over || (ended == -1 && errno == ECHILD);
}

int main(int argc, char **argv)
{
    const struct timespec interval = {0, INTERVAL_NS};
    int status = 0;
    if (argc < 3) {
        (void)fprintf(stderr, "usage: canary_watch FILE COMMAND [ARGUMENT...]\n");
        return EX_USAGE;
    }
    list = fopen(argv[1], "we");
    if (list == NULL || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) {
        (void)fprintf(stderr, "canary_watch: %s: %s\n", argv[1], strerrordesc_np(errno));
        return EX_CANTCREAT;
    }
    const pid_t command = fork();
    if (command == 0) {
        (void)execvp(argv[2], argv + 2);
        (void)fprintf(stderr, "canary_watch: %s: %s\n", argv[2], strerrordesc_np(errno));
        _exit(127);
    }
    if (command == -1) {
        return EX_OSERR;
    }
    while (!reap(command, &status)) {
        look();
        (void)nanosleep(&interval, NULL);
    }
    if (fclose(list) != 0 || is_full) {
        (void)fprintf(stderr, "canary_watch: %s: there was more than is kept\n", argv[1]);
        return EX_SOFTWARE;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
