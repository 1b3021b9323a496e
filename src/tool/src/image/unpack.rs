//! Removes a kernel's wrappings, which are compression and EFI zboot images, while the kernel is copied.
//!
//! The first bytes identify a wrapping. The kernel is unwrapped in pieces. The memory that this takes depends
//! on the format (measured with a kernel of 40 MB):
//!
//! | format | memory in MB |
//! |---|---|
//! | gzip, lzo, bzip2 | 3 |
//! | lz4; the kernel's own form of it | 9; 15 |
//! | zstd, xz, lzma | 7 to 35, with windows of 2 to 32 MiB; 68 with the largest, 128 MiB |
//!
//! A window is the distance over which a format can refer back to earlier output. The decoder never holds more
//! of it than twice the size of the kernel.
//!
//! A damaged kernel must not pass for a whole one. So every checksum and every size that a format has is
//! compared, and only zeros and the size that the kernel's build appends may follow the end.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::rc::Rc;

use bzip2::bufread::BzDecoder;
use flate2::Crc;
use flate2::bufread::GzDecoder;
use lzma_rust2::{LzmaReader, XzReader};
use ruzstd::decoding::StreamingDecoder;
use thiserror::Error;

use crate::image::lzo;

/// The number of bytes that are enough to identify a kernel's wrapping, or to see that there is none. The last
/// of them are in the header of an x86 kernel.
pub const HEAD: u64 = 0x206;

/// The number of wrappings that are removed. Nobody makes more than a compressed image in an EFI image.
const DEPTH: usize = 4;

/// The largest window, in bytes, that a kernel's own decompressor supports (`lib/decompress_unzstd.c`,
/// `scripts/xz_wrap.sh`).
const WINDOW_MAX: u64 = 128 << 20;

/// The memory limit for xz and lzma, in KiB: that window, and the rest of the decoder.
const WINDOW_KIB: u32 = (128 << 10) + (1 << 10);

/// The size of a block of lz4 in the kernel's form when decompressed (`lib/decompress_unlz4.c`), and the
/// largest size of one when compressed (`LZ4_COMPRESSBOUND`, lz4.h).
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_PACKED: usize = LZ4_BLOCK + LZ4_BLOCK / 255 + 16;

/// The magic number of an lz4 file in the kernel's form. If several such files are concatenated, each begins
/// with it.
const LZ4_MAGIC: u32 = 0x184c_2102;

/// The largest size of a block of lzop when decompressed (`lib/decompress_unlzo.c`).
const LZO_BLOCK: usize = 256 << 10;

/// The beginning of lzma data that no header announces: the usual parameters, and a dictionary size that is a
/// multiple of 64 KiB.
const LZMA: &[u8] = &[0x5d, 0, 0];

/// The beginning of lzma data in an initrd.
const LZMA_MEMBER: &[u8] = &[0x5d, 0];

/// The name of an EFI image that decompresses itself.
const ZBOOT: &str = "EFI zboot";

/// A wrapping of a kernel. The names are meant for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// An EFI image that decompresses itself (drivers/firmware/efi/libstub/zboot-header.S).
    Zboot {
        /// The offset of the compressed kernel in the image, in bytes.
        offset: u32,
        /// The compressed size of the kernel, in bytes.
        size: u32,
        /// Whether the kernel is compressed with lzma, which its own bytes do not show.
        lzma: bool,
    },
    /// RFC 1952.
    Gzip,
    /// The .xz file format, 1.2.1.
    Xz,
    /// The older .lzma format, without a checksum.
    Lzma,
    /// RFC 8878.
    Zstd,
    /// LZ4 frame format, 1.6.1.
    Lz4,
    /// The legacy LZ4 frame, which kernels use.
    Lz4Legacy,
    /// bzip2, 1.0.
    Bzip2,
    /// The file format of lzop.
    Lzo,
}

