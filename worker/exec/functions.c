/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/functions.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/list.h"
#include "worker/exec/plugin.h"

#define OPEN_TIMEOUT_MS 30000
#define FILE_SIZE_MAX   500 /* of a plugin's name, in messages */

/*
 * What the child writes: records of a kind and a size, then so many bytes. It is of this build, but
 * it runs the constructors of plugins: what it says is checked.
 */
struct list_record {
    uint32_t kind;
    uint32_t size;
};

enum list_kind {
    LIST_OPENING, /* the name of the plugin that is opened now */
    LIST_HANDLER, /* struct list_handler, then its pattern */
    LIST_REFUSED, /* the text that says why */
    LIST_DONE,    /* that was all */
};

struct list_handler {
    struct wire_policy policy;
    uint64_t is_thread_safe;
};

#define RECORD_SIZE_MAX 4096 /* with its header */

/* ---- the child ---- */

static void write_all(int fd, const void *data, size_t size)
{
    const uint8_t *at = data;
    while (size > 0) {
        const ssize_t written = write(fd, at, size);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return; /* the supervisor is gone, and this process soon */
        }
        at += written;
        size -= (size_t)written;
    }
}

static void write_record(int fd, enum list_kind kind, struct bytes first, struct bytes second)
{
    const struct list_record record = {
        .kind = (uint32_t)kind,
        .size = (uint32_t)(first.size + second.size),
    };
    write_all(fd, &record, sizeof(record));
    write_all(fd, first.data, first.size);
    write_all(fd, second.data, second.size);
}

static void write_text(int fd, enum list_kind kind, const char *text, size_t size_max)
{
    const struct bytes bytes = {(const uint8_t *)text, strnlen(text, size_max)};
    write_record(fd, kind, bytes, (struct bytes){0});
}

struct telling {
    int fd;
    const struct function_sources *sources;
};

static void tell_opening(void *context, size_t plugin_index)
{
    const struct telling *telling = context;
    write_text(telling->fd, LIST_OPENING, telling->sources->plugins[plugin_index], FILE_SIZE_MAX);
}

int function_list_write(int fd, const struct function_sources *sources)
{
    char text[FUNCTION_TEXT_SIZE];
    struct function_table table;
    struct telling telling = {.fd = fd, .sources = sources};
    if (!function_table_open(&table, sources, tell_opening, &telling, text)) {
        write_text(fd, LIST_REFUSED, text, FUNCTION_TEXT_SIZE - 1);
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < table.function_count; i++) {
        const struct function *function = &table.functions[i];
        const struct list_handler handler = {
            .policy = function->policy,
            .is_thread_safe = function->handler.is_thread_safe != 0,
        };
        write_record(fd, LIST_HANDLER,
                     (struct bytes){(const uint8_t *)(const void *)&handler, sizeof(handler)},
                     bytes_from_text(function->handler.name));
    }
    write_record(fd, LIST_DONE, (struct bytes){0}, (struct bytes){0});
    function_table_reset(&table);
    return EXIT_SUCCESS;
}

/* ---- the supervisor ---- */

struct listing {
    struct run_link link;
    bool is_ended;
    bool is_gone;
    int start_error; /* errno; 0: it was started */
    int wait_state;
    int fd; /* -1: at its end */
    uint8_t unread[RECORD_SIZE_MAX];
    size_t unread_size;
    bool is_damaged;
    bool is_done;
    bool is_memory_out;
    bool is_refused;                 /* the text says why */
    char opening[FILE_SIZE_MAX + 1]; /* the plugin that is opened; "": none yet */
    char *text;
    struct function_list list;
    size_t names_size;
};

static void on_event(struct run_link *link, const struct zygote_event *event)
{
    struct listing *listing = container_of(link, struct listing, link);
    switch (event->kind) {
    case ZYGOTE_EVENT_STARTED:
        break;
    case ZYGOTE_EVENT_NOT_STARTED:
        listing->is_ended = true;
        listing->start_error = event->error;
        break;
    case ZYGOTE_EVENT_ENDED:
        listing->is_ended = true;
        listing->wait_state = event->wait_state;
        break;
    case ZYGOTE_EVENT_GONE:
        listing->is_ended = true;
        listing->is_gone = true;
        break;
    }
}

