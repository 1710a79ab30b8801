#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# The core is a pure state machine: no clock, no I/O, no allocation, no randomness, no threads.
#
# usage: core_purity.sh ALLOWED CORE.a [LIBRARY.a ...]
#
# Links the whole of CORE.a with what it takes from the libraries and fails on each symbol that is
# still undefined and not in ALLOWED (one shell pattern a line). A library's member that defines an
# allowed symbol is left out: what the pattern allows is the call, not what stands behind it.
set -eu
allowed=$1
core=$2
shift 2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

patterns=$(sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$allowed")
set -f # the patterns are for `case`, never for file names

is_allowed() {
    for pattern in $patterns; do
        # shellcheck disable=SC2254 # it is a pattern on purpose
        case $1 in
        $pattern) return 0 ;;
        esac
    done
    return 1
}

index=0
libraries=
for library in "$@"; do
    index=$((index + 1))
    copy=$work/$index.a
    cp "$library" "$copy"
    # "archive:member:value type name" of each global definition
    nm -A -g --defined-only "$library" 2>/dev/null |
        sed -n 's/^.*:\([^:]*\):[0-9a-f]* [TDBRVW] \(.*\)$/\1 \2/p' >"$work/defined"
    while read -r member symbol; do
        case $symbol in
        treadle_*) if is_allowed "$symbol"; then echo "$member"; fi ;;
        esac
    done <"$work/defined" | sort -u >"$work/left_out"
    while read -r member; do
        ar d "$copy" "$member"
    done <"$work/left_out"
    libraries="$libraries $copy"
done

# shellcheck disable=SC2086 # the copies have no spaces in their names but those of mktemp's folder
ld -r -o "$work/core.o" --whole-archive "$core" --no-whole-archive --start-group $libraries --end-group
nm -u "$work/core.o" | awk '{print $NF}' | sort -u >"$work/undefined"

forbidden=
while read -r symbol; do
    if ! is_allowed "$symbol"; then
        forbidden="$forbidden $symbol"
    fi
done <"$work/undefined"

if [ -n "$forbidden" ]; then
    for symbol in $forbidden; do
        users=$(for archive in "$core" "$@"; do nm -A -u "$archive" 2>/dev/null; done |
            awk -v symbol="$symbol" '$NF == symbol {n = split($1, part, ":"); print part[n - 1] ? part[n - 1] : part[n]}' |
            sort -u | tr '\n' ' ')
        echo "core_purity: forbidden symbol $symbol, used in: $users"
    done
    echo "core_purity: the core must stay pure; see docs/adr/0001-sans-io-core.md"
    exit 1
fi
if [ "$(nm -g --defined-only "$work/core.o" | wc -l)" -eq 0 ]; then
    echo "core_purity: $core defines nothing: was it built?"
    exit 1
fi
echo "core_purity: $(wc -l <"$work/undefined") undefined symbols, all allowed"
