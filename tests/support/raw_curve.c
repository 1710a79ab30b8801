/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "tests/support/raw_curve.h"

#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/raw_peer.h"

#define GREETING_SIZE  64U
#define PREFIX_SIZE    16U /* of a short nonce; 8 bytes of counter follow */
#define COUNTER_SIZE   8U
#define COOKIE_SIZE    96U
#define HELLO_SIZE     200U
#define WELCOME_SIZE   168U
#define INITIATE_BEGIN (9U + COOKIE_SIZE + COUNTER_SIZE)
#define VOUCH_SIZE     (16U + 80U)
#define FLAG_LONG      2U
#define FLAG_COMMAND   4U

static const uint8_t metadata[] = "\x0bSocket-Type\0\0\0\x06"
                                  "DEALER\x08"
                                  "Identity\0\0\0";
#define METADATA_SIZE (sizeof metadata) /* with the last zero of the identity's size */

static void make_nonce(uint8_t nonce[crypto_box_NONCEBYTES], const char *prefix, uint64_t number)
{
    memcpy(nonce, prefix, PREFIX_SIZE);
    bytes_store_u64(nonce + PREFIX_SIZE, number);
}

static bool set_timeout(int fd, uint32_t timeout_ms)
{
    const struct timeval timeout = {(time_t)(timeout_ms / 1000),
                                    (suseconds_t)(timeout_ms % 1000) * 1000};
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0;
}

static bool receive_all(int fd, uint8_t *out, size_t size)
{
    return recv(fd, out, size, MSG_WAITALL) == (ssize_t)size;
}

static bool exchange_greetings(int fd)
{
    const uint8_t greeting[GREETING_SIZE] = {
        [0] = 0xff, [8] = 1,    [9] = 0x7f, [10] = 3,  [12] = 'C',
        [13] = 'U', [14] = 'R', [15] = 'V', [16] = 'E'};
    uint8_t theirs[GREETING_SIZE];
    return raw_send(fd, (struct bytes){greeting, sizeof greeting}) &&
           receive_all(fd, theirs, sizeof theirs);
}

static bool send_hello(struct raw_curve *peer, const uint8_t *server_key)
{
    static const uint8_t zeros[64];
    uint8_t frame[2 + HELLO_SIZE] = {FLAG_COMMAND, HELLO_SIZE};
    uint8_t nonce[crypto_box_NONCEBYTES];
    uint8_t *hello = frame + 2;
    memcpy(hello, "\x05HELLO\x01", 7);
    memcpy(hello + 80, peer->short_public, KEY_SIZE);
    make_nonce(nonce, "CurveZMQHELLO---", ++peer->nonce);
    memcpy(hello + 112, nonce + PREFIX_SIZE, COUNTER_SIZE);
    return crypto_box_easy(hello + 120, zeros, sizeof zeros, nonce, server_key,
                           peer->short_secret) == 0 &&
           raw_send(peer->fd, (struct bytes){frame, sizeof frame});
}

static bool take_welcome(struct raw_curve *peer, const uint8_t *server_key)
{
    uint8_t frame[2 + WELCOME_SIZE];
    uint8_t nonce[crypto_box_NONCEBYTES];
    uint8_t plain[KEY_SIZE + COOKIE_SIZE];
    const uint8_t *welcome = frame + 2;
    if (!receive_all(peer->fd, frame, sizeof frame) || memcmp(welcome, "\x07WELCOME", 8) != 0) {
        return false;
    }
    memcpy(nonce, "WELCOME-", 8);
    memcpy(nonce + 8, welcome + 8, 16);
    if (crypto_box_open_easy(plain, welcome + 24, sizeof plain + crypto_box_MACBYTES, nonce,
                             server_key, peer->short_secret) != 0) {
        return false;
    }
    memcpy(peer->server_short, plain, KEY_SIZE);
    memcpy(peer->cookie, plain + KEY_SIZE, COOKIE_SIZE);
    return true;
}

bool raw_curve_begin(struct raw_curve *peer, const char *endpoint,
                     const struct raw_curve_keys *keys, uint32_t timeout_ms)
{
    *peer = (struct raw_curve){.fd = raw_connect(endpoint)};
    return peer->fd != -1 && crypto_box_keypair(peer->short_public, peer->short_secret) == 0 &&
           set_timeout(peer->fd, timeout_ms) && exchange_greetings(peer->fd) &&
           send_hello(peer, keys->server_key) && take_welcome(peer, keys->server_key);
}

