/* SPDX-License-Identifier: MPL-2.0 */
/* Prints a libFuzzer dictionary for the wire: each kind's header, each field's greatest values, the
 * sizes at which a form changes. From messages.def, so that it is never out of date. */
#include <stdio.h>

#include "common/wire/fields.h"
#include "common/wire/message.h"

static void print_entry(const uint8_t *bytes, size_t size)
{
    (void)putchar('"');
    for (size_t i = 0; i < size; i++) {
        (void)printf("\\x%02x", bytes[i]);
    }
    (void)printf("\"\n");
}

/* A number as uint64. */
static void print_number(uint64_t number)
{
    uint8_t bytes[9] = {0xcf};
    bytes_store_u64(bytes + 1, number);
    print_entry(bytes, sizeof bytes);
}

/* The head of something of this size, with a 32-bit size. */
static void print_head(uint8_t type, uint64_t size)
{
    uint8_t bytes[5] = {type};
    bytes_store_u32(bytes + 1, (uint32_t)size);
    print_entry(bytes, sizeof bytes);
}

static void print_sizes(uint8_t type, uint64_t size_max)
{
    print_head(type, size_max);
    print_head(type, size_max + 1);
}

int main(void)
{
    /* clang-format off */
    /* NOLINTBEGIN */
#define MESSAGE(name, upper, kind, direction)                                                      \
    print_entry((const uint8_t[]){'T', 'R', WIRE_MAJOR, kind}, 4);
#define RECORD(name)                    print_entry((const uint8_t[]){0xdc, 0, FIELD_COUNT_##name}, 3);
#define UINT(name, max)                 print_number(max);
#define BIN(name, size_min, size_max)   print_sizes(0xc6, size_max);
#define STR(name, size_min, size_max)   print_sizes(0xdb, size_max);
#define NAME(name, size_min)            print_sizes(0xdb, NAME_SIZE_MAX);
#define TASK_ID(name)                   print_sizes(0xc6, 16);
#define BODY(name)                      print_sizes(0xc6, BODY_INLINE_SIZE_MAX);
#define LIST(name, record, count_max)   print_sizes(0xdd, count_max);
#include "common/wire/messages.def"
    /* NOLINTEND */
    /* clang-format on */
    return 0;
}
