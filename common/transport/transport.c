/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE /* strerrordesc_np */
#include "common/transport/transport.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <sodium.h>
#include <zmq.h>

#include "common/base/assert.h"
#include "common/base/bytes.h"

#define LINGER_MS        1500
#define HEARTBEAT_MS     1000
#define HEARTBEAT_TTL_MS 3000
#define RECONNECT_MIN_MS 100
#define RECONNECT_MAX_MS 1000 /* back within 2 s of the broker, however long that was away */
#define CONNECT_MAX_MS   2000
#define HANDSHAKE_MAX_MS 3000
#define MESSAGES_MAX     256 /* in each of libzmq's queues */
#define FRAME_ROOM       1048576
#define BROKEN_OFF_COUNT 3 /* handshakes in a row, before the server key is said to be wrong */
#define MONITOR_ENDPOINT "inproc://monitor-%u"
#define MONITORED_EVENTS                                                                           \
    (ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED |                             \
     ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |                        \
     ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)

struct peer_transport {
    void *context;
    void *socket;
    void *monitor;
    uint32_t monitor_number;
    int epoll_fd; /* the caller's, which these sockets wake; -1: none */
    char *endpoint;
    struct peer_keys keys; /* server_public NULL: plain */
    unsigned broken_off;   /* handshakes that the other side ended, in a row */
    bool is_shaking_hands; /* connected, but no word about the handshake yet */
    bool is_connected;     /* and shaken hands */
    bool is_unresolved; /* the host's name was not known at first, and nothing has answered since */
    enum transport_fault fault;
    char text[TRANSPORT_TEXT_SIZE];
    zmq_msg_t parts[FRAME_COUNT_MAX];
    size_t part_count;
    struct bytes views[FRAME_COUNT_MAX];
    struct wire_frames frames;
};

static pthread_once_t seeded = PTHREAD_ONCE_INIT;

/* libzmq draws the jitter of its reconnects from rand and never seeds it. */
static void seed_rand(void)
{
    srand(randombytes_random()); /* NOLINT(cert-msc32-c,cert-msc51-cpp) */
}

__attribute__((format(printf, 2, 3))) static void set_text(struct peer_transport *transport,
                                                           const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(transport->text, sizeof(transport->text), format, arguments);
    va_end(arguments);
}

static void set_fault(struct peer_transport *transport, enum transport_fault fault)
{
    /* %s is the endpoint. */
    static const char *const texts[TRANSPORT_FAULT_COUNT] = {
        [TRANSPORT_FAULT_UNRESOLVED] = "the host in %s is not known",
        [TRANSPORT_FAULT_NOTHING_LISTENS] = "nothing listens at %s",
        [TRANSPORT_FAULT_UNREACHABLE] = "there is no way to %s",
        [TRANSPORT_FAULT_FORBIDDEN] = "this user may not open %s",
        [TRANSPORT_FAULT_NOT_ZEROMQ] = "what listens at %s does not speak ZeroMQ",
        [TRANSPORT_FAULT_SILENT] = "what listens at %s does not answer",
        [TRANSPORT_FAULT_WANTS_KEYS] = "the broker at %s wants keys, and none were given here",
        [TRANSPORT_FAULT_IS_PLAIN] = "the broker at %s has no keys, and here are some",
        [TRANSPORT_FAULT_SERVER_KEY] = "the broker at %s has another server key, or none",
        [TRANSPORT_FAULT_NOT_ADMITTED] = "the broker at %s does not admit this key",
        [TRANSPORT_FAULT_LOST] = "the connection to %s was lost",
    };
    const char *text = texts[fault] != NULL ? texts[fault] : "";
    const char *place = strstr(text, "%s");
    transport->fault = fault;
    set_text(transport, "%.*s%s%s", place == NULL ? 0 : (int)(place - text), text,
             place == NULL ? "" : transport->endpoint, place == NULL ? "" : place + 2);
}

static const char *error_text(int error)
{
    const char *text = strerrordesc_np(error);
    return text != NULL ? text : zmq_strerror(error);
}

/* libzmq looks names up on its I/O thread and says nothing when it finds none. This may block, so
 * only who opens a transport asks. */
