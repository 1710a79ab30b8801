/* SPDX-License-Identifier: MPL-2.0 */
#include "worker/held.h"

#include <stdlib.h>

#include "common/base/assert.h"

/* Copies one view after the other into a block that is large enough. */
static struct bytes copy_bytes(uint8_t **next, struct bytes bytes)
{
    const struct bytes copy = {*next, bytes.size};
    if (bytes.size > 0) {
        memcpy(*next, bytes.data, bytes.size);
        *next += bytes.size;
    }
    return copy;
}

/* The encoded records are the same anywhere; these lists bring no body frames. */
static struct wire_list copy_list(uint8_t **next, const struct wire_list *list)
{
    const struct bytes copy = copy_bytes(next, (struct bytes){list->at, list->size});
    return (struct wire_list){.at = copy.data, .size = copy.size, .count = list->count};
}

static struct bytes cut(struct bytes text, size_t size_max)
{
    return (struct bytes){text.data, text.size < size_max ? text.size : size_max};
}

struct held *held_create(const struct wire_dispatch_entry *entry,
                         const struct wire_dispatch_template *template, uint64_t now_ms)
{
    struct held *held = calloc(1, sizeof(*held));
    const size_t size = template->service.size + template->task.size + entry->body.size +
                        entry->tags.size + entry->meta.size + entry->last_error.size;
    uint8_t *next = malloc(size + 1);
    if (held == NULL || next == NULL) {
        free(held);
        free(next);
        return NULL;
    }
    list_init(&held->link);
    list_init(&held->signal_link);
    list_init(&held->progress_link);
    held->input = next;
    held->arrived_at_ms = now_ms;
    held->timeout_at_ms = HELD_NEVER;
    held->progress_at_ms = HELD_NEVER;
    held->kill_at_ms = HELD_NEVER;
    held->attempt = (struct worker_attempt){
        .lease = entry->lease,
        .id = entry->id,
        .service = copy_bytes(&next, template->service),
        .task = copy_bytes(&next, template->task),
        .body = copy_bytes(&next, entry->body),
        .dispatch = (uint32_t)entry->dispatch,
        .retry_index = (uint32_t)entry->retry_index,
        .retry_sequence = (uint32_t)entry->retry_sequence,
        .attempts_max = (uint32_t) template->attempts_max,
        .timeout_ms = template->timeout_ms,
        .progress_timeout_ms = template->progress_timeout_ms,
        .grace_ms = template->grace_ms,
        .deadline_left_ms = entry->deadline_left_ms,
        .tags = copy_list(&next, &entry->tags),
        .meta = copy_list(&next, &entry->meta),
        .last_error = copy_list(&next, &entry->last_error),
    };
    return held;
}

void held_destroy(struct held *held)
{
    if (held == NULL) {
        return;
    }
    TREADLE_ASSERT(list_is_empty(&held->link));
    TREADLE_ASSERT(list_is_empty(&held->signal_link));
    TREADLE_ASSERT(list_is_empty(&held->progress_link));
    free(held->input);
    free(held->meta_block);
    free(held->output);
    free(held);
}

void held_set_meta(struct held *held, const struct wire_list *meta)
{
    uint8_t *block = malloc(meta->size + 1);
    if (block == NULL) {
        return;
    }
    free(held->meta_block);
    held->meta_block = block;
    held->meta = copy_list(&block, meta);
}

static void drop_input(struct held *held)
{
    free(held->input);
    free(held->meta_block);
    held->input = NULL;
    held->meta_block = NULL;
    held->meta = (struct wire_list){0};
}

void held_set_failure(struct held *held, const struct wire_failure_entry *failure)
{
    const struct wire_list *meta = failure->meta.count > 0 ? &failure->meta : &held->meta;
    const struct bytes name = cut(failure->name, NAME_SIZE_MAX);
    const struct bytes message = cut(failure->message, ERROR_MESSAGE_SIZE_MAX);
    const struct bytes trace = cut(failure->trace, ERROR_TRACE_SIZE_MAX);
    const size_t size = name.size + message.size + trace.size + meta->size;
    held->is_success = false;
    held->failure = *failure;
    held->failure.lease = held->attempt.lease;
    held->failure.name = (struct bytes){0};
    held->failure.message = (struct bytes){0};
    held->failure.trace = (struct bytes){0};
    held->failure.meta = (struct wire_list){0};
    uint8_t *next = malloc(size + 1);
    held->output = next;
    if (next != NULL) {
        held->output_size = size;
        held->failure.name = copy_bytes(&next, name);
        held->failure.message = copy_bytes(&next, message);
        held->failure.trace = copy_bytes(&next, trace);
        held->failure.meta = copy_list(&next, meta);
    }
    drop_input(held);
}

void held_set_success(struct held *held, const struct wire_success_entry *success)
{
    const struct wire_list *meta = success->meta.count > 0 ? &success->meta : &held->meta;
    const size_t size = success->body.size + meta->size;
    uint8_t *next = malloc(size + 1);
    if (next == NULL) {
        const struct wire_failure_entry failure = {
            .kind = FAILURE_FINALIZE,
            .name = bytes_from_text("memory"),
            .message = bytes_from_text("no memory to keep the result"),
            .duration_ms = success->duration_us / 1000,
        };
        held_set_failure(held, &failure);
        return;
    }
    held->is_success = true;
    held->output = next;
    held->output_size = size;
    held->success = *success;
    held->success.lease = held->attempt.lease;
    held->success.body = copy_bytes(&next, success->body);
    held->success.meta = copy_list(&next, meta);
    drop_input(held);
}
