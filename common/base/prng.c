/* SPDX-License-Identifier: MPL-2.0 */
#include "common/base/prng.h"

#include "common/base/assert.h"

static uint64_t splitmix64(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15;
    uint64_t word = *state;
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
    word = (word ^ word >> 27) * 0x94d049bb133111eb;
    return word ^ word >> 31;
}

static uint64_t rotate(uint64_t word, int bit_count)
{
    return word << bit_count | word >> (64 - bit_count);
}

void prng_seed(struct prng *prng, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        prng->state[i] = splitmix64(&seed);
    }
}

uint64_t prng_next(struct prng *prng)
{
    uint64_t *state = prng->state;
    const uint64_t result = rotate(state[1] * 5, 7) * 9;
    const uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate(state[3], 45);
    return result;
}

uint64_t prng_below(struct prng *prng, uint64_t bound)
{
    if (bound == 0) {
        return 0;
    }
    /* 2^64 mod bound: numbers below it would make the first remainders a little more likely. */
    const uint64_t rejected_below = -bound % bound;
    uint64_t number = prng_next(prng);
    while (number < rejected_below) {
        number = prng_next(prng);
    }
    return number % bound;
}

uint64_t prng_between(struct prng *prng, uint64_t low, uint64_t high)
{
    TREADLE_ASSERT(low <= high);
    const uint64_t width = high - low;
    return width == UINT64_MAX ? prng_next(prng) : low + prng_below(prng, width + 1);
}
