/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The records of `treadle map` that were read and are not done with: in flight, or settled with a
 * result that waits for its turn. Gives results out in the input's order, or as they come; bounded
 * in records, while the sizes are told so that the caller stops in time. Pure. One thread.
 */
#ifndef TREADLE_CLI_WINDOW_H
#define TREADLE_CLI_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <treadle/export.h>
#include <treadle/id.h>

#include "common/base/bytes.h"
#include "common/base/hash.h"
#include "common/base/list.h"
#include "common/base/map.h"

/* A record under way. The first part is the caller's to fill and read. */
struct window_record {
    uint64_t sequence; /* of the record in the input, from 1 */
    uint64_t submitted_at_ms;
    uint64_t settled_at_ms;
    uint64_t body_size;
    uint32_t attempts;
    struct bytes command; /* malloc'd, the window frees it; for the job log */

    struct treadle_task_id id; /* the rest belongs to window.c, to be read only */
    struct bytes result;
    bool is_settled;
    struct list link; /* in window.free or window.records */
    uint32_t index;
};

struct window {
    bool is_ordered;
    uint32_t count_max;
    uint32_t in_flight_count;
    uint64_t in_flight_size; /* bytes of bodies */
    uint32_t held_count;
    uint64_t held_size; /* bytes of results, and what each costs beside */

    struct window_record *slots;
    uint32_t slot_count; /* ever used */
    struct list free;
    struct list records; /* to be given out first first: in the input's order, or the settled ones
                            in front of those in flight */
    struct list *settled_last; /* unordered: the last settled one, or the head */
    void *map_memory;
    struct map map; /* those in flight, by id */
    struct hash_key hash_key;
};

/* count_max 1..2^24 records at once. The seed is of the map of ids. False: memory is out; end it
 * with window_reset() in any case. */
TREADLE_MUST_USE bool window_init(struct window *window, bool is_ordered, uint32_t count_max,
                                  const struct hash_key *hash_key);

/* Frees all with the records in it. */
void window_reset(struct window *window);

static inline bool window_is_full(const struct window *window)
{
    return window->in_flight_count + window->held_count >= window->count_max;
}

/* A new record behind all others, in flight under this id; the window must not be full. */
struct window_record *window_add(struct window *window, const struct treadle_task_id *id,
                                 uint64_t body_size);

/* The record in flight with this id, or NULL. */
struct window_record *window_find(const struct window *window, const struct treadle_task_id *id);

/* The record has settled with a result to give out, which is copied. False: memory is out, and
 * nothing has changed. */
TREADLE_MUST_USE bool window_settle(struct window *window, struct window_record *record,
                                    struct bytes result);

/* The record is done with: failed and told, or given out. */
void window_remove(struct window *window, struct window_record *record);

/* The settled record whose turn it is, or NULL. */
struct window_record *window_next(const struct window *window);

/* The first record there is, settled or not; or NULL. */
struct window_record *window_first(const struct window *window);

/* The record in flight that was read first, or NULL. */
struct window_record *window_oldest(const struct window *window);

/* The record in flight after this one, or NULL. */
struct window_record *window_after(const struct window *window, const struct window_record *record);

#endif
