/* SPDX-License-Identifier: MPL-2.0 */
/* A client's process: its session, and an application that submits, awaits, cancels, asks and
 * orders as the seed has it, and remembers over its deaths what it still wants to know. */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/sim.h"
#include "tests/support/canary.h"

#define REQUEST_COUNT_MAX 20u
#define COOLDOWN_LONG_MS  80000u

static const char *const service_names[SERVICE_COUNT_MAX] = {"svc0", "svc1", "svc2"};
static const char *const kind_names[KIND_COUNT] = {"t0", "t1"};
static const char *const tenant_names[3] = {"red", "green", "blue"};

/* A client's number among the clients. */
static uint32_t client_number(const struct peer *peer)
{
    return peer->number - WORKER_COUNT_MAX;
}

/* ---- life ---- */

void client_start(struct sim *sim, struct peer *peer)
{
    peer->life = ++sim->next_life;
    struct client_session_config config = {
        .name = bytes_from_text(peer->name),
        .host = bytes_from_text("host"),
        .seed = prng_next(&sim->prng),
        .in_flight_max = sim->options.in_flight,
        .window_count =
            sim->options.window_count, /* as the broker's: else it waits for heartbeats */
    };
    memcpy(config.incarnation, &peer->life, sizeof peer->life);
    peer->client = client_session_create(&config);
    if (peer->client == NULL) {
        sim_violation(sim, "no memory for a client");
    }
    peer->is_up = true;
    peer->connection = NONE;
    peer->wake_at_ms = UINT64_MAX;
    peer->stopped_until_ms = 0;
    peer->request_count = 0;
    sim_tell(sim, "%s starts as life %u", peer->name, (unsigned)peer->life);
    network_connect_later(sim, peer, sim_below(sim, 50));
}

void client_stop(struct sim *sim, struct peer *peer)
{
    const uint32_t number = client_number(peer);
    sim_tell(sim, "%s ends", peer->name);
    client_session_destroy(&peer->client);
    peer->is_up = false;
    peer->life = 0;
    for (uint32_t i = 0; i < sim->job_count; i++) {
        sim->jobs[i].wish[number] = WISH_NONE;
        if (sim->jobs[i].owner == number) {
            sim->jobs[i].is_orphaned = true;
        }
    }
}

/* ---- new jobs ---- */

static void draw_policy(struct sim *sim, struct wire_policy *policy)
{
    const struct options *options = &sim->options;
    if (sim_percent(sim, options->timeout_percent)) {
        policy->timeout_ms = 20 + sim_below(sim, 400);
        policy->grace_ms = 10 + sim_below(sim, 150);
    }
    if (sim_percent(sim, options->timeout_percent / 4)) {
        policy->progress_timeout_ms = 20 + sim_below(sim, 200);
    }
    if (sim_percent(sim, options->backoff_percent)) {
        policy->backoff_base_ms = 10 + sim_below(sim, 60);
        policy->backoff_max_ms = 100 + sim_below(sim, 900);
    }
    if (sim_percent(sim, options->attempts_percent)) {
        policy->attempts_max = 1 + sim_below(sim, 5);
    }
    if (sim_percent(sim, options->deadline_percent)) {
        policy->deadline_ms = 50 + sim_below(sim, 4000);
    }
    if (sim_percent(sim, options->queue_timeout_percent)) {
        policy->queue_timeout_ms = 50 + sim_below(sim, 3000);
    }
    if (sim_percent(sim, options->ttl_percent)) {
        policy->result_ttl_ms = 10 + sim_below(sim, 2000);
    }
}

static uint64_t draw_flags(struct sim *sim)
{
    uint64_t flags = sim_percent(sim, sim->options.unwatched_percent) ? 0 : SUBMIT_WATCH;
    flags |= sim_percent(sim, sim->options.keep_percent) ? SUBMIT_KEEP : 0;
    flags |= sim_percent(sim, 10) ? SUBMIT_VOLATILE : 0;
    return flags;
}

static struct job *make_job(struct sim *sim, const struct peer *peer, uint32_t service,
                            uint32_t kind)
{
    const uint32_t number = sim->job_count;
    struct job *job = &sim->jobs[number];
    const uint64_t noise = prng_next(&sim->prng);
    *job = (struct job){
        .owner = client_number(peer), .service = service, .task_kind = kind, .is_made = true};
    memcpy(job->id.bytes, &noise, sizeof noise);
    memcpy(&job->id.bytes[12], &number, sizeof number);
    memcpy(job->digest, &noise, sizeof noise);
    job->fields.service = bytes_from_text(service_names[service]);
    job->fields.task = bytes_from_text(kind_names[kind]);
    sim->job_count++;
    return job;
}

