/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/sim/oracle.h"

#include <inttypes.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

#define NEVER              UINT64_MAX
#define ATTEMPTS_DEFAULT   4u
#define CRASH_LIMIT        3u
#define LOST_LIMIT         10u
#define RETRY_MIN_MS       100u
#define BACKSTOP_MARGIN_MS 1000u

/* ---- life ---- */

/* The highest place that a lease has. */
static uint32_t last_place(const struct oracle *oracle)
{
    return lease_place(oracle, oracle->last_lease);
}

void oracle_reset(struct oracle *oracle)
{
    struct oracle_lease *leases = oracle->leases;
    const uint32_t capacity = oracle->lease_capacity;
    for (uint32_t i = 0; i < ORACLE_SESSION_COUNT; i++) {
        free(oracle->sessions[i].settled);
    }
    *oracle = (struct oracle){.leases = leases, .lease_capacity = capacity, .session = NONE};
    for (uint32_t i = 0; i < CONNECTION_COUNT; i++) {
        oracle->session_of_connection[i] = NONE;
    }
    for (uint32_t i = 0; i < ORACLE_SERVICE_COUNT; i++) {
        oracle->breakers[i].generation = 1;
    }
}

void oracle_on_broker_restart(struct oracle *oracle, uint32_t life)
{
    TREADLE_ASSERT(life < ORACLE_EPOCH_COUNT);
    struct oracle known = {.last_lease = oracle->last_lease,
                           .previous_step_at_ms = oracle->previous_step_at_ms,
                           .step_at_ms = oracle->step_at_ms,
                           .next_session_serial = oracle->next_session_serial};
    memcpy(known.lease_base, oracle->lease_base, sizeof known.lease_base);
    if (oracle->last_lease != 0) {
        known.lease_base[life] = last_place(oracle);
    }
    oracle_reset(oracle);
    oracle->last_lease = known.last_lease;
    oracle->previous_step_at_ms = known.previous_step_at_ms;
    oracle->step_at_ms = known.step_at_ms;
    oracle->next_session_serial = known.next_session_serial;
    memcpy(oracle->lease_base, known.lease_base, sizeof known.lease_base);
    for (uint32_t i = 0; i <= known.lease_base[life] && i < oracle->lease_capacity; i++) {
        oracle->leases[i].is_live = false;
        oracle->leases[i].is_held = false;
    }
}

void oracle_free(struct oracle *oracle)
{
    oracle_reset(oracle);
    free(oracle->leases);
    *oracle = (struct oracle){0};
}

/* ---- finding ---- */

/* The lease of this number if it was ever given; NULL. */
static struct oracle_lease *find_lease(struct oracle *oracle, uint64_t number)
{
    const uint32_t place = lease_place(oracle, number);
    if (place >= oracle->lease_capacity || number > oracle->last_lease) {
        return NULL;
    }
    struct oracle_lease *lease = &oracle->leases[place];
    return lease->lease == number ? lease : NULL;
}

/* The live lease of a task that has one. */
static struct oracle_lease *live_lease(struct oracle *oracle, const struct oracle_task *task)
{
    struct oracle_lease *lease = find_lease(oracle, task->lease);
    TREADLE_ASSERT(lease != NULL);
    return lease;
}

static struct oracle_lease *add_lease(struct oracle *oracle, uint64_t number)
{
    const uint32_t place = lease_place(oracle, number);
    if (place >= oracle->lease_capacity) {
        const uint32_t capacity = place < 4096 ? 8192 : 2 * place;
        oracle->leases = realloc(oracle->leases, capacity * sizeof *oracle->leases);
        TREADLE_ASSERT(oracle->leases != NULL);
        memset(&oracle->leases[oracle->lease_capacity], 0,
               (capacity - oracle->lease_capacity) * sizeof *oracle->leases);
        oracle->lease_capacity = capacity;
    }
    return &oracle->leases[place];
}

static uint32_t job_number(struct sim *sim, const struct treadle_task_id *id)
{
    const uint32_t number = job_of_id(id);
    if (number >= sim->job_count ||
        memcmp(id->bytes, sim->jobs[number].id.bytes, sizeof id->bytes) != 0) {
        sim_violation(sim, "an id that nobody has made");
    }
    return number;
}

static struct oracle_session *session_of(struct oracle *oracle, uint32_t connection)
{
    const uint32_t number = oracle->session_of_connection[connection];
    return number == NONE ? NULL : &oracle->sessions[number];
}

static bool is_held_by(const struct oracle *oracle, const struct oracle_lease *lease,
                       uint32_t session)
{
    return session != NONE && lease->session == session &&
           lease->session_serial == oracle->sessions[session].serial;
}

/* ---- breakers ---- */

static uint32_t probes_allowed(const struct oracle_breaker *breaker)
{
    if (breaker->probe_successes == 0) {
        return 1;
    }
    return breaker->probe_successes < 3 ? 2 : 4;
}

static void clear_window(struct oracle_breaker *breaker)
{
    memset(breaker->parts, 0, sizeof breaker->parts);
    breaker->failures_run = 0;
}

static struct oracle_part *part_at(struct oracle_breaker *breaker, uint64_t now_ms)
{
    struct oracle_part *part = &breaker->parts[now_ms / 3000 % 10];
    if (part->number != now_ms / 3000) {
        *part = (struct oracle_part){.number = now_ms / 3000};
    }
    return part;
}

static bool window_says_open(const struct oracle_breaker *breaker, uint64_t now_ms)
{
    uint32_t results = 0;
    uint32_t failures = 0;
    for (int i = 0; i < 10; i++) {
        if (breaker->parts[i].number + 10 > now_ms / 3000) {
            results += breaker->parts[i].successes + breaker->parts[i].failures;
            failures += breaker->parts[i].failures;
        }
    }
    return (results < 20 && breaker->failures_run >= 5) ||
           (results >= 10 && 2 * failures >= results);
}

enum verdict { VERDICT_NONE, VERDICT_SUCCESS, VERDICT_FAILURE };

