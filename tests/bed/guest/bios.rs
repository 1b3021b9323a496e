//! Disks that a BIOS boots. The boot loaders' own tools make them in a guest, and they are cached beside the
//! image.

use crate::disk::esp;
use crate::guest::whole::{Guest, Spec};
use crate::harness::Test;
use crate::host::command;
use crate::image::{self, Files, Image};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The size of a disk in bytes: enough for a /boot and a boot loader.
const SIZE: u64 = 128 << 20;

/// The partition table: one partition. The gap before it holds the rest of the boot loader.
const TABLE: &str = "label: dos\nstart=1MiB, type=83, bootable\n";

/// The options of mke2fs. By default it would choose smaller blocks for a partition of this size, and with those
/// extlinux reports I/O errors.
const PARTITION: [&str; 8] = ["-q", "-t", "ext4", "-L", "boot", "-b", "4096", "-Eoffset=1048576"];

/// The file names of the boot loaders' disks.
const GRUB: &str = "grub.disk";
const EXTLINUX: &str = "extlinux.disk";

/// Returns a disk with GRUB as `grub-install` and `update-grub` make it, with `GRUB_DEFAULT=saved`.
pub fn grub(image: Image) -> Result<PathBuf, String> {
    Ok(disks(image)?.join(GRUB))
}

/// Returns a disk with extlinux and an extlinux.conf that has two labels.
pub fn extlinux(image: Image) -> Result<PathBuf, String> {
    Ok(disks(image)?.join(EXTLINUX))
}

/// Returns the directory with the disks of an image with a separate /boot, and makes it first if it does not
/// exist.
fn disks(image: Image) -> Result<PathBuf, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("bios");
    let files = image.files()?;
    let directory = files.made(&format!("bios-{:016x}", image::hash(include_bytes!("bios.rs"), &sources)?));
    if directory.exists() {
        return Ok(directory);
    }
    let failed = |e| format!("{}: {e}", directory.display());
    let lock = File::create(files.made("bios.lock")).map_err(failed)?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
    if !directory.exists() {
        let (part, install) = (files.made("bios.part"), sources.join("install"));
        let _ = fs::remove_dir_all(&part);
        fs::create_dir(&part).map_err(failed)?;
        for name in [GRUB, EXTLINUX] {
            bare(&files, &part.join(name))?;
        }
        let script = fs::read_to_string(&install).map_err(|e| format!("{}: {e}", install.display()))?;
        run(image, &part, &script)?;
        fs::rename(&part, &directory).map_err(failed)?;
    }
    Ok(directory)
}

/// Makes a disk whose only partition holds the image's /boot, without a boot loader.
fn bare(files: &Files, disk: &Path) -> Result<(), String> {
    esp::partition(disk, SIZE, TABLE)?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(PARTITION).arg("-d").arg(files.tree().join("boot")).arg(disk).arg("127M");
    command::run(&mut mke2fs).map(drop)
}

/// Runs a script in a guest that has these disks attached. The guest's writes to them are kept.
fn run(image: Image, directory: &Path, script: &str) -> Result<(), String> {
    let test = Test { name: format!("bios_disks_{}", image.name()), image };
    let drive = |name| format!("file={},format=raw,if=virtio,cache=unsafe", directory.join(name).display());
    let qemu = ["-drive".into(), drive(GRUB), "-drive".into(), drive(EXTLINUX)].into();
    let mut guest = Guest::boot(&Spec { installed: None, qemu, ..Spec::new(&test) })?;
    guest.ok(script)?;
    guest.send("systemctl poweroff")?;
    guest.await_off()?;
    let _ = fs::remove_file(test.log());
    Ok(())
}
