/* SPDX-License-Identifier: MPL-2.0 */
/* The worker's loop: a session, a socket, and what runs attempts. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sys/epoll.h>
#include <unistd.h>

#include <sodium.h>

#include "common/base/log.h"
#include "common/base/uuid.h"
#include "worker/exec/command.h"
#include "worker/exec/pool.h"
#include "worker/worker_state.h"

#define MESSAGES_PER_ROUND 256
#define SOURCES_PER_ROUND  16
#define REOPEN_DELAY_MS    3000
#define READMIT_DELAY_MS   1000 /* of sockets that have given up; up to twice that */
#define NOTE_TEXT_SIZE     1024

static uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void tell(const treadle_worker *worker, const struct worker_note *note)
{
    if (worker->on_note != NULL) {
        worker->on_note(worker->note_context, note);
    }
}

static void finish(treadle_worker *worker, enum treadle_status status)
{
    worker->is_done = true;
    worker->status = status;
}

void worker_stop(treadle_worker *worker)
{
    worker_set_error(worker, "stopped");
    finish(worker, TREADLE_E_AGAIN);
}

/* ---- what the executors tell ---- */

static void on_started(void *context, uint64_t lease)
{
    const treadle_worker *worker = context;
    worker_session_on_started(worker->session, clock_ms(), lease);
}

static void on_progress(void *context, uint64_t lease, const struct wire_list *meta)
{
    const treadle_worker *worker = context;
    worker_session_progress(worker->session, clock_ms(), lease, meta);
}

static void on_succeeded(void *context, const struct wire_success_entry *success)
{
    const treadle_worker *worker = context;
    worker_session_succeed(worker->session, clock_ms(), success);
}

/* One line for the death of a handler's process, while its attempt is still there. */
static void tell_crash(const treadle_worker *worker, const struct wire_failure_entry *failure)
{
    const struct worker_attempt *attempt = worker_session_attempt(worker->session, failure->lease);
    static const char prefix[] = "signal.";
    if (attempt == NULL || bytes_is_equal(failure->name, bytes_from_text("zygote.gone"))) {
        return; /* its end was asked for, or is told with that of all the others */
    }
    const struct route *route = routes_find(worker->routes, attempt->service, attempt->task);
    const bool is_command = route != NULL && route->handler.kind == HANDLER_COMMAND;
    const bool is_signal =
        failure->name.size > sizeof(prefix) - 1 &&
        memcmp(failure->name.data, prefix, sizeof(prefix) - 1) == 0; /* else "exit.3", "memory" */
    const size_t skipped = is_signal ? sizeof(prefix) - 1 : 0;
    char cause[2 * NAME_SIZE_MAX];
    char id[UUID_TEXT_SIZE];
    char text[NOTE_TEXT_SIZE];
    log_quote(cause, sizeof(cause), failure->name.data + skipped, failure->name.size - skipped);
    uuid_print(&attempt->id, id);
    (void)snprintf(text, sizeof(text), "%s died of %s%s in %.*s.%.*s (task %s)",
                   is_command ? "a command" : "a process of the pool", is_signal ? "SIG" : "",
                   cause, (int)attempt->service.size, (const char *)attempt->service.data,
                   (int)attempt->task.size, (const char *)attempt->task.data, id);
    tell(worker, &(struct worker_note){.kind = WORKER_NOTE_CHILD, .text = text});
}

static void on_failed(void *context, const struct wire_failure_entry *failure)
{
    const treadle_worker *worker = context;
    if (failure->kind == FAILURE_CRASH && worker->on_note != NULL) {
        tell_crash(worker, failure);
    }
    worker_session_fail(worker->session, clock_ms(), failure);
}

static void on_returned(void *context, uint64_t lease)
{
    const treadle_worker *worker = context;
    worker_session_requeue(worker->session, clock_ms(), lease);
}

/* ---- what the session tells ---- */

static void on_welcome(treadle_worker *worker, const struct worker_event *event)
{
    if (!worker->has_served) {
        tell(worker, &(struct worker_note){.kind = WORKER_NOTE_SERVING});
    } else if (worker->is_apart_told) {
        tell(worker,
             &(struct worker_note){.kind = WORKER_NOTE_BACK, .is_resumed = event->is_resumed});
    }
    worker->has_served = true;
    worker->is_apart_told = false;
    worker->told_fault = TRANSPORT_FAULT_NONE;
}

/* Waiting alone does not mend it. */
static bool is_about_keys(enum transport_fault fault)
{
    return fault == TRANSPORT_FAULT_WANTS_KEYS || fault == TRANSPORT_FAULT_IS_PLAIN ||
           fault == TRANSPORT_FAULT_SERVER_KEY || fault == TRANSPORT_FAULT_NOT_ADMITTED;
}

