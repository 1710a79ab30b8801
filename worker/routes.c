/* SPDX-License-Identifier: MPL-2.0 */
#include "worker/routes.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/base/assert.h"
#include "common/base/hash.h"
#include "common/base/map.h"

struct routes {
    struct map map;
    void *memory;
    struct hash_key key;
    size_t count;
    struct route routes[SERVE_COUNT_MAX];
};

struct routes *routes_create(void)
{
    struct routes *routes = calloc(1, sizeof(*routes));
    if (routes == NULL) {
        return NULL;
    }
    routes->memory = calloc(1, map_memory_size(SERVE_COUNT_MAX));
    if (routes->memory == NULL) {
        free(routes);
        return NULL;
    }
    map_init(&routes->map, routes->memory, SERVE_COUNT_MAX);
    randombytes_buf(&routes->key, sizeof(routes->key));
    return routes;
}

void routes_destroy(struct routes **routes)
{
    if (*routes != NULL) {
        free((*routes)->memory);
        free(*routes);
        *routes = NULL;
    }
}

static bool route_is(const void *context, uint32_t value, const void *key)
{
    const struct routes *routes = context;
    const struct bytes *pattern = key;
    return bytes_is_equal(bytes_from_text(routes->routes[value].handler.pattern), *pattern);
}

static uint32_t find(const struct routes *routes, struct bytes pattern)
{
    return map_find(&routes->map, hash_bytes(&routes->key, pattern.data, pattern.size), route_is,
                    routes, &pattern);
}

enum treadle_status routes_add(struct routes *routes, const struct route *route)
{
    const struct bytes pattern = bytes_from_text(route->handler.pattern);
    if (find(routes, pattern) != MAP_NONE) {
        return TREADLE_E_CONFLICT;
    }
    if (routes->count == SERVE_COUNT_MAX) {
        return TREADLE_E_LIMIT;
    }
    routes->routes[routes->count] = *route;
    map_add(&routes->map, hash_bytes(&routes->key, pattern.data, pattern.size),
            (uint32_t)routes->count);
    routes->count++;
    return TREADLE_OK;
}

size_t routes_count(const struct routes *routes)
{
    return routes->count;
}

const struct route *routes_at(const struct routes *routes, size_t index)
{
    TREADLE_ASSERT(index < routes->count);
    return &routes->routes[index];
}

const struct route *routes_find(const struct routes *routes, struct bytes service,
                                struct bytes task)
{
    uint8_t name[PATTERN_SIZE_MAX];
    if (service.size == 0 || service.size > NAME_SIZE_MAX || task.size == 0 ||
        task.size > NAME_SIZE_MAX) {
        return NULL;
    }
    memcpy(name, service.data, service.size);
    name[service.size] = '.';
    memcpy(name + service.size + 1, task.data, task.size);
    uint32_t found = find(routes, (struct bytes){name, service.size + 1 + task.size});
    if (found == MAP_NONE) {
        name[service.size + 1] = '*';
        found = find(routes, (struct bytes){name, service.size + 2});
    }
    return found == MAP_NONE ? NULL : &routes->routes[found];
}

/* ---- patterns ---- */

bool route_is_pattern(const char *text)
{
    const char *dot = strrchr(text, '.');
    if (dot == NULL) {
        return false;
    }
    const struct bytes service = {(const uint8_t *)text, (size_t)(dot - text)};
    return wire_is_name(service, 1) &&
           (strcmp(dot + 1, "*") == 0 || wire_is_name(bytes_from_text(dot + 1), 1));
}

bool route_covers(const char *pattern, const char *name)
{
    const size_t size = strlen(pattern);
    if (strcmp(pattern, name) == 0) {
        return true;
    }
    const char *dot = strrchr(name, '.');
    return size >= 2 && pattern[size - 1] == '*' && pattern[size - 2] == '.' && dot != NULL &&
           (size_t)(dot - name) == size - 2 && strncmp(pattern, name, size - 2) == 0;
}
