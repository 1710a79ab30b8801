#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Completion in a shell offers the verbs and options that there are.
source "$(dirname "$0")/support.sh"

# complete_words WORD...: what the last word may become, on one line.
complete_words() {
    COMP_WORDS=(treadle "$@")
    COMP_CWORD=$#
    COMPREPLY=()
    _treadle
    echo "${COMPREPLY[*]}"
}

complete() { :; } # a shell without readline has none
cli completion bash
then_exit 0
source "$out"

step "verbs, and the second words of those that have two"
[[ $(complete_words ru) == run ]] || fail "ru: $(complete_words ru)"
[[ $(complete_words task sh) == show ]] || fail "task sh: $(complete_words task sh)"
[[ " $(complete_words task '') " == *" cancel explain ls "* ]] || fail "task: $(complete_words task '')"

step "options of the verb, and only those"
[[ $(complete_words run demo.upper --dead) == --deadline ]] || fail "run --dead"
[[ -z $(complete_words version --dead) ]] || fail "version has no --deadline"

step "files, also behind the @ of a body"
touch notes.txt
[[ $(complete_words map demo.upper --joblog no) == notes.txt ]] || fail "--joblog no"
[[ $(complete_words run demo.upper @no) == @notes.txt ]] || fail "@no: $(complete_words run demo.upper @no)"
[[ $(complete_words run demo.upper @ no) == @notes.txt ]] || fail "@ no, as bash breaks it"

step "every verb is there in each shell's script"
for shell in bash zsh fish; do
    cli completion "$shell"
    script=$(cat "$out")
    while read -r verb _; do
        [[ $script == *"${verb##* }"* ]] || fail "$shell does not know $verb"
    done < <("$bin/treadle" help | sed -n 's/^  \([a-z]*\( [a-z]*\)\?\)  .*/\1/p')
done

step "another shell is named as unknown"
cli completion tcsh
then_exit 64
then_one_message "'tcsh' is not one of bash, fish, zsh"
