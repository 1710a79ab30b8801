/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/cli/contact.h"
#include "client/cli/fault.h"
#include "client/cli/probe.h"
#include "common/base/span.h"

#define ROUND_TRIP_COUNT 5

struct finding {
    bool is_encrypted;
    char own_key[KEY_HEX_SIZE];
    uint64_t epoch;
    struct bytes version;
    uint64_t round_trip_us; /* the shortest */
    bool may_submit;
    bool may_administer;
};

static uint64_t now_us(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* What listens there, before a key is shown to it. */
static enum cli_exit look_from_outside(const struct arguments *arguments)
{
    enum transport_fault fault = TRANSPORT_FAULT_NONE;
    const enum probe_result result =
        probe_endpoint(arguments->broker, arguments->connect_timeout_ms, &fault);

    if (result != PROBE_FAULT) {
        return CLI_DONE;
    }
    return cli_fail(fault_exit(fault), "doctor: %s: %s; %s", arguments->broker, fault_text(fault),
                    fault_advice(fault, arguments->broker, arguments->is_broker_given));
}

static enum cli_exit measure(struct contact *contact, struct finding *finding)
{
    enum cli_exit code = CLI_DONE;

    finding->round_trip_us = UINT64_MAX;
    for (int i = 0; i < ROUND_TRIP_COUNT && code == CLI_DONE; i++) {
        const struct message query = {.kind = MESSAGE_BROKER_QUERY};
        const uint64_t before_us = now_us();
        struct client_event *answer = NULL; /* a refusal to tell has made the way, too */

        code = contact_ask(contact, &query, &answer);
        const uint64_t span_us = now_us() - before_us;

        finding->round_trip_us =
            span_us < finding->round_trip_us ? span_us : finding->round_trip_us;
        client_event_destroy(&answer);
    }
    return code;
}

/* The broker does not tell rights, so they are tried out. An order about a worker of a name that
 * nobody has: */
static enum cli_exit try_order(struct contact *contact, const struct treadle_task_id *id,
                               struct finding *finding)
{
    char name[TREADLE_ID_TEXT_SIZE];
    struct message order = {.kind = MESSAGE_WORKER_DRAIN};
    struct client_event *answer = NULL;

    order.as.worker_drain.name = bytes_from_text(treadle_id_format(id, name));
    const enum cli_exit code = contact_ask(contact, &order, &answer);

    if (code == CLI_DONE) {
        finding->may_administer = answer->answer->kind == MESSAGE_DONE &&
                                  answer->answer->as.done.status == DONE_NOT_FOUND;
        client_event_destroy(&answer);
    }
    return code;
}

static bool is_awaited(const struct client_event *event, const void *context)
{
    (void)context;
    return event->kind == CLIENT_EVENT_AWAITED;
}

/* Asking for a task that there is not. The broker may end the session for it: this comes last. */
static enum cli_exit try_await(struct contact *contact, const struct treadle_task_id *id,
                               struct finding *finding)
{
    const uint64_t until_ms = client_now_ms() + contact->arguments->connect_timeout_ms;
    struct client_event *event = NULL;
    enum cli_exit code = CLI_DONE;

    if (client_session_await(client_session_of(contact->client), *id) != TREADLE_OK) {
        return cli_fail_memory();
    }
    while (code == CLI_DONE && event == NULL && client_now_ms() < until_ms &&
           client_refused_code(contact->client) != REFUSED_RIGHTS) {
        code = contact_pump(contact, until_ms, contact->signal_fd);
        event = client_take_event(contact->client, is_awaited, NULL);
    }
    finding->may_submit = event != NULL;
    client_event_destroy(&event);
    if (code == CLI_DONE || client_refused_code(contact->client) == REFUSED_RIGHTS) {
        return CLI_DONE;
    }
    contact_say(contact, code);
    return code;
}

static enum cli_exit try_rights(struct contact *contact, struct finding *finding)
{
    struct treadle_task_id id;

    if (treadle_id_new(&id) != TREADLE_OK) {
        return cli_fail(CLI_SYSTEM, "doctor: libsodium cannot start");
    }
    const enum cli_exit code = try_order(contact, &id, finding);

    return code == CLI_DONE ? try_await(contact, &id, finding) : code;
}

static const char *rights_text(const struct finding *finding)
{
    if (finding->may_submit) {
        return finding->may_administer ? "submit, administer" : "submit";
    }
    return finding->may_administer ? "administer" : "none";
}

static enum cli_exit print(const struct arguments *arguments, const struct finding *finding)
{
    if (arguments->is_json) {
        return json_print(json_pack("{s:s, s:b, s:s, s:o, s:o, s:b, s:b, s:o}", "endpoint",
                                    arguments->broker, "encrypted", finding->is_encrypted, "key",
                                    finding->own_key, "version", json_from_text(finding->version),
                                    "epoch", json_from_number(finding->epoch), "may_submit",
                                    finding->may_submit, "may_administer", finding->may_administer,
                                    "round_trip_us", json_from_number(finding->round_trip_us)));
    }
    struct table *facts = table_open_facts();
    char *version = text_for_people(finding->version, false);

    table_add_fact(facts, "broker", "%s", arguments->broker);
    table_add_fact(facts, "connection", "%s",
                   finding->is_encrypted ? "encrypted, and the broker has the server key"
                                         : "plain");
    if (finding->is_encrypted) {
        table_add_fact(facts, "own key", "%s", finding->own_key);
    }
    table_add_fact(facts, "version", "%s", version == NULL ? "" : version);
    table_add_fact(facts, "epoch", "%" PRIu64, finding->epoch);
    table_add_fact(facts, "rights", "%s", rights_text(finding));
    table_add_fact(facts, "round trip", "%" PRIu64 ".%03" PRIu64 " ms",
                   finding->round_trip_us / 1000, finding->round_trip_us % 1000);
    table_add_fact(facts, "verdict", "all is well");
    free(version);
    return table_print(&facts);
}

static enum cli_exit doctor(const struct arguments *arguments)
{
    struct contact contact;
    struct finding finding = {.is_encrypted = false};
    enum cli_exit code = look_from_outside(arguments);

    code = code == CLI_DONE ? contact_open(&contact, arguments) : code;
    if (code != CLI_DONE) {
        return code;
    }
    const uint8_t *key = client_public_key(contact.client);
    const struct wire_welcome *welcome = client_session_welcome(client_session_of(contact.client));

    finding.is_encrypted = key != NULL;
    if (key != NULL) {
        key_print(finding.own_key, key);
    }
    code = measure(&contact, &finding);
    code = code == CLI_DONE ? try_rights(&contact, &finding) : code;
    if (code == CLI_DONE && welcome != NULL) {
        finding.epoch = welcome->epoch;
        finding.version = welcome->version;
        code = print(arguments, &finding);
    }
    contact_close(&contact);
    return code;
}

const struct verb verb_doctor = {
    .name = "doctor",
    .words = "",
    .summary = "Find out what is wrong with the connection to the broker",
    .details =
        "Says what listens at the endpoint, whether the keys fit and the broker answers, and "
        "what to do if not. Exit code 0: all is well; 69: there is no broker; 77: it refuses; "
        "78: keys that do not fit.",
    .options = OPTIONS_CONTACT | OPTION_BIT(OPTION_JSON),
    .run = doctor,
};
