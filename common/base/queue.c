/* SPDX-License-Identifier: MPL-2.0 */
#include "common/base/queue.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/assert.h"

struct queue {
    pthread_mutex_t mutex;
    int fd; /* its counter is 1 while count > 0, else 0; changed under the mutex only */
    uint32_t first;
    uint32_t count;
    uint32_t count_max;
    size_t item_size;
    uint8_t *items; /* a ring of count_max */
};

struct queue *queue_create(size_t item_size, uint32_t count_max)
{
    TREADLE_ASSERT(item_size > 0 && count_max > 0);
    struct queue *queue = calloc(1, sizeof(*queue));
    if (queue == NULL) {
        return NULL;
    }
    queue->fd = -1;
    queue->item_size = item_size;
    queue->count_max = count_max;
    queue->items = calloc(count_max, item_size);
    if (queue->items == NULL) {
        goto failed;
    }
    queue->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->fd == -1) {
        goto failed;
    }
    if (pthread_mutex_init(&queue->mutex, NULL) != 0) {
        goto failed;
    }
    return queue;
failed:
    if (queue->fd != -1) {
        (void)close(queue->fd);
    }
    free(queue->items);
    free(queue);
    return NULL;
}

void queue_destroy(struct queue **queue)
{
    if (*queue == NULL) {
        return;
    }
    TREADLE_ASSERT(pthread_mutex_destroy(&(*queue)->mutex) == 0);
    (void)close((*queue)->fd);
    free((*queue)->items);
    free(*queue);
    *queue = NULL;
}

static uint8_t *item_at(const struct queue *queue, uint64_t place)
{
    return queue->items + (size_t)(place % queue->count_max) * queue->item_size;
}

/* The counter goes 0 -> 1 -> 0 under the mutex, so neither call can block, fail or be cut short. */
static void raise_event(const struct queue *queue)
{
    const uint64_t one = 1;
    TREADLE_ASSERT(write(queue->fd, &one, sizeof(one)) == (ssize_t)sizeof(one));
}

static void reset_event(const struct queue *queue)
{
    uint64_t counter = 0;
    TREADLE_ASSERT(read(queue->fd, &counter, sizeof(counter)) == (ssize_t)sizeof(counter));
}

static void lock(struct queue *queue)
{
    TREADLE_ASSERT(pthread_mutex_lock(&queue->mutex) == 0);
}

static void unlock(struct queue *queue)
{
    TREADLE_ASSERT(pthread_mutex_unlock(&queue->mutex) == 0);
}

bool queue_push(struct queue *queue, const void *item)
{
    lock(queue);
    const bool has_room = queue->count < queue->count_max;
    if (has_room) {
        memcpy(item_at(queue, (uint64_t)queue->first + queue->count), item, queue->item_size);
        queue->count++;
        if (queue->count == 1) {
            raise_event(queue);
        }
    }
    unlock(queue);
    return has_room;
}

bool queue_pop(struct queue *queue, void *item)
{
    lock(queue);
    const bool has_item = queue->count > 0;
    if (has_item) {
        memcpy(item, item_at(queue, queue->first), queue->item_size);
        queue->first = (uint32_t)(((uint64_t)queue->first + 1) % queue->count_max);
        queue->count--;
        if (queue->count == 0) {
            reset_event(queue);
        }
    }
    unlock(queue);
    return has_item;
}

int queue_fd(const struct queue *queue)
{
    return queue->fd;
}
