//! What bounds the night: the deadlines, whom it shares them with, and the two ways out of a kernel that
//! hangs.

use core::time::Duration;

use crate::say::{error, info};
use rustix::io;

use crate::diary::Diary;
use crate::failure::{Failure, Named};
use crate::guard::Guard;
use crate::limits::Budget;
use crate::processes::Relatives;
use crate::{child, firmware, others, sync, sys};

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

impl Bounds<'_> {
    /// Resets the machine at once, for every reboot(2) would hang. What the init's other hooks do is
    /// waited for, and written. Returns where the kernel cannot reset.
    #[must_use]
    pub fn reset(&self) -> Failure {
        error!("a reboot would hang like this, too: reset the machine");
        self.finish_others();
        self.guard.reset();
        Failure::CannotReset
    }

    /// Restarts the machine under the guard, where the init would jump or hang. Returns where the kernel
    /// refuses.
    pub fn restart(&self) {
        info!("restart the machine through firmware");
        self.finish_others();
        self.guard.jumping();
        error!("the kernel refused to restart: {}", Named(firmware::restart()));
    }

    fn finish_others(&self) {
        let _ = others::wait(self.relatives, self.diary.begun + self.budget.others_until);
        let _ = sync::sync(self.budget.sync, self.diary.begun + self.budget.sync_again_until);
    }

    /// What is left of the time for teardown.
    #[must_use]
    pub fn left(&self) -> Duration {
        (self.diary.begun + self.budget.teardown_until).saturating_sub(sys::uptime())
    }

    /// An act of teardown, in a child, within what is left for it.
    pub fn bounded(
        &self,
        name: &'static str,
        time: Duration,
        act: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Failure> {
        child::once(act, |act| self.fork_within_what_is_left(name, time, act))
    }

    fn fork_within_what_is_left(
        &self,
        name: &'static str,
        time: Duration,
        act: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<(), Failure> {
        match self.left() {
            Duration::ZERO => Err(Failure::OutOfTime),
            left => child::fork_within(time.min(left), name, act),
        }
    }
}
