/* SPDX-License-Identifier: MPL-2.0 */
/* Questions and orders of people. What is long is a listing: a cursor that looks at a bounded share
 * in each step. */
#include "broker/core/internal.h"
#include "common/base/assert.h"

#define TOKEN_EPOCH_BITS 24

static struct effect *answer_done(struct core *core, struct session *session, uint64_t request,
                                  enum done_status status, uint64_t count, struct effects *out)
{
    struct effect *effect = session_send(core, session, MESSAGE_DONE, out);
    if (effect != NULL) {
        effect->number = request;
        effect->status = (uint8_t)status;
        effect->value = count;
    }
    return effect;
}

static struct effect *last_row(struct core *core, struct session *session, enum message_kind kind,
                               uint64_t request, enum done_status status, struct effects *out)
{
    struct effect *effect = session_send(core, session, kind, out);
    if (effect != NULL) {
        effect->is_last = 1;
        effect->listing = LISTING_COUNT; /* not of a listing */
        effect->number = request;
        effect->status = (uint8_t)status;
    }
    return effect;
}

/* Who administers a service sees every principal's tasks of it; NONE: of all services. */
static bool sees_all_of(const struct core *core, const struct input *input, uint32_t service)
{
    static const struct bytes every = {(const uint8_t *)"*", 1};
    if ((input->rights & RIGHT_ADMIN) == 0 || service == core->config.service_count_max) {
        return false;
    }
    return service == NONE
               ? globs_cover(input->services, every)
               : globs_cover_service(input->services, name_view(&core->services[service].name));
}

/* ---- one task ---- */

static void on_task_query(struct core *core, struct session *session, const struct input *input,
                          struct effects *out)
{
    const struct wire_task_query *query = &input->message->as.task_query;
    struct effect *effect = session_send(core, session, MESSAGE_TASK_INFO, out);
    if (effect == NULL) {
        return;
    }
    effect->number = query->request;
    effect->id = query->id;
    effect->status = AWAIT_UNKNOWN;
    const uint32_t known = id_find(core, &query->id);
    if (known == MAP_NONE) {
        return;
    }
    const bool is_gone = known >= core->task_slab.count_max;
    const uint32_t owner = is_gone ? core->remembered[known - core->task_slab.count_max].owner
                                   : core->tasks[known].owner;
    const uint32_t service = is_gone ? NONE : core->queues[core->tasks[known].queue].service;
    if (owner != session->owner && !sees_all_of(core, input, service)) {
        return;
    }
    if (is_gone) {
        effect->status = AWAIT_GONE;
        return;
    }
    const struct task *task = &core->tasks[known];
    effect->task = known;
    effect->sequence = task->sequence;
    effect->attempt = task->attempt;
    effect->status = task_is_settled(task) ? AWAIT_SETTLED : AWAIT_PENDING;
    effect->reason = (uint8_t)core_wait_reason(core, task, &effect->value);
}

/* ---- listings ---- */

/* The last place is for those who administer: whoever may look could hold the others for ever. */
static struct listing *open_listing(struct core *core, const struct session *session,
                                    const struct input *input, enum message_kind kind,
                                    uint64_t request)
{
    const uint32_t count = LISTING_COUNT - ((input->rights & RIGHT_ADMIN) != 0 ? 0U : 1U);
    for (uint32_t i = 0; i < count; i++) {
        struct listing *listing = &core->listings[i];
        if (!listing->is_open) {
            *listing = (struct listing){.is_open = true,
                                        .code = (uint8_t)kind,
                                        .session = session_number(core, session),
                                        .session_serial = session->serial,
                                        .request = request,
                                        .count_left = core->config.entry_count_max,
                                        .service = NONE};
            return listing;
        }
    }
    return NULL;
}

static uint64_t token_of(const struct core *core, uint32_t place)
{
    return ((uint64_t)core->config.epoch << (64 - TOKEN_EPOCH_BITS)) | ((uint64_t)place + 1);
}

static bool token_is_ours(const struct core *core, uint64_t token)
{
    return token == 0 || token >> (64 - TOKEN_EPOCH_BITS) == core->config.epoch;
}

