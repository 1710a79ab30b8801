/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/sockets.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

ino_t socket_inode(int fd)
{
    struct stat status;
    if (fd == -1 || fstat(fd, &status) == -1 || !S_ISSOCK(status.st_mode)) {
        return 0;
    }
    return status.st_ino;
}

/* Of TCP only. */
static void read_totals(int fd, struct socket_bytes *bytes)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
        size >= offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received) {
        bytes->is_counted = true;
        bytes->received = info.tcpi_bytes_received;
        bytes->written = info.tcpi_bytes_acked + bytes->unsent;
    }
}

bool socket_read_bytes(int fd, struct socket_bytes *bytes)
{
    *bytes = (struct socket_bytes){0};
    int unread = 0;
    int unsent = 0;
    if (ioctl(fd, SIOCINQ, &unread) == -1 || ioctl(fd, SIOCOUTQ, &unsent) == -1) {
        return false;
    }
    bytes->unread = unread > 0 ? (uint64_t)unread : 0;
    bytes->unsent = unsent > 0 ? (uint64_t)unsent : 0;
    read_totals(fd, bytes);
    return true;
}

/* A socket that listens, or that has no address (the journal's, say), is no peer's. */
static bool is_connected_stream(int fd)
{
    int type = 0;
    int listens = 0;
    socklen_t size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == -1 || type != SOCK_STREAM) {
        return false;
    }
    size = sizeof listens;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens == 0;
}

void sockets_visit(void (*visit)(void *context, int fd), void *context)
{
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL) {
        return;
    }
    const struct dirent *entry = NULL;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of its own */
    while ((entry = readdir(folder)) != NULL) {
        char *end = NULL;
        const long fd = strtol(entry->d_name, &end, 10);
        if (end != entry->d_name && *end == '\0' && is_connected_stream((int)fd)) {
            visit(context, (int)fd);
        }
    }
    (void)closedir(folder);
}

bool socket_is_of(int fd, const char *endpoint)
{
    union address address = {0};
    socklen_t size = sizeof address;
    if (getsockname(fd, &address.any, &size) == -1) {
        return false;
    }
    if (strncmp(endpoint, "ipc://", 6) == 0) {
        return address.any.sa_family == AF_UNIX && size > sizeof address.any.sa_family &&
               strncmp(address.un.sun_path, endpoint + 6, sizeof address.un.sun_path) == 0;
    }
    const char *colon = strrchr(endpoint, ':');
    const uint16_t port = colon == NULL ? 0 : (uint16_t)strtoul(colon + 1, NULL, 10);
    return (address.any.sa_family == AF_INET && ntohs(address.in.sin_port) == port) ||
           (address.any.sa_family == AF_INET6 && ntohs(address.in6.sin6_port) == port);
}
