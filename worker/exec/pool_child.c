/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "worker/exec/functions.h"
#include "worker/exec/pool_state.h"

#define THREAD_COUNT_SHIFT 8      /* in the index of a child with threads */
#define INPUT_SIZE         65536  /* bytes read at once */
#define INPUT_SIZE_MAX     262144 /* more is given back when it is not needed any more */
#define TRACE_SIZE         16384
#define TRACE_READS        4
#define WRITE_SIZE_MAX     1048576 /* bytes named in one write, but for the first hand-off */

/* From one child in one round: more than there can be in the ring of a dead one. */
#define READ_SIZE_MAX (2 * (size_t)PAGE_RING_SIZE)

/* Beside the body in a report. */
#define REPORT_REST_SIZE_MAX (FRAME_SIZE_MAX - BODY_SIZE_LIMIT)

static void close_fd(int *fd)
{
    if (*fd != -1) {
        close(*fd);
        *fd = -1;
    }
}

/* ---- start and end ---- */

static void on_event(struct run_link *link, const struct zygote_event *event)
{
    struct child *child = container_of(link, struct child, run);
    if (event->kind != ZYGOTE_EVENT_STARTED) {
        child->has_ended = true;
        child->end = *event;
        child->pool->has_ended_child = true;
    }
}

static bool watch(struct pool *pool, int fd, uint32_t events, struct child *child)
{
    struct epoll_event event = {.events = events, .data.ptr = child};
    return epoll_ctl(pool->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static struct child *child_create(struct pool *pool)
{
    struct child *child = calloc(1, sizeof(*child));
    if (child == NULL) {
        return NULL;
    }
    child->pool = pool;
    child->run.on_event = on_event;
    child->socket_fd = -1;
    child->trace_fd = -1;
    child->heard_at_ms = pool_clock_us() / 1000;
    list_init(&child->unsent);
    list_init(&child->sent);
    child->cells = calloc(pool->cell_count, sizeof(struct entry *));
    child->free_cells = calloc(pool->cell_count, sizeof(uint32_t));
    child->input = malloc(INPUT_SIZE);
    child->input_capacity = INPUT_SIZE;
    child->page = page_create(pool->cell_count);
    if (child->cells == NULL || child->free_cells == NULL || child->input == NULL ||
        child->page == NULL) {
        return child; /* to be freed: it has no page or no memory */
    }
    child->free_count = pool->cell_count;
    for (uint32_t i = 0; i < pool->cell_count; i++) {
        child->free_cells[i] = pool->cell_count - 1 - i;
    }
    return child;
}

/* Taken out by hand: epoll keeps a file of which somebody else has a copy, and this child is gone.
 */
static void unwatch(const struct child *child, int fd)
{
    if (fd != -1) {
        (void)epoll_ctl(child->pool->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    }
}

static void child_destroy(struct child *child)
{
    unwatch(child, child->socket_fd);
    unwatch(child, child->trace_fd);
    close_fd(&child->socket_fd);
    close_fd(&child->trace_fd);
    page_close(&child->page);
    free(child->cells);
    free(child->free_cells);
    free(child->input);
    free(child->rest);
    free(child);
}

/* Opens both ends of what the child needs; `far` is its part. */
static bool open_channels(struct child *child, int far[2])
{
    int pair[2];
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == -1) {
        return false;
    }
    child->socket_fd = pair[0];
    far[0] = pair[1];
    if (pipe2(ends, O_CLOEXEC) == -1) {
        return false;
    }
    child->trace_fd = ends[0];
    far[1] = ends[1];
    return fcntl(child->socket_fd, F_SETFL, O_NONBLOCK) == 0 &&
           fcntl(child->trace_fd, F_SETFL, O_NONBLOCK) == 0 &&
           watch(child->pool, child->trace_fd, EPOLLIN, child);
}

static bool run_child(struct child *child, const int far[2])
{
    struct pool *pool = child->pool;
    struct zygote_start start = {
        .kind = ZYGOTE_CHILD,
        .index = pool->is_threaded
                     ? (uint32_t)POOL_CHILD_THREADS | pool->thread_count << THREAD_COUNT_SHIFT
                     : (uint32_t)POOL_CHILD_PROCESS,
        .fds = {far[0], page_fd(child->page), pool->event_fd, far[1]},
        .fd_count = 4,
        .memory_max = pool->memory_max,
    };
    const enum treadle_status status = runs_start(pool->runs, &child->run, &start);
    if (status == TREADLE_OK) {
        return true;
    }
    pool->is_gone = status == TREADLE_E_IO;
    pool->start_error = ENOMEM;
    snprintf(pool->start_text, sizeof(pool->start_text), "%s",
             pool->is_gone ? "the zygote is gone" : "memory is out");
    return false;
}

bool pool_child_start(struct pool *pool)
{
    int far[2] = {-1, -1};
    struct child *child = child_create(pool);
    if (child == NULL || child->free_count == 0 || !open_channels(child, far)) {
        pool->start_error = errno;
        snprintf(pool->start_text, sizeof(pool->start_text), "no process for the handler: %s",
                 strerrordesc_np(pool->start_error));
    } else if (run_child(child, far)) {
        pool->children[pool->child_count++] = child;
        child = NULL;
    }
    close_fd(&far[0]);
    close_fd(&far[1]);
    if (child != NULL) {
        child_destroy(child);
        return false;
    }
    return true;
}

void pool_child_free(struct child *child)
{
    struct pool *pool = child->pool;
    TREADLE_ASSERT(child->handed_count == 0);
    for (uint32_t i = 0; i < pool->child_count; i++) {
        if (pool->children[i] == child) {
            pool->children[i] = pool->children[--pool->child_count];
            break;
        }
    }
    runs_abandon(pool->runs, &child->run);
    child_destroy(child);
}

void pool_child_doom(struct child *child)
{
    child->state = CHILD_DOOMED;
    runs_signal(child->pool->runs, &child->run, SIGKILL);
}

/* ---- hand-offs ---- */

void pool_child_hand(struct child *child, struct entry *entry)
{
    TREADLE_ASSERT(child->free_count > 0);
    if (child->handed_count == 0) {
        child->tail.size = 0; /* what follows on its stderr is of this attempt, or of later ones */
        child->tail.is_cut = false;
        child->heard_at_ms = child->pool->now_ms;
    }
    const uint32_t cell = child->free_cells[--child->free_count];
    entry->child = child;
    entry->cell = cell;
    entry->generation = page_queue(child->page, cell);
    entry->is_sent = false;
    child->cells[cell] = entry;
    child->handed_count++;
    list_push_back(&child->unsent, &entry->link);
}

void pool_child_release(struct entry *entry)
{
    struct child *child = entry->child;
    list_remove(&entry->link);
    page_free(child->page, entry->cell);
    child->cells[entry->cell] = NULL;
    child->free_cells[child->free_count++] = entry->cell;
    child->handed_count--;
    if (entry->is_told) {
        child->told_count--;
    }
    entry->child = NULL;
    entry->is_told = false;
}

static void want_write(struct child *child, bool is_wanted)
{
    if (child->wants_write == is_wanted) {
        return;
    }
    if (is_wanted) { /* without the watch, the next round tries again */
        child->wants_write = watch(child->pool, child->socket_fd, EPOLLOUT, child);
    } else {
        child->wants_write = false;
        (void)epoll_ctl(child->pool->epoll_fd, EPOLL_CTL_DEL, child->socket_fd, NULL);
    }
}

/* The bytes of one hand-off, less what is written already. Returns how many parts. */
static size_t name_parts(const struct handoff *handoff, size_t written_size, struct iovec *parts)
{
    size_t count = 0;
    for (size_t i = 0; i < handoff->part_count; i++) {
        const struct bytes part = handoff->parts[i];
        const size_t skipped_size = written_size < part.size ? written_size : part.size;
        written_size -= skipped_size;
        if (part.size > skipped_size) {
            union {
                const uint8_t *from;
                void *base; /* iovec is for reading into, too */
            } start = {.from = part.data + skipped_size};
            parts[count++] = (struct iovec){start.base, part.size - skipped_size};
        }
    }
    return count;
}

/* The child finds the whole of a hand-off in its stream, or nothing: what is still to be written of
 * one that is taken back goes there from a copy. False: no memory for it. */
static bool keep_rest(struct child *child, const struct entry *entry)
{
    struct handoff *handoff = &child->pool->handoffs[0];
    struct iovec parts[HANDOFF_PART_COUNT];
    handoff_from_attempt(handoff, entry->attempt, entry->function, entry->cell, entry->generation);
    const size_t count = name_parts(handoff, child->written_size, parts);
    uint8_t *next = malloc(handoff->size - child->written_size);
    if (next == NULL) {
        return false;
    }
    child->rest = next;
    child->rest_size = handoff->size - child->written_size;
    child->rest_written_size = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(next, parts[i].iov_base, parts[i].iov_len);
        next += parts[i].iov_len;
    }
    return true;
}

static void drop_rest(struct child *child)
{
    free(child->rest);
    child->rest = NULL;
}

bool pool_child_recall(struct entry *entry)
{
    struct child *child = entry->child;
    const bool is_half_written = child->written_size > 0 && child->unsent.next == &entry->link;
    if (is_half_written && !keep_rest(child, entry)) {
        return false;
    }
    if (!page_recall(child->page, entry->cell)) {
        if (is_half_written) {
            drop_rest(child);
        }
        return false;
    }
    if (is_half_written) {
        child->written_size = 0;
    }
    pool_child_release(entry);
    return true;
}

bool pool_child_is_unwritten(const struct child *child)
{
    return child->rest != NULL || !list_is_empty(&child->unsent);
}

/* Names the first unsent hand-offs for one write. Returns how many parts. */
static size_t name_unsent(struct child *child, struct iovec *parts)
{
    struct pool *pool = child->pool;
    const struct list *head = &child->unsent;
    size_t part_count = 0;
    size_t size = 0;
    uint32_t count = 0;
    for (struct list *link = list_first(head);
         link != NULL && count < HANDOFF_COUNT_MAX && size < WRITE_SIZE_MAX;
         link = list_next(head, link)) {
        const struct entry *entry = container_of(link, struct entry, link);
        struct handoff *handoff = &pool->handoffs[count];
        handoff_from_attempt(handoff, entry->attempt, entry->function, entry->cell,
                             entry->generation);
        part_count += name_parts(handoff, count == 0 ? child->written_size : 0, parts + part_count);
        size += handoff->size;
        count++;
    }
    return part_count;
}

/* Moves what has been written on; pool->handoffs are those that were named. */
static void on_written(struct child *child, size_t size)
{
    const struct handoff *handoff = child->pool->handoffs;
    struct list *link;
    size += child->written_size;
    while ((link = list_first(&child->unsent)) != NULL && size >= handoff->size) {
        list_remove(link);
        container_of(link, struct entry, link)->is_sent = true;
        list_push_back(&child->sent, link);
        size -= handoff->size;
        handoff++;
        if (size == 0) {
            break; /* what follows was not named, perhaps */
        }
    }
    child->written_size = size;
}

/* Writes what goes at once of the rest, or of the first hand-offs. False: errno. */
static bool write_some(struct child *child)
{
    struct iovec parts[HANDOFF_COUNT_MAX * HANDOFF_PART_COUNT];
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 1};
    if (child->rest != NULL) {
        parts[0] = (struct iovec){child->rest + child->rest_written_size,
                                  child->rest_size - child->rest_written_size};
    } else {
        message.msg_iovlen = name_unsent(child, parts);
    }
    ssize_t written;
    do {
        written = sendmsg(child->socket_fd, &message, MSG_NOSIGNAL);
    } while (written == -1 && errno == EINTR);
    if (written == -1) {
        return false;
    }
    if (child->rest == NULL) {
        on_written(child, (size_t)written);
        return true;
    }
    child->rest_written_size += (size_t)written;
    if (child->rest_written_size == child->rest_size) {
        drop_rest(child);
    }
    return true;
}