static bool is_resolvable(const char *endpoint)
{
    static const char prefix[] = "tcp://";
    if (strncmp(endpoint, prefix, sizeof(prefix) - 1) != 0) {
        return true;
    }
    char host[256];
    const char *start = endpoint + sizeof(prefix) - 1;
    const char *end = strrchr(start, ':');
    if (end == NULL || end == start || (size_t)(end - start) >= sizeof(host) || start[0] == '[') {
        return true; /* for zmq_connect() to judge */
    }
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = '\0';
    struct addrinfo *found = NULL;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    if (getaddrinfo(host, NULL, &hints, &found) != 0) {
        return false;
    }
    freeaddrinfo(found);
    return true;
}

static bool set_option(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value)) == 0;
}

static bool set_options(void *socket)
{
    const int64_t frame_size_max = (int64_t)BODY_SIZE_LIMIT + FRAME_ROOM;
    return set_option(socket, ZMQ_IMMEDIATE, 1) && set_option(socket, ZMQ_LINGER, LINGER_MS) &&
           set_option(socket, ZMQ_SNDTIMEO, 0) && set_option(socket, ZMQ_SNDHWM, MESSAGES_MAX) &&
           set_option(socket, ZMQ_RCVHWM, MESSAGES_MAX) &&
           set_option(socket, ZMQ_RECONNECT_IVL, RECONNECT_MIN_MS) &&
           set_option(socket, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS) &&
           set_option(socket, ZMQ_CONNECT_TIMEOUT, CONNECT_MAX_MS) &&
           set_option(socket, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MAX_MS) &&
           set_option(socket, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS) &&
           set_option(socket, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TTL_MS) &&
           set_option(socket, ZMQ_HEARTBEAT_TTL, HEARTBEAT_TTL_MS) &&
           zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &frame_size_max, sizeof(frame_size_max)) == 0;
}

/* With a server key the connection is encrypted, and each side proves its key. */
static bool set_keys(void *socket, const struct peer_keys *keys)
{
    return keys->server_public == NULL ||
           (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, keys->server_public, KEY_SIZE) == 0 &&
            zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, key_pair_public(keys->identity),
                           KEY_SIZE) == 0 &&
            zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, key_pair_secret(keys->identity),
                           KEY_SIZE) == 0);
}

static void close_parts(struct peer_transport *transport)
{
    while (transport->part_count > 0) {
        zmq_msg_close(&transport->parts[--transport->part_count]);
    }
}

static int descriptor_of(void *socket)
{
    int fd = -1;
    size_t size = sizeof(fd);
    return zmq_getsockopt(socket, ZMQ_FD, &fd, &size) == 0 ? fd : -1;
}

/* libzmq closes the descriptors some time after the sockets. */
static void unwatch_sockets(struct peer_transport *transport)
{
    if (transport->epoll_fd >= 0 && transport->socket != NULL) {
        (void)epoll_ctl(transport->epoll_fd, EPOLL_CTL_DEL, descriptor_of(transport->socket), NULL);
    }
    if (transport->epoll_fd >= 0 && transport->monitor != NULL) {
        (void)epoll_ctl(transport->epoll_fd, EPOLL_CTL_DEL, descriptor_of(transport->monitor),
                        NULL);
    }
}

static enum treadle_status watch_sockets(const struct peer_transport *transport)
{
    struct epoll_event event = {.events = EPOLLIN};
    if (transport->epoll_fd >= 0 && (epoll_ctl(transport->epoll_fd, EPOLL_CTL_ADD,
                                               descriptor_of(transport->socket), &event) != 0 ||
                                     epoll_ctl(transport->epoll_fd, EPOLL_CTL_ADD,
                                               descriptor_of(transport->monitor), &event) != 0)) {
        return TREADLE_E_IO;
    }
    return TREADLE_OK;
}

static void close_sockets(struct peer_transport *transport)
{
    close_parts(transport);
    unwatch_sockets(transport);
    if (transport->socket != NULL) {
        zmq_socket_monitor(transport->socket, NULL, 0);
    }
    if (transport->monitor != NULL) {
        zmq_close(transport->monitor);
        transport->monitor = NULL;
    }
    if (transport->socket != NULL) {
        zmq_close(transport->socket);
        transport->socket = NULL;
    }
    transport->is_connected = false;
    transport->is_shaking_hands = false;
}

static enum treadle_status io_error(struct peer_transport *transport, const char *what)
{
    const int error = zmq_errno();
    set_text(transport, "%s: %s", what, error_text(error));
    return error == ENOMEM ? TREADLE_E_NOMEM : TREADLE_E_IO;
}

