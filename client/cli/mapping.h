/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The run of `treadle map`: records come in, tasks go out, results come in the order asked for. Its
 * memory is bounded: by --jobs, by the window of records that wait for their turn, and by bytes.
 * One thread, which waits only in contact_pump().
 *
 *     stdin -> record_reader -> client_submit() -> window -> outlet -> stdout
 *                                                       `-> joblog, once the outlet has written
 */
#ifndef TREADLE_CLI_MAPPING_H
#define TREADLE_CLI_MAPPING_H

#include "client/cli/body_file.h"
#include "client/cli/contact.h"
#include "client/cli/joblog.h"
#include "client/cli/outlet.h"
#include "client/cli/progress.h"
#include "client/cli/record_reader.h"
#include "client/cli/submission.h"
#include "client/cli/watch.h"
#include "client/cli/window.h"

#define MAPPING_JOBS_DEFAULT 1000

struct mapping {
    const struct arguments *arguments;
    struct contact contact;
    struct submission submission; /* its task is the model of all */
    struct record_reader reader;
    struct body_file file;
    struct window window;
    struct outlet outlet;
    struct joblog joblog;
    struct progress progress;
    struct watch watch;
    uint32_t jobs;
    uint8_t end_byte; /* of records and of results */

    int poll_fd; /* signals, and stdin and stdout while something waits for them */
    bool is_input_watched;
    bool is_output_watched;
    bool wants_input;    /* nothing can be submitted before stdin is readable */
    bool has_more_input; /* there is more to submit at once */
    bool is_input_over;
    bool is_input_broken;    /* stdin could not be read to its end */
    bool is_output_broken;   /* stdout or the job log, and it was said */
    bool is_output_terminal; /* the bar has to make way */

    uint64_t unix_offset_ms; /* from client_now_ms() to the wall clock */
    uint64_t started_at_ms;
    uint64_t patience_ends_at_ms;
    uint64_t record_count; /* read */
    uint64_t skipped_count;
    uint64_t succeeded_count;
    uint64_t failed_count;

    /* Once it ends before it is done. */
    bool is_ending;
    bool is_flushed;      /* what was held is in the outlet, in flight is nothing any more */
    bool is_contact_over; /* there is nobody to cancel with */
    enum cli_exit code;   /* why */
    uint64_t end_at_ms;
    uint64_t cancelled_count;
    uint64_t left_count; /* tasks whose outcome is not known */
    uint32_t cancel_unanswered_count;
    bool is_cancelling;
    uint64_t outcomes_until_ms;        /* of what is cancelled; 0: cancels wait for answers */
    struct window_record *next_cancel; /* in flight, to be cancelled next; NULL: no more */
};

/* Runs a mapping to its end; all that is to be said is said on stderr. The exit code. */
TREADLE_MUST_USE enum cli_exit mapping_run(const struct arguments *arguments);

/* ---- mapping_submit.c ---- */

/* Reads and submits as much as may be at once, within bounds for one round. */
void mapping_submit(struct mapping *mapping);

/* ---- mapping_settle.c ---- */

/* Takes the client's events, as long as the outlet takes results; gives those out whose turn it is.
 */
void mapping_take_events(struct mapping *mapping);

/* Gives out what is held, gaps left out, and forgets what is in flight. */
void mapping_flush(struct mapping *mapping);

/* "line" or "record": what a person counts in this input. */
const char *mapping_record_word(const struct mapping *mapping);

/* A record that never became a task: says why, counts and logs it. */
void mapping_fail_input(struct mapping *mapping, const struct record *record, const char *why);

/* ---- mapping.c ---- */

/* Ends it before it is done, for the first reason only. `cancels`: what is in flight. */
void mapping_end(struct mapping *mapping, enum cli_exit code, bool cancels);

/* mapping_end() for memory that is out. */
void mapping_end_for_memory(struct mapping *mapping);

#endif
