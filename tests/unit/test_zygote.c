/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "worker/exec/children.h"
#include "worker/exec/runs.h"
#include "worker/exec/zygote.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

#define EVENT_WAIT_MS 10000
#define KILL_WAIT_MS  1000

/* ---- the commands and the child ---- */

enum command {
    COMMAND_SHELL, /* runs the script in its variable SCRIPT */
    COMMAND_MISSING,
    COMMAND_FORBIDDEN,
    COMMAND_COUNT,
};

static char shell[] = "sh";
static char option[] = "-c";
static char evaluation[] = "eval \"$SCRIPT\"";
static char missing[] = "/no/such/program";
static char forbidden[] = "/etc/passwd";
static char *shell_command[] = {shell, option, evaluation, NULL};
static char *missing_command[] = {missing, NULL};
static char *forbidden_command[] = {forbidden, NULL};
static char *const *commands[COMMAND_COUNT] = {shell_command, missing_command, forbidden_command};

enum child {
    CHILD_TELLS_FDS = 1, /* writes what it finds to its second descriptor */
    CHILD_SPINS,
    CHILD_ALLOCATES,
    CHILD_HANGS,
};

static uint32_t fd_count(void)
{
    uint32_t count = 0;
    DIR *fds = opendir("/proc/self/fd");
    if (fds == NULL) {
        return 0;
    }
    while (readdir(fds) != NULL) { /* NOLINT(concurrency-mt-unsafe): its own DIR */
        count++;
    }
    closedir(fds);
    return count - 3; /* ".", ".." and the directory itself */
}

static int child_main(void *context, const struct zygote_child *child)
{
    switch ((enum child)child->index) {
    case CHILD_TELLS_FDS: {
        char first = '?';
        uint8_t input;
        (void)!read(child->fds[0], &first, 1);
        const bool is_input_empty = read(STDIN_FILENO, &input, 1) == 0;
        dprintf(child->fds[1], "%s %c %u %u %d", (const char *)context, first, child->fd_count,
                fd_count(), is_input_empty);
        return 0;
    }
    case CHILD_SPINS: {
        const clock_t until = clock() + CLOCKS_PER_SEC / 20;
        while (clock() < until) {
        }
        return 5;
    }
    case CHILD_ALLOCATES: {
        void *volatile block = malloc((size_t)256 * 1024 * 1024);
        const int status = block == NULL ? 3 : 4;
        free(block);
        return status;
    }
    case CHILD_HANGS:
        (void)pause();
        return 0;
    }
    return 99;
}

/* ---- the words of the tests ---- */

static char child_context[] = "context";
static const struct zygote_config config = {
    .commands = commands,
    .command_count = COMMAND_COUNT,
    .child_main = child_main,
    .child_context = child_context,
};

static struct zygote *zygote;
static uint64_t last_run;

static int set_up(void **unused)
{
    (void)unused;
    last_run = 0;
    return zygote_open(&zygote, &config) == TREADLE_OK ? 0 : -1;
}

static int tear_down(void **unused)
{
    (void)unused;
    zygote_close(&zygote);
    return 0;
}

static struct zygote_event next_event(void)
{
    struct zygote_event event;
    struct pollfd ready = {.fd = zygote_fd(zygote), .events = POLLIN};
    while (!zygote_next_event(zygote, &event)) {
        assert_int_equal(poll(&ready, 1, EVENT_WAIT_MS), 1);
    }
    return event;
}

static struct zygote_event when_it_ends(uint64_t run)
{
    struct zygote_event event;
    do {
        event = next_event();
        assert_true(event.kind == ZYGOTE_EVENT_STARTED || event.kind == ZYGOTE_EVENT_ENDED);
    } while (event.kind != ZYGOTE_EVENT_ENDED || event.run != run);
    return event;
}

/* Starts a script whose output, and that of all that comes from it, goes to `output`. */
static uint64_t start_script(const char *script, char *const *more, int output)
{
    char variable[1024];
    char *environment[4] = {variable};
    assert_true(snprintf(variable, sizeof(variable), "SCRIPT=%s", script) < (int)sizeof(variable));
    for (size_t i = 0; more != NULL && more[i] != NULL; i++) {
        environment[i + 1] = more[i];
    }
    const int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
    last_run++;
    const struct zygote_start start = {
        .run = last_run,
        .kind = ZYGOTE_COMMAND,
        .index = COMMAND_SHELL,
        .fds = {input, output, STDERR_FILENO},
        .fd_count = 3,
        .environment = environment,
    };
    assert_int_equal(zygote_start(zygote, &start), TREADLE_OK);
    close(input);
    return last_run;
}

