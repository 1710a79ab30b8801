/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Answers libzmq's question who may come in (ZAP, RFC 27), on a thread of its own. It fails closed:
 * what is not understood, or is nobody's key, is denied; without this thread nobody gets in at all.
 * A key's User-Id is its 64 hexadecimal digits.
 */
#ifndef TREADLE_SHELL_AUTH_H
#define TREADLE_SHELL_AUTH_H

#include "broker/shell/principals.h"
#include "common/base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

#define AUTH_DOMAIN           "treadle"
#define AUTH_BURST            512U /* handshakes of one key, at once */
#define AUTH_PER_SECOND       64U  /* and after that */
#define AUTH_REFUSED_KEYS     64U  /* refused ones of which it is known when they were logged */
#define AUTH_LOG_SPAN_MS      60000U
#define AUTH_FINGERPRINT_SIZE 17 /* the first 16 digits of a key, and the NUL */

/* What a peer is told: in, try again later (its libzmq does), never. */
enum auth_status { AUTH_ADMITTED = 200, AUTH_NOT_NOW = 300, AUTH_DENIED = 400 };

struct auth_request {
    struct bytes version;
    struct bytes domain;
    struct bytes mechanism;
    struct bytes key; /* the credentials of CURVE */
    bool is_whole;    /* it had as many frames as it should */
};

/* Handshakes that a key may still make. */
struct auth_bucket {
    uint64_t filled_at_ms; /* 0: never used */
    uint32_t left;
};

/* When a refused key was last logged. */
struct auth_refused {
    uint8_t key[KEY_SIZE];
    uint64_t logged_at_ms;  /* 1 + the instant; 0: a free place */
    uint64_t refused_count; /* since then */
};

/* What is said of refusals. */
struct auth_told {
    uint64_t count;  /* of this key, since it was logged before, this one too */
    uint64_t others; /* of keys that were not logged: there were too many of them */
};

/* What is decided by; the thread's own holds it under a lock. */
struct auth_rules {
    const struct principals *principals; /* NULL: there is none yet */
    struct auth_bucket *buckets;         /* one for each key of it */
    bool is_full;                        /* there is no place for another connection */
    struct auth_refused refused[AUTH_REFUSED_KEYS];
    uint64_t others_count; /* refusals that no place counts, and that no line has told of */
};

/* Decides; *reason is a word for the log. Pure, but for the rules' own counting. */
enum auth_status auth_decide(struct auth_rules *rules, const struct auth_request *request,
                             uint64_t now_ms, const char **reason);

/* Counts the refusal of this key. True: it is to be logged with what *told says; once a minute a
 * key, and no more keys a minute than there are places for. */
bool auth_note_refused(struct auth_rules *rules, const uint8_t key[KEY_SIZE], uint64_t now_ms,
                       struct auth_told *told);

void auth_print_fingerprint(char out[AUTH_FINGERPRINT_SIZE], const uint8_t key[KEY_SIZE]);

struct auth;

struct auth_counts {
    uint64_t admitted;
    uint64_t denied;
    uint64_t not_now;
};

/* Takes libzmq's questions of this context from now on; before any socket is bound that asks them.
 * `principals` are lent, until auth_set_principals() or auth_close(). NULL on failure. */
struct auth *auth_open(void *context, const struct principals *principals);

/* Ends the thread: nobody gets in any more. Nulls the pointer; NULL inside is fine. */
void auth_close(struct auth **reference);

/* Decides by another table from now on. False: no memory, and it stays as it was. */
bool auth_set_principals(struct auth *auth, const struct principals *principals);

void auth_set_full(struct auth *auth, bool is_full);

struct auth_counts auth_counts(struct auth *auth);

#endif