static enum treadle_status open_sockets(struct peer_transport *transport)
{
    char monitor_endpoint[64];
    (void)snprintf(monitor_endpoint, sizeof(monitor_endpoint), MONITOR_ENDPOINT,
                   ++transport->monitor_number);
    transport->socket = zmq_socket(transport->context, ZMQ_DEALER);
    transport->monitor = zmq_socket(transport->context, ZMQ_PAIR);
    if (transport->socket == NULL || transport->monitor == NULL ||
        !set_options(transport->socket) || !set_keys(transport->socket, &transport->keys) ||
        !set_option(transport->monitor, ZMQ_LINGER, 0)) {
        return io_error(transport, "cannot make a socket");
    }
    if (zmq_socket_monitor(transport->socket, monitor_endpoint, MONITORED_EVENTS) != 0 ||
        zmq_connect(transport->monitor, monitor_endpoint) != 0) {
        return io_error(transport, "cannot watch the socket");
    }
    /* libzmq knows other transports, of which most have no keys. */
    const bool is_known = strncmp(transport->endpoint, "tcp://", 6) == 0 ||
                          strncmp(transport->endpoint, "ipc://", 6) == 0;
    if (!is_known || zmq_connect(transport->socket, transport->endpoint) != 0) {
        const int error = is_known ? zmq_errno() : EINVAL;
        if (error == EMFILE || error == ENOMEM || error == ETERM || error == EMTHREAD) {
            return io_error(transport, "cannot connect");
        }
        set_text(transport, "'%.200s' is no endpoint: give tcp://HOST:PORT or ipc://PATH",
                 transport->endpoint);
        return TREADLE_E_INVALID;
    }
    return TREADLE_OK;
}

enum treadle_status peer_transport_open(struct peer_transport **out, const char *endpoint,
                                        const struct peer_keys *keys,
                                        char text[TRANSPORT_TEXT_SIZE])
{
    text[0] = '\0';
    struct peer_transport *transport = calloc(1, sizeof(*transport));
    if (transport == NULL) {
        return TREADLE_E_NOMEM;
    }
    if (sodium_init() < 0) {
        free(transport);
        (void)snprintf(text, TRANSPORT_TEXT_SIZE, "libsodium cannot start");
        return TREADLE_E_IO;
    }
    pthread_once(&seeded, seed_rand);
    enum treadle_status status = TREADLE_E_NOMEM;
    transport->epoll_fd = -1;
    transport->keys = keys != NULL ? *keys : (struct peer_keys){NULL, NULL};
    transport->endpoint = strdup(endpoint);
    if (transport->endpoint != NULL) {
        transport->context = zmq_ctx_new();
        status = transport->context == NULL ? io_error(transport, "cannot start ZeroMQ")
                                            : open_sockets(transport);
    }
    if (status == TREADLE_OK && !is_resolvable(endpoint)) {
        transport->is_unresolved = true;
        set_fault(transport, TRANSPORT_FAULT_UNRESOLVED);
    }
    if (status != TREADLE_OK) {
        memcpy(text, transport->text, sizeof(transport->text));
        peer_transport_close(&transport);
        return status;
    }
    *out = transport;
    return TREADLE_OK;
}

void peer_transport_close(struct peer_transport **transport_pointer)
{
    struct peer_transport *transport = *transport_pointer;
    if (transport == NULL) {
        return;
    }
    close_sockets(transport);
    if (transport->context != NULL) {
        while (zmq_ctx_term(transport->context) != 0 && zmq_errno() == EINTR) {
            /* a signal: what was sent still has its time to leave */
        }
    }
    free(transport->endpoint);
    free(transport);
    *transport_pointer = NULL;
}

enum treadle_status peer_transport_reopen(struct peer_transport *transport)
{
    char text[TRANSPORT_TEXT_SIZE];
    memcpy(text, transport->text, sizeof(text));
    close_sockets(transport);
    enum treadle_status status = open_sockets(transport);
    if (status == TREADLE_OK) {
        status = watch_sockets(transport);
        if (status != TREADLE_OK) {
            set_text(transport, "cannot watch the sockets: %s", error_text(errno));
            return status;
        }
    }
    if (status == TREADLE_OK) {
        memcpy(transport->text, text, sizeof(text)); /* still why there is no connection */
    }
    return status;
}

/* ---- the monitor ---- */

