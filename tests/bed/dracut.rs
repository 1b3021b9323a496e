//! The exitrd that Debian 13's dracut makes with `initramfs/dracut`: its initramfs, for a root on LUKS, without
//! kernel modules, which no exitrd needs.

use crate::image::{self, Image};
use crate::{host, vm_folder};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs beside the copy of a tree, in a mount namespace of its own.
const MAKE: &str = "set -e
    cd \"$1\"
    mount -t proc proc tree/proc
    mount -t devtmpfs dev tree/dev
    mount -t tmpfs tmp tree/tmp
    ln -sf /bin/true tree/usr/sbin/update-initramfs
    cp -r \"$2\" tree/usr/lib/dracut/modules.d/
    DEBIAN_FRONTEND=noninteractive chroot tree sh -c '
        apt-get update -q
        apt-get install -q -y --no-install-recommends dracut-core cryptsetup-bin
        dracut --force --no-hostonly --no-kernel --no-early-microcode --no-compress \\
            --modules \"base shutdown dm crypt nextkernel\" /exitrd.cpio $(basename /usr/lib/modules/*)'
    mv tree/exitrd.cpio .";

/// The archive, made first where it is not there yet. The hook in it may be an older one.
pub fn exitrd(hook: &Path) -> Result<PathBuf, String> {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../initramfs/dracut");
    let module = modules.join("90nextkernel");
    let folder = vm_folder().join(format!("dracut-{:016x}", image::hash(MAKE.as_bytes(), &module)?));
    let archive = folder.join("exitrd.cpio");
    if archive.exists() {
        return Ok(archive);
    }
    let failed = |e| format!("{}: {e}", folder.display());
    let lock = File::create(vm_folder().join("dracut.lock")).map_err(failed)?;
    let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
    if !archive.exists() {
        let tree = folder.join("tree");
        host(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&folder))?;
        fs::create_dir_all(&folder).map_err(failed)?;
        let image = Image::Debian13.files()?.tree();
        host(Command::new("cp").args(["-a", "--reflink=auto"]).arg(image).arg(&tree))?;
        let place = tree.join("usr/lib/systemd/system-shutdown/nextkernel");
        host(Command::new("install").arg("-D").arg(hook).arg(place))?;
        fs::create_dir_all(tree.join("usr/lib/dracut/modules.d")).map_err(failed)?;
        // Who waits for the lock waits for the chroot, too, should this process be killed.
        let mut make = Command::new("unshare");
        make.args(["--mount", "sh", "-c", MAKE, "sh"]).arg(&folder).arg(&module);
        host(make.stdin(lock.try_clone().map_err(failed)?))?;
        host(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&tree))?;
    }
    Ok(archive)
}
