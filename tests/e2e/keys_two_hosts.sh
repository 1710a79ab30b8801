#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# The README's first five minutes with keys, as they stand there: its commands and files are taken out
# of it and run on the hosts that they name. The hosts are two network namespaces with a cable between
# them, in which whatever goes over the cable is looked at. Where no such may be made they are two home
# directories on the loopback, and nothing is looked at.
#
#   keys_two_hosts.sh BIN README TESTS
set -uo pipefail

if [[ -z ${TREADLE_TEST_HOSTS:-} ]]; then
    own=(unshare --net --mount)
    if [[ $EUID -ne 0 ]]; then
        own+=(--user --map-root-user)
    fi
    if "${own[@]}" ip link add probe0 type veth peer name probe1 2>/dev/null; then
        TREADLE_TEST_HOSTS=namespaces exec "${own[@]}" bash "$0" "$@"
    fi
    TREADLE_TEST_HOSTS=homes
fi
hosts=$TREADLE_TEST_HOSTS

# shellcheck source=tests/e2e/support.sh
source "$(dirname "$0")/support.sh"
cd "$OLDPWD" || exit 1
readme=$(realpath "$2")
tests=$(cd "$3" && pwd) || exit 1
cd "$work" || exit 1
declare -A enter digits pids
mkdir hub farm programs

# Whether a process has left the network namespace of this one.
is_elsewhere() { # PID
    [[ $(readlink "/proc/$1/ns/net") != "$(readlink /proc/$$/ns/net)" ]]
}

given_two_namespaces() {
    start farm-net unshare --net sleep infinity
    local farm=$last_pid
    eventually 5 is_elsewhere "$farm" || fail "no namespace for farm"
    {
        ip link add hub0 type veth peer name farm0 netns "$farm" &&
            ip address add 10.73.0.1/24 dev hub0 && ip link set lo up && ip link set hub0 up &&
            nsenter --net --target "$farm" ip address add 10.73.0.2/24 dev farm0 &&
            nsenter --net --target "$farm" ip link set farm0 up
    } || fail "no cable between the hosts"
    given_a_file hosts '127.0.0.1 localhost' '10.73.0.1 hub' '10.73.0.2 farm'
    mount --bind hosts /etc/hosts || fail "hub has no name"
    enter[farm]="nsenter --net --target $farm"
    start tap "$tests/wire_tap" hub0 "$work/wire"
    eventually 5 has_line tap.log '^listening hub0$' || fail "the cable cannot be looked at"
}

# `scp hub:FILE... DIRECTORY` between the two homes; all that ever goes from one host to the other.
cat >programs/scp <<'EOF'
#!/usr/bin/env bash
for file in "${@:1:$#-1}"; do
    echo "${file#hub:}" >>"$work/copied"
    cp "$work/hub/${file#hub:}" "${@: -1}" || exit 1
done
EOF
chmod +x programs/scp
export work

# A command line of the README, at home on that host.
given_line() { # HOST LINE...
    local host=$1
    shift
    # shellcheck disable=SC2206 # words
    command=(${enter[$host]:-} env "HOME=$work/$host" "PATH=$work/programs:$bin:$PATH" bash -c "cd && $*")
}

on() { # HOST LINE...
    local -a command
    given_line "$@"
    "${command[@]}" >"$out" 2>"$err" </dev/null
    code=$?
}

# In the background, as $work/NAME.log.
start_on() { # HOST NAME LINE...
    local -a command
    given_line "$1" exec "${@:3}"
    start "$2" "${command[@]}"
    pids[$2]=$last_pid
}

is_serving() { # LOG
    has_line "$1" '^treadle work: serving '
}