static void copy_text(char *to, size_t to_size, struct bytes text)
{
    const size_t size = text.size < to_size - 1 ? text.size : to_size - 1;
    if (size > 0) {
        memcpy(to, text.data, size);
    }
    to[size] = '\0';
}

/* Patterns are offsets into the names until the list is whole: the names move as they grow. */
static void add_handler(struct listing *listing, struct bytes data)
{
    struct function_list *list = &listing->list;
    struct list_handler told;
    if (data.size <= sizeof(told) || data.size > sizeof(told) + PATTERN_SIZE_MAX ||
        list->handler_count == FUNCTION_COUNT_MAX) {
        listing->is_damaged = true;
        return;
    }
    memcpy(&told, data.data, sizeof(told));
    const size_t pattern_size = data.size - sizeof(told);
    struct handler *handlers =
        realloc(list->handlers, (list->handler_count + 1) * sizeof(*handlers));
    char *names = realloc(list->names, listing->names_size + pattern_size + 1);
    list->handlers = handlers != NULL ? handlers : list->handlers;
    list->names = names != NULL ? names : list->names;
    if (handlers == NULL || names == NULL) {
        listing->is_memory_out = true;
        return;
    }
    handlers[list->handler_count] = (struct handler){
        .kind = HANDLER_FUNCTION,
        .index = (uint32_t)list->handler_count,
        .is_thread_safe = told.is_thread_safe != 0,
        .task_policy = told.policy,
    };
    list->handler_count++;
    memcpy(names + listing->names_size, data.data + sizeof(told), pattern_size);
    listing->names_size += pattern_size;
    names[listing->names_size++] = '\0';
}

static void take_record(struct listing *listing, uint32_t kind, struct bytes data)
{
    switch (kind) {
    case LIST_OPENING:
        copy_text(listing->opening, sizeof(listing->opening), data);
        break;
    case LIST_HANDLER:
        add_handler(listing, data);
        break;
    case LIST_REFUSED:
        listing->is_refused = true;
        copy_text(listing->text, FUNCTION_TEXT_SIZE, data);
        break;
    case LIST_DONE:
        listing->is_done = true;
        break;
    default:
        listing->is_damaged = true;
        break;
    }
}

static void take_records(struct listing *listing)
{
    size_t taken = 0;
    while (!listing->is_damaged && !listing->is_done &&
           listing->unread_size - taken >= sizeof(struct list_record)) {
        struct list_record record;
        const uint8_t *at = listing->unread + taken;
        memcpy(&record, at, sizeof(record));
        if (record.size > sizeof(listing->unread) - sizeof(record)) {
            listing->is_damaged = true;
            break;
        }
        if (listing->unread_size - taken < sizeof(record) + record.size) {
            break;
        }
        take_record(listing, record.kind, (struct bytes){at + sizeof(record), record.size});
        taken += sizeof(record) + record.size;
    }
    listing->unread_size -= taken;
    memmove(listing->unread, listing->unread + taken, listing->unread_size);
}

static void close_pipe(struct listing *listing)
{
    if (listing->fd != -1) {
        close(listing->fd);
        listing->fd = -1;
    }
}

/* All that is there. */
static void read_records(struct listing *listing)
{
    while (listing->fd != -1 && !listing->is_damaged && !listing->is_done) {
        const ssize_t size = read(listing->fd, listing->unread + listing->unread_size,
                                  sizeof(listing->unread) - listing->unread_size);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size < 0 && errno == EAGAIN) {
            return;
        }
        if (size <= 0) {
            close_pipe(listing);
            return;
        }
        listing->unread_size += (size_t)size;
        take_records(listing);
    }
}