static uint64_t start_child(enum child child, const int *fds, uint32_t count, uint64_t memory_max)
{
    last_run++;
    struct zygote_start start = {
        .run = last_run,
        .kind = ZYGOTE_CHILD,
        .index = child,
        .fd_count = count,
        .memory_max = memory_max,
    };
    for (uint32_t i = 0; i < count; i++) {
        start.fds[i] = fds[i];
    }
    assert_int_equal(zygote_start(zygote, &start), TREADLE_OK);
    return last_run;
}

/* A script with a pipe for its output, of which only its processes have the writing end. */
struct piped {
    uint64_t run;
    int fd;
};

static struct piped given_a_script(const char *script)
{
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    struct piped piped = {.run = start_script(script, NULL, fds[1]), .fd = fds[0]};
    close(fds[1]);
    return piped;
}

/* Until it has written `text` itself, or all that is there to its end. */
static void then_output_is(int fd, const char *text)
{
    char output[4096];
    size_t size = 0;
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    while (size < strlen(text)) {
        assert_int_equal(poll(&ready, 1, EVENT_WAIT_MS), 1);
        const ssize_t more = read(fd, output + size, sizeof(output) - 1 - size);
        assert_true(more > 0);
        size += (size_t)more;
    }
    output[size] = '\0';
    assert_string_equal(output, text);
}

/* Whoever wrote to the pipe is dead: it is at its end. */
static void then_nobody_is_left(int fd)
{
    char rest;
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, KILL_WAIT_MS), 1);
    assert_int_equal(read(fd, &rest, 1), 0);
    close(fd);
}

static bool is_anybody_left(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return poll(&ready, 1, 100) == 0;
}

/* Two processes that outlive a script unless somebody sees to it: one in its group that ignores
 * SIGTERM, one that left group, session and parent. Both have started when they have written. */
#define LEAVES_TWO_BEHIND                                                                          \
    "sh -c 'trap \"\" TERM; printf a; sleep 600; :' & "                                            \
    "( setsid sh -c 'trap \"\" TERM HUP; sleep 0.1; printf b; sleep 600; :' & ) "

/* ---- the tests ---- */

static void test_a_run_tells_its_start_its_exit_status_and_what_it_used(void **unused)
{
    (void)unused;
    const uint64_t run = start_child(CHILD_SPINS, NULL, 0, 0);
    struct zygote_event event = next_event();
    assert_int_equal(event.kind, ZYGOTE_EVENT_STARTED);
    assert_int_equal(event.run, run);
    const pid_t pid = event.pid;
    assert_true(pid > 0);
    assert_int_equal(getpgid(pid), pid);
    event = next_event();
    assert_int_equal(event.kind, ZYGOTE_EVENT_ENDED);
    assert_int_equal(event.run, run);
    assert_int_equal(event.pid, pid);
    assert_true(WIFEXITED(event.wait_state));
    assert_int_equal(WEXITSTATUS(event.wait_state), 5);
    assert_in_range(event.user_ms + event.system_ms, 40, 5000);
    assert_true(event.max_rss_kib > 0);
    event = when_it_ends(start_script("kill -KILL $$", NULL, STDOUT_FILENO));
    assert_true(WIFSIGNALED(event.wait_state));
    assert_int_equal(WTERMSIG(event.wait_state), SIGKILL);
}

static void test_what_cannot_be_executed_says_why(void **unused)
{
    (void)unused;
    static const struct {
        enum command command;
        int error;
    } cases[] = {{COMMAND_MISSING, ENOENT}, {COMMAND_FORBIDDEN, EACCES}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct zygote_start start = {
            .run = i + 1,
            .kind = ZYGOTE_COMMAND,
            .index = cases[i].command,
            .fds = {0, 1, 2},
            .fd_count = 3,
        };
        assert_int_equal(zygote_start(zygote, &start), TREADLE_OK);
        const struct zygote_event event = next_event();
        assert_int_equal(event.kind, ZYGOTE_EVENT_NOT_STARTED);
        assert_int_equal(event.run, i + 1);
        assert_int_equal(event.error, cases[i].error);
    }
}

