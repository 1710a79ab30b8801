/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/follow.h"
#include "client/cli/mapping.h"
#include "common/base/uuid.h"

#define SIGNAL_EXIT_BASE 128 /* as shells say that a signal ended a command */
#define SIGNAL_COUNT     65

/* ---- the job log ---- */

/* What is known of a record in flight or settled. */
static struct joblog_entry entry_from_record(const struct mapping *mapping,
                                             const struct window_record *record)
{
    return (struct joblog_entry){
        .sequence = record->sequence,
        .started_at_unix_ms = mapping->unix_offset_ms + record->submitted_at_ms,
        .runtime_ms = record->settled_at_ms - record->submitted_at_ms,
        .send_size = record->body_size,
        .receive_size = record->result.size,
        .command = record->command,
        .id = &record->id,
        .attempts = record->attempts,
        .kind = task_state_text(TASK_SUCCEEDED),
    };
}

static void log_entry(struct mapping *mapping, const struct joblog_entry *entry)
{
    if (!joblog_add(&mapping->joblog, entry, mapping->outlet.appended_size)) {
        mapping_end_for_memory(mapping);
    }
}

/* A command's own exit code or signal, which the error's name tells: "exit.2", "signal.SEGV". */
static void exit_from_error(struct joblog_entry *entry, const char *error_name)
{
    entry->exit_value = 1;
    if (strncmp(error_name, "exit.", 5) == 0) {
        unsigned long value = strtoul(error_name + 5, NULL, 10);

        entry->exit_value = value >= 1 && value <= 255 ? (unsigned)value : 1;
    }
    if (strncmp(error_name, "signal.", 7) != 0) {
        return;
    }
    for (int number = 1; number < SIGNAL_COUNT; number++) {
        const char *name = sigabbrev_np(number);

        if (name != NULL && strcmp(name, error_name + 7) == 0) {
            entry->signal = (unsigned)number;
            entry->exit_value = SIGNAL_EXIT_BASE + (unsigned)number;
        }
    }
}

/* ---- what failed ---- */

const char *mapping_record_word(const struct mapping *mapping)
{
    return mapping->arguments->is_null_separated ? "record" : "line";
}

void mapping_fail_input(struct mapping *mapping, const struct record *record, const char *why)
{
    struct joblog_entry entry = {
        .sequence = mapping->record_count,
        .started_at_unix_ms = mapping->unix_offset_ms + client_now_ms(),
        .exit_value = 1,
        .command = record->text,
        .kind = "input",
    };

    progress_clear(&mapping->progress);
    cli_note("map: %s %llu: %s", mapping_record_word(mapping),
             (unsigned long long)mapping->record_count, why);
    mapping->failed_count++;
    log_entry(mapping, &entry);
}

/* One line: which record, what, why, where, which task. */
static void note_failure(const struct mapping *mapping, const struct window_record *record,
                         const struct treadle_outcome *outcome)
{
    bool has_message = outcome->error_message[0] != '\0';
    const char *said = has_message ? outcome->error_message : outcome->error_name;
    char *message = text_for_people(bytes_from_text(said), false);
    char *worker = text_for_people(bytes_from_text(outcome->worker), false);
    char *host = text_for_people(bytes_from_text(outcome->host), false);
    const char *state = task_state_text((uint64_t)outcome->state);
    bool is_kind_new = strcmp(state, outcome->kind_text) != 0; /* not "expired: expired" */
    char id[UUID_TEXT_SIZE];
    char attempt[64] = "";
    char where[300] = "";

    uuid_print(&outcome->id, id);
    if (outcome->attempts > 0) {
        snprintf(attempt, sizeof(attempt), " (attempt %u of %u", outcome->attempts,
                 outcome->attempts_max);
        if (worker != NULL && host != NULL && worker[0] != '\0') {
            snprintf(where, sizeof(where), ", worker %s on %s", worker, host);
        }
    }
    cli_note("map: %s %llu: %s %s%s%s%s%s%s%s%s; task %s", mapping_record_word(mapping),
             (unsigned long long)record->sequence, mapping->submission.name, state,
             is_kind_new ? ": " : "", is_kind_new ? outcome->kind_text : "",
             message == NULL || message[0] == '\0' ? "" : ": ", message == NULL ? "" : message,
             attempt, where, attempt[0] == '\0' ? "" : ")", id);
    free(message);
    free(worker);
    free(host);
}

/* The broker does not have the task, or its result no more. */
static void note_refusal(const struct mapping *mapping, const struct window_record *record,
                         const struct treadle_outcome *outcome)
{
    const char *what = outcome->status == TREADLE_OK ? "succeeded, but its result is gone"
                       : outcome->status == TREADLE_E_NOT_FOUND ? "the broker lost sight of it: "
                                                                : "the broker refused: ";
    char id[UUID_TEXT_SIZE];

    uuid_print(&outcome->id, id);
    cli_note("map: %s %llu: %s: %s%s; task %s", mapping_record_word(mapping),
             (unsigned long long)record->sequence, mapping->submission.name, what,
             reason_in_words(outcome->reason), id);
}

static void fail_record(struct mapping *mapping, struct window_record *record,
                        const struct treadle_outcome *outcome)
{
    bool is_failure = outcome->status == TREADLE_OK && outcome->is_result_gone == 0;
    struct joblog_entry entry = entry_from_record(mapping, record);

    progress_clear(&mapping->progress);
    if (is_failure) {
        note_failure(mapping, record, outcome);
    } else {
        note_refusal(mapping, record, outcome);
    }
    exit_from_error(&entry, outcome->error_name);
    entry.host = bytes_from_text(outcome->host);
    entry.kind = is_failure                      ? outcome->kind_text
                 : outcome->status == TREADLE_OK ? await_status_text(AWAIT_GONE)
                                                 : outcome->reason;
    mapping->failed_count++;
    log_entry(mapping, &entry);
    window_remove(&mapping->window, record);
}

