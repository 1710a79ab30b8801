/* SPDX-License-Identifier: MPL-2.0 */
/* treadled: the broker. */
#define _GNU_SOURCE

#include <argp.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "broker/shell/loop.h"
#include "common/base/log.h"

#define DRAIN_MS         30000U
#define DEV_ENDPOINT     "tcp://127.0.0.1:7330"
#define DEFAULT_ENDPOINT "ipc:///run/treadle/treadled.sock"

enum option_key { OPTION_DEV = 0x100, OPTION_INSECURE, OPTION_LOG_LEVEL };

static const struct argp_option options[] = {
    {"listen", 'l', "ENDPOINT", 0,
     "Listen on ENDPOINT: ipc://PATH or tcp://HOST:PORT (port * picks a free one); may be repeated",
     0},
    {"dev", OPTION_DEV, NULL, 0,
     "For the first five minutes: plain TCP on the loopback, each task told as it lives", 0},
    {"insecure", OPTION_INSECURE, NULL, 0, "Admit plain TCP on the loopback", 0},
    {"log-level", OPTION_LOG_LEVEL, "LEVEL", 0,
     "debug, info, warn or error (info; with --dev: warn)", 0},
    {0},
};

struct settings {
    struct loop_config loop;
    enum log_level log_level;
    bool is_log_level_given;
    bool is_insecure;
};

/* NOLINTBEGIN(concurrency-mt-unsafe): argp, before any thread */
static void add_endpoint(struct argp_state *state, struct transport_config *transport,
                         const char *endpoint)
{
    if (transport->endpoint_count == ENDPOINT_COUNT_MAX) {
        argp_error(state, "--listen: at most %u endpoints", ENDPOINT_COUNT_MAX);
        return;
    }
    transport->endpoints[transport->endpoint_count] = endpoint;
    transport->endpoint_count++;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct settings *settings = state->input;
    switch (key) {
    case 'l':
        add_endpoint(state, &settings->loop.transport, argument);
        return 0;
    case OPTION_DEV:
        settings->loop.is_dev = true;
        return 0;
    case OPTION_INSECURE:
        settings->is_insecure = true;
        return 0;
    case OPTION_LOG_LEVEL:
        if (!log_level_parse(argument, &settings->log_level)) {
            argp_error(state, "--log-level: %s: not one of debug, info, warn, error", argument);
        }
        settings->is_log_level_given = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "%s: no arguments are expected", argument);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* NOLINTEND(concurrency-mt-unsafe) */

static void complete(struct settings *settings)
{
    struct loop_config *loop = &settings->loop;
    if (loop->is_dev && !settings->is_log_level_given) {
        settings->log_level = LOG_LEVEL_WARN; /* what happens is told as sentences */
    }
    if (loop->transport.endpoint_count == 0) {
        loop->transport.endpoints[0] = loop->is_dev ? DEV_ENDPOINT : DEFAULT_ENDPOINT;
        loop->transport.endpoint_count = 1;
    }
    core_config_init(&loop->core);
    loop->transport.is_plain_tcp_allowed = loop->is_dev || settings->is_insecure;
    loop->transport.connection_count_max = loop->core.connection_count_max;
    loop->transport.frame_size_max = loop->core.body_size_max + FIRST_FRAME_SIZE_MAX;
    loop->version = TREADLE_VERSION;
    loop->drain_ms = DRAIN_MS;
}

/* Signals to end are read from a descriptor; a pipe that nobody reads is an error of write(). */
static void block_signals(void)
{
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc = "The broker of a treadle mesh: takes tasks from clients and routes them to workers.",
    };
    struct settings settings = {.log_level = LOG_LEVEL_INFO};
    argp_program_version = "treadled " TREADLE_VERSION;
    argp_err_exit_status = EX_USAGE;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): before any thread */
    if (argp_parse(&argp, argc, argv, 0, NULL, &settings) != 0) {
        return EX_USAGE;
    }
    complete(&settings);
    log_open(settings.log_level, LOG_FORMAT_TEXT);
    if (sodium_init() == -1) {
        (void)fprintf(stderr, "treadled: start: no source of random numbers\n");
        return EX_OSERR;
    }
    block_signals();
    return loop_run(&settings.loop);
}
