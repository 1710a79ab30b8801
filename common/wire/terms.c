/* SPDX-License-Identifier: MPL-2.0 */
#include "common/wire/terms.h"

#include <stddef.h>

#include "common/wire/message.h"

/* clang-format off */
/* NOLINTBEGIN */
#define TERM_TEXT(name, text) text,
#define TERM_FUNCTION(function, list)                                                              \
    const char *function(uint64_t value)                                                           \
    {                                                                                              \
        static const char *const texts[] = {list(TERM_TEXT)};                                      \
        return value < sizeof texts / sizeof texts[0] ? texts[value] : "?";                        \
    }
TERM_FUNCTION(peer_role_text, PEER_ROLES)
TERM_FUNCTION(task_state_text, TASK_STATES)
TERM_FUNCTION(failure_kind_text, FAILURE_KINDS)
TERM_FUNCTION(wait_reason_text, WAIT_REASONS)
TERM_FUNCTION(breaker_state_text, BREAKER_STATES)
TERM_FUNCTION(breaker_mode_text, BREAKER_MODES)
TERM_FUNCTION(accept_status_text, ACCEPT_STATUSES)
TERM_FUNCTION(busy_reason_text, BUSY_REASONS)
TERM_FUNCTION(await_status_text, AWAIT_STATUSES)
TERM_FUNCTION(cancel_status_text, CANCEL_STATUSES)
TERM_FUNCTION(held_state_text, HELD_STATES)
TERM_FUNCTION(refused_code_text, REFUSED_CODES)
TERM_FUNCTION(retry_choice_text, RETRY_CHOICES)
TERM_FUNCTION(service_action_text, SERVICE_ACTIONS)
TERM_FUNCTION(done_status_text, DONE_STATUSES)
TERM_FUNCTION(policy_field_text, POLICY_FIELDS)
TERM_FUNCTION(policy_origin_text, POLICY_ORIGINS)

const char *message_kind_text(uint64_t kind)
{
    switch (kind) {
#define MESSAGE(name, upper, kind_number, direction) case kind_number: return #name;
#include "common/wire/messages.def"
    default: return "?";
    }
}

enum message_direction message_direction(enum message_kind kind)
{
    switch (kind) {
#define MESSAGE(name, upper, kind_number, direction) case MESSAGE_##upper: return DIRECTION_##direction;
#include "common/wire/messages.def"
    }
    return DIRECTION_BOTH_WAYS;
}
/* NOLINTEND */
/* clang-format on */

const char *wire_status_text(enum wire_status status)
{
    switch (status) {
    case WIRE_OK:
        return "ok";
    case WIRE_MALFORMED:
        return "malformed";
    case WIRE_LIMIT:
        return "limit";
    case WIRE_VERSION:
        return "version";
    case WIRE_UNKNOWN_KIND:
        return "unknown_kind";
    }
    return "?";
}
