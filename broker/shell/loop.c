/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include "broker/shell/loop.h"

#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "broker/core/core.h"
#include "broker/shell/encode.h"
#include "broker/shell/events.h"
#include "broker/shell/guard.h"
#include "broker/shell/misuse.h"
#include "broker/shell/notify.h"
#include "broker/shell/store/store.h"
#include "common/base/assert.h"
#include "common/base/log.h"

#define ROUND_MESSAGE_MAX  256U
#define ROUND_SIZE_MAX     (UINT64_C(4) << 20)
#define ROUND_DISPATCH_MAX 8U
#define STALL_MS           500U
#define ROUND_TIME_MAX     1U
#define ROUND_STEP_MAX     24U
#define ROUND_RECEIVE_NS   (UINT64_C(500) * 1000) /* then those who wait have their turn */
#define UNREAD_ROUND_MAX   1000U /* ends are told after so many rounds that did not run dry */
#define MISUSE_LINES_MAX   100U  /* in the log, a minute, of all peers together */
#define LINGER_MS          200   /* for the last messages, at a clean end */
#define MINUTE_MS          60000U
#define EPOCH_MASK         0xffffffU

struct loop_counts {
    uint64_t malformed;
    uint64_t over_limit;
    uint64_t cut_off;
    uint64_t cut_idle;
};

struct loop {
    const struct loop_config *config;
    struct core *core;
    void *core_memory;
    size_t core_memory_size;
    struct store *store;
    struct encoder *encoder;
    struct transport *transport;
    struct guard *guard;
    struct events events;
    struct notify notify;
    struct config settings;        /* as they are now */
    struct principals *principals; /* as read again; NULL: as at the start */
    uint64_t rights_serial;        /* how often they were */
    struct effects *effects;
    struct misuse *misuse; /* by connection */
    struct encoder_counter counters[24];
    struct wire_limits limits;
    struct loop_counts counts;
    int signal_fd;

    uint64_t now_ms;       /* the core's clock */
    uint64_t stalled_ms;   /* how far it is behind the monotonic one */
    uint64_t looked_at_ms; /* the monotonic clock, at the last look */
    uint64_t wake_at_ms;   /* by then the next look was due; 0: whenever something comes */
    uint64_t unix_ms;
    uint64_t told_number;   /* the core knows that records up to here are durable */
    bool is_behind;         /* the last round left something to do */
    bool is_dry;            /* the sockets had nothing more to receive */
    uint32_t unread_rounds; /* in a row that did not run dry */
    uint64_t minute;        /* of misuse_lines */
    uint32_t misuse_lines;
    uint64_t drain_until_ms; /* UINT64_MAX: no signal yet */
    bool is_over;
    int exit_code;
};

/* ---- time ---- */

/* Never goes back, whatever the clock does. A broker that did not run (stopped, a machine without a
 * moment for it) stops its clock for that time: peers have not been silent while nobody listened.
 */
static void look_at_clock(struct loop *loop)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    const uint64_t monotonic_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    if (loop->wake_at_ms != 0 && monotonic_ms > loop->wake_at_ms + STALL_MS) {
        const uint64_t stalled_ms = monotonic_ms - loop->wake_at_ms;
        loop->stalled_ms += stalled_ms;
        log_warn("broker.stalled", "span_ms=%" PRIu64, stalled_ms);
    }
    loop->looked_at_ms = monotonic_ms;
    const uint64_t now_ms = monotonic_ms - loop->stalled_ms;
    if (now_ms > loop->now_ms) {
        loop->now_ms = now_ms;
    }
    (void)clock_gettime(CLOCK_REALTIME, &now);
    loop->unix_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- effects ---- */

static void fail(struct loop *loop, int exit_code)
{
    loop->is_over = true;
    loop->exit_code = exit_code;
}

static void hand_to_transport(void *context, uint32_t connection, const struct wire_frames *frames)
{
    const struct loop *loop = context;
    transport_send(loop->transport, connection, frames);
}

