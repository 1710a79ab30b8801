/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/base/map.h"
#include "common/base/prng.h"
#include "tests/unit/dies.h"

/* The model: the key of each value, 0 for values that are not in the map. */
#define VALUE_COUNT 512

static uint64_t keys[VALUE_COUNT];
static struct map map;
static void *memory;

static bool has_key(const void *context, uint32_t value, const void *key)
{
    const uint64_t *all = context;
    return all[value] == *(const uint64_t *)key;
}

static uint32_t find(uint64_t hash, uint64_t key)
{
    return map_find(&map, hash, has_key, keys, &key);
}

static void given_a_map(uint32_t count_max)
{
    memset(keys, 0, sizeof(keys));
    memory = calloc(1, map_memory_size(count_max));
    assert_non_null(memory);
    map_init(&map, memory, count_max);
}

static int free_memory(void **unused)
{
    (void)unused;
    free(memory);
    memory = NULL;
    return 0;
}

static void add(uint64_t hash, uint64_t key, uint32_t value)
{
    keys[value] = key;
    map_add(&map, hash, value);
}

static void test_key_is_found_after_it_was_added_and_not_after_it_was_removed(void **unused)
{
    (void)unused;
    given_a_map(10);
    assert_int_equal(find(7, 70), MAP_NONE);
    add(7, 70, 0);
    assert_int_equal(find(7, 70), 0);
    assert_int_equal(map_count(&map), 1);
    map_remove(&map, 7, 0);
    assert_int_equal(find(7, 70), MAP_NONE);
    assert_int_equal(map_count(&map), 0);
}

static void test_keys_of_one_hash_are_told_apart(void **unused)
{
    (void)unused;
    given_a_map(10);
    add(7, 70, 3);
    add(7, 71, 4);
    add(7, 72, 5);
    assert_int_equal(find(7, 71), 4);
    map_remove(&map, 7, 3);
    assert_int_equal(find(7, 70), MAP_NONE);
    assert_int_equal(find(7, 71), 4);
    assert_int_equal(find(7, 72), 5);
}

static void test_memory_keeps_the_load_at_two_thirds(void **unused)
{
    (void)unused;
    for (uint32_t count_max = 1; count_max < 5000; count_max++) {
        const size_t places = map_memory_size(count_max) / sizeof(struct map_slot);
        assert_int_equal(places & (places - 1), 0);
        assert_true((uint64_t)count_max * 3 <= (uint64_t)places * 2);
        assert_true(places > count_max);
    }
}

static void test_memory_that_was_used_before_makes_an_empty_map(void **unused)
{
    (void)unused;
    given_a_map(10);
    memset(memory, 0xa5, map_memory_size(10));
    map_init(&map, memory, 10);
    for (uint64_t hash = 0; hash < 100; hash++) {
        assert_int_equal(find(hash, 0), MAP_NONE);
    }
    for (uint32_t value = 0; value < 10; value++) {
        add(value, value + 1, value);
    }
    assert_int_equal(find(3, 4), 3);
}

/* Every value the model knows, and no other, is found. */
static void then_the_map_is_as_the_model_says(const uint64_t *hashes)
{
    uint32_t count = 0;
    for (uint32_t value = 0; value < VALUE_COUNT; value++) {
        if (keys[value] != 0) {
            assert_int_equal(find(hashes[value], keys[value]), value);
            assert_int_equal(find(hashes[value], keys[value] + 1000000), MAP_NONE);
            count++;
        }
    }
    assert_int_equal(map_count(&map), count);
}

/* Hashes of few distinct values make long clusters, also across the end of the memory. */
static void random_history(uint64_t seed, uint64_t hash_count, uint32_t count_max)
{
    struct prng prng;
    uint64_t hashes[VALUE_COUNT] = {0};
    prng_seed(&prng, seed);
    given_a_map(count_max);
    for (int i = 0; i < 20000; i++) {
        const uint32_t value = (uint32_t)prng_below(&prng, VALUE_COUNT);
        if (keys[value] != 0) {
            map_remove(&map, hashes[value], value);
            keys[value] = 0;
        } else if (map_count(&map) < count_max) {
            /* around the end of the memory, and with bits above it */
            hashes[value] =
                prng_below(&prng, hash_count) - hash_count / 2 + (prng_next(&prng) << 32);
            add(hashes[value], prng_below(&prng, 1000000) + 1, value);
        }
        if (i % 100 == 0) {
            then_the_map_is_as_the_model_says(hashes);
        }
    }
    then_the_map_is_as_the_model_says(hashes);
    (void)free_memory(NULL);
}

static void test_random_histories_in_clusters_match_a_naive_model(void **unused)
{
    (void)unused;
    random_history(1, 4, 20);
    random_history(2, 16, 100);
    random_history(3, 300, 341);
    random_history(4, UINT32_MAX, 341);
    random_history(5, 64, 1);
}

static void add_one_more(void *unused)
{
    (void)unused;
    add(9, 9, 9);
}

static void remove_what_is_not_there(void *unused)
{
    (void)unused;
    map_remove(&map, 1, 2);
}

static void
test_adding_over_the_maximum_or_removing_what_is_not_there_is_a_programmers_mistake(void **unused)
{
    (void)unused;
    given_a_map(2);
    add(1, 10, 1);
    assert_false(dies(add_one_more, NULL));
    assert_true(dies(remove_what_is_not_there, NULL));
    add(2, 20, 2);
    assert_true(dies(add_one_more, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_key_is_found_after_it_was_added_and_not_after_it_was_removed,
                                  free_memory),
        cmocka_unit_test_teardown(test_keys_of_one_hash_are_told_apart, free_memory),
        cmocka_unit_test(test_memory_keeps_the_load_at_two_thirds),
        cmocka_unit_test_teardown(test_memory_that_was_used_before_makes_an_empty_map, free_memory),
        cmocka_unit_test(test_random_histories_in_clusters_match_a_naive_model),
        cmocka_unit_test_teardown(
            test_adding_over_the_maximum_or_removing_what_is_not_there_is_a_programmers_mistake,
            free_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
