//! The file format of lzop: a header, and blocks of LZO1X.

use std::io::{self, ErrorKind, Read};

use flate2::Crc;

use super::blocks::Blocks;
use super::lzo1x;
use super::stream::{Behind, Stream, Whole, same};

/// The largest size of a block of lzop when decompressed (`lib/decompress_unlzo.c`).
const BLOCK: usize = 256 << 10;

/// The flags of lzop's header about checksums (`F_*` in its conf.h): of each block, decompressed and
/// compressed, and of the header itself. lzop writes Adler-32 by default, and CRC-32 on request.
pub(super) const ADLER: u32 = 0x1;
pub(super) const PACKED_ADLER: u32 = 0x2;
pub(super) const CRC: u32 = 0x100;
pub(super) const PACKED_CRC: u32 = 0x200;
pub(super) const HEADER_CRC: u32 = 0x1000;

/// Another flag of that header: it has one number more.
const FILTER: u32 = 0x800;

/// Opens a stream of the content.
pub(super) fn open(mut from: Stream<'_>, behind: Behind) -> io::Result<Box<dyn Read + '_>> {
    let flags = read_header(&mut from)?;
    Ok(Whole::boxed(behind, Blocks::new(from, next_block, flags), |lzo, _| Ok(lzo.from)))
}

/// Reads the header of lzop and returns its flags. The other fields, such as the versions and the name of the
/// file, do not matter (`lib/decompress_unlzo.c`).
fn read_header(from: &mut Stream<'_>) -> io::Result<u32> {
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
    if flags & FILTER != 0 {
        more(4)?;
    }
    // The mode and the time follow. Only new headers have the upper half of the time.
    more(if is_new { 12 } else { 8 })?;
    let name = more(1)?.first().copied().unwrap_or_default();
    more(name.into())?;
    let sum = Some(number(from)?);
    let sums = if flags & HEADER_CRC == 0 { [sum, None] } else { [None, sum] };
    compare_sums(header.get(9..).unwrap_or_default(), sums)?;
    Ok(flags)
}

/// Reads a block of lzop: its length, its compressed length, its checksums, and its data. The last block has
/// the length 0. A block that is stored uncompressed has no checksum of compressed data.
fn next_block(blocks: &mut Blocks<'_>) -> io::Result<()> {
    let Blocks { from, flags, packed, block, .. } = blocks;
    let length = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let size = length(number(from)?);
    if size == 0 {
        return Ok(());
    }
    let length = length(number(from)?);
    if size > BLOCK || length > size || length == 0 {
        return Err(io::Error::other("a block of an impossible length"));
    }
    let is_stored = length == size;
    let mut checksum = |flag, is_there: bool| {
        let is_there = is_there && *flags & flag != 0;
        is_there.then(|| number(from)).transpose()
    };
    let whole = [checksum(ADLER, true)?, checksum(CRC, true)?];
    let inside = [checksum(PACKED_ADLER, !is_stored)?, checksum(PACKED_CRC, !is_stored)?];
    packed.resize(length, 0);
    from.read_exact(packed)?;
    compare_sums(packed, inside)?;
    if is_stored {
        block.extend_from_slice(packed);
    } else {
        lzo1x::unpack(packed, size, block).ok_or_else(|| io::Error::other("a block that is malformed"))?;
    }
    compare_sums(block, whole)
}

/// Compares the checksums that are present: Adler-32, and CRC-32.
fn compare_sums(bytes: &[u8], [adler, crc]: [Option<u32>; 2]) -> io::Result<()> {
    adler.map_or(Ok(()), |says| same(lzo1x::adler32(bytes), says, "checksum"))?;
    crc.map_or(Ok(()), |says| {
        let mut sum = Crc::new();
        sum.update(bytes);
        same(sum.sum(), says, "checksum")
    })
}

fn number(from: &mut Stream<'_>) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}