static enum verdict verdict_of(enum failure_kind kind)
{
    if (kind == FAILURE_NONE || kind == FAILURE_PERMANENT) {
        return VERDICT_SUCCESS;
    }
    const bool is_failure =
        kind == FAILURE_TRANSIENT || kind == FAILURE_TIMEOUT || kind == FAILURE_CRASH;
    return is_failure ? VERDICT_FAILURE : VERDICT_NONE;
}

static void judge_closed(struct sim *sim, struct oracle_breaker *breaker, enum verdict verdict)
{
    struct oracle_part *part = part_at(breaker, sim->now_ms);
    if (verdict == VERDICT_SUCCESS) {
        part->successes++;
        breaker->failures_run = 0;
        return;
    }
    part->failures++;
    breaker->failures_run++;
    breaker->must_open = breaker->mode == BREAKER_AUTO && window_says_open(breaker, sim->now_ms);
}

/* The end of a lease as the broker has recorded it. */
static void judge(struct sim *sim, const struct oracle_lease *lease, enum failure_kind kind)
{
    struct oracle_breaker *breaker = &sim->oracle.breakers[lease->service];
    const enum verdict verdict = verdict_of(kind);
    if (lease->generation != breaker->generation || verdict == VERDICT_NONE) {
        return;
    }
    if (breaker->state == BREAKER_CLOSED) {
        judge_closed(sim, breaker, verdict);
    } else if (breaker->state == BREAKER_HALF_OPEN && lease->is_probe) {
        if (verdict == VERDICT_FAILURE) {
            breaker->must_open = true;
        } else {
            breaker->probe_successes++;
            breaker->must_close = breaker->probe_successes >= 5;
        }
    }
}

static void on_breaker_opened(struct sim *sim, struct oracle_breaker *breaker)
{
    if (!breaker->must_open && !breaker->is_ordered) {
        sim_violation(sim, "a breaker opens without a reason");
    }
    if (breaker->state == BREAKER_OPEN) {
        return; /* open already: a person holds it so */
    }
    const bool was_half_open = breaker->state == BREAKER_HALF_OPEN;
    breaker->cooldown_ms = was_half_open && breaker->must_open ? 2 * breaker->cooldown_ms : 10000;
    if (breaker->cooldown_ms > 300000) {
        breaker->cooldown_ms = 300000;
    }
    breaker->state = BREAKER_OPEN;
    breaker->generation++;
    breaker->opened_at_ms = sim->now_ms;
    breaker->must_open = false;
    breaker->probes_in_flight = 0;
    clear_window(breaker);
}

static void on_breaker_probing(struct sim *sim, struct oracle_breaker *breaker)
{
    if (breaker->state != BREAKER_OPEN ||
        (!breaker->is_ordered && sim->now_ms < breaker->opened_at_ms + breaker->cooldown_ms)) {
        sim_violation(sim, "a breaker is half-open before its cooldown is over");
    }
    breaker->state = BREAKER_HALF_OPEN;
    breaker->probes_in_flight = 0;
    breaker->probe_successes = 0;
}

/* A success in the RESULT of this step, of a probe: told before it is recorded. */
static bool has_probe_success(struct sim *sim, uint32_t service)
{
    struct oracle *oracle = &sim->oracle;
    if (!oracle->is_in_turn || oracle->input->message->kind != MESSAGE_RESULT) {
        return false;
    }
    struct wire_list list = oracle->input->message->as.result.successes;
    struct wire_success_entry entry;
    while (wire_success_entry_next(&list, &entry)) {
        const struct oracle_lease *lease = find_lease(oracle, entry.lease);
        if (lease != NULL && lease->is_probe && lease->is_live && lease->service == service &&
            lease->generation == oracle->breakers[service].generation) {
            return true;
        }
    }
    return false;
}

static void on_breaker_closed(struct sim *sim, struct oracle_breaker *breaker, uint32_t service)
{
    const bool is_earned = breaker->state == BREAKER_HALF_OPEN &&
                           (breaker->probe_successes >= 5 ||
                            (breaker->probe_successes == 4 && has_probe_success(sim, service)));
    if (!is_earned && !breaker->is_ordered) {
        sim_violation(sim, "a breaker closes after %u successes of probes",
                      breaker->probe_successes);
    }
    breaker->state = BREAKER_CLOSED;
    breaker->generation++;
    breaker->must_close = false;
    breaker->cooldown_ms = 0;
    clear_window(breaker);
}

/* ---- slots ---- */

/* The worker no longer has it. */
static void release_slot(struct sim *sim, struct oracle_lease *lease)
{
    struct oracle *oracle = &sim->oracle;
    if (!lease->is_held) {
        return;
    }
    lease->is_held = false;
    if (is_held_by(oracle, lease, lease->session)) {
        oracle->sessions[lease->session].held_count--;
    }
    struct oracle_breaker *breaker = &oracle->breakers[lease->service];
    if (lease->is_probe && lease->generation == breaker->generation &&
        breaker->state == BREAKER_HALF_OPEN) {
        breaker->probes_in_flight--;
    }
}

/* Leases past their backstop may have been given up without a word. */
static void release_overdue(struct sim *sim)
{
    struct oracle *oracle = &sim->oracle;
    for (uint32_t i = 1; oracle->last_lease != 0 && i <= last_place(oracle); i++) {
        struct oracle_lease *lease = &oracle->leases[i];
        if (lease->is_held && sim->now_ms >= lease->backstop_at_ms) {
            release_slot(sim, lease);
        }
    }
}

/* ---- before a step ---- */

static void end_live(struct sim *sim, struct oracle_lease *lease)
{
    lease->is_live = false;
    struct oracle_task *task = &sim->oracle.tasks[lease->task];
    if (task->lease == lease->lease) {
        task->lease = 0;
    }
}

