//! Tests that the hook, as PID 1 of an exitrd, closes the old root and all storage below it.

use super::staged::{HOOK, handed_over, in_order, shutdown, stage};
use bed::harness::Test;
use bed::initramfs::modules::Modules;

/// An old root that depends on itself: a loop device on a file in it, a mapped device on that, a file system on
/// that, and swap on a file in that. Another mapped device is in use elsewhere. The hook inherits a descriptor
/// of a file in the old root, as from systemd since version 261.
const OLD_ROOT: &str = r"
modprobe loop; modprobe dm_mod; modprobe crc32c_generic; modprobe ext4
export DM_DISABLE_UDEV=1
mkdir /oldroot /elsewhere; mount -t tmpfs none /oldroot
over() {
    dd if=/dev/zero of=$1 bs=1M count=16 2>/dev/null
    losetup /dev/$2 $1 && echo 0 32768 linear /dev/$2 0 | dmsetup create $3 && mke2fs /dev/mapper/$3 >/dev/null
}
over /oldroot/file loop0 inner
over /file loop1 other
mount -t ext4 -o ro /dev/mapper/other /elsewhere
mkdir -p '/oldroot/a\040b c' && mount -t ext4 /dev/mapper/inner '/oldroot/a\040b c'
cd '/oldroot/a\040b c' && mkdir within && mount -t tmpfs none within
dd if=/dev/zero of=swap bs=1M count=4 2>/dev/null; mkswap swap >/dev/null; swapon swap
cd /
long=/oldroot; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do long=$long/$(printf '%0240d' $i); done
mkdir -p $long && mount -t tmpfs none $long
exec 8>/oldroot/handed-on
echo $(wc -l </proc/swaps) lines of swap, $(grep -c oldroot /proc/mounts) mounts
";

pub fn what_lies_on_each_other_is_closed_whatever_its_name_and_what_is_left_is_named(
    test: &Test,
) -> Result<(), String> {
    let mut guest = shutdown(test, "", &(stage("--preload no") + OLD_ROOT + &format!("exec {HOOK} kexec")))?;
    guest.modules(&Modules::of(&test.image.files()?, &["loop", "dm_mod", "crc32c_generic", "ext4"])?);
    guest.program("/usr/sbin/dmsetup")?;
    let ended = guest.run()?;
    ended.line("2 lines of swap, 4 mounts")?;
    in_order(
        &ended,
        &[
            r"nextkernel: turn off swap on /oldroot/a\040b c/swap",
            "nextkernel: unmount /oldroot/000",
            r"nextkernel: unmount /oldroot/a\040b c/within",
            "nextkernel: unmount /oldroot/a\\040b c\r",
            "nextkernel: remove mapped device dm-0 (inner)",
            "nextkernel: detach loop device loop0",
            "nextkernel: unmount /oldroot\r",
            "nextkernel: the old root's storage is not closed: ",
        ],
    )?;
    // The storage that is left is used elsewhere, and read-only.
    let left = ended.line("nextkernel: the old root's storage is not closed: ")?;
    if left.contains("unmount") {
        return Err(format!("more is left than the other mapped device: {left}"));
    }
    handed_over(&ended, "kexec")
}
