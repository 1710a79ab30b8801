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

static enum cli_exit print(const struct arguments *arguments, const struct finding *finding)
{
    if (arguments->is_json) {
        return json_print(json_pack("{s:s, s:b, s:s, s:o, s:o, s:o}", "endpoint", arguments->broker,
                                    "encrypted", finding->is_encrypted, "key", finding->own_key,
                                    "version", json_from_text(finding->version), "epoch",
                                    json_from_number(finding->epoch), "round_trip_us",
                                    json_from_number(finding->round_trip_us)));
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
