/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <sodium.h>

#include "client/task.h"
#include "common/base/assert.h"
#include "worker/worker_state.h"

#define BROKER_DEFAULT "tcp://127.0.0.1:7330"

/* File descriptors for each slot (pipes, or what a child is driven with), and for all else. */
#define FDS_PER_SLOT 8
#define FDS_AROUND   128

/* What made this thread's last creation fail: there is no worker to ask. */
static _Thread_local char create_error[WORKER_ERROR_SIZE];

_Static_assert(sizeof(struct wire_policy) == POLICY_FIELD_COUNT * sizeof(uint64_t),
               "a policy is its fields, one after the other");

void worker_set_error(treadle_worker *worker, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(worker->error, sizeof(worker->error), format, arguments);
    va_end(arguments);
}

__attribute__((format(printf, 2, 3))) static enum treadle_status refuse(enum treadle_status status,
                                                                        const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(create_error, sizeof(create_error), format, arguments);
    va_end(arguments);
    return status;
}

static enum treadle_status refuse_plainly(enum treadle_status status)
{
    return refuse(status, "%s", treadle_status_text(status));
}

static enum treadle_status refuse_for_errno(const char *what)
{
    const char *text = strerrordesc_np(errno);
    return refuse(errno == ENOMEM ? TREADLE_E_NOMEM : TREADLE_E_IO, "%s: %s", what,
                  text != NULL ? text : "unknown error");
}

/* ---- what was given ---- */

static enum treadle_status check_commands(const struct worker_config *config)
{
    for (size_t i = 0; i < config->command_count; i++) {
        const struct worker_command *command = &config->commands[i];
        if (command->command == NULL || command->command[0] == NULL) {
            return refuse(TREADLE_E_INVALID, "a command is empty");
        }
        for (size_t j = 0; j < command->pattern_count; j++) {
            if (!route_is_pattern(command->patterns[j])) {
                return refuse(TREADLE_E_INVALID, "'%.200s' is not SERVICE.TASK or SERVICE.*",
                              command->patterns[j]);
            }
        }
    }
    return TREADLE_OK;
}

static enum treadle_status check_config(const struct worker_config *config)
{
    if (config->name != NULL && (config->name[0] == '\0' || strlen(config->name) > NAME_SIZE_MAX)) {
        return refuse(TREADLE_E_INVALID, "a worker's name has 1 to %d bytes", NAME_SIZE_MAX);
    }
    if (config->slots > SLOT_COUNT_MAX) {
        return refuse(TREADLE_E_INVALID, "a worker has at most %d slots", SLOT_COUNT_MAX);
    }
    if (config->drain_ms > SPAN_MAX_MS) {
        return refuse(TREADLE_E_INVALID, "the drain takes too long");
    }
    if ((config->handlers == NULL) != (config->handler_count == 0)) {
        return refuse(TREADLE_E_INVALID, "handlers and handler_count do not go together");
    }
    if (config->handler_count == 0 && config->plugin_count == 0 && config->command_count == 0) {
        return refuse(TREADLE_E_INVALID, "there is nothing to serve: no handler and no plugin");
    }
    return check_commands(config);
}

/* The fields that `policy` does not give are those of `base`. */
static void policy_complete(struct wire_policy *policy, const struct wire_policy *base)
{
    uint64_t fields[POLICY_FIELD_COUNT];
    uint64_t others[POLICY_FIELD_COUNT];
    memcpy(fields, policy, sizeof(fields));
    memcpy(others, base, sizeof(others));
    for (int i = 0; i < POLICY_FIELD_COUNT; i++) {
        fields[i] = fields[i] != 0 ? fields[i] : others[i];
    }
    memcpy(policy, fields, sizeof(fields));
}

static uint32_t cpu_count(void)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == -1) {
        return 1;
    }
    const int count = CPU_COUNT(&cpus);
    return count > 0 ? (uint32_t)count : 1;
}

static void set_names(treadle_worker *worker, const char *name)
{
    char host[256] = "";
    if (gethostname(host, sizeof(host) - 1) == -1 || host[0] == '\0') {
        (void)snprintf(host, sizeof(host), "localhost");
    }
    (void)snprintf(worker->host, sizeof(worker->host), "%.*s", NAME_SIZE_MAX, host);
    if (name != NULL) {
        (void)snprintf(worker->name, sizeof(worker->name), "%.*s", NAME_SIZE_MAX, name);
    } else {
        /* two workers of one process are two */
        static _Atomic unsigned created;
        const unsigned number = atomic_fetch_add(&created, 1);
        const int size =
            snprintf(worker->name, sizeof(worker->name), "%.40s:%d", host, (int)getpid());
        if (number > 0) {
            (void)snprintf(worker->name + size, sizeof(worker->name) - (size_t)size, ":%u",
                           number + 1);
        }
    }
}

