/* SPDX-License-Identifier: MPL-2.0 */
#include "broker/core/internal.h"
#include "common/base/assert.h"
#include "common/base/hash.h"

#include <string.h>

#define ADMIN_SESSIONS_KEPT 16U

uint32_t session_number(const struct core *core, const struct session *session)
{
    return (uint32_t)(session - core->sessions);
}

struct effect *session_send(struct core *core, struct session *session, enum message_kind kind,
                            struct effects *out)
{
    if (session->state != SESSION_LIVE || session->connection == NONE) {
        return NULL; /* what matters is said again after the next HELLO */
    }
    struct effect *effect = effects_add(out, EFFECT_SEND, (int)kind);
    effect->connection = session->connection;
    effect->session = session_number(core, session);
    session->sent_at_ms = core->now_ms;
    return effect;
}

struct effect *refuse(uint32_t connection, enum refused_code code, const char *text,
                      struct effects *out)
{
    struct effect *effect = effects_add(out, EFFECT_SEND, MESSAGE_REFUSED);
    effect->connection = connection;
    effect->status = (uint8_t)code;
    effect->body = (struct bytes){(const uint8_t *)text, strlen(text)};
    return effect;
}

static void log_session(struct core *core, const struct session *session, enum log_event event,
                        uint64_t value, struct effects *out)
{
    struct effect *effect = effects_add(out, EFFECT_LOG, (int)event);
    effect->session = session_number(core, session);
    effect->value = value;
}

/* ---- finding ---- */

struct session_key {
    uint32_t owner;
    struct bytes text; /* the incarnation, or a worker's name */
};

static uint64_t hash_key(const struct core *core, const struct session_key *key)
{
    const uint64_t spread = (uint64_t)key->owner * UINT64_C(0x9E3779B97F4A7C15);
    return hash_bytes(&core->config.hash_key, key->text.data, key->text.size) ^ (spread >> 32);
}

static bool incarnation_is(const void *context, uint32_t value, const void *opaque)
{
    const struct core *core = context;
    const struct session_key *key = opaque;
    const struct session *session = &core->sessions[value];
    return session->owner == key->owner &&
           memcmp(session->incarnation, key->text.data, sizeof session->incarnation) == 0;
}

static bool worker_is(const void *context, uint32_t value, const void *opaque)
{
    const struct core *core = context;
    const struct session_key *key = opaque;
    const struct session *session = &core->sessions[value];
    return session->owner == key->owner && name_is(&session->name, key->text);
}

/* The live worker of this owner and name; NULL. */
static struct session *find_worker(struct core *core, uint32_t owner, struct bytes name)
{
    const struct session_key key = {owner, name};
    const uint32_t found = map_find(&core->worker_map, hash_key(core, &key), worker_is, core, &key);
    return found == MAP_NONE ? NULL : &core->sessions[found];
}

static struct session_key incarnation_key(const struct session *session)
{
    return (struct session_key){session->owner,
                                {session->incarnation, sizeof session->incarnation}};
}

static struct session_key worker_key(const struct session *session)
{
    return (struct session_key){session->owner, name_view(&session->name)};
}

/* ---- busy sessions: more leases than slots ---- */

void session_update_busy(struct core *core, struct session *session)
{
    const bool is_busy = session->state == SESSION_LIVE && session->in_use > session->slots;
    if (is_busy && list_is_empty(&session->busy_link)) {
        list_push_back(&core->busy_sessions, &session->busy_link);
        if (!timer_is_armed(&core->balance_timer)) {
            wheel_add(&core->wheel, &core->balance_timer, core->now_ms + core->config.balance_ms);
        }
    } else if (!is_busy) {
        list_remove(&session->busy_link);
    }
}

/* ---- what a worker serves ---- */

static void retain_sides(struct core *core, uint32_t to[3], const uint32_t from[3])
{
    for (int side = 0; side < 3; side++) {
        to[side] = from[side];
        policy_retain(core, from[side]);
    }
}

