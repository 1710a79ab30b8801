/* SPDX-License-Identifier: MPL-2.0 */
/*
 * What the command line and the benchmarks use of the client beside <treadle/client.h>: requests to
 * the broker, one primitive to wait for several things at once, events as the session tells them.
 * Linked from the internal archive treadle_client; libtreadle hides it. Threads as for the public
 * functions.
 */
#ifndef TREADLE_CLIENT_INTERNAL_H
#define TREADLE_CLIENT_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include <treadle/client.h>

#include "client/session.h"
#include "common/transport/transport.h"

#define CLIENT_PUMP_EVENT                                                                          \
    1U /* an event that was not looked at waits in the session: client_take_event() */
#define CLIENT_PUMP_FD          2U /* the caller's descriptor is readable */
#define CLIENT_PUMP_INTERRUPTED 4U /* a signal handler ran */
#define CLIENT_PUMP_FAILED      8U /* out of sockets or memory: treadle_client_error() */

/* Opens a client without waiting for its broker: client_is_welcome() tells later, client_pump()
 * makes it so. The timeout in the options is not looked at. Errors as treadle_client_open(), but
 * never TREADLE_E_NO_BROKER. */
enum treadle_status client_open_only(treadle_client **client_pointer,
                                     const struct treadle_client_options *given);

/* Does all that is due: receives, keeps time, sends. Then waits until an event came *in this call*,
 * `fd` (-1: none) is readable, a signal came or timeout_ms passed (0: do not wait;
 * TREADLE_FOREVER), whichever is first. Returns CLIENT_PUMP_ flags, 0 when the timeout passed. Take
 * all events you care for before you pump again. */
unsigned client_pump(treadle_client *client, int64_t timeout_ms, int fd);

/* WELCOME and REFUSED are not among the events: see client_is_welcome(), client_session_is_over()
 * and treadle_client_error(). The next event (is_wanted NULL), or the next one wanted; NULL when
 * there is none. End it with client_event_destroy(). Do not mix with treadle_client_recv() for the
 * same tasks. */
struct client_event *client_take_event(treadle_client *client,
                                       bool (*is_wanted)(const struct client_event *event,
                                                         const void *context),
                                       const void *context);

/* Sends a query or an administration message (its `request` is filled in) and waits for the answer,
 * which is valid until the next client_request() or the client's end. Other events stay in the
 * queue. TREADLE_E_INVALID, TREADLE_E_AGAIN (interrupted), TREADLE_E_TIMEOUT, TREADLE_E_REFUSED,
 * TREADLE_E_IO, TREADLE_E_NOMEM. */
enum treadle_status client_request(treadle_client *client, const struct message *query,
                                   int64_t timeout_ms, const struct message **answer);

/* As treadle_client_submit(), with CLIENT_TELL_ flags. */
enum treadle_status client_submit(treadle_client *client, const struct treadle_task *task,
                                  uint32_t tell, struct treadle_task_id *id);

/* Whether an event ends somebody's waiting for a task. */
bool client_event_is_end(const struct client_event *event);

/* The outcome of a SETTLED event, of an ACCEPTED that says no, of an AWAITED gone or unknown. Takes
 * the event over and nulls the pointer, on TREADLE_OK and on TREADLE_E_NOMEM. */
enum treadle_status client_outcome_from_event(struct client_event **event,
                                              struct treadle_outcome **outcome);

/* Whether the broker knows this client now. */
bool client_is_welcome(const treadle_client *client);

/* Whether it ever did. */
bool client_had_contact(const treadle_client *client);

/* The code of the last REFUSED, REFUSED_CODE_COUNT if there was none. */
uint64_t client_refused_code(const treadle_client *client);

/* Why there is no contact, as the transport says it ("nothing listens at tcp://127.0.0.1:7330"); ""
 * while there is. */
const char *client_transport_text(const treadle_client *client);

/* The same, for programs. */
enum transport_fault client_transport_fault(const treadle_client *client);

/* Whether it connects with keys, and its public key then; NULL: plain. */
const uint8_t *client_public_key(const treadle_client *client);

/* The endpoint in use. */
const char *client_endpoint(const treadle_client *client);

/* The session, for its figures and for cancel, await and forget; call client_pump() afterwards so
 * that it sends. */
struct client_session *client_session_of(treadle_client *client);

/* The clock the session is driven with: monotonic ms. */
uint64_t client_now_ms(void);

#endif
