/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "common/base/span.h"

#define WINDOW_COUNT_MIN   4096 /* records that may wait for their turn, at least */
#define WINDOW_JOBS_FACTOR 4
#define END_PATIENCE_MS                                                                            \
    2000 /* for the answers to cancels, and again for a slow reader of stdout                      \
          */
#define OUTCOME_PATIENCE_MS                                                                        \
    300 /* for tasks that a worker has: those it did not begin come back at once                   \
         */
#define CANCEL_BATCH_COUNT 1024 /* cancels without an answer */
#define BLIND_WAIT_MS      50   /* where a descriptor cannot be waited for */
#define PATH_SIZE_MAX      4095
#define NS_PER_MS          1000000
#define MS_PER_S           1000

static uint64_t earlier(uint64_t a_ms, uint64_t b_ms)
{
    return a_ms < b_ms ? a_ms : b_ms;
}

/* ---- ending before it is done ---- */

void mapping_end(struct mapping *mapping, enum cli_exit code, bool cancels)
{
    if (mapping->is_ending) {
        return;
    }
    mapping->is_ending = true;
    mapping->code = code;
    mapping->end_at_ms = client_now_ms() + END_PATIENCE_MS;
    if (cancels && !mapping->arguments->is_detached) {
        mapping->is_cancelling = true;
        mapping->next_cancel = window_oldest(&mapping->window);
    }
    if (!cancels) { /* nothing to wait for */
        mapping->end_at_ms = client_now_ms();
    }
}

void mapping_end_for_memory(struct mapping *mapping)
{
    if (!mapping->is_ending) {
        progress_clear(&mapping->progress);
        mapping_end(mapping, cli_fail_memory(), true);
    }
}

static bool may_cancel(const struct mapping *mapping)
{
    return mapping->next_cancel != NULL && mapping->cancel_unanswered_count < CANCEL_BATCH_COUNT &&
           !mapping->is_contact_over;
}

static void cancel_some(struct mapping *mapping)
{
    struct client_session *session = client_session_of(mapping->contact.client);

    while (may_cancel(mapping)) {
        struct window_record *record = mapping->next_cancel;

        if (client_session_cancel(session, record->id) != TREADLE_OK) {
            mapping->next_cancel = NULL; /* out of memory: the rest goes on */
            return;
        }
        mapping->cancel_unanswered_count++;
        mapping->next_cancel = window_after(&mapping->window, record);
    }
}

/* Whether answers are still to come that are worth a little patience. */
static bool awaits_answers(const struct mapping *mapping)
{
    if (mapping->is_contact_over || mapping->window.in_flight_count == 0) {
        return false;
    }
    return mapping->arguments->is_detached || mapping->next_cancel != NULL ||
           mapping->cancel_unanswered_count > 0;
}

/* Whether outcomes of tasks are still to come that a worker had when they were cancelled. */
static bool awaits_outcomes(struct mapping *mapping, uint64_t now_ms)
{
    if (!mapping->is_cancelling || mapping->is_contact_over ||
        mapping->window.in_flight_count == 0) {
        return false;
    }
    if (mapping->outcomes_until_ms == 0) {
        mapping->outcomes_until_ms = now_ms + OUTCOME_PATIENCE_MS;
        mapping->end_at_ms = earlier(mapping->end_at_ms, mapping->outcomes_until_ms);
    }
    return true;
}

/* ---- output ---- */

/* Writes results that are due, then the job log's lines about them. */
static void write_out(struct mapping *mapping)
{
    struct outlet *outlet = &mapping->outlet;
    struct joblog *joblog = &mapping->joblog;

    if (mapping->is_output_terminal && !outlet_is_empty(outlet)) {
        progress_clear(&mapping->progress);
    }
    outlet_write(outlet);
    joblog_write(joblog, outlet->written_size);
    if (mapping->is_output_broken || (outlet->error == 0 && joblog->error == 0)) {
        return;
    }
    mapping->is_output_broken = true;
    if (outlet->error != EPIPE) {
        int error = outlet->error != 0 ? outlet->error : joblog->error;

        progress_clear(&mapping->progress);
        cli_note("map: %s: %s", outlet->error != 0 ? "stdout" : mapping->arguments->joblog,
                 strerrordesc_np(error));
    }
    mapping_end(mapping, outlet->error == EPIPE ? CLI_PIPE : CLI_OUTPUT, true);
}