void pool_child_flush(struct child *child)
{
    while (pool_child_is_unwritten(child)) {
        if (!write_some(child)) {
            /* all other errors: it has ended, of which the zygote tells */
            want_write(child, errno == EAGAIN);
            return;
        }
    }
    want_write(child, false);
}

/* ---- what it says ---- */

static void on_unfit(struct child *child, struct bytes text)
{
    const size_t size = text.size < sizeof(child->text) - 1 ? text.size : sizeof(child->text) - 1;
    if (size > 0) {
        memcpy(child->text, text.data, size);
    }
    child->text[size] = '\0';
    pool_child_doom(child); /* it ends by itself, if it is as it should be */
}

static bool is_report(uint32_t kind)
{
    return kind == FRAME_SUCCESS || kind == FRAME_FAILURE || kind == FRAME_PROGRESS;
}

/* The attempt that a report is about; NULL: there is none that runs. */
static struct entry *entry_of(const struct child *child, const struct frame_header *header)
{
    struct entry *entry =
        header->cell < child->pool->cell_count ? child->cells[header->cell] : NULL;
    return entry != NULL && entry->generation == header->generation && entry->is_sent &&
                   page_state(child->page, entry->cell) == CELL_RUNNING
               ? entry
               : NULL;
}

/* Whether there can be such a frame, before all of it is there. */
static bool is_frame_sound(const struct child *child, const struct frame_header *header)
{
    switch (header->kind) {
    case FRAME_READY:
        return header->size == 0;
    case FRAME_UNFIT:
        return header->size <= INPUT_SIZE - sizeof(*header);
    case FRAME_SUCCESS:
        return header->size <= FRAME_SIZE_MAX && entry_of(child, header) != NULL;
    case FRAME_FAILURE:
    case FRAME_PROGRESS:
        return header->size <= REPORT_REST_SIZE_MAX && entry_of(child, header) != NULL;
    default:
        return false;
    }
}

