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
        Act::Stage(arguments) => stage::run(&root, &arguments.into()).map_err(|error| error.to_string()),
        Act::Unstage(arguments) => unstage::run(&root, &arguments).map_err(|error| error.to_string()),
        Act::Status(arguments) => status::run(&root, &arguments).map_err(|error| error.to_string()),
        Act::Check(arguments) => check::run(&root, &arguments).map_err(|error| error.to_string()),
        Act::Reboot(arguments) => reboot::run(&root, &arguments).map_err(|error| error.to_string()),
        Act::Report(arguments) => report::run(&root, &arguments).map_err(|error| error.to_string()),
        Act::Exitrd(arguments) => exitrd::run(&root, &arguments).map_err(|error| error.to_string()),
        Act::Embed(arguments) => embed::run(&root, &arguments).map_err(|error| error.to_string()),
        Act::Entries(arguments) => entries::run(&root, &arguments).map_err(|error| error.to_string()),
        Act::Updated(arguments) => {
            updated::run(&root, &arguments);
            Ok(())
        }
        Act::Arrived(arguments) => consume::run(&root, &arguments).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            say::note(sentence);
            ExitCode::FAILURE
        }
    }
}
