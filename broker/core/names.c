/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/internal.h"
#include "common/base/assert.h"
#include "common/base/hash.h"

#include <string.h>

/* A name within something: a queue within its service, a tenant within its queue. */
struct scoped_name {
    uint32_t scope;
    struct bytes name;
};

void name_set(struct name *name, struct bytes text)
{
    name->size = (uint8_t)(text.size < NAME_SIZE_MAX ? text.size : NAME_SIZE_MAX);
    if (name->size > 0) {
        memcpy(name->text, text.data, name->size);
    }
    name->text[name->size] = '\0';
}

bool name_is(const struct name *name, struct bytes text)
{
    return name->size == text.size &&
           (text.size == 0 || memcmp(name->text, text.data, text.size) == 0);
}

static uint64_t hash_scoped(const struct core *core, const struct scoped_name *key)
{
    const uint64_t spread = (uint64_t)key->scope * UINT64_C(0x9E3779B97F4A7C15);
    return hash_bytes(&core->config.hash_key, key->name.data, key->name.size) ^ (spread >> 32);
}

static uint64_t hash_name(const struct core *core, struct bytes name)
{
    return hash_bytes(&core->config.hash_key, name.data, name.size);
}

static bool owner_is(const void *context, uint32_t value, const void *key)
{
    const struct core *core = context;
    return name_is(&core->owners[value].name, *(const struct bytes *)key);
}

uint32_t owner_intern(struct core *core, struct bytes name)
{
    const uint64_t hash = hash_name(core, name);
    uint32_t found = map_find(&core->owner_map, hash, owner_is, core, &name);
    if (found != MAP_NONE) {
        return found;
    }
    if (core->owner_count == core->config.owner_count_max) {
        return NONE;
    }
    found = core->owner_count;
    core->owner_count++;
    name_set(&core->owners[found].name, name);
    map_add(&core->owner_map, hash, found);
    return found;
}

static bool service_is(const void *context, uint32_t value, const void *key)
{
    const struct core *core = context;
    return name_is(&core->services[value].name, *(const struct bytes *)key);
}

uint32_t service_find(const struct core *core, struct bytes name)
{
    return map_find(&core->service_map, hash_name(core, name), service_is, core, &name);
}

uint32_t service_intern(struct core *core, struct bytes name)
{
    uint32_t found = service_find(core, name);
    if (found != MAP_NONE) {
        return found;
    }
    if (core->service_count == core->config.service_count_max) {
        return NONE;
    }
    found = core->service_count;
    core->service_count++;
    struct service *service = &core->services[found];
    name_set(&service->name, name);
    list_init(&service->active_link);
    list_init(&service->queues);
    list_init(&service->active_queues);
    list_init(&service->attempts);
    list_init(&service->wildcards);
    list_init(&service->recall_link);
    breaker_init(&service->breaker);
    timer_init(&service->breaker_timer, TIMER_BREAKER, found);
    timer_init(&service->budget_timer, TIMER_BUDGET, found);
    map_add(&core->service_map, hash_name(core, name), found);
    return found;
}

static bool queue_is(const void *context, uint32_t value, const void *key)
{
    const struct core *core = context;
    const struct scoped_name *scoped = key;
    const struct queue *queue = &core->queues[value];
    return queue->service == scoped->scope && name_is(&queue->task, scoped->name);
}

static uint32_t queue_open(struct core *core, const struct scoped_name *key)
{
    const uint32_t number = slab_take(&core->queue_slab);
    if (number == NONE) {
        return NONE;
    }
    struct queue *queue = &core->queues[number];
    queue->service = key->scope;
    name_set(&queue->task, key->name);
    list_init(&queue->active_link);
    list_init(&queue->tenants);
    list_init(&queue->slot_serves);
    list_init(&queue->credit_serves);
    for (int side = 0; side < 3; side++) {
        queue->policies[side] = NONE;
    }
    list_push_back(&core->services[key->scope].queues, &queue->link);
    core->services[key->scope].queue_count++;
    map_add(&core->queue_map, hash_scoped(core, key), number);
    session_serve_new_queue(core, number);
    return number;
}

uint32_t queue_intern(struct core *core, struct bytes service, struct bytes task)
{
    const uint32_t scope = service_intern(core, service);
    if (scope == NONE) {
        return NONE;
    }
    const struct scoped_name key = {.scope = scope, .name = task};
    const uint32_t found =
        map_find(&core->queue_map, hash_scoped(core, &key), queue_is, core, &key);
    return found != MAP_NONE ? found : queue_open(core, &key);
}

static bool tenant_queue_is(const void *context, uint32_t value, const void *key)
{
    const struct core *core = context;
    const struct scoped_name *scoped = key;
    const struct tenant_queue *tenant_queue = &core->tenant_queues[value];
    return tenant_queue->queue == scoped->scope && name_is(&tenant_queue->tenant, scoped->name);
}

uint32_t tenant_queue_intern(struct core *core, uint32_t queue, struct bytes tenant)
{
    const struct scoped_name key = {.scope = queue, .name = tenant};
    const uint64_t hash = hash_scoped(core, &key);
    const uint32_t found = map_find(&core->tenant_map, hash, tenant_queue_is, core, &key);
    if (found != MAP_NONE) {
        return found;
    }
    const uint32_t number = slab_take(&core->tenant_queue_slab);
    if (number == NONE) {
        return NONE;
    }
    struct tenant_queue *tenant_queue = &core->tenant_queues[number];
    name_set(&tenant_queue->tenant, tenant);
    tenant_queue->queue = queue;
    tenant_queue->task_count = 0;
    tenant_queue->ready_first = 0;
    tenant_queue->ready_retry = 0;
    tenant_queue->first_bits = 0;
    tenant_queue->retry_bits = 0;
    for (uint32_t i = 0; i < FIFO_COUNT; i++) {
        list_init(&tenant_queue->fifos[i].first);
        list_init(&tenant_queue->fifos[i].retry);
    }
    map_add(&core->tenant_map, hash, number);
    return number;
}

void tenant_queue_release(struct core *core, uint32_t number)
{
    struct tenant_queue *tenant_queue = &core->tenant_queues[number];
    TREADLE_ASSERT(tenant_queue->task_count == 0 && list_is_empty(&tenant_queue->link));
    const struct scoped_name key = {
        .scope = tenant_queue->queue,
        .name = {(const uint8_t *)tenant_queue->tenant.text, tenant_queue->tenant.size}};
    map_remove(&core->tenant_map, hash_scoped(core, &key), number);
    slab_give(&core->tenant_queue_slab, tenant_queue);
}
