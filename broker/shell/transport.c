/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/transport.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>
#include <zmq.h>

#include "broker/shell/auth.h"
#include "broker/shell/endpoint.h"
#include "broker/shell/monitor.h"
#include "broker/shell/sockets.h"
#include "common/base/assert.h"
#include "common/base/hash.h"
#include "common/base/list.h"
#include "common/base/map.h"

#define NONE_FD             (-1)
#define ZAP_ENFORCE_DOMAIN  93 /* libzmq's number; its header has the name for drafts only */
#define ROUTING_ID_SIZE     5U /* a zero byte and 32 bits: what libzmq gives a peer that chose none */
#define CUT_DELAY_MS        50U /* what was sent before may still leave */
#define RECHECK_MS          1U  /* of a socket that is said to have ended and is still there */
#define DOUBT_MS            20U /* libzmq closes it right after it said so */
#define UNSENT_RETRY_MS     5U  /* a ROUTER does not tell when one peer has room again */
#define UNSENT_SIZE_MAX     (UINT64_C(16) << 20) /* of one peer that does not read at all */
#define UNSENT_ALL_SIZE_MAX (UINT64_C(512) << 20)
#define UNSENT_COUNT_MAX    16384U /* messages of one peer: it makes more than it reads */
#define PIPED_SIZE_MAX      (UINT64_C(8) << 20) /* in libzmq for one peer */
#define STUCK_MS            1000U               /* without a byte taken: the peer does not read */
#define STUCK_LOOK_MS       100U
#define FRAME_SIZE          9U  /* of a frame's header on the wire, at most; 2 up to 255 bytes */
#define CURVE_SIZE          33U /* of what CURVE adds: the command's name, a nonce, a MAC, flags */
#define IO_THREAD_COUNT     2
#define WATER_MARK          256 /* messages a peer, each way; windows of credit bound what is in them */
#define ARRIVAL_COUNT_MAX   65536U /* sockets of which nobody knows yet whether they will speak */

enum connection_state {
    CONNECTION_FREE,
    CONNECTION_LIVE,
    CONNECTION_CUT,  /* we no longer listen; its socket is shut down soon */
    CONNECTION_GONE, /* its socket is gone; what it sent before may still be there */
    CONNECTION_ENDED /* told so; until transport_forget() */
};

/* A message that found no room. */
struct unsent {
    struct unsent *next;
    size_t size;
    size_t frame_count;
    zmq_msg_t frames[FRAME_COUNT_MAX + 1]; /* with the routing id */
};

/* A socket that was accepted. */
struct arrival {
    int fd;
    ino_t inode;
    uint64_t until_ms; /* then something whole has come from it, or it is cut */
};

struct connection {
    struct list link;        /* transport.free, .cut (in order of time) or .gone */
    struct list check_link;  /* transport.checks */
    struct list unsent_link; /* transport.waiting */
    struct list doubt_link;  /* transport.doubtful */
    enum connection_state state;
    uint32_t endpoint;
    uint8_t routing_id[ROUTING_ID_SIZE];
    int fd;             /* NONE_FD: not known */
    ino_t inode;        /* of the socket, to know it from a later one with the same descriptor */
    uint64_t cut_at_ms; /* cut: when its socket is shut down */
    uint64_t doubt_until_ms; /* in doubt: until when it is looked at again */
    uint64_t check_at_ms;    /* live: when transport_to_check() tells it */
    struct unsent *unsent_first;
    struct unsent *unsent_last;
    uint64_t unsent_size;
    uint32_t unsent_count;
    uint64_t piped_size;  /* given to libzmq and, as far as known, not gone yet */
    uint64_t received;    /* bytes over its life, as on the wire */
    uint64_t given;       /* to libzmq, over its life */
    uint64_t taken_mark;  /* what its socket said when the peer last was seen to read */
    uint64_t taken_at_ms; /* when that was */
    uint64_t looked_at_ms;
    const struct principal *principal; /* of the present table, if is_keyed */
    bool is_keyed;
    uint8_t key[KEY_SIZE];
    char peer[PEER_TEXT_SIZE];
};

struct transport {
    void *context;
    void *routers[ENDPOINT_COUNT_MAX];
    char endpoints[ENDPOINT_COUNT_MAX][256];
    ino_t socket_inodes[ENDPOINT_COUNT_MAX]; /* of an ipc path's file; 0: it has none */
    bool is_encrypted[ENDPOINT_COUNT_MAX];
    uint32_t rights[ENDPOINT_COUNT_MAX];
    uint32_t endpoint_count;
    struct monitor *monitor;
    struct auth *auth; /* NULL: no endpoint is encrypted */
    const struct principals *principals;
    const struct principal *plain_tcp;

    struct connection *connections;
    uint32_t connection_count_max;
    uint32_t connection_used; /* places 0..used-1 have been used */
    struct list free;
    struct list cut;
    struct list gone;
    struct list waiting;
    struct list doubtful;
    struct list checks;       /* of those that are live, in order of time */
    struct arrival *arrivals; /* a ring, in order of time */
    uint32_t arrival_first;
    uint32_t arrival_count;
    uint64_t check_span_ms; /* 0: nobody is checked */
    struct map by_routing_id;
    void *map_memory;
    struct hash_key hash_key;
    uint32_t *by_fd; /* 1 + the connection; 0: none */
    uint32_t fd_count;

    uint64_t now_ms;
    uint64_t retry_at_ms; /* of unsent messages and doubtful sockets */
    uint32_t turn;        /* the endpoint that is asked next */

    zmq_msg_t frames[FRAME_COUNT_MAX + 1]; /* of the message received last */
    uint32_t frame_count;
    uint64_t received_size; /* of its frames on the wire, those skipped too */
    uint64_t skipped_size;
    struct bytes views[FRAME_COUNT_MAX];
    struct transport_counts counts;
};

/* ---- opening and closing ---- */

static bool set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

