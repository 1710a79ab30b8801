/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "worker/exec/pool_state.h"

#define MEAN_SHARE       8      /* a handler's time counts as this part of the mean */
#define DURATION_MAX_US  100000 /* as which longer ones count in the mean */
#define TRACE_ROUNDS_MAX 16     /* of what a dead child's stderr still holds */
#define LOW_ADDRESS      65536  /* below: a null pointer and what is near it */
#define DELAY_MIN_MS     100    /* after the first failed start, then doubling */
#define DELAY_MAX_MS     5000
#define MIB              (UINT64_C(1024) * 1024)

static const struct executor_listener *listener_of(const struct pool *pool)
{
    return &pool->executor.listener;
}

/* ---- attempts that have ended by themselves ---- */

void pool_tell_started(struct entry *entry)
{
    const struct executor_listener *listener = listener_of(entry->child->pool);
    if (!entry->is_told) {
        entry->is_told = true;
        entry->child->told_count++;
        listener->on_started(listener->context, entry->lease);
    }
}

/* Out of child and pool, started: what is told of it next is its end. */
static void leave(struct pool *pool, struct entry *entry)
{
    pool_tell_started(entry);
    pool_child_release(entry);
    pool_forget(pool, entry);
}

static void measure(struct pool *pool, uint64_t duration_us)
{
    const uint64_t counted_us = duration_us < DURATION_MAX_US ? duration_us : DURATION_MAX_US;
    const uint64_t counted_ns = counted_us * 1000 + 1; /* 0 is: not measured */
    pool->mean_ns = pool->mean_ns == 0
                        ? counted_ns
                        : (pool->mean_ns * (MEAN_SHARE - 1) + counted_ns) / MEAN_SHARE + 1;
}

static struct wire_list meta_of(struct pool *pool, const struct report *report)
{
    writer_reset(&pool->meta);
    for (uint32_t i = 0; i < report->meta_count; i++) {
        const struct wire_meta_item item = {report->meta[i].name, report->meta[i].value};
        if (!wire_meta_item_encode(&pool->meta, &item)) {
            return (struct wire_list){0}; /* without memory: as it was */
        }
    }
    return report->meta_count > 0 ? wire_list_from_writer(&pool->meta, pool->meta.record_count)
                                  : (struct wire_list){0};
}

static void fail_result(struct pool *pool, uint64_t lease, uint64_t size_max, bool is_too_large)
{
    char message[POOL_TEXT_SIZE] = "no memory to keep the result";
    if (is_too_large) {
        snprintf(message, sizeof(message), "the result is over the limit of %" PRIu64 " bytes",
                 size_max);
    }
    const struct wire_failure_entry failure = {
        .lease = lease,
        .kind = FAILURE_FINALIZE,
        .name = bytes_from_text(is_too_large ? "result.size" : "memory"),
        .message = bytes_from_text(message),
    };
    listener_of(pool)->on_failed(listener_of(pool)->context, &failure);
}

void pool_on_dropped(struct entry *entry, bool is_too_large)
{
    struct pool *pool = entry->child->pool;
    const uint64_t lease = entry->lease;
    const uint64_t size_max = entry->attempt->result_size_max;
    leave(pool, entry);
    fail_result(pool, lease, size_max, is_too_large);
}

static void on_success(struct pool *pool, struct entry *entry, const struct report *report)
{
    const struct wire_success_entry success = {
        .lease = entry->lease,
        .duration_us = report->duration_us,
        .meta = meta_of(pool, report),
        .body = report->body,
    };
    leave(pool, entry);
    listener_of(pool)->on_succeeded(listener_of(pool)->context, &success);
}

