/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "broker/core/wheel.h"
#include "common/base/prng.h"
#include "tests/unit/dies.h"

/* ---- The model: a binary heap on (deadline, sequence) that knows nothing of wheels ------------
 */

struct model_timer {
    struct timer timer;
    uint64_t deadline_at_ms; /* the model's own order, kept apart from the wheel's fields */
    uint64_t sequence;
    uint32_t heap_index;
};

struct model {
    struct wheel wheel;
    struct model_timer *timers;
    struct model_timer **heap; /* the armed ones; [0] is the earliest */
    struct model_timer **idle; /* the others, as a stack */
    uint32_t heap_count;
    uint32_t idle_count;
    uint32_t timers_max;
    uint64_t now_ms; /* the caller's clock; the wheel's may be behind */
    uint64_t next_sequence;
    struct prng prng;
    uint64_t expired_count;
    uint64_t added_count;
    uint64_t behind_added_count; /* added while a bucket was half cascaded */
    uint64_t visit_count;
    uint32_t heap_count_max;
};

static bool is_before(const struct model_timer *a, const struct model_timer *b)
{
    return a->deadline_at_ms != b->deadline_at_ms ? a->deadline_at_ms < b->deadline_at_ms
                                                  : a->sequence < b->sequence;
}

static void heap_set(struct model *model, uint32_t index, struct model_timer *timer)
{
    model->heap[index] = timer;
    timer->heap_index = index;
}

static void heap_move_up(struct model *model, uint32_t index)
{
    struct model_timer *timer = model->heap[index];
    while (index > 0 && is_before(timer, model->heap[(index - 1) / 2])) {
        heap_set(model, index, model->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    heap_set(model, index, timer);
}

static void heap_move_down(struct model *model, uint32_t index)
{
    struct model_timer *timer = model->heap[index];
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= model->heap_count) {
            break;
        }
        if (child + 1 < model->heap_count &&
            is_before(model->heap[child + 1], model->heap[child])) {
            child++;
        }
        if (!is_before(model->heap[child], timer)) {
            break;
        }
        heap_set(model, index, model->heap[child]);
        index = child;
    }
    heap_set(model, index, timer);
}

static void heap_remove(struct model *model, struct model_timer *timer)
{
    const uint32_t index = timer->heap_index;
    struct model_timer *last = model->heap[--model->heap_count];
    if (last != timer) {
        heap_set(model, index, last);
        heap_move_up(model, index);
        heap_move_down(model, last->heap_index);
    }
    model->idle[model->idle_count++] = timer;
}

static void given_a_model(struct model *model, uint32_t timers_max, uint64_t seed)
{
    memset(model, 0, sizeof(*model));
    prng_seed(&model->prng, seed);
    model->timers_max = timers_max;
    model->timers = calloc(timers_max, sizeof(*model->timers));
    model->heap = calloc(timers_max, sizeof(struct model_timer *));
    model->idle = calloc(timers_max, sizeof(struct model_timer *));
    assert_non_null(model->timers);
    assert_non_null(model->heap);
    assert_non_null(model->idle);
    model->now_ms = prng_next(&model->prng) >> prng_between(&model->prng, 17, 63);
    wheel_init(&model->wheel, model->now_ms);
    for (uint32_t i = 0; i < timers_max; i++) {
        timer_init(&model->timers[i].timer, i % 7, i);
        model->idle[model->idle_count++] = &model->timers[i];
    }
}

static void end_of_model(struct model *model)
{
    free(model->timers);
    free(model->heap);
    free(model->idle);
}

/* ---- What may happen in a history, each step compared with the model ------------------------- */

