/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The protocol's messages as structs, their encoder, bounded decoder and printer, all from
 * messages.def.
 *
 * A decoded message is a set of views: on the frames it came in, which must outlive it. Decoding
 * allocates nothing and checks everything, lists and their entries too, before it says WIRE_OK;
 * walking a list afterwards cannot fail. For encoding, lists are built piecewise in writers of
 * their own and then named by the message:
 *
 *     wire_submit_template_encode(&templates, &template);
 *     wire_submit_entry_encode(&entries, &entry);
 *     struct message message = {.kind = MESSAGE_SUBMIT, .number = number};
 *     message.as.submit.templates = wire_list_from_writer(&templates, 1);
 *     message.as.submit.entries = wire_list_from_writer(&entries, 1);
 *     message_encode(&message, &out);                       // then send out.frames
 *
 * No function here keeps state; one thread at a time for each writer.
 */
#ifndef TREADLE_WIRE_MESSAGE_H
#define TREADLE_WIRE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <treadle/id.h>

#include "common/base/bytes.h"
#include "common/wire/terms.h"

#define MESSAGE_HEADER_SIZE 20

/* The frames of one message; frames[0] is the header and the array, the others hold bodies. */
struct wire_frames {
    const struct bytes *frames;
    size_t count;
};

/* Encoded records, one after the other. {0} is the empty list. */
struct wire_list {
    const uint8_t *at;
    size_t size;
    uint32_t count;
    const struct wire_frames *frames; /* where bodies over BODY_INLINE_SIZE_MAX are */
};

/* clang-format off */
/* NOLINTBEGIN */
/* One struct wire_NAME for each record and each message. UINT, TERM and TEMPLATE_INDEX are uint64_t; BIN, STR, NAME
 * and BODY are views; LIST, ENTRIES, TEMPLATES and META are struct wire_list. */
#define RECORD(name)               struct wire_##name {
#define MESSAGE(name, upper, kind, direction) \
                                   struct wire_##name { uint8_t unused; /* C has no empty struct */
#define END(name)                  };
#define UINT(name, max)            uint64_t name;
#define BIN(name, min, max)        struct bytes name;
#define STR(name, min, max)        struct bytes name;
#define NAME(name, min)            struct bytes name;
#define TASK_ID(name)              struct treadle_task_id name;
#define BODY(name)                 struct bytes name;
#define NEST(name, record)         struct wire_##record name;
#define LIST(name, record, max)    struct wire_list name;
#include "common/wire/messages.def"

enum message_kind {
#define MESSAGE(name, upper, kind, direction) MESSAGE_##upper = kind,
#include "common/wire/messages.def"
};

enum message_direction {
    DIRECTION_FROM_PEER,   /* from clients and workers */
    DIRECTION_FROM_CLIENT,
    DIRECTION_FROM_WORKER,
    DIRECTION_TO_PEER,     /* the broker's, to clients and workers */
    DIRECTION_TO_CLIENT,
    DIRECTION_TO_WORKER,
    DIRECTION_BOTH_WAYS,
};

struct message {
    enum message_kind kind;
    uint64_t number; /* of this message in its direction, over the session's life; 0 outside a session */
    uint64_t upto;   /* client: the last SETTLED entry taken; worker: dispatches granted in all; broker: 0 */
    union {
#define MESSAGE(name, upper, kind, direction) struct wire_##name name;
#include "common/wire/messages.def"
    } as;
    const char *error_field; /* set by message_decode(): the field that was wrong, NULL on WIRE_OK; static storage */
};
/* NOLINTEND */
/* clang-format on */

enum wire_status {
    WIRE_OK,
    WIRE_MALFORMED,
    WIRE_LIMIT,   /* nothing wrong but a size, a number of frames or a number of entries over its
                     limit */
    WIRE_VERSION, /* of another major version */
    WIRE_UNKNOWN_KIND, /* a kind this version has not */
};

