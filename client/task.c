/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE /* clock_gettime */
#include "client/task.h"

#include <string.h>
#include <time.h>

#include <sodium.h>

#include "common/base/uuid.h"

#define PRIORITY_DEFAULT 4
#define ID_RANDOM_SIZE   10

_Static_assert(TREADLE_NAME_SIZE_MAX == NAME_SIZE_MAX, "the header tells the protocol's limit");
_Static_assert(TREADLE_BODY_SIZE_MAX == BODY_SIZE_LIMIT, "the header tells the protocol's limit");

void client_task_reader_init(struct task_reader *reader)
{
    *reader = (struct task_reader){0};
    writer_init(&reader->tags);
    writer_init(&reader->meta);
}

void client_task_reader_reset(struct task_reader *reader)
{
    writer_free(&reader->tags);
    writer_free(&reader->meta);
}

bool client_options_copy(void *to, size_t to_size, const void *from, size_t from_size)
{
    if (from_size < sizeof(size_t)) {
        return false;
    }
    for (size_t i = to_size; i < from_size; i++) {
        if (((const uint8_t *)from)[i] != 0) {
            return false; /* the application asks for what this library does not know */
        }
    }
    memcpy(to, from, from_size < to_size ? from_size : to_size);
    return true;
}

static struct bytes bytes_from_text_or_null(const char *text)
{
    return text == NULL ? (struct bytes){0} : bytes_from_text(text);
}

static bool read_name(struct wire_submit_template *fields, const char *name)
{
    const char *dot = name == NULL ? NULL : strrchr(name, '.');
    if (dot == NULL) {
        return false;
    }
    fields->service = (struct bytes){(const uint8_t *)name, (size_t)(dot - name)};
    fields->task = bytes_from_text(dot + 1);
    return wire_is_name(fields->service, 1) && wire_is_name(fields->task, 1);
}

static bool read_tags(struct task_reader *reader, const struct treadle_task *task)
{
    writer_reset(&reader->tags);
    if (task->tag_count > TAG_COUNT_MAX) {
        return false;
    }
    for (size_t i = 0; i < task->tag_count; i++) {
        const struct wire_tag tag = {.text = bytes_from_text_or_null(task->tags[i])};
        if (!wire_tag_encode(&reader->tags, &tag)) {
            return false;
        }
    }
    reader->fields.tags = wire_list_from_writer(&reader->tags, reader->tags.record_count);
    return true;
}

static bool read_meta(struct task_reader *reader, const struct treadle_task *task)
{
    size_t size = 0;
    writer_reset(&reader->meta);
    if (task->meta_count > META_COUNT_MAX) {
        return false;
    }
    for (size_t i = 0; i < task->meta_count; i++) {
        const struct treadle_meta *meta = &task->meta[i];
        const struct wire_meta_item item = {
            .name = bytes_from_text_or_null(meta->name),
            .value = {meta->value, meta->value_size},
        };
        if ((meta->value == NULL && meta->value_size > 0) || meta->value_size > META_SIZE_MAX) {
            return false;
        }
        size += item.name.size + item.value.size;
        if (size > META_SIZE_MAX || !wire_meta_item_encode(&reader->meta, &item)) {
            return false;
        }
    }
    reader->fields.meta = wire_list_from_writer(&reader->meta, reader->meta.record_count);
    return true;
}

/* Spans and counts: false if one is over what the wire carries. */
static bool read_policy(struct wire_submit_template *fields, const struct treadle_task *task)
{
    const uint64_t spans[] = {
        task->backoff_base_ms, task->backoff_max_ms,      task->delay_ms,    task->queue_timeout_ms,
        task->timeout_ms,      task->progress_timeout_ms, task->deadline_ms, task->result_ttl_ms,
    };
    for (size_t i = 0; i < sizeof(spans) / sizeof(spans[0]); i++) {
        if (spans[i] > SPAN_MAX_MS) {
            return false;
        }
    }
    fields->delay_ms = task->delay_ms;
    fields->policy = (struct wire_policy){
        .attempts_max = task->attempts_max,
        .timeout_ms = task->timeout_ms,
        .progress_timeout_ms = task->progress_timeout_ms,
        .queue_timeout_ms = task->queue_timeout_ms,
        .deadline_ms = task->deadline_ms,
        .result_ttl_ms = task->result_ttl_ms,
        .backoff_base_ms = task->backoff_base_ms,
        .backoff_factor_milli = task->backoff_factor_milli,
        .backoff_max_ms = task->backoff_max_ms,
    };
    return task->attempts_max <= 1000 && task->backoff_factor_milli <= 1000000;
}

