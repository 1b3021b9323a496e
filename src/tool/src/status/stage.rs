//! Staging with its result shown: the stage command, and a reboot that stages first.

use nextkernel_plan::HandoffId;

use crate::loading::syscall;
use crate::machine::root::Root;
use crate::request::firmware;
use crate::request::stage::StageRequest;
use crate::staging::stage::{Error, Staged, stage};
use crate::status;
use crate::words::say;

/// Stages, prints the notes and the status, and returns the handoff's id.
pub fn stage_and_print(root: &Root, request: &StageRequest) -> Result<HandoffId, Error> {
    let Staged { handoff, notes } = stage(root, request, syscall::calls(root))?;
    firmware::take_back(root);
    for note in notes {
        say::note(note);
    }
    // The plan is in place. A failure to show it does not undo it.
    let _ = status::print(root, false);
    Ok(handoff)
}
