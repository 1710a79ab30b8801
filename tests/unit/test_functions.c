/* SPDX-License-Identifier: MPL-2.0 */
/* The child's side of the pool: what is in a plugin, and what a child leaves when it dies. */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "worker/exec/functions.h"
#include "worker/exec/handoff.h"
#include "worker/exec/page.h"

#define PATIENCE_MS 20000
#define CELL_COUNT  8

static const char *const crash_plugin[] = {CRASH_PLUGIN};

static enum treadle_end do_nothing(treadle_context *context, const struct treadle_attempt *attempt)
{
    (void)context;
    (void)attempt;
    return TREADLE_END_SUCCESS;
}

/* ---- lists ---- */

/* How the plugin is to be wrong; NULL: not at all. Tests have one thread. */
static void set_mode(const char *mode)
{
    /* NOLINTBEGIN(concurrency-mt-unsafe) */
    const int result =
        mode == NULL ? unsetenv("TREADLE_TEST_PLUGIN") : setenv("TREADLE_TEST_PLUGIN", mode, 1);
    /* NOLINTEND(concurrency-mt-unsafe) */
    assert_int_equal(result, 0);
}

static enum treadle_status status;
static struct function_list list;
static char text[FUNCTION_TEXT_SIZE];

static void when_sources_are_listed(const struct function_sources *sources)
{
    struct zygote *zygote = NULL;
    struct function_sources copy = *sources;
    const struct zygote_config config = {
        .child_main = pool_child_main,
        .child_context = &copy,
    };
    assert_int_equal(zygote_open(&zygote, &config), TREADLE_OK);
    struct runs *runs = runs_create(zygote);
    assert_non_null(runs);
    status = function_list_open(&list, runs, text);
    runs_destroy(&runs);
    zygote_close(&zygote);
}

static void when_a_plugin_is_listed(const char *file, const char *mode)
{
    const struct function_sources sources = {.plugins = &file, .plugin_count = 1, .worker = "w"};
    set_mode(mode);
    when_sources_are_listed(&sources);
    set_mode(NULL);
}

static void then_it_is_refused_with(const char *words)
{
    assert_int_equal(status, TREADLE_E_INVALID);
    if (strstr(text, words) == NULL) {
        fail_msg("'%s' does not say '%s'", text, words);
    }
}

static void test_the_list_of_a_plugin_has_its_handlers_and_their_policies(void **state)
{
    (void)state;
    const struct treadle_handler own[] = {
        {.size = sizeof(own[0]), .name = "own.first", .run = do_nothing, .is_thread_safe = 1},
        {.size = sizeof(own[0]), .name = "own.*", .run = do_nothing},
    };
    const struct function_sources sources = {
        .handlers = own,
        .handler_count = 2,
        .plugins = crash_plugin,
        .plugin_count = 1,
        .worker = "w",
    };
    when_sources_are_listed(&sources);
    assert_string_equal(text, "");
    assert_int_equal(status, TREADLE_OK);
    assert_int_equal(list.handler_count, 17);
    for (size_t i = 0; i < list.handler_count; i++) {
        assert_int_equal(list.handlers[i].kind, HANDLER_FUNCTION);
        assert_int_equal(list.handlers[i].index, i);
    }
    assert_string_equal(list.handlers[0].pattern, "own.first");
    assert_true(list.handlers[0].is_thread_safe);
    assert_string_equal(list.handlers[1].pattern, "own.*");
    assert_false(list.handlers[1].is_thread_safe);
    assert_string_equal(list.handlers[2].pattern, "crash.ok");
    assert_int_equal(list.handlers[2].task_policy.attempts_max, 7);
    assert_int_equal(list.handlers[2].task_policy.grace_ms, 500);
    assert_int_equal(list.handlers[2].task_policy.crash_limit, 3);
    assert_int_equal(list.handlers[3].task_policy.attempts_max, 0);
    assert_string_equal(list.handlers[16].pattern, "crash.chain");
    function_list_reset(&list);
}

