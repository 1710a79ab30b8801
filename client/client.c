/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE /* gethostname, clock_gettime */
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
#include "common/base/assert.h"
#include "common/transport/transport.h"

#define BROKER_DEFAULT     "tcp://127.0.0.1:7330"
#define CONNECT_TIMEOUT_MS 5000
#define IN_FLIGHT_DEFAULT  65536
#define IN_FLIGHT_LIMIT    (UINT32_C(1) << 24)
#define ERROR_TEXT_SIZE    600
#define RECEIVE_COUNT_MAX  1024 /* messages in a row before time is kept and others are sent */
#define SUBMIT_SEND_COUNT                                                                          \
    256                      /* tasks that wait to be sent until the next submission sends them    \
                              */
#define TIMEOUT_MAX_MS 60000 /* of one poll */

struct treadle_client {
    struct client_session *session;
    struct peer_transport *transport;
    struct task_reader reader;
    char *endpoint;
    bool is_event_new; /* something came that nobody has looked for since */
    bool had_contact;
    bool is_blocked;       /* a message waits for room in the socket */
    uint32_t unsent_count; /* submissions since the last look at the socket */
    uint64_t worked_at_ms;
    struct client_event *answer; /* what client_request() gave last */
    char error[ERROR_TEXT_SIZE];
};

/* What made this thread's last treadle_client_open() fail: there is no client to ask. */
static _Thread_local char open_error[ERROR_TEXT_SIZE];

_Static_assert((int)TREADLE_TASK_EXPIRED == (int)TASK_EXPIRED, "states as on the wire");
_Static_assert((int)TREADLE_TASK_SUCCEEDED == (int)TASK_SUCCEEDED, "states as on the wire");
_Static_assert((int)TREADLE_FAILURE_UPSTREAM == (int)FAILURE_UPSTREAM, "kinds as on the wire");
_Static_assert((int)TREADLE_FAILURE_DAMAGED == (int)FAILURE_DAMAGED, "kinds as on the wire");
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
        .in_flight_max = options->in_flight_max != 0 ? options->in_flight_max : IN_FLIGHT_DEFAULT,
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

