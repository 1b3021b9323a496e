//! The stage command: stages, and prints what will happen.

use nextkernel_plan::HandoffId;

use crate::commands::status;
use crate::loading::syscall;
use crate::machine::elsewhere::see_that_this_is_the_system;
use crate::machine::root::Root;
use crate::request::arguments::Wish;
use crate::request::firmware;
use crate::staging::stage::{Error, Staged, stage};
use crate::words::say;

/// Stages, prints what will happen, and returns the handoff's id.
pub fn run(root: &Root, wish: &Wish) -> Result<HandoffId, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    see_that_this_is_the_system(root)?;
    let Staged { handoff, notes } = stage(root, wish, syscall::calls(root))?;
    firmware::take_back(root);
    for note in notes {
        say::note(note);
    }
    // The plan is in place. A failure to show it does not undo it.
    let _ = status::run(root, &status::Wish::default());
    Ok(handoff)
}
