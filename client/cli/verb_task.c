/* SPDX-License-Identifier: MPL-2.0 */
/* task wait, show, ls, explain, cancel */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/follow.h"
#include "client/cli/task_print.h"
#include "common/base/uuid.h"

#define PAGE_COUNT 512

/* Asks about the task of words[0]; CLI_NOT_FOUND is said. On CLI_DONE the caller ends the event. */
static enum cli_exit task_ask(struct contact *contact, const struct treadle_task_id *id,
                              struct client_event **event)
{
    const char *verb = contact->arguments->verb->name;
    const char *word = contact->arguments->words[0];
    struct message query = {.kind = MESSAGE_TASK_QUERY};

    query.as.task_query.id = *id;
    enum cli_exit code = contact_ask(contact, &query, event);

    if (code != CLI_DONE) {
        return code;
    }
    const struct message *answer = (*event)->answer;

    if (answer->kind == MESSAGE_TASK_INFO && answer->as.task_info.rows.count == 1) {
        return CLI_DONE;
    }
    if (answer->kind != MESSAGE_TASK_INFO) {
        code = done_check(contact->arguments, DONE_REFUSED, "task", word);
    } else if (answer->as.task_info.status == AWAIT_GONE) {
        code = cli_fail(CLI_NOT_FOUND, "%s: task %s has settled and is kept no longer", verb, word);
    } else if (answer->as.task_info.status == AWAIT_BUSY) {
        code = done_check(contact->arguments, DONE_BUSY, "task", word);
    } else {
        code = cli_fail(CLI_NOT_FOUND, "%s: no such task: %s; see: treadle task ls", verb, word);
    }
    client_event_destroy(event);
    return code;
}

static enum cli_exit task_ask_once(const struct arguments *arguments, struct client_event **event)
{
    struct contact contact;
    struct treadle_task_id id;
    enum cli_exit code = task_id_parse(arguments, 0, &id);

    if (code == CLI_DONE) {
        code = contact_open(&contact, arguments);
    }
    if (code == CLI_DONE) {
        code = task_ask(&contact, &id, event);
        contact_close(&contact);
    }
    return code;
}

/* ---- wait ---- */

/* "SERVICE.TASK" of the task; NULL: memory is out. */
static char *task_full_name(const struct message *info)
{
    struct wire_list rows = info->as.task_info.rows;
    struct wire_task_row row;
    char *name = NULL;

    if (!wire_task_row_next(&rows, &row) ||
        asprintf(&name, "%.*s.%.*s", (int)row.service.size, (const char *)row.service.data,
                 (int)row.task.size, (const char *)row.task.data) == -1) {
        return NULL;
    }
    return name;
}

/* Follows the task to its outcome, then closes the contact and prints it. */
static enum cli_exit await_and_print(struct contact *contact, const struct treadle_task_id *id,
                                     const char *name)
{
    struct follow follow;
    enum cli_exit code = CLI_DONE;

    follow_init(&follow, contact, name, id, false);
    if (treadle_client_await(contact->client, id) != TREADLE_OK) {
        code = cli_fail_memory();
    } else {
        code = follow_until_settled(&follow);
    }
    contact_close(contact);
    if (code == CLI_DONE) {
        code = outcome_print(contact->arguments, name, follow.outcome);
    }
    follow_reset(&follow);
    return code;
}

static enum cli_exit task_wait(const struct arguments *arguments)
{
    struct contact contact;
    struct treadle_task_id id;
    struct client_event *event = NULL;
    enum cli_exit code = task_id_parse(arguments, 0, &id);

    if (code == CLI_DONE) {
        code = contact_open(&contact, arguments);
    }
    if (code != CLI_DONE) {
        return code;
    }
    code = task_ask(&contact, &id, &event);
    if (code == CLI_DONE) {
        char *name = task_full_name(event->answer);

        client_event_destroy(&event);
        code = name == NULL ? cli_fail_memory() : await_and_print(&contact, &id, name);
        free(name);
    }
    contact_close(&contact);
    return code;
}

const struct verb verb_task_wait = {
    .name = "task wait",
    .words = "ID",
    .summary = "Wait for a task submitted earlier; prints and exits as `run' does",
    .options = OPTIONS_CONTACT | OPTION_BIT(OPTION_WAIT),
    .words_min = 1,
    .words_max = 1,
    .run = task_wait,
};

/* ---- show ---- */

static enum cli_exit task_show(const struct arguments *arguments)
{
    struct client_event *event = NULL;
    enum cli_exit code = task_ask_once(arguments, &event);

    if (code == CLI_DONE) {
        code = arguments->is_json ? json_print(task_to_json(&event->answer->as.task_info))
                                  : task_print(&event->answer->as.task_info);
        client_event_destroy(&event);
    }
    return code;
}

