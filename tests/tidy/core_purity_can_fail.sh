#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# A test of the test: a core with one clock call added must fail core_purity.sh by that call's name.
#
# usage: core_purity_can_fail.sh CC ALLOWED CORE.a [LIBRARY.a ...]
set -eu
here=$(dirname "$0")
compiler=$1
allowed=$2
core=$3
shift 3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/impure.c" <<'SOURCE'
#define _GNU_SOURCE
#include <time.h>
long core_impure_now(void);
long core_impure_now(void)
{
    struct timespec now;
    return clock_gettime(CLOCK_MONOTONIC, &now) == 0 ? (long)now.tv_sec : 0;
}
SOURCE
"$compiler" -std=c17 -fPIC -c -o "$work/impure.o" "$work/impure.c"
cp "$core" "$work/core.a"
ar r "$work/core.a" "$work/impure.o"

if output=$(sh "$here/core_purity.sh" "$allowed" "$work/core.a" "$@"); then
    echo "core_purity_can_fail: a core that reads the clock passed:"
    echo "$output"
    exit 1
fi
case $output in
*"forbidden symbol clock_gettime, used in: impure.o"*) echo "$output" ;;
*)
    echo "core_purity_can_fail: it failed, but did not name clock_gettime:"
    echo "$output"
    exit 1
    ;;
esac
