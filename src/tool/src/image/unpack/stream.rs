//! Streams of bytes, and a decompressor's check of the data behind its end.

use std::io::{self, BufRead, Cursor, Read};

/// A stream of bytes.
pub(super) type Stream<'a> = Box<dyn BufRead + 'a>;

/// The data that may follow the end of a compressed stream.
#[derive(Clone, Copy)]
pub(super) enum Behind {
    /// Only zeros, and the size that the build appends.
    Nothing,
    /// Anything, because it is not looked at.
    Anything,
}

/// A decompressor that is read to its end, and the check of the data after that.
pub(super) struct Whole<'a, D> {
    decoder: Option<D>,
    /// Checks the output, whose size is given, as far as the format allows. Returns the rest of the stream
    /// after the end.
    rest: fn(D, u64) -> io::Result<Stream<'a>>,
    size: u64,
    behind: Behind,
}

impl<'a, D: Read + 'a> Whole<'a, D> {
    pub(super) fn boxed(
        behind: Behind,
        decoder: D,
        rest: fn(D, u64) -> io::Result<Stream<'a>>,
    ) -> Box<dyn Read + 'a> {
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
pub(super) fn low(size: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = size.to_le_bytes();
    [a, b, c, d]
}

pub(super) fn same<T: Copy + PartialEq>(is: T, says: T, what: &'static str) -> io::Result<()> {
    if is == says { Ok(()) } else { Err(io::Error::other(format!("it has another {what} than it says"))) }
}

/// Returns the first bytes of a stream, and a stream of all its bytes.
pub(super) fn peeked(mut from: Stream<'_>, most: u64) -> io::Result<(Vec<u8>, Stream<'_>)> {
    let mut head = Vec::new();
    (&mut from).take(most).read_to_end(&mut head)?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(from))))
}
