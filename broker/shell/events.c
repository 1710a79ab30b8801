/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/events.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/span.h"
#include "common/base/uuid.h"

#define LINES_PER_SECOND_MAX 1000U
#define QUOTED_SIZE          320
#define SERVED_SIZE          256

/* Text that grows, cut at its end. */
struct text {
    char at[EVENTS_LINE_SIZE];
    size_t size;
};

static void add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *text, const char *format, ...)
{
    va_list arguments;
    const size_t room = sizeof text->at - text->size;
    va_start(arguments, format);
    const int added = vsnprintf(text->at + text->size, room, format, arguments);
    va_end(arguments);
    if (added > 0) {
        text->size += (size_t)added < room ? (size_t)added : room - 1;
    }
}

static void add_quoted(struct text *text, struct bytes bytes)
{
    char quoted[QUOTED_SIZE];
    add(text, "%s", log_quote(quoted, sizeof quoted, bytes.data, bytes.size));
}

static struct bytes name_of(const struct name *name)
{
    return (struct bytes){(const uint8_t *)name->text, name->size};
}

/*
 * Where sentences go. Only a pipe or a terminal can make a writer wait: for these a description of
 * our own, since O_NONBLOCK on the shared one would be that of everybody on this terminal.
 */
static int open_lines(void)
{
    struct stat state;
    if (fstat(STDOUT_FILENO, &state) != 0 || S_ISREG(state.st_mode)) {
        return STDOUT_FILENO;
    }
    const int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    return fd == -1 ? STDOUT_FILENO : fd;
}

void events_init(struct events *events, const struct core *core, const struct store *store,
                 bool is_dev)
{
    *events = (struct events){.core = core, .store = store, .is_dev = is_dev, .pending_task = NONE};
    events->line_fd = is_dev ? open_lines() : STDOUT_FILENO;
}

/* ---- what effects name ---- */

static const struct session *worker_of(const struct events *events, const struct effect *effect)
{
    if (effect->attempt == NONE || events->core->attempts[effect->attempt].session == NONE) {
        return NULL;
    }
    return &events->core->sessions[events->core->attempts[effect->attempt].session];
}

/* The newest error kept of the task; false: none. */
static bool last_error(const struct events *events, const struct effect *effect,
                       struct wire_attempt_error *error)
{
    struct store_view view;
    return store_find(events->store, effect->task, effect->sequence, &view) &&
           wire_attempt_error_next(&view.last_error, error);
}

/* ---- the log ---- */

static const char *event_text(uint8_t code)
{
/* NOLINTNEXTLINE(bugprone-macro-parentheses): an initializer */
#define LOG_EVENT_TEXT(name, text) [name] = text,
    static const char *const texts[LOG_EVENT_COUNT] = {LOG_EVENTS(LOG_EVENT_TEXT)};
#undef LOG_EVENT_TEXT
    TREADLE_ASSERT(code < LOG_EVENT_COUNT);
    return texts[code];
}

static enum log_level event_level(uint8_t code)
{
    switch ((enum log_event)code) {
    case LOG_SESSION_LOST:
    case LOG_TASK_FAILED:
    case LOG_BREAKER_OPENED:
        return LOG_LEVEL_WARN;
    case LOG_TASK_ACCEPTED:
    case LOG_TASK_DISPATCHED:
    case LOG_TASK_SUCCEEDED:
    case LOG_TASK_RETRYING:
    case LOG_TASK_CANCELLED:
    case LOG_TASK_EXPIRED:
    case LOG_ATTEMPT_FAILED:
    case LOG_ATTEMPT_LATE:
        return LOG_LEVEL_DEBUG;
    case LOG_SESSION_OPENED:
    case LOG_SESSION_RESUMED:
    case LOG_SESSION_ENDED:
    case LOG_BREAKER_PROBING:
    case LOG_BREAKER_CLOSED:
    case LOG_SERVICE_PAUSED:
    case LOG_SERVICE_RESUMED:
    case LOG_BROKER_DRAINING:
    case LOG_EVENT_COUNT:
        break;
    }
    return LOG_LEVEL_INFO;
}

