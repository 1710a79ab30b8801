/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The memory that a supervisor shares with one child of its pool: a cell for each attempt handed to
 * it, a ring of bytes with what the child says, and a record of its crash.
 *
 * Cells. The supervisor puts an attempt into a free cell (QUEUED) and sends a hand-off that names
 * cell and generation. The child takes it (RUNNING) unless the supervisor took it back first: both
 * by compare-and-swap on one word, so an attempt is either recalled or run, never both. A cell
 * stays RUNNING until the supervisor has read its end from the ring: when a child dies and its ring
 * is read to the end, the RUNNING cells are those that died with it, the QUEUED ones are unharmed.
 *
 * Ring. Bytes of frames (handoff.h), from the child to the supervisor; visible the moment they are
 * put, so nothing a child has said is lost with it. A child that finds it full waits until there is
 * room, the supervisor never waits. The eventfd is written only if the supervisor said that it is
 * about to sleep, and only after as many puts as it asked for.
 *
 * What a child puts here is not trusted: its handlers share its memory. The supervisor checks
 * every number it reads, and copies before it looks.
 */
#ifndef TREADLE_WORKER_EXEC_PAGE_H
#define TREADLE_WORKER_EXEC_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"

#define PAGE_CELL_COUNT_MAX 4096
#define PAGE_RING_SIZE      262144 /* bytes; a power of two */

enum cell_state {
    CELL_FREE,
    CELL_QUEUED,
    CELL_RUNNING,
};

/* Written by the signal handler of a crashing child. */
struct crash_record {
    uint32_t is_set;
    int32_t signal;
    int32_t code;     /* si_code */
    uint32_t cell;    /* whose thread crashed; UINT32_MAX: none that runs an attempt */
    uint64_t address; /* that could not be touched, for SEGV and BUS; else 0 */
    uint64_t pc;
    uint32_t is_wild; /* pc itself is no code: there is no backtrace, return_address may tell */
    uint64_t return_address;
};

/* One side's view of the memory. Ends with page_close(). */
struct page;

/* ---- the supervisor's side ---- */

/* Makes the memory and its descriptor (memfd), which page_fd() gives. NULL: errno. */
struct page *page_create(uint32_t cell_count);

int page_fd(const struct page *page);

/* Nulls the pointer; NULL is fine. */
void page_close(struct page **page);

/* Puts an attempt into a cell: CELL_FREE becomes CELL_QUEUED. Returns the cell's new generation. */
uint32_t page_queue(struct page *page, uint32_t cell);

/* CELL_QUEUED becomes CELL_FREE: true. False: the child has taken it. */
bool page_recall(struct page *page, uint32_t cell);

/* The attempt's end has been read, or its child is dead. */
void page_free(struct page *page, uint32_t cell);

/* A cell that the child has damaged counts as RUNNING. */
enum cell_state page_state(const struct page *page, uint32_t cell);

/* CLOCK_MONOTONIC, us, as the child says; 0: not started. */
uint64_t page_started_at_us(const struct page *page, uint32_t cell);

/* Sets the cancel flag of whatever runs in the cell. */
void page_cancel(struct page *page, uint32_t cell);

/* Copies up to `size` bytes out of the ring and makes room; returns how many. */
size_t page_read(struct page *page, void *data, size_t size);

/* Whether page_read() would give nothing. */
bool page_is_empty(const struct page *page);

/* Whether page_read() has found that the child has damaged the ring: nothing more comes from it. */
bool page_is_damaged(const struct page *page);

/* About to sleep: the child writes the eventfd at the end of its `put_count`th put from now (at
 * least 1), or when the ring is full. False: something is in the ring. */
bool page_before_wait(struct page *page, uint32_t put_count);

/* A copy; is_set is 0 if there is none. */
struct crash_record page_crash(const struct page *page);

/* ---- the child's side ---- */

/* Maps what page_create() made at the other side, to put and read with. NULL: errno, or it is no
 * such memory (EINVAL). `event_fd` stays the caller's. */
struct page *page_open(int fd, int event_fd);

uint32_t page_cell_count(const struct page *page);

/* CELL_QUEUED of this generation becomes CELL_RUNNING, started now: true. False: it was recalled.
 */
bool page_take(struct page *page, uint32_t cell, uint32_t generation, uint64_t now_us);

/* Whether what runs in the cell was cancelled. From any thread. */
bool page_is_cancelled(const struct page *page, uint32_t cell);

/* Puts all bytes into the ring, waiting for room as long as it takes. One thread at a time. */
void page_put(struct page *page, const struct bytes *parts, size_t part_count);

/* Where the signal handler writes: fill it, is_set last. */
struct crash_record *page_crash_record(struct page *page);

#endif
