//! Saying what is done, then doing it; or, in a dry run, saying it alone.

use core::fmt::{self, Write};

use crate::bounds::failure::Failure;
use crate::sys::say::info;
use crate::sys::terminal::Terminal;

/// Whether acts are carried out or printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// They are carried out.
    ForReal,
    /// They are printed.
    DryRun,
}

impl How {
    /// Says it, then does it; `None` in a dry run.
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

    /// The same for what changes nothing, and so is done in a dry run, too.
    pub fn look<T>(self, what: &str, look: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        self.say(what);
        look()
    }

    /// Says it.
    pub fn say(self, what: impl fmt::Display) {
        self.tell(&what);
    }

    /// One copy of it is enough, whatever is said.
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