/* What the event's value says; NULL: nothing. */
static const char *value_key(uint8_t code)
{
    switch ((enum log_event)code) {
    case LOG_SESSION_OPENED:
    case LOG_SESSION_RESUMED:
    case LOG_SESSION_LOST:
    case LOG_SESSION_ENDED:
        return "leases";
    case LOG_TASK_SUCCEEDED:
    case LOG_TASK_FAILED:
    case LOG_TASK_CANCELLED:
    case LOG_TASK_EXPIRED:
        return "age_ms";
    case LOG_TASK_RETRYING:
        return "delay_ms";
    case LOG_ATTEMPT_LATE:
        return "lease";
    case LOG_BROKER_DRAINING:
        return "tasks";
    case LOG_TASK_ACCEPTED:
    case LOG_TASK_DISPATCHED:
    case LOG_ATTEMPT_FAILED:
    case LOG_BREAKER_OPENED:
    case LOG_BREAKER_PROBING:
    case LOG_BREAKER_CLOSED:
    case LOG_SERVICE_PAUSED:
    case LOG_SERVICE_RESUMED:
    case LOG_EVENT_COUNT:
        break;
    }
    return NULL;
}

static void add_task_fields(const struct events *events, const struct effect *effect,
                            struct text *line)
{
    const struct task *task = &events->core->tasks[effect->task];
    const struct queue *queue = &events->core->queues[task->queue];
    char id[UUID_TEXT_SIZE];
    uuid_print(&task->id, id);
    add(line, "task=%s service=", id);
    add_quoted(line, name_of(&events->core->services[queue->service].name));
    add(line, " name=");
    add_quoted(line, name_of(&queue->task));
    add(line, " dispatch=%" PRIu32 " ", task->dispatches);
    const struct session *worker = worker_of(events, effect);
    if (worker != NULL) {
        add(line, "worker=");
        add_quoted(line, name_of(&worker->name));
        add(line, " ");
    }
}

static void add_session_fields(const struct events *events, const struct effect *effect,
                               struct text *line)
{
    const struct session *session = &events->core->sessions[effect->session];
    add(line, "role=%s name=", peer_role_text(session->role));
    add_quoted(line, name_of(&session->name));
    add(line, " host=");
    add_quoted(line, name_of(&session->host));
    add(line, " principal=");
    add_quoted(line, name_of(&events->core->owners[session->owner].name));
    add(line, " ");
}

static void write_line(const struct events *events, const struct effect *effect)
{
    const bool is_of_client = effect->session != NONE && effect->code <= LOG_SESSION_ENDED &&
                              events->core->sessions[effect->session].role == ROLE_CLIENT;
    /* clients come and go with each command */
    const enum log_level level = is_of_client ? LOG_LEVEL_DEBUG : event_level(effect->code);
    if (!log_is_on(level)) {
        return;
    }
    struct text line = {.size = 0};
    if (effect->task != NONE) {
        add_task_fields(events, effect, &line);
    } else if (effect->session != NONE) {
        add_session_fields(events, effect, &line);
    } else if (effect->service != NONE) {
        add(&line, "service=");
        add_quoted(&line, name_of(&events->core->services[effect->service].name));
        add(&line, " ");
    }
    if (effect->reason != 0) {
        add(&line, "kind=%s ", failure_kind_text(effect->reason));
    }
    struct wire_attempt_error error;
    if (effect->code == LOG_ATTEMPT_FAILED && last_error(events, effect, &error)) {
        add(&line, "error=");
        add_quoted(&line, error.name);
        add(&line, " message=");
        add_quoted(&line, error.message);
        add(&line, " ");
    }
    const char *key = value_key(effect->code);
    if (key != NULL) {
        add(&line, "%s=%" PRIu64, key, effect->value);
    }
    log_write(level, event_text(effect->code), " %s", line.at);
}

/* ---- sentences ---- */

/* False: nobody reads. Tasks are more than words about them, so this never waits. */
static bool write_now(const struct events *events, const char *line, int size)
{
    return size > 0 && write(events->line_fd, line, (size_t)size) == size;
}

