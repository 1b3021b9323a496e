//! The stage command: stages, and prints where each reboot command will lead.

use nextkernel_plan::HandoffId;

use crate::machine::elsewhere::see_that_this_is_the_system;
use crate::machine::root::Root;
use crate::request::arguments::Wish;
use crate::staging::stage::Error;
use crate::status::stage::stage_and_print;

/// Stages, prints the status, and returns the handoff's id.
pub fn run(root: &Root, wish: &Wish) -> Result<HandoffId, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    see_that_this_is_the_system(root)?;
    stage_and_print(root, wish)
}