static void test_a_child_has_its_descriptors_and_no_others(void **unused)
{
    (void)unused;
    int in[2];
    int out[2];
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(write(in[1], "x", 1), 1);
    start_child(CHILD_TELLS_FDS, (int[]){in[0], out[1], out[1]}, 3, 0);
    then_output_is(out[0], "context x 3 6 1");
    for (int i = 0; i < 2; i++) {
        close(in[i]);
        close(out[i]);
    }
}

static void test_a_command_has_three_descriptors_and_no_others(void **unused)
{
    (void)unused;
    const struct piped other = given_a_script("sleep 600");
    const struct piped piped = given_a_script("echo $(ls /proc/self/fd)");
    then_output_is(piped.fd, "0 1 2 3\n"); /* 3: of ls, for the directory */
    then_nobody_is_left(piped.fd);
    close(other.fd);
}

static void test_the_environment_is_added_to_and_replaced_and_bare_of_secrets(void **unused)
{
    (void)unused;
    char added[] = "TREADLE_TASK=mine";
    char replaced[] = "LANG=replaced";
    char *more[] = {added, replaced, NULL};
    char path[] = "PATH=/usr/bin:/bin";
    char language[] = "LANG=usual";
    char longer[] = "LANGUAGE=kept";
    char secret[] = "TREADLE_IDENTITY=secret";
    char service[] = "TREADLE_SERVICE=of another";
    char *inherited[] = {path, language, longer, secret, service, NULL};
    char **usual = environ;
    int fds[2];
    zygote_close(&zygote);
    environ = inherited;
    const enum treadle_status status = zygote_open(&zygote, &config);
    environ = usual;
    assert_int_equal(status, TREADLE_OK);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    start_script("env | grep -v -e ^PWD -e ^_ -e ^SHLVL -e ^SCRIPT -e ^OLDPWD | sort", more,
                 fds[1]);
    close(fds[1]);
    then_output_is(fds[0], "LANG=replaced\nLANGUAGE=kept\nPATH=/usr/bin:/bin\n"
                           "TREADLE_TASK=mine\n");
    then_nobody_is_left(fds[0]);
}

static void test_an_environment_that_is_too_large_is_refused(void **unused)
{
    (void)unused;
    static char variable[131072 + 1];
    memset(variable, 'x', sizeof(variable) - 1);
    char *environment[] = {variable, NULL};
    struct zygote_start start = {.run = 1,
                                 .kind = ZYGOTE_COMMAND,
                                 .fds = {0, 1, 2},
                                 .fd_count = 3,
                                 .environment = environment};
    assert_int_equal(zygote_start(zygote, &start), TREADLE_E_LIMIT);
    variable[131071] = '\0';
    assert_int_equal(zygote_start(zygote, &start), TREADLE_OK);
    assert_int_equal(when_it_ends(1).wait_state, 0);
}

static void test_the_end_of_a_run_ends_its_group_and_what_escaped(void **unused)
{
    (void)unused;
    const struct piped piped = given_a_script(LEAVES_TWO_BEHIND "; sleep 0.3; exit 3");
    then_output_is(piped.fd, "ab");
    const struct zygote_event event = when_it_ends(piped.run);
    assert_int_equal(WEXITSTATUS(event.wait_state), 3);
    then_nobody_is_left(piped.fd);
}

static void test_a_kill_ends_the_group_and_what_escaped_and_a_sigterm_what_minds_it(void **unused)
{
    (void)unused;
    const struct piped piped = given_a_script("trap '' TERM;" LEAVES_TWO_BEHIND "; sleep 600; :");
    const struct piped other = given_a_script("trap 'printf stopped; exit 0' TERM; printf c; "
                                              "sleep 600 & wait");
    then_output_is(piped.fd, "ab");
    then_output_is(other.fd, "c");
    zygote_signal(zygote, piped.run, SIGTERM);
    zygote_signal(zygote, other.run, SIGTERM);
    zygote_signal(zygote, 4711, SIGKILL);
    when_it_ends(other.run);
    then_output_is(other.fd, "stopped");
    then_nobody_is_left(other.fd);
    assert_true(is_anybody_left(piped.fd));
    zygote_signal(zygote, piped.run, SIGKILL);
    const struct zygote_event event = when_it_ends(piped.run);
    assert_int_equal(WTERMSIG(event.wait_state), SIGKILL);
    then_nobody_is_left(piped.fd);
}

