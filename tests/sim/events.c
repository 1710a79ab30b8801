/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/sim/events.h"

#include <stdlib.h>

#include "common/base/assert.h"

#define PACKET_SIZE_MIN ((size_t)1024)
#define ORDER_LATE      (UINT64_C(1) << 62)

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

void event_queue_add(struct event_queue *queue, struct event event)
{
    if (queue->count == queue->capacity) {
        queue->capacity = queue->capacity == 0 ? 1024 : 2 * queue->capacity;
        queue->heap = realloc(queue->heap, queue->capacity * sizeof *queue->heap);
        TREADLE_ASSERT(queue->heap != NULL);
    }
    event.order = queue->next_order;
    queue->next_order++;
    if (event.kind == EVENT_ROUND_END) {
        event.order |= ORDER_LATE;
    }
    uint32_t at = queue->count;
    queue->count++;
    while (at > 0 && is_before(&event, &queue->heap[(at - 1) / 2])) {
        queue->heap[at] = queue->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    queue->heap[at] = event;
}

bool event_queue_take(struct event_queue *queue, struct event *event)
{
    if (queue->count == 0) {
        return false;
    }
    *event = queue->heap[0];
    queue->count--;
    const struct event last = queue->heap[queue->count];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= queue->count) {
            break;
        }
        if (child + 1 < queue->count && is_before(&queue->heap[child + 1], &queue->heap[child])) {
            child++;
        }
        if (!is_before(&queue->heap[child], &last)) {
            break;
        }
        queue->heap[at] = queue->heap[child];
        at = child;
    }
    queue->heap[at] = last;
    return true;
}

struct packet *packet_take(struct event_queue *queue, const struct wire_frames *frames)
{
    size_t size = 0;
    for (size_t i = 0; i < frames->count; i++) {
        size += frames->frames[i].size;
    }
    struct packet *packet = NULL;
    if (size <= PACKET_SIZE_MIN && queue->free_packets != NULL) {
        packet = queue->free_packets;
        queue->free_packets = packet->next;
    } else {
        const size_t capacity = size < PACKET_SIZE_MIN ? PACKET_SIZE_MIN : size;
        packet = malloc(sizeof *packet + capacity);
        TREADLE_ASSERT(packet != NULL);
        packet->capacity = capacity;
    }
    uint8_t *to = packet->data;
    for (size_t i = 0; i < frames->count; i++) {
        const struct bytes frame = frames->frames[i];
        if (frame.size > 0) {
            memcpy(to, frame.data, frame.size);
        }
        packet->views[i] = (struct bytes){to, frame.size};
        to += frame.size;
    }
    packet->frames = (struct wire_frames){packet->views, frames->count};
    return packet;
}

void packet_give(struct event_queue *queue, struct packet *packet)
{
    if (packet == NULL) {
        return;
    }
    if (packet->capacity > PACKET_SIZE_MIN) {
        free(packet);
        return;
    }
    packet->next = queue->free_packets;
    queue->free_packets = packet;
}

void event_queue_reset(struct event_queue *queue)
{
    for (uint32_t i = 0; i < queue->count; i++) {
        packet_give(queue, queue->heap[i].packet);
    }
    queue->count = 0;
    queue->next_order = 0;
}

void event_queue_free(struct event_queue *queue)
{
    event_queue_reset(queue);
    while (queue->free_packets != NULL) {
        struct packet *packet = queue->free_packets;
        queue->free_packets = packet->next;
        free(packet);
    }
    free(queue->heap);
    *queue = (struct event_queue){0};
}
