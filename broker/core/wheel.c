/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/wheel.h"

#include <stddef.h>

#include "common/base/assert.h"

#define DIGIT_BITS 6

static uint32_t digit_of(uint64_t at_ms, uint32_t level)
{
    return (uint32_t)(at_ms >> (DIGIT_BITS * level)) & (WHEEL_BUCKET_COUNT - 1);
}

/* The highest digit in which the two instants differ; 0 if they are the same. */
static uint32_t level_of(uint64_t now_ms, uint64_t deadline_at_ms)
{
    const uint64_t difference = (now_ms ^ deadline_at_ms) | 1;
    return (uint32_t)(63 - __builtin_clzll(difference)) / DIGIT_BITS;
}

/* The first instant of a bucket ahead of now: its digit, the higher ones of now, zeros below. */
static uint64_t bucket_starts_at_ms(uint64_t now_ms, uint32_t level, uint32_t bucket)
{
    const uint64_t digit_and_below = (UINT64_C(1) << (DIGIT_BITS * (level + 1))) - 1;
    return (now_ms & ~digit_and_below) | (uint64_t)bucket << (DIGIT_BITS * level);
}

static uint32_t first_bucket(uint64_t bitmap)
{
    return (uint32_t)__builtin_ctzll(bitmap);
}

void wheel_init(struct wheel *wheel, uint64_t now_ms)
{
    TREADLE_ASSERT(now_ms <= WHEEL_AT_MS_MAX);
    wheel->now_ms = now_ms;
    wheel->next_sequence = 0;
    wheel->count = 0;
    wheel->entered = NULL;
    wheel->entered_last_at_ms = 0;
    for (uint32_t level = 0; level < WHEEL_LEVEL_COUNT; level++) {
        wheel->bitmap[level] = 0;
        for (uint32_t bucket = 0; bucket < WHEEL_BUCKET_COUNT; bucket++) {
            list_init(&wheel->buckets[level][bucket]);
        }
    }
}

void timer_init(struct timer *timer, uint32_t kind, uint32_t owner)
{
    list_init(&timer->link);
    timer->deadline_at_ms = 0;
    timer->sequence = 0;
    timer->kind = kind;
    timer->owner = owner;
}

/* Puts a timer at the end of the bucket that the wheel's time gives it. */
static void put(struct wheel *wheel, struct timer *timer)
{
    const uint32_t level = level_of(wheel->now_ms, timer->deadline_at_ms);
    const uint32_t bucket = digit_of(timer->deadline_at_ms, level);
    list_push_back(&wheel->buckets[level][bucket], &timer->link);
    wheel->bitmap[level] |= UINT64_C(1) << bucket;
}

/* Takes a timer out of its bucket; the last one clears the bucket's bit. Its level cannot be told
 * from its deadline while a bucket is half cascaded, but the bucket's address says it. */
static void take_out(struct wheel *wheel, struct timer *timer)
{
    const struct list *neighbour = timer->link.next;
    const bool is_last = neighbour == timer->link.prev; /* both are the bucket */
    list_remove(&timer->link);
    if (is_last) {
        const size_t offset = (size_t)((const char *)neighbour - (const char *)wheel->buckets);
        const size_t index = offset / sizeof(wheel->buckets[0][0]);
        TREADLE_ASSERT(index < (size_t)WHEEL_LEVEL_COUNT * WHEEL_BUCKET_COUNT);
        wheel->bitmap[index / WHEEL_BUCKET_COUNT] &= ~(UINT64_C(1) << (index % WHEEL_BUCKET_COUNT));
    }
}

void wheel_add(struct wheel *wheel, struct timer *timer, uint64_t deadline_at_ms)
{
    TREADLE_ASSERT(!timer_is_armed(timer));
    if (deadline_at_ms < wheel->now_ms) {
        deadline_at_ms = wheel->now_ms;
    }
    if (deadline_at_ms > WHEEL_AT_MS_MAX) {
        deadline_at_ms = WHEEL_AT_MS_MAX;
    }
    timer->deadline_at_ms = deadline_at_ms;
    timer->sequence = wheel->next_sequence++;
    wheel->count++;
    if (wheel->entered != NULL && deadline_at_ms <= wheel->entered_last_at_ms) {
        /* Older timers of the same deadline may still wait in this bucket: stand behind them. */
        list_push_back(wheel->entered, &timer->link);
        const size_t index = (size_t)(wheel->entered - &wheel->buckets[0][0]);
        wheel->bitmap[index / WHEEL_BUCKET_COUNT] |= UINT64_C(1) << (index % WHEEL_BUCKET_COUNT);
    } else {
        put(wheel, timer);
    }
}

void wheel_cancel(struct wheel *wheel, struct timer *timer)
{
    if (timer_is_armed(timer)) {
        take_out(wheel, timer);
        wheel->count--;
    }
}

/* The lowest level that holds a timer, or WHEEL_LEVEL_COUNT. What a level holds is earlier than
 * all that higher levels hold. */
static uint32_t lowest_level(const struct wheel *wheel)
{
    uint32_t level = 0;
    while (level < WHEEL_LEVEL_COUNT && wheel->bitmap[level] == 0) {
        level++;
    }
    return level;
}

uint64_t wheel_next_at_ms(const struct wheel *wheel)
{
    if (wheel->entered != NULL && !list_is_empty(wheel->entered)) {
        return wheel->now_ms;
    }
    const uint32_t level = lowest_level(wheel);
    if (level == WHEEL_LEVEL_COUNT) {
        return UINT64_MAX;
    }
    return bucket_starts_at_ms(wheel->now_ms, level, first_bucket(wheel->bitmap[level]));
}

