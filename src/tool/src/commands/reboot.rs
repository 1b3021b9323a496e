//! The reboot command: checks, stages if nothing is staged, respects programs that block a shutdown, and asks
//! the init. systemd is asked for kexec. Any other init is asked for a reboot, with a file that tells the hook
//! that a handoff is meant.

use std::process::Command;
use std::time::Duration;
use std::{fmt, io};

use clap::Args;
use nextkernel_plan::{Armed, HandoffId, Plan, Verb};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

use crate::check;
use crate::entries::Choice;
use crate::freeing::gpus::{self, Said};
use crate::loading::loader::Loader;
use crate::loading::test_load;
use crate::machine::armed::{self, Arming};
use crate::machine::elsewhere::{Elsewhere, see_that_this_is_the_system};
use crate::machine::inhibitors::{self, Inhibitor};
use crate::machine::init::{self, Init};
use crate::machine::root::Root;
use crate::machine::superuser::{NotRoot, see_that_this_is_root};
use crate::report::known;
use crate::report::words::Date;
use crate::request::choices::PreloadChoice;
use crate::request::conf::Conf;
use crate::request::{arguments, firmware};
use crate::staging::directory::{self, Folder};
use crate::staging::ready::{self, First};
use crate::staging::stage;
use crate::status::stage::stage_and_print;
use crate::words::errno::InWords;
use crate::words::say;

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
    pub entry: Option<String>,
    /// Restart through the firmware this once, whatever is staged; what is configured stays
    #[arg(long, conflicts_with = "entry")]
    pub full: bool,
    /// Tell every step, and do none; the exit status is what the first refusal would make it
    #[arg(long)]
    pub dry_run: bool,
}

/// Why the machine stays up.
#[derive(Debug, Error)]
pub enum Error {
    /// The caller is not root.
    #[error(transparent)]
    NotRoot(#[from] NotRoot),
    /// Not the running system.
    #[error(transparent)]
    Elsewhere(#[from] Elsewhere),
    /// Another init.
    #[error(
        "PID 1 is {0}, which is not known here, and cannot be asked; nextkernel-hook can be PID 1 itself at the end \
         (docs/boards.md)"
    )]
    OtherInit(String),
    /// What tells the hook that a handoff is meant.
    #[error(transparent)]
    Unarmed(#[from] armed::Error),
    /// It was asked, and nothing came of it.
    #[error(
        "`{asked}` was accepted, and the machine is still up after {} seconds; nothing is armed any more, and what is \
         staged stays so",
        Armed::SECONDS
    )]
    StillUp {
        /// How it was asked.
        asked: String,
    },
    /// Something is bad.
    #[error("nothing was done: {}", .0.join("; "))]
    Bad(Vec<String>),
    /// Something is bad of what was staged just now.
    #[error("{entry} is staged, and the machine stays up: {}", .bad.join("; "))]
    StagedAndBad {
        /// What is staged.
        entry: String,
        /// What is bad.
        bad: Vec<String>,
    },
    /// What is staged cannot be used.
    #[error(transparent)]
    NotReady(#[from] ready::Error),
    /// The plan.
    #[error(transparent)]
    Directory(#[from] directory::Error),
    /// Staging.
    #[error(transparent)]
    Stage(#[from] stage::Error),
    /// Somebody else has unstaged it.
    #[error("what was staged is gone again; is another nextkernel at work? try again")]
    Gone,
    /// Somebody else has staged another.
    #[error(
        "{0} was staged meanwhile, in place of what was checked; is another nextkernel at work? try again, and that one \
         is checked"
    )]
    Replaced(String),
    /// It is for another verb.
    #[error(
        "{0} is staged for a plain `reboot` alone: give that command, or stage with --on kexec; it is staged as \
         it was"
    )]
    NotForKexec(String),
    /// Somebody wants the machine up.
    #[error(
        "{} blocks a shutdown; wait for that, or end it (systemd-inhibit --list shows all); what is staged stays so",
        in_words(.0)
    )]
    Inhibited(Vec<Inhibitor>),
    /// The init refuses.
    #[error(
        "`{command}` failed: {said}; what is staged stays so, and `nextkernel status` shows what leads to it"
    )]
    Refused {
        /// What was run.
        command: String,
        /// What it said.
        said: String,
    },
    /// The init's program.
    #[error("{program} cannot be run: {}; what is staged stays so", InWords(.error))]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// What the kernel answered.
        error: io::Error,
    },
}

