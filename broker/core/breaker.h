/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A service's circuit breaker: facts become events, a table turns events into states. It knows no
 * clock and owns no timer; its owner tells it the time and calls breaker_on_cooled() when the
 * cooldown is over.
 *
 * Closed: results of the last 30 s are counted in ten parts; at least 50 % failures of at least 10
 * results trip it, or 5 failures in a row while the window holds fewer than 20 results. Open:
 * nothing passes for the cooldown, 10 s, doubling at each opening from half-open up to 300 s.
 * Half-open: 1 probe in flight, after its success 2, after those 4; five successes close it, one
 * failure opens it again.
 *
 * The generation rises at each opening and each closing; a result counts only in the generation its
 * attempt was dispatched under.
 */
#ifndef TREADLE_CORE_BREAKER_H
#define TREADLE_CORE_BREAKER_H

#include "common/wire/terms.h"

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_PARTS           10U
#define BREAKER_PART_MS         3000U
#define BREAKER_RESULTS_MIN     10U
#define BREAKER_FAILURES_RUN    5U
#define BREAKER_RUN_RESULTS_MAX 20U
#define BREAKER_COOLDOWN_MIN_MS 10000U
#define BREAKER_COOLDOWN_MAX_MS 300000U
#define BREAKER_CLOSE_SUCCESSES 5U

enum breaker_event {
    BREAKER_EVENT_SUCCESS,
    BREAKER_EVENT_FAILURE,
    BREAKER_EVENT_TRIP, /* the window says so */
    BREAKER_EVENT_COOLED,
    BREAKER_EVENT_FORCE_OPEN,
    BREAKER_EVENT_FORCE_CLOSED,
    BREAKER_EVENT_AUTO,
    BREAKER_EVENT_COUNT
};

enum breaker_verdict { BREAKER_NO_VERDICT, BREAKER_SUCCESS, BREAKER_FAILURE };

struct breaker_part {
    uint32_t successes;
    uint32_t failures;
};

struct breaker {
    uint8_t state; /* enum breaker_state */
    uint8_t mode;  /* enum breaker_mode */
    uint32_t generation;
    struct breaker_part parts[BREAKER_PARTS];
    uint64_t part_number; /* of the newest part: instant / BREAKER_PART_MS */
    uint32_t failures_run;
    uint64_t cooldown_ms;      /* of this or the last opening */
    uint64_t cooled_at_ms;     /* open: when it half-opens; UINT64_MAX when forced */
    uint32_t probes_in_flight; /* half-open */
    uint32_t probes_max;
    uint32_t probe_successes;
};

/* Closed, automatic, with an empty window. */
void breaker_init(struct breaker *breaker);

/* Whether one more task may be dispatched now. */
bool breaker_admits(const struct breaker *breaker);

/* Takes note of a dispatch that breaker_admits() allowed. True: it is a probe, and its end must be
 * told. */
bool breaker_on_dispatch(struct breaker *breaker);

/* The end of an attempt, whatever it was. Only the current generation's counts; a probe's place is
 * free again. */
void breaker_on_end(struct breaker *breaker, uint32_t generation, bool is_probe,
                    enum breaker_verdict verdict, uint64_t now_ms);

/* The cooldown is over: half-open. Nothing happens unless it is open and not forced. */
void breaker_on_cooled(struct breaker *breaker, uint64_t now_ms);

/* A person's word. From forced open to automatic it half-opens, from forced closed it goes on
 * closed and empty. */
void breaker_force(struct breaker *breaker, enum breaker_mode mode, uint64_t now_ms);

/* What the rolling window holds. */
void breaker_window(const struct breaker *breaker, uint64_t now_ms, uint32_t *results,
                    uint32_t *failures);

#endif
