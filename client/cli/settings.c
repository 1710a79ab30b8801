/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"

#define QUOTED_SIZE 100

struct setting_rule {
    const char *name;
    size_t offset;
    bool is_file; /* ~/ may stand at its beginning */
    const char *expected;
};

/* clang-format off */
static const struct setting_rule rules[] = {
    {"broker", offsetof(struct settings, broker), false, "an endpoint like \"tcp://HOST:PORT\" or \"ipc://PATH\""},
    {"identity", offsetof(struct settings, identity), true, "the name of a .key file"},
    {"server_key", offsetof(struct settings, server_key), true, "the name of a .pub file or 64 hexadecimal digits"},
};
/* clang-format on */

#define RULE_COUNT (sizeof(rules) / sizeof(rules[0]))

struct reading {
    struct settings *settings;
    const char *home;
    struct conf_mistakes *mistakes;
    uint32_t lines[RULE_COUNT]; /* where the keys stand in this file; 0: not yet */
    bool is_in_section;
};

static char **place_of(struct settings *settings, const struct setting_rule *rule)
{
    return (char **)(void *)((char *)settings + rule->offset);
}

static bool is_endpoint(const char *text)
{
    return (strncmp(text, "ipc://", 6) == 0 || strncmp(text, "tcp://", 6) == 0) && text[6] != '\0';
}

/* NULL: memory is out. */
static char *text_create(const struct reading *reading, const struct setting_rule *rule,
                         const char *value)
{
    char *text = NULL;
    if (!rule->is_file || strncmp(value, "~/", 2) != 0 || reading->home == NULL) {
        return strdup(value);
    }
    return asprintf(&text, "%s/%s", reading->home, value + 2) == -1 ? NULL : text;
}

static void take(struct reading *reading, const struct setting_rule *rule,
                 const struct conf_setting *setting)
{
    char quoted[QUOTED_SIZE];
    char **place = place_of(reading->settings, rule);
    const char *value = setting->is_list ? "" : setting->values[0];
    const bool is_fit = value[0] != '\0' && (rule->is_file || is_endpoint(value));
    if (!is_fit) {
        conf_add_mistake(reading->mistakes, setting->line, "%s: %s; expected %s", rule->name,
                         setting->is_list ? "a list"
                                          : log_quote(quoted, sizeof(quoted), value, strlen(value)),
                         rule->expected);
    } else if (*place == NULL) {
        *place = text_create(reading, rule, value);
        if (*place == NULL) {
            conf_add_mistake(reading->mistakes, setting->line, "memory is out");
        }
    }
}

static void tell_of_unknown(struct reading *reading, uint32_t line, const char *name)
{
    const char *names[RULE_COUNT];
    char quoted[QUOTED_SIZE];
    for (size_t i = 0; i < RULE_COUNT; i++) {
        names[i] = rules[i].name;
    }
    const char *guess = conf_guess(name, names, RULE_COUNT);
    (void)log_quote(quoted, sizeof(quoted), name, strlen(name));
    if (guess != NULL) {
        conf_add_mistake(reading->mistakes, line, "%s: no such key; did you mean %s?", quoted,
                         guess);
    } else {
        conf_add_mistake(reading->mistakes, line,
                         "%s: no such key; expected broker, identity or server_key", quoted);
    }
}

static void on_setting(void *context, const struct conf_setting *setting)
{
    struct reading *reading = context;
    size_t i = 0;
    while (i < RULE_COUNT && strcmp(rules[i].name, setting->name) != 0) {
        i++;
    }
    if (reading->is_in_section) {
        return; /* it was told that there is none */
    }
    if (i == RULE_COUNT) {
        tell_of_unknown(reading, setting->line, setting->name);
        return;
    }
    if (reading->lines[i] != 0) {
        conf_add_mistake(reading->mistakes, setting->line,
                         "%s stands in line %u already; expected it once", setting->name,
                         reading->lines[i]);
        return;
    }
    reading->lines[i] = setting->line;
    take(reading, &rules[i], setting);
}

static void on_section(void *context, uint32_t line, const char *name, const char *title)
{
    struct reading *reading = context;
    char quoted[QUOTED_SIZE];
    (void)title;
    reading->is_in_section = true;
    conf_add_mistake(reading->mistakes, line,
                     "%s: there are no sections here; expected NAME = VALUE",
                     log_quote(quoted, sizeof(quoted), name, strlen(name)));
}

static void on_section_end(void *context)
{
    struct reading *reading = context;
    reading->is_in_section = false;
}

void settings_read(struct settings *settings, const char *path, const char *home,
                   struct conf_mistakes *mistakes)
{
    struct reading reading = {.settings = settings, .home = home, .mistakes = mistakes};
    const struct conf_reader reader = {&reading, on_setting, on_section, on_section_end};
    if (access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR)) {
        conf_read(path, &reader, mistakes);
    }
}

void settings_reset(struct settings *settings)
{
    for (size_t i = 0; i < RULE_COUNT; i++) {
        char **place = place_of(settings, &rules[i]);
        free(*place);
        *place = NULL;
    }
}
