#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# Of the broker only its transport knows the routing ids that libzmq gives: nothing else could tell
# them to a peer or to a log. Whoever knew one could guess the next, and end the process by taking it.
#
# usage: routing_ids_hidden.sh ROOT
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
known=broker/shell/transport.c
sources=$(sh "$here/sources.sh" . | grep '^broker/')

if ! grep -q routing_id "$known"; then
    echo "routing_ids_hidden: $known does not know them: what is looked for has another name"
    exit 1
fi
# shellcheck disable=SC2086 # a list of file names without spaces
others=$(grep -nE 'routing_id|ROUTING_ID' $sources | grep -v "^$known:" || test $? -eq 1)
if [ -n "$others" ]; then
    echo "routing_ids_hidden: only $known may know routing ids:"
    echo "$others"
    exit 1
fi
if grep -nE '(log_[a-z]+|snprintf|encoder_[a-z]+)\(.*routing_id' "$known"; then
    echo "routing_ids_hidden: a routing id is printed"
    exit 1
fi
echo "routing_ids_hidden: $(echo "$sources" | wc -l) files"
