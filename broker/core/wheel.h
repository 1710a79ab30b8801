/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_CORE_WHEEL_H
#define TREADLE_CORE_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/list.h"

/* A hierarchical timer wheel with a tick of 1 ms. Eight levels of 64 buckets; a timer's level is
 * the highest 6-bit digit in which its deadline differs from the wheel's own time, its bucket that
 * digit of the deadline. Adding and cancelling are O(1), and a timer moves down at most 7 times.
 *
 * Timers expire in the order of (deadline, sequence), exactly and without a sort, however the clock
 * jumps: a bucket of the lowest level holds one deadline only, buckets are first in, first out, and
 * a bucket moves down a level ("cascades") just when the wheel's time enters it, before any
 * later timer can go straight to the lower level.
 *
 * The wheel's time follows the caller's, but may stay behind while there is more to do than one
 * call may visit. Not thread-safe; it reads no clock and allocates nothing. */
#define WHEEL_LEVEL_COUNT  8
#define WHEEL_BUCKET_COUNT 64

/* The last instant the wheel knows, 2^48 - 1 ms (8,900 years): later deadlines become this one. */
#define WHEEL_AT_MS_MAX ((UINT64_C(1) << 48) - 1)

/* Embedded in its owner. kind and owner are the caller's; the rest is the wheel's to write. */
struct timer {
    struct list link;        /* in a bucket while armed */
    uint64_t deadline_at_ms; /* as clamped by wheel_add() */
    uint64_t sequence;       /* the number of the wheel_add() that armed it */
    uint32_t kind;
    uint32_t owner;
};

struct wheel {
    uint64_t now_ms; /* nothing armed is earlier; at most the caller's time */
    uint64_t next_sequence;
    uint32_t count;                     /* armed timers */
    struct list *entered;               /* the bucket that is being cascaded, or NULL */
    uint64_t entered_last_at_ms;        /* the last deadline that belongs in it */
    uint64_t bitmap[WHEEL_LEVEL_COUNT]; /* bit b: buckets[level][b] is not empty */
    struct list buckets[WHEEL_LEVEL_COUNT][WHEEL_BUCKET_COUNT];
};

/* An empty wheel at now_ms (at most WHEEL_AT_MS_MAX). The wheel must not be moved in memory. */
void wheel_init(struct wheel *wheel, uint64_t now_ms);

/* A timer that is not armed. It must not be moved in memory while it is armed. */
void timer_init(struct timer *timer, uint32_t kind, uint32_t owner);

static inline bool timer_is_armed(const struct timer *timer)
{
    return !list_is_empty(&timer->link);
}

/* Arms a timer that is not armed. A deadline before the wheel's own time becomes that time, so
 * the timer is due at once, after those that already wait for that instant. The wheel keeps the
 * timer's address until it is returned as due or cancelled. */
void wheel_add(struct wheel *wheel, struct timer *timer, uint64_t deadline_at_ms);

/* Disarms a timer; does nothing if it is not armed. */
void wheel_cancel(struct wheel *wheel, struct timer *timer);

/* Returns the next timer whose deadline is at or before now_ms, disarmed; its owner may add it
 * again. NULL when none is due, and then wheel->now_ms is now_ms; or when *visits is used up and
 * there is more to do: then wheel_is_behind() is true, and the caller goes on later. Each timer
 * that is returned or moved down takes one from *visits. now_ms must not be before the wheel's
 * time nor above WHEEL_AT_MS_MAX. */
struct timer *wheel_take_due(struct wheel *wheel, uint64_t now_ms, uint32_t *visits);

/* When to call wheel_take_due() next: never after the earliest deadline, but maybe before it (a
 * bucket of a higher level begins then). UINT64_MAX if no timer is armed. */
uint64_t wheel_next_at_ms(const struct wheel *wheel);

/* True if wheel_take_due() at now_ms has work to do. */
bool wheel_is_behind(const struct wheel *wheel, uint64_t now_ms);

/* Slow: walks every timer and asserts every invariant of the wheel. */
void wheel_check(const struct wheel *wheel);

#endif
