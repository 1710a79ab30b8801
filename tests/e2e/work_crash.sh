#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Handlers that die: each death leaves its record, hurts no other task, and the third makes a dead
# letter that names the signal.
#
# usage: work_crash.sh BIN TESTS [sanitized]      (with sanitizers there is no memory limit)
source "$(dirname "$0")/support.sh"
plugin=$2/crash_plugin.so
is_sanitized=${3:-}

# The task of the last failure of `run`.
failed_id() {
    grep -oE '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}' "$err" | head -n 1
}

crashes_with() { # TASK SIGNAL NUMBER PATTERN
    local id
    step "$1 dies of SIG$2, three times"
    timeout 30 "$bin/treadle" run "crash.$1" --attempts 9 --backoff 10ms >"$out" 2>"$err" </dev/null
    code=$?
    then_exit 1
    then_stderr_has "crash.$1 failed: crash: .*SIG$2"
    id=$(failed_id)
    cli task show "$id" --json
    then_exit 0
    then_stdout_has '"state": "failed"'
    [[ $(grep -c '^      "kind": "crash"' "$out") -eq 3 ]] || fail "not three attempts that crashed"
    [[ $(grep -c "\"name\": \"signal.$2\"" "$out") -eq 3 ]] || fail "not each names signal.$2"
    [[ $(grep -c "\"signal\": $3" "$out") -eq 3 ]] || fail "not each has the signal's number"
    then_stdout_has "\"trace\": \".*$4"
    then_stdout_has '"max_rss_kib": [1-9]'
    [[ $(grep -c "died of SIG$2 in crash.$1 (task $id)" worker-w1.log) -eq 3 ]] ||
        fail "the worker does not say it once for each"
}

limit=()
if [[ -z $is_sanitized ]]; then
    limit=(--memory-max 128MiB)
fi
start_broker
start_worker w1 --plugin "$plugin" --slots 2 "${limit[@]}"
cli run crash.ok 'all is well'
then_stdout_is 'all is well'
cli service breaker close crash # so many deaths would open it
then_exit 0

step "others go on meanwhile"
seq 3000 >lines
timeout 50 "$bin/treadle" map crash.ok --no-progress <lines >map.out 2>map.err &
map=$!

crashes_with segv SEGV 11 'SIGSEGV at address 0x10.*crash_plugin.so'
crashes_with abort ABRT 6 'this cannot be.*SIGABRT.*crash_plugin.so'
crashes_with overflow SEGV 11 'SIGSEGV.*crash_plugin.so'
crashes_with wild SEGV 11 'no code.*return address'
if [[ -z $is_sanitized ]]; then
    crashes_with memory ABRT 6 'out of memory'
fi

step "a handler that ends its process is a crash as well"
cli run crash.exit 3 --attempts 1
then_exit 1
then_stderr_has 'crash.exit failed: crash: '

wait "$map" || fail "map failed: $(cat map.err)"
cmp lines map.out || fail "other tasks were harmed"

step "one that dies twice and then is well succeeds"
cli run crash.flaky 2 --attempts 9 --backoff 10ms
then_exit 0
then_stdout_is 2

step "the worker is the one it was"
is_worker_there w1 || fail "the worker is away"
cli worker show w1
then_stdout_has 'serving'
