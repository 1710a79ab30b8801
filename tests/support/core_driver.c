/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/core_driver.h"

#include "broker/core/internal.h"
#include "common/base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUND_COUNT_MAX 1000000U
#define START_MS        1000000U
#define CORE_ALIGNMENT  64U

/* ---- the core ---- */

void core_driver_config(struct core_config *config)
{
    core_config_init(config);
    config->task_count_max = 512;
    config->settled_count_max = 256;
    config->remembered_count_max = 64;
    config->session_count_max = 32;
    config->connection_count_max = 256;
    config->service_count_max = 8;
    config->queue_count_max = 16;
    config->tenant_queue_count_max = 32;
    config->serve_count_max = 64;
    config->attempt_count_max = 512;
    config->watch_count_max = 1024;
    config->owner_count_max = 8;
    config->policy_count_max = 64;
    config->outbox_count_max = 4 * ENTRY_COUNT_MAX;
    config->epoch = 7;
    config->seed = 42;
}

static void *grab(size_t size)
{
    void *memory = calloc(1, size);
    TREADLE_ASSERT(memory != NULL);
    return memory;
}

struct core_driver *core_driver_create(const struct core_config *config)
{
    struct core_driver *driver = grab(sizeof *driver);
    if (config == NULL) {
        core_driver_config(&driver->config);
    } else {
        driver->config = *config;
    }
    /* Zero pages that are touched as they fill, however large the configuration. */
    driver->memory = grab(core_memory_size(&driver->config) + CORE_ALIGNMENT);
    char *at = driver->memory;
    at += (CORE_ALIGNMENT - (uintptr_t)at % CORE_ALIGNMENT) % CORE_ALIGNMENT;
    driver->effects = grab(sizeof *driver->effects);
    driver->peer_on = grab(sizeof(struct peer *) * driver->config.connection_count_max);
    driver->now_ms = START_MS;
    driver->next_task = 1;
    driver->core = core_create(at, &driver->config, driver->now_ms);
    writer_init(&driver->list);
    writer_init(&driver->templates);
    writer_init(&driver->out);
    core_check(driver->core);
    return driver;
}

void core_driver_destroy(struct core_driver **reference)
{
    struct core_driver *driver = *reference;
    if (driver == NULL) {
        return;
    }
    for (uint32_t i = 0; i < driver->peer_count; i++) {
        free(driver->peers[i].leases);
    }
    writer_free(&driver->list);
    writer_free(&driver->templates);
    writer_free(&driver->out);
    free(driver->seen);
    free(driver->peer_on);
    free(driver->effects);
    free(driver->memory);
    free(driver);
    *reference = NULL;
}

/* ---- what is seen ---- */

static void peer_holds(struct peer *peer, uint64_t lease)
{
    if (peer->lease_count == peer->lease_count_max) {
        peer->lease_count_max = peer->lease_count_max == 0 ? 64 : 2 * peer->lease_count_max;
        peer->leases = realloc(peer->leases, sizeof(uint64_t) * peer->lease_count_max);
        TREADLE_ASSERT(peer->leases != NULL);
    }
    peer->leases[peer->lease_count] = lease;
    peer->lease_count++;
}

void peer_forgets(struct peer *peer, uint64_t lease)
{
    for (uint32_t i = 0; i < peer->lease_count; i++) {
        if (peer->leases[i] == lease) {
            peer->lease_count--;
            memmove(&peer->leases[i], &peer->leases[i + 1],
                    sizeof(uint64_t) * (peer->lease_count - i));
            return;
        }
    }
}

/* What the peer itself takes note of. */
static void peer_receives(struct core_driver *driver, const struct effect *effect)
{
    struct peer *peer = driver->peer_on[effect->connection];
    if (peer == NULL || peer->connection != effect->connection) {
        return;
    }
    if (effect->code == MESSAGE_WELCOME) {
        peer->dispatched = effect->number;
    } else if (effect->code == MESSAGE_DISPATCH) {
        peer->dispatched++;
        peer_holds(peer, driver->core->attempts[effect->attempt].lease);
    } else if (effect->code == MESSAGE_SETTLED) {
        peer->settled = effect->number;
        if (peer->is_taking) {
            peer->upto = effect->number;
        }
    }
}

