//! Why something is not decompressed.

use std::io;

use thiserror::Error;

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
