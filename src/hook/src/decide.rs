//! Decides whether this shutdown is a handoff, at which verb, and by which plan.

use core::ffi::CStr;
use core::fmt;

use nextkernel_plan::{On, Plan, Verb};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::acts::images::PlanDirectory;
use crate::bounds::failure::Failure;
use crate::caller::Caller;
use crate::scene::armed;
use crate::sys::files;
use crate::sys::say::warn;

/// The directory in which `nextkernel stage` leaves the plan.
const STAGED: &CStr = c"/run/nextkernel";
/// The directory in an initramfs that carries a plan by `nextkernel embed`.
const EMBEDDED: &CStr = c"/nextkernel";

/// The result of the decision.
#[allow(clippy::large_enum_variant, reason = "there is one of it, and no heap to box it in")]
pub enum Decision<'a> {
    /// There is no handoff; the init goes on.
    LeftToTheInit(WhyLeft),
    /// There is no handoff, because the caller may not ask for one.
    Refused(Failure),
    /// The staged kernel is to be started.
    HandOver(Staged<'a>),
}

/// The reason why there is no handoff.
pub enum WhyLeft {
    /// The verb is poweroff, halt or exit.
    NoNextKernel,
    /// There is no plan.
    NothingStaged,
    /// The plan covers only these verbs.
    NotCovered(On),
    /// The init passes no verb, and `nextkernel reboot` has armed no handoff.
    NotArmed,
}

/// Decides by the verb that the init passes (`told`), and by the handoff that `nextkernel reboot` has armed
/// for an init that cannot ask for kexec. Reads the plan into `text`.
pub fn decide(told: Option<Verb>, caller: Caller, text: &mut [u8]) -> Result<Decision<'_>, Failure> {
    if told.is_some_and(Verb::stays_down) {
        return Ok(Decision::LeftToTheInit(WhyLeft::NoNextKernel));
    }
    // As PID 1 the hook may have its plan embedded in the initramfs itself.
    let nothing_is_staged = || !files::exists(c"/run/nextkernel/plan");
    let directory = if caller == Caller::Nobody && nothing_is_staged() { EMBEDDED } else { STAGED };
    let read = match Staged::read(directory, text) {
        // The caller may be a shell of a running system. There an unreadable plan must lead to no fallback.
        Err(failure) if caller == Caller::Untold || (told.is_none() && caller != Caller::Nobody) => {
            warn!("{failure}");
            None
        }
        read => read?,
    };
    let needs_witness = caller == Caller::Untold || told.is_none();
    let armed = match &read {
        Some((directory, plan)) if !caller.tells_kexec() => {
            armed::is_for(&directory.file, plan.handoff, needs_witness)
        }
        _ => false,
    };
    let verb = match told {
        _ if armed => Some(Verb::Kexec),
        // PID 1 must not end: without a verb it reboots.
        None if caller == Caller::Nobody => Some(Verb::Reboot),
        told => told,
    };
    Ok(match (verb, read) {
        (None, _) => Decision::LeftToTheInit(WhyLeft::NotArmed),
        (Some(verb), _) if caller == Caller::Untold && !armed => Decision::Refused(Failure::NoShutdown(verb)),
        (Some(_), None) => Decision::LeftToTheInit(WhyLeft::NothingStaged),
        (Some(verb), Some((_, plan))) if !plan.on.covers(verb) => {
            Decision::LeftToTheInit(WhyLeft::NotCovered(plan.on))
        }
        (Some(verb), Some((directory, plan))) => Decision::HandOver(Staged { directory, plan, verb }),
    })
}

impl fmt::Display for WhyLeft {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyLeft::NoNextKernel => out.write_str("no next kernel is asked for"),
            WhyLeft::NothingStaged => out.write_str("nothing is staged"),
            WhyLeft::NotCovered(on) => write!(out, "staged for {on} alone"),
            WhyLeft::NotArmed => {
                out.write_str("the init does not tell what is asked for, and `nextkernel reboot` did not ask")
            }
        }
    }
}

/// A staged plan, and the verb at which it is carried out.
pub struct Staged<'a> {
    /// The directory of the plan and the images.
    pub directory: PlanDirectory,
    /// The plan, as parsed.
    pub plan: Plan<'a>,
    /// The verb: kexec or reboot.
    pub verb: Verb,
}

impl<'a> Staged<'a> {
    /// Reads the plan in `directory`. Returns `None` if there is none.
    fn read(
        directory: &'static CStr,
        text: &'a mut [u8],
    ) -> Result<Option<(PlanDirectory, Plan<'a>)>, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, directory, flags, Mode::empty())
            .and_then(|directory| files::open(&directory, c"plan").map(|plan| (directory, plan)));
        let call = |errno| Failure::Call { call: "read the plan", errno };
        let path = directory.to_str().unwrap_or_default();
        let (file, plan) = match opened {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(call(errno)),
        };
        let plan = Plan::parse(files::up_to(&plan, text).map_err(call)?);
        let plan = plan.map_err(|malformed| Failure::Malformed { directory: path, malformed })?;
        Ok(Some((PlanDirectory { path, file }, plan)))
    }
}
