/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/page.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/assert.h"

#define PAGE_MAGIC      UINT64_C(0x74726c706167652e)
#define LINE_SIZE       64 /* bytes of a cache line: what two sides write is kept apart */
#define STATE_BITS      2
#define STATE_MASK      3U
#define GENERATION_MASK (UINT32_MAX >> STATE_BITS)

struct shared_cell {
    _Alignas(LINE_SIZE) _Atomic uint32_t word; /* generation << STATE_BITS | enum cell_state */
    _Atomic uint32_t cancelled;                /* the generation that was cancelled; 0: none */
    _Atomic uint64_t started_at_us;
};

/* The memory that both sides map. */
struct shared {
    uint64_t magic;
    uint32_t cell_count;
    uint32_t ring_size;
    _Alignas(LINE_SIZE) _Atomic uint64_t head;       /* bytes ever put, the child's */
    _Alignas(LINE_SIZE) _Atomic uint64_t tail;       /* bytes ever read, the supervisor's */
    _Alignas(LINE_SIZE) _Atomic uint32_t wake_after; /* puts until the eventfd is written; 0: no */
    _Alignas(LINE_SIZE) _Atomic uint32_t wants_room; /* futex: the child waits for room */
    _Alignas(LINE_SIZE) struct crash_record crash;
    _Alignas(LINE_SIZE) uint8_t ring[PAGE_RING_SIZE];
    struct shared_cell cells[];
};

/* What the supervisor needs to know for sure is kept here, out of the child's reach. */
struct page {
    struct shared *shared;
    size_t shared_size;
    int fd;       /* the supervisor's; -1 at the child's side */
    int event_fd; /* the child's */
    uint32_t cell_count;
    bool is_damaged;
    uint64_t position;      /* supervisor: tail; child: head */
    uint32_t generations[]; /* supervisor's only */
};

static size_t shared_size(uint32_t cell_count)
{
    return sizeof(struct shared) + cell_count * sizeof(struct shared_cell);
}

static struct page *view_create(uint32_t generation_count)
{
    struct page *page = calloc(1, sizeof(*page) + generation_count * sizeof(page->generations[0]));
    if (page != NULL) {
        page->fd = -1;
        page->event_fd = -1;
    }
    return page;
}

static bool map_shared(struct page *page, int fd, size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        return false;
    }
    page->shared = memory;
    page->shared_size = size;
    return true;
}

/* ---- the supervisor's side ---- */

