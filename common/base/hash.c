/* SPDX-License-Identifier: MPL-2.0 */
#include "common/base/hash.h"

uint64_t hash_sip(const struct hash_key *key, const void *data, size_t size, int compress_rounds,
                  int finish_rounds)
{
    const uint8_t *bytes = data;
    struct hash_state state = hash_start(key);
    uint64_t last_word = (uint64_t)size << 56; /* the size's low byte, then what is left over */

    size_t left = size;
    while (left >= 8) {
        const uint64_t word = hash_load_word(bytes);
        state.v3 ^= word;
        for (int i = 0; i < compress_rounds; i++) {
            hash_round(&state);
        }
        state.v0 ^= word;
        bytes += 8;
        left -= 8;
    }
    for (size_t i = 0; i < left; i++) {
        last_word |= (uint64_t)bytes[i] << (8 * i);
    }
    state.v3 ^= last_word;
    for (int i = 0; i < compress_rounds; i++) {
        hash_round(&state);
    }
    state.v0 ^= last_word;

    state.v2 ^= 0xff;
    for (int i = 0; i < finish_rounds; i++) {
        hash_round(&state);
    }
    return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t size)
{
    return hash_sip(key, data, size, 1, 3);
}
