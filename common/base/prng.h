/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_BASE_PRNG_H
#define TREADLE_BASE_PRNG_H

#include <stdint.h>

/* xoshiro256**: fast, seeded, reproducible. For jitter and simulation, never for secrets. */
struct prng {
    uint64_t state[4];
};

/* Any seed will do: splitmix64 spreads it. The same seed gives the same numbers everywhere. */
void prng_seed(struct prng *prng, uint64_t seed);

/* 64 random bits. */
uint64_t prng_next(struct prng *prng);

/* Uniform in [0, bound), without bias; 0 if bound is 0. */
uint64_t prng_below(struct prng *prng, uint64_t bound);

/* Uniform in [low, high], both included; low must not be above high. */
uint64_t prng_between(struct prng *prng, uint64_t low, uint64_t high);

#endif
