//! Requests to the init, and the reasons to refuse.
#![allow(clippy::unwrap_used)]
use super::dry_run::at_shutdown;
use super::*;
use crate::freeing::gpus::{self, Said};
use crate::machine::inhibitors::Inhibitor;
use crate::machine::init;
use crate::machine::scratch::Scratch;
use crate::request::conf::Conf;
use crate::staging::ready;
use nextkernel_plan::{HandoffId, Malformed};

/// Stages a kernel of five bytes.
fn staged(scratch: &Scratch, on: &str) -> String {
    let name = "0000000000000007/kernel";
    scratch.put(&format!("/run/nextkernel/{name}"), "image");
    let found = scratch.root.path("/run/nextkernel").join(name).metadata().unwrap();
    let image = directory::measured(&found, name).unwrap();
    format!(
        "nextkernel-plan 2\nhandoff = 0000000000000007\nentry = 6.12\nstaged-at = 1\non = {on}\npreload = no\n\
         kernel = {image}\ncmdline = root=x\nend\n"
    )
}

#[test]
fn what_is_staged_is_used_or_refused_and_replaced_only_where_another_is_asked_for() {
    let scratch = Scratch::new();
    let text = staged(&scratch, "kexec");
    let plan = Plan::parse(text.as_bytes()).unwrap();
    let unread = Plan::parse(b"nextkernel-plan 2\n").unwrap_err();
    let other = Arguments { entry: Some("6.13".into()), ..Arguments::default() };
    let first = |arguments: &Arguments, plan: Option<Result<&Plan<'_>, Malformed>>| {
        First::of(&scratch.root, arguments.entry.is_some(), plan).map_err(|error| error.to_string())
    };
    assert_eq!(first(&Arguments::default(), Some(Ok(&plan))), Ok(First::Use(HandoffId(7))));
    assert_eq!(first(&Arguments::default(), None), Ok(First::Stage("nothing is staged")));
    scratch.put("/run/nextkernel/0000000000000007/kernel", "another");
    for (unusable, names) in
        [(Ok(&plan), "/run/nextkernel/0000000000000007/kernel"), (Err(unread), "/run/nextkernel/plan")]
    {
        let sentence = first(&Arguments::default(), Some(unusable)).unwrap_err();
        assert!(sentence.starts_with(names) && sentence.contains("`nextkernel unstage`"), "{sentence}");
        assert_eq!(first(&other, Some(unusable)), Ok(First::Stage("it is asked for")));
    }
}

#[test]
fn no_sentence_has_a_gap_in_it() {
    let name = || "x".to_owned();
    for error in [Error::OtherInit(name()), ready::Error::Changed(name()).into(), Error::Replaced(name())] {
        assert!(!error.to_string().contains("  "), "{error}");
    }
}

#[test]
fn where_pid_1_is_not_known_what_is_advised_is_what_works() {
    let sentence = Error::OtherInit("minit".into()).to_string();
    assert!(sentence.contains("nextkernel-hook can be PID 1 itself") && !sentence.contains("--on"));
}

#[test]
fn what_somebody_else_staged_meanwhile_is_not_started() {
    let text = staged(&Scratch::new(), "kexec");
    assert!(that_was_checked(text.as_bytes(), HandoffId(7)).is_ok());
    let replaced = that_was_checked(text.as_bytes(), HandoffId(8)).unwrap_err().to_string();
    assert!(replaced.starts_with("6.12 was staged meanwhile"), "{replaced}");
}

