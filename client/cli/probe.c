/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/probe.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/client_internal.h"

/* A greeting of ZMTP 3 (https://rfc.zeromq.org/spec/37): signature, version, mechanism. */
#define GREETING_SIZE  64U
#define SIGNATURE_SIZE 10U
#define MECHANISM_AT   12U
#define HOST_SIZE      256U
#define PORT_SIZE      16U

static int left_ms(uint64_t until_ms)
{
    const uint64_t now_ms = client_now_ms();

    return now_ms >= until_ms ? 0 : (int)(until_ms - now_ms);
}

static bool wait_for(int fd, short events, uint64_t until_ms)
{
    struct pollfd item = {.fd = fd, .events = events};
    int count = 0;

    do {
        count = poll(&item, 1, left_ms(until_ms));
    } while (count == -1 && errno == EINTR);
    return count > 0;
}

static enum transport_fault fault_of(int family, int error)
{
    switch (error) {
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EADDRNOTAVAIL:
        return TRANSPORT_FAULT_UNREACHABLE;
    case EACCES:
    case EPERM: /* with TCP: a firewall of this machine */
        return family == AF_UNIX ? TRANSPORT_FAULT_FORBIDDEN : TRANSPORT_FAULT_UNREACHABLE;
    case EAGAIN:    /* an ipc path whose owner takes no connections */
    case ETIMEDOUT: /* nobody answers, not even with a refusal */
        return TRANSPORT_FAULT_SILENT;
    default:
        return TRANSPORT_FAULT_NOTHING_LISTENS;
    }
}

/* A connected descriptor, or -1 and *fault. */
static int connect_to(int family, const struct sockaddr *address, socklen_t size, uint64_t until_ms,
                      enum transport_fault *fault)
{
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = 0;
    socklen_t error_size = sizeof(error);

    *fault = TRANSPORT_FAULT_NOTHING_LISTENS;
    if (fd == -1) {
        return -1;
    }
    if (connect(fd, address, size) == 0) {
        return fd;
    }
    error = errno;
    if (error == EINPROGRESS && !wait_for(fd, POLLOUT, until_ms)) {
        error = ETIMEDOUT;
    } else if (error == EINPROGRESS) {
        (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_size);
        if (error == 0) {
            return fd;
        }
    }
    *fault = fault_of(family, error);
    (void)close(fd);
    return -1;
}

static int connect_ipc(const char *path, uint64_t until_ms, enum transport_fault *fault)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *fault = TRANSPORT_FAULT_NOTHING_LISTENS;
    if (strlen(path) >= sizeof(address.sun_path)) {
        return -1;
    }
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (path[0] == '@') {
        address.sun_path[0] = '\0'; /* an abstract one, as libzmq writes them */
    }
    const size_t size =
        offsetof(struct sockaddr_un, sun_path) + strlen(path) + (path[0] == '@' ? 0 : 1);

    return connect_to(AF_UNIX, (const struct sockaddr *)&address, (socklen_t)size, until_ms, fault);
}

/* HOST:PORT, or [ADDRESS]:PORT. */
static bool split(const char *text, char host[HOST_SIZE], char port[PORT_SIZE])
{
    const char *colon = strrchr(text, ':');
    const bool is_bracketed = text[0] == '[' && colon != NULL && colon > text && colon[-1] == ']';
    const char *start = is_bracketed ? text + 1 : text;

    if (colon == NULL) {
        return false;
    }
    const size_t size = (size_t)(colon - start) - (is_bracketed ? 1 : 0);

    if (size >= HOST_SIZE || strlen(colon + 1) >= PORT_SIZE) {
        return false;
    }
    (void)snprintf(host, HOST_SIZE, "%.*s", (int)size, start);
    (void)snprintf(port, PORT_SIZE, "%s", colon + 1);
    return true;
}

static int connect_tcp(const char *text, uint64_t until_ms, enum transport_fault *fault)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char host[HOST_SIZE];
    char port[PORT_SIZE];
    int fd = -1;

    *fault = TRANSPORT_FAULT_UNRESOLVED;
    if (!split(text, host, port) || getaddrinfo(host, port, &hints, &found) != 0) {
        return -1;
    }
    for (const struct addrinfo *at = found; at != NULL && fd == -1; at = at->ai_next) {
        fd = connect_to(at->ai_family, at->ai_addr, at->ai_addrlen, until_ms, fault);
    }
    freeaddrinfo(found);
    return fd;
}

/* Whether these are the first bytes of a greeting. */
static bool is_greeting(const uint8_t *bytes, size_t size)
{
    return (size < 1 || bytes[0] == 0xff) &&
           (size < SIGNATURE_SIZE || bytes[SIGNATURE_SIZE - 1] == 0x7f) &&
           (size <= SIGNATURE_SIZE || bytes[SIGNATURE_SIZE] >= 3);
}

/* Says as much of a greeting as makes the other side tell its mechanism, and reads that. */
static enum transport_fault read_greeting(int fd, uint8_t greeting[GREETING_SIZE],
                                          uint64_t until_ms)
{
    static const uint8_t ours[SIGNATURE_SIZE + 1] = {[0] = 0xff, [9] = 0x7f, [10] = 3};
    size_t size = 0;

    if (send(fd, ours, sizeof(ours), MSG_NOSIGNAL) != (ssize_t)sizeof(ours)) {
        return TRANSPORT_FAULT_NOT_ZEROMQ;
    }
    while (size < GREETING_SIZE) {
        if (!wait_for(fd, POLLIN, until_ms)) {
            return size == 0 ? TRANSPORT_FAULT_SILENT : TRANSPORT_FAULT_NOT_ZEROMQ;
        }
        const ssize_t got = recv(fd, greeting + size, GREETING_SIZE - size, 0);

        if (got <= 0 && !(got == -1 && (errno == EINTR || errno == EAGAIN))) {
            return TRANSPORT_FAULT_NOT_ZEROMQ;
        }
        size += got > 0 ? (size_t)got : 0;
        if (!is_greeting(greeting, size)) {
            return TRANSPORT_FAULT_NOT_ZEROMQ;
        }
    }
    return TRANSPORT_FAULT_NONE;
}

enum probe_result probe_endpoint(const char *endpoint, uint64_t timeout_ms,
                                 enum transport_fault *fault)
{
    const uint64_t until_ms = client_now_ms() + (timeout_ms < INT32_MAX ? timeout_ms : INT32_MAX);
    const bool is_ipc = strncmp(endpoint, "ipc://", 6) == 0;
    uint8_t greeting[GREETING_SIZE];
    const int fd = is_ipc ? connect_ipc(endpoint + 6, until_ms, fault)
                          : connect_tcp(endpoint + 6, until_ms, fault);

    if (fd == -1) {
        return PROBE_FAULT;
    }
    *fault = read_greeting(fd, greeting, until_ms);
    (void)close(fd);
    if (*fault != TRANSPORT_FAULT_NONE) {
        return PROBE_FAULT;
    }
    return memcmp(greeting + MECHANISM_AT, "CURVE", 5) == 0 ? PROBE_ENCRYPTED : PROBE_PLAIN;
}
