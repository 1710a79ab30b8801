/* SPDX-License-Identifier: MPL-2.0 */
/* worker ls, show, drain */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/contact.h"
#include "common/base/span.h"

static json_t *serves_to_json(struct wire_list serves)
{
    json_t *array = json_array();
    struct wire_tag pattern;

    while (wire_tag_next(&serves, &pattern)) {
        if (!json_append(array, json_from_text(pattern.text))) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *worker_to_json(const struct wire_worker_row *row)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:o, s:o}", "name",
                     json_from_text(row->name), "host", json_from_text(row->host), "principal",
                     json_from_text(row->principal), "slots", json_from_number(row->slots),
                     "in_use", json_from_number(row->in_use), "credit",
                     json_from_number(row->credit), "dispatched", json_from_number(row->dispatched),
                     "late", json_from_number(row->late), "draining", row->is_draining != 0,
                     "connected", row->is_connected != 0, "age_ms", json_from_number(row->age_ms),
                     "serves", serves_to_json(row->serves));
}

/* "wc.count, demo.*"; NULL: memory is out. */
static char *serves_text(struct wire_list serves)
{
    struct wire_tag pattern;
    char *text = strdup("");

    while (text != NULL && wire_tag_next(&serves, &pattern)) {
        char *one = text_for_people(pattern.text, false);
        char *longer = NULL;

        if (one == NULL ||
            asprintf(&longer, "%s%s%s", text, text[0] == '\0' ? "" : ", ", one) == -1) {
            longer = NULL;
        }
        free(one);
        free(text);
        text = longer;
    }
    return text;
}

static const char *worker_state(const struct wire_worker_row *row)
{
    if (row->is_connected == 0) {
        return "away";
    }
    return row->is_draining != 0 ? "draining" : "serving";
}

/* Whole seconds are enough for an age. */
static void age_print(char out[SPAN_TEXT_SIZE], uint64_t age_ms)
{
    span_print(out, SPAN_TEXT_SIZE, age_ms < 1000 ? age_ms : age_ms / 1000 * 1000);
}

static void worker_add(struct table *table, const struct wire_worker_row *row)
{
    char *name = text_for_people(row->name, false);
    char *host = text_for_people(row->host, false);
    char *serves = serves_text(row->serves);
    char slots[48];
    char dispatched[24];
    char late[24];
    char age[SPAN_TEXT_SIZE];

    snprintf(slots, sizeof(slots), "%" PRIu64 "/%" PRIu64, row->in_use, row->slots);
    snprintf(dispatched, sizeof(dispatched), "%" PRIu64, row->dispatched);
    snprintf(late, sizeof(late), "%" PRIu64, row->late);
    age_print(age, row->age_ms);
    const char *cells[] = {name, host, worker_state(row), slots, dispatched, late, age, serves};

    table_add(table, cells, sizeof(cells) / sizeof(cells[0]));
    free(name);
    free(host);
    free(serves);
}

static enum cli_exit workers_print(struct wire_list rows)
{
    static const char *const headings[] = {"WORKER",      "HOST",  "STATE", ">IN USE",
                                           ">DISPATCHED", ">LATE", ">AGE",  "SERVES"};
    struct table *table = table_open(headings, sizeof(headings) / sizeof(headings[0]));
    struct wire_worker_row row;

    while (wire_worker_row_next(&rows, &row)) {
        worker_add(table, &row);
    }
    return table_print(&table);
}

static enum cli_exit worker_print(const struct wire_worker_row *row)
{
    struct table *facts = table_open_facts();
    char *name = text_for_people(row->name, false);
    char *host = text_for_people(row->host, false);
    char *principal = text_for_people(row->principal, false);
    char *serves = serves_text(row->serves);
    char age[SPAN_TEXT_SIZE];

    age_print(age, row->age_ms);
    table_add_fact(facts, "worker", "%s", name == NULL ? "" : name);
    table_add_fact(facts, "host", "%s", host == NULL ? "" : host);
    table_add_fact(facts, "principal", "%s", principal == NULL ? "" : principal);
    table_add_fact(facts, "state", "%s, for %s", worker_state(row), age);
    table_add_fact(facts, "serves", "%s", serves == NULL ? "" : serves);
    table_add_fact(facts, "slots", "%" PRIu64 " of %" PRIu64 " in use, credit for %" PRIu64 " more",
                   row->in_use, row->slots, row->credit);
    table_add_fact(facts, "dispatched", "%" PRIu64 ", late results %" PRIu64, row->dispatched,
                   row->late);
    free(name);
    free(host);
    free(principal);
    free(serves);
    return table_print(&facts);
}

