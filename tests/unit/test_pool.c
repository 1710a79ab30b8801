/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <treadle/worker.h>

#include "common/base/prng.h"
#include "worker/exec/functions.h"
#include "worker/exec/handoff.h"
#include "worker/exec/page.h"
#include "worker/exec/pool.h"

/* Sanitizers need more memory than any limit admits. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#define IS_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define IS_SANITIZED 0
#endif

#define ATTEMPT_COUNT_MAX 4096
#define RESULT_SIZE_MAX   1048576

/* ---- the children ---- */

/* What children do before they would be ready, and what they do instead. */
enum child_mode {
    CHILD_WORKS,
    CHILD_ENDS,     /* with exit code 7 */
    CHILD_IS_UNFIT, /* says so, and ends */
    CHILD_PUTS,     /* runs attempts so: puts the body into the ring, as it is, and zeros behind it
                       if it is a header that announces more than a body has */
};

/* Seen by all processes: how often something was run, who ran what. */
static struct world {
    _Atomic uint32_t start_count; /* of children */
    _Atomic uint32_t run_count;
    _Atomic int pid;
} * world;

struct sources {
    struct function_sources functions; /* what pool_child_main() takes */
    enum child_mode mode;
};

/* Until there is none left; then it gives up as most programs do. */
static void eat_memory(void)
{
    for (;;) {
        char *memory = malloc(1048576);
        if (memory == NULL) {
            abort();
        }
        memset(memory, 1, 1048576);
        world->run_count += memory[0] == 0; /* so that it is really written */
    }
}

static void jump_to(uintptr_t address)
{
    void (*volatile wild)(void) = (void (*)(void))address;
    wild(); /* meant to crash: NOLINT(clang-analyzer-core.CallAndMessage) */
}

static void leave_orphans(long count)
{
    for (long i = 0; i < count; i++) {
        const pid_t pid = fork();
        if (pid == 0) {
            (void)!fork(); /* both end; the second one's parent is then another */
            _exit(0);
        }
        (void)waitpid(pid, NULL, 0);
    }
    (void)usleep(100000);
}

/* Starts a process that lives for a second; the next call waits for it. */
static enum treadle_end keep_own_child(treadle_context *context)
{
    static pid_t own;
    int state = 0;
    if (own != 0) {
        return treadle_context_fail(
            context, TREADLE_END_PERMANENT,
            waitpid(own, &state, 0) == own && WEXITSTATUS(state) == 9 ? "own.waited" : "own.lost",
            "the process that an earlier attempt started");
    }
    own = fork();
    if (own == 0) {
        (void)usleep(1000 * 1000);
        _exit(9);
    }
    return TREADLE_END_SUCCESS;
}

static void hang_with_an_escaped_child(void)
{
    if (fork() == 0) {
        (void)setsid();
        (void)usleep(10 * 1000 * 1000);
        _exit(0);
    }
    (void)usleep(10 * 1000 * 1000);
}

/* The first word of the body says what to do, a number after it how much. A switch on words. */
/* NOLINTNEXTLINE(readability-function-cognitive-complexity) */
static enum treadle_end run(treadle_context *context, const struct treadle_attempt *attempt)
{
    char text[64] = "";
    const size_t size = attempt->body_size < sizeof(text) - 1 ? attempt->body_size : 63;
    memcpy(text, attempt->body, size);
    const char *space = strchr(text, ' ');
    const long number = space != NULL ? strtol(space, NULL, 10) : 0;
    const size_t word_size = space != NULL ? (size_t)(space - text) : strlen(text);
#define IS(word) (word_size == strlen(word) && memcmp(text, word, word_size) == 0)
    world->run_count++;
    if (IS("sleep")) {
        (void)usleep((useconds_t)number * 1000);
    } else if (IS("huge")) {
        char *huge = calloc(1, (size_t)number + 1);
        const enum treadle_end end = treadle_context_result(context, huge, (size_t)number);
        free(huge);
        return end;
    } else if (IS("raise")) {
        fprintf(stderr, "about to raise %ld\n", number);
        (void)signal((int)number, SIG_DFL);
        (void)raise((int)number);
    } else if (IS("crash")) {
        raise(SIGABRT);
    } else if (IS("touch")) {
        volatile int *volatile wrong = (int *)(uintptr_t)number;
        *wrong = 1; /* meant to crash: NOLINT(clang-analyzer-core.NullDereference) */
    } else if (IS("jump")) {
        jump_to((uintptr_t)number);
    } else if (IS("eat")) {
        eat_memory();
    } else if (IS("exit")) {
        _exit((int)number);
    } else if (IS("fail")) {
        return treadle_context_fail(context, TREADLE_END_PERMANENT, "test.failed", "on %s", text);
    } else if (IS("meta")) {
        (void)!treadle_context_set_meta(context, "page", "7", 1);
        treadle_context_progress(context);
        (void)usleep((useconds_t)number * 1000);
    } else if (IS("until")) {
        while (!treadle_context_is_cancelled(context)) {
            (void)usleep(1000);
        }
        return treadle_context_fail(context, TREADLE_END_TRANSIENT, "cancelled", "was cancelled");
    } else if (IS("escape")) {
        hang_with_an_escaped_child();
    } else if (IS("orphans")) {
        leave_orphans(number);
    } else if (IS("own")) {
        return keep_own_child(context);
    } else if (IS("pid")) {
        world->pid = getpid();
    }
    return treadle_context_result(context, attempt->body, attempt->body_size);
}

static void put(struct page *page, const void *data, size_t size)
{
    const struct bytes part = {data, size};
    page_put(page, &part, 1);
}

