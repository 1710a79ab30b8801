#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# `treadle map` and `run` say why nothing moves while their service is paused or its breaker is open.
source "$(dirname "$0")/support.sh"

start_broker
start_worker echo demo.echo -- cat

step 'a service that hands nothing out: why is said once, and again when the reason changes'
cli service pause demo
then_exit 0
seq 5 | "$bin/treadle" map demo.echo >results 2>"$err" &
pid=$!
started+=("$pid")
paused='^treadle: map: demo.echo waits: service demo is paused; treadle service resume demo$'
open='^treadle: map: demo.echo waits: the breaker of demo is open$'
eventually 10 has_line "$err" "$paused" || fail 'nothing is said'
"$bin/treadle" service breaker open demo 2>/dev/null
"$bin/treadle" service resume demo 2>/dev/null
eventually 10 has_line "$err" "$open" || fail 'the other reason is not said'
sleep 1.5 # another look
[[ $(wc -l <"$err") -eq 2 ]] || fail 'not two lines on stderr'
"$bin/treadle" service breaker auto demo 2>/dev/null
wait "$pid"
code=$?
then_exit 0
[[ $(cat results) == $'1\n2\n3\n4\n5' ]] || fail 'not the right lines'

step 'a breaker that failures opened: until when is said, by run as well'
start_worker bad bad.always --attempts 1 -- false
seq 5 | "$bin/treadle" map bad.always >"$out" 2>"$err"
code=$?
then_exit 1
cli run bad.always --wait 4s
then_exit 75
then_stderr_has '^treadle: run: bad.always waits: the breaker of bad is open for another [0-9]+s$'
