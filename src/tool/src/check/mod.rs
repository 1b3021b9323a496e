//! The check command: a list of findings about the way from this machine to its next kernel, each a sentence.
//! Each theme has a file of its own.

mod boot;
mod devices;
mod finding;
mod init;
mod kernel;
mod memory;
mod next;

use std::io;
use std::os::unix::fs::MetadataExt;

use clap::Args;
use nextkernel_plan::{Malformed, Plan, Preload};
use serde::Serialize;
use thiserror::Error;

use crate::check::finding::{Asked, Finding, Findings, UntilThen, Verdict};
use crate::freeing::gpus::{self, Said};
use crate::machine::late_loads;
use crate::machine::root::Root;
use crate::request::conf::{self, Conf};
use crate::staging::directory::{self, Folder};
use crate::words::errno::InWords;
use crate::words::say;

/// Tell what may stand between this machine and its next kernel
///
/// Each finding is ok, info (worth knowing), warn (it works, and may fail where it need not) or bad (it
/// will fail). The exit status is 1 if anything is bad, else 0. It changes nothing; as root it sees what is
/// staged, too.
#[derive(Args, Debug, Default)]
pub struct Wish {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Why the exit status is not 0.
#[derive(Debug, Error)]
pub enum Error {
    /// Something is bad.
    #[error("not as it should be: {}; each says above what to do", .0.join(", "))]
    Bad(Vec<String>),
    /// The output.
    #[error("the findings cannot be printed: {}", InWords(.0))]
    Output(io::Error),
}

/// Everything that was found. Field names are stable; new ones may be added.
#[derive(Debug, Serialize)]
struct Found {
    findings: Vec<Finding>,
}

/// Prints the findings.
pub fn run(root: &Root, wish: &Wish) -> Result<(), Error> {
    let found = Found { findings: all(root, &Asked::now(root), &Folder::plan_text(root)) };
    let in_words = || found.findings.iter().map(Finding::in_words).collect();
    say::print(&found, wish.json, in_words).map_err(Error::Output)?;
    let bad = found.findings.into_iter().filter(|finding| finding.verdict == Verdict::Bad);
    let bad: Vec<_> = bad.map(|finding| finding.what).collect();
    if bad.is_empty() { Ok(()) } else { Err(Error::Bad(bad)) }
}

/// What is bad, each a sentence: of this machine and of what is staged.
#[must_use]
pub fn bad(root: &Root) -> Vec<String> {
    bad_of(all(root, &Asked::now(root), &Folder::plan_text(root)))
}

/// What is bad whatever is staged: before something else is.
#[must_use]
pub fn bad_of_the_machine(root: &Root) -> Vec<String> {
    bad_of(all(root, &Asked::now(root), &Ok(None)))
}

fn bad_of(findings: Vec<Finding>) -> Vec<String> {
    let bad = findings.into_iter().filter(|finding| finding.verdict == Verdict::Bad);
    bad.map(|finding| format!("{}: {}", finding.what, finding.sentence)).collect()
}

fn all(root: &Root, asked: &Asked, text: &Result<Option<Vec<u8>>, directory::Error>) -> Vec<Finding> {
    let mut findings = Findings::default();
    let plan = text.as_ref().map(|text| text.as_deref().map(Plan::parse));
    let until_then = UntilThen::of(matches!(plan, Ok(Some(Ok(_)))));
    let conf = configuration(root, until_then, &mut findings);
    init::hook(root, &mut findings);
    let plan = staged(root, plan, &mut findings);
    let plan = plan.as_ref();
    let gpus = gpus::find(root, plan.map_or(Said::Conf(&conf), Said::Plan));
    kernel::load(root, asked, &mut findings);
    kernel::signatures(root, plan, &mut findings);
    boot::hypervisor(root, &mut findings);
    boot::confidential(root, &mut findings);
    if let Some(plan) = plan {
        memory::staged(root, plan, asked, &mut findings);
        boot::snapshot(root, plan, &mut findings);
    }
    devices::drivers(root, asked, &gpus, &conf, &mut findings);
    devices::modules(root, plan, &gpus, &conf, &mut findings);
    devices::others(root, &conf, until_then, &mut findings);
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
    init::jump(root, asked, plan, &conf, &mut findings);
    findings.0
}

/// /etc/nextkernel.conf can be read.
fn configuration(root: &Root, UntilThen(verdict, what): UntilThen, findings: &mut Findings) -> Conf {
    match Conf::read(root) {
        Err(error) => findings.say(verdict, "configuration", format!("{error}; {what}")),
        Ok(conf) => {
            let said = if root.path(conf::PATH).exists() {
                "can be read"
            } else {
                "is not there: the defaults hold"
            };
            findings.say(Verdict::Ok, "configuration", format!("{} {said}", conf::PATH));
            return conf;
        }
    }
    Conf::default()
}

/// What is staged can be read, and is what the configuration says now.
fn staged<'a>(
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
            } else if Folder::is_half_staged(root) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::root::HOOK;
    use crate::machine::scratch::Scratch;
    use crate::machine::sys::Calls;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A machine on which all is well.
    pub(super) fn machine() -> Scratch {
        let scratch = Scratch::new();
        executable(&scratch, HOOK);
        scratch.folder("/run/systemd/system");
        scratch.put("/proc/sysrq-trigger", "");
        scratch.put("/proc/1/stack", "");
        scratch.put("/proc/cmdline", "root=x panic=30\n");
        gpus::tests::add(&scratch, "bochs", "0000:00:02.0", "live");
        scratch
    }

    pub(super) fn executable(scratch: &Scratch, path: &str) {
        scratch.put(path, "a program");
        fs::set_permissions(scratch.root.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A system that answers as it should.
    pub(super) fn asked() -> Asked {
        Asked {
            calls: Some(Calls { file: true, segments: true, loads_into_cma: false }),
            systemd: Some(257),
            hash_rate: || 300 << 20,
            process_on: |_, _| None,
        }
    }

    /// Stages a kernel of 1000 bytes and an initrd of 500, with a further line of the plan.
    pub(super) fn staged(scratch: &Scratch, preload: &str) {
        let set = "0000000000000007";
        let image = |name: &str, size: usize| {
            let name = format!("{set}/{name}");
            scratch.put(&format!("/run/nextkernel/{name}"), &"x".repeat(size));
            let found = scratch.root.path("/run/nextkernel").join(&name).metadata().unwrap();
            directory::measured(&found, &name).unwrap().to_string()
        };
        let (kernel, initrd) = (image("kernel", 1000), image("initrd", 500));
        let plan = format!(
            "nextkernel-plan 2\nhandoff = {set}\nentry = 6.12\nstaged-at = 4000000000\non = kexec\n{preload}\n\
             kernel = {kernel}\ninitrd = {initrd}\ncmdline = root=x panic=7\nend\n"
        );
        Plan::parse(plan.as_bytes()).unwrap();
        scratch.put("/run/nextkernel/plan", &plan);
    }

    fn found(scratch: &Scratch, asked: &Asked) -> Vec<Finding> {
        all(&scratch.root, asked, &Folder::plan_text(&scratch.root))
    }

    /// One finding, where it is there.
    pub(super) fn finding(scratch: &Scratch, asked: &Asked, what: &str) -> Option<(Verdict, String)> {
        let found = found(scratch, asked).into_iter().find(|finding| finding.what == what);
        found.map(|finding| (finding.verdict, finding.sentence))
    }

    pub(super) fn says_when_asked(
        scratch: &Scratch,
        asked: &Asked,
        what: &str,
        verdict: Verdict,
        words: &str,
    ) {
        let (found, sentence) = finding(scratch, asked, what).unwrap();
        assert!(found == verdict && sentence.contains(words), "{what}: {found:?}: {sentence}");
    }

    pub(super) fn says(scratch: &Scratch, what: &str, verdict: Verdict, words: &str) {
        says_when_asked(scratch, &asked(), what, verdict, words);
    }

    #[test]
    fn where_all_is_well_nothing_is_worse_than_worth_knowing() {
        let findings = found(&machine(), &asked());
        assert!(findings.iter().all(|f| matches!(f.verdict, Verdict::Ok | Verdict::Info)), "{findings:?}");
        let json = serde_json::to_value(Found { findings }).unwrap();
        let first = json.pointer("/findings/0").unwrap().as_object().unwrap();
        assert_eq!(first.keys().map(String::as_str).collect::<Vec<_>>(), ["sentence", "verdict", "what"]);
        assert_eq!(json.pointer("/findings/0/verdict").unwrap(), "ok");
    }

    #[test]
    fn what_cannot_work_is_bad() {
        let scratch = machine();
        for (path, text, what, words) in [
            (conf::PATH, "gpus = leave\n", "configuration", "line 1: there is no key 'gpus'"),
            (conf::PATH, "unbind = 0000:00:02.0\n", "unbind", "what carries / cannot be told"),
            ("/run/nextkernel/plan", "nextkernel-plan 1\n", "staged", "version 1"),
        ] {
            scratch.put(path, text);
            says(&scratch, what, Verdict::Bad, words);
            fs::remove_file(scratch.root.path(path)).unwrap();
        }
    }

    #[test]
    fn what_is_staged_is_judged_as_it_was_staged() {
        let scratch = machine();
        gpus::tests::add(&scratch, "xe", "0000:00:03.0", "live");
        let plan = "\
nextkernel-plan 2
handoff = 0000000000000007
entry = 6.12
staged-at = 4000000000
on = kexec
preload = no
kernel = 0000000000000007/kernel size=1 inode=1 changed=1.000000001
cmdline = root=x panic=7
gpu = xe firmware-reboot
end
";
        scratch.put("/run/nextkernel/plan", plan);
        scratch.put(conf::PATH, "gpu.xe = unload\n");
        says(&scratch, "staged", Verdict::Ok, "6.12 is staged");
        says(&scratch, "gpu xe", Verdict::Warn, "restarts through firmware");
        says(&scratch, "framebuffer", Verdict::Warn, "initcall_blacklist=sysfb_init");
        says(&scratch, "panic", Verdict::Ok, "panic=7");
        scratch.put("/run/nextkernel/plan", &plan.replace("4000000000", "1"));
        says(&scratch, "staged", Verdict::Warn, "stage again");
        scratch.put("/run/nextkernel/plan", &plan.replace("preload = no", "preload = yes"));
        says(&scratch, "staged", Verdict::Warn, "has unloaded its image");
        scratch.put("/sys/kernel/kexec_loaded", "1\n");
        says(&scratch, "staged", Verdict::Ok, "6.12 is staged");
    }

    #[test]
    fn a_configuration_that_is_wrong_is_no_more_than_a_warning_where_a_plan_stands() {
        let scratch = machine();
        for (text, what) in [("gpus = leave\n", "configuration"), ("unbind = 0000:00:02.0\n", "unbind")] {
            scratch.put(conf::PATH, text);
            says(&scratch, what, Verdict::Bad, "until then nothing can be staged");
            staged(&scratch, "preload = yes");
            says(&scratch, what, Verdict::Warn, "what is staged holds as it is");
            scratch.put("/run/nextkernel/plan", "nextkernel-plan 1\n");
            says(&scratch, what, Verdict::Bad, "until then nothing can be staged");
            fs::remove_dir_all(scratch.root.path("/run/nextkernel")).unwrap();
        }
    }

    #[test]
    fn what_is_bad_is_told_with_what_it_is_about_and_of_the_machine_alone() {
        let scratch = machine();
        scratch.put("/run/nextkernel/plan", "nextkernel-plan 1\n");
        scratch.put(conf::PATH, "gpus = leave\n");
        let names = |bad: Vec<String>| -> Vec<String> {
            bad.iter().map(|it| it.split(':').next().unwrap().to_owned()).collect()
        };
        assert_eq!(names(bad_of(found(&scratch, &asked()))), ["configuration", "staged"]);
        assert_eq!(names(bad_of(all(&scratch.root, &asked(), &Ok(None)))), ["configuration"]);
    }
}
