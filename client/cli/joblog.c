/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/joblog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "common/base/uuid.h"

#define COLUMN_COUNT    12
#define COLUMN_SEQUENCE 0
#define COLUMN_EXIT     6
#define COLUMN_SIGNAL   7
#define COLUMN_COMMAND  8
#define COMMAND_CUT     "..."
#define HOST_SIZE_MAX   64U
#define COMMAND_SIZE    (2 * (size_t)JOBLOG_COMMAND_SIZE_MAX + sizeof(COMMAND_CUT))
#define LINE_READ_MAX   (1U << 20) /* what is longer was not written by us */

/* What a waiting line waits for. */
struct joblog_mark {
    uint64_t after_size; /* bytes of output */
    size_t text_end;     /* of the line, in joblog.text */
};

/* ---- lines ---- */

/* Copies a text so that it stays in its column and in its line. Returns the size. */
static size_t escape(char *out, struct bytes text, size_t size_max)
{
    static const char letters[256] = {
        ['\0'] = '0', ['\t'] = 't', ['\n'] = 'n', ['\r'] = 'r', ['\\'] = '\\'};
    size_t size = 0;

    for (size_t i = 0; i < text.size && i < size_max; i++) {
        char letter = letters[text.data[i]];

        if (letter != '\0') {
            out[size++] = '\\';
            out[size++] = letter;
        } else {
            out[size++] = (char)text.data[i];
        }
    }
    return size;
}

/* What stands in the column Command, without a NUL. Returns the size. */
static size_t print_command(char out[COMMAND_SIZE], struct bytes command)
{
    size_t size = escape(out, command, JOBLOG_COMMAND_SIZE_MAX);

    if (command.size > JOBLOG_COMMAND_SIZE_MAX) {
        memcpy(out + size, COMMAND_CUT, sizeof(COMMAND_CUT) - 1);
        size += sizeof(COMMAND_CUT) - 1;
    }
    return size;
}

size_t joblog_print(char out[JOBLOG_LINE_SIZE], const struct joblog_entry *entry)
{
    char host[2 * HOST_SIZE_MAX + 1] = "-";
    char id[UUID_TEXT_SIZE] = "-";

    if (entry->host.size > 0) {
        host[escape(host, entry->host, HOST_SIZE_MAX)] = '\0';
    }
    if (entry->id != NULL) {
        uuid_print(entry->id, id);
    }
    int size = snprintf(out, JOBLOG_LINE_SIZE,
                        "%" PRIu64 "\t%s\t%" PRIu64 ".%03u\t%6" PRIu64 ".%03u\t%" PRIu64
                        "\t%" PRIu64 "\t%u\t%u\t",
                        entry->sequence, host, entry->started_at_unix_ms / 1000,
                        (unsigned)(entry->started_at_unix_ms % 1000), entry->runtime_ms / 1000,
                        (unsigned)(entry->runtime_ms % 1000), entry->send_size, entry->receive_size,
                        entry->exit_value, entry->signal);
    size_t used = (size_t)size;

    used += print_command(out + used, entry->command);
    size = snprintf(out + used, JOBLOG_LINE_SIZE - used, "\t%s\t%u\t%s\n", id,
                    (unsigned)entry->attempts, entry->kind);
    return used + (size_t)size;
}

/* Digits only, below 2^63. */
static bool number_read(struct bytes text, uint64_t *number)
{
    uint64_t value = 0;

    for (size_t i = 0; i < text.size; i++) {
        uint8_t digit = (uint8_t)(text.data[i] - '0');

        if (digit > 9 || value > (uint64_t)INT64_MAX / 10 - 1) {
            return false;
        }
        value = value * 10 + digit;
    }
    *number = value;
    return text.size > 0;
}

bool joblog_parse(struct bytes text, struct joblog_line *out)
{
    struct bytes columns[COLUMN_COUNT];
    size_t count = 0;

    for (;;) {
        const uint8_t *tab = text.size == 0 ? NULL : memchr(text.data, '\t', text.size);
        size_t size = tab == NULL ? text.size : (size_t)(tab - text.data);

        if (count == COLUMN_COUNT) {
            return false;
        }
        columns[count++] = (struct bytes){text.data, size};
        if (tab == NULL) {
            break;
        }
        text = (struct bytes){tab + 1, text.size - size - 1};
    }
    out->command = count > COLUMN_COMMAND ? columns[COLUMN_COMMAND] : (struct bytes){0};
    return count == COLUMN_COUNT && columns[COLUMN_COUNT - 1].size > 0 &&
           number_read(columns[COLUMN_SEQUENCE], &out->sequence) && out->sequence > 0 &&
           number_read(columns[COLUMN_EXIT], &out->exit_value) &&
           number_read(columns[COLUMN_SIGNAL], &out->signal);
}