const struct verb verb_task_show = {
    .name = "task show",
    .words = "ID",
    .summary = "Show one task: its state, its policies and where they come from, its history",
    .options = OPTIONS_CONTACT | OPTION_BIT(OPTION_JSON),
    .words_min = 1,
    .words_max = 1,
    .run = task_show,
};

/* ---- ls ---- */

/* Hands each row to table or array (the other is NULL); *left counts down to 0. */
static bool rows_add(struct wire_list rows, struct table *table, json_t *array, uint64_t *left)
{
    struct wire_task_row row;

    while (*left > 0 && wire_task_row_next(&rows, &row)) {
        if (array != NULL && !json_append(array, task_row_to_json(&row))) {
            return false;
        }
        if (table != NULL) {
            task_row_add(table, &row);
        }
        --*left;
    }
    return true;
}

/* Asks for the page that begins at *token and adds its rows; *token is then the next page's, 0 when
 * there is none. */
static enum cli_exit page_read(struct contact *contact, struct table *table, json_t *array,
                               uint64_t *left, uint64_t *token)
{
    const struct arguments *arguments = contact->arguments;
    const char *service = arguments->service == NULL ? "" : arguments->service;
    struct message query = {.kind = MESSAGE_TASK_LIST};
    struct client_event *event = NULL;

    query.as.task_list.service = bytes_from_text(service);
    query.as.task_list.state = is_given(arguments, OPTION_STATE) ? arguments->state + 1 : 0;
    query.as.task_list.token = *token;
    query.as.task_list.count_max = *left < PAGE_COUNT ? *left : PAGE_COUNT;
    enum cli_exit code = contact_ask(contact, &query, &event);

    if (code != CLI_DONE) {
        return code;
    }
    const struct wire_task_page *page = &event->answer->as.task_page;
    bool is_page = event->answer->kind == MESSAGE_TASK_PAGE;

    *token = is_page ? page->token : 0;
    code =
        done_check(arguments, is_page ? page->status : (uint64_t)DONE_REFUSED, "service", service);
    if (code == CLI_DONE && !rows_add(page->rows, table, array, left)) {
        code = cli_fail_memory();
    }
    client_event_destroy(&event);
    return code;
}

/* Asks for page after page until there is no more, or --limit is reached. */
static enum cli_exit pages_read(struct contact *contact, struct table *table, json_t *array)
{
    uint64_t left = contact->arguments->limit;
    uint64_t token = 0;
    enum cli_exit code = CLI_DONE;

    do {
        code = page_read(contact, table, array, &left, &token);
    } while (code == CLI_DONE && token != 0 && left > 0);
    if (code == CLI_DONE && token != 0) {
        cli_note("%s: the first %llu; there may be more: --limit N shows them",
                 contact->arguments->verb->name, (unsigned long long)contact->arguments->limit);
    }
    return code;
}

static enum cli_exit task_ls(const struct arguments *arguments)
{
    struct table *table = arguments->is_json ? NULL : task_table_open();
    json_t *array = arguments->is_json ? json_array() : NULL;
    struct contact contact;
    enum cli_exit code = contact_open(&contact, arguments);

    if (code == CLI_DONE) {
        code = pages_read(&contact, table, array);
        contact_close(&contact);
    }
    if (code != CLI_DONE) {
        json_decref(array);
        table_close(&table);
        return code;
    }
    return arguments->is_json ? json_print(array) : table_print(&table);
}

const struct verb verb_task_ls = {
    .name = "task ls",
    .words = "",
    .summary = "List tasks, waiting, running and settled",
    .options = OPTIONS_CONTACT | OPTION_BIT(OPTION_JSON) | OPTION_BIT(OPTION_SERVICE) |
               OPTION_BIT(OPTION_STATE) | OPTION_BIT(OPTION_LIMIT),
    .run = task_ls,
};

/* ---- explain ---- */

/* One sentence without its subject. NULL: memory is out. */
static char *explain_in_words(const struct wire_task_info *info, const struct wire_task_row *row)
{
    char *text = NULL;

    if (row->state == TASK_RUNNING) {
        char *worker = text_for_people(info->worker, false);

        if (worker != NULL &&
            asprintf(&text, "does not wait: it runs%s%s%s", worker[0] == '\0' ? "" : " on worker ",
                     worker,
                     info->is_cancel_requested != 0 ? ", and was asked to stop" : "") == -1) {
            text = NULL;
        }
        free(worker);
        return text;
    }
    if (row->state < TASK_SUCCEEDED) {
        return task_gate_in_words(info, row);
    }
    if (asprintf(&text, "does not wait: it has %s",
                 row->state == TASK_CANCELLED ? "been cancelled" : task_state_text(row->state)) ==
        -1) {
        return NULL;
    }
    return text;
}