static const char *default_broker(void)
{
    const char *broker =
        getenv("TREADLE_BROKER"); /* NOLINT(concurrency-mt-unsafe): a reader only */
    return broker != NULL && broker[0] != '\0' ? broker : BROKER_DEFAULT;
}

/* ---- the zygote, and what it runs ---- */

static unsigned thread_count(void)
{
    char line[128];
    unsigned count = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "Threads:", 8) == 0) {
            count = (unsigned)strtoul(line + 8, NULL, 10);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return count;
}

static enum treadle_status open_zygote(treadle_worker *worker, const struct worker_config *config)
{
    /* The zygote keeps a copy of all this from the moment of the fork. */
    struct function_sources sources = {
        .handlers = config->handlers,
        .handler_count = config->handler_count,
        .plugins = config->plugins,
        .plugin_count = config->plugin_count,
        .broker = worker->broker,
        .identity = worker->identity,
        .server_key = worker->server_key,
        .worker = worker->name,
    };
    worker->commands = calloc(config->command_count + 1, sizeof(*worker->commands));
    if (worker->commands == NULL) {
        return refuse_plainly(TREADLE_E_NOMEM);
    }
    for (size_t i = 0; i < config->command_count; i++) {
        worker->commands[i] = config->commands[i].command;
    }
    const struct zygote_config zygote = {
        .commands = worker->commands,
        .command_count = (uint32_t)config->command_count,
        .child_main = pool_child_main,
        .child_context = &sources,
    };
    const enum treadle_status status = zygote_open(&worker->zygote, &zygote);
    if (status == TREADLE_E_THREADS) {
        return refuse(status,
                      "treadle_worker_create() must come first: this process has %u threads",
                      thread_count());
    }
    if (status == TREADLE_E_IO) {
        return refuse_for_errno("cannot fork");
    }
    return status == TREADLE_OK ? TREADLE_OK : refuse_plainly(status);
}

static enum treadle_status open_functions(treadle_worker *worker,
                                          const struct worker_config *config)
{
    char text[FUNCTION_TEXT_SIZE] = "";
    worker->runs = runs_create(worker->zygote);
    if (worker->runs == NULL) {
        return refuse_plainly(TREADLE_E_NOMEM);
    }
    if (config->handler_count == 0 && config->plugin_count == 0) {
        return TREADLE_OK;
    }
    const enum treadle_status status = function_list_open(&worker->functions, worker->runs, text);
    return status == TREADLE_OK
               ? TREADLE_OK
               : refuse(status, "%s", text[0] != '\0' ? text : treadle_status_text(status));
}

/* ---- what is served ---- */

static enum treadle_status add_route(treadle_worker *worker, const struct worker_config *config,
                                     const struct handler *handler)
{
    struct route route = {.handler = *handler, .place = ROUTE_COMMANDS};
    policy_complete(&route.handler.worker_policy, &config->policy);
    if (handler->kind == HANDLER_FUNCTION) {
        route.place =
            worker->is_threaded && handler->is_thread_safe ? ROUTE_THREADS : ROUTE_PROCESSES;
    }
    const enum treadle_status status = routes_add(worker->routes, &route);
    if (status == TREADLE_E_CONFLICT) {
        return refuse(TREADLE_E_INVALID, "%s has two handlers", handler->pattern);
    }
    return status == TREADLE_OK
               ? TREADLE_OK
               : refuse(TREADLE_E_INVALID, "a worker serves at most %d tasks", SERVE_COUNT_MAX);
}

static enum treadle_status add_commands(treadle_worker *worker, const struct worker_config *config)
{
    enum treadle_status status = TREADLE_OK;
    for (size_t i = 0; i < config->command_count; i++) {
        const struct worker_command *command = &config->commands[i];
        for (size_t j = 0; j < command->pattern_count && status == TREADLE_OK; j++) {
            const struct handler handler = {
                .pattern = command->patterns[j],
                .kind = HANDLER_COMMAND,
                .index = (uint32_t)i,
                .is_permanent_exit = command->is_permanent_exit,
                .worker_policy = command->policy,
            };
            status = add_route(worker, config, &handler);
        }
    }
    return status;
}

