/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What goes over a network interface, as it is: `wire_tap INTERFACE FILE` prints "listening
 * INTERFACE" and then writes each frame to FILE, until it is ended. Needs the right to raw sockets,
 * as in a network namespace of one's own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char *what)
{
    (void)fprintf(stderr, "wire_tap: %s: %s\n", what, strerrordesc_np(errno));
    return EXIT_FAILURE;
}

int main(int count, char **arguments)
{
    static char frame[1 << 17]; /* more than one with offloads has */
    if (count != 3) {
        fprintf(stderr, "usage: wire_tap INTERFACE FILE\n");
        return 64;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                        .sll_protocol = htons(ETH_P_ALL),
                                        .sll_ifindex = (int)if_nametoindex(arguments[1])};
    const int wire = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    if (address.sll_ifindex == 0 || wire == -1 ||
        bind(wire, (const struct sockaddr *)&address, sizeof address) != 0) {
        return fail(arguments[1]);
    }
    const int file = open(arguments[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file == -1) {
        return fail(arguments[2]);
    }
    printf("listening %s\n", arguments[1]);
    (void)fflush(stdout);
    for (;;) {
        const ssize_t size = recv(wire, frame, sizeof frame, 0);
        if (size < 0 && errno != EINTR) {
            return fail(arguments[1]);
        }
        if (size > 0 && write(file, frame, (size_t)size) != size) {
            return fail(arguments[2]);
        }
    }
}