static void log_mistakes(const struct loop *loop, const struct conf_mistakes *mistakes)
{
    for (uint32_t i = 0; i < mistakes->count && i < CONF_MISTAKES_MAX; i++) {
        char text[2 * CONF_TEXT_SIZE];
        char quoted[2 * CONF_TEXT_SIZE];
        const char *path = loop->config->source->path;
        conf_print_mistake(text, sizeof text, path == NULL ? "defaults" : path, &mistakes->at[i]);
        log_error("config.failed", "mistake=%s",
                  log_quote(quoted, sizeof quoted, text, strlen(text)));
    }
}

static void apply(struct loop *loop)
{
    const struct config *settings = &loop->settings;
    struct core_changes changes = {.dead_letter_ttl_ms = settings->value[CONFIG_DEAD_LETTER_TTL]};
    log_open((enum log_level)settings->value[CONFIG_LOG_LEVEL],
             config_to_sink(settings, loop->config->source));
    config_to_policy(settings, &changes.broker_policy);
    changes.is_logging_tasks = loop->config->is_dev || log_is_on(LOG_LEVEL_DEBUG);
    core_reconfigure(loop->core, &changes);
}

static uint64_t log_principal_mistakes(const char *path, const struct conf_mistakes *mistakes)
{
    for (uint32_t i = 0; i < mistakes->count && i < CONF_MISTAKES_MAX; i++) {
        char text[CONFIG_PATH_SIZE + CONF_TEXT_SIZE];
        char quoted[2 * sizeof text];
        conf_print_mistake(text, sizeof text, path, &mistakes->at[i]);
        log_error("config.failed", "mistake=%s",
                  log_quote(quoted, sizeof quoted, text, strlen(text)));
    }
    return mistakes->count;
}

static bool has_keys(const struct loop *loop)
{
    const struct transport_config *transport = &loop->config->transport;
    for (uint32_t i = 0; i < transport->endpoint_count; i++) {
        if (transport->server_keys[i] != NULL) {
            return true;
        }
    }
    return false;
}

static void refuse_server_keys(const struct loop *loop, const struct principals *principals,
                               struct conf_mistakes *mistakes)
{
    const struct transport_config *transport = &loop->config->transport;
    for (uint32_t i = 0; i < transport->endpoint_count; i++) {
        if (transport->server_keys[i] != NULL) {
            principals_refuse_key(principals, key_pair_public(transport->server_keys[i]), mistakes);
        }
    }
}

/* Reads again who may come in. Returns how many mistakes there are; then nothing has changed. */
static uint64_t reload_principals(struct loop *loop, const struct config *fresh, bool *has_changed)
{
    struct conf_mistakes mistakes = {.count = 0};
    uint32_t cut_count = 0;
    if (!has_keys(loop)) {
        return 0; /* nobody is asked who it is */
    }
    if (fresh->principals[0] == '\0') {
        log_error("config.failed", "mistake=\"principals: no file is named, and endpoints with a "
                                   "server key are open until the next start; expected FILE\"");
        return 1;
    }
    struct principals *principals = principals_read(fresh->principals, &mistakes);
    if (principals != NULL) {
        refuse_server_keys(loop, principals, &mistakes);
    }
    if (mistakes.count > 0) {
        principals_destroy(&principals);
        return log_principal_mistakes(fresh->principals, &mistakes);
    }
    const struct principals *before =
        loop->principals != NULL ? loop->principals : loop->config->transport.principals;
    *has_changed = principals_are_other(principals, before);
    if (!transport_set_principals(loop->transport, principals, &cut_count)) {
        principals_destroy(&principals);
        log_error("config.failed", "mistake=\"out of memory\"");
        return 1;
    }
    principals_destroy(&loop->principals);
    loop->principals = principals;
    loop->rights_serial++;
    log_info("principals.reloaded", "principals=%" PRIu32 " keys=%" PRIu32 " cut=%" PRIu32,
             principals_count(principals), principals_key_count(principals), cut_count);
    return 0;
}

/* A file may have got another key under the same name, or be none that the next start would take.
 */
