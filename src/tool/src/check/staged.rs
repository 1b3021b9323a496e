//! The staged plan: whether it can be used, and has the settings of the configuration.

use std::os::unix::fs::MetadataExt;

use nextkernel_plan::{Malformed, Plan, Preload};

use crate::check::finding::{Findings, Verdict};
use crate::machine::late_loads;
use crate::machine::root::Root;
use crate::request::conf;
use crate::staging::directory::{self, Directory};

/// Reports whether the plan can be used, and whether the configuration was changed after staging. Returns the plan.
pub(super) fn plan<'a>(
    root: &Root,
    plan: Result<Option<Result<Plan<'a>, Malformed>>, &directory::Error>,
    findings: &mut Findings,
) -> Option<Plan<'a>> {
    match plan {
        Ok(None) => {
            findings.say(Verdict::Info, "staged", "nothing is staged: `nextkernel stage` does that");
            None
        }
        Err(error) => {
            findings.say(Verdict::Info, "staged", format!("what is staged is not looked at: {error}"));
            None
        }
        Ok(Some(Ok(plan))) => {
            // The ctime, which changes even if a file is moved into place.
            let late = if plan.preload.starts_what_is_loaded() { late_loads::find(root) } else { None };
            let changed =
                root.path(conf::PATH).metadata().ok().and_then(|found| u64::try_from(found.ctime()).ok());
            if plan.preload == Preload::Only && !root.kexec_loaded() {
                let gone = format!(
                    "{} is staged, somebody has unloaded its image, and `preload = only` keeps no copies: stage again",
                    plan.entry
                );
                findings.say(Verdict::Bad, "staged", gone);
            } else if let Some(unit) = late {
                let replaced = format!(
                    "{unit} was enabled since, and loads another kernel while the system goes down: stage again, so that \
                     the hook loads {}, or disable it",
                    plan.entry
                );
                findings.say(Verdict::Bad, "staged", replaced);
            } else if Directory::is_half_staged(root) {
                let stray = format!(
                    "{} is staged, a `nextkernel stage` was killed half way, and what is loaded may be its image: stage \
                     again, or `nextkernel unstage`",
                    plan.entry
                );
                findings.say(Verdict::Warn, "staged", stray);
            } else if changed.is_some_and(|changed| changed > plan.staged_at) {
                let stale = format!(
                    "{} was changed since: stage again, for the plan holds what it said then",
                    conf::PATH
                );
                findings.say(Verdict::Warn, "staged", stale);
            } else if plan.preload.stays_loaded() && !root.kexec_loaded() {
                let gone = format!(
                    "{} is staged, and somebody has unloaded its image: `systemctl kexec` refuses; stage again, or \
                     give `nextkernel reboot`",
                    plan.entry
                );
                findings.say(Verdict::Warn, "staged", gone);
            } else {
                findings.say(Verdict::Ok, "staged", format!("{} is staged", plan.entry));
            }
            Some(plan)
        }
        Ok(Some(Err(error))) => {
            findings.say(Verdict::Bad, "staged", directory::Error::Malformed(error).to_string());
            None
        }
    }
}
