//! Disks with an EFI system partition.

use crate::host::command;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The size of a disk in bytes: enough for a kernel, its initrd and a boot loader.
const SIZE: u64 = 128 << 20;

/// The partition table, with the partition's name: `PARTLABEL=esp`.
const TABLE: &str = "label: gpt\nstart=1MiB, size=126MiB, type=uefi, name=esp\n";

/// The start of the partition, in the syntax of mtools.
const START: &str = "@@1M";

/// Makes a GPT disk whose only partition, an EFI system partition, holds the content of a directory.
pub fn disk(tree: &Path, file: &Path) -> Result<(), String> {
    partition(file, SIZE, TABLE)?;
    let image = format!("{}{START}", file.display());
    command::run(Command::new("mformat").args(["-i", &image, "-t", "126", "-h", "64", "-s", "32", "::"]))?;
    let entries = fs::read_dir(tree).map_err(|e| format!("{}: {e}", tree.display()))?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    command::run(Command::new("mcopy").args(["-i", &image, "-s"]).args(paths).arg("::")).map(drop)
}

/// Makes an empty disk of `size` bytes with a partition table in the format of sfdisk(8).
pub fn partition(file: &Path, size: u64, table: &str) -> Result<(), String> {
    let failed = |e| format!("{}: {e}", file.display());
    File::create(file).and_then(|disk| disk.set_len(size)).map_err(failed)?;
    let mut sfdisk = Command::new("sfdisk");
    let mut sfdisk = sfdisk
        .arg("--quiet")
        .arg(file)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|e| format!("sfdisk: {e} (tests/prepare installs it)"))?;
    // The pipe is closed after the write, because sfdisk reads to the end.
    let written = sfdisk.stdin.take().map(|mut input| input.write_all(table.as_bytes()));
    let ended = sfdisk.wait().map_err(|e| format!("sfdisk: {e}"))?;
    if ended.success() && matches!(written, Some(Ok(()))) {
        return Ok(());
    }
    Err(format!("sfdisk: {ended}"))
}
