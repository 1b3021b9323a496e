//! Announces an act and then carries it out; in a dry run, only announces it.

use core::fmt::{self, Write};

use crate::bounds::failure::Failure;
use crate::sys::say::info;
use crate::sys::terminal::Terminal;

/// Whether acts are carried out or printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Acts are carried out.
    ForReal,
    /// Acts are printed.
    DryRun,
}

impl How {
    /// Announces an act and then carries it out. In a dry run, only announces it and returns `None`.
    pub fn act<T>(
        self,
        what: impl fmt::Display,
        act: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        self.say(what);
        match self {
            How::ForReal => act().map(Some),
            How::DryRun => Ok(None),
        }
    }

    /// Announces an act that changes nothing and carries it out, in a dry run as well.
    pub fn look<T>(self, what: &str, look: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        self.say(what);
        look()
    }

    /// Logs the announcement of an act; in a dry run, prints it.
    pub fn say(self, what: impl fmt::Display) {
        self.tell(&what);
    }

    /// Not generic, so the compiler emits only one copy.
    #[inline(never)]
    fn tell(self, what: &dyn fmt::Display) {
        match self {
            How::ForReal => info!("{what}"),
            How::DryRun => {
                let _ = writeln!(Terminal::output(), "  {what}");
            }
        }
    }
}
