/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A TCP relay on the loopback whose connections can be cut: `cut_proxy PORT` prints "listening
 * ENDPOINT" and passes bytes between whoever connects there and 127.0.0.1:PORT. SIGUSR1 cuts every
 * connection; new ones are admitted at once.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAIR_COUNT_MAX 64

struct pair {
    int fds[2];
};

static struct pair pairs[PAIR_COUNT_MAX];
static int pair_count;

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
}

static void drop_pair(int index)
{
    close(pairs[index].fds[0]);
    close(pairs[index].fds[1]);
    pair_count--;
    pairs[index] = pairs[pair_count];
}

static void admit(int listener, uint16_t port)
{
    const int near = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (near == -1) {
        return;
    }
    const struct sockaddr_in target = loopback(port);
    const int far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (far == -1 || pair_count == PAIR_COUNT_MAX ||
        connect(far, (const struct sockaddr *)&target, sizeof target) != 0) {
        close(near);
        if (far != -1) {
            close(far);
        }
        return;
    }
    pairs[pair_count] = (struct pair){{near, far}};
    pair_count++;
}

/* False: one of the ends is gone. */
static bool pass(int from, int to)
{
    char buffer[65536];
    const ssize_t size = read(from, buffer, sizeof buffer);
    if (size <= 0) {
        return false;
    }
    for (ssize_t done = 0; done < size;) {
        const ssize_t written = send(to, buffer + done, (size_t)(size - done), MSG_NOSIGNAL);
        if (written <= 0) {
            return false;
        }
        done += written;
    }
    return true;
}

static void serve(const struct pollfd *polled)
{
    for (int i = pair_count - 1; i >= 0; i--) {
        const struct pollfd *ends = &polled[(ptrdiff_t)2 * i];
        const bool is_up = (ends[0].revents == 0 || pass(pairs[i].fds[0], pairs[i].fds[1])) &&
                           (ends[1].revents == 0 || pass(pairs[i].fds[1], pairs[i].fds[0]));
        if (!is_up) {
            drop_pair(i);
        }
    }
}

static void run(int listener, int signals, uint16_t port)
{
    for (;;) {
        struct pollfd polled[2 + 2 * PAIR_COUNT_MAX] = {{.fd = listener, .events = POLLIN},
                                                        {.fd = signals, .events = POLLIN}};
        for (int i = 0; i < pair_count; i++) {
            polled[2 + 2 * i] = (struct pollfd){.fd = pairs[i].fds[0], .events = POLLIN};
            polled[3 + 2 * i] = (struct pollfd){.fd = pairs[i].fds[1], .events = POLLIN};
        }
        if (poll(polled, 2 + (nfds_t)pair_count * 2, -1) < 0 && errno != EINTR) {
            return;
        }
        serve(polled + 2);
        if (polled[1].revents != 0) {
            struct signalfd_siginfo info;
            (void)!read(signals, &info, sizeof info);
            while (pair_count > 0) {
                drop_pair(pair_count - 1);
            }
        }
        if (polled[0].revents != 0) {
            admit(listener, port);
        }
    }
}

int main(int count, char **arguments)
{
    if (count != 2) {
        fprintf(stderr, "usage: cut_proxy PORT\n");
        return 64;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0 || listener == -1 ||
        bind(listener, (const struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 16) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
        (void)fprintf(stderr, "cut_proxy: %s\n", strerrordesc_np(errno));
        return EXIT_FAILURE;
    }
    printf("listening tcp://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    run(listener, signalfd(-1, &signals, SFD_CLOEXEC), (uint16_t)strtoul(arguments[1], NULL, 10));
    return EXIT_FAILURE;
}
