/* SPDX-License-Identifier: MPL-2.0 */
#include "client/cli/window.h"

#include <stdlib.h>
#include <string.h>

bool window_init(struct window *window, bool is_ordered, uint32_t count_max,
                 const struct hash_key *hash_key)
{
    *window =
        (struct window){.is_ordered = is_ordered, .count_max = count_max, .hash_key = *hash_key};
    list_init(&window->free);
    list_init(&window->records);
    window->settled_last = &window->records;
    window->slots = calloc(count_max, sizeof(*window->slots)); /* touched as they fill */
    window->map_memory = calloc(1, map_memory_size(count_max));
    if (window->slots == NULL || window->map_memory == NULL) {
        return false;
    }
    map_init(&window->map, window->map_memory, count_max);
    return true;
}

void window_reset(struct window *window)
{
    if (window->slots != NULL) {
        for (uint32_t i = 0; i < window->slot_count; i++) {
            free((void *)(uintptr_t)window->slots[i].command.data);
            free((void *)(uintptr_t)window->slots[i].result.data);
        }
    }
    free(window->slots);
    free(window->map_memory);
    window->slots = NULL;
    window->map_memory = NULL;
}

static struct window_record *record_of(const struct list *link)
{
    return container_of((uintptr_t)link, struct window_record, link);
}

static bool is_record_with_id(const void *context, uint32_t value, const void *key)
{
    const struct window *window = context;

    return memcmp(window->slots[value].id.bytes, key, sizeof(struct treadle_task_id)) == 0;
}

struct window_record *window_add(struct window *window, const struct treadle_task_id *id,
                                 uint64_t body_size)
{
    struct window_record *record = NULL;

    TREADLE_ASSERT(!window_is_full(window));
    if (list_is_empty(&window->free)) {
        record = &window->slots[window->slot_count];
        record->index = window->slot_count++;
    } else {
        record = record_of(list_pop_front(&window->free));
    }
    *record = (struct window_record){.id = *id, .body_size = body_size, .index = record->index};
    list_init(&record->link);
    list_push_back(&window->records, &record->link);
    map_add(&window->map, hash_id16(&window->hash_key, id->bytes), record->index);
    window->in_flight_count++;
    window->in_flight_size += body_size;
    return record;
}

struct window_record *window_find(const struct window *window, const struct treadle_task_id *id)
{
    uint64_t hash = hash_id16(&window->hash_key, id->bytes);
    uint32_t index = map_find(&window->map, hash, is_record_with_id, window, id->bytes);

    return index == MAP_NONE ? NULL : &window->slots[index];
}

/* What a held result costs: itself and its record. */
static uint64_t held_size(const struct window_record *record)
{
    return record->result.size + sizeof(*record);
}

static void leave_flight(struct window *window, struct window_record *record)
{
    map_remove(&window->map, hash_id16(&window->hash_key, record->id.bytes), record->index);
    window->in_flight_count--;
    window->in_flight_size -= record->body_size;
}

bool window_settle(struct window *window, struct window_record *record, struct bytes result)
{
    uint8_t *copy = NULL;

    TREADLE_ASSERT(!record->is_settled);
    if (result.size > 0) {
        copy = malloc(result.size);
        if (copy == NULL) {
            return false;
        }
        memcpy(copy, result.data, result.size);
    }
    leave_flight(window, record);
    record->is_settled = true;
    record->result = (struct bytes){copy, result.size};
    window->held_count++;
    window->held_size += held_size(record);
    if (!window->is_ordered) {
        list_remove(&record->link);
        list_push_front(window->settled_last, &record->link);
        window->settled_last = &record->link;
    }
    return true;
}

void window_remove(struct window *window, struct window_record *record)
{
    if (!record->is_settled) {
        leave_flight(window, record);
    } else {
        window->held_count--;
        window->held_size -= held_size(record);
    }
    if (window->settled_last == &record->link) {
        window->settled_last = record->link.prev;
    }
    list_remove(&record->link);
    free((void *)(uintptr_t)record->command.data);
    free((void *)(uintptr_t)record->result.data);
    record->command = (struct bytes){0};
    record->result = (struct bytes){0};
    list_push_front(&window->free, &record->link);
}

struct window_record *window_first(const struct window *window)
{
    const struct list *first = list_first(&window->records);

    return first == NULL ? NULL : record_of(first);
}

struct window_record *window_next(const struct window *window)
{
    struct window_record *first = window_first(window);

    return first == NULL || !first->is_settled ? NULL : first;
}

/* The first one from `link` on that has settled, or has not. */
static struct window_record *find_from(const struct window *window, const struct list *link,
                                       bool is_settled)
{
    while (link != NULL && record_of(link)->is_settled != is_settled) {
        link = list_next(&window->records, link);
    }
    return link == NULL ? NULL : record_of(link);
}

struct window_record *window_oldest(const struct window *window)
{
    return find_from(window, list_first(&window->records), false);
}

struct window_record *window_after(const struct window *window, const struct window_record *record)
{
    return find_from(window, list_next(&window->records, &record->link), false);
}
