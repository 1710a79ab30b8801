/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/cli/output.h"
#include "common/base/span.h"

#define REDRAW_EVERY_MS 100
#define LINE_EVERY_MS   10000
#define SAMPLE_EVERY_MS 500
#define SAMPLE_WEIGHT   0.2
#define COLUMNS_DEFAULT 80
#define BAR_COLUMNS_MAX 30
#define BAR_COLUMNS_MIN 5
#define BAR_TEXT_SIZE   (BAR_COLUMNS_MAX + 4)
#define ETA_MAX_S       8640000.0 /* a hundred days: longer says nothing */

void progress_init(struct progress *progress, const char *name, bool is_wanted, uint64_t now_ms)
{
    bool is_terminal = isatty(STDERR_FILENO) == 1;

    *progress = (struct progress){
        .kind = !is_wanted    ? PROGRESS_NONE
                : is_terminal ? PROGRESS_BAR
                              : PROGRESS_LINES,
        .name = name,
        .started_at_ms = now_ms,
        .next_at_ms = now_ms + (is_terminal ? REDRAW_EVERY_MS : LINE_EVERY_MS),
        .sampled_at_ms = now_ms,
    };
}

static uint64_t done_count(const struct progress_counts *counts)
{
    return counts->succeeded_count + counts->failed_count;
}

static void sample(struct progress *progress, const struct progress_counts *counts, uint64_t now_ms)
{
    uint64_t span_ms = now_ms - progress->sampled_at_ms;

    if (span_ms < SAMPLE_EVERY_MS) {
        return;
    }
    double rate = (double)(done_count(counts) - progress->sampled_count) * 1000.0 / (double)span_ms;
    bool is_first = progress->sampled_at_ms == progress->started_at_ms;

    progress->rate =
        is_first ? rate : progress->rate * (1.0 - SAMPLE_WEIGHT) + rate * SAMPLE_WEIGHT;
    progress->sampled_at_ms = now_ms;
    progress->sampled_count = done_count(counts);
}

/* "12345 of 100000 done, 3 failed, 1000 in flight, 12345/s, ETA 7s" */
static void counts_print(char out[PROGRESS_TEXT_SIZE], const struct progress *progress,
                         const struct progress_counts *counts)
{
    char total[32] = "";
    char eta[SPAN_TEXT_SIZE + 8] = "";
    char rate[32] = "";

    if (counts->total_count > 0) {
        double left = (double)(counts->total_count - done_count(counts));
        double left_s = progress->rate > 0.0 ? left / progress->rate : ETA_MAX_S;
        char span[SPAN_TEXT_SIZE];

        snprintf(total, sizeof(total), " of %" PRIu64, counts->total_count);
        if (left_s < ETA_MAX_S) {
            span_print(span, sizeof(span), ((uint64_t)left_s + 1) * 1000);
            snprintf(eta, sizeof(eta), ", ETA %s", span);
        }
    }
    if (progress->rate > 0.0) {
        snprintf(rate, sizeof(rate), ", %.*f/s", progress->rate < 10.0 ? 1 : 0, progress->rate);
    }
    snprintf(out, PROGRESS_TEXT_SIZE,
             "%" PRIu64 "%s done, %" PRIu64 " failed, %" PRIu64 " in flight%s%s",
             done_count(counts), total, counts->failed_count, counts->in_flight_count, rate, eta);
}

/* "[#####.....] " for the share that is done, if it is known and there is room. */
static void bar_print(char out[BAR_TEXT_SIZE], const struct progress_counts *counts, size_t room)
{
    size_t width = room > BAR_COLUMNS_MAX ? BAR_COLUMNS_MAX : room;

    out[0] = '\0';
    if (counts->total_count == 0 || width < BAR_COLUMNS_MIN) {
        return;
    }
    double share = (double)done_count(counts) / (double)counts->total_count;
    size_t full = (size_t)(share * (double)width);

    if (full > width) {
        full = width;
    }
    memset(out, '.', width + 2);
    memset(out + 1, '#', full);
    out[0] = '[';
    out[width + 1] = ']';
    out[width + 2] = ' ';
    out[width + 3] = '\0';
}

const char *progress_print(char out[PROGRESS_TEXT_SIZE], const struct progress *progress,
                           const struct progress_counts *counts, size_t column_count)
{
    char text[PROGRESS_TEXT_SIZE];
    char bar[BAR_TEXT_SIZE];

    counts_print(text, progress, counts);
    size_t used = strlen(progress->name) + 2 + strlen(text) + 3;

    bar_print(bar, counts, column_count > used ? column_count - used : 0);
    snprintf(out, PROGRESS_TEXT_SIZE, "%.150s: %s%.300s", progress->name, bar, text);
    if (column_count < PROGRESS_TEXT_SIZE) {
        out[column_count] = '\0';
    }
    return out;
}

static size_t terminal_columns(void)
{
    struct winsize size = {0};

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == -1 || size.ws_col == 0) {
        return COLUMNS_DEFAULT;
    }
    return size.ws_col;
}

/* Draws over what is there; what the old one had more is blanked. */
static void draw(struct progress *progress, const char *text)
{
    size_t size = strlen(text);
    size_t blank = progress->drawn_size > size ? progress->drawn_size - size : 0;

    fprintf(stderr, "\r%s%*s%s", text, (int)blank, "", blank > 0 || size == 0 ? "\r" : "");
    if (blank > 0) {
        fputs(text, stderr); /* so that the cursor stands behind it */
    }
    fflush(stderr);
    progress->drawn_size = size;
}

void progress_on_time(struct progress *progress, const struct progress_counts *counts,
                      uint64_t now_ms)
{
    char text[PROGRESS_TEXT_SIZE];

    if (progress->kind == PROGRESS_NONE) {
        return;
    }
    sample(progress, counts, now_ms);
    if (now_ms < progress->next_at_ms) {
        return;
    }
    if (progress->kind == PROGRESS_BAR) {
        progress->next_at_ms = now_ms + REDRAW_EVERY_MS;
        draw(progress, progress_print(text, progress, counts, terminal_columns() - 1));
    } else {
        progress->next_at_ms = now_ms + LINE_EVERY_MS;
        counts_print(text, progress, counts);
        cli_note("map: %s: %s", progress->name, text);
    }
}

uint64_t progress_next_at_ms(const struct progress *progress)
{
    return progress->kind == PROGRESS_NONE ? UINT64_MAX : progress->next_at_ms;
}

void progress_clear(struct progress *progress)
{
    if (progress->drawn_size > 0) {
        draw(progress, "");
    }
}