static void when_a_timer_is_added(struct model *model, uint64_t deadline_at_ms)
{
    struct model_timer *timer = model->idle[--model->idle_count];
    const uint64_t earliest = model->wheel.now_ms;
    if (model->wheel.entered != NULL) {
        model->behind_added_count++;
    }
    wheel_add(&model->wheel, &timer->timer, deadline_at_ms);
    if (deadline_at_ms < earliest) {
        deadline_at_ms = earliest;
    } else if (deadline_at_ms > WHEEL_AT_MS_MAX) {
        deadline_at_ms = WHEEL_AT_MS_MAX;
    }
    assert_int_equal(timer->timer.deadline_at_ms, deadline_at_ms);
    assert_true(timer_is_armed(&timer->timer));
    timer->deadline_at_ms = deadline_at_ms;
    timer->sequence = model->next_sequence++;
    model->heap[model->heap_count] = timer;
    heap_move_up(model, model->heap_count++);
    model->added_count++;
    if (model->heap_count > model->heap_count_max) {
        model->heap_count_max = model->heap_count;
    }
}

static void when_a_timer_is_cancelled(struct model *model, struct model_timer *timer)
{
    wheel_cancel(&model->wheel, &timer->timer);
    assert_false(timer_is_armed(&timer->timer));
    heap_remove(model, timer);
}

/* Takes what is due until nothing is, or the visits end. */
static void when_due_timers_are_taken(struct model *model, uint32_t visits)
{
    const uint32_t visits_before = visits;
    struct timer *due = NULL;
    while ((due = wheel_take_due(&model->wheel, model->now_ms, &visits)) != NULL) {
        assert_true(model->heap_count > 0);
        struct model_timer *expected = model->heap[0];
        assert_ptr_equal(due, &expected->timer);
        assert_true(expected->deadline_at_ms <= model->now_ms);
        assert_int_equal(due->owner, expected - model->timers);
        assert_int_equal(due->kind, due->owner % 7);
        assert_false(timer_is_armed(due));
        heap_remove(model, expected);
        model->expired_count++;
    }
    model->visit_count += visits_before - visits;
    if (wheel_is_behind(&model->wheel, model->now_ms)) {
        assert_int_equal(visits, 0);
    } else {
        assert_int_equal(model->wheel.now_ms, model->now_ms);
        assert_true(model->heap_count == 0 || model->heap[0]->deadline_at_ms > model->now_ms);
    }
}

static void then_the_next_call_is_in_time(const struct model *model)
{
    const uint64_t next_at_ms = wheel_next_at_ms(&model->wheel);
    if (model->heap_count == 0) {
        assert_int_equal(next_at_ms, UINT64_MAX);
    } else {
        assert_true(next_at_ms <= model->heap[0]->deadline_at_ms);
        assert_true(next_at_ms >= model->wheel.now_ms);
    }
    assert_int_equal(model->wheel.count, model->heap_count);
}

/* How a stretch of a history behaves; drawn anew for each. */
struct weather {
    uint64_t add_weight;
    uint64_t cancel_weight;
    uint64_t jump_weight;
    uint64_t take_weight;
    uint64_t span_bits_max; /* deadlines are up to 2^this ms ahead */
    uint64_t jump_bits_max; /* the clock jumps by up to 2^this ms: 28 is three days */
    uint64_t visits_max;
    uint64_t operations_left;
};

static struct weather weather_from(struct prng *prng)
{
    return (struct weather){
        .add_weight = prng_between(prng, 1, 20),
        .cancel_weight = prng_below(prng, 8),
        .jump_weight = prng_below(prng, 5),
        .take_weight = prng_between(prng, 1, 6),
        .span_bits_max = prng_between(prng, 1, 34),
        .jump_bits_max = prng_between(prng, 1, 28),
        .visits_max = UINT64_C(1) << prng_below(prng, 9),
        .operations_left = UINT64_C(1) << prng_between(prng, 4, 17),
    };
}

static uint64_t below_power(struct prng *prng, uint64_t bits_max)
{
    return prng_below(prng, UINT64_C(1) << prng_between(prng, 0, bits_max));
}

