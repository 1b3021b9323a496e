//! Decompresses a member of an initrd.

use std::io::{self, BufRead, BufReader, Read};

use super::stream::{Behind, Stream};
use super::wrapping::Wrapping;
use super::zboot::Told;

/// The beginning of lzma data in an initrd.
const LZMA: &[u8] = &[0x5d, 0];

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
        _ if head.starts_with(LZMA) => Wrapping::Lzma,
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
