//! Copying the images to where they outlive the file systems that they came from.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::entries::entry::Entry;
use crate::image::cpio::{self, Member};
use crate::image::header::{self, Header};
use crate::image::initrd::{BOOT_CONFIG, BOOT_CONFIG_PADDING};
use crate::image::piece::{Identity, Piece, Section};
use crate::image::unpack::{self, Unpacked, Wrapping};
use crate::image::{digest, whole};
use crate::loading::decompress;
use crate::loading::decompress::failure::Failure;
use crate::machine::root::Root;
use crate::staging::copy::is_of_the_copy;
use crate::staging::directory::{self, NewSet};
use crate::staging::extra::{self, Extra};
use crate::words::errno::InWords;
use crate::words::size::Size;

/// Number of zeros between two initrds, after padding to a multiple of 4.
const GAP: u64 = 4;

/// Largest file that `kexec_file_load(2)` reads (`KEXEC_FILE_SIZE_MAX`, `kernel/kexec_file.c`). Before Linux
/// 6.0 the limit is 2 GiB (`INT_MAX`). If a distribution has changed it, its kernel reports the error.
const FILE_MAX: u64 = 4 << 30;

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
    Folder(#[from] directory::Error),
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
    /// Where the piece begins in its file.
    offset: u64,
    size: u64,
    identity: Identity,
}

