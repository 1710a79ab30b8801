#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Who may do what where: endpoints for workers and for administrators, files of the broker that must
# not be trusted, and what a reload says of what it cannot change.
#
#   broker_access.sh BIN
source "$(dirname "$0")/support.sh"
unset TREADLE_CONFIG TREADLE_LISTEN TREADLE_INSECURE TREADLE_LOG_FORMAT

then_config_is_refused() { # PATTERN
    "$bin/treadled" -c keyed.conf --check-config >"$out" 2>"$err" </dev/null
    code=$?
    then_exit 78
    [[ $(wc -l <"$err") -eq 1 ]] || fail "not one line on stderr"
    then_stderr_has "^treadled: .*$1"
}

then_config_is_good() {
    "$bin/treadled" -c keyed.conf --check-config >"$out" 2>"$err" </dev/null
    code=$?
    then_exit 0
}

wait_broker_line() { # PATTERN
    eventually 10 has_line broker.log "$1" || fail "the broker does not say '$1'"
}

step "an endpoint for all, one for workers, one for administrators"
given_a_file split.conf "listen_admin = 'ipc://$work/admin.sock'" "listen = 'ipc://$work/all.sock'" \
    "listen_workers = 'ipc://$work/workers.sock'"
start split "$bin/treadled" -c split.conf
use_broker split
[[ $TREADLE_BROKER == "ipc://$work/all.sock" ]] || fail "the first line is not of listen"
for line in "all.sock" "workers.sock workers" "admin.sock admin"; do
    eventually 5 has_line split.log "^listening ipc://$work/$line\$" || fail "no line of $line"
done
workers=ipc://$work/workers.sock
admin=ipc://$work/admin.sock

step "workers come to theirs, and only they"
start worker "$bin/treadle" work demo.echo --name w1 --broker "$workers" -- cat
eventually 10 has_line worker.log 'serving demo.echo' || fail "the worker does not come up"
cli run demo.echo hello
then_exit 0
then_stdout_is hello
cli work demo.echo -- cat
then_exit 77
cli work demo.echo --broker "$admin" -- cat
then_exit 77
cli run demo.echo hello --broker "$workers"
then_exit 77
then_one_message "run: $workers: the broker refused: rights: this key may not submit; see: treadle doctor\$"

step "administrators come to theirs, and only they"
cli service pause demo
then_exit 77
then_one_message 'the broker refused: this needs the role admin, and the right to the service; see: treadle doctor$'
cli broker reload
then_exit 77
then_one_message 'the broker refused: this needs the role admin; see: treadle doctor$'
cli broker reload --broker "$admin"
then_exit 0
cli service ls --broker "$admin"
then_exit 0
then_stdout_has demo
cli run demo.echo hello --broker "$admin"
then_exit 77
then_one_message 'the broker refused: rights: this key may not submit; see: treadle doctor$'

step "plain TCP is said out loud, by the broker too"
start plain "$bin/treadled" --insecure --listen 'tcp://127.0.0.1:*'
eventually 10 has_line plain.log 'broker.insecure endpoint=tcp://127[.]0[.]0[.]1:' || fail "it is silent"

step "files of the broker that others may write, or could have written, are refused"
given_a_key server
given_a_key host
host=$key
given_a_file principals 'principal "host" {' "keys = {$host}" 'roles = {submit, work, admin}' 'services = {"*"}' '}'
given_a_file keyed.conf "listen = 'tcp://127.0.0.1:*'" 'server_key = server.key' 'principals = principals'
then_config_is_good
for file in principals keyed.conf; do
    for mode in 664 646; do
        chmod "$mode" "$file"
        then_config_is_refused "$file: may be written by others; expected .*chmod go-w .*$file\$"
    done
    chmod 644 "$file"
    if [[ $EUID -eq 0 ]]; then
        chown 65534 "$file"
        then_config_is_refused "$file: belongs to another user; expected one of root"
        chown 0 "$file"
    fi
done
chmod 640 server.key
then_config_is_refused 'keyed.conf:2: server_key: .*server[.]key: others may read or write'
chmod 600 server.key
given_a_file none.conf "listen = 'tcp://127.0.0.1:*'" 'server_key = server.key' 'principals = none'
mv principals kept
then_config_is_refused 'principals: cannot be read: No such file.*; expected a file of principal "NAME" { [.]+ }'
mv kept principals
cp keyed.conf kept
sed -i "s/^server_key/server-key/" keyed.conf
then_config_is_refused 'keyed.conf:2: .*server-key' # and no word of TCP without keys, which was not meant
given_a_file keyed.conf 'listen = {"tcp://127.0.0.1:*", "tcp://0.0.0.0:* other.key", "tcp://127.0.0.2:*"}' \
    'server_key = missing.key' 'principals = none'
"$bin/treadled" -c keyed.conf --check-config >"$out" 2>"$err" </dev/null
code=$?
then_exit 78
then_stderr_has '^treadled: .*keyed.conf:2: server_key: .*missing.key: no such key file'
then_stderr_has '^treadled: .*keyed.conf:1: listen: .*other.key: no such key file'
then_stderr_has '^treadled: .*none: cannot be read: No such file'
[[ $(wc -l <"$err") -eq 3 ]] || fail "not each mistake once"
mv kept keyed.conf

step "the broker's own key is nobody else's"
cp principals kept
sed -i "s/$host/$host, $("$bin/treadle" key show server.pub --json | json_field key)/" principals
then_config_is_refused "principals:2: keys: .* is the broker's own key"
cp kept principals
then_config_is_good

step "a broker with a key leaves no core"
start broker "$bin/treadled" -c keyed.conf
use_broker broker
broker=$last_pid
export TREADLE_IDENTITY=host.key TREADLE_SERVER_KEY=server.pub
[[ $(sed -n 's/^Max core file size *\([^ ]*\) .*/\1/p' "/proc/$broker/limits") == 0 ]] || fail "a core may be written"
cli stats
then_exit 0

step "who is refused is found by the first digits of its key"
given_a_key stranger
cli stats --identity stranger.key
then_exit 77
wait_broker_line "auth.refused key=\"${key:0:16}\" address=127[.]0[.]0[.]1 reason=unknown_key count=[1-9]"
cli key show stranger.pub
then_stdout_has "^key +${key:0:16}"

step "a reload of files that must not be trusted changes nothing and says why"
chmod 664 principals
cli broker reload
[[ $code -ne 0 ]] || fail "the reload succeeded"
wait_broker_line 'config.failed mistake=.*principals: may be written by others'
chmod 644 principals
cp keyed.conf kept.conf
given_a_file keyed.conf "listen = 'ipc://$work/other.sock'"
cli broker reload
[[ $code -ne 0 ]] || fail "the reload succeeded"
wait_broker_line 'config.failed mistake="principals: no file is named'
cli stats # it is as it was
then_exit 0

step "a reload says what waits for the next start"
given_a_file keyed.conf "listen = 'tcp://127.0.0.1:7330'" 'server_key = server.key' 'principals = principals'
given_a_key other
mv other.key server.key
cli broker reload
then_exit 0
wait_broker_line 'config.fixed key=listen '
wait_broker_line 'config.fixed key=server_key reason=".*server.key: has another key now'
chmod 640 server.key
cli broker reload
then_exit 0
wait_broker_line 'config.fixed key=server_key reason=".*server.key: others may read or write'
cli stats
then_exit 0

step "an empty file of principals lets nobody in, and cuts off who is in"
: >principals
kill -HUP "$broker"
wait_broker_line 'principals.reloaded principals=0 keys=0'
cli stats --connect-timeout 2s
then_exit 77