static void on_task_list(struct core *core, struct session *session, const struct input *input,
                         struct effects *out)
{
    const struct wire_task_list *list = &input->message->as.task_list;
    uint32_t service = NONE;
    if (list->service.size > 0) {
        service = service_find(core, list->service);
        if (service == MAP_NONE && globs_touch_service(input->services, list->service)) {
            last_row(core, session, MESSAGE_TASK_PAGE, list->request, DONE_NOT_FOUND, out);
            return;
        }
        if (service == MAP_NONE) { /* which services there are beyond its rights it is not told */
            service = core->config.service_count_max;
        }
    }
    if (!token_is_ours(core, list->token)) {
        last_row(core, session, MESSAGE_TASK_PAGE, list->request, DONE_TOKEN_OLD, out);
        return;
    }
    struct listing *listing = open_listing(core, session, input, MESSAGE_TASK_PAGE, list->request);
    if (listing == NULL) {
        last_row(core, session, MESSAGE_TASK_PAGE, list->request, DONE_BUSY, out);
        return;
    }
    listing->sees_all = sees_all_of(core, input, service);
    listing->service = service;
    listing->state = (uint32_t)list->state;
    listing->place = list->token == 0 ? 0 : (uint32_t)list->token - 1;
    if (list->count_max > 0 && list->count_max < listing->count_left) {
        listing->count_left = (uint32_t)list->count_max;
    }
}

static struct kept_globs *services_of(struct core *core, const struct listing *listing)
{
    return &core->listing_services[listing - core->listings];
}

static void on_worker_query(struct core *core, struct session *session, const struct input *input,
                            struct effects *out)
{
    const struct wire_worker_query *query = &input->message->as.worker_query;
    struct listing *listing =
        open_listing(core, session, input, MESSAGE_WORKER_INFO, query->request);
    if (listing == NULL) {
        last_row(core, session, MESSAGE_WORKER_INFO, query->request, DONE_BUSY, out);
        return;
    }
    name_set(&listing->name, query->name);
    listing->sees_all = (input->rights & RIGHT_ADMIN) != 0;
    globs_keep(services_of(core, listing), input->services);
}

bool admin_has_listing(const struct core *core)
{
    for (uint32_t i = 0; i < LISTING_COUNT; i++) {
        if (core->listings[i].is_open) {
            return true;
        }
    }
    return false;
}

static struct effect *row(struct core *core, const struct listing *listing, struct effects *out)
{
    struct effect *effect = session_send(core, &core->sessions[listing->session],
                                         (enum message_kind)listing->code, out);
    if (effect != NULL) {
        effect->listing = (uint8_t)(listing - core->listings);
        effect->number = listing->request;
    }
    return effect;
}

static bool is_listed(const struct core *core, const struct listing *listing,
                      const struct task *task)
{
    if (task->sequence == 0) {
        return false; /* a free place */
    }
    if (!listing->sees_all && task->owner != core->sessions[listing->session].owner) {
        return false;
    }
    if (listing->service != NONE && core->queues[task->queue].service != listing->service) {
        return false;
    }
    return listing->state == 0 || listing->state == 1U + task->state;
}

static void list_task(struct core *core, struct listing *listing, struct effects *out)
{
    const struct task *task = &core->tasks[listing->place];
    if (!is_listed(core, listing, task)) {
        return;
    }
    struct effect *effect = row(core, listing, out);
    if (effect != NULL) {
        uint64_t left_ms = 0;
        effect->task = listing->place;
        effect->sequence = task->sequence;
        effect->status = (uint8_t)core_wait_reason(core, task, &left_ms);
        listing->count_left--;
    }
}

/* Other principals' workers are seen by who has rights to something that they serve, and no more of
 * what they serve than that. Returns what it has cost, in visits. */
static uint32_t list_worker(struct core *core, struct listing *listing, struct effects *out)
{
    struct session *worker = &core->sessions[listing->place];
    const struct bytes wanted = name_view(&listing->name);
    uint32_t cost = 1;
    if (worker->state != SESSION_LIVE || worker->role != ROLE_WORKER ||
        (wanted.size > 0 && !name_is(&worker->name, wanted))) {
        return cost;
    }
    if (listing->code == MESSAGE_DONE) {
        session_drain(core, worker, out);
        listing->count_left--;
        return cost;
    }
    const bool sees_it_whole =
        listing->sees_all || worker->owner == core->sessions[listing->session].owner;
    const struct globs *services = &services_of(core, listing)->globs;
    if (!sees_it_whole && !session_serves_some(core, worker, services, &cost)) {
        return cost;
    }
    struct effect *effect = row(core, listing, out);
    if (effect != NULL) {
        effect->session = listing->place;
        effect->services = sees_it_whole ? NULL : services;
        listing->count_left--;
    }
    return cost;
}