static void test_a_plugin_that_is_wrong_is_refused_in_words(void **state)
{
    (void)state;
    static const struct {
        const char *mode;
        const char *words;
    } cases[] = {
        {"abi", ": is built for version 99 of the plugin interface, this is version 1; rebuild it"},
        {"size", ": does not say its size; set it to sizeof(struct treadle_plugin)"},
        {"empty", ": has no handlers"},
        {"name", ": handler \"no dot\\n\": a name is SERVICE.TASK or SERVICE.*"},
        {"double", ": handler crash.ok is there already, of "},
        {"function", ": handler crash.segv has no function; set its field run"},
        {"sizes", ": handler number 3 does not say its size"},
        {"policy", ": handler crash.segv: its policy is out of range"},
        {"exit", ": ended its process while it was opened, with exit status 3"},
        {"crash", ": crashed while it was opened: signal SEGV"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        when_a_plugin_is_listed(CRASH_PLUGIN, cases[i].mode);
        then_it_is_refused_with("plugin " CRASH_PLUGIN);
        then_it_is_refused_with(cases[i].words);
    }
}

static void test_what_is_no_plugin_is_refused_in_words(void **state)
{
    (void)state;
    char file[] = "/tmp/treadle_test_plugin.XXXXXX";
    const int fd = mkstemp(file);
    assert_int_not_equal(fd, -1);
    assert_int_equal(write(fd, "#!/bin/sh\necho this is a script, and no library at all\n", 55),
                     55);
    close(fd);
    when_a_plugin_is_listed(file, NULL);
    then_it_is_refused_with("does not load: ");
    then_it_is_refused_with("cc -shared -fPIC");
    assert_int_equal(unlink(file), 0);
    when_a_plugin_is_listed(file, NULL);
    then_it_is_refused_with("No such file or directory; give the path of a shared library");
    when_a_plugin_is_listed("/tmp", NULL);
    then_it_is_refused_with("plugin /tmp: is not a file");
    when_a_plugin_is_listed(NO_PLUGIN, NULL);
    then_it_is_refused_with("is no plugin: it does not export treadle_plugin()");
    when_a_plugin_is_listed("libm.so.6", NULL); /* not one that only the search path would find */
    then_it_is_refused_with("plugin libm.so.6: No such file or directory");
}

static void test_handlers_of_two_origins_with_one_name_are_refused(void **state)
{
    (void)state;
    const struct treadle_handler own = {.size = sizeof(own), .name = "crash.ok", .run = do_nothing};
    const struct function_sources sources = {
        .handlers = &own,
        .handler_count = 1,
        .plugins = crash_plugin,
        .plugin_count = 1,
        .worker = "w",
    };
    const struct treadle_handler nameless = {.size = sizeof(own), .run = do_nothing};
    const struct function_sources wrong = {
        .handlers = &nameless,
        .handler_count = 1,
        .worker = "w",
    };
    when_sources_are_listed(&sources);
    then_it_is_refused_with("plugin " CRASH_PLUGIN ": handler crash.ok is there already, of the "
                            "program");
    when_sources_are_listed(&wrong);
    then_it_is_refused_with("handler (no name): a name is SERVICE.TASK");
}

/* ---- a child ---- */

static struct {
    pid_t pid;
    struct page *page;
    int event_fd;
    int stream_fd;
    int stderr_fd;
    uint32_t next_cell;
    uint8_t unread[PAGE_RING_SIZE];
    size_t unread_size;
    uint8_t frame[PAGE_RING_SIZE]; /* the last one read */
    struct frame_header header;
    struct report report;
    struct handoff_meta items[META_COUNT_MAX];
    char said[65536]; /* on stdout and stderr */
    size_t said_size;
    int wait_state;
} child;

static const struct treadle_handler nothing_handler = {
    .size = sizeof(struct treadle_handler),
    .name = "nothing.nothing",
    .run = do_nothing,
};
static const struct function_sources child_sources = {
    .handlers = &nothing_handler,
    .handler_count = 1,
    .plugins = crash_plugin,
    .plugin_count = 1,
    .worker = "w",
};

static _Noreturn void be_the_child(uint32_t index, const int fds[4], uint64_t memory_max)
{
    const struct zygote_child given = {
        .index = index,
        .fds = {fds[0], fds[1], fds[2], fds[3]},
        .fd_count = 4,
    };
    struct function_sources sources = child_sources;
    const struct rlimit no_core = {0};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    if (memory_max != 0) {
        const struct rlimit limit = {.rlim_cur = memory_max, .rlim_max = memory_max};
        (void)setrlimit(RLIMIT_DATA, &limit);
    }
    _exit(pool_child_main(&sources, &given));
}

static void given_a_child(uint32_t index, uint64_t memory_max)
{
    int stream[2];
    int output[2];
    memset(&child, 0, sizeof(child));
    child.page = page_create(CELL_COUNT);
    assert_non_null(child.page);
    child.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_not_equal(child.event_fd, -1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream), 0);
    assert_int_equal(pipe2(output, O_CLOEXEC), 0);
    child.pid = fork();
    assert_int_not_equal(child.pid, -1);
    if (child.pid == 0) {
        const int fds[] = {stream[1], page_fd(child.page), child.event_fd, output[1]};
        close(stream[0]);
        close(output[0]);
        be_the_child(index, fds, memory_max);
    }
    close(stream[1]);
    close(output[1]);
    child.stream_fd = stream[0];
    child.stderr_fd = output[0];
    assert_int_equal(fcntl(child.stderr_fd, F_SETFL, O_NONBLOCK), 0);
}

