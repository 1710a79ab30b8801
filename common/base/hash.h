/* SPDX-License-Identifier: MPL-2.0 */
#ifndef TREADLE_BASE_HASH_H
#define TREADLE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The secret of a keyed hash: peers choose what is hashed, so they must not know the key. */
struct hash_key {
    uint64_t a;
    uint64_t b;
};

/* SipHash-1-3 of `size` bytes; data may be NULL if size is 0. */
uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t size);

/* SipHash with any number of rounds: compress_rounds for each word, finish_rounds at the end. */
uint64_t hash_sip(const struct hash_key *key, const void *data, size_t size, int compress_rounds,
                  int finish_rounds);

struct hash_state {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t hash_rotate(uint64_t word, int bit_count)
{
    return word << bit_count | word >> (64 - bit_count);
}

static inline void hash_round(struct hash_state *state)
{
    state->v0 += state->v1;
    state->v2 += state->v3;
    state->v1 = hash_rotate(state->v1, 13) ^ state->v0;
    state->v3 = hash_rotate(state->v3, 16) ^ state->v2;
    state->v0 = hash_rotate(state->v0, 32);
    state->v2 += state->v1;
    state->v0 += state->v3;
    state->v1 = hash_rotate(state->v1, 17) ^ state->v2;
    state->v3 = hash_rotate(state->v3, 21) ^ state->v0;
    state->v2 = hash_rotate(state->v2, 32);
}

static inline struct hash_state hash_start(const struct hash_key *key)
{
    return (struct hash_state){key->a ^ 0x736f6d6570736575, key->b ^ 0x646f72616e646f6d,
                               key->a ^ 0x6c7967656e657261, key->b ^ 0x7465646279746573};
}

/* A word of the data, little-endian by SipHash's definition. */
static inline uint64_t hash_load_word(const uint8_t *from)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t word;
    memcpy(&word, from, sizeof(word));
    return word;
#else
    uint64_t word = 0;
    for (int i = 7; i >= 0; i--) {
        word = word << 8 | from[i];
    }
    return word;
#endif
}

/* hash_bytes() of exactly 16 bytes, without its loop. */
static inline uint64_t hash_id16(const struct hash_key *key, const uint8_t id[16])
{
    const uint64_t words[3] = {hash_load_word(id), hash_load_word(id + 8), (uint64_t)16 << 56};
    struct hash_state state = hash_start(key);
    for (int i = 0; i < 3; i++) {
        state.v3 ^= words[i];
        hash_round(&state);
        state.v0 ^= words[i];
    }
    state.v2 ^= 0xff;
    hash_round(&state);
    hash_round(&state);
    hash_round(&state);
    return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

#endif
