//! The guard: a process that resets the machine when the jump hangs in the kernel.
//!
//! A driver that never comes back from its shutdown keeps the machine in `device_shutdown` for ever, and
//! every further reboot(2) waits behind it. `b` in /proc/sysrq-trigger resets the machine without asking
//! anybody (`emergency_restart`, kernel/reboot.c); kernel.sysrq does not mask it there.

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

/// The guard, seen from the hook.
#[derive(Debug)]
pub struct Guard {
    trigger: Option<OwnedFd>,
    starts_the_clock: Option<OwnedFd>,
    processes: [Option<Pid>; limits::GUARDS.len()],
    /// Why not all of its processes could be made, where that is so.
    pub incomplete: Option<Errno>,
}

impl Guard {
    /// Posts it: from when the machine had been up so long the hook must end within `night` and `jump` together, or from
    /// [`Guard::jumping`] on within `jump`; else the machine is reset. It ends when the hook ends.
    #[must_use]
    pub fn post(begun: Duration, night: Duration, jump: Duration) -> Guard {
        let trigger = openat(CWD, c"/proc/sysrq-trigger", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let Ok(trigger) = trigger else {
            warn!("this kernel has no /proc/sysrq-trigger: a jump that hangs cannot be ended");
            return Guard::none();
        };
        let mut processes = [None; limits::GUARDS.len()];
        let starts_the_clock = never_killed_for_memory(|| post(&trigger, begun, night, jump, &mut processes));
        if let Err(errno) = &starts_the_clock {
            warn!("the guard is not complete: {}", Named(*errno));
        }
        let incomplete = starts_the_clock.as_ref().err().copied();
        Guard { trigger: Some(trigger), starts_the_clock: starts_the_clock.ok(), processes, incomplete }
    }

    /// Nobody, for where nothing is done.
    #[must_use]
    pub const fn none() -> Guard {
        let processes = [None; limits::GUARDS.len()];
        Guard { trigger: None, starts_the_clock: None, processes, incomplete: None }
    }

    /// Whether this is one of its processes.
    #[must_use]
    pub fn includes(&self, id: Pid) -> bool {
        self.processes.contains(&Some(id))
    }

    /// Ends it, where the hook goes on without it.
    pub fn dismiss(self) {
        for process in self.processes.into_iter().flatten() {
            let _ = kill_process(process, Signal::KILL);
        }
    }

    /// From now on only the jump is left.
    pub fn jumping(&self) {
        if let Some(pipe) = &self.starts_the_clock {
            let _ = io::write(pipe, b"j");
        }
    }

    /// Resets the machine at once. Returns where the kernel has no such thing.
    pub fn reset(&self) {
        if let Some(trigger) = &self.trigger {
            // Should the word that this says on the console hang, the guard is next.
            self.jumping();
            reset(trigger);
            // It is done by now, or never.
            clock::sleep(limits::GLANCE);
        }
    }
}

fn reset(trigger: &OwnedFd) {
    let _ = io::write(trigger, b"b");
}

/// Several processes, one after the other. The first says what it does, and a console may hang with the
/// driver behind it and take along who writes to it; even `b` says a word (`__handle_sysrq`), and who comes
/// second may have to wait for the console that the first one holds (`console_trylock_spinning`,
/// kernel/printk/printk.c). The third does not.
fn post(
    trigger: &OwnedFd,
    begun: Duration,
    night: Duration,
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
        let stood = stand(&hook, &clock, begun, night + jump + late, jump + late);
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

/// Does it while this process is not what is killed for memory, which its children inherit.
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
    /// `since` when only the jump was left, where it came so far.
    UntilItsTimeWasOver {
        since: Option<Duration>,
    },
}

fn stand(hook: &OwnedFd, clock: &OwnedFd, begun: Duration, whole: Duration, jump: Duration) -> Stood {
    // From here on it asks nothing of a disk.
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
