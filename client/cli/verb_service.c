/* SPDX-License-Identifier: MPL-2.0 */
/* service ls, show, pause, resume, breaker */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/cli/contact.h"
#include "common/base/span.h"

#define NUMBER_TEXT_SIZE 24

static json_t *service_to_json(const struct wire_service_row *row)
{
    return json_pack(
        "{s:o, s:b, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b}",
        "name", json_from_text(row->name), "paused", row->is_paused != 0, "breaker_state",
        breaker_state_text(row->breaker_state), "breaker_mode",
        breaker_mode_text(row->breaker_mode), "breaker_generation",
        json_from_number(row->breaker_generation), "breaker_left_ms",
        json_from_number(row->breaker_left_ms), "window_results",
        json_from_number(row->window_results), "window_failures",
        json_from_number(row->window_failures), "scheduled", json_from_number(row->scheduled),
        "ready", json_from_number(row->ready), "running", json_from_number(row->running), "workers",
        json_from_number(row->workers), "slots", json_from_number(row->slots), "succeeded",
        json_from_number(row->succeeded), "failed", json_from_number(row->failed), "retried",
        json_from_number(row->retried), "budget_spent", row->is_budget_spent != 0);
}

/* "open", "open (forced)" ... */
static void breaker_print(char *out, size_t size, const struct wire_service_row *row)
{
    snprintf(out, size, "%s%s", breaker_state_text(row->breaker_state),
             row->breaker_mode == BREAKER_AUTO ? "" : " (forced)");
}

static enum cli_exit services_print(struct wire_list rows)
{
    static const char *const headings[] = {"SERVICE",  ">READY",    ">SCHEDULED", ">RUNNING",
                                           ">WORKERS", ">SLOTS",    "BREAKER",    "PAUSED",
                                           ">FAILED",  ">SUCCEEDED"};
    struct table *table = table_open(headings, sizeof(headings) / sizeof(headings[0]));
    struct wire_service_row row;

    while (wire_service_row_next(&rows, &row)) {
        const uint64_t numbers[] = {row.ready, row.scheduled, row.running,  row.workers,
                                    row.slots, row.failed,    row.succeeded};
        char texts[sizeof(numbers) / sizeof(numbers[0])][NUMBER_TEXT_SIZE];
        char name[NAME_SIZE_MAX + 1];
        char breaker[32];

        for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
            snprintf(texts[i], sizeof(texts[i]), "%" PRIu64, numbers[i]);
        }
        snprintf(name, sizeof(name), "%.*s", (int)row.name.size, (const char *)row.name.data);
        breaker_print(breaker, sizeof(breaker), &row);
        const char *cells[] = {name,     texts[0], texts[1], texts[2],
                               texts[3], texts[4], breaker,  row.is_paused != 0 ? "paused" : "",
                               texts[5], texts[6]};

        table_add(table, cells, sizeof(cells) / sizeof(cells[0]));
    }
    return table_print(&table);
}

static enum cli_exit service_print(const struct wire_service_row *row)
{
    struct table *facts = table_open_facts();
    char breaker[32];
    char left[SPAN_TEXT_SIZE];

    breaker_print(breaker, sizeof(breaker), row);
    table_add_fact(facts, "service", "%.*s", (int)row->name.size, (const char *)row->name.data);
    table_add_fact(facts, "dispatch", "%s",
                   row->is_paused != 0         ? "paused"
                   : row->is_budget_spent != 0 ? "retry budget spent: retries wait"
                                               : "on");
    table_add_fact(facts, "breaker", "%s, generation %" PRIu64, breaker, row->breaker_generation);
    if (row->breaker_left_ms != 0) {
        span_print(left, sizeof(left), row->breaker_left_ms);
        table_add_fact(facts, "half-opens in", "%s", left);
    }
    table_add_fact(facts, "window", "%" PRIu64 " results, %" PRIu64 " failures",
                   row->window_results, row->window_failures);
    table_add_fact(facts, "tasks", "%" PRIu64 " ready, %" PRIu64 " scheduled, %" PRIu64 " running",
                   row->ready, row->scheduled, row->running);
    table_add_fact(facts, "workers", "%" PRIu64 " with %" PRIu64 " slots", row->workers,
                   row->slots);
    table_add_fact(facts, "settled", "%" PRIu64 " succeeded, %" PRIu64 " failed", row->succeeded,
                   row->failed);
    table_add_fact(facts, "retried", "%" PRIu64, row->retried);
    return table_print(&facts);
}

/* Asks for one service (empty: all). On CLI_DONE the caller ends the event. */
static enum cli_exit services_ask(const struct arguments *arguments, struct bytes name,
                                  struct client_event **event)
{
    struct message query = {.kind = MESSAGE_SERVICE_QUERY};

    query.as.service_query.name = name;
    enum cli_exit code = contact_ask_once(arguments, &query, event);

    if (code != CLI_DONE) {
        return code;
    }
    const struct message *answer = (*event)->answer;
    bool is_info = answer->kind == MESSAGE_SERVICE_INFO;
    uint64_t status = is_info ? answer->as.service_info.status : (uint64_t)DONE_REFUSED;