/* ---- waiting ---- */

/* Watches a descriptor, or no more. False: it cannot be watched. */
static bool watch_fd(const struct mapping *mapping, int fd, uint32_t events, bool is_wanted,
                     bool *is_watched)
{
    struct epoll_event event = {.events = events};

    if (is_wanted == *is_watched) {
        return true;
    }
    *is_watched =
        epoll_ctl(mapping->poll_fd, is_wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &event) == 0 &&
        is_wanted;
    return *is_watched == is_wanted;
}

static uint64_t next_at_ms(const struct mapping *mapping)
{
    uint64_t next_ms = progress_next_at_ms(&mapping->progress);

    if (mapping->has_more_input || may_cancel(mapping)) {
        return 0;
    }
    if (mapping->is_ending) {
        return earlier(next_ms, mapping->end_at_ms);
    }
    next_ms = earlier(next_ms, mapping->patience_ends_at_ms);
    return earlier(next_ms, watch_next_at_ms(&mapping->watch));
}

static void on_interrupt(struct mapping *mapping)
{
    if (mapping->is_ending) { /* the second time, or while results leave: at once */
        mapping->code = CLI_INTERRUPTED;
        mapping->end_at_ms = 0;
        mapping->is_contact_over = true;
    } else {
        mapping_end(mapping, CLI_INTERRUPTED, true);
    }
}

/* All that is left to wait for when the contact is over; a signal ends that too. */
static void wait_for_output(struct mapping *mapping, int timeout_ms)
{
    struct pollfd waiting[] = {{.fd = STDOUT_FILENO, .events = POLLOUT},
                               {.fd = mapping->contact.signal_fd, .events = POLLIN}};

    (void)poll(waiting, sizeof(waiting) / sizeof(waiting[0]), timeout_ms);
    if (waiting[1].revents != 0) {
        on_interrupt(mapping);
    }
}

static void wait_for_something(struct mapping *mapping)
{
    uint64_t now_ms = client_now_ms();
    uint64_t until_ms = next_at_ms(mapping);
    bool wants_output = !outlet_is_empty(&mapping->outlet) && mapping->outlet.error == 0;

    if (!watch_fd(mapping, STDIN_FILENO, EPOLLIN, mapping->wants_input && !mapping->is_ending,
                  &mapping->is_input_watched) ||
        !watch_fd(mapping, STDOUT_FILENO, EPOLLOUT, wants_output, &mapping->is_output_watched)) {
        until_ms = earlier(until_ms, now_ms + BLIND_WAIT_MS);
    }
    if (mapping->is_contact_over) {
        wait_for_output(mapping, until_ms > now_ms ? (int)(until_ms - now_ms) : 0);
        return;
    }
    enum cli_exit code = contact_pump(&mapping->contact, until_ms, mapping->poll_fd);

    if (code == CLI_INTERRUPTED) {
        on_interrupt(mapping);
    } else if (code != CLI_DONE) {
        progress_clear(&mapping->progress);
        contact_say(&mapping->contact, code);
        mapping->is_contact_over = true;
        mapping_end(mapping, code, false);
    }
}

/* ---- time ---- */

static void on_time(struct mapping *mapping)
{
    uint64_t now_ms = client_now_ms();
    struct progress_counts counts = {
        .succeeded_count = mapping->succeeded_count,
        .failed_count = mapping->failed_count,
        .in_flight_count = mapping->window.in_flight_count,
        .total_count = mapping->is_input_over ? mapping->record_count - mapping->skipped_count : 0,
    };

    if (!mapping->is_ending) {
        const struct window_record *oldest = NULL;

        if (!client_is_welcome(mapping->contact.client)) {
            progress_clear(&mapping->progress); /* it may be said that the broker is away */
        }
        if (now_ms >= watch_next_at_ms(&mapping->watch) && !mapping->arguments->is_detached) {
            oldest = window_oldest(&mapping->window);
        }
        watch_on_time(&mapping->watch, oldest == NULL ? NULL : &oldest->id, now_ms);
        if (mapping->watch.is_worker_wait_over) {
            mapping_end(mapping, CLI_UNAVAILABLE, true);
        } else if (now_ms >= mapping->patience_ends_at_ms) {
            mapping_end(mapping, CLI_PATIENCE, false);
        }
    }
    progress_on_time(&mapping->progress, &counts, now_ms);
}

