#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# task show, ls, explain, cancel: what they say and the fields of their JSON.
source "$(dirname "$0")/support.sh"
start_broker

step "show: every field"
cli submit wc.count 'a b' --priority 7 --tag red --tag 'not so red' --meta colour=blue \
    --attempts 3 --backoff 2s,3,10s --timeout 20s --result-ttl 5m --delay 1h
then_exit 0
id=$(cat "$out")
cli task show "$id" --json
then_exit 0
for field in "\"id\": \"$id\"" '"service": "wc"' '"task": "count"' '"state": "scheduled"' \
    '"reason": "delay"' '"priority": 7' '"attempts_max": 3' '"dispatches": 0' '"retry_index": 0' \
    '"retry_sequence": 0' '"red"' '"not so red"' '"colour": "blue"' '"settled_at": null' \
    '"attempts_max": \{' '"timeout_ms": \{' '"value": 20000' '"origin": "submission"' \
    '"origin": "default"' '"attempts": \[\]' '"body_size": 3' \
    '"submitted_at": "20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9][.][0-9]{3}Z"'; do
    then_stdout_has "$field"
done
[[ $(head -c 1 "$out") == '{' ]] || fail "show is not an object"
if command -v python3 >/dev/null && python3 -c 0 2>/dev/null; then
    python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$out" || fail "not one JSON document"
fi
cli task show "$id"
then_exit 0
then_stdout_has '^task +wc[.]count$'
then_stdout_has '^timeout_ms +20000 +submission$'

step "explain: the delay"
cli task explain "$id"
then_exit 0
then_stdout_has "^$id waits for its delay until 20.* \(another (1h|60m|59m|35[0-9][0-9]s)"
cli task explain "$id" --json
then_stdout_has '"reason": "delay"'
then_stdout_has '"reason_left_ms": 3[56][0-9]{5}'

step "cancel a waiting task"
cli task cancel "$id"
then_exit 0
then_stderr_has "$id is cancelled"
is_state "$id" cancelled || fail "not cancelled at once"
cli task cancel "$id"
then_exit 0
then_stderr_has "$id has settled already"
cli task wait "$id"
then_exit 1
then_stderr_has '^wc[.]count cancelled'
cli task explain "$id"
then_stdout_has "$id does not wait: it has been cancelled"

step "ls: states, services, limits, pages"
for number in 1 2 3 4 5; do
    cli submit wc.count "$number" --delay 1h
    then_exit 0
done
cli submit other.thing x --delay 1h
cli task ls --json
then_exit 0
[[ $(head -c 1 "$out") == '[' ]] || fail "ls is not an array"
[[ $(grep -c '"id"' "$out") -eq 7 ]] || fail "not 7 tasks"
then_stdout_has '"dispatches": 0'
[[ $(grep -c '"policy"' "$out") -eq 0 ]] || fail "ls shows the history"
cli task ls --json --service wc --state scheduled
[[ $(grep -c '"id"' "$out") -eq 5 ]] || fail "not 5 scheduled tasks of wc"
cli task ls --json --service nobody
then_exit 66
then_one_message 'no such service: nobody'
cli task ls --limit 2 --json
[[ $(grep -c '"id"' "$out") -eq 2 ]] || fail "not 2 tasks"
then_stderr_has 'the first 2; there may be more'
cli task ls
then_exit 0
then_stdout_has '^ID +TASK +STATE'
[[ $(wc -l <"$out") -eq 8 ]] || fail "not a heading and 7 rows"

step "a running task: show, explain, cancel"
start_worker sleeper nap.long --grace 100ms -- sleep 30
cli submit nap.long
id=$(cat "$out")
then_state "$id" running
cli task show "$id" --json
then_stdout_has '"worker": "sleeper"'
then_stdout_has '"reason": null'
cli task explain "$id"
then_stdout_has "$id does not wait: it runs on worker sleeper"
cli task cancel "$id"
then_exit 0
then_stderr_has "$id runs; its worker is told to stop"
then_state "$id" cancelled

step "text that is not UTF-8 is repaired"
start_worker latin latin.fail -- sh -c 'printf "caf\351 \033[31m\n" >&2; exit 1'
cli run latin.fail --attempts 1
then_exit 1
then_stderr_has 'caf'
[[ $(tr -d '\n' <"$err" | LC_ALL=C grep -c "$(printf '\033')") -eq 0 ]] || fail "an escape came through"
id=$(sed -n 's/^task \([0-9a-f-]*\)$/\1/p' "$err")
cli task show "$id" --json
then_exit 0
grep -q "\"message\": \"caf$(printf '\357\277\275')" "$out" || fail "no U+FFFD"

step "a body over what this broker admits"
head -c 4194305 /dev/zero >big
cli run wc.count @big
then_exit 65
then_one_message "run: wc.count: the body is over the limit of 4194304 bytes"
