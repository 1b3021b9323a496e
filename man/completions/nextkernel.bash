
# What is no option: an entry, which `nextkernel entries` alone knows, or a folder.
_nextkernel_and_entries() {
    local before name typed="${COMP_LINE:0:COMP_POINT}"
    typed="${typed##*[[:space:]]}"
    if [[ ${COMP_CWORD} -eq 1 || ${typed} == -* || " @VALUED@ " == *" $3 "* ||
        ${COMP_WORDS[*]} =~ ' '(@INSTEAD@)' ' ]]; then
        _nextkernel "$@"
        return
    fi
    case "${COMP_WORDS[1]}" in
        @ENTRY@)
            compopt -o filenames +o default +o bashdefault 2>/dev/null
            # A name may be several words to readline, which asks for the end of the last.
            before="${typed%"$2"}"
            typed="${typed//[\\\'\"]/}"
            COMPREPLY=()
            while IFS=$'\t' read -r name _; do
                [[ ${name} == "${typed}"* ]] && COMPREPLY+=("${name#"${before}"}")
            done < <(nextkernel entries --names </dev/null 2>/dev/null)
            ;;
        @FOLDER@)
            compopt -o filenames 2>/dev/null
            local IFS=$'\n'
            COMPREPLY=($(compgen -d -- "$2"))
            ;;
        *)
            _nextkernel "$@"
            ;;
    esac
}

complete -F _nextkernel_and_entries -o nosort -o bashdefault -o default nextkernel 2>/dev/null ||
    complete -F _nextkernel_and_entries -o bashdefault -o default nextkernel
