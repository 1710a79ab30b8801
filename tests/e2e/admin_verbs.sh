#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# worker ls, show, drain; broker status, drain; stats.
source "$(dirname "$0")/support.sh"
start_broker
broker_pid=$last_pid
start_worker one wc.count 'demo.*' --slots 3 -- wc -w
one_pid=$last_pid

step "worker ls and show"
cli worker ls --json
then_exit 0
[[ $(head -c 1 "$out") == '[' ]] || fail "ls is not an array"
cli worker show one --json
then_exit 0
for field in '"name": "one"' '"host": ".+"' '"slots": 3' '"in_use": 0' '"late": 0' \
    '"draining": false' '"connected": true' '"age_ms": [0-9]+' '"wc[.]count"' '"demo[.][*]"' \
    '"principal": "local"'; do
    then_stdout_has "$field"
done
cli worker ls
then_stdout_has '^WORKER +HOST'
then_stdout_has '^one .* 0/3 .*(wc[.]count, demo[.][*]|demo[.][*], wc[.]count)$'
cli worker show one
then_stdout_has '^serves +(wc[.]count, demo[.][*]|demo[.][*], wc[.]count)$'

step "broker status and stats"
cli broker status --json
then_exit 0
for field in "\"endpoint\": \"$TREADLE_BROKER\"" '"version": "[0-9.]+"' '"epoch": [0-9]+' \
    '"uptime_ms": [0-9]+' '"draining": false'; do
    then_stdout_has "$field"
done
cli broker status
then_stdout_has '^state +serving$'
cli run wc.count x
then_exit 0
cli stats --json
then_exit 0
then_stdout_has '^  "[a-z_.]+": [0-9]+,?$'
cli stats
then_stdout_has '^COUNTER +VALUE$'

step "a drained worker finishes and ends"
cli worker drain one
then_exit 0
wait_gone "$one_pid" 10 || fail "the drained worker goes on"

step "a draining broker takes nothing new"
cli broker drain
then_exit 0
if ! is_gone "$broker_pid"; then
    cli submit wc.count x --connect-timeout 500ms
    [[ $code -eq 77 || $code -eq 69 ]] || fail "exit code $code: neither refused nor gone"
fi