static void before_result(struct sim *sim, const struct wire_result *result)
{
    struct oracle *oracle = &sim->oracle;
    struct wire_list list = result->successes;
    struct wire_success_entry success;
    while (wire_success_entry_next(&list, &success)) {
        struct oracle_lease *lease = find_lease(oracle, success.lease);
        if (lease != NULL && is_held_by(oracle, lease, oracle->session)) {
            release_slot(sim, lease);
        }
    }
    list = result->failures;
    struct wire_failure_entry failure;
    while (wire_failure_entry_next(&list, &failure)) {
        struct oracle_lease *lease = find_lease(oracle, failure.lease);
        if (lease != NULL && is_held_by(oracle, lease, oracle->session)) {
            release_slot(sim, lease);
        }
    }
}

static void before_returned(struct sim *sim, const struct wire_returned *returned)
{
    struct oracle *oracle = &sim->oracle;
    struct wire_list list = returned->entries;
    struct wire_lease_entry entry;
    while (wire_lease_entry_next(&list, &entry)) {
        struct oracle_lease *lease = find_lease(oracle, entry.lease);
        if (lease != NULL && is_held_by(oracle, lease, oracle->session)) {
            lease->is_doubtful = true;
            release_slot(sim, lease);
        }
    }
}

static void before_service_set(struct sim *sim, const struct wire_service_set *set)
{
    struct core *core = sim->broker.core;
    for (uint32_t i = 0; i < core->service_count; i++) {
        const struct name *name = &core->services[i].name;
        if (!bytes_is_equal((struct bytes){(const uint8_t *)name->text, name->size}, set->name)) {
            continue;
        }
        struct oracle_breaker *breaker = &sim->oracle.breakers[i];
        const uint8_t mode = breaker->mode;
        if (set->action == SERVICE_PAUSE || set->action == SERVICE_RESUME) {
            breaker->is_paused = set->action == SERVICE_PAUSE;
            return;
        }
        breaker->mode = set->action == SERVICE_BREAKER_OPEN    ? BREAKER_FORCED_OPEN
                        : set->action == SERVICE_BREAKER_CLOSE ? BREAKER_FORCED_CLOSED
                                                               : BREAKER_AUTO;
        breaker->is_ordered = true;
        if (breaker->state == BREAKER_CLOSED &&
            (breaker->mode == BREAKER_FORCED_CLOSED ||
             (breaker->mode == BREAKER_AUTO && mode != BREAKER_AUTO))) {
            clear_window(breaker);
        }
    }
}

static void before_acknowledged(struct sim *sim, struct oracle_session *session, uint64_t upto)
{
    if (upto > session->top_settled) {
        sim_violation(sim, "a client acknowledges SETTLED %" PRIu64 ", only %" PRIu64 " were sent",
                      upto, session->top_settled);
    }
    for (; session->acknowledged < upto; session->acknowledged++) {
        const uint32_t job = session->settled[session->acknowledged + 1];
        if (job != NONE) {
            sim->oracle.tasks[job].is_acknowledged = true;
        }
    }
}

static void before_message(struct sim *sim, const struct message *message)
{
    struct oracle *oracle = &sim->oracle;
    struct oracle_session *session = session_of(oracle, oracle->input->connection);
    if (message->kind == MESSAGE_HELLO || session == NULL ||
        message->number != session->expected_number) {
        return;
    }
    session->expected_number++;
    session->is_confirmed = true;
    oracle->is_in_turn = true;
    oracle->session = (uint32_t)(session - oracle->sessions);
    if (session->role == ROLE_CLIENT) {
        before_acknowledged(sim, session, message->upto);
    } else {
        session->granted = message->upto;
    }
    if (message->kind == MESSAGE_RESULT) {
        before_result(sim, &message->as.result);
    } else if (message->kind == MESSAGE_RETURNED) {
        before_returned(sim, &message->as.returned);
    } else if (message->kind == MESSAGE_SERVICE_SET) {
        before_service_set(sim, &message->as.service_set);
    }
}

void oracle_before_step(struct sim *sim, const struct input *input)
{
    struct oracle *oracle = &sim->oracle;
    if (oracle->step_at_ms != sim->now_ms) {
        oracle->previous_step_at_ms = oracle->step_at_ms;
        oracle->step_at_ms = sim->now_ms;
    }
    oracle->input = input;
    oracle->is_in_turn = false;
    oracle->session = NONE;
    if (input->kind == INPUT_MESSAGE) {
        before_message(sim, input->message);
    } else if (input->kind == INPUT_DISCONNECTED) {
        struct oracle_session *session = session_of(oracle, input->connection);
        if (session != NULL) {
            session->connection = NONE;
            oracle->session_of_connection[input->connection] = NONE;
        }
    } else if (input->kind == INPUT_DURABLE) {
        oracle->durable_number = input->durable_number;
    }
}

/* ---- records ---- */

/* The core may have given the task's place to another one by now: only its sequence names it. */
static struct oracle_task *task_of_record(struct sim *sim, const struct effect *effect)
{
    struct oracle *oracle = &sim->oracle;
    if (effect->sequence >= ORACLE_TASK_COUNT) {
        sim_violation(sim, "more tasks accepted than were submitted");
    }
    if (effect->code == RECORD_ACCEPTED) {
        const struct task *task = &sim->broker.core->tasks[effect->task];
        oracle->job_of_sequence[effect->sequence] = job_number(sim, &task->id);
    }
    struct oracle_task *known = &oracle->tasks[oracle->job_of_sequence[effect->sequence]];
    if (effect->code != RECORD_ACCEPTED && known->sequence != effect->sequence) {
        sim_violation(sim, "a record of a task that was not accepted");
    }
    return known;
}

