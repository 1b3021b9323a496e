//! Unwrapping a kernel that is compressed, or wrapped for UEFI, while it is copied.
//!
//! What is compressed is told by its first bytes. What is unwrapped passes through in pieces; how much memory that
//! takes is up to the format. A window, within which a format repeats itself, is held, but never more of it than
//! the kernel itself is large:
//!
//! | format | memory |
//! |---|---|
//! | gzip, lzo, bzip2 | 0.1, 0.6 and 4 MB |
//! | lz4 | 9 MB, and in the kernel's own form 17 MB |
//! | xz, lzma | the window the file asks for, at most 128 MiB; kernels ask for 32 or 128 |
//! | zstd | twice that at most; kernels ask for 128 MiB |

use std::io::{self, BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom};

use bzip2::read::BzDecoder;
use flate2::read::GzDecoder;
use lzma_rust2::{LzmaReader, XzReader};
use ruzstd::decoding::StreamingDecoder;
use thiserror::Error;

use crate::lzo;

/// How many bytes tell what a kernel is wrapped in, or that it is not: the last are in the header of an x86 kernel.
pub const HEAD: u64 = 0x206;

/// How many wrappings are taken off; more than a compressed image in an EFI image nobody makes.
const DEPTH: usize = 4;

/// The largest window, in bytes, that a kernel's own decompressor knows (`lib/decompress_unzstd.c`, `scripts/xz_wrap.sh`).
const WINDOW_MAX: u64 = 128 << 20;

/// The same for xz and lzma with what belongs to it, in KiB.
const WINDOW_KIB: u32 = (128 << 10) + (1 << 10);

/// A block of lz4 in the kernel's form, unpacked (`lib/decompress_unlz4.c`), and the most it is packed
/// (`LZ4_COMPRESSBOUND`, lz4.h).
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_PACKED: usize = LZ4_BLOCK + LZ4_BLOCK / 255 + 16;

/// What a file of lz4 in the kernel's form begins with, as a number; in a row of files it stands before each.
const LZ4_MAGIC: u32 = 0x184c_2102;

/// A block of lzop, unpacked (`lib/decompress_unlzo.c`).
const LZO_BLOCK: usize = 256 << 10;

/// What an EFI image that unpacks itself is called.
const ZBOOT: &str = "EFI zboot";

/// What a kernel can be wrapped in. The names are for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// An EFI image that unpacks itself (drivers/firmware/efi/libstub/zboot-header.S).
    Zboot {
        /// Where the kernel lies in it.
        offset: u32,
        /// How long that is.
        size: u32,
        /// Whether it is lzma, which cannot be told by its own bytes.
        lzma: bool,
    },
    /// RFC 1952.
    Gzip,
    /// The .xz file format, 1.2.1.
    Xz,
    /// The older format of the same, without a checksum.
    Lzma,
    /// RFC 8878.
    Zstd,
    /// LZ4 frame format, 1.6.1.
    Lz4,
    /// The legacy frame of the same, which kernels have.
    Lz4Legacy,
    /// bzip2, 1.0.
    Bzip2,
    /// The files of lzop.
    Lzo,
}