static void tell_other_server_keys(const struct loop *loop)
{
    const struct transport_config *transport = &loop->config->transport;
    for (uint32_t i = 0; i < transport->endpoint_count; i++) {
        struct key_pair *pair = NULL;
        char why[KEY_WHY_SIZE];
        char quoted[2 * KEY_WHY_SIZE];
        const struct key_pair *present = transport->server_keys[i];
        const char *path = config_server_key(&loop->settings, i);
        if (present == NULL) {
            continue;
        }
        if (key_pair_open(&pair, path, why) == TREADLE_OK) {
            (void)snprintf(why, sizeof why, "%.300s: has another key now", path);
        }
        if (pair == NULL ||
            memcmp(key_pair_public(pair), key_pair_public(present), KEY_SIZE) != 0) {
            log_warn("config.fixed", "key=server_key reason=%s",
                     log_quote(quoted, sizeof quoted, why, strlen(why)));
        }
        key_pair_close(&pair);
    }
}

/* Reads the configuration again and takes what may change. A file with a mistake changes nothing.
 * Writes how many settings changed, or how many mistakes there are. */
static enum done_status reload(struct loop *loop, uint64_t *count)
{
    struct config fresh;
    struct conf_mistakes mistakes;
    const bool is_serving = loop->drain_until_ms == UINT64_MAX; /* what ends is never ready again */
    if (is_serving) {
        notify_reloading();
    }
    bool has_other_principals = false;
    bool is_good = config_load(&fresh, loop->config->source, &mistakes);
    if (!is_good) {
        *count = mistakes.count;
        log_mistakes(loop, &mistakes);
    } else {
        *count = reload_principals(loop, &fresh, &has_other_principals);
        is_good = *count == 0;
    }
    if (is_good) {
        *count = config_take_reloaded(&loop->settings, &fresh) + (has_other_principals ? 1 : 0);
        tell_other_server_keys(loop);
        apply(loop);
        log_info("config.reloaded", "changed=%" PRIu64, *count);
    }
    if (is_serving) {
        notify_ready(transport_endpoint(loop->transport, 0));
    }
    return is_good ? DONE_OK : DONE_INVALID;
}

static void answer_reload(struct loop *loop, const struct effect *effect)
{
    struct effect answer = *effect;
    answer.kind = EFFECT_SEND;
    answer.status = (uint8_t)reload(loop, &answer.value);
    encoder_send(loop->encoder, &answer);
}

static void carry_out(struct loop *loop, const struct effect *effect)
{
    switch ((enum effect_kind)effect->kind) {
    case EFFECT_SEND:
        encoder_send(loop->encoder, effect);
        return;
    case EFFECT_PERSIST:
        if (!loop->is_over && !store_append(loop->store, loop->core, effect, loop->unix_ms)) {
            log_error("store.failed", "reason=\"out of memory\"");
            fail(loop, EX_OSERR); /* nothing may be acknowledged any more */
        }
        return;
    case EFFECT_CLOSE:
        encoder_flush_connection(loop->encoder, effect->connection);
        transport_cut(loop->transport, effect->connection, loop->now_ms);
        return;
    case EFFECT_LOG:
        events_write(&loop->events, effect);
        return;
    case EFFECT_RELOAD:
        answer_reload(loop, effect);
        return;
    }
}

static void step(struct loop *loop, const struct input *input)
{
    if (loop->is_over) {
        return;
    }
    TREADLE_ASSERT(loop->core != NULL && loop->effects != NULL);
    core_step(loop->core, loop->now_ms, input, loop->effects);
    for (uint32_t i = 0; i < loop->effects->count; i++) {
        carry_out(loop, &loop->effects->at[i]);
    }
}

/* ---- messages ---- */

static void cut_off(struct loop *loop, uint32_t connection)
{
    loop->counts.cut_off++;
    encoder_flush_connection(loop->encoder, connection);
    transport_cut(loop->transport, connection, loop->now_ms);
}

