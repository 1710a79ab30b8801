/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What goes between a supervisor and a child of its pool, on one machine and from one build: frames
 * of a size, a kind and fields. Attempts go over a stream socket, what the child says through the
 * ring of page.h. The supervisor reads with bounds: a child's memory may be damaged.
 */
#ifndef TREADLE_WORKER_EXEC_HANDOFF_H
#define TREADLE_WORKER_EXEC_HANDOFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/wire/message.h"
#include "worker/session.h"

/* A frame: this, then `size` bytes. */
struct frame_header {
    uint32_t size; /* bytes after the header */
    uint16_t kind; /* enum frame_kind */
    uint16_t cell;
    uint32_t generation; /* of the cell */
    uint32_t handler;    /* ATTEMPT: index in the table of functions */
};

/* Bytes after the header, at most: a body, a trace, meta, names. */
#define FRAME_SIZE_MAX (BODY_SIZE_LIMIT + 131072)

enum frame_kind {
    FRAME_ATTEMPT,  /* to the child: run it */
    FRAME_READY,    /* from the child: plugins are open and started, hand-offs may come */
    FRAME_UNFIT,    /* from the child: a plugin does not load or start; text. It ends after it */
    FRAME_SUCCESS,  /* the attempt of `cell` */
    FRAME_FAILURE,  /* the attempt of `cell` */
    FRAME_PROGRESS, /* the attempt of `cell` */
    FRAME_KIND_COUNT
};

/* ---- attempts: supervisor to child ---- */

/* The parts of a hand-off of one attempt, to be written one after the other; the second part and
 * those after it point into the attempt. `room` keeps the header, the numbers and the names: never
 * copy one that is in use. */
#define HANDOFF_PART_COUNT 8
#define HANDOFF_ROOM_SIZE  320
struct handoff {
    struct bytes parts[HANDOFF_PART_COUNT];
    size_t part_count;
    size_t size; /* bytes in all */
    uint8_t room[HANDOFF_ROOM_SIZE];
};
void handoff_from_attempt(struct handoff *handoff, const struct worker_attempt *attempt,
                          uint32_t handler, uint32_t cell, uint32_t generation);

/* Reads what followed the header into an attempt; its views point into data. False: not from this
 * build. */
bool handoff_read(struct worker_attempt *attempt, struct bytes data);

/* ---- what the child says ---- */

/* An item of meta as the child has it. */
struct handoff_meta {
    struct bytes name;
    struct bytes value;
};

/* How an attempt ended, or got on. */
struct report {
    uint64_t duration_us;
    struct bytes body;        /* SUCCESS: the result */
    enum failure_kind kind;   /* FAILURE: PREPARE, PERMANENT, TRANSIENT or FINALIZE */
    enum retry_choice choice; /* FAILURE */
    uint64_t retry_delay_ms;  /* FAILURE */
    struct bytes name;        /* FAILURE */
    struct bytes message;     /* FAILURE */
    struct bytes trace;       /* FAILURE */
    uint64_t user_ms;         /* FAILURE */
    uint64_t system_ms;       /* FAILURE */
    uint64_t max_rss_kib;     /* FAILURE */
    const struct handoff_meta *meta;
    uint32_t meta_count; /* at most META_COUNT_MAX */
    bool has_meta;       /* else it is as it was */
};

/* The parts of a report, as handoff_from_attempt(); `room` keeps what has no place in the report.
 */
#define REPORT_PART_COUNT (8 + 2 * META_COUNT_MAX)
#define REPORT_ROOM_SIZE  (256 + 8 * META_COUNT_MAX)
struct report_parts {
    struct bytes parts[REPORT_PART_COUNT];
    size_t part_count;
    uint8_t room[REPORT_ROOM_SIZE];
};
/* Sizes as report_read() takes them: name, message and trace within the limits of the wire, items
 * of meta with a name. */
void report_write(struct report_parts *parts, enum frame_kind kind, const struct report *report,
                  uint32_t cell, uint32_t generation);

/* Reads what followed the header of SUCCESS, FAILURE or PROGRESS; views point into data, meta into
 * `items`. Every number and size is checked. False: it is damaged. */
bool report_read(struct report *report, enum frame_kind kind, struct bytes data,
                 struct handoff_meta items[META_COUNT_MAX]);

#endif
