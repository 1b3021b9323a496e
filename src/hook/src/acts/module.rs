//! Unloading a kernel module, and all modules that depend on it.

use core::fmt;
use core::time::Duration;

use rustix::fd::BorrowedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::system::delete_module;

use crate::bounds::child;
use crate::bounds::failure::Failure;
use crate::bounds::progress::Progress;
use crate::bounds::{Bounds, Hang, Undone};
use crate::scene::locks::{self, Lock};
use crate::scene::modules::{self, ModuleName, State};
use crate::sys::errno::Named;
use crate::sys::say::info;
use crate::sys::{clock, limits};

/// A module that could not be unloaded, and the reason.
#[derive(Clone, Copy, Debug)]
pub struct Stuck {
    /// The requested module, or one that depends on it.
    pub module: ModuleName,
    /// The reason.
    pub why: WhyStuck,
}

/// The reason why a module is still loaded.
#[derive(Clone, Copy, Debug)]
pub enum WhyStuck {
    /// It is in use.
    InUse,
    /// It has no exit.
    Permanent,
    /// It has not come back from its initialisation. If that has stalled, the probe of its device is stuck,
    /// and every reboot(2) hangs with it.
    Initialising {
        /// Whether it has used up its time, and made no progress.
        stalled: bool,
    },
    /// Its exit hangs.
    Hangs(Hang),
    /// The kernel failed in its exit (an oops), and may hold any lock.
    Oopsed,
    /// The time for the whole teardown was over.
    OutOfTime,
    /// The kernel refused to unload it.
    Refused(Errno),
}

impl Stuck {
    /// Whether every reboot(2) would hang now, a jump as well as a restart.
    #[must_use]
    pub fn blocks_reboot(&self) -> bool {
        match self.why {
            WhyStuck::Initialising { stalled } => stalled,
            WhyStuck::Hangs(hang) => hang.blocks_reboot(),
            why => matches!(why, WhyStuck::Oopsed),
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let module = &self.module;
        match self.why {
            WhyStuck::InUse => write!(out, "{module} is in use"),
            WhyStuck::Permanent => write!(out, "{module} is permanent: it has no exit"),
            WhyStuck::Initialising { .. } => {
                write!(out, "{module} has not come back from its initialisation")
            }
            WhyStuck::Hangs(Hang { seconds, lock, stalled: true }) => {
                write!(out, "the exit of {module} hangs, for {seconds} seconds by now{lock}")
            }
            WhyStuck::Hangs(Hang { seconds, lock, .. }) => {
                write!(out, "the exit of {module} has not come to its end after {seconds} seconds{lock}")
            }
            WhyStuck::Oopsed => write!(out, "the kernel failed in the exit of {module}"),
            WhyStuck::OutOfTime => write!(out, "the time was over before {module} could be unloaded"),
            WhyStuck::Refused(Errno::PERM) => {
                write!(out, "{module}: EPERM: modules_disabled, or a capability is missing")
            }
            WhyStuck::Refused(Errno::NOSYS) => {
                write!(out, "{module}: ENOSYS: this kernel unloads no module (CONFIG_MODULE_UNLOAD)")
            }
            WhyStuck::Refused(errno) => write!(out, "{module}: {}", Named(errno)),
        }
    }
}

/// The settings for unloading modules.
pub struct Unloading<'a> {
    /// The open directory `/`.
    pub root: BorrowedFd<'a>,
    /// The time that the exit of one module may take.
    pub exit: Duration,
    /// The deadlines of the whole teardown.
    pub bounds: &'a Bounds<'a>,
    /// Frees a module from one of its users. Returns `false` if nothing is left to try, and an error if
    /// freeing it hangs as well.
    pub free: &'a mut dyn FnMut() -> Result<bool, WhyStuck>,
}