/* docs/architecture.md and the traps of libzmq say why each of these is set. */
static bool set_options(void *router, const char *endpoint, uint64_t frame_size_max)
{
    const int64_t frame_size = (int64_t)frame_size_max;
    const bool is_ipv6 = strchr(endpoint, '[') != NULL;
    return set_int(router, ZMQ_ROUTER_MANDATORY, 1) && set_int(router, ZMQ_ROUTER_HANDOVER, 0) &&
           set_int(router, ZMQ_SNDHWM, WATER_MARK) && set_int(router, ZMQ_RCVHWM, WATER_MARK) &&
           zmq_setsockopt(router, ZMQ_MAXMSGSIZE, &frame_size, sizeof frame_size) == 0 &&
           set_int(router, ZMQ_HANDSHAKE_IVL, 3000) && set_int(router, ZMQ_HEARTBEAT_IVL, 1000) &&
           set_int(router, ZMQ_HEARTBEAT_TIMEOUT, 3000) &&
           set_int(router, ZMQ_HEARTBEAT_TTL, 3000) && set_int(router, ZMQ_TCP_MAXRT, 10000) &&
           set_int(router, ZMQ_BACKLOG, 4096) && set_int(router, ZMQ_LINGER, 0) &&
           set_int(router, ZMQ_IPV6, is_ipv6 ? 1 : 0);
}

/* Without each of these libzmq would let anybody in. */
static bool set_keys(void *router, const struct key_pair *server_key)
{
    return set_int(router, ZMQ_CURVE_SERVER, 1) &&
           zmq_setsockopt(router, ZMQ_CURVE_SECRETKEY, key_pair_secret(server_key), KEY_SIZE) ==
               0 &&
           zmq_setsockopt(router, ZMQ_ZAP_DOMAIN, AUTH_DOMAIN, strlen(AUTH_DOMAIN)) == 0 &&
           set_int(router, ZAP_ENFORCE_DOMAIN, 1);
}

/* The one who answers whether a peer gets in is there before the first endpoint. */
static bool start_auth(struct transport *transport, const struct transport_config *config)
{
    bool is_needed = false;
    for (uint32_t i = 0; i < config->endpoint_count; i++) {
        is_needed = is_needed || config->server_keys[i] != NULL;
    }
    if (is_needed) {
        transport->auth = auth_open(transport->context, config->principals);
    }
    return !is_needed || transport->auth != NULL;
}

static bool create_router(struct transport *transport, const struct transport_config *config,
                          uint32_t index)
{
    const struct key_pair *server_key = config->server_keys[index];
    void *router = zmq_socket(transport->context, ZMQ_ROUTER);
    transport->routers[index] = router;
    transport->is_encrypted[index] = server_key != NULL;
    transport->rights[index] = config->rights[index];
    return router != NULL &&
           set_options(router, config->endpoints[index], config->frame_size_max) &&
           (server_key == NULL || set_keys(router, server_key));
}

static bool create_routers(struct transport *transport, const struct transport_config *config)
{
    srand(randombytes_random()); /* libzmq draws routing ids from rand and never seeds it */
    transport->context = zmq_ctx_new();
    if (transport->context == NULL ||
        zmq_ctx_set(transport->context, ZMQ_IO_THREADS, IO_THREAD_COUNT) != 0 ||
        !start_auth(transport, config)) {
        return false;
    }
    for (uint32_t i = 0; i < config->endpoint_count; i++) {
        if (!create_router(transport, config, i)) {
            return false;
        }
        transport->endpoint_count++;
    }
    transport->monitor =
        monitor_open(transport->context, transport->routers, transport->endpoint_count);
    return transport->monitor != NULL;
}

static void note_socket_file(struct transport *transport, uint32_t index)
{
    struct stat state;
    const char *endpoint = transport->endpoints[index];
    if (strncmp(endpoint, "ipc://", 6) == 0 && lstat(endpoint + 6, &state) == 0) {
        transport->socket_inodes[index] = state.st_ino;
    }
}

static bool bind_router(struct transport *transport, const struct transport_config *config,
                        uint32_t index, struct transport_error *error)
{
    const char *endpoint = config->endpoints[index];
    enum endpoint_safety safety =
        config->plain_tcp != NULL ? ENDPOINT_PLAIN_LOOPBACK : ENDPOINT_PLAIN_IPC;
    if (config->server_keys[index] != NULL) {
        safety = ENDPOINT_ENCRYPTED;
    }
    if (!endpoint_check(endpoint, safety, error)) {
        return false;
    }
    const mode_t mask_before = umask(0177); /* an ipc path is for its owner only */
    const int bound = zmq_bind(transport->routers[index], endpoint);
    const int bind_errno = errno;
    (void)umask(mask_before);
    if (bound == -1) {
        endpoint_describe_failure(endpoint, bind_errno, error);
        return false;
    }
    size_t size = sizeof transport->endpoints[index];
    if (zmq_getsockopt(transport->routers[index], ZMQ_LAST_ENDPOINT, transport->endpoints[index],
                       &size) != 0) {
        (void)snprintf(transport->endpoints[index], sizeof transport->endpoints[index], "%s",
                       endpoint);
    }
    note_socket_file(transport, index);
    return true;
}

static bool create_table(struct transport *transport, uint32_t connection_count_max)
{
    transport->connection_count_max = connection_count_max;
    transport->connections = calloc(connection_count_max, sizeof *transport->connections);
    transport->map_memory = calloc(1, map_memory_size(connection_count_max));
    transport->arrivals = calloc(ARRIVAL_COUNT_MAX, sizeof *transport->arrivals);
    if (transport->connections == NULL || transport->map_memory == NULL ||
        transport->arrivals == NULL) {
        return false;
    }
    map_init(&transport->by_routing_id, transport->map_memory, connection_count_max);
    list_init(&transport->free);
    list_init(&transport->cut);
    list_init(&transport->gone);
    list_init(&transport->waiting);
    list_init(&transport->doubtful);
    list_init(&transport->checks);
    transport->retry_at_ms = UINT64_MAX;
    randombytes_buf(&transport->hash_key, sizeof transport->hash_key);
    return true;
}