static void on_failure(struct pool *pool, struct entry *entry, const struct report *report)
{
    const struct wire_failure_entry failure = {
        .lease = entry->lease,
        .kind = report->kind,
        .retry_choice = report->choice,
        .retry_delay_ms = report->retry_delay_ms,
        .name = report->name,
        .message = report->message,
        .trace = report->trace,
        .duration_ms = report->duration_us / 1000,
        .user_ms = report->user_ms,
        .system_ms = report->system_ms,
        .max_rss_kib = report->max_rss_kib,
        .meta = meta_of(pool, report),
    };
    leave(pool, entry);
    listener_of(pool)->on_failed(listener_of(pool)->context, &failure);
}

bool pool_on_report(struct entry *entry, enum frame_kind kind, struct bytes data)
{
    struct pool *pool = entry->child->pool;
    struct handoff_meta items[META_COUNT_MAX];
    struct report report;
    if (!report_read(&report, kind, data, items)) {
        return false;
    }
    if (kind == FRAME_PROGRESS) {
        const struct wire_list meta = meta_of(pool, &report);
        pool_tell_started(entry);
        listener_of(pool)->on_progress(listener_of(pool)->context, entry->lease, &meta);
        return true;
    }
    measure(pool, report.duration_us);
    pool->start_failure_count = 0;
    if (kind == FRAME_FAILURE) {
        on_failure(pool, entry, &report);
    } else if (report.body.size > entry->attempt->result_size_max) {
        pool_on_dropped(entry, true);
    } else {
        on_success(pool, entry, &report);
    }
    return true;
}

/* ---- children that have ended ---- */

/* What is known of an end, for the failures of those that die with it. */
struct death {
    char name[NAME_SIZE_MAX];
    char message[POOL_TEXT_SIZE];
    int signal_number; /* 0: it was none */
};

static void describe_signal(const struct child *child, struct death *death)
{
    const struct crash_record record = page_crash(child->page);
    const int number = death->signal_number;
    const bool is_recorded = record.is_set != 0 && record.signal == number;
    const bool has_address = is_recorded && (number == SIGSEGV || number == SIGBUS);
    const uint64_t memory_max = child->pool->memory_max;
    const uint64_t rss_size = child->end.max_rss_kib * 1024;
    const char *short_name = sigabbrev_np(number);
    char text[NAME_SIZE_MAX];
    if (short_name != NULL) {
        snprintf(death->name, sizeof(death->name), "signal.%s", short_name);
        snprintf(text, sizeof(text), "SIG%s", short_name);
    } else {
        snprintf(death->name, sizeof(death->name), "signal.%d", number);
        snprintf(text, sizeof(text), "signal %d", number);
    }
    char limit[NAME_SIZE_MAX] = "";
    /* memory that is refused ends in a null pointer or in abort(), more often than in the limit */
    if (memory_max > 0 && !child->is_killed &&
        (rss_size > memory_max / 4 * 3 || number == SIGABRT || number == SIGKILL ||
         (has_address && record.address < LOW_ADDRESS))) {
        snprintf(limit, sizeof(limit), " (memory limit of %" PRIu64 " MiB)", memory_max / MIB);
    }
    if (is_recorded && record.is_wild != 0) {
        snprintf(death->message, sizeof(death->message),
                 "%s: jumped to 0x%" PRIx64 ", where no code is, from 0x%" PRIx64 "%s", text,
                 record.pc, record.return_address, limit);
    } else if (has_address) {
        snprintf(death->message, sizeof(death->message), "%s at address 0x%" PRIx64 "%s", text,
                 record.address, limit);
    } else {
        snprintf(death->message, sizeof(death->message), "died of %s%s", text, limit);
    }
}

static void describe(const struct child *child, struct death *death)
{
    const int state = child->end.wait_state;
    *death = (struct death){.signal_number = 0};
    if (child->end.kind == ZYGOTE_EVENT_GONE) {
        snprintf(death->name, sizeof(death->name), "zygote.gone");
        snprintf(death->message, sizeof(death->message),
                 "the process that all handlers come from has died");
    } else if (child->end.kind == ZYGOTE_EVENT_NOT_STARTED) {
        snprintf(death->message, sizeof(death->message), "%s", strerrordesc_np(child->end.error));
    } else if (child->is_damaged) {
        snprintf(death->name, sizeof(death->name), "page.damaged");
        snprintf(death->message, sizeof(death->message),
                 "the handler's process has damaged the memory it shares with the worker");
    } else if (WIFSIGNALED(state)) {
        death->signal_number = WTERMSIG(state);
        describe_signal(child, death);
    } else {
        snprintf(death->name, sizeof(death->name), "exit.%d", WEXITSTATUS(state));
        snprintf(death->message, sizeof(death->message),
                 "the handler ended its process with exit code %d", WEXITSTATUS(state));
    }
}

