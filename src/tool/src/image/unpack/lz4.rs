//! lz4: its frames, and the older form that kernels use.

use std::io::{self, ErrorKind, Read};

use super::blocks::Blocks;
use super::stream::{Behind, Stream, Whole, low};

/// The size of a block of lz4 in the kernel's form when decompressed (`lib/decompress_unlz4.c`), and the
/// largest size of one when compressed (`LZ4_COMPRESSBOUND`, lz4.h).
const BLOCK: usize = 8 << 20;
const PACKED: usize = BLOCK + BLOCK / 255 + 16;

/// The magic number of an lz4 file in the kernel's form. If several such files are concatenated, each begins
/// with it.
pub(super) const LEGACY_MAGIC: u32 = 0x184c_2102;

/// Opens a stream of the content of a frame.
pub(super) fn open(from: Stream<'_>, behind: Behind) -> Box<dyn Read + '_> {
    let frame = lz4_flex::frame::FrameDecoder::new(Endless(from));
    Whole::boxed(behind, frame, |lz4, _| Ok(lz4.into_inner().0))
}

/// Opens a stream of the content of a file in the kernel's form.
pub(super) fn open_legacy(from: Stream<'_>, behind: Behind) -> Box<dyn Read + '_> {
    Whole::boxed(behind, Blocks::new(from, legacy_block, 0), |lz4, _| Ok(lz4.from))
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

/// Reads a block of lz4 in the kernel's form: its compressed length, then its data. Nothing marks the end of
/// the blocks, and the build may have appended the total size after them.
fn legacy_block(blocks: &mut Blocks<'_>) -> io::Result<()> {
    let Blocks { from, packed, block, size, .. } = blocks;
    let length = loop {
        packed.clear();
        (&mut *from).take(4).read_to_end(packed)?;
        match packed.as_slice() {
            [] | [0, 0, 0, 0] => return Ok(()),
            &[a, b, c, d] if [a, b, c, d] != LEGACY_MAGIC.to_le_bytes() => break [a, b, c, d],
            [_, _, _, _] => {}
            // This is padding to a multiple of 4 (`unlz4`, lib/decompress_unlz4.c).
            rest if rest.iter().all(|byte| *byte == 0) => return Ok(()),
            _ => return Err(ErrorKind::UnexpectedEof.into()),
        }
    };
    let is_size = length == low(*size);
    let length = u64::from(u32::from_le_bytes(length));
    packed.clear();
    from.take(PACKED as u64 + 1).take(length).read_to_end(packed)?;
    if is_size && (packed.len() as u64) < length && packed.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    if packed.len() as u64 != length || packed.len() > PACKED {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    block.resize(BLOCK, 0);
    let unpacked = lz4_flex::block::decompress_into(packed, block).map_err(io::Error::other)?;
    block.truncate(unpacked);
    if unpacked == 0 { Err(io::Error::other("a block with nothing in it")) } else { Ok(()) }
}