/* A function under the name that it gave itself, or under a narrower one that was asked for. */
static enum treadle_status add_function(treadle_worker *worker, const struct worker_config *config,
                                        const struct handler *function, const char *pattern)
{
    struct handler handler = *function;
    handler.pattern = pattern;
    for (size_t i = 0; i < config->override_count; i++) {
        if (strcmp(config->overrides[i].pattern, pattern) == 0) {
            handler.worker_policy = config->overrides[i].policy;
        }
    }
    return add_route(worker, config, &handler);
}

/* The functions that one name asks for: those that it covers, else the one that covers it. */
static enum treadle_status add_asked(treadle_worker *worker, const struct worker_config *config,
                                     const char *name)
{
    const struct function_list *functions = &worker->functions;
    enum treadle_status status = TREADLE_OK;
    bool is_found = false;
    for (size_t i = 0; i < functions->handler_count && status == TREADLE_OK; i++) {
        if (route_covers(name, functions->handlers[i].pattern)) {
            is_found = true;
            status = add_function(worker, config, &functions->handlers[i],
                                  functions->handlers[i].pattern);
        }
    }
    for (size_t i = 0; i < functions->handler_count && !is_found; i++) {
        if (route_covers(functions->handlers[i].pattern, name)) {
            is_found = true;
            status = add_function(worker, config, &functions->handlers[i], name);
        }
    }
    if (!is_found) {
        return refuse(TREADLE_E_INVALID, "no plugin has a handler of %.200s; %s%s%s", name,
                      functions->handler_count > 0 ? "there is " : "there are none at all",
                      functions->handler_count > 0 ? functions->handlers[0].pattern : "",
                      functions->handler_count > 1 ? ", among others" : "");
    }
    return status;
}

static enum treadle_status add_functions(treadle_worker *worker, const struct worker_config *config)
{
    const struct function_list *functions = &worker->functions;
    enum treadle_status status = TREADLE_OK;
    for (size_t i = 0; i < config->only_count && status == TREADLE_OK; i++) {
        status = add_asked(worker, config, config->only[i]);
    }
    for (size_t i = 0; i < functions->handler_count && config->only_count == 0; i++) {
        if (status == TREADLE_OK) {
            status = add_function(worker, config, &functions->handlers[i],
                                  functions->handlers[i].pattern);
        }
    }
    return status;
}

/* An override that met no function is a mistake of whoever wrote it. */
static enum treadle_status check_overrides(const treadle_worker *worker,
                                           const struct worker_config *config)
{
    for (size_t i = 0; i < config->override_count; i++) {
        const char *pattern = config->overrides[i].pattern;
        bool is_met = false;
        for (size_t j = 0; j < routes_count(worker->routes); j++) {
            const struct handler *handler = &routes_at(worker->routes, j)->handler;
            is_met = is_met ||
                     (handler->kind == HANDLER_FUNCTION && strcmp(handler->pattern, pattern) == 0);
        }
        if (!is_met) {
            return refuse(TREADLE_E_INVALID,
                          "%.200s has neither a command nor a handler in a plugin", pattern);
        }
    }
    return TREADLE_OK;
}

/* What HELLO announces; the wire knows the ranges of the policies' fields. */
static enum treadle_status make_serves(treadle_worker *worker)
{
    const size_t count = routes_count(worker->routes);
    struct writer writer;
    enum treadle_status status = TREADLE_OK;
    if (count == 0) {
        return refuse(TREADLE_E_INVALID, "there is nothing to serve: no plugin has a handler");
    }
    worker->serves = calloc(count, sizeof(*worker->serves));
    if (worker->serves == NULL) {
        return refuse_plainly(TREADLE_E_NOMEM);
    }
    writer_init(&writer);
    for (size_t i = 0; i < count && status == TREADLE_OK; i++) {
        const struct handler *handler = &routes_at(worker->routes, i)->handler;
        struct wire_serve *serve = &worker->serves[i];
        serve->pattern = bytes_from_text(handler->pattern);
        serve->worker_policy = handler->worker_policy;
        if (handler->pattern[serve->pattern.size - 1] == '*') {
            serve->service_policy = handler->task_policy;
        } else {
            serve->task_policy = handler->task_policy;
        }
        if (!wire_serve_encode(&writer, serve)) {
            status = writer.error_field == NULL
                         ? refuse_plainly(TREADLE_E_NOMEM)
                         : refuse(TREADLE_E_INVALID, "the policy of %s: %s is out of range",
                                  handler->pattern, writer.error_field);
        }
    }
    writer_free(&writer);
    return status;
}