static uint64_t bounded(uint64_t number_ms)
{
    return number_ms < SPAN_MAX_MS ? number_ms : SPAN_MAX_MS;
}

static void charge(struct child *child, struct entry *entry, const struct death *death)
{
    struct pool *pool = child->pool;
    const uint64_t started_at_us = page_started_at_us(child->page, entry->cell);
    const uint64_t now_us = pool_clock_us();
    const struct wire_failure_entry failure = {
        .lease = entry->lease,
        .kind = FAILURE_CRASH,
        .name = bytes_from_text(death->name),
        .message = bytes_from_text(death->message),
        .trace = trace_tail_text(&child->tail),
        .duration_ms = started_at_us > 0 && started_at_us < now_us
                           ? bounded((now_us - started_at_us) / 1000)
                           : 0,
        .user_ms = bounded(child->end.user_ms),
        .system_ms = bounded(child->end.system_ms),
        .max_rss_kib = child->end.max_rss_kib,
        .signal = (uint64_t)death->signal_number,
    };
    pool->start_failure_count = 0;
    leave(pool, entry);
    listener_of(pool)->on_failed(listener_of(pool)->context, &failure);
}

/* The cell that the crash is of; UINT32_MAX: the record does not tell. */
static uint32_t recorded_cell(const struct child *child)
{
    const struct crash_record record = page_crash(child->page);
    return child->end.kind == ZYGOTE_EVENT_ENDED && WIFSIGNALED(child->end.wait_state) &&
                   record.is_set != 0 && record.signal == WTERMSIG(child->end.wait_state)
               ? record.cell
               : UINT32_MAX;
}

/* Whether the attempt that was running is to blame for the child's end. */
static bool is_culprit(const struct child *child, const struct entry *entry)
{
    if (child->is_killed) {
        return entry->is_killed; /* the others could not help it */
    }
    const uint32_t cell = recorded_cell(child);
    const bool is_told = cell < child->pool->cell_count && child->cells[cell] != NULL &&
                         page_state(child->page, cell) == CELL_RUNNING;
    return !child->pool->is_threaded || !is_told || entry->cell == cell;
}

/* The attempts of a dead child: they fail with it, or go back to where they came from. Returns how
 * many were charged. */
static uint32_t settle_attempts(struct child *child, const struct death *death)
{
    struct pool *pool = child->pool;
    const struct executor_listener *listener = listener_of(pool);
    struct list waiting;
    struct list culprits;
    struct list others;
    struct list *link;
    list_init(&waiting);
    list_init(&culprits);
    list_init(&others);
    while ((link = list_first(&child->sent)) != NULL ||
           (link = list_first(&child->unsent)) != NULL) {
        struct entry *entry = container_of(link, struct entry, link);
        list_remove(link);
        const bool is_running =
            entry->is_sent && page_state(child->page, entry->cell) == CELL_RUNNING;
        /* a child without threads runs one: more would be damage */
        const bool is_possible = pool->is_threaded || list_is_empty(&culprits);
        if (entry->is_killed || (is_running && is_possible && is_culprit(child, entry))) {
            list_push_back(&culprits, link);
        } else {
            list_push_back(is_running || entry->is_told ? &others : &waiting, link);
        }
    }
    uint32_t count = 0;
    while ((link = list_pop_front(&culprits)) != NULL) {
        charge(child, container_of(link, struct entry, link), death);
        count++;
    }
    while ((link = list_pop_front(&others)) != NULL) {
        struct entry *entry = container_of(link, struct entry, link);
        const uint64_t lease = entry->lease;
        pool_child_release(entry);
        pool_forget(pool, entry);
        listener->on_returned(listener->context, lease);
    }
    struct list released;
    list_init(&released);
    while ((link = list_pop_front(&waiting)) != NULL) {
        pool_child_release(container_of(link, struct entry, link));
        list_push_back(&released, link);
    }
    list_splice_front(&pool->waiting, &released); /* they are older than what waits there */
    return count;
}

