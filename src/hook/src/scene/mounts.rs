//! Finds file systems that are still writable. An init unmounts or remounts read-only all it can. A jump would
//! interrupt writes to the rest.

use core::ffi::CStr;

use rustix::fs::CWD;
use rustix::io;

use crate::sys::name::Name;
use crate::sys::{files, limits};

/// All mounts of this process (`proc_pid_mountinfo(5)`).
pub const MOUNTINFO: &CStr = c"/proc/self/mountinfo";

/// File systems whose contents end with this kernel, or that lie on another one which is judged itself
/// (overlay), or that are served by a program that the init has ended (fuse).
const NOTHING_TO_LOSE: [&[u8]; 38] = [
    b"autofs",
    b"binder",
    b"binfmt_misc",
    b"bpf",
    b"cgroup",
    b"cgroup2",
    b"configfs",
    b"cpuset",
    b"debugfs",
    b"devpts",
    b"devtmpfs",
    b"efivarfs",
    b"functionfs",
    b"fuse",
    b"fusectl",
    b"gadgetfs",
    b"hugetlbfs",
    b"ibmasmfs",
    b"ipathfs",
    b"mqueue",
    b"nfsd",
    b"nsfs",
    b"nullfs",
    b"ocfs2_dlmfs",
    b"overlay",
    b"proc",
    b"pstore",
    b"ramfs",
    b"resctrl",
    b"rootfs",
    b"rpc_pipefs",
    b"securityfs",
    b"selinuxfs",
    b"smackfs",
    b"sysfs",
    b"tmpfs",
    b"tracefs",
    b"xenfs",
];

/// A mount that is still writable. Long names are cut.
#[derive(Clone, Copy, Debug)]
pub struct Writable {
    /// The mount point, as mountinfo escapes it.
    pub path: Name<104>,
    /// The type of file system.
    pub kind: Name<16>,
}

/// Returns the first file system with something to lose that is left writable.
pub fn first_writable() -> io::Result<Option<Writable>> {
    files::find_line(CWD, MOUNTINFO, writable)
}

/// Judges one line of mountinfo (`proc_pid_mountinfo(5)`). The options of the file system itself, after the
/// dash, count, because a mount can be read-only while its file system is written to through another mount.
/// Only the first of these options is reliable (`show_mountinfo`, `fs/proc_namespace.c`): the others come from
/// the file system, and may contain any text.
#[must_use]
pub fn writable(line: &[u8]) -> Option<Writable> {
    let mut fields = line.split(|byte| *byte == b' ');
    let path = fields.nth(4).unwrap_or_default();
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = fields.next().unwrap_or_default();
    let options = fields.nth(1).unwrap_or_default();
    let read_only = options.split(|byte| *byte == b',').next() == Some(b"ro");
    let served = kind.starts_with(b"fuse.");
    (!read_only && !served && !NOTHING_TO_LOSE.contains(&kind))
        .then(|| Writable { path: Name::cut(path), kind: Name::cut(kind) })
}

/// Calls `act` with the mount point of each line that `concerns` selects, and with the number of mount points
/// before it. The last mounted comes first, because it may lie on an earlier one. mountinfo is read again after
/// every few hundred mount points, and those that stay are skipped.
pub fn last_first(
    mut concerns: impl FnMut(&[u8]) -> bool,
    mut act: impl FnMut(&CStr, usize),
) -> io::Result<()> {
    let mut last = Last { bytes: [0; limits::MOUNT_POINTS_MAX], length: 0, count: 0 };
    let (mut up_to, mut done) = (usize::MAX, 0);
    loop {
        last.forget();
        let mut seen = 0;
        files::find_line(CWD, MOUNTINFO, |line| {
            if concerns(line) {
                seen += 1;
                if seen <= up_to {
                    let mut path = [0; limits::MOUNT_POINT_MAX];
                    last.keep(point(line, &mut path).unwrap_or_default());
                }
            }
            None::<()>
        })?;
        if last.count == 0 {
            return Ok(());
        }
        last.each_from_the_end(|path| {
            // A path that is too long for the buffer stays, and is found by the check before the jump.
            if !path.is_empty() {
                act(path, done);
            }
            done += 1;
        });
        // The mount points after these have had their turn.
        up_to = seen.min(up_to).saturating_sub(last.count);
    }
}

/// The last mount points of a list, as many as there is room for.
struct Last {
    /// The mount points, each with its NUL.
    bytes: [u8; limits::MOUNT_POINTS_MAX],
    length: usize,
    count: usize,
}

impl Last {
    fn forget(&mut self) {
        (self.length, self.count) = (0, 0);
    }

    /// Adds a mount point, and drops the first ones if there is no room for all.
    fn keep(&mut self, path: &CStr) {
        let path = path.to_bytes_with_nul();
        while self.length + path.len() > self.bytes.len() {
            let end = self.held().iter().position(|byte| *byte == 0).map_or(self.length, |end| end + 1);
            self.bytes.copy_within(end..self.length, 0);
            (self.length, self.count) = (self.length - end, self.count.saturating_sub(1));
        }
        let end = self.length + path.len();
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(path);
            (self.length, self.count) = (end, self.count + 1);
        }
    }

    fn each_from_the_end(&self, act: impl FnMut(&CStr)) {
        let paths = self.held().split_inclusive(|byte| *byte == 0);
        paths.rev().filter_map(|path| CStr::from_bytes_with_nul(path).ok()).for_each(act);
    }

    fn held(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Returns the mount point on a line, in the caller's buffer.
pub fn point<'b>(line: &[u8], buffer: &'b mut [u8]) -> Option<&'b CStr> {
    unescape(line.split(|byte| *byte == b' ').nth(4)?, buffer)
}

