/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/fault.h"
#include "client/cli/task_print.h"
#include "common/base/span.h"

#define LOOK_EVERY_MS      1000 /* how often to ask why a task waits */
#define LOST_NOTE_MS       1000 /* how long the broker is away before it is said */
#define GATE_NOTE_MS       2000 /* and for how long a service hands nothing out */
#define PATTERNS_TEXT_SIZE 512
#define PATTERNS_SHOWN_MAX 8

void watch_init(struct watch *watch, struct contact *contact, const char *name, bool is_ours)
{
    uint64_t now_ms = client_now_ms();
    uint64_t worker_wait_ms = contact->arguments->worker_wait_ms;
    bool is_short = is_ours && worker_wait_ms < LOOK_EVERY_MS;

    *watch = (struct watch){
        .contact = contact,
        .name = name,
        .is_ours = is_ours,
        .next_look_at_ms = now_ms + (is_short ? worker_wait_ms : LOOK_EVERY_MS),
        .looked_at_ms = now_ms,
    };
}

static const char *verb_name(const struct watch *watch)
{
    return watch->contact->arguments->verb->name;
}

static struct client_session *session_of(const struct watch *watch)
{
    return client_session_of(watch->contact->client);
}

static uint64_t earlier(uint64_t a_ms, uint64_t b_ms)
{
    return a_ms < b_ms ? a_ms : b_ms;
}

/* ---- no worker ---- */

/* The patterns that connected workers serve, each once: "wc.count, demo.*"; "" if there is none. */
static void patterns_print(struct wire_list workers, char out[PATTERNS_TEXT_SIZE])
{
    struct wire_worker_row worker;
    struct wire_tag pattern;
    size_t size = 0;
    unsigned shown = 0;

    out[0] = '\0';
    while (wire_worker_row_next(&workers, &worker)) {
        struct wire_list serves = worker.serves;

        while (worker.is_connected != 0 && wire_tag_next(&serves, &pattern)) {
            char text[PATTERN_SIZE_MAX + 3];

            snprintf(text, sizeof(text), "%.*s, ", (int)pattern.text.size,
                     (const char *)pattern.text.data);
            if (strstr(out, text) == NULL && shown < PATTERNS_SHOWN_MAX &&
                size + strlen(text) < PATTERNS_TEXT_SIZE) {
                memcpy(out + size, text, strlen(text) + 1);
                size += strlen(text);
                shown++;
            }
        }
    }
    if (size > 0) {
        out[size - 2] = '\0';
    }
}

static void note_no_worker(const struct watch *watch, const struct message *workers)
{
    char patterns[PATTERNS_TEXT_SIZE];
    char span[SPAN_TEXT_SIZE];
    char *how_long = NULL;

    patterns_print(workers->as.worker_info.rows, patterns);
    span_print(span, sizeof(span), watch->contact->arguments->worker_wait_ms);
    if (!watch->is_ours || asprintf(&how_long, ", waiting up to %s for one", span) == -1) {
        how_long = NULL;
    }
    if (patterns[0] == '\0') {
        cli_note("%s: no worker serves %s%s; none is connected, start one with: treadle work %s "
                 "-- COMMAND",
                 verb_name(watch), watch->name, how_long == NULL ? "" : how_long, watch->name);
    } else {
        cli_note("%s: no worker serves %s%s; services that have one: %s", verb_name(watch),
                 watch->name, how_long == NULL ? "" : how_long, patterns);
    }
    free(how_long);
}

static struct message worker_query(void)
{
    return (struct message){.kind = MESSAGE_WORKER_QUERY};
}

static struct message task_query(const struct treadle_task_id *id)
{
    struct message query = {.kind = MESSAGE_TASK_QUERY};

    query.as.task_query.id = *id;
    return query;
}

static bool is_without_worker(const struct message *info)
{
    struct wire_list rows = info->as.task_info.rows;
    struct wire_task_row row;

    return info->kind == MESSAGE_TASK_INFO && info->as.task_info.status == AWAIT_PENDING &&
           wire_task_row_next(&rows, &row) && row.reason == WAIT_NO_WORKER;
}

/* The gates at which all tasks of a service wait, for longer than a person would think. */
static bool is_service_gate(uint64_t reason)
{
    return reason == WAIT_PAUSED || reason == WAIT_BREAKER || reason == WAIT_PROBES;
}

/* Says why nothing moves once it has been so for a while, and again only when the reason is another
 * one. */
