/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The pool of processes beside the pool of threads, without a broker: attempts of a handler that
 * does nothing, 128 bytes of body, at most 1,000 in flight. Attempts a second, and CPU time for
 * each, of the supervisor and of the children.
 *
 * usage: bench_pool [SLOTS [ATTEMPTS]]
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <treadle/worker.h>

#include "common/base/assert.h"
#include "worker/exec/functions.h"
#include "worker/exec/pool.h"

#define BODY_SIZE         128
#define IN_FLIGHT_MAX     1000U
#define SLOTS_DEFAULT     2U
#define ATTEMPTS_DEFAULT  2000000U
#define ROUND_WAIT_MAX_MS 1000
#define USAGE_EXIT_CODE   64

static uint8_t body[BODY_SIZE];

struct loop {
    struct executor *executor;
    struct runs *runs;
    struct worker_attempt attempts[IN_FLIGHT_MAX];
    uint32_t free[IN_FLIGHT_MAX]; /* indices in attempts; an attempt's lease is its index */
    uint32_t free_count;
    uint64_t ended_count;
    uint64_t wait_count;
};

static enum treadle_end do_nothing(treadle_context *context, const struct treadle_attempt *attempt)
{
    return treadle_context_result(context, attempt->body, attempt->body_size);
}

/* ---- what the executor tells ---- */

static void on_started(void *context, uint64_t lease)
{
    (void)context;
    (void)lease;
}

static void on_progress(void *context, uint64_t lease, const struct wire_list *meta)
{
    (void)context;
    (void)lease;
    (void)meta;
}

static void on_succeeded(void *context, const struct wire_success_entry *success)
{
    struct loop *loop = context;
    TREADLE_ASSERT(success->body.size == BODY_SIZE);
    loop->free[loop->free_count++] = (uint32_t)success->lease;
    loop->ended_count++;
}

static void on_failed(void *context, const struct wire_failure_entry *failure)
{
    (void)context;
    fprintf(stderr, "%.*s: %.*s\n", (int)failure->name.size, (const char *)failure->name.data,
            (int)failure->message.size, (const char *)failure->message.data);
    abort();
}

static void on_returned(void *context, uint64_t lease)
{
    (void)context;
    (void)lease;
    abort();
}

/* ---- the loop ---- */

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void fill(struct loop *loop, uint64_t attempt_count)
{
    static const struct handler handler = {.kind = HANDLER_FUNCTION};
    const uint32_t room = executor_room(loop->executor);
    while (loop->free_count > 0 && IN_FLIGHT_MAX - loop->free_count < room &&
           loop->ended_count + (IN_FLIGHT_MAX - loop->free_count) < attempt_count) {
        const uint32_t index = loop->free[--loop->free_count];
        executor_start(loop->executor, &loop->attempts[index], &handler);
    }
}

static void wait_for_something(struct loop *loop)
{
    struct pollfd fds[] = {
        {.fd = executor_fd(loop->executor), .events = POLLIN},
        {.fd = runs_fd(loop->runs), .events = POLLIN},
    };
    const uint64_t now_ms = clock_ns() / 1000000;
    const uint64_t at_ms = executor_next_at_ms(loop->executor);
    const uint64_t span_ms = at_ms > now_ms ? at_ms - now_ms : 0;
    int timeout_ms = span_ms < ROUND_WAIT_MAX_MS ? (int)span_ms : ROUND_WAIT_MAX_MS;
    if (!executor_may_wait(loop->executor)) {
        timeout_ms = 0;
    }
    (void)poll(fds, 2, timeout_ms);
    loop->wait_count++;
    if (fds[1].revents != 0) {
        runs_on_ready(loop->runs);
    }
}

static void run_attempts(struct loop *loop, uint64_t attempt_count)
{
    loop->ended_count = 0;
    loop->wait_count = 0;
    while (loop->ended_count < attempt_count) {
        fill(loop, attempt_count);
        wait_for_something(loop);
        executor_on_ready(loop->executor);
    }
}