static void draw_job(struct sim *sim, struct job *job)
{
    struct wire_submit_template *fields = &job->fields;
    draw_policy(sim, &fields->policy);
    fields->flags = draw_flags(sim);
    fields->priority = sim_below(sim, PRIORITY_MAX + 1);
    if (sim_percent(sim, sim->options.delay_percent)) {
        fields->delay_ms = 1 + sim_below(sim, 2000);
    }
    if (sim_percent(sim, sim->options.tenant_percent)) {
        fields->tenant = bytes_from_text(tenant_names[sim_below(sim, 3)]);
    }
    job->body_size = sim_below(sim, 60);
    if (sim_percent(sim, sim->options.large_body_percent)) {
        job->body_size = 4000 + sim_below(sim, 200);
    }
}

/* Submits a job, of this client or of another. */
static void submit(struct sim *sim, struct peer *peer, struct job *job, bool is_watching)
{
    const uint32_t number = client_number(peer);
    struct wire_submit_template fields = job->fields;
    struct client_submission submission = {
        .id = job->id, .fields = &fields, .tell = CLIENT_TELL_ACCEPTED};
    if (is_watching) {
        fields.flags |= SUBMIT_WATCH;
    }
    if (sim_percent(sim, 20)) {
        submission.tell |= CLIENT_TELL_BUSY;
    }
    memset(sim->body, 0, job->body_size);
    memcpy(sim->body + 1, CANARY_BODY, CANARY_SIZE);
    sim->body[0] = (uint8_t)(job - sim->jobs);
    submission.body = (struct bytes){sim->body, job->body_size};
    memcpy(submission.digest, job->digest, sizeof submission.digest);
    const enum treadle_status status =
        client_session_submit(peer->client, sim->now_ms, &submission);
    sim_tell(sim, "%s submits task %u: %d", peer->name, (unsigned)(job - sim->jobs), (int)status);
    if (status == TREADLE_OK) {
        const bool is_watched = (fields.flags & SUBMIT_WATCH) != 0;
        if (job->wish[number] != WISH_OUTCOME) {
            job->wish[number] = is_watched ? WISH_OUTCOME : WISH_ACCEPTED;
            job->submitted_life[number] = is_watched ? peer->life : 0;
        }
    } else if (status != TREADLE_E_AGAIN && status != TREADLE_E_CONFLICT) {
        sim_violation(sim, "libtreadle does not take a submission: %d", (int)status);
    }
}

static void submit_new(struct sim *sim, struct peer *peer)
{
    const uint32_t count = 1 + sim_below(sim, sim->options.batch);
    for (uint32_t i = 0; i < count && sim->job_count < sim->job_count_max; i++) {
        struct job *job =
            make_job(sim, peer, sim_below(sim, sim->options.services), sim_below(sim, KIND_COUNT));
        draw_job(sim, job);
        submit(sim, peer, job, false);
    }
}

void client_submit_last(struct sim *sim, struct peer *peer)
{
    for (uint32_t service = 0; service < sim->options.services; service++) {
        for (uint32_t kind = 0; kind < KIND_COUNT; kind++) {
            struct job *job = make_job(sim, peer, service, kind);
            job->is_last = true;
            submit(sim, peer, job, true);
        }
    }
    client_run(sim, peer);
}

/* ---- what else it does ---- */

static bool is_accepted(const struct sim *sim, const struct job *job)
{
    const struct oracle_task *task = &sim->oracle.tasks[job - sim->jobs];
    return task->sequence != 0 && task->accepted_record <= sim->oracle.durable_number;
}

static bool is_of_same_owner(const struct sim *sim, const struct peer *peer, const struct job *job)
{
    return strcmp(peer->principal, sim->peers[WORKER_COUNT_MAX + job->owner].principal) == 0;
}

static struct job *random_job(struct sim *sim)
{
    return sim->job_count == 0 ? NULL : &sim->jobs[sim_below(sim, sim->job_count)];
}

static void await(struct peer *peer, struct job *job)
{
    if (client_session_await(peer->client, job->id) == TREADLE_OK) {
        job->wish[client_number(peer)] = WISH_OUTCOME;
    }
}

static void await_some(struct sim *sim, struct peer *peer)
{
    struct job *job = random_job(sim);
    if (job != NULL && is_accepted(sim, job)) {
        await(peer, job);
    }
}

