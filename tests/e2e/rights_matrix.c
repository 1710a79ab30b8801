/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Every message that a client or a worker can send, by every set of roles, for a service that the
 * key covers and one that it does not, for a task of its own and one of somebody else: what the
 * broker answers, over real encrypted sockets, beside what it should.
 *
 * usage: e2e.rights_matrix TREADLED
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "broker/core/rights.h"
#include "tests/support/keyed_mesh.h"

#define ROLE_SETS 8U /* of three roles */
#define ANSWER_MS 5000

enum verdict { VERDICT_YES, VERDICT_REFUSED, VERDICT_UNKNOWN, VERDICT_COUNT };
static const char *const verdict_names[VERDICT_COUNT + 1] = {"yes", "refused", "unknown", "none"};

/* Somebody with one set of roles, to the services in.*; he has tasks of both services, from the
 * time when he had all rights. */
struct somebody {
    struct test_key key;
    struct treadle_task_id looked_at[2]; /* by: is covered */
    struct treadle_task_id cancelled[2];
};

/* One cell of the matrix. */
struct cell {
    enum message_kind kind;
    uint32_t rights;
    bool is_covered;
    bool is_own;
};

static const char *treadled_path;
static struct keyed_broker broker;
static struct somebody people[ROLE_SETS];
static struct somebody owner;
static uint32_t cell_count;

/* ---- messages ---- */

static const char *service_of(bool is_covered)
{
    return is_covered ? "in" : "out";
}

static void send_submit(struct keyed_peer *peer, const char *service, const char *task,
                        const struct treadle_task_id *id)
{
    static const uint8_t digest[16];
    struct writer templates;
    struct writer entries;
    writer_init(&templates);
    writer_init(&entries);
    const struct wire_submit_template template = {.service = bytes_from_text(service),
                                                  .task = bytes_from_text(task)};
    const struct wire_submit_entry entry = {.id = *id, .digest = {digest, sizeof digest}};
    assert_true(wire_submit_template_encode(&templates, &template));
    assert_true(wire_submit_entry_encode(&entries, &entry));
    struct message message = {.kind = MESSAGE_SUBMIT};
    message.as.submit.templates = wire_list_from_writer(&templates, 1);
    message.as.submit.entries = wire_list_from_writer(&entries, 1);
    keyed_peer_send(peer, &message);
    writer_free(&templates);
    writer_free(&entries);
}

/* AWAIT or CANCEL of one task. */
static void send_id(struct keyed_peer *peer, enum message_kind kind,
                    const struct treadle_task_id *id)
{
    struct writer entries;
    struct message message = {.kind = kind};
    const struct wire_id_entry entry = {.id = *id};
    writer_init(&entries);
    assert_true(wire_id_entry_encode(&entries, &entry));
    if (kind == MESSAGE_AWAIT) {
        message.as.await.entries = wire_list_from_writer(&entries, 1);
    } else {
        message.as.cancel.entries = wire_list_from_writer(&entries, 1);
    }
    keyed_peer_send(peer, &message);
    writer_free(&entries);
}

/* RESULT, PROGRESS or RETURNED of one lease. */
static void send_lease(struct keyed_peer *peer, enum message_kind kind, uint64_t lease)
{
    struct writer entries;
    struct message message = {.kind = kind};
    writer_init(&entries);
    if (kind == MESSAGE_RESULT) {
        const struct wire_success_entry entry = {.lease = lease};
        assert_true(wire_success_entry_encode(&entries, &entry));
        message.as.result.successes = wire_list_from_writer(&entries, 1);
    } else if (kind == MESSAGE_PROGRESS) {
        const struct wire_progress_entry entry = {.lease = lease};
        assert_true(wire_progress_entry_encode(&entries, &entry));
        message.as.progress.entries = wire_list_from_writer(&entries, 1);
    } else {
        const struct wire_lease_entry entry = {.lease = lease};
        assert_true(wire_lease_entry_encode(&entries, &entry));
        message.as.returned.entries = wire_list_from_writer(&entries, 1);
    }
    keyed_peer_send(peer, &message);
    writer_free(&entries);
}

static struct treadle_task_id new_id(void)
{
    struct treadle_task_id id;
    randombytes_buf(id.bytes, sizeof id.bytes);
    return id;
}

