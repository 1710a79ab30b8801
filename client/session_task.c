/* SPDX-License-Identifier: MPL-2.0 */
#include "client/session_state.h"

#include <stdlib.h>
#include <string.h>

/* ---- the heap of those that wait for a time ---- */

static void heap_put(struct client_session *session, uint32_t index, struct session_task *task)
{
    session->heap[index] = task;
    task->heap_index = index;
}

static void heap_sift_up(struct client_session *session, struct session_task *task, uint32_t index)
{
    while (index > 0) {
        const uint32_t parent = (index - 1) / 2;
        if (session->heap[parent]->retry_at_ms <= task->retry_at_ms) {
            break;
        }
        heap_put(session, index, session->heap[parent]);
        index = parent;
    }
    heap_put(session, index, task);
}

static void heap_sift_down(struct client_session *session, struct session_task *task,
                           uint32_t index)
{
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= session->heap_count) {
            break;
        }
        if (child + 1 < session->heap_count &&
            session->heap[child + 1]->retry_at_ms < session->heap[child]->retry_at_ms) {
            child++;
        }
        if (session->heap[child]->retry_at_ms >= task->retry_at_ms) {
            break;
        }
        heap_put(session, index, session->heap[child]);
        index = child;
    }
    heap_put(session, index, task);
}

static void heap_add(struct client_session *session, struct session_task *task)
{
    TREADLE_ASSERT(session->heap_count < session->in_flight_max);
    heap_sift_up(session, task, session->heap_count++);
}

static void heap_remove(struct client_session *session, const struct session_task *task)
{
    const uint32_t index = task->heap_index;
    TREADLE_ASSERT(index < session->heap_count && session->heap[index] == task);
    struct session_task *last = session->heap[--session->heap_count];
    if (last == task) {
        return;
    }
    if (last->retry_at_ms < task->retry_at_ms) {
        heap_sift_up(session, last, index);
    } else {
        heap_sift_down(session, last, index);
    }
}

/* ---- templates ---- */

#define BUCKETS_MAX (UINT32_C(1) << 24)

static struct template **bucket_of(const struct client_session *session, uint64_t hash)
{
    return &session->templates[hash & (session->template_bucket_count - 1)];
}

bool client_templates_init(struct client_session *session)
{
    session->template_bucket_count = TEMPLATE_BUCKETS_MIN;
    session->templates = calloc(TEMPLATE_BUCKETS_MIN, sizeof(struct template *));
    return session->templates != NULL;
}

/* Without memory all stays as it is, and is slower. */
static void add_buckets(struct client_session *session)
{
    const uint32_t old_count = session->template_bucket_count;
    struct template **old = session->templates;
    struct template **buckets = calloc((size_t)old_count * 2, sizeof(struct template *));
    if (buckets == NULL) {
        return;
    }
    session->templates = buckets;
    session->template_bucket_count = old_count * 2;
    for (uint32_t i = 0; i < old_count; i++) {
        while (old[i] != NULL) {
            struct template *template = old[i];
            struct template **bucket = bucket_of(session, template->hash);
            old[i] = template->next;
            template->next = *bucket;
            *bucket = template;
        }
    }
    free(old);
}

struct template *client_template_take(struct client_session *session,
                                      const struct wire_submit_template *fields)
{
    const struct writer *scratch = &session->scratch;
    const uint64_t hash = hash_bytes(&session->hash_key, scratch->data, scratch->size);
    struct template **bucket = bucket_of(session, hash);
    for (struct template *template = *bucket; template != NULL; template = template->next) {
        if (template->hash == hash && template->size == scratch->size &&
            memcmp(template->data, scratch->data, scratch->size) == 0) {
            template->reference_count++;
            return template;
        }
    }
    struct template *template = malloc(sizeof(*template) + scratch->size);
    if (template == NULL) {
        return NULL;
    }
    *template = (struct template){
        .next = *bucket,
        .hash = hash,
        .reference_count = 1,
        .deadline_ms = fields->policy.deadline_ms,
        .size = scratch->size,
    };
    memcpy(template->data, scratch->data, scratch->size);
    *bucket = template;
    session->held_size += sizeof(*template) + template->size;
    if (++session->template_count > session->template_bucket_count &&
        session->template_bucket_count < BUCKETS_MAX) {
        add_buckets(session);
    }
    return template;
}