impl Wrapping {
    /// Returns the wrapping of a kernel that begins with these bytes, or `None` if the running kernel has to
    /// judge it as it is.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Wrapping> {
        let starts = |magic: &[u8]| head.starts_with(magic);
        let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
        let number = |offset: usize| Some(u32::from_le_bytes(*head.get(offset..)?.first_chunk()?));
        // Images for x86, arm64 and riscv are EFI images, too, and are loaded as they are.
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

    /// Opens a stream of the content. `told` receives the size that an EFI image states for it.
    fn open<'a>(self, mut from: Stream<'a>, told: &Told, behind: Behind) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Wrapping::Zboot { offset, size, .. } => {
                let skipped = io::copy(&mut (&mut from).take(offset.into()), &mut io::sink())?;
                if skipped < offset.into() {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                told.set(Size::Untold);
                Box::new(Zboot { from, left: size.into(), told: Rc::clone(told) })
            }
            Wrapping::Gzip => {
                // gzip data includes its size, so the build appends none (Makefile.zboot).
                told.set(Size::Inside);
                Whole::boxed(behind, GzDecoder::new(from), |gzip, _| Ok(gzip.into_inner()))
            }
            Wrapping::Xz => {
                let xz = XzReader::new_mem_limit(from, false, WINDOW_KIB);
                Whole::boxed(behind, xz, |xz, _| Ok(xz.into_inner()))
            }
            Wrapping::Lzma => {
                let mut lzma = LzmaReader::new_mem_limit(from, WINDOW_KIB, None)?;
                lzma.set_relaxed_end_condition(false);
                Whole::boxed(behind, lzma, |lzma, _| {
                    // The decoder reads ahead.
                    let (from, ahead) = lzma.into_parts();
                    Ok(Box::new(Cursor::new(ahead).chain(from)))
                })
            }
            Wrapping::Zstd => {
                let (head, from) = peeked(from, 18)?;
                if zstd_window(&head).is_some_and(|window| window > WINDOW_MAX) {
                    return Err(io::Error::other(
                        "its window is larger than the 128 MiB that a kernel's may be",
                    ));
                }
                Whole::boxed(behind, StreamingDecoder::new(from).map_err(io::Error::other)?, |zstd, size| {
                    let (from, frame) = zstd.into_parts();
                    let (has, says) = (frame.get_calculated_checksum(), frame.get_checksum_from_data());
                    same(has, says.or(has), "checksum")?;
                    // A size of 0 means that the frame states none.
                    same(size, Some(frame.content_size()).filter(|says| *says > 0).unwrap_or(size), "size")?;
                    Ok(from)
                })
            }
            Wrapping::Lz4 => {
                let frame = lz4_flex::frame::FrameDecoder::new(Endless(from));
                Whole::boxed(behind, frame, |lz4, _| Ok(lz4.into_inner().0))
            }
            Wrapping::Lz4Legacy => {
                Whole::boxed(behind, Blocks::new(from, lz4_block, 0), |lz4, _| Ok(lz4.from))
            }
            Wrapping::Bzip2 => Whole::boxed(behind, BzDecoder::new(from), |bzip2, _| Ok(bzip2.into_inner())),
            Wrapping::Lzo => {
                let flags = lzo_header(&mut from)?;
                Whole::boxed(behind, Blocks::new(from, lzo_block, flags), |lzo, _| Ok(lzo.from))
            }
        })
    }

    /// Returns the size in bytes that the data states for its content, if that can be read without
    /// decompressing. The statement may be false.
    pub fn told(self, from: &mut (impl Read + Seek), start: u64, end: u64) -> Option<u64> {
        let mut number = |at: u64| {
            let mut bytes = [0; 4];
            from.seek(SeekFrom::Start(at)).ok()?;
            from.read_exact(&mut bytes).ok()?;
            Some(u64::from(u32::from_le_bytes(bytes)))
        };
        match self {
            // The size is part of gzip's own format. For the other formats the build appends it
            // (Makefile.zboot).
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

/// The data that may follow the end of a compressed stream.
#[derive(Clone, Copy)]
enum Behind {
    /// Only zeros, and the size that the build appends.
    Nothing,
    /// Anything, because it is not looked at.
    Anything,
}

/// Opens a compressed member of an initrd, which other members may follow, and names its format. Returns `None`
/// if the format is none of those that a kernel decompresses there (`compressed_formats`, lib/decompress.c). At
/// the end of the member, exactly its bytes have been taken from the stream; lz4 takes all there is, as the
/// kernel's does.
pub fn member<'a>(
    head: &[u8],
    from: impl BufRead + 'a,
) -> io::Result<Option<(&'static str, Box<dyn Read + 'a>)>> {
    let wrapping = match Wrapping::of(head) {
        // The kernel compares only two bytes.
        _ if head.starts_with(LZMA_MEMBER) => Wrapping::Lzma,
        None | Some(Wrapping::Zboot { .. } | Wrapping::Lz4) => return Ok(None),
        Some(wrapping) => wrapping,
    };
    let from: Stream<'a> = match wrapping {
        // The decoder would read ahead, into bytes that belong to the next member.
        Wrapping::Lzma => Box::new(BufReader::with_capacity(1, Single(from))),
        _ => Box::new(from),
    };
    let member = wrapping.open(from, &Told::default(), Behind::Anything)?;
    Ok(Some((wrapping.name(), member)))
}

