#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# A handler that ignores SIGTERM, with a grandchild in its group and one that left it: at the end of
# its grace all of them are gone.
#
# usage: work_timeout.sh BIN EXAMPLES TESTS
source "$(dirname "$0")/support.sh"
plugin=$3/crash_plugin.so
demo=$2/demo_plugin.so

# Waits for the file to hold this many lines with process numbers.
has_pids() { # FILE COUNT
    [[ $(wc -l <"$1" 2>/dev/null) -ge $2 ]]
}

then_all_are_gone() { # FILE
    local pid
    for pid in $(cat "$1"); do
        wait_gone "$pid" 1 || fail "process $pid is left: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
    done
}

cat >deaf.sh <<'SCRIPT'
trap '' TERM
echo $$ >>pids
sh -c 'trap "" TERM; echo $$ >>pids; while :; do sleep 1; done' &
setsid sh -c 'trap "" TERM; echo $$ >>pids; while :; do sleep 1; done' &
while :; do sleep 1; done
SCRIPT

start_broker
start_worker w1 --timeout 500ms --grace 300ms deaf.command -- sh "$work/deaf.sh"
step "a command"
began_ms=$(now_ms)
cli run deaf.command --attempts 1
then_exit 1
ended_ms=$(now_ms)
then_stderr_has 'deaf.command failed: timeout: ran past its timeout of 500ms'
has_pids pids 3 || fail "not all three processes had begun"
then_all_are_gone pids
((ended_ms - began_ms < 500 + 300 + 1500)) || fail "it took $((ended_ms - began_ms)) ms"

step "a plugin's function"
start_worker w2 --plugin "$plugin" --plugin "$demo" --timeout 500ms --grace 300ms crash.fork demo.sleep crash.ok
cli run crash.fork "$work/function.pid" --attempts 1
then_exit 1
then_stderr_has 'crash.fork failed: timeout: '
has_pids function.pid 1 || fail "the handler left no process"
then_all_are_gone function.pid

step "one that heeds its cancel flag is not killed, and others go on"
cli run demo.sleep 60000 --attempts 1
then_exit 1
then_stderr_has 'demo.sleep failed: timeout: '
grep 'died of' worker-w1.log worker-w2.log && fail "what was killed for its timeout is told as a death"
cli run crash.ok well
then_stdout_is well

step "cancelled, a running command ends with all that it began"
rm -f pids
start_worker w3 --grace 300ms deaf.cancelled -- sh "$work/deaf.sh"
cli submit deaf.cancelled
then_exit 0
id=$(cat "$out")
eventually 10 has_pids pids 3 || fail "it did not begin"
cli task cancel "$id"
then_exit 0
then_state "$id" cancelled
then_all_are_gone pids
