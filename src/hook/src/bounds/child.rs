//! Runs an act that may block for ever in a process of its own.

use core::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::{self, Errno};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::bounds::failure::Failure;
use crate::sys::{calls, clock, limits};

/// Exit status of a child that panics. No errno is so large.
pub const DIED: u8 = u8::MAX;

/// Runs `act` in a child and waits for it, each time for as long as `patience` returns. Gives up when
/// `patience` returns `None`.
pub fn bounded(
    name: &'static str,
    patience: impl FnMut() -> Option<Duration>,
    act: impl FnOnce() -> io::Result<()>,
) -> Result<(), Failure> {
    begin(name, act)?.wait(patience)
}

/// Runs `act` in a child and waits for it, at most for this time.
pub fn within(
    time: Duration,
    name: &'static str,
    act: impl FnOnce() -> io::Result<()>,
) -> Result<(), Failure> {
    once(act, |act| fork_within(time, name, act))
}

/// Does the work of [`within`]. Not generic, so the compiler emits only one copy.
fn fork_within(
    time: Duration,
    name: &'static str,
    act: &mut dyn FnMut() -> io::Result<()>,
) -> Result<(), Failure> {
    fork(name, act)?.end_within(time)
}

/// Passes an act that can be called only once as a function that could be called again, but is not.
pub fn once<T>(
    act: impl FnOnce() -> io::Result<()>,
    run: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> T,
) -> T {
    let mut act = Some(act);
    run(&mut || act.take().map_or(Ok(()), |act| act()))
}

/// An act under way in a child.
#[derive(Debug)]
pub struct Running {
    name: &'static str,
    child: Pid,
    handle: OwnedFd,
    /// The uptime at which it began.
    pub begun: Duration,
}

/// Begins `act` in a child. The error of a failed act travels as the child's exit status, an errno. If no child
/// can be created, that counts as a failed act, too.
pub fn begin(name: &'static str, act: impl FnOnce() -> io::Result<()>) -> Result<Running, Failure> {
    once(act, |act| fork(name, act))
}

/// Does the work of [`begin`]. Not generic, so the compiler emits only one copy.
pub fn fork(name: &'static str, act: &mut dyn FnMut() -> io::Result<()>) -> Result<Running, Failure> {
    let begun = clock::uptime();
    let Some((child, handle)) =
        calls::fork_with_handle().map_err(|errno| Failure::Call { call: name, errno })?
    else {
        let errno = act().err().map_or(0, Errno::raw_os_error);
        calls::exit(u8::try_from(errno).unwrap_or(DIED));
    };
    Ok(Running { name, child, handle, begun })
}

impl Running {
    /// Returns the child's process id.
    #[must_use]
    pub fn id(&self) -> Pid {
        self.child
    }

    /// Waits for the child's end, each time for as long as `patience` returns. When that returns `None`, the
    /// child is killed and, if it does not end, left behind: a process that the kernel does not let go cannot
    /// be waited for, and must not be.
    pub fn wait(&self, mut patience: impl FnMut() -> Option<Duration>) -> Result<(), Failure> {
        self.wait_for(&mut patience)
    }

    /// Waits for the child's end once, at most for this time.
    pub fn end_within(&self, time: Duration) -> Result<(), Failure> {
        let mut once = Some(time);
        self.wait_for(&mut || once.take())
    }

    fn wait_for(&self, patience: &mut dyn FnMut() -> Option<Duration>) -> Result<(), Failure> {
        loop {
            let Some(time) = patience() else { return Err(self.given_up()) };
            if self.ends_within(time) {
                return self.result();
            }
        }
    }

    /// Returns the result of an act that has ended.
    pub fn result(&self) -> Result<(), Failure> {
        let act = self.name;
        let ended = waitpid(Some(self.child), WaitOptions::empty())
            .map_err(|errno| Failure::Call { call: "waitpid", errno })?;
        match ended.and_then(|(_, status)| status.exit_status()) {
            Some(0) => Ok(()),
            Some(errno) if errno != i32::from(DIED) => {
                Err(Failure::Call { call: act, errno: Errno::from_raw_os_error(errno) })
            }
            _ => Err(Failure::Died { act }),
        }
    }

    fn given_up(&self) -> Failure {
        self.kill();
        self.hangs(limits::LETS_GO)
    }

    /// Kills the child. It ends if the kernel lets it go.
    pub fn kill(&self) {
        let _ = kill_process(self.child, Signal::KILL);
    }

    /// Returns the failure of an act that was given up and killed. Waits up to `time` for the child to end
    /// after all.
    #[must_use]
    pub fn hangs(&self, time: Duration) -> Failure {
        let seconds = clock::uptime().saturating_sub(self.begun).as_secs();
        let lets_go = self.ends_within(time);
        Failure::Hangs { act: self.name, seconds, lets_go }
    }

    /// Returns whether the child has ended, or ends within this time.
    #[must_use]
    pub fn ends_within(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(&self.handle, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&clock::timespec(time))), Ok(1..))
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
            clock::sleep(SHORT);
        };
        let mut once = Some(SHORT);
        let hangs = bounded("act", || once.take(), hang).unwrap_err();
        assert!(matches!(hangs, Failure::Hangs { lets_go: true, .. }), "{hangs}");
    }

    #[test]
    fn an_act_that_makes_progress_is_waited_for() {
        let mut windows = 0;
        let progress = || {
            windows += 1;
            Some(SHORT)
        };
        let slow = || {
            clock::sleep(SHORT * 5);
            Ok(())
        };
        assert!(bounded("act", progress, slow).is_ok());
        assert!(windows >= 2, "{windows}");
    }
}
