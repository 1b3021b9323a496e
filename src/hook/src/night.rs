//! The night, to be read aloud.

use core::fmt::{self, Write};
use core::time::Duration;

use log::{error, info, warn};
use nextkernel_plan::{On, Plan, Record, Verb, limits as plan_limits};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::act::How;
use crate::arguments::Watchdog;
use crate::bounds::Bounds;
use crate::failure::{Failure, LOAD};
use crate::guard::Guard;
use crate::images::Images;
use crate::load::{CommandLine, jump, unload};
use crate::process::Terminal;
use crate::processes::Relatives;
use crate::protect::protect;
use crate::sync::sync;
use crate::teardown::Teardown;
use crate::unbind::{Unbinding, unbind};
use crate::{files, firmware, limits, load, mounts, others, shutdown, sys, watchdog};

/// How the hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There was nothing to do, or it was done.
    Done,
    /// It was to be done, and could not be.
    Failed,
    /// The same, and nobody may jump now.
    NoJump,
    /// It was called in a way that does not exist.
    Usage,
}

impl End {
    /// The exit status.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            End::Done => 0,
            End::Failed | End::NoJump => 1,
            End::Usage => 2,
        }
    }
}

/// From kernel to kernel. Returns only where that failed or, in a dry run, was not meant.
fn hand_over(
    staged: &Staged<'_>,
    verb: Verb,
    left: &Watchdog,
    how: How,
    bounds: &Bounds<'_>,
) -> Result<(), Failure> {
    let Staged { folder, plan } = staged;
    let Bounds { budget, begun, guard, relatives } = *bounds;
    let record = Record { handoff: plan.handoff, verb };
    let cmdline = CommandLine::new(plan.cmdline, &record);

    how.act("restart on a panic, let the log through", protect)?;
    let images =
        how.look("check that the images are the ones that were staged", || Images::open(folder, plan))?;
    let teardown = Teardown::find(plan)?;
    how.act("sync, for as long as it makes progress", || sync(budget.sync, begun + budget.sync_until))?;
    let loading = how.act(Loading { plan, cmdline: &cmdline }, || load::begin(&images, &cmdline, budget))?;
    let freed = teardown.carry_out(how, bounds);
    let loaded = how.act("wait for the load", || loading.map_or(Ok(()), |loading| loading.finish()));
    freed?;
    loaded?;
    how.act("wait for the init's other hooks", || others::wait(relatives, begun + budget.others_until))?;
    how.act("sync again", || sync(budget.sync_again, begun + budget.sync_again_until))?;
    how.act("see that no file system is left writable", mounts::nothing_writable)?;
    if !plan.unbind.is_empty() {
        how.act(Unbinding(plan), || unbind(plan, bounds))?;
    }
    how.act("settle the watchdog", || watchdog::settle(verb, plan.watchdog, left))?;
    how.act(Jumping { plan }, || jump(guard))?;
    Ok(())
}

/// Carries the plan out at a verb, if there is one that covers it.
#[must_use]
pub fn carry_out(verb: Option<Verb>, watchdog: &Watchdog) -> End {
    // From the first moment: systemd ends a hook when another one died by a signal.
    let _ = sys::block_signals();
    let Some(verb) = verb else {
        info!("no verb that is known: nothing done");
        return End::Done;
    };
    if let Err(refused) = shutdown::under_way(verb) {
        let _ = writeln!(Terminal::error(), "nextkernel-hook: {refused}");
        warn!("{refused}");
        return End::Failed;
    }
    let begun = sys::uptime();
    let mut text = [0; plan_limits::PLAN_MAX + 1];
    let decided = decide(verb, &mut text);
    if let Ok(Tonight::LeftToTheInit(why)) = decided {
        info!("{verb}: {why}, left to the init");
        return End::Done;
    }
    let jump = match &decided {
        Ok(Tonight::HandOver(staged)) => staged.plan.guard,
        _ => None,
    };
    let budget = shutdown::budget();
    let guard = Guard::post(budget.whole, Duration::from_secs(jump.unwrap_or(limits::GUARD).into()));
    let bounds = Bounds { budget, begun, guard: &guard, relatives: Relatives::of_this_process() };
    let failure = match decided.map(|tonight| tonight.unless_firmware_is_wanted(verb)) {
        Ok(Tonight::LeftToTheInit(why)) => {
            info!("{verb}: {why}, left to the init");
            return End::Done;
        }
        Ok(Tonight::HandOver(staged)) => hand_over(&staged, verb, watchdog, How::ForReal, &bounds).err(),
        Err(failure) => Some(failure),
    };
    let Some(failure) = failure else { return End::Done };
    error!("no handoff: {failure}");
    fall_back(verb, &failure, &bounds)
}

/// What follows when there is no handoff. The init jumps to a kept image by itself, and looks at nothing
/// before; and when it restarts, nobody guards it.
fn fall_back(verb: Verb, failure: &Failure, bounds: &Bounds<'_>) -> End {
    let clean = !failure.is_of_sync() && mounts::nothing_writable().is_ok();
    let may_jump = clean && !failure.wants_firmware();
    if failure.is_of_the_kernel() || (clean && failure.wants_firmware()) {
        bounds.restart();
    }
    // Where a file system is still writable, the init may know how to unmount it.
    if !may_jump && verb == Verb::Kexec {
        info!("unload what may be loaded, so that nobody jumps now");
        if let Err(failure) = unload() {
            error!("it stays loaded: {failure}");
            if something_is_loaded() || failure.is_busy() {
                bounds.restart();
            }
        }
    }
    error!("{verb} is left to the init: {}", what_follows(verb, failure));
    if may_jump { End::Failed } else { End::NoJump }
}