impl Unloading<'_> {
    /// Unloads all modules that depend on a module, the uppermost first, and then the module itself. Never
    /// forces a module out.
    ///
    /// - `delete_module(2)`
    pub fn unload(&mut self, module: &ModuleName) -> Result<(), Stuck> {
        self.storey(module, limits::STOREYS)
    }

    fn storey(&mut self, module: &ModuleName, above: u32) -> Result<(), Stuck> {
        let stuck = |why| Err(Stuck { module: *module, why });
        // A module that stays does not keep its siblings loaded, because each of them has something to quiet.
        let (mut staying, mut first) = (0, None);
        while let Some(upper) = modules::standing_on(self.root, module, staying) {
            if above == 0 {
                return stuck(WhyStuck::InUse);
            }
            match self.storey(&upper, above - 1) {
                Ok(()) => {}
                Err(stuck) if stuck.blocks_reboot() => return Err(stuck),
                Err(stuck) => {
                    staying += 1;
                    first = first.or(Some(stuck));
                }
            }
        }
        if let Some(stuck) = first {
            return Err(stuck);
        }
        info!("unload {module}");
        let mut since = clock::uptime();
        // An act that somebody else has begun is watched from when it is first seen.
        let (mut comes_up, mut goes): (Option<Progress>, Option<Progress>) = (None, None);
        let [mut pause, longest] = limits::IN_USE_PAUSES;
        loop {
            let before = modules::state(self.root, module);
            let errno = match self.attempt(module) {
                Ok(()) => return Ok(()),
                Err(Undone::Refused(errno)) => errno,
                Err(Undone::Hangs(hang)) => return stuck(WhyStuck::Hangs(hang)),
                Err(Undone::Died) => return stuck(WhyStuck::Oopsed),
                Err(_) if modules::state(self.root, module) == Some(State::Initialising) => {
                    let stalled = comes_up.is_some_and(|it| it.has_stalled());
                    return stuck(WhyStuck::Initialising { stalled });
                }
                Err(_) => return stuck(WhyStuck::OutOfTime),
            };
            let waited = clock::uptime().saturating_sub(since);
            match (errno, modules::state(self.root, module)) {
                (Errno::NOENT, _) => return Ok(()),
                (Errno::AGAIN, _) if (self.free)().map_err(|why| Stuck { module: *module, why })? => {
                    since = clock::uptime();
                    continue;
                }
                (Errno::AGAIN, _) if waited >= limits::IN_USE => return stuck(WhyStuck::InUse),
                // A module that has come up meanwhile was only busy with that.
                (Errno::BUSY, Some(State::Live)) if before == Some(State::Live) => {
                    return stuck(WhyStuck::Permanent);
                }
                (Errno::BUSY, Some(State::Initialising)) => {
                    let comes_up =
                        comes_up.get_or_insert_with(|| self.bounds.progress(self.bounds.budget.initialising));
                    comes_up.see(modules::devices(self.root, module), 0);
                    if comes_up.patience().is_none() {
                        return stuck(WhyStuck::Initialising { stalled: comes_up.has_stalled() });
                    }
                }
                // Somebody else began to unload it, perhaps while the system was running, and has not come
                // back.
                (Errno::BUSY, Some(State::Going)) => {
                    let goes = goes.get_or_insert_with(|| self.bounds.progress(self.exit));
                    goes.see(modules::devices(self.root, module), 0);
                    if goes.patience().is_none() {
                        let (seconds, stalled) = (goes.seconds(), goes.has_stalled());
                        let lock = lock_of_anybody(limits::HOLDERS_LOOK.min(self.bounds.left()));
                        // If there was no time for the look, nothing is known, and the machine is not reset.
                        let (lock, stalled) = lock.map_or((Lock::Unknown, false), |lock| (lock, stalled));
                        return stuck(WhyStuck::Hangs(Hang { seconds, lock, stalled }));
                    }
                }
                (Errno::AGAIN | Errno::BUSY, _) => {}
                (errno, _) => return stuck(WhyStuck::Refused(errno)),
            }
            clock::sleep(pause);
            pause = longest.min(pause * 2);
        }
    }

    fn attempt(&self, module: &ModuleName) -> Result<(), Undone> {
        // O_NONBLOCK, as every caller passes: without it, old kernels waited for the last user.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let devices = || modules::devices(self.root, module);
        self.bounds.watched("unload", self.exit, &devices, || delete_module(module.as_c_str(), flags))
    }
}

/// Looks whether any process holds the lock of a device. Runs in a child, because the look at all processes
/// may take long. Fails if it takes longer than `time`.
fn lock_of_anybody(time: Duration) -> Result<Lock, Failure> {
    let looked =
        child::within(time, "look for who holds the lock of a device", || match locks::held_by_anybody()? {
            Lock::Free => Ok(()),
            Lock::Held => Err(Errno::BUSY),
            Lock::Unknown => Err(Errno::SRCH),
        });
    match looked {
        Ok(()) => Ok(Lock::Free),
        Err(Failure::Call { errno: Errno::BUSY, .. }) => Ok(Lock::Held),
        Err(Failure::Call { errno: Errno::SRCH, .. }) => Ok(Lock::Unknown),
        Err(failure) => Err(failure),
    }
}
