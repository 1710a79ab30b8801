/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE /* gethostname, clock_gettime, strerrordesc_np */
#include "client/client_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "client/task.h"
#include "client/wakeup.h"
#include "common/transport/credentials.h"
#include "common/transport/transport.h"

#define BROKER_DEFAULT     "tcp://127.0.0.1:7330"
#define CONNECT_TIMEOUT_MS 5000
#define IN_FLIGHT_DEFAULT  65536
#define IN_FLIGHT_LIMIT    (UINT32_C(1) << 24)
#define BYTE_MAX_DEFAULT   (UINT64_C(256) << 20)
#define BLOCKED_MS         100  /* a message that waits for room in the socket is tried again */
#define REOPEN_MS          1000 /* sockets that could not be opened */
#define READMIT_MS         500  /* sockets that have given up; up to twice that */
#define ERROR_TEXT_SIZE    600
#define RECEIVE_COUNT_MAX  1024 /* messages in a row before time is kept and others are sent */
#define SUBMIT_SEND_COUNT                                                                          \
    256                      /* tasks that wait to be sent until the next submission sends them    \
                              */
#define TIMEOUT_MAX_MS 60000 /* of one poll */
#define OPEN_WHY_SIZE  (KEY_WHY_SIZE > TRANSPORT_TEXT_SIZE ? KEY_WHY_SIZE : TRANSPORT_TEXT_SIZE)

struct treadle_client {
    struct client_session *session;
    struct credentials credentials;
    struct peer_transport *transport;
    struct task_reader reader;
    char *endpoint;
    bool is_event_new; /* something came that nobody has looked for since */
    bool had_contact;
    uint64_t refused_code; /* of the last REFUSED; REFUSED_CODE_COUNT: none */
    struct wakeup wakeup;  /* open once the application asked for it */
    uint32_t in_flight_max;
    uint64_t byte_max;
    uint64_t reopen_at_ms;  /* there are no sockets, and these are tried then; 0: there are */
    uint64_t readmit_at_ms; /* these have given up, and others are tried then; 0: they have not */
    bool is_blocked;        /* a message waits for room in the socket */
    uint32_t unsent_count;  /* submissions since the last look at the socket */
    uint64_t worked_at_ms;
    struct client_event *answer; /* what client_request() gave last */
    char error[ERROR_TEXT_SIZE];
};

/* What made this thread's last treadle_client_open() fail: there is no client to ask. */
static _Thread_local char open_error[ERROR_TEXT_SIZE];

_Static_assert((int)TREADLE_CANCEL_UNKNOWN == (int)CANCEL_UNKNOWN, "answers as on the wire");

