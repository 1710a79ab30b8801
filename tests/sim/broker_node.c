/* SPDX-License-Identifier: MPL-2.0 */
/* The broker as its shell drives it: rounds of steps, the encoder, the store; and a store whose
 * records become durable some time later. */
#include <inttypes.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

#define DISPATCHES_PER_ROUND 16u
#define STEPS_AT_REST_MAX    100000u

/* ---- life ---- */

static void on_encoded(void *context, uint32_t connection, const struct wire_frames *frames)
{
    struct sim *sim = context;
    const enum wire_status status = message_decode(&sim->sent, frames, &wire_limits_protocol);
    if (status != WIRE_OK) {
        sim_violation(sim, "the broker sends what is %s (field %s)", wire_status_text(status),
                      sim->sent.error_field != NULL ? sim->sent.error_field : "?");
    }
    oracle_on_sent(sim, connection, &sim->sent);
    network_to_peer(sim, connection, frames);
}

static void configure(const struct sim *sim, struct core_config *config)
{
    const struct options *options = &sim->options;
    core_config_init(config);
    config->task_count_max = options->task_limit;
    config->settled_count_max = options->settled_limit;
    config->remembered_count_max = TASK_COUNT_MAX;
    config->session_count_max = ORACLE_SESSION_COUNT;
    config->connection_count_max = CONNECTION_COUNT;
    config->service_count_max = 2 * (SERVICE_COUNT_MAX + 1); /* each owner has the half */
    config->queue_count_max = 2 * (SERVICE_COUNT_MAX * KIND_COUNT + 2);
    config->tenant_queue_count_max = 64;
    config->serve_count_max = 256;
    config->attempt_count_max = options->attempt_limit;
    config->watch_count_max = 2048;
    config->owner_count_max = 8;
    config->policy_count_max = 1024;
    config->outbox_count_max = 4 * ENTRY_COUNT_MAX;
    config->window_count_max = options->window_count;
    config->visits_max = options->visits;
    config->is_logging_tasks = true;
    config->epoch = EPOCH_FIRST + sim->broker.life;
    config->seed = sim->seed;
    config->hash_key = (struct hash_key){sim->seed, 1};
}

void broker_open(struct sim *sim)
{
    struct broker_node *broker = &sim->broker;
    struct core_config config;
    configure(sim, &config);
    broker->memory_size = core_memory_size(&config);
    void *memory = aligned_alloc(64, broker->memory_size);
    if (memory == NULL) {
        sim_violation(sim, "no memory for a broker");
    }
    memset(memory, 0, broker->memory_size);
    broker->core = core_create(memory, &config, sim->now_ms);
    broker->store = store_create_memory(broker->core->task_slab.count_max);
    const struct encoder_config encoder_config = {.core = broker->core,
                                                  .store = broker->store,
                                                  .version = "simulated",
                                                  .send = on_encoded,
                                                  .context = sim};
    broker->encoder = encoder_create(&encoder_config);
    if (broker->store == NULL || broker->encoder == NULL) {
        sim_violation(sim, "no memory for a broker");
    }
    broker->wake_at_ms = UINT64_MAX;
}

void broker_close(struct sim *sim)
{
    encoder_destroy(&sim->broker.encoder);
    store_destroy(&sim->broker.store);
    free(sim->broker.core);
    sim->broker = (struct broker_node){0};
}

void broker_restart(struct sim *sim, uint32_t down_ms)
{
    const uint32_t life = sim->broker.life + 1;
    if (life == ORACLE_EPOCH_COUNT) {
        return;
    }
    sim_tell(sim, "the broker dies, and is back in %u ms as life %u", down_ms, life);
    network_forget_all(sim);
    broker_close(sim);
    sim->broker.life = life;
    sim->broker.down_until_ms = sim->now_ms + down_ms;
    oracle_on_broker_restart(&sim->oracle, life);
    broker_open(sim);
}

/* ---- steps ---- */

static void hash_effect(struct sim *sim, const struct effect *effect)
{
    sim_hash(sim, (uint64_t)effect->kind | (uint64_t)effect->code << 8 |
                      (uint64_t)effect->status << 16 | (uint64_t)effect->reason << 24 |
                      (uint64_t)effect->connection << 32);
    sim_hash(sim, (uint64_t)effect->task | (uint64_t)effect->attempt << 32);
    sim_hash(sim, effect->number ^ effect->value << 20 ^ effect->sequence << 40);
}

static void carry_out(struct sim *sim, const struct effect *effect)
{
    struct broker_node *broker = &sim->broker;
    hash_effect(sim, effect);
    oracle_on_effect(sim, effect);
    switch ((enum effect_kind)effect->kind) {
    case EFFECT_SEND:
        encoder_send(broker->encoder, effect);
        return;
    case EFFECT_PERSIST:
        if (!store_append(broker->store, broker->core, effect, sim->now_ms)) {
            sim_violation(sim, "no memory for a record");
        }
        return;
    case EFFECT_CLOSE:
        network_cut(sim, effect->connection, false);
        return;
    case EFFECT_LOG:
    case EFFECT_RELOAD: /* its clients never order one */
        return;
    }
}

static void note_step(struct sim *sim)
{
    struct broker_node *broker = &sim->broker;
    sim->step_count++;
    if (broker->steps_at_ms != sim->now_ms) {
        broker->steps_at_ms = sim->now_ms;
        broker->steps_here = 0;
    }
    broker->steps_here++;
    if (broker->steps_here > STEPS_AT_REST_MAX) {
        sim_violation(sim, "the broker does not come to rest: %u steps in one millisecond",
                      broker->steps_here);
    }
}

