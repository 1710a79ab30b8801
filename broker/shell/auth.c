/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/auth.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/assert.h"
#include "common/base/log.h"

#define ENDPOINT        "inproc://zeromq.zap.01"
#define VERSION         "1.0"
#define FRAME_COUNT     7U /* version, request, domain, address, identity, mechanism, credentials */
#define FRAME_ROOM      256U
#define STATUS_TEXT_MAX 4U

enum {
    FRAME_VERSION,
    FRAME_REQUEST,
    FRAME_DOMAIN,
    FRAME_ADDRESS,
    FRAME_IDENTITY,
    FRAME_MECHANISM,
    FRAME_KEY
};

struct auth {
    void *socket; /* the thread's, once it runs */
    int stop_fd;  /* readable: the thread ends */
    pthread_t thread;
    bool is_running;
    pthread_mutex_t lock; /* of what follows */
    struct auth_rules rules;
    struct auth_counts counts;
};

/* One question, as it came. */
struct question {
    uint8_t data[FRAME_COUNT][FRAME_ROOM];
    size_t size[FRAME_COUNT];
    bool is_whole; /* as many frames as there should be, none larger than its room */
};

/* ---- deciding ---- */

static bool is_text(struct bytes bytes, const char *text)
{
    return bytes_is_equal(bytes, bytes_from_text(text));
}

static bool take_handshake(struct auth_bucket *bucket, uint64_t now_ms)
{
    if (bucket->filled_at_ms == 0) {
        *bucket = (struct auth_bucket){.filled_at_ms = now_ms + 1, .left = AUTH_BURST};
    }
    const uint64_t span_ms = now_ms + 1 - bucket->filled_at_ms;
    const uint64_t more = span_ms * AUTH_PER_SECOND / 1000;
    if (more > 0) {
        bucket->left =
            more >= AUTH_BURST - bucket->left ? AUTH_BURST : bucket->left + (uint32_t)more;
        bucket->filled_at_ms = now_ms + 1;
    }
    if (bucket->left == 0) {
        return false;
    }
    bucket->left--;
    return true;
}

enum auth_status auth_decide(struct auth_rules *rules, const struct auth_request *request,
                             uint64_t now_ms, const char **reason)
{
    *reason = "malformed";
    if (!request->is_whole || !is_text(request->version, VERSION)) {
        return AUTH_DENIED;
    }
    *reason = "domain";
    if (!is_text(request->domain, AUTH_DOMAIN)) {
        return AUTH_DENIED;
    }
    *reason = "mechanism";
    if (!is_text(request->mechanism, "CURVE") || request->key.size != KEY_SIZE) {
        return AUTH_DENIED;
    }
    *reason = "no_principals";
    if (rules->principals == NULL) {
        return AUTH_NOT_NOW;
    }
    *reason = "unknown_key";
    const uint32_t found = principals_find_key(rules->principals, request->key.data);
    if (found == KEY_NONE) {
        return AUTH_DENIED;
    }
    *reason = "full";
    if (rules->is_full) {
        return AUTH_NOT_NOW;
    }
    *reason = "too_often";
    if (!take_handshake(&rules->buckets[found], now_ms)) {
        return AUTH_NOT_NOW;
    }
    *reason = "";
    return AUTH_ADMITTED;
}

/* The key's own place, else one that is free or whose line is old enough to be forgotten; NULL: all
 * are taken. */
static struct auth_refused *find_refused(struct auth_rules *rules, const uint8_t key[KEY_SIZE],
                                         uint64_t now_ms)
{
    struct auth_refused *place = NULL;
    for (uint32_t i = 0; i < AUTH_REFUSED_KEYS; i++) {
        struct auth_refused *refused = &rules->refused[i];
        if (refused->logged_at_ms != 0 && memcmp(refused->key, key, KEY_SIZE) == 0) {
            return refused;
        }
        if (place == NULL && (refused->logged_at_ms == 0 ||
                              now_ms + 1 - refused->logged_at_ms >= AUTH_LOG_SPAN_MS)) {
            place = refused;
        }
    }
    if (place != NULL) {
        rules->others_count += place->refused_count;
        *place = (struct auth_refused){.logged_at_ms = 0};
        memcpy(place->key, key, KEY_SIZE);
    }
    return place;
}