static void put_body_as_it_is(struct page *page, struct bytes body)
{
    struct frame_header header = {.size = 0};
    put(page, body.data, body.size);
    if (body.size == sizeof(header)) {
        memcpy(&header, body.data, sizeof(header));
    }
    if (header.size > BODY_SIZE_LIMIT / 2 && header.size <= FRAME_SIZE_MAX) {
        void *zeros = calloc(1, header.size);
        put(page, zeros, header.size);
        free(zeros);
    }
}

static int put_what_comes(const struct zygote_child *child)
{
    static uint8_t data[8192];
    struct page *page = page_open(child->fds[1], child->fds[2]);
    const struct frame_header ready = {.kind = FRAME_READY};
    put(page, &ready, sizeof(ready));
    for (;;) {
        struct frame_header header;
        struct worker_attempt attempt;
        if (read(child->fds[0], data, sizeof(data)) < (ssize_t)sizeof(header)) {
            return EXIT_SUCCESS;
        }
        memcpy(&header, data, sizeof(header));
        if (handoff_read(&attempt, (struct bytes){data + sizeof(header), header.size}) &&
            page_take(page, header.cell, header.generation, 1)) {
            put_body_as_it_is(page, attempt.body);
        }
    }
}

static int child_main(void *context, const struct zygote_child *child)
{
    struct sources *sources = context;
    world->start_count++;
    if (sources->mode == CHILD_ENDS) {
        return 7;
    }
    if (sources->mode == CHILD_IS_UNFIT) {
        struct page *page = page_open(child->fds[1], child->fds[2]);
        static const char text[] = "plugin.so: no such plugin";
        const struct frame_header unfit = {.kind = FRAME_UNFIT, .size = sizeof(text) - 1};
        put(page, &unfit, sizeof(unfit));
        put(page, text, sizeof(text) - 1);
        return 1;
    }
    if (sources->mode == CHILD_PUTS) {
        return put_what_comes(child);
    }
    return pool_child_main(&sources->functions, child);
}

/* ---- the supervisor ---- */

enum end_kind {
    END_NONE,
    END_SUCCESS,
    END_FAILURE,
    END_RETURNED,
};

/* How each attempt ended; its lease is its index. */
static struct end {
    enum end_kind kind;
    bool is_started;
    uint64_t ended_at_ms;
    enum failure_kind failure_kind;
    uint64_t signal;
    char name[NAME_SIZE_MAX + 1];
    char message[ERROR_MESSAGE_SIZE_MAX + 1];
    char trace[512];
    size_t body_size;
} ends[ATTEMPT_COUNT_MAX];
static uint32_t end_count;
static uint32_t progress_count;
static char progress_meta[64];

static struct sources sources;
static struct zygote *zygote;
static struct runs *runs;
static struct executor *executor;
static uint64_t memory_max;
static struct worker_attempt attempts[ATTEMPT_COUNT_MAX];
static char *bodies[ATTEMPT_COUNT_MAX];
static uint32_t attempt_count;
static uint32_t wait_count; /* rounds that slept */

static uint64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void copy_text(char *to, size_t to_size, struct bytes text)
{
    const size_t size = text.size < to_size - 1 ? text.size : to_size - 1;
    if (size > 0) {
        memcpy(to, text.data, size);
    }
    to[size] = '\0';
}

static void on_started(void *context, uint64_t lease)
{
    (void)context;
    assert_int_equal(ends[lease].kind, END_NONE);
    assert_false(ends[lease].is_started);
    ends[lease].is_started = true;
}

static void on_progress(void *context, uint64_t lease, const struct wire_list *meta)
{
    (void)context;
    struct wire_list list = *meta;
    struct wire_meta_item item;
    assert_true(ends[lease].is_started);
    progress_count++;
    while (wire_meta_item_next(&list, &item)) {
        snprintf(progress_meta, sizeof(progress_meta), "%.*s=%.*s", (int)item.name.size,
                 (const char *)item.name.data, (int)item.value.size, (const char *)item.value.data);
    }
}

static struct end *end_of(uint64_t lease, enum end_kind kind)
{
    assert_true(lease < ATTEMPT_COUNT_MAX);
    assert_int_equal(ends[lease].kind, END_NONE);
    ends[lease].kind = kind;
    ends[lease].ended_at_ms = clock_ms();
    end_count++;
    return &ends[lease];
}

static void on_succeeded(void *context, const struct wire_success_entry *success)
{
    (void)context;
    struct end *end = end_of(success->lease, END_SUCCESS);
    assert_true(end->is_started);
    end->body_size = success->body.size;
    if (bodies[success->lease][0] == 'e') {
        assert_true(bytes_is_equal(success->body, attempts[success->lease].body));
    }
}

static void on_failed(void *context, const struct wire_failure_entry *failure)
{
    (void)context;
    struct end *end = end_of(failure->lease, END_FAILURE);
    end->failure_kind = (enum failure_kind)failure->kind;
    end->signal = failure->signal;
    copy_text(end->name, sizeof(end->name), failure->name);
    copy_text(end->message, sizeof(end->message), failure->message);
    copy_text(end->trace, sizeof(end->trace), failure->trace);
}

static void on_returned(void *context, uint64_t lease)
{
    (void)context;
    (void)end_of(lease, END_RETURNED);
}

static int set_up(void **unused)
{
    (void)unused;
    static const struct treadle_handler handlers[] = {
        {.size = sizeof(handlers[0]), .name = "demo.run", .run = run, .is_thread_safe = 1},
    };
    memset(ends, 0, sizeof(ends));
    memset(world, 0, sizeof(*world));
    attempt_count = 0;
    end_count = 0;
    progress_count = 0;
    wait_count = 0;
    progress_meta[0] = '\0';
    memory_max = 0;
    sources = (struct sources){
        .functions = {.handlers = handlers,
                      .handler_count = 1,
                      .broker = "tcp://127.0.0.1:1",
                      .worker = "host:1"},
    };
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    executor_destroy(&executor);
    runs_destroy(&runs);
    zygote_close(&zygote);
    for (uint32_t i = 0; i < attempt_count; i++) {
        free(bodies[i]);
    }
    return 0;
}

