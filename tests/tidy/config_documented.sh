#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# treadled.conf(5) has each KEY of config.def, in its order, and says of the right ones that they are reloaded.
#
# usage: config_documented.sh CONFIG.def TREADLED.CONF.5
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# "name RELOADED" or "name FIXED", one a line
awk -F '[(,)] *' '/^KEY\(/ {
    reload = / RELOADED,/ ? "RELOADED" : "FIXED"
    gsub(/ /, "", $3)
    print $3, reload
}' "$1" >"$work/table"
awk '
    function tell() {if (name != "") print name, reload}
    /^\.Sh|^\.Ss/ {tell(); name = ""}
    /^\.It Ic / {tell(); name = $3; reload = "FIXED"}
    /; reloaded\.$/ {reload = "RELOADED"}
    END {tell()}
' "$2" >"$work/page"
if [ ! -s "$work/table" ]; then
    echo "config_documented: no KEY(...) in $1"
    exit 1
fi
if ! diff -u "$work/table" "$work/page"; then
    echo "config_documented: $2 does not tell the keys of $1 (-: the table, +: the page)"
    exit 1
fi
echo "config_documented: $(wc -l <"$work/table") keys"