struct transport *transport_open(const struct transport_config *config,
                                 struct transport_error *error)
{
    TREADLE_ASSERT(config->endpoint_count >= 1 && config->endpoint_count <= ENDPOINT_COUNT_MAX);
    *error = (struct transport_error){.exit_code = EX_OSERR, .text = "no memory for the transport"};
    struct transport *transport = calloc(1, sizeof *transport);
    if (transport == NULL) {
        return NULL;
    }
    transport->principals = config->principals;
    transport->plain_tcp = config->plain_tcp;
    transport->check_span_ms = config->check_span_ms;
    bool is_ready = create_table(transport, config->connection_count_max);
    if (is_ready && !create_routers(transport, config)) {
        (void)snprintf(error->text, sizeof error->text, "cannot make sockets: %s",
                       zmq_strerror(errno));
        is_ready = false;
    }
    for (uint32_t i = 0; is_ready && i < config->endpoint_count; i++) {
        is_ready = bind_router(transport, config, i, error);
    }
    if (!is_ready) {
        transport_close(&transport, 0);
    }
    return transport;
}

static void drop_frames(struct transport *transport)
{
    for (uint32_t i = 0; i < transport->frame_count; i++) {
        (void)zmq_msg_close(&transport->frames[i]);
    }
    transport->frame_count = 0;
}

static void drop_unsent(struct transport *transport, struct connection *connection)
{
    while (connection->unsent_first != NULL) {
        struct unsent *unsent = connection->unsent_first;
        connection->unsent_first = unsent->next;
        for (size_t i = 0; i < unsent->frame_count; i++) {
            (void)zmq_msg_close(&unsent->frames[i]);
        }
        transport->counts.bytes_waiting -= unsent->size;
        transport->counts.sends_dropped++;
        free(unsent);
    }
    connection->unsent_last = NULL;
    connection->unsent_size = 0;
    connection->unsent_count = 0;
    list_remove(&connection->unsent_link);
}

/* libzmq leaves the file, and one that stayed would be taken for a broker's (`treadle` without
 * --broker). Another broker's, which took the path since, is left alone. */
static void remove_socket_file(const struct transport *transport, uint32_t index)
{
    struct stat state;
    const char *path = transport->endpoints[index] + strlen("ipc://");
    if (transport->socket_inodes[index] != 0 && lstat(path, &state) == 0 &&
        state.st_ino == transport->socket_inodes[index]) {
        (void)unlink(path);
    }
}

void transport_close(struct transport **transport_pointer, int linger_ms)
{
    struct transport *transport = *transport_pointer;
    if (transport == NULL) {
        return;
    }
    drop_frames(transport);
    for (uint32_t i = 0; i < transport->connection_used; i++) {
        drop_unsent(transport, &transport->connections[i]);
    }
    auth_close(&transport->auth);
    monitor_close(&transport->monitor);
    for (uint32_t i = 0; i < ENDPOINT_COUNT_MAX; i++) {
        if (transport->routers[i] != NULL) {
            remove_socket_file(transport, i);
            (void)set_int(transport->routers[i], ZMQ_LINGER, linger_ms);
            (void)zmq_close(transport->routers[i]);
        }
    }
    if (transport->context != NULL) {
        (void)zmq_ctx_term(transport->context);
    }
    free(transport->connections);
    free(transport->map_memory);
    free(transport->arrivals);
    free(transport->by_fd);
    free(transport);
    *transport_pointer = NULL;
}

const char *transport_endpoint(const struct transport *transport, uint32_t index)
{
    TREADLE_ASSERT(index < transport->endpoint_count);
    return transport->endpoints[index];
}

/* ---- the table of connections ---- */

static uint32_t number_of(const struct transport *transport, const struct connection *connection)
{
    return (uint32_t)(connection - transport->connections);
}

static struct connection *connection_at(const struct transport *transport, uint32_t number)
{
    TREADLE_ASSERT(number < transport->connection_used);
    return &transport->connections[number];
}

struct routing_key {
    uint32_t endpoint;
    uint8_t routing_id[ROUTING_ID_SIZE];
};

static uint64_t hash_of(const struct transport *transport, const struct routing_key *key)
{
    uint8_t bytes[ROUTING_ID_SIZE + 1];
    memcpy(bytes, key->routing_id, ROUTING_ID_SIZE);
    bytes[ROUTING_ID_SIZE] = (uint8_t)key->endpoint;
    return hash_bytes(&transport->hash_key, bytes, sizeof bytes);
}

static bool is_key(const void *context, uint32_t value, const void *key_pointer)
{
    const struct transport *transport = context;
    const struct routing_key *key = key_pointer;
    const struct connection *connection = &transport->connections[value];
    return connection->endpoint == key->endpoint &&
           memcmp(connection->routing_id, key->routing_id, ROUTING_ID_SIZE) == 0;
}

static struct routing_key key_of(const struct connection *connection)
{
    struct routing_key key = {.endpoint = connection->endpoint};
    memcpy(key.routing_id, connection->routing_id, ROUTING_ID_SIZE);
    return key;
}

static bool is_socket_there(const struct connection *connection)
{
    return connection->inode != 0 && socket_inode(connection->fd) == connection->inode;
}

/* Its socket is gone. That is told once nothing of it is left to receive. */
static void set_gone(struct transport *transport, struct connection *connection)
{
    if (connection->state != CONNECTION_LIVE && connection->state != CONNECTION_CUT) {
        return;
    }
    connection->state = CONNECTION_GONE;
    drop_unsent(transport, connection);
    list_remove(&connection->doubt_link);
    list_remove(&connection->check_link);
    list_remove(&connection->link);
    list_push_back(&transport->gone, &connection->link);
    if (connection->fd != NONE_FD && (uint32_t)connection->fd < transport->fd_count &&
        transport->by_fd[connection->fd] == number_of(transport, connection) + 1) {
        transport->by_fd[connection->fd] = 0;
    }
}

