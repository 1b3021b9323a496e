//! Copying the images to where they outlive the file systems they came from.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::errno::InWords;
use crate::folder::{self, NewSet};
use crate::root::Root;
use crate::size::Size;

/// Every member of an initrd begins on a multiple of this: an uncompressed cpio elsewhere would be
/// taken for a compressed stream (`unpack_to_rootfs`, init/initramfs.c).
const MEMBER_ALIGNMENT: u64 = 4;

/// What `kexec_file_load(2)` reads at most (`KEXEC_FILE_SIZE_MAX`, `kernel/kexec_file.c`).
const FILE_MAX: u64 = 4 << 30;

/// A file that an image is made from, or a section of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The file.
    pub path: PathBuf,
    /// The section, where it is not the whole file.
    pub section: Option<Section>,
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

impl From<PathBuf> for Piece {
    fn from(path: PathBuf) -> Piece {
        Piece { path, section: None }
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

/// Why an image cannot be staged.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the {what} {piece} cannot be read: {}{}", InWords(.error), hint(.error))]
    Unreadable {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        piece: Piece,
        /// Why.
        error: io::Error,
    },
    /// It is something else than a file with something in it.
    #[error("the {what} {piece} {why}; name the image itself")]
    NoImage {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        piece: Piece,
        /// What it is.
        why: &'static str,
    },
    /// The path cannot stand in a plan.
    #[error("the path {0:?} is not plain text, and the plan is; rename the file")]
    NotText(PathBuf),
    /// It was written to meanwhile.
    #[error("the {what} {piece} changed while it was copied; stage again when it is complete")]
    Changed {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        piece: Piece,
    },
    /// A section is not all there.
    #[error("the {what} {piece} reaches beyond the end of its file; install it again")]
    CutOff {
        /// Kernel or initrd.
        what: &'static str,
        /// The section.
        piece: Piece,
    },
    /// The copy cannot be written.
    #[error("{} cannot be written: {}", .path.display(), InWords(.error))]
    Unwritable {
        /// The copy.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// More than the kernel loads.
    #[error("the {what} is {} large, and the kernel loads at most {}; leave something out", Size(*.size), Size(FILE_MAX))]
    TooLarge {
        /// Kernel or initrd.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
    },
    /// The set cannot hold it.
    #[error(transparent)]
    Folder(#[from] folder::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; is its file system mounted?",
        _ => "",
    }
}

/// A piece, open, so that what was checked is what is copied.
#[derive(Debug)]
pub struct Source {
    /// It, its path absolute.
    pub piece: Piece,
    /// Its file.
    pub file: File,
    what: &'static str,
    /// Where it lies in its file.
    offset: u64,
    size: u64,
    changed: (i64, i64),
}

impl Source {
    /// Opens a kernel or initrd.
    pub fn open(root: &Root, what: &'static str, piece: &Piece) -> Result<Source, Error> {
        let unreadable = |error| Error::Unreadable { what, piece: piece.clone(), error };
        let absolute = std::path::absolute(&piece.path).map_err(unreadable)?;
        if absolute.to_str().is_none_or(|path| path.chars().any(char::is_control)) {
            return Err(Error::NotText(absolute));
        }
        // Without O_NONBLOCK the open itself would wait for ever at a pipe.
        let options = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(root.path(&absolute));
        let file = options.map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        let all = Section { name: "", offset: 0, size: found.len() };
        let Section { offset, size, .. } = *piece.section.as_ref().unwrap_or(&all);
        let no_image = |why| Err(Error::NoImage { what, piece: piece.clone(), why });
        match found.file_type() {
            kind if kind.is_dir() => return no_image("is a directory"),
            kind if !kind.is_file() => return no_image("is not a regular file"),
            _ if size == 0 => return no_image("is empty"),
            _ if offset.checked_add(size).is_none_or(|end| end > found.len()) => {
                return Err(Error::CutOff { what, piece: piece.clone() });
            }
            _ => {}
        }
        let changed = (found.mtime(), found.mtime_nsec());
        let piece = Piece { path: absolute, section: piece.section.clone() };
        Ok(Source { piece, file, what, offset, size, changed })
    }

    fn append_to(&self, to: &mut File, copy: &Path) -> Result<(), Error> {
        let error = |error: io::Error| Error::Unwritable { path: copy.to_path_buf(), error };
        (&self.file).seek(SeekFrom::Start(self.offset)).map_err(error)?;
        // One byte more tells a file that grew.
        let more = u64::from(self.piece.section.is_none());
        let copied = io::copy(&mut (&self.file).take(self.size + more), to).map_err(error)?;
        let now = self.file.metadata().map_err(error)?;
        if copied != self.size || (now.mtime(), now.mtime_nsec()) != self.changed {
            return Err(Error::Changed { what: self.what, piece: self.piece.clone() });
        }
        Ok(())
    }
}

/// The size of an image joined from these, in bytes.
#[must_use]
pub fn joined_size(sources: &[Source]) -> u64 {
    match sources {
        [one] => one.size,
        _ => sources.iter().map(|source| source.size.next_multiple_of(MEMBER_ALIGNMENT)).sum(),
    }
}

/// Joins sources to one image in a set, and returns it open for reading only: a file that is open
/// for writing cannot be loaded.
pub fn join(set: &NewSet, name: &'static str, sources: &[Source]) -> Result<File, Error> {
    let size = joined_size(sources);
    if size > FILE_MAX {
        return Err(Error::TooLarge { what: name, size });
    }
    let (path, mut copy) = set.create(name)?;
    let unwritable = |error| Error::Unwritable { path: path.clone(), error };
    for source in sources {
        source.append_to(&mut copy, &path)?;
        if sources.len() > 1 {
            let padding = source.size.next_multiple_of(MEMBER_ALIGNMENT) - source.size;
            for _ in 0..padding {
                copy.write_all(&[0]).map_err(unwritable)?;
            }
        }
    }
    drop(copy);
    File::open(&path).map_err(unwritable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::folder::Folder;
    use crate::scratch::Scratch;
    use nextkernel_plan::HandoffId;
    use std::fs;
    use std::io::Read;

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        let scratch = Scratch::new();
        let sources: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(number, part)| {
                let path = PathBuf::from(format!("/{number}"));
                fs::write(scratch.root.path(&path), part).unwrap();
                Source::open(&scratch.root, "initrd", &path.into()).unwrap()
            })
            .collect();
        let folder = Folder::open(&scratch.root).unwrap();
        let set = folder.new_set(HandoffId(1)).unwrap();
        let mut bytes = Vec::new();
        join(&set, "initrd", &sources).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(joined_size(&sources), bytes.len() as u64);
        bytes
    }

    #[test]
    fn one_initrd_is_copied_byte_for_byte() {
        assert_eq!(joined(&[b"12345"]), b"12345");
    }

    #[test]
    fn every_member_of_several_initrds_begins_on_four_bytes() {
        assert_eq!(joined(&[b"a", b"bbbb", b"ccccc"]), b"a\0\0\0bbbbccccc\0\0\0");
    }

    #[test]
    fn what_is_no_image_is_told_apart() {
        let scratch = Scratch::new();
        let sentence = |path: &str| {
            Source::open(&scratch.root, "kernel", &Path::new(path).into()).unwrap_err().to_string()
        };
        fs::write(scratch.root.path("/empty"), "").unwrap();
        nix::unistd::mkfifo(&scratch.root.path("/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(sentence("/run").contains("is a directory"));
        assert!(sentence("/empty").contains("is empty"));
        assert!(sentence("/pipe").contains("not a regular file"));
        assert!(sentence("/missing").contains("is its file system mounted?"));
        assert!(sentence("/new\nline").contains("not plain text"));
    }

    #[test]
    fn a_section_is_what_lies_between_its_ends_and_one_beyond_the_file_is_refused() {
        let scratch = Scratch::new();
        scratch.put("/uki.efi", "MZ..kernel..");
        let of = |offset, size| Piece {
            path: "/uki.efi".into(),
            section: Some(Section { name: ".linux", offset, size }),
        };
        let folder = Folder::open(&scratch.root).unwrap();
        let set = folder.new_set(HandoffId(1)).unwrap();
        let source = Source::open(&scratch.root, "kernel", &of(4, 6)).unwrap();
        let mut text = String::new();
        join(&set, "kernel", &[source]).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "kernel");
        for (offset, size) in [(4, 9), (13, 1), (u64::MAX, 2)] {
            let error = Source::open(&scratch.root, "kernel", &of(offset, size)).unwrap_err().to_string();
            assert!(error.contains("/uki.efi (.linux) reaches beyond the end"), "{error}");
        }
    }
}
