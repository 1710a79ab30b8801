#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# The clients of docs/examples do what their first lines say.
#
# usage: client_examples.sh BIN EXAMPLES
examples=$(cd "$2" && pwd)
source "$(dirname "$0")/support.sh"

run() { # PROGRAM ARGUMENT...
    local program=$1
    shift
    "$examples/$program" "$@" >"$out" 2>"$err"
    code=$?
}

step "without a broker hello_client says why"
TREADLE_BROKER=ipc://$work/none.sock run hello_client wc.count 'a b' </dev/null
then_exit 1
then_stderr_has '^hello_client: .*none.sock'

step "hello_client prints a result for each body"
start_broker
start_worker w1 text.upper -- tr a-z A-Z
run hello_client text.upper 'a b' 'c' '' </dev/null
then_exit 0
then_stderr_is_empty
[[ $(grep -cE '^[0-9a-f-]{36} succeeded: ' "$out") -eq 3 ]] || fail "not three results"
then_stdout_has ' succeeded: A B$'
then_stdout_has ' succeeded: C$'

step "event_loop prints a result for each line, the last one without a newline too"
printf 'one\ntwo\n\nlast' >lines
run event_loop text.upper <lines
then_exit 0
then_stderr_is_empty
[[ $(LC_ALL=C sort "$out" | tr '\n' ' ') == ' LAST ONE TWO ' ]] || fail "not those lines"

step "event_loop with a thousand lines at once, and more than wait at a time"
start_worker w2 --slots 8 text.lower -- tr A-Z a-z
seq 1200 >lines
run event_loop text.lower <lines
then_exit 0
[[ $(sort -n "$out" | cmp - lines && echo same) == same ]] || fail "not every line, once"
