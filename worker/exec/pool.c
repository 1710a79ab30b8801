/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/pool.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "worker/exec/pool_state.h"

#define EVENT_COUNT  64
#define BATCH_NS     1000000 /* of work that is handed to a child at once */
#define CHECK_MS     (POOL_LONG_US / 1000)
#define FLOW_MS      2   /* ends of short attempts are told this late, at most */
#define FAREWELL_MS  100 /* for children to stop their plugins */
#define GOLDEN_RATIO UINT64_C(0x9e3779b97f4a7c15)

static struct pool *pool_of(struct executor *executor)
{
    return container_of(executor, struct pool, executor);
}

uint64_t pool_clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t clock_ms(void)
{
    return pool_clock_us() / 1000;
}

/* ---- entries ---- */

/* The broker chooses leases, growing ones: spread them. */
static uint64_t hash_of(uint64_t lease)
{
    return (lease * GOLDEN_RATIO) >> 32;
}

static bool is_lease(const void *context, uint32_t value, const void *key)
{
    const struct pool *pool = context;
    const uint64_t *lease = key;
    return pool->entries[value].lease == *lease;
}

struct entry *pool_find(const struct pool *pool, uint64_t lease)
{
    const uint32_t index = map_find(&pool->by_lease, hash_of(lease), is_lease, pool, &lease);
    return index == MAP_NONE ? NULL : &pool->entries[index];
}

static struct entry *entry_take(struct pool *pool)
{
    struct list *link = list_pop_front(&pool->free);
    if (link != NULL) {
        return container_of(link, struct entry, link);
    }
    TREADLE_ASSERT(pool->entry_used_count < pool->entry_count_max);
    struct entry *entry = &pool->entries[pool->entry_used_count++];
    list_init(&entry->link);
    return entry;
}

void pool_forget(struct pool *pool, struct entry *entry)
{
    map_remove(&pool->by_lease, hash_of(entry->lease), (uint32_t)(entry - pool->entries));
    list_push_front(&pool->free, &entry->link);
}

/* ---- who gets what ---- */

/* How many attempts a lane (a child, or a thread of one) has at once. */
static uint32_t lane_count(const struct pool *pool)
{
    if (pool->mean_ns == 0 || pool->mean_ns >= BATCH_NS) {
        return 1;
    }
    const uint64_t count = BATCH_NS / pool->mean_ns;
    return count < HANDOFF_COUNT_MAX ? (uint32_t)count : HANDOFF_COUNT_MAX;
}

/* How many attempts a child takes in all: behind what runs for long nothing waits. */
static uint32_t capacity_of(const struct child *child)
{
    const struct pool *pool = child->pool;
    if (child->state != CHILD_READY || child->has_ended) {
        return 0;
    }
    const uint32_t long_count =
        child->told_count < pool->thread_count ? child->told_count : pool->thread_count;
    const uint32_t count = long_count + (pool->thread_count - long_count) * lane_count(pool);
    return count < pool->cell_count ? count : pool->cell_count;
}

/* Hands out up to `level` attempts to a child. */
static void fill(struct child *child, uint32_t level)
{
    struct list *link;
    while (child->handed_count < level && child->free_count > 0 &&
           (link = list_pop_front(&child->pool->waiting)) != NULL) {
        pool_child_hand(child, container_of(link, struct entry, link));
    }
}