# Of two homes on the loopback, who can only know the port once the broker has it.
tell_port() {
    local host
    sed -i "s|^broker = .*|broker = \"$(sed -n 's/^listening //p' broker.log)\"|" ./*/.config/treadle/treadle.conf
    for host in hub farm; do
        on "$host" grep -q '127.0.0.1:[0-9]' .config/treadle/treadle.conf
        then_exit 0
    done
}

then_doctor_says() { # FACT[; FACT, FACT...]
    local facts fact
    IFS=';,' read -ra facts <<<"$1"
    for fact in "${facts[@]}"; do
        tr -s ' ' <"$out" | grep -qF -- "${fact# }" || fail "doctor does not say '${fact# }'"
    done
    answers=$((answers + ${#facts[@]}))
}

# Runs one line, as the words behind its `#` say: what it prints, or that it is refused.
run_line() { # HOST LINE
    local host=$1 line comment=""
    read -r line <<<"${2%%  # *}"
    [[ $2 == *'  # '* ]] && comment=${2##*  # }
    echo "  $host\$ $line"
    case $line in
    *--check-config*) ;;
    treadled*)
        start_on "$host" broker "$line"
        eventually 10 has_line broker.log '^listening tcp://' || fail "the broker does not start"
        [[ $hosts == namespaces ]] || tell_port
        return
        ;;
    'treadle work '*)
        start_on "$host" worker "$line"
        eventually 10 is_serving worker.log || fail "the worker does not come up"
        return
        ;;
    esac
    on "$host" "$line"
    if [[ $comment == refused* ]]; then
        then_exit 77
        return
    fi
    then_exit 0
    if [[ $comment =~ [A-Z]+-DIGITS$ ]]; then
        digits[${BASH_REMATCH[0]}]=$(cat "$out")
    elif [[ $comment =~ ^[0-9]+$ ]]; then
        then_stdout_is "$comment"
        answers=$((answers + 1))
    elif [[ $line == 'treadle doctor' ]]; then
        then_doctor_says "$comment"
    fi
}

# Writes a file of the README, with the digits in their places.
write_file() { # HOST PATH LINE...
    local path=$work/$1/${2#'~/'} text name
    text=$(printf '%s\n' "${@:3}")
    for name in "${!digits[@]}"; do
        text=${text//$name/${digits[$name]}}
    done
    [[ $hosts == namespaces ]] || text=${text//0.0.0.0:7330/127.0.0.1:*}
    echo "  $1: $2"
    printf '%s\n' "$text" >"$path"
}

# One block between fences: a file, or commands.
run_block() { # LINE...
    local line
    if [[ $1 =~ ^'# '(hub|farm)': '(.*)$ ]]; then
        write_file "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" "${@:2}"
    elif [[ $1 =~ ^'# on '(hub|farm)$ ]]; then
        for line in "${@:2}"; do
            run_line "${1#'# on '}" "$line"
        done
    else
        fail "not said where this is: $1"
    fi
}

run_section() { # TITLE
    local line is_open="" block=() block_count=0
    while IFS= read -r line; do
        if [[ $line != '```' ]]; then
            [[ -n $is_open ]] && block+=("$line")
            continue
        fi
        if [[ -n $is_open ]]; then
            run_block "${block[@]}"
            block_count=$((block_count + 1))
            block=() is_open=
        else
            is_open=yes
        fi
    done < <(awk -v title="## $1" '$0 == title {is_in = 1; next} /^## / {is_in = 0} is_in' "$readme")
    ((block_count >= 6)) || fail "only $block_count blocks in '$1'"
}

if [[ $hosts == namespaces ]]; then
    step "two hosts: network namespaces with a cable between them"
    given_two_namespaces
else
    step "two hosts: NO network namespaces here, so two homes on the loopback; the wire is not looked at"
fi

step "what the README says"
answers=0
run_section "The first five minutes with keys, on two hosts"
((answers >= 5)) || fail "only $answers answers were compared"
[[ ${#digits[@]} -eq 2 ]] || fail "not two keys of peers"

step "no secret key has left its host, and nothing but public keys went over"
secret_of() { # FILE
    sed -n 's/.*secret-key = "\(.*\)"/\1/p' "$1"
}
sort copied >copied.sorted
[[ $(cat copied.sorted) == $'.config/treadle/server.pub\n.config/treadle/treadle.conf' ]] ||
    fail "copied: $(cat copied)"
for file in hub/mesh/server.key hub/.config/treadle/identity.key farm/.config/treadle/identity.key; do
    secret=$(secret_of "$file")
    [[ ${#secret} -eq 40 ]] || fail "no secret in $file"
    [[ $(grep -rlFf - hub farm <<<"$secret") == "$file" ]] || fail "the secret of $file stands elsewhere"
done

step "bodies and results cross encrypted"
start_on farm echo treadle work wc.echo -- cat
eventually 10 is_serving echo.log || fail "the second worker does not come up"
canary="canary-in-a-body"
for _ in {1..100}; do
    printf '%s ' "$canary"
done >hub/body
on hub 'treadle run wc.echo @body'
then_exit 0
cmp -s "$out" hub/body || fail "another result"
if [[ $hosts == namespaces ]]; then
    control="canary-in-the-clear" # whoever writes it to the broker has no keys, and is cut off
    on farm "echo $control >/dev/tcp/hub/7330"
    eventually 5 grep -qaF "$control" wire || fail "the cable is not looked at"
    grep -qaF CURVE wire || fail "no handshake of CURVE went over the cable"
    [[ $(stat -c %s wire) -gt $((2 * $(stat -c %s hub/body))) ]] || fail "the body did not go over the cable"
    ! grep -qaF "$canary" wire || fail "the body went over the cable in the clear"
fi

step "the farm's key is revoked: out at once, and told why"
good=$(cat hub/mesh/principals)
grep -v '^principal "farm"' <<<"$good" >hub/mesh/principals
kill -HUP "${pids[broker]}"
eventually 5 has_line broker.log "auth[.]refused key=\"?${digits[FARM-DIGITS]:0:16}" || fail "not refused"
is_farm_gone() {
    on hub 'treadle worker ls --json'
    ! grep -q '"connected": true' "$out"
}
eventually 10 is_farm_gone || fail "the farm still works"
on farm 'treadle doctor'
then_exit 77
then_one_message 'does not admit this key'

step "and admitted again: it comes back by itself"
printf '%s\n' "$good" >hub/mesh/principals
kill -HUP "${pids[broker]}"
on hub "treadle run wc.count 'one two' --worker-wait 10s"
then_exit 0
then_stdout_is 2

step "farm still has the key of a broker that is no more"
on hub 'mkdir old && treadle key gen server --dir old'
then_exit 0
cp hub/old/server.pub farm/old.pub
on farm 'treadle doctor --server-key old.pub'
then_exit 78
then_one_message 'another server key'
