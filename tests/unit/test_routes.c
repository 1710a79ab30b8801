/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "worker/routes.h"

static struct routes *routes;

static int set_up(void **unused)
{
    (void)unused;
    routes = routes_create();
    return routes == NULL;
}

static int tear_down(void **unused)
{
    (void)unused;
    routes_destroy(&routes);
    return 0;
}

static enum treadle_status add(const char *pattern)
{
    const struct route route = {.handler = {.pattern = pattern}};
    return routes_add(routes, &route);
}

/* The pattern that serves the task; "": none. */
static const char *serving(const char *service, const char *task)
{
    const struct route *route =
        routes_find(routes, bytes_from_text(service), bytes_from_text(task));
    return route == NULL ? "" : route->handler.pattern;
}

static void test_a_task_goes_to_its_own_handler_before_that_of_its_service(void **unused)
{
    (void)unused;
    assert_int_equal(add("wc.*"), TREADLE_OK);
    assert_int_equal(add("wc.count"), TREADLE_OK);
    assert_int_equal(add("a.b.c"), TREADLE_OK);
    assert_string_equal(serving("wc", "count"), "wc.count");
    assert_string_equal(serving("wc", "lines"), "wc.*");
    assert_string_equal(serving("a.b", "c"), "a.b.c");
    assert_string_equal(serving("a.b", "d"), "");
    assert_string_equal(serving("w", "count"), "");
    assert_string_equal(serving("", "count"), "");
}

static void test_a_name_that_is_too_long_is_served_by_nobody(void **unused)
{
    (void)unused;
    char name[NAME_SIZE_MAX + 2];
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(add("wc.*"), TREADLE_OK);
    assert_string_equal(serving("wc", name), "");
    assert_string_equal(serving(name, "count"), "");
}

static void test_a_pattern_has_one_handler_and_there_is_a_most(void **unused)
{
    (void)unused;
    static char names[SERVE_COUNT_MAX + 1][16];
    for (int i = 0; i < SERVE_COUNT_MAX; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "s.t%d", i);
        assert_int_equal(add(names[i]), TREADLE_OK);
    }
    assert_int_equal(add("s.t7"), TREADLE_E_CONFLICT);
    assert_int_equal(add("s.more"), TREADLE_E_LIMIT);
    assert_int_equal(routes_count(routes), SERVE_COUNT_MAX);
    assert_string_equal(serving("s", "t255"), "s.t255");
    assert_string_equal(serving("s", "more"), "");
}

static void test_patterns_are_names_with_a_dot_or_a_star_at_the_end(void **unused)
{
    (void)unused;
    static const char *const good[] = {"a.b", "a.*", "a.b.c", "A-1._"};
    static const char *const bad[] = {"", "a", "a.", ".b", "*.b", "a.b*", "a.**", "a b.c", "*"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(route_is_pattern(good[i]));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(route_is_pattern(bad[i]));
    }
}

static void test_a_pattern_covers_itself_and_the_tasks_of_its_service(void **unused)
{
    (void)unused;
    assert_true(route_covers("a.b", "a.b"));
    assert_true(route_covers("a.*", "a.b"));
    assert_true(route_covers("a.*", "a.*"));
    assert_false(route_covers("a.*", "ab.c"));
    assert_false(route_covers("a.*", "a.b.c")); /* of the service a.b */
    assert_false(route_covers("a.b", "a.*"));
    assert_false(route_covers("a.b", "a.c"));
}

int main(void)
{
#define SENTENCE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SENTENCE(test_a_task_goes_to_its_own_handler_before_that_of_its_service),
        SENTENCE(test_a_name_that_is_too_long_is_served_by_nobody),
        SENTENCE(test_a_pattern_has_one_handler_and_there_is_a_most),
        SENTENCE(test_patterns_are_names_with_a_dot_or_a_star_at_the_end),
        SENTENCE(test_a_pattern_covers_itself_and_the_tasks_of_its_service),
    };
    return cmocka_run_group_tests_name("routes", tests, NULL, NULL);
}