static bool grow_by_fd(struct transport *transport, int fd)
{
    if ((uint32_t)fd < transport->fd_count) {
        return true;
    }
    const uint32_t count = ((uint32_t)fd + 1024) / 1024 * 1024;
    uint32_t *grown = realloc(transport->by_fd, count * sizeof *grown);
    if (grown == NULL) {
        return false;
    }
    memset(grown + transport->fd_count, 0, (count - transport->fd_count) * sizeof *grown);
    transport->by_fd = grown;
    transport->fd_count = count;
    return true;
}

/* Notes the connection's socket. A connection that had the descriptor before is gone. */
static void set_fd(struct transport *transport, struct connection *connection, int fd)
{
    connection->fd = fd;
    connection->inode = socket_inode(fd);
    if (fd == NONE_FD) {
        return; /* its end will show when something is sent to it */
    }
    if (connection->inode == 0 || !grow_by_fd(transport, fd)) {
        set_gone(transport, connection); /* it sent something and left */
        return;
    }
    if (transport->by_fd[fd] != 0) {
        struct connection *other = &transport->connections[transport->by_fd[fd] - 1];
        if (other->inode == connection->inode && other->state == CONNECTION_LIVE) {
            /* One of the two is over, its descriptor is the other's now, and this was its last
             * word. Sending to it will tell which. */
            connection->fd = NONE_FD;
            connection->inode = 0;
            return;
        }
        set_gone(transport, other);
    }
    transport->by_fd[fd] = number_of(transport, connection) + 1;
}

/* NULL when all places are taken. */
static struct connection *take_place(struct transport *transport)
{
    struct list *link = list_pop_front(&transport->free);
    if (link != NULL) {
        return container_of(link, struct connection, link);
    }
    if (transport->connection_used == transport->connection_count_max) {
        return NULL;
    }
    struct connection *connection = &transport->connections[transport->connection_used];
    transport->connection_used++;
    list_init(&connection->link);
    list_init(&connection->unsent_link);
    list_init(&connection->doubt_link);
    list_init(&connection->check_link);
    return connection;
}

/* Who has sent this frame: on an encrypted endpoint what libzmq was told when it let the peer in.
 * The first frame does not know. NULL: nobody who may. */
static const struct principal *sender_principal(const struct transport *transport,
                                                uint32_t endpoint, zmq_msg_t *frame,
                                                uint8_t key[KEY_SIZE])
{
    if (!transport->is_encrypted[endpoint]) {
        const bool is_ipc = strncmp(transport->endpoints[endpoint], "ipc://", 6) == 0;
        return is_ipc ? &principal_local : transport->plain_tcp;
    }
    const char *user = zmq_msg_gets(frame, "User-Id");
    if (user == NULL || !principals_read_hex(key, user)) {
        return NULL;
    }
    return principals_find(transport->principals, key);
}

static void arm_check(struct transport *transport, struct connection *connection)
{
    list_remove(&connection->check_link);
    if (transport->check_span_ms > 0) {
        connection->check_at_ms = transport->now_ms + transport->check_span_ms;
        list_push_back(&transport->checks, &connection->check_link);
    }
}

static struct connection *open_connection(struct transport *transport,
                                          const struct routing_key *key, zmq_msg_t *frame)
{
    uint8_t public_key[KEY_SIZE] = {0};
    const struct principal *principal =
        sender_principal(transport, key->endpoint, frame, public_key);
    struct connection *connection = principal == NULL ? NULL : take_place(transport);
    if (connection == NULL) {
        return NULL;
    }
    connection->principal = principal;
    connection->is_keyed = transport->is_encrypted[key->endpoint];
    memcpy(connection->key, public_key, sizeof connection->key);
    connection->state = CONNECTION_LIVE;
    connection->endpoint = key->endpoint;
    connection->piped_size = 0;
    connection->received = 0;
    connection->given = 0;
    connection->taken_mark = 0;
    connection->looked_at_ms = 0;
    memcpy(connection->routing_id, key->routing_id, ROUTING_ID_SIZE);
    const char *peer = zmq_msg_gets(frame, "Peer-Address");
    (void)snprintf(connection->peer, sizeof connection->peer, "%s",
                   peer == NULL || peer[0] == '\0' ? "local" : peer);
    map_add(&transport->by_routing_id, hash_of(transport, key), number_of(transport, connection));
    transport->counts.connections_opened++;
    arm_check(transport, connection);
    set_fd(transport, connection, zmq_msg_get(frame, ZMQ_SRCFD));
    return connection;
}

void transport_forget(struct transport *transport, uint32_t number)
{
    struct connection *connection = connection_at(transport, number);
    TREADLE_ASSERT(connection->state == CONNECTION_ENDED);
    connection->state = CONNECTION_FREE;
    list_push_back(&transport->free, &connection->link);
}

bool transport_ended(struct transport *transport, uint32_t *number)
{
    struct list *link = list_pop_front(&transport->gone);
    if (link == NULL) {
        return false;
    }
    struct connection *connection = container_of(link, struct connection, link);
    const struct routing_key key = key_of(connection);
    connection->state = CONNECTION_ENDED;
    *number = number_of(transport, connection);
    map_remove(&transport->by_routing_id, hash_of(transport, &key), *number);
    return true;
}

const char *transport_peer(const struct transport *transport, uint32_t connection)
{
    return connection_at(transport, connection)->peer;
}

const struct principal *transport_principal(const struct transport *transport, uint32_t connection)
{
    return connection_at(transport, connection)->principal;
}

uint32_t transport_rights(const struct transport *transport, uint32_t connection)
{
    const struct connection *at = connection_at(transport, connection);
    return at->principal->rights & transport->rights[at->endpoint];
}

/* ---- how much a peer makes libzmq hold ---- */

/* A frame of this endpoint, on the wire. */
static uint64_t wire_size(const struct transport *transport, uint32_t endpoint, size_t size)
{
    const uint64_t whole = size + (transport->is_encrypted[endpoint] ? CURVE_SIZE : 0);
    return whole + (whole > 255 ? FRAME_SIZE : 2);
}

bool transport_has_peers(const struct transport *transport)
{
    return monitor_peer_count(transport->monitor) > 0;
}

