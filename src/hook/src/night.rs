//! The night, to be read aloud.

use core::ffi::CStr;
use core::fmt::{self, Write};
use core::time::Duration;

use crate::say::{error, info, warn};
use nextkernel_plan::{Jump, On, Plan, Record, Trouble, Verb, limits as plan_limits};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::act::How;
use crate::arguments::Watchdog;
use crate::bounds::Bounds;
use crate::diary::Diary;
use crate::failure::{Failure, LOAD, LOAD_SEGMENTS};
use crate::firmware::Request;
use crate::guard::Guard;
use crate::images::{Folder, Images};
use crate::leftovers::{self, Ending};
use crate::load::{CommandLine, jump, unload};
use crate::process::Terminal;
use crate::processes::Relatives;
use crate::protect::protect;
use crate::shutdown::Caller;
use crate::sync::sync;
use crate::teardown::Teardown;
use crate::unbind::{Unbinding, unbind};
use crate::{
    armed, cpus, exitrd, files, firmware, limits, load, mounts, others, pid_1, shutdown, sys, watchdog,
};

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
    caller: Caller,
    left: &Watchdog,
    how: How,
    bounds: &Bounds<'_>,
) -> Result<(), Failure> {
    let Staged { folder, plan, verb } = staged;
    let Bounds { budget, diary, guard, relatives } = *bounds;
    let begun = diary.begun;
    let cmdline = || {
        diary.mark(|marks| &mut marks.load_begun);
        let night = (how == How::ForReal).then(|| diary.tell());
        CommandLine::new(plan.cmdline, &Record { handoff: plan.handoff, verb: Some(*verb), night })
    };

    how.act("restart on a panic, let the log through", protect)?;
    let is_loaded = something_is_loaded();
    let images = if is_loaded && plan.preload.starts_what_is_loaded() && !is_being_staged() {
        how.say(Preloaded { plan });
        Ok(None)
    } else {
        how.look("check that the images are the ones that were staged", || Images::open(folder, plan))
            .map(Some)
    };
    // The init may jump to what is loaded already, and then the GPUs are freed all the same.
    let may_jump = is_loaded && (*verb == Verb::Kexec || !caller.jumps());
    let images = match images {
        Err(failure) if !may_jump => return Err(failure),
        images => images,
    };
    let teardown = Teardown::find(plan)?;
    if caller.leaves_work() {
        how.act("end what still runs, and make read-only what is still writable", || {
            Ending { relatives, guard, budget, storages: false }.carry_out();
            leftovers::make_read_only(begun + budget.remount_until);
            Ok(())
        })?;
    }
    how.act("sync, for as long as it makes progress", || sync(budget.sync, begun + budget.sync_until))?;
    diary.mark(|marks| &mut marks.synced);
    // The verified loader takes its time, and works beside the teardown: its record ends here.
    let beside = match (&images, plan.direct) {
        (Ok(Some(images)), None) => {
            let cmdline = cmdline();
            let load = || load::begin(images, &cmdline, budget.load);
            Some(how.act(Loading { plan, cmdline: &cmdline }, load))
        }
        _ => None,
    };
    // It goes on until the jump, beside all that follows.
    cpus::begin(plan, how);
    let freed = teardown.carry_out(how, bounds);
    diary.mark(|marks| &mut marks.torn_down);
    let loaded = match beside {
        Some(Ok(loading)) => how.act("wait for the load", || loading.map_or(Ok(()), |it| it.finish())),
        Some(Err(failure)) => Err(failure),
        None => Ok(None),
    };
    if let (Err(_), Err(failure)) = (&freed, &images) {
        warn!("{failure}");
    }
    freed?;
    let images = images?;
    loaded?;
    let others =
        how.act("wait for the init's other hooks", || others::wait(relatives, begun + budget.others_until))?;
    if others == Some(false) {
        diary.note(Trouble::HOOK);
    }
    how.act("sync again", || sync(budget.sync_again, begun + budget.sync_again_until))?;
    diary.mark(|marks| &mut marks.others_done);
    how.act("see that no file system is left writable", mounts::nothing_writable)?;
    // The direct one copies memory, and no more: it comes last, so that the next kernel hears of all before.
    if let (Some(images), Some(direct)) = (&images, &plan.direct) {
        let cmdline = cmdline();
        how.act(Loading { plan, cmdline: &cmdline }, || {
            load::directly(plan, direct, images, &cmdline, begun + budget.unbind_until)
        })?;
    }
    if caller == Caller::Systemd {
        how.say(exitrd::what_stays_open());
    }
    if !plan.unbind.is_empty() {
        how.act(Unbinding(plan), || unbind(plan, bounds))?;
    }
    how.act("settle the watchdog", || watchdog::settle(*verb, plan.watchdog, left, budget))?;
    if plan.jump == Some(Jump::Init) && *verb == Verb::Kexec && caller.jumps() {
        how.say("leave the jump to the init, as the plan says");
        return Ok(());
    }
    let jumped = how.act(Jumping { plan }, || jump(guard));
    if jumped.is_err() {
        watchdog::unsettle(*verb, plan.watchdog, left, budget);
    }
    jumped.map(drop)
}