impl Wrapping {
    /// What a kernel that begins so is wrapped in; none where the kernel's own loader has to judge it.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Wrapping> {
        let starts = |magic: &[u8]| head.starts_with(magic);
        let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
        let number = |offset: usize| Some(u32::from_le_bytes(*head.get(offset..)?.first_chunk()?));
        // x86, arm64 and riscv: these are EFI images, too, and are loaded as they are.
        if at(0x202, b"HdrS") || at(0x38, b"ARM\x64") || at(0x38, b"RSC\x05") {
            return None;
        }
        let zboot =
            || Some(Wrapping::Zboot { offset: number(8)?, size: number(12)?, lzma: at(0x18, b"lzma\0") });
        match () {
            () if starts(b"MZ") && at(4, b"zimg") => zboot(),
            () if starts(b"\x1f\x8b\x08") => Some(Wrapping::Gzip),
            () if starts(b"\xfd7zXZ\0") => Some(Wrapping::Xz),
            () if starts(b"\x28\xb5\x2f\xfd") => Some(Wrapping::Zstd),
            () if starts(b"\x04\x22\x4d\x18") => Some(Wrapping::Lz4),
            () if starts(&LZ4_MAGIC.to_le_bytes()) => Some(Wrapping::Lz4Legacy),
            () if starts(b"BZh") => Some(Wrapping::Bzip2),
            () if starts(b"\x89LZO\0\r\n\x1a\n") => Some(Wrapping::Lzo),
            () => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Wrapping::Zboot { .. } => ZBOOT,
            Wrapping::Gzip => "gzip",
            Wrapping::Xz => "xz",
            Wrapping::Lzma => "lzma",
            Wrapping::Zstd => "zstd",
            Wrapping::Lz4 | Wrapping::Lz4Legacy => "lz4",
            Wrapping::Bzip2 => "bzip2",
            Wrapping::Lzo => "lzo",
        }
    }

    /// A stream of what is in it.
    fn open(self, mut from: Stream<'_>) -> io::Result<Stream<'_>> {
        Ok(match self {
            Wrapping::Zboot { offset, size, .. } => {
                let skipped = io::copy(&mut (&mut from).take(offset.into()), &mut io::sink())?;
                if skipped < offset.into() {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                Box::new(from.take(size.into()))
            }
            Wrapping::Gzip => Box::new(GzDecoder::new(from)),
            Wrapping::Xz => Box::new(XzReader::new_mem_limit(from, false, WINDOW_KIB)),
            Wrapping::Lzma => Box::new(LzmaReader::new_mem_limit(from, WINDOW_KIB, None)?),
            Wrapping::Zstd => {
                let (head, from) = peeked(from, 18)?;
                if zstd_window(&head).is_some_and(|window| window > WINDOW_MAX) {
                    return Err(io::Error::other(
                        "its window is larger than the 128 MiB that a kernel's may be",
                    ));
                }
                Box::new(StreamingDecoder::new(from).map_err(io::Error::other)?)
            }
            Wrapping::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(from)),
            Wrapping::Lz4Legacy => Box::new(Blocks::new(from, lz4_block)),
            Wrapping::Bzip2 => Box::new(BzDecoder::new(from)),
            Wrapping::Lzo => {
                lzo_header(&mut from)?;
                Box::new(Blocks::new(from, lzo_block))
            }
        })
    }

    /// How large what is in it says that it is, in bytes, where that can be seen without unpacking it. It may lie.
    pub fn told(self, from: &mut (impl Read + Seek), start: u64, end: u64) -> Option<u64> {
        let mut number = |at: u64| {
            let mut bytes = [0; 4];
            from.seek(SeekFrom::Start(at)).ok()?;
            from.read_exact(&mut bytes).ok()?;
            Some(u64::from(u32::from_le_bytes(bytes)))
        };
        match self {
            // It is part of gzip's own format; of the others the build appends it (Makefile.zboot).
            Wrapping::Zboot { offset, size, .. } => {
                let begin = start.checked_add(offset.into())?;
                let behind = begin.checked_add(size.into()).filter(|behind| *behind <= end)?;
                let is_gzip = number(begin)?.to_le_bytes().starts_with(b"\x1f\x8b");
                number(if is_gzip { behind.checked_sub(4)? } else { behind })
            }
            Wrapping::Gzip => number(end.checked_sub(4)?),
            _ => None,
        }
    }
}

/// Bytes on their way.
pub type Stream<'a> = Box<dyn Read + 'a>;

/// Why nothing comes out.
#[derive(Debug, Error)]
pub enum Error {
    /// A wrapping is not as its format says.
    #[error("as {wrapping} it is cut off or damaged ({why})")]
    Damaged {
        /// In what.
        wrapping: &'static str,
        /// Why.
        why: String,
    },
    /// It is wrapped too often.
    #[error("it is wrapped more than {DEPTH} times")]
    TooDeep,
    /// Nothing is in it.
    #[error("nothing is in it")]
    Empty,
    /// The file cannot be read.
    #[error(transparent)]
    Read(io::Error),
}

/// A kernel on its way out of its wrappings.
pub struct Unpacked<'a> {
    stream: Stream<'a>,
    innermost: &'static str,
}

impl<'a> Unpacked<'a> {
    /// Takes off whatever a kernel is wrapped in.
    pub fn new(from: impl Read + 'a) -> Result<Unpacked<'a>, Error> {
        let mut kernel = Unpacked { stream: Box::new(BufReader::new(from)), innermost: "a kernel" };
        let mut lzma = false;
        for _ in 0..=DEPTH {
            let (head, stream) =
                peeked(kernel.stream, HEAD).map_err(|error| failed(kernel.innermost, &error))?;
            let wrapping = if lzma { Some(Wrapping::Lzma) } else { Wrapping::of(&head) };
            let Some(wrapping) = wrapping else {
                // An EFI image holds nothing else than a packed kernel.
                return match kernel.innermost {
                    ZBOOT => Err(failed(ZBOOT, &io::Error::other("what it holds is packed in no known way"))),
                    _ => Ok(Unpacked { stream, ..kernel }),
                };
            };
            lzma = matches!(wrapping, Wrapping::Zboot { lzma: true, .. });
            let innermost = wrapping.name();
            let inside = wrapping.open(stream).map_err(|error| failed(innermost, &error))?;
            // Some formats are read byte by byte.
            kernel = Unpacked { stream: Box::new(BufReader::with_capacity(1 << 16, inside)), innermost };
        }
        Err(Error::TooDeep)
    }

    /// The next bytes; none at its end.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.stream.read(into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                answer => return answer.map_err(|error| failed(self.innermost, &error)),
            }
        }
    }
}

