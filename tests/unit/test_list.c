/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/list.h"
#include "tests/unit/dies.h"

struct item {
    int number;
    struct list link;
};

static struct list head;
static struct item items[4];

static int given_an_empty_list(void **unused)
{
    (void)unused;
    list_init(&head);
    for (int i = 0; i < 4; i++) {
        items[i].number = i;
        list_init(&items[i].link);
    }
    return 0;
}

static int number_of(struct list *link)
{
    return link == NULL ? -1 : container_of(link, struct item, link)->number;
}

/* The numbers in the list as one decimal, read from the front: 1, 2, 3 is 123. */
static int numbers_in_list(void)
{
    int numbers = 0;
    for (struct list *link = list_first(&head); link != NULL; link = list_next(&head, link)) {
        numbers = numbers * 10 + number_of(link);
    }
    return numbers;
}

static void test_new_list_is_empty(void **unused)
{
    (void)unused;
    assert_true(list_is_empty(&head));
    assert_null(list_first(&head));
    assert_null(list_pop_front(&head));
}

static void test_links_come_out_in_the_order_they_were_pushed_back(void **unused)
{
    (void)unused;
    list_push_back(&head, &items[1].link);
    list_push_back(&head, &items[2].link);
    list_push_back(&head, &items[3].link);
    assert_int_equal(numbers_in_list(), 123);
    assert_int_equal(number_of(list_pop_front(&head)), 1);
    assert_int_equal(number_of(list_pop_front(&head)), 2);
    assert_int_equal(number_of(list_pop_front(&head)), 3);
    assert_true(list_is_empty(&head));
}

static void test_link_pushed_front_is_first(void **unused)
{
    (void)unused;
    list_push_front(&head, &items[1].link);
    list_push_front(&head, &items[2].link);
    list_push_back(&head, &items[3].link);
    assert_int_equal(numbers_in_list(), 213);
}

static void test_link_is_removed_from_the_middle_and_both_ends(void **unused)
{
    (void)unused;
    for (int i = 0; i < 4; i++) {
        list_push_back(&head, &items[i].link);
    }
    list_remove(&items[2].link);
    assert_int_equal(numbers_in_list(), 13); /* 0, 1, 3 */
    list_remove(&items[0].link);
    assert_int_equal(numbers_in_list(), 13);
    list_remove(&items[3].link);
    assert_int_equal(numbers_in_list(), 1);
    list_remove(&items[1].link);
    assert_true(list_is_empty(&head));
}

static void test_removed_link_is_in_no_list_and_may_be_pushed_again(void **unused)
{
    (void)unused;
    list_push_back(&head, &items[1].link);
    assert_false(list_is_empty(&items[1].link));
    list_remove(&items[1].link);
    assert_true(list_is_empty(&items[1].link));
    list_remove(&items[1].link); /* of no list: nothing happens */
    list_push_back(&head, &items[1].link);
    assert_int_equal(numbers_in_list(), 1);
}

static void push_back_item(void *context)
{
    struct item *item = context;
    list_push_back(&head, &item->link);
}

static void push_front_item(void *context)
{
    struct item *item = context;
    list_push_front(&head, &item->link);
}

static void test_pushing_a_link_that_is_in_a_list_is_a_programmers_mistake(void **unused)
{
    (void)unused;
    list_push_back(&head, &items[1].link);
    list_push_back(&head, &items[2].link);
    assert_true(dies(push_back_item, &items[1]));
    assert_true(dies(push_front_item, &items[1]));
    assert_false(dies(push_back_item, &items[3]));
    assert_false(dies(push_front_item, &items[3]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_new_list_is_empty, given_an_empty_list),
        cmocka_unit_test_setup(test_links_come_out_in_the_order_they_were_pushed_back,
                               given_an_empty_list),
        cmocka_unit_test_setup(test_link_pushed_front_is_first, given_an_empty_list),
        cmocka_unit_test_setup(test_link_is_removed_from_the_middle_and_both_ends,
                               given_an_empty_list),
        cmocka_unit_test_setup(test_removed_link_is_in_no_list_and_may_be_pushed_again,
                               given_an_empty_list),
        cmocka_unit_test_setup(test_pushing_a_link_that_is_in_a_list_is_a_programmers_mistake,
                               given_an_empty_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