/// Carries the plan out at the verb that was told, if there is one that covers it.
#[must_use]
pub fn carry_out(told: Option<Verb>, watchdog: &Watchdog) -> End {
    // From the first moment: systemd ends a hook when another one died by a signal.
    let _ = sys::block_signals();
    let _ = sys::notice_children();
    let is_pid_1 = shutdown::is_pid_1();
    if is_pid_1 {
        pid_1::begin(told);
    }
    let told = told.or_else(shutdown::verb_of_systemd);
    let caller = match Caller::find(told, is_pid_1) {
        Ok(caller) => caller,
        Err(_) if told.is_none() => {
            info!("no verb that is known: nothing done");
            return End::Done;
        }
        // A container's own shutdown. Nobody meant a next kernel.
        Err(Failure::InContainer) if shutdown::verb_of_systemd() == told => return End::Done,
        Err(refused) => return refuse(&refused),
    };
    if caller == Caller::Systemd && exitrd::goes_on() {
        info!("left to the hook in the exitrd, which runs when the root is gone");
        return End::Done;
    }
    if caller == Caller::Nobody {
        pid_1::clean_up(told);
    }
    let diary = Diary::begin();
    let mut text = [0; plan_limits::PLAN_MAX + 1];
    let decided = decide(told, caller, &mut text);
    let jump = match &decided {
        Ok(Tonight::LeftToTheInit(why)) => return leave(told, caller, why),
        Ok(Tonight::Refused(refused)) => return refuse(refused),
        Ok(Tonight::HandOver(staged)) => staged.plan.guard,
        Err(_) => None,
    };
    let budget = caller.budget();
    let jump = Duration::from_secs(jump.unwrap_or(limits::GUARD).into());
    let relatives = Relatives::of_this_process();
    let guard = if caller.leaves_work() && matches!(decided, Ok(Tonight::HandOver(_))) {
        leftovers::post(relatives, diary.begun, budget.whole, jump, budget.room)
    } else {
        Guard::post(diary.begun, budget.whole, jump)
    };
    let bounds = Bounds { budget, diary: &diary, guard: &guard, relatives };
    // The firmware may hang over this: it is asked under the guard.
    firmware::mount_variables();
    if let Some(request) = firmware::request(plan_of(&decided)) {
        return leave_to_the_firmware(told, request, &bounds);
    }
    let (verb, failure) = match decided {
        Ok(Tonight::LeftToTheInit(why)) => return leave(told, caller, &why),
        Ok(Tonight::Refused(refused)) => return refuse(&refused),
        Ok(Tonight::HandOver(staged)) => {
            armed::use_up(&staged.folder.file);
            (Some(staged.verb), hand_over(&staged, caller, watchdog, How::ForReal, &bounds).err())
        }
        Err(failure) => (told, Some(failure)),
    };
    let Some(failure) = failure else { return End::Done };
    error!("no handoff: {failure}");
    fall_back(verb, caller, &failure, &bounds)
}

fn refuse(refused: &Failure) -> End {
    let _ = writeln!(Terminal::error(), "nextkernel-hook: {refused}");
    warn!("{refused}");
    End::Failed
}

fn leave(told: Option<Verb>, caller: Caller, why: &Why) -> End {
    // Some inits jump at every restart when something is loaded (Void's shutdown.d/90-kexec.sh); what we keep loaded is
    // not meant for this one.
    if caller == Caller::Init && matches!(why, Why::NotCovered(_)) {
        info!("unload what may be loaded: it is not for this restart");
        if let Err(failure) = unload() {
            warn!("it stays loaded: {failure}");
        }
    }
    info!("{}: {why}, left to the init", Told(told));
    End::Done
}

