//! The files to stage: kernels and initrds, opened once, so that the file that was checked is the file that is
//! copied.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::image::cpio::{self, Member};
use crate::image::digest;
use crate::image::header::{self, Header};
use crate::image::initrd::{BOOT_CONFIG, BOOT_CONFIG_PADDING};
use crate::image::piece::{Identity, Piece, Section};
use crate::image::unpack::{self, Unpacked, Wrapping};
use crate::loading::decompress::failure::Failure;
use crate::machine::root::Root;
use crate::staging::directory;
use crate::staging::extra;
use crate::words::errno::{self, InWords};
use crate::words::size::Size;

/// Largest file that `kexec_file_load(2)` reads (`KEXEC_FILE_SIZE_MAX`, `kernel/kexec_file.c`). Before Linux
/// 6.0 the limit is 2 GiB (`INT_MAX`). If a distribution has changed it, its kernel reports the error.
pub(super) const FILE_MAX: u64 = 4 << 30;

/// The reason why an image cannot be staged.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the {what} {piece} cannot be read: {}{}", InWords(.error), hint(.error))]
    Unreadable {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The file.
        piece: Piece,
        /// The reason.
        error: io::Error,
    },
    /// The path is not a regular file, or the file is empty.
    #[error("the {what} {piece} {why}; name the image itself")]
    NoImage {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The file.
        piece: Box<Piece>,
        /// The problem.
        why: &'static str,
    },
    /// The path cannot be written in a plan, which is plain text.
    #[error("the path {0:?} is not plain text, and the plan is; rename the file")]
    NotText(PathBuf),
    /// The file was written to while it was copied.
    #[error("the {what} {piece} changed while it was copied; stage again when it is complete")]
    Changed {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The file.
        piece: Piece,
    },
    /// A section reaches beyond the end of its file.
    #[error("the {what} {piece} reaches beyond the end of its file; install it again")]
    CutOff {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The section.
        piece: Piece,
    },
    /// A wrapped kernel cannot be unpacked.
    #[error("the kernel {piece} cannot be unpacked: {why}; install it again")]
    NotUnpacked {
        /// The file.
        piece: Piece,
        /// The reason.
        why: String,
    },
    /// The file's SHA-256 is not the one that its boot entry names.
    #[error(
        "the {what} {piece} is not the one that its boot entry was made for: its SHA-256 differs; make the entry again \
         (on NixOS: nixos-rebuild boot)"
    )]
    NotMeant {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The file.
        piece: Piece,
    },
    /// A kernel is truncated or corrupt.
    #[error("the kernel {piece} is damaged: {why}; install it again")]
    DamagedKernel {
        /// The file.
        piece: Piece,
        /// The reason.
        why: String,
    },
    /// An initrd is truncated or corrupt.
    #[error(
        "the initrd {piece} is damaged: {why}; make it again (update-initramfs -u, dracut --force, mkinitcpio -P), with \
         room for it in /boot"
    )]
    DamagedInitrd {
        /// The file.
        piece: Piece,
        /// The reason and the place.
        why: Failure,
    },
    /// The unpacked kernel does not fit into the room that is left.
    #[error(
        "the kernel {piece} unpacks to more than {}, which is all the room and memory there is for it; free some \
         (`nextkernel unstage`), or enlarge /run (mount -o remount,size=SIZE /run)", Size(*.most)
    )]
    OutgrowsRoom {
        /// The file.
        piece: Piece,
        /// The room, in bytes.
        most: u64,
    },
    /// The copy cannot be written.
    #[error("{} cannot be written: {}{}", .path.display(), InWords(.error), full(.error))]
    Unwritable {
        /// The copy.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The image is larger than the kernel loads.
    #[error("the {what} is {} large, and no kernel loads more than {}; leave something out", Size(*.size), Size(FILE_MAX))]
    TooLarge {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
    },
    /// An initrd with a bootconfig would not be the last part. The kernel looks for a bootconfig at the very
    /// end, and unpacks nothing behind it.
    #[error(
        "the initrd {piece} has a bootconfig at its end, which would be lost with {behind} behind it; leave that out, or \
         take the bootconfig off (bootconfig -d) and give its parameters with --append"
    )]
    BootConfig {
        /// The initrd.
        piece: Piece,
        /// The part that would follow it.
        behind: String,
    },
    /// A file of `--extra` cannot be added.
    #[error(transparent)]
    Extra(#[from] extra::Error),
    /// A file in /run/nextkernel cannot be read or written.
    #[error(transparent)]
    Directory(#[from] directory::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; is its file system mounted?",
        _ => "",
    }
}

