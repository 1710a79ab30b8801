/* SPDX-License-Identifier: MPL-2.0 */
/* A client: hello_client SERVICE.TASK [BODY...] submits a task for each body and prints the results
 * as they come. The broker is the one that TREADLE_BROKER names. */
#include <stdio.h>
#include <string.h>
#include <treadle/client.h>

int main(int count, char **arguments)
{
    treadle_client *client = NULL;
    if (count < 2 || treadle_client_open(&client, NULL) != TREADLE_OK) {
        fprintf(stderr, "hello_client: %s\n",
                count < 2 ? "give SERVICE.TASK and bodies" : treadle_client_error(NULL));
        return 1;
    }
    int failed_count = 0;
    for (int i = 2; i < count; i++) {
        const struct treadle_task task = {.size = sizeof(task),
                                          .name = arguments[1],
                                          .body = arguments[i],
                                          .body_size = strlen(arguments[i])};
        if (treadle_client_submit(client, &task, NULL) != TREADLE_OK) {
            fprintf(stderr, "hello_client: %s\n", treadle_client_error(client));
            failed_count++;
        }
    }
    struct treadle_outcome *outcome = NULL;
    while (treadle_client_recv(client, TREADLE_FOREVER, &outcome) == TREADLE_OK) {
        char id[TREADLE_ID_TEXT_SIZE];
        const int is_good =
            outcome->status == TREADLE_OK && outcome->state == TREADLE_TASK_SUCCEEDED;
        failed_count += is_good ? 0 : 1;
        printf("%s %s: %.*s\n", treadle_id_format(&outcome->id, id),
               outcome->status == TREADLE_OK ? outcome->state_text : outcome->reason,
               (int)outcome->body_size, outcome->body_size > 0 ? (const char *)outcome->body : "");
        treadle_outcome_free(&outcome);
    }
    treadle_client_close(&client);
    return failed_count > 0;
}
