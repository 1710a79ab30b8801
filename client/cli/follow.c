/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/follow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/span.h"
#include "common/base/uuid.h"

#define LOOK_EVERY_MS      1000 /* how often to ask why the task waits */
#define LOST_NOTE_MS       1000 /* how long the broker is away before it is said */
#define CANCEL_PATIENCE_MS 2000 /* for the answer to a cancel before the verb ends */
#define PATTERNS_TEXT_SIZE 512
#define PATTERNS_SHOWN_MAX 8

void follow_init(struct follow *follow, struct contact *contact, const char *name,
                 const struct treadle_task_id *id, bool is_ours)
{
    const struct arguments *arguments = contact->arguments;
    uint64_t now_ms = client_now_ms();
    bool is_short = is_ours && arguments->worker_wait_ms < LOOK_EVERY_MS;

    *follow = (struct follow){
        .contact = contact,
        .name = name,
        .id = *id,
        .is_ours = is_ours,
        .patience_ends_at_ms =
            is_given(arguments, OPTION_WAIT) ? now_ms + arguments->wait_ms : UINT64_MAX,
        .next_look_at_ms = now_ms + (is_short ? arguments->worker_wait_ms : LOOK_EVERY_MS),
        .looked_at_ms = now_ms,
        .cancel_status = CANCEL_STATUS_COUNT,
    };
}

void follow_reset(struct follow *follow)
{
    treadle_outcome_free(&follow->outcome);
}

static const char *verb_name(const struct follow *follow)
{
    return follow->contact->arguments->verb->name;
}

static struct client_session *session_of(const struct follow *follow)
{
    return client_session_of(follow->contact->client);
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

static void note_no_worker(const struct follow *follow, const struct message *workers)
{
    char patterns[PATTERNS_TEXT_SIZE];
    char span[SPAN_TEXT_SIZE];
    char *how_long = NULL;

    patterns_print(workers->as.worker_info.rows, patterns);
    span_print(span, sizeof(span), follow->contact->arguments->worker_wait_ms);
    if (!follow->is_ours || asprintf(&how_long, ", waiting up to %s for one", span) == -1) {
        how_long = NULL;
    }
    if (patterns[0] == '\0') {
        cli_note("%s: no worker serves %s%s; none is connected, start one with: treadle work %s "
                 "-- COMMAND",
                 verb_name(follow), follow->name, how_long == NULL ? "" : how_long, follow->name);
    } else {
        cli_note("%s: no worker serves %s%s; services that have one: %s", verb_name(follow),
                 follow->name, how_long == NULL ? "" : how_long, patterns);
    }
    free(how_long);
}

static struct message worker_query(void)
{
    return (struct message){.kind = MESSAGE_WORKER_QUERY};
}

static struct message task_query(const struct follow *follow)
{
    struct message query = {.kind = MESSAGE_TASK_QUERY};

    query.as.task_query.id = follow->id;
    return query;
}

static bool is_without_worker(const struct message *info)
{
    struct wire_list rows = info->as.task_info.rows;
    struct wire_task_row row;

    return info->kind == MESSAGE_TASK_INFO && info->as.task_info.status == AWAIT_PENDING &&
           wire_task_row_next(&rows, &row) && row.reason == WAIT_NO_WORKER;
}

/* The answer to a look at the task. */
static void on_look(struct follow *follow, const struct message *info)
{
    uint64_t now_ms = client_now_ms();
    uint64_t worker_wait_ms = follow->contact->arguments->worker_wait_ms;

    follow->next_look_at_ms = now_ms + LOOK_EVERY_MS;
    if (!is_without_worker(info)) {
        follow->no_worker_since_ms = 0;
        follow->is_noted = false;
    } else {
        if (follow->no_worker_since_ms == 0) {
            follow->no_worker_since_ms = follow->looked_at_ms;
        }
        uint64_t ends_at_ms = follow->no_worker_since_ms + worker_wait_ms;

        if (follow->is_ours && now_ms >= ends_at_ms) {
            if (client_session_cancel(session_of(follow), follow->id) == TREADLE_OK) {
                follow->is_given_up = true;
                follow->give_up_at_ms = now_ms + CANCEL_PATIENCE_MS;
                follow->next_look_at_ms = UINT64_MAX;
            }
        } else if (!follow->is_noted) {
            struct message query = worker_query();

            follow->is_noted = client_session_request(session_of(follow), &query,
                                                      &follow->workers_request) == TREADLE_OK;
        }
        if (follow->is_ours && !follow->is_given_up) {
            follow->next_look_at_ms = earlier(follow->next_look_at_ms, ends_at_ms);
        }
    }
    follow->looked_at_ms = now_ms;
}

static enum cli_exit fail_without_worker(const struct follow *follow)
{
    char span[SPAN_TEXT_SIZE];