/* ---- reading ---- */

void joblog_init(struct joblog *joblog)
{
    *joblog = (struct joblog){.fd = -1};
}

/* It only tells apart by mistake, so its key is no secret. */
static uint64_t hash_command(struct bytes printed)
{
    static const struct hash_key key = {0};

    return hash_bytes(&key, printed.data, printed.size);
}

static bool add_done(struct joblog *joblog, const struct joblog_line *line)
{
    if (joblog->done_count == joblog->done_capacity) {
        size_t capacity = joblog->done_capacity == 0 ? 1024 : 2 * joblog->done_capacity;
        struct joblog_done *larger = realloc(joblog->done, capacity * sizeof(*larger));

        if (larger == NULL) {
            return false;
        }
        joblog->done = larger;
        joblog->done_capacity = capacity;
    }
    joblog->done[joblog->done_count++] =
        (struct joblog_done){line->sequence, hash_command(line->command)};
    return true;
}

static int compare(const void *a, const void *b)
{
    uint64_t first = ((const struct joblog_done *)a)->sequence;
    uint64_t second = ((const struct joblog_done *)b)->sequence;

    return (first > second) - (first < second);
}

/* Whether the file begins as a job log does. One that holds less than the header is one that was
 * cut off at once, and as good as empty. */
static bool has_header(struct joblog *joblog, FILE *file)
{
    char header[sizeof(JOBLOG_HEADER)];
    size_t size = fread(header, 1, sizeof(JOBLOG_HEADER) - 1, file);

    joblog->kept_size = size == sizeof(JOBLOG_HEADER) - 1 ? size : 0;
    return memcmp(header, JOBLOG_HEADER, size) == 0;
}

/* Reads the lines after the header. A last one that makes no sense was torn when it was written,
 * and is not kept. */
static bool read_lines(struct joblog *joblog, FILE *file, enum joblog_mode mode,
                       char why[JOBLOG_WHY_SIZE])
{
    char *text = NULL;
    size_t capacity = 0;
    ssize_t size = 0;
    bool is_good = true;

    for (uint64_t number = 2; is_good && (size = getline(&text, &capacity, file)) > 0; number++) {
        struct joblog_line line = {0};
        bool is_whole = text[size - 1] == '\n';
        struct bytes view = {(const uint8_t *)text, (size_t)size - (is_whole ? 1 : 0)};

        if (is_whole && size <= (ssize_t)LINE_READ_MAX && joblog_parse(view, &line)) {
            joblog->kept_size += (uint64_t)size;
            is_good = (mode == JOBLOG_RESUME_FAILED && (line.exit_value | line.signal) != 0) ||
                      add_done(joblog, &line);
            if (!is_good) {
                snprintf(why, JOBLOG_WHY_SIZE, "out of memory");
            }
        } else if (fgetc(file) != EOF) {
            snprintf(why, JOBLOG_WHY_SIZE, "line %" PRIu64 " is not one of a job log", number);
            is_good = false;
        }
    }
    if (is_good && ferror(file) != 0) {
        snprintf(why, JOBLOG_WHY_SIZE, "%s", strerrordesc_np(errno));
        is_good = false;
    }
    free(text);
    return is_good;
}

static bool read_done(struct joblog *joblog, FILE *file, enum joblog_mode mode,
                      char why[JOBLOG_WHY_SIZE])
{
    if (!has_header(joblog, file)) {
        snprintf(why, JOBLOG_WHY_SIZE,
                 "not a job log of treadle map (its first line is not the columns' names); name "
                 "the file that --joblog wrote");
        return false;
    }
    if (!read_lines(joblog, file, mode, why)) {
        return false;
    }
    if (joblog->done_count > 0) {
        qsort(joblog->done, joblog->done_count, sizeof(*joblog->done), compare);
    }
    return true;
}

bool joblog_open(struct joblog *joblog, const char *path, enum joblog_mode mode,
                 char why[JOBLOG_WHY_SIZE])
{
    struct stat status;

    joblog_init(joblog);
    joblog->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666);
    if (joblog->fd == -1 && mode == JOBLOG_ANEW) { /* a pipe, or a file without the right to read */
        joblog->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY);
    }
    if (joblog->fd == -1 || fstat(joblog->fd, &status) == -1) {
        snprintf(why, JOBLOG_WHY_SIZE, "%s", strerrordesc_np(errno));
        return false;
    }
    joblog->is_regular = S_ISREG(status.st_mode);
    if (flock(joblog->fd, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK) {
        snprintf(why, JOBLOG_WHY_SIZE, "another treadle map writes it; name another file");
        return false;
    }
    if (mode == JOBLOG_ANEW) {
        return true;
    }
    if (!joblog->is_regular) {
        snprintf(why, JOBLOG_WHY_SIZE, "not a regular file, so there is nothing to resume from");
        return false;
    }
    int copy = fcntl(joblog->fd, F_DUPFD_CLOEXEC, 0);
    FILE *file = copy == -1 ? NULL : fdopen(copy, "r");

    if (file == NULL) {
        snprintf(why, JOBLOG_WHY_SIZE, "%s", strerrordesc_np(errno));
        if (copy != -1) {
            close(copy);
        }
        return false;
    }
    bool is_good = read_done(joblog, file, mode, why);

    fclose(file);
    return is_good;
}

