/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE
#include "worker/exec/adopted.h"

#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>

#include "worker/exec/children.h"

struct look {
    pid_t dead[ADOPTED_COUNT_MAX];
    size_t dead_count;
};

/* Of this process, or any if it is 0. Nothing is taken away by looking. */
static bool is_dead(pid_t child)
{
    siginfo_t info = {.si_pid = 0};
    return waitid(child == 0 ? P_ALL : P_PID, (id_t)child, &info,
                  WEXITED | WNOHANG | WNOWAIT | __WNOTHREAD) == 0 &&
           info.si_pid != 0;
}

static void look_at(void *context, pid_t child)
{
    struct look *look = context;
    if (look->dead_count < ADOPTED_COUNT_MAX && is_dead(child)) {
        look->dead[look->dead_count++] = child;
    }
}

static bool was_dead(const struct adopted *before, pid_t child)
{
    for (size_t i = 0; i < before->dead_count; i++) {
        if (before->dead[i] == child) {
            return true;
        }
    }
    return false;
}

void adopted_reap(struct adopted *adopted, uint64_t now_us)
{
    if (now_us < adopted->look_at_us) {
        return;
    }
    adopted->look_at_us = now_us + ADOPTED_LOOK_PERIOD_US;
    if (!is_dead(0)) {
        adopted->dead_count = 0;
        return;
    }
    struct look look = {.dead_count = 0};
    size_t left_count = 0;
    if (!children_list(&(struct children_visitor){&look, look_at})) {
        return;
    }
    for (size_t i = 0; i < look.dead_count; i++) {
        if (left_count < ADOPTED_KEPT_COUNT || !was_dead(adopted, look.dead[i]) ||
            waitpid(look.dead[i], NULL, WNOHANG) != look.dead[i]) {
            look.dead[left_count++] = look.dead[i];
        }
    }
    memcpy(adopted->dead, look.dead, left_count * sizeof(look.dead[0]));
    adopted->dead_count = left_count;
}
