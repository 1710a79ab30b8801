/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A verb's contact with the broker: open it, wait, ask, close it. SIGINT and SIGTERM are held back
 * while it is open and come out of the waiting as CLI_INTERRUPTED. What goes wrong is said on
 * stderr and comes back as an exit code. One thread.
 */
#ifndef TREADLE_CLI_CONTACT_H
#define TREADLE_CLI_CONTACT_H

#include <signal.h>
#include <stdint.h>

#include "client/cli/options.h"
#include "client/client_internal.h"

struct contact {
    const struct arguments *arguments;
    treadle_client *client;
    int signal_fd;
    sigset_t mask_before;
};

/* Finds the broker within --connect-timeout. Not CLI_DONE: nothing is open. */
TREADLE_MUST_USE enum cli_exit contact_open(struct contact *contact,
                                            const struct arguments *arguments);

/* Says goodbye and lets signals through again; fine to call twice. Call it before data goes to
 * stdout, so that a full pipe can be interrupted. */
void contact_close(struct contact *contact);

/* Waits for an event of the client's, or until client_now_ms() is until_ms (UINT64_MAX: for ever).
 * CLI_DONE: look at the events and at the clock; CLI_INTERRUPTED (not said on stderr), CLI_REFUSED
 * when the broker ended the session, CLI_SYSTEM. */
TREADLE_MUST_USE enum cli_exit contact_wait(struct contact *contact, uint64_t until_ms);

/* As contact_wait(), but silent, and it returns when `fd` is readable too: an epoll descriptor that
 * watches contact->signal_fd beside whatever else the verb waits for. */
TREADLE_MUST_USE enum cli_exit contact_pump(struct contact *contact, uint64_t until_ms, int fd);

/* Says on stderr what contact_pump() returned; nothing for CLI_DONE and CLI_INTERRUPTED. */
void contact_say(const struct contact *contact, enum cli_exit code);

/* Sends a query or an administration message and waits for its answer, for at most
 * --connect-timeout. On CLI_DONE the caller ends the answer with client_event_destroy(). */
TREADLE_MUST_USE enum cli_exit contact_ask(struct contact *contact, const struct message *query,
                                           struct client_event **answer);

/* Opens, asks once, closes. */
TREADLE_MUST_USE enum cli_exit contact_ask_once(const struct arguments *arguments,
                                                const struct message *query,
                                                struct client_event **answer);

/* What an answer's status means for a thing of this kind and name: CLI_DONE for DONE_OK, else said
 * on stderr. */
TREADLE_MUST_USE enum cli_exit done_check(const struct arguments *arguments, uint64_t status,
                                          const char *kind, const char *name);

#endif