static void listen_to_it(void)
{
    for (;;) {
        const ssize_t size = read(child.stderr_fd, child.said + child.said_size,
                                  sizeof(child.said) - 1 - child.said_size);
        if (size <= 0) {
            return;
        }
        child.said_size += (size_t)size;
    }
}

/* The next frame; false when the child has died first. */
static bool next_frame(void)
{
    for (int waited_ms = 0; waited_ms < PATIENCE_MS; waited_ms += 20) {
        child.unread_size += page_read(child.page, child.unread + child.unread_size,
                                       sizeof(child.unread) - child.unread_size);
        listen_to_it();
        if (child.unread_size >= sizeof(child.header)) {
            memcpy(&child.header, child.unread, sizeof(child.header));
            const size_t size = sizeof(child.header) + child.header.size;
            if (child.unread_size >= size) {
                memcpy(child.frame, child.unread + sizeof(child.header), child.header.size);
                child.unread_size -= size;
                memmove(child.unread, child.unread + size, child.unread_size);
                return true;
            }
        }
        if (page_before_wait(child.page, 1)) {
            struct pollfd polled[] = {
                {.fd = child.event_fd, .events = POLLIN},
                {.fd = child.stderr_fd, .events = POLLIN},
            };
            uint64_t count = 0;
            (void)poll(polled, 2, 20);
            (void)!read(child.event_fd, &count, sizeof(count));
            if ((polled[1].revents & POLLHUP) != 0 && page_is_empty(child.page)) {
                return false;
            }
        }
    }
    fail_msg("the child says nothing");
    return false;
}

static void then_it_says(enum frame_kind kind)
{
    assert_true(next_frame());
    assert_int_equal(child.header.kind, kind);
    if (kind == FRAME_SUCCESS || kind == FRAME_FAILURE || kind == FRAME_PROGRESS) {
        assert_true(report_read(&child.report, kind, (struct bytes){child.frame, child.header.size},
                                child.items));
        if (kind != FRAME_PROGRESS) {
            assert_int_equal(page_state(child.page, child.header.cell), CELL_RUNNING);
            page_free(child.page, child.header.cell);
        }
    }
}