static void put(struct events *events, const char *sentence)
{
    struct timespec now = {0, 0};
    struct tm local;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    memset(&local, 0, sizeof local);
    (void)localtime_r(&now.tv_sec, &local);
    if ((uint64_t)now.tv_sec != events->second) {
        if (events->left_out_count > 0) {
            char line[64];
            const int size =
                snprintf(line, sizeof line, "              ... %" PRIu64 " lines left out\n",
                         events->left_out_count);
            (void)write_now(events, line, size);
        }
        events->second = (uint64_t)now.tv_sec;
        events->line_count = 0;
        events->left_out_count = 0;
    }
    if (events->line_count == LINES_PER_SECOND_MAX) {
        events->left_out_count++;
        return;
    }
    char line[EVENTS_LINE_SIZE + 32];
    const int size = snprintf(line, sizeof line, "%02d:%02d:%02d.%03d  %s\n", local.tm_hour,
                              local.tm_min, local.tm_sec, (int)(now.tv_nsec / 1000000), sentence);
    events->line_count++;
    if (!write_now(events, line, size)) {
        events->left_out_count++;
    }
}

static void flush_pending(struct events *events)
{
    if (events->pending_size > 0) {
        put(events, events->pending);
    }
    events->pending_size = 0;
    events->pending_task = NONE;
}

/* "12 ms", "1.2 s", "5 min". */
static void add_span(struct text *text, uint64_t span_ms)
{
    if (span_ms < 1000) {
        add(text, "%" PRIu64 " ms", span_ms);
    } else if (span_ms < 120000) {
        add(text, "%" PRIu64 ".%" PRIu64 " s", span_ms / 1000, span_ms % 1000 / 100);
    } else {
        add(text, "%" PRIu64 " min", span_ms / 60000);
    }
}

static void add_task(const struct events *events, const struct effect *effect, struct text *text)
{
    const struct task *task = &events->core->tasks[effect->task];
    const struct queue *queue = &events->core->queues[task->queue];
    char id[UUID_TEXT_SIZE];
    uuid_print(&task->id, id);
    add(text, "%s.%s %s ", events->core->services[queue->service].name.text, queue->task.text, id);
}

static void add_worker(const struct events *events, const struct effect *effect, struct text *text)
{
    const struct session *worker = worker_of(events, effect);
    if (worker != NULL) {
        add_quoted(text, name_of(&worker->name));
    } else {
        add(text, "a worker");
    }
}

static void add_attempt(const struct events *events, const struct effect *effect, struct text *text)
{
    const struct task *task = &events->core->tasks[effect->task];
    add(text, "running on ");
    add_worker(events, effect, text);
    if (effect->attempt != NONE) {
        add(text, " (attempt %" PRIu32 " of %" PRIu32 ")", task->retry_index + 1,
            events->core->attempts[effect->attempt].attempts_max);
    }
}

static void add_error(const struct events *events, const struct effect *effect, struct text *text)
{
    struct wire_attempt_error error;
    add(text, "%s", failure_kind_text(effect->reason));
    if (last_error(events, effect, &error)) {
        add(text, " ");
        add_quoted(text, error.name);
        if (error.message.size > 0) {
            add(text, ": ");
            add_quoted(text, error.message);
        }
    }
}

/* The end of a task's sentence. */
static void add_task_event(const struct events *events, const struct effect *effect,
                           struct text *text)
{
    const struct task *task = &events->core->tasks[effect->task];
    switch ((enum log_event)effect->code) {
    case LOG_TASK_ACCEPTED:
        add(text, "accepted");
        return;
    case LOG_TASK_DISPATCHED:
        add_attempt(events, effect, text);
        return;
    case LOG_TASK_SUCCEEDED:
        add(text, "succeeded in ");
        add_span(text, effect->value);
        return;
    case LOG_TASK_FAILED:
        add(text, "for good after %" PRIu32 " %s", task->retry_index,
            task->retry_index == 1 ? "attempt" : "attempts");
        return;
    case LOG_TASK_CANCELLED:
        add(text, "cancelled");
        return;
    case LOG_TASK_EXPIRED:
        add(text, "expired after ");
        add_span(text, effect->value);
        return;
    case LOG_TASK_RETRYING:
        add(text, "again in ");
        add_span(text, effect->value);
        return;
    case LOG_ATTEMPT_FAILED:
        add(text, "failed: ");
        add_error(events, effect, text);
        return;
    case LOG_SESSION_OPENED:
    case LOG_SESSION_RESUMED:
    case LOG_SESSION_LOST:
    case LOG_SESSION_ENDED:
    case LOG_ATTEMPT_LATE:
    case LOG_BREAKER_OPENED:
    case LOG_BREAKER_PROBING:
    case LOG_BREAKER_CLOSED:
    case LOG_SERVICE_PAUSED:
    case LOG_SERVICE_RESUMED:
    case LOG_BROKER_DRAINING:
    case LOG_EVENT_COUNT:
        break;
    }
    add(text, "%s", event_text(effect->code));
}

