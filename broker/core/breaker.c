/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/breaker.h"

#include "common/base/assert.h"

#include <stddef.h>
#include <string.h>

typedef void breaker_action(struct breaker *breaker, uint64_t now_ms);

struct breaker_rule {
    enum breaker_state next;
    breaker_action *act;
};

static void ignore(struct breaker *breaker, uint64_t now_ms)
{
    (void)breaker;
    (void)now_ms;
}

static void count_success(struct breaker *breaker, uint64_t now_ms)
{
    breaker->parts[(now_ms / BREAKER_PART_MS) % BREAKER_PARTS].successes++;
    breaker->failures_run = 0;
}

static void count_failure(struct breaker *breaker, uint64_t now_ms)
{
    breaker->parts[(now_ms / BREAKER_PART_MS) % BREAKER_PARTS].failures++;
    breaker->failures_run++;
}

static void clear_window(struct breaker *breaker)
{
    memset(breaker->parts, 0, sizeof breaker->parts);
    breaker->failures_run = 0;
}

static void open_for(struct breaker *breaker, uint64_t cooldown_ms, uint64_t now_ms)
{
    breaker->generation++;
    breaker->cooldown_ms = cooldown_ms;
    breaker->cooled_at_ms = now_ms + cooldown_ms;
    clear_window(breaker);
}

static void trip(struct breaker *breaker, uint64_t now_ms)
{
    open_for(breaker, BREAKER_COOLDOWN_MIN_MS, now_ms);
}

static void reopen(struct breaker *breaker, uint64_t now_ms)
{
    const uint64_t doubled_ms = 2 * breaker->cooldown_ms;
    open_for(breaker, doubled_ms < BREAKER_COOLDOWN_MAX_MS ? doubled_ms : BREAKER_COOLDOWN_MAX_MS,
             now_ms);
}

static void half_open(struct breaker *breaker, uint64_t now_ms)
{
    (void)now_ms;
    breaker->probes_in_flight = 0;
    breaker->probes_max = 1;
    breaker->probe_successes = 0;
}

static void close_it(struct breaker *breaker, uint64_t now_ms)
{
    (void)now_ms;
    breaker->generation++;
    breaker->cooldown_ms = 0;
    clear_window(breaker);
}

/* The ramp: one success allows 2 at a time, the two after it 4. */
static void count_probe_success(struct breaker *breaker, uint64_t now_ms)
{
    breaker->probe_successes++;
    if (breaker->probe_successes >= BREAKER_CLOSE_SUCCESSES) {
        breaker->state = BREAKER_CLOSED;
        close_it(breaker, now_ms);
    } else if (breaker->probe_successes >= 3) {
        breaker->probes_max = 4;
    } else {
        breaker->probes_max = 2;
    }
}

static void hold_open(struct breaker *breaker, uint64_t now_ms)
{
    open_for(breaker, BREAKER_COOLDOWN_MIN_MS, now_ms);
    breaker->cooled_at_ms = UINT64_MAX;
}

/* Already open: only the cooldown is called off. */
static void stay_open(struct breaker *breaker, uint64_t now_ms)
{
    (void)now_ms;
    breaker->cooled_at_ms = UINT64_MAX;
}

static void start_afresh(struct breaker *breaker, uint64_t now_ms)
{
    (void)now_ms;
    clear_window(breaker);
}

/* clang-format off */
/* Read a row as: "when CLOSED, on TRIP go OPEN and trip()". No cell is empty. */
static const struct breaker_rule rules[BREAKER_STATE_COUNT][BREAKER_EVENT_COUNT] = {
    [BREAKER_CLOSED] = {
        [BREAKER_EVENT_SUCCESS]      = {BREAKER_CLOSED,    count_success},
        [BREAKER_EVENT_FAILURE]      = {BREAKER_CLOSED,    count_failure},
        [BREAKER_EVENT_TRIP]         = {BREAKER_OPEN,      trip},
        [BREAKER_EVENT_COOLED]       = {BREAKER_CLOSED,    ignore},
        [BREAKER_EVENT_FORCE_OPEN]   = {BREAKER_OPEN,      hold_open},
        [BREAKER_EVENT_FORCE_CLOSED] = {BREAKER_CLOSED,    start_afresh},
        [BREAKER_EVENT_AUTO]         = {BREAKER_CLOSED,    start_afresh}},
    [BREAKER_OPEN] = {
        [BREAKER_EVENT_SUCCESS]      = {BREAKER_OPEN,      ignore},
        [BREAKER_EVENT_FAILURE]      = {BREAKER_OPEN,      ignore},
        [BREAKER_EVENT_TRIP]         = {BREAKER_OPEN,      ignore},
        [BREAKER_EVENT_COOLED]       = {BREAKER_HALF_OPEN, half_open},
        [BREAKER_EVENT_FORCE_OPEN]   = {BREAKER_OPEN,      stay_open},
        [BREAKER_EVENT_FORCE_CLOSED] = {BREAKER_CLOSED,    close_it},
        [BREAKER_EVENT_AUTO]         = {BREAKER_HALF_OPEN, half_open}},
    [BREAKER_HALF_OPEN] = {
        [BREAKER_EVENT_SUCCESS]      = {BREAKER_HALF_OPEN, count_probe_success},
        [BREAKER_EVENT_FAILURE]      = {BREAKER_OPEN,      reopen},
        [BREAKER_EVENT_TRIP]         = {BREAKER_HALF_OPEN, ignore},
        [BREAKER_EVENT_COOLED]       = {BREAKER_HALF_OPEN, ignore},
        [BREAKER_EVENT_FORCE_OPEN]   = {BREAKER_OPEN,      hold_open},
        [BREAKER_EVENT_FORCE_CLOSED] = {BREAKER_CLOSED,    close_it},
        [BREAKER_EVENT_AUTO]         = {BREAKER_HALF_OPEN, ignore}},
};
/* clang-format on */

