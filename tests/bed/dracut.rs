//! The exitrd that Debian 13's dracut makes with `initramfs/dracut`: an initramfs for a root on LUKS, without kernel
//! modules, which no exitrd needs.

use crate::{host, storage};
use std::path::{Path, PathBuf};
use std::process::Command;

/// From the tree, our module, the hook, and a folder for the archive. The tree is not changed: what is added is mounted
/// over it, for this process alone.
const MAKE: &str = "set -e
    tree=$1 scratch=$4 hooks=usr/lib/systemd/system-shutdown modules=usr/lib/dracut/modules.d
    cp -a $tree/$modules $scratch/modules && cp -r $2 $scratch/modules/
    mkdir $scratch/hooks && cp $3 $scratch/hooks/nextkernel
    mount --bind $scratch/modules $tree/$modules
    mount --bind $scratch/hooks $tree/$hooks
    mount --bind $scratch $tree/mnt
    mount -t proc proc $tree/proc
    exec chroot $tree dracut --force --quiet --no-hostonly --no-kernel --no-early-microcode --no-compress \\
        --modules 'base shutdown dm crypt nextkernel' /mnt/exitrd.cpio $(basename $tree/usr/lib/modules/*)";

/// Makes it, with this hook, in an empty folder.
pub fn exitrd(hook: &Path, folder: &Path) -> Result<PathBuf, String> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../initramfs/dracut/90nextkernel");
    let tree = storage::files()?.tree();
    let mut make = Command::new("unshare");
    make.args(["--mount", "sh", "-c", MAKE, "sh"]).args([&tree, &module, hook, folder]);
    host(&mut make)?;
    Ok(folder.join("exitrd.cpio"))
}