#define then_text_is(bytes, expected)                                                              \
    do {                                                                                           \
        assert_int_equal((bytes).size, strlen(expected));                                          \
        assert_memory_equal((bytes).data, (expected), (bytes).size);                               \
    } while (0)

static void then_it_fails_with(enum failure_kind kind, const char *name)
{
    then_it_says(FRAME_FAILURE);
    assert_int_equal(child.report.kind, kind);
    then_text_is(child.report.name, name);
}

/* Handlers of the plugin, in its order; 0 is the program's own. */
enum {
    NOTHING,
    OK,
    SEGV,
    ABORT,
    OVERFLOW,
    WILD,
    MEMORY,
    EXIT,
    HANG,
    FORK,
    COPY,
    SLOW,
    FLAKY,
    PRINT
};
#define POLITE (PRINT + 1)

static uint32_t when_it_is_handed(uint32_t handler, struct bytes body)
{
    struct handoff handoff;
    const uint32_t cell = child.next_cell++ % CELL_COUNT;
    const struct worker_attempt attempt = {
        .lease = 1 + cell,
        .service = bytes_from_text("crash"),
        .task = bytes_from_text("test"),
        .body = body,
        .dispatch = 1,
        .attempts_max = 1,
        .timeout_ms = 60000,
        .result_size_max = BODY_SIZE_LIMIT,
    };
    const uint32_t generation = page_queue(child.page, cell);
    handoff_from_attempt(&handoff, &attempt, handler, cell, generation);
    for (size_t i = 0; i < handoff.part_count; i++) {
        struct bytes part = handoff.parts[i];
        while (part.size > 0) {
            const ssize_t size = write(child.stream_fd, part.data, part.size);
            assert_true(size > 0);
            part.data += size;
            part.size -= (size_t)size;
        }
    }
    return cell;
}

static uint32_t when_it_is_told(uint32_t handler, const char *body)
{
    return when_it_is_handed(handler, bytes_from_text(body));
}

static void when_it_has_ended(void)
{
    if (child.stream_fd != -1) {
        close(child.stream_fd);
        child.stream_fd = -1;
    }
    assert_int_equal(waitpid(child.pid, &child.wait_state, 0), child.pid);
    listen_to_it();
    close(child.stderr_fd);
    close(child.event_fd);
}

static void then_it_said(const char *words)
{
    if (strstr(child.said, words) == NULL) {
        fail_msg("'%s' is not in what it said: %s", words, child.said);
    }
}

static void then_it_exited_with(int expected)
{
    assert_true(WIFEXITED(child.wait_state));
    assert_int_equal(WEXITSTATUS(child.wait_state), expected);
    assert_int_equal(page_crash(child.page).is_set, 0);
    page_close(&child.page);
}

static void test_a_child_runs_what_it_is_handed_and_leaves_in_order(void **state)
{
    (void)state;
    given_a_child(POOL_CHILD_PROCESS, 0);
    then_it_says(FRAME_READY);
    for (int i = 0; i < 100; i++) {
        char body[24];
        (void)snprintf(body, sizeof(body), "body %d", i);
        const uint32_t cell = when_it_is_told(OK, body);
        then_it_says(FRAME_SUCCESS);
        assert_int_equal(child.header.cell, cell);
        then_text_is(child.report.body, body);
        assert_false(child.report.has_meta);
    }
    for (int i = 0; i < CELL_COUNT; i++) {
        (void)when_it_is_told(NOTHING, "all at once");
    }
    for (int i = 0; i < CELL_COUNT; i++) {
        then_it_says(FRAME_SUCCESS);
        assert_int_equal(child.report.body.size, 0);
    }
    when_it_has_ended();
    then_it_said("crash_plugin: stopped\n");
    then_it_exited_with(0);
}

