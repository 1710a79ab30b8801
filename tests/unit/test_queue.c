/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <sched.h>

#include "common/base/queue.h"

static bool is_readable(const struct queue *queue)
{
    struct pollfd entry = {.fd = queue_fd(queue), .events = POLLIN};
    return poll(&entry, 1, 0) == 1 && (entry.revents & POLLIN) != 0;
}

static void push(struct queue *queue, uint64_t number)
{
    assert_true(queue_push(queue, &number));
}

static void then_next_is(struct queue *queue, uint64_t expected)
{
    uint64_t number = UINT64_MAX;
    assert_true(queue_pop(queue, &number));
    assert_int_equal(number, expected);
}

static void test_items_come_out_in_order_also_around_the_end_of_the_ring(void **unused)
{
    (void)unused;
    struct queue *queue = queue_create(sizeof(uint64_t), 3);
    assert_non_null(queue);
    for (uint64_t i = 0; i < 10; i++) {
        push(queue, i);
        push(queue, i + 100);
        then_next_is(queue, i);
        then_next_is(queue, i + 100);
    }
    queue_destroy(&queue);
    assert_null(queue);
    queue_destroy(&queue); /* nothing there: nothing happens */
}

static void test_full_queue_refuses_and_empty_queue_gives_nothing(void **unused)
{
    (void)unused;
    struct queue *queue = queue_create(sizeof(uint64_t), 2);
    assert_non_null(queue);
    uint64_t number = 9;
    assert_false(queue_pop(queue, &number));
    assert_int_equal(number, 9);
    push(queue, 1);
    push(queue, 2);
    assert_false(queue_push(queue, &number));
    then_next_is(queue, 1);
    push(queue, 3);
    then_next_is(queue, 2);
    then_next_is(queue, 3);
    assert_false(queue_pop(queue, &number));
    queue_destroy(&queue);
}

static void test_descriptor_is_readable_just_while_items_are_there(void **unused)
{
    (void)unused;
    struct queue *queue = queue_create(sizeof(uint64_t), 4);
    assert_non_null(queue);
    for (int i = 0; i < 3; i++) {
        assert_false(is_readable(queue));
        push(queue, 1);
        assert_true(is_readable(queue));
        push(queue, 2);
        then_next_is(queue, 1);
        assert_true(is_readable(queue));
        then_next_is(queue, 2);
    }
    assert_false(is_readable(queue));
    queue_destroy(&queue);
}

#define ITEM_COUNT 20000

struct item {
    uint64_t number;
    uint64_t checks[4]; /* all derived from the number: a torn copy shows */
};

static void *push_all(void *context)
{
    struct queue *queue = context;
    for (uint64_t i = 0; i < ITEM_COUNT; i++) {
        const struct item item = {i, {i + 1, i * 3, ~i, i ^ 0x5555}};
        while (!queue_push(queue, &item)) {
            (void)sched_yield();
        }
    }
    return NULL;
}

static void test_consumer_that_polls_gets_every_item_of_another_thread_in_order(void **unused)
{
    (void)unused;
    struct queue *queue = queue_create(sizeof(struct item), 64);
    assert_non_null(queue);
    pthread_t producer;
    assert_int_equal(pthread_create(&producer, NULL, push_all, queue), 0);
    uint64_t expected = 0;
    while (expected < ITEM_COUNT) {
        struct pollfd entry = {.fd = queue_fd(queue), .events = POLLIN};
        assert_int_equal(poll(&entry, 1, 20000), 1); /* a lost wake-up would end here */
        struct item item;
        while (queue_pop(queue, &item)) {
            assert_int_equal(item.number, expected);
            assert_int_equal(item.checks[0], expected + 1);
            assert_int_equal(item.checks[1], expected * 3);
            assert_int_equal(item.checks[2], ~expected);
            assert_int_equal(item.checks[3], expected ^ 0x5555);
            expected++;
        }
    }
    assert_int_equal(pthread_join(producer, NULL), 0);
    assert_false(is_readable(queue));
    queue_destroy(&queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items_come_out_in_order_also_around_the_end_of_the_ring),
        cmocka_unit_test(test_full_queue_refuses_and_empty_queue_gives_nothing),
        cmocka_unit_test(test_descriptor_is_readable_just_while_items_are_there),
        cmocka_unit_test(test_consumer_that_polls_gets_every_item_of_another_thread_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
