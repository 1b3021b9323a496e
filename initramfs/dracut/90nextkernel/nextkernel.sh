#!/bin/sh
# dracut's /shutdown sources this in a subshell: again and again until it succeeds, and once more with "final" as its
# argument or, in every version that was read (059 to 111), as $final.
# What closes LUKS, LVM and arrays is called in the same way, and may succeed later than its turn.

nextkernel_storage_is_open() {
    for device in /sys/block/dm-*; do
        [ -e "$device" ] && return 0
    done
    for device in /sys/block/md*/md/array_state; do
        # An array that is stopped may leave its name behind.
        [ -e "$device" ] && read -r state < "$device" && [ "$state" != clear ] && return 0
    done
    while read -r _ point _; do
        case $point in
            /oldroot | /oldroot/*) return 0 ;;
        esac
    done < /proc/mounts
    return 1
}

# shellcheck disable=SC2154 # dracut sets final
if nextkernel_storage_is_open; then
    [ "${final:-$1}" = final ] || return 1
    warn "nextkernel: the old root could not be closed"
else
    info "nextkernel: the old root is closed"
fi

# Comes back only where there is nothing to jump to; then the rest is dracut's, and it is not to be asked again.
/usr/lib/systemd/system-shutdown/nextkernel "$ACTION"
return 0
