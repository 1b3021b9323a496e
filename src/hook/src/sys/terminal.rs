//! Writing to the terminal.

use core::fmt;

use rustix::fd::BorrowedFd;
use rustix::io::{self, Errno};

use crate::sys::calls;

/// Standard output or standard error.
pub struct Terminal(BorrowedFd<'static>);

impl Terminal {
    /// Returns standard output.
    #[must_use]
    pub fn output() -> Terminal {
        Terminal(calls::standard(1))
    }

    /// Returns standard error.
    #[must_use]
    pub fn error() -> Terminal {
        Terminal(calls::standard(2))
    }
}

impl fmt::Write for Terminal {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            match io::write(self.0, rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(_) => return Err(fmt::Error),
            }
        }
        Ok(())
    }
}
