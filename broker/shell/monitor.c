/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/monitor.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "broker/shell/transport.h"
#include "common/base/assert.h"
#include "common/base/queue.h"

#define EVENT_COUNT_MAX 65536U
#define EVENT_SIZE      6 /* a 16-bit event, a 32-bit value */

struct monitor {
    void *routers[ENDPOINT_COUNT_MAX];
    void *pairs[ENDPOINT_COUNT_MAX]; /* the other ends of libzmq's event sockets */
    uint32_t router_count;
    struct queue *events; /* of struct monitor_event */
    int stop_fd;          /* readable: the thread ends */
    _Atomic bool has_lost;
    _Atomic int64_t peer_count;
    pthread_t thread;
    bool is_running;
};

/* Takes one event, of two frames; event->fd is -1 unless a connection has begun or ended. False
 * when there is none. */
static bool take_event(struct monitor *monitor, void *pair, struct monitor_event *event)
{
    uint8_t frame[EVENT_SIZE];
    char address[256];
    *event = (struct monitor_event){.fd = -1};
    const int size = zmq_recv(pair, frame, sizeof frame, ZMQ_DONTWAIT);
    if (size == -1) {
        return false;
    }
    (void)zmq_recv(pair, address, sizeof address, ZMQ_DONTWAIT);
    uint16_t number = 0;
    int32_t value = -1;
    memcpy(&number, frame, sizeof number);
    memcpy(&value, frame + sizeof number, sizeof value);
    if (size == EVENT_SIZE && number == ZMQ_EVENT_DISCONNECTED) {
        *event = (struct monitor_event){.fd = value, .has_ended = true};
        atomic_fetch_sub(&monitor->peer_count, 1);
    } else if (size == EVENT_SIZE && number == ZMQ_EVENT_ACCEPTED) {
        *event = (struct monitor_event){.fd = value};
        atomic_fetch_add(&monitor->peer_count, 1);
    }
    return true;
}

static void drain(struct monitor *monitor, void *pair)
{
    struct monitor_event event;
    while (take_event(monitor, pair, &event)) {
        if (event.fd != -1 && !queue_push(monitor->events, &event)) {
            atomic_store(&monitor->has_lost, true);
        }
    }
}

static void *watch(void *context)
{
    struct monitor *monitor = context;
    zmq_pollitem_t items[ENDPOINT_COUNT_MAX + 1];
    const uint32_t count = monitor->router_count;
    for (uint32_t i = 0; i < count; i++) {
        items[i] = (zmq_pollitem_t){.socket = monitor->pairs[i], .events = ZMQ_POLLIN};
    }
    items[count] = (zmq_pollitem_t){.fd = monitor->stop_fd, .events = ZMQ_POLLIN};
    items[count].revents = 0;
    while (items[count].revents == 0) {
        if (zmq_poll(items, (int)count + 1, -1) == -1 && errno != EINTR) {
            break; /* the context is gone */
        }
        for (uint32_t i = 0; i < count; i++) {
            drain(monitor, monitor->pairs[i]);
        }
    }
    return NULL;
}

static bool connect_pair(struct monitor *monitor, void *context, uint32_t index)
{
    char name[64];
    (void)snprintf(name, sizeof name, "inproc://treadle-monitor-%u", index);
    if (zmq_socket_monitor(monitor->routers[index], name,
                           ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED) == -1) {
        return false;
    }
    monitor->pairs[index] = zmq_socket(context, ZMQ_PAIR);
    const int linger_ms = 0;
    return monitor->pairs[index] != NULL &&
           zmq_setsockopt(monitor->pairs[index], ZMQ_LINGER, &linger_ms, sizeof linger_ms) == 0 &&
           zmq_connect(monitor->pairs[index], name) == 0;
}

struct monitor *monitor_open(void *context, void *const *routers, uint32_t router_count)
{
    TREADLE_ASSERT(router_count <= ENDPOINT_COUNT_MAX);
    struct monitor *monitor = calloc(1, sizeof *monitor);
    if (monitor == NULL) {
        return NULL;
    }
    atomic_init(&monitor->has_lost, false);
    atomic_init(&monitor->peer_count, 0);
    monitor->router_count = router_count;
    memcpy(monitor->routers, routers, router_count * sizeof routers[0]);
    monitor->events = queue_create(sizeof(struct monitor_event), EVENT_COUNT_MAX);
    monitor->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bool is_ready = monitor->events != NULL && monitor->stop_fd != -1;
    for (uint32_t i = 0; is_ready && i < router_count; i++) {
        is_ready = connect_pair(monitor, context, i);
    }
    is_ready = is_ready && pthread_create(&monitor->thread, NULL, watch, monitor) == 0;
    monitor->is_running = is_ready;
    if (!is_ready) {
        monitor_close(&monitor);
    }
    return monitor;
}

void monitor_close(struct monitor **monitor_pointer)
{
    struct monitor *monitor = *monitor_pointer;
    if (monitor == NULL) {
        return;
    }
    if (monitor->is_running) {
        const uint64_t one = 1;
        const ssize_t written = write(monitor->stop_fd, &one, sizeof one);
        TREADLE_ASSERT(written == (ssize_t)sizeof one);
        (void)pthread_join(monitor->thread, NULL);
    }
    for (uint32_t i = 0; i < monitor->router_count; i++) {
        (void)zmq_socket_monitor(monitor->routers[i], NULL, 0);
        if (monitor->pairs[i] != NULL) {
            (void)zmq_close(monitor->pairs[i]);
        }
    }
    if (monitor->stop_fd != -1) {
        (void)close(monitor->stop_fd);
    }
    queue_destroy(&monitor->events);
    free(monitor);
    *monitor_pointer = NULL;
}

int monitor_fd(const struct monitor *monitor)
{
    return queue_fd(monitor->events);
}

bool monitor_next(struct monitor *monitor, struct monitor_event *event)
{
    return queue_pop(monitor->events, event);
}

uint32_t monitor_peer_count(const struct monitor *monitor)
{
    const int64_t count = atomic_load(&monitor->peer_count);
    return count > 0 ? (uint32_t)count : 0;
}

bool monitor_has_lost(struct monitor *monitor)
{
    return atomic_exchange(&monitor->has_lost, false);
}