static void open_pool(uint32_t slots, bool is_threaded)
{
    const struct zygote_config zygote_config = {
        .child_main = child_main,
        .child_context = &sources,
    };
    assert_int_equal(zygote_open(&zygote, &zygote_config), TREADLE_OK);
    runs = runs_create(zygote);
    assert_non_null(runs);
    const struct pool_config config = {
        .runs = runs,
        .is_threaded = is_threaded,
        .slots = slots,
        .memory_max = memory_max,
        .listener = {NULL, on_started, on_progress, on_succeeded, on_failed, on_returned},
    };
    executor = pool_executor_create(&config);
    assert_non_null(executor);
}

static void given_a_pool(uint32_t slots)
{
    open_pool(slots, false);
}

static void given_threads(uint32_t slots)
{
    open_pool(slots, true);
}

/* Returns its lease. */
static uint64_t start_bytes(const void *body, size_t size)
{
    static const struct handler handler = {.kind = HANDLER_FUNCTION, .index = 0};
    const uint32_t i = attempt_count++;
    assert_true(i < ATTEMPT_COUNT_MAX);
    bodies[i] = malloc(size + 1);
    assert_non_null(bodies[i]);
    memcpy(bodies[i], body, size);
    bodies[i][size] = '\0';
    attempts[i] = (struct worker_attempt){
        .lease = i,
        .service = bytes_from_text("demo"),
        .task = bytes_from_text("run"),
        .body = {(const uint8_t *)bodies[i], size},
        .timeout_ms = 300000,
        .result_size_max = RESULT_SIZE_MAX,
    };
    executor_start(executor, &attempts[i], &handler);
    return i;
}

static uint64_t when_it_starts(const char *body)
{
    return start_bytes(body, strlen(body));
}

/* One round of the worker's loop; sleeps at most so long. False: nothing happened in it. */
static bool round_within(int wait_ms)
{
    struct pollfd fds[] = {
        {.fd = executor_fd(executor), .events = POLLIN},
        {.fd = runs_fd(runs), .events = POLLIN},
    };
    const uint64_t now_ms = clock_ms();
    const uint64_t at_ms = executor_next_at_ms(executor);
    int timeout_ms = at_ms <= now_ms                      ? 0
                     : at_ms - now_ms < (uint64_t)wait_ms ? (int)(at_ms - now_ms)
                                                          : wait_ms;
    if (!executor_may_wait(executor)) {
        timeout_ms = 0;
    }
    const int count = poll(fds, 2, timeout_ms);
    wait_count++;
    if (fds[1].revents != 0) {
        runs_on_ready(runs);
    }
    executor_on_ready(executor);
    return count > 0 || timeout_ms < wait_ms;
}

static void when_time_passes_ms(uint64_t span_ms)
{
    const uint64_t until_ms = clock_ms() + span_ms;
    while (clock_ms() < until_ms) {
        (void)round_within((int)(until_ms - clock_ms()) + 1);
    }
}

static void when_all_have_ended(void)
{
    const uint64_t until_ms = clock_ms() + 20000;
    while (end_count < attempt_count) {
        assert_true(clock_ms() < until_ms);
        (void)round_within(1000);
    }
}

static void when_has_started(uint64_t lease)
{
    const uint64_t until_ms = clock_ms() + 20000;
    while (!ends[lease].is_started) {
        assert_true(clock_ms() < until_ms);
        (void)round_within(1000);
    }
}

static void when_it_is_cancelled(uint64_t lease)
{
    executor_cancel(executor, lease);
}

/* So that the pool knows that handlers are short. */
static void given_short_handlers_were_measured(void)
{
    for (int i = 0; i < 100; i++) {
        (void)when_it_starts("e");
        when_all_have_ended();
    }
}

#define then_it_ended_as(lease, expected) assert_int_equal(ends[lease].kind, expected)

#define then_it_failed_as(lease, expected_kind, expected_name)                                     \
    do {                                                                                           \
        then_it_ended_as(lease, END_FAILURE);                                                      \
        assert_string_equal(ends[lease].name, expected_name);                                      \
        assert_int_equal(ends[lease].failure_kind, expected_kind);                                 \
    } while (0)

/* ---- the stories ---- */

static void test_results_come_back(void **unused)
{
    (void)unused;
    given_a_pool(2);
    const uint64_t first = when_it_starts("e1");
    const uint64_t second = when_it_starts("fail it");
    when_all_have_ended();
    then_it_ended_as(first, END_SUCCESS);
    then_it_failed_as(second, FAILURE_PERMANENT, "test.failed");
    assert_string_equal(ends[second].message, "on fail it");
}

static void test_attempts_spread_over_the_slots(void **unused)
{
    (void)unused;
    given_a_pool(3);
    for (int i = 0; i < 3; i++) {
        (void)when_it_starts("until");
    }
    for (uint64_t i = 0; i < 3; i++) {
        when_has_started(i); /* though none has ended */
    }
    for (uint64_t i = 0; i < 3; i++) {
        when_it_is_cancelled(i);
    }
    when_all_have_ended();
    assert_int_equal(world->start_count, 3);
}

static void test_children_are_started_only_when_there_is_work_for_them(void **unused)
{
    (void)unused;
    given_a_pool(8);
    when_time_passes_ms(20);
    assert_int_equal(world->start_count, 0);
    for (int i = 0; i < 20; i++) {
        (void)when_it_starts("e");
        when_all_have_ended();
    }
    assert_int_equal(world->start_count, 1);
}