bool auth_note_refused(struct auth_rules *rules, const uint8_t key[KEY_SIZE], uint64_t now_ms,
                       struct auth_told *told)
{
    struct auth_refused *refused = find_refused(rules, key, now_ms);
    if (refused == NULL) {
        rules->others_count++;
        return false;
    }
    refused->refused_count++;
    if (refused->logged_at_ms != 0 && now_ms + 1 - refused->logged_at_ms < AUTH_LOG_SPAN_MS) {
        return false;
    }
    *told = (struct auth_told){refused->refused_count, rules->others_count};
    refused->logged_at_ms = now_ms + 1;
    refused->refused_count = 0;
    rules->others_count = 0;
    return true;
}

void auth_print_fingerprint(char out[AUTH_FINGERPRINT_SIZE], const uint8_t key[KEY_SIZE])
{
    char hex[KEY_HEX_SIZE];
    key_print(hex, key);
    memcpy(out, hex, AUTH_FINGERPRINT_SIZE - 1);
    out[AUTH_FINGERPRINT_SIZE - 1] = '\0';
}

/* ---- answering ---- */

static uint64_t clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* False: there is none. */
static bool take_question(void *socket, struct question *question)
{
    uint32_t count = 0;
    int more = 1;
    size_t more_size = sizeof more;
    question->is_whole = true;
    while (more != 0) {
        uint8_t beyond[1];
        const bool has_place = count < FRAME_COUNT;
        void *room = has_place ? question->data[count] : beyond;
        const size_t room_size = has_place ? FRAME_ROOM : sizeof beyond;
        const int size = zmq_recv(socket, room, room_size, ZMQ_DONTWAIT);
        if (size < 0) {
            return false;
        }
        if (!has_place || (size_t)size > room_size) {
            question->is_whole = false;
        } else {
            question->size[count] = (size_t)size;
        }
        count++;
        if (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_size) != 0) {
            return false;
        }
    }
    question->is_whole = question->is_whole && count == FRAME_COUNT;
    return true;
}

static struct bytes frame_of(const struct question *question, int frame)
{
    if (!question->is_whole) {
        return (struct bytes){NULL, 0};
    }
    return (struct bytes){question->data[frame], question->size[frame]};
}

static void send_answer(void *socket, struct bytes request, enum auth_status status,
                        const char *user)
{
    char code[STATUS_TEXT_MAX];
    (void)snprintf(code, sizeof code, "%d", (int)status);
    const struct bytes frames[] = {
        bytes_from_text(VERSION), request,
        bytes_from_text(code),    bytes_from_text(status == AUTH_ADMITTED ? "OK" : ""),
        bytes_from_text(user),    {NULL, 0},
    };
    const size_t count = sizeof frames / sizeof frames[0];
    for (size_t i = 0; i < count; i++) {
        (void)zmq_send(socket, frames[i].data, frames[i].size, i + 1 < count ? ZMQ_SNDMORE : 0);
    }
}

static void log_refused(struct bytes key, struct bytes address, const char *reason,
                        const struct auth_told *told)
{
    char fingerprint[AUTH_FINGERPRINT_SIZE] = "none";
    char quoted[FRAME_ROOM];
    if (key.size == KEY_SIZE) {
        auth_print_fingerprint(fingerprint, key.data);
    }
    log_warn("auth.refused", "key=\"%s\" address=%s reason=%s count=%" PRIu64 " others=%" PRIu64,
             fingerprint, log_quote(quoted, sizeof quoted, address.data, address.size), reason,
             told->count, told->others);
}

static void count_status(struct auth_counts *counts, enum auth_status status)
{
    switch (status) {
    case AUTH_ADMITTED:
        counts->admitted++;
        return;
    case AUTH_NOT_NOW:
        counts->not_now++;
        return;
    case AUTH_DENIED:
        counts->denied++;
        return;
    }
}

