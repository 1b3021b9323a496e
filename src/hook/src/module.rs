//! Unloading a kernel module, and everything that stands on it.

use core::fmt;
use core::time::Duration;

use crate::say::info;
use nextkernel_plan::limits::MODULE_NAME_MAX;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::system::delete_module;

use crate::bounds::{Bounds, Hang, Undone};
use crate::failure::Named;
use crate::locks::{self, Lock};
use crate::name::Name;
use crate::progress::Progress;
use crate::text::Text;
use crate::{child, files, limits, sys};

/// The name of a module, with room for the NUL.
pub type ModuleName = Name<{ MODULE_NAME_MAX + 1 }>;

/// What a driver does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It works.
    Live,
    /// It has not come back from its initialisation.
    Initialising,
    /// Somebody is unloading it.
    Going,
    /// It is no module.
    BuiltIn,
}

/// The state of a module; `None` where there is no module of that name
/// (Documentation/ABI/testing/sysfs-module).
#[must_use]
pub fn state(root: BorrowedFd<'_>, module: &ModuleName) -> Option<State> {
    let path = Text::<{ limits::PATH_MAX }>::of(format_args!("sys/module/{module}/initstate"));
    let mut word = [0; 8];
    match files::up_to(files::open(root, path.as_c_str()?).ok()?, &mut word).ok()? {
        b"live\n" => Some(State::Live),
        b"coming\n" => Some(State::Initialising),
        b"going\n" => Some(State::Going),
        _ => None,
    }
}

/// How many devices the drivers of a module have, and how much else stands in their folders. It counts where it changes.
/// While a driver probes its first devices the module does not show it yet (`bus_add_driver`, drivers/base/bus.c): one of
/// the PCI bus is found by its name, which is the module's for those of GPUs.
#[must_use]
pub fn devices(root: BorrowedFd<'_>, module: &ModuleName) -> u32 {
    let folder = |path: Text<{ limits::PATH_MAX }>| files::folder(root, path.as_c_str()?).ok();
    let mut count = 0;
    let mut count_in = |driver: &OwnedFd| {
        let _ = files::find_entry(driver, |_| {
            count += 1;
            None::<()>
        });
    };
    if let Some(driver) = folder(Text::of(format_args!("sys/bus/pci/drivers/{module}"))) {
        count_in(&driver);
    }
    if let Some(drivers) = folder(Text::of(format_args!("sys/module/{module}/drivers"))) {
        let _ = files::find_entry(&drivers, |driver| {
            count_in(&files::folder(&drivers, driver).ok()?);
            None::<()>
        });
    }
    count
}

/// Why a module is still there.
#[derive(Clone, Copy, Debug)]
pub struct Stuck {
    /// Which: the one that was meant, or one that stands on it.
    pub module: ModuleName,
    /// Why.
    pub why: Why,
}

/// Why a module is still there.
#[derive(Clone, Copy, Debug)]
pub enum Why {
    /// Something holds it.
    InUse,
    /// It has no exit.
    Permanent,
    /// It has not come back from its initialisation. Where that has stalled, its device's probe is stuck, and with it every
    /// reboot(2).
    Initialising {
        /// It had all its time, and made no progress.
        stalled: bool,
    },
    /// Its exit hangs.
    Hangs(Hang),
    /// The kernel failed in its exit, and may hold any lock.
    Oopsed,
    /// The time for all teardown was over.
    OutOfTime,
    /// The kernel does not allow it.
    Refused(Errno),
}

impl Stuck {
    /// Whether every reboot(2) would hang now, a jump as well as a restart.
    #[must_use]
    pub fn blocks_reboot(&self) -> bool {
        match self.why {
            Why::Initialising { stalled } => stalled,
            Why::Hangs(hang) => hang.blocks_reboot(),
            why => matches!(why, Why::Oopsed),
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let module = &self.module;
        match self.why {
            Why::InUse => write!(out, "{module} is in use"),
            Why::Permanent => write!(out, "{module} is permanent: it has no exit"),
            Why::Initialising { .. } => write!(out, "{module} has not come back from its initialisation"),
            Why::Hangs(Hang { seconds, lock, stalled: true }) => {
                write!(out, "the exit of {module} hangs, for {seconds} seconds by now{lock}")
            }
            Why::Hangs(Hang { seconds, lock, .. }) => {
                write!(out, "the exit of {module} has not come to its end after {seconds} seconds{lock}")
            }
            Why::Oopsed => write!(out, "the kernel failed in the exit of {module}"),
            Why::OutOfTime => write!(out, "the time was over before {module} could be unloaded"),
            Why::Refused(Errno::PERM) => {
                write!(out, "{module}: EPERM: modules_disabled, or a capability is missing")
            }
            Why::Refused(Errno::NOSYS) => {
                write!(out, "{module}: ENOSYS: this kernel unloads no module (CONFIG_MODULE_UNLOAD)")
            }
            Why::Refused(errno) => write!(out, "{module}: {}", Named(errno)),
        }
    }
}

/// How modules are unloaded.
pub struct Unloading<'a> {
    /// The folder `/`.
    pub root: BorrowedFd<'a>,
    /// How long one module's exit may take.
    pub exit: Duration,
    /// The deadlines of all teardown.
    pub bounds: &'a Bounds<'a>,
    /// Ends something that holds a module which is in use; `false` when there is no more to try. An error
    /// where that hangs as well.
    pub free: &'a mut dyn FnMut() -> Result<bool, Why>,
}

