#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Bodies, results and secret keys stay where they belong, whatever becomes of a task: they are in no
# log at debug level, in neither of its forms, and in no error text. script/canary searches all
# tests; this one goes where most could be told.
#
#   canary.sh BIN TESTS
source "$(dirname "$0")/support.sh"
tests=$(cd "$2" && pwd) || exit 1
export TREADLE_LOG_LEVEL=debug

# What `cli` says on stderr is kept.
told() {
    cli "$@"
    cat "$err" >>errors.log
}

start_workers() { # FORM
    start_worker "copy-$1" copy.it -- cat
    start_worker "quiet-$1" quiet.one -- sh -c 'cat >/dev/null; echo "no luck" >&2; exit 3'
    start_worker "loud-$1" loud.one loud-map.one -- sh -c 'cat; exit 3'
    given_a_command gone
    start_worker "gone-$1" gone.command -- ./gone
    rm gone
    start_worker "dead-$1" dead.now -- sh -c 'cat; kill -SEGV $$'
    start_worker "slow-$1" slow.one --grace 100ms -- sh -c 'cat; sleep 30'
    start_worker "plugin-$1" --plugin "$tests/crash_plugin.so" 'crash.*'
}

tasks_that_succeed() { # FORM
    local task
    told run copy.it @task.body
    then_exit 0
    cmp -s "$out" task.body || fail "another result"
    cli_reading task.body run copy.it -
    then_exit 0
    cat "$err" >>errors.log
    told run crash.ok @task.body
    then_exit 0
    told run crash.chain @task.body
    then_exit 0
    told submit copy.it @task.body
    then_exit 0
    task=$(cat "$out")
    told task wait "$task"
    then_exit 0
    told task show "$task"
    told task show "$task" --json
    told task explain "$task"
    told task ls
    then_exit 0
}

# Few of each service, so that no breaker opens. What a handler itself says on stderr is told, so
# these do not repeat their bodies there.
tasks_that_fail() {
    local service id task
    for service in quiet.one loud.one gone.command dead.now crash.segv crash.abort; do
        told run "$service" @task.body --attempts 1
        then_exit 1
        task=$(sed -n 's/^task \([0-9a-f-]*\)$/\1/p' "$err")
        told task show "$task"
        then_exit 0
    done
    told run slow.one @task.body --timeout 200ms --attempts 1
    then_exit 1
    told run slow.one @task.body --deadline 300ms
    then_exit 1
    told run nobody.here @task.body --queue-timeout 100ms
    id=$(cat /proc/sys/kernel/random/uuid)
    told submit nobody.here @task.body --id "$id"
    told submit nobody.here @other.body --id "$id" # another task by the same name
    [[ $code -ne 0 ]] || fail "a task was replaced"
    told task cancel "$id"
    head -c 70M /dev/zero | cat task.body - >large.body
    told run copy.it @large.body
    [[ $code -ne 0 ]] || fail "a body over the limit was taken"
    rm large.body
}

tasks_of_a_map() { # FORM
    cli_reading lines.body map copy.it --joblog "$1.joblog"
    then_exit 0
    cat "$err" >>errors.log
    cli_reading lines.body map loud-map.one --joblog "$1-loud.joblog" --attempts 1
    [[ $code -ne 0 ]] || fail "a task of loud-map.one succeeded"
    cat "$err" >>errors.log
    printf '%s\n' task.body /nonexistent/file >names
    cli_reading names map copy.it --from-files
    cat "$err" >>errors.log
}

is_session_lost() { # NAME
    grep -q "session.lost.*$1" broker*.log
}

worker_that_dies() { # FORM
    local pid
    start_worker "doomed-$1" doomed.one -- sh -c 'cat; sleep 30'
    pid=$last_pid
    told submit doomed.one @task.body --attempts 1
    eventually 10 has_running doomed.one || fail "the task does not run"
    kill -KILL "$pid"
    eventually 20 is_session_lost "doomed-$1" || fail "the worker is not missed"
}

has_running() { # SERVICE
    "$bin/treadle" task ls --state running 2>>errors.log | grep -q "$1"
}

strangers() {
    local address=${TREADLE_BROKER#tcp://}
    given_a_key stranger
    TREADLE_IDENTITY=stranger.key told run copy.it @task.body
    then_exit 77
    TREADLE_SERVER_KEY=stranger.pub told run copy.it @task.body
    then_exit 78
    TREADLE_IDENTITY=task.body told run copy.it @task.body # a body for a key
    then_exit 78
    chmod 644 stranger.key
    TREADLE_IDENTITY=stranger.key told run copy.it @task.body
    then_exit 78
    rm stranger.*
    cat task.body >"/dev/tcp/${address%:*}/${address##*:}" # no ZMTP at all
}

then_no_canary_is_found() {
    local file
    {
        for file in *.key; do
            z85=$(sed -n 's/.*secret-key = "\(.*\)"/\1/p' "$file")
            echo "secret $(printf '%s' "$z85" | basenc --z85 -d | basenc --base16 -w0)"
        done
        echo "body $(head -n 1 task.body | tr -d '\n' | basenc --base16 -w0)"
    } >list
    mv list list.key # where secrets belong
    [[ $(grep -c '^secret ' list.key) -ge 2 ]] || fail "no keys to look for"
    printf '%s' "$z85" | tee planted.log >planted.key
    head -n 1 task.body | tee -a planted.log >planted.body
    "$tests/canary_search" list.key "$work" >found && fail "what was planted is not found"
    [[ $(awk '$1 == "all" {print $4, $6}' found) == '1 1' ]] || fail "found: $(cat found)"
    rm planted.*
    "$tests/canary_search" list.key "$work" >found || fail "found: $(cat found)"
}

given_a_body task 'and more of it'
given_a_body other
for i in 1 2 3; do
    echo "$(head -n 1 task.body) $i"
done >lines.body
chmod 600 task.body

step "whatever becomes of a task, and whoever comes"
start_keyed_broker
export TREADLE_IDENTITY=host.key TREADLE_SERVER_KEY=server.pub
start_workers text
tasks_that_succeed
tasks_that_fail
tasks_of_a_map text
worker_that_dies text
strangers
grep -q ' debug attempt.failed ' broker.log || fail "the log is not at debug level"

step "the same in JSON"
export TREADLE_LOG_FORMAT=json
start broker-json "$bin/treadled" --listen 'tcp://127.0.0.1:*' --server-key server.key --principals principals
use_broker broker-json
start_workers json
tasks_that_succeed
tasks_that_fail
tasks_of_a_map json
worker_that_dies json
grep -q '"event":"attempt.failed"' broker-json.log || fail "the log is not JSON at debug level"

step "no canary anywhere but in its place"
then_no_canary_is_found
