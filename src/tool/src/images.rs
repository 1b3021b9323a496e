//! Copying the images to where they outlive the file systems they came from.

use std::fs::File;
use std::io::{self, Write};
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

/// Why an image cannot be staged.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the {what} {} cannot be read: {}{}", .path.display(), InWords(.error), hint(.error))]
    Unreadable {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is something else than a file with something in it.
    #[error("the {what} {} {why}; name the image itself", .path.display())]
    NoImage {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// The path cannot stand in a plan.
    #[error("the path {0:?} is not plain text, and the plan is; rename the file")]
    NotText(PathBuf),
    /// It was written to meanwhile.
    #[error("the {what} {} changed while it was copied; stage again when it is complete", .path.display())]
    Changed {
        /// Kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
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

/// A file that an image is made from, open, so that what was checked is what is copied.
#[derive(Debug)]
pub struct Source {
    /// Its absolute path.
    pub path: PathBuf,
    /// It.
    pub file: File,
    what: &'static str,
    size: u64,
    changed: (i64, i64),
}

impl Source {
    /// Opens a kernel or initrd.
    pub fn open(root: &Root, what: &'static str, path: &Path) -> Result<Source, Error> {
        let unreadable = |error| Error::Unreadable { what, path: path.to_path_buf(), error };
        let absolute = std::path::absolute(path).map_err(unreadable)?;
        if absolute.to_str().is_none_or(|path| path.chars().any(char::is_control)) {
            return Err(Error::NotText(absolute));
        }
        // Without O_NONBLOCK the open itself would wait for ever at a pipe.
        let options = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(root.path(&absolute));
        let file = options.map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        let no_image = |why| Err(Error::NoImage { what, path: path.to_path_buf(), why });
        match found.file_type() {
            kind if kind.is_dir() => return no_image("is a directory"),
            kind if !kind.is_file() => return no_image("is not a regular file"),
            _ if found.len() == 0 => return no_image("is empty"),
            _ => {}
        }
        let changed = (found.mtime(), found.mtime_nsec());
        Ok(Source { path: absolute, file, what, size: found.len(), changed })
    }

    fn append_to(&self, to: &mut File, copy: &Path) -> Result<(), Error> {
        let error = |error: io::Error| Error::Unwritable { path: copy.to_path_buf(), error };
        let copied = io::copy(&mut &self.file, to).map_err(error)?;
        let now = self.file.metadata().map_err(error)?;
        if copied != self.size || (now.mtime(), now.mtime_nsec()) != self.changed {
            return Err(Error::Changed { what: self.what, path: self.path.clone() });
        }
        Ok(())
    }
}

/// The size of an image joined from these, in bytes; asked before anything is copied, for no room and no
/// memory would be enough for one that the kernel does not load.
pub fn joined_size(name: &'static str, sources: &[Source]) -> Result<u64, Error> {
    let size = match sources {
        [one] => one.size,
        _ => sources.iter().map(|source| source.size.next_multiple_of(MEMBER_ALIGNMENT)).sum(),
    };
    if size > FILE_MAX { Err(Error::TooLarge { what: name, size }) } else { Ok(size) }
}

/// Joins sources to one image in a set, and returns it open for reading only: a file that is open
/// for writing cannot be loaded.
pub fn join(set: &NewSet, name: &'static str, sources: &[Source]) -> Result<File, Error> {
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
                Source::open(&scratch.root, "initrd", &path).unwrap()
            })
            .collect();
        let folder = Folder::open(&scratch.root).unwrap();
        let set = folder.new_set(HandoffId(1)).unwrap();
        let mut bytes = Vec::new();
        join(&set, "initrd", &sources).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(joined_size("initrd", &sources).unwrap(), bytes.len() as u64);
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
    fn what_the_kernel_would_never_load_is_known_by_its_size() {
        let scratch = Scratch::new();
        let source = |bytes| {
            File::create(scratch.root.path("/big")).unwrap().set_len(bytes).unwrap();
            Source::open(&scratch.root, "initrd", Path::new("/big")).unwrap()
        };
        assert_eq!(joined_size("initrd", &[source(FILE_MAX)]).unwrap(), FILE_MAX);
        let sentence = joined_size("initrd", &[source(5 << 30)]).unwrap_err().to_string();
        assert!(sentence.contains("is 5369 MB large, and the kernel loads at most 4295 MB"), "{sentence}");
        assert!(joined_size("initrd", &[source(FILE_MAX), source(1)]).is_err());
    }

    #[test]
    fn what_is_no_image_is_told_apart() {
        let scratch = Scratch::new();
        let sentence =
            |path: &str| Source::open(&scratch.root, "kernel", Path::new(path)).unwrap_err().to_string();
        fs::write(scratch.root.path("/empty"), "").unwrap();
        nix::unistd::mkfifo(&scratch.root.path("/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(sentence("/run").contains("is a directory"));
        assert!(sentence("/empty").contains("is empty"));
        assert!(sentence("/pipe").contains("not a regular file"));
        assert!(sentence("/missing").contains("is its file system mounted?"));
        assert!(sentence("/new\nline").contains("not plain text"));
    }
}
