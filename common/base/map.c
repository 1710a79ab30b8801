/* SPDX-License-Identifier: MPL-2.0 */
#include "common/base/map.h"

#include "common/base/assert.h"

#define COUNT_LIMIT (UINT32_C(1) << 30)

static uint32_t place_count(uint32_t count_max)
{
    TREADLE_ASSERT(count_max > 0 && count_max <= COUNT_LIMIT);
    const uint64_t wanted = ((uint64_t)count_max * 3 + 1) / 2;
    uint32_t count = 2;
    while (count < wanted) {
        count *= 2;
    }
    return count;
}

size_t map_memory_size(uint32_t count_max)
{
    return (size_t)place_count(count_max) * sizeof(struct map_slot);
}

void map_init(struct map *map, void *memory, uint32_t count_max)
{
    const uint32_t places = place_count(count_max);
    *map = (struct map){.slots = memory, .mask = places - 1, .count_max = count_max};
    for (uint32_t i = 0; i < places; i++) {
        if (map->slots[i].value_plus_one != 0) {
            map->slots[i].value_plus_one = 0;
        }
    }
}

void map_add(struct map *map, uint64_t hash, uint32_t value)
{
    TREADLE_ASSERT(map->count < map->count_max);
    TREADLE_ASSERT(value != MAP_NONE);
    uint32_t place = (uint32_t)hash & map->mask;
    while (map->slots[place].value_plus_one != 0) {
        place = (place + 1) & map->mask;
    }
    map->slots[place] = (struct map_slot){(uint32_t)hash, value + 1};
    map->count++;
}

/* Closes the gap at `hole` with what a probe could no longer reach behind it. */
static void shift_back(struct map *map, uint32_t hole)
{
    uint32_t place = (hole + 1) & map->mask;
    while (map->slots[place].value_plus_one != 0) {
        const uint32_t home = map->slots[place].hash & map->mask;
        const uint32_t from_home = (place - home) & map->mask;
        const uint32_t from_hole = (place - hole) & map->mask;
        if (from_home >= from_hole) { /* its home is at the hole or before it */
            map->slots[hole] = map->slots[place];
            hole = place;
        }
        place = (place + 1) & map->mask;
    }
    map->slots[hole] = (struct map_slot){0, 0};
}

static uint32_t place_of(const struct map *map, uint64_t hash, uint32_t value)
{
    TREADLE_ASSERT(value != MAP_NONE);
    uint32_t place = (uint32_t)hash & map->mask;
    while (map->slots[place].value_plus_one != value + 1 ||
           map->slots[place].hash != (uint32_t)hash) {
        TREADLE_ASSERT(map->slots[place].value_plus_one != 0); /* the value was never added */
        place = (place + 1) & map->mask;
    }
    return place;
}

void map_remove(struct map *map, uint64_t hash, uint32_t value)
{
    shift_back(map, place_of(map, hash, value));
    map->count--;
}

void map_replace(struct map *map, uint64_t hash, uint32_t value, uint32_t by)
{
    TREADLE_ASSERT(by != MAP_NONE);
    map->slots[place_of(map, hash, value)].value_plus_one = by + 1;
}
