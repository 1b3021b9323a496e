//! The ways in which the hook ends: it returns to the init, restarts the machine, or, as PID 1, carries out
//! the verb itself.

use core::fmt::{self, Write};
use core::time::Duration;

use nextkernel_plan::Verb;
use rustix::system::{RebootCommand, reboot};

use crate::acts::leftovers::nothing_writable;
use crate::bounds::failure::{Class, Failure};
use crate::bounds::guard::Guard;
use crate::bounds::kexec::unload;
use crate::bounds::sync::sync;
use crate::bounds::{Bounds, restart};
use crate::caller::{Caller, in_container, is_pid_1};
use crate::decide::WhyLeft;
use crate::scene::firmware::FirmwareRequest;
use crate::scene::loaded::{is_being_staged, something_is_loaded};
use crate::sys::arguments::Request;
use crate::sys::say::{error, info, warn};
use crate::sys::terminal::Terminal;
use crate::sys::{calls, clock, limits};

/// The result of a run of the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing was to be done, or everything was done.
    Done,
    /// The request failed, or was refused.
    Failed,
    /// There is no handoff, and a jump to a loaded image is not allowed now.
    NoJump,
    /// The arguments were wrong.
    Usage,
}

impl End {
    /// Returns the exit status.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            End::Done => 0,
            End::Failed | End::NoJump => 1,
            End::Usage => 2,
        }
    }
}

/// Reports on stderr and in the log why nothing is done for this caller.
#[must_use]
pub fn refuse(refused: &Failure) -> End {
    let _ = writeln!(Terminal::error(), "nextkernel-hook: {refused}");
    warn!("{refused}");
    End::Failed
}

/// Leaves the shutdown to the init, which goes on as if there were no hook.
#[must_use]
pub fn leave(told: Option<Verb>, caller: Caller, why: &WhyLeft) -> End {
    // Some inits jump at every restart if an image is loaded (Void's shutdown.d/90-kexec.sh). A preloaded
    // image is not meant for this restart.
    if caller == Caller::Init && matches!(why, WhyLeft::NotCovered(_)) {
        info!("unload what may be loaded: it is not for this restart");
        if let Err(failure) = unload() {
            warn!("it stays loaded: {failure}");
        }
    }
    info!("{}: {why}, left to the init", Told(told));
    End::Done
}

/// Leaves a restart to the firmware. systemd turns every restart into a kexec while an image is loaded, and
/// jumps by itself. So this unloads the image. If that fails, it restarts the machine here instead of
/// returning to the init.
#[must_use]
pub fn leave_to_the_firmware(told: Option<Verb>, request: FirmwareRequest, bounds: &Bounds<'_>) -> End {
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

/// Unloads the loaded image. Returns whether a jump is impossible now.
fn unloads() -> bool {
    let Err(failure) = unload() else { return true };
    error!("it stays loaded: {failure}");
    !something_is_loaded() && failure.class() != Class::Busy
}

/// Ends a shutdown whose handoff has failed. The init may jump to a loaded image by itself, without any
/// check, and no guard watches the init's own restart. So this unloads the image if a jump is not safe. It
/// restarts the machine here if unloading fails, if something hangs, or if the plan wants a full reboot and no
/// file system is left writable.
#[must_use]
pub fn fall_back(verb: Option<Verb>, caller: Caller, failure: &Failure, bounds: &Bounds<'_>) -> End {
    let class = failure.class();
    let clean = is_clean(!matches!(class, Class::NotWritten | Class::SyncHangs));
    let hangs = matches!(class, Class::SyncHangs | Class::Hangs);
    let wants_firmware = class == Class::MeantForFirmware;
    let may_jump = clean && !hangs && !wants_firmware && !is_being_staged();
    // Unload before anything that takes long: if the init's patience ends meanwhile, the init jumps. Some
    // inits jump at a reboot, too, if an image is loaded.
    let may_stay = may_jump || (verb != Some(Verb::Kexec) && caller.jumps());
    let stays = !may_stay && {
        info!("unload what may be loaded, so that nobody jumps now");
        !unloads()
    };
    // If a file system is still writable, the init may know how to unmount it.
    if hangs || stays || (clean && wants_firmware) {
        bounds.restart();
    }
    error!("{} is left to the init: {}", Told(verb), what_follows(verb, caller, class));
    if may_jump { End::Failed } else { End::NoJump }
}

/// Describes, for the log, how the shutdown continues when the hook returns.
fn what_follows(verb: Option<Verb>, caller: Caller, class: Class) -> &'static str {
    match class {
        Class::LoadHangs => {
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

/// Whether a jump loses no data: everything is written, and no file system is left writable.
fn is_clean(written: bool) -> bool {
    written && nothing_writable().is_ok()
}

/// Ends the process. As PID 1 of the machine, which must not end, carries out the verb instead.
pub fn finish(end: End, request: Request) -> ! {
    if !is_pid_1() || in_container() {
        calls::exit(end.status());
    }
    let verb = match request {
        Request::CarryOut(Some(verb)) => verb,
        _ => Verb::Reboot,
    };
    let budget = &limits::SYSTEMD;
    // The guard resets the machine if a driver hangs during a restart. A machine that is to stay down must
    // not be reset.
    let begun = clock::uptime();
    let guard = if verb.stays_down() {
        Guard::none()
    } else {
        Guard::post(begun, budget.sync_until, Duration::from_secs(limits::GUARD.into()))
    };
    let written = sync(budget.sync, begun + budget.sync_until).is_ok();
    guard.jumping();
    let may_jump = end != End::NoJump && is_clean(written);
    if may_jump && verb == Verb::Kexec && something_is_loaded() {
        info!("as PID 1: jump to what is loaded");
        let _ = reboot(RebootCommand::Kexec);
    }
    let (stays_down, word) = match verb {
        // `exit` on a machine powers it off, as in systemd (src/shutdown/shutdown.c).
        Verb::Poweroff | Verb::Exit => (Some(RebootCommand::PowerOff), "power off"),
        Verb::Halt => (Some(RebootCommand::Halt), "halt"),
        Verb::Kexec | Verb::Reboot => (None, "restart through firmware"),
    };
    info!("as PID 1: {word}");
    let _ = match stays_down {
        Some(command) => reboot(command),
        None => Err(restart::through_firmware()),
    };
    // The kernel refuses this only without CAP_SYS_BOOT, and so in a container that was not recognised as
    // one.
    error!("the kernel refused to {word}");
    calls::exit(end.status())
}

/// The reason why a restart is left to the firmware.
pub struct MeantForFirmware(pub FirmwareRequest);

impl fmt::Display for MeantForFirmware {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "this one is meant for the firmware ({})", self.0)
    }
}

/// The verb for the log, if there is one.
struct Told(Option<Verb>);

impl fmt::Display for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(verb) => verb.fmt(out),
            None => out.write_str("no verb"),
        }
    }
}
