//! The handoff from kernel to kernel.

use core::fmt::Write;
use core::time::Duration;

use nextkernel_plan::{Jump, Plan, Record, Trouble, Verb, limits as plan_limits};

use crate::acts::images::Images;
use crate::acts::leftovers::{self, Ending, nothing_writable};
use crate::acts::load::{self, CommandLine, Jumping, Loading, Preloaded, jump};
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

/// Carries out the handoff, step by step. Returns only if a step fails, if the plan leaves the jump to the
/// init, or in a dry run.
fn hand_over(
    staged: &Staged<'_>,
    caller: Caller,
    left: &InheritedWatchdog,
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
    // The init may jump to an image that is loaded already. Then the GPUs are freed even if the staged images
    // cannot be opened.
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
    // `kexec_file_load(2)` takes long, so it runs in parallel with the teardown. Its record covers only the
    // steps up to here.
    let beside = match (&images, plan.direct) {
        (Ok(Some(images)), None) => {
            let cmdline = cmdline();
            let load = || load::begin(images, &cmdline, budget.load);
            Some(how.act(Loading { plan, cmdline: &cmdline }, load))
        }
        _ => None,
    };
    // Runs in the background until the jump.
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
    how.act("see that no file system is left writable", nothing_writable)?;
    // `kexec_load(2)` only copies memory. It comes last, so that its record covers all steps before it.
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
            armed::use_up(&staged.folder.file);
            (Some(staged.verb), hand_over(&staged, caller, watchdog, How::ForReal, &bounds).err())
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
            hand_over(&staged, caller, &InheritedWatchdog::default(), How::DryRun, &bounds)
        }
        (Err(failure), None) => Err(failure),
    };
    let Err(failure) = shown else { return End::Done };
    let _ = writeln!(Terminal::error(), "nextkernel-hook: no handoff: {failure}");
    End::Failed
}
