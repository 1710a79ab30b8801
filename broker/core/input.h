/* SPDX-License-Identifier: MPL-2.0 */
/* What the core is told. */
#ifndef TREADLE_CORE_INPUT_H
#define TREADLE_CORE_INPUT_H

#include "broker/core/rights.h"
#include "common/base/bytes.h"
#include "common/wire/message.h"

#include <stdint.h>

enum input_kind {
    INPUT_TIME,         /* nothing but the time; runs due timers and cursors */
    INPUT_MESSAGE,      /* one decoded message of a connection */
    INPUT_DISCONNECTED, /* a connection has ended; its number may be used again afterwards */
    INPUT_DURABLE,      /* every record up to durable_number survives */
    INPUT_DISPATCH, /* hand out ready tasks; once a round, again while core_has_more_to_dispatch()
                     */
    INPUT_DRAIN,    /* take no new task */
};

/* Borrowed for the step only; the effects of the step may point into the message until the next
 * step. */
struct input {
    enum input_kind kind;
    uint32_t connection; /* of MESSAGE and DISCONNECTED: below connection_count_max */
    uint32_t rights;     /* of MESSAGE: bits RIGHT_* of the connection's principal, as of now */
    const struct globs *services; /* of MESSAGE: those it has these rights to; NULL: none */
    uint64_t rights_serial;       /* of MESSAGE: another one after the rights were read again */
    struct bytes principal; /* of MESSAGE: its name, from the transport and never from the peer */
    const struct message *message; /* of MESSAGE */
    uint64_t durable_number;       /* of DURABLE */
};

#endif
