//! Runs Debian 13's dracut with `initramfs/dracut`, to make an initrd, or the exitrd alone.

use crate::disk::disks::Disks;
use crate::disk::storage::{self, Storage};
use crate::host::command;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs dracut in the tree $1 with the module $2, the hook $3 and the directory $4, which is its /mnt. The
/// remaining arguments are dracut's own. The tree is not changed: additions are mounted over it in a private
/// mount namespace.
const RUN: &str = "set -e
    tree=$1 module=$2 hook=$3 scratch=$4 hooks=usr/lib/systemd/system-shutdown modules=usr/lib/dracut/modules.d
    shift 4
    cp -a $tree/$modules $scratch/modules && cp -r $module $scratch/modules/
    cp -a $tree/$hooks $scratch/hooks && cp $hook $scratch/hooks/nextkernel
    mount --bind $scratch/modules $tree/$modules
    mount --bind $scratch/hooks $tree/$hooks
    mount --bind $scratch $tree/mnt
    mount -t proc proc $tree/proc
    exec chroot $tree dracut --force --quiet --no-early-microcode --kver $(basename $tree/usr/lib/modules/*) \"$@\"";

/// The arguments for an initrd whose root is in LUKS.
const LUKS_INITRD: [&str; 12] = [
    "--hostonly",
    "--no-hostonly-cmdline",
    "--no-hostonly-i18n",
    "--no-hostonly-default-device",
    "--add",
    "systemd systemd-cryptsetup dm crypt lvm nextkernel",
    "--drivers",
    "virtio_pci virtio_blk ext4 crc32c_generic dm_mod dm_crypt xts aesni_intel",
    "--include",
    "/etc/keys/root.key",
    "/etc/keys/root.key",
    "/mnt/initrd",
];

/// The options by which such an initrd finds the root in LUKS.
const LUKS_ROOT: &str = "/dev/mapper/cryptroot rd.lvm.vg=bed \
    rd.luks.name=6e657874-6b65-726e-656c-000000000002=cryptroot \
    rd.luks.key=6e657874-6b65-726e-656c-000000000002=/etc/keys/root.key";

/// Makes an exitrd with this hook for a root on LUKS, in an empty directory. It has no kernel modules, because no
/// exitrd needs them.
pub fn exitrd(hook: &Path, directory: &Path) -> Result<PathBuf, String> {
    let modules = "base shutdown dm crypt nextkernel";
    run(
        hook,
        directory,
        &["--no-hostonly", "--no-kernel", "--no-compress", "--modules", modules, "/mnt/exitrd.cpio"],
    )?;
    Ok(directory.join("exitrd.cpio"))
}

/// Makes an initrd with our module and this hook, in an empty directory, and returns it with the disks
/// that have LUKS on LVM. dracut looks for the initrd at shutdown, too: the guest must have it as
/// /usr/lib/modules/RELEASE/initrd.
pub fn initrd(hook: &Path, directory: &Path) -> Result<Disks, String> {
    run(hook, directory, &LUKS_INITRD)?;
    let disks = Storage::Luks.disks()?.disks;
    Ok(Disks { disks, initrd: directory.join("initrd"), root: LUKS_ROOT.into(), are_shared: false })
}

/// Runs dracut with our module and this hook, in an empty directory that becomes its /mnt.
fn run(hook: &Path, directory: &Path, arguments: &[&str]) -> Result<(), String> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../initramfs/dracut/90nextkernel");
    let tree = storage::files()?.tree();
    let mut run = Command::new("unshare");
    run.args(["--mount", "sh", "-c", RUN, "sh"]).args([&tree, &module, hook, directory]).args(arguments);
    command::run(&mut run).map(drop)
}
