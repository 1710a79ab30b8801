#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Mistakes that are found before a broker is looked for: one message each, and the right exit code.
source "$(dirname "$0")/support.sh"
export TREADLE_BROKER=tcp://127.0.0.1:1 # nobody is asked, so this is never noticed
id=0191d5a0-7c1e-7b6a-9e5d-2f1c3b4a5d6e

bad() { # CODE PATTERN ARGUMENT...
    local expected=$1 pattern=$2
    shift 2
    cli "$@"
    [[ $code -eq $expected ]] || fail "treadle $*: exit code $code, not $expected"
    then_one_message "$pattern"
}

step "verbs"
bad 64 "no such verb: 'rnu'; did you mean: treadle run" rnu wc.count
bad 64 "no such verb: 'tsak'; did you mean: treadle task" tsak ls
bad 64 "no such verb: 'task shwo'; did you mean: treadle task show" task shwo "$id"
bad 64 "no such verb: 'frobnicate'; see: treadle help" frobnicate
bad 64 "task: a word is missing; one of: wait, show, ls, explain, cancel" task
bad 64 "options come after the verb" --broker tcp://127.0.0.1:1 run wc.count

step "names"
bad 64 "'wc' is not SERVICE.TASK: its task part is missing" run wc
bad 64 "'wc[.]' is not SERVICE.TASK: its task part is missing" submit wc.
bad 64 "'[.]count' is not SERVICE.TASK: its service part is missing" run .count
bad 64 "'w c[.]count' is not SERVICE.TASK: each part is" run 'w c.count'
bad 64 "'wc[.][*]' is not SERVICE.TASK: each part is" run 'wc.*'
bad 64 "is not SERVICE.TASK: each part is" run "$(printf 'a%.0s' {1..65}).count"
bad 64 "'a b' is not a service" service pause 'a b'
bad 64 "'123' is not an id of 36 characters" task show 123
bad 64 "'half' is not open, close or auto" service breaker half wc

step "options"
bad 64 "run: --delay: '5' is not a span like 500ms, 30s or 5m" run wc.count --delay 5
bad 64 "run: --timeout: '1.5s' is not a span" run wc.count --timeout 1.5s
bad 64 "run: --deadline: '0' is not a span of at least 1ms" run wc.count --deadline 0
bad 64 "run: --wait: 'soon' is not a span" run wc.count --wait soon
bad 64 "submit: --attempts: '0' is not a number from 1 to 1000" submit wc.count --attempts 0
bad 64 "submit: --priority: '10' is not a number from 0 to 9" submit wc.count --priority 10
bad 64 "submit: --backoff: '1s,,5m' is not a backoff" submit wc.count --backoff 1s,,5m
bad 64 "submit: --backoff: '1s,0.5' is not a backoff" submit wc.count --backoff 1s,0.5
bad 64 "submit: --meta: 'colour' is not NAME=VALUE" submit wc.count --meta colour
bad 64 "submit: --id: 'x' is not an id" submit wc.count --id x
bad 64 "submit: --tenant: 'a b' is not a name" submit wc.count --tenant 'a b'
bad 64 "submit: --tag: '' is not a tag" submit wc.count --tag ''
bad 64 "submit: --tag: 'a b' is not a tag" submit wc.count --tag $'a\nb'
bad 64 "submit: --meta: 'a.b=1' is not NAME=VALUE" submit wc.count --meta $'a\eb=1'
bad 64 "submit: --meta: '=1' is not NAME=VALUE" submit wc.count --meta =1
bad 64 "task ls: --state: 'done' is not a state" task ls --state 'done'
bad 64 "run: --broker: 'localhost' is not an endpoint" run wc.count --broker localhost
bad 64 "work: --slots: '0' is not a number" work wc.count --slots 0 -- true
bad 64 "work: --name: 'a.b' is not a name of 1 to 64 bytes" work wc.count --name $'a\eb' -- true
bad 64 "work: --name: '...' is not a name" work wc.count --name $'\x80\xff\x01' -- true
bad 64 "work: --name: 'x{100}[.]{3}' is not a name" work wc.count --name "$(printf 'x%.0s' {1..2000})" -- true
bad 64 "work: --permanent-exit: '2,x' is not a list of exit codes" \
    work wc.count --permanent-exit 2,x -- true