static void tell_apart(treadle_worker *worker)
{
    const enum transport_fault fault = peer_transport_fault(worker->transport);
    const bool is_news = is_about_keys(fault) && fault != worker->told_fault;
    if ((worker->is_apart_told && !is_news) || worker->is_draining) {
        return;
    }
    tell(worker, &(struct worker_note){.kind = WORKER_NOTE_APART,
                                       .text = peer_transport_reason(worker->transport),
                                       .is_first = !worker->has_served,
                                       .is_nothing_there = fault == TRANSPORT_FAULT_NOTHING_LISTENS,
                                       .is_about_keys = is_about_keys(fault)});
    worker->is_apart_told = true;
    worker->told_fault = fault;
}

static void on_refused(treadle_worker *worker, const struct worker_event *event)
{
    char text[WORKER_ERROR_SIZE / 2];
    log_quote(text, sizeof(text), event->text.data, event->text.size);
    worker_set_error(worker, "refused (%s): %s", refused_code_text((uint64_t)event->code), text);
    tell(worker, &(struct worker_note){.kind = WORKER_NOTE_REFUSED,
                                       .text = worker->error,
                                       .is_final = event->is_final});
    worker->is_apart_told = true;
    if (event->is_final) {
        finish(worker, TREADLE_E_REFUSED);
    }
}

static void reopen(treadle_worker *worker)
{
    const uint64_t now_ms = clock_ms();
    worker_session_on_disconnected(worker->session, now_ms);
    worker->reopen_at_ms = UINT64_MAX;
    if (peer_transport_reopen(worker->transport) != TREADLE_OK) {
        worker->reopen_at_ms = now_ms + REOPEN_DELAY_MS;
    }
}

static void start(treadle_worker *worker, const struct worker_attempt *attempt)
{
    const struct route *route = routes_find(worker->routes, attempt->service, attempt->task);
    if (route != NULL) {
        executor_start(worker->executors[route->place], attempt, &route->handler);
        return;
    }
    const struct wire_failure_entry failure = {
        .lease = attempt->lease,
        .kind = FAILURE_PREPARE,
        .name = bytes_from_text("handler.none"),
        .message = bytes_from_text("this worker has no handler for the task"),
    };
    worker_session_fail(worker->session, clock_ms(), &failure);
}

/* A lease is in one executor; the others know nothing of it. */
static void recall(treadle_worker *worker, uint64_t lease)
{
    bool is_taken = false;
    for (int place = 0; place < ROUTE_PLACE_COUNT && !is_taken; place++) {
        if (worker->executors[place] != NULL) {
            is_taken = executor_recall(worker->executors[place], lease);
        }
    }
    worker_session_on_recall(worker->session, clock_ms(), lease, is_taken);
}

static void end_attempt(const treadle_worker *worker, uint64_t lease,
                        void (*how)(struct executor *executor, uint64_t lease))
{
    for (int place = 0; place < ROUTE_PLACE_COUNT; place++) {
        if (worker->executors[place] != NULL) {
            how(worker->executors[place], lease);
        }
    }
}

static void begin_drain(treadle_worker *worker)
{
    const struct worker_session_counts counts = worker_session_counts(worker->session);
    if (worker->is_draining) {
        return;
    }
    worker->is_draining = true;
    tell(worker, &(struct worker_note){.kind = WORKER_NOTE_DRAINING, .count = counts.running});
}

static void on_event(treadle_worker *worker, const struct worker_event *event)
{
    switch (event->kind) {
    case WORKER_EVENT_WELCOME:
        on_welcome(worker, event);
        return;
    case WORKER_EVENT_LOST:
        tell_apart(worker);
        return;
    case WORKER_EVENT_RECONNECT:
        reopen(worker);
        return;
    case WORKER_EVENT_REFUSED:
        on_refused(worker, event);
        return;
    case WORKER_EVENT_START:
        start(worker, event->attempt);
        return;
    case WORKER_EVENT_RECALL:
        recall(worker, event->lease);
        return;
    case WORKER_EVENT_CANCEL:
        end_attempt(worker, event->lease, executor_cancel);
        return;
    case WORKER_EVENT_KILL:
        end_attempt(worker, event->lease, executor_kill);
        return;
    case WORKER_EVENT_DRAINING:
        begin_drain(worker);
        return;
    case WORKER_EVENT_DRAINED:
        tell(worker, &(struct worker_note){.kind = WORKER_NOTE_DRAINED});
        finish(worker, TREADLE_OK);
        return;
    }
}

/* ---- the loop ---- */

static void on_drain(treadle_worker *worker)
{
    uint64_t count;
    if (read(worker->drain_fd, &count, sizeof(count)) != (ssize_t)sizeof(count)) {
        return;
    }
    begin_drain(worker);
    worker_session_drain(worker->session, clock_ms());
}

