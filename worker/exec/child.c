/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A child of the pool: takes attempts off a stream, runs them one after the other, or in threads,
 * and says how they ended. It trusts its supervisor, which is of the same build.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "worker/context.h"
#include "worker/exec/adopted.h"
#include "worker/exec/crash.h"
#include "worker/exec/functions.h"
#include "worker/exec/handoff.h"
#include "worker/exec/page.h"
#include "worker/exec/plugin.h"

#define STREAM_CAPACITY_MIN  65536
#define STREAM_CAPACITY_KEPT 1048576 /* a larger buffer is given back once it is empty */
#define USAGE_LAG_US         1000    /* run time that the measured usage may lag behind: its unit */

/* Set in a copy that a handler forked: the attempt is the original's to report. */
static atomic_bool is_copy;

static void on_forked(void)
{
    atomic_store(&is_copy, true);
    crash_forget();
}

struct child {
    const struct function_sources *sources;
    struct function_table table;
    struct page *page;
    struct adopted adopted;
    bool is_threaded;
    pthread_mutex_t put_lock; /* when is_threaded: the ring takes one thread at a time */
};

/* What runs attempts: the process, or one of its threads. */
struct runner {
    struct child *child;
    treadle_context *context;
    uint32_t cell;
    uint32_t generation;
    struct crash_place place;
    struct rusage usage;   /* of the thread, as last measured */
    uint64_t usage_lag_us; /* what ran since */
};

/* ---- what the child says ---- */

static void put(struct child *child, const struct bytes *parts, size_t part_count)
{
    if (child->is_threaded) {
        (void)pthread_mutex_lock(&child->put_lock);
    }
    page_put(child->page, parts, part_count);
    if (child->is_threaded) {
        (void)pthread_mutex_unlock(&child->put_lock);
    }
}

static void put_text(struct child *child, enum frame_kind kind, const char *text)
{
    const struct frame_header header = {
        .size = (uint32_t)strlen(text),
        .kind = (uint16_t)kind,
    };
    const struct bytes parts[] = {
        {(const uint8_t *)(const void *)&header, sizeof(header)},
        bytes_from_text(text),
    };
    put(child, parts, header.size > 0 ? 2 : 1);
}

static void put_report(struct child *child, enum frame_kind kind, const struct report *report,
                       uint32_t cell, uint32_t generation)
{
    struct report_parts parts;
    report_write(&parts, kind, report, cell, generation);
    put(child, parts.parts, parts.part_count);
}

/* What has changed of the meta since it was last sent. */
static void add_meta(struct runner *runner, struct report *report,
                     struct handoff_meta items[META_COUNT_MAX])
{
    const struct treadle_meta *meta = NULL;
    size_t count = 0;
    if (!context_take_meta(runner->context, &meta, &count)) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        items[i].name = bytes_from_text(meta[i].name);
        items[i].value = (struct bytes){meta[i].value, meta[i].value_size};
    }
    report->has_meta = true;
    report->meta = items;
    report->meta_count = (uint32_t)count;
}

/* ---- what a context asks of its runner ---- */

static bool is_cancelled(void *owner)
{
    const struct runner *runner = owner;
    return page_is_cancelled(runner->child->page, runner->cell);
}

static void on_progress(void *owner)
{
    struct runner *runner = owner;
    struct handoff_meta items[META_COUNT_MAX];
    struct report report = {.duration_us = 0};
    if (atomic_load_explicit(&is_copy, memory_order_relaxed)) {
        return;
    }
    add_meta(runner, &report, items);
    put_report(runner->child, FRAME_PROGRESS, &report, runner->cell, runner->generation);
}

static void on_returned(void *owner)
{
    (void)owner;
    if (atomic_load_explicit(&is_copy, memory_order_relaxed)) {
        _exit(EXIT_SUCCESS);
    }
}

/* ---- resource use ---- */

static uint64_t span_ms(const struct timeval *from, const struct timeval *to)
{
    const int64_t span_us =
        (int64_t)(to->tv_sec - from->tv_sec) * 1000000 + (int64_t)(to->tv_usec - from->tv_usec);
    return span_us > 0 ? (uint64_t)span_us / 1000 : 0;
}