static json_t *explain_to_json(const struct wire_task_info *info, const struct wire_task_row *row,
                               const char *sentence)
{
    return json_pack(
        "{s:o, s:s, s:o, s:o, s:o}", "id", json_from_id(&row->id), "state",
        task_state_text(row->state), "reason",
        row->reason == WAIT_NONE ? json_null() : json_string(wait_reason_text(row->reason)),
        "reason_left_ms",
        info->reason_left_ms == 0 ? json_null() : json_from_number(info->reason_left_ms), "text",
        json_from_text(bytes_from_text(sentence)));
}

static enum cli_exit task_explain(const struct arguments *arguments)
{
    struct client_event *event = NULL;
    struct wire_task_row row = {0};
    char id[UUID_TEXT_SIZE];
    enum cli_exit code = task_ask_once(arguments, &event);

    if (code != CLI_DONE) {
        return code;
    }
    const struct wire_task_info *info = &event->answer->as.task_info;
    struct wire_list rows = info->rows;
    char *sentence = wire_task_row_next(&rows, &row) ? explain_in_words(info, &row) : NULL;

    if (sentence == NULL) {
        code = cli_fail_memory();
    } else if (arguments->is_json) {
        code = json_print(explain_to_json(info, &row, sentence));
    } else {
        uuid_print(&row.id, id);
        printf("%s %s\n", id, sentence);
    }
    free(sentence);
    client_event_destroy(&event);
    return code;
}

const struct verb verb_task_explain = {
    .name = "task explain",
    .words = "ID",
    .summary = "Say in one sentence why a task waits",
    .options = OPTIONS_CONTACT | OPTION_BIT(OPTION_JSON),
    .words_min = 1,
    .words_max = 1,
    .run = task_explain,
};

/* ---- cancel ---- */

static bool is_cancelled_event(const struct client_event *event, const void *context)
{
    const struct treadle_task_id *id = context;

    return event->kind == CLIENT_EVENT_CANCELLED && memcmp(&event->id, id, sizeof(*id)) == 0;
}

static enum cli_exit cancel_one(struct contact *contact, const struct treadle_task_id *id,
                                const char *word)
{
    const struct arguments *arguments = contact->arguments;
    uint64_t until_ms = client_now_ms() + arguments->connect_timeout_ms;
    struct client_event *event = NULL;
    uint64_t status = CANCEL_STATUS_COUNT;

    if (client_session_cancel(client_session_of(contact->client), *id) != TREADLE_OK) {
        return cli_fail_memory();
    }
    while ((event = client_take_event(contact->client, is_cancelled_event, id)) == NULL) {
        enum cli_exit code = contact_wait(contact, until_ms);

        if (code != CLI_DONE) {
            return code;
        }
        if (client_now_ms() >= until_ms) {
            return cli_fail(CLI_UNAVAILABLE, "%s: %s: the broker does not answer; try again",
                            arguments->verb->name, arguments->broker);
        }
    }
    status = event->status;
    client_event_destroy(&event);
    switch ((enum cancel_status)status) {
    case CANCEL_DONE:
        cli_note("%s: %s is cancelled", arguments->verb->name, word);
        return CLI_DONE;
    case CANCEL_REQUESTED:
        cli_note("%s: %s runs; its worker is told to stop", arguments->verb->name, word);
        return CLI_DONE;
    case CANCEL_SETTLED_ALREADY:
        cli_note("%s: %s has settled already; see: treadle task show %s", arguments->verb->name,
                 word, word);
        return CLI_DONE;
    case CANCEL_UNKNOWN:
    case CANCEL_STATUS_COUNT:
        break;
    }
    return cli_fail(CLI_NOT_FOUND, "%s: no such task: %s; see: treadle task ls",
                    arguments->verb->name, word);
}

static enum cli_exit task_cancel(const struct arguments *arguments)
{
    struct contact contact;
    struct treadle_task_id id;
    enum cli_exit code = CLI_DONE;

    for (size_t i = 0; i < arguments->word_count && code == CLI_DONE; i++) {
        code = task_id_parse(arguments, i, &id);
    }
    if (code == CLI_DONE) {
        code = contact_open(&contact, arguments);
    }
    if (code != CLI_DONE) {
        return code;
    }
    for (size_t i = 0; i < arguments->word_count; i++) {
        enum cli_exit one = task_id_parse(arguments, i, &id);

        one = one == CLI_DONE ? cancel_one(&contact, &id, arguments->words[i]) : one;
        code = one == CLI_DONE ? code : one; /* an unknown id does not spare the others */
        if (one != CLI_DONE && one != CLI_NOT_FOUND) {
            break;
        }
    }
    contact_close(&contact);
    return code;
}

const struct verb verb_task_cancel = {
    .name = "task cancel",
    .words = "ID...",
    .summary = "Cancel tasks: waiting ones at once, running ones are told to stop",
    .options = OPTIONS_CONTACT,
    .words_min = 1,
    .words_max = SIZE_MAX,
    .run = task_cancel,
};