static void test_the_room_follows_the_measured_time(void **unused)
{
    (void)unused;
    given_a_pool(2);
    assert_int_equal(executor_room(executor), 2);
    given_short_handlers_were_measured();
    assert_true(executor_room(executor) > 2);
    assert_true(executor_room(executor) <= 2 * HANDOFF_COUNT_MAX);
    for (int i = 0; i < 8; i++) {
        (void)when_it_starts("sleep 20");
        when_all_have_ended();
    }
    assert_int_equal(executor_room(executor), 2);
}

static void test_a_thousand_short_ones_go_through(void **unused)
{
    (void)unused;
    given_a_pool(2);
    while (end_count < 3000) {
        while (attempt_count < 3000 && attempt_count - end_count < executor_room(executor)) {
            (void)when_it_starts("e of a thousand");
        }
        (void)round_within(1000);
    }
    for (uint32_t i = 0; i < attempt_count; i++) {
        then_it_ended_as(i, END_SUCCESS);
    }
    assert_int_equal(world->run_count, 3000);
}

static void test_large_bodies_go_both_ways(void **unused)
{
    (void)unused;
    given_a_pool(2);
    char *body = calloc(1, RESULT_SIZE_MAX);
    assert_non_null(body);
    body[0] = 'e';
    body[RESULT_SIZE_MAX - 1] = 'z';
    for (int i = 0; i < 4; i++) {
        (void)start_bytes(body, RESULT_SIZE_MAX);
    }
    free(body);
    when_all_have_ended();
    for (uint32_t i = 0; i < attempt_count; i++) {
        then_it_ended_as(i, END_SUCCESS);
        assert_int_equal(ends[i].body_size, RESULT_SIZE_MAX);
    }
}

static void test_a_result_over_the_limit_fails_and_the_next_is_fine(void **unused)
{
    (void)unused;
    given_a_pool(1);
    const uint64_t slightly = when_it_starts("huge 1048577");
    const uint64_t greatly = when_it_starts("huge 60000000");
    const uint64_t next = when_it_starts("e");
    when_all_have_ended();
    then_it_failed_as(slightly, FAILURE_FINALIZE, "result.size");
    then_it_failed_as(greatly, FAILURE_FINALIZE, "result.size");
    then_it_ended_as(next, END_SUCCESS);
    assert_int_equal(world->start_count, 1);
}

static void test_a_child_that_does_not_keep_to_the_limit_is_read_past_it(void **unused)
{
    (void)unused;
    sources.mode = CHILD_PUTS;
    given_a_pool(1);
    const struct frame_header header = {
        .kind = FRAME_SUCCESS, .size = (uint32_t)FRAME_SIZE_MAX, .generation = 1};
    const uint64_t lease = start_bytes(&header, sizeof(header));
    when_all_have_ended();
    then_it_failed_as(lease, FAILURE_FINALIZE, "result.size");
    assert_string_equal(ends[lease].message, "the result is over the limit of 1048576 bytes");
    const struct report report = {.duration_us = 1};
    struct report_parts parts;
    report_write(&parts, FRAME_SUCCESS, &report, 0, 2);
    const uint64_t next = start_bytes(parts.parts[0].data, parts.parts[0].size);
    when_all_have_ended();
    then_it_ended_as(next, END_SUCCESS);
    assert_int_equal(world->start_count, 1);
}

static void test_a_long_start_is_told_while_it_runs(void **unused)
{
    (void)unused;
    given_a_pool(1);
    const uint64_t lease = when_it_starts("until");
    when_has_started(lease);
    then_it_ended_as(lease, END_NONE);
    when_it_is_cancelled(lease);
    when_all_have_ended();
}

static void test_nobody_wakes_up_while_a_long_one_runs_or_nothing_does(void **unused)
{
    (void)unused;
    given_a_pool(2);
    given_short_handlers_were_measured();
    const uint64_t lease = when_it_starts("until");
    when_has_started(lease);
    when_time_passes_ms(20);
    wait_count = 0;
    when_time_passes_ms(150);
    assert_true(wait_count <= 3);
    when_it_is_cancelled(lease);
    when_all_have_ended();
    when_time_passes_ms(20);
    wait_count = 0;
    when_time_passes_ms(150);
    assert_true(wait_count <= 3);
    assert_true(executor_next_at_ms(executor) == UINT64_MAX);
}

static void test_what_waits_behind_a_long_one_is_run_elsewhere(void **unused)
{
    (void)unused;
    given_a_pool(2);
    given_short_handlers_were_measured();
    const uint64_t until_ms = clock_ms() + 20000;
    const uint64_t lease = when_it_starts("until");
    for (int i = 0; i < 60; i++) {
        (void)when_it_starts("e");
    }
    while (end_count < attempt_count - 1) { /* it never ends by itself */
        assert_true(clock_ms() < until_ms);
        (void)round_within(1000);
    }
    then_it_ended_as(lease, END_NONE);
    when_it_is_cancelled(lease);
    when_all_have_ended();
    assert_int_equal(world->run_count, attempt_count);
}

/* More than the socket holds: one of them is written in part when the long one turns out to be. */
static void given_large_ones_behind(const uint64_t lease)
{
    static char large[100000];
    memset(large, 'e', sizeof(large));
    for (int i = 0; i < 60; i++) {
        (void)start_bytes(large, sizeof(large));
    }
    then_it_ended_as(lease, END_NONE);
}

