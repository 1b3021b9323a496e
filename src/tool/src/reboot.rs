//! Handing over now: check, stage where that is missing, honour who has asked that the machine stay up, and
//! ask the init for kexec.

use std::fmt;
use std::io;
use std::process::Command;

use clap::Args;
use nextkernel_plan::{Plan, Verb};
use thiserror::Error;

use crate::conf::Conf;
use crate::entries::Choice;
use crate::errno::InWords;
use crate::folder::{self, Folder};
use crate::gpus::{self, Said};
use crate::inhibitors::{self, Inhibitor};
use crate::root::Root;
use crate::{check, facts, stage};

/// Start the staged kernel now, in place of a reboot
///
/// It refuses while `nextkernel check` finds something bad, or somebody blocks a shutdown (`systemd-inhibit
/// --list`); there is no way to force it. Where nothing is staged, what is staged has changed, or ENTRY is
/// given, it stages first, as `nextkernel stage [ENTRY]` does. Then it asks the init: all services end, all file
/// systems are unmounted, and the hook starts the kernel.
#[derive(Args, Debug, Default)]
pub struct Wish {
    /// Stage this first: a boot entry, or the version of an installed kernel
    pub entry: Option<String>,
    /// Tell every step, and do none; the exit status is what the first refusal would make it
    #[arg(long)]
    pub dry_run: bool,
}

/// Why the machine stays up.
#[derive(Debug, Error)]
pub enum Error {
    /// Not root.
    #[error("/run/nextkernel belongs to root; run this with sudo")]
    NotRoot,
    /// Another init.
    #[error("PID 1 is not systemd, and no other init can be asked for kexec yet; nothing was done")]
    OtherInit,
    /// Something is bad.
    #[error("nothing was done: {}", .0.join("; "))]
    Bad(Vec<String>),
    /// The plan.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Staging.
    #[error(transparent)]
    Stage(#[from] stage::Error),
    /// Nothing came of staging; somebody else has unstaged it.
    #[error("what was staged is gone again; is another nextkernel at work? try again")]
    Gone,
    /// It is for another verb.
    #[error(
        "{0} is staged for `systemctl reboot` alone: give that command, or stage with --on kexec; it is staged as \
         it was"
    )]
    NotForKexec(String),
    /// Somebody wants the machine up.
    #[error(
        "{} blocks a shutdown; wait for that, or end it (systemd-inhibit --list shows all); what is staged stays so",
        in_words(.0)
    )]
    Inhibited(Vec<Inhibitor>),
    /// systemd refuses.
    #[error(
        "`{command}` failed: {said}; what is staged stays so, and `nextkernel status` shows what leads to it"
    )]
    Refused {
        /// What was run.
        command: String,
        /// What it said.
        said: String,
    },
    /// systemd's program.
    #[error("systemctl cannot be run: {}; what is staged stays so", InWords(.0))]
    NoSystemctl(io::Error),
}

fn in_words(inhibitors: &[Inhibitor]) -> String {
    let one = |inhibitor: &Inhibitor| {
        let (who, why) = (inhibitor.who.escape_debug(), inhibitor.why.escape_debug());
        format!("{who} (PID {}: {why})", inhibitor.pid)
    };
    inhibitors.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What is asked of systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// With an image loaded.
    Kexec,
    /// With nothing loaded, when `systemctl kexec` refuses, or from systemd 261 on loads what it finds.
    Target,
}

impl Ask {
    fn of(root: &Root) -> Ask {
        if root.kexec_loaded() { Ask::Kexec } else { Ask::Target }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Ask::Kexec => &["kexec"],
            Ask::Target => &["start", "--no-block", "--job-mode=replace-irreversibly", "kexec.target"],
        }
    }

    fn now(self) -> Result<(), Error> {
        let output = Command::new("systemctl").args(self.arguments()).output().map_err(Error::NoSystemctl)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        Err(Error::Refused { command: self.to_string(), said })
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "systemctl {}", self.arguments().join(" "))
    }
}

/// What becomes of what is staged.
#[derive(Debug, PartialEq, Eq)]
enum First {
    /// It is used.
    Use,
    /// Something is staged first, for this reason.
    Stage(&'static str),
}

impl First {
    fn of(root: &Root, wish: &Wish, is_there: bool, plan: Option<&Plan<'_>>) -> First {
        let whole = |plan: &Plan<'_>| {
            let mut images = std::iter::once(plan.kernel).chain(plan.initrd);
            images.all(|image| folder::is_as_staged(root, &image))
        };
        match plan {
            _ if wish.entry.is_some() => First::Stage("it is asked for"),
            None if is_there => First::Stage("what is staged cannot be read"),
            None => First::Stage("nothing is staged"),
            Some(plan) if !whole(plan) => First::Stage("what is staged has changed since"),
            Some(_) => First::Use,
        }
    }
}

/// Hands over, or tells how.
pub fn run(root: &Root, wish: &Wish) -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    if !root.runs_systemd() {
        return Err(Error::OtherInit);
    }
    let text = Folder::plan_text(root)?;
    // One that cannot be read is replaced, as staging does.
    let plan = text.as_deref().and_then(|text| Plan::parse(text).ok());
    let first = First::of(root, wish, text.is_some(), plan.as_ref());
    none_is_bad(match first {
        First::Use => check::bad(root),
        First::Stage(_) => check::bad_of_the_machine(root),
    })?;
    let staging = stage::Wish { entry: wish.entry.clone(), ..stage::Wish::default() };
    if wish.dry_run {
        return tell(root, &first, &staging, plan.as_ref());
    }
    // Before anything is staged for nothing.
    if let Some(note) = uninhibited(inhibitors::find())? {
        facts::note(note);
    }
    if let First::Stage(_) = first {
        let _ = stage::run(root, &staging)?;
        none_is_bad(check::bad(root))?;
    }
    let text = Folder::plan_text(root)?.ok_or(Error::Gone)?;
    let plan = Plan::parse(&text).map_err(folder::Error::Malformed)?;
    covers_kexec(&plan)?;
    // Again, for staging takes a while.
    uninhibited(inhibitors::find())?;
    facts::say(format_args!("{} starts in place of this kernel: the machine goes down now", plan.entry));
    Ask::of(root).now()
}