static void on_accepted(struct sim *sim, const struct effect *effect, struct oracle_task *task)
{
    const struct core *core = sim->broker.core;
    const struct wire_submit_template *fields = effect->template;
    const uint32_t job = (uint32_t)(task - sim->oracle.tasks);
    if (task->sequence != 0) {
        sim_violation(sim, "task %u is accepted a second time", job);
    }
    if (sim->jobs[job].is_cancelled_here) {
        sim_violation(sim, "task %u was cancelled before it was sent, and is accepted", job);
    }
    if (effect->body.size != sim->jobs[job].body_size ||
        (effect->body.size > 0 && effect->body.data[0] != (uint8_t)job)) {
        sim_violation(sim, "task %u is accepted with another body", job);
    }
    const struct wire_policy *policy = &fields->policy;
    *task = (struct oracle_task){
        .sequence = effect->sequence,
        .accepted_record = effect->number,
        .accepted_at_ms = sim->now_ms,
        .deadline_at_ms = policy->deadline_ms > 0 ? sim->now_ms + policy->deadline_ms : NEVER,
        .queue_timeout_at_ms =
            policy->queue_timeout_ms > 0 ? sim->now_ms + policy->queue_timeout_ms : NEVER,
        .not_before_ms = sim->now_ms + fields->delay_ms,
        .service = core->queues[core->tasks[effect->task].queue].service,
        .attempts_max =
            policy->attempts_max > 0 ? (uint32_t)policy->attempts_max : ATTEMPTS_DEFAULT,
        .is_keep = (fields->flags & SUBMIT_KEEP) != 0,
    };
}

static void check_gate(struct sim *sim, struct oracle_task *task, struct oracle_lease *lease)
{
    struct oracle_breaker *breaker = &sim->oracle.breakers[task->service];
    if (breaker->is_paused) {
        sim_violation(sim, "a paused service hands out");
    }
    if (breaker->state == BREAKER_OPEN) {
        sim_violation(sim, "an open breaker hands out");
    }
    lease->generation = breaker->generation;
    if (breaker->state != BREAKER_HALF_OPEN) {
        return;
    }
    if (breaker->probes_in_flight >= probes_allowed(breaker)) {
        release_overdue(sim);
    }
    if (breaker->probes_in_flight >= probes_allowed(breaker)) {
        sim_violation(sim,
                      "a half-open breaker hands out a probe beside %u in flight, after %u "
                      "successes",
                      breaker->probes_in_flight, breaker->probe_successes);
    }
    lease->is_probe = true;
    breaker->probes_in_flight++;
}

static void check_dispatchable(struct sim *sim, const struct oracle_task *task, uint64_t lease)
{
    struct oracle *oracle = &sim->oracle;
    const uint32_t job = (uint32_t)(task - oracle->tasks);
    const struct oracle_lease *present = task->lease != 0 ? find_lease(oracle, task->lease) : NULL;
    if (task->settled_record != 0) {
        sim_violation(sim, "task %u is handed out after it has settled", job);
    }
    if (present != NULL && !present->is_doubtful) {
        sim_violation(sim, "task %u has two live leases, %u and %u", job,
                      lease_place(&sim->oracle, present->lease), lease_place(&sim->oracle, lease));
    }
    if (lease <= oracle->last_lease) {
        sim_violation(sim, "lease %u does not grow", lease_place(&sim->oracle, lease));
    }
    if (task->spent >= task->attempts_max) {
        sim_violation(sim, "task %u is handed out after %u of %u attempts", job, task->spent,
                      task->attempts_max);
    }
    if (sim->now_ms < task->not_before_ms) {
        sim_violation(sim, "task %u is handed out %" PRIu64 " ms before its time", job,
                      task->not_before_ms - sim->now_ms);
    }
}

static void on_dispatched(struct sim *sim, const struct effect *effect, struct oracle_task *task)
{
    struct oracle *oracle = &sim->oracle;
    const struct core *core = sim->broker.core;
    const uint32_t job = (uint32_t)(task - oracle->tasks);
    check_dispatchable(sim, task, effect->value);
    if (task->lease != 0) { /* a doubtful one ends here */
        struct oracle_lease *present = live_lease(oracle, task);
        end_live(sim, present);
        release_slot(sim, present);
    }
    const struct attempt *attempt = &core->attempts[effect->attempt];
    struct oracle_session *session = &oracle->sessions[attempt->session];
    struct oracle_lease *lease = add_lease(oracle, effect->value);
    *lease = (struct oracle_lease){
        .lease = effect->value,
        .task = job,
        .session = attempt->session,
        .session_serial = session->serial,
        .service = task->service,
        .is_live = true,
        .is_held = true,
        .backstop_at_ms =
            sim->now_ms + attempt->timeout_ms + attempt->grace_ms + BACKSTOP_MARGIN_MS,
    };
    oracle->last_lease = effect->value;
    check_gate(sim, task, lease);
    task->lease = effect->value;
    task->dispatches++;
    session->dispatched++;
    session->held_count++;
    if (!session->is_live || session->role != ROLE_WORKER || session->connection == NONE) {
        sim_violation(sim, "task %u is handed to a session that is not there", job);
    }
    if (session->dispatched > session->granted) {
        sim_violation(sim, "worker session %u got %" PRIu64 " dispatches, and granted %" PRIu64,
                      attempt->session, session->dispatched, session->granted);
    }
}

static bool names_failure(struct sim *sim, uint64_t lease)
{
    const struct oracle *oracle = &sim->oracle;
    if (!oracle->is_in_turn || oracle->input->message->kind != MESSAGE_RESULT) {
        return false;
    }
    struct wire_list list = oracle->input->message->as.result.failures;
    struct wire_failure_entry entry;
    while (wire_failure_entry_next(&list, &entry)) {
        if (entry.lease == lease) {
            return true;
        }
    }
    return false;
}

static bool is_retried_by_policy(enum failure_kind kind)
{
    return kind == FAILURE_TRANSIENT || kind == FAILURE_TIMEOUT || kind == FAILURE_CRASH;
}