fn full(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => {
            "; `nextkernel unstage` frees what is staged, or enlarge /run (mount -o remount,size=SIZE /run)"
        }
        _ => "",
    }
}

/// An open piece: the file that was checked is the file that is copied.
#[derive(Debug)]
pub struct Source {
    /// The piece, with an absolute path.
    pub piece: Piece,
    /// The open file.
    pub file: File,
    what: &'static str,
    /// The offset at which the piece begins in its file.
    pub(super) offset: u64,
    size: u64,
    identity: Identity,
}

impl Source {
    /// Opens a kernel, and initrds in their order.
    pub fn of(root: &Root, kernel: &Piece, initrds: &[Piece]) -> Result<(Source, Vec<Source>), Error> {
        let kernel = Source::open(root, "kernel", kernel)?;
        let initrds = initrds.iter().map(|initrd| Source::open(root, "initrd", initrd));
        Ok((kernel, initrds.collect::<Result<_, _>>()?))
    }

    /// Opens a kernel or initrd. Fails if it is no regular file, empty, cut off, or another file than the entry
    /// was made of.
    pub fn open(root: &Root, what: &'static str, piece: &Piece) -> Result<Source, Error> {
        let unreadable = |error| Error::Unreadable { what, piece: piece.clone(), error };
        let absolute = std::path::absolute(&piece.path).map_err(unreadable)?;
        if absolute.to_str().is_none_or(|path| path.chars().any(char::is_control)) {
            return Err(Error::NotText(absolute));
        }
        let file = root.open(&absolute).map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        let identity = Identity::from(&found);
        let all = Section { name: "", offset: 0, size: found.len() };
        let Section { offset, size, .. } = *piece.section.as_ref().unwrap_or(&all);
        let no_image = |why| Err(Error::NoImage { what, piece: Box::new(piece.clone()), why });
        match found.file_type() {
            kind if kind.is_dir() => return no_image("is a directory"),
            kind if !kind.is_file() => return no_image("is not a regular file"),
            _ if piece.found_in.as_ref().is_some_and(|before| **before != identity) => {
                return Err(Error::Changed { what, piece: piece.clone() });
            }
            _ if size == 0 => return no_image("is empty"),
            _ if offset.checked_add(size).is_none_or(|end| end > found.len()) => {
                return Err(Error::CutOff { what, piece: piece.clone() });
            }
            _ => {}
        }
        let piece = Piece { path: absolute, ..piece.clone() };
        Ok(Source { piece, file, what, offset, size, identity })
    }

    /// Returns its length as a part of an initrd, in bytes.
    pub(super) fn length(&self) -> u64 {
        match &self.piece.packed {
            Some(packed) => {
                let members = packed.members(self.size);
                members.iter().map(Member::length).sum::<u64>() + cpio::end_length()
            }
            None => self.size,
        }
    }

    /// Returns its length as a kernel, in bytes. A wrapped kernel may state its unpacked length; otherwise the
    /// length of the file counts.
    pub fn unpacked_size(&self) -> Result<u64, Error> {
        let told = self
            .wrapping()
            .ok()
            .flatten()
            .and_then(|wrapping| wrapping.told(&mut &self.file, self.offset, self.offset + self.size));
        let size = told.unwrap_or(self.size);
        if size > FILE_MAX { Err(Error::TooLarge { what: self.what, size }) } else { Ok(size) }
    }

    /// Returns the header of a kernel. Nothing is known about a wrapped kernel.
    #[must_use]
    pub fn header(&self) -> Header {
        let mut head = Vec::new();
        let read = self.bytes().and_then(|bytes| bytes.take(header::LENGTH as u64).read_to_end(&mut head));
        read.map_or(Header::Unknown, |_| Header::parse(&head))
    }