/* The connection of this socket; NULL. */
static struct connection *connection_of_fd(const struct transport *transport, int fd)
{
    if (fd < 0 || (uint32_t)fd >= transport->fd_count || transport->by_fd[fd] == 0) {
        return NULL;
    }
    struct connection *connection = &transport->connections[transport->by_fd[fd] - 1];
    return is_socket_there(connection) ? connection : NULL;
}

bool transport_find_use(const struct transport *transport, int fd, struct transport_use *use)
{
    *use = (struct transport_use){.connection = CONNECTION_NONE};
    const struct connection *connection = connection_of_fd(transport, fd);
    if (connection != NULL) {
        use->connection = number_of(transport, connection);
        use->received = connection->received;
        use->given = connection->given;
        return true;
    }
    for (uint32_t i = 0; i < transport->endpoint_count; i++) {
        if (socket_is_of(fd, transport->endpoints[i])) {
            return true;
        }
    }
    return false;
}

const struct transport_counts *transport_counts(const struct transport *transport)
{
    return &transport->counts;
}

/* ---- what has ended, what is to end ---- */

/* Only if the descriptor still is the same socket: it may have been closed and used again. */
static void shut_down(const struct connection *connection)
{
    if (is_socket_there(connection)) {
        (void)shutdown(connection->fd, SHUT_RDWR);
    }
}

static void cut_at(struct transport *transport, struct connection *connection, uint64_t at_ms)
{
    if (connection->state != CONNECTION_LIVE) {
        return;
    }
    connection->state = CONNECTION_CUT;
    connection->cut_at_ms = at_ms;
    transport->counts.connections_cut++;
    drop_unsent(transport, connection);
    list_remove(&connection->doubt_link);
    list_remove(&connection->check_link);
    if (at_ms <= transport->now_ms) {
        list_push_front(&transport->cut, &connection->link); /* in order of time */
    } else {
        list_push_back(&transport->cut, &connection->link);
    }
}

void transport_shut_down(struct transport *transport, int fd)
{
    struct connection *connection = connection_of_fd(transport, fd);
    transport->counts.connections_greedy++;
    (void)shutdown(fd, SHUT_RDWR);
    if (connection == NULL) {
        transport->counts.connections_cut++;
    } else {
        cut_at(transport, connection, transport->now_ms);
    }
}

void transport_cut(struct transport *transport, uint32_t number, uint64_t now_ms)
{
    cut_at(transport, connection_at(transport, number), now_ms + CUT_DELAY_MS);
}

static void run_cuts(struct transport *transport)
{
    for (struct list *link = list_first(&transport->cut); link != NULL;
         link = list_first(&transport->cut)) {
        struct connection *connection = container_of(link, struct connection, link);
        if (connection->cut_at_ms > transport->now_ms) {
            return;
        }
        shut_down(connection);
        if (is_socket_there(connection)) {
            list_remove(&connection->link); /* the monitor will tell */
        } else {
            set_gone(transport, connection);
        }
    }
}

/* The endpoint of a peer's socket from which nothing has come; ENDPOINT_COUNT_MAX: it is none. */
static uint32_t endpoint_of_stranger(const struct transport *transport, int fd)
{
    for (uint32_t i = 0; connection_of_fd(transport, fd) == NULL && i < transport->endpoint_count;
         i++) {
        if (socket_is_of(fd, transport->endpoints[i])) {
            return i;
        }
    }
    return ENDPOINT_COUNT_MAX;
}

/* Whose such a socket of an encrypted endpoint is, nobody knows. */
static void shut_down_stranger(void *context, int fd)
{
    const struct transport *transport = context;
    const uint32_t endpoint = endpoint_of_stranger(transport, fd);
    if (endpoint != ENDPOINT_COUNT_MAX && transport->is_encrypted[endpoint]) {
        (void)shutdown(fd, SHUT_RDWR); /* who may come in connects again */
    }
}

/* ---- who says nothing ---- */

/* The socket that came first has had its time, or there is no place to remember it. */
static void end_arrival(struct transport *transport)
{
    const struct arrival arrival = transport->arrivals[transport->arrival_first];
    transport->arrival_first = (transport->arrival_first + 1) % ARRIVAL_COUNT_MAX;
    transport->arrival_count--;
    if (socket_inode(arrival.fd) == arrival.inode &&
        endpoint_of_stranger(transport, arrival.fd) != ENDPOINT_COUNT_MAX) {
        (void)shutdown(arrival.fd, SHUT_RDWR);
        transport->counts.connections_cut++;
        transport->counts.connections_silent++;
    }
}

static void on_arrived(struct transport *transport, int fd)
{
    const struct arrival arrival = {fd, socket_inode(fd),
                                    transport->now_ms + transport->check_span_ms};
    if (transport->check_span_ms == 0 || arrival.inode == 0) {
        return;
    }
    if (transport->arrival_count == ARRIVAL_COUNT_MAX) {
        end_arrival(transport);
    }
    transport->arrivals[(transport->arrival_first + transport->arrival_count) % ARRIVAL_COUNT_MAX] =
        arrival;
    transport->arrival_count++;
}

static void note_stranger(void *context, int fd)
{
    struct transport *transport = context;
    if (endpoint_of_stranger(transport, fd) != ENDPOINT_COUNT_MAX) {
        on_arrived(transport, fd);
    }
}

bool transport_to_check(struct transport *transport, uint32_t *number)
{
    while (transport->arrival_count > 0 &&
           transport->arrivals[transport->arrival_first].until_ms <= transport->now_ms) {
        end_arrival(transport);
    }
    struct list *link = list_first(&transport->checks);
    if (link == NULL) {
        return false;
    }
    struct connection *connection = container_of(link, struct connection, check_link);
    if (connection->check_at_ms > transport->now_ms) {
        return false;
    }
    arm_check(transport, connection);
    *number = number_of(transport, connection);
    return true;
}

/* ---- other principals ---- */

