/* SPDX-License-Identifier: MPL-2.0 */
/* What libzmq's listeners see of the kernel's accept4(): a filter lets it fail as asked. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define ASKED_FAILURE 0x1000 /* of a descriptor: this and the errno, which no open one is */

/* accept4() of such a descriptor fails with the errno that it names, from now on; no other call. */
static void let_accept_fail_as_asked(void)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_accept4, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)), /* low half */
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ASKED_FAILURE, 0, 2),
        BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, SECCOMP_RET_ERRNO - ASKED_FAILURE),
        BPF_STMT(BPF_RET | BPF_A, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof steps / sizeof steps[0], steps};
    assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

/* The errno that comes of one of the kernel's. */
static int seen_for(int error_number)
{
    errno = 0;
    assert_int_equal(accept4(ASKED_FAILURE + error_number, NULL, NULL, SOCK_CLOEXEC), -1);
    return errno;
}

static void test_no_shortage_ends_a_listener(void **unused)
{
    static const int shortages[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, EACCES};
    (void)unused;
    let_accept_fail_as_asked();
    for (size_t i = 0; i < sizeof shortages / sizeof shortages[0]; i++) {
        assert_int_equal(seen_for(shortages[i]), ENFILE);
    }
}

static void test_other_failures_are_told_as_they_are(void **unused)
{
    static const int others[] = {EAGAIN, EINTR, ECONNABORTED, EPROTO, EBADF, EINVAL, ENOTSOCK};
    (void)unused;
    let_accept_fail_as_asked();
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_int_equal(seen_for(others[i]), others[i]);
    }
}

/* A listener, and a peer that has connected to it. */
static int given_a_peer(int *peer)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX}; /* the kernel picks a name */
    socklen_t size = sizeof address.sun_family;
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    size = sizeof address;
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(connect(*peer, (struct sockaddr *)&address, size), 0);
    return listener;
}

static void test_last_descriptors_are_kept(void **unused)
{
    int peer = -1;
    char byte = 0;
    struct rlimit limit;
    (void)unused;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    const struct rlimit narrow = {16, limit.rlim_max}; /* as many as are kept */
    int listener = given_a_peer(&peer);
    const int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(accepted >= 0);
    (void)close(accepted);
    (void)close(peer);
    (void)close(listener);

    listener = given_a_peer(&peer);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &narrow), 0);
    assert_int_equal(accept4(listener, NULL, NULL, SOCK_CLOEXEC), -1);
    assert_int_equal(errno, ECONNABORTED);
    assert_int_equal(read(peer, &byte, 1), 0); /* it was closed */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    (void)close(peer);
    (void)close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last_descriptors_are_kept),
        cmocka_unit_test(test_no_shortage_ends_a_listener),
        cmocka_unit_test(test_other_failures_are_told_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
