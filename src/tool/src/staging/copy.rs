//! Failures of a copy.

use std::io::{self};

/// Whether copying failed at the copy, which is in memory: one call reads and writes, and no more than its answer is
/// known.
pub(crate) fn is_of_the_copy(error: &io::Error) -> bool {
    let answers = [libc::ENOSPC, libc::EDQUOT, libc::ENOMEM, libc::EFBIG];
    error.raw_os_error().is_some_and(|number| answers.contains(&number))
}