/* The lease that a record ends: it is live, and what ends it is this session's own word. */
static struct oracle_lease *lease_that_ends(struct sim *sim, const struct effect *effect,
                                            const struct oracle_task *task)
{
    struct oracle *oracle = &sim->oracle;
    const uint32_t job = (uint32_t)(task - oracle->tasks);
    struct oracle_lease *lease = task->lease != 0 ? find_lease(oracle, task->lease) : NULL;
    if (task->settled_record != 0 || lease == NULL) {
        sim_violation(sim, "an attempt of task %u fails, and it has no lease", job);
    }
    if (sim->broker.core->attempts[effect->attempt].lease != lease->lease) {
        sim_violation(sim, "a failure of lease %u names another attempt",
                      lease_place(&sim->oracle, lease->lease));
    }
    if (effect->failure != NULL &&
        (effect->failure->lease != lease->lease || !names_failure(sim, lease->lease) ||
         !is_held_by(oracle, lease, oracle->session))) {
        sim_violation(sim, "a late failure changes task %u (lease %u, its own is %u)", job,
                      lease_place(&sim->oracle, effect->failure->lease),
                      lease_place(&sim->oracle, lease->lease));
    }
    if (effect->failure == NULL && effect->reason == FAILURE_LOST &&
        is_held_by(oracle, lease, lease->session) && oracle->sessions[lease->session].is_live) {
        sim_violation(sim, "lease %u is lost, and its session lives",
                      lease_place(&sim->oracle, lease->lease));
    }
    if (effect->failure == NULL && effect->reason == FAILURE_TIMEOUT &&
        sim->now_ms < lease->backstop_at_ms) {
        sim_violation(sim, "lease %u meets its backstop too early",
                      lease_place(&sim->oracle, lease->lease));
    }
    return lease;
}

static void on_attempt_failed(struct sim *sim, const struct effect *effect,
                              struct oracle_task *task)
{
    struct oracle_lease *lease = lease_that_ends(sim, effect, task);
    const enum failure_kind kind = (enum failure_kind)effect->reason;
    lease->ended_record = effect->number;
    end_live(sim, lease);
    release_slot(sim, lease);
    judge(sim, lease, kind);
    task->last_kind = effect->reason;
    task->not_before_ms = sim->now_ms;
    task->queue_timeout_at_ms = NEVER;
    task->spent += kind == FAILURE_PREPARE || kind == FAILURE_PERMANENT ||
                           kind == FAILURE_FINALIZE || is_retried_by_policy(kind)
                       ? 1
                       : 0;
    task->crashes += kind == FAILURE_CRASH ? 1 : 0;
    task->losses += kind == FAILURE_LOST ? 1 : 0;
    const enum retry_choice choice = effect->failure != NULL
                                         ? (enum retry_choice)effect->failure->retry_choice
                                         : RETRY_BY_POLICY;
    task->is_stopped = choice == RETRY_STOP;
    if (is_retried_by_policy(kind)) {
        const uint64_t delay_ms =
            choice == RETRY_AFTER ? effect->failure->retry_delay_ms : RETRY_MIN_MS;
        task->not_before_ms = sim->now_ms + delay_ms;
    }
}

static bool names_success(struct sim *sim, uint64_t lease, struct bytes body)
{
    const struct oracle *oracle = &sim->oracle;
    if (!oracle->is_in_turn || oracle->input->message->kind != MESSAGE_RESULT) {
        return false;
    }
    struct wire_list list = oracle->input->message->as.result.successes;
    struct wire_success_entry entry;
    while (wire_success_entry_next(&list, &entry)) {
        if (entry.lease == lease && bytes_is_equal(entry.body, body)) {
            return true;
        }
    }
    return false;
}

static void on_succeeded(struct sim *sim, const struct effect *effect, struct oracle_task *task)
{
    struct oracle *oracle = &sim->oracle;
    const uint32_t job = (uint32_t)(task - oracle->tasks);
    struct oracle_lease *lease = task->lease != 0 ? find_lease(oracle, task->lease) : NULL;
    if (lease == NULL || !names_success(sim, lease->lease, effect->body) ||
        !is_held_by(oracle, lease, oracle->session)) {
        sim_violation(sim, "a late result settles task %u", job);
    }
    task->winner = lease->lease;
    lease->ended_record = effect->number;
    end_live(sim, lease);
    judge(sim, lease, FAILURE_NONE);
}

/* Whether a task may settle as failed now. */
static bool may_fail(const struct oracle_task *task, enum failure_kind kind)
{
    if (kind != task->last_kind) {
        return false;
    }
    if (kind == FAILURE_LOST) {
        return task->losses >= LOST_LIMIT;
    }
    if (!is_retried_by_policy(kind)) {
        return true;
    }
    return task->spent >= task->attempts_max || task->is_stopped ||
           (kind == FAILURE_CRASH && task->crashes >= CRASH_LIMIT) ||
           task->deadline_at_ms != NEVER; /* the retry would have begun after it */
}

static void check_outcome(struct sim *sim, const struct effect *effect,
                          const struct oracle_task *task)
{
    const uint32_t job = (uint32_t)(task - sim->oracle.tasks);
    const bool is_overdue = sim->now_ms >= task->deadline_at_ms;
    switch ((enum task_state)effect->status) {
    case TASK_SUCCEEDED:
        return; /* judged already */
    case TASK_FAILED:
        if (!may_fail(task, (enum failure_kind)effect->reason)) {
            sim_violation(sim,
                          "task %u fails (%s, last %s) after %u of %u attempts, %u crashes, %u "
                          "losses",
                          job, failure_kind_text(effect->reason),
                          failure_kind_text(task->last_kind), task->spent, task->attempts_max,
                          task->crashes, task->losses);
        }
        return;
    case TASK_CANCELLED: {
        const bool is_asked =
            task->intent_record != 0 || task->last_kind == FAILURE_CANCELLED ||
            (sim->oracle.is_in_turn && sim->oracle.input->message->kind == MESSAGE_CANCEL);
        if (!is_asked) {
            sim_violation(sim, "task %u is cancelled, and nobody asked for it", job);
        }
        return;
    }
    case TASK_EXPIRED:
        if (!is_overdue && sim->now_ms < task->queue_timeout_at_ms) {
            sim_violation(sim, "task %u expires before its time", job);
        }
        return;
    case TASK_SCHEDULED:
    case TASK_BLOCKED:
    case TASK_READY:
    case TASK_RUNNING:
    case TASK_STATE_COUNT:
        break;
    }
    sim_violation(sim, "task %u settles as what is no outcome", job);
}

