/* SPDX-License-Identifier: MPL-2.0 */
/* `treadle work`: a worker of commands and plugins, which tells on stderr what happens. */
#ifndef TREADLE_WORKER_RUNNER_RUNNER_H
#define TREADLE_WORKER_RUNNER_RUNNER_H

#include <stdbool.h>

#include "worker/worker_internal.h"

struct runner_options {
    struct worker_config worker; /* broker is given; context and on_note are the runner's */
    const char *file; /* where the configuration is from, for messages; NULL: the command line */
    bool is_check; /* only say whether it would start: plugins are loaded, nothing is connected */
    bool is_quiet; /* errors only */
};

/*
 * Serves until it is told to end, tries for ever to reach a broker meanwhile, and tells on stderr
 * what a person should know. SIGTERM, SIGINT and SIGHUP drain; a second one ends at once. Nothing
 * that it has started runs on after it. To be called before any thread is there; it blocks those
 * signals and ignores SIGPIPE. Returns the exit code: 0 drained, 64 an option is wrong, 71 out of a
 * resource, 77 refused for good, 78 the file or a key is wrong, 130 ended by the second signal.
 */
int runner_main(const struct runner_options *options);

#endif
