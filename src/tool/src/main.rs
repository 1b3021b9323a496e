//! `nextkernel`: stages the next kernel while the system is up.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use nextkernel::entries::list;
use nextkernel::root::Root;
use nextkernel::{check, embed, exitrd, facts, once, reboot, report, stage, status, unstage};

/// Stages the next kernel, so that nextkernel-hook can start it when the machine goes down.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    Stage(stage::Wish),
    Unstage(unstage::Wish),
    Status(status::Wish),
    Check(check::Wish),
    Reboot(reboot::Wish),
    Report(report::Wish),
    Exitrd(exitrd::Wish),
    Entries(list::Wish),
    Embed(embed::Wish),
    Arrived(once::Wish),
}

fn main() -> ExitCode {
    let root = Root::system();
    let done = match Command::parse().act {
        Act::Stage(wish) => stage::run(&root, &wish).map(drop).map_err(|error| error.to_string()),
        Act::Unstage(wish) => unstage::run(&root, &wish).map_err(|error| error.to_string()),
        Act::Status(wish) => status::run(&root, &wish).map_err(|error| error.to_string()),
        Act::Check(wish) => check::run(&root, &wish).map_err(|error| error.to_string()),
        Act::Reboot(wish) => reboot::run(&root, &wish).map_err(|error| error.to_string()),
        Act::Report(wish) => report::run(&root, &wish).map_err(|error| error.to_string()),
        Act::Exitrd(wish) => exitrd::run(&root, &wish).map_err(|error| error.to_string()),
        Act::Embed(wish) => embed::run(&root, &wish).map_err(|error| error.to_string()),
        Act::Entries(wish) => list::run(&root, &wish).map_err(|error| error.to_string()),
        Act::Arrived(wish) => once::run(&root, &wish).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            facts::note(sentence);
            ExitCode::FAILURE
        }
    }
}
