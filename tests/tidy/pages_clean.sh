#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# The manual pages are clean for mandoc.
#
# usage: pages_clean.sh PAGE...
set -eu
if ! command -v mandoc >/dev/null; then
    echo "pages_clean: mandoc is not installed: run script/bootstrap"
    exit 77
fi
mandoc -Tlint -W warning "$@"
echo "pages_clean: $# pages"