static void answer(struct auth *auth, const struct question *question)
{
    static const uint8_t no_key[KEY_SIZE];
    const struct auth_request request = {
        .version = frame_of(question, FRAME_VERSION),
        .domain = frame_of(question, FRAME_DOMAIN),
        .mechanism = frame_of(question, FRAME_MECHANISM),
        .key = frame_of(question, FRAME_KEY),
        .is_whole = question->is_whole,
    };
    const uint8_t *key = request.key.size == KEY_SIZE ? request.key.data : no_key;
    const uint64_t now_ms = clock_ms();
    const char *reason = "";
    char user[KEY_HEX_SIZE] = "";
    struct auth_told told;
    (void)pthread_mutex_lock(&auth->lock);
    const enum auth_status status = auth_decide(&auth->rules, &request, now_ms, &reason);
    const bool is_logged =
        status != AUTH_ADMITTED && auth_note_refused(&auth->rules, key, now_ms, &told);
    count_status(&auth->counts, status);
    (void)pthread_mutex_unlock(&auth->lock);
    if (status == AUTH_ADMITTED) {
        key_print(user, key);
    }
    send_answer(auth->socket, frame_of(question, FRAME_REQUEST), status, user);
    if (is_logged) {
        log_refused(request.key, frame_of(question, FRAME_ADDRESS), reason, &told);
    }
}

static void *serve(void *context)
{
    struct auth *auth = context;
    struct question question;
    zmq_pollitem_t items[2] = {{.socket = auth->socket, .events = ZMQ_POLLIN},
                               {.fd = auth->stop_fd, .events = ZMQ_POLLIN}};
    while (items[1].revents == 0) {
        if (zmq_poll(items, 2, -1) == -1 && errno != EINTR) {
            log_error("auth.failed", "reason=\"%s: nobody gets in any more\"", zmq_strerror(errno));
            break;
        }
        if ((items[0].revents & ZMQ_POLLIN) != 0 && take_question(auth->socket, &question)) {
            answer(auth, &question);
        }
    }
    (void)zmq_close(auth->socket);
    return NULL;
}

/* ---- opening and closing ---- */

static struct auth_bucket *new_buckets(const struct principals *principals)
{
    const uint32_t count = principals == NULL ? 0 : principals_key_count(principals);
    return calloc(count + 1, sizeof(struct auth_bucket));
}

struct auth *auth_open(void *context, const struct principals *principals)
{
    struct auth *auth = calloc(1, sizeof *auth);
    if (auth == NULL) {
        return NULL;
    }
    (void)pthread_mutex_init(&auth->lock, NULL);
    const int linger_ms = 0;
    auth->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    auth->rules.principals = principals;
    auth->rules.buckets = new_buckets(principals);
    auth->socket = zmq_socket(context, ZMQ_REP);
    const bool is_ready =
        auth->stop_fd != -1 && auth->rules.buckets != NULL && auth->socket != NULL &&
        zmq_setsockopt(auth->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms) == 0 &&
        zmq_bind(auth->socket, ENDPOINT) == 0;
    auth->is_running = is_ready && pthread_create(&auth->thread, NULL, serve, auth) == 0;
    if (!auth->is_running) {
        if (auth->socket != NULL) {
            (void)zmq_close(auth->socket);
        }
        auth_close(&auth);
    }
    return auth;
}

void auth_close(struct auth **reference)
{
    struct auth *auth = *reference;
    if (auth == NULL) {
        return;
    }
    if (auth->is_running) {
        const uint64_t one = 1;
        const ssize_t written = write(auth->stop_fd, &one, sizeof one);
        TREADLE_ASSERT(written == (ssize_t)sizeof one);
        (void)pthread_join(auth->thread, NULL);
    }
    if (auth->stop_fd != -1) {
        (void)close(auth->stop_fd);
    }
    (void)pthread_mutex_destroy(&auth->lock);
    free(auth->rules.buckets);
    free(auth);
    *reference = NULL;
}

bool auth_set_principals(struct auth *auth, const struct principals *principals)
{
    struct auth_bucket *buckets = new_buckets(principals);
    if (buckets == NULL) {
        return false;
    }
    (void)pthread_mutex_lock(&auth->lock);
    struct auth_bucket *before = auth->rules.buckets;
    auth->rules.principals = principals;
    auth->rules.buckets = buckets;
    (void)pthread_mutex_unlock(&auth->lock);
    free(before);
    return true;
}

void auth_set_full(struct auth *auth, bool is_full)
{
    (void)pthread_mutex_lock(&auth->lock);
    auth->rules.is_full = is_full;
    (void)pthread_mutex_unlock(&auth->lock);
}

struct auth_counts auth_counts(struct auth *auth)
{
    (void)pthread_mutex_lock(&auth->lock);
    const struct auth_counts counts = auth->counts;
    (void)pthread_mutex_unlock(&auth->lock);
    return counts;
}
