#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# treadle doctor tells apart what can be wrong with a connection, and the other verbs say the same.
#
#   doctor.sh BIN TESTS
source "$(dirname "$0")/support.sh"
tests=$(cd "$2" && pwd) || exit 1

given_a_listener() { # MANNER
    start "$1" "$tests/fake_listener" "$1"
    use_broker "$1"
}

# doctor ends with CODE and one message that matches.
then_doctor_says() { # CODE PATTERN OPTION...
    local expected=$1 pattern=$2
    shift 2
    cli doctor "$@"
    then_exit "$expected"
    then_one_message "$pattern"
}

# So does a verb that only wanted to work.
then_stats_says() { # CODE PATTERN OPTION...
    local expected=$1 pattern=$2
    shift 2
    cli stats "$@"
    then_exit "$expected"
    then_one_message "$pattern"
}

step "nothing listens, or there is no such host"
then_doctor_says 69 'nothing listens there; check --broker, and that treadled runs there; or .*treadle dev, with the same --broker' --broker tcp://127.0.0.1:1
then_doctor_says 69 'nothing listens there; check --broker' --broker "ipc://$work/none.sock"
then_doctor_says 69 'host is not known; check' --broker tcp://no-such-host.invalid:7330
then_stats_says 69 'host is not known; check' --broker tcp://no-such-host.invalid:7330 --connect-timeout 500ms \
    --server-key none
cli doctor --broker tcp://127.0.0.1:70000
then_exit 64
if unshare --net --map-root-user true 2>"$err"; then # a machine without a network
    code=0
    unshare --net --map-root-user "$bin/treadle" doctor --broker tcp://192.0.2.1:7330 >"$out" 2>"$err" || code=$?
    then_exit 69
    then_one_message 'there is no way to the host; check the network'
fi

step "no key for a broker on another host"
for elsewhere in no-such-host.invalid:7330 127.no-such-host.invalid:7330 localhost.invalid:1 '127.0.0.1:0;192.0.2.1:7330'; do
    then_stats_says 78 'no server key is known, .*--server-key none' --broker "tcp://$elsewhere"
done
cli work a.b --broker tcp://no-such-host.invalid:7330 -- true
then_exit 78
then_one_message 'no server key is known'

step "what this user may not open"
if [[ $EUID -ne 0 ]]; then
    start closed "$bin/treadled" --listen "ipc://$work/closed.sock"
    eventually 10 has_line closed.log '^listening ' || fail "no broker"
    chmod 0 closed.sock
    then_doctor_says 77 'this user may not open the path; run this as the user who runs treadled' \
        --broker "ipc://$work/closed.sock"
    then_stats_says 77 'this user may not open the path' --broker "ipc://$work/closed.sock" --connect-timeout 500ms
elif setpriv --reuid=65534 --regid=65534 --clear-groups true 2>"$err"; then
    start closed "$bin/treadled" --listen "ipc://$work/closed.sock"
    eventually 10 has_line closed.log '^listening ' || fail "no broker"
    chmod 755 "$work"
    for verb in doctor stats; do
        code=0
        setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent \
            "$bin/treadle" "$verb" --broker "ipc://$work/closed.sock" --connect-timeout 500ms >"$out" 2>"$err" || code=$?
        then_exit 77
        then_one_message 'this user may not open the path; run this as the user who runs treadled'
    done
fi

step "what listens is not ZeroMQ"
for manner in closes ssh http; do
    given_a_listener "$manner"
    then_doctor_says 69 'does not speak ZeroMQ; another program'
    then_stats_says 69 'does not speak ZeroMQ; another program' --connect-timeout 500ms
done

step "what listens takes the connection and is silent"
given_a_listener silent
then_doctor_says 69 'does not answer; see whether it is stopped' --connect-timeout 500ms
then_stats_says 69 'no broker in 500ms: what listens there does not answer; see whether it is stopped' --connect-timeout 500ms

step "what listens speaks ZeroMQ and is no broker"
given_a_listener other
then_doctor_says 69 'what listens there does not answer as a broker; check --broker' --connect-timeout 500ms

step "a broker of another version"
given_a_listener newer
then_doctor_says 77 'version: this broker speaks 1.7 to 1.9; use one version of treadle on both sides'
then_stats_says 77 'use one version of treadle on both sides'

step "a broker without a place for one more"
printf 'listen = {"ipc://%s/full.sock"}\nmax_sessions = 2\n' "$work" >full.conf
start full "$bin/treadled" -c full.conf
eventually 10 has_line full.log '^listening ' || fail "no broker"
for i in 1 2; do
    start "holder$i" "$bin/treadle" work "a.b$i" --broker "ipc://$work/full.sock" -- true
    eventually 10 has_line "holder$i.log" 'serving a' || fail "no worker"
done
then_doctor_says 77 'the broker refused: limit: too many sessions' --broker "ipc://$work/full.sock" --connect-timeout 500ms
then_stats_says 77 'the broker refused: limit: too many sessions' --broker "ipc://$work/full.sock" --connect-timeout 500ms

