/* SPDX-License-Identifier: MPL-2.0 */
/*
 * treadle-sim --seed N [--seeds COUNT] [--verbose]
 *
 * Runs simulated histories, each a function of its seed alone. Ends with a line of totals and 0, or
 * with the first violation and 1.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/sim.h"

/* The history under way, for assertions that fail in the code under test. */
static const struct sim *present;

static void print_place(const struct sim *sim)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "treadle-sim: seed %" PRIu64 ", at %" PRIu64 " ms%s: ", sim->seed,
                  sim->now_ms - STARTED_AT_MS, sim->is_calm ? " (calm)" : "");
}

static _Noreturn void end_badly(void)
{
    (void)fflush(stderr);
    _Exit(1); /* nothing is to be put in order, and leaks are none of the point */
}

void sim_violation(const struct sim *sim, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_place(sim);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    end_badly();
}

void sim_tell(const struct sim *sim, const char *format, ...)
{
    if (!sim->is_verbose) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    (void)printf("%8" PRIu64 " ", sim->now_ms - STARTED_AT_MS);
    (void)vprintf(format, arguments);
    (void)putchar('\n');
    va_end(arguments);
}

/* In place of the one in treadle_base: what fails belongs to a seed. */
_Noreturn void treadle_assert_failed(const char *expression, const char *file, int line)
{
    if (present != NULL) {
        print_place(present);
    }
    (void)fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expression);
    end_badly();
}

struct arguments {
    uint64_t seed;
    uint64_t count;
    bool is_verbose;
};

static bool parse_number(const char *text, uint64_t *number)
{
    char *end = NULL;
    if (text == NULL || *text < '0' || *text > '9') {
        return false;
    }
    *number = strtoull(text, &end, 10);
    return *end == '\0';
}

static bool parse(int argument_count, char **arguments, struct arguments *parsed)
{
    *parsed = (struct arguments){.seed = 1, .count = 1};
    for (int i = 1; i < argument_count; i++) {
        if (strcmp(arguments[i], "--verbose") == 0) {
            parsed->is_verbose = true;
            continue;
        }
        uint64_t *number = NULL;
        if (strcmp(arguments[i], "--seed") == 0) {
            number = &parsed->seed;
        } else if (strcmp(arguments[i], "--seeds") == 0) {
            number = &parsed->count;
        }
        if (number == NULL || !parse_number(arguments[i + 1], number)) {
            return false;
        }
        i++;
    }
    return parsed->count > 0;
}

static double seconds_now(void)
{
    struct timespec now;
    (void)timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argument_count, char **arguments)
{
    struct arguments parsed;
    if (!parse(argument_count, arguments, &parsed)) {
        (void)fputs("treadle-sim: usage: treadle-sim [--seed N] [--seeds COUNT] [--verbose]\n",
                    stderr);
        return 64;
    }
    struct sim *sim = calloc(1, sizeof *sim);
    if (sim == NULL) {
        return 1;
    }
    present = sim;
    sim->is_verbose = parsed.is_verbose;
    const double started = seconds_now();
    for (uint64_t i = 0; i < parsed.count; i++) {
        if (parsed.is_verbose) {
            (void)printf("seed %" PRIu64 "\n", parsed.seed + i);
            options_draw(&sim->options, parsed.seed + i);
            options_print(&sim->options);
        }
        history_run(sim, parsed.seed + i);
    }
    const double seconds = seconds_now() - started;
    (void)printf("treadle-sim: %" PRIu64 " seeds, %" PRIu64 " events, %" PRIu64
                 " steps of the core, %.0f events/s, trace %016" PRIx64 "\n",
                 parsed.count, sim->event_count, sim->step_count,
                 (double)sim->event_count / (seconds > 0 ? seconds : 1), sim->trace);
    history_free(sim);
    free(sim);
    return 0;
}
