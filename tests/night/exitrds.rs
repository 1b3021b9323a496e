//! Tests the hook in the exitrds of other projects, which call it after the root and the storage below it are
//! closed.

use super::staged::{HOOK, handed_over, in_order, shutdown, stage};
use bed::disk::dracut;
use bed::guest::shutdown::Shutdown;
use bed::harness::Test;
use bed::host::paths::installed;
use bed::host::scratch::Scratch;
use bed::initramfs::modules::Modules;
use bed::machine::End;

/// Continues in a root on an encrypted RAM disk, with /run/initramfs filled by `$EXITRD`.
const ROOT: &str = r#"
for module in xts dm_crypt crc32c_generic ext4; do modprobe $module; done
modprobe brd rd_nr=1 rd_size=131072
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
dmsetup --noudevsync create root --uuid CRYPT-PLAIN-root --table "0 262144 crypt aes-xts-plain64 $key 0 /dev/ram0 0"
dmsetup --noudevsync mknodes
mke2fs /dev/mapper/root
mkdir /new
mount -t ext4 /dev/mapper/root /new
cp -a /bin /sbin /lib /lib64 /usr /new
mkdir /new/proc /new/sys /new/dev /new/run
mount -o remount,exec /run
mkdir -p /run/initramfs
fill
for folder in proc sys dev run; do mount --move /$folder /new/$folder; done
echo "exec /usr/lib/systemd/systemd-shutdown $VERB --timeout=10000000us --log-level=info --log-target=kmsg" >/new/end
exec switch_root /new /bin/sh /end
"#;

/// Reports open mapped devices and mounts below /oldroot; the exitrd runs this last before the hook.
const WITNESS: &str = r#"
for device in /sys/block/dm-*; do [ -e "$device" ] && echo "witness: ${device##*/} is open" >/dev/kmsg; done
while read -r _ point _; do
    case $point in /oldroot*) echo "witness: $point is mounted" >/dev/kmsg ;; esac
done </proc/mounts
"#;

/// Returns a guest whose root is on an encrypted device, and whose exitrd is filled by these lines.
fn encrypted(test: &Test, fill: &str) -> Result<Shutdown, String> {
    let scenario = stage("--preload no") + "fill() {\n" + fill + "\n}\n" + ROOT;
    let mut guest = shutdown(test, "kexec", &scenario)?;
    guest.modules(&Modules::of(&test.image.files()?, &["brd", "xts", "dm_crypt", "crc32c_generic", "ext4"])?);
    guest.program("/usr/sbin/dmsetup")?;
    guest.memory = 1024;
    guest.append = "panic=-1 printk.devkmsg=on".into();
    Ok(guest)
}

pub fn in_dracuts_exitrd_the_jump_waits_until_the_storage_is_closed(test: &Test) -> Result<(), String> {
    let scratch = Scratch::new()?;
    let hook = installed().join(HOOK.trim_start_matches('/'));
    let archive = dracut::exitrd(&hook, &scratch.path(""))?;
    // dracut's script that closes mapped devices is moved after the hook here, because its first pass is too
    // early for the hook.
    let fill = "cd /run/initramfs && cpio -id </exitrd.cpio
        mv var/lib/dracut/hooks/shutdown/25-dm-shutdown.sh var/lib/dracut/hooks/shutdown/99-then-dm.sh
        cp /witness var/lib/dracut/hooks/shutdown/98-witness.sh
        cd /";
    let mut guest = encrypted(test, fill)?;
    guest.host_file("/exitrd.cpio", 0o644, &archive)?;
    // The witness fails as long as a mapped device is open, so that dracut runs it again.
    guest.file("/witness", 0o755, format!("open=\n{WITNESS}{}", "[ ! -e /sys/block/dm-0 ]\n"));
    let ended = guest.run()?;
    handed_over(&ended, "kexec")?;
    let lines = ["witness: dm-0 is open", "nextkernel: the old root is closed", "nextkernel: jump to"];
    in_order(&ended, &[&["left to the hook in the exitrd"][..], &lines].concat())
}

pub fn in_an_exitrd_of_systemd_shutdown_the_hook_runs_when_the_root_is_gone(
    test: &Test,
) -> Result<(), String> {
    // The layout is that of mkinitcpio's exitrd (tests/initramfs.rs). initrd-release keeps systemd-shutdown from
    // changing into another exitrd.
    let fill = "cd /run/initramfs
        cp -a /bin /lib /lib64 /usr .
        cp /usr/lib/systemd/systemd-shutdown shutdown
        mkdir etc proc sys dev run
        : >etc/initrd-release
        cd /";
    let ended = encrypted(test, fill)?.run()?;
    handed_over(&ended, "kexec")?;
    let closed = [
        "EXT4-fs (dm-0): unmounting",
        "Detaching DM /dev/dm-0",
        "All DM devices detached",
        "nextkernel: jump to",
    ];
    in_order(&ended, &[&["left to the hook in the exitrd"][..], &closed].concat())
}

/// The exitrd of another project, on its own file system because /run is noexec.
const THEIRS: &str = "
mkdir -p /run/initramfs; mount -t tmpfs -o mode=0755 theirs /run/initramfs
cp /bin/busybox /run/initramfs/
printf '#!/busybox sh\\n/busybox echo their exitrd at $1 >/dev/kmsg\\n/busybox poweroff -f\\n' >/run/initramfs/shutdown
chmod 755 /run/initramfs/shutdown
";

pub fn an_exitrd_of_somebody_else_is_passed_by_at_a_jump_alone_and_that_is_told(
    test: &Test,
) -> Result<(), String> {
    let ended = shutdown(test, "poweroff", &(stage("--preload no") + THEIRS))?.run()?;
    ended.expect(End::PoweredOff)?;
    ended.line("their exitrd at poweroff")?;

    let ended = shutdown(test, "kexec", &(stage("--preload no") + THEIRS))?.run()?;
    ended.line("nextkernel: the exitrd in /run/initramfs does not carry this hook, and is passed by")?;
    handed_over(&ended, "kexec")
}
