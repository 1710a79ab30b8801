#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# What the end-to-end tests share; sourced, with the folder of the programs as $1:
#
#     source "$(dirname "$0")/support.sh"
#     start_broker
#     start_worker wc.count --name w1 -- wc -w
#     cli run wc.count 'a b c'
#     then_exit 0
#     then_stdout_is 3
#
# A test works in a folder of its own, with endpoints of its own, and ends what it started. A failed
# expectation shows what was seen and ends the test. script/canary names a folder in
# TREADLE_TEST_CANARY: what the test saw and wrote stays there, to be searched.
set -uo pipefail

bin=$(cd "$1" && pwd)
support=$(cd "$(dirname "${BASH_SOURCE[0]}")/../support" && pwd)
test_name=$(basename "$0" .sh)
work=$(mktemp -d "${TMPDIR:-/tmp}/treadle-$test_name-XXXXXX")
started=()
last_pid=
out=$work/stdout
err=$work/stderr
code=
unset TREADLE_BROKER TREADLE_IDENTITY TREADLE_SERVER_KEY
umask 022 # a broker's files that a group may write are refused
export HOME=$work/home # with no configuration of whoever runs the test
mkdir "$HOME"
cd "$work" || exit 1

cleanup() {
    local status=$? pid
    for pid in "${started[@]}"; do
        kill -CONT "$pid" 2>/dev/null
        kill -TERM "$pid" 2>/dev/null
    done
    for pid in "${started[@]}"; do # a second one ends what finishes its tasks first
        wait_gone "$pid" 0.2 || kill -TERM "$pid" 2>/dev/null
    done
    for pid in "${started[@]}"; do
        if ! wait_gone "$pid" 5; then
            echo "process $pid does not end on TERM: killed"
            kill -KILL "$pid" 2>/dev/null
            status=1
        fi
    done
    cd / || exit 1
    if [[ -z ${TREADLE_TEST_CANARY:-} ]]; then
        rm -rf "$work"
    fi
    exit "$status"
}
trap cleanup EXIT