void client_template_give(struct client_session *session, struct template *template)
{
    if (--template->reference_count > 0) {
        return;
    }
    struct template **at = bucket_of(session, template->hash);
    while (*at != template) {
        at = &(*at)->next;
    }
    *at = template->next;
    session->template_count--;
    session->held_size -= sizeof(*template) + template->size;
    free(template);
}

/* ---- tasks ---- */

static bool is_task_with_id(const void *context, uint32_t value, const void *key)
{
    const struct client_session *session = context;
    return memcmp(session->tasks[value]->id.bytes, key, sizeof(struct treadle_task_id)) == 0;
}

struct session_task *client_task_find(const struct client_session *session,
                                      const struct treadle_task_id *id)
{
    const uint64_t hash = hash_id16(&session->hash_key, id->bytes);
    const uint32_t index = map_find(&session->map, hash, is_task_with_id, session, id->bytes);
    return index == MAP_NONE ? NULL : session->tasks[index];
}

static bool is_heap_stage(enum stage stage)
{
    return stage == STAGE_BUSY || stage == STAGE_AWAIT_BUSY;
}

void client_task_unlink(struct client_session *session, struct session_task *task)
{
    list_remove(&task->link);
    session->stage_counts[task->stage]--;
    if (task->stage == STAGE_SENT) {
        session->sent_size -= task->body_size;
    }
    if (is_heap_stage(task->stage)) {
        heap_remove(session, task);
    }
}

void client_task_link(struct client_session *session, struct session_task *task, enum stage stage,
                      bool is_first)
{
    task->stage = (uint8_t)stage;
    session->stage_counts[stage]++;
    if (stage == STAGE_SENT) {
        session->sent_size += task->body_size;
    }
    if (is_heap_stage(stage)) {
        heap_add(session, task);
    }
    if (is_first) {
        list_push_front(&session->stages[stage], &task->link);
    } else {
        list_push_back(&session->stages[stage], &task->link);
    }
}

void client_task_move(struct client_session *session, struct session_task *task, enum stage stage)
{
    client_task_unlink(session, task);
    client_task_link(session, task, stage, false);
}

void client_task_set_watched(struct client_session *session, struct session_task *task,
                             bool is_watched)
{
    if (task->is_watched != is_watched) {
        task->is_watched = is_watched;
        session->watched_count += is_watched ? 1U : UINT32_MAX; /* one more, or one less */
    }
}

#define INDEX_OVERHEAD 48 /* of an allocation, in the table of tasks, in the map */

uint64_t client_task_cost(uint64_t body_size)
{
    return sizeof(struct session_task) + body_size + INDEX_OVERHEAD;
}

struct session_task *client_task_create(struct client_session *session, struct treadle_task_id id,
                                        struct bytes body, enum stage stage)
{
    struct session_task *task = malloc(sizeof(*task) + body.size);
    if (task == NULL) {
        return NULL;
    }
    *task = (struct session_task){.id = id, .body_size = (uint32_t)body.size};
    if (body.size > 0) {
        memcpy(task->body, body.data, body.size);
    }
    task->index = session->free_count > 0 ? session->free_indexes[--session->free_count]
                                          : session->index_count++;
    session->tasks[task->index] = task;
    map_add(&session->map, hash_id16(&session->hash_key, id.bytes), task->index);
    session->held_size += client_task_cost(body.size);
    list_init(&task->link);
    client_task_link(session, task, stage, false);
    return task;
}

void client_task_destroy(struct client_session *session, struct session_task *task)
{
    client_task_unlink(session, task);
    client_task_set_watched(session, task, false);
    map_remove(&session->map, hash_id16(&session->hash_key, task->id.bytes), task->index);
    session->tasks[task->index] = NULL;
    session->free_indexes[session->free_count++] = task->index;
    session->held_size -= client_task_cost(task->body_size);
    if (task->template != NULL) {
        client_template_give(session, task->template);
    }
    free(task);
}

void client_task_wait(struct client_session *session, struct session_task *task, enum stage stage,
                      uint64_t retry_at_ms)
{
    client_task_unlink(session, task);
    task->retry_at_ms = retry_at_ms;
    client_task_link(session, task, stage, false);
}

void client_task_accepted(struct client_session *session, struct session_task *task)
{
    task->was_sent = true;
    if (!task->is_watched) {
        client_task_destroy(session, task);
    } else if (task->needs_await) {
        task->needs_await = false;
        client_task_move(session, task, STAGE_AWAIT_PENDING);
    } else {
        client_task_move(session, task, STAGE_FOLLOWED);
    }
}

