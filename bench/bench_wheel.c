/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "broker/core/wheel.h"
#include "common/base/assert.h"
#include "common/base/prng.h"

/* What the timer wheel costs with that many timers pending, in ns by timer:
 *   add+cancel   a further timer is armed and cancelled, as a task that ends before its timeout
 *   add+expire   the earliest timer expires and is armed again, its moves down the levels included
 *   span         deadlines lie up to this far ahead */

#define OPERATION_COUNT 2000000

static double now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static double measure_add_cancel(struct wheel *wheel, struct timer *timer, struct prng *prng,
                                 uint64_t span_ms)
{
    const double start_ns = now_ns();
    for (uint32_t i = 0; i < OPERATION_COUNT; i++) {
        wheel_add(wheel, timer, wheel->now_ms + prng_below(prng, span_ms));
        wheel_cancel(wheel, timer);
    }
    return (now_ns() - start_ns) / OPERATION_COUNT;
}

/* As many as are pending at least, so that all of them move down on the way. */
static double measure_add_expire(struct wheel *wheel, struct prng *prng, uint64_t span_ms)
{
    const double start_ns = now_ns();
    for (uint32_t i = 0; i < OPERATION_COUNT; i++) {
        struct timer *due = NULL;
        while (due == NULL) {
            uint32_t visits = 1024;
            due = wheel_take_due(wheel, wheel_next_at_ms(wheel), &visits);
        }
        wheel_add(wheel, due, wheel->now_ms + prng_below(prng, span_ms));
    }
    return (now_ns() - start_ns) / OPERATION_COUNT;
}

static void measure(uint32_t pending_count, uint64_t span_ms)
{
    static struct wheel wheel;
    struct prng prng;
    struct timer *timers = calloc((size_t)pending_count + 1, sizeof(*timers));
    TREADLE_ASSERT(timers != NULL);
    prng_seed(&prng, pending_count);
    wheel_init(&wheel, 1000000);
    for (uint32_t i = 0; i <= pending_count; i++) {
        timer_init(&timers[i], 0, i);
    }
    for (uint32_t i = 0; i < pending_count; i++) {
        wheel_add(&wheel, &timers[i], wheel.now_ms + prng_below(&prng, span_ms));
    }
    const double cancel_ns = measure_add_cancel(&wheel, &timers[pending_count], &prng, span_ms);
    const double expire_ns = measure_add_expire(&wheel, &prng, span_ms);
    printf("%10" PRIu32 "  %7" PRIu64 " s  %10.1f  %10.1f\n", pending_count, span_ms / 1000,
           cancel_ns, expire_ns);
    wheel_check(&wheel);
    free(timers);
}

int main(void)
{
    printf("   pending       span  add+cancel  add+expire  (ns a timer)\n");
    const uint32_t pending_counts[] = {1000, 100000, 1000000};
    for (size_t i = 0; i < sizeof(pending_counts) / sizeof(pending_counts[0]); i++) {
        measure(pending_counts[i], 10000);
        measure(pending_counts[i], 300000);
    }
    return 0;
}