/* That the owner of the key wants this connection: in the box only the server can open. */
static bool put_vouch(uint8_t out[VOUCH_SIZE], const struct raw_curve *peer,
                      const struct raw_curve_keys *keys)
{
    uint8_t nonce[crypto_box_NONCEBYTES];
    uint8_t plain[2 * KEY_SIZE];
    memcpy(nonce, "VOUCH---", 8);
    randombytes_buf(nonce + 8, 16);
    memcpy(out, nonce + 8, 16);
    memcpy(plain, peer->short_public, KEY_SIZE);
    memcpy(plain + KEY_SIZE, keys->server_key, KEY_SIZE);
    return crypto_box_easy(out + 16, plain, sizeof plain, nonce, peer->server_short,
                           keys->secret_key) == 0;
}

bool raw_curve_initiate(struct raw_curve *peer, const struct raw_curve_keys *keys)
{
    enum { PLAIN_SIZE = KEY_SIZE + VOUCH_SIZE + METADATA_SIZE };
    uint8_t frame[9 + INITIATE_BEGIN + crypto_box_MACBYTES + PLAIN_SIZE] = {FLAG_COMMAND |
                                                                            FLAG_LONG};
    uint8_t plain[PLAIN_SIZE];
    uint8_t nonce[crypto_box_NONCEBYTES];
    uint8_t *initiate = frame + 9;
    bytes_store_u64(frame + 1, sizeof frame - 9);
    memcpy(initiate, "\x08INITIATE", 9);
    memcpy(initiate + 9, peer->cookie, COOKIE_SIZE);
    make_nonce(nonce, "CurveZMQINITIATE", ++peer->nonce);
    memcpy(initiate + 9 + COOKIE_SIZE, nonce + PREFIX_SIZE, COUNTER_SIZE);
    memcpy(plain, keys->public_key, KEY_SIZE);
    memcpy(plain + KEY_SIZE + VOUCH_SIZE, metadata, METADATA_SIZE);
    return put_vouch(plain + KEY_SIZE, peer, keys) &&
           crypto_box_easy(initiate + INITIATE_BEGIN, plain, sizeof plain, nonce,
                           peer->server_short, peer->short_secret) == 0 &&
           raw_send(peer->fd, (struct bytes){frame, sizeof frame});
}

bool raw_curve_open(struct raw_curve *peer, const char *endpoint, const struct raw_curve_keys *keys,
                    uint32_t timeout_ms)
{
    uint8_t begin[8]; /* of READY, or of ERROR; how it ends does not matter to a peer like this */
    const bool is_in =
        raw_curve_begin(peer, endpoint, keys, timeout_ms) && raw_curve_initiate(peer, keys) &&
        receive_all(peer->fd, begin, sizeof begin) && memcmp(begin + 2, "\x05READY", 6) == 0;
    if (!is_in && peer->fd != -1) {
        (void)close(peer->fd);
        peer->fd = -1;
    }
    return is_in;
}

bool raw_curve_send(struct raw_curve *peer, struct bytes frame, bool has_more)
{
    const size_t plain_size = 1 + frame.size;
    const size_t size = 8 + COUNTER_SIZE + crypto_box_MACBYTES + plain_size;
    uint8_t nonce[crypto_box_NONCEBYTES];
    uint8_t *plain = malloc(plain_size);
    uint8_t *out = malloc(9 + size);
    bool is_sent = false;
    if (plain != NULL && out != NULL) {
        plain[0] = has_more ? 1 : 0;
        if (frame.size > 0) {
            memcpy(plain + 1, frame.data, frame.size);
        }
        out[0] = FLAG_LONG;
        bytes_store_u64(out + 1, size);
        memcpy(out + 9, "\x07MESSAGE", 8);
        make_nonce(nonce, "CurveZMQMESSAGEC", ++peer->nonce);
        memcpy(out + 17, nonce + PREFIX_SIZE, COUNTER_SIZE);
        is_sent = crypto_box_easy(out + 25, plain, plain_size, nonce, peer->server_short,
                                  peer->short_secret) == 0 &&
                  raw_send(peer->fd, (struct bytes){out, 9 + size});
    }
    free(plain);
    free(out);
    return is_sent;
}

static int64_t clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool raw_is_ended_within(int fd, int span_ms)
{
    const int64_t until_ms = clock_ms() + span_ms;
    for (int64_t left_ms = span_ms; left_ms >= 0; left_ms = until_ms - clock_ms()) {
        uint8_t dropped[4096];
        struct pollfd item = {.fd = fd, .events = POLLIN};
        if (poll(&item, 1, (int)left_ms) == 1 &&
            recv(fd, dropped, sizeof dropped, MSG_DONTWAIT) <= 0) {
            return true;
        }
    }
    return false;
}