static void step(struct sim *sim, const struct input *input)
{
    struct broker_node *broker = &sim->broker;
    note_step(sim);
    oracle_before_step(sim, input);
    core_step(broker->core, sim->now_ms, input, &sim->effects);
    for (uint32_t i = 0; i < sim->effects.count; i++) {
        carry_out(sim, &sim->effects.at[i]);
    }
    core_check(broker->core);
    oracle_after_step(sim);
    if (!broker->is_round_open) {
        broker->is_round_open = true;
        sim_at(sim, sim->now_ms, EVENT_ROUND_END, broker->life, 0);
    }
}

/* ---- rounds ---- */

static void tell_durable(struct sim *sim, uint64_t number)
{
    const struct input input = {.kind = INPUT_DURABLE, .durable_number = number};
    sim->broker.durable_told = number;
    step(sim, &input);
}

static void flush_store(struct sim *sim)
{
    struct broker_node *broker = &sim->broker;
    const uint64_t number = store_flush(broker->store);
    if (number == broker->durable_told) {
        return;
    }
    if (sim->options.durable_delay_ms == 0) {
        tell_durable(sim, number);
        return;
    }
    uint64_t at_ms = sim->now_ms + sim_below(sim, sim->options.durable_delay_ms + 1);
    if (at_ms < broker->durable_next_ms) {
        at_ms = broker->durable_next_ms;
    }
    broker->durable_next_ms = at_ms;
    sim_at(sim, at_ms, EVENT_DURABLE, broker->life, number);
}

void broker_on_durable(struct sim *sim, uint64_t number)
{
    if (number > sim->broker.durable_told) {
        tell_durable(sim, number);
    }
}

static void set_clock(struct sim *sim)
{
    struct broker_node *broker = &sim->broker;
    uint64_t at_ms = core_next_at_ms(broker->core);
    if (at_ms < sim->now_ms) {
        at_ms = sim->now_ms;
    }
    if (at_ms != UINT64_MAX && (at_ms < broker->wake_at_ms || broker->wake_at_ms < sim->now_ms)) {
        broker->wake_at_ms = at_ms;
        sim_at(sim, at_ms, EVENT_WAKE_BROKER, broker->life, 0);
    }
}

void broker_on_round_end(struct sim *sim)
{
    struct broker_node *broker = &sim->broker;
    const struct input input = {.kind = INPUT_DISPATCH};
    for (uint32_t i = 0; i < DISPATCHES_PER_ROUND; i++) {
        if (i > 0 && !core_has_more_to_dispatch(broker->core)) {
            break;
        }
        step(sim, &input);
    }
    encoder_flush(broker->encoder);
    flush_store(sim);
    encoder_flush(broker->encoder);
    store_release(broker->store);
    if (encoder_dropped_count(broker->encoder) > 0) {
        sim_violation(sim, "the encoder has dropped an entry");
    }
    broker->is_round_open = false;
    set_clock(sim);
}

void broker_on_time(struct sim *sim)
{
    const struct input input = {.kind = INPUT_TIME};
    sim->broker.wake_at_ms = UINT64_MAX;
    step(sim, &input);
}

/* ---- inputs ---- */

void broker_on_packet(struct sim *sim, const struct event *event)
{
    const struct connection *connection = &sim->connections[event->place];
    const struct wire_limits limits = {.body_size_max = BODY_SIZE_DEFAULT,
                                       .entry_count_max = ENTRY_COUNT_MAX,
                                       .message_size_max = BODY_SIZE_DEFAULT};
    const enum wire_status status = message_decode(&sim->decoded, &event->packet->frames, &limits);
    if (status != WIRE_OK) {
        sim_violation(sim, "peer %u sends what is %s (field %s)", connection->peer,
                      wire_status_text(status),
                      sim->decoded.error_field != NULL ? sim->decoded.error_field : "?");
    }
    const struct input input = {.kind = INPUT_MESSAGE,
                                .connection = event->place,
                                .rights = RIGHT_ALL,
                                .services = &globs_all,
                                .principal =
                                    bytes_from_text(sim->peers[connection->peer].principal),
                                .message = &sim->decoded};
    step(sim, &input);
}

void broker_on_cut(struct sim *sim, const struct event *event)
{
    struct connection *connection = &sim->connections[event->place];
    if (connection->serial != event->number) {
        return; /* of a broker that has died */
    }
    const struct input input = {.kind = INPUT_DISCONNECTED, .connection = event->place};
    TREADLE_ASSERT(connection->is_used && connection->is_cut &&
                   connection->serial == event->number);
    encoder_close(sim->broker.encoder, event->place);
    connection->is_used = false;
    step(sim, &input);
}

/* ---- rest ---- */

const char *broker_unrest(const struct sim *sim)
{
    const struct core *core = sim->broker.core;
    if (core_unsettled_count(core) != 0) {
        return "unsettled tasks";
    }
    if (core->attempt_slab.live != 0) {
        return "attempts that are not closed";
    }
    if (core->undelivered_count != 0 || core->watch_slab.live != 0) {
        return "outcomes that are not delivered";
    }
    if (core->outbox_head != core->outbox_tail) {
        return "answers that wait";
    }
    if (!list_is_empty(&core->ending_sessions) || !list_is_empty(&core->reconciling_sessions) ||
        !list_is_empty(&core->delivering) || !list_is_empty(&core->undurable) ||
        !list_is_empty(&core->recalling_services) || core_has_more_to_dispatch(core)) {
        return "an open cursor";
    }
    if (core->session_slab.live != sim->options.workers + sim->options.clients) {
        return "sessions without a peer, or the reverse";
    }
    if (core->tenant_queue_slab.live != 0) {
        return "tenants' queues without tasks";
    }
    return NULL;
}
