#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# A worker that holds running tasks is killed: they start on another within a second.
source "$(dirname "$0")/support.sh"
start_broker

count_starts() { # WORKER DISPATCH
    if [[ -e starts.$1.$2 ]]; then wc -l <"starts.$1.$2"; else echo 0; fi
}
has_starts() { # WORKER DISPATCH COUNT
    [[ $(count_starts "$1" "$2") -ge $3 ]]
}

# Writes down when and where it starts, then waits for the file `go`.
cat >handler <<'HANDLER'
#!/bin/sh
date +%s%N >>"starts.$TREADLE_WORKER.$TREADLE_DISPATCH"
while ! [ -e go ]; do sleep 0.05; done
echo "$TREADLE_WORKER"
HANDLER
chmod +x handler

step "four tasks run on a worker"
start_worker first hold.on --slots 4 -- ./handler
first_pid=$last_pid
ids=()
for number in 1 2 3 4; do
    cli submit hold.on "$number"
    then_exit 0
    ids+=("$(cat "$out")")
done
eventually 5 has_starts first 1 4 || fail "only $(count_starts first 1) started"

step "it is killed while another is there"
start_worker second hold.on --slots 4 -- ./handler
killed_ns=$(date +%s%N)
kill -KILL "$first_pid"
eventually 5 has_starts second 2 4 || fail "only $(count_starts second 2) started elsewhere"
last_ns=$(sort -n starts.second.2 | tail -n 1)
took_ms=$(((last_ns - killed_ns) / 1000000))
echo "  the last of them started after $took_ms ms"
((took_ms <= 1000)) || fail "that is more than 1 s"

step "they end there, no attempt spent"
: >go
for id in "${ids[@]}"; do
    cli task wait "$id" --wait 5s
    then_exit 0
    then_stdout_is second
    cli task show "$id" --json
    then_stdout_has '"retry_index": 0'
    then_stdout_has '"dispatches": 2'
    then_stdout_has '"kind": "lost"'
done