/// A reader that returns one byte at a time.
struct Single<R>(R);

impl<R: Read> Read for Single<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into.get_mut(..1).unwrap_or_default())
    }
}

/// A stream of bytes.
type Stream<'a> = Box<dyn BufRead + 'a>;

/// A reason why a kernel cannot be unwrapped.
#[derive(Debug, Error)]
pub enum Error {
    /// The data does not follow the format of its wrapping.
    #[error("as {wrapping} it is cut off or damaged ({why})")]
    Damaged {
        /// The name of the wrapping.
        wrapping: &'static str,
        /// The reason, in words.
        why: String,
    },
    /// There are more wrappings than anybody makes.
    #[error("it is wrapped more than {DEPTH} times")]
    TooDeep,
    /// The unwrapped kernel is empty.
    #[error("nothing is in it")]
    Empty,
    /// The file cannot be read.
    #[error(transparent)]
    Read(io::Error),
}

/// A kernel that is being unwrapped.
pub struct Unpacked<'a> {
    stream: Stream<'a>,
    innermost: &'static str,
    /// The number of bytes that came out so far.
    size: u64,
    /// The size that an EFI image states.
    told: Told,
}

impl<'a> Unpacked<'a> {
    /// Removes all wrappings of a kernel.
    pub fn new(from: impl Read + 'a) -> Result<Unpacked<'a>, Error> {
        Unpacked::of(from, false)
    }

    /// Removes the wrapping of the payload that a kernel image carries and decompresses itself. A payload is
    /// compressed once, and may be lzma.
    pub fn payload(from: impl Read + 'a) -> Result<Unpacked<'a>, Error> {
        let (head, stream) = peeked(Box::new(BufReader::new(from)), HEAD).map_err(Error::Read)?;
        Unpacked::of(stream, head.starts_with(LZMA))
    }

    fn of(from: impl Read + 'a, mut lzma: bool) -> Result<Unpacked<'a>, Error> {
        let stream = Box::new(BufReader::new(from));
        let mut kernel = Unpacked { stream, innermost: "a kernel", size: 0, told: Told::default() };
        for _ in 0..=DEPTH {
            let (head, stream) =
                peeked(kernel.stream, HEAD).map_err(|error| failed(kernel.innermost, &error))?;
            let wrapping = if lzma { Some(Wrapping::Lzma) } else { Wrapping::of(&head) };
            let Some(wrapping) = wrapping else {
                // An EFI image holds only a compressed kernel.
                return match kernel.innermost {
                    ZBOOT => Err(failed(ZBOOT, &io::Error::other("what it holds is packed in no known way"))),
                    _ => Ok(Unpacked { stream, ..kernel }),
                };
            };
            lzma = matches!(wrapping, Wrapping::Zboot { lzma: true, .. });
            let innermost = wrapping.name();
            let inside = wrapping
                .open(stream, &kernel.told, Behind::Nothing)
                .map_err(|error| failed(innermost, &error))?;
            // Some decoders read byte by byte.
            let stream = Box::new(BufReader::with_capacity(1 << 16, inside));
            kernel = Unpacked { stream, innermost, ..kernel };
        }
        Err(Error::TooDeep)
    }

    /// Reads the next bytes. Returns 0 at the end.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let read = loop {
            match self.stream.read(into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                answer => break answer.map_err(|error| failed(self.innermost, &error))?,
            }
        };
        self.size += read as u64;
        match self.told.get() {
            _ if read > 0 || into.is_empty() => {}
            Size::Untold | Size::Inside => {}
            Size::CutOff => return Err(failed(ZBOOT, &ErrorKind::UnexpectedEof.into())),
            Size::Told(says) => {
                same(low(self.size), says, "size").map_err(|error| failed(ZBOOT, &error))?;
            }
        }
        Ok(read)
    }
}

/// The size that an EFI image states for its kernel.
#[derive(Clone, Copy, Default)]
enum Size {
    /// None has been read yet.
    #[default]
    Untold,
    /// The size, which follows the compressed kernel.
    Told([u8; 4]),
    /// The image is cut off where the size should be.
    CutOff,
    /// The compressed kernel states its size itself.
    Inside,
}

type Told = Rc<Cell<Size>>;

/// The content of an EFI image, followed by the size of the decompressed kernel.
struct Zboot<'a> {
    from: Stream<'a>,
    left: u64,
    told: Told,
}