static enum treadle_status make_routes(treadle_worker *worker, const struct worker_config *config)
{
    worker->routes = routes_create();
    if (worker->routes == NULL) {
        return refuse_plainly(TREADLE_E_NOMEM);
    }
    enum treadle_status status = add_commands(worker, config);
    if (status == TREADLE_OK) {
        status = add_functions(worker, config);
    }
    if (status == TREADLE_OK) {
        status = check_overrides(worker, config);
    }
    return status == TREADLE_OK ? make_serves(worker) : status;
}

/* ---- making and ending ---- */

bool worker_add_source(const treadle_worker *worker, int fd, uint32_t source)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = source};
    return epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

static enum treadle_status open_sources(treadle_worker *worker)
{
    worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    worker->drain_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    worker->zygote_fd = pidfd_open(zygote_pid(worker->zygote), 0);
    if (worker->epoll_fd == -1 || worker->drain_fd == -1 || worker->zygote_fd == -1 ||
        !worker_add_source(worker, worker->drain_fd, SOURCE_DRAIN) ||
        !worker_add_source(worker, worker->zygote_fd, SOURCE_ZYGOTE) ||
        !worker_add_source(worker, runs_fd(worker->runs), SOURCE_RUNS)) {
        return refuse_for_errno("no descriptors");
    }
    return TREADLE_OK;
}

/* Each slot needs its pipes; what the zygote starts keeps the limit there was. */
static void provide_fds(const treadle_worker *worker)
{
    struct rlimit limit;
    const rlim_t wanted = (rlim_t)worker->slots * FDS_PER_SLOT + FDS_AROUND;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < wanted) {
        limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* After the fork of the zygote, whose children are none of the secret key's business. */
static enum treadle_status open_credentials(treadle_worker *worker)
{
    char why[KEY_WHY_SIZE];
    const struct credentials_source source = {worker->broker, worker->identity, worker->server_key};
    const enum treadle_status status = credentials_open(&worker->credentials, &source, why);
    return status == TREADLE_OK ? TREADLE_OK : refuse(status, "%s", why);
}

static enum treadle_status open_all(treadle_worker *worker, const struct worker_config *config)
{
    enum treadle_status status = open_zygote(worker, config); /* before anything starts a thread */
    if (status != TREADLE_OK) {
        return status;
    }
    provide_fds(worker);
    if (sodium_init() == -1) {
        return refuse(TREADLE_E_IO, "libsodium cannot start");
    }
    status = open_credentials(worker);
    if (status == TREADLE_OK) {
        status = open_functions(worker, config);
    }
    if (status == TREADLE_OK) {
        status = open_sources(worker);
    }
    return status == TREADLE_OK ? make_routes(worker, config) : status;
}

enum treadle_status worker_create(treadle_worker **worker_pointer,
                                  const struct worker_config *config)
{
    create_error[0] = '\0';
    enum treadle_status status = check_config(config);
    if (status != TREADLE_OK) {
        return status;
    }
    treadle_worker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL) {
        return refuse_plainly(TREADLE_E_NOMEM);
    }
    worker->slots = config->slots > 0 ? config->slots : cpu_count();
    worker->is_threaded = config->is_threaded;
    worker->memory_max = config->memory_max;
    worker->drain_ms = config->drain_ms > 0 ? config->drain_ms : WORKER_DRAIN_MS;
    worker->note_context = config->context;
    worker->on_note = config->on_note;
    worker->drain_fd = -1;
    worker->zygote_fd = -1;
    worker->epoll_fd = -1;
    set_names(worker, config->name);
    worker->broker = strdup(config->broker != NULL ? config->broker : default_broker());
    worker->identity = config->identity != NULL ? strdup(config->identity) : NULL;
    worker->server_key = config->server_key != NULL ? strdup(config->server_key) : NULL;
    const bool is_copied = worker->broker != NULL &&
                           (worker->identity != NULL) == (config->identity != NULL) &&
                           (worker->server_key != NULL) == (config->server_key != NULL);
    status = is_copied ? open_all(worker, config) : refuse_plainly(TREADLE_E_NOMEM);
    if (status != TREADLE_OK) {
        treadle_worker_destroy(&worker);
        return status;
    }
    *worker_pointer = worker;
    return TREADLE_OK;
}

