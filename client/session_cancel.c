/* SPDX-License-Identifier: MPL-2.0 */
#include "client/session_state.h"

#include <stdlib.h>
#include <string.h>

#define CANCEL_COUNT_MAX 16384

static void destroy_all(struct list *cancels)
{
    struct list *link = cancels->next;
    while (link != cancels) {
        struct list *next = link->next;
        free(container_of(link, struct cancel_request, link));
        link = next;
    }
    list_init(cancels);
}

void client_cancels_destroy(struct client_session *session)
{
    destroy_all(&session->cancels_pending);
    destroy_all(&session->cancels_sent);
    session->cancel_count = 0;
}

/* From the first on: answers come in the order of the questions. */
static struct cancel_request *cancel_find_first(const struct list *cancels,
                                                const struct treadle_task_id *id)
{
    for (struct list *link = list_first(cancels); link != NULL; link = list_next(cancels, link)) {
        struct cancel_request *cancel = container_of(link, struct cancel_request, link);
        if (memcmp(cancel->id.bytes, id->bytes, sizeof(id->bytes)) == 0) {
            return cancel;
        }
    }
    return NULL;
}

/* From the last on: what is asked about was asked for of late. */
static struct cancel_request *cancel_find_last(const struct list *cancels,
                                               const struct treadle_task_id *id)
{
    for (struct list *link = cancels->prev; link != cancels; link = link->prev) {
        struct cancel_request *cancel = container_of(link, struct cancel_request, link);
        if (memcmp(cancel->id.bytes, id->bytes, sizeof(id->bytes)) == 0) {
            return cancel;
        }
    }
    return NULL;
}

static struct cancel_request *cancel_find(const struct client_session *session,
                                          const struct treadle_task_id *id)
{
    struct cancel_request *cancel = cancel_find_last(&session->cancels_pending, id);
    return cancel != NULL ? cancel : cancel_find_last(&session->cancels_sent, id);
}

/* An id that was given may be that of a task from before, unless the broker just said BUSY to it.
 */
static bool is_only_here(const struct session_task *task)
{
    return task->template != NULL && !task->was_sent &&
           (!task->is_id_given || task->stage == STAGE_BUSY);
}

enum treadle_status client_session_cancel(struct client_session *session, struct treadle_task_id id)
{
    struct session_task *task = client_task_find(session, &id);
    if (task != NULL && is_only_here(task)) {
        struct client_event *event = client_event_create(CLIENT_EVENT_CANCELLED, 0);
        if (event == NULL) {
            return TREADLE_E_NOMEM;
        }
        if (!client_task_cancel_here(session, task)) {
            client_event_destroy(&event);
            return TREADLE_E_NOMEM;
        }
        event->id = id;
        event->status = CANCEL_DONE;
        client_event_push(session, event);
        return TREADLE_OK;
    }
    struct cancel_request *cancel = NULL;
    if (task == NULL || task->is_cancel_requested) {
        cancel = cancel_find(session, &id);
    }
    if (cancel == NULL) {
        if (session->cancel_count >= CANCEL_COUNT_MAX) {
            return TREADLE_E_AGAIN;
        }
        cancel = malloc(sizeof(*cancel));
        if (cancel == NULL) {
            return TREADLE_E_NOMEM;
        }
        cancel->id = id;
        list_init(&cancel->link);
        list_push_back(&session->cancels_pending, &cancel->link);
        session->cancel_count++;
    }
    cancel->is_forgotten = false;
    if (task != NULL) {
        task->is_cancel_requested = true;
    }
    return TREADLE_OK;
}

void client_session_forget_cancel(struct client_session *session, struct treadle_task_id id)
{
    struct cancel_request *cancel = cancel_find(session, &id);
    if (cancel != NULL) {
        cancel->is_forgotten = true;
    }
}

bool client_cancel_answered(struct client_session *session,
                            const struct wire_cancelled_entry *entry)
{
    struct cancel_request *cancel = cancel_find_first(&session->cancels_sent, &entry->id);
    if (cancel == NULL) {
        return true; /* it was answered before */
    }
    if (!cancel->is_forgotten &&
        !client_event_tell(session, CLIENT_EVENT_CANCELLED, entry->id, entry->status, 0)) {
        return false;
    }
    list_remove(&cancel->link);
    session->cancel_count--;
    free(cancel);
    return true;
}