static void measure(struct runner *runner)
{
    (void)getrusage(RUSAGE_THREAD, &runner->usage);
    runner->usage_lag_us = 0;
}

static void add_usage(struct runner *runner, struct report *report)
{
    const struct rusage before = runner->usage;
    measure(runner);
    report->user_ms = span_ms(&before.ru_utime, &runner->usage.ru_utime);
    report->system_ms = span_ms(&before.ru_stime, &runner->usage.ru_stime);
    report->max_rss_kib = (uint64_t)runner->usage.ru_maxrss;
}

/* ---- attempts ---- */

static bool runner_open(struct runner *runner, struct child *child)
{
    const struct context_config config = {
        .worker = child->sources->worker,
        .broker = child->sources->broker,
        .identity = child->sources->identity,
        .server_key = child->sources->server_key,
        .has_client = true,
        .owner = runner,
        .is_cancelled = is_cancelled,
        .on_progress = on_progress,
        .on_returned = on_returned,
    };
    *runner = (struct runner){
        .child = child,
        .place = {.cell = UINT32_MAX},
        .context = context_create(&config),
    };
    return runner->context != NULL;
}

/* In the thread that will run it. */
static void runner_enter(struct runner *runner)
{
    crash_set_place(&runner->place);
    measure(runner);
}

/* In the same thread. */
static void runner_leave(struct runner *runner)
{
    crash_set_place(NULL);
    context_destroy(&runner->context);
}

static void tell_end(struct runner *runner, const struct context_end *end, uint64_t duration_us)
{
    struct handoff_meta items[META_COUNT_MAX];
    struct report report = {
        .duration_us = duration_us < SPAN_MAX_MS ? duration_us : SPAN_MAX_MS,
        .body = end->body,
    };
    add_meta(runner, &report, items);
    runner->usage_lag_us += duration_us;
    if (!end->is_success) {
        report.kind = end->kind;
        report.choice = end->choice;
        report.retry_delay_ms = end->retry_delay_ms;
        report.name = end->name;
        report.message = end->message;
        report.trace = end->trace;
        add_usage(runner, &report);
    } else if (runner->usage_lag_us >= USAGE_LAG_US) {
        measure(runner);
    }
    put_report(runner->child, end->is_success ? FRAME_SUCCESS : FRAME_FAILURE, &report,
               runner->cell, runner->generation);
}

/* Runs what a frame brought, unless it was taken back. Returns the time at its end. */
static uint64_t run_attempt(struct runner *runner, const struct frame_header *header,
                            struct bytes data, uint64_t now_us)
{
    struct worker_attempt attempt;
    struct context_end end;
    const bool is_sound = header->kind == FRAME_ATTEMPT &&
                          header->handler < runner->child->table.function_count &&
                          handoff_read(&attempt, data);
    TREADLE_ASSERT(is_sound);
    if (!page_take(runner->child->page, header->cell, header->generation, now_us)) {
        return now_us;
    }
    runner->cell = header->cell;
    runner->generation = header->generation;
    runner->place.service = attempt.service;
    runner->place.task = attempt.task;
    runner->place.cell = header->cell;
    context_run(runner->context, &runner->child->table.functions[header->handler].handler, &attempt,
                now_us, &end);
    runner->place.cell = UINT32_MAX;
    if (__fpending(stdout) > 0) { /* a line without its end is not to wait for the next attempt */
        (void)fflush(stdout);
    }
    const uint64_t ended_at_us = context_now_us();
    tell_end(runner, &end, ended_at_us > now_us ? ended_at_us - now_us : 0);
    return ended_at_us;
}

/* The attempt has no room in the memory that this process may have. */
static void fail_for_memory(struct child *child, const struct frame_header *header)
{
    char message[96];
    struct report report = {
        .kind = FAILURE_TRANSIENT,
        .name = bytes_from_text("memory"),
    };
    if (!page_take(child->page, header->cell, header->generation, context_now_us())) {
        return;
    }
    (void)snprintf(message, sizeof(message), "no memory to take in the task of %lu bytes",
                   (unsigned long)header->size);
    report.message = bytes_from_text(message);
    put_report(child, FRAME_FAILURE, &report, header->cell, header->generation);
}

/* ---- the stream of hand-offs ---- */

