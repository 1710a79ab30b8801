/* SPDX-License-Identifier: MPL-2.0 */
#include "worker/exec/handoff.h"

#include "common/base/assert.h"

/* The numbers of a hand-off: what follows the header. Then come, without gaps, service, task, body,
 * tags, meta and the last error. No padding: these bytes go to another process. */
struct attempt_numbers {
    uint64_t lease;
    uint8_t id[16];
    uint64_t timeout_ms;
    uint64_t progress_timeout_ms;
    uint64_t grace_ms;
    uint64_t result_size_max;
    uint64_t deadline_left_ms;
    uint64_t body_size;
    uint32_t dispatch;
    uint32_t retry_index;
    uint32_t retry_sequence;
    uint32_t attempts_max;
    uint32_t service_size;
    uint32_t task_size;
    uint32_t tags_size;
    uint32_t tag_count;
    uint32_t meta_size;
    uint32_t meta_count;
    uint32_t last_error_size;
    uint32_t last_error_count;
};

/* The numbers of a report. Then come, without gaps, the sizes of each item of meta, the body, name,
 * message and trace, and the items. */
struct report_numbers {
    uint64_t duration_us;
    uint64_t retry_delay_ms;
    uint64_t user_ms;
    uint64_t system_ms;
    uint64_t max_rss_kib;
    uint64_t body_size;
    uint32_t kind;
    uint32_t choice;
    uint32_t name_size;
    uint32_t message_size;
    uint32_t trace_size;
    uint32_t meta_count;
    uint32_t has_meta;
    uint32_t unused;
};

struct meta_sizes {
    uint32_t name_size;
    uint32_t value_size;
};

_Static_assert(sizeof(struct frame_header) == 16, "no padding");
_Static_assert(sizeof(struct attempt_numbers) == 120, "no padding");
_Static_assert(sizeof(struct report_numbers) == 80, "no padding");
_Static_assert(sizeof(struct meta_sizes) == 8, "no padding");
_Static_assert(sizeof(struct frame_header) + sizeof(struct attempt_numbers) +
                       (size_t)2 * NAME_SIZE_MAX <=
                   HANDOFF_ROOM_SIZE,
               "header, numbers and names have room");
_Static_assert(sizeof(struct frame_header) + sizeof(struct report_numbers) +
                       META_COUNT_MAX * sizeof(struct meta_sizes) <=
                   REPORT_ROOM_SIZE,
               "header, numbers and sizes have room");

/* ---- attempts ---- */

static void add_part(struct handoff *handoff, const uint8_t *data, size_t size)
{
    if (size > 0) {
        handoff->parts[handoff->part_count++] = (struct bytes){data, size};
        handoff->size += size;
    }
}

/* Copies into the room, behind what is there. */
static size_t put(uint8_t *room, size_t used, const void *data, size_t size)
{
    if (size > 0) {
        memcpy(room + used, data, size);
    }
    return used + size;
}

void handoff_from_attempt(struct handoff *handoff, const struct worker_attempt *attempt,
                          uint32_t handler, uint32_t cell, uint32_t generation)
{
    TREADLE_ASSERT(attempt->service.size <= NAME_SIZE_MAX && attempt->task.size <= NAME_SIZE_MAX);
    struct attempt_numbers numbers = {
        .lease = attempt->lease,
        .timeout_ms = attempt->timeout_ms,
        .progress_timeout_ms = attempt->progress_timeout_ms,
        .grace_ms = attempt->grace_ms,
        .result_size_max = attempt->result_size_max,
        .deadline_left_ms = attempt->deadline_left_ms,
        .body_size = attempt->body.size,
        .dispatch = attempt->dispatch,
        .retry_index = attempt->retry_index,
        .retry_sequence = attempt->retry_sequence,
        .attempts_max = attempt->attempts_max,
        .service_size = (uint32_t)attempt->service.size,
        .task_size = (uint32_t)attempt->task.size,
        .tags_size = (uint32_t)attempt->tags.size,
        .tag_count = attempt->tags.count,
        .meta_size = (uint32_t)attempt->meta.size,
        .meta_count = attempt->meta.count,
        .last_error_size = (uint32_t)attempt->last_error.size,
        .last_error_count = attempt->last_error.count,
    };
    memcpy(numbers.id, attempt->id.bytes, sizeof(numbers.id));
    const size_t names_size = attempt->service.size + attempt->task.size;
    const size_t room_size = sizeof(struct frame_header) + sizeof(numbers) + names_size;
    handoff->part_count = 0;
    handoff->size = 0;
    add_part(handoff, handoff->room, room_size);
    add_part(handoff, attempt->body.data, attempt->body.size);
    add_part(handoff, attempt->tags.at, attempt->tags.size);
    add_part(handoff, attempt->meta.at, attempt->meta.size);
    add_part(handoff, attempt->last_error.at, attempt->last_error.size);
    const struct frame_header header = {
        .size = (uint32_t)(handoff->size - sizeof(header)),
        .kind = FRAME_ATTEMPT,
        .cell = (uint16_t)cell,
        .generation = generation,
        .handler = handler,
    };
    size_t used = put(handoff->room, 0, &header, sizeof(header));
    used = put(handoff->room, used, &numbers, sizeof(numbers));
    used = put(handoff->room, used, attempt->service.data, attempt->service.size);
    (void)put(handoff->room, used, attempt->task.data, attempt->task.size);
}

