/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What `treadle work` uses of the worker beside <treadle/worker.h>: commands as handlers, policies
 * of each handler, descriptors of its own in the loop, and what a person should know as it happens.
 * Linked from the internal archive treadle_worker; libtreadle hides it.
 */
#ifndef TREADLE_WORKER_INTERNAL_H
#define TREADLE_WORKER_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include <treadle/worker.h>

#include "common/wire/message.h"
#include "worker/exec/handler.h"

/* A command as the handler of tasks. */
struct worker_command {
    const char *const *patterns; /* SERVICE.TASK or SERVICE.* */
    size_t pattern_count;
    char *const *command;          /* program and arguments, NULL at the end */
    const bool *is_permanent_exit; /* EXIT_STATUS_COUNT of them */
    struct wire_policy policy;     /* the worker's configuration for it */
};

/* Plugins, and what the configuration says of some of their handlers. */
struct worker_override {
    const char *pattern; /* of handlers with exactly this name */
    struct wire_policy policy;
};

enum worker_note_kind {
    WORKER_NOTE_SERVING,  /* the first WELCOME */
    WORKER_NOTE_BACK,     /* is_resumed */
    WORKER_NOTE_APART,    /* text: why, "" if nobody knows; is_first: there was no contact yet */
    WORKER_NOTE_REFUSED,  /* text; is_final */
    WORKER_NOTE_DRAINING, /* count: attempts that still run */
    WORKER_NOTE_DRAINED,
    WORKER_NOTE_CHILD, /* text: a child died, or could not be started */
};

struct worker_note {
    enum worker_note_kind kind;
    const char *text;
    uint64_t count;
    bool is_resumed;
    bool is_first;
    bool is_nothing_there; /* APART: nothing listens at the endpoint */
    bool is_about_keys;    /* APART: there is a broker, and the keys of the two do not fit */
    bool is_final;
};

struct worker_config {
    const char *broker;
    const char *identity; /* as treadle_worker_options has them */
    const char *server_key;
    const char *name; /* NULL: host:process */
    uint32_t slots;   /* 0: as many as CPUs */
    bool is_threaded;
    uint64_t memory_max;
    uint64_t drain_ms;         /* 0: the default */
    struct wire_policy policy; /* the worker's configuration, of all that have none of their own */
    const struct treadle_handler *handlers;
    size_t handler_count;
    const char *const *plugins;
    size_t plugin_count;
    const struct worker_command *commands;
    size_t command_count;
    const char *const *only; /* serve only these of the functions; none: all of them */
    size_t only_count;
    const struct worker_override *overrides;
    size_t override_count;
    void *context;
    void (*on_note)(void *context, const struct worker_note *note); /* NULL: nobody listens */
};

/* As treadle_worker_create(); what the configuration points to must stay. */
enum treadle_status worker_create(treadle_worker **worker, const struct worker_config *config);

/* Has on_ready(context) called in the loop when fd is readable. */
enum treadle_status worker_watch(treadle_worker *worker, int fd, void (*on_ready)(void *context),
                                 void *context);

/* treadle_worker_run() returns TREADLE_E_AGAIN now, not drained. From the worker's thread. */
void worker_stop(treadle_worker *worker);

/* Whether it has a secret key in its memory. */
bool worker_has_identity(const treadle_worker *worker);

/* The name it goes by, its slots, what it serves: for messages. */
const char *worker_name(const treadle_worker *worker);
uint32_t worker_slots(const treadle_worker *worker);
size_t worker_pattern_count(const treadle_worker *worker);
const char *worker_pattern(const treadle_worker *worker, size_t index);

#endif
