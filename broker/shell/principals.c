/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/principals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/wire/message.h"

#define QUOTED_SIZE 80

struct entry {
    uint8_t key[KEY_SIZE];
    uint32_t principal;
    uint32_t line;
};

struct principals {
    struct principal *at;
    uint32_t count;
    struct entry *keys; /* in order of the key */
    uint32_t key_count;
    uint32_t key_count_max;
};

static const struct bytes every_service = {(const uint8_t *)"*", 1};
const struct principal principal_local = {"local", RIGHT_ALL, {&every_service, 1}};
const struct principal principal_insecure = {
    "anybody", RIGHT_SUBMIT | RIGHT_WORK, {&every_service, 1}};

const struct principal principal_nobody = {.rights = 0};

/* ---- the table ---- */

void principals_destroy(struct principals **reference)
{
    struct principals *principals = *reference;
    if (principals == NULL) {
        return;
    }
    for (uint32_t i = 0; i < principals->count; i++) {
        const struct globs *services = &principals->at[i].services;
        for (uint32_t j = 0; j < services->count; j++) {
            free((void *)(uintptr_t)services->at[j].data);
        }
        free((void *)(uintptr_t)services->at);
    }
    free(principals->at);
    free(principals->keys);
    free(principals);
    *reference = NULL;
}

uint32_t principals_count(const struct principals *principals)
{
    return principals->count;
}

uint32_t principals_key_count(const struct principals *principals)
{
    return principals->key_count;
}

static int by_key(const void *left, const void *right)
{
    return memcmp(((const struct entry *)left)->key, ((const struct entry *)right)->key, KEY_SIZE);
}

uint32_t principals_find_key(const struct principals *principals, const uint8_t key[KEY_SIZE])
{
    uint32_t first = 0;
    uint32_t end = principals->key_count;
    while (first < end) {
        const uint32_t middle = first + (end - first) / 2;
        const int order = memcmp(principals->keys[middle].key, key, KEY_SIZE);
        if (order == 0) {
            return middle;
        }
        if (order < 0) {
            first = middle + 1;
        } else {
            end = middle;
        }
    }
    return KEY_NONE;
}

static int hex_digit(char letter)
{
    if (letter >= '0' && letter <= '9') {
        return letter - '0';
    }
    if (letter >= 'a' && letter <= 'f') {
        return letter - 'a' + 10;
    }
    return letter >= 'A' && letter <= 'F' ? letter - 'A' + 10 : -1;
}

