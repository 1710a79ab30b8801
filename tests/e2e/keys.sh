#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Keys: made, shown, found in every place they may be named, refused where they must not be trusted,
# and kept from what a worker runs.
#
#   keys.sh BIN EXAMPLES TESTS
source "$(dirname "$0")/support.sh"
examples=$(cd "$2" && pwd) || exit 1
tests=$(cd "$3" && pwd) || exit 1

step "keys are made once, and only their public half is shown"
cli key gen one
then_exit 0
[[ $(cat "$out") =~ ^[0-9a-f]{64}$ ]] || fail "no public key on stdout"
hex=$(cat "$out")
[[ $(stat -c %a one.key) == 600 ]] || fail "one.key can be read by others"
secret=$(sed -n 's/.*secret-key = "\(.*\)"/\1/p' one.key)
[[ ${#secret} -eq 40 ]] || fail "one.key has no secret"
cp one.key before
cli key gen one
then_exit 78
then_one_message 'one.key: is there already'
cmp -s one.key before || fail "one.key was overwritten"
for file in one.key one.pub "$hex"; do
    cli key show "$file"
    then_exit 0
    then_stdout_has "$hex"
    ! grep -qF -- "$secret" "$out" "$err" || fail "the secret was shown"
done
cli key show one.kye
then_exit 66
then_one_message 'neither 64 hexadecimal digits nor a file'
cli key gen a/b
then_exit 64
cli key gen two --dir none
then_exit 78
cli key show before --json
then_exit 0

step "every verb takes keys as options"
start_keyed_broker
options=(--identity host.key --server-key server.pub)
start_worker_with() { # VARIABLE=VALUE... : a worker, with these variables
    start worker env "$@" "$bin/treadle" work env.show wc.count -- sh -c 'env; wc -w'
    eventually 10 has_line "$work/worker.log" 'serving env.show' || fail "the worker does not come up"
}
start_worker_with TREADLE_IDENTITY=host.key TREADLE_SERVER_KEY=server.pub
cli run wc.count 'a b c' "${options[@]}"
then_exit 0
then_stdout_has '^3$'

step "a command does not find where the keys are"
! grep -qE '^TREADLE_(IDENTITY|SERVER_KEY)=' "$out" || fail "a command sees the worker's keys"
then_stdout_has '^TREADLE_SERVICE=wc$'

step "a worker that holds a secret leaves no core"
[[ $(sed -n 's/^Max core file size *\([^ ]*\) .*/\1/p' "/proc/$last_pid/limits") == 0 ]] ||
    fail "a core may be written"

step "keys from the environment; digits for a file; options go before it"
server_hex=$("$bin/treadle" key show server.pub --json | json_field key)
export TREADLE_IDENTITY=host.key TREADLE_SERVER_KEY=$server_hex
cli stats
then_exit 0
cli stats --server-key one.pub
then_exit 78
cli stats --identity one.key
then_exit 77
export TREADLE_IDENTITY=none.key
cli stats
then_exit 78
then_one_message 'none.key: no such key file; make one with: treadle key gen'
unset TREADLE_IDENTITY TREADLE_SERVER_KEY

step "keys and the broker from the configuration file; the environment goes before it"
given_a_file "$HOME/.config/treadle/treadle.conf" "broker = '$TREADLE_BROKER'" \
    "identity = '$work/host.key'" "server_key = '$work/server.pub'"
broker=$TREADLE_BROKER
unset TREADLE_BROKER
cli stats
then_exit 0
TREADLE_BROKER=tcp://127.0.0.1:1 cli stats --connect-timeout 100ms
then_exit 69
TREADLE_IDENTITY=one.key cli stats
then_exit 77

step "mistakes in the file are told with their lines"
given_a_file "$HOME/.config/treadle/treadle.conf" '# mine' 'identiy = x' 'broker = nowhere' 'broker = "tcp://a:1"'
cli stats
then_exit 78
then_stderr_has 'treadle.conf:2: identiy: no such key; did you mean identity\?'
then_stderr_has 'treadle.conf:3: broker: nowhere is not understood; expected an endpoint'
then_stderr_has 'treadle.conf:4: broker stands in line 3 already'
cli work a.b -- true
then_exit 78
cli key show one.pub # this one asks nobody
then_exit 0

step "keys in their places"
rm "$HOME/.config/treadle/treadle.conf"
export TREADLE_BROKER=$broker
cp server.pub "$HOME/.config/treadle/server.pub"
cli stats
then_exit 78
then_one_message 'a server key, but no identity'
cp host.key "$HOME/.config/treadle/identity.key"
cli stats
then_exit 0
cli stats --server-key none # said out loud: plain
then_exit 78
then_stderr_has 'wants keys'

step "the library finds them, too, and so does a handler's own client"
"$examples/hello_client" wc.count 'a b c d' >"$out" 2>"$err"
code=$?
then_exit 0
then_stdout_has 'succeeded: .*'
then_stdout_has '^4$'
start_worker crash --plugin "$tests/crash_plugin.so"
cli run crash.chain hello
then_exit 0
kill -TERM "$last_pid"
wait_gone "$last_pid" 5 || fail "the worker does not end"

step "no process that runs handlers has the worker's secret key in its memory"
children_of() { # PID: it and all below it
    local child
    echo "$1"
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do
        children_of "$child"
    done
}
given_a_key guarded
cat >>principals <<EOF
principal "guarded" { keys = {$key} roles = {work} services = {"*"} }
EOF
cli broker reload
then_exit 0
start_worker guarded --identity guarded.key --plugin "$tests/crash_plugin.so" crash.ok
guarded=$last_pid
cli run crash.ok hello
then_exit 0
mapfile -t processes < <(children_of "$guarded")
((${#processes[@]} >= 3)) || fail "the worker has no zygote with a child: ${processes[*]}"
if "$tests/memory_search" guarded.key "${processes[@]}" >found 2>/dev/null; then
    [[ $(sed -n "s/^$guarded //p" found) -gt 0 ]] || fail "the search does not find what is there"
    [[ $(grep -vc "^$guarded " found) -eq $(grep -c ' 0$' found) ]] ||
        fail "a child has the secret: $(cat found)"
elif [[ $? -ne 77 ]]; then
    fail "the search failed"
fi

step "a file that must not be trusted is refused, whatever it is for"
chmod 640 "$HOME/.config/treadle/identity.key"
cli stats
then_exit 78
then_one_message 'identity.key: others may read or write'
cli work a.b -- true
then_exit 78
then_one_message 'identity.key: others may read or write'
chmod 600 "$HOME/.config/treadle/identity.key"
ln -s host.key link.key
cli stats --identity link.key
then_exit 78
then_one_message 'link.key: is a symbolic link'
cli stats --identity link.key --broker "ipc://$work/none.sock" # named, so looked at
then_exit 78
if [[ $EUID -eq 0 ]]; then
    cp host.key foreign.key
    chown 65534 foreign.key
    cli stats --identity foreign.key
    then_exit 78
    then_one_message 'foreign.key: belongs to user 65534'
fi

step "a worker whose key is admitted later comes in by itself"
given_a_key late
start late "$bin/treadle" work late.job --name late --identity late.key -- cat
eventually 10 has_line "$work/late.log" 'does not admit this key' || fail "late is not told why"
cat >>principals <<EOF
principal "late" {
keys = {$key}
roles = {work}
services = {"late.*"}
}
EOF
cli broker reload
then_exit 0
eventually 10 is_worker_there late || fail "the worker does not come in"
cli run late.job hello
then_exit 0
then_stdout_is hello