static uint64_t now_ms(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Until the child has ended; false: it did not in time. */
static bool wait_for_end(struct listing *listing, struct runs *runs)
{
    const uint64_t until_ms = now_ms() + OPEN_TIMEOUT_MS;
    while (!listing->is_ended) {
        const uint64_t at_ms = now_ms();
        struct pollfd polled[] = {
            {.fd = runs_fd(runs), .events = POLLIN},
            {.fd = listing->fd, .events = POLLIN}, /* -1 is passed over */
        };
        if (at_ms >= until_ms) {
            return false;
        }
        (void)poll(polled, 2, (int)(until_ms - at_ms));
        read_records(listing);
        if (listing->is_done || listing->is_damaged) {
            close_pipe(listing); /* what else it may say is of no interest */
        }
        runs_on_ready(runs);
    }
    read_records(listing);
    return true;
}

/* "plugin FILE: TEXT", or what stands for it before the first plugin. */
__attribute__((format(printf, 2, 3))) static enum treadle_status
refuse(const struct listing *listing, const char *format, ...)
{
    va_list arguments;
    int size = listing->opening[0] != '\0'
                   ? snprintf(listing->text, FUNCTION_TEXT_SIZE, "plugin %s: ", listing->opening)
                   : snprintf(listing->text, FUNCTION_TEXT_SIZE, "the process that opens plugins ");
    size = size < 0 ? 0 : size;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(listing->text + size, FUNCTION_TEXT_SIZE - (size_t)size, format, arguments);
    va_end(arguments);
    return TREADLE_E_INVALID;
}

static enum treadle_status judge(const struct listing *listing)
{
    if (listing->is_refused) {
        return TREADLE_E_INVALID;
    }
    if (listing->is_gone || listing->start_error != 0) {
        (void)snprintf(listing->text, FUNCTION_TEXT_SIZE, "no process can be started: %s",
                       listing->is_gone ? "the zygote has died"
                                        : strerrordesc_np(listing->start_error));
        return TREADLE_E_IO;
    }
    if (listing->is_memory_out) {
        (void)snprintf(listing->text, FUNCTION_TEXT_SIZE, "no memory for the list of handlers");
        return TREADLE_E_NOMEM;
    }
    if (listing->is_done && !listing->is_damaged) {
        return TREADLE_OK;
    }
    if (WIFSIGNALED(listing->wait_state)) {
        const char *name = sigabbrev_np(WTERMSIG(listing->wait_state));
        return refuse(listing,
                      "crashed while it was opened: signal %s; what it said stands on stderr",
                      name != NULL ? name : "?");
    }
    return refuse(listing,
                  "ended its process while it was opened, with exit status %d; a plugin must not",
                  WEXITSTATUS(listing->wait_state));
}

static void point_at_names(struct function_list *list)
{
    const char *name = list->names;
    for (size_t i = 0; i < list->handler_count; i++) {
        list->handlers[i].pattern = name;
        name += strlen(name) + 1;
    }
}

static enum treadle_status start(struct listing *listing, struct runs *runs)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        (void)snprintf(listing->text, FUNCTION_TEXT_SIZE, "no pipe: %s", strerrordesc_np(errno));
        return TREADLE_E_IO;
    }
    listing->fd = fds[0];
    (void)fcntl(fds[0], F_SETFL, O_NONBLOCK);
    struct zygote_start start = {
        .kind = ZYGOTE_CHILD,
        .index = POOL_CHILD_LIST,
        .fds = {fds[1]},
        .fd_count = 1,
    };
    const enum treadle_status status = runs_start(runs, &listing->link, &start);
    close(fds[1]);
    if (status != TREADLE_OK) {
        (void)snprintf(listing->text, FUNCTION_TEXT_SIZE, "no process can be started: %s",
                       treadle_status_text(status));
    }
    return status;
}

enum treadle_status function_list_open(struct function_list *list, struct runs *runs,
                                       char text[FUNCTION_TEXT_SIZE])
{
    struct listing *listing = calloc(1, sizeof(*listing));
    text[0] = '\0';
    if (listing == NULL) {
        (void)snprintf(text, FUNCTION_TEXT_SIZE, "no memory for the list of handlers");
        return TREADLE_E_NOMEM;
    }
    listing->fd = -1;
    listing->text = text;
    listing->link.on_event = on_event;
    enum treadle_status status = start(listing, runs);
    if (status == TREADLE_OK) {
        status = wait_for_end(listing, runs)
                     ? judge(listing)
                     : refuse(listing,
                              "was not open within %d s; what it does at its opening must "
                              "end",
                              OPEN_TIMEOUT_MS / 1000);
    }
    runs_abandon(runs, &listing->link);
    close_pipe(listing);
    if (status == TREADLE_OK) {
        point_at_names(&listing->list);
        *list = listing->list;
    } else {
        function_list_reset(&listing->list);
    }
    free(listing);
    return status;
}

void function_list_reset(struct function_list *list)
{
    free(list->handlers);
    free(list->names);
    *list = (struct function_list){0};
}