impl Read for Zboot<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = (&mut self.from).take(self.left).read(into)?;
        self.left -= read as u64;
        match self.left {
            _ if read > 0 || into.is_empty() => {}
            0 => {
                if let Size::Untold = self.told.get() {
                    let mut size = [0; 4];
                    let told = self.from.read_exact(&mut size);
                    self.told.set(told.map_or(Size::CutOff, |()| Size::Told(size)));
                }
                // The stream that contains this image must be whole, too.
                io::copy(&mut self.from, &mut io::sink())?;
            }
            _ => return Err(ErrorKind::UnexpectedEof.into()),
        }
        Ok(read)
    }
}

/// A decompressor that is read to its end, and the check of the data after that.
struct Whole<'a, D> {
    decoder: Option<D>,
    /// Checks the output, whose size is given, as far as the format allows. Returns the rest of the stream
    /// after the end.
    rest: fn(D, u64) -> io::Result<Stream<'a>>,
    size: u64,
    behind: Behind,
}

impl<'a, D: Read + 'a> Whole<'a, D> {
    fn boxed(behind: Behind, decoder: D, rest: fn(D, u64) -> io::Result<Stream<'a>>) -> Box<dyn Read + 'a> {
        Box::new(Whole { decoder: Some(decoder), rest, size: 0, behind })
    }
}

impl<D: Read> Read for Whole<'_, D> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.as_mut().map_or(Ok(0), |decoder| decoder.read(into))?;
        self.size += read as u64;
        if read == 0 && !into.is_empty() {
            if let Some(decoder) = self.decoder.take() {
                let rest = (self.rest)(decoder, self.size)?;
                if let Behind::Nothing = self.behind {
                    see_that_nothing_follows(rest, self.size)?;
                }
            }
        }
        Ok(read)
    }
}