struct stream {
    int fd;
    uint8_t *data;
    size_t capacity;
    size_t start; /* of what was not taken yet */
    size_t end;
    size_t skip_size; /* bytes still to come that nobody wants */
    bool has_waited;  /* a read has happened since this was last set to false */
};

enum stream_state {
    STREAM_FRAME,
    STREAM_NO_MEMORY, /* for the frame of this header, which is passed over */
    STREAM_END,
};

/* Room for a frame of `size` bytes from the start on; gives back what a large one took. */
static bool stream_reserve(struct stream *stream, size_t size)
{
    const size_t unread_size = stream->end - stream->start;
    if (stream->start > 0) {
        memmove(stream->data, stream->data + stream->start, unread_size);
        stream->start = 0;
        stream->end = unread_size;
    }
    const size_t wanted = size > STREAM_CAPACITY_MIN ? size : STREAM_CAPACITY_MIN;
    const bool is_too_large = stream->capacity > STREAM_CAPACITY_KEPT &&
                              wanted <= STREAM_CAPACITY_KEPT && unread_size <= wanted;
    if (stream->capacity >= wanted && !is_too_large) {
        return true;
    }
    uint8_t *data = realloc(stream->data, wanted);
    if (data == NULL) {
        return wanted <= stream->capacity;
    }
    stream->data = data;
    stream->capacity = wanted;
    return true;
}

/* False at the end of the stream. */
static bool stream_fill(struct stream *stream)
{
    for (;;) {
        const ssize_t size =
            read(stream->fd, stream->data + stream->end, stream->capacity - stream->end);
        if (size > 0) {
            stream->end += (size_t)size;
            stream->has_waited = true;
            return true;
        }
        if (size == 0 || errno != EINTR) {
            return false;
        }
    }
}

static void stream_skip(struct stream *stream)
{
    const size_t unread_size = stream->end - stream->start;
    const size_t size = unread_size < stream->skip_size ? unread_size : stream->skip_size;
    stream->start += size;
    stream->skip_size -= size;
}

/* Waits for the next frame. Its data is valid until the next call. */
static enum stream_state stream_next(struct stream *stream, struct frame_header *header,
                                     struct bytes *data)
{
    for (;;) {
        size_t wanted_size = sizeof(*header);
        stream_skip(stream);
        const size_t unread_size = stream->end - stream->start;
        if (unread_size >= sizeof(*header)) {
            memcpy(header, stream->data + stream->start, sizeof(*header));
            TREADLE_ASSERT(header->size <= FRAME_SIZE_MAX);
            wanted_size += header->size;
        }
        if (unread_size >= sizeof(*header) && unread_size >= wanted_size) {
            *data = (struct bytes){stream->data + stream->start + sizeof(*header), header->size};
            stream->start += wanted_size;
            return STREAM_FRAME;
        }
        if (!stream_reserve(stream, wanted_size)) {
            stream->skip_size = wanted_size;
            return STREAM_NO_MEMORY;
        }
        if (!stream_fill(stream)) {
            return STREAM_END;
        }
    }
}

/* ---- one after the other ---- */

static void run_here(struct child *child, struct stream *stream, struct runner *runner)
{
    struct frame_header header = {0};
    struct bytes data = {0};
    uint64_t now_us = 0;
    for (;;) {
        const enum stream_state state = stream_next(stream, &header, &data);
        if (state == STREAM_END) {
            return;
        }
        if (state == STREAM_NO_MEMORY) {
            fail_for_memory(child, &header);
            continue;
        }
        if (stream->has_waited) { /* else it is the time at the end of the attempt before */
            stream->has_waited = false;
            now_us = context_now_us();
        }
        now_us = run_attempt(runner, &header, data, now_us);
        adopted_reap(&child->adopted, now_us);
    }
}

static bool run_process(struct child *child, struct stream *stream)
{
    struct runner runner;
    if (!runner_open(&runner, child)) {
        put_text(child, FRAME_UNFIT, "no memory to run handlers");
        return false;
    }
    runner_enter(&runner);
    put_text(child, FRAME_READY, "");
    run_here(child, stream, &runner);
    runner_leave(&runner);
    return true;
}

/* ---- in threads ---- */

struct waiting {
    struct frame_header header;
    uint8_t data[];
};

