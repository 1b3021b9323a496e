//! The reboot command: checks, stages if nothing is staged, respects programs that block a shutdown, and asks
//! the init. systemd is asked for kexec. Any other init is asked for a reboot, with a file that tells the hook
//! that a handoff is meant.

mod ask;
mod conditions;
mod dry_run;
mod error;
mod full;

#[cfg(test)]
mod tests;

use clap::Args;
use nextkernel_plan::Plan;

use crate::check;
use crate::machine::armed;
use crate::machine::elsewhere::see_that_this_is_the_system;
use crate::machine::inhibitors;
use crate::machine::init::Init;
use crate::machine::root::Root;
use crate::machine::superuser::see_that_this_is_root;
use crate::report::known;
use crate::report::words::Date;
use crate::request::stage::StageRequest;
use crate::staging::directory::{self, Directory};
use crate::staging::ready::First;
use crate::status::stage::stage_and_print;
use crate::words::say;
use ask::{Ask, send_armed};
use conditions::{covers_kexec, that_was_checked, uninhibited};
use dry_run::print_steps;
pub use error::Error;
use full::full_reboot;

/// Start the staged kernel now, in place of a reboot
///
/// It refuses while `nextkernel check` finds something bad, what is staged has changed, or somebody blocks a
/// shutdown (`systemd-inhibit --list`); there is no way to force it. Where nothing is staged, or ENTRY is given,
/// it stages first, as `nextkernel stage [ENTRY]` does. Then it asks the init: all services end, all file systems
/// are unmounted, and the hook starts the kernel. An init other than systemd is asked for a restart, by its own
/// command, and /run/nextkernel/armed tells the hook that the staged kernel is meant; that is taken back when the
/// machine does not go down.
#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// Stage this first: a boot entry, or the version of an installed kernel
    entry: Option<String>,
    /// Restart through the firmware this once, whatever is staged; what is configured stays
    #[arg(long, conflicts_with = "entry")]
    full: bool,
    /// Tell every step, and do none; the exit status is what the first refusal would make it
    #[arg(long)]
    dry_run: bool,
}

/// Reboots into the staged kernel, or prints the steps.
pub fn run(root: &Root, arguments: &Arguments) -> Result<(), Error> {
    see_that_this_is_root(directory::DIRECTORY)?;
    see_that_this_is_the_system(root)?;
    let init = Init::find(root);
    Ask::of(root, &init)?;
    if arguments.full {
        return full_reboot(root, &init, arguments.dry_run);
    }
    // Staging another kernel would disarm the handoff of the `nextkernel reboot` that waits.
    if armed::is_held(root) {
        return Err(armed::Error::Held.into());
    }
    let text = Directory::plan_text(root)?;
    let plan = text.as_deref().map(Plan::parse);
    let first = First::of(
        root,
        arguments.entry.is_some(),
        plan.as_ref().map(|plan| plan.as_ref().map_err(|why| *why)),
    )?;
    let bad = match first {
        First::Use(_) => check::bad(root),
        First::Stage(_) => check::bad_of_the_machine(root),
    };
    if !bad.is_empty() {
        return Err(Error::Bad(bad));
    }
    if let Some(failed) = known::failed(root).unwrap_or_default().first() {
        say::note(format_args!(
            "warning: the last handoff failed, and the firmware started this kernel on {} UTC (`nextkernel report` tells more)",
            Date(failed.started_at)
        ));
    }
    let request = StageRequest::of_entry(arguments.entry.clone());
    if arguments.dry_run {
        return print_steps(root, &init, &first, &request, plan.and_then(Result::ok).as_ref());
    }
    // Before staging, which would be in vain.
    if let Some(note) = uninhibited(inhibitors::find())?.filter(|_| init == Init::Systemd) {
        say::note(note);
    }
    let (handoff, bad) = match first {
        First::Use(handoff) => (handoff, Vec::new()),
        First::Stage(_) => (stage_and_print(root, &request)?, check::bad(root)),
    };
    // Once more, because staging takes a while.
    uninhibited(inhibitors::find())?;
    let text = Directory::plan_text(root)?.ok_or(Error::Gone)?;
    let plan = that_was_checked(&text, handoff)?;
    if !bad.is_empty() {
        return Err(Error::StagedAndBad { entry: plan.entry.to_owned(), bad });
    }
    covers_kexec(&plan)?;
    say::say(format_args!("{} starts in place of this kernel: the machine goes down now", plan.entry));
    let ask = Ask::of(root, &init)?;
    if init == Init::Systemd { ask.send() } else { send_armed(root, handoff, &ask) }
}
