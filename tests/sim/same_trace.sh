#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# The same seeds give the same histories, and other seeds others, by the trace hash.
#
# usage: same_trace.sh PROGRAM
set -eu
trace() {
    "$1" --seed "$2" --seeds 20 | sed -n 's/.*trace \([0-9a-f]*\)$/\1/p'
}
first=$(trace "$1" 500)
second=$(trace "$1" 500)
other=$(trace "$1" 600)
if [ -z "$first" ] || [ "$first" != "$second" ]; then
    echo "same_trace: the same seeds gave '$first' and '$second'"
    exit 1
fi
if [ "$first" = "$other" ]; then
    echo "same_trace: other seeds gave the same trace '$first'"
    exit 1
fi
echo "same_trace: $first twice"
