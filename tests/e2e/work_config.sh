#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# `treadle work -c FILE`: many handlers from one file, the broker and the keys too, and each mistake
# in it named by its line.
#
# usage: work_config.sh BIN EXAMPLES
source "$(dirname "$0")/support.sh"
demo=$2/demo_plugin.so

start_broker
plain_broker=$last_pid

step "commands and a plugin from one file; what is given with flags goes before it"
cat >good.conf <<CONF
# every kind of setting
broker = "ipc://$work/nobody.sock"
name = "from-file"
slots = 3
pool = threads        // those that say they are safe
drain_timeout = 5s
timeout = 40s         /* of all
                         handlers */
plugin "$demo" { }
handler "wc.count" { command = {"wc", "-w"} permanent_exit = {2, 64} timeout = 30s attempts = 5 }
handler "shout.all" {
    command = {
        "sh", "-c",
        'tr a-z A-Z; echo "\${TREADLE_SERVICE}"'   # single quotes: nothing is expanded
    }
    backoff = 500ms
    backoff_factor = 1.5
    backoff_max = 1m
}
handler "perm.exit" { command = {"sh", "-c", "echo no such thing >&2; exit 2"} permanent_exit = {2} }
handler "demo.sleep" { timeout = 200ms attempts = 1 grace = 100ms }
CONF
TREADLE_BROKER='' cli work -c good.conf --check-config
then_exit 0
start_worker from-flag -c good.conf --broker "$TREADLE_BROKER"
has_line worker-from-flag.log 'serving wc.count and 4 more with 3 slots as from-flag' ||
    fail "it does not say what it serves"
cli run wc.count 'a b c'
then_stdout_is 3
cli run shout.all abc
then_stdout_is "$(printf 'ABC%s' shout)"
cli run demo.upper abc
then_stdout_is ABC
cli run perm.exit
then_exit 1
then_stderr_has 'perm.exit failed: permanent: no such thing'
cli run demo.sleep 30000
then_exit 1
then_stderr_has 'demo.sleep failed: timeout: '
cli submit wc.count x
cli task wait "$(cat "$out")"
cli submit wc.count y
id=$(cat "$out")
cli task show "$id" --json
tr -d ' \n' <"$out" | grep -q '"timeout_ms":{"value":30000,"origin":"worker"}' || fail "the file's timeout does not count"
cli submit shout.all y
cli task show "$(cat "$out")" --json
tr -d ' \n' <"$out" | grep -q '"timeout_ms":{"value":40000,"origin":"worker"}' || fail "the timeout of all does not count"
kill -TERM "$last_pid"
wait_gone "$last_pid" 5 || fail "it does not end on TERM"

