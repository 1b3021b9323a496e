//! Laying an ELF file out as it lies in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::elf::{Elf, piece};
use crate::loading::decompress::failure::Failure;

/// The bytes read at a time, and the most that may follow the loaded parts. In Debian's kernels that is some 2
/// MB, all of which is dropped except for the relocations.
const PART: usize = 1 << 18;
const TAIL_MAX: usize = 64 << 20;

/// The laid-out file is written in pieces of this size; a piece that is all zeros is not written.
const PAGE: usize = 4096;

/// A kernel laid out as in memory.
pub(super) struct Layout {
    /// The length of the laid-out kernel.
    pub(super) size: u64,
    /// The end of the last byte that is not zero.
    pub(super) filled: u64,
    /// Bytes of memory that it takes.
    pub(super) takes: u64,
    pub(super) entry: u64,
    pub(super) linked: u64,
    /// The length of the ELF file together with the bytes behind it.
    pub(super) payload: u64,
    /// The bytes behind the ELF file.
    pub(super) tail: Vec<u8>,
}

impl Layout {
    /// Writes an ELF file as it lies in memory, from the address that it was linked for on. If that is not
    /// known, as with a bare ELF file, the layout begins at the lowest address.
    pub(super) fn write(
        read: &mut dyn FnMut(&mut [u8]) -> Result<usize, Failure>,
        to: &File,
        linked: Option<u64>,
        most: u64,
    ) -> Result<Layout, Failure> {
        let mut part = vec![0; PART];
        let mut has = fill(read, &mut part)?;
        let elf = Elf::parse(part.get(..has).unwrap_or_default(), linked)?;
        if elf.size > most {
            return Err(Failure::NoRoom);
        }
        to.set_len(elf.size).map_err(Failure::Write)?;
        let (mut payload, mut filled, mut tail) = (0, 0, Vec::new());
        while has > 0 {
            let bytes = part.get(..has).unwrap_or_default();
            for load in &elf.loads {
                let (begin, end) =
                    (load.offset.max(payload), (load.offset + load.size).min(payload + has as u64));
                let Some(length) = end.checked_sub(begin).filter(|length| *length > 0) else { continue };
                let at = load.to + (begin - load.offset);
                // Zeros are not written, so that they take no memory.
                let pages = piece(bytes, begin - payload, length).chunks(PAGE);
                for (page, at) in pages.zip((at..).step_by(PAGE)) {
                    let Some(last) = page.iter().rposition(|byte| *byte != 0) else { continue };
                    to.write_all_at(page, at).map_err(Failure::Write)?;
                    filled = filled.max(at + last as u64 + 1);
                }
            }
            if payload + has as u64 > elf.loaded {
                let from = elf.loaded.saturating_sub(payload);
                tail.extend_from_slice(piece(bytes, from, has as u64 - from));
                if tail.len() > TAIL_MAX {
                    match linked {
                        Some(_) => {
                            return Err(Failure::unfit(
                                "more is behind what is loaded of it than any kernel has there",
                            ));
                        }
                        // Nothing needs this: symbols and debugging information.
                        None => tail.clear(),
                    }
                }
            }
            payload += has as u64;
            has = fill(read, &mut part)?;
        }
        if payload < elf.loaded {
            return Err(Failure::unfit("it is cut off in the midst of what is loaded of it"));
        }
        if linked.is_some() {
            let end = elf.end(&tail)?;
            let behind = usize::try_from(end.saturating_sub(elf.loaded)).unwrap_or(usize::MAX);
            tail.drain(..behind.min(tail.len()));
        }
        let Elf { size, takes, entry, linked, .. } = elf;
        Ok(Layout { size, filled, takes, entry, linked, payload, tail })
    }

    /// Drops the zeros at the end of the file: whichever call loads it fills them in.
    pub(super) fn cut(&self, to: &File) -> Result<(), Failure> {
        to.set_len(self.filled.max(self.entry + 1)).map_err(Failure::Write)
    }
}

/// Reads until `part` is full or nothing is left.
fn fill(
    read: &mut dyn FnMut(&mut [u8]) -> Result<usize, Failure>,
    part: &mut [u8],
) -> Result<usize, Failure> {
    let mut has = 0;
    while let Some(left) = part.get_mut(has..).filter(|left| !left.is_empty()) {
        match read(left)? {
            0 => break,
            read => has += read,
        }
    }
    Ok(has)
}
