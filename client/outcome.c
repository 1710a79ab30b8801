/* SPDX-License-Identifier: MPL-2.0 */
#include "client/client_internal.h"

#include <stdlib.h>

#include "common/base/assert.h"

_Static_assert((int)TREADLE_TASK_EXPIRED == (int)TASK_EXPIRED, "states as on the wire");
_Static_assert((int)TREADLE_TASK_SUCCEEDED == (int)TASK_SUCCEEDED, "states as on the wire");
_Static_assert((int)TREADLE_FAILURE_UPSTREAM == (int)FAILURE_UPSTREAM, "kinds as on the wire");
_Static_assert((int)TREADLE_FAILURE_DAMAGED == (int)FAILURE_DAMAGED, "kinds as on the wire");

bool client_event_is_end(const struct client_event *event)
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
    outcome->state_text = task_state_text(settled->outcome);
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
    TREADLE_ASSERT(client_event_is_end(event));
    struct owned_outcome *owned = calloc(1, sizeof(*owned));
    if (owned == NULL) {
        client_event_destroy(event_pointer);
        return TREADLE_E_NOMEM;
    }
    struct treadle_outcome *outcome = &owned->outcome;
    *outcome = (struct treadle_outcome){
        .id = event->id,
        .reason = "",
        .state_text = "",
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