bool transport_set_principals(struct transport *transport, const struct principals *principals,
                              uint32_t *cut_count)
{
    *cut_count = 0;
    if (transport->auth == NULL) {
        return true;
    }
    const bool is_narrower = principals_are_narrower(principals, transport->principals);
    if (!auth_set_principals(transport->auth, principals)) {
        return false;
    }
    transport->principals = principals;
    for (uint32_t i = 0; i < transport->connection_used; i++) {
        struct connection *connection = &transport->connections[i];
        if (!connection->is_keyed || connection->state == CONNECTION_FREE) {
            continue;
        }
        const struct principal *now = principals_find(principals, connection->key);
        if (connection->state == CONNECTION_LIVE &&
            (now == NULL || principal_is_narrower(now, connection->principal))) {
            cut_at(transport, connection, transport->now_ms);
            ++*cut_count;
        }
        connection->principal = now == NULL ? &principal_nobody : now;
    }
    run_cuts(transport);
    if (is_narrower) {
        sockets_visit(shut_down_stranger, transport);
    }
    return true;
}

void transport_stop_auth(struct transport *transport)
{
    auth_close(&transport->auth);
}

static void exchange_with_auth(struct transport *transport)
{
    if (transport->auth == NULL) {
        return;
    }
    const struct auth_counts counts = auth_counts(transport->auth);
    transport->counts.handshakes_admitted = counts.admitted;
    transport->counts.handshakes_denied = counts.denied;
    transport->counts.handshakes_later = counts.not_now;
    auth_set_full(transport->auth,
                  map_count(&transport->by_routing_id) >= transport->connection_count_max);
}

static void arm_retry(struct transport *transport, uint64_t span_ms)
{
    if (transport->now_ms + span_ms < transport->retry_at_ms) {
        transport->retry_at_ms = transport->now_ms + span_ms;
    }
}

/*
 * The monitor says that the connection with this descriptor has ended. It may mean an earlier
 * connection that never sent a message, on the same descriptor; then this one's socket stays.
 * libzmq closes a socket just after it said so.
 */
static void on_ended(struct transport *transport, int fd)
{
    if (fd < 0 || (uint32_t)fd >= transport->fd_count || transport->by_fd[fd] == 0) {
        return;
    }
    struct connection *connection = &transport->connections[transport->by_fd[fd] - 1];
    if (!is_socket_there(connection)) {
        set_gone(transport, connection);
    } else if (list_is_empty(&connection->doubt_link)) {
        connection->doubt_until_ms = transport->now_ms + DOUBT_MS;
        list_push_back(&transport->doubtful, &connection->doubt_link);
        arm_retry(transport, RECHECK_MS);
    }
}

static void recheck_doubtful(struct transport *transport)
{
    struct list *next = NULL;
    for (struct list *link = list_first(&transport->doubtful); link != NULL; link = next) {
        next = list_next(&transport->doubtful, link);
        struct connection *connection = container_of(link, struct connection, doubt_link);
        if (!is_socket_there(connection)) {
            set_gone(transport, connection);
        } else if (connection->doubt_until_ms <= transport->now_ms) {
            list_remove(link);
        }
    }
    if (!list_is_empty(&transport->doubtful)) {
        arm_retry(transport, RECHECK_MS);
    }
}

/* Events were lost: looks at every socket. */
static void recheck_all(struct transport *transport)
{
    sockets_visit(note_stranger, transport);
    for (uint32_t i = 0; i < transport->connection_used; i++) {
        struct connection *connection = &transport->connections[i];
        if ((connection->state == CONNECTION_LIVE || connection->state == CONNECTION_CUT) &&
            !is_socket_there(connection)) {
            set_gone(transport, connection);
        }
    }
}

/* ---- sending ---- */

static void close_frames(zmq_msg_t *frames, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        (void)zmq_msg_close(&frames[i]);
    }
}

/* The routing id, then the frames, copied. False without memory. */
static bool build(const struct connection *connection, const struct wire_frames *frames,
                  zmq_msg_t *out)
{
    if (zmq_msg_init_size(&out[0], ROUTING_ID_SIZE) != 0) {
        return false;
    }
    memcpy(zmq_msg_data(&out[0]), connection->routing_id, ROUTING_ID_SIZE);
    for (size_t i = 0; i < frames->count; i++) {
        if (zmq_msg_init_size(&out[i + 1], frames->frames[i].size) != 0) {
            close_frames(out, i + 1);
            return false;
        }
        if (frames->frames[i].size > 0) {
            memcpy(zmq_msg_data(&out[i + 1]), frames->frames[i].data, frames->frames[i].size);
        }
    }
    return true;
}

/* Whether libzmq may be given more for this peer: of TCP the kernel tells how much has left, of ipc
 * only whether all that it has was read. */
static bool has_room(struct connection *connection)
{
    struct socket_bytes bytes;
    if (!is_socket_there(connection) || !socket_read_bytes(connection->fd, &bytes)) {
        return true; /* sending will tell that it is gone */
    }
    if (bytes.is_counted) {
        if (bytes.written > connection->given) {
            connection->given = bytes.written; /* libzmq's own: the handshake, heartbeats */
        }
        connection->piped_size = connection->given - bytes.written;
    } else if (bytes.unsent == 0) {
        connection->piped_size = 0;
    }
    return connection->piped_size <= PIPED_SIZE_MAX;
}

/* 0, and the frames are libzmq's; else an errno, and they stay. Only the first frame can find no
 * room. */
static int send_frames(struct transport *transport, struct connection *connection,
                       zmq_msg_t *frames, size_t count)
{
    void *router = transport->routers[connection->endpoint];
    uint64_t size = 0;
    if (connection->piped_size > PIPED_SIZE_MAX && !has_room(connection)) {
        return EAGAIN;
    }
    for (size_t i = 1; i < count; i++) {
        size += wire_size(transport, connection->endpoint, zmq_msg_size(&frames[i]));
    }
    for (size_t i = 0; i < count; i++) {
        const int more = i + 1 < count ? ZMQ_SNDMORE : 0;
        if (zmq_msg_send(&frames[i], router, ZMQ_DONTWAIT | more) == -1) {
            const int error_number = errno;
            if (i == 0) {
                return error_number;
            }
            close_frames(frames + i, count - i);
            break;
        }
    }
    transport->counts.messages_out++;
    connection->given += size;
    connection->piped_size += size;
    return 0;
}