static void on_zygote_gone(treadle_worker *worker)
{
    worker_set_error(worker, "the process that starts all others (%d) has died",
                     (int)zygote_pid(worker->zygote));
    finish(worker, TREADLE_E_IO);
}

static void on_source(treadle_worker *worker, uint32_t source)
{
    switch (source) {
    case SOURCE_DRAIN:
        on_drain(worker);
        return;
    case SOURCE_ZYGOTE:
        on_zygote_gone(worker);
        return;
    case SOURCE_RUNS:
        runs_on_ready(worker->runs);
        return;
    case SOURCE_EXECUTOR: /* looked at in every round */
        return;
    default:
        worker->watches[source - SOURCE_WATCH].on_ready(
            worker->watches[source - SOURCE_WATCH].context);
    }
}

static void look_at_sources(treadle_worker *worker)
{
    struct epoll_event events[SOURCES_PER_ROUND];
    const int count = epoll_wait(worker->epoll_fd, events, SOURCES_PER_ROUND, 0);
    for (int i = 0; i < count && !worker->is_done; i++) {
        on_source(worker, events[i].data.u32);
    }
}

static void look_at_transport(treadle_worker *worker)
{
    const unsigned flags = peer_transport_update(worker->transport);
    if ((flags & TRANSPORT_DISCONNECTED) != 0) {
        worker_session_on_disconnected(worker->session, clock_ms());
    }
    if ((flags & TRANSPORT_CONNECTED) != 0) {
        worker_session_on_connected(worker->session, clock_ms());
    }
    if ((flags & TRANSPORT_GIVEN_UP) != 0) { /* not all workers together */
        worker->reopen_at_ms =
            clock_ms() + READMIT_DELAY_MS + randombytes_uniform(READMIT_DELAY_MS);
    }
    /* That a connection was lost is told by the session's end, that the keys do not fit at once. */
    if (peer_transport_reason(worker->transport)[0] != '\0' &&
        (!worker->has_served || is_about_keys(peer_transport_fault(worker->transport)))) {
        tell_apart(worker);
    }
}

static void receive_all(treadle_worker *worker)
{
    for (int i = 0; i < MESSAGES_PER_ROUND; i++) {
        const struct wire_frames *frames = peer_transport_receive(worker->transport);
        if (frames == NULL) {
            return;
        }
        struct message message; /* one that cannot be read is a gap for the session */
        if (message_decode(&message, frames, &wire_limits_protocol) == WIRE_OK) {
            worker_session_on_message(worker->session, clock_ms(), &message);
        }
    }
}

/* One executor says how many attempts it takes in; of several none may be given more than it has
 * slots, for which of them the next attempt is cannot be known. */
static uint32_t room_of(const treadle_worker *worker)
{
    uint32_t room = worker->slots;
    int used_count = 0;
    for (int place = 0; place < ROUTE_PLACE_COUNT; place++) {
        if (worker->executors[place] != NULL) {
            used_count++;
            room = executor_room(worker->executors[place]);
        }
    }
    return used_count == 1 ? room : worker->slots;
}

static void look_at_executors(treadle_worker *worker)
{
    for (int place = 0; place < ROUTE_PLACE_COUNT; place++) {
        if (worker->executors[place] != NULL) {
            executor_on_ready(worker->executors[place]);
        }
    }
    worker_session_set_room(worker->session, room_of(worker));
}

/* Sends what is due, as far as there is room. */
static void send_all(treadle_worker *worker)
{
    while (worker_session_has_message(worker->session) &&
           peer_transport_is_writable(worker->transport)) {
        const struct wire_frames *frames = worker_session_take_message(worker->session);
        if (frames == NULL) {
            return;
        }
        if (!peer_transport_send(worker->transport, frames)) {
            worker_session_on_unsent(worker->session, clock_ms());
            return;
        }
    }
}

static void take_events(treadle_worker *worker)
{
    struct worker_event event;
    while (!worker->is_done && worker_session_next_event(worker->session, &event)) {
        on_event(worker, &event);
    }
}

static int64_t sleep_ms(treadle_worker *worker)
{
    uint64_t next_at_ms = worker_session_next_at_ms(worker->session);
    next_at_ms = worker->reopen_at_ms < next_at_ms ? worker->reopen_at_ms : next_at_ms;
    for (int place = 0; place < ROUTE_PLACE_COUNT; place++) {
        if (worker->executors[place] != NULL) {
            const uint64_t executor_at_ms = executor_next_at_ms(worker->executors[place]);
            next_at_ms = executor_at_ms < next_at_ms ? executor_at_ms : next_at_ms;
        }
    }
    const uint64_t now_ms = clock_ms();
    if (next_at_ms <= now_ms) {
        return 0;
    }
    for (int place = 0; place < ROUTE_PLACE_COUNT; place++) { /* their last look before the wait */
        if (worker->executors[place] != NULL && !executor_may_wait(worker->executors[place])) {
            return 0;
        }
    }
    if (next_at_ms == UINT64_MAX) {
        return -1;
    }
    return next_at_ms - now_ms < INT32_MAX ? (int64_t)(next_at_ms - now_ms) : INT32_MAX;
}

