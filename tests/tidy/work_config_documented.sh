#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# treadle-work.conf(5) has each key and each section of the worker's configuration, and no other.
#
# usage: work_config_documented.sh WORKER/RUNNER/CONFIG.c TREADLE-WORK.CONF.5
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

{
    sed -nE 's/^ +\[(KEY_|POLICY\().*\] = \{"([a-z_]+)".*/key \2/p' "$1"
    sed -nE 's/^ +\{"([a-z_]+)", PLACE_.*/section \1/p' "$1"
} | sort >"$work/table"
{
    sed -nE 's/^\.It Ic ([a-z_]+)$/key \1/p' "$2"
    sed -nE 's/^\.It Cm ([a-z_]+) .*/section \1/p' "$2"
} | sort >"$work/page"
if [ "$(wc -l <"$work/table")" -lt 10 ]; then
    echo "work_config_documented: the keys of $1 were not found"
    exit 1
fi
if ! diff -u "$work/table" "$work/page"; then
    echo "work_config_documented: $2 does not tell the keys of $1 (-: the table, +: the page)"
    exit 1
fi
echo "work_config_documented: $(wc -l <"$work/table") keys and sections"