static void test_a_child_passes_over_what_was_taken_back(void **state)
{
    (void)state;
    given_a_child(POOL_CHILD_PROCESS, 0);
    then_it_says(FRAME_READY);
    (void)when_it_is_told(SLOW, "200");
    const uint32_t recalled = when_it_is_told(OK, "recalled");
    const uint32_t kept = when_it_is_told(OK, "kept");
    assert_true(page_recall(child.page, recalled));
    then_it_says(FRAME_SUCCESS);
    then_text_is(child.report.body, "200");
    assert_in_range(child.report.duration_us, 190000, PATIENCE_MS * 1000);
    then_it_says(FRAME_SUCCESS);
    assert_int_equal(child.header.cell, kept);
    then_text_is(child.report.body, "kept");
    when_it_has_ended();
    then_it_exited_with(0);
}

static void test_a_large_body_goes_there_and_a_small_one_after_it(void **state)
{
    (void)state;
    const size_t size = 3000000;
    uint8_t *body = malloc(size);
    assert_non_null(body);
    memset(body, 'x', size);
    given_a_child(POOL_CHILD_PROCESS, 0);
    then_it_says(FRAME_READY);
    for (int i = 0; i < 3; i++) {
        (void)when_it_is_handed(NOTHING, (struct bytes){body, size});
        then_it_says(FRAME_SUCCESS);
        (void)when_it_is_told(OK, "small");
        then_it_says(FRAME_SUCCESS);
        then_text_is(child.report.body, "small");
    }
    when_it_has_ended();
    then_it_exited_with(0);
    free(body);
}

static void test_a_handler_is_told_that_it_was_cancelled(void **state)
{
    (void)state;
    given_a_child(POOL_CHILD_PROCESS, 0);
    then_it_says(FRAME_READY);
    const uint32_t cell = when_it_is_told(POLITE, "");
    while (page_state(child.page, cell) != CELL_RUNNING) {
        (void)poll(NULL, 0, 5);
    }
    assert_int_not_equal(page_started_at_us(child.page, cell), 0);
    page_cancel(child.page, cell);
    then_it_fails_with(FAILURE_TRANSIENT, "crash.asked");
    when_it_has_ended();
    then_it_exited_with(0);
}

static void test_both_outputs_of_a_handler_come_to_the_supervisor(void **state)
{
    (void)state;
    given_a_child(POOL_CHILD_PROCESS, 0);
    then_it_says(FRAME_READY);
    (void)when_it_is_told(PRINT, "words");
    then_it_fails_with(FAILURE_TRANSIENT, "crash.print");
    then_text_is(child.report.message, "printed");
    assert_in_range(child.report.max_rss_kib, 100, 100000000);
    listen_to_it();
    then_it_said("err: words\nout: words");
    when_it_has_ended();
    then_it_exited_with(0);
}

static void test_a_copy_that_a_handler_forked_says_nothing(void **state)
{
    (void)state;
    given_a_child(POOL_CHILD_PROCESS, 0);
    then_it_says(FRAME_READY);
    (void)when_it_is_told(COPY, "");
    then_it_says(FRAME_SUCCESS);
    then_text_is(child.report.body, "original");
    (void)when_it_is_told(OK, "next");
    then_it_says(FRAME_SUCCESS);
    then_text_is(child.report.body, "next");
    when_it_has_ended();
    then_it_exited_with(0);
}

static void test_threads_run_side_by_side(void **state)
{
    (void)state;
    given_a_child(POOL_CHILD_THREADS | 3U << 8, 0);
    then_it_says(FRAME_READY);
    const uint32_t polite[] = {when_it_is_told(POLITE, ""), when_it_is_told(POLITE, "")};
    (void)when_it_is_told(OK, "past them");
    then_it_says(FRAME_SUCCESS);
    then_text_is(child.report.body, "past them");
    for (int i = 0; i < 2; i++) {
        page_cancel(child.page, polite[i]);
        then_it_fails_with(FAILURE_TRANSIENT, "crash.asked");
        assert_int_equal(child.header.cell, polite[i]);
    }
    for (int i = 0; i < CELL_COUNT; i++) {
        (void)when_it_is_told(OK, "many");
    }
    for (int i = 0; i < CELL_COUNT; i++) {
        then_it_says(FRAME_SUCCESS);
        then_text_is(child.report.body, "many");
    }
    when_it_has_ended();
    then_it_said("crash_plugin: stopped\n");
    then_it_exited_with(0);
}