/// Prints what would be carried out.
#[must_use]
pub fn dry_run(verb: Verb) -> End {
    let mut text = [0; plan_limits::PLAN_MAX + 1];
    let mut out = Terminal::output();
    let shown = match decide(verb, &mut text).map(|tonight| tonight.unless_firmware_is_wanted(verb)) {
        Ok(Tonight::LeftToTheInit(why)) => {
            let _ = writeln!(out, "at {verb}: {why}, left to the init");
            Ok(())
        }
        Ok(Tonight::HandOver(staged)) => {
            let Plan { handoff, entry, .. } = &staged.plan;
            let _ = writeln!(out, "at {verb}: handoff {handoff} to {entry}");
            let (budget, guard) = (shutdown::budget(), Guard::none());
            let relatives = Relatives::of_this_process();
            let bounds = Bounds { budget, begun: sys::uptime(), guard: &guard, relatives };
            hand_over(&staged, verb, &Watchdog::default(), How::DryRun, &bounds)
        }
        Err(failure) => Err(failure),
    };
    let Err(failure) = shown else { return End::Done };
    let _ = writeln!(Terminal::error(), "nextkernel-hook: no handoff: {failure}");
    End::Failed
}

/// What is to be done at a verb.
#[allow(clippy::large_enum_variant, reason = "there is one of it, and no heap to box it in")]
enum Tonight<'a> {
    LeftToTheInit(Why),
    HandOver(Staged<'a>),
}

impl Tonight<'_> {
    /// Asks the firmware, which may hang: at night under the guard.
    fn unless_firmware_is_wanted(self, verb: Verb) -> Self {
        match self {
            Tonight::HandOver(_) if verb == Verb::Reboot && firmware::is_wanted() => {
                Tonight::LeftToTheInit(Why::MeantForFirmware)
            }
            tonight => tonight,
        }
    }
}

/// Why nothing is to be done.
enum Why {
    NoNextKernel,
    NothingStaged,
    NotCovered(On),
    MeantForFirmware,
}

fn decide(verb: Verb, text: &mut [u8]) -> Result<Tonight<'_>, Failure> {
    if !matches!(verb, Verb::Kexec | Verb::Reboot) {
        return Ok(Tonight::LeftToTheInit(Why::NoNextKernel));
    }
    Ok(match Staged::read(text)? {
        None => Tonight::LeftToTheInit(Why::NothingStaged),
        Some(staged) if !staged.plan.on.covers(verb) => {
            Tonight::LeftToTheInit(Why::NotCovered(staged.plan.on))
        }
        Some(staged) => Tonight::HandOver(staged),
    })
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NoNextKernel => out.write_str("no next kernel is asked for"),
            Why::NothingStaged => out.write_str("nothing is staged"),
            Why::NotCovered(on) => write!(out, "staged for {on} alone"),
            Why::MeantForFirmware => out.write_str("this one is meant for the firmware"),
        }
    }
}

/// What is staged: the plan, and the folder that its names are relative to.
struct Staged<'a> {
    folder: OwnedFd,
    plan: Plan<'a>,
}

impl<'a> Staged<'a> {
    /// Reads the plan; `None` where there is none.
    fn read(text: &'a mut [u8]) -> Result<Option<Staged<'a>>, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, c"/run/nextkernel", flags, Mode::empty())
            .and_then(|folder| files::open(&folder, c"plan").map(|plan| (folder, plan)));
        let call = |errno| Failure::Call { call: "read /run/nextkernel/plan", errno };
        let (folder, file) = match opened {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(call(errno)),
        };
        let plan = Plan::parse(files::up_to(&file, text).map_err(call)?).map_err(Failure::Malformed)?;
        Ok(Some(Staged { folder, plan }))
    }
}

/// Whether an image is loaded, by whomever (Documentation/ABI/testing/sysfs-kernel-kexec-kdump).
#[must_use]
pub fn something_is_loaded() -> bool {
    let mut state = [0; 1];
    files::open(CWD, c"/sys/kernel/kexec/loaded")
        .or_else(|_| files::open(CWD, c"/sys/kernel/kexec_loaded"))
        .and_then(|file| files::up_to(&file, &mut state))
        .is_ok_and(|state| state == b"1")
}

/// What follows when the hook returns.
fn what_follows(verb: Verb, failure: &Failure) -> &'static str {
    match failure {
        Failure::Hangs { act: LOAD, lets_go: false, .. } => {
            "it jumps if the load comes to an end after all, else it restarts through firmware"
        }
        _ if verb == Verb::Kexec && something_is_loaded() => "it jumps to the image that stays loaded",
        _ => "it restarts the machine through firmware",
    }
}

struct Loading<'p> {
    plan: &'p Plan<'p>,
    cmdline: &'p CommandLine,
}

impl fmt::Display for Loading<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { entry, kernel, initrd, .. } = self.plan;
        write!(out, "load {entry}: kernel of {} bytes, ", kernel.size)?;
        match initrd {
            Some(initrd) => write!(out, "initrd of {} bytes, ", initrd.size)?,
            None => out.write_str("no initrd, ")?,
        }
        let line = self.cmdline.as_c_str().and_then(|line| line.to_str().ok()).unwrap_or("too long");
        write!(out, "command line '{line}'")
    }
}

struct Jumping<'p> {
    plan: &'p Plan<'p>,
}

impl fmt::Display for Jumping<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "jump to {}", self.plan.entry)
    }
}
