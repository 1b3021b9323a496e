//! The initramfs that the bed makes for guests: a busybox, an /init, and programs with their libraries.

pub mod cpio;
pub mod modules;

use crate::host::command;
use crate::image::Image;
use crate::initramfs::cpio::Cpio;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The links into /usr that Debian has. systemd 252 looks for hooks in /lib.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// The /init of the next system. It prints that the system is up, without kernel messages in between, and powers
/// off.
const NEXT_INIT: &str = "#!/bin/busybox sh
/bin/busybox dmesg -n 1
/bin/busybox mount -t proc proc /proc
read -r cmdline </proc/cmdline
echo \"NEXT KERNEL UP: $cmdline\"
/bin/busybox poweroff -f
";

/// Returns the initramfs at `/next.cpio`.
pub fn next() -> Result<Vec<u8>, String> {
    let mut next = with_busybox(NEXT_INIT)?;
    next.directory("proc");
    Ok(next.finish())
}

/// Adds a program of the root `root`, and its libraries.
pub fn program(cpio: &mut Cpio, root: &Path, path: &str) -> Result<(), String> {
    let mut ldd = Command::new("chroot");
    let libraries = command::run(ldd.arg(root).args(["/usr/bin/ldd", path]))?;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([path]) {
        cpio.file(&merged(path), 0o755, &read(&root.join(path.trim_start_matches('/')))?);
    }
    Ok(())
}

/// Returns an initramfs with Debian 13's busybox and this /init. Other files can be added to it.
pub fn with_busybox(init: &str) -> Result<Cpio, String> {
    Ok(with(&read(&Image::Debian13.files()?.busybox())?, init))
}

/// Returns an initramfs with this busybox and this /init.
pub(crate) fn with(busybox: &[u8], init: &str) -> Cpio {
    let mut cpio = Cpio::default();
    // The kernel opens PID 1's standard input and output here, before anything is mounted.
    cpio.device("/dev/console", 5, 1);
    for directory in MERGED {
        cpio.directory(&format!("usr/{directory}"));
        cpio.link(directory, &format!("usr/{directory}"));
    }
    cpio.file("/usr/bin/busybox", 0o755, busybox);
    cpio.link("/usr/bin/sh", "busybox");
    cpio.file("/init", 0o755, init.as_bytes());
    cpio
}

/// Returns a path's place in a merged /usr. An archive must not name a symbolic link as a directory, because the
/// kernel would put a directory in its place.
pub(crate) fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    match path.split_once('/') {
        Some((first, _)) if MERGED.contains(&first) => format!("/usr/{path}"),
        _ => format!("/{path}"),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}
