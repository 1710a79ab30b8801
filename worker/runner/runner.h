/* SPDX-License-Identifier: MPL-2.0 */
/* `treadle work`: a worker whose handler is a command. */
#ifndef TREADLE_WORKER_RUNNER_RUNNER_H
#define TREADLE_WORKER_RUNNER_RUNNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/message.h"
#include "worker/exec/command.h"

struct runner_options {
    const char *broker;          /* endpoint: tcp://HOST:PORT or ipc://PATH */
    const char *const *patterns; /* SERVICE.TASK or SERVICE.*, checked by the caller */
    size_t pattern_count;        /* 1..SERVE_COUNT_MAX */
    struct wire_policy policy;   /* the worker's configuration; {0}: nothing given */
    uint32_t slots;              /* 0: as many as CPUs */
    const char *name;            /* at most NAME_SIZE_MAX bytes; NULL: host:pid */
    char *const *command;        /* program and arguments, NULL at the end */
    bool is_permanent_exit[EXIT_STATUS_COUNT];
    uint64_t drain_ms; /* 0: the default, 30 s */
    bool is_quiet;     /* errors only */
};

/*
 * Serves until it is told to end, tries for ever to reach a broker meanwhile, and tells on stderr
 * what a person should know. SIGTERM, SIGINT and SIGHUP drain; a second one ends at once. Nothing
 * that it has started runs on after it. To be called before any thread is there: it blocks those
 * signals and ignores SIGPIPE. Returns the exit code: 0 drained, 64 an option is wrong, 71 out of a
 * resource, 77 refused for good, 130 ended by the second signal.
 */
int runner_main(const struct runner_options *options);

#endif