static struct child *child_at(const struct pool *pool, uint32_t i)
{
    return pool->children[(pool->next_child + i) % pool->child_count];
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* First one to every lane that is free, in turn; then what is left in equal shares, as far as the
 * time it takes admits. */
static void hand_out(struct pool *pool)
{
    uint32_t ready_count = 0;
    const uint32_t first = pool->next_child;
    for (uint32_t i = 0; i < pool->child_count; i++) {
        struct child *child = pool->children[(first + i) % pool->child_count];
        const uint32_t capacity = capacity_of(child);
        if (capacity > child->handed_count && !list_is_empty(&pool->waiting)) {
            fill(child, smaller(capacity, pool->thread_count));
            pool->next_child = (first + i + 1) % pool->child_count;
        }
        ready_count += capacity > 0;
    }
    if (ready_count == 0 || list_is_empty(&pool->waiting)) {
        return;
    }
    const uint32_t level = (map_count(&pool->by_lease) + ready_count - 1) / ready_count;
    for (uint32_t i = 0; i < pool->child_count && !list_is_empty(&pool->waiting); i++) {
        struct child *child = child_at(pool, i);
        fill(child, smaller(capacity_of(child), level));
    }
}

static uint32_t starting_count(const struct pool *pool)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < pool->child_count; i++) {
        count += pool->children[i]->state == CHILD_STARTING;
    }
    return count;
}

static bool wants_child(const struct pool *pool)
{
    if (pool->is_gone || list_is_empty(&pool->waiting) ||
        pool->child_count >= smaller(pool->child_count_max, map_count(&pool->by_lease))) {
        return false;
    }
    /* after a failure, one at a time */
    return pool->start_failure_count == 0 || starting_count(pool) == 0;
}

static void start_children(struct pool *pool)
{
    while (wants_child(pool) && pool->now_ms >= pool->start_not_before_ms) {
        if (!pool_child_start(pool) && !pool->is_gone) {
            pool_on_start_failure(pool);
        }
    }
}

static void hand_out_and_send(struct pool *pool)
{
    if (!list_is_empty(&pool->waiting)) {
        start_children(pool);
        hand_out(pool);
    }
    for (uint32_t i = 0; i < pool->child_count; i++) {
        struct child *child = pool->children[i];
        if (pool_child_is_unwritten(child) && !child->wants_write) {
            pool_child_flush(child);
        }
    }
}

/* ---- clocks ---- */

static bool is_long(const struct child *child, const struct entry *entry, uint64_t now_us)
{
    if (page_state(child->page, entry->cell) != CELL_RUNNING) {
        return false;
    }
    const uint64_t started_at_us = page_started_at_us(child->page, entry->cell);
    /* a start in the future is damage, and no reason to wait */
    return started_at_us > now_us || now_us - started_at_us >= POOL_LONG_US;
}

/* Takes back all that waits in a child behind its first attempt, so that others can run it. */
static void take_back(struct child *child)
{
    struct list *const heads[] = {&child->sent, &child->unsent};
    struct list taken;
    list_init(&taken);
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        struct list *next;
        for (struct list *link = list_first(heads[i]); link != NULL; link = next) {
            next = list_next(heads[i], link);
            if (pool_child_recall(container_of(link, struct entry, link))) {
                list_push_back(&taken, link);
            }
        }
    }
    list_splice_front(&child->pool->waiting, &taken);
}

/* Whether attempts may still start here, or run for long, of which nobody knows yet. */
static bool needs_check(const struct child *child)
{
    return child->handed_count > child->told_count && child->told_count < child->pool->thread_count;
}

static void check_child(struct child *child, uint64_t now_us)
{
    struct pool *pool = child->pool;
    const struct list *head = &child->sent;
    struct list *next;
    for (struct list *link = list_first(head); link != NULL; link = next) {
        struct entry *entry = container_of(link, struct entry, link);
        next = pool->is_threaded ? list_next(head, link) : NULL; /* the first one runs */
        if (!entry->is_told && is_long(child, entry, now_us)) {
            pool_tell_started(entry);
        }
    }
}

/* A look now and then at what has not been told of yet. */
static void check_starts(struct pool *pool)
{
    const uint64_t now_us = pool_clock_us();
    for (uint32_t i = 0; i < pool->child_count; i++) {
        struct child *child = pool->children[i];
        if (needs_check(child)) {
            check_child(child, now_us);
        }
    }
}

/* Nothing waits behind an attempt that runs for long. */
static void relieve(struct pool *pool)
{
    for (uint32_t i = 0; i < pool->child_count && !pool->is_threaded; i++) {
        struct child *child = pool->children[i];
        if (child->told_count > 0 && child->handed_count > child->told_count) {
            take_back(child);
        }
    }
}