/* Whether one more line about a peer may be written: they could fill the log. */
static bool may_log_misuse(struct loop *loop)
{
    const uint64_t minute = loop->now_ms / MINUTE_MS;
    if (minute != loop->minute) {
        loop->minute = minute;
        loop->misuse_lines = 0;
    }
    if (loop->misuse_lines == MISUSE_LINES_MAX) {
        return false;
    }
    loop->misuse_lines++;
    return true;
}

static void log_misuse(struct loop *loop, uint32_t connection, const char *status,
                       const char *field, bool is_cut)
{
    if (!may_log_misuse(loop)) {
        return;
    }
    char peer[128];
    const char *address = transport_peer(loop->transport, connection);
    log_warn("session.malformed", "peer=%s connection=%" PRIu32 " status=%s field=\"%s\" cut=%s",
             log_quote(peer, sizeof peer, address, strlen(address)), connection, status,
             field == NULL ? "header" : field, is_cut ? "yes" : "no");
}

static void on_malformed(struct loop *loop, uint32_t connection, const char *status,
                         const char *field)
{
    loop->counts.malformed++;
    const struct misuse_verdict verdict =
        misuse_on_malformed(&loop->misuse[connection], loop->now_ms);
    if (verdict.is_logged || verdict.is_cut) {
        log_misuse(loop, connection, status, field, verdict.is_cut);
    }
    if (verdict.is_cut) {
        cut_off(loop, connection);
    }
}

static void on_over_limit(struct loop *loop, uint32_t connection, const char *field)
{
    loop->counts.over_limit++;
    const struct misuse_verdict verdict =
        misuse_on_over_limit(&loop->misuse[connection], loop->now_ms);
    if (verdict.is_logged || verdict.is_cut) {
        log_misuse(loop, connection, wire_status_text(WIRE_LIMIT), field, verdict.is_cut);
    }
    encoder_refuse(loop->encoder, connection, REFUSED_LIMIT,
                   "a message was over a limit of size, frames or entries");
    if (verdict.is_cut) {
        cut_off(loop, connection);
    }
}

static bool is_from_a_peer(enum message_kind kind)
{
    switch (message_direction(kind)) {
    case DIRECTION_FROM_PEER:
    case DIRECTION_FROM_CLIENT:
    case DIRECTION_FROM_WORKER:
    case DIRECTION_BOTH_WAYS:
        return true;
    case DIRECTION_TO_PEER:
    case DIRECTION_TO_CLIENT:
    case DIRECTION_TO_WORKER:
        break;
    }
    return false;
}

/* A HELLO that was answered with no. */
static void log_refused(struct loop *loop, const struct input *input)
{
    char peer[128];
    const char *address = transport_peer(loop->transport, input->connection);
    if (!may_log_misuse(loop)) {
        return;
    }
    for (uint32_t i = 0; i < loop->effects->count; i++) {
        const struct effect *effect = &loop->effects->at[i];
        if (effect->kind == EFFECT_SEND && effect->code == MESSAGE_REFUSED) {
            log_warn("session.refused", "role=%s principal=\"%.*s\" peer=%s code=%s why=\"%.*s\"",
                     peer_role_text(input->message->as.hello.role), (int)input->principal.size,
                     (const char *)input->principal.data,
                     log_quote(peer, sizeof peer, address, strlen(address)),
                     refused_code_text(effect->status), (int)effect->body.size,
                     (const char *)effect->body.data);
            return;
        }
    }
}

/* A client that asked for more than its rights, and was answered with no. */
static void log_beyond_rights(struct loop *loop, const struct input *input)
{
    char peer[128];
    const char *address = transport_peer(loop->transport, input->connection);
    if (!misuse_may_log(&loop->misuse[input->connection], loop->now_ms) || !may_log_misuse(loop)) {
        return;
    }
    log_warn("session.beyond_rights", "principal=\"%.*s\" peer=%s message=%s",
             (int)input->principal.size, (const char *)input->principal.data,
             log_quote(peer, sizeof peer, address, strlen(address)),
             message_kind_text(input->message->kind));
}

