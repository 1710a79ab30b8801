/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/cli/broker_ask.h"

static json_t *counters_to_json(struct wire_list counters)
{
    json_t *object = json_object();
    struct wire_counter counter;

    while (object != NULL && wire_counter_next(&counters, &counter)) {
        json_t *name = json_from_text(counter.name);

        if (name == NULL || json_object_set_new(object, json_string_value(name),
                                                json_from_number(counter.value)) != 0) {
            json_decref(object);
            object = NULL;
        }
        json_decref(name);
    }
    return object;
}

static enum cli_exit counters_print(struct wire_list counters)
{
    static const char *const headings[] = {"COUNTER", ">VALUE"};
    struct table *table = table_open(headings, 2);
    struct wire_counter counter;

    while (wire_counter_next(&counters, &counter)) {
        char *name = text_for_people(counter.name, false);
        char value[24];

        snprintf(value, sizeof(value), "%" PRIu64, counter.value);
        const char *cells[] = {name, value};

        table_add(table, cells, sizeof(cells) / sizeof(cells[0]));
        free(name);
    }
    return table_print(&table);
}

static enum cli_exit stats(const struct arguments *arguments)
{
    struct client_event *event = NULL;
    enum cli_exit code = broker_ask(arguments, &event);

    if (code != CLI_DONE) {
        return code;
    }
    struct wire_list counters = event->answer->as.broker_info.counters;

    code = arguments->is_json ? json_print(counters_to_json(counters)) : counters_print(counters);
    client_event_destroy(&event);
    return code;
}

const struct verb verb_stats = {
    .name = "stats",
    .words = "",
    .summary = "Show all counters of the broker",
    .options = OPTIONS_CONTACT | OPTION_BIT(OPTION_JSON),
    .run = stats,
};