/* Of the services somebody has rights to. Returns what it has cost, in visits. */
static uint32_t list_service(struct core *core, struct listing *listing, struct effects *out)
{
    const struct service *service = &core->services[listing->place];
    const struct globs *services = &services_of(core, listing)->globs;
    if (!service->is_used) {
        return 1;
    }
    if (globs_touch_service(services, name_view(&service->name))) {
        struct effect *effect = row(core, listing, out);
        if (effect != NULL) {
            effect->service = listing->place;
            listing->count_left--;
        }
    }
    return 1 + services->count;
}

/* How many places there are to look at. */
static uint32_t places_of(const struct core *core, const struct listing *listing)
{
    switch (listing->code) {
    case MESSAGE_TASK_PAGE:
        return core->task_slab.used;
    case MESSAGE_SERVICE_INFO:
        return core->service_count;
    default:
        return core->session_slab.used;
    }
}

/* Looks at the listing's place. Returns what it has cost, in visits. */
static uint32_t list_place(struct core *core, struct listing *listing, struct effects *out)
{
    switch (listing->code) {
    case MESSAGE_TASK_PAGE:
        list_task(core, listing, out);
        return 1;
    case MESSAGE_SERVICE_INFO:
        return list_service(core, listing, out);
    default:
        return list_worker(core, listing, out);
    }
}

static void end_listing(struct core *core, struct listing *listing, bool is_at_end,
                        struct effects *out)
{
    listing->is_open = false;
    if (listing->code == MESSAGE_DONE) {
        const uint64_t drained = core->config.entry_count_max - listing->count_left;
        answer_done(core, &core->sessions[listing->session], listing->request,
                    drained > 0 ? DONE_OK : DONE_NOT_FOUND, drained, out);
        return;
    }
    struct effect *effect = row(core, listing, out);
    if (effect != NULL) {
        effect->is_last = 1;
        effect->status = DONE_OK;
        effect->value = is_at_end ? 0 : token_of(core, listing->place);
    }
}

static void run_listing(struct core *core, struct listing *listing, uint32_t visits,
                        struct effects *out)
{
    const struct session *session = &core->sessions[listing->session];
    if (session->serial != listing->session_serial || session->connection == NONE) {
        listing->is_open =
            false; /* nobody to tell; the shell drops the open page with the connection */
        return;
    }
    const uint32_t places = places_of(core, listing);
    while (visits > 0 && listing->count_left > 0 && listing->place < places) {
        if (effects_room(out) < 2) {
            return;
        }
        const uint32_t all = list_place(core, listing, out);
        const uint32_t cost = all < visits ? all : visits; /* the last may take more than is left */
        listing->place++;
        visits -= cost;
        core->visits -= cost;
    }
    if (effects_room(out) > 0 && (listing->place >= places || listing->count_left == 0)) {
        end_listing(core, listing, listing->place >= places, out);
    }
}

void admin_run_listings(struct core *core, struct effects *out)
{
    const uint32_t quarter = core->visits / LISTING_COUNT;
    const uint32_t share = quarter > 0 ? quarter : core->visits;
    for (uint32_t i = 0; i < LISTING_COUNT; i++) {
        if (core->listings[i].is_open && effects_room(out) > 0) {
            run_listing(core, &core->listings[i], share < core->visits ? share : core->visits, out);
        }
    }
}

/* ---- services, workers, the broker ---- */

static void tell_service(struct core *core, struct session *session, uint64_t request,
                         uint32_t service, struct effects *out)
{
    struct effect *effect = session_send(core, session, MESSAGE_SERVICE_INFO, out);
    if (effect != NULL) {
        effect->service = service;
        effect->listing = LISTING_COUNT;
        effect->number = request;
    }
}

static void on_service_query(struct core *core, struct session *session, const struct input *input,
                             struct effects *out)
{
    const struct wire_service_query *query = &input->message->as.service_query;
    if (query->name.size > 0) {
        const uint32_t found = service_find(core, query->name);
        const bool is_seen = found != MAP_NONE && globs_touch_service(input->services, query->name);
        if (is_seen) {
            tell_service(core, session, query->request, found, out);
        }
        last_row(core, session, MESSAGE_SERVICE_INFO, query->request,
                 is_seen ? DONE_OK : DONE_NOT_FOUND, out);
        return;
    }
    struct listing *listing =
        open_listing(core, session, input, MESSAGE_SERVICE_INFO, query->request);
    if (listing == NULL) {
        last_row(core, session, MESSAGE_SERVICE_INFO, query->request, DONE_BUSY, out);
        return;
    }
    globs_keep(services_of(core, listing), input->services);
}

