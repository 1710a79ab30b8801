/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/notify.h"

#include <inttypes.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "common/base/span.h"

#define USEC_PER_MS 1000U

void notify_init(struct notify *notify, uint64_t monotonic_ms)
{
    uint64_t span_usec = 0;
    *notify = (struct notify){.beat_at_ms = UINT64_MAX};
    if (sd_watchdog_enabled(0, &span_usec) > 0) {
        const uint64_t half_ms = span_usec / 2 / USEC_PER_MS;
        notify->beat_ms = half_ms > 0 ? half_ms : 1;
        notify->beat_at_ms = monotonic_ms + notify->beat_ms;
    }
}

void notify_ready(const char *endpoint)
{
    (void)sd_notifyf(0, "READY=1\nSTATUS=Serving at %s", endpoint);
}

void notify_reloading(void)
{
    struct timespec now = {0, 0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    (void)sd_notifyf(
        0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=Reading the configuration again",
        (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
}

void notify_stopping(uint32_t task_count, uint64_t drain_ms)
{
    char span[SPAN_TEXT_SIZE];
    (void)span_print(span, sizeof span, drain_ms);
    (void)sd_notifyf(0, "STOPPING=1\nSTATUS=Ends when %" PRIu32 " task%s settled, or after %s",
                     task_count, task_count == 1 ? " has" : "s have", span);
}

void notify_beat(struct notify *notify, uint64_t monotonic_ms)
{
    if (monotonic_ms >= notify->beat_at_ms) {
        notify->beat_at_ms = monotonic_ms + notify->beat_ms;
        (void)sd_notify(0, "WATCHDOG=1");
    }
}