/* The other messages: of one field, or of few. */
static void send_plain(struct keyed_peer *peer, const struct cell *cell,
                       const struct treadle_task_id *id)
{
    const struct bytes service = bytes_from_text(service_of(cell->is_covered));
    struct message message = {.kind = cell->kind};
    if (cell->kind == MESSAGE_TASK_QUERY) {
        message.as.task_query.id = *id;
    } else if (cell->kind == MESSAGE_TASK_LIST) {
        message.as.task_list.service = service;
    } else if (cell->kind == MESSAGE_SERVICE_QUERY) {
        message.as.service_query.name = service;
    } else if (cell->kind == MESSAGE_SERVICE_SET) {
        message.as.service_set =
            (struct wire_service_set){.name = service, .action = SERVICE_RESUME};
    } else if (cell->kind == MESSAGE_WORKER_DRAIN) {
        message.as.worker_drain.name = bytes_from_text("nobody");
    }
    keyed_peer_send(peer, &message);
}

static const struct treadle_task_id *task_of(const struct cell *cell)
{
    const struct somebody *whose = cell->is_own ? &people[cell->rights] : &owner;
    return cell->kind == MESSAGE_CANCEL ? &whose->cancelled[cell->is_covered]
                                        : &whose->looked_at[cell->is_covered];
}

static void send_cell(struct keyed_peer *peer, const struct cell *cell)
{
    const struct treadle_task_id *id = task_of(cell);
    const struct treadle_task_id fresh = new_id();
    switch ((int)cell->kind) {
    case MESSAGE_SUBMIT:
        send_submit(peer, service_of(cell->is_covered), "hold", cell->is_own ? &fresh : id);
        return;
    case MESSAGE_AWAIT:
    case MESSAGE_CANCEL:
        send_id(peer, cell->kind, id);
        return;
    case MESSAGE_RESULT:
    case MESSAGE_PROGRESS:
    case MESSAGE_RETURNED:
        send_lease(peer, cell->kind, 1);
        return;
    default: /* what else a client says */
        send_plain(peer, cell, id);
        return;
    }
}

/* ---- answers ---- */

static enum verdict verdict_of_done(uint64_t status)
{
    if (status == DONE_OK) {
        return VERDICT_YES;
    }
    assert_true(status == DONE_REFUSED || status == DONE_NOT_FOUND);
    return status == DONE_REFUSED ? VERDICT_REFUSED : VERDICT_UNKNOWN;
}

static enum verdict verdict_of_accepted(const struct message *message)
{
    struct wire_list entries = message->as.accepted.entries;
    struct wire_accepted_entry entry = {0};
    assert_true(wire_accepted_entry_next(&entries, &entry));
    if (entry.status == ACCEPT_OK) {
        return VERDICT_YES;
    }
    assert_int_equal(entry.status, ACCEPT_REFUSED);
    assert_true(entry.reason == REFUSED_NO_RIGHT || entry.reason == REFUSED_ID_TAKEN);
    return VERDICT_REFUSED;
}

static enum verdict verdict_of_awaited(const struct message *message)
{
    struct wire_list entries = message->as.awaited.entries;
    struct wire_awaited_entry entry = {0};
    assert_true(wire_awaited_entry_next(&entries, &entry));
    assert_true(entry.status == AWAIT_PENDING || entry.status == AWAIT_UNKNOWN);
    return entry.status == AWAIT_PENDING ? VERDICT_YES : VERDICT_UNKNOWN;
}

static enum verdict verdict_of_cancelled(const struct message *message)
{
    struct wire_list entries = message->as.cancelled.entries;
    struct wire_cancelled_entry entry = {0};
    assert_true(wire_cancelled_entry_next(&entries, &entry));
    assert_true(entry.status == CANCEL_DONE || entry.status == CANCEL_UNKNOWN);
    return entry.status == CANCEL_DONE ? VERDICT_YES : VERDICT_UNKNOWN;
}

static enum verdict verdict_of_page(const struct message *message,
                                    const struct treadle_task_id *wanted)
{
    struct wire_list rows = message->as.task_page.rows;
    struct wire_task_row row = {0};
    assert_int_equal(message->as.task_page.status, DONE_OK);
    assert_int_equal(message->as.task_page.token, 0); /* all in one */
    while (wire_task_row_next(&rows, &row)) {
        if (memcmp(row.id.bytes, wanted->bytes, sizeof row.id.bytes) == 0) {
            return VERDICT_YES;
        }
    }
    return VERDICT_UNKNOWN;
}

