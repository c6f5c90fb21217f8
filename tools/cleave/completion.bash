# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Completion of cleave(1) for bash: commands, their options, and the names of the domains there are; of pool what it
# does, and the names of pools.
_cleave() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} words
    if [ "$word" = = ]; then # --option=, of which bash makes three words
        word=
    elif [ "$before" = = ]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case $before in
    --data | --data-dir | --kernel | --initrd | -o | --output | --svg)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --reserve)
        mapfile -t COMPREPLY < <(compgen -W all -- "$word")
        return
        ;;
    -n | --count | --limit | --timeout | --cmdline | --memory | --vcpus | --pool | --name | -d | --delay | --times) return ;;
    esac
    if [ "$COMP_CWORD" = 1 ] || { [ "$COMP_CWORD" = 2 ] && [ "$command" = help ]; }; then
        words="$(cleave --help 2>/dev/null | sed -n 's/^  \([a-z]*\) .*/\1/p') help"
    elif [ "${word#-}" != "$word" ]; then
        words="$(cleave help "$command" 2>/dev/null |
            sed -n 's/^ *\(-[a-z], \)\{0,1\}\(--[a-z-]*\).*/\2/p') --json --help"
    elif [ "$command" = pool ] && [ "$COMP_CWORD" = 2 ]; then
        words=$(cleave help pool 2>/dev/null | sed -n '1s/.*]\(\.\.\.\)\{0,1\} \(.*\):.*/\2/p' | tr '|' '\n' | awk '{ print $1 }')
    elif [ "$command" = pool ]; then
        case $before in
        resize | delete) words=$(cleave pool list 2>/dev/null | awk '$1 ~ /^[0-9]+$/ { print $2 }') ;;
        *) return ;;
        esac
    else
        words=$(cleave list 2>/dev/null | awk 'NR > 1 { print $2 }')
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _cleave cleave
