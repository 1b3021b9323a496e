# shellcheck shell=sh
# Void's stage 3 sources this when / is read-only, before its own kexec. test -x would say no where /run is noexec.
if [ -n "$(find /run/runit/reboot -perm -u+x 2>/dev/null)" ]; then
	/usr/lib/systemd/system-shutdown/nextkernel reboot
else
	/usr/lib/systemd/system-shutdown/nextkernel poweroff
fi
