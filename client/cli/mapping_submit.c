/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/mapping.h"

#define ROUND_RECORD_COUNT 4096       /* submitted before events are looked at again */
#define ROUND_READ_COUNT   16         /* reads of the same */
#define IN_FLIGHT_SIZE_MAX 268435456U /* bytes of bodies in flight */
#define HELD_SIZE_MAX      67108864U  /* bytes of results that wait for their turn */

static bool may_submit(const struct mapping *mapping)
{
    const struct window *window = &mapping->window;

    return !mapping->is_ending && !mapping->is_input_over &&
           window->in_flight_count < mapping->jobs && !window_is_full(window) &&
           window->in_flight_size < IN_FLIGHT_SIZE_MAX && window->held_size < HELD_SIZE_MAX &&
           !outlet_is_full(&mapping->outlet);
}

/* What the client says to a task that it does not take. */
static void on_not_submitted(struct mapping *mapping, const struct record *record,
                             enum treadle_status status)
{
    const char *why = treadle_client_error(mapping->contact.client);

    if (status == TREADLE_E_LIMIT) {
        mapping_fail_input(mapping, record, why);
        return;
    }
    progress_clear(&mapping->progress);
    cli_note("map: %s: %s", mapping->submission.name,
             why[0] == '\0' ? treadle_status_text(status) : why);
    mapping_end(mapping, status == TREADLE_E_INVALID ? CLI_USAGE : CLI_SYSTEM, true);
}

/* One byte more than the job log shows, so that it sees that there was more. */
static struct bytes copy_command(struct bytes text)
{
    size_t size = text.size > JOBLOG_COMMAND_SIZE_MAX ? JOBLOG_COMMAND_SIZE_MAX + 1 : text.size;
    uint8_t *copy = malloc(size + 1);

    if (copy != NULL && size > 0) {
        memcpy(copy, text.data, size);
    }
    return (struct bytes){copy, size};
}

static void submit(struct mapping *mapping, const struct record *record, struct bytes body)
{
    struct treadle_task task = mapping->submission.task;
    struct treadle_task_id id;

    task.body = body.data;
    task.body_size = body.size;
    enum treadle_status status =
        client_submit(mapping->contact.client, &task,
                      mapping->arguments->is_detached ? CLIENT_TELL_ACCEPTED : 0, &id);

    if (status != TREADLE_OK) {
        on_not_submitted(mapping, record, status);
        return;
    }
    struct window_record *added = window_add(&mapping->window, &id, body.size);

    added->sequence = mapping->record_count;
    added->submitted_at_ms = client_now_ms();
    if (mapping->joblog.fd != -1) {
        added->command = copy_command(record->text);
        if (added->command.data == NULL) {
            mapping_end_for_memory(mapping);
        }
    }
}

/* Why a file's content is no body. */
static void fail_file(struct mapping *mapping, const struct record *record, int error,
                      uint64_t size_max)
{
    char *name = text_for_people(record->text, false);
    char *why = NULL;
    int size = error == EFBIG
                   ? asprintf(&why, "%s: the body is over the limit of %llu bytes",
                              name == NULL ? "" : name, (unsigned long long)size_max)
                   : asprintf(&why, "%s: %s", name == NULL ? "" : name,
                              error == EINVAL ? "Not a regular file" : strerrordesc_np(error));

    mapping_fail_input(mapping, record, size == -1 ? "out of memory" : why);
    free(size == -1 ? NULL : why);
    free(name);
}

/* The job log tells of another record: skipping this one would lose its result. */
static void end_for_other_input(struct mapping *mapping)
{
    progress_clear(&mapping->progress);
    cli_note("map: %s: %s %llu is not the one that was done; resume with the input that the job "
             "log was written for",
             mapping->arguments->joblog, mapping_record_word(mapping),
             (unsigned long long)mapping->record_count);
    mapping_end(mapping, CLI_BAD_DATA, true);
}

static void take_record(struct mapping *mapping, const struct record *record)
{
    uint64_t size_max =
        client_session_figures(client_session_of(mapping->contact.client)).body_size_max;
    char why[96];

    mapping->record_count++;
    if (joblog_is_done(&mapping->joblog, mapping->record_count)) {
        if (!joblog_is_same(&mapping->joblog, record->text)) {
            end_for_other_input(mapping);
        }
        mapping->skipped_count++;
        return;
    }
    if (mapping->arguments->is_from_files) {
        int error = record->is_too_large
                        ? ENAMETOOLONG
                        : body_file_read(&mapping->file, record->text, (size_t)size_max);

        if (error != 0) {
            fail_file(mapping, record, error, size_max);
        } else {
            submit(mapping, record, (struct bytes){mapping->file.data, mapping->file.size});
        }
    } else if (record->is_too_large) {
        snprintf(why, sizeof(why), "the body has %llu bytes, and the broker admits %llu",
                 (unsigned long long)record->size, (unsigned long long)size_max);
        mapping_fail_input(mapping, record, why);
    } else {
        submit(mapping, record, record->text);
    }
}

/* Reads once, if that does not wait. False: there is nothing to read now, or never again. */
static bool read_input(struct mapping *mapping)
{
    struct pollfd waiting = {.fd = mapping->reader.fd, .events = POLLIN};

    if (poll(&waiting, 1, 0) == 0) {
        mapping->wants_input = true;
        return false;
    }
    int error = record_reader_fill(&mapping->reader);

    if (error == EAGAIN || error == EINTR) {
        mapping->wants_input = true;
        return false;
    }
    if (error != 0) {
        progress_clear(&mapping->progress);
        cli_note("map: stdin: %s; what was read until then is done", strerrordesc_np(error));
        mapping->is_input_over = true;
        mapping->is_input_broken = true;
        return false;
    }
    return true;
}

void mapping_submit(struct mapping *mapping)
{
    uint32_t read_count = 0;
    uint32_t record_count = 0;
    struct record record;

    mapping->wants_input = false;
    mapping->has_more_input = false;
    while (may_submit(mapping)) {
        if (record_count == ROUND_RECORD_COUNT || read_count == ROUND_READ_COUNT) {
            mapping->has_more_input = true;
            return;
        }
        switch (record_reader_next(&mapping->reader, &record)) {
        case RECORD_READY:
            record_count++;
            take_record(mapping, &record);
            break;
        case RECORD_NEEDS_INPUT:
            read_count++;
            if (!read_input(mapping)) {
                return;
            }
            break;
        case RECORD_END:
            mapping->is_input_over = true;
            break;
        }
    }
}
