#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Each public function stands in the NAME section of exactly one page of docs/man, and each name that
# such a page gives is a public function. The pages are clean for mandoc, if it is there.
#
# usage: functions_documented.sh ROOT HEADER...
set -eu
here=$(dirname "$0")
root=$1
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

sh "$here/public_functions.sh" "$@" >"$work/declared"
if [ ! -s "$work/declared" ]; then
    echo "functions_documented: no function is marked TREADLE_API in: $*"
    exit 1
fi
for page in "$root"/docs/man/*.3; do
    awk '/^\.Sh / { in_name = ($2 == "NAME") } in_name && $1 == ".Nm" { print $2 }' "$page"
done | sort >"$work/documented"

for name in $(sort -u "$work/documented" | comm -23 "$work/declared" -); do
    echo "functions_documented: $name() is public, and no page of docs/man has '.Nm $name'"
    status=1
done
for name in $(sort -u "$work/documented" | comm -13 "$work/declared" -); do
    echo "functions_documented: a page of docs/man has '.Nm $name', which is no public function"
    status=1
done
for name in $(uniq -d "$work/documented"); do
    echo "functions_documented: more than one page of docs/man has '.Nm $name'"
    status=1
done
# Another page refers to a function by the page that has it, or by its link of the same name.
for page in "$root"/docs/man/*.3; do
    for name in $(sed -n 's/^\.Xr \(treadle_[a-z0-9_]*\) 3.*/\1/p' "$page"); do
        if ! grep -qx "$name" "$work/documented"; then
            echo "functions_documented: $(basename "$page") refers to $name(3), which is not there"
            status=1
        fi
    done
    if command -v mandoc >/dev/null && ! mandoc -Tlint -W warning "$page" >"$work/lint"; then
        cat "$work/lint"
        status=1
    fi
done
if [ $status -eq 0 ]; then
    echo "functions_documented: $(wc -l <"$work/declared") functions"
fi
exit $status
