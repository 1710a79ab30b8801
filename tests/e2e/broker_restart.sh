#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# The broker is killed under 10 workers and 4 clients and starts again at its endpoints: all come
# back within 2 s, clients submit again what had not settled, and who waits for a task that nobody
# submits again is told so. The store in memory keeps nothing.
source "$(dirname "$0")/support.sh"
worker_count=10
client_count=4
line_count=40

start_at() { # LOG: the first time at a free port, then at the same one
    start "$1" "$bin/treadled" --insecure --listen "ipc://$work/broker.sock" --listen "$tcp"
    broker_pid=$last_pid
    eventually 10 has_line "$work/$1.log" '^listening tcp' || fail "$1: it does not listen"
}
workers_seen() {
    "$bin/treadle" worker ls --json 2>/dev/null | grep -c '"connected": true'
}
has_all_workers() { [[ $(workers_seen) -eq $worker_count ]]; }

step "a broker at ipc and tcp, $worker_count workers and $client_count clients at both"
tcp='tcp://127.0.0.1:*'
start_at broker
tcp=$(sed -n 's/^listening tcp/tcp/p' broker.log)
endpoints=("ipc://$work/broker.sock" "$tcp")
export TREADLE_BROKER=${endpoints[0]}
for number in $(seq "$worker_count"); do
    start "worker-$number" "$bin/treadle" work slow.echo --name "w$number" --slots 2 \
        --broker "${endpoints[number % 2]}" -- sh -c 'sleep 0.2; cat'
done
eventually 20 has_all_workers || fail "only $(workers_seen) workers came up"
client_pids=()
for number in $(seq "$client_count"); do
    # each runs one line after the other
    start "client-$number" bash -c "
        for line in \$(seq $line_count); do
            '$bin/treadle' run slow.echo \"$number.\$line\" --broker '${endpoints[number % 2]}' || exit 1
            echo
        done"
    client_pids+=("$last_pid")
done
cli submit nobody.serves lost
then_exit 0
lost=$(cat "$out")
start waiter bash -c "'$bin/treadle' task wait '$lost'; echo \"exit \$?\""
waiter_pid=$last_pid
is_under_way() { [[ $(wc -l <client-1.log) -ge 2 && $(wc -l <client-4.log) -ge 2 ]]; }
eventually 10 is_under_way || fail "the clients do not get on"

step "it is killed and starts again"
kill -KILL "$broker_pid"
wait_gone "$broker_pid" 5 || fail "the broker does not die"
start_at broker-again
started_ms=$(now_ms)
eventually 10 has_all_workers || fail "only $(workers_seen) workers came back"
took_ms=$(($(now_ms) - started_ms))
echo "  all workers were back after $took_ms ms"
((took_ms <= 2000)) || fail "that is more than 2 s"

step "who waits for a task that nobody submits again is told that there is none"
eventually 5 is_gone "$waiter_pid" || fail "task wait hangs"
has_line waiter.log '^exit 66$' || fail "task wait did not end with 66"
cli task wait "$lost" --wait 5s
then_exit 66

step "the clients' tasks all settle, none twice on stdout"
for number in $(seq "$client_count"); do
    eventually 30 is_gone "${client_pids[number - 1]}" || fail "client $number hangs"
    for line in $(seq "$line_count"); do
        echo "$number.$line"
    done >expected
    cmp -s expected "client-$number.log" || fail "client $number did not get its results"
done
