#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# treadled as a daemon: its file, several endpoints, reload, log forms, the service manager, its end.
# Arguments: the folder of the programs, that of notify_socket, that of the examples.
source "$(dirname "$0")/support.sh"
helpers=$(cd "$OLDPWD" && cd "$2" && pwd)
examples=$(cd "$OLDPWD" && cd "$3" && pwd)
unset TREADLE_CONFIG TREADLE_LISTEN TREADLE_INSECURE TREADLE_LOG_LEVEL TREADLE_LOG_FORMAT

daemon() { # ARGUMENT...
    "$bin/treadled" "$@" >"$out" 2>"$err" </dev/null
    code=$?
}

wait_line() { # FILE PATTERN
    eventually 10 has_line "$1" "$2" || fail "$1 has no line '$2'"
}

# Writes treadled.conf; what is not of the test stays the same.
write_config() { # LINE...
    {
        echo "listen = {\"ipc://$work/a.sock\", # the first"
        echo "          \"tcp://127.0.0.1:*\"}"
        echo "insecure = true"
        printf '%s\n' "$@"
    } >treadled.conf
}

step "the example is good, and looking at it changes nothing"
install -m 644 "$examples/treadled.conf" example.conf # whoever owns the source tree
daemon -c example.conf --check-config
then_exit 0
then_stdout_is "example.conf: ok"
then_stderr_is_empty

step "mistakes are told with file and line, all of them"
printf 'max_task = 5\nheartbeat = 1parsec\n\nlog_level = "info\n' >bad.conf
for arguments in "-c bad.conf" "--config=bad.conf --check-config"; do
    # shellcheck disable=SC2086 # words
    daemon $arguments
    then_exit 78
    [[ ! -s $out ]] || fail "stdout is not empty"
    [[ $(wc -l <"$err") -eq 3 ]] || fail "not three lines"
    then_stderr_has '^treadled: bad[.]conf:1: max_task: no such key; did you mean max_tasks[?]$'
    then_stderr_has '^treadled: bad[.]conf:2: heartbeat: 1parsec is not understood; expected a span'
    then_stderr_has '^treadled: bad[.]conf:4: a string is not closed; expected'
done
TREADLE_CONFIG=missing.conf daemon --check-config
then_exit 78
then_stderr_has '^treadled: missing[.]conf: cannot be read: No such file or directory; expected'
daemon -c "$work" --check-config
then_exit 78
then_stderr_has 'is a directory; expected'
TREADLE_LOG_LEVEL=loud daemon --check-config
then_exit 78
then_stderr_has '^treadled: TREADLE_LOG_LEVEL: log_level: loud is not understood; expected debug'

step "what stands at the path of an endpoint and is no socket is refused, and stays"
echo precious >precious
ln -s precious link
for path in precious link; do
    daemon --listen "ipc://$work/$path"
    then_exit 73
    then_stderr_has "^treadled: listen: ipc://$work/$path: it is there and no socket"
    [[ $(cat "$path") == precious ]] || fail "$path is gone"
done

step "a port that is none is refused, not taken modulo 65536"
for port in 0 65536 99999 abc; do
    daemon --insecure --listen "tcp://127.0.0.1:$port"
    then_exit 64
    then_stderr_has 'not a port; write one from 1 to 65535'
done

step "an address of another machine is told so"
for host in treadle-elsewhere 192.0.2.1; do
    given_a_file hub.conf "listen = 'tcp://$host:7330'" 'server_key = hub.key' 'principals = hub.principals'
    [[ -e hub.key ]] || "$bin/treadle" key gen hub >/dev/null || fail "no key"
    : >hub.principals
    daemon -c hub.conf
    then_exit 78
    then_stderr_has "tcp://$host:7330: $host is no address of this machine; use one of its own, or 0.0.0.0"
done

step "without its standard streams it serves, and they are nobody's socket"
"$bin/treadled" --listen "ipc://$work/bare.sock" <&- >&- 2>&- &
last_pid=$!
started+=("$last_pid")
eventually 10 "$bin/treadle" broker status --broker "ipc://$work/bare.sock" >"$out" 2>&1 || fail "it does not serve"
for fd in 0 1 2; do
    [[ $(readlink "/proc/$last_pid/fd/$fd") == /dev/null ]] || fail "$fd is $(readlink "/proc/$last_pid/fd/$fd")"
done
kill -TERM "$last_pid"
wait_gone "$last_pid" 5 || fail "it does not end"

step "as many descriptors as it may have: each peer takes one"
(ulimit -Sn 64 && exec "$bin/treadled" --listen "ipc://$work/bare.sock") >"$out" 2>"$err" </dev/null &
last_pid=$!
started+=("$last_pid")
wait_line "$out" '^listening '
limits=$(grep '^Max open files' "/proc/$last_pid/limits")
[[ $(awk '{print $4 - $5}' <<<"$limits") -eq 0 ]] || fail "$limits"
kill -TERM "$last_pid"
wait_gone "$last_pid" 5 || fail "it does not end"

step "a flag goes before the environment, that before the file"
write_config 'log_level = error' 'log_format = text'
daemon -c treadled.conf --check-config
then_exit 0
[[ ! -e a.sock ]] || fail "--check-config has made a socket"
TREADLE_LOG_LEVEL=loud daemon -c treadled.conf --log-level info --check-config
then_exit 0