/* Whether all is done, or as much as will be. */
static bool is_over(struct mapping *mapping)
{
    uint64_t now_ms = client_now_ms();

    if (!mapping->is_ending) {
        return mapping->is_input_over && window_first(&mapping->window) == NULL &&
               outlet_is_empty(&mapping->outlet);
    }
    if (!mapping->is_flushed) {
        bool is_waiting = awaits_answers(mapping) || awaits_outcomes(mapping, now_ms);

        if (is_waiting && now_ms < mapping->end_at_ms) {
            return false;
        }
        mapping_flush(mapping);
        mapping->is_flushed = true;
        mapping->end_at_ms = mapping->end_at_ms == 0 ? 0 : now_ms + END_PATIENCE_MS;
        write_out(mapping);
    }
    return outlet_is_empty(&mapping->outlet) || mapping->outlet.error != 0 ||
           now_ms >= mapping->end_at_ms;
}

static void loop(struct mapping *mapping)
{
    for (;;) {
        cancel_some(mapping);
        mapping_take_events(mapping);
        mapping_submit(mapping);
        write_out(mapping);
        on_time(mapping);
        if (is_over(mapping)) {
            return;
        }
        wait_for_something(mapping);
    }
}

/* ---- what is said at the end ---- */

static void note_patience(const struct mapping *mapping)
{
    const struct arguments *arguments = mapping->arguments;
    char span[SPAN_TEXT_SIZE];
    const char *dot = strrchr(mapping->submission.name, '.');

    span_print(span, sizeof(span), arguments->wait_ms);
    cli_note(
        "map: %s: after %s %llu task%s had not settled; the broker goes on%s; see: treadle task "
        "ls --service %.*s%s%s",
        mapping->submission.name, span, (unsigned long long)mapping->left_count,
        mapping->left_count == 1 ? "" : "s",
        mapping->is_input_over ? "" : ", and not all of the input was read",
        (int)(dot - mapping->submission.name), mapping->submission.name,
        arguments->joblog == NULL ? "" : "; what has settled is in ",
        arguments->joblog == NULL ? "" : arguments->joblog);
}

static void note_interrupted(const struct mapping *mapping)
{
    unsigned long long done_count = mapping->succeeded_count + mapping->failed_count;
    char left[96] = "";

    if (mapping->left_count > 0) {
        snprintf(left, sizeof(left), ", %llu may go on: treadle task ls",
                 (unsigned long long)mapping->left_count);
    }
    cli_note("map: interrupted; %llu tasks are %s, %llu cancelled%s", done_count,
             mapping->arguments->is_detached ? "submitted" : "done",
             (unsigned long long)mapping->cancelled_count, left);
}

static void note_summary(const struct mapping *mapping)
{
    uint64_t done_count = mapping->succeeded_count + mapping->failed_count;
    uint64_t span_ms = client_now_ms() - mapping->started_at_ms;
    uint64_t rate = done_count * MS_PER_S / (span_ms == 0 ? 1 : span_ms);
    char skipped[64] = "";

    if (mapping->failed_count == 0 && mapping->progress.kind != PROGRESS_BAR) {
        return;
    }
    if (mapping->skipped_count > 0) {
        snprintf(skipped, sizeof(skipped), ", %llu skipped",
                 (unsigned long long)mapping->skipped_count);
    }
    cli_note("map: %s: %llu of %llu %s, %llu failed%s, in %.1fs (%llu/s)", mapping->submission.name,
             (unsigned long long)mapping->succeeded_count, (unsigned long long)done_count,
             mapping->arguments->is_detached ? "accepted" : "succeeded",
             (unsigned long long)mapping->failed_count, skipped, (double)span_ms / MS_PER_S,
             (unsigned long long)rate);
}

