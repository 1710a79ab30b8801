/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Who may do what, from the `principals` file:
 *
 *     principal "host1" {
 *         keys = {HEX, ...}
 *         roles = {submit, work, admin}
 *         services = {"wc.*"}
 *     }
 *
 * A table is read once and never changes: a reload makes another one. Any thread may look into it.
 */
#ifndef TREADLE_SHELL_PRINCIPALS_H
#define TREADLE_SHELL_PRINCIPALS_H

#include "broker/core/rights.h"
#include "common/conf/conf.h"
#include "common/keys/keys.h"
#include "common/wire/terms.h"

#include <stdbool.h>
#include <stdint.h>

#define PRINCIPAL_COUNT_MAX 2048U
#define PRINCIPAL_KEYS_MAX  16384U         /* of all principals together */
#define PRINCIPAL_GLOBS_MAX GLOB_COUNT_MAX /* of one */
#define KEY_NONE            UINT32_MAX

struct principal {
    char name[NAME_SIZE_MAX + 1];
    uint32_t rights; /* bits RIGHT_* */
    struct globs services;
};

/* Who comes without a key: over ipc or to a broker for trying things out, who may do everything;
 * over plain TCP, who may not administer, and whose tasks are not those of ipc. */
extern const struct principal principal_local;
extern const struct principal principal_insecure;

/* Whose key is nobody's any more: no rights. */
extern const struct principal principal_nobody;

struct principals;

/* NULL: *mistakes, which it adds to, says why. */
struct principals *principals_read(const char *path, struct conf_mistakes *mistakes);

/* The broker's own key: a mistake is added if it is also somebody's. */
void principals_refuse_key(const struct principals *principals, const uint8_t key[KEY_SIZE],
                           struct conf_mistakes *mistakes);

/* Nulls the pointer; NULL inside is fine. */
void principals_destroy(struct principals **reference);

uint32_t principals_count(const struct principals *principals);
uint32_t principals_key_count(const struct principals *principals);

/* The place of this key, below principals_key_count(); KEY_NONE: nobody's. */
uint32_t principals_find_key(const struct principals *principals, const uint8_t key[KEY_SIZE]);

/* Whose key it is; NULL: nobody's. Valid as long as the table. */
const struct principal *principals_find(const struct principals *principals,
                                        const uint8_t key[KEY_SIZE]);

/* A key of exactly 64 hexadecimal digits. */
bool principals_read_hex(uint8_t key[KEY_SIZE], const char *text);

/* Whether some key of the table before may do less by this one. */
bool principals_are_narrower(const struct principals *now, const struct principals *before);

/* Whether some key may do other than in the other table. */
bool principals_are_other(const struct principals *left, const struct principals *right);

/* Whether somebody who was `before` has another name now, or may no longer do all of it. */
bool principal_is_narrower(const struct principal *now, const struct principal *before);

#endif