/* ---- events ---- */

struct client_event *client_event_create(enum client_event_kind kind, size_t extra_size)
{
    struct client_event *event = malloc(sizeof(*event) + extra_size);
    if (event != NULL) {
        *event = (struct client_event){.kind = kind, .size = sizeof(*event) + extra_size};
        list_init(&event->link);
        list_init(&event->settled_link);
    }
    return event;
}

void client_event_push(struct client_session *session, struct client_event *event)
{
    list_push_back(&session->events, &event->link);
    session->event_count++;
    session->held_size += event->size;
}

bool client_event_tell(struct client_session *session, enum client_event_kind kind,
                       struct treadle_task_id id, uint64_t status, uint64_t reason)
{
    struct client_event *event = client_event_create(kind, 0);
    if (event == NULL) {
        return false;
    }
    event->id = id;
    event->status = status;
    event->reason = reason;
    client_event_push(session, event);
    return true;
}

struct bytes client_event_keep(uint8_t **to, struct bytes from)
{
    const struct bytes kept = {*to, from.size};
    if (from.size > 0) {
        memcpy(*to, from.data, from.size);
    }
    (*to)[from.size] = 0;
    *to += from.size + 1;
    return kept;
}

struct client_event *client_event_from_settled(const struct wire_settled_entry *entry)
{
    struct wire_attempt_error error = {0};
    struct wire_list errors = entry->error;
    const bool has_error = wire_attempt_error_next(&errors, &error);
    const size_t extra_size = entry->body.size + error.name.size + error.message.size +
                              error.trace.size + error.worker.size + error.host.size + 6;
    struct client_event *event = client_event_create(CLIENT_EVENT_SETTLED, extra_size);
    if (event == NULL) {
        return NULL;
    }
    uint8_t *to = (uint8_t *)(event + 1);
    event->id = entry->id;
    event->settled = *entry;
    event->settled.error = (struct wire_list){0};
    event->settled.body = client_event_keep(&to, entry->body);
    event->has_error = has_error;
    event->error = error;
    event->error.name = client_event_keep(&to, error.name);
    event->error.message = client_event_keep(&to, error.message);
    event->error.trace = client_event_keep(&to, error.trace);
    event->error.worker = client_event_keep(&to, error.worker);
    event->error.host = client_event_keep(&to, error.host);
    return event;
}

bool client_task_cancel_here(struct client_session *session, struct session_task *task)
{
    if (task->is_watched) {
        const struct wire_settled_entry entry = {
            .id = task->id,
            .outcome = TASK_CANCELLED,
            .kind = FAILURE_CANCELLED,
        };
        struct client_event *event = client_event_from_settled(&entry);
        if (event == NULL) {
            return false;
        }
        client_event_push(session, event);
    }
    client_task_destroy(session, task);
    return true;
}

void client_event_destroy(struct client_event **event)
{
    if (*event != NULL) {
        struct answer_storage *storage = (*event)->storage;
        if (storage != NULL) {
            writer_free(&storage->bytes);
            free(storage);
        }
        free(*event);
        *event = NULL;
    }
}

uint64_t client_upto(const struct client_session *session)
{
    struct list *first = session->settled.next;
    return list_is_empty(&session->settled)
               ? session->received_number
               : container_of(first, struct client_event, settled_link)->number - 1;
}

void client_note_taken(struct client_session *session, uint64_t body_size)
{
    session->taken_size += body_size + ENTRY_OVERHEAD;
    const bool is_idle = list_is_empty(&session->settled);
    if (session->taken_size > session->window_size / 2 ||
        client_upto(session) - session->acked_number > session->window_count / 2 ||
        (is_idle && session->taken_size > session->window_size / 8)) {
        session->is_ack_due = true;
    }
}

struct client_event *client_session_take_event(struct client_session *session,
                                               bool (*is_wanted)(const struct client_event *event,
                                                                 const void *context),
                                               const void *context)
{
    for (struct list *link = list_first(&session->events); link != NULL;
         link = list_next(&session->events, link)) {
        struct client_event *event = container_of(link, struct client_event, link);
        if (is_wanted != NULL && !is_wanted(event, context)) {
            continue;
        }
        list_remove(link);
        session->event_count--;
        session->held_size -= event->size;
        if (!list_is_empty(&event->settled_link)) {
            list_remove(&event->settled_link);
            client_note_taken(session, event->settled.body.size);
        }
        return event;
    }
    return NULL;
}
