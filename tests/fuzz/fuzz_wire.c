/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The decoder on bytes of a peer. Whatever it lets through can be printed, encoded again, and is
 * then the same message.
 */
#include <stdlib.h>

#include "tests/fuzz/fuzz_input.h"

/* The name is libFuzzer's. NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Tight limits, so that inputs of a few KiB reach them. */
static const struct wire_limits limits = {
    .body_size_max = 65536,
    .entry_count_max = 64,
    .message_size_max = 1048576,
};

/* A failed check is a finding: it ends the fuzzer. */
static void check(bool is_true)
{
    if (!is_true) {
        abort();
    }
}

static void check_again(const struct message *message, const char *line)
{
    static char again_line[4096];
    struct message again;
    struct writer out;
    writer_init(&out);
    if (message_encode(message, &out)) {
        check(message_decode(&again, &out.frames, &limits) == WIRE_OK);
        check(again.kind == message->kind && again.number == message->number &&
              again.upto == message->upto);
        check(message_print(&again, again_line, sizeof again_line) == strlen(line));
        check(strcmp(line, again_line) == 0);
    } else {
        check(strcmp(out.error_field, "first frame") == 0); /* shorter forms, unknown fields kept */
    }
    writer_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char line[4096];
    struct bytes frames[FUZZ_FRAME_COUNT_MAX];
    const struct wire_frames input = {frames, fuzz_frames_from_input(data, size, frames)};
    struct message message;
    const enum wire_status status = message_decode(&message, &input, &limits);
    check((status == WIRE_OK) == (message.error_field == NULL));
    if (status == WIRE_OK) {
        check(message_print(&message, line, sizeof line) < sizeof line);
        check_again(&message, line);
    }
    return 0;
}