    span_print(span, sizeof(span), follow->contact->arguments->worker_wait_ms);
    return cli_fail(CLI_UNAVAILABLE,
                    "%s: %s: no worker served it within %s, the task is cancelled; start one "
                    "with: treadle work %s -- COMMAND",
                    verb_name(follow), follow->name, span, follow->name);
}

void follow_note_missing_worker(struct follow *follow)
{
    struct message query = task_query(follow);
    struct client_event *event = NULL;

    if (contact_ask(follow->contact, &query, &event) != CLI_DONE) {
        return;
    }
    bool is_missing = is_without_worker(event->answer);

    client_event_destroy(&event);
    query = worker_query();
    if (is_missing && contact_ask(follow->contact, &query, &event) == CLI_DONE) {
        if (event->answer->kind == MESSAGE_WORKER_INFO) {
            note_no_worker(follow, event->answer);
        }
        client_event_destroy(&event);
    }
}

/* ---- events and time ---- */

static void on_answer(struct follow *follow, const struct client_event *event)
{
    if (event->request == follow->look_request) {
        on_look(follow, event->answer);
    } else if (event->request == follow->workers_request &&
               event->answer->kind == MESSAGE_WORKER_INFO) {
        note_no_worker(follow, event->answer);
    }
}

static bool is_final(const struct client_event *event)
{
    return event->kind == CLIENT_EVENT_SETTLED ||
           (event->kind == CLIENT_EVENT_ACCEPTED && event->status != ACCEPT_OK &&
            event->status != ACCEPT_EXISTING) ||
           (event->kind == CLIENT_EVENT_AWAITED &&
            (event->status == AWAIT_GONE || event->status == AWAIT_UNKNOWN));
}

/* Looks at all events there are; false: memory is out. */
static bool take_events(struct follow *follow)
{
    treadle_client *client = follow->contact->client;
    struct client_event *event = NULL;

    while (follow->outcome == NULL && (event = client_take_event(client, NULL, NULL)) != NULL) {
        if (is_final(event)) {
            if (client_outcome_from_event(&event, &follow->outcome) != TREADLE_OK) {
                return false;
            }
            return true;
        }
        if (event->kind == CLIENT_EVENT_ACCEPTED) {
            follow->is_accepted = true;
        } else if (event->kind == CLIENT_EVENT_CANCELLED) {
            follow->cancel_status = event->status;
        } else if (event->kind == CLIENT_EVENT_ANSWER) {
            on_answer(follow, event);
        }
        client_event_destroy(&event);
    }
    return true;
}

/* Says once, each time, that the broker is away. */
static void watch_contact(struct follow *follow, uint64_t now_ms)
{
    if (client_is_welcome(follow->contact->client)) {
        follow->lost_since_ms = 0;
        follow->is_lost_noted = false;
        return;
    }
    if (follow->lost_since_ms == 0) {
        follow->lost_since_ms = now_ms;
    }
    if (!follow->is_lost_noted && now_ms - follow->lost_since_ms >= LOST_NOTE_MS) {
        const char *why = client_transport_text(follow->contact->client);

        cli_note("%s: %s: the broker is away%s%s; waiting for it", verb_name(follow),
                 follow->contact->arguments->broker, why[0] == '\0' ? "" : ": ", why);
        follow->is_lost_noted = true;
    }
}

static enum cli_exit fail_patience(const struct follow *follow)
{
    char id[UUID_TEXT_SIZE];
    char span[SPAN_TEXT_SIZE];

