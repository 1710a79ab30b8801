#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Every first-party source is as .clang-format says. Exit 77 (skipped) without clang-format.
#
# usage: format.sh ROOT
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
if ! command -v clang-format >/dev/null; then
    echo "format: clang-format is not installed; script/bootstrap installs it"
    exit 77
fi
sources=$(sh "$here/sources.sh" .)
if [ -z "$sources" ]; then
    echo "format: no source found below $1"
    exit 1
fi
# shellcheck disable=SC2086 # a list of file names without spaces
if ! clang-format --dry-run -Werror $sources; then
    echo "format: run clang-format -i on the files named above"
    exit 1
fi
echo "format: $(echo "$sources" | wc -l) files"
