/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What the core costs a task: SUBMIT decoded and stepped, DISPATCH, RESULT decoded and stepped,
 * outcomes released. Effects are counted, not carried out; no socket, no store. Prints ns a task,
 * median of the rounds.
 */
#define _GNU_SOURCE
#include "broker/core/core.h"
#include "broker/core/state.h"
#include "common/base/bytes.h"
#include "common/base/prng.h"
#include "common/wire/message.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define BATCH     256U
#define ROUNDS    2000U
#define WARM_UP   (ROUNDS / 10)
#define BODY_SIZE 128U
#define CLIENT    0U
#define WORKER    1U

struct bench {
    struct core *core;
    struct effects effects;
    struct prng prng;
    struct writer templates, entries, message;
    uint64_t client_number, worker_number;
    uint64_t settled_upto;
    uint64_t leases[BATCH];
    uint32_t lease_count;
    uint64_t spent_ns[4]; /* submit, dispatch, result, release */
};

static const char *const phases[] = {"submit", "dispatch", "result", "release"};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void note_effects(struct bench *bench)
{
    for (uint32_t i = 0; i < bench->effects.count; i++) {
        const struct effect *effect = &bench->effects.at[i];
        if (effect->kind != EFFECT_SEND) {
            continue;
        }
        if (effect->code == MESSAGE_DISPATCH && bench->lease_count < BATCH) {
            bench->leases[bench->lease_count] = bench->core->attempts[effect->attempt].lease;
            bench->lease_count++;
        } else if (effect->code == MESSAGE_SETTLED) {
            bench->settled_upto = effect->number;
        }
    }
}

static void step(struct bench *bench, const struct input *input, int phase)
{
    const uint64_t started_ns = now_ns();
    core_step(bench->core, 1000, input, &bench->effects);
    bench->spent_ns[phase] += now_ns() - started_ns;
    note_effects(bench);
}

/* Encodes (untimed), decodes and steps (timed). */
static void step_message(struct bench *bench, const struct message *message, uint32_t connection,
                         int phase)
{
    if (!message_encode(message, &bench->message)) {
        abort();
    }
    const uint64_t started_ns = now_ns();
    struct message decoded;
    if (message_decode(&decoded, &bench->message.frames, &wire_limits_protocol) != WIRE_OK) {
        abort();
    }
    bench->spent_ns[phase] += now_ns() - started_ns;
    const struct input input = {.kind = INPUT_MESSAGE,
                                .connection = connection,
                                .rights = RIGHT_ALL,
                                .services = &globs_all,
                                .principal = bytes_from_text("local"),
                                .message = &decoded};
    step(bench, &input, phase);
}

static void hello(struct bench *bench, uint32_t connection, enum peer_role role)
{
    static const uint8_t incarnations[2][16] = {{1}, {2}};
    struct message message = {.kind = MESSAGE_HELLO, .number = 1};
    message.as.hello.role = role;
    message.as.hello.name = bytes_from_text(role == ROLE_WORKER ? "worker" : "client");
    message.as.hello.incarnation = (struct bytes){incarnations[connection], 16};
    message.as.hello.slots = role == ROLE_WORKER ? 4096 : 0;
    writer_reset(&bench->entries);
    if (role == ROLE_WORKER) {
        const struct wire_serve serve = {.pattern = bytes_from_text("bench.noop")};
        if (!wire_serve_encode(&bench->entries, &serve)) {
            abort();
        }
        message.as.hello.serves = wire_list_from_writer(&bench->entries, 1);
    }
    step_message(bench, &message, connection, 0);
}