impl Source {
    /// Opens an entry's kernel, and its initrds in their order.
    pub fn of(root: &Root, entry: &Entry) -> Result<(Source, Vec<Source>), Error> {
        let kernel = Source::open(root, "kernel", &entry.kernel)?;
        let initrds = entry.initrds.iter().map(|initrd| Source::open(root, "initrd", initrd));
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
    fn length(&self) -> u64 {
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
    fn has_boot_config(&self) -> io::Result<bool> {
        let most = (BOOT_CONFIG.len() + BOOT_CONFIG_PADDING) as u64;
        let mut end = Vec::new();
        (&self.file).seek(SeekFrom::Start(self.offset + self.size.saturating_sub(most)))?;
        (&self.file).take(self.size.min(most)).read_to_end(&mut end)?;
        let is_one = end.windows(BOOT_CONFIG.len()).any(|part| part == BOOT_CONFIG);
        Ok(is_one && self.piece.packed.is_none())
    }

    fn wrapping(&self) -> io::Result<Option<Wrapping>> {
        let mut head = Vec::new();
        self.bytes()?.take(unpack::HEAD).read_to_end(&mut head)?;
        Ok(Wrapping::of(&head))
    }

    /// Returns a reader of its bytes.
    fn bytes(&self) -> io::Result<io::Take<&File>> {
        (&self.file).seek(SeekFrom::Start(self.offset))?;
        Ok((&self.file).take(self.size))
    }

    fn unreadable(&self, error: io::Error) -> Error {
        Error::Unreadable { what: self.what, piece: self.piece.clone(), error }
    }

    fn append_to(&self, to: &mut File, copy: &Path) -> Result<(), Error> {
        let error = |error: io::Error| Error::Unwritable { path: copy.to_path_buf(), error };
        let members = self.piece.packed.as_ref().map(|packed| packed.members(self.size)).unwrap_or_default();
        for (number, member) in (1..).zip(&members) {
            member.write(number, to).map_err(error)?;
        }
        let mut bytes = self.bytes().map_err(|error| self.unreadable(error))?;
        let copied = io::copy(&mut bytes, to).map_err(|failed| {
            if is_of_the_copy(&failed) { error(failed) } else { self.unreadable(failed) }
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
    fn unpack_to(&self, to: &mut File, copy: &Path, most: u64) -> Result<(), Error> {
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

    fn is_not_whole(&self, why: Failure) -> Error {
        match why {
            Failure::Read(error) => self.unreadable(error),
            why => Error::DamagedInitrd { piece: self.piece.clone(), why },
        }
    }

    /// Checks the SHA-256 of its copy, which begins at `begin`, against the one that the boot entry names, if
    /// any.
    fn see_that_it_is_meant(&self, copy: &File, begin: u64) -> Result<(), Error> {
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

/// Returns the size in bytes of an initrd joined from these parts. Called before anything is copied, because no
/// room and no memory would be enough for an initrd that the kernel does not load. Fails if a bootconfig would
/// be lost.
pub fn initrd_size(sources: &[Source], extra: &Extra) -> Result<u64, Error> {
    let added = (!extra.is_empty()).then(|| "--extra".to_owned());
    let behind = sources.iter().skip(1).map(|source| source.piece.to_string()).chain(added);
    for (source, behind) in sources.iter().zip(behind) {
        if source.has_boot_config().map_err(|error| source.unreadable(error))? {
            return Err(Error::BootConfig { piece: source.piece.clone(), behind });
        }
    }
    let lengths = sources.iter().map(Source::length).chain((!extra.is_empty()).then(|| extra.length()));
    let size = lengths.fold(0, |size: u64, length| next_begin(size) + length);
    if size > FILE_MAX { Err(Error::TooLarge { what: "initrd", size }) } else { Ok(size) }
}

/// Returns where the next initrd begins after one that ends at `end`. Archives begin at a multiple of 4. The
/// zeros before them end an lz4 stream, which would otherwise take the next archive for more of itself
/// (`unlz4`, `lib/decompress_unlz4.c`).
fn next_begin(end: u64) -> u64 {
    if end == 0 { 0 } else { cpio::padded(end) + GAP }
}

fn fill(copy: &mut File, end: u64, begin: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(begin - end), copy).map(drop)
}

/// A joined initrd.
#[derive(Debug)]
pub struct Joined<'a> {
    /// The copy, open for reading only, because a file that is open for writing cannot be loaded.
    pub copy: File,
    /// Each initrd with its begin and end in the copy.
    parts: Vec<(&'a Source, u64, u64)>,
}

impl Joined<'_> {
    /// Checks that each of its initrds is intact. An archive that was packed here needs no check.
    pub fn see_that_it_is_whole(&self) -> Result<(), Error> {
        let parts = self.parts.iter().filter(|(source, ..)| source.piece.packed.is_none());
        for (source, begin, end) in parts {
            decompress::is_whole_initrd(&self.copy, *begin, *end).map_err(|why| source.is_not_whole(why))?;
        }
        Ok(())
    }

    /// Returns the error for damage at offset `at`, naming the initrd that is there.
    #[must_use]
    pub fn is_damaged(&self, at: u64, why: String) -> Error {
        let part = self.parts.iter().rev().find(|(_, begin, _)| *begin <= at);
        match part {
            Some((source, begin, _)) => source.is_not_whole(Failure::Damaged { at: at - begin, why }),
            None => Error::DamagedInitrd { piece: Piece::default(), why: Failure::Damaged { at, why } },
        }
    }
}

/// Joins the initrds in a set. Returns `None` if there is nothing to join. Adds no padding after the last one,
/// so that a bootconfig stays at the very end.
pub fn initrd<'a>(
    root: &Root,
    set: &NewSet,
    sources: &'a [Source],
    extra: &Extra,
) -> Result<Option<Joined<'a>>, Error> {
    if sources.is_empty() && extra.is_empty() {
        return Ok(None);
    }
    let (path, mut copy) = set.create("initrd")?;
    let unwritable = |error| Error::Unwritable { path: path.clone(), error };
    let (mut end, mut parts) = (0, Vec::new());
    for source in sources {
        let begin = next_begin(end);
        fill(&mut copy, end, begin).map_err(unwritable)?;
        source.append_to(&mut copy, &path)?;
        end = begin + source.length();
        parts.push((source, begin, end));
    }
    if !extra.is_empty() {
        fill(&mut copy, end, next_begin(end)).map_err(unwritable)?;
        extra.append_to(root, &mut copy, &path)?;
    }
    drop(copy);
    let copy = File::open(&path).map_err(unwritable)?;
    parts.iter().try_for_each(|(source, begin, _)| source.see_that_it_is_meant(&copy, *begin))?;
    Ok(Some(Joined { copy, parts }))
}

/// A staged kernel.
#[derive(Debug)]
pub struct Kernel {
    /// The copy, open for reading only.
    pub copy: File,
    /// The original file, if it was copied unchanged.
    original: Option<File>,
}

impl Kernel {
    /// Returns a kernel that was made from another file. The running kernel judges the copy itself.
    #[must_use]
    pub fn made(copy: File) -> Kernel {
        Kernel { copy, original: None }
    }

    /// Checks that the kernel is intact, as far as possible. `unpacks` is whether to check the compressed
    /// payload, too, which is not needed if it is decompressed later. Errors name the file that it was staged
    /// from.
    pub fn see_that_it_is_whole(&self, source: &Source, unpacks: bool) -> Result<(), Error> {
        let damaged = |why| Error::DamagedKernel { piece: source.piece.clone(), why };
        whole::kernel(&self.copy, unpacks).map_err(damaged)
    }

    /// Returns the file for the running kernel to judge: the original, if it was copied unchanged, because a
    /// copy has neither its IMA signature nor its security label.
    #[must_use]
    pub fn judged(&self) -> &File {
        self.original.as_ref().unwrap_or(&self.copy)
    }
}

/// Stages a kernel in a set, unpacked from any wrapping, to at most `most` bytes. A file that is no kernel is
/// copied as it is, because the running kernel reports that.
pub fn kernel(set: &NewSet, source: &Source, most: u64) -> Result<Kernel, Error> {
    let unreadable = |error| source.unreadable(error);
    let (path, mut copy) = set.create("kernel")?;
    let is_wrapped = source.wrapping().map_err(unreadable)?.is_some();
    if is_wrapped {
        source.unpack_to(&mut copy, &path, most)?;
    } else {
        source.append_to(&mut copy, &path)?;
    }
    drop(copy);
    let copy = File::open(&path).map_err(|error| Error::Unwritable { path, error })?;
    // The checksum of a wrapped kernel is that of the wrapped file.
    let (file, begin) = if is_wrapped { (&source.file, source.offset) } else { (&copy, 0) };
    source.see_that_it_is_meant(file, begin)?;
    let is_original = !is_wrapped && source.piece.section.is_none();
    let original = is_original.then(|| source.file.try_clone()).transpose().map_err(unreadable)?;
    Ok(Kernel { copy, original })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::image::cpio::tests::read;
    use crate::image::piece::Packed;
    use crate::machine::scratch::Scratch;
    use crate::staging::directory::Folder;
    use nextkernel_plan::HandoffId;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    const IMAGE: &[u8] = include_bytes!("../../../../fuzz/seeds/unpack/plain");
    const GZIP: &[u8] = include_bytes!("../../../../fuzz/seeds/unpack/gzip");
    const ZBOOT: &[u8] = include_bytes!("../../../../fuzz/seeds/unpack/zboot-zstd");

    fn source(scratch: &Scratch, what: &'static str, piece: &Piece, bytes: &[u8]) -> Source {
        fs::write(scratch.root.path(&piece.path), bytes).unwrap();
        Source::open(&scratch.root, what, piece).unwrap()
    }

    fn all(mut file: &File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn joined_with(parts: &[(&[u8], Option<Packed>)], extra: &[&str]) -> Vec<u8> {
        let scratch = Scratch::new();
        let sources: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(number, (part, packed))| {
                let piece = Piece {
                    packed: packed.clone().map(Box::new),
                    ..PathBuf::from(format!("/{number}")).into()
                };
                source(&scratch, "initrd", &piece, part)
            })
            .collect();
        let extra = Extra::find(&scratch.root, extra).unwrap();
        let folder = Folder::open(&scratch.root).unwrap();
        let set = folder.new_set(HandoffId(1)).unwrap();
        let initrd = initrd(&scratch.root, &set, &sources, &extra).unwrap();
        let bytes = initrd.map(|joined| all(&joined.copy)).unwrap_or_default();
        assert_eq!(initrd_size(&sources, &extra).unwrap(), bytes.len() as u64);
        bytes
    }

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        joined_with(&parts.iter().map(|part| (*part, None)).collect::<Vec<_>>(), &[])
    }

    /// Stages a kernel. Returns the copy and whether the original is judged, or the error.
    fn staged(bytes: &[u8], section: Option<Section>, most: u64) -> Result<(Vec<u8>, bool), String> {
        let scratch = Scratch::new();
        let piece = Piece { section, ..Path::new("/k").into() };
        let source = source(&scratch, "kernel", &piece, bytes);
        let folder = Folder::open(&scratch.root).unwrap();
        let set = folder.new_set(HandoffId(1)).unwrap();
        let kernel = kernel(&set, &source, most).map_err(|error| error.to_string())?;
        let inode = |file: &File| file.metadata().unwrap().ino();
        Ok((all(&kernel.copy), inode(kernel.judged()) == inode(&source.file)))
    }

    #[test]
    fn one_initrd_is_copied_byte_for_byte() {
        assert_eq!(joined(&[b"12345"]), b"12345");
        assert_eq!(joined(&[]), b"");
    }

    #[test]
    fn every_member_of_several_initrds_begins_on_four_bytes() {
        assert_eq!(joined(&[b"a", b"bbbb", b"ccccc"]), b"a\0\0\0\0\0\0\0bbbb\0\0\0\0ccccc");
    }

    #[test]
    fn what_is_added_comes_last_and_begins_on_four_bytes() {
        let bytes = joined_with(&[(b"initrd", None)], &["/0:etc/key"]);
        let mut added = bytes.strip_prefix(b"initrd\0\0\0\0\0\0").unwrap();
        let members = read(&mut added).unwrap();
        assert_eq!(members.last().unwrap().1, b"initrd");
        assert!(added.is_empty());
    }

    #[test]
    fn what_follows_an_initrd_of_lz4_is_no_more_of_it() {
        let lz4 = [&b"\x02\x21\x4c\x18"[..], &[7; 61]].concat();
        let last = crate::image::archive::tests::entry("x", b"x", None);
        let joined = joined(&[&lz4, &last]);
        let behind = joined.get(lz4.len()..).unwrap();
        let zeros = behind.len() - last.len();
        assert!(behind.ends_with(&last) && behind.iter().take(zeros).all(|byte| *byte == 0));
        assert!(zeros >= 4 && (lz4.len() + zeros) % 4 == 0, "{zeros}");
    }

    #[test]
    fn a_bootconfig_stays_at_the_very_end_and_nothing_is_put_behind_it() {
        let scratch = Scratch::new();
        scratch.put("/key", "key");
        let refused = |end: &[u8], parts: usize, extra: &[&str]| {
            let extra = Extra::find(&scratch.root, extra).unwrap();
            let initrd = [b"070701..", end].concat();
            let names = ["/a", "/b"].iter().take(parts);
            let sources: Vec<_> =
                names.map(|name| source(&scratch, "initrd", &Path::new(name).into(), &initrd)).collect();
            initrd_size(&sources, &extra).err().map(|error| error.to_string())
        };
        for end in [&b"#BOOTCONFIG\n"[..], b"#BOOTCONFIG\n\0", b"#BOOTCONFIG\n\0\0\0"] {
            assert_eq!(refused(end, 1, &[]), None);
            let sentence = refused(end, 2, &[]).unwrap();
            assert!(sentence.contains("initrd /a has a bootconfig"), "{sentence}");
            assert!(sentence.contains("lost with /b behind it"), "{sentence}");
            assert!(refused(end, 1, &["/key"]).unwrap().contains("with --extra behind it"));
        }
        for end in [&b"#BOOTCONFIG\n\0\0\0\0"[..], b"#BOOTCONFIG", b"BOOTCONFIG\n", b""] {
            assert_eq!(refused(end, 2, &["/key"]), None);
        }
        let last = joined(&[b"a", b"12345#BOOTCONFIG\n\0\0"]);
        assert!(last.ends_with(b"12345#BOOTCONFIG\n\0\0"));
        let packed = Packed { name: "a".to_owned(), folder: 0o500, file: 0o400 };
        assert!(!joined_with(&[(b"#BOOTCONFIG\n", Some(packed)), (b"z", None)], &[]).is_empty());
    }

    #[test]
    fn a_packed_file_is_an_archive_of_its_own_with_its_folders() {
        let packed = Packed { name: ".extra/credentials/a.cred".to_owned(), folder: 0o500, file: 0o400 };
        let bytes = joined_with(&[(b"a", None), (b"secret", Some(packed)), (b"z", None)], &[]);
        let mut archive = bytes.strip_prefix(b"a\0\0\0\0\0\0\0").unwrap();
        let members = read(&mut archive).unwrap();
        assert_eq!(archive, b"\0\0\0\0z");
        let seen: Vec<_> = members.iter().map(|(member, _)| (member.name.as_slice(), member.mode)).collect();
        let (folder, file) = (libc::S_IFDIR, libc::S_IFREG);
        assert_eq!(
            seen,
            [
                (&b".extra"[..], folder | 0o555),
                (b".extra/credentials", folder | 0o500),
                (b".extra/credentials/a.cred", file | 0o400)
            ]
        );
        assert_eq!(members.last().unwrap().1, b"secret");
    }

    #[test]
    fn an_untouched_kernel_is_judged_by_its_original_and_any_other_by_its_copy() {
        let section = |offset, size| Some(Section { name: ".linux", offset, size });
        for kernel in [IMAGE, b"MZ", b"no kernel", b"\x7fELF"] {
            assert_eq!(staged(kernel, None, 0), Ok((kernel.to_vec(), true)));
        }
        assert_eq!(staged(GZIP, None, 2000), Ok((IMAGE.to_vec(), false)));
        assert_eq!(staged(ZBOOT, None, 2000), Ok((IMAGE.to_vec(), false)));
        let uki = [&b"MZ.."[..], IMAGE, b"...."].concat();
        assert_eq!(staged(&uki, section(4, IMAGE.len() as u64), 0), Ok((IMAGE.to_vec(), false)));
        let uki = [&b"MZ.."[..], ZBOOT].concat();
        assert_eq!(staged(&uki, section(4, ZBOOT.len() as u64), 2000), Ok((IMAGE.to_vec(), false)));
    }

    #[test]
    fn a_kernel_that_does_not_come_out_is_refused() {
        let sentence = |bytes: &[u8], most| staged(bytes, None, most).unwrap_err();
        assert!(sentence(GZIP, 1000).contains("unpacks to more than"));
        let cut = GZIP.get(..100).unwrap();
        assert!(
            sentence(cut, 2000).contains("kernel /k cannot be unpacked: as gzip it is cut off or damaged")
        );
        // An empty file, compressed.
        let empty = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0";
        assert!(sentence(empty, 2000).contains("nothing is in it"));
    }

    #[test]
    fn what_the_kernel_would_never_load_is_known_by_its_size() {
        let scratch = Scratch::new();
        let big = |what, bytes| {
            let made = File::create(scratch.root.path("/big")).unwrap();
            made.set_len(bytes).unwrap();
            Source::open(&scratch.root, what, &Path::new("/big").into()).unwrap()
        };
        let none = Extra::find(&scratch.root, &[""; 0]).unwrap();
        assert_eq!(initrd_size(&[big("initrd", FILE_MAX)], &none).unwrap(), FILE_MAX);
        let sentence = initrd_size(&[big("initrd", 5 << 30)], &none).unwrap_err().to_string();
        assert!(sentence.contains("is 5369 MB large, and no kernel loads more than 4295 MB"), "{sentence}");
        assert!(initrd_size(&[big("initrd", FILE_MAX), big("initrd", 1)], &none).is_err());
        assert!(big("kernel", 5 << 30).unpacked_size().is_err());
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
    fn what_is_damaged_is_told_by_its_file_and_the_place_in_that() {
        let scratch = Scratch::new();
        let good = crate::image::archive::tests::entry("a", b"abc", None);
        let files = [("/one", &good[..]), ("/two", b"\x1f\x8b\x08"), ("/three", b"none")];
        let sources = files.map(|(name, bytes)| source(&scratch, "initrd", &Path::new(name).into(), bytes));
        let extra = Extra::find(&scratch.root, &[] as &[&str]).unwrap();
        let folder = Folder::open(&scratch.root).unwrap();
        let set = folder.new_set(HandoffId(1)).unwrap();
        let joined = initrd(&scratch.root, &set, &sources, &extra).unwrap().unwrap();
        let error = joined.see_that_it_is_whole().unwrap_err().to_string();
        assert!(error.starts_with("the initrd /two is damaged: at byte 0: as gzip it is cut off"), "{error}");
        let behind = next_begin(next_begin(good.len() as u64) + 3);
        let error = joined.is_damaged(behind + 1, "why".to_owned()).to_string();
        assert!(error.starts_with("the initrd /three is damaged: at byte 1: why; make it again"), "{error}");
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