static void release_sides(struct core *core, uint32_t sides[3])
{
    for (int side = 0; side < 3; side++) {
        policy_release(core, sides[side]);
        sides[side] = NONE;
    }
}

static struct serve *find_serve(struct session *session, uint32_t queue)
{
    for (struct list *link = list_first(&session->serves); link != NULL;
         link = list_next(&session->serves, link)) {
        struct serve *serve = container_of(link, struct serve, session_link);
        if (serve->queue == queue) {
            return serve;
        }
    }
    return NULL;
}

static bool serve_open(struct core *core, struct session *session, uint32_t queue_number,
                       const uint32_t sides[3], bool is_named)
{
    struct serve *present = find_serve(session, queue_number);
    if (present != NULL) {
        present->is_named = present->is_named || is_named;
        return true;
    }
    const uint32_t number = slab_take(&core->serve_slab);
    if (number == NONE) {
        return false;
    }
    struct serve *serve = &core->serves[number];
    struct queue *queue = &core->queues[queue_number];
    *serve = (struct serve){.link = serve->link,
                            .session = session_number(core, session),
                            .queue = queue_number,
                            .place = SERVE_PARKED,
                            .is_named = is_named};
    list_init(&serve->link);
    list_init(&serve->session_link);
    retain_sides(core, serve->policies, sides);
    release_sides(core, queue->policies);
    retain_sides(core, queue->policies, sides);
    list_push_back(&session->serves, &serve->session_link);
    list_push_back(&session->parked_serves, &serve->link);
    queue->serve_count++;
    queue_note_use(core, queue);
    session->is_capacity_changed = true;
    return true;
}

static void serve_close(struct core *core, struct serve *serve)
{
    list_remove(&serve->link);
    list_remove(&serve->session_link);
    core->queues[serve->queue].serve_count--;
    queue_note_use(core, &core->queues[serve->queue]);
    release_sides(core, serve->policies);
    slab_give(&core->serve_slab, serve);
}

static void close_serves(struct core *core, struct session *session)
{
    struct list *link = NULL;
    while ((link = list_first(&session->serves)) != NULL) {
        serve_close(core, container_of(link, struct serve, session_link));
    }
    while ((link = list_pop_front(&session->wildcards)) != NULL) {
        struct wildcard *wildcard = container_of(link, struct wildcard, session_link);
        list_remove(&wildcard->link);
        service_note_use(core, &core->services[wildcard->service]);
        release_sides(core, wildcard->policies);
        slab_give(&core->wildcard_slab, wildcard);
    }
}

void session_serve_new_queue(struct core *core, uint32_t queue)
{
    const struct service *service = &core->services[core->queues[queue].service];
    struct list *link = list_first(&service->wildcards);
    while (link != NULL) {
        struct wildcard *wildcard = container_of(link, struct wildcard, link);
        link = list_next(&service->wildcards, link);
        struct session *session = &core->sessions[wildcard->session];
        if (serve_open(core, session, queue, wildcard->policies, false)) {
            session_refresh_capacity(core, session);
        }
    }
}

static bool has_wildcard(const struct session *session, uint32_t service)
{
    for (const struct list *link = list_first(&session->wildcards); link != NULL;
         link = list_next(&session->wildcards, link)) {
        if (container_of_const(link, struct wildcard, session_link)->service == service) {
            return true;
        }
    }
    return false;
}

