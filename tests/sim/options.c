/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/sim/options.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#include "common/base/prng.h"

static uint32_t draw(struct prng *prng, uint32_t percent, uint32_t low, uint32_t high,
                     uint32_t otherwise)
{
    const bool is_on = prng_below(prng, 100) < percent;
    const uint64_t drawn = prng_between(prng, low, high); /* always: options do not shift */
    return is_on ? (uint32_t)drawn : otherwise;
}

void options_draw(struct options *options, uint64_t seed)
{
    struct prng prng;
    prng_seed(&prng, seed ^ UINT64_C(0x6f7074696f6e73));
#define DRAW(name, percent, low, high, otherwise)                                                  \
    options->name = draw(&prng, percent, low, high, otherwise);
    OPTIONS(DRAW)
#undef DRAW
}

void options_print(const struct options *options)
{
#define PRINT(name, percent, low, high, otherwise)                                                 \
    (void)printf("  %-22s %" PRIu32 "\n", #name, options->name);
    OPTIONS(PRINT)
#undef PRINT
}
