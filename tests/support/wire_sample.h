/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Messages to test with, of any kind: filled by messages.def, so that a new message or field is
 * covered at once.
 */
#ifndef TREADLE_SUPPORT_WIRE_SAMPLE_H
#define TREADLE_SUPPORT_WIRE_SAMPLE_H

#include "common/base/prng.h"
#include "common/wire/message.h"

#define SAMPLE_DEPTH_MAX 4

struct sample_memory {
    struct sample_memory *next;
    uint8_t bytes[];
};

struct sample {
    struct message message; /* its views point into the sample */
    struct prng prng;
    bool is_fixed; /* golden: every value follows from its field's name and place */
    uint64_t counter;
    uint64_t template_count;
    uint32_t depth;
    size_t body_frames_size;
    uint32_t body_frame_count;
    struct writer writers[SAMPLE_DEPTH_MAX];
    struct sample_memory *memory;
};

/* Every kind of messages.def, in its order. */
extern const enum message_kind sample_kinds[];
extern const size_t sample_kind_count;

/* A message of random values, each within its range; the same seed gives the same message. */
void sample_random(struct sample *sample, enum message_kind kind, uint64_t seed);

/* The one message of this kind that the golden vectors hold. */
void sample_fixed(struct sample *sample, enum message_kind kind);

void sample_free(struct sample *sample);

#endif
