//! Whole machines, and the findings about them.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::machine::root::HOOK;
use crate::machine::scratch::Scratch;
use crate::machine::sys::Calls;
use crate::request::conf;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Returns a machine on which all is well.
pub(super) fn machine() -> Scratch {
    let scratch = Scratch::new();
    executable(&scratch, HOOK);
    scratch.directory("/run/systemd/system");
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

/// Returns the answers of a system on which all is well.
pub(super) fn answers() -> Answers {
    Answers {
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

fn found(scratch: &Scratch, answers: &Answers) -> Vec<Finding> {
    all(&scratch.root, answers, &Directory::plan_text(&scratch.root))
}

/// Returns the finding on a subject, if there is one.
pub(super) fn finding(scratch: &Scratch, answers: &Answers, what: &str) -> Option<(Verdict, String)> {
    let found = found(scratch, answers).into_iter().find(|finding| finding.what == what);
    found.map(|finding| (finding.verdict, finding.sentence))
}

pub(super) fn says_when_asked(
    scratch: &Scratch,
    answers: &Answers,
    what: &str,
    verdict: Verdict,
    words: &str,
) {
    let (found, sentence) = finding(scratch, answers, what).unwrap();
    assert!(found == verdict && sentence.contains(words), "{what}: {found:?}: {sentence}");
}

pub(super) fn says(scratch: &Scratch, what: &str, verdict: Verdict, words: &str) {
    says_when_asked(scratch, &answers(), what, verdict, words);
}

#[test]
fn where_all_is_well_nothing_is_worse_than_worth_knowing() {
    let findings = found(&machine(), &answers());
    assert!(findings.iter().all(|f| matches!(f.verdict, Verdict::Ok | Verdict::Info)), "{findings:?}");
    let json = serde_json::to_value(findings).unwrap();
    let first = json.pointer("/0").unwrap().as_object().unwrap();
    assert_eq!(first.keys().map(String::as_str).collect::<Vec<_>>(), ["sentence", "verdict", "what"]);
    assert_eq!(json.pointer("/0/verdict").unwrap(), "ok");
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
    assert_eq!(names(bad_of(found(&scratch, &answers()))), ["configuration", "staged"]);
    assert_eq!(names(bad_of(all(&scratch.root, &answers(), &Ok(None)))), ["configuration"]);
}
