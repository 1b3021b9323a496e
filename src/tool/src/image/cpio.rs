//! Writes archives that the kernel unpacks into its first file system: cpio in the newc format
//! (Documentation/driver-api/early-userspace/buffer-format.rst; `init/initramfs.c`).

use std::io::{self, Write};

/// Every header and every content begins at a multiple of this number of bytes.
pub const ALIGNMENT: u64 = 4;

/// The length of the longest name in bytes, with its NUL. The kernel silently skips entries with longer names
/// (`PATH_MAX`, limits.h).
pub const NAME_MAX: usize = 4096;

/// The length of a header in bytes, without the name: the magic, and 13 numbers of 8 digits.
const HEADER: u64 = 6 + 13 * 8;

/// The name that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// The header fields of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The path, without a leading `/`.
    pub name: Vec<u8>,
    /// Type and permissions, as in `st_mode` (inode(7)).
    pub mode: u32,
    /// The owner's user ID.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
    /// The time of the last change, in seconds since 1970.
    pub mtime: u32,
    /// The length of the content, in bytes.
    pub size: u32,
}

impl Member {
    /// Returns a directory that root owns, with the time 0.
    #[must_use]
    pub fn directory(name: &[u8], permissions: u32) -> Member {
        Member { name: name.to_vec(), mode: libc::S_IFDIR | permissions, ..Member::default() }
    }

    /// Returns whether the kernel accepts the name for a member of an archive. The name that ends an archive is
    /// not one.
    #[must_use]
    pub fn can_be_named(name: &[u8]) -> bool {
        !name.is_empty() && name.len() < NAME_MAX && name != TRAILER && !name.contains(&0)
    }

    /// Returns the number of bytes that the member takes in an archive, with its content and padding.
    #[must_use]
    pub fn length(&self) -> u64 {
        head_length(&self.name) + padded(self.size.into())
    }

    /// Writes the header and the name. The caller then writes the content, and its [`padding`]. The number
    /// distinguishes the file from the others of its archive.
    pub fn write(&self, number: u32, to: &mut impl Write) -> io::Result<()> {
        header(self, number, to)
    }
}

/// Returns the length of the end of an archive, in bytes.
#[must_use]
pub fn end_length() -> u64 {
    head_length(TRAILER)
}

/// Writes the end of an archive.
pub fn end(to: &mut impl Write) -> io::Result<()> {
    header(&Member { name: TRAILER.to_vec(), ..Member::default() }, 0, to)
}

/// Returns a size in bytes with its padding.
#[must_use]
pub fn padded(size: u64) -> u64 {
    size.saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

/// Writes the padding after content of that size.
pub fn padding(size: u64, to: &mut impl Write) -> io::Result<()> {
    (size..padded(size)).try_for_each(|_| to.write_all(&[0]))
}

fn head_length(name: &[u8]) -> u64 {
    padded(HEADER + name.len() as u64 + 1)
}

fn header(member: &Member, number: u32, to: &mut impl Write) -> io::Result<()> {
    let Member { mode, uid, gid, mtime, size, .. } = *member;
    let name = u32::try_from(member.name.len() + 1).map_err(|_| io::ErrorKind::InvalidInput)?;
    // One link: with more, the kernel would look for the others. Devices and the checksum are 0.
    let numbers = [number, mode, uid, gid, 1, mtime, size, 0, 0, 0, 0, name, 0];
    to.write_all(b"070701")?;
    numbers.iter().try_for_each(|number| write!(to, "{number:08x}"))?;
    to.write_all(&member.name)?;
    to.write_all(&[0])?;
    padding(HEADER + u64::from(name), to)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// Reads an archive, or returns `None` if it is none. Leaves the bytes after its end.
    pub(crate) fn read(archive: &mut &[u8]) -> Option<Vec<(Member, Vec<u8>)>> {
        let mut members = Vec::new();
        loop {
            let numbers = archive.strip_prefix(b"070701")?.get(..13 * 8)?;
            let number = |at: usize| {
                u32::from_str_radix(std::str::from_utf8(&numbers[at * 8..at * 8 + 8]).unwrap(), 16).unwrap()
            };
            let [mode, uid, gid, links, mtime, size] = [1, 2, 3, 4, 5, 6].map(number);
            assert_eq!(links, 1);
            let name = archive.get(110..110 + number(11) as usize)?.strip_suffix(b"\0")?.to_vec();
            let head = usize::try_from(head_length(&name)).unwrap();
            let content = archive.get(head..head + size as usize)?.to_vec();
            *archive = archive.get(head + usize::try_from(padded(size.into())).unwrap()..)?;
            if name == TRAILER {
                return Some(members);
            }
            members.push((Member { name, mode, uid, gid, mtime, size }, content));
        }
    }

    #[test]
    fn what_is_written_is_as_long_as_was_said_and_reads_the_same() {
        for (name, content) in
            [(&b"a"[..], &b""[..]), (b"ab", b"1"), (b"a/bc", b"12345678"), (b"abc", b"123")]
        {
            let size = u32::try_from(content.len()).unwrap();
            let member =
                Member { name: name.to_vec(), mode: 0o100_640, uid: 7, gid: 0xffff_fffe, mtime: 9, size };
            let mut archive = Vec::new();
            member.write(1, &mut archive).unwrap();
            assert_eq!(archive.len() % 4, 0);
            archive.extend(content);
            padding(content.len() as u64, &mut archive).unwrap();
            assert_eq!(archive.len() as u64, member.length());
            end(&mut archive).unwrap();
            assert_eq!(archive.len() as u64, member.length() + end_length());
            assert_eq!(read(&mut &archive[..]).unwrap(), [(member, content.to_vec())]);
        }
    }

    #[test]
    fn no_name_ends_an_archive_early_or_is_passed_over() {
        let long = [b'a'; NAME_MAX];
        for bad in [&b""[..], b"TRAILER!!!", b"a\0b", &long] {
            assert!(!Member::can_be_named(bad));
        }
        assert!(Member::can_be_named(&long[1..]));
    }
}