/* The threads, and a ring of what waits for them: never more than there are cells. */
struct crew {
    struct child *child;
    pthread_mutex_t lock;
    pthread_cond_t has_work;
    pthread_cond_t has_room;
    struct waiting **queue;
    size_t capacity;
    size_t first;
    size_t count;
    size_t idle_count; /* threads that wait for work */
    bool is_ending;    /* once the queue is empty */
    struct crew_thread *threads;
    size_t thread_count; /* that were started */
};

struct crew_thread {
    struct crew *crew;
    pthread_t thread;
    struct runner runner;
};

/* NULL: it is over. */
static struct waiting *crew_take(struct crew *crew)
{
    struct waiting *waiting = NULL;
    (void)pthread_mutex_lock(&crew->lock);
    crew->idle_count++;
    while (crew->count == 0 && !crew->is_ending) {
        (void)pthread_cond_wait(&crew->has_work, &crew->lock);
    }
    crew->idle_count--;
    if (crew->count > 0) {
        waiting = crew->queue[crew->first];
        crew->first = (crew->first + 1) % crew->capacity;
        if (crew->count-- == crew->capacity) {
            (void)pthread_cond_signal(&crew->has_room);
        }
    }
    (void)pthread_mutex_unlock(&crew->lock);
    return waiting;
}

static void crew_give(struct crew *crew, struct waiting *waiting)
{
    (void)pthread_mutex_lock(&crew->lock);
    while (crew->count == crew->capacity) {
        (void)pthread_cond_wait(&crew->has_room, &crew->lock);
    }
    crew->queue[(crew->first + crew->count) % crew->capacity] = waiting;
    crew->count++;
    if (crew->idle_count > 0) {
        (void)pthread_cond_signal(&crew->has_work);
    }
    (void)pthread_mutex_unlock(&crew->lock);
}

static void *thread_main(void *argument)
{
    struct crew_thread *thread = argument;
    struct waiting *waiting = NULL;
    (void)crash_thread_open(); /* without it, only a stack overflow leaves no record */
    runner_enter(&thread->runner);
    while ((waiting = crew_take(thread->crew)) != NULL) {
        (void)run_attempt(&thread->runner, &waiting->header,
                          (struct bytes){waiting->data, waiting->header.size}, context_now_us());
        free(waiting);
    }
    runner_leave(&thread->runner);
    crash_thread_close();
    return NULL;
}

static bool crew_open(struct crew *crew, struct child *child, size_t thread_count)
{
    *crew = (struct crew){
        .child = child,
        .capacity = page_cell_count(child->page),
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .has_work = PTHREAD_COND_INITIALIZER,
        .has_room = PTHREAD_COND_INITIALIZER,
    };
    crew->queue = calloc(crew->capacity, sizeof(struct waiting *));
    crew->threads = calloc(thread_count, sizeof(*crew->threads));
    if (crew->queue == NULL || crew->threads == NULL) {
        return false;
    }
    while (crew->thread_count < thread_count) {
        struct crew_thread *thread = &crew->threads[crew->thread_count];
        thread->crew = crew;
        if (!runner_open(&thread->runner, child)) {
            return false;
        }
        if (pthread_create(&thread->thread, NULL, thread_main, thread) != 0) {
            context_destroy(&thread->runner.context);
            return false;
        }
        crew->thread_count++;
    }
    return true;
}

/* Waits until all is done that was given. */
static void crew_close(struct crew *crew)
{
    (void)pthread_mutex_lock(&crew->lock);
    crew->is_ending = true;
    (void)pthread_cond_broadcast(&crew->has_work);
    (void)pthread_mutex_unlock(&crew->lock);
    for (size_t i = 0; i < crew->thread_count; i++) {
        (void)pthread_join(crew->threads[i].thread, NULL);
    }
    free(crew->threads);
    free(crew->queue);
}

static void hand_to_crew(struct crew *crew, struct stream *stream)
{
    struct frame_header header = {0};
    struct bytes data = {0};
    for (;;) {
        struct waiting *waiting = NULL;
        const enum stream_state state = stream_next(stream, &header, &data);
        if (state == STREAM_END) {
            return;
        }
        if (state == STREAM_FRAME) {
            waiting = malloc(sizeof(*waiting) + header.size);
        }
        if (waiting == NULL) {
            fail_for_memory(crew->child, &header);
            continue;
        }
        if (stream->has_waited) {
            stream->has_waited = false;
            adopted_reap(&crew->child->adopted, context_now_us());
        }
        waiting->header = header;
        if (header.size > 0) {
            memcpy(waiting->data, data.data, header.size);
        }
        crew_give(crew, waiting);
    }
}