static void test_a_child_whose_plugin_does_not_start_says_why(void **state)
{
    (void)state;
    set_mode("start");
    given_a_child(POOL_CHILD_PROCESS, 0);
    set_mode(NULL);
    then_it_says(FRAME_UNFIT);
    const struct bytes said = {child.frame, child.header.size};
    then_text_is(said, "plugin " CRASH_PLUGIN ": does not start: the database is away");
    when_it_has_ended();
    then_it_exited_with(1);
}

/* ---- crashes ---- */

static struct crash_record when_it_crashes(uint32_t index, uint32_t handler, int signal_number,
                                           uint64_t memory_max)
{
    given_a_child(index, memory_max);
    then_it_says(FRAME_READY);
    (void)when_it_is_told(OK, "before");
    then_it_says(FRAME_SUCCESS);
    const uint32_t cell = when_it_is_told(handler, "");
    assert_false(next_frame());
    when_it_has_ended();
    const struct crash_record record = page_crash(child.page);
    assert_int_equal(page_state(child.page, cell), CELL_RUNNING);
    assert_true(WIFSIGNALED(child.wait_state));
    assert_int_equal(WTERMSIG(child.wait_state), signal_number);
    assert_int_equal(record.is_set, 1);
    assert_int_equal(record.signal, signal_number);
    assert_int_equal(record.cell, cell);
    assert_int_not_equal(record.pc, 0);
    page_close(&child.page);
    return record;
}

static void test_a_segmentation_fault_leaves_its_address_and_a_backtrace(void **state)
{
    (void)state;
    const struct crash_record record = when_it_crashes(POOL_CHILD_PROCESS, SEGV, SIGSEGV, 0);
    assert_int_equal(record.address, 16);
    assert_int_equal(record.is_wild, 0);
    then_it_said("treadle: crash: SIGSEGV at address 0x10, pc 0x");
    then_it_said(", attempt of crash.test\n" CRASH_PLUGIN "(");
}

static void test_an_abort_leaves_its_last_words_and_a_backtrace(void **state)
{
    (void)state;
    const struct crash_record record = when_it_crashes(POOL_CHILD_PROCESS, ABORT, SIGABRT, 0);
    assert_int_equal(record.address, 0);
    assert_int_equal(record.is_wild, 0);
    then_it_said("crash_plugin: this cannot be\ntreadle: crash: SIGABRT, pc 0x");
    then_it_said("crash_plugin.so(");
}

static void test_a_stack_overflow_leaves_a_record(void **state)
{
    (void)state;
    const struct crash_record record = when_it_crashes(POOL_CHILD_PROCESS, OVERFLOW, SIGSEGV, 0);
    assert_int_not_equal(record.address, 0);
    assert_int_equal(record.is_wild, 0);
    then_it_said("treadle: crash: SIGSEGV at address 0x");
    then_it_said("crash_plugin.so(");
}

static void test_a_stack_overflow_of_a_thread_leaves_a_record(void **state)
{
    (void)state;
    (void)when_it_crashes(POOL_CHILD_THREADS | 2U << 8, OVERFLOW, SIGSEGV, 0);
    then_it_said("crash_plugin.so(");
}