static void collect(struct core_driver *driver, const struct effect *effect)
{
    if (driver->seen_count == driver->seen_count_max) {
        driver->seen_count_max = driver->seen_count_max == 0 ? 256 : 2 * driver->seen_count_max;
        driver->seen = realloc(driver->seen, sizeof(struct seen) * driver->seen_count_max);
        TREADLE_ASSERT(driver->seen != NULL);
    }
    struct seen *seen = &driver->seen[driver->seen_count];
    driver->seen_count++;
    *seen = (struct seen){.effect = *effect, .step = driver->step_count};
    seen->has_failure = effect->failure != NULL;
    seen->effect.failure = NULL;
    seen->effect.meta = NULL;
    seen->effect.template = NULL;
    if (effect->kind != EFFECT_SEND) {
        seen->effect.body = (struct bytes){0};
        return;
    }
    seen->peer = driver->peer_on[effect->connection];
    if (effect->code == MESSAGE_DISPATCH) {
        seen->lease = driver->core->attempts[effect->attempt].lease;
        seen->effect.id = driver->core->tasks[effect->task].id;
    } else if (effect->code == MESSAGE_SETTLED) {
        seen->state = driver->core->tasks[effect->task].state;
        seen->kind = driver->core->tasks[effect->task].kind;
        seen->flags = driver->core->tasks[effect->task].flags;
        seen->effect.id = driver->core->tasks[effect->task].id;
    } else if (effect->code == MESSAGE_RECALL || effect->code == MESSAGE_CANCEL_ATTEMPT ||
               effect->code == MESSAGE_RESULT_ACK) {
        seen->lease = effect->number;
    }
}

void forget_all(struct core_driver *driver)
{
    driver->seen_count = 0;
}

/* ---- steps ---- */

static uint64_t clock_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

void core_driver_step(struct core_driver *driver, const struct input *input)
{
    const uint64_t began_ns = clock_ns();
    core_step(driver->core, driver->now_ms, input, driver->effects);
    const uint64_t took_ns = clock_ns() - began_ns;
    driver->step_count++;
    if (took_ns > driver->step_longest_ns) {
        driver->step_longest_ns = took_ns;
    }
    if (driver->effects->count > driver->effects_most) {
        driver->effects_most = driver->effects->count;
    }
    TREADLE_ASSERT(driver->core->visits <= VISITS_MAX);
    if (VISITS_MAX - driver->core->visits > driver->visits_most) {
        driver->visits_most = VISITS_MAX - driver->core->visits;
    }
    for (uint32_t i = 0; i < driver->effects->count; i++) {
        const struct effect *effect = &driver->effects->at[i];
        if (effect->kind == EFFECT_SEND) {
            peer_receives(driver, effect);
        }
        if (!driver->is_forgetful) {
            collect(driver, effect);
        }
    }
    if (!driver->is_unchecked) {
        core_check(driver->core);
    }
}

static void step_kind(struct core_driver *driver, enum input_kind kind)
{
    const struct input input = {.kind = kind, .durable_number = driver->core->record_number};
    core_driver_step(driver, &input);
}

void core_driver_rounds(struct core_driver *driver)
{
    for (uint32_t i = 0; i < ROUND_COUNT_MAX; i++) {
        if (!driver->is_store_held && driver->core->durable_number < driver->core->record_number) {
            step_kind(driver, INPUT_DURABLE);
        } else if (core_has_more_to_dispatch(driver->core)) {
            step_kind(driver, INPUT_DISPATCH);
        } else if (core_next_at_ms(driver->core) <= driver->now_ms) {
            step_kind(driver, INPUT_TIME);
        } else {
            return;
        }
    }
    fail_msg("the core has not come to rest after %u steps", ROUND_COUNT_MAX);
}

static void rounds_unless_by_hand(struct core_driver *driver)
{
    if (!driver->is_by_hand) {
        core_driver_rounds(driver);
    }
}

void when_the_store_has_all(struct core_driver *driver)
{
    step_kind(driver, INPUT_DURABLE);
    rounds_unless_by_hand(driver);
}

