//! xz and lzma.

use std::io::{self, Cursor, Read};

use lzma_rust2::{LzmaReader, XzReader};

use super::stream::{Behind, Stream, Whole};

/// The memory limit for xz and lzma, in KiB: the largest window, and the rest of the decoder.
const WINDOW_KIB: u32 = (128 << 10) + (1 << 10);

/// Opens a stream of the content of an .xz file.
pub(super) fn open_xz(from: Stream<'_>, behind: Behind) -> Box<dyn Read + '_> {
    let xz = XzReader::new_mem_limit(from, false, WINDOW_KIB);
    Whole::boxed(behind, xz, |xz, _| Ok(xz.into_inner()))
}

/// Opens a stream of the content of an .lzma file.
pub(super) fn open(from: Stream<'_>, behind: Behind) -> io::Result<Box<dyn Read + '_>> {
    let mut lzma = LzmaReader::new_mem_limit(from, WINDOW_KIB, None)?;
    lzma.set_relaxed_end_condition(false);
    Ok(Whole::boxed(behind, lzma, |lzma, _| {
        // The decoder reads ahead.
        let (from, ahead) = lzma.into_parts();
        Ok(Box::new(Cursor::new(ahead).chain(from)))
    }))
}