static void test_a_jump_to_a_wild_address_leaves_who_jumped(void **state)
{
    (void)state;
    const struct crash_record record = when_it_crashes(POOL_CHILD_PROCESS, WILD, SIGSEGV, 0);
    assert_int_equal(record.pc, 0x5bad000);
    assert_int_equal(record.address, 0x5bad000);
    assert_int_equal(record.is_wild, 1);
    assert_int_not_equal(record.return_address, 0);
    then_it_said("pc 0x5bad000 (no code), return address 0x");
    then_it_said("crash_plugin.so(");
}

static void test_a_memory_limit_leaves_a_record(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* a sanitizer's own memory is over any limit */
#else
    (void)when_it_crashes(POOL_CHILD_PROCESS, MEMORY, SIGABRT, UINT64_C(67108864));
    then_it_said("crash_plugin: out of memory\ntreadle: crash: SIGABRT");
#endif
}

static void test_a_body_beyond_the_memory_limit_fails_alone(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* a sanitizer's own memory is over any limit */
#else
    const size_t size = 60000000;
    given_a_child(POOL_CHILD_PROCESS, UINT64_C(33554432));
    then_it_says(FRAME_READY);
    uint8_t *body = malloc(size); /* after the fork: its limit counts what it inherits */
    assert_non_null(body);
    memset(body, 'x', size);
    (void)when_it_is_handed(OK, (struct bytes){body, size});
    then_it_fails_with(FAILURE_TRANSIENT, "memory");
    (void)when_it_is_told(OK, "after it");
    then_it_says(FRAME_SUCCESS);
    then_text_is(child.report.body, "after it");
    when_it_has_ended();
    then_it_exited_with(0);
    free(body);
#endif
}

static void test_an_exit_leaves_its_status_and_the_cell_running(void **state)
{
    (void)state;
    given_a_child(POOL_CHILD_PROCESS, 0);
    then_it_says(FRAME_READY);
    (void)when_it_is_told(SLOW, "200"); /* so that all is there before the end */
    const uint32_t cell = when_it_is_told(EXIT, "7");
    const uint32_t next = when_it_is_told(OK, "");
    then_it_says(FRAME_SUCCESS);
    assert_false(next_frame());
    when_it_has_ended();
    assert_int_equal(page_state(child.page, cell), CELL_RUNNING);
    assert_int_equal(page_state(child.page, next), CELL_QUEUED);
    then_it_exited_with(7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_list_of_a_plugin_has_its_handlers_and_their_policies),
        cmocka_unit_test(test_a_plugin_that_is_wrong_is_refused_in_words),
        cmocka_unit_test(test_what_is_no_plugin_is_refused_in_words),
        cmocka_unit_test(test_handlers_of_two_origins_with_one_name_are_refused),
        cmocka_unit_test(test_a_child_runs_what_it_is_handed_and_leaves_in_order),
        cmocka_unit_test(test_a_child_passes_over_what_was_taken_back),
        cmocka_unit_test(test_a_large_body_goes_there_and_a_small_one_after_it),
        cmocka_unit_test(test_a_handler_is_told_that_it_was_cancelled),
        cmocka_unit_test(test_both_outputs_of_a_handler_come_to_the_supervisor),
        cmocka_unit_test(test_a_copy_that_a_handler_forked_says_nothing),
        cmocka_unit_test(test_threads_run_side_by_side),
        cmocka_unit_test(test_a_child_whose_plugin_does_not_start_says_why),
        cmocka_unit_test(test_a_segmentation_fault_leaves_its_address_and_a_backtrace),
        cmocka_unit_test(test_an_abort_leaves_its_last_words_and_a_backtrace),
        cmocka_unit_test(test_a_stack_overflow_leaves_a_record),
        cmocka_unit_test(test_a_stack_overflow_of_a_thread_leaves_a_record),
        cmocka_unit_test(test_a_jump_to_a_wild_address_leaves_who_jumped),
        cmocka_unit_test(test_a_memory_limit_leaves_a_record),
        cmocka_unit_test(test_a_body_beyond_the_memory_limit_fails_alone),
        cmocka_unit_test(test_an_exit_leaves_its_status_and_the_cell_running),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
