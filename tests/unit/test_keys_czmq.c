/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <czmq.h>
#include <sodium.h>

#include "common/keys/keys.h"

static char why[KEY_WHY_SIZE];

static void test_czmq_reads_what_was_written_and_the_other_way_round(void **unused)
{
    (void)unused;
    char dir[] = "/tmp/treadle-keys-XXXXXX";
    char path[64];
    struct key_pair *pair = NULL;
    struct key_pair *theirs = NULL;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(key_pair_create(&pair), TREADLE_OK);
    assert_int_equal(key_pair_write(pair, "ours", dir, why), TREADLE_OK);

    (void)snprintf(path, sizeof(path), "%s/ours.key", dir);
    zcert_t *ours = zcert_load(path);
    assert_non_null(ours);
    assert_memory_equal(zcert_public_key(ours), key_pair_public(pair), KEY_SIZE);
    assert_memory_equal(zcert_secret_key(ours), key_pair_secret(pair), KEY_SIZE);
    assert_string_equal(zcert_meta(ours, "name"), "ours");
    zcert_destroy(&ours);
    assert_int_equal(unlink(path), 0);
    (void)snprintf(path, sizeof(path), "%s/ours.pub", dir);
    ours = zcert_load(path);
    assert_non_null(ours);
    assert_memory_equal(zcert_public_key(ours), key_pair_public(pair), KEY_SIZE);
    zcert_destroy(&ours);
    assert_int_equal(unlink(path), 0);

    zcert_t *cert = zcert_new();
    zcert_set_meta(cert, "name", "%s", "theirs");
    (void)snprintf(path, sizeof(path), "%s/theirs", dir);
    assert_int_equal(zcert_save(cert, path), 0);
    assert_int_equal(unlink(path), 0);
    (void)snprintf(path, sizeof(path), "%s/theirs_secret", dir);
    assert_int_equal(key_pair_open(&theirs, path, why), TREADLE_OK);
    assert_memory_equal(zcert_public_key(cert), key_pair_public(theirs), KEY_SIZE);
    assert_memory_equal(zcert_secret_key(cert), key_pair_secret(theirs), KEY_SIZE);
    zcert_destroy(&cert);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
    key_pair_close(&pair);
    key_pair_close(&theirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_czmq_reads_what_was_written_and_the_other_way_round),
    };
    return sodium_init() == -1 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
