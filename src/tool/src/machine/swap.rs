//! Whether the contents of memory may be written to a disk where they can be read later.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::mounts::{self, Mount};
use crate::machine::root::Root;

/// Returns the first swap (`proc_swaps(5)`) that is unencrypted on a disk. It matters because /run is a
/// tmpfs, whose pages can be swapped out.
#[must_use]
pub fn readable(root: &Root) -> Option<PathBuf> {
    let text = fs::read_to_string(root.path("/proc/swaps")).unwrap_or_default();
    let lines = text.lines().skip(1).map(|line| line.split_ascii_whitespace());
    let mut swaps = lines.filter_map(|mut words| Some((mounts::unescaped(words.next()?), words.next()?)));
    swaps.find(|(path, kind)| !is_safe(root, path, *kind == "file")).map(|(path, _)| path)
}

fn is_safe(root: &Root, path: &Path, is_file: bool) -> bool {
    let device = if is_file { carrier(root, path) } else { block(root, path) };
    device.is_some_and(|device| is_memory(root, &device) || is_encrypted(root, &device))
}

/// Returns the sysfs path of the block device that a file's file system is on.
fn carrier(root: &Root, file: &Path) -> Option<String> {
    let mounts = Mount::all(root);
    let mount = file.ancestors().find_map(|point| Mount::at(&mounts, point))?;
    let numbered = format!("/sys/dev/block/{}", mount.device);
    // btrfs has a number of its own, which belongs to no device.
    if root.path(&numbered).exists() { Some(numbered) } else { block(root, &mount.source) }
}

/// Returns the sysfs path of a device node.
fn block(root: &Root, device: &Path) -> Option<String> {
    // A link in /dev/mapper leads to the device, and only the device's own name is in sysfs.
    let to = fs::read_link(root.path(device)).unwrap_or_else(|_| device.to_path_buf());
    Some(format!("/sys/class/block/{}", to.file_name()?.to_str()?))
}

/// Whether a device is a zram that writes nothing to a disk (Documentation/admin-guide/blockdev/zram.rst).
fn is_memory(root: &Root, device: &str) -> bool {
    let written_to = root.fact(&format!("{device}/backing_dev"));
    device.rsplit('/').next().is_some_and(|name| name.starts_with("zram"))
        && written_to.is_none_or(|device| device == "none")
}

/// Whether a device is encrypted by dm-crypt, or lies on such devices alone, as LVM may. cryptsetup also
/// names devices of dm-verity and dm-integrity, which hide nothing.
fn is_encrypted(root: &Root, device: &str) -> bool {
    let name = root.fact(&format!("{device}/dm/uuid")).unwrap_or_default();
    let hides = ["CRYPT-LUKS", "CRYPT-PLAIN", "CRYPT-LOOPAES", "CRYPT-TCRYPT", "CRYPT-BITLK", "CRYPT-FVAULT"];
    if hides.iter().any(|kind| name.starts_with(kind)) {
        return true;
    }
    let below = fs::read_dir(root.path(format!("{device}/slaves"))).into_iter().flatten().flatten();
    let below: Vec<_> = below.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    !below.is_empty() && below.iter().all(|name| is_encrypted(root, &format!("/sys/class/block/{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    const HEAD: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

    fn swaps(scratch: &Scratch, lines: &str) -> Option<PathBuf> {
        scratch.put("/proc/swaps", &format!("{HEAD}{lines}"));
        readable(&scratch.root)
    }

    #[test]
    fn without_swap_and_with_swap_in_memory_nothing_is_written() {
        let scratch = Scratch::new();
        assert_eq!(readable(&scratch.root), None);
        assert_eq!(swaps(&scratch, ""), None);
        let zram = "/dev/zram0                              partition\t8122364\t\t0\t\t100\n";
        assert_eq!(swaps(&scratch, zram), None);
        scratch.put("/sys/class/block/zram0/backing_dev", "none\n");
        assert_eq!(swaps(&scratch, zram), None);
        scratch.put("/sys/class/block/zram0/backing_dev", "/dev/sda3\n");
        assert_eq!(swaps(&scratch, zram), Some("/dev/zram0".into()));
    }

    #[test]
    fn swap_is_encrypted_where_all_that_it_stands_on_is() {
        let scratch = Scratch::new();
        let swap = "/dev/dm-1 partition 1 0 -2\n";
        assert_eq!(swaps(&scratch, "/dev/sda2 partition 1 0 -2\n"), Some("/dev/sda2".into()));
        assert_eq!(swaps(&scratch, swap), Some("/dev/dm-1".into()));
        scratch.put("/sys/class/block/dm-1/dm/uuid", "CRYPT-PLAIN-swap\n");
        assert_eq!(swaps(&scratch, swap), None);
        scratch.put("/sys/class/block/dm-1/dm/uuid", "CRYPT-VERITY-0123\n");
        assert_eq!(swaps(&scratch, swap), Some("/dev/dm-1".into()));
        scratch.put("/sys/class/block/dm-1/dm/uuid", "LVM-abc\n");
        scratch.put("/sys/class/block/dm-0/dm/uuid", "CRYPT-LUKS2-0123-root\n");
        scratch.directory("/sys/class/block/dm-1/slaves/dm-0");
        assert_eq!(swaps(&scratch, swap), None);
        scratch.directory("/sys/class/block/dm-1/slaves/sdb1");
        assert_eq!(swaps(&scratch, swap), Some("/dev/dm-1".into()));
    }

    #[test]
    fn a_swap_file_is_as_safe_as_its_file_system() {
        let scratch = Scratch::new();
        let swap = "/var/swap\\040file file 1 0 -2\n";
        let mounted = |device: &str, source: &str| {
            let line = format!("1 0 {device} / / rw - ext4 {source} rw\n2 1 0:5 / /proc rw - proc proc rw\n");
            scratch.put("/proc/self/mountinfo", &line);
        };
        assert_eq!(swaps(&scratch, swap), Some("/var/swap file".into()));
        mounted("254:0", "/dev/mapper/root");
        scratch.put("/sys/dev/block/254:0/dm/uuid", "CRYPT-LUKS2-0123-root\n");
        assert_eq!(swaps(&scratch, swap), None);
        mounted("0:33", "/dev/mapper/root");
        assert_eq!(swaps(&scratch, swap), Some("/var/swap file".into()));
        scratch.link("/dev/mapper/root", "/dev/dm-0");
        scratch.put("/sys/class/block/dm-0/dm/uuid", "CRYPT-LUKS2-0123-root\n");
        assert_eq!(swaps(&scratch, swap), None);
    }
}