void when_the_broker_drains(struct core_driver *driver)
{
    step_kind(driver, INPUT_DRAIN);
    rounds_unless_by_hand(driver);
}

static uint64_t upto_of(const struct peer *peer)
{
    if (peer->role == ROLE_CLIENT || peer->grants_by_hand) {
        return peer->upto;
    }
    const uint64_t room = (uint64_t)peer->slots + peer->prefetch;
    return room > peer->lease_count ? peer->dispatched + room - peer->lease_count
                                    : peer->dispatched;
}

void core_driver_send(struct peer *peer, struct message *message)
{
    struct core_driver *driver = peer->driver;
    if (peer->connection == NONE) {
        fail_msg("%s has no connection", peer->name);
    }
    if (message->number == 0) {
        peer->number++;
        message->number = peer->number;
    }
    message->upto = upto_of(peer);
    if (!message_encode(message, &driver->out)) {
        fail_msg("cannot encode %s: %s", message_kind_text(message->kind),
                 driver->out.error_field != NULL ? driver->out.error_field : "memory");
    }
    struct message decoded;
    assert_int_equal(message_decode(&decoded, &driver->out.frames, &wire_limits_protocol), WIRE_OK);
    const struct input input = {.kind = INPUT_MESSAGE,
                                .connection = peer->connection,
                                .rights = peer->rights,
                                .services = &peer->services,
                                .rights_serial = peer->rights_serial,
                                .principal = bytes_from_text(peer->principal),
                                .message = &decoded};
    peer->beats_at_ms = driver->now_ms + driver->config.heartbeat_ms;
    core_driver_step(driver, &input);
    rounds_unless_by_hand(driver);
}

/* ---- time ---- */

/* The instant of the next heartbeat; UINT64_MAX. */
static uint64_t next_beat_at_ms(const struct core_driver *driver)
{
    uint64_t at_ms = UINT64_MAX;
    for (uint32_t i = 0; i < driver->peer_count; i++) {
        const struct peer *peer = &driver->peers[i];
        if (!peer->is_silent && peer->connection != NONE && peer->beats_at_ms < at_ms) {
            at_ms = peer->beats_at_ms;
        }
    }
    return at_ms;
}

static void send_due_beats(struct core_driver *driver)
{
    for (uint32_t i = 0; i < driver->peer_count; i++) {
        struct peer *peer = &driver->peers[i];
        if (!peer->is_silent && peer->connection != NONE && peer->beats_at_ms <= driver->now_ms) {
            when_it_says(peer, MESSAGE_HEARTBEAT);
        }
    }
}

void when_time_passes_ms(struct core_driver *driver, uint64_t span_ms)
{
    const uint64_t end_ms = driver->now_ms + span_ms;
    rounds_unless_by_hand(driver);
    while (driver->now_ms < end_ms) {
        uint64_t at_ms = end_ms;
        const uint64_t core_at_ms = core_next_at_ms(driver->core);
        const uint64_t beat_at_ms = next_beat_at_ms(driver);
        at_ms = core_at_ms < at_ms ? core_at_ms : at_ms;
        at_ms = beat_at_ms < at_ms ? beat_at_ms : at_ms;
        driver->now_ms = at_ms > driver->now_ms ? at_ms : driver->now_ms;
        send_due_beats(driver);
        step_kind(driver, INPUT_TIME);
        rounds_unless_by_hand(driver);
    }
}

void when_time_jumps_ms(struct core_driver *driver, uint64_t span_ms)
{
    driver->now_ms += span_ms;
    step_kind(driver, INPUT_TIME);
    rounds_unless_by_hand(driver);
}

/* ---- peers ---- */

static void add_serves(struct peer *peer, struct wire_hello *hello)
{
    struct core_driver *driver = peer->driver;
    const char *at = peer->serves == NULL ? "" : peer->serves;
    writer_reset(&driver->list);
    while (*at != '\0') {
        const size_t size = strcspn(at, " ");
        const struct wire_serve serve = {.pattern = {(const uint8_t *)at, size},
                                         .worker_policy = peer->worker_policy,
                                         .task_policy = peer->task_policy,
                                         .service_policy = peer->service_policy};
        TREADLE_ASSERT(wire_serve_encode(&driver->list, &serve));
        at += size;
        at += strspn(at, " ");
    }
    hello->serves = wire_list_from_writer(&driver->list, driver->list.record_count);
}