    if (is_info && name.size > 0 && status == DONE_OK && answer->as.service_info.rows.count == 0) {
        status = DONE_NOT_FOUND;
    }
    code = done_check(arguments, status, "service",
                      arguments->word_count == 0 ? "" : arguments->words[0]);
    if (code != CLI_DONE) {
        client_event_destroy(event);
    }
    return code;
}

static enum cli_exit service_ls(const struct arguments *arguments)
{
    struct client_event *event = NULL;
    enum cli_exit code = services_ask(arguments, (struct bytes){NULL, 0}, &event);

    if (code != CLI_DONE) {
        return code;
    }
    struct wire_list rows = event->answer->as.service_info.rows;

    if (arguments->is_json) {
        json_t *array = json_array();
        struct wire_service_row row;
        bool is_whole = array != NULL;

        while (is_whole && wire_service_row_next(&rows, &row)) {
            is_whole = json_append(array, service_to_json(&row));
        }
        if (!is_whole) {
            json_decref(array);
            array = NULL;
        }
        code = json_print(array);
    } else {
        code = services_print(rows);
    }
    client_event_destroy(&event);
    return code;
}

static enum cli_exit service_show(const struct arguments *arguments)
{
    struct client_event *event = NULL;
    struct bytes name;
    struct wire_service_row row;
    enum cli_exit code = service_name_parse(arguments, 0, &name);

    if (code == CLI_DONE) {
        code = services_ask(arguments, name, &event);
    }
    if (code != CLI_DONE) {
        return code;
    }
    struct wire_list rows = event->answer->as.service_info.rows;

    if (wire_service_row_next(&rows, &row)) {
        code = arguments->is_json ? json_print(service_to_json(&row)) : service_print(&row);
    }
    client_event_destroy(&event);
    return code;
}

/* Does one thing to the service of words[index] and says so. */
static enum cli_exit service_set(const struct arguments *arguments, size_t index,
                                 enum service_action action, const char *said)
{
    struct message query = {.kind = MESSAGE_SERVICE_SET};
    struct client_event *event = NULL;
    struct bytes name;
    enum cli_exit code = service_name_parse(arguments, index, &name);

    if (code == CLI_DONE) {
        query.as.service_set.name = name;
        query.as.service_set.action = action;
        code = contact_ask_once(arguments, &query, &event);
    }
    if (code != CLI_DONE) {
        return code;
    }
    bool is_done = event->answer->kind == MESSAGE_DONE;

    code = done_check(arguments, is_done ? event->answer->as.done.status : (uint64_t)DONE_REFUSED,
                      "service", arguments->words[index]);
    client_event_destroy(&event);
    if (code == CLI_DONE) {
        cli_note("%s: %s %s", arguments->verb->name, arguments->words[index], said);
    }
    return code;
}

static enum cli_exit service_pause(const struct arguments *arguments)
{
    return service_set(arguments, 0, SERVICE_PAUSE, "is paused: its tasks wait");
}

static enum cli_exit service_resume(const struct arguments *arguments)
{
    return service_set(arguments, 0, SERVICE_RESUME, "is resumed");
}

static enum cli_exit service_breaker(const struct arguments *arguments)
{
    static const struct {
        const char *word;
        enum service_action action;
        const char *said;
    } actions[] = {
        {"open", SERVICE_BREAKER_OPEN, "has its breaker forced open: its tasks wait"},
        {"close", SERVICE_BREAKER_CLOSE, "has its breaker forced closed"},
        {"auto", SERVICE_BREAKER_AUTO, "has its breaker back on automatic"},
    };

    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        if (strcmp(arguments->words[0], actions[i].word) == 0) {
            return service_set(arguments, 1, actions[i].action, actions[i].said);
        }
    }
    return cli_fail(CLI_USAGE,
                    "%s: '%s' is not open, close or auto; usage: treadle service breaker open "
                    "SERVICE",
                    arguments->verb->name, arguments->words[0]);
}

const struct verb verb_service_ls = {
    .name = "service ls",
    .words = "",
    .summary = "List services: their queues, workers and breakers",
    .options = OPTIONS_CONTACT | OPTION_BIT(OPTION_JSON),
    .run = service_ls,
};

const struct verb verb_service_show = {
    .name = "service show",
    .words = "SERVICE",
    .summary = "Show one service",
    .options = OPTIONS_CONTACT | OPTION_BIT(OPTION_JSON),
    .words_min = 1,
    .words_max = 1,
    .run = service_show,
};

const struct verb verb_service_pause = {
    .name = "service pause",
    .words = "SERVICE",
    .summary = "Hand out no task of a service until it is resumed",
    .options = OPTIONS_CONTACT,
    .words_min = 1,
    .words_max = 1,
    .run = service_pause,
};

const struct verb verb_service_resume = {
    .name = "service resume",
    .words = "SERVICE",
    .summary = "Go on handing out the tasks of a paused service",
    .options = OPTIONS_CONTACT,
    .words_min = 1,
    .words_max = 1,
    .run = service_resume,
};

const struct verb verb_service_breaker = {
    .name = "service breaker",
    .words = "open|close|auto SERVICE",
    .summary = "Force a service's circuit breaker open or closed, or give it back to itself",
    .options = OPTIONS_CONTACT,
    .words_min = 2,
    .words_max = 2,
    .run = service_breaker,
};