step "many mistakes, each with its line"
cat >bad.conf <<'CONF'
slots = 0
slots = many
slotz = 4
pool = fibres
memory_max = 12
drain_timeout = 5 parsecs
broker = "http://nowhere"
name =
identity = ""
server_key = {a, b}
handler "nodot" { command = {"true"} }
handler "a.b" { command = {"true"} timeout = soon }
handler "a.b" { command = {"true"} }
handler "c.d" {
    command = "true"
    permanent_exit = {0}
    attemps = 3
    attempts = 2000
    backoff_factor = 0.5
    timeout = 1s
    timeout = 2s
}
handler "e.f" {
    command = {"sh", "-c", "echo ${HOME}"}
    grace = "5s
    deadline = 1h
    command = {"one" "two"}
    crash_limit = {3}
    command = {"true",}
plugin "x.so" { slots = 3 }
service "s" { }
$ = 3
}
handler "g.h" {
    command = {"wc", "-w"
    timeout = 1s
CONF
"$bin/treadle" work -c bad.conf --check-config >"$out" 2>"$err" </dev/null
code=$?
then_exit 78
says() { # LINE TEXT
    grep -qF "treadle: work: bad.conf:$1: " "$err" || fail "line $1 is not told of"
    grep -F "treadle: work: bad.conf:$1: " "$err" | grep -qF -- "$2" || fail "line $1: not '$2'"
}
says 1 'slots: "0" is too small; expected a whole number from 1 to 65536'
says 2 'slots stands in line 1 already; expected it once'
says 3 'slotz: no such key; did you mean slots?'
says 4 'pool: fibres is not understood; expected processes or threads'
says 5 'memory_max: "12" is not understood; expected a size from 1MiB, such as'
says 6 'drain_timeout: more behind its value; expected one setting a line'
says 7 'broker: http://nowhere is not understood; expected an endpoint'
says 8 'name: no value; expected a name of 1 to 64 bytes'
says 9 'identity: "" is not understood; expected the name of a .key file'
says 10 'server_key: a list; expected the name of a .pub file, 64 hexadecimal digits or none'
says 11 'handler nodot; expected handler "SERVICE.TASK"'
says 12 'timeout: soon is not understood; expected a span'
says 13 'handler "a.b" stands in line 12 already; expected it once'
says 15 'command: not a list; expected a list'
says 16 'permanent_exit: "0" is too small; expected a list of exit codes from 1 to 255'
says 17 'attemps: no such key of a handler; did you mean attempts?'
says 18 'attempts: "2000" is too large; expected a whole number from 1 to 1000'
says 19 'backoff_factor: 0.5 is too small; expected a factor from 1 to 1000'
says 21 'timeout stands in line 20 already; expected it once'
says 24 '${...} is not expanded; expected the value itself, or single quotes'
says 25 'a string is not closed'
says 27 'two values without a comma'
says 28 'crash_limit: a list; expected a whole number'
says 29 'command stands in line 24 already'
says 23 'a section is not closed; expected } before line 30'
says 30 'slots: a plugin has no keys'
says 31 'service: no such section'
says 32 'unexpected character $'
says 33 'unexpected }'
says 35 'a list is not closed; expected } at its end'
says 34 'a section is not closed; expected } at its end'

step "files that are none, and files that say nothing"
cli work -c /nowhere.conf
then_exit 78
then_one_message 'work: /nowhere.conf: cannot be read: No such file or directory'
cli work -c "$work"
then_exit 78
then_one_message 'is a directory; expected a file'
cli work -c /dev/zero
then_exit 78
then_one_message 'is not a regular file'
: >empty.conf
cli work -c empty.conf
then_exit 78
then_one_message 'work: empty.conf: nothing to serve'
echo 'handler "a.b" { }' >none.conf
cli work -c none.conf
then_exit 78
then_one_message 'work: none.conf:1: handler "a.b" has no command, and there is no plugin'
echo 'handler "a.b" { command = {"no-such-program", "-w"} }' >missing.conf
cli work -c missing.conf --check-config
then_exit 78
then_one_message 'work: missing.conf:1: handler "a.b": cannot run no-such-program: No such file or directory; expected '
printf 'plugin "%s" { }\nhandler "demo.other" { timeout = 3s }\n' "$demo" >other.conf
cli work -c other.conf
then_exit 78
then_one_message 'work: other.conf: demo.other has neither a command nor a handler in a plugin'
cli work -c other.conf --plugin "$demo"
then_exit 64
then_one_message '-c FILE says what is served; leave out --plugin'
cli work wc.count --check-config -- wc -w
then_exit 64
then_one_message '--check-config without a file'

step "broker and keys in the file, as in treadle.conf, and before it"
kill -TERM "$plain_broker"
wait_gone "$plain_broker" 5 || fail "the broker does not end"
start_keyed_broker
given_a_key other
broker=$TREADLE_BROKER
unset TREADLE_BROKER
mkdir -p "$HOME/keys"
cp host.key "$HOME/keys"
given_a_file keyed.conf "broker = '$broker'" 'identity = "~/keys/host.key"' "server_key = '$work/server.pub'" \
    'name = keyed' 'handler "env.show" { command = {"env"} }'
given_a_file "$HOME/.config/treadle/treadle.conf" "broker = '$broker'" "identity = '$work/host.key'" \
    "server_key = '$work/server.pub'"
is_serving() { # NAME
    has_line "$1.log" 'serving env.show with .* as keyed'
}
start keyed "$bin/treadle" work -c keyed.conf
eventually 10 is_serving keyed || fail "the keys of the file do not let it in"
cli run env.show
then_exit 0
kill -TERM "$last_pid"
wait_gone "$last_pid" 5 || fail "it does not end on TERM"

step "a flag and the environment go before the file, the file before treadle.conf"
is_refused() { # NAME
    has_line "$1.log" 'does not admit this key'
}
for place in flag environment file; do
    given_a_file "$place.conf" "$(cat keyed.conf)"
    arguments=(-c "$place.conf")
    variables=()
    case $place in
    flag) arguments+=(--identity other.key) ;;
    environment) variables=(TREADLE_IDENTITY=other.key) ;;
    file) sed -i "s|^identity.*|identity = '$work/other.key'|" "$place.conf" ;;
    esac
    start "$place" env "${variables[@]}" "$bin/treadle" work "${arguments[@]}"
    eventually 10 is_refused "$place" || fail "$place: another key was shown"
    ! is_serving "$place" || fail "$place: another key was shown"
done
sed '/^identity/d; /^server_key/d; /^broker/d' keyed.conf >bare.conf
start bare "$bin/treadle" work -c bare.conf
eventually 10 is_serving bare || fail "treadle.conf does not count where the file says nothing"

step "a key file that others can read is refused, and so is one that is not there"
chmod 644 "$HOME/keys/host.key"
cli work -c keyed.conf --check-config
then_exit 78
then_one_message 'work: .*host.key: '
sed -i 's|^identity.*|identity = none.key|' keyed.conf
cli work -c keyed.conf
then_exit 78
then_one_message 'work: .*none.key: no such key file'