bool principals_read_hex(uint8_t key[KEY_SIZE], const char *text)
{
    if (strlen(text) != 2 * (size_t)KEY_SIZE) {
        return false;
    }
    for (size_t i = 0; i < KEY_SIZE; i++) {
        const int high = hex_digit(text[2 * i]);
        const int low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        key[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

const struct principal *principals_find(const struct principals *principals,
                                        const uint8_t key[KEY_SIZE])
{
    const uint32_t found = principals_find_key(principals, key);
    return found == KEY_NONE ? NULL : &principals->at[principals->keys[found].principal];
}

bool principal_is_narrower(const struct principal *now, const struct principal *before)
{
    if (strcmp(now->name, before->name) != 0 || (before->rights & ~now->rights) != 0) {
        return true;
    }
    for (uint32_t i = 0; i < before->services.count; i++) {
        if (!globs_cover(&now->services, before->services.at[i])) {
            return true;
        }
    }
    return false;
}

/* Globs are compared once for each pair of principals, not for each key of theirs. Names are given
 * once, so a principal can be no narrower than before in one of the table only. */
bool principals_are_narrower(const struct principals *now, const struct principals *before)
{
    const struct principal *as_wide[PRINCIPAL_COUNT_MAX] = {NULL};
    for (uint32_t i = 0; i < before->key_count; i++) {
        const struct entry *entry = &before->keys[i];
        const struct principal *found = principals_find(now, entry->key);
        if (found != NULL && as_wide[entry->principal] == found) {
            continue;
        }
        if (found == NULL || principal_is_narrower(found, &before->at[entry->principal])) {
            return true;
        }
        as_wide[entry->principal] = found;
    }
    return false;
}

bool principals_are_other(const struct principals *left, const struct principals *right)
{
    return principals_are_narrower(left, right) || principals_are_narrower(right, left);
}

/* ---- the file ---- */

enum { PLACE_TOP = CONF_PLACE_TOP, PLACE_PRINCIPAL = 2 };

enum setting { SETTING_KEYS, SETTING_ROLES, SETTING_SERVICES, SETTING_COUNT };

/* clang-format off */
/* Known outside of a principal, too, to be told where they belong. */
#define LIST .type = CONF_TEXT, .shape = CONF_LIST_OR_NONE, .places = PLACE_TOP | PLACE_PRINCIPAL
static const struct conf_key settings[SETTING_COUNT] = {
    [SETTING_KEYS] = {"keys", LIST, .expected = "a list of keys, as treadle key show prints them"},
    [SETTING_ROLES] = {"roles", LIST, .expected = "a list of some of submit, work, admin"},
    [SETTING_SERVICES] = {"services", LIST, .expected = "a list like {\"SERVICE.TASK\", \"SERVICE.*\"} or {\"*\"}"},
};
/* clang-format on */

static const struct conf_section sections[] = {{"principal", PLACE_PRINCIPAL}};

enum { ROLE_COUNT = 3 };
static const char *const role_names[ROLE_COUNT] = {"submit", "work", "admin"};
static const uint32_t role_rights[ROLE_COUNT] = {RIGHT_SUBMIT, RIGHT_WORK, RIGHT_ADMIN};

struct reading {
    struct principals *principals;
    struct conf_mistakes *mistakes;
    struct principal *open; /* whose section it is; NULL: none that is understood */
    uint32_t section_line;
    bool has[SETTING_COUNT]; /* this section, rightly or not */
    bool is_out_of_memory;
};

static const char *quoted(char out[QUOTED_SIZE], const char *text)
{
    return log_quote(out, QUOTED_SIZE, text, strlen(text));
}

static void tell(struct reading *reading, uint32_t line, const char *what, const char *expected)
{
    conf_add_mistake(reading->mistakes, line, "%s; expected %s", what, expected);
}

static bool has_name(const struct principals *principals, const char *name)
{
    for (uint32_t i = 0; i < principals->count; i++) {
        if (strcmp(principals->at[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Why nobody can have this name; NULL: somebody can. */
static const char *wrong_with_name(const struct principals *principals, const char *name)
{
    if (!wire_is_name(bytes_from_text(name), 1)) {
        return "principal \"NAME\" { with a name of 1 to 64 letters, digits and . _ -";
    }
    if (strcmp(name, principal_local.name) == 0) {
        return "another name: this one has who comes over ipc";
    }
    if (strcmp(name, principal_insecure.name) == 0) {
        return "another name: this one has who comes over plain TCP";
    }
    if (has_name(principals, name)) {
        return "each name once: one principal has all of its keys";
    }
    return NULL;
}

static void open_principal(struct reading *reading, const char *name)
{
    struct principals *principals = reading->principals;
    if (principals->count == PRINCIPAL_COUNT_MAX) {
        tell(reading, reading->section_line, "one principal too many", "at most 2048 of them");
        return;
    }
    struct principal *grown =
        realloc(principals->at, (principals->count + 1) * sizeof *principals->at);
    if (grown == NULL) {
        reading->is_out_of_memory = true;
        return;
    }
    principals->at = grown;
    reading->open = &grown[principals->count];
    principals->count++;
    *reading->open = (struct principal){.rights = 0};
    memcpy(reading->open->name, name, strlen(name) + 1);
}

static void on_section(void *context, uint32_t line, const struct conf_section *section,
                       const char *title)
{
    struct reading *reading = context;
    char text[QUOTED_SIZE];
    reading->open = NULL;
    (void)section; /* there is one */
    reading->section_line = line;
    memset(reading->has, 0, sizeof reading->has);
    const char *expected = wrong_with_name(reading->principals, title);
    if (expected != NULL) {
        conf_add_mistake(reading->mistakes, line, "principal %s; expected %s", quoted(text, title),
                         expected);
        return;
    }
    open_principal(reading, title);
}

static void on_section_end(void *context)
{
    struct reading *reading = context;
    for (int i = 0; reading->open != NULL && i < SETTING_COUNT; i++) {
        if (!reading->has[i]) {
            conf_add_mistake(reading->mistakes, reading->section_line,
                             "principal %s has no %s; expected %s = {...} in it",
                             reading->open->name, settings[i].name, settings[i].name);
        }
    }
    reading->open = NULL;
}

static bool has_room_for_key(struct principals *principals)
{
    if (principals->key_count < principals->key_count_max) {
        return true;
    }
    const uint32_t count = principals->key_count_max == 0 ? 16 : 2 * principals->key_count_max;
    struct entry *grown = realloc(principals->keys, count * sizeof *grown);
    if (grown == NULL) {
        return false;
    }
    principals->keys = grown;
    principals->key_count_max = count;
    return true;
}

static void take_key(struct reading *reading, uint32_t line, const char *text)
{
    struct principals *principals = reading->principals;
    char shown[QUOTED_SIZE];
    struct entry entry = {.principal = principals->count - 1, .line = line};
    if (!principals_read_hex(entry.key, text)) {
        /* not in full: it may be a secret one in the wrong place */
        conf_add_mistake(reading->mistakes, line,
                         "keys: %s... is no key; expected 64 hexadecimal digits, as treadle key "
                         "show prints them",
                         log_quote(shown, sizeof shown, text, strnlen(text, 4)));
        return;
    }
    if (principals->key_count == PRINCIPAL_KEYS_MAX) {
        tell(reading, line, "keys: one too many", "at most 16384 in all");
        return;
    }
    if (!has_room_for_key(principals)) {
        reading->is_out_of_memory = true;
        return;
    }
    principals->keys[principals->key_count] = entry;
    principals->key_count++;
}

static void take_role(struct reading *reading, uint32_t line, const char *text)
{
    char shown[QUOTED_SIZE];
    for (int i = 0; i < ROLE_COUNT; i++) {
        if (strcmp(text, role_names[i]) != 0) {
            continue;
        }
        if ((reading->open->rights & role_rights[i]) != 0) {
            conf_add_mistake(reading->mistakes, line,
                             "roles: %s stands there twice; expected it once", text);
        }
        reading->open->rights |= role_rights[i];
        return;
    }
    conf_add_mistake(reading->mistakes, line, "roles: %s; expected some of submit, work, admin",
                     quoted(shown, text));
}

/* Letters of names and `*`, and a dot or a `*`: else no SERVICE.TASK could match. */
static bool is_glob(const char *text)
{
    const size_t size = strlen(text);
    return size >= 1 && size <= PATTERN_SIZE_MAX && strpbrk(text, ".*") != NULL &&
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-*") ==
               size;
}

static void take_service(struct reading *reading, uint32_t line, const char *text)
{
    struct globs *services = &reading->open->services;
    char shown[QUOTED_SIZE];
    if (!is_glob(text)) {
        conf_add_mistake(reading->mistakes, line,
                         "services: %s; expected \"SERVICE.TASK\", \"SERVICE.*\" or \"*\", of "
                         "letters, digits and . _ - *",
                         quoted(shown, text));
        return;
    }
    if (services->count == PRINCIPAL_GLOBS_MAX) {
        tell(reading, line, "services: one too many", "at most 64 of a principal");
        return;
    }
    struct bytes *grown =
        realloc((void *)(uintptr_t)services->at, (services->count + 1) * sizeof *grown);
    char *copy = strdup(text);
    if (grown != NULL) {
        services->at = grown;
    }
    if (grown == NULL || copy == NULL) {
        free(copy);
        reading->is_out_of_memory = true;
        return;
    }
    grown[services->count] = bytes_from_text(copy);
    services->count++;
}

static void take_values(struct reading *reading, enum setting kind,
                        const struct conf_setting *setting)
{
    for (size_t i = 0; i < setting->value_count && !reading->is_out_of_memory; i++) {
        const char *value = setting->values[i];
        const uint32_t line = setting->value_lines[i];
        if (kind == SETTING_KEYS) {
            take_key(reading, line, value);
        } else if (kind == SETTING_ROLES) {
            take_role(reading, line, value);
        } else {
            take_service(reading, line, value);
        }
    }
}

static void on_name(void *context, size_t key)
{
    struct reading *reading = context;
    reading->has[key] = true;
}

static void on_setting(void *context, const struct conf_setting *setting)
{
    struct reading *reading = context;
    if (setting->place == PLACE_TOP) {
        conf_add_mistake(reading->mistakes, setting->line,
                         "%s: outside of a section; expected it within principal \"NAME\" { ... }",
                         settings[setting->key].name);
        return;
    }
    if (reading->open != NULL) {
        take_values(reading, (enum setting)setting->key, setting);
    }
}

/* In order, each once. */
static void sort_keys(struct reading *reading)
{
    struct principals *principals = reading->principals;
    if (principals->key_count > 0) {
        qsort(principals->keys, principals->key_count, sizeof *principals->keys, by_key);
    }
    for (uint32_t i = 1; i < principals->key_count; i++) {
        const struct entry *here = &principals->keys[i];
        const struct entry *other = &principals->keys[i - 1];
        if (memcmp(here->key, other->key, KEY_SIZE) == 0) {
            const struct entry *later = here->line > other->line ? here : other;
            const struct entry *first = later == here ? other : here;
            conf_add_mistake(reading->mistakes, later->line,
                             "keys: %02x%02x%02x%02x... stands in line %u already, of principal "
                             "%s; expected each key once",
                             here->key[0], here->key[1], here->key[2], here->key[3], first->line,
                             principals->at[first->principal].name);
        }
    }
}

void principals_refuse_key(const struct principals *principals, const uint8_t key[KEY_SIZE],
                           struct conf_mistakes *mistakes)
{
    const uint32_t found = principals_find_key(principals, key);
    if (found != KEY_NONE) {
        const struct entry *entry = &principals->keys[found];
        conf_add_mistake(mistakes, entry->line,
                         "keys: %02x%02x%02x%02x... is the broker's own key, whose secret belongs "
                         "to nobody else; expected a key that was made for %s",
                         key[0], key[1], key[2], key[3], principals->at[entry->principal].name);
    }
}

struct principals *principals_read(const char *path, struct conf_mistakes *mistakes)
{
    const uint32_t mistakes_before = mistakes->count;
    struct principals *principals = calloc(1, sizeof *principals);
    struct reading reading = {.principals = principals, .mistakes = mistakes};
    const struct conf_reader reader = {.context = &reading,
                                       .keys = settings,
                                       .key_count = SETTING_COUNT,
                                       .sections = sections,
                                       .section_count = sizeof sections / sizeof sections[0],
                                       .manual = "treadle-principals(5)",
                                       .form = "principal \"NAME\" { ... } sections",
                                       .is_guarded = true,
                                       .on_name = on_name,
                                       .on_setting = on_setting,
                                       .on_section = on_section,
                                       .on_section_end = on_section_end};
    if (principals != NULL) {
        conf_read(path, &reader, mistakes);
        sort_keys(&reading);
    }
    if (principals == NULL || reading.is_out_of_memory) {
        conf_add_mistake(mistakes, 0, "cannot be read: no memory; expected some");
    }
    if (mistakes->count != mistakes_before) {
        principals_destroy(&principals);
    }
    return principals;
}