    uuid_print(&follow->id, id);
    span_print(span, sizeof(span), follow->contact->arguments->wait_ms);
    return cli_fail(CLI_PATIENCE,
                    "%s: %s: not settled after %s, the task goes on; wait again with: treadle "
                    "task wait %s",
                    verb_name(follow), follow->name, span, id);
}

/* What the clock says; not CLI_DONE: the following ends. */
static enum cli_exit on_time(struct follow *follow)
{
    uint64_t now_ms = client_now_ms();

    watch_contact(follow, now_ms);
    if (follow->is_given_up) {
        return now_ms >= follow->give_up_at_ms ? fail_without_worker(follow) : CLI_DONE;
    }
    if (now_ms >= follow->patience_ends_at_ms) {
        return fail_patience(follow);
    }
    if (now_ms >= follow->next_look_at_ms) {
        struct message query = task_query(follow);
        bool is_asked =
            client_session_request(session_of(follow), &query, &follow->look_request) == TREADLE_OK;

        follow->next_look_at_ms = is_asked ? UINT64_MAX : now_ms + LOOK_EVERY_MS;
    }
    return CLI_DONE;
}

static uint64_t next_at_ms(const struct follow *follow)
{
    uint64_t next_ms = follow->is_given_up ? follow->give_up_at_ms : follow->patience_ends_at_ms;

    next_ms = earlier(next_ms, follow->next_look_at_ms);
    if (!client_is_welcome(follow->contact->client) && !follow->is_lost_noted) {
        next_ms = earlier(next_ms, client_now_ms() + LOST_NOTE_MS);
    }
    return next_ms;
}

/* ---- following ---- */

/* Cancels the task and waits a little for the answer, so that it is told before the goodbye. */
static void cancel_interrupted(struct follow *follow, const char *id)
{
    uint64_t until_ms = client_now_ms() + CANCEL_PATIENCE_MS;
    enum cli_exit code = CLI_DONE;

    if (client_session_cancel(session_of(follow), follow->id) != TREADLE_OK) {
        cli_fail_memory();
        return;
    }
    while (code == CLI_DONE && follow->cancel_status == CANCEL_STATUS_COUNT &&
           follow->outcome == NULL && client_now_ms() < until_ms) {
        code = contact_wait(follow->contact, until_ms);
        if (!take_events(follow)) {
            break;
        }
    }
    bool is_cancelled =
        follow->cancel_status == CANCEL_DONE ||
        (follow->outcome != NULL && follow->outcome->state == TREADLE_TASK_CANCELLED);

    if (is_cancelled) {
        cli_note("%s: interrupted; %s is cancelled", verb_name(follow), follow->name);
    } else if (follow->outcome != NULL || follow->cancel_status == CANCEL_SETTLED_ALREADY) {
        cli_note("%s: interrupted; %s has settled: treadle task show %s", verb_name(follow),
                 follow->name, id);
    } else if (follow->cancel_status == CANCEL_REQUESTED) {
        cli_note("%s: interrupted; %s is told to stop", verb_name(follow), follow->name);
    } else {
        cli_note("%s: interrupted; the broker did not answer, %s may go on: treadle task show %s",
                 verb_name(follow), follow->name, id);
    }
}

static enum cli_exit on_interrupted(struct follow *follow)
{
    char id[UUID_TEXT_SIZE];

    uuid_print(&follow->id, id);
    if (follow->is_ours && !follow->contact->arguments->is_detached) {
        cancel_interrupted(follow, id);
    } else {
        cli_note("%s: interrupted; the task may go on: treadle task wait %s", verb_name(follow),
                 id);
    }
    return CLI_INTERRUPTED;
}

static enum cli_exit follow_until(struct follow *follow, bool stops_when_accepted)
{
    for (;;) {
        if (!take_events(follow)) {
            return cli_fail_memory();
        }
        if (follow->outcome != NULL || (stops_when_accepted && follow->is_accepted)) {
            return CLI_DONE;
        }
        enum cli_exit code = on_time(follow);

        if (code == CLI_DONE) {
            code = contact_wait(follow->contact, next_at_ms(follow));
        }
        if (code == CLI_INTERRUPTED) {
            return on_interrupted(follow);
        }
        if (code != CLI_DONE) {
            return code;
        }
    }
}

enum cli_exit follow_until_accepted(struct follow *follow)
{
    return follow_until(follow, true);
}

enum cli_exit follow_until_settled(struct follow *follow)
{
    enum cli_exit code = follow_until(follow, false);

