/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/runner/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include <sys/signalfd.h>

#include "common/keys/keys.h"
#include "worker/runner/orphans.h"

#define EXIT_INTERRUPTED 130

struct runner {
    const struct runner_options *options;
    treadle_worker *worker;
    int signal_fd;
    bool is_stopping;    /* told to end once */
    bool is_interrupted; /* told twice */
};

__attribute__((format(printf, 2, 3))) static void tell(const struct runner *runner,
                                                       const char *format, ...)
{
    if (runner->options->is_quiet) {
        return;
    }
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() */
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    (void)fprintf(stderr, "treadle work: %s\n", text);
}

/* ---- what the worker tells ---- */

static void tell_serving(const struct runner *runner)
{
    const size_t pattern_count = worker_pattern_count(runner->worker);
    const uint32_t slots = worker_slots(runner->worker);
    char more[32] = "";
    if (pattern_count > 1) {
        (void)snprintf(more, sizeof(more), " and %zu more", pattern_count - 1);
    }
    tell(runner, "serving %s%s with %u slot%s as %s at %s", worker_pattern(runner->worker, 0), more,
         slots, slots == 1 ? "" : "s", worker_name(runner->worker), runner->options->worker.broker);
}

static void tell_apart(const struct runner *runner, const struct worker_note *note)
{
    if (note->is_first) {
        tell(runner, "no broker yet: %s; trying on%s", note->text,
             note->is_nothing_there ? " (is treadled there? one to try things: treadle dev)"
                                    : " (what to do: treadle doctor)");
    } else {
        tell(runner, "lost the broker at %s%s%s; trying again%s", runner->options->worker.broker,
             note->text[0] == '\0' ? "" : ": ", note->text,
             note->is_about_keys ? " (what to do: treadle doctor)" : "");
    }
}

static void on_note(void *context, const struct worker_note *note)
{
    const struct runner *runner = context;
    switch (note->kind) {
    case WORKER_NOTE_SERVING:
        tell_serving(runner);
        return;
    case WORKER_NOTE_BACK:
        tell(runner, "back at %s%s", runner->options->worker.broker,
             note->is_resumed ? "" : ", in a new session");
        return;
    case WORKER_NOTE_APART:
        tell_apart(runner, note);
        return;
    case WORKER_NOTE_REFUSED:
        (void)fprintf(stderr, "treadle: work: %s: %s%s\n", runner->options->worker.broker,
                      note->text, note->is_final ? "; see: treadle doctor" : "; trying again");
        return;
    case WORKER_NOTE_DRAINING:
        if (note->count > 0) {
            tell(runner, "finishing %u task%s, taking nothing new (a second signal ends at once)",
                 (unsigned)note->count, note->count == 1 ? "" : "s");
        }
        return;
    case WORKER_NOTE_DRAINED:
        tell(runner, "drained");
        return;
    case WORKER_NOTE_CHILD:
        tell(runner, "%s", note->text);
        return;
    }
}

/* ---- signals ---- */

static void on_signals(void *context)
{
    struct runner *runner = context;
    struct signalfd_siginfo info;
    while (read(runner->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (runner->is_stopping) {
            runner->is_interrupted = true;
            worker_stop(runner->worker);
            return;
        }
        runner->is_stopping = true;
        treadle_worker_drain(runner->worker);
    }
}

/* After the zygote was forked: what it starts has signals as we were given them. */
static bool open_signals(struct runner *runner)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    if (pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR) {
        return false;
    }
    runner->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    return runner->signal_fd != -1 &&
           worker_watch(runner->worker, runner->signal_fd, on_signals, runner) == TREADLE_OK;
}

/* ---- from beginning to end ---- */

/* Commands get 0, 1 and 2 put in the place of ours, so ours must be there. */
static void provide_standard_fds(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd != -1 && fd <= STDERR_FILENO) {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    }
    if (fd != -1) {
        close(fd);
    }
}

static int fail(const struct runner *runner, enum treadle_status status, const char *text)
{
    const char *file = status == TREADLE_E_KEY ? NULL : runner->options->file;
    (void)fprintf(stderr, "treadle: work: %s%s%s\n", file == NULL ? "" : file,
                  file == NULL ? "" : ": ", text[0] != '\0' ? text : treadle_status_text(status));
    if (status == TREADLE_E_KEY) {
        return EX_CONFIG;
    }
    if (status != TREADLE_E_INVALID) {
        return EX_OSERR;
    }
    return file == NULL ? EX_USAGE : EX_CONFIG;
}

static int serve(struct runner *runner)
{
    if (!open_signals(runner)) {
        const char *text = strerrordesc_np(errno);
        return fail(runner, TREADLE_E_IO, text != NULL ? text : "no signals");
    }
    const enum treadle_status status = treadle_worker_run(runner->worker);
    if (runner->is_interrupted) {
        return EXIT_INTERRUPTED;
    }
    switch ((int)status) {
    case TREADLE_OK:
        return EX_OK;
    case TREADLE_E_REFUSED: /* said as it came */
        return EX_NOPERM;
    default:
        return fail(runner, status, treadle_worker_error(runner->worker));
    }
}

int runner_main(const struct runner_options *options)
{
    struct runner runner = {.options = options, .signal_fd = -1};
    struct worker_config config = options->worker;
    struct orphans orphans;
    int exit_code = EX_OK;
    config.context = &runner;
    config.on_note = on_note;
    provide_standard_fds();
    orphans_adopt(&orphans);
    const enum treadle_status status = worker_create(&runner.worker, &config);
    if (status != TREADLE_OK) {
        return fail(&runner, status, treadle_worker_error(NULL));
    }
    if (worker_has_identity(runner.worker)) {
        key_protect_process();
    }
    if (!options->is_check) {
        exit_code = serve(&runner);
    }
    treadle_worker_destroy(&runner.worker); /* nothing runs on */
    if (exit_code == EX_OSERR) { /* unless the zygote was killed, it has left nothing behind */
        orphans_end(&orphans);
    }
    if (runner.signal_fd != -1) {
        close(runner.signal_fd);
    }
    return exit_code;
}
