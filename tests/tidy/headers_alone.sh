#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Each installed header compiles alone, as C17 and as C++17, without a warning.
#
# usage: headers_alone.sh CC CXX ROOT HEADER...       (HEADER is below ROOT)
set -eu
c_compiler=$1
cxx_compiler=$2
root=$3
shift 3
status=0

if ! command -v "$cxx_compiler" >/dev/null; then
    echo "headers_alone: no C++ compiler '$cxx_compiler'; script/bootstrap installs one"
    exit 1
fi

compiles_alone() { # LANGUAGE HEADER COMPILER FLAG...
    language=$1
    header=$2
    shift 2
    if ! printf '#include <%s>\nextern int not_empty;\n' "$header" |
        "$@" -pedantic -Wall -Wextra -Werror -fsyntax-only -I"$root/common/include" \
            -I"$root/worker/include" -I"$root/client/include" -x "$language" -; then
        echo "headers_alone: <$header> does not compile alone as $language"
        status=1
    fi
}

for path in "$@"; do
    header=${path#*/include/}
    compiles_alone c "$header" "$c_compiler" -std=c17
    compiles_alone c++ "$header" "$cxx_compiler" -std=c++17
done
if [ $status -eq 0 ]; then
    echo "headers_alone: $# headers"
fi
exit $status