static bool is_over_limit(const struct entry *entry, const struct frame_header *header)
{
    return header->kind == FRAME_SUCCESS && header->size > REPORT_REST_SIZE_MAX &&
           header->size - REPORT_REST_SIZE_MAX > entry->attempt->result_size_max;
}

static bool on_frame(struct child *child, const struct frame_header *header, struct bytes data)
{
    if (header->kind == FRAME_READY) {
        if (child->state == CHILD_STARTING) {
            child->state = CHILD_READY;
        }
        return true;
    }
    if (header->kind == FRAME_UNFIT) {
        on_unfit(child, data);
        return true;
    }
    return pool_on_report(entry_of(child, header), (enum frame_kind)header->kind, data);
}

/* The first frame of `data`: returns the bytes it takes, 0 if it is not all there. */
static size_t take_frame(struct child *child, struct bytes data)
{
    struct frame_header header;
    if (child->dropped_size > 0) {
        const size_t size =
            child->dropped_size < data.size ? (size_t)child->dropped_size : data.size;
        child->dropped_size -= size;
        return size;
    }
    if (data.size < sizeof(header)) {
        return 0;
    }
    memcpy(&header, data.data, sizeof(header));
    if (!is_frame_sound(child, &header)) {
        child->is_damaged = true;
        return 0;
    }
    struct entry *entry = is_report(header.kind) ? entry_of(child, &header) : NULL;
    if (entry != NULL && is_over_limit(entry, &header)) {
        child->dropped_size = header.size;
        pool_on_dropped(entry, true);
        return sizeof(header);
    }
    if (data.size - sizeof(header) < header.size) {
        return 0;
    }
    const struct bytes rest = {data.data + sizeof(header), header.size};
    if (!on_frame(child, &header, rest)) {
        child->is_damaged = true;
        return 0;
    }
    return sizeof(header) + header.size;
}