#[test]
fn what_comes_of_it_is_the_firmware_where_a_gpu_forbids_the_jump_staged_or_not() {
    let scratch = Scratch::new();
    gpus::tests::add(&scratch, "bochs", "0000:00:02.0", "live");
    let conf = |text: &str| Conf::parse(text.as_bytes()).unwrap();
    let told = |conf: &Conf| at_shutdown(&scratch.root, "6.12", Said::Conf(conf));
    assert_eq!(told(&Conf::default()), "the hook starts 6.12");
    let firmware = told(&conf("gpu.bochs = firmware-reboot\n"));
    assert_eq!(firmware, "the hook restarts through firmware, because of bochs");
    let text = staged(&scratch, "kexec").replace("end\n", "gpu = bochs firmware-reboot\nend\n");
    let plan = Plan::parse(text.as_bytes()).unwrap();
    assert_eq!(at_shutdown(&scratch.root, "6.12", Said::Plan(&plan)), firmware);
}

#[test]
fn what_is_staged_for_reboot_alone_is_not_started_by_kexec() {
    let scratch = Scratch::new();
    for (on, covered) in [("kexec", true), ("kexec reboot", true), ("reboot", false)] {
        let text = staged(&scratch, on);
        assert_eq!(covers_kexec(&Plan::parse(text.as_bytes()).unwrap()).is_ok(), covered, "{on}");
    }
}

#[test]
fn with_nothing_loaded_the_target_is_started_itself() {
    let scratch = Scratch::new();
    scratch.put("/sys/kernel/kexec_loaded", "1\n");
    let ask = |init| Ask::of(&scratch.root, &init).unwrap().to_string();
    assert_eq!(ask(Init::Systemd), "systemctl kexec");
    scratch.put("/sys/kernel/kexec_loaded", "0\n");
    let target = "systemctl start --no-block --job-mode=replace-irreversibly kexec.target";
    assert_eq!(ask(Init::Systemd), target);
}

#[test]
fn who_blocks_a_shutdown_is_named_with_the_reason() {
    assert!(uninhibited(Ok(Vec::new())).unwrap().is_none());
    assert!(uninhibited(Err("no logind".into())).unwrap().unwrap().ends_with(": no logind"));
    let apt = Inhibitor { who: "apt".into(), why: "dpkg\u{1b}[2J".into(), pid: 7 };
    let sentence = uninhibited(Ok(vec![apt])).unwrap_err().to_string();
    assert!(sentence.starts_with("apt (PID 7: dpkg\\u{1b}[2J) blocks a shutdown; "), "{sentence}");
}

#[test]
fn where_an_init_runs_that_is_not_known_nothing_is_done() {
    let scratch = Scratch::new();
    crate::machine::elsewhere::tests::is_the_system(&scratch);
    let refused = run(&scratch.root, &Arguments::default()).unwrap_err();
    // Tests may run as any user.
    assert!(matches!(refused, Error::OtherInit(_) | Error::NotRoot(_)), "{refused}");
}

#[test]
fn every_other_init_is_asked_for_a_restart_by_its_own_command() {
    let scratch = Scratch::new();
    for (init, asked) in [
        (Init::Sysvinit, "shutdown -r now"),
        (Init::Openrc, "openrc-shutdown -r now"),
        (Init::Finit, "kill -TERM 1"),
        (Init::Nitro, "nitroctl Reboot"),
        (Init::Busybox, "kill -TERM 1"),
    ] {
        assert_eq!(Ask::of(&scratch.root, &init).unwrap().to_string(), asked);
    }
}

#[test]
fn what_an_init_refuses_is_told_and_leaves_nothing_armed() {
    let scratch = Scratch::new();
    scratch.put("/proc/uptime", "1000.99 1500.12\n");
    scratch.directory("/run/nextkernel");
    for words in
        [&["sh", "-c", "test -e x; echo 'not now' >&2; exit 1"] as &'static [&'static str], &["/nonexistent"]]
    {
        let ask = Ask::Restart(init::Ask::Command(words));
        let error = send_armed(&scratch.root, HandoffId(7), &ask).unwrap_err().to_string();
        assert!(error.contains("not now") || error.contains("/nonexistent cannot be run"), "{error}");
        assert!(!scratch.root.path("/run/nextkernel/armed").exists());
    }
}
