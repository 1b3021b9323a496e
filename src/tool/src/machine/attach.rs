//! Mounts unmounted file systems that boot entries lie on: read-only, and for this process alone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use thiserror::Error;

use crate::machine::file_systems::{self, FileSystem, Line, Name, fstab};
use crate::machine::mounts::{Mount, own_namespace};
use crate::machine::root::Root;

/// The usual mount points of a boot loader's partitions (Boot Loader Specification, "Mount Points").
pub const POINTS: [&str; 3] = ["/efi", "/boot", "/boot/efi"];

/// The directory for partitions that have no mount point of their own; each gets a numbered directory in it.
pub const ASIDE: &str = "/run/nextkernel/look";

/// The option for the top-level subvolume of a btrfs, whatever its default subvolume is (btrfs(5)).
const TOP: &str = "subvolid=5";

/// The types that are mounted, in the order in which they are tried if the type is unknown. Each has the
/// option that keeps the mount from writing: the journal is not replayed (`ext4(5)`, `xfs(5)`, `btrfs(5)`,
/// and Documentation/filesystems/f2fs.rst).
const TYPES: [(&str, &str); 7] = [
    ("vfat", ""),
    ("ext4", "noload"),
    ("ext3", "noload"),
    ("ext2", ""),
    ("xfs", "norecovery"),
    ("btrfs", "rescue=nologreplay"),
    ("f2fs", "norecovery"),
];

/// Options in fstab(5) that mean more than a file system on a device.
const NOT_PLAIN: [&str; 4] = ["bind", "rbind", "loop", "offset="];

/// Why a file system was not mounted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The file system or the file was not found.
    #[error(transparent)]
    Missing(#[from] file_systems::Error),
    /// Only root may mount.
    #[error(
        "{device} is not mounted, and mounting it takes root; run this with sudo, or mount it at {point}"
    )]
    NotRoot {
        /// The name of the file system.
        device: String,
        /// The mount point that would be used.
        point: String,
    },
    /// The kernel refused to mount it.
    #[error("{device} is not mounted, and cannot be mounted read-only for a look: {why}")]
    Refused {
        /// The name of the file system.
        device: String,
        /// The reason.
        why: String,
    },
    /// nextkernel does not mount it.
    #[error("{device} is not mounted, and is no plain file system on a device ({what}); mount it")]
    NotPlain {
        /// The name of the file system.
        device: String,
        /// The option or type that is not plain.
        what: String,
    },
}

/// This process's private view of the mounts; mounts that are added here disappear with the process.
pub struct Attached<'a> {
    root: &'a Root,
    is_own: bool,
    aside: u32,
    points: Vec<PathBuf>,
    /// Why /boot is not the right one: its file system in fstab(5) could not be mounted, and any files seen
    /// there are those below the mount point.
    pub hidden: Option<Error>,
    /// Messages about the mounts, for a person.
    pub notes: Vec<String>,
}

impl<'a> Attached<'a> {
    /// Starts with no mounts of its own.
    #[must_use]
    pub fn new(root: &'a Root) -> Attached<'a> {
        Attached { root, is_own: false, aside: 0, points: Vec::new(), hidden: None, notes: Vec::new() }
    }

    /// Mounts the file systems that fstab(5) has for the boot loader's mount points, if nothing is mounted
    /// there.
    pub fn of_fstab(&mut self) {
        for point in POINTS {
            // An access triggers an automount, but no longer in a mount namespace of our own.
            let _ = self.root.path(point).join("loader").metadata();
        }
        let lines = fstab(self.root).unwrap_or_default();
        // /boot comes before /boot/efi, whatever the order of the lines.
        for point in POINTS.map(Path::new) {
            let mounts = Mount::all(self.root);
            let Some(line) = lines.iter().find(|line| line.point == point) else { continue };
            if Mount::at(&mounts, point).is_some() {
                continue;
            }
            if let Err(error) = self.line(line, point) {
                self.notes.push(error.to_string());
                if point == Path::new("/boot") {
                    self.hidden = Some(error);
                }
            }
        }
    }

    fn line(&mut self, line: &Line, point: &Path) -> Result<(), Error> {
        let what = |what: &str| Error::NotPlain { device: line.what.clone(), what: what.to_owned() };
        let name = Name::of_fstab(&line.what).ok_or_else(|| what(&line.kind))?;
        let options: Vec<_> = line.options.split(',').collect();
        let strange = options.iter().find(|option| NOT_PLAIN.iter().any(|not| option.starts_with(not)));
        if let Some(strange) = strange {
            return Err(what(strange));
        }
        let part = options.iter().find(|option| option.starts_with("subvol"));
        let kind = Some(line.kind.as_str()).filter(|kind| *kind != "auto");
        self.attach(&name, kind, point, part.copied())
    }

    /// Whether a path can be seen only because its file system was mounted here.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        self.points.iter().any(|point| path.starts_with(point))
    }