/// Leaves a restart to the firmware. systemd makes a kexec of every restart while something is loaded, and jumps by itself:
/// where that stays loaded, the init must not have its turn.
fn leave_to_the_firmware(told: Option<Verb>, request: Request, bounds: &Bounds<'_>) -> End {
    info!("unload what may be loaded: it is not for this restart");
    let end = if unloads() {
        End::Done
    } else {
        bounds.restart();
        End::NoJump
    };
    info!("{}: {}, left to the init", Told(told), MeantForFirmware(request));
    end
}

/// Unloads, so that nobody jumps; tells whether nobody can.
fn unloads() -> bool {
    let Err(failure) = unload() else { return true };
    error!("it stays loaded: {failure}");
    !something_is_loaded() && !failure.is_busy()
}

/// What follows when there is no handoff. The init jumps to what is loaded by itself, and looks at nothing
/// before; and when it restarts, nobody guards it.
fn fall_back(verb: Option<Verb>, caller: Caller, failure: &Failure, bounds: &Bounds<'_>) -> End {
    let clean = !failure.is_of_sync() && mounts::nothing_writable().is_ok();
    let hangs = failure.is_of_the_kernel();
    let may_jump = clean && !hangs && !failure.wants_firmware() && !is_being_staged();
    // Before anything that takes its time: should the init lose its patience meanwhile, it jumps. Some do at a reboot, too,
    // when something is loaded.
    let may_stay = may_jump || (verb != Some(Verb::Kexec) && caller.jumps());
    let stays = !may_stay && {
        info!("unload what may be loaded, so that nobody jumps now");
        !unloads()
    };
    // Where a file system is still writable, the init may know how to unmount it.
    if hangs || stays || (clean && failure.wants_firmware()) {
        bounds.restart();
    }
    error!("{} is left to the init: {}", Told(verb), what_follows(verb, caller, failure));
    if may_jump { End::Failed } else { End::NoJump }
}

/// Prints what would be carried out.
#[must_use]
pub fn dry_run(verb: Verb) -> End {
    let mut text = [0; plan_limits::PLAN_MAX + 1];
    let mut out = Terminal::output();
    let mut caller = shutdown::who_would_call();
    let decided = decide(Some(verb), caller, &mut text);
    let request = firmware::request(plan_of(&decided));
    let shown = match (decided, request) {
        (Ok(Tonight::LeftToTheInit(why)), _) => {
            let _ = writeln!(out, "at {verb}: {why}, left to the init");
            Ok(())
        }
        (Ok(Tonight::HandOver(_)) | Err(_), Some(request)) => {
            How::DryRun.say("unload what may be loaded: it is not for this restart");
            let _ = writeln!(out, "at {verb}: {}, left to the init", MeantForFirmware(request));
            Ok(())
        }
        (Ok(Tonight::Refused(refused)), _) => Err(refused),
        (Ok(Tonight::HandOver(staged)), None) => {
            let Plan { handoff, entry, .. } = &staged.plan;
            let _ = writeln!(out, "at {verb}: handoff {handoff} to {entry}");
            if caller == Caller::Systemd && exitrd::goes_on() {
                let _ = writeln!(out, "  in the exitrd, when the root is gone:");
                caller = Caller::Exitrd;
            }
            let (budget, guard) = (caller.budget(), Guard::none());
            let relatives = Relatives::of_this_process();
            let diary = Diary::begin();
            let bounds = Bounds { budget, diary: &diary, guard: &guard, relatives };
            hand_over(&staged, caller, &Watchdog::default(), How::DryRun, &bounds)
        }
        (Err(failure), None) => Err(failure),
    };
    let Err(failure) = shown else { return End::Done };
    let _ = writeln!(Terminal::error(), "nextkernel-hook: no handoff: {failure}");
    End::Failed
}

/// Where `nextkernel stage` leaves the plan, and where `nextkernel embed` has it put.
const STAGED: &CStr = c"/run/nextkernel";
const EMBEDDED: &CStr = c"/nextkernel";

/// What is to be done.
#[allow(clippy::large_enum_variant, reason = "there is one of it, and no heap to box it in")]
enum Tonight<'a> {
    LeftToTheInit(Why),
    Refused(Failure),
    HandOver(Staged<'a>),
}

/// What is staged for this verb; none where that cannot be told.
fn plan_of<'d, 'p>(decided: &'d Result<Tonight<'p>, Failure>) -> Option<&'d Plan<'p>> {
    match decided {
        Ok(Tonight::HandOver(staged)) => Some(&staged.plan),
        _ => None,
    }
}

/// Why nothing is to be done.
enum Why {
    NoNextKernel,
    NothingStaged,
    NotCovered(On),
    NotArmed,
}

