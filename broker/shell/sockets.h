/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What the kernel knows of peers' sockets. libzmq tells nothing of a peer before its first whole
 * message, and nothing of what it holds for one: the first is found among the process's own
 * descriptors, the second is what went through the socket less what the broker was given.
 */
#ifndef TREADLE_SHELL_SOCKETS_H
#define TREADLE_SHELL_SOCKETS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct socket_bytes {
    bool is_counted;   /* the kernel counts the totals: of TCP it does, of ipc it does not */
    uint64_t received; /* over its life, unread ones too */
    uint64_t unread;   /* in the kernel, not taken by libzmq yet */
    uint64_t written;  /* over its life, by libzmq */
    uint64_t unsent;   /* in the kernel, not taken by the peer yet */
};

/* The socket's inode: no two sockets at a time have the same. 0: there is no such descriptor. */
ino_t socket_inode(int fd);

/* False: it is no socket, or is gone. */
bool socket_read_bytes(int fd, struct socket_bytes *bytes);

/* Calls visit() for each descriptor of this process that is a connected stream socket with a local
 * address of its own. The visitor may shut it down. */
void sockets_visit(void (*visit)(void *context, int fd), void *context);

/* Whether its local address is the one that this endpoint, as bound, listens on. */
bool socket_is_of(int fd, const char *endpoint);

#endif
