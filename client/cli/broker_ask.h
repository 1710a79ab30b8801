/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_CLI_BROKER_ASK_H
#define TREADLE_CLI_BROKER_ASK_H

#include "client/cli/contact.h"

/* Asks the broker about itself. On CLI_DONE the event is a BROKER_INFO, which the caller ends; else
 * it was said on stderr. */
TREADLE_MUST_USE enum cli_exit broker_ask(const struct arguments *arguments,
                                          struct client_event **event);

#endif
