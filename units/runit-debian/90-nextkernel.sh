# shellcheck shell=sh
# Debian's stage 3 sources this where /etc/runit/native.boot.run says so; elsewhere it runs sysvinit's scripts.
# shellcheck disable=SC2154 # stage 3 sets it, to the runlevel that sysvinit would be in
if [ "$LAST" = 6 ]; then
	/usr/lib/systemd/system-shutdown/nextkernel reboot
else
	/usr/lib/systemd/system-shutdown/nextkernel poweroff
fi