static enum verdict verdict_of_services(const struct message *message)
{
    struct wire_list rows = message->as.service_info.rows;
    struct wire_service_row row = {0};
    const enum verdict verdict = verdict_of_done(message->as.service_info.status);
    assert_true((verdict == VERDICT_YES) == wire_service_row_next(&rows, &row));
    return verdict;
}

static enum verdict verdict_of(const struct message *message, const struct cell *cell)
{
    switch ((int)message->kind) {
    case MESSAGE_REFUSED:
        return VERDICT_REFUSED;
    case MESSAGE_ACCEPTED:
        return verdict_of_accepted(message);
    case MESSAGE_AWAITED:
        return verdict_of_awaited(message);
    case MESSAGE_CANCELLED:
        return verdict_of_cancelled(message);
    case MESSAGE_TASK_INFO:
        return message->as.task_info.status == AWAIT_PENDING ? VERDICT_YES : VERDICT_UNKNOWN;
    case MESSAGE_TASK_PAGE:
        return verdict_of_page(message, task_of(cell));
    case MESSAGE_SERVICE_INFO:
        return verdict_of_services(message);
    case MESSAGE_WORKER_INFO:
        return verdict_of_done(message->as.worker_info.status);
    case MESSAGE_BROKER_INFO:
        return VERDICT_YES;
    case MESSAGE_DONE:
        return verdict_of_done(message->as.done.status);
    default: /* no answer to any of these */
        fail_msg("an answer of kind %s", message_kind_text(message->kind));
        return VERDICT_COUNT;
    }
}

/* ---- what should be ---- */

static enum verdict one_of(bool is_yes, enum verdict otherwise)
{
    return is_yes ? VERDICT_YES : otherwise;
}

/* Of a client's session. */
static enum verdict expected_of_client(const struct cell *cell)
{
    const bool submits = (cell->rights & RIGHT_SUBMIT) != 0;
    const bool administers = (cell->rights & RIGHT_ADMIN) != 0;
    if (!submits && !administers) {
        return VERDICT_REFUSED; /* it has no session */
    }
    switch ((int)cell->kind) {
    case MESSAGE_SUBMIT:
        return one_of(submits && cell->is_covered && cell->is_own, VERDICT_REFUSED);
    case MESSAGE_AWAIT:
    case MESSAGE_CANCEL:
        return submits ? one_of(cell->is_own, VERDICT_UNKNOWN) : VERDICT_REFUSED;
    case MESSAGE_TASK_QUERY:
    case MESSAGE_TASK_LIST:
        return one_of(cell->is_own || (administers && cell->is_covered), VERDICT_UNKNOWN);
    case MESSAGE_SERVICE_QUERY:
        return one_of(cell->is_covered, VERDICT_UNKNOWN);
    case MESSAGE_SERVICE_SET:
        return one_of(administers && cell->is_covered, VERDICT_REFUSED);
    case MESSAGE_WORKER_QUERY:
    case MESSAGE_BROKER_QUERY:
        return VERDICT_YES;
    case MESSAGE_WORKER_DRAIN:
        return administers ? VERDICT_UNKNOWN : VERDICT_REFUSED; /* there is no such worker */
    case MESSAGE_BROKER_RELOAD:
    case MESSAGE_BROKER_DRAIN:
        return one_of(administers, VERDICT_REFUSED);
    default: /* a worker's */
        return VERDICT_REFUSED;
    }
}

/* ---- set up ---- */

static void print_principal(char *text, size_t size, const char *name, const struct test_key *key,
                            uint32_t rights)
{
    const size_t used = strlen(text);
    (void)snprintf(text + used, size - used,
                   "principal \"%s\" {\n  keys = {%s}\n  roles = {%s%s%s%s%s}\n"
                   "  services = {\"%s\"}\n}\n",
                   name, key->hex, (rights & RIGHT_SUBMIT) != 0 ? "submit" : "",
                   (rights & RIGHT_SUBMIT) != 0 && rights != RIGHT_SUBMIT ? ", " : "",
                   (rights & RIGHT_WORK) != 0 ? "work" : "",
                   (rights & RIGHT_WORK) != 0 && (rights & RIGHT_ADMIN) != 0 ? ", " : "",
                   (rights & RIGHT_ADMIN) != 0 ? "admin" : "",
                   strcmp(name, "owner") == 0 || rights > RIGHT_ALL ? "*" : "in.*");
}