void joblog_close(struct joblog *joblog)
{
    if (joblog->fd != -1) {
        close(joblog->fd);
    }
    free(joblog->done);
    free(joblog->text);
    free(joblog->marks);
    joblog_init(joblog);
}

bool joblog_is_done(struct joblog *joblog, uint64_t sequence)
{
    while (joblog->done_next < joblog->done_count &&
           joblog->done[joblog->done_next].sequence < sequence) {
        joblog->done_next++;
    }
    return joblog->done_next < joblog->done_count &&
           joblog->done[joblog->done_next].sequence == sequence;
}

bool joblog_is_same(const struct joblog *joblog, struct bytes command)
{
    char printed[COMMAND_SIZE];
    size_t size = print_command(printed, command);
    uint64_t hash = hash_command((struct bytes){(const uint8_t *)printed, size});
    uint64_t sequence = joblog->done[joblog->done_next].sequence;

    for (size_t i = joblog->done_next;
         i < joblog->done_count && joblog->done[i].sequence == sequence; i++) {
        if (joblog->done[i].command_hash == hash) {
            return true;
        }
    }
    return false;
}

/* ---- writing ---- */

static void write_all(struct joblog *joblog, const char *data, size_t size)
{
    while (size > 0 && joblog->error == 0) {
        ssize_t written = write(joblog->fd, data, size);

        if (written == -1 && errno != EINTR) {
            joblog->error = errno;
        } else if (written > 0) {
            data += written;
            size -= (size_t)written;
        }
    }
}

void joblog_begin(struct joblog *joblog)
{
    if (joblog->fd == -1) {
        return;
    }
    if (joblog->is_regular && ftruncate(joblog->fd, (off_t)joblog->kept_size) == -1) {
        joblog->error = errno;
    }
    if (joblog->kept_size == 0) {
        write_all(joblog, JOBLOG_HEADER, sizeof(JOBLOG_HEADER) - 1);
    }
}

/* Makes room for `count` more in an array that grows by doubling. False: memory is out. */
static bool make_room(void **data, size_t *capacity, size_t used, size_t count, size_t size)
{
    if (*capacity - used >= count) {
        return true;
    }
    size_t larger_capacity = 2 * (used + count);
    void *larger = realloc(*data, larger_capacity * size);

    if (larger == NULL) {
        return false;
    }
    *data = larger;
    *capacity = larger_capacity;
    return true;
}

bool joblog_add(struct joblog *joblog, const struct joblog_entry *entry, uint64_t after_size)
{
    void *text = joblog->text;
    void *marks = joblog->marks;

    if (joblog->fd == -1) {
        return true;
    }
    bool has_room =
        make_room(&text, &joblog->text_capacity, joblog->text_size, JOBLOG_LINE_SIZE, 1);

    joblog->text = text;
    has_room = has_room && make_room(&marks, &joblog->mark_capacity, joblog->mark_count, 1,
                                     sizeof(struct joblog_mark));
    joblog->marks = marks;
    if (!has_room) {
        return false;
    }
    joblog->text_size += joblog_print(joblog->text + joblog->text_size, entry);
    joblog->marks[joblog->mark_count++] =
        (struct joblog_mark){.after_size = after_size, .text_end = joblog->text_size};
    return true;
}

void joblog_write(struct joblog *joblog, uint64_t written_size)
{
    size_t count = 0;

    while (count < joblog->mark_count && joblog->marks[count].after_size <= written_size) {
        count++;
    }
    if (count == 0) {
        return;
    }
    size_t size = joblog->marks[count - 1].text_end;

    write_all(joblog, joblog->text, size);
    joblog->text_size -= size;
    joblog->mark_count -= count;
    memmove(joblog->text, joblog->text + size, joblog->text_size);
    memmove(joblog->marks, joblog->marks + count, joblog->mark_count * sizeof(*joblog->marks));
    for (size_t i = 0; i < joblog->mark_count; i++) {
        joblog->marks[i].text_end -= size;
    }
}
