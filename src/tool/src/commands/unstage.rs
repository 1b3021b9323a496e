//! The unstage command: withdraws a staged kernel.

use clap::Args;
use thiserror::Error;

use crate::machine::root::Root;
use crate::machine::superuser::{NotRoot, see_that_this_is_root};
use crate::staging::directory::DIRECTORY;
use crate::staging::unstage::{self, Condition};
use crate::words::say;

/// Take back what is staged, and unload what was preloaded
#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// Only if this entry is the one that is staged
    entry: Option<String>,
    /// Only if what is staged follows the boot loader (`nextkernel stage --follow`)
    #[arg(long, conflicts_with = "entry")]
    follow: bool,
}

/// A reason why the kernel is still staged.
#[derive(Debug, Error)]
pub enum Error {
    /// The caller is not root.
    #[error(transparent)]
    NotRoot(#[from] NotRoot),
    /// Unstaging failed.
    #[error(transparent)]
    Unstage(#[from] unstage::Error),
}

/// Unstages, and prints the result.
pub fn run(root: &Root, arguments: &Arguments) -> Result<(), Error> {
    see_that_this_is_root(DIRECTORY)?;
    let condition = Condition { entry: arguments.entry.clone(), follow: arguments.follow, handoff: None };
    say::say(unstage::unstage(root, &condition)?);
    Ok(())
}