step "several endpoints, told once they are usable; the manager is told too"
start manager "$helpers/notify_socket" "$work/notify.sock"
wait_line manager.log '^ready$'
write_config 'log_format = json' 'attempts = 2'
export NOTIFY_SOCKET=$work/notify.sock WATCHDOG_USEC=400000
start broker "$bin/treadled" -c treadled.conf
unset NOTIFY_SOCKET WATCHDOG_USEC
broker_pid=$last_pid
use_broker broker
[[ $TREADLE_BROKER == "ipc://$work/a.sock" ]] || fail "not the first endpoint: $TREADLE_BROKER"
wait_line broker.log '^listening tcp://127[.]0[.]0[.]1:[0-9]+$'
tcp=$(sed -n 's/^listening \(tcp.*\)/\1/p' broker.log)
for endpoint in "$TREADLE_BROKER" "$tcp"; do
    cli broker status --broker "$endpoint"
    then_exit 0
done
wait_line broker.log '^\{"time":"[^"]+Z","level":"info","event":"broker.started","version":'
wait_line manager.log '^READY=1$'
wait_line manager.log '^STATUS=Serving at ipc:'
wait_line manager.log '^WATCHDOG=1$'

step "an endpoint that is taken is 69, with what to do"
daemon --listen "ipc://$work/b.sock" --listen "ipc://$work/a.sock"
then_exit 69
then_stderr_has "^treadled: listen: ipc://$work/a.sock: address in use; stop the other broker"

step "a reload takes what may change, and names what may not"
id=$("$bin/treadle" submit wc.count x)
policy_attempts() {
    "$bin/treadle" task show "$id" --json | tr -d ' \n' | grep -o '"attempts_max":{[^}]*}'
}
[[ $(policy_attempts) == '"attempts_max":{"value":2,"origin":"broker"}' ]] ||
    fail "attempts are not the broker's: $(policy_attempts)"
write_config 'log_format = json' 'log_level = debug' 'attempts = 7' 'max_tasks = 500'
kill -HUP "$broker_pid"
wait_line broker.log '"event":"config.reloaded","changed":2\}$'
wait_line broker.log '"event":"config.fixed","key":"max_tasks"'
[[ $(policy_attempts) == '"attempts_max":{"value":7,"origin":"broker"}' ]] ||
    fail "attempts have not changed: $(policy_attempts)"
wait_line broker.log '"level":"debug"'
wait_line manager.log '^RELOADING=1$'
wait_line manager.log '^MONOTONIC_USEC=[0-9]+$'

step "a file with a mistake changes nothing"
write_config 'log_format = json' 'log_level = debug' 'attempts = 0'
cli broker reload
then_exit 78
then_one_message 'broker reload: .*its configuration has mistakes, so nothing has changed'
wait_line broker.log '"event":"config.failed","mistake":"treadled.conf:6: attempts: '
[[ $(policy_attempts) == '"attempts_max":{"value":7,"origin":"broker"}' ]] || fail "attempts have changed"
write_config 'log_format = json' 'attempts = 3' 'drain_timeout = 1s'
cli broker reload
then_exit 0
then_stderr_has 'has read its configuration again; 3 settings changed$'
[[ $(policy_attempts) == '"attempts_max":{"value":3,"origin":"broker"}' ]] || fail "attempts have not changed"

step "TERM drains, for as long as the file says now"
kill -TERM "$broker_pid"
wait_line manager.log '^STOPPING=1$'
wait_line broker.log '"event":"broker.draining","tasks":1\}$'
wait_gone "$broker_pid" 5 || fail "the broker goes on"
wait_line broker.log '"event":"broker.stopped","tasks":1\}$'

step "a second signal ends at once"
write_config 'drain_timeout = 1m'
start again "$bin/treadled" -c treadled.conf
broker_pid=$last_pid
use_broker again
cli submit wc.count x
then_exit 0
kill -TERM "$broker_pid"
wait_line again.log ' info broker[.]draining tasks=1$'
! is_gone "$broker_pid" || fail "it did not wait for its task"
kill -INT "$broker_pid"
wait_gone "$broker_pid" 2 || fail "the broker goes on"

step "nobody waits for a reader of stderr, and lines that were lost are told of later"
mkfifo pipe
exec 7<>pipe
head -c 65536 /dev/zero >&7 # it is full from the start
write_config 'log_level = debug'
"$bin/treadled" -c treadled.conf </dev/null 2>&7 >deaf.log &
broker_pid=$!
disown "$broker_pid"
started+=("$broker_pid")
use_broker deaf
for _ in 1 2 3; do
    cli broker status
    then_exit 0
done
head -c 65536 <&7 >/dev/null
cli broker status
then_exit 0
kill -TERM "$broker_pid"
wait_gone "$broker_pid" 5 || fail "the broker does not end"
timeout 1 cat <&7 >deaf.err
wait_line deaf.err ' warn log[.]dropped lines=[0-9]+$'
wait_line deaf.err ' info broker[.]stopped '
exec 7>&-

step "the file of its ipc socket goes with it: a file that stays is what treadle looks for first"
start going "$bin/treadled" --listen "ipc://$work/going.sock"
going=$last_pid
eventually 5 test -S "$work/going.sock" || fail "there is no socket"
kill -TERM "$going"
wait_gone "$going" 5 || fail "it does not end"
[[ ! -e $work/going.sock ]] || fail "the socket stays"
