//! The unstage command: withdraws a staged kernel.

use clap::Args;
use thiserror::Error;

use crate::machine::root::Root;
use crate::staging::unstage::{self, Condition};
use crate::words::say;

/// Take back what is staged, and unload what was preloaded
#[derive(Args, Debug, Default)]
pub struct Wish {
    /// Only if this entry is the one that is staged
    pub entry: Option<String>,
    /// Only if what is staged follows the boot loader (`nextkernel stage --follow`)
    #[arg(long, conflicts_with = "entry")]
    pub follow: bool,
}

/// A reason why the kernel is still staged.
#[derive(Debug, Error)]
pub enum Error {
    /// The caller is not root.
    #[error("/run/nextkernel belongs to root; run this with sudo")]
    NotRoot,
    /// Unstaging failed.
    #[error(transparent)]
    Unstage(#[from] unstage::Error),
}

/// Unstages, and prints the result.
pub fn run(root: &Root, wish: &Wish) -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let condition = Condition { entry: wish.entry.clone(), follow: wish.follow, handoff: None };
    say::say(unstage::unstage(root, &condition)?);
    Ok(())
}
