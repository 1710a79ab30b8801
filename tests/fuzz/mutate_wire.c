/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Mutated messages through the decoder, with no more than a compiler: the same count and seed give
 * the same inputs everywhere. Built with sanitizers it finds what libFuzzer finds first.
 *
 * usage: mutate_wire COUNT SEED
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/fuzz/fuzz_input.h"
#include "tests/support/wire_sample.h"

#define INPUT_SIZE_MAX  262144
#define SAMPLE_COUNT    512 /* messages to mutate: a fixed one and random ones of each kind */
#define MUTATIONS_MAX   4
#define SEED_FACTOR     UINT64_C(1000003)
#define USAGE_EXIT_CODE 64

/* The name is libFuzzer's. NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    uint8_t *data;
    size_t size;
};

/* Message number `index` as an input; false if it does not fit. */
static bool make_input(struct input *input, size_t index, uint64_t seed)
{
    static uint8_t buffer[INPUT_SIZE_MAX];
    const enum message_kind kind = sample_kinds[index % sample_kind_count];
    struct sample sample;
    struct writer out;
    bool is_made = false;
    if (index < sample_kind_count) {
        sample_fixed(&sample, kind);
    } else {
        sample_random(&sample, kind, seed * SEED_FACTOR + index);
    }
    writer_init(&out);
    if (message_encode(&sample.message, &out)) {
        input->size = fuzz_input_from_frames(&out.frames, buffer, sizeof buffer);
        input->data = input->size > 0 ? malloc(input->size) : NULL;
        is_made = input->data != NULL;
    }
    if (is_made) {
        memcpy(input->data, buffer, input->size);
    }
    writer_free(&out);
    sample_free(&sample);
    return is_made;
}

/* What a byte of msgpack may be replaced by, to meet other paths than a random byte does. */
static const uint8_t telling_bytes[] = {
    0x00, 0x01, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc4, 0xc5, 0xc6, 0xc7, 0xc9,
    0xca, 0xcb, 0xcc, 0xcf, 0xd0, 0xd3, 0xd4, 0xd8, 0xd9, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xe0, 0xff};

/* Changes the input in one place; returns its new size, at most INPUT_SIZE_MAX. */
static size_t mutate(struct prng *prng, uint8_t *data, size_t size)
{
    if (size < 2) {
        return size;
    }
    const size_t at = (size_t)prng_below(prng, size);
    const size_t span = (size_t)prng_below(prng, size - at < 16 ? size - at : 16);
    switch (prng_below(prng, 7)) {
    case 0:
        data[at] ^= (uint8_t)(1U << prng_below(prng, 8));
        return size;
    case 1:
        data[at] = (uint8_t)prng_next(prng);
        return size;
    case 2:
        data[at] = telling_bytes[prng_below(prng, sizeof telling_bytes)];
        return size;
    case 3: /* cut off the end */
        return at;
    case 4: /* take something out */
        memmove(data + at, data + at + span, size - at - span);
        return size - span;
    case 5: /* double something */
        if (size + span > INPUT_SIZE_MAX) {
            return size;
        }
        memmove(data + at + span, data + at, size - at);
        return size + span;
    default: /* a telling byte in front */
        if (size == INPUT_SIZE_MAX) {
            return size;
        }
        memmove(data + at + 1, data + at, size - at);
        data[at] = telling_bytes[prng_below(prng, sizeof telling_bytes)];
        return size + 1;
    }
}

/* Runs one mutated input, in memory of exactly its size. */
static void run_one(struct prng *prng, const struct input *input, uint8_t *buffer)
{
    memcpy(buffer, input->data, input->size);
    size_t size = input->size;
    const uint64_t mutation_count = 1 + prng_below(prng, MUTATIONS_MAX);
    for (uint64_t i = 0; i < mutation_count; i++) {
        size = mutate(prng, buffer, size);
    }
    uint8_t *exact = malloc(size > 0 ? size : 1);
    if (exact == NULL) {
        abort();
    }
    memcpy(exact, buffer, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        (void)fprintf(stderr, "usage: %s COUNT SEED\n", argv[0]);
        return USAGE_EXIT_CODE;
    }
    const uint64_t count = strtoull(argv[1], NULL, 10);
    const uint64_t seed = strtoull(argv[2], NULL, 10);
    static struct input inputs[SAMPLE_COUNT];
    static uint8_t buffer[INPUT_SIZE_MAX];
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        if (!make_input(&inputs[i], i, seed)) {
            (void)fprintf(stderr, "mutate_wire: message %zu cannot be made\n", i);
            return 1;
        }
        (void)LLVMFuzzerTestOneInput(inputs[i].data, inputs[i].size);
    }
    struct prng prng;
    prng_seed(&prng, seed);
    const clock_t start = clock();
    for (uint64_t i = 0; i < count; i++) {
        run_one(&prng, &inputs[prng_below(&prng, SAMPLE_COUNT)], buffer);
    }
    (void)printf("mutate_wire: %" PRIu64 " messages, seed %" PRIu64 ", %.1f s\n", count, seed,
                 (double)(clock() - start) / CLOCKS_PER_SEC);
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        free(inputs[i].data);
    }
    return 0;
}