/// Decodes a path from /proc. A byte that would end its field is written there as `\\` and three octal digits
/// (`mangle_path`, `fs/seq_file.c`).
pub fn unescape<'b>(mut escaped: &[u8], buffer: &'b mut [u8]) -> Option<&'b CStr> {
    let mut length = 0;
    while let Some((first, rest)) = escaped.split_first() {
        let (byte, rest) = match (first, rest) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..]) => {
                (((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'), rest)
            }
            _ => (*first, rest),
        };
        *buffer.get_mut(length)? = byte;
        (length, escaped) = (length + 1, rest);
    }
    *buffer.get_mut(length)? = 0;
    CStr::from_bytes_with_nul(buffer.get(..=length)?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::ffi::CString;
    use std::vec::Vec;

    #[test]
    fn what_is_left_writable_is_found_and_named() {
        for (line, found) in [
            ("22 1 254:0 / / rw,relatime - ext4 /dev/vda rw", Some("/ ext4")),
            ("22 1 254:0 / / ro,relatime - ext4 /dev/vda ro", None),
            ("22 1 254:0 / / ro,relatime - ext4 /dev/vda rw,errors=remount-ro", Some("/ ext4")),
            ("22 1 254:0 / / ro,relatime shared:1 master:2 - ext4 /dev/vda ro,seclabel", None),
            ("22 1 0:30 /root / rw - btrfs /dev/vda rw,space_cache=v2", Some("/ btrfs")),
            (
                "22 1 0:30 /x,ro / rw - btrfs /dev/vda rw,space_cache=v2,subvolid=256,subvol=/x,ro",
                Some("/ btrfs"),
            ),
            ("22 1 0:30 /x / ro - btrfs /dev/vda rw,ro", Some("/ btrfs")),
            ("22 1 0:31 / /proc/xen rw - xenfs xenfs rw", None),
            ("22 1 0:32 / /dev/cpuset rw - cpuset none rw", None),
            ("22 1 0:40 / /srv rw - nfs4 host:/x rw,vers=4.2", Some("/srv nfs4")),
            ("22 1 0:41 / /tank rw - zfs tank rw,xattr", Some("/tank zfs")),
            ("22 1 8:1 / /mnt rw - fuseblk /dev/sda1 rw,user_id=0", Some("/mnt fuseblk")),
            ("22 1 0:5 / /run rw,nosuid - tmpfs tmpfs rw,size=98M", None),
            ("22 1 0:9 / /x rw - fuse.gvfsd-fuse gvfsd-fuse rw", None),
            ("22 1 0:9 / / rw - overlay overlay rw,lowerdir=/a:/b,upperdir=/run/u", None),
            ("22 1 254:0 / /a\\040b rw - ext4 /dev/vda rw", Some("/a\\040b ext4")),
            ("", Some(" ")),
            ("garbage", Some(" ")),
        ] {
            let text = |at: Writable| format!("{} {}", at.path, at.kind);
            assert_eq!(writable(line.as_bytes()).map(text).as_deref(), found, "{line}");
        }
    }

    #[test]
    fn of_many_mount_points_the_last_are_kept_and_come_from_the_end() {
        let mut last = Last { bytes: [0; limits::MOUNT_POINTS_MAX], length: 0, count: 0 };
        let path = |number: usize| CString::new(format!("/srv/{number:0100}")).unwrap();
        for number in 0..5000 {
            last.keep(&path(number));
        }
        let mut next = 5000;
        last.each_from_the_end(|kept| {
            next -= 1;
            assert_eq!(kept, &*path(next));
        });
        assert!(last.count == 5000 - next && last.count > 100, "{}", last.count);
    }

    #[test]
    fn every_mount_has_its_turn_once_though_none_of_them_goes() {
        let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut turns = Vec::new();
        last_first(|_| true, |path, before| turns.push((path.to_owned(), before))).unwrap();
        assert_eq!(turns.len(), all.lines().count());
        assert!(turns.iter().enumerate().all(|(number, turn)| turn.1 == number));
        let first = all.lines().next().unwrap().split(' ').nth(4).unwrap();
        assert_eq!(turns.last().unwrap().0.to_str().unwrap(), first);
    }

    #[test]
    fn a_mount_point_is_read_as_it_was_escaped_and_no_longer_than_its_place() {
        let mut buffer = [0; 8];
        let mut point = |path: &str| {
            let line = format!("22 1 8:1 / {path} rw - ext4 x rw");
            point(line.as_bytes(), &mut buffer).map(CStr::to_owned)
        };
        assert_eq!(point("/").as_deref(), Some(c"/"));
        assert_eq!(point("/a\\040b\\134").as_deref(), Some(c"/a b\\"));
        assert_eq!(point("/a\\04").as_deref(), Some(c"/a\\04"));
        assert_eq!(point("/a\\400").as_deref(), Some(c"/a\\400"));
        assert_eq!(point("/23456").as_deref(), Some(c"/23456"));
        assert_eq!(point("/2345678"), None);
        assert_eq!(point("/a\\000"), None);
        assert_eq!(super::point(b"22 1 8:1 / /\xff\\377 rw", &mut buffer), Some(c"/\xff\xff"));
        assert_eq!(super::point(b"22 1 8:1", &mut buffer), None);
    }
}
