/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/contact.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "client/cli/fault.h"
#include "client/cli/probe.h"
#include "common/base/span.h"
#include "common/keys/keys.h"

#define PROBE_TIMEOUT_MS 1000
#define LOOK_MS          50
#define HELD_SIZE_MAX    (UINT64_C(1) << 30) /* more than any verb lets the client hold */

/* ---- signals ---- */

/* A terminal that goes away, but not under nohup. */
static bool is_hangup_wanted(void)
{
    struct sigaction action;

    return sigaction(SIGHUP, NULL, &action) == 0 && action.sa_handler != SIG_IGN;
}

static enum cli_exit signals_hold(struct contact *contact)
{
    sigset_t held;

    sigemptyset(&held);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGTERM);
    if (is_hangup_wanted()) {
        sigaddset(&held, SIGHUP);
    }
    pthread_sigmask(SIG_BLOCK, &held, &contact->mask_before);
    contact->signal_fd = signalfd(-1, &held, SFD_NONBLOCK | SFD_CLOEXEC);
    if (contact->signal_fd == -1) {
        pthread_sigmask(SIG_SETMASK, &contact->mask_before, NULL);
        return cli_fail(CLI_SYSTEM, "%s: signalfd: %s", contact->arguments->verb->name,
                        strerrordesc_np(errno));
    }
    return CLI_DONE;
}

static void signals_let_go(struct contact *contact)
{
    if (contact->signal_fd != -1) {
        close(contact->signal_fd);
        contact->signal_fd = -1;
        pthread_sigmask(SIG_SETMASK, &contact->mask_before, NULL);
    }
}

/* ---- opening and closing ---- */

/* libzmq tells some faults as others, by which side was the first to hang up: asks again. */
static enum transport_fault find_fault(const struct contact *contact)
{
    const bool has_keys = client_public_key(contact->client) != NULL;
    enum transport_fault fault = client_transport_fault(contact->client);
    enum transport_fault found = TRANSPORT_FAULT_NONE;

    if (fault != TRANSPORT_FAULT_NONE && fault != TRANSPORT_FAULT_NOT_ZEROMQ &&
        fault != TRANSPORT_FAULT_SERVER_KEY && fault != TRANSPORT_FAULT_NOTHING_LISTENS) {
        return fault;
    }
    switch (probe_endpoint(contact->arguments->broker, PROBE_TIMEOUT_MS, &found)) {
    case PROBE_FAULT:
        return found;
    case PROBE_PLAIN:
        return has_keys ? TRANSPORT_FAULT_IS_PLAIN : fault;
    case PROBE_ENCRYPTED:
        return has_keys ? fault : TRANSPORT_FAULT_WANTS_KEYS;
    }
    return fault;
}

#define ADVICE_SIZE 1024

/* What to do, with the very key that it is about. */
static void print_advice(char out[ADVICE_SIZE], const struct contact *contact,
                         enum transport_fault fault)
{
    const struct arguments *arguments = contact->arguments;
    const uint8_t *key = client_public_key(contact->client);
    const char *advice = fault_advice(fault, arguments->broker, arguments->is_broker_given);
    char hex[KEY_HEX_SIZE];

    if (fault == TRANSPORT_FAULT_NOT_ADMITTED && key != NULL) {
        key_print(hex, key);
        snprintf(out, ADVICE_SIZE,
                 "%s (treadle broker reload), with the roles and services it should have: "
                 "principal \"NAME\" { keys = {%s} roles = {submit} services = {\"*\"} }",
                 advice, hex);
    } else if (fault == TRANSPORT_FAULT_SERVER_KEY || fault == TRANSPORT_FAULT_IS_PLAIN) {
        snprintf(out, ADVICE_SIZE, "%s (the server key here is of %.300s)", advice,
                 arguments->server_key != NULL ? arguments->server_key
                                               : "~/.config/treadle/server.pub");
    } else {
        snprintf(out, ADVICE_SIZE, "%s", advice);
    }
}

static enum cli_exit no_broker(const struct contact *contact)
{
    const struct arguments *arguments = contact->arguments;
    const enum transport_fault fault = find_fault(contact);
    const char *why = fault_text(fault);
    char advice[ADVICE_SIZE];
    char span[SPAN_TEXT_SIZE];

