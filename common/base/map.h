/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_BASE_MAP_H
#define TREADLE_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No value: what map_find() returns for a key that is not in the map. */
#define MAP_NONE UINT32_MAX

/* An index: finds the u32 value (the number of a slab's place) of a key that only the caller
 * knows, by its hash. Linear probing in memory the caller gives; it never allocates and never
 * grows. The hash must be keyed if peers choose the keys. */
struct map_slot {
    uint32_t hash;           /* the low half of the caller's hash: home place and first compare */
    uint32_t value_plus_one; /* 0: empty, so fresh zero pages are an empty map */
};

struct map {
    struct map_slot *slots;
    uint32_t mask; /* places - 1; places are a power of two */
    uint32_t count;
    uint32_t count_max;
};

/* Bytes of memory that map_init() needs for count_max (1..2^30) values: load at most 2/3. */
size_t map_memory_size(uint32_t count_max);

/* Makes an empty map in the caller's memory, which must be aligned for uint32_t and outlive the
 * map. Memory that is zero already is read but not written, so fresh pages stay untouched. */
void map_init(struct map *map, void *memory, uint32_t count_max);

/* Adds a value (not MAP_NONE) under a hash. The key must not be in the map yet, and the count must
 * be below count_max. */
void map_add(struct map *map, uint64_t hash, uint32_t value);

/* Removes the value that was added under this hash; it must be there. */
void map_remove(struct map *map, uint64_t hash, uint32_t value);

/* Puts another value in the place of one that was added under this hash; both are of the same key.
 */
void map_replace(struct map *map, uint64_t hash, uint32_t value, uint32_t by);

/* Asks for the memory of a hash's home before it is needed. */
static inline void map_prefetch(const struct map *map, uint64_t hash)
{
    __builtin_prefetch(&map->slots[(uint32_t)hash & map->mask]);
}

static inline uint32_t map_count(const struct map *map)
{
    return map->count;
}

/* The value whose key is_equal() confirms, or MAP_NONE. Inline, so that the compare is, too.
 * `context` and `key` are handed to is_equal() as they are. */
static inline uint32_t map_find(const struct map *map, uint64_t hash,
                                bool (*is_equal)(const void *context, uint32_t value,
                                                 const void *key),
                                const void *context, const void *key)
{
    const uint32_t short_hash = (uint32_t)hash;
    uint32_t place = short_hash & map->mask;
    while (map->slots[place].value_plus_one != 0) {
        const uint32_t value = map->slots[place].value_plus_one - 1;
        if (map->slots[place].hash == short_hash && is_equal(context, value, key)) {
            return value;
        }
        place = (place + 1) & map->mask;
    }
    return MAP_NONE;
}

#endif