static void on_readable(struct loop *loop, uint32_t connection, const struct message *message)
{
    if (!is_from_a_peer(message->kind)) {
        on_malformed(loop, connection, "kind", message_kind_text(message->kind));
        return;
    }
    const struct principal *principal = transport_principal(loop->transport, connection);
    const struct input input = {
        .kind = INPUT_MESSAGE,
        .connection = connection,
        .rights = transport_rights(loop->transport, connection),
        .services = &principal->services,
        .rights_serial = loop->rights_serial,
        .principal = bytes_from_text(principal->name),
        .message = message,
    };
    const struct counters *counters = &loop->core->counters;
    const uint64_t refused_before = counters->sessions_refused;
    const uint64_t beyond_before = counters->beyond_rights;
    step(loop, &input);
    if (counters->sessions_refused != refused_before) {
        log_refused(loop, &input);
    }
    if (counters->beyond_rights != beyond_before) {
        log_beyond_rights(loop, &input);
    }
}

static void on_message(struct loop *loop, const struct transport_message *received)
{
    const uint32_t connection = received->connection;
    if (received->is_new) {
        loop->misuse[connection] = (struct misuse){0};
        encoder_open(loop->encoder, connection);
    }
    if (received->is_over_limit) {
        on_over_limit(loop, connection, "frames");
        return;
    }
    struct message message;
    const enum wire_status status = message_decode(&message, &received->frames, &loop->limits);
    switch (status) {
    case WIRE_OK:
        on_readable(loop, connection, &message);
        return;
    case WIRE_LIMIT:
        on_over_limit(loop, connection, message.error_field);
        return;
    case WIRE_VERSION:
        encoder_refuse(loop->encoder, connection, REFUSED_VERSION,
                       "this broker speaks major version 1 of the protocol");
        on_malformed(loop, connection, wire_status_text(status), message.error_field);
        return;
    case WIRE_MALFORMED:
    case WIRE_UNKNOWN_KIND:
        on_malformed(loop, connection, wire_status_text(status), message.error_field);
        return;
    }
}

static uint64_t clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* One peer's flood is as long as the round: what it makes the others wait. */
static void receive_messages(struct loop *loop)
{
    struct transport_message received;
    const uint64_t until_ns = clock_ns() + ROUND_RECEIVE_NS;
    uint64_t size = 0;
    loop->is_dry = false;
    for (uint32_t i = 0; i < ROUND_MESSAGE_MAX && size < ROUND_SIZE_MAX; i++) {
        if (loop->is_over || !core_admits_input(loop->core)) {
            return;
        }
        if (!transport_receive(loop->transport, &received)) {
            loop->is_dry = true;
            return;
        }
        if (received.connection != CONNECTION_NONE) {
            size += received.size;
            on_message(loop, &received);
        }
        if (clock_ns() >= until_ns) {
            return;
        }
    }
}

/* Who has no session for so long, is only holding a place. */
static void cut_idle(struct loop *loop)
{
    uint32_t connection = 0;
    while (transport_to_check(loop->transport, &connection)) {
        if (loop->core->connection_sessions[connection] == 0) {
            loop->counts.cut_idle++;
            cut_off(loop, connection);
        }
    }
}

/* After everything they sent before was taken. */
static void end_connections(struct loop *loop)
{
    loop->unread_rounds = loop->is_dry ? 0 : loop->unread_rounds + 1;
    if (!loop->is_dry && loop->unread_rounds < UNREAD_ROUND_MAX) {
        return;
    }
    cut_idle(loop);
    uint32_t connection = 0;
    while (transport_ended(loop->transport, &connection)) {
        const struct input input = {.kind = INPUT_DISCONNECTED, .connection = connection};
        step(loop, &input);
        encoder_close(loop->encoder, connection);
        transport_forget(loop->transport, connection);
    }
}

/* ---- a round ---- */

/* Due timers, dispatch, and answers that wait in the core for their records, until nothing is left
 * for this round. */
