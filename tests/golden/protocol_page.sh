#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# The protocol's page lists the fields of each message and record as messages.def has them, in their order, and each
# message under its number.
#
# usage: protocol_page.sh MESSAGES.def PROTOCOL.md
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# "NAME (0xNN)" or "name", then its fields, one a line
awk '
    /^MESSAGE\(/ {split($0, part, /[(,)] */); print part[3] " (" part[4] ")"; next}
    /^RECORD\(/ {split($0, part, /[(,)] */); print part[2]; next}
    /^    [A-Z_]+\(/ {sub(/^ */, ""); split($0, part, /[(,)] */); print "    " part[2]}
' "$1" | sed 's/,$//' >"$work/wanted"
awk '
    /^## Messages/ {inside = 1}
    /^## Terms/ {inside = 0}
    inside && /^### / {print substr($0, 5)}
    inside && /^\| [a-z_]+ \|/ && $4 != "type" {print "    " $2}
' "$2" >"$work/page"

# Messages and records stand in different orders: sort them as blocks.
for list in wanted page; do
    awk '/^[^ ]/ {name = $0} {print name "\t" NR "\t" $0}' "$work/$list" |
        sort -t "$(printf '\t')" -k1,1 -k2,2n | cut -f3 >"$work/$list.sorted"
done
if ! diff -u "$work/wanted.sorted" "$work/page.sorted"; then
    echo "protocol_page: $2 does not list the fields of $1 (-: the table, +: the page)"
    exit 1
fi
echo "protocol_page: $(grep -c '^[^ ]' "$work/wanted") messages and records"
