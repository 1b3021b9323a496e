//! The stage command: stages, and prints the status.

use thiserror::Error;

use crate::machine::elsewhere::{Elsewhere, see_that_this_is_the_system};
use crate::machine::root::Root;
use crate::machine::superuser::{NotRoot, see_that_this_is_root};
use crate::request::arguments::Wish;
use crate::staging::directory::FOLDER;
use crate::staging::stage;
use crate::status::stage::stage_and_print;

/// A reason why nothing was staged.
#[derive(Debug, Error)]
pub enum Error {
    /// The caller is not root.
    #[error(transparent)]
    NotRoot(#[from] NotRoot),
    /// `/` is not the running system.
    #[error(transparent)]
    Elsewhere(#[from] Elsewhere),
    /// Staging failed.
    #[error(transparent)]
    Stage(#[from] stage::Error),
}

/// Stages, and prints the status.
pub fn run(root: &Root, wish: &Wish) -> Result<(), Error> {
    see_that_this_is_root(FOLDER)?;
    see_that_this_is_the_system(root)?;
    stage_and_print(root, wish)?;
    Ok(())
}
