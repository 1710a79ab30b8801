/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "common/transport/credentials.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#define FOLDER    ".config/treadle"
#define PATH_SIZE 4096

static const char *variable(const char *name)
{
    const char *value = getenv(name); /* NOLINT(concurrency-mt-unsafe): a reader only */
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* The file in the user's folder, if it is there, or nobody can tell: a connection is not to be
 * plain because a folder cannot be read. */
static const char *own_file(char path[PATH_SIZE], const char *name)
{
    const char *home = variable("HOME");
    if (home == NULL) {
        return NULL;
    }
    const int size = snprintf(path, PATH_SIZE, "%s/" FOLDER "/%s", home, name);
    if (size < 0 || size >= PATH_SIZE ||
        (access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR))) {
        return NULL;
    }
    return path;
}

/* A key that is not to be had is one thing for the caller, whatever is in the way. */
static enum treadle_status as_key_error(enum treadle_status status)
{
    return status == TREADLE_OK || status == TREADLE_E_NOMEM ? status : TREADLE_E_KEY;
}

static enum treadle_status read_identity(struct credentials *credentials, const char *path,
                                         char why[KEY_WHY_SIZE])
{
    return path == NULL ? TREADLE_OK
                        : as_key_error(key_pair_open(&credentials->identity, path, why));
}

static enum treadle_status no_identity(char why[KEY_WHY_SIZE])
{
    (void)snprintf(why, KEY_WHY_SIZE,
                   "there is a server key, but no identity to show to the broker; make one with: "
                   "mkdir -p ~/" FOLDER " && treadle key gen identity --dir ~/" FOLDER);
    return TREADLE_E_KEY;
}

static bool is_tcp(const char *endpoint)
{
    return strncmp(endpoint, "tcp://", 6) == 0;
}

/* A broker of ours is plain on the loopback only: a plain connection to anywhere else would be with
 * somebody who pretends to be one, and is nothing to fall into because a file was not found. */
static bool is_loopback(const char *endpoint)
{
    static const char *const starts[] = {"tcp://127.", "tcp://localhost:", "tcp://[::1]:"};
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        /* Nothing but digits behind it: 127.example.org is elsewhere, and SOURCE;TARGET may be. */
        const size_t size = strlen(starts[i]);
        if (strncmp(endpoint, starts[i], size) == 0 &&
            endpoint[size + strspn(endpoint + size, "0123456789.:")] == '\0') {
            return true;
        }
    }
    return false;
}

static enum treadle_status no_server_key(const char *endpoint, char why[KEY_WHY_SIZE])
{
    (void)snprintf(why, KEY_WHY_SIZE,
                   "%.200s: no server key is known, and without one anybody on the way could read "
                   "along; give the broker's .pub file with --server-key, or have it as "
                   "~/" FOLDER "/server.pub, or go without: --server-key none",
                   endpoint);
    return TREADLE_E_KEY;
}

static bool is_encrypted(const char *endpoint, const char *server_key)
{
    return is_tcp(endpoint) && server_key != NULL && strcmp(server_key, "none") != 0;
}

enum treadle_status credentials_open(struct credentials *credentials,
                                     const struct credentials_source *source,
                                     char why[KEY_WHY_SIZE])
{
    char server_path[PATH_SIZE];
    char identity_path[PATH_SIZE];
    const char *server_key =
        source->server_key != NULL ? source->server_key : variable("TREADLE_SERVER_KEY");
    const char *identity =
        source->identity != NULL ? source->identity : variable("TREADLE_IDENTITY");
    *credentials = (struct credentials){.identity = NULL};
    why[0] = '\0';
    if (sodium_init() < 0) {
        (void)snprintf(why, KEY_WHY_SIZE, "libsodium cannot start");
        return TREADLE_E_KEY;
    }
    server_key = server_key != NULL ? server_key : own_file(server_path, "server.pub");
    enum treadle_status status = read_identity(credentials, identity, why);
    if (status == TREADLE_OK && server_key == NULL && is_tcp(source->endpoint) &&
        !is_loopback(source->endpoint)) {
        status = no_server_key(source->endpoint, why);
    }
    if (status != TREADLE_OK || !is_encrypted(source->endpoint, server_key)) {
        credentials_close(credentials); /* what is not used is not kept */
        return status;
    }
    status = as_key_error(key_public_read(credentials->server_public, server_key, why));
    if (status == TREADLE_OK && credentials->identity == NULL) {
        status = read_identity(credentials, own_file(identity_path, "identity.key"), why);
        if (status == TREADLE_OK && credentials->identity == NULL) {
            status = no_identity(why);
        }
    }
    if (status != TREADLE_OK) {
        credentials_close(credentials);
        return status;
    }
    credentials->is_encrypted = true;
    return TREADLE_OK;
}

void credentials_close(struct credentials *credentials)
{
    key_pair_close(&credentials->identity);
    credentials->is_encrypted = false;
}

const struct peer_keys *credentials_keys(struct credentials *credentials)
{
    credentials->keys = (struct peer_keys){credentials->server_public, credentials->identity};
    return credentials->is_encrypted ? &credentials->keys : NULL;
}
