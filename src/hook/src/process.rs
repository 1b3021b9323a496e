//! How the hook speaks to a terminal, and how it ends.

use core::fmt;
use core::time::Duration;

use crate::say::{error, info};
use nextkernel_plan::Verb;
use rustix::fd::BorrowedFd;
use rustix::io::{self, Errno};
use rustix::system::{RebootCommand, reboot};

use crate::arguments::Request;
use crate::guard::Guard;
use crate::mounts::nothing_writable;
use crate::night::{End, something_is_loaded};
use crate::shutdown::{in_container, is_pid_1};
use crate::sync::sync;
use crate::{firmware, limits, sys};

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

/// Ends the process; as PID 1 of the machine, which must not end, carries the verb out instead.
pub fn end(end: End, request: Request) -> ! {
    if !is_pid_1() || in_container() {
        sys::exit(end.status());
    }
    let verb = match request {
        Request::CarryOut(Some(verb)) => verb,
        _ => Verb::Reboot,
    };
    let budget = &limits::SYSTEMD;
    // Who is switched off or halted stays so; who restarts is helped where a driver hangs.
    let begun = sys::uptime();
    let guard = if verb.stays_down() {
        Guard::none()
    } else {
        Guard::post(begun, budget.sync_until, Duration::from_secs(limits::GUARD.into()))
    };
    let written = sync(budget.sync, begun + budget.sync_until).is_ok();
    guard.jumping();
    let may_jump = written && end != End::NoJump && nothing_writable().is_ok();
    if may_jump && verb == Verb::Kexec && something_is_loaded() {
        info!("as PID 1: jump to what is loaded");
        let _ = reboot(RebootCommand::Kexec);
    }
    let (stays_down, word) = match verb {
        // Who is asked to leave the machine itself switches it off (systemd, src/shutdown/shutdown.c).
        Verb::Poweroff | Verb::Exit => (Some(RebootCommand::PowerOff), "power off"),
        Verb::Halt => (Some(RebootCommand::Halt), "halt"),
        Verb::Kexec | Verb::Reboot => (None, "restart through firmware"),
    };
    info!("as PID 1: {word}");
    let _ = match stays_down {
        Some(command) => reboot(command),
        None => Err(firmware::restart()),
    };
    // Only without CAP_SYS_BOOT, and so in a container that could not be told as one, is it refused.
    error!("the kernel refused to {word}");
    sys::exit(end.status())
}
