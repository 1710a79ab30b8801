/* SPDX-License-Identifier: MPL-2.0 */
/*
 * CURVE keys: files, texts, and the memory a secret lives in. Files are ZPL, as czmq's certificates
 * are; where a person types a public key it is a file or 64 hexadecimal digits. What goes wrong is
 * told as "WHERE: why; do THIS", and never with any part of a secret. Threads: sodium_init() first,
 * then any; one key belongs to one thread at a time.
 */
#ifndef TREADLE_KEYS_H
#define TREADLE_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <treadle/status.h>

#define KEY_SIZE      32
#define KEY_HEX_SIZE  65 /* 64 digits and the NUL */
#define KEY_Z85_SIZE  41 /* 40 characters and the NUL */
#define KEY_NAME_SIZE 65
#define KEY_WHY_SIZE  512

/* A key pair; its secret half is in memory of sodium_malloc(), read-only, locked where the system
 * admits it, wiped at the end. A process that is forked off finds zeros there and may only close
 * it. */
struct key_pair;

/* Reads a file with a secret key. Refused (TREADLE_E_INVALID): not a regular file, a symbolic link,
 * of another owner than this process' effective user, readable or writable by group or others, not
 * ZPL, no or a malformed key, a public key that does not belong to the secret one. TREADLE_E_IO,
 * TREADLE_E_NOT_FOUND, TREADLE_E_NOMEM. */
enum treadle_status key_pair_open(struct key_pair **out, const char *path, char why[KEY_WHY_SIZE]);

/* A new one, of no file. */
enum treadle_status key_pair_create(struct key_pair **out);

/* Wipes it and nulls the pointer; NULL is fine. */
void key_pair_close(struct key_pair **pair);

const uint8_t *key_pair_public(const struct key_pair *pair);
const uint8_t *key_pair_secret(const struct key_pair *pair);

/* Writes DIR/NAME.key (0600, with the secret) and DIR/NAME.pub (0644). Never overwrites:
 * TREADLE_E_CONFLICT, and then neither is written. TREADLE_E_INVALID: NAME is not 1..64 bytes of
 * [A-Za-z0-9._-], begins with a dot or ends in .key or .pub; TREADLE_E_IO. */
enum treadle_status key_pair_write(const struct key_pair *pair, const char *name, const char *dir,
                                   char why[KEY_WHY_SIZE]);

/* Reads another's public key: 64 hexadecimal digits, or the name of a .pub file. TREADLE_E_INVALID:
 * no key file, or one with a secret key, which only its owner should have; TREADLE_E_NOT_FOUND,
 * TREADLE_E_IO, TREADLE_E_NOMEM. */
enum treadle_status key_public_read(uint8_t key[KEY_SIZE], const char *text,
                                    char why[KEY_WHY_SIZE]);

/* As key_public_read(), but of a .key file, too, of whose secret nothing is looked at; and the name
 * that the file gives the key, "" if there is none. */
enum treadle_status key_public_read_named(uint8_t key[KEY_SIZE], char name[KEY_NAME_SIZE],
                                          const char *text, char why[KEY_WHY_SIZE]);

/* 64 lower-case digits. */
void key_print(char hex[KEY_HEX_SIZE], const uint8_t key[KEY_SIZE]);

/* As in files, and in other programs that speak ZeroMQ. Not for secrets that are to be wiped. */
void key_print_z85(char text[KEY_Z85_SIZE], const uint8_t key[KEY_SIZE]);

/* The process holds secrets: no core dumps, and nobody's debugger (PR_SET_DUMPABLE 0). */
void key_protect_process(void);

#endif
