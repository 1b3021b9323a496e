//! Formats that are a sequence of blocks.

use std::io::{self, Read};

use super::stream::Stream;

/// A decompressor for a format that is a sequence of blocks.
pub(super) struct Blocks<'a> {
    pub(super) from: Stream<'a>,
    /// Reads a block and decompresses it into `block`, which it leaves empty at the end.
    next: fn(&mut Blocks<'a>) -> io::Result<()>,
    /// The flags of the header, which say which checksums the blocks have.
    pub(super) flags: u32,
    pub(super) packed: Vec<u8>,
    pub(super) block: Vec<u8>,
    at: usize,
    /// The size of all previous blocks, decompressed, in bytes.
    pub(super) size: u64,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(
        from: Stream<'a>,
        next: fn(&mut Blocks<'a>) -> io::Result<()>,
        flags: u32,
    ) -> Blocks<'a> {
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
