/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_BASE_BYTES_H
#define TREADLE_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A view of somebody else's bytes; data may be NULL if size is 0. */
struct bytes {
    const uint8_t *data;
    size_t size;
};

/* The text without its NUL; borrows it. */
static inline struct bytes bytes_from_text(const char *text)
{
    return (struct bytes){(const uint8_t *)text, strlen(text)};
}

/* Not in constant time: never for secrets. */
static inline bool bytes_is_equal(struct bytes a, struct bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* Big-endian numbers, at any alignment. */
static inline uint32_t bytes_load_u32(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 |
           (uint32_t)from[3];
}

static inline uint64_t bytes_load_u64(const uint8_t *from)
{
    return (uint64_t)bytes_load_u32(from) << 32 | bytes_load_u32(from + 4);
}

static inline void bytes_store_u32(uint8_t *to, uint32_t number)
{
    to[0] = (uint8_t)(number >> 24);
    to[1] = (uint8_t)(number >> 16);
    to[2] = (uint8_t)(number >> 8);
    to[3] = (uint8_t)number;
}

static inline void bytes_store_u64(uint8_t *to, uint64_t number)
{
    bytes_store_u32(to, (uint32_t)(number >> 32));
    bytes_store_u32(to + 4, (uint32_t)number);
}

#endif
