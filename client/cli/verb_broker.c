/* SPDX-License-Identifier: MPL-2.0 */
/* broker status, drain, reload */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>

#include "client/cli/broker_ask.h"
#include "common/base/span.h"

enum cli_exit broker_ask(const struct arguments *arguments, struct client_event **event)
{
    struct message query = {.kind = MESSAGE_BROKER_QUERY};
    enum cli_exit code = contact_ask_once(arguments, &query, event);

    if (code == CLI_DONE && (*event)->answer->kind != MESSAGE_BROKER_INFO) {
        code = done_check(arguments, DONE_REFUSED, "broker", arguments->broker);
        client_event_destroy(event);
    }
    return code;
}

static enum cli_exit status_print(const struct arguments *arguments,
                                  const struct wire_broker_info *info)
{
    struct table *facts = table_open_facts();
    char *version = text_for_people(info->version, false);
    char uptime[SPAN_TEXT_SIZE];

    span_print(uptime, sizeof(uptime),
               info->uptime_ms < 1000 ? info->uptime_ms : info->uptime_ms / 1000 * 1000);
    table_add_fact(facts, "broker", "%s", arguments->broker);
    table_add_fact(facts, "state", "%s",
                   info->is_draining != 0 ? "draining: takes nothing new" : "serving");
    table_add_fact(facts, "up for", "%s", uptime);
    table_add_fact(facts, "version", "%s", version == NULL ? "" : version);
    table_add_fact(facts, "epoch", "%" PRIu64, info->epoch);
    free(version);
    return table_print(&facts);
}

static enum cli_exit broker_status(const struct arguments *arguments)
{
    struct client_event *event = NULL;
    enum cli_exit code = broker_ask(arguments, &event);

    if (code != CLI_DONE) {
        return code;
    }
    const struct wire_broker_info *info = &event->answer->as.broker_info;

    if (arguments->is_json) {
        code = json_print(json_pack(
            "{s:s, s:o, s:o, s:o, s:b}", "endpoint", arguments->broker, "version",
            json_from_text(info->version), "epoch", json_from_number(info->epoch), "uptime_ms",
            json_from_number(info->uptime_ms), "draining", info->is_draining != 0));
    } else {
        code = status_print(arguments, info);
    }
    client_event_destroy(&event);
    return code;
}

static enum cli_exit broker_drain(const struct arguments *arguments)
{
    struct message query = {.kind = MESSAGE_BROKER_DRAIN};
    struct client_event *event = NULL;
    enum cli_exit code = contact_ask_once(arguments, &query, &event);

    if (code != CLI_DONE) {
        return code;
    }
    bool is_done = event->answer->kind == MESSAGE_DONE;

    code = done_check(arguments, is_done ? event->answer->as.done.status : (uint64_t)DONE_REFUSED,
                      "broker", arguments->broker);
    client_event_destroy(&event);
    if (code == CLI_DONE) {
        cli_note("%s: %s takes nothing new and ends what it holds", arguments->verb->name,
                 arguments->broker);
    }
    return code;
}

static enum cli_exit broker_reload(const struct arguments *arguments)
{
    struct message query = {.kind = MESSAGE_BROKER_RELOAD};
    struct client_event *event = NULL;
    enum cli_exit code = contact_ask_once(arguments, &query, &event);

    if (code != CLI_DONE) {
        return code;
    }
    bool is_done = event->answer->kind == MESSAGE_DONE;
    uint64_t changed = is_done ? event->answer->as.done.count : 0;

    code = done_check(arguments, is_done ? event->answer->as.done.status : (uint64_t)DONE_REFUSED,
                      "broker", arguments->broker);
    client_event_destroy(&event);
    if (code == CLI_DONE) {
        cli_note("%s: %s has read its configuration again; %" PRIu64 " %s changed",
                 arguments->verb->name, arguments->broker, changed,
                 changed == 1 ? "setting" : "settings");
    }
    return code;
}

const struct verb verb_broker_status = {
    .name = "broker status",
    .words = "",
    .summary = "Show the broker: version, epoch, uptime",
    .options = OPTIONS_CONTACT | OPTION_BIT(OPTION_JSON),
    .run = broker_status,
};

const struct verb verb_broker_drain = {
    .name = "broker drain",
    .words = "",
    .summary = "Tell the broker to finish what it has and take nothing new",
    .options = OPTIONS_CONTACT,
    .run = broker_drain,
};

const struct verb verb_broker_reload = {
    .name = "broker reload",
    .words = "",
    .summary = "Tell the broker to read its configuration again",
    .options = OPTIONS_CONTACT,
    .run = broker_reload,
};
