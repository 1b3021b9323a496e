//! `nextkernel`: stages the next kernel while the system runs.

use std::process::ExitCode;

use clap::Parser;

use nextkernel::cli::{Act, Command};
use nextkernel::commands::{
    check, consume, embed, entries, exitrd, reboot, report, stage, status, unstage, updated,
};
use nextkernel::machine::root::Root;
use nextkernel::words::say;

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
        Act::Entries(wish) => entries::run(&root, &wish).map_err(|error| error.to_string()),
        Act::Updated(wish) => {
            updated::run(&root, &wish);
            Ok(())
        }
        Act::Arrived(wish) => consume::run(&root, &wish).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            say::note(sentence);
            ExitCode::FAILURE
        }
    }
}
