/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What the command line reads of treadle.conf: first the user's own file, then the system's. A key
 * counts where it is met first. One thread.
 */
#ifndef TREADLE_CLI_SETTINGS_H
#define TREADLE_CLI_SETTINGS_H

#include <stdbool.h>

#include "common/conf/conf.h"

#define SETTINGS_OWN_FILE    ".config/treadle/treadle.conf" /* below HOME */
#define SETTINGS_SYSTEM_FILE "/etc/treadle/treadle.conf"

/* Texts are its own; NULL: no file says. All zero: nothing was read. */
struct settings {
    char *broker;
    char *identity;
    char *server_key;
};

/* Adds what a file says and `settings` does not. A file that is not there says nothing. home: what
 * a leading ~/ in the name of a key file stands for; NULL: itself. Other names that are not
 * absolute are beside the file. */
void settings_read(struct settings *settings, const char *path, const char *home,
                   struct conf_mistakes *mistakes);

/* Whether it is tcp://HOST:PORT or ipc://PATH; a PORT of * is one for who listens. */
bool settings_is_endpoint(const char *text);

void settings_reset(struct settings *settings);

#endif