static void settle_round(struct loop *loop)
{
    uint32_t dispatch_left = ROUND_DISPATCH_MAX;
    uint32_t time_left = ROUND_TIME_MAX;
    loop->is_behind = false;
    for (uint32_t i = 0; i < ROUND_STEP_MAX; i++) {
        struct input input = {.kind = INPUT_TIME};
        const bool has_more_to_dispatch = core_has_more_to_dispatch(loop->core);
        const uint64_t durable_number = store_flush(loop->store);
        if (has_more_to_dispatch && dispatch_left > 0) {
            input.kind = INPUT_DISPATCH;
            dispatch_left--;
        } else if (durable_number != loop->told_number) {
            input.kind = INPUT_DURABLE;
            input.durable_number = durable_number;
            loop->told_number = durable_number;
        } else if (has_more_to_dispatch || core_next_at_ms(loop->core) > loop->now_ms) {
            return;
        } else if (time_left == 0) {
            break; /* a cursor is open: peers have their turn before it goes on */
        } else {
            time_left--;
        }
        step(loop, &input);
    }
    loop->is_behind = true;
}

static void take_signals(struct loop *loop)
{
    struct signalfd_siginfo signal;
    while (read(loop->signal_fd, &signal, sizeof signal) == (ssize_t)sizeof signal) {
        if (signal.ssi_signo == SIGHUP) {
            uint64_t count = 0;
            (void)reload(loop, &count);
            continue;
        }
        if (loop->config->is_dev || loop->drain_until_ms != UINT64_MAX) {
            loop->is_over = true;
            return;
        }
        const uint64_t drain_ms = loop->settings.value[CONFIG_DRAIN_TIMEOUT];
        loop->drain_until_ms = loop->now_ms + drain_ms;
        notify_stopping(core_unsettled_count(loop->core), drain_ms);
        const struct input input = {.kind = INPUT_DRAIN};
        step(loop, &input);
    }
}

static void check_drained(struct loop *loop)
{
    if (loop->drain_until_ms == UINT64_MAX) {
        return;
    }
    if (core_unsettled_count(loop->core) == 0 || loop->now_ms >= loop->drain_until_ms) {
        loop->is_over = true;
    }
}

/* How long there is nothing to do; -1: for ever. */
static int64_t sleep_ms(const struct loop *loop)
{
    uint64_t at_ms = core_next_at_ms(loop->core);
    const uint64_t transport_at_ms = transport_next_at_ms(loop->transport);
    const uint64_t guard_at_ms = guard_next_at_ms(loop->guard, loop->transport);
    at_ms = transport_at_ms < at_ms ? transport_at_ms : at_ms;
    at_ms = guard_at_ms < at_ms ? guard_at_ms : at_ms;
    at_ms = loop->drain_until_ms < at_ms ? loop->drain_until_ms : at_ms;
    if (!loop->is_dry || loop->is_behind || at_ms <= loop->now_ms ||
        loop->notify.beat_at_ms <= loop->looked_at_ms) {
        return 0;
    }
    const uint64_t beat_left_ms = loop->notify.beat_at_ms - loop->looked_at_ms;
    if (at_ms == UINT64_MAX && loop->notify.beat_at_ms == UINT64_MAX) {
        return -1;
    }
    const uint64_t core_left_ms = at_ms - loop->now_ms;
    const uint64_t left_ms = core_left_ms < beat_left_ms ? core_left_ms : beat_left_ms;
    return (int64_t)(left_ms < INT32_MAX ? left_ms : INT32_MAX);
}

/* What the memory of this process is for, as far as it is known. */
static uint64_t explained_bytes(const struct loop *loop)
{
    const struct store_counts store = store_counts(loop->store);
    return core_memory_touched(loop->core) + store.byte_count + store.table_size +
           transport_counts(loop->transport)->bytes_waiting;
}