static void add_leases(struct peer *peer, struct wire_hello *hello)
{
    struct core_driver *driver = peer->driver;
    writer_reset(&driver->templates);
    for (uint32_t i = 0; i < peer->lease_count; i++) {
        const struct wire_held_lease held = {.lease = peer->leases[i],
                                             .state = i < peer->slots ? HELD_RUNNING : HELD_QUEUED};
        TREADLE_ASSERT(wire_held_lease_encode(&driver->templates, &held));
    }
    hello->leases = wire_list_from_writer(&driver->templates, driver->templates.record_count);
}

void when_it_says_hello(struct peer *peer)
{
    struct message message = {.kind = MESSAGE_HELLO};
    struct wire_hello *hello = &message.as.hello;
    *hello = (struct wire_hello){.minor_from = WIRE_MINOR,
                                 .minor_to = WIRE_MINOR,
                                 .role = peer->role,
                                 .name = bytes_from_text(peer->name),
                                 .host = bytes_from_text("host1"),
                                 .incarnation = {peer->incarnation, sizeof peer->incarnation},
                                 .slots = peer->slots};
    add_serves(peer, hello);
    add_leases(peer, hello);
    core_driver_send(peer, &message);
    if (peer->role == ROLE_WORKER && peer->connection != NONE && peer_session(peer) != NULL) {
        when_it_says(peer, MESSAGE_HEARTBEAT); /* its grant */
    }
}

void when_it_connects(struct peer *peer)
{
    struct core_driver *driver = peer->driver;
    TREADLE_ASSERT(driver->next_connection < driver->config.connection_count_max);
    peer->connection = driver->next_connection;
    driver->next_connection++;
    driver->peer_on[peer->connection] = peer;
    when_it_says_hello(peer);
}

void when_its_connection_ends(struct peer *peer)
{
    const struct input input = {.kind = INPUT_DISCONNECTED, .connection = peer->connection};
    peer->connection = NONE;
    core_driver_step(peer->driver, &input);
    rounds_unless_by_hand(peer->driver);
}

void when_it_restarts(struct peer *peer)
{
    peer->incarnation[15]++;
    peer->number = 0;
    peer->lease_count = 0;
    peer->upto = 0;
    peer->settled = 0;
    when_it_connects(peer);
}

void when_it_says(struct peer *peer, enum message_kind kind)
{
    struct message message = {.kind = kind};
    core_driver_send(peer, &message);
}

static void set_text(char *to, const char *text)
{
    TREADLE_ASSERT(strlen(text) <= NAME_SIZE_MAX);
    memcpy(to, text, strlen(text) + 1);
}

static struct peer *add_peer(const struct given_peer *given, enum peer_role role)
{
    struct core_driver *driver = given->driver;
    TREADLE_ASSERT(driver->peer_count < PEER_COUNT_MAX);
    struct peer *peer = &driver->peers[driver->peer_count];
    driver->peer_count++;
    *peer = (struct peer){.driver = driver,
                          .role = role,
                          .connection = NONE,
                          .rights = given->rights == 0 ? RIGHT_ALL : given->rights,
                          .services = given->services.count == 0 ? globs_all : given->services,
                          .serves = given->serves,
                          .slots = given->slots,
                          .prefetch = given->prefetch,
                          .worker_policy = given->worker_policy,
                          .task_policy = given->task_policy,
                          .service_policy = given->service_policy};
    set_text(peer->principal, given->principal);
    set_text(peer->name, given->name != NULL ? given->name : given->principal);
    peer->incarnation[0] = (uint8_t)driver->peer_count;
    when_it_connects(peer);
    return peer;
}

struct peer *core_driver_client(struct given_peer given)
{
    struct peer *peer = add_peer(&given, ROLE_CLIENT);
    peer->is_taking = true;
    return peer;
}

struct peer *core_driver_worker(struct given_peer given)
{
    if (given.slots == 0) {
        given.slots = 1;
    }
    return add_peer(&given, ROLE_WORKER);
}

