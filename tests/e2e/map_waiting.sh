#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# `treadle map` when somebody lets it wait: no worker, its own patience, a slow reader, a broker that
# goes and comes back. (map_gate.sh: a service that hands nothing out.)
source "$(dirname "$0")/support.sh"

start_broker
broker_pid=$last_pid

step 'no worker: said after a second, given up after --worker-wait'
seq 20 | "$bin/treadle" map demo.echo --worker-wait 1500ms >"$out" 2>"$err"
code=$?
then_exit 69
then_stderr_has '^treadle: map: no worker serves demo.echo, waiting up to 1500ms for one'
then_stderr_has '^treadle: map: demo.echo: no worker served it within 1500ms, its tasks are cancelled'
[[ $(wc -l <"$err") -eq 2 ]] || fail 'not two lines on stderr'

step 'its own patience: what has settled is printed and logged, the rest goes on'
start_worker sleeper demo.sleeper --slots 4 -- sh -c 'read -r x; sleep "$x"; echo "$x"'
printf '3\n0\n0\n' | "$bin/treadle" map demo.sleeper --wait 1s --joblog log >"$out" 2>"$err"
code=$?
then_exit 75
then_stdout_is $'0\n0'
then_stderr_has '^treadle: map: demo.sleeper: after 1s 1 task had not settled; the broker goes on; see: treadle task ls --service demo; what has settled is in log$'
[[ $(tail -n +2 log | cut -f 1 | tr '\n' ' ') == '2 3 ' ]] || fail "job log: $(cat log)"
cli task ls --service demo --state running
then_stdout_has 'demo.sleeper'

step 'a slow first line: the others wait for their turn in bounded number, and none is lost'
start_worker echo demo.echo --slots 4 -- cat
printf '%s\n' 2 $(printf '0 %.0s' {1..60}) | "$bin/treadle" map demo.sleeper -j 4 >"$out" 2>"$err"
code=$?
then_exit 0
[[ $(head -n 1 "$out") == 2 && $(wc -l <"$out") -eq 61 ]] || fail 'not the right lines'

step 'a reader that stops: submission stops as well, and an interrupt still ends it'
mkfifo slow
sleep 30 <slow &
sleeper=$!
started+=("$sleeper")
yes "$(head -c 20000 /dev/zero | tr '\0' x)" | head -n 2000 >long
"$bin/treadle" map demo.echo --joblog log -j 20 <long >slow 2>"$err" &
pid=$!
started+=("$pid")
is_stalled() {
    local before
    before=$("$bin/treadle" service show demo --json | json_field succeeded)
    sleep 0.5
    [[ $("$bin/treadle" service show demo --json | json_field succeeded) == "$before" ]]
}
sleep 0.5
eventually 10 is_stalled || fail 'it goes on without a reader'
"$bin/treadle" service show demo --json | grep -q '"running": 0' || fail 'tasks run'
kill -INT "$pid"
wait_gone "$pid" 5 || fail 'it does not end'
then_stderr_has 'treadle: map: interrupted'
(($(wc -l <log) < 100)) || fail 'the job log has more than was read'
kill "$sleeper"

step 'a broker that ends and comes back: every line once'
seq 400 >numbers
"$bin/treadle" map demo.echo <numbers >results 2>"$err" &
pid=$!
started+=("$pid")
has_results() {
    (($(wc -l <results) >= $1))
}
eventually 10 has_results 50 || fail 'no progress'
kill -KILL "$broker_pid"
wait_gone "$broker_pid" 10 || fail "the broker does not die"
start broker2 "$bin/treadled" --listen "ipc://$work/broker.sock"
use_broker broker2
wait "$pid"
code=$?
then_exit 0
cmp -s numbers results || fail 'not the right lines'
