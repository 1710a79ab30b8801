/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A plugin whose handler decides itself whether, and when, a failed attempt is repeated. It stands
 * for a call of some service on the net that says "come back in N ms", or that what was asked for
 * is gone for good. The body says what that service would answer:
 *
 *     treadle work --plugin retry_choice.so
 *     treadle run quota.call '2 300'    refuses twice, each time for 300 ms, then succeeds
 *     treadle run quota.call 'gone'     fails at the first attempt and is not repeated
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <treadle/worker.h>

/* Two numbers, and nothing else. */
static int parse(const char *text, unsigned long *refuse_count, unsigned long *delay_ms)
{
    char *end = NULL;
    *refuse_count = strtoul(text, &end, 10);
    if (end == text || *end != ' ') {
        return 0;
    }
    text = end + 1;
    *delay_ms = strtoul(text, &end, 10);
    return end != text && *end == '\0';
}

/* Meta stays with the task over its attempts: here, how often it was refused. */
static unsigned long refused_before(const struct treadle_attempt *attempt)
{
    for (size_t i = 0; i < attempt->meta_count; i++) {
        const struct treadle_meta *meta = &attempt->meta[i];
        char text[16] = "";
        if (strcmp(meta->name, "refused") == 0 && meta->value_size < sizeof(text)) {
            memcpy(text, meta->value, meta->value_size);
            return strtoul(text, NULL, 10);
        }
    }
    return 0;
}

static enum treadle_end call(treadle_context *context, const struct treadle_attempt *attempt)
{
    char text[64] = "";
    unsigned long refuse_count = 0;
    unsigned long delay_ms = 0;
    if (attempt->body_size > 0 && attempt->body_size < sizeof(text)) {
        memcpy(text, attempt->body, attempt->body_size);
    }
    if (strcmp(text, "gone") == 0) {
        treadle_context_retry_stop(context);
        return treadle_context_fail(context, TREADLE_END_TRANSIENT, "quota.gone",
                                    "what was asked for is gone");
    }
    if (!parse(text, &refuse_count, &delay_ms)) {
        return treadle_context_fail(context, TREADLE_END_PERMANENT, "quota.body",
                                    "the body is to be 'gone' or two numbers");
    }
    const unsigned long refused_count = refused_before(attempt);
    if (refused_count < refuse_count) {
        const int size = snprintf(text, sizeof(text), "%lu", refused_count + 1);
        if (treadle_context_set_meta(context, "refused", text, (size_t)size) != TREADLE_OK) {
            return treadle_context_fail(context, TREADLE_END_TRANSIENT, "memory", "no memory");
        }
        treadle_context_retry_after(context, delay_ms);
        return treadle_context_fail(context, TREADLE_END_TRANSIENT, "quota.busy",
                                    "refused for %lu ms", delay_ms);
    }
    const int size = snprintf(text, sizeof(text), "served after %lu refusals", refused_count);
    return treadle_context_result(context, text, (size_t)size);
}

static const struct treadle_policy policy = {
    .size = sizeof(struct treadle_policy),
    .attempts_max = 10,
};

static const struct treadle_handler handler = {
    .size = sizeof(struct treadle_handler),
    .name = "quota.call",
    .run = call,
    .is_thread_safe = 1,
    .policy = &policy,
};

static const struct treadle_plugin plugin = {
    .size = sizeof(struct treadle_plugin),
    .abi_version = TREADLE_PLUGIN_ABI,
    .handlers = &handler,
    .handler_count = 1,
};

const struct treadle_plugin *treadle_plugin(void)
{
    return &plugin;
}
