/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE /* clock_gettime */
#include "worker/context.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/client_internal.h"
#include "client/session_state.h"
#include "client/task.h"
#include "common/base/assert.h"
#include "common/keys/keys.h"
#include "worker/exec/outcome.h"

#define RESULT_CAPACITY_MIN  4096
#define RESULT_CAPACITY_KEPT 1048576 /* a larger buffer is given back after the attempt */
#define CLEANUP_CAPACITY_MIN 8

#define TRY_ATTEMPTS_MAX 4      /* as brokers have it when nobody says otherwise */
#define TRY_TIMEOUT_MS   300000 /* the same */

/* Texts of an attempt, each with its NUL: service and task, tags, names of meta, the last error. */
#define TEXTS_SIZE                                                                                 \
    (2 * (NAME_SIZE_MAX + 1) + TAG_COUNT_MAX * (NAME_SIZE_MAX + 1) +                               \
     META_COUNT_MAX * (NAME_SIZE_MAX + 1) + NAME_SIZE_MAX + 1 + ERROR_MESSAGE_SIZE_MAX + 1)

struct cleanup {
    void (*run)(void *data);
    void *data;
};

struct treadle_context {
    struct context_config config;
    struct treadle_attempt attempt; /* what the handler is given */
    uint64_t ends_at_us;            /* of timeout and deadline the earlier; UINT64_MAX: neither */
    uint64_t result_size_max;

    uint8_t *result;
    size_t result_size;
    size_t result_capacity;
    bool is_result_too_large; /* then result_size is what it would have */
    bool is_result_lost;      /* memory was out */

    char name[NAME_SIZE_MAX + 1]; /* "": the handler gave none */
    char message[ERROR_MESSAGE_SIZE_MAX + 1];
    enum retry_choice choice;
    uint64_t retry_delay_ms;
    struct trace_tail trace;

    /* The meta as the handler changed it; until then it is what the attempt brought. */
    bool is_meta_own;
    bool is_meta_dirty;
    bool is_meta_kept; /* by the broker: it came with the attempt, or was sent */
    char removed_name[NAME_SIZE_MAX + 1];
    struct treadle_meta removed; /* what stands for "none": see context_take_meta() */
    size_t meta_count;
    struct treadle_meta meta[META_COUNT_MAX];
    void *meta_owned[META_COUNT_MAX]; /* the block of name and value; NULL: the attempt's */

    struct cleanup *cleanups;
    size_t cleanup_count;
    size_t cleanup_capacity;

    treadle_client *client;

    const char *given_tags[TAG_COUNT_MAX];
    struct treadle_meta given_meta[META_COUNT_MAX];
    size_t texts_size;
    char texts[TEXTS_SIZE];
};

_Static_assert((int)TREADLE_FAILURE_UPSTREAM == (int)FAILURE_UPSTREAM, "kinds as on the wire");

