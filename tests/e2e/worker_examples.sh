#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# The workers of docs/examples do what their first lines say; and what only a broker can show of a
# handler's functions: its client, its choice of a retry, its copies.
#
# usage: worker_examples.sh BIN EXAMPLES PLUGINS
examples=$(cd "$2" && pwd)
plugins=$(cd "$3" && pwd)
source "$(dirname "$0")/support.sh"

start_broker

step "hello_worker is a whole worker"
start hello "$examples/hello_worker"
hello=$last_pid
cli run hello.greet Ada
then_exit 0
then_stdout_is 'Hello, Ada!'

step "it is drained by its name, and ends well"
name=$("$bin/treadle" worker ls --json | json_field name)
cli worker drain "$name"
then_exit 0
wait_gone "$hello" 10 || fail "hello_worker goes on"
[[ ! -s hello.log ]] || fail "hello_worker had something to say"

step "without a broker to be found, a second one looks for it and ends on TERM"
TREADLE_BROKER=ipc://$work/none.sock start lonely "$examples/hello_worker"
sleep 0.3
is_gone "$last_pid" && fail "it gave up"
kill -TERM "$last_pid"
wait_gone "$last_pid" 5 || fail "it goes on"

step "demo_plugin and retry_choice in one worker"
start_worker plugged --plugin "$examples/demo_plugin.so" --plugin "$examples/retry_choice.so"
cli run demo.upper 'a Word'
then_exit 0
then_stdout_is 'A WORD'
cli run demo.sleep 20
then_exit 0
cli run demo.sleep soon
then_exit 1
then_stderr_has "permanent: the body is to be a number of ms, and is 'soon'"

step "a handler chooses its delay, and keeps count in the task's meta"
begin_ms=$(now_ms)
cli run quota.call '2 200'
took_ms=$(($(now_ms) - begin_ms))
then_exit 0
then_stdout_is 'served after 2 refusals'
((took_ms >= 400 && took_ms < 5000)) || fail "it took $took_ms ms, not about 400"

step "or that there is no further attempt"
cli run quota.call gone
then_exit 1
then_stderr_has 'attempt 1 of 10'

for pool in processes threads; do
    step "in $pool: a handler submits a task of its own and waits for it"
    start_worker "chain-$pool" --plugin "$plugins/crash_plugin.so" --slots 2 --pool=$pool
    pool_pid=$last_pid
    cli run crash.chain 'through two'
    then_exit 0
    then_stdout_is 'through two'

    step "in $pool: a copy that a handler forks and that returns says nothing"
    cli run crash.copy
    then_exit 0
    then_stdout_is original
    kill -TERM "$pool_pid"
    wait_gone "$pool_pid" 10 || fail "the worker does not drain"
done
