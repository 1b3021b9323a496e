//! The check: findings about the way from this machine to its next kernel, each a sentence. Each theme has a
//! file of its own.

mod answers;
mod boot;
mod configuration;
mod devices;
pub(crate) mod finding;
mod init;
mod kernel;
mod memory;
mod next;
mod staged;

#[cfg(test)]
mod tests;

use nextkernel_plan::Plan;

use crate::check::answers::Answers;
use crate::check::configuration::IfInvalid;
use crate::check::finding::{Finding, Findings, Verdict};
use crate::freeing::gpus::{self, Said};
use crate::machine::root::Root;
use crate::staging::directory::{self, Directory};

/// Returns the findings about this machine and the staged kernel.
pub(crate) fn findings(root: &Root) -> Vec<Finding> {
    all(root, &Answers::now(root), &Directory::plan_text(root))
}

/// Returns a sentence for each bad finding about this machine and the staged kernel.
#[must_use]
pub fn bad(root: &Root) -> Vec<String> {
    bad_of(findings(root))
}

/// Returns a sentence for each bad finding about this machine alone, before another kernel is staged.
#[must_use]
pub fn bad_of_the_machine(root: &Root) -> Vec<String> {
    bad_of(all(root, &Answers::now(root), &Ok(None)))
}

fn bad_of(findings: Vec<Finding>) -> Vec<String> {
    let bad = findings.into_iter().filter(|finding| finding.verdict == Verdict::Bad);
    bad.map(|finding| format!("{}: {}", finding.what, finding.sentence)).collect()
}

/// Collects all findings, given the text of the plan.
fn all(root: &Root, answers: &Answers, text: &Result<Option<Vec<u8>>, directory::Error>) -> Vec<Finding> {
    let mut findings = Findings::default();
    let plan = text.as_ref().map(|text| text.as_deref().map(Plan::parse));
    let if_invalid = IfInvalid::of(matches!(plan, Ok(Some(Ok(_)))));
    let conf = configuration::read(root, if_invalid, &mut findings);
    init::hook(root, &mut findings);
    let plan = staged::plan(root, plan, &mut findings);
    let plan = plan.as_ref();
    let gpus = gpus::find(root, plan.map_or(Said::Conf(&conf), Said::Plan));
    kernel::load(root, answers, &mut findings);
    kernel::signatures(root, plan, &mut findings);
    boot::hypervisor(root, &mut findings);
    boot::confidential(root, &mut findings);
    if let Some(plan) = plan {
        memory::staged(root, plan, answers, &mut findings);
        boot::snapshot(root, plan, &mut findings);
    }
    devices::drivers(root, answers, &gpus, &conf, &mut findings);
    devices::modules(root, plan, &gpus, &conf, &mut findings);
    devices::others(root, &conf, if_invalid, &mut findings);
    next::guard(root, plan.map_or(conf.guard, |plan| plan.guard), &mut findings);
    next::stacks(root, &mut findings);
    next::command_line(root, plan, &gpus, &conf, &mut findings);
    next::hardware_watchdogs(root, plan.map_or(conf.watchdog, |plan| plan.watchdog), &mut findings);
    boot::firmware(root, &conf, plan, &mut findings);
    boot::deployment(root, &mut findings);
    boot::handoffs(root, &conf, &mut findings);
    boot::counting(root, &mut findings);
    boot::tpm(root, plan, &mut findings);
    boot::fips(root, plan, &mut findings);
    init::exitrd(root, &mut findings);
    init::jump(root, answers, plan, &conf, &mut findings);
    findings.0
}