    /// Returns whether this is an initrd with a bootconfig at its end, where the kernel looks for it.
    pub(super) fn has_boot_config(&self) -> io::Result<bool> {
        let most = (BOOT_CONFIG.len() + BOOT_CONFIG_PADDING) as u64;
        let mut end = Vec::new();
        (&self.file).seek(SeekFrom::Start(self.offset + self.size.saturating_sub(most)))?;
        (&self.file).take(self.size.min(most)).read_to_end(&mut end)?;
        let is_one = end.windows(BOOT_CONFIG.len()).any(|part| part == BOOT_CONFIG);
        Ok(is_one && self.piece.packed.is_none())
    }

    pub(super) fn wrapping(&self) -> io::Result<Option<Wrapping>> {
        let mut head = Vec::new();
        self.bytes()?.take(unpack::HEAD).read_to_end(&mut head)?;
        Ok(Wrapping::of(&head))
    }

    /// Returns a reader of its bytes.
    fn bytes(&self) -> io::Result<io::Take<&File>> {
        (&self.file).seek(SeekFrom::Start(self.offset))?;
        Ok((&self.file).take(self.size))
    }

    pub(super) fn unreadable(&self, error: io::Error) -> Error {
        Error::Unreadable { what: self.what, piece: self.piece.clone(), error }
    }

    pub(super) fn append_to(&self, to: &mut File, copy: &Path) -> Result<(), Error> {
        let error = |error: io::Error| Error::Unwritable { path: copy.to_path_buf(), error };
        let members = self.piece.packed.as_ref().map(|packed| packed.members(self.size)).unwrap_or_default();
        for (number, member) in (1..).zip(&members) {
            member.write(number, to).map_err(error)?;
        }
        let mut bytes = self.bytes().map_err(|error| self.unreadable(error))?;
        let copied = io::copy(&mut bytes, to).map_err(|failed| {
            if errno::is_out_of_room(&failed) { error(failed) } else { self.unreadable(failed) }
        })?;
        if copied != self.size {
            return Err(Error::Changed { what: self.what, piece: self.piece.clone() });
        }
        if !members.is_empty() {
            cpio::padding(copied, to).and_then(|()| cpio::end(to)).map_err(error)?;
        }
        self.see_that_it_is_as_it_was()
    }

    /// Copies a kernel, unpacked from its wrapping.
    pub(super) fn unpack_to(&self, to: &mut File, copy: &Path, most: u64) -> Result<(), Error> {
        let damaged = |error| match error {
            unpack::Error::Read(error) => self.unreadable(error),
            error => Error::NotUnpacked { piece: self.piece.clone(), why: error.to_string() },
        };
        let bytes = self.bytes().map_err(|error| self.unreadable(error))?;
        let mut kernel = Unpacked::new(bytes).map_err(damaged)?;
        let (mut part, mut size) = (vec![0; 1 << 16], 0);
        loop {
            let read = kernel.read(&mut part).map_err(damaged)?;
            size += read as u64;
            if size > FILE_MAX {
                return Err(Error::TooLarge { what: self.what, size });
            }
            if size > most {
                return Err(Error::OutgrowsRoom { piece: self.piece.clone(), most });
            }
            match part.get(..read).unwrap_or_default() {
                [] if size == 0 => return Err(damaged(unpack::Error::Empty)),
                [] => return self.see_that_it_is_as_it_was(),
                part => to.write_all(part),
            }
            .map_err(|error| Error::Unwritable { path: copy.to_path_buf(), error })?;
        }
    }

    pub(super) fn is_not_whole(&self, why: Failure) -> Error {
        match why {
            Failure::Read(error) => self.unreadable(error),
            why => Error::DamagedInitrd { piece: self.piece.clone(), why },
        }
    }

    /// Checks the SHA-256 of its copy, which begins at `begin`, against the one that the boot entry names, if
    /// any.
    pub(super) fn see_that_it_is_meant(&self, copy: &File, begin: u64) -> Result<(), Error> {
        let Some(sha256) = &self.piece.sha256 else { return Ok(()) };
        let mut from = copy;
        let sum = from.seek(SeekFrom::Start(begin)).and_then(|_| digest::sha256(from.take(self.size)));
        if sum.map_err(|error| self.unreadable(error))? == **sha256 {
            return Ok(());
        }
        Err(Error::NotMeant { what: self.what, piece: self.piece.clone() })
    }