/* has_all: everybody may do everything. */
static const char *principals_text(bool has_all)
{
    static char text[8192];
    text[0] = '\0';
    print_principal(text, sizeof text, "owner", &owner.key, RIGHT_ALL);
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        char name[16];
        (void)snprintf(name, sizeof name, "role%u", rights);
        print_principal(text, sizeof text, name, &people[rights].key,
                        has_all ? RIGHT_ALL | 0x100U : rights);
    }
    return text;
}

static struct keyed_peer *connect_as(const struct somebody *who)
{
    return keyed_peer_open(&(struct given_keyed_peer){.endpoint = broker.endpoint,
                                                      .mechanism = PEER_CURVE,
                                                      .key = &who->key,
                                                      .server_key = broker.server_key});
}

static void then_it_is_accepted(struct keyed_peer *peer)
{
    assert_true(keyed_peer_receive_kind(peer, MESSAGE_ACCEPTED, ANSWER_MS));
    assert_int_equal(verdict_of_accepted(&peer->message), VERDICT_YES);
}

static void submit_tasks_of(struct somebody *who)
{
    struct keyed_peer *peer = connect_as(who);
    keyed_peer_hello(peer, ROLE_CLIENT, "before", NULL);
    assert_true(keyed_peer_receive_kind(peer, MESSAGE_WELCOME, ANSWER_MS));
    for (int i = 0; i < 4; i++) {
        struct treadle_task_id *id = i < 2 ? &who->looked_at[i] : &who->cancelled[i - 2];
        *id = new_id();
        send_submit(peer, service_of(i % 2 == 1), "hold", id);
        then_it_is_accepted(peer);
    }
    keyed_peer_close(&peer);
}

static int set_up(void **unused)
{
    (void)unused;
    test_key_create(&owner.key);
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        test_key_create(&people[rights].key);
    }
    keyed_broker_start(&broker, treadled_path, principals_text(true));
    submit_tasks_of(&owner);
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        submit_tasks_of(&people[rights]);
    }
    keyed_broker_reload(&broker, principals_text(false));
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    keyed_broker_stop(&broker);
    return 0;
}

/* ---- the matrix ---- */

static void then_the_cell_is(struct keyed_peer *peer, const struct cell *cell,
                             enum verdict expected)
{
    send_cell(peer, cell);
    assert_true(keyed_peer_receive(peer, ANSWER_MS));
    const enum verdict verdict = verdict_of(&peer->message, cell);
    if (verdict != expected) {
        fail_msg("%s, rights %u, %s, %s: %s, expected %s", message_kind_text(cell->kind),
                 cell->rights, cell->is_covered ? "covered" : "not covered",
                 cell->is_own ? "own" : "foreign", verdict_names[verdict], verdict_names[expected]);
    }
    cell_count++;
}

static const enum message_kind kinds[] = {
    MESSAGE_SUBMIT,       MESSAGE_AWAIT,         MESSAGE_CANCEL,        MESSAGE_TASK_QUERY,
    MESSAGE_TASK_LIST,    MESSAGE_SERVICE_QUERY, MESSAGE_SERVICE_SET,   MESSAGE_WORKER_QUERY,
    MESSAGE_WORKER_DRAIN, MESSAGE_BROKER_QUERY,  MESSAGE_BROKER_RELOAD, MESSAGE_RESULT,
    MESSAGE_PROGRESS,     MESSAGE_RETURNED,
};
#define KIND_COUNT (sizeof kinds / sizeof kinds[0])

/* Nobody's message is left out: what is not in the table is the session's own, or is tried at the
 * end. */
static void test_table_has_every_message_that_a_peer_can_send(void **unused)
{
    (void)unused;
    for (int kind = 0; kind < 256; kind++) {
        bool is_there = kind == MESSAGE_HELLO || kind == MESSAGE_HEARTBEAT ||
                        kind == MESSAGE_GOODBYE || kind == MESSAGE_BROKER_DRAIN;
        for (size_t i = 0; i < KIND_COUNT; i++) {
            is_there = is_there || (int)kinds[i] == kind;
        }
        if (strcmp(message_kind_text((uint64_t)kind), "?") == 0) {
            continue;
        }
        const enum message_direction direction = message_direction((enum message_kind)kind);
        if (direction == DIRECTION_FROM_CLIENT || direction == DIRECTION_FROM_WORKER ||
            direction == DIRECTION_FROM_PEER || direction == DIRECTION_BOTH_WAYS) {
            assert_true(is_there);
        }
    }
}