/* Cancelled is what the broker said so of, and no more. */
static void note_no_worker(const struct mapping *mapping)
{
    char span[SPAN_TEXT_SIZE];
    char left[96] = "its tasks are cancelled";

    if (mapping->left_count > 0) {
        snprintf(left, sizeof(left), "%llu of its tasks may go on: treadle task ls",
                 (unsigned long long)mapping->left_count);
    }
    span_print(span, sizeof(span), mapping->arguments->worker_wait_ms);
    cli_note(
        "map: %s: no worker served it within %s, %s; start one with: treadle work %s -- COMMAND",
        mapping->submission.name, span, left, mapping->submission.name);
}

/* Says how it ended; the exit code. */
static enum cli_exit tell_end(struct mapping *mapping)
{
    progress_clear(&mapping->progress);
    if (!mapping->is_ending) {
        note_summary(mapping);
        if (mapping->is_input_broken) {
            return CLI_NOT_FOUND;
        }
        return mapping->failed_count > 0 ? CLI_TASK_FAILED : CLI_DONE;
    }
    if (mapping->code == CLI_INTERRUPTED) {
        note_interrupted(mapping);
    } else if (mapping->code == CLI_PATIENCE) {
        note_patience(mapping);
    } else if (mapping->code == CLI_UNAVAILABLE) {
        note_no_worker(mapping);
    } else if (mapping->code == CLI_REFUSED && mapping->left_count > 0) {
        cli_note("map: %s: %llu of its tasks may go on: treadle task ls", mapping->submission.name,
                 (unsigned long long)mapping->left_count);
    }
    return mapping->code;
}

/* ---- begin and end ---- */

/* Streams that were closed are found before there are tasks; streams_hold() has made them so. */
static enum cli_exit check_streams(void)
{
    if ((fcntl(STDIN_FILENO, F_GETFL) & O_ACCMODE) == O_WRONLY) {
        return cli_fail(CLI_NOT_FOUND, "map: stdin is closed; give it </dev/null at least");
    }
    if ((fcntl(STDOUT_FILENO, F_GETFL) & O_ACCMODE) == O_RDONLY) {
        return cli_fail(CLI_OUTPUT, "map: stdout is closed; give it >/dev/null at least");
    }
    return CLI_DONE;
}

static bool is_same_file(int fd, int other_fd)
{
    struct stat file;
    struct stat other;

    return fstat(fd, &file) == 0 && fstat(other_fd, &other) == 0 && S_ISREG(file.st_mode) &&
           file.st_dev == other.st_dev && file.st_ino == other.st_ino;
}

/* It overwrites the file: an input or results in it would be lost. */
static enum cli_exit check_joblog(const struct mapping *mapping)
{
    bool is_input = is_same_file(mapping->joblog.fd, STDIN_FILENO);

    if (is_input || is_same_file(mapping->joblog.fd, STDOUT_FILENO)) {
        return cli_fail(CLI_USAGE, "map: --joblog: %s is %s as well; name a file of its own",
                        mapping->arguments->joblog, is_input ? "stdin" : "stdout");
    }
    return CLI_DONE;
}

static enum cli_exit open_joblog(struct mapping *mapping)
{
    const struct arguments *arguments = mapping->arguments;
    enum joblog_mode mode = arguments->is_resume_failed ? JOBLOG_RESUME_FAILED
                            : arguments->is_resume      ? JOBLOG_RESUME
                                                        : JOBLOG_ANEW;
    char why[JOBLOG_WHY_SIZE];

    if (arguments->joblog != NULL && !joblog_open(&mapping->joblog, arguments->joblog, mode, why)) {
        return cli_fail(CLI_BAD_DATA, "map: %s: %s", arguments->joblog, why);
    }
    return arguments->joblog == NULL ? CLI_DONE : check_joblog(mapping);
}

