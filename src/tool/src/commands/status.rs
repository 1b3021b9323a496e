//! The status command: prints the staged kernel, and the outcome of each reboot command.

use clap::Args;

use crate::machine::root::Root;
use crate::status::{self, Error};

/// Show what is staged and what each way down leads to
#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Prints the status.
pub fn run(root: &Root, arguments: &Arguments) -> Result<(), Error> {
    status::print(root, arguments.json)
}
