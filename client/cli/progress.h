/* SPDX-License-Identifier: MPL-2.0 */
/*
 * How far `treadle map` is, on stderr: a bar on a terminal, redrawn at most ten times a second,
 * else a line every ten seconds. Plain characters only: no colours, no control sequences but
 * carriage return. One thread.
 */
#ifndef TREADLE_CLI_PROGRESS_H
#define TREADLE_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRESS_TEXT_SIZE 512

struct progress_counts {
    uint64_t succeeded_count;
    uint64_t failed_count;
    uint64_t in_flight_count;
    uint64_t total_count; /* records of the whole input; 0: not known yet */
};

enum progress_kind { PROGRESS_NONE, PROGRESS_LINES, PROGRESS_BAR };

/* The fields belong to progress.c. */
struct progress {
    enum progress_kind kind;
    const char *name; /* SERVICE.TASK */
    uint64_t started_at_ms;
    uint64_t next_at_ms;
    uint64_t sampled_at_ms;
    uint64_t sampled_count;
    double rate;       /* records a second, the last seconds weighing most */
    size_t drawn_size; /* columns of the bar on the terminal; 0: none is there */
};

/* Chooses by what stderr is. The name is borrowed. */
void progress_init(struct progress *progress, const char *name, bool is_wanted, uint64_t now_ms);

/* Draws or prints if it is time to. */
void progress_on_time(struct progress *progress, const struct progress_counts *counts,
                      uint64_t now_ms);

/* When progress_on_time() is needed next; UINT64_MAX: never. */
uint64_t progress_next_at_ms(const struct progress *progress);

/* Takes the bar off the terminal, before something else is written to it; it comes back with the
 * next redraw. */
void progress_clear(struct progress *progress);

/* What a bar of so many columns shows. Returns out. */
const char *progress_print(char out[PROGRESS_TEXT_SIZE], const struct progress *progress,
                           const struct progress_counts *counts, size_t column_count);

#endif