/* Takes `size` bytes off the front; false: they are not there. */
static bool take(struct bytes *data, uint64_t size, struct bytes *taken)
{
    if (size > data->size) {
        return false;
    }
    *taken = (struct bytes){data->data, (size_t)size};
    if (size > 0) {
        data->data += size;
        data->size -= (size_t)size;
    }
    return true;
}

static bool take_list(struct bytes *data, uint32_t size, uint32_t count, struct wire_list *list)
{
    struct bytes taken;
    if (!take(data, size, &taken)) {
        return false;
    }
    *list = (struct wire_list){.at = taken.data, .size = taken.size, .count = count};
    return true;
}

bool handoff_read(struct worker_attempt *attempt, struct bytes data)
{
    struct attempt_numbers numbers;
    struct bytes taken;
    if (!take(&data, sizeof(numbers), &taken)) {
        return false;
    }
    memcpy(&numbers, taken.data, sizeof(numbers));
    *attempt = (struct worker_attempt){
        .lease = numbers.lease,
        .dispatch = numbers.dispatch,
        .retry_index = numbers.retry_index,
        .retry_sequence = numbers.retry_sequence,
        .attempts_max = numbers.attempts_max,
        .timeout_ms = numbers.timeout_ms,
        .progress_timeout_ms = numbers.progress_timeout_ms,
        .grace_ms = numbers.grace_ms,
        .result_size_max = numbers.result_size_max,
        .deadline_left_ms = numbers.deadline_left_ms,
    };
    memcpy(attempt->id.bytes, numbers.id, sizeof(numbers.id));
    return take(&data, numbers.service_size, &attempt->service) &&
           take(&data, numbers.task_size, &attempt->task) &&
           take(&data, numbers.body_size, &attempt->body) &&
           take_list(&data, numbers.tags_size, numbers.tag_count, &attempt->tags) &&
           take_list(&data, numbers.meta_size, numbers.meta_count, &attempt->meta) &&
           take_list(&data, numbers.last_error_size, numbers.last_error_count,
                     &attempt->last_error) &&
           data.size == 0;
}

/* ---- reports ---- */

static size_t add_report_part(struct report_parts *parts, struct bytes part)
{
    if (part.size > 0) {
        parts->parts[parts->part_count++] = part;
    }
    return part.size;
}

void report_write(struct report_parts *parts, enum frame_kind kind, const struct report *report,
                  uint32_t cell, uint32_t generation)
{
    const uint32_t meta_count = report->has_meta ? report->meta_count : 0;
    TREADLE_ASSERT(meta_count <= META_COUNT_MAX);
    const struct report_numbers numbers = {
        .duration_us = report->duration_us,
        .retry_delay_ms = report->retry_delay_ms,
        .user_ms = report->user_ms,
        .system_ms = report->system_ms,
        .max_rss_kib = report->max_rss_kib,
        .body_size = report->body.size,
        .kind = report->kind,
        .choice = report->choice,
        .name_size = (uint32_t)report->name.size,
        .message_size = (uint32_t)report->message.size,
        .trace_size = (uint32_t)report->trace.size,
        .meta_count = meta_count,
        .has_meta = report->has_meta,
    };
    size_t used = put(parts->room, sizeof(struct frame_header), &numbers, sizeof(numbers));
    for (uint32_t i = 0; i < meta_count; i++) {
        const struct meta_sizes sizes = {
            .name_size = (uint32_t)report->meta[i].name.size,
            .value_size = (uint32_t)report->meta[i].value.size,
        };
        used = put(parts->room, used, &sizes, sizeof(sizes));
    }
    parts->part_count = 0;
    size_t size = add_report_part(parts, (struct bytes){parts->room, used});
    size += add_report_part(parts, report->body);
    size += add_report_part(parts, report->name);
    size += add_report_part(parts, report->message);
    size += add_report_part(parts, report->trace);
    for (uint32_t i = 0; i < meta_count; i++) {
        size += add_report_part(parts, report->meta[i].name);
        size += add_report_part(parts, report->meta[i].value);
    }
    const struct frame_header header = {
        .size = (uint32_t)(size - sizeof(header)),
        .kind = (uint16_t)kind,
        .cell = (uint16_t)cell,
        .generation = generation,
    };
    (void)put(parts->room, 0, &header, sizeof(header));
}