/// Accepts, after the end, the size as the kernel's build appends it (`size_append`, scripts/Makefile.lib), and
/// zeros. No kernel has a second stream of the same format.
fn see_that_nothing_follows(mut from: Stream<'_>, size: u64) -> io::Result<()> {
    let mut part = Vec::new();
    (&mut from).take(4).read_to_end(&mut part)?;
    if part == low(size) {
        part.clear();
    }
    while part.iter().all(|byte| *byte == 0) {
        part.clear();
        if (&mut from).take(1 << 16).read_to_end(&mut part)? == 0 {
            return Ok(());
        }
    }
    Err(io::Error::other("something else follows its end"))
}

/// Returns the low 32 bits of a size as four little-endian bytes.
fn low(size: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = size.to_le_bytes();
    [a, b, c, d]
}

fn same<T: Copy + PartialEq>(is: T, says: T, what: &'static str) -> io::Result<()> {
    if is == says { Ok(()) } else { Err(io::Error::other(format!("it has another {what} than it says"))) }
}

/// A stream that must not end before its decompressor does: the decompressor of lz4 accepts an end between two
/// blocks as the end of the data.
struct Endless<'a>(Stream<'a>);

impl Read for Endless<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 if !into.is_empty() => Err(io::Error::other("it ends before its end")),
            read => Ok(read),
        }
    }
}

fn failed(wrapping: &'static str, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(number) => Error::Read(io::Error::from_raw_os_error(number)),
        None => Error::Damaged { wrapping, why: error.to_string() },
    }
}

/// Returns the first bytes of a stream, and a stream of all its bytes.
fn peeked(mut from: Stream<'_>, most: u64) -> io::Result<(Vec<u8>, Stream<'_>)> {
    let mut head = Vec::new();
    (&mut from).take(most).read_to_end(&mut head)?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(from))))
}

/// Returns the window that a zstd frame requires, in bytes (RFC 8878, 3.1.1.1).
fn zstd_window(head: &[u8]) -> Option<u64> {
    let descriptor = *head.get(4)?;
    let is_single = descriptor & 0x20 != 0;
    if !is_single {
        let window = u64::from(*head.get(5)?);
        let base = 1 << (10 + (window >> 3));
        return Some(base + base / 8 * (window & 7));
    }
    // The window is the whole content, whose size follows the dictionary's number.
    let at = 5 + [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
    let bytes = [1, 2, 4, 8].get(usize::from(descriptor >> 6))?;
    let size = head.get(at..at + bytes)?.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    Some(if *bytes == 2 { size + 256 } else { size })
}

/// A decompressor for a format that is a sequence of blocks.
struct Blocks<'a> {
    from: Stream<'a>,
    /// Reads a block and decompresses it into `block`, which it leaves empty at the end.
    next: fn(&mut Blocks<'a>) -> io::Result<()>,
    /// The flags of the header, which say which checksums the blocks have.
    flags: u32,
    packed: Vec<u8>,
    block: Vec<u8>,
    at: usize,
    /// The size of all previous blocks, decompressed, in bytes.
    size: u64,
}

impl<'a> Blocks<'a> {
    fn new(from: Stream<'a>, next: fn(&mut Blocks<'a>) -> io::Result<()>, flags: u32) -> Blocks<'a> {
        Blocks { from, next, flags, packed: Vec::new(), block: Vec::new(), at: 0, size: 0 }
    }
}

impl Read for Blocks<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.block.len() {
            self.size += self.block.len() as u64;
            self.at = 0;
            self.block.clear();
            (self.next)(self)?;
        }
        let read = self.block.get(self.at..).unwrap_or_default().read(into)?;
        self.at += read;
        Ok(read)
    }
}

