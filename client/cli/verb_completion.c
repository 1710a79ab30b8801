/* SPDX-License-Identifier: MPL-2.0 */
/* completion: scripts that complete verbs, options and files in a shell, from the same tables that
 * the program reads its words with. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "client/cli/options.h"
#include "client/cli/verb_find.h"

/* ---- shared ---- */

static void print_verb_options(const struct verb *verb)
{
    for (int option = 0; option < OPTION_COUNT; option++) {
        if ((verb->options & OPTION_BIT(option)) != 0) {
            printf("--%s ", option_view((enum cli_option)option).name);
        }
    }
    fputs("--help", stdout);
}

/* An element of the shell's array for each verb: its name between two texts, its options, a quote.
 */
static void print_verbs_with_options(const char *before, const char *after)
{
    for (size_t i = 0; verb_at(i) != NULL; i++) {
        printf("        %s%s%s", before, verb_at(i)->name, after);
        print_verb_options(verb_at(i));
        fputs("\"\n", stdout);
    }
}

/* ---- bash ---- */

/* Options whose next word is theirs. */
static void print_bash_valued(void)
{
    const char *between = "";

    for (int option = 0; option < OPTION_COUNT; option++) {
        const struct option_view view = option_view((enum cli_option)option);

        if (view.argument != NULL) {
            printf("%s--%s", between, view.name);
            between = "|";
            if (view.letter != 0) {
                printf("|-%c", view.letter);
            }
        }
    }
}

static void print_bash(void)
{
    fputs("# Completion of treadle for bash: source <(treadle completion bash)\n"
          "_treadle() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb= i\n"
          "    local -A options=(\n",
          stdout);
    print_verbs_with_options("[\"", "\"]=\"");
    fputs("    )\n"
          "    COMPREPLY=()\n"
          "    for ((i = 1; i < COMP_CWORD && i < 3; i++)); do\n"
          "        [[ ${COMP_WORDS[i]} == -* ]] && break\n"
          "        verb+=${verb:+ }${COMP_WORDS[i]}\n"
          "        [[ -n ${options[$verb]+x} ]] && break\n"
          "    done\n"
          "    if [[ -z $verb || -z ${options[$verb]+x} ]]; then\n"
          "        local name rest\n"
          "        for name in \"${!options[@]}\"; do\n"
          "            [[ -z $verb || $name == \"$verb \"* ]] || continue\n"
          "            rest=${name#\"${verb:+$verb }\"}\n"
          "            [[ ${rest%% *} == \"$word\"* ]] && COMPREPLY+=(\"${rest%% *}\")\n"
          "        done\n"
          "        mapfile -t COMPREPLY < <(printf '%s\\n' \"${COMPREPLY[@]}\" | sort -u)\n"
          "        return\n"
          "    fi\n"
          "    case $before in\n"
          "    ",
          stdout);
    print_bash_valued();
    fputs(")\n"
          "        mapfile -t COMPREPLY < <(compgen -f -- \"$word\") ;;\n"
          "    *)\n"
          "        if [[ $word == -* ]]; then\n"
          "            mapfile -t COMPREPLY < <(compgen -W \"${options[$verb]}\" -- \"$word\")\n"
          "        elif [[ $word == @* || $before == @ ]]; then\n" /* bash may break words at it */
          "            mapfile -t COMPREPLY < <(compgen -P @ -f -- \"${word#@}\")\n"
          "        else\n"
          "            mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
          "        fi ;;\n"
          "    esac\n"
          "}\n"
          "complete -o filenames -F _treadle treadle\n",
          stdout);
}

/* ---- fish: a line for each verb and option ---- */

/* Text in single quotes. */
static void print_quoted(const char *text)
{
    putchar('\'');
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\') {
            putchar('\\');
        }
        putchar(*text);
    }
    putchar('\'');
}

