/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "tests/support/raw_peer.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define GREETING_SIZE 64U
#define FLAG_MORE     1U
#define FLAG_LONG     2U

static const uint8_t ready[] = "\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06"
                               "DEALER\x08"
                               "Identity\0\0\0";

static int connect_tcp(const char *address, const char *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoul(port, NULL, 10))};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (inet_pton(AF_INET, address, &at.sin_addr) != 1 ||
        connect(fd, (const struct sockaddr *)&at, sizeof at) == -1) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static int connect_ipc(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    if (connect(fd, (const struct sockaddr *)&at, sizeof at) == -1) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

int raw_connect(const char *endpoint)
{
    char address[64] = "";
    char port[16] = "";
    if (strncmp(endpoint, "ipc://", 6) == 0) {
        return connect_ipc(endpoint + 6);
    }
    if (sscanf(endpoint, "tcp://%63[0-9.]:%15[0-9]", address, port) != 2) {
        return -1;
    }
    return connect_tcp(address, port);
}

bool raw_send(int fd, struct bytes bytes)
{
    while (bytes.size > 0) {
        const ssize_t sent = send(fd, bytes.data, bytes.size, MSG_NOSIGNAL);
        if (sent <= 0) {
            return false;
        }
        bytes.data += sent;
        bytes.size -= (size_t)sent;
    }
    return true;
}

static bool take_greeting(int fd)
{
    uint8_t greeting[GREETING_SIZE];
    return recv(fd, greeting, sizeof greeting, MSG_WAITALL) == (ssize_t)sizeof greeting;
}

int raw_peer_open(const char *endpoint, uint32_t send_timeout_ms)
{
    const uint8_t greeting[GREETING_SIZE] = {
        [0] = 0xff, [8] = 1,    [9] = 0x7f, [10] = 3,
        [12] = 'N', [13] = 'U', [14] = 'L', [15] = 'L'}; /* the mechanism */
    const int fd = raw_connect(endpoint);
    if (fd == -1) {
        return -1;
    }
    const struct timeval timeout = {(time_t)(send_timeout_ms / 1000),
                                    (suseconds_t)(send_timeout_ms % 1000) * 1000};
    const bool is_open = setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) == 0 &&
                         raw_send(fd, (struct bytes){greeting, sizeof greeting}) &&
                         take_greeting(fd) && raw_send(fd, (struct bytes){ready, sizeof ready});
    if (!is_open) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

bool raw_peer_send(int fd, struct bytes frame, bool has_more)
{
    const bool is_long = frame.size > 255;
    uint8_t header[9] = {(uint8_t)((has_more ? FLAG_MORE : 0) | (is_long ? FLAG_LONG : 0))};
    if (is_long) {
        bytes_store_u64(header + 1, frame.size);
    } else {
        header[1] = (uint8_t)frame.size;
    }
    return raw_send(fd, (struct bytes){header, is_long ? sizeof header : 2}) && raw_send(fd, frame);
}