static void run_round(struct loop *loop)
{
    look_at_clock(loop);
    notify_beat(&loop->notify, loop->looked_at_ms);
    take_signals(loop);
    transport_collect(loop->transport, loop->now_ms);
    if (guard_is_due(loop->guard, loop->now_ms)) {
        guard_run(loop->guard, loop->transport, explained_bytes(loop), loop->now_ms);
    }
    receive_messages(loop);
    end_connections(loop);
    settle_round(loop);
    encoder_flush(loop->encoder);
    store_release(loop->store);
    events_flush(&loop->events);
    check_drained(loop);
}

/* ---- opening and closing ---- */

static bool open_core(struct loop *loop)
{
    struct core_config config = loop->config->core;
    uint32_t epoch = 0;
    while (epoch == 0) {
        epoch = randombytes_random() & EPOCH_MASK; /* the memory store keeps none to raise */
    }
    config.epoch = epoch;
    randombytes_buf(&config.seed, sizeof config.seed);
    randombytes_buf(&config.hash_key, sizeof config.hash_key);
    config.is_logging_tasks = loop->config->is_dev || log_is_on(LOG_LEVEL_DEBUG);
    loop->core_memory_size = core_memory_size(&config);
    void *memory = mmap(NULL, loop->core_memory_size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return false;
    }
    loop->core_memory = memory;
    loop->core = core_create(memory, &config, loop->now_ms);
    return true;
}

static void add_counter(struct encoder_config *config, struct loop *loop, const char *name,
                        const uint64_t *value)
{
    TREADLE_ASSERT(config->counter_count < sizeof loop->counters / sizeof loop->counters[0]);
    loop->counters[config->counter_count] = (struct encoder_counter){name, value};
    config->counter_count++;
}

static void add_counters(struct encoder_config *config, struct loop *loop)
{
    const struct transport_counts *transport = transport_counts(loop->transport);
    config->counters = loop->counters;
    add_counter(config, loop, "malformed", &loop->counts.malformed);
    add_counter(config, loop, "over_limit", &loop->counts.over_limit);
    add_counter(config, loop, "cut_off", &loop->counts.cut_off);
    add_counter(config, loop, "cut_idle", &loop->counts.cut_idle);
    add_counter(config, loop, "connections_opened", &transport->connections_opened);
    add_counter(config, loop, "connections_refused", &transport->connections_refused);
    add_counter(config, loop, "connections_cut", &transport->connections_cut);
    add_counter(config, loop, "connections_greedy", &transport->connections_greedy);
    add_counter(config, loop, "connections_silent", &transport->connections_silent);
    add_counter(config, loop, "bytes_waiting", &transport->bytes_waiting);
    add_counter(config, loop, "handshakes_admitted", &transport->handshakes_admitted);
    add_counter(config, loop, "handshakes_denied", &transport->handshakes_denied);
    add_counter(config, loop, "handshakes_later", &transport->handshakes_later);
    add_counter(config, loop, "sends_waited", &transport->sends_waited);
    add_counter(config, loop, "sends_dropped", &transport->sends_dropped);
    add_counter(config, loop, "messages_in", &transport->messages_in);
    add_counter(config, loop, "messages_out", &transport->messages_out);
    const struct guard_counts *guard = guard_counts(loop->guard);
    add_counter(config, loop, "rss_bytes", &guard->rss);
    add_counter(config, loop, "rss_bytes_most", &guard->rss_most);
    add_counter(config, loop, "rss_bytes_unexplained", &guard->unexplained);
}

static bool open_parts(struct loop *loop)
{
    if (!open_core(loop)) {
        return false;
    }
    const struct core_config *limits = &loop->config->core;
    loop->limits = (struct wire_limits){
        .body_size_max = limits->body_size_max,
        .entry_count_max = limits->entry_count_max,
        .message_size_max = limits->body_size_max + FIRST_FRAME_SIZE_MAX,
    };
    loop->effects = calloc(1, sizeof *loop->effects);
    loop->misuse = calloc(limits->connection_count_max, sizeof *loop->misuse);
    loop->guard = guard_create(loop->config->rss_max);
    loop->store = store_create_memory(loop->core->task_slab.count_max);
    if (loop->effects == NULL || loop->misuse == NULL || loop->store == NULL ||
        loop->guard == NULL) {
        return false;
    }
    struct encoder_config config = {
        .core = loop->core,
        .store = loop->store,
        .version = loop->config->version,
        .send = hand_to_transport,
        .context = loop,
    };
    randombytes_buf(config.broker_id, sizeof config.broker_id);
    add_counters(&config, loop);
    loop->encoder = encoder_create(&config);
    events_init(&loop->events, loop->core, loop->store, loop->config->is_dev);
    return loop->encoder != NULL;
}