static void on_settled(struct sim *sim, const struct effect *effect, struct oracle_task *task)
{
    struct oracle *oracle = &sim->oracle;
    const uint32_t job = (uint32_t)(task - oracle->tasks);
    if (task->settled_record != 0) {
        sim_violation(sim, "task %u settles twice", job);
    }
    if (effect->status == TASK_SUCCEEDED) {
        on_succeeded(sim, effect, task);
    }
    check_outcome(sim, effect, task);
    if (task->deadline_at_ms < oracle->previous_step_at_ms) {
        sim_violation(sim, "task %u settles %" PRIu64 " ms after its deadline", job,
                      sim->now_ms - task->deadline_at_ms);
    }
    task->settled_record = effect->number;
    task->outcome = effect->status;
    task->kind = effect->reason;
    if (task->lease != 0) {
        end_live(sim, live_lease(oracle, task)); /* a zombie: it keeps its slot */
    }
}

static void on_record(struct sim *sim, const struct effect *effect)
{
    struct oracle *oracle = &sim->oracle;
    struct oracle_task *task = task_of_record(sim, effect);
    const uint32_t job = (uint32_t)(task - oracle->tasks);
    if (effect->number != oracle->last_record + 1) {
        sim_violation(sim, "the numbers of records have a gap");
    }
    oracle->last_record = effect->number;
    switch ((enum record_kind)effect->code) {
    case RECORD_ACCEPTED:
        on_accepted(sim, effect, task);
        return;
    case RECORD_DISPATCHED:
        on_dispatched(sim, effect, task);
        return;
    case RECORD_ATTEMPT_FAILED:
        on_attempt_failed(sim, effect, task);
        return;
    case RECORD_CANCEL_INTENT:
        task->intent_record = effect->number;
        return;
    case RECORD_SETTLED:
        on_settled(sim, effect, task);
        return;
    case RECORD_RESULT_DROPPED:
        if (!task->is_acknowledged || task->is_keep) {
            sim_violation(sim, "the result of task %u is dropped before it was taken", job);
        }
        task->is_result_dropped = true;
        return;
    case RECORD_DROPPED:
        if (task->settled_record == 0) {
            sim_violation(sim, "task %u is dropped before it has settled", job);
        }
        task->is_dropped = true;
        return;
    case RECORD_META:
    case RECORD_KIND_COUNT:
        return;
    }
}

/* ---- sessions ---- */

/* The leases of a session that a HELLO does not name have never arrived, or were handed back. */
static void note_held(struct sim *sim, uint32_t number, const struct wire_hello *hello)
{
    struct oracle *oracle = &sim->oracle;
    if (oracle->last_lease == 0) {
        return;
    }
    for (uint32_t i = 1; i <= last_place(oracle); i++) {
        struct oracle_lease *lease = &oracle->leases[i];
        if ((!lease->is_held && !lease->is_live) || !is_held_by(oracle, lease, number)) {
            continue;
        }
        bool is_named = false;
        struct wire_list list = hello->leases;
        struct wire_held_lease entry;
        while (!is_named && wire_held_lease_next(&list, &entry)) {
            is_named = entry.lease == lease->lease;
        }
        if (!is_named) {
            lease->is_doubtful = true;
            release_slot(sim, lease);
        }
    }
}

static void on_welcome(struct sim *sim, const struct effect *effect)
{
    struct oracle *oracle = &sim->oracle;
    const struct wire_hello *hello = &oracle->input->message->as.hello;
    struct oracle_session *session = &oracle->sessions[effect->session];
    if (oracle->input->message->kind != MESSAGE_HELLO) {
        sim_violation(sim, "a WELCOME without a HELLO");
    }
    const bool is_resumed = effect->status != 0;
    const bool is_same =
        session->is_live && memcmp(session->incarnation, hello->incarnation.data, 16) == 0;
    if (session->is_live != is_same || is_resumed != (is_same && session->is_confirmed)) {
        sim_violation(sim, "session %u is welcomed as %s", effect->session,
                      is_resumed ? "resumed" : "new");
    }
    if (!is_same) {
        uint32_t *settled = session->settled;
        const uint32_t capacity = session->settled_capacity;
        oracle->next_session_serial++;
        *session = (struct oracle_session){.is_live = true,
                                           .role = (uint8_t)hello->role,
                                           .connection = NONE,
                                           .serial = oracle->next_session_serial,
                                           .settled = settled,
                                           .settled_capacity = capacity};
        memcpy(session->incarnation, hello->incarnation.data, 16);
    }
    if (session->connection != NONE) {
        oracle->session_of_connection[session->connection] = NONE;
    }
    session->connection = effect->connection;
    oracle->session_of_connection[effect->connection] = effect->session;
    session->expected_number = oracle->input->message->number + 1;
    session->granted = session->dispatched;
    if (effect->number != session->dispatched) {
        sim_violation(sim, "WELCOME says %" PRIu64 " dispatches, there were %" PRIu64,
                      effect->number, session->dispatched);
    }
    if (session->role == ROLE_CLIENT) {
        if (is_resumed) {
            before_acknowledged(sim, session, oracle->input->message->upto);
        }
    } else {
        note_held(sim, effect->session, hello);
    }
}

static void on_session_end(struct sim *sim, uint32_t number)
{
    struct oracle *oracle = &sim->oracle;
    struct oracle_session *session = &oracle->sessions[number];
    if (session->connection != NONE) {
        oracle->session_of_connection[session->connection] = NONE;
    }
    session->connection = NONE;
    session->is_live = false;
    for (uint32_t i = 1; oracle->last_lease != 0 && i <= last_place(oracle); i++) {
        struct oracle_lease *lease = &oracle->leases[i];
        if (lease->is_held && is_held_by(oracle, lease, number)) {
            release_slot(sim, lease);
        }
    }
}