static uint64_t flags_from_task(const struct treadle_task *task)
{
    uint64_t flags = (task->flags & TREADLE_TASK_DETACHED) != 0 ? 0 : SUBMIT_WATCH;
    flags |= (task->flags & TREADLE_TASK_KEEP) != 0 ? SUBMIT_KEEP : 0;
    flags |= (task->flags & TREADLE_TASK_VOLATILE) != 0 ? SUBMIT_VOLATILE : 0;
    return flags;
}

static void make_id(struct task_reader *reader, struct treadle_task_id *id)
{
    struct timespec now = {0};
    if (reader->random_left < ID_RANDOM_SIZE) {
        randombytes_buf(reader->random, sizeof(reader->random));
        reader->random_left = sizeof(reader->random);
    }
    reader->random_left -= ID_RANDOM_SIZE;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    uuid_v7(id, (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000,
            reader->random + reader->random_left);
}

/* What makes two submissions of one id the same: docs/protocol.md, Identity. */
static void make_digest(struct client_submission *submission)
{
    static const uint8_t end = 0;
    crypto_generichash_state state;
    const struct bytes *service = &submission->fields->service;
    const struct bytes *task = &submission->fields->task;
    (void)crypto_generichash_init(&state, NULL, 0, sizeof(submission->digest));
    (void)crypto_generichash_update(&state, service->data, service->size);
    (void)crypto_generichash_update(&state, &end, 1);
    (void)crypto_generichash_update(&state, task->data, task->size);
    (void)crypto_generichash_update(&state, &end, 1);
    (void)crypto_generichash_update(&state, submission->body.data, submission->body.size);
    (void)crypto_generichash_final(&state, submission->digest, sizeof(submission->digest));
}

bool client_task_read(struct task_reader *reader, const struct treadle_task *given,
                      const char **why)
{
    struct treadle_task task = {0};
    struct wire_submit_template *fields = &reader->fields;
    *fields = (struct wire_submit_template){0};
    *why = NULL;
    if (!client_options_copy(&task, sizeof(task), given, given->size)) {
        *why = "the size of struct treadle_task is not set, or it has fields this library does not "
               "know";
    } else if (!read_name(fields, task.name)) {
        *why = "a task's name is SERVICE.TASK, both of 1 to 64 of A-Z a-z 0-9 . _ -";
    } else if (task.body == NULL && task.body_size > 0) {
        *why = "the body is NULL, but its size is not 0";
    } else if (task.tenant != NULL && !wire_is_name(bytes_from_text(task.tenant), 0)) {
        *why = "a tenant has at most 64 of A-Z a-z 0-9 . _ -";
    } else if (task.priority_plus_one > PRIORITY_MAX + 1) {
        *why = "a priority is 0 to 9";
    } else if (!read_policy(fields, &task)) {
        *why = "a span, the number of attempts or the backoff factor is out of range";
    } else if (!read_tags(reader, &task)) {
        *why = "tags are at most 16 of 1 to 64 bytes";
    } else if (!read_meta(reader, &task)) {
        *why = "meta is at most 64 names of 1 to 64 bytes and 16 KiB in all";
    } else if ((task.flags &
                ~(TREADLE_TASK_KEEP | TREADLE_TASK_VOLATILE | TREADLE_TASK_DETACHED)) != 0) {
        *why = "a flag is not known";
    }
    if (*why != NULL) {
        return false;
    }
    fields->tenant = bytes_from_text_or_null(task.tenant);
    fields->priority = task.priority_plus_one == 0 ? PRIORITY_DEFAULT : task.priority_plus_one - 1;
    fields->flags = flags_from_task(&task);
    reader->submission = (struct client_submission){
        .body = {task.body, task.body_size},
        .fields = fields,
        .is_id_given = task.id != NULL,
    };
    if (task.id != NULL) {
        reader->submission.id = *task.id;
    } else {
        make_id(reader, &reader->submission.id);
    }
    make_digest(&reader->submission);
    return true;
}
