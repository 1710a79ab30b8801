/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/runner/orphans.h"

#include <poll.h>
#include <signal.h>

#include <sys/prctl.h>
#include <sys/wait.h>

#include "worker/exec/children.h"

#define ROUND_COUNT_MAX 200
#define ROUND_MS        10

struct ending {
    const struct orphans *orphans;
    size_t found_count;
};

static void visit_all(const struct children_visitor *visitor)
{
    if (!children_list(visitor)) {
        (void)children_scan(visitor);
    }
}

static void add_other(void *context, pid_t child)
{
    struct orphans *orphans = context;
    if (orphans->other_count < ORPHANS_OTHERS_MAX) {
        orphans->others[orphans->other_count] = child;
    }
    orphans->other_count++;
}

void orphans_adopt(struct orphans *orphans)
{
    *orphans = (struct orphans){.other_count = 0};
    visit_all(&(struct children_visitor){orphans, add_other});
    orphans->is_adopting = orphans->other_count <= ORPHANS_OTHERS_MAX &&
                           prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0;
}

static void end_child(void *context, pid_t child)
{
    struct ending *ending = context;
    const struct orphans *orphans = ending->orphans;
    for (size_t i = 0; i < orphans->other_count; i++) {
        if (orphans->others[i] == child) {
            return;
        }
    }
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, WNOHANG);
    ending->found_count++;
}

/* The children of one that has died become ours before it can be waited for, but perhaps after the
 * list was read: so until a look finds none. */
void orphans_end(const struct orphans *orphans)
{
    struct ending ending = {.orphans = orphans, .found_count = 1};
    for (int i = 0; i < ROUND_COUNT_MAX && orphans->is_adopting && ending.found_count > 0; i++) {
        ending.found_count = 0;
        visit_all(&(struct children_visitor){&ending, end_child});
        if (ending.found_count > 0) {
            (void)poll(NULL, 0, ROUND_MS);
        }
    }
}
