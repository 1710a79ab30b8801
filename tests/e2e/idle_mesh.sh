#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Idle workers cost the broker next to nothing: at most 8 voluntary context switches a second each.
# The number of workers may be given after the folder of the programs (default 10).
count=${2:-10}
source "$(dirname "$0")/support.sh"
start_broker
broker_pid=$last_pid

switches() {
    local task sum=0
    for task in /proc/"$broker_pid"/task/*; do
        sum=$((sum + $(sed -n 's/^voluntary_ctxt_switches:[[:space:]]*//p' "$task/status")))
    done
    echo "$sum"
}
workers_seen() {
    "$bin/treadle" worker ls --json 2>/dev/null | grep -c '"connected": true'
}
has_all_workers() { [[ $(workers_seen) -eq $count ]]; }

step "$count idle workers"
for number in $(seq "$count"); do
    start "worker-$number" "$bin/treadle" work idle.task --name "w$number" --slots 1 -- true
done
eventually 30 has_all_workers || fail "only $(workers_seen) workers came up"
sleep 1

before=$(switches)
sleep 5
after=$(switches)
per_worker=$(awk "BEGIN {printf \"%.1f\", ($after - $before) / 5 / $count}")
echo "  $per_worker switches a second a worker"
awk "BEGIN {exit !($per_worker <= 8)}" || fail "that is more than 8"
