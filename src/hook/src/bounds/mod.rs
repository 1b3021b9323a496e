//! The bounds of a handoff: its deadlines, the other hooks that share them, and the two ways out of a kernel
//! that hangs.

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

/// The deadlines of a handoff's steps, and the help that is left when nothing else works.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// The deadlines, which the init sets.
    pub budget: &'static Budget,
    /// The start of the handoff, and the record for the next kernel.
    pub diary: &'a Diary,
    /// The processes that share this time with the hook.
    pub relatives: Relatives,
    /// The guard, which can reset the machine.
    pub guard: &'a Guard,
}

/// Why an act on a driver is not done.
#[derive(Clone, Copy, Debug)]
pub enum Undone {
    /// The kernel refused it.
    Refused(Errno),
    /// The process that carried it out was killed, because the kernel failed in it.
    Died,
    /// There was no time left for it.
    OutOfTime,
    /// The act hangs in the kernel.
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
    /// The number of seconds that it was waited for.
    pub seconds: u64,
    /// The lock of its device: a process that holds it makes every reboot(2) hang, too.
    pub lock: Lock,
    /// Whether it made no progress although it had all its time. If not, it may only be slow.
    pub stalled: bool,
}

impl Hang {
    /// Returns whether only a reset ends it. If it may only be slow, reboot(2) itself waits for it, and the
    /// guard for that.
    #[must_use]
    pub fn blocks_reboot(self) -> bool {
        self.stalled && self.lock != Lock::Free
    }
}

impl Bounds<'_> {
    /// Resets the machine, because every reboot(2) would hang. First waits for the init's other hooks, and
    /// syncs. Returns if the kernel cannot reset.
    #[must_use]
    pub fn reset(&self) -> Failure {
        error!("a reboot would hang like this, too: reset the machine");
        // If the init loses its patience meanwhile, it must not jump.
        let _ = kexec::unload();
        self.finish_others();
        // A load that was under way may have finished meanwhile.
        let _ = kexec::unload();
        self.guard.reset();
        Failure::CannotReset
    }

    /// Restarts the machine under the guard, in cases in which the init would jump or hang. First waits for the
    /// init's other hooks, and syncs. Returns if the kernel refuses.
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

    /// Returns the time left for teardown.
    #[must_use]
    pub fn left(&self) -> Duration {
        (self.diary.begun + self.budget.teardown_until).saturating_sub(clock::uptime())
    }

    /// Begins to watch an act that may take this long without progress, within the time left for teardown.
    #[must_use]
    pub fn progress(&self, time: Duration) -> Progress {
        Progress::of_now(time, self.diary.begun + self.budget.teardown_until)
    }

    /// Runs, in a child, an act of teardown that touches no driver, within the time left for teardown.
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

    /// Runs, in a child, an act on a driver for as long as it makes progress, within the time left for teardown.
    /// `devices` counts the devices that the driver still has.
    pub fn watched(
        &self,
        name: &'static str,
        time: Duration,
        devices: &dyn Fn() -> u32,
        act: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Undone> {
        child::once(act, |act| self.fork_and_watch(name, time, devices, act))
    }

    /// Does the work of [`Bounds::watched`]. Not generic, so the compiler emits only one copy.
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
        // Most acts end within a moment, without a check.
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
