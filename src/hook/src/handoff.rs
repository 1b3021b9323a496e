//! The handoff from kernel to kernel.

use core::fmt::Write;
use core::time::Duration;

use nextkernel_plan::{Jump, Plan, Record, Trouble, Verb, limits as plan_limits};

use crate::acts::images::{Images, PlanDirectory};
use crate::acts::leftovers::{self, Ending, nothing_writable};
use crate::acts::load::{self, CommandLine, Jumping, Load, Loading, Preloaded, jump};
use crate::acts::protect::protect;
use crate::acts::teardown::Teardown;
use crate::acts::unbind::{Unbinding, unbind};
use crate::acts::{cpus, pid_1, watchdog};
use crate::bounds::act::How;
use crate::bounds::diary::Diary;
use crate::bounds::failure::Failure;
use crate::bounds::guard::Guard;
use crate::bounds::sync::sync;
use crate::bounds::{Bounds, others};
use crate::caller::{self, Caller};
use crate::decide::{Decision, Staged, decide};
use crate::end::{self, End, MeantForFirmware};
use crate::scene::loaded::{is_being_staged, something_is_loaded};
use crate::scene::processes::Relatives;
use crate::scene::{armed, exitrd, firmware};
use crate::sys::arguments::InheritedWatchdog;
use crate::sys::say::{error, info, warn};
use crate::sys::terminal::Terminal;
use crate::sys::{calls, limits};

/// A handoff that is carried out, or whose steps are printed.
struct Handoff<'a> {
    plan: &'a Plan<'a>,
    directory: &'a PlanDirectory,
    verb: Verb,
    caller: Caller,
    /// The watchdog that systemd has left to the hook.
    watchdog: &'a InheritedWatchdog,
    how: How,
    bounds: &'a Bounds<'a>,
}