static void policy_from_options(struct wire_policy *to, const struct treadle_policy *from)
{
    *to = (struct wire_policy){
        .attempts_max = from->attempts_max,
        .timeout_ms = from->timeout_ms,
        .progress_timeout_ms = from->progress_timeout_ms,
        .grace_ms = from->grace_ms,
        .queue_timeout_ms = from->queue_timeout_ms,
        .deadline_ms = from->deadline_ms,
        .result_ttl_ms = from->result_ttl_ms,
        .backoff_base_ms = from->backoff_base_ms,
        .backoff_factor_milli = from->backoff_factor_milli,
        .backoff_max_ms = from->backoff_max_ms,
        .crash_limit = from->crash_limit,
        .lost_limit = from->lost_limit,
    };
}

enum treadle_status treadle_worker_create(treadle_worker **worker,
                                          const struct treadle_worker_options *given,
                                          const struct treadle_handler *handlers,
                                          size_t handler_count)
{
    struct treadle_worker_options options = {0};
    struct treadle_policy policy = {0};
    if (given != NULL && !client_options_copy(&options, sizeof(options), given, given->size)) {
        return refuse(TREADLE_E_INVALID,
                      "the size of struct treadle_worker_options is not set, or it has fields this "
                      "library does not know");
    }
    if (options.policy != NULL &&
        !client_options_copy(&policy, sizeof(policy), options.policy, options.policy->size)) {
        return refuse(TREADLE_E_INVALID, "the size of struct treadle_policy is not set, or it has "
                                         "fields this library does not know");
    }
    struct worker_config config = {
        .broker = options.broker,
        .identity = options.identity,
        .server_key = options.server_key,
        .name = options.name,
        .slots = options.slots,
        .is_threaded = options.is_threaded != 0,
        .memory_max = options.memory_max,
        .drain_ms = options.drain_ms,
        .handlers = handlers,
        .handler_count = handler_count,
        .plugins = options.plugins,
        .plugin_count = options.plugin_count,
    };
    policy_from_options(&config.policy, &policy);
    return worker_create(worker, &config);
}

static void close_fd(int *fd)
{
    if (*fd != -1) {
        close(*fd);
        *fd = -1;
    }
}

void treadle_worker_destroy(treadle_worker **worker_pointer)
{
    treadle_worker *worker = *worker_pointer;
    if (worker == NULL) {
        return;
    }
    credentials_close(&worker->credentials);
    routes_destroy(&worker->routes);
    function_list_reset(&worker->functions);
    runs_destroy(&worker->runs);
    zygote_close(&worker->zygote);
    close_fd(&worker->zygote_fd);
    close_fd(&worker->drain_fd);
    close_fd(&worker->epoll_fd);
    free(worker->serves);
    free(worker->commands);
    free(worker->broker);
    free(worker->identity);
    free(worker->server_key);
    free(worker);
    *worker_pointer = NULL;
}

void treadle_worker_drain(treadle_worker *worker)
{
    const int error = errno; /* this may be a signal handler */
    const uint64_t one = 1;
    const ssize_t written = write(worker->drain_fd, &one, sizeof(one));
    (void)written; /* full: it was told before */
    errno = error;
}

const char *treadle_worker_error(const treadle_worker *worker)
{
    return worker == NULL ? create_error : worker->error;
}

/* ---- for the runner ---- */

enum treadle_status worker_watch(treadle_worker *worker, int fd, void (*on_ready)(void *context),
                                 void *context)
{
    if (worker->watch_count == WORKER_WATCH_COUNT_MAX) {
        return TREADLE_E_LIMIT;
    }
    if (!worker_add_source(worker, fd, SOURCE_WATCH + worker->watch_count)) {
        return TREADLE_E_IO;
    }
    worker->watches[worker->watch_count++] = (struct worker_watch){on_ready, context};
    return TREADLE_OK;
}

bool worker_has_identity(const treadle_worker *worker)
{
    return worker->credentials.identity != NULL;
}

const char *worker_name(const treadle_worker *worker)
{
    return worker->name;
}

uint32_t worker_slots(const treadle_worker *worker)
{
    return worker->slots;
}

size_t worker_pattern_count(const treadle_worker *worker)
{
    return routes_count(worker->routes);
}

const char *worker_pattern(const treadle_worker *worker, size_t index)
{
    return routes_at(worker->routes, index)->handler.pattern;
}