/* Whether something should have come from the child: what runs for long is known. */
static bool is_awaited(const struct child *child)
{
    return child->state == CHILD_STARTING ||
           (child->state == CHILD_READY && child->handed_count > 0 && child->told_count == 0);
}

static void check_silence(struct pool *pool)
{
    for (uint32_t i = 0; i < pool->child_count; i++) {
        struct child *child = pool->children[i];
        if (is_awaited(child) && pool->now_ms >= child->heard_at_ms + POOL_SILENCE_MS) {
            snprintf(child->text, sizeof(child->text), "a child %s within %d s",
                     child->state == CHILD_STARTING ? "was not ready" : "began with no attempt",
                     POOL_SILENCE_MS / 1000);
            pool_child_doom(child);
        }
    }
}

/* When to look again, if nothing happens before. */
static void set_clocks(struct pool *pool)
{
    bool is_flowing = false;
    bool is_check_needed = false;
    for (uint32_t i = 0; i < pool->child_count; i++) {
        const struct child *child = pool->children[i];
        is_flowing = is_flowing || (child->is_flowing && child->handed_count > 0);
        is_check_needed = is_check_needed || needs_check(child);
    }
    if (!is_check_needed) {
        pool->check_at_ms = POOL_NEVER;
    } else if (pool->check_at_ms == POOL_NEVER) {
        pool->check_at_ms = pool->now_ms + CHECK_MS;
    }
    pool->flow_at_ms = is_flowing ? pool->now_ms + FLOW_MS : POOL_NEVER;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_at_ms(const struct executor *executor)
{
    const struct pool *pool = container_of_const(executor, struct pool, executor);
    if (pool->has_ended_child ||
        ((pool->is_unfit || pool->is_gone) && !list_is_empty(&pool->waiting))) {
        return 0;
    }
    uint64_t at_ms = earlier(pool->check_at_ms, pool->flow_at_ms);
    if (wants_child(pool)) {
        at_ms = earlier(at_ms, pool->start_not_before_ms);
    }
    for (uint32_t i = 0; i < pool->child_count; i++) {
        if (is_awaited(pool->children[i])) {
            at_ms = earlier(at_ms, pool->children[i]->heard_at_ms + POOL_SILENCE_MS);
        }
    }
    return at_ms;
}

/* ---- the executor ---- */

static int fd_of(struct executor *executor)
{
    return pool_of(executor)->epoll_fd;
}

static void read_rings(struct pool *pool)
{
    const bool is_flow_due = pool->now_ms >= pool->flow_at_ms;
    for (uint32_t i = 0; i < pool->child_count; i++) {
        struct child *child = pool->children[i];
        if (pool_child_read(child) > 0) {
            child->is_flowing = true;
        } else if (is_flow_due) {
            child->is_flowing = false; /* what runs takes longer */
        }
    }
}

/* Rings first: what a child writes to its stderr for an attempt comes before the attempt's end. */
static void read_descriptors(struct pool *pool)
{
    struct epoll_event events[EVENT_COUNT];
    const int count = epoll_wait(pool->epoll_fd, events, EVENT_COUNT, 0);
    for (int i = 0; i < count; i++) {
        struct child *child = events[i].data.ptr;
        uint64_t number;
        if (child == NULL) {
            (void)!read(pool->event_fd, &number, sizeof(number));
            continue;
        }
        if (child->wants_write) {
            pool_child_flush(child);
        }
        if ((events[i].events & EPOLLOUT) == 0) {
            (void)pool_child_read_trace(child);
        }
    }
}

static void settle_ended(struct pool *pool)
{
    if (!pool->has_ended_child) {
        return;
    }
    pool->has_ended_child = false;
    uint32_t i = 0;
    while (i < pool->child_count) {
        if (pool->children[i]->has_ended) {
            pool_on_ended(pool->children[i]); /* another takes its place in the array */
        } else {
            i++;
        }
    }
}

static bool has_ready_child(const struct pool *pool)
{
    for (uint32_t i = 0; i < pool->child_count; i++) {
        if (pool->children[i]->state == CHILD_READY) {
            return true;
        }
    }
    return false;
}

static void on_ready(struct executor *executor)
{
    struct pool *pool = pool_of(executor);
    pool->now_ms = clock_ms();
    read_rings(pool);
    read_descriptors(pool);
    settle_ended(pool);
    if (pool->now_ms >= pool->check_at_ms) {
        pool->check_at_ms = POOL_NEVER;
        check_starts(pool);
    }
    check_silence(pool); /* after the starts: those are no silence */
    relieve(pool);
    if (pool->is_gone) {
        pool_return_waiting(pool);
    } else if (pool->is_unfit) {
        pool->is_unfit = false;
        if (!has_ready_child(pool)) {
            pool_fail_waiting(pool);
        }
    }
    hand_out_and_send(pool);
    set_clocks(pool);
}

static bool may_wait(struct executor *executor)
{
    struct pool *pool = pool_of(executor);
    hand_out_and_send(pool);
    if (pool->has_ended_child ||
        ((pool->is_unfit || pool->is_gone) && !list_is_empty(&pool->waiting))) {
        return false;
    }
    for (uint32_t i = 0; i < pool->child_count; i++) {
        struct child *child = pool->children[i];
        const bool is_batched =
            child->is_flowing && child->handed_count > 1 && pool->flow_at_ms != POOL_NEVER;
        if (!page_before_wait(child->page, is_batched ? child->handed_count / 2 : 1)) {
            return false;
        }
    }
    return true;
}

static uint32_t room(const struct executor *executor)
{
    const struct pool *pool = container_of_const(executor, struct pool, executor);
    uint32_t long_count = 0;
    if (pool->is_gone) {
        return 0;
    }
    for (uint32_t i = 0; i < pool->child_count; i++) {
        long_count += pool->children[i]->told_count;
    }
    long_count = smaller(long_count, pool->slots);
    const uint32_t count = long_count + (pool->slots - long_count) * lane_count(pool);
    return smaller(count, pool->entry_count_max);
}

/* Only noted here: what is started together is sent together. */
static void start(struct executor *executor, const struct worker_attempt *attempt,
                  const struct handler *handler)
{
    struct pool *pool = pool_of(executor);
    TREADLE_ASSERT(handler->kind == HANDLER_FUNCTION);
    struct entry *entry = entry_take(pool);
    entry->attempt = attempt;
    entry->lease = attempt->lease;
    entry->child = NULL;
    entry->function = handler->index;
    entry->is_sent = false;
    entry->is_told = false;
    entry->is_killed = false;
    map_add(&pool->by_lease, hash_of(entry->lease), (uint32_t)(entry - pool->entries));
    list_push_back(&pool->waiting, &entry->link);
    if (pool->check_at_ms == POOL_NEVER) {
        pool->now_ms = clock_ms();
        pool->check_at_ms = pool->now_ms + CHECK_MS;
    }
}

static bool recall(struct executor *executor, uint64_t lease)
{
    struct pool *pool = pool_of(executor);
    struct entry *entry = pool_find(pool, lease);
    if (entry == NULL) {
        return false;
    }
    if (entry->child == NULL) {
        list_remove(&entry->link);
    } else if (!pool_child_recall(entry)) {
        return false;
    }
    pool_forget(pool, entry);
    return true;
}

static void cancel(struct executor *executor, uint64_t lease)
{
    const struct entry *entry = pool_find(pool_of(executor), lease);
    if (entry != NULL && entry->child != NULL) {
        page_cancel(entry->child->page, entry->cell);
    }
}

static void kill_lease(struct executor *executor, uint64_t lease)
{
    struct entry *entry = pool_find(pool_of(executor), lease);
    if (entry != NULL && entry->child != NULL) {
        entry->is_killed = true;
        entry->child->is_killed = true;
        pool_child_doom(entry->child);
    }
}

/* Idle children find the end of their hand-offs and stop in order; the end of their stderr tells
 * when they have. */
static void say_farewell(struct pool *pool)
{
    const uint64_t until_ms = clock_ms() + FAREWELL_MS;
    for (uint32_t i = 0; i < pool->child_count; i++) {
        struct child *child = pool->children[i];
        if (child->state == CHILD_READY && child->handed_count == 0 && !child->has_ended) {
            close(child->socket_fd);
            child->socket_fd = -1;
        }
    }
    for (uint32_t i = 0; i < pool->child_count; i++) {
        struct child *child = pool->children[i];
        uint64_t now_ms = clock_ms();
        while (child->socket_fd == -1 && child->trace_fd != -1 && now_ms < until_ms) {
            struct pollfd end = {.fd = child->trace_fd, .events = POLLIN};
            (void)poll(&end, 1, (int)(until_ms - now_ms));
            (void)pool_child_read_trace(child);
            now_ms = clock_ms();
        }
    }
}

static void destroy(struct executor *executor)
{
    struct pool *pool = pool_of(executor);
    if (pool->children != NULL) {
        say_farewell(pool);
        while (pool->child_count > 0) {
            struct child *child = pool->children[pool->child_count - 1];
            child->handed_count = 0; /* what runs is ended, and nobody told */
            pool_child_free(child);
        }
    }
    if (pool->epoll_fd != -1) {
        close(pool->epoll_fd);
    }
    if (pool->event_fd != -1) {
        close(pool->event_fd);
    }
    writer_free(&pool->meta);
    free(pool->children);
    free(pool->entries);
    free(pool->map_memory);
    free(pool);
}

static void set_sizes(struct pool *pool, const struct pool_config *config)
{
    pool->slots = smaller(config->slots, POOL_SLOT_COUNT_MAX);
    pool->is_threaded = config->is_threaded;
    pool->thread_count = config->is_threaded ? pool->slots : 1;
    pool->child_count_max = config->is_threaded ? 1 : pool->slots;
    pool->cell_count = smaller(pool->thread_count * HANDOFF_COUNT_MAX, PAGE_CELL_COUNT_MAX);
    pool->entry_count_max = pool->slots * HANDOFF_COUNT_MAX;
}

static bool open_descriptors(struct pool *pool)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    pool->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    pool->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return pool->epoll_fd != -1 && pool->event_fd != -1 &&
           epoll_ctl(pool->epoll_fd, EPOLL_CTL_ADD, pool->event_fd, &event) == 0;
}

