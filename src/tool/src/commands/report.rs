//! The report command: how long the last handoff took, and how much time it saved. It also keeps the records
//! that later reports need.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueHint};
use nextkernel_plan::{Plan, Verb};

use crate::machine::root::Root;
use crate::machine::superuser::see_that_this_is_root;
use crate::machine::systemd;
use crate::report::boot::Asked;
use crate::report::history::{HISTORY, History, Stopped};
use crate::report::known::{Error, Known, failed, so_many_failed};
use crate::report::{arrival, clock, history, json, prometheus, svg, table, words};
use crate::request::conf::Conf;
use crate::request::firmware::Requests;
use crate::staging::directory::Directory;
use crate::words::say;

/// Show what the last handoff took, and what it saved
///
/// nextkernel-report.service keeps a history of it, in which a restart through firmware is the yardstick.
#[derive(Args, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "options that exclude each other")]
pub struct Arguments {
    /// As JSON
    #[arg(long, group = "form")]
    json: bool,
    /// As a picture: the last handoffs and the last restart through firmware, to one scale
    #[arg(long, group = "form")]
    svg: bool,
    /// As `node_exporter`'s textfile collector reads it
    #[arg(long, group = "form")]
    prometheus: bool,
    /// Every boot that is known
    #[arg(long, conflicts_with_all = ["svg", "prometheus"])]
    history: bool,
    /// Write it there, whole or not at all, instead of standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Keep the running boot in the history: once the default target is reached
    #[arg(long, conflicts_with_all = ["form", "history", "output"])]
    record: bool,
    /// Say that failed handoffs were seen, so that they count no more for `handoff-failed` in /etc/nextkernel.conf
    #[arg(long, conflicts_with_all = ["form", "history", "output", "record", "stopping"])]
    seen: bool,
    /// Keep when the system began to go down: as the first that is stopped
    #[arg(long, conflicts_with_all = ["form", "history", "output", "record"])]
    stopping: bool,
}

/// Reports, or keeps what later reports need.
pub fn run(root: &Root, arguments: &Arguments) -> Result<(), Error> {
    if arguments.record || arguments.stopping || arguments.seen {
        see_that_this_is_root(history::DIRECTORY)?;
    }
    if arguments.stopping {
        return stopping(root, clock::told(), systemd::going_down_to());
    }
    if arguments.seen {
        let failed = failed(root)?;
        let Some(last) = failed.first() else {
            say::say("no handoff failed: nothing is done");
            return Ok(());
        };
        history::see(root, &last.boot_id).map_err(Error::Unwritable)?;
        say::say(format_args!("{}, and that counts no more", so_many_failed(failed.len())));
        return Ok(());
    }
    let history = History::read(root).map_err(Error::Unreadable)?;
    if history.damaged > 0 {
        say::note(format_args!("{HISTORY}: {} of its lines are damaged, and left out", history.damaged));
    }
    if arguments.record {
        return record(root, history);
    }
    let known = Known::of(history, &arrival::boot_id(root), |history| arrival::measure(root, history));
    let text = arguments.form(&known).map_err(Error::Output)?;
    match &arguments.output {
        None => io::stdout().write_all(text.as_bytes()).map_err(Error::Output),
        Some(path) => history::write_whole(path, text.as_bytes())
            .map_err(|error| Error::File { path: path.clone(), error }),
    }
}

impl Arguments {
    /// Returns the report in the form that the arguments ask for.
    fn form(&self, known: &Known) -> io::Result<String> {
        Ok(match self {
            Arguments { svg: true, .. } => svg::of(known),
            Arguments { prometheus: true, .. } => prometheus::of(known),
            Arguments { json: true, history: true, .. } => {
                serde_json::to_string_pretty(&json::history(known))? + "\n"
            }
            Arguments { json: true, .. } => serde_json::to_string_pretty(&json::of(known))? + "\n",
            Arguments { history: true, .. } => table::history(known),
            Arguments { .. } => table::of(known),
        })
    }
}

/// Adds the running boot to the history, once.
fn record(root: &Root, mut history: History) -> Result<(), Error> {
    let boot_id = arrival::boot_id(root);
    if history.boots.iter().any(|boot| boot.boot_id == boot_id) {
        say::say("this boot is in the history already: nothing is done");
        return Ok(());
    }
    let boot = arrival::measure(root, &history);
    let sentence = match (&boot.handoff, boot.total_ms()) {
        (Some(handoff), Some(ms)) => {
            let whole = "from the command to the default target";
            format!("handoff {} took {} {whole}", handoff.id, words::took(&boot, None, ms))
        }
        (Some(handoff), None) => format!("handoff {} was measured in part", handoff.id),
        (None, _) => "this kernel was not started by a handoff".to_owned(),
    };
    history.push(boot);
    history.write(root).map_err(Error::Unwritable)?;
    Stopped::remove(root);
    say::say(format_args!("{sentence}; `nextkernel report` shows it"));
    Ok(())
}

