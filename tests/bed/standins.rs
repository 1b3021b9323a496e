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

/// One that stands on `nvidia_modeset`, and one by the longest name that there may be.
const SHORT: &str = "nvidia_drm";
const LONG: &str = "nvidia_drm_with_a_name_as_long_as_one_of_a_module_is_00";

/// Puts many modules into a night that are alike but for their names: `/nvidia_d00.ko` and so on, all
/// standing on `nvidia_modeset`.
pub fn put_many(night: &mut Night, count: u32) -> Result<(), String> {
    put_many_of(night, SHORT, count)
}

/// The same by names as long as there may be.
pub fn put_many_with_long_names(night: &mut Night, count: u32) -> Result<(), String> {
    put_many_of(night, LONG, count)
}

/// As many of one module, at most a thousand.
fn put_many_of(night: &mut Night, name: &str, count: u32) -> Result<(), String> {
    let one = read(night.image, name)?;
    let stem = name.get(..name.len().saturating_sub(2)).unwrap_or_default();
    for end in (0..count.min(1000)).map_while(two_characters) {
        let other = format!("{stem}{end}");
        night.file(&format!("/{other}.ko"), 0o644, renamed(&one, name.as_bytes(), other.as_bytes()));
    }
    Ok(())
}

/// A number as two digits or, from 100 on, as a letter and a letter or digit.
fn two_characters(number: u32) -> Option<String> {
    let Some(number) = number.checked_sub(100) else { return Some(format!("{number:02}")) };
    let (first, second) = (char::from_digit(10 + number / 36, 36)?, char::from_digit(number % 36, 36)?);
    Some(format!("{first}{second}"))
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
