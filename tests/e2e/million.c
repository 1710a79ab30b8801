/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A million tasks from one client: submits 128-byte tasks until the client says that it is full,
 * with a broker that is full before that and no worker; then lets a worker come, and takes every
 * outcome, once each. Prints what the client and the broker need in memory, and fails where that is
 * over their limits.
 *
 * usage: slow.million [BYTE_MAX]
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>
#include <treadle/client.h>

#include "bench/peers.h"
#include "common/base/bytes.h"

#define BODY_SIZE      128U
#define TASK_COUNT_MAX 2000000U
#define BYTE_MAX       (UINT64_C(256) << 20)
#define ROOM_KIB       32768U /* the program, its libraries, messages under way, outcomes */
#define BROKER_KIB_MAX 1048576U
#define SETTLED_MAX_MS 120000U

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true /* needs more memory itself */
#else
#define IS_SANITIZED false
#endif

static uint8_t outcome_counts[TASK_COUNT_MAX];

/* A field of /proc/PID/status that counts in KiB. */
static uint64_t memory_kib(long pid, const char *field)
{
    char path[64];
    char line[256];
    uint64_t kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%ld/status", pid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, field, strlen(field)) == 0) {
            kib = strtoull(line + strlen(field) + 1, NULL, 10);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return kib;
}

static void give_up(const char *what, const treadle_client *client)
{
    (void)fprintf(stderr, "million: %s: %s\n", what, treadle_client_error(client));
    (void)fflush(stdout);
    _exit(EXIT_FAILURE);
}

static struct treadle_task_id id_of(uint32_t number)
{
    struct treadle_task_id id;
    randombytes_buf(id.bytes, 12);
    bytes_store_u32(id.bytes + 12, number);
    return id;
}

/* Until there is no more room; how many. */
static uint32_t submit_all(treadle_client *client)
{
    static const uint8_t body[BODY_SIZE];
    uint32_t count = 0;
    for (; count < TASK_COUNT_MAX; count++) {
        const struct treadle_task_id id = id_of(count);
        const struct treadle_task task = {
            .size = sizeof task,
            .name = "bench.noop",
            .body = body,
            .body_size = sizeof body,
            .id = &id,
        };
        const enum treadle_status status = treadle_client_submit(client, &task, NULL);
        if (status == TREADLE_E_AGAIN) {
            break;
        }
        if (status != TREADLE_OK) {
            give_up("submit", client);
        }
    }
    return count;
}

static void take(treadle_client *client, uint32_t count)
{
    const uint64_t until_ms = now_ms() + SETTLED_MAX_MS;
    for (uint32_t i = 0; i < count; i++) {
        struct treadle_outcome *outcome = NULL;
        if (now_ms() > until_ms || treadle_client_recv(client, 10000, &outcome) != TREADLE_OK) {
            (void)fprintf(stderr, "million: %" PRIu32 " of %" PRIu32 " have settled\n", i, count);
            give_up("recv", client);
        }
        const uint32_t number = bytes_load_u32(outcome->id.bytes + 12);
        if (outcome->status != TREADLE_OK || outcome->state != TREADLE_TASK_SUCCEEDED ||
            number >= count || outcome_counts[number]++ != 0) {
            give_up("an outcome that is not right", client);
        }
        treadle_outcome_free(&outcome);
    }
}

static void show(const char *when, uint32_t count, const struct child *broker)
{
    const uint64_t client_kib = memory_kib(getpid(), "VmRSS:");
    const uint64_t broker_kib = memory_kib(broker->pid, "VmRSS:");
    printf("%-28s client %7" PRIu64 " KiB (%4.0f B a task)   broker %7" PRIu64
           " KiB (%4.0f B a task)\n",
           when, client_kib, count > 0 ? 1024.0 * (double)client_kib / count : 0.0, broker_kib,
           count > 0 ? 1024.0 * (double)broker_kib / count : 0.0);
}

int main(int count, char **arguments)
{
    if (sodium_init() < 0) {
        return EXIT_FAILURE;
    }
    if (count == 3 && strcmp(arguments[1], "worker") == 0) {
        run_worker(arguments[2], "bench.noop", 1024, 16);
    }
    struct child broker = start_broker();
    treadle_client *client = NULL;
    const struct treadle_client_options options = {
        .size = sizeof options,
        .broker = broker.endpoint,
        .in_flight_max = TASK_COUNT_MAX,
        .byte_max = count == 2 ? strtoull(arguments[1], NULL, 10) : BYTE_MAX,
    };
    if (treadle_client_open(&client, &options) != TREADLE_OK) {
        give_up("open", NULL);
    }
    show("at first", 0, &broker);
    const uint64_t started_ms = now_ms();
    const uint32_t task_count = submit_all(client);
    printf("%" PRIu32 " tasks submitted in %" PRIu64 " ms, then: %s\n", task_count,
           now_ms() - started_ms, treadle_client_error(client));
    for (int i = 0; i < 30; i++) { /* BUSY and again, for a while */
        struct treadle_outcome *outcome = NULL;
        if (treadle_client_recv(client, 100, &outcome) == TREADLE_OK) {
            give_up("an outcome without a worker", client);
        }
    }
    show("all in flight or queued", task_count, &broker);
    const char *const worker_arguments[] = {self_path(), "worker", broker.endpoint, NULL};
    const struct child worker = start(worker_arguments, false);
    const uint64_t before_ms = now_ms();
    take(client, task_count);
    printf("all settled in %" PRIu64 " ms\n", now_ms() - before_ms);
    show("all settled", task_count, &broker);
    const uint64_t peak_kib = memory_kib(getpid(), "VmHWM:");
    const uint64_t broker_peak_kib = memory_kib(broker.pid, "VmHWM:");
    printf("at most: client %" PRIu64 " KiB, broker %" PRIu64 " KiB\n", peak_kib, broker_peak_kib);
    treadle_client_close(&client);
    (void)stop(&worker);
    (void)stop(&broker);
    const uint64_t limit_kib = options.byte_max / 1024 + ROOM_KIB;
    if (!IS_SANITIZED && (peak_kib > limit_kib || broker_peak_kib > BROKER_KIB_MAX)) {
        (void)fprintf(stderr, "million: more than %" PRIu64 " KiB, or the broker more than %u\n",
                      limit_kib, BROKER_KIB_MAX);
        return EXIT_FAILURE;
    }
    if (options.byte_max >= BYTE_MAX && task_count < 1000000) {
        (void)fprintf(stderr, "million: %" PRIu32 " tasks fit, not a million\n", task_count);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