/// Keeps the time at which the system began to go down for the report of the next kernel. Keeps nothing if the
/// system is not going down.
fn stopping(root: &Root, then: clock::Then, to: Option<&str>) -> Result<(), Error> {
    let text = Directory::plan_text(root).ok().flatten().unwrap_or_default();
    let plan = Plan::parse(&text).ok();
    let Requests { found, unread } = Requests::find(root, &Conf::default(), plan.as_ref());
    let is_for_the_firmware = !found.is_empty();
    let asked = match to {
        // A request for the firmware wins.
        Some("kexec.target") if is_for_the_firmware => Asked::Reboot,
        Some("kexec.target") => Asked::Kexec,
        Some("reboot.target") => Asked::Reboot,
        Some("poweroff.target") => Asked::Poweroff,
        Some("halt.target") => Asked::Halt,
        _ => {
            say::say("the system is not going down: nothing is kept");
            return Ok(());
        }
    };
    let clock::Then { counter, realtime_ms } = then;
    let verb = match asked {
        Asked::Kexec => Some(Verb::Kexec),
        Asked::Reboot => Some(Verb::Reboot),
        _ => None,
    };
    let is_meant = |plan: &Plan<'_>| {
        !is_for_the_firmware && unread.is_none() && verb.is_some_and(|verb| plan.on.covers(verb))
    };
    let handoff = plan.filter(is_meant).map(|plan| plan.handoff.to_string());
    let stopped = Stopped { boot_id: arrival::boot_id(root), asked, realtime_ms, handoff, counter };
    stopped.write(root).map_err(Error::Unwritable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use crate::report::boot::Boot;
    use crate::report::boot::tests::{boot, firmware};
    use crate::report::known::tests::known;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn what_was_kept_of_the_running_boot_is_more_exact_than_what_is_measured_now() {
        let mut history = History::default();
        history.push(boot());
        history.push(firmware());
        let kept = Known::of(history.clone(), &boot().boot_id, |_| panic!("measured"));
        assert_eq!((kept.running(), kept.boots().len()), (&boot(), 2));
        let measured = Boot { boot_id: String::new(), phases: Vec::new(), ..firmware() };
        let known = Known::of(history, "", |_| measured.clone());
        assert_eq!((known.running(), known.boots().len()), (&measured, 3));
        assert_eq!(known.last_handoff(), Some(&boot()));
    }

    #[test]
    fn what_was_saved_is_the_difference_of_two_that_were_measured_as_a_whole() {
        let both = known(&[firmware(), boot()]);
        assert_eq!(both.saved(&boot()).map(|saved| saved.ms), Some(202_300 - 11_903));
        assert!(both.saved(&firmware()).is_none());
        assert!(known(&[boot()]).saved(&boot()).is_none());
    }

    #[test]
    fn a_boot_is_kept_once_and_uses_up_what_the_one_before_left() {
        let scratch = Scratch::new();
        let id = |id: &str| scratch.put("/proc/sys/kernel/random/boot_id", id);
        id(&firmware().boot_id);
        stopping(&scratch.root, clock::told(), Some("reboot.target")).unwrap();
        id(&boot().boot_id);
        scratch.put("/proc/cmdline", "root=x");
        let mut history = History::default();
        history.push(firmware());
        record(&scratch.root, history).unwrap();
        let history = History::read(&scratch.root).unwrap();
        assert_eq!(history.boots.last().unwrap().asked, Some(Asked::Reboot));
        assert_eq!(Stopped::read(&scratch.root), None);
        record(&scratch.root, history.clone()).unwrap();
        assert_eq!(History::read(&scratch.root).unwrap(), history);
    }

    #[test]
    fn a_unit_that_is_stopped_while_the_system_goes_on_keeps_nothing() {
        let scratch = Scratch::new();
        for to in [None, Some("soft-reboot.target")] {
            stopping(&scratch.root, clock::told(), to).unwrap();
            assert_eq!(Stopped::read(&scratch.root), None);
        }
    }

    #[test]
    fn one_form_is_asked_for_at_a_time() {
        let line =
            |words: &str| Line::try_parse_from(format!("report {words}").split_ascii_whitespace()).is_ok();
        for good in
            ["", "--json --history", "--svg --output x", "--prometheus --output x", "--record", "--stopping"]
        {
            assert!(line(good), "{good}");
        }
        for bad in [
            "--json --svg",
            "--svg --history",
            "--record --json",
            "--record --stopping",
            "--stopping --output x",
        ] {
            assert!(!line(bad), "{bad}");
        }
    }

    #[test]
    fn names_in_json_are_these() {
        let text = serde_json::to_value(json::of(&known(&[firmware(), boot()]))).unwrap();
        let at = |pointer| text.pointer(pointer).cloned();
        assert_eq!(at("/boot/total_ms"), Some(11_903.into()));
        assert_eq!(at("/boot/saved_ms"), Some(190_397.into()));
        assert_eq!(at("/boot/came"), Some("handoff".into()));
        assert_eq!(at("/last_handoff/handoff/id"), Some("00000000000000a7".into()));
        assert_eq!(at("/yardstick/total_ms"), Some(202_300.into()));
        assert_eq!(at("/yardstick/saved_ms"), None);
        let history = serde_json::to_value(json::history(&known(&[firmware(), boot()]))).unwrap();
        assert_eq!(history.pointer("/boots/1/phases/0/ms").cloned(), Some(2310.into()));
    }
}