static void on_service_set(struct core *core, struct session *session, const struct input *input,
                           struct effects *out)
{
    const struct wire_service_set *set = &input->message->as.service_set;
    const uint32_t found = service_find(core, set->name);
    if (!globs_cover_service(input->services, set->name)) {
        core->counters.beyond_rights++;
        answer_done(core, session, set->request, DONE_REFUSED, 0, out);
        return;
    }
    if (found == MAP_NONE) {
        answer_done(core, session, set->request, DONE_NOT_FOUND, 0, out);
        return;
    }
    struct service *service = &core->services[found];
    switch ((enum service_action)set->action) {
    case SERVICE_PAUSE:
    case SERVICE_RESUME:
        service_set_paused(core, service, set->action == SERVICE_PAUSE, out);
        break;
    case SERVICE_BREAKER_OPEN:
        service_force_breaker(core, service, BREAKER_FORCED_OPEN, out);
        break;
    case SERVICE_BREAKER_CLOSE:
        service_force_breaker(core, service, BREAKER_FORCED_CLOSED, out);
        break;
    case SERVICE_BREAKER_AUTO:
        service_force_breaker(core, service, BREAKER_AUTO, out);
        break;
    case SERVICE_ACTION_COUNT:
        break;
    }
    answer_done(core, session, set->request, DONE_OK, 1, out);
}

/* Names are unique within a principal only, so several workers may share one: a listing finds them.
 */
static void on_worker_drain(struct core *core, struct session *session, const struct input *input,
                            struct effects *out)
{
    const struct wire_worker_drain *drain = &input->message->as.worker_drain;
    struct listing *listing = open_listing(core, session, input, MESSAGE_DONE, drain->request);
    if (listing == NULL) {
        answer_done(core, session, drain->request, DONE_BUSY, 0, out);
        return;
    }
    name_set(&listing->name, drain->name);
}

static void on_broker_drain(struct core *core, struct session *session, const struct input *input,
                            struct effects *out)
{
    core_drain(core, out);
    answer_done(core, session, input->message->as.broker_drain.request, DONE_OK,
                core->unsettled_count, out);
}

/* The shell owns the configuration, so it is the shell that answers. */
static void on_broker_reload(struct core *core, struct session *session, const struct input *input,
                             struct effects *out)
{
    struct effect *effect = session_send(core, session, MESSAGE_DONE, out);
    if (effect != NULL) {
        effect->kind = EFFECT_RELOAD;
        effect->number = input->message->as.broker_reload.request;
    }
}

static void on_broker_query(struct core *core, struct session *session, const struct input *input,
                            struct effects *out)
{
    struct effect *effect = session_send(core, session, MESSAGE_BROKER_INFO, out);
    if (effect != NULL) {
        effect->number = input->message->as.broker_query.request;
    }
}

/* Orders need the right to administer; `request` is the first field of each of them. */
static bool may_order(struct core *core, struct session *session, const struct input *input,
                      uint64_t request, struct effects *out)
{
    if ((input->rights & RIGHT_ADMIN) != 0) {
        return true;
    }
    core->counters.beyond_rights++;
    answer_done(core, session, request, DONE_REFUSED, 0, out);
    return false;
}

static void on_order(struct core *core, struct session *session, const struct input *input,
                     struct effects *out)
{
    const struct message *message = input->message;
    if (message->kind == MESSAGE_SERVICE_SET) {
        if (may_order(core, session, input, message->as.service_set.request, out)) {
            on_service_set(core, session, input, out);
        }
    } else if (message->kind == MESSAGE_WORKER_DRAIN) {
        if (may_order(core, session, input, message->as.worker_drain.request, out)) {
            on_worker_drain(core, session, input, out);
        }
    } else if (message->kind == MESSAGE_BROKER_RELOAD) {
        if (may_order(core, session, input, message->as.broker_reload.request, out)) {
            on_broker_reload(core, session, input, out);
        }
    } else if (may_order(core, session, input, message->as.broker_drain.request, out)) {
        on_broker_drain(core, session, input, out);
    }
}

void admin_on_message(struct core *core, struct session *session, const struct input *input,
                      struct effects *out)
{
    const enum message_kind kind = input->message->kind;
    if (kind == MESSAGE_TASK_QUERY) {
        on_task_query(core, session, input, out);
    } else if (kind == MESSAGE_TASK_LIST) {
        on_task_list(core, session, input, out);
    } else if (kind == MESSAGE_SERVICE_QUERY) {
        on_service_query(core, session, input, out);
    } else if (kind == MESSAGE_WORKER_QUERY) {
        on_worker_query(core, session, input, out);
    } else if (kind == MESSAGE_BROKER_QUERY) {
        on_broker_query(core, session, input, out);
    } else {
        on_order(core, session, input, out);
    }
}