static void print_fish_verb(const struct verb *verb)
{
    const char *space = strchr(verb->name, ' ');
    const int size = space != NULL ? (int)(space - verb->name) : (int)strlen(verb->name);

    if (space == NULL) {
        printf("complete -c treadle -n __fish_use_subcommand -f -a %s -d ", verb->name);
    } else {
        printf("complete -c treadle -n __fish_use_subcommand -f -a %.*s\n", size, verb->name);
        printf("complete -c treadle -n '__fish_seen_subcommand_from %.*s; "
               "and test (count (commandline -opc)) -eq 2' -f -a %s -d ",
               size, verb->name, space + 1);
    }
    print_quoted(verb->summary);
    putchar('\n');
    for (int option = 0; option < OPTION_COUNT; option++) {
        const struct option_view view = option_view((enum cli_option)option);

        if ((verb->options & OPTION_BIT(option)) == 0) {
            continue;
        }
        printf("complete -c treadle -n '__fish_seen_subcommand_from %.*s", size, verb->name);
        if (space != NULL) {
            printf("; and __fish_seen_subcommand_from %s", space + 1);
        }
        printf("' -l %s", view.name);
        if (view.letter != 0) {
            printf(" -s %c", view.letter);
        }
        fputs(view.argument != NULL ? " -r -d " : " -d ", stdout);
        print_quoted(view.help);
        putchar('\n');
    }
}

static void print_fish(void)
{
    puts("# Completion of treadle for fish: treadle completion fish | source");
    for (size_t i = 0; verb_at(i) != NULL; i++) {
        print_fish_verb(verb_at(i));
    }
}

/* ---- zsh ---- */

static void print_zsh(void)
{
    fputs("#compdef treadle\n"
          "# Completion of treadle for zsh: source <(treadle completion zsh)\n"
          "_treadle() {\n"
          "    local verb= name i\n"
          "    local -aU next\n"
          "    local -A options=(\n",
          stdout);
    print_verbs_with_options("\"", "\" \"");
    fputs("    )\n"
          "    for ((i = 2; i < CURRENT && i < 4; i++)); do\n"
          "        [[ $words[i] == -* ]] && break\n"
          "        verb+=${verb:+ }$words[i]\n"
          "        (( ${+options[$verb]} )) && break\n"
          "    done\n"
          "    if [[ -z $verb ]] || (( ! ${+options[$verb]} )); then\n"
          "        for name in ${(k)options}; do\n"
          "            [[ -z $verb || $name == \"$verb \"* ]] || continue\n"
          "            next+=(${${name#\"${verb:+$verb }\"}%% *})\n"
          "        done\n"
          "        compadd -a next\n"
          "    elif [[ $PREFIX == -* ]]; then\n"
          "        compadd -- ${=options[$verb]}\n"
          "    else\n"
          "        compset -P @\n" /* @FILE */
          "        _files\n"
          "    fi\n"
          "}\n"
          "compdef _treadle treadle\n",
          stdout);
}

/* ---- the verb ---- */

static enum cli_exit completion(const struct arguments *arguments)
{
    static const struct {
        const char *shell;
        void (*print)(void);
    } shells[] = {{"bash", print_bash}, {"fish", print_fish}, {"zsh", print_zsh}};

    for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++) {
        if (strcmp(arguments->words[0], shells[i].shell) == 0) {
            shells[i].print();
            return CLI_DONE;
        }
    }
    return cli_fail(CLI_USAGE, "completion: '%s' is not one of bash, fish, zsh",
                    arguments->words[0]);
}

const struct verb verb_completion = {
    .name = "completion",
    .words = "SHELL",
    .summary = "Print a script that completes verbs and options in bash, fish or zsh",
    .details =
        "For bash, in ~/.bashrc: source <(treadle completion bash). For zsh, after compinit in "
        "~/.zshrc: source <(treadle completion zsh). For fish, in "
        "~/.config/fish/config.fish: treadle completion fish | source",
    .words_min = 1,
    .words_max = 1,
    .run = completion,
};