static void test_a_run_may_have_processes_in_the_background_as_long_as_it_lives(void **unused)
{
    (void)unused;
    const struct piped piped =
        given_a_script("( setsid sh -c 'sleep 0.3; printf alive; sleep 600' & ); sleep 600");
    when_it_ends(start_script(":", NULL, STDOUT_FILENO)); /* has others looked for */
    then_output_is(piped.fd, "alive");
    zygote_signal(zygote, piped.run, SIGKILL);
    then_nobody_is_left(piped.fd);
}

static void test_closing_ends_everything(void **unused)
{
    (void)unused;
    const struct piped piped = given_a_script(LEAVES_TWO_BEHIND "; sleep 600; :");
    then_output_is(piped.fd, "ab");
    const pid_t pid = zygote_pid(zygote);
    zygote_close(&zygote);
    assert_null(zygote);
    assert_int_equal(kill(pid, 0), -1);
    then_nobody_is_left(piped.fd);
}

/* A worker that somebody kills. It has the only ends of its zygote's socket and of a pipe; `copy`
 * is a process that has them too, as a fork of a careless program would. */
static pid_t fork_supervisor(int output, bool has_copy)
{
    const pid_t supervisor = fork();
    if (supervisor != 0) {
        return supervisor;
    }
    if (zygote_open(&zygote, &config) != TREADLE_OK) {
        _exit(1);
    }
    start_script(LEAVES_TWO_BEHIND "; sleep 600; :", NULL, output);
    start_child(CHILD_HANGS, &output, 1, 0);
    if (has_copy && fork() == 0) {
        close(output);
        (void)alarm(2);
        (void)pause();
    }
    for (;;) {
        (void)pause();
    }
}

/* As fork_supervisor() with a copy; and it does not listen, so that its zygote has to wait. */
static pid_t fork_deaf_supervisor(int output)
{
    const pid_t supervisor = fork();
    if (supervisor != 0) {
        return supervisor;
    }
    if (zygote_open(&zygote, &config) != TREADLE_OK) {
        _exit(1);
    }
    start_child(CHILD_HANGS, &output, 1, 0);
    for (int i = 0; i < 1000; i++) {
        start_child(99, NULL, 0, 0);
    }
    if (fork() == 0) {
        close(output);
        (void)alarm(4);
        (void)pause();
    }
    (void)!write(output, "a", 1);
    for (;;) {
        (void)pause();
    }
}

static void then_a_killed_supervisor_leaves_nothing(bool has_copy)
{
    int fds[2];
    zygote_close(&zygote);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    const pid_t supervisor = fork_supervisor(fds[1], has_copy);
    close(fds[1]);
    then_output_is(fds[0], "ab");
    assert_int_equal(kill(supervisor, SIGKILL), 0);
    assert_int_equal(waitpid(supervisor, NULL, 0), supervisor);
    then_nobody_is_left(fds[0]);
}

static void test_the_supervisors_death_by_sigkill_ends_everything(void **unused)
{
    (void)unused;
    then_a_killed_supervisor_leaves_nothing(false);
}

static void test_the_supervisors_death_counts_also_when_somebody_holds_its_socket(void **unused)
{
    (void)unused;
    then_a_killed_supervisor_leaves_nothing(true);
}

static void test_the_death_of_a_supervisor_that_did_not_listen_ends_everything(void **unused)
{
    (void)unused;
    int fds[2];
    zygote_close(&zygote);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    const pid_t supervisor = fork_deaf_supervisor(fds[1]);
    close(fds[1]);
    then_output_is(fds[0], "a");
    (void)usleep(500000); /* for the zygote to be stuck */
    assert_int_equal(kill(supervisor, SIGKILL), 0);
    assert_int_equal(waitpid(supervisor, NULL, 0), supervisor);
    then_nobody_is_left(fds[0]);
}