static void apply(struct breaker *breaker, enum breaker_event event, uint64_t now_ms)
{
    const struct breaker_rule *rule = &rules[breaker->state][event];
    TREADLE_ASSERT(rule->act != NULL);
    breaker->state = (uint8_t)rule->next;
    rule->act(breaker, now_ms);
}

/* Forgets the parts that have left the window since it was last looked at. */
static void roll_window(struct breaker *breaker, uint64_t now_ms)
{
    const uint64_t newest = now_ms / BREAKER_PART_MS;
    uint64_t steps = newest - breaker->part_number;
    if (steps > BREAKER_PARTS) {
        steps = BREAKER_PARTS;
    }
    for (uint64_t i = 0; i < steps; i++) {
        breaker->parts[(newest - i) % BREAKER_PARTS] = (struct breaker_part){0};
    }
    breaker->part_number = newest;
}

static void sum_window(const struct breaker *breaker, uint32_t *results, uint32_t *failures)
{
    *results = 0;
    *failures = 0;
    for (uint32_t i = 0; i < BREAKER_PARTS; i++) {
        *results += breaker->parts[i].successes + breaker->parts[i].failures;
        *failures += breaker->parts[i].failures;
    }
}

static bool window_says_trip(const struct breaker *breaker)
{
    uint32_t results = 0;
    uint32_t failures = 0;
    sum_window(breaker, &results, &failures);
    if (results < BREAKER_RUN_RESULTS_MAX && breaker->failures_run >= BREAKER_FAILURES_RUN) {
        return true;
    }
    return results >= BREAKER_RESULTS_MIN && 2 * failures >= results;
}

void breaker_init(struct breaker *breaker)
{
    *breaker = (struct breaker){
        .state = BREAKER_CLOSED, .mode = BREAKER_AUTO, .generation = 1, .cooled_at_ms = UINT64_MAX};
}

bool breaker_admits(const struct breaker *breaker)
{
    switch ((enum breaker_state)breaker->state) {
    case BREAKER_CLOSED:
        return true;
    case BREAKER_HALF_OPEN:
        return breaker->probes_in_flight < breaker->probes_max;
    case BREAKER_OPEN:
    case BREAKER_STATE_COUNT:
        break;
    }
    return false;
}

bool breaker_on_dispatch(struct breaker *breaker)
{
    TREADLE_ASSERT(breaker_admits(breaker));
    if (breaker->state != BREAKER_HALF_OPEN) {
        return false;
    }
    breaker->probes_in_flight++;
    return true;
}

void breaker_on_end(struct breaker *breaker, uint32_t generation, bool is_probe,
                    enum breaker_verdict verdict, uint64_t now_ms)
{
    if (generation != breaker->generation) {
        return;
    }
    if (is_probe) {
        TREADLE_ASSERT(breaker->probes_in_flight > 0);
        breaker->probes_in_flight--;
    }
    if (verdict == BREAKER_NO_VERDICT) {
        return;
    }
    roll_window(breaker, now_ms);
    apply(breaker, verdict == BREAKER_SUCCESS ? BREAKER_EVENT_SUCCESS : BREAKER_EVENT_FAILURE,
          now_ms);
    if (breaker->state == BREAKER_CLOSED && breaker->mode == BREAKER_AUTO &&
        verdict == BREAKER_FAILURE && window_says_trip(breaker)) {
        apply(breaker, BREAKER_EVENT_TRIP, now_ms);
    }
}

void breaker_on_cooled(struct breaker *breaker, uint64_t now_ms)
{
    if (breaker->mode == BREAKER_AUTO) {
        apply(breaker, BREAKER_EVENT_COOLED, now_ms);
    }
}

void breaker_force(struct breaker *breaker, enum breaker_mode mode, uint64_t now_ms)
{
    const enum breaker_mode before = (enum breaker_mode)breaker->mode;
    breaker->mode = (uint8_t)mode;
    roll_window(breaker, now_ms);
    switch (mode) {
    case BREAKER_FORCED_OPEN:
        apply(breaker, BREAKER_EVENT_FORCE_OPEN, now_ms);
        break;
    case BREAKER_FORCED_CLOSED:
        apply(breaker, BREAKER_EVENT_FORCE_CLOSED, now_ms);
        break;
    case BREAKER_AUTO:
        if (before != BREAKER_AUTO) {
            apply(breaker, BREAKER_EVENT_AUTO, now_ms);
        }
        break;
    case BREAKER_MODE_COUNT:
        TREADLE_ASSERT(false);
        break;
    }
}

void breaker_window(const struct breaker *breaker, uint64_t now_ms, uint32_t *results,
                    uint32_t *failures)
{
    struct breaker rolled = *breaker;
    roll_window(&rolled, now_ms);
    sum_window(&rolled, results, failures);
}
