//! The reasons why the machine stays up.

use std::io;

use nextkernel_plan::Armed;
use thiserror::Error;

use crate::machine::armed;
use crate::machine::elsewhere::Elsewhere;
use crate::machine::inhibitors::Inhibitor;
use crate::machine::superuser::NotRoot;
use crate::staging::directory;
use crate::staging::ready;
use crate::staging::{order, stage};
use crate::words::errno::InWords;

/// A reason why the machine stays up.
#[derive(Debug, Error)]
pub enum Error {
    /// The caller is not root.
    #[error(transparent)]
    NotRoot(#[from] NotRoot),
    /// `/` is not the running system.
    #[error(transparent)]
    Elsewhere(#[from] Elsewhere),
    /// The init is unknown, so it cannot be asked.
    #[error(
        "PID 1 is {0}, which is not known here, and cannot be asked; nextkernel-hook can be PID 1 itself at the end \
         (docs/boards.md)"
    )]
    OtherInit(String),
    /// The handoff cannot be armed.
    #[error(transparent)]
    Unarmed(#[from] armed::Error),
    /// The init accepted the request, and the machine did not go down.
    #[error(
        "`{asked}` was accepted, and the machine is still up after {} seconds; nothing is armed any more, and what is \
         staged stays so",
        Armed::SECONDS
    )]
    StillUp {
        /// The request, as a command.
        asked: String,
    },
    /// The check has bad findings.
    #[error("nothing was done: {}", .0.join("; "))]
    Bad(Vec<String>),
    /// The check has bad findings about the kernel that was staged just now.
    #[error("{entry} is staged, and the machine stays up: {}", .bad.join("; "))]
    StagedAndBad {
        /// The staged entry.
        entry: String,
        /// The bad findings.
        bad: Vec<String>,
    },
    /// The staged image cannot be used.
    #[error(transparent)]
    NotReady(#[from] ready::Error),
    /// /run/nextkernel or the plan cannot be used.
    #[error(transparent)]
    Directory(#[from] directory::Error),
    /// Staging failed.
    #[error(transparent)]
    Stage(#[from] stage::Error),
    /// The request cannot be resolved.
    #[error(transparent)]
    Order(#[from] order::Error),
    /// Another process has unstaged the kernel.
    #[error("what was staged is gone again; is another nextkernel at work? try again")]
    Gone,
    /// Another process has staged another kernel, which was not checked.
    #[error(
        "{0} was staged meanwhile, in place of what was checked; is another nextkernel at work? try again, and that one \
         is checked"
    )]
    Replaced(String),
    /// The staged kernel is for another verb.
    #[error(
        "{0} is staged for a plain `reboot` alone: give that command, or stage with --on kexec; it is staged as \
         it was"
    )]
    NotForKexec(String),
    /// Programs block a shutdown.
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
        /// The command that was run.
        command: String,
        /// Its error output.
        said: String,
    },
    /// The init's program cannot be run.
    #[error("{program} cannot be run: {}; what is staged stays so", InWords(.error))]
    NoProgram {
        /// The name of the program.
        program: &'static str,
        /// The answer of the kernel.
        error: io::Error,
    },
}

/// Returns the inhibitors as text, with control characters escaped.
fn in_words(inhibitors: &[Inhibitor]) -> String {
    let one = |inhibitor: &Inhibitor| {
        let (who, why) = (inhibitor.who.escape_debug(), inhibitor.why.escape_debug());
        format!("{who} (PID {}: {why})", inhibitor.pid)
    };
    inhibitors.iter().map(one).collect::<Vec<_>>().join(", ")
}
