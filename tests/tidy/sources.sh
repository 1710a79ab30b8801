#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Prints every first-party C source and header below ROOT, one a line, relative to it.
#
# usage: sources.sh ROOT
set -eu
cd "$1"
for folder in common broker worker client tests bench docs/examples; do
    if [ -d "$folder" ]; then
        find "$folder" -type f \( -name '*.c' -o -name '*.h' \)
    fi
done | sort
