/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/size.h"
#include "common/base/span.h"
#include "common/conf/conf.h"

#define EXPECTED_SIZE 256
#define QUOTED_SIZE   80
#define FACTOR_UNIT   1000U /* a factor is kept in thousandths */
#define FACTOR_DIGITS 3     /* behind its point */

_Static_assert(SIZE_TEXT_SIZE <= SPAN_TEXT_SIZE, "a span's text has room for any number");

/* ---- what is expected ---- */

void conf_print_value(const struct conf_key *key, uint64_t value, char *out, size_t out_size)
{
    switch (key->type) {
    case CONF_SPAN:
        (void)span_print(out, out_size, value);
        return;
    case CONF_SIZE:
        (void)size_print(out, out_size, value);
        return;
    case CONF_FACTOR:
        (void)snprintf(out, out_size, "%g", (double)value / FACTOR_UNIT);
        return;
    case CONF_WORD:
        TREADLE_ASSERT(value <= key->max);
        (void)snprintf(out, out_size, "%s", key->words[value]);
        return;
    case CONF_COUNT:
    case CONF_TEXT:
        break;
    }
    (void)snprintf(out, out_size, "%" PRIu64, value);
}

static void print_words(const struct conf_key *key, char *out, size_t out_size)
{
    size_t size = 0;
    out[0] = '\0';
    for (uint64_t i = 0; i <= key->max && size < out_size; i++) {
        const char *comma = i == key->max ? " or " : ", ";
        size += (size_t)snprintf(out + size, out_size - size, "%s%s", i == 0 ? "" : comma,
                                 key->words[i]);
    }
}

void conf_print_expected(const struct conf_key *key, char *out, size_t out_size)
{
    static const char *const whats[] = {
        [CONF_COUNT] = "a whole number",
        [CONF_SPAN] = "a span",
        [CONF_SIZE] = "a size",
        [CONF_FACTOR] = "a factor",
    };
    static const char *const examples[] = {
        [CONF_COUNT] = "",
        [CONF_SPAN] = ", such as 500ms, 30s or 5m",
        [CONF_SIZE] = ", such as 64KiB, 4MiB or 1GiB",
        [CONF_FACTOR] = ", such as 2 or 1.5",
    };
    char min[SPAN_TEXT_SIZE];
    char max[SPAN_TEXT_SIZE];
    if (key->expected != NULL) {
        (void)snprintf(out, out_size, "%s", key->expected);
        return;
    }
    if (key->type == CONF_WORD) {
        print_words(key, out, out_size);
        return;
    }
    TREADLE_ASSERT(key->type != CONF_TEXT);
    conf_print_value(key, key->min, min, sizeof(min));
    conf_print_value(key, key->max, max, sizeof(max));
    (void)snprintf(out, out_size, "%s from %s%s%s%s", whats[key->type], min,
                   key->max == UINT64_MAX ? "" : " to ", key->max == UINT64_MAX ? "" : max,
                   examples[key->type]);
}

/* ---- what was written ---- */

/* A whole number; digits only. */
static bool parse_count(const char *text, uint64_t *count)
{
    uint64_t number = 0;
    for (const char *next = text; *next != '\0'; next++) {
        if (*next < '0' || *next > '9' || number > (UINT64_MAX - 9) / 10) {
            return false;
        }
        number = number * 10 + (uint64_t)(*next - '0');
    }
    *count = number;
    return text[0] != '\0';
}

/* "2", "1.5", "1.125". */
static bool parse_factor(const char *text, uint64_t *factor)
{
    char whole[16];
    const char *point = strchr(text, '.');
    const size_t whole_size = point == NULL ? strlen(text) : (size_t)(point - text);
    uint64_t thousandths = 0;
    uint64_t units = 0;
    if (whole_size >= sizeof(whole)) {
        return false;
    }
    memcpy(whole, text, whole_size);
    whole[whole_size] = '\0';
    if (point != NULL) {
        const size_t size = strlen(point + 1);
        if (size > FACTOR_DIGITS || !parse_count(point + 1, &thousandths)) {
            return false;
        }
        for (size_t i = size; i < FACTOR_DIGITS; i++) {
            thousandths *= 10;
        }
    }
    if (!parse_count(whole, &units) || units > UINT32_MAX) {
        return false;
    }
    *factor = units * FACTOR_UNIT + thousandths;
    return true;
}

static bool parse_word(const struct conf_key *key, const char *text, uint64_t *word)
{
    for (uint64_t i = 0; i <= key->max; i++) {
        if (strcmp(text, key->words[i]) == 0) {
            *word = i;
            return true;
        }
    }
    return false;
}

static bool parse(const struct conf_key *key, const char *text, uint64_t *value)
{
    switch (key->type) {
    case CONF_COUNT:
        return parse_count(text, value);
    case CONF_SPAN:
        return span_parse(text, value);
    case CONF_SIZE:
        return size_parse(text, value);
    case CONF_FACTOR:
        return parse_factor(text, value);
    case CONF_WORD:
        return parse_word(key, text, value);
    case CONF_TEXT:
        break;
    }
    return false;
}

static void print_why(const struct conf_key *key, const char *text, const char *what, char *why)
{
    char expected[EXPECTED_SIZE];
    char quoted[QUOTED_SIZE];
    conf_print_expected(key, expected, sizeof(expected));
    (void)snprintf(why, CONF_TEXT_SIZE, "%s: %s %s; expected %s", key->name,
                   log_quote(quoted, sizeof(quoted), text, strlen(text)), what, expected);
}

void conf_print_refused(const struct conf_key *key, const char *text, char *why)
{
    print_why(key, text, "is not understood", why);
}

bool conf_parse_value(const struct conf_key *key, const char *text, uint64_t *value, char *why)
{
    uint64_t parsed = 0;
    if (!parse(key, text, &parsed)) {
        conf_print_refused(key, text, why);
        return false;
    }
    if (parsed < key->min || parsed > key->max) {
        print_why(key, text, parsed < key->min ? "is too small" : "is too large", why);
        return false;
    }
    *value = parsed;
    return true;
}

char *conf_file_name(const char *text, const char *home)
{
    char *name = NULL;
    if (home == NULL || strncmp(text, "~/", 2) != 0) {
        return strdup(text);
    }
    return asprintf(&name, "%s/%s", home, text + 2) == -1 ? NULL : name;
}
