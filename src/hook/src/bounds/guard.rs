//! The guard: processes that reset the machine when the jump hangs in the kernel.
//!
//! A driver whose shutdown never returns keeps the machine in `device_shutdown` for ever, and every further
//! reboot(2) waits behind it. Writing `b` to /proc/sysrq-trigger resets the machine without asking anybody
//! (`emergency_restart`, kernel/reboot.c); kernel.sysrq does not mask it there.

use core::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{self, Errno};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open};

use crate::sys::errno::Named;
use crate::sys::say::{error, warn};
use crate::sys::{calls, clock, files, limits};

/// The guard, as the hook sees it.
#[derive(Debug)]
pub struct Guard {
    trigger: Option<OwnedFd>,
    starts_the_clock: Option<OwnedFd>,
    processes: [Option<Pid>; limits::GUARDS.len()],
    /// The error, if not all of its processes could be created.
    pub incomplete: Option<Errno>,
}

impl Guard {
    /// Starts the guard. The machine is reset unless the hook ends within `shutdown` and `jump` together, counted
    /// from the uptime `begun`, and within `jump` after [`Guard::jumping`]. The guard ends when the hook ends.
    #[must_use]
    pub fn post(begun: Duration, shutdown: Duration, jump: Duration) -> Guard {
        let trigger = openat(CWD, c"/proc/sysrq-trigger", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let Ok(trigger) = trigger else {
            warn!("this kernel has no /proc/sysrq-trigger: a jump that hangs cannot be ended");
            return Guard::none();
        };
        let mut processes = [None; limits::GUARDS.len()];
        let starts_the_clock =
            never_killed_for_memory(|| post(&trigger, begun, shutdown, jump, &mut processes));
        if let Err(errno) = &starts_the_clock {
            warn!("the guard is not complete: {}", Named(*errno));
        }
        let incomplete = starts_the_clock.as_ref().err().copied();
        Guard { trigger: Some(trigger), starts_the_clock: starts_the_clock.ok(), processes, incomplete }
    }

    /// Returns a guard without processes, for runs that need none.
    #[must_use]
    pub const fn none() -> Guard {
        let processes = [None; limits::GUARDS.len()];
        Guard { trigger: None, starts_the_clock: None, processes, incomplete: None }
    }

    /// Returns whether this is one of the guard's processes.
    #[must_use]
    pub fn includes(&self, id: Pid) -> bool {
        self.processes.contains(&Some(id))
    }

    /// Ends the guard; the hook goes on without it.
    pub fn dismiss(self) {
        for process in self.processes.into_iter().flatten() {
            let _ = kill_process(process, Signal::KILL);
        }
    }

    /// Tells the guard that only the jump is left.
    pub fn jumping(&self) {
        if let Some(pipe) = &self.starts_the_clock {
            let _ = io::write(pipe, b"j");
        }
    }

    /// Resets the machine at once. Returns if the kernel cannot do that.
    pub fn reset(&self) {
        if let Some(trigger) = &self.trigger {
            // If the line that the kernel prints for this hangs on a console, the guard acts next.
            self.jumping();
            reset(trigger);
            // By now the reset has happened, or it never will.
            clock::sleep(limits::GLANCE);
        }
    }
}

fn reset(trigger: &OwnedFd) {
    let _ = io::write(trigger, b"b");
}

/// Starts several processes that act one after the other. The first one logs its act, and a console may hang
/// with the driver behind it, and with it each process that writes to it. Even `b` prints a line
/// (`__handle_sysrq`), so the second one may have to wait for the console that the first one holds
/// (`console_trylock_spinning`, kernel/printk/printk.c). The third one does not.
fn post(
    trigger: &OwnedFd,
    begun: Duration,
    shutdown: Duration,
    jump: Duration,
    processes: &mut [Option<Pid>],
) -> io::Result<OwnedFd> {
    let hook = pidfd_open(getpid(), PidfdFlags::empty())?;
    let (clock, starts_the_clock) = pipe_with(PipeFlags::CLOEXEC)?;
    for (late, process) in limits::GUARDS.into_iter().zip(processes) {
        *process = calls::fork()?;
        if process.is_some() {
            continue;
        }
        let stood = stand(&hook, &clock, begun, shutdown + jump + late, jump + late);
        let seconds = |since: Duration| clock::uptime().saturating_sub(since).as_secs();
        if let Stood::UntilItsTimeWasOver { since } = stood {
            match since {
                _ if !late.is_zero() => {}
                Some(since) => {
                    error!("the jump or the restart did not come within {} seconds: reset", seconds(since));
                }
                None => error!("the hook did not come to its end within {} seconds: reset", seconds(begun)),
            }
            reset(trigger);
        }
        calls::exit(0);
    }
    Ok(starts_the_clock)
}

/// Runs `act` with this process exempt from the OOM killer. Children forked meanwhile inherit that.
fn never_killed_for_memory<T>(act: impl FnOnce() -> T) -> T {
    let mut score = [0; limits::SCORE_MAX];
    let before = files::open_both(c"/proc/self/oom_score_adj").and_then(|file| {
        let before = files::up_to(&file, &mut score)?;
        io::write(&file, b"-1000")?;
        Ok((file, before))
    });
    let done = act();
    if let Ok((file, before)) = before {
        let _ = io::write(file, before);
    }
    done
}

enum Stood {
    UntilTheHookEnded,
    /// `since` is the uptime at which only the jump was left, if the hook came so far.
    UntilItsTimeWasOver {
        since: Option<Duration>,
    },
}

fn stand(hook: &OwnedFd, clock: &OwnedFd, begun: Duration, whole: Duration, jump: Duration) -> Stood {
    // From here on this process needs nothing from a disk.
    let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE);
    let (mut deadline, mut left) = (begun + whole, whole);
    let mut started = None;
    while !left.is_zero() {
        let other = if started.is_some() { hook } else { clock };
        let mut fds = [PollFd::new(hook, PollFlags::IN), PollFd::new(other, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&clock::timespec(left)));
        let [hook_ended, clock_started] = fds.map(|fd| !fd.revents().is_empty());
        if hook_ended {
            return Stood::UntilTheHookEnded;
        }
        let now = clock::uptime();
        if clock_started {
            started = started.or(Some(now));
            deadline = deadline.min(now + jump);
        }
        left = deadline.saturating_sub(now);
    }
    Stood::UntilItsTimeWasOver { since: started }
}