/* What is left to read of it was written before its end: nothing of that is lost. */
static void read_rest(struct child *child)
{
    (void)pool_child_read(child);
    for (int i = 0; i < TRACE_ROUNDS_MAX && pool_child_read_trace(child); i++) {
    }
}

void pool_on_ended(struct child *child)
{
    struct pool *pool = child->pool;
    const bool was_ready = child->state != CHILD_STARTING;
    const bool is_killed = child->is_killed;
    struct death death;
    read_rest(child);
    describe(child, &death);
    const uint32_t charged_count = settle_attempts(child, &death);
    if (child->end.kind == ZYGOTE_EVENT_GONE) {
        pool->is_gone = true;
    } else if (charged_count == 0 && !is_killed) {
        pool->start_error = child->end.kind == ZYGOTE_EVENT_NOT_STARTED ? child->end.error : 0;
        if (pool->start_error != 0) {
            snprintf(pool->start_text, sizeof(pool->start_text),
                     "no process for the handler: %.256s", death.message);
        } else if (child->text[0] != '\0') {
            snprintf(pool->start_text, sizeof(pool->start_text), "%s", child->text);
        } else {
            snprintf(pool->start_text, sizeof(pool->start_text), "a child ended %s: %.256s",
                     was_ready ? "between attempts" : "before it was ready", death.message);
        }
        pool_on_start_failure(pool);
    }
    pool_child_free(child);
}

void pool_on_start_failure(struct pool *pool)
{
    uint64_t delay_ms = DELAY_MIN_MS;
    for (uint32_t i = 0; i < pool->start_failure_count && delay_ms < DELAY_MAX_MS; i++) {
        delay_ms *= 2;
    }
    pool->start_failure_count++;
    pool->start_not_before_ms =
        pool_clock_us() / 1000 + (delay_ms < DELAY_MAX_MS ? delay_ms : DELAY_MAX_MS);
    pool->is_unfit = pool->start_failure_count >= POOL_START_FAILURES_MAX;
}

void pool_fail_waiting(struct pool *pool)
{
    char name[NAME_SIZE_MAX] = "child.unfit";
    enum failure_kind kind = FAILURE_PREPARE;
    struct list failing;
    struct list *link;
    if (pool->start_error != 0) {
        kind = outcome_kind_of_errno(pool->start_error);
        outcome_name_errno(name, pool->start_error);
    }
    list_init(&failing);
    list_splice_front(&failing, &pool->waiting); /* what comes meanwhile waits for another start */
    while ((link = list_pop_front(&failing)) != NULL) {
        struct entry *entry = container_of(link, struct entry, link);
        const struct wire_failure_entry failure = {
            .lease = entry->lease,
            .kind = kind,
            .name = bytes_from_text(name),
            .message = bytes_from_text(pool->start_text),
        };
        pool_forget(pool, entry);
        listener_of(pool)->on_failed(listener_of(pool)->context, &failure);
    }
}

void pool_return_waiting(struct pool *pool)
{
    struct list returning;
    struct list *link;
    list_init(&returning);
    list_splice_front(&returning, &pool->waiting);
    while ((link = list_pop_front(&returning)) != NULL) {
        struct entry *entry = container_of(link, struct entry, link);
        const uint64_t lease = entry->lease;
        pool_forget(pool, entry);
        listener_of(pool)->on_returned(listener_of(pool)->context, lease);
    }
}
