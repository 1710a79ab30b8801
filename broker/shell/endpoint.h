/* SPDX-License-Identifier: MPL-2.0 */
/* What an endpoint's text says, before anything is bound. */
#ifndef TREADLE_SHELL_ENDPOINT_H
#define TREADLE_SHELL_ENDPOINT_H

#include "broker/shell/transport.h"

enum endpoint_kind {
    ENDPOINT_BAD,
    ENDPOINT_IPC,
    ENDPOINT_LOOPBACK, /* TCP that stays on this machine */
    ENDPOINT_TCP,      /* TCP that others can reach */
};

enum endpoint_kind endpoint_kind(const char *endpoint);

/* What is expected where this is no endpoint that can be listened on; NULL: nothing is wrong with
 * its form. Paths must be absolute: a daemon's working folder is nobody's business. */
const char *endpoint_mistake(const char *endpoint);

/* What an endpoint may be. */
enum endpoint_safety {
    ENDPOINT_PLAIN_IPC,      /* ipc only */
    ENDPOINT_PLAIN_LOOPBACK, /* and TCP that stays on this machine */
    ENDPOINT_ENCRYPTED,      /* any: it has a server key */
};

/* Whether it may be bound so, and whether nobody else has it: libzmq would take the
 * place of a broker that listens on the same ipc path. Makes the folder of an ipc path if only that
 * is missing. */
bool endpoint_check(const char *endpoint, enum endpoint_safety safety,
                    struct transport_error *error);

/* A failed bind, for people. */
void endpoint_describe_failure(const char *endpoint, int error_number,
                               struct transport_error *error);

#endif