/// Decides by what the init tells, and what is armed where it cannot tell of another kernel.
fn decide(told: Option<Verb>, caller: Caller, text: &mut [u8]) -> Result<Tonight<'_>, Failure> {
    if told.is_some_and(Verb::stays_down) {
        return Ok(Tonight::LeftToTheInit(Why::NoNextKernel));
    }
    // As PID 1 it may be embedded in the initramfs itself.
    let nothing_is_staged = || !files::exists(c"/run/nextkernel/plan");
    let folder = if caller == Caller::Nobody && nothing_is_staged() { EMBEDDED } else { STAGED };
    let read = match Staged::read(folder, text) {
        // This may be a shell of a running system, and then nothing at all is done.
        Err(failure) if caller == Caller::Untold || (told.is_none() && caller != Caller::Nobody) => {
            warn!("{failure}");
            None
        }
        read => read?,
    };
    let needs_witness = caller == Caller::Untold || told.is_none();
    let armed = match &read {
        Some((folder, plan)) if !caller.tells_kexec() => {
            armed::is_for(&folder.file, plan.handoff, needs_witness)
        }
        _ => false,
    };
    let verb = match told {
        _ if armed => Verb::Kexec,
        Some(verb) if caller == Caller::Untold => return Ok(Tonight::Refused(Failure::NoShutdown(verb))),
        Some(verb) => verb,
        // PID 1 must not end, and restarts.
        None if caller == Caller::Nobody => Verb::Reboot,
        None => return Ok(Tonight::LeftToTheInit(Why::NotArmed)),
    };
    Ok(match read {
        None => Tonight::LeftToTheInit(Why::NothingStaged),
        Some((_, plan)) if !plan.on.covers(verb) => Tonight::LeftToTheInit(Why::NotCovered(plan.on)),
        Some((folder, plan)) => Tonight::HandOver(Staged { folder, plan, verb }),
    })
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NoNextKernel => out.write_str("no next kernel is asked for"),
            Why::NothingStaged => out.write_str("nothing is staged"),
            Why::NotCovered(on) => write!(out, "staged for {on} alone"),
            Why::NotArmed => {
                out.write_str("the init does not tell what is asked for, and `nextkernel reboot` did not ask")
            }
        }
    }
}

/// Why a restart is left to the firmware.
struct MeantForFirmware(Request);

impl fmt::Display for MeantForFirmware {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "this one is meant for the firmware ({})", self.0)
    }
}

/// The verb that was told, if any.
struct Told(Option<Verb>);

impl fmt::Display for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(verb) => verb.fmt(out),
            None => out.write_str("no verb"),
        }
    }
}

/// What is staged, and the verb at which it is to be started.
struct Staged<'a> {
    folder: Folder,
    plan: Plan<'a>,
    verb: Verb,
}

impl<'a> Staged<'a> {
    /// Reads the plan in its folder; `None` where there is none.
    fn read(folder: &'static CStr, text: &'a mut [u8]) -> Result<Option<(Folder, Plan<'a>)>, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, folder, flags, Mode::empty())
            .and_then(|folder| files::open(&folder, c"plan").map(|plan| (folder, plan)));
        let call = |errno| Failure::Call { call: "read the plan", errno };
        let path = folder.to_str().unwrap_or_default();
        let (file, plan) = match opened {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(call(errno)),
        };
        let plan = Plan::parse(files::up_to(&plan, text).map_err(call)?);
        let plan = plan.map_err(|malformed| Failure::Malformed { folder: path, malformed })?;
        Ok(Some((Folder { path, file }, plan)))
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

/// Whether a stage is under way, or was killed: what is loaded may be what that has loaded, and no plan names it.
fn is_being_staged() -> bool {
    files::exists(c"/run/nextkernel/plan.new")
}

/// What follows when the hook returns.
fn what_follows(verb: Option<Verb>, caller: Caller, failure: &Failure) -> &'static str {
    match failure {
        Failure::Hangs { act: LOAD | LOAD_SEGMENTS, lets_go: false, .. } => {
            "it jumps if the load comes to an end after all, else it restarts through firmware"
        }
        _ if verb == Some(Verb::Kexec) && caller.jumps() && something_is_loaded() => {
            "it jumps to the image that stays loaded"
        }
        _ if verb == Some(Verb::Kexec) && caller == Caller::Script && something_is_loaded() => {
            "it jumps where it has kexec, else it restarts the machine through firmware"
        }
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

struct Preloaded<'p> {
    plan: &'p Plan<'p>,
}

impl fmt::Display for Preloaded<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "start what is loaded: {}, or what somebody has loaded since it was staged",
            self.plan.entry
        )
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
