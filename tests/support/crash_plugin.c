/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A plugin whose handlers die, hang and misbehave in every way that a worker must outlive. Set
 * TREADLE_TEST_PLUGIN to have the plugin itself be wrong: see `modes` below.
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include <treadle/worker.h>

#define MEMORY_STEP_SIZE 1048576U
#define MEMORY_STEP_MAX  4096 /* a worker without a limit is not to take the whole machine */

static void sleep_ms(unsigned long span_ms)
{
    struct timespec span = {
        .tv_sec = (time_t)(span_ms / 1000),
        .tv_nsec = (long)(span_ms % 1000) * 1000000,
    };
    while (nanosleep(&span, &span) != 0) {
    }
}

/* The body as a text. */
static const char *body_text(const struct treadle_attempt *attempt, char text[256])
{
    const size_t size = attempt->body_size < 255 ? attempt->body_size : 255;
    if (size > 0) {
        memcpy(text, attempt->body, size);
    }
    text[size] = '\0';
    return text;
}

/* crash.ok: the result is the body. */
static enum treadle_end run_ok(treadle_context *context, const struct treadle_attempt *attempt)
{
    return treadle_context_result(context, attempt->body, attempt->body_size);
}

/* crash.segv: writes to address 16. */
static enum treadle_end run_segv(treadle_context *context, const struct treadle_attempt *attempt)
{
    (void)context;
    (void)attempt;
    volatile uintptr_t address = 16;
    *(volatile char *)address = 1; /* NOLINT(performance-no-int-to-ptr): that is the point */
    return TREADLE_END_SUCCESS;
}

/* crash.abort: says why, as assert() does. */
static enum treadle_end run_abort(treadle_context *context, const struct treadle_attempt *attempt)
{
    (void)context;
    (void)attempt;
    (void)fputs("crash_plugin: this cannot be\n", stderr);
    abort();
}

/* crash.overflow: the stack has no more room. */
static enum treadle_end run_overflow(treadle_context *context,
                                     const struct treadle_attempt *attempt)
{
    (void)context;
    (void)attempt;
    for (;;) {
        volatile char *room = alloca(4096);
        room[0] = 1;
    }
    return TREADLE_END_SUCCESS;
}

/* crash.wild: calls what is no code. */
static enum treadle_end run_wild(treadle_context *context, const struct treadle_attempt *attempt)
{
    volatile uintptr_t address = 0x5bad000;
    treadle_handler_run *wild = NULL;
    const uintptr_t copy = address;
    memcpy(&wild, &copy, sizeof(wild));
    const enum treadle_end end = wild(context, attempt);
    (void)treadle_context_progress(context); /* not a tail call: there is a return address */
    return end;
}

/* crash.memory: takes memory until there is none, and then does what C++ does. */
static enum treadle_end run_memory(treadle_context *context, const struct treadle_attempt *attempt)
{
    (void)attempt;
    for (int i = 0; i < MEMORY_STEP_MAX; i++) {
        char *room = malloc(MEMORY_STEP_SIZE);
        if (room == NULL) {
            (void)fputs("crash_plugin: out of memory\n", stderr);
            abort();
        }
        memset(room, i, MEMORY_STEP_SIZE);
        if (room[i] != (char)i) {
            abort();
        }
    }
    return treadle_context_fail(context, TREADLE_END_PERMANENT, "memory.unlimited",
                                "got 4 GiB without meeting a limit");
}

/* crash.exit: ends the process, with the body as its status. */
static enum treadle_end run_exit(treadle_context *context, const struct treadle_attempt *attempt)
{
    char text[256];
    (void)context;
    _exit((int)strtol(body_text(attempt, text), NULL, 10));
}

/* crash.hang: heeds nothing. */
static enum treadle_end run_hang(treadle_context *context, const struct treadle_attempt *attempt)
{
    (void)context;
    (void)attempt;
    (void)signal(SIGTERM, SIG_IGN);
    for (;;) {
        sleep_ms(1000);
    }
    return TREADLE_END_SUCCESS;
}

/* crash.fork: leaves a process of its own session behind, whose number it writes to the file that
 * the body names, and hangs. */
