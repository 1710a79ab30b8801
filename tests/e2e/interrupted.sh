#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# A run that is interrupted cancels its task; with --detach it leaves it.
source "$(dirname "$0")/support.sh"
start_broker
start_worker sleeper nap.long --grace 100ms --slots 4 -- sleep 30

# Starts a run in the background and waits until its task runs; sets run_pid and id.
run_and_wait_until_running() { # ARGUMENT...
    "$bin/treadle" run nap.long "$@" >"$out" 2>"$err" &
    run_pid=$!
    started+=("$run_pid")
    eventually 5 is_one_running || fail "the task does not start"
}

is_one_running() {
    id=$("$bin/treadle" task ls --state running --json 2>/dev/null | json_field id)
    [[ -n $id ]]
}

for signal in INT TERM; do
    step "run, $signal"
    run_and_wait_until_running
    kill -"$signal" "$run_pid"
    wait "$run_pid"
    code=$?
    then_exit 130
    then_stderr_has 'run: interrupted; nap[.]long is (told to stop|cancelled)'
    then_state "$id" cancelled
done

step "run of a waiting task"
"$bin/treadle" run wait.here --delay 1h >"$out" 2>"$err" &
run_pid=$!
started+=("$run_pid")
is_scheduled() {
    id=$("$bin/treadle" task ls --state scheduled --json 2>/dev/null | json_field id)
    [[ -n $id ]]
}
eventually 5 is_scheduled || fail "no task"
kill -INT "$run_pid"
wait "$run_pid"
code=$?
then_exit 130
then_stderr_has 'run: interrupted; wait[.]here is cancelled'
is_state "$id" cancelled || fail "not cancelled"

step "run --detach"
run_and_wait_until_running --detach
kill -INT "$run_pid"
wait "$run_pid"
code=$?
then_exit 130
then_stderr_has "run: interrupted; the task may go on: treadle task wait $id"
is_state "$id" running || fail "the task does not go on"

step "task wait"
"$bin/treadle" task wait "$id" >"$out" 2>"$err" &
wait_pid=$!
started+=("$wait_pid")
sleep 0.5
kill -INT "$wait_pid"
wait "$wait_pid"
code=$?
then_exit 130
is_state "$id" running || fail "waiting for it ended it"
