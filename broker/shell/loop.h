/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The broker's main loop: round after round, messages and time go into the core, its effects come
 * out (docs/architecture.md, Rounds). One thread. An idle broker without peers sleeps for ever.
 */
#ifndef TREADLE_SHELL_LOOP_H
#define TREADLE_SHELL_LOOP_H

#include "broker/core/config.h"
#include "broker/shell/config.h"
#include "broker/shell/transport.h"

struct loop_config {
    struct core_config
        core; /* without epoch, seed, hash_key, is_logging_tasks: the loop fills these */
    struct transport_config transport;
    const char *version;
    bool is_dev;
    const struct config_source *source; /* read again at HUP and BROKER_RELOAD */
    const struct config *settings;      /* as read at the start */
    uint64_t rss_max;                   /* bytes of the whole process; 0: no budget */
};

/* Runs the broker until a signal ends it: TERM and INT, which the caller has blocked, drain it for
 * at most drain_timeout and the second ends it at once; with is_dev the first does. HUP, blocked
 * too unless is_dev, reads the configuration again. Prints the endpoints on stdout once they
 * are usable. Returns a sysexits code; what went wrong is on stderr. */
int loop_run(const struct loop_config *config);

#endif
