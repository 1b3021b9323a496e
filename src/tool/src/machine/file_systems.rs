//! File systems by the names that boot loaders use, and the paths at which their files can be seen.

use std::path::{Component, Path, PathBuf};
use std::{fmt, fs, io};

use thiserror::Error;

use crate::machine::mounts::Mount;
use crate::machine::root::Root;

/// The name of a file system in a boot loader's configuration or in fstab(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// The UUID of the file system.
    Uuid(String),
    /// The label of the file system.
    Label(String),
    /// The UUID of its partition.
    PartUuid(String),
    /// The name of its partition.
    PartLabel(String),
    /// Its device.
    Device(PathBuf),
    /// A file on it.
    Holds(String),
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its device number as in mountinfo, which is the same for all its mounts, on btrfs, too.
    device: String,
    /// Its type.
    pub kind: String,
}

/// Why a file was not found on a file system.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// There is no such device.
    #[error("no file system here is {0}")]
    Missing(Name),
    /// The device exists, but is not mounted.
    #[error("{0} is not mounted")]
    NotMounted(Name),
    /// Several file systems hold that file.
    #[error("several file systems hold {0}, and nobody can tell which of them the boot loader finds first")]
    Several(String),
    /// The path is in a part of the file system that is not visible at any mount.
    #[error("{0} lies on its file system where nothing is mounted")]
    Unseen(PathBuf),
    /// The path leads above the root of its file system.
    #[error("{0:?} leads out of its file system")]
    Outside(String),
    /// The path is a link that leads to another file system.
    #[error("{} is a link to another file system, which the boot loader would follow elsewhere", .0.display())]
    Elsewhere(PathBuf),
}

impl Name {
    /// Parses the name in fstab(5)'s form.
    #[must_use]
    pub fn of_fstab(word: &str) -> Option<Name> {
        let value = |tag: &str| {
            let value = word.strip_prefix(tag)?.strip_prefix('=')?;
            Some(value.trim_matches('"').to_owned())
        };
        let is_device = || word.starts_with("/dev/").then(|| Name::Device(PathBuf::from(word)));
        value("UUID")
            .map(Name::Uuid)
            .or_else(|| value("LABEL").map(Name::Label))
            .or_else(|| value("PARTUUID").map(Name::PartUuid))
            .or_else(|| value("PARTLABEL").map(Name::PartLabel))
            .or_else(is_device)
    }

    /// Finds the device through udev's links (udev(7), 60-persistent-storage.rules).
    pub fn device(&self, root: &Root) -> Result<PathBuf, Error> {
        let missing = || Error::Missing(self.clone());
        let (directory, name) = match self {
            Name::Uuid(name) => ("/dev/disk/by-uuid", name),
            Name::Label(name) => ("/dev/disk/by-label", name),
            Name::PartUuid(name) => ("/dev/disk/by-partuuid", name),
            Name::PartLabel(name) => ("/dev/disk/by-partlabel", name),
            Name::Device(path) => {
                return if root.path(path).exists() { Ok(path.clone()) } else { Err(missing()) };
            }
            Name::Holds(_) => return Err(missing()),
        };
        let links = fs::read_dir(root.path(directory)).into_iter().flatten().flatten();
        // GRUB ignores the case of UUIDs. udev writes any character that is not plain as \xHH.
        let is_it = |found: &str| match self {
            Name::Uuid(_) | Name::PartUuid(_) => found.eq_ignore_ascii_case(name),
            _ => unescaped(found) == name.as_bytes(),
        };
        let mut links = links.filter_map(|link| link.file_name().into_string().ok());
        links.find(|link| is_it(link)).map(|link| Path::new(directory).join(link)).ok_or_else(missing)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Uuid(uuid) => write!(out, "UUID={uuid}"),
            Name::Label(label) => write!(out, "LABEL={label}"),
            Name::PartUuid(uuid) => write!(out, "PARTUUID={uuid}"),
            Name::PartLabel(label) => write!(out, "PARTLABEL={label}"),
            Name::Device(path) => write!(out, "{}", path.display()),
            Name::Holds(path) => write!(out, "the file system that holds {path}"),
        }
    }
}

impl FileSystem {
    fn of(mount: &Mount) -> FileSystem {
        FileSystem { device: mount.device.clone(), kind: mount.kind.clone() }
    }

