/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/rights.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/wire/terms.h"

static const struct bytes any = {(const uint8_t *)"*", 1};
const struct globs globs_all = {&any, 1};

/*
 * Whether the glob matches the text, or, if the text is only a beginning, a text that begins so. A
 * `*` in the text is a letter that only a `*` of the glob matches: what covers it covers whatever
 * may stand in its place.
 */
static bool glob_matches(struct bytes glob, struct bytes text, bool is_beginning)
{
    size_t at = 0;
    size_t star = glob.size; /* the last one passed, and what of the text it stands for up to */
    size_t taken = 0;
    size_t i = 0;
    while (i < text.size) {
        if (at < glob.size && glob.data[at] == '*') {
            star = at;
            taken = i;
            at++;
        } else if (at < glob.size && glob.data[at] == text.data[i]) {
            at++;
            i++;
        } else if (star < glob.size) {
            taken++;
            i = taken;
            at = star + 1;
        } else {
            return false;
        }
    }
    if (is_beginning) {
        return at < glob.size || star < glob.size;
    }
    while (at < glob.size && glob.data[at] == '*') {
        at++;
    }
    return at == glob.size;
}

static bool any_matches(const struct globs *globs, struct bytes text, bool is_beginning)
{
    for (uint32_t i = 0; globs != NULL && i < globs->count; i++) {
        if (glob_matches(globs->at[i], text, is_beginning)) {
            return true;
        }
    }
    return false;
}

bool globs_cover(const struct globs *globs, struct bytes pattern)
{
    return any_matches(globs, pattern, false);
}

static bool service_matches(const struct globs *globs, struct bytes service, struct bytes rest,
                            bool is_beginning)
{
    uint8_t text[PATTERN_SIZE_MAX];
    TREADLE_ASSERT(service.size <= NAME_SIZE_MAX);
    memcpy(text, service.data, service.size);
    memcpy(text + service.size, rest.data, rest.size);
    return any_matches(globs, (struct bytes){text, service.size + rest.size}, is_beginning);
}

bool globs_cover_service(const struct globs *globs, struct bytes service)
{
    return service_matches(globs, service, bytes_from_text(".*"), false);
}

bool globs_touch_service(const struct globs *globs, struct bytes service)
{
    return service_matches(globs, service, bytes_from_text("."), true);
}
