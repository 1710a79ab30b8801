/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The golden vectors: one file of this folder for each message. Its first line is what the printer
 * says of the message, each further line one frame in hex. Encoding the fixed value gives exactly
 * these bytes, decoding them exactly this line. Bytes that change here are a change of the
 * protocol.
 *
 * usage: golden.test_golden FOLDER            checks
 *        golden.test_golden --write FOLDER    writes the files again, after a new message or minor
 * version golden.test_golden --corpus FOLDER   writes them as inputs of the fuzz target
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz_input.h"
#include "tests/support/wire_sample.h"

#define TEXT_SIZE_MAX 65536
#define PATH_SIZE_MAX 4096

/* The file's text; false when something does not fit or is refused. */
static bool describe(const struct wire_frames *frames, char *text, size_t text_size)
{
    struct message message;
    const enum wire_status status = message_decode(&message, frames, &wire_limits_protocol);
    if (status != WIRE_OK) {
        (void)fprintf(stderr, "golden: %s at %s\n", wire_status_text(status), message.error_field);
        return false;
    }
    size_t used = message_print(&message, text, text_size);
    for (size_t i = 0; i < frames->count; i++) {
        const struct bytes frame = frames->frames[i];
        if (text_size - used < 2 * frame.size + 3) {
            return false;
        }
        text[used++] = '\n';
        for (size_t at = 0; at < frame.size; at++) {
            used += (size_t)snprintf(text + used, text_size - used, "%02x", frame.data[at]);
        }
    }
    text[used++] = '\n';
    text[used] = '\0';
    return true;
}

static bool write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        perror(path);
        return false;
    }
    const bool is_written = fwrite(data, 1, size, file) == size;
    return fclose(file) == 0 && is_written;
}

static bool check_file(const char *path, const char *wanted)
{
    static char text[TEXT_SIZE_MAX];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return false;
    }
    const size_t size = fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    text[size] = '\0';
    if (strcmp(text, wanted) != 0) {
        (void)fprintf(stderr, "golden: %s holds\n%sbut is now\n%s", path, text, wanted);
        return false;
    }
    return true;
}

/* Encodes the fixed message of this kind and does with it what the mode says. */
static bool handle(const char *mode, const char *folder, enum message_kind kind)
{
    static char text[TEXT_SIZE_MAX];
    char path[PATH_SIZE_MAX];
    struct sample sample;
    struct writer out;
    bool is_good = false;
    sample_fixed(&sample, kind);
    writer_init(&out);
    (void)snprintf(path, sizeof path, "%s/%s.txt", folder, message_kind_text(kind));
    if (!message_encode(&sample.message, &out) || !describe(&out.frames, text, sizeof text)) {
        goto cleanup;
    }
    if (strcmp(mode, "--write") == 0) {
        is_good = write_file(path, text, strlen(text));
    } else if (strcmp(mode, "--corpus") == 0) {
        uint8_t input[TEXT_SIZE_MAX];
        const size_t size = fuzz_input_from_frames(&out.frames, input, sizeof input);
        (void)snprintf(path, sizeof path, "%s/%s", folder, message_kind_text(kind));
        is_good = size > 0 && write_file(path, input, size);
    } else {
        is_good = check_file(path, text);
    }
cleanup:
    if (!is_good) {
        (void)fprintf(stderr, "golden: %s is wrong\n", message_kind_text(kind));
    }
    writer_free(&out);
    sample_free(&sample);
    return is_good;
}

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 3) {
        (void)fprintf(stderr, "usage: %s [--write|--corpus] FOLDER\n", argv[0]);
        return 64;
    }
    const char *mode = argc == 3 ? argv[1] : "--check";
    bool is_good = true;
    for (size_t i = 0; i < sample_kind_count; i++) {
        is_good = handle(mode, argv[argc - 1], sample_kinds[i]) && is_good;
    }
    (void)printf("golden: %zu messages\n", sample_kind_count);
    return is_good ? 0 : 1;
}
