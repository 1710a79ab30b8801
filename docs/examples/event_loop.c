/* SPDX-License-Identifier: MPL-2.0 */
/* A client in an event loop: event_loop SERVICE.TASK submits a task for each line of stdin and
 * prints the results as they come. One thread, one poll() for both, no timer of its own: the
 * client's descriptor is readable whenever the client has something to do or to give. */
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include <treadle/client.h>

struct loop {
    treadle_client *client;
    const char *name; /* SERVICE.TASK */
    char line[65536];
    size_t line_size;
    unsigned waiting_count; /* tasks whose outcome has not come */
    int is_at_end;          /* of stdin */
    int exit_code;
};

static void submit(struct loop *loop, const char *body, size_t body_size)
{
    const struct treadle_task task = {
        .size = sizeof(task), .name = loop->name, .body = body, .body_size = body_size};
    if (treadle_client_submit(loop->client, &task, NULL) == TREADLE_OK) {
        loop->waiting_count++;
    } else {
        fprintf(stderr, "event_loop: %s\n", treadle_client_error(loop->client));
        loop->exit_code = 1;
    }
}

static void on_stdin(struct loop *loop)
{
    const ssize_t size =
        read(STDIN_FILENO, loop->line + loop->line_size, sizeof(loop->line) - loop->line_size);
    size_t start = 0;
    if (size <= 0) {
        if (loop->line_size > 0) { /* the last line has no newline */
            submit(loop, loop->line, loop->line_size);
        }
        loop->is_at_end = 1;
        return;
    }
    loop->line_size += (size_t)size;
    for (size_t i = 0; i < loop->line_size; i++) {
        if (loop->line[i] == '\n') {
            submit(loop, loop->line + start, i - start);
            start = i + 1;
        }
    }
    loop->line_size -= start;
    for (size_t i = 0; i < loop->line_size; i++) {
        loop->line[i] = loop->line[start + i];
    }
    if (loop->line_size == sizeof(loop->line)) {
        fprintf(stderr, "event_loop: a line is too long\n");
        loop->exit_code = 1;
        loop->is_at_end = 1;
    }
}

static void on_client(struct loop *loop)
{
    struct treadle_outcome *outcome = NULL;
    enum treadle_status status = TREADLE_OK;
    while ((status = treadle_client_recv(loop->client, 0, &outcome)) == TREADLE_OK) {
        loop->waiting_count--;
        if (outcome->status != TREADLE_OK || outcome->state != TREADLE_TASK_SUCCEEDED) {
            loop->exit_code = 1;
        }
        printf("%.*s\n", (int)outcome->body_size,
               outcome->body_size > 0 ? (const char *)outcome->body : "");
        treadle_outcome_free(&outcome);
    }
    if (status != TREADLE_E_TIMEOUT) {
        fprintf(stderr, "event_loop: %s\n", treadle_client_error(loop->client));
        loop->exit_code = 1;
        loop->is_at_end = 1;
        loop->waiting_count = 0;
    }
}

int main(int count, char **arguments)
{
    static struct loop loop;
    if (count != 2 || treadle_client_open(&loop.client, NULL) != TREADLE_OK) {
        fprintf(stderr, "event_loop: %s\n",
                count != 2 ? "give SERVICE.TASK" : treadle_client_error(NULL));
        return 1;
    }
    loop.name = arguments[1];
    while (!loop.is_at_end || loop.waiting_count > 0) {
        /* While many tasks wait, the rest stays in the pipe: the client's limits are not reached.
         */
        const int wants_lines = !loop.is_at_end && loop.waiting_count < 1000;
        struct pollfd items[] = {
            {.fd = treadle_client_fd(loop.client), .events = POLLIN},
            {.fd = wants_lines ? STDIN_FILENO : -1, .events = POLLIN},
        };
        if (items[0].fd < 0 || poll(items, 2, -1) < 0) {
            perror("event_loop");
            return 1;
        }
        if (items[1].revents != 0) {
            on_stdin(&loop);
        }
        if (items[0].revents != 0) {
            on_client(&loop);
        }
    }
    treadle_client_close(&loop.client);
    return loop.exit_code;
}