static bool open_wildcard(struct core *core, struct session *session, struct bytes service_name,
                          const uint32_t sides[3])
{
    const uint32_t service_number = service_intern(core, session->owner, service_name);
    if (service_number == NONE) {
        return false;
    }
    if (has_wildcard(session, service_number)) {
        return true; /* said twice */
    }
    const uint32_t number = slab_take(&core->wildcard_slab);
    if (number == NONE) {
        return false;
    }
    struct service *service = &core->services[service_number];
    struct wildcard *wildcard = &core->wildcards[number];
    wildcard->session = session_number(core, session);
    wildcard->service = service_number;
    list_init(&wildcard->session_link);
    retain_sides(core, wildcard->policies, sides);
    list_push_back(&service->wildcards, &wildcard->link);
    list_push_back(&session->wildcards, &wildcard->session_link);
    service_note_use(core, service);
    for (struct list *link = list_first(&service->queues); link != NULL;
         link = list_next(&service->queues, link)) {
        const struct queue *queue = container_of(link, struct queue, link);
        if (!serve_open(core, session, slab_place(&core->queue_slab, queue), sides, false)) {
            return false;
        }
    }
    return true;
}

/* SERVICE.TASK or SERVICE.*, split at the last dot. False: not of that form, or no room. */
static bool open_pattern(struct core *core, struct session *session, struct bytes pattern,
                         const uint32_t sides[3])
{
    size_t dot = pattern.size;
    while (dot > 0 && pattern.data[dot - 1] != '.') {
        dot--;
    }
    if (dot < 2 || dot == pattern.size) {
        return false;
    }
    const struct bytes service = {pattern.data, dot - 1};
    const struct bytes task = {pattern.data + dot, pattern.size - dot};
    if (!wire_is_name(service, 1)) {
        return false;
    }
    if (task.size == 1 && task.data[0] == '*') {
        return open_wildcard(core, session, service, sides);
    }
    if (!wire_is_name(task, 1)) {
        return false;
    }
    const uint32_t queue = queue_intern(core, session->owner, service, task);
    return queue != NONE && serve_open(core, session, queue, sides, true);
}

static bool open_serves(struct core *core, struct session *session, const struct wire_hello *hello)
{
    struct wire_list list = hello->serves;
    struct wire_serve entry;
    bool is_fine = true;
    while (wire_serve_next(&list, &entry)) {
        uint32_t sides[3] = {NONE, NONE, NONE};
        is_fine = policy_intern(core, session->owner, &entry.worker_policy, &sides[0]) && is_fine;
        is_fine = policy_intern(core, session->owner, &entry.task_policy, &sides[1]) && is_fine;
        is_fine = policy_intern(core, session->owner, &entry.service_policy, &sides[2]) && is_fine;
        is_fine = open_pattern(core, session, entry.pattern, sides) && is_fine;
        release_sides(core, sides);
    }
    return is_fine;
}

/* ---- life ---- */

static void arm_session(struct core *core, struct session *session)
{
    uint64_t at_ms = session->grace_until_ms;
    if (session->connection != NONE) {
        const uint64_t silent_at_ms =
            session->heard_at_ms + core->config.heartbeat_ms * core->config.liveness;
        const uint64_t beat_at_ms = session->sent_at_ms + core->config.heartbeat_ms;
        at_ms = silent_at_ms < beat_at_ms ? silent_at_ms : beat_at_ms;
    }
    wheel_cancel(&core->wheel, &session->timer);
    wheel_add(&core->wheel, &session->timer, at_ms);
}

static void detach(struct core *core, struct session *session)
{
    if (session->connection != NONE) {
        core->connection_sessions[session->connection] = 0;
        session->connection = NONE;
    }
}

static void attach(struct core *core, struct session *session, uint32_t connection)
{
    detach(core, session);
    session->connection = connection;
    core->connection_sessions[connection] = session_number(core, session) + 1;
}

static struct session *session_on(struct core *core, uint32_t connection)
{
    const uint32_t stored = core->connection_sessions[connection];
    return stored == 0 ? NULL : &core->sessions[stored - 1];
}

