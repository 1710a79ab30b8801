/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Preloaded by script/canary into all that the tests start: notes the secret half of every key pair
 * that is made, those of single connections too. Other programs never see it, so this may do what
 * nothing else may: write secrets to a file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/canary.h"

#define LINE_SIZE (sizeof "secret \n" - 1 + (size_t)2 * CANARY_SIZE)

typedef int keypair_function(unsigned char *public_key, unsigned char *secret_key);

/* libsodium's, whose header is not needed for this. */
int crypto_box_keypair(unsigned char *public_key, unsigned char *secret_key);

static char list_path[PATH_MAX];
static keypair_function *real_keypair;

__attribute__((constructor)) static void look_around(void)
{
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): before main() */
    const char *folder = getenv(CANARY_VARIABLE);
    void *found = dlsym(RTLD_NEXT, "crypto_box_keypair");
    memcpy(&real_keypair, &found, sizeof found);
    if (folder != NULL && strlen(folder) + sizeof "/" CANARY_LIST <= sizeof list_path) {
        (void)snprintf(list_path, sizeof list_path, "%s/" CANARY_LIST, folder);
    }
}

/* One write(2) a line. A secret that was not noted is told of, for then nobody looks for it. */
static void note(const unsigned char *secret)
{
    static const char digits[] = "0123456789abcdef";
    static const char failed[] = "canary: a secret was not noted\n";
    char line[LINE_SIZE];
    char *at = line;
    memcpy(at, "secret ", 7);
    at += 7;
    for (size_t i = 0; i < CANARY_SIZE; i++) {
        *at++ = digits[secret[i] >> 4U];
        *at++ = digits[secret[i] & 15U];
    }
    *at = '\n';
    const int fd = open(list_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd == -1 || write(fd, line, sizeof line) != (ssize_t)sizeof line) {
        (void)!write(STDERR_FILENO, failed, sizeof failed - 1);
    }
    if (fd != -1) {
        (void)close(fd);
    }
    explicit_bzero(line, sizeof line); /* tests look into processes for what they should not hold */
}

__attribute__((visibility("default"))) int crypto_box_keypair(unsigned char *public_key,
                                                              unsigned char *secret_key)
{
    if (real_keypair == NULL) { /* libsodium came with a plugin, after the start */
        void *found = dlsym(RTLD_NEXT, "crypto_box_keypair");
        memcpy(&real_keypair, &found, sizeof found);
    }
    if (real_keypair == NULL) {
        return -1;
    }
    const int errno_before = errno;
    const int result = real_keypair(public_key, secret_key);
    if (result == 0 && list_path[0] != '\0') {
        note(secret_key);
    }
    errno = errno_before;
    return result;
}
