//! Kernel modules that go wrong on purpose, from `tests/standins`: built for the image's kernel, kept
//! beside it.

use crate::host;
use crate::image::{self, Files, Image};
use crate::initramfs::Night;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The stand-ins as the builder's make makes them: no debugging, and so no BTF, for which the
/// compiler's output would have to be read again.
const MAKE: &str = "make -s -j2 -C /usr/src/linux-headers-$(basename /usr/lib/modules/*) M=/standins \
    CONFIG_DEBUG_INFO_BTF_MODULES= KCFLAGS='-g0 -Werror' modules";

/// Puts modules into a night, as `/NAME.ko`.
pub fn put(night: &mut Night, names: &[&str]) -> Result<(), String> {
    for name in names {
        night.file(&format!("/{name}.ko"), 0o644, read(night.image, name)?);
    }
    Ok(())
}

/// Puts many modules into a night that are alike but for their names: `/nvidia_d00.ko` and so on, all
/// standing on `nvidia_modeset`.
pub fn put_many(night: &mut Night, count: u8) -> Result<(), String> {
    let one = read(night.image, "nvidia_drm")?;
    for number in 0..count.min(100) {
        let name = format!("nvidia_d{number:02}");
        night.file(&format!("/{name}.ko"), 0o644, renamed(&one, b"nvidia_drm", name.as_bytes()));
    }
    Ok(())
}

/// A module with another name of the same length; the name stands in it as text, some times over.
fn renamed(module: &[u8], name: &[u8], other: &[u8]) -> Vec<u8> {
    let mut renamed = module.to_vec();
    for at in (0..module.len()).filter(|at| module.get(*at..).is_some_and(|rest| rest.starts_with(name))) {
        renamed.splice(at..at + name.len(), other.iter().copied());
    }
    renamed
}

/// One of them, as a file.
pub fn read(image: Image, name: &str) -> Result<Vec<u8>, String> {
    let file = modules(&image.files()?)?.join(format!("{name}.ko"));
    fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))
}

/// The folder with the modules, `NAME.ko`, built first where they are not there yet.
fn modules(image: &Files) -> Result<PathBuf, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("standins");
    let name = format!("standins-{:016x}", image::hash(MAKE.as_bytes(), &sources)?);
    let folder = image.made(&name);
    if folder.exists() {
        return Ok(folder);
    }
    let failed = |e| format!("{}: {e}", folder.display());
    let lock = File::create(image.made("standins.lock")).map_err(failed)?;
    let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
    if !folder.exists() {
        // Who waits for the lock waits for the chroot, too, should this process be killed.
        let stdin = lock.try_clone().map_err(failed)?;
        let inside = image.builder().join("standins");
        host(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&inside))?;
        host(Command::new("cp").arg("-r").arg(&sources).arg(&inside))?;
        host(Command::new("chroot").arg(image.builder()).args(["sh", "-c", MAKE]).stdin(stdin))?;
        fs::rename(&inside, &folder).map_err(failed)?;
    }
    Ok(folder)
}
