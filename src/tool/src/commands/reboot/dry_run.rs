//! The steps of a reboot, printed instead of done.

use nextkernel_plan::Plan;

use crate::commands::reboot::ask::Ask;
use crate::commands::reboot::conditions::{covers_kexec, uninhibited};
use crate::commands::reboot::error::Error;
use crate::entries::Choice;
use crate::freeing::gpus::{self, Said};
use crate::loading::syscall::Syscall;
use crate::machine::inhibitors;
use crate::machine::init::Init;
use crate::machine::root::Root;
use crate::request::conf::Conf;
use crate::request::stage::StageRequest;
use crate::staging::order;
use crate::staging::ready::First;
use crate::words::say;

/// Prints every step of a reboot. Returns the error at which it would end.
pub(super) fn print_steps(
    root: &Root,
    init: &Init,
    first: &First,
    request: &StageRequest,
    plan: Option<&Plan<'_>>,
) -> Result<(), Error> {
    say::say("check             nothing is bad");
    let (ask, outcome) = match (first, plan) {
        (First::Use(_), Some(plan)) => {
            say::say(format_args!(
                "staged            {} (handoff {}), its images as they were, for the {} loader",
                plan.entry,
                plan.handoff,
                Syscall::of(plan)
            ));
            covers_kexec(plan)?;
            (Ask::of(root, init)?, at_shutdown(root, plan.entry, Said::Plan(plan)))
        }
        (First::Use(_), None) => return Err(Error::Gone),
        (First::Stage(why), _) => {
            let conf = Conf::read(root).map_err(order::Error::Conf)?;
            let Choice { entry, notes, .. } = order::choose(root, request, &conf)?;
            say::say(format_args!("stage             {}: {why}", entry.id));
            for note in notes {
                say::say(format_args!("                  {note}"));
            }
            (Ask::after_staging(root, init, &conf)?, at_shutdown(root, &entry.id, Said::Conf(&conf)))
        }
    };
    let asked = uninhibited(inhibitors::find())?;
    say::say(format_args!(
        "inhibitors        {}",
        asked.unwrap_or_else(|| "nobody blocks a shutdown".to_owned())
    ));
    if *init != Init::Systemd {
        say::say("arms              the handoff, for what comes next is a restart to this init");
    }
    say::say(format_args!("then              {ask}"));
    say::say(format_args!("at night          {outcome}"));
    Ok(())
}

/// Returns the hook's act at the end of shutdown. A GPU may forbid the jump.
pub(super) fn at_shutdown(root: &Root, entry: &str, said: Said<'_>) -> String {
    match gpus::forbids_the_jump(&gpus::find(root, said)) {
        Some(gpu) => format!("the hook restarts through firmware, because of {}", gpu.module),
        None => format!("the hook starts {entry}"),
    }
}
