/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "client/cli/submission.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_SIZE_MIN 65536

static enum cli_exit body_too_large(const struct arguments *arguments, const char *from,
                                    uint64_t limit)
{
    return cli_fail(CLI_BAD_DATA,
                    "%s: %s: the body is over the limit of %llu bytes; put it where the worker "
                    "can fetch it and submit its name",
                    arguments->verb->name, from, (unsigned long long)limit);
}

/* Reads all there is. More than the limit: CLI_BAD_DATA. */
static enum cli_exit body_read(struct submission *submission, const struct arguments *arguments,
                               int fd, const char *from)
{
    size_t capacity = READ_SIZE_MIN;
    size_t size = 0;

    submission->body = malloc(capacity);
    while (submission->body != NULL) {
        ssize_t got = read(fd, submission->body + size, capacity - size);

        if (got == -1 && errno != EINTR) {
            return cli_fail(CLI_NOT_FOUND, "%s: %s: %s", arguments->verb->name, from,
                            strerrordesc_np(errno));
        }
        if (got == 0) {
            submission->body_size = size;
            return CLI_DONE;
        }
        size += got > 0 ? (size_t)got : 0;
        if (size > BODY_SIZE_LIMIT) {
            return body_too_large(arguments, from, BODY_SIZE_LIMIT);
        }
        if (size == capacity) {
            capacity *= 2;
            uint8_t *larger = realloc(submission->body, capacity);

            if (larger == NULL) {
                break;
            }
            submission->body = larger;
        }
    }
    return cli_fail_memory();
}

static enum cli_exit body_read_file(struct submission *submission,
                                    const struct arguments *arguments, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd == -1) {
        return cli_fail(CLI_NOT_FOUND,
                        "%s: @%s: %s; name a file that can be read, or give --raw for a body that "
                        "begins with @",
                        arguments->verb->name, path, strerrordesc_np(errno));
    }
    enum cli_exit code = body_read(submission, arguments, fd, path);

    close(fd);
    return code;
}

static enum cli_exit body_take(struct submission *submission, const struct arguments *arguments)
{
    const char *text = arguments->word_count < 2 ? "" : arguments->words[1];

    if (!arguments->is_raw && strcmp(text, "-") == 0) {
        return body_read(submission, arguments, STDIN_FILENO, "stdin");
    }
    if (!arguments->is_raw && text[0] == '@') {
        return body_read_file(submission, arguments, text + 1);
    }
    submission->body_size = strlen(text);
    if (submission->body_size > BODY_SIZE_LIMIT) {
        return body_too_large(arguments, "BODY", BODY_SIZE_LIMIT);
    }
    submission->body = malloc(submission->body_size + 1);
    if (submission->body == NULL) {
        return cli_fail_memory();
    }
    memcpy(submission->body, text, submission->body_size + 1);
    return CLI_DONE;
}

enum cli_exit submission_read(struct submission *submission, const struct arguments *arguments,
                              uint32_t flags)
{
    const struct wire_policy *policy = &arguments->policy;
    struct task_name name;

    *submission = (struct submission){.name = arguments->words[0]};
    enum cli_exit code = task_name_parse(arguments, submission->name, false, &name);

    if (code == CLI_DONE) {
        code = body_take(submission, arguments);
    }
    submission->task = (struct treadle_task){
        .size = sizeof(struct treadle_task),
        .name = submission->name,
        .body = submission->body,
        .body_size = submission->body_size,
        .id = is_given(arguments, OPTION_ID) ? &arguments->id : NULL,
        .tenant = arguments->tenant,
        .tags = arguments->tags,
        .tag_count = arguments->tag_count,
        .meta = arguments->meta,
        .meta_count = arguments->meta_count,
        .flags = flags | (arguments->is_volatile ? TREADLE_TASK_VOLATILE : 0),
        .priority_plus_one =
            is_given(arguments, OPTION_PRIORITY) ? (uint32_t)arguments->priority + 1 : 0,
        .attempts_max = (uint32_t)policy->attempts_max,
        .backoff_factor_milli = (uint32_t)policy->backoff_factor_milli,
        .backoff_base_ms = policy->backoff_base_ms,
        .backoff_max_ms = policy->backoff_max_ms,
        .delay_ms = arguments->delay_ms,
        .queue_timeout_ms = policy->queue_timeout_ms,
        .timeout_ms = policy->timeout_ms,
        .progress_timeout_ms = policy->progress_timeout_ms,
        .deadline_ms = policy->deadline_ms,
        .result_ttl_ms = policy->result_ttl_ms,
    };
    return code;
}

void submission_reset(struct submission *submission)
{
    free(submission->body);
    submission->body = NULL;
}

enum cli_exit submission_send(const struct submission *submission, struct contact *contact,
                              struct treadle_task_id *id)
{
    const struct arguments *arguments = contact->arguments;
    enum treadle_status status = client_submit(contact->client, &submission->task,
                                               CLIENT_TELL_ACCEPTED | CLIENT_TELL_BUSY, id);

    if (status == TREADLE_OK) {
        return CLI_DONE;
    }
    if (status == TREADLE_E_LIMIT) {
        struct client_session *session = client_session_of(contact->client);

        return body_too_large(arguments, submission->name,
                              client_session_figures(session).body_size_max);
    }
    const char *why = treadle_client_error(contact->client);

    return cli_fail(status == TREADLE_E_INVALID ? CLI_USAGE : CLI_SYSTEM, "%s: %s: %s",
                    arguments->verb->name, submission->name,
                    why[0] == '\0' ? treadle_status_text(status) : why);
}