void session_end(struct core *core, struct session *session, enum session_end_reason reason,
                 struct effects *out)
{
    TREADLE_ASSERT(session->state == SESSION_LIVE);
    if (reason == SESSION_REPLACED && session->connection != NONE) {
        refuse(session->connection, REFUSED_REPLACED,
               "another worker of the same name and key has taken this one's place", out)
            ->session = session_number(core, session);
    }
    if (reason == SESSION_STALLED) { /* one that merely was slow begins anew */
        core->counters.sessions_stalled++;
        refuse(session->connection, REFUSED_HELLO_FIRST,
               "outcomes were not acknowledged for too long; say HELLO again", out)
            ->session = session_number(core, session);
    }
    if (reason == SESSION_PRESSING && session->connection != NONE) {
        core->counters.sessions_pressing++;
        refuse(session->connection, REFUSED_LIMIT,
               "what was answered BUSY is sent again and again without the wait asked for", out)
            ->session = session_number(core, session);
        effects_add(out, EFFECT_CLOSE, 0)->connection = session->connection;
    }
    if (reason == SESSION_REVOKED && session->connection != NONE) {
        refuse(session->connection, REFUSED_RIGHTS,
               "this key has no longer the right for its role, or for a task that it serves", out)
            ->session = session_number(core, session);
        effects_add(out, EFFECT_CLOSE, 0)->connection = session->connection;
    }
    if (reason == SESSION_GOODBYE) {
        core->counters.sessions_ended++;
        log_session(core, session, LOG_SESSION_ENDED, session->in_use, out);
    } else {
        core->counters.sessions_lost++;
        log_session(core, session, LOG_SESSION_LOST, session->in_use, out);
    }
    const struct session_key incarnation = incarnation_key(session);
    map_remove(&core->session_map, hash_key(core, &incarnation), session_number(core, session));
    if (session->role == ROLE_WORKER) {
        const struct session_key worker = worker_key(session);
        map_remove(&core->worker_map, hash_key(core, &worker), session_number(core, session));
    }
    detach(core, session);
    wheel_cancel(&core->wheel, &session->timer);
    close_serves(core, session);
    session->state = SESSION_ENDING;
    session_update_busy(core, session);
    list_remove(&session->deliver_link);
    list_remove(&session->link);
    list_push_back(&core->ending_sessions, &session->link);
}

static void init_session(struct core *core, struct session *session)
{
    *session = (struct session){.link = session->link,
                                .connection = NONE,
                                .state = SESSION_LIVE,
                                .serial = core->next_session_serial,
                                .opened_at_ms = core->now_ms};
    core->next_session_serial++;
    list_init(&session->link);
    timer_init(&session->timer, TIMER_SESSION, session_number(core, session));
    list_init(&session->attempts);
    list_init(&session->doubtful);
    list_init(&session->serves);
    list_init(&session->parked_serves);
    list_init(&session->wildcards);
    list_init(&session->busy_link);
    list_init(&session->waiting);
    list_init(&session->to_deliver);
    list_init(&session->in_flight);
    list_init(&session->deliver_link);
}

static struct session *session_open(struct core *core, uint32_t owner,
                                    const struct wire_hello *hello, struct effects *out)
{
    const uint32_t number = slab_take(&core->session_slab);
    if (number == NONE) {
        return NULL;
    }
    struct session *session = &core->sessions[number];
    init_session(core, session);
    session->owner = owner;
    session->role = (uint8_t)hello->role;
    name_set(&session->name, hello->name);
    name_set(&session->host, hello->host);
    memcpy(session->incarnation, hello->incarnation.data, sizeof session->incarnation);
    const struct session_key incarnation = incarnation_key(session);
    map_add(&core->session_map, hash_key(core, &incarnation), number);
    if (session->role == ROLE_WORKER) {
        const struct session_key key = worker_key(session);
        struct session *older = find_worker(core, owner, key.text);
        if (older != NULL) {
            session_end(core, older, SESSION_REPLACED, out);
        }
        map_add(&core->worker_map, hash_key(core, &key), number);
    }
    core->counters.sessions_opened++;
    return session;
}

/* ---- HELLO ---- */

/* Leases it names stay; what is left in `doubtful` never arrived there, or was handed back: a
 * cursor puts it back. */