fn failed(wrapping: &'static str, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(number) => Error::Read(io::Error::from_raw_os_error(number)),
        None => Error::Damaged { wrapping, why: error.to_string() },
    }
}

/// The first bytes of a stream, and all of it.
fn peeked(mut from: Stream<'_>, most: u64) -> io::Result<(Vec<u8>, Stream<'_>)> {
    let mut head = Vec::new();
    (&mut from).take(most).read_to_end(&mut head)?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(from))))
}

/// The window that a frame of zstd asks for, in bytes (RFC 8878, 3.1.1.1).
fn zstd_window(head: &[u8]) -> Option<u64> {
    let descriptor = *head.get(4)?;
    let is_single = descriptor & 0x20 != 0;
    if !is_single {
        let window = u64::from(*head.get(5)?);
        let base = 1 << (10 + (window >> 3));
        return Some(base + base / 8 * (window & 7));
    }
    // The window is the whole content; its size stands behind the dictionary's number.
    let at = 5 + [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
    let bytes = [1, 2, 4, 8].get(usize::from(descriptor >> 6))?;
    let size = head.get(at..at + bytes)?.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    Some(if *bytes == 2 { size + 256 } else { size })
}

/// A format that is one block after the other.
struct Blocks<'a> {
    from: Stream<'a>,
    next: fn(&mut Stream<'_>, &mut Vec<u8>, &mut Vec<u8>) -> io::Result<()>,
    packed: Vec<u8>,
    block: Vec<u8>,
    at: usize,
}

impl<'a> Blocks<'a> {
    /// `next` reads a block packed and leaves it unpacked; at the end it leaves none.
    fn new(
        from: Stream<'a>,
        next: fn(&mut Stream<'_>, &mut Vec<u8>, &mut Vec<u8>) -> io::Result<()>,
    ) -> Blocks<'a> {
        Blocks { from, next, packed: Vec::new(), block: Vec::new(), at: 0 }
    }
}

impl Read for Blocks<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.block.len() {
            self.at = 0;
            (self.next)(&mut self.from, &mut self.packed, &mut self.block)?;
        }
        let read = self.block.get(self.at..).unwrap_or_default().read(into)?;
        self.at += read;
        Ok(read)
    }
}

