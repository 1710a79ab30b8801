/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/runs.h"

#include <signal.h>
#include <stdlib.h>

#include "common/base/assert.h"

/* A run's number is its place here, and above that a count that never comes again. */
#define PLACE_BITS      20
#define PLACE_COUNT_MAX (1U << PLACE_BITS)
#define PLACE_COUNT_MIN 64
#define PLACE_NONE      UINT32_MAX

struct place {
    uint64_t number; /* 0: free */
    struct run_link *link;
    pid_t pid;          /* 0: not known to be started */
    uint32_t next_free; /* PLACE_NONE: the last */
};

struct runs {
    struct zygote *zygote;
    struct place *places;
    uint32_t place_count;
    uint32_t first_free;
    uint64_t started_count;
};

struct runs *runs_create(struct zygote *zygote)
{
    struct runs *runs = calloc(1, sizeof(*runs));
    if (runs != NULL) {
        runs->zygote = zygote;
        runs->first_free = PLACE_NONE;
    }
    return runs;
}

void runs_destroy(struct runs **runs)
{
    if (*runs != NULL) {
        free((*runs)->places);
        free(*runs);
        *runs = NULL;
    }
}

int runs_fd(const struct runs *runs)
{
    return zygote_fd(runs->zygote);
}

/* ---- places ---- */

static void free_place(struct runs *runs, uint32_t index)
{
    runs->places[index] = (struct place){.next_free = runs->first_free};
    runs->first_free = index;
}

static bool grow(struct runs *runs)
{
    const uint32_t count = runs->place_count > 0 ? runs->place_count * 2 : PLACE_COUNT_MIN;
    if (count > PLACE_COUNT_MAX) {
        return false;
    }
    struct place *places = realloc(runs->places, count * sizeof(*places));
    if (places == NULL) {
        return false;
    }
    runs->places = places;
    for (uint32_t i = runs->place_count; i < count; i++) {
        free_place(runs, i);
    }
    runs->place_count = count;
    return true;
}

/* PLACE_NONE: the run has no owner (any more). */
static uint32_t find_place(const struct runs *runs, uint64_t number)
{
    const uint32_t index = (uint32_t)number & (PLACE_COUNT_MAX - 1);
    const bool is_there =
        number != 0 && index < runs->place_count && runs->places[index].number == number;
    return is_there ? index : PLACE_NONE;
}

/* ---- starting, ending ---- */

enum treadle_status runs_start(struct runs *runs, struct run_link *link, struct zygote_start *start)
{
    TREADLE_ASSERT(link->number == 0 && link->on_event != NULL);
    if (runs->first_free == PLACE_NONE && !grow(runs)) {
        return TREADLE_E_NOMEM;
    }
    const uint32_t index = runs->first_free;
    start->run = (runs->started_count + 1) << PLACE_BITS | index;
    const enum treadle_status status = zygote_start(runs->zygote, start);
    if (status == TREADLE_OK) {
        runs->started_count++;
        runs->first_free = runs->places[index].next_free;
        runs->places[index] = (struct place){.number = start->run, .link = link};
        link->number = start->run;
    }
    return status;
}

void runs_signal(struct runs *runs, const struct run_link *link, int signal_number)
{
    if (link->number != 0) {
        zygote_signal(runs->zygote, link->number, signal_number);
    }
}

void runs_abandon(struct runs *runs, struct run_link *link)
{
    const uint32_t index = find_place(runs, link->number);
    if (index != PLACE_NONE) {
        zygote_signal(runs->zygote, link->number, SIGKILL);
        free_place(runs, index);
    }
    link->number = 0;
}

/* ---- events ---- */

static void on_event(struct runs *runs, const struct zygote_event *event)
{
    const uint32_t index = find_place(runs, event->run);
    if (index == PLACE_NONE) {
        return;
    }
    struct run_link *link = runs->places[index].link;
    if (event->kind == ZYGOTE_EVENT_STARTED) {
        runs->places[index].pid = event->pid;
    } else {
        free_place(runs, index);
        link->number = 0;
    }
    link->on_event(link, event);
}

/* The zygote's runs die with it, but not what is in their groups, and nobody else is left to see to
 * that. */
static void on_gone(struct runs *runs)
{
    for (uint32_t i = 0; i < runs->place_count; i++) {
        const struct place place = runs->places[i];
        if (place.number == 0) {
            continue;
        }
        if (place.pid > 0) {
            (void)kill(-place.pid, SIGKILL);
        }
        free_place(runs, i);
        place.link->number = 0;
        place.link->on_event(place.link, &(struct zygote_event){
                                             .kind = ZYGOTE_EVENT_GONE,
                                             .run = place.number,
                                             .pid = place.pid,
                                         });
    }
}

void runs_on_ready(struct runs *runs)
{
    struct zygote_event event;
    while (zygote_next_event(runs->zygote, &event)) {
        if (event.kind == ZYGOTE_EVENT_GONE) {
            on_gone(runs);
        } else {
            on_event(runs, &event);
        }
    }
}
