#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# The program that opens plugins exports each public function, for plugins to call.
#
# usage: plugin_symbols.sh PROGRAM HEADER...
set -eu
here=$(dirname "$0")
program=$1
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sh "$here/public_functions.sh" "$@" >"$work/declared"
nm -D --defined-only "$program" | awk '{print $NF}' | sort -u >"$work/exported"
if [ ! -s "$work/declared" ]; then
    echo "plugin_symbols: no function is marked TREADLE_API in: $*"
    exit 1
fi
not_exported=$(comm -23 "$work/declared" "$work/exported")
for name in $not_exported; do
    echo "plugin_symbols: $name is public, but $program does not export it to its plugins"
done
if [ -n "$not_exported" ]; then
    exit 1
fi
echo "plugin_symbols: $(wc -l <"$work/declared") functions"
