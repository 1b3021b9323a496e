//! Kernel modules from `tests/standins` that go wrong on purpose. They are built for the image's kernel and
//! cached beside the image.

use crate::guest::shutdown::Shutdown;
use crate::host::command;
use crate::image::{self, Files, Image};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The command that builds the stand-ins in the builder. It makes no debugging information and so no BTF, for
/// which the compiler's output would have to be read again.
const MAKE: &str = "make -s -j2 -C /usr/src/linux-headers-$(basename /usr/lib/modules/*) M=/standins \
    CONFIG_DEBUG_INFO_BTF_MODULES= KCFLAGS='-g0 -Werror' modules";

/// Puts modules into a shutdown guest, as `/NAME.ko`.
pub fn put(guest: &mut Shutdown, names: &[&str]) -> Result<(), String> {
    for name in names {
        guest.file(&format!("/{name}.ko"), 0o644, read(guest.image, name)?);
    }
    Ok(())
}

/// A module that depends on `nvidia_modeset`, and one with the longest possible name.
const SHORT: &str = "nvidia_drm";
const LONG: &str = "nvidia_drm_with_a_name_as_long_as_one_of_a_module_is_00";

/// Puts many modules into a shutdown guest that differ only in their names, `/nvidia_d00.ko` and so on. All of
/// them depend on `nvidia_modeset`.
pub fn put_many(guest: &mut Shutdown, count: u32) -> Result<(), String> {
    put_many_of(guest, SHORT, count)
}

/// Puts many modules into a shutdown guest that differ only in their names, which are as long as possible.
pub fn put_many_with_long_names(guest: &mut Shutdown, count: u32) -> Result<(), String> {
    put_many_of(guest, LONG, count)
}

/// Puts this many copies of one module into a shutdown guest, at most a thousand.
fn put_many_of(guest: &mut Shutdown, name: &str, count: u32) -> Result<(), String> {
    let one = read(guest.image, name)?;
    let stem = name.get(..name.len().saturating_sub(2)).unwrap_or_default();
    for end in (0..count.min(1000)).map_while(two_characters) {
        let other = format!("{stem}{end}");
        guest.file(&format!("/{other}.ko"), 0o644, renamed(&one, name.as_bytes(), other.as_bytes()));
    }
    Ok(())
}

/// Returns a number as two digits or, from 100 on, as a letter and a letter or digit.
fn two_characters(number: u32) -> Option<String> {
    let Some(number) = number.checked_sub(100) else { return Some(format!("{number:02}")) };
    let (first, second) = (char::from_digit(10 + number / 36, 36)?, char::from_digit(number % 36, 36)?);
    Some(format!("{first}{second}"))
}

/// Returns a module under another name of the same length. The module contains its name as text, several times.
fn renamed(module: &[u8], name: &[u8], other: &[u8]) -> Vec<u8> {
    let mut renamed = module.to_vec();
    for at in (0..module.len()).filter(|at| module.get(*at..).is_some_and(|rest| rest.starts_with(name))) {
        renamed.splice(at..at + name.len(), other.iter().copied());
    }
    renamed
}

/// Reads the file of one of the modules.
pub fn read(image: Image, name: &str) -> Result<Vec<u8>, String> {
    let file = modules(&image.files()?)?.join(format!("{name}.ko"));
    fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))
}

/// Returns the directory with the modules, `NAME.ko`, and builds them first if they do not exist.
fn modules(image: &Files) -> Result<PathBuf, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("standins");
    let name = format!("standins-{:016x}", image::hash(MAKE.as_bytes(), &sources)?);
    let directory = image.made(&name);
    if directory.exists() {
        return Ok(directory);
    }
    let failed = |e| format!("{}: {e}", directory.display());
    let lock = File::create(image.made("standins.lock")).map_err(failed)?;
    let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
    if !directory.exists() {
        // If this process is killed, the next builder waits for the chroot, too, because its stdin is the lock.
        let stdin = lock.try_clone().map_err(failed)?;
        let inside = image.builder().join("standins");
        command::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&inside))?;
        command::run(Command::new("cp").arg("-r").arg(&sources).arg(&inside))?;
        command::run(Command::new("chroot").arg(image.builder()).args(["sh", "-c", MAKE]).stdin(stdin))?;
        fs::rename(&inside, &directory).map_err(failed)?;
    }
    Ok(directory)
}
