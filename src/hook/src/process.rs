//! How the hook speaks to a terminal, and how it ends.

use core::fmt;

use log::{error, info};
use nextkernel_plan::Verb;
use rustix::fd::BorrowedFd;
use rustix::io::{self, Errno};
use rustix::system::{RebootCommand, reboot};

use crate::arguments::Request;
use crate::night::End;
use crate::shutdown::is_pid_1;
use crate::{child, limits, sys};

/// Standard output or standard error.
pub struct Terminal(BorrowedFd<'static>);

impl Terminal {
    /// Standard output.
    #[must_use]
    pub fn output() -> Terminal {
        Terminal(sys::standard(1))
    }

    /// Standard error.
    #[must_use]
    pub fn error() -> Terminal {
        Terminal(sys::standard(2))
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

/// Ends the process; as PID 1, which must not end, carries the verb out instead.
pub fn end(end: End, request: Request) -> ! {
    if is_pid_1() {
        let verb = match request {
            Request::CarryOut(Some(verb)) => verb,
            _ => Verb::Reboot,
        };
        let command = match verb {
            Verb::Poweroff => RebootCommand::PowerOff,
            Verb::Halt => RebootCommand::Halt,
            Verb::Kexec | Verb::Reboot | Verb::Exit => RebootCommand::Restart,
        };
        info!("as PID 1: {}", if command == RebootCommand::Restart { "reboot" } else { verb.word() });
        let _ = crate::sync::sync(limits::SYNC);
        let _ = reboot(command);
        error!("the kernel refused to end: nothing is left to do");
        loop {
            child::sleep(limits::SYNC);
        }
    }
    sys::exit(end.status())
}
