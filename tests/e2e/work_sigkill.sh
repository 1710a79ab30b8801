#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# `treadle work` killed with SIGKILL leaves no process behind, not even one that left its session.
#
# usage: work_sigkill.sh BIN TESTS
source "$(dirname "$0")/support.sh"
plugin=$2/crash_plugin.so

descendants() { # PID
    local pid
    for pid in $(pgrep -P "$1"); do
        echo "$pid"
        descendants "$pid"
    done
}

has_pids() { # FILE COUNT
    [[ $(wc -l <"$1" 2>/dev/null) -ge $2 ]]
}

has_descendants() { # PID COUNT
    [[ $(descendants "$1" | wc -l) -ge $2 ]]
}

then_all_are_gone() { # PID...
    local pid until_ms
    until_ms=$(($(now_ms) + 1000))
    for pid in "$@"; do
        while ! is_gone "$pid"; do
            (($(now_ms) < until_ms)) || fail "process $pid is left: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
            sleep 0.02
        done
    done
}

start_broker

step "commands, with a grandchild in a session of its own"
start_worker w1 --slots 2 long.command -- sh -c \
    'echo $$ >>pids; setsid sh -c "echo \$\$ >>pids; sleep 600" & sleep 600'
worker=$last_pid
cli submit long.command --attempts 1
then_exit 0
cli submit long.command --attempts 1
then_exit 0
eventually 10 has_pids pids 4 || fail "the commands did not begin"
mapfile -t all < <(descendants "$worker"; cat pids)
((${#all[@]} >= 5)) || fail "too few processes: ${all[*]}"
kill -KILL "$worker"
then_all_are_gone "${all[@]}"

step "a plugin's processes, one of them hanging, one with a process of its own session"
start_worker w2 --slots 2 --plugin "$plugin"
worker=$last_pid
cli submit crash.hang --attempts 1
then_exit 0
cli submit crash.fork "$work/function.pid" --attempts 1
then_exit 0
eventually 10 has_pids function.pid 1 || fail "the handler did not begin"
mapfile -t all < <(descendants "$worker"; cat function.pid)
((${#all[@]} >= 3)) || fail "too few processes: ${all[*]}"
kill -KILL "$worker"
then_all_are_gone "${all[@]}"

step "when its zygote is killed, the worker says so and ends, and the handlers' processes with it"
start_worker w3 --slots 2 --plugin "$plugin" crash.hang
worker=$last_pid
cli submit crash.hang --attempts 1
then_exit 0
sleep 0.3
mapfile -t all < <(descendants "$worker")
kill -KILL "$(pgrep -P "$worker")"
wait_gone "$worker" 5 || fail "the worker goes on without its zygote"
has_line worker-w3.log 'the process that starts all others \([0-9]+\) has died' || fail "it does not say why"
then_all_are_gone "${all[@]}"

step "so with what left its session, but not with what was there before the worker"
rm pids
# shellcheck disable=SC2016 # for the inner shell
start worker-w4 bash -c 'sleep 600 & echo $! >other.pid; exec "$@"' - \
    "$bin/treadle" work --name w4 long.command -- sh -c \
    'echo $$ >>pids; setsid sh -c "echo \$\$ >>pids; setsid sleep 600 & sleep 600" & sleep 600'
worker=$last_pid
eventually 10 is_worker_there w4 || fail "the worker does not come up"
cli submit long.command --attempts 1
then_exit 0
eventually 10 has_pids pids 2 || fail "the command did not begin"
other=$(cat other.pid)
started+=("$other")
zygote=$(pgrep -P "$worker" | grep -vx "$other")
eventually 5 has_descendants "$zygote" 5 || fail "too few processes"
mapfile -t all < <(descendants "$zygote"; cat pids)
kill -KILL "$zygote"
wait_gone "$worker" 5 || fail "the worker goes on without its zygote"
then_all_are_gone "${all[@]}"
! is_gone "$other" || fail "a process that is not the worker's was killed"
kill -KILL "$other"
