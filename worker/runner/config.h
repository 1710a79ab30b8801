/* SPDX-License-Identifier: MPL-2.0 */
/*
 * The file of `treadle work -c FILE`: settings of the worker, sections `handler "SERVICE.TASK" {}`
 * and `plugin "FILE.so" {}`. One thread.
 */
#ifndef TREADLE_WORKER_RUNNER_CONFIG_H
#define TREADLE_WORKER_RUNNER_CONFIG_H

#include "common/conf/conf.h"
#include "worker/worker_internal.h"

/* What a file says; everything in it is its own. */
struct runner_config;

/* home: what a leading ~/ in the name of a key file stands for; NULL: itself. Never NULL but when
 * memory is out. With mistakes it is of no use but to be destroyed. */
struct runner_config *runner_config_read(const char *path, const char *home,
                                         struct conf_mistakes *mistakes);

/* Nulls the pointer; NULL is fine. */
void runner_config_destroy(struct runner_config **config);

/* Puts what the file says where `worker` says nothing: a zero, or NULL, is not given. The arrays
 * point into the configuration, which must stay. is_threaded counts as given if is_pool_given. */
void runner_config_apply(struct runner_config *config, struct worker_config *worker,
                         bool is_pool_given);

#endif
