//! The files, or sections of files, that an image is made from.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::image::cpio::Member;

/// A file that an image is made from, or a section of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The path of the file.
    pub path: PathBuf,
    /// The section, unless the piece is the whole file.
    pub section: Option<Section>,
    /// The identity of the file in which the section was found. Another file of that name has something else at
    /// that place.
    pub found_in: Option<Box<Identity>>,
    /// The path and permissions in the initramfs, if the piece is no image but a file to be put there.
    pub packed: Option<Box<Packed>>,
    /// The SHA-256 that the file must have, if the unified kernel image that names it states one.
    pub sha256: Option<Box<[u8; 32]>>,
}

/// A file for the next system's initramfs: root owns it, and it is in an archive of its own, as systemd-stub
/// packs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The path in the initramfs, without a leading `/`.
    pub name: String,
    /// The permissions of the directory that holds it.
    pub directory: u32,
    /// The permissions of the file.
    pub file: u32,
}

/// The place of a section in the file of a unified kernel image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The name of the section, for example `.linux`.
    pub name: &'static str,
    /// The offset of the section in the file, in bytes.
    pub offset: u64,
    /// The length in bytes, without the file's own padding (`VirtualSize`).
    pub size: u64,
}

/// The identity of a file at some time, by which a change, or another file of the same name, is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The device number of the file system, and the inode number.
    inode: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Identity {
    /// Returns the identity of an open file.
    pub fn of(file: &File) -> io::Result<Identity> {
        file.metadata().map(|found| Identity::from(&found))
    }
}

impl From<&Metadata> for Identity {
    fn from(found: &Metadata) -> Identity {
        Identity {
            inode: (found.dev(), found.ino()),
            size: found.len(),
            changed: (found.mtime(), found.mtime_nsec()),
        }
    }
}

impl Piece {
    /// Returns the path to show to a person: the file or, for a packed file, its directory.
    #[must_use]
    pub fn origin(&self) -> &Path {
        let is_file = self.packed.is_none() || self.section.is_some();
        self.path.parent().filter(|_| !is_file).unwrap_or(&self.path)
    }
}

impl From<PathBuf> for Piece {
    fn from(path: PathBuf) -> Piece {
        Piece { path, ..Piece::default() }
    }
}

impl From<&Path> for Piece {
    fn from(path: &Path) -> Piece {
        path.to_path_buf().into()
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.path.display())?;
        self.section.as_ref().map_or(Ok(()), |section| write!(out, " ({})", section.name))
    }
}

impl Packed {
    /// Returns the directories and then the file itself, because the kernel does not create directories that an
    /// archive does not list.
    pub(crate) fn members(&self, size: u64) -> Vec<Member> {
        let (directories, name) = (self.name.match_indices('/').map(|(at, _)| at), self.name.as_bytes());
        let directories = directories.filter_map(|at| name.get(..at));
        let mut members: Vec<_> = directories.map(|name| Member::directory(name, 0o555)).collect();
        if let Some(last) = members.last_mut() {
            last.mode = libc::S_IFDIR | self.directory;
        }
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        members.push(Member {
            name: name.to_vec(),
            mode: libc::S_IFREG | self.file,
            size,
            ..Member::default()
        });
        members
    }
}
