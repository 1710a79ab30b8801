/* SPDX-License-Identifier: MPL-2.0 */
/* The network: connections that stand or are cut, and what happens to messages on them. */
#include "tests/sim/sim.h"

#define SILENT_MS_MAX 5000u

/* ---- connections ---- */

void network_connect_later(struct sim *sim, struct peer *peer, uint64_t delay_ms)
{
    sim_at(sim, sim->now_ms + delay_ms, EVENT_CONNECT, peer->number, peer->life);
}

static uint32_t free_connection(const struct sim *sim)
{
    for (uint32_t i = 0; i < CONNECTION_COUNT; i++) {
        if (!sim->connections[i].is_used) {
            return i;
        }
    }
    return NONE;
}

void network_on_connect(struct sim *sim, const struct event *event)
{
    struct peer *peer = &sim->peers[event->place];
    if (!peer->is_up || peer->life != event->number || peer->connection != NONE) {
        return;
    }
    const uint32_t number = free_connection(sim);
    if (number == NONE || sim->now_ms < peer->apart_until_ms ||
        sim->now_ms < sim->broker.down_until_ms) {
        network_connect_later(sim, peer, 100);
        return;
    }
    sim->next_serial++;
    sim->connections[number] = (struct connection){
        .serial = sim->next_serial, .is_used = true, .peer = peer->number, .life = peer->life};
    peer->connection = number;
    peer->connection_serial = sim->next_serial;
    encoder_open(sim->broker.encoder, number);
    if (peer->worker != NULL) {
        worker_session_on_connected(peer->worker, sim->now_ms);
        worker_run(sim, peer);
    } else {
        client_session_on_connected(peer->client, sim->now_ms);
        client_run(sim, peer);
    }
}

void network_cut(struct sim *sim, uint32_t number, bool is_silent)
{
    struct connection *connection = &sim->connections[number];
    if (!connection->is_used || connection->is_cut) {
        return;
    }
    connection->is_cut = true;
    const uint32_t bound = is_silent ? SILENT_MS_MAX : 5;
    const uint64_t peer_ms = sim->now_ms + sim_below(sim, bound);
    const uint64_t broker_ms = sim->now_ms + sim_below(sim, bound);
    sim_at(sim, peer_ms, EVENT_PEER_CUT, number, connection->serial);
    sim_at(sim, broker_ms, EVENT_BROKER_CUT, number, connection->serial);
}

void network_leave(struct sim *sim, struct peer *peer, bool is_silent)
{
    if (peer->connection == NONE) {
        return;
    }
    if (sim->connections[peer->connection].serial == peer->connection_serial) {
        network_cut(sim, peer->connection, is_silent);
    }
    peer->connection = NONE;
}

void network_close(struct sim *sim, struct peer *peer)
{
    if (peer->connection == NONE) {
        return;
    }
    struct connection *connection = &sim->connections[peer->connection];
    if (connection->serial == peer->connection_serial && !connection->is_cut) {
        const uint64_t last_ms =
            connection->to_broker_ms > sim->now_ms ? connection->to_broker_ms : sim->now_ms;
        connection->is_cut = true;
        connection->is_closing = true;
        sim_at(sim, last_ms, EVENT_BROKER_CUT, peer->connection, connection->serial);
    }
    peer->connection = NONE;
}

void network_forget_all(struct sim *sim)
{
    for (uint32_t i = 0; i < CONNECTION_COUNT; i++) {
        struct connection *connection = &sim->connections[i];
        if (connection->is_used && !connection->is_cut) {
            sim_at(sim, sim->now_ms + sim_below(sim, 5), EVENT_PEER_CUT, i, connection->serial);
        }
        *connection = (struct connection){0};
    }
}

static void tell_peer(struct sim *sim, struct peer *peer)
{
    peer->connection = NONE;
    network_connect_later(sim, peer, 5 + sim_below(sim, 200));
    if (peer->worker != NULL) {
        worker_session_on_disconnected(peer->worker, sim->now_ms);
        worker_run(sim, peer);
    } else {
        client_session_on_disconnected(peer->client, sim->now_ms);
        client_run(sim, peer);
    }
}