static uint64_t draw_deadline(struct model *model, const struct weather *weather)
{
    struct prng *prng = &model->prng;
    const uint64_t behind_ms = model->now_ms - model->wheel.now_ms;
    switch (prng_below(prng, 16)) {
    case 0: /* the deadline of another timer */
        if (model->heap_count > 0) {
            return model->heap[prng_below(prng, model->heap_count)]->deadline_at_ms;
        }
        return model->now_ms;
    case 1: /* between the wheel's time and the caller's */
        return model->wheel.now_ms + prng_between(prng, 0, behind_ms);
    case 2: { /* in the past, maybe before the wheel's time */
        const uint64_t back_ms = below_power(prng, weather->span_bits_max);
        return back_ms > model->now_ms ? 0 : model->now_ms - back_ms;
    }
    case 3: /* a little after the wheel's time: in the bucket it may just have entered */
        return model->wheel.now_ms + below_power(prng, 13);
    case 4: /* seldom: never, as far as the wheel can tell */
        if (prng_below(prng, 256) == 0) {
            return UINT64_MAX - prng_below(prng, 1000);
        }
        return model->now_ms + below_power(prng, weather->span_bits_max);
    default:
        return model->now_ms + below_power(prng, weather->span_bits_max);
    }
}

static void when_something_happens(struct model *model, const struct weather *weather)
{
    struct prng *prng = &model->prng;
    uint64_t choice = prng_below(prng, weather->add_weight + weather->cancel_weight +
                                           weather->jump_weight + weather->take_weight);
    if (choice < weather->add_weight) {
        if (model->idle_count > 0) {
            when_a_timer_is_added(model, draw_deadline(model, weather));
        }
        return;
    }
    choice -= weather->add_weight;
    if (choice < weather->cancel_weight) {
        if (model->heap_count > 0) {
            /* near the top of the heap now and then: what is about to expire */
            const uint64_t reach = prng_below(prng, 4) == 0 ? 8 : model->heap_count;
            const uint64_t index =
                prng_below(prng, reach < model->heap_count ? reach : model->heap_count);
            when_a_timer_is_cancelled(model, model->heap[index]);
        }
        return;
    }
    choice -= weather->cancel_weight;
    if (choice < weather->jump_weight) {
        const uint64_t jump_ms = 1 + below_power(prng, weather->jump_bits_max);
        model->now_ms =
            jump_ms > WHEEL_AT_MS_MAX - model->now_ms ? WHEEL_AT_MS_MAX : model->now_ms + jump_ms;
        return;
    }
    when_due_timers_are_taken(model, (uint32_t)prng_between(prng, 0, weather->visits_max));
}

static void random_history(struct model *model, uint64_t operation_count)
{
    struct weather weather = weather_from(&model->prng);
    const uint64_t check_interval = 250 + model->timers_max;
    for (uint64_t i = 0; i < operation_count; i++) {
        if (weather.operations_left-- == 0) {
            weather = weather_from(&model->prng);
        }
        when_something_happens(model, &weather);
        then_the_next_call_is_in_time(model);
        if (i % check_interval == 0) {
            wheel_check(&model->wheel);
        }
    }
    wheel_check(&model->wheel);
    /* Calm: the clock goes to the end of time, and everything expires in order. */
    model->now_ms = WHEEL_AT_MS_MAX;
    when_due_timers_are_taken(model, UINT32_MAX);
    assert_int_equal(model->heap_count, 0);
    assert_int_equal(model->wheel.count, 0);
    wheel_check(&model->wheel);
    assert_true(model->visit_count <= model->added_count * WHEEL_LEVEL_COUNT);
}

static void test_200000_random_operations_expire_as_from_a_heap(void **unused)
{
    (void)unused;
    uint64_t behind_added_count = 0;
    uint64_t expired_count = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct model model;
        given_a_model(&model, seed % 2 == 0 ? 2000 : 40, seed);
        random_history(&model, 10000);
        behind_added_count += model.behind_added_count;
        expired_count += model.expired_count;
        end_of_model(&model);
    }
    assert_true(behind_added_count > 500); /* the histories reach what is hard */
    assert_true(expired_count > 20000);
}