static enum treadle_end run_fork(treadle_context *context, const struct treadle_attempt *attempt)
{
    char text[256];
    const pid_t pid = fork();
    if (pid == 0) {
        (void)setsid();
        (void)signal(SIGTERM, SIG_IGN);
        sleep_ms(600000);
        _exit(0);
    }
    FILE *file = fopen(body_text(attempt, text), "we");
    if (pid == -1 || file == NULL || fprintf(file, "%ld\n", (long)pid) < 0 || fclose(file) != 0) {
        return treadle_context_fail(context, TREADLE_END_PERMANENT, "crash.fork", "no process");
    }
    return run_hang(context, attempt);
}

/* crash.copy: forks, and returns in both processes. */
static enum treadle_end run_copy(treadle_context *context, const struct treadle_attempt *attempt)
{
    (void)attempt;
    const pid_t pid = fork();
    if (pid == 0) {
        treadle_context_progress(context);
        return treadle_context_result(context, "copy", 4);
    }
    sleep_ms(100);
    return treadle_context_result(context, "original", 8);
}

/* crash.slow: takes as many ms as the body says, deaf to cancellation. */
static enum treadle_end run_slow(treadle_context *context, const struct treadle_attempt *attempt)
{
    char text[256];
    sleep_ms(strtoul(body_text(attempt, text), NULL, 10));
    return treadle_context_result(context, text, strlen(text));
}

/* crash.flaky: dies in as many attempts as the body says, then is well. */
static enum treadle_end run_flaky(treadle_context *context, const struct treadle_attempt *attempt)
{
    char text[256];
    if (attempt->retry_index < strtoul(body_text(attempt, text), NULL, 10)) {
        return run_segv(context, attempt);
    }
    return treadle_context_result(context, text, strlen(text));
}

/* crash.print: writes to both outputs, and ends one of the lines. */
static enum treadle_end run_print(treadle_context *context, const struct treadle_attempt *attempt)
{
    char text[256];
    (void)printf("out: %s", body_text(attempt, text));
    (void)fprintf(stderr, "err: %s\n", text);
    return treadle_context_fail(context, TREADLE_END_TRANSIENT, "crash.print", "printed");
}

/* crash.polite: ends when it is asked to, and says how. */
static enum treadle_end run_polite(treadle_context *context, const struct treadle_attempt *attempt)
{
    (void)attempt;
    while (!treadle_context_is_cancelled(context)) {
        sleep_ms(5);
        if (treadle_context_time_left_ms(context) == 0) {
            return treadle_context_fail(context, TREADLE_END_TRANSIENT, "crash.late", "no time");
        }
    }
    return treadle_context_fail(context, TREADLE_END_TRANSIENT, "crash.asked", "as you wish");
}

/* crash.chain: submits a task of its own, crash.ok with the body, and gives its result. */
static enum treadle_end run_chain(treadle_context *context, const struct treadle_attempt *attempt)
{
    treadle_client *client = treadle_context_client(context);
    struct treadle_outcome *outcome = NULL;
    const struct treadle_task task = {
        .size = sizeof(task),
        .name = "crash.ok",
        .body = attempt->body,
        .body_size = attempt->body_size,
    };
    if (client == NULL) {
        return treadle_context_fail(context, TREADLE_END_TRANSIENT, "crash.client", "%s",
                                    treadle_client_error(NULL));
    }
    if (treadle_client_run(client, &task, TREADLE_FOREVER, &outcome) != TREADLE_OK) {
        return treadle_context_fail(context, TREADLE_END_TRANSIENT, "crash.client", "%s",
                                    treadle_client_error(client));
    }
    const enum treadle_end end =
        outcome->state == TREADLE_TASK_SUCCEEDED
            ? treadle_context_result(context, outcome->body, outcome->body_size)
            : treadle_context_fail(context, TREADLE_END_TRANSIENT, outcome->error_name, "%s",
                                   outcome->error_message);
    treadle_outcome_free(&outcome);
    return end;
}

#define HANDLER(handler_name, function, is_safe)                                                   \
    {                                                                                              \
        .size = sizeof(struct treadle_handler), .name = (handler_name), .run = (function),         \
        .is_thread_safe = (is_safe)                                                                \
    }

