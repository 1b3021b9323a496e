//! Thawing: what is compressed is decompressed by day, so that the next kernel spends nothing on it.
//!
//! A kernel loses nothing by that. What a bzImage does before the kernel itself begins, besides unpacking it, is done
//! here: it is laid out as in memory (`parse_elf`, arch/x86/boot/compressed/misc.c), moved to a random virtual address
//! (`choose_random_location`, kaslr.c; `handle_relocations`, misc.c), and told that it was. Its place in memory, which is
//! random, too, is chosen where a load is prepared. Where any of that cannot be done, the kernel is not thawed, and the
//! reason is told.

mod initrd;
mod kernel;

use std::fs::File;
use std::io;

use thiserror::Error;

pub use initrd::{Initrd, initrd, is_thawed, is_whole as is_whole_initrd};
pub use kernel::{Asked, Thawed, kernel};

use crate::words::errno::InWords;

/// Why something is not thawed. It is staged as it is then.
#[derive(Debug, Error)]
pub enum Why {
    /// It cannot be, or would lose something.
    #[error("{0}")]
    Unfit(String),
    /// An initrd is not whole.
    #[error("at byte {at}: {why}")]
    Damaged {
        /// Where in it.
        at: u64,
        /// What is wrong there.
        why: String,
    },
    /// It becomes too large.
    #[error("thawed it is larger than there is room for")]
    NoRoom,
    /// It cannot be read.
    #[error("it cannot be read: {}", InWords(.0))]
    Read(io::Error),
    /// The copy cannot be written.
    #[error("the copy cannot be written: {}", InWords(.0))]
    Write(io::Error),
}

/// Reads as much as there is of what is asked for.
pub(crate) fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    use std::os::unix::fs::FileExt;
    let mut has = 0;
    while let Some(left) = into.get_mut(has..).filter(|left| !left.is_empty()) {
        match file.read_at(left, at.saturating_add(has as u64)) {
            Ok(0) => break,
            Ok(read) => has += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(has)
}
