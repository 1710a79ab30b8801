/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/endpoint.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>
#include <zmq.h>

#define IPC_PREFIX "ipc://"
#define TCP_PREFIX "tcp://"

static void set_error(struct transport_error *error, int exit_code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void set_error(struct transport_error *error, int exit_code, const char *format, ...)
{
    va_list arguments;
    error->exit_code = exit_code;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* 127.0.0.0/8 in dotted form, [::1], localhost; names that must be looked up are not trusted. */
static bool is_loopback(const char *host, size_t size)
{
    if ((size == 9 && memcmp(host, "localhost", 9) == 0) ||
        (size == 5 && memcmp(host, "[::1]", 5) == 0)) {
        return true;
    }
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    int used = 0;
    char text[16];
    if (size >= sizeof text) {
        return false;
    }
    memcpy(text, host, size);
    text[size] = '\0';
    /* NOLINTNEXTLINE(cert-err34-c): at most three digits each, and all of the text is used */
    return sscanf(text, "%3u.%3u.%3u.%3u%n", &a, &b, &c, &d, &used) == 4 && (size_t)used == size &&
           a == 127 && b < 256 && c < 256 && d < 256;
}

enum endpoint_kind endpoint_kind(const char *endpoint)
{
    if (starts_with(endpoint, IPC_PREFIX)) {
        const char first = endpoint[strlen(IPC_PREFIX)];
        return first == '\0' || first == '@' ? ENDPOINT_BAD : ENDPOINT_IPC;
    }
    if (!starts_with(endpoint, TCP_PREFIX)) {
        return ENDPOINT_BAD;
    }
    const char *host = endpoint + strlen(TCP_PREFIX);
    const char *colon = strrchr(host, ':');
    if (colon == NULL || colon == host || colon[1] == '\0') {
        return ENDPOINT_BAD;
    }
    return is_loopback(host, (size_t)(colon - host)) ? ENDPOINT_LOOPBACK : ENDPOINT_TCP;
}

/* A port from 1 to 65535, or "*". */
static bool is_port(const char *text)
{
    uint32_t port = 0;
    size_t size = 0;
    if (strcmp(text, "*") == 0) {
        return true;
    }
    for (; text[size] >= '0' && text[size] <= '9' && size < 6; size++) {
        port = port * 10 + (uint32_t)(text[size] - '0');
    }
    return text[size] == '\0' && port >= 1 && port <= 65535;
}

const char *endpoint_mistake(const char *endpoint)
{
    const struct sockaddr_un *address = NULL;
    if (starts_with(endpoint, IPC_PREFIX)) {
        const char *path = endpoint + strlen(IPC_PREFIX);
        if (strcmp(path, "*") == 0) {
            return NULL;
        }
        if (path[0] != '/' || path[1] == '\0') {
            return "a path from the root: ipc:///PATH";
        }
        return strlen(path) < sizeof address->sun_path ? NULL : "a path of at most 107 bytes";
    }
    if (!starts_with(endpoint, TCP_PREFIX)) {
        return "ipc:///PATH or tcp://HOST:PORT";
    }
    const char *host = endpoint + strlen(TCP_PREFIX);
    const char *colon = strrchr(host, ':');
    if (colon == NULL || colon == host) {
        return "a host and a port: tcp://HOST:PORT";
    }
    return is_port(colon + 1) ? NULL : "a port from 1 to 65535, or * for any that is free";
}

static bool is_listened_to(const struct sockaddr_un *address)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return false;
    }
    const bool is_taken =
        connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EAGAIN;
    close(fd);
    return is_taken;
}

/* libzmq removes what stands at the path before it binds, whatever it is. */
static bool is_precious(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0 && !S_ISSOCK(status.st_mode);
}

static bool check_ipc(const char *endpoint, struct transport_error *error)
{
    const char *path = endpoint + strlen(IPC_PREFIX);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strcmp(path, "*") == 0) {
        return true; /* libzmq makes up a new path */
    }
    if (strlen(path) >= sizeof address.sun_path) {
        set_error(error, EX_CONFIG, "%s: the path is longer than %zu bytes; use a shorter one",
                  endpoint, sizeof address.sun_path - 1);
        return false;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (is_precious(path)) {
        set_error(error, EX_CANTCREAT,
                  "%s: it is there and no socket, and stays; use a path of its own (--listen)",
                  endpoint);
        return false;
    }
    char folder[sizeof address.sun_path];
    memcpy(folder, address.sun_path, sizeof folder);
    char *slash = strrchr(folder, '/');
    if (slash != NULL && slash != folder) {
        *slash = '\0';
        if (mkdir(folder, 0755) == -1 && errno != EEXIST) {
            set_error(error, EX_CANTCREAT, "%s: cannot make %s: %s; make it, or use --listen",
                      endpoint, folder, strerrordesc_np(errno));
            return false;
        }
    }
    if (is_listened_to(&address)) {
        endpoint_describe_failure(endpoint, EADDRINUSE, error);
        return false;
    }
    return true;
}

static bool check_port(const char *endpoint, struct transport_error *error)
{
    if (is_port(strrchr(endpoint, ':') + 1)) {
        return true;
    }
    set_error(error, EX_USAGE, /* libzmq takes 65537 for 1 */
              "%s: not a port; write one from 1 to 65535, or * for any that is free", endpoint);
    return false;
}

bool endpoint_check(const char *endpoint, enum endpoint_safety safety,
                    struct transport_error *error)
{
    switch (endpoint_kind(endpoint)) {
    case ENDPOINT_BAD:
        set_error(error, EX_USAGE, "%s: not an endpoint; write tcp://127.0.0.1:PORT or ipc://PATH",
                  endpoint);
        return false;
    case ENDPOINT_IPC:
        return check_ipc(endpoint, error);
    case ENDPOINT_LOOPBACK:
        if (safety == ENDPOINT_PLAIN_IPC) {
            set_error(error, EX_CONFIG,
                      "%s: TCP without keys lets in every user of this machine; give it "
                      "server_key and principals, use ipc://PATH, or say --insecure",
                      endpoint);
            return false;
        }
        return check_port(endpoint, error);
    case ENDPOINT_TCP:
        if (safety != ENDPOINT_ENCRYPTED) {
            set_error(error, EX_CONFIG,
                      "%s: TCP without keys is refused off the loopback; give it server_key and "
                      "principals, or use tcp://127.0.0.1:PORT or ipc://PATH",
                      endpoint);
            return false;
        }
        return check_port(endpoint, error);
    }
    return false;
}

void endpoint_describe_failure(const char *endpoint, int error_number,
                               struct transport_error *error)
{
    if (error_number == EADDRINUSE) {
        set_error(error, EX_UNAVAILABLE,
                  "%s: address in use; stop the other broker or use --listen", endpoint);
    } else if (error_number == EACCES || error_number == EPERM) {
        set_error(error, EX_NOPERM, "%s: permission denied; use another path or port (--listen)",
                  endpoint);
    } else if (starts_with(endpoint, TCP_PREFIX) &&
               (error_number == ENODEV || error_number == EADDRNOTAVAIL)) {
        const char *host = endpoint + strlen(TCP_PREFIX);
        set_error(error, EX_CONFIG,
                  "%s: %.*s is no address of this machine; use one of its own, or 0.0.0.0 for all "
                  "of them (--listen)",
                  endpoint, (int)(strrchr(endpoint, ':') - host), host);
    } else {
        set_error(error, EX_CONFIG, "%s: %s; use another endpoint (--listen)", endpoint,
                  zmq_strerror(error_number));
    }
}