static double cpu_us(int who)
{
    struct rusage usage;
    (void)getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* One zygote for each, so that what its children have used is known when it has ended. */
static double measure(bool is_threaded, uint32_t slots, uint64_t attempt_count)
{
    static const struct treadle_handler handlers[] = {
        {.size = sizeof(handlers[0]), .name = "bench.none", .run = do_nothing, .is_thread_safe = 1},
    };
    struct function_sources sources = {
        .handlers = handlers,
        .handler_count = 1,
        .broker = "tcp://127.0.0.1:1",
        .worker = "bench",
    };
    const struct zygote_config zygote_config = {
        .child_main = pool_child_main,
        .child_context = &sources,
    };
    static struct loop loop;
    struct zygote *zygote = NULL;
    TREADLE_ASSERT(zygote_open(&zygote, &zygote_config) == TREADLE_OK);
    memset(&loop, 0, sizeof(loop));
    loop.runs = runs_create(zygote);
    TREADLE_ASSERT(loop.runs != NULL);
    const struct pool_config config = {
        .runs = loop.runs,
        .is_threaded = is_threaded,
        .slots = slots,
        .listener = {&loop, on_started, on_progress, on_succeeded, on_failed, on_returned},
    };
    loop.executor = pool_executor_create(&config);
    TREADLE_ASSERT(loop.executor != NULL);
    for (uint32_t i = 0; i < IN_FLIGHT_MAX; i++) {
        loop.attempts[i] = (struct worker_attempt){
            .lease = i,
            .service = bytes_from_text("bench"),
            .task = bytes_from_text("none"),
            .body = {body, sizeof(body)},
            .timeout_ms = 300000,
            .result_size_max = BODY_SIZE_DEFAULT,
        };
        loop.free[loop.free_count++] = i;
    }
    run_attempts(&loop, attempt_count / 10); /* children are there, handlers measured */
    const double own_before_us = cpu_us(RUSAGE_SELF);
    const double children_before_us = cpu_us(RUSAGE_CHILDREN);
    const uint64_t began_at_ns = clock_ns();
    run_attempts(&loop, attempt_count);
    const double span_ns = (double)(clock_ns() - began_at_ns);
    const double own_us = cpu_us(RUSAGE_SELF) - own_before_us;
    executor_destroy(&loop.executor);
    runs_destroy(&loop.runs);
    zygote_close(&zygote);
    /* with the children's share of the warming up */
    const double children_us = (cpu_us(RUSAGE_CHILDREN) - children_before_us) / 1.1;
    const double count = (double)attempt_count;
    const double rate = count / span_ns * 1e9;
    printf("%-10s %10.0f /s   cpu %6.2f us each: supervisor %5.2f, children %5.2f   %6.1f ends a "
           "wait\n",
           is_threaded ? "threads" : "processes", rate, (own_us + children_us) / count,
           own_us / count, children_us / count, count / (double)loop.wait_count);
    return rate;
}

int main(int argc, char **argv)
{
    const uint64_t slots = argc > 1 ? strtoull(argv[1], NULL, 10) : SLOTS_DEFAULT;
    const uint64_t attempt_count = argc > 2 ? strtoull(argv[2], NULL, 10) : ATTEMPTS_DEFAULT;
    if (slots < 1 || slots > SLOT_COUNT_MAX || attempt_count < 10 || argc > 3) {
        fprintf(stderr, "usage: bench_pool [SLOTS [ATTEMPTS]]\n");
        return USAGE_EXIT_CODE;
    }
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR) {
        return EXIT_FAILURE;
    }
    printf("%u bytes, %u in flight, %u slots, %u attempts\n", (unsigned)BODY_SIZE, IN_FLIGHT_MAX,
           (unsigned)slots, (unsigned)attempt_count);
    const double threads = measure(true, (uint32_t)slots, attempt_count);
    const double processes = measure(false, (uint32_t)slots, attempt_count);
    printf("processes / threads: %.2f\n", processes / threads);
    return EXIT_SUCCESS;
}
