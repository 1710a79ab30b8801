/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/core.h"
#include "broker/core/internal.h"
#include "common/base/assert.h"

#include <string.h>

#define ALIGNMENT ((size_t)64)

/* Hands out pieces of one block; with base NULL it only counts. */
struct arena {
    char *base;
    size_t size;
};

static void *carve(struct arena *arena, size_t size)
{
    char *at = arena->base == NULL ? NULL : arena->base + arena->size;
    arena->size += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return at;
}

static void carve_slab(struct arena *arena, struct slab *slab, size_t object_size,
                       uint32_t count_max)
{
    slab->objects = carve(arena, object_size * count_max);
    slab->object_size = object_size;
    slab->count_max = count_max;
}

static void carve_map(struct arena *arena, struct map *map, uint32_t count_max)
{
    void *memory = carve(arena, map_memory_size(count_max));
    if (arena->base != NULL) {
        map_init(map, memory, count_max);
    }
}

/* Settled tasks leave their places a little after the limit says so: by a cursor. */
static uint32_t task_places(const struct core_config *config)
{
    return config->task_count_max + config->settled_count_max + 2 * ENTRY_COUNT_MAX;
}

static void carve_slabs(struct arena *arena, struct core *core, const struct core_config *config)
{
    carve_slab(arena, &core->task_slab, sizeof(struct task), task_places(config));
    carve_slab(arena, &core->attempt_slab, sizeof(struct attempt), config->attempt_count_max);
    carve_slab(arena, &core->session_slab, sizeof(struct session), config->session_count_max);
    carve_slab(arena, &core->queue_slab, sizeof(struct queue), config->queue_count_max);
    carve_slab(arena, &core->tenant_queue_slab, sizeof(struct tenant_queue),
               config->tenant_queue_count_max);
    carve_slab(arena, &core->serve_slab, sizeof(struct serve), config->serve_count_max);
    carve_slab(arena, &core->wildcard_slab, sizeof(struct wildcard), config->serve_count_max);
    carve_slab(arena, &core->watch_slab, sizeof(struct watch), config->watch_count_max);
    carve_slab(arena, &core->policy_slab, sizeof(struct policy), config->policy_count_max);
    core->services = carve(arena, sizeof(struct service) * config->service_count_max);
    core->owners = carve(arena, sizeof(struct owner) * config->owner_count_max);
    core->connection_sessions = carve(arena, sizeof(uint32_t) * config->connection_count_max);
    core->remembered = carve(arena, sizeof(struct remembered) * config->remembered_count_max);
    core->outbox = carve(arena, sizeof(struct outbox_item) * config->outbox_count_max);
}

static void carve_maps(struct arena *arena, struct core *core, const struct core_config *config)
{
    carve_map(arena, &core->id_map, task_places(config) + config->remembered_count_max);
    carve_map(arena, &core->lease_map, config->attempt_count_max);
    carve_map(arena, &core->service_map, config->service_count_max);
    carve_map(arena, &core->queue_map, config->queue_count_max);
    carve_map(arena, &core->tenant_map, config->tenant_queue_count_max);
    carve_map(arena, &core->policy_map, config->policy_count_max);
    carve_map(arena, &core->session_map, config->session_count_max);
    carve_map(arena, &core->worker_map, config->session_count_max);
    carve_map(arena, &core->owner_map, config->owner_count_max);
}

size_t core_memory_size(const struct core_config *config)
{
    struct arena arena = {0};
    struct core counted; /* its pointers are written, to NULL, and forgotten */
    (void)carve(&arena, sizeof counted);
    carve_slabs(&arena, &counted, config);
    carve_maps(&arena, &counted, config);
    return arena.size;
}

static uint64_t slab_touched(const struct slab *slab)
{
    return (uint64_t)slab->used * slab->object_size;
}

uint64_t core_memory_touched(const struct core *core)
{
    const struct slab *const slabs[] = {
        &core->task_slab,     &core->attempt_slab,      &core->session_slab,
        &core->queue_slab,    &core->tenant_queue_slab, &core->serve_slab,
        &core->wildcard_slab, &core->watch_slab,        &core->policy_slab,
    };
    const struct core_config *config = &core->config;
    struct arena maps = {0};
    struct core counted;
    carve_maps(&maps, &counted, config); /* hashes touch them everywhere */
    const bool is_ring_full = core->remembered[core->remembered_at].is_used;
    uint64_t size = maps.size + sizeof(struct outbox_item) * config->outbox_count_max;
    size += sizeof(struct remembered) *
            (is_ring_full ? config->remembered_count_max : core->remembered_at);
    for (size_t i = 0; i < sizeof slabs / sizeof slabs[0]; i++) {
        size += slab_touched(slabs[i]);
    }
    return size + sizeof(struct service) * core->service_count;
}

