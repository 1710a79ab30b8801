#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Plugins: their handlers are served by processes or threads, all of them or those that are named.
#
# usage: work_plugin.sh BIN EXAMPLES TESTS      (the folders of the programs and of the plugins)
source "$(dirname "$0")/support.sh"
demo=$2/demo_plugin.so
tests=$3

upper_of() { # COUNT
    seq -f 'line %.0f' "$1" | tr a-z A-Z
}

then_lines_are_upper() { # COUNT
    seq -f 'line %.0f' "$1" | timeout 60 "$bin/treadle" map demo.upper --no-progress >"$out" 2>"$err"
    code=$?
    then_exit 0
    upper_of "$1" | cmp - "$out" || fail "not the right lines in order"
}

start_broker

step "a worker of processes serves all that its plugin has, 2,000 tasks in order"
start_worker w1 --plugin "$demo" --slots 3
has_line worker-w1.log 'serving demo.upper and 1 more with 3 slots as w1' || fail "it does not say what it serves"
cli run demo.upper 'hello'
then_exit 0
then_stdout_is HELLO
then_lines_are_upper 2000
cli run demo.sleep 20
then_exit 0
cli run demo.sleep soon
then_exit 1
then_stderr_has "demo.sleep failed: permanent: the body is to be a number of ms, and is 'soon'"

step "the process that holds the connection runs no handler and opens no plugin"
worker=$last_pid
grep -q demo_plugin "/proc/$worker/maps" && fail "the supervisor has the plugin open"
[[ $(pgrep -P "$worker" | wc -l) -eq 1 ]] || fail "the zygote is not its only child"

step "drained by the broker's word it ends, and leaves nothing"
zygote=$(pgrep -P "$worker")
children=$(pgrep -P "$zygote" | tr '\n' ' ')
[[ -n $children ]] || fail "the pool has no process"
cli worker drain w1
then_exit 0
wait_gone "$worker" 5 || fail "it does not end"
for pid in $zygote $children; do
    wait_gone "$pid" 1 || fail "process $pid is left"
done

step "as threads of one process, the same"
start_worker w2 --plugin "$demo" --slots 3 --pool threads
then_lines_are_upper 2000
worker=$last_pid
zygote=$(pgrep -P "$worker")
[[ $(pgrep -P "$zygote" | wc -l) -eq 1 ]] || fail "there is not one process of threads"
kill -TERM "$worker"
wait_gone "$worker" 5 || fail "it does not end on TERM"

step "only the handlers that are named, of two plugins"
start_worker w3 --plugin "$demo" --plugin "$tests/crash_plugin.so" demo.upper crash.ok
cli worker show w3
then_stdout_has 'serves +demo.upper, crash.ok$'
cli run crash.ok there
then_stdout_is there
kill -TERM "$last_pid"
wait_gone "$last_pid" 5 || fail "it does not end on TERM"

step "what cannot be: usage, a plugin that is none, a name that no plugin has, one handler twice"
cli work --plugin "$demo" demo.none
then_exit 64
then_one_message 'work: no plugin has a handler of demo.none; there is demo.upper, among others'
cli work --plugin /nowhere.so
then_exit 64
then_one_message 'nowhere.so'
cli work --plugin "$tests/no_plugin.so"
then_exit 64
then_one_message 'no_plugin.so'
cli work --plugin "$demo" --plugin "$demo"
then_exit 64
then_one_message 'demo.upper'
cli work --plugin "$demo" wc.count -- wc -w
then_exit 64
then_one_message '--plugin and a command'
cli work --plugin "$demo" --permanent-exit 2
then_exit 64
then_one_message '--permanent-exit is about a command'
cli work --plugin "$demo" --pool fibres
then_exit 64
then_one_message "'fibres' is not .processes. or .threads."
cli work
then_exit 64
then_one_message 'nothing to serve'
