//! The parts that an image is made from: files, or sections of one.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::image::cpio::Member;

/// A file that an image is made from, or a section of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub path: PathBuf,
    /// The section, where it is not the whole file.
    pub section: Option<Section>,
    /// What its file was when its section was found there: in another one something else lies at that place.
    pub found_in: Option<Box<Identity>>,
    /// Where it goes as a file of its own, where it is no image but something for one.
    pub packed: Option<Box<Packed>>,
    /// Its SHA-256, where whoever names it says which it has to have.
    pub sha256: Option<Box<[u8; 32]>>,
}

/// A file that the next system finds in its initramfs: root's, in an archive of its own, as systemd-stub packs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Its path, without a `/` before it.
    pub name: String,
    /// The permissions of the folder it is in.
    pub folder: u32,
    /// Its own permissions.
    pub file: u32,
}

/// Where a section of a unified kernel image lies in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is called: `.linux`.
    pub name: &'static str,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes, without the file's own padding (`VirtualSize`).
    pub size: u64,
}

/// A file as it was at some time, so that another one of its name, or a change, is told from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its file system, and its number there.
    inode: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Identity {
    /// Of an open file.
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
    /// Where a person finds it: its file, and for a packed one the folder.
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
    /// Its folders, and it: an archive does not make them by itself.
    pub(crate) fn members(&self, size: u64) -> Vec<Member> {
        let (folders, name) = (self.name.match_indices('/').map(|(at, _)| at), self.name.as_bytes());
        let folders = folders.filter_map(|at| name.get(..at));
        let mut members: Vec<_> = folders.map(|name| Member::folder(name, 0o555)).collect();
        if let Some(last) = members.last_mut() {
            last.mode = libc::S_IFDIR | self.folder;
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
