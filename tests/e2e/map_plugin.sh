#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# `treadle map` over a plugin in a process pool: every line right and in order, with a worker killed
# half way, and with an interrupt and --resume.
#
# usage: map_plugin.sh BIN EXAMPLES [sanitized]      (the folders of the programs and of the plugin)
source "$(dirname "$0")/support.sh"
demo=$2/demo_plugin.so
total=100000
[[ ${3:-} == sanitized ]] && total=20000
half=$((total / 2))

lines() { # FIRST LAST
    seq -f 'line %.0f' "$1" "$2"
}

# Half of the lines, and the others once a file is there: what happens before is half way.
lines_around() { # FILE
    lines 1 "$half"
    until [[ -e $1 ]]; do
        sleep 0.02
    done
    lines $((half + 1)) "$total"
}

has_results() { # COUNT
    (($(wc -l <results) >= $1))
}

then_results_are_right() {
    lines 1 "$total" | tr a-z A-Z | cmp - results || fail 'not the right lines in their order'
}

succeeded_count() {
    "$bin/treadle" service show demo --json | json_field succeeded
}

start_broker
start_worker w1 --plugin "$demo" --slots 2

step "$total lines in order"
lines 1 "$total" | "$bin/treadle" map demo.upper --no-progress >results 2>"$err"
code=$?
then_exit 0
then_stderr_is_empty
then_results_are_right

step 'two workers, one killed half way: the same'
start_worker w2 --plugin "$demo" --slots 2
victim=$last_pid
: >results
"$bin/treadle" map demo.upper --no-progress < <(lines_around killed) >results 2>"$err" &
map=$!
started+=("$map")
eventually 20 has_results $((half / 10)) || fail 'no progress'
cli worker show w2 --json
[[ $(json_field dispatched <"$out") -gt 0 ]] || fail 'the worker to be killed has had no task'
kill -KILL "$victim"
touch killed
wait "$map"
code=$?
then_exit 0
then_stderr_is_empty
then_results_are_right

step 'interrupted half way: --resume does what is left, and nothing else'
rm -f results
"$bin/treadle" map demo.upper --no-progress --joblog log < <(lines_around interrupted) >results 2>"$err" &
map=$!
started+=("$map")
eventually 20 has_results $((half / 10)) || fail 'no progress'
kill -INT "$map"
wait "$map"
code=$?
then_exit 130
touch interrupted # ends what writes the lines
printed=$(wc -l <results)
((printed < total)) || fail 'it was done before it was interrupted'
[[ $(wc -l <log) -eq $((printed + 1)) ]] || fail "$printed results, and $(wc -l <log) lines in the job log"
before=$(succeeded_count)
lines 1 "$total" | "$bin/treadle" map demo.upper --no-progress --joblog log --resume >>results 2>"$err"
code=$?
then_exit 0
# What was in flight at the interrupt left gaps in the order, which --resume fills behind them.
lines 1 "$total" | tr a-z A-Z | sort | cmp - <(sort results) || fail 'not every line once'
(($(succeeded_count) - before == total - printed)) ||
    fail "$printed were done, and --resume ran $(($(succeeded_count) - before)) of $total"
