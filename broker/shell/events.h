/* SPDX-License-Identifier: MPL-2.0 */
/*
 * LOG effects for people: as lines of the log, or, with is_dev, as sentences on stdout. What peers
 * wrote is quoted. One thread.
 */
#ifndef TREADLE_SHELL_EVENTS_H
#define TREADLE_SHELL_EVENTS_H

#include "broker/core/state.h"
#include "broker/shell/store/store.h"

#define EVENTS_LINE_SIZE 2048

struct events {
    const struct core *core;
    const struct store *store;
    bool is_dev;
    int line_fd; /* where sentences go, without waiting for a reader */

    /* A failed attempt's sentence waits to hear when the task is tried again. */
    char pending[EVENTS_LINE_SIZE];
    size_t pending_size; /* 0: nothing waits */
    uint32_t pending_task;

    /* So that a flood of tasks does not become a flood of lines. */
    uint64_t second;
    uint32_t line_count;
    uint64_t left_out_count;
};

/* Borrows core and store. */
void events_init(struct events *events, const struct core *core, const struct store *store,
                 bool is_dev);

/* Writes one EFFECT_LOG; the records that came before it have been appended. */
void events_write(struct events *events, const struct effect *effect);

/* The end of a round: what waits is written, stdout is flushed. */
void events_flush(struct events *events);

/* After start-up, with is_dev: what to try. */
void events_greet(const char *endpoint);

#endif
