/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/internal.h"
#include "common/base/assert.h"
#include "common/base/hash.h"

#include <string.h>

#define UNUSED_LOOKED_AT 64U /* names that are tried when a table is full */
#define QUEUES_GIVEN_UP  64U /* with a service, in one step */

/* A name within something: a queue within its service, a tenant of an owner within its queue. */
struct scoped_name {
    uint32_t scope;
    uint32_t owner; /* of a tenant */
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
    const uint64_t spread =
        ((uint64_t)key->owner << 32 | key->scope) * UINT64_C(0x9E3779B97F4A7C15);
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

bool owner_has_tasks(const struct owner *owner)
{
    return owner->task_count + owner->undelivered_count > 0;
}

void owner_note_tasks(struct core *core, uint32_t owner, bool had_tasks)
{
    const bool has_tasks = owner_has_tasks(&core->owners[owner]);
    if (has_tasks && !had_tasks) {
        core->owners_with_tasks++;
    } else if (!has_tasks && had_tasks) {
        TREADLE_ASSERT(core->owners_with_tasks > 0);
        core->owners_with_tasks--;
    }
}

bool share_admits(uint32_t own_count, uint32_t all_count, uint32_t count_max)
{
    return own_count == all_count || own_count < count_max / 2;
}

/* ---- names that nothing needs any more ---- */

static bool is_at_rest(const struct service *service)
{
    return service->used_queue_count == 0 && list_is_empty(&service->wildcards) &&
           service->attempt_count == 0 && !service->is_paused &&
           service->breaker.state == BREAKER_CLOSED && service->breaker.mode == BREAKER_AUTO;
}

void service_note_use(struct core *core, struct service *service)
{
    list_remove(&service->unused_link);
    if (is_at_rest(service)) {
        service->unused_at_ms = core->now_ms;
        list_push_back(&core->unused_services, &service->unused_link);
    }
}

void queue_note_use(struct core *core, struct queue *queue)
{
    struct service *service = &core->services[queue->service];
    const bool was_used = list_is_empty(&queue->unused_link);
    const bool is_used = queue->task_count + queue->tenant_queue_count + queue->serve_count > 0;
    if (is_used && !was_used) {
        list_remove(&queue->unused_link);
        service->used_queue_count++;
        service_note_use(core, service);
    } else if (!is_used && was_used) {
        queue->unused_at_ms = core->now_ms;
        list_push_back(&core->unused_queues, &queue->unused_link);
        service->used_queue_count--;
        service_note_use(core, service);
    }
}

static void queue_close(struct core *core, struct queue *queue)
{
    struct service *service = &core->services[queue->service];
    const struct scoped_name key = {.scope = queue->service,
                                    .name = {(const uint8_t *)queue->task.text, queue->task.size}};
    TREADLE_ASSERT(queue->ready_first + queue->ready_retry == 0 && list_is_empty(&queue->tenants));
    map_remove(&core->queue_map, hash_scoped(core, &key), slab_place(&core->queue_slab, queue));
    for (int side = 0; side < 3; side++) {
        policy_release(core, queue->policies[side]);
    }
    list_remove(&queue->unused_link);
    list_remove(&queue->active_link);
    list_remove(&queue->link);
    service->queue_count--;
    if (service->budget_left > service->queue_count) {
        service->budget_left = service->queue_count;
    }
    core->owners[queue->owner].queue_count--;
    core->counters.names_dropped++;
    queue->service = NONE;
    slab_give(&core->queue_slab, queue);
}

/* What was used in this round may still be named by what the shell has not sent: it stays. */
static bool is_old(const struct core *core, uint64_t unused_at_ms)
{
    return unused_at_ms < core->now_ms;
}

/* Gives up the queue that was unused for the longest time; owner: one of its own, NONE: anybody's.
 */
static bool give_up_a_queue(struct core *core, uint32_t owner)
{
    struct list *link = list_first(&core->unused_queues);
    for (uint32_t i = 0; i < UNUSED_LOOKED_AT && link != NULL; i++) {
        struct queue *queue = container_of(link, struct queue, unused_link);
        if (is_old(core, queue->unused_at_ms) && (owner == NONE || queue->owner == owner)) {
            queue_close(core, queue);
            return true;
        }
        link = list_next(&core->unused_queues, link);
    }
    return false;
}

static bool is_listed(const struct core *core, uint32_t service)
{
    for (uint32_t i = 0; i < LISTING_COUNT; i++) {
        if (core->listings[i].is_open && core->listings[i].service == service) {
            return true;
        }
    }
    return false;
}

/* Closes its queues, then the service itself. False: there were too many for one step. */
static bool service_close(struct core *core, struct service *service)
{
    struct list *link = NULL;
    for (uint32_t i = 0; i < QUEUES_GIVEN_UP; i++) {
        link = list_first(&service->queues);
        if (link == NULL) {
            break;
        }
        queue_close(core, container_of(link, struct queue, link));
    }
    if (!list_is_empty(&service->queues)) {
        return false;
    }
    const struct bytes name = name_view(&service->name);
    map_remove(&core->service_map, hash_name(core, name), (uint32_t)(service - core->services));
    wheel_cancel(&core->wheel, &service->breaker_timer);
    wheel_cancel(&core->wheel, &service->budget_timer);
    list_remove(&service->active_link);
    list_remove(&service->unused_link);
    list_remove(&service->recall_link);
    core->owners[service->owner].service_count--;
    core->counters.names_dropped++;
    *service = (struct service){0};
    list_init(&service->active_link);
    list_push_back(&core->free_services, &service->active_link);
    return true;
}

static bool give_up_a_service(struct core *core, uint32_t owner)
{
    struct list *link = list_first(&core->unused_services);
    for (uint32_t i = 0; i < UNUSED_LOOKED_AT && link != NULL; i++) {
        struct service *service = container_of(link, struct service, unused_link);
        if (is_old(core, service->unused_at_ms) && (owner == NONE || service->owner == owner) &&
            !is_listed(core, (uint32_t)(service - core->services))) {
            return service_close(core, service);
        }
        link = list_next(&core->unused_services, link);
    }
    return false;
}

/* ---- services and queues ---- */

static bool service_is(const void *context, uint32_t value, const void *key)
{
    const struct core *core = context;
    return name_is(&core->services[value].name, *(const struct bytes *)key);
}

uint32_t service_find(const struct core *core, struct bytes name)
{
    return map_find(&core->service_map, hash_name(core, name), service_is, core, &name);
}

/* A free place for a service of this owner; NONE. */
static uint32_t take_service(struct core *core, uint32_t owner)
{
    const uint32_t count_max = core->config.service_count_max;
    const uint32_t count = map_count(&core->service_map);
    const bool may_have_more = share_admits(core->owners[owner].service_count, count, count_max);
    const bool has_room = count < count_max;
    if ((!may_have_more || !has_room) && !give_up_a_service(core, may_have_more ? NONE : owner)) {
        return NONE;
    }
    struct list *link = list_pop_front(&core->free_services);
    if (link != NULL) {
        return (uint32_t)(container_of(link, struct service, active_link) - core->services);
    }
    core->service_count++;
    return core->service_count - 1;
}

uint32_t service_intern(struct core *core, uint32_t owner, struct bytes name)
{
    uint32_t found = service_find(core, name);
    if (found != MAP_NONE) {
        return found;
    }
    found = take_service(core, owner);
    if (found == NONE) {
        return NONE;
    }
    struct service *service = &core->services[found];
    core->owners[owner].service_count++;
    service->owner = owner;
    service->is_used = true;
    name_set(&service->name, name);
    list_init(&service->unused_link);
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
    service_note_use(core, service);
    return found;
}

static bool queue_is(const void *context, uint32_t value, const void *key)
{
    const struct core *core = context;
    const struct scoped_name *scoped = key;
    const struct queue *queue = &core->queues[value];
    return queue->service == scoped->scope && name_is(&queue->task, scoped->name);
}

static uint32_t take_queue(struct core *core, uint32_t owner)
{
    const bool may_have_more = share_admits(core->owners[owner].queue_count, core->queue_slab.live,
                                            core->queue_slab.count_max);
    const bool has_room = core->queue_slab.live < core->queue_slab.count_max;
    if ((!may_have_more || !has_room) && !give_up_a_queue(core, may_have_more ? NONE : owner)) {
        return NONE;
    }
    return slab_take(&core->queue_slab);
}

static uint32_t queue_open(struct core *core, uint32_t owner, const struct scoped_name *key)
{
    const uint32_t number = take_queue(core, owner);
    if (number == NONE) {
        return NONE;
    }
    struct queue *queue = &core->queues[number];
    *queue = (struct queue){.link = queue->link, .service = key->scope, .owner = owner};
    core->owners[owner].queue_count++;
    list_init(&queue->link);
    list_init(&queue->unused_link);
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
    core->services[key->scope].used_queue_count++;
    queue_note_use(core, queue);
    map_add(&core->queue_map, hash_scoped(core, key), number);
    session_serve_new_queue(core, number);
    return number;
}

uint32_t queue_intern(struct core *core, uint32_t owner, struct bytes service, struct bytes task)
{
    const uint32_t scope = service_intern(core, owner, service);
    if (scope == NONE) {
        return NONE;
    }
    const struct scoped_name key = {.scope = scope, .name = task};
    const uint32_t found =
        map_find(&core->queue_map, hash_scoped(core, &key), queue_is, core, &key);
    return found != MAP_NONE ? found : queue_open(core, owner, &key);
}

static bool tenant_queue_is(const void *context, uint32_t value, const void *key)
{
    const struct core *core = context;
    const struct scoped_name *scoped = key;
    const struct tenant_queue *tenant_queue = &core->tenant_queues[value];
    return tenant_queue->queue == scoped->scope && tenant_queue->owner == scoped->owner &&
           name_is(&tenant_queue->tenant, scoped->name);
}

uint32_t tenant_queue_intern(struct core *core, uint32_t owner, uint32_t queue, struct bytes tenant)
{
    const struct scoped_name key = {.scope = queue, .owner = owner, .name = tenant};
    const uint64_t hash = hash_scoped(core, &key);
    const uint32_t found = map_find(&core->tenant_map, hash, tenant_queue_is, core, &key);
    if (found != MAP_NONE) {
        return found;
    }
    if (!share_admits(core->owners[owner].tenant_queue_count, core->tenant_queue_slab.live,
                      core->tenant_queue_slab.count_max)) {
        return NONE;
    }
    const uint32_t number = slab_take(&core->tenant_queue_slab);
    if (number == NONE) {
        return NONE;
    }
    core->owners[owner].tenant_queue_count++;
    core->queues[queue].tenant_queue_count++;
    queue_note_use(core, &core->queues[queue]);
    struct tenant_queue *tenant_queue = &core->tenant_queues[number];
    name_set(&tenant_queue->tenant, tenant);
    tenant_queue->queue = queue;
    tenant_queue->owner = owner;
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
        .owner = tenant_queue->owner,
        .name = {(const uint8_t *)tenant_queue->tenant.text, tenant_queue->tenant.size}};
    map_remove(&core->tenant_map, hash_scoped(core, &key), number);
    core->owners[tenant_queue->owner].tenant_queue_count--;
    core->queues[tenant_queue->queue].tenant_queue_count--;
    queue_note_use(core, &core->queues[tenant_queue->queue]);
    slab_give(&core->tenant_queue_slab, tenant_queue);
}