    print_advice(advice, contact, fault);
    if (fault_is_about_keys(fault)) {
        return cli_fail(fault_exit(fault), "%s: %s: %s; %s", arguments->verb->name,
                        arguments->broker, why, advice);
    }
    span_print(span, sizeof(span), arguments->connect_timeout_ms);
    return cli_fail(fault_exit(fault), "%s: %s: no broker in %s: %s; %s", arguments->verb->name,
                    arguments->broker, span, why, advice);
}

/* The client's own words say that the broker refused. */
static void note_refusal(const struct contact *contact)
{
    const struct arguments *arguments = contact->arguments;
    const uint64_t code = client_refused_code(contact->client);
    const char *advice = "";

    if (code == REFUSED_VERSION) {
        advice = "; use one version of treadle on both sides (this is " TREADLE_VERSION ")";
    } else if (code == REFUSED_RIGHTS && strcmp(arguments->verb->name, "doctor") != 0) {
        advice = "; see: treadle doctor";
    }
    cli_note("%s: %s: %s%s", arguments->verb->name, arguments->broker,
             treadle_client_error(contact->client), advice);
}

static enum cli_exit wait_for_welcome(struct contact *contact)
{
    const struct arguments *arguments = contact->arguments;
    uint64_t until_ms = client_now_ms() + arguments->connect_timeout_ms;

    while (!client_is_welcome(contact->client)) {
        if (client_now_ms() >= until_ms &&
            client_refused_code(contact->client) != REFUSED_CODE_COUNT) { /* not for good */
            note_refusal(contact);
            return CLI_REFUSED;
        }
        if (client_now_ms() >= until_ms ||
            fault_is_about_keys(client_transport_fault(contact->client))) {
            return no_broker(contact);
        }
        /* What the transport finds out is no event: it is looked at now and then. */
        uint64_t look_at_ms = client_now_ms() + LOOK_MS;
        enum cli_exit code = contact_wait(contact, look_at_ms < until_ms ? look_at_ms : until_ms);

        if (code != CLI_DONE) {
            return code;
        }
        struct client_event *event = client_take_event(contact->client, NULL, NULL);

        client_event_destroy(&event); /* one that stays would end each wait at once */
    }
    return CLI_DONE;
}

enum cli_exit contact_open(struct contact *contact, const struct arguments *arguments)
{
    *contact = (struct contact){.arguments = arguments, .signal_fd = -1};
    struct treadle_client_options options = {.size = sizeof(options),
                                             .broker = arguments->broker,
                                             .identity = arguments->identity,
                                             .server_key = arguments->server_key,
                                             .in_flight_max = (uint32_t)arguments->jobs,
                                             .byte_max = HELD_SIZE_MAX};
    enum cli_exit code = signals_hold(contact);

    if (code != CLI_DONE) {
        return code;
    }
    if (strncmp(arguments->broker, "tcp://", 6) == 0 || arguments->identity != NULL) {
        key_protect_process(); /* there may be a secret key in it from here on */
    }
    enum treadle_status status = client_open_only(&contact->client, &options);

    if (status == TREADLE_E_KEY) {
        code = cli_fail(CLI_CONFIG, "%s: %s", arguments->verb->name, treadle_client_error(NULL));
    } else if (status != TREADLE_OK) {
        code = cli_fail(status == TREADLE_E_INVALID ? CLI_USAGE : CLI_SYSTEM, "%s: %s: %s",
                        arguments->verb->name, arguments->broker, treadle_client_error(NULL));
    } else {
        code = wait_for_welcome(contact);
    }
    if (code != CLI_DONE) {
        contact_close(contact);
    }
    return code;
}

void contact_close(struct contact *contact)
{
    treadle_client_close(&contact->client);
    signals_let_go(contact);
}

/* ---- waiting and asking ---- */

enum cli_exit contact_pump(struct contact *contact, uint64_t until_ms, int fd)
{
    uint64_t now_ms = client_now_ms();
    int64_t timeout_ms = until_ms == UINT64_MAX ? TREADLE_FOREVER
                         : until_ms > now_ms    ? (int64_t)(until_ms - now_ms)
                                                : 0;
    unsigned flags = client_pump(contact->client, timeout_ms, fd);

