/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A service manager's ear: prints what programs send to the datagram socket PATH, a line for each
 * line of a message, until it is ended.
 *
 * usage: notify_socket PATH
 */
#define _GNU_SOURCE

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MESSAGE_SIZE_MAX 4096

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char message[MESSAGE_SIZE_MAX];
    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path) {
        (void)fprintf(stderr, "usage: notify_socket PATH\n");
        return 64;
    }
    memcpy(address.sun_path, argv[1], strlen(argv[1]) + 1);
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1 || bind(fd, (const struct sockaddr *)&address, sizeof address) == -1) {
        perror(argv[1]);
        return 71;
    }
    (void)printf("ready\n");
    (void)fflush(stdout);
    for (;;) {
        const ssize_t size = recv(fd, message, sizeof message, 0);
        if (size < 0) {
            return 71;
        }
        (void)printf("%.*s\n", (int)size, message);
        (void)fflush(stdout);
    }
}