    /// Mounts a partition at a free mount point of the boot loader's, or else in a directory below [`ASIDE`].
    pub fn partition(&mut self, uuid: &str) -> Result<(), Error> {
        let mounts = Mount::all(self.root);
        let is_free = |point: &Path| {
            let files = || fs::read_dir(self.root.path(point)).map(|mut files| files.next().is_none());
            Mount::at(&mounts, point).is_none() && files().unwrap_or(false)
        };
        let free = POINTS.map(Path::new).into_iter().find(|point| is_free(point));
        let point = free.map_or_else(|| self.next_aside(), Path::to_path_buf);
        self.attach(&Name::PartUuid(uuid.to_owned()), None, &point, None)
    }

    /// Returns where a file of a file system can be seen, and mounts the file system for that if necessary.
    /// On btrfs, `path` begins at the top-level subvolume, or with `in_default_subvolume` at the default one.
    pub fn path(&mut self, name: &Name, path: &str, in_default_subvolume: bool) -> Result<PathBuf, Error> {
        let mounts = Mount::all(self.root);
        let (kind, option) = match FileSystem::called(self.root, &mounts, name) {
            Ok(found) if found.kind == "btrfs" && in_default_subvolume => (Some(found.kind), None),
            Ok(found) => match found.path(&mounts, path) {
                Ok(seen) if found.holds(self.root, &mounts, &seen) => return Ok(seen),
                Ok(seen) => return Err(file_systems::Error::Elsewhere(seen).into()),
                Err(file_systems::Error::Unseen(_)) if found.kind == "btrfs" => (Some(found.kind), Some(TOP)),
                Err(error) => return Err(error.into()),
            },
            Err(file_systems::Error::NotMounted(_)) => {
                let kind = type_of(self.root, &name.device(self.root)?);
                let top = kind.as_deref() == Some("btrfs") && !in_default_subvolume;
                (kind, top.then_some(TOP))
            }
            Err(error) => return Err(error.into()),
        };
        let point = self.next_aside();
        self.attach(name, kind.as_deref(), &point, option)?;
        let seen = point.join(path.trim_start_matches('/'));
        let mounts = Mount::all(self.root);
        let holds = FileSystem::called(self.root, &mounts, name)
            .is_ok_and(|found| found.holds(self.root, &mounts, &seen));
        if holds { Ok(seen) } else { Err(file_systems::Error::Elsewhere(seen).into()) }
    }

    fn next_aside(&mut self) -> PathBuf {
        self.aside += 1;
        Path::new(ASIDE).join(self.aside.to_string())
    }

    fn attach(
        &mut self,
        name: &Name,
        kind: Option<&str>,
        point: &Path,
        option: Option<&str>,
    ) -> Result<(), Error> {
        let device = name.device(self.root)?;
        let shown = name.to_string();
        // In a test's scratch system nothing is mounted.
        if !nix::unistd::geteuid().is_root() || !self.root.is_system() {
            return Err(Error::NotRoot { device: shown, point: point.display().to_string() });
        }
        let refused =
            |why: &dyn std::fmt::Display| Error::Refused { device: shown.clone(), why: why.to_string() };
        let told = kind.map(str::to_owned).or_else(|| type_of(self.root, &device));
        let is_known = |kind: &&str| told.as_deref().is_none_or(|told| told == *kind);
        let kinds: Vec<_> = TYPES.iter().filter(|(kind, _)| is_known(kind)).collect();
        if kinds.is_empty() {
            return Err(Error::NotPlain { device: shown, what: told.unwrap_or_default() });
        }
        if !self.is_own {
            own_namespace().map_err(|errno| refused(&errno.desc()))?;
            self.is_own = true;
        }
        if point.starts_with(ASIDE) {
            fs::create_dir_all(point).map_err(|error| refused(&error))?;
        }
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let is_mounted = FileSystem::called(self.root, &Mount::all(self.root), name).is_ok();
        let mut last = None;
        for (kind, quiet) in kinds {
            // If the file system is mounted already, its journal was replayed then, and a different option
            // would be refused.
            let quiet = Some(*quiet).filter(|quiet| !quiet.is_empty() && !is_mounted);
            let options: Vec<_> = option.into_iter().chain(quiet).collect();
            match mount(Some(&device), point, Some(*kind), flags, Some(options.join(",").as_str())) {
                Ok(()) => {
                    self.points.push(point.to_path_buf());
                    self.notes.push(format!(
                        "{shown} is not mounted; it was read at {}, where it is mounted read-only for this command \
                         alone",
                        point.display()
                    ));
                    return Ok(());
                }
                Err(errno) => last = Some(errno),
            }
        }
        Err(refused(&last.map_or("no type of file system fits", nix::errno::Errno::desc)))
    }
}

