//! The partitions with boot loader entries (Boot Loader Specification, "The Partitions" and "Mount Points").

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::attach::{ASIDE, POINTS, property};
use crate::machine::mounts::Mount;
use crate::machine::root::Root;

/// The type of an extended boot loader partition ("The Partitions").
pub const XBOOTLDR: &str = "bc13c2ff-59e6-4262-a352-b275fd6f7172";

/// The role of a partition for a boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The EFI system partition.
    Esp,
    /// The extended boot loader partition, or the MBR's boot partition.
    Xbootldr,
    /// Neither. Boot loaders that read more file systems may use it; systemd-boot does not.
    Other,
}

/// A mounted partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The mount point, where the paths of its entries begin.
    pub point: PathBuf,
    /// Its role.
    pub kind: Kind,
    /// Its GPT identity, if udev knows it.
    pub uuid: Option<String>,
}

/// Returns the mounted partitions, the ESP first. Remarks about them are added to `notes`.
pub fn find(root: &Root, notes: &mut Vec<String>) -> Vec<Partition> {
    for point in POINTS {
        // An automount shows its file system only after an access.
        let _ = root.path(point).join("loader").metadata();
    }
    let mounts = Mount::all(root);
    let aside =
        mounts.iter().filter(|mount| mount.point.starts_with(ASIDE)).map(|mount| mount.point.as_path());
    let mut found: Vec<Partition> = Vec::new();
    let mut seen = Vec::new();
    for point in POINTS.map(Path::new).into_iter().chain(aside) {
        let Some(mount) = Mount::at(&mounts, point).filter(|mount| !seen.contains(&&mount.device)) else {
            continue;
        };
        let Some(partition) = Partition::of(root, mount) else { continue };
        if mount.part == Path::new("/") {
            seen.push(&mount.device);
            found.push(partition);
        } else {
            notes.push(format!(
                "the entries at {} are not looked at: only a part of their file system is mounted there, and \
                 their paths begin at its root",
                point.display()
            ));
        }
    }
    found.sort_by_key(|partition| partition.kind);
    found
}

impl Partition {
    /// Returns `None` if nothing indicates that the partition is for a boot loader.
    fn of(root: &Root, mount: &Mount) -> Option<Partition> {
        let udev = format!("/run/udev/data/b{}", mount.device);
        let udev = fs::read_to_string(root.path(udev)).unwrap_or_default();
        let says = |name: &str| property(&udev, name);
        let holds = |name: &str| root.path(&mount.point).join(name).is_dir();
        // The types are the specification's; 0xef is the type of an ESP in an MBR.
        let kind = match says("ID_PART_ENTRY_TYPE") {
            Some("c12a7328-f81f-11d2-ba4b-00a0c93ec93b" | "0xef") => Kind::Esp,
            Some(XBOOTLDR | "0xea") => Kind::Xbootldr,
            Some(_) => Kind::Other,
            None if holds("EFI") => Kind::Esp,
            None => Kind::Xbootldr,
        };
        // If the directory may not be looked at, reading it reports that later.
        let may_not_look = || root.path(&mount.point).join("loader").try_exists().is_err();
        let used = holds("loader") || holds("EFI") || may_not_look();
        let uuid = says("ID_PART_ENTRY_UUID").map(str::to_ascii_lowercase);
        used.then(|| Partition { point: mount.point.clone(), kind, uuid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    #[test]
    fn each_partition_is_what_udev_says_or_else_what_it_holds() {
        let scratch = Scratch::new();
        scratch.put(
            "/proc/self/mountinfo",
            "1 0 8:3 / / rw - ext4 /dev/sda3 rw\n\
             2 1 8:2 / /boot rw - ext4 /dev/sda2 rw\n\
             3 2 0:35 / /boot/efi rw - autofs systemd-1 rw\n\
             4 3 8:1 / /boot/efi rw - vfat /dev/sda1 rw\n",
        );
        scratch.directory("/boot/loader/entries");
        scratch.directory("/boot/efi/EFI");
        let found = || find(&scratch.root, &mut Vec::new());
        let kinds = || found().iter().map(|partition| partition.kind).collect::<Vec<_>>();
        assert_eq!(kinds(), [Kind::Esp, Kind::Xbootldr]);
        scratch.put(
            "/run/udev/data/b8:2",
            "S:disk\nE:ID_PART_ENTRY_TYPE=0fc63daf-8483-4772-8e79-3d69d8477de4\nE:ID_PART_ENTRY_UUID=AB-1\n",
        );
        assert_eq!(kinds(), [Kind::Esp, Kind::Other]);
        assert_eq!(found().last().and_then(|partition| partition.uuid.as_deref()), Some("ab-1"));
    }

    #[test]
    fn a_boot_directory_that_is_no_partition_of_its_own_is_none() {
        let scratch = Scratch::new();
        scratch.directory("/boot/loader/entries");
        scratch.put("/proc/self/mountinfo", "1 0 8:3 / / rw - ext4 /dev/sda3 rw\n");
        let mut notes = Vec::new();
        assert_eq!((find(&scratch.root, &mut notes), notes), (Vec::new(), Vec::new()));
    }

    #[test]
    fn one_partition_at_two_places_is_one_and_a_part_of_one_is_none() {
        let scratch = Scratch::new();
        scratch.directory("/efi/EFI");
        scratch.directory("/boot/EFI");
        let mounted = |part: &str| {
            let line = |point: &str| format!("2 1 8:1 {part} {point} rw - vfat /dev/sda1 rw\n");
            scratch.put("/proc/self/mountinfo", &[line("/efi"), line("/boot")].concat());
            let mut notes = Vec::new();
            (find(&scratch.root, &mut notes).len(), notes.len())
        };
        assert_eq!(mounted("/"), (1, 0));
        assert_eq!(mounted("/@boot"), (0, 2));
    }
}
