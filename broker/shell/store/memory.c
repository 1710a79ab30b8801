/* SPDX-License-Identifier: MPL-2.0 */
/* The store in memory: a place for each of the core's task numbers, and parts from malloc(). */
#define _GNU_SOURCE

#include "broker/shell/store/store.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "common/base/assert.h"

/* One allocation. Parts that were dropped stay until store_release(), because open messages may
 * point at them. */
struct part {
    struct part *next; /* in store.dropped */
    size_t size;
    uint8_t data[];
};

/* Tags, meta and tenant of a submission: tasks of one template share them. */
struct extras {
    uint32_t reference_count;
    uint32_t tag_count;
    uint32_t meta_count;
    size_t tags_size;
    size_t meta_size;
    size_t tenant_size;
    struct part *part; /* tags, meta, tenant, one after the other */
};

/* The errors of failed attempts, oldest first: each part one encoded attempt_error. */
struct history {
    uint32_t count;
    struct part *errors[ATTEMPT_HISTORY_MAX];
};

/* What is kept of one task. */
struct place {
    uint64_t sequence; /* 0: nothing */
    uint64_t submitted_at_unix_ms;
    uint64_t settled_at_unix_ms;
    struct part *body;   /* NULL: empty */
    struct part *result; /* NULL: empty, or not there */
    struct part *meta;   /* replaces that of the extras */
    struct extras *extras;
    struct history *history;
    uint32_t meta_count;
    bool is_meta_replaced;
    bool is_cancel_intended;
};

struct store {
    struct place *places;
    uint32_t task_count_max;
    uint64_t record_number;  /* of the last record */
    uint64_t durable_number; /* as of the last flush */
    uint64_t next_error_id;
    struct extras *last_extras; /* of the last task accepted: the next often has the same */
    struct part *dropped;
    struct writer scratch; /* errors are encoded here */
    struct store_counts counts;
};

struct store *store_create_memory(uint32_t task_count_max)
{
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL) {
        return NULL;
    }
    const size_t size = sizeof(struct place) * task_count_max;
    void *places = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (places == MAP_FAILED) {
        free(store);
        return NULL;
    }
    store->places = places;
    store->task_count_max = task_count_max;
    store->next_error_id = 1;
    writer_init(&store->scratch);
    return store;
}

/* ---- parts ---- */

/* NULL without memory. */
static struct part *part_create(struct store *store, size_t size)
{
    struct part *part = malloc(sizeof *part + size);
    if (part == NULL) {
        return NULL;
    }
    part->next = NULL;
    part->size = size;
    store->counts.byte_count += sizeof *part + size;
    return part;
}

/* *out: NULL for no bytes. False without memory. */
static bool part_copy(struct store *store, struct bytes bytes, struct part **out)
{
    *out = NULL;
    if (bytes.size == 0) {
        return true;
    }
    struct part *part = part_create(store, bytes.size);
    if (part == NULL) {
        return false;
    }
    memcpy(part->data, bytes.data, bytes.size);
    *out = part;
    return true;
}

static void part_drop(struct store *store, struct part **part)
{
    if (*part == NULL) {
        return;
    }
    (*part)->next = store->dropped;
    store->dropped = *part;
    store->counts.byte_count -= sizeof **part + (*part)->size;
    *part = NULL;
}

static struct bytes part_bytes(const struct part *part)
{
    return part == NULL ? (struct bytes){0} : (struct bytes){part->data, part->size};
}

void store_release(struct store *store)
{
    while (store->dropped != NULL) {
        struct part *part = store->dropped;
        store->dropped = part->next;
        free(part);
    }
}

/* ---- extras ---- */

static void extras_give(struct store *store, struct extras **extras)
{
    if (*extras != NULL) {
        TREADLE_ASSERT((*extras)->reference_count > 0);
        (*extras)->reference_count--;
        if ((*extras)->reference_count == 0) {
            part_drop(store, &(*extras)->part);
            store->counts.byte_count -= sizeof **extras;
            free(*extras);
        }
    }
    *extras = NULL;
}

/* Where a part of the extras begins; any address for an empty one. */
static const uint8_t *extras_at(const struct extras *extras, size_t offset)
{
    return extras->part->data + offset;
}

static struct bytes list_bytes(const struct wire_list *list)
{
    return (struct bytes){list->at, list->size};
}