/* What a receiver admits, beside the limits of terms.h. */
struct wire_limits {
    uint64_t body_size_max;
    uint64_t entry_count_max;  /* entries in one message, all its ENTRIES lists together */
    uint64_t message_size_max; /* bytes in one message, all its frames together */
};

/* The limits of the protocol itself, for those who trust the sender (peers of a broker, tests). */
extern const struct wire_limits wire_limits_protocol;

/* Checks and decodes one message. On WIRE_OK `out` holds views on the frames (and on `frames`
 * itself), which must outlive it. Otherwise out->error_field says where; kind, number and upto are
 * set as far as the header was right (WIRE_VERSION, WIRE_UNKNOWN_KIND: number and upto are), else
 * 0. */
enum wire_status message_decode(struct message *out, const struct wire_frames *frames,
                                const struct wire_limits *limits);

/* clang-format off */
/* NOLINTBEGIN */
/* bool wire_NAME_next(list, out): takes the first record off the list; false at its end. The list comes from a
 * decoded message, from a writer, or is {0}; anything else is a programmer's mistake (asserted). */
#define RECORD(name) bool wire_##name##_next(struct wire_list *list, struct wire_##name *out);
#include "common/wire/messages.def"
/* NOLINTEND */
/* clang-format on */

enum message_direction message_direction(enum message_kind kind);

/* "hello", "submit" ...; "?" for a number that is no kind. Static storage. */
const char *message_kind_text(uint64_t kind);

/* "ok", "malformed" ... Static storage. */
const char *wire_status_text(enum wire_status status);

/* Whether the text is of [A-Za-z0-9._-] and of size_min..NAME_SIZE_MAX bytes. */
bool wire_is_name(struct bytes text, size_t size_min);

/*
 * A writer collects encoded records, or one encoded message, in a buffer that grows and is reused.
 * It points into itself: never copy or move one that is in use. Bodies over BODY_INLINE_SIZE_MAX
 * are not copied but become frames: their bytes must stay until the message was sent.
 */
struct writer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t bodies_size;      /* bytes in body frames */
    uint32_t record_count;   /* records appended since the last reset */
    const char *error_field; /* after a false: the field out of its range; NULL: memory or frames */
    struct bytes views[FRAME_COUNT_MAX]; /* [0] is set by message_encode() */
    struct wire_frames frames;           /* after message_encode(): what to send */
};

/* Empty, without memory yet. */
void writer_init(struct writer *writer);

/* Forgets the content, keeps the memory. */
void writer_reset(struct writer *writer);

/* Gives the memory back; the writer is as after writer_init(). */
void writer_free(struct writer *writer);

/* Whether one more record with such a body may be appended, by the rules for a message's frames: at
 * most 16 with bodies, BODY_FRAMES_SIZE_MAX in all unless it is the only entry, ENTRY_COUNT_MAX
 * entries, and a first frame of at most FIRST_FRAME_SIZE_MAX. body_size 0 for records without a
 * body. */
bool wire_fits(const struct writer *writer, size_t body_size);

/* clang-format off */
/* NOLINTBEGIN */
/* bool wire_NAME_encode(writer, record): appends one record. False, and the writer as it was, when memory is out,
 * when FRAME_COUNT_MAX is reached, or when a field is out of its range (writer->error_field). */
#define RECORD(name) bool wire_##name##_encode(struct writer *writer, const struct wire_##name *record);
#include "common/wire/messages.def"
/* NOLINTEND */
/* clang-format on */

/* The first `count` records of the writer (all of them: writer->record_count); a view on the
 * writer. */
struct wire_list wire_list_from_writer(const struct writer *writer, uint32_t count);

/* Writes header and array of one message; `out` is emptied first, and is none of the writers the
 * lists come from. Then out->frames is what to send. Only one list of a message may bring body
 * frames. False as for records. */
bool message_encode(const struct message *message, struct writer *out);

/* One line about the message, for logs and traces: bodies as their size only, texts escaped, cut to
 * fit, always NUL-terminated (out_size >= 1). Returns the bytes written without the NUL. */
size_t message_print(const struct message *message, char *out, size_t out_size);

#endif