step "a broker without keys"
start plain "$bin/treadled" --insecure --listen 'tcp://127.0.0.1:*'
use_broker plain
cli doctor
then_exit 0
then_stderr_is_empty
then_stdout_has '^connection +plain$'
then_stdout_has '^principal +anybody$'
then_stdout_has '^roles +submit, work$'
then_stdout_has '^services +[*]$'
then_stdout_has '^verdict +all is well$'
given_a_key server
given_a_key mine
then_doctor_says 78 'has no keys, and a server key was given here; .*--server-key none' \
    --identity mine.key --server-key server.pub
then_stats_says 78 'has no keys, and a server key was given here' --identity mine.key --server-key server.pub
cli doctor --identity mine.key --server-key none
then_exit 0
rm server.* mine.*

step "a broker with keys"
start_keyed_broker
then_doctor_says 78 'wants keys, and none were given here; give its .pub file with --server-key'
then_stats_says 78 'wants keys, and none were given here'
given_a_key other
then_doctor_says 78 'another server key than was given here; get the .pub file' \
    --identity host.key --server-key other.pub
then_stats_says 78 'another server key .*the server key here is of other.pub' --identity host.key --server-key other.pub
then_doctor_says 77 'does not admit this key; have who runs the broker add it' \
    --identity other.key --server-key server.pub
then_stderr_has "treadle broker reload.*: principal \"NAME\" [{] keys = [{]$key[}] roles = [{]submit[}]" # of other.key
then_stats_says 77 'does not admit this key' --identity other.key --server-key server.pub
then_doctor_says 78 'a server key, but no identity .*treadle key gen' --server-key server.pub

step "a key file that must not be trusted"
cp host.key open.key
chmod 604 open.key
then_doctor_says 78 'open.key: others may read or write this secret key .*chmod 600' \
    --identity open.key --server-key server.pub

step "all is well"
cli doctor --identity host.key --server-key server.pub
then_exit 0
then_stderr_is_empty
then_stdout_has '^connection +encrypted'
then_stdout_has "^own key +$("$bin/treadle" key show host.pub --json | json_field key)$"
then_stdout_has '^version +[0-9]'
then_stdout_has '^epoch +[0-9]'
then_stdout_has '^principal +host$'
then_stdout_has '^roles +submit, work, admin$'
then_stdout_has '^services +[*]$'
then_stdout_has '^round trip +[0-9.]+ ms$'
cli doctor --json --identity host.key --server-key server.pub
then_exit 0
[[ $(json_field encrypted <"$out") == true ]] || fail "not encrypted"

step "and what a key may do"
for role in submit admin work; do
    given_a_key "$role"
    given_a_file "of_$role" "principal \"$role\" { keys = {$key} roles = {$role} services = {\"in.*\", \"mail.send\"} }"
    cat "of_$role" >>principals
done
cli broker reload --identity host.key --server-key server.pub
then_exit 0
cli doctor --identity submit.key --server-key server.pub
then_exit 0
then_stdout_has '^principal +submit$'
then_stdout_has '^roles +submit$'
then_stdout_has '^services +in[.][*], mail[.]send$'
cli doctor --json --identity submit.key --server-key server.pub
then_exit 0
[[ $(json_field principal <"$out") == submit ]] || fail "another principal"
tr -d ' \n' <"$out" | grep -q '"roles":\["submit"\],"services":\["in[.][*]","mail[.]send"\]' || fail "other rights"
cli doctor --identity admin.key --server-key server.pub
then_exit 0
then_stdout_has '^roles +admin$'
cli doctor --identity work.key --server-key server.pub
then_exit 0
then_stdout_has '^roles +work$'
cli worker ls --identity work.key --server-key server.pub
then_exit 0
cli submit in.task --identity work.key --server-key server.pub
then_exit 77
cli service pause in --identity submit.key --server-key server.pub
then_exit 77
cli submit out.task --identity submit.key --server-key server.pub
then_exit 77
for words in 'work" .* message=submit' 'submit" .* message=service_set' 'submit" .* message=submit'; do
    grep -Eq "session.beyond_rights principal=\"$words" broker.log || fail "the broker does not say who asked for more"
done
cli stats --json --identity admin.key --server-key server.pub
then_stdout_has '"beyond_rights": 3,'
cli work in.task --identity submit.key --server-key server.pub -- cat
then_exit 77
then_stderr_has 'this key lacks the role work'
grep -Eq 'session.refused role=worker principal="submit" peer="?[0-9.:]+"? code=rights why="this key lacks the role work' \
    broker.log || fail "the broker does not say who was refused"

step "a broker that is stopped"
kill -STOP "$last_pid"
then_doctor_says 69 'does not answer; see whether it is stopped' \
    --connect-timeout 500ms --identity host.key --server-key server.pub
then_stats_says 69 'does not answer; see whether it is stopped' \
    --connect-timeout 500ms --identity host.key --server-key server.pub
