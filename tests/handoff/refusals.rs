//! Tests that a setup that would fail at shutdown, or that belongs to another system, is refused while the
//! system runs, with the reason.

use bed::harness::Test;

use super::kexec::{UNSTAGED, boot, refused};

const HOOK: &str = "/usr/lib/systemd/system-shutdown/nextkernel";

/// Makes one system extension with the hook, and one with another file.
const EXTENSIONS: &str = "
for name in hook other; do
    root=/var/lib/extensions/$name/usr/lib
    mkdir -p $root/extension-release.d $root/systemd/system-shutdown
    echo 'ID=_any' >$root/extension-release.d/extension-release.$name
done
touch /var/lib/extensions/other/usr/lib/other
cp -L /usr/lib/systemd/system-shutdown/nextkernel /var/lib/extensions/hook/usr/lib/systemd/system-shutdown/";

pub fn a_plain_system_has_nothing_bad_and_what_a_shutdown_would_not_find_is_refused(
    test: &Test,
) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok("nextkernel stage")?;
    let plain = guest.ok("nextkernel check")?;
    if let Some(line) = plain.lines().find(|line| line.starts_with("warn") || line.starts_with("bad")) {
        return Err(guest.tell(&format!("on a plain system: {line}")));
    }

    // The other extension covers the hook's directory; the hook is in the layer below.
    guest.ok(EXTENSIONS)?;
    guest.ok(
        "mv /var/lib/extensions/hook /root/; systemd-sysext merge && nextkernel check | grep '^ok *hook'",
    )?;
    guest.ok("systemd-sysext unmerge; mv /root/hook /var/lib/extensions/")?;
    // Here the hook comes with the extension.
    guest.ok(&format!("mv {HOOK} /root/away; systemctl start systemd-sysext.service && [ -x {HOOK} ]"))?;
    refused(
        &mut guest,
        "nextkernel check",
        "comes with what is mounted at /usr (sysext), which is gone when systemd",
    )?;
    refused(&mut guest, "nextkernel reboot", "hook: /usr/lib/systemd/system-shutdown/nextkernel comes with")?;
    guest.ok(&format!("systemctl stop systemd-sysext.service; [ ! -e {HOOK} ] && rm -r /var/lib/extensions/*; mv /root/away {HOOK}"))?;

    // ostree leaves this file for the end of a shutdown.
    guest.ok("mkdir /run/ostree && touch /run/ostree/staged-deployment")?;
    refused(
        &mut guest,
        "nextkernel reboot",
        "deployment: a deployment is staged (/run/ostree/staged-deployment)",
    )?;
    guest.ok("rm -r /run/ostree && nextkernel reboot --dry-run")?;
    Ok(())
}

/// Makes a separate root with the program in it.
const IMAGE: &str = "
mkdir /image && mount -t tmpfs none /image && mkdir -p /image/bin /image/proc /image/run
cp \"$(readlink -f /usr/bin/nextkernel || command -v nextkernel)\" /image/bin/nextkernel";

pub fn in_a_chroot_a_container_or_where_nobody_may_look_nothing_is_staged(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok(IMAGE)?;
    let in_image = "chroot /image /bin/nextkernel";
    refused(&mut guest, &format!("{in_image} stage"), "/proc is not mounted here")?;
    guest.ok("mount -t proc proc /image/proc")?;
    refused(&mut guest, &format!("{in_image} stage"), "this is a chroot")?;
    refused(&mut guest, &format!("{in_image} reboot"), "this is a chroot")?;
    guest.ok(&format!("{in_image} updated 2>&1 | grep 'nothing was done: this is a chroot'"))?;
    guest.ok("umount /image/proc")?;
    refused(&mut guest, "unshare --pid --fork --mount-proc nextkernel stage", "this is a container")?;
    let unable = "setpriv --bounding-set -sys_ptrace nextkernel stage";
    refused(&mut guest, unable, "it cannot be told whether this is a chroot")?;
    guest.ok(UNSTAGED)?;
    guest.ok("nextkernel stage").map(drop)
}

/// Adds swap in memory, and fills memory until no image fits.
const FULL: &str = "
modprobe zram && echo 600M >/sys/block/zram0/disksize && mkswap -q /dev/zram0 && swapon /dev/zram0
available=$(sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)
mkdir /full && mount -t tmpfs -o size=95% none /full
head -c $((available - 40000))k /dev/urandom >/full/all";

pub fn swap_in_memory_is_no_room_for_an_image(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok(FULL)?;
    refused(&mut guest, "nextkernel stage", "can be had without killing anything")?;
    guest.ok(UNSTAGED)?;
    guest.ok("rm /full/all && nextkernel stage").map(drop)
}
