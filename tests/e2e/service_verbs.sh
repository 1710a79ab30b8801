#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Pause and resume, and the breaker: by hand and by itself.
source "$(dirname "$0")/support.sh"
start_broker
start_worker one wc.count --slots 3 -- wc -w

step "ls and show"
cli run wc.count 'a b'
then_exit 0
cli service ls --json
then_exit 0
[[ $(head -c 1 "$out") == '[' ]] || fail "ls is not an array"
cli service show wc --json
then_exit 0
for field in '"name": "wc"' '"paused": false' '"breaker_state": "closed"' '"breaker_mode": "auto"' \
    '"workers": 1' '"slots": 3' '"succeeded": 1' '"failed": 0' '"ready": 0' '"running": 0' \
    '"breaker_left_ms": 0' '"budget_spent": false'; do
    then_stdout_has "$field"
done
cli service ls
then_stdout_has '^SERVICE +READY'
then_stdout_has '^wc +0 +0 +0 +1 +3 +closed'
cli service show wc
then_stdout_has '^breaker +closed, generation'

step "a paused service hands out nothing"
cli service pause wc
then_exit 0
then_stderr_has 'service pause: wc is paused'
cli submit wc.count 'a b c'
id=$(cat "$out")
cli task wait "$id" --wait 500ms
then_exit 75
cli task explain "$id"
then_stdout_has "$id waits: service wc is paused; treadle service resume wc"
cli service show wc --json
then_stdout_has '"paused": true'
then_stdout_has '"ready": 1'
cli service resume wc
then_exit 0
cli task wait "$id" --wait 5s
then_exit 0
then_stdout_is 3

step "a breaker opened by hand hands out nothing"
cli service breaker open wc
then_exit 0
then_stderr_has 'wc has its breaker forced open'
cli submit wc.count 'a b c d'
id=$(cat "$out")
cli task wait "$id" --wait 500ms
then_exit 75
cli task explain "$id"
then_stdout_has "$id waits: the breaker of wc is open"
cli service show wc --json
then_stdout_has '"breaker_state": "open"'
then_stdout_has '"breaker_mode": "forced_open"'
cli service breaker close wc
then_exit 0
cli task wait "$id" --wait 5s
then_exit 0
then_stdout_is 4
cli service show wc --json
then_stdout_has '"breaker_mode": "forced_closed"'
cli service breaker auto wc
then_exit 0
cli service show wc --json
then_stdout_has '"breaker_mode": "auto"'

step "failures open it"
start_worker bad bad.always -- sh -c 'exit 1'
for _ in 1 2 3 4 5; do
    cli run bad.always --attempts 1
    then_exit 1
done
cli service show bad --json
then_stdout_has '"breaker_state": "open"'
left_ms=$(json_field breaker_left_ms <"$out")
((left_ms > 0 && left_ms <= 10000)) || fail "half-opens in $left_ms ms"
cli submit bad.always --attempts 1
id=$(cat "$out")
cli task explain "$id"
then_stdout_has "$id waits: the breaker of bad is open for another [0-9]+s"

step "a service that nobody knows"
for verb in 'pause' 'resume' 'breaker open'; do
    # shellcheck disable=SC2086 # two words on purpose
    cli service $verb nobody
    then_exit 66
    then_one_message 'no such service: nobody'
done