static bool extras_is_same(const struct extras *extras, const struct wire_submit_template *template)
{
    return extras != NULL && extras->tag_count == template->tags.count &&
           extras->meta_count == template->meta.count &&
           bytes_is_equal((struct bytes){extras_at(extras, 0), extras->tags_size},
                          list_bytes(&template->tags)) &&
           bytes_is_equal((struct bytes){extras_at(extras, extras->tags_size), extras->meta_size},
                          list_bytes(&template->meta)) &&
           bytes_is_equal((struct bytes){extras_at(extras, extras->tags_size + extras->meta_size),
                                         extras->tenant_size},
                          template->tenant);
}

static void copy_bytes(uint8_t **to, struct bytes bytes)
{
    if (bytes.size > 0) {
        memcpy(*to, bytes.data, bytes.size);
        *to += bytes.size;
    }
}

/* NULL without memory. */
static struct extras *extras_create(struct store *store,
                                    const struct wire_submit_template *template)
{
    struct extras *extras = malloc(sizeof *extras);
    if (extras == NULL) {
        return NULL;
    }
    *extras = (struct extras){
        .reference_count = 1,
        .tag_count = template->tags.count,
        .meta_count = template->meta.count,
        .tags_size = template->tags.size,
        .meta_size = template->meta.size,
        .tenant_size = template->tenant.size,
    };
    extras->part = part_create(store, extras->tags_size + extras->meta_size + extras->tenant_size);
    if (extras->part == NULL) {
        free(extras);
        return NULL;
    }
    store->counts.byte_count += sizeof *extras;
    uint8_t *to = extras->part->data;
    copy_bytes(&to, list_bytes(&template->tags));
    copy_bytes(&to, list_bytes(&template->meta));
    copy_bytes(&to, template->tenant);
    return extras;
}

/* *out: NULL if the template brings nothing. False without memory. */
static bool extras_take(struct store *store, const struct wire_submit_template *template,
                        struct extras **out)
{
    *out = NULL;
    if (template->tags.count == 0 && template->meta.count == 0 && template->tenant.size == 0) {
        return true;
    }
    if (!extras_is_same(store->last_extras, template)) {
        struct extras *extras = extras_create(store, template);
        if (extras == NULL) {
            return false;
        }
        extras_give(store, &store->last_extras);
        store->last_extras = extras;
    }
    store->last_extras->reference_count++;
    *out = store->last_extras;
    return true;
}

/* ---- errors ---- */

struct verdict {
    const char *name;
    const char *message;
};

/* What the broker says about attempts that no worker reported. */
static struct verdict verdict_of(enum failure_kind kind)
{
    static const struct verdict verdicts[FAILURE_KIND_COUNT] = {
        [FAILURE_NONE] = {"broker.none", "no failure"},
        [FAILURE_PREPARE] = {"broker.prepare", "the handler could not start"},
        [FAILURE_PERMANENT] = {"broker.permanent", "failed for good"},
        [FAILURE_TRANSIENT] = {"broker.transient", "failed"},
        [FAILURE_TIMEOUT] = {"broker.timeout", "the worker was silent past the attempt's backstop"},
        [FAILURE_CRASH] = {"broker.crash", "the process that was running the task died"},
        [FAILURE_LOST] = {"broker.lost", "the worker's session ended"},
        [FAILURE_RETURNED] = {"broker.returned", "handed back before it started"},
        [FAILURE_FINALIZE] = {"broker.finalize", "the result is over the limit"},
        [FAILURE_DAMAGED] = {"broker.damaged", "the stored body is damaged"},
        [FAILURE_CANCELLED] = {"broker.cancelled", "cancelled while it was running"},
        [FAILURE_EXPIRED] = {"broker.expired", "the task's deadline passed while it was running"},
        [FAILURE_UPSTREAM] = {"broker.upstream_failed", "an upstream task failed"},
    };
    TREADLE_ASSERT(kind < FAILURE_KIND_COUNT);
    return verdicts[kind];
}

static struct bytes name_bytes(const struct name *name)
{
    return (struct bytes){(const uint8_t *)name->text, name->size};
}

/* The error without what the worker told of it. */
static struct wire_attempt_error error_of(struct store *store, const struct core *core,
                                          const struct effect *effect, uint64_t unix_ms)
{
    const struct task *task = &core->tasks[effect->task];
    struct wire_attempt_error error = {
        .error_id = store->next_error_id,
        .dispatch = task->dispatches,
        .retry_index = effect->value,
        .retry_sequence = task->retry_sequence,
        .kind = effect->reason,
        .failed_at_unix_ms = unix_ms,
    };
    if (effect->attempt != NONE) {
        const struct attempt *attempt = &core->attempts[effect->attempt];
        error.duration_ms = core->now_ms - attempt->dispatched_at_ms;
        if (attempt->session != NONE) {
            error.worker = name_bytes(&core->sessions[attempt->session].name);
            error.host = name_bytes(&core->sessions[attempt->session].host);
        }
    }
    const struct verdict verdict = verdict_of((enum failure_kind)effect->reason);
    error.name = bytes_from_text(verdict.name);
    error.message = bytes_from_text(verdict.message);
    return error;
}