static void test_a_copy_of_the_supervisor_does_not_end_the_zygote(void **unused)
{
    (void)unused;
    const pid_t zygote_process = zygote_pid(zygote);
    const pid_t copy = fork();
    if (copy == 0) {
        zygote_close(&zygote);
        _exit(zygote == NULL ? 0 : 1);
    }
    int state = -1;
    assert_int_equal(waitpid(copy, &state, 0), copy);
    assert_int_equal(state, 0);
    assert_int_equal(kill(zygote_process, 0), 0);
    when_it_ends(start_script(":", NULL, STDOUT_FILENO));
}

/* How many of descriptors 0, 1 and 2 are what /dev/null is, when they were closed. */
static int count_provided(void)
{
    int count = 0;
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        close(fd);
    }
    if (zygote_open(&zygote, &config) != TREADLE_OK) {
        return -1;
    }
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        struct stat state;
        count += fstat(fd, &state) == 0 && S_ISCHR(state.st_mode);
    }
    zygote_close(&zygote);
    return count;
}

static void test_nothing_takes_the_place_of_a_closed_output(void **unused)
{
    (void)unused;
    int state = -1;
    const pid_t pid = fork();
    if (pid == 0) {
        _exit(count_provided());
    }
    assert_int_equal(waitpid(pid, &state, 0), pid);
    assert_true(WIFEXITED(state));
    assert_int_equal(WEXITSTATUS(state), 3);
}

static void test_a_terminals_signals_leave_the_zygote_alone(void **unused)
{
    (void)unused;
    static const int signals[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGTSTP,
                                  SIGPIPE, SIGUSR1, SIGALRM, SIGCHLD};
    const pid_t pid = zygote_pid(zygote);
    assert_int_equal(getpgid(pid), pid);
    const struct piped piped = given_a_script("printf on; sleep 600");
    then_output_is(piped.fd, "on");
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        assert_int_equal(kill(pid, signals[i]), 0);
    }
    when_it_ends(start_script(":", NULL, STDOUT_FILENO));
    assert_true(is_anybody_left(piped.fd));
    close(piped.fd);
}

static void test_the_zygotes_death_ends_its_runs_and_is_told_once(void **unused)
{
    (void)unused;
    const struct piped piped = given_a_script("printf on; exec sleep 600");
    then_output_is(piped.fd, "on");
    assert_int_equal(next_event().kind, ZYGOTE_EVENT_STARTED);
    assert_int_equal(kill(zygote_pid(zygote), SIGKILL), 0);
    struct zygote_event event = next_event();
    assert_int_equal(event.kind, ZYGOTE_EVENT_GONE);
    assert_false(zygote_next_event(zygote, &event));
    then_nobody_is_left(piped.fd);
    struct pollfd ready = {.fd = zygote_fd(zygote), .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 0), 0);
    const struct zygote_start start = {.run = 9, .kind = ZYGOTE_CHILD, .index = CHILD_HANGS};
    assert_int_equal(zygote_start(zygote, &start), TREADLE_E_IO);
    zygote_signal(zygote, piped.run, SIGKILL);
}

static void test_a_hundred_runs_at_a_time(void **unused)
{
    (void)unused;
    bool has_ended[101] = {false};
    for (int i = 0; i < 100; i++) {
        start_script("sleep 0.1; exit 9", NULL, STDOUT_FILENO);
    }
    for (int ended_count = 0; ended_count < 100;) {
        const struct zygote_event event = next_event();
        if (event.kind == ZYGOTE_EVENT_ENDED) {
            assert_in_range(event.run, 1, 100);
            assert_false(has_ended[event.run]);
            assert_int_equal(WEXITSTATUS(event.wait_state), 9);
            has_ended[event.run] = true;
            ended_count++;
        }
    }
}

static void test_requests_wait_while_the_zygote_is_busy(void **unused)
{
    (void)unused;
    static char filling[65536];
    memset(filling, 'x', sizeof(filling) - 1);
    filling[snprintf(filling, sizeof(filling), "FILLING=")] = 'x';
    char *more[] = {filling, NULL};
    struct pollfd ready = {.fd = zygote_fd(zygote), .events = POLLIN};
    assert_int_equal(kill(zygote_pid(zygote), SIGSTOP), 0);
    const int output = open("/dev/null", O_WRONLY | O_CLOEXEC);
    const uint32_t fds_before = fd_count();
    for (int i = 0; i < 20; i++) {
        const uint64_t run = start_script("trap '' TERM; [ ${#FILLING} = 65527 ] || exit 1; "
                                          "sleep 600",
                                          more, output);
        zygote_signal(zygote, run, SIGKILL);
    }
    assert_true(fd_count() > fds_before); /* some wait at this side */
    close(output);
    assert_int_equal(poll(&ready, 1, 0), 0);
    assert_int_equal(kill(zygote_pid(zygote), SIGCONT), 0);
    for (uint64_t ended_count = 0; ended_count < 20;) {
        const struct zygote_event event = next_event();
        if (event.kind == ZYGOTE_EVENT_ENDED) {
            assert_int_equal(event.wait_state, SIGKILL);
            ended_count++;
        }
    }
    assert_int_equal(fd_count(), fds_before - 1);
}

