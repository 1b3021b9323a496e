//! Failures of a copy.

use std::io::{self};

/// Returns whether a copy failed on the side of the destination, which is in memory. One call both reads and
/// writes, so only its error number can tell.
pub(crate) fn is_of_the_copy(error: &io::Error) -> bool {
    let answers = [libc::ENOSPC, libc::EDQUOT, libc::ENOMEM, libc::EFBIG];
    error.raw_os_error().is_some_and(|number| answers.contains(&number))
}