static void say_task(struct events *events, const struct effect *effect)
{
    struct text text = {.size = 0};
    const bool is_verdict = effect->code == LOG_TASK_RETRYING || effect->code == LOG_TASK_FAILED;
    if (is_verdict && events->pending_size > 0 && events->pending_task == effect->task) {
        text.size = events->pending_size;
        memcpy(text.at, events->pending, text.size + 1);
        events->pending_size = 0;
        add(&text, "; ");
    } else {
        add_task(events, effect, &text);
        if (effect->code == LOG_TASK_FAILED) {
            add(&text, "failed: %s; ", failure_kind_text(effect->reason));
        }
    }
    flush_pending(events);
    add_task_event(events, effect, &text);
    if (effect->code == LOG_ATTEMPT_FAILED) {
        memcpy(events->pending, text.at, text.size + 1);
        events->pending_size = text.size;
        events->pending_task = effect->task;
        return;
    }
    put(events, text.at);
}

static void say_service(struct events *events, const struct effect *effect)
{
    const struct service *service = &events->core->services[effect->service];
    const struct breaker *breaker = &service->breaker;
    struct text text = {.size = 0};
    add(&text, "%s: ", service->name.text);
    if (effect->code == LOG_BREAKER_OPENED) {
        add(&text, breaker->mode == BREAKER_FORCED_OPEN
                       ? "its breaker is forced open"
                       : "too many failures, its breaker has opened");
        if (breaker->cooled_at_ms != UINT64_MAX && breaker->cooled_at_ms > events->core->now_ms) {
            add(&text, "; probes begin in ");
            add_span(&text, breaker->cooled_at_ms - events->core->now_ms);
        }
    } else if (effect->code == LOG_BREAKER_PROBING) {
        add(&text, "its breaker is half open and lets probes through");
    } else if (effect->code == LOG_BREAKER_CLOSED) {
        add(&text, "its breaker has closed");
    } else if (effect->code == LOG_SERVICE_PAUSED) {
        add(&text, "paused");
    } else if (effect->code == LOG_SERVICE_RESUMED) {
        add(&text, "resumed");
    } else {
        add(&text, "%s", event_text(effect->code));
    }
    flush_pending(events);
    put(events, text.at);
}

static void say_session(struct events *events, const struct effect *effect)
{
    const struct session *session = &events->core->sessions[effect->session];
    struct text text = {.size = 0};
    if (session->role != ROLE_WORKER || effect->code == LOG_ATTEMPT_LATE) {
        return; /* clients come and go with each command */
    }
    add(&text, "worker ");
    add_quoted(&text, name_of(&session->name));
    if (effect->code == LOG_SESSION_OPENED) {
        add(&text, " connected, %" PRIu32 " %s", session->slots,
            session->slots == 1 ? "slot" : "slots");
    } else if (effect->code == LOG_SESSION_RESUMED) {
        add(&text, " is back");
    } else if (effect->code == LOG_SESSION_LOST) {
        add(&text, " is gone; it held %" PRIu64 " %s", effect->value,
            effect->value == 1 ? "task" : "tasks");
    } else {
        add(&text, " has ended");
    }
    flush_pending(events);
    put(events, text.at);
}

void events_write(struct events *events, const struct effect *effect)
{
    if (!events->is_dev) {
        write_line(events, effect);
    } else if (effect->task != NONE) {
        say_task(events, effect);
    } else if (effect->session != NONE) {
        say_session(events, effect);
    } else if (effect->service != NONE) {
        say_service(events, effect);
    }
}

void events_flush(struct events *events)
{
    if (events->is_dev) {
        flush_pending(events);
    }
}

void events_greet(const char *endpoint)
{
    static const char usual[] = "tcp://127.0.0.1:7330";
    const bool is_usual = strcmp(endpoint, usual) == 0;
    (void)printf("try, each in a terminal of its own%s%s:\n"
                 "  treadle work wc.count -- wc -w      a worker made of a command\n"
                 "  treadle run wc.count @README.md     a task, and its result\n"
                 "  treadle task ls                     what became of it\n",
                 is_usual ? "" : ", with TREADLE_BROKER=", is_usual ? "" : endpoint);
    (void)fflush(stdout);
}
