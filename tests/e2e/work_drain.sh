#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# A worker told to end finishes what runs and takes nothing new; told twice it ends at once.
#
# usage: work_drain.sh BIN TESTS
source "$(dirname "$0")/support.sh"
plugin=$2/crash_plugin.so

is_running() { # ID
    is_state "$1" running
}

exits_with() { # NAME CODE: a worker started by start_counted
    eventually 10 test -s "$work/$1.code" || fail "$1 does not end"
    [[ $(cat "$work/$1.code") -eq $2 ]] || fail "$1 ended with $(cat "$work/$1.code"), not $2"
}

# As start_worker, with the exit code in NAME.code; the worker's pid in $last_pid.
start_counted() { # NAME ARGUMENT...
    local name=$1
    shift
    # shellcheck disable=SC2016 # for the inner shell
    start "worker-$name" bash -c '"$@" & pid=$!; echo $pid >"'"$work/$name"'.pid"; trap "" TERM
        wait $pid; echo $? >"'"$work/$name"'.code"' - "$bin/treadle" work --name "$name" "$@"
    eventually 10 is_worker_there "$name" || fail "worker $name does not come up"
    last_pid=$(cat "$work/$name.pid")
}

start_broker

step "on TERM what runs is finished, what waits goes to another worker"
start_counted w1 --plugin "$plugin" --slots 1 crash.slow
worker=$last_pid
cli submit crash.slow 700
running=$(cat "$out")
eventually 5 is_running "$running" || fail "it does not run"
cli submit crash.slow 1
waiting=$(cat "$out")
kill -TERM "$worker"
eventually 2 has_line worker-w1.log 'finishing 1 task, taking nothing new' || fail "it does not say that it drains"
exits_with w1 0
has_line worker-w1.log 'drained$' || fail "it does not say that it is drained"
then_state "$running" succeeded
is_state "$waiting" ready || fail "what had not started was not handed back"
start_counted w2 --plugin "$plugin" --slots 1
then_state "$waiting" succeeded
cli task show "$running" --json
then_stdout_has '"dispatches": 1,'

step "by the broker's word, the same"
worker=$last_pid
cli submit crash.slow 500
running=$(cat "$out")
eventually 5 is_running "$running" || fail "it does not run"
cli worker drain w2
then_exit 0
eventually 2 has_line worker-w2.log 'finishing 1 task, taking nothing new' || fail "it does not say that it drains"
exits_with w2 0
then_state "$running" succeeded

step "what runs longer than the drain's timeout is stopped"
start_counted w3 --plugin "$plugin" --slots 1 --drain-timeout 300ms --grace 200ms
cli submit crash.hang --attempts 1
running=$(cat "$out")
eventually 5 is_running "$running" || fail "it does not run"
kill -TERM "$last_pid"
exits_with w3 0

step "a second signal ends it at once, and all that it began"
start_counted w4 --slots 1 long.command -- sh -c 'trap "" TERM; echo $$ >pid; sleep 600 & sleep 600'
worker=$last_pid
cli submit long.command
eventually 5 test -s pid || fail "it does not run"
kill -INT "$worker"
eventually 2 has_line worker-w4.log 'finishing 1 task' || fail "the first one was not heard"
kill -INT "$worker"
exits_with w4 130
wait_gone "$(cat pid)" 1 || fail "its command is left"