    /// Finds the mounted file system of that name.
    pub fn called(root: &Root, mounts: &[Mount], name: &Name) -> Result<FileSystem, Error> {
        match name {
            Name::Holds(path) => return FileSystem::that_holds(root, mounts, path),
            Name::Device(path) => {
                if let Some(mount) = mounts.iter().find(|mount| mount.source == *path) {
                    return Ok(FileSystem::of(mount));
                }
            }
            _ => {}
        }
        let device = name.device(root)?;
        let numbers = numbers(root, &device);
        let node = |path: &Path| fs::canonicalize(root.path(path)).ok();
        let (of_it, this) = (node(&device), |mount: &&Mount| numbers.as_ref() == Some(&mount.device));
        // btrfs shows numbers of its own; the path of the device identifies it.
        let sourced = |mount: &&Mount| of_it.is_some() && node(&mount.source) == of_it;
        let mount = mounts.iter().find(this).or_else(|| mounts.iter().find(sourced));
        let mount = mount.ok_or_else(|| Error::NotMounted(name.clone()))?;
        Ok(FileSystem::of(mount))
    }

    fn that_holds(root: &Root, mounts: &[Mount], path: &str) -> Result<FileSystem, Error> {
        let all = mounts.iter().filter(|mount| mount.source.starts_with("/dev/"));
        let holding = all.map(FileSystem::of);
        let mut found: Vec<FileSystem> = Vec::new();
        for one in holding {
            let there = one.path(mounts, path).is_ok_and(|path| root.path(path).exists());
            if there && !found.contains(&one) {
                found.push(one);
            }
        }
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(Error::Missing(Name::Holds(path.to_owned()))),
            _ => Err(Error::Several(path.to_owned())),
        }
    }

    /// Returns where a file can be seen; `path` begins at the root of this file system.
    pub fn path(&self, mounts: &[Mount], path: &str) -> Result<PathBuf, Error> {
        let path = plain(path)?;
        let mut own = mounts.iter().filter(|mount| mount.device == self.device);
        let seen = own.find_map(|mount| mount.sees(mounts, &path));
        seen.ok_or(Error::Unseen(path))
    }

    /// Whether `seen`, if it is a link, leads to a file on this file system. A boot loader follows links from
    /// the top of this file system, but the running system follows them from its own root.
    #[must_use]
    pub fn holds(&self, root: &Root, mounts: &[Mount], seen: &Path) -> bool {
        let top = fs::canonicalize(root.path("/")).unwrap_or_default();
        let Ok(real) = fs::canonicalize(root.path(seen)) else { return true };
        let real = Path::new("/").join(real.strip_prefix(&top).unwrap_or(&real));
        Mount::over(mounts, &real).is_some_and(|mount| mount.device == self.device)
    }

    /// Returns the path that a visible file has on its own file system.
    #[must_use]
    pub fn own_path(mounts: &[Mount], seen: &Path) -> Option<PathBuf> {
        let mount = Mount::over(mounts, seen)?;
        let below = seen.strip_prefix(&mount.point).ok()?;
        Some(if below.as_os_str().is_empty() { mount.part.clone() } else { mount.part.join(below) })
    }
}

/// Resolves `.` and `..` without looking at files, and makes the path absolute.
fn plain(path: &str) -> Result<PathBuf, Error> {
    let mut plain = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir if plain.parent().is_some() => {
                plain.pop();
            }
            Component::ParentDir => return Err(Error::Outside(path.to_owned())),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(plain)
}

/// Returns the number of a block device, `MAJOR:MINOR` (Documentation/admin-guide/sysfs-rules.rst).
fn numbers(root: &Root, device: &Path) -> Option<String> {
    let node = fs::canonicalize(root.path(device)).ok()?;
    let name = node.file_name()?.to_str()?.to_owned();
    root.fact(&format!("/sys/class/block/{name}/dev"))
}

/// Decodes udev's `\xHH` (udev's `encode_devnode_name`).
fn unescaped(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let code = behind.strip_prefix(b"x").filter(|_| byte == b'\\').and_then(|behind| behind.get(..2));
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { behind.get(3..).unwrap_or_default() } else { behind };
    }
    bytes
}

/// A line of fstab(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file system that is mounted, as it is written in the file.
    pub what: String,
    /// The mount point.
    pub point: PathBuf,
    /// The type of the file system.
    pub kind: String,
    /// The mount options; empty if there are none.
    pub options: String,
}

