/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE /* clock_gettime */
#include <treadle/id.h>

#include <time.h>

#include <sodium.h>

#include "common/base/uuid.h"

#define ID_RANDOM_SIZE 10

_Static_assert(TREADLE_ID_TEXT_SIZE == UUID_TEXT_SIZE, "the header tells the size");

enum treadle_status treadle_id_new(struct treadle_task_id *id)
{
    uint8_t random[ID_RANDOM_SIZE];
    struct timespec now = {0};
    if (sodium_init() < 0) {
        return TREADLE_E_IO;
    }
    randombytes_buf(random, sizeof(random));
    (void)clock_gettime(CLOCK_REALTIME, &now);
    uuid_v7(id, (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000, random);
    return TREADLE_OK;
}

char *treadle_id_format(const struct treadle_task_id *id, char text[TREADLE_ID_TEXT_SIZE])
{
    uuid_print(id, text);
    return text;
}

enum treadle_status treadle_id_parse(const char *text, struct treadle_task_id *id)
{
    return text != NULL && uuid_parse(text, id) ? TREADLE_OK : TREADLE_E_INVALID;
}
