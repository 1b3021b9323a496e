//! Disks that a BIOS boots: their loaders' own tools make them, in a guest; they are kept beside the image.

use crate::esp;
use crate::guest::{Guest, Spec};
use crate::harness::Test;
use crate::host;
use crate::image::{self, Files, Image};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Enough for a /boot and a boot loader.
const SIZE: u64 = 128 << 20;

/// One partition; what the loader needs of a disk beside it stands before it.
const TABLE: &str = "label: dos\nstart=1MiB, type=83, bootable\n";

/// How the partition is made. extlinux reports I/O errors with the small blocks that a small one would get.
const PARTITION: [&str; 8] = ["-q", "-t", "ext4", "-L", "boot", "-b", "4096", "-Eoffset=1048576"];

/// The loaders, each with the name of its disk.
const GRUB: &str = "grub.disk";
const EXTLINUX: &str = "extlinux.disk";

/// A disk with GRUB, as `grub-install` and `update-grub` make one, where `GRUB_DEFAULT` is `saved`.
pub fn grub(image: Image) -> Result<PathBuf, String> {
    Ok(disks(image)?.join(GRUB))
}

/// A disk with extlinux and an extlinux.conf of two labels.
pub fn extlinux(image: Image) -> Result<PathBuf, String> {
    Ok(disks(image)?.join(EXTLINUX))
}

/// The folder with the disks of an image with a separate /boot, made first where they are not there yet.
fn disks(image: Image) -> Result<PathBuf, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("bios");
    let files = image.files()?;
    let folder = files.made(&format!("bios-{:016x}", image::hash(include_bytes!("bios.rs"), &sources)?));
    if folder.exists() {
        return Ok(folder);
    }
    let failed = |e| format!("{}: {e}", folder.display());
    let lock = File::create(files.made("bios.lock")).map_err(failed)?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
    if !folder.exists() {
        let (part, install) = (files.made("bios.part"), sources.join("install"));
        let _ = fs::remove_dir_all(&part);
        fs::create_dir(&part).map_err(failed)?;
        for name in [GRUB, EXTLINUX] {
            bare(&files, &part.join(name))?;
        }
        let script = fs::read_to_string(&install).map_err(|e| format!("{}: {e}", install.display()))?;
        run(image, &part, &script)?;
        fs::rename(&part, &folder).map_err(failed)?;
    }
    Ok(folder)
}

/// A disk whose one partition holds the image's /boot, and no loader.
fn bare(files: &Files, disk: &Path) -> Result<(), String> {
    esp::partition(disk, SIZE, TABLE)?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(PARTITION).arg("-d").arg(files.tree().join("boot")).arg(disk).arg("127M");
    host(&mut mke2fs).map(drop)
}

/// Runs a script in a guest that has these disks, and keeps what it wrote to them.
fn run(image: Image, folder: &Path, script: &str) -> Result<(), String> {
    let test = Test { name: format!("bios_disks_{}", image.name()), image };
    let drive = |name| format!("file={},format=raw,if=virtio,cache=unsafe", folder.join(name).display());
    let qemu = ["-drive".into(), drive(GRUB), "-drive".into(), drive(EXTLINUX)].into();
    let mut guest = Guest::boot(&Spec { installed: None, qemu, ..Spec::new(&test) })?;
    guest.ok(script)?;
    guest.send("systemctl poweroff")?;
    guest.await_off()?;
    let _ = fs::remove_file(test.log());
    Ok(())
}