fn in_words(inhibitors: &[Inhibitor]) -> String {
    let one = |inhibitor: &Inhibitor| {
        let (who, why) = (inhibitor.who.escape_debug(), inhibitor.why.escape_debug());
        format!("{who} (PID {}: {why})", inhibitor.pid)
    };
    inhibitors.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What is asked of the init.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ask {
    /// systemd, with an image loaded.
    Kexec,
    /// systemd, with nothing loaded, when `systemctl kexec` refuses, or from systemd 261 on loads what it finds.
    Target,
    /// systemd, for a restart.
    Full,
    /// Another, for a restart.
    Restart(init::Ask),
}

impl Ask {
    fn of(root: &Root, init: &Init) -> Result<Ask, Error> {
        match init {
            Init::Systemd if root.kexec_loaded() => Ok(Ask::Kexec),
            Init::Systemd => Ok(Ask::Target),
            other => {
                let ask = other.ask(root).ok_or_else(|| Error::OtherInit(other.name().to_owned()))?;
                Ok(Ask::Restart(ask))
            }
        }
    }

    /// Once something is staged, as the configuration has it preloaded.
    fn when_staged(root: &Root, init: &Init, conf: &Conf) -> Result<Ask, Error> {
        match (init, conf.preload) {
            (Init::Systemd, PreloadChoice::No) => Ok(Ask::Target),
            (Init::Systemd, _) => Ok(Ask::Kexec),
            _ => Ask::of(root, init),
        }
    }

    fn words(&self) -> &'static [&'static str] {
        match self {
            Ask::Kexec => &["systemctl", "kexec"],
            Ask::Full => &["systemctl", "reboot"],
            Ask::Target => {
                &["systemctl", "start", "--no-block", "--job-mode=replace-irreversibly", "kexec.target"]
            }
            Ask::Restart(init::Ask::Command(words)) => words,
            Ask::Restart(init::Ask::Quit | init::Ask::Term) => &[],
        }
    }

    fn now(&self) -> Result<(), Error> {
        let refused = |said: String| Error::Refused { command: self.to_string(), said };
        let signal = match self {
            Ask::Restart(init::Ask::Quit) => Some(Signal::SIGQUIT),
            Ask::Restart(init::Ask::Term) => Some(Signal::SIGTERM),
            _ => None,
        };
        if let Some(signal) = signal {
            return kill(Pid::from_raw(1), signal).map_err(|errno| refused(errno.desc().to_owned()));
        }
        let Some((program, arguments)) = self.words().split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        if *self == Ask::Full {
            // A full reboot ignores a loaded image and a system in /run/nextroot (systemctl(1);
            // docs/ENVIRONMENT.md of systemd).
            command.env("SYSTEMCTL_SKIP_AUTO_KEXEC", "1").env("SYSTEMCTL_SKIP_AUTO_SOFT_REBOOT", "1");
        }
        let output = command.args(arguments).output();
        let output = output.map_err(|error| Error::NoProgram { program, error })?;
        if output.status.success() {
            return Ok(());
        }
        Err(refused(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Restart(ask) => ask.fmt(out),
            _ => out.write_str(&self.words().join(" ")),
        }
    }
}

/// Hands over, or tells how.
pub fn run(root: &Root, arguments: &Arguments) -> Result<(), Error> {
    see_that_this_is_root(directory::FOLDER)?;
    see_that_this_is_the_system(root)?;
    let init = Init::find(root);
    Ask::of(root, &init)?;
    if arguments.full {
        return through_the_firmware(root, &init, arguments.dry_run);
    }
    // Staging another kernel would disarm the handoff of the `nextkernel reboot` that waits.
    if armed::is_held(root) {
        return Err(armed::Error::Held.into());
    }
    let text = Folder::plan_text(root)?;
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
    let request = arguments::Wish { entry: arguments.entry.clone(), ..arguments::Wish::default() };
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
    let text = Folder::plan_text(root)?.ok_or(Error::Gone)?;
    let plan = that_was_checked(&text, handoff)?;
    if !bad.is_empty() {
        return Err(Error::StagedAndBad { entry: plan.entry.to_owned(), bad });
    }
    covers_kexec(&plan)?;
    say::say(format_args!("{} starts in place of this kernel: the machine goes down now", plan.entry));
    let ask = Ask::of(root, &init)?;
    if init == Init::Systemd { ask.now() } else { ask_armed(root, handoff, &ask) }
}

/// Restarts through the firmware. The hook is told, for what is staged may be for a plain restart, too; it unloads what is
/// loaded, so that a restart that is refused leaves everything as it was.
fn through_the_firmware(root: &Root, init: &Init, dry_run: bool) -> Result<(), Error> {
    let ask = if *init == Init::Systemd { Ask::Full } else { Ask::of(root, init)? };
    if let Some(note) = uninhibited(inhibitors::find())?.filter(|_| *init == Init::Systemd) {
        say::note(note);
    }
    if dry_run {
        say::say(format_args!("leaves            {} for the hook", firmware::FULL));
        say::say(format_args!("then              {ask}, through the firmware"));
        return Ok(());
    }
    go_on_at_signals();
    Folder::open(root)?;
    let marker = root.path(firmware::FULL);
    let failed = |error| directory::Error::Io { path: firmware::FULL.into(), error };
    std::fs::write(&marker, "").map_err(failed)?;
    // systemd is told not to start a loaded image. Another init may start it, unless the hook unloads it
    // before.
    let hook_unloads = init.runs_the_hook(root) && Folder::plan_text(root)?.is_some();
    if *init != Init::Systemd && !hook_unloads && root.kexec_loaded() {
        if let Err(error) = test_load::unload(root, 0) {
            say::note(format!("{error}; {} may start the image that is loaded", init.name()));
        }
    }
    say::say("the machine restarts through the firmware now");
    ask.now().inspect_err(|_| firmware::take_back(root))
}

/// A session that ends, and whoever ends all processes politely, must not leave the hook told and nobody there to take it
/// back.
fn go_on_at_signals() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    let _ = signals.thread_block();
}