struct executor *pool_executor_create(const struct pool_config *config)
{
    static const struct executor_methods methods = {
        .fd = fd_of,
        .on_ready = on_ready,
        .next_at_ms = next_at_ms,
        .may_wait = may_wait,
        .room = room,
        .start = start,
        .recall = recall,
        .cancel = cancel,
        .kill = kill_lease,
        .destroy = destroy,
    };
    TREADLE_ASSERT(config->slots > 0);
    struct pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL) {
        return NULL;
    }
    pool->executor = (struct executor){&methods, config->listener};
    pool->runs = config->runs;
    pool->memory_max = config->memory_max;
    pool->epoll_fd = -1;
    pool->event_fd = -1;
    pool->check_at_ms = POOL_NEVER;
    pool->flow_at_ms = POOL_NEVER;
    list_init(&pool->waiting);
    list_init(&pool->free);
    writer_init(&pool->meta);
    set_sizes(pool, config);
    pool->children = calloc(pool->child_count_max, sizeof(struct child *));
    pool->entries = calloc(pool->entry_count_max, sizeof(struct entry));
    pool->map_memory = calloc(1, map_memory_size(pool->entry_count_max));
    if (pool->children == NULL || pool->entries == NULL || pool->map_memory == NULL ||
        !open_descriptors(pool)) {
        struct executor *executor = &pool->executor;
        const int error = errno;
        executor_destroy(&executor);
        errno = error;
        return NULL;
    }
    map_init(&pool->by_lease, pool->map_memory, pool->entry_count_max);
    return &pool->executor;
}
