/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/outcome.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* What a shell exits with when it cannot run a program, and when it cannot find it. */
#define EXIT_NOT_RUN   126
#define EXIT_NOT_FOUND 127

enum failure_kind outcome_kind_of_errno(int error)
{
    const bool is_passing =
        error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE || error == ENOSPC;
    return is_passing ? FAILURE_TRANSIENT : FAILURE_PREPARE;
}

void outcome_name_errno(char name[NAME_SIZE_MAX], int error)
{
    const char *error_name = strerrorname_np(error);
    snprintf(name, NAME_SIZE_MAX, "spawn.%s", error_name != NULL ? error_name : "error");
}

void trace_tail_add(struct trace_tail *tail, const uint8_t *data, size_t size)
{
    if (size > ERROR_TRACE_SIZE_MAX) {
        data += size - ERROR_TRACE_SIZE_MAX;
        size = ERROR_TRACE_SIZE_MAX;
        tail->size = 0;
        tail->is_cut = true;
    }
    if (tail->size + size > sizeof(tail->data)) {
        const size_t kept = ERROR_TRACE_SIZE_MAX < tail->size ? ERROR_TRACE_SIZE_MAX : tail->size;
        memmove(tail->data, tail->data + tail->size - kept, kept);
        tail->size = kept;
        tail->is_cut = true;
    }
    memcpy(tail->data + tail->size, data, size);
    tail->size += size;
}

struct bytes trace_tail_text(const struct trace_tail *tail)
{
    size_t start = tail->size > ERROR_TRACE_SIZE_MAX ? tail->size - ERROR_TRACE_SIZE_MAX : 0;
    const bool is_cut = tail->is_cut || start > 0;
    for (int i = 0; is_cut && i < 3 && start < tail->size && (tail->data[start] & 0xc0) == 0x80;
         i++) {
        start++;
    }
    return (struct bytes){tail->data + start, tail->size - start};
}

static bool is_blank(uint8_t character)
{
    return character == ' ' || (character >= '\t' && character <= '\r');
}

struct bytes trace_tail_last_line(const struct trace_tail *tail)
{
    const struct bytes text = trace_tail_text(tail);
    size_t end = text.size;
    while (end > 0 && is_blank(text.data[end - 1])) {
        end--;
    }
    size_t start = end;
    while (start > 0 && text.data[start - 1] != '\n') {
        start--;
    }
    while (start < end && is_blank(text.data[start])) {
        start++;
    }
    const size_t size = end - start;
    return (struct bytes){text.data + start,
                          size < ERROR_MESSAGE_SIZE_MAX ? size : ERROR_MESSAGE_SIZE_MAX};
}

static void judge_signal(int number, struct outcome_texts *texts,
                         struct wire_failure_entry *failure)
{
    const char *abbreviation = sigabbrev_np(number);
    failure->kind = FAILURE_CRASH;
    failure->signal = (uint64_t)number;
    if (abbreviation != NULL) {
        snprintf(texts->name, sizeof(texts->name), "signal.%s", abbreviation);
        snprintf(texts->message, sizeof(texts->message), "died of SIG%s", abbreviation);
    } else {
        snprintf(texts->name, sizeof(texts->name), "signal.%d", number);
        snprintf(texts->message, sizeof(texts->message), "died of signal %d", number);
    }
}

static void judge_exit(int status, const bool *is_permanent_exit, struct outcome_texts *texts,
                       struct wire_failure_entry *failure)
{
    failure->kind = FAILURE_TRANSIENT;
    if (is_permanent_exit[status]) {
        failure->kind = FAILURE_PERMANENT;
    } else if (status == EXIT_NOT_RUN || status == EXIT_NOT_FOUND) {
        failure->kind = FAILURE_PREPARE;
    }
    snprintf(texts->name, sizeof(texts->name), "exit.%d", status);
    snprintf(texts->message, sizeof(texts->message), "exited with status %d", status);
}

bool outcome_judge(int wait_state, const bool *is_permanent_exit, const struct trace_tail *tail,
                   struct outcome_texts *texts, struct wire_failure_entry *failure)
{
    if (WIFEXITED(wait_state) && WEXITSTATUS(wait_state) == 0) {
        return true;
    }
    if (WIFSIGNALED(wait_state)) {
        judge_signal(WTERMSIG(wait_state), texts, failure);
    } else {
        judge_exit(WEXITSTATUS(wait_state), is_permanent_exit, texts, failure);
    }
    const struct bytes last_line = trace_tail_last_line(tail);
    failure->name = bytes_from_text(texts->name);
    failure->message = last_line.size > 0 ? last_line : bytes_from_text(texts->message);
    failure->trace = trace_tail_text(tail);
    return false;
}