static void test_what_is_written_in_part_behind_a_long_one_is_run_elsewhere(void **unused)
{
    (void)unused;
    given_a_pool(2);
    given_short_handlers_were_measured();
    const uint64_t until_ms = clock_ms() + 20000;
    const uint64_t lease = when_it_starts("until");
    given_large_ones_behind(lease);
    while (end_count < attempt_count - 1) { /* it never ends by itself */
        assert_true(clock_ms() < until_ms);
        (void)round_within(1000);
    }
    then_it_ended_as(lease, END_NONE);
    when_it_is_cancelled(lease);
    when_all_have_ended();
    const uint64_t next = when_it_starts("e"); /* the stream goes on where it should */
    when_all_have_ended();
    then_it_ended_as(next, END_SUCCESS);
    assert_int_equal(world->run_count, attempt_count);
}

static void test_what_is_written_in_part_can_be_recalled(void **unused)
{
    (void)unused;
    given_a_pool(1);
    given_short_handlers_were_measured();
    const uint64_t lease = when_it_starts("until");
    given_large_ones_behind(lease);
    (void)executor_may_wait(executor); /* sends */
    for (uint64_t other = lease + 1; other < attempt_count; other++) {
        assert_true(executor_recall(executor, other));
        end_count++;
        memset(bodies[other], 'x', attempts[other].body.size); /* nobody looks at it any more */
    }
    when_has_started(lease);
    const uint64_t next = when_it_starts("e");
    when_it_is_cancelled(lease);
    when_all_have_ended();
    then_it_ended_as(next, END_SUCCESS);
    assert_int_equal(world->run_count, 102);
    assert_int_equal(world->start_count, 1);
}

static void test_progress_brings_meta_and_tells_the_start(void **unused)
{
    (void)unused;
    given_a_pool(1);
    const uint64_t lease = when_it_starts("meta 1");
    when_all_have_ended();
    then_it_ended_as(lease, END_SUCCESS);
    assert_int_equal(progress_count, 1);
    assert_string_equal(progress_meta, "page=7");
}

static void test_what_waits_can_be_recalled_and_what_runs_cannot(void **unused)
{
    (void)unused;
    given_a_pool(1);
    given_short_handlers_were_measured();
    const uint64_t running = when_it_starts("until");
    const uint64_t handed = when_it_starts("e");
    assert_true(executor_recall(executor, handed)); /* not even sent */
    end_count++;
    const uint64_t second = when_it_starts("e");
    const uint64_t third = when_it_starts("e");
    (void)executor_may_wait(executor); /* sends */
    when_has_started(running);
    assert_true(executor_recall(executor, second));
    end_count++;
    assert_false(executor_recall(executor, second));
    assert_false(executor_recall(executor, running));
    assert_false(executor_recall(executor, 4711));
    when_it_is_cancelled(running);
    when_all_have_ended();
    then_it_ended_as(handed, END_NONE);
    then_it_ended_as(second, END_NONE);
    then_it_ended_as(third, END_SUCCESS);
    assert_int_equal(world->run_count, 102);
}

static void test_cancel_reaches_the_handler(void **unused)
{
    (void)unused;
    given_a_pool(1);
    const uint64_t lease = when_it_starts("until");
    when_has_started(lease);
    when_it_is_cancelled(4711);
    when_time_passes_ms(30);
    then_it_ended_as(lease, END_NONE);
    when_it_is_cancelled(lease);
    when_all_have_ended();
    then_it_failed_as(lease, FAILURE_TRANSIENT, "cancelled");
    assert_int_equal(world->start_count, 1);
}

static void test_kill_ends_what_does_not_listen_and_nobody_else_is_charged(void **unused)
{
    (void)unused;
    given_a_pool(2);
    const uint64_t lease = when_it_starts("sleep 60000");
    when_has_started(lease);
    const uint64_t other = when_it_starts("sleep 100");
    const uint64_t waiting = when_it_starts("e");
    executor_kill(executor, 4711);
    executor_kill(executor, lease);
    when_all_have_ended();
    then_it_failed_as(lease, FAILURE_CRASH, "signal.KILL");
    then_it_ended_as(other, END_SUCCESS);
    then_it_ended_as(waiting, END_SUCCESS);
}

static void test_a_crash_is_charged_to_the_one_that_ran(void **unused)
{
    (void)unused;
    given_a_pool(1);
    given_short_handlers_were_measured();
    const uint64_t before = when_it_starts("e");
    const uint64_t culprit = when_it_starts("raise 11");
    const uint64_t behind = when_it_starts("e");
    const uint64_t last = when_it_starts("e");
    when_all_have_ended();
    then_it_ended_as(before, END_SUCCESS);
    then_it_failed_as(culprit, FAILURE_CRASH, "signal.SEGV");
    assert_int_equal(ends[culprit].signal, SIGSEGV);
    assert_non_null(strstr(ends[culprit].trace, "about to raise 11"));
    then_it_ended_as(behind, END_SUCCESS);
    then_it_ended_as(last, END_SUCCESS);
    assert_int_equal(world->start_count, 2);
    assert_int_equal(world->run_count, 104);
}

static void test_ten_crashes_among_many_hurt_nobody_else(void **unused)
{
    (void)unused;
    given_a_pool(2);
    while (end_count < 500) {
        while (attempt_count < 500 && attempt_count - end_count < executor_room(executor)) {
            (void)when_it_starts(attempt_count % 50 == 7 ? "raise 6" : "e");
        }
        (void)round_within(1000);
    }
    for (uint32_t i = 0; i < attempt_count; i++) {
        then_it_ended_as(i, i % 50 == 7 ? END_FAILURE : END_SUCCESS);
    }
    assert_int_equal(world->run_count, 500);
}