/// A block of lz4 in the kernel's form: its length packed, and it. Behind the last the build may have appended
/// the size of the whole.
fn lz4_block(from: &mut Stream<'_>, packed: &mut Vec<u8>, block: &mut Vec<u8>) -> io::Result<()> {
    block.clear();
    let length = loop {
        let mut bytes = [0; 4];
        match from.read(bytes.get_mut(..1).unwrap_or_default())? {
            0 => return Ok(()),
            _ => from.read_exact(bytes.get_mut(1..).unwrap_or_default())?,
        }
        match u32::from_le_bytes(bytes) {
            LZ4_MAGIC => {}
            length => break length,
        }
    };
    packed.clear();
    from.take(LZ4_PACKED as u64 + 1).take(length.into()).read_to_end(packed)?;
    if packed.is_empty() {
        return Ok(());
    }
    if packed.len() as u64 != u64::from(length) || packed.len() > LZ4_PACKED {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    block.resize(LZ4_BLOCK, 0);
    let size = lz4_flex::block::decompress_into(packed, block).map_err(io::Error::other)?;
    block.truncate(size);
    Ok(())
}

/// A block of lzop: its length, its length packed, a checksum, and it; the last is of no length.
fn lzo_block(from: &mut Stream<'_>, packed: &mut Vec<u8>, block: &mut Vec<u8>) -> io::Result<()> {
    block.clear();
    let size = lzo_number(from)?;
    if size == 0 {
        return Ok(());
    }
    let (length, _checksum) = (lzo_number(from)?, lzo_number(from)?);
    if size > LZO_BLOCK || length > size || length == 0 {
        return Err(io::Error::other("a block of an impossible length"));
    }
    packed.resize(length, 0);
    from.read_exact(packed)?;
    if length == size {
        block.extend_from_slice(packed);
        return Ok(());
    }
    lzo::unpack(packed, size, block).ok_or_else(|| io::Error::other("a block that is malformed"))
}

/// The header of lzop, of which nothing matters: version, flags, and the name of the file (`lib/decompress_unlzo.c`).
fn lzo_header(from: &mut Stream<'_>) -> io::Result<()> {
    const FILTER: u8 = 0x08;
    let mut skip = |count: usize| {
        let mut bytes = [0; 256];
        from.read_exact(bytes.get_mut(..count).unwrap_or_default()).map(|()| bytes)
    };
    let version = u16::from_be_bytes(
        skip(9 + 2)?.get(9..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default(),
    );
    let is_new = version >= 0x0940;
    // Two more versions, the method, and a level.
    skip(if is_new { 6 } else { 5 })?;
    let flags = skip(4)?;
    if flags.get(2).is_some_and(|flags| flags & FILTER != 0) {
        skip(4)?;
    }
    // Mode and time, the time's upper half.
    skip(if is_new { 12 } else { 8 })?;
    let name = skip(1)?;
    skip(usize::from(name.first().copied().unwrap_or_default()))?;
    skip(4).map(drop)
}

fn lzo_number(from: &mut Stream<'_>) -> io::Result<usize> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    macro_rules! seed {
        ($name:literal) => {
            ($name, include_bytes!(concat!("../../../fuzz/seeds/unpack/", $name)) as &[u8])
        };
    }

    /// Made by the tools themselves, as the kernel's build calls them, from `plain`.
    const WRAPPED: [(&str, &[u8]); 13] = [
        seed!("gzip"),
        seed!("xz"),
        seed!("xz-bcj"),
        seed!("zstd"),
        seed!("zstd-22"),
        seed!("lz4"),
        seed!("lz4-legacy"),
        seed!("bzip2"),
        seed!("lzo"),
        seed!("zboot-gzip"),
        seed!("zboot-zstd"),
        seed!("zboot-lzma"),
        seed!("zboot-xz"),
    ];
    const PLAIN: &[u8] = seed!("plain").1;

    fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut kernel = Unpacked::new(bytes)?;
        let (mut all, mut part) = (Vec::new(), [0; 100]);
        loop {
            match kernel.read(&mut part)? {
                0 => return Ok(all),
                read => all.extend(part.get(..read).unwrap()),
            }
        }
    }

    #[test]
    fn every_format_that_a_kernel_is_packed_in_gives_the_kernel() {
        for (name, bytes) in WRAPPED {
            assert!(Wrapping::of(bytes).is_some(), "{name}");
            assert_eq!(unpacked(bytes).unwrap(), PLAIN, "{name}");
        }
    }

    #[test]
    fn what_is_a_kernel_already_or_is_unknown_passes_as_it_is() {
        for kernel in [PLAIN, b"\x7fELF", b"MZ", b"text", b"", b"BZ", b"MZ\0\0zimg"] {
            assert_eq!((Wrapping::of(kernel), unpacked(kernel).unwrap()), (None, kernel.to_vec()));
        }
    }

    #[test]
    fn one_that_is_cut_off_anywhere_is_damaged() {
        for (name, bytes) in WRAPPED {
            // The end of some is only a checksum or a table, which nobody may need; zboot has padding there.
            for length in (20..bytes.len() * 3 / 4).step_by(7) {
                let cut = bytes.get(..length).unwrap();
                let left = unpacked(cut);
                assert!(matches!(left, Err(Error::Damaged { .. })), "{name} {length} {left:?}");
            }
        }
    }

    #[test]
    fn wrapping_a_kernel_without_end_is_refused() {
        assert!(matches!(unpacked(seed!("too-deep").1), Err(Error::TooDeep)));
    }

    #[test]
    fn a_window_that_no_kernel_asks_for_is_refused_before_it_is_made() {
        let (_, zstd) = seed!("zstd-22");
        let frame = |descriptor: u8, rest: &[u8]| [zstd.get(..4).unwrap(), &[descriptor], rest].concat();
        assert_eq!(zstd_window(&frame(0, &[17 << 3])), Some(WINDOW_MAX));
        assert_eq!(zstd_window(&frame(0x20, &[7])), Some(7));
        assert_eq!(zstd_window(&frame(0x61, &[9, 1, 1])), Some(513));
        assert_eq!(zstd_window(&frame(0xe3, &[0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])), Some((1 << 32) + 1));
        let error = unpacked(&frame(0, &[(17 << 3) + 1, 0, 0, 0])).unwrap_err().to_string();
        assert!(error.contains("128 MiB"), "{error}");
    }

    #[test]
    fn the_size_that_a_kernel_tells_of_itself_is_found_where_there_is_one() {
        for (name, bytes) in WRAPPED {
            let told = Wrapping::of(bytes).unwrap().told(&mut Cursor::new(bytes), 0, bytes.len() as u64);
            let is_told = name.contains("gzip") || name.starts_with("zboot");
            assert_eq!(told, is_told.then_some(PLAIN.len() as u64), "{name}");
        }
    }
}