uint64_t context_now_us(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- what the handler is given ---- */

/* A copy with a NUL, in the room for the texts of an attempt. */
static const char *keep_text(treadle_context *context, struct bytes text, size_t size_max)
{
    const size_t size = text.size < size_max ? text.size : size_max;
    char *kept = context->texts + context->texts_size;
    TREADLE_ASSERT(context->texts_size + size < TEXTS_SIZE);
    if (size > 0) {
        memcpy(kept, text.data, size);
    }
    kept[size] = '\0';
    context->texts_size += size + 1;
    return kept;
}

static void give_tags(treadle_context *context, const struct worker_attempt *from)
{
    struct wire_list list = from->tags;
    struct wire_tag tag;
    size_t count = 0;
    while (count < TAG_COUNT_MAX && wire_tag_next(&list, &tag)) {
        context->given_tags[count++] = keep_text(context, tag.text, NAME_SIZE_MAX);
    }
    context->attempt.tags = context->given_tags;
    context->attempt.tag_count = count;
}

static void give_meta(treadle_context *context, const struct worker_attempt *from)
{
    struct wire_list list = from->meta;
    struct wire_meta_item item;
    size_t count = 0;
    while (count < META_COUNT_MAX && wire_meta_item_next(&list, &item)) {
        context->given_meta[count++] = (struct treadle_meta){
            .name = keep_text(context, item.name, NAME_SIZE_MAX),
            .value = item.value.data,
            .value_size = item.value.size,
        };
    }
    context->attempt.meta = context->given_meta;
    context->attempt.meta_count = count;
    context->is_meta_kept = count > 0;
}

static void give_last_error(treadle_context *context, const struct worker_attempt *from)
{
    struct wire_list list = from->last_error;
    struct wire_last_error last;
    context->attempt.last_kind = TREADLE_FAILURE_NONE;
    context->attempt.last_name = "";
    context->attempt.last_message = "";
    if (wire_last_error_next(&list, &last)) {
        context->attempt.last_kind = (enum treadle_failure_kind)last.kind;
        context->attempt.last_name = keep_text(context, last.name, NAME_SIZE_MAX);
        context->attempt.last_message = keep_text(context, last.message, ERROR_MESSAGE_SIZE_MAX);
    }
}

static uint64_t end_from_span(uint64_t started_at_us, uint64_t span_ms)
{
    return span_ms == 0 || span_ms > (UINT64_MAX - started_at_us) / 1000
               ? UINT64_MAX
               : started_at_us + span_ms * 1000;
}

static void give_attempt(treadle_context *context, const struct worker_attempt *from,
                         uint64_t started_at_us)
{
    context->texts_size = 0;
    context->attempt = (struct treadle_attempt){
        .size = sizeof(context->attempt),
        .id = from->id,
        .lease = from->lease,
        .service = keep_text(context, from->service, NAME_SIZE_MAX),
        .task = keep_text(context, from->task, NAME_SIZE_MAX),
        .worker = context->config.worker,
        .body = from->body.size > 0 ? from->body.data : NULL,
        .body_size = from->body.size,
        .dispatch = from->dispatch,
        .retry_index = from->retry_index,
        .retry_sequence = from->retry_sequence,
        .attempts_max = from->attempts_max,
        .timeout_ms = from->timeout_ms,
        .deadline_left_ms = from->deadline_left_ms,
    };
    give_tags(context, from);
    give_meta(context, from);
    give_last_error(context, from);
    const uint64_t timeout_at_us = end_from_span(started_at_us, from->timeout_ms);
    const uint64_t deadline_at_us = end_from_span(started_at_us, from->deadline_left_ms);
    context->ends_at_us = timeout_at_us < deadline_at_us ? timeout_at_us : deadline_at_us;
    context->result_size_max = from->result_size_max != 0 && from->result_size_max < BODY_SIZE_LIMIT
                                   ? from->result_size_max
                                   : BODY_SIZE_LIMIT;
}

/* ---- a context's life ---- */

treadle_context *context_create(const struct context_config *config)
{
    treadle_context *context = calloc(1, sizeof(*context));
    if (context != NULL) {
        context->config = *config;
    }
    return context;
}

static void drop_meta(treadle_context *context)
{
    for (size_t i = 0; i < context->meta_count; i++) {
        free(context->meta_owned[i]);
        context->meta_owned[i] = NULL;
    }
    context->meta_count = 0;
    context->is_meta_own = false;
    context->is_meta_dirty = false;
}

/* Forgets the last run. */
static void reset(treadle_context *context)
{
    if (context->result_capacity > RESULT_CAPACITY_KEPT) {
        free(context->result);
        context->result = NULL;
        context->result_capacity = 0;
    }
    context->result_size = 0;
    context->is_result_too_large = false;
    context->is_result_lost = false;
    context->name[0] = '\0';
    context->message[0] = '\0';
    context->choice = RETRY_BY_POLICY;
    context->retry_delay_ms = 0;
    context->trace.size = 0;
    context->trace.is_cut = false;
    if (context->is_meta_own) {
        drop_meta(context);
    }
}

void context_destroy(treadle_context **context_pointer)
{
    treadle_context *context = *context_pointer;
    if (context == NULL) {
        return;
    }
    drop_meta(context);
    treadle_client_close(&context->client);
    free(context->result);
    free(context->cleanups);
    free(context);
    *context_pointer = NULL;
}

bool context_take_meta(treadle_context *context, const struct treadle_meta **meta, size_t *count)
{
    if (!context->is_meta_dirty) {
        return false;
    }
    context->is_meta_dirty = false;
    if (context->meta_count == 0 && !context->is_meta_kept) {
        return false; /* none was there, and none is */
    }
    *meta = context->meta;
    *count = context->meta_count;
    if (context->meta_count == 0) {
        context->removed = (struct treadle_meta){.name = context->removed_name, .value = ""};
        *meta = &context->removed;
        *count = 1;
    }
    context->is_meta_kept = true;
    return true;
}

/* ---- a run ---- */

static void run_cleanups(treadle_context *context)
{
    while (context->cleanup_count > 0) { /* one may register another */
        const struct cleanup cleanup = context->cleanups[--context->cleanup_count];
        cleanup.run(cleanup.data);
    }
}

/* Whether `pattern` is the name, or "prefix.*" (or "*") and the name begins so. */
static bool is_match(const char *pattern, const char *name)
{
    const size_t size = strlen(pattern);
    if (size > 0 && pattern[size - 1] == '*' && (size == 1 || pattern[size - 2] == '.')) {
        return strncmp(pattern, name, size - 1) == 0;
    }
    return strcmp(pattern, name) == 0;
}

static bool is_permanent(const struct treadle_handler *handler, const char *name)
{
    for (size_t i = 0; i < handler->dont_retry_on_count; i++) {
        if (is_match(handler->dont_retry_on[i], name)) {
            return true;
        }
    }
    return false;
}

static void set_failure(treadle_context *context, const char *name, const char *message)
{
    (void)snprintf(context->name, sizeof(context->name), "%s", name);
    (void)snprintf(context->message, sizeof(context->message), "%s", message);
}

static enum failure_kind judge_failure(treadle_context *context,
                                       const struct treadle_handler *handler,
                                       enum treadle_end returned)
{
    if (returned != TREADLE_END_TRANSIENT && returned != TREADLE_END_PERMANENT) {
        set_failure(context, "handler.return", "");
        (void)snprintf(context->message, sizeof(context->message),
                       "the handler returned %d, which is no enum treadle_end", (int)returned);
        return FAILURE_PERMANENT;
    }
    if (context->name[0] == '\0') {
        set_failure(context, "failed", "the handler failed and did not say why");
    }
    return returned == TREADLE_END_PERMANENT || is_permanent(handler, context->name)
               ? FAILURE_PERMANENT
               : FAILURE_TRANSIENT;
}

/* True: the result cannot be given, and the failure says why. */
static bool judge_result(treadle_context *context)
{
    if (context->is_result_too_large) {
        set_failure(context, "result.size", "");
        (void)snprintf(context->message, sizeof(context->message),
                       "the result has %zu bytes, over the limit of %llu", context->result_size,
                       (unsigned long long)context->result_size_max);
    } else if (context->is_result_lost) {
        set_failure(context, "memory", "no memory to keep the result");
    }
    return context->is_result_too_large || context->is_result_lost;
}

void context_run(treadle_context *context, const struct treadle_handler *handler,
                 const struct worker_attempt *attempt, uint64_t started_at_us,
                 struct context_end *end)
{
    reset(context);
    give_attempt(context, attempt, started_at_us);
    const enum treadle_end returned = handler->run(context, &context->attempt);
    if (context->config.on_returned != NULL) {
        context->config.on_returned(context->config.owner);
    }
    run_cleanups(context);
    if (returned == TREADLE_END_SUCCESS && !judge_result(context)) {
        *end = (struct context_end){
            .is_success = true,
            .body = {context->result, context->result_size},
        };
        return;
    }
    end->is_success = false;
    end->body = (struct bytes){0};
    end->kind = returned == TREADLE_END_SUCCESS ? FAILURE_FINALIZE
                                                : judge_failure(context, handler, returned);
    end->choice = context->choice;
    end->retry_delay_ms = context->retry_delay_ms;
    end->name = bytes_from_text(context->name);
    end->message = bytes_from_text(context->message);
    end->trace = trace_tail_text(&context->trace);
}

/* ---- inside a handler ---- */

/* Room for `size` bytes of result, whose content is not kept. */
static bool reserve_result(treadle_context *context, size_t size)
{
    size_t capacity = context->result_capacity;
    if (size <= capacity) {
        return true;
    }
    capacity = capacity < RESULT_CAPACITY_MIN ? RESULT_CAPACITY_MIN : capacity * 2;
    capacity = capacity < size ? size : capacity;
    uint8_t *result = malloc(capacity);
    if (result == NULL) {
        return false;
    }
    free(context->result);
    context->result = result;
    context->result_capacity = capacity;
    return true;
}

enum treadle_end treadle_context_result(treadle_context *context, const void *body,
                                        size_t body_size)
{
    context->is_result_too_large = body_size > context->result_size_max;
    context->is_result_lost = false;
    context->result_size = 0;
    if (body == NULL && body_size > 0) {
        return treadle_context_fail(context, TREADLE_END_PERMANENT, "handler.result",
                                    "the result is NULL, but its size is %zu", body_size);
    }
    if (context->is_result_too_large) {
        context->result_size = body_size;
        return TREADLE_END_SUCCESS; /* the end of the attempt says it, with kind finalize */
    }
    if (!reserve_result(context, body_size)) {
        context->is_result_lost = true;
        return treadle_context_fail(context, TREADLE_END_TRANSIENT, "memory",
                                    "no memory to keep the result of %zu bytes", body_size);
    }
    if (body_size > 0) {
        memcpy(context->result, body, body_size);
    }
    context->result_size = body_size;
    return TREADLE_END_SUCCESS;
}

/* Does not let a text of `size` bytes end within a character of UTF-8. */
static size_t whole_characters(const char *text, size_t size)
{
    size_t start = size;
    while (start > 0 && size - start < 3 && ((uint8_t)text[start - 1] & 0xc0) == 0x80) {
        start--;
    }
    if (start == 0 || ((uint8_t)text[start - 1] & 0xc0) != 0xc0) {
        return size; /* ends in ASCII, or is no UTF-8 at all */
    }
    const uint8_t first = (uint8_t)text[start - 1];
    const size_t wanted = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    return size - (start - 1) < wanted ? start - 1 : size;
}

enum treadle_end treadle_context_fail(treadle_context *context, enum treadle_end end,
                                      const char *name, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    const int size = vsnprintf(context->message, sizeof(context->message), format, arguments);
    va_end(arguments);
    if (size < 0) {
        context->message[0] = '\0';
    } else if ((size_t)size > ERROR_MESSAGE_SIZE_MAX) {
        context->message[whole_characters(context->message, ERROR_MESSAGE_SIZE_MAX)] = '\0';
    }
    (void)snprintf(context->name, sizeof(context->name), "%s",
                   name != NULL && name[0] != '\0' ? name : "failed");
    return end == TREADLE_END_PERMANENT ? TREADLE_END_PERMANENT : TREADLE_END_TRANSIENT;
}

void treadle_context_trace(treadle_context *context, const char *text)
{
    if (text != NULL) {
        trace_tail_add(&context->trace, (const uint8_t *)text, strlen(text));
    }
}

void treadle_context_retry_after(treadle_context *context, uint64_t delay_ms)
{
    context->choice = RETRY_AFTER;
    context->retry_delay_ms = delay_ms < SPAN_MAX_MS ? delay_ms : SPAN_MAX_MS;
}

void treadle_context_retry_stop(treadle_context *context)
{
    context->choice = RETRY_STOP;
    context->retry_delay_ms = 0;
}

int treadle_context_is_cancelled(const treadle_context *context)
{
    return context->config.is_cancelled != NULL &&
           context->config.is_cancelled(context->config.owner);
}

uint64_t treadle_context_time_left_ms(const treadle_context *context)
{
    if (context->ends_at_us == UINT64_MAX) {
        return UINT64_MAX;
    }
    const uint64_t now_us = context_now_us();
    return context->ends_at_us > now_us ? (context->ends_at_us - now_us) / 1000 : 0;
}

void treadle_context_progress(treadle_context *context)
{
    if (context->config.on_progress != NULL) {
        context->config.on_progress(context->config.owner);
    }
}

/* ---- meta ---- */

/* The values stay where they are: they are there until the handler returns. */
static void make_meta_own(treadle_context *context)
{
    if (context->is_meta_own) {
        return;
    }
    context->is_meta_own = true;
    context->meta_count = context->attempt.meta_count;
    for (size_t i = 0; i < context->meta_count; i++) {
        context->meta[i] = context->given_meta[i];
        context->meta_owned[i] = NULL;
    }
}

/* Where the name is, or meta_count. */
static size_t find_meta(const treadle_context *context, const char *name)
{
    size_t i = 0;
    while (i < context->meta_count && strcmp(context->meta[i].name, name) != 0) {
        i++;
    }
    return i;
}

static void remove_meta(treadle_context *context, size_t at)
{
    if (at == context->meta_count) {
        return;
    }
    (void)snprintf(context->removed_name, sizeof(context->removed_name), "%s",
                   context->meta[at].name);
    free(context->meta_owned[at]);
    context->meta_count--;
    for (size_t i = at; i < context->meta_count; i++) {
        context->meta[i] = context->meta[i + 1];
        context->meta_owned[i] = context->meta_owned[i + 1];
    }
    context->meta_owned[context->meta_count] = NULL;
    context->is_meta_dirty = true;
}

/* Names and values, less those at `without`. */
static size_t meta_size(const treadle_context *context, size_t without)
{
    size_t size = 0;
    for (size_t i = 0; i < context->meta_count; i++) {
        if (i != without) {
            size += strlen(context->meta[i].name) + context->meta[i].value_size;
        }
    }
    return size;
}

enum treadle_status treadle_context_set_meta(treadle_context *context, const char *name,
                                             const void *value, size_t value_size)
{
    const size_t name_size = name == NULL ? 0 : strlen(name);
    if (name_size == 0 || name_size > NAME_SIZE_MAX || (value == NULL && value_size > 0)) {
        return TREADLE_E_INVALID;
    }
    make_meta_own(context);
    const size_t at = find_meta(context, name);
    if (value == NULL) {
        remove_meta(context, at);
        return TREADLE_OK;
    }
    if (at == META_COUNT_MAX || value_size > META_SIZE_MAX ||
        meta_size(context, at) + name_size + value_size > META_SIZE_MAX) {
        return TREADLE_E_LIMIT;
    }
    char *owned = malloc(name_size + 1 + value_size);
    if (owned == NULL) {
        return TREADLE_E_NOMEM;
    }
    memcpy(owned, name, name_size + 1);
    memcpy(owned + name_size + 1, value, value_size);
    if (at == context->meta_count) {
        context->meta_count++;
    } else {
        free(context->meta_owned[at]);
    }
    context->meta_owned[at] = owned;
    context->meta[at] = (struct treadle_meta){
        .name = owned,
        .value = owned + name_size + 1,
        .value_size = value_size,
    };
    context->is_meta_dirty = true;
    return TREADLE_OK;
}

/* ---- cleanups, more tasks ---- */

enum treadle_status treadle_context_on_end(treadle_context *context, void (*cleanup)(void *data),
                                           void *data)
{
    if (cleanup == NULL) {
        return TREADLE_E_INVALID;
    }
    if (context->cleanup_count == context->cleanup_capacity) {
        const size_t capacity =
            context->cleanup_capacity == 0 ? CLEANUP_CAPACITY_MIN : context->cleanup_capacity * 2;
        struct cleanup *cleanups =
            realloc(context->cleanups, capacity * sizeof(context->cleanups[0]));
        if (cleanups == NULL) {
            return TREADLE_E_NOMEM;
        }
        context->cleanups = cleanups;
        context->cleanup_capacity = capacity;
    }
    context->cleanups[context->cleanup_count++] = (struct cleanup){cleanup, data};
    return TREADLE_OK;
}

treadle_client *treadle_context_client(treadle_context *context)
{
    if (context->client == NULL && context->config.has_client) {
        const struct treadle_client_options options = {
            .size = sizeof(options),
            .broker = context->config.broker,
            .identity = context->config.identity,
            .server_key = context->config.server_key,
        };
        if (options.broker == NULL || strncmp(options.broker, "tcp://", 6) == 0) {
            key_protect_process(); /* this process may have a secret from here on */
        }
        if (treadle_client_open(&context->client, &options) != TREADLE_OK) {
            context->client = NULL;
        }
    }
    return context->client;
}

/* ---- test mode ---- */

/* Whether SERVICE.TASK or SERVICE.* is for this task. */
static bool serves(const char *pattern, const struct wire_submit_template *task)
{
    const char *dot = pattern == NULL ? NULL : strrchr(pattern, '.');
    if (dot == NULL) {
        return false;
    }
    const struct bytes service = {(const uint8_t *)pattern, (size_t)(dot - pattern)};
    return bytes_is_equal(service, task->service) &&
           (strcmp(dot + 1, "*") == 0 || bytes_is_equal(bytes_from_text(dot + 1), task->task));
}

/* The attempt that a broker would hand out first. */
static struct worker_attempt first_attempt(const struct client_submission *submission,
                                           const struct treadle_policy *policy)
{
    const struct wire_submit_template *fields = submission->fields;
    struct worker_attempt attempt = {
        .lease = 1,
        .id = submission->id,
        .service = fields->service,
        .task = fields->task,
        .body = submission->body,
        .dispatch = 1,
        .attempts_max = TRY_ATTEMPTS_MAX,
        .timeout_ms = TRY_TIMEOUT_MS,
        .result_size_max = BODY_SIZE_LIMIT,
        .deadline_left_ms = policy->deadline_ms,
        .tags = fields->tags,
        .meta = fields->meta,
    };
    if (fields->policy.attempts_max != 0 || policy->attempts_max != 0) {
        attempt.attempts_max = fields->policy.attempts_max != 0
                                   ? (uint32_t)fields->policy.attempts_max
                                   : policy->attempts_max;
    }
    if (fields->policy.timeout_ms != 0 || policy->timeout_ms != 0) {
        attempt.timeout_ms =
            fields->policy.timeout_ms != 0 ? fields->policy.timeout_ms : policy->timeout_ms;
    }
    if (fields->policy.deadline_ms != 0) {
        attempt.deadline_left_ms = fields->policy.deadline_ms;
    }
    return attempt;
}

/* The outcome of an attempt that was the last one. */
static enum treadle_status outcome_from_end(const struct worker_attempt *attempt,
                                            const struct context_end *end,
                                            struct treadle_outcome **outcome)
{
    struct writer errors;
    struct wire_settled_entry settled = {
        .id = attempt->id,
        .outcome = end->is_success ? TASK_SUCCEEDED : TASK_FAILED,
        .kind = end->is_success ? FAILURE_NONE : end->kind,
        .dispatch = 1,
        .attempts = 1,
        .attempts_max = attempt->attempts_max,
        .body = end->body,
    };
    const struct wire_attempt_error error = {
        .dispatch = 1,
        .kind = end->kind,
        .name = end->name,
        .message = end->message,
        .trace = end->trace,
    };
    writer_init(&errors);
    if (!end->is_success && !wire_attempt_error_encode(&errors, &error)) {
        writer_free(&errors);
        return TREADLE_E_NOMEM;
    }
    settled.error = wire_list_from_writer(&errors, errors.record_count);
    struct client_event *event = client_event_from_settled(&settled);
    writer_free(&errors);
    return event == NULL ? TREADLE_E_NOMEM : client_outcome_from_event(&event, outcome);
}

static enum treadle_status try_task(const struct treadle_handler *handler,
                                    const struct treadle_policy *policy,
                                    const struct client_submission *submission,
                                    struct treadle_outcome **outcome)
{
    const struct worker_attempt attempt = first_attempt(submission, policy);
    const struct context_config config = {.worker = "test"};
    struct context_end end;
    treadle_context *context = context_create(&config);
    if (context == NULL) {
        return TREADLE_E_NOMEM;
    }
    context_run(context, handler, &attempt, context_now_us(), &end);
    const enum treadle_status status = outcome_from_end(&attempt, &end, outcome);
    context_destroy(&context);
    return status;
}

enum treadle_status treadle_handler_try(const struct treadle_handler *given,
                                        const struct treadle_task *task,
                                        struct treadle_outcome **outcome)
{
    struct treadle_handler handler = {0};
    struct treadle_policy policy = {0};
    struct task_reader reader;
    const char *why = NULL;
    if (!client_options_copy(&handler, sizeof(handler), given, given->size) ||
        handler.run == NULL ||
        (handler.policy != NULL &&
         !client_options_copy(&policy, sizeof(policy), handler.policy, handler.policy->size))) {
        return TREADLE_E_INVALID;
    }
    client_task_reader_init(&reader);
    enum treadle_status status = TREADLE_E_INVALID;
    if (client_task_read(&reader, task, &why) && serves(handler.name, reader.submission.fields)) {
        status = try_task(&handler, &policy, &reader.submission, outcome);
    }
    client_task_reader_reset(&reader);
    return status;
}