static void test_exit_in_a_handler_is_a_crash_that_names_the_code(void **unused)
{
    (void)unused;
    given_a_pool(1);
    const uint64_t lease = when_it_starts("exit 3");
    when_all_have_ended();
    then_it_failed_as(lease, FAILURE_CRASH, "exit.3");
    assert_string_equal(ends[lease].message, "the handler ended its process with exit code 3");
}

static void test_a_crash_tells_which_address_could_not_be_touched(void **unused)
{
    (void)unused;
    given_a_pool(1);
    const uint64_t touched = when_it_starts("touch 4096");
    const uint64_t jumped = when_it_starts("jump 8192");
    when_all_have_ended();
    then_it_failed_as(touched, FAILURE_CRASH, "signal.SEGV");
    assert_string_equal(ends[touched].message, "SIGSEGV at address 0x1000");
    then_it_failed_as(jumped, FAILURE_CRASH, "signal.SEGV");
    assert_non_null(strstr(ends[jumped].message, "jumped to 0x2000, where no code is, from 0x"));
}

#if !IS_SANITIZED
static void test_a_crash_for_want_of_memory_names_the_limit(void **unused)
{
    (void)unused;
    memory_max = UINT64_C(64) * 1024 * 1024;
    given_a_pool(1);
    const uint64_t lease = when_it_starts("eat");
    const uint64_t next = when_it_starts("e");
    when_all_have_ended();
    then_it_failed_as(lease, FAILURE_CRASH, "signal.ABRT");
    assert_string_equal(ends[lease].message, "died of SIGABRT (memory limit of 64 MiB)");
    then_it_ended_as(next, END_SUCCESS);
}
#endif

static void test_a_child_that_dies_while_idle_is_replaced(void **unused)
{
    (void)unused;
    given_a_pool(1);
    (void)when_it_starts("pid");
    when_all_have_ended();
    assert_int_equal(kill(world->pid, SIGKILL), 0);
    when_time_passes_ms(50);
    const uint64_t lease = when_it_starts("e");
    when_all_have_ended();
    then_it_ended_as(lease, END_SUCCESS);
    assert_int_equal(world->start_count, 2);
}

static void test_a_pool_whose_children_end_at_once_fails_what_waits(void **unused)
{
    (void)unused;
    sources.mode = CHILD_ENDS;
    given_a_pool(1);
    const uint64_t began_at_ms = clock_ms();
    const uint64_t lease = when_it_starts("e");
    when_all_have_ended();
    then_it_failed_as(lease, FAILURE_PREPARE, "child.unfit");
    assert_non_null(strstr(ends[lease].message, "exit code 7"));
    assert_int_equal(world->start_count, 3);
    assert_true(clock_ms() - began_at_ms >= 300);
    const uint64_t next = when_it_starts("e");
    when_all_have_ended();
    then_it_failed_as(next, FAILURE_PREPARE, "child.unfit");
    assert_int_equal(world->start_count, 4);
}

static void test_the_reason_of_an_unfit_child_is_told(void **unused)
{
    (void)unused;
    sources.mode = CHILD_IS_UNFIT;
    given_a_pool(4);
    const uint64_t lease = when_it_starts("e");
    when_all_have_ended();
    then_it_failed_as(lease, FAILURE_PREPARE, "child.unfit");
    assert_string_equal(ends[lease].message, "plugin.so: no such plugin");
}

static void test_for_want_of_descriptors_attempts_fail_for_now(void **unused)
{
    (void)unused;
    struct rlimit usual;
    given_a_pool(1);
    const int next_fd = dup(STDERR_FILENO);
    close(next_fd);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
    const struct rlimit narrow = {(rlim_t)next_fd + 2, usual.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &narrow), 0);
    const uint64_t lease = when_it_starts("e");
    when_all_have_ended();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
    then_it_failed_as(lease, FAILURE_TRANSIENT, "spawn.EMFILE");
    const uint64_t next = when_it_starts("e");
    when_all_have_ended();
    then_it_ended_as(next, END_SUCCESS);
}

/* A program that forks has copies of what the pool watches. */
static void test_a_dead_child_is_not_heard_of_through_a_copy_of_its_descriptors(void **unused)
{
    (void)unused;
    given_a_pool(1);
    const uint64_t lease = when_it_starts("escape");
    when_has_started(lease);
    const pid_t copy = fork();
    if (copy == 0) {
        (void)alarm(5); /* whatever becomes of the test */
        (void)pause();
    }
    executor_kill(executor, lease);
    when_all_have_ended();
    when_time_passes_ms(200); /* what escaped holds the child's stderr, and is killed now */
    assert_int_equal(kill(copy, SIGKILL), 0);
    assert_int_equal(waitpid(copy, NULL, 0), copy);
    then_it_failed_as(lease, FAILURE_CRASH, "signal.KILL");
}

/* Dead or alive. */
static uint32_t children_count(pid_t process)
{
    char path[64];
    int child;
    uint32_t count = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", process, process);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    while (fscanf(file, "%d", &child) == 1) { /* NOLINT(cert-err34-c): the kernel wrote it */
        count++;
    }
    fclose(file);
    return count;
}

static void test_what_a_child_took_in_is_waited_for_and_its_own_left_alone(void **unused)
{
    (void)unused;
    given_a_pool(1);
    (void)when_it_starts("own");
    (void)when_it_starts("orphans 200");
    (void)when_it_starts("pid");
    when_all_have_ended();
    assert_int_equal(children_count(world->pid), 201);
    for (int i = 0; i < 30; i++) {
        (void)when_it_starts("e");
        when_time_passes_ms(100);
    }
    assert_in_range(children_count(world->pid), 1, 70);
    const uint64_t lease = when_it_starts("own");
    when_all_have_ended();
    then_it_failed_as(lease, FAILURE_PERMANENT, "own.waited");
}