step "words"
bad 64 "run: a word is missing; usage: treadle run SERVICE.TASK" run
bad 64 "run: 'c' is one word too many" run wc.count b c
bad 64 "stats: 'x' is one word too many" stats x
bad 64 "work: no command" work wc.count
bad 64 "work: no command" work wc.count --
bad 64 "work: 'wc' is not SERVICE.TASK" work wc -- wc -w
bad 64 "work: cannot run no-such-program: No such file or directory; give a program in PATH" \
    work wc.count -- no-such-program -w
bad 64 "work: cannot run ./usage.sh: No such file" work wc.count -- ./usage.sh
bad 64 "work: cannot run /: Permission denied" work wc.count -- /
touch unrunnable
bad 64 "work: cannot run ./unrunnable: Permission denied" work wc.count -- ./unrunnable
PATH=".:$PATH" bad 64 "work: cannot run unrunnable: Permission denied" work wc.count -- unrunnable
bad 64 "run: '--frobnicate' is not one of its options; see: treadle help run" \
    run wc.count --frobnicate
bad 64 "run: '-x' is not one of its options" run -x wc.count
bad 64 "run: '-xyz' is not one of its options" run wc.count -xyz
bad 64 "stats: '--wait=5s' is not one of its options" stats --wait=5s
bad 64 "run: --delay: its value is missing; write: --delay SPAN" run wc.count --delay

step "bodies"
bad 66 "run: @nothing-here: No such file or directory" run wc.count @nothing-here
truncate -s 67108865 big # what a broker admits less is told once one is there
bad 65 "run: big: the body is over the limit of 67108864 bytes" run wc.count @big
"$bin/treadle" run wc.count - <big >"$out" 2>"$err"
code=$?
then_exit 65
then_one_message "run: stdin: the body is over the limit of 67108864 bytes"

step "environment"
TREADLE_BROKER=nowhere cli run wc.count
then_exit 78
then_one_message "run: TREADLE_BROKER: 'nowhere' is not an endpoint"

step "no broker"
bad 69 "run: tcp://127.0.0.1:1: no broker in 300ms: nothing listens there; check --broker.*: treadle dev, with the same --broker" \
    run wc.count x --connect-timeout 300ms
bad 69 "stats: tcp://127.0.0.1:1: no broker" stats --connect-timeout 300ms
bad 69 "task show: ipc://$work/none: no broker" \
    task show "$id" --broker "ipc://$work/none" --connect-timeout 300ms

step "help"
cli help
then_exit 0
then_stderr_is_empty
for verb in dev work run submit 'task wait' 'task show' 'task ls' 'task explain' 'task cancel' \
    'service ls' 'service show' 'service pause' 'service resume' 'service breaker' 'worker ls' \
    'worker show' 'worker drain' 'broker status' 'broker drain' stats help version; do
    cli help
    then_stdout_has "^  $verb +[A-Z]"
    # shellcheck disable=SC2086 # two words on purpose
    cli help $verb
    then_exit 0
    then_stdout_has "^Usage: treadle $verb"
done
cli run --help
then_exit 0
then_stdout_has '^ +--delay=SPAN'
cli help task
then_exit 0
then_stdout_has '^  task explain'
cli version
then_exit 0
then_stdout_has '^treadle [0-9]+[.][0-9]+[.][0-9]+$'
cli
then_exit 64

step "a lone program without its broker"
mkdir alone
cp "$bin/treadle" alone/treadle
PATH=/nonexistent alone/treadle dev >"$out" 2>"$err"
code=$?
then_exit 69
then_one_message "dev: treadled: No such file or directory"

step "stdout that takes nothing"
"$bin/treadle" help >/dev/full 2>"$err"
code=$?
then_exit 74
then_stderr_has '^treadle: stdout: No space left on device$'