enum treadle_status client_open_only(treadle_client **client_pointer,
                                     const struct treadle_client_options *given)
{
    struct treadle_client_options options = {0};
    char why[TRANSPORT_TEXT_SIZE] = "";
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
    treadle_client *client = calloc(1, sizeof(*client));
    if (client != NULL) {
        client_task_reader_init(&client->reader);
        client->endpoint = strdup(endpoint);
    }
    if (client != NULL && client->endpoint != NULL) {
        status = peer_transport_open(&client->transport, endpoint, why);
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
            result = TREADLE_E_NO_BROKER;
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
            set_error(client, "the broker refused this client: %s%s%.500s",
                      refused_code_text(event->status), event->text.size > 0 ? ": " : "",
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

/* Does what is due; false when the sockets are beyond help. */
static bool work(treadle_client *client)
{
    const uint64_t now_ms = client_now_ms();
    client->worked_at_ms = now_ms;
    const unsigned happened = peer_transport_update(client->transport);
    if ((happened & TRANSPORT_DISCONNECTED) != 0) {
        client_session_on_disconnected(client->session, now_ms);
    }
    if ((happened & TRANSPORT_CONNECTED) != 0) {
        client_session_on_connected(client->session, now_ms);
    }
    receive(client, now_ms);
    client_session_on_time(client->session, now_ms);
    if (client_session_wants_reconnect(client->session) ||
        (happened & TRANSPORT_NOT_ADMITTED) != 0) {
        client_session_on_disconnected(client->session, now_ms);
        if (peer_transport_reopen(client->transport) != TREADLE_OK) {
            set_error(client, "%s", peer_transport_reason(client->transport));
            return false;
        }
    }
    send_all(client, now_ms);
    return true;
}

/* How long to wait at most before something is due. */
static int64_t wait_ms(const treadle_client *client, uint64_t until_ms)
{
    const uint64_t now_ms = client_now_ms();
    uint64_t at_ms = client_session_next_at_ms(client->session);
    at_ms = at_ms < until_ms ? at_ms : until_ms;
    if (at_ms <= now_ms) {
        /* What is due but cannot be sent waits for room in the socket, not for time. */
        return client->is_blocked && now_ms < until_ms ? 100 : 0;
    }
    return at_ms - now_ms < TIMEOUT_MAX_MS ? (int64_t)(at_ms - now_ms) : TIMEOUT_MAX_MS;
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

/* One turn of a wait: TREADLE_OK means look again. */
static enum treadle_status wait_once(treadle_client *client, uint64_t until_ms)
{
    const uint64_t now_ms = client_now_ms();
    if (client_session_is_over(client->session)) {
        return TREADLE_E_REFUSED; /* client->error says why */
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
    if (until_ms != UINT64_MAX && client_now_ms() >= until_ms) {
        const char *why = client_transport_text(client);
        set_error(client, "%s", why[0] != '\0' ? why : treadle_status_text(TREADLE_E_TIMEOUT));
        return TREADLE_E_TIMEOUT;
    }
    return TREADLE_OK;
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
        set_error(client, "the body has %zu bytes, and the broker admits %llu",
                  submission->body.size,
                  (unsigned long long)client_session_figures(client->session).body_size_max);
    } else if (status == TREADLE_E_AGAIN) {
        set_error(client, "too many tasks are in flight: take outcomes first");
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
        (void)work(client); /* a socket beyond help is told to who waits */
    }
    return TREADLE_OK;
}

enum treadle_status treadle_client_flush(treadle_client *client, int64_t timeout_ms)
{
    const uint64_t until_ms = until_from_timeout(timeout_ms);
    while (client_session_figures(client->session).unaccepted_count > 0) {
        client->is_event_new = false; /* events are for treadle_client_recv() */
        const enum treadle_status status = wait_once(client, until_ms);
        if (status != TREADLE_OK) {
            return status;
        }
    }
    return TREADLE_OK;
}

/* Whether an event ends somebody's waiting for a task. */
static bool is_end(const struct client_event *event)
{
    switch (event->kind) {
    case CLIENT_EVENT_SETTLED:
        return true;
    case CLIENT_EVENT_ACCEPTED:
        return event->status != ACCEPT_OK && event->status != ACCEPT_EXISTING;
    case CLIENT_EVENT_AWAITED:
        return event->status == AWAIT_GONE || event->status == AWAIT_UNKNOWN;
    case CLIENT_EVENT_WELCOME:
    case CLIENT_EVENT_REFUSED:
    case CLIENT_EVENT_CANCELLED:
    case CLIENT_EVENT_ANSWER:
        return false;
    }
    return false;
}

static bool is_end_of(const struct client_event *event, const void *context)
{
    const struct treadle_task_id *id = context;
    return is_end(event) && memcmp(event->id.bytes, id->bytes, sizeof(id->bytes)) == 0;
}

struct owned_outcome {
    struct treadle_outcome outcome; /* first: what the application sees */
    struct client_event *event;
};

static void outcome_from_accepted(struct treadle_outcome *outcome, const struct client_event *event)
{
    switch ((unsigned)event->status) { /* the others are no outcome */
    case ACCEPT_BUSY:
        outcome->status = TREADLE_E_BUSY;
        break;
    case ACCEPT_CONFLICT:
        outcome->status = TREADLE_E_CONFLICT;
        break;
    case ACCEPT_FATE_UNKNOWN:
        outcome->status = TREADLE_E_NOT_FOUND;
        break;
    default:
        outcome->status = TREADLE_E_REFUSED;
        break;
    }
    outcome->reason = event->reason != BUSY_NONE ? busy_reason_text(event->reason)
                                                 : accept_status_text(event->status);
}

static const char *text_or_empty(struct bytes text)
{
    return text.size > 0 ? (const char *)text.data : "";
}

static void outcome_from_settled(struct treadle_outcome *outcome, const struct client_event *event)
{
    const struct wire_settled_entry *settled = &event->settled;
    outcome->status = TREADLE_OK;
    outcome->state = (enum treadle_task_state)settled->outcome;
    outcome->kind = (enum treadle_failure_kind)settled->kind;
    outcome->dispatch = (uint32_t)settled->dispatch;
    outcome->attempts = (uint32_t)settled->attempts;
    outcome->attempts_max = (uint32_t)settled->attempts_max;
    outcome->is_cancel_requested = (settled->flags & SETTLED_CANCEL_REQUESTED) != 0;
    outcome->is_result_gone = (settled->flags & SETTLED_RESULT_GONE) != 0;
    outcome->body = settled->body.size > 0 ? settled->body.data : NULL;
    outcome->body_size = settled->body.size;
    if (event->has_error) {
        outcome->error_name = text_or_empty(event->error.name);
        outcome->error_message = text_or_empty(event->error.message);
        outcome->error_trace = text_or_empty(event->error.trace);
        outcome->worker = text_or_empty(event->error.worker);
        outcome->host = text_or_empty(event->error.host);
    }
}

enum treadle_status client_outcome_from_event(struct client_event **event_pointer,
                                              struct treadle_outcome **out)
{
    struct client_event *event = *event_pointer;
    TREADLE_ASSERT(is_end(event));
    struct owned_outcome *owned = calloc(1, sizeof(*owned));
    if (owned == NULL) {
        client_event_destroy(event_pointer);
        return TREADLE_E_NOMEM;
    }
    struct treadle_outcome *outcome = &owned->outcome;
    *outcome = (struct treadle_outcome){
        .id = event->id,
        .reason = "",
        .error_name = "",
        .error_message = "",
        .error_trace = "",
        .worker = "",
        .host = "",
    };
    if (event->kind == CLIENT_EVENT_SETTLED) {
        outcome_from_settled(outcome, event);
    } else if (event->kind == CLIENT_EVENT_ACCEPTED) {
        outcome_from_accepted(outcome, event);
    } else {
        outcome->status = TREADLE_E_NOT_FOUND;
        outcome->reason = await_status_text(event->status);
    }
    outcome->kind_text = failure_kind_text((uint64_t)outcome->kind);
    owned->event = event;
    *event_pointer = NULL;
    *out = outcome;
    return TREADLE_OK;
}

void treadle_outcome_free(struct treadle_outcome **outcome)
{
    if (*outcome != NULL) {
        struct owned_outcome *owned = (struct owned_outcome *)(void *)*outcome;
        client_event_destroy(&owned->event);
        free(owned);
        *outcome = NULL;
    }
}

enum treadle_status treadle_client_recv_id(treadle_client *client, const struct treadle_task_id *id,
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

enum treadle_status treadle_client_recv(treadle_client *client, int64_t timeout_ms,
                                        struct treadle_outcome **outcome)
{
    const uint64_t until_ms = until_from_timeout(timeout_ms);
    for (;;) {
        struct client_event *event = NULL;
        while ((event = client_take_event(client, NULL, NULL)) != NULL) {
            if (is_end(event)) {
                return client_outcome_from_event(&event, outcome);
            }
            client_event_destroy(&event);
        }
        if (client_session_figures(client->session).in_flight_count == 0) {
            set_error(client, "nothing is in flight");
            return TREADLE_E_TIMEOUT;
        }
        const enum treadle_status status = wait_once(client, until_ms);
        if (status != TREADLE_OK) {
            return status;
        }
    }
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
    if (status != TREADLE_OK) {
        return fail(client, status);
    }
    (void)work(client);
    return TREADLE_OK;
}

static bool is_cancelled(const struct client_event *event, const void *context)
{
    const struct treadle_task_id *id = context;
    return event->kind == CLIENT_EVENT_CANCELLED &&
           memcmp(event->id.bytes, id->bytes, sizeof(id->bytes)) == 0;
}

enum treadle_status treadle_client_cancel(treadle_client *client, const struct treadle_task_id *id,
                                          int64_t timeout_ms, enum treadle_cancel *answer)
{
    const uint64_t until_ms = until_from_timeout(timeout_ms);
    enum treadle_status status = client_session_cancel(client->session, *id);
    if (status != TREADLE_OK) {
        return fail(client, status);
    }
    for (;;) {
        struct client_event *event = client_take_event(client, is_cancelled, id);
        if (event != NULL) {
            if (answer != NULL) {
                *answer = (enum treadle_cancel)event->status;
            }
            client_event_destroy(&event);
            return TREADLE_OK;
        }
        status = wait_once(client, until_ms);
        if (status != TREADLE_OK) {
            return status;
        }
    }
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

const char *client_transport_text(const treadle_client *client)
{
    if (client_is_welcome(client)) {
        return "";
    }
    const char *text = peer_transport_reason(client->transport);
    return text[0] != '\0' ? text : client->error;
}

const char *client_endpoint(const treadle_client *client)
{
    return client->endpoint;
}

struct client_session *client_session_of(treadle_client *client)
{
    return client->session;
}
