//! The command line of `nextkernel`. Help, man page and completions are all made from it (`make manuals`).

use clap::{Parser, Subcommand};

use crate::commands::{
    check, consume, embed, entries, exitrd, reboot, report, stage, status, unstage, updated,
};

/// What stands below the list of commands.
const HINT: &str =
    "The whole way is `nextkernel check`, then `nextkernel reboot`. The manual is nextkernel(8).";

/// Stage the next kernel, so that nextkernel-hook can start it when the machine goes down
#[derive(Debug, Parser)]
#[command(name = "nextkernel", version, max_term_width = 100, after_help = HINT)]
pub struct Command {
    /// What is to be done.
    #[command(subcommand)]
    pub act: Act,
}

/// What can be done.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "a doc comment here would be the help's text, and each says its own")]
pub enum Act {
    Stage(stage::Arguments),
    Unstage(unstage::Arguments),
    Status(status::Arguments),
    Check(check::Arguments),
    Reboot(reboot::Arguments),
    Report(report::Arguments),
    Exitrd(exitrd::Arguments),
    Entries(entries::Arguments),
    Embed(embed::Arguments),
    Arrived(consume::Arguments),
    Updated(updated::Arguments),
}
