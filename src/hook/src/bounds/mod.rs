//! The bounds of a handoff: its deadlines, the other hooks that share them, and the two ways out of a kernel that hangs.

pub mod act;
pub mod child;
pub mod diary;
pub mod failure;
pub mod guard;
pub mod kexec;
pub mod open;
pub mod others;
pub mod progress;
pub mod restart;
pub mod sync;

use core::time::Duration;

use rustix::io::{self, Errno};

use crate::bounds::diary::Diary;
use crate::bounds::failure::Failure;
use crate::bounds::guard::Guard;
use crate::bounds::progress::Progress;
use crate::scene::locks::{self, Lock, Stack};
use crate::scene::processes::Relatives;
use crate::sys::clock;
use crate::sys::errno::Named;
use crate::sys::limits::{self, Budget};
use crate::sys::say::{error, info};

/// How long the night's steps may take, and who helps where nothing else does.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// The deadlines.
    pub budget: &'static Budget,
    /// When the night began, and what the next kernel is told of it.
    pub diary: &'a Diary,
    /// Whom it shares it with.
    pub relatives: Relatives,
    /// Resets the machine.
    pub guard: &'a Guard,
}

/// Why an act on a driver is not done.
#[derive(Clone, Copy, Debug)]
pub enum Undone {
    /// The kernel says so.
    Refused(Errno),
    /// The process that did it was killed: the kernel failed in it.
    Died,
    /// There was no time for it.
    OutOfTime,
    /// It hangs in the kernel.
    Hangs(Hang),
}

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Undone {
        match failure {
            Failure::Call { errno, .. } => Undone::Refused(errno),
            Failure::Died { .. } => Undone::Died,
            _ => Undone::OutOfTime,
        }
    }
}

/// An act that hangs in the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Hang {
    /// For how many seconds it was waited.
    pub seconds: u64,
    /// The lock of its device: who holds it hangs every reboot(2), too.
    pub lock: Lock,
    /// It had all its time, and made no progress. Else it may only be slow.
    pub stalled: bool,
}

impl Hang {
    /// Whether nothing but a reset ends it: what may only be slow is waited for by the reboot(2) itself, and the guard waits
    /// for that.
    #[must_use]
    pub fn blocks_reboot(self) -> bool {
        self.stalled && self.lock != Lock::Free
    }
}

impl Bounds<'_> {
    /// Resets the machine at once, for every reboot(2) would hang. What the init's other hooks do is
    /// waited for, and written. Returns where the kernel cannot reset.
    #[must_use]
    pub fn reset(&self) -> Failure {
        error!("a reboot would hang like this, too: reset the machine");
        // Should the init lose its patience meanwhile, it must not jump.
        let _ = kexec::unload();
        self.finish_others();
        // A load that was under way may have come to its end meanwhile.
        let _ = kexec::unload();
        self.guard.reset();
        Failure::CannotReset
    }

    /// Restarts the machine under the guard, where the init would jump or hang. Returns where the kernel
    /// refuses.
    pub fn restart(&self) {
        info!("restart the machine through firmware");
        self.finish_others();
        self.guard.jumping();
        error!("the kernel refused to restart: {}", Named(restart::through_firmware()));
    }

    fn finish_others(&self) {
        let _ = others::wait(self.relatives, self.diary.begun + self.budget.others_until);
        let _ = sync::sync(self.budget.last_sync, self.diary.begun + self.budget.last_sync_until);
    }

    /// What is left of the time for teardown.
    #[must_use]
    pub fn left(&self) -> Duration {
        (self.diary.begun + self.budget.teardown_until).saturating_sub(clock::uptime())
    }

    /// An act that is watched, and may take so long without progress, within what is left for teardown.
    #[must_use]
    pub fn progress(&self, time: Duration) -> Progress {
        Progress::of_now(time, self.diary.begun + self.budget.teardown_until)
    }

    /// An act of teardown that touches no driver, in a child, within what is left for it.
    pub fn bounded(
        &self,
        name: &'static str,
        time: Duration,
        act: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Failure> {
        match self.left() {
            Duration::ZERO => Err(Failure::OutOfTime),
            left => child::within(time.min(left), name, act),
        }
    }

    /// An act on a driver, in a child, for as long as it makes progress, within what is left for it. `devices` counts those
    /// that the driver still has.
    pub fn watched(
        &self,
        name: &'static str,
        time: Duration,
        devices: &dyn Fn() -> u32,
        act: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Undone> {
        child::once(act, |act| self.fork_and_watch(name, time, devices, act))
    }

    /// The same; one copy of it is enough, whatever the act.
    fn fork_and_watch(
        &self,
        name: &'static str,
        time: Duration,
        devices: &dyn Fn() -> u32,
        act: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<(), Undone> {
        if self.left().is_zero() {
            return Err(Undone::OutOfTime);
        }
        let running = child::fork(name, act)?;
        let mut progress = self.progress(time);
        // Mostly it is a matter of moments, and nobody has to look.
        let mut first = Some(limits::LOOK.min(time).min(self.left()));
        let (mut sees_stacks, mut stalled) = (true, false);
        let ended = running.wait(|| {
            first.take().or_else(|| {
                let stack = sees_stacks.then(|| Stack::of(running.id()));
                sees_stacks = stack.is_some_and(|stack| stack.could_be_read);
                progress.see(devices(), stack.map_or(0, |stack| stack.place));
                stalled = progress.has_stalled();
                progress.patience()
            })
        });
        ended.map_err(|failure| match failure {
            Failure::Hangs { seconds, lets_go, .. } => {
                let lock = if lets_go { Lock::Free } else { locks::held_by(running.id()) };
                Undone::Hangs(Hang { seconds, lock, stalled })
            }
            failure => failure.into(),
        })
    }
}
