/* SPDX-License-Identifier: MPL-2.0 */
/* Answers that wait for their record to be durable: one FIFO, so that a task's entries never
 * overtake each other. */
#include "broker/core/internal.h"
#include "common/base/assert.h"

#define BUSY_RETRY_AFTER_MS 500U
#define OUTBOX_ROOM         (UINT64_C(3) * ENTRY_COUNT_MAX) /* more than a message can ask for */

void outbox_push(struct core *core, const struct session *session, const struct outbox_item *item)
{
    TREADLE_ASSERT(core->outbox_tail - core->outbox_head < core->config.outbox_count_max);
    struct outbox_item *place = &core->outbox[core->outbox_tail % core->config.outbox_count_max];
    *place = *item;
    place->session = session_number(core, session);
    place->session_serial = session->serial;
    core->outbox_tail++;
}

bool outbox_is_due(const struct core *core)
{
    return core->outbox_head != core->outbox_tail &&
           core->outbox[core->outbox_head % core->config.outbox_count_max].after <=
               core->durable_number;
}

bool core_admits_input(const struct core *core)
{
    return core->config.outbox_count_max - (core->outbox_tail - core->outbox_head) >= OUTBOX_ROOM;
}

/* SETTLED says more, and goes in the same flush. */
static bool is_told_by_settled(const struct core *core, const struct session *session,
                               const struct outbox_item *item)
{
    if (deliver_is_blocked(core, session) || item->code != MESSAGE_ACCEPTED ||
        item->status != ACCEPT_OK || item->task == NONE) {
        return false;
    }
    const struct task *task = &core->tasks[item->task];
    return task->sequence == item->sequence && task_is_settled(task) &&
           (task->flags & TASK_WATCHED) != 0 && task->record <= core->durable_number;
}

/* The more a session was refused, the later it shall come again: what it tries is about
 * BUSY_PER_MS, whatever it has. */
static uint64_t retry_after_ms(const struct session *session)
{
    const uint64_t span_ms = session->busy_backlog / BUSY_PER_MS;
    return span_ms > BUSY_RETRY_AFTER_MS ? span_ms : BUSY_RETRY_AFTER_MS;
}

static void send_item(struct core *core, const struct outbox_item *item, struct effects *out)
{
    struct session *session = &core->sessions[item->session];
    if (session->serial != item->session_serial || is_told_by_settled(core, session, item)) {
        return;
    }
    struct effect *effect = session_send(core, session, (enum message_kind)item->code, out);
    if (effect == NULL) {
        return;
    }
    effect->id = item->id;
    effect->status = item->status;
    effect->number = item->number;
    if (item->code == MESSAGE_ACCEPTED) {
        effect->reason = (uint8_t)item->number;
        effect->value = item->status == ACCEPT_BUSY ? retry_after_ms(session) : 0;
    }
}

void outbox_run(struct core *core, struct effects *out)
{
    while (outbox_is_due(core) && effects_room(out) > 0) {
        send_item(core, &core->outbox[core->outbox_head % core->config.outbox_count_max], out);
        core->outbox_head++;
    }
}