static void reconcile_leases(struct core *core, struct session *session,
                             const struct wire_hello *hello)
{
    list_splice_front(&session->doubtful, &session->attempts);
    struct wire_list leases = hello->leases;
    struct wire_held_lease held;
    while (wire_held_lease_next(&leases, &held)) {
        struct attempt *attempt = attempt_find(core, session, held.lease);
        if (attempt != NULL) {
            list_remove(&attempt->link);
            list_push_back(&session->attempts, &attempt->link);
            attempt->flags &= (uint8_t)~ATTEMPT_RECALLED; /* the recall may be lost */
            if (held.state != HELD_QUEUED) {
                attempt->flags |= ATTEMPT_RUNNING;
            }
        }
    }
    list_remove(&session->link);
    if (!list_is_empty(&session->doubtful)) {
        list_push_back(&core->reconciling_sessions, &session->link);
    }
}

/* What was asked of the worker while it was away, or may be lost, is said again: cancels, and the
 * recall of what should not start. */
static void repeat_requests(struct core *core, struct session *session, struct effects *out)
{
    uint32_t looked_at = 0;
    for (struct list *link = list_first(&session->attempts);
         link != NULL && looked_at < VISITS_MAX && effects_room(out) > 64;
         link = list_next(&session->attempts, link)) {
        struct attempt *attempt = container_of(link, struct attempt, link);
        looked_at++;
        const bool is_unwanted = attempt->task == NONE ||
                                 (core->tasks[attempt->task].flags & TASK_CANCEL_REQUESTED) != 0;
        if (is_unwanted) {
            struct effect *effect = session_send(core, session, MESSAGE_CANCEL_ATTEMPT, out);
            TREADLE_ASSERT(effect != NULL); /* it has just been given a connection */
            effect->number = attempt->lease;
        } else if (service_is_closed(&core->services[attempt->service])) {
            attempt_recall(core, attempt, out);
        }
    }
}

/* A session whose WELCOME may not have arrived is still a new one to the peer, which knows only the
 * one before. */
static void welcome(struct core *core, struct session *session, const struct input *input,
                    struct effects *out)
{
    struct effect *effect = session_send(core, session, MESSAGE_WELCOME, out);
    TREADLE_ASSERT(effect != NULL); /* it is live, and has just been given a connection */
    effect->value = input->message->number;
    effect->reason = (uint8_t)(input->rights & RIGHT_ALL);
    effect->services = input->services;
    effect->number = session->dispatched;
    effect->status = session->is_confirmed ? 1 : 0;
    if (session->is_draining) {
        (void)session_send(core, session, MESSAGE_DRAIN, out);
    }
}

static void start_session(struct core *core, struct session *session, const struct input *input,
                          bool is_resumed, struct effects *out)
{
    const struct message *message = input->message;
    attach(core, session, input->connection);
    session->serial = core->next_session_serial;
    core->next_session_serial++;
    session->rights_serial = input->rights_serial;
    session->heard_at_ms = core->now_ms;
    session->sent_at_ms = core->now_ms;
    session->expected_number = message->number + 1;
    session->refused_at_ms = 0;
    welcome(core, session, input, out);
    if (session->role == ROLE_WORKER) {
        const uint64_t slots = message->as.hello.slots;
        session->slots = slots == 0 ? 1 : (uint32_t)slots;
        session->granted = session->dispatched; /* until it grants anew */
        reconcile_leases(core, session, &message->as.hello);
        repeat_requests(core, session, out);
        session_update_busy(core, session);
    } else {
        if (session->is_confirmed) { /* else it counts another session's */
            deliver_on_acknowledged(core, session, message->upto);
        }
        deliver_again(core, session);
    }
    arm_session(core, session);
    if (is_resumed) {
        core->counters.sessions_resumed++;
    }
    log_session(core, session, is_resumed ? LOG_SESSION_RESUMED : LOG_SESSION_OPENED,
                session->in_use, out);
}