static void submit(struct bench *bench)
{
    static const uint8_t body[BODY_SIZE];
    writer_reset(&bench->templates);
    writer_reset(&bench->entries);
    const struct wire_submit_template template = {.service = bytes_from_text("bench"),
                                                  .task = bytes_from_text("noop"),
                                                  .flags = SUBMIT_WATCH};
    bool is_fine = wire_submit_template_encode(&bench->templates, &template);
    for (uint32_t i = 0; i < BATCH; i++) {
        struct wire_submit_entry entry = {.body = {body, sizeof body}};
        bytes_store_u64(entry.id.bytes, prng_next(&bench->prng));
        bytes_store_u64(entry.id.bytes + 8, prng_next(&bench->prng));
        entry.digest = (struct bytes){entry.id.bytes, 16};
        is_fine = wire_submit_entry_encode(&bench->entries, &entry) && is_fine;
    }
    if (!is_fine) {
        abort();
    }
    bench->client_number++;
    struct message message = {
        .kind = MESSAGE_SUBMIT, .number = bench->client_number, .upto = bench->settled_upto};
    message.as.submit.templates = wire_list_from_writer(&bench->templates, 1);
    message.as.submit.entries = wire_list_from_writer(&bench->entries, BATCH);
    step_message(bench, &message, CLIENT, 0);
}

static void report_results(struct bench *bench)
{
    static const uint8_t body[BODY_SIZE];
    writer_reset(&bench->entries);
    for (uint32_t i = 0; i < bench->lease_count; i++) {
        const struct wire_success_entry entry = {.lease = bench->leases[i],
                                                 .body = {body, sizeof body}};
        if (!wire_success_entry_encode(&bench->entries, &entry)) {
            abort();
        }
    }
    bench->worker_number++;
    struct message message = {.kind = MESSAGE_RESULT,
                              .number = bench->worker_number,
                              .upto = bench->worker_number * BATCH + 4096};
    message.as.result.successes = wire_list_from_writer(&bench->entries, bench->lease_count);
    bench->lease_count = 0;
    step_message(bench, &message, WORKER, 2);
}

static void one_round(struct bench *bench)
{
    submit(bench);
    const struct input dispatch = {.kind = INPUT_DISPATCH};
    while (core_has_more_to_dispatch(bench->core)) {
        step(bench, &dispatch, 1);
    }
    report_results(bench);
    const struct input durable = {.kind = INPUT_DURABLE,
                                  .durable_number = bench->core->record_number};
    step(bench, &durable, 3);
}

static void grant(struct bench *bench)
{
    bench->worker_number = 2;
    const struct message message = {.kind = MESSAGE_HEARTBEAT, .number = 2, .upto = 1U << 20};
    step_message(bench, &message, WORKER, 0);
}

int main(void)
{
    static struct bench bench;
    struct core_config config;
    core_config_init(&config);
    config.seed = 1;
    config.hash_key = (struct hash_key){1, 2};
    const size_t size = core_memory_size(&config);
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || madvise(memory, size, MADV_HUGEPAGE) != 0) {
        return EXIT_FAILURE;
    }
    writer_init(&bench.templates);
    writer_init(&bench.entries);
    writer_init(&bench.message);
    prng_seed(&bench.prng, 1);
    bench.core = core_create(memory, &config, 1000);
    bench.client_number = 1;
    hello(&bench, CLIENT, ROLE_CLIENT);
    hello(&bench, WORKER, ROLE_WORKER);
    grant(&bench);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (i == WARM_UP) {
            memset(bench.spent_ns, 0, sizeof bench.spent_ns); /* the first tenth warms up */
        }
        one_round(&bench);
    }
    const uint32_t task_count = BATCH * (ROUNDS - WARM_UP);
    const double tasks = task_count;
    if (bench.core->counters.succeeded != (uint64_t)BATCH * ROUNDS) {
        fprintf(stderr, "bench_core: %" PRIu64 " of %u tasks succeeded\n",
                bench.core->counters.succeeded, BATCH * ROUNDS);
        return EXIT_FAILURE;
    }
    double total = 0;
    for (int phase = 0; phase < 4; phase++) {
        printf("%-9s %7.1f ns a task\n", phases[phase], (double)bench.spent_ns[phase] / tasks);
        total += (double)bench.spent_ns[phase] / tasks;
    }
    printf("%-9s %7.1f ns a task (batches of %u, %u B)\n", "all", total, BATCH, BODY_SIZE);
    writer_free(&bench.templates);
    writer_free(&bench.entries);
    writer_free(&bench.message);
    return munmap(memory, size) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
