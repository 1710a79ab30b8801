/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What listens and is no treadle broker, or not one that fits:
 *
 *     fake_listener closes    ends each connection at once
 *     fake_listener silent    takes connections and says nothing
 *     fake_listener ssh       greets as an SSH server does
 *     fake_listener http      answers as a web server does
 *     fake_listener other     speaks ZeroMQ, and is another program
 *     fake_listener newer     a broker that refuses the version of everybody
 *
 * Prints "listening tcp://..." and goes on until it is ended by a signal.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <zmq.h>

#include "common/base/bytes.h"
#include "common/wire/message.h"

#define CONNECTION_COUNT_MAX 1000

static void say_listening(const char *endpoint)
{
    (void)printf("listening %s\n", endpoint);
    (void)fflush(stdout);
}

/* ---- what is no ZeroMQ ---- */

static void treat(int fd, const char *manner)
{
    static const char ssh[] = "SSH-2.0-OpenSSH_9.2p1\r\n";
    static const char http[] = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
                               "Connection: close\r\n\r\nthis is not what I understand\r\n";
    char heard[256];

    if (strcmp(manner, "silent") == 0) {
        return; /* and stays open */
    }
    if (strcmp(manner, "ssh") == 0) {
        (void)!send(fd, ssh, sizeof(ssh) - 1, MSG_NOSIGNAL);
        (void)!recv(fd, heard, sizeof(heard), 0);
    } else if (strcmp(manner, "http") == 0) {
        (void)!recv(fd, heard, sizeof(heard), 0);
        (void)!send(fd, http, sizeof(http) - 1, MSG_NOSIGNAL);
    }
    (void)close(fd);
}

static int listen_raw(const char *manner)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    char endpoint[64];
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd == -1 || bind(fd, (const struct sockaddr *)&address, size) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        return EXIT_FAILURE;
    }
    (void)snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%u",
                   (unsigned)ntohs(address.sin_port));
    say_listening(endpoint);
    for (int count = 0; count < CONNECTION_COUNT_MAX; count++) {
        const int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (connection != -1) {
            treat(connection, manner);
        }
    }
    return EXIT_FAILURE;
}

/* ---- what is no broker, or of another version ---- */

/* Takes a message with all its parts; the routing id of who sent it. */
static bool take(void *socket, zmq_msg_t *routing_id)
{
    bool has_more = zmq_msg_recv(routing_id, socket, 0) >= 0;
    const bool is_taken = has_more;

    while (has_more) {
        zmq_msg_t part;
        (void)zmq_msg_init(&part);
        has_more = zmq_msg_recv(&part, socket, 0) >= 0 && zmq_msg_more(&part) != 0;
        (void)zmq_msg_close(&part);
    }
    return is_taken;
}

static void refuse_version(void *socket, zmq_msg_t *routing_id)
{
    static struct writer writer;
    const struct message refused = {
        .kind = MESSAGE_REFUSED,
        .as.refused = {.code = REFUSED_VERSION,
                       .text = bytes_from_text("this broker speaks 1.7 to 1.9")},
    };

    writer_init(&writer);
    if (message_encode(&refused, &writer)) {
        (void)zmq_msg_send(routing_id, socket, ZMQ_SNDMORE);
        (void)zmq_send(socket, writer.frames.frames[0].data, writer.frames.frames[0].size, 0);
    }
    writer_free(&writer);
}

static int listen_zeromq(bool is_newer)
{
    void *context = zmq_ctx_new();
    void *socket = zmq_socket(context, ZMQ_ROUTER);
    char endpoint[256] = "";
    size_t size = sizeof(endpoint);
    zmq_msg_t routing_id;

    if (socket == NULL || zmq_bind(socket, "tcp://127.0.0.1:*") != 0 ||
        zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &size) != 0) {
        return EXIT_FAILURE;
    }
    say_listening(endpoint);
    (void)zmq_msg_init(&routing_id);
    while (take(socket, &routing_id)) {
        if (is_newer) {
            refuse_version(socket, &routing_id);
        }
    }
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    const char *manner = argc == 2 ? argv[1] : "";

    if (strcmp(manner, "other") == 0 || strcmp(manner, "newer") == 0) {
        return listen_zeromq(strcmp(manner, "newer") == 0);
    }
    return listen_raw(manner);
}