    if (code == CLI_DONE && follow->is_given_up && follow->outcome->status == TREADLE_OK &&
        follow->outcome->state == TREADLE_TASK_CANCELLED) {
        return fail_without_worker(follow);
    }
    return code;
}

/* ---- outcomes ---- */

/* Words for the reasons of BUSY and REFUSED; the reason itself for those that need none. */
static const char *reason_in_words(const char *reason)
{
    static const char *const words[][2] = {
        {"tasks", "the broker holds as many tasks as it may; try again later"},
        {"bytes", "the broker holds as many bytes as it may; try again later"},
        {"share", "you hold more than your share of the broker; try again later"},
        {"names", "the broker knows as many services as it may; try one of: treadle service ls"},
        {"draining", "the broker is draining and takes nothing new; try again later"},
        {"no_space", "the broker's disk is full; try again later"},
        {"id_taken", "the id belongs to somebody else; choose another"},
        {"no_right", "you have no right to submit to this service; ask who runs the broker"},
        {"body_size", "the body is over the broker's limit"},
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(words[i][0], reason) == 0) {
            return words[i][1];
        }
    }
    return reason;
}

static enum cli_exit refusal_print(const char *verb, const char *name,
                                   const struct treadle_outcome *outcome)
{
    char id[UUID_TEXT_SIZE];

    uuid_print(&outcome->id, id);
    if (outcome->status == TREADLE_E_NOT_FOUND) {
        return cli_fail(CLI_NOT_FOUND,
                        "%s: no such task: %s (%s); it was never here, or its "
                        "outcome is kept no longer",
                        verb, id, outcome->reason);
    }
    if (outcome->status == TREADLE_E_CONFLICT) {
        return cli_fail(CLI_BAD_DATA,
                        "%s: %s: the id %s stands for another task; choose another --id", verb,
                        name, id);
    }
    bool is_data = strcmp(outcome->reason, "body_size") == 0;

    return cli_fail(is_data ? CLI_BAD_DATA : CLI_REFUSED, "%s: %s: the broker refused: %s", verb,
                    name, reason_in_words(outcome->reason));
}

/* Four lines: what, where, which, and how to see more. */
static void failure_print(const char *name, const struct treadle_outcome *outcome)
{
    bool has_message = outcome->error_message[0] != '\0';
    char *message = text_for_people(
        bytes_from_text(has_message ? outcome->error_message : outcome->error_name), false);
    char *worker = text_for_people(bytes_from_text(outcome->worker), false);
    char *host = text_for_people(bytes_from_text(outcome->host), false);
    char id[UUID_TEXT_SIZE];

    const char *state = task_state_text((uint64_t)outcome->state);
    bool is_kind_new = strcmp(state, outcome->kind_text) != 0; /* not "cancelled: cancelled" */

    uuid_print(&outcome->id, id);
    fprintf(stderr, "%s %s%s%s%s%s\n", name, state, is_kind_new ? ": " : "",
            is_kind_new ? outcome->kind_text : "",
            message == NULL || message[0] == '\0' ? "" : ": ", message == NULL ? "" : message);
    fprintf(stderr, "attempt %u of %u", outcome->attempts, outcome->attempts_max);
    if (worker != NULL && host != NULL && worker[0] != '\0') {
        fprintf(stderr, " by worker %s on host %s", worker, host);
    }
    fprintf(stderr, "\ntask %s\nmore with: treadle task show %s\n", id, id);
    free(message);
    free(worker);
    free(host);
}

enum cli_exit outcome_print(const struct arguments *arguments, const char *name,
                            const struct treadle_outcome *outcome)
{
    if (outcome->status != TREADLE_OK) {
        return refusal_print(arguments->verb->name, name, outcome);
    }
    if (outcome->state != TREADLE_TASK_SUCCEEDED) {
        failure_print(name, outcome);
        return CLI_TASK_FAILED;
    }
    if (outcome->is_result_gone != 0) {
        return cli_fail(CLI_NOT_FOUND,
                        "%s: %s succeeded, but its result is kept no longer; `treadle submit' "
                        "keeps it, and --result-ttl says for how long",
                        arguments->verb->name, name);
    }
    return cli_put((struct bytes){outcome->body, outcome->body_size});
}