/* ---- Sentences ------------------------------------------------------------------------------- */

static struct wheel wheel;
static struct timer timers[1000];

static void given_a_wheel(uint64_t now_ms)
{
    wheel_init(&wheel, now_ms);
    for (uint32_t i = 0; i < 1000; i++) {
        timer_init(&timers[i], 0, i);
    }
}

/* The next due timer's owner, or -1. */
static int64_t take_at(uint64_t now_ms)
{
    uint32_t visits = 1000;
    const struct timer *due = wheel_take_due(&wheel, now_ms, &visits);
    wheel_check(&wheel);
    return due == NULL ? -1 : (int64_t)due->owner;
}

static void test_timer_is_due_at_its_deadline_and_not_before(void **unused)
{
    (void)unused;
    const uint64_t spans_ms[] = {0,      1,       63,       64,         65,        4095,
                                 4096,   262143,  262144,   1000000000, 86400000,  300000,
                                 604800, 1 << 24, 1 << 30U, 5,          UINT32_MAX};
    for (size_t i = 0; i < sizeof(spans_ms) / sizeof(spans_ms[0]); i++) {
        given_a_wheel(123456789);
        wheel_add(&wheel, &timers[7], 123456789 + spans_ms[i]);
        if (spans_ms[i] > 0) {
            assert_int_equal(take_at(123456789 + spans_ms[i] - 1), -1);
        }
        assert_int_equal(take_at(123456789 + spans_ms[i]), 7);
        assert_false(timer_is_armed(&timers[7]));
        assert_int_equal(take_at(123456789 + spans_ms[i]), -1);
    }
}

static void test_timers_of_one_deadline_expire_in_the_order_they_were_added(void **unused)
{
    (void)unused;
    /* Added from further and further near, so each begins on another level. */
    given_a_wheel(0);
    const uint64_t deadline_at_ms = 70 * 4096 + 70 * 64 + 3;
    const uint64_t instants[] = {0, deadline_at_ms - 5000, deadline_at_ms - 100, deadline_at_ms - 2,
                                 deadline_at_ms - 1};
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(take_at(instants[i]), -1);
        wheel_add(&wheel, &timers[i], deadline_at_ms);
    }
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(take_at(deadline_at_ms), i);
    }
}

static void test_jump_over_many_deadlines_expires_them_in_order(void **unused)
{
    (void)unused;
    given_a_wheel(17);
    for (uint32_t i = 0; i < 1000; i++) { /* the latest first */
        wheel_add(&wheel, &timers[i], 17 + (999 - i) * UINT64_C(7919));
    }
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(take_at(UINT64_C(86400000) * 365), 999 - i);
    }
    assert_int_equal(take_at(UINT64_C(86400000) * 365), -1);
}

static void test_deadline_in_the_past_is_due_at_once_behind_those_that_wait(void **unused)
{
    (void)unused;
    given_a_wheel(1000);
    wheel_add(&wheel, &timers[1], 1000);
    wheel_add(&wheel, &timers[2], 5);
    assert_int_equal(timers[2].deadline_at_ms, 1000);
    assert_int_equal(take_at(1000), 1);
    assert_int_equal(take_at(1000), 2);
}

static void test_deadline_after_the_end_of_time_becomes_the_end_of_time(void **unused)
{
    (void)unused;
    given_a_wheel(1000);
    wheel_add(&wheel, &timers[1], UINT64_MAX);
    assert_int_equal(timers[1].deadline_at_ms, WHEEL_AT_MS_MAX);
    assert_int_equal(take_at(WHEEL_AT_MS_MAX - 1), -1);
    assert_int_equal(take_at(WHEEL_AT_MS_MAX), 1);
}

