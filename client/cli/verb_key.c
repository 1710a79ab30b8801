/* SPDX-License-Identifier: MPL-2.0 */
/* key gen, show */
#define _GNU_SOURCE
#include <string.h>

#include <sodium.h>

#include "client/cli/options.h"
#include "common/keys/keys.h"

static enum cli_exit start(const struct arguments *arguments)
{
    return sodium_init() < 0
               ? cli_fail(CLI_SYSTEM, "%s: libsodium cannot start", arguments->verb->name)
               : CLI_DONE;
}

static enum cli_exit key_gen(const struct arguments *arguments)
{
    const char *verb = arguments->verb->name;
    const char *name = arguments->words[0];
    const char *dir = arguments->dir == NULL ? "." : arguments->dir;
    struct key_pair *pair = NULL;
    char hex[KEY_HEX_SIZE];
    char why[KEY_WHY_SIZE];
    enum cli_exit code = start(arguments);

    if (code != CLI_DONE) {
        return code;
    }
    key_protect_process();
    if (key_pair_create(&pair) != TREADLE_OK) {
        return cli_fail_memory();
    }
    const enum treadle_status status = key_pair_write(pair, name, dir, why);

    key_print(hex, key_pair_public(pair));
    key_pair_close(&pair);
    if (status != TREADLE_OK) {
        return cli_fail(status == TREADLE_E_INVALID ? CLI_USAGE : CLI_CONFIG, "%s: %s", verb, why);
    }
    cli_note("%s: wrote %s/%s.key, which is secret, and %s/%s.pub, which is for the other side; "
             "its public key:",
             verb, dir, name, dir, name);
    code = cli_put(bytes_from_text(hex));
    return code == CLI_DONE ? cli_put(bytes_from_text("\n")) : code;
}

static enum cli_exit key_show(const struct arguments *arguments)
{
    const char *text = arguments->words[0];
    uint8_t key[KEY_SIZE];
    char name[KEY_NAME_SIZE];
    char hex[KEY_HEX_SIZE];
    char z85[KEY_Z85_SIZE];
    char why[KEY_WHY_SIZE];
    enum cli_exit code = start(arguments);

    if (code != CLI_DONE) {
        return code;
    }
    const enum treadle_status status = key_public_read_named(key, name, text, why);

    if (status != TREADLE_OK) {
        return cli_fail(status == TREADLE_E_NOT_FOUND ? CLI_NOT_FOUND : CLI_CONFIG, "%s: %s",
                        arguments->verb->name, why);
    }
    key_print(hex, key);
    key_print_z85(z85, key);
    if (arguments->is_json) {
        return json_print(json_pack("{s:s, s:s, s:s}", "name", name, "key", hex, "z85", z85));
    }
    struct table *facts = table_open_facts();

    if (name[0] != '\0') {
        table_add_fact(facts, "name", "%s", name);
    }
    table_add_fact(facts, "key", "%s", hex);
    table_add_fact(facts, "z85", "%s", z85);
    return table_print(&facts);
}

const struct verb verb_key_gen = {
    .name = "key gen",
    .words = "NAME",
    .summary = "Make a key pair: NAME.key, which is secret, and NAME.pub",
    .details = "Prints the public key as 64 hexadecimal digits. A file that is there is never "
               "overwritten.",
    .options = OPTION_BIT(OPTION_DIR),
    .words_min = 1,
    .words_max = 1,
    .run = key_gen,
};

const struct verb verb_key_show = {
    .name = "key show",
    .words = "FILE|HEX",
    .summary = "Show a public key: of a .pub or .key file, or of 64 digits",
    .options = OPTION_BIT(OPTION_JSON),
    .words_min = 1,
    .words_max = 1,
    .run = key_show,
};