static void test_a_child_over_its_memory_limit_gets_no_more(void **unused)
{
    (void)unused;
    if (IS_SANITIZED) {
        skip(); /* the sanitizers' own memory is beyond any limit */
    }
    uint64_t run = start_child(CHILD_ALLOCATES, NULL, 0, UINT64_C(64) * 1024 * 1024);
    assert_int_equal(WEXITSTATUS(when_it_ends(run).wait_state), 3);
    run = start_child(CHILD_ALLOCATES, NULL, 0, 0);
    assert_int_equal(WEXITSTATUS(when_it_ends(run).wait_state), 4);
}

static void *sleep_a_while(void *event_fd)
{
    char rest;
    (void)!read(*(int *)event_fd, &rest, 1);
    return NULL;
}

static void test_a_process_with_threads_is_refused(void **unused)
{
    (void)unused;
    int fds[2];
    pthread_t thread;
    struct zygote *refused = NULL;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&thread, NULL, sleep_a_while, &fds[0]), 0);
    assert_int_equal(zygote_open(&refused, &config), TREADLE_E_THREADS);
    assert_null(refused);
    close(fds[1]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    close(fds[0]);
}

/* ---- who owns a run ---- */

struct owner {
    struct run_link link;
    struct zygote_event events[4];
    uint32_t event_count;
};

static void on_event(struct run_link *link, const struct zygote_event *event)
{
    struct owner *owner = (struct owner *)(void *)link; /* its first member */
    assert_true(owner->event_count < 4);
    owner->events[owner->event_count] = *event;
    owner->event_count++;
}

static void test_events_go_to_the_owner_of_a_run_until_it_abandons_it(void **unused)
{
    (void)unused;
    struct owner owners[100] = {0};
    struct runs *runs = runs_create(zygote);
    assert_non_null(runs);
    for (uint32_t i = 0; i < 100; i++) {
        struct zygote_start start = {.kind = ZYGOTE_CHILD};
        start.index = i % 2 == 0 ? CHILD_HANGS : 77;
        owners[i].link.on_event = on_event;
        assert_int_equal(runs_start(runs, &owners[i].link, &start), TREADLE_OK);
        assert_true(owners[i].link.number > 0);
    }
    runs_abandon(runs, &owners[0].link);
    runs_abandon(runs, &owners[1].link);
    for (uint32_t i = 2; i < 100; i += 2) {
        runs_signal(runs, &owners[i].link, i == 2 ? SIGTERM : SIGKILL);
    }
    struct pollfd ready = {.fd = runs_fd(runs), .events = POLLIN};
    for (uint32_t ended_count = 0; ended_count < 98;) {
        assert_int_equal(poll(&ready, 1, EVENT_WAIT_MS), 1);
        runs_on_ready(runs);
        ended_count = 0;
        for (uint32_t i = 0; i < 100; i++) {
            ended_count += owners[i].event_count == 2 ? 1 : 0;
        }
    }
    assert_int_equal(owners[0].event_count + owners[1].event_count, 0);
    for (uint32_t i = 2; i < 100; i++) {
        assert_int_equal(owners[i].link.number, 0);
        assert_int_equal(owners[i].events[0].kind, ZYGOTE_EVENT_STARTED);
        assert_int_equal(owners[i].events[1].kind, ZYGOTE_EVENT_ENDED);
        const int expected = i == 2 ? SIGTERM : SIGKILL;
        assert_int_equal(owners[i].events[1].wait_state, i % 2 == 0 ? expected : 99 << 8);
    }
    runs_destroy(&runs);
    assert_null(runs);
}