    if ((flags & CLIENT_PUMP_FD) != 0) {
        struct signalfd_siginfo signal;

        if (read(contact->signal_fd, &signal, sizeof(signal)) == (ssize_t)sizeof(signal)) {
            return CLI_INTERRUPTED;
        }
    }
    if ((flags & CLIENT_PUMP_FAILED) != 0) {
        return CLI_SYSTEM;
    }
    return client_session_is_over(client_session_of(contact->client)) ? CLI_REFUSED : CLI_DONE;
}

void contact_say(const struct contact *contact, enum cli_exit code)
{
    if (code == CLI_SYSTEM) {
        cli_note("%s: %s", contact->arguments->verb->name, treadle_client_error(contact->client));
    } else if (code == CLI_REFUSED) {
        note_refusal(contact);
    }
}

enum cli_exit contact_wait(struct contact *contact, uint64_t until_ms)
{
    enum cli_exit code = contact_pump(contact, until_ms, contact->signal_fd);

    contact_say(contact, code);
    return code;
}

static bool is_answer_to(const struct client_event *event, const void *context)
{
    const uint64_t *request = context;

    return event->kind == CLIENT_EVENT_ANSWER && event->request == *request;
}

enum cli_exit contact_ask(struct contact *contact, const struct message *query,
                          struct client_event **answer)
{
    const struct arguments *arguments = contact->arguments;
    struct client_session *session = client_session_of(contact->client);
    uint64_t until_ms = client_now_ms() + arguments->connect_timeout_ms;
    uint64_t request = 0;
    enum treadle_status status = client_session_request(session, query, &request);
    enum cli_exit code = CLI_DONE;

    if (status != TREADLE_OK) {
        return cli_fail(CLI_SYSTEM, "%s: %s", arguments->verb->name, treadle_status_text(status));
    }
    while (code == CLI_DONE) {
        *answer = client_take_event(contact->client, is_answer_to, &request);
        if (*answer != NULL) {
            return CLI_DONE;
        }
        if (client_now_ms() >= until_ms) {
            const char *why = client_transport_text(contact->client);

            code =
                cli_fail(CLI_UNAVAILABLE, "%s: %s: the broker does not answer%s%s",
                         arguments->verb->name, arguments->broker, why[0] == '\0' ? "" : ": ", why);
        } else {
            code = contact_wait(contact, until_ms);
        }
    }
    client_session_forget_request(session, request);
    return code;
}

enum cli_exit contact_ask_once(const struct arguments *arguments, const struct message *query,
                               struct client_event **answer)
{
    struct contact contact;
    enum cli_exit code = contact_open(&contact, arguments);

    if (code == CLI_DONE) {
        code = contact_ask(&contact, query, answer);
        contact_close(&contact);
    }
    return code;
}

enum cli_exit done_check(const struct arguments *arguments, uint64_t status, const char *kind,
                         const char *name)
{
    const char *verb = arguments->verb->name;

    switch ((enum done_status)status) {
    case DONE_OK:
        return CLI_DONE;
    case DONE_NOT_FOUND:
        return cli_fail(CLI_NOT_FOUND, "%s: no such %s: %s; see: treadle %s ls", verb, kind, name,
                        kind);
    case DONE_BUSY:
        return cli_fail(CLI_PATIENCE, "%s: the broker is busy with others who ask; try again",
                        verb);
    case DONE_TOKEN_OLD:
        return cli_fail(CLI_PATIENCE, "%s: the broker gave the listing up; try again", verb);
    case DONE_INVALID:
        return cli_fail(CLI_CONFIG,
                        "%s: %s: its configuration has mistakes, so nothing has changed; see its "
                        "log, or treadled --check-config",
                        verb, arguments->broker);
    case DONE_REFUSED:
    case DONE_STATUS_COUNT:
        break;
    }
    return cli_fail(CLI_REFUSED,
                    "%s: %s: the broker refused: this needs the role admin%s; see: treadle doctor",
                    verb, arguments->broker,
                    strcmp(kind, "service") == 0 ? ", and the right to the service" : "");
}