static const struct treadle_policy policy = {
    .size = sizeof(struct treadle_policy),
    .attempts_max = 7,
    .timeout_ms = 90000,
    .grace_ms = 500,
    .crash_limit = 3,
};

static const char *const filters[] = {"db.*", "no.luck"};

static struct treadle_handler handlers[] = {
    {
        .size = sizeof(struct treadle_handler),
        .name = "crash.ok",
        .run = run_ok,
        .is_thread_safe = 1,
        .policy = &policy,
        .dont_retry_on = filters,
        .dont_retry_on_count = 2,
    },
    HANDLER("crash.segv", run_segv, 1),
    HANDLER("crash.abort", run_abort, 0),
    HANDLER("crash.overflow", run_overflow, 1),
    HANDLER("crash.wild", run_wild, 0),
    HANDLER("crash.memory", run_memory, 0),
    HANDLER("crash.exit", run_exit, 0),
    HANDLER("crash.hang", run_hang, 0),
    HANDLER("crash.fork", run_fork, 0),
    HANDLER("crash.copy", run_copy, 0),
    HANDLER("crash.slow", run_slow, 1),
    HANDLER("crash.flaky", run_flaky, 0),
    HANDLER("crash.print", run_print, 0),
    HANDLER("crash.polite", run_polite, 1),
    HANDLER("crash.chain", run_chain, 1),
};

static int start(char *error, size_t error_size)
{
    const char *mode = getenv("TREADLE_TEST_PLUGIN"); /* NOLINT(concurrency-mt-unsafe) */
    if (mode != NULL && strcmp(mode, "start") == 0) {
        (void)snprintf(error, error_size, "the database is away");
        return -1;
    }
    return 0;
}

static void stop(void)
{
    (void)fputs("crash_plugin: stopped\n", stderr);
}

static struct treadle_plugin plugin = {
    .size = sizeof(struct treadle_plugin),
    .abi_version = TREADLE_PLUGIN_ABI,
    .handlers = handlers,
    .handler_count = sizeof(handlers) / sizeof(handlers[0]),
    .start = start,
    .stop = stop,
};

/* ---- ways to be wrong ---- */

static void be_of_another_abi(void)
{
    plugin.abi_version = 99;
}

static void be_without_size(void)
{
    plugin.size = 0;
}

static void be_without_handlers(void)
{
    plugin.handler_count = 0;
}

static void be_badly_named(void)
{
    handlers[1].name = "no dot\n";
}

static void be_double(void)
{
    handlers[1].name = handlers[0].name;
}

static void be_without_function(void)
{
    handlers[1].run = NULL;
}

static void be_mixed_in_size(void)
{
    handlers[2].size = 8;
}

static void be_out_of_range(void)
{
    static const struct treadle_policy wrong = {
        .size = sizeof(struct treadle_policy),
        .attempts_max = 1001,
    };
    handlers[1].policy = &wrong;
}

static void be_gone(void)
{
    (void)syscall(SYS_exit_group, 3); /* a sanitizer would have its say in _exit() */
}

static void be_dead(void)
{
    (void)run_segv(NULL, NULL);
}

static void be_nothing(void)
{
}

static const struct {
    const char *name;
    void (*become)(void);
} modes[] = {
    {"abi", be_of_another_abi},  {"size", be_without_size},   {"empty", be_without_handlers},
    {"name", be_badly_named},    {"double", be_double},       {"function", be_without_function},
    {"sizes", be_mixed_in_size}, {"policy", be_out_of_range}, {"exit", be_gone},
    {"crash", be_dead},          {"start", be_nothing},
};

/* Before anybody has asked for anything. */
__attribute__((constructor)) static void become_wrong(void)
{
    const char *mode = getenv("TREADLE_TEST_PLUGIN"); /* NOLINT(concurrency-mt-unsafe) */
    for (size_t i = 0; mode != NULL && i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(mode, modes[i].name) == 0) {
            modes[i].become();
        }
    }
}

const struct treadle_plugin *treadle_plugin(void)
{
    return &plugin;
}