static bool run_threads(struct child *child, struct stream *stream, size_t thread_count)
{
    struct crew crew;
    const bool is_open = crew_open(&crew, child, thread_count);
    if (is_open) {
        put_text(child, FRAME_READY, "");
        hand_to_crew(&crew, stream);
    } else {
        put_text(child, FRAME_UNFIT, "no memory for the threads that run handlers");
    }
    crew_close(&crew);
    return is_open;
}

/* ---- the child ---- */

/* Both outputs go where the supervisor reads; a signal meant for the worker (of a terminal, of a
 * service manager) is none of a handler's business, and a closed pipe is an error that it can see.
 */
static void set_up_process(int stderr_fd)
{
    static const int ignored[] = {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    sigset_t none;
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++) {
        (void)signal(ignored[i], SIG_IGN);
    }
    (void)signal(SIGCHLD, SIG_DFL);
    (void)sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
    __fpurge(stdout); /* what was written before the fork is the supervisor's to flush */
    (void)dup2(stderr_fd, STDOUT_FILENO);
    (void)dup2(stderr_fd, STDERR_FILENO);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    (void)pthread_atfork(NULL, NULL, on_forked);
}

/* What handlers start must not hold a descriptor of ours open. */
static void keep_from_programs(const struct zygote_child *child)
{
    for (uint32_t i = 0; i < child->fd_count; i++) {
        if (child->fds[i] > STDERR_FILENO) {
            (void)fcntl(child->fds[i], F_SETFD, FD_CLOEXEC);
        }
    }
}

static int serve(struct child *child, int stream_fd, size_t thread_count)
{
    char text[FUNCTION_TEXT_SIZE];
    struct stream stream = {.fd = stream_fd};
    if (!stream_reserve(&stream, STREAM_CAPACITY_MIN)) {
        put_text(child, FRAME_UNFIT, "no memory to run handlers");
        return EXIT_FAILURE;
    }
    bool is_fit = function_table_open(&child->table, child->sources, NULL, NULL, text) &&
                  function_table_start(&child->table, text);
    if (!is_fit) {
        put_text(child, FRAME_UNFIT, text);
    } else {
        is_fit = thread_count > 0 ? run_threads(child, &stream, thread_count)
                                  : run_process(child, &stream);
    }
    function_table_stop(&child->table);
    (void)fflush(stdout);
    function_table_reset(&child->table);
    free(stream.data);
    return is_fit ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int list_main(const struct function_sources *sources, int fd)
{
    set_up_process(STDERR_FILENO);
    (void)crash_open(NULL);
    (void)crash_thread_open();
    const int status = function_list_write(fd, sources);
    crash_thread_close();
    return status;
}

int pool_child_main(void *sources, const struct zygote_child *child)
{
    const uint32_t kind = child->index & POOL_CHILD_KIND_MASK;
    keep_from_programs(child);
    if (kind == POOL_CHILD_LIST) {
        TREADLE_ASSERT(child->fd_count == 1);
        return list_main(sources, child->fds[0]);
    }
    TREADLE_ASSERT(child->fd_count == 4);
    struct child self = {
        .sources = sources,
        .is_threaded = kind == POOL_CHILD_THREADS,
        .put_lock = PTHREAD_MUTEX_INITIALIZER,
        .page = page_open(child->fds[1], child->fds[2]),
    };
    set_up_process(child->fds[3]);
    if (self.page == NULL) {
        perror("treadle: a child of the pool cannot map its page");
        return EXIT_FAILURE;
    }
    if (!crash_open(page_crash_record(self.page)) || !crash_thread_open()) {
        perror("treadle: crashes will leave no record");
    }
    close(child->fds[1]);
    const int status = serve(&self, child->fds[0], self.is_threaded ? child->index >> 8 : 0);
    crash_forget(); /* the page it would write to goes */
    crash_thread_close();
    page_close(&self.page);
    return status;
}