/* ---- what succeeded ---- */

static void give_out(struct mapping *mapping, struct window_record *record)
{
    struct bytes result = record->result;
    struct bytes end = {&mapping->end_byte, 1};
    bool is_ended = result.size > 0 && result.data[result.size - 1] == mapping->end_byte;
    struct joblog_entry entry = entry_from_record(mapping, record);

    if (!outlet_append(&mapping->outlet, result) ||
        (!is_ended && !outlet_append(&mapping->outlet, end))) {
        mapping_end_for_memory(mapping); /* it was not given out, so it is not logged */
    } else {
        log_entry(mapping, &entry);
    }
    window_remove(&mapping->window, record);
}

static void give_out_next(struct mapping *mapping)
{
    struct window_record *record = NULL;

    while (!outlet_is_full(&mapping->outlet) && (record = window_next(&mapping->window)) != NULL) {
        give_out(mapping, record);
    }
}

void mapping_flush(struct mapping *mapping)
{
    struct window_record *record = NULL;

    mapping->next_cancel = NULL;
    mapping->left_count = mapping->window.in_flight_count;
    while ((record = window_first(&mapping->window)) != NULL) {
        if (record->is_settled) {
            give_out(mapping, record);
        } else {
            window_remove(&mapping->window, record);
        }
    }
}

static void succeed(struct mapping *mapping, struct window_record *record, struct bytes result)
{
    if (!window_settle(&mapping->window, record, result)) {
        mapping_end_for_memory(mapping);
        return;
    }
    mapping->succeeded_count++;
}

/* ---- events ---- */

static bool is_final(const struct client_event *event)
{
    return event->kind == CLIENT_EVENT_SETTLED ||
           (event->kind == CLIENT_EVENT_ACCEPTED && event->status != ACCEPT_OK &&
            event->status != ACCEPT_EXISTING) ||
           (event->kind == CLIENT_EVENT_AWAITED &&
            (event->status == AWAIT_GONE || event->status == AWAIT_UNKNOWN));
}

static bool is_without_result(const struct client_event *event, const void *context)
{
    (void)context;
    return event->kind != CLIENT_EVENT_SETTLED;
}

/* The record of an event leaves the flight: whoever walks over those in flight goes on behind it.
 */
static struct window_record *find_landing(struct mapping *mapping, const struct client_event *event)
{
    struct window_record *record = window_find(&mapping->window, &event->id);

    if (record != NULL && mapping->next_cancel == record) {
        mapping->next_cancel = window_after(&mapping->window, record);
    }
    return record;
}

/* Takes the event over. */
static void on_final(struct mapping *mapping, struct client_event **event)
{
    struct window_record *record = find_landing(mapping, *event);
    struct treadle_outcome *outcome = NULL;

    if (record == NULL) { /* cancelled, and not waited for */
        client_event_destroy(event);
        return;
    }
    if (client_outcome_from_event(event, &outcome) != TREADLE_OK) {
        mapping_end_for_memory(mapping);
        return;
    }
    record->settled_at_ms = client_now_ms();
    record->attempts = outcome->attempts;
    bool is_settled = outcome->status == TREADLE_OK;

    if (is_settled && outcome->state == TREADLE_TASK_SUCCEEDED && outcome->is_result_gone == 0) {
        succeed(mapping, record, (struct bytes){outcome->body, outcome->body_size});
    } else if (mapping->is_ending && is_settled && outcome->state == TREADLE_TASK_CANCELLED) {
        mapping->cancelled_count++; /* by us: not done, so not in the job log */
        window_remove(&mapping->window, record);
    } else {
        fail_record(mapping, record, outcome);
    }
    treadle_outcome_free(&outcome);
}

/* With --detach: the id is the result. */
static void on_accepted(struct mapping *mapping, const struct client_event *event)
{
    struct window_record *record = find_landing(mapping, event);
    char id[UUID_TEXT_SIZE];

    if (record != NULL) {
        uuid_print(&event->id, id);
        succeed(mapping, record, bytes_from_text(id));
    }
}

static void on_cancelled(struct mapping *mapping, const struct client_event *event)
{
    mapping->cancel_unanswered_count -= mapping->cancel_unanswered_count > 0 ? 1 : 0;
    if (event->status == CANCEL_DONE) {
        struct window_record *record = find_landing(mapping, event);

        if (record != NULL) {
            mapping->cancelled_count++;
            window_remove(&mapping->window, record);
        }
    }
}

void mapping_take_events(struct mapping *mapping)
{
    treadle_client *client = mapping->contact.client;

    give_out_next(mapping);
    for (;;) {
        /* What is not taken is not acknowledged, and the broker stops sending more. */
        bool is_stalled = outlet_is_full(&mapping->outlet) && !mapping->is_ending;
        struct client_event *event =
            client_take_event(client, is_stalled ? is_without_result : NULL, NULL);

        if (event == NULL) {
            return;
        }
        if (is_final(event)) {
            on_final(mapping, &event);
        } else if (event->kind == CLIENT_EVENT_ACCEPTED) {
            on_accepted(mapping, event);
        } else if (event->kind == CLIENT_EVENT_CANCELLED) {
            on_cancelled(mapping, event);
        } else if (event->kind == CLIENT_EVENT_ANSWER) {
            progress_clear(&mapping->progress); /* it may have something to say */
            watch_on_answer(&mapping->watch, event);
        }
        client_event_destroy(&event);
        give_out_next(mapping);
    }
}
