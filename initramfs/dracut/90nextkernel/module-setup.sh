#!/bin/bash
# nextkernel-hook in dracut's initramfs, which is unpacked at shutdown and is then the exitrd.

hook=/usr/lib/systemd/system-shutdown/nextkernel

# called by dracut
check() {
    require_binaries "$hook"
}

# called by dracut
depends() {
    echo shutdown
}

# called by dracut
install() {
    # At this path the hook on the host sees that it is here, and leaves the work to it.
    inst "$hook"
    # shellcheck disable=SC2154 # dracut sets moddir
    inst_hook shutdown 99 "$moddir/nextkernel.sh"
}
