/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The numbers and enumerations that go over the wire: limits of fields, states, kinds, reasons.
 * Each enumeration is an X-macro list, so that its names (used in JSON, logs and the printer) stand
 * beside its values. Values are wire values: never renumber, add at the end.
 */
#ifndef TREADLE_WIRE_TERMS_H
#define TREADLE_WIRE_TERMS_H

#include <stdint.h>

#define WIRE_MAJOR 1
#define WIRE_MINOR 0

/* Limits of the protocol; a broker may admit less (docs/protocol.md, Limits). Sizes in bytes. */
#define NAME_SIZE_MAX    64
#define PATTERN_SIZE_MAX (2 * NAME_SIZE_MAX + 1)
#define TAG_COUNT_MAX    16
#define META_COUNT_MAX   64
#define META_SIZE_MAX    16384 /* names and values of a task's meta together */
/* The two lists that are kept with a task as they came, in whatever form, unknown fields included.
 */
#define TAGS_ENCODED_SIZE_MAX  (TAG_COUNT_MAX * (NAME_SIZE_MAX + 16))
#define META_ENCODED_SIZE_MAX  (META_SIZE_MAX + META_COUNT_MAX * 16)
#define ERROR_MESSAGE_SIZE_MAX 1024
#define ERROR_TRACE_SIZE_MAX   16384
#define ATTEMPT_HISTORY_MAX    32
#define ENTRY_COUNT_MAX        1024
#define TEMPLATE_COUNT_MAX     256
#define SERVE_COUNT_MAX        256
#define GLOB_COUNT_MAX         64 /* of a principal's services */
#define HELD_COUNT_MAX         65536
#define SLOT_COUNT_MAX         65536
#define COUNTER_COUNT_MAX      256
#define PRIORITY_MAX           9
#define SPAN_MAX_MS            UINT64_C(315360000000) /* ten years */

#define FRAME_COUNT_MAX         17                 /* the first, and 16 with bodies */
#define BODY_INLINE_SIZE_MAX    4096               /* larger bodies are frames of their own */
#define BODY_FRAMES_SIZE_MAX    262144             /* in one message, unless it has one entry */
#define BODY_SIZE_LIMIT         UINT64_C(67108864) /* 64 MiB */
#define BODY_SIZE_DEFAULT       UINT64_C(4194304)  /* 4 MiB */
#define FIRST_FRAME_SIZE_MAX    1048576 /* the header and the array, with the inline bodies */
#define UNKNOWN_FIELD_COUNT_MAX 32      /* of a newer minor version, skipped, in one array */
#define UNKNOWN_VALUE_COUNT_MAX 4096    /* values in those, nested ones too */
#define UNKNOWN_DEPTH_MAX       8       /* arrays and maps in arrays and maps */

/* KEEP: result=keep, stays until the result TTL; else it is dropped when acknowledged.
 * VOLATILE: need not survive the broker. WATCH: send SETTLED to this session. */
#define SUBMIT_KEEP      1U
#define SUBMIT_VOLATILE  2U
#define SUBMIT_WATCH     4U
#define SUBMIT_FLAGS_MAX 7U

/* What a principal may do: its roles. */
#define RIGHT_SUBMIT 1U
#define RIGHT_WORK   2U
#define RIGHT_ADMIN  4U
#define RIGHT_ALL    7U

#define SETTLED_CANCEL_REQUESTED 1U
#define SETTLED_RESULT_GONE      2U
#define SETTLED_FLAGS_MAX        3U

/* X(NAME, "text") */
#define PEER_ROLES(X) X(ROLE_CLIENT, "client") X(ROLE_WORKER, "worker")

#define TASK_STATES(X)                                                                             \
    X(TASK_SCHEDULED, "scheduled")                                                                 \
    X(TASK_BLOCKED, "blocked")                                                                     \
    X(TASK_READY, "ready")                                                                         \
    X(TASK_RUNNING, "running")                                                                     \
    X(TASK_SUCCEEDED, "succeeded")                                                                 \
    X(TASK_FAILED, "failed")                                                                       \
    X(TASK_CANCELLED, "cancelled")                                                                 \
    X(TASK_EXPIRED, "expired")

#define FAILURE_KINDS(X)                                                                           \
    X(FAILURE_NONE, "none")                                                                        \
    X(FAILURE_PREPARE, "prepare")                                                                  \
    X(FAILURE_PERMANENT, "permanent")                                                              \
    X(FAILURE_TRANSIENT, "transient")                                                              \
    X(FAILURE_TIMEOUT, "timeout")                                                                  \
    X(FAILURE_CRASH, "crash")                                                                      \
    X(FAILURE_LOST, "lost")                                                                        \
    X(FAILURE_RETURNED, "returned")                                                                \
    X(FAILURE_FINALIZE, "finalize")                                                                \
    X(FAILURE_DAMAGED, "damaged")                                                                  \
    X(FAILURE_CANCELLED, "cancelled")                                                              \
    X(FAILURE_EXPIRED, "expired")                                                                  \
    X(FAILURE_UPSTREAM, "upstream_failed")