/* Returns the number of whole frames. */
static uint32_t take_frames(struct child *child)
{
    uint32_t count = 0;
    size_t used = 0;
    while (used < child->input_size && !child->is_damaged) {
        const struct bytes data = {child->input + used, child->input_size - used};
        const size_t taken = take_frame(child, data);
        if (taken == 0) {
            break;
        }
        used += taken;
        count++;
    }
    child->input_size -= used;
    if (used > 0 && child->input_size > 0) {
        memmove(child->input, child->input + used, child->input_size);
    }
    return count;
}

static bool resize_input(struct child *child, size_t capacity)
{
    TREADLE_ASSERT(capacity > 0);
    uint8_t *input = realloc(child->input, capacity);
    if (input == NULL) {
        return false;
    }
    child->input = input;
    child->input_capacity = capacity;
    return true;
}

/* Makes room for more of the frame that has begun, never beyond its end. */
static void fit_input(struct child *child)
{
    struct frame_header header;
    if (child->input_size == 0 && child->input_capacity > INPUT_SIZE_MAX) {
        (void)resize_input(child, INPUT_SIZE);
    }
    if (child->input_size < child->input_capacity) {
        return;
    }
    memcpy(&header, child->input, sizeof(header));
    const size_t frame_size = sizeof(header) + header.size;
    const size_t doubled = 2 * child->input_capacity;
    if (resize_input(child, doubled < frame_size ? doubled : frame_size)) {
        return;
    }
    struct entry *entry = entry_of(child, &header);
    child->dropped_size = frame_size - child->input_size;
    child->input_size = 0;
    if (entry != NULL) {
        pool_on_dropped(entry, false);
    }
}

