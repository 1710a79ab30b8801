#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Every verb has a page in docs/man, which names it and each of its options; and no page names an
# option that none of its verbs has.
#
#   verbs_documented.sh TREADLE DOCS
set -euo pipefail

treadle=$1
docs=$2
failed=0
declare -A known=() # options of each page, as " --a --b "

complain() {
    echo "verbs_documented: $1" >&2
    failed=1
}

page_of() { # VERB
    case ${1%% *} in
    help | version) echo treadle ;;
    *) echo "treadle-${1%% *}" ;;
    esac
}

while IFS= read -r verb; do
    page=$(page_of "$verb")
    file=$docs/man/$page.1
    if [[ ! -f $file ]]; then
        complain "'$verb' has no page docs/man/$page.1"
        continue
    fi
    grep -Eq "^\.(It )?Cm $verb\$" "$file" || complain "$page.1 does not name the verb '$verb'"
    while IFS= read -r option; do
        [[ $option == --help ]] && continue
        known[$page]+=" $option "
        grep -Eq -- "Fl -${option#--}( |\$)" "$file" || complain "$page.1 has no $option of '$verb'"
    done < <("$treadle" help $verb | grep -oE '^ +(-., )?--[a-z-]+' | grep -oE -- '--[a-z-]+$')
done < <("$treadle" help | sed -nE 's/^  ([a-z]+( [a-z]+)?)  .*/\1/p')

for page in "${!known[@]}"; do
    while IFS= read -r option; do
        [[ ${known[$page]} == *" $option "* ]] || complain "$page.1 has $option, and no verb of it does"
    done < <(sed -nE 's/^\.It .*Fl -([a-z-]+).*/--\1/p' "$docs/man/$page.1")
done

if ((${#known[@]} < 8)); then
    complain "only ${#known[@]} pages have options: the verbs were not read"
fi
exit "$failed"
