/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/task_print.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/span.h"
#include "common/base/uuid.h"

#define NUMBER_TEXT_SIZE 24

/* ---- JSON ---- */

static json_t *json_from_reason(uint64_t reason)
{
    return reason == WAIT_NONE ? json_null() : json_string(wait_reason_text(reason));
}

static json_t *json_from_kind(uint64_t kind)
{
    return kind == FAILURE_NONE ? json_null() : json_string(failure_kind_text(kind));
}

json_t *task_row_to_json(const struct wire_task_row *row)
{
    return json_pack(
        "{s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "id",
        json_from_id(&row->id), "service", json_from_text(row->service), "task",
        json_from_text(row->task), "state", task_state_text(row->state), "reason",
        json_from_reason(row->reason), "kind", json_from_kind(row->kind), "priority",
        json_from_number(row->priority), "attempts_max", json_from_number(row->attempts_max),
        "dispatches", json_from_number(row->dispatches), "retry_index",
        json_from_number(row->retry_index), "retry_sequence", json_from_number(row->retry_sequence),
        "submitted_at", json_from_instant(row->submitted_at_unix_ms), "settled_at",
        json_from_instant(row->settled_at_unix_ms));
}

static json_t *tags_to_json(struct wire_list tags)
{
    json_t *array = json_array();
    struct wire_tag tag;

    while (wire_tag_next(&tags, &tag)) {
        if (!json_append(array, json_from_text(tag.text))) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *meta_to_json(struct wire_list meta)
{
    json_t *object = json_object();
    struct wire_meta_item item;

    while (object != NULL && wire_meta_item_next(&meta, &item)) {
        json_t *name = json_from_text(item.name); /* names are text too: repaired alike */

        if (name == NULL ||
            json_object_set_new(object, json_string_value(name), json_from_text(item.value)) != 0) {
            json_decref(object);
            object = NULL;
        }
        json_decref(name);
    }
    return object;
}

static json_t *policy_to_json(struct wire_list policy)
{
    json_t *object = json_object();
    struct wire_policy_value value;

    while (object != NULL && wire_policy_value_next(&policy, &value)) {
        json_t *field = json_pack("{s:o, s:s}", "value", json_from_number(value.value), "origin",
                                  policy_origin_text(value.origin));

        if (json_object_set_new(object, policy_field_text(value.field), field) != 0) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}

static json_t *attempt_to_json(const struct wire_attempt_error *attempt)
{
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
        "error_id", json_from_number(attempt->error_id), "dispatch",
        json_from_number(attempt->dispatch), "retry_index", json_from_number(attempt->retry_index),
        "retry_sequence", json_from_number(attempt->retry_sequence), "kind",
        failure_kind_text(attempt->kind), "name", json_from_text(attempt->name), "message",
        json_from_text(attempt->message), "trace", json_from_text(attempt->trace), "worker",
        json_from_text(attempt->worker), "host", json_from_text(attempt->host), "failed_at",
        json_from_instant(attempt->failed_at_unix_ms), "duration_ms",
        json_from_number(attempt->duration_ms), "user_ms", json_from_number(attempt->user_ms),
        "system_ms", json_from_number(attempt->system_ms), "max_rss_kib",
        json_from_number(attempt->max_rss_kib), "signal",
        attempt->signal == 0 ? json_null() : json_from_number(attempt->signal));
}

static json_t *attempts_to_json(struct wire_list attempts)
{
    json_t *array = json_array();
    struct wire_attempt_error attempt;

    while (wire_attempt_error_next(&attempts, &attempt)) {
        if (!json_append(array, attempt_to_json(&attempt))) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

json_t *task_to_json(const struct wire_task_info *info)
{
    struct wire_list rows = info->rows;
    struct wire_task_row row;

    if (!wire_task_row_next(&rows, &row)) {
        return NULL;
    }
    json_t *object = task_row_to_json(&row);
    json_t *more = json_pack(
        "{s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o}", "reason_left_ms",
        info->reason_left_ms == 0 ? json_null() : json_from_number(info->reason_left_ms), "worker",
        info->worker.size == 0 ? json_null() : json_from_text(info->worker), "cancel_requested",
        info->is_cancel_requested != 0, "tags", tags_to_json(info->tags), "meta",
        meta_to_json(info->meta), "policy", policy_to_json(info->policy), "body_size",
        json_from_number(info->body_size), "result_size", json_from_number(info->result_size),
        "attempts", attempts_to_json(info->attempts));

    if (object == NULL || more == NULL || json_object_update(object, more) != 0) {
        json_decref(object);
        object = NULL;
    }
    json_decref(more);
    return object;
}

/* ---- for people ---- */

static const char *number_text(char out[NUMBER_TEXT_SIZE], uint64_t number)
{
    snprintf(out, NUMBER_TEXT_SIZE, "%" PRIu64, number);
    return out;
}

struct table *task_table_open(void)
{
    static const char *const headings[] = {"ID",        "TASK",      "STATE",    "REASON",
                                           ">ATTEMPTS", ">PRIORITY", "SUBMITTED"};

    return table_open(headings, sizeof(headings) / sizeof(headings[0]));
}

/* What a row says beside its state: why it waits, or how it failed. */
static const char *why_text(const struct wire_task_row *row)
{
    if (row->reason != WAIT_NONE) {
        return wait_reason_text(row->reason);
    }
    bool is_said_by_state = row->kind == FAILURE_NONE ||
                            (row->kind == FAILURE_CANCELLED && row->state == TASK_CANCELLED) ||
                            (row->kind == FAILURE_EXPIRED && row->state == TASK_EXPIRED);

    return is_said_by_state ? "" : failure_kind_text(row->kind);
}

void task_row_add(struct table *table, const struct wire_task_row *row)
{
    char id[UUID_TEXT_SIZE];
    char name[PATTERN_SIZE_MAX + 1];
    char attempts[2 * NUMBER_TEXT_SIZE];
    char priority[NUMBER_TEXT_SIZE];
    char submitted[INSTANT_TEXT_SIZE];

    uuid_print(&row->id, id);
    snprintf(name, sizeof(name), "%.*s.%.*s", (int)row->service.size,
             (const char *)row->service.data, (int)row->task.size, (const char *)row->task.data);
    snprintf(attempts, sizeof(attempts), "%" PRIu64 "/%" PRIu64, row->retry_index,
             row->attempts_max);
    const char *cells[] = {id,
                           name,
                           task_state_text(row->state),
                           why_text(row),
                           attempts,
                           number_text(priority, row->priority),
                           instant_print(submitted, row->submitted_at_unix_ms)};

    table_add(table, cells, sizeof(cells) / sizeof(cells[0]));
}

/* Tags and meta, a fact each. */
static void labels_add(struct table *facts, const struct wire_task_info *info)
{
    struct wire_list tags = info->tags;
    struct wire_list meta = info->meta;
    struct wire_tag tag;
    struct wire_meta_item item;

    while (wire_tag_next(&tags, &tag)) {
        char *text = text_for_people(tag.text, false);

        table_add_fact(facts, "tag", "%s", text == NULL ? "" : text);
        free(text);
    }
    while (wire_meta_item_next(&meta, &item)) {
        char *name = text_for_people(item.name, false);
        char *value = text_for_people(item.value, false);

        table_add_fact(facts, "meta", "%s=%s", name == NULL ? "" : name,
                       value == NULL ? "" : value);
        free(name);
        free(value);
    }
}

static enum cli_exit facts_print(const struct wire_task_info *info, const struct wire_task_row *row)
{
    struct table *facts = table_open_facts();
    char id[UUID_TEXT_SIZE];
    char instant[INSTANT_TEXT_SIZE];
    char *worker = text_for_people(info->worker, false);
    const char *why = why_text(row);

    uuid_print(&row->id, id);
    table_add_fact(facts, "id", "%s", id);
    table_add_fact(facts, "task", "%.*s.%.*s", (int)row->service.size,
                   (const char *)row->service.data, (int)row->task.size,
                   (const char *)row->task.data);
    table_add_fact(facts, "state", "%s%s%s%s", task_state_text(row->state),
                   why[0] == '\0' ? "" : ": ", why,
                   info->is_cancel_requested != 0 ? " (cancel requested)" : "");
    if (worker != NULL && worker[0] != '\0') {
        table_add_fact(facts, "worker", "%s", worker);
    }
    table_add_fact(facts, "attempts",
                   "%" PRIu64 " spent of %" PRIu64 ", handed out %" PRIu64
                   " times, replayed %" PRIu64 " times",
                   row->retry_index, row->attempts_max, row->dispatches, row->retry_sequence);
    table_add_fact(facts, "priority", "%" PRIu64, row->priority);
    table_add_fact(facts, "submitted", "%s", instant_print(instant, row->submitted_at_unix_ms));
    if (row->settled_at_unix_ms != 0) {
        table_add_fact(facts, "settled", "%s", instant_print(instant, row->settled_at_unix_ms));
    }
    table_add_fact(facts, "body", "%" PRIu64 " bytes", info->body_size);
    if (row->state == TASK_SUCCEEDED) {
        table_add_fact(facts, "result", "%" PRIu64 " bytes", info->result_size);
    }
    labels_add(facts, info);
    free(worker);
    return table_print(&facts);
}

static enum cli_exit policy_print(struct wire_list policy)
{
    static const char *const headings[] = {"POLICY", ">VALUE", "ORIGIN"};
    struct table *table = table_open(headings, 3);
    struct wire_policy_value value;

    while (wire_policy_value_next(&policy, &value)) {
        char text[NUMBER_TEXT_SIZE];
        const char *cells[] = {policy_field_text(value.field), number_text(text, value.value),
                               policy_origin_text(value.origin)};

        table_add(table, cells, sizeof(cells) / sizeof(cells[0]));
    }
    fputc('\n', stdout);
    return table_print(&table);
}

static enum cli_exit attempt_print(const struct wire_attempt_error *attempt)
{
    struct table *facts = table_open_facts();
    char instant[INSTANT_TEXT_SIZE];
    char span[SPAN_TEXT_SIZE];
    char *name = text_for_people(attempt->name, false);
    char *message = text_for_people(attempt->message, false);
    char *worker = text_for_people(attempt->worker, false);
    char *host = text_for_people(attempt->host, false);
    char *trace = text_for_people(attempt->trace, true);
    enum cli_exit code = CLI_SYSTEM;

    if (name != NULL && message != NULL && worker != NULL && host != NULL && trace != NULL) {
        if (attempt->duration_ms == 0) {
            snprintf(span, sizeof(span), "less than 1ms");
        } else {
            span_print(span, sizeof(span), attempt->duration_ms);
        }
        table_add_fact(facts, "failure", "%s%s%s at %s", failure_kind_text(attempt->kind),
                       name[0] == '\0' ? "" : " ", name,
                       instant_print(instant, attempt->failed_at_unix_ms));
        table_add_fact(facts, "message", "%s", message);
        table_add_fact(facts, "attempt", "dispatch %" PRIu64 ", retry index %" PRIu64 ", after %s",
                       attempt->dispatch, attempt->retry_index, span);
        table_add_fact(facts, "worker", "%s on %s", worker, host);
        table_add_fact(facts, "used", "%" PRIu64 " ms user, %" PRIu64 " ms system, %" PRIu64 " KiB",
                       attempt->user_ms, attempt->system_ms, attempt->max_rss_kib);
        fputc('\n', stdout);
        code = table_print(&facts);
        if (trace[0] != '\0') {
            printf("trace:\n%s\n", trace);
        }
    } else {
        table_close(&facts);
        code = cli_fail_memory();
    }
    free(name);
    free(message);
    free(worker);
    free(host);
    free(trace);
    return code;
}

enum cli_exit task_print(const struct wire_task_info *info)
{
    struct wire_list rows = info->rows;
    struct wire_list attempts = info->attempts;
    struct wire_task_row row;
    struct wire_attempt_error attempt;
    enum cli_exit code = CLI_NOT_FOUND;

    if (wire_task_row_next(&rows, &row)) {
        code = facts_print(info, &row);
    }
    if (code == CLI_DONE) {
        code = policy_print(info->policy);
    }
    while (code == CLI_DONE && wire_attempt_error_next(&attempts, &attempt)) {
        code = attempt_print(&attempt);
    }
    return code;
}

/* ---- why it waits ---- */

/* "another 7s", "until 2026-01-31T10:00:00.000Z (another 7s)" or "" when it is not known. */
static void left_print(char *out, size_t size, uint64_t left_ms, bool with_instant)
{
    char span[SPAN_TEXT_SIZE];
    char instant[INSTANT_TEXT_SIZE];
    struct timespec now;
    uint64_t shown_ms = left_ms < 1000 ? left_ms : (left_ms + 999) / 1000 * 1000;

    out[0] = '\0';
    if (left_ms == 0) {
        return;
    }
    span_print(span, sizeof(span), shown_ms);
    if (!with_instant || clock_gettime(CLOCK_REALTIME, &now) == -1) {
        snprintf(out, size, " for another %s", span);
        return;
    }
    instant_print(instant, (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 + left_ms);
    snprintf(out, size, " until %s (another %s)", instant, span);
}

char *task_gate_in_words(const struct wire_task_info *info, const struct wire_task_row *row)
{
    char *text = NULL;
    char left[96];
    int service_size = (int)row->service.size;
    const char *service = (const char *)row->service.data;
    int task_size = (int)row->task.size;
    const char *task = (const char *)row->task.data;
    int size = -1;

    left_print(left, sizeof(left), info->reason_left_ms,
               row->reason == WAIT_BACKOFF || row->reason == WAIT_DELAY);
    switch ((enum wait_reason)row->reason) {
    case WAIT_DELAY:
        size = asprintf(&text, "waits for its delay%s", left);
        break;
    case WAIT_BACKOFF:
        size =
            asprintf(&text, "waits for its next attempt: backoff%s, after %llu spent of %llu", left,
                     (unsigned long long)row->retry_index, (unsigned long long)row->attempts_max);
        break;
    case WAIT_PAUSED:
        size = asprintf(&text, "waits: service %.*s is paused; treadle service resume %.*s",
                        service_size, service, service_size, service);
        break;
    case WAIT_BREAKER:
        size = asprintf(&text, "waits: the breaker of %.*s is open%s", service_size, service, left);
        break;
    case WAIT_PROBES:
        size = asprintf(&text, "waits: the breaker of %.*s is half-open and its probes are taken",
                        service_size, service);
        break;
    case WAIT_BUDGET:
        size = asprintf(&text, "waits: the retry budget of %.*s is spent%s", service_size, service,
                        left);
        break;
    case WAIT_NO_WORKER:
        size = asprintf(
            &text, "waits: no worker serves %.*s.%.*s; treadle work %.*s.%.*s -- COMMAND",
            service_size, service, task_size, task, service_size, service, task_size, task);
        break;
    case WAIT_NO_SLOT:
        size = asprintf(&text, "waits: no worker that serves %.*s.%.*s has a free slot",
                        service_size, service, task_size, task);
        break;
    case WAIT_NONE:
    case WAIT_TURN:
        size = asprintf(&text, "waits for its turn");
        break;
    case WAIT_UPSTREAM:
        size = asprintf(&text, "waits for a task that it depends on");
        break;
    case WAIT_RATE:
        size = asprintf(&text, "waits: the rate limit of %.*s is reached%s", service_size, service,
                        left);
        break;
    case WAIT_CAP:
        size = asprintf(&text, "waits: as many tasks of %.*s run as may at once", service_size,
                        service);
        break;
    case WAIT_REASON_COUNT:
        break;
    }
    return size == -1 ? NULL : text;
}
