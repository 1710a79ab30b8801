/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The job log of `treadle map`: GNU parallel's columns, then Id, Attempts and Kind, separated by
 * tabs; a line for each record that is done with. A line is written only once the result it tells
 * of has left, so that what --resume skips has been printed. One thread.
 */
#ifndef TREADLE_CLI_JOBLOG_H
#define TREADLE_CLI_JOBLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <treadle/export.h>
#include <treadle/id.h>

#include "common/base/bytes.h"

#define JOBLOG_HEADER                                                                              \
    "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\tId\tAttempts\t"    \
    "Kind\n"

/* The most of a record that stands in the column Command; "..." follows what is cut. */
#define JOBLOG_COMMAND_SIZE_MAX 4096U

/* Room for any line with its newline and a NUL: each byte of the record may take two. */
#define JOBLOG_LINE_SIZE (2 * JOBLOG_COMMAND_SIZE_MAX + 512)

#define JOBLOG_WHY_SIZE 512

/* A record that is done with. */
struct joblog_entry {
    uint64_t sequence; /* of the record in the input, from 1 */
    struct bytes host; /* where the last attempt failed; empty: not known */
    uint64_t started_at_unix_ms;
    uint64_t runtime_ms;
    uint64_t send_size;
    uint64_t receive_size;
    unsigned exit_value; /* 0: succeeded */
    unsigned signal;     /* 0: none */
    struct bytes command;
    const struct treadle_task_id *id; /* NULL: it never was a task */
    uint32_t attempts;
    const char *kind;
};

/* Prints a line with its newline; returns its size. */
size_t joblog_print(char out[JOBLOG_LINE_SIZE], const struct joblog_entry *entry);

/* What --resume wants to know of a line. */
struct joblog_line {
    uint64_t sequence;
    uint64_t exit_value;
    uint64_t signal;
    struct bytes command; /* as it is printed */
};

/* Reads a line without its newline; false: it is none of a job log. */
TREADLE_MUST_USE bool joblog_parse(struct bytes text, struct joblog_line *out);

enum joblog_mode {
    JOBLOG_ANEW,          /* what the file held is lost with joblog_begin() */
    JOBLOG_RESUME,        /* what it tells of need not be done again */
    JOBLOG_RESUME_FAILED, /* the same, but for what failed */
};

struct joblog_mark;

/* A record that need not be done again. */
struct joblog_done {
    uint64_t sequence;
    uint64_t command_hash;
};

/* The fields belong to joblog.c, but `error`. */
struct joblog {
    int fd;             /* -1: none is kept, and all functions do nothing */
    int error;          /* errno of what failed while writing; 0: nothing did */
    uint64_t kept_size; /* bytes of the file that stay */
    bool is_regular;

    struct joblog_done *done; /* by rising sequence; one that was resumed may stand twice */
    size_t done_count;
    size_t done_capacity;
    size_t done_next;

    char *text; /* lines that wait for their results to leave */
    size_t text_size;
    size_t text_capacity;
    struct joblog_mark *marks; /* one for each of these lines */
    size_t mark_count;
    size_t mark_capacity;
};

/* The empty one, for when no job log is asked for. */
void joblog_init(struct joblog *joblog);

/* Opens the file, makes it if it is not there, and reads what a mode wants of it; changes nothing
 * yet. False: why not, in words. End it with joblog_close() in any case. */
TREADLE_MUST_USE bool joblog_open(struct joblog *joblog, const char *path, enum joblog_mode mode,
                                  char why[JOBLOG_WHY_SIZE]);

void joblog_close(struct joblog *joblog);

/* From now on the file is written: it is emptied, or a torn last line is taken off it. */
void joblog_begin(struct joblog *joblog);

/* Whether a record need not be done again. Ask in rising order. */
bool joblog_is_done(struct joblog *joblog, uint64_t sequence);

/* Whether the record that joblog_is_done() has just been true for is the one that the log tells of:
 * false if the input is another one. */
bool joblog_is_same(const struct joblog *joblog, struct bytes command);

/* Adds a line, to be written once after_size bytes of output have left: no less than for the line
 * before. False: memory is out. */
TREADLE_MUST_USE bool joblog_add(struct joblog *joblog, const struct joblog_entry *entry,
                                 uint64_t after_size);

/* Writes the lines whose results have left. Look at `error` afterwards. */
void joblog_write(struct joblog *joblog, uint64_t written_size);

#endif