/* The same task again, from anybody. */
static void submit_again(struct sim *sim, struct peer *peer)
{
    struct job *job = random_job(sim);
    /* A broker that forgot whose the id is would give it to who asks first. */
    const bool is_theirs =
        job != NULL && (sim->options.broker_death_gap_ms == 0 || is_of_same_owner(sim, peer, job));
    if (is_theirs && is_accepted(sim, job) && job->wish[client_number(peer)] == WISH_NONE) {
        job->is_orphaned = true; /* this client may not know that the broker has it */
        submit(sim, peer, job, true);
    }
}

static void cancel_some(struct sim *sim, struct peer *peer)
{
    struct job *job = random_job(sim);
    if (job != NULL && !job->is_orphaned &&
        (job->owner == client_number(peer) || is_accepted(sim, job))) {
        sim_tell(sim, "%s cancels task %u", peer->name, (unsigned)(job - sim->jobs));
        (void)client_session_cancel(peer->client, job->id);
    }
}

static void request(struct sim *sim, struct peer *peer, const struct message *query)
{
    uint64_t number = 0;
    if (peer->request_count >= REQUEST_COUNT_MAX) {
        return;
    }
    if (client_session_request(peer->client, query, &number) != TREADLE_OK) {
        sim_violation(sim, "libtreadle does not take a request");
    }
    peer->request_count++;
}

static void ask(struct sim *sim, struct peer *peer)
{
    struct message query = {.kind = MESSAGE_BROKER_QUERY};
    const struct job *job = random_job(sim);
    switch (sim_below(sim, 5)) {
    case 0:
        if (job != NULL) {
            query.kind = MESSAGE_TASK_QUERY;
            query.as.task_query.id = job->id;
        }
        break;
    case 1:
        query.kind = MESSAGE_TASK_LIST;
        query.as.task_list.count_max = sim_below(sim, 30);
        query.as.task_list.state = sim_below(sim, TASK_STATE_COUNT + 1);
        break;
    case 2:
        query.kind = MESSAGE_SERVICE_QUERY;
        break;
    case 3:
        query.kind = MESSAGE_WORKER_QUERY;
        break;
    default:
        break;
    }
    request(sim, peer, &query);
}

static void order(struct sim *sim, struct peer *peer, enum service_action action,
                  const char *service)
{
    struct message query = {.kind = MESSAGE_SERVICE_SET};
    query.as.service_set.name = bytes_from_text(service);
    query.as.service_set.action = action;
    request(sim, peer, &query);
}

static const char *random_service(struct sim *sim)
{
    return service_names[sim_below(sim, sim->options.services)];
}

static void order_breaker(struct sim *sim, struct peer *peer)
{
    static const enum service_action actions[] = {SERVICE_BREAKER_OPEN, SERVICE_BREAKER_CLOSE,
                                                  SERVICE_BREAKER_AUTO, SERVICE_BREAKER_AUTO};
    order(sim, peer, actions[sim_below(sim, 4)], random_service(sim));
}

static void drain_worker(struct sim *sim, struct peer *peer)
{
    struct message query = {.kind = MESSAGE_WORKER_DRAIN};
    query.as.worker_drain.name =
        bytes_from_text(sim->peers[sim_below(sim, sim->options.workers)].name);
    request(sim, peer, &query);
}

/* What it has submitted and heard nothing of, because its process ended or a limit was reached. */
static void take_up(struct sim *sim, struct peer *peer)
{
    const uint32_t number = client_number(peer);
    for (uint32_t i = 0; i < sim->job_count; i++) {
        struct job *job = &sim->jobs[i];
        if (job->owner != number || job->is_concluded || job->wish[number] != WISH_NONE) {
            continue;
        }
        if (is_accepted(sim, job) && sim_percent(sim, 50)) {
            await(peer, job);
        } else {
            job->is_orphaned = true;
            submit(sim, peer, job, true);
        }
    }
}

/* Opens what people have closed, and what would stay closed for long. */
static void restore_services(struct sim *sim, struct peer *peer)
{
    for (uint32_t i = 0; i < sim->broker.core->service_count; i++) {
        const struct oracle_breaker *breaker = &sim->oracle.breakers[i];
        const char *name = sim->broker.core->services[i].name.text;
        if (breaker->is_paused) {
            order(sim, peer, SERVICE_RESUME, name);
        }
        if (breaker->mode != BREAKER_AUTO) {
            order(sim, peer, SERVICE_BREAKER_AUTO, name);
        } else if (breaker->state == BREAKER_OPEN && breaker->cooldown_ms > COOLDOWN_LONG_MS) {
            order(sim, peer, SERVICE_BREAKER_CLOSE, name);
        }
    }
}

