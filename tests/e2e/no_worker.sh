#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Nobody serves the task: run says so, names who is there, gives up and cancels.
source "$(dirname "$0")/support.sh"
start_broker

step "no worker at all"
begun_ms=$(now_ms)
cli run wc.count x --worker-wait 2s
then_exit 69
took_ms=$(($(now_ms) - begun_ms))
((took_ms >= 2000 && took_ms < 5000)) || fail "took $took_ms ms"
then_stderr_has 'run: no worker serves wc[.]count, waiting up to 2s.*treadle work wc[.]count'
then_stderr_has 'run: wc[.]count: no worker served it within 2s, the task is cancelled'
[[ ! -s $out ]] || fail "stdout is not empty"
cli task ls --state cancelled --json
then_stdout_has '"service": "wc"'

step "services that have one are named"
start_worker other text.upper -- tr a-z A-Z
cli run wc.count x --worker-wait 1500ms
then_exit 69
then_stderr_has 'no worker serves wc[.]count.*services that have one: text[.]upper'

step "a pattern serves every task of its service"
start_worker all "demo.*" -- cat
cli run demo.anything hello
then_exit 0
then_stdout_is hello

step "submit only notes it"
cli submit wc.count x
then_exit 0
then_stderr_has 'submit: no worker serves wc[.]count; services that have one: '
[[ $(wc -l <"$out") -eq 1 ]] || fail "more than the id on stdout"
id=$(cat "$out")
cli task explain "$id"
then_exit 0
then_stdout_has "^$id waits: no worker serves wc[.]count"

step "--wait is the verb's own patience"
cli task wait "$id" --wait 300ms
then_exit 75
then_stderr_has "task wait: wc[.]count: not settled after 300ms.*$id"
cli run wc.count x --wait 300ms
then_exit 75
then_stderr_has 'task wait [0-9a-f-]{36}$'
goes_on=$(sed -n 's/^.*task wait \([0-9a-f-]*\)$/\1/p' "$err")
is_state "$goes_on" ready || fail "the task does not go on"

step "unknown ids"
unknown=0191d5a0-7c1e-7b6a-9e5d-2f1c3b4a5d6e
for verb in 'task show' 'task wait' 'task explain' 'task cancel'; do
    # shellcheck disable=SC2086 # two words on purpose
    cli $verb $unknown
    then_exit 66
    then_one_message "no such task: $unknown"
done
cli service show nobody
then_exit 66
then_one_message 'no such service: nobody'
cli worker show nobody
then_exit 66
then_one_message 'no such worker: nobody'

step "the same id with another content"
cli submit wc.count one --id 0191d5a0-7c1e-7b6a-9e5d-000000000001
then_exit 0
cli submit wc.count one --id 0191d5a0-7c1e-7b6a-9e5d-000000000001
then_exit 0
cli submit wc.count two --id 0191d5a0-7c1e-7b6a-9e5d-000000000001
then_exit 65
then_one_message 'stands for another task'
