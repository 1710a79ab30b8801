/* SPDX-License-Identifier: MPL-2.0 */
#include "common/base/uuid.h"

#include <string.h>

/* A dash stands before these bytes. */
static bool has_dash_before(int byte_index)
{
    return byte_index == 4 || byte_index == 6 || byte_index == 8 || byte_index == 10;
}

void uuid_v7(struct treadle_task_id *out, uint64_t unix_ms, const uint8_t random[10])
{
    for (int i = 0; i < 6; i++) {
        out->bytes[i] = (uint8_t)(unix_ms >> (40 - 8 * i));
    }
    memcpy(out->bytes + 6, random, 10);
    out->bytes[6] = (uint8_t)((out->bytes[6] & 0x0f) | 0x70); /* version 7 */
    out->bytes[8] = (uint8_t)((out->bytes[8] & 0x3f) | 0x80); /* variant of RFC 9562 */
}

void uuid_print(const struct treadle_task_id *id, char out[UUID_TEXT_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 16; i++) {
        if (has_dash_before(i)) {
            *out++ = '-';
        }
        *out++ = digits[id->bytes[i] >> 4];
        *out++ = digits[id->bytes[i] & 0x0f];
    }
    *out = '\0';
}

/* 0..15, or -1. */
static int digit_from_char(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

bool uuid_parse(const char *text, struct treadle_task_id *out)
{
    struct treadle_task_id id;
    for (int i = 0; i < 16; i++) {
        if (has_dash_before(i) && *text++ != '-') {
            return false;
        }
        const int high = digit_from_char(text[0]);
        if (high == -1) {
            return false; /* before text[1]: this may be the NUL */
        }
        const int low = digit_from_char(text[1]);
        if (low == -1) {
            return false;
        }
        id.bytes[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    if (*text != '\0') {
        return false;
    }
    *out = id;
    return true;
}