uint32_t pool_child_read(struct child *child)
{
    uint32_t frame_count = 0;
    size_t read_size = 0;
    size_t size;
    if (child->is_damaged) {
        return 0;
    }
    do {
        fit_input(child);
        size = page_read(child->page, child->input + child->input_size,
                         child->input_capacity - child->input_size);
        child->input_size += size;
        read_size += size;
        frame_count += take_frames(child);
        child->is_damaged = child->is_damaged || page_is_damaged(child->page);
    } while (size > 0 && !child->is_damaged && read_size < READ_SIZE_MAX);
    if (frame_count > 0) {
        child->heard_at_ms = child->pool->now_ms;
    }
    if (child->is_damaged && child->state != CHILD_DOOMED) {
        pool_child_doom(child);
    }
    return frame_count;
}

/* ---- its stderr ---- */

/* For a person to see; nobody waits for a reader. */
static void print_line(struct child *child)
{
    struct pollfd output = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&output, 1, 0) == 1 && (output.revents & POLLOUT) != 0) {
        (void)log_put(child->line, child->line_size);
    }
    child->line_size = 0;
}

static void print_lines(struct child *child, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        child->line[child->line_size++] = (char)data[i];
        if (data[i] != '\n' && child->line_size == sizeof(child->line) - 1) {
            child->line[child->line_size++] = '\n';
        }
        if (child->line[child->line_size - 1] == '\n') {
            print_line(child);
        }
    }
}

static void close_trace(struct child *child)
{
    (void)epoll_ctl(child->pool->epoll_fd, EPOLL_CTL_DEL, child->trace_fd, NULL);
    close_fd(&child->trace_fd);
    if (child->line_size > 0) {
        child->line[child->line_size++] = '\n';
        print_line(child);
    }
}

bool pool_child_read_trace(struct child *child)
{
    uint8_t data[TRACE_SIZE];
    for (int i = 0; i < TRACE_READS && child->trace_fd != -1; i++) {
        const ssize_t size = read(child->trace_fd, data, sizeof(data));
        if (size > 0) {
            trace_tail_add(&child->tail, data, (size_t)size);
            print_lines(child, data, (size_t)size);
        } else if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
            close_trace(child);
        } else if (errno == EAGAIN) {
            return false;
        }
    }
    return child->trace_fd != -1;
}
