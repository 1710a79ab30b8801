/* SPDX-License-Identifier: MPL-2.0 */
/* What a person should do about a connection that does not come about. Pure. */
#ifndef TREADLE_CLI_FAULT_H
#define TREADLE_CLI_FAULT_H

#include <stdbool.h>

#include "client/cli/output.h"
#include "common/transport/transport.h"

/* The exit code of a verb that gives up. */
enum cli_exit fault_exit(enum transport_fault fault);

/* What is wrong, without the endpoint. NONE: ZeroMQ is there, with the right keys if any, and no
 * word of a broker. */
const char *fault_text(enum transport_fault fault);

/* "do THIS", for messages. is_given: the endpoint was asked for, and is not the one of last resort.
 */
const char *fault_advice(enum transport_fault fault, const char *endpoint, bool is_given);

/* Whether waiting does not help: there is a broker, and the keys of the two sides do not fit. */
bool fault_is_about_keys(enum transport_fault fault);

#endif