static void test_cancelled_timer_never_expires_and_may_be_added_again(void **unused)
{
    (void)unused;
    given_a_wheel(0);
    wheel_cancel(&wheel, &timers[1]); /* not armed: nothing happens */
    wheel_add(&wheel, &timers[1], 100);
    wheel_add(&wheel, &timers[2], 100);
    wheel_cancel(&wheel, &timers[1]);
    assert_int_equal(take_at(100), 2);
    assert_int_equal(take_at(100), -1);
    wheel_add(&wheel, &timers[1], 200);
    assert_int_equal(take_at(200), 1);
}

static void test_visits_bound_each_call_and_the_next_one_goes_on(void **unused)
{
    (void)unused;
    given_a_wheel(0);
    for (uint32_t i = 0; i < 1000; i++) {
        wheel_add(&wheel, &timers[i], 100000 + i % 10);
    }
    uint32_t taken_count = 0;
    uint32_t call_count = 0;
    uint64_t last_at_ms = 0;
    while (wheel_is_behind(&wheel, 200000)) {
        uint32_t visits = 10;
        struct timer *due = NULL;
        while ((due = wheel_take_due(&wheel, 200000, &visits)) != NULL) {
            assert_true(due->deadline_at_ms >= last_at_ms);
            last_at_ms = due->deadline_at_ms;
            taken_count++;
        }
        assert_true(wheel.now_ms < 200000 || taken_count == 1000);
        wheel_check(&wheel);
        call_count++;
    }
    assert_int_equal(taken_count, 1000);
    assert_in_range(call_count, 200, 300); /* each timer: two levels down and out, 10 a call */
    assert_int_equal(wheel.now_ms, 200000);
}

static void test_timer_added_while_a_bucket_is_half_cascaded_keeps_its_turn(void **unused)
{
    (void)unused;
    given_a_wheel(0);
    wheel_add(&wheel, &timers[0], 130);
    wheel_add(&wheel, &timers[1], 140);
    wheel_add(&wheel, &timers[2], 140);
    uint32_t visits = 1;
    assert_null(wheel_take_due(&wheel, 5000, &visits)); /* only timer 0 has moved down */
    assert_true(wheel_is_behind(&wheel, 5000));
    wheel_add(&wheel, &timers[3], 140); /* behind 1 and 2, which wait a level above */
    wheel_add(&wheel, &timers[4], 20);  /* before the bucket: due at its start, before all others */
    wheel_add(&wheel, &timers[5], 4999);
    wheel_check(&wheel);
    assert_int_equal(take_at(5000), 4);
    assert_int_equal(take_at(5000), 0);
    assert_int_equal(take_at(5000), 1);
    assert_int_equal(take_at(5000), 2);
    assert_int_equal(take_at(5000), 3);
    assert_int_equal(take_at(5000), 5);
    assert_int_equal(take_at(5000), -1);
}

static void test_timers_cancelled_while_their_bucket_is_half_cascaded_are_gone(void **unused)
{
    (void)unused;
    given_a_wheel(0);
    for (uint32_t i = 0; i < 4; i++) {
        wheel_add(&wheel, &timers[i], 130 + i);
    }
    uint32_t visits = 2;
    assert_null(wheel_take_due(&wheel, 5000, &visits));
    wheel_cancel(&wheel, &timers[0]); /* moved down already */
    wheel_cancel(&wheel, &timers[2]); /* still above, and so is 3: the bucket is empty then */
    wheel_cancel(&wheel, &timers[3]);
    wheel_check(&wheel);
    assert_int_equal(take_at(5000), 1);
    assert_int_equal(take_at(5000), -1);
}

