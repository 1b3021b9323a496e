//! zstd (RFC 8878).

use std::io::{self, Read};

use ruzstd::decoding::StreamingDecoder;

use super::stream::{Behind, Stream, Whole, peeked, same};

/// The largest window, in bytes, that a kernel's own decompressor supports (`lib/decompress_unzstd.c`,
/// `scripts/xz_wrap.sh`).
pub(super) const WINDOW_MAX: u64 = 128 << 20;

/// Opens a stream of the content.
pub(super) fn open(from: Stream<'_>, behind: Behind) -> io::Result<Box<dyn Read + '_>> {
    let (head, from) = peeked(from, 18)?;
    if window(&head).is_some_and(|window| window > WINDOW_MAX) {
        return Err(io::Error::other("its window is larger than the 128 MiB that a kernel's may be"));
    }
    let zstd = StreamingDecoder::new(from).map_err(io::Error::other)?;
    Ok(Whole::boxed(behind, zstd, |zstd, size| {
        let (from, frame) = zstd.into_parts();
        let (has, says) = (frame.get_calculated_checksum(), frame.get_checksum_from_data());
        same(has, says.or(has), "checksum")?;
        // A size of 0 means that the frame states none.
        same(size, Some(frame.content_size()).filter(|says| *says > 0).unwrap_or(size), "size")?;
        Ok(from)
    }))
}

/// Returns the window that a zstd frame requires, in bytes (RFC 8878, 3.1.1.1).
pub(super) fn window(head: &[u8]) -> Option<u64> {
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
