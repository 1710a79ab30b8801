/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum key { KEY_BROKER, KEY_IDENTITY, KEY_SERVER_KEY, KEY_COUNT };

#define TEXT .type = CONF_TEXT, .places = CONF_PLACE_TOP

/* clang-format off */
static const struct conf_key keys[KEY_COUNT] = {
    [KEY_BROKER] = {"broker", TEXT, .expected = "an endpoint like \"tcp://HOST:PORT\" or \"ipc://PATH\""},
    [KEY_IDENTITY] = {"identity", TEXT, .expected = "the name of a .key file"},
    [KEY_SERVER_KEY] = {"server_key", TEXT, .expected = "the name of a .pub file, 64 hexadecimal digits or none"},
};
/* clang-format on */

struct reading {
    struct settings *settings;
    const char *path;
    const char *home;
    struct conf_mistakes *mistakes;
};

static char **place_of(struct settings *settings, enum key key)
{
    switch (key) {
    case KEY_BROKER:
        return &settings->broker;
    case KEY_IDENTITY:
        return &settings->identity;
    case KEY_SERVER_KEY:
    case KEY_COUNT:
        break;
    }
    return &settings->server_key;
}

bool settings_is_endpoint(const char *text)
{
    if (strncmp(text, "ipc://", 6) == 0) {
        return text[6] != '\0';
    }
    const char *colon = strrchr(text, ':');
    const char *digits = colon == NULL ? "" : colon + 1;
    const size_t size = strspn(digits, "0123456789");
    if (strncmp(text, "tcp://", 6) != 0 || colon <= text + 6) {
        return false;
    }
    if (strcmp(digits, "*") == 0) {
        return true;
    }
    if (size == 0 || size > 5 || digits[size] != '\0') {
        return false;
    }
    const unsigned long port = strtoul(digits, NULL, 10);
    return port >= 1 && port <= 65535;
}

/* What a key file is named: one that is not absolute is beside the file that names it, wherever the
 * program is started, so that nobody can put another in its place. NULL: memory is out. */
static char *create_name(const struct reading *reading, enum key key, const char *value)
{
    const bool is_hex = strlen(value) == 64 && strspn(value, "0123456789abcdefABCDEF") == 64;
    const char *slash = strrchr(reading->path, '/');
    char *name = NULL;
    if (key == KEY_BROKER || (key == KEY_SERVER_KEY && (is_hex || strcmp(value, "none") == 0))) {
        return strdup(value);
    }
    if (value[0] == '/' || strncmp(value, "~/", 2) == 0 || slash == NULL) {
        return conf_file_name(value, reading->home);
    }
    return asprintf(&name, "%.*s/%s", (int)(slash - reading->path), reading->path, value) == -1
               ? NULL
               : name;
}

static void on_setting(void *context, const struct conf_setting *setting)
{
    const struct reading *reading = context;
    const enum key key = (enum key)setting->key;
    const char *value = setting->values[0];
    char **place = place_of(reading->settings, key);
    char why[CONF_TEXT_SIZE];
    if (value[0] == '\0' || (key == KEY_BROKER && !settings_is_endpoint(value))) {
        conf_print_refused(&keys[key], value, why);
        conf_add_mistake(reading->mistakes, setting->line, "%s", why);
    } else if (*place == NULL) {
        *place = create_name(reading, key, value);
        if (*place == NULL) {
            conf_add_mistake(reading->mistakes, setting->line, "memory is out; expected some");
        }
    }
}

void settings_read(struct settings *settings, const char *path, const char *home,
                   struct conf_mistakes *mistakes)
{
    struct reading reading = {
        .settings = settings, .path = path, .home = home, .mistakes = mistakes};
    const struct conf_reader reader = {.keys = keys,
                                       .key_count = KEY_COUNT,
                                       .manual = "treadle.conf(5)",
                                       .context = &reading,
                                       .on_setting = on_setting};
    if (access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR)) {
        conf_read(path, &reader, mistakes);
    }
}

void settings_reset(struct settings *settings)
{
    for (int i = 0; i < KEY_COUNT; i++) {
        char **place = place_of(settings, (enum key)i);
        free(*place);
        *place = NULL;
    }
}
