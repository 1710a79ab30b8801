/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Whether processes have a secret key in their memory, as its bytes:
 *
 *     memory_search FILE.key PID...
 *
 * Prints "PID COUNT" for each, or "PID denied" when that one may not be looked into. Fails if it
 * does not find what it has itself.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "common/keys/keys.h"

#define CHUNK_SIZE 1048576U
#define REGION_MAX (UINT64_C(1) << 32) /* larger ones are a sanitizer's */

static uint8_t chunk[CHUNK_SIZE + KEY_SIZE];

static unsigned count_in(int memory, uint64_t start, uint64_t end, const uint8_t *secret)
{
    unsigned count = 0;
    for (uint64_t at = start; at < end; at += CHUNK_SIZE) {
        const uint64_t left = end - at;
        const ssize_t got =
            pread(memory, chunk, left < sizeof(chunk) ? left : sizeof(chunk), (off_t)at);
        const uint8_t *from = chunk;
        while (got > 0 &&
               (from = memmem(from, (size_t)(chunk + got - from), secret, KEY_SIZE)) != NULL) {
            count += from < chunk + CHUNK_SIZE ? 1 : 0;
            from++;
        }
    }
    return count;
}

/* -1: it may not be looked into. */
static int64_t search(const char *pid, const uint8_t *secret)
{
    char path[64];
    char line[512];
    int64_t count = 0;
    (void)snprintf(path, sizeof(path), "/proc/%s/mem", pid);
    const int memory = open(path, O_RDONLY | O_CLOEXEC);
    (void)snprintf(path, sizeof(path), "/proc/%s/maps", pid);
    FILE *maps = fopen(path, "re");
    while (memory != -1 && maps != NULL && fgets(line, sizeof(line), maps) != NULL) {
        uint64_t start = 0;
        uint64_t end = 0;
        char mode[5] = "";
        /* NOLINTNEXTLINE(cert-err34-c): the kernel writes it */
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, mode) == 3 &&
            mode[0] == 'r' && end - start <= REGION_MAX) {
            count += count_in(memory, start, end, secret);
        }
    }
    count = memory == -1 || maps == NULL ? -1 : count;
    if (maps != NULL) {
        (void)fclose(maps);
    }
    if (memory != -1) {
        (void)close(memory);
    }
    return count;
}

int main(int argc, char **argv)
{
    struct key_pair *pair = NULL;
    char why[KEY_WHY_SIZE];
    if (argc < 3 || sodium_init() < 0 || key_pair_open(&pair, argv[1], why) != TREADLE_OK) {
        return EXIT_FAILURE;
    }
    if (search("self", key_pair_secret(pair)) < 1) {
        return EXIT_FAILURE;
    }
    for (int i = 2; i < argc; i++) {
        const int64_t count = search(argv[i], key_pair_secret(pair));
        if (count < 0) {
            (void)printf("%s denied\n", argv[i]);
        } else {
            (void)printf("%s %" PRId64 "\n", argv[i], count);
        }
    }
    key_pair_close(&pair);
    return EXIT_SUCCESS;
}