/* libzmq does not say why it could not connect. */
static bool is_forbidden(const char *endpoint)
{
    return strncmp(endpoint, "ipc:///", 7) == 0 && access(endpoint + 6, W_OK) == -1 &&
           errno == EACCES;
}

static void on_closed(struct peer_transport *transport)
{
    if (!transport->is_unresolved) {
        set_fault(transport, is_forbidden(transport->endpoint) ? TRANSPORT_FAULT_FORBIDDEN
                                                               : TRANSPORT_FAULT_NOTHING_LISTENS);
    }
    transport->broken_off = 0;
}

static unsigned on_succeeded(struct peer_transport *transport)
{
    transport->is_shaking_hands = false;
    transport->is_connected = true;
    transport->broken_off = 0;
    set_fault(transport, TRANSPORT_FAULT_NONE);
    return TRANSPORT_CONNECTED;
}

static unsigned on_disconnected(struct peer_transport *transport)
{
    unsigned flags = 0;
    if (transport->is_connected) {
        set_fault(transport, TRANSPORT_FAULT_LOST);
        flags = TRANSPORT_DISCONNECTED;
    } else if (transport->is_shaking_hands) {
        /* What came could not be read, and libzmq does not try again. */
        set_fault(transport, TRANSPORT_FAULT_NOT_ZEROMQ);
        flags = TRANSPORT_GIVEN_UP;
    }
    transport->is_connected = false;
    transport->is_shaking_hands = false;
    return flags;
}

static unsigned on_protocol_error(struct peer_transport *transport, uint32_t error)
{
    transport->is_shaking_hands = false;
    transport->broken_off = 0;
    if (error != ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH) {
        set_fault(transport, TRANSPORT_FAULT_NOT_ZEROMQ);
    } else if (transport->keys.server_public == NULL) {
        set_fault(transport, TRANSPORT_FAULT_WANTS_KEYS);
    } else {
        set_fault(transport, TRANSPORT_FAULT_IS_PLAIN);
    }
    return TRANSPORT_GIVEN_UP;
}

static unsigned on_not_admitted(struct peer_transport *transport)
{
    transport->is_shaking_hands = false;
    transport->broken_off = 0;
    set_fault(transport, TRANSPORT_FAULT_NOT_ADMITTED);
    return TRANSPORT_GIVEN_UP;
}

/* The handshake came to nothing, and nobody said why. A broker that cannot read what was encrypted
 * for another key ends the connection; so does one that is just going down. */
static void on_no_detail(struct peer_transport *transport, int error)
{
    transport->is_shaking_hands = false;
    if (error == EAGAIN) {
        transport->broken_off = 0;
        set_fault(transport, TRANSPORT_FAULT_SILENT);
    } else if (transport->keys.server_public == NULL) {
        set_fault(transport, TRANSPORT_FAULT_NOT_ZEROMQ);
    } else if (++transport->broken_off >= BROKEN_OFF_COUNT) {
        set_fault(transport, TRANSPORT_FAULT_SERVER_KEY);
    }
}

static unsigned on_monitored(struct peer_transport *transport, unsigned event, uint32_t value)
{
    switch (event) {
    case ZMQ_EVENT_CONNECTED:
        transport->is_shaking_hands = true;
        transport->is_unresolved = false;
        return 0;
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        return on_succeeded(transport);
    case ZMQ_EVENT_CLOSED:
        on_closed(transport);
        return 0;
    case ZMQ_EVENT_DISCONNECTED:
        return on_disconnected(transport);
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        return on_protocol_error(transport, value);
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        return on_not_admitted(transport);
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        on_no_detail(transport, (int)value);
        return 0;
    default:
        return 0;
    }
}

/* One event of the monitor; false when there is none. */
static bool receive_monitored(struct peer_transport *transport, unsigned *event, uint32_t *value)
{
    zmq_msg_t part;
    zmq_msg_init(&part);
    bool is_event = false;
    if (zmq_msg_recv(&part, transport->monitor, ZMQ_DONTWAIT) >= 0) {
        uint16_t number = 0;
        TREADLE_ASSERT(zmq_msg_size(&part) == sizeof(number) + sizeof(*value));
        memcpy(&number, zmq_msg_data(&part), sizeof(number));
        memcpy(value, (const char *)zmq_msg_data(&part) + sizeof(number), sizeof(*value));
        *event = number;
        is_event = true;
        if (zmq_msg_more(&part)) {
            (void)zmq_msg_recv(&part, transport->monitor, ZMQ_DONTWAIT); /* the address */
        }
    }
    zmq_msg_close(&part);
    return is_event;
}