const struct session *peer_session(const struct peer *peer)
{
    if (peer->connection == NONE) {
        return NULL;
    }
    const uint32_t stored = peer->driver->core->connection_sessions[peer->connection];
    return stored == 0 ? NULL : &peer->driver->core->sessions[stored - 1];
}

/* ---- clients ---- */

struct treadle_task_id task_id_of(uint32_t task)
{
    struct treadle_task_id id = {{0x01, 0x90}};
    bytes_store_u32(&id.bytes[12], task);
    return id;
}

const struct task *task_of(const struct core_driver *driver, uint32_t task)
{
    const struct treadle_task_id id = task_id_of(task);
    const uint32_t found = id_find(driver->core, &id);
    return found < driver->core->task_slab.count_max ? &driver->core->tasks[found] : NULL;
}

static void add_entries(const struct given_submit *given, uint32_t first, uint32_t count)
{
    static const uint8_t zeros[1 << 16];
    struct core_driver *driver = given->client->driver;
    const uint8_t digest[16] = {given->content};
    TREADLE_ASSERT(given->body_size <= sizeof zeros);
    writer_reset(&driver->list);
    for (uint32_t i = 0; i < count; i++) {
        const struct wire_submit_entry entry = {.id = task_id_of(first + i),
                                                .digest = {digest, sizeof digest},
                                                .again_age_ms = given->again_age_ms,
                                                .body = {zeros, given->body_size}};
        TREADLE_ASSERT(wire_submit_entry_encode(&driver->list, &entry));
    }
}

uint32_t core_driver_submit(struct given_submit given)
{
    struct core_driver *driver = given.client->driver;
    const char *dot = strrchr(given.name, '.');
    TREADLE_ASSERT(dot != NULL);
    const struct wire_submit_template template = {
        .service = {(const uint8_t *)given.name, (size_t)(dot - given.name)},
        .task = bytes_from_text(dot + 1),
        .tenant = bytes_from_text(given.tenant != NULL ? given.tenant : ""),
        .priority = given.priority,
        .delay_ms = given.delay_ms,
        .flags = given.flags,
        .policy = given.policy};
    writer_reset(&driver->templates);
    TREADLE_ASSERT(wire_submit_template_encode(&driver->templates, &template));
    const uint32_t count = given.count == 0 ? 1 : given.count;
    const uint32_t first = given.task == 0 ? driver->next_task : given.task;
    if (given.task == 0) {
        driver->next_task += count;
    }
    for (uint32_t done = 0; done < count; done += ENTRY_COUNT_MAX) {
        const uint32_t left = count - done;
        add_entries(&given, first + done, left < ENTRY_COUNT_MAX ? left : ENTRY_COUNT_MAX);
        struct message message = {.kind = MESSAGE_SUBMIT};
        message.as.submit.templates = wire_list_from_writer(&driver->templates, 1);
        message.as.submit.entries = wire_list_from_writer(&driver->list, driver->list.record_count);
        core_driver_send(given.client, &message);
    }
    return first;
}

static struct wire_list one_id(struct core_driver *driver, uint32_t task)
{
    const struct wire_id_entry entry = {.id = task_id_of(task)};
    writer_reset(&driver->list);
    TREADLE_ASSERT(wire_id_entry_encode(&driver->list, &entry));
    return wire_list_from_writer(&driver->list, 1);
}

void when_it_cancels(struct peer *client, uint32_t task)
{
    struct message message = {.kind = MESSAGE_CANCEL};
    message.as.cancel.entries = one_id(client->driver, task);
    core_driver_send(client, &message);
}

void when_it_awaits(struct peer *client, uint32_t task)
{
    struct message message = {.kind = MESSAGE_AWAIT};
    message.as.await.entries = one_id(client->driver, task);
    core_driver_send(client, &message);
}

void when_it_acknowledges(struct peer *client, uint64_t number)
{
    client->upto = number;
    when_it_says(client, MESSAGE_HEARTBEAT);
}

void when_it_asks_for(struct peer *client, uint32_t task, uint64_t request)
{
    struct message message = {.kind = MESSAGE_TASK_QUERY};
    message.as.task_query.request = request;
    message.as.task_query.id = task_id_of(task);
    core_driver_send(client, &message);
}