static void act_at_random(struct sim *sim, struct peer *peer)
{
    const struct options *options = &sim->options;
    const struct {
        uint32_t weight;
        void (*act)(struct sim *sim, struct peer *peer);
    } acts[] = {{20, submit_new},
                {options->cancel_weight, cancel_some},
                {options->await_weight, await_some},
                {options->again_weight, submit_again},
                {options->query_weight, ask},
                {options->breaker_weight, order_breaker},
                {options->drain_weight, drain_worker}};
    const uint32_t act_count = sizeof acts / sizeof acts[0];
    uint32_t total = options->pause_weight;
    for (uint32_t i = 0; i < act_count; i++) {
        total += acts[i].weight;
    }
    uint32_t drawn = sim_below(sim, total);
    for (uint32_t i = 0; i < act_count; i++) {
        if (drawn < acts[i].weight) {
            acts[i].act(sim, peer);
            return;
        }
        drawn -= acts[i].weight;
    }
    order(sim, peer, sim_percent(sim, 50) ? SERVICE_PAUSE : SERVICE_RESUME, random_service(sim));
}

void client_act(struct sim *sim, struct peer *peer)
{
    if (sim->is_calm || sim_percent(sim, 20)) {
        take_up(sim, peer);
    }
    if (sim->is_calm) {
        restore_services(sim, peer);
    } else {
        act_at_random(sim, peer);
    }
    client_run(sim, peer);
}

/* ---- events ---- */

static void conclude(struct sim *sim, const struct peer *peer, struct job *job)
{
    const uint32_t number = client_number(peer);
    job->wish[number] = WISH_NONE;
    job->submitted_life[number] = 0;
    if (job->owner == number && !job->is_concluded) {
        job->is_concluded = true;
        sim->concluded_count++;
    }
}

/* What the broker does not know has never left its client; unless the broker forgot it, and others
 * may submit it again. */
static bool is_only_here(const struct sim *sim)
{
    return sim->broker.life == 0;
}

static void on_settled(struct sim *sim, const struct peer *peer, struct job *job,
                       const struct client_event *event)
{
    const uint32_t number = (uint32_t)(job - sim->jobs);
    const struct oracle_task *task = &sim->oracle.tasks[number];
    if (job->wish[client_number(peer)] != WISH_OUTCOME) {
        sim_violation(sim, "%s is told the outcome of task %u twice", peer->name, number);
    }
    if (task->sequence == 0) { /* it never left this client */
        if (event->settled.outcome != TASK_CANCELLED) {
            sim_violation(sim, "%s is told that task %u settled, which was not accepted",
                          peer->name, number);
        }
        job->is_cancelled_here = is_only_here(sim);
    } else if (event->settled.outcome != task->outcome || event->settled.kind != task->kind) {
        sim_violation(sim, "%s is told another outcome of task %u than its record", peer->name,
                      number);
    }
    if (job->is_last && event->settled.outcome != TASK_SUCCEEDED) {
        sim_violation(sim, "task %u of the calm ends as %s (%s)", number,
                      task_state_text(event->settled.outcome),
                      failure_kind_text(event->settled.kind));
    }
    conclude(sim, peer, job);
}

static void on_awaited(struct sim *sim, const struct peer *peer, struct job *job,
                       const struct client_event *event)
{
    const uint32_t number = (uint32_t)(job - sim->jobs);
    if (event->status == AWAIT_GONE) {
        if (!sim->oracle.tasks[number].is_dropped) {
            sim_violation(sim, "task %u is told to be gone, and is not", number);
        }
        conclude(sim, peer, job);
    } else if (event->status == AWAIT_UNKNOWN) {
        /* A broker that has died forgot it, whatever became of it since; who has submitted it here
         * submits it again. */
        const bool is_forgotten =
            sim->broker.life > 0 && job->submitted_life[client_number(peer)] != peer->life;
        if (is_of_same_owner(sim, peer, job) && !is_forgotten) {
            sim_violation(sim, "task %u is told to be unknown", number);
        }
        job->wish[client_number(peer)] = WISH_NONE;
    }
}