/// Reads the lines of fstab(5).
pub fn fstab(root: &Root) -> io::Result<Vec<Line>> {
    let text = fs::read_to_string(root.path("/etc/fstab"))?;
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::to_owned);
        let what = fields.next().filter(|what| !what.starts_with('#'))?;
        let point = crate::machine::mounts::unescaped(&fields.next()?);
        Some(Line { what, point, kind: fields.next()?, options: fields.next().unwrap_or_default() })
    });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;

    /// A btrfs with its root in one subvolume and /boot in another, and an ESP.
    fn machine() -> (Scratch, Vec<Mount>) {
        let scratch = Scratch::new();
        scratch.put(
            "/proc/self/mountinfo",
            "1 0 0:25 /@ / rw - btrfs /dev/vda2 rw\n\
             2 1 0:25 /@boot /boot rw - btrfs /dev/vda2 rw\n\
             3 2 254:1 / /boot/efi rw - vfat /dev/vda1 rw\n\
             4 1 254:17 / /srv rw - ext4 /dev/vdb1 rw\n",
        );
        for (device, numbers, uuid) in
            [("vda1", "254:1", "AB12-34CD"), ("vda2", "254:2", "6e3f"), ("vdb1", "254:17", "7777")]
        {
            scratch.put(&format!("/dev/{device}"), "");
            scratch.put(&format!("/sys/class/block/{device}/dev"), &format!("{numbers}\n"));
            scratch.link(&format!("/dev/disk/by-uuid/{uuid}"), &format!("/dev/{device}"));
        }
        scratch.link("/dev/disk/by-label/my\\x20disk", "/dev/vdb1");
        let mounts = Mount::all(&scratch.root);
        (scratch, mounts)
    }

    #[test]
    fn a_path_is_found_where_its_file_system_is_seen() {
        let (scratch, mounts) = machine();
        let at = |name: Name, path: &str| {
            let found = FileSystem::called(&scratch.root, &mounts, &name)?;
            found.path(&mounts, path)
        };
        let uuid = |uuid: &str| Name::Uuid(uuid.to_owned());
        assert_eq!(at(uuid("6E3F"), "/@/usr/lib/x"), Ok("/usr/lib/x".into()));
        assert_eq!(at(uuid("6e3f"), "/@boot/vmlinuz"), Ok("/boot/vmlinuz".into()));
        assert_eq!(at(uuid("ab12-34cd"), "EFI/./x/../y"), Ok("/boot/efi/EFI/y".into()));
        assert_eq!(at(Name::Label("my disk".into()), "/k"), Ok("/srv/k".into()));
        assert_eq!(at(uuid("6e3f"), "/@snapshots/1"), Err(Error::Unseen("/@snapshots/1".into())));
        assert_eq!(at(uuid("6e3f"), "/@/boot/x"), Err(Error::Unseen("/@/boot/x".into())), "/boot is over it");
        assert_eq!(at(uuid("6e3f"), "/../x"), Err(Error::Outside("/../x".into())));
        assert_eq!(at(uuid("0"), "/x"), Err(Error::Missing(uuid("0"))));
    }

    #[test]
    fn a_file_system_that_is_mounted_nowhere_is_told_from_none() {
        let (scratch, mut mounts) = machine();
        mounts.retain(|mount| mount.point != Path::new("/srv"));
        let name = Name::Uuid("7777".to_owned());
        let found = FileSystem::called(&scratch.root, &mounts, &name);
        assert_eq!(found.unwrap_err().to_string(), "UUID=7777 is not mounted");
    }

    #[test]
    fn by_a_file_it_is_found_where_one_alone_holds_it() {
        let (scratch, mounts) = machine();
        let found = |path: &str| FileSystem::called(&scratch.root, &mounts, &Name::Holds(path.to_owned()));
        assert!(found("/.disk/1").is_err());
        scratch.put("/srv/.disk/1", "");
        assert_eq!(found("/.disk/1").unwrap().device, "254:17");
        scratch.put("/boot/efi/.disk/1", "");
        assert_eq!(found("/.disk/1"), Err(Error::Several("/.disk/1".to_owned())));
    }

    #[test]
    fn what_is_seen_has_a_path_of_its_own_and_fstab_names_what_it_mounts() {
        let (scratch, mounts) = machine();
        let own = |seen: &str| FileSystem::own_path(&mounts, Path::new(seen)).unwrap();
        assert_eq!(own("/boot/grub"), Path::new("/@boot/grub"));
        assert_eq!(own("/boot/efi"), Path::new("/"));
        scratch.put("/etc/fstab", "# x\nUUID=1 / ext4 defaults 0 1\nPARTLABEL=\"esp\"\t/boot\\040x vfat\n");
        let lines = fstab(&scratch.root).unwrap();
        assert_eq!(lines.len(), 2);
        let line = lines.last().unwrap();
        assert_eq!(Name::of_fstab(&line.what), Some(Name::PartLabel("esp".to_owned())));
        assert_eq!((line.point.as_path(), line.kind.as_str()), (Path::new("/boot x"), "vfat"));
        assert_eq!(Name::of_fstab("server:/x"), None);
    }
}
