//! The kernel's error codes, in words for a person and by the names that manual pages use.

use std::{fmt, io};

use nix::errno::Errno;

/// Displays an error in words: "No such file or directory".
pub struct InWords<'a>(pub &'a io::Error);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            Some(number) => out.write_str(Errno::from_raw(number).desc()),
            None => write!(out, "{}", self.0),
        }
    }
}

/// Displays an error by its name: ENOENT.
pub struct ByName<'a>(pub &'a io::Error);

impl fmt::Display for ByName<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            Some(number) => write!(out, "{:?}", Errno::from_raw(number)),
            None => write!(out, "{}", self.0),
        }
    }
}

/// Returns whether a copy failed because its destination, which is in memory, took no more. One call both reads
/// and writes, so only its error number can tell.
#[must_use]
pub fn is_out_of_room(error: &io::Error) -> bool {
    let numbers = [libc::ENOSPC, libc::EDQUOT, libc::ENOMEM, libc::EFBIG];
    error.raw_os_error().is_some_and(|number| numbers.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_named_as_the_manual_names_it() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(InWords(&error).to_string(), "No such file or directory");
        assert_eq!(ByName(&error).to_string(), "ENOENT");
        assert_eq!(InWords(&io::Error::other("cut off")).to_string(), "cut off");
    }
}
