/* SPDX-License-Identifier: MPL-2.0 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/conf/conf.h"
#include "common/conf/guess.h"

#define GUESS_SIZE 64 /* bytes of a name that is compared */
#define GUESS_MAX  3  /* letters that may differ from the name that was meant */

void conf_add_mistake(struct conf_mistakes *mistakes, uint32_t line, const char *format, ...)
{
    char text[CONF_TEXT_SIZE];
    va_list arguments;
    uint32_t place = mistakes->count < CONF_MISTAKES_MAX ? mistakes->count : CONF_MISTAKES_MAX;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    for (uint32_t i = 0; i < place; i++) {
        if (mistakes->at[i].line == line && strcmp(mistakes->at[i].text, text) == 0) {
            return; /* once is enough */
        }
    }
    mistakes->count++;
    for (; place > 0 && mistakes->at[place - 1].line > line; place--) {
        if (place < CONF_MISTAKES_MAX) {
            mistakes->at[place] = mistakes->at[place - 1];
        }
    }
    if (place < CONF_MISTAKES_MAX) {
        mistakes->at[place].line = line;
        memcpy(mistakes->at[place].text, text, sizeof(text));
    }
}

void conf_print_mistake(char *out, size_t out_size, const char *path,
                        const struct conf_mistake *mistake)
{
    if (mistake->line == CONF_LINE_WHOLE) {
        (void)snprintf(out, out_size, "%s: %s", path, mistake->text);
    } else if (mistake->line == CONF_LINE_GIVEN) {
        (void)snprintf(out, out_size, "%s", mistake->text);
    } else {
        (void)snprintf(out, out_size, "%s:%" PRIu32 ": %s", path, mistake->line, mistake->text);
    }
}

/* How many letters must be put in, left out or changed to make one name of the other. */
static size_t distance(const char *left, const char *right, size_t right_size)
{
    size_t row[GUESS_SIZE + 1];
    for (size_t i = 0; i <= right_size; i++) {
        row[i] = i;
    }
    for (size_t i = 0; left[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < right_size; j++) {
            const size_t change = diagonal + (left[i] == right[j] ? 0 : 1);
            const size_t least = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = change < least ? change : least;
        }
    }
    return row[right_size];
}

void guess_init(struct guess *guess, const char *name)
{
    *guess = (struct guess){.name = name, .name_size = strlen(name), .least = GUESS_MAX + 1};
}

void guess_offer(struct guess *guess, const char *name)
{
    const size_t size = strlen(name);
    if (guess->name_size > GUESS_SIZE || size > GUESS_SIZE) {
        return;
    }
    const size_t differing = distance(guess->name, name, size);
    if (differing < guess->least && differing < size && 2 * differing <= guess->name_size + 1) {
        guess->least = differing;
        guess->meant = name;
    }
}
