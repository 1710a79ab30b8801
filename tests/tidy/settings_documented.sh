#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# treadle.conf(5) has each key of the table in settings.c, in its order, and no other.
#
# usage: settings_documented.sh SETTINGS.c TREADLE.CONF.5
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sed -n 's/^ *\[KEY_[A-Z_]*\] = {"\([a-z_]*\)", .*/\1/p' "$1" >"$work/table"
sed -n 's/^\.It Ic //p' "$2" >"$work/page"
if [ ! -s "$work/table" ]; then
    echo "settings_documented: no key in $1"
    exit 1
fi
if ! diff -u "$work/table" "$work/page"; then
    echo "settings_documented: $2 does not tell the keys of $1 (-: the table, +: the page)"
    exit 1
fi
echo "settings_documented: $(wc -l <"$work/table") keys"