void when_it_sets(struct peer *client, const char *service, enum service_action action)
{
    struct message message = {.kind = MESSAGE_SERVICE_SET};
    message.as.service_set.name = bytes_from_text(service);
    message.as.service_set.action = action;
    core_driver_send(client, &message);
}

/* ---- workers ---- */

void when_it_succeeds(struct peer *worker, uint64_t lease)
{
    const struct wire_success_entry entry = {.lease = lease, .body = bytes_from_text("done")};
    struct core_driver *driver = worker->driver;
    writer_reset(&driver->list);
    TREADLE_ASSERT(wire_success_entry_encode(&driver->list, &entry));
    struct message message = {.kind = MESSAGE_RESULT};
    message.as.result.successes = wire_list_from_writer(&driver->list, 1);
    peer_forgets(worker, lease);
    core_driver_send(worker, &message);
}

void core_driver_fail(struct given_failure given)
{
    const struct wire_failure_entry entry = {.lease = given.lease,
                                             .kind = given.kind,
                                             .retry_choice = given.choice,
                                             .retry_delay_ms = given.delay_ms,
                                             .name = bytes_from_text("exit.1"),
                                             .message = bytes_from_text("it broke")};
    struct core_driver *driver = given.worker->driver;
    writer_reset(&driver->list);
    TREADLE_ASSERT(wire_failure_entry_encode(&driver->list, &entry));
    struct message message = {.kind = MESSAGE_RESULT};
    message.as.result.failures = wire_list_from_writer(&driver->list, 1);
    peer_forgets(given.worker, given.lease);
    core_driver_send(given.worker, &message);
}

void when_it_returns(struct peer *worker, uint64_t lease)
{
    const struct wire_lease_entry entry = {.lease = lease};
    struct core_driver *driver = worker->driver;
    writer_reset(&driver->list);
    TREADLE_ASSERT(wire_lease_entry_encode(&driver->list, &entry));
    struct message message = {.kind = MESSAGE_RETURNED};
    message.as.returned.entries = wire_list_from_writer(&driver->list, 1);
    peer_forgets(worker, lease);
    core_driver_send(worker, &message);
}

void when_it_reports_progress(struct peer *worker, uint64_t lease)
{
    const struct wire_progress_entry entry = {.lease = lease};
    struct core_driver *driver = worker->driver;
    writer_reset(&driver->list);
    TREADLE_ASSERT(wire_progress_entry_encode(&driver->list, &entry));
    struct message message = {.kind = MESSAGE_PROGRESS};
    message.as.progress.entries = wire_list_from_writer(&driver->list, 1);
    core_driver_send(worker, &message);
}

/* ---- looking ---- */

static bool is_send(const struct seen *seen, const struct peer *peer, enum message_kind kind)
{
    return seen->effect.kind == EFFECT_SEND && seen->effect.code == (uint8_t)kind &&
           (peer == NULL || seen->peer == peer);
}

struct seen *seen_send(struct core_driver *driver, const struct peer *peer, enum message_kind kind)
{
    for (uint32_t i = 0; i < driver->seen_count; i++) {
        if (!driver->seen[i].is_taken && is_send(&driver->seen[i], peer, kind)) {
            return &driver->seen[i];
        }
    }
    return NULL;
}

struct seen *seen_effect(struct core_driver *driver, enum effect_kind kind, int code)
{
    for (uint32_t i = 0; i < driver->seen_count; i++) {
        struct seen *seen = &driver->seen[i];
        if (!seen->is_taken && seen->effect.kind == (uint8_t)kind &&
            seen->effect.code == (uint8_t)code) {
            return seen;
        }
    }
    return NULL;
}

uint32_t count_sends(const struct core_driver *driver, const struct peer *peer,
                     enum message_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < driver->seen_count; i++) {
        count += is_send(&driver->seen[i], peer, kind) ? 1 : 0;
    }
    return count;
}

uint32_t count_effects(const struct core_driver *driver, enum effect_kind kind, int code)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < driver->seen_count; i++) {
        const struct effect *effect = &driver->seen[i].effect;
        count += effect->kind == (uint8_t)kind && effect->code == (uint8_t)code ? 1 : 0;
    }
    return count;
}