void network_on_peer_cut(struct sim *sim, const struct event *event)
{
    for (uint32_t i = 0; i < sim->peer_count; i++) {
        struct peer *peer = &sim->peers[i];
        if (peer->is_up && peer->connection == event->place &&
            peer->connection_serial == event->number) {
            tell_peer(sim, peer);
            return;
        }
    }
}

bool network_is_current(const struct sim *sim, const struct event *event)
{
    const struct connection *connection = &sim->connections[event->place];
    const bool arrives =
        !connection->is_cut || (connection->is_closing && event->kind == EVENT_TO_BROKER);
    return connection->is_used && connection->serial == event->number && arrives;
}

/* ---- messages ---- */

struct way {
    enum event_kind kind;
    uint32_t connection;
    uint64_t *last_ms; /* the last arrival of this direction */
};

static void send_once(struct sim *sim, const struct way *way, const struct wire_frames *frames)
{
    const struct connection *connection = &sim->connections[way->connection];
    const struct peer *peer = &sim->peers[connection->peer];
    uint64_t at_ms = sim->now_ms + sim_below(sim, sim->options.latency_ms + 1);
    if (at_ms < peer->apart_until_ms && sim->now_ms < peer->apart_until_ms) {
        if (!peer->holds_when_apart) {
            return;
        }
        at_ms = peer->apart_until_ms;
    }
    const bool is_reordered = !sim->is_calm && sim_mille(sim, sim->options.reorder_mille);
    if (!is_reordered && at_ms < *way->last_ms) {
        at_ms = *way->last_ms;
    }
    if (!is_reordered) {
        *way->last_ms = at_ms;
    } else {
        at_ms += sim_below(sim, 30);
    }
    event_queue_add(&sim->queue, (struct event){.at_ms = at_ms,
                                                .kind = way->kind,
                                                .place = way->connection,
                                                .number = connection->serial,
                                                .packet = packet_take(&sim->queue, frames)});
}

static void tell_message(const struct sim *sim, const struct way *way, uint32_t peer,
                         const struct wire_frames *frames)
{
    char text[400];
    struct message message;
    if (!sim->is_verbose || message_decode(&message, frames, &wire_limits_protocol) != WIRE_OK) {
        return;
    }
    (void)message_print(&message, text, sizeof text);
    sim_tell(sim, "%s %s (%u) %s", way->kind == EVENT_TO_BROKER ? "from" : "  to",
             sim->peers[peer].name, way->connection, text);
}

static void send_message(struct sim *sim, const struct way *way, const struct wire_frames *frames)
{
    const struct connection *connection = &sim->connections[way->connection];
    tell_message(sim, way, connection->peer, frames);
    sim_hash(sim, sim->now_ms ^ (uint64_t)way->kind << 56 ^ (uint64_t)way->connection << 48);
    for (size_t i = 0; i < frames->count; i++) {
        const struct bytes frame = frames->frames[i];
        uint64_t word = 0;
        size_t at = 0;
        for (; at + sizeof word <= frame.size; at += sizeof word) {
            memcpy(&word, frame.data + at, sizeof word);
            sim_hash(sim, word);
        }
        word = frame.size;
        memcpy(&word, frame.data + at, frame.size - at);
        sim_hash(sim, word);
    }
    if (connection->is_cut || !connection->is_used) {
        return;
    }
    if (!sim->is_calm && sim_mille(sim, sim->options.loss_mille)) {
        return;
    }
    send_once(sim, way, frames);
    if (!sim->is_calm && sim_mille(sim, sim->options.double_mille)) {
        send_once(sim, way, frames);
    }
}

void network_to_broker(struct sim *sim, struct peer *peer, const struct wire_frames *frames)
{
    if (peer->connection == NONE) {
        return;
    }
    struct connection *connection = &sim->connections[peer->connection];
    if (connection->serial != peer->connection_serial) {
        return; /* it has ended, and the peer does not know yet */
    }
    const struct way way = {EVENT_TO_BROKER, peer->connection, &connection->to_broker_ms};
    send_message(sim, &way, frames);
}

void network_to_peer(struct sim *sim, uint32_t number, const struct wire_frames *frames)
{
    struct connection *connection = &sim->connections[number];
    const struct way way = {EVENT_TO_PEER, number, &connection->to_peer_ms};
    send_message(sim, &way, frames);
}