impl<'a> Handoff<'a> {
    /// Returns the handoff by a staged plan.
    fn by(
        staged: &'a Staged<'a>,
        caller: Caller,
        watchdog: &'a InheritedWatchdog,
        how: How,
        bounds: &'a Bounds<'a>,
    ) -> Handoff<'a> {
        let Staged { directory, plan, verb } = staged;
        Handoff { plan, directory, verb: *verb, caller, watchdog, how, bounds }
    }

    /// Carries out the steps. Returns only if a step fails, if the plan leaves the jump to the init, or in a dry
    /// run.
    fn carry_out(&self) -> Result<(), Failure> {
        let (plan, how, diary) = (self.plan, self.how, self.bounds.diary);
        how.act("restart on a panic, let the log through", protect)?;
        let images = self.open_images()?;
        let teardown = Teardown::find(plan)?;
        self.end_what_runs()?;
        self.sync()?;
        // `kexec_file_load(2)` takes long, so it runs in parallel with the teardown. Its record covers only the
        // steps up to here.
        let load = self.begin_load(&images);
        // Runs in the background until the jump.
        cpus::begin(plan, how);
        let freed = teardown.carry_out(how, self.bounds);
        diary.mark(|marks| &mut marks.torn_down);
        let loaded = self.finish_load(load);
        if let (Err(_), Err(failure)) = (&freed, &images) {
            warn!("{failure}");
        }
        freed?;
        let images = images?;
        loaded?;
        self.wait_for_others()?;
        self.sync_again()?;
        how.act("see that no file system is left writable", nothing_writable)?;
        // `kexec_load(2)` only copies memory. It comes last, so that its record covers all steps before it.
        self.load_segments(images.as_ref())?;
        self.settle_devices()?;
        self.jump()
    }

    /// Opens the staged images; `None` if an image is loaded that starts as it is. The init may jump to a loaded
    /// image. Then a failure to open the staged ones is returned as the inner result, because the GPUs are to be
    /// freed all the same.
    fn open_images(&self) -> Result<Result<Option<Images>, Failure>, Failure> {
        let (plan, is_loaded) = (self.plan, something_is_loaded());
        if is_loaded && plan.preload.starts_what_is_loaded() && !is_being_staged() {
            self.how.say(Preloaded { plan });
            return Ok(Ok(None));
        }
        let open = || Images::open(self.directory, plan);
        let images = self.how.look("check that the images are the ones that were staged", open).map(Some);
        let may_jump = is_loaded && (self.verb == Verb::Kexec || !self.caller.jumps());
        if may_jump { Ok(images) } else { images.map(Ok) }
    }

    /// Ends the processes that the init has left, and makes the file systems read-only that it has left writable.
    fn end_what_runs(&self) -> Result<(), Failure> {
        let Bounds { budget, diary, guard, relatives } = *self.bounds;
        if !self.caller.leaves_work() {
            return Ok(());
        }
        let act = || {
            Ending { relatives, guard, budget, storages: false }.carry_out();
            leftovers::make_read_only(diary.begun + budget.remount_until);
            Ok(())
        };
        self.how.act("end what still runs, and make read-only what is still writable", act).map(drop)
    }

    fn sync(&self) -> Result<(), Failure> {
        let Bounds { budget, diary, .. } = *self.bounds;
        let act = || sync(budget.sync, diary.begun + budget.sync_until);
        self.how.act("sync, for as long as it makes progress", act)?;
        diary.mark(|marks| &mut marks.synced);
        Ok(())
    }

    fn sync_again(&self) -> Result<(), Failure> {
        let Bounds { budget, diary, .. } = *self.bounds;
        self.how.act("sync again", || sync(budget.sync_again, diary.begun + budget.sync_again_until))?;
        diary.mark(|marks| &mut marks.others_done);
        Ok(())
    }

    /// Begins the load by `kexec_file_load(2)`, if the plan is for that call.
    fn begin_load(&self, images: &Result<Option<Images>, Failure>) -> Option<Result<Option<Load>, Failure>> {
        let (Ok(Some(images)), None) = (images, self.plan.direct) else { return None };
        let cmdline = self.command_line();
        let begin = || load::begin(images, &cmdline, self.bounds.budget.load);
        Some(self.how.act(Loading { plan: self.plan, cmdline: &cmdline }, begin))
    }

    /// Waits for the load that was begun.
    fn finish_load(&self, load: Option<Result<Option<Load>, Failure>>) -> Result<(), Failure> {
        let Some(load) = load else { return Ok(()) };
        let load = load?;
        self.how.act("wait for the load", || load.map_or(Ok(()), |load| load.finish())).map(drop)
    }

    /// Loads by `kexec_load(2)`, if the plan is for that call.
    fn load_segments(&self, images: Option<&Images>) -> Result<(), Failure> {
        let (Some(images), Some(direct)) = (images, &self.plan.direct) else { return Ok(()) };
        let (plan, cmdline) = (self.plan, self.command_line());
        let until = self.bounds.diary.begun + self.bounds.budget.unbind_until;
        let load = || load::directly(plan, direct, images, &cmdline, until);
        self.how.act(Loading { plan, cmdline: &cmdline }, load).map(drop)
    }

    /// Returns the next kernel's command line, with the record of this handoff so far.
    fn command_line(&self) -> CommandLine {
        let diary = self.bounds.diary;
        diary.mark(|marks| &mut marks.load_begun);
        let course = (self.how == How::ForReal).then(|| diary.tell());
        let record = Record { handoff: self.plan.handoff, verb: Some(self.verb), course };
        CommandLine::new(self.plan.cmdline, &record)
    }

    fn wait_for_others(&self) -> Result<(), Failure> {
        let Bounds { budget, diary, relatives, .. } = *self.bounds;
        let wait = || others::wait(relatives, diary.begun + budget.others_until);
        if self.how.act("wait for the init's other hooks", wait)? == Some(false) {
            diary.note(Trouble::HOOK);
        }
        Ok(())
    }

    /// Unbinds the other devices of the plan, and settles the watchdog.
    fn settle_devices(&self) -> Result<(), Failure> {
        let (plan, how) = (self.plan, self.how);
        if self.caller == Caller::Systemd {
            how.say(exitrd::what_stays_open());
        }
        if !plan.unbind.is_empty() {
            how.act(Unbinding(plan), || unbind(plan, self.bounds))?;
        }
        let settle = || watchdog::settle(self.verb, plan.watchdog, self.watchdog, self.bounds.budget);
        how.act("settle the watchdog", settle).map(drop)
    }

    /// Starts the loaded kernel, unless the plan leaves that to the init.
    fn jump(&self) -> Result<(), Failure> {
        let (plan, verb) = (self.plan, self.verb);
        if plan.jump == Some(Jump::Init) && verb == Verb::Kexec && self.caller.jumps() {
            self.how.say("leave the jump to the init, as the plan says");
            return Ok(());
        }
        let jumped = self.how.act(Jumping { plan }, || jump(self.bounds.guard));
        if jumped.is_err() {
            watchdog::unsettle(verb, plan.watchdog, self.watchdog, self.bounds.budget);
        }
        jumped.map(drop)
    }
}

