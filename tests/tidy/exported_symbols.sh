#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# libtreadle exports what the installed headers mark TREADLE_API, no more and no less.
#
# usage: exported_symbols.sh LIBTREADLE.so HEADER...
set -eu
here=$(dirname "$0")
library=$1
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sh "$here/public_functions.sh" "$@" >"$work/declared"
# Names that begin with an underscore are the toolchain's (sanitizers, coverage, _init).
nm -D --defined-only "$library" | awk '{print $NF}' | sed 's/@.*//' | grep -v '^_' | sort -u >"$work/exported"

if [ ! -s "$work/declared" ]; then
    echo "exported_symbols: no function is marked TREADLE_API in: $*"
    exit 1
fi
not_exported=$(comm -23 "$work/declared" "$work/exported")
not_declared=$(comm -13 "$work/declared" "$work/exported")
for name in $not_exported; do
    echo "exported_symbols: $name is declared TREADLE_API, but $library does not export it"
done
for name in $not_declared; do
    echo "exported_symbols: $name is exported, but no installed header marks it TREADLE_API"
done
if [ -n "$not_exported$not_declared" ]; then
    exit 1
fi
echo "exported_symbols: $(wc -l <"$work/declared") functions"