bool wheel_is_behind(const struct wheel *wheel, uint64_t now_ms)
{
    return wheel_next_at_ms(wheel) <= now_ms;
}

/* Moves timers of the entered bucket down, in order; false if the visits end first. */
static bool cascade(struct wheel *wheel, uint32_t *visits)
{
    while (!list_is_empty(wheel->entered)) {
        if (*visits == 0) {
            return false;
        }
        (*visits)--;
        struct timer *timer = container_of(wheel->entered->next, struct timer, link);
        take_out(wheel, timer);
        put(wheel, timer);
    }
    wheel->entered = NULL;
    return true;
}

/* Moves the wheel's time to the first instant of a bucket of level 1 or higher, to cascade it.
 * All lower levels are empty: until the bucket is, they hold only what came down from it. */
static void enter(struct wheel *wheel, uint32_t level, uint32_t bucket)
{
    for (uint32_t lower = 0; lower < level; lower++) {
        TREADLE_ASSERT(wheel->bitmap[lower] == 0);
    }
    const uint64_t starts_at_ms = bucket_starts_at_ms(wheel->now_ms, level, bucket);
    TREADLE_ASSERT(starts_at_ms > wheel->now_ms);
    wheel->now_ms = starts_at_ms;
    wheel->entered = &wheel->buckets[level][bucket];
    wheel->entered_last_at_ms = starts_at_ms + (UINT64_C(1) << (DIGIT_BITS * level)) - 1;
}

/* Takes the first timer of a bucket of level 0, where all have this one deadline. */
static struct timer *take_first(struct wheel *wheel, uint32_t bucket, uint64_t deadline_at_ms)
{
    struct timer *timer = container_of(wheel->buckets[0][bucket].next, struct timer, link);
    TREADLE_ASSERT(timer->deadline_at_ms == deadline_at_ms);
    take_out(wheel, timer);
    wheel->now_ms = deadline_at_ms; /* what is added from now on is no earlier */
    wheel->count--;
    return timer;
}

struct timer *wheel_take_due(struct wheel *wheel, uint64_t now_ms, uint32_t *visits)
{
    TREADLE_ASSERT(now_ms >= wheel->now_ms && now_ms <= WHEEL_AT_MS_MAX);
    for (;;) { /* each pass enters a bucket, and so moves at least one timer down, or returns */
        if (wheel->entered != NULL && !cascade(wheel, visits)) {
            return NULL;
        }
        const uint32_t level = lowest_level(wheel);
        if (level == WHEEL_LEVEL_COUNT) {
            break;
        }
        const uint32_t bucket = first_bucket(wheel->bitmap[level]);
        const uint64_t starts_at_ms = bucket_starts_at_ms(wheel->now_ms, level, bucket);
        if (starts_at_ms > now_ms) {
            break;
        }
        if (*visits == 0) {
            return NULL;
        }
        if (level == 0) {
            (*visits)--;
            return take_first(wheel, bucket, starts_at_ms);
        }
        enter(wheel, level, bucket);
    }
    wheel->now_ms = now_ms;
    return NULL;
}

/* What must hold of a timer in the bucket of this level and digit. */
static void check_place(const struct wheel *wheel, const struct timer *timer, uint32_t level,
                        uint32_t bucket)
{
    TREADLE_ASSERT(timer->deadline_at_ms >= wheel->now_ms);
    TREADLE_ASSERT(timer->deadline_at_ms <= WHEEL_AT_MS_MAX);
    TREADLE_ASSERT(timer->sequence < wheel->next_sequence);
    TREADLE_ASSERT(digit_of(timer->deadline_at_ms, level) == bucket);
    if (&wheel->buckets[level][bucket] == wheel->entered) {
        TREADLE_ASSERT(timer->deadline_at_ms <= wheel->entered_last_at_ms);
    } else {
        TREADLE_ASSERT(level_of(wheel->now_ms, timer->deadline_at_ms) == level);
    }
}

/* Checks one bucket; returns how many timers it holds. */
static uint32_t check_bucket(const struct wheel *wheel, uint32_t level, uint32_t bucket)
{
    const struct list *head = &wheel->buckets[level][bucket];
    const struct timer *previous = NULL;
    uint32_t count = 0;
    for (struct list *link = list_first(head); link != NULL; link = list_next(head, link)) {
        TREADLE_ASSERT(link->next->prev == link && link->prev->next == link);
        const struct timer *timer = container_of(link, struct timer, link);
        check_place(wheel, timer, level, bucket);
        TREADLE_ASSERT(previous == NULL || previous->sequence < timer->sequence);
        previous = timer;
        count++;
    }
    TREADLE_ASSERT(count > 0);
    return count;
}

void wheel_check(const struct wheel *wheel)
{
    TREADLE_ASSERT(wheel->now_ms <= WHEEL_AT_MS_MAX);
    uint32_t count = 0;
    for (uint32_t level = 0; level < WHEEL_LEVEL_COUNT; level++) {
        /* A timer in a bucket without its bit is one too few in the count. */
        for (uint64_t bits = wheel->bitmap[level]; bits != 0; bits &= bits - 1) {
            count += check_bucket(wheel, level, first_bucket(bits));
        }
    }
    TREADLE_ASSERT(count == wheel->count);
    if (wheel->entered != NULL) {
        TREADLE_ASSERT(wheel->entered >= &wheel->buckets[1][0]);
        TREADLE_ASSERT(wheel->entered_last_at_ms >= wheel->now_ms);
    }
}
