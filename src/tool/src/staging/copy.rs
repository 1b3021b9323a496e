//! Copies the images into a set, where they outlive the file systems that they came from: the kernel, and the
//! initrds joined to one.

use std::fs::File;
use std::io::{self, Read};

use crate::image::cpio;
use crate::image::piece::Piece;
use crate::image::whole;
use crate::loading::decompress;
use crate::loading::decompress::failure::Failure;
use crate::machine::root::Root;
use crate::staging::directory::NewSet;
use crate::staging::extra::Extra;
use crate::staging::source::{Error, FILE_MAX, Source};

/// Number of zeros between two initrds, after padding to a multiple of 4.
const GAP: u64 = 4;

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
    use crate::image::piece::{Packed, Section};
    use crate::machine::scratch::Scratch;
    use crate::staging::directory::Directory;
    use crate::staging::source::tests::{GZIP, IMAGE, ZBOOT, source};
    use nextkernel_plan::HandoffId;
    use std::io::{Seek, SeekFrom};
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

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
        let directory = Directory::open(&scratch.root).unwrap();
        let set = directory.new_set(HandoffId(1)).unwrap();
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
        let directory = Directory::open(&scratch.root).unwrap();
        let set = directory.new_set(HandoffId(1)).unwrap();
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
        let packed = Packed { name: "a".to_owned(), directory: 0o500, file: 0o400 };
        assert!(!joined_with(&[(b"#BOOTCONFIG\n", Some(packed)), (b"z", None)], &[]).is_empty());
    }

    #[test]
    fn a_packed_file_is_an_archive_of_its_own_with_its_folders() {
        let packed = Packed { name: ".extra/credentials/a.cred".to_owned(), directory: 0o500, file: 0o400 };
        let bytes = joined_with(&[(b"a", None), (b"secret", Some(packed)), (b"z", None)], &[]);
        let mut archive = bytes.strip_prefix(b"a\0\0\0\0\0\0\0").unwrap();
        let members = read(&mut archive).unwrap();
        assert_eq!(archive, b"\0\0\0\0z");
        let seen: Vec<_> = members.iter().map(|(member, _)| (member.name.as_slice(), member.mode)).collect();
        let (directory, file) = (libc::S_IFDIR, libc::S_IFREG);
        assert_eq!(
            seen,
            [
                (&b".extra"[..], directory | 0o555),
                (b".extra/credentials", directory | 0o500),
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
    fn what_is_damaged_is_told_by_its_file_and_the_place_in_that() {
        let scratch = Scratch::new();
        let good = crate::image::archive::tests::entry("a", b"abc", None);
        let files = [("/one", &good[..]), ("/two", b"\x1f\x8b\x08"), ("/three", b"none")];
        let sources = files.map(|(name, bytes)| source(&scratch, "initrd", &Path::new(name).into(), bytes));
        let extra = Extra::find(&scratch.root, &[] as &[&str]).unwrap();
        let directory = Directory::open(&scratch.root).unwrap();
        let set = directory.new_set(HandoffId(1)).unwrap();
        let joined = initrd(&scratch.root, &set, &sources, &extra).unwrap().unwrap();
        let error = joined.see_that_it_is_whole().unwrap_err().to_string();
        assert!(error.starts_with("the initrd /two is damaged: at byte 0: as gzip it is cut off"), "{error}");
        let behind = next_begin(next_begin(good.len() as u64) + 3);
        let error = joined.is_damaged(behind + 1, "why".to_owned()).to_string();
        assert!(error.starts_with("the initrd /three is damaged: at byte 1: why; make it again"), "{error}");
    }
}
