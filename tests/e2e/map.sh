#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# `treadle map`: a task for each record of stdin, and what becomes of each.
source "$(dirname "$0")/support.sh"
shopt -s lastpipe # so that map(), at the end of a pipe, sets $code

# Runs treadle map with what comes on stdin: $out, $err, $code.
map() { # ARGUMENT...
    "$bin/treadle" map "$@" >"$out" 2>"$err"
    code=$?
}

# Whether a file has exactly these bytes; printf's escapes.
then_bytes_are() { # FILE FORMAT
    # shellcheck disable=SC2059
    printf "$2" | cmp -s - "$1" || fail "$(basename "$1") is not '$2' but: $(od -c "$1" | head)"
}

start_broker
start_worker upper demo.upper --slots 4 -- tr a-z A-Z
start_worker picky demo.picky --slots 4 -- \
    sh -c 'read -r x; case $x in bad*) echo "no $x" >&2; exit 3;; esac; printf %s "$x"'
start_worker sleeper demo.sleeper --slots 8 -- sh -c 'read -r x; sleep "0.$x"; echo "$x"'

step 'a result for each line, in their order; empty lines and a last one without newline count'
printf 'one\n\nthree\nlast' | map demo.upper
then_exit 0
then_bytes_are "$out" 'ONE\n\nTHREE\nLAST\n'
then_stderr_is_empty

step 'an empty input is done at once'
map demo.upper </dev/null
then_exit 0
then_bytes_are "$out" ''

step 'a regular file as stdin, more lines than are in flight'
seq 300 >numbers
map demo.upper -j 7 <numbers
then_exit 0
cmp -s numbers "$out" || fail 'not the same lines in the same order'

step '-0: records and results end with a NUL'
printf 'a\nb\0c\0' | map demo.upper -0
then_exit 0
then_bytes_are "$out" 'A\nB\0C\0'

step 'the slowest first: the order of the input, or as they come'
printf '9\n5\n1\n' >spans
map demo.sleeper <spans
then_bytes_are "$out" '9\n5\n1\n'
map demo.sleeper --unordered <spans
then_bytes_are "$out" '1\n5\n9\n'

step 'what fails prints nothing on stdout, one line on stderr, and the rest goes on'
printf 'a\nbad b\nc\n' | map demo.picky --attempts 2 --backoff 10ms --joblog log
then_exit 1
then_bytes_are "$out" 'a\nc\n'
then_stderr_has '^treadle: map: line 2: demo.picky failed: transient: no bad b \(attempt 2 of 2, worker picky on .*\); task [0-9a-f-]{36}$'
then_stderr_has '^treadle: map: demo.picky: 2 of 3 succeeded, 1 failed'
[[ $(wc -l <"$err") -eq 2 ]] || fail 'not two lines on stderr'

step 'the job log has GNU parallel'\''s columns and three more'
[[ $(head -n 1 log) == $'Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\tId\tAttempts\tKind' ]] ||
    fail "header: $(head -n 1 log)"
[[ $(tail -n +2 log | sort -n | cut -f 1,5,6,7,8,9,11,12 | tr '\t\n' ' ;') == \
'1 1 1 0 0 a 1 succeeded;2 5 0 3 0 bad b 2 transient;3 1 1 0 0 c 1 succeeded;' ]] || fail "job log: $(cat log)"

step '--from-files: the content is the body; a file that cannot be read fails its record'
printf 'from a file' >file
mkfifo pipe
printf 'file\nmissing\n.\npipe\n' | map demo.upper --from-files --joblog log
then_exit 1
then_bytes_are "$out" 'FROM A FILE\n'
then_stderr_has '^treadle: map: line 2: missing: No such file or directory$'
then_stderr_has '^treadle: map: line 3: \.: Is a directory$'
then_stderr_has '^treadle: map: line 4: pipe: Not a regular file$'
[[ $(grep -c $'\t-\t0\tinput$' log) -eq 3 ]] || fail "job log: $(cat log)"

step 'a body over the limit fails its record, however long it is'
{
    echo a
    head -c 20000000 /dev/zero | tr '\0' x
    printf '\nb\n'
} | map demo.upper
then_exit 1
then_bytes_are "$out" 'A\nB\n'
then_stderr_has 'line 2: the body has 20000000 bytes, and the broker admits 4194304'

step 'a reader that has enough ends it, quietly; what was in flight is cancelled'
seq 500 | "$bin/treadle" map demo.upper 2>"$err" | head -n 1 >"$out"
statuses=("${PIPESTATUS[@]}")
[[ ${statuses[1]} -eq 141 ]] || fail "exit code ${statuses[1]}, not 141"
then_bytes_are "$out" '1\n'
then_stderr_is_empty
is_idle() {
    "$bin/treadle" service show demo --json | tr -d ' \n' | grep -q '"ready":0,.*"running":0'
}
eventually 5 is_idle || fail "tasks go on: $("$bin/treadle" service show demo --json)"

step 'a full disk is told'
printf 'a\n' | "$bin/treadle" map demo.upper >/dev/full 2>"$err"
code=$?
then_exit 74
then_stderr_has 'map: stdout: No space left on device'

step '--detach prints the ids in the order of the input and waits for nothing'
printf '9\n1\n' | map demo.sleeper --detach
then_exit 0
mapfile -t ids <"$out"
[[ ${#ids[@]} -eq 2 ]] || fail 'not two ids'
cli task wait "${ids[0]}"
then_stdout_is 9
cli task wait "${ids[1]}"
then_stdout_is 1

step 'mistakes are found before the broker is looked for'
for wrong in '' 'nodot' 'demo.upper -j 0' 'demo.upper -j' 'demo.upper --resume' \
    'demo.upper --resume-failed' 'demo.upper --detach --joblog log' 'demo.upper --id x'; do
    # shellcheck disable=SC2086
    map $wrong --broker tcp://127.0.0.1:1 </dev/null
    [[ $code -eq 64 ]] || fail "map $wrong: exit code $code, not 64"
    then_one_message ''
done
map demo.upper <&-
then_exit 66
then_one_message 'stdin is closed'

step 'a stream that is closed is no other descriptor: what is printed is not lost in a socket'
for verb in 'map demo.upper' 'run demo.upper a' 'worker ls' 'help'; do
    # shellcheck disable=SC2086
    "$bin/treadle" $verb </dev/null 2>"$err" >&-
    code=$?
    then_exit 74
    then_stderr_has '^treadle: .*stdout'
done
"$bin/treadle" run demo.upper a >"$out" 2>&-
code=$?
then_exit 0
then_stdout_is A

step 'a message stays in its line, whatever it quotes'
cli run demo.upper --tenant $'a\nb\e[2J'
then_exit 64
then_one_message "'a b[?].2J'"