static void on_breaker_log(struct sim *sim, const struct effect *effect)
{
    TREADLE_ASSERT(effect->service < ORACLE_SERVICE_COUNT);
    struct oracle_breaker *breaker = &sim->oracle.breakers[effect->service];
    if (effect->code == LOG_BREAKER_OPENED) {
        on_breaker_opened(sim, breaker);
    } else if (effect->code == LOG_BREAKER_PROBING) {
        on_breaker_probing(sim, breaker);
    } else {
        on_breaker_closed(sim, breaker, effect->service);
    }
}

static void on_log(struct sim *sim, const struct effect *effect)
{
    switch ((unsigned)effect->code) { /* the others say what records say too */
    case LOG_SESSION_LOST:
    case LOG_SESSION_ENDED:
        on_session_end(sim, effect->session);
        return;
    case LOG_BREAKER_OPENED:
    case LOG_BREAKER_PROBING:
    case LOG_BREAKER_CLOSED:
        on_breaker_log(sim, effect);
        return;
    default:
        return;
    }
}

void oracle_on_effect(struct sim *sim, const struct effect *effect)
{
    if (effect->kind == EFFECT_PERSIST) {
        on_record(sim, effect);
    } else if (effect->kind == EFFECT_LOG) {
        on_log(sim, effect);
    } else if (effect->kind == EFFECT_SEND && effect->code == MESSAGE_WELCOME) {
        on_welcome(sim, effect);
    }
}

/* ---- after a step ---- */

/* A worker session with more leases than the broker counts slots in use; NONE. */
static uint32_t find_uncounted(const struct sim *sim)
{
    const struct core *core = sim->broker.core;
    for (uint32_t i = 0; i < ORACLE_SESSION_COUNT; i++) {
        const struct oracle_session *session = &sim->oracle.sessions[i];
        if (session->is_live && session->role == ROLE_WORKER &&
            core->sessions[i].in_use < session->held_count) {
            return i;
        }
    }
    return NONE;
}

static void check_slots(struct sim *sim)
{
    if (find_uncounted(sim) == NONE) {
        return;
    }
    release_overdue(sim);
    const uint32_t number = find_uncounted(sim);
    if (number != NONE) {
        sim_violation(sim, "worker session %u holds %u leases, the broker counts %u slots", number,
                      sim->oracle.sessions[number].held_count,
                      sim->broker.core->sessions[number].in_use);
    }
}

void oracle_after_step(struct sim *sim)
{
    struct oracle *oracle = &sim->oracle;
    for (uint32_t i = 0; i < ORACLE_SERVICE_COUNT; i++) {
        struct oracle_breaker *breaker = &oracle->breakers[i];
        breaker->is_ordered = false;
        if (breaker->must_open) {
            sim_violation(sim, "the breaker of service %u has to open, and does not", i);
        }
        if (breaker->must_close) {
            sim_violation(sim, "the breaker of service %u has to close, and does not", i);
        }
    }
    check_slots(sim);
    oracle->input = NULL;
}

/* ---- what is sent ---- */

static void need_durable(struct sim *sim, uint64_t record, const char *what, uint32_t job)
{
    if (record == 0 || record > sim->oracle.durable_number) {
        sim_violation(sim,
                      "%s is told of task %u before record %" PRIu64
                      " is durable (durable: %" PRIu64 ")",
                      what, job, record, sim->oracle.durable_number);
    }
}

static void sent_accepted(struct sim *sim, struct wire_list list)
{
    struct wire_accepted_entry entry;
    while (wire_accepted_entry_next(&list, &entry)) {
        const uint32_t job = job_number(sim, &entry.id);
        if (entry.status == ACCEPT_OK || entry.status == ACCEPT_EXISTING) {
            need_durable(sim, sim->oracle.tasks[job].accepted_record, "ACCEPTED", job);
        }
        if (entry.status == ACCEPT_FATE_UNKNOWN) {
            sim_violation(sim, "the fate of task %u is unknown", job);
        }
    }
}

static void sent_settled_entry(struct sim *sim, const struct wire_settled_entry *entry)
{
    const uint32_t job = job_number(sim, &entry->id);
    const struct oracle_task *task = &sim->oracle.tasks[job];
    need_durable(sim, task->settled_record, "SETTLED", job);
    if (entry->outcome != task->outcome || entry->kind != task->kind) {
        sim_violation(sim, "task %u has settled as %s, told is %s", job,
                      task_state_text(task->outcome), task_state_text(entry->outcome));
    }
    const bool is_gone = (entry->flags & SETTLED_RESULT_GONE) != 0;
    if (is_gone != task->is_result_dropped) {
        sim_violation(sim, "SETTLED of task %u is wrong about its result", job);
    }
    if (task->outcome != TASK_SUCCEEDED || is_gone) {
        return;
    }
    uint64_t lease = 0;
    if (entry->body.size >= sizeof lease) {
        memcpy(&lease, entry->body.data, sizeof lease);
    }
    if (lease != task->winner ||
        entry->body.size != sim->runs[lease_place(&sim->oracle, lease)].body_size) {
        sim_violation(sim, "SETTLED of task %u brings another result", job);
    }
    if (entry->attempts != task->spent + 1) {
        sim_violation(sim, "SETTLED of task %u says %" PRIu64 " attempts, there were %u", job,
                      entry->attempts, task->spent + 1);
    }
}

static void note_settled(struct oracle_session *session, uint64_t number, uint32_t job)
{
    if (number >= session->settled_capacity) {
        const uint32_t capacity = (uint32_t)number < 512 ? 1024 : 2 * (uint32_t)number;
        session->settled = realloc(session->settled, capacity * sizeof *session->settled);
        TREADLE_ASSERT(session->settled != NULL);
        session->settled_capacity = capacity;
    }
    for (uint64_t i = session->top_settled + 1; i < number; i++) {
        session->settled[i] = NONE;
    }
    if (number > session->top_settled) {
        session->top_settled = number;
    }
    session->settled[number] = job;
}

