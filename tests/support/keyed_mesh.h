/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A real broker with keys, and peers that are bare DEALERs with the key, or without the one, that a
 * test gives them. cmocka assertions: what cannot be done ends the test.
 */
#ifndef TREADLE_SUPPORT_KEYED_MESH_H
#define TREADLE_SUPPORT_KEYED_MESH_H

#include "common/keys/keys.h"
#include "common/wire/message.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct keyed_broker {
    pid_t pid;
    char folder[128];
    char principals[192]; /* the file */
    char endpoint[256];   /* encrypted */
    char second[256];     /* encrypted, with another server key */
    char plain[256];      /* ipc: everybody is `local` */
    uint8_t server_key[KEY_SIZE];
    uint8_t second_key[KEY_SIZE];
};

/* A key of its own, of a principal or of nobody. */
struct test_key {
    uint8_t public_key[KEY_SIZE];
    uint8_t secret_key[KEY_SIZE];
    char hex[KEY_HEX_SIZE];
};

void test_key_create(struct test_key *key);

/* Starts it with this text as its principals. */
void keyed_broker_start(struct keyed_broker *broker, const char *treadled, const char *principals);

/* Writes other principals and has them read. */
void keyed_broker_reload(struct keyed_broker *broker, const char *principals);

/* TERM; it must end with 0. */
void keyed_broker_stop(struct keyed_broker *broker);

/* Kills what a failed test has left. */
void keyed_brokers_kill(void);

/* One of its counters, asked for over ipc. */
uint64_t keyed_broker_counter(const struct keyed_broker *broker, const char *name);

/* Messages that were sent to ask for counters, of all brokers. */
uint64_t keyed_broker_asked(void);

enum peer_mechanism { PEER_PLAINTEXT, PEER_PASSWORD, PEER_CURVE };

struct given_keyed_peer {
    const char *endpoint;
    enum peer_mechanism mechanism;
    const struct test_key *key; /* of PEER_CURVE */
    const uint8_t *server_key;
    const void *routing_id;
    size_t routing_id_size;
};

struct keyed_peer {
    void *socket;
    uint64_t number;
    uint64_t upto;
    uint8_t incarnation[16]; /* of its last HELLO */
    uint8_t buffer[65536];
    struct bytes view;
    struct wire_frames frames;
    struct message message; /* the last one received */
};

struct keyed_peer *keyed_peer_open(const struct given_keyed_peer *given);
void keyed_peer_close(struct keyed_peer **reference);

/* Queues the message; the number is set. One that was not let in has nowhere to queue it: libzmq
 * has given up its connection, and the message is dropped. */
void keyed_peer_send(struct keyed_peer *peer, struct message *message);

/* HELLO as this role, in a new life; serves: a worker's pattern. */
void keyed_peer_hello(struct keyed_peer *peer, enum peer_role role, const char *name,
                      const char *serves);

/* The same in the life that peer->incarnation says. */
void keyed_peer_hello_again(struct keyed_peer *peer, enum peer_role role, const char *name,
                            const char *serves);

/* The next message but HEARTBEAT; false: none within the span. */
bool keyed_peer_receive(struct keyed_peer *peer, int span_ms);

/* The next one of this kind; the others are skipped. */
bool keyed_peer_receive_kind(struct keyed_peer *peer, enum message_kind kind, int span_ms);

void sleep_ms(unsigned span_ms);
uint64_t clock_now_ms(void);

/* libzmq's context of all peers. */
void *peers_context(void);

#endif