/* Whether the peer has not taken a byte for some time. */
static bool is_stuck(struct transport *transport, struct connection *connection)
{
    struct socket_bytes bytes;
    if (connection->looked_at_ms != 0 &&
        transport->now_ms - connection->looked_at_ms < STUCK_LOOK_MS) {
        return false;
    }
    const bool is_first = connection->looked_at_ms == 0;
    connection->looked_at_ms = transport->now_ms;
    if (!is_socket_there(connection) || !socket_read_bytes(connection->fd, &bytes)) {
        return true;
    }
    const uint64_t mark = bytes.is_counted ? bytes.written - bytes.unsent : bytes.unsent;
    if (is_first || mark != connection->taken_mark) {
        connection->taken_mark = mark;
        connection->taken_at_ms = transport->now_ms;
    }
    return transport->now_ms - connection->taken_at_ms >= STUCK_MS;
}

/* Of all peers the one for which the most waits is cut off. */
static void cut_largest(struct transport *transport)
{
    struct connection *largest = NULL;
    for (struct list *link = list_first(&transport->waiting); link != NULL;
         link = list_next(&transport->waiting, link)) {
        struct connection *connection = container_of(link, struct connection, unsent_link);
        if (largest == NULL || connection->unsent_size > largest->unsent_size) {
            largest = connection;
        }
    }
    if (largest != NULL) {
        transport->counts.connections_greedy++;
        cut_at(transport, largest, transport->now_ms);
    }
}

static void keep_unsent(struct transport *transport, struct connection *connection,
                        zmq_msg_t *frames, size_t count)
{
    if (transport->counts.bytes_waiting > UNSENT_ALL_SIZE_MAX) {
        cut_largest(transport);
    }
    struct unsent *unsent = malloc(sizeof *unsent);
    const bool is_too_much =
        connection->unsent_count >= UNSENT_COUNT_MAX ||
        (connection->unsent_size > UNSENT_SIZE_MAX && is_stuck(transport, connection));
    if (unsent == NULL || is_too_much || connection->state != CONNECTION_LIVE) {
        free(unsent);
        close_frames(frames, count);
        transport->counts.sends_dropped++;
        cut_at(transport, connection, transport->now_ms);
        return;
    }
    *unsent = (struct unsent){.frame_count = count, .size = sizeof *unsent};
    for (size_t i = 0; i < count; i++) {
        (void)zmq_msg_init(&unsent->frames[i]);
        (void)zmq_msg_move(&unsent->frames[i], &frames[i]);
        unsent->size += zmq_msg_size(&unsent->frames[i]);
    }
    close_frames(frames, count);
    if (connection->unsent_last == NULL) {
        connection->unsent_first = unsent;
        list_push_back(&transport->waiting, &connection->unsent_link);
        connection->looked_at_ms = 0; /* stuck since now, if it is */
    } else {
        connection->unsent_last->next = unsent;
    }
    connection->unsent_last = unsent;
    connection->unsent_size += unsent->size;
    connection->unsent_count++;
    transport->counts.bytes_waiting += unsent->size;
    transport->counts.sends_waited++;
    arm_retry(transport, UNSENT_RETRY_MS);
}

void transport_send(struct transport *transport, uint32_t number, const struct wire_frames *frames)
{
    TREADLE_ASSERT(frames->count >= 1 && frames->count <= FRAME_COUNT_MAX);
    struct connection *connection = connection_at(transport, number);
    zmq_msg_t out[FRAME_COUNT_MAX + 1];
    const size_t count = frames->count + 1;
    if (connection->state != CONNECTION_LIVE || !build(connection, frames, out)) {
        transport->counts.sends_dropped++;
        return;
    }
    const int error_number =
        connection->unsent_first != NULL ? EAGAIN : send_frames(transport, connection, out, count);
    if (error_number == 0) {
        return;
    }
    if (error_number == EAGAIN) {
        keep_unsent(transport, connection, out, count);
        return;
    }
    close_frames(out, count);
    transport->counts.sends_dropped++;
    set_gone(transport, connection); /* EHOSTUNREACH */
}

/* Sends what waits for this peer, as far as there is room. */
static void send_waiting(struct transport *transport, struct connection *connection)
{
    while (connection->unsent_first != NULL) {
        struct unsent *unsent = connection->unsent_first;
        const int error_number =
            send_frames(transport, connection, unsent->frames, unsent->frame_count);
        if (error_number == EAGAIN) {
            return;
        }
        if (error_number != 0) {
            set_gone(transport, connection);
            return;
        }
        connection->unsent_first = unsent->next;
        connection->unsent_size -= unsent->size;
        connection->unsent_count--;
        transport->counts.bytes_waiting -= unsent->size;
        free(unsent);
    }
    connection->unsent_last = NULL;
    list_remove(&connection->unsent_link);
}

static void retry_sends(struct transport *transport)
{
    struct list *next = NULL;
    for (struct list *link = list_first(&transport->waiting); link != NULL; link = next) {
        next = list_next(&transport->waiting, link);
        send_waiting(transport, container_of(link, struct connection, unsent_link));
    }
    if (!list_is_empty(&transport->waiting)) {
        arm_retry(transport, UNSENT_RETRY_MS);
    }
}

/* ---- a round ---- */

void transport_wait(struct transport *transport, int signal_fd, int64_t timeout_ms)
{
    zmq_pollitem_t items[ENDPOINT_COUNT_MAX + 2];
    int count = 0;
    for (uint32_t i = 0; i < transport->endpoint_count; i++) {
        items[count] = (zmq_pollitem_t){.socket = transport->routers[i], .events = ZMQ_POLLIN};
        count++;
    }
    items[count] = (zmq_pollitem_t){.fd = monitor_fd(transport->monitor), .events = ZMQ_POLLIN};
    items[count + 1] = (zmq_pollitem_t){.fd = signal_fd, .events = ZMQ_POLLIN};
    (void)zmq_poll(items, count + 2, (long)timeout_ms);
}

