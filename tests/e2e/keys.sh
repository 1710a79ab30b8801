#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Keys: made, shown, found in every place they may be named, refused where they must not be trusted,
# and kept from what a worker runs.
#
#   keys.sh BIN EXAMPLES TESTS
source "$(dirname "$0")/support.sh"
examples=$(cd "$2" && pwd) || exit 1
tests=$(cd "$3" && pwd) || exit 1

# Those who forbid cores are to differ from the others; ASan forbids them to all.
ulimit -c "$(ulimit -Hc)"
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}disable_coredump=0

children_of() { # PID: it and all below it
    local child
    echo "$1"
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do
        children_of "$child"
    done
}

# How many of the processes below one, without it, may not leave a core.
count_without_core() { # PID
    local child count=0
    for child in $(children_of "$1" | tail -n +2); do
        if [[ $(sed -n 's/^Max core file size *\([^ ]*\) .*/\1/p' "/proc/$child/limits") == 0 ]]; then
            count=$((count + 1))
        fi
    done
    echo "$count"
}

step "keys are made once, and only their public half is shown"
cli key gen one
then_exit 0
[[ $(cat "$out") =~ ^[0-9a-f]{64}$ ]] || fail "no public key on stdout"
hex=$(cat "$out")
[[ $(stat -c %a one.key) == 600 ]] || fail "one.key can be read by others"
secret=$(sed -n 's/.*secret-key = "\(.*\)"/\1/p' one.key)
[[ ${#secret} -eq 40 ]] || fail "one.key has no secret"
cp one.key before.key
cli key gen one
then_exit 78
then_one_message 'one.key: is there already'
cmp -s one.key before.key || fail "one.key was overwritten"
for file in one.key one.pub "$hex"; do
    cli key show "$file"
    then_exit 0
    then_stdout_has "$hex"
    ! grep -qFf - "$out" "$err" <<<"$secret" || fail "the secret was shown"
done
cli key show one.kye
then_exit 66
then_one_message 'neither 64 hexadecimal digits nor a file'
cli key gen a/b
then_exit 64
then_one_message 'a directory with --dir'
cli key gen two.key
then_exit 64
then_one_message 'give it without .key or .pub'
cli key gen two --dir none
then_exit 78
then_one_message 'none: no such directory; make it with: mkdir -p none'
cli key show before.key --json
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
cli run crash.ok hello
then_exit 0
crash=$last_pid
if [[ $(ulimit -c) != 0 ]]; then
    [[ $(count_without_core "$crash") -eq 0 ]] || fail "a handler without a secret may leave no core"
fi
cli run crash.chain hello
then_exit 0
[[ $(count_without_core "$crash") -ge 1 ]] || fail "a handler with a secret may leave a core"
kill -TERM "$last_pid"
wait_gone "$last_pid" 5 || fail "the worker does not end"

step "no process that runs handlers has the worker's secret key in its memory"
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
"$tests/memory_search" guarded.key "${processes[@]}" >found || fail "the search does not find what is there"
[[ $EUID -ne 0 ]] || ! grep -q denied found || fail "root may not look: $(cat found)"
has_line found "^$guarded ([1-9]|denied)" || fail "the worker has no secret: $(cat found)"
! grep -v "^$guarded " found | grep -qvE ' (0|denied)$' || fail "a child has the secret: $(cat found)"

step "what is no file with a secret key of one's own is refused, by treadle and treadled, and nothing waits"
then_both_refuse() { # FILE PATTERN : as an identity, as a server key
    code=0
    timeout 10 "$bin/treadle" stats --identity "$1" >"$out" 2>"$err" || code=$?
    then_exit 78
    then_one_message "$2"
    code=0
    timeout 10 "$bin/treadled" --listen 'tcp://127.0.0.1:*' --server-key "$1" --principals principals \
        >"$out" 2>"$err" || code=$?
    then_exit 78
    then_stderr_has "$2"
    ! grep -qFf - "$out" "$err" <<<"$secret" || fail "the secret was shown"
}
for mode in 640 620 604 602 644 666; do
    cp one.key open.key
    chmod "$mode" open.key
    then_both_refuse open.key "open.key: others may read or write this secret key \(mode 0$mode\)"
done
if [[ $EUID -eq 0 ]]; then
    cp one.key foreign.key
    chown 65534 foreign.key
    then_both_refuse foreign.key 'foreign.key: belongs to user 65534, and this process runs as user 0'
else
    then_both_refuse /etc/hostname '/etc/hostname: belongs to user 0'
fi
ln -s one.key linked.key
then_both_refuse linked.key 'linked.key: is a symbolic link'
mkdir folder.key
then_both_refuse folder.key 'folder.key: is a directory'
mkfifo fifo.key
then_both_refuse fifo.key 'fifo.key: is not a regular file'
then_both_refuse missing.key 'missing.key: no such key file; make one with: treadle key gen'
(umask 077 && : >empty.key && head -c -10 one.key >cut.key && sed '/secret-key/d' one.key >half.key &&
    { grep -v secret-key one.key && grep secret-key host.key; } >mixed.key)
then_both_refuse empty.key 'empty.key: is not a key file, or was cut short'
then_both_refuse cut.key 'cut.key: is not a key file, or was cut short'
then_both_refuse half.key 'half.key: has a public key only; name the file that ends in .key'
then_both_refuse mixed.key 'mixed.key: its public key does not belong to its secret key'
then_both_refuse one.pub 'one.pub: is a public key by its name; name the file that ends in .key'
cli stats --server-key one.key
then_exit 78
then_one_message 'one.key: has the secret key, which must not leave its owner; name the file that ends in .pub'
! grep -qFf - "$out" "$err" <<<"$secret" || fail "the secret was shown"

step "no memory may be locked, no home is known"
(ulimit -l 0 && "$bin/treadle" stats >"$out" 2>"$err") || fail "locked memory is needed"
(ulimit -l 0 && timeout 10 "$bin/treadled" --check-config --listen 'tcp://127.0.0.1:*' --server-key server.key \
    --principals principals >"$out" 2>"$err") || fail "locked memory is needed"
env -u HOME "$bin/treadle" stats --identity host.key --server-key server.pub >"$out" 2>"$err" || fail "a home is needed"

step "names in the configuration file are beside it, wherever one is"
cp host.key "$HOME/.config/treadle/mine.key"
given_a_file "$HOME/.config/treadle/treadle.conf" 'identity = mine.key' 'server_key = server.pub'
mkdir elsewhere
cp one.pub elsewhere/server.pub # somebody else's
(cd elsewhere && "$bin/treadle" stats >"$out" 2>"$err") || fail "another server.pub was taken"
rm "$HOME/.config/treadle/treadle.conf"

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

step "and one whose key is taken away is told so, not only that the connection was lost"
sed -i '/^principal "late"/,/^}/d' principals
cli broker reload
then_exit 0
then_stderr_has 'again; 1 setting changed$'
cli broker reload
then_exit 0
then_stderr_has 'again; 0 settings changed$'
eventually 10 has_line "$work/late.log" 'lost the broker at .*does not admit this key; trying again .what to do: treadle doctor' ||
    fail "late is not told why"

step "a client that waits, and whose key is taken away and given back, has its result"
given_a_key back
cp principals without
cat >>principals <<EOF
principal "back" { keys = {$key} roles = {submit} services = {"gate.*"} }
EOF
cp principals with
cli broker reload
then_exit 0
start_worker gate gate.job -- sh -c 'while [ ! -e open ]; do sleep 0.05; done; echo through'
cli run late.job x --identity back.key
then_exit 77
then_one_message 'run: late.job: the broker refused: this key may not submit to this task; see: treadle doctor$'
start waits "$bin/treadle" run gate.job x --identity back.key
waits=$last_pid
is_gate_running() {
    "$bin/treadle" task ls --service gate --state running 2>/dev/null | grep -q gate
}
eventually 10 is_gate_running || fail "the task does not start"
[[ $(sed -n 's/^Max core file size *\([^ ]*\) .*/\1/p' "/proc/$waits/limits") == 0 ]] ||
    fail "a client that holds a secret may leave a core"
cp without principals
cli broker reload
then_exit 0
eventually 10 has_line "$work/waits.log" 'does not admit this key; waiting for it; see: treadle doctor' || fail "the client is not told why"
cp with principals
cli broker reload
then_exit 0
touch open
wait_gone "$waits" 10 || fail "the client does not come back"
has_line "$work/waits.log" '^through$' || fail "the result is lost"

step "map whose key may no longer submit: it is told so, and what goes on is not called cancelled"
seq 3 >three
"$bin/treadle" map gate.none --identity back.key <three >mapped.out 2>mapped.log &
mapped=$!
eventually 5 has_line mapped.log 'no worker serves gate[.]none' || fail "the map does not wait"
sed -i '/^principal "back"/s/submit/work/' principals
cli broker reload
then_exit 0
code=0
wait "$mapped" || code=$?
then_exit 77
has_line mapped.log 'the broker refused: rights: this key may not submit' || fail "told: $(cat mapped.log)"
has_line mapped.log 'map: gate[.]none: 3 of its tasks may go on: treadle task ls$' || fail "told: $(cat mapped.log)"
cli task ls --service gate --state ready
[[ $(grep -c 'gate[.]none' "$out") -eq 3 ]] || fail "its tasks are gone"