static void sent_settled(struct sim *sim, struct oracle_session *session,
                         const struct wire_settled *settled)
{
    struct wire_list list = settled->entries;
    struct wire_settled_entry entry;
    uint64_t number = settled->first;
    for (; wire_settled_entry_next(&list, &entry); number++) {
        sent_settled_entry(sim, &entry);
        if (number <= session->last_settled) {
            sim_violation(sim, "the numbers of SETTLED do not grow: %" PRIu64 " after %" PRIu64,
                          number, session->last_settled);
        }
        const uint32_t job = job_of_id(&entry.id);
        if (number <= session->top_settled && session->settled[number] != job) {
            sim_violation(sim, "SETTLED %" PRIu64 " was task %u, and is now task %u", number,
                          session->settled[number], job);
        }
        note_settled(session, number, job);
        session->last_settled = number;
        if (number > session->acknowledged + sim->options.window_count) {
            sim_violation(sim, "more SETTLED in flight than the window of %u",
                          sim->options.window_count);
        }
    }
}

static void sent_cancelled(struct sim *sim, struct wire_list list)
{
    struct wire_cancelled_entry entry;
    while (wire_cancelled_entry_next(&list, &entry)) {
        const uint32_t job = job_number(sim, &entry.id);
        const struct oracle_task *task = &sim->oracle.tasks[job];
        if (entry.status == CANCEL_DONE) {
            need_durable(sim, task->settled_record, "CANCELLED", job);
            if (task->outcome != TASK_CANCELLED) {
                sim_violation(sim, "task %u is told to be cancelled, and is not", job);
            }
        } else if (entry.status == CANCEL_REQUESTED) {
            need_durable(sim, task->intent_record, "CANCELLED", job);
        } else if (entry.status == CANCEL_SETTLED_ALREADY) {
            need_durable(sim, task->settled_record, "CANCELLED", job);
        }
    }
}

static void sent_result_ack(struct sim *sim, struct wire_list list)
{
    struct wire_result_ack_entry entry;
    while (wire_result_ack_entry_next(&list, &entry)) {
        const struct oracle_lease *lease = find_lease(&sim->oracle, entry.lease);
        if (lease == NULL) {
            sim_violation(sim, "RESULT_ACK of a lease that was never given");
        }
        if (!entry.is_stale) {
            need_durable(sim, lease->ended_record, "RESULT_ACK", lease->task);
        }
    }
}

static void sent_dispatch(struct sim *sim, uint32_t connection, struct wire_list list)
{
    struct oracle *oracle = &sim->oracle;
    struct wire_dispatch_entry entry;
    while (wire_dispatch_entry_next(&list, &entry)) {
        const struct oracle_lease *lease = find_lease(oracle, entry.lease);
        const uint32_t job = job_number(sim, &entry.id);
        if (lease == NULL || lease->task != job ||
            !is_held_by(oracle, lease, oracle->session_of_connection[connection])) {
            sim_violation(sim, "a DISPATCH of task %u without its record", job);
        }
        if (entry.body.size != sim->jobs[job].body_size ||
            (entry.body.size > 0 && entry.body.data[0] != (uint8_t)job)) {
            sim_violation(sim, "task %u is handed out with another body", job);
        }
    }
}

void oracle_on_sent(struct sim *sim, uint32_t connection, const struct message *message)
{
    struct oracle_session *session = session_of(&sim->oracle, connection);
    if (session == NULL) {
        return; /* it has gone to another connection, or has ended, in this round */
    }
    switch ((unsigned)message->kind) { /* the others promise nothing */
    case MESSAGE_WELCOME:
        session->last_settled = 0;
        return;
    case MESSAGE_ACCEPTED:
        sent_accepted(sim, message->as.accepted.entries);
        return;
    case MESSAGE_SETTLED:
        sent_settled(sim, session, &message->as.settled);
        return;
    case MESSAGE_CANCELLED:
        sent_cancelled(sim, message->as.cancelled.entries);
        return;
    case MESSAGE_RESULT_ACK:
        sent_result_ack(sim, message->as.result_ack.entries);
        return;
    case MESSAGE_DISPATCH:
        sent_dispatch(sim, connection, message->as.dispatch.entries);
        return;
    default:
        return;
    }
}

/* ---- workers ---- */

void oracle_on_handler_start(struct sim *sim, uint64_t number)
{
    struct oracle_lease *lease = find_lease(&sim->oracle, number);
    if (lease == NULL) {
        sim_violation(sim, "a handler starts without a lease");
    }
    if (lease->is_started) {
        sim_violation(sim, "lease %u is started twice", lease_place(&sim->oracle, number));
    }
    if (lease->is_returned) {
        sim_violation(sim, "lease %u is started after it was handed back",
                      lease_place(&sim->oracle, number));
    }
    lease->is_started = true;
}

void oracle_on_returned(struct sim *sim, const struct message *message)
{
    struct wire_list list = message->as.returned.entries;
    struct wire_lease_entry entry;
    while (wire_lease_entry_next(&list, &entry)) {
        struct oracle_lease *lease = find_lease(&sim->oracle, entry.lease);
        if (lease == NULL || lease->is_started) {
            sim_violation(sim, "lease %u is handed back after it has started",
                          lease_place(&sim->oracle, entry.lease));
        }
        lease->is_returned = true;
    }
}

/* ---- the end ---- */

const char *oracle_unrest(struct sim *sim)
{
    const struct oracle *oracle = &sim->oracle;
    for (uint32_t i = 0; i < sim->job_count; i++) {
        const struct oracle_task *task = &oracle->tasks[i];
        if (task->sequence != 0 && task->settled_record == 0) {
            return "a task that was accepted has not settled";
        }
    }
    for (uint32_t i = 0; i < ORACLE_SESSION_COUNT; i++) {
        if (oracle->sessions[i].is_live && oracle->sessions[i].held_count != 0) {
            return "a worker still holds a lease";
        }
    }
    return NULL;
}
