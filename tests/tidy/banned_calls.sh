#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# No first-party source calls a function that cannot be used safely.
#
# usage: banned_calls.sh ROOT ALLOWED
#
# A line of ALLOWED is "CALL FILE": the one file that may call it, and in a comment why.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$1
allowed=$2
status=0

sources=$(sh "$here/sources.sh" "$root")
if [ -z "$sources" ]; then
    echo "banned_calls: no source found below $root"
    exit 1
fi
cd "$root"
for call in strcpy strcat sprintf vsprintf strtok gets atoi atol rand srand; do
    # shellcheck disable=SC2086 # a list of file names without spaces
    files=$(grep -lE "(^|[^A-Za-z0-9_])${call}[[:space:]]*\(" $sources || test $? -eq 1)
    for file in $files; do
        if sed 's/#.*//' "$allowed" | awk -v call="$call" -v file="$file" \
            '$1 == call && $2 == file {found = 1} END {exit !found}'; then
            continue
        fi
        echo "banned_calls: $call() is banned, used in:"
        grep -nHE "(^|[^A-Za-z0-9_])${call}[[:space:]]*\(" "$file"
        status=1
    done
done
if [ $status -eq 0 ]; then
    echo "banned_calls: $(echo "$sources" | wc -l) files"
fi
exit $status
