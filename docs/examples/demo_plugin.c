/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A plugin with two handlers:
 *
 *     cc -std=c17 -shared -fPIC -o demo_plugin.so demo_plugin.c
 *     treadle work --plugin demo_plugin.so
 *     treadle run demo.upper 'hello'                        prints HELLO
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <time.h>

#include <treadle/worker.h>

/* demo.upper: the body in upper case (ASCII; all else stays as it is). */
static enum treadle_end upper(treadle_context *context, const struct treadle_attempt *attempt)
{
    const char *body = attempt->body;
    char *result = malloc(attempt->body_size + 1);
    if (result == NULL) {
        return treadle_context_fail(context, TREADLE_END_TRANSIENT, "memory", "no memory");
    }
    for (size_t i = 0; i < attempt->body_size; i++) {
        result[i] = body[i];
        if (body[i] >= 'a' && body[i] <= 'z') {
            result[i] = (char)(body[i] - ('a' - 'A'));
        }
    }
    const enum treadle_end end = treadle_context_result(context, result, attempt->body_size);
    free(result);
    return end;
}

/* demo.sleep: sleeps for as many ms as the body says, a little at a time, so that it can end early
 * when it is asked to. */
static enum treadle_end nap(treadle_context *context, const struct treadle_attempt *attempt)
{
    char text[16] = "";
    char *end = NULL;
    if (attempt->body_size > 0 && attempt->body_size < sizeof(text)) {
        memcpy(text, attempt->body, attempt->body_size);
    }
    errno = 0;
    const long span_ms = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || span_ms < 0) {
        return treadle_context_fail(context, TREADLE_END_PERMANENT, "demo.body",
                                    "the body is to be a number of ms, and is '%.*s'",
                                    (int)(attempt->body_size < 40 ? attempt->body_size : 40),
                                    attempt->body_size > 0 ? (const char *)attempt->body : "");
    }
    for (long slept_ms = 0; slept_ms < span_ms; slept_ms += 10) {
        const struct timespec slice = {.tv_nsec = 10000000};
        if (treadle_context_is_cancelled(context)) {
            return treadle_context_fail(context, TREADLE_END_TRANSIENT, "demo.interrupted",
                                        "stopped after %ld of %ld ms", slept_ms, span_ms);
        }
        (void)thrd_sleep(&slice, NULL);
        treadle_context_progress(context);
    }
    return TREADLE_END_SUCCESS;
}

static const struct treadle_policy nap_policy = {
    .size = sizeof(struct treadle_policy),
    .timeout_ms = 60000,
    .progress_timeout_ms = 5000,
};

static const struct treadle_handler handlers[] = {
    {
        .size = sizeof(struct treadle_handler),
        .name = "demo.upper",
        .run = upper,
        .is_thread_safe = 1,
    },
    {
        .size = sizeof(struct treadle_handler),
        .name = "demo.sleep",
        .run = nap,
        .is_thread_safe = 1,
        .policy = &nap_policy,
    },
};

static const struct treadle_plugin plugin = {
    .size = sizeof(struct treadle_plugin),
    .abi_version = TREADLE_PLUGIN_ABI,
    .handlers = handlers,
    .handler_count = sizeof(handlers) / sizeof(handlers[0]),
};

const struct treadle_plugin *treadle_plugin(void)
{
    return &plugin;
}