static void look_at_gate(struct watch *watch, const struct message *info, uint64_t now_ms)
{
    struct wire_list rows = info->as.task_info.rows;
    struct wire_task_row row = {.reason = WAIT_NONE};

    if (info->kind != MESSAGE_TASK_INFO || !wire_task_row_next(&rows, &row) ||
        row.state >= TASK_RUNNING || !is_service_gate(row.reason)) {
        row.reason = WAIT_NONE;
    }
    if (row.reason != watch->gate) {
        watch->gate = row.reason;
        watch->gate_since_ms = now_ms;
        watch->is_gate_noted = false;
    }
    if (row.reason == WAIT_NONE || watch->is_gate_noted ||
        now_ms - watch->gate_since_ms < GATE_NOTE_MS) {
        return;
    }
    char *sentence = task_gate_in_words(&info->as.task_info, &row);

    if (sentence != NULL) {
        cli_note("%s: %s %s", verb_name(watch), watch->name, sentence);
    }
    watch->is_gate_noted = true;
    free(sentence);
}

/* The answer to a look at the task. */
static void on_look(struct watch *watch, const struct message *info)
{
    uint64_t now_ms = client_now_ms();

    watch->next_look_at_ms = now_ms + LOOK_EVERY_MS;
    look_at_gate(watch, info, now_ms);
    if (!is_without_worker(info)) {
        watch->no_worker_since_ms = 0;
        watch->is_noted = false;
        watch->looked_at_ms = now_ms;
        return;
    }
    if (watch->no_worker_since_ms == 0) {
        watch->no_worker_since_ms = watch->looked_at_ms;
    }
    uint64_t ends_at_ms = watch->no_worker_since_ms + watch->contact->arguments->worker_wait_ms;

    watch->looked_at_ms = now_ms;
    if (watch->is_ours && now_ms >= ends_at_ms) {
        watch->is_worker_wait_over = true;
        watch->next_look_at_ms = UINT64_MAX;
        return;
    }
    if (watch->is_ours) {
        watch->next_look_at_ms = earlier(watch->next_look_at_ms, ends_at_ms);
    }
    if (!watch->is_noted) {
        struct message query = worker_query();

        watch->is_noted = client_session_request(session_of(watch), &query,
                                                 &watch->workers_request) == TREADLE_OK;
    }
}

void watch_on_answer(struct watch *watch, const struct client_event *event)
{
    if (event->request == watch->look_request) {
        on_look(watch, event->answer);
    } else if (event->request == watch->workers_request &&
               event->answer->kind == MESSAGE_WORKER_INFO) {
        note_no_worker(watch, event->answer);
    }
}

void watch_note_missing_worker(struct watch *watch, const struct treadle_task_id *id)
{
    struct message query = task_query(id);
    struct client_event *event = NULL;

    if (contact_ask(watch->contact, &query, &event) != CLI_DONE) {
        return;
    }
    bool is_missing = is_without_worker(event->answer);

    client_event_destroy(&event);
    query = worker_query();
    if (is_missing && contact_ask(watch->contact, &query, &event) == CLI_DONE) {
        if (event->answer->kind == MESSAGE_WORKER_INFO) {
            note_no_worker(watch, event->answer);
        }
        client_event_destroy(&event);
    }
}

/* ---- time ---- */

/* Says once, each time, that the broker is away. */
static void watch_contact(struct watch *watch, uint64_t now_ms)
{
    if (client_is_welcome(watch->contact->client)) {
        watch->lost_since_ms = 0;
        watch->is_lost_noted = false;
        return;
    }
    if (watch->lost_since_ms == 0) {
        watch->lost_since_ms = now_ms;
    }
    if (!watch->is_lost_noted && now_ms - watch->lost_since_ms >= LOST_NOTE_MS) {
        const char *why = client_transport_text(watch->contact->client);

        cli_note("%s: %s: the broker is away%s%s; waiting for it%s", verb_name(watch),
                 watch->contact->arguments->broker, why[0] == '\0' ? "" : ": ", why,
                 fault_is_about_keys(client_transport_fault(watch->contact->client))
                     ? "; see: treadle doctor"
                     : "");
        watch->is_lost_noted = true;
    }
}

void watch_on_time(struct watch *watch, const struct treadle_task_id *id, uint64_t now_ms)
{
    watch_contact(watch, now_ms);
    if (now_ms < watch->next_look_at_ms) {
        return;
    }
    if (id == NULL) {
        watch->next_look_at_ms = now_ms + LOOK_EVERY_MS;
        watch->looked_at_ms = now_ms;
        watch->no_worker_since_ms = 0;
        return;
    }
    struct message query = task_query(id);
    bool is_asked =
        client_session_request(session_of(watch), &query, &watch->look_request) == TREADLE_OK;

    watch->next_look_at_ms = is_asked ? UINT64_MAX : now_ms + LOOK_EVERY_MS;
}

uint64_t watch_next_at_ms(const struct watch *watch)
{
    uint64_t next_ms = watch->next_look_at_ms;

    if (!client_is_welcome(watch->contact->client) && !watch->is_lost_noted) {
        next_ms = earlier(next_ms, client_now_ms() + LOST_NOTE_MS);
    }
    return next_ms;
}