static void test_every_owner_is_told_once_that_the_zygote_is_gone(void **unused)
{
    (void)unused;
    struct owner owners[2] = {0};
    struct runs *runs = runs_create(zygote);
    assert_non_null(runs);
    for (int i = 0; i < 2; i++) {
        struct zygote_start start = {.kind = ZYGOTE_CHILD, .index = CHILD_HANGS};
        owners[i].link.on_event = on_event;
        assert_int_equal(runs_start(runs, &owners[i].link, &start), TREADLE_OK);
    }
    struct pollfd ready = {.fd = runs_fd(runs), .events = POLLIN};
    assert_int_equal(kill(zygote_pid(zygote), SIGKILL), 0);
    for (uint32_t i = 0; i < 2; i++) {
        while (owners[i].link.number != 0) {
            assert_int_equal(poll(&ready, 1, EVENT_WAIT_MS), 1);
            runs_on_ready(runs);
        }
        runs_on_ready(runs);
        assert_in_range(owners[i].event_count, 1, 2); /* STARTED may have come before */
        assert_int_equal(owners[i].events[owners[i].event_count - 1].kind, ZYGOTE_EVENT_GONE);
    }
    runs_destroy(&runs);
}

/* ---- children ---- */

struct found {
    pid_t pids[2];
    uint32_t count; /* of those */
};

static void look_for(void *context, pid_t child)
{
    struct found *found = context;
    found->count += child == found->pids[0] || child == found->pids[1] ? 1 : 0;
}

static void test_children_are_found_in_the_kernels_list_and_by_their_parent(void **unused)
{
    (void)unused;
    struct found found;
    const struct children_visitor visitor = {&found, look_for};
    found.pids[0] = zygote_pid(zygote); /* its name is not that of the program */
    found.pids[1] = fork();
    if (found.pids[1] == 0) {
        _exit(0); /* dead, but not waited for */
    }
    found.count = 0;
    if (children_list(&visitor)) { /* not every kernel has it */
        assert_int_equal(found.count, 2);
    }
    found.count = 0;
    assert_true(children_scan(&visitor));
    assert_int_equal(found.count, 2);
    assert_int_equal(waitpid(found.pids[1], NULL, 0), found.pids[1]);
}

int main(void)
{
#define SENTENCE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SENTENCE(test_a_run_tells_its_start_its_exit_status_and_what_it_used),
        SENTENCE(test_what_cannot_be_executed_says_why),
        SENTENCE(test_a_child_has_its_descriptors_and_no_others),
        SENTENCE(test_a_command_has_three_descriptors_and_no_others),
        SENTENCE(test_the_environment_is_added_to_and_replaced_and_bare_of_secrets),
        SENTENCE(test_an_environment_that_is_too_large_is_refused),
        SENTENCE(test_the_end_of_a_run_ends_its_group_and_what_escaped),
        SENTENCE(test_a_kill_ends_the_group_and_what_escaped_and_a_sigterm_what_minds_it),
        SENTENCE(test_a_run_may_have_processes_in_the_background_as_long_as_it_lives),
        SENTENCE(test_closing_ends_everything),
        SENTENCE(test_the_supervisors_death_by_sigkill_ends_everything),
        SENTENCE(test_the_supervisors_death_counts_also_when_somebody_holds_its_socket),
        SENTENCE(test_the_death_of_a_supervisor_that_did_not_listen_ends_everything),
        SENTENCE(test_a_copy_of_the_supervisor_does_not_end_the_zygote),
        SENTENCE(test_nothing_takes_the_place_of_a_closed_output),
        SENTENCE(test_a_terminals_signals_leave_the_zygote_alone),
        SENTENCE(test_the_zygotes_death_ends_its_runs_and_is_told_once),
        SENTENCE(test_a_hundred_runs_at_a_time),
        SENTENCE(test_requests_wait_while_the_zygote_is_busy),
        SENTENCE(test_a_child_over_its_memory_limit_gets_no_more),
        SENTENCE(test_a_process_with_threads_is_refused),
        SENTENCE(test_events_go_to_the_owner_of_a_run_until_it_abandons_it),
        SENTENCE(test_every_owner_is_told_once_that_the_zygote_is_gone),
        SENTENCE(test_children_are_found_in_the_kernels_list_and_by_their_parent),
    };
    return cmocka_run_group_tests_name("zygote", tests, NULL, NULL);
}