/// Reads a block of lz4 in the kernel's form: its compressed length, then its data. Nothing marks the end of
/// the blocks, and the build may have appended the total size after them.
fn lz4_block(blocks: &mut Blocks<'_>) -> io::Result<()> {
    let Blocks { from, packed, block, size, .. } = blocks;
    let length = loop {
        packed.clear();
        (&mut *from).take(4).read_to_end(packed)?;
        match packed.as_slice() {
            [] | [0, 0, 0, 0] => return Ok(()),
            &[a, b, c, d] if [a, b, c, d] != LZ4_MAGIC.to_le_bytes() => break [a, b, c, d],
            [_, _, _, _] => {}
            // This is padding to a multiple of 4 (`unlz4`, lib/decompress_unlz4.c).
            rest if rest.iter().all(|byte| *byte == 0) => return Ok(()),
            _ => return Err(ErrorKind::UnexpectedEof.into()),
        }
    };
    let is_size = length == low(*size);
    let length = u64::from(u32::from_le_bytes(length));
    packed.clear();
    from.take(LZ4_PACKED as u64 + 1).take(length).read_to_end(packed)?;
    if is_size && (packed.len() as u64) < length && packed.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    if packed.len() as u64 != length || packed.len() > LZ4_PACKED {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    block.resize(LZ4_BLOCK, 0);
    let unpacked = lz4_flex::block::decompress_into(packed, block).map_err(io::Error::other)?;
    block.truncate(unpacked);
    if unpacked == 0 { Err(io::Error::other("a block with nothing in it")) } else { Ok(()) }
}

/// The flags of lzop's header about checksums (`F_*` in its conf.h): of each block, decompressed and
/// compressed, and of the header itself. lzop writes Adler-32 by default, and CRC-32 on request.
const LZO_ADLER: u32 = 0x1;
const LZO_PACKED_ADLER: u32 = 0x2;
const LZO_CRC: u32 = 0x100;
const LZO_PACKED_CRC: u32 = 0x200;
const LZO_HEADER_CRC: u32 = 0x1000;

/// Another flag of that header: it has one number more.
const LZO_FILTER: u32 = 0x800;

/// Reads a block of lzop: its length, its compressed length, its checksums, and its data. The last block has
/// the length 0. A block that is stored uncompressed has no checksum of compressed data.
fn lzo_block(blocks: &mut Blocks<'_>) -> io::Result<()> {
    let Blocks { from, flags, packed, block, .. } = blocks;
    let length = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let size = length(lzo_number(from)?);
    if size == 0 {
        return Ok(());
    }
    let length = length(lzo_number(from)?);
    if size > LZO_BLOCK || length > size || length == 0 {
        return Err(io::Error::other("a block of an impossible length"));
    }
    let is_stored = length == size;
    let mut checksum = |flag, is_there: bool| {
        let is_there = is_there && *flags & flag != 0;
        is_there.then(|| lzo_number(from)).transpose()
    };
    let whole = [checksum(LZO_ADLER, true)?, checksum(LZO_CRC, true)?];
    let inside = [checksum(LZO_PACKED_ADLER, !is_stored)?, checksum(LZO_PACKED_CRC, !is_stored)?];
    packed.resize(length, 0);
    from.read_exact(packed)?;
    lzo_sums(packed, inside)?;
    if is_stored {
        block.extend_from_slice(packed);
    } else {
        lzo::unpack(packed, size, block).ok_or_else(|| io::Error::other("a block that is malformed"))?;
    }
    lzo_sums(block, whole)
}

/// Compares the checksums that are present: Adler-32, and CRC-32.
fn lzo_sums(bytes: &[u8], [adler, crc]: [Option<u32>; 2]) -> io::Result<()> {
    adler.map_or(Ok(()), |says| same(lzo::adler32(bytes), says, "checksum"))?;
    crc.map_or(Ok(()), |says| {
        let mut sum = Crc::new();
        sum.update(bytes);
        same(sum.sum(), says, "checksum")
    })
}

/// Reads the header of lzop and returns its flags. The other fields, such as the versions and the name of the
/// file, do not matter (`lib/decompress_unlzo.c`).
fn lzo_header(from: &mut Stream<'_>) -> io::Result<u32> {
    let mut header = Vec::new();
    let mut more = |count: u64| {
        let at = header.len();
        (&mut *from).take(count).read_to_end(&mut header)?;
        let bytes = header.get(at..).unwrap_or_default();
        if bytes.len() as u64 == count {
            Ok(bytes.to_vec())
        } else {
            Err(io::Error::from(ErrorKind::UnexpectedEof))
        }
    };
    more(9)?;
    let is_new = more(2)?.as_slice() >= &[0x09, 0x40][..];
    // Two more versions and the method follow, and in new headers the level.
    more(if is_new { 6 } else { 5 })?;
    let flags = more(4)?.iter().fold(0, |flags, byte| (flags << 8) | u32::from(*byte));
    if flags & LZO_FILTER != 0 {
        more(4)?;
    }
    // The mode and the time follow. Only new headers have the upper half of the time.
    more(if is_new { 12 } else { 8 })?;
    let name = more(1)?.first().copied().unwrap_or_default();
    more(name.into())?;
    let sum = Some(lzo_number(from)?);
    let sums = if flags & LZO_HEADER_CRC == 0 { [sum, None] } else { [None, sum] };
    lzo_sums(header.get(9..).unwrap_or_default(), sums)?;
    Ok(flags)
}

fn lzo_number(from: &mut Stream<'_>) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    macro_rules! seed {
        ($name:literal) => {
            ($name, include_bytes!(concat!("../../../../fuzz/seeds/unpack/", $name)) as &[u8])
        };
    }

    /// Made from `plain` with the tools themselves, called as the kernel's build calls them.
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

    /// Returns the end of the compressed data in a file. In an EFI image, the size and padding follow it.
    fn end(bytes: &[u8]) -> usize {
        match Wrapping::of(bytes) {
            Some(Wrapping::Zboot { offset, size, .. }) => usize::try_from(offset + size).unwrap(),
            _ => bytes.len(),
        }
    }

    fn is_damaged(bytes: &[u8]) -> bool {
        matches!(unpacked(bytes), Err(Error::Damaged { .. }))
    }

    #[test]
    fn one_that_is_cut_off_anywhere_is_damaged() {
        for (name, bytes) in WRAPPED {
            let behind = if name.starts_with("zboot") && !name.ends_with("gzip") { 4 } else { 0 };
            for length in 20..end(bytes) + behind {
                // Only the appended size shows that anything is missing here.
                if name == "lz4-legacy" && length == bytes.len() - 4 {
                    continue;
                }
                assert!(is_damaged(bytes.get(..length).unwrap()), "{name} {length}");
            }
        }
    }

    #[test]
    fn a_damaged_byte_is_seen_wherever_the_format_has_a_checksum() {
        let without = ["lz4-legacy", "zboot-lzma", "zstd"];
        for (name, bytes) in WRAPPED.into_iter().filter(|(name, _)| !without.contains(name)) {
            let start = if name.starts_with("zboot") { 0x200 } else { 9 };
            for (at, bit) in (start..end(bytes)).flat_map(|at| [(at, 1), (at, 0x80)]) {
                let mut other = bytes.to_vec();
                *other.get_mut(at).unwrap() ^= bit;
                // A damaged time or file name does not change the kernel.
                let left = unpacked(&other);
                assert!(left.is_err() || left.unwrap() == PLAIN, "{name} {at}");
            }
        }
    }

    #[test]
    fn behind_the_end_nothing_may_follow_but_zeros_and_the_size() {
        let size = u32::try_from(PLAIN.len()).unwrap().to_le_bytes();
        for (name, bytes) in WRAPPED.into_iter().filter(|(name, _)| !name.starts_with("zboot")) {
            let bytes = if name == "lz4-legacy" { bytes.strip_suffix(&size).unwrap() } else { bytes };
            let with = |more: &[&[u8]]| [bytes, &more.concat()].concat();
            for more in [&[&size[..]][..], &[&[0; 4]], &[&[0; 5000]], &[&size, &[0; 7]]] {
                assert_eq!(unpacked(&with(more)).unwrap(), PLAIN, "{name} {more:?}");
            }
            for more in [&[&size[..3]][..], &[&[9]], &[&size, &[9]], &[&[0; 5000], &[9]], &[&size, &size]] {
                assert!(is_damaged(&with(more)), "{name} {more:?}");
            }
            // Concatenated legacy lz4 frames are one file.
            let twice = unpacked(&with(&[bytes]));
            assert_eq!(twice.ok(), (name == "lz4-legacy").then(|| [PLAIN, PLAIN].concat()), "{name}");
        }
    }

    #[test]
    fn a_kernel_of_another_size_than_is_told_is_damaged() {
        for (name, bytes) in WRAPPED {
            let mut other = bytes.to_vec();
            let at = if name.starts_with("zboot") { end(bytes) } else { bytes.len() - 4 };
            *other.get_mut(at).unwrap() ^= 1;
            // In an EFI image, padding follows gzip data.
            let is_told = ["lz4-legacy", "gzip"].contains(&name) || name.starts_with("zboot");
            if is_told {
                assert_eq!(is_damaged(&other), name != "zboot-gzip", "{name}");
            }
        }
    }

    #[test]
    fn an_empty_block_of_lz4_is_no_end() {
        let (_, whole) = seed!("lz4-legacy");
        let size = u32::try_from(PLAIN.len()).unwrap().to_le_bytes();
        let blocks = whole.strip_suffix(&size).unwrap();
        assert!(is_damaged(&[blocks, &[1, 0, 0, 0, 0]].concat()));
        assert!(is_damaged(&[blocks, &[1, 0, 0, 0]].concat()));
    }

    #[test]
    fn each_checksum_of_lzop_is_compared() {
        let crc = |bytes: &[u8]| {
            let mut sum = Crc::new();
            sum.update(bytes);
            sum.sum()
        };
        let [text, packed] = [&b"abcdefgh"[..], &[18, b'a', 0x80 + 0x60, 0, 0x11, 0, 0]];
        let file = |flags: u32, sums: &[u32], size: u32, block: &[u8]| {
            let head =
                [&[0x10, 0x40, 0x20, 0xa0, 9, 0x40, 3, 9][..], &flags.to_be_bytes(), &[0; 13]].concat();
            let sum = if flags & LZO_HEADER_CRC == 0 { lzo::adler32(&head) } else { crc(&head) };
            let length = u32::try_from(block.len()).unwrap();
            let numbers: Vec<_> =
                [size, length].iter().chain(sums).flat_map(|number| number.to_be_bytes()).collect();
            [b"\x89LZO\0\r\n\x1a\n", head.as_slice(), &sum.to_be_bytes(), &numbers, block, &[0; 4]].concat()
        };
        let stored = [lzo::adler32(text), crc(text)];
        let [adler, sum] = stored;
        let whole = [b'a'; 9];
        let all = [lzo::adler32(&whole), crc(&whole), lzo::adler32(packed), crc(packed)];
        let every = LZO_ADLER | LZO_CRC | LZO_PACKED_ADLER | LZO_PACKED_CRC;
        for (flags, sums, size, block, text) in [
            (0, &[][..], 8, text, text),
            (LZO_ADLER, &[adler], 8, text, text),
            (LZO_CRC | LZO_HEADER_CRC, &[sum], 8, text, text),
            // A stored block has no second checksum.
            (every, &stored, 8, text, text),
            (every, &all, 9, packed, &whole),
        ] {
            assert_eq!(unpacked(&file(flags, sums, size, block)).unwrap(), text, "{flags:x}");
            for wrong in 0..sums.len() {
                let mut sums = sums.to_vec();
                *sums.get_mut(wrong).unwrap() ^= 1;
                assert!(is_damaged(&file(flags, &sums, size, block)), "{flags:x} {wrong}");
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