static bool refuse_hello(struct core *core, const struct input *input, enum refused_code code,
                         const char *text, struct effects *out)
{
    core->counters.sessions_refused++;
    refuse(input->connection, code, text, out);
    return false;
}

/* Whoever has any right may be a client, and at least look: `treadle doctor` on a worker's host. */
static bool has_right_to_role(const struct input *input, uint64_t role)
{
    const uint32_t wanted = role == ROLE_WORKER ? RIGHT_WORK : RIGHT_ALL;
    return (input->rights & wanted) != 0;
}

/* Whether it may serve each pattern that it names. */
static bool may_serve(const struct wire_hello *hello, const struct globs *services)
{
    struct wire_list list = hello->serves;
    struct wire_serve entry;
    while (wire_serve_next(&list, &entry)) {
        if (!globs_cover(services, entry.pattern)) {
            return false;
        }
    }
    return true;
}

static bool admits_hello(struct core *core, const struct input *input, struct effects *out)
{
    const struct wire_hello *hello = &input->message->as.hello;
    if (hello->minor_from > WIRE_MINOR || hello->minor_to < hello->minor_from) {
        return refuse_hello(core, input, REFUSED_VERSION,
                            "this broker speaks minor version 0; use an older peer", out);
    }
    if (!has_right_to_role(input, hello->role)) {
        return refuse_hello(core, input, REFUSED_RIGHTS,
                            hello->role == ROLE_WORKER ? "this key lacks the role work here"
                                                       : "this key has no role here",
                            out);
    }
    if (hello->role == ROLE_WORKER && !may_serve(hello, input->services)) {
        return refuse_hello(core, input, REFUSED_RIGHTS,
                            "this key may not serve all of these tasks", out);
    }
    return true;
}

/* Whether the globs cover what was named as SERVICE.TASK here. */
static bool covers_serve(const struct core *core, const struct serve *serve,
                         const struct globs *globs)
{
    const struct queue *queue = &core->queues[serve->queue];
    return globs_cover_task(globs, name_view(&core->services[queue->service].name),
                            name_view(&queue->task));
}

static bool may_still_serve(const struct core *core, const struct session *session,
                            const struct globs *globs)
{
    for (const struct list *link = list_first(&session->wildcards); link != NULL;
         link = list_next(&session->wildcards, link)) {
        const uint32_t service = container_of_const(link, struct wildcard, session_link)->service;
        if (!globs_cover_service(globs, name_view(&core->services[service].name))) {
            return false;
        }
    }
    for (const struct list *link = list_first(&session->serves); link != NULL;
         link = list_next(&session->serves, link)) {
        const struct serve *serve = container_of_const(link, struct serve, session_link);
        if (serve->is_named && !covers_serve(core, serve, globs)) {
            return false;
        }
    }
    return true;
}

bool session_serves_some(const struct core *core, const struct session *session,
                         const struct globs *globs, uint32_t *looked_at)
{
    for (const struct list *link = list_first(&session->wildcards); link != NULL;
         link = list_next(&session->wildcards, link)) {
        const uint32_t service = container_of_const(link, struct wildcard, session_link)->service;
        ++*looked_at;
        if (globs_touch_service(globs, name_view(&core->services[service].name))) {
            return true;
        }
    }
    for (const struct list *link = list_first(&session->serves); link != NULL;
         link = list_next(&session->serves, link)) {
        const struct serve *serve = container_of_const(link, struct serve, session_link);
        ++*looked_at;
        if (serve->is_named && covers_serve(core, serve, globs)) {
            return true;
        }
    }
    return false;
}

bool session_is_rightful(const struct core *core, struct session *session,
                         const struct input *input)
{
    if (!has_right_to_role(input, session->role) ||
        !name_is(&core->owners[session->owner].name, input->principal)) {
        return false;
    }
    if (session->rights_serial == input->rights_serial) {
        return true;
    }
    session->rights_serial = input->rights_serial;
    return session->role != ROLE_WORKER || may_still_serve(core, session, input->services);
}