static void test_client_may_do_what_its_roles_and_services_say(void **unused)
{
    (void)unused;
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        struct keyed_peer *peer = connect_as(&people[rights]);
        const bool is_welcome = (rights & (RIGHT_SUBMIT | RIGHT_ADMIN)) != 0;
        keyed_peer_hello(peer, ROLE_CLIENT, "client", NULL);
        assert_true(keyed_peer_receive(peer, ANSWER_MS));
        assert_int_equal(peer->message.kind, is_welcome ? MESSAGE_WELCOME : MESSAGE_REFUSED);
        for (size_t i = 0; i < KIND_COUNT * 4; i++) {
            const struct cell cell = {.kind = kinds[i / 4],
                                      .rights = rights,
                                      .is_covered = i % 2 == 1,
                                      .is_own = i / 2 % 2 == 1};
            then_the_cell_is(peer, &cell, expected_of_client(&cell));
        }
        keyed_peer_close(&peer);
    }
    print_message("%u cells\n", cell_count);
    assert_int_equal(cell_count, ROLE_SETS * KIND_COUNT * 4);
}

static void test_worker_serves_only_what_its_key_covers(void **unused)
{
    (void)unused;
    static const struct {
        const char *pattern;
        bool is_covered;
    } patterns[] = {{"in.work", true}, {"in.*", true},    {"in.eu.*", true}, {"out.work", false},
                    {"out.*", false},  {"i.work", false}, {"inn.*", false}};
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
            struct keyed_peer *peer = connect_as(&people[rights]);
            keyed_peer_hello(peer, ROLE_WORKER, "worker", patterns[i].pattern);
            assert_true(keyed_peer_receive(peer, ANSWER_MS));
            const bool is_welcome = (rights & RIGHT_WORK) != 0 && patterns[i].is_covered;
            assert_int_equal(peer->message.kind, is_welcome ? MESSAGE_WELCOME : MESSAGE_REFUSED);
            if (!is_welcome) {
                assert_int_equal(peer->message.as.refused.code, REFUSED_RIGHTS);
            }
            keyed_peer_close(&peer);
        }
    }
}

static void test_worker_session_says_nothing_of_a_client(void **unused)
{
    (void)unused;
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        struct keyed_peer *peer = connect_as(&people[rights]);
        keyed_peer_hello(peer, ROLE_WORKER, "worker", "in.work");
        assert_true(keyed_peer_receive(peer, ANSWER_MS));
        for (size_t i = 0; i < KIND_COUNT - 3; i++) { /* all but RESULT, PROGRESS, RETURNED */
            const struct cell cell = {
                .kind = kinds[i], .rights = rights, .is_covered = true, .is_own = true};
            then_the_cell_is(peer, &cell, VERDICT_REFUSED);
        }
        keyed_peer_close(&peer);
    }
}

/* ---- leases ---- */

/* A worker that takes up to 16 tasks. */
static struct keyed_peer *given_a_worker(const struct somebody *who, const char *serves)
{
    struct keyed_peer *peer = connect_as(who);
    struct message grant = {.kind = MESSAGE_HEARTBEAT};
    keyed_peer_hello(peer, ROLE_WORKER, serves, serves);
    assert_true(keyed_peer_receive_kind(peer, MESSAGE_WELCOME, ANSWER_MS));
    peer->upto = 16;
    keyed_peer_send(peer, &grant);
    return peer;
}

static uint64_t then_it_is_handed_a_task(struct keyed_peer *worker)
{
    struct wire_dispatch_entry entry = {0};
    assert_true(keyed_peer_receive_kind(worker, MESSAGE_DISPATCH, ANSWER_MS));
    struct wire_list entries = worker->message.as.dispatch.entries;
    assert_true(wire_dispatch_entry_next(&entries, &entry));
    return entry.lease;
}

/* Has the owner submit one, and this worker take it. */
static uint64_t given_a_lease(struct keyed_peer *client, struct keyed_peer *worker,
                              const char *service)
{
    const struct treadle_task_id id = new_id();
    send_submit(client, service, "work", &id);
    then_it_is_accepted(client);
    return then_it_is_handed_a_task(worker);
}

static void then_its_result_is(struct keyed_peer *worker, uint64_t lease, bool is_stale)
{
    struct wire_result_ack_entry entry = {0};
    send_lease(worker, MESSAGE_RESULT, lease);
    assert_true(keyed_peer_receive_kind(worker, MESSAGE_RESULT_ACK, ANSWER_MS));
    struct wire_list entries = worker->message.as.result_ack.entries;
    assert_true(wire_result_ack_entry_next(&entries, &entry));
    assert_int_equal(entry.lease, lease);
    assert_int_equal(entry.is_stale, is_stale);
}

