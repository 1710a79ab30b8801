/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What listens at an endpoint, told by the first bytes it says, before any key is shown: libzmq
 * tells several of these cases as one. Blocks for at most the timeout and the look-up of a name.
 */
#ifndef TREADLE_CLI_PROBE_H
#define TREADLE_CLI_PROBE_H

#include <stdint.h>

#include "common/transport/transport.h"

enum probe_result {
    PROBE_PLAIN,     /* ZeroMQ without keys */
    PROBE_ENCRYPTED, /* ZeroMQ with CURVE keys */
    PROBE_FAULT,     /* *fault says */
};

enum probe_result probe_endpoint(const char *endpoint, uint64_t timeout_ms,
                                 enum transport_fault *fault);

#endif
