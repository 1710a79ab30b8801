/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Every message that a client or a worker can send, by every set of roles, for a service of which
 * the key covers all, this task, another task, or nothing, for a task of its own and one of
 * somebody else: what the broker answers, over real encrypted sockets, beside what it should. And
 * every message that names a lease, for every lease that is not the worker's own live one.
 *
 * usage: e2e.rights_matrix TREADLED
 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
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

/* What the globs in.* and part.hold have of a task and its service. */
enum cover { COVER_NONE, COVER_OTHER_TASK, COVER_THIS_TASK, COVER_SERVICE, COVER_COUNT };

/* One task for each, and a worker of the owner's that serves it. */
static const struct {
    const char *name;
    const char *service;
    const char *task;
    const char *pattern;
    const char *worker;
} covers[COVER_COUNT] = {
    [COVER_NONE] = {"not covered", "out", "hold", "out.hold", "of_out"},
    [COVER_OTHER_TASK] = {"another task covered", "part", "other", "part.other", "of_other"},
    [COVER_THIS_TASK] = {"this task covered", "part", "hold", "part.hold", "of_part"},
    [COVER_SERVICE] = {"covered", "in", "hold", "in.hold", "of_in"},
};

/* Somebody with one set of roles, and globs as above; he has tasks of all of them, from the time
 * when he had all rights. */
struct somebody {
    struct test_key key;
    char name[16];
    char worker[16]; /* the name of his worker */
    struct treadle_task_id looked_at[COVER_COUNT];
    struct treadle_task_id cancelled[COVER_COUNT];
};

/* One cell of the matrix. */
struct cell {
    enum message_kind kind;
    uint32_t rights;
    enum cover cover;
    bool is_own; /* the task, or the worker */
};

static const char *treadled_path;
static struct keyed_broker broker;
static struct somebody people[ROLE_SETS];
static struct somebody owner;
static struct somebody stranger;                /* who may submit, and never did */
static struct keyed_peer *workers[COVER_COUNT]; /* the owner's; they take nothing */
static uint32_t cell_count;

/* ---- messages ---- */

static bool covers_task(enum cover cover)
{
    return cover == COVER_THIS_TASK || cover == COVER_SERVICE;
}

