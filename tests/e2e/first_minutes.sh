#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# The first five minutes: a broker, a worker made of a command, a task, the right answer.
source "$(dirname "$0")/support.sh"

step "treadle dev"
start dev "$bin/treadle" dev --broker 'tcp://127.0.0.1:*'
dev_pid=$last_pid
use_broker dev

step "run waits for a worker and says so"
seq -s ' ' 1 1234 >numbers
"$bin/treadle" run wc.count @numbers >early.out 2>early.log &
run_pid=$!
started+=("$run_pid")
eventually 5 has_line early.log 'no worker serves wc[.]count' ||
    fail "nothing said about the missing worker"
[[ $(wc -l <early.log) -eq 1 ]] || fail "said more than once"

step "treadle work"
start_worker first wc.count -- wc -w
wait "$run_pid"
code=$?
then_exit 0
[[ $(cat early.out) == 1234 ]] || fail "wrong count: $(cat early.out)"

step "treadle run, with every kind of body"
cli run wc.count @numbers
then_exit 0
then_stdout_is 1234
then_stderr_is_empty
cli run wc.count 'three short words'
then_exit 0
then_stdout_is 3
cli run wc.count
then_exit 0
then_stdout_is 0
"$bin/treadle" run wc.count - <numbers >"$out" 2>"$err"
code=$?
then_exit 0
then_stdout_is 1234
cli run wc.count --raw @numbers
then_exit 0
then_stdout_is 1

step "results are bytes"
start_worker echo echo.back -- cat
head -c 100000 /dev/urandom >random
"$bin/treadle" run echo.back @random >back 2>"$err"
code=$?
then_exit 0
cmp random back || fail "the result is not the body"

step "submit and wait, as often as asked"
cli submit wc.count 'a b c d'
then_exit 0
then_stderr_is_empty
then_stdout_has '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'
id=$(cat "$out")
for _ in 1 2; do
    cli task wait "$id"
    then_exit 0
    then_stdout_is 4
done
then_state "$id" succeeded

step "the broker ends at once on TERM"
kill -TERM "$dev_pid"
wait_gone "$dev_pid" 3 || fail "treadle dev goes on"
