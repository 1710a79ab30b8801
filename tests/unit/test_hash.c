/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>

#include "common/base/bytes.h"
#include "common/base/hash.h"
#include "common/base/prng.h"

/* SipHash once more, straight from its definition: byte by byte, with a padded copy. */
static uint64_t sip_by_definition(const uint8_t key[16], const uint8_t *data, size_t size, int c,
                                  int d)
{
    uint64_t k[2] = {0, 0};
    uint8_t padded[256] = {0};
    assert_true(size < 240);
    for (int i = 0; i < 16; i++) {
        k[i / 8] |= (uint64_t)key[i] << (8 * (i % 8));
    }
    for (size_t i = 0; i < size; i++) {
        padded[i] = data[i];
    }
    const size_t word_count = size / 8 + 1;
    padded[word_count * 8 - 1] = (uint8_t)size;
    uint64_t v[4] = {k[0], k[1], k[0], k[1]};
    const char constant[] = "somepseudorandomlygeneratedbytes";
    for (int i = 0; i < 4; i++) {
        v[i] ^= bytes_load_u64((const uint8_t *)constant + (ptrdiff_t)8 * i);
    }
    for (size_t w = 0; w < word_count + 1; w++) {
        uint64_t m = 0;
        for (size_t i = 0; w < word_count && i < 8; i++) {
            m += (uint64_t)padded[w * 8 + i] << (8 * i);
        }
        v[3] ^= m;
        v[2] ^= w == word_count ? 0xff : 0;
        for (int r = 0; r < (w == word_count ? d : c); r++) {
            v[0] += v[1];
            v[1] = (v[1] << 13 | v[1] >> 51) ^ v[0];
            v[0] = v[0] << 32 | v[0] >> 32;
            v[2] += v[3];
            v[3] = (v[3] << 16 | v[3] >> 48) ^ v[2];
            v[0] += v[3];
            v[3] = (v[3] << 21 | v[3] >> 43) ^ v[0];
            v[2] += v[1];
            v[1] = (v[1] << 17 | v[1] >> 47) ^ v[2];
            v[2] = v[2] << 32 | v[2] >> 32;
        }
        v[0] ^= m;
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Random bytes of one size, and the same key in both shapes. */
struct sample {
    uint8_t key_bytes[16];
    struct hash_key key;
    uint8_t data[128];
};

static struct sample sample_from(struct prng *prng)
{
    struct sample sample;
    for (size_t i = 0; i < sizeof(sample.data); i++) {
        sample.data[i] = (uint8_t)prng_next(prng);
    }
    for (size_t i = 0; i < 16; i++) {
        sample.key_bytes[i] = (uint8_t)prng_next(prng);
    }
    sample.key.a = hash_load_word(sample.key_bytes);
    sample.key.b = hash_load_word(sample.key_bytes + 8);
    return sample;
}

static void test_published_vector_of_siphash_2_4_comes_out(void **unused)
{
    (void)unused;
    const struct hash_key key = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    uint8_t data[15];
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)i;
    }
    assert_int_equal(hash_sip(&key, data, sizeof(data), 2, 4), 0xa129ca6149be45e5);
}

static void test_hash_with_2_and_4_rounds_is_libsodiums_shorthash(void **unused)
{
    (void)unused;
    struct prng prng;
    prng_seed(&prng, 1);
    for (size_t size = 0; size <= 128; size++) {
        const struct sample sample = sample_from(&prng);
        uint8_t expected[crypto_shorthash_BYTES];
        assert_int_equal(crypto_shorthash(expected, sample.data, size, sample.key_bytes), 0);
        assert_int_equal(hash_sip(&sample.key, sample.data, size, 2, 4), hash_load_word(expected));
    }
}

static void test_hash_of_bytes_is_siphash_1_3_by_definition(void **unused)
{
    (void)unused;
    struct prng prng;
    prng_seed(&prng, 2);
    for (size_t size = 0; size <= 128; size++) {
        const struct sample sample = sample_from(&prng);
        assert_int_equal(hash_bytes(&sample.key, sample.data, size),
                         sip_by_definition(sample.key_bytes, sample.data, size, 1, 3));
    }
}

static void test_hash_of_an_id_is_the_hash_of_its_16_bytes(void **unused)
{
    (void)unused;
    struct prng prng;
    prng_seed(&prng, 3);
    for (int i = 0; i < 1000; i++) {
        const struct sample sample = sample_from(&prng);
        assert_int_equal(hash_id16(&sample.key, sample.data),
                         hash_bytes(&sample.key, sample.data, 16));
    }
}

static void test_hash_of_nothing_needs_no_data(void **unused)
{
    (void)unused;
    const struct hash_key key = {1, 2};
    assert_int_equal(hash_bytes(&key, NULL, 0), hash_bytes(&key, "", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vector_of_siphash_2_4_comes_out),
        cmocka_unit_test(test_hash_with_2_and_4_rounds_is_libsodiums_shorthash),
        cmocka_unit_test(test_hash_of_bytes_is_siphash_1_3_by_definition),
        cmocka_unit_test(test_hash_of_an_id_is_the_hash_of_its_16_bytes),
        cmocka_unit_test(test_hash_of_nothing_needs_no_data),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
