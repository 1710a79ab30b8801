/* SPDX-License-Identifier: MPL-2.0 */
/* What the benchmarks of the whole mesh share: processes, plain DEALERs, a worker that answers at
 * once. */
#ifndef TREADLE_BENCH_PEERS_H
#define TREADLE_BENCH_PEERS_H

#include "common/wire/message.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <zmq.h>

#define ENDPOINT_MAX 256
#define BODY_MAX     4096U

/* Ends the benchmark: what could not be done, and ZeroMQ's reason. */
_Noreturn void fail(const char *what);

/* CLOCK_MONOTONIC. */
uint64_t now_ns(void);
uint64_t now_ms(void);

/* User and system time of a usage together, microseconds. */
double cpu_us(const struct rusage *usage);

/* Key pairs for a broker or relay and its peers, made anew; with them every socket is encrypted.
 * Other processes are told the same ones by environment, take_curve(). */
void make_curve(void);
bool take_curve(void);

/* Makes a socket one of a server with these keys, if there are any. */
void serve_curve(void *socket);

/* A DEALER without watermarks, connected. */
void *open_dealer(void *context, const char *endpoint);
void send_frames(void *socket, const struct wire_frames *frames);

/* One received message and the views on it. */
struct received {
    zmq_msg_t parts[FRAME_COUNT_MAX];
    struct bytes views[FRAME_COUNT_MAX];
    size_t count;
};

/* False: nothing is there. End what is received with release(). */
bool receive(void *socket, struct received *received);
void release(struct received *received);

/* False: not a message of the protocol. Views on `received`, until the next call. */
bool decode(struct received *received, struct message *message);

/* Sleeps until the socket is readable or an instant (at most a second). */
void wait_readable(void *socket, uint64_t at_ms);

struct child {
    pid_t pid;
    char endpoint[ENDPOINT_MAX]; /* what it said on its first line */
};

/* Starts a program; it is killed with this process. */
struct child start(const char *const arguments[], bool says_endpoint);

/* Kills it; the CPU it had used, microseconds. */
double stop(const struct child *child);

/* Starts `treadled` of the build that this program is part of. */
struct child start_broker(void);

/* The path of this program. Static storage. */
const char *self_path(void);

/* A worker of so many slots that answers with a body of this size at once; never returns. */
void run_worker(const char *endpoint, const char *pattern, uint32_t slots, uint32_t body_size);

/* A worker that takes all it is given and ends none of it; never returns. */
void hold_leases(const char *endpoint, const char *pattern, uint32_t slots);

#endif
