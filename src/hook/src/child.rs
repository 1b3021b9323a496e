//! An act that may block for ever, in a process of its own.

use core::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{self, Errno};
use rustix::process::{PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};

use crate::failure::Failure;
use crate::sys;

/// What a child that panics ends with: no errno is so large.
pub const DIED: u8 = u8::MAX;

/// Runs `act` in a child and waits for it: each time for as long as `patience` says, until it says
/// `None`. Then the child is left behind: a process that the kernel does not let go cannot be waited
/// for, and must not be.
///
/// What a failed act says travels as the child's exit status, an errno.
pub fn bounded(
    name: &'static str,
    mut patience: impl FnMut() -> Option<Duration>,
    act: impl FnOnce() -> io::Result<()>,
) -> Result<(), Failure> {
    let call = |call: &'static str| move |errno| Failure::Call { call, errno };
    let begun = sys::uptime();
    let Some(child) = sys::fork().map_err(call("fork"))? else {
        let errno = act().err().map_or(0, Errno::raw_os_error);
        sys::exit(u8::try_from(errno).unwrap_or(DIED));
    };
    let handle = pidfd_open(child, PidfdFlags::empty()).map_err(call("pidfd_open"))?;
    loop {
        let Some(time) = patience() else {
            let _ = kill_process(child, Signal::KILL);
            let seconds = sys::uptime().saturating_sub(begun).as_secs();
            return Err(Failure::Hangs { act: name, seconds });
        };
        if ready(PollFd::new(&handle, PollFlags::IN), time) {
            break;
        }
    }
    let ended = waitpid(Some(child), WaitOptions::empty()).map_err(call("waitpid"))?;
    match ended.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) if errno != i32::from(DIED) => {
            Err(Failure::Call { call: name, errno: Errno::from_raw_os_error(errno) })
        }
        _ => Err(Failure::Died { act: name }),
    }
}

/// Waits a while.
pub fn sleep(time: Duration) {
    let _ = poll(&mut [], Some(&timespec(time)));
}

fn ready(fd: PollFd<'_>, patience: Duration) -> bool {
    matches!(poll(&mut [fd], Some(&timespec(patience))), Ok(1..))
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn what_the_act_says_is_what_the_caller_hears() {
        assert!(bounded("act", || Some(SHORT), || Ok(())).is_ok());
        let failed = bounded("act", || Some(SHORT), || Err(Errno::NOEXEC)).unwrap_err();
        assert!(matches!(failed, Failure::Call { call: "act", errno: Errno::NOEXEC }), "{failed}");
    }

    #[test]
    fn an_act_that_hangs_is_left_behind() {
        let hang = || loop {
            sleep(SHORT);
        };
        let mut once = Some(SHORT);
        assert!(matches!(bounded("act", || once.take(), hang), Err(Failure::Hangs { .. })));
    }

    #[test]
    fn an_act_that_makes_progress_is_waited_for() {
        let mut windows = 0;
        let progress = || {
            windows += 1;
            Some(SHORT)
        };
        let slow = || {
            sleep(SHORT * 5);
            Ok(())
        };
        assert!(bounded("act", progress, slow).is_ok());
        assert!(windows >= 2, "{windows}");
    }
}