impl Unloading<'_> {
    /// Unloads what stands on a module, the uppermost first, and then itself. Nothing is ever forced out.
    ///
    /// - `delete_module(2)`
    pub fn unload(&mut self, module: &ModuleName) -> Result<(), Stuck> {
        self.storey(module, limits::STOREYS)
    }

    fn storey(&mut self, module: &ModuleName, above: u32) -> Result<(), Stuck> {
        let stuck = |why| Err(Stuck { module: *module, why });
        // One that stays does not keep those beside it: each has something to quiet.
        let (mut staying, mut first) = (0, None);
        while let Some(upper) = self.standing_on(module, staying) {
            if above == 0 {
                return stuck(Why::InUse);
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
        let mut since = sys::uptime();
        // Somebody else's doing is watched from when it is first seen.
        let (mut comes_up, mut goes): (Option<Progress>, Option<Progress>) = (None, None);
        let [mut pause, longest] = limits::IN_USE_PAUSES;
        loop {
            let before = state(self.root, module);
            let errno = match self.attempt(module) {
                Ok(()) => return Ok(()),
                Err(Undone::Refused(errno)) => errno,
                Err(Undone::Hangs(hang)) => return stuck(Why::Hangs(hang)),
                Err(Undone::Died) => return stuck(Why::Oopsed),
                Err(_) if state(self.root, module) == Some(State::Initialising) => {
                    let stalled = comes_up.is_some_and(|it| it.has_stalled());
                    return stuck(Why::Initialising { stalled });
                }
                Err(_) => return stuck(Why::OutOfTime),
            };
            let waited = sys::uptime().saturating_sub(since);
            match (errno, state(self.root, module)) {
                (Errno::NOENT, _) => return Ok(()),
                (Errno::AGAIN, _) if (self.free)().map_err(|why| Stuck { module: *module, why })? => {
                    since = sys::uptime();
                    continue;
                }
                (Errno::AGAIN, _) if waited >= limits::IN_USE => return stuck(Why::InUse),
                // One that has come up meanwhile was busy with that.
                (Errno::BUSY, Some(State::Live)) if before == Some(State::Live) => {
                    return stuck(Why::Permanent);
                }
                (Errno::BUSY, Some(State::Initialising)) => {
                    let comes_up =
                        comes_up.get_or_insert_with(|| self.bounds.progress(self.bounds.budget.initialising));
                    comes_up.see(devices(self.root, module), 0);
                    if comes_up.patience().is_none() {
                        return stuck(Why::Initialising { stalled: comes_up.has_stalled() });
                    }
                }
                // Somebody else began it, by day perhaps, and has not come back.
                (Errno::BUSY, Some(State::Going)) => {
                    let goes = goes.get_or_insert_with(|| self.bounds.progress(self.exit));
                    goes.see(devices(self.root, module), 0);
                    if goes.patience().is_none() {
                        let (seconds, stalled) = (goes.seconds(), goes.has_stalled());
                        let lock = locks::held_by_anybody(limits::HOLDERS_LOOK.min(self.bounds.left()));
                        // Where there was no time to look at all nothing is known, and nothing is reset.
                        let (lock, stalled) = lock.map_or((Lock::Unknown, false), |lock| (lock, stalled));
                        return stuck(Why::Hangs(Hang { seconds, lock, stalled }));
                    }
                }
                (Errno::AGAIN | Errno::BUSY, _) => {}
                (errno, _) => return stuck(Why::Refused(errno)),
            }
            child::sleep(pause);
            pause = longest.min(pause * 2);
        }
    }

    fn attempt(&self, module: &ModuleName) -> Result<(), Undone> {
        // O_NONBLOCK, as every caller passes it: without it old kernels waited for the last user.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let devices = || devices(self.root, module);
        self.bounds.watched("unload", self.exit, &devices, || delete_module(module.as_c_str(), flags))
    }

    /// A module that uses symbols of this one, but for the first few.
    fn standing_on(&self, module: &ModuleName, mut but_for: u32) -> Option<ModuleName> {
        let path = Text::<{ limits::PATH_MAX }>::of(format_args!("sys/module/{module}/holders"));
        let folder = files::folder(self.root, path.as_c_str()?).ok()?;
        files::find_entry(&folder, |name| {
            let found = but_for == 0;
            but_for = but_for.saturating_sub(1);
            found.then(|| ModuleName::cut(name.to_bytes()))
        })
        .ok()?
    }
}
