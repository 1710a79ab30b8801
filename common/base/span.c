/* SPDX-License-Identifier: MPL-2.0 */
#include "common/base/span.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct span_unit {
    const char *name;
    uint64_t size_ms;
};

/* Greatest first: the first that divides a span gives its shortest text. */
static const struct span_unit units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1},
};

#define UNIT_COUNT (sizeof(units) / sizeof(units[0]))

bool span_parse(const char *text, uint64_t *span_ms)
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
        *span_ms = 0;
        return true;
    }
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        if (strcmp(next, units[i].name) == 0) {
            if (number > UINT64_MAX / units[i].size_ms) {
                return false;
            }
            *span_ms = number * units[i].size_ms;
            return true;
        }
    }
    return false;
}

size_t span_print(char *out, size_t out_size, uint64_t span_ms)
{
    if (span_ms == 0) {
        return (size_t)snprintf(out, out_size, "0");
    }
    size_t i = 0;
    while (span_ms % units[i].size_ms != 0) { /* ends at 1 ms */
        i++;
    }
    return (size_t)snprintf(out, out_size, "%" PRIu64 "%s", span_ms / units[i].size_ms,
                            units[i].name);
}
