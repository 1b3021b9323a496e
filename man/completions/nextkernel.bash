
# What is no option: an entry, which `nextkernel entries` alone knows, or a folder.
_nextkernel_and_entries() {
    local before name command="${COMP_WORDS[1]}" typed="${COMP_LINE:0:COMP_POINT}"
    typed="${typed##*[[:space:]]}"
    if [[ ${COMP_CWORD} -eq 1 || ${typed} == -* || " @VALUED@ " == *" $3 "* ||
        ${COMP_WORDS[*]} =~ ' '(@INSTEAD@)' ' ]]; then
        command=
    fi
    case "${command}" in
        @ENTRY@)
            # A name may be several words to readline, which asks for the end of the last.
            before="${typed%"$2"}"
            typed="${typed//[\\\'\"]/}"
            COMPREPLY=()
            while IFS=$'\t' read -r name _; do
                [[ ${name} == "${typed}"* ]] || continue
                name="${name#"${before}"}"
                # What it means to the shell is taken from it, where no quote does that.
                [[ ${COMP_LINE:0:COMP_POINT} == *[\'\"]"${typed}" ]] || printf -v name %q "${name}"
                COMPREPLY+=("${name}")
            done < <(nextkernel entries --names </dev/null 2>/dev/null)
            ;;
        @FOLDER@)
            compopt -o filenames 2>/dev/null
            local IFS=$'\n'
            COMPREPLY=($(compgen -d -- "$2"))
            ;;
        *)
            compopt -o bashdefault -o default 2>/dev/null
            _nextkernel "$@"
            ;;
    esac
}

complete -F _nextkernel_and_entries -o nosort nextkernel 2>/dev/null || complete -F _nextkernel_and_entries nextkernel