static enum cli_exit open_window(struct mapping *mapping)
{
    struct hash_key hash_key;
    uint32_t count = WINDOW_JOBS_FACTOR * mapping->jobs;

    randombytes_buf(&hash_key, sizeof(hash_key));
    if (!window_init(&mapping->window, !mapping->arguments->is_unordered,
                     count < WINDOW_COUNT_MIN ? WINDOW_COUNT_MIN : count, &hash_key)) {
        return cli_fail_memory();
    }
    return CLI_DONE;
}

static enum cli_exit open_poll(struct mapping *mapping)
{
    struct epoll_event event = {.events = EPOLLIN};

    mapping->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (mapping->poll_fd == -1 ||
        epoll_ctl(mapping->poll_fd, EPOLL_CTL_ADD, mapping->contact.signal_fd, &event) == -1) {
        return cli_fail(CLI_SYSTEM, "map: epoll: %s", strerrordesc_np(errno));
    }
    return CLI_DONE;
}

/* What needs the broker's word, or its time. */
static void begin(struct mapping *mapping)
{
    const struct arguments *arguments = mapping->arguments;
    struct client_session *session = client_session_of(mapping->contact.client);
    struct timespec wall = {0};
    uint64_t now_ms = client_now_ms();
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    (void)sigaction(SIGPIPE, &ignore, NULL); /* told by write() */
    (void)clock_gettime(CLOCK_REALTIME, &wall);
    mapping->unix_offset_ms =
        (uint64_t)wall.tv_sec * MS_PER_S + (uint64_t)wall.tv_nsec / NS_PER_MS - now_ms;
    mapping->started_at_ms = now_ms;
    mapping->patience_ends_at_ms =
        is_given(arguments, OPTION_WAIT) ? now_ms + arguments->wait_ms : UINT64_MAX;
    record_reader_init(&mapping->reader, STDIN_FILENO, mapping->end_byte,
                       arguments->is_from_files
                           ? PATH_SIZE_MAX
                           : (size_t)client_session_figures(session).body_size_max);
    outlet_init(&mapping->outlet, STDOUT_FILENO);
    /* A bar would be drawn over what a person types. */
    progress_init(&mapping->progress, mapping->submission.name,
                  !arguments->is_without_progress && isatty(STDIN_FILENO) != 1, now_ms);
    watch_init(&mapping->watch, &mapping->contact, mapping->submission.name, true);
    joblog_begin(&mapping->joblog);
}

static void reset(struct mapping *mapping)
{
    if (mapping->poll_fd != -1) {
        close(mapping->poll_fd);
    }
    record_reader_reset(&mapping->reader);
    body_file_reset(&mapping->file);
    outlet_reset(&mapping->outlet);
    window_reset(&mapping->window);
    joblog_close(&mapping->joblog);
    submission_reset(&mapping->submission);
}

enum cli_exit mapping_run(const struct arguments *arguments)
{
    struct mapping mapping = {
        .arguments = arguments,
        .poll_fd = -1,
        .jobs = arguments->jobs == 0 ? MAPPING_JOBS_DEFAULT : (uint32_t)arguments->jobs,
        .end_byte = arguments->is_null_separated ? '\0' : '\n',
        .is_output_terminal = isatty(STDOUT_FILENO) == 1,
    };

    joblog_init(&mapping.joblog);
    enum cli_exit code =
        submission_read(&mapping.submission, arguments,
                        arguments->is_detached ? TREADLE_TASK_KEEP | TREADLE_TASK_DETACHED : 0);

    code = code == CLI_DONE ? check_streams() : code;
    code = code == CLI_DONE ? open_joblog(&mapping) : code;
    code = code == CLI_DONE ? open_window(&mapping) : code;
    if (code == CLI_DONE) {
        code = contact_open(&mapping.contact, arguments);
        if (code == CLI_DONE) {
            code = open_poll(&mapping);
            if (code == CLI_DONE) {
                begin(&mapping);
                loop(&mapping);
                code = tell_end(&mapping);
            }
            contact_close(&mapping.contact);
        }
    }
    reset(&mapping);
    return code;
}