/// Every step, and what would end it.
fn tell(root: &Root, first: &First, staging: &stage::Wish, plan: Option<&Plan<'_>>) -> Result<(), Error> {
    facts::say("check             nothing is bad");
    let (ask, night) = match (first, plan) {
        (First::Use, Some(plan)) => {
            facts::say(format_args!(
                "staged            {} (handoff {}), its images as they were",
                plan.entry, plan.handoff
            ));
            covers_kexec(plan)?;
            let gpus = gpus::find(root, Said::Plan(plan));
            let firmware = gpus::forbids_the_jump(&gpus).map(|gpu| gpu.module.clone());
            let jump = format!("the hook starts {}", plan.entry);
            let because = |gpu| format!("the hook restarts through firmware, because of {gpu}");
            (Ask::of(root), firmware.map_or(jump, because))
        }
        (First::Use, None) => return Err(Error::Gone),
        (First::Stage(why), _) => {
            let Choice { entry, notes, .. } =
                stage::chosen(root, staging, &Conf::read(root).map_err(stage::Error::Conf)?)?;
            facts::say(format_args!("stage             {}: {why}", entry.id));
            for note in notes {
                facts::say(format_args!("                  {note}"));
            }
            (Ask::Kexec, format!("the hook starts {}", entry.id))
        }
    };
    let asked = uninhibited(inhibitors::find())?;
    facts::say(format_args!(
        "inhibitors        {}",
        asked.unwrap_or_else(|| "nobody blocks a shutdown".to_owned())
    ));
    facts::say(format_args!("then              {ask}"));
    facts::say(format_args!("at night          {night}"));
    Ok(())
}

fn none_is_bad(bad: Vec<String>) -> Result<(), Error> {
    if bad.is_empty() { Ok(()) } else { Err(Error::Bad(bad)) }
}

/// What is staged for `reboot` alone keeps nothing loaded, and `systemctl kexec` would end in the firmware.
fn covers_kexec(plan: &Plan<'_>) -> Result<(), Error> {
    if plan.on.covers(Verb::Kexec) { Ok(()) } else { Err(Error::NotForKexec(plan.entry.to_owned())) }
}

/// Nobody blocks a shutdown; or a note, where nobody could be asked. Where there is no logind there are no
/// inhibitors, either (`logind_check_inhibitors`, src/systemctl/systemctl-logind.c).
fn uninhibited(asked: Result<Vec<Inhibitor>, String>) -> Result<Option<String>, Error> {
    match asked {
        Ok(inhibitors) if inhibitors.is_empty() => Ok(None),
        Ok(inhibitors) => Err(Error::Inhibited(inhibitors)),
        Err(why) => {
            Ok(Some(format!("logind cannot be asked who blocks a shutdown, and nobody is taken to: {why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scratch::Scratch;

    /// Stages a kernel of five bytes.
    fn staged(scratch: &Scratch, on: &str) -> String {
        let name = "0000000000000007/kernel";
        scratch.put(&format!("/run/nextkernel/{name}"), "image");
        let found = scratch.root.path("/run/nextkernel").join(name).metadata().unwrap();
        let image = folder::measured(&found, name).unwrap();
        let (inode, changed) = (image.inode, image.changed);
        format!(
            "nextkernel-plan 1\nhandoff = 0000000000000007\nentry = 6.12\nstaged-at = 1\non = {on}\nhold = late\n\
             kernel = {name} size=5 inode={inode} changed={}.{:09}\ncmdline = root=x\nend\n",
            changed.seconds, changed.nanoseconds
        )
    }

    #[test]
    fn what_is_staged_is_used_unless_it_has_changed_or_another_is_asked_for() {
        let scratch = Scratch::new();
        let text = staged(&scratch, "kexec");
        let plan = Plan::parse(text.as_bytes()).unwrap();
        let first =
            |wish: &Wish, plan: Option<&Plan<'_>>| First::of(&scratch.root, wish, plan.is_some(), plan);
        assert_eq!(first(&Wish::default(), Some(&plan)), First::Use);
        assert_eq!(first(&Wish::default(), None), First::Stage("nothing is staged"));
        let unread = First::of(&scratch.root, &Wish::default(), true, None);
        assert_eq!(unread, First::Stage("what is staged cannot be read"));
        let other = Wish { entry: Some("6.13".into()), ..Wish::default() };
        assert_eq!(first(&other, Some(&plan)), First::Stage("it is asked for"));
        scratch.put("/run/nextkernel/0000000000000007/kernel", "another");
        assert_eq!(first(&Wish::default(), Some(&plan)), First::Stage("what is staged has changed since"));
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
        assert_eq!(Ask::of(&scratch.root).to_string(), "systemctl kexec");
        scratch.put("/sys/kernel/kexec_loaded", "0\n");
        let target = "systemctl start --no-block --job-mode=replace-irreversibly kexec.target";
        assert_eq!(Ask::of(&scratch.root).to_string(), target);
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
    fn where_another_init_runs_nothing_is_done() {
        let refused = run(&Scratch::new().root, &Wish::default()).unwrap_err();
        // Tests may run as anybody.
        assert!(matches!(refused, Error::OtherInit | Error::NotRoot), "{refused}");
    }
}
