/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_BASE_QUEUE_H
#define TREADLE_BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A bounded queue between threads: items of one size, copied in and out, first in, first out.
 * Any number of threads may push and pop. Nothing blocks but the short lock; who wants to wait
 * polls queue_fd(). */
struct queue;

/* The caller owns the queue and ends it with queue_destroy(). NULL without memory or descriptors.
 * item_size and count_max are at least 1. */
struct queue *queue_create(size_t item_size, uint32_t count_max);

/* Frees the queue with what is in it and nulls the pointer; NULL inside is fine. No other thread
 * may use the queue any more. */
void queue_destroy(struct queue **queue);

/* Copies item_size bytes in; false if the queue is full. */
bool queue_push(struct queue *queue, const void *item);

/* Copies the oldest item out; false, at once, if the queue is empty. */
bool queue_pop(struct queue *queue, void *item);

/* A descriptor that polls readable while the queue holds items. Owned by the queue: only poll it,
 * queue_pop() resets it. */
int queue_fd(const struct queue *queue);

#endif