/// Returns the UUID of the partition of type `kind` on the disk that holds the partition `of`, from udev's
/// database. UUIDs and types are in lower case.
#[must_use]
pub fn sibling(root: &Root, of: &str, kind: &str) -> Option<String> {
    let known = fs::read_dir(root.path("/run/udev/data")).ok()?;
    let texts: Vec<_> = known
        .flatten()
        .filter(|file| file.file_name().as_encoded_bytes().starts_with(b"b"))
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .collect();
    let says = |text: &str, key: &str| property(text, key).map(str::to_ascii_lowercase);
    let uuid = |text: &str| says(text, "ID_PART_ENTRY_UUID");
    let disk = |text: &str| says(text, "ID_PART_ENTRY_DISK");
    let own = texts.iter().find(|text| uuid(text).as_deref() == Some(of)).and_then(|text| disk(text))?;
    let mut there = texts.iter().filter(|text| {
        disk(text).as_ref() == Some(&own) && says(text, "ID_PART_ENTRY_TYPE").as_deref() == Some(kind)
    });
    there.next().and_then(|text| uuid(text))
}

/// Returns a property from an entry of udev's database.
#[must_use]
pub fn property<'a>(entry: &'a str, name: &str) -> Option<&'a str> {
    entry.lines().find_map(|line| line.strip_prefix("E:")?.strip_prefix(name)?.strip_prefix('='))
}

/// Returns the type of the file system on a device, as udev detected it.
fn type_of(root: &Root, device: &Path) -> Option<String> {
    let rdev = fs::metadata(root.path(device)).ok()?.rdev();
    let (major, minor) = (nix::sys::stat::major(rdev), nix::sys::stat::minor(rdev));
    let known = fs::read_to_string(root.path(format!("/run/udev/data/b{major}:{minor}"))).ok()?;
    property(&known, "ID_FS_TYPE").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    #[test]
    fn what_fstab_has_for_the_boot_loader_and_is_not_mounted_is_said() {
        let scratch = Scratch::new();
        scratch.put(
            "/etc/fstab",
            "UUID=1 /boot ext4 noauto\nUUID=2 /efi vfat\nUUID=3 /boot/efi vfat\nUUID=4 /srv xfs\n",
        );
        scratch.put("/proc/self/mountinfo", "1 0 8:3 / /efi rw - vfat /dev/sda3 rw\n");
        scratch.put("/dev/disk/by-uuid/1", "");
        let mut attached = Attached::new(&scratch.root);
        attached.of_fstab();
        let [boot, efi] = attached.notes.as_slice() else { unreachable!("{:?}", attached.notes) };
        assert!(boot.contains("UUID=1 is not mounted, and mounting it takes root"), "{boot}");
        assert_eq!(efi, "no file system here is UUID=3");
        assert!(matches!(attached.hidden, Some(Error::NotRoot { .. })));
        scratch.put("/etc/fstab", "/dev/sdb1 /boot ext4 bind\n");
        let mut attached = Attached::new(&scratch.root);
        attached.of_fstab();
        let sentence = attached.hidden.map(|error| error.to_string()).unwrap_or_default();
        assert!(sentence.contains("no plain file system on a device (bind)"), "{sentence}");
    }

    #[test]
    fn the_extended_boot_partition_is_the_one_on_the_same_disk() {
        let scratch = Scratch::new();
        for (number, kind, uuid, disk) in [
            ("8:1", "esp", "A-1", "8:0"),
            ("8:2", "xbootldr", "A-2", "8:0"),
            ("9:2", "xbootldr", "B-2", "9:0"),
        ] {
            let text = format!(
                "E:ID_PART_ENTRY_TYPE={kind}\nE:ID_PART_ENTRY_UUID={uuid}\nE:ID_PART_ENTRY_DISK={disk}\n"
            );
            scratch.put(&format!("/run/udev/data/b{number}"), &text);
        }
        assert_eq!(sibling(&scratch.root, "a-1", "xbootldr").as_deref(), Some("a-2"));
        assert_eq!(sibling(&scratch.root, "a-1", "swap"), None);
        assert_eq!(sibling(&scratch.root, "c-1", "xbootldr"), None);
    }
}