/// Asks with the handoff armed, and stays to vouch for it until the machine is down.
fn ask_armed(root: &Root, handoff: HandoffId, ask: &Ask) -> Result<(), Error> {
    go_on_at_signals();
    let arming = Arming::of(root, handoff)?;
    if let Err(error) = ask.now() {
        arming.disarm();
        return Err(error);
    }
    std::thread::sleep(Duration::from_secs(Armed::SECONDS));
    arming.disarm();
    Err(Error::StillUp { asked: ask.to_string() })
}

/// Every step, and what would end it.
fn print_steps(
    root: &Root,
    init: &Init,
    first: &First,
    request: &arguments::Wish,
    plan: Option<&Plan<'_>>,
) -> Result<(), Error> {
    say::say("check             nothing is bad");
    let (ask, outcome) = match (first, plan) {
        (First::Use(_), Some(plan)) => {
            say::say(format_args!(
                "staged            {} (handoff {}), its images as they were, for the {} loader",
                plan.entry,
                plan.handoff,
                Loader::of(plan)
            ));
            covers_kexec(plan)?;
            (Ask::of(root, init)?, at_shutdown(root, plan.entry, Said::Plan(plan)))
        }
        (First::Use(_), None) => return Err(Error::Gone),
        (First::Stage(why), _) => {
            let conf = Conf::read(root).map_err(stage::Error::Conf)?;
            let Choice { entry, notes, .. } = stage::chosen(root, request, &conf)?;
            say::say(format_args!("stage             {}: {why}", entry.id));
            for note in notes {
                say::say(format_args!("                  {note}"));
            }
            (Ask::when_staged(root, init, &conf)?, at_shutdown(root, &entry.id, Said::Conf(&conf)))
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

/// What comes of it: a GPU may forbid the jump.
fn at_shutdown(root: &Root, entry: &str, said: Said<'_>) -> String {
    match gpus::forbids_the_jump(&gpus::find(root, said)) {
        Some(gpu) => format!("the hook restarts through firmware, because of {}", gpu.module),
        None => format!("the hook starts {entry}"),
    }
}

/// The plan, where it is the one that was checked.
fn that_was_checked(text: &[u8], handoff: HandoffId) -> Result<Plan<'_>, Error> {
    let plan = Plan::parse(text).map_err(directory::Error::Malformed)?;
    if plan.handoff == handoff { Ok(plan) } else { Err(Error::Replaced(plan.entry.to_owned())) }
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
    use crate::machine::scratch::Scratch;
    use nextkernel_plan::Malformed;

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
        for error in [Error::OtherInit(name()), ready::Error::Changed(name()).into(), Error::Replaced(name())]
        {
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
        scratch.folder("/run/nextkernel");
        for words in [
            &["sh", "-c", "test -e x; echo 'not now' >&2; exit 1"] as &'static [&'static str],
            &["/nonexistent"],
        ] {
            let ask = Ask::Restart(init::Ask::Command(words));
            let error = ask_armed(&scratch.root, HandoffId(7), &ask).unwrap_err().to_string();
            assert!(error.contains("not now") || error.contains("/nonexistent cannot be run"), "{error}");
            assert!(!scratch.root.path("/run/nextkernel/armed").exists());
        }
    }
}