/* Asks for the workers of this name (empty: all). On CLI_DONE the caller ends the event. */
static enum cli_exit workers_ask(const struct arguments *arguments, const char *name,
                                 struct client_event **event)
{
    struct message query = {.kind = MESSAGE_WORKER_QUERY};

    query.as.worker_query.name = bytes_from_text(name);
    enum cli_exit code = contact_ask_once(arguments, &query, event);

    if (code != CLI_DONE) {
        return code;
    }
    const struct message *answer = (*event)->answer;
    bool is_info = answer->kind == MESSAGE_WORKER_INFO;
    uint64_t status = is_info ? answer->as.worker_info.status : (uint64_t)DONE_REFUSED;

    if (is_info && name[0] != '\0' && status == DONE_OK && answer->as.worker_info.rows.count == 0) {
        status = DONE_NOT_FOUND;
    }
    code = done_check(arguments, status, "worker", name);
    if (code != CLI_DONE) {
        client_event_destroy(event);
    }
    return code;
}

/* words[0] as a worker's name. */
static enum cli_exit worker_name_check(const struct arguments *arguments)
{
    const char *name = arguments->words[0];

    if (name[0] == '\0' || strlen(name) > NAME_SIZE_MAX) {
        return cli_fail(CLI_USAGE, "%s: '%s' is not a worker: its name is 1 to 64 bytes",
                        arguments->verb->name, name);
    }
    return CLI_DONE;
}

static enum cli_exit worker_ls(const struct arguments *arguments)
{
    struct client_event *event = NULL;
    enum cli_exit code = workers_ask(arguments, "", &event);

    if (code != CLI_DONE) {
        return code;
    }
    struct wire_list rows = event->answer->as.worker_info.rows;

    if (arguments->is_json) {
        json_t *array = json_array();
        struct wire_worker_row row;
        bool is_whole = array != NULL;

        while (is_whole && wire_worker_row_next(&rows, &row)) {
            is_whole = json_append(array, worker_to_json(&row));
        }
        if (!is_whole) {
            json_decref(array);
            array = NULL;
        }
        code = json_print(array);
    } else {
        code = workers_print(rows);
    }
    client_event_destroy(&event);
    return code;
}

static enum cli_exit worker_show(const struct arguments *arguments)
{
    struct client_event *event = NULL;
    struct wire_worker_row row;
    enum cli_exit code = worker_name_check(arguments);

    if (code == CLI_DONE) {
        code = workers_ask(arguments, arguments->words[0], &event);
    }
    if (code != CLI_DONE) {
        return code;
    }
    struct wire_list rows = event->answer->as.worker_info.rows;

    if (wire_worker_row_next(&rows, &row)) {
        code = arguments->is_json ? json_print(worker_to_json(&row)) : worker_print(&row);
    }
    client_event_destroy(&event);
    return code;
}

static enum cli_exit worker_drain(const struct arguments *arguments)
{
    struct message query = {.kind = MESSAGE_WORKER_DRAIN};
    struct client_event *event = NULL;
    enum cli_exit code = worker_name_check(arguments);

    if (code == CLI_DONE) {
        query.as.worker_drain.name = bytes_from_text(arguments->words[0]);
        code = contact_ask_once(arguments, &query, &event);
    }
    if (code != CLI_DONE) {
        return code;
    }
    bool is_done = event->answer->kind == MESSAGE_DONE;

    code = done_check(arguments, is_done ? event->answer->as.done.status : (uint64_t)DONE_REFUSED,
                      "worker", arguments->words[0]);
    client_event_destroy(&event);
    if (code == CLI_DONE) {
        cli_note("%s: %s is told to finish what it runs and take nothing new",
                 arguments->verb->name, arguments->words[0]);
    }
    return code;
}

const struct verb verb_worker_ls = {
    .name = "worker ls",
    .words = "",
    .summary = "List workers: what they serve and how busy they are",
    .options = OPTIONS_CONTACT | OPTION_BIT(OPTION_JSON),
    .run = worker_ls,
};

const struct verb verb_worker_show = {
    .name = "worker show",
    .words = "NAME",
    .summary = "Show one worker",
    .options = OPTIONS_CONTACT | OPTION_BIT(OPTION_JSON),
    .words_min = 1,
    .words_max = 1,
    .run = worker_show,
};

const struct verb verb_worker_drain = {
    .name = "worker drain",
    .words = "NAME",
    .summary = "Tell a worker to finish what it runs and take nothing new",
    .options = OPTIONS_CONTACT,
    .words_min = 1,
    .words_max = 1,
    .run = worker_drain,
};
