#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Runs each seed of a list: a number, then what it had found; # begins a comment.
#
# usage: known_seeds.sh PROGRAM LIST
set -eu
program=$1
count=0
for seed in $(sed 's/#.*//' "$2" | awk 'NF {print $1}'); do
    "$program" --seed "$seed" >/dev/null
    count=$((count + 1))
done
if [ "$count" -eq 0 ]; then
    echo "known_seeds: no seed in $2"
    exit 1
fi
echo "known_seeds: $count seeds"