static void add_report(struct wire_attempt_error *error, const struct wire_failure_entry *failure)
{
    error->name = failure->name;
    error->message = failure->message;
    error->trace = failure->trace;
    error->duration_ms = failure->duration_ms;
    error->user_ms = failure->user_ms;
    error->system_ms = failure->system_ms;
    error->max_rss_kib = failure->max_rss_kib;
    error->signal = failure->signal;
}

/* Keeps the first and the newest ones. */
static void history_add(struct store *store, struct history *history, struct part *part)
{
    if (history->count == ATTEMPT_HISTORY_MAX) {
        part_drop(store, &history->errors[1]);
        for (uint32_t i = 1; i + 1 < ATTEMPT_HISTORY_MAX; i++) {
            history->errors[i] = history->errors[i + 1];
        }
        history->count--;
        store->counts.error_dropped++;
    }
    history->errors[history->count] = part;
    history->count++;
}

static void history_destroy(struct store *store, struct history **history)
{
    if (*history == NULL) {
        return;
    }
    for (uint32_t i = 0; i < (*history)->count; i++) {
        part_drop(store, &(*history)->errors[i]);
    }
    store->counts.byte_count -= sizeof **history;
    free(*history);
    *history = NULL;
}

static bool on_attempt_failed(struct store *store, struct place *place, const struct core *core,
                              const struct effect *effect, uint64_t unix_ms)
{
    if (place->history == NULL) {
        place->history = calloc(1, sizeof *place->history);
        if (place->history == NULL) {
            return false;
        }
        store->counts.byte_count += sizeof *place->history;
    }
    struct wire_attempt_error error = error_of(store, core, effect, unix_ms);
    if (effect->failure != NULL) {
        add_report(&error, effect->failure);
    }
    writer_reset(&store->scratch);
    if (!wire_attempt_error_encode(&store->scratch, &error)) {
        TREADLE_ASSERT(store->scratch.error_field == NULL); /* all fields were checked before */
        return false;
    }
    struct part *part = NULL;
    if (!part_copy(store, (struct bytes){store->scratch.data, store->scratch.size}, &part)) {
        return false;
    }
    store->next_error_id++;
    history_add(store, place->history, part);
    return true;
}

/* ---- records ---- */

static bool on_accepted(struct store *store, struct place *place, const struct effect *effect,
                        uint64_t unix_ms)
{
    TREADLE_ASSERT(place->sequence == 0);
    struct part *body = NULL;
    struct extras *extras = NULL;
    if (!part_copy(store, effect->body, &body)) {
        return false;
    }
    if (!extras_take(store, effect->template, &extras)) {
        part_drop(store, &body);
        return false;
    }
    *place = (struct place){
        .sequence = effect->sequence,
        .submitted_at_unix_ms = unix_ms,
        .body = body,
        .extras = extras,
    };
    store->counts.task_count++;
    return true;
}

static bool on_meta(struct store *store, struct place *place, const struct wire_list *meta)
{
    struct part *part = NULL;
    if (!part_copy(store, list_bytes(meta), &part)) {
        return false;
    }
    part_drop(store, &place->meta);
    place->meta = part;
    place->meta_count = meta->count;
    place->is_meta_replaced = true;
    return true;
}

static bool on_settled(struct store *store, struct place *place, const struct effect *effect,
                       uint64_t unix_ms)
{
    struct part *result = NULL;
    if (!part_copy(store, effect->body, &result)) {
        return false;
    }
    part_drop(store, &place->result);
    place->result = result;
    place->settled_at_unix_ms = unix_ms;
    if (effect->status == TASK_SUCCEEDED || effect->status == TASK_CANCELLED) {
        part_drop(store, &place->body); /* only a dead letter may be wanted again */
    }
    return true;
}

static void place_drop(struct store *store, struct place *place)
{
    part_drop(store, &place->body);
    part_drop(store, &place->result);
    part_drop(store, &place->meta);
    extras_give(store, &place->extras);
    history_destroy(store, &place->history);
    *place = (struct place){0};
    TREADLE_ASSERT(store->counts.task_count > 0);
    store->counts.task_count--;
}