/* Whether this HELLO may go on with the session: outcomes that it awaits are for who may submit. */
static bool may_go_on(const struct core *core, struct session *session, const struct input *input)
{
    const bool awaits_none = list_is_empty(&session->waiting) &&
                             list_is_empty(&session->to_deliver) &&
                             list_is_empty(&session->in_flight);
    return session_is_rightful(core, session, input) &&
           (awaits_none || (input->rights & RIGHT_SUBMIT) != 0);
}

/* The session this HELLO resumes; NULL: it is a new one. One that served or awaits what its key may
 * no longer ends, with its leases and watches, and another one begins. */
static struct session *find_resumed(struct core *core, uint32_t owner, const struct input *input,
                                    struct effects *out)
{
    const struct wire_hello *hello = &input->message->as.hello;
    const struct session_key key = {owner, hello->incarnation};
    const uint32_t found =
        map_find(&core->session_map, hash_key(core, &key), incarnation_is, core, &key);
    if (found == MAP_NONE) {
        return NULL;
    }
    struct session *session = &core->sessions[found];
    if (input->message->number < session->expected_number || session->role != hello->role ||
        may_go_on(core, session, input)) {
        return session;
    }
    if (session->connection != NONE) { /* another one than this */
        effects_add(out, EFFECT_CLOSE, 0)->connection = session->connection;
    }
    session_end(core, session, SESSION_GONE, out);
    return NULL;
}

/* Rebuilds what the worker serves. False: it was refused and its session ended. */
static bool renew_serves(struct core *core, struct session *session, const struct input *input,
                         struct effects *out)
{
    if (session->role != ROLE_WORKER) {
        return true;
    }
    close_serves(core, session);
    if (open_serves(core, session, &input->message->as.hello)) {
        return true;
    }
    detach(core, session);
    session_end(core, session, SESSION_GONE, out);
    return refuse_hello(core, input, REFUSED_LIMIT,
                        "a task it serves is not SERVICE.TASK or SERVICE.*, or the broker's limit "
                        "of services, tasks or policies is reached",
                        out);
}

/* The last places are for who administers: any key could hold the others for ever. */
static bool has_place(const struct core *core, const struct input *input)
{
    const uint32_t sixteenth = core->config.session_count_max / 16;
    const uint32_t kept = sixteenth < ADMIN_SESSIONS_KEPT ? sixteenth : ADMIN_SESSIONS_KEPT;
    return (input->rights & RIGHT_ADMIN) != 0 ||
           core->session_slab.live + kept < core->config.session_count_max;
}

void session_on_hello(struct core *core, const struct input *input, struct effects *out)
{
    const struct message *message = input->message;
    const struct wire_hello *hello = &message->as.hello;
    struct session *former = session_on(core, input->connection);
    if (former != NULL && !may_go_on(core, former, input)) {
        session_end(core, former, SESSION_GONE, out); /* whatever comes of this HELLO */
    }
    if (!admits_hello(core, input, out)) {
        return;
    }
    const uint32_t owner = owner_intern(core, input->principal);
    if (owner == NONE) {
        (void)refuse_hello(core, input, REFUSED_LIMIT, "too many principals", out);
        return;
    }
    struct session *session = find_resumed(core, owner, input, out);
    struct session *present = session_on(core, input->connection);
    if (session != NULL && message->number < session->expected_number) {
        core->counters.doubles++;
        return;
    }
    if (present != NULL && present != session) {
        session_end(core, present, SESSION_GONE, out); /* the peer has begun another life */
    }
    if (session != NULL && session->role != hello->role) {
        (void)refuse_hello(core, input, REFUSED_MALFORMED, "the role has changed", out);
        return;
    }
    const bool is_resumed = session != NULL;
    if (is_resumed && session->connection != NONE && session->connection != input->connection) {
        effects_add(out, EFFECT_CLOSE, 0)->connection = session->connection;
    }
    if (!is_resumed) {
        session = has_place(core, input) ? session_open(core, owner, hello, out) : NULL;
        if (session == NULL) {
            refuse_hello(core, input, REFUSED_LIMIT, "too many sessions", out);
            return;
        }
    }
    if (renew_serves(core, session, input, out)) {
        start_session(core, session, input, is_resumed, out);
    }
}

