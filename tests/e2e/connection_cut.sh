#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# A worker's connection is cut and restored at once: it keeps its leases, and nothing runs twice.
proxy=$2/cut_proxy
source "$(dirname "$0")/support.sh"

start broker "$bin/treadled" --insecure --listen 'tcp://127.0.0.1:*'
use_broker broker
start proxy "$proxy" "${TREADLE_BROKER##*:}"
proxy_pid=$last_pid
eventually 5 has_line "$work/proxy.log" '^listening ' || fail "the proxy does not come up"
through=$(sed -n 's/^listening //p' "$work/proxy.log")

cat >handler <<'HANDLER'
#!/bin/sh
echo "$TREADLE_LEASE" >>starts
sleep 1.5
echo "$TREADLE_DISPATCH"
HANDLER
chmod +x handler

step "four tasks run on a worker behind a proxy"
start_worker cut hold.on --slots 4 --broker "$through" -- ./handler
ids=()
for number in 1 2 3 4; do
    cli submit hold.on "$number"
    then_exit 0
    ids+=("$(cat "$out")")
done
has_four_starts() { [[ -e starts && $(wc -l <starts) -eq 4 ]]; }
eventually 5 has_four_starts || fail "not all four started"

step "its connection is cut and comes back"
kill -USR1 "$proxy_pid"
is_resumed() { [[ $("$bin/treadle" stats --json | json_field sessions_resumed) -ge 1 ]]; }
eventually 3 is_resumed || fail "the session was not resumed: $("$bin/treadle" stats)"

step "each ends at its first dispatch; none was lost, none ran twice"
for id in "${ids[@]}"; do
    cli task wait "$id" --wait 10s
    then_exit 0
    then_stdout_is 1
done
[[ $(wc -l <starts) -eq 4 ]] || fail "$(wc -l <starts) starts of four tasks"
cli stats --json
for counter in attempts_lost attempts_returned late sessions_lost; do
    [[ $(json_field "$counter" <"$out") -eq 0 ]] || fail "$counter is not 0"
done