static void on_accepted(struct sim *sim, struct peer *peer, struct job *job,
                        const struct client_event *event)
{
    enum wish *wish = &job->wish[client_number(peer)];
    const uint32_t number = (uint32_t)(job - sim->jobs);
    switch ((enum accept_status)event->status) {
    case ACCEPT_OK:
    case ACCEPT_EXISTING:
        if (*wish == WISH_ACCEPTED) {
            *wish = WISH_NONE;
            if (sim_percent(sim, 50)) {
                await(peer, job);
            }
        }
        return;
    case ACCEPT_BUSY:
        *wish = WISH_NONE; /* taken up again later */
        job->submitted_life[client_number(peer)] = 0;
        return;
    case ACCEPT_REFUSED:
        if (event->reason != REFUSED_ID_TAKEN || is_of_same_owner(sim, peer, job)) {
            sim_violation(sim, "task %u is refused: %s", number, busy_reason_text(event->reason));
        }
        *wish = WISH_NONE;
        return;
    case ACCEPT_CONFLICT:
    case ACCEPT_FATE_UNKNOWN:
    case ACCEPT_STATUS_COUNT:
        break;
    }
    sim_violation(sim, "the submission of task %u is answered %s", number,
                  accept_status_text(event->status));
}

static void on_cancelled(struct sim *sim, const struct peer *peer, struct job *job)
{
    const struct oracle_task *task = &sim->oracle.tasks[job - sim->jobs];
    if (task->sequence == 0 && job->wish[client_number(peer)] == WISH_ACCEPTED &&
        !client_session_is_followed(peer->client, job->id)) {
        job->is_cancelled_here = is_only_here(sim); /* before the broker took it */
        conclude(sim, peer, job);
    }
}

static void on_event(struct sim *sim, struct peer *peer, const struct client_event *event)
{
    if (event->kind == CLIENT_EVENT_ANSWER) {
        peer->request_count--;
        return;
    }
    if (event->kind == CLIENT_EVENT_WELCOME || event->kind == CLIENT_EVENT_REFUSED) {
        return;
    }
    const uint32_t number = job_of_id(&event->id);
    TREADLE_ASSERT(number < sim->job_count);
    struct job *job = &sim->jobs[number];
    sim_tell(sim, "%s hears of task %u: event %d, status %u", peer->name, number, (int)event->kind,
             (unsigned)event->status);
    if (event->kind == CLIENT_EVENT_SETTLED) {
        on_settled(sim, peer, job, event);
    } else if (event->kind == CLIENT_EVENT_AWAITED) {
        on_awaited(sim, peer, job, event);
    } else if (event->kind == CLIENT_EVENT_ACCEPTED) {
        on_accepted(sim, peer, job, event);
    } else {
        on_cancelled(sim, peer, job);
    }
}

static void set_clock(struct sim *sim, struct peer *peer)
{
    const uint64_t at_ms = client_session_next_at_ms(peer->client);
    if (at_ms < peer->wake_at_ms) {
        peer->wake_at_ms = at_ms > sim->now_ms ? at_ms : sim->now_ms;
        sim_at(sim, peer->wake_at_ms, EVENT_WAKE_PEER, peer->number, peer->life);
    }
}

void client_run(struct sim *sim, struct peer *peer)
{
    struct client_event *event = NULL;
    const struct wire_frames *frames = NULL;
    while ((event = client_session_take_event(peer->client, NULL, NULL)) != NULL) {
        on_event(sim, peer, event);
        client_event_destroy(&event);
    }
    if (client_session_wants_reconnect(peer->client)) {
        network_leave(sim, peer, false);
        client_session_on_disconnected(peer->client, sim->now_ms);
        network_connect_later(sim, peer, sim_below(sim, 100));
    }
    while (peer->connection != NONE &&
           (frames = client_session_take_message(peer->client, sim->now_ms)) != NULL) {
        network_to_broker(sim, peer, frames);
    }
    set_clock(sim, peer);
}

const char *client_unrest(const struct sim *sim, const struct peer *peer)
{
    const uint32_t number = client_number(peer);
    const struct client_session_figures figures = client_session_figures(peer->client);
    if (!client_session_is_welcome(peer->client)) {
        return "a client without a session";
    }
    if (figures.in_flight_count != 0 || figures.event_count != 0) {
        for (uint32_t i = 0; i < sim->job_count && sim->is_verbose; i++) {
            if (client_session_is_followed(peer->client, sim->jobs[i].id)) {
                sim_tell(sim, "%s still follows task %u", peer->name, i);
            }
        }
        return "a client that waits for a task";
    }
    if (peer->request_count != 0) {
        return "a client that waits for an answer";
    }
    for (uint32_t i = 0; i < sim->job_count; i++) {
        if (sim->jobs[i].wish[number] != WISH_NONE ||
            (sim->jobs[i].owner == number && !sim->jobs[i].is_concluded)) {
            sim_tell(sim, "%s does not know of task %u: wish %d, owner %u", peer->name, i,
                     (int)sim->jobs[i].wish[number], sim->jobs[i].owner);
            return "a client that does not know what became of its task";
        }
    }
    return NULL;
}