    fn see_that_it_is_as_it_was(&self) -> Result<(), Error> {
        // A file that grew has a new time, too, unless the clock is too coarse.
        if Identity::of(&self.file).map_err(|error| self.unreadable(error))? != self.identity {
            return Err(Error::Changed { what: self.what, piece: self.piece.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use std::fs;

    pub(crate) const IMAGE: &[u8] = include_bytes!("../../../../fuzz/seeds/unpack/plain");
    pub(crate) const GZIP: &[u8] = include_bytes!("../../../../fuzz/seeds/unpack/gzip");
    pub(crate) const ZBOOT: &[u8] = include_bytes!("../../../../fuzz/seeds/unpack/zboot-zstd");

    /// Opens a file with these bytes.
    pub(crate) fn source(scratch: &Scratch, what: &'static str, piece: &Piece, bytes: &[u8]) -> Source {
        fs::write(scratch.root.path(&piece.path), bytes).unwrap();
        Source::open(&scratch.root, what, piece).unwrap()
    }

    #[test]
    fn a_wrapped_kernel_needs_the_room_that_it_says() {
        let scratch = Scratch::new();
        let size =
            |bytes| source(&scratch, "kernel", &Path::new("/k").into(), bytes).unpacked_size().unwrap();
        assert_eq!(size(IMAGE), IMAGE.len() as u64);
        assert_eq!(size(GZIP), IMAGE.len() as u64);
        assert_eq!(size(ZBOOT), IMAGE.len() as u64);
    }

    #[test]
    fn what_cannot_be_read_is_told_from_what_cannot_be_written() {
        let scratch = Scratch::new();
        let mut source = source(&scratch, "initrd", &Path::new("/a").into(), b"12345");
        let copy = Path::new("/run/copy");
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let sentence = source.append_to(&mut full, copy).unwrap_err().to_string();
        assert!(sentence.starts_with("/run/copy cannot be written: No space"), "{sentence}");
        // Nothing is mapped at address 0, so reading fails with EIO.
        source.file = File::open("/proc/self/mem").unwrap();
        let mut to = File::create(scratch.root.path("/copy")).unwrap();
        let sentence = source.append_to(&mut to, copy).unwrap_err().to_string();
        assert!(sentence.contains("initrd /a cannot be read: I/O error"), "{sentence}");
    }

    #[test]
    fn a_section_of_a_file_that_was_replaced_is_refused() {
        let scratch = Scratch::new();
        scratch.put("/uki.efi", "MZ..kernel..");
        let found_in = Identity::of(&File::open(scratch.root.path("/uki.efi")).unwrap()).unwrap();
        let found_in = Some(Box::new(found_in));
        let section = Some(Section { name: ".linux", offset: 4, size: 6 });
        let piece = Piece { section, found_in, ..Path::new("/uki.efi").into() };
        let open = || Source::open(&scratch.root, "kernel", &piece);
        let before = open().unwrap();
        before.see_that_it_is_as_it_was().unwrap();
        // Another file of the same size and time.
        let time = fs::metadata(scratch.root.path("/uki.efi")).unwrap().modified().unwrap();
        scratch.put("/new.efi", "MZ..KERNEL..");
        let new = File::options().write(true).open(scratch.root.path("/new.efi")).unwrap();
        new.set_modified(time).unwrap();
        fs::rename(scratch.root.path("/new.efi"), scratch.root.path("/uki.efi")).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("kernel /uki.efi (.linux) changed while it was copied"), "{error}");
        // A replaced file that is cut off, too, is reported as changed, not as damaged.
        scratch.put("/uki.efi", "MZ");
        assert!(matches!(open(), Err(Error::Changed { .. })));
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
    fn a_section_beyond_its_file_is_refused() {
        let scratch = Scratch::new();
        scratch.put("/uki.efi", "MZ..kernel..");
        for (offset, size) in [(4, 9), (13, 1), (u64::MAX, 2)] {
            let section = Some(Section { name: ".linux", offset, size });
            let piece = Piece { section, ..Path::new("/uki.efi").into() };
            let error = Source::open(&scratch.root, "kernel", &piece).unwrap_err().to_string();
            assert!(error.contains("/uki.efi (.linux) reaches beyond the end"), "{error}");
        }
    }
}
