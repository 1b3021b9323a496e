//! What is mounted where.

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
    /// Its device's numbers, `MAJOR:MINOR`.
    pub device: String,
    /// What of its file system is mounted: `/` is all of it.
    pub part: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// How: `rw,nosuid,noexec`.
    pub options: String,
    /// The file system's type.
    pub kind: String,
    /// Where it comes from, mostly a device.
    pub source: PathBuf,
    /// How, of the file system itself, as the kernel writes it.
    pub of_system: String,
}

/// A mount namespace of the calling thread's own: what is mounted outside is seen in it, too, and not the other way round.
pub fn own_namespace() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
}

impl Mount {
    /// All there are.
    #[must_use]
    pub fn all(root: &Root) -> Vec<Mount> {
        let text = fs::read_to_string(root.path("/proc/self/mountinfo")).unwrap_or_default();
        text.lines().filter_map(Mount::parse).collect()
    }

    /// The one that is seen at a place: of several the last.
    #[must_use]
    pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
        mounts.iter().rev().find(|mount| mount.point == point)
    }

    /// Where a path of its file system is seen, if nothing is mounted over that and the path lies in the part
    /// that is mounted here.
    #[must_use]
    pub fn sees(&self, mounts: &[Mount], path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.part).ok()?;
        let seen = if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) };
        let over = Mount::over(mounts, &seen)?;
        std::ptr::eq(over, self).then_some(seen)
    }

    /// The one that a path is on.
    #[must_use]
    pub fn over<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
        // Of several at one place the last is seen, and a later one at a place above hides those below.
        let above = mounts.iter().enumerate().filter(|(_, mount)| path.starts_with(&mount.point));
        above.max_by_key(|(at, mount)| (mount.point.components().count(), *at)).map(|(_, mount)| mount)
    }

    /// Whether nothing on it can be executed.
    #[must_use]
    pub fn is_noexec(&self) -> bool {
        self.options.split(',').any(|option| option == "noexec")
    }

    /// What an overlay lies on (Documentation/filesystems/overlayfs.rst). These are the paths that it was mounted
    /// with, which may be seen elsewhere by now, or nowhere.
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

/// A path as the kernel writes it: a byte that would end a field is `\` and three octal digits
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