/* Ends the test at the line of its story. */
static void fail_at(struct at_line at, const char *text, const char *found)
{
    print_error("%s; it is: %s\n", text, found);
    _fail(at.file, at.line);
}

static void print_untaken(const struct core_driver *driver, const struct peer *peer)
{
    for (uint32_t i = 0; i < driver->seen_count; i++) {
        const struct seen *seen = &driver->seen[i];
        if (!seen->is_taken && seen->effect.kind == EFFECT_SEND && seen->peer == peer) {
            print_error("  %s was sent: %s, status %u, reason %u\n", peer->name,
                        message_kind_text(seen->effect.code), seen->effect.status,
                        seen->effect.reason);
        }
    }
}

struct seen expect_send(struct peer *peer, enum message_kind kind, struct at_line at)
{
    struct seen *seen = seen_send(peer->driver, peer, kind);
    if (seen == NULL) {
        print_untaken(peer->driver, peer);
        fail_at(at, message_kind_text(kind), "not sent");
        return (struct seen){0}; /* not reached */
    }
    seen->is_taken = true;
    return *seen;
}

void expect_no_send(struct peer *peer, enum message_kind kind, struct at_line at)
{
    if (seen_send(peer->driver, peer, kind) != NULL) {
        fail_at(at, message_kind_text(kind), "sent");
    }
}

static bool is_task(const struct seen *seen, uint32_t task)
{
    const struct treadle_task_id id = task_id_of(task);
    return memcmp(seen->effect.id.bytes, id.bytes, sizeof id.bytes) == 0;
}

uint64_t expect_dispatch(struct peer *worker, uint32_t task, struct at_line at)
{
    const struct seen seen = expect_send(worker, MESSAGE_DISPATCH, at);
    if (!is_task(&seen, task)) {
        fail_at(at, "the task dispatched", "another");
    }
    return seen.lease;
}

void expect_settled(struct peer *client, uint32_t task, enum task_state state, struct at_line at)
{
    const struct seen seen = expect_send(client, MESSAGE_SETTLED, at);
    if (!is_task(&seen, task)) {
        fail_at(at, "the task settled", "another");
    }
    if (seen.state != (uint8_t)state) {
        fail_at(at, task_state_text(state), task_state_text(seen.state));
    }
}

void expect_accepted(struct peer *client, uint32_t task, enum accept_status status, int reason,
                     struct at_line at)
{
    const struct seen seen = expect_send(client, MESSAGE_ACCEPTED, at);
    if (!is_task(&seen, task)) {
        fail_at(at, "the task answered", "another");
    }
    if (seen.effect.status != (uint8_t)status) {
        fail_at(at, accept_status_text(status), accept_status_text(seen.effect.status));
    }
    if (seen.effect.reason != (uint8_t)reason) {
        fail_at(at, busy_reason_text((uint64_t)reason), busy_reason_text(seen.effect.reason));
    }
}

void expect_state(struct core_driver *driver, uint32_t number, enum task_state state,
                  struct at_line at)
{
    const struct task *task = task_of(driver, number);
    if (task == NULL || task->state != (uint8_t)state) {
        fail_at(at, task_state_text(state), task == NULL ? "gone" : task_state_text(task->state));
    }
}

void expect_waits(struct core_driver *driver, uint32_t number, enum wait_reason reason,
                  struct at_line at)
{
    const struct task *task = task_of(driver, number);
    uint64_t left_ms = 0;
    const enum wait_reason found =
        task == NULL ? WAIT_REASON_COUNT : core_wait_reason(driver->core, task, &left_ms);
    if (found != reason) {
        fail_at(at, wait_reason_text(reason), wait_reason_text(found));
    }
}

void expect_stale(struct peer *worker, uint64_t lease, bool is_stale, struct at_line at)
{
    const struct seen seen = expect_send(worker, MESSAGE_RESULT_ACK, at);
    if (seen.lease != lease) {
        fail_at(at, "the lease acknowledged", "another");
    }
    if ((seen.effect.status == 1) != is_stale) {
        fail_at(at, is_stale ? "late" : "in time", is_stale ? "in time" : "late");
    }
}