unsigned peer_transport_update(struct peer_transport *transport)
{
    unsigned flags = 0;
    unsigned event = 0;
    uint32_t value = 0;
    while (receive_monitored(transport, &event, &value)) {
        const unsigned happened = on_monitored(transport, event, value);
        if ((happened & (TRANSPORT_CONNECTED | TRANSPORT_DISCONNECTED)) != 0) {
            flags &= ~(TRANSPORT_CONNECTED | TRANSPORT_DISCONNECTED); /* only the last counts */
        }
        flags |= happened;
    }
    return flags;
}

/* ---- messages ---- */

const struct wire_frames *peer_transport_receive(struct peer_transport *transport)
{
    close_parts(transport);
    bool has_more = true;
    bool is_too_long = false;
    while (has_more) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, transport->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            return NULL; /* nothing: a message arrives with all its parts or not at all */
        }
        has_more = zmq_msg_more(&part) != 0;
        if (transport->part_count == FRAME_COUNT_MAX) {
            is_too_long = true;
            zmq_msg_close(&part);
            continue;
        }
        zmq_msg_t *kept = &transport->parts[transport->part_count];
        zmq_msg_init(kept);
        zmq_msg_move(kept, &part);
        zmq_msg_close(&part);
        transport->views[transport->part_count] =
            (struct bytes){zmq_msg_data(kept), zmq_msg_size(kept)};
        transport->part_count++;
    }
    if (is_too_long) {
        transport->views[0].size = 0; /* no message of ours: what decodes it says so */
    }
    transport->frames = (struct wire_frames){transport->views, transport->part_count};
    return &transport->frames;
}

static int events_of(void *socket)
{
    int events = 0;
    size_t size = sizeof(events);
    return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0 ? events : 0;
}

bool peer_transport_is_writable(struct peer_transport *transport)
{
    return (events_of(transport->socket) & ZMQ_POLLOUT) != 0;
}

enum treadle_status peer_transport_watch(struct peer_transport *transport, int epoll_fd)
{
    transport->epoll_fd = epoll_fd;
    const enum treadle_status status = watch_sockets(transport);
    if (status != TREADLE_OK) {
        const int error = errno;
        unwatch_sockets(transport);
        transport->epoll_fd = -1;
        errno = error;
    }
    return status;
}

bool peer_transport_has_input(struct peer_transport *transport)
{
    /* Both are asked: asking takes back what the descriptor said. */
    const int events = events_of(transport->socket) | events_of(transport->monitor);
    return (events & ZMQ_POLLIN) != 0;
}

bool peer_transport_send(struct peer_transport *transport, const struct wire_frames *frames)
{
    for (size_t i = 0; i < frames->count; i++) {
        const int flags = ZMQ_DONTWAIT | (i + 1 < frames->count ? ZMQ_SNDMORE : 0);
        const struct bytes *frame = &frames->frames[i];
        if (zmq_send(transport->socket, frame->data, frame->size, flags) < 0) {
            return false;
        }
    }
    return true;
}

unsigned peer_transport_wait(struct peer_transport *transport, int64_t timeout_ms, int fd,
                             bool for_room)
{
    zmq_pollitem_t items[3] = {
        {.socket = transport->socket,
         .events = (short)(for_room ? ZMQ_POLLIN | ZMQ_POLLOUT : ZMQ_POLLIN)},
        {.socket = transport->monitor, .events = ZMQ_POLLIN},
        {.fd = fd, .events = ZMQ_POLLIN},
    };
    if (zmq_poll(items, fd >= 0 ? 3 : 2, (long)timeout_ms) < 0) {
        return zmq_errno() == EINTR ? TRANSPORT_INTERRUPTED : TRANSPORT_READY;
    }
    unsigned flags = 0;
    if (items[0].revents != 0 || items[1].revents != 0) {
        flags |= TRANSPORT_READY;
    }
    if (fd >= 0 && items[2].revents != 0) {
        flags |= TRANSPORT_FD;
    }
    return flags;
}

const char *peer_transport_reason(const struct peer_transport *transport)
{
    return transport->text;
}

enum transport_fault peer_transport_fault(const struct peer_transport *transport)
{
    return transport->fault;
}
