#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Prints the names of the functions marked TREADLE_API in the headers given, sorted, one a line.
#
# usage: public_functions.sh HEADER...
set -eu
awk '
function fail(text) { print "public_functions: " FILENAME ": " text > "/dev/stderr"; bad = 1 }
FNR == 1 { if (declaration != "") fail("no end of: " declaration); in_comment = 0; declaration = ""; directive = 0 }
{
    line = $0; code = ""
    while (line != "") {                     # drop comments
        if (in_comment) {
            at = index(line, "*/")
            if (at == 0) break
            line = substr(line, at + 2); in_comment = 0
        } else {
            block = index(line, "/*"); rest = index(line, "//")
            if (rest != 0 && (block == 0 || rest < block)) { code = code substr(line, 1, rest - 1); break }
            if (block == 0) { code = code line; break }
            code = code substr(line, 1, block - 1) " "; line = substr(line, block + 2); in_comment = 1
        }
    }
    if (directive || code ~ /^[ \t]*#/) { directive = (code ~ /\\$/); next }
    if (declaration == "" && code !~ /(^|[^A-Za-z0-9_])TREADLE_API([^A-Za-z0-9_]|$)/) next
    declaration = declaration " " code
    if (index(code, ";") == 0) next
    if (match(declaration, /treadle_[a-z0-9_]*[ \t]*\(/)) {
        name = substr(declaration, RSTART, RLENGTH)
        sub(/[ \t]*\($/, "", name)
        print name
    } else {
        fail("no function name in: " declaration)
    }
    declaration = ""
}
END { if (declaration != "") fail("no end of: " declaration); exit bad }
' "$@" | sort -u