static bool append(struct store *store, struct place *place, const struct core *core,
                   const struct effect *effect, uint64_t unix_ms)
{
    switch ((enum record_kind)effect->code) {
    case RECORD_ACCEPTED:
        return on_accepted(store, place, effect, unix_ms);
    case RECORD_DISPATCHED:
        return true; /* tells a restarted broker who held the lease; memory does not outlive it */
    case RECORD_ATTEMPT_FAILED:
        return on_attempt_failed(store, place, core, effect, unix_ms);
    case RECORD_META:
        return on_meta(store, place, effect->meta);
    case RECORD_CANCEL_INTENT:
        place->is_cancel_intended = true;
        return true;
    case RECORD_SETTLED:
        return on_settled(store, place, effect, unix_ms);
    case RECORD_RESULT_DROPPED:
        part_drop(store, &place->result);
        return true;
    case RECORD_DROPPED:
        place_drop(store, place);
        return true;
    case RECORD_KIND_COUNT:
        break;
    }
    TREADLE_ASSERT(false);
    return false;
}

bool store_append(struct store *store, const struct core *core, const struct effect *effect,
                  uint64_t unix_ms)
{
    TREADLE_ASSERT(effect->kind == EFFECT_PERSIST && effect->task < store->task_count_max);
    TREADLE_ASSERT(effect->number == store->record_number + 1);
    struct place *place = &store->places[effect->task];
    const uint64_t table_size = sizeof *place * ((uint64_t)effect->task + 1);
    if (table_size > store->counts.table_size) {
        store->counts.table_size = table_size;
    }
    TREADLE_ASSERT(effect->code == RECORD_ACCEPTED || place->sequence == effect->sequence);
    if (!append(store, place, core, effect, unix_ms)) {
        return false;
    }
    store->record_number = effect->number;
    store->counts.record_count++;
    return true;
}

uint64_t store_flush(struct store *store)
{
    store->durable_number = store->record_number;
    return store->durable_number;
}

/* ---- looking things up ---- */

static void view_extras(const struct extras *extras, struct store_view *view)
{
    view->tags = (struct wire_list){
        .at = extras_at(extras, 0), .size = extras->tags_size, .count = extras->tag_count};
    view->meta = (struct wire_list){.at = extras_at(extras, extras->tags_size),
                                    .size = extras->meta_size,
                                    .count = extras->meta_count};
    view->tenant = (struct bytes){extras_at(extras, extras->tags_size + extras->meta_size),
                                  extras->tenant_size};
}

bool store_find(const struct store *store, uint32_t task, uint64_t sequence,
                struct store_view *view)
{
    *view = (struct store_view){0};
    TREADLE_ASSERT(task < store->task_count_max);
    const struct place *place = &store->places[task];
    if (sequence == 0 || place->sequence != sequence) {
        return false;
    }
    view->submitted_at_unix_ms = place->submitted_at_unix_ms;
    view->settled_at_unix_ms = place->settled_at_unix_ms;
    view->body = part_bytes(place->body);
    view->result = part_bytes(place->result);
    view->is_cancel_intended = place->is_cancel_intended;
    if (place->extras != NULL) {
        view_extras(place->extras, view);
    }
    if (place->is_meta_replaced) {
        const struct bytes meta = part_bytes(place->meta);
        view->meta =
            (struct wire_list){.at = meta.data, .size = meta.size, .count = place->meta_count};
    }
    if (place->history != NULL && place->history->count > 0) {
        view->error_count = place->history->count;
        view->last_error = store_error(store, task, view->error_count - 1);
    }
    return true;
}

struct wire_list store_error(const struct store *store, uint32_t task, uint32_t index)
{
    TREADLE_ASSERT(task < store->task_count_max && store->places[task].history != NULL);
    const struct history *history = store->places[task].history;
    TREADLE_ASSERT(index < history->count);
    const struct part *part = history->errors[index];
    return (struct wire_list){.at = part->data, .size = part->size, .count = 1};
}

struct store_counts store_counts(const struct store *store)
{
    return store->counts;
}

void store_destroy(struct store **store_pointer)
{
    struct store *store = *store_pointer;
    if (store == NULL) {
        return;
    }
    for (uint32_t i = 0; i < store->task_count_max && store->counts.task_count > 0; i++) {
        if (store->places[i].sequence != 0) {
            place_drop(store, &store->places[i]);
        }
    }
    extras_give(store, &store->last_extras);
    store_release(store);
    writer_free(&store->scratch);
    (void)munmap(store->places, sizeof(struct place) * store->task_count_max);
    free(store);
    *store_pointer = NULL;
}