static int open_loop(struct loop *loop)
{
    sigset_t signals;
    struct transport_error error;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    loop->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    loop->drain_until_ms = UINT64_MAX;
    look_at_clock(loop);
    notify_init(&loop->notify, loop->looked_at_ms);
    loop->settings = *loop->config->settings;
    loop->transport = transport_open(&loop->config->transport, &error);
    if (loop->transport == NULL) {
        (void)fprintf(stderr, "treadled: listen: %s\n", error.text);
        return error.exit_code == EX_OK ? EX_SOFTWARE : error.exit_code;
    }
    if (loop->signal_fd == -1 || !open_parts(loop)) {
        (void)fprintf(stderr, "treadled: start: out of memory; lower its limits\n");
        return EX_OSERR;
    }
    return EX_OK;
}

static void close_loop(struct loop *loop)
{
    const int linger_ms = loop->exit_code == EX_OK ? LINGER_MS : 0;
    transport_close(&loop->transport, linger_ms);
    principals_destroy(&loop->principals);
    guard_destroy(&loop->guard);
    encoder_destroy(&loop->encoder);
    store_destroy(&loop->store);
    free(loop->effects);
    free(loop->misuse);
    if (loop->core_memory != NULL) {
        (void)munmap(loop->core_memory, loop->core_memory_size);
    }
    if (loop->signal_fd != -1) {
        (void)close(loop->signal_fd);
    }
}

/* Whom an endpoint is for, where it is not for all. */
static const char *audience(uint32_t rights)
{
    if (rights == RIGHT_WORK) {
        return " workers";
    }
    return rights == RIGHT_ADMIN ? " admin" : "";
}

static void announce(const struct loop *loop)
{
    const struct transport_config *transport = &loop->config->transport;
    for (uint32_t i = 0; i < transport->endpoint_count; i++) {
        const char *endpoint = transport_endpoint(loop->transport, i);
        (void)printf("listening %s%s\n", endpoint, audience(transport->rights[i]));
        if (!loop->config->is_dev && transport->server_keys[i] == NULL &&
            strncmp(endpoint, "tcp://", 6) == 0) {
            log_warn("broker.insecure",
                     "endpoint=%s reason=\"every user of this machine may submit and work\"",
                     endpoint);
        }
    }
    (void)fflush(stdout);
    notify_ready(transport_endpoint(loop->transport, 0));
    log_info("broker.started", "version=%s epoch=%" PRIu32 " store=memory", loop->config->version,
             loop->core->config.epoch);
    if (loop->config->is_dev) {
        events_greet(transport_endpoint(loop->transport, 0));
    }
}

int loop_run(const struct loop_config *config)
{
    struct loop loop = {.config = config, .signal_fd = -1};
    loop.exit_code = open_loop(&loop);
    if (loop.exit_code == EX_OK) {
        announce(&loop);
        while (!loop.is_over) {
            if (loop.is_behind) {
                (void)sched_yield(); /* a cursor never sleeps: whoever waits for this processor goes
                                        first */
            }
            const int64_t span_ms = sleep_ms(&loop);
            loop.wake_at_ms = span_ms < 0 ? 0 : loop.looked_at_ms + (uint64_t)span_ms;
            transport_wait(loop.transport, loop.signal_fd, span_ms);
            run_round(&loop);
        }
        log_info("broker.stopped", "tasks=%" PRIu32, core_unsettled_count(loop.core));
    }
    close_loop(&loop);
    return loop.exit_code;
}
