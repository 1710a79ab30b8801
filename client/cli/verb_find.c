/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/verb_find.h"

#include <string.h>

/* NOLINTBEGIN(bugprone-macro-parentheses) */
#define VERB(name) extern const struct verb verb_##name;
#include "client/cli/verbs.def"

static const struct verb *const verbs[] = {
#define VERB(name) &verb_##name,
#include "client/cli/verbs.def"
};
/* NOLINTEND(bugprone-macro-parentheses) */

#define VERB_COUNT    (sizeof(verbs) / sizeof(verbs[0]))
#define NAME_TEXT_MAX 40

const struct verb *verb_at(size_t index)
{
    return index < VERB_COUNT ? verbs[index] : NULL;
}

/* Whether the verb's name is `family` and one more word. */
static bool is_of_family(const struct verb *verb, const char *family)
{
    size_t size = strlen(family);

    return strncmp(verb->name, family, size) == 0 && verb->name[size] == ' ';
}

static bool is_family(const char *word)
{
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (is_of_family(verbs[i], word)) {
            return true;
        }
    }
    return false;
}

static void verb_print(FILE *to, const struct verb *verb)
{
    fprintf(to, "  %-16s %s\n", verb->name, verb->summary);
}

bool family_print(FILE *to, const char *family)
{
    if (!is_family(family)) {
        return false;
    }
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (is_of_family(verbs[i], family)) {
            verb_print(to, verbs[i]);
        }
    }
    return true;
}

void verbs_print(FILE *to)
{
    fputs("usage: treadle VERB [OPTION...] [WORD...]\n\n", to);
    for (size_t i = 0; i < VERB_COUNT; i++) {
        verb_print(to, verbs[i]);
    }
    fputs("\nMore about one: treadle help VERB. Exit codes: 0 done, 1 the task did not succeed, "
          "64 usage,\n65 bad data, 66 no such task, service or worker, 69 no broker or no worker, "
          "75 patience ran out,\n77 refused, 78 configuration, 130 interrupted.\n",
          to);
}

/* Levenshtein's distance; both texts of at most NAME_TEXT_MAX bytes. */
static size_t distance(const char *a, const char *b)
{
    size_t row[NAME_TEXT_MAX + 1];
    size_t b_size = strlen(b);

    for (size_t j = 0; j <= b_size; j++) {
        row[j] = j;
    }
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            size_t least = diagonal + (a[i - 1] != b[j - 1]);

            least = row[j] + 1 < least ? row[j] + 1 : least;
            least = row[j - 1] + 1 < least ? row[j - 1] + 1 : least;
            diagonal = row[j];
            row[j] = least;
        }
    }
    return row[b_size];
}

/* The verb, or the first word of verbs, that the text is nearly; NULL if none is near. */
static const char *nearest(const char *typed, char out[NAME_TEXT_MAX + 1])
{
    size_t best = strlen(typed) / 3 + 2;
    const char *found = NULL;

    for (size_t i = 0; i < VERB_COUNT && strlen(typed) <= NAME_TEXT_MAX; i++) {
        char name[NAME_TEXT_MAX + 1];
        bool is_one_word = strchr(typed, ' ') == NULL;

        snprintf(name, sizeof(name), "%s", verbs[i]->name);
        if (is_one_word) {
            name[strcspn(name, " ")] = '\0';
        }
        size_t this = distance(typed, name);

        if (this < best) {
            best = this;
            memcpy(out, name, sizeof(name));
            found = out;
        }
    }
    return found;
}

static enum cli_exit no_such_verb(const char *typed)
{
    char name[NAME_TEXT_MAX + 1];
    const char *near = nearest(typed, name);

    if (near == NULL) {
        return cli_fail(CLI_USAGE, "no such verb: '%s'; see: treadle help", typed);
    }
    return cli_fail(CLI_USAGE, "no such verb: '%s'; did you mean: treadle %s", typed, near);
}

/* "treadle task" alone: names what may follow. */
static enum cli_exit family_needs_more(const char *family)
{
    char all[256] = "";
    size_t size = 0;

    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (is_of_family(verbs[i], family)) {
            size += (size_t)snprintf(all + size, sizeof(all) - size, "%s%s", size == 0 ? "" : ", ",
                                     verbs[i]->name + strlen(family) + 1);
        }
    }
    return cli_fail(CLI_USAGE, "%s: a word is missing; one of: %s", family, all);
}

enum cli_exit verb_find(char *const *words, size_t word_count, const struct verb **verb,
                        size_t *used)
{
    char typed[NAME_TEXT_MAX + 1];

    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (strcmp(verbs[i]->name, words[0]) == 0) {
            *verb = verbs[i];
            *used = 1;
            return CLI_DONE;
        }
    }
    if (!is_family(words[0])) {
        return no_such_verb(words[0]);
    }
    if (word_count < 2 || words[1][0] == '-') {
        return family_needs_more(words[0]);
    }
    snprintf(typed, sizeof(typed), "%s %s", words[0], words[1]);
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (strcmp(verbs[i]->name, typed) == 0) {
            *verb = verbs[i];
            *used = 2;
            return CLI_DONE;
        }
    }
    return no_such_verb(typed);
}
