/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/shell/misuse.h"

bool misuse_may_log(struct misuse *misuse, uint64_t now_ms)
{
    if (misuse->logged_at_ms != 0 && now_ms + 1 < misuse->logged_at_ms + MISUSE_LOG_SPAN_MS) {
        return false;
    }
    misuse->logged_at_ms = now_ms + 1;
    return true;
}

struct misuse_verdict misuse_on_malformed(struct misuse *misuse, uint64_t now_ms)
{
    misuse->malformed_at_ms[misuse->malformed_next] = now_ms + 1;
    misuse->malformed_next = (misuse->malformed_next + 1) % MALFORMED_COUNT_MAX;
    const uint64_t oldest = misuse->malformed_at_ms[misuse->malformed_next];
    return (struct misuse_verdict){
        .is_logged = misuse_may_log(misuse, now_ms),
        .is_cut = oldest != 0 && now_ms + 1 - oldest <= MALFORMED_SPAN_MS,
    };
}

struct misuse_verdict misuse_on_over_limit(struct misuse *misuse, uint64_t now_ms)
{
    misuse->over_limit_count++;
    return (struct misuse_verdict){
        .is_logged = misuse_may_log(misuse, now_ms),
        .is_cut = misuse->over_limit_count >= OVER_LIMIT_COUNT_MAX,
    };
}