void transport_collect(struct transport *transport, uint64_t now_ms)
{
    transport->now_ms = now_ms;
    transport->turn = (transport->turn + 1) % transport->endpoint_count;
    struct monitor_event event;
    while (monitor_next(transport->monitor, &event)) {
        if (event.has_ended) {
            on_ended(transport, event.fd);
        } else {
            on_arrived(transport, event.fd);
        }
    }
    if (monitor_has_lost(transport->monitor)) {
        recheck_all(transport);
    }
    run_cuts(transport);
    exchange_with_auth(transport);
    if (now_ms >= transport->retry_at_ms) {
        transport->retry_at_ms = UINT64_MAX;
        recheck_doubtful(transport);
        retry_sends(transport);
    }
}

static uint64_t earlier(uint64_t left_ms, uint64_t right_ms)
{
    return left_ms < right_ms ? left_ms : right_ms;
}

uint64_t transport_next_at_ms(const struct transport *transport)
{
    const struct list *cut = list_first(&transport->cut);
    const struct list *check = list_first(&transport->checks);
    uint64_t next_at_ms = transport->retry_at_ms;
    if (cut != NULL) {
        next_at_ms =
            earlier(next_at_ms, container_of_const(cut, struct connection, link)->cut_at_ms);
    }
    if (check != NULL) {
        next_at_ms = earlier(next_at_ms,
                             container_of_const(check, struct connection, check_link)->check_at_ms);
    }
    if (transport->arrival_count > 0) {
        next_at_ms = earlier(next_at_ms, transport->arrivals[transport->arrival_first].until_ms);
    }
    return next_at_ms;
}

/* ---- receiving ---- */

static bool has_more(void *router)
{
    int more = 0;
    size_t size = sizeof more;
    return zmq_getsockopt(router, ZMQ_RCVMORE, &more, &size) == 0 && more != 0;
}

/* The frames of one message into transport.frames; those beyond the limit are skipped. False: there
 * is none. */
static bool take_frames(struct transport *transport, uint32_t endpoint, bool *is_over_limit)
{
    void *router = transport->routers[endpoint];
    drop_frames(transport);
    transport->received_size = 0;
    transport->skipped_size = 0;
    *is_over_limit = false;
    do {
        zmq_msg_t *frame = &transport->frames[transport->frame_count];
        zmq_msg_t skipped;
        const bool is_beyond = transport->frame_count == FRAME_COUNT_MAX + 1;
        if (is_beyond) {
            *is_over_limit = true;
            frame = &skipped;
        }
        (void)zmq_msg_init(frame);
        if (zmq_msg_recv(frame, router, ZMQ_DONTWAIT) == -1) {
            (void)zmq_msg_close(frame);
            return false;
        }
        const size_t size = zmq_msg_size(frame);
        transport->received_size +=
            transport->frame_count > 0 ? wire_size(transport, endpoint, size) : 0;
        if (is_beyond) {
            transport->skipped_size += size;
            (void)zmq_msg_close(frame);
        } else {
            transport->frame_count++;
        }
    } while (has_more(router));
    transport->counts.messages_in++;
    return true;
}

/* The peer chose its routing id, or there is no place for it: it gets no number, and its socket is
 * shut down. */
static void refuse(struct transport *transport)
{
    const int fd = zmq_msg_get(&transport->frames[1], ZMQ_SRCFD);
    transport->counts.connections_refused++;
    if (endpoint_of_stranger(transport, fd) != ENDPOINT_COUNT_MAX) { /* else it has left already */
        (void)shutdown(fd, SHUT_RDWR);
    }
}

/* The connection the message came over; NULL: none that is listened to. */
static struct connection *sender_of(struct transport *transport, uint32_t endpoint, bool *is_new)
{
    zmq_msg_t *routing_id = &transport->frames[0];
    const uint8_t *bytes = zmq_msg_data(routing_id);
    *is_new = false;
    if (transport->frame_count < 2) {
        return NULL;
    }
    if (zmq_msg_size(routing_id) != ROUTING_ID_SIZE || bytes[0] != 0) {
        refuse(transport);
        return NULL;
    }
    struct routing_key key = {.endpoint = endpoint};
    memcpy(key.routing_id, bytes, ROUTING_ID_SIZE);
    const uint32_t found =
        map_find(&transport->by_routing_id, hash_of(transport, &key), is_key, transport, &key);
    if (found != MAP_NONE) {
        struct connection *connection = &transport->connections[found];
        return connection->state == CONNECTION_CUT ? NULL : connection;
    }
    struct connection *connection = open_connection(transport, &key, &transport->frames[1]);
    if (connection == NULL) {
        refuse(transport);
    }
    *is_new = connection != NULL;
    return connection;
}

static void put_message(struct transport *transport, struct transport_message *message)
{
    message->size = transport->skipped_size;
    for (uint32_t i = 1; i < transport->frame_count; i++) {
        transport->views[i - 1] = (struct bytes){zmq_msg_data(&transport->frames[i]),
                                                 zmq_msg_size(&transport->frames[i])};
        message->size += transport->views[i - 1].size;
    }
    struct connection *connection = connection_at(transport, message->connection);
    connection->received += transport->received_size;
    message->frames = (struct wire_frames){transport->views, transport->frame_count - 1};
}

bool transport_receive(struct transport *transport, struct transport_message *message)
{
    for (uint32_t i = 0; i < transport->endpoint_count; i++) {
        const uint32_t endpoint = transport->turn;
        *message = (struct transport_message){.connection = CONNECTION_NONE};
        if (!take_frames(transport, endpoint, &message->is_over_limit)) {
            transport->turn = (endpoint + 1) % transport->endpoint_count;
            continue;
        }
        const struct connection *connection = sender_of(transport, endpoint, &message->is_new);
        if (connection != NULL) {
            message->connection = number_of(transport, connection);
            put_message(transport, message);
        }
        return true;
    }
    drop_frames(transport);
    return false;
}
