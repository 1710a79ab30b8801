/* SPDX-License-Identifier: MPL-2.0 */
/*
 * A broker that is attacked, and what must hold meanwhile and afterwards: it is the same process
 * still, and serves whoever is honest. cmocka assertions.
 */
#ifndef TREADLE_SUPPORT_HONEST_MESH_H
#define TREADLE_SUPPORT_HONEST_MESH_H

#include "tests/support/keyed_mesh.h"
#include "tests/support/raw_curve.h"

#define SERVED_WITHIN_MS  5000
#define HANDSHAKE_SPAN_MS 8000 /* the broker's own is 3 s */

struct honest_mesh {
    struct keyed_broker broker;
    struct test_key alice;    /* may everything */
    struct test_key mallory;  /* may everything, too */
    struct test_key stranger; /* is nobody */
};

void honest_mesh_start(struct honest_mesh *mesh, const char *treadled);

/* A client of alice's, connected and welcome. */
struct keyed_peer *honest_peer_open(const struct honest_mesh *mesh);

/* A client with this key, connected, that has said nothing yet. */
struct keyed_peer *honest_mesh_connect(const struct honest_mesh *mesh, const struct test_key *key);

/* HELLO, a question and its answer, over the connection that the peer has; how many ms the answer
 * took. A peer that was quiet for long has no session any more, so it begins anew. */
uint64_t honest_peer_ask(struct keyed_peer *peer);

/* It is the same process, and serves peers that come now, over TCP and over ipc. */
void honest_mesh_check(const struct honest_mesh *mesh);

/* A connected plain socket that has said nothing yet. */
int honest_mesh_given_a_socket(const char *endpoint);

/* The broker ends all of them within HANDSHAKE_SPAN_MS from now; closes them. */
void honest_mesh_then_all_are_closed(const int *fds, size_t count);

struct raw_curve_keys honest_mesh_keys(const struct honest_mesh *mesh, const struct test_key *key);

#endif