/* Why a waiting task waits. */
#define WAIT_REASONS(X)                                                                            \
    X(WAIT_NONE, "none")                                                                           \
    X(WAIT_DELAY, "delay")                                                                         \
    X(WAIT_BACKOFF, "backoff")                                                                     \
    X(WAIT_PAUSED, "paused")                                                                       \
    X(WAIT_BREAKER, "breaker")                                                                     \
    X(WAIT_PROBES, "probes")                                                                       \
    X(WAIT_BUDGET, "budget")                                                                       \
    X(WAIT_NO_WORKER, "no_worker")                                                                 \
    X(WAIT_NO_SLOT, "no_slot")                                                                     \
    X(WAIT_TURN, "turn")                                                                           \
    X(WAIT_UPSTREAM, "upstream")                                                                   \
    X(WAIT_RATE, "rate")                                                                           \
    X(WAIT_CAP, "cap")

#define BREAKER_STATES(X)                                                                          \
    X(BREAKER_CLOSED, "closed") X(BREAKER_OPEN, "open") X(BREAKER_HALF_OPEN, "half_open")

#define BREAKER_MODES(X)                                                                           \
    X(BREAKER_AUTO, "auto")                                                                        \
    X(BREAKER_FORCED_OPEN, "forced_open") X(BREAKER_FORCED_CLOSED, "forced_closed")

#define ACCEPT_STATUSES(X)                                                                         \
    X(ACCEPT_OK, "accepted")                                                                       \
    X(ACCEPT_EXISTING, "existing")                                                                 \
    X(ACCEPT_BUSY, "busy")                                                                         \
    X(ACCEPT_CONFLICT, "conflict")                                                                 \
    X(ACCEPT_REFUSED, "refused")                                                                   \
    X(ACCEPT_FATE_UNKNOWN, "fate_unknown")

/* The limit that answered BUSY, or why an entry was refused. */
#define BUSY_REASONS(X)                                                                            \
    X(BUSY_NONE, "none")                                                                           \
    X(BUSY_TASKS, "tasks")                                                                         \
    X(BUSY_BYTES, "bytes")                                                                         \
    X(BUSY_SHARE, "share")                                                                         \
    X(BUSY_NAMES, "names")                                                                         \
    X(BUSY_DRAINING, "draining")                                                                   \
    X(BUSY_NO_SPACE, "no_space")                                                                   \
    X(REFUSED_ID_TAKEN, "id_taken")                                                                \
    X(REFUSED_NO_RIGHT, "no_right")                                                                \
    X(REFUSED_BODY_SIZE, "body_size")                                                              \
    X(REFUSED_TEMPLATE, "template")

#define AWAIT_STATUSES(X)                                                                          \
    X(AWAIT_PENDING, "pending")                                                                    \
    X(AWAIT_SETTLED, "settled")                                                                    \
    X(AWAIT_GONE, "gone") X(AWAIT_UNKNOWN, "unknown") X(AWAIT_BUSY, "busy")

#define CANCEL_STATUSES(X)                                                                         \
    X(CANCEL_DONE, "cancelled")                                                                    \
    X(CANCEL_REQUESTED, "requested")                                                               \
    X(CANCEL_SETTLED_ALREADY, "settled_already") X(CANCEL_UNKNOWN, "unknown")

#define HELD_STATES(X)                                                                             \
    X(HELD_QUEUED, "queued") X(HELD_RUNNING, "running") X(HELD_FINISHED, "finished")

#define REFUSED_CODES(X)                                                                           \
    X(REFUSED_HELLO_FIRST, "hello_first")                                                          \
    X(REFUSED_VERSION, "version")                                                                  \
    X(REFUSED_RIGHTS, "rights")                                                                    \
    X(REFUSED_LIMIT, "limit")                                                                      \
    X(REFUSED_MALFORMED, "malformed")                                                              \
    X(REFUSED_REPLACED, "replaced")

#define RETRY_CHOICES(X) X(RETRY_BY_POLICY, "policy") X(RETRY_AFTER, "after") X(RETRY_STOP, "stop")

#define SERVICE_ACTIONS(X)                                                                         \
    X(SERVICE_PAUSE, "pause")                                                                      \
    X(SERVICE_RESUME, "resume")                                                                    \
    X(SERVICE_BREAKER_OPEN, "open")                                                                \
    X(SERVICE_BREAKER_CLOSE, "close") X(SERVICE_BREAKER_AUTO, "auto")