static void init_slab(struct slab *slab)
{
    list_init(&slab->free);
}

static void init_lists(struct core *core)
{
    init_slab(&core->task_slab);
    init_slab(&core->attempt_slab);
    init_slab(&core->session_slab);
    init_slab(&core->queue_slab);
    init_slab(&core->tenant_queue_slab);
    init_slab(&core->serve_slab);
    init_slab(&core->wildcard_slab);
    init_slab(&core->watch_slab);
    init_slab(&core->policy_slab);
    list_init(&core->free_services);
    list_init(&core->unused_services);
    list_init(&core->unused_queues);
    list_init(&core->settled);
    list_init(&core->active_services);
    list_init(&core->ending_sessions);
    list_init(&core->reconciling_sessions);
    list_init(&core->delivering);
    list_init(&core->undurable);
    list_init(&core->busy_sessions);
    list_init(&core->recalling_services);
}

struct core *core_create(void *memory, const struct core_config *config, uint64_t now_ms)
{
    TREADLE_ASSERT(memory != NULL && config->outbox_count_max >= 4 * ENTRY_COUNT_MAX);
    struct arena arena = {.base = memory};
    struct core *core = carve(&arena, sizeof *core);
    carve_slabs(&arena, core, config);
    carve_maps(&arena, core, config);
    core->config = *config;
    core->now_ms = now_ms;
    core->started_at_ms = now_ms;
    core->fate_horizon_ms = now_ms;
    core->next_sequence = 1;
    core->next_serial = 1;
    core->next_policy_serial = 1;
    core->next_session_serial = 1;
    core->tasks = (void *)core->task_slab.objects;
    core->attempts = (void *)core->attempt_slab.objects;
    core->sessions = (void *)core->session_slab.objects;
    core->queues = (void *)core->queue_slab.objects;
    core->tenant_queues = (void *)core->tenant_queue_slab.objects;
    core->serves = (void *)core->serve_slab.objects;
    core->wildcards = (void *)core->wildcard_slab.objects;
    core->watches = (void *)core->watch_slab.objects;
    core->policies = (void *)core->policy_slab.objects;
    init_lists(core);
    prng_seed(&core->prng, config->seed);
    wheel_init(&core->wheel, now_ms);
    timer_init(&core->balance_timer, TIMER_BALANCE, 0);
    return core;
}

void core_config_init(struct core_config *config)
{
    *config = (struct core_config){
        .task_count_max = 1000000,
        .settled_count_max = 100000,
        .remembered_count_max = 1000000,
        .session_count_max = 10000,
        .connection_count_max = 16384,
        .service_count_max = 1024,
        .queue_count_max = 8192,
        .tenant_queue_count_max = 65536,
        .serve_count_max = 65536,
        .attempt_count_max = 1000000,
        .watch_count_max = 1200000,
        .owner_count_max = 4096,
        .policy_count_max = 262144,
        .outbox_count_max = 65536,
        .byte_max = UINT64_C(4) << 30,
        .settled_byte_max = UINT64_C(256) << 20,
        .body_size_max = BODY_SIZE_DEFAULT,
        .entry_count_max = ENTRY_COUNT_MAX,
        .visits_max = VISITS_MAX,
        .window_byte_max = UINT64_C(1) << 20,
        .window_count_max = 4096,
        .heartbeat_ms = 1000,
        .liveness = 3,
        .resume_grace_ms = 500,
        .dedup_window_ms = 600000,
        .dead_letter_ttl_ms = UINT64_C(30) * 24 * 3600 * 1000,
        .balance_ms = 100,
    };
}

uint32_t slab_take(struct slab *slab)
{
    struct list *link = list_pop_front(&slab->free);
    if (link == NULL) {
        if (slab->used == slab->count_max) {
            return NONE;
        }
        link = (void *)(slab->objects + slab->object_size * slab->used);
        slab->used++;
        list_init(link);
    }
    slab->live++;
    return slab_place(slab, link);
}

void slab_give(struct slab *slab, void *object)
{
    struct list *link = object;
    TREADLE_ASSERT(slab->live > 0 && list_is_empty(link));
    list_push_front(&slab->free, link); /* the warmest place is used next */
    slab->live--;
}

uint32_t slab_place(const struct slab *slab, const void *object)
{
    const size_t offset = (size_t)((const char *)object - slab->objects);
    TREADLE_ASSERT(offset % slab->object_size == 0 && offset / slab->object_size < slab->used);
    return (uint32_t)(offset / slab->object_size);
}
