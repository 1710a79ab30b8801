#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# The job log of `treadle map`: resuming after an interrupt, after a kill, and what failed.
source "$(dirname "$0")/support.sh"

# Starts treadle map in the background, 500 numbers on its stdin, results to the end of `results`.
start_map() { # ARGUMENT...
    seq 500 >numbers
    "$bin/treadle" map demo.twice --joblog log "$@" <numbers >>results 2>"$err" &
    last_pid=$!
    started+=("$last_pid")
}

has_logged() { # COUNT
    [[ -e log ]] && (($(wc -l <log) > $1))
}

# Nothing twice, nothing missing.
then_all_are_done() {
    seq 2 2 1000 | cmp -s - <(sort -n results) || fail "results are not right: $(wc -l <results) lines"
    [[ $(tail -n +2 log | cut -f 1 | sort -n | uniq | wc -l) -eq 500 ]] || fail 'the job log is not complete'
    [[ $(wc -l <log) -eq 501 ]] || fail 'the job log has records twice'
}

start_broker
start_worker twice demo.twice --slots 2 -- \
    sh -c 'read -r x; echo "$x" >>'"$work"'/runs; sleep 0.005; echo $((x * 2))'

step 'an interrupt cancels what is in flight; the job log has what was printed'
start_map
eventually 10 has_logged 50 || fail 'no progress'
kill -INT "$last_pid"
wait "$last_pid"
code=$?
then_exit 130
then_stderr_has '^treadle: map: interrupted; [0-9]+ tasks are done, [0-9]+ cancelled'
printed=$(wc -l <results)
[[ $printed -lt 500 && $(wc -l <log) -eq $((printed + 1)) ]] ||
    fail "$printed results, and $(wc -l <log) lines in the job log"

step '--resume does only what is left'
start_map --resume
wait "$last_pid"
code=$?
then_exit 0
then_all_are_done
(($(wc -l <runs) <= 504)) || fail "$(wc -l <runs) runs for 500 records" # 4: ran when interrupted

step 'a second --resume has nothing to do'
start_map --resume
wait "$last_pid"
then_all_are_done

step 'killed, and its last line torn: the same'
rm -f results log
start_map
eventually 10 has_logged 50 || fail 'no progress'
kill -KILL "$last_pid"
wait "$last_pid" 2>/dev/null
truncate -s -7 log
printed=$(wc -l <results)
logged=$(($(wc -l <log) - 1)) # whole lines
((printed > logged)) || fail "$printed results, and $logged in the job log"
start_map --resume
wait "$last_pid"
code=$?
then_exit 0
sort -n -u results >once
seq 2 2 1000 | cmp -s - once || fail 'results are missing'
(($(wc -l <results) - 500 == printed - logged)) || fail 'more was done again than was not in the job log'

step '--resume-failed runs again what failed, and nothing else'
start_worker moody demo.moody -- sh -c 'read -r x; [ "$x" != 2 ] || [ -e '"$work"'/good ] || exit 9; echo "$x"'
seq 3 | "$bin/treadle" map demo.moody --attempts 1 --joblog moods >"$out" 2>"$err"
code=$?
then_exit 1
then_stdout_is $'1\n3'
[[ $(cut -f 1,7 moods | grep -c $'^2\t9$') -eq 1 ]] || fail "job log: $(cat moods)"
seq 3 | "$bin/treadle" map demo.moody --joblog moods --resume >"$out" 2>"$err"
code=$?
then_exit 0
then_stdout_is ''
touch good
seq 3 | "$bin/treadle" map demo.moody --joblog moods --resume-failed >"$out" 2>"$err"
code=$?
then_exit 0
then_stdout_is 2

step 'without --resume the job log begins anew'
seq 2 | "$bin/treadle" map demo.moody --joblog moods >"$out" 2>"$err"
[[ $(wc -l <moods) -eq 3 ]] || fail "job log: $(cat moods)"

step 'what is no job log is refused and stays as it is'
echo precious >precious
cli map demo.moody --joblog precious --resume
then_exit 65
then_one_message 'precious: not a job log of treadle map'
[[ $(cat precious) == precious ]] || fail 'it was touched'
cli map demo.moody --joblog /nowhere/log
then_exit 65
then_one_message '/nowhere/log: No such file or directory'

step 'the input and the results are not overwritten by the job log'
seq 3 >input
"$bin/treadle" map demo.moody --joblog input <input >"$out" 2>"$err"
code=$?
then_exit 64
then_one_message 'input is stdin as well'
[[ $(wc -l <input) -eq 3 ]] || fail 'the input is gone'
echo before >output
"$bin/treadle" map demo.moody --joblog output <input >>output 2>"$err"
code=$?
then_exit 64
[[ $(cat output) == before ]] || fail 'the output is gone'

step 'another input than the job log tells of is refused before anything is skipped'
printf '1\nother\n3\n' | "$bin/treadle" map demo.moody --joblog moods --resume >"$out" 2>"$err"
code=$?
then_exit 65
then_one_message 'moods: line 2 is not the one that was done'
[[ $(wc -l <moods) -eq 3 ]] || fail "job log: $(cat moods)"

step 'a terminal that goes away is an interrupt; under nohup it is nothing'
rm -f results log
start_map
eventually 10 has_logged 20 || fail 'no progress'
kill -HUP "$last_pid"
wait "$last_pid"
code=$?
then_exit 130
then_stderr_has '^treadle: map: interrupted; [0-9]+ tasks are done, [0-9]+ cancelled'
rm -f results log
seq 200 >numbers
(trap '' HUP && exec "$bin/treadle" map demo.twice --joblog log <numbers >results 2>"$err") &
last_pid=$!
started+=("$last_pid")
eventually 10 has_logged 20 || fail 'no progress'
kill -HUP "$last_pid"
wait "$last_pid"
code=$?
then_exit 0
seq 2 2 400 | cmp -s - results || fail 'not the right lines'

step 'an unreachable broker does not cost an old job log'
cli map demo.moody --joblog moods --broker "ipc://$work/nobody" --connect-timeout 200ms
then_exit 69
[[ $(wc -l <moods) -eq 3 ]] || fail 'the job log is gone'
