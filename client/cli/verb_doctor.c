/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "client/cli/contact.h"
#include "client/cli/fault.h"
#include "client/cli/probe.h"
#include "common/base/span.h"

#define ROUND_TRIP_COUNT   5
#define ROLES_TEXT_SIZE    64
#define SERVICES_TEXT_SIZE (GLOB_COUNT_MAX * (PATTERN_SIZE_MAX + 2) + 1)

struct finding {
    bool is_encrypted;
    char own_key[KEY_HEX_SIZE];
    const struct wire_welcome *welcome;
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

/* ---- what the broker says of the key ---- */

static const struct {
    uint64_t right;
    const char *name;
} roles[] = {{RIGHT_SUBMIT, "submit"}, {RIGHT_WORK, "work"}, {RIGHT_ADMIN, "admin"}};
#define ROLE_COUNT (sizeof(roles) / sizeof(roles[0]))

/* "submit, admin"; "none" */
static const char *roles_print(char out[ROLES_TEXT_SIZE], uint64_t rights)
{
    size_t size = 0;

    out[0] = '\0';
    for (size_t i = 0; i < ROLE_COUNT; i++) {
        if ((rights & roles[i].right) != 0) {
            size += (size_t)snprintf(out + size, ROLES_TEXT_SIZE - size, "%s%s",
                                     size == 0 ? "" : ", ", roles[i].name);
        }
    }
    return size == 0 ? "none" : out;
}

static const char *services_print(char out[SERVICES_TEXT_SIZE], struct wire_list services)
{
    struct wire_glob glob;
    size_t size = 0;

    out[0] = '\0';
    while (wire_glob_next(&services, &glob)) {
        size +=
            (size_t)snprintf(out + size, SERVICES_TEXT_SIZE - size, "%s%.*s", size == 0 ? "" : ", ",
                             (int)glob.text.size, (const char *)glob.text.data);
    }
    return size == 0 ? "none" : out;
}

static json_t *json_from_roles(uint64_t rights)
{
    json_t *array = json_array();

    for (size_t i = 0; i < ROLE_COUNT; i++) {
        if ((rights & roles[i].right) != 0 && !json_append(array, json_string(roles[i].name))) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *json_from_services(struct wire_list services)
{
    json_t *array = json_array();
    struct wire_glob glob;

    while (wire_glob_next(&services, &glob)) {
        if (!json_append(array, json_from_text(glob.text))) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static enum cli_exit print_json(const struct arguments *arguments, const struct finding *finding)
{
    const struct wire_welcome *welcome = finding->welcome;

    return json_print(json_pack(
        "{s:s, s:b, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "endpoint", arguments->broker, "encrypted",
        finding->is_encrypted, "key", finding->own_key, "version", json_from_text(welcome->version),
        "epoch", json_from_number(welcome->epoch), "principal", json_from_text(welcome->principal),
        "roles", json_from_roles(welcome->rights), "services",
        json_from_services(welcome->services), "round_trip_us",
        json_from_number(finding->round_trip_us)));
}

static enum cli_exit print(const struct arguments *arguments, const struct finding *finding)
{
    const struct wire_welcome *welcome = finding->welcome;
    char roles_text[ROLES_TEXT_SIZE];
    char services_text[SERVICES_TEXT_SIZE];

    if (arguments->is_json) {
        return print_json(arguments, finding);
    }
    struct table *facts = table_open_facts();

    table_add_fact(facts, "broker", "%s", arguments->broker);
    table_add_fact(facts, "connection", "%s",
                   finding->is_encrypted ? "encrypted, and the broker has the server key"
                                         : "plain");
    if (finding->is_encrypted) {
        table_add_fact(facts, "own key", "%s", finding->own_key);
    }
    table_add_fact(facts, "version", "%.*s", (int)welcome->version.size,
                   (const char *)welcome->version.data);
    table_add_fact(facts, "epoch", "%" PRIu64, welcome->epoch);
    table_add_fact(facts, "principal", "%.*s", (int)welcome->principal.size,
                   (const char *)welcome->principal.data);
    table_add_fact(facts, "roles", "%s", roles_print(roles_text, welcome->rights));
    table_add_fact(facts, "services", "%s", services_print(services_text, welcome->services));
    table_add_fact(facts, "round trip", "%" PRIu64 ".%03" PRIu64 " ms",
                   finding->round_trip_us / 1000, finding->round_trip_us % 1000);
    table_add_fact(facts, "verdict", "all is well");
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

    finding.is_encrypted = key != NULL;
    if (key != NULL) {
        key_print(finding.own_key, key);
    }
    code = measure(&contact, &finding);
    finding.welcome = client_session_welcome(client_session_of(contact.client));
    if (code == CLI_DONE && finding.welcome != NULL) {
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