/* Of a size that nobody can change: neither side can be made to touch what is not there. */
static int memory_open(size_t size)
{
    const int fd = memfd_create("treadle-page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd == -1) {
        return -1;
    }
    if (ftruncate(fd, (off_t)size) == -1 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == -1) {
        const int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

struct page *page_create(uint32_t cell_count)
{
    TREADLE_ASSERT(cell_count > 0 && cell_count <= PAGE_CELL_COUNT_MAX);
    struct page *page = view_create(cell_count);
    if (page == NULL) {
        return NULL;
    }
    page->cell_count = cell_count;
    page->fd = memory_open(shared_size(cell_count));
    if (page->fd == -1 || !map_shared(page, page->fd, shared_size(cell_count))) {
        const int error = errno;
        page_close(&page);
        errno = error;
        return NULL;
    }
    page->shared->cell_count = cell_count;
    page->shared->ring_size = PAGE_RING_SIZE;
    page->shared->magic = PAGE_MAGIC;
    return page;
}

int page_fd(const struct page *page)
{
    return page->fd;
}

void page_close(struct page **page)
{
    if (*page == NULL) {
        return;
    }
    if ((*page)->shared != NULL) {
        (void)munmap((*page)->shared, (*page)->shared_size);
    }
    if ((*page)->fd != -1) {
        close((*page)->fd);
    }
    free(*page);
    *page = NULL;
}

static struct shared_cell *cell_of(const struct page *page, uint32_t cell)
{
    TREADLE_ASSERT(cell < page->cell_count);
    return &page->shared->cells[cell];
}

static uint32_t word_of(uint32_t generation, enum cell_state state)
{
    return generation << STATE_BITS | (uint32_t)state;
}

uint32_t page_queue(struct page *page, uint32_t cell)
{
    struct shared_cell *shared = cell_of(page, cell);
    uint32_t generation = (page->generations[cell] + 1) & GENERATION_MASK;
    if (generation == 0) {
        generation = 1; /* 0 is "none was cancelled" */
    }
    page->generations[cell] = generation;
    atomic_store_explicit(&shared->started_at_us, 0, memory_order_relaxed);
    atomic_store_explicit(&shared->word, word_of(generation, CELL_QUEUED), memory_order_release);
    return generation;
}

bool page_recall(struct page *page, uint32_t cell)
{
    const uint32_t generation = page->generations[cell];
    uint32_t expected = word_of(generation, CELL_QUEUED);
    return atomic_compare_exchange_strong(&cell_of(page, cell)->word, &expected,
                                          word_of(generation, CELL_FREE));
}

void page_free(struct page *page, uint32_t cell)
{
    atomic_store_explicit(&cell_of(page, cell)->word, word_of(page->generations[cell], CELL_FREE),
                          memory_order_release);
}

enum cell_state page_state(const struct page *page, uint32_t cell)
{
    const uint32_t generation = page->generations[cell];
    const uint32_t word = atomic_load_explicit(&cell_of(page, cell)->word, memory_order_acquire);
    if (word == word_of(generation, CELL_QUEUED)) {
        return CELL_QUEUED;
    }
    return word == word_of(generation, CELL_FREE) ? CELL_FREE : CELL_RUNNING;
}

uint64_t page_started_at_us(const struct page *page, uint32_t cell)
{
    if (page_state(page, cell) != CELL_RUNNING) {
        return 0;
    }
    return atomic_load_explicit(&cell_of(page, cell)->started_at_us, memory_order_relaxed);
}

void page_cancel(struct page *page, uint32_t cell)
{
    atomic_store_explicit(&cell_of(page, cell)->cancelled, page->generations[cell],
                          memory_order_relaxed);
}

/* How many bytes there are to read; more than the ring has means that the child has written where
 * it should not. */
static size_t readable_size(const struct page *page)
{
    const uint64_t head = atomic_load(&page->shared->head);
    return page->is_damaged ? 0 : (size_t)(head - page->position);
}

static void give_room(struct page *page)
{
    atomic_store(&page->shared->tail, page->position);
    if (atomic_load(&page->shared->wants_room) != 0) {
        atomic_store(&page->shared->wants_room, 0);
        (void)syscall(SYS_futex, &page->shared->wants_room, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

size_t page_read(struct page *page, void *data, size_t size)
{
    const size_t there_size = readable_size(page);
    if (there_size > PAGE_RING_SIZE) {
        page->is_damaged = true;
        return 0;
    }
    const size_t read_size = size < there_size ? size : there_size;
    if (read_size == 0) {
        return 0;
    }
    const size_t start = (size_t)(page->position % PAGE_RING_SIZE);
    const size_t to_end_size = PAGE_RING_SIZE - start;
    const size_t first_size = read_size < to_end_size ? read_size : to_end_size;
    memcpy(data, page->shared->ring + start, first_size);
    memcpy((uint8_t *)data + first_size, page->shared->ring, read_size - first_size);
    page->position += read_size;
    give_room(page);
    return read_size;
}

bool page_is_empty(const struct page *page)
{
    return readable_size(page) == 0;
}

bool page_is_damaged(const struct page *page)
{
    return page->is_damaged;
}

bool page_before_wait(struct page *page, uint32_t put_count)
{
    TREADLE_ASSERT(put_count > 0);
    /* with the store of the head and the load of this in page_put(): one of the two sides sees
     * what the other has written */
    atomic_store(&page->shared->wake_after, put_count);
    return page_is_empty(page);
}

struct crash_record page_crash(const struct page *page)
{
    struct crash_record record;
    memcpy(&record, &page->shared->crash, sizeof(record));
    return record;
}

/* ---- the child's side ---- */

struct page *page_open(int fd, int event_fd)
{
    struct stat status;
    if (fstat(fd, &status) == -1) {
        return NULL;
    }
    if (!S_ISREG(status.st_mode) || (size_t)status.st_size < shared_size(1) ||
        (size_t)status.st_size > shared_size(PAGE_CELL_COUNT_MAX)) {
        errno = EINVAL;
        return NULL;
    }
    struct page *page = view_create(0);
    if (page == NULL) {
        return NULL;
    }
    if (!map_shared(page, fd, (size_t)status.st_size)) {
        const int error = errno;
        page_close(&page);
        errno = error;
        return NULL;
    }
    page->event_fd = event_fd;
    page->cell_count = page->shared->cell_count;
    page->position = atomic_load(&page->shared->head);
    if (page->shared->magic != PAGE_MAGIC || page->shared->ring_size != PAGE_RING_SIZE ||
        shared_size(page->cell_count) != page->shared_size) {
        page_close(&page);
        errno = EINVAL;
    }
    return page;
}

uint32_t page_cell_count(const struct page *page)
{
    return page->cell_count;
}

bool page_take(struct page *page, uint32_t cell, uint32_t generation, uint64_t now_us)
{
    if (cell >= page->cell_count) {
        return false;
    }
    struct shared_cell *shared = cell_of(page, cell);
    uint32_t expected = word_of(generation, CELL_QUEUED);
    if (atomic_load_explicit(&shared->word, memory_order_relaxed) != expected) {
        return false;
    }
    /* before the state, which says that it is there; if the recall wins, nobody looks at it */
    atomic_store_explicit(&shared->started_at_us, now_us, memory_order_relaxed);
    return atomic_compare_exchange_strong(&shared->word, &expected,
                                          word_of(generation, CELL_RUNNING));
}

bool page_is_cancelled(const struct page *page, uint32_t cell)
{
    struct shared_cell *shared = cell_of(page, cell);
    return atomic_load_explicit(&shared->cancelled, memory_order_relaxed) ==
           atomic_load_explicit(&shared->word, memory_order_relaxed) >> STATE_BITS;
}

static void write_event(const struct page *page)
{
    const uint64_t one = 1;
    ssize_t written;
    do {
        written = write(page->event_fd, &one, sizeof(one));
    } while (written == -1 && errno == EINTR);
}

/* The supervisor sleeps, and must read now. */
static void wake_at_once(struct page *page)
{
    if (atomic_exchange(&page->shared->wake_after, 0) != 0) {
        write_event(page);
    }
}

static size_t room_size(const struct page *page)
{
    const uint64_t used_size = page->position - atomic_load(&page->shared->tail);
    return used_size < PAGE_RING_SIZE ? (size_t)(PAGE_RING_SIZE - used_size) : 0;
}

/* Shows what was put so far, so that the supervisor can make room. */
static void wait_for_room(struct page *page)
{
    atomic_store(&page->shared->head, page->position);
    wake_at_once(page);
    while (room_size(page) == 0) {
        atomic_store(&page->shared->wants_room, 1);
        if (room_size(page) == 0) {
            (void)syscall(SYS_futex, &page->shared->wants_room, FUTEX_WAIT, 1, NULL, NULL, 0);
        }
    }
}

static void put_part(struct page *page, struct bytes part)
{
    while (part.size > 0) {
        size_t room = room_size(page);
        if (room == 0) {
            wait_for_room(page);
            room = room_size(page);
        }
        const size_t start = (size_t)(page->position % PAGE_RING_SIZE);
        size_t put_size = part.size < room ? part.size : room;
        put_size = put_size < PAGE_RING_SIZE - start ? put_size : PAGE_RING_SIZE - start;
        memcpy(page->shared->ring + start, part.data, put_size);
        page->position += put_size;
        part.data += put_size;
        part.size -= put_size;
    }
}

void page_put(struct page *page, const struct bytes *parts, size_t part_count)
{
    for (size_t i = 0; i < part_count; i++) {
        put_part(page, parts[i]);
    }
    atomic_store(&page->shared->head, page->position);
    if (atomic_load(&page->shared->wake_after) != 0 &&
        atomic_fetch_sub(&page->shared->wake_after, 1) == 1) {
        write_event(page);
    }
}

struct crash_record *page_crash_record(struct page *page)
{
    return &page->shared->crash;
}
