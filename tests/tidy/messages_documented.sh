#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Each MESSAGE of messages.def has a section in the protocol's page, under a heading with its name.
#
# usage: messages_documented.sh MESSAGES.def PROTOCOL.md
set -eu
table=$1
page=$2
status=0

names=$(sed -n 's/^[[:space:]]*MESSAGE[[:space:]]*([[:space:]]*\([A-Za-z0-9_]*\).*/\1/p' "$table")
if [ -z "$names" ]; then
    echo "messages_documented: no MESSAGE(...) in $table"
    exit 1
fi
if [ ! -f "$page" ]; then
    echo "messages_documented: $page does not exist"
    exit 1
fi
for name in $names; do
    if ! grep -qiE "^#+ (.*[^A-Za-z0-9_])?$name([^A-Za-z0-9_].*)?$" "$page"; then
        echo "messages_documented: $page has no heading with the message $name"
        status=1
    fi
done
if [ $status -eq 0 ]; then
    echo "messages_documented: $(echo "$names" | wc -l) messages"
fi
exit $status