static void serve(treadle_worker *worker)
{
    while (!worker->is_done) {
        const bool for_room = worker_session_has_message(worker->session);
        const unsigned flags =
            peer_transport_wait(worker->transport, sleep_ms(worker), worker->epoll_fd, for_room);
        if (clock_ms() >= worker->reopen_at_ms) {
            reopen(worker);
        }
        if ((flags & TRANSPORT_FD) != 0) {
            look_at_sources(worker);
        }
        look_at_transport(worker);
        receive_all(worker);
        look_at_executors(worker);
        worker_session_on_time(worker->session, clock_ms()); /* last: silence is what is not read */
        take_events(worker);
        send_all(worker);
        take_events(worker); /* what the sending led to */
    }
}

/* ---- beginning and ending ---- */

static struct executor *open_executor(treadle_worker *worker, enum route_place place)
{
    const struct executor_listener listener = {worker,       on_started, on_progress,
                                               on_succeeded, on_failed,  on_returned};
    if (place == ROUTE_COMMANDS) {
        const struct command_config config = {
            .runs = worker->runs,
            .commands = worker->commands,
            .worker = worker->name,
            .slots = worker->slots,
            .memory_max = worker->memory_max,
            .listener = listener,
        };
        return command_executor_create(&config);
    }
    const struct pool_config config = {
        .runs = worker->runs,
        .is_threaded = place == ROUTE_THREADS,
        .slots = worker->slots,
        .memory_max = worker->memory_max,
        .listener = listener,
    };
    return pool_executor_create(&config);
}

static bool open_executors(treadle_worker *worker)
{
    for (size_t i = 0; i < routes_count(worker->routes); i++) {
        const enum route_place place = routes_at(worker->routes, i)->place;
        if (worker->executors[place] != NULL) {
            continue;
        }
        worker->executors[place] = open_executor(worker, place);
        if (worker->executors[place] == NULL ||
            !worker_add_source(worker, executor_fd(worker->executors[place]), SOURCE_EXECUTOR)) {
            return false;
        }
    }
    return true;
}

static bool open_session(treadle_worker *worker)
{
    struct worker_session_config config = {
        .name = bytes_from_text(worker->name),
        .host = bytes_from_text(worker->host),
        .slots = worker->slots,
        .prefetch_max = WORKER_PREFETCH_MAX,
        .drain_ms = worker->drain_ms,
        .serves = worker->serves,
        .serve_count = (uint32_t)routes_count(worker->routes),
    };
    randombytes_buf(config.incarnation, sizeof(config.incarnation));
    worker->session = worker_session_create(&config, clock_ms());
    return worker->session != NULL;
}

static enum treadle_status open_all(treadle_worker *worker)
{
    char text[TRANSPORT_TEXT_SIZE] = "";
    worker->reopen_at_ms = UINT64_MAX;
    worker->has_served = false;
    worker->is_apart_told = false;
    worker->told_fault = TRANSPORT_FAULT_NONE;
    worker->is_draining = false;
    worker->is_done = false;
    worker->error[0] = '\0';
    errno = ENOMEM;
    if (!open_session(worker) || !open_executors(worker)) {
        const char *why = strerrordesc_np(errno);
        const enum treadle_status status = errno == ENOMEM ? TREADLE_E_NOMEM : TREADLE_E_IO;
        worker_set_error(worker, "cannot start: %s", why != NULL ? why : "unknown error");
        return status;
    }
    const enum treadle_status status = peer_transport_open(
        &worker->transport, worker->broker, credentials_keys(&worker->credentials), text);
    if (status != TREADLE_OK) {
        worker_set_error(worker, "%s", text[0] != '\0' ? text : treadle_status_text(status));
    }
    return status;
}

/* Nothing that was started runs on. */
static void close_all(treadle_worker *worker)
{
    for (int place = 0; place < ROUTE_PLACE_COUNT; place++) {
        if (worker->executors[place] != NULL) {
            /* By hand: what a child shares with us would stay in the epoll for as long as it has
             * it. */
            (void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, executor_fd(worker->executors[place]),
                            NULL);
        }
        executor_destroy(&worker->executors[place]);
    }
    peer_transport_close(&worker->transport);
    worker_session_destroy(&worker->session);
}

enum treadle_status treadle_worker_run(treadle_worker *worker)
{
    worker->status = open_all(worker);
    if (worker->status == TREADLE_OK) {
        serve(worker);
    }
    close_all(worker);
    return worker->status;
}
