/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/exec/page.h"

#define CELL_COUNT 8

/* Both sides, in one process. */
static struct page *page;
static struct page *child;
static int event_fd;

static int set_up(void **unused)
{
    (void)unused;
    event_fd = eventfd(0, EFD_NONBLOCK);
    page = page_create(CELL_COUNT);
    assert_non_null(page);
    child = page_open(page_fd(page), event_fd);
    assert_non_null(child);
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    page_close(&child);
    page_close(&page);
    close(event_fd);
    return 0;
}

static void put_text(const char *text)
{
    const struct bytes part = bytes_from_text(text);
    page_put(child, &part, 1);
}

static uint64_t events(void)
{
    uint64_t count = 0;
    return read(event_fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void test_a_cell_goes_from_free_to_queued_to_running_to_free(void **unused)
{
    (void)unused;
    assert_int_equal(page_state(page, 3), CELL_FREE);
    const uint32_t generation = page_queue(page, 3);
    assert_int_equal(page_state(page, 3), CELL_QUEUED);
    assert_int_equal(page_started_at_us(page, 3), 0);
    assert_true(page_take(child, 3, generation, 4711));
    assert_int_equal(page_state(page, 3), CELL_RUNNING);
    assert_int_equal(page_started_at_us(page, 3), 4711);
    page_free(page, 3);
    assert_int_equal(page_state(page, 3), CELL_FREE);
    assert_int_equal(page_state(page, 2), CELL_FREE);
}

static void test_what_was_recalled_is_not_taken(void **unused)
{
    (void)unused;
    const uint32_t generation = page_queue(page, 0);
    assert_true(page_recall(page, 0));
    assert_false(page_recall(page, 0));
    assert_false(page_take(child, 0, generation, 1));
}

static void test_what_was_taken_is_not_recalled(void **unused)
{
    (void)unused;
    const uint32_t generation = page_queue(page, 0);
    assert_true(page_take(child, 0, generation, 1));
    assert_false(page_take(child, 0, generation, 1));
    assert_false(page_recall(page, 0));
}

static void test_a_hand_off_of_an_earlier_generation_is_not_taken(void **unused)
{
    (void)unused;
    const uint32_t before = page_queue(page, 0);
    assert_true(page_recall(page, 0));
    const uint32_t after = page_queue(page, 0);
    assert_int_not_equal(before, after);
    assert_false(page_take(child, 0, before, 1));
    assert_true(page_take(child, 0, after, 1));
    assert_false(page_take(child, CELL_COUNT, after, 1));
}

static void test_a_cancel_is_of_one_attempt(void **unused)
{
    (void)unused;
    assert_true(page_take(child, 1, page_queue(page, 1), 1));
    assert_false(page_is_cancelled(child, 1));
    page_cancel(page, 1);
    assert_true(page_is_cancelled(child, 1));
    page_free(page, 1);
    assert_true(page_take(child, 1, page_queue(page, 1), 1));
    assert_false(page_is_cancelled(child, 1));
}

static void test_what_is_put_is_read_in_order(void **unused)
{
    (void)unused;
    char text[16] = "";
    const struct bytes parts[] = {bytes_from_text("one "), {NULL, 0}, bytes_from_text("two ")};
    assert_true(page_is_empty(page));
    page_put(child, parts, 3);
    put_text("three");
    assert_false(page_is_empty(page));
    assert_int_equal(page_read(page, text, 4), 4);
    assert_string_equal(text, "one ");
    assert_int_equal(page_read(page, text, sizeof(text)), 9);
    assert_memory_equal(text, "two three", 9);
    assert_int_equal(page_read(page, text, sizeof(text)), 0);
    assert_true(page_is_empty(page));
}

static void test_the_eventfd_is_written_only_for_who_sleeps_and_once(void **unused)
{
    (void)unused;
    char text[16];
    put_text("a");
    assert_int_equal(events(), 0);
    assert_false(page_before_wait(page, 1));
    assert_int_equal(page_read(page, text, sizeof(text)), 1);
    assert_true(page_before_wait(page, 1));
    put_text("b");
    put_text("c");
    assert_int_equal(events(), 1);
}

static void test_who_sleeps_is_woken_after_as_many_puts_as_it_asked_for(void **unused)
{
    (void)unused;
    assert_true(page_before_wait(page, 3));
    put_text("a");
    put_text("b");
    assert_int_equal(events(), 0);
    put_text("c");
    assert_int_equal(events(), 1);
    put_text("d");
    assert_int_equal(events(), 0);
}

#define STREAM_SIZE (5 * PAGE_RING_SIZE + 123)
static uint8_t stream[STREAM_SIZE];

static void *put_stream(void *unused)
{
    const struct bytes parts[] = {{stream, 77}, {stream + 77, STREAM_SIZE - 77}};
    page_put(child, parts, 2);
    return unused;
}

static void test_more_than_the_ring_has_is_streamed(void **unused)
{
    (void)unused;
    static uint8_t data[STREAM_SIZE];
    pthread_t thread;
    size_t size = 0;
    for (size_t i = 0; i < STREAM_SIZE; i++) {
        stream[i] = (uint8_t)(i * 2654435761U >> 16);
    }
    /* the put that fills the ring wakes, though it is not the hundredth */
    assert_true(page_before_wait(page, 100));
    assert_int_equal(pthread_create(&thread, NULL, put_stream, NULL), 0);
    while (events() == 0) {
        (void)usleep(1000);
    }
    for (size_t step = 1; size < STREAM_SIZE; step = step * 3 % 100003 + 1) {
        const size_t wanted = step < STREAM_SIZE - size ? step : STREAM_SIZE - size;
        size += page_read(page, data + size, wanted);
    }
    (void)pthread_join(thread, NULL);
    assert_memory_equal(data, stream, STREAM_SIZE);
    assert_true(page_is_empty(page));
}

/* The memory as a child has it that writes anywhere. */
static uint64_t *given_the_bare_memory(size_t *size)
{
    *size = (size_t)lseek(page_fd(page), 0, SEEK_END);
    void *memory = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, page_fd(page), 0);
    assert_true(memory != MAP_FAILED);
    return memory;
}

static void test_a_ring_overwritten_by_the_child_is_damage_and_no_more(void **unused)
{
    (void)unused;
    static uint8_t data[PAGE_RING_SIZE];
    static const int fills[] = {0xff, 0x80, 0x01, 0x7f};
    for (size_t i = 0; i < sizeof(fills) / sizeof(fills[0]); i++) {
        size_t size;
        void *memory = given_the_bare_memory(&size);
        (void)page_queue(page, 5);
        memset(memory, fills[i], size);
        assert_false(page_is_damaged(page));
        assert_int_equal(page_read(page, data, sizeof(data)), 0);
        assert_true(page_is_damaged(page));
        assert_true(page_is_empty(page));
        assert_true(page_before_wait(page, 1));
        assert_false(page_recall(page, 5));
        assert_int_equal(page_state(page, 5), CELL_RUNNING);
        page_free(page, 5);
        assert_int_equal(page_state(page, 5), CELL_FREE);
        (void)page_crash(page);
        assert_int_equal(munmap(memory, size), 0);
        assert_null(page_open(page_fd(page), event_fd));
        assert_int_equal(errno, EINVAL);
        tear_down(NULL);
        set_up(NULL);
    }
}

static void test_the_size_of_the_memory_cannot_be_changed(void **unused)
{
    (void)unused;
    assert_int_equal(ftruncate(page_fd(page), 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(page_fd(page), 1 << 30), -1);
}

static void test_what_is_no_page_is_not_opened(void **unused)
{
    (void)unused;
    const int fd = memfd_create("other", 0);
    assert_true(fd != -1);
    assert_null(page_open(fd, event_fd));
    assert_int_equal(ftruncate(fd, lseek(page_fd(page), 0, SEEK_END)), 0);
    assert_null(page_open(fd, event_fd));
    assert_int_equal(errno, EINVAL);
    close(fd);
    assert_null(page_open(fd, event_fd));
}

static void test_a_crash_record_is_copied(void **unused)
{
    (void)unused;
    assert_int_equal(page_crash(page).is_set, 0);
    struct crash_record *record = page_crash_record(child);
    record->signal = 11;
    record->address = 0x10;
    record->is_set = 1;
    assert_int_equal(page_crash(page).is_set, 1);
    assert_int_equal(page_crash(page).signal, 11);
    assert_int_equal(page_crash(page).address, 0x10);
}

int main(void)
{
#define SENTENCE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        SENTENCE(test_a_cell_goes_from_free_to_queued_to_running_to_free),
        SENTENCE(test_what_was_recalled_is_not_taken),
        SENTENCE(test_what_was_taken_is_not_recalled),
        SENTENCE(test_a_hand_off_of_an_earlier_generation_is_not_taken),
        SENTENCE(test_a_cancel_is_of_one_attempt),
        SENTENCE(test_what_is_put_is_read_in_order),
        SENTENCE(test_the_eventfd_is_written_only_for_who_sleeps_and_once),
        SENTENCE(test_who_sleeps_is_woken_after_as_many_puts_as_it_asked_for),
        SENTENCE(test_more_than_the_ring_has_is_streamed),
        SENTENCE(test_a_ring_overwritten_by_the_child_is_damage_and_no_more),
        SENTENCE(test_the_size_of_the_memory_cannot_be_changed),
        SENTENCE(test_what_is_no_page_is_not_opened),
        SENTENCE(test_a_crash_record_is_copied),
    };
    return cmocka_run_group_tests_name("page", tests, NULL, NULL);
}
