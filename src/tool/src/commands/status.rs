//! The status command: prints what is staged, and where each reboot command leads.

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
