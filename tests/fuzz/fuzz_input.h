/* SPDX-License-Identifier: MPL-2.0 */
/* One message as one run of bytes, for fuzzers: each frame is its size (big-endian, 4 bytes) and
 * its bytes. */
#ifndef TREADLE_FUZZ_INPUT_H
#define TREADLE_FUZZ_INPUT_H

#include "common/wire/message.h"

#define FUZZ_FRAME_COUNT_MAX (FRAME_COUNT_MAX + 2) /* more than a message may have */

/* Splits any input: a size beyond the end means all that is left. Returns the number of frames. */
static inline size_t fuzz_frames_from_input(const uint8_t *data, size_t size,
                                            struct bytes frames[FUZZ_FRAME_COUNT_MAX])
{
    size_t count = 0;
    while (size >= 4 && count < FUZZ_FRAME_COUNT_MAX) {
        size_t frame_size = bytes_load_u32(data);
        data += 4;
        size -= 4;
        frame_size = frame_size > size ? size : frame_size;
        frames[count] = (struct bytes){data, frame_size};
        count++;
        data += frame_size;
        size -= frame_size;
    }
    return count;
}

/* The reverse; returns the size, 0 if it does not fit. */
static inline size_t fuzz_input_from_frames(const struct wire_frames *frames, uint8_t *out,
                                            size_t out_size)
{
    size_t used = 0;
    for (size_t i = 0; i < frames->count; i++) {
        const struct bytes frame = frames->frames[i];
        if (out_size - used < 4 || out_size - used - 4 < frame.size) {
            return 0;
        }
        bytes_store_u32(out + used, (uint32_t)frame.size);
        memcpy(out + used + 4, frame.data, frame.size);
        used += 4 + frame.size;
    }
    return used;
}

#endif