static void test_distant_timer_wakes_its_caller_at_most_once_a_level(void **unused)
{
    (void)unused;
    given_a_wheel(987654321);
    const uint64_t deadline_at_ms = 987654321 + UINT64_C(86400000) * 30;
    assert_int_equal(wheel_next_at_ms(&wheel), UINT64_MAX);
    wheel_add(&wheel, &timers[0], deadline_at_ms);
    int call_count = 0;
    while (timer_is_armed(&timers[0])) {
        const uint64_t next_at_ms = wheel_next_at_ms(&wheel);
        assert_true(next_at_ms <= deadline_at_ms);
        (void)take_at(next_at_ms);
        call_count++;
    }
    assert_int_equal(wheel.now_ms, deadline_at_ms);
    assert_true(call_count <= WHEEL_LEVEL_COUNT);
    assert_int_equal(wheel_next_at_ms(&wheel), UINT64_MAX);
}

static void add_again(void *context)
{
    wheel_add(&wheel, context, 500);
}

static void take_before_the_wheels_time(void *unused)
{
    (void)unused;
    (void)take_at(wheel.now_ms - 1);
}

static void test_arming_twice_or_a_clock_that_goes_back_is_a_programmers_mistake(void **unused)
{
    (void)unused;
    given_a_wheel(100);
    wheel_add(&wheel, &timers[0], 400);
    assert_true(dies(add_again, &timers[0]));
    assert_false(dies(add_again, &timers[1]));
    assert_true(dies(take_before_the_wheels_time, NULL));
}

/* ---- The same history at any size: test_wheel OPERATIONS PENDING_MAX SEED ----------------------
 */

static void test_history_as_asked_expires_as_from_a_heap(void **state)
{
    char *const *arguments = *state;
    const uint64_t operation_count = strtoull(arguments[1], NULL, 10);
    uint32_t pending_max = (uint32_t)strtoull(arguments[2], NULL, 10);
    const uint64_t seed = strtoull(arguments[3], NULL, 10);
    if (pending_max == 0) {
        pending_max = 1;
    }
    struct model model;
    struct timespec start;
    struct timespec end;
    given_a_model(&model, pending_max, seed);
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    random_history(&model, operation_count);
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%" PRIu64 " operations, seed %" PRIu64 ": %" PRIu64 " added (%" PRIu64
           " into a half cascaded wheel), %" PRIu64 " expired in order, %" PRIu64
           " visits, at most %" PRIu32 " pending, %.2f s\n",
           operation_count, seed, model.added_count, model.behind_added_count, model.expired_count,
           model.visit_count, model.heap_count_max,
           (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
    end_of_model(&model);
}

int main(int argument_count, char **arguments)
{
    if (argument_count == 4) {
        const struct CMUnitTest asked[] = {
            cmocka_unit_test_prestate(test_history_as_asked_expires_as_from_a_heap, arguments),
        };
        return cmocka_run_group_tests(asked, NULL, NULL);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timer_is_due_at_its_deadline_and_not_before),
        cmocka_unit_test(test_timers_of_one_deadline_expire_in_the_order_they_were_added),
        cmocka_unit_test(test_jump_over_many_deadlines_expires_them_in_order),
        cmocka_unit_test(test_deadline_in_the_past_is_due_at_once_behind_those_that_wait),
        cmocka_unit_test(test_deadline_after_the_end_of_time_becomes_the_end_of_time),
        cmocka_unit_test(test_cancelled_timer_never_expires_and_may_be_added_again),
        cmocka_unit_test(test_visits_bound_each_call_and_the_next_one_goes_on),
        cmocka_unit_test(test_timer_added_while_a_bucket_is_half_cascaded_keeps_its_turn),
        cmocka_unit_test(test_timers_cancelled_while_their_bucket_is_half_cascaded_are_gone),
        cmocka_unit_test(test_distant_timer_wakes_its_caller_at_most_once_a_level),
        cmocka_unit_test(test_arming_twice_or_a_clock_that_goes_back_is_a_programmers_mistake),
        cmocka_unit_test(test_200000_random_operations_expire_as_from_a_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