/* ---- time ---- */

void session_on_disconnected(struct core *core, uint32_t connection)
{
    struct session *session = session_on(core, connection);
    if (session != NULL) {
        detach(core, session);
        session->grace_until_ms = core->now_ms + core->config.resume_grace_ms;
        arm_session(core, session);
    }
}

void session_on_timer(struct core *core, struct session *session, struct effects *out)
{
    if (session->connection == NONE) {
        session_end(core, session, SESSION_GONE, out);
        return;
    }
    const uint64_t silence_ms = core->config.heartbeat_ms * core->config.liveness;
    if (core->now_ms - session->heard_at_ms >= silence_ms) {
        session_end(core, session, SESSION_SILENT, out);
        return;
    }
    if (deliver_is_stalled(core, session)) {
        session_end(core, session, SESSION_STALLED, out);
        return;
    }
    if (core->now_ms - session->sent_at_ms >= core->config.heartbeat_ms) {
        (void)session_send(core, session, MESSAGE_HEARTBEAT, out);
    }
    arm_session(core, session);
}

void session_drain(struct core *core, struct session *session, struct effects *out)
{
    if (!session->is_draining) {
        session->is_draining = true; /* the worker hands back what it has not started */
        (void)session_send(core, session, MESSAGE_DRAIN, out);
    }
}

/* ---- cursors ---- */

#define EFFECTS_PER_LEASE 12U

/* Gives the newest leases of a list back, so that put in front one by one they keep their order.
 * True: none left. */
static bool give_back_share(struct core *core, struct session *session, struct list *leases,
                            enum failure_kind kind, struct effects *out)
{
    while (!list_is_empty(leases)) {
        if (core->visits == 0 || effects_room(out) < EFFECTS_PER_LEASE) {
            return false;
        }
        core->visits--;
        struct attempt *attempt = container_of(leases->prev, struct attempt, link);
        const bool is_counted = session->in_use <= session->slots; /* its oldest: they ran */
        attempt_give_back(core, attempt, kind, is_counted, out);
    }
    return true;
}

static bool drop_watches_share(struct core *core, struct list *watches)
{
    while (!list_is_empty(watches)) {
        if (core->visits == 0) {
            return false;
        }
        core->visits--;
        watch_drop(core, container_of(watches->next, struct watch, link));
    }
    return true;
}

static bool run_ending(struct core *core, struct session *session, struct effects *out)
{
    return give_back_share(core, session, &session->doubtful, FAILURE_RETURNED, out) &&
           give_back_share(core, session, &session->attempts, FAILURE_LOST, out) &&
           drop_watches_share(core, &session->waiting) &&
           drop_watches_share(core, &session->to_deliver) &&
           drop_watches_share(core, &session->in_flight);
}

void session_run_cursors(struct core *core, struct effects *out)
{
    struct list *link = NULL;
    while ((link = list_first(&core->reconciling_sessions)) != NULL) {
        struct session *session = container_of(link, struct session, link);
        if (!give_back_share(core, session, &session->doubtful, FAILURE_RETURNED, out)) {
            return;
        }
        list_remove(&session->link);
    }
    while ((link = list_first(&core->ending_sessions)) != NULL) {
        struct session *session = container_of(link, struct session, link);
        if (!run_ending(core, session, out)) {
            return;
        }
        TREADLE_ASSERT(session->in_use == 0);
        list_remove(&session->link);
        session->state = SESSION_FREE;
        slab_give(&core->session_slab, session);
    }
}