#define DONE_STATUSES(X)                                                                           \
    X(DONE_OK, "done")                                                                             \
    X(DONE_NOT_FOUND, "not_found")                                                                 \
    X(DONE_BUSY, "busy")                                                                           \
    X(DONE_REFUSED, "refused") X(DONE_TOKEN_OLD, "token_old") X(DONE_INVALID, "invalid")

/* The fields of record policy, in its order. */
#define POLICY_FIELDS(X)                                                                           \
    X(POLICY_ATTEMPTS_MAX, "attempts_max")                                                         \
    X(POLICY_TIMEOUT, "timeout_ms")                                                                \
    X(POLICY_PROGRESS_TIMEOUT, "progress_timeout_ms")                                              \
    X(POLICY_GRACE, "grace_ms")                                                                    \
    X(POLICY_QUEUE_TIMEOUT, "queue_timeout_ms")                                                    \
    X(POLICY_DEADLINE, "deadline_ms")                                                              \
    X(POLICY_RESULT_TTL, "result_ttl_ms")                                                          \
    X(POLICY_BACKOFF_BASE, "backoff_base_ms")                                                      \
    X(POLICY_BACKOFF_FACTOR, "backoff_factor_milli")                                               \
    X(POLICY_BACKOFF_MAX, "backoff_max_ms")                                                        \
    X(POLICY_CRASH_LIMIT, "crash_limit")                                                           \
    X(POLICY_LOST_LIMIT, "lost_limit")

/* Where a field of a policy came from; the first that gives it wins. */
#define POLICY_ORIGINS(X)                                                                          \
    X(ORIGIN_WORKER, "worker")                                                                     \
    X(ORIGIN_SUBMISSION, "submission")                                                             \
    X(ORIGIN_TASK, "task")                                                                         \
    X(ORIGIN_SERVICE, "service") X(ORIGIN_BROKER, "broker") X(ORIGIN_DEFAULT, "default")

#define TERM_VALUE(name, text) name,
enum peer_role { PEER_ROLES(TERM_VALUE) PEER_ROLE_COUNT };
enum task_state { TASK_STATES(TERM_VALUE) TASK_STATE_COUNT };
enum failure_kind { FAILURE_KINDS(TERM_VALUE) FAILURE_KIND_COUNT };
enum wait_reason { WAIT_REASONS(TERM_VALUE) WAIT_REASON_COUNT };
enum breaker_state { BREAKER_STATES(TERM_VALUE) BREAKER_STATE_COUNT };
enum breaker_mode { BREAKER_MODES(TERM_VALUE) BREAKER_MODE_COUNT };
enum accept_status { ACCEPT_STATUSES(TERM_VALUE) ACCEPT_STATUS_COUNT };
enum busy_reason { BUSY_REASONS(TERM_VALUE) BUSY_REASON_COUNT };
enum await_status { AWAIT_STATUSES(TERM_VALUE) AWAIT_STATUS_COUNT };
enum cancel_status { CANCEL_STATUSES(TERM_VALUE) CANCEL_STATUS_COUNT };
enum held_state { HELD_STATES(TERM_VALUE) HELD_STATE_COUNT };
enum refused_code { REFUSED_CODES(TERM_VALUE) REFUSED_CODE_COUNT };
enum retry_choice { RETRY_CHOICES(TERM_VALUE) RETRY_CHOICE_COUNT };
enum service_action { SERVICE_ACTIONS(TERM_VALUE) SERVICE_ACTION_COUNT };
enum done_status { DONE_STATUSES(TERM_VALUE) DONE_STATUS_COUNT };
enum policy_field { POLICY_FIELDS(TERM_VALUE) POLICY_FIELD_COUNT };
enum policy_origin { POLICY_ORIGINS(TERM_VALUE) POLICY_ORIGIN_COUNT };
#undef TERM_VALUE

/* The text of a value, "?" outside its range. Static storage. */
const char *peer_role_text(uint64_t value);
const char *task_state_text(uint64_t value);
const char *failure_kind_text(uint64_t value);
const char *wait_reason_text(uint64_t value);
const char *breaker_state_text(uint64_t value);
const char *breaker_mode_text(uint64_t value);
const char *accept_status_text(uint64_t value);
const char *busy_reason_text(uint64_t value);
const char *await_status_text(uint64_t value);
const char *cancel_status_text(uint64_t value);
const char *held_state_text(uint64_t value);
const char *refused_code_text(uint64_t value);
const char *retry_choice_text(uint64_t value);
const char *service_action_text(uint64_t value);
const char *done_status_text(uint64_t value);
const char *policy_field_text(uint64_t value);
const char *policy_origin_text(uint64_t value);

#endif