/// Carries out the staged plan, if it covers the verb of this shutdown. `told` is the verb in the hook's own
/// arguments.
#[must_use]
pub fn carry_out(told: Option<Verb>, watchdog: &InheritedWatchdog) -> End {
    // Block signals first: systemd ends a hook when another one has died by a signal.
    let _ = calls::block_signals();
    let _ = calls::notice_children();
    let is_pid_1 = caller::is_pid_1();
    if is_pid_1 {
        pid_1::begin(told);
    }
    let told = told.or_else(caller::verb_of_systemd);
    let caller = match Caller::find(told, is_pid_1) {
        Ok(caller) => caller,
        Err(_) if told.is_none() => {
            info!("no verb that is known: nothing done");
            return End::Done;
        }
        // The container itself shuts down. No next kernel was meant.
        Err(Failure::InContainer) if caller::verb_of_systemd() == told => return End::Done,
        Err(refused) => return end::refuse(&refused),
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
    let staged = match decide(told, caller, &mut text) {
        Ok(Decision::LeftToTheInit(why)) => return end::leave(told, caller, &why),
        Ok(Decision::Refused(refused)) => return end::refuse(&refused),
        Ok(Decision::HandOver(staged)) => Ok(staged),
        Err(failure) => Err(failure),
    };
    let plan = staged.as_ref().ok().map(|staged| &staged.plan);
    let budget = caller.budget();
    let jump = plan.and_then(|plan| plan.guard).unwrap_or(limits::GUARD);
    let jump = Duration::from_secs(jump.into());
    let relatives = Relatives::of_this_process();
    let guard = if caller.leaves_work() && plan.is_some() {
        leftovers::post(relatives, diary.begun, budget.whole, jump, budget.room)
    } else {
        Guard::post(diary.begun, budget.whole, jump)
    };
    let bounds = Bounds { budget, diary: &diary, guard: &guard, relatives };
    // Under the guard, because a call into the firmware may hang.
    firmware::mount_variables();
    if let Some(request) = firmware::request(plan) {
        return end::leave_to_the_firmware(told, request, &bounds);
    }
    let (verb, failure) = match staged {
        Ok(staged) => {
            armed::use_up(&staged.directory.file);
            (
                Some(staged.verb),
                Handoff::by(&staged, caller, watchdog, How::ForReal, &bounds).carry_out().err(),
            )
        }
        Err(failure) => (told, Some(failure)),
    };
    let Some(failure) = failure else { return End::Done };
    error!("no handoff: {failure}");
    end::fall_back(verb, caller, &failure, &bounds)
}

/// Prints the steps that the hook would carry out at `verb`.
#[must_use]
pub fn dry_run(verb: Verb) -> End {
    let mut text = [0; plan_limits::PLAN_MAX + 1];
    let mut out = Terminal::output();
    let mut caller = caller::who_would_call();
    let decided = decide(Some(verb), caller, &mut text);
    let plan = match &decided {
        Ok(Decision::HandOver(staged)) => Some(&staged.plan),
        _ => None,
    };
    let request = firmware::request(plan);
    let shown = match (decided, request) {
        (Ok(Decision::LeftToTheInit(why)), _) => {
            let _ = writeln!(out, "at {verb}: {why}, left to the init");
            Ok(())
        }
        (Ok(Decision::HandOver(_)) | Err(_), Some(request)) => {
            How::DryRun.say("unload what may be loaded: it is not for this restart");
            let _ = writeln!(out, "at {verb}: {}, left to the init", MeantForFirmware(request));
            Ok(())
        }
        (Ok(Decision::Refused(refused)), _) => Err(refused),
        (Ok(Decision::HandOver(staged)), None) => {
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
            let watchdog = InheritedWatchdog::default();
            Handoff::by(&staged, caller, &watchdog, How::DryRun, &bounds).carry_out()
        }
        (Err(failure), None) => Err(failure),
    };
    let Err(failure) = shown else { return End::Done };
    let _ = writeln!(Terminal::error(), "nextkernel-hook: no handoff: {failure}");
    End::Failed
}