/* What a handler may say of its failure; the other kinds are for others to give. */
static bool is_handlers_kind(uint32_t kind)
{
    return kind == FAILURE_PREPARE || kind == FAILURE_PERMANENT || kind == FAILURE_TRANSIENT ||
           kind == FAILURE_FINALIZE;
}

static bool is_sound(const struct report_numbers *numbers, enum frame_kind kind)
{
    if (kind == FRAME_FAILURE &&
        (!is_handlers_kind(numbers->kind) || numbers->choice >= RETRY_CHOICE_COUNT)) {
        return false;
    }
    return (kind == FRAME_SUCCESS || kind == FRAME_FAILURE || kind == FRAME_PROGRESS) &&
           numbers->duration_us <= SPAN_MAX_MS && numbers->retry_delay_ms <= SPAN_MAX_MS &&
           numbers->user_ms <= SPAN_MAX_MS && numbers->system_ms <= SPAN_MAX_MS &&
           numbers->body_size <= BODY_SIZE_LIMIT && numbers->name_size <= NAME_SIZE_MAX &&
           numbers->message_size <= ERROR_MESSAGE_SIZE_MAX &&
           numbers->trace_size <= ERROR_TRACE_SIZE_MAX && numbers->meta_count <= META_COUNT_MAX &&
           numbers->has_meta <= 1 && (numbers->has_meta == 1 || numbers->meta_count == 0);
}

/* The items, whose sizes stand in `sizes`. */
static bool read_meta(struct bytes *data, struct bytes sizes, uint32_t count,
                      struct handoff_meta items[META_COUNT_MAX])
{
    size_t meta_size = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct meta_sizes item;
        memcpy(&item, sizes.data + i * sizeof(item), sizeof(item));
        if (item.name_size < 1 || item.name_size > NAME_SIZE_MAX ||
            item.value_size > META_SIZE_MAX || !take(data, item.name_size, &items[i].name) ||
            !take(data, item.value_size, &items[i].value)) {
            return false;
        }
        meta_size += item.name_size + item.value_size;
    }
    return meta_size <= META_SIZE_MAX;
}

bool report_read(struct report *report, enum frame_kind kind, struct bytes data,
                 struct handoff_meta items[META_COUNT_MAX])
{
    struct report_numbers numbers;
    struct bytes taken;
    if (!take(&data, sizeof(numbers), &taken)) {
        return false;
    }
    memcpy(&numbers, taken.data, sizeof(numbers));
    if (!is_sound(&numbers, kind)) {
        return false;
    }
    *report = (struct report){
        .duration_us = numbers.duration_us,
        .kind = kind == FRAME_FAILURE ? (enum failure_kind)numbers.kind : FAILURE_NONE,
        .choice = kind == FRAME_FAILURE ? (enum retry_choice)numbers.choice : RETRY_BY_POLICY,
        .retry_delay_ms = numbers.retry_delay_ms,
        .user_ms = numbers.user_ms,
        .system_ms = numbers.system_ms,
        .max_rss_kib = numbers.max_rss_kib,
        .meta = items,
        .meta_count = numbers.meta_count,
        .has_meta = numbers.has_meta == 1,
    };
    return take(&data, numbers.meta_count * sizeof(struct meta_sizes), &taken) &&
           take(&data, numbers.body_size, &report->body) &&
           take(&data, numbers.name_size, &report->name) &&
           take(&data, numbers.message_size, &report->message) &&
           take(&data, numbers.trace_size, &report->trace) &&
           read_meta(&data, taken, numbers.meta_count, items) && data.size == 0;
}
