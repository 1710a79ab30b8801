#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Handlers that fail: retries, permanent exits, crashes, timeouts, and how run tells about them.
source "$(dirname "$0")/support.sh"
start_broker

step "a task that always fails is tried as often as asked, then it is told"
start_worker bad bad.always -- sh -c 'echo first line >&2; echo "cannot do $(cat)" >&2; exit 3'
cli run bad.always this --attempts 2 --backoff 100ms,1
then_exit 1
[[ ! -s $out ]] || fail "stdout is not empty"
[[ $(wc -l <"$err") -le 4 ]] || fail "more than four lines"
then_stderr_has '^bad[.]always failed: transient: cannot do this$'
then_stderr_has '^attempt 2 of 2 by worker bad on host .+$'
then_stderr_has '^more with: treadle task show [0-9a-f-]{36}$'
id=$(sed -n 's/^task \([0-9a-f-]*\)$/\1/p' "$err")
cli task show "$id" --json
then_exit 0
[[ $(grep -c '"error_id"' "$out") -eq 2 ]] || fail "not two attempts in the history"
then_stdout_has '"name": "exit[.]3"'
then_stdout_has '"kind": "transient"'
then_stdout_has '"trace": "first line\\ncannot do this'
then_stdout_has '"worker": "bad"'
cli task show "$id"
then_exit 0
then_stdout_has '^failure +transient exit[.]3 at '
cli task wait "$id"
then_exit 1
then_stderr_has '^bad[.]always failed: transient: cannot do this$'

step "fails three times, then succeeds, with its history"
start_worker flaky flaky.third -- sh -c 'test "$TREADLE_RETRY_INDEX" -ge 3 && echo done'
cli submit flaky.third --backoff 100ms,1
id=$(cat "$out")
cli task wait "$id"
then_exit 0
then_stdout_is 'done'
cli task show "$id" --json
[[ $(grep -c '"error_id"' "$out") -eq 3 ]] || fail "not three attempts in the history"
then_stdout_has '"state": "succeeded"'
then_stdout_has '"dispatches": 4'

step "exit codes that are permanent"
start_worker final final.exit --permanent-exit 7,8 -- sh -c 'exit 8'
cli run final.exit
then_exit 1
then_stderr_has '^final[.]exit failed: permanent: '
then_stderr_has '^attempt 1 of 4 '

step "a command that is not there, any more or at all"
given_a_command gone
start_worker gone gone.command -- ./gone
rm gone
cli run gone.command
then_exit 1
then_stderr_has '^gone[.]command failed: prepare: '

step "death by a signal"
start_worker crash crash.now -- sh -c 'kill -SEGV $$'
cli run crash.now --attempts 1
then_exit 1
then_stderr_has '^crash[.]now failed: crash: '

step "the attempt timeout"
start_worker slow slow.task --grace 100ms -- sleep 30
cli run slow.task --timeout 300ms --attempts 1
then_exit 1
then_stderr_has '^slow[.]task failed: timeout'

step "the deadline"
cli run slow.task --deadline 500ms
then_exit 1
then_stderr_has '^slow[.]task expired'