/* It has no answer: what does not count is counted as late. */
static void then_it_counts(struct keyed_peer *worker, enum message_kind kind, uint64_t lease,
                           bool is_own)
{
    const uint64_t before = keyed_broker_counter(&broker, "late");
    send_lease(worker, kind, lease);
    then_its_result_is(worker, 1, true); /* behind it, and late in any case */
    assert_int_equal(keyed_broker_counter(&broker, "late") - before, is_own ? 1 : 2);
}

static void then_only_own_leases_count(const struct somebody *who)
{
    struct keyed_peer *client = connect_as(&owner);
    keyed_peer_hello(client, ROLE_CLIENT, "owner", NULL);
    assert_true(keyed_peer_receive_kind(client, MESSAGE_WELCOME, ANSWER_MS));
    struct keyed_peer *keeper = given_a_worker(&owner, "keep.work");
    struct keyed_peer *worker = given_a_worker(who, "in.work");
    const uint64_t foreign = given_a_lease(client, keeper, "keep");
    const uint64_t own = given_a_lease(client, worker, "in");
    then_its_result_is(worker, foreign, true);
    then_it_counts(worker, MESSAGE_PROGRESS, foreign, false);
    then_it_counts(worker, MESSAGE_RETURNED, foreign, false);
    then_it_counts(worker, MESSAGE_PROGRESS, own, true);
    send_lease(worker, MESSAGE_RETURNED, own);
    const uint64_t again = then_it_is_handed_a_task(worker);
    assert_int_not_equal(again, own);
    then_its_result_is(worker, own, true); /* no longer live */
    then_its_result_is(worker, again, false);
    then_its_result_is(worker, again, true);
    then_its_result_is(keeper, foreign, false); /* nothing of this has touched it */
    keyed_peer_close(&worker);
    keyed_peer_close(&keeper);
    keyed_peer_close(&client);
}

static void test_worker_settles_only_its_own_live_leases(void **unused)
{
    (void)unused;
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        if ((rights & RIGHT_WORK) != 0) {
            then_only_own_leases_count(&people[rights]);
            continue;
        }
        struct keyed_peer *peer = connect_as(&people[rights]);
        for (int i = 0; i < 3; i++) { /* and without the right there is no session to say it in */
            send_lease(peer, kinds[KIND_COUNT - 1 - (size_t)i], 1);
            assert_true(keyed_peer_receive(peer, ANSWER_MS));
            assert_int_equal(peer->message.kind, MESSAGE_REFUSED);
        }
        keyed_peer_close(&peer);
    }
}

/* The last one: an administrator's drains the broker. */
static void test_broker_is_drained_by_administrators_only(void **unused)
{
    (void)unused;
    for (uint32_t turn = 0; turn < 2 * ROLE_SETS; turn++) {
        const uint32_t rights = turn % ROLE_SETS;
        const bool is_admin = (rights & RIGHT_ADMIN) != 0;
        if (is_admin != (turn >= ROLE_SETS)) {
            continue; /* who may not goes first */
        }
        struct keyed_peer *peer = connect_as(&people[rights]);
        const struct cell cell = {.kind = MESSAGE_BROKER_DRAIN, .rights = rights};
        keyed_peer_hello(peer, ROLE_CLIENT, "client", NULL);
        assert_true(keyed_peer_receive(peer, ANSWER_MS));
        then_the_cell_is(peer, &cell, expected_of_client(&cell));
        keyed_peer_close(&peer);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2 || sodium_init() == -1) {
        (void)fprintf(stderr, "usage: %s TREADLED\n", argv[0]);
        return EX_USAGE;
    }
    treadled_path = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_has_every_message_that_a_peer_can_send),
        cmocka_unit_test(test_client_may_do_what_its_roles_and_services_say),
        cmocka_unit_test(test_worker_serves_only_what_its_key_covers),
        cmocka_unit_test(test_worker_session_says_nothing_of_a_client),
        cmocka_unit_test(test_worker_settles_only_its_own_live_leases),
        cmocka_unit_test(test_broker_is_drained_by_administrators_only),
    };
    const int failed_count = cmocka_run_group_tests(tests, set_up, tear_down);
    keyed_brokers_kill();
    return failed_count;
}
