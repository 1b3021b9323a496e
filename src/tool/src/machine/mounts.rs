//! The mounts of this process.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::machine::root::Root;

/// One line of mountinfo (`proc_pid_mountinfo(5)`).
#[derive(Debug)]
pub struct Mount {
    /// The device number, `MAJOR:MINOR`.
    pub device: String,
    /// The part of the file system that is mounted: `/` is all of it.
    pub part: PathBuf,
    /// The mount point.
    pub point: PathBuf,
    /// The options of the mount: `rw,nosuid,noexec`.
    pub options: String,
    /// The file system's type.
    pub kind: String,
    /// The source of the mount, usually a device.
    pub source: PathBuf,
    /// The options of the file system itself, as the kernel writes them.
    pub of_system: String,
}

/// Gives the calling thread a private mount namespace. Mounts made outside appear in it, too, but not the
/// other way round.
pub fn own_namespace() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
}

impl Mount {
    /// Reads all mounts; empty if they cannot be read.
    #[must_use]
    pub fn all(root: &Root) -> Vec<Mount> {
        let text = fs::read_to_string(root.path("/proc/self/mountinfo")).unwrap_or_default();
        text.lines().filter_map(Mount::parse).collect()
    }

    /// Returns the mount that is visible at a mount point: if there are several, the last one.
    #[must_use]
    pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
        mounts.iter().rev().find(|mount| mount.point == point)
    }

    /// Returns where a path of this mount's file system is visible, if the path is in the mounted part and no
    /// other mount covers it.
    #[must_use]
    pub fn sees(&self, mounts: &[Mount], path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.part).ok()?;
        let seen = if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) };
        let over = Mount::over(mounts, &seen)?;
        std::ptr::eq(over, self).then_some(seen)
    }

    /// Returns the mount that a path is on.
    #[must_use]
    pub fn over<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
        // The deepest mount point counts, and of several mounts at one point the last. A later mount further
        // up would hide the deeper ones; that is not considered.
        let above = mounts.iter().enumerate().filter(|(_, mount)| path.starts_with(&mount.point));
        above.max_by_key(|(at, mount)| (mount.point.components().count(), *at)).map(|(_, mount)| mount)
    }

    /// Whether no file on this mount can be executed.
    #[must_use]
    pub fn is_noexec(&self) -> bool {
        self.options.split(',').any(|option| option == "noexec")
    }

    /// Returns the layers of an overlay (Documentation/filesystems/overlayfs.rst). These are the paths with
    /// which it was mounted; by now they may be visible elsewhere, or not at all.
    #[must_use]
    pub fn overlaid(&self) -> Vec<PathBuf> {
        let is_overlay = self.kind == "overlay";
        let options = self.of_system.split(',').filter(|_| is_overlay).filter_map(|it| it.split_once('='));
        options
            .filter(|(name, _)| ["lowerdir", "lowerdir+", "datadir+", "upperdir"].contains(name))
            .flat_map(|(_, paths)| paths.split(':').filter(|path| !path.is_empty()).map(unescaped))
            .collect()
    }

    fn parse(line: &str) -> Option<Mount> {
        let (before, behind) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let mut behind = behind.split(' ');
        Some(Mount {
            device: before.next()?.to_owned(),
            part: unescaped(before.next()?),
            point: unescaped(before.next()?),
            options: before.next()?.to_owned(),
            kind: behind.next()?.to_owned(),
            source: unescaped(behind.next()?),
            of_system: behind.next().unwrap_or_default().to_owned(),
        })
    }
}

/// Decodes a path from the kernel, which writes a byte that would end a field as `\` and three octal digits
/// (`mangle_path`, `fs/seq_file.c`).
#[must_use]
pub fn unescaped(path: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let code = behind.get(..3).filter(|_| byte == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { behind.get(3..).unwrap_or_default() } else { behind };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    #[test]
    fn a_path_lies_on_the_deepest_mount_and_of_two_on_the_last() {
        let scratch = Scratch::new();
        let mounts = "\
22 1 8:1 / / ro - ext4 /dev/sda1 ro
23 22 0:20 / /run rw,nosuid,noexec shared:5 - tmpfs tmpfs rw
24 23 0:21 / /run/init rw - tmpfs tmpfs rw
25 23 0:22 / /run/init rw,noexec - tmpfs tmpfs rw\n";
        scratch.put("/proc/self/mountinfo", mounts);
        let mounts = Mount::all(&scratch.root);
        for (path, device, noexec) in [
            ("/run/initramfs/shutdown", "0:20", true),
            ("/run/init/x", "0:22", true),
            ("/running", "8:1", false),
        ] {
            let mount = Mount::over(&mounts, Path::new(path));
            let found = mount.map(|mount| (mount.device.as_str(), mount.is_noexec()));
            assert_eq!(found, Some((device, noexec)), "{path}");
        }
    }
}
