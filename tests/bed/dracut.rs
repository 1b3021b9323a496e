//! Runs Debian 13's dracut with `initramfs/dracut`, to make an initrd, or the exitrd alone.

use crate::{host, storage};
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

/// Makes an exitrd with this hook for a root on LUKS, in an empty directory. It has no kernel modules, because no
/// exitrd needs them.
pub fn exitrd(hook: &Path, folder: &Path) -> Result<PathBuf, String> {
    let modules = "base shutdown dm crypt nextkernel";
    run(
        hook,
        folder,
        &["--no-hostonly", "--no-kernel", "--no-compress", "--modules", modules, "/mnt/exitrd.cpio"],
    )?;
    Ok(folder.join("exitrd.cpio"))
}

/// Runs dracut with our module and this hook. `folder` is an empty directory that becomes its /mnt.
pub fn run(hook: &Path, folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../initramfs/dracut/90nextkernel");
    let tree = storage::files()?.tree();
    let mut run = Command::new("unshare");
    run.args(["--mount", "sh", "-c", RUN, "sh"]).args([&tree, &module, hook, folder]).args(arguments);
    host(&mut run).map(drop)
}
