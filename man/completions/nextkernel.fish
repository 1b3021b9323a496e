
# What is no option: an entry, which `nextkernel entries` alone knows, or a folder.
complete -c nextkernel -n "__fish_nextkernel_using_subcommand @ENTRY@; and not string match -qr '^(@INSTEAD@)' -- (commandline -opc)" -f -k -a "(nextkernel entries --names </dev/null 2>/dev/null)"
complete -c nextkernel -n "__fish_nextkernel_using_subcommand @FOLDER@" -f -a "(__fish_complete_directories)"
