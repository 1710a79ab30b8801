/* SPDX-License-Identifier: MPL-2.0 */
#include "common/base/size.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct size_unit {
    const char *name;
    uint32_t shift;
};

/* Greatest first: the first that divides a size gives its shortest text. */
static const struct size_unit units[] = {
    {"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0},
};

#define UNIT_COUNT (sizeof(units) / sizeof(units[0]))

bool size_parse(const char *text, uint64_t *size)
{
    uint64_t number = 0;
    const char *next = text;
    for (; *next >= '0' && *next <= '9'; next++) {
        const uint64_t digit = (uint64_t)(*next - '0');
        if (number > (UINT64_MAX - digit) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    if (next == text) {
        return false;
    }
    if (*next == '\0' && number == 0) { /* zero needs no unit */
        *size = 0;
        return true;
    }
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        if (strcmp(next, units[i].name) == 0) {
            if (number > UINT64_MAX >> units[i].shift) {
                return false;
            }
            *size = number << units[i].shift;
            return true;
        }
    }
    return false;
}

size_t size_print(char *out, size_t out_size, uint64_t size)
{
    if (size == 0) {
        return (size_t)snprintf(out, out_size, "0");
    }
    size_t i = 0;
    while (size % (UINT64_C(1) << units[i].shift) != 0) { /* ends at 1 B */
        i++;
    }
    return (size_t)snprintf(out, out_size, "%" PRIu64 "%s", size >> units[i].shift, units[i].name);
}