static void send_submit(struct keyed_peer *peer, const char *service, const char *task,
                        const struct treadle_task_id *id, uint64_t flags)
{
    static const uint8_t digest[16];
    struct writer templates;
    struct writer entries;
    writer_init(&templates);
    writer_init(&entries);
    const struct wire_submit_template template = {
        .service = bytes_from_text(service), .task = bytes_from_text(task), .flags = flags};
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

/* What a worker says of one lease. */
enum word { WORD_SUCCESS, WORD_FAILURE, WORD_PROGRESS, WORD_RETURNED, WORD_COUNT };
static const char *const word_names[WORD_COUNT] = {"success", "failure", "progress", "returned"};

static void send_word(struct keyed_peer *peer, enum word word, uint64_t lease)
{
    struct writer entries;
    struct message message = {.kind = MESSAGE_RESULT};
    writer_init(&entries);
    if (word == WORD_SUCCESS) {
        const struct wire_success_entry entry = {.lease = lease};
        assert_true(wire_success_entry_encode(&entries, &entry));
        message.as.result.successes = wire_list_from_writer(&entries, 1);
    } else if (word == WORD_FAILURE) {
        const struct wire_failure_entry entry = {.lease = lease, .kind = FAILURE_PERMANENT};
        assert_true(wire_failure_entry_encode(&entries, &entry));
        message.as.result.failures = wire_list_from_writer(&entries, 1);
    } else if (word == WORD_PROGRESS) {
        const struct wire_progress_entry entry = {.lease = lease};
        message.kind = MESSAGE_PROGRESS;
        assert_true(wire_progress_entry_encode(&entries, &entry));
        message.as.progress.entries = wire_list_from_writer(&entries, 1);
    } else {
        const struct wire_lease_entry entry = {.lease = lease};
        message.kind = MESSAGE_RETURNED;
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

/* What the messages name; as in the cell, or something that is not there. */
struct names {
    struct treadle_task_id id;
    const char *service;
    const char *worker;
};

/* The other messages: of one field, or of few. */
static void send_plain(struct keyed_peer *peer, enum message_kind kind, const struct names *names)
{
    const struct bytes service = bytes_from_text(names->service);
    struct message message = {.kind = kind};
    if (kind == MESSAGE_TASK_QUERY) {
        message.as.task_query.id = names->id;
    } else if (kind == MESSAGE_TASK_LIST) {
        message.as.task_list.service = service;
    } else if (kind == MESSAGE_SERVICE_QUERY) {
        message.as.service_query.name = service;
    } else if (kind == MESSAGE_SERVICE_SET) {
        message.as.service_set =
            (struct wire_service_set){.name = service, .action = SERVICE_RESUME};
    } else if (kind == MESSAGE_WORKER_QUERY) {
        message.as.worker_query.name = bytes_from_text(names->worker);
    } else if (kind == MESSAGE_WORKER_DRAIN) {
        message.as.worker_drain.name = bytes_from_text("nobody");
    }
    keyed_peer_send(peer, &message);
}

static const struct treadle_task_id *task_of(const struct cell *cell)
{
    const struct somebody *whose = cell->is_own ? &people[cell->rights] : &owner;
    return cell->kind == MESSAGE_CANCEL ? &whose->cancelled[cell->cover]
                                        : &whose->looked_at[cell->cover];
}

static struct names names_of(const struct cell *cell)
{
    struct names names = {*task_of(cell), covers[cell->cover].service, covers[cell->cover].worker};
    if (cell->is_own) {
        names.worker = people[cell->rights].worker;
    }
    if (cell->kind == MESSAGE_SUBMIT && cell->is_own) {
        names.id = new_id();
    }
    return names;
}

static void send_named(struct keyed_peer *peer, const struct cell *cell, const struct names *names)
{
    switch ((int)cell->kind) {
    case MESSAGE_SUBMIT:
        send_submit(peer, names->service, covers[cell->cover].task, &names->id, 0);
        return;
    case MESSAGE_AWAIT:
    case MESSAGE_CANCEL:
        send_id(peer, cell->kind, &names->id);
        return;
    case MESSAGE_RESULT:
        send_word(peer, WORD_SUCCESS, 1);
        return;
    case MESSAGE_PROGRESS:
        send_word(peer, WORD_PROGRESS, 1);
        return;
    case MESSAGE_RETURNED:
        send_word(peer, WORD_RETURNED, 1);
        return;
    default: /* what else a client says */
        send_plain(peer, cell->kind, names);
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

static enum verdict verdict_of_workers(const struct message *message)
{
    struct wire_list rows = message->as.worker_info.rows;
    struct wire_worker_row row = {0};
    assert_int_equal(message->as.worker_info.status, DONE_OK);
    return wire_worker_row_next(&rows, &row) ? VERDICT_YES : VERDICT_UNKNOWN;
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
        return verdict_of_workers(message);
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

/* Other principals' tasks are an administrator's of the whole service; what is looked at of the
 * broker is everybody's who has a session. */
static enum verdict expected_of_reader(const struct cell *cell)
{
    const bool administers = (cell->rights & RIGHT_ADMIN) != 0;
    const bool has_worker = (cell->rights & RIGHT_WORK) != 0;
    switch ((int)cell->kind) {
    case MESSAGE_TASK_QUERY:
    case MESSAGE_TASK_LIST:
        return one_of(cell->is_own || (administers && cell->cover == COVER_SERVICE),
                      VERDICT_UNKNOWN);
    case MESSAGE_SERVICE_QUERY:
        return one_of(cell->cover != COVER_NONE, VERDICT_UNKNOWN);
    case MESSAGE_WORKER_QUERY:
        return one_of(cell->is_own ? has_worker : administers || covers_task(cell->cover),
                      VERDICT_UNKNOWN);
    default: /* BROKER_QUERY */
        return VERDICT_YES;
    }
}

/* Of a client's session. */
static enum verdict expected_of_client(const struct cell *cell)
{
    const bool submits = (cell->rights & RIGHT_SUBMIT) != 0;
    const bool administers = (cell->rights & RIGHT_ADMIN) != 0;
    if (cell->rights == 0) {
        return VERDICT_REFUSED; /* it has no session */
    }
    switch ((int)cell->kind) {
    case MESSAGE_SUBMIT:
        return one_of(submits && covers_task(cell->cover) && cell->is_own, VERDICT_REFUSED);
    case MESSAGE_AWAIT:
    case MESSAGE_CANCEL:
        return submits ? one_of(cell->is_own, VERDICT_UNKNOWN) : VERDICT_REFUSED;
    case MESSAGE_TASK_QUERY:
    case MESSAGE_TASK_LIST:
    case MESSAGE_SERVICE_QUERY:
    case MESSAGE_WORKER_QUERY:
    case MESSAGE_BROKER_QUERY:
        return expected_of_reader(cell);
    case MESSAGE_SERVICE_SET:
        return one_of(administers && cell->cover == COVER_SERVICE, VERDICT_REFUSED);
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

static void print_principal(char *text, size_t size, const struct somebody *who, uint32_t rights,
                            const char *services)
{
    const size_t used = strlen(text);
    (void)snprintf(text + used, size - used,
                   "principal \"%s\" {\n  keys = {%s}\n  roles = {%s%s%s%s%s}\n"
                   "  services = {%s}\n}\n",
                   who->name, who->key.hex, (rights & RIGHT_SUBMIT) != 0 ? "submit" : "",
                   (rights & RIGHT_SUBMIT) != 0 && rights != RIGHT_SUBMIT ? ", " : "",
                   (rights & RIGHT_WORK) != 0 ? "work" : "",
                   (rights & RIGHT_WORK) != 0 && (rights & RIGHT_ADMIN) != 0 ? ", " : "",
                   (rights & RIGHT_ADMIN) != 0 ? "admin" : "", services);
}

/* What all but the owner may do: everything, what the matrix is about, and for fewer services. */
enum stage { STAGE_BEFORE, STAGE_MATRIX, STAGE_FEWER };

static const char *principals_text(enum stage stage)
{
    static char text[8192];
    static const char *const services[] = {[STAGE_BEFORE] = "\"*\"",
                                           [STAGE_MATRIX] = "\"in.*\", \"part.hold\"",
                                           [STAGE_FEWER] = "\"part.hold\""};
    text[0] = '\0';
    print_principal(text, sizeof text, &owner, RIGHT_ALL, "\"*\"");
    print_principal(text, sizeof text, &stranger, RIGHT_SUBMIT, services[STAGE_MATRIX]);
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        print_principal(text, sizeof text, &people[rights],
                        stage == STAGE_BEFORE ? RIGHT_ALL : rights, services[stage]);
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

static struct keyed_peer *given_a_client(const struct somebody *who)
{
    struct keyed_peer *peer = connect_as(who);
    keyed_peer_hello(peer, ROLE_CLIENT, "client", NULL);
    assert_true(keyed_peer_receive_kind(peer, MESSAGE_WELCOME, ANSWER_MS));
    return peer;
}

/* A worker that takes up to so many tasks. */
static struct keyed_peer *given_a_worker(const struct somebody *who, const char *name,
                                         const char *serves, uint64_t task_count)
{
    struct keyed_peer *peer = connect_as(who);
    struct message grant = {.kind = MESSAGE_HEARTBEAT};
    keyed_peer_hello(peer, ROLE_WORKER, name, serves);
    assert_true(keyed_peer_receive_kind(peer, MESSAGE_WELCOME, ANSWER_MS));
    peer->upto = task_count;
    keyed_peer_send(peer, &grant);
    return peer;
}

static void when_it_beats(struct keyed_peer *peer)
{
    struct message beat = {.kind = MESSAGE_HEARTBEAT};
    keyed_peer_send(peer, &beat);
}

static void submit_tasks_of(struct somebody *who)
{
    struct keyed_peer *peer = given_a_client(who);
    for (int i = 0; i < 2 * COVER_COUNT; i++) {
        const int cover = i % COVER_COUNT;
        struct treadle_task_id *id =
            i < COVER_COUNT ? &who->looked_at[cover] : &who->cancelled[cover];
        *id = new_id();
        send_submit(peer, covers[cover].service, covers[cover].task, id, 0);
        then_it_is_accepted(peer);
    }
    keyed_peer_close(&peer);
}

static int set_up(void **unused)
{
    (void)unused;
    test_key_create(&owner.key);
    test_key_create(&stranger.key);
    (void)snprintf(owner.name, sizeof owner.name, "owner");
    (void)snprintf(stranger.name, sizeof stranger.name, "stranger");
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        struct somebody *who = &people[rights];
        test_key_create(&who->key);
        (void)snprintf(who->name, sizeof who->name, "role%u", rights);
        (void)snprintf(who->worker, sizeof who->worker, "own%u", rights);
    }
    keyed_broker_start(&broker, treadled_path, principals_text(STAGE_BEFORE));
    submit_tasks_of(&owner);
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        submit_tasks_of(&people[rights]);
    }
    keyed_broker_reload(&broker, principals_text(STAGE_MATRIX));
    for (int cover = 0; cover < COVER_COUNT; cover++) {
        workers[cover] = given_a_worker(&owner, covers[cover].worker, covers[cover].pattern, 0);
    }
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    for (int cover = 0; cover < COVER_COUNT; cover++) {
        keyed_peer_close(&workers[cover]);
    }
    keyed_broker_stop(&broker);
    return 0;
}

/* ---- the matrix ---- */

static void then_the_cell_is(struct keyed_peer *peer, const struct cell *cell,
                             enum verdict expected)
{
    const struct names names = names_of(cell);
    send_named(peer, cell, &names);
    assert_true(keyed_peer_receive(peer, ANSWER_MS));
    const enum verdict verdict = verdict_of(&peer->message, cell);
    if (verdict != expected) {
        fail_msg("%s, rights %u, %s, %s: %s, expected %s", message_kind_text(cell->kind),
                 cell->rights, covers[cell->cover].name, cell->is_own ? "own" : "foreign",
                 verdict_names[verdict], verdict_names[expected]);
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

static void try_all_cells(struct keyed_peer *peer, uint32_t rights)
{
    for (size_t i = 0; i < KIND_COUNT; i++) {
        for (int j = 0; j < 2 * COVER_COUNT; j++) {
            const struct cell cell = {.kind = kinds[i],
                                      .rights = rights,
                                      .cover = (enum cover)(j / 2),
                                      .is_own = j % 2 == 1};
            then_the_cell_is(peer, &cell, expected_of_client(&cell));
        }
    }
}

static void test_client_may_do_what_its_roles_and_services_say(void **unused)
{
    (void)unused;
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        struct keyed_peer *peer = connect_as(&people[rights]);
        struct keyed_peer *own = NULL;
        const bool is_welcome = rights != 0;
        if ((rights & RIGHT_WORK) != 0) {
            own = given_a_worker(&people[rights], people[rights].worker, "in.own", 0);
        }
        for (int cover = 0; cover < COVER_COUNT; cover++) {
            when_it_beats(workers[cover]);
        }
        keyed_peer_hello(peer, ROLE_CLIENT, "client", NULL);
        assert_true(keyed_peer_receive(peer, ANSWER_MS));
        assert_int_equal(peer->message.kind, is_welcome ? MESSAGE_WELCOME : MESSAGE_REFUSED);
        if (is_welcome) {
            assert_int_equal(peer->message.as.welcome.rights, rights);
            assert_int_equal(peer->message.as.welcome.services.count, 2);
        }
        try_all_cells(peer, rights);
        keyed_peer_close(&own);
        keyed_peer_close(&peer);
    }
    print_message("%u cells\n", cell_count);
    assert_int_equal(cell_count, ROLE_SETS * KIND_COUNT * 2 * COVER_COUNT);
}

/* ---- what is not there ---- */

struct answer {
    uint8_t bytes[4096];
    size_t size;
};

/* The answer, without its number and the id that was asked for. */
static struct answer answer_of(struct keyed_peer *peer, const struct cell *cell,
                               const struct names *names)
{
    struct answer answer;
    send_named(peer, cell, names);
    assert_true(keyed_peer_receive(peer, ANSWER_MS));
    assert_in_range(peer->view.size, MESSAGE_HEADER_SIZE, sizeof answer.bytes);
    answer.size = peer->view.size;
    memcpy(answer.bytes, peer->view.data, answer.size);
    memset(answer.bytes + 4, 0, 8);
    uint8_t *id = memmem(answer.bytes, answer.size, names->id.bytes, sizeof names->id.bytes);
    if (id != NULL) {
        memset(id, 0, sizeof names->id.bytes);
    }
    return answer;
}

/* Nobody has the id and the worker; of services there is none either, where the key covers none. */
static struct names nothing_like(const struct cell *cell)
{
    struct names names = names_of(cell);
    names.id = new_id();
    names.worker = "of_nobody";
    if (cell->cover == COVER_NONE) {
        names.service = "no";
    }
    return names;
}

/* False: this is seen, or there is nothing like it. */
static bool is_hidden(const struct cell *cell, bool has_tasks)
{
    if (cell->kind == MESSAGE_SUBMIT && covers_task(cell->cover) &&
        (cell->rights & RIGHT_SUBMIT) != 0) {
        return false; /* that the id is taken is told */
    }
    if (cell->kind == MESSAGE_TASK_LIST && has_tasks) {
        return false; /* own tasks of the service are seen */
    }
    return expected_of_client(cell) != VERDICT_YES;
}

static uint32_t then_what_is_hidden_is_as_nothing(const struct somebody *who, uint32_t rights)
{
    uint32_t count = 0;
    struct keyed_peer *peer = connect_as(who);
    for (int cover = 0; cover < COVER_COUNT; cover++) {
        when_it_beats(workers[cover]);
    }
    keyed_peer_hello(peer, ROLE_CLIENT, "client", NULL);
    assert_true(keyed_peer_receive(peer, ANSWER_MS));
    for (size_t i = 0; i < KIND_COUNT * COVER_COUNT; i++) {
        const struct cell cell = {.kind = kinds[i / COVER_COUNT],
                                  .rights = rights,
                                  .cover = (enum cover)(i % COVER_COUNT)};
        if (!is_hidden(&cell, who != &stranger)) {
            continue;
        }
        const struct names names = names_of(&cell);
        const struct names nothing = nothing_like(&cell);
        const struct answer there = answer_of(peer, &cell, &names);
        const struct answer not_there = answer_of(peer, &cell, &nothing);
        if (there.size != not_there.size || memcmp(there.bytes, not_there.bytes, there.size) != 0) {
            fail_msg("%s, rights %u, %s: not as if it were not there", message_kind_text(cell.kind),
                     rights, covers[cell.cover].name);
        }
        count++;
    }
    keyed_peer_close(&peer);
    return count;
}

static void test_what_a_key_may_not_see_is_answered_as_what_is_not_there(void **unused)
{
    (void)unused;
    uint32_t count = then_what_is_hidden_is_as_nothing(&stranger, RIGHT_SUBMIT);
    for (uint32_t rights = 0; rights < ROLE_SETS; rights++) {
        count += then_what_is_hidden_is_as_nothing(&people[rights], rights);
    }
    print_message("%u cells\n", count);
    assert_true(count >= ROLE_SETS * COVER_COUNT * 3);
}

/* Somebody else's id, submitted with all that would make it one's own. */
static void test_id_of_another_is_neither_taken_nor_awaited(void **unused)
{
    (void)unused;
    struct keyed_peer *client = given_a_client(&owner);
    struct keyed_peer *thief = given_a_client(&people[RIGHT_SUBMIT]);
    const struct treadle_task_id id = new_id();
    const struct treadle_task_id nobodys = new_id();
    send_submit(client, "in", "hold", &id, SUBMIT_WATCH);
    then_it_is_accepted(client);
    send_submit(thief, "in", "hold", &id, SUBMIT_WATCH);
    assert_true(keyed_peer_receive_kind(thief, MESSAGE_ACCEPTED, ANSWER_MS));
    struct wire_list entries = thief->message.as.accepted.entries;
    struct wire_accepted_entry entry = {0};
    assert_true(wire_accepted_entry_next(&entries, &entry));
    assert_int_equal(entry.status, ACCEPT_REFUSED);
    assert_int_equal(entry.reason, REFUSED_ID_TAKEN);
    send_id(client, MESSAGE_CANCEL, &id);
    assert_true(keyed_peer_receive_kind(client, MESSAGE_SETTLED, ANSWER_MS));
    for (int i = 0; i < 3; i++) { /* nothing but what it asks for comes */
        send_id(thief, MESSAGE_AWAIT, i == 0 ? &id : &nobodys);
        assert_true(keyed_peer_receive(thief, ANSWER_MS));
        assert_int_equal(thief->message.kind, MESSAGE_AWAITED);
        assert_int_equal(verdict_of_awaited(&thief->message), VERDICT_UNKNOWN);
    }
    keyed_peer_close(&thief);
    keyed_peer_close(&client);
}

static void test_worker_serves_only_what_its_key_covers(void **unused)
{
    (void)unused;
    static const struct {
        const char *pattern;
        bool is_covered;
    } patterns[] = {{"in.work", true}, {"in.*", true},    {"in.eu.*", true}, {"out.work", false},
                    {"out.*", false},  {"i.work", false}, {"inn.*", false},  {"part.hold", true},
                    {"part.*", false}, {"part.a", false}};
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
                .kind = kinds[i], .rights = rights, .cover = COVER_SERVICE, .is_own = true};
            then_the_cell_is(peer, &cell, VERDICT_REFUSED);
        }
        keyed_peer_close(&peer);
    }
}

/* ---- leases ---- */

#define TAKEN_MAX 64 /* tasks that a worker here is ready to take */

static uint64_t then_it_is_handed_a_task(struct keyed_peer *worker)
{
    struct wire_dispatch_entry entry = {0};
    assert_true(keyed_peer_receive_kind(worker, MESSAGE_DISPATCH, ANSWER_MS));
    struct wire_list entries = worker->message.as.dispatch.entries;
    assert_true(wire_dispatch_entry_next(&entries, &entry));
    return entry.lease;
}

/* One task that runs, and what its owner is told of it. */
struct running {
    struct treadle_task_id id;
    uint64_t lease;
    char info[4096];
};

static void print_info(struct keyed_peer *client, const struct treadle_task_id *id, char info[4096])
{
    struct message query = {.kind = MESSAGE_TASK_QUERY};
    query.as.task_query.id = *id;
    keyed_peer_send(client, &query);
    assert_true(keyed_peer_receive_kind(client, MESSAGE_TASK_INFO, ANSWER_MS));
    client->message.number = 0; /* each answer has another */
    (void)message_print(&client->message, info, 4096);
}

/* Has the owner submit one, and this worker take it. */
static struct running given_a_running_task(struct keyed_peer *client, struct keyed_peer *worker,
                                           const char *service)
{
    struct running running = {.id = new_id()};
    send_submit(client, service, "work", &running.id, 0);
    then_it_is_accepted(client);
    running.lease = then_it_is_handed_a_task(worker);
    print_info(client, &running.id, running.info);
    return running;
}

static void then_it_runs_unchanged(struct keyed_peer *client, const struct running *running)
{
    char info[4096];
    print_info(client, &running->id, info);
    assert_string_equal(info, running->info);
}

static void then_its_result_is(struct keyed_peer *worker, uint64_t lease, bool is_stale)
{
    struct wire_result_ack_entry entry = {0};
    assert_true(keyed_peer_receive_kind(worker, MESSAGE_RESULT_ACK, ANSWER_MS));
    struct wire_list entries = worker->message.as.result_ack.entries;
    assert_true(wire_result_ack_entry_next(&entries, &entry));
    assert_int_equal(entry.lease, lease);
    assert_int_equal(entry.is_stale, is_stale);
}

static void when_it_succeeds(struct keyed_peer *worker, uint64_t lease)
{
    send_word(worker, WORD_SUCCESS, lease);
    then_its_result_is(worker, lease, false);
}

/* Whatever it says of it: nothing is changed, and it is counted, once. */
static void then_every_word_is_late(struct keyed_peer *worker, const char *whose, uint64_t lease)
{
    for (int word = 0; word < WORD_COUNT; word++) {
        const uint64_t before = keyed_broker_counter(&broker, "late");
        const bool is_result = word == WORD_SUCCESS || word == WORD_FAILURE;
        send_word(worker, (enum word)word, lease);
        if (is_result) {
            then_its_result_is(worker, lease, true);
        } else { /* that has no answer: one behind it has, and is as late */
            send_word(worker, WORD_SUCCESS, lease);
            then_its_result_is(worker, lease, true);
        }
        const uint64_t counted = keyed_broker_counter(&broker, "late") - before;
        if (counted != (is_result ? 1 : 2)) {
            fail_msg("%s of %s: counted %" PRIu64 " times", word_names[word], whose, counted);
        }
    }
}

/* Somebody's two workers, somebody else's one, and a task that each of them runs. */
struct mesh {
    struct keyed_peer *client;
    struct keyed_peer *worker;
    struct keyed_peer *second;
    struct keyed_peer *foreign;
    struct running own;
    struct running of_second;
    struct running of_foreign;
};

static struct mesh given_a_mesh(const struct somebody *who)
{
    struct mesh mesh = {.client = given_a_client(&owner),
                        .worker = given_a_worker(who, "first", "in.work", TAKEN_MAX),
                        .second = given_a_worker(who, "second", "in.two.*", TAKEN_MAX),
                        .foreign = given_a_worker(&owner, "first", "keep.work", TAKEN_MAX)};
    mesh.own = given_a_running_task(mesh.client, mesh.worker, "in");
    mesh.of_second = given_a_running_task(mesh.client, mesh.second, "in.two");
    mesh.of_foreign = given_a_running_task(mesh.client, mesh.foreign, "keep");
    return mesh;
}

static void then_all_run_unchanged(struct mesh *mesh)
{
    then_it_runs_unchanged(mesh->client, &mesh->own);
    then_it_runs_unchanged(mesh->client, &mesh->of_second);
    then_it_runs_unchanged(mesh->client, &mesh->of_foreign);
    when_it_beats(mesh->second);
    when_it_beats(mesh->foreign);
}

static void then_no_lease_counts_but_its_own(struct mesh *mesh)
{
    const struct {
        const char *whose;
        uint64_t lease;
    } claims[] = {
        {"another principal's worker", mesh->of_foreign.lease},
        {"another worker of the principal", mesh->of_second.lease},
        {"nobody yet", mesh->of_foreign.lease + 1},
        {"another epoch", mesh->own.lease ^ (UINT64_C(1) << 40)},
        {"nobody ever", 0},
        {"nobody at all", UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        then_every_word_is_late(mesh->worker, claims[i].whose, claims[i].lease);
        then_all_run_unchanged(mesh);
    }
}

/* Returned, failed for good, succeeded: each ends its lease. */
static void then_no_lease_counts_that_has_ended(struct mesh *mesh)
{
    const uint64_t returned = mesh->own.lease;
    send_word(mesh->worker, WORD_RETURNED, returned);
    mesh->own.lease = then_it_is_handed_a_task(mesh->worker); /* the same task again */
    assert_int_not_equal(mesh->own.lease, returned);
    print_info(mesh->client, &mesh->own.id, mesh->own.info);
    then_every_word_is_late(mesh->worker, "itself, returned", returned);
    then_all_run_unchanged(mesh);

    when_it_succeeds(mesh->worker, mesh->own.lease);
    print_info(mesh->client, &mesh->own.id, mesh->own.info);
    then_every_word_is_late(mesh->worker, "itself, ended", mesh->own.lease);
    then_all_run_unchanged(mesh);
}

/* A new life of the worker's: what the old one was handed is lost. */
static void then_no_lease_counts_of_a_session_that_was_lost(struct mesh *mesh)
{
    mesh->own = given_a_running_task(mesh->client, mesh->worker, "in");
    const uint64_t lost = mesh->own.lease;
    keyed_peer_hello(mesh->worker, ROLE_WORKER, "first", "in.work");
    assert_true(keyed_peer_receive_kind(mesh->worker, MESSAGE_WELCOME, ANSWER_MS));
    assert_int_equal(mesh->worker->message.as.welcome.is_resumed, 0);
    when_it_beats(mesh->worker); /* its grant */
    mesh->own.lease = then_it_is_handed_a_task(mesh->worker);
    print_info(mesh->client, &mesh->own.id, mesh->own.info);
    then_every_word_is_late(mesh->worker, "itself, in another session", lost);
    then_all_run_unchanged(mesh);
}

/* It says HELLO in the life of somebody else's worker, whose leases it names. */
static void then_a_session_of_another_is_not_resumed(struct mesh *mesh, const struct somebody *who)
{
    struct keyed_peer *thief = connect_as(who);
    memcpy(thief->incarnation, mesh->foreign->incarnation, sizeof thief->incarnation);
    keyed_peer_hello_again(thief, ROLE_WORKER, "third", "in.three");
    assert_true(keyed_peer_receive_kind(thief, MESSAGE_WELCOME, ANSWER_MS));
    assert_int_equal(thief->message.as.welcome.is_resumed, 0);
    then_every_word_is_late(thief, "the life it claims", mesh->of_foreign.lease);
    then_all_run_unchanged(mesh);
    keyed_peer_close(&thief);
}

static void then_only_own_leases_count(const struct somebody *who)
{
    struct mesh mesh = given_a_mesh(who);
    then_no_lease_counts_but_its_own(&mesh);
    then_no_lease_counts_that_has_ended(&mesh);
    then_no_lease_counts_of_a_session_that_was_lost(&mesh);
    then_a_session_of_another_is_not_resumed(&mesh, who);
    when_it_succeeds(mesh.worker, mesh.own.lease);
    when_it_succeeds(mesh.second, mesh.of_second.lease);
    when_it_succeeds(mesh.foreign, mesh.of_foreign.lease); /* nothing of this has touched it */
    keyed_peer_close(&mesh.worker);
    keyed_peer_close(&mesh.second);
    keyed_peer_close(&mesh.foreign);
    keyed_peer_close(&mesh.client);
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
        for (int word = 0; word < WORD_COUNT; word++) { /* there is no session to say it in */
            send_word(peer, (enum word)word, 1);
            assert_true(keyed_peer_receive(peer, ANSWER_MS));
            assert_int_equal(peer->message.kind, MESSAGE_REFUSED);
        }
        keyed_peer_close(&peer);
    }
}

/* Its connection has been cut, so that this may take more than one try. */
static void when_it_comes_back(struct keyed_peer *worker, const char *serves,
                               enum message_kind answer)
{
    for (int i = 0; i < 50; i++) {
        keyed_peer_hello_again(worker, ROLE_WORKER, "first", serves);
        while (keyed_peer_receive(worker, 200)) {
            if (worker->message.kind == answer &&
                (answer != MESSAGE_REFUSED || worker->message.as.refused.code == REFUSED_RIGHTS)) {
                return;
            }
        }
    }
    fail_msg("no %s", message_kind_text(answer));
}

static void test_worker_of_which_fewer_services_are_covered_loses_what_it_runs(void **unused)
{
    (void)unused;
    struct keyed_peer *client = given_a_client(&owner);
    struct keyed_peer *worker = given_a_worker(&people[RIGHT_WORK], "first", "in.work", TAKEN_MAX);
    struct running running = given_a_running_task(client, worker, "in");
    const uint64_t lost = running.lease;
    keyed_broker_reload(&broker, principals_text(STAGE_FEWER));
    when_it_comes_back(worker, "in.work", MESSAGE_REFUSED);
    when_it_comes_back(worker, "part.hold", MESSAGE_WELCOME);
    assert_int_equal(worker->message.as.welcome.is_resumed, 0);
    assert_int_equal(worker->message.as.welcome.services.count, 1);
    struct keyed_peer *other = given_a_worker(&owner, "second", "in.work", TAKEN_MAX);
    running.lease = then_it_is_handed_a_task(other);
    print_info(client, &running.id, running.info);
    then_every_word_is_late(worker, "itself, with the right to it", lost);
    then_it_runs_unchanged(client, &running);
    when_it_succeeds(other, running.lease);
    keyed_broker_reload(&broker, principals_text(STAGE_MATRIX));
    keyed_peer_close(&other);
    keyed_peer_close(&worker);
    keyed_peer_close(&client);
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
        cmocka_unit_test(test_what_a_key_may_not_see_is_answered_as_what_is_not_there),
        cmocka_unit_test(test_id_of_another_is_neither_taken_nor_awaited),
        cmocka_unit_test(test_worker_serves_only_what_its_key_covers),
        cmocka_unit_test(test_worker_session_says_nothing_of_a_client),
        cmocka_unit_test(test_worker_settles_only_its_own_live_leases),
        cmocka_unit_test(test_worker_of_which_fewer_services_are_covered_loses_what_it_runs),
        cmocka_unit_test(test_broker_is_drained_by_administrators_only),
    };
    const int failed_count = cmocka_run_group_tests(tests, set_up, tear_down);
    keyed_brokers_kill();
    return failed_count;
}
