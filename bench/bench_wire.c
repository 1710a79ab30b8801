/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What one entry costs the codec, in ns: bodies of 128 bytes, one and 256 entries a message.
 * Encoding is a record into its list and its share of the message; decoding is the check of the
 * whole message and the walk over its entries.
 *
 * usage: bench_wire
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/base/assert.h"
#include "common/wire/message.h"

#define BODY_SIZE       128
#define ENTRIES_A_ROUND 2000000U
#define BATCH_MAX       256U

static uint8_t body[BODY_SIZE];
static uint8_t digest[16];
static uint64_t checksum; /* what is read is used, or the compiler would not read it */

static double seconds_now(void)
{
    struct timespec now;
    (void)timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct batch {
    struct writer templates;
    struct writer entries;
    struct writer out;
    uint32_t size;
};

static void add_submit(struct batch *batch, uint64_t i)
{
    struct wire_submit_entry entry = {
        .digest = {digest, sizeof digest},
        .body = {body, sizeof body},
    };
    memcpy(entry.id.bytes, &i, sizeof i);
    TREADLE_ASSERT(wire_submit_entry_encode(&batch->entries, &entry));
}

static void add_dispatch(struct batch *batch, uint64_t i)
{
    struct wire_dispatch_entry entry = {
        .lease = (UINT64_C(1) << 40) + i,
        .dispatch = 1,
        .body = {body, sizeof body},
    };
    memcpy(entry.id.bytes, &i, sizeof i);
    TREADLE_ASSERT(wire_dispatch_entry_encode(&batch->entries, &entry));
}

static void add_success(struct batch *batch, uint64_t i)
{
    const struct wire_success_entry entry = {
        .lease = (UINT64_C(1) << 40) + i,
        .duration_us = 250,
        .body = {body, sizeof body},
    };
    TREADLE_ASSERT(wire_success_entry_encode(&batch->entries, &entry));
}

static void add_settled(struct batch *batch, uint64_t i)
{
    struct wire_settled_entry entry = {
        .outcome = TASK_SUCCEEDED,
        .dispatch = 1,
        .attempts = 1,
        .attempts_max = 4,
        .body = {body, sizeof body},
    };
    memcpy(entry.id.bytes, &i, sizeof i);
    TREADLE_ASSERT(wire_settled_entry_encode(&batch->entries, &entry));
}

static void finish_submit(struct batch *batch, struct message *message)
{
    message->kind = MESSAGE_SUBMIT;
    message->as.submit.templates = wire_list_from_writer(&batch->templates, 1);
    message->as.submit.entries = wire_list_from_writer(&batch->entries, batch->size);
}

static void finish_dispatch(struct batch *batch, struct message *message)
{
    message->kind = MESSAGE_DISPATCH;
    message->as.dispatch.templates = wire_list_from_writer(&batch->templates, 1);
    message->as.dispatch.entries = wire_list_from_writer(&batch->entries, batch->size);
}

static void finish_success(struct batch *batch, struct message *message)
{
    message->kind = MESSAGE_RESULT;
    message->as.result.successes = wire_list_from_writer(&batch->entries, batch->size);
    message->as.result.failures = (struct wire_list){0};
}

static void finish_settled(struct batch *batch, struct message *message)
{
    message->kind = MESSAGE_SETTLED;
    message->as.settled.first = 1;
    message->as.settled.entries = wire_list_from_writer(&batch->entries, batch->size);
}

static void walk_submit(struct message *message)
{
    struct wire_submit_entry entry;
    while (wire_submit_entry_next(&message->as.submit.entries, &entry)) {
        checksum += entry.id.bytes[0] + entry.body.size;
    }
}

static void walk_dispatch(struct message *message)
{
    struct wire_dispatch_entry entry;
    while (wire_dispatch_entry_next(&message->as.dispatch.entries, &entry)) {
        checksum += entry.lease + entry.body.size;
    }
}

static void walk_success(struct message *message)
{
    struct wire_success_entry entry;
    while (wire_success_entry_next(&message->as.result.successes, &entry)) {
        checksum += entry.lease + entry.body.size;
    }
}

static void walk_settled(struct message *message)
{
    struct wire_settled_entry entry;
    while (wire_settled_entry_next(&message->as.settled.entries, &entry)) {
        checksum += entry.id.bytes[0] + entry.body.size;
    }
}

struct subject {
    const char *name;
    void (*add)(struct batch *batch, uint64_t i);
    void (*finish)(struct batch *batch, struct message *message);
    void (*walk)(struct message *message);
};

static const struct subject subjects[] = {
    {"submit_entry", add_submit, finish_submit, walk_submit},
    {"dispatch_entry", add_dispatch, finish_dispatch, walk_dispatch},
    {"success_entry", add_success, finish_success, walk_success},
    {"settled_entry", add_settled, finish_settled, walk_settled},
};

static void measure(struct batch *batch, const struct subject *subject, uint32_t size)
{
    const uint32_t round_count = ENTRIES_A_ROUND / size;
    struct message message = {.number = 1};
    batch->size = size;
    double start = seconds_now();
    for (uint32_t round = 0; round < round_count; round++) {
        writer_reset(&batch->entries);
        for (uint32_t i = 0; i < size; i++) {
            subject->add(batch, i);
        }
        subject->finish(batch, &message);
        TREADLE_ASSERT(message_encode(&message, &batch->out));
    }
    const double encode_s = seconds_now() - start;
    start = seconds_now();
    for (uint32_t round = 0; round < round_count; round++) {
        TREADLE_ASSERT(message_decode(&message, &batch->out.frames, &wire_limits_protocol) ==
                       WIRE_OK);
        subject->walk(&message);
    }
    const double decode_s = seconds_now() - start;
    const double entry_count = (double)round_count * size;
    (void)printf("%-15s batch %3u   encode %6.1f ns   decode %6.1f ns   %6.1f bytes an entry\n",
                 subject->name, size, encode_s * 1e9 / entry_count, decode_s * 1e9 / entry_count,
                 (double)batch->out.size / size);
}

static void encode_template(struct batch *batch, const struct subject *subject)
{
    const struct wire_submit_template submit = {
        .service = bytes_from_text("wc"), .task = bytes_from_text("count"), .flags = SUBMIT_WATCH};
    const struct wire_dispatch_template dispatch = {
        .service = bytes_from_text("wc"), .task = bytes_from_text("count"), .timeout_ms = 300000};
    writer_reset(&batch->templates);
    TREADLE_ASSERT(subject->add == add_dispatch
                       ? wire_dispatch_template_encode(&batch->templates, &dispatch)
                       : wire_submit_template_encode(&batch->templates, &submit));
}

int main(void)
{
    struct batch batch;
    writer_init(&batch.templates);
    writer_init(&batch.entries);
    writer_init(&batch.out);
    for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) {
        encode_template(&batch, &subjects[i]);
        measure(&batch, &subjects[i], 1);
        measure(&batch, &subjects[i], BATCH_MAX);
    }
    writer_free(&batch.templates);
    writer_free(&batch.entries);
    writer_free(&batch.out);
    return checksum == 0 ? 1 : 0;
}
