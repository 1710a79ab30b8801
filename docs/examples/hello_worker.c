/* SPDX-License-Identifier: MPL-2.0 */
/* A whole worker:  cc -std=c17 -o hello_worker hello_worker.c $(pkg-config --cflags --libs treadle)
 * then, with a broker running:  ./hello_worker   and   treadle run hello.greet Ada */
#include <stdio.h>

#include <treadle/worker.h>

static enum treadle_end greet(treadle_context *context, const struct treadle_attempt *attempt)
{
    char text[128];
    const int name_size = attempt->body_size < 64 ? (int)attempt->body_size : 64;
    const char *name = name_size > 0 ? attempt->body : "";
    const int size = snprintf(text, sizeof(text), "Hello, %.*s!", name_size, name);
    return treadle_context_result(context, text, (size_t)size);
}

int main(void)
{
    const struct treadle_handler handler = {
        .size = sizeof(handler), .name = "hello.greet", .run = greet};
    treadle_worker *worker = NULL;
    enum treadle_status status = treadle_worker_create(&worker, NULL, &handler, 1);
    if (status == TREADLE_OK) {
        status = treadle_worker_run(worker); /* until it is drained: `treadle worker drain NAME` */
    }
    if (status != TREADLE_OK) {
        fprintf(stderr, "hello_worker: %s\n", treadle_worker_error(worker));
    }
    treadle_worker_destroy(&worker);
    return status == TREADLE_OK ? 0 : 1;
}