fail() {
    local file
    echo "FAILED: $*"
    for file in "$out" "$err" "$work"/*.log; do
        if [[ -s $file ]]; then
            echo "--- $(basename "$file")"
            tail -n 40 "$file"
        fi
    done
    exit 1
}

# A story's next step, shown in the test's output.
step() {
    echo "- $*"
}

now_ms() {
    echo "$(($(date +%s%N) / 1000000))"
}

# Tries a command again and again until it succeeds; fails after so many seconds.
eventually() { # SECONDS COMMAND...
    local until_ms
    until_ms=$(($(now_ms) + $(awk "BEGIN {print int($1 * 1000)}")))
    shift
    while ! "$@"; do
        if (($(now_ms) >= until_ms)); then
            return 1
        fi
        sleep 0.05
    done
}

# Whether a process has ended; one that nobody has waited for yet has.
is_gone() { # PID
    ! kill -0 "$1" 2>/dev/null || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null
}

wait_gone() { # PID SECONDS
    eventually "$2" is_gone "$1"
}

# Whether a file has a line that matches.
has_line() { # FILE PATTERN
    grep -qE -- "$2" "$1" 2>/dev/null
}

# Starts a program in the background, its output in NAME.log; its pid in $last_pid.
start() { # NAME COMMAND...
    local name=$1
    shift
    "$@" </dev/null >"$work/$name.log" 2>&1 &
    last_pid=$!
    disown "$last_pid" # so that bash does not tell how it ended
    started+=("$last_pid")
}

# Waits for the line that a broker prints once it is usable and makes all that follows use it.
use_broker() { # NAME
    eventually 10 has_line "$work/$1.log" '^listening ' || fail "$1: no line 'listening ENDPOINT'"
    TREADLE_BROKER=$(sed -n 's/^listening //p' "$work/$1.log" | head -n 1)
    export TREADLE_BROKER
}

start_broker() {
    start broker "$bin/treadled" --listen "ipc://$work/broker.sock"
    use_broker broker
}

# Puts TEXT in a file, in the folder of the test.
given_a_file() { # NAME TEXT...
    local name=$1
    shift
    mkdir -p "$(dirname "$name")"
    printf '%s\n' "$@" >"$name"
}

# Puts the canary, and TEXT behind it, in NAME.body. Its name is how script/canary knows that it
# belongs there; in an argument it would be in process lists.
given_a_body() { # NAME TEXT...
    local canary name=$1
    shift
    canary=$(sed -n 's/^#define CANARY_BODY "\(.*\)"$/\1/p' "$support/canary.h")
    [[ ${#canary} -eq 32 ]] || fail "no canary in canary.h"
    given_a_file "$name.body" "$canary" "$@"
}

# Makes NAME.key and NAME.pub; the public key in $key.
given_a_key() { # NAME
    key=$("$bin/treadle" key gen "$1" 2>/dev/null) || fail "no key $1"
}

# Starts a broker that wants keys and admits the principal `host` with all rights, whose key is in
# host.key; its own in server.key.
start_keyed_broker() {
    given_a_key server
    given_a_key host
    given_a_file principals 'principal "host" {' "keys = {$key}" 'roles = {submit, work, admin}' 'services = {"*"}' '}'
    start broker "$bin/treadled" --listen 'tcp://127.0.0.1:*' --server-key server.key --principals principals
    use_broker broker
}

is_worker_there() { # NAME
    "$bin/treadle" worker show "$1" --json 2>/dev/null | grep -q '"connected": true'
}

# A script that does nothing.
given_a_command() { # FILE
    printf '#!/bin/sh\n' >"$1"
    chmod 755 "$1"
}

# Starts `treadle work` with a name and waits until the broker knows it; its pid in $last_pid.
start_worker() { # NAME ARGUMENT...
    local name=$1 pid
    shift
    start "worker-$name" "$bin/treadle" work --name "$name" "$@"
    pid=$last_pid
    eventually 10 is_worker_there "$name" || fail "worker $name does not come up"
    last_pid=$pid
}

# Runs treadle to its end: $out, $err, $code.
cli() {
    cli_reading /dev/null "$@"
}

# The same with a file on stdin.
cli_reading() { # FILE ARGUMENT...
    "$bin/treadle" "${@:2}" >"$out" 2>"$err" <"$1"
    code=$?
    if [[ -n ${TREADLE_TEST_CANARY:-} ]]; then
        cat "$err" >>"$TREADLE_TEST_CANARY/errors/$(basename "$work")"
        cat "$out" >>"$TREADLE_TEST_CANARY/results/$(basename "$work").stdout"
    fi
}

then_exit() { # CODE
    [[ $code -eq $1 ]] || fail "exit code $code, not $1"
}

then_stdout_is() { # TEXT
    [[ $(cat "$out") == "$1" ]] || fail "stdout is not '$1'"
}

then_stdout_has() { # PATTERN
    has_line "$out" "$1" || fail "stdout has not '$1'"
}

then_stderr_has() { # PATTERN
    has_line "$err" "$1" || fail "stderr has not '$1'"
}

then_stderr_is_empty() {
    [[ ! -s $err ]] || fail "stderr is not empty"
}

# One message, in one line, that begins as all messages do, and nothing on stdout.
then_one_message() { # PATTERN
    [[ $(wc -l <"$err") -eq 1 ]] || fail "not one line on stderr"
    has_line "$err" "^treadle: .*$1" || fail "stderr has not 'treadle: ... $1'"
    [[ ! -s $out ]] || fail "stdout is not empty"
}

# Whether a task is in a state; reads it with task show.
is_state() { # ID STATE
    "$bin/treadle" task show "$1" --json 2>/dev/null | grep -q "\"state\": \"$2\""
}

then_state() { # ID STATE
    eventually 10 is_state "$1" "$2" || fail "task $1 is not $2: $("$bin/treadle" task show "$1" 2>&1)"
}

# The value of a field that stands on a line of its own in a JSON document on stdin.
json_field() { # NAME
    sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" | head -n 1
}
