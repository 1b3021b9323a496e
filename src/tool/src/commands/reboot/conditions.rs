//! The conditions for a reboot.

use nextkernel_plan::{HandoffId, Plan, Verb};

use crate::commands::reboot::error::Error;
use crate::machine::inhibitors::Inhibitor;
use crate::staging::directory;

/// Returns the plan, if it is the one that was checked.
pub(super) fn that_was_checked(text: &[u8], handoff: HandoffId) -> Result<Plan<'_>, Error> {
    let plan = Plan::parse(text).map_err(directory::Error::Malformed)?;
    if plan.handoff == handoff { Ok(plan) } else { Err(Error::Replaced(plan.entry.to_owned())) }
}

/// Checks that the plan covers kexec. With a plan for `reboot` alone no image stays loaded, and `systemctl kexec`
/// would end in the firmware.
pub(super) fn covers_kexec(plan: &Plan<'_>) -> Result<(), Error> {
    if plan.on.covers(Verb::Kexec) { Ok(()) } else { Err(Error::NotForKexec(plan.entry.to_owned())) }
}

/// Checks that no program blocks a shutdown. Returns a note if logind could not be asked: without logind there are
/// no inhibitors (`logind_check_inhibitors`, src/systemctl/systemctl-logind.c).
pub(super) fn uninhibited(asked: Result<Vec<Inhibitor>, String>) -> Result<Option<String>, Error> {
    match asked {
        Ok(inhibitors) if inhibitors.is_empty() => Ok(None),
        Ok(inhibitors) => Err(Error::Inhibited(inhibitors)),
        Err(why) => {
            Ok(Some(format!("logind cannot be asked who blocks a shutdown, and nobody is taken to: {why}")))
        }
    }
}
