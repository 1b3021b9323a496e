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

mod blocks;
mod lz4;
mod lzma;
mod lzo1x;
mod lzop;
mod member;
mod stream;
#[cfg(test)]
mod tests;
mod wrapping;
mod zboot;
mod zstd;

use std::io::{self, BufReader, ErrorKind, Read};

use thiserror::Error;

use self::stream::{Behind, Stream, low, peeked, same};
use self::wrapping::ZBOOT;
use self::zboot::{Size, Told};

pub use self::member::member;
pub use self::wrapping::Wrapping;

/// The number of bytes that are enough to identify a kernel's wrapping, or to see that there is none. The last
/// of them are in the header of an x86 kernel.
pub const HEAD: u64 = 0x206;

/// The number of wrappings that are removed. Nobody makes more than a compressed image in an EFI image.
const DEPTH: usize = 4;

/// The beginning of lzma data that no header announces: the usual parameters, and a dictionary size that is a
/// multiple of 64 KiB.
const LZMA: &[u8] = &[0x5d, 0, 0];

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

fn failed(wrapping: &'static str, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(number) => Error::Read(io::Error::from_raw_os_error(number)),
        None => Error::Damaged { wrapping, why: error.to_string() },
    }
}
