//! The reasons why a kernel or an initrd is not decompressed.

use std::io;

use thiserror::Error;

use crate::words::errno::InWords;

/// Failure a kernel or an initrd is not decompressed. It is then staged as it is.
#[derive(Debug, Error)]
pub enum Failure {
    /// It cannot be decompressed, or would lose something by it. The text says why.
    #[error("{0}")]
    Unfit(String),
    /// The initrd is damaged or cut off.
    #[error("at byte {at}: {why}")]
    Damaged {
        /// The offset in the initrd.
        at: u64,
        /// The defect at that offset.
        why: String,
    },
    /// The decompressed file would be larger than the room for it.
    #[error("thawed it is larger than there is room for")]
    NoRoom,
    /// The original cannot be read.
    #[error("it cannot be read: {}", InWords(.0))]
    Read(io::Error),
    /// The copy cannot be written.
    #[error("the copy cannot be written: {}", InWords(.0))]
    Write(io::Error),
}

impl Failure {
    /// Returns the failure of a file that cannot be decompressed, for that reason.
    pub(super) fn unfit(why: impl Into<String>) -> Failure {
        Failure::Unfit(why.into())
    }
}