static void then_what_it_puts_is_damage(const void *data, size_t size)
{
    sources.mode = CHILD_PUTS;
    given_a_pool(1);
    const uint64_t lease = start_bytes(data, size);
    when_all_have_ended();
    then_it_failed_as(lease, FAILURE_CRASH, "page.damaged");
    tear_down(NULL);
    set_up(NULL);
}

static void test_garbage_in_the_ring_is_a_crash_of_the_one_that_ran(void **unused)
{
    (void)unused;
    char garbage[4000];
    struct frame_header header = {.kind = FRAME_SUCCESS, .size = UINT32_MAX, .generation = 1};
    memset(garbage, 'x', sizeof(garbage));
    then_what_it_puts_is_damage(garbage, sizeof(garbage));
    memset(garbage, 0xff, sizeof(garbage));
    then_what_it_puts_is_damage(garbage, sizeof(garbage));
    then_what_it_puts_is_damage(&header, sizeof(header));
    header.cell = 40; /* where nothing runs */
    header.size = 0;
    then_what_it_puts_is_damage(&header, sizeof(header));
    header.cell = 0;
    header.generation = 2;
    then_what_it_puts_is_damage(&header, sizeof(header));
    header.generation = 1; /* the right one, but no report follows */
    then_what_it_puts_is_damage(&header, sizeof(header));
    header.kind = FRAME_KIND_COUNT;
    then_what_it_puts_is_damage(&header, sizeof(header));
}

static void test_what_runs_fails_and_what_waits_returns_when_the_zygote_dies(void **unused)
{
    (void)unused;
    given_a_pool(1);
    const uint64_t running = when_it_starts("sleep 60000");
    when_has_started(running);
    const uint64_t waiting = when_it_starts("e");
    assert_int_equal(kill(zygote_pid(zygote), SIGKILL), 0);
    when_all_have_ended();
    then_it_failed_as(running, FAILURE_CRASH, "zygote.gone");
    then_it_ended_as(waiting, END_RETURNED);
    assert_int_equal(executor_room(executor), 0);
    const uint64_t late = when_it_starts("e");
    when_all_have_ended();
    then_it_ended_as(late, END_RETURNED);
}

static void test_destroying_ends_what_runs_and_tells_nobody(void **unused)
{
    (void)unused;
    given_a_pool(2);
    (void)when_it_starts("pid");
    when_all_have_ended();
    const uint64_t lease = when_it_starts("sleep 60000");
    (void)when_it_starts("sleep 60000");
    (void)when_it_starts("e");
    when_has_started(lease);
    const uint64_t began_at_ms = clock_ms();
    executor_destroy(&executor);
    assert_true(clock_ms() - began_at_ms < 500);
    assert_int_equal(end_count, 1);
    for (int i = 0; i < 1000 && kill(world->pid, 0) == 0; i++) {
        (void)usleep(1000);
    }
    assert_int_equal(kill(world->pid, 0), -1);
}

static void test_threads_run_at_the_same_time_in_one_process(void **unused)
{
    (void)unused;
    given_threads(4);
    for (int i = 0; i < 4; i++) {
        (void)when_it_starts("until");
    }
    for (uint64_t i = 0; i < 4; i++) {
        when_has_started(i); /* though none has ended */
    }
    for (uint64_t i = 0; i < 4; i++) {
        when_it_is_cancelled(i);
    }
    when_all_have_ended();
    assert_int_equal(world->start_count, 1);
}

static void test_a_thousand_short_ones_go_through_threads(void **unused)
{
    (void)unused;
    given_threads(3);
    while (end_count < 2000) {
        while (attempt_count < 2000 && attempt_count - end_count < executor_room(executor)) {
            (void)when_it_starts("e of a thousand");
        }
        (void)round_within(1000);
    }
    for (uint32_t i = 0; i < attempt_count; i++) {
        then_it_ended_as(i, END_SUCCESS);
    }
}

static void test_a_crash_of_a_thread_is_charged_to_its_attempt_and_others_return(void **unused)
{
    (void)unused;
    given_threads(3);
    const uint64_t others[] = {when_it_starts("sleep 2000"), when_it_starts("sleep 2000")};
    when_has_started(others[1]);
    const uint64_t culprit = when_it_starts("crash");
    when_all_have_ended();
    then_it_failed_as(culprit, FAILURE_CRASH, "signal.ABRT");
    then_it_ended_as(others[0], END_RETURNED);
    then_it_ended_as(others[1], END_RETURNED);
    const uint64_t next = when_it_starts("e");
    when_all_have_ended();
    then_it_ended_as(next, END_SUCCESS);
}

static void test_a_killed_thread_takes_its_process_with_it_and_others_return(void **unused)
{
    (void)unused;
    given_threads(2);
    const uint64_t other = when_it_starts("sleep 2000");
    const uint64_t lease = when_it_starts("sleep 60000");
    when_has_started(other);
    when_has_started(lease);
    executor_kill(executor, lease);
    when_all_have_ended();
    then_it_failed_as(lease, FAILURE_CRASH, "signal.KILL");
    then_it_ended_as(other, END_RETURNED);
}

#define STORM_COUNT 1200

/* A random word about one of those that were started last. */
static void say_something_about(uint64_t lease, uint64_t what)
{
    if (ends[lease].kind != END_NONE) {
        return;
    }
    if (what == 0 && executor_recall(executor, lease)) {
        assert_false(ends[lease].is_started);
        (void)end_of(lease, END_RETURNED);
    } else if (what == 1 && ends[lease].is_started) {
        executor_kill(executor, lease);
    } else if (what == 2) {
        executor_cancel(executor, lease);
    }
}

