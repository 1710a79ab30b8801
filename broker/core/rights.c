/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/rights.h"

#include <string.h>

#include "common/base/assert.h"

static const struct bytes any = {(const uint8_t *)"*", 1};
const struct globs globs_all = {&any, 1};

/* A `*` in the text is a letter that only a `*` of the glob matches: what covers it covers whatever
 * may stand in its place. */
static bool glob_matches(struct bytes glob, struct bytes text)
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
    while (at < glob.size && glob.data[at] == '*') {
        at++;
    }
    return at == glob.size;
}

bool globs_cover(const struct globs *globs, struct bytes pattern)
{
    for (uint32_t i = 0; globs != NULL && i < globs->count; i++) {
        if (glob_matches(globs->at[i], pattern)) {
            return true;
        }
    }
    return false;
}

/* SERVICE.REST, in `text`. */
static struct bytes join(uint8_t text[PATTERN_SIZE_MAX], struct bytes service, struct bytes rest)
{
    TREADLE_ASSERT(service.size <= NAME_SIZE_MAX && rest.size <= NAME_SIZE_MAX);
    size_t size = 0;
    for (size_t i = 0; i < service.size; i++) {
        text[size++] = service.data[i];
    }
    text[size++] = '.';
    for (size_t i = 0; i < rest.size; i++) {
        text[size++] = rest.data[i];
    }
    return (struct bytes){text, size};
}

bool globs_cover_service(const struct globs *globs, struct bytes service)
{
    uint8_t text[PATTERN_SIZE_MAX];
    return globs_cover(globs, join(text, service, any));
}

bool globs_cover_task(const struct globs *globs, struct bytes service, struct bytes task)
{
    uint8_t text[PATTERN_SIZE_MAX];
    for (size_t i = 0; i < task.size; i++) {
        if (task.data[i] == '.') { /* "a" "b.c" must not pass for "a.b" "c" */
            return globs_cover_service(globs, service);
        }
    }
    return globs_cover(globs, join(text, service, task));
}

/* Whether the glob matches SERVICE. and some task's name: what is left of the glob for that, or the
 * `*` it ends with, has no dot. */
static bool glob_touches(struct bytes glob, struct bytes beginning)
{
    size_t first = glob.size;
    while (first > 0 && glob.data[first - 1] != '.') {
        first--;
    }
    for (size_t size = first; size <= glob.size; size++) {
        if (size > first && glob.data[size - 1] != '*') {
            continue; /* a beginning ends in the dot, or in what a `*` stands for */
        }
        const bool has_more = size < glob.size || (size > 0 && glob.data[size - 1] == '*');
        if (has_more && glob_matches((struct bytes){glob.data, size}, beginning)) {
            return true;
        }
    }
    return false;
}

bool globs_touch_service(const struct globs *globs, struct bytes service)
{
    uint8_t text[PATTERN_SIZE_MAX];
    const struct bytes beginning = join(text, service, (struct bytes){0});
    for (uint32_t i = 0; globs != NULL && i < globs->count; i++) {
        if (glob_touches(globs->at[i], beginning)) {
            return true;
        }
    }
    return false;
}

void globs_keep(struct kept_globs *kept, const struct globs *globs)
{
    const uint32_t count = globs == NULL ? 0 : globs->count;
    TREADLE_ASSERT(count <= GLOB_COUNT_MAX);
    for (uint32_t i = 0; i < count; i++) {
        const struct bytes glob = globs->at[i];
        TREADLE_ASSERT(glob.size >= 1 && glob.size <= PATTERN_SIZE_MAX);
        memcpy(kept->texts[i], glob.data, glob.size);
        kept->at[i] = (struct bytes){kept->texts[i], glob.size};
    }
    kept->globs = (struct globs){kept->at, count};
}
