#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# A worker is stopped past its session and goes on later: what it brings then is late and changes
# nothing.
source "$(dirname "$0")/support.sh"
start_broker

cat >handler <<'HANDLER'
#!/bin/sh
: >"started.$TREADLE_WORKER"
while ! [ -e "go.$TREADLE_WORKER" ]; do sleep 0.05; done
echo "$TREADLE_WORKER"
HANDLER
chmod +x handler

late_count() {
    "$bin/treadle" stats --json | json_field late
}
is_one_late() {
    [[ $(late_count) -ge 1 ]]
}

step "a task runs on a worker that is stopped"
start_worker first hold.on --slots 1 -- ./handler
first_pid=$last_pid
cli submit hold.on
id=$(cat "$out")
eventually 5 test -e started.first || fail "the task does not start"
kill -STOP "$first_pid"
start_worker second hold.on --slots 1 -- ./handler

step "its session is lost, the task starts on another worker and settles there"
eventually 8 test -e started.second || fail "the task does not start elsewhere"
: >go.second
cli task wait "$id" --wait 5s
then_exit 0
then_stdout_is second
[[ $(late_count) -eq 0 ]] || fail "something was late before the worker went on"

step "it goes on: its result is late"
: >go.first
kill -CONT "$first_pid"
eventually 8 is_one_late || fail "no late result was counted"
cli task wait "$id"
then_exit 0
then_stdout_is second
cli task show "$id" --json
then_stdout_has '"state": "succeeded"'
then_stdout_has '"dispatches": 2'
[[ $(grep -c '"error_id"' "$out") -eq 1 ]] || fail "not one failed attempt in the history"
then_stdout_has '"kind": "lost"'
then_stdout_has '"worker": "first"'