uint64_t client_now_ms(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

__attribute__((format(printf, 2, 3))) static void set_error(treadle_client *client,
                                                            const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(client->error, sizeof(client->error), format, arguments);
    va_end(arguments);
}

static enum treadle_status fail(treadle_client *client, enum treadle_status status)
{
    set_error(client, "%s", treadle_status_text(status));
    return status;
}

const char *treadle_client_error(const treadle_client *client)
{
    return client == NULL ? open_error : client->error;
}

/* ---- opening and closing ---- */

/* "host:process:random", so that no two clients are taken for one that started anew. */
static struct client_session *create_session(const struct treadle_client_options *options)
{
    char host[256] = "";
    char name[NAME_SIZE_MAX + 1];
    struct client_session_config config = {
        .in_flight_max = options->in_flight_max,
        .byte_max = options->byte_max,
    };
    if (gethostname(host, sizeof(host) - 1) != 0) {
        host[0] = '\0';
    }
    host[NAME_SIZE_MAX] = '\0';
    if (options->name != NULL) {
        (void)snprintf(name, sizeof(name), "%s", options->name);
    } else {
        (void)snprintf(name, sizeof(name), "%.40s:%ld:%04x", host, (long)getpid(),
                       (unsigned)randombytes_uniform(65536));
    }
    config.name = bytes_from_text(name);
    config.host = bytes_from_text(host);
    randombytes_buf(config.incarnation, sizeof(config.incarnation));
    randombytes_buf(&config.seed, sizeof(config.seed));
    return client_session_create(&config);
}

static bool is_valid(const struct treadle_client_options *options)
{
    if (options->name != NULL &&
        (options->name[0] == '\0' || strlen(options->name) > NAME_SIZE_MAX)) {
        (void)snprintf(open_error, sizeof(open_error), "a client's name has 1 to 64 bytes");
        return false;
    }
    if (options->in_flight_max > IN_FLIGHT_LIMIT) {
        (void)snprintf(open_error, sizeof(open_error), "in_flight_max is at most 2^24");
        return false;
    }
    return true;
}

static const char *default_broker(void)
{
    const char *broker =
        getenv("TREADLE_BROKER"); /* NOLINT(concurrency-mt-unsafe): a reader only */
    return broker != NULL && broker[0] != '\0' ? broker : BROKER_DEFAULT;
}

/* With the keys that go with the endpoint. */
static enum treadle_status open_transport(treadle_client *client,
                                          const struct treadle_client_options *options,
                                          char why[OPEN_WHY_SIZE])
{
    const struct credentials_source source = {client->endpoint, options->identity,
                                              options->server_key};
    const enum treadle_status status = credentials_open(&client->credentials, &source, why);
    return status == TREADLE_OK ? peer_transport_open(&client->transport, client->endpoint,
                                                      credentials_keys(&client->credentials), why)
                                : status;
}

enum treadle_status client_open_only(treadle_client **client_pointer,
                                     const struct treadle_client_options *given)
{
    struct treadle_client_options options = {0};
    char why[OPEN_WHY_SIZE] = "";
    open_error[0] = '\0';
    if (given != NULL && !client_options_copy(&options, sizeof(options), given, given->size)) {
        (void)snprintf(open_error, sizeof(open_error),
                       "the size of struct treadle_client_options is not set, or it has fields "
                       "this library does not know");
        return TREADLE_E_INVALID;
    }
    if (!is_valid(&options)) {
        return TREADLE_E_INVALID;
    }
    enum treadle_status status = TREADLE_E_NOMEM;
    const char *endpoint = options.broker != NULL ? options.broker : default_broker();
    options.in_flight_max = options.in_flight_max != 0 ? options.in_flight_max : IN_FLIGHT_DEFAULT;
    options.byte_max = options.byte_max != 0 ? options.byte_max : BYTE_MAX_DEFAULT;
    treadle_client *client = calloc(1, sizeof(*client));
    if (client != NULL) {
        client->in_flight_max = options.in_flight_max;
        client->byte_max = options.byte_max;
        client->refused_code = REFUSED_CODE_COUNT;
        wakeup_init(&client->wakeup);
        client_task_reader_init(&client->reader);
        client->endpoint = strdup(endpoint);
    }
    if (client != NULL && client->endpoint != NULL) {
        status = open_transport(client, &options, why);
    }
    if (status == TREADLE_OK) {
        client->session = create_session(&options);
        status = client->session != NULL ? TREADLE_OK : TREADLE_E_NOMEM;
    }
    if (status != TREADLE_OK) {
        (void)snprintf(open_error, sizeof(open_error), "%s",
                       why[0] != '\0' ? why : treadle_status_text(status));
        treadle_client_close(&client);
        return status;
    }
    *client_pointer = client;
    return TREADLE_OK;
}

/* Why a client that was just opened found no broker. */
static void set_no_broker(const treadle_client *client, uint32_t timeout_ms)
{
    const char *why = client_transport_text(client);
    (void)snprintf(open_error, sizeof(open_error), "%.500s (tried for %u ms)",
                   why[0] != '\0' ? why : "the broker does not answer", (unsigned)timeout_ms);
}

enum treadle_status treadle_client_open(treadle_client **out,
                                        const struct treadle_client_options *options)
{
    treadle_client *client = NULL;
    const enum treadle_status status = client_open_only(&client, options);
    if (status != TREADLE_OK) {
        return status;
    }
    struct treadle_client_options known = {0};
    if (options != NULL) {
        (void)client_options_copy(&known, sizeof(known), options, options->size);
    }
    const uint32_t timeout_ms =
        known.connect_timeout_ms != 0 ? known.connect_timeout_ms : CONNECT_TIMEOUT_MS;
    const uint64_t until_ms = client_now_ms() + timeout_ms;
    enum treadle_status result = TREADLE_OK;
    while (!client_is_welcome(client)) {
        const uint64_t now_ms = client_now_ms();
        if (now_ms >= until_ms) {
            set_no_broker(client, timeout_ms);
            result = client_transport_fault(client) == TRANSPORT_FAULT_NOT_ADMITTED
                         ? TREADLE_E_REFUSED
                         : TREADLE_E_NO_BROKER;
            break;
        }
        const unsigned flags = client_pump(client, (int64_t)(until_ms - now_ms), -1);
        client->is_event_new = false;
        if ((flags & CLIENT_PUMP_FAILED) != 0 || client_session_is_over(client->session)) {
            memcpy(open_error, client->error, sizeof(open_error));
            result = (flags & CLIENT_PUMP_FAILED) != 0 ? TREADLE_E_IO : TREADLE_E_REFUSED;
            break;
        }
    }
    if (result != TREADLE_OK) {
        treadle_client_close(&client);
        return result;
    }
    *out = client;
    return TREADLE_OK;
}

void treadle_client_close(treadle_client **client_pointer)
{
    treadle_client *client = *client_pointer;
    if (client == NULL) {
        return;
    }
    if (client->session != NULL) {
        client_session_goodbye(client->session);
        const struct wire_frames *frames = NULL;
        if (peer_transport_is_writable(client->transport)) {
            frames = client_session_take_message(client->session, client_now_ms());
        }
        if (frames != NULL) {
            (void)peer_transport_send(client->transport, frames);
        }
    }
    client_event_destroy(&client->answer);
    client_session_destroy(&client->session);
    peer_transport_close(&client->transport);
    credentials_close(&client->credentials);
    wakeup_close(&client->wakeup);
    client_task_reader_reset(&client->reader);
    free(client->endpoint);
    free(client);
    *client_pointer = NULL;
}

/* ---- the pump ---- */

/* What is about the session itself is looked at here; those who wait see client_is_welcome() and
 * the like. */
static bool is_about_session(const struct client_event *event, const void *context)
{
    (void)context;
    return event->kind == CLIENT_EVENT_WELCOME || event->kind == CLIENT_EVENT_REFUSED;
}

static void look_at_session(treadle_client *client, enum message_kind kind)
{
    struct client_event *event = NULL;
    if (kind != MESSAGE_WELCOME && kind != MESSAGE_REFUSED) {
        return;
    }
    while ((event = client_session_take_event(client->session, is_about_session, NULL)) != NULL) {
        if (event->kind == CLIENT_EVENT_WELCOME) {
            client->had_contact = true;
            client->error[0] = '\0';
        } else {
            client->refused_code = event->status;
            set_error(client, "the broker refused: %s%s%.500s", refused_code_text(event->status),
                      event->text.size > 0 ? ": " : "",
                      event->text.size > 0 ? (const char *)event->text.data : "");
        }
        client_event_destroy(&event);
    }
}

static void take_in(treadle_client *client, uint64_t now_ms, const struct message *message)
{
    const struct client_session_figures before = client_session_figures(client->session);
    if (client_session_on_message(client->session, now_ms, message) == TREADLE_E_PROTOCOL) {
        set_error(client, "the broker sent %s, which is not for clients",
                  message_kind_text((uint64_t)message->kind));
    }
    const struct client_session_figures after = client_session_figures(client->session);
    if (after.event_count != before.event_count) {
        client->is_event_new = true;
        look_at_session(client, message->kind);
    } else if (after.unaccepted_count == 0 && before.unaccepted_count > 0) {
        client->is_event_new = true; /* who waits for acceptance, or for anything, looks again */
    }
}

static void receive(treadle_client *client, uint64_t now_ms)
{
    for (int i = 0; i < RECEIVE_COUNT_MAX; i++) {
        struct message message;
        const struct wire_frames *frames = peer_transport_receive(client->transport);
        if (frames == NULL) {
            return;
        }
        if (message_decode(&message, frames, &wire_limits_protocol) == WIRE_OK) {
            take_in(client, now_ms, &message);
        } else { /* as if it had been lost */
            set_error(client, "what listens at %s does not speak this protocol", client->endpoint);
        }
    }
}

static void send_all(treadle_client *client, uint64_t now_ms)
{
    client->unsent_count = 0;
    client->is_blocked = false;
    for (;;) {
        if (!peer_transport_is_writable(client->transport)) {
            client->is_blocked = client_session_next_at_ms(client->session) <= now_ms ||
                                 client_session_is_welcome(client->session);
            return;
        }
        const struct wire_frames *frames = client_session_take_message(client->session, now_ms);
        if (frames == NULL || !peer_transport_send(client->transport, frames)) {
            return;
        }
    }
}

/* False, and tried again later, when there are no sockets to be had. */
static bool reopen(treadle_client *client, uint64_t now_ms)
{
    client_session_on_disconnected(client->session, now_ms);
    if (peer_transport_reopen(client->transport) != TREADLE_OK) {
        set_error(client, "%s", peer_transport_reason(client->transport));
        client->reopen_at_ms = now_ms + REOPEN_MS;
        return false;
    }
    client->reopen_at_ms = 0;
    client->readmit_at_ms = 0;
    return true;
}

/* Does what is due; false while there are no sockets. */
static bool work(treadle_client *client)
{
    const uint64_t now_ms = client_now_ms();
    client->worked_at_ms = now_ms;
    if (client->reopen_at_ms != 0 && (now_ms < client->reopen_at_ms || !reopen(client, now_ms))) {
        client->unsent_count = 0;
        return false;
    }
    const unsigned happened = peer_transport_update(client->transport);
    if ((happened & TRANSPORT_DISCONNECTED) != 0) {
        client_session_on_disconnected(client->session, now_ms);
    }
    if ((happened & TRANSPORT_CONNECTED) != 0) {
        client_session_on_connected(client->session, now_ms);
    }
    if ((happened & TRANSPORT_GIVEN_UP) != 0) { /* not at once, and not all clients together */
        client->readmit_at_ms = now_ms + READMIT_MS + randombytes_uniform(READMIT_MS);
    }
    receive(client, now_ms);
    client_session_on_time(client->session, now_ms);
    const bool is_readmit_due = client->readmit_at_ms != 0 && now_ms >= client->readmit_at_ms;
    if ((client_session_wants_reconnect(client->session) || is_readmit_due) &&
        !reopen(client, now_ms)) {
        return false;
    }
    send_all(client, now_ms);
    return true;
}

/* When there is something to do, if nothing comes before. */
static uint64_t due_at_ms(const treadle_client *client, uint64_t now_ms)
{
    if (client->reopen_at_ms != 0) {
        return client->reopen_at_ms;
    }
    const uint64_t session_at_ms = client_session_next_at_ms(client->session);
    const uint64_t at_ms = client->readmit_at_ms != 0 && client->readmit_at_ms < session_at_ms
                               ? client->readmit_at_ms
                               : session_at_ms;
    /* What is due but cannot be sent waits for room in the socket, not for time. */
    return at_ms <= now_ms && client->is_blocked ? now_ms + BLOCKED_MS : at_ms;
}

/* How long to wait at most before something is due. */
static int64_t wait_ms(const treadle_client *client, uint64_t until_ms)
{
    const uint64_t now_ms = client_now_ms();
    const uint64_t due_ms = due_at_ms(client, now_ms);
    const uint64_t at_ms = due_ms < until_ms ? due_ms : until_ms;
    if (at_ms <= now_ms) {
        return 0;
    }
    return at_ms - now_ms < TIMEOUT_MAX_MS ? (int64_t)(at_ms - now_ms) : TIMEOUT_MAX_MS;
}

/* The application's descriptor tells what there is to do, or to give, from here on. To be called
 * after whatever touched the sockets, submitted tasks or took events. */
static void rearm(treadle_client *client)
{
    struct wakeup *wakeup = &client->wakeup;
    const bool has_events = client_session_figures(client->session).event_count > 0;
    if (!wakeup_is_open(wakeup) || (has_events && wakeup->is_now)) {
        return; /* what the sockets say can wait until the events are taken */
    }
    const bool has_input = client->reopen_at_ms == 0 && peer_transport_has_input(client->transport);
    const uint64_t now_ms = client_now_ms();
    const uint64_t at_ms = due_at_ms(client, now_ms);
    if (has_input || has_events || client->unsent_count > 0 || at_ms <= now_ms ||
        client_session_is_over(client->session)) {
        wakeup_now(wakeup);
    } else {
        wakeup_at(wakeup, now_ms, at_ms);
    }
}

int treadle_client_fd(treadle_client *client)
{
    struct wakeup *wakeup = &client->wakeup;
    if (!wakeup_is_open(wakeup)) {
        enum treadle_status status = wakeup_open(wakeup);
        if (status == TREADLE_OK) {
            status = peer_transport_watch(client->transport, wakeup->epoll_fd);
        }
        if (status != TREADLE_OK) {
            const char *why = strerrordesc_np(errno);
            set_error(client, "cannot make a descriptor to poll: %s",
                      why != NULL ? why : treadle_status_text(status));
            wakeup_close(wakeup);
            return -1;
        }
    }
    rearm(client);
    return wakeup->epoll_fd;
}

unsigned client_pump(treadle_client *client, int64_t timeout_ms, int fd)
{
    const uint64_t until_ms = timeout_ms < 0 ? UINT64_MAX : client_now_ms() + (uint64_t)timeout_ms;
    unsigned flags = 0;
    for (;;) {
        if (!work(client)) {
            return flags | CLIENT_PUMP_FAILED;
        }
        if (client->is_event_new) {
            flags |= CLIENT_PUMP_EVENT;
        }
        const uint64_t now_ms = client_now_ms();
        if (flags != 0 && (fd < 0 || (flags & CLIENT_PUMP_FD) != 0)) {
            return flags;
        }
        const int64_t span_ms = flags != 0 ? 0 : wait_ms(client, until_ms);
        const unsigned ready =
            peer_transport_wait(client->transport, span_ms, fd, client->is_blocked && flags == 0);
        flags |= (ready & TRANSPORT_FD) != 0 ? CLIENT_PUMP_FD : 0;
        flags |= (ready & TRANSPORT_INTERRUPTED) != 0 ? CLIENT_PUMP_INTERRUPTED : 0;
        if ((flags & ~CLIENT_PUMP_FD) != 0 || now_ms >= until_ms) {
            return flags;
        }
    }
}

struct client_event *client_take_event(treadle_client *client,
                                       bool (*is_wanted)(const struct client_event *event,
                                                         const void *context),
                                       const void *context)
{
    struct client_event *event = client_session_take_event(client->session, is_wanted, context);
    if (event == NULL) {
        client->is_event_new = false;
    }
    return event;
}

/* ---- waiting ---- */

static uint64_t until_from_timeout(int64_t timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : client_now_ms() + (uint64_t)timeout_ms;
}

static enum treadle_status time_is_up(treadle_client *client)
{
    const char *why = client_transport_text(client);
    set_error(client, "%s", why[0] != '\0' ? why : treadle_status_text(TREADLE_E_TIMEOUT));
    return TREADLE_E_TIMEOUT;
}

/* One turn of a wait: TREADLE_OK means look again. Whatever else comes, it ends in time. */
static enum treadle_status wait_once(treadle_client *client, uint64_t until_ms)
{
    const uint64_t now_ms = client_now_ms();
    if (client_session_is_over(client->session)) {
        return TREADLE_E_REFUSED; /* client->error says why */
    }
    if (now_ms > until_ms) {
        return time_is_up(client);
    }
    int64_t span_ms = TREADLE_FOREVER;
    if (until_ms != UINT64_MAX) {
        span_ms = until_ms > now_ms ? (int64_t)(until_ms - now_ms) : 0;
    }
    const unsigned flags = client_pump(client, span_ms, -1);
    if ((flags & CLIENT_PUMP_FAILED) != 0) {
        return TREADLE_E_IO;
    }
    if ((flags & CLIENT_PUMP_EVENT) != 0) {
        return TREADLE_OK;
    }
    if ((flags & CLIENT_PUMP_INTERRUPTED) != 0) {
        set_error(client, "interrupted by a signal");
        return TREADLE_E_AGAIN;
    }
    return client_now_ms() >= until_ms ? time_is_up(client) : TREADLE_OK;
}

static bool is_answer_to(const struct client_event *event, const void *context)
{
    return event->kind == CLIENT_EVENT_ANSWER && event->request == *(const uint64_t *)context;
}

enum treadle_status client_request(treadle_client *client, const struct message *query,
                                   int64_t timeout_ms, const struct message **answer)
{
    uint64_t number = 0;
    const uint64_t until_ms = until_from_timeout(timeout_ms);
    enum treadle_status status = client_session_request(client->session, query, &number);
    if (status != TREADLE_OK) {
        return fail(client, status);
    }
    client_event_destroy(&client->answer);
    for (;;) {
        client->answer = client_take_event(client, is_answer_to, &number);
        if (client->answer != NULL) {
            *answer = client->answer->answer;
            return TREADLE_OK;
        }
        status = wait_once(client, until_ms);
        if (status != TREADLE_OK) {
            client_session_forget_request(client->session, number);
            return status;
        }
    }
}

/* ---- tasks ---- */

static void set_too_large(treadle_client *client, size_t body_size)
{
    const uint64_t admitted_size = client_session_figures(client->session).body_size_max;
    if (body_size > admitted_size) {
        set_error(client, "the body has %zu bytes, and the broker admits %llu", body_size,
                  (unsigned long long)admitted_size);
    } else {
        set_error(client, "the body has %zu bytes, and this client holds %llu (byte_max)",
                  body_size, (unsigned long long)client->byte_max);
    }
}

static void set_no_room(treadle_client *client)
{
    const struct client_session_figures figures = client_session_figures(client->session);
    if (figures.in_flight_count >= client->in_flight_max) {
        set_error(client, "%u tasks are in flight (in_flight_max): take outcomes first",
                  (unsigned)figures.in_flight_count);
    } else {
        set_error(client,
                  "%u tasks in flight and %u outcomes not taken hold %llu bytes of %llu "
                  "(byte_max): take outcomes first",
                  (unsigned)figures.in_flight_count, (unsigned)figures.event_count,
                  (unsigned long long)figures.held_size, (unsigned long long)client->byte_max);
    }
}

enum treadle_status client_submit(treadle_client *client, const struct treadle_task *task,
                                  uint32_t tell, struct treadle_task_id *id)
{
    const char *why = NULL;
    if (!client_task_read(&client->reader, task, &why)) {
        set_error(client, "%s", why);
        return TREADLE_E_INVALID;
    }
    struct client_submission *submission = &client->reader.submission;
    submission->tell = tell;
    const enum treadle_status status =
        client_session_submit(client->session, client_now_ms(), submission);
    if (status == TREADLE_E_LIMIT) {
        set_too_large(client, submission->body.size);
    } else if (status == TREADLE_E_AGAIN) {
        set_no_room(client);
    } else if (status != TREADLE_OK) {
        return fail(client, status);
    } else if (id != NULL) {
        *id = submission->id;
    }
    return status;
}

enum treadle_status treadle_client_submit(treadle_client *client, const struct treadle_task *task,
                                          struct treadle_task_id *id)
{
    const enum treadle_status status = client_submit(client, task, 0, id);
    if (status != TREADLE_OK) {
        return status;
    }
    /* Sent at once when little happens, together when much does. */
    if (++client->unsent_count >= SUBMIT_SEND_COUNT || client_now_ms() != client->worked_at_ms) {
        (void)work(client); /* that there is no socket is told to who waits */
        rearm(client);
    } else if (wakeup_is_open(&client->wakeup)) {
        wakeup_now(&client->wakeup);
    }
    return TREADLE_OK;
}

enum treadle_status treadle_client_flush(treadle_client *client, int64_t timeout_ms)
{
    const uint64_t until_ms = until_from_timeout(timeout_ms);
    enum treadle_status status = work(client) ? TREADLE_OK : TREADLE_E_IO;
    while (status == TREADLE_OK && client_session_figures(client->session).unaccepted_count > 0) {
        client->is_event_new = false; /* events are for treadle_client_recv() */
        status = wait_once(client, until_ms);
    }
    rearm(client);
    return status;
}

/* An application that always finds outcomes must not forget to acknowledge them. */
static void keep_up(treadle_client *client)
{
    if (client_now_ms() != client->worked_at_ms) {
        (void)work(client); /* that there is no socket is told to who waits */
    }
}

static bool is_end_of(const struct client_event *event, const void *context)
{
    const struct treadle_task_id *id = context;
    return client_event_is_end(event) && memcmp(event->id.bytes, id->bytes, sizeof(id->bytes)) == 0;
}

static enum treadle_status receive_id(treadle_client *client, const struct treadle_task_id *id,
                                      int64_t timeout_ms, struct treadle_outcome **outcome)
{
    const uint64_t until_ms = until_from_timeout(timeout_ms);
    for (;;) {
        struct client_event *event = client_take_event(client, is_end_of, id);
        if (event != NULL) {
            return client_outcome_from_event(&event, outcome);
        }
        if (!client_session_is_followed(client->session, *id)) {
            set_error(client, "this client does not wait for that task");
            return TREADLE_E_NOT_FOUND;
        }
        const enum treadle_status status = wait_once(client, until_ms);
        if (status != TREADLE_OK) {
            return status;
        }
    }
}

enum treadle_status treadle_client_recv_id(treadle_client *client, const struct treadle_task_id *id,
                                           int64_t timeout_ms, struct treadle_outcome **outcome)
{
    keep_up(client);
    const enum treadle_status status = receive_id(client, id, timeout_ms, outcome);
    rearm(client);
    return status;
}

static bool is_idle(const treadle_client *client)
{
    return client_session_figures(client->session).in_flight_count == 0;
}

static enum treadle_status receive_any(treadle_client *client, int64_t timeout_ms,
                                       struct treadle_outcome **outcome)
{
    const uint64_t until_ms = until_from_timeout(timeout_ms);
    for (;;) {
        struct client_event *event = NULL;
        while ((event = client_take_event(client, NULL, NULL)) != NULL) {
            if (client_event_is_end(event)) {
                return client_outcome_from_event(&event, outcome);
            }
            client_event_destroy(&event);
        }
        /* With nothing to wait for, what is due is done all the same. */
        const enum treadle_status status =
            wait_once(client, is_idle(client) ? until_from_timeout(0) : until_ms);
        if (status == TREADLE_E_TIMEOUT && is_idle(client)) {
            set_error(client, "nothing is in flight");
        }
        if (status != TREADLE_OK) {
            return status;
        }
    }
}

enum treadle_status treadle_client_recv(treadle_client *client, int64_t timeout_ms,
                                        struct treadle_outcome **outcome)
{
    keep_up(client);
    const enum treadle_status status = receive_any(client, timeout_ms, outcome);
    rearm(client);
    return status;
}

enum treadle_status treadle_client_run(treadle_client *client, const struct treadle_task *task,
                                       int64_t timeout_ms, struct treadle_outcome **outcome)
{
    struct treadle_task_id id;
    if (task->size >= offsetof(struct treadle_task, flags) + sizeof(task->flags) &&
        (task->flags & TREADLE_TASK_DETACHED) != 0) {
        set_error(client, "a detached task has no outcome to wait for");
        return TREADLE_E_INVALID;
    }
    const enum treadle_status status = client_submit(client, task, 0, &id);
    return status == TREADLE_OK ? treadle_client_recv_id(client, &id, timeout_ms, outcome) : status;
}

enum treadle_status treadle_client_await(treadle_client *client, const struct treadle_task_id *id)
{
    const enum treadle_status status = client_session_await(client->session, *id);
    if (status == TREADLE_E_AGAIN) {
        set_no_room(client);
        return status;
    }
    if (status != TREADLE_OK) {
        return fail(client, status);
    }
    (void)work(client); /* that there is no socket is told to who waits */
    rearm(client);
    return TREADLE_OK;
}

static bool is_cancelled(const struct client_event *event, const void *context)
{
    const struct treadle_task_id *id = context;
    return event->kind == CLIENT_EVENT_CANCELLED &&
           memcmp(event->id.bytes, id->bytes, sizeof(id->bytes)) == 0;
}

static enum treadle_status wait_cancelled(treadle_client *client, const struct treadle_task_id *id,
                                          int64_t timeout_ms, enum treadle_cancel *answer)
{
    const uint64_t until_ms = until_from_timeout(timeout_ms);
    for (;;) {
        struct client_event *event = client_take_event(client, is_cancelled, id);
        if (event != NULL) {
            if (answer != NULL) {
                *answer = (enum treadle_cancel)event->status;
            }
            client_event_destroy(&event);
            return TREADLE_OK;
        }
        const enum treadle_status status = wait_once(client, until_ms);
        if (status != TREADLE_OK) {
            return status;
        }
    }
}

enum treadle_status treadle_client_cancel(treadle_client *client, const struct treadle_task_id *id,
                                          int64_t timeout_ms, enum treadle_cancel *answer)
{
    enum treadle_status status = client_session_cancel(client->session, *id);
    if (status == TREADLE_E_AGAIN) {
        set_error(client, "too many cancellations wait for their answers");
        return status;
    }
    if (status != TREADLE_OK) {
        return fail(client, status);
    }
    status = wait_cancelled(client, id, timeout_ms, answer);
    if (status != TREADLE_OK) {
        client_session_forget_cancel(client->session, *id); /* the answer, not the request */
    }
    rearm(client);
    return status;
}

/* ---- looking at it ---- */

bool client_is_welcome(const treadle_client *client)
{
    return client_session_is_welcome(client->session);
}

bool client_had_contact(const treadle_client *client)
{
    return client->had_contact;
}

uint64_t client_refused_code(const treadle_client *client)
{
    return client->refused_code;
}

const char *client_transport_text(const treadle_client *client)
{
    if (client_is_welcome(client)) {
        return "";
    }
    const char *text = peer_transport_reason(client->transport);
    return text[0] != '\0' ? text : client->error;
}

enum transport_fault client_transport_fault(const treadle_client *client)
{
    return peer_transport_fault(client->transport);
}

const uint8_t *client_public_key(const treadle_client *client)
{
    return client->credentials.is_encrypted ? key_pair_public(client->credentials.identity) : NULL;
}

const char *client_endpoint(const treadle_client *client)
{
    return client->endpoint;
}

struct client_session *client_session_of(treadle_client *client)
{
    return client->session;
}
