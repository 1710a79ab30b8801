/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What is kept of tasks beside the core's own state: bodies, tags, meta, results, errors, wall
 * times. The core emits records, the shell appends them here, and the store says up to which number
 * they survive:
 *
 *     store_append(store, core, effect, unix_ms)    each EFFECT_PERSIST, in order
 *     store_flush(store)                            end of a round: the number durable then
 *     store_find(store, task, sequence, &view)      what a message about the task needs
 *     store_release(store)                          all messages that point into it have gone
 *
 * A task is named by its sequence; its number in the core says where to look first. One thread at a
 * time.
 */
#ifndef TREADLE_SHELL_STORE_H
#define TREADLE_SHELL_STORE_H

#include "broker/core/effect.h"
#include "broker/core/state.h"
#include "common/wire/message.h"

#include <stdbool.h>
#include <stdint.h>

struct store;

/* Views, valid until what they show was dropped and store_release() was called. */
struct store_view {
    uint64_t submitted_at_unix_ms;
    uint64_t settled_at_unix_ms; /* 0: not settled */
    struct bytes body;
    struct bytes result;
    struct bytes tenant;         /* empty: the principal */
    struct wire_list tags;       /* of tag */
    struct wire_list meta;       /* of meta_item */
    struct wire_list last_error; /* none or one attempt_error */
    uint32_t error_count;        /* what store_error() has */
    bool is_cancel_intended;
};

struct store_counts {
    uint64_t task_count;
    uint64_t byte_count;    /* all memory that bodies, results, errors and the rest take */
    uint64_t table_size;    /* bytes of its own tables that are in use, or were */
    uint64_t record_count;  /* appended so far */
    uint64_t error_dropped; /* errors beyond ATTEMPT_HISTORY_MAX of a task */
};

/* The store in memory: keeps nothing over a restart, so a record is durable as soon as it is
 * flushed. task_count_max: the core's task numbers are below it. NULL without memory. */
struct store *store_create_memory(uint32_t task_count_max);

/* Frees everything and nulls the pointer; NULL inside is fine. */
void store_destroy(struct store **store);

/* Takes over one EFFECT_PERSIST; copies what the effect points to. `core` is as the step left it.
 * False: no memory; the record is not kept, and nobody may be told that it was. */
bool store_append(struct store *store, const struct core *core, const struct effect *effect,
                  uint64_t unix_ms);

/* Makes the appended records survive, or begins to. Returns the number up to which they do. */
uint64_t store_flush(struct store *store);

/* What is kept of a task; false, and *view empty, if nothing is. */
bool store_find(const struct store *store, uint32_t task, uint64_t sequence,
                struct store_view *view);

/* The error with this index (below view.error_count, oldest first), as a list of one attempt_error.
 */
struct wire_list store_error(const struct store *store, uint32_t task, uint32_t index);

/* Gives back the memory of what was dropped or replaced since the last call. */
void store_release(struct store *store);

struct store_counts store_counts(const struct store *store);

#endif