/* They would run for ever. */
static void cancel_those_that_wait_for_it(void)
{
    for (uint64_t i = 0; i < attempt_count; i++) {
        if (ends[i].kind == END_NONE && ends[i].is_started && bodies[i][0] == 'u') {
            executor_cancel(executor, i);
        }
    }
}

/* Attempts of all sorts, and random words about them. Ends are counted by end_of(), which admits
 * one for each attempt. */
static void when_a_storm_passes(uint64_t seed)
{
    static const char *const kinds[] = {"e",       "e",       "e",       "e",      "fail",
                                        "meta 0",  "sleep 1", "sleep 2", "e",      "sleep 30",
                                        "huge 9",  "raise 6", "exit 1",  "until",  "huge 300000",
                                        "sleep 0", "e",       "e",       "sleep 0"};
    const uint64_t until_ms = clock_ms() + 40000;
    struct prng prng;
    prng_seed(&prng, seed);
    while (end_count < STORM_COUNT) {
        assert_true(clock_ms() < until_ms);
        while (attempt_count < STORM_COUNT && attempt_count - end_count < executor_room(executor)) {
            (void)when_it_starts(kinds[prng_below(&prng, sizeof(kinds) / sizeof(kinds[0]))]);
        }
        (void)round_within(20);
        const uint64_t last_count = attempt_count < 20 ? attempt_count : 20;
        say_something_about(attempt_count - 1 - prng_below(&prng, last_count),
                            prng_below(&prng, 8));
        cancel_those_that_wait_for_it();
    }
    when_time_passes_ms(50); /* for ends that are told twice */
    assert_int_equal(end_count, STORM_COUNT);
}

static void test_in_a_storm_every_attempt_ends_once(void **unused)
{
    (void)unused;
    given_a_pool(3);
    when_a_storm_passes(1);
    for (uint32_t i = 0; i < attempt_count; i++) {
        /* nobody fails for another's crash */
        if (ends[i].kind == END_FAILURE && ends[i].failure_kind == FAILURE_CRASH) {
            const bool is_own =
                strcmp(bodies[i], "raise 6") == 0 || strcmp(bodies[i], "exit 1") == 0;
            assert_true(is_own || strcmp(ends[i].name, "signal.KILL") == 0);
        }
    }
}

static void test_in_a_storm_every_attempt_of_a_thread_ends_once(void **unused)
{
    (void)unused;
    given_threads(3);
    when_a_storm_passes(2);
}

int main(void)
{
    world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (world == MAP_FAILED || signal(SIGPIPE, SIG_IGN) == SIG_ERR) {
        return 1;
    }
#define SENTENCE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SENTENCE(test_results_come_back),
        SENTENCE(test_attempts_spread_over_the_slots),
        SENTENCE(test_children_are_started_only_when_there_is_work_for_them),
        SENTENCE(test_the_room_follows_the_measured_time),
        SENTENCE(test_a_thousand_short_ones_go_through),
        SENTENCE(test_large_bodies_go_both_ways),
        SENTENCE(test_a_result_over_the_limit_fails_and_the_next_is_fine),
        SENTENCE(test_a_child_that_does_not_keep_to_the_limit_is_read_past_it),
        SENTENCE(test_a_long_start_is_told_while_it_runs),
        SENTENCE(test_nobody_wakes_up_while_a_long_one_runs_or_nothing_does),
        SENTENCE(test_what_waits_behind_a_long_one_is_run_elsewhere),
        SENTENCE(test_what_is_written_in_part_behind_a_long_one_is_run_elsewhere),
        SENTENCE(test_what_is_written_in_part_can_be_recalled),
        SENTENCE(test_progress_brings_meta_and_tells_the_start),
        SENTENCE(test_what_waits_can_be_recalled_and_what_runs_cannot),
        SENTENCE(test_cancel_reaches_the_handler),
        SENTENCE(test_kill_ends_what_does_not_listen_and_nobody_else_is_charged),
        SENTENCE(test_a_crash_is_charged_to_the_one_that_ran),
        SENTENCE(test_ten_crashes_among_many_hurt_nobody_else),
        SENTENCE(test_exit_in_a_handler_is_a_crash_that_names_the_code),
        SENTENCE(test_a_crash_tells_which_address_could_not_be_touched),
#if !IS_SANITIZED
        SENTENCE(test_a_crash_for_want_of_memory_names_the_limit),
#endif
        SENTENCE(test_a_child_that_dies_while_idle_is_replaced),
        SENTENCE(test_a_pool_whose_children_end_at_once_fails_what_waits),
        SENTENCE(test_the_reason_of_an_unfit_child_is_told),
        SENTENCE(test_for_want_of_descriptors_attempts_fail_for_now),
        SENTENCE(test_what_a_child_took_in_is_waited_for_and_its_own_left_alone),
        SENTENCE(test_a_dead_child_is_not_heard_of_through_a_copy_of_its_descriptors),
        SENTENCE(test_garbage_in_the_ring_is_a_crash_of_the_one_that_ran),
        SENTENCE(test_what_runs_fails_and_what_waits_returns_when_the_zygote_dies),
        SENTENCE(test_destroying_ends_what_runs_and_tells_nobody),
        SENTENCE(test_threads_run_at_the_same_time_in_one_process),
        SENTENCE(test_a_thousand_short_ones_go_through_threads),
        SENTENCE(test_a_crash_of_a_thread_is_charged_to_its_attempt_and_others_return),
        SENTENCE(test_a_killed_thread_takes_its_process_with_it_and_others_return),
        SENTENCE(test_in_a_storm_every_attempt_ends_once),
        SENTENCE(test_in_a_storm_every_attempt_of_a_thread_ends_once),
    };
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
