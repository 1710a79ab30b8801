/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/follow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/span.h"
#include "common/base/uuid.h"

#define CANCEL_PATIENCE_MS 2000 /* for the answer to a cancel before the verb ends */

void follow_init(struct follow *follow, struct contact *contact, const char *name,
                 const struct treadle_task_id *id, bool is_ours)
{
    const struct arguments *arguments = contact->arguments;
    uint64_t now_ms = client_now_ms();

    *follow = (struct follow){
        .contact = contact,
        .name = name,
        .id = *id,
        .patience_ends_at_ms =
            is_given(arguments, OPTION_WAIT) ? now_ms + arguments->wait_ms : UINT64_MAX,
        .cancel_status = CANCEL_STATUS_COUNT,
    };
    watch_init(&follow->watch, contact, name, is_ours);
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

static enum cli_exit fail_without_worker(const struct follow *follow, bool is_cancelled)
{
    char span[SPAN_TEXT_SIZE];

    span_print(span, sizeof(span), follow->contact->arguments->worker_wait_ms);
    return cli_fail(CLI_UNAVAILABLE,
                    "%s: %s: no worker served it within %s, %s; start one "
                    "with: treadle work %s -- COMMAND",
                    verb_name(follow), follow->name, span,
                    is_cancelled ? "the task is cancelled" : "the task may go on", follow->name);
}

/* ---- events and time ---- */

static bool is_final(const struct client_event *event)
{
    return event->kind == CLIENT_EVENT_SETTLED ||
           (event->kind == CLIENT_EVENT_ACCEPTED && event->status != ACCEPT_OK &&
            event->status != ACCEPT_EXISTING) ||
           (event->kind == CLIENT_EVENT_AWAITED &&
            (event->status == AWAIT_GONE || event->status == AWAIT_UNKNOWN));
}

/* Cancels the task once its worker was waited for long enough; false: memory is out. */
static bool give_up_if_due(struct follow *follow)
{
    if (!follow->watch.is_worker_wait_over || follow->is_given_up) {
        return true;
    }
    follow->is_given_up = true;
    follow->give_up_at_ms = client_now_ms() + CANCEL_PATIENCE_MS;
    return client_session_cancel(session_of(follow), follow->id) == TREADLE_OK;
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
            watch_on_answer(&follow->watch, event);
            if (!give_up_if_due(follow)) {
                client_event_destroy(&event);
                return false;
            }
        }
        client_event_destroy(&event);
    }
    return true;
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

    watch_on_time(&follow->watch, &follow->id, now_ms);
    if (follow->is_given_up) {
        return now_ms >= follow->give_up_at_ms
                   ? fail_without_worker(follow, follow->cancel_status == CANCEL_DONE)
                   : CLI_DONE;
    }
    return now_ms >= follow->patience_ends_at_ms ? fail_patience(follow) : CLI_DONE;
}

static uint64_t next_at_ms(const struct follow *follow)
{
    uint64_t next_ms = follow->is_given_up ? follow->give_up_at_ms : follow->patience_ends_at_ms;

    return earlier(next_ms, watch_next_at_ms(&follow->watch));
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
    if (follow->watch.is_ours && !follow->contact->arguments->is_detached) {
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
        return fail_without_worker(follow, true);
    }
    return code;
}

/* ---- outcomes ---- */

const char *reason_in_words(const char *reason)
{
    static const char *const words[][2] = {
        {"tasks", "the broker holds as many tasks as it may; try again later"},
        {"bytes", "the broker holds as many bytes as it may; try again later"},
        {"share", "you hold more than your share of the broker; try again later"},
        {"names", "the broker knows as many services as it may; try one of: treadle service ls"},
        {"draining", "the broker is draining and takes nothing new; try again later"},
        {"no_space", "the broker's disk is full; try again later"},
        {"id_taken", "the id belongs to somebody else; choose another"},
        {"no_right", "this key may not submit to this task; see: treadle doctor"},
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
